//! `cargo xtask test`: the list of the checks, in their order.

use std::num::NonZero;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, thread};

use crate::cmake::Build;
use crate::run::{Workspace, is_ci, show};
use crate::steps::{Step, Steps, Stop};
use crate::{
    abi_check, counts, cross, demo, dependencies, faults, features, fuzz, install_check, links,
    models, msrv, netns, packages, portable, reference, sanitize, servers, soak, tools, wine,
};

const LONG: Duration = Duration::from_secs(20 * 60);

/// The number of tests that a test program runs at the same time.
const THREADS: &str = "RUST_TEST_THREADS";

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

    steps.step("format", || {
        cargo(&["fmt", "--all", "--check"])?;
        // A workspace of its own.
        cargo(&["fmt", "--manifest-path", fuzz::MANIFEST, "--check"]).map(|_| String::new())
    });
    steps.step("lints", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
            .map(|_| String::new())
    });
    // The full run has a step for all netns tests: it does not run the short ones twice.
    steps.step("Rust tests", || if full { tests_without_netns(ws) } else { all_tests(ws) });
    // C7: clients in five event loops keep their deadlines, and make few additional system calls.
    steps.step("C examples", || c_examples(ws, false)?.test(ws, "."));
}

/// `cargo test` for the whole workspace.
fn cargo_test(ws: &Workspace) -> Command {
    let mut tests = ws.cargo(&TEST);
    limit_threads(&mut tests);
    tests
}

/// Limits a run of tests to two tests for each processor: most tests wait.
pub fn limit_threads(tests: &mut Command) {
    if env::var_os(THREADS).is_none() {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        tests.env(THREADS, (2 * processors).to_string());
    }
}

fn all_tests(ws: &Workspace) -> Result<String, Stop> {
    netns::prepare(ws);
    count_rust_tests(&show(&mut cargo_test(ws), LONG)?)
}

/// Runs what `cargo test` runs, except the netns tests, and without the soak.
fn tests_without_netns(ws: &Workspace) -> Result<String, Stop> {
    netns::prepare(ws);
    let mut tests = cargo_test(ws);
    tests.args(["--lib", "--bins", "--examples"]);
    let own_step = [netns::PROGRAM, soak::PROGRAM];
    let programs = test_programs(ws)?.into_iter().filter(|name| !own_step.contains(&name.as_str()));
    tests.args(programs.flat_map(|name| ["--test".to_owned(), name]));
    let mut output = show(&mut tests, LONG)?;
    output += &show(cargo_test(ws).arg("--doc"), LONG)?;
    count_rust_tests(&output)
}

/// The test programs: `tests/NAME.rs` and `tests/NAME/main.rs`.
fn test_programs(ws: &Workspace) -> Result<Vec<String>, String> {
    let folder = ws.root.join("tests");
    let entries = fs::read_dir(&folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            match name.strip_suffix(".rs") {
                Some(name) => Some(name.to_owned()),
                None => entry.path().join("main.rs").is_file().then_some(name),
            }
        })
        .collect();
    names.sort();
    Ok(names)
}

fn rest(ws: &Workspace, steps: &mut Steps) {
    // The license and the source of each dependency, and the table in SECURITY.md.
    steps.step("dependencies", || dependencies::check(ws));
    steps.step("netns tests", || netns::run(ws));
    // E4, L3: a fault at each system call, also in the threads of services.
    steps.step("faults", || faults::run(ws, false));
    // V3, V5, V7: a minute of ordinary and hostile peers; each message and callback is counted once.
    steps.step("soak", || soak::step(ws));
    steps.step("C examples under valgrind", || {
        tools::VALGRIND.need(ws)?;
        c_examples(ws, true)?.test(ws, "valgrind$")
    });
    steps.step("C examples, undefined sanitizer", || sanitize::undefined(ws));
    // The server ends each connection of the client, is killed ten times, and stopped ten times.
    steps.step("redis and mosquitto, 1,000 sessions each", || {
        let sessions = [("KEEPSOCK_SESSIONS", "1000")];
        c_examples(ws, false)?.test_with(ws, "^(resp|mqtt)-shared$", &sessions)
    });
    steps.step("fuzz targets", || fuzz::check(ws));
    compilations(ws, steps);
    // A1, A3, F17: exported names, SONAME, needed libraries, a program of version 0.2; the size is printed.
    steps.step("shared library", || abi_check::check(ws));
    // A2: the documentation has no warning.
    steps.step("documentation", || {
        let mut doc = ws.cargo(&["doc", "--no-deps", "--all-features"]);
        show(doc.env("RUSTDOCFLAGS", "-Dwarnings"), LONG)?;
        Ok(String::new())
    });
    // A2: Doxygen finds a comment for each item of the headers, and resolves each name.
    steps.step("C reference", || reference::check(ws));
    // P1: the C examples build against the installed CMake package.
    steps.step("installed, CMake", || {
        let build = c_examples(ws, false)?;
        install_check::cmake_user(ws, &build)
    });
    // P1: a program builds with the flags that pkg-config prints, shared and static.
    steps.step("installed, pkg-config", || install_check::pkg_config_user(ws));
    // P1: the Debian packages, installed in an empty Debian, and used by a project in each standard of C.
    steps.step("Debian packages", || packages::check(ws));
    // P2: the command that shows the main job. This gate is the other command.
    steps.step("demo", || {
        demo::demo(ws)?;
        Ok(String::new())
    });
    // I6: the instructions of calls that would block are among the budgets.
    steps.step("counts", || {
        if counts::counts(ws, true)? {
            Ok("all budgets are met".to_owned())
        } else {
            Err(Stop::Fail("a budget is exceeded: see the lines with EXCEEDED".to_owned()))
        }
    });
}

/// The steps that compile the library in a build folder of their own. They run at the same time as
/// those of the ordinary folder.
fn compilations(ws: &Workspace, steps: &mut Steps) {
    fn step<'a>(
        name: &'a str,
        work: impl FnOnce() -> Result<String, Stop> + Send + 'a,
    ) -> Step<'a> {
        Step { name, work: Box::new(work) }
    }
    // Only the steps of this list install targets and toolchains.
    let others = vec![
        step("Windows, by Wine", || wine::check(ws)),
        // O1: the library type-checks for the other platforms.
        step("other platforms", || cross::check(ws)),
        step("links for macOS and FreeBSD", || links::check(ws)),
        step("oldest Rust", || msrv::check(ws)),
    ];
    let own = vec![
        // The code of other Unix systems, on this one.
        step("portable code", || portable::check(ws)),
        // Every combination of Cargo features compiles without warnings.
        step("features", || features::check(ws, false)),
        // Protocols between threads, in every order of their operations.
        step("models", || models::run(ws)),
    ];
    steps.two_lists([others, own]);
}

fn c_examples(ws: &Workspace, valgrind: bool) -> Result<Build, Stop> {
    // ctest reports a test that lacks a library or a tool as skipped.
    for library in [tools::LIBUV, tools::LIBEVENT] {
        if let Err(reason) = library.flags(ws) {
            println!("{reason}");
        }
    }
    for tool in [tools::STRACE, tools::IP, tools::UNSHARE] {
        if let Err(reason) = tool.find_or_install(ws) {
            println!("{reason}");
        }
    }
    servers::prepare(ws);
    // The value is always passed, because CMake remembers the last one.
    let valgrind = format!("KEEPSOCK_VALGRIND={}", if valgrind { "ON" } else { "OFF" });
    Build::make(ws, &ws.root, ws.target.join("cmake"), &[valgrind], &[])
}

/// Adds up the results of the test programs and the documentation examples.
pub fn count_rust_tests(output: &str) -> Result<String, Stop> {
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
    fn count_rust_tests_adds_up_all_test_programs() {
        let output = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                      test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured\n";
        let counted = count_rust_tests(output).ok();
        assert_eq!(counted.as_deref(), Some("7 tests passed, 1 ignored"));
        assert!(count_rust_tests("nothing ran").is_err());
    }
}
