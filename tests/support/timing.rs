//! Durations, and assertions about the time that a call takes.

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

/// Asserts that a call with this deadline returns at its deadline: not before, and at most
/// [`GRACE`] later.
pub fn assert_on_time(deadline: Duration, mut run: impl FnMut() -> Duration) -> Duration {
    assert_within(deadline + GRACE, || {
        let time = run();
        assert!(time >= deadline, "{time:?} is before the deadline, {deadline:?}");
        time
    })
}
