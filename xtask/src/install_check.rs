//! Checks that C projects can use the installed library through CMake and through pkg-config.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cmake::Build;
use crate::run::{MINUTE, Workspace, capture, create_dir, show, write_file};
use crate::steps::Stop;
use crate::tools;

/// A program that prints the version of the library it is linked with.
const USER: &str = "\
#include <keepsock.h>
#include <stdio.h>

int main(void)
{
    puts(keepsock_version());
    return 0;
}
";

fn prefix(ws: &Workspace) -> PathBuf {
    ws.target.join("prefix")
}

/// Installs the library into an empty prefix, and builds and tests the C examples as a separate project.
pub fn cmake_user(ws: &Workspace, build: &Build) -> Result<String, Stop> {
    let prefix = prefix(ws);
    if prefix.exists() {
        fs::remove_dir_all(&prefix).map_err(|e| format!("remove {}: {e}", prefix.display()))?;
    }
    build.install(ws, &prefix)?;
    man_pages(ws, &prefix)?;
    let settings =
        [format!("CMAKE_PREFIX_PATH={}", prefix.display()), "CMAKE_BUILD_TYPE=Release".to_owned()];
    let source = ws.root.join("c_examples");
    Build::make(ws, &source, ws.target.join("cmake-installed"), &settings, &[])?.test(ws, ".")
}

/// Checks that each man page is installed, and that man(1) finds the page of a function.
fn man_pages(ws: &Workspace, prefix: &Path) -> Result<(), Stop> {
    let installed = prefix.join("share/man");
    for section in ["man3", "man7"] {
        let folder = ws.root.join("docs/man").join(section);
        let pages = fs::read_dir(&folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
        for page in pages.flatten() {
            let path = installed.join(section).join(page.file_name());
            if !path.is_file() {
                return Err(Stop::Fail(format!("{} is not installed", path.display())));
            }
        }
    }
    if let Some(man) = tools::on_path("man") {
        let mut find = ws.command(man);
        find.arg("-M").arg(&installed).args(["-w", "keepsock_client_connect"]);
        capture(&mut find, MINUTE)?;
    }
    Ok(())
}

/// Compiles and runs a program with the flags of pkg-config: with the shared library, with the static
/// library, and with static system libraries as well.
pub fn pkg_config_user(ws: &Workspace) -> Result<String, Stop> {
    let pkg_config = tools::PKG_CONFIG.need(ws)?;
    let description =
        find_file(&prefix(ws), "keepsock.pc").ok_or("keepsock.pc is not installed".to_owned())?;
    let query = |words: &[&str]| {
        let mut command = ws.command(&pkg_config);
        command.args(words).arg("keepsock");
        command.env("PKG_CONFIG_PATH", description.parent().unwrap_or(Path::new("")));
        capture(&mut command, MINUTE).map(|answer| answer.trim().to_owned())
    };
    let version = query(&["--modversion"])?;
    let libdir = query(&["--variable=libdir"])?;
    let shared = query(&["--cflags", "--libs"])?;
    let static_words = query(&["--static", "--cflags", "--libs"])?;
    // pkg-config has no flag that selects the static library, so the path of the archive replaces it.
    let archive = Path::new(&libdir).join("libkeepsock.a").display().to_string();

    let folder = ws.target.join("pkg-config-user");
    create_dir(&folder)?;
    let source = folder.join("user.c");
    write_file(&source, USER)?;
    let static_words = static_words.replace("-lkeepsock", &archive);
    let all_static = format!("-static {static_words}");
    for (kind, words) in [("shared", shared), ("static", static_words), ("all-static", all_static)]
    {
        let program = folder.join(kind);
        let mut compile = ws.command(tools::c_compiler()?);
        compile.arg(&source).arg("-o").arg(&program).args(words.split_whitespace());
        show(&mut compile, 2 * MINUTE)?;
        let mut user = ws.command(&program);
        if kind == "shared" {
            user.env("LD_LIBRARY_PATH", &libdir);
        }
        let said = capture(&mut user, MINUTE)?;
        if said.trim() != version {
            return Err(Stop::Fail(format!(
                "{kind}: the version of the library is {}, that of keepsock.pc is {version}",
                said.trim()
            )));
        }
    }
    Ok(format!("version {version}, shared, static and all static"))
}

fn find_file(folder: &Path, name: &str) -> Option<PathBuf> {
    for path in fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if let Some(found) = find_file(&path, name) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Some(path);
        }
    }
    None
}
