//! The end of a connection: wait for it, half-close, graceful close, abort, drain.

use std::io;
use std::net::Shutdown;
use std::result::Result as StdResult;
use std::time::Duration;

use crate::sys::SockRef;

use super::ClientSocket;
use super::closer::{self, Until};
use super::flags::{
    CLOSING, DRAINING, HALF_CLOSED, NONBLOCKING, RECV_EOF, RESET, UNWRITTEN, USES_POLL,
    WRITE_INTERRUPTED, WROTE_AFTER_EOF,
};
use super::liveness::hard_error;
use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::io::wait::{Cause, wait};
use crate::log;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Borrowed, InUse, Interest, Owned, Ready, Wait};
use crate::types::close_reason::CloseReason;
use crate::types::error::{ErrorKind, Result};

/// The time between two attempts after an error of the kernel that may be transient.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The size of a chunk of discarded input.
const CHUNK: usize = 4096;

/// The number of chunks that a close without a timeout discards.
const MAX_DISCARDED_CHUNKS: u32 = 64;

/// The longest time between two queries of the number of unacknowledged bytes.
const MAX_QUERY_INTERVAL: Duration = Duration::from_millis(20);

/// The time after which a writer that has the lock is taken for a waiting one.
const WRITER_PAUSE: Duration = Duration::from_millis(10);

/// Whether the peer's kernel has everything that was written before a FIN. The peer's kernel has the
/// bytes of a Unix socket once they are written.
pub(crate) fn is_delivered(socket: Borrowed<'_>, is_inet: bool) -> bool {
    // Linux counts the FIN as an unacknowledged byte.
    const FIN: usize = cfg!(keepsock_linux) as usize;
    !is_inet || sys::unacknowledged(socket) <= FIN
}

/// Interprets the error of a system call of a close.
fn close_error(err: io::Error) -> Cause {
    if sys::is_from_network(&err) { Cause::ended(&err) } else { err.into() }
}

/// The event that a close has to wait for before it may close the descriptor without losing data.
enum CloseWait {
    Nothing,
    /// The peer's FIN. Input before it is discarded.
    Fin,
    /// The peer's kernel has acknowledged all data. Reading was shut down.
    Acknowledgment,
    /// The peer's kernel has acknowledged all data, and the peer has not rejected the data that was
    /// written after its FIN.
    Acceptance,
}

impl ClientSocket {
    /// Waits until the connection ends, without reading, and returns the reason. The peer may close
    /// its side or reset the connection, or the kernel may find that the peer is dead. Data that
    /// arrived before stays readable.
    ///
    /// `timeout` is the longest time to wait; `None`: no limit; zero: the call does not wait.
    ///
    /// The call sends heartbeats and detects a dead peer by
    /// [`dead_after`](crate::SocketOptions::dead_after). Because it does not read, it does not apply
    /// the heartbeat timeout or the idle timeout. It returns their reason if another call has ended
    /// the connection by them. It applies the [`proxy_timeout`](crate::SocketOptions::proxy_timeout).
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): the connection has not ended within `timeout`.
    /// - [`Cancelled`](ErrorKind::Cancelled): the cancel token of the socket was fired.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Draining`](ErrorKind::Draining): the service that accepted the connection is draining.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform is not Linux, Windows, macOS, a BSD or
    ///   illumos, so poll does not report the end of a connection.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call for
    ///   another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, CloseReason, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # let accepted = server.accept()?;
    /// client.shutdown_write()?;
    /// # if cfg!(target_os = "linux") {
    /// assert_eq!(accepted.wait_hangup(None)?, CloseReason::PeerClosed);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait_hangup(&self, timeout: impl Into<Option<Duration>>) -> Result<CloseReason> {
        const OPERATION: &str = "wait for hang-up";
        let io = self.enter(OPERATION)?;
        if !sys::SEES_HANGUP {
            return Err(self.failed(OPERATION, ErrorKind::Unsupported.into(), 0));
        }
        let deadline = Deadline::after(timeout.into());
        let cancel = self.cancel_token();
        // A drain shuts down receives, which ends a poll for hang-up on Unix systems only.
        let drains = sys::MAX_WAIT.is_some();
        let ended = || self.is_closing(&io) || (drains && self.has(DRAINING));
        self.hangup_waiters.fetch_add(1, Ordering::SeqCst);
        let waited = self.wait_alive(&io, Interest::Hangup, deadline, cancel.as_ref(), ended);
        self.hangup_waiters.fetch_sub(1, Ordering::SeqCst);
        let ready = waited.or_else(|cause| match cause {
            // A liveness check has found the end.
            Cause::Over(..) => Ok(Ready { socket: true, error: false }),
            Cause::Kind(ErrorKind::Closed) if !self.is_closing(&io) && self.has(DRAINING) => {
                Ok(Ready { socket: true, error: false })
            }
            // It has reset the connection because of a PROXY header that is not valid.
            _ if self.recorded_close_reason() == Some(CloseReason::MessageMalformed) => {
                Ok(Ready { socket: true, error: false })
            }
            other => Err(self.failed(OPERATION, other, 0)),
        })?;
        if ready.error {
            // Reading SO_ERROR clears it, so the error is recorded for later calls.
            if let Some(e) = sys::hangup_error(io.socket()) {
                self.record_pending_error(&io, &e);
            }
        }
        let known = (self.limit_end())
            .or_else(|| self.recorded_error(&io))
            .or_else(|| self.lost_error(&io, true));
        match known.inspect(|cause| self.log_end(cause)).map(|cause| cause.kind()) {
            _ if self.recorded_close_reason() == Some(CloseReason::MessageMalformed) => {
                Ok(CloseReason::MessageMalformed)
            }
            None if self.has(DRAINING) => {
                Err(self.failed(OPERATION, ErrorKind::Draining.into(), 0))
            }
            None => {
                self.note_eof();
                Ok(CloseReason::PeerClosed)
            }
            Some(ErrorKind::Dead) => Ok(CloseReason::Dead),
            Some(ErrorKind::Stalled) => Ok(CloseReason::Stalled),
            Some(ErrorKind::Reset) => Ok(CloseReason::PeerReset),
            Some(ErrorKind::IdleTimeout) => Ok(CloseReason::IdleTimeout),
            Some(ErrorKind::HeartbeatTimeout) => Ok(CloseReason::HeartbeatTimeout),
            Some(_) => Ok(CloseReason::Unreachable),
        }
    }

    /// Shuts down sending (half-close): the kernel sends FIN after the data that was written. The
    /// peer reads the data and then the end of the stream. Reading from the peer is still possible.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    #[doc = kernel_end_errors!()]
    /// - [`HeartbeatTimeout`](ErrorKind::HeartbeatTimeout): the connection had ended by the
    ///   [`heartbeat_timeout`](crate::SocketOptions::heartbeat_timeout).
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call for
    ///   another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # let accepted = server.accept()?;
    /// client.shutdown_write()?;
    /// assert_eq!(accepted.read(&mut [0; 8])?, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn shutdown_write(&self) -> Result<()> {
        const OPERATION: &str = "shutdown";
        let io = self.enter(OPERATION)?;
        if self.is_closing(&io) {
            return Err(self.closed_error(OPERATION));
        }
        let ended = self.require_writable().err().or_else(|| self.stored_error());
        if let Some(cause) = ended {
            return Err(self.failed(OPERATION, cause, 0));
        }
        // The flag is set before the call, so that a write that fails because of the call finds it.
        self.flags.fetch_or(HALF_CLOSED, Ordering::AcqRel);
        SockRef::from(&io.socket())
            .shutdown(Shutdown::Write)
            .map_err(|e| self.failed(OPERATION, self.record_error(&io, &e), 0))
    }

    /// Closes the connection gracefully: the peer receives every byte that was written, even if it
    /// is still sending.
    ///
    /// The call sends FIN, reads and discards input until the peer has also closed its side, and
    /// closes the descriptor. It waits at most for the
    /// [`close_timeout`](crate::SocketOptions::close_timeout). It does not wait if the peer has
    /// already closed its side, or if nothing was written. (Closing a socket with unread input would
    /// send RST, and the peer's kernel might then discard data that its program has not read yet:
    /// RFC 2525 section 2.17.)
    ///
    /// In non-blocking mode the call sends FIN and returns. A thread of the library completes the
    /// close within the close timeout, as it does for a dropped socket. With a close timeout of zero
    /// the call sends FIN and closes the descriptor, also in non-blocking mode.
    ///
    /// Any thread may close the socket at any time. Calls of other threads that wait on it fail with
    /// [`Closed`](ErrorKind::Closed), and the close then waits only until the peer's kernel has
    /// acknowledged all data. A second call returns `Ok`.
    ///
    /// # Errors
    /// The socket is closed in every case.
    /// - [`TimedOut`](ErrorKind::TimedOut): it is unknown whether the peer has received everything.
    ///   The peer did not close its side within the close timeout; or the close timeout is zero and
    ///   the peer's kernel has not acknowledged all data; or the close interrupted a write of
    ///   another thread.
    /// - [`Reset`](ErrorKind::Reset), [`Dead`](ErrorKind::Dead),
    ///   [`Unreachable`](ErrorKind::Unreachable), [`Stalled`](ErrorKind::Stalled),
    ///   [`HeartbeatTimeout`](ErrorKind::HeartbeatTimeout): the connection ended abnormally, in this
    ///   call or in an earlier one, after the kernel had accepted data from this program. The peer
    ///   may not have received the data.
    /// - [`Closed`](ErrorKind::Closed): another thread aborted the connection during the call.
    /// - [`Cancelled`](ErrorKind::Cancelled): the cancel token of the socket was fired.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call for
    ///   another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ErrorKind, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.close()?;
    /// client.close()?;
    /// assert_eq!(client.write_all(b"x").unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn close(&self) -> Result<()> {
        let Some(io) = self.begin_close() else {
            return Ok(());
        };
        // The address is queried before the descriptor is closed, for later calls of five_tuple.
        self.local_address(Some(io.socket()));
        let others = self.other_calls_wait(&io);
        if self.closes_in_background() && !others {
            let closed = self.finish_in_background(io).and_then(|()| self.check_write_completed());
            return closed.map_err(|cause| self.failed("close", cause, 0));
        }
        let drained = if others { self.end_other_calls(&io) } else { self.await_peer_close(&io) };
        let aborted = io.is_closed();
        if let Err(Cause::Over(kind, _)) = &drained {
            self.set_close_reason_of(*kind);
        }
        self.close_now(&io);
        let closed = match drained {
            // Another thread aborted the connection while this thread discarded input.
            Err(_) if aborted => Err(ErrorKind::Closed.into()),
            drained => drained.and_then(|()| self.check_write_completed()),
        };
        closed.map_err(|cause| self.failed("close", cause, 0))
    }

    /// Starts a close. `None`: the socket is closed, or another thread is closing it.
    #[inline(always)]
    fn begin_close(&self) -> Option<InUse<'_>> {
        let io = self.descriptor.enter_to_close()?;
        if self.flags.fetch_or(CLOSING, Ordering::SeqCst) & CLOSING != 0 {
            return None;
        }
        if !self.descriptor.is_inherited() {
            return Some(io);
        }
        // This process is a forked child, and the connection of the parent continues.
        self.local_address(Some(io.socket()));
        self.set_close_reason(CloseReason::Local);
        self.descriptor.close(&io);
        None
    }

    /// Whether dropping the socket is one system call that does not wait. A socket that does not
    /// use poll has no cancel token.
    #[cfg(feature = "capi")]
    #[inline]
    pub(crate) fn closes_at_once(&self) -> bool {
        let flags = self.flags.load(Ordering::Acquire);
        let received = flags & UNWRITTEN != 0 || flags & (RECV_EOF | WROTE_AFTER_EOF) == RECV_EOF;
        received && flags & USES_POLL == 0
    }

    /// Closes the socket and does not wait. The background closer completes the close.
    #[inline(always)]
    pub(super) fn close_in_background(&self) {
        let closed = self.begin_close().map_or(Ok(()), |io| self.finish_in_background(io));
        if let Err(cause) = closed {
            self.log_end(&cause);
        }
    }

    #[inline(always)]
    fn finish_in_background(&self, io: InUse<'_>) -> StdResult<(), Cause> {
        let remaining = self.shut_down_sending(&io).and_then(|remaining| match remaining {
            CloseWait::Nothing => Ok(None),
            CloseWait::Acknowledgment | CloseWait::Acceptance => {
                // The peer's kernel has the bytes of a Unix socket once they are written.
                Ok(self.is_inet().then_some(Until::Delivered))
            }
            CloseWait::Fin => Ok((!self.discard_input(&io, false)?).then_some(Until::Fin)),
        });
        if let Err(Cause::Over(kind, _)) = &remaining {
            self.set_close_reason_of(*kind);
        }
        let logged = log::logs_lost_connections();
        if logged && !matches!(remaining, Ok(None)) || log::logs_each_connection() {
            self.local_address(Some(io.socket()));
        }
        let cancelled = || self.cancel_token().is_some_and(|token| token.is_fired());
        let until = match remaining {
            Ok(Some(until)) if !self.close_timeout().is_zero() => {
                if self.has(USES_POLL) && cancelled() {
                    Err(ErrorKind::Cancelled.into())
                } else {
                    Ok(until)
                }
            }
            Ok(_) => {
                self.close_now(&io);
                return Ok(());
            }
            Err(cause) => Err(cause),
        };
        let until = until.inspect_err(|_| self.close_now(&io))?;
        self.record_final_state(&io);
        let tuple = logged.then(|| self.five_tuple());
        if let Some(socket) = self.detach_socket(io) {
            closer::close_later(socket, until, self.close_timeout(), tuple);
        }
        if log::logs_each_connection() {
            log::closed(&self.five_tuple(), self.recorded_close_reason());
        }
        Ok(())
    }

    /// Closes this object and returns a descriptor for the background closer. If the descriptor has
    /// other users (a borrowed descriptor, a call in progress), the result is a duplicate.
    fn detach_socket(&self, io: InUse<'_>) -> Option<Owned> {
        if !self.descriptor.is_shared(&io) {
            if let Some(socket) = self.descriptor.release(io) {
                return Some(socket);
            }
            return self.detach_socket(self.descriptor.enter()?);
        }
        // If no descriptor is left for the duplicate, the socket is closed immediately after its
        // FIN.
        let duplicate = sys::call("fcntl", || io.socket().try_clone_to_owned()).ok();
        self.descriptor.close(&io);
        duplicate
    }

    /// Fails if the close ended a write of another thread after a part of its data.
    fn check_write_completed(&self) -> StdResult<(), Cause> {
        if self.has(WRITE_INTERRUPTED) { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Whether the background closer completes a close.
    fn closes_in_background(&self) -> bool {
        self.has(NONBLOCKING) && !self.close_timeout().is_zero()
    }

    /// Fails if an earlier call has observed an abnormal end of the connection, so that written data may
    /// be lost.
    fn check_lost_data(&self) -> StdResult<(), Cause> {
        if self.has(UNWRITTEN) {
            return Ok(());
        }
        match self.os_error.load(Ordering::Acquire) {
            0 => {
                let reason = self.close_reason.load(Ordering::Acquire);
                if reason == CloseReason::HeartbeatTimeout as i32 {
                    return Err(Cause::Over(ErrorKind::HeartbeatTimeout, None));
                }
                Ok(())
            }
            code => Err(self.error_for(code)),
        }
    }

    /// Whether calls of other threads may be waiting on the socket. Calls that do not wait get time
    /// to leave. If there is input, no reader waits, so only a writer and a thread in
    /// [`wait_hangup`](ClientSocket::wait_hangup) may be waiting.
    fn other_calls_wait(&self, io: &InUse<'_>) -> bool {
        let polite = Deadline::after(Some(Duration::from_millis(1)));
        let deadline = Deadline::after(Some(self.close_timeout()));
        let leaving = || {
            let may_wait = self.hangup_waiters.load(Ordering::SeqCst) > 0
                || self.write_lock.try_lock().is_none()
                || sys::unread(io.socket()).is_none_or(|n| n == 0);
            !polite.has_passed() || !may_wait && !deadline.has_passed()
        };
        !self.descriptor.await_calls(io, leaving)
    }

    /// Ends the reads of other threads without losing written data.
    fn end_other_calls(&self, io: &InUse<'_>) -> StdResult<(), Cause> {
        let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        self.check_lost_data()?;
        let Some(_guard) = self.write_lock.try_lock() else {
            // A write that is in progress waits for its peer to read. The close ends it, and data in
            // the send buffer may be lost.
            return Err(ErrorKind::TimedOut.into());
        };
        if self.has(UNWRITTEN) {
            return Ok(());
        }
        if !self.closes_in_background() {
            return self.wait_delivered(io);
        }
        if self.is_undelivered(io) {
            if let Ok(duplicate) = sys::call("fcntl", || io.socket().try_clone_to_owned()) {
                closer::close_later(duplicate, Until::Delivered, self.close_timeout(), None);
            }
        }
        Ok(())
    }

    /// Aborts the connection: TCP sends RST, and data that the peer has not received yet is lost.
    /// Calls of other threads fail with [`Closed`](ErrorKind::Closed). A second call has no effect.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ErrorKind, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # let accepted = server.accept()?;
    /// client.abort();
    /// assert_eq!(accepted.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::Reset);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn abort(&self) {
        if self.reset() && log::logs_each_connection() {
            log::aborted(&self.five_tuple());
        }
    }

    /// Aborts the connection without a log event, so that the caller may hold a lock. The result is
    /// `false` if the socket was closed before.
    pub(crate) fn reset(&self) -> bool {
        let Some(io) = self.descriptor.enter_to_close() else {
            return false;
        };
        let inherited = self.descriptor.is_inherited();
        // A call of another thread that ends by CLOSING finds RESET. Even if that thread closes the
        // descriptor first, the kernel sends RST, because the descriptor is open until this call ends.
        let closing = if inherited { CLOSING } else { CLOSING | RESET };
        self.flags.fetch_or(closing, Ordering::SeqCst);
        if inherited {
            // This process is a forked child, and the connection of the parent continues.
            self.local_address(Some(io.socket()));
            self.set_close_reason(CloseReason::Local);
            return self.descriptor.close(&io);
        }
        // socket(7): with a linger time of zero close(2) sends RST. If this fails, the socket is
        // closed without RST.
        let _ = SockRef::from(&io.socket()).set_linger(Some(Duration::ZERO));
        self.local_address(Some(io.socket()));
        self.record_final_state(&io);
        let closed = self.descriptor.close(&io);
        if closed && (self.descriptor.is_shared(&io) || sys::fork::has_forked()) {
            self.end_other_calls_by_reset(&io);
        }
        closed
    }

    /// Ends the connection at the deadline of a drain. A close in progress ends without the peer's
    /// FIN if the peer has received everything. Otherwise the connection is reset.
    #[cfg(feature = "serve")]
    pub(crate) fn close_or_reset(&self) {
        let closing = self.descriptor.enter_to_close().filter(|_| self.has(CLOSING));
        match closing {
            Some(io)
                if !self.descriptor.is_inherited() && is_delivered(io.socket(), self.is_inet()) =>
            {
                // The close finds the end of the input.
                let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
            }
            _ => drop(self.reset()),
        }
    }

    /// Whether the connection has ended with a reset, by either side, or has failed.
    #[cfg(feature = "serve")]
    pub(crate) fn was_reset(&self) -> bool {
        self.has(RESET)
            || self.os_error.load(Ordering::Acquire) != 0
            || self.recorded_close_reason() == Some(CloseReason::HeartbeatTimeout)
    }

    /// Closes the descriptor of a forked child, whatever calls of the parent's threads are counted.
    #[cfg(feature = "serve")]
    pub(crate) fn close_copy(&self) {
        self.flags.fetch_or(CLOSING, Ordering::SeqCst);
        self.set_close_reason(CloseReason::Local);
        self.descriptor.close_copy();
    }

    /// Ends the calls of other threads and the connection of a forked child's copy, without FIN.
    /// After a FIN the peer could take the data that it has for all data before the RST arrives.
    fn end_other_calls_by_reset(&self, io: &InUse<'_>) {
        if sys::disconnect(io.socket()) {
            return;
        }
        // Readers wake without a FIN. A waiting writer needs the FIN to wake. Where no call resets a
        // connection, the close of the last copy of the descriptor does.
        let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        let has_copies = sys::BLOCKING_CALLS && sys::fork::has_forked();
        if has_copies || self.has_waiting_writer() {
            sys::wake(io.socket());
        }
    }

    /// Whether a writer waits. A writer that does not wait releases the lock at once.
    fn has_waiting_writer(&self) -> bool {
        if !self.is_inet() {
            // A Unix socket has no RST that a FIN could precede, so the wait would have no use.
            return self.write_lock.try_lock().is_none();
        }
        let deadline = Deadline::after(Some(WRITER_PAUSE));
        let check = || if deadline.has_passed() { Err(()) } else { Ok(deadline.remaining()) };
        self.write_lock.lock_with(check).is_err()
    }

    /// Records the close reason and the final statistics, which stay available after the close.
    #[inline(always)]
    fn record_final_state(&self, io: &InUse<'_>) {
        self.set_local_close_reason();
        self.store_final_info_if_configured(io);
    }

    #[inline(always)]
    fn close_now(&self, io: &InUse<'_>) {
        self.record_final_state(io);
        if self.os_error.load(Ordering::Acquire) != 0 {
            // The kernel still has a connection that the library found dead, and would go on trying
            // to deliver the data in the send buffer.
            let _ = SockRef::from(&io.socket()).set_linger(Some(Duration::ZERO));
            if sys::fork::has_forked() {
                sys::disconnect(io.socket());
            }
        }
        if !self.descriptor.close(io) {
            return;
        }
        if self.descriptor.is_shared(io) || sys::fork::has_forked() {
            sys::wake(io.socket());
        }
        if log::logs_each_connection() {
            log::closed(&self.five_tuple(), self.recorded_close_reason());
        }
    }

    /// Shuts down sending if the peer must receive a FIN before the descriptor is closed. Returns
    /// the event that the close has to wait for.
    #[inline(always)]
    fn shut_down_sending(&self, io: &InUse<'_>) -> StdResult<CloseWait, Cause> {
        self.check_lost_data()?;
        if self.has(UNWRITTEN) {
            return Ok(CloseWait::Nothing);
        }
        if self.has(RECV_EOF) {
            // The peer has closed its side. It has received the data that was written before, or it
            // never will.
            let late = self.has(WROTE_AFTER_EOF);
            return Ok(if late { CloseWait::Acceptance } else { CloseWait::Nothing });
        }
        if self.has(DRAINING) {
            return Ok(CloseWait::Acknowledgment);
        }
        if !self.has(HALF_CLOSED) {
            SockRef::from(&io.socket()).shutdown(Shutdown::Write).map_err(close_error)?;
        }
        Ok(CloseWait::Fin)
    }

    /// Sends FIN and waits until the peer has received everything.
    fn await_peer_close(&self, io: &InUse<'_>) -> StdResult<(), Cause> {
        match self.shut_down_sending(io)? {
            CloseWait::Nothing => Ok(()),
            CloseWait::Acknowledgment => self.wait_delivered(io),
            CloseWait::Acceptance => {
                self.wait_delivered(io)?;
                // A peer that has closed both directions answers with RST.
                hard_error(io).map_or(Ok(()), |e| Err(Cause::ended(&e)))
            }
            CloseWait::Fin => {
                let ended = self.discard_input(io, !self.close_timeout().is_zero())?;
                if ended || is_delivered(io.socket(), self.is_inet()) {
                    return Ok(());
                }
                Err(ErrorKind::TimedOut.into())
            }
        }
    }

    /// Discards input. With `waits` the function waits for the peer's FIN within the close timeout.
    /// The result is whether the FIN has arrived.
    fn discard_input(&self, io: &InUse<'_>, waits: bool) -> StdResult<bool, Cause> {
        let deadline = Deadline::after(waits.then(|| self.close_timeout()));
        let cancel = self.cancel_token();
        let mut discarded = [0; CHUNK];
        let mut chunks = 0;
        loop {
            match sys::recv(io.socket(), &mut discarded, Wait::No) {
                Ok(0) => return Ok(true),
                Ok(_) if !waits && chunks == MAX_DISCARDED_CHUNKS => return Ok(false),
                Ok(_) if waits && deadline.has_passed() => return Err(ErrorKind::TimedOut.into()),
                Ok(_) if io.is_closed() => return Err(ErrorKind::Closed.into()),
                Ok(_) if cancel.as_ref().is_some_and(CancelToken::is_fired) => {
                    return Err(ErrorKind::Cancelled.into());
                }
                Ok(_) => chunks = chunks.saturating_add(1),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !waits {
                        return Ok(false);
                    }
                    let socket = Some((io.socket(), Interest::Read));
                    wait(socket, deadline, cancel.as_ref(), || io.is_closed())?;
                }
                Err(e) if sys::is_from_network(&e) => return Err(Cause::ended(&e)),
                // Any other error of the kernel may be transient and does not end the connection.
                Err(_) if !waits => return Ok(false),
                Err(e) if deadline.has_passed() => return Err(e.into()),
                Err(_) => {
                    let retry = deadline.earlier(Deadline::after(Some(RETRY_INTERVAL)));
                    wait(None, retry, cancel.as_ref(), || io.is_closed())?;
                }
            }
        }
    }

    /// Whether the peer's kernel has not acknowledged all data. The peer's kernel has the bytes of a
    /// Unix socket once they are written.
    fn is_undelivered(&self, io: &InUse<'_>) -> bool {
        self.is_inet() && sys::unacknowledged(io.socket()) > 0
    }

    /// Waits until the peer's kernel has acknowledged all data. Needed if reading was shut down:
    /// then input cannot be discarded, and the kernel answers further data of the peer with RST,
    /// which may follow a FIN.
    fn wait_delivered(&self, io: &InUse<'_>) -> StdResult<(), Cause> {
        let deadline = Deadline::after(Some(self.close_timeout()));
        let cancel = self.cancel_token();
        let mut interval = Duration::from_millis(1);
        while self.is_undelivered(io) {
            // The peer acknowledges nothing after a reset.
            if sys::is_gone(io.socket()) {
                self.check_lost_data()?;
                let error = sys::pending_error(io.socket());
                return Err(error.map_or(ErrorKind::Reset.into(), |e| Cause::ended(&e)));
            }
            if deadline.has_passed() {
                return Err(ErrorKind::TimedOut.into());
            }
            let next = deadline.earlier(Deadline::after(Some(interval)));
            wait(None, next, cancel.as_ref(), || io.is_closed())?;
            interval = (interval * 2).min(MAX_QUERY_INTERVAL);
        }
        Ok(())
    }

    /// Ends reads because the server drains. Writes continue.
    #[cfg(feature = "serve")]
    pub(crate) fn set_draining(&self) {
        let before = self.flags.fetch_or(DRAINING, Ordering::AcqRel);
        if before & CLOSING != 0 {
            return; // No call reads, and the close has to discard input.
        }
        if let Some(io) = self.descriptor.enter() {
            // Wakes threads in recv(2) and poll(2). Fails only if there is no connection.
            let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        }
    }
}
