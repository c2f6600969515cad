//! How a datagram socket is set, what is known of it, and its descriptor.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{DatagramSocket, Shared, Side};
use crate::cancel::CancelToken;
use crate::client::BorrowedSocket;
use crate::error::{ErrorKind, Result};
use crate::info::FiveTuple;
use crate::sys::{self, InUse, Owned, Sending};
use crate::wait::{NO_TIMEOUT, millis};

/// What is known of a datagram socket at one moment, from
/// [`DatagramSocket::snapshot`]. `None` is what the system does not tell; Linux tells everything
/// (SO_MEMINFO of linux/sock_diag.h). Memory is the kernel's, which for small datagrams is several
/// times their bytes.
///
/// ```
/// # if cfg!(windows) { return Ok(()) }
/// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
/// let snapshot = socket.snapshot()?;
/// println!("{}: {:?} dropped", snapshot.five_tuple, snapshot.dropped);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramSnapshot {
    /// Protocol, local and remote address.
    pub five_tuple: FiveTuple,
    /// How many datagrams were lost here, since there was no room for them.
    pub dropped: Option<u64>,
    /// Bytes of memory that datagrams take which wait to be received, and how many they may take.
    pub unread: Option<u64>,
    /// See [`unread`](DatagramSnapshot::unread).
    pub receive_buffer: Option<u64>,
    /// Bytes of memory that datagrams take which wait to be sent, and how many they may take.
    pub unsent: Option<u64>,
    /// See [`unsent`](DatagramSnapshot::unsent).
    pub send_buffer: Option<u64>,
    /// How many datagrams were passed over since their sender is not one of the users that
    /// [may send](crate::SocketOptions::allow_user).
    pub denied: u64,
    /// How many errors were [reported](DatagramSocket::recv_error).
    pub errors: u64,
    /// How long a packet to the peer of a connected UDP socket may be, as
    /// [`path_mtu`](DatagramSocket::path_mtu) tells it.
    pub path_mtu: Option<u32>,
}

impl Shared {
    pub(super) fn look(&self, io: &InUse<'_>) -> DatagramSnapshot {
        let memory = sys::memory(io.socket());
        let path_mtu = match &self.side {
            Side::Inet(inet) if inet.peer.is_some() => sys::path_mtu(io.socket(), inet.ipv6).ok(),
            _ => None,
        };
        DatagramSnapshot {
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
            path_mtu,
        }
    }
}

impl DatagramSocket {
    // ---- how datagrams are sent, and what is told of them ---------------------------------

    /// How many routers what this socket sends may pass: TTL, or hop limit. Groups have
    /// [their own](DatagramSocket::set_multicast_ttl). Default: the system's, mostly 64.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for 0;
    /// [`Unsupported`](ErrorKind::Unsupported) for Unix sockets; [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_ttl(255)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_ttl(&self, ttl: u8) -> Result<()> {
        const OPERATION: &str = "TTL";
        if ttl == 0 {
            let zero = self.failed(OPERATION, ErrorKind::InvalidArgument.into(), None);
            return Err(zero.detail("0 would reach nobody"));
        }
        self.set_sending(OPERATION, Sending::Ttl(ttl))
    }

    /// The TOS byte (IPv4), or traffic class (IPv6), of what this socket sends: DSCP in the upper
    /// six bits (RFC 2474), ECN in the lower two (RFC 3168). Default: 0.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for Unix sockets; [`Closed`](ErrorKind::Closed);
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) where the system keeps some for
    /// privileged programs.
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

    /// Whether what this socket sends may not be cut into fragments on its way, not by this
    /// machine either: what is longer than the way takes fails with
    /// [`TooLong`](ErrorKind::TooLong), at once or, if a router tells of it later, for the next
    /// one; [`recv_error`](DatagramSocket::recv_error) tells how long it may be. Default: no,
    /// datagrams are cut as is needed.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux, and for Unix sockets;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_dont_fragment(true)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_dont_fragment(&self, on: bool) -> Result<()> {
        self.set_sending("fragments", Sending::Whole(on))
    }

    fn set_sending(&self, operation: &'static str, setting: Sending) -> Result<()> {
        let io = self.enter(operation)?;
        let families = self.inet(operation)?.families();
        sys::set_sending(io.socket(), families, setting)
            .map_err(|e| self.failed(operation, e.into(), None))
    }

    /// How long a packet to the peer of a [connected](DatagramSocket::connect) socket may be, in
    /// bytes, as far as the system knows: a datagram that is 28 bytes shorter (IPv4), or 48 (IPv6),
    /// needs not be cut. That of the first network is known from the beginning, others only after a
    /// router told of them.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState) if the socket is not connected;
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux, and for Unix sockets;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// assert!(client.path_mtu()? >= 576);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn path_mtu(&self) -> Result<u32> {
        const OPERATION: &str = "path MTU";
        let io = self.enter(OPERATION)?;
        let inet = self.inet(OPERATION)?;
        if inet.peer.is_none() {
            let error = self.failed(OPERATION, ErrorKind::WrongState.into(), None);
            return Err(error.detail("it is not connected"));
        }
        sys::path_mtu(io.socket(), inet.ipv6).map_err(|e| self.failed(OPERATION, e.into(), None))
    }

    /// Whether [`ttl`](crate::Datagram::ttl), [`tos`](crate::Datagram::tos) and
    /// [`received_at`](crate::Datagram::received_at) of each datagram are told, and the
    /// [`interface`](crate::Datagram::interface) of each, whatever the socket is bound to; of Unix
    /// sockets [`received_at`](crate::Datagram::received_at) and
    /// [`credentials`](crate::Datagram::credentials). It costs a little for each. Default: no.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// server.set_details(true)?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// client.set_ttl(7)?;
    /// client.send(b"hello")?;
    /// let datagram = server.recv(&mut [0; 8])?;
    /// assert_eq!((datagram.ttl, datagram.tos), (Some(7), Some(0)));
    /// println!("it came at {:?}", datagram.received_at);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_details(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "details";
        let io = self.enter(OPERATION)?;
        let families = match &self.0.side {
            Side::Inet(inet) => Some(inet.families()),
            Side::Unix(_) => None,
        };
        let set = match &self.0.side {
            Side::Inet(inet) if on => sys::want_destination(io.socket(), inet.ipv6),
            Side::Inet(_) => Ok(()),
            // If only some users may send, nobody would be known without it, be it for a moment.
            Side::Unix(unix) => sys::want_credentials(io.socket(), on || !unix.users.is_empty()),
        };
        let set = set.and_then(|()| sys::want_details(io.socket(), families, on));
        set.map_err(|e| self.failed(OPERATION, e.into(), None))?;
        if on {
            // It stays: what was in the queue before may have them.
            self.0.control.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What is known of the socket now; after close, what was known then, if
    /// [`last_snapshot`](crate::SocketOptions::last_snapshot) was set.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.snapshot()?.errors, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn snapshot(&self) -> Result<DatagramSnapshot> {
        match (self.0.descriptor.enter(), self.0.last.get()) {
            (Some(io), _) => Ok(self.0.look(&io)),
            (None, Some(last)) => Ok(last.clone()),
            (None, None) => Err(self.failed("snapshot", ErrorKind::Closed.into(), None)),
        }
    }

    // ---- waiting, and the descriptor -------------------------------------------------------

    /// Sets the time for each receiving call as a whole; `None`: no limit. Calls under way keep
    /// theirs. With a limit a call that has to wait makes two system calls more.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for zero
    /// ([`set_nonblocking`](DatagramSocket::set_nonblocking) is what does not wait),
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_read_timeout(std::time::Duration::from_millis(20))?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_read_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.set_timeout(&self.0.read_timeout, timeout.into())
    }

    /// Sets the time for each sending call as a whole; `None`: no limit.
    ///
    /// # Errors
    /// Those of [`set_read_timeout`](DatagramSocket::set_read_timeout).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_write_timeout(std::time::Duration::from_secs(5))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_write_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.set_timeout(&self.0.write_timeout, timeout.into())
    }

    fn set_timeout(&self, which: &AtomicU64, timeout: Option<Duration>) -> Result<()> {
        const OPERATION: &str = "timeout";
        if self.0.descriptor.is_closed() {
            return Err(self.failed(OPERATION, ErrorKind::Closed.into(), None));
        }
        if timeout.is_some_and(|t| t.is_zero()) {
            let zero = self.failed(OPERATION, ErrorKind::InvalidArgument.into(), None);
            return Err(zero.detail("the timeout is zero"));
        }
        which.store(timeout.map_or(NO_TIMEOUT, millis), Ordering::Relaxed);
        Ok(())
    }

    /// In non-blocking mode calls that would wait return
    /// [`WouldBlock`](ErrorKind::WouldBlock) instead, and the descriptor has O_NONBLOCK.
    /// Calls that wait already go on.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_nonblocking(true)?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::WouldBlock);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "non-blocking mode";
        let io = self.enter(OPERATION)?;
        let _mode = self.0.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        sys::set_nonblocking(io.socket(), on || !sys::BLOCKING_CALLS)
            .map_err(|e| self.failed(OPERATION, e.into(), None))?;
        self.0.nonblocking.store(on, Ordering::Release);
        Ok(())
    }

    /// Gives the socket a token that ends its calls, or takes it off. Calls under
    /// way are not affected.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let token = keepsock::CancelToken::new()?;
    /// socket.set_cancel(Some(&token));
    /// token.fire();
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::Cancelled);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_cancel(&self, token: Option<&CancelToken>) {
        let mut cancel = self.0.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        *cancel = token.cloned();
        let polled = cancel.is_some() || self.0.closing.is_some() || !sys::BLOCKING_CALLS;
        self.0.polled.store(polled, Ordering::Release);
    }

    pub(super) fn cancel_token(&self) -> Option<CancelToken> {
        self.0.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Borrows the descriptor, for an event loop or an option that keepsock does not know. While
    /// the guard lives the descriptor stays open, even if another thread closes the socket.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let borrowed = socket.borrow()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn borrow(&self) -> Result<BorrowedSocket<'_>> {
        self.enter("borrow").map(BorrowedSocket)
    }

    /// Gives the descriptor up: it is the caller's to close. The socket is then closed for this
    /// program. A Unix socket's file stays.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed); [`WrongState`](ErrorKind::WrongState) while another
    /// thread is in a call on it, and while datagrams wait in it that may have come
    /// [as one](crate::SocketOptions::coalescing): whoever has it next would take them for one.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let socket = std::net::UdpSocket::from(socket.release()?);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn release(&self) -> Result<Owned> {
        const OPERATION: &str = "release";
        let wrong = |what| self.failed(OPERATION, ErrorKind::WrongState.into(), None).detail(what);
        let busy = || wrong("another thread is using it");
        let io = self.enter(OPERATION)?;
        let coalesced = self.0.coalesced.as_ref();
        if let Some(coalesced) = coalesced {
            match self.uncoalesce(coalesced, &io) {
                Some(true) => {}
                Some(false) => {
                    return Err(wrong("datagrams wait in it that may have come as one"));
                }
                None => return Err(busy()),
            }
        }
        let Some(owned) = self.0.descriptor.release(io) else {
            // As it was.
            if let (Some(_), Some(io)) = (coalesced, self.0.descriptor.enter()) {
                let _ = sys::coalesce(io.socket(), true);
            }
            return Err(busy());
        };
        if let Side::Unix(unix) = &self.0.side {
            if let Some(file) = unix.file.lock().unwrap_or_else(PoisonError::into_inner).take() {
                file.keep();
            }
        }
        Ok(owned)
    }

    /// Closes. Calls of other threads end with [`Closed`](ErrorKind::Closed). What was sent is on
    /// its way. Any thread may close at any time; closing twice is fine.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.close();
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::Closed);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn close(&self) {
        self.0.close();
    }
}
