//! Happy Eyeballs (RFC 8305) as a state machine: it decides when each attempt starts. It does no
//! I/O. The driver owns the sockets and the lookup, identifies attempts by number, and passes the
//! time as an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that addresses of the second family wait for addresses of the first one, if the
/// families are looked up separately (RFC 8305 section 3, Resolution Delay).
pub(super) const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// A queue of addresses: the addresses of one family, or a list whose order is kept. Attempts
/// alternate between the lanes and start with the first (RFC 8305 section 4, First Address Family
/// Count 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    First,
    Second,
}

impl Lane {
    fn other(self) -> Lane {
        match self {
            Lane::First => Lane::Second,
            Lane::Second => Lane::First,
        }
    }
}

/// The next action of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextAttempt {
    /// Start this attempt now.
    Start(usize),
    /// Wait for a running attempt or for the lookup, but not longer than until this time.
    Wait(Option<Instant>),
    /// Every attempt has failed, and no more addresses will be added.
    AllFailed,
}

/// A race of attempts. Addresses may be added at any time. An attempt runs until it succeeds or
/// fails, or until another attempt succeeds. The start of an attempt never ends an earlier one.
#[derive(Debug)]
pub(super) struct Race {
    lanes: [VecDeque<usize>; 2],
    next_lane: Lane,
    started: bool,
    running: usize,
    /// More addresses may be added.
    open: bool,
    delay: Duration,
    /// The earliest start of the next attempt if no attempt fails.
    next_start: Option<Instant>,
    /// The end of the resolution delay.
    wait_for_first: Option<Instant>,
}

impl Race {
    pub(super) fn new(delay: Duration) -> Race {
        Race {
            lanes: Default::default(),
            next_lane: Lane::First,
            started: false,
            running: 0,
            open: true,
            delay,
            next_start: None,
            wait_for_first: None,
        }
    }

    /// Adds the address of an attempt.
    pub(super) fn add(&mut self, lane: Lane, attempt: usize, now: Instant) {
        if lane == Lane::Second && self.wait_for_first.is_none() {
            self.wait_for_first = now.checked_add(RESOLUTION_DELAY);
        }
        self.lanes[lane as usize].push_back(attempt);
    }

    /// Records that no more addresses will be added.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// Returns the action at `now`. [`NextAttempt::Start`] counts the attempt as running.
    pub(super) fn next(&mut self, now: Instant) -> NextAttempt {
        let queued = |lane: Lane| !self.lanes[lane as usize].is_empty();
        let lane = if queued(self.next_lane) { self.next_lane } else { self.next_lane.other() };
        if !queued(lane) {
            return match (self.running, self.open) {
                (0, false) => NextAttempt::AllFailed,
                _ => NextAttempt::Wait(None),
            };
        }
        let mut earliest = self.next_start;
        if self.open && !self.started && lane == Lane::Second {
            earliest = earliest.max(self.wait_for_first);
        }
        match earliest.filter(|at| *at > now) {
            Some(at) => NextAttempt::Wait(Some(at)),
            None => self.start(lane, now),
        }
    }

    fn start(&mut self, lane: Lane, now: Instant) -> NextAttempt {
        let Some(attempt) = self.lanes[lane as usize].pop_front() else {
            return NextAttempt::Wait(None);
        };
        self.next_lane = lane.other();
        self.started = true;
        self.running += 1;
        self.next_start = now.checked_add(self.delay);
        NextAttempt::Start(attempt)
    }

    /// Records that an attempt failed. The next one may start immediately.
    pub(super) fn failed(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.next_start = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(250);
    const STEP: Duration = Duration::from_millis(25);

    /// The order in which attempts start if each of them fails immediately.
    fn order(lanes: &[(Lane, usize)]) -> Vec<usize> {
        let now = Instant::now();
        let mut race = Race::new(DELAY);
        lanes.iter().for_each(|(lane, attempt)| race.add(*lane, *attempt, now));
        race.close();
        let mut order = Vec::new();
        while let NextAttempt::Start(attempt) = race.next(now) {
            order.push(attempt);
            race.failed();
        }
        order
    }

    /// C2: the families alternate, starting with the first. The order of a list is kept.
    #[test]
    fn next_of_two_families_alternates() {
        use Lane::{First, Second};
        let given = [(First, 0), (First, 1), (First, 2), (Second, 3), (Second, 4)];
        assert_eq!(order(&given), [0, 3, 1, 4, 2]);
        let given = [(Second, 0), (Second, 1), (First, 2)];
        assert_eq!(order(&given), [2, 0, 1]);
        assert_eq!(order(&[(First, 0), (First, 1)]), [0, 1]);
        assert!(order(&[]).is_empty());
    }

    /// C2: the second family waits at most 50 ms for the first, and not after the lookup has
    /// ended.
    #[test]
    fn next_of_second_family_waits_for_the_resolution_delay() {
        let now = Instant::now();
        let mut race = Race::new(DELAY);
        assert_eq!(race.next(now), NextAttempt::Wait(None));
        race.add(Lane::Second, 0, now);
        assert_eq!(race.next(now), NextAttempt::Wait(Some(now + RESOLUTION_DELAY)));
        assert_eq!(race.next(now + RESOLUTION_DELAY), NextAttempt::Start(0));
        // An address of the first family arrives late. It is next, after the usual delay.
        race.add(Lane::Second, 1, now);
        race.add(Lane::First, 2, now);
        assert_eq!(
            race.next(now + RESOLUTION_DELAY),
            NextAttempt::Wait(Some(now + RESOLUTION_DELAY + DELAY))
        );
        assert_eq!(race.next(now + RESOLUTION_DELAY + DELAY), NextAttempt::Start(2));

        let mut race = Race::new(DELAY);
        race.add(Lane::Second, 0, now);
        race.close();
        assert_eq!(race.next(now), NextAttempt::Start(0));
        let mut race = Race::new(DELAY);
        race.add(Lane::Second, 0, now);
        race.add(Lane::First, 1, now);
        assert_eq!(race.next(now), NextAttempt::Start(1));
    }

    /// A course of events: the lane and the time of each address, and the result of each attempt
    /// with its duration. Times are in steps of 25 ms.
    #[derive(Debug, Clone)]
    struct Course {
        arrivals: Vec<(Lane, u32)>,
        fates: Vec<Fate>,
        closes: u32,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fate {
        Fails(u32),
        Wins(u32),
        Hangs,
    }

    /// Runs a course to its end or to the deadline, and checks these rules:
    ///
    /// - Each address is tried once.
    /// - Two attempts start at least the delay apart, unless an attempt failed between them.
    /// - A running attempt is abandoned only after another attempt has succeeded.
    /// - At most one attempt succeeds. No attempt starts after that or after the deadline.
    /// - The race returns `AllFailed` if and only if all attempts have failed and no more addresses
    ///   will be added.
    /// - The driver never spins.
    fn run(course: &Course, deadline: u32) {
        let begin = Instant::now();
        let mut race = Race::new(DELAY);
        let mut running: Vec<(usize, u32)> = Vec::new();
        let mut started = Vec::new();
        let (mut last_start, mut failed_since) = (None, false);
        let mut failures = 0;
        for tick in 0..=deadline {
            let now = begin + STEP * tick;
            for (attempt, (lane, at)) in course.arrivals.iter().enumerate() {
                if *at == tick {
                    race.add(*lane, attempt, now);
                }
            }
            if tick == course.closes {
                race.close();
            }
            let mut winners = 0;
            running.retain(|&(attempt, at)| match course.fates[attempt] {
                Fate::Fails(after) if tick >= at + after => {
                    race.failed();
                    failures += 1;
                    failed_since = true;
                    false
                }
                Fate::Wins(after) if tick >= at + after => {
                    winners += 1;
                    true
                }
                _ => true,
            });
            if winners > 0 {
                return; // the driver takes the first and does not call again
            }
            let mut calls = 0;
            loop {
                calls += 1;
                assert!(calls < 20, "the driver spins: {course:?}");
                match race.next(now) {
                    NextAttempt::Start(attempt) => {
                        assert!(!started.contains(&attempt), "tried twice: {course:?}");
                        assert!(course.arrivals[attempt].1 <= tick, "not added yet: {course:?}");
                        if let Some(last) = last_start {
                            let apart = failed_since || STEP * (tick - last) >= DELAY;
                            assert!(apart, "too close: {course:?}");
                        }
                        (last_start, failed_since) = (Some(tick), false);
                        started.push(attempt);
                        match course.fates[attempt] {
                            Fate::Fails(0) => {
                                race.failed();
                                failures += 1;
                                failed_since = true;
                            }
                            Fate::Wins(0) => return,
                            _ => running.push((attempt, tick)),
                        }
                    }
                    NextAttempt::Wait(until) => {
                        assert!(until.is_none_or(|at| at > now && at <= now + DELAY), "{course:?}");
                        let all = started.len() == course.arrivals.len();
                        let ended = all && failures == started.len() && tick >= course.closes;
                        assert!(!ended, "waits for nothing: {course:?}");
                        let due = course.arrivals.iter().filter(|(_, at)| *at <= tick).count();
                        assert_eq!(until.is_some(), started.len() < due, "{course:?}");
                        break;
                    }
                    NextAttempt::AllFailed => {
                        assert_eq!(failures, course.arrivals.len(), "{course:?}");
                        assert!(tick >= course.closes, "{course:?}");
                        return;
                    }
                }
            }
        }
        // The race is not decided: an attempt still runs, or the deadline was short.
        assert!(
            !running.is_empty()
                || started.len() < course.arrivals.len()
                || deadline < course.closes
        );
    }

    /// C2: all courses of up to three addresses, and a sample of the courses of four. The
    /// addresses arrive in either lane, immediately or late. Each attempt fails or succeeds after
    /// none, some or all of the others have started, or does not end.
    #[test]
    fn race_on_every_course_keeps_the_rules() {
        const ARRIVALS: [(Lane, u32); 4] =
            [(Lane::First, 0), (Lane::Second, 0), (Lane::First, 3), (Lane::Second, 1)];
        const FATES: [Fate; 6] = [
            Fate::Fails(0),
            Fate::Fails(4),
            Fate::Fails(24),
            Fate::Wins(0),
            Fate::Wins(11),
            Fate::Hangs,
        ];
        let mut courses = 0;
        for count in 0..=4u32 {
            // The stride has no factor in common with the number of choices.
            let stride = if count < 4 { 1 } else { 23 };
            for choice in (0..(ARRIVALS.len() * FATES.len()).pow(count)).step_by(stride) {
                let mut rest = choice;
                let mut pick = |n: usize| {
                    let picked = rest % n;
                    rest /= n;
                    picked
                };
                let (arrivals, fates) =
                    (0..count).map(|_| (ARRIVALS[pick(4)], FATES[pick(6)])).unzip();
                for (closes, deadline) in [(3, 200), (20, 14)] {
                    run(
                        &Course {
                            arrivals: Clone::clone(&arrivals),
                            fates: Clone::clone(&fates),
                            closes,
                        },
                        deadline,
                    );
                    courses += 1;
                }
            }
        }
        assert!(courses > 50_000);
    }
}
