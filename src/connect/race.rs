//! Happy Eyeballs (RFC 8305) as a state machine: which attempt starts when, and
//! who wins. It knows numbers of attempts and a clock that is passed in; sockets
//! and lookups are the driver's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long addresses of the other family wait for those of the preferred one, if the
/// families are looked up apart (RFC 8305 section 3, Resolution Delay).
pub(super) const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// A queue of addresses: those of one family, or all of a list that keeps its order. The
/// lanes take turns, and the first begins (section 4, First Address Family Count 1).
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

/// What the driver is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Start this attempt now.
    Start(usize),
    /// Wait for an attempt under way or for the lookup, and until then at most.
    Wait(Option<Instant>),
    /// Every attempt has failed, and there will be no more.
    Lost,
}

/// A race. Addresses may arrive while it is on. An attempt that was started runs until it
/// wins, fails, or another one wins: a later start never ends an earlier one.
#[derive(Debug)]
pub(super) struct Race {
    lanes: [VecDeque<usize>; 2],
    /// The lane whose turn it is.
    turn: Lane,
    started: bool,
    running: usize,
    /// More addresses may come.
    open: bool,
    delay: Duration,
    /// When the next attempt may start without a failure.
    next_start: Option<Instant>,
    /// When addresses of the second lane need not wait for the first any longer.
    wait_for_first: Option<Instant>,
}

impl Race {
    pub(super) fn new(delay: Duration) -> Race {
        Race {
            lanes: Default::default(),
            turn: Lane::First,
            started: false,
            running: 0,
            open: true,
            delay,
            next_start: None,
            wait_for_first: None,
        }
    }

    /// An address arrived.
    pub(super) fn add(&mut self, lane: Lane, attempt: usize, now: Instant) {
        if lane == Lane::Second && self.wait_for_first.is_none() {
            self.wait_for_first = now.checked_add(RESOLUTION_DELAY);
        }
        self.lanes[lane as usize].push_back(attempt);
    }

    /// There will be no more addresses.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// What to do at `now`. An answer of `Start` counts that attempt as under way.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let queued = |lane: Lane| !self.lanes[lane as usize].is_empty();
        let lane = if queued(self.turn) { self.turn } else { self.turn.other() };
        if !queued(lane) {
            return match (self.running, self.open) {
                (0, false) => Next::Lost,
                _ => Next::Wait(None),
            };
        }
        let mut earliest = self.next_start;
        if self.open && !self.started && lane == Lane::Second {
            earliest = earliest.max(self.wait_for_first);
        }
        match earliest.filter(|at| *at > now) {
            Some(at) => Next::Wait(Some(at)),
            None => self.start(lane, now),
        }
    }

    fn start(&mut self, lane: Lane, now: Instant) -> Next {
        let Some(attempt) = self.lanes[lane as usize].pop_front() else {
            return Next::Wait(None);
        };
        self.turn = lane.other();
        self.started = true;
        self.running += 1;
        self.next_start = now.checked_add(self.delay);
        Next::Start(attempt)
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

    const DELAY: Duration = Duration::from_millis(250);
    const STEP: Duration = Duration::from_millis(25);

    /// The order in which attempts start that all fail at once.
    fn order(lanes: &[(Lane, usize)]) -> Vec<usize> {
        let now = Instant::now();
        let mut race = Race::new(DELAY);
        lanes.iter().for_each(|(lane, attempt)| race.add(*lane, *attempt, now));
        race.close();
        let mut order = Vec::new();
        while let Next::Start(attempt) = race.next(now) {
            order.push(attempt);
            race.failed();
        }
        order
    }

    /// C2: the families take turns, and the first one begins; a list keeps its order.
    #[test]
    fn families_are_interleaved() {
        use Lane::{First, Second};
        let given = [(First, 0), (First, 1), (First, 2), (Second, 3), (Second, 4)];
        assert_eq!(order(&given), [0, 3, 1, 4, 2]);
        let given = [(Second, 0), (Second, 1), (First, 2)];
        assert_eq!(order(&given), [2, 0, 1]);
        assert_eq!(order(&[(First, 0), (First, 1)]), [0, 1]);
        assert_eq!(order(&[]), []);
    }

    /// C2: the second family waits 50 ms for the first, no longer, and not once the lookup
    /// has ended.
    #[test]
    fn the_resolution_delay() {
        let now = Instant::now();
        let mut race = Race::new(DELAY);
        assert_eq!(race.next(now), Next::Wait(None));
        race.add(Lane::Second, 0, now);
        assert_eq!(race.next(now), Next::Wait(Some(now + RESOLUTION_DELAY)));
        assert_eq!(race.next(now + RESOLUTION_DELAY), Next::Start(0));
        // The first family comes late: its turn is next, after the usual delay.
        race.add(Lane::Second, 1, now);
        race.add(Lane::First, 2, now);
        assert_eq!(
            race.next(now + RESOLUTION_DELAY),
            Next::Wait(Some(now + RESOLUTION_DELAY + DELAY))
        );
        assert_eq!(race.next(now + RESOLUTION_DELAY + DELAY), Next::Start(2));

        let mut race = Race::new(DELAY);
        race.add(Lane::Second, 0, now);
        race.close();
        assert_eq!(race.next(now), Next::Start(0));
        let mut race = Race::new(DELAY);
        race.add(Lane::Second, 0, now);
        race.add(Lane::First, 1, now);
        assert_eq!(race.next(now), Next::Start(1));
    }

    /// One course of events: when each address arrives and in which lane, and when each
    /// attempt ends after its start, and how. Times in steps of 25 ms.
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

    /// Runs a course to its end or to the deadline, and sees that the rules are kept: each
    /// address is tried once; no two attempts start closer than the delay, unless one failed
    /// between them; an attempt that is under way is never given up but for a winner; there is
    /// one winner at most; nothing starts after it, nor after the deadline; the race is lost
    /// exactly when all have failed and none can come; the driver never spins.
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
                return; // the driver takes the first and asks no more
            }
            let mut turns = 0;
            loop {
                turns += 1;
                assert!(turns < 20, "it spins: {course:?}");
                match race.next(now) {
                    Next::Start(attempt) => {
                        assert!(!started.contains(&attempt), "tried twice: {course:?}");
                        assert!(course.arrivals[attempt].1 <= tick, "not there yet: {course:?}");
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
                    Next::Wait(until) => {
                        assert!(until.is_none_or(|at| at > now && at <= now + DELAY), "{course:?}");
                        let all = started.len() == course.arrivals.len();
                        let ended = all && failures == started.len() && tick >= course.closes;
                        assert!(!ended, "waits for nothing: {course:?}");
                        let due = course.arrivals.iter().filter(|(_, at)| *at <= tick).count();
                        assert_eq!(until.is_some(), started.len() < due, "{course:?}");
                        break;
                    }
                    Next::Lost => {
                        assert_eq!(failures, course.arrivals.len(), "{course:?}");
                        assert!(tick >= course.closes, "{course:?}");
                        return;
                    }
                }
            }
        }
        // Nobody won and it is not lost: something still hangs, or the deadline was short.
        assert!(
            !running.is_empty()
                || started.len() < course.arrivals.len()
                || deadline < course.closes
        );
    }

    /// C2, explored exhaustively for up to three addresses, and widely for four: in either lane,
    /// at once or late; each fails or wins after none, some or all of the others have started,
    /// or hangs.
    #[test]
    fn every_course_of_a_race_keeps_the_rules() {
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
            // A stride that has no factor in common with the choices.
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
