//! `cargo xtask coverage`: the lines and regions of `src/` that the tests of both APIs run, and the
//! functions with other lines, which `tests/uncovered.txt` must explain.
//!
//! The compiler instruments the programs, and llvm-profdata and llvm-cov of the toolchain evaluate them.
//! A region is a part of a function without a branch: the error path of `?` is a region of its own.
//!
//! There are two runs: the tests, and the fault matrix. A line that only the second run reaches is an
//! error path that needs a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::netns;
use crate::run::{MINUTE, Workspace, capture, create_dir, read_file, show, write_file};
use crate::suite::count_rust_tests;
use crate::tools::allow_install;

/// The list of the functions that have lines which no test reaches, with the reasons.
const LIST: &str = "tests/uncovered.txt";

/// Both APIs: unit tests, behavior, the C ABI, and network namespaces.
const TESTS: [&str; 7] = ["--lib", "--test", "it", "--test", "abi", "--test", "netns"];
const FAULTS: [&str; 2] = ["--test", "faults"];

/// The counters are a mapped file, so that a process that is killed or calls _exit(2) has written them.
/// Processes of the same program share a file.
const FLAGS: &str = "-Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation";
const PROFILE: &str = "%m%c.profraw";

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Code that does not belong to the library, each with the reason.
const LEFT_OUT: [(&str, &str); 4] = [
    ("src/fuzzing/", "the fuzz targets"),
    ("src/manual.rs", "checks of pages"),
    ("/tests.rs", "unit tests"),
    ("/model.rs", "models"),
];

/// The command. Returns whether the list explains every function.
pub fn coverage(ws: &Workspace) -> Result<bool, String> {
    let tools = llvm_tools(ws)?;
    let folder = ws.target.join("coverage");
    netns::prepare(ws);
    let programs = build(ws, &folder)?;
    let mut profiles = Vec::new();
    let mut maps = Vec::new();
    for (name, tests, options) in [
        ("tests", &TESTS[..], &[][..]),
        ("faults", &FAULTS[..], &["--include-ignored", "--nocapture"][..]),
    ] {
        let place = folder.join(name);
        // The profiles of an earlier build do not match.
        let _ = fs::remove_dir_all(&place);
        create_dir(&place)?;
        let mut test = cargo_test(ws, &folder, tests);
        test.env("LLVM_PROFILE_FILE", place.join(PROFILE)).arg("--no-fail-fast");
        let output = show(test.arg("--").args(options), RUN_LIMIT)?;
        println!("{name}: {}", count_rust_tests(&output).map_err(String::from)?);
        profiles.push(place);
        maps.push(segments(ws, &tools, &folder, &profiles, &programs)?);
    }
    let mut files = Vec::new();
    for (path, with_faults) in &maps[1] {
        let source = read_file(&ws.root.join(path))?;
        files.push(File::new(path, &source, maps[0].get(path), with_faults));
    }
    println!("\n{}", table(&files));
    let report = folder.join("uncovered.txt");
    write_file(&report, &files.iter().map(File::details).collect::<String>())?;
    println!("lines and regions that no test reaches: {}", report.display());
    let problems = compare(&read_file(&ws.root.join(LIST))?, &files);
    println!("{}", problems.join("\n"));
    Ok(problems.is_empty())
}

fn cargo_test(ws: &Workspace, folder: &Path, tests: &[&str]) -> std::process::Command {
    let mut test = ws.cargo(&["test", "--all-features"]);
    test.args(tests).env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", folder);
    test
}

/// Compiles the test programs and returns their paths.
fn build(ws: &Workspace, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut test = cargo_test(ws, folder, &[&TESTS[..], &FAULTS].concat());
    // Build scripts are instrumented as well: their counters are not needed.
    test.arg("--no-run").env("LLVM_PROFILE_FILE", folder.join("build.profraw"));
    let output = show(&mut test, BUILD_LIMIT)?;
    let programs = output.lines().filter_map(|line| {
        let (_, path) = line.trim().strip_prefix("Executable ")?.rsplit_once(" (")?;
        Some(ws.root.join(path.strip_suffix(')')?))
    });
    let programs: Vec<PathBuf> = programs.collect();
    if programs.is_empty() { Err("cargo named no program".to_owned()) } else { Ok(programs) }
}

/// The folder with llvm-profdata and llvm-cov of the toolchain. rustup installs them.
fn llvm_tools(ws: &Workspace) -> Result<PathBuf, String> {
    let library = capture(ws.command("rustc").args(["--print", "target-libdir"]), MINUTE)?;
    let folder = Path::new(library.trim()).with_file_name("bin");
    let is_there = || folder.join("llvm-cov").is_file() && folder.join("llvm-profdata").is_file();
    if !is_there() {
        allow_install()?;
        capture(ws.command("rustup").args(["component", "add", "llvm-tools"]), 5 * MINUTE)?;
    }
    if is_there() { Ok(folder) } else { Err(format!("no llvm-cov in {}", folder.display())) }
}

/// A change of the count in a source file: line, column, the count if the code has one, and whether a
/// region begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    line: usize,
    column: usize,
    count: Option<u64>,
    begins: bool,
}

type Segments = BTreeMap<String, Vec<Segment>>;

/// The segments of each file of `src/`, from the profiles in some folders.
fn segments(
    ws: &Workspace,
    tools: &Path,
    folder: &Path,
    profiles: &[PathBuf],
    programs: &[PathBuf],
) -> Result<Segments, String> {
    let merged = folder.join("merged.profdata");
    let mut merge = ws.command(tools.join("llvm-profdata"));
    merge.args(["merge", "--sparse", "-o"]).arg(&merged);
    for place in profiles {
        let entries = fs::read_dir(place).map_err(|e| format!("read {}: {e}", place.display()))?;
        merge.args(entries.flatten().map(|entry| entry.path()));
    }
    capture(&mut merge, 10 * MINUTE)?;
    let mut export = ws.command(tools.join("llvm-cov"));
    export.args(["export", "--skip-functions", "--skip-expansions", "--skip-branches"]);
    export.arg("--instr-profile").arg(&merged);
    for program in programs {
        export.arg("--object").arg(program);
    }
    export.arg("--sources").arg(ws.root.join("src"));
    let root = format!("{}/", ws.root.display());
    Ok(parse(&capture(&mut export, 10 * MINUTE)?, &root))
}

/// Parses the JSON of llvm-cov, which has no spaces: for each file its name and its segments.
fn parse(json: &str, root: &str) -> Segments {
    let mut files = Segments::new();
    for part in json.split("{\"branches\":").skip(1) {
        let name = between(part, "\"filename\":\"", "\"").and_then(|name| name.strip_prefix(root));
        let (Some(name), Some(list)) = (name, between(part, "\"segments\":[[", "]]")) else {
            continue;
        };
        if LEFT_OUT.iter().any(|(path, _)| name.contains(path)) {
            continue;
        }
        let segments = list.split("],[").filter_map(|segment| {
            let fields: Vec<&str> = segment.split(',').collect();
            let [line, column, count, has_count, begins, is_gap] = fields[..] else {
                return None;
            };
            Some(Segment {
                line: line.parse().ok()?,
                column: column.parse().ok()?,
                count: if has_count == "true" { count.parse().ok() } else { None },
                begins: begins == "true" && is_gap == "false",
            })
        });
        files.insert(name.to_owned(), segments.collect());
    }
    files
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(inside, _)| inside)
}

/// The largest count of each line that has code, as llvm-cov computes it.
fn lines(segments: &[Segment]) -> BTreeMap<usize, u64> {
    let mut lines = BTreeMap::new();
    let mut from_before: Option<u64> = None;
    let mut last_line = 0;
    let mut at = 0;
    while at < segments.len() {
        let line = segments[at].line;
        // The lines between two segments have the count of the first one.
        if let Some(count) = from_before {
            lines.extend((last_line + 1..line).map(|between| (between, count)));
        }
        let end =
            segments[at..].iter().position(|s| s.line != line).map_or(segments.len(), |n| at + n);
        let begun = segments[at..end].iter().filter(|s| s.begins).filter_map(|s| s.count);
        if let Some(count) = begun.chain(from_before).max() {
            lines.insert(line, count);
        }
        (from_before, last_line, at) = (segments[end - 1].count, line, end);
    }
    lines
}

/// The coverage of one file.
struct File {
    path: String,
    lines: usize,
    /// The lines that the tests reach, and the lines that only the fault matrix reaches.
    tested: usize,
    only_faults: usize,
    regions: usize,
    reached_regions: usize,
    /// The uncovered lines of each function.
    functions: BTreeMap<String, Vec<usize>>,
    /// Line and column of each uncovered region that begins in a covered line.
    branches: Vec<(usize, usize)>,
}

impl File {
    fn new(path: &str, source: &str, tests: Option<&Vec<Segment>>, all: &[Segment]) -> File {
        let source = Source::new(source);
        let tests = tests.map(|segments| lines(segments)).unwrap_or_default();
        let counts: BTreeMap<_, _> =
            lines(all).into_iter().filter(|(line, _)| !source.is_test(*line)).collect();
        let mut file = File {
            path: path.to_owned(),
            lines: counts.len(),
            tested: 0,
            only_faults: 0,
            regions: 0,
            reached_regions: 0,
            functions: BTreeMap::new(),
            branches: Vec::new(),
        };
        for (line, count) in &counts {
            if tests.get(line).is_some_and(|count| *count > 0) {
                file.tested += 1;
            } else if *count > 0 {
                file.only_faults += 1;
            } else {
                file.functions.entry(source.function(*line)).or_default().push(*line);
            }
        }
        let regions = all.iter().filter(|s| s.begins && !source.is_test(s.line));
        for (segment, count) in regions.filter_map(|segment| Some((segment, segment.count?))) {
            file.regions += 1;
            if count > 0 {
                file.reached_regions += 1;
            } else if counts.get(&segment.line).is_some_and(|count| *count > 0) {
                file.branches.push((segment.line, segment.column));
            }
        }
        file
    }

    fn details(&self) -> String {
        let path = &self.path;
        let lines = self.functions.iter().map(|(function, lines)| {
            let lines: Vec<String> = lines.iter().map(usize::to_string).collect();
            format!("{path} {function}: lines {}\n", lines.join(" "))
        });
        let branches = self.branches.iter();
        let branches = branches.map(|(line, column)| format!("{path}:{line}:{column}: region\n"));
        lines.chain(branches).collect()
    }
}

/// The functions and tests of a source file. The sources are formatted, so that the indentation shows
/// which lines belong to an item.
struct Source<'a> {
    lines: Vec<&'a str>,
    /// The first and last lines of the test modules, counted from 1.
    tests: Vec<(usize, usize)>,
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let mut tests = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            if line.trim() == "#[cfg(test)]" {
                let end = format!("{}}}", " ".repeat(indentation(line)));
                let length = lines[at..].iter().position(|line| *line == end);
                tests.push((at + 1, at + 1 + length.unwrap_or(0)));
            }
        }
        Source { lines, tests }
    }

    fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }

    /// The name of the function that contains a line, with the type of its `impl` block.
    fn function(&self, line: usize) -> String {
        let mut names = Vec::new();
        let mut inside = usize::MAX;
        for text in self.lines[..line.min(self.lines.len())].iter().rev() {
            if text.trim().is_empty() || indentation(text) >= inside {
                continue;
            }
            names.extend(item_name(text.trim_start()));
            // `} else {` and `) -> Type {` have the indentation of the line that they continue.
            let continues = text.trim_start().starts_with(['}', ')', '{']);
            inside = indentation(text) + usize::from(continues);
        }
        names.reverse();
        names.join("::")
    }
}

/// The name of a function, or the type of an `impl` block or trait, that begins in this line.
fn item_name(line: &str) -> Option<String> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    if line.starts_with("//") {
        return None;
    }
    if let Some((before, after)) = line.split_once("fn ") {
        let is_item = before.chars().all(|c| c.is_ascii_lowercase() || " (:)\"C".contains(c));
        return is_item.then(|| word(after)).filter(|name| !name.is_empty());
    }
    let block = line.strip_prefix("impl").or_else(|| line.strip_prefix("unsafe impl"))?;
    let block = block.split_once(" for ").map_or(block, |(_, of)| of);
    // Without the parameters of the block: `impl<'a> Type<'a> {`.
    let block = if block.starts_with('<') { block.split_once("> ")?.1 } else { block };
    let path = block.trim().trim_start_matches('&').split(['<', ' ']).next()?;
    Some(word(path.rsplit("::").next()?)).filter(|name| !name.is_empty())
}

fn table(files: &[File]) -> String {
    let width = files.iter().map(|file| file.path.len()).max().unwrap_or(0);
    let percent = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
    let row = |name: &str, [lines, tested, faults, regions, reached]: [usize; 5]| {
        let covered = percent(tested + faults, lines);
        let (missing, of_regions) = (lines - tested - faults, percent(reached, regions));
        format!(
            "{name:width$} {lines:6} {tested:6} {faults:7} {missing:7} {covered:6.1} {regions:8} {of_regions:6.1}\n"
        )
    };
    let mut text = format!(
        "{:width$} {:>6} {:>6} {:>7} {:>7} {:>6} {:>8} {:>6}\n",
        "module", "lines", "tests", "+faults", "missing", "%", "regions", "%"
    );
    let mut total = [0; 5];
    for file in files {
        let numbers =
            [file.lines, file.tested, file.only_faults, file.regions, file.reached_regions];
        text += &row(&file.path, numbers);
        total.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
    text + &row("total", total)
}

/// Compares the list with the uncovered functions. The list has paragraphs: lines with `# ` state the
/// reason, and the other lines have a path and the names of functions.
fn compare(list: &str, files: &[File]) -> Vec<String> {
    let mut explained = BTreeSet::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        if let Some(path) = words.next() {
            explained.extend(words.map(|name| (path, name)));
        }
    }
    let mut found = BTreeSet::new();
    let mut problems = Vec::new();
    for file in files {
        for (function, lines) in &file.functions {
            found.insert((file.path.as_str(), function.as_str()));
            if !explained.contains(&(file.path.as_str(), function.as_str())) {
                problems.push(format!(
                    "{}:{}: {function}: no test reaches {} lines: add a test, or the reason to {LIST}",
                    file.path,
                    lines[0],
                    lines.len()
                ));
            }
        }
    }
    for (path, function) in explained.difference(&found) {
        // Some lines are reached in some runs only, such as the second attempt of a race.
        println!("{LIST}: {path} {function}: this run reached every line");
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
use std::io;

impl<T: Copy> fmt::Display for &types::Value<T> {
    fn fmt(&self) {
        fn nested() {
            body();
        }
        if a {
            b();
        } else {
            c();
        }
    }

    pub(crate) const unsafe fn long(
        argument: u8,
    ) -> u8 {
        d()
    }
}

pub unsafe extern \"C\" fn plain(of: fn (u8)) {
    e();
}

#[cfg(test)]
mod tests {
    fn f() {}
}
";

    #[test]
    fn function_of_each_line_is_the_item_that_contains_it() {
        let source = Source::new(SOURCE);
        let names = [4, 6, 8, 9, 11, 13, 16, 18, 22, 23].map(|line| source.function(line));
        let fmt = "Value::fmt";
        let long = "Value::long";
        let nested = "Value::fmt::nested";
        assert_eq!(names, [fmt, nested, fmt, fmt, fmt, fmt, long, long, "plain", "plain"]);
        assert!(!source.is_test(24) && source.is_test(26) && source.is_test(29));
    }

    /// Two regions in line 4, an uncovered line 6, a region without code from line 8 on.
    const JSON: &str = "{\"data\":[{\"files\":[{\"branches\":[],\"filename\":\"/r/src/a.rs\",\
        \"segments\":[[4,1,3,true,true,false],[4,9,0,true,true,false],[4,12,3,true,false,false],\
        [5,9,0,false,false,false],[6,1,0,true,true,false],[7,2,0,false,false,false],[9,1,5,true,true,false],\
        [9,3,0,false,false,false]],\"summary\":{}},{\"branches\":[],\"filename\":\"/r/src/manual.rs\",\
        \"segments\":[[1,1,0,true,true,false]],\"summary\":{}}]}]}";

    #[test]
    fn parse_returns_the_segments_of_the_library() {
        let files = parse(JSON, "/r/");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["src/a.rs"]);
        let counts = lines(&files["src/a.rs"]);
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [(4, 3), (5, 3), (6, 0), (7, 0), (9, 5)]
        );
    }

    #[test]
    fn compare_reports_functions_that_the_list_does_not_explain() {
        let source =
            format!("fn first() {{\n}}\n\n{}", "fn second() {\n    a();\n    b();\n}\n".repeat(2));
        let file = File::new("src/a.rs", &source, None, &parse(JSON, "/r/")["src/a.rs"]);
        assert_eq!((file.lines, file.tested, file.only_faults), (5, 0, 3));
        assert_eq!((file.regions, file.reached_regions), (4, 2));
        assert_eq!((&file.functions["second"], &file.branches), (&vec![6, 7], &vec![(4, 9)]));
        let files = [file];
        let problems = compare("# reason\nsrc/a.rs first\n\nsrc/b.rs second\n", &files);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("src/a.rs:6: second: no test reaches 2 lines"));
        assert!(compare("src/a.rs first second\n", &files).is_empty());
        assert!(table(&files).ends_with("5      0       3       2   60.0        4   50.0\n"));
    }
}
