//! `cargo xtask wine`: the library on Windows, which Wine runs on this machine.
//!
//! Wine is that of Debian trixie (Wine 10), in a folder of its own below the tools. Older versions lack parts
//! of Windows Sockets. The folder is a system of Debian without a kernel, so it needs debootstrap and root.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apt;
use crate::cmake::Build;
use crate::run::{MINUTE, Workspace, capture, collect, create_dir, show, write_file};
use crate::steps::Stop;
use crate::tools::{self, allow_install, is_root};

const TARGET: &str = "x86_64-pc-windows-gnu";
const LINKER: &str = "x86_64-w64-mingw32-gcc";
const SUITE: &str = "trixie";

/// The limit of the tests, which only a hang reaches.
const LONG: Duration = Duration::from_secs(20 * 60);

/// The output of a skipped test, before the reason: see tests/support/help.rs.
const SKIPPED: &str = "test skipped: ";

/// Runs the unit tests, the tests through both APIs and the C examples.
pub fn wine(ws: &Workspace) -> Result<bool, String> {
    println!("{}", check(ws)?);
    Ok(true)
}

fn check(ws: &Workspace) -> Result<String, Stop> {
    let runner = prepare(ws)?;
    let rust = rust_tests(ws, &runner)?;
    let c = c_examples(ws, &runner)?;
    Ok(format!("{rust}; C: {c}"))
}

fn rust_tests(ws: &Workspace, runner: &Path) -> Result<String, Stop> {
    let mut tests = ws.cargo(&["test", "--target", TARGET, "--all-features", "--no-fail-fast"]);
    // The symbols of a debugger are half of the time of the compiler.
    tests.env("CARGO_PROFILE_DEV_DEBUG", "0");
    tests.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", runner);
    tests.env("CARGO_TARGET_DIR", ws.target.join("wine"));
    tests.args(["--lib", "--test", "it", "--", "--show-output"]);
    let (passed, output) = collect(&mut tests, LONG)?;
    for line in
        output.lines().filter(|line| line.ends_with("FAILED") || line.contains("panicked at"))
    {
        println!("{line}");
    }
    let counts = count(&output)?;
    for (reason, tests) in &counts.skipped {
        println!("skipped, {tests} tests: {reason}");
    }
    let skipped: usize = counts.skipped.iter().map(|(_, tests)| tests).sum();
    let text = format!(
        "{} tests passed, {} failed, {skipped} skipped",
        counts.passed - skipped,
        counts.failed
    );
    if passed { Ok(text) } else { Err(Stop::Fail(text)) }
}

/// The results of the test programs.
#[derive(Debug, PartialEq)]
struct Counts {
    /// With the skipped tests.
    passed: usize,
    failed: usize,
    /// The reasons, and the number of tests that each of them has skipped.
    skipped: Vec<(String, usize)>,
}

fn count(output: &str) -> Result<Counts, Stop> {
    let mut counts = Counts { passed: 0, failed: 0, skipped: Vec::new() };
    for line in output.lines() {
        if let Some(reason) = line.trim().strip_prefix(SKIPPED) {
            match counts.skipped.iter_mut().find(|(known, _)| known == reason) {
                Some((_, tests)) => *tests += 1,
                None => counts.skipped.push((reason.to_owned(), 1)),
            }
        }
        if line.contains("test result: ") {
            let before = |word| line.split(word).next()?.split_whitespace().last()?.parse().ok();
            counts.passed += before(" passed").unwrap_or(0);
            counts.failed += before(" failed").unwrap_or(0);
        }
    }
    match counts.passed {
        0 => Err(Stop::Fail("no test ran".to_owned())),
        _ => Ok(counts),
    }
}

/// The C examples, with the DLL and its import library, and with the static library.
fn c_examples(ws: &Workspace, runner: &Path) -> Result<String, Stop> {
    let settings = [
        "CMAKE_SYSTEM_NAME=Windows".to_owned(),
        format!("CMAKE_C_COMPILER={LINKER}"),
        format!("CMAKE_CROSSCOMPILING_EMULATOR={}", runner.display()),
        format!("KEEPSOCK_CARGO_TARGET={TARGET}"),
        "KEEPSOCK_CARGO_PROFILE=dev".to_owned(),
    ];
    let build = Build::make(ws, &ws.root, ws.target.join("cmake-wine"), &settings, &[])?;
    build.test(ws, C_TESTS)
}

/// The examples whose functions Wine has.
const C_TESTS: &str = "^(first|echo_accept|push|keepalive|timeouts)-";

/// Installs Wine if it is missing. Returns the program that runs a Windows program.
fn prepare(ws: &Workspace) -> Result<PathBuf, Stop> {
    let skip = |reason: &str| Err(Stop::Skip(reason.to_owned()));
    if !is_root() {
        return skip("Wine runs in a folder of its own (chroot), which needs root");
    }
    for tool in [&tools::DEBOOTSTRAP, &tools::MINGW, &tools::UNSHARE] {
        tool.find_or_install(ws).map_err(Stop::Skip)?;
    }
    let mut add = ws.command("rustup");
    capture(add.args(["target", "add", TARGET]), 3 * MINUTE).map_err(Stop::Skip)?;
    let folder = ws.tools().join("wine");
    create_dir(&folder)?;
    let root = folder.join(SUITE);
    if !root.join("installed").exists() {
        install(ws, &root).map_err(Stop::Skip)?;
    }
    let runner = folder.join("run.sh");
    write_file(&runner, &script(&root, &ws.root))?;
    capture(ws.command("chmod").arg("755").arg(&runner), MINUTE)?;
    Ok(runner)
}

fn install(ws: &Workspace, root: &Path) -> Result<(), String> {
    allow_install()?;
    println!("installing Wine of Debian {SUITE} into {}", root.display());
    let mut bootstrap = ws.command("debootstrap");
    bootstrap.args(["--variant=minbase", SUITE]).arg(root).arg(apt::mirror(ws)?);
    capture(&mut bootstrap, 10 * MINUTE)?;
    let mut wine = ws.command("chroot");
    wine.arg(root).env("DEBIAN_FRONTEND", "noninteractive");
    wine.args(["apt-get", "install", "-y", "--no-install-recommends", "wine", "wine64", "netbase"]);
    show(&mut wine, 10 * MINUTE)?;
    write_file(&root.join("installed"), "")
}

/// A script that runs a Windows program in the folder of Wine. The mounts are those of the script only, and
/// disappear with it. The current folder and the folder of the workspace have their own paths there.
fn script(root: &Path, workspace: &Path) -> String {
    format!(
        r#"#!/bin/sh
export root='{root}' workspace='{workspace}' folder="$PWD"
mkdir -p "$root$workspace" "$root/tmp"
exec unshare --mount sh -c '
mount --make-rprivate / &&
mount -t proc proc "$root/proc" &&
mount --rbind /dev "$root/dev" &&
mount --bind "$workspace" "$root$workspace" &&
mount --bind /tmp "$root/tmp" &&
exec chroot "$root" env -C "$folder" HOME=/root XDG_RUNTIME_DIR=/run WINEPREFIX=/root/.wine WINEDEBUG=-all \
    RUST_BACKTRACE=0 PATH=/usr/sbin:/usr/bin:/sbin:/bin wine "$@"' wine "$@"
"#,
        root = root.display(),
        workspace = workspace.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_adds_up_programs_and_the_reasons_of_skipped_tests() {
        let output = "test skipped: no fork\ntest a ... ok\ntest skipped: no fork\n\
                      test result: ok. 3 passed; 0 failed; 1 ignored\n\
                      test result: FAILED. 4 passed; 2 failed; 0 ignored\n";
        let counts = count(output).ok().unwrap();
        let skipped = vec![("no fork".to_owned(), 2)];
        assert_eq!(counts, Counts { passed: 7, failed: 2, skipped });
        assert!(count("nothing ran").is_err());
    }
}
