//! The liveness of one connection: when heartbeats, queries and timeouts are due. Decisions only:
//! the caller passes the time and the kernel's reports.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::ack_progress::AckProgress;
use super::pauses::Pauses;
use super::peer_watch::PeerWatch;
use super::timers::{Due, IdleTimes, Timers};
use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::sys::sync::{Mutex, MutexGuard};
use crate::types::close_reason::CloseReason;
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::keepalive::{Keepalive, KeepaliveSetting};
use crate::types::liveness::{Acknowledged, LivenessConfig, Silence};

impl LivenessConfig {
    /// `dead_after`, if the library has to check it. `None`: the kernel checks it, or it is not
    /// configured. TCP_USER_TIMEOUT does not replace the check. It starts at the first
    /// unacknowledged byte, and the peer may have vanished almost as long before.
    pub(crate) fn watched(&self) -> Option<Duration> {
        self.watched_up_to(crate::sys::LONGEST_SILENCE?)
    }

    /// A check for a longer time than the kernel reports would never find a dead peer.
    pub(super) fn watched_up_to(&self, longest_silence: Duration) -> Option<Duration> {
        self.dead_after.map(|time| time.min(longest_silence))
    }

    /// Fails if an open connection could not keep this configuration with these keepalive values.
    pub(crate) fn permits(&self, keepalive: Option<Keepalive>) -> Result<()> {
        let Some(own) = keepalive else {
            return match self.dead_after.or(self.middlebox_timeout) {
                None => Ok(()),
                Some(_) => Err(Error::new(ErrorKind::InvalidArgument, "").detail(
                    "dead_after and middlebox_timeout need keepalive: turn them off first",
                )),
            };
        };
        let setting = KeepaliveSetting::Own(own);
        setting.resolve(self.dead_after, self.middlebox_timeout).map(drop)
    }

    /// Whether a waiting thread has liveness checks to run.
    pub(crate) fn has_dues(&self) -> bool {
        self.watched().is_some() || self.has_limits()
    }
}

/// The kernel counts the time since bytes arrived in ticks, of 10 ms at most (HZ of 100). So bytes may
/// have arrived later than it reports.
const TICK: Duration = Duration::from_millis(10);

/// The time after which a call that does not read first looks for an end by a limit.
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// The liveness of one connection. Threads that wait on the connection, and callers of
/// `check_liveness`, run the actions that are due.
#[derive(Debug)]
pub(crate) struct Liveness {
    started_at: Instant,
    /// When bytes were last read: nanoseconds after `started_at`, plus one. 0: never. A coarser time
    /// could be before a heartbeat that the bytes answer.
    received: AtomicU64,
    /// When the kernel last accepted bytes of the program, in the same form.
    wrote: AtomicU64,
    /// When the peer's FIN was read, in the same form.
    eof: AtomicU64,
    state: Mutex<State>,
    partial: Mutex<PartialHeartbeat>,
    /// The number of heartbeats sent.
    heartbeats: AtomicU64,
}

/// Points in time are durations since `started_at`.
#[derive(Debug)]
struct State {
    config: Arc<LivenessConfig>,
    watch: PeerWatch,
    pauses: Pauses,
    /// The time until which a caller attends to the connection. A later call follows a pause.
    attended_until: Duration,
    last_attempt: Option<Duration>,
    /// The heartbeat whose answer is awaited, unless bytes were received after it.
    awaited: Option<Duration>,
    progress: AckProgress,
    /// The value of `received` when the program was given time to read bytes, and when that was.
    to_read: Option<(u64, Duration)>,
    /// When unread bytes last arrived that answer a heartbeat.
    answered: Option<Duration>,
    /// The number of unread bytes at the last check for an answer, and the value of `received` then.
    unread: Option<(u64, u64)>,
}

/// A heartbeat of which the kernel has accepted the first `done` bytes.
#[derive(Debug, Default)]
pub(crate) struct PartialHeartbeat {
    pub bytes: Arc<Vec<u8>>,
    pub done: usize,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Liveness {
    pub(crate) fn new(config: LivenessConfig, now: Instant) -> Liveness {
        let state = State {
            watch: PeerWatch::new(now, config.watched().unwrap_or_default()),
            config: Arc::new(config),
            pauses: Pauses::default(),
            attended_until: Duration::ZERO,
            last_attempt: None,
            awaited: None,
            progress: AckProgress::default(),
            to_read: None,
            answered: None,
            unread: None,
        };
        Liveness {
            started_at: now,
            received: AtomicU64::new(0),
            wrote: AtomicU64::new(0),
            eof: AtomicU64::new(0),
            state: Mutex::new(state),
            partial: Mutex::default(),
            heartbeats: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn config(&self) -> Arc<LivenessConfig> {
        self.lock().config.clone()
    }

    /// Changes the configuration of the open connection.
    pub(crate) fn change(&self, change: impl FnOnce(&mut LivenessConfig), now: Instant) {
        let mut state = self.lock();
        let before = state.config.dead_after;
        change(Arc::make_mut(&mut state.config));
        if state.config.dead_after != before {
            state.watch = PeerWatch::new(now, state.config.watched().unwrap_or_default());
        }
    }

    /// Fails if the connection could not keep its configuration with these keepalive values.
    pub(crate) fn permits(&self, keepalive: Option<Keepalive>) -> Result<()> {
        self.config().permits(keepalive)
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started_at)
    }

    fn stamp(&self, stamp: &AtomicU64, now: Instant) {
        stamp.store(nanos(self.elapsed(now)).saturating_add(1), Ordering::Relaxed);
    }

    /// Records that bytes were read.
    pub(crate) fn note_received(&self, now: Instant) {
        self.stamp(&self.received, now);
        // The reader leaves the call. The time until its next call is not idle time of the peer.
        self.lock().attended_until = self.elapsed(now);
    }

    /// Whether bytes were read.
    #[cfg(feature = "serve")]
    pub(crate) fn has_received(&self) -> bool {
        self.received.load(Ordering::Relaxed) != 0
    }

    /// Records that the peer has sent FIN. Nothing can be received from then on, so the idle timeout
    /// applies to every wait, and no heartbeat can be answered.
    pub(crate) fn note_eof(&self, now: Instant) {
        if self.eof.load(Ordering::Relaxed) == 0 {
            self.stamp(&self.eof, now);
            self.lock().attended_until = self.elapsed(now);
        }
    }

    /// Records that the kernel has accepted bytes of the program.
    pub(crate) fn note_wrote(&self, now: Instant) {
        self.stamp(&self.wrote, now);
    }

    /// Records an attempt to send a heartbeat. The next heartbeat is due one interval later, whether
    /// the attempt succeeds or not.
    pub(crate) fn note_attempt(&self, now: Instant) {
        self.lock().last_attempt = Some(self.elapsed(now));
    }

    /// Records that the kernel has accepted the start of a heartbeat of `len` bytes.
    pub(crate) fn note_heartbeat(&self, now: Instant, len: usize) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
        self.lock().progress.note_heartbeat(self.elapsed(now), len);
    }

    /// Records that the kernel has accepted a whole heartbeat, which the peer can answer. `begun` is
    /// a time before the send: another thread may read the answer before this call.
    pub(crate) fn note_sent(&self, begun: Instant) {
        let mut state = self.lock();
        if self.timers(&state, begun, true).starts_heartbeat_timeout() {
            state.awaited = Some(self.elapsed(begun));
        }
    }

    /// The number of heartbeats sent.
    pub(crate) fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }

    /// Locks the heartbeat that is being sent.
    pub(crate) fn partial(&self) -> MutexGuard<'_, PartialHeartbeat> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timers<'a>(&self, state: &'a State, now: Instant, reads: bool) -> Timers<'a> {
        let elapsed = self.elapsed(now);
        let since = |stamp: &AtomicU64| {
            let then = stamp.load(Ordering::Relaxed).saturating_sub(1);
            Duration::from_nanos(nanos(elapsed).saturating_sub(then))
        };
        let ended = self.eof.load(Ordering::Relaxed) != 0;
        let received = since(if ended { &self.eof } else { &self.received });
        let age = |then: Duration| elapsed.saturating_sub(then);
        let times = IdleTimes {
            received,
            has_received: self.received.load(Ordering::Relaxed) != 0,
            wrote: since(&self.wrote),
            beat: state.last_attempt.map(age),
            unanswered: (state.awaited)
                .filter(|awaited| state.answered.is_none_or(|answered| answered < *awaited))
                .map(age)
                .filter(|awaited| *awaited < received),
            acknowledged: state.progress.age(elapsed),
            unread: state.to_read.map(|(_, then)| age(then)),
        };
        let (config, pauses) = (&*state.config, &state.pauses);
        let (reads, receives) = (reads || ended, reads && !ended);
        Timers { config, times, pauses, now: elapsed, reads, receives, may_beat: true }
    }

    /// The time until the next action or check. Until then, or until its own time limit `limit`, the
    /// caller attends to the connection. `None`: no action will be due.
    pub(crate) fn next(
        &self,
        now: Instant,
        reads: bool,
        limit: Option<Duration>,
    ) -> Option<Duration> {
        let mut state = self.lock();
        self.attend(&mut state, now);
        let watched = state.config.watched();
        let watch = watched.map(|_| state.watch.next.saturating_duration_since(now));
        let next = [watch, self.timers(&state, now, reads).next()].into_iter().flatten().min();
        if let Some(until) = [next, limit].into_iter().flatten().min() {
            let until = self.elapsed(now).saturating_add(until);
            state.attended_until = state.attended_until.max(until);
        }
        next
    }

    /// The time until a call that does not read, and to which the limits therefore do not apply, looks
    /// whether another thread has ended the connection by a limit. `looks` is the number of looks of
    /// the call since a limit has been over. `None`: there is no limit.
    ///
    /// A thread that waits for input ends the connection when the limit expires, so the first looks
    /// follow soon. A thread that begins to read later is noticed within a quarter of the limit.
    pub(crate) fn next_look(&self, now: Instant, looks: &mut u32) -> Option<Duration> {
        let state = self.lock();
        let left = self.timers(&state, now, true).next_end()?;
        if !left.is_zero() {
            *looks = 0;
            return Some(left);
        }
        let soon = FIRST_LOOK.saturating_mul(1 << (*looks).min(20));
        *looks = looks.saturating_add(1);
        let config = &state.config;
        let limits = [config.heartbeat_timeout, config.idle_timeout, config.first_byte_timeout];
        let longest = limits.into_iter().flatten().max().unwrap_or_default() / 4;
        Some(soon.min(longest.max(FIRST_LOOK)))
    }

    /// Records that a caller attends to the connection now. A long time without a caller was a pause.
    fn attend(&self, state: &mut State, now: Instant) {
        let elapsed = self.elapsed(now);
        let pause = elapsed.saturating_sub(state.attended_until);
        state.pauses.note(elapsed, pause);
        state.attended_until = state.attended_until.max(elapsed);
    }

    /// Whether a query of the peer's silence is due.
    pub(crate) fn wants_silence(&self, now: Instant) -> bool {
        let state = self.lock();
        state.config.watched().is_some() && state.watch.next <= now
    }

    /// Postpones the query of the peer's silence, because the kernel did not report it.
    pub(crate) fn postpone_silence_query(&self, now: Instant) {
        let mut state = self.lock();
        if let Some(dead_after) = state.config.watched() {
            state.watch.next = now + dead_after / 4;
        }
    }

    /// The action that is due now. `silence` is the report of the kernel, if it was queried.
    pub(crate) fn due(&self, now: Instant, silence: Option<Silence>, reads: bool) -> Due {
        let mut state = self.lock();
        self.attend(&mut state, now);
        if let (Some(silence), Some(dead_after)) = (silence, state.config.watched()) {
            if state.watch.is_dead(now, dead_after, silence) {
                return Due::Close(CloseReason::Dead);
            }
        }
        self.timers(&state, now, reads).due()
    }

    /// The action that is due now, after acknowledgments of sent data are taken into account. The
    /// idle timeout has expired unless the kernel reports acknowledgments.
    pub(crate) fn due_with_acknowledgments(
        &self,
        now: Instant,
        reads: bool,
        kernel: impl FnOnce() -> Option<Acknowledged>,
    ) -> Due {
        let mut state = self.lock();
        let timers = self.timers(&state, now, reads);
        let (Some(timeout), true) = (timers.config.idle_timeout, timers.counts_sent()) else {
            return timers.due();
        };
        let (times, elapsed) = (timers.times, timers.now);
        state.progress.update(elapsed, timeout, times, kernel());
        self.timers(&state, now, reads).due()
    }

    /// Gives the program a short time to read bytes that have arrived before the idle timeout expired.
    /// The result is `false` if the program was given the time already and has read nothing since. A
    /// peer must not keep a connection open by bytes that stay unread.
    pub(crate) fn gives_time_to_read(&self, now: Instant) -> bool {
        let received = self.received.load(Ordering::Relaxed);
        let mut state = self.lock();
        if state.to_read.is_some_and(|(before, _)| before == received) {
            return false;
        }
        state.to_read = Some((received, self.elapsed(now)));
        true
    }

    /// Whether unread bytes answer the awaited heartbeat, because they arrived after it. `unread` is
    /// their number, and `arrived` is the time since the last bytes arrived. If the kernel does not
    /// report that time, more unread bytes than at the last check are an answer.
    pub(crate) fn answered_by_unread(
        &self,
        now: Instant,
        unread: u64,
        arrived: Option<Duration>,
    ) -> bool {
        let received = self.received.load(Ordering::Relaxed);
        let elapsed = self.elapsed(now);
        let mut state = self.lock();
        let before = state.unread.replace((unread, received));
        let Some(awaited) = state.awaited.filter(|_| unread > 0) else {
            return false;
        };
        let answered = match arrived {
            Some(age) => elapsed.saturating_sub(age.saturating_sub(TICK)),
            None if before.is_some_and(|before| before.1 == received && before.0 >= unread) => {
                return false;
            }
            None => elapsed,
        };
        if answered < awaited {
            return false;
        }
        state.answered = Some(answered);
        true
    }
}
