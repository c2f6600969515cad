//! Timeouts of calls: the configured time, and the time that one call has left.

use std::time::Duration;

use crate::io::deadline::Deadline;
use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::sys::{self, Tick};

/// The value of a [`TimeoutCell`] without a timeout.
const UNLIMITED: u64 = u64::MAX;

/// The most bytes that one system call moves if the call has a deadline or a cancel token. The
/// kernel checks neither of them while it copies.
pub(crate) const MAX_CALL_BYTES: usize = 4 << 20;

/// Converts to milliseconds and rounds up, so that a short time does not become zero.
pub(crate) fn millis(time: Duration) -> u64 {
    let part = u64::from(time.subsec_nanos().div_ceil(1_000_000));
    time.as_secs().saturating_mul(1000).saturating_add(part)
}

/// The configured timeout of one kind of call, in milliseconds. Any thread may change it at any
/// time. A call that is in progress keeps the timeout with which it started.
#[derive(Debug)]
pub(crate) struct TimeoutCell(AtomicU64);

impl TimeoutCell {
    pub(crate) fn new(timeout: Option<Duration>) -> TimeoutCell {
        TimeoutCell(AtomicU64::new(timeout.map_or(UNLIMITED, millis)))
    }

    /// `None`: calls have no time limit.
    #[inline]
    pub(crate) fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            UNLIMITED => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    pub(crate) fn set(&self, timeout: Option<Duration>) {
        self.0.store(timeout.map_or(UNLIMITED, millis), Ordering::Release);
    }

    /// The deadline of a call that starts now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.get())
    }
}

/// The time that one call has, counted from its start.
///
/// The kernel measures the time of a call that waits in read(2) or write(2) (SO_RCVTIMEO,
/// SO_SNDTIMEO). This type decides whether an EAGAIN of the kernel means that the time has passed,
/// and returns the deadline for a call that waits in poll(2).
pub(crate) struct CallTimeout {
    started: Option<(Tick, Duration)>,
    /// The call does not wait in the kernel: the kernel's timer has run once for this call, and
    /// another system call would restart it.
    pub(crate) polls: bool,
    /// The call started with a timeout, which another thread may have removed since.
    had_timeout: bool,
    /// The end of a short timeout, on a clock with a finer resolution.
    exact: Option<Deadline>,
    /// The time that the call needs before its deadline, to keep the bytes that it has received.
    reserve: Duration,
}

impl CallTimeout {
    /// The kernel's timer may appear to expire early by this time, which includes the lag of the
    /// coarse clock.
    const SLACK: Duration = Duration::from_millis(20);

    /// Calls with a timeout below this wait in poll(2). The kernel counts SO_RCVTIMEO and
    /// SO_SNDTIMEO in clock ticks of up to 10 ms and expires up to two ticks late, which is more
    /// than 5 % of a shorter timeout.
    pub(crate) const SHORT: Duration = Duration::from_millis(400);

    /// The time of a call that started at `start`, or starts now.
    pub(crate) fn new(timeout: &TimeoutCell, start: Option<Tick>) -> CallTimeout {
        let started = timeout.get().map(|time| (start.unwrap_or_else(Tick::now), time));
        let short = started.filter(|(_, time)| sys::BLOCKING_CALLS && *time < CallTimeout::SHORT);
        let exact = short.map(|(_, time)| Deadline::after(Some(time)));
        CallTimeout {
            started,
            polls: exact.is_some(),
            had_timeout: start.is_some(),
            exact,
            reserve: Duration::ZERO,
        }
    }

    /// Whether the call has a time limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.started.is_some()
    }

    /// Whether EAGAIN from a system call that could wait means that the timeout has expired.
    pub(crate) fn kernel_timer_expired(&self) -> bool {
        match self.started {
            None => self.had_timeout,
            Some((start, timeout)) => {
                timeout > CallTimeout::SLACK && start.elapsed() + CallTimeout::SLACK >= timeout
            }
        }
    }

    /// Reserves the time to put `done` of `total` bytes back. No time is reserved if all of them
    /// arrive before the deadline at the rate so far.
    pub(crate) fn reserve_for(&mut self, done: usize, total: usize) {
        self.reserve = self.started.map_or(Duration::ZERO, |(start, timeout)| {
            put_back_time(start.elapsed(), timeout, done, total)
        });
    }

    /// Whether the time has passed, for a call that makes several system calls.
    pub(crate) fn has_expired(&self) -> bool {
        self.started.is_some_and(|(start, timeout)| start.elapsed() + self.reserve >= timeout)
    }

    /// The deadline for a wait in poll(2).
    pub(crate) fn deadline(&self) -> Deadline {
        if let Some(Deadline(Some(exact))) = self.exact {
            return Deadline(exact.checked_sub(self.reserve).or(Some(exact)));
        }
        let left = |(start, timeout): (Tick, Duration)| {
            timeout.saturating_sub(start.elapsed()).saturating_sub(self.reserve)
        };
        Deadline::after(self.started.map(left))
    }
}

/// The time to put back `done` bytes. Each byte beyond the first 4 MiB takes 2 ns, the cost of a
/// copy into new memory. The result is zero if `total` bytes arrive before the timeout at the rate
/// so far, and never longer than the call has taken to receive the bytes.
fn put_back_time(elapsed: Duration, timeout: Duration, done: usize, total: usize) -> Duration {
    let in_time = elapsed.as_nanos().saturating_mul(total as u128)
        <= timeout.as_nanos().saturating_mul(done as u128);
    let bytes = if in_time { 0 } else { done.saturating_sub(MAX_CALL_BYTES) };
    Duration::from_nanos(2 * bytes as u64).min(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I1: a call that has received many bytes reserves the time to keep them, unless it receives
    /// the rest before its deadline.
    #[test]
    fn put_back_time_is_zero_for_a_read_that_completes_in_time() {
        let ms = Duration::from_millis;
        let half = 512 << 20;
        assert_eq!(put_back_time(ms(400), ms(1000), half, 2 * half), Duration::ZERO);
        assert_eq!(put_back_time(ms(600), ms(1000), half, 2 * half).as_millis(), 600);
        assert_eq!(put_back_time(ms(600), ms(1000), 54 << 20, 2 * half).as_millis(), 104);
        assert_eq!(put_back_time(ms(600), ms(1000), 4 << 20, 2 * half), Duration::ZERO);
        assert_eq!(put_back_time(ms(0), ms(0), 0, usize::MAX), Duration::ZERO);
    }

    #[test]
    fn timeout_cell_rounds_up_to_milliseconds() {
        let cell = TimeoutCell::new(Some(Duration::from_nanos(500)));
        assert_eq!(cell.get(), Some(Duration::from_millis(1)));
        cell.set(None);
        assert_eq!(cell.get(), None);
        assert_eq!(cell.deadline().0, None);
    }
}
