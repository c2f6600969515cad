//! Connections that move from a [`ClientSocket`] to an event loop, or back.

use std::mem;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::flags::{
    ACTIVE_OPEN, BUFFERED, FD_SHARED, HALF_CLOSED, HEARTBEAT_PARTIAL, TCP_OPTIONS, UNWRITTEN,
    USES_POLL,
};
use super::keepalive::KeepaliveCell;
use super::proxy::ProxyHead;
use super::{ClientSocket, ColdState};
use crate::io::read_buffer::ReadBuffer;
use crate::io::timeout::millis;
use crate::options::SocketOptions;
use crate::stream::liveness::policy::Liveness;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Owned};
use crate::types::address::Address;
use crate::types::error::{ErrorKind, Result};
use crate::types::liveness::LivenessConfig;

/// A connection without its owner: the state that a [`ClientSocket`] and an event loop both have.
pub(crate) struct Transfer {
    pub socket: Owned,
    /// The peer of the socket: behind a proxy, the proxy.
    pub remote: Address,
    /// Behind a proxy: the address of the client, and the one that it connected to.
    pub proxied: Option<(Address, Address)>,
    pub liveness: LivenessConfig,
    pub close_timeout: Duration,
    /// The bytes that were received and not returned to the program.
    pub unread: Vec<u8>,
    /// Whether bytes were received.
    pub has_received: bool,
    /// Whether the kernel has accepted bytes of the program. True if the program had the descriptor,
    /// and so could write.
    pub has_written: bool,
    /// Whether this side has shut down sending.
    pub is_half_closed: bool,
    /// Whether this side sent the SYN.
    pub is_active_open: bool,
}

impl ClientSocket {
    /// Takes the connection out of the object, which is closed then. Fails, and changes nothing, if
    /// the connection has ended, another thread uses it, or a heartbeat is partly sent.
    pub(crate) fn take_out(&self, operation: &'static str) -> Result<Transfer> {
        let io = self.enter(operation)?;
        if let Some(cause) = self.limit_end().or_else(|| self.stored_error()) {
            return Err(self.failed(operation, cause, 0));
        }
        if self.has(HEARTBEAT_PARTIAL) {
            let wrong = self.failed(operation, ErrorKind::WrongState.into(), 0);
            return Err(wrong.detail("a heartbeat is partly sent: write first, which completes it"));
        }
        let (liveness, close_timeout) = self.liveness_and_close_timeout();
        let has_received = self.liveness().is_some_and(Liveness::has_received);
        let proxied = self.proxied().map(|(source, local)| (source.clone(), local.clone()));
        let is_half_closed = self.has(HALF_CLOSED);
        let has_written = !self.has(UNWRITTEN) || self.has(FD_SHARED);
        let socket = self.release_from(io, operation)?;
        if !sys::BLOCKING_CALLS {
            // The release has set the mode for the program. An open socket cannot reject this.
            let _ = sys::set_nonblocking(sys::borrow(&socket), true);
        }
        let unread = self.cold.get().map(|_| mem::take(&mut *self.lock_buffer()).into_unread());
        self.flags.fetch_and(!BUFFERED, Ordering::AcqRel);
        Ok(Transfer {
            socket,
            remote: self.remote.clone(),
            proxied,
            liveness,
            close_timeout,
            unread: unread.unwrap_or_default(),
            has_received,
            has_written,
            is_half_closed,
            is_active_open: self.has(ACTIVE_OPEN),
        })
    }

    /// The object of a connection that leaves an event loop. The descriptor has the mode of a new
    /// object.
    pub(crate) fn taken_out(transfer: Transfer) -> ClientSocket {
        let Transfer { socket, remote, proxied, liveness, close_timeout, unread, .. } = transfer;
        // The program may have had the descriptor.
        let flags = FD_SHARED | TCP_OPTIONS;
        let defaults = SocketOptions::default();
        let mut client = ClientSocket::construct(socket, remote, None, &defaults, flags, None);
        client.keepalive = KeepaliveCell::unknown();
        // No other thread has the new socket.
        client.close_timeout.store(millis(close_timeout), Ordering::Relaxed);
        let mut flags = client.flags.load(Ordering::Relaxed);
        for (flag, is_set) in [
            (BUFFERED, !unread.is_empty()),
            (HALF_CLOSED, transfer.is_half_closed),
            (ACTIVE_OPEN, transfer.is_active_open),
            (USES_POLL, flags & USES_POLL != 0 || liveness.has_dues()),
            (UNWRITTEN, !transfer.has_written),
        ] {
            flags = if is_set { flags | flag } else { flags & !flag };
        }
        client.flags.store(flags, Ordering::Relaxed);
        if unread.is_empty() && proxied.is_none() && liveness.is_plain() {
            return client;
        }
        let cold = ColdState { buffer: ReadBuffer::of(unread).into(), ..ColdState::default() };
        if !liveness.is_plain() {
            let live = Liveness::new(liveness, Instant::now());
            if transfer.has_received {
                live.note_received(Instant::now());
            }
            let _ = cold.liveness.set(live);
        }
        if let Some((source, destination)) = proxied {
            let _ = cold.proxy.set(ProxyHead::received(source, destination));
        }
        client.cold = OnceLock::from(Box::new(cold));
        client
    }
}
