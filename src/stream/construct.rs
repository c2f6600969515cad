//! Construction of a [`ClientSocket`] from a connected descriptor.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::sys::SockRef;

use super::flags::{
    ACTIVE_OPEN, FAST_OPEN, FD_SHARED, KEEP_STATS, NODELAY_OFF, NONBLOCK_PENDING, PROXY_PENDING,
    SEQPACKET, TCP_OPTIONS, UNWRITTEN, USES_POLL,
};
use super::keepalive::KeepaliveCell;
use super::proxy::ProxyHead;
use super::{ClientSocket, ColdState, Connected, LazyAddress};
use crate::io::lock::PollingLock;
use crate::io::timeout::{TimeoutCell, millis};
use crate::io::wait::Cause;
use crate::log;
use crate::options::SocketOptions;
use crate::stream::liveness::policy::Liveness;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use crate::sys::{self, Descriptor, Families, Owned};
use crate::types::address::{Address, canonical};
use crate::types::endpoint::Endpoint;
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::sockopt::Sockets;

impl ClientSocket {
    /// Adopts the descriptor of a connected stream socket or of a connected
    /// [SOCK_SEQPACKET](SocketOptions::seqpacket) Unix socket, and applies `options` to it.
    ///
    /// The function clears SO_LINGER, because a linger time makes close(2) wait or reset the
    /// connection. It also clears SO_RCVTIMEO and SO_SNDTIMEO. It clears O_NONBLOCK on Linux and
    /// sets it on other systems.
    ///
    /// On success the library owns the descriptor and closes it. Other processes and threads must
    /// not close it.
    ///
    /// # Errors
    /// The error comes with the descriptor, which the caller continues to own. Some options may
    /// already be applied.
    /// - [`WrongState`](ErrorKind::WrongState): the descriptor is not a connected stream socket, it
    ///   is a listener, or `seqpacket` is set and the socket is not of type SOCK_SEQPACKET.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, two options
    ///   contradict each other, or an option has a meaning only for connecting, for listeners, for
    ///   datagram sockets or for TCP.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform does not support an option.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not set an option.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel refused an option for
    ///   another reason.
    ///
    /// ```
    /// use keepsock::{ClientSocket, SocketOptions};
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let client = ClientSocket::from_owned(stream.into(), &SocketOptions::new());
    /// assert_eq!(client.unwrap().five_tuple().remote, listener.local_addr()?.into());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_owned(
        socket: Owned,
        options: &SocketOptions,
    ) -> std::result::Result<ClientSocket, (Owned, Error)> {
        const OPERATION: &str = "adopt";
        let wrong =
            |what: &str| Error::new(ErrorKind::WrongState, OPERATION).detail(what.to_owned());
        let inspect = || -> Result<(Address, bool)> {
            options.validate(OPERATION)?;
            options.refuse_datagram_only(OPERATION)?;
            options.refuse_listener_only(OPERATION)?;
            options.refuse_connecting_only(OPERATION)?;
            let fd = sys::borrow(&socket);
            let packets = match sys::connection_kind(fd).map_err(|e| Error::os(OPERATION, &e))? {
                Some(kind) if !kind.listens => kind.packets,
                Some(_) => {
                    return Err(wrong(
                        "the descriptor is a listening socket: adopt it as a server",
                    ));
                }
                None => return Err(wrong("the descriptor is not a stream socket")),
            };
            if options.seqpacket && !packets {
                return Err(wrong("seqpacket is set, but the socket is not SOCK_SEQPACKET"));
            }
            let peer = SockRef::from(&fd).peer_addr();
            let peer = peer.map_err(|_| wrong("the socket is not connected: connect it first"))?;
            let rejected = |cause: Cause| cause.into_error(OPERATION);
            if let Some(inet) = peer.as_socket() {
                options.refuse_other_sockets(Sockets::CONNECTED, OPERATION)?;
                let families = Families::of(&canonical(inet));
                options.apply_kernel(fd, Sockets::CONNECTED, families).map_err(rejected)?;
                options.adopt_tcp(fd, inet.is_ipv6()).map_err(rejected)?;
            } else {
                options.refuse_inet_only(OPERATION)?;
                options.refuse_tcp_only(OPERATION)?;
                options.refuse_other_sockets(Sockets::UNIX, OPERATION)?;
                options.apply_kernel(fd, Sockets::UNIX, Families::None).map_err(rejected)?;
            }
            options.adopt(fd, !sys::BLOCKING_CALLS).map_err(|cause| cause.into_error(OPERATION))?;
            Ok((sys::to_address(&peer), packets))
        };
        match inspect() {
            Ok((remote, packets)) => {
                let client =
                    ClientSocket::construct(socket, remote, None, options, FD_SHARED, None);
                let packets = if packets { SEQPACKET } else { 0 };
                client.flags.fetch_or(packets, Ordering::Relaxed);
                client.set_cancel(options.cancel.as_ref());
                if let Err(e) = client.apply_timeouts(options) {
                    // No other thread has the new socket, so the release succeeds.
                    let io = client.descriptor.enter();
                    if let Some(socket) = io.and_then(|io| client.descriptor.release(io)) {
                        return Err((socket, e));
                    }
                }
                Ok(client)
            }
            Err(e) => Err((socket, e)),
        }
    }

    /// Constructs the socket of a new outgoing connection, whose descriptor the program may have had
    /// while it was connecting, and sets its timeouts.
    #[inline(always)]
    pub(crate) fn connected(connected: Connected, options: &SocketOptions) -> Result<ClientSocket> {
        let client = ClientSocket::from_connected(connected, options);
        // No other thread has the new socket.
        client.flags.store(client.flags.load(Ordering::Relaxed) | TCP_OPTIONS, Ordering::Relaxed);
        client.apply_timeouts(options)?;
        Ok(client)
    }

    /// Constructs the socket of a new outgoing connection. Its timeouts are not set yet.
    #[inline(always)]
    pub(crate) fn from_connected(connected: Connected, options: &SocketOptions) -> ClientSocket {
        let Connected { socket, local, remote } = connected;
        let mode = if sys::BLOCKING_CALLS { NONBLOCK_PENDING } else { 0 };
        let fast_open = if options.fast_open { FAST_OPEN } else { 0 };
        let flags = ACTIVE_OPEN | mode | fast_open;
        let client = ClientSocket::construct(socket, remote, local, options, flags, None);
        if options.cancel.is_some() {
            client.set_cancel(options.cancel.as_ref());
        }
        client
    }

    /// Completes a socket that [`from_connected`](ClientSocket::from_connected) has constructed.
    #[inline(always)]
    pub(crate) fn finish_connect(
        &self,
        endpoint: &Endpoint,
        options: &SocketOptions,
        since: Instant,
    ) -> Result<()> {
        self.apply_timeouts(options)?;
        log::connected(|| self.five_tuple(), endpoint, since);
        Ok(())
    }

    /// Constructs the socket of an accepted connection. Its timeouts are not set yet. The address of
    /// the listener is the local address, unless the listener is bound to a wildcard. `rejected` counts
    /// the reset if the PROXY header is wrong or late.
    #[inline(always)]
    pub(crate) fn accepted(
        socket: Owned,
        remote: Address,
        listener: &Address,
        options: &SocketOptions,
        rejected: Option<&Arc<AtomicU64>>,
    ) -> ClientSocket {
        let flags = TCP_OPTIONS;
        let local = (!listener.is_wildcard()).then(|| listener.clone());
        let mut client = ClientSocket::construct(socket, remote, local, options, flags, rejected);
        client.keepalive = KeepaliveCell::unknown();
        client
    }

    #[inline(always)]
    pub(super) fn construct(
        socket: Owned,
        remote: Address,
        local: Option<Address>,
        options: &SocketOptions,
        flags: u32,
        rejected: Option<&Arc<AtomicU64>>,
    ) -> ClientSocket {
        let plain = options.liveness.is_plain()
            && !options.keep_stats
            && !options.seqpacket
            && !options.mptcp
            && options.nodelay
            && options.kernel.is_empty()
            && options.trusted_proxies.is_empty();
        let (more, cold) = if plain {
            (0, OnceLock::new())
        } else {
            ClientSocket::initial_state(options, &remote, rejected)
        };
        let platform = if sys::BLOCKING_CALLS { 0 } else { USES_POLL };
        ClientSocket {
            descriptor: Descriptor::new(socket),
            remote,
            local: local.map_or_else(|| LazyAddress::OnDemand(OnceLock::new()), LazyAddress::Known),
            flags: AtomicU32::new(flags | more | platform | UNWRITTEN),
            keepalive: KeepaliveCell::new(options),
            read_timeout: TimeoutCell::new(None),
            write_timeout: TimeoutCell::new(None),
            close_timeout: AtomicU64::new(millis(options.close_timeout)),
            cancel: Mutex::new(None),
            write_lock: PollingLock::default(),
            hangup_waiters: AtomicU32::new(0),
            os_error: AtomicI32::new(0),
            close_reason: AtomicI32::new(0),
            cold,
        }
    }

    /// The flags and the cold state of a socket with options that most sockets do not have.
    #[cold]
    fn initial_state(
        options: &SocketOptions,
        remote: &Address,
        rejected: Option<&Arc<AtomicU64>>,
    ) -> (u32, OnceLock<Box<ColdState>>) {
        let mut config = options.liveness.clone();
        if !matches!(remote, Address::Inet(_)) {
            // The peer of a Unix socket cannot vanish, and no kernel reports how long it is silent.
            (config.dead_after, config.middlebox_timeout) = (None, None);
        }
        let mut flags = 0;
        if config.has_dues() {
            flags |= USES_POLL;
        }
        let cold = OnceLock::new();
        if !config.is_plain() {
            let liveness = OnceLock::from(Liveness::new(config, Instant::now()));
            cold.get_or_init(|| Box::new(ColdState { liveness, ..ColdState::default() }));
        }
        if options.keep_stats {
            flags |= KEEP_STATS;
        }
        // Only a listener has these.
        if !options.trusted_proxies.is_empty() && matches!(remote, Address::Inet(_)) {
            flags |= PROXY_PENDING | USES_POLL;
            let head = ProxyHead::new(options.proxy_timeout, rejected);
            let _ = cold.get_or_init(Box::default).proxy.set(head);
        }
        if options.seqpacket {
            flags |= SEQPACKET;
        }
        if !options.nodelay {
            flags |= NODELAY_OFF;
        }
        if options.mptcp || options.liveness.fail_on_stall || !options.kernel.is_empty() {
            flags |= TCP_OPTIONS;
        }
        (flags, cold)
    }

    /// Sets the read timeout and the write timeout of the options.
    #[inline]
    pub(crate) fn apply_timeouts(&self, options: &SocketOptions) -> Result<()> {
        if options.read_timeout.is_some() {
            self.set_read_timeout(options.read_timeout)?;
        }
        if options.write_timeout.is_some() {
            self.set_write_timeout(options.write_timeout)?;
        }
        Ok(())
    }
}
