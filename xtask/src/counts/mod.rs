//! `cargo xtask counts`: the costs of keepsock, of plain C, and of other libraries, counted in one run.
//! `cargo xtask ratios`: processor time as a ratio to plain C.
//!
//! Times on a shared machine vary. System calls (strace), user instructions (callgrind), memory and
//! wake-ups are equal in every run. Each program runs with N and with 2N cycles, echoes, connects,
//! batches or connections. The difference divided by N is the cost of one of them, without the cost
//! of the program's start.

mod budgets;
mod costs;
mod datagrams;
mod idle;
mod programs;
mod ratios;

use std::collections::BTreeMap;

use budgets::{Counts, Unit};
use costs::Counter;
use programs::{PROGRAMS, Programs, Work};
pub use ratios::ratios;

use crate::run::Workspace;
use crate::steps::Stop;

/// Counts, and prints the tables. Returns false if `gate` is true and a budget is exceeded.
pub fn counts(ws: &Workspace, gate: bool) -> Result<bool, Stop> {
    if !cfg!(target_os = "linux") {
        return Err(Stop::Skip("strace and valgrind are needed, which only Linux has".to_owned()));
    }
    let programs = Programs::prepare(ws)?;
    let counter = Counter::prepare(ws, &programs)?;
    let mut counts = Counts::new();
    let mut lists = BTreeMap::new();
    for program in PROGRAMS.iter().filter(|program| programs.has(program.name)) {
        for work in program.works {
            println!("counting: {}, {}", program.label, work.name());
            let mut found = |unit, counted| counts.insert((program.name, *work, unit), counted);
            if let Work::Idle { .. } = work {
                let idle = idle::idle(&programs, program.name, *work)?;
                found(Unit::Bytes, idle.bytes);
                found(Unit::WakeUps, idle.wake_ups);
                continue;
            }
            let cost = counter.cost(program.name, *work)?;
            found(Unit::Calls, cost.calls());
            found(Unit::CallsBeyondIo, cost.calls_beyond_io());
            found(Unit::Futexes, cost.futexes());
            found(Unit::Instructions, cost.instructions);
            lists.insert((program.name, *work), cost.list());
            if budgets::is_needed(program.name, *work, Unit::Allocations) {
                found(Unit::Allocations, counter.allocations(program.name, *work)?);
            }
        }
    }
    print_tables(&counts, &lists);
    Ok(budgets::judge(&counts, &programs)? || !gate)
}

fn print_tables(counts: &Counts, lists: &BTreeMap<(&str, Work), String>) {
    let rows = || {
        PROGRAMS.iter().flat_map(|program| program.works.iter().map(move |work| (program, *work)))
    };
    println!(
        "\n{:<27} {:<18} {:>6} {:>13}  calls by name",
        "program", "work", "calls", "instructions"
    );
    for (program, work) in rows() {
        let counted = |unit| counts.get(&(program.name, work, unit));
        if let (Some(calls), Some(instructions), Some(list)) =
            (counted(Unit::Calls), counted(Unit::Instructions), lists.get(&(program.name, work)))
        {
            println!(
                "{:<27} {:<18} {calls:>6.1} {instructions:>13.0}  {list}",
                program.label,
                work.name()
            );
        }
    }
    println!("\n{:<27} {:>17} {:>23}", "program", "bytes for an idle", "wake-ups of the server");
    println!("{:<27} {:>17} {:>23}", "", "connection", "in 3 s");
    for (program, work) in rows() {
        let counted = |unit| counts.get(&(program.name, work, unit));
        if let (Some(bytes), Some(wake_ups)) = (counted(Unit::Bytes), counted(Unit::WakeUps)) {
            println!("{:<27} {bytes:>17.0} {wake_ups:>23.0}", program.label);
        }
    }
    println!("\n{:<27} {:<18} {:>11}", "program", "work", "allocations");
    for (program, work) in rows() {
        if let Some(allocations) = counts.get(&(program.name, work, Unit::Allocations)) {
            println!("{:<27} {:<18} {allocations:>11.2}", program.label, work.name());
        }
    }
    println!();
}
