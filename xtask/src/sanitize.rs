//! `cargo xtask sanitize`: Rust tests and C examples under AddressSanitizer (with leak detection) and
//! ThreadSanitizer, C examples under UndefinedBehaviorSanitizer, and unit tests under Miri.
//!
//! The sanitizers of Rust are unstable features; RUSTC_BOOTSTRAP enables them in a stable compiler.
//! ThreadSanitizer reports false races unless the standard library is compiled with it as well, so the
//! standard library is compiled from source.
//!
//! In each build wrong programs prove that the sanitizer is active: it must report them.
//!
//! The netns tests are left out: most of them measure times, and a sanitizer changes times.

use std::path::PathBuf;
use std::process::Command;

use crate::cmake::Build;
use crate::cross;
use crate::run::{MINUTE, Workspace, capture, collect, is_ci, show};
use crate::steps::{Steps, Stop};
use crate::suite::count_rust_tests;
use crate::tools::{self, on_path};

/// The targets for which rustc has the sanitizers.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// The modules of tests/it/ in which several threads use the same sockets: what runs without `--all`.
const MODULES: [&str; 7] = [
    "close::",
    "datagram::",
    "datagram_metadata::",
    "serve_events::",
    "stress::",
    "threads::",
    "unix_datagram::",
];

/// The program with the wrong tests.
const WRONG: &str = "sanitizers";

/// A sanitizer of rustc.
struct Sanitizer {
    /// For `-fsanitize`.
    name: &'static str,
    options: (&'static str, &'static str),
    /// The file of the reports that it does not print, each with the reason.
    suppressions: Option<&'static str>,
    /// The flags for rustc.
    flags: &'static str,
    /// The end of the name of its library.
    runtime: &'static str,
    builds_std: bool,
    /// The tests that do not run, each with the reason.
    excluded: &'static [(&'static str, &'static str)],
    /// The wrong tests and the reports that they must cause.
    reports: &'static [(&'static str, &'static str)],
}

const ADDRESS: Sanitizer = Sanitizer {
    name: "address",
    options: ("ASAN_OPTIONS", "detect_leaks=1:allocator_may_return_null=1"),
    suppressions: None,
    flags: "-Zsanitizer=address",
    runtime: "_rt.asan.a",
    builds_std: false,
    excluded: &[
        // The thread that decides about a system call allocates memory. The sanitizer holds a lock of
        // its allocator while it starts a thread, which is such a call.
        ("faults::service_calls_with_faults_return_listed_statuses", "intercepts clone3"),
        (
            "dead_after_is_turned_off_without_a_free_descriptor",
            "the search for leaks needs a descriptor",
        ),
        ("exit_while_everything_runs_succeeds", "exits without freeing its objects"),
        (
            "calls_with_a_denied_system_call_work_or_fail_clearly",
            "the sanitizer itself needs the denied system calls",
        ),
    ],
    reports: &[
        ("text_that_was_freed_is_read", "AddressSanitizer: heap-use-after-free"),
        ("endpoint_that_is_forgotten_leaks", "LeakSanitizer: detected memory leaks"),
    ],
};

const THREAD: Sanitizer = Sanitizer {
    name: "thread",
    // Tests fork while threads run, exit while threads run, and allocate without memory.
    options: (
        "TSAN_OPTIONS",
        "halt_on_error=1:die_after_fork=0:report_thread_leaks=0:allocator_may_return_null=1",
    ),
    suppressions: Some("xtask/tsan.txt"),
    flags: "-Zsanitizer=thread --cfg keepsock_tsan",
    runtime: "_rt.tsan.a",
    builds_std: true,
    excluded: &[
        (
            "echo_returns_all_to_client_that_sends_first",
            "fills the kernel's buffers within 30 s, which took longer on a busy machine",
        ),
        (
            "calls_with_a_denied_system_call_work_or_fail_clearly",
            "the sanitizer itself needs the denied system calls",
        ),
        (
            "connect_and_accept_survive_pthread_cancel",
            "this build closes descriptors by libc: pthread_cancel(3) acts in close(2)",
        ),
        (
            "handshake_that_is_incomplete_times_out",
            "limits times, and the sanitizer reads packets more slowly than they arrive",
        ),
        (
            "send_file_is_rejected_while_16_files_wait",
            "compares 384 MiB, which the sanitizer does not end within the limit of 360 s",
        ),
    ],
    reports: &[("address_written_by_two_threads_races", "ThreadSanitizer: data race")],
};

/// The C examples that run under ThreadSanitizer.
const THREAD_EXAMPLES: &str = "^(wrong|first|echo_accept|echo_server|push|keepalive|alive|timeouts|handshake|\
                               reconnect|groups|cancel|ticker|line_client|chat)-";

/// Unit tests of state machines and parsers, for Miri.
const PURE: [&str; 10] = [
    "connect::race::",
    "diag::handshake::",
    "ffi::handle::table::tests::id_",
    "io::backoff::",
    "serve::admission::",
    "serve::reactor::conn_table::",
    "serve::reactor::send_queue::",
    "serve::reactor::service_timers::",
    "types::framing::tests::",
    "types::proxy::",
];

/// The tests among [`PURE`] that Miri does not run, each with the reason.
const NOT_MIRI: [(&str, &str); 5] = [
    ("diagram_of_long_addresses_fits_80_columns", "reads long packets"),
    ("race_on_every_course_keeps_the_rules", "tries too many cases"),
    ("put_of_many_packets_keeps_memory_bounded", "needs many packets"),
    ("find_among_mixed_connections_returns_each_handshake", "tries too many cases"),
    ("peer_returns_the_address_of_open", "makes a socket"),
];

/// The parsers, which Miri also runs on a machine with the other byte order.
const PARSERS: [&str; 3] = ["diag::handshake::", "types::framing::tests::", "types::proxy::"];
const BIG_ENDIAN: &str = "s390x-unknown-linux-gnu";

/// The command. Returns whether it passed.
pub fn sanitize(ws: &Workspace, all: bool) -> bool {
    let mut steps = Steps::default();
    for sanitizer in [&THREAD, &ADDRESS] {
        let name = sanitizer.name;
        steps.step(&format!("{name} sanitizer, Rust tests"), || rust_tests(ws, sanitizer, all));
    }
    for (sanitizer, examples) in [(&THREAD, THREAD_EXAMPLES), (&ADDRESS, ".")] {
        steps.step(&format!("{} sanitizer, C examples", sanitizer.name), || {
            c_examples(ws, sanitizer, examples)
        });
    }
    steps.step("undefined sanitizer, C examples", || undefined(ws));
    steps.step("Miri", || miri(ws));
    steps.finish(is_ci())
}

impl Sanitizer {
    /// The variable with the options, and its value.
    fn options(&self, ws: &Workspace) -> (&'static str, String) {
        let (variable, options) = self.options;
        let list = self.suppressions.map(|file| ws.root.join(file));
        let list =
            list.map_or_else(String::new, |file| format!(":suppressions={}", file.display()));
        (variable, format!("{options}{list}"))
    }

    /// The environment of cargo and of the tests.
    fn environment(&self, ws: &Workspace) -> Result<Vec<(&'static str, String)>, Stop> {
        let mut environment = vec![
            ("RUSTC_BOOTSTRAP", "1".to_owned()),
            ("RUSTFLAGS", self.flags.to_owned()),
            // Some tests panic on purpose, and a sanitizer takes many seconds to print a backtrace.
            ("RUST_BACKTRACE", "0".to_owned()),
            self.options(ws),
        ];
        if self.builds_std {
            let std = cross::std_source(ws)
                .map_err(|e| Stop::Skip(format!("no source of the standard library: {e}")))?;
            environment.push(("__CARGO_TESTS_ONLY_SRC_ROOT", std.display().to_string()));
        }
        Ok(environment)
    }

    /// A run of test programs.
    fn test(&self, ws: &Workspace, target: &str) -> Result<Command, Stop> {
        let mut test = ws.cargo(&["test", "--all-features", "--no-fail-fast", "--target", target]);
        test.envs(self.environment(ws)?);
        test.env("CARGO_TARGET_DIR", ws.target.join("sanitize").join(self.name));
        if self.builds_std {
            test.arg("-Zbuild-std");
        }
        Ok(test)
    }
}

fn rust_tests(ws: &Workspace, sanitizer: &Sanitizer, all: bool) -> Result<String, Stop> {
    let target = target(ws)?;
    let mut test = sanitizer.test(ws, &target)?;
    if all {
        test.args(["--lib", "--test", "it", "--test", "abi", "--"]);
    } else {
        test.args(["--test", "it", "--"]).args(MODULES);
    }
    for (name, reason) in sanitizer.excluded {
        println!("not under this sanitizer: {name}: {reason}");
        test.args(["--skip", name]);
    }
    let passed = count_rust_tests(&show(&mut test, 60 * MINUTE)?)?;
    for (wrong, report) in sanitizer.reports {
        let mut test = sanitizer.test(ws, &target)?;
        test.args(["--test", WRONG, "--", "--ignored", "--exact", wrong]);
        must_report(&mut test, wrong, report)?;
    }
    Ok(format!("{passed}, {} wrong programs reported", sanitizer.reports.len()))
}

fn must_report(test: &mut Command, wrong: &str, report: &str) -> Result<(), Stop> {
    let (succeeded, output) = collect(test, 5 * MINUTE)?;
    if succeeded || !output.contains(report) {
        println!("{output}");
        return Err(Stop::Fail(format!("the wrong program {wrong} causes no report {report:?}")));
    }
    println!("the wrong program {wrong} fails as expected: {report}");
    Ok(())
}

/// The C examples, compiled with UndefinedBehaviorSanitizer. rustc has no such sanitizer: the
/// library is compiled with debug assertions.
pub fn undefined(ws: &Workspace) -> Result<String, Stop> {
    let flags = "-fsanitize=undefined -fno-sanitize-recover=undefined -g";
    let settings = c_settings(ws, "undefined", flags)?;
    let folder = ws.target.join("sanitize").join("undefined");
    Build::make(ws, &ws.root, folder, &settings, &[])?.test(ws, ".")
}

/// The C examples and the library, both compiled with a sanitizer of rustc.
fn c_examples(ws: &Workspace, sanitizer: &Sanitizer, examples: &str) -> Result<String, Stop> {
    let target = target(ws)?;
    let name = sanitizer.name;
    // The version of clang differs from that of rustc. The programs have the runtime of rustc.
    let runtime = runtime(ws, sanitizer.runtime)?;
    let link = format!(
        "-fno-sanitize-link-runtime -rdynamic -Wl,--whole-archive {} -Wl,--no-whole-archive \
         -lpthread -lrt -lm -ldl",
        runtime.display()
    );
    let mut settings = c_settings(ws, name, &format!("-fsanitize={name} -g"))?;
    settings.push(format!("CMAKE_EXE_LINKER_FLAGS={link}"));
    settings.push(format!("KEEPSOCK_CARGO_TARGET={target}"));
    if sanitizer.builds_std {
        settings.push("KEEPSOCK_CARGO_FLAGS=-Zbuild-std".to_owned());
    }
    let environment = sanitizer.environment(ws)?;
    let folder = ws.target.join("sanitize").join(format!("{name}-c"));
    let build = Build::make(ws, &ws.root, folder, &settings, &environment)?;
    let (variable, options) = sanitizer.options(ws);
    build.test_with(ws, examples, &[(variable, &options)])
}

/// The settings of CMake for C examples that are compiled with these flags.
fn c_settings(ws: &Workspace, sanitizer: &str, flags: &str) -> Result<Vec<String>, Stop> {
    let clang = tools::CLANG.need(ws)?;
    Ok(vec![
        format!("KEEPSOCK_SANITIZER={sanitizer}"),
        "KEEPSOCK_CARGO_PROFILE=dev".to_owned(),
        format!("CMAKE_C_COMPILER={}", clang.display()),
        format!("CMAKE_CXX_COMPILER={}++", clang.display()),
        format!("CMAKE_C_FLAGS={flags}"),
        format!("CMAKE_CXX_FLAGS={flags}"),
        "KEEPSOCK_INSTALL=OFF".to_owned(),
    ])
}

/// Unit tests under Miri, which rustup installs if it is missing.
fn miri(ws: &Workspace) -> Result<String, Stop> {
    if on_path("rustup").is_none() {
        return Err(Stop::Skip("Miri: rustup is not installed".to_owned()));
    }
    let mut add = ws.command("rustup");
    add.args(["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"]);
    add.args(["--component", "miri", "--component", "rust-src"]);
    let has_miri = || {
        let mut query = ws.command("rustup");
        query.args(["run", "nightly", "cargo", "miri", "--version"]);
        capture(&mut query, MINUTE)
    };
    if has_miri().is_err() {
        capture(&mut add, 5 * MINUTE).map_err(|e| Stop::Skip(format!("no Miri: {e}")))?;
    }
    let version = has_miri()?;
    let miri = |options: &[&str]| {
        let mut test = ws.command("rustup");
        test.args(["run", "nightly", "cargo", "miri", "test", "--all-features"]).args(options);
        test.env("CARGO_TARGET_DIR", ws.target.join("sanitize").join("miri"));
        test.env("MIRIFLAGS", "-Zmiri-strict-provenance");
        test
    };
    let wrong = ["--test", WRONG, "--", "--ignored", "--exact", "text_that_was_freed_is_read"];
    let mut wrong = miri(&wrong);
    must_report(&mut wrong, "text_that_was_freed_is_read", "Undefined Behavior")?;
    for (name, reason) in NOT_MIRI {
        println!("not under Miri: {name}: {reason}");
    }
    let run = |mut test: Command, names: &[&str]| {
        test.args(["--lib", "--"]).args(names);
        test.args(NOT_MIRI.iter().flat_map(|(name, _)| ["--skip", *name]));
        count_rust_tests(&show(&mut test, 15 * MINUTE)?)
    };
    let passed = run(miri(&[]), &PURE)?;
    let parsers = run(miri(&["--target", BIG_ENDIAN]), &PARSERS)?;
    Ok(format!("{passed}; {BIG_ENDIAN}: {parsers}; {}", version.trim()))
}

/// The target of this machine, if the compiler has the sanitizers for it.
pub fn target(ws: &Workspace) -> Result<String, Stop> {
    let about = capture(ws.command("rustc").arg("-vV"), MINUTE)?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    if !TARGETS.contains(&host) {
        return Err(Stop::Skip(format!("rustc has no sanitizers for {host:?}")));
    }
    runtime(ws, THREAD.runtime)?;
    Ok(host.to_owned())
}

/// The runtime library of a sanitizer, which belongs to the compiler.
fn runtime(ws: &Workspace, name: &str) -> Result<PathBuf, Stop> {
    let mut query = ws.command("rustc");
    let library = capture(query.args(["--print", "target-libdir"]), MINUTE)?;
    let library = PathBuf::from(library.trim());
    let files = std::fs::read_dir(&library).map_err(|e| format!("{}: {e}", library.display()))?;
    let is_it = |file: &PathBuf| file.to_string_lossy().ends_with(name);
    let found = files.flatten().map(|file| file.path()).find(is_it);
    found.ok_or_else(|| Stop::Skip("the installed compiler has no sanitizers".to_owned()))
}
