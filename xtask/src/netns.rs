//! `cargo xtask netns`: the tests in network namespaces, and the table of their measurements, each
//! next to its control case.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::run::{self, Workspace, is_ci};
use crate::steps::Stop;
use crate::tools;

const LONG: Duration = Duration::from_secs(20 * 60);

/// The test program (tests/netns/).
pub const PROGRAM: &str = "netns";

/// The module whose tests keep the whole machine busy: they run after the others, one at a time.
const ALONE: &str = "scale::";

/// How many tests run at once. They wait more than they compute, but some measure tens of
/// milliseconds: with many more at once they would measure each other.
const THREADS: &str = "--test-threads=4";

/// How many of the long tests run at once, in addition. They wait nearly all of their time.
const LONG_THREADS: &str = "--test-threads=8";

/// The start of a line with a measurement (tests/support/netns/mod.rs).
const ROW: &str = "netns-row: ";
const SKIPPED: &str = ": skipped: ";

/// A measurement: the case, the requested limit, the measured value, and the control case.
type Row = [String; 4];
const HEAD: [&str; 4] = ["case", "requested", "measured", "control"];

/// Runs the tests and prints the table; returns whether all passed.
pub fn netns(ws: &Workspace) -> Result<bool, String> {
    match run(ws) {
        Ok(note) => {
            println!("{note}");
            Ok(true)
        }
        Err(Stop::Skip(reason)) => {
            println!("skipped: {reason}");
            if is_ci() {
                println!("CI=true: a skipped test counts as a failure");
            }
            Ok(!is_ci())
        }
        Err(Stop::Fail(reason)) => Err(reason),
    }
}

/// The same as a step of `cargo xtask test --full`. The note is the number of measurements.
pub fn run(ws: &Workspace) -> Result<String, Stop> {
    if !cfg!(target_os = "linux") {
        return Err(Stop::Skip("network namespaces exist on Linux only".to_owned()));
    }
    prepare(ws);
    let modules = modules(ws)?;
    run::show(&mut ws.cargo(&["test", "--all-features", "--no-run", "--test", PROGRAM]), LONG)?;

    let runs = thread::scope(|scope| {
        let long = scope.spawn(|| Run::start(ws, &["--ignored", "--skip", ALONE, LONG_THREADS]));
        let short = Run::start(ws, &["--skip", ALONE, THREADS]);
        let long = long.join().unwrap_or_else(|_| Err("a thread of xtask panicked".to_owned()));
        [short, long]
    });
    let mut runs = runs.into_iter().collect::<Result<Vec<Run>, String>>()?;
    runs.push(Run::start(ws, &[ALONE, "--include-ignored", "--test-threads=1"])?);
    judge(&runs, &modules)
}

/// A run of the test program that has ended.
struct Run {
    passed: bool,
    output: String,
}

impl Run {
    fn start(ws: &Workspace, arguments: &[&str]) -> Result<Self, String> {
        let started = Instant::now();
        let mut test = ws.cargo(&["test", "--all-features", "--test", PROGRAM, "--"]);
        let test = test.arg("--nocapture").args(arguments);
        let (passed, output) = run::collect(test, LONG)?;
        let seconds = started.elapsed().as_secs_f64();
        println!("{PROGRAM} {}: {seconds:.1} s", arguments.join(" "));
        Ok(Self { passed, output })
    }
}

/// Prints the table, and decides whether the tests passed. Each module must have measured something.
fn judge(runs: &[Run], modules: &[String]) -> Result<String, Stop> {
    let mut table: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut skipped = Vec::new();
    let mut wrong = BTreeSet::new();
    for Run { passed, output } in runs {
        let (rows, reasons) = read(output)?;
        for (module, row) in rows {
            table.entry(module).or_default().push(row);
        }
        skipped.extend(reasons);
        if !passed {
            println!("\n{output}");
            wrong.extend(failed(output));
        }
    }
    if runs.iter().any(|run| !run.passed) && wrong.is_empty() {
        wrong.insert("the test program failed".to_owned());
    }
    if wrong.is_empty() && skipped.is_empty() {
        let silent = modules.iter().filter(|module| !table.contains_key(*module));
        wrong.extend(silent.map(|module| format!("tests/netns/{module}.rs measured nothing")));
    }
    print!("\n{}\n", lay_out(&table));
    for reason in &skipped {
        println!("skipped: {reason}");
    }
    if !wrong.is_empty() {
        return Err(Stop::Fail(wrong.into_iter().collect::<Vec<_>>().join(", ")));
    }
    match skipped.first() {
        Some(first) => Err(Stop::Skip(format!("{} tests; {first}", skipped.len()))),
        None => Ok(format!("{} measurements", table.values().map(Vec::len).sum::<usize>())),
    }
}

/// The names of the tests that failed: the indented lines of the harness's lists. The output of a
/// test that ran in a process of its own also has such a list.
fn failed(output: &str) -> Vec<String> {
    let lists = output.split("\nfailures:\n").skip(1);
    let names = lists.flat_map(|list| list.lines().take_while(|line| line.starts_with("    ")));
    names.map(|name| format!("{} failed", name.trim())).collect()
}

type Rows = Vec<(String, Row)>;

/// The measurements in the output, with their modules, and the tests that were skipped, with their
/// reasons.
fn read(output: &str) -> Result<(Rows, Vec<String>), Stop> {
    let mut rows = Vec::new();
    let mut skipped = Vec::new();
    for line in output.lines() {
        // The harness prints no newline after "test name ... ".
        if let Some((_, row)) = line.split_once(ROW) {
            let columns: Vec<String> = row.split(" | ").map(|c| c.trim().to_owned()).collect();
            let [module, row @ ..] = <[String; 5]>::try_from(columns)
                .map_err(|_| format!("expected five columns: {line}"))?;
            rows.push((module, row));
        } else if line.contains(SKIPPED) {
            let words = line.rsplit_once(" ... ").map_or(line, |(_, words)| words);
            skipped.push(words.replacen(SKIPPED, ": ", 1));
        }
    }
    Ok((rows, skipped))
}

/// One table, sorted by module and case.
fn lay_out(table: &BTreeMap<String, Vec<Row>>) -> String {
    let head = HEAD.map(str::to_owned);
    let width = |column: usize| {
        let all = table.values().flatten().chain([&head]);
        all.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let [a, b, c, _] = [0, 1, 2, 3].map(width);
    let line = |row: &Row| {
        let [case, requested, measured, control] = row;
        let line = format!("{case:a$}  {requested:b$}  {measured:c$}  {control}");
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&head);
    for (module, rows) in table {
        let mut rows = rows.clone();
        rows.sort();
        text.push_str(&format!("\n{module}\n"));
        text.extend(rows.iter().map(line));
    }
    text
}

/// Installs the tools that tests call. A test that lacks a tool reports it itself.
pub fn prepare(ws: &Workspace) {
    let tools = [
        tools::IP,
        tools::NFT,
        tools::UNSHARE,
        tools::TCPDUMP,
        tools::TSHARK,
        tools::PYTHON,
        tools::SOCAT,
        tools::SYSTEMD_SOCKET_ACTIVATE,
        tools::ABIDW,
        tools::GROFF,
        tools::MANDOC,
    ];
    for tool in tools {
        if let Err(reason) = tool.find_or_install(ws) {
            println!("{reason}");
        }
    }
}

/// The modules of the test program.
fn modules(ws: &Workspace) -> Result<Vec<String>, String> {
    let folder = ws.root.join("tests").join(PROGRAM);
    let files = fs::read_dir(&folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".rs")?.to_owned())).collect();
    names.retain(|name| name != "main");
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "test a ... netns-row: one | x | requested | 4.1 s | never\n";

    fn ran(passed: bool, output: &str) -> Result<String, Stop> {
        judge(&[Run { passed, output: output.to_owned() }], &["one".to_owned()])
    }

    #[test]
    fn lay_out_sorts_rows_by_module_and_case() {
        let output = format!("netns-row: two | y | b | c | d\nnoise\n{LINE}");
        let (rows, skipped) = read(&output).unwrap_or_else(|stop| panic!("{}", String::from(stop)));
        assert!(skipped.is_empty());
        let mut table: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for (module, row) in rows {
            table.entry(module).or_default().push(row);
        }
        let text = lay_out(&table);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "case  requested  measured  control");
        assert_eq!(lines[2..4], ["one", "x     requested  4.1 s     never"]);
        assert_eq!(lines[5..7], ["two", "y     b          c         d"]);
    }

    #[test]
    fn judge_fails_without_measurements_and_names_failed_tests() {
        assert!(matches!(ran(true, LINE), Ok(note) if note == "1 measurements"));
        let output = format!("{LINE}\nfailures:\n    one::a\n\ntest result: FAILED\n");
        assert!(matches!(ran(false, &output), Err(Stop::Fail(why)) if why == "one::a failed"));
        assert!(matches!(ran(false, LINE), Err(Stop::Fail(_))));
        let nothing = "tests/netns/one.rs measured nothing";
        assert!(matches!(ran(true, "ok"), Err(Stop::Fail(why)) if why == nothing));
        assert!(matches!(ran(true, "netns-row: a | b | c"), Err(Stop::Fail(_))));
    }

    #[test]
    fn judge_with_a_skipped_test_is_a_skip() {
        let skip = format!("{LINE}test b ... b: skipped: no nft\n");
        assert!(matches!(ran(true, &skip), Err(Stop::Skip(why)) if why.ends_with("b: no nft")));
    }
}
