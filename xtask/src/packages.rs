//! `cargo xtask packages`: the Debian packages. They are built from the sources, checked by lintian, and
//! installed in an empty Debian, in which a C project then builds and runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::apt;
use crate::run::{MINUTE, Workspace, capture, copy_all, copy_one, create_dir, read_file, show};
use crate::steps::Stop;
use crate::tools::{self, allow_install, is_root};

/// The compilers and build systems that the empty Debian gets.
const PROJECT_TOOLS: [&str; 7] =
    ["gcc", "g++", "clang", "libc6-dev", "pkg-config", "cmake", "meson"];

const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The command. Returns whether it passed.
pub fn packages(ws: &Workspace) -> Result<bool, String> {
    println!("{}", check(ws)?);
    Ok(true)
}

/// The step of the full run.
pub fn check(ws: &Workspace) -> Result<String, Stop> {
    if !is_root() {
        return Err(Stop::Skip("an empty Debian (chroot) needs root".to_owned()));
    }
    for tool in [&tools::CMAKE, &tools::DEBHELPER, &tools::DPKG_BUILDPACKAGE, &tools::LINTIAN] {
        tool.need(ws)?;
    }
    for tool in [&tools::DEBOOTSTRAP, &tools::UNSHARE] {
        tool.need(ws)?;
    }
    let folder = ws.target.join("packages");
    let packages = build(ws, &folder)?;
    let mut lintian = ws.command(tools::LINTIAN.program());
    lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(&packages.changes);
    show(&mut lintian, 5 * MINUTE)?;

    let root = Root::make(ws)?;
    let programs = root.use_packages(ws, &packages)?;
    let names: Vec<_> = packages.files.iter().filter_map(|file| file.file_name()).collect();
    Ok(format!("{} packages, lintian clean; {programs}; upgraded and removed", names.len()))
}

struct Packages {
    /// The list of the files, which lintian reads.
    changes: PathBuf,
    /// libkeepsock0, libkeepsock-dev and libkeepsock-doc.
    files: Vec<PathBuf>,
    version: String,
}

/// Builds the source package and the binary packages.
fn build(ws: &Workspace, folder: &Path) -> Result<Packages, Stop> {
    let changelog = read_file(&ws.root.join("packaging/debian/changelog"))?;
    // keepsock (0.2.0-1) unstable; urgency=medium
    let version =
        changelog.split(['(', ')']).nth(1).ok_or("the changelog has no version".to_owned())?;
    let upstream = version.split('-').next().unwrap_or(version);
    let library = ws.version()?;
    if upstream != library {
        let names = "packaging/debian/changelog begins with version";
        return Err(Stop::Fail(format!(
            "{names} {upstream}, and the library has version {library}"
        )));
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| format!("remove {}: {e}", folder.display()))?;
    }
    create_dir(folder)?;
    let sources = folder.join(format!("keepsock-{upstream}"));
    export(ws, &sources)?;
    let archive = folder.join(format!("keepsock_{upstream}.orig.tar.gz"));
    let mut tar = ws.command("tar");
    capture(
        tar.arg("czf").arg(archive).arg("-C").arg(folder).arg(format!("keepsock-{upstream}")),
        MINUTE,
    )?;
    copy_all(&ws.root.join("packaging/debian"), &sources.join("debian"))?;

    // debhelper sets another HOME. The compiler is newer than that of the oldest Debian that builds.
    let mut build = Command::new(tools::DPKG_BUILDPACKAGE.program());
    build.current_dir(&sources).args(["--no-sign", "--no-check-builddeps"]);
    for (variable, default) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        build.env(variable, std::env::var_os(variable).unwrap_or(home.join(default).into()));
    }
    // The settings of this build of xtask are not those of the package.
    build.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    show(&mut build, BUILD_LIMIT)?;

    let entries = fs::read_dir(folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let is = |path: &Path, kind: &str| path.extension().is_some_and(|extension| extension == kind);
    let changes = found.iter().find(|path| is(path, "changes"));
    let changes = changes.ok_or("no list of packages".to_owned())?.clone();
    let is_package =
        |path: &&PathBuf| is(path, "deb") && !path.to_string_lossy().contains("dbgsym");
    let files = found.iter().filter(is_package).cloned().collect();
    Ok(Packages { changes, files, version: version.to_owned() })
}

/// Copies the sources, without the history and the build folders. The machine may have no git.
fn export(ws: &Workspace, to: &Path) -> Result<(), String> {
    create_dir(to)?;
    let show = |e| format!("read {}: {e}", ws.root.display());
    for entry in fs::read_dir(&ws.root).map_err(show)? {
        let name = entry.map_err(show)?.file_name();
        let (from, to) = (ws.root.join(&name), to.join(&name));
        if name == ".git" || name == "target" {
            continue;
        }
        if from.is_dir() { copy_all(&from, &to)? } else { copy_one(&from, &to)? }
    }
    Ok(())
}

/// An empty Debian with compilers and build systems.
struct Root {
    folder: PathBuf,
}

impl Root {
    /// Copies the system that an earlier run has installed, or installs it.
    fn make(ws: &Workspace) -> Result<Self, Stop> {
        let installed = ws.tools().join("debian.tar");
        let root = Self { folder: ws.target.join("packages/root") };
        create_dir(&root.folder)?;
        if installed.exists() {
            let mut unpack = ws.command("tar");
            capture(unpack.arg("xf").arg(installed).arg("-C").arg(&root.folder), 5 * MINUTE)?;
            return Ok(root);
        }
        root.install(ws).map_err(Stop::Skip)?;
        create_dir(&ws.tools())?;
        let incomplete = installed.with_extension("new");
        let mut pack = ws.command("tar");
        pack.arg("cf")
            .arg(&incomplete)
            .arg("--one-file-system")
            .arg("-C")
            .arg(&root.folder)
            .arg(".");
        capture(&mut pack, 5 * MINUTE)?;
        fs::rename(&incomplete, &installed).map_err(|e| format!("{}: {e}", installed.display()))?;
        Ok(root)
    }

    fn install(&self, ws: &Workspace) -> Result<(), String> {
        allow_install()?;
        let suite = apt::own_suite()?;
        println!("installing Debian {suite} into {}", self.folder.display());
        let mut bootstrap = ws.command("unshare");
        bootstrap.args(["--mount", "debootstrap", "--variant=minbase"]).arg(suite);
        capture(bootstrap.arg(&self.folder).arg(apt::mirror(ws)?), 10 * MINUTE)?;
        self.apt_get(
            ws,
            &[&["install", "-y", "--no-install-recommends"], &PROJECT_TOOLS[..]].concat(),
        )?;
        self.apt_get(ws, &["clean"]).map(|_| ())
    }

    fn apt_get(&self, ws: &Workspace, words: &[&str]) -> Result<String, String> {
        let mut command = self.command(ws, "apt-get");
        capture(command.args(words), 15 * MINUTE)
    }

    fn command(&self, ws: &Workspace, program: &str) -> Command {
        let mut command = ws.command("chroot");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command.arg(&self.folder).arg(program);
        command
    }

    /// Installs the packages, builds the project, upgrades the library under its programs, and removes
    /// everything. Returns the number of the programs.
    fn use_packages(&self, ws: &Workspace, packages: &Packages) -> Result<String, Stop> {
        let files = self.folder.join("packages");
        create_dir(&files)?;
        let mut names = Vec::new();
        for file in &packages.files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            fs::copy(file, files.join(&name)).map_err(|e| format!("copy {name}: {e}"))?;
            names.push(format!("/packages/{name}"));
        }
        copy_all(&ws.root.join("packaging/project"), &self.folder.join("project"))?;
        create_dir(&self.folder.join("build"))?;
        let before = self.files(ws)?;

        self.install_files(ws, &names)?;
        let said = show(self.command(ws, "sh").args(["/project/build.sh", "/build"]), BUILD_LIMIT)?;
        let programs = said.lines().last().unwrap_or_default().to_owned();

        let newer: Vec<_> = names
            .iter()
            .map(|name| self.newer(ws, name, &packages.version))
            .collect::<Result<_, _>>()?;
        self.install_files(ws, &newer)?;
        show(&mut self.command(ws, "/build/gcc-c99"), MINUTE)?;

        let all = ["libkeepsock0", "libkeepsock-dev", "libkeepsock-doc"];
        self.apt_get(ws, &[&["purge", "-y"], &all[..]].concat())?;
        let after = self.files(ws)?;
        let left: Vec<_> =
            after.lines().filter(|file| !before.lines().any(|old| old == *file)).collect();
        if !left.is_empty() {
            return Err(Stop::Fail(format!("the removed packages left {}", left.join(", "))));
        }
        Ok(programs)
    }

    fn install_files(&self, ws: &Workspace, files: &[String]) -> Result<(), String> {
        let files = files.iter().map(String::as_str);
        let words: Vec<_> =
            ["install", "-y", "--no-install-recommends"].into_iter().chain(files).collect();
        self.apt_get(ws, &words).map(|_| ())
    }

    /// A package of the next revision with the same files.
    fn newer(&self, ws: &Workspace, package: &str, version: &str) -> Result<String, String> {
        let upstream = version.split('-').next().unwrap_or(version);
        let newer = package.replace(version, &format!("{upstream}-9"));
        let script = format!(
            "rm -rf /unpacked && dpkg-deb --raw-extract {package} /unpacked && \
             sed -i 's/{version}/{upstream}-9/' /unpacked/DEBIAN/control && \
             dpkg-deb --build /unpacked {newer}"
        );
        capture(self.command(ws, "sh").args(["-c", &script]), 2 * MINUTE)?;
        Ok(newer)
    }

    /// The files of the system that belong to keepsock.
    fn files(&self, ws: &Workspace) -> Result<String, String> {
        capture(
            self.command(ws, "find").args(["/usr", "/etc", "/var", "-name", "*keepsock*"]),
            MINUTE,
        )
    }
}
