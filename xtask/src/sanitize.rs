//! `cargo xtask sanitize`: event-driven serving and datagram sockets, where many threads meet, under
//! AddressSanitizer (leaks as well) and ThreadSanitizer.
//!
//! Both are unstable features of the compiler, which RUSTC_BOOTSTRAP lets a stable one have.
//! ThreadSanitizer needs a standard library that was compiled with it, or it reports races that
//! are none: that is made from source, as for the systems that are not here.

use std::path::PathBuf;

use crate::cross;
use crate::run::{MINUTE, Workspace, capture, is_ci, show};
use crate::steps::Stop;

/// The test programs in which threads meet.
const PROGRAMS: [&str; 5] = ["events", "scale", "datagram", "datagram_details", "unix_datagram"];

/// Where rustc brings the sanitizers.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// Runs it as a command of its own.
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
    let std = std.map_err(|e| Stop::Skip(format!("address: good; thread: no std source: {e}")))?;
    test(ws, &target, "thread", Some(std))?;
    Ok("address and thread: nothing found".to_owned())
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
    // Tests panic on purpose, and finding names for a trace takes many seconds here.
    test.env("RUST_BACKTRACE", "0");
    if let Some(library) = std {
        test.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        test.arg("-Zbuild-std");
    }
    test.args(PROGRAMS.iter().flat_map(|program| ["--test", program]));
    show(&mut test, 15 * MINUTE)
}

/// This machine's own target, if the compiler has the sanitizers for it.
fn target(ws: &Workspace) -> Result<String, Stop> {
    let about = capture(ws.command("rustc").arg("-vV"), MINUTE)?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    if !TARGETS.contains(&host) {
        return Err(Stop::Skip(format!("no sanitizers for {host:?}")));
    }
    let mut ask = ws.command("rustc");
    let library = capture(ask.args(["--print", "target-libdir"]), MINUTE)?;
    let library = PathBuf::from(library.trim());
    let names = std::fs::read_dir(&library).map_err(|e| format!("{}: {e}", library.display()))?;
    let there = names.flatten().any(|file| file.file_name().to_string_lossy().contains("_rt.tsan"));
    if !there {
        return Err(Stop::Skip("this compiler brings no sanitizers".to_owned()));
    }
    Ok(host.to_owned())
}
