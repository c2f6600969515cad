//! Every combination of the Cargo features: lints for each, tests for none and each alone. The step
//! "Rust tests" tests all together.

use std::time::Duration;

use crate::run::{MINUTE, Workspace, show};
use crate::steps::Stop;

/// The features that a program may leave out. `capi` combines with each of them.
const FEATURES: [&str; 4] = ["serve", "datagram", "activation", "diag"];

const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The command.
pub fn features(ws: &Workspace) -> Result<bool, String> {
    println!("{}", check(ws, true)?);
    Ok(true)
}

/// With one feature, all tests compile, and the unit tests and examples of the documentation run. The
/// tests through both APIs run without a feature. If `long`, they also run with each feature.
pub fn check(ws: &Workspace, long: bool) -> Result<String, Stop> {
    let combinations: Vec<String> = (0..1_u32 << FEATURES.len()).map(combination).collect();
    for features in &combinations {
        lint(ws, features, &[])?;
        lint(ws, &format!("{features},capi"), &[])?;
    }
    let alone = std::iter::once("").chain(FEATURES);
    let mut tested = 0;
    for features in alone {
        let test = |targets: &[&str]| {
            let mut test = ws.cargo(&["test", "--quiet", "--no-default-features", "--features"]);
            // The tests of `it` wait most of the time.
            show(test.arg(features).args(targets).args(["--", "--test-threads=4"]), LIMIT)
        };
        if long || features.is_empty() {
            test(&["--lib", "--test", "it"])?;
        } else {
            lint(ws, features, &["--tests"])?;
            test(&["--lib"])?;
        }
        test(&["--doc"])?;
        tested += 1;
    }
    Ok(format!("{} combinations linted, {tested} tested", 2 * combinations.len()))
}

/// The features whose bits are set, separated by commas.
fn combination(bits: u32) -> String {
    let is_set = |at: &usize| bits >> at & 1 == 1;
    (0..FEATURES.len()).filter(is_set).map(|at| FEATURES[at]).collect::<Vec<_>>().join(",")
}

fn lint(ws: &Workspace, features: &str, targets: &[&str]) -> Result<(), Stop> {
    let mut clippy = ws.cargo(&["clippy", "--quiet", "--no-default-features"]);
    clippy.args(["--features", features.trim_start_matches(',')]).args(targets);
    show(clippy.args(["--", "-D", "warnings"]), 5 * MINUTE)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combination_lists_the_set_bits() {
        assert_eq!(combination(0), "");
        assert_eq!(combination(0b1001), "serve,diag");
    }
}
