//! `keepsock_client`.

#[cfg(feature = "serve")]
use std::sync::Arc;

use crate::ffi::handle::{Share, Sharers};
use crate::ffi::{ErrorOut, Out, Ref, Stopped, create, handle, keepsock_error};
use crate::internal::{Stop, closes_at_once};
use crate::{ClientSocket, Error, Result};

mod close;
mod config;
mod connect;
mod descriptor;
mod keepalive;
mod liveness;
mod lookup;
mod pending_connect;
mod proxy;
mod read;
mod reconnect;
mod scm_rights;
mod sockopt;
mod stats;
mod write;

pub use close::*;
pub use config::*;
pub use connect::*;
pub use descriptor::*;
pub use keepalive::*;
pub use liveness::*;
pub use lookup::*;
use pending_connect::watch_of;
pub use pending_connect::*;
pub use proxy::*;
pub use read::*;
pub use reconnect::*;
pub use scm_rights::*;
pub use sockopt::*;
pub use stats::*;
pub use write::*;

/// One connection: made by keepsock_client_connect() or keepsock_server_accept(), or passed to a
/// keepsock_handler.
///
/// Threads: several threads may call functions on one connection at the same time. Usually one
/// thread reads while another writes. The bytes of one write call are not interleaved with those of
/// another. If two threads read lines, a waiting thread sees bytes that the other thread left in
/// the buffer only after more bytes have arrived. Any thread may close or abort the connection at
/// any time. Only keepsock_client_free() requires that no other thread uses the object.
pub struct keepsock_client {
    socket: Held,
    /// Zero for an object that shares a connection itself.
    sharers: Sharers,
}

handle!(keepsock_client, Client, "client", socket: ClientSocket, {
    #[inline]
    fn drop_may_wait(&self) -> bool {
        !matches!(&self.socket, Held::Own(socket) if closes_at_once(socket))
    }

    #[inline]
    fn sharers(&self) -> Option<&Sharers> {
        Some(&self.sharers)
    }
});

impl Stopped for ClientSocket {
    fn stopped(&self, operation: &'static str, stop: Stop) -> Error {
        ClientSocket::stopped(self, operation, stop)
    }
}

/// A connection that the C program owns, or one that the object shares. Two variants: which one it
/// is costs one comparison in each call.
// The slot has room for either variant. A box would cost one more allocation for each accept.
#[allow(clippy::large_enum_variant)]
enum Held {
    Own(ClientSocket),
    Shared(Shared),
}

/// A connection that other objects use as well.
#[derive(Clone)]
enum Shared {
    /// A connection of a service.
    #[cfg(feature = "serve")]
    Lent(Arc<ClientSocket>),
    /// The connection of another object.
    With(Share<keepsock_client>),
}

impl std::ops::Deref for Held {
    type Target = ClientSocket;

    #[inline]
    fn deref(&self) -> &ClientSocket {
        match self {
            Held::Own(socket) => socket,
            #[cfg(feature = "serve")]
            Held::Shared(Shared::Lent(socket)) => socket,
            Held::Shared(Shared::With(owner)) => owner.socket(),
        }
    }
}

impl keepsock_client {
    #[inline]
    pub(crate) fn own(socket: ClientSocket) -> keepsock_client {
        keepsock_client::new(Held::Own(socket))
    }

    /// The connection of a connect that has completed.
    fn own_connected(
        connected: Option<ClientSocket>,
        would_block: impl FnOnce() -> Error,
    ) -> Result<Self> {
        connected.map(keepsock_client::own).ok_or_else(would_block)
    }

    #[cfg(feature = "serve")]
    pub(crate) fn lent(socket: Arc<ClientSocket>) -> keepsock_client {
        keepsock_client::new(Held::Shared(Shared::Lent(socket)))
    }

    #[inline]
    fn new(socket: Held) -> keepsock_client {
        keepsock_client { socket, sharers: Sharers::none() }
    }

    #[inline]
    pub(crate) fn socket(&self) -> &ClientSocket {
        &self.socket
    }
}

/// Creates a second object for a connection, for a part of the program with a lifetime of its own.
///
/// Both objects refer to the same connection: timeouts, buffered bytes and the close reason are
/// shared, and closing either object closes the connection. The library closes it when the last of
/// its objects is freed.
///
/// The library closes a handler's connection when the handler returns. Calls on the
/// second object then return KEEPSOCK_ERR_CLOSED, and its five-tuple and close reason stay readable.
/// Use it to push to this client from another thread.
///
/// @code
/// static void serve(keepsock_client *client, void *user)
/// {
///     keepsock_client **subscriber = user; // Another thread writes to it, and frees it.
///     char byte;
///     size_t len = 1;
///     if (keepsock_client_ref(client, subscriber, NULL) != KEEPSOCK_OK)
///         return;
///     while (len > 0 && keepsock_client_read(client, &byte, 1, &len, NULL) == KEEPSOCK_OK) {}
/// }
/// @endcode
///
/// @param client  The connection, or another object for it.
/// @param ref     Receives the object. Free it with keepsock_client_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_ref(
    client: *const keepsock_client,
    r#ref: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `ref` and
    // `error` are NULL or writable.
    let (client, r#ref, error) =
        unsafe { (Ref::new(client), Out::new(r#ref, "ref"), ErrorOut::new(error)) };
    create(r#ref, error, "reference", || {
        let socket = match &client.get()?.socket {
            Held::Own(_) => Shared::With(client.share()?),
            Held::Shared(shared) => shared.clone(),
        };
        Ok(keepsock_client::new(Held::Shared(socket)))
    })
}

/// Frees an object for a connection, without waiting. An object that was passed to a
/// keepsock_handler is ignored.
///
/// The last object of an open connection closes the connection gracefully. A thread of the library
/// continues the close as keepsock_client_close() does, for at most the close timeout (2 s by
/// default). If the process exits earlier, the kernel still sends the written bytes. If unread input
/// is left, the kernel sends RST, and bytes that the peer has not received by then are lost.
///
/// The library closes the descriptor immediately after the FIN if it cannot start the thread, or if
/// the program may need the descriptor:
///   - the oldest connection, if an eighth of the process's descriptors (RLIMIT_NOFILE) or 1,024
///     are being closed
///   - every connection whose descriptor is in the last quarter of RLIMIT_NOFILE
///   - every connection, if RLIMIT_NOFILE is below 64
///
/// Other connections keep their descriptors until their close ends, even if an accept or a connect
/// finds no free descriptor in that time, because an early end could lose data. With a close timeout
/// of 0 the library closes the descriptor immediately.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_free(client: *mut keepsock_client) {
    // SAFETY: the header requires that no other thread uses `client`.
    unsafe { handle::free(client) };
}
