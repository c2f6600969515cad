//! Properties of the timers of connections, and of the timers of a service.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::properties::check;
use crate::serve::reactor::service_timers::{ServiceTimers, TimerFunction};
use crate::serve::reactor::timers::Timers;

/// An operation of an event loop on its timers. A connection is a small number, so that the same timers are set
/// again.
#[derive(Debug, Clone, Copy)]
enum TimerStep {
    Set {
        index: u32,
        after: u64,
    },
    /// The loop sets the timer of a connection to earlier and earlier times.
    Advance {
        index: u32,
        after: u64,
    },
    Cancel(u32),
    Wait(u64),
}

/// V2: the timer of each connection expires once, at its time or when the loop comes next, in the order of
/// times. A timer that was cancelled or replaced never expires.
#[test]
fn timers_of_any_course_agree_with_a_map() {
    let index = || 0..6u32;
    let step = prop_oneof![
        6 => (index(), 1..30u64).prop_map(|(index, after)| TimerStep::Set { index, after }),
        1 => (index(), 1..60u64).prop_map(|(index, after)| TimerStep::Advance { index, after }),
        2 => index().prop_map(TimerStep::Cancel),
        2 => (0..20u64).prop_map(TimerStep::Wait),
    ];
    check(1000, prop::collection::vec(step, 0..120), |steps| {
        let (mut timers, mut model) = (Timers::default(), BTreeMap::<u32, u64>::new());
        let mut now = 1000;
        fn set(timers: &mut Timers, model: &mut BTreeMap<u32, u64>, index: u32, at: u64) {
            if model.insert(index, at).is_some() {
                timers.cancel();
            }
            timers.set(at, index);
        }
        for step in steps {
            match step {
                TimerStep::Set { index, after } => set(&mut timers, &mut model, index, now + after),
                TimerStep::Advance { index, after } => {
                    let times = (1..=after).rev().map(|after| now + after);
                    times.for_each(|at| set(&mut timers, &mut model, index, at));
                }
                TimerStep::Cancel(index) => {
                    if model.remove(&index).is_some() {
                        timers.cancel();
                    }
                }
                TimerStep::Wait(time) => {
                    now += time;
                    loop {
                        let is_set = |at, index| model.get(&index) == Some(&at);
                        let expired = timers.pop_expired(now, is_set);
                        let first = model.values().copied().min().filter(|at| *at <= now);
                        let at = expired.and_then(|index| model.remove(&index));
                        prop_assert_eq!(at, first, "expired: {:?}", expired);
                        if expired.is_none() {
                            break;
                        }
                    }
                }
            }
            let is_set = |at, index| model.get(&index) == Some(&at);
            prop_assert_eq!(timers.next(is_set), model.values().copied().min());
            prop_assert_eq!(timers.is_empty(), model.is_empty());
        }
        Ok(())
    });
}

/// An operation on the timers of a service.
#[derive(Debug, Clone, Copy)]
enum ServiceStep {
    Add {
        delay: u64,
        interval: Option<u64>,
    },
    Remove(Index),
    /// The loop comes after this time. The function of the timer takes some time, and may remove its own
    /// timer.
    Wait {
        time: u64,
        takes: u64,
        removes: bool,
    },
}

/// V10: the timers of a service expire in the order of their times, and never early. A repeating timer
/// expires at a multiple of its interval, or as soon as the loop comes, and skips the periods that it has
/// missed. A removed timer does not expire.
#[test]
fn service_timers_of_any_course_agree_with_a_map() {
    let step = prop_oneof![
        3 => (0..50u64, prop::option::of(1..20u64))
            .prop_map(|(delay, interval)| ServiceStep::Add { delay, interval }),
        1 => any::<Index>().prop_map(ServiceStep::Remove),
        4 => (0..40u64, 0..30u64, prop::bool::weighted(0.1))
            .prop_map(|(time, takes, removes)| ServiceStep::Wait { time, takes, removes }),
    ];
    let ms = Duration::from_millis;
    check(1500, prop::collection::vec(step, 0..60), |steps| {
        let mut timers = ServiceTimers::default();
        // The time and the interval of each timer, by id.
        let mut model = BTreeMap::<u64, (u64, Option<u64>)>::new();
        let (mut now, mut last) = (0, 0);
        for step in steps {
            match step {
                ServiceStep::Add { delay, interval } => {
                    let function: Box<dyn TimerFunction> = Box::new([|_| ()]);
                    let every = interval.map(ms);
                    let added = timers.add(ms(now), ms(delay), every, &mut Some(function));
                    let is_first = model.values().all(|(at, _)| *at > now + delay);
                    last += 1;
                    prop_assert_eq!(added, Ok((last, is_first)));
                    model.insert(last, (now + delay, interval));
                }
                ServiceStep::Remove(id) => {
                    let id = id.index(last as usize + 1) as u64;
                    prop_assert_eq!(timers.remove(id).is_ok(), model.remove(&id).is_some());
                }
                ServiceStep::Wait { time, takes, removes } => {
                    now += time;
                    let first = model.iter().map(|(id, (at, _))| (*at, *id)).min();
                    let first = first.filter(|(at, _)| *at <= now);
                    let expired = timers.expire(ms(now));
                    prop_assert_eq!(expired.as_ref().map(|(id, _)| *id), first.map(|(_, id)| id));
                    let (Some((id, function)), Some((at, _))) = (expired, first) else {
                        continue;
                    };
                    let interval = model.remove(&id).and_then(|(_, interval)| interval);
                    now += takes;
                    if removes {
                        prop_assert_eq!(timers.remove(id).is_ok(), interval.is_some());
                    }
                    let again = interval.filter(|_| !removes);
                    let ended = timers.repeat(id, function, ms(now)).is_some();
                    prop_assert_eq!(ended, again.is_none());
                    if let Some(interval) = again {
                        let next = (1..).map(|n| at + n * interval).find(|at| *at > now);
                        model.extend(next.map(|next| (id, (next, again))));
                    }
                }
            }
            let first = model.values().map(|(at, _)| ms(*at)).min();
            prop_assert_eq!(timers.next(), first);
        }
        Ok(())
    });
}
