//! The budgets: the most that an operation may cost.

use std::collections::BTreeMap;

use super::programs::{
    BLOCKED, BLOCKED_DATAGRAM, BROADCAST, CYCLE, CYCLE_64, ECHO, ECHO_64, ECHO_CONNECTS, EQUAL,
    IDLE, IDLE_THREADS, Programs, UNEQUAL, WAIT, WAIT_TOKEN, Work,
};
use crate::steps::Stop;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Calls,
    CallsBeyondIo,
    Futexes,
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
            Self::Futexes => "futex calls, made by threads that wake each other",
            Self::Instructions => "instructions",
            Self::Allocations => "heap allocations",
            Self::Bytes => "bytes of user memory",
            Self::WakeUps => "wake-ups in 3 s",
        }
    }

    /// The decimals that are equal in every run: tenths of a call, whole instructions.
    fn digits(self) -> usize {
        match self {
            Self::Calls | Self::CallsBeyondIo | Self::Futexes => 1,
            // The budget is zero.
            Self::Allocations => 2,
            Self::Instructions | Self::Bytes | Self::WakeUps => 0,
        }
    }
}

/// The counts for one operation.
pub type Counts = BTreeMap<(&'static str, Work, Unit), f64>;

#[derive(Clone, Copy)]
struct Budget {
    id: &'static str,
    program: &'static str,
    work: Work,
    unit: Unit,
    /// The limit of the gate: the count that was reached, with a small margin for other versions of
    /// the compiler. Lower it when the operation becomes cheaper.
    limit: f64,
    /// The intended cost.
    aim: f64,
}

const fn budget(
    id: &'static str,
    program: &'static str,
    work: Work,
    unit: Unit,
    limit: f64,
    aim: f64,
) -> Budget {
    Budget { id, program, work, unit, limit, aim }
}

const BUDGETS: [Budget; 45] = [
    budget("F1", "keep_accept", CYCLE, Unit::CallsBeyondIo, 2.0, 2.0),
    budget("F2", "keep_accept", CYCLE, Unit::Calls, 5.0, 5.0),
    budget("F2", "keep_accept", CYCLE, Unit::Instructions, 1020.0, 700.0),
    budget("F3", "keep_threads", CYCLE, Unit::Calls, 5.2, 5.0),
    budget("F3", "keep_threads", CYCLE_64, Unit::Calls, 6.0, 5.1),
    budget("F3", "keep_threads", CYCLE, Unit::Instructions, 1800.0, 2500.0),
    budget("F4", "keep_events", CYCLE, Unit::Calls, 8.1, 8.0),
    budget("F4", "keep_events", CYCLE_64, Unit::Calls, 6.4, 6.1),
    budget("F4", "keep_events", CYCLE, Unit::Instructions, 3050.0, 1000.0),
    budget("F4", "keep_events", CYCLE_64, Unit::Instructions, 2560.0, 1000.0),
    budget("F5", "keep_accept", ECHO, Unit::Calls, 2.0, 2.0),
    budget("F5", "keep_accept", ECHO, Unit::Instructions, 217.0, 100.0),
    budget("F5", "keep_connect", Work::RoundTrip, Unit::Calls, 2.0, 2.0),
    budget("F5", "keep_connect", Work::RoundTrip, Unit::Instructions, 226.0, 100.0),
    budget("F6", "keep_events", ECHO, Unit::Calls, 3.05, 3.05),
    budget("F6", "keep_events", ECHO_64, Unit::Calls, 2.15, 2.15),
    budget("F6", "keep_events", ECHO, Unit::Instructions, 700.0, 250.0),
    budget("F6", "keep_events", ECHO_64, Unit::Instructions, 505.0, 250.0),
    // A pending connect costs the loop no work until the kernel reports an event for it, so the limits
    // are those of an echo.
    budget("F6", "keep_events", ECHO_CONNECTS, Unit::Calls, 3.05, 3.05),
    budget("F6", "keep_events", ECHO_CONNECTS, Unit::Instructions, 690.0, 250.0),
    budget("F7", "keep_events", IDLE, Unit::Bytes, 124.0, 128.0),
    budget("F8", "keep_threads", IDLE_THREADS, Unit::Bytes, 13_000.0, 13_000.0),
    budget("F9", "keep_events", BROADCAST, Unit::Calls, 1.01, 1.01),
    budget("F13", "keep_connect", Work::Connect, Unit::Calls, 9.0, 9.0),
    budget("F13", "keep_connect", Work::Connect, Unit::Instructions, 2440.0, 1000.0),
    // Plain C without options: 18 calls if /etc/hosts has both addresses, and 11 if it has one, of
    // which getaddrinfo(3) makes 8 to 12. The intended cost is six more than 18.
    budget("F22", "keep_connect", Work::ConnectByName, Unit::Calls, 22.0, 24.0),
    budget("F14", "keep_accept", ECHO, Unit::Allocations, 0.0, 0.0),
    budget("F14", "keep_threads", ECHO, Unit::Allocations, 0.0, 0.0),
    budget("F14", "keep_events", ECHO, Unit::Allocations, 0.0, 0.0),
    // A batch, both ends.
    budget("F15", "keep_batch", EQUAL, Unit::Calls, 2.0, 2.0),
    budget("F15", "keep_batch", UNEQUAL, Unit::Calls, 2.0, 2.0),
    budget("F15", "keep_datagram", EQUAL, Unit::Calls, 128.0, 128.0),
    budget("F15", "keep_batch", EQUAL, Unit::Instructions, 21_500.0, 16_000.0),
    budget("F15", "keep_batch", UNEQUAL, Unit::Instructions, 36_000.0, 20_000.0),
    budget("F15", "keep_datagram", EQUAL, Unit::Instructions, 46_600.0, 12_800.0),
    budget("F15", "keep_batch", EQUAL, Unit::Allocations, 0.0, 0.0),
    budget("F15", "keep_datagram", EQUAL, Unit::Allocations, 0.0, 0.0),
    // The answering thread makes two calls, and the other thread sends with one.
    budget("F15", "keep_wait", WAIT, Unit::Calls, 4.0, 4.0),
    budget("F15", "keep_wait", WAIT_TOKEN, Unit::Calls, 5.0, 5.0),
    // One call sends 16 datagrams, and one receives them.
    budget("F15", "keep_served", Work::Served, Unit::Calls, 2.0, 2.0),
    budget("F16", "keep_events", IDLE, Unit::WakeUps, 0.0, 0.0),
    // At most 300 in addition to the system call. Its wrapper and the program's loop take 28.
    // I6: a call that would block, without an error object.
    budget("F21", "keep_blocked", BLOCKED, Unit::Instructions, 178.0, 300.0),
    budget("F21", "keep_blocked", BLOCKED_DATAGRAM, Unit::Instructions, 330.0, 300.0),
    budget("F19", "keep_threads", CYCLE, Unit::Futexes, 0.0, 0.0),
    budget("F19", "keep_events", CYCLE, Unit::Futexes, 0.0, 0.0),
];

/// Programs that exceed a budget. If the gate passes one of them, the gate counts wrongly.
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

impl Budget {
    fn rounded(&self, counted: f64) -> f64 {
        let one = 10_f64.powi(self.unit.digits() as i32);
        (counted * one).round() / one
    }

    fn is_met(&self, counted: f64) -> bool {
        let counted = self.rounded(counted);
        // A count of zero means that the program did nothing, unless the intended cost is zero.
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

/// Whether a budget needs this count.
pub fn is_needed(program: &str, work: Work, unit: Unit) -> bool {
    BUDGETS.iter().any(|budget| (budget.program, budget.work, budget.unit) == (program, work, unit))
        || WORSE.iter().any(|worse| (worse.1, worse.2, worse.3) == (program, work, unit))
}

/// Compares the counts with the budgets and prints them. Returns whether all budgets are met.
pub fn judge(counts: &Counts, programs: &Programs) -> Result<bool, Stop> {
    let counted = |program, work, unit| match counts.get(&(program, work, unit)) {
        Some(counted) => Ok(Some(*counted)),
        None if !programs.has(program) => Ok(None),
        None => Err(format!("{program} was not counted, {}", unit.name())),
    };
    let mut all_met = true;
    for budget in &BUDGETS {
        match counted(budget.program, budget.work, budget.unit)? {
            Some(counted) => {
                budget.print(counted);
                all_met &= budget.is_met(counted);
            }
            None => println!(
                "{:<3}  {:<13} {:<18} not counted: {}",
                budget.id,
                budget.program,
                budget.work.name(),
                budget.unit.name()
            ),
        }
    }
    // A check of the gate itself.
    for (id, program, work, unit) in WORSE {
        let budget =
            BUDGETS.iter().find(|budget| (budget.id, budget.work, budget.unit) == (id, work, unit));
        let budget =
            budget.ok_or_else(|| format!("{program} cannot exceed {id}: no such budget"))?;
        // Another program may exceed the intended cost and still be within the present limit.
        let budget = Budget { limit: budget.aim, ..*budget };
        if counted(program, work, unit)?.is_some_and(|counted| budget.is_met(counted)) {
            return Err(Stop::Fail(format!(
                "the gate passes {program}, which is known to exceed {id}: the gate counts wrongly"
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
    fn budget_is_met_up_to_its_limit() {
        let budget = |unit, limit| budget("F0", "server", CYCLE, unit, limit, limit);
        assert!(budget(Unit::Calls, 5.0).is_met(5.01));
        assert!(!budget(Unit::Calls, 4.9).is_met(5.01));
        assert!(budget(Unit::Calls, 2.15).is_met(2.14));
        assert!(!budget(Unit::Calls, 2.15).is_met(2.16));
        assert!(budget(Unit::Instructions, 700.0).is_met(700.4));
        assert!(!budget(Unit::Instructions, 699.0).is_met(700.4));
        assert!(budget(Unit::Bytes, 128.0).is_met(128.0));
        assert!(!budget(Unit::Bytes, 128.0).is_met(129.0));
    }

    #[test]
    fn budget_with_count_zero_is_met_only_if_zero_is_the_aim() {
        let budget = |unit, limit| budget("F0", "server", CYCLE, unit, limit, limit);
        assert!(!budget(Unit::Calls, 5.0).is_met(0.0));
        assert!(budget(Unit::Allocations, 0.0).is_met(0.0));
        assert!(!budget(Unit::Allocations, 0.0).is_met(0.01));
        assert!(!budget(Unit::WakeUps, 0.0).is_met(1.0));
    }

    #[test]
    fn budgets_name_works_that_are_counted() {
        let counted = |name, work| {
            PROGRAMS.iter().any(|program| program.name == name && program.works.contains(&work))
        };
        for budget in &BUDGETS {
            assert!(counted(budget.program, budget.work), "{}", budget.id);
        }
        for (id, program, work, unit) in WORSE {
            assert!(counted(program, work), "{id}");
            assert!(BUDGETS.iter().any(|b| (b.id, b.work, b.unit) == (id, work, unit)), "{id}");
        }
    }
}
