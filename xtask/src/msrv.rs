//! A type check with the oldest Rust that keepsock supports.

use std::env;
use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::cross::rustc_version;
use crate::run::{MINUTE, Workspace, capture, read_file, show, succeeds};
use crate::steps::Stop;
use crate::tools::on_path;

const CHECK: [&str; 5] = ["check", "--quiet", "--workspace", "--all-features", "--all-targets"];

pub fn check(ws: &Workspace) -> Result<String, Stop> {
    let oldest = oldest_supported(ws)?;
    // A separate folder: each compiler would rebuild the output of the other compiler.
    let target = ws.target.join("msrv");
    let mut tried = Vec::new();

    if rustc_version(ws)?.starts_with(&format!("{oldest}.")) {
        show(ws.cargo(&CHECK).env("CARGO_TARGET_DIR", &target), 10 * MINUTE)?;
        return Ok(format!("Rust {oldest}, the installed one"));
    }
    match with_rustup(ws, &oldest) {
        Ok(()) => {
            let mut check = ws.command("rustup");
            check.args(["run", &oldest, "cargo"]).args(CHECK);
            show(check.env("CARGO_TARGET_DIR", &target), 10 * MINUTE)?;
            return Ok(format!("Rust {oldest} from rustup"));
        }
        Err(reason) => tried.push(reason),
    }
    match from_packages(ws, &oldest) {
        Ok(packages) => {
            let mut check = ws.command(packages.join("usr").join("bin").join("cargo"));
            check.args(CHECK);
            check.env("RUSTC", packages.join("usr").join("bin").join("rustc"));
            check.env("LD_LIBRARY_PATH", library_path(&packages)?);
            show(check.env("CARGO_TARGET_DIR", &target), 10 * MINUTE)?;
            Ok(format!("Rust {oldest} from the system's packages"))
        }
        Err(reason) => {
            tried.push(reason);
            Err(Stop::Skip(format!("no Rust {oldest}: {}", tried.join("; "))))
        }
    }
}

/// The oldest supported version, from Cargo.toml.
fn oldest_supported(ws: &Workspace) -> Result<String, String> {
    read_file(&ws.root.join("Cargo.toml"))?
        .lines()
        .find_map(|line| {
            line.strip_prefix("rust-version = \"")?.split('"').next().map(str::to_owned)
        })
        .ok_or_else(|| "Cargo.toml has no rust-version".to_owned())
}

fn with_rustup(ws: &Workspace, version: &str) -> Result<(), String> {
    if on_path("rustup").is_none() {
        return Err("rustup is not installed".to_owned());
    }
    if succeeds(ws.command("rustup").args(["run", version, "rustc", "--version"]), MINUTE) {
        return Ok(());
    }
    // Without a network this may hang instead of failing.
    capture(
        ws.command("rustup").args(["toolchain", "install", version, "--profile", "minimal"]),
        4 * MINUTE,
    )?;
    Ok(())
}

/// Debian's compiler, unpacked below target/tools. Debian names it rustc-web in a release whose rustc
/// is older.
fn from_packages(ws: &Workspace, version: &str) -> Result<PathBuf, String> {
    let unpacked = ws.tools().join(format!("rust-{version}"));
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    let apt = Apt::open(ws, None)?;
    let find = |suffix: &str| {
        let package = apt.version(ws, &format!("rustc{suffix}"), version)?;
        Ok::<_, String>((suffix.to_owned(), package))
    };
    let (suffix, package) =
        find("").or_else(|own| find("-web").map_err(|web| format!("{own}; {web}")))?;
    let packages = [
        format!("rustc{suffix}={package}"),
        format!("cargo{suffix}={package}"),
        format!("libstd-rust{suffix}-dev={package}"),
    ];
    apt.unpack_with_dependencies(ws, &packages, &unpacked)?;
    Ok(unpacked)
}

/// Every folder of the unpacked packages that holds shared libraries.
fn library_path(packages: &Path) -> Result<std::ffi::OsString, String> {
    let mut folders = Vec::new();
    for lib in [packages.join("usr").join("lib"), packages.join("lib")] {
        folders.push(lib.clone());
        let inside =
            std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
        folders.extend(inside.filter(|path| path.to_string_lossy().contains("-linux-gnu")));
    }
    env::join_paths(folders).map_err(|e| format!("the library path: {e}"))
}
