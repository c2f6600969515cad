//! Processor time of the event-driven servers as a ratio to plain C with epoll. `datagrams.rs` has the
//! datagrams.
//!
//! All servers run with their clients and repeat the same work in rounds. A disturbance of the machine
//! affects neighboring rounds alike, so the ratio within a round varies less than the times, and the
//! median of the ratios varies least. Plain C is listed twice. The distance of its second ratio from 1
//! is the error of measurement.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::datagrams;
use super::programs::{Held, PROGRAMS, Program, Programs, Server, Work};
use crate::run::{Workspace, read_file};
use crate::steps::Stop;
use crate::tools;

pub const TURNS: usize = 7;

/// The program that the others are compared with.
const PLAIN: &str = "raw_epoll";

/// The work that the servers repeat.
struct Measure {
    id: &'static str,
    what: &'static str,
    /// The command for the clients: `benches/counts/hold.c`.
    order: &'static str,
    times: u64,
    connections: u64,
    programs: &'static [&'static str],
    /// The intended ratio of keepsock.
    aim: f64,
}

const MEASURES: [Measure; 2] = [
    Measure {
        id: "F9",
        what: "64 bytes broadcast to 10,000 clients",
        order: "broadcast",
        times: 3,
        connections: 10_000,
        programs: &[PLAIN, "keep_events", PLAIN, "uv_events"],
        aim: 1.1,
    },
    Measure {
        id: "F18",
        what: "64 bytes echoed on 64 connections",
        order: "echo",
        times: 1500,
        connections: 64,
        programs: &[PLAIN, "keep_events", PLAIN, "uv_events", "libevent_events"],
        aim: 1.1,
    },
];

/// Measures the programs and prints the tables. Ratios vary, so no ratio is a failure.
pub fn ratios(ws: &Workspace) -> Result<bool, Stop> {
    if !cfg!(target_os = "linux") {
        return Err(Stop::Skip(
            "processor time is read from /proc, which only Linux has".to_owned(),
        ));
    }
    let programs = Programs::prepare(ws)?;
    let cores = Cores::find(ws)?;
    datagrams::measure(&programs, &cores)?;
    for measure in &MEASURES {
        measure.run(&programs, &cores)?;
    }
    Ok(true)
}

impl Measure {
    fn run(&self, programs: &Programs, cores: &Cores) -> Result<(), Stop> {
        println!("\n{}: {}, {}", self.id, self.what, cores.name());
        let mut peers = Vec::new();
        for name in self.programs.iter().filter(|name| programs.has(name)) {
            let program = PROGRAMS
                .iter()
                .find(|program| program.name == *name)
                .ok_or_else(|| format!("{name} is not in the list of programs"))?;
            peers.push(Peer::start(program, self, programs, cores)?);
        }
        for _ in 0..TURNS {
            for peer in &mut peers {
                peer.take_turn(self)?;
            }
        }
        let Some(plain) = peers.first().map(|peer| peer.times.clone()) else {
            return Err(Stop::Fail("plain C was not measured".to_owned()));
        };
        println!(
            "{:<27} {:>12}  {:>6}  {:>13}",
            "program", "ns for each", "ratio", "least to most"
        );
        for peer in peers {
            let ratios: Vec<f64> = peer.times.iter().zip(&plain).map(|(a, b)| a / b).collect();
            let (ratio, least, most) = spread(ratios);
            let verdict = match peer.program.name.starts_with("keep") {
                true if ratio <= self.aim => format!("aim {:.2}: met", self.aim),
                true => format!("aim {:.2}: NOT MET", self.aim),
                false => String::new(),
            };
            println!(
                "{:<27} {:>12.0}  {ratio:>6.2}  {least:>5.2} to {most:<4.2}  {verdict}",
                peer.program.label,
                spread(peer.times.clone()).0,
            );
            peer.finish()?;
        }
        Ok(())
    }
}

/// A server with its clients, and its processor time in each round.
struct Peer {
    program: &'static Program,
    server: Server,
    clients: Held,
    /// Nanoseconds for one message to one client.
    times: Vec<f64>,
}

impl Peer {
    fn start(
        program: &'static Program,
        measure: &Measure,
        programs: &Programs,
        cores: &Cores,
    ) -> Result<Self, String> {
        let work = Work::Echo { connections: measure.connections };
        let mut command = cores.server(programs.file(program.name).as_os_str());
        command.args(Programs::server_arguments(program.name, work, measure.connections));
        let server = Server::start(&mut command)?;
        let mut command = cores.clients(programs.file("hold").as_os_str());
        let mut clients = Held::open(&mut command, server.port, measure.connections)?;
        // The first run allocates memory, so it is not measured.
        clients.order(measure.order, measure.times)?;
        Ok(Self { program, server, clients, times: Vec::new() })
    }

    fn take_turn(&mut self, measure: &Measure) -> Result<(), String> {
        let before = processor_time(self.server.pid())?;
        self.clients.order(measure.order, measure.times)?;
        let spent = processor_time(self.server.pid())?.saturating_sub(before);
        self.times.push(spent as f64 / (measure.times * measure.connections) as f64);
        Ok(())
    }

    fn finish(self) -> Result<(), String> {
        let closed = self.clients.close();
        self.server.finish(closed)
    }
}

/// The processor time of all threads of a process in nanoseconds, including time in the kernel. The
/// file `stat` has hundredths of a second only.
fn processor_time(pid: u32) -> Result<u64, String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| format!("threads: {e}"))?;
    let mut sum = 0;
    for thread in threads {
        let path = thread.map_err(|e| format!("threads: {e}"))?.path().join("schedstat");
        let text = read_file(&path)?;
        let ran = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += ran.ok_or_else(|| format!("{}: no number", path.display()))?;
    }
    Ok(sum)
}

/// The core of the servers and the core of the clients, if there are two.
pub struct Cores {
    taskset: PathBuf,
    pair: Option<(u32, u32)>,
}

impl Cores {
    fn find(ws: &Workspace) -> Result<Self, Stop> {
        let status = read_file("/proc/self/status".as_ref())?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Ok(Self { taskset: tools::TASKSET.need(ws)?, pair: list.and_then(first_two) })
    }

    fn name(&self) -> String {
        match self.pair {
            Some((one, other)) => format!("servers on core {one}, clients on core {other}"),
            None => "on one core".to_owned(),
        }
    }

    pub fn server(&self, program: &OsStr) -> Command {
        self.on(self.pair.map(|pair| pair.0), program)
    }

    fn clients(&self, program: &OsStr) -> Command {
        self.on(self.pair.map(|pair| pair.1), program)
    }

    fn on(&self, core: Option<u32>, program: &OsStr) -> Command {
        let Some(core) = core else { return Command::new(program) };
        let mut command = Command::new(&self.taskset);
        command.args(["-c", &core.to_string()]).arg(program);
        command
    }
}

/// The first two cores in a list like `0-3,8`.
fn first_two(list: &str) -> Option<(u32, u32)> {
    let mut cores = list.trim().split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().ok().zip(last.parse().ok()).map_or(0..0, |(a, b): (u32, u32)| a..b + 1)
    });
    cores.next().zip(cores.next())
}

/// The median, the minimum and the maximum of an odd number of values.
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_two_reads_every_form_of_list() {
        assert_eq!(first_two("\t0-1\n"), Some((0, 1)));
        assert_eq!(first_two("3,7-8"), Some((3, 7)));
        assert_eq!(first_two("2"), None);
    }

    #[test]
    fn median_ignores_the_extremes() {
        assert_eq!(spread(vec![9.0, 1.0, 2.0]), (2.0, 1.0, 9.0));
    }
}
