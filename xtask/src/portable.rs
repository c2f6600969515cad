//! The code that other Unix systems use, run on Linux (`--cfg keepsock_portable`).

use crate::run::{MINUTE, Workspace, show};
use crate::steps::Stop;
use crate::suite;

/// Runs the unit tests and the program `it`, in a target directory of their own. The build has no
/// warnings. A test of behavior that Linux alone has is skipped, also in CI: `tests/support/portable.rs`
/// lists these tests.
pub fn check(ws: &Workspace) -> Result<String, Stop> {
    let mut tests =
        ws.cargo(&["test", "--all-features", "--no-fail-fast", "--lib", "--test", "it"]);
    suite::limit_threads(&mut tests);
    tests.env("RUSTFLAGS", "--cfg keepsock_portable -D warnings");
    tests.env("CARGO_TARGET_DIR", ws.target.join("portable"));
    tests.env("CARGO_PROFILE_DEV_DEBUG", "0");
    suite::count_rust_tests(&show(&mut tests, 20 * MINUTE)?)
}

pub fn portable(ws: &Workspace) -> Result<bool, String> {
    println!("{}", check(ws)?);
    Ok(true)
}
