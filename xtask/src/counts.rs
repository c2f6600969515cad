//! `cargo xtask counts`: what keepsock costs, counted beside plain C in one run.
//!
//! Times on a shared machine swing; system calls (strace) and user instructions
//! (callgrind) repeat. Each server runs with N and with 2N cycles or echoes, and the
//! difference divided by N is what one of them costs: start-up cancels out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::library;
use crate::run::{self, MINUTE, Reader, Workspace, capture, create_dir, read_file};
use crate::steps::Stop;
use crate::tools;

/// Enough that a call or two made by chance vanish in the first decimal.
const CYCLES: u64 = 400;
/// More where the number of threads that are made at first is a matter of chance.
const CYCLES_AT_ONCE: u64 = 2000;
const ECHOES: u64 = 1000;

/// Everything on loopback; only valgrind's own start takes a moment.
const START_LIMIT: Duration = Duration::from_secs(30);
const RUN_LIMIT: Duration = Duration::from_secs(90);

const READS_AND_WRITES: [&str; 8] =
    ["read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg"];

/// What a server is put to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// Connect, one byte there and one back, close.
    Cycle { at_once: u64 },
    /// 64 bytes answered on an open connection that has a read timeout.
    Echo,
}

impl Work {
    fn name(self) -> String {
        match self {
            Self::Cycle { at_once: 1 } => "cycle".to_owned(),
            Self::Cycle { at_once } => format!("cycle, {at_once} at once"),
            Self::Echo => "echo".to_owned(),
        }
    }

    fn repeats(self) -> u64 {
        match self {
            Self::Cycle { at_once: 1 } => CYCLES,
            Self::Cycle { .. } => CYCLES_AT_ONCE,
            Self::Echo => ECHOES,
        }
    }

    /// Connections, of which how many at once, messages on each, bytes in each.
    fn load(self, repeats: u64) -> [u64; 4] {
        match self {
            Self::Cycle { at_once } => [repeats, at_once, 1, 1],
            Self::Echo => [1, 1, repeats, 64],
        }
    }

    fn read_timeout_ms(self) -> u64 {
        if self == Self::Echo { 10_000 } else { 0 }
    }
}

const CYCLE: Work = Work::Cycle { at_once: 1 };
const CYCLE_64: Work = Work::Cycle { at_once: 64 };

struct Server {
    label: &'static str,
    program: &'static str,
    works: &'static [Work],
}

const SERVERS: [Server; 5] = [
    Server {
        label: "plain C, blocking accept",
        program: "raw_accept",
        works: &[CYCLE, Work::Echo],
    },
    Server {
        label: "keepsock, blocking accept",
        program: "keep_accept",
        works: &[CYCLE, Work::Echo],
    },
    Server {
        label: "plain C, thread for each",
        program: "raw_threads",
        works: &[CYCLE, CYCLE_64, Work::Echo],
    },
    Server {
        label: "Rust std, thread for each",
        program: "std_threads",
        works: &[CYCLE, CYCLE_64, Work::Echo],
    },
    Server {
        label: "keepsock, serve",
        program: "keep_threads",
        works: &[CYCLE, CYCLE_64, Work::Echo],
    },
];

/// What one cycle or echo costs the server.
struct Cost {
    calls: BTreeMap<String, f64>,
    instructions: f64,
}

impl Cost {
    fn calls(&self) -> f64 {
        self.calls.values().sum()
    }

    fn calls_beyond_io(&self) -> f64 {
        self.calls
            .iter()
            .filter(|(name, _)| !READS_AND_WRITES.contains(&name.as_str()))
            .map(|(_, n)| n)
            .sum()
    }

    /// The calls one by one, those that are made at least once in twenty times.
    fn list(&self) -> String {
        let mut calls: Vec<(&String, &f64)> =
            self.calls.iter().filter(|(_, n)| **n >= 0.05).collect();
        calls.sort_by(|a, b| b.1.total_cmp(a.1).then(a.0.cmp(b.0)));
        calls.iter().map(|(name, n)| format!("{name} {n:.1}")).collect::<Vec<_>>().join(", ")
    }
}

type Costs = BTreeMap<(&'static str, Work), Cost>;

#[derive(Clone, Copy)]
enum Unit {
    Calls,
    CallsBeyondIo,
    Instructions,
}

/// What an operation may cost.
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

const BARS: [Bar; 8] = [
    bar("F1", "keep_accept", CYCLE, Unit::CallsBeyondIo, 2.0, 2.0),
    bar("F2", "keep_accept", CYCLE, Unit::Calls, 5.0, 5.0),
    bar("F2", "keep_accept", CYCLE, Unit::Instructions, 1050.0, 700.0),
    bar("F3", "keep_threads", CYCLE, Unit::Calls, 5.5, 9.0),
    bar("F3", "keep_threads", CYCLE_64, Unit::Calls, 6.5, 9.0),
    bar("F3", "keep_threads", CYCLE, Unit::Instructions, 1900.0, 2500.0),
    bar("F5", "keep_accept", Work::Echo, Unit::Calls, 2.0, 2.0),
    bar("F5", "keep_accept", Work::Echo, Unit::Instructions, 220.0, 100.0),
];

impl Bar {
    /// What was counted, to the digits that repeat: tenths of a call, whole instructions.
    fn counted(&self, cost: &Cost) -> f64 {
        match self.unit {
            Unit::Calls => (cost.calls() * 10.0).round() / 10.0,
            Unit::CallsBeyondIo => (cost.calls_beyond_io() * 10.0).round() / 10.0,
            Unit::Instructions => cost.instructions.round(),
        }
    }

    fn is_met(&self, cost: &Cost) -> bool {
        // A server that did nothing would meet every bar.
        let counted = self.counted(cost);
        counted > 0.0 && counted <= self.limit
    }

    fn print(&self, cost: &Cost) {
        let unit = match self.unit {
            Unit::Calls => "system calls",
            Unit::CallsBeyondIo => "system calls beyond reads and writes",
            Unit::Instructions => "instructions",
        };
        let digits = usize::from(!matches!(self.unit, Unit::Instructions));
        println!(
            "{}  {:<13} {:<18} {:>7.digits$}  limit {:>6.digits$}  {:<8}  aim {:>6.digits$}  {unit}",
            self.id,
            self.program,
            self.work.name(),
            self.counted(cost),
            self.limit,
            if self.is_met(cost) { "ok" } else { "EXCEEDED" },
            self.aim,
        );
    }
}

/// Counts and prints; false when `gate` is asked for and a bar is exceeded.
pub fn counts(ws: &Workspace, gate: bool) -> Result<bool, Stop> {
    if !cfg!(target_os = "linux") {
        return Err(Stop::Skip("counts with strace and valgrind: Linux only".to_owned()));
    }
    let counter = Counter::prepare(ws)?;
    let mut costs = Costs::new();
    for server in &SERVERS {
        for work in server.works {
            println!("counting: {}, {}", server.label, work.name());
            costs.insert((server.program, *work), counter.cost(server, *work)?);
        }
    }
    print_table(&costs);
    Ok(judge(&costs)? || !gate)
}

fn print_table(costs: &Costs) {
    println!(
        "\n{:<27} {:<18} {:>6} {:>13}  calls one by one",
        "server", "work", "calls", "instructions"
    );
    for server in &SERVERS {
        for work in server.works {
            if let Some(cost) = costs.get(&(server.program, *work)) {
                println!(
                    "{:<27} {:<18} {:>6.1} {:>13.0}  {}",
                    server.label,
                    work.name(),
                    cost.calls(),
                    cost.instructions,
                    cost.list()
                );
            }
        }
    }
    println!();
}

/// Holds the costs against the bars.
fn judge(costs: &Costs) -> Result<bool, Stop> {
    let mut all_met = true;
    for bar in &BARS {
        let cost = costs
            .get(&(bar.program, bar.work))
            .ok_or_else(|| format!("{} was not counted for {}", bar.program, bar.id))?;
        bar.print(cost);
        all_met &= bar.is_met(cost);
    }
    // A gate that can't fail is none: plain C with a thread for each connection is known
    // to need more than what is asked of `serve`.
    let known_worse = bar("F3", "raw_threads", CYCLE, Unit::Calls, 9.0, 9.0);
    match costs.get(&("raw_threads", CYCLE)) {
        Some(cost) if !known_worse.is_met(cost) => {}
        _ => {
            return Err(Stop::Fail(
                "the gate passes a server that exceeds the bar: it counts wrongly".to_owned(),
            ));
        }
    }
    Ok(all_met)
}

/// The compiled programs, and what counts them.
struct Counter {
    folder: PathBuf,
    strace: PathBuf,
    valgrind: PathBuf,
}

impl Counter {
    fn prepare(ws: &Workspace) -> Result<Self, Stop> {
        let strace = tools::STRACE.need(ws)?;
        let valgrind = tools::VALGRIND.need(ws)?;
        let folder = ws.target.join("counts");
        create_dir(&folder)?;
        let library = library::build(ws)?;
        let source = ws.root.join("benches").join("counts");
        let cc = tools::c_compiler()?;
        for name in ["load", "raw_accept", "raw_threads", "keep_accept", "keep_threads"] {
            let mut compile = ws.command(&cc);
            compile.args(["-O2", "-Wall", "-Wextra", "-pthread", "-o"]).arg(folder.join(name));
            compile.arg(source.join(name).with_extension("c"));
            if name.starts_with("keep") {
                library::link(ws, &library, &mut compile)?;
            }
            capture(&mut compile, 2 * MINUTE)?;
        }
        let mut compile = ws.command("rustc");
        compile.args(["-O", "--edition", "2024", "-o"]).arg(folder.join("std_threads"));
        capture(compile.arg(source.join("std_threads.rs")), 2 * MINUTE)?;
        Ok(Self { folder, strace, valgrind })
    }

    fn cost(&self, server: &Server, work: Work) -> Result<Cost, Stop> {
        let n = work.repeats();
        let (once, twice) = (self.calls(server, work, n)?, self.calls(server, work, 2 * n)?);
        let mut calls = BTreeMap::new();
        for (name, count) in &twice {
            let more = *count as f64 - once.get(name).copied().unwrap_or(0) as f64;
            calls.insert(name.clone(), more / n as f64);
        }
        let more = self.instructions(server, work, 2 * n)? as f64
            - self.instructions(server, work, n)? as f64;
        Ok(Cost { calls, instructions: more / n as f64 })
    }

    fn calls(
        &self,
        server: &Server,
        work: Work,
        repeats: u64,
    ) -> Result<BTreeMap<String, u64>, Stop> {
        let trace = self.folder.join("strace.out");
        let mut command = Command::new(&self.strace);
        // The calls are counted here and not by -c, which leaves out those that don't
        // return, such as the end of a thread.
        command.args(["-f", "-qq", "-s", "0", "-e", "signal=none", "-o"]).arg(&trace);
        self.serve(command, server, work, repeats)?;
        Ok(count_calls(&read_file(&trace)?))
    }

    fn instructions(&self, server: &Server, work: Work, repeats: u64) -> Result<u64, Stop> {
        let mut command = Command::new(&self.valgrind);
        let profile = self.folder.join("callgrind.out");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", profile.display()));
        let said = self.serve(command, server, work, repeats)?;
        count_instructions(&said).ok_or_else(|| {
            Stop::Fail(format!("callgrind printed no count for {}:\n{said}", server.program))
        })
    }

    /// Runs a server under a counting tool, and the load against it. Returns what they
    /// printed as errors.
    fn serve(
        &self,
        mut counted: Command,
        server: &Server,
        work: Work,
        repeats: u64,
    ) -> Result<String, String> {
        let load = work.load(repeats);
        counted.arg(self.folder.join(server.program));
        counted.args([load[0].to_string(), work.read_timeout_ms().to_string()]);
        counted.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = counted.spawn().map_err(|e| format!("start {}: {e}", server.program))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("the server has no pipes".to_owned());
        };
        let (stdout, stderr) = (Reader::start(stdout, false), Reader::start(stderr, false));

        let worked = run::wait_for(START_LIMIT, || port_of(&stdout.text()))
            .ok_or_else(|| "it printed no port".to_owned())
            .and_then(|port| {
                let mut client = Command::new(self.folder.join("load"));
                client.arg(port.to_string()).args(load.map(|number| number.to_string()));
                capture(&mut client, RUN_LIMIT)
            })
            .and_then(|_| {
                let ended = run::wait(&mut child, RUN_LIMIT)?.ok_or("it does not end")?;
                if ended.success() { Ok(()) } else { Err(format!("it ended with {ended}")) }
            });
        if worked.is_err() {
            run::kill_tree(&mut child);
        }
        let said = stderr.finish();
        worked
            .map(|()| said.clone())
            .map_err(|e| format!("{}, {}: {e}\n{said}", server.program, work.name()))
    }
}

fn port_of(output: &str) -> Option<u16> {
    output.lines().find_map(|line| line.strip_prefix("port ")?.trim().parse().ok())
}

/// Counts the calls in a trace: `1234  accept4(3, ...`. The second half of a call that
/// was interrupted (`<... accept4 resumed>`) is not another one.
fn count_calls(trace: &str) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in trace.lines() {
        let words = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        if let Some((name, _)) = words.split_once('(') {
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                *calls.entry(name.to_owned()).or_insert(0) += 1;
            }
        }
    }
    calls
}

/// Finds callgrind's sum: `==1234== Collected : 451344`.
fn count_instructions(said: &str) -> Option<u64> {
    said.lines()
        .find_map(|line| line.split_once("Collected : ")?.1.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(calls: &[(&str, f64)], instructions: f64) -> Cost {
        Cost {
            calls: calls.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            instructions,
        }
    }

    #[test]
    fn calls_are_counted_once_also_when_they_are_interrupted() {
        let trace = "10 accept4(3,  <unfinished ...>\n11 exit(0)   = ?\n10 <... accept4 resumed>NULL) = 4\n\
                     10 recvfrom(4, \"\"..., 256) = 1\n11 +++ exited with 0 +++\n";
        let calls = count_calls(trace);
        assert_eq!(calls.get("accept4"), Some(&1));
        assert_eq!(calls.values().sum::<u64>(), 3);
    }

    #[test]
    fn a_bar_is_met_up_to_its_limit_and_not_beyond() {
        let bar = |unit, limit| bar("F0", "server", CYCLE, unit, limit, limit);
        let cost =
            cost(&[("accept4", 1.0), ("recvfrom", 2.0), ("sendto", 1.01), ("close", 1.0)], 700.4);
        assert!(bar(Unit::Calls, 5.0).is_met(&cost));
        assert!(!bar(Unit::Calls, 4.9).is_met(&cost));
        assert!(bar(Unit::CallsBeyondIo, 2.0).is_met(&cost));
        assert!(!bar(Unit::CallsBeyondIo, 1.9).is_met(&cost));
        assert!(bar(Unit::Instructions, 700.0).is_met(&cost));
        assert!(!bar(Unit::Instructions, 699.0).is_met(&cost));
    }

    #[test]
    fn a_server_that_did_nothing_meets_no_bar() {
        let bar = bar("F0", "server", CYCLE, Unit::Calls, 5.0, 5.0);
        assert!(!bar.is_met(&cost(&[], 0.0)));
    }

    #[test]
    fn every_bar_is_about_something_that_is_counted() {
        for bar in &BARS {
            let server = SERVERS.iter().find(|server| server.program == bar.program);
            assert!(server.is_some_and(|server| server.works.contains(&bar.work)), "{}", bar.id);
        }
    }

    #[test]
    fn what_the_programs_print_is_understood() {
        assert_eq!(port_of("port 4711\n"), Some(4711));
        assert_eq!(
            count_instructions("==1== Events : Ir\n==1== Collected : 451344\n"),
            Some(451_344)
        );
    }
}
