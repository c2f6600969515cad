//! `cargo xtask fuzz`: the fuzz targets in fuzz/, with libFuzzer and AddressSanitizer.
//!
//! The command builds them as cargo-fuzz does, and needs no cargo-fuzz. Coverage and sanitizer are
//! unstable features; RUSTC_BOOTSTRAP enables them in a stable compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::run::{MINUTE, Workspace, collect, create_dir, is_ci, show};
use crate::steps::Stop;
use crate::{sanitize, tools};

/// The manifest of the targets, relative to the root of the repository.
pub const MANIFEST: &str = "fuzz/Cargo.toml";

/// The instrumentation by which libFuzzer observes the covered code and the compared values.
const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
];

/// The time that the gate gives to each target.
const GATE_SECONDS: u32 = 10;

/// An input that runs longer is a finding. A busy machine delays each thread by up to a second.
const INPUT_LIMIT: u32 = 60;

/// Targets with threads. LeakSanitizer reports memory of a thread that starts or ends at that moment. A
/// limit of the memory remains.
const THREADED: [&str; 2] = ["c_api", "framing"];

/// The arguments of the command.
pub struct Run {
    seconds: u32,
    target: Option<String>,
}

impl Run {
    pub fn parse(words: &[&str]) -> Result<Run, String> {
        let mut run = Run { seconds: 60, target: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--seconds" => {
                    let number = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                    run.seconds = number.ok_or("--seconds needs a number greater than zero")?;
                }
                target if target.starts_with('-') || run.target.is_some() => {
                    return Err(format!("unexpected argument `{target}`: see cargo xtask help"));
                }
                target => run.target = Some(target.to_owned()),
            }
        }
        Ok(run)
    }
}

/// The command. Returns whether it passed.
pub fn fuzz(ws: &Workspace, run: &Run) -> Result<bool, String> {
    match all(ws, run) {
        Ok(note) => {
            println!("{note}");
            Ok(true)
        }
        Err(Stop::Skip(reason)) => {
            println!("skipped: {reason}");
            Ok(!is_ci())
        }
        Err(Stop::Fail(reason)) => Err(reason),
    }
}

/// The step of the gate.
pub fn check(ws: &Workspace) -> Result<String, Stop> {
    all(ws, &Run { seconds: GATE_SECONDS, target: None })
}

fn all(ws: &Workspace, run: &Run) -> Result<String, Stop> {
    let mut targets = targets(ws)?;
    if let Some(wanted) = &run.target {
        if !targets.contains(wanted) {
            let known = targets.join(", ");
            return Err(Stop::Fail(format!("no fuzz target {wanted}: the targets are {known}")));
        }
        targets.retain(|target| target == wanted);
    }
    let programs = build(ws, &targets)?;
    let (mut inputs, mut found) = (0, Vec::new());
    for target in &targets {
        match fuzz_one(ws, &programs.join(target), target, run.seconds) {
            Ok(count) => inputs += count,
            Err(report) => {
                println!("{report}");
                found.push(target.as_str());
            }
        }
    }
    if !found.is_empty() {
        return Err(Stop::Fail(format!("fuzzing found a defect: {}", found.join(", "))));
    }
    Ok(format!("{} targets, {inputs} inputs, no finding", targets.len()))
}

/// The names of the files in fuzz/fuzz_targets.
fn targets(ws: &Workspace) -> Result<Vec<String>, String> {
    let folder = ws.root.join("fuzz").join("fuzz_targets");
    let files = fs::read_dir(&folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let mut names: Vec<String> = files
        .flatten()
        .filter_map(|file| file.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds the targets. Returns the folder of the programs.
fn build(ws: &Workspace, targets: &[String]) -> Result<PathBuf, Stop> {
    let platform = sanitize::target(ws)?;
    // libFuzzer is written in C++.
    if std::env::var_os("CXX").is_none() {
        tools::CXX.need(ws)?;
    }
    let folder = ws.target.join("fuzz");
    let mut build = ws.cargo(&["build", "--release", "--manifest-path", MANIFEST]);
    build.args(["--target", &platform]);
    build.args(targets.iter().flat_map(|target| ["--bin", target]));
    build.env("CARGO_TARGET_DIR", &folder);
    build.env("RUSTC_BOOTSTRAP", "1");
    build.env("RUSTFLAGS", FLAGS.join(" "));
    show(&mut build, 15 * MINUTE)?;
    Ok(folder.join(platform).join("release"))
}

/// Runs one target. Returns the number of inputs, or a report about the finding.
fn fuzz_one(ws: &Workspace, program: &Path, target: &str, seconds: u32) -> Result<u64, String> {
    let seeds = ws.root.join("fuzz").join("corpus").join(target);
    // New inputs are kept for the next run, outside the repository.
    let kept = ws.target.join("fuzz").join("corpus").join(target);
    let findings = ws.target.join("fuzz").join("findings").join(target);
    create_dir(&kept)?;
    create_dir(&findings)?;
    let mut run = ws.command(program);
    run.arg(format!("-max_total_time={seconds}"));
    run.arg(format!("-timeout={INPUT_LIMIT}"));
    run.arg(format!("-artifact_prefix={}/", findings.display()));
    run.args([
        "-print_final_stats=1",
        "-use_value_profile=1",
        "-max_len=2048",
        "-rss_limit_mb=4096",
    ]);
    if THREADED.contains(&target) {
        run.arg("-detect_leaks=0");
    }
    // The report of the sanitizer has the stack.
    run.env("RUST_BACKTRACE", "0");
    run.arg(kept).arg(seeds);
    let limit = Duration::from_secs((seconds + 3 * INPUT_LIMIT).into());
    let (passed, output) = collect(&mut run, limit)?;
    if !passed {
        return Err(report(ws, program, target, &output));
    }
    let inputs = stat(&output, "number_of_executed_units");
    if inputs == 0 {
        return Err(format!("{target}: no input was run\n{output}"));
    }
    let covered = output.lines().rev().find_map(|line| {
        line.split_once(" cov: ").and_then(|(_, rest)| rest.split_whitespace().next())
    });
    println!("{target}: {inputs} inputs in {seconds} s, {} edges", covered.unwrap_or("?"));
    Ok(inputs)
}

/// A value that libFuzzer prints at its end: `stat::number_of_executed_units: 123`.
fn stat(output: &str, name: &str) -> u64 {
    let lines = output.lines().filter_map(|line| line.strip_prefix("stat::")?.split_once(':'));
    let value = lines.filter(|(key, _)| *key == name).find_map(|(_, n)| n.trim().parse().ok());
    value.unwrap_or(0)
}

/// The finding: the panic or the report of the sanitizer, and how to reproduce it.
fn report(ws: &Workspace, program: &Path, target: &str, output: &str) -> String {
    const LINES: usize = 60;
    let is_start = |line: &&str| line.contains("panicked at") || line.starts_with("==");
    let lines: Vec<&str> = output.lines().collect();
    let first = lines.iter().position(is_start).unwrap_or(0);
    let mut text = format!("{target}: FOUND A DEFECT\n");
    for line in lines.iter().skip(first).take(LINES) {
        text += &format!("    {line}\n");
    }
    let file = output.lines().find_map(|line| line.split_once("Test unit written to "));
    match file {
        Some((_, file)) => {
            let program = program.strip_prefix(&ws.root).unwrap_or(program);
            text += &format!(
                "Run the input again: {} {file}\n\
                 Keep it when the defect is fixed: copy the file to fuzz/corpus/{target}/\n",
                program.display()
            );
        }
        None => text += "libFuzzer kept no input\n",
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_returns_the_value_that_libfuzzer_prints() {
        let output = "#9 DONE cov: 3\nstat::number_of_executed_units: 1234\nstat::x: 1\n";
        assert_eq!(stat(output, "number_of_executed_units"), 1234);
        assert_eq!(stat(output, "absent"), 0);
    }

    #[test]
    fn parse_accepts_a_time_and_one_target() {
        let run = Run::parse(&["--seconds", "5", "proxy"]).unwrap();
        assert_eq!((run.seconds, run.target.as_deref()), (5, Some("proxy")));
        assert!(Run::parse(&["--seconds", "0"]).is_err());
        assert!(Run::parse(&["a", "b"]).is_err());
        assert!(Run::parse(&["-x"]).is_err());
    }
}
