//! The steps of a run, one after another, and the summary table.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

/// The reason why a step did not pass. An error that is a plain text is a failure.
pub enum Stop {
    Fail(String),
    Skip(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Fail(reason)
    }
}

impl From<Stop> for String {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fail(reason) | Stop::Skip(reason) => reason,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

struct Row {
    name: String,
    outcome: Outcome,
    note: String,
    time: Duration,
}

/// A step of [`Steps::two_lists`].
pub struct Step<'a> {
    pub name: &'a str,
    pub work: Box<dyn FnOnce() -> Result<String, Stop> + Send + 'a>,
}

/// The steps of one run. A failed step does not prevent the later ones, so that one run reports every
/// failure.
#[derive(Default)]
pub struct Steps {
    rows: Vec<Row>,
}

impl Steps {
    /// Runs one step. The text that the step returns on success is its note in the table.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Result<String, Stop>) {
        self.rows.push(run(name, work));
    }

    /// Runs two lists of steps at the same time, each in its order. Their outputs are mixed. Two steps
    /// that run at the same time must not use the same build folder of cargo.
    pub fn two_lists(&mut self, lists: [Vec<Step<'_>>; 2]) {
        let rows = thread::scope(|scope| {
            let started = lists.map(|list| {
                scope.spawn(|| {
                    let rows = list.into_iter().map(|step| run(step.name, step.work));
                    rows.collect::<Vec<_>>()
                })
            });
            started.map(|list| list.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        self.rows.extend(rows.into_iter().flatten());
    }

    /// Prints the table and the totals. Returns whether the run passed.
    pub fn finish(&self, ci: bool) -> bool {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        println!("\n=== summary");
        for row in &self.rows {
            println!(
                "{:width$}  {:7}  {:7.1} s  {}",
                row.name,
                label(row.outcome),
                row.time.as_secs_f64(),
                shortened(&row.note)
            );
        }
        let [passed, failed, skipped] =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|outcome| self.count(outcome));
        if ci && skipped > 0 {
            println!("CI=true: a skipped step counts as a failure");
        }
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        failed == 0 && !(ci && skipped > 0) && passed > 0
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }
}

fn run(name: &str, work: impl FnOnce() -> Result<String, Stop>) -> Row {
    println!("\n=== {name}");
    let started = Instant::now();
    let (outcome, note) = match work() {
        Ok(note) => (Outcome::Passed, note),
        Err(Stop::Fail(reason)) => (Outcome::Failed, reason),
        Err(Stop::Skip(reason)) => (Outcome::Skipped, reason),
    };
    let time = started.elapsed();
    if outcome != Outcome::Passed {
        println!("{name}: {}: {note}", label(outcome));
    }
    println!("--- {name}: {}, {:.1} s", label(outcome), time.as_secs_f64());
    Row { name: name.to_owned(), outcome, note, time }
}

/// The beginning of a note, short enough for the table. The step has printed all of it.
fn shortened(note: &str) -> String {
    const LENGTH: usize = 100;
    let line = note.lines().next().unwrap_or("");
    match line.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

fn label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(results: Vec<Result<String, Stop>>, ci: bool) -> bool {
        let mut steps = Steps::default();
        for result in results {
            steps.step("a step", || result);
        }
        steps.finish(ci)
    }

    #[test]
    fn run_with_a_failed_step_fails() {
        assert!(passes(vec![Ok(String::new())], true));
        assert!(!passes(vec![Ok(String::new()), Err(Stop::Fail("x".into()))], false));
    }

    #[test]
    fn run_with_a_skipped_step_fails_in_ci_only() {
        let skip = || Err(Stop::Skip("no tool".into()));
        assert!(passes(vec![Ok(String::new()), skip()], false));
        assert!(!passes(vec![Ok(String::new()), skip()], true));
    }

    #[test]
    fn step_of_two_lists_that_fails_fails_the_run() {
        let list = |name, results: Vec<Result<String, Stop>>| -> Vec<Step<'_>> {
            let step = |result| Step { name, work: Box::new(|| result) };
            results.into_iter().map(step).collect()
        };
        let mut steps = Steps::default();
        let failed = Err(Stop::Fail("x".into()));
        steps.two_lists([list("a", vec![Ok(String::new())]), list("b", vec![failed])]);
        assert_eq!(steps.count(Outcome::Failed), 1);
        assert!(!steps.finish(false));
    }

    #[test]
    fn run_without_a_passed_step_fails() {
        assert!(!passes(vec![], false));
    }
}
