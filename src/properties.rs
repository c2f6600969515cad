//! Property tests: a state machine with random inputs, against a model or a rule.
//!
//! The properties are in the files `properties.rs` next to the machines. A run tries the same inputs
//! each time. The variable `KEEPSOCK_PROPERTIES`, a number, multiplies the number of inputs, and each run
//! then tries other inputs. A failure prints the smallest input that fails: keep this input as an
//! ordinary unit test.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

const VARIABLE: &str = "KEEPSOCK_PROPERTIES";

/// Checks a property for this number of random inputs.
#[track_caller]
pub(crate) fn check<S: Strategy>(
    cases: u32,
    inputs: S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let factor = std::env::var(VARIABLE).ok().map(|text| match text.parse::<u32>() {
        Ok(factor) if factor > 0 => factor,
        _ => panic!("{VARIABLE}: {text:?} is not a number greater than zero"),
    });
    let config = Config {
        cases: cases.saturating_mul(factor.unwrap_or(1)),
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = match factor {
        Some(_) => TestRunner::new(config),
        None => {
            let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            TestRunner::new_with_rng(config, seed)
        }
    };
    if let Err(failure) = runner.run(&inputs, property) {
        panic!("{failure}");
    }
}

#[test]
#[should_panic(expected = "minimal failing input: 10")]
fn check_reports_the_smallest_input_that_fails() {
    check(1000, 0..1_000_000u32, |number| {
        prop_assert!(number < 10);
        Ok(())
    });
}
