//! Errors of calls, and the record of the error that ended the connection.
//!
//! The kernel reports the error that ended a connection to one call only. That call records the
//! error, and the calls of all threads return it from then on.

use std::io;
use std::time::Duration;

use super::ClientSocket;
use super::flags::{
    DRAINING, END_LOGGED, FAST_OPEN, FD_SHARED, FIN_BEFORE_RESET, HALF_CLOSED, RECV_EOF, USES_POLL,
};
use crate::io::wait::{Cause, Stop};
use crate::log;
use crate::stream::liveness::policy::Liveness;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, InUse};
use crate::types::close_reason::CloseReason;
use crate::types::error::{About, Error, ErrorKind};
use crate::types::liveness::LivenessConfig;

impl ClientSocket {
    /// The error of a call on a socket that this program has closed.
    #[cold]
    pub(super) fn closed_error(&self, operation: &'static str) -> Error {
        self.failed(operation, ErrorKind::Closed.into(), 0)
    }

    /// The error of a call. The caller holds neither the read buffer nor the write lock, because a
    /// logger may use both.
    #[cold]
    pub(super) fn failed(
        &self,
        operation: &'static str,
        cause: Cause,
        transferred: usize,
    ) -> Error {
        self.log_end(&cause);
        let error = cause.into_error(operation).on(self.five_tuple()).after_bytes(transferred);
        let limit = match (error.kind(), operation) {
            (ErrorKind::TimedOut, "read") => self.read_timeout.get(),
            (ErrorKind::TimedOut, "write") => self.write_timeout.get(),
            _ => None,
        };
        match limit {
            Some(limit) => error.after(limit),
            None => error,
        }
    }

    pub(super) fn os_failed(&self, operation: &'static str, err: io::Error) -> Error {
        self.failed(operation, err.into(), 0)
    }

    /// Converts the cause of a failed call, without an error object for a call that would block.
    #[cold]
    pub(super) fn to_stop(
        &self,
        operation: &'static str,
        cause: Cause,
        transferred: usize,
    ) -> Stop {
        match cause {
            Cause::Kind(ErrorKind::WouldBlock) => Stop::WouldBlock(transferred),
            cause => Stop::Failed(self.failed(operation, cause, transferred)),
        }
    }

    /// The error of a call that did not complete.
    #[cold]
    pub(crate) fn stopped(&self, operation: &'static str, stop: Stop) -> Error {
        match stop {
            Stop::WouldBlock(transferred) => {
                self.failed(operation, ErrorKind::WouldBlock.into(), transferred)
            }
            Stop::Failed(error) => error,
        }
    }

    /// Logs once that the connection has ended abnormally.
    #[cold]
    pub(super) fn log_end(&self, cause: &Cause) {
        use ErrorKind::{Dead, HeartbeatTimeout, IdleTimeout, Reset, Stalled, Unreachable};
        let Cause::Over(kind, _) = *cause else {
            return;
        };
        if matches!(kind, Reset | Dead | Unreachable | Stalled | IdleTimeout | HeartbeatTimeout)
            && self.flags.fetch_or(END_LOGGED, Ordering::Relaxed) & END_LOGGED == 0
        {
            // A logger may call any function, and may wait for a thread that waits for this call.
            let _aside = self.descriptor.aside();
            if log::logs_lost_connections() {
                log::connection_lost(&self.five_tuple(), kind);
            }
        }
    }

    /// Handles a read of zero bytes, which is the peer's FIN unless this side has ended the
    /// connection.
    #[inline(always)]
    pub(super) fn on_eof(&self, io: &InUse<'_>) -> Result<usize, Cause> {
        if self.is_closing(io) {
            return Err(ErrorKind::Closed.into());
        }
        if self.has(DRAINING) {
            return Err(ErrorKind::Draining.into());
        }
        let ended = self.recorded_error(io).or_else(|| self.lost_error(io, true));
        match ended.filter(|cause| !self.is_reset_after_fin(cause)) {
            // Another thread may have closed the socket in the meantime.
            None if self.is_closing(io) => Err(ErrorKind::Closed.into()),
            None => {
                self.flags.fetch_or(RECV_EOF, Ordering::Relaxed);
                self.note_eof();
                // A limit may have ended the connection while this call waited.
                self.limit_end().map_or(Ok(0), Err)
            }
            Some(cause) => Err(cause),
        }
    }

    /// Whether the error is a reset that followed the peer's FIN. The peer takes no more data, and the
    /// bytes that it sent before its FIN are complete.
    fn is_reset_after_fin(&self, cause: &Cause) -> bool {
        cause.kind() == ErrorKind::Reset && self.has(FIN_BEFORE_RESET)
    }

    /// The error of calls on a connection that a limit of this side has ended: the idle timeout, the
    /// first-byte timeout or the heartbeat timeout. The kernel knows nothing of this end, so each
    /// call checks for it before it would wait.
    #[inline]
    pub(super) fn limit_end(&self) -> Option<Cause> {
        const IDLE: i32 = CloseReason::IdleTimeout as i32;
        const UNANSWERED: i32 = CloseReason::HeartbeatTimeout as i32;
        match self.close_reason.load(Ordering::Acquire) {
            IDLE => Some(Cause::Over(ErrorKind::IdleTimeout, None)),
            UNANSWERED => Some(Cause::Over(ErrorKind::HeartbeatTimeout, None)),
            _ => None,
        }
    }

    /// Fails if the connection has ended and permits no more writes. After an idle
    /// timeout the program may still write a last message.
    pub(super) fn require_writable(&self) -> Result<(), Cause> {
        match self.limit_end() {
            Some(cause) if cause.kind() == ErrorKind::HeartbeatTimeout => Err(cause),
            _ => Ok(()),
        }
    }

    /// Fails if a write of one byte would fail because of an end that is known. A write of no bytes
    /// makes no system call that would report the end.
    #[cold]
    pub(super) fn check_empty_write(&self) -> Result<(), Cause> {
        self.require_writable()?;
        let ended = if self.has(HALF_CLOSED) {
            Some(Cause::Over(ErrorKind::WrongState, None))
        } else {
            self.stored_error().or_else(|| self.rest_first())
        };
        ended.map_or(Ok(()), Err)
    }

    /// The error that ended the connection, if there is one.
    #[inline]
    pub(super) fn recorded_error(&self, io: &InUse<'_>) -> Option<Cause> {
        // The calls are counted before the record is read: a call that has left has recorded its
        // error.
        let alone = !self.descriptor.has_other_calls(io);
        match self.os_error.load(Ordering::Acquire) {
            0 if alone => None,
            0 => self.await_recorded_error(io),
            code => Some(self.error_for(code)),
        }
    }

    /// The error that a call has recorded, without a wait for calls that may be about to record one.
    pub(super) fn stored_error(&self) -> Option<Cause> {
        match self.os_error.load(Ordering::Acquire) {
            0 => None,
            code => Some(self.error_for(code)),
        }
    }

    /// Waits until the calls of other threads have left, because one of them may have got the error
    /// and not yet recorded it. Once the connection has ended in both directions no call waits in
    /// the kernel, so all calls leave without help. Before that the kernel has no error to report.
    /// The caller holds no lock that another call may wait for, except the write lock.
    #[cold]
    fn await_recorded_error(&self, io: &InUse<'_>) -> Option<Cause> {
        let _disabled = sys::CancellationDisabled::new();
        // A call that has found a FIN has excluded an error.
        let decided = || self.has(RECV_EOF) || self.os_error.load(Ordering::Acquire) != 0;
        if !decided() && sys::is_hung_up(io.socket()) {
            self.descriptor.settle(io, || decided() || self.is_closing(io));
        }
        match self.os_error.load(Ordering::Acquire) {
            // No call has got an error: the connection ended by a FIN, or by an RST after it.
            0 => None,
            code => Some(self.error_for(code)),
        }
    }

    /// The error of a connection that ended without the peer's FIN, if another holder of the
    /// descriptor has consumed it. A forked child is such a holder, and so is the program with a
    /// borrowed descriptor. A Unix socket keeps no trace of the error. Where the kernel does not
    /// distinguish a FIN from a reset, the result is a reset if `unless_known` is set and no call has
    /// observed another end.
    #[inline(always)]
    pub(super) fn lost_error(&self, io: &InUse<'_>, unless_known: bool) -> Option<Cause> {
        if self.has_holders() { self.query_lost_error(io, unless_known) } else { None }
    }

    /// Whether another process or other code of the program may have the descriptor.
    #[inline(always)]
    pub(super) fn has_holders(&self) -> bool {
        self.has(FD_SHARED) || self.descriptor.is_inherited() || sys::fork::has_forked()
    }

    #[cold]
    fn query_lost_error(&self, io: &InUse<'_>, unless_known: bool) -> Option<Cause> {
        if self.has(RECV_EOF) || !self.is_inet() {
            return None;
        }
        let reset = match sys::ended_without_fin(io.socket()) {
            Ok(known) => known.unwrap_or_else(|| {
                unless_known
                    && !self.has(HALF_CLOSED)
                    && self.close_reason.load(Ordering::Acquire) == 0
            }),
            Err(e) if sys::is_from_network(&e) => return Some(self.record_error(io, &e)),
            Err(_) => false,
        };
        reset.then(|| self.record_error(io, &io::Error::from_raw_os_error(sys::RESET)))
    }

    /// Interprets the error of a read or write, and records it for later calls if it has ended the
    /// connection.
    pub(super) fn record_error(&self, io: &InUse<'_>, err: &io::Error) -> Cause {
        if self.is_closing(io) {
            return ErrorKind::Closed.into();
        }
        let broken_pipe = err.kind() == io::ErrorKind::BrokenPipe;
        if broken_pipe && self.has(HALF_CLOSED) {
            return Cause::Over(ErrorKind::WrongState, err.raw_os_error());
        }
        // EPIPE only reports that the connection has ended. Data that the peer sent before may still
        // be readable. If the connection ended with an error, another call has got it.
        if broken_pipe {
            // A Unix socket that was reset reports the reset to reads only.
            if !self.is_inet() {
                if let Some(e) = sys::pending_error(io.socket()).filter(sys::is_from_network) {
                    self.store_error(io, e.raw_os_error().unwrap_or(sys::RESET));
                }
            }
            let known = self.recorded_error(io).or_else(|| self.lost_error(io, false));
            return known.unwrap_or_else(|| {
                // Another holder of the descriptor may have shut down sending.
                if !self.has_holders() || sys::is_hung_up(io.socket()) {
                    return self.record_reset_after_fin(io);
                }
                self.set_close_reason(CloseReason::PeerClosed);
                Cause::ended(err)
            });
        }
        let known = self.os_error.load(Ordering::Acquire);
        if known != 0 {
            return self.error_for(known);
        }
        #[cfg(test)]
        super::tests::before_the_record();
        match err.raw_os_error() {
            Some(code) if sys::is_from_network(err) => {
                self.store_error(io, code);
                self.error_for(code)
            }
            _ => Cause::ended(err),
        }
    }

    /// Records the error that SO_ERROR held. Linux reports a reset after the peer's FIN as EPIPE.
    pub(super) fn record_pending_error(&self, io: &InUse<'_>, err: &io::Error) {
        if err.kind() == io::ErrorKind::BrokenPipe && !self.is_closing(io) {
            self.record_reset_after_fin(io);
        } else {
            self.record_error(io, err);
        }
    }

    /// Records a reset that followed the peer's FIN: the peer takes no more data, and may not have
    /// received all written bytes.
    fn record_reset_after_fin(&self, io: &InUse<'_>) -> Cause {
        // Other systems also report EPIPE to a write after a reset without a FIN.
        let distinguishes = cfg!(keepsock_linux);
        if self.os_error.load(Ordering::Acquire) == 0 && (distinguishes || !self.is_inet()) {
            self.flags.fetch_or(FIN_BEFORE_RESET, Ordering::Relaxed);
        }
        self.store_error(io, sys::RESET);
        self.stored_error().unwrap_or(ErrorKind::Reset.into())
    }

    /// Records the error with which the kernel has ended the connection. The first error stays.
    pub(super) fn store_error(&self, io: &InUse<'_>, code: i32) {
        if self.os_error.load(Ordering::Acquire) != 0 {
            return;
        }
        if self.has(FAST_OPEN) && sys::is_answered(io.socket()) {
            self.flags.fetch_and(!FAST_OPEN, Ordering::Relaxed);
        }
        let config = self.liveness().map(Liveness::config);
        let reason = end_by_error(io.socket(), code, config.as_deref());
        if self.has(RECV_EOF) {
            self.flags.fetch_or(FIN_BEFORE_RESET, Ordering::Relaxed);
        }
        // The reason is stored before the error, because a call that gets the error reads it.
        self.store_final_info(io);
        self.set_close_reason(reason);
        let _ = self.os_error.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The error that every call returns after the kernel has ended the connection with `code`.
    #[cold]
    pub(super) fn error_for(&self, code: i32) -> Cause {
        let err = io::Error::from_raw_os_error(code);
        match self.recorded_close_reason() {
            Some(CloseReason::Stalled) => Cause::Over(ErrorKind::Stalled, Some(code)),
            _ if self.has(FAST_OPEN) && err.kind() == io::ErrorKind::ConnectionRefused => {
                Cause::reported(&err, About::Handshake)
            }
            _ => Cause::ended(&err),
        }
    }

    /// Records why the connection ended. The first reason stays, with one exception: a peer that
    /// had closed its side may later be found dead or idle, or reset the connection, because writes
    /// to it were possible.
    pub(super) fn set_close_reason(&self, reason: CloseReason) {
        let _ = self.close_reason.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
            let replaced =
                before == 0 || reason.follows_fin() && before == CloseReason::PeerClosed as i32;
            replaced.then_some(reason as i32)
        });
    }

    /// Records that the connection ended abnormally while it was being closed.
    #[cold]
    pub(super) fn set_close_reason_of(&self, kind: ErrorKind) {
        self.set_close_reason(match kind {
            ErrorKind::Dead => CloseReason::Dead,
            ErrorKind::Unreachable => CloseReason::Unreachable,
            ErrorKind::Stalled => CloseReason::Stalled,
            _ => CloseReason::PeerReset,
        });
    }

    /// Records that this side closes the connection.
    #[inline(always)]
    pub(super) fn set_local_close_reason(&self) {
        if self.close_reason.load(Ordering::Acquire) != 0 {
            return;
        }
        self.set_close_reason(self.local_close_reason());
    }

    /// The reason if this side closes the connection now.
    #[inline(always)]
    pub(super) fn local_close_reason(&self) -> CloseReason {
        // A socket that does not use poll has no token.
        if self.has(USES_POLL) && self.is_cancelled() {
            CloseReason::Cancelled
        } else {
            CloseReason::Local
        }
    }

    #[inline(never)]
    fn is_cancelled(&self) -> bool {
        self.cancel_token().is_some_and(|token| token.is_fired())
    }
}

/// Why a connection ended that the kernel has failed with the error `code`.
pub(crate) fn end_by_error(
    socket: sys::Borrowed<'_>,
    code: i32,
    config: Option<&LivenessConfig>,
) -> CloseReason {
    match Cause::ended(&io::Error::from_raw_os_error(code)).kind() {
        ErrorKind::Dead if config.is_some_and(|config| was_stalled(socket, config)) => {
            CloseReason::Stalled
        }
        ErrorKind::Dead => CloseReason::Dead,
        ErrorKind::Reset => CloseReason::PeerReset,
        // A router or a firewall has reported it.
        _ => CloseReason::Unreachable,
    }
}

/// Whether the peer answered until the kernel ended the connection, but took no data.
fn was_stalled(socket: sys::Borrowed<'_>, config: &LivenessConfig) -> bool {
    let Some(timeout) = config.strict() else {
        return false;
    };
    sys::silence(socket).is_ok_and(|silence| {
        // The kernel's timers expire some tenths of a second late.
        silence.heard + Duration::from_millis(500) < timeout
    })
}
