//! `keepsock_client`.

use std::sync::Arc;

use crate::ffi::{ErrorOut, NO_OPERATION, Out, Ref, Stopped, call, handle, keepsock_error};
use crate::internal::{Stop, closes_at_once};
use crate::{ClientSocket, Error, ErrorKind};

mod close;
mod config;
mod connect;
mod descriptor;
mod keepalive;
mod liveness;
mod pending_connect;
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
pub use pending_connect::*;
pub use read::*;
pub use reconnect::*;
pub use scm_rights::*;
pub use sockopt::*;
pub use stats::*;
pub use write::*;

/// One connection: made by keepsock_client_connect() or keepsock_server_accept(), or lent to a
/// keepsock_handler.
///
/// Threads: several threads may call functions on one connection at the same time. Usually one
/// thread reads while another writes. The bytes of one write call are not interleaved with those of
/// another. If two threads read lines, a waiting thread sees bytes that the other thread left in
/// the buffer only after more bytes have arrived. Any thread may close or abort the connection at
/// any time. Only keepsock_client_free() requires that no other thread uses the object.
pub struct keepsock_client {
    socket: Held,
}

handle!(keepsock_client, Client, "client", socket: ClientSocket, {
    #[inline]
    fn drop_may_wait(&self) -> bool {
        !matches!(&self.socket, Held::Own(socket) if closes_at_once(socket))
    }
});

impl Stopped for ClientSocket {
    fn stopped(&self, operation: &'static str, stop: Stop) -> Error {
        ClientSocket::stopped(self, operation, stop)
    }
}

/// A connection that the C program owns, or a connection of a service, which is shared.
// The slot has room for either variant. A box would cost one more allocation for each accept.
#[allow(clippy::large_enum_variant)]
enum Held {
    Own(ClientSocket),
    Lent(Arc<ClientSocket>),
}

impl std::ops::Deref for Held {
    type Target = ClientSocket;

    #[inline]
    fn deref(&self) -> &ClientSocket {
        match self {
            Held::Own(socket) => socket,
            Held::Lent(socket) => socket,
        }
    }
}

impl keepsock_client {
    #[inline]
    pub(crate) fn own(socket: ClientSocket) -> keepsock_client {
        keepsock_client { socket: Held::Own(socket) }
    }

    pub(crate) fn lent(socket: Arc<ClientSocket>) -> keepsock_client {
        keepsock_client { socket: Held::Lent(socket) }
    }

    #[inline]
    pub(crate) fn socket(&self) -> &ClientSocket {
        &self.socket
    }
}

/// Creates a second object for a connection that a keepsock_handler was lent.
///
/// The object may outlive the handler. Use it to push to this client from another thread. When the
/// handler returns, the connection is closed and calls on the object return KEEPSOCK_ERR_CLOSED.
/// Its five-tuple and its close reason stay readable.
///
/// @param client  The connection that a handler was lent, or another object for it.
/// @param ref     Receives the object. Free it with keepsock_client_free(), which does not close
///                the connection while the handler runs.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the connection was not lent; its owner can share the pointer
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
    call(error, "reference", || {
        let out = r#ref.reserved()?;
        let Held::Lent(socket) = &client.get()?.socket else {
            let detail = "not the connection of a handler";
            return Err(Error::new(ErrorKind::WrongState, NO_OPERATION).detail(detail));
        };
        out.put(keepsock_client::lent(socket.clone()));
        Ok(())
    })
}

/// Frees a connection, without waiting. The connection of a keepsock_handler is ignored.
///
/// An open connection is closed gracefully: a thread of the library continues the close as
/// keepsock_client_close() does, for at most the close timeout (2 s by default). If the process
/// exits earlier, the kernel still sends the written bytes. But if unread input is left, the kernel
/// sends RST, and bytes that the peer has not received by then are lost.
///
/// The library closes the descriptor immediately after the FIN if it cannot start the thread, or if
/// the program may need the descriptor:
///   - the oldest connection, if an eighth of the process's descriptors (RLIMIT_NOFILE) or 1,024
///     are being closed
///   - every connection whose descriptor is in the last quarter of RLIMIT_NOFILE
///   - every connection, if RLIMIT_NOFILE is below 64
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_free(client: *mut keepsock_client) {
    // SAFETY: the header requires that no other thread uses `client`.
    unsafe { handle::free(client) };
}
