//! Waiting: one place that knows deadlines, cancel tokens, closing and signals.

use std::io;
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind};
use crate::sys::{self, Borrowed, Interest, Ready};

/// Among the milliseconds of timeouts that may be changed while calls look at them: there is none.
pub(crate) const NO_TIMEOUT: u64 = u64::MAX;

/// Rounded up, so that a short time is not none.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(NO_TIMEOUT)
}

/// Waits for a change that another thread tells, or until the deadline.
pub(crate) fn wait_on<'a, T>(
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> MutexGuard<'a, T> {
    match deadline.remaining() {
        None => changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(left) => changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0,
    }
}

/// Why a step of a call ended without success; the public call adds what it was
/// doing and to whom.
#[derive(Debug)]
pub(crate) enum Cause {
    Kind(ErrorKind),
    /// The system failed the call.
    Os(io::Error),
    /// The established connection is over, perhaps by an error of the system's.
    Over(ErrorKind, Option<i32>),
}

impl Cause {
    /// The end of an established connection as the system reports it. There ETIMEDOUT
    /// means that the kernel gave the peer up, not that the caller's time is over.
    pub(crate) fn ended(err: &io::Error) -> Cause {
        let kind = match ErrorKind::of(err) {
            ErrorKind::TimedOut => ErrorKind::Dead,
            kind => kind,
        };
        Cause::Over(kind, err.raw_os_error())
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Cause::Kind(kind) | Cause::Over(kind, _) => *kind,
            Cause::Os(err) => ErrorKind::of(err),
        }
    }

    pub(crate) fn os_error(&self) -> Option<i32> {
        match self {
            Cause::Kind(_) => None,
            Cause::Os(err) => err.raw_os_error(),
            Cause::Over(_, code) => *code,
        }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        Error::new(self.kind(), operation).with_os_error(self.os_error())
    }
}

impl From<io::Error> for Cause {
    fn from(err: io::Error) -> Cause {
        Cause::Os(err)
    }
}

impl From<ErrorKind> for Cause {
    fn from(kind: ErrorKind) -> Cause {
        Cause::Kind(kind)
    }
}

/// A moment on the monotonic clock, or never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Option<Instant>);

impl Deadline {
    /// A timeout too long for the clock is as good as none.
    pub(crate) fn after(timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.and_then(|t| Instant::now().checked_add(t)))
    }

    pub(crate) fn from(start: Instant, timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.and_then(|t| start.checked_add(t)))
    }

    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }

    pub(crate) fn earlier(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Deadline(Some(a.min(b))),
            (a, b) => Deadline(a.or(b)),
        }
    }
}

/// Waits until the socket is ready. Without a socket it waits for the deadline,
/// and `Ok` says that it came.
pub(crate) fn wait(
    socket: Option<(Borrowed<'_>, Interest)>,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
    is_closed: impl Fn() -> bool,
) -> Result<Ready, Cause> {
    let found = wait_with(deadline, cancel, is_closed, |event, slice| {
        let ready = sys::poll(socket, event, slice)?;
        Ok(ready.socket.then_some(ready))
    })?;
    match found {
        Some(ready) => Ok(ready),
        None if socket.is_none() => Ok(Ready::default()),
        None => Err(ErrorKind::TimedOut.into()),
    }
}

/// Waits until one of the sockets is writable, and says which; `None`: the other event was
/// set, the deadline came, or it is time to look whether either is so.
pub(crate) fn wait_writable(
    sockets: &[Borrowed<'_>],
    also: Option<&sys::Event>,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
) -> Result<Option<usize>, Cause> {
    // Where a poll does not see events the caller has to look.
    let look = Deadline::after(also.and(sys::MAX_WAIT));
    let woken = wait_with(
        deadline.earlier(look),
        cancel,
        || false,
        |event, slice| {
            let woken = sys::poll_any(sockets, Interest::Write, [event, also], slice)?;
            Ok(woken.socket.map(Some).or_else(|| woken.events[1].then_some(None)))
        },
    )?;
    Ok(woken.flatten())
}

/// Waits until one of the sockets is ready, and says which is the first. The other event has it
/// look whether they are closed.
pub(crate) fn wait_any(
    sockets: &[Borrowed<'_>],
    interest: Interest,
    deadline: Deadline,
    (cancel, closing): (Option<&CancelToken>, Option<&sys::Event>),
    is_closed: impl Fn() -> bool,
) -> Result<usize, Cause> {
    let found = wait_with(deadline, cancel, is_closed, |event, slice| {
        Ok(sys::poll_any(sockets, interest, [event, closing], slice)?.socket)
    })?;
    found.ok_or_else(|| ErrorKind::TimedOut.into())
}

/// How much of a wait one poll does. Linux lets a poll end late by 0.1 % of its
/// time, in a niced process by 0.5 % (fs/select.c), at most 100 ms; so the end of
/// a long wait has a poll of its own.
fn at_once(remaining: Duration) -> Duration {
    if remaining > Duration::from_secs(1) { remaining - remaining / 32 } else { remaining }
}

fn wait_with<T>(
    deadline: Deadline,
    cancel: Option<&CancelToken>,
    is_closed: impl Fn() -> bool,
    poll: impl Fn(Option<&sys::Event>, Option<Duration>) -> io::Result<Option<T>>,
) -> Result<Option<T>, Cause> {
    loop {
        if is_closed() {
            return Err(ErrorKind::Closed.into());
        }
        if cancel.is_some_and(CancelToken::is_fired) {
            return Err(ErrorKind::Cancelled.into());
        }
        let slice = match (deadline.remaining().map(at_once), sys::MAX_WAIT) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match poll(cancel.map(CancelToken::event), slice) {
            Ok(Some(found)) if !is_closed() => return Ok(Some(found)),
            Ok(None) if deadline.has_passed() => return Ok(None),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C1: a long wait ends as exactly as a short one, in few polls.
    #[test]
    fn the_end_of_a_long_wait_is_waited_for_by_itself() {
        let late = |poll: Duration| (poll / 200).min(Duration::from_millis(100));
        for seconds in [1, 2, 10, 30, 300, 86_400] {
            let mut remaining = Duration::from_secs(seconds);
            let mut polls = 0;
            while at_once(remaining) < remaining {
                let poll = at_once(remaining);
                assert!(poll + late(poll) <= remaining);
                remaining -= poll;
                polls += 1;
            }
            assert!(late(remaining) <= Duration::from_millis(5));
            assert!(polls <= 4, "{seconds} s: {polls} polls");
        }
    }

    #[test]
    fn the_earlier_of_two_deadlines() {
        let now = Instant::now();
        let (soon, late) = (Deadline(Some(now)), Deadline(Some(now + Duration::from_secs(1))));
        assert_eq!(soon.earlier(late).0, soon.0);
        assert_eq!(Deadline(None).earlier(late).0, late.0);
        assert_eq!(Deadline(None).earlier(Deadline(None)).0, None);
        assert_eq!(Deadline::after(Some(Duration::MAX)).0, None);
    }
}
