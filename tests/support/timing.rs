//! Durations, and assertions about the time that a call takes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How late a call may return after its deadline, and how long a cancellation may take.
pub const GRACE: Duration = Duration::from_millis(50);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A time as text, for the table of measurements.
pub fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 0.1 => format!("{:.1} ms", s * 1000.0),
        s => format!("{s:.2} s"),
    }
}

/// How long [`assert_within`] repeats. No machine is busy for that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Repeats `run` until it takes at most `most`, and returns that time. Any number of runs may be late
/// on a busy machine. A defect makes each run late, and fails after [`PATIENCE`] and at least two runs.
#[track_caller]
pub fn assert_within(most: Duration, mut run: impl FnMut() -> Duration) -> Duration {
    let until = Instant::now() + PATIENCE;
    let mut times = Vec::new();
    loop {
        let time = run();
        println!("{time:?}, at most {most:?}");
        if time <= most {
            return time;
        }
        times.push(time);
        let best = times.iter().min();
        let (runs, is_over) = (times.len(), times.len() > 1 && Instant::now() > until);
        assert!(!is_over, "{best:?} at best in {runs} runs, at most {most:?}");
    }
}

/// A delay of a thread that a timeout of a second does not survive for certain.
const DISTURBANCE: Duration = Duration::from_millis(250);

/// Runs a scenario whose own threads must act within a time, for example answer a heartbeat. A failure
/// counts only if a watching thread woke in time during the whole run. Otherwise the machine stood
/// still, and the scenario is repeated, once or for at most [`PATIENCE`].
#[track_caller]
pub fn undisturbed(scenario: impl Fn()) {
    let until = Instant::now() + PATIENCE;
    for run in 1.. {
        let over = AtomicBool::new(false);
        let (outcome, delay) = thread::scope(|scope| {
            let watch = scope.spawn(|| longest_delay(&over));
            let outcome = catch_unwind(AssertUnwindSafe(&scenario));
            over.store(true, Ordering::Relaxed);
            (outcome, watch.join().unwrap())
        });
        match outcome {
            Ok(()) => return,
            Err(_) if delay >= DISTURBANCE && (run == 1 || Instant::now() < until) => {
                println!("threads were delayed by {delay:?}; the scenario is repeated");
            }
            Err(failure) => {
                println!("threads were delayed by {delay:?}");
                resume_unwind(failure);
            }
        }
    }
}

/// The longest delay of the wake-ups of this thread, until `over`.
fn longest_delay(over: &AtomicBool) -> Duration {
    let pause = ms(10);
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        thread::sleep(pause);
        longest = longest.max(start.elapsed().saturating_sub(pause));
    }
    longest
}

/// Asserts that a call with this deadline returns at its deadline: not before, and at most
/// [`GRACE`] later.
pub fn assert_on_time(deadline: Duration, mut run: impl FnMut() -> Duration) -> Duration {
    assert_within(deadline + GRACE, || {
        let time = run();
        assert!(time >= deadline, "{time:?} is before the deadline, {deadline:?}");
        time
    })
}
