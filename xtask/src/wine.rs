//! `cargo xtask wine`: the library on Windows, which Wine runs on this machine.
//!
//! Wine is that of Debian trixie (Wine 10), in a folder of its own below the tools. Older versions lack parts
//! of Windows Sockets. The folder is a system of Debian without a kernel, so it needs debootstrap and root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::apt;
use crate::cmake::Build;
use crate::cross;
use crate::platforms::{Outcome, Record, results};
use crate::run::{MINUTE, Workspace, attempt, capture, create_dir, show, write_file};
use crate::steps::Stop;
use crate::tools::{self, allow_install, is_root};

pub const TARGET: &str = "x86_64-pc-windows-gnu";
const SUITE: &str = "trixie";

/// The limit of the tests of one module. A test that hangs, or that ends the process, ends those of its
/// module only.
const MODULE_LIMIT: Duration = Duration::from_secs(180);

/// Most tests wait most of their time.
const THREADS: &str = "--test-threads=8";

/// The results of one run.
pub struct Run {
    pub record: Record,
    /// The processor and the version of Wine, such as "x86_64, by wine-10.0".
    pub about: String,
    /// The result of the C examples.
    pub examples: String,
}

/// Runs the unit tests, the tests through both APIs and the C examples.
pub fn wine(ws: &Workspace) -> Result<bool, String> {
    println!("{}", check(ws)?);
    Ok(true)
}

pub fn check(ws: &Workspace) -> Result<String, Stop> {
    let Run { record, examples, .. } = run(ws)?;
    let text = format!("{}; C: {examples}", record.summary());
    if record.failed().next().is_none() { Ok(text) } else { Err(Stop::Fail(text)) }
}

pub fn run(ws: &Workspace) -> Result<Run, Stop> {
    let wine = Wine::prepare(ws)?;
    let record = rust_tests(ws, &wine);
    // Programs that a killed test has started.
    wine.stop();
    let record = record?;
    let examples = c_examples(ws, &wine);
    let about = format!("x86_64, by {}", wine.version()?);
    wine.stop();
    Ok(Run { record, about, examples: examples? })
}

fn rust_tests(ws: &Workspace, wine: &Wine) -> Result<Record, Stop> {
    let (units, it) = build(ws)?;
    let started = Instant::now();
    let mut record = Record::default();
    wine.run("keepsock", &units, &wine.tests(&units)?, &mut record)?;
    let names = wine.tests(&it)?;
    for module in modules(&names) {
        let of_module: Vec<_> = names.iter().filter(|name| module_of(name) == module).collect();
        wine.run("it", &it, &of_module, &mut record)?;
    }
    println!("tests: {:.0} s", started.elapsed().as_secs_f64());
    for test in record.failed() {
        println!("FAILED: {test}");
    }
    Ok(record)
}

/// Compiles the unit tests and the program `it`.
fn build(ws: &Workspace) -> Result<(PathBuf, PathBuf), Stop> {
    let mut build = ws.cargo(&["test", "--target", TARGET, "--all-features", "--no-run"]);
    // The symbols of a debugger are half of the time of the compiler.
    build.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_TARGET_DIR", ws.target.join("wine"));
    let output = show(build.args(["--lib", "--test", "it"]), 15 * MINUTE)?;
    let mut programs = output.lines().filter_map(|line| {
        let (_, path) = line.trim().strip_prefix("Executable ")?.rsplit_once(" (")?;
        Some(ws.root.join(path.strip_suffix(')')?))
    });
    match (programs.next(), programs.next()) {
        (Some(units), Some(it)) => Ok((units, it)),
        _ => Err(Stop::Fail("cargo did not name two programs".to_owned())),
    }
}

fn module_of(test: &str) -> &str {
    test.split("::").next().unwrap_or(test)
}

/// The modules of tests, in their order.
fn modules(names: &[String]) -> Vec<&str> {
    let mut modules: Vec<&str> = names.iter().map(|name| module_of(name)).collect();
    modules.dedup();
    modules
}

/// The C examples, with the DLL and its import library, and with the static library.
fn c_examples(ws: &Workspace, wine: &Wine) -> Result<String, Stop> {
    let settings = [
        "CMAKE_SYSTEM_NAME=Windows".to_owned(),
        format!("CMAKE_C_COMPILER={}", tools::MINGW.need(ws)?.display()),
        format!("CMAKE_CXX_COMPILER={}", tools::MINGW_CXX.need(ws)?.display()),
        // The DLLs of the compiler are not in the folder of Wine.
        "CMAKE_EXE_LINKER_FLAGS=-static".to_owned(),
        format!("CMAKE_CROSSCOMPILING_EMULATOR={};wine", wine.runner.display()),
        format!("KEEPSOCK_CARGO_TARGET={TARGET}"),
        "KEEPSOCK_CARGO_PROFILE=dev".to_owned(),
    ];
    let build = Build::make(ws, &ws.root, ws.target.join("cmake-wine"), &settings, &[])?;
    build.test(ws, C_TESTS)
}

/// The tests of programs whose functions Wine has: alive and reconnect need TCP_MAXRT.
const C_TESTS: &str =
    "^(first|echo_accept|push|keepalive|timeouts|datagram|line_client_python|cxx|header)-";

/// An installed Wine.
struct Wine {
    /// The script that runs a command in the folder of Wine.
    runner: PathBuf,
    root: PathBuf,
}

impl Wine {
    /// Installs Wine if it is missing.
    fn prepare(ws: &Workspace) -> Result<Self, Stop> {
        if !is_root() {
            let reason = "Wine runs in a folder of its own (chroot), which needs root";
            return Err(Stop::Skip(reason.to_owned()));
        }
        for tool in [&tools::DEBOOTSTRAP, &tools::MINGW, &tools::MINGW_CXX, &tools::UNSHARE] {
            tool.need(ws)?;
        }
        cross::compiled_std(ws, TARGET).map_err(Stop::Skip)?;
        let folder = ws.tools().join("wine");
        let wine = Self { runner: folder.join("run.sh"), root: folder.join(SUITE) };
        create_dir(&folder)?;
        write_file(&wine.runner, &script(&wine.root, [&ws.root, &ws.target]))?;
        capture(ws.command("chmod").arg("755").arg(&wine.runner), MINUTE)?;
        if !wine.root.join("installed").exists() {
            wine.install(ws).map_err(Stop::Skip)?;
        }
        Ok(wine)
    }

    fn install(&self, ws: &Workspace) -> Result<(), String> {
        allow_install()?;
        println!("installing Wine of Debian {SUITE} into {}", self.root.display());
        if self.root.exists() {
            let incomplete = |e| format!("remove {}: {e}", self.root.display());
            fs::remove_dir_all(&self.root).map_err(incomplete)?;
        }
        // The mounts of debootstrap are those of its own namespace, and disappear with it.
        let mut bootstrap = ws.command("unshare");
        bootstrap.args(["--mount", "debootstrap", "--variant=minbase", SUITE]);
        capture(bootstrap.arg(&self.root).arg(apt::mirror(ws)?), 10 * MINUTE)?;
        let apt_get = |words: &[&str]| {
            let mut command = ws.command("chroot");
            command.arg(&self.root).env("DEBIAN_FRONTEND", "noninteractive").arg("apt-get");
            capture(command.args(words), 10 * MINUTE)
        };
        // netbase has the names of services.
        let packages = ["wine", "wine64", "netbase"];
        apt_get(&[&["install", "-y", "--no-install-recommends"], &packages[..]].concat())?;
        apt_get(&["clean"])?;
        capture(self.command("wineboot").arg("--init"), 5 * MINUTE)?;
        write_file(&self.root.join("installed"), "")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.runner);
        command.arg(program);
        command
    }

    fn version(&self) -> Result<String, String> {
        Ok(capture(self.command("wine").arg("--version"), MINUTE)?.trim().to_owned())
    }

    /// Ends the server of this Wine and every program that it runs.
    fn stop(&self) {
        // Fails if the server does not run.
        let _ = capture(self.command("wineserver").arg("--kill"), MINUTE);
    }

    fn tests(&self, program: &Path) -> Result<Vec<String>, Stop> {
        let listing = capture(self.command("wine").arg(program).arg("--list"), MINUTE)?;
        let names = listing.lines().filter_map(|line| line.trim().strip_suffix(": test"));
        let names: Vec<String> = names.map(str::to_owned).collect();
        match names.is_empty() {
            true => Err(Stop::Fail(format!("{} has no tests", program.display()))),
            false => Ok(names),
        }
    }

    /// Runs tests of a program in one process, and adds their results. Tests that fail run once more, without
    /// the others, and a module with a test that does not end runs once more: Wine sometimes reports the end
    /// of the stream instead of a reset.
    fn run(
        &self,
        program: &str,
        file: &Path,
        names: &[impl AsRef<str>],
        record: &mut Record,
    ) -> Result<(), Stop> {
        let mut found = self.attempt(file, names)?;
        let names = || names.iter().map(AsRef::as_ref);
        let unfinished: Vec<&str> = names().filter(|name| !found.contains_key(*name)).collect();
        let failed = |name: &&str| found.get(*name) == Some(&Outcome::Failed);
        let again = match unfinished.is_empty() {
            true => names().filter(failed).collect(),
            // The program was killed, and has not printed why it skipped tests: all run again.
            false => names().collect::<Vec<_>>(),
        };
        if !again.is_empty() {
            println!("second attempt: {}", again.join(", "));
            println!("not finished: {}", unfinished.join(", "));
            let second = self.attempt(file, &again)?;
            for name in again {
                found.insert(name.to_owned(), second.get(name).cloned().unwrap_or(Outcome::Failed));
            }
        }
        for name in names() {
            let outcome = found.remove(name).unwrap_or(Outcome::Failed);
            record.tests.insert(format!("{program} {name}"), outcome);
        }
        Ok(())
    }

    fn attempt(
        &self,
        file: &Path,
        names: &[impl AsRef<str>],
    ) -> Result<BTreeMap<String, Outcome>, Stop> {
        let mut test = self.command("wine");
        test.arg(file).args(["--exact", "--show-output", THREADS]);
        test.args(names.iter().map(AsRef::as_ref));
        // Windows does not have everything that the tests use, so skipped tests are no failure.
        let started = Instant::now();
        let (ended, output) = attempt(test.env_remove("CI"), MODULE_LIMIT)?;
        let found = results(&output);
        let module = names.first().map_or("", |name| module_of(name.as_ref()));
        let seconds = started.elapsed().as_secs_f64();
        let limit = if ended { "" } else { ", ended by the limit" };
        println!("{module}: {seconds:.1} s{limit}");
        let passed = |name: &&str| !matches!(found.get(*name), None | Some(Outcome::Failed));
        if !names.iter().all(|name| passed(&name.as_ref())) {
            println!("{output}");
            // Processes that the tests have started may still run.
            self.stop();
        }
        Ok(found)
    }
}

/// A script that runs a command in the folder of Wine. The mounts are those of the script only, and
/// disappear with it. The current folder and the folders of the workspace have their own paths there.
fn script(root: &Path, folders: [&Path; 2]) -> String {
    let [workspace, target] = folders.map(Path::display);
    // Without mscoree and mshtml, Wine does not offer to install Mono and Gecko.
    format!(
        r#"#!/bin/sh
export root='{root}' workspace='{workspace}' target='{target}' folder="$PWD"
mkdir -p "$root$workspace" "$root$target"
exec unshare --mount sh -c '
mount -t proc proc "$root/proc" &&
mount --rbind /dev "$root/dev" &&
mount --bind "$workspace" "$root$workspace" &&
mount --bind "$target" "$root$target" &&
exec chroot "$root" env -C "$folder" HOME=/root XDG_RUNTIME_DIR=/run WINEPREFIX=/root/.wine \
    WINEDEBUG=-all WINEDLLOVERRIDES="mscoree=;mshtml=" RUST_BACKTRACE=0 \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' wine "$@"
"#,
        root = root.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_once() {
        let names = ["a::x", "a::y", "b::x"].map(str::to_owned);
        assert_eq!(modules(&names), ["a", "b"]);
    }
}
