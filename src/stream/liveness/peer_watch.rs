//! Detection of a peer that has vanished (`dead_after`).

use std::time::{Duration, Instant};

use super::ack_progress::MAX_ANSWER_TIME;
use crate::types::liveness::Silence;

/// The shortest interval of checks while the peer owes no answer.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Detects a peer that has vanished.
///
/// Keepalive sends no probes while data is unacknowledged. The kernel's own timeout for that case,
/// TCP_USER_TIMEOUT, also ends the connection of a live peer whose receive window is full. A live
/// peer acknowledges every window probe, so the time since the last segment distinguishes the two.
#[derive(Debug)]
pub(crate) struct PeerWatch {
    /// The first check since which the peer owes an answer and nothing has arrived.
    owed_since: Option<Instant>,
    /// The time of the next check.
    pub next: Instant,
}

impl PeerWatch {
    /// The first check comes after a quarter of `dead_after`, early enough to notice that an answer
    /// is owed.
    pub(crate) fn new(now: Instant, dead_after: Duration) -> PeerWatch {
        PeerWatch { owed_since: None, next: now + dead_after / 4 }
    }

    /// Whether the peer is dead. Sets the time of the next check.
    ///
    /// A peer is dead if nothing has arrived for `dead_after`, and if checks have seen it owe an
    /// answer at least for the time that an answer takes. The kernel does not report since when an
    /// answer is owed. A live peer answers a keepalive probe about three times within `dead_after`.
    pub(crate) fn is_dead(&mut self, now: Instant, dead_after: Duration, silence: Silence) -> bool {
        if !silence.owes {
            self.owed_since = None;
            // The interval becomes short towards the end of the time, because the program may have
            // configured keepalive probes that come so late.
            let left = dead_after.saturating_sub(silence.heard).max(MIN_INTERVAL);
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
        let answer = (dead_after / 4).min(MAX_ANSWER_TIME) + silence.rtt * 2;
        let left = dead_after.saturating_sub(silence.heard).max(answer.saturating_sub(owed_for));
        self.next = now + left;
        left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A peer that acknowledges everything until it vanishes. Times are durations from the start.
    struct Scene {
        vanishes: Duration,
        /// When data is written.
        writes: Vec<Duration>,
        /// The kernel sends a keepalive probe to an idle peer after this time without a segment.
        keepalive: Duration,
    }

    impl Scene {
        fn silence(&self, at: Duration) -> Silence {
            let alive_until = at.min(self.vanishes);
            let answered = self.writes.iter().copied().filter(|w| *w < alive_until).max();
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
            let probed = self.writes.iter().any(|w| *w >= self.vanishes && *w <= at)
                || at >= heard_at + self.keepalive;
            Silence { heard: at - heard_at, owes: probed && at >= self.vanishes, rtt: ms(20) }
        }

        /// When the peer is reported as dead, with the latest checks that `next` permits.
        fn reported(&self, dead_after: Duration, until: Duration) -> Option<Duration> {
            let start = Instant::now();
            let mut watch = PeerWatch::new(start, dead_after);
            loop {
                let at = watch.next - start;
                if at > until {
                    return None;
                }
                if watch.is_dead(start + at, dead_after, self.silence(at)) {
                    return Some(at);
                }
                assert!(watch.next > start + at, "the checks do not advance");
            }
        }
    }

    /// K3: a peer that vanishes at any time, idle or not, is reported within the time.
    #[test]
    fn vanished_peer_is_reported_within_dead_after() {
        for dead_after in [2 * S, 4 * S, 10 * S, 120 * S] {
            let keepalive = (dead_after / 3).max(S).min(45 * S);
            for vanishes in (0..80).map(|i| dead_after * i / 7 + ms(13)) {
                for write_after in [ms(1), ms(400), dead_after / 5, keepalive - ms(20)] {
                    let writes = vec![vanishes / 2, vanishes + write_after];
                    let scene = Scene { vanishes, writes, keepalive };
                    let at = scene.reported(dead_after, Duration::MAX).unwrap();
                    let silent = scene.silence(at).heard;
                    assert!(silent >= dead_after, "after {silent:?} of {dead_after:?}");
                    assert!(
                        at <= vanishes + dead_after + ms(500),
                        "{at:?}: {vanishes:?} + {dead_after:?}"
                    );
                }
            }
        }
    }

    /// K3: if the program was not in a call while the peer vanished, its next write waits less than
    /// a second longer.
    #[test]
    fn vanished_peer_is_reported_after_a_late_check() {
        for dead_after in [2 * S, 4 * S, 10 * S, 120 * S] {
            let start = Instant::now();
            let mut watch = PeerWatch::new(start, dead_after);
            // Nothing has arrived since the start. The first check is just before the end.
            let first = start + dead_after - ms(1);
            let silence = |at: Instant| Silence { heard: at - start, owes: true, rtt: ms(50) };
            assert!(!watch.is_dead(first, dead_after, silence(first)));
            let second = watch.next;
            assert_eq!(second - first, (dead_after / 4).min(ms(600)) + ms(100));
            assert!(watch.is_dead(second, dead_after, silence(second)));
            assert!(second <= start + dead_after + ms(900), "{:?}", second - start);
        }
    }

    /// K3: a segment that arrived just before a check does not add the time of an answer.
    #[test]
    fn silence_since_a_check_is_reported_after_dead_after() {
        let start = Instant::now();
        let mut watch = PeerWatch::new(start, 2 * S);
        let silence = |heard| Silence { heard, owes: true, rtt: ms(50) };
        assert!(!watch.is_dead(start + S, 2 * S, silence(Duration::ZERO)));
        assert_eq!(watch.next, start + 3 * S);
        assert!(watch.is_dead(start + 3 * S, 2 * S, silence(2 * S)));
    }

    /// K3: a live peer is never reported, whenever data is written.
    #[test]
    fn live_peer_is_not_reported() {
        let writes = (0..200).map(|i| ms(i * i * 7)).collect();
        let scene = Scene { vanishes: Duration::MAX, writes, keepalive: S };
        assert_eq!(scene.reported(2 * S, 300 * S), None);
    }

    /// K3: a live peer with a full receive window is never reported. It answers every window probe,
    /// but the interval of the probes grows beyond `dead_after`.
    #[test]
    fn live_peer_with_a_full_window_is_not_reported() {
        let start = Instant::now();
        let mut watch = PeerWatch::new(start, 4 * S);
        let mut probe = S;
        let mut heard = start;
        let mut now = start;
        while now < start + 200 * S {
            now = watch.next;
            // The interval of probes doubles, as without TCP_RTO_MAX_MS. Each answer takes 200 ms.
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
}
