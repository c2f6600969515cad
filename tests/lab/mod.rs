//! Labs: tests that need a network, or a process, of their own.
//!
//! A test calls [`in_namespace`] (or [`in_process`]) with its own name and a
//! body. The test program is started again for that one test, inside fresh
//! network and mount namespaces; there the body runs. What it does to
//! interfaces, routes and files under /etc ends with that process, however it
//! ends: it has a time limit, and it does not outlive the test that started it.
//! Further networks are [`Network`]s of that process, and [`Route`] joins two by
//! a router that forgets, drops and blocks as told.
//!
//! Where namespaces cannot be had the test prints `skipped: reason`; with
//! CI=true it fails instead. What a lab measured it prints with [`row`];
//! `cargo xtask labs` makes a table of it.

// It makes system calls that the standard library does not have.
#![allow(unsafe_code)]
// Each test program uses a part of it.
#![allow(dead_code, unused_imports)]

mod helper;
mod limits;
mod network;
mod program;
mod route;
mod run;
mod watch;

pub use helper::{Helper, lasting_role, lift, role, tell, told};
pub use limits::{forbid, give_up_all_capabilities, limit_descriptors, need_descriptors};
pub use network::{
    HOLE, HOLE6, Network, add_address, blackhole, ip, join, leave_network, names, nft,
    replace_file, silent_resolver, sysctl,
};
pub use program::Program;
pub use route::{Ip, Route};
pub use run::{cannot, in_namespace, in_process};
pub use watch::{
    Used, await_blocked, await_readable, await_that, connect_with_data, count_descriptors,
    count_syn_sent, count_threads, cpu_time, fill_window, interrupt, is_held_back, monotonic,
    packets_in, resident, thread_id, unacknowledged, used_by,
};

use std::fmt::Display;
use std::time::Duration;

/// What a call may take beyond its deadline (C1), and a cancel to take hold (T2).
pub const GRACE: Duration = Duration::from_millis(50);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A line of the table of `cargo xtask labs`: the promise and the scene, what
/// was asked of keepsock, what was measured, and what the same scene showed
/// without it.
pub fn row(name: &str, asked: &str, measured: impl Display, control: &str) {
    let columns = [name, asked, &measured.to_string(), control];
    assert!(columns.iter().all(|c| !c.contains(['|', '\n'])), "no column may hold {columns:?}");
    println!("lab-row: {}", columns.join(" | "));
}

/// A time for [`row`].
pub fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 0.1 => format!("{:.1} ms", s * 1000.0),
        s => format!("{s:.2} s"),
    }
}

/// Runs until a run takes no longer than `most`, at most three times: a busy
/// machine makes a call late now and then, a defect makes it late each time.
/// Returns that time.
pub fn assert_within(most: Duration, mut run: impl FnMut() -> Duration) -> Duration {
    let mut times = Vec::new();
    for _ in 0..3 {
        let time = run();
        println!("{time:?}, at most {most:?}");
        if time <= most {
            return time;
        }
        times.push(time);
    }
    panic!("{times:?}, at most {most:?}");
}

/// A call with this deadline is back when it is over: not before, and not more
/// than [`GRACE`] later.
pub fn assert_on_time(deadline: Duration, mut run: impl FnMut() -> Duration) -> Duration {
    assert_within(deadline + GRACE, || {
        let time = run();
        assert!(time >= deadline, "{time:?} is before the deadline, {deadline:?}");
        time
    })
}
