//! `cargo xtask soak`: services under ordinary and hostile peers for a long time (tests/soak/).

use std::time::Duration;

use crate::run::{MINUTE, Workspace, show};
use crate::steps::Stop;

/// The test program.
pub const PROGRAM: &str = "soak";

/// The library without failpoints, as programs use it.
const FEATURES: &str = "capi";

/// The longest soak, and its build.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// The command: the long form, optimized, with a report.
pub fn soak(ws: &Workspace, options: &[String]) -> Result<bool, String> {
    linux()?;
    let folder = ws.target.join("soak");
    let mut soak =
        ws.cargo(&["test", "--release", "--features", FEATURES, "--test", PROGRAM, "--"]);
    soak.arg("--report").arg(&folder).args(options);
    show(&mut soak, LONGEST)?;
    println!("report: {}", folder.join("report.md").display());
    Ok(true)
}

/// The form of a minute, with the assertions of the library. The note has the counts.
pub fn step(ws: &Workspace) -> Result<String, Stop> {
    linux()?;
    let folder = ws.target.join("soak-minute");
    let mut soak = ws.cargo(&["test", "--features", FEATURES, "--test", PROGRAM, "--"]);
    soak.args(["--seconds", "60", "--report"]).arg(&folder);
    let output = show(&mut soak, 10 * MINUTE)?;
    let counts = output.lines().find_map(|line| line.strip_prefix("soak: "));
    counts.map(str::to_owned).ok_or_else(|| Stop::Fail("the soak printed no counts".to_owned()))
}

fn linux() -> Result<(), Stop> {
    if cfg!(target_os = "linux") {
        return Ok(());
    }
    Err(Stop::Skip("the soak counts descriptors and threads in /proc of Linux".to_owned()))
}
