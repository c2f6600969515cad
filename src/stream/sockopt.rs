//! Options of the operating system on an open connection.

use std::io;

use super::ClientSocket;
use super::flags::{ACTIVE_OPEN, NODELAY_OFF, TCP_OPTIONS};
use crate::io::wait::Cause;
use crate::options::option_failure;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Families};
use crate::types::address::Address;
use crate::types::error::{ErrorKind, Result};
use crate::types::sockopt::{Sockets, Sockopt};

const OPERATION: &str = "sockopt";

impl ClientSocket {
    /// Sets an option of the operating system on the open connection.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the value is out of range, or the option
    ///   has no effect after the handshake: reuse_port, defer_accept, transparent, freebind and
    ///   max_segment.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or this kind of socket does not have
    ///   the option.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not set it.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call for
    ///   another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, Sockopt};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.set_sockopt(Sockopt::Nodelay, 0)?;
    /// assert_eq!(client.sockopt(Sockopt::Nodelay)?, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_sockopt(&self, option: Sockopt, value: u32) -> Result<()> {
        let io = self.enter(OPERATION)?;
        self.check_sockopt(option, Some(value))?;
        if option == Sockopt::Nodelay && self.nodelay() == Some(value != 0) {
            return Ok(());
        }
        let set = sys::set_option(io.socket(), option, value, families_of(&self.remote));
        set.map_err(|e| self.failed(OPERATION, option_failure(io.socket(), option, value, &e), 0))?;
        if option == Sockopt::Nodelay {
            let off = if value == 0 { NODELAY_OFF } else { 0 };
            self.flags.fetch_or(off, Ordering::Relaxed);
            self.flags.fetch_and(!NODELAY_OFF | off, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The value of TCP_NODELAY, if the library has set it and no other user of the descriptor may have
    /// changed it.
    fn nodelay(&self) -> Option<bool> {
        let flags = self.flags.load(Ordering::Relaxed);
        let is_known = flags & (ACTIVE_OPEN | TCP_OPTIONS) == ACTIVE_OPEN && !self.has_holders();
        is_known.then_some(flags & NODELAY_OFF == 0)
    }

    /// Returns the value of an option that the kernel uses. Linux returns twice the size of a buffer
    /// that was set.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or this kind of socket does not have
    ///   the option.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, Sockopt};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// assert_eq!(client.sockopt(Sockopt::Nodelay)?, 1);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn sockopt(&self, option: Sockopt) -> Result<u32> {
        let io = self.enter(OPERATION)?;
        self.check_sockopt(option, None)?;
        let value = sys::get_option(io.socket(), option, families_of(&self.remote));
        value.map_err(|e| self.failed(OPERATION, query_failure(io.socket(), option, e), 0))
    }

    /// Calls [`check`] for this connection.
    fn check_sockopt(&self, option: Sockopt, value: Option<u32>) -> Result<()> {
        check(option, value, self.is_inet())
            .map_err(|(kind, what)| self.failed(OPERATION, kind.into(), 0).detail(what))
    }
}

/// Rejects an option that an open connection does not have, and a value that has no effect after the
/// handshake.
pub(crate) fn check(
    option: Sockopt,
    value: Option<u32>,
    inet: bool,
) -> std::result::Result<(), (ErrorKind, String)> {
    option.check_open(value, if inet { Sockets::OPEN } else { Sockets::UNIX })
}

/// The IP version of a connection. It may differ from that of the socket: a connection with an
/// IPv4-mapped address is IPv4.
pub(crate) fn families_of(remote: &Address) -> Families {
    match remote {
        Address::Inet(address) => Families::of(address),
        _ => Families::None,
    }
}

/// The failure of reading an option.
#[cold]
pub(crate) fn query_failure(socket: sys::Borrowed<'_>, option: Sockopt, err: io::Error) -> Cause {
    match ErrorKind::of(&err) {
        ErrorKind::Unsupported => option_failure(socket, option, 0, &err),
        _ => err.into(),
    }
}
