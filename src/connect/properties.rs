//! Properties of the race of attempts.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::race::{Lane, NextAttempt, RESOLUTION_DELAY, Race};
use crate::properties::check;

/// One step of the driver, or the passing of time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Add(Lane),
    Close,
    Next,
    Fail,
    Wait(u64),
    /// The driver waits until the time that the race has returned.
    WaitForNext,
}

/// An event of a race.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Added(Lane, usize, Instant),
    Started(Lane, usize, Instant),
    Failed,
    Closed,
}

/// The next action, by the definition of RFC 8305 and from the whole course of the race.
fn expected(events: &[Event], delay: Duration, now: Instant) -> NextAttempt {
    let started = |attempt: usize| {
        events.iter().any(|event| matches!(event, Event::Started(_, other, _) if *other == attempt))
    };
    let queued = |wanted: Lane| {
        events.iter().find_map(|event| match *event {
            Event::Added(lane, attempt, _) if lane == wanted && !started(attempt) => {
                Some((lane, attempt))
            }
            _ => None,
        })
    };
    let is_closed = events.contains(&Event::Closed);
    let last = events.iter().enumerate().rev().find_map(|(place, event)| match *event {
        Event::Started(lane, _, at) => Some((place, lane, at)),
        _ => None,
    });
    let (turn, other) = match last {
        Some((_, Lane::First, _)) => (Lane::Second, Lane::First),
        _ => (Lane::First, Lane::Second),
    };
    let Some((lane, attempt)) = queued(turn).or(queued(other)) else {
        let count = |wanted: fn(&Event) -> bool| events.iter().filter(|e| wanted(e)).count();
        let starts = count(|event| matches!(event, Event::Started(..)));
        let all_failed = is_closed && starts == count(|event| *event == Event::Failed);
        return if all_failed { NextAttempt::AllFailed } else { NextAttempt::Wait(None) };
    };
    let earliest = match last {
        Some((place, _, at)) if !events[place..].contains(&Event::Failed) => Some(at + delay),
        None if lane == Lane::Second && !is_closed => {
            events.iter().find_map(|event| match *event {
                Event::Added(Lane::Second, _, at) => Some(at + RESOLUTION_DELAY),
                _ => None,
            })
        }
        _ => None,
    };
    match earliest {
        Some(at) if at > now => NextAttempt::Wait(Some(at)),
        _ => NextAttempt::Start(attempt),
    }
}

/// C2: the families alternate, attempts start the delay apart or after a failure, the second family
/// waits 50 ms for the first one, and each address is tried once, whatever the order of addresses,
/// failures and calls. A driver that comes late changes no rule.
#[test]
fn race_of_any_course_agrees_with_the_model() {
    use Lane::{First, Second};
    let step = prop_oneof![
        3 => Just(Step::Add(First)),
        3 => Just(Step::Add(Second)),
        1 => Just(Step::Close),
        6 => Just(Step::Next),
        3 => Just(Step::Fail),
        2 => (1..400u64).prop_map(Step::Wait),
        3 => Just(Step::WaitForNext),
    ];
    let inputs = (10..2000u64, prop::collection::vec(step, 0..60));
    check(1500, inputs, |(delay, steps)| {
        let delay = Duration::from_millis(delay);
        let mut now = Instant::now();
        let (mut race, mut events) = (Race::new(delay), Vec::new());
        let (mut added, mut running, mut next) = (0, 0, None);
        let mut lanes = Vec::new();
        for step in steps {
            match step {
                Step::Add(lane) if !events.contains(&Event::Closed) => {
                    race.add(lane, added, now);
                    events.push(Event::Added(lane, added, now));
                    lanes.push(lane);
                    added += 1;
                }
                Step::Close => {
                    race.close();
                    events.push(Event::Closed);
                }
                Step::Fail if running > 0 => {
                    race.failed();
                    events.push(Event::Failed);
                    running -= 1;
                }
                Step::Wait(time) => now += Duration::from_millis(time),
                Step::WaitForNext => now = now.max(next.take().unwrap_or(now)),
                Step::Next => {
                    let action = race.next(now);
                    prop_assert_eq!(action, expected(&events, delay, now));
                    match action {
                        NextAttempt::Start(attempt) => {
                            events.push(Event::Started(lanes[attempt], attempt, now));
                            running += 1;
                        }
                        NextAttempt::Wait(until) => next = until,
                        NextAttempt::AllFailed => {}
                    }
                }
                Step::Add(_) | Step::Fail => {}
            }
        }
        Ok(())
    });
}
