//! The step that reads and writes share: one system call, and the wait before it.

use std::io;
use std::result::Result as StdResult;
use std::sync::PoisonError;

use super::ClientSocket;
use super::flags::{
    CLOSING, DRAINING, FAST_OPEN, HALF_CLOSED, NONBLOCK_PENDING, NONBLOCKING, RECV_EOF, SEQPACKET,
    UNWRITTEN, USES_POLL, WROTE_AFTER_EOF,
};
use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::io::lock::Guard;
use crate::io::timeout::{CallTimeout, MAX_CALL_BYTES};
use crate::io::wait::Cause;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, InUse, Interest, Wait};
use crate::types::error::{ErrorKind, Result};

impl ClientSocket {
    /// Starts a call.
    #[inline]
    pub(super) fn enter(&self, operation: &'static str) -> Result<InUse<'_>> {
        match self.descriptor.enter() {
            Some(io) => Ok(io),
            None => Err(self.closed_error(operation)),
        }
    }

    /// Whether one of `flags` is set.
    #[inline]
    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & flags != 0
    }

    /// Whether this program has closed the socket or is closing it.
    pub(super) fn is_closing(&self, io: &InUse<'_>) -> bool {
        io.is_closed() || self.has(CLOSING)
    }

    /// Clones the cancel token.
    pub(super) fn cancel_token(&self) -> Option<CancelToken> {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of bytes, at most `len`, that one system call may move.
    pub(super) fn max_call_len(&self, timeout: &CallTimeout, len: usize) -> usize {
        let interruptible = timeout.is_limited() || self.has(USES_POLL);
        if interruptible && !self.has(SEQPACKET) { len.min(MAX_CALL_BYTES) } else { len }
    }

    /// Reads once, and waits as the mode of the socket requires.
    pub(super) fn recv(
        &self,
        io: &InUse<'_>,
        buf: &mut [u8],
        timeout: &mut CallTimeout,
    ) -> StdResult<usize, Cause> {
        let most = self.max_call_len(timeout, buf.len());
        let done = self.step(io, timeout, Interest::Read, |wait| {
            sys::recv(io.socket(), &mut buf[..most], wait)
        })?;
        if done == 0 { self.on_eof(io) } else { Ok(done) }
    }

    /// Writes once, and waits as the mode of the socket requires. The caller holds the write lock.
    pub(super) fn send(
        &self,
        io: &InUse<'_>,
        timeout: &mut CallTimeout,
        call: impl FnMut(Wait) -> io::Result<usize>,
    ) -> StdResult<usize, Cause> {
        let before = self.flags.load(Ordering::Relaxed);
        if before & FAST_OPEN != 0 && before & UNWRITTEN != 0 {
            // This call starts the handshake. poll(2) reports the socket as writable before that,
            // so a call that only polls would return before the peer has answered.
            timeout.polls = false;
        }
        let sent = match self.step(io, timeout, Interest::Write, call) {
            Err(cause) if before & SEQPACKET != 0 => return Err(ClientSocket::map_too_long(cause)),
            sent => sent?,
        };
        if sent > 0 {
            self.note_accepted(before);
        }
        self.note_wrote();
        Ok(sent)
    }

    /// Records that the kernel has accepted data. `before` are the flags at the start of the call.
    /// The caller holds the write lock, so that a close sees the change once it gets the lock.
    #[inline]
    pub(super) fn note_accepted(&self, before: u32) {
        if before & UNWRITTEN != 0 {
            self.flags.fetch_and(!UNWRITTEN, Ordering::Relaxed);
        }
        if before & (RECV_EOF | WROTE_AFTER_EOF) == RECV_EOF {
            self.flags.fetch_or(WROTE_AFTER_EOF, Ordering::Relaxed);
        }
    }

    /// Makes one system call that reads or writes, and waits as the mode of the socket requires.
    pub(super) fn step(
        &self,
        io: &InUse<'_>,
        timeout: &mut CallTimeout,
        interest: Interest,
        mut call: impl FnMut(Wait) -> io::Result<usize>,
    ) -> StdResult<usize, Cause> {
        if !self.has(USES_POLL | NONBLOCKING) && !timeout.polls {
            self.switch_to_blocking(io)?;
            timeout.polls = true;
            if let Some(result) = self.classify_result(io, call(Wait::Yes), timeout) {
                return result;
            }
        }
        // Reads usually have to wait, and writes usually do not, so only reads poll first.
        if interest == Interest::Read {
            self.wait_ready(io, interest, timeout.deadline())?;
        } else if self.has(USES_POLL) && self.cancel_token().is_some_and(|t| t.is_fired()) {
            return Err(ErrorKind::Cancelled.into());
        }
        loop {
            match call(Wait::No) {
                Ok(n) => {
                    if interest == Interest::Read {
                        self.note_received();
                    }
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.has(NONBLOCKING) {
                        return Err(self.would_block());
                    }
                    self.wait_ready(io, interest, timeout.deadline())?;
                }
                Err(e) => return Err(self.record_error(io, &e)),
            }
        }
    }

    /// Interprets the result of a system call that could wait in the kernel. `None`: the call
    /// continues for the rest of its time.
    pub(super) fn classify_result(
        &self,
        io: &InUse<'_>,
        result: io::Result<usize>,
        timeout: &CallTimeout,
    ) -> Option<StdResult<usize, Cause>> {
        match result {
            Ok(n) => Some(Ok(n)),
            // signal(7): the kernel does not restart a call with SO_RCVTIMEO or SO_SNDTIMEO, and a
            // second call would start with the full time again.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => None,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || sys::is_in_progress(&e) => {
                // Either the kernel's timer has expired, or another user of the descriptor has set
                // O_NONBLOCK. In the second case the call waits in poll for the rest of its time.
                let timed_out = timeout.kernel_timer_expired() && !self.has(NONBLOCKING);
                timed_out.then(|| Err(ErrorKind::TimedOut.into()))
            }
            Err(e) => Some(Err(self.record_error(io, &e))),
        }
    }

    /// The cause of a call that would block. On a connection that a limit has ended there is nothing
    /// to wait for.
    pub(super) fn would_block(&self) -> Cause {
        self.limit_end().unwrap_or(ErrorKind::WouldBlock.into())
    }

    /// Waits until the socket is ready. In non-blocking mode the function does not wait, and the
    /// next system call determines whether the socket is ready.
    pub(super) fn wait_ready(
        &self,
        io: &InUse<'_>,
        interest: Interest,
        deadline: Deadline,
    ) -> StdResult<(), Cause> {
        if let Some(cause) = self.limit_end() {
            return Err(cause);
        }
        // A socket that does not use poll has no token.
        let cancel = if self.has(USES_POLL) { self.cancel_token() } else { None };
        if self.has(NONBLOCKING) {
            let fired = cancel.is_some_and(|token| token.is_fired());
            return if fired { Err(ErrorKind::Cancelled.into()) } else { Ok(()) };
        }
        // On Unix systems a shutdown of sending ends the poll of a writer.
        let (end, cause) = match interest {
            Interest::Read => (DRAINING, ErrorKind::Draining.into()),
            _ if sys::MAX_WAIT.is_none() => (0, ErrorKind::Closed.into()),
            _ => (HALF_CLOSED, Cause::Over(ErrorKind::WrongState, None)),
        };
        let ended = || self.is_closing(io) || self.has(end);
        match self.wait_alive(io, interest, deadline, cancel.as_ref(), ended) {
            Err(Cause::Kind(ErrorKind::Closed)) if !self.is_closing(io) => Err(cause),
            other => other.map(|_| ()),
        }
    }

    /// Locks the socket for a write, and waits for other writers as the mode of the socket requires.
    pub(super) fn lock_writes(
        &self,
        io: &InUse<'_>,
        timeout: &CallTimeout,
    ) -> StdResult<Guard<'_>, Cause> {
        match self.write_lock.try_lock() {
            Some(_) if self.is_closing(io) => Err(ErrorKind::Closed.into()),
            Some(guard) => self.require_writable().map(|()| guard),
            None if self.has(NONBLOCKING) => Err(ErrorKind::WouldBlock.into()),
            None => {
                let (deadline, cancel) = (timeout.deadline(), self.cancel_token());
                let _aside = io.aside();
                let guard = self.write_lock.lock(|| {
                    let cancelled = cancel.as_ref().is_some_and(CancelToken::is_fired);
                    match () {
                        () if self.is_closing(io) => Err(Cause::from(ErrorKind::Closed)),
                        () if cancelled => Err(ErrorKind::Cancelled.into()),
                        () if deadline.has_passed() => Err(ErrorKind::TimedOut.into()),
                        () => Ok(()),
                    }
                })?;
                // The writer that held the lock leaves early if a limit ends the connection.
                self.require_writable().map(|()| guard)
            }
        }
    }

    /// Clears the O_NONBLOCK that connecting has left on the descriptor. Connecting leaves it because
    /// a connection that is only closed or polled needs no other mode. Calls of other threads that
    /// are in progress are not affected: a call that starts before the switch and gets EAGAIN
    /// continues in poll, as after a signal.
    pub(super) fn switch_to_blocking(&self, io: &InUse<'_>) -> io::Result<()> {
        if !self.has(NONBLOCK_PENDING) {
            return Ok(());
        }
        let _mode = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has(NONBLOCK_PENDING) {
            sys::set_nonblocking(io.socket(), false)?;
            self.flags.fetch_and(!NONBLOCK_PENDING, Ordering::AcqRel);
        }
        Ok(())
    }
}
