//! Whether the peer acknowledges the data of the program, for the idle timeout.

use std::collections::VecDeque;
use std::time::Duration;

use super::timers::IdleTimes;
use crate::types::liveness::Acknowledged;

/// A live peer answers within this time and two round trips. Delayed acknowledgments take up to half
/// a second (RFC 9293 section 3.8.6.3).
pub(super) const MAX_ANSWER_TIME: Duration = Duration::from_millis(600);

/// The kernel sends a heartbeat within this time after accepting it, unless other data is queued.
const HEARTBEAT_SEND_TIME: Duration = Duration::from_millis(50);

/// The kernel reports the time of the last acknowledgment in ticks, of 10 ms at most (HZ of 100).
const TICK: Duration = Duration::from_millis(10);

/// The number of heartbeats whose times are kept.
const MAX_TIMES: usize = 16;

/// The time within which a live peer acknowledges data.
fn answer_time(kernel: &Acknowledged) -> Duration {
    MAX_ANSWER_TIME + kernel.rtt * 2
}

/// The shortest possible time since data was acknowledged. If no data is in flight, later
/// acknowledgments answer probes.
fn since_data_acknowledged(kernel: &Acknowledged) -> Duration {
    let probes = if kernel.in_flight { Duration::ZERO } else { kernel.sent };
    kernel.heard.max(probes.saturating_sub(answer_time(kernel)))
}

/// The acknowledgments of data that the program has sent. It is updated when the idle timeout would
/// otherwise expire. Points in time are durations since any fixed start.
#[derive(Debug, Default)]
pub(crate) struct AckProgress {
    /// The number of acknowledged bytes, without heartbeats, at the last update that saw progress.
    bytes: Option<u64>,
    /// The number of bytes of heartbeats since the first update.
    heartbeat_bytes: u64,
    /// The number of bytes of the last heartbeat.
    heartbeat_len: u64,
    /// When the last heartbeats were sent, of which the peer may not have acknowledged each.
    sent_at: VecDeque<Duration>,
    /// The last known time at which bytes of the program were acknowledged.
    active: Option<Duration>,
    /// The time since which an acknowledgment is awaited.
    awaited_since: Option<Duration>,
}

impl AckProgress {
    pub(crate) fn note_heartbeat(&mut self, now: Duration, len: usize) {
        self.heartbeat_bytes += len as u64;
        self.heartbeat_len = len as u64;
        if self.sent_at.len() == MAX_TIMES {
            self.sent_at.pop_front();
        }
        self.sent_at.push_back(now);
    }

    /// The number of bytes of unacknowledged heartbeats: of the heartbeats that were sent after the last
    /// acknowledgment, and of a heartbeat that is the last sent data.
    fn unacknowledged(&self, now: Duration, heartbeat_last: bool, kernel: &Acknowledged) -> u64 {
        let later = |at: &&Duration| now.saturating_sub(**at) + TICK < kernel.heard;
        let later = self.sent_at.iter().filter(later).count() as u64;
        self.heartbeat_len * later.max(u64::from(heartbeat_last))
    }

    /// The time since bytes of the program were last acknowledged.
    pub(crate) fn age(&self, now: Duration) -> Option<Duration> {
        self.active.map(|active| now.saturating_sub(active))
    }

    /// Updates the progress when the timeout would expire. `kernel` is the report of the kernel;
    /// `None`: the kernel does not report acknowledgments, and then accepted data counts.
    pub(crate) fn update(
        &mut self,
        now: Duration,
        timeout: Duration,
        times: IdleTimes,
        kernel: Option<Acknowledged>,
    ) {
        let wrote = now.saturating_sub(times.wrote);
        let Some(kernel) = kernel else {
            self.active = self.active.max(Some(wrote));
            return;
        };
        if !kernel.outstanding {
            self.active = self.active.max(Some(wrote));
            self.sent_at.clear();
        }
        let received = now.saturating_sub(times.received);
        let before = self.active.unwrap_or_default().max(received);
        // The first update has no earlier count. Then data was acknowledged, unless the last sent
        // data is a heartbeat. The kernel counts the SYN of a client as one byte.
        let is_last = |beat: &Duration| {
            *beat <= times.wrote && kernel.sent.abs_diff(*beat) <= HEARTBEAT_SEND_TIME
        };
        let heartbeat_last = times.beat.as_ref().is_some_and(is_last);
        let in_flight = match kernel.outstanding {
            true => self.unacknowledged(now, heartbeat_last, &kernel),
            false => 0,
        };
        let bytes = kernel.bytes.saturating_sub(self.heartbeat_bytes.saturating_sub(in_flight));
        let progress = match self.bytes {
            Some(old) => bytes > old,
            None => bytes > 1 && !heartbeat_last || kernel.outstanding && wrote > before,
        };
        if progress {
            self.active =
                self.active.max(Some(now.saturating_sub(since_data_acknowledged(&kernel))));
        }
        if progress || self.bytes.is_none() {
            self.bytes = Some(bytes);
        }
        if progress || !kernel.outstanding {
            self.awaited_since = None;
        }
        if kernel.outstanding && wrote > self.active.unwrap_or_default().max(received) {
            // Data that was just written may be acknowledged within the usual time.
            let since = *self.awaited_since.get_or_insert(now);
            self.active = self.active.max((since + answer_time(&kernel)).checked_sub(timeout));
        }
    }
}
