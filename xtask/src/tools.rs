//! Finds tools, and installs missing ones.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::run::{MINUTE, Workspace, capture, create_dir, show, succeeds};
use crate::steps::Stop;

/// The environment variable that forbids every installation.
const NO_INSTALL: &str = "KEEPSOCK_NO_INSTALL";

pub struct Tool {
    program: &'static str,
    /// The name of the Debian package.
    apt: &'static str,
    /// For tools that PyPI has as compiled programs: the package, and the path of the program in it.
    pip: Option<(&'static str, &'static str)>,
}

pub const CMAKE: Tool =
    Tool { program: "cmake", apt: "cmake", pip: Some(("cmake", "cmake/data/bin/cmake")) };
pub const CTEST: Tool =
    Tool { program: "ctest", apt: "cmake", pip: Some(("cmake", "cmake/data/bin/ctest")) };
pub const NINJA: Tool =
    Tool { program: "ninja", apt: "ninja-build", pip: Some(("ninja", "bin/ninja")) };
pub const CLANG: Tool = Tool { program: "clang", apt: "clang", pip: None };
pub const DEBOOTSTRAP: Tool = Tool { program: "debootstrap", apt: "debootstrap", pip: None };
pub const MINGW: Tool =
    Tool { program: "x86_64-w64-mingw32-gcc", apt: "gcc-mingw-w64-x86-64", pip: None };
pub const MINGW_CXX: Tool =
    Tool { program: "x86_64-w64-mingw32-g++", apt: "g++-mingw-w64-x86-64", pip: None };
pub const VALGRIND: Tool = Tool { program: "valgrind", apt: "valgrind", pip: None };
pub const STRACE: Tool = Tool { program: "strace", apt: "strace", pip: None };
pub const PKG_CONFIG: Tool = Tool { program: "pkg-config", apt: "pkg-config", pip: None };
pub const NM: Tool = Tool { program: "nm", apt: "binutils", pip: None };
pub const READELF: Tool = Tool { program: "readelf", apt: "binutils", pip: None };
pub const IP: Tool = Tool { program: "ip", apt: "iproute2", pip: None };
pub const NFT: Tool = Tool { program: "nft", apt: "nftables", pip: None };
pub const TCPDUMP: Tool = Tool { program: "tcpdump", apt: "tcpdump", pip: None };
pub const TSHARK: Tool = Tool { program: "tshark", apt: "tshark", pip: None };
pub const PYTHON: Tool = Tool { program: "python3", apt: "python3", pip: None };
pub const SOCAT: Tool = Tool { program: "socat", apt: "socat", pip: None };
pub const SYSTEMD_SOCKET_ACTIVATE: Tool =
    Tool { program: "systemd-socket-activate", apt: "systemd", pip: None };
pub const UNSHARE: Tool = Tool { program: "unshare", apt: "util-linux", pip: None };
pub const STRIP: Tool = Tool { program: "strip", apt: "binutils", pip: None };
pub const CXX: Tool = Tool { program: "c++", apt: "g++", pip: None };
pub const ABIDW: Tool = Tool { program: "abidw", apt: "abigail-tools", pip: None };
pub const DOXYGEN: Tool = Tool { program: "doxygen", apt: "doxygen", pip: None };
pub const AWK: Tool = Tool { program: "awk", apt: "mawk", pip: None };
pub const GROFF: Tool = Tool { program: "groff", apt: "groff-base", pip: None };
pub const MANDOC: Tool = Tool { program: "mandoc", apt: "mandoc", pip: None };
pub const DEBHELPER: Tool = Tool { program: "dh", apt: "debhelper", pip: None };
pub const DPKG_BUILDPACKAGE: Tool =
    Tool { program: "dpkg-buildpackage", apt: "dpkg-dev", pip: None };
pub const LINTIAN: Tool = Tool { program: "lintian", apt: "lintian", pip: None };
pub const TASKSET: Tool = Tool { program: "taskset", apt: "util-linux", pip: None };

/// A library that C programs are compiled with, for comparison.
pub struct Library {
    /// The name for pkg-config.
    module: &'static str,
    /// The name of the Debian package.
    apt: &'static str,
}

pub const LIBCURL: Library = Library { module: "libcurl", apt: "libcurl4-openssl-dev" };
pub const LIBUV: Library = Library { module: "libuv", apt: "libuv1-dev" };
pub const LIBEVENT: Library = Library { module: "libevent", apt: "libevent-dev" };

impl Library {
    /// The compiler flags. Installs the library if it is missing.
    pub fn flags(&self, ws: &Workspace) -> Result<Vec<String>, String> {
        let config = PKG_CONFIG.find_or_install(ws)?;
        let query =
            || capture(ws.command(&config).args(["--cflags", "--libs", self.module]), MINUTE);
        let flags = query().or_else(|_| {
            install_package(ws, self.apt).and_then(|()| query()).map_err(|reason| {
                format!(
                    "{} is missing ({reason}). Install it (Debian, Ubuntu: `apt-get install {}`) and run again",
                    self.module, self.apt
                )
            })
        })?;
        Ok(flags.split_whitespace().map(str::to_owned).collect())
    }
}

impl Tool {
    /// A tool of a Debian package.
    pub const fn debian(program: &'static str, package: &'static str) -> Self {
        Self { program, apt: package, pip: None }
    }

    pub const fn program(&self) -> &'static str {
        self.program
    }

    /// Finds the tool on PATH or in target/tools, else installs it. If that fails, the step that
    /// needs the tool is skipped.
    pub fn need(&self, ws: &Workspace) -> Result<PathBuf, Stop> {
        self.find_or_install(ws).map_err(Stop::Skip)
    }

    pub fn find_or_install(&self, ws: &Workspace) -> Result<PathBuf, String> {
        if let Some(found) = self.find(ws) {
            return Ok(found);
        }
        // pip first: it changes nothing outside target/.
        let mut tried = Vec::new();
        for install in [Self::install_with_pip, Self::install_with_apt] {
            match install(self, ws).map(|()| self.find(ws)) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => tried.push("the installed package has no such program".to_owned()),
                Err(reason) => tried.push(reason),
            }
        }
        tried.retain(|reason| !reason.is_empty());
        Err(format!(
            "{} is missing ({}). Install it (Debian, Ubuntu: `apt-get install {}`) and run again",
            self.program,
            tried.join("; "),
            self.apt
        ))
    }

    pub fn find(&self, ws: &Workspace) -> Option<PathBuf> {
        on_path(self.program).or_else(|| {
            let (_, inside) = self.pip?;
            Some(pip_folder(ws).join(inside)).filter(|path| works(ws, path))
        })
    }

    fn install_with_pip(&self, ws: &Workspace) -> Result<(), String> {
        let Some((package, _)) = self.pip else {
            return Err(String::new());
        };
        allow_install()?;
        let folder = pip_folder(ws);
        let python = pip(ws)?;
        println!("{} is missing: pip installs it into {}", self.program, folder.display());
        show(
            ws.command(python)
                .env("PIP_ROOT_USER_ACTION", "ignore")
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--upgrade",
                ])
                .arg("--target")
                .arg(&folder)
                .arg(package),
            5 * MINUTE,
        )?;
        Ok(())
    }

    fn install_with_apt(&self, ws: &Workspace) -> Result<(), String> {
        install_package(ws, self.apt)
    }
}

/// Installs a Debian package for the whole system. Prints the command and the packages first.
pub fn install_package(ws: &Workspace, package: &str) -> Result<(), String> {
    // Whether the package lists are up to date. dpkg permits one installation at a time.
    static UPDATED: Mutex<bool> = Mutex::new(false);
    let mut updated = UPDATED.lock().unwrap_or_else(PoisonError::into_inner);
    allow_install()?;
    if on_path("apt-get").is_none() {
        return Err("apt-get is not installed".to_owned());
    }
    if !is_root() {
        return Err("apt-get needs root rights".to_owned());
    }
    let apt_get = |options: &[&str]| {
        let mut install = ws.command("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive");
        install.args(["install", "-y", "--no-install-recommends"]).args(options).arg(package);
        capture(&mut install, 5 * MINUTE)
    };
    let install = || {
        let plan = apt_get(&["--simulate"])?;
        println!(
            "As root: apt-get install --no-install-recommends {package}\n    installs for the whole system: {}",
            planned(&plan).join(", ")
        );
        apt_get(&[]).map(|_| ())
    };
    install().or_else(|_| {
        // A fresh machine has no package lists, or old ones.
        if !*updated {
            println!("As root: apt-get update");
            if let Err(reason) = capture(ws.command("apt-get").arg("update"), 3 * MINUTE) {
                println!("{reason}");
            }
            *updated = true;
        }
        install()
    })
}

/// The packages in the output of a simulated installation: `Inst name (version ...)`.
fn planned(simulation: &str) -> Vec<&str> {
    let names = simulation.lines().filter_map(|line| line.strip_prefix("Inst "));
    names.filter_map(|rest| rest.split(' ').next()).collect()
}

/// An error if the user has forbidden installations.
pub fn allow_install() -> Result<(), String> {
    match env::var_os(NO_INSTALL) {
        Some(value) if !value.is_empty() => Err(format!("{NO_INSTALL} is set")),
        _ => Ok(()),
    }
}

/// The first program of that name on PATH or in the sbin folders, which a user's PATH may lack.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let name = format!("{program}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(&name))
        .find(|file| is_program(file))
}

/// The C compiler: $CC, else the first one that is installed.
pub fn c_compiler() -> Result<PathBuf, String> {
    if let Some(cc) = env::var_os("CC") {
        return Ok(cc.into());
    }
    ["cc", "gcc", "clang"].into_iter().find_map(on_path).ok_or_else(|| {
        "no C compiler found. Install one (Debian, Ubuntu: `apt-get install gcc libc6-dev`)"
            .to_owned()
    })
}

fn pip_folder(ws: &Workspace) -> PathBuf {
    ws.tools().join("pip")
}

/// A Python with pip. Debian's Python may lack pip, and a virtual environment may have it.
fn pip(ws: &Workspace) -> Result<PathBuf, String> {
    let has_pip =
        |python: &Path| succeeds(ws.command(python).args(["-m", "pip", "--version"]), MINUTE);
    let python = on_path("python3").ok_or("python3 is not installed")?;
    if has_pip(&python) {
        return Ok(python);
    }
    let venv = ws.tools().join("venv");
    create_dir(&ws.tools())?;
    if !succeeds(ws.command(&python).args(["-m", "venv"]).arg(&venv), 2 * MINUTE) {
        return Err("python3 has neither pip nor venv".to_owned());
    }
    let python = venv.join("bin").join("python3");
    if has_pip(&python) {
        Ok(python)
    } else {
        Err("the virtual environment of python3 has no pip".to_owned())
    }
}

fn works(ws: &Workspace, program: &Path) -> bool {
    is_program(program) && succeeds(ws.command(program).arg("--version"), MINUTE)
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}

pub fn is_root() -> bool {
    capture(std::process::Command::new("id").arg("-u"), MINUTE).is_ok_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_returns_the_packages_of_a_simulated_installation() {
        let simulation = "Reading package lists...\nInst libunwind8 (1.6.2-3 Debian:12 [amd64])\n\
                          Inst strace (6.1-0.1 Debian:12 [amd64])\nConf strace (6.1-0.1)\n";
        assert_eq!(planned(simulation), ["libunwind8", "strace"]);
    }
}
