//! [`ClientSocket`]: a connection, made by connect or by accept.
//!
//! | module | contents |
//! |---|---|
//! | `construct` | constructors |
//! | `io` | the step that reads and writes share: one system call, and the wait before it |
//! | `read`, `write`, `sendfile`, `scm_rights` | transfer of data, files and descriptors |
//! | `failure` | errors of calls, and the record of the error that ended the connection |
//! | `close`, `closer` | half-close, graceful close, abort; closes completed in the background |
//! | `liveness` | dead-peer detection, heartbeat, idle timeout |
//! | `config`, `sockopt`, `descriptor` | settings, modes, access to the descriptor |
//! | `transfer` | connections that move to an event loop, or back |
//! | `stats`, `saved_syn` | statistics, TCP state, the SYN of the connection |

#[macro_use]
mod error_docs;

mod close;
pub(crate) mod closer;
mod config;
mod construct;
mod descriptor;
mod failure;
mod flags;
mod io;
pub(crate) mod keepalive;
pub(crate) mod liveness;
#[cfg(all(test, keepsock_model))]
mod model;
mod proxy;
mod read;
#[cfg(feature = "diag")]
mod saved_syn;
mod scm_rights;
mod sendfile;
pub(crate) mod sockopt;
pub(crate) mod stats;
#[cfg(test)]
mod tests;
#[cfg(feature = "serve")]
mod transfer;
#[cfg(feature = "serve")]
mod try_send;
mod write;

#[cfg(feature = "serve")]
pub(crate) use close::is_delivered;
pub use descriptor::BorrowedSocket;
#[cfg(feature = "serve")]
pub(crate) use failure::end_by_error;
#[cfg(feature = "serve")]
pub(crate) use proxy::receive_header;
pub use scm_rights::Received;
#[cfg(feature = "serve")]
pub(crate) use transfer::Transfer;
#[cfg(feature = "serve")]
pub(crate) use try_send::TrySend;

use std::io::{Read, Result as IoResult, Write};
use std::sync::OnceLock;

use crate::io::cancel::CancelToken;
use crate::io::lock::PollingLock;
use crate::io::read_buffer::ReadBuffer;
use crate::io::timeout::TimeoutCell;
use crate::stream::liveness::policy::Liveness;
#[cfg(feature = "serve")]
use crate::sys::Hold;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};
use crate::sys::{Descriptor, Owned, TcpInfo};
use crate::types::address::Address;

/// A connection, made by [`connect`](ClientSocket::connect) or by
/// [`ServerSocket::accept`](crate::ServerSocket::accept).
///
/// # Threads
/// All methods take `&self`, and any number of threads may use one socket at the same time. One
/// thread that reads and another that writes is the usual case. The bytes of one write call are
/// never mixed with the bytes of another call. Threads that read at the same time share the
/// received bytes among them. A thread that waits for data does not see the bytes that a `read_line`
/// of another thread has left in the read buffer until more data arrives, so only one thread should
/// read lines or messages. Any thread may call [`close`](ClientSocket::close) at any time.
///
/// # The end of a connection
/// The first call that finds the end of the connection records the
/// [close reason](ClientSocket::close_reason), and all calls return that end from then on. The end
/// may come from the peer, from the kernel, or from a limit of this side: `dead_after`, the idle
/// timeout, the first-byte timeout or the heartbeat timeout. After the end by a limit:
///
/// | call | idle timeout, first-byte timeout | heartbeat timeout | `dead_after` |
/// |---|---|---|---|
/// | reads | `IdleTimeout` | `HeartbeatTimeout` | `Dead` |
/// | writes, `send_file` | send a last message, or `IdleTimeout` | `HeartbeatTimeout` | `Dead` |
/// | `shutdown_write` | sends FIN | `HeartbeatTimeout` | `Dead` |
/// | `check_liveness` | `IdleTimeout` | `HeartbeatTimeout` | `Dead` |
/// | `wait_hangup` | returns the reason | returns the reason | returns the reason |
/// | `close` after data was written | closes gracefully | `HeartbeatTimeout` | `Dead` |
///
/// - Reads first return the bytes of the [read buffer](ClientSocket::buffered). After an idle or
///   heartbeat timeout they return no bytes that arrive later.
/// - After an idle timeout the peer may still read, so a write sends the bytes that the kernel
///   accepts without a wait.
/// - The error is `Unreachable` or `Stalled` instead of `Dead` if that is the reason.
/// - The limits apply to the time in which the program reads. A waiting write, and a waiting
///   [`wait_hangup`](ClientSocket::wait_hangup), notices the end within a quarter of the limit.
///
/// After a reset the reads return the bytes that arrived before it, then `Reset`. If the peer's FIN
/// arrived before the reset, the reads return the end of the stream instead, and all other calls
/// report the reset.
///
/// # Dropping
/// Dropping a socket closes it gracefully and does not wait. A thread of the library completes the
/// [`close`](ClientSocket::close) within the close timeout. If the process exits before that, the
/// kernel still sends the data that was written. However, unread input makes the kernel send RST,
/// and then the data that the peer has not received is lost. Call [`close`](ClientSocket::close) to
/// learn whether the peer has received everything.
///
/// # fork(2)
/// A forked child has a copy of the socket. In the child, dropping the socket,
/// [`close`](ClientSocket::close) and [`abort`](ClientSocket::abort) close only the child's
/// descriptor, and the parent's connection continues. In the parent the same calls end the
/// connection, although the child has a copy. To leave the connection to the child, the parent
/// [releases](ClientSocket::release) the descriptor and closes it. The child also releases it, and
/// [adopts](ClientSocket::from_owned) it again.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket};
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// let accepted = server.accept()?;
/// client.write_all(b"hello\n")?;
/// assert_eq!(accepted.read_line(100)?, "hello");
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug)]
pub struct ClientSocket {
    descriptor: Descriptor,
    remote: Address,
    local: LazyAddress,
    /// The bits of the module [`flags`].
    flags: AtomicU32,
    /// The kernel has the same values, unless another user of the descriptor has changed them.
    keepalive: keepalive::KeepaliveCell,
    /// The kernel has the same value (SO_RCVTIMEO).
    read_timeout: TimeoutCell,
    /// The kernel has the same value (SO_SNDTIMEO).
    write_timeout: TimeoutCell,
    /// In milliseconds.
    close_timeout: AtomicU64,
    /// The mutex is also locked while the mode of the descriptor changes, so that the mode agrees
    /// with the flags.
    cancel: Mutex<Option<CancelToken>>,
    /// Held during a write.
    write_lock: PollingLock,
    /// The number of calls that wait for the end of the connection and not for input.
    hangup_waiters: AtomicU32,
    /// The error that ended the connection, an errno; 0: none. The kernel reports it once, and then
    /// reads look as if the peer had sent FIN.
    os_error: AtomicI32,
    /// Why the connection ended, a [`CloseReason`](crate::CloseReason) as a number; 0: it has not
    /// ended.
    close_reason: AtomicI32,
    /// Allocated on first use, so that the structure that is moved for each connection is small.
    cold: OnceLock<Box<ColdState>>,
}

/// State that most connections never need.
#[derive(Debug, Default)]
struct ColdState {
    /// Bytes that were read from the kernel and not yet returned to the program.
    buffer: Mutex<ReadBuffer>,
    /// The last report of the kernel on the connection, if the socket keeps it.
    final_info: OnceLock<TcpInfo>,
    /// Heartbeat, idle timeout and dead-peer detection, which may be set on an open connection.
    liveness: OnceLock<Liveness>,
    /// The message of which `write_message` has sent a part, with the flag `MESSAGE_UNFINISHED`.
    unfinished: Mutex<Option<Box<write::UnfinishedMessage>>>,
    /// The PROXY header, on a connection from a trusted proxy.
    proxy: OnceLock<proxy::ProxyHead>,
    /// The result of the first query of the saved SYN. The kernel returns the SYN once.
    #[cfg(feature = "diag")]
    syn: OnceLock<saved_syn::Saved>,
}

/// The local address of a connection.
#[derive(Debug)]
enum LazyAddress {
    Known(Address),
    /// Queried when it is first needed, and before the socket is closed.
    OnDemand(OnceLock<Address>),
}

/// An established connection, with its addresses if they are known without a system call.
pub(crate) struct Connected {
    pub socket: Owned,
    pub local: Option<Address>,
    pub remote: Address,
}

impl ClientSocket {
    /// The address of the peer; behind a proxy, that of its client.
    #[cfg(feature = "serve")]
    pub(crate) fn peer(&self) -> &Address {
        self.proxied().map_or(&self.remote, |(source, _)| source)
    }

    /// The local address of the socket itself, also behind a proxy.
    #[cfg(feature = "serve")]
    pub(crate) fn socket_address(&self) -> Address {
        let held = self.descriptor.hold();
        self.local_address(held.as_ref().map(Hold::socket)).cloned().unwrap_or(Address::UnixUnnamed)
    }

    /// Whether the connection is TCP.
    #[inline]
    fn is_inet(&self) -> bool {
        matches!(self.remote, Address::Inet(_))
    }

    fn liveness(&self) -> Option<&Liveness> {
        self.cold.get()?.liveness.get()
    }

    fn cold(&self) -> &ColdState {
        self.cold.get_or_init(Box::default)
    }
}

impl Drop for ClientSocket {
    #[inline(always)]
    fn drop(&mut self) {
        self.close_in_background();
    }
}

impl Read for &ClientSocket {
    fn read(&mut self, buf: &mut [u8]) -> IoResult<usize> {
        Ok(ClientSocket::read(self, buf)?)
    }
}

impl Write for &ClientSocket {
    fn write(&mut self, buf: &[u8]) -> IoResult<usize> {
        Ok(ClientSocket::write(self, buf)?)
    }

    fn flush(&mut self) -> IoResult<()> {
        Ok(())
    }
}
