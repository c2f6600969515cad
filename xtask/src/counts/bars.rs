//! What an operation may cost, and whether it does.

use std::collections::BTreeMap;

use super::programs::{
    BROADCAST, CYCLE, CYCLE_64, ECHO, ECHO_64, EQUAL, IDLE, IDLE_THREADS, Programs, UNEQUAL, Work,
};
use crate::steps::Stop;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Calls,
    CallsBeyondIo,
    Instructions,
    Allocations,
    Bytes,
    WakeUps,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Calls => "system calls",
            Self::CallsBeyondIo => "system calls beyond reads and writes",
            Self::Instructions => "instructions",
            Self::Allocations => "heap allocations",
            Self::Bytes => "bytes of user memory",
            Self::WakeUps => "wake-ups in 3 s",
        }
    }

    /// The digits that repeat: tenths of a call, whole instructions.
    fn digits(self) -> usize {
        match self {
            Self::Calls | Self::CallsBeyondIo => 1,
            // None at all is asked for.
            Self::Allocations => 2,
            Self::Instructions | Self::Bytes | Self::WakeUps => 0,
        }
    }
}

/// What was counted, for one operation.
pub type Counts = BTreeMap<(&'static str, Work, Unit), f64>;

#[derive(Clone, Copy)]
struct Bar {
    id: &'static str,
    program: &'static str,
    work: Work,
    unit: Unit,
    /// A regression gate: what was reached, and a little for another compiler's taste.
    /// Lower it when something gets cheaper.
    limit: f64,
    /// What it is meant to cost.
    aim: f64,
}

const fn bar(
    id: &'static str,
    program: &'static str,
    work: Work,
    unit: Unit,
    limit: f64,
    aim: f64,
) -> Bar {
    Bar { id, program, work, unit, limit, aim }
}

const BARS: [Bar; 35] = [
    bar("F1", "keep_accept", CYCLE, Unit::CallsBeyondIo, 2.0, 2.0),
    bar("F2", "keep_accept", CYCLE, Unit::Calls, 5.0, 5.0),
    bar("F2", "keep_accept", CYCLE, Unit::Instructions, 1050.0, 700.0),
    bar("F3", "keep_threads", CYCLE, Unit::Calls, 5.5, 9.0),
    bar("F3", "keep_threads", CYCLE_64, Unit::Calls, 6.5, 9.0),
    bar("F3", "keep_threads", CYCLE, Unit::Instructions, 1700.0, 2500.0),
    bar("F4", "keep_events", CYCLE, Unit::Calls, 8.1, 8.1),
    bar("F4", "keep_events", CYCLE_64, Unit::Calls, 7.7, 7.7),
    bar("F4", "keep_events", CYCLE, Unit::Instructions, 2900.0, 1000.0),
    bar("F4", "keep_events", CYCLE_64, Unit::Instructions, 2500.0, 1000.0),
    bar("F5", "keep_accept", ECHO, Unit::Calls, 2.0, 2.0),
    bar("F5", "keep_accept", ECHO, Unit::Instructions, 230.0, 100.0),
    bar("F5", "keep_connect", Work::RoundTrip, Unit::Calls, 2.0, 2.0),
    bar("F5", "keep_connect", Work::RoundTrip, Unit::Instructions, 235.0, 100.0),
    bar("F6", "keep_events", ECHO, Unit::Calls, 3.05, 3.05),
    bar("F6", "keep_events", ECHO_64, Unit::Calls, 2.15, 2.15),
    bar("F6", "keep_events", ECHO, Unit::Instructions, 770.0, 250.0),
    bar("F6", "keep_events", ECHO_64, Unit::Instructions, 580.0, 250.0),
    bar("F7", "keep_events", IDLE, Unit::Bytes, 124.0, 128.0),
    bar("F8", "keep_threads", IDLE_THREADS, Unit::Bytes, 13_000.0, 13_000.0),
    bar("F9", "keep_events", BROADCAST, Unit::Calls, 1.01, 1.01),
    bar("F13", "keep_connect", Work::Connect, Unit::Calls, 9.0, 9.0),
    bar("F13", "keep_connect", Work::Connect, Unit::Instructions, 2400.0, 1000.0),
    bar("F14", "keep_accept", ECHO, Unit::Allocations, 0.0, 0.0),
    bar("F14", "keep_threads", ECHO, Unit::Allocations, 0.0, 0.0),
    bar("F14", "keep_events", ECHO, Unit::Allocations, 0.0, 0.0),
    // A batch, both ends.
    bar("F15", "keep_batch", EQUAL, Unit::Calls, 2.0, 2.0),
    bar("F15", "keep_batch", UNEQUAL, Unit::Calls, 2.0, 2.0),
    bar("F15", "keep_datagram", EQUAL, Unit::Calls, 128.0, 128.0),
    bar("F15", "keep_batch", EQUAL, Unit::Instructions, 21_500.0, 16_000.0),
    bar("F15", "keep_batch", UNEQUAL, Unit::Instructions, 36_000.0, 20_000.0),
    bar("F15", "keep_datagram", EQUAL, Unit::Instructions, 44_000.0, 12_800.0),
    bar("F15", "keep_batch", EQUAL, Unit::Allocations, 0.0, 0.0),
    bar("F15", "keep_datagram", EQUAL, Unit::Allocations, 0.0, 0.0),
    bar("F16", "keep_events", IDLE, Unit::WakeUps, 0.0, 0.0),
];

/// Known to need more than is asked of us.
const WORSE: [(&str, &str, Work, Unit); 11] = [
    ("F3", "raw_threads", CYCLE, Unit::Calls),
    ("F4", "uv_events", CYCLE, Unit::Calls),
    ("F4", "libevent_events", CYCLE_64, Unit::Calls),
    ("F4", "uv_events", CYCLE, Unit::Instructions),
    ("F6", "libevent_events", ECHO, Unit::Calls),
    ("F6", "libevent_events", ECHO_64, Unit::Calls),
    ("F6", "uv_events", ECHO, Unit::Instructions),
    ("F7", "uv_events", IDLE, Unit::Bytes),
    ("F13", "std_connect", Work::Connect, Unit::Calls),
    ("F14", "libevent_events", ECHO, Unit::Allocations),
    ("F15", "raw_sendto", EQUAL, Unit::Calls),
];

impl Bar {
    fn rounded(&self, counted: f64) -> f64 {
        let one = 10_f64.powi(self.unit.digits() as i32);
        (counted * one).round() / one
    }

    fn is_met(&self, counted: f64) -> bool {
        let counted = self.rounded(counted);
        // A program that did nothing would meet every bar, but for those that ask for nothing.
        (counted > 0.0 || self.aim == 0.0) && counted <= self.limit
    }

    fn print(&self, counted: f64) {
        let digits = self.unit.digits();
        println!(
            "{:<3}  {:<13} {:<18} {:>7.digits$}  limit {:>6}  {:<8}  aim {:>6}  {}",
            self.id,
            self.program,
            self.work.name(),
            self.rounded(counted),
            self.limit,
            if self.is_met(counted) { "ok" } else { "EXCEEDED" },
            self.aim,
            self.unit.name(),
        );
    }
}

/// Whether a bar needs this to be counted.
pub fn asks_for(program: &str, work: Work, unit: Unit) -> bool {
    BARS.iter().any(|bar| (bar.program, bar.work, bar.unit) == (program, work, unit))
        || WORSE.iter().any(|worse| (worse.1, worse.2, worse.3) == (program, work, unit))
}

/// Holds what was counted against the bars.
pub fn judge(counts: &Counts, programs: &Programs) -> Result<bool, Stop> {
    let counted = |program, work, unit| match counts.get(&(program, work, unit)) {
        Some(counted) => Ok(Some(*counted)),
        None if !programs.has(program) => Ok(None),
        None => Err(format!("{program} was not counted, {}", unit.name())),
    };
    let mut all_met = true;
    for bar in &BARS {
        match counted(bar.program, bar.work, bar.unit)? {
            Some(counted) => {
                bar.print(counted);
                all_met &= bar.is_met(counted);
            }
            None => println!(
                "{:<3}  {:<13} {:<18} not counted: {}",
                bar.id,
                bar.program,
                bar.work.name(),
                bar.unit.name()
            ),
        }
    }
    // A gate that can't fail is none.
    for (id, program, work, unit) in WORSE {
        let bar = BARS.iter().find(|bar| (bar.id, bar.work, bar.unit) == (id, work, unit));
        let bar = bar.ok_or_else(|| format!("{program} exceeds no bar: there is no such {id}"))?;
        // Another than ours may be worse than what is asked, yet within a limit of today.
        let bar = Bar { limit: bar.aim, ..*bar };
        if counted(program, work, unit)?.is_some_and(|counted| bar.is_met(counted)) {
            return Err(Stop::Fail(format!(
                "the gate passes {program}, which exceeds {id}: it counts wrongly"
            )));
        }
    }
    Ok(all_met)
}

#[cfg(test)]
mod tests {
    use super::super::programs::PROGRAMS;
    use super::*;

    #[test]
    fn a_bar_is_met_up_to_its_limit_and_not_beyond() {
        let bar = |unit, limit| bar("F0", "server", CYCLE, unit, limit, limit);
        assert!(bar(Unit::Calls, 5.0).is_met(5.01));
        assert!(!bar(Unit::Calls, 4.9).is_met(5.01));
        assert!(bar(Unit::Calls, 2.15).is_met(2.14));
        assert!(!bar(Unit::Calls, 2.15).is_met(2.16));
        assert!(bar(Unit::Instructions, 700.0).is_met(700.4));
        assert!(!bar(Unit::Instructions, 699.0).is_met(700.4));
        assert!(bar(Unit::Bytes, 128.0).is_met(128.0));
        assert!(!bar(Unit::Bytes, 128.0).is_met(129.0));
    }

    #[test]
    fn nothing_meets_only_a_bar_that_asks_for_nothing() {
        let bar = |unit, limit| bar("F0", "server", CYCLE, unit, limit, limit);
        assert!(!bar(Unit::Calls, 5.0).is_met(0.0));
        assert!(bar(Unit::Allocations, 0.0).is_met(0.0));
        assert!(!bar(Unit::Allocations, 0.0).is_met(0.01));
        assert!(!bar(Unit::WakeUps, 0.0).is_met(1.0));
    }

    #[test]
    fn every_bar_is_about_something_that_is_counted() {
        let counted = |name, work| {
            PROGRAMS.iter().any(|program| program.name == name && program.works.contains(&work))
        };
        for bar in &BARS {
            assert!(counted(bar.program, bar.work), "{}", bar.id);
        }
        for (id, program, work, unit) in WORSE {
            assert!(counted(program, work), "{id}");
            assert!(BARS.iter().any(|b| (b.id, b.work, b.unit) == (id, work, unit)), "{id}");
        }
    }
}
