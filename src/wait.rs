//! Waiting: one place that knows deadlines, cancel tokens, closing and signals.

use std::io;
use std::time::{Duration, Instant};

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind};
use crate::sys::{self, Borrowed, Interest, Ready};

/// Why a step of a call ended without success; the public call adds what it was
/// doing and to whom.
#[derive(Debug)]
pub(crate) enum Cause {
    Kind(ErrorKind),
    /// The system failed the call.
    Os(io::Error),
    /// The system reports the end of an established connection. There ETIMEDOUT
    /// means that the kernel gave the peer up, not that the caller's time is over.
    Ended(io::Error),
}

impl Cause {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Cause::Kind(kind) => *kind,
            Cause::Os(err) => ErrorKind::of(err),
            Cause::Ended(err) => match ErrorKind::of(err) {
                ErrorKind::TimedOut => ErrorKind::Dead,
                kind => kind,
            },
        }
    }

    pub(crate) fn os_error(&self) -> Option<i32> {
        match self {
            Cause::Kind(_) => None,
            Cause::Os(err) | Cause::Ended(err) => err.raw_os_error(),
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
    loop {
        if is_closed() {
            return Err(ErrorKind::Closed.into());
        }
        if cancel.is_some_and(CancelToken::is_fired) {
            return Err(ErrorKind::Cancelled.into());
        }
        let remaining = deadline.remaining();
        let slice = match (remaining, sys::MAX_WAIT) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match sys::poll(socket, cancel.map(CancelToken::event), slice) {
            Ok(ready) if ready.socket && !is_closed() => return Ok(ready),
            Ok(_) if deadline.has_passed() => {
                return if socket.is_none() {
                    Ok(Ready::default())
                } else {
                    Err(ErrorKind::TimedOut.into())
                };
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
