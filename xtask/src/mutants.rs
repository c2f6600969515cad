//! `cargo xtask mutants`: cargo-mutants changes one expression of a state machine at a time, and the unit
//! tests of the machine must find the change.
//!
//! The mutants are made in a copy of the sources, one after another, so that cargo compiles only what a
//! mutant changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::models::copy_sources;
use crate::run::{MINUTE, Workspace, capture, create_dir, read_file, watch, write_file};
use crate::tools;

const VERSION: &str = "27.1.0";

/// The mutants that no test finds, each with the reason.
const SURVIVORS: &str = "xtask/mutants.txt";

/// The longest run of one machine.
const LONGEST: Duration = Duration::from_secs(3 * 3600);

/// The root of the library for the machines that need no features.
const SMALL_LIBRARY: &str = include_str!("../mutants_library.rs");

/// A state machine: its files, the features that it needs, and its tests. `None`: it is a part of the small
/// library.
struct Machine {
    name: &'static str,
    files: &'static [&'static str],
    features: Option<&'static str>,
    tests: &'static [&'static str],
}

const fn small(
    name: &'static str,
    files: &'static [&'static str],
    tests: &'static [&'static str],
) -> Machine {
    Machine { name, files, features: None, tests }
}

const fn whole(
    name: &'static str,
    files: &'static [&'static str],
    features: &'static str,
    tests: &'static [&'static str],
) -> Machine {
    Machine { name, files, features: Some(features), tests }
}

const MACHINES: [Machine; 13] = [
    small(
        "liveness",
        &[
            "src/stream/liveness/ack_progress.rs",
            "src/stream/liveness/pauses.rs",
            "src/stream/liveness/peer_watch.rs",
            "src/stream/liveness/policy.rs",
            "src/stream/liveness/timers.rs",
        ],
        &["stream::liveness::"],
    ),
    small("race", &["src/connect/race.rs"], &["connect::"]),
    small("framing", &["src/types/framing.rs"], &["types::framing::", "types::properties::"]),
    small(
        "send_queue",
        &["src/serve/reactor/send_queue.rs"],
        &["reactor::send_queue::", "reactor::properties::send_queue::"],
    ),
    small(
        "timers",
        &["src/serve/reactor/timers.rs"],
        &["reactor::timers::", "reactor::properties::timers::timers"],
    ),
    small(
        "service_timers",
        &["src/serve/reactor/service_timers.rs"],
        &["reactor::service_timers::", "reactor::properties::timers::service"],
    ),
    whole(
        "admission",
        &["src/serve/admission.rs"],
        "serve",
        &["serve::admission::", "serve::properties::"],
    ),
    small("backoff", &["src/io/backoff.rs"], &["io::"]),
    small("endpoint", &["src/types/endpoint.rs"], &["types::endpoint::"]),
    small("proxy", &["src/types/proxy.rs"], &["types::proxy::"]),
    small("matcher", &["src/diag/handshake/matcher.rs"], &["diag::handshake::"]),
    small("segment", &["src/diag/handshake/segment.rs"], &["diag::handshake::"]),
    whole("handles", &["src/ffi/handle/table.rs"], "capi,serve", &["ffi::handle::"]),
];

/// The command, for the named machines or all of them. Returns whether it passed.
pub fn mutants(ws: &Workspace, names: &[&str]) -> Result<bool, String> {
    if let Some(name) = names.iter().find(|name| MACHINES.iter().all(|m| m.name != **name)) {
        let known: Vec<_> = MACHINES.iter().map(|machine| machine.name).collect();
        return Err(format!("no machine {name}: the machines are {}", known.join(", ")));
    }
    let program = tool(ws)?;
    let folder = ws.target.join("mutants");
    let copy = folder.join("sources");
    copy_sources(ws, &copy)?;
    let listed = parse(&read_file(&ws.root.join(SURVIVORS))?)?;
    let mut passed = true;
    for machine in MACHINES.iter().filter(|m| names.is_empty() || names.contains(&m.name)) {
        let outcome = run_one(ws, &program, &folder, &copy, machine)?;
        println!("{}: {}", machine.name, outcome.counts);
        for problem in differences(machine.files, &outcome.survivors, &listed) {
            println!("  {problem}");
            passed = false;
        }
    }
    Ok(passed)
}

struct Outcome {
    counts: String,
    survivors: Vec<String>,
}

fn run_one(
    ws: &Workspace,
    program: &Path,
    folder: &Path,
    copy: &Path,
    machine: &Machine,
) -> Result<Outcome, String> {
    let output = folder.join(machine.name);
    create_dir(&output)?;
    let root = match machine.features {
        Some(_) => read_file(&ws.root.join("src/lib.rs"))?,
        None => SMALL_LIBRARY.to_owned(),
    };
    write_file(&copy.join("src/lib.rs"), &root)?;
    let mut mutants = ws.command(program);
    mutants.current_dir(copy);
    mutants.args(["mutants", "--in-place", "--no-config", "--no-shuffle", "--package", "keepsock"]);
    mutants.args(["--no-default-features", "--features"]);
    // The modules of the small library need these features.
    mutants.arg(machine.features.unwrap_or("serve,diag"));
    // A test that takes five times as long as without the mutant does not end.
    mutants.args(["--timeout-multiplier", "5"]);
    mutants.arg("--output").arg(&output);
    mutants.args(machine.files.iter().flat_map(|file| ["--file", *file]));
    // Neither the build nor the test needs the other test programs.
    mutants.args(["--cargo-arg=--lib", "--", "--"]).args(machine.tests);
    mutants.env("CARGO_TARGET_DIR", folder.join("target"));
    mutants.env("CARGO_PROFILE_DEV_DEBUG", "0");
    mutants.env("RUST_BACKTRACE", "0");
    // A failed property does not have to search for the smallest input.
    mutants.env("PROPTEST_MAX_SHRINK_ITERS", "0");
    // It fails if a mutant survives.
    let succeeded = watch(&mut mutants, LONGEST)?;
    let lines = |name: &str| -> Result<Vec<String>, String> {
        let text = read_file(&output.join("mutants.out").join(name))?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let (caught, missed) = (lines("caught.txt")?, lines("missed.txt")?);
    let (timeout, unviable) = (lines("timeout.txt")?, lines("unviable.txt")?);
    if caught.is_empty() || succeeded && !missed.is_empty() {
        return Err(format!("cargo-mutants did not run the mutants of {}", machine.name));
    }
    let counts = format!(
        "{} killed, {} did not end, {} do not compile, {} survive",
        caught.len(),
        timeout.len(),
        unviable.len(),
        missed.len()
    );
    Ok(Outcome { counts, survivors: missed.iter().map(|line| without_place(line)).collect() })
}

/// `src/a.rs:10:20: replace > with < in f` without the line and the column, which other changes move.
fn without_place(mutant: &str) -> String {
    let mut parts = mutant.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(_), Some(_), Some(what)) => format!("{file}:{what}"),
        _ => mutant.to_owned(),
    }
}

/// The lines `mutant | reason` of the list. A function may have the same mutant several times.
fn parse(list: &str) -> Result<Vec<String>, String> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(" | ") {
            Some((mutant, reason)) if !reason.trim().is_empty() => Ok(mutant.trim().to_owned()),
            _ => Err(format!("{SURVIVORS}: no reason: {line}")),
        })
        .collect()
}

/// The survivors that the list lacks, and the entries of these files that did not survive.
fn differences(files: &[&str], survivors: &[String], listed: &[String]) -> Vec<String> {
    let of_machine = |mutant: &&String| files.iter().any(|f| mutant.starts_with(&format!("{f}: ")));
    let mut counts = BTreeMap::<&str, i64>::new();
    survivors.iter().for_each(|mutant| *counts.entry(mutant).or_default() += 1);
    listed.iter().filter(of_machine).for_each(|m| *counts.entry(m).or_default() -= 1);
    let differs = counts.into_iter().filter(|(_, count)| *count != 0);
    differs
        .map(|(mutant, count)| {
            if count > 0 {
                format!("NOT FOUND: {mutant}: add a test, or the reason to {SURVIVORS}")
            } else {
                format!("found now: {mutant}: remove it from {SURVIVORS}")
            }
        })
        .collect()
}

/// cargo-mutants from PATH or target/tools, else installed there.
fn tool(ws: &Workspace) -> Result<PathBuf, String> {
    let folder = ws.tools().join("cargo-mutants");
    let own = folder.join("bin").join(format!("cargo-mutants{}", std::env::consts::EXE_SUFFIX));
    let has_version = |program: &Path| {
        let version = capture(ws.command(program).args(["mutants", "--version"]), MINUTE);
        version.is_ok_and(|version| version.contains(VERSION))
    };
    if let Some(found) = tools::on_path("cargo-mutants").filter(|program| has_version(program)) {
        return Ok(found);
    }
    if has_version(&own) {
        return Ok(own);
    }
    tools::allow_install()?;
    println!("cargo-mutants {VERSION} is missing: cargo installs it into {}", folder.display());
    let mut install = ws.cargo(&["install", "cargo-mutants", "--locked", "--version", VERSION]);
    install.arg("--root").arg(&folder);
    install.env("CARGO_TARGET_DIR", folder.join("target"));
    capture(&mut install, 60 * MINUTE)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_reports_new_survivors_and_old_entries() {
        let mutant = without_place("src/a.rs:10:20: replace > with < in a::f");
        assert_eq!(mutant, "src/a.rs: replace > with < in a::f");
        let listed = parse(&format!("# x\n{mutant} | equal\nsrc/b.rs: y | z\n")).unwrap();
        let check = |survivors: &[&String]| {
            let survivors: Vec<_> = survivors.iter().map(|mutant| (*mutant).clone()).collect();
            differences(&["src/a.rs"], &survivors, &listed)
        };
        assert!(check(&[&mutant]).is_empty());
        assert!(check(&[&mutant, &mutant])[0].starts_with("NOT FOUND"));
        assert!(check(&[])[0].starts_with("found now"));
        assert!(parse("src/a.rs: x |").is_err() && parse("src/a.rs: x").is_err());
    }

    /// Each machine and each entry of the list exists.
    #[test]
    fn files_of_the_machines_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files: Vec<_> = MACHINES.iter().flat_map(|machine| machine.files).collect();
        assert!(files.iter().all(|file| root.join(file).is_file()));
        let listed = parse(&read_file(&root.join(SURVIVORS)).unwrap()).unwrap();
        for mutant in listed {
            assert!(files.iter().any(|f| mutant.starts_with(&format!("{f}: "))), "{mutant}");
        }
    }
}
