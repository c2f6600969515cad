//! Waiting: the one place that handles deadlines, cancel tokens, closing and signals.

use std::io;
use std::time::Duration;

use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::sys::{self, Borrowed, Interest, Ready};
use crate::types::error::{About, Error, ErrorKind, SHUT_DOWN};

/// The reason why a step of a call failed. The public call adds its operation and its endpoint.
#[derive(Debug)]
pub(crate) enum Cause {
    Kind(ErrorKind),
    /// A system call failed.
    Os(io::Error),
    /// The connection has ended or its handshake has failed, possibly with an error number of the
    /// kernel.
    Over(ErrorKind, Option<i32>),
    /// A socket option was not set.
    Option(Box<OptionFailure>),
    /// The state of the connection does not permit the call: the text states why, and the remedy.
    State(&'static str),
}

/// Why a socket option was not set.
#[derive(Debug)]
pub(crate) struct OptionFailure {
    kind: ErrorKind,
    os_error: Option<i32>,
    /// The option, and what it requires.
    detail: String,
}

impl OptionFailure {
    pub(crate) fn cause(kind: ErrorKind, err: &io::Error, detail: String) -> Cause {
        Cause::Option(Box::new(OptionFailure { kind, os_error: err.raw_os_error(), detail }))
    }

    /// The cause of a system call that failed because of an option: `option` is the name of the
    /// option and its value.
    #[cold]
    pub(crate) fn of(err: &io::Error, option: impl Into<String>) -> Cause {
        OptionFailure::cause(ErrorKind::of(err), err, option.into())
    }
}

impl Cause {
    /// The end of an established connection, as the kernel reports it. ETIMEDOUT then means that
    /// the kernel abandoned the peer, not that the timeout of the call has expired.
    pub(crate) fn ended(err: &io::Error) -> Cause {
        Cause::reported(err, About::Connection)
    }

    /// Every local port is in use, which the kernel reports with another number than EADDRINUSE.
    pub(crate) fn no_free_port(err: &io::Error) -> Cause {
        Cause::Over(ErrorKind::AddressInUse, err.raw_os_error())
    }

    /// A route of this machine discards all packets to the destination, which the kernel reports with
    /// EINVAL.
    pub(crate) fn discarded(err: &io::Error) -> Cause {
        Cause::Over(ErrorKind::Unreachable, err.raw_os_error())
    }

    /// An error that the network caused.
    pub(crate) fn reported(err: &io::Error, about: About) -> Cause {
        Cause::Over(ErrorKind::reported(err, about), err.raw_os_error())
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Cause::Kind(kind) | Cause::Over(kind, _) => *kind,
            Cause::Os(err) => ErrorKind::of(err),
            Cause::Option(failure) => failure.kind,
            Cause::State(_) => ErrorKind::WrongState,
        }
    }

    pub(crate) fn os_error(&self) -> Option<i32> {
        match self {
            Cause::Kind(_) | Cause::State(_) => None,
            Cause::Os(err) => err.raw_os_error(),
            Cause::Over(_, code) => *code,
            Cause::Option(failure) => failure.os_error,
        }
    }

    /// The text of the error, in addition to the kind and the error number.
    pub(crate) fn detail(&self) -> &str {
        match self {
            Cause::Option(failure) => &failure.detail,
            Cause::Over(ErrorKind::WrongState, _) => SHUT_DOWN,
            Cause::State(why) => why,
            _ => "",
        }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        let error = Error::new(self.kind(), operation).with_os_error(self.os_error());
        match self.detail() {
            "" => error,
            detail => error.detail(detail),
        }
    }
}

/// The reason why an internal call failed. "Would block" is frequent, so no error object is created
/// for it.
pub(crate) enum Stop {
    /// The call would block, in non-blocking mode, after this number of bytes.
    WouldBlock(usize),
    Failed(Error),
}

/// As `Result<usize, Stop>`, in a form that functions return in registers. A result in memory costs
/// the fast path, which is inlined around the call, six instructions.
pub(crate) enum Outcome {
    Done(usize),
    WouldBlock(usize),
    Failed(Error),
}

impl From<Result<usize, Stop>> for Outcome {
    #[inline]
    fn from(result: Result<usize, Stop>) -> Outcome {
        match result {
            Ok(n) => Outcome::Done(n),
            Err(Stop::WouldBlock(n)) => Outcome::WouldBlock(n),
            Err(Stop::Failed(error)) => Outcome::Failed(error),
        }
    }
}

impl From<Outcome> for Result<usize, Stop> {
    #[inline]
    fn from(outcome: Outcome) -> Result<usize, Stop> {
        match outcome {
            Outcome::Done(n) => Ok(n),
            Outcome::WouldBlock(n) => Err(Stop::WouldBlock(n)),
            Outcome::Failed(error) => Err(Stop::Failed(error)),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
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

/// Waits until the socket is ready. Without a socket it waits until the deadline and returns `Ok`.
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

/// Waits until one of the sockets is writable, and returns its index. `None`: the event `also` was
/// set, the deadline has passed, or the caller has to check both.
pub(crate) fn wait_writable(
    sockets: &[Borrowed<'_>],
    also: Option<&sys::Event>,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
) -> Result<Option<usize>, Cause> {
    // On some platforms a poll does not observe events, so the caller has to check.
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

/// Waits until one of the sockets is ready, and returns the index of the first one. The event
/// `closing` makes it call `is_closed`.
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

/// The part of a wait that one poll covers. Linux may end a poll late by 0.1 % of its time, in a
/// niced process by 0.5 % (fs/select.c), and by 100 ms at most. So a long wait ends with a separate
/// poll.
fn first_part(remaining: Duration) -> Duration {
    if remaining > Duration::from_secs(1) { remaining - remaining / 32 } else { remaining }
}

/// The longest poll with a cancel token of the parent process, whose event this process does not
/// poll.
const INHERITED_WAIT: Duration = Duration::from_millis(25);

fn wait_with<T>(
    deadline: Deadline,
    cancel: Option<&CancelToken>,
    is_closed: impl Fn() -> bool,
    poll: impl Fn(Option<&sys::Event>, Option<Duration>) -> io::Result<Option<T>>,
) -> Result<Option<T>, Cause> {
    let is_fired = || cancel.is_some_and(CancelToken::is_fired);
    loop {
        if is_closed() {
            return Err(ErrorKind::Closed.into());
        }
        if is_fired() {
            return Err(ErrorKind::Cancelled.into());
        }
        let inherited = cancel.is_some_and(CancelToken::is_inherited);
        let longest = if inherited { Some(INHERITED_WAIT) } else { sys::MAX_WAIT };
        let slice = match (deadline.remaining().map(first_part), longest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match poll(cancel.and_then(CancelToken::own_event), slice) {
            Ok(Some(found)) if !is_closed() && !is_fired() => return Ok(Some(found)),
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

    /// C1: a long wait ends as precisely as a short one, with few polls.
    #[test]
    fn long_wait_ends_with_a_separate_poll() {
        let late = |poll: Duration| (poll / 200).min(Duration::from_millis(100));
        for seconds in [1, 2, 10, 30, 300, 86_400] {
            let mut remaining = Duration::from_secs(seconds);
            let mut polls = 0;
            while first_part(remaining) < remaining {
                let poll = first_part(remaining);
                assert!(poll + late(poll) <= remaining);
                remaining -= poll;
                polls += 1;
            }
            assert!(late(remaining) <= Duration::from_millis(5));
            assert!(polls <= 4, "{seconds} s: {polls} polls");
        }
    }
}
