//! Event-driven serving under strain, through both APIs: everything at once (V2, V3, V7), clients
//! that mean harm (V4, V6), a drain of many (V5), clients of other makes. How it does with ten
//! thousand clients is in labs_scale.rs.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod lab;
mod storm;

use std::time::Duration;

use common::*;

both_apis!(a_storm,);

/// The name of a test as the program takes it.
fn name<A: Api>(test: &str) -> String {
    format!("{}::{test}", if A::NUMBER == 1 { "rust" } else { "c" })
}

/// V2, V3, V5, V7: from four threads and from callbacks, with one loop and with three, everything
/// that may be done, at once. The books balance.
fn a_storm<A: Api>() {
    lab::in_process(&name::<A>("a_storm"), Duration::from_secs(25), || {
        for loops in [1, 3] {
            let came = storm::run::<A>(loops, Duration::from_secs(1));
            println!("{} connections, {} messages", came.connections, came.messages);
            println!("{:?}", came.stats);
            assert!(came.connections > 50, "{}", came.connections);
        }
    });
}
