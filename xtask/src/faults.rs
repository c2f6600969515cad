//! `cargo xtask faults`: a fault at each system call of the library, by its failpoints.

use std::time::Duration;

use crate::run::{MINUTE, Workspace, show};
use crate::steps::Stop;

/// How often the long form tries each fault. Threads run in another order each time.
const LONG: &str = "10";

/// The command. Returns whether it passed.
pub fn faults(ws: &Workspace, long: bool) -> Result<bool, String> {
    println!("{}", run(ws, long)?);
    Ok(true)
}

/// Runs the matrix, and returns its totals.
pub fn run(ws: &Workspace, long: bool) -> Result<String, Stop> {
    let mut test = ws.cargo(&["test", "--all-features", "--test", "faults", "--"]);
    test.args(["--include-ignored", "--nocapture"]);
    if long {
        test.env("KEEPSOCK_FAULTS_ROUNDS", LONG);
    }
    let limit: Duration = if long { 60 * MINUTE } else { 15 * MINUTE };
    let output = show(&mut test, limit)?;
    let totals = output.lines().find(|line| line.contains(" sites reached, "));
    let totals = totals.ok_or_else(|| Stop::Fail("the matrix has no totals".to_owned()))?;
    Ok(totals.to_owned())
}
