//! One listening socket of a server: its descriptor, its address, its counters and its file.

use std::io;
use std::sync::{Arc, PoisonError};

use super::Rejection;
use super::counters::Counters;
use crate::io::wait::Cause;
use crate::log::{self, RateLimitedLog};
#[cfg(feature = "activation")]
use crate::socket_file::SharedFile;
use crate::socket_file::SocketFile;
use crate::stream::BorrowedSocket;
#[cfg(feature = "serve")]
use crate::stream::ClientSocket;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::{self, Descriptor, InUse, Owned};
use crate::types::address::Address;
use crate::types::endpoint::Endpoint;
use crate::types::error::{Error, ErrorKind, Result};

/// The operation that errors of this module name.
pub(super) const ACCEPT: &str = "accept";

/// An error of a single connection is transient, so accept retries at once. An error that repeats
/// (EPERM in a sandbox that forbids the call) must not keep the processor busy.
const MAX_CONSECUTIVE_RETRIES: u32 = 256;

/// A descriptor of an accepted connection and the address of its peer.
pub(super) type Accepted = (Owned, Address);

/// The result of an accept that does not wait.
#[derive(Debug)]
pub(crate) enum TryAccept {
    Accepted(Owned, Address),
    /// No connection is pending.
    WouldBlock,
    /// The system has no descriptors or memory left. Retry after a pause.
    Exhausted(io::Error),
    /// Each retry failed with a transient error, which was counted. Retry after a pause.
    KeepsFailing(io::Error),
    /// The server was closed.
    Closed,
    /// Retrying cannot succeed.
    Fatal(Cause),
}

/// A socket that listens and does not belong to a server yet.
pub(super) struct BoundListener {
    /// Dropped first: a client that finds the file must find a listener.
    pub file: Option<SocketFile>,
    pub socket: Owned,
    pub endpoint: Endpoint,
    pub address: Address,
    /// The caller requested port 0.
    pub ephemeral_port: bool,
}

/// One of the endpoints that a server listens on.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) descriptor: Descriptor,
    pub(super) endpoint: Endpoint,
    pub(super) address: Address,
    #[cfg_attr(
        not(feature = "activation"),
        expect(dead_code, reason = "only a handover reads it")
    )]
    ephemeral_port: bool,
    /// Accept waits in poll: a timeout or a token is set, or the server has several listeners. The
    /// flag is never cleared. After poll, another thread may accept the connection first, and only
    /// O_NONBLOCK keeps accept from blocking then.
    uses_poll: AtomicBool,
    /// A close sets the event to wake the polls of this process, where it may not or cannot shut the
    /// listener down: see [`new_close_event`](super::new_close_event).
    pub(super) close_event: Option<Arc<sys::Event>>,
    /// Other processes have or may have the listening socket.
    is_shared: bool,
    pub(super) counters: Counters,
    rate_limit: RateLimitedLog,
    pub(super) file: Mutex<Option<SocketFile>>,
}

impl Listener {
    pub(super) fn new(
        bound: BoundListener,
        close_event: Option<Arc<sys::Event>>,
        is_shared: bool,
    ) -> Listener {
        Listener {
            descriptor: Descriptor::new(bound.socket),
            endpoint: bound.endpoint,
            address: bound.address,
            ephemeral_port: bound.ephemeral_port,
            uses_poll: AtomicBool::new(!sys::BLOCKING_CALLS || close_event.is_some()),
            close_event,
            is_shared,
            counters: Counters::default(),
            rate_limit: RateLimitedLog::default(),
            file: Mutex::new(bound.file),
        }
    }

    /// Keeps the descriptor open while the result lives. Returns `None` after a close.
    pub(crate) fn hold(&self) -> Option<InUse<'_>> {
        self.descriptor.enter()
    }

    /// Continues a use that [`hold`](Listener::hold) has begun and that was suspended.
    #[cfg(feature = "serve")]
    pub(crate) fn resume_hold(&self) -> InUse<'_> {
        self.descriptor.resume()
    }

    #[cfg(feature = "serve")]
    pub(crate) fn is_closed(&self) -> bool {
        self.descriptor.is_closed()
    }

    /// Whether other processes have or may have the listening socket.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    #[cfg(feature = "activation")]
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the caller requested port 0, so that the kernel assigned the port.
    #[cfg(feature = "activation")]
    pub(crate) fn has_ephemeral_port(&self) -> bool {
        self.ephemeral_port
    }

    /// Lends the file of a Unix socket that this process must remove. A close leaves the file in
    /// place until it is returned.
    #[cfg(feature = "activation")]
    pub(crate) fn lend_file(&self) -> SharedFile<'_> {
        SharedFile::new(&self.file, &self.descriptor)
    }

    /// Counts a connection that was accepted and is not returned to the program.
    pub(crate) fn count_rejection(&self, reason: Rejection, peer: &Address) {
        self.counters.accepted.fetch_sub(1, Ordering::Relaxed);
        let counter = match reason {
            #[cfg(feature = "serve")]
            Rejection::Full => &self.counters.rejected,
            #[cfg(feature = "serve")]
            Rejection::OverAddressLimit => &self.counters.over_address_limit,
            #[cfg(feature = "serve")]
            Rejection::Denied => &self.counters.denied,
            Rejection::User(_) => &self.counters.denied,
            Rejection::NotProxy => self.counters.proxy_rejected.as_ref(),
            #[cfg(feature = "serve")]
            Rejection::NoHeader(_) => self.counters.proxy_rejected.as_ref(),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.rate_limit.rejected(&self.endpoint, peer, reason);
    }

    /// Counts a connection that was accepted, and whose options could not be set.
    #[cfg(feature = "serve")]
    pub(super) fn count_unconfigured(&self, error: &Error) {
        self.counters.accepted.fetch_sub(1, Ordering::Relaxed);
        self.counters.retried.fetch_add(1, Ordering::Relaxed);
        let cause = io::Error::from_raw_os_error(error.os_error().unwrap_or(0));
        self.rate_limit.retried(&self.endpoint, &cause);
    }

    pub(crate) fn count_exhausted(&self, cause: &io::Error) {
        self.counters.exhausted.fetch_add(1, Ordering::Relaxed);
        self.rate_limit.exhausted(&self.endpoint, cause);
    }

    /// Accepts a pending connection without waiting, and counts it. Transient errors are retried
    /// and counted. The caller counts [`TryAccept::Exhausted`].
    #[cfg(feature = "serve")]
    pub(crate) fn try_accept(&self) -> TryAccept {
        let Some(io) = self.descriptor.enter() else {
            return TryAccept::Closed;
        };
        if !self.uses_poll.load(Ordering::Acquire) {
            if let Err(err) = self.start_polling(&io) {
                return TryAccept::Fatal(err.into());
            }
        }
        let outcome = self.retry_transient(&io, sys::accept(io.socket()));
        if let TryAccept::Accepted(..) = outcome {
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Classifies the result of an accept. Retries while the error is transient.
    pub(super) fn retry_transient(
        &self,
        io: &InUse<'_>,
        mut result: io::Result<Accepted>,
    ) -> TryAccept {
        let mut retries = 0;
        loop {
            let err = match result.or_else(|e| sys::accept_without_flags(io.socket(), e)) {
                Ok((socket, peer)) => return TryAccept::Accepted(socket, peer),
                Err(err) => err,
            };
            if io.is_closed() {
                // On Linux, shutdown(2) makes a waiting accept fail with EINVAL.
                return TryAccept::Closed;
            }
            match ErrorKind::of(&err) {
                ErrorKind::WouldBlock => return TryAccept::WouldBlock,
                ErrorKind::NoDescriptors | ErrorKind::NoMemory => return TryAccept::Exhausted(err),
                _ if sys::is_fatal_accept(&err) => return TryAccept::Fatal(err.into()),
                _ => {}
            }
            self.counters.retried.fetch_add(1, Ordering::Relaxed);
            self.rate_limit.retried(&self.endpoint, &err);
            retries += 1;
            if retries == MAX_CONSECUTIVE_RETRIES {
                return TryAccept::KeepsFailing(err);
            }
            result = sys::accept(io.socket());
        }
    }

    pub(crate) fn borrow(&self) -> Result<BorrowedSocket<'_>> {
        let io = self.descriptor.enter();
        let closed = || self.error(ErrorKind::Closed, "descriptor");
        io.map(|io| BorrowedSocket(io.hold())).ok_or_else(closed)
    }

    /// Whether accept waits in poll. It always does in a forked child, because the child cannot
    /// wake calls that wait in accept(2) without ending the listening of the parent.
    #[inline]
    pub(super) fn uses_poll(&self) -> bool {
        self.uses_poll.load(Ordering::Acquire) || self.descriptor.is_inherited()
    }

    /// Whether the socket was set to non-blocking mode.
    pub(super) fn is_polled(&self) -> bool {
        self.uses_poll.load(Ordering::Acquire)
    }

    /// Records that accept(2) returned EAGAIN, so the socket is in non-blocking mode.
    pub(super) fn mark_polled(&self) {
        self.uses_poll.store(true, Ordering::Release);
    }

    pub(super) fn start_polling(&self, io: &InUse<'_>) -> io::Result<()> {
        sys::set_nonblocking(io.socket(), true)?;
        self.mark_polled();
        Ok(())
    }

    /// The error of another operation than an accept.
    #[cold]
    pub(super) fn error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        Error::new(kind, operation).at(&self.endpoint)
    }

    /// The error of an accept on this endpoint.
    #[cold]
    pub(crate) fn accept_error(&self, cause: Cause) -> Error {
        cause.into_error(ACCEPT).on(self.endpoint.clone())
    }

    pub(super) fn close(&self) {
        if let Some(io) = self.descriptor.enter() {
            if self.descriptor.is_inherited() {
                self.leave_file_to_parent();
                self.descriptor.close(&io);
                return;
            }
            // The file first: a client that finds it must find a listener.
            drop(self.file.lock().unwrap_or_else(PoisonError::into_inner).take());
            if self.descriptor.close(&io) {
                match &self.close_event {
                    Some(event) => event.set(),
                    None => sys::wake(io.socket()),
                }
                let accepted = self.counters.accepted.load(Ordering::Relaxed);
                log::listener_closed(&self.endpoint, accepted);
            }
        }
    }

    /// In a forked child, leaves the file in place: it belongs to the parent. The caller must not
    /// call shutdown(2) or set the close event, because both would end the listening of the parent.
    fn leave_file_to_parent(&self) {
        if let Some(file) = sys::fork::lock_inherited(&self.file).and_then(|mut file| file.take()) {
            file.keep();
        }
    }

    /// In a forked child, closes the child's descriptor. The calls of the parent's threads that
    /// the descriptor still counts are ignored.
    #[cfg(feature = "serve")]
    pub(super) fn close_copy(&self) {
        self.leave_file_to_parent();
        self.descriptor.close_copy();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

/// The listener that accepted a connection. The connection does not record its listener, because
/// only rejections need it.
#[cfg(feature = "serve")]
pub(super) fn listener_of<'a>(listeners: &'a [Listener], client: &ClientSocket) -> &'a Listener {
    let [listener] = listeners else {
        // The five-tuple may have an address that a proxy has sent.
        let local = client.socket_address();
        let rank = |listener: &&Listener| match_rank(&listener.address, &local);
        return listeners.iter().max_by_key(rank).unwrap_or(&listeners[0]);
    };
    listener
}

/// Ranks how well the address of a listener matches the local address of a connection. 0 is no
/// match.
#[cfg(feature = "serve")]
pub(super) fn match_rank(listener: &Address, local: &Address) -> u8 {
    let is_ipv6 = |address: &Address| matches!(address, Address::Inet(a) if a.is_ipv6());
    if listener == local {
        3
    } else if listener.is_wildcard() && listener.port() == local.port() {
        // The IPv6 wildcard also accepts IPv4 if no IPv4 wildcard listens on the port.
        1 + u8::from(is_ipv6(listener) == is_ipv6(local))
    } else {
        0
    }
}
