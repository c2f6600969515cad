//! A point in time until which a call may wait.

use std::time::{Duration, Instant};

use crate::sys::sync::now;

/// A point in time on the monotonic clock. `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(pub(crate) Option<Instant>);

impl Deadline {
    /// The deadline `timeout` from now. A timeout beyond the range of the clock never expires.
    pub(crate) fn after(timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.and_then(|timeout| now().checked_add(timeout)))
    }

    /// The deadline `timeout` after `start`.
    pub(crate) fn from(start: Instant, timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.and_then(|timeout| start.checked_add(timeout)))
    }

    /// The time left. Zero after the deadline.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(now()))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|at| at <= now())
    }

    /// The earlier of two deadlines.
    pub(crate) fn earlier(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Deadline(Some(a.min(b))),
            (a, b) => Deadline(a.or(b)),
        }
    }
}

/// A time that a program passes to poll(2) as an int of milliseconds. A program that waits too short a
/// time calls again.
pub(crate) fn fit_poll(time: Duration) -> Duration {
    time.min(Duration::from_millis(i32::MAX as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_returns_the_earlier_deadline() {
        let now = Instant::now();
        let (soon, late) = (Deadline(Some(now)), Deadline(Some(now + Duration::from_secs(1))));
        assert_eq!(soon.earlier(late).0, soon.0);
        assert_eq!(Deadline(None).earlier(late).0, late.0);
        assert_eq!(Deadline(None).earlier(Deadline(None)).0, None);
    }

    #[test]
    fn after_the_longest_duration_never_passes() {
        assert_eq!(Deadline::after(Some(Duration::MAX)).0, None);
    }
}
