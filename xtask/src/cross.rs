//! Type checks for other platforms.
//!
//! Each target needs a standard library. rustup installs compiled ones. Without rustup, the
//! standard library is checked from source, which Debian packages.

use std::path::PathBuf;

use crate::apt::Apt;
use crate::run::{MINUTE, Workspace, capture, show};
use crate::steps::Stop;
use crate::tools::on_path;

/// All features, none, and each alone: code that only one platform or only one feature uses is dead
/// in one of these.
const FEATURES: [&str; 7] =
    ["serve,datagram,activation,diag,capi", "", "serve", "datagram", "activation", "diag", "capi"];

/// The sets for platforms that have little code of their own.
const FEW: [&str; 2] = ["serve,datagram,activation,diag,capi", ""];

const TARGETS: [(&str, &[&str]); 9] = [
    ("x86_64-pc-windows-msvc", &FEATURES),
    ("aarch64-apple-darwin", &FEATURES),
    ("x86_64-unknown-freebsd", &FEATURES),
    ("aarch64-unknown-linux-musl", &FEATURES),
    ("i686-unknown-linux-gnu", &FEW),
    ("aarch64-linux-android", &FEW),
    ("x86_64-unknown-illumos", &FEW),
    ("x86_64-unknown-netbsd", &FEW),
    (SOURCE_TARGET, &FEW),
];

/// A target for which rustup has no compiled standard library.
const SOURCE_TARGET: &str = "x86_64-unknown-openbsd";

/// The suite with the standard library's source for every recent release of Rust.
const SOURCE_SUITE: &str = "trixie-backports";

pub fn targets() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|(target, _)| *target)
}

pub fn check(ws: &Workspace) -> Result<String, Stop> {
    let mut std = Std { rustup: Ok(()), source: None };
    let (mut compiled, mut broken, mut missing) = (0, Vec::new(), None);
    for (target, sets) in TARGETS {
        let mut from_source = None;
        if let Err(reason) = std.compiled(ws, target) {
            println!("{target}: no compiled standard library: {reason}");
            match std.source(ws) {
                Ok(library) => from_source = Some(library),
                Err(also) => {
                    missing = Some(format!("{target}: {reason}; {also}"));
                    continue;
                }
            }
        } else {
            compiled += 1;
        }
        for features in sets {
            let mut check = ws.cargo(&["clippy", "--quiet", "--lib", "--no-default-features"]);
            check.args(["--features", features, "--target", target]);
            check.env("CARGO_TARGET_DIR", ws.target.join("cross"));
            if let Some(library) = &from_source {
                // Checking std from source is an unstable feature. cargo searches for the source
                // inside the toolchain, which must not be changed.
                check.env("RUSTC_BOOTSTRAP", "1");
                check.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
                check.arg("-Zbuild-std=std,panic_abort");
            }
            // The step "lints" runs clippy. Here it passes the warnings of the compiler on as errors.
            check.args(["--", "-A", "clippy::all", "-D", "warnings"]);
            if let Err(message) = show(&mut check, 10 * MINUTE) {
                println!("{message}");
                broken.push(format!("{target} with the features {features:?}"));
            }
        }
    }
    if !broken.is_empty() {
        return Err(Stop::Fail(format!("the library does not compile for {}", broken.join(", "))));
    }
    if let Some(reason) = missing {
        return Err(Stop::Skip(reason));
    }
    let all = TARGETS.len();
    Ok(format!("{all} targets; std compiled for {compiled}, from source for {}", all - compiled))
}

/// The sources of the targets' standard libraries. A source that has failed is not tried for the
/// next target: without a network, each attempt may last until its timeout.
struct Std {
    rustup: Result<(), String>,
    source: Option<Result<PathBuf, String>>,
}

impl Std {
    /// Installs a compiled standard library for a target. After a failure it does not try again.
    fn compiled(&mut self, ws: &Workspace, target: &str) -> Result<(), String> {
        if has_compiled_std(ws, target)? {
            return Ok(());
        }
        if target == SOURCE_TARGET {
            return Err("rustup has none".to_owned());
        }
        self.rustup.clone()?;
        self.rustup = compiled_std(ws, target);
        self.rustup.clone()
    }

    fn source(&mut self, ws: &Workspace) -> Result<PathBuf, String> {
        self.source.get_or_insert_with(|| std_source(ws)).clone()
    }
}

fn has_compiled_std(ws: &Workspace, target: &str) -> Result<bool, String> {
    let mut query = ws.command("rustc");
    let library = capture(query.args(["--print", "target-libdir", "--target", target]), MINUTE)?;
    Ok(PathBuf::from(library.trim()).is_dir())
}

/// Installs a compiled standard library for a target if it is missing.
pub fn compiled_std(ws: &Workspace, target: &str) -> Result<(), String> {
    if has_compiled_std(ws, target)? {
        return Ok(());
    }
    if on_path("rustup").is_none() {
        return Err("rustup is not installed".to_owned());
    }
    let mut add = ws.command("rustup");
    capture(add.args(["target", "add", target]), 3 * MINUTE).map(|_| ())
}

/// The source of the standard library of the installed compiler.
pub fn std_source(ws: &Workspace) -> Result<PathBuf, String> {
    let sysroot = capture(ws.command("rustc").args(["--print", "sysroot"]), MINUTE)?;
    let installed = PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if installed.join("Cargo.toml").is_file() {
        return Ok(installed);
    }
    let version = rustc_version(ws)?;
    let unpacked = ws.tools().join(format!("rust-src-{version}"));
    let library = unpacked.join("usr").join("src").join(format!("rustc-{version}")).join("library");
    if library.is_dir() {
        return Ok(library);
    }
    let apt = Apt::open(ws, Some(SOURCE_SUITE))?;
    let package = apt.version(ws, "rust-src", &version).map_err(|e| {
        format!("the source of the standard library must have the version of rustc: {e}")
    })?;
    apt.unpack(ws, &format!("rust-src={package}"), &unpacked)?;
    if library.is_dir() {
        Ok(library)
    } else {
        Err(format!("rust-src {package} has no {}", library.display()))
    }
}

/// The release of the installed compiler, such as 1.95.0.
pub fn rustc_version(ws: &Workspace) -> Result<String, String> {
    let about = capture(ws.command("rustc").arg("-vV"), MINUTE)?;
    about
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .map(str::to_owned)
        .ok_or_else(|| "`rustc -vV` prints no release".to_owned())
}
