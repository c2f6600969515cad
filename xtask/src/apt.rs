//! Downloads Debian packages from any suite and unpacks them without a change to the system.
//!
//! apt gets a directory of its own below target/tools. Its only source is the mirror that this
//! machine uses already, with another suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{MINUTE, Workspace, capture, create_dir, read_file, show, write_file};
use crate::tools::on_path;

pub struct Apt {
    dir: PathBuf,
    suite: String,
}

impl Apt {
    /// Opens a suite. `None` is the suite of this machine.
    pub fn open(ws: &Workspace, suite: Option<&str>) -> Result<Self, String> {
        for program in ["apt-get", "apt-cache", "dpkg", "dpkg-deb"] {
            if on_path(program).is_none() {
                return Err(format!("{program} is not installed: this is not a Debian system"));
            }
        }
        let own = own_suite()?;
        let mirror = mirror_of(ws, &own)?;
        let suite = suite.unwrap_or(&own).to_owned();
        let apt = Self { dir: ws.tools().join("apt").join(&suite), suite };
        create_dir(&apt.dir.join("state").join("lists").join("partial"))?;
        create_dir(&apt.dir.join("cache").join("archives").join("partial"))?;
        let trust = keyring(ws).map_or_else(String::new, |file| format!("[signed-by={file}] "));
        let sources = apt.dir.join("sources.list");
        write_file(&sources, &format!("deb {trust}{mirror} {} main\n", apt.suite))?;
        let settings = [
            ("Dir::Etc::sourcelist", sources.display().to_string()),
            ("Dir::Etc::sourceparts", apt.dir.join("none").display().to_string()),
            ("Dir::State", apt.dir.join("state").display().to_string()),
            ("Dir::Cache", apt.dir.join("cache").display().to_string()),
            // As root, apt downloads as another user, which may have no access to the target folder.
            ("APT::Sandbox::User", "root".to_owned()),
            ("APT::Keep-Downloaded-Packages", "true".to_owned()),
            // apt installs nothing, so it needs neither a lock nor root rights.
            ("Debug::NoLocking", "true".to_owned()),
            ("Acquire::Retries", "2".to_owned()),
        ];
        let lines = settings.map(|(name, value)| format!("{name} \"{value}\";\n"));
        write_file(&apt.configuration(), &lines.concat())?;
        capture(apt.command(ws, "apt-get").arg("update"), 3 * MINUTE)?;
        Ok(apt)
    }

    /// The exact package version for an upstream version, or for its beginning: 1.85 stands for
    /// 1.85.0. The error lists the available versions.
    pub fn version(&self, ws: &Workspace, package: &str, upstream: &str) -> Result<String, String> {
        let listing = capture(self.command(ws, "apt-cache").args(["madison", package]), MINUTE)?;
        let versions: Vec<&str> =
            listing.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim())).collect();
        versions
            .iter()
            .find(|version| {
                version.strip_prefix(upstream).is_some_and(|rest| rest.starts_with(['.', '+', '-']))
            })
            .map(|version| (*version).to_owned())
            .ok_or_else(|| {
                let there =
                    if versions.is_empty() { "none".to_owned() } else { versions.join(", ") };
                format!("{package} {upstream} is not in {}, which has: {there}", self.suite)
            })
    }

    /// Unpacks packages (`name=version`) below `into`, with those of their dependencies that are
    /// not installed.
    pub fn unpack_with_dependencies(
        &self,
        ws: &Workspace,
        packages: &[String],
        into: &Path,
    ) -> Result<(), String> {
        let mut fetch = self.command(ws, "apt-get");
        fetch.args(["install", "-y", "--download-only", "--no-install-recommends"]);
        fetch.arg("--allow-downgrades").args(packages);
        show(&mut fetch, 10 * MINUTE)?;
        self.unpack_from(ws, &self.dir.join("cache").join("archives"), into)
    }

    /// Unpacks one package (`name=version`) below `into`, without its dependencies.
    pub fn unpack(&self, ws: &Workspace, package: &str, into: &Path) -> Result<(), String> {
        let folder = self.dir.join("single");
        remove_dir(&folder)?;
        create_dir(&folder)?;
        show(
            self.command(ws, "apt-get").current_dir(&folder).args(["download", package]),
            10 * MINUTE,
        )?;
        self.unpack_from(ws, &folder, into)
    }

    /// Unpacks every package in a folder, and deletes it there. The folder `into` is created by a
    /// rename at the end, so an interrupted run leaves no incomplete folder of that name.
    fn unpack_from(&self, ws: &Workspace, folder: &Path, into: &Path) -> Result<(), String> {
        let partial = self.dir.join("unpacking");
        remove_dir(&partial)?;
        create_dir(&partial)?;
        let files = fs::read_dir(folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
        for file in files.flatten().map(|entry| entry.path()) {
            if file.extension().is_some_and(|extension| extension == "deb") {
                capture(ws.command("dpkg-deb").arg("-x").arg(&file).arg(&partial), 5 * MINUTE)?;
                fs::remove_file(&file).map_err(|e| format!("remove {}: {e}", file.display()))?;
            }
        }
        remove_dir(into)?;
        fs::rename(&partial, into).map_err(|e| format!("rename {}: {e}", partial.display()))
    }

    fn configuration(&self) -> PathBuf {
        self.dir.join("apt.conf")
    }

    fn command(&self, ws: &Workspace, program: &str) -> Command {
        let mut command = ws.command(program);
        command.arg("-c").arg(self.configuration());
        command
    }
}

fn remove_dir(path: &Path) -> Result<(), String> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(|e| format!("remove {}: {e}", path.display()))?;
    }
    Ok(())
}

/// The code name of the system's release, such as `bookworm`.
pub fn own_suite() -> Result<String, String> {
    let release = read_file(Path::new("/etc/os-release"))?;
    release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| "/etc/os-release has no VERSION_CODENAME".to_owned())
}

/// The mirror from which this machine gets its packages.
pub fn mirror(ws: &Workspace) -> Result<String, String> {
    mirror_of(ws, &own_suite()?)
}

/// The mirror from which this machine gets the given suite. The list of files that an update would
/// download covers every format of apt's sources, and needs no network.
fn mirror_of(ws: &Workspace, suite: &str) -> Result<String, String> {
    let uris = capture(ws.command("apt-get").args(["--print-uris", "update"]), MINUTE)?;
    parse_mirror(&uris, suite)
        .ok_or_else(|| format!("apt has no source for {suite} on this machine"))
}

fn parse_mirror(uris: &str, suite: &str) -> Option<String> {
    let end = format!("/dists/{suite}/InRelease");
    uris.lines().find_map(|line| {
        let uri = line.strip_prefix('\'')?.split('\'').next()?;
        uri.strip_suffix(&end).map(str::to_owned)
    })
}

/// The installed keys of Debian's archive, for systems on which apt does not trust them by default.
fn keyring(ws: &Workspace) -> Option<String> {
    let files = capture(ws.command("dpkg").args(["-L", "debian-archive-keyring"]), MINUTE).ok()?;
    files
        .lines()
        .find(|file| {
            let name = file.rsplit('/').next().unwrap_or("");
            name.starts_with("debian-archive-keyring.")
                && (name.ends_with("gpg") || name.ends_with("pgp"))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_mirror_returns_the_mirror_of_the_exact_suite() {
        let uris = "'http://a.test/debian-security/dists/wood-security/InRelease' x 0\n\
                    'http://b.test/debian/dists/wood/InRelease' y 0\n";
        assert_eq!(parse_mirror(uris, "wood").as_deref(), Some("http://b.test/debian"));
        assert_eq!(parse_mirror(uris, "tree"), None);
    }
}
