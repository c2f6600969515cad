//! `cargo xtask counts`: what keepsock costs, counted beside plain C in one run.
//!
//! Times on a shared machine swing; system calls (strace) and user instructions
//! (callgrind) repeat. Each program runs with N and with 2N cycles, echoes or connects, and
//! the difference divided by N is what one of them costs: start-up cancels out.

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

/// What a program is put to. The first two are a server's, the others a client's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// Connect, one byte there and one back, close.
    Cycle { at_once: u64 },
    /// 64 bytes answered on an open connection that has a read timeout.
    Echo,
    /// Connect to a numeric address with five options and a deadline, close.
    Connect,
    /// 64 bytes sent, and as many received, on an open connection that has a read timeout.
    RoundTrip,
}

impl Work {
    fn name(self) -> String {
        match self {
            Self::Cycle { at_once: 1 } => "cycle".to_owned(),
            Self::Cycle { at_once } => format!("cycle, {at_once} at once"),
            Self::Echo => "echo".to_owned(),
            Self::Connect => "connect, close".to_owned(),
            Self::RoundTrip => "round trip".to_owned(),
        }
    }

    fn is_a_clients(self) -> bool {
        matches!(self, Self::Connect | Self::RoundTrip)
    }

    fn repeats(self) -> u64 {
        match self {
            Self::Cycle { at_once: 1 } | Self::Connect => CYCLES,
            Self::Cycle { .. } => CYCLES_AT_ONCE,
            Self::Echo | Self::RoundTrip => ECHOES,
        }
    }

    /// Connections, of which how many at once, messages on each, bytes in each.
    fn load(self, repeats: u64) -> [u64; 4] {
        match self {
            Self::Cycle { at_once } => [repeats, at_once, 1, 1],
            Self::Connect => [repeats, 1, 0, 64],
            Self::Echo | Self::RoundTrip => [1, 1, repeats, 64],
        }
    }

    fn read_timeout_ms(self) -> u64 {
        if matches!(self, Self::Echo | Self::RoundTrip) { 10_000 } else { 0 }
    }
}

const CYCLE: Work = Work::Cycle { at_once: 1 };
const CYCLE_64: Work = Work::Cycle { at_once: 64 };

/// A program that is counted.
struct Program {
    label: &'static str,
    name: &'static str,
    works: &'static [Work],
}

const SERVER: &[Work] = &[CYCLE, Work::Echo];
const THREADED_SERVER: &[Work] = &[CYCLE, CYCLE_64, Work::Echo];
const CLIENT: &[Work] = &[Work::Connect, Work::RoundTrip];

const fn program(label: &'static str, name: &'static str, works: &'static [Work]) -> Program {
    Program { label, name, works }
}

const PROGRAMS: [Program; 10] = [
    program("plain C, blocking accept", "raw_accept", SERVER),
    program("keepsock, blocking accept", "keep_accept", SERVER),
    program("plain C, thread for each", "raw_threads", THREADED_SERVER),
    program("Rust std, thread for each", "std_threads", THREADED_SERVER),
    program("keepsock, serve", "keep_threads", THREADED_SERVER),
    program("plain C, no deadline", "raw_connect", CLIENT),
    program("plain C, kernel's timeouts", "raw_connect_timed", CLIENT),
    program("Rust std", "std_connect", CLIENT),
    program("libcurl, easy interface", CURL, CLIENT),
    program("keepsock", "keep_connect", CLIENT),
];

/// Counted where libcurl's headers are.
const CURL: &str = "curl_connect";

/// What one cycle, echo, connect or round trip costs the program.
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

const BARS: [Bar; 12] = [
    bar("F1", "keep_accept", CYCLE, Unit::CallsBeyondIo, 2.0, 2.0),
    bar("F2", "keep_accept", CYCLE, Unit::Calls, 5.0, 5.0),
    bar("F2", "keep_accept", CYCLE, Unit::Instructions, 1050.0, 700.0),
    bar("F3", "keep_threads", CYCLE, Unit::Calls, 5.5, 9.0),
    bar("F3", "keep_threads", CYCLE_64, Unit::Calls, 6.5, 9.0),
    bar("F3", "keep_threads", CYCLE, Unit::Instructions, 1700.0, 2500.0),
    bar("F5", "keep_accept", Work::Echo, Unit::Calls, 2.0, 2.0),
    bar("F5", "keep_accept", Work::Echo, Unit::Instructions, 220.0, 100.0),
    bar("F5", "keep_connect", Work::RoundTrip, Unit::Calls, 2.0, 2.0),
    bar("F5", "keep_connect", Work::RoundTrip, Unit::Instructions, 220.0, 100.0),
    bar("F13", "keep_connect", Work::Connect, Unit::Calls, 9.0, 9.0),
    bar("F13", "keep_connect", Work::Connect, Unit::Instructions, 2400.0, 1000.0),
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
        // A program that did nothing would meet every bar.
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
            "{:<3}  {:<13} {:<18} {:>7.digits$}  limit {:>6.digits$}  {:<8}  aim {:>6.digits$}  {unit}",
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
    for program in &PROGRAMS {
        if !counter.has(program.name) {
            continue;
        }
        for work in program.works {
            println!("counting: {}, {}", program.label, work.name());
            costs.insert((program.name, *work), counter.cost(program.name, *work)?);
        }
    }
    print_table(&costs);
    Ok(judge(&costs)? || !gate)
}

fn print_table(costs: &Costs) {
    println!(
        "\n{:<27} {:<18} {:>6} {:>13}  calls one by one",
        "program", "work", "calls", "instructions"
    );
    for program in &PROGRAMS {
        for work in program.works {
            if let Some(cost) = costs.get(&(program.name, *work)) {
                println!(
                    "{:<27} {:<18} {:>6.1} {:>13.0}  {}",
                    program.label,
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
    // A gate that can't fail is none: these are known to need more than what is asked of us.
    for worse in [
        bar("F3", "raw_threads", CYCLE, Unit::Calls, 9.0, 9.0),
        bar("F13", "std_connect", Work::Connect, Unit::Calls, 9.0, 9.0),
    ] {
        match costs.get(&(worse.program, worse.work)) {
            Some(cost) if !worse.is_met(cost) => {}
            _ => {
                return Err(Stop::Fail(format!(
                    "the gate passes {}, which exceeds the bar: it counts wrongly",
                    worse.program
                )));
            }
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
        for name in ["load"].into_iter().chain(PROGRAMS.iter().map(|program| program.name)) {
            let mut compile =
                ws.command(if name.starts_with("std") { "rustc".as_ref() } else { cc.as_path() });
            compile.arg("-o").arg(folder.join(name));
            if name.starts_with("std") {
                compile
                    .args(["-O", "--edition", "2024"])
                    .arg(source.join(name).with_extension("rs"));
            } else {
                compile.args(["-O2", "-Wall", "-Wextra", "-pthread"]);
                compile.arg(source.join(name).with_extension("c"));
            }
            if name.starts_with("keep") {
                library::link(ws, &library, &mut compile)?;
            }
            if name == CURL {
                match curl_flags(ws) {
                    Ok(flags) => compile.args(flags),
                    Err(why) => {
                        println!("libcurl is not counted: {why}");
                        // One of an earlier run may be of another library.
                        let _ = std::fs::remove_file(folder.join(name));
                        continue;
                    }
                };
            }
            capture(&mut compile, 2 * MINUTE)?;
        }
        Ok(Self { folder, strace, valgrind })
    }

    fn has(&self, program: &str) -> bool {
        self.folder.join(program).exists()
    }

    fn cost(&self, program: &str, work: Work) -> Result<Cost, Stop> {
        let n = work.repeats();
        let (once, twice) = (self.calls(program, work, n)?, self.calls(program, work, 2 * n)?);
        let mut calls = BTreeMap::new();
        for (name, count) in &twice {
            let more = *count as f64 - once.get(name).copied().unwrap_or(0) as f64;
            calls.insert(name.clone(), more / n as f64);
        }
        let more = self.instructions(program, work, 2 * n)? as f64
            - self.instructions(program, work, n)? as f64;
        Ok(Cost { calls, instructions: more / n as f64 })
    }

    fn calls(
        &self,
        program: &str,
        work: Work,
        repeats: u64,
    ) -> Result<BTreeMap<String, u64>, Stop> {
        let trace = self.folder.join("strace.out");
        let mut command = Command::new(&self.strace);
        // The calls are counted here and not by -c, which leaves out those that don't
        // return, such as the end of a thread.
        command.args(["-f", "-qq", "-s", "0", "-e", "signal=none", "-o"]).arg(&trace);
        self.run(command, program, work, repeats)?;
        Ok(count_calls(&read_file(&trace)?))
    }

    fn instructions(&self, program: &str, work: Work, repeats: u64) -> Result<u64, Stop> {
        let (profile, log) = (self.folder.join("callgrind.out"), self.folder.join("callgrind.log"));
        let mut command = Command::new(&self.valgrind);
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", profile.display()));
        command.arg(format!("--log-file={}", log.display()));
        self.run(command, program, work, repeats)?;
        let said = read_file(&log)?;
        count_instructions(&said)
            .ok_or_else(|| Stop::Fail(format!("callgrind printed no count for {program}:\n{said}")))
    }

    /// Runs a program under a counting tool, and its other side.
    fn run(
        &self,
        mut counted: Command,
        program: &str,
        work: Work,
        repeats: u64,
    ) -> Result<(), String> {
        let load = work.load(repeats);
        let [connections, _, messages, _] = load.map(|number| number.to_string());
        let timeout = work.read_timeout_ms().to_string();
        counted.arg(self.folder.join(program));
        let ran = if work.is_a_clients() {
            // It waits for its clients to close, so that what they do does not hang on who
            // is quicker.
            let mut server = Command::new(self.folder.join("raw_accept"));
            server.args([&connections, "0"]);
            serve(server, |port| {
                counted.args([&port.to_string(), &connections, &messages, &timeout]);
                capture(&mut counted, RUN_LIMIT)
            })
        } else {
            counted.args([&connections, &timeout]);
            serve(counted, |port| {
                let mut clients = Command::new(self.folder.join("load"));
                clients.arg(port.to_string()).args(load.map(|number| number.to_string()));
                capture(&mut clients, RUN_LIMIT)
            })
        };
        ran.map_err(|e| format!("{program}, {}: {e}", work.name()))
    }
}

/// Runs a server, and its clients against the port that it prints.
fn serve(
    mut server: Command,
    clients: impl FnOnce(u16) -> Result<String, String>,
) -> Result<(), String> {
    server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = server.spawn().map_err(|e| format!("cannot start the server: {e}"))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("the server has no pipes".to_owned());
    };
    let (stdout, stderr) = (Reader::start(stdout, false), Reader::start(stderr, false));
    let worked = run::wait_for(START_LIMIT, || port_of(&stdout.text()))
        .ok_or_else(|| "the server printed no port".to_owned())
        .and_then(clients)
        .and_then(|_| {
            let ended = run::wait(&mut child, RUN_LIMIT)?.ok_or("the server does not end")?;
            if ended.success() { Ok(()) } else { Err(format!("the server ended with {ended}")) }
        });
    if worked.is_err() {
        run::kill_tree(&mut child);
    }
    worked.map_err(|e| format!("{e}\n{}", stderr.finish()))
}

/// How to compile with libcurl.
fn curl_flags(ws: &Workspace) -> Result<Vec<String>, String> {
    let config = tools::CURL_CONFIG.find_or_install(ws)?;
    let flags = capture(ws.command(config).args(["--cflags", "--libs"]), MINUTE)?;
    Ok(flags.split_whitespace().map(str::to_owned).collect())
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
    fn a_program_that_did_nothing_meets_no_bar() {
        let bar = bar("F0", "server", CYCLE, Unit::Calls, 5.0, 5.0);
        assert!(!bar.is_met(&cost(&[], 0.0)));
    }

    #[test]
    fn every_bar_is_about_something_that_is_counted() {
        for bar in &BARS {
            let program = PROGRAMS.iter().find(|program| program.name == bar.program);
            assert!(program.is_some_and(|p| p.works.contains(&bar.work)), "{}", bar.id);
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
