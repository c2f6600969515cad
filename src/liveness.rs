//! Liveness beyond keepalive: what is due on a connection, and when. Decisions only; the
//! clock and what the kernel knows are passed in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::info::End;
use crate::keepalive::{Keepalive, Setting};

/// The shortest time for dead_after and survive_idle: the kernel's keepalive counts in
/// whole seconds, and needs one to ask and one to be answered.
pub(crate) const SHORTEST: Duration = Duration::from_secs(2);
/// 45 s and five times the longest interval of keepalive.
pub(crate) const LONGEST: Duration = Duration::from_secs(45 + 5 * 32_767);

/// Bytes that tell the peer's program, and every proxy on the way, that this side lives.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    pub bytes: Arc<[u8]>,
    pub every: Duration,
}

/// What the options ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub dead_after: Option<Duration>,
    /// A peer that lives but takes no data is given up, too.
    pub end_stalled: bool,
    pub survive_idle: Option<Duration>,
    pub heartbeat: Option<Heartbeat>,
    pub idle_limit: Option<Duration>,
    /// In the place of the idle limit until something was received.
    pub first_byte_limit: Option<Duration>,
}

impl Asked {
    /// Whether a connection needs nothing but what its kernel does anyway.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.dead_after.is_none()
            && self.survive_idle.is_none()
            && self.heartbeat.is_none()
            && self.idle_limit.is_none()
            && self.first_byte_limit.is_none()
    }

    pub(crate) fn validate(&self, operation: &'static str) -> Result<()> {
        let refuse =
            |what: String| Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what));
        for (name, time) in [("dead_after", self.dead_after), ("survive_idle", self.survive_idle)] {
            if time.is_some_and(|t| !(SHORTEST..=LONGEST).contains(&t)) {
                return refuse(format!("{name} is not within {SHORTEST:?} to {LONGEST:?}"));
            }
        }
        if self.end_stalled && self.dead_after.is_none() {
            return refuse("end_stalled needs dead_after".to_owned());
        }
        if self.idle_limit.is_some_and(|t| t.is_zero()) {
            return refuse("idle limit is zero".to_owned());
        }
        if self.first_byte_limit.is_some_and(|t| t.is_zero()) {
            return refuse("first-byte limit is zero".to_owned());
        }
        match &self.heartbeat {
            Some(heartbeat) if heartbeat.bytes.is_empty() => {
                refuse("heartbeat is empty".to_owned())
            }
            Some(heartbeat) if heartbeat.every.is_zero() => {
                refuse("heartbeat interval is zero".to_owned())
            }
            Some(heartbeat) if self.idle_limit.is_some_and(|limit| limit <= heartbeat.every) => {
                refuse(format!("idle limit is not above the heartbeat's {:?}", heartbeat.every))
            }
            _ => Ok(()),
        }
    }
}

/// How long ago something happened on a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    /// The last bytes were read; if there were none, the connection was made.
    pub received: Duration,
    pub has_received: bool,
    /// Likewise, written.
    pub wrote: Duration,
}

impl Asked {
    /// The time of the watch; none if the kernel keeps it by itself. The user timeout does not
    /// replace it: that counts from the first unacknowledged byte, and a peer may have
    /// vanished nearly as long before.
    pub(crate) fn watched(&self) -> Option<Duration> {
        self.dead_after.filter(|_| crate::sys::TELLS_SILENCE)
    }

    /// The time after which the kernel gives up a peer, taking a full window for death.
    pub(crate) fn strict(&self) -> Option<Duration> {
        self.dead_after.filter(|_| self.end_stalled)
    }

    /// Whether threads that wait have something to do.
    pub(crate) fn has_dues(&self) -> bool {
        self.watched().is_some() || self.has_limits()
    }

    /// Whether it matters when bytes came and went.
    pub(crate) fn has_limits(&self) -> bool {
        self.heartbeat.is_some() || self.idle_limit.is_some() || self.first_byte_limit.is_some()
    }

    /// The limit that holds now, and the end that it means: heartbeats that were sent should
    /// have been answered; a peer that never said anything is idle.
    fn idle_limit(&self, has_received: bool) -> Option<(Duration, End)> {
        let first = self.first_byte_limit.map(|limit| (limit, End::IdleLimit));
        let missed = self.heartbeat.is_some();
        let end = if missed { End::HeartbeatMissed } else { End::IdleLimit };
        let later = self.idle_limit.map(|limit| (limit, end));
        if has_received { later } else { first.or(later) }
    }

    /// In what time a heartbeat or a limit is due. The idle limit holds for those that wait
    /// to read.
    pub(crate) fn next(&self, ages: Ages, reads: bool) -> Option<Duration> {
        let heartbeat =
            self.heartbeat.as_ref().map(|heartbeat| heartbeat.every.saturating_sub(ages.wrote));
        let limit = self
            .idle_limit(ages.has_received)
            .filter(|_| reads)
            .map(|(limit, _)| limit.saturating_sub(ages.received));
        [heartbeat, limit].into_iter().flatten().min()
    }

    /// Which of them is due now.
    pub(crate) fn due(&self, ages: Ages, reads: bool) -> Due {
        if reads {
            if let Some((limit, end)) = self.idle_limit(ages.has_received) {
                if ages.received >= limit {
                    return Due::End(end);
                }
            }
        }
        match &self.heartbeat {
            Some(heartbeat) if ages.wrote >= heartbeat.every => Due::Heartbeat,
            _ => Due::Nothing,
        }
    }
}

/// A peer that lives answers within this time and two round trips: delayed acknowledgements
/// take at most half a second (RFC 9293 section 3.8.6.3).
const LONGEST_ANSWER: Duration = Duration::from_millis(600);

/// What the kernel knows of a peer's silence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// How long ago the last segment came.
    pub heard: Duration,
    /// Data or a probe was sent that is not acknowledged.
    pub owes: bool,
    /// How long an answer takes.
    pub rtt: Duration,
}

/// The watch on a peer that may have vanished. Keepalive says nothing while data is
/// unacknowledged; the kernel's own answer to that, TCP_USER_TIMEOUT, takes a full receive
/// window for death. A peer that lives acknowledges each probe of its window, so it is its
/// silence that tells.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Since when, as far as was seen, the peer owes an answer without having been heard.
    owed_since: Option<Instant>,
    pub next: Instant,
}

impl Watch {
    /// A look each quarter of the time: an answer that is owed is then noticed early enough.
    pub(crate) fn new(now: Instant, dead_after: Duration) -> Watch {
        Watch { owed_since: None, next: now + dead_after / 4 }
    }

    /// Dead is a peer from which nothing came for `dead_after`, and which was seen to owe an
    /// answer for as long as answers take, at least. (The kernel does not tell since when one is
    /// owed; keepalive hears from a peer that lives in each third of the time or so.)
    pub(crate) fn is_dead(&mut self, now: Instant, dead_after: Duration, silence: Silence) -> bool {
        if !silence.owes {
            self.owed_since = None;
            // Often when the time is nearly over: keepalive of the caller's own may be that slow.
            let left = dead_after.saturating_sub(silence.heard).max(Duration::from_millis(250));
            self.next = now + left.min(dead_after / 4);
            return false;
        }
        let heard_since = |then: Instant| silence.heard < now.saturating_duration_since(then);
        let since = match self.owed_since {
            Some(since) if !heard_since(since) => since,
            _ => now,
        };
        self.owed_since = Some(since);
        let owed_for = now.saturating_duration_since(since);
        let answer = (dead_after / 4).min(LONGEST_ANSWER) + silence.rtt * 2;
        let left = dead_after.saturating_sub(silence.heard).max(answer.saturating_sub(owed_for));
        self.next = now + left;
        left.is_zero()
    }
}

/// What a look at the clock and at the kernel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Heartbeat,
    End(End),
}

/// The liveness of one connection. Threads that wait on it, and whoever calls
/// `check_alive`, do what is due.
#[derive(Debug)]
pub(crate) struct Liveness {
    asked: Asked,
    born: Instant,
    /// Milliseconds after `born`, and one: when the last bytes were read, and written. Zero:
    /// there were none.
    received: AtomicU64,
    wrote: AtomicU64,
    watch: Mutex<Watch>,
    /// How much of a heartbeat the kernel took, if not all of it.
    cut: Mutex<usize>,
    heartbeats: AtomicU64,
}

impl Liveness {
    pub(crate) fn new(asked: Asked, now: Instant) -> Liveness {
        Liveness {
            born: now,
            received: AtomicU64::new(0),
            wrote: AtomicU64::new(0),
            watch: Mutex::new(Watch::new(now, asked.dead_after.unwrap_or_default())),
            cut: Mutex::new(0),
            heartbeats: AtomicU64::new(0),
            asked,
        }
    }

    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Refuses keepalive that would break what was asked for.
    pub(crate) fn permits(&self, keepalive: Option<Keepalive>) -> Result<()> {
        let setting = keepalive.map_or(Setting::Off, Setting::Own);
        setting.resolve(self.asked.dead_after, self.asked.survive_idle).map(drop)
    }

    fn stamp(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    fn since(&self, stamp: &AtomicU64, now: Instant) -> Duration {
        let then = stamp.load(Ordering::Relaxed).saturating_sub(1);
        Duration::from_millis(self.stamp(now).saturating_sub(then))
    }

    pub(crate) fn note_received(&self, now: Instant) {
        self.received.store(self.stamp(now).saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn note_wrote(&self, now: Instant) {
        self.wrote.store(self.stamp(now).saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn note_heartbeat(&self, now: Instant) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
        self.note_wrote(now);
    }

    pub(crate) fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }

    pub(crate) fn heartbeat_bytes(&self) -> &[u8] {
        self.asked.heartbeat.as_ref().map_or(&[], |heartbeat| &heartbeat.bytes)
    }

    /// How far the heartbeat came that the kernel took a part of.
    pub(crate) fn cut(&self) -> MutexGuard<'_, usize> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ages(&self, now: Instant) -> Ages {
        Ages {
            received: self.since(&self.received, now),
            has_received: self.received.load(Ordering::Relaxed) != 0,
            wrote: self.since(&self.wrote, now),
        }
    }

    /// When to look again, from now.
    pub(crate) fn next(&self, now: Instant, reads: bool) -> Option<Duration> {
        let watched = self.asked.watched();
        let watch = watched.map(|_| self.lock_watch().next.saturating_duration_since(now));
        [watch, self.asked.next(self.ages(now), reads)].into_iter().flatten().min()
    }

    /// Whether it is time to ask the kernel about the peer's silence.
    pub(crate) fn wants_silence(&self, now: Instant) -> bool {
        self.asked.watched().is_some() && self.lock_watch().next <= now
    }

    /// The kernel did not tell; it is asked again later.
    pub(crate) fn put_off_look(&self, now: Instant) {
        if let Some(dead_after) = self.asked.watched() {
            self.lock_watch().next = now + dead_after / 4;
        }
    }

    /// What is due now. `silence` is what the kernel knows, if it was asked.
    pub(crate) fn due(&self, now: Instant, silence: Option<Silence>, reads: bool) -> Due {
        if let (Some(silence), Some(dead_after)) = (silence, self.asked.watched()) {
            if self.lock_watch().is_dead(now, dead_after, silence) {
                return Due::End(End::Dead);
            }
        }
        self.asked.due(self.ages(now), reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A peer that acknowledges what comes until it vanishes, and a connection on which
    /// data is written at some moments; times from the start.
    struct Scene {
        vanishes: Duration,
        writes: Vec<Duration>,
        /// The kernel asks an idle peer after this time of silence, and from then on it owes.
        keepalive: Duration,
    }

    impl Scene {
        fn silence(&self, at: Duration) -> Silence {
            let alive_until = at.min(self.vanishes);
            let answered = self.writes.iter().copied().filter(|w| *w < alive_until).max();
            // Keepalive asks for the first time after `keepalive` of silence.
            let mut heard_at = Duration::ZERO;
            loop {
                let next = (heard_at + self.keepalive).min(
                    self.writes.iter().copied().find(|w| *w > heard_at).unwrap_or(Duration::MAX),
                );
                if next >= alive_until {
                    break;
                }
                heard_at = next;
            }
            heard_at = heard_at.max(answered.unwrap_or_default());
            let asked = self.writes.iter().any(|w| *w >= self.vanishes && *w <= at)
                || at >= heard_at + self.keepalive;
            Silence { heard: at - heard_at, owes: asked && at >= self.vanishes, rtt: ms(20) }
        }

        /// When it is reported as dead, as late as the looks allow.
        fn reported(&self, dead_after: Duration, until: Duration) -> Option<Duration> {
            let start = Instant::now();
            let mut watch = Watch::new(start, dead_after);
            loop {
                let at = watch.next - start;
                if at > until {
                    return None;
                }
                if watch.is_dead(start + at, dead_after, self.silence(at)) {
                    return Some(at);
                }
                assert!(watch.next > start + at, "it looks all the time");
            }
        }
    }

    /// K3: a peer that vanishes is reported within the time, whenever that is, idle or not.
    #[test]
    fn a_peer_that_vanishes_is_reported_in_time() {
        for dead_after in [2 * S, 4 * S, 10 * S, 120 * S] {
            let keepalive = (dead_after / 3).max(S).min(45 * S);
            for vanishes in (0..80).map(|i| dead_after * i / 7 + ms(13)) {
                for write_after in [ms(1), ms(400), dead_after / 5, keepalive - ms(20)] {
                    let writes = vec![vanishes / 2, vanishes + write_after];
                    let scene = Scene { vanishes, writes, keepalive };
                    let at = scene.reported(dead_after, Duration::MAX).unwrap();
                    let silent = scene.silence(at).heard;
                    assert!(silent >= dead_after, "after {silent:?}, {dead_after:?} was asked");
                    assert!(
                        at <= vanishes + dead_after + ms(500),
                        "{at:?}: {vanishes:?} + {dead_after:?}"
                    );
                }
            }
        }
    }

    /// K3: a program that was not in calls while the peer vanished, and then writes, waits no
    /// longer than a second more.
    #[test]
    fn a_look_that_comes_late() {
        for dead_after in [2 * S, 4 * S, 10 * S, 120 * S] {
            let start = Instant::now();
            let mut watch = Watch::new(start, dead_after);
            // Nothing came since the start; the first look is just before the time is over.
            let first = start + dead_after - ms(1);
            let silence = |at: Instant| Silence { heard: at - start, owes: true, rtt: ms(50) };
            assert!(!watch.is_dead(first, dead_after, silence(first)));
            let second = watch.next;
            assert!(watch.is_dead(second, dead_after, silence(second)));
            assert!(second <= start + dead_after + ms(900), "{:?}", second - start);
        }
    }

    /// K3: a peer that lives is never reported, whatever is written and when.
    #[test]
    fn a_peer_that_lives_is_not_reported() {
        let writes = (0..200).map(|i| ms(i * i * 7)).collect();
        let scene = Scene { vanishes: Duration::MAX, writes, keepalive: S };
        assert_eq!(scene.reported(2 * S, 300 * S), None);
    }

    /// K3: a peer whose window is full answers each probe, and between two probes is silent
    /// for longer than the time: it lives.
    #[test]
    fn a_full_window_is_not_death() {
        let start = Instant::now();
        let mut watch = Watch::new(start, 4 * S);
        let mut probe = S;
        let mut heard = start;
        let mut now = start;
        while now < start + 200 * S {
            now = watch.next;
            // Probes back off, as without TCP_RTO_MAX_MS; each is answered after 200 ms.
            let sent = start + probe;
            if now >= sent + ms(200) {
                heard = sent + ms(200);
                probe *= 2;
            }
            let owes = now >= start + probe;
            let silence = Silence { heard: now - heard, owes, rtt: ms(200) };
            assert!(!watch.is_dead(now, 4 * S, silence), "after {:?}", now - start);
        }
    }

    fn liveness(asked: Asked) -> (Liveness, Instant) {
        asked.validate("test").unwrap();
        let start = Instant::now();
        (Liveness::new(asked, start), start)
    }

    fn heartbeat(every: Duration) -> Option<Heartbeat> {
        Some(Heartbeat { bytes: Arc::from(*b"PING"), every })
    }

    /// K5: a heartbeat is due after a time without writing, and no sooner.
    #[test]
    fn heartbeats() {
        let (live, start) = liveness(Asked { heartbeat: heartbeat(2 * S), ..Asked::default() });
        assert_eq!(live.next(start, true), Some(2 * S));
        assert_eq!(live.due(start + ms(1999), None, true), Due::Nothing);
        assert_eq!(live.due(start + 2 * S, None, true), Due::Heartbeat);
        live.note_wrote(start + 3 * S);
        assert_eq!(live.due(start + 4 * S, None, true), Due::Nothing);
        assert_eq!(live.next(start + 4 * S, false), Some(S));
    }

    /// K5, K6: the idle limit ends a connection on which nothing comes; with heartbeats it is
    /// they that were missed. Only who waits to read is concerned.
    #[test]
    fn the_idle_limit() {
        for (heartbeat, end) in [(None, End::IdleLimit), (heartbeat(S), End::HeartbeatMissed)] {
            let (live, start) =
                liveness(Asked { idle_limit: Some(3 * S), heartbeat, ..Asked::default() });
            live.note_received(start + S);
            live.note_wrote(start + 3 * S + ms(500));
            assert_eq!(live.due(start + 4 * S - ms(1), None, true), Due::Nothing);
            assert_eq!(live.due(start + 4 * S, None, true), Due::End(end));
            assert_eq!(live.due(start + 4 * S, None, false), Due::Nothing);
        }
    }

    /// V4: until the first byte another limit holds, and then none if there is none.
    #[test]
    fn the_first_byte() {
        let asked = Asked { first_byte_limit: Some(2 * S), ..Asked::default() };
        let (live, start) = liveness(asked.clone());
        assert_eq!(live.next(start, true), Some(2 * S));
        assert_eq!(live.due(start + 2 * S - ms(1), None, true), Due::Nothing);
        assert_eq!(live.due(start + 2 * S, None, true), Due::End(End::IdleLimit));
        live.note_received(start);
        assert_eq!(
            (live.next(start, true), live.due(start + 99 * S, None, true)),
            (None, Due::Nothing)
        );
        let (live, start) = liveness(Asked { idle_limit: Some(5 * S), ..asked });
        live.note_received(start + S);
        assert_eq!(live.due(start + 6 * S - ms(1), None, true), Due::Nothing);
        assert_eq!(live.due(start + 6 * S, None, true), Due::End(End::IdleLimit));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let second = Some(S);
        for asked in [
            Asked { dead_after: second, ..Asked::default() },
            Asked { survive_idle: Some(ms(1999)), ..Asked::default() },
            Asked { dead_after: Some(LONGEST + S), ..Asked::default() },
            Asked { end_stalled: true, ..Asked::default() },
            Asked { idle_limit: Some(Duration::ZERO), ..Asked::default() },
            Asked { first_byte_limit: Some(Duration::ZERO), ..Asked::default() },
            Asked { heartbeat: heartbeat(Duration::ZERO), ..Asked::default() },
            Asked { heartbeat: heartbeat(S), idle_limit: second, ..Asked::default() },
            Asked {
                heartbeat: Some(Heartbeat { bytes: Arc::from(*b""), every: S }),
                ..Asked::default()
            },
        ] {
            let err = asked.validate("test").unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{asked:?}");
        }
    }
}
