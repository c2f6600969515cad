//! F15: what a datagram costs both ends, as a ratio to plain C with sendto and recvfrom.
//!
//! Each program sends 64 datagrams to itself by loopback, receives and checks them, again and
//! again; what it cannot receive as it was sent ends it. One thread has both ends, so the time is
//! that of both, by the clock and of the processor. The programs take turns, as in `ratios.rs`.

use super::programs::{PROGRAMS, Programs, Worker, length_of};
use super::ratios::{Cores, TURNS, spread};
use crate::steps::Stop;

/// Batches in a turn: a fifth of a second for the slowest.
const BATCHES: u32 = 1000;

/// A program at its work, what it is beside (a row above it), and what these ratios are meant to be.
struct Row {
    program: &'static str,
    equal: bool,
    aim: Option<f64>,
    beside: Option<(usize, Option<f64>)>,
}

const fn row(program: &'static str, equal: bool) -> Row {
    Row { program, equal, aim: None, beside: None }
}

impl Row {
    const fn beside(mut self, row: usize, aim: Option<f64>) -> Self {
        self.beside = Some((row, aim));
        self
    }

    const fn aim(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }
}

/// Plain C stands there twice: how far its second is from 1 tells what the digits are worth.
const ROWS: [Row; 11] = [
    row("raw_sendto", true),
    row("raw_sendto", true),
    row("raw_send", true),
    row("raw_sendmmsg", false),
    row("raw_segment", true),
    row("raw_pieces", true).beside(4, None),
    row("raw_coalesce", true),
    row("keep_datagram", true).beside(2, None),
    row("keep_batch", true).aim(0.25).beside(4, Some(1.03)),
    row("keep_batch", false).beside(3, None),
    row("keep_coalesce", true).aim(0.25).beside(6, None),
];

/// Measures and prints.
pub fn measure(programs: &Programs, cores: &Cores) -> Result<(), Stop> {
    println!(
        "\nF15: a UDP datagram of 64 bytes, 64 at a time, both ends in one thread on one core"
    );
    let mut runs: Vec<Run> =
        ROWS.iter().map(|row| Run::start(row, programs, cores)).collect::<Result<_, _>>()?;
    for _ in 0..TURNS {
        for run in &mut runs {
            run.take_turn()?;
        }
    }
    let of = |which: usize| -> Vec<Vec<f64>> {
        runs.iter().map(|run| run.times.iter().map(|times| times[which]).collect()).collect()
    };
    let (clock, processor) = (of(0), of(1));
    println!(
        "{:<27} {:<7} {:>6}  {:>6}  {:>9}  {:>6}  {:>14}",
        "program", "lengths", "ns", "ratio", "processor", "ratio", "least to most"
    );
    for (at, row) in ROWS.iter().enumerate() {
        let median = |times: &[Vec<f64>]| spread(times[at].clone()).0;
        println!(
            "{:<27} {:<7} {:>6.0}  {:>6.3}  {:>9.0}  {}",
            label(row.program),
            length_of(row.equal),
            median(&clock),
            ratios(&clock[at], &clock[0]).0,
            median(&processor),
            verdict(ratios(&processor[at], &processor[0]), row.aim),
        );
        if let Some((other, aim)) = row.beside {
            println!(
                "{:<42}  {:>6.3}  {:>9}  {}",
                format!("  beside {}", label(ROWS[other].program)),
                ratios(&clock[at], &clock[other]).0,
                "",
                verdict(ratios(&processor[at], &processor[other]), aim),
            );
        }
    }
    for run in runs {
        run.worker.finish()?;
    }
    Ok(())
}

/// A program with the nanoseconds for a datagram of each turn: by the clock, and of the processor.
struct Run {
    worker: Worker,
    times: Vec<[f64; 2]>,
}

impl Run {
    fn start(row: &Row, programs: &Programs, cores: &Cores) -> Result<Self, String> {
        let mut command = cores.server(programs.file(row.program).as_os_str());
        let worker = Worker::start(command.arg(length_of(row.equal)))?;
        let mut run = Self { worker, times: Vec::new() };
        // The first time touches memory that is not there yet.
        run.take_turn()?;
        run.times.clear();
        Ok(run)
    }

    fn take_turn(&mut self) -> Result<(), String> {
        let said = self.worker.order(&BATCHES.to_string())?;
        self.times.push(two_numbers(&said).ok_or_else(|| format!("no two times: {said}"))?);
        Ok(())
    }
}

fn two_numbers(line: &str) -> Option<[f64; 2]> {
    let mut words = line.split_whitespace().map(|word| word.parse::<f64>().ok());
    let two = [words.next()??, words.next()??];
    two.iter().all(|time| *time > 0.0).then_some(two)
}

/// The median of the turns' ratios, the least and the most.
fn ratios(times: &[f64], base: &[f64]) -> (f64, f64, f64) {
    spread(times.iter().zip(base).map(|(a, b)| a / b).collect())
}

/// Of the processor's time, which a busy machine makes less wrong than the clock's.
fn verdict((ratio, least, most): (f64, f64, f64), aim: Option<f64>) -> String {
    let met = match aim {
        Some(aim) if ratio <= aim => format!("  aim {aim:.2}: met"),
        Some(aim) => format!("  aim {aim:.2}: NOT MET"),
        None => String::new(),
    };
    format!("{ratio:>6.3}  {least:>5.3} to {most:<5.3}{met}")
}

fn label(name: &'static str) -> &'static str {
    PROGRAMS.iter().find(|program| program.name == name).map_or(name, |program| program.label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_is_a_row_before() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(PROGRAMS.iter().any(|program| program.name == row.program), "{}", row.program);
            assert!(row.beside.is_none_or(|(other, _)| other < at));
        }
    }

    #[test]
    fn times_are_two_numbers_and_more_than_none() {
        assert_eq!(two_numbers("3450.25 3449.00"), Some([3450.25, 3449.0]));
        assert_eq!(two_numbers("3450.25"), None);
        assert_eq!(two_numbers("0.00 1.00"), None);
        assert_eq!(two_numbers("a b"), None);
    }
}
