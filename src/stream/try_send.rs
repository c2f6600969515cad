//! Sending without a wait, for broadcasts.

use std::io;

use super::ClientSocket;
use super::flags::{HEARTBEAT_PARTIAL, UNWRITTEN};
use crate::io::lock::{Guard, PollingLock};
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Wait};
use crate::types::close_reason::CloseReason;

/// The result of [`ClientSocket::try_send`].
pub(crate) enum TrySend {
    Sent,
    /// The peer reads too slowly or has vanished: the kernel did not accept the whole message, or
    /// another thread still waits in a write.
    SlowConsumer,
    /// The connection has failed.
    Failed,
    /// This side had shut down sending before.
    ShutDown,
}

impl ClientSocket {
    /// Sends all of `message` if the kernel accepts it without a wait. The guard proves that no
    /// other thread is in the middle of a write.
    pub(crate) fn try_send(&self, message: &[u8], guard: &Guard<'_>) -> TrySend {
        let Some(io) = self.descriptor.enter() else {
            return TrySend::ShutDown;
        };
        if let (true, Some(live)) = (self.has(HEARTBEAT_PARTIAL), self.liveness()) {
            // The rest of a heartbeat comes first.
            match self.continue_heartbeat(&io, live, guard) {
                Ok(_) if !self.has(HEARTBEAT_PARTIAL) => {}
                Ok(_) => return self.end_slow_consumer(),
                Err(_) => return TrySend::Failed,
            }
        }
        // Only the program has the rest of the message, which the kernel has not accepted.
        match self.rest_first() {
            Some(_) if self.is_shutting_down() => return TrySend::ShutDown,
            Some(_) => return self.end_slow_consumer(),
            None => {}
        }
        let mut done = 0;
        while done < message.len() {
            match sys::send(io.socket(), &message[done..], Wait::No) {
                Ok(n) => {
                    done += n;
                    self.note_accepted(self.flags.load(Ordering::Relaxed) & UNWRITTEN);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let is_full = e.kind() == io::ErrorKind::WouldBlock;
                    // The kernel reports the error of a connection once.
                    if !is_full {
                        self.record_error(&io, &e);
                    }
                    return match () {
                        // A reset would lose data that is in flight.
                        () if self.is_shutting_down() => TrySend::ShutDown,
                        () if is_full => self.end_slow_consumer(),
                        () => TrySend::Failed,
                    };
                }
            }
        }
        self.note_wrote();
        TrySend::Sent
    }

    /// Records that the service abandons the peer.
    pub(crate) fn end_slow_consumer(&self) -> TrySend {
        self.set_close_reason(CloseReason::SlowConsumer);
        TrySend::SlowConsumer
    }

    /// The lock for [`try_send`](ClientSocket::try_send).
    pub(crate) fn write_lock(&self) -> &PollingLock {
        &self.write_lock
    }
}
