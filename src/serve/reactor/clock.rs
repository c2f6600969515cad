//! The clock of a service with event loops. It counts coarse steps, because every interval that
//! it measures is at least some tens of milliseconds.

use std::time::Duration;

use crate::sys::Tick;

/// The length of a step.
const STEP_MS: u64 = 8;

/// The current time of a service that was created at `start`: in steps, and at least 1.
#[inline]
pub(super) fn now_since(start: Tick) -> u64 {
    let since = Tick::now().since(start);
    (since.as_secs() * 1000 + u64::from(since.subsec_millis())) / STEP_MS + 1
}

/// The number of steps since `stamp`, which is the low half of a time. The clock of the thread that
/// made the stamp may be a step ahead.
pub(super) fn age(now: u64, stamp: u32) -> u64 {
    let steps = (now as u32).wrapping_sub(stamp);
    if steps > u32::MAX / 2 { 0 } else { u64::from(steps) }
}

pub(super) fn span(steps: u64) -> Duration {
    Duration::from_millis(steps.saturating_mul(STEP_MS))
}

/// The number of steps in `time`, rounded up so that nothing is due early.
pub(super) fn steps(time: Duration) -> u64 {
    let millis = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX).div_ceil(STEP_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_holds_when_the_stamp_wraps() {
        assert_eq!(age(100, 90), 10);
        assert_eq!(age(90, 91), 0, "another thread's stamp");
        assert_eq!(age((1 << 32) + 5, u32::MAX - 4), 10);
        assert_eq!(steps(Duration::from_millis(17)), 3);
        assert_eq!(steps(Duration::from_nanos(1)), 1);
        assert_eq!(span(3), Duration::from_millis(24));
    }
}
