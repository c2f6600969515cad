//! Happy Eyeballs (RFC 8305) as a state machine: which attempt starts when, and
//! who wins. It knows numbers of attempts and a clock that is passed in; sockets
//! are the driver's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The time between the starts of two attempts, RFC 8305 section 5: less would
/// load servers that are merely slow, more would keep people waiting.
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Orders addresses for the race: the families take turns, beginning with the
/// family of the first (section 4, First Address Family Count 1). Within a
/// family the order stays the system's (RFC 6724).
pub(super) fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else {
        return addresses;
    };
    let count = addresses.len();
    let (one, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(count);
    while ordered.len() < count {
        ordered.extend(one.next());
        ordered.extend(other.next());
    }
    ordered
}

/// What the driver is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Start this attempt now.
    Start(usize),
    /// Wait for an attempt under way, and until then at most.
    Wait(Option<Instant>),
    /// Every attempt has failed.
    Lost,
}

/// A race of `count` attempts. An attempt that was started runs until it wins,
/// fails, or another one wins: a later start never ends an earlier one.
#[derive(Debug)]
pub(super) struct Race {
    count: usize,
    started: usize,
    running: usize,
    delay: Duration,
    /// When the next attempt may start without a failure.
    next_start: Option<Instant>,
}

impl Race {
    pub(super) fn new(count: usize, delay: Duration) -> Race {
        Race { count, started: 0, running: 0, delay, next_start: None }
    }

    /// What to do at `now`. An answer of `Start` counts that attempt as under way.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.started < self.count && self.next_start.is_none_or(|at| at <= now) {
            self.started += 1;
            self.running += 1;
            self.next_start = now.checked_add(self.delay);
            return Next::Start(self.started - 1);
        }
        match (self.running, self.started < self.count) {
            (0, false) => Next::Lost,
            (_, true) => Next::Wait(self.next_start),
            (_, false) => Next::Wait(None),
        }
    }

    /// An attempt failed: the next one need not wait any longer.
    pub(super) fn failed(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.next_start = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    /// C2: the families take turns.
    #[test]
    fn families_are_interleaved() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let raced = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleave(given), raced);
        let one_family = addresses(&["2.2.2.2:1", "1.1.1.1:1"]);
        assert_eq!(interleave(one_family.clone()), one_family);
        assert_eq!(interleave(Vec::new()), Vec::new());
    }

    /// C2, explored exhaustively: up to four attempts, each of which fails after
    /// none, some or all of the others have started, or never. No two start closer
    /// than the delay unless one failed between them; all of them start; the race is
    /// lost exactly when all have failed.
    #[test]
    fn every_course_of_a_race_keeps_the_rules() {
        const STEP: Duration = Duration::from_millis(50);
        // When an attempt fails, counted from its start in steps of 50 ms.
        const FATES: [Option<u32>; 5] = [Some(0), Some(1), Some(5), Some(12), None];
        for count in 0..=4usize {
            let courses = FATES.len().pow(u32::try_from(count).unwrap());
            for course in 0..courses {
                let fate = |i: usize| FATES[course / FATES.len().pow(i as u32) % FATES.len()];
                run(count, fate, STEP);
            }
        }
    }

    fn run(count: usize, fate: impl Fn(usize) -> Option<u32>, step: Duration) {
        let begin = Instant::now();
        let mut race = Race::new(count, ATTEMPT_DELAY);
        let mut running: Vec<(usize, Instant)> = Vec::new();
        let (mut started, mut failed_since_start) = (Vec::<Instant>::new(), false);
        let mut failures = 0;
        for tick in 0..200u32 {
            let now = begin + step * tick;
            // Failures first, as a driver's poll reports them.
            running.retain(|&(i, at)| {
                let fails = fate(i).is_some_and(|after| now >= at + step * after);
                if fails {
                    race.failed();
                    failures += 1;
                    failed_since_start = true;
                }
                !fails
            });
            loop {
                match race.next(now) {
                    Next::Start(i) => {
                        assert_eq!(i, started.len(), "in order, each once");
                        if let Some(last) = started.last() {
                            assert!(failed_since_start || now >= *last + ATTEMPT_DELAY);
                        }
                        failed_since_start = false;
                        started.push(now);
                        if fate(i) == Some(0) {
                            race.failed();
                            failures += 1;
                            failed_since_start = true;
                        } else {
                            running.push((i, now));
                        }
                    }
                    Next::Wait(until) => {
                        assert!(!running.is_empty() || until.is_some_and(|at| at > now));
                        assert!(until.is_none_or(|at| at > now && at <= now + ATTEMPT_DELAY));
                        assert_eq!(until.is_none(), started.len() == count);
                        break;
                    }
                    Next::Lost => {
                        assert_eq!(failures, count);
                        return;
                    }
                }
            }
        }
        assert_eq!(started.len(), count, "all of them start");
        assert!(running.iter().all(|&(i, _)| fate(i).is_none()));
        assert!(!running.is_empty(), "or the race is lost");
    }
}
