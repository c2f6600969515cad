//! The end of a connection: hang-up, half-close, graceful close, abort, drain.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;

use super::{
    CLOSING, ClientSocket, DRAINING, HALF_CLOSED, IMPATIENT_PIECES, NONBLOCKING, SAW_END, WROTE,
    WROTE_LATE,
};

use super::alive::hard_error;
use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Result};
use crate::events;
use crate::info::{Address, End};
use crate::sys::{self, InUse, Interest, Ready, Wait};
use crate::wait::{Cause, Deadline, wait};

impl ClientSocket {
    /// Waits, without reading, until the connection ends: the peer closes its
    /// side, resets, or is given up by the kernel. `None` waits for as long as
    /// that takes; zero only looks. Data that came before the end stays readable.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): the connection lives.
    /// [`Cancelled`](ErrorKind::Cancelled), [`Closed`](ErrorKind::Closed),
    /// [`Draining`](ErrorKind::Draining) as for [`read`](ClientSocket::read);
    /// [`Unsupported`](ErrorKind::Unsupported) on macOS and Windows, whose poll
    /// does not tell.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, End, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # let accepted = server.accept()?;
    /// client.shutdown_write()?;
    /// # if cfg!(target_os = "linux") {
    /// assert_eq!(accepted.wait_hangup(None)?, End::ClosedByPeer);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait_hangup(&self, timeout: impl Into<Option<Duration>>) -> Result<End> {
        const OPERATION: &str = "wait for hang-up";
        let io = self.enter(OPERATION)?;
        if !sys::SEES_HANGUP {
            return Err(self.failed(OPERATION, ErrorKind::Unsupported.into(), 0));
        }
        let deadline = Deadline::after(timeout.into());
        let cancel = self.cancel_token();
        let ended = || self.is_over(&io);
        let ready = self
            .wait_alive(&io, Interest::Hangup, deadline, cancel.as_ref(), ended)
            .or_else(|cause| match cause {
                // Found by looking: that is what was waited for.
                Cause::Over(..) => Ok(Ready { socket: true, error: false }),
                other => Err(self.failed(OPERATION, other, 0)),
            })?;
        if ready.error {
            // SO_ERROR clears when it is read; whoever reads later is to see it too.
            if let Ok(Some(e)) = SockRef::from(&io.socket()).take_error() {
                self.ended_by(&io, &e);
            }
        }
        match self.known_end(&io).inspect(|cause| self.tell_end(cause)).map(|cause| cause.kind()) {
            None if self.has(DRAINING) => {
                Err(self.failed(OPERATION, ErrorKind::Draining.into(), 0))
            }
            None => {
                self.note_fin();
                Ok(End::ClosedByPeer)
            }
            Some(ErrorKind::Dead) => Ok(End::Dead),
            Some(ErrorKind::Stalled) => Ok(End::Stalled),
            Some(ErrorKind::Reset) => Ok(End::ResetByPeer),
            Some(_) => Ok(End::Unreachable),
        }
    }

    /// Ends this side's stream (FIN): the peer reads to the end, and can still
    /// send. What was written before is delivered.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), or [`Reset`](ErrorKind::Reset) if the connection is over.
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
        // Before the call, so that a write which fails by it knows why.
        self.flags.fetch_or(HALF_CLOSED, Ordering::AcqRel);
        SockRef::from(&io.socket())
            .shutdown(Shutdown::Write)
            .map_err(|e| self.failed(OPERATION, self.ended_by(&io, &e), 0))
    }

    /// Closes gracefully. The peer receives every byte that was written, even if
    /// it is still sending: this side's stream is ended (FIN), what comes in is
    /// read and thrown away until the peer ends its side too, then the descriptor
    /// is closed. That takes at most the
    /// [`close_timeout`](crate::SocketOptions::close_timeout), or no time if the peer
    /// has ended its side before, if nothing was written, or in non-blocking mode.
    ///
    /// (A close with unread input would send RST, and the peer's kernel might
    /// throw away what its program had not read yet: RFC 2525 section 2.17.)
    ///
    /// Any thread may close at any time. Calls of other threads that wait on this
    /// socket end with [`Closed`](ErrorKind::Closed); closing then waits only until the
    /// peer's kernel has acknowledged everything. Closing twice is fine.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): the peer did not end its side in time,
    /// or another thread's write was cut, so whether it has everything isn't known.
    /// [`Reset`](ErrorKind::Reset), [`Dead`](ErrorKind::Dead),
    /// [`Unreachable`](ErrorKind::Unreachable): it broke off.
    /// [`Cancelled`](ErrorKind::Cancelled): the token was fired. The socket is closed all
    /// the same.
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
        self.close_and(true)
    }

    /// Closes, and asks for the five-tuple before if somebody can still want to know it.
    pub(super) fn close_and(&self, stay_readable: bool) -> Result<()> {
        let Some(io) = self.descriptor.enter() else {
            return Ok(());
        };
        if self.flags.fetch_or(CLOSING, Ordering::SeqCst) & CLOSING != 0 {
            return Ok(()); // another thread is at it
        }
        let drained =
            if self.others_wait(&io) { self.end_calls(&io) } else { self.drain_input(&io) };
        let aborted = io.is_closed();
        if let Err(Cause::Over(kind, _)) = &drained {
            self.note_broken(*kind);
        }
        if stay_readable || drained.is_err() || events::of_each_connection() {
            self.ask_local(Some(&io));
        }
        self.close_now(&io);
        match drained {
            // By another thread, while this one was draining.
            Err(_) if aborted => Ok(()),
            Err(cause) => Err(self.failed("close", cause, 0)),
            Ok(()) => Ok(()),
        }
    }

    /// Whether calls of other threads are waiting on the socket; those that are only
    /// passing are given the time to leave.
    pub(super) fn others_wait(&self, io: &InUse<'_>) -> bool {
        for _ in 0..20 {
            if !self.descriptor.is_shared(io) {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        true
    }

    /// Ends reads of other threads without losing what was written.
    pub(super) fn end_calls(&self, io: &InUse<'_>) -> std::result::Result<(), Cause> {
        let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        if !self.has(WROTE) {
            return Ok(());
        }
        match self.writing.try_take() {
            Some(_turn) => self.wait_delivered(io),
            // A write that is still under way waits for its peer to read. It is
            // ended by closing, and what is queued may be lost.
            None => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// Breaks the connection off: RST for TCP. What the peer has not received yet is lost.
    /// Calls of other threads end with [`Closed`](ErrorKind::Closed).
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
        if self.reset() && events::of_each_connection() {
            events::aborted(self);
        }
    }

    /// Breaks it off without a word, as may be done under a lock; false: it was closed.
    pub(crate) fn reset(&self) -> bool {
        let Some(io) = self.descriptor.enter() else {
            return false;
        };
        self.flags.fetch_or(CLOSING, Ordering::SeqCst);
        // socket(7): a linger time of zero makes close(2) send RST. Failing, it
        // is a close all the same.
        let _ = SockRef::from(&io.socket()).set_linger(Some(Duration::ZERO));
        self.ask_local(Some(&io));
        self.before_closing(&io);
        let closed = self.descriptor.close(&io);
        if closed && self.descriptor.is_shared(&io) {
            self.end_calls_by_reset(&io);
        }
        closed
    }

    /// Ends the calls of other threads without FIN: the peer might take what it has
    /// for all there is before the RST comes.
    pub(super) fn end_calls_by_reset(&self, io: &InUse<'_>) {
        if !sys::BLOCKING_CALLS || sys::disconnect(io.socket()) {
            return;
        }
        // Readers wake without a FIN; for a writer that waits there is no other way.
        let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        if self.writing.try_take().is_none() {
            sys::wake(io.socket());
        }
    }

    /// Why the connection ended stays readable.
    fn before_closing(&self, io: &InUse<'_>) {
        self.note_closed_here();
        self.keep_last_if_asked(io);
    }

    pub(super) fn close_now(&self, io: &InUse<'_>) {
        self.before_closing(io);
        if self.ended.load(Ordering::Acquire) != 0 {
            // A connection that was given up here still lives for the kernel, which would
            // go on trying to deliver what is queued.
            let _ = SockRef::from(&io.socket()).set_linger(Some(Duration::ZERO));
        }
        if !self.descriptor.close(io) {
            return;
        }
        if self.descriptor.is_shared(io) {
            sys::wake(io.socket());
        }
        if events::of_each_connection() {
            events::closed(self);
        }
    }

    pub(super) fn drain_input(&self, io: &InUse<'_>) -> std::result::Result<(), Cause> {
        let over = self.ended.load(Ordering::Acquire) != 0
            || self.end.load(Ordering::Acquire) == End::HeartbeatMissed as i32;
        if !self.has(WROTE) || over {
            return Ok(());
        }
        if self.has(SAW_END) {
            // The peer has ended its side: it takes what was written before, or nobody does.
            return if self.has(WROTE_LATE) { self.wait_accepted(io) } else { Ok(()) };
        }
        if self.has(DRAINING) {
            return self.wait_delivered(io);
        }
        if !self.has(HALF_CLOSED) {
            SockRef::from(&io.socket()).shutdown(Shutdown::Write).map_err(|e| Cause::ended(&e))?;
        }
        let patient = !self.has(NONBLOCKING) && !self.close_time().is_zero();
        let deadline = Deadline::after(patient.then(|| self.close_time()));
        let cancel = self.cancel_token();
        let mut thrown_away = [0; 4096];
        let mut pieces = 0;
        loop {
            match sys::recv(io.socket(), &mut thrown_away, Wait::No) {
                Ok(0) => return Ok(()),
                // Without time, what is there already is all that is thrown away.
                Ok(_) if !patient && pieces == IMPATIENT_PIECES => return Ok(()),
                Ok(_) if patient && deadline.has_passed() => return Err(ErrorKind::TimedOut.into()),
                Ok(_) if io.is_closed() => return Err(ErrorKind::Closed.into()),
                Ok(_) if cancel.as_ref().is_some_and(CancelToken::is_fired) => {
                    return Err(ErrorKind::Cancelled.into());
                }
                Ok(_) => pieces = pieces.saturating_add(1),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !patient {
                        return Ok(());
                    }
                    let socket = Some((io.socket(), Interest::Read));
                    wait(socket, deadline, cancel.as_ref(), || io.is_closed())?;
                }
                Err(e) => return Err(Cause::ended(&e)),
            }
        }
    }

    /// Once reading was shut down there is no input to drain, and a FIN might be
    /// followed by RST as soon as the peer sends more. Before that everything has
    /// to be in the peer's kernel.
    pub(super) fn wait_delivered(&self, io: &InUse<'_>) -> std::result::Result<(), Cause> {
        let deadline = Deadline::after(Some(self.close_time()));
        let cancel = self.cancel_token();
        let mut pause = Duration::from_millis(1);
        // A Unix socket's bytes are in the peer's kernel once they are written.
        let delivered = !matches!(self.remote, Address::Inet(_));
        let patient = !self.has(NONBLOCKING) && !self.close_time().is_zero() && !delivered;
        // A connection that was reset acknowledges nothing any more.
        let missing = || sys::unacknowledged(io.socket()) > 0 && !sys::is_gone(io.socket());
        while patient && missing() {
            if deadline.has_passed() {
                return Err(ErrorKind::TimedOut.into());
            }
            let step = deadline.earlier(Deadline::after(Some(pause)));
            wait(None, step, cancel.as_ref(), || io.is_closed())?;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What was written after the peer's FIN: a peer that has closed altogether answers with RST.
    fn wait_accepted(&self, io: &InUse<'_>) -> std::result::Result<(), Cause> {
        self.wait_delivered(io)?;
        hard_error(io).map_or(Ok(()), |e| Err(Cause::ended(&e)))
    }

    /// Tells whoever reads that the server drains: reads end, writes go on.
    pub(crate) fn set_draining(&self) {
        let before = self.flags.fetch_or(DRAINING, Ordering::AcqRel);
        if before & CLOSING != 0 {
            return; // nobody reads any more, but closing throws input away
        }
        if let Some(io) = self.descriptor.enter() {
            // Wakes a blocked recv and a poll; fails only if there is no connection.
            let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        }
    }
}
