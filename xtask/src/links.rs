//! `cargo xtask links`: links the library and C examples for macOS and FreeBSD, with zig as the C
//! compiler and linker. The programs cannot run here.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cross::compiled_std;
use crate::run::{MINUTE, Workspace, capture, create_dir, show, write_file};
use crate::steps::Stop;
use crate::tools::on_path;

/// The Rust target, the zig target, the file name of the shared library, and the system libraries of
/// a program with the static library.
const TARGETS: [(&str, &str, &str, &[&str]); 3] = [
    ("aarch64-apple-darwin", "aarch64-macos", "libkeepsock.dylib", &[]),
    ("x86_64-apple-darwin", "x86_64-macos", "libkeepsock.dylib", &[]),
    ("x86_64-unknown-freebsd", "x86_64-freebsd", "libkeepsock.so", FREEBSD),
];
const FREEBSD: &[&str] = &["-lexecinfo", "-lpthread", "-lm", "-lunwind"];

const EXAMPLES: [&str; 6] =
    ["first", "echo_accept", "keepalive", "push_client", "push_server", "timeouts"];

/// The version of the package ziglang.
const ZIG: &str = "ziglang==0.17.1";

/// Passes the arguments of rustc to zig. It leaves out libraries of macOS and FreeBSD that zig lacks and
/// keepsock does not use, and the list of exported symbols.
const LINKER: &str = r#"#!/bin/sh
for argument do
    shift
    case $argument in
    -liconv | -ldevstat | -lmemstat | -lprocstat | -lkvm) continue ;;
    -nodefaultlibs | -Wl,-exported_symbols_list* | -Wl,-dead_strip | -Wl,*/list) continue ;;
    -mmacosx-version-min=*) continue ;;
    esac
    set -- "$@" "$argument"
done
exec "PYTHON" -m ziglang cc -target TARGET "$@"
"#;

pub fn targets() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|(target, ..)| *target)
}

pub fn check(ws: &Workspace) -> Result<String, Stop> {
    let python = zig(ws).map_err(Stop::Skip)?;
    let mut notes = Vec::new();
    for (target, zig_target, shared, libraries) in TARGETS {
        let started = Instant::now();
        compiled_std(ws, target).map_err(Stop::Skip)?;
        let folder = ws.target.join("links").join(target);
        create_dir(&folder)?;
        let linker = folder.join("linker");
        let script = LINKER.replace("PYTHON", &python.display().to_string());
        write_file(&linker, &script.replace("TARGET", zig_target))?;
        show(ws.command("chmod").arg("+x").arg(&linker), MINUTE)?;
        let mut build = ws.cargo(&["rustc", "--quiet", "--lib", "--features", "capi"]);
        build.args(["--target", target, "--crate-type", "cdylib,staticlib"]);
        build.env("CARGO_TARGET_DIR", ws.target.join("cross"));
        let name = target.to_uppercase().replace('-', "_");
        build.env(format!("CARGO_TARGET_{name}_LINKER"), &linker);
        show(&mut build, 10 * MINUTE)?;
        let built = ws.target.join("cross").join(target).join("debug");
        let archive = built.join("libkeepsock.a");
        for example in EXAMPLES {
            let source = format!("c_examples/{example}.c");
            let link = |library: &Path, name: &str, libraries: &[&str]| {
                let mut cc = ws.command(&linker);
                cc.args(["-Iinclude", &source]).arg(library).args(libraries);
                show(cc.arg("-o").arg(folder.join(name)), 2 * MINUTE)
            };
            link(&built.join(shared), &format!("{example}-shared"), &[])?;
            link(&archive, &format!("{example}-static"), libraries)?;
        }
        notes.push(format!("{target} {} s", started.elapsed().as_secs()));
    }
    let programs = 2 * EXAMPLES.len();
    Ok(format!("two libraries and {programs} programs for each of {}", notes.join(", ")))
}

/// The Python of a virtual environment that has zig.
fn zig(ws: &Workspace) -> Result<PathBuf, String> {
    let environment = ws.tools().join("zig");
    let python = environment.join("bin").join("python");
    let has_zig = |python: &Path| {
        python.is_file()
            && capture(ws.command(python).args(["-m", "ziglang", "version"]), MINUTE).is_ok()
    };
    if has_zig(&python) {
        return Ok(python);
    }
    if std::env::var_os("KEEPSOCK_NO_INSTALL").is_some_and(|value| value == "1") {
        return Err(format!("zig is missing: install {ZIG} with pip in {}", environment.display()));
    }
    let system = on_path("python3").ok_or("python3 is not installed")?;
    capture(ws.command(system).args(["-m", "venv"]).arg(&environment), 2 * MINUTE)?;
    capture(ws.command(&python).args(["-m", "pip", "install", "--quiet", ZIG]), 5 * MINUTE)?;
    Ok(python)
}
