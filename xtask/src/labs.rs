//! `cargo xtask labs`: the tests that show promises in networks of their own, and the
//! table of what they measured, each beside its control.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::run::{self, Workspace, is_ci};
use crate::steps::Stop;
use crate::tools;

const LONG: Duration = Duration::from_secs(20 * 60);

/// Labs wait more than they compute. Some measure tens of milliseconds: with many more at
/// once they would measure each other.
const AT_ONCE: &str = "--test-threads=4";

/// The programs that are labs by another name.
const OTHERS: [&str; 1] = ["descriptors"];

/// Those that keep the whole machine busy: they run after the others, one test at a time.
const ALONE: [&str; 1] = ["labs_scale"];
const ONE: &str = "--test-threads=1";

/// What starts a line that a lab has measured (tests/lab/mod.rs).
const ROW: &str = "lab-row: ";
const SKIPPED: &str = ": skipped: ";

/// What a lab measured: the promise and the scene, what was asked for, what came, and what
/// comes without it.
type Row = [String; 4];
const HEAD: [&str; 4] = ["lab", "asked for", "measured", "control"];

/// Runs the labs and prints the table; false when the run is not good.
pub fn labs(ws: &Workspace) -> Result<bool, String> {
    match run(ws) {
        Ok(note) => {
            println!("{note}");
            Ok(true)
        }
        Err(Stop::Skip(reason)) => {
            println!("skipped: {reason}");
            if is_ci() {
                println!("CI=true: a skipped lab counts as a failure");
            }
            Ok(!is_ci())
        }
        Err(Stop::Fail(reason)) => Err(reason),
    }
}

/// The same as a step; its note says how many were measured.
pub fn run(ws: &Workspace) -> Result<String, Stop> {
    if !cfg!(target_os = "linux") {
        return Err(Stop::Skip("the labs are network namespaces: Linux only".to_owned()));
    }
    prepare(ws);
    let (programs, _) = programs(ws)?;
    let mut build = ws.cargo(&["test", "--all-features", "--no-run"]);
    run::show(build.args(programs.iter().flat_map(|p| ["--test", p.as_str()])), LONG)?;

    // The long ones wait nearly all of their time, and so they do beside all others.
    let (alone, others): (Vec<&str>, Vec<&str>) =
        programs.iter().map(String::as_str).partition(|program| ALONE.contains(program));
    let mut ran = thread::scope(|scope| {
        let long: Vec<_> = others
            .iter()
            .map(|&program| scope.spawn(move || Ran::start(ws, program, &[AT_ONCE, "--ignored"])))
            .collect();
        let mut ran: Vec<_> = others.iter().map(|&p| Ran::start(ws, p, &[AT_ONCE])).collect();
        ran.extend(long.into_iter().map(|run| {
            run.join().unwrap_or_else(|_| Err("a thread of xtask panicked".to_owned()))
        }));
        ran.into_iter().collect::<Result<Vec<Ran>, String>>()
    })?;
    for program in alone {
        ran.push(Ran::start(ws, program, &[ONE, "--include-ignored"])?);
    }
    judge(&ran)
}

/// A test program that has run.
struct Ran<'a> {
    program: &'a str,
    good: bool,
    output: String,
}

impl<'a> Ran<'a> {
    /// `which`: how many at once, and which.
    fn start(ws: &Workspace, program: &'a str, which: &[&str]) -> Result<Self, String> {
        let started = Instant::now();
        let mut test = ws.cargo(&["test", "--all-features", "--test", program, "--"]);
        let test = test.arg("--nocapture").args(which);
        let (good, output) = run::collect(test, LONG)?;
        let seconds = started.elapsed().as_secs_f64();
        println!("{program} {}: {seconds:.1} s", which[1..].join(" "));
        Ok(Self { program, good, output })
    }
}

/// Prints the table, and says how the run as a whole was.
fn judge(ran: &[Ran<'_>]) -> Result<String, Stop> {
    let mut table: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
    let mut skipped = Vec::new();
    let mut wrong = BTreeSet::new();
    for Ran { program, good, output } in ran {
        let (rows, reasons) = read(output)?;
        table.entry(program).or_default().extend(rows);
        skipped.extend(reasons);
        if !good {
            println!("\n{output}");
            wrong.insert(format!("{program} failed"));
        }
    }
    if wrong.is_empty() && skipped.is_empty() {
        let silent = table.iter().filter(|(_, rows)| rows.is_empty());
        wrong.extend(silent.map(|(program, _)| format!("{program} measured nothing")));
    }
    print!("\n{}\n", lay_out(&table));
    for reason in &skipped {
        println!("skipped: {reason}");
    }
    if !wrong.is_empty() {
        return Err(Stop::Fail(wrong.into_iter().collect::<Vec<_>>().join(", ")));
    }
    match skipped.first() {
        Some(first) => Err(Stop::Skip(format!("{} labs; {first}", skipped.len()))),
        None => Ok(format!("{} measurements", table.values().map(Vec::len).sum::<usize>())),
    }
}

/// The rows in what a program printed, and the labs that were skipped, with their reason.
fn read(output: &str) -> Result<(Vec<Row>, Vec<String>), Stop> {
    let mut rows = Vec::new();
    let mut skipped = Vec::new();
    for line in output.lines() {
        // The harness leaves its "test name ... " unended before the first line of a test.
        if let Some((_, row)) = line.split_once(ROW) {
            let columns: Vec<String> = row.split(" | ").map(|c| c.trim().to_owned()).collect();
            let row = Row::try_from(columns).map_err(|_| format!("not four columns: {line}"))?;
            rows.push(row);
        } else if line.contains(SKIPPED) {
            let words = line.rsplit_once(" ... ").map_or(line, |(_, words)| words);
            skipped.push(words.replacen(SKIPPED, ": ", 1));
        }
    }
    Ok((rows, skipped))
}

/// One table, by program and in it by promise.
fn lay_out(table: &BTreeMap<&str, Vec<Row>>) -> String {
    let head = HEAD.map(str::to_owned);
    let width = |column: usize| {
        let all = table.values().flatten().chain([&head]);
        all.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let [a, b, c, _] = [0, 1, 2, 3].map(width);
    let line = |row: &Row| {
        let [lab, asked, measured, control] = row;
        let line = format!("{lab:a$}  {asked:b$}  {measured:c$}  {control}");
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&head);
    for (program, rows) in table {
        let mut rows = rows.clone();
        rows.sort();
        text.push_str(&format!("\n{program}\n"));
        text.extend(rows.iter().map(line));
    }
    text
}

/// Gets what the labs call, and other tests. A test that misses a tool says so itself.
pub fn prepare(ws: &Workspace) {
    let labs = [tools::IP, tools::NFT, tools::UNSHARE, tools::TCPDUMP, tools::TSHARK];
    for tool in
        labs.into_iter().chain([tools::PYTHON, tools::SOCAT, tools::SYSTEMD_SOCKET_ACTIVATE])
    {
        if let Err(reason) = tool.find_or_install(ws) {
            println!("{reason}");
        }
    }
}

/// The names of the test programs: those that are labs, and the others.
pub fn programs(ws: &Workspace) -> Result<(Vec<String>, Vec<String>), String> {
    let folder = ws.root.join("tests");
    let files = fs::read_dir(&folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let mut names: Vec<String> = files
        .flatten()
        .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names.into_iter().partition(|name| name.starts_with("labs_") || OTHERS.contains(&&**name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "test a ... lab-row: K1 x | asked | 4.1 s | never\n";

    fn ran(program: &str, good: bool, output: &str) -> Result<String, Stop> {
        judge(&[Ran { program, good, output: output.to_owned() }])
    }

    #[test]
    fn rows_are_read_and_laid_out_by_program_and_promise() {
        let (mut rows, skipped) = read(&format!("lab-row: K2 y | b | c | d\nnoise\n{LINE}"))
            .unwrap_or_else(|stop| panic!("{}", String::from(stop)));
        assert!(skipped.is_empty());
        let text = lay_out(&BTreeMap::from([("labs_a", std::mem::take(&mut rows))]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "lab   asked for  measured  control");
        assert_eq!(lines[2], "labs_a");
        assert_eq!(lines[3], "K1 x  asked      4.1 s     never");
        assert_eq!(lines[4], "K2 y  b          c         d");
    }

    #[test]
    fn what_failed_measured_nothing_or_was_skipped_is_no_success() {
        assert!(matches!(ran("labs_a", true, LINE), Ok(note) if note == "1 measurements"));
        assert!(
            matches!(ran("labs_a", false, LINE), Err(Stop::Fail(why)) if why == "labs_a failed")
        );
        assert!(matches!(ran("labs_a", true, "ok"), Err(Stop::Fail(_))));
        assert!(matches!(ran("labs_a", true, "lab-row: a | b | c"), Err(Stop::Fail(_))));
        let skip = format!("{LINE}test b ... b: skipped: no nft\n");
        assert!(
            matches!(ran("labs_a", true, &skip), Err(Stop::Skip(why)) if why.ends_with("b: no nft"))
        );
    }
}
