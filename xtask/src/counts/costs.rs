//! System calls (strace), user instructions (callgrind) and heap allocations (memcheck).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::programs::{Held, Programs, RUN_LIMIT, Server, Work, length_of};
use crate::run::{Workspace, capture, read_file};
use crate::steps::Stop;
use crate::tools;

const READS_AND_WRITES: [&str; 8] =
    ["read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg"];

/// The cost of one cycle, echo, connect, round trip or batch.
pub struct Cost {
    pub calls: BTreeMap<String, f64>,
    pub instructions: f64,
}

impl Cost {
    pub fn calls(&self) -> f64 {
        self.calls.values().sum()
    }

    pub fn calls_beyond_io(&self) -> f64 {
        self.calls
            .iter()
            .filter(|(name, _)| !READS_AND_WRITES.contains(&name.as_str()))
            .map(|(_, n)| n)
            .sum()
    }

    /// The calls by which threads wait for each other and wake each other.
    pub fn futexes(&self) -> f64 {
        self.calls.get("futex").copied().unwrap_or(0.0)
    }

    /// The calls by name, if they are made at least once in twenty repetitions.
    pub fn list(&self) -> String {
        let mut calls: Vec<(&String, &f64)> =
            self.calls.iter().filter(|(_, n)| **n >= 0.05).collect();
        calls.sort_by(|a, b| b.1.total_cmp(a.1).then(a.0.cmp(b.0)));
        calls.iter().map(|(name, n)| format!("{name} {n:.1}")).collect::<Vec<_>>().join(", ")
    }
}

/// Runs the programs under the counting tools.
pub struct Counter<'a> {
    programs: &'a Programs,
    strace: PathBuf,
    valgrind: PathBuf,
}

impl<'a> Counter<'a> {
    pub fn prepare(ws: &Workspace, programs: &'a Programs) -> Result<Self, Stop> {
        Ok(Self { programs, strace: tools::STRACE.need(ws)?, valgrind: tools::VALGRIND.need(ws)? })
    }

    pub fn cost(&self, program: &str, work: Work) -> Result<Cost, Stop> {
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

    /// The number of heap allocations of one repetition.
    pub fn allocations(&self, program: &str, work: Work) -> Result<f64, Stop> {
        let n = work.repeats();
        let count = |repeats| {
            let said = self.valgrind(&["--leak-check=no"], program, work, repeats)?;
            number_after(&said, "total heap usage: ").ok_or_else(|| {
                Stop::Fail(format!("memcheck printed no count for {program}:\n{said}"))
            })
        };
        Ok(count(2 * n)?.saturating_sub(count(n)?) as f64 / n as f64)
    }

    fn calls(
        &self,
        program: &str,
        work: Work,
        repeats: u64,
    ) -> Result<BTreeMap<String, u64>, Stop> {
        let trace = self.programs.file("strace.out");
        let mut command = Command::new(&self.strace);
        // The option -c omits calls that do not return, such as the end of a thread, so the calls in
        // the trace are counted.
        command.args(["-f", "-qq", "-s", "0", "-e", "signal=none", "-o"]).arg(&trace);
        self.run(command, program, work, repeats)?;
        Ok(count_calls(&read_file(&trace)?))
    }

    fn instructions(&self, program: &str, work: Work, repeats: u64) -> Result<u64, Stop> {
        let profile = self.programs.file("callgrind.out");
        let profile = format!("--callgrind-out-file={}", profile.display());
        let said = self.valgrind(&["--tool=callgrind", &profile], program, work, repeats)?;
        number_after(&said, "Collected : ")
            .ok_or_else(|| Stop::Fail(format!("callgrind printed no count for {program}:\n{said}")))
    }

    /// Runs a program under one of valgrind's tools, and returns the tool's output.
    fn valgrind(
        &self,
        tool: &[&str],
        program: &str,
        work: Work,
        repeats: u64,
    ) -> Result<String, String> {
        let log = self.programs.file("valgrind.log");
        let mut command = Command::new(&self.valgrind);
        command.args(tool).arg(format!("--log-file={}", log.display()));
        self.run(command, program, work, repeats)?;
        read_file(&log)
    }

    /// Runs a program under a counting tool, with its peer.
    fn run(
        &self,
        mut counted: Command,
        program: &str,
        work: Work,
        repeats: u64,
    ) -> Result<(), String> {
        counted.arg(self.programs.file(program));
        let ran = match work {
            Work::Connect | Work::ConnectByName | Work::RoundTrip => {
                self.run_client(counted, work, repeats)
            }
            Work::WouldBlock { datagram } => {
                let kind = if datagram { "datagram" } else { "stream" };
                counted.args([kind, &repeats.to_string()]);
                capture(&mut counted, RUN_LIMIT).map(|_| ())
            }
            Work::Wait { token } => {
                counted.args([if token { "token" } else { "timeout" }, &repeats.to_string()]);
                capture(&mut counted, RUN_LIMIT).map(|_| ())
            }
            Work::Served => {
                counted.arg(repeats.to_string());
                capture(&mut counted, RUN_LIMIT).map(|_| ())
            }
            Work::Datagrams { equal } => {
                counted.args([length_of(equal), &repeats.to_string()]);
                capture(&mut counted, RUN_LIMIT).map(|_| ())
            }
            _ => {
                counted.args(Programs::server_arguments(program, work, repeats));
                self.run_server(counted, work, repeats)
            }
        };
        ran.map_err(|e| format!("{program}, {}: {e}", work.name()))
    }

    fn run_client(&self, mut counted: Command, work: Work, repeats: u64) -> Result<(), String> {
        let connections = work.connections(repeats);
        let messages = if work == Work::RoundTrip { repeats } else { 0 };
        // The server waits until its clients close, so that the calls do not depend on the order of
        // the two closes.
        let server = Server::start(
            Command::new(self.programs.file("raw_accept"))
                .args([connections.to_string(), "0".to_owned()]),
        )?;
        counted.arg(server.port.to_string());
        counted.args([connections, messages, work.read_timeout_ms()].map(|n| n.to_string()));
        if work == Work::ConnectByName {
            counted.arg("localhost");
        }
        let ran = capture(&mut counted, RUN_LIMIT).map(|_| ());
        server.finish(ran)
    }

    fn run_server(&self, mut counted: Command, work: Work, repeats: u64) -> Result<(), String> {
        let server = Server::start(&mut counted)?;
        let connections = work.connections(repeats);
        // The number of connections, how many at once, messages on each, bytes in each message.
        let load = |load: [u64; 4]| {
            let mut clients = Command::new(self.programs.file("load"));
            clients.arg(server.port.to_string()).args(load.map(|number| number.to_string()));
            capture(&mut clients, RUN_LIMIT).map(|_| ())
        };
        let ran = match work {
            Work::Cycle { at_once } => load([connections, at_once, 1, 1]),
            Work::Broadcast { clients } => {
                let mut command = Command::new(self.programs.file("hold"));
                Held::open(&mut command, server.port, clients).and_then(|mut held| {
                    held.order("broadcast", repeats / clients)?;
                    held.close()
                })
            }
            _ => load([connections, connections, repeats / connections, 64]),
        };
        server.finish(ran)
    }
}

/// Counts the calls in a trace: `1234  accept4(3, ...`. The second line of an interrupted call
/// (`<... accept4 resumed>`) is not counted again.
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

/// Finds a number in valgrind's output: `==1234== Collected : 451344`, or
/// `==1234==   total heap usage: 1,024 allocs, ...`.
fn number_after(said: &str, words: &str) -> Option<u64> {
    said.lines().find_map(|line| {
        line.split_once(words)?.1.split_whitespace().next()?.replace(',', "").parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_calls_are_counted_once() {
        let trace = "10 accept4(3,  <unfinished ...>\n11 exit(0)   = ?\n10 <... accept4 resumed>NULL) = 4\n\
                     10 recvfrom(4, \"\"..., 256) = 1\n11 +++ exited with 0 +++\n";
        let calls = count_calls(trace);
        assert_eq!(calls.get("accept4"), Some(&1));
        assert_eq!(calls.values().sum::<u64>(), 3);
    }

    #[test]
    fn number_after_reads_the_output_of_valgrind() {
        let said = "==1== Events : Ir\n==1== Collected : 451344\n";
        assert_eq!(number_after(said, "Collected : "), Some(451_344));
        let said = "==1==   total heap usage: 1,024 allocs, 1,020 frees, 9 bytes allocated\n";
        assert_eq!(number_after(said, "total heap usage: "), Some(1024));
    }
}
