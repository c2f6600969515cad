//! The servers that C examples connect to.
//!
//! Debian's package of a server also starts the server as a service of the system. So a missing
//! server is unpacked below target/tools and not installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::apt::Apt;
use crate::run::{Workspace, create_dir, write_file};
use crate::tools::{allow_install, on_path};

/// Each program, which has the name of its package, and its folder in the package.
const SERVERS: [(&str, &str); 2] = [("redis-server", "usr/bin"), ("mosquitto", "usr/sbin")];

/// Unpacks the missing servers. A test that lacks a server reports it itself.
pub fn prepare(ws: &Workspace) {
    for (name, folder) in SERVERS {
        if on_path(name).is_none() && !scripts(ws).join(name).is_file() {
            println!(
                "{name} is missing: apt-get downloads it into {}, and installs nothing",
                unpacked(ws, name).display()
            );
            if let Err(reason) = unpack(ws, name, folder) {
                println!("{reason}");
            }
        }
    }
}

/// PATH, with the unpacked servers at its end.
pub fn path(ws: &Workspace) -> Result<OsString, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(env::split_paths(&path).chain([scripts(ws)])).map_err(|e| format!("PATH: {e}"))
}

fn scripts(ws: &Workspace) -> PathBuf {
    ws.tools().join("servers").join("bin")
}

fn unpacked(ws: &Workspace, name: &str) -> PathBuf {
    ws.tools().join("servers").join(name)
}

/// Unpacks a server with the libraries that are not installed, and writes a script that starts it.
fn unpack(ws: &Workspace, name: &str, folder: &str) -> Result<(), String> {
    allow_install()?;
    let root = unpacked(ws, name);
    create_dir(&ws.tools().join("servers"))?;
    Apt::open(ws, None)?.unpack_with_dependencies(ws, &[name.to_owned()], &root)?;
    let program = root.join(folder).join(name);
    if !program.exists() {
        return Err(format!("the package {name} has no {folder}/{name}"));
    }
    create_dir(&scripts(ws))?;
    let script = scripts(ws).join(name);
    write_file(&script, &script_of(&libraries(&root), &program))?;
    make_executable(&script)
}

/// The folders of the libraries: `usr/lib/x86_64-linux-gnu`.
fn libraries(root: &Path) -> Vec<PathBuf> {
    let folders = ["lib", "usr/lib"].map(|lib| fs::read_dir(root.join(lib)));
    let entries = folders.into_iter().flatten().flat_map(|folder| folder.flatten());
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn script_of(libraries: &[PathBuf], program: &Path) -> String {
    let libraries: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
    format!(
        "#!/bin/sh\nLD_LIBRARY_PATH=\"{}\" exec \"{}\" \"$@\"\n",
        libraries.join(":"),
        program.display()
    )
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .map_err(|e| format!("chmod {}: {e}", file.display()))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_of_a_server_sets_the_folders_of_its_libraries() {
        let folders = ["/a b/lib/x", "/a b/usr/lib/x"].map(PathBuf::from);
        let script = script_of(&folders, Path::new("/a b/usr/bin/server"));
        let second =
            "LD_LIBRARY_PATH=\"/a b/lib/x:/a b/usr/lib/x\" exec \"/a b/usr/bin/server\" \"$@\"";
        assert_eq!(script.lines().collect::<Vec<_>>(), ["#!/bin/sh", second]);
    }
}
