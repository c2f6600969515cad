//! Heartbeat, heartbeat timeout and idle timeout of a connection: which is due, and when.

use std::time::Duration;

use super::pauses::Pauses;
use crate::types::close_reason::CloseReason;
use crate::types::liveness::LivenessConfig;

/// The time that a program has to read bytes that have arrived shortly before the idle timeout.
const READ_TIME: Duration = Duration::from_millis(50);

/// The times since the events of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdleTimes {
    /// Since bytes were last read, or since the connection was made.
    pub received: Duration,
    /// Whether bytes were read.
    pub has_received: bool,
    /// Since the kernel last accepted bytes of the program, or since the connection was made.
    pub wrote: Duration,
    /// Since the last heartbeat was sent or could not be sent.
    pub beat: Option<Duration>,
    /// Since the first heartbeat after bytes were last received. `None`: no heartbeat is unanswered.
    pub unanswered: Option<Duration>,
    /// Since the peer's kernel last acknowledged bytes of the program, as far as it was queried.
    pub acknowledged: Option<Duration>,
    /// Since the program has been given time to read bytes.
    pub unread: Option<Duration>,
}

/// An action that is due on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Heartbeat,
    Close(CloseReason),
}

/// The timers of one connection at one point in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timers<'a> {
    pub config: &'a LivenessConfig,
    pub times: IdleTimes,
    pub pauses: &'a Pauses,
    /// On the clock of `pauses`.
    pub now: Duration,
    /// The program waits for input, or the peer has closed its side. The idle timeout applies only
    /// then.
    pub reads: bool,
    /// The program reads bytes as they arrive, so it will receive an answer to a heartbeat.
    pub receives: bool,
    /// A heartbeat may be sent: this side has not shut down sending, and no message is incomplete.
    pub may_beat: bool,
}

impl Timers<'_> {
    /// The time until the next heartbeat.
    fn heartbeat(&self) -> Option<Duration> {
        let every = self.config.heartbeat.as_ref().filter(|_| self.may_beat)?.every;
        let left = |since: Duration| every.saturating_sub(since);
        let beat = self.times.beat.unwrap_or(Duration::MAX);
        let written = left(self.times.wrote.min(beat));
        let Some(timeout) = self.config.heartbeat_timeout else {
            return Some(written);
        };
        // If the unanswered heartbeat was sent before a pause, the library sends another heartbeat.
        if self.paused_since(self.times.unanswered, timeout)
            && self.paused_since(Some(beat), timeout)
        {
            return Some(Duration::ZERO);
        }
        Some(written.min(left(self.times.received.min(beat))))
    }

    /// Whether the heartbeat timeout restarted because of a pause that ended within `age`.
    fn paused_since(&self, age: Option<Duration>, timeout: Duration) -> bool {
        let restart = self.pauses.restart(timeout, self.times.received, self.now);
        matches!((restart, age), (Some(restart), Some(age)) if restart < age)
    }

    /// The time until the heartbeat timeout. A peer fails only by a heartbeat that was sent, and not
    /// by one that was sent before a pause.
    fn heartbeat_timeout(&self) -> Option<Duration> {
        let timeout = self.config.heartbeat_timeout.filter(|_| self.receives)?;
        let unanswered = self.times.unanswered?;
        let counts = !self.paused_since(Some(unanswered), timeout);
        counts.then(|| timeout.saturating_sub(unanswered))
    }

    /// The time until the idle timeout or the first-byte timeout. Heartbeats do not count as traffic,
    /// but their answers do.
    fn idle_timeout(&self) -> Option<Duration> {
        let first = self.config.first_byte_timeout.filter(|_| !self.times.has_received);
        let timeout = first.or(self.config.idle_timeout).filter(|_| self.reads)?;
        let mut idle = self.times.received;
        if let Some(sent) = self.times.acknowledged.filter(|_| self.counts_sent()) {
            idle = idle.min(sent);
        }
        idle = self.pauses.restart(timeout, idle, self.now).unwrap_or(idle);
        let to_read = |since| READ_TIME.min(timeout / 4).saturating_sub(since);
        Some(timeout.saturating_sub(idle).max(self.times.unread.map_or(Duration::ZERO, to_read)))
    }

    /// Whether sent data counts as traffic for the timeout that applies now.
    pub(crate) fn counts_sent(&self) -> bool {
        let first = self.config.first_byte_timeout.is_some() && !self.times.has_received;
        !first && self.config.counts_sent()
    }

    /// The time until a limit ends the connection. `None`: no limit applies.
    pub(crate) fn next_end(&self) -> Option<Duration> {
        self.heartbeat_timeout().into_iter().chain(self.idle_timeout()).min()
    }

    /// The time until an action is due. `None`: no action will be due.
    pub(crate) fn next(&self) -> Option<Duration> {
        [self.heartbeat(), self.heartbeat_timeout(), self.idle_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The action that is due now.
    pub(crate) fn due(&self) -> Due {
        match () {
            () if self.heartbeat_timeout() == Some(Duration::ZERO) => {
                Due::Close(CloseReason::HeartbeatTimeout)
            }
            () if self.idle_timeout() == Some(Duration::ZERO) => {
                Due::Close(CloseReason::IdleTimeout)
            }
            () if self.heartbeat() == Some(Duration::ZERO) => Due::Heartbeat,
            () => Due::Nothing,
        }
    }

    /// Whether a heartbeat that is sent now starts the heartbeat timeout. It does if no heartbeat is
    /// unanswered, or if a pause followed the unanswered one.
    pub(crate) fn starts_heartbeat_timeout(&self) -> bool {
        let timeout = self.config.heartbeat_timeout.unwrap_or_default();
        self.times.unanswered.is_none() || self.paused_since(self.times.unanswered, timeout)
    }
}
