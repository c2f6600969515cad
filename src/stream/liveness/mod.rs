//! Liveness of a connection: dead-peer detection, heartbeat, idle timeout.
//!
//! This module has the system calls. The decisions are state machines without I/O: `peer_watch`
//! (vanished peers), `timers` (heartbeat and idle timeout), `ack_progress` (acknowledgments of sent
//! data), `pauses` (pauses of the process) and [`policy`], which combines them for one connection.

mod ack_progress;
mod pauses;
mod peer_watch;
pub(crate) mod policy;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod timers;

#[cfg(feature = "serve")]
pub(crate) use ack_progress::AckProgress;
#[cfg(feature = "serve")]
pub(crate) use pauses::Pauses;
#[cfg(feature = "serve")]
pub(crate) use peer_watch::PeerWatch;
pub(crate) use timers::Due;
#[cfg(feature = "serve")]
pub(crate) use timers::{IdleTimes, Timers};

use std::io;
use std::result::Result as StdResult;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sys::SockRef;

use super::ClientSocket;
use super::flags::{
    HALF_CLOSED, HEARTBEAT_PARTIAL, MESSAGE_PARTIAL, MESSAGE_UNFINISHED, NONBLOCKING,
    PROXY_PENDING, UNWRITTEN,
};
use crate::io::cancel::CancelToken;
use crate::io::deadline::{Deadline, fit_poll};
use crate::io::lock::Guard;
use crate::io::timeout::CallTimeout;
use crate::io::wait::{Cause, wait};
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, InUse, Interest, Ready, Wait};
use crate::types::close_reason::CloseReason;
use crate::types::error::{ErrorKind, Result};
use policy::{Liveness, PartialHeartbeat};

/// Why a write must not start while a message is unfinished.
const UNFINISHED: &str = "an earlier write_message has sent only a part of its message: \
    call write_message with the same framing and buffer again";

impl ClientSocket {
    /// Runs the liveness checks that are due, and returns the time within which to call again. `None`:
    /// no check will be due.
    ///
    /// Calls that wait run the checks themselves. This call is for programs that do not wait in
    /// keepsock's calls: in non-blocking mode, or while they do not use the socket.
    ///
    /// The call also applies the [`proxy_timeout`](crate::SocketOptions::proxy_timeout): it resets a
    /// connection from a trusted proxy whose header is incomplete at that time, also if another timeout
    /// has ended the connection before.
    ///
    /// The call sends a heartbeat if one is due and no other thread is writing. Unread bytes that
    /// arrived after a heartbeat answer it. Unread bytes do not count as traffic for the idle
    /// timeout. If bytes are unread when it expires, the program has up to 50 ms, and at most a
    /// quarter of the timeout, to read them. The result is at most [`i32::MAX`] milliseconds, which
    /// poll(2) accepts.
    ///
    /// # Errors
    /// The connection has ended with every error except `NoMemory` and `Os`.
    #[doc = end_errors!()]
    /// - [`Malformed`](ErrorKind::Malformed): the PROXY header is not valid. The connection was reset.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed to send a
    ///   heartbeat for another reason.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// use std::time::Duration;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let options = SocketOptions::new().heartbeat(*b"PING\r\n", Duration::from_secs(20));
    /// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// client.set_nonblocking(true)?;
    /// if let Some(time) = client.check_liveness()? {
    ///     println!("call again within {time:?}");
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn check_liveness(&self) -> Result<Option<Duration>> {
        const OPERATION: &str = "liveness check";
        let io = self.enter(OPERATION)?;
        if self.is_closing(&io) {
            return Err(self.closed_error(OPERATION));
        }
        if let Some(cause) = self.limit_end() {
            if self.has(PROXY_PENDING) {
                self.check_header(&io)?;
            }
            return Err(self.failed(OPERATION, cause, 0));
        }
        // The kernel reports a reset to the first call that queries it. No call may be reading.
        if let Some(e) = hard_error(&io) {
            self.record_pending_error(&io, &e);
        }
        if let Some(cause) = self.recorded_error(&io).or_else(|| self.lost_error(&io, true)) {
            return Err(self.failed(OPERATION, cause, 0));
        }
        let mut next = None;
        if self.has(PROXY_PENDING) {
            self.check_header(&io)?;
            next = self.header_deadline().and_then(Deadline::remaining);
        }
        if let Some(live) = self.liveness() {
            self.run_liveness(&io, live, true).map_err(|cause| self.failed(OPERATION, cause, 0))?;
            next = next.into_iter().chain(live.next(Instant::now(), true, None)).min();
        }
        Ok(next.map(fit_poll))
    }

    /// Waits as [`wait`] does, and runs the liveness checks that become due. A wait that is not for
    /// input also applies the deadline of the PROXY header.
    pub(super) fn wait_alive(
        &self,
        io: &InUse<'_>,
        interest: Interest,
        deadline: Deadline,
        cancel: Option<&CancelToken>,
        ended: impl Fn() -> bool,
    ) -> StdResult<Ready, Cause> {
        loop {
            let header = match interest {
                Interest::Read => None,
                _ => self.header_deadline(),
            };
            let until = deadline.earlier(header.unwrap_or(Deadline(None)));
            match self.wait_checking(io, interest, until, cancel, &ended) {
                Err(Cause::Kind(ErrorKind::TimedOut))
                    if header.is_some_and(Deadline::has_passed) =>
                {
                    if self.check_header(io).is_err() {
                        return Err(self.limit_end().unwrap_or(ErrorKind::Closed.into()));
                    }
                    if deadline.has_passed() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    fn wait_checking(
        &self,
        io: &InUse<'_>,
        interest: Interest,
        deadline: Deadline,
        cancel: Option<&CancelToken>,
        ended: impl Fn() -> bool,
    ) -> StdResult<Ready, Cause> {
        let socket = Some((io.socket(), interest));
        let Some(live) = self.liveness() else {
            return wait(socket, deadline, cancel, ended);
        };
        let reads = interest == Interest::Read;
        let mut looks = 0;
        loop {
            if let Some(cause) = self.limit_end() {
                return Err(cause);
            }
            // On a connection that has ended for another reason a wait returns immediately.
            if self.has_failed() {
                return wait(socket, deadline, cancel, ended);
            }
            let now = Instant::now();
            let next = live.next(now, reads, deadline.remaining());
            if next == Some(Duration::ZERO) {
                // Before the wait, because a call with a timeout of zero does not wait.
                self.run_liveness(io, live, reads)?;
                continue;
            }
            // A limit that does not apply to this call may end the connection in another thread.
            let look = if reads { None } else { live.next_look(now, &mut looks) };
            let check = Deadline::after([next, look].into_iter().flatten().min());
            match wait(socket, deadline.earlier(check), cancel, &ended) {
                Err(Cause::Kind(ErrorKind::TimedOut)) if !deadline.has_passed() => {
                    self.run_liveness(io, live, reads)?;
                }
                other => return other,
            }
        }
    }

    /// Runs the liveness checks that are due. `reads`: the caller waits for input.
    fn run_liveness(&self, io: &InUse<'_>, live: &Liveness, reads: bool) -> StdResult<(), Cause> {
        let now = Instant::now();
        let mut silence = None;
        if live.wants_silence(now) {
            silence = sys::silence(io.socket()).ok();
            if silence.is_none() {
                live.postpone_silence_query(now);
            }
        }
        let mut due = live.due(now, silence, reads);
        if due == Due::Close(CloseReason::IdleTimeout) {
            let query = || if self.is_inet() { sys::acknowledged(io.socket()) } else { None };
            due = live.due_with_acknowledgments(now, reads, query);
        }
        let unread = || sys::unread(io.socket()).unwrap_or(0);
        match due {
            Due::Nothing => Ok(()),
            Due::Heartbeat => self.send_heartbeat(io, live, now),
            Due::Close(CloseReason::Dead) => Err(self.declare_dead(io)),
            Due::Close(CloseReason::HeartbeatTimeout)
                if self.is_answered(io, live, now, unread()) =>
            {
                Ok(())
            }
            // The program, or another thread, is about to read the bytes.
            Due::Close(CloseReason::IdleTimeout)
                if unread() > 0 && live.gives_time_to_read(now) =>
            {
                Ok(())
            }
            Due::Close(reason) => self.end_by_limit(reason),
        }
    }

    /// Records that a limit has ended the connection. Calls of all threads return this end from then
    /// on. The result is `Ok` if a call of another thread has recorded another end before.
    fn end_by_limit(&self, reason: CloseReason) -> StdResult<(), Cause> {
        self.set_close_reason(reason);
        let cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        self.choose_mode(cancel.as_ref());
        drop(cancel);
        self.limit_end().map_or(Ok(()), Err)
    }

    /// Whether a call has found that the kernel has ended the connection, or that the peer is dead.
    fn has_failed(&self) -> bool {
        use CloseReason::{Dead, PeerReset, Stalled, Unreachable};
        matches!(self.recorded_close_reason(), Some(PeerReset | Dead | Unreachable | Stalled))
    }

    /// Whether unread bytes answer a heartbeat.
    fn is_answered(&self, io: &InUse<'_>, live: &Liveness, now: Instant, unread: u64) -> bool {
        let arrived = if self.is_inet() { sys::data_arrived(io.socket()) } else { None };
        live.answered_by_unread(now, unread, arrived)
    }

    /// Ends the connection for all threads, because the peer is dead.
    fn declare_dead(&self, io: &InUse<'_>) -> Cause {
        // SO_ERROR has the last ICMP message as a soft error, such as host unreachable or
        // prohibited. It is the reason if there is one.
        let reported = SockRef::from(&io.socket()).take_error().ok().flatten();
        let reported = reported.filter(sys::is_from_network);
        let err = reported.unwrap_or_else(|| io::Error::from_raw_os_error(sys::TIMEOUT_ERRNO));
        let cause = self.record_error(io, &err);
        sys::wake(io.socket());
        cause
    }

    /// Sends a heartbeat, unless another thread is writing. Then data is being sent, and a heartbeat
    /// is not needed.
    fn send_heartbeat(
        &self,
        io: &InUse<'_>,
        live: &Liveness,
        now: Instant,
    ) -> StdResult<(), Cause> {
        // The next attempt comes one interval later, whether this one succeeds or not.
        live.note_attempt(now);
        let Some(guard) = self.write_lock.try_lock() else {
            return Ok(());
        };
        // After a write call that sent only a part of its data, a message is incomplete.
        if self.is_shutting_down() || self.has(HALF_CLOSED | MESSAGE_PARTIAL) {
            return Ok(());
        }
        if self.has(HEARTBEAT_PARTIAL) {
            return self.continue_heartbeat(io, live, &guard).map(|_| ());
        }
        let Some(bytes) = live.config().heartbeat.as_ref().map(|beat| beat.bytes.clone()) else {
            return Ok(());
        };
        let len = bytes.len();
        *live.partial() = PartialHeartbeat { bytes, done: 0 };
        if self.continue_heartbeat(io, live, &guard)? > 0 {
            live.note_heartbeat(now, len);
        }
        Ok(())
    }

    /// Sends the rest of a heartbeat without waiting, and returns the number of bytes that the
    /// kernel has accepted. Bytes that the kernel does not accept are sent before the next write.
    pub(super) fn continue_heartbeat(
        &self,
        io: &InUse<'_>,
        live: &Liveness,
        _guard: &Guard<'_>,
    ) -> StdResult<usize, Cause> {
        let mut partial = live.partial();
        let PartialHeartbeat { bytes, done } = &mut *partial;
        let mut accepted = 0;
        let mut begun = None;
        while *done < bytes.len() {
            begun = Some(Instant::now());
            match sys::send(io.socket(), &bytes[*done..], Wait::No) {
                Ok(n) => {
                    *done += n;
                    accepted += n;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // The connection has ended, and a read will report the reason. The heartbeat needs no
                // completion, and a write that waits for it receives the error itself.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    *done = 0;
                    break;
                }
                Err(e) => return Err(self.record_error(io, &e)),
            }
        }
        if accepted > 0 {
            self.note_accepted(self.flags.load(Ordering::Relaxed) & UNWRITTEN);
            if let (true, Some(begun)) = (*done == bytes.len(), begun) {
                live.note_sent(begun);
            }
        }
        if *done > 0 && *done < bytes.len() {
            self.flags.fetch_or(HEARTBEAT_PARTIAL, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!HEARTBEAT_PARTIAL, Ordering::AcqRel);
        }
        Ok(accepted)
    }

    /// Prepares a write: completes a heartbeat of which the kernel has accepted only a part. Fails if
    /// a message is unfinished, because the peer would take the bytes for its rest.
    pub(super) fn prepare_write(
        &self,
        io: &InUse<'_>,
        timeout: &mut CallTimeout,
        guard: &Guard<'_>,
    ) -> StdResult<(), Cause> {
        if self.has(HEARTBEAT_PARTIAL | MESSAGE_UNFINISHED) {
            self.finish_heartbeat(io, timeout, guard)?;
            if let Some(cause) = self.rest_first() {
                return Err(cause);
            }
        }
        Ok(())
    }

    /// Why no other bytes may follow the part of a message that was sent. `None`: no message is
    /// unfinished, or the connection has ended, and a write returns that end.
    pub(super) fn rest_first(&self) -> Option<Cause> {
        let ended = || self.stored_error().is_some() || self.require_writable().is_err();
        if !self.has(MESSAGE_UNFINISHED) || ended() {
            return None;
        }
        // The flag is set before the kernel rejects writes.
        let shut_down = Cause::Over(ErrorKind::WrongState, None);
        Some(if self.has(HALF_CLOSED) { shut_down } else { Cause::State(UNFINISHED) })
    }

    /// Completes a heartbeat of which the kernel has accepted only a part.
    pub(super) fn finish_heartbeat(
        &self,
        io: &InUse<'_>,
        timeout: &mut CallTimeout,
        guard: &Guard<'_>,
    ) -> StdResult<(), Cause> {
        while self.has(HEARTBEAT_PARTIAL) {
            let Some(live) = self.liveness() else {
                return Ok(());
            };
            if self.continue_heartbeat(io, live, guard)? == 0 {
                if self.has(NONBLOCKING) {
                    return Err(self.would_block());
                }
                self.wait_ready(io, Interest::Write, timeout.deadline())?;
            }
        }
        Ok(())
    }

    /// Records that the peer has sent FIN.
    #[inline]
    pub(super) fn note_eof(&self) {
        if let Some(live) = self.liveness() {
            live.note_eof(Instant::now());
        }
        if self.close_reason.load(Ordering::Acquire) == 0 {
            self.set_close_reason(CloseReason::PeerClosed);
        }
    }

    /// Records that bytes were received.
    pub(super) fn note_received(&self) {
        if let Some(live) = self.liveness() {
            live.note_received(Instant::now());
        }
    }

    /// Records that the kernel has accepted bytes of the program.
    pub(super) fn note_wrote(&self) {
        if let Some(live) = self.liveness() {
            live.note_wrote(Instant::now());
        }
    }

    /// Records that the kernel has accepted `done` of the `total` bytes of a write call. The caller
    /// holds the write lock, because a heartbeat may follow immediately. Connections without a
    /// heartbeat record it as well: a heartbeat may be set before the message is complete.
    pub(super) fn note_progress(&self, done: usize, total: usize) {
        // A write of zero bytes does not complete a message.
        if done == 0 {
            return;
        }
        if done < total {
            self.flags.fetch_or(MESSAGE_PARTIAL, Ordering::Relaxed);
        } else if self.has(MESSAGE_PARTIAL) {
            self.flags.fetch_and(!MESSAGE_PARTIAL, Ordering::Relaxed);
        }
    }
}

/// The error that has ended a connection. SO_ERROR also returns soft errors, which are ICMP messages
/// that arrived while the kernel keeps trying. poll(2) reports an error only if the connection has
/// ended.
pub(super) fn hard_error(io: &InUse<'_>) -> Option<io::Error> {
    let hangup = Some((io.socket(), Interest::Hangup));
    let failed = || sys::poll(hangup, None, Some(Duration::ZERO)).is_ok_and(|r| r.error);
    match sys::SEES_HANGUP {
        true if !failed() => None,
        true => sys::hangup_error(io.socket()),
        false => sys::pending_error(io.socket()),
    }
}
