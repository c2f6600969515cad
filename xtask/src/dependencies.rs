//! Checks the license and the source of each dependency, and the table of dependencies in SECURITY.md.
//!
//! This check stays because it compares the table and needs no other tool. cargo-deny 0.20 with the same
//! licenses agrees (`check licenses bans sources`), and adds one warning: `windows-sys` has two versions.
//! Its advisories need a database from the network, which the gate does not have: a release runs
//! `cargo deny check advisories`.

use std::collections::BTreeSet;

use crate::run::{MINUTE, Workspace, capture, read_file};
use crate::steps::Stop;

/// Licenses that a dependency may have.
const PERMITTED: [&str; 6] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    // Tables of unicode-ident.
    "Unicode-3.0",
    // libFuzzer, in a workspace of its own.
    "NCSA",
    // cbindgen, which generates the headers. The library does not contain it.
    "MPL-2.0",
];

/// The crates of this repository.
const OWN: [&str; 3] = ["keepsock", "keepsock-fuzz", "xtask"];

/// The dependencies of the library itself, on every platform.
const LIBRARY: [&str; 4] = ["--package", "keepsock", "--edges", "normal,build"];
const DEVELOPMENT: [&str; 3] = ["--workspace", "--edges", "normal,build,dev"];
const FUZZ: [&str; 4] = ["--manifest-path", crate::fuzz::MANIFEST, "--edges", "normal,build,dev"];

/// A package of `cargo tree`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    /// Empty for the default registry.
    source: String,
    license: String,
}

pub fn check(ws: &Workspace) -> Result<String, Stop> {
    let library = packages(ws, &LIBRARY)?;
    let mut all = packages(ws, &DEVELOPMENT)?;
    all.extend(packages(ws, &FUZZ)?);
    let mut problems: Vec<String> = all.iter().filter_map(problem).collect();
    problems.extend(differences(&library, &read_file(&ws.root.join("SECURITY.md"))?));
    if problems.is_empty() {
        Ok(format!(
            "{} crates of the library, {} with those of the tests",
            library.len(),
            all.len()
        ))
    } else {
        Err(Stop::Fail(problems.join("\n")))
    }
}

fn packages(ws: &Workspace, which: &[&str]) -> Result<BTreeSet<Package>, String> {
    let mut tree = ws.cargo(&["tree", "--locked", "--target", "all", "--prefix", "none"]);
    // `cargo tree` knows no package that only a feature needs, unless the feature is on.
    tree.args(["--all-features", "--format", "{p}|{l}"]).args(which);
    Ok(parse(&capture(&mut tree, MINUTE)?))
}

/// Parses lines such as `slab v0.4.12|MIT` and `x v1.0.0 (https://host/x)|MIT (*)`.
fn parse(output: &str) -> BTreeSet<Package> {
    let package = |line: &str| {
        let (package, license) = line.split_once('|')?;
        let (name, rest) = package.split_once(" v")?;
        let rest = rest.replace(" (proc-macro)", "");
        let (version, source) = rest.split_once(' ').unwrap_or((&rest, ""));
        Some(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            source: source.to_owned(),
            license: license.trim_end_matches(" (*)").to_owned(),
        })
    };
    output.lines().filter_map(package).filter(|p| !OWN.contains(&p.name.as_str())).collect()
}

fn problem(package: &Package) -> Option<String> {
    let Package { name, version, source, license } = package;
    if !source.is_empty() {
        return Some(format!("{name} {version}: from {source}, not from the default registry"));
    }
    (!is_permitted(license)).then(|| {
        format!("{name} {version}: the license {license:?} is not in xtask/src/dependencies.rs")
    })
}

/// Whether the conditions of a license expression are met: one side of each `OR`, and both sides of
/// each `AND`. `/` is the old form of `OR`.
fn is_permitted(expression: &str) -> bool {
    let all = expression.replace('/', " OR ").replace(['(', ')'], "");
    all.split(" AND ").all(|part| part.split(" OR ").any(|one| PERMITTED.contains(&one.trim())))
}

/// Compares the crates of the library with the rows ``| `name` | license | ...`` of SECURITY.md.
fn differences(library: &BTreeSet<Package>, page: &str) -> Vec<String> {
    let section = page.split("\n## Dependencies").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let listed: BTreeSet<(&str, &str)> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0)))
        .collect();
    let used: BTreeSet<_> = library.iter().map(|p| (p.name.as_str(), p.license.as_str())).collect();
    let say =
        |(name, license): &(&str, &str), what| format!("SECURITY.md: {name}, {license}: {what}");
    let missing =
        used.difference(&listed).map(|row| say(row, "add it to the table, with the reason"));
    let extra = listed.difference(&used).map(|row| say(row, "the library does not use it"));
    missing.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_reports_licenses_sources_and_differences() {
        let output = "keepsock v0.1.0 (/src)|MIT OR Apache-2.0\n\
                      a v1.0.0|MIT/Apache-2.0\na v1.0.0|MIT/Apache-2.0 (*)\n\
                      b v2.0.0 (proc-macro)|(MIT OR GPL-3.0) AND Unicode-3.0\n\
                      c v0.1.0|GPL-3.0\nd v0.1.0 (https://localhost/d#1234)|MIT\ne v0.1.0|\n\
                      f v0.1.0|MIT AND GPL-3.0";
        let found = parse(output);
        let problems: Vec<_> = found.iter().filter_map(problem).collect();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].starts_with("c 0.1.0: the license \"GPL-3.0\""), "{problems:?}");
        assert!(problems[1].starts_with("d 0.1.0: from (https://localhost/d"), "{problems:?}");
        assert!(problems[2].starts_with("e 0.1.0") && problems[3].starts_with("f 0.1.0"));

        let library = parse("a v1.0.0|MIT\nb v1.0.0|MIT");
        let page =
            "# S\n| `no` | row |\n\n## Dependencies\n| `a` | MIT | why |\n| `z` | MIT | y |\n";
        let wrong = differences(&library, page);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(
            wrong[0].contains(": b, MIT: add it") && wrong[1].contains(": z, MIT: the library")
        );
    }
}
