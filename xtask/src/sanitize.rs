//! `cargo xtask sanitize`: the tests of event-driven serving and of datagram sockets, which use many
//! threads, under AddressSanitizer (with leak detection) and ThreadSanitizer.
//!
//! Both are unstable features; RUSTC_BOOTSTRAP enables them in a stable compiler. ThreadSanitizer
//! reports false races unless the standard library is compiled with it as well, so the standard
//! library is compiled from source.

use std::path::PathBuf;

use crate::cross;
use crate::run::{MINUTE, Workspace, capture, is_ci, show};
use crate::steps::Stop;

/// The modules of tests/it/ in which several threads use the same sockets.
const MODULES: [&str; 5] =
    ["serve_events::", "stress::", "datagram::", "datagram_metadata::", "unix_datagram::"];

/// The targets for which rustc has the sanitizers.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// The command. Returns whether it passed.
pub fn sanitize(ws: &Workspace) -> Result<bool, String> {
    match run(ws) {
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

fn run(ws: &Workspace) -> Result<String, Stop> {
    let target = target(ws)?;
    test(ws, &target, "address", None)?;
    let std = cross::std_source(ws);
    let std = std.map_err(|e| {
        Stop::Skip(format!("address: passed; thread: no source of the standard library: {e}"))
    })?;
    test(ws, &target, "thread", Some(std))?;
    Ok("AddressSanitizer and ThreadSanitizer reported nothing".to_owned())
}

fn test(
    ws: &Workspace,
    target: &str,
    sanitizer: &str,
    std: Option<PathBuf>,
) -> Result<String, String> {
    let mut test = ws.cargo(&["test", "--all-features", "--target", target]);
    test.env("CARGO_TARGET_DIR", ws.target.join("sanitize").join(sanitizer));
    test.env("RUSTC_BOOTSTRAP", "1");
    test.env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}"));
    // Some tests panic on purpose, and a sanitizer takes many seconds to print a backtrace.
    test.env("RUST_BACKTRACE", "0");
    if let Some(library) = std {
        test.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        test.arg("-Zbuild-std");
    }
    test.args(["--test", "it", "--"]).args(MODULES);
    show(&mut test, 15 * MINUTE)
}

/// The target of this machine, if the compiler has the sanitizers for it.
pub fn target(ws: &Workspace) -> Result<String, Stop> {
    let about = capture(ws.command("rustc").arg("-vV"), MINUTE)?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    if !TARGETS.contains(&host) {
        return Err(Stop::Skip(format!("rustc has no sanitizers for {host:?}")));
    }
    let mut query = ws.command("rustc");
    let library = capture(query.args(["--print", "target-libdir"]), MINUTE)?;
    let library = PathBuf::from(library.trim());
    let names = std::fs::read_dir(&library).map_err(|e| format!("{}: {e}", library.display()))?;
    let there = names.flatten().any(|file| file.file_name().to_string_lossy().contains("_rt.tsan"));
    if !there {
        return Err(Stop::Skip("the installed compiler has no sanitizers".to_owned()));
    }
    Ok(host.to_owned())
}
