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
    let mut std = Std { rustup: Ok(()), source: None };
    let (mut ready_made, mut broken, mut missing) = (0, Vec::new(), None);
    for target in TARGETS {
        let mut check =
            ws.cargo(&["check", "--quiet", "--lib", "--features", "capi", "--target", target]);
        check.env("CARGO_TARGET_DIR", ws.target.join("cross"));
        if let Err(reason) = std.ready_made(ws, target) {
            println!("{target}: no ready-made standard library ({reason})");
            match std.source(ws) {
                Ok(library) => {
                    // Checking std from source is not a stable feature, and cargo would
                    // look for the source inside the toolchain, which stays as it is.
                    check.env("RUSTC_BOOTSTRAP", "1");
                    check.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
                    check.arg("-Zbuild-std=std,panic_abort");
                }
                Err(also) => {
                    missing = Some(format!("{target}: {reason}; {also}"));
                    continue;
                }
            }
        } else {
            ready_made += 1;
        }
        if let Err(message) = show(&mut check, 10 * MINUTE) {
            println!("{message}");
            broken.push(target);
        }
    }
    if !broken.is_empty() {
        return Err(Stop::Fail(format!("it does not compile for {}", broken.join(", "))));
    }
    if let Some(reason) = missing {
        return Err(Stop::Skip(reason));
    }
    let all = TARGETS.len();
    Ok(format!(
        "{all} systems; std ready-made for {ready_made}, from source for {}",
        all - ready_made
    ))
}

/// Where the standard libraries of the targets come from. What failed once is not tried
/// for the next target: where the network is closed, each attempt may take its whole time.
struct Std {
    rustup: Result<(), String>,
    source: Option<Result<PathBuf, String>>,
}

impl Std {
    /// Sees to a ready-made standard library for a target.
    fn ready_made(&mut self, ws: &Workspace, target: &str) -> Result<(), String> {
        let mut ask = ws.command("rustc");
        let library = capture(ask.args(["--print", "target-libdir", "--target", target]), MINUTE)?;
        if PathBuf::from(library.trim()).is_dir() {
            return Ok(());
        }
        self.rustup.clone()?;
        if on_path("rustup").is_none() {
            self.rustup = Err("no rustup here".to_owned());
        } else {
            let mut add = ws.command("rustup");
            add.args(["target", "add", target]);
            self.rustup = capture(&mut add, 3 * MINUTE).map(|_| ());
        }
        self.rustup.clone()
    }

    fn source(&mut self, ws: &Workspace) -> Result<PathBuf, String> {
        self.source.get_or_insert_with(|| std_source(ws)).clone()
    }
}

/// The source of the standard library of this very compiler.
pub fn std_source(ws: &Workspace) -> Result<PathBuf, String> {
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
