//! `cargo xtask test`: which checks there are, and in which order.

use std::time::Duration;

use crate::cmake::Build;
use crate::run::{Workspace, is_ci, show};
use crate::steps::{Steps, Stop};
use crate::{counts, cross, labs, library, msrv, prefix, tools};

const LONG: Duration = Duration::from_secs(20 * 60);

const TEST: [&str; 4] = ["test", "--workspace", "--all-features", "--no-fail-fast"];

pub fn test(ws: &Workspace, full: bool) -> bool {
    let mut steps = Steps::default();
    fast(ws, &mut steps, full);
    if full {
        rest(ws, &mut steps);
    }
    steps.finish(is_ci())
}

fn fast(ws: &Workspace, steps: &mut Steps, full: bool) {
    let cargo = |words: &[&str]| -> Result<String, Stop> { Ok(show(&mut ws.cargo(words), LONG)?) };

    steps.step("format", || cargo(&["fmt", "--all", "--check"]).map(|_| String::new()));
    steps.step("lints", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
            .map(|_| String::new())
    });
    // The full run has a step for all labs: it need not run the shorter ones twice.
    steps.step("Rust tests", || if full { tests_without_labs(ws) } else { all_tests(ws) });
    steps.step("C examples", || c_examples(ws, false)?.test(ws, "."));
}

fn all_tests(ws: &Workspace) -> Result<String, Stop> {
    labs::prepare(ws);
    count_rust_tests(&show(&mut ws.cargo(&TEST), LONG)?)
}

/// What `cargo test` runs, but for the test programs that are labs.
fn tests_without_labs(ws: &Workspace) -> Result<String, Stop> {
    labs::prepare(ws);
    let (_, programs) = labs::programs(ws)?;
    let mut tests = ws.cargo(&TEST);
    tests.args(["--lib", "--bins", "--examples"]);
    tests.args(programs.iter().flat_map(|program| ["--test", program]));
    let mut output = show(&mut tests, LONG)?;
    output += &show(ws.cargo(&TEST).arg("--doc"), LONG)?;
    count_rust_tests(&output)
}

fn rest(ws: &Workspace, steps: &mut Steps) {
    steps.step("labs", || labs::run(ws));
    steps.step("C examples under valgrind", || {
        tools::VALGRIND.need(ws)?;
        c_examples(ws, true)?.test(ws, "valgrind$")
    });
    steps.step("other systems", || cross::check(ws));
    steps.step("oldest Rust", || msrv::check(ws));
    steps.step("shared library", || library::check(ws));
    steps.step("documentation", || {
        let mut doc = ws.cargo(&["doc", "--no-deps", "--all-features"]);
        show(doc.env("RUSTDOCFLAGS", "-Dwarnings"), LONG)?;
        Ok(String::new())
    });
    steps.step("installed, CMake", || {
        let build = c_examples(ws, false)?;
        prefix::cmake_user(ws, &build)
    });
    steps.step("installed, pkg-config", || prefix::pkg_config_user(ws));
    steps.step("counts", || {
        if counts::counts(ws, true)? {
            Ok("every bar met".to_owned())
        } else {
            Err(Stop::Fail("a bar is exceeded".to_owned()))
        }
    });
}

fn c_examples(ws: &Workspace, valgrind: bool) -> Result<Build, Stop> {
    // Said both ways: CMake remembers what it was told last.
    let valgrind = format!("KEEPSOCK_VALGRIND={}", if valgrind { "ON" } else { "OFF" });
    Build::make(ws, &ws.root, ws.target.join("cmake"), &[valgrind])
}

/// Adds up the results of the test programs and of the documentation's examples.
fn count_rust_tests(output: &str) -> Result<String, Stop> {
    let mut sums = [0_u64; 3];
    for line in output.lines().filter(|line| line.contains("test result: ")) {
        for (sum, word) in sums.iter_mut().zip(["passed", "failed", "ignored"]) {
            *sum += number_before(line, word).unwrap_or(0);
        }
    }
    let [passed, failed, ignored] = sums;
    if passed == 0 || failed > 0 {
        return Err(Stop::Fail(format!("{passed} tests passed, {failed} failed")));
    }
    Ok(format!("{passed} tests passed, {ignored} ignored"))
}

fn number_before(line: &str, word: &str) -> Option<u64> {
    line.split(word).next()?.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_programs_are_added_up() {
        let output = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                      test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured\n";
        let counted = count_rust_tests(output).ok();
        assert_eq!(counted.as_deref(), Some("7 tests passed, 1 ignored"));
        assert!(count_rust_tests("nothing ran").is_err());
    }
}
