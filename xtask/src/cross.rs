//! Type checks for systems that are not here.
//!
//! Each target needs a standard library. rustup has them ready-made; where it is missing
//! or refuses, the standard library is checked from source, which Debian ships.

use std::path::PathBuf;

use crate::debian::Apt;
use crate::run::{MINUTE, Workspace, capture, show};
use crate::steps::Stop;
use crate::tools::on_path;

const TARGETS: [&str; 4] = [
    "x86_64-pc-windows-msvc",
    "aarch64-apple-darwin",
    "x86_64-unknown-freebsd",
    "aarch64-unknown-linux-musl",
];

/// Where the standard library's source is to be found as a package, for every recent
/// release of Rust.
const SOURCE_SUITE: &str = "trixie-backports";

pub fn check(ws: &Workspace) -> Result<String, Stop> {
    let mut prepared = 0;
    let mut source = None;
    for target in TARGETS {
        let mut check =
            ws.cargo(&["check", "--quiet", "--lib", "--features", "capi", "--target", target]);
        match ready_made(ws, target) {
            Ok(()) => prepared += 1,
            Err(reason) => {
                println!("{target}: no ready-made standard library ({reason})");
                let library = match &source {
                    Some(library) => library,
                    None => source
                        .insert(std_source(ws).map_err(|e| Stop::Skip(format!("{reason}; {e}")))?),
                };
                // Checking std from source is not a stable feature, and cargo would look
                // for the source inside the toolchain, which stays as it is.
                check.env("RUSTC_BOOTSTRAP", "1").env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
                check.arg("-Zbuild-std=std,panic_abort");
            }
        }
        check.env("CARGO_TARGET_DIR", ws.target.join("cross"));
        show(&mut check, 10 * MINUTE)?;
    }
    let from_source = TARGETS.len() - prepared;
    Ok(format!(
        "{} systems; std ready-made for {prepared}, from source for {from_source}",
        TARGETS.len()
    ))
}

/// Sees to a ready-made standard library for a target.
fn ready_made(ws: &Workspace, target: &str) -> Result<(), String> {
    let library = capture(
        ws.command("rustc").args(["--print", "target-libdir", "--target", target]),
        MINUTE,
    )?;
    if PathBuf::from(library.trim()).is_dir() {
        return Ok(());
    }
    if on_path("rustup").is_none() {
        return Err("no rustup here".to_owned());
    }
    // Where the network is closed this may hang rather than fail.
    capture(ws.command("rustup").args(["target", "add", target]), 3 * MINUTE)?;
    Ok(())
}

/// The source of the standard library of this very compiler.
fn std_source(ws: &Workspace) -> Result<PathBuf, String> {
    let version = rustc_version(ws)?;
    let unpacked = ws.tools().join(format!("rust-src-{version}"));
    let library = unpacked.join("usr").join("src").join(format!("rustc-{version}")).join("library");
    if library.is_dir() {
        return Ok(library);
    }
    let apt = Apt::open(ws, Some(SOURCE_SUITE))?;
    let package = apt.version(ws, "rust-src", &version).map_err(|e| {
        format!("the standard library's source must be of the same version as rustc: {e}")
    })?;
    apt.unpack(ws, &format!("rust-src={package}"), &unpacked)?;
    if library.is_dir() {
        Ok(library)
    } else {
        Err(format!("rust-src {package} has no {}", library.display()))
    }
}

/// The release of the compiler in use, such as 1.95.0.
pub fn rustc_version(ws: &Workspace) -> Result<String, String> {
    let about = capture(ws.command("rustc").arg("-vV"), MINUTE)?;
    about
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .map(str::to_owned)
        .ok_or_else(|| "`rustc -vV` names no release".to_owned())
}
