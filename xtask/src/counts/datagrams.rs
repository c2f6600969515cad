//! F15: the cost of a datagram for both ends, as a ratio to plain C with sendto and recvfrom.
//!
//! Each program repeatedly sends 64 datagrams to itself over loopback, receives them and checks
//! them. It fails if a datagram differs from the sent one. One thread has both ends, so the time
//! includes both: wall-clock time and processor time. The programs run in rounds, as in `ratios.rs`.

use super::programs::{PROGRAMS, Programs, Worker, length_of};
use super::ratios::{Cores, TURNS, spread};
use crate::steps::Stop;

/// The number of batches in a round, which takes the slowest program a fifth of a second.
const BATCHES: u32 = 1000;

/// A program and its work, a row above it to compare with, and the intended ratios.
struct Row {
    program: &'static str,
    equal: bool,
    aim: Option<f64>,
    compared_with: Option<(usize, Option<f64>)>,
}

const fn row(program: &'static str, equal: bool) -> Row {
    Row { program, equal, aim: None, compared_with: None }
}

impl Row {
    const fn compared_with(mut self, row: usize, aim: Option<f64>) -> Self {
        self.compared_with = Some((row, aim));
        self
    }

    const fn aim(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }
}

/// Plain C is listed twice. The distance of its second ratio from 1 is the error of measurement.
const ROWS: [Row; 11] = [
    row("raw_sendto", true),
    row("raw_sendto", true),
    row("raw_send", true),
    row("raw_sendmmsg", false),
    row("raw_segment", true),
    row("raw_pieces", true).compared_with(4, None),
    row("raw_coalesce", true),
    row("keep_datagram", true).compared_with(2, None),
    row("keep_batch", true).aim(0.25).compared_with(4, Some(1.03)),
    row("keep_batch", false).compared_with(3, None),
    row("keep_coalesce", true).aim(0.25).compared_with(6, None),
];

/// Measures the programs and prints the table.
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
        if let Some((other, aim)) = row.compared_with {
            println!(
                "{:<42}  {:>6.3}  {:>9}  {}",
                format!("  compared with {}", label(ROWS[other].program)),
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

/// A program with the nanoseconds for a datagram in each round: wall-clock time and processor time.
struct Run {
    worker: Worker,
    times: Vec<[f64; 2]>,
}

impl Run {
    fn start(row: &Row, programs: &Programs, cores: &Cores) -> Result<Self, String> {
        let mut command = cores.server(programs.file(row.program).as_os_str());
        let worker = Worker::start(command.arg(length_of(row.equal)))?;
        let mut run = Self { worker, times: Vec::new() };
        // The first run allocates memory, so it is not measured.
        run.take_turn()?;
        run.times.clear();
        Ok(run)
    }

    fn take_turn(&mut self) -> Result<(), String> {
        let said = self.worker.order(&BATCHES.to_string())?;
        self.times.push(
            two_numbers(&said)
                .ok_or_else(|| format!("expected two times, the program printed: {said}"))?,
        );
        Ok(())
    }
}

fn two_numbers(line: &str) -> Option<[f64; 2]> {
    let mut words = line.split_whitespace().map(|word| word.parse::<f64>().ok());
    let two = [words.next()??, words.next()??];
    two.iter().all(|time| *time > 0.0).then_some(two)
}

/// The median, the minimum and the maximum of the ratios of all rounds.
fn ratios(times: &[f64], base: &[f64]) -> (f64, f64, f64) {
    spread(times.iter().zip(base).map(|(a, b)| a / b).collect())
}

/// The ratio of processor times, which vary less on a busy machine than wall-clock times.
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
    fn rows_are_compared_with_an_earlier_row() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(PROGRAMS.iter().any(|program| program.name == row.program), "{}", row.program);
            assert!(row.compared_with.is_none_or(|(other, _)| other < at));
        }
    }

    #[test]
    fn two_numbers_rejects_other_output() {
        assert_eq!(two_numbers("3450.25 3449.00"), Some([3450.25, 3449.0]));
        assert_eq!(two_numbers("3450.25"), None);
        assert_eq!(two_numbers("0.00 1.00"), None);
        assert_eq!(two_numbers("a b"), None);
    }
}
