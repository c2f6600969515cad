//! `cargo xtask platforms`: the library on other processors, with another C library, and on Windows.
//!
//! A row is a target. Programs of another processor run under qemu-user, which lacks some calls of the kernel.
//! The program `platforms/probe.c` makes the same calls in plain C under the same emulator. A test that needs
//! a probe (`tests/emulated.txt`) is not run if that probe fails. Each row writes its results to `tests/platforms/`,
//! from which the tables in docs/platforms.md are generated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::run::{MINUTE, Workspace, attempt, capture, create_dir, read_file, show, write_file};
use crate::steps::Stop;
use crate::tools::{self, Tool};
use crate::wine;

mod page;

/// A target whose tests run on this machine.
struct Row {
    name: &'static str,
    target: &'static str,
    about: &'static str,
    compiler: Tool,
    /// The C library for the compiler: its package, and a file of that package.
    libc: (&'static str, &'static str),
    emulator: Option<Emulator>,
}

struct Emulator {
    program: Tool,
    /// The folder of the dynamic linker.
    libraries: &'static str,
    /// The first bytes of its programs, for binfmt_misc: word size, byte order, type and processor.
    class: [&'static str; 3],
}

const ROWS: [Row; 5] = [
    Row {
        name: "musl",
        target: "x86_64-unknown-linux-musl",
        about: "x86_64, static, with musl",
        compiler: Tool::debian("musl-gcc", "musl-tools"),
        libc: ("musl-dev", "/usr/include/x86_64-linux-musl/stdio.h"),
        emulator: None,
    },
    Row {
        name: "i686",
        target: "i686-unknown-linux-gnu",
        about: "32-bit x86, on the kernel of x86_64",
        compiler: Tool::debian("i686-linux-gnu-gcc", "gcc-i686-linux-gnu"),
        libc: ("libc6-dev-i386-cross", "/usr/i686-linux-gnu/include/stdio.h"),
        emulator: None,
    },
    Row {
        name: "aarch64",
        target: "aarch64-unknown-linux-gnu",
        about: "64-bit ARM",
        compiler: Tool::debian("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        libc: ("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/include/stdio.h"),
        emulator: Some(Emulator {
            program: Tool::debian("qemu-aarch64", "qemu-user"),
            libraries: "/usr/aarch64-linux-gnu",
            class: [r"\x02\x01", r"\x02\x00\xb7\x00", r"\xfe\xff\xff\xff"],
        }),
    },
    Row {
        name: "s390x",
        target: "s390x-unknown-linux-gnu",
        about: "64-bit, big-endian",
        compiler: Tool::debian("s390x-linux-gnu-gcc", "gcc-s390x-linux-gnu"),
        libc: ("libc6-dev-s390x-cross", "/usr/s390x-linux-gnu/include/stdio.h"),
        emulator: Some(Emulator {
            program: Tool::debian("qemu-s390x", "qemu-user"),
            libraries: "/usr/s390x-linux-gnu",
            class: [r"\x02\x02", r"\x00\x02\x00\x16", r"\xff\xfe\xff\xff"],
        }),
    },
    Row {
        name: "armv7",
        target: "armv7-unknown-linux-gnueabihf",
        about: "32-bit ARM, 64-bit time_t in the kernel's calls",
        compiler: Tool::debian("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf"),
        libc: ("libc6-dev-armhf-cross", "/usr/arm-linux-gnueabihf/include/stdio.h"),
        emulator: Some(Emulator {
            program: Tool::debian("qemu-arm", "qemu-user"),
            libraries: "/usr/arm-linux-gnueabihf",
            class: [r"\x01\x01", r"\x02\x00\x28\x00", r"\xfe\xff\xff\xff"],
        }),
    },
];

/// The row of the tests under Wine, which `wine.rs` runs.
const WINDOWS: &str = "windows";

const PROBE: &str = "xtask/src/platforms/probe.c";
const NEEDS: &str = "tests/emulated.txt";
const RECORDS: &str = "tests/platforms";

/// The limit of the tests of one module.
const MODULE: Duration = Duration::from_secs(300);

/// The C examples whose tests need no other program: the test, and its programs.
const EXAMPLES: [(&str, &[&str]); 4] = [
    ("first", &["first", "echo_accept"]),
    ("push", &["push_server", "push_client"]),
    ("keepalive", &["keepalive"]),
    ("timeouts", &["timeouts"]),
];

/// The results of one row.
#[derive(Debug, Default, PartialEq)]
pub struct Record {
    /// The failed probes, each with its error.
    probes: BTreeMap<String, String>,
    /// Each test (`program module::name`) that ran, with its result.
    pub tests: BTreeMap<String, Outcome>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// Runs the rows with these names, or all, and writes docs/platforms.md.
pub fn platforms(ws: &Workspace, names: &[&str]) -> Result<bool, String> {
    let known: Vec<_> = ROWS.iter().map(|row| row.name).chain([WINDOWS]).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("{unknown} is not a row: the rows are {}", known.join(", ")));
    }
    let mut passed = true;
    let wanted = |name| names.is_empty() || names.contains(&name);
    for row in ROWS.iter().filter(|row| wanted(row.name)) {
        println!("\n=== {}: {}", row.name, row.about);
        let programs = ["keepsock", "it"];
        let record = row.run(ws, &programs)?;
        passed &= record.save(ws, row.name, row.target, row.about)?;
        println!("C: {}", row.c_examples(ws)?);
    }
    if wanted(WINDOWS) {
        println!("\n=== {WINDOWS}");
        let run = wine::run(ws)?;
        passed &= run.record.save(ws, WINDOWS, wine::TARGET, &run.about)?;
        println!("C: {}", run.examples);
    }
    page::write(ws)?;
    Ok(passed)
}

fn record_file(ws: &Workspace, name: &str) -> PathBuf {
    ws.root.join(RECORDS).join(format!("{name}.txt"))
}

impl Row {
    /// Installs what is missing. Returns the folder for files of this row.
    fn prepare(&self, ws: &Workspace) -> Result<PathBuf, Stop> {
        self.compiler.need(ws)?;
        let (package, file) = self.libc;
        if !Path::new(file).exists() {
            tools::install_package(ws, package).map_err(Stop::Skip)?;
        }
        if let Some(emulator) = &self.emulator {
            if !tools::is_root() {
                return Err(Stop::Skip("only root maps the users of a namespace".to_owned()));
            }
            for tool in [&emulator.program, &tools::UNSHARE, &tools::IP] {
                tool.need(ws)?;
            }
        }
        let mut add = ws.command("rustup");
        capture(add.args(["target", "add", self.target]), 3 * MINUTE).map_err(Stop::Skip)?;
        let folder = ws.target.join("platforms").join(self.name);
        create_dir(&folder)?;
        Ok(folder)
    }

    fn cargo(&self, ws: &Workspace, words: &[&str]) -> Command {
        let mut cargo = ws.cargo(words);
        cargo.args(["--target", self.target]);
        // The symbols of a debugger are half of the time of the compiler.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
        // rustc has its own musl. The start files of musl-gcc do not fit its static programs.
        if self.emulator.is_some() || self.name == "i686" {
            let name = self.target.to_uppercase().replace('-', "_");
            cargo.env(format!("CARGO_TARGET_{name}_LINKER"), self.compiler.program());
        }
        cargo
    }

    /// A command that runs a program of this row. Under an emulator it gets namespaces of its own, in
    /// which the kernel starts the programs of this processor through the emulator (Linux 6.7).
    fn command(&self, ws: &Workspace, program: &Path) -> Command {
        let Some(emulator) = &self.emulator else { return ws.command(program) };
        // The tests need several users. Only a process outside the namespace may map them, and until
        // then the process inside has no user.
        const OUTSIDE: &str = "unshare --user --mount --net sh -c \"$0\" \"$@\" & \
            for map in uid_map gid_map; do \
            until echo 0 0 4294967295 2>&- > /proc/$!/$map; do sleep 0.01; done; done 2>&-; wait $!";
        const INSIDE: &str = "until grep -q . /proc/self/gid_map; do sleep 0.01; done; \
            exec sh -c 'mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && \
            printf %s \"$0\" > /proc/sys/fs/binfmt_misc/register && \
            ip link set lo up && exec \"$@\"' \"$0\" \"$@\"";
        let [class, kind, mask] = emulator.class;
        let (zeros, ones) = (r"\x00".repeat(8), r"\xff".repeat(7));
        let interpreter = tools::on_path(emulator.program.program()).unwrap_or_default();
        let line = format!(
            r":emulator:M::\x7fELF{class}\x01\x00{zeros}{kind}:{ones}\x00{ones}\xff{mask}:{}:OCF",
            interpreter.display()
        );
        let mut command = ws.command("sh");
        command.args(["-c", OUTSIDE, INSIDE, &line]).arg(program);
        command.env("QEMU_LD_PREFIX", emulator.libraries);
        command
    }

    /// Builds these test programs, and runs them.
    fn run(&self, ws: &Workspace, programs: &[&str]) -> Result<Record, String> {
        let folder = self.prepare(ws)?;
        let mut build = self.cargo(ws, &["test", "--all-features", "--no-run", "--lib"]);
        if programs.contains(&"it") {
            build.args(["--test", "it"]);
        }
        let output = show(&mut build, 20 * MINUTE)?;
        let mut record = Record::default();
        // musl-tools has no headers of the kernel, and musl runs on the kernel of this machine.
        if self.name != "musl" {
            record.probes = self.probes(ws, &folder)?;
        }
        for (probe, what) in &record.probes {
            println!("probe {probe}: {what}");
        }
        let needs = read_file(&ws.root.join(NEEDS))?;
        for program in programs {
            let start = format!("{program}-");
            let file = output
                .lines()
                .filter_map(|line| {
                    line.trim().strip_prefix("Executable ")?.split(['(', ')']).nth(1)
                })
                .find(|file| {
                    Path::new(file)
                        .file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with(&start))
                })
                .ok_or_else(|| format!("cargo built no {program}"))?;
            let file = ws.root.join(file);
            self.run_program(ws, program, &file, &needs, &mut record)?;
        }
        Ok(record)
    }

    fn probes(&self, ws: &Workspace, folder: &Path) -> Result<BTreeMap<String, String>, String> {
        let program = folder.join("probe");
        let mut compile = ws.command(self.compiler.program());
        compile.args(["-O1", "-static", "-pthread", PROBE, "-o"]).arg(&program);
        capture(&mut compile, MINUTE)?;
        let output = capture(&mut self.command(ws, &program), 5 * MINUTE)?;
        let lines = output.lines().filter_map(|line| line.split_once(' '));
        Ok(lines
            .filter(|(_, result)| *result != "ok")
            .map(|(probe, what)| (probe.to_owned(), what.to_owned()))
            .collect())
    }

    /// Runs the modules of a test program one after another. Under an emulator a test that fails runs once
    /// more, alone, because it is slow. The other tests of a module run again without a test that does not
    /// end.
    fn run_program(
        &self,
        ws: &Workspace,
        program: &str,
        file: &Path,
        needs: &str,
        record: &mut Record,
    ) -> Result<(), String> {
        let list = capture(self.command(ws, file).arg("--list"), 2 * MINUTE)?;
        let tests: Vec<&str> =
            list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        let module_of = |test: &str| test.split("::").next().unwrap_or("").to_owned();
        let modules: BTreeSet<String> = tests.iter().map(|test| module_of(test)).collect();
        for module in modules {
            let (mut selected, mut found) = (Vec::new(), BTreeMap::new());
            for test in tests.iter().filter(|test| module_of(test) == module) {
                if let Some(probe) = probe_of(needs, test, &record.probes) {
                    let reason = format!("{probe}: {}", record.probes[probe]);
                    found.insert((*test).to_owned(), Outcome::Skipped(reason));
                } else {
                    selected.push(*test);
                }
            }
            let mut log = String::new();
            while !selected.is_empty() {
                let (ended, output) = attempt(&mut self.tests(ws, file, "4", &selected), MODULE)?;
                let results = results(&output);
                let hung = hung(&output, &results);
                log += &output;
                if ended || hung.is_empty() {
                    let result = |test: &str| results.get(test).cloned().unwrap_or(Outcome::Failed);
                    found.extend(selected.iter().map(|test| ((*test).to_owned(), result(test))));
                    break;
                }
                // The test program was killed, before it printed why tests were skipped.
                println!("{program} {module}: not finished: {}", hung.join(", "));
                selected.retain(|test| !hung.contains(test));
                found.extend(hung.into_iter().map(|test| (test.to_owned(), Outcome::Failed)));
            }
            if self.emulator.is_some() {
                for test in selected {
                    if found.get(test) == Some(&Outcome::Failed) {
                        let (_, output) = attempt(&mut self.tests(ws, file, "1", &[test]), MODULE)?;
                        found.extend(results(&output));
                        log += &output;
                    }
                }
            }
            let of_module = Record { probes: BTreeMap::new(), tests: found };
            println!("{program} {module}: {}", of_module.summary());
            let of_program = of_module.tests.into_iter();
            record.tests.extend(of_program.map(|(test, what)| (format!("{program} {test}"), what)));
            let name = format!("{program}-{module}.txt");
            write_file(&ws.target.join("platforms").join(self.name).join(name), &log)?;
        }
        Ok(())
    }

    fn tests(&self, ws: &Workspace, file: &Path, threads: &str, tests: &[&str]) -> Command {
        let mut run = self.command(ws, file);
        // In CI a skipped test fails. Here the skipped tests are counted.
        run.env("RUST_BACKTRACE", "0").env_remove("CI");
        if self.emulator.is_some() {
            // The tests of random cases take minutes there.
            run.env("PROPTEST_CASES", "16");
        }
        run.args(["--test-threads", threads, "--show-output", "--exact"]).args(tests);
        run
    }

    /// C programs with the static library, which tests/run.sh of the examples runs.
    fn c_examples(&self, ws: &Workspace) -> Result<String, Stop> {
        let folder = self.prepare(ws)?;
        let mut build = self.cargo(ws, &["rustc", "--lib", "--features", "capi"]);
        show(build.args(["--crate-type", "staticlib"]), 10 * MINUTE)?;
        let archive = ws.target.join(self.target).join("debug").join("libkeepsock.a");
        let mut query = ws.command("rustc");
        query.args(["--print", "target-libdir", "--target", self.target]);
        let libraries = capture(&mut query, MINUTE)?;
        let unwind = (self.name == "musl")
            .then(|| Path::new(libraries.trim()).join("self-contained/libunwind.a"));
        let programs: BTreeSet<&str> =
            EXAMPLES.iter().flat_map(|(_, names)| *names).copied().collect();
        for program in programs {
            let mut cc = ws.command(self.compiler.program());
            cc.args(["-std=c99", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror", "-static"]);
            cc.args(["-Iinclude", &format!("c_examples/{program}.c")]).arg(&archive);
            match &unwind {
                // The unwinder of gcc needs a function that only glibc has.
                Some(library) => cc.arg("-nodefaultlibs").arg(library).args(["-lc", "-lgcc"]),
                None => cc.args(["-lgcc_eh", "-lpthread", "-lm"]),
            };
            capture(cc.arg("-o").arg(folder.join(program)), 2 * MINUTE)?;
        }
        for (test, programs) in EXAMPLES {
            let mut run = ws.command("sh");
            run.args(["c_examples/tests/run.sh", test]);
            run.args(programs.iter().map(|program| folder.join(program)));
            run.env("KEEPSOCK_TEST_DIR", folder.join("examples").join(test));
            if let Some(emulator) = &self.emulator {
                run.env("KEEPSOCK_EMULATOR", emulator.program.program());
            }
            capture(&mut run, 2 * MINUTE)?;
        }
        Ok(format!("{} static examples passed", EXAMPLES.len()))
    }
}

/// The first of the failed probes that a test needs. A line of the list is the name of a probe, a colon,
/// and a test, or a beginning of tests with `*` after it. The names of the APIs in the path of a test are left out.
fn probe_of<'a>(list: &'a str, test: &str, failed: &BTreeMap<String, String>) -> Option<&'a str> {
    let parts: Vec<_> =
        test.split("::").filter(|part| !["rust", "c", "tests"].contains(part)).collect();
    let test = parts.join("::");
    let needs = list.lines().filter(|line| !line.starts_with('#'));
    needs.filter_map(|line| line.split_once(": ")).find_map(|(probe, pattern)| {
        let matches = match pattern.strip_suffix('*') {
            Some(beginning) => test.starts_with(beginning),
            None => test == pattern,
        };
        (matches && failed.contains_key(probe)).then_some(probe)
    })
}

/// The results in the output of a test program with `--show-output`. A skipped test prints why.
pub fn results(output: &str) -> BTreeMap<String, Outcome> {
    let mut found = BTreeMap::new();
    let mut shown = None;
    for line in output.lines() {
        if let Some((test, result)) =
            line.strip_prefix("test ").and_then(|l| l.rsplit_once(" ... "))
        {
            let outcome = match (result, result.strip_prefix("ignored")) {
                ("ok", _) => Outcome::Passed,
                (_, Some(reason)) => {
                    Outcome::Skipped(reason.strip_prefix(", ").unwrap_or("ignored").to_owned())
                }
                _ => Outcome::Failed,
            };
            let test = test.strip_suffix(" - should panic").unwrap_or(test);
            // A failed test prints the results of a process that it started as well.
            found.entry(test.to_owned()).or_insert(outcome);
        }
        if let Some(test) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----"))
        {
            shown = Some(test.to_owned());
        }
        let reason = line.split_once("skipped: ").map(|(_, reason)| reason);
        if let (Some(reason), Some(test)) = (reason, &shown) {
            if found.get(test) == Some(&Outcome::Passed) {
                found.insert(test.clone(), Outcome::Skipped(reason.to_owned()));
            }
        }
    }
    found
}

/// The tests that had not ended when the program was killed. libtest names each after a minute.
fn hung<'a>(output: &'a str, results: &BTreeMap<String, Outcome>) -> Vec<&'a str> {
    let slow = output.lines().filter_map(|line| {
        line.strip_prefix("test ")?.strip_suffix(" has been running for over 60 seconds")
    });
    slow.filter(|test| !results.contains_key(*test)).collect()
}

impl Record {
    fn count(&self, outcome: &Outcome) -> usize {
        self.tests.values().filter(|found| *found == outcome).count()
    }

    /// The tests that failed or did not end.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        let failed = self.tests.iter().filter(|(_, outcome)| **outcome == Outcome::Failed);
        failed.map(|(test, _)| test.as_str())
    }

    /// Prints the results, and writes them to the file of the row. Returns whether no test failed.
    fn save(&self, ws: &Workspace, name: &str, target: &str, about: &str) -> Result<bool, String> {
        println!("{name}: {}", self.summary());
        for test in self.failed() {
            println!("FAILED {test}");
        }
        create_dir(&ws.root.join(RECORDS))?;
        let guarantees = page::verifiers(&read_file(&ws.root.join("docs/guarantees.md"))?);
        write_file(&record_file(ws, name), &self.to_text(name, target, about, &guarantees))?;
        Ok(self.failed().next().is_none())
    }

    pub fn summary(&self) -> String {
        let (passed, failed) = (self.count(&Outcome::Passed), self.count(&Outcome::Failed));
        let skipped = self.tests.len() - passed - failed;
        format!("{passed} tests passed, {failed} failed, {skipped} skipped")
    }

    /// The counts of each guarantee, and the tests that did not pass. Tests that were skipped for the same
    /// reason are counted.
    fn to_text(
        &self,
        name: &str,
        target: &str,
        about: &str,
        guarantees: &[(String, Vec<page::Verifier>)],
    ) -> String {
        let mut text = format!(
            "# `cargo xtask platforms {name}` writes this file.\ntarget {target}\nabout {about}\n",
        );
        let _ = writeln!(text, "tests {}", self.counts(|_| true));
        for (id, verifiers) in guarantees {
            let counts = self.counts(|test| verifiers.iter().any(|verifier| verifier.is(test)));
            let _ = writeln!(text, "guarantee {id} {counts}");
        }
        for (probe, what) in &self.probes {
            let _ = writeln!(text, "probe {probe}: {what}");
        }
        let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
        for (test, outcome) in &self.tests {
            match outcome {
                Outcome::Passed => {}
                Outcome::Failed => drop(writeln!(text, "failed {test}")),
                Outcome::Skipped(reason) => *skipped.entry(reason).or_default() += 1,
            }
        }
        for (reason, tests) in skipped {
            let _ = writeln!(text, "skipped {tests}: {reason}");
        }
        text
    }

    /// The numbers of passed, failed and skipped tests among some of them.
    fn counts(&self, of: impl Fn(&str) -> bool) -> String {
        let mut counts = [0; 3];
        for (_, outcome) in self.tests.iter().filter(|(test, _)| of(test)) {
            counts[match outcome {
                Outcome::Passed => 0,
                Outcome::Failed => 1,
                Outcome::Skipped(_) => 2,
            }] += 1;
        }
        counts.map(|count: usize| count.to_string()).join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_skipped_tests_have_the_reason() {
        let output = "test a::one - should panic ... ok\r\ntest a::two ... ok\ntest b::three ... FAILED\n\
                      test b::four ... ignored, no signals\ntest b::five has been running for over 60 seconds\n\
                      ---- a::two stdout ----\ntest skipped: no IPv6\n\
                      ---- b::three stdout ----\ntest b::three ... ok\nx: skipped: no\n";
        let found = results(output);
        assert_eq!(found["a::one"], Outcome::Passed);
        assert_eq!(found["a::two"], Outcome::Skipped("no IPv6".to_owned()));
        assert_eq!(found["b::three"], Outcome::Failed);
        assert_eq!(found["b::four"], Outcome::Skipped("no signals".to_owned()));
        assert_eq!(found.get("b::five"), None);
    }

    #[test]
    fn hung_tests_are_those_without_a_result() {
        let output = "test a::one has been running for over 60 seconds\n\
                      test a::two has been running for over 60 seconds\ntest a::two ... ok\n";
        assert_eq!(hung(output, &results(output)), ["a::one"]);
    }

    #[test]
    fn probe_of_test_is_the_first_failed_one() {
        let list = "# A comment.\ntcp_info: liveness::*\nseccomp: errors::one\nproc: errors::one\n";
        let failed = ["tcp_info", "proc"].map(|probe| (probe.to_owned(), String::new()));
        let failed = BTreeMap::from(failed);
        assert_eq!(probe_of(list, "liveness::c::any", &failed), Some("tcp_info"));
        assert_eq!(probe_of(list, "errors::rust::one", &failed), Some("proc"));
        assert_eq!(probe_of(list, "errors::rust::one_more", &failed), None);
        assert_eq!(probe_of(list, "liveness::any", &BTreeMap::new()), None);
    }

    #[test]
    fn record_counts_the_tests_of_each_guarantee() {
        let mut record = Record::default();
        record.tests.insert("it a::rust::one".to_owned(), Outcome::Passed);
        record.tests.insert("it a::c::one".to_owned(), Outcome::Skipped("x: y".to_owned()));
        record.tests.insert("keepsock b::three".to_owned(), Outcome::Failed);
        let page = "### S1\n\n- [`tests/it/a.rs`](../tests/it/a.rs): `one`\n";
        let text = record.to_text("musl", "x86_64", "static", &page::verifiers(page));
        assert!(
            text.contains("\ntests 1 1 1\nguarantee S1 1 0 1\nfailed keepsock b::three\n"),
            "{text}"
        );
        assert!(text.ends_with("\nskipped 1: x: y\n"), "{text}");
    }
}
