//! Checks the shared library: its SONAME, the libraries it needs, the symbols it exports, and that it runs a
//! program that was compiled with an earlier version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{MINUTE, Workspace, capture, read_file, show};
use crate::steps::Stop;
use crate::tools;

/// The libraries that it may need at run time. The loader is part of libc.
const MAY_NEED: [&str; 3] = ["libc.so", "libgcc_s.so", "ld-linux"];

/// A program that was compiled with an earlier version.
const OLD_PROGRAM: &str = "tests/abi/compatible/program-0.2-x86_64";

/// The intended maximum size of the stripped library. It is printed, not enforced.
const SIZE_BUDGET_KIB: u64 = 450;

/// Builds the library (release, with the C symbols) and returns its folder.
pub fn build(ws: &Workspace) -> Result<PathBuf, String> {
    let mut build = ws.cargo(&["build", "--release", "--lib", "--features", "capi"]);
    show(build.env("CARGO_TARGET_DIR", &ws.target), 15 * MINUTE)?;
    Ok(ws.target.join("release"))
}

/// Adds the compiler flags that a C program needs for the library in that folder.
pub fn link(ws: &Workspace, folder: &Path, compile: &mut Command) -> Result<(), String> {
    link_soname(ws, folder)?;
    compile.arg(format!("-I{}", ws.root.join("include").display()));
    compile.arg(format!("-L{}", folder.display())).arg("-lkeepsock");
    compile.arg(format!("-Wl,-rpath,{}", folder.display()));
    Ok(())
}

/// cargo names the file libkeepsock.so; the loader searches for the SONAME.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, clippy::unnecessary_wraps))]
fn link_soname(ws: &Workspace, folder: &Path) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    {
        let name = folder.join(soname(ws)?);
        let _ = std::fs::remove_file(&name);
        std::os::unix::fs::symlink("libkeepsock.so", &name)
            .map_err(|e| format!("link {}: {e}", name.display()))?;
    }
    Ok(())
}

pub fn check(ws: &Workspace) -> Result<String, Stop> {
    if !cfg!(target_os = "linux") {
        return Err(Stop::Skip("this check reads ELF files, which only Linux has".to_owned()));
    }
    let folder = build(ws)?;
    let library = folder.join("libkeepsock.so");
    let readelf = tools::READELF.need(ws)?;
    let nm = tools::NM.need(ws)?;

    let dynamic =
        capture(ws.command(readelf).args(["-d", "-W"]).arg(&library).env("LC_ALL", "C"), MINUTE)?;
    let symbols = capture(ws.command(nm).args(["-D", "--defined-only"]).arg(&library), MINUTE)?;
    let header = headers(ws)?;

    let needed = entries(&dynamic, "(NEEDED)");
    let exported = exported(&symbols);
    let mut wrong: Vec<String> =
        wrong_soname(&entries(&dynamic, "(SONAME)"), &soname(ws)?).into_iter().collect();
    wrong.extend(wrong_needs(&needed));
    wrong.extend(wrong_exports(&exported, &declared(&header)));
    let size = stripped_size(ws, &library)?;
    for name in &needed {
        println!("needs   {name}");
    }
    let size = format!("stripped {} KiB (F17: at most {SIZE_BUDGET_KIB})", size / 1024);
    println!("exports {} functions, {size}", exported.len());
    wrong.extend(old_program(ws, &folder).err());
    if !wrong.is_empty() {
        return Err(Stop::Fail(wrong.join("; ")));
    }
    Ok(format!("{} functions; {size}; needs {}", exported.len(), needed.join(", ")))
}

/// Runs a program that was compiled with the headers of version 0.2 (A3).
fn old_program(ws: &Workspace, folder: &Path) -> Result<(), String> {
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        println!("{OLD_PROGRAM} is for x86_64 with glibc");
        return Ok(());
    }
    link_soname(ws, folder)?;
    show(ws.command(ws.root.join(OLD_PROGRAM)).env("LD_LIBRARY_PATH", folder), MINUTE).map(|_| ())
}

/// The text of all headers.
fn headers(ws: &Workspace) -> Result<String, String> {
    let include = ws.root.join("include");
    let mut text = read_file(&include.join("keepsock.h"))?;
    let topics = include.join("keepsock");
    let show = |e| format!("read {}: {e}", topics.display());
    for entry in std::fs::read_dir(&topics).map_err(show)? {
        text += &read_file(&entry.map_err(show)?.path())?;
    }
    Ok(text)
}

fn soname(ws: &Workspace) -> Result<String, String> {
    ws.version().map(|version| soname_of(&version))
}

/// The SONAME. A version that breaks the ABI has another major version, also before 1.0.
fn soname_of(version: &str) -> String {
    format!("libkeepsock.so.{}", version.split('.').next().unwrap_or(version))
}

/// The text in brackets of the entries of one kind in the output of `readelf -d`.
fn entries(dynamic: &str, kind: &str) -> Vec<String> {
    dynamic
        .lines()
        .filter(|line| line.contains(kind))
        .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
        .collect()
}

fn wrong_soname(found: &[String], expected: &str) -> Option<String> {
    (found != [expected]).then(|| format!("SONAME is {found:?}, expected {expected}"))
}

fn wrong_needs(needed: &[String]) -> Option<String> {
    let other: Vec<&str> = needed
        .iter()
        .map(String::as_str)
        .filter(|name| !MAY_NEED.iter().any(|may| name.starts_with(may)))
        .collect();
    // Every library needs libc. If it is missing, the output was parsed wrongly, and the check
    // would always pass.
    if !needed.iter().any(|name| name.starts_with("libc.so")) {
        return Some(format!("libc is not among the needed libraries: {needed:?}"));
    }
    (!other.is_empty())
        .then(|| format!("the library needs {}, which not every machine has", other.join(", ")))
}

fn wrong_exports(exported: &BTreeSet<String>, declared: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut report = |names: Vec<&String>, what: &str| {
        if !names.is_empty() {
            wrong.push(format!("{what}: {names:?}"));
        }
    };
    report(
        exported.iter().filter(|name| !name.starts_with("keepsock_")).collect(),
        "exported without the prefix keepsock_",
    );
    report(exported.difference(declared).collect(), "exported, but not declared in include/");
    report(declared.difference(exported).collect(), "declared in include/, but not exported");
    if declared.is_empty() {
        wrong.push("the headers in include/ declare nothing".to_owned());
    }
    wrong
}

/// The names in the output of `nm`: `0000000000012340 T keepsock_version`.
fn exported(symbols: &str) -> BTreeSet<String> {
    symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

/// The functions that a header declares: `keepsock_*` followed by `(`, outside comments.
fn declared(header: &str) -> BTreeSet<String> {
    let code = without_comments(header);
    let mut found = BTreeSet::new();
    let mut rest = code.as_str();
    while let Some(start) = rest.find("keepsock_") {
        // `my_keepsock_x` is another name.
        let whole = !rest[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        rest = &rest[start..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let name = &rest[..end];
        rest = &rest[end..];
        if whole && rest.trim_start().starts_with('(') {
            found.insert(name.to_owned());
        }
    }
    found
}

fn without_comments(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some(start) = rest.find("/*") {
        code.push_str(&rest[..start]);
        code.push(' ');
        rest = rest[start..].find("*/").map_or("", |end| &rest[start + end + 2..]);
    }
    code.push_str(rest);
    code.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn stripped_size(ws: &Workspace, library: &Path) -> Result<u64, Stop> {
    let stripped = ws.target.join("libkeepsock.stripped.so");
    let strip = tools::STRIP.need(ws)?;
    capture(ws.command(strip).arg("-o").arg(&stripped).arg(library), MINUTE)?;
    let meta = stripped.metadata().map_err(|e| format!("{}: {e}", stripped.display()))?;
    Ok(meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn declared_returns_functions_only() {
        let header = "/* keepsock_not_this(x) */ int keepsock_a(int keepsock_b);\n\
                      // keepsock_nor_this()\n\
                      typedef void (*keepsock_handler)(struct keepsock_c *);\n\
                      const char *\nkeepsock_d (void);\nint my_keepsock_e(void);\n";
        assert_eq!(declared(header), set(&["keepsock_a", "keepsock_d"]));
    }

    #[test]
    fn wrong_exports_reports_differences_in_both_directions() {
        let good = set(&["keepsock_a", "keepsock_b"]);
        assert!(wrong_exports(&good, &good).is_empty());
        assert_eq!(wrong_exports(&set(&["keepsock_a"]), &good).len(), 1);
        assert_eq!(wrong_exports(&good, &set(&["keepsock_a"])).len(), 1);
        assert_eq!(wrong_exports(&set(&["rust_eh"]), &set(&[])).len(), 3);
    }

    #[test]
    fn soname_contains_the_version_that_may_break_the_abi() {
        assert_eq!(soname_of("0.1.7"), "libkeepsock.so.0");
        assert_eq!(soname_of("1.2.3"), "libkeepsock.so.1");
        assert!(wrong_soname(&["libkeepsock.so.0".into()], "libkeepsock.so.0").is_none());
        assert!(wrong_soname(&["libkeepsock.so.0".into()], "libkeepsock.so.1").is_some());
        assert!(wrong_soname(&[], "libkeepsock.so.0").is_some());
    }

    #[test]
    fn wrong_needs_accepts_libc_and_libgcc_only() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(
            wrong_needs(&names(&["libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"])).is_none()
        );
        assert!(wrong_needs(&names(&["libc.so.6", "libssl.so.3"])).is_some());
        assert!(wrong_needs(&[]).is_some());
    }
}
