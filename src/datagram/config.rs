//! Options of an open datagram socket, its statistics, and its descriptor.

use std::sync::PoisonError;
use std::time::Duration;

use super::{DatagramSocket, Shared, Side, must_poll};
use crate::io::cancel::CancelToken;
use crate::options::option_failure;
use crate::stream::BorrowedSocket;
use crate::stream::sockopt::query_failure;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Families, InUse, Owned, Sending};
use crate::types::address::FiveTuple;
use crate::types::error::{ErrorKind, IN_USE, Result};
use crate::types::sockopt::{Sockets, Sockopt};

const SOCKOPT: &str = "sockopt";

/// Statistics of a datagram socket, from [`DatagramSocket::stats`].
///
/// A member is `None` where the system does not report it; Linux reports all of them (SO_MEMINFO of
/// linux/sock_diag.h). Memory is the kernel's, which for small datagrams is several times the number
/// of their bytes.
///
/// ```
/// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
/// let snapshot = socket.stats()?;
/// println!("{}: {:?} dropped", snapshot.five_tuple, snapshot.dropped);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramStats {
    /// The protocol, the local and the remote address.
    pub five_tuple: FiveTuple,
    /// The number of datagrams dropped because the receive buffer was full.
    pub dropped: Option<u64>,
    /// The memory in bytes of datagrams that wait to be received, and its limit.
    pub unread: Option<u64>,
    /// The limit of [`unread`](DatagramStats::unread), in bytes.
    pub receive_buffer: Option<u64>,
    /// The memory in bytes of datagrams that wait to be sent, and its limit.
    pub unsent: Option<u64>,
    /// The limit of [`unsent`](DatagramStats::unsent), in bytes.
    pub send_buffer: Option<u64>,
    /// The number of skipped datagrams from users that are not
    /// [allowed](crate::SocketOptions::allowed_uid).
    pub denied: u64,
    /// The number of [reported](DatagramSocket::recv_error) errors.
    pub errors: u64,
    /// The number of times that receiving was retried after a transient error: see
    /// [`serve`](DatagramSocket::serve).
    pub retried: u64,
    /// The number of datagrams that [`serve`](DatagramSocket::serve) has passed to handlers.
    pub served: u64,
    /// The path MTU to the peer of a [connected](DatagramSocket::connect) UDP socket, in bytes with IP
    /// and UDP headers. `None`: the socket is not connected, or the system is not Linux.
    ///
    /// A datagram whose payload is 28 bytes shorter (IPv4), or 48 bytes shorter (IPv6), needs no
    /// fragmentation. The MTU of the first network is known from the start, a smaller one on the path
    /// after a router has reported it.
    pub path_mtu: Option<u32>,
}

impl Shared {
    pub(super) fn look(&self, io: &InUse<'_>) -> DatagramStats {
        let memory = sys::memory(io.socket());
        let path_mtu = match &self.side {
            Side::Inet(inet) if inet.peer().is_some() => sys::path_mtu(io.socket(), inet.ipv6).ok(),
            _ => None,
        };
        DatagramStats {
            five_tuple: self.five_tuple(),
            dropped: memory.dropped,
            unread: memory.unread,
            receive_buffer: memory.receive_buffer,
            unsent: memory.unsent,
            send_buffer: memory.send_buffer,
            denied: match &self.side {
                Side::Inet(_) => 0,
                Side::Unix(unix) => unix.denied.load(Ordering::Relaxed),
            },
            errors: self.error_count.load(Ordering::Relaxed),
            retried: self.retried.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            path_mtu,
        }
    }
}

impl DatagramSocket {
    // ---- sending options and metadata ------------------------------------------------------

    /// Sets the TTL (called hop limit in IPv6) for outgoing unicast datagrams. For multicast see
    /// [`set_multicast_ttl`](DatagramSocket::set_multicast_ttl). Default: the system's, usually 64.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the TTL is 0.
    /// [`Unsupported`](ErrorKind::Unsupported): a Unix socket.
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_ttl(255)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_ttl(&self, ttl: u8) -> Result<()> {
        const OPERATION: &str = "TTL";
        if ttl == 0 {
            let zero = self.failed(OPERATION, ErrorKind::InvalidArgument.into(), None);
            return Err(zero.detail("the TTL must be greater than zero"));
        }
        self.set_sending(OPERATION, Sending::Ttl(ttl))
    }

    /// Sets the TOS byte (called traffic class in IPv6) for outgoing datagrams. The upper six bits are
    /// DSCP (RFC 2474), the lower two are ECN (RFC 3168). Default: 0.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): a Unix socket, or Windows, where only a policy of the machine
    /// sets the byte.
    /// [`PermissionDenied`](ErrorKind::PermissionDenied): the system reserves the value for privileged
    /// programs. [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_tos(46 << 2 | 0b10)?;   // expedited forwarding; ECN-capable: ECT(0)
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_tos(&self, tos: u8) -> Result<()> {
        self.set_sending("TOS", Sending::Tos(tos))
    }

    /// Sets an option of the operating system on the open socket, such as the size of a buffer.
    ///
    /// # Errors
    /// The socket is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the value is out of range, or the option
    ///   has no effect on an open socket: reuse_address, reuse_port, transparent and freebind.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or this kind of socket does not have
    ///   the option.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not set it.
    /// - [`Closed`](ErrorKind::Closed): the socket was closed.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call for
    ///   another reason.
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, Sockopt};
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_sockopt(Sockopt::RecvBuffer, 1 << 20)?;
    /// println!("{} bytes", socket.sockopt(Sockopt::RecvBuffer)?);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_sockopt(&self, option: Sockopt, value: u32) -> Result<()> {
        let io = self.enter(SOCKOPT)?;
        let families = self.check_sockopt(option, Some(value))?;
        sys::set_option(io.socket(), option, value, families)
            .map_err(|e| self.failed(SOCKOPT, option_failure(io.socket(), option, value, &e), None))
    }

    /// Returns the value of an option that the kernel uses. Linux returns twice the size of a buffer
    /// that was set.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or this kind of socket does not have
    ///   the option.
    /// - [`Closed`](ErrorKind::Closed): the socket was closed.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, Sockopt};
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.sockopt(Sockopt::Tos)?, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn sockopt(&self, option: Sockopt) -> Result<u32> {
        let io = self.enter(SOCKOPT)?;
        let families = self.check_sockopt(option, None)?;
        sys::get_option(io.socket(), option, families)
            .map_err(|e| self.failed(SOCKOPT, query_failure(io.socket(), option, e), None))
    }

    /// Rejects an option that has no effect, and returns the IP versions of the socket.
    fn check_sockopt(&self, option: Sockopt, value: Option<u32>) -> Result<Families> {
        let (kind, families) = match &self.0.side {
            Side::Inet(inet) => (Sockets::UDP_OPEN, inet.families()),
            Side::Unix(_) => (Sockets::UNIX_DATAGRAM, Families::None),
        };
        let checked = option.check_open(value, kind);
        checked.map_err(|(kind, what)| self.failed(SOCKOPT, kind.into(), None).detail(what))?;
        Ok(families)
    }

    /// Forbids fragmentation of outgoing datagrams, by routers and by this machine.
    ///
    /// A datagram above the path MTU then fails with [`TooLong`](ErrorKind::TooLong): at once, or, if a
    /// router reports it later, in the next call. [`recv_error`](DatagramSocket::recv_error) returns the
    /// path MTU. Default: false, datagrams are fragmented where necessary.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): a system other than Linux, macOS, FreeBSD
    /// and Windows, or a Unix socket. [`Os`](ErrorKind::Os): on macOS and FreeBSD, the socket has both
    /// IP versions. [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_dont_fragment(true)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_dont_fragment(&self, on: bool) -> Result<()> {
        self.set_sending("dont_fragment", Sending::Whole(on))
    }

    fn set_sending(&self, operation: &'static str, setting: Sending) -> Result<()> {
        let io = self.enter(operation)?;
        let families = self.inet(operation)?.families();
        sys::set_sending(io.socket(), families, setting)
            .map_err(|e| self.failed(operation, e.into(), None))
    }

    /// Reports metadata with each received datagram: [`ttl`](crate::Datagram::ttl),
    /// [`tos`](crate::Datagram::tos), [`received_at`](crate::Datagram::received_at) and, for every local
    /// address, the [`interface`](crate::Datagram::interface); for Unix sockets
    /// [`received_at`](crate::Datagram::received_at) and
    /// [`credentials`](crate::Datagram::credentials). The kernel then does more work per datagram.
    /// Default: false.
    ///
    /// macOS and FreeBSD report the time in microseconds. They report TTL and TOS of IPv4 datagrams on
    /// a socket for IPv4 only, and FreeBSD does not report the interface of IPv4 datagrams.
    /// Windows does not report the time, and the interface only for a socket with several addresses.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): a system other than Linux, macOS, FreeBSD and Windows, or
    /// a Unix socket on a system other than Linux.
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// server.set_recv_metadata(true)?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// client.set_ttl(7)?;
    /// client.send(b"hello")?;
    /// let datagram = server.recv(&mut [0; 8])?;
    /// assert_eq!((datagram.ttl, datagram.tos), (Some(7), Some(0)));
    /// println!("it came at {:?}", datagram.received_at);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_recv_metadata(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "receive metadata";
        let io = self.enter(OPERATION)?;
        let (set, control) = match &self.0.side {
            Side::Inet(inet) => {
                let (socket, ipv6) = (io.socket(), inet.ipv6);
                let set = if on { sys::want_destination(socket, ipv6) } else { Ok(()) };
                let set = set.and_then(|()| sys::want_details(socket, inet.families(), on));
                (set, sys::UDP_CONTROL)
            }
            // Turning it off changes only the results of this program. The kernel continues to
            // report both, because a receiver in another thread has space for both or for none.
            Side::Unix(_) => {
                (if on { sys::want_sender(io.socket()) } else { Ok(()) }, sys::UNIX_CONTROL)
            }
        };
        set.map_err(|e| self.failed(OPERATION, e.into(), None))?;
        if let Side::Unix(unix) = &self.0.side {
            unix.details.store(on, Ordering::Relaxed);
        }
        if on {
            // The space stays: datagrams that were queued before may carry both.
            self.0.control.store(control, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns the current statistics; after close, the last ones, if
    /// [`keep_stats`](crate::SocketOptions::keep_stats) was set.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed): the socket was closed, and kept no statistics.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.stats()?.errors, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stats(&self) -> Result<DatagramStats> {
        match (self.0.descriptor.enter(), self.0.last.get()) {
            (Some(io), _) => Ok(self.0.look(&io)),
            (None, Some(last)) => Ok(last.clone()),
            (None, None) => Err(self.failed("statistics", ErrorKind::Closed.into(), None)),
        }
    }

    // ---- waiting, and the descriptor -------------------------------------------------------

    /// Sets the timeout of each receiving call as a whole; `None`: no timeout. Calls in progress keep
    /// theirs.
    ///
    /// On Linux a receive with a timeout of 50 ms or more is one system call (SO_RCVTIMEO) if a
    /// datagram arrives in seven eighths of the time; a receive that times out polls as well. A receive
    /// with a token is two system calls. A socket that was adopted or that may be handed over is as one with a
    /// token, because other processes share its SO_RCVTIMEO.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the timeout is zero; use
    /// [`set_nonblocking`](DatagramSocket::set_nonblocking) to not wait at all.
    /// [`Closed`](ErrorKind::Closed): the socket was closed. [`NoMemory`](ErrorKind::NoMemory),
    /// [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_read_timeout(std::time::Duration::from_millis(20))?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_read_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        const OPERATION: &str = "read timeout";
        let timeout = timeout.into();
        let io = self.enter(OPERATION)?;
        self.check_timeout(OPERATION, timeout)?;
        let _order = self.0.cancel.lock();
        self.0
            .set_kernel_timeout(io.socket(), timeout)
            .map_err(|e| self.failed(OPERATION, e.into(), None))?;
        self.0.read_timeout.set(timeout);
        Ok(())
    }

    /// Sets the timeout of each sending call as a whole; `None`: no timeout. Calls in progress keep
    /// theirs.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the timeout is zero.
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_write_timeout(std::time::Duration::from_secs(5))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_write_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        const OPERATION: &str = "write timeout";
        let timeout = timeout.into();
        if self.0.descriptor.is_closed() {
            return Err(self.failed(OPERATION, ErrorKind::Closed.into(), None));
        }
        self.check_timeout(OPERATION, timeout)?;
        self.0.write_timeout.set(timeout);
        Ok(())
    }

    fn check_timeout(&self, operation: &'static str, timeout: Option<Duration>) -> Result<()> {
        if timeout.is_some_and(|t| t.is_zero()) {
            let zero = self.failed(operation, ErrorKind::InvalidArgument.into(), None);
            return Err(zero.detail("the timeout must be greater than zero"));
        }
        Ok(())
    }

    /// Sets non-blocking mode: calls that would wait return [`WouldBlock`](ErrorKind::WouldBlock), and
    /// the descriptor has O_NONBLOCK. Calls that already wait continue to wait.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_nonblocking(true)?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::WouldBlock);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "non-blocking mode";
        let io = self.enter(OPERATION)?;
        let _mode = self.0.cancel.lock();
        sys::set_nonblocking(io.socket(), on || !sys::BLOCKING_CALLS)
            .map_err(|e| self.failed(OPERATION, e.into(), None))?;
        self.0.nonblocking.store(on, Ordering::Release);
        Ok(())
    }

    /// Sets a token that cancels the calls of this socket; `None` removes it. Calls in progress are not
    /// affected.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState): a service uses the socket. Set the token before
    /// [serving](DatagramSocket::serve).
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let token = keepsock::CancelToken::new()?;
    /// socket.set_cancel(Some(&token))?;
    /// token.fire();
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::Cancelled);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_cancel(&self, token: Option<&CancelToken>) -> Result<()> {
        let mut slot = self.0.cancel.lock();
        if slot.is_served() {
            let error = self.failed("cancel token", ErrorKind::WrongState.into(), None);
            return Err(error.detail("a service uses the socket; set the token before serving"));
        }
        slot.set(token);
        let polled = must_poll(token, self.0.closing.as_ref())
            || self.0.fails_on_refused.load(Ordering::Relaxed);
        self.0.polled.store(polled, Ordering::Release);
        Ok(())
    }

    /// Borrows the descriptor, for an event loop or an option that keepsock does not have. The
    /// descriptor stays open while the guard lives, even if another thread closes the socket.
    ///
    /// Do not set options that add control messages (SO_PASSSEC, SO_TIMESTAMP) on a Unix socket with
    /// [`allowed_uid`](crate::SocketOptions::allowed_uid): they take the space of the credentials, and a
    /// datagram without credentials is rejected.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let borrowed = socket.borrow()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn borrow(&self) -> Result<BorrowedSocket<'_>> {
        self.enter("descriptor").map(|io| BorrowedSocket(io.hold()))
    }

    /// Releases the descriptor, which the caller then owns. For this object the socket is closed. The
    /// file of a Unix socket stays.
    ///
    /// The descriptor is in blocking mode unless [`set_nonblocking`](DatagramSocket::set_nonblocking) was
    /// last called with true, independent of its mode when it was adopted. It has no SO_RCVTIMEO and
    /// SO_SNDTIMEO. Other options keep their values: SO_PASSCRED and SO_TIMESTAMPNS after
    /// [`set_recv_metadata`](DatagramSocket::set_recv_metadata) or
    /// [`allowed_uid`](crate::SocketOptions::allowed_uid), IP_RECVERR and IP_PKTINFO of UDP.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
    /// [`WrongState`](ErrorKind::WrongState): another thread is in a call on it, a service uses it, or
    /// datagrams wait that the kernel may have [coalesced](crate::SocketOptions::udp_gro), which the next owner would read as
    /// one datagram.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let socket = std::net::UdpSocket::from(socket.release()?);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn release(&self) -> Result<Owned> {
        const OPERATION: &str = "release";
        let wrong = |what| self.failed(OPERATION, ErrorKind::WrongState.into(), None).detail(what);
        let busy = || wrong(IN_USE);
        let io = self.enter(OPERATION)?;
        // No service starts before the descriptor is released.
        let slot = self.0.cancel.lock();
        if slot.is_served() {
            return Err(wrong("a service uses the socket; release the descriptor before serving"));
        }
        let coalesced = self.0.coalesced.as_ref();
        if let Some(coalesced) = coalesced {
            match self.uncoalesce(coalesced, &io) {
                Some(true) => {}
                Some(false) => {
                    return Err(wrong(
                        "received datagrams wait, and udp_gro may have coalesced them: receive them \
                         before the release",
                    ));
                }
                None => return Err(busy()),
            }
        }
        let Some(owned) = self.0.descriptor.release(io) else {
            // Restores the previous state.
            if let (Some(_), Some(io)) = (coalesced, self.0.descriptor.enter()) {
                let _ = sys::coalesce(io.socket(), true);
            }
            return Err(busy());
        };
        drop(slot);
        sys::prepare_release(sys::borrow(&owned), self.0.nonblocking.load(Ordering::Acquire));
        if let Side::Unix(unix) = &self.0.side {
            if let Some(file) = unix.file.lock().unwrap_or_else(PoisonError::into_inner).take() {
                file.keep();
            }
        }
        Ok(owned)
    }

    /// Closes the socket. Calls of other threads return [`Closed`](ErrorKind::Closed). Datagrams that
    /// were sent are delivered. [`recv_error`](DatagramSocket::recv_error) still returns the errors that
    /// were reported before. Any thread may close at any time; closing twice is harmless.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.close();
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::Closed);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn close(&self) {
        self.keep_reported();
        self.0.close();
    }
}
