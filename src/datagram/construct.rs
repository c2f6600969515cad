//! Creating datagram sockets: bind, connect, and adopting a descriptor.

use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(feature = "activation")]
use std::sync::Weak;

use crate::sys::SockRef;
use socket2::{Domain, Type};

use super::*;
use crate::bind::{BoundInet, Step, at_unix_bind, bind_error, bind_first, local_of};
use crate::connect::OTHER_FAMILY;
use crate::io::wait::OptionFailure;
use crate::options::SocketOptions;
#[cfg(feature = "activation")]
use crate::options::deferred::DeferredOptions;
use crate::resolve::resolve;
use crate::socket_file::{self, InheritedSocket, NotBound};
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize};
use crate::sys::{self, Borrowed, Families, Owned};
use crate::types::address::{AddressUse, Family};
use crate::types::endpoint::{Host, Port, Target};
use crate::types::error::Stage;
use crate::types::sockopt::Sockets;

const BIND: &str = "bind";
const CONNECT: &str = "connect";
const TAKE_OVER: &str = "adopt";

const UNBOUND: &str = "the socket is not bound: bind it first";

/// Why a connected Unix socket has no allowed users.
const USERS_OF_PEER: &str = "allowed_uid has no effect on a connected socket, which has one peer";

/// A socket that no `DatagramSocket` owns yet.
struct Made {
    socket: Owned,
    endpoint: Endpoint,
    side: Side,
}

/// The options of an adopted socket that are not set yet, because they apply to the predecessor
/// process as well. It would read a coalesced buffer as one datagram.
#[cfg(feature = "activation")]
#[derive(Debug)]
pub(crate) struct PendingDatagramOptions {
    socket: Weak<Shared>,
    options: SocketOptions,
}

#[cfg(feature = "activation")]
impl DeferredOptions for PendingDatagramOptions {
    fn set(&self) -> Result<()> {
        let Some(shared) = self.socket.upgrade() else {
            return Ok(());
        };
        // A closed socket needs no options.
        let Some(io) = shared.descriptor.enter() else {
            return Ok(());
        };
        let set = || -> std::result::Result<(), Cause> {
            if self.options.udp_gro {
                sys::coalesce(io.socket(), true)?;
            }
            match &shared.side {
                Side::Inet(inet) => apply_to_bound(io.socket(), inet, &self.options),
                Side::Unix(_) => Ok(()),
            }
        };
        set().map_err(|cause| cause.into_error(TAKE_OVER).at(&shared.endpoint))
    }
}

/// The kind of the socket for an endpoint.
fn kind_of(endpoint: &Endpoint) -> Sockets {
    match &endpoint.0 {
        Target::Inet { .. } => Sockets::UDP,
        Target::UnixPath(_) | Target::UnixAbstract(_) => Sockets::UNIX_DATAGRAM,
    }
}

/// Sets the options of the operating system on an adopted socket.
fn apply_to_bound(
    socket: Borrowed<'_>,
    inet: &Inet,
    options: &SocketOptions,
) -> std::result::Result<(), Cause> {
    let families = Families::of_bound(&inet.local, inet.dual);
    options.apply_kernel(socket, Sockets::UDP_BOUND, families)
}

impl DatagramSocket {
    /// Binds with the default options: a socket that receives from any sender.
    ///
    /// `*:8080` receives IPv4 and IPv6 on one port, independent of the system's bindv6only setting (IPv4
    /// only on a machine without IPv6). `0.0.0.0:8080` receives IPv4 only, and `[::]:8080` IPv6 only. A
    /// host name is replaced by its first address, a service name by its UDP port. With port 0 the
    /// kernel chooses a port, which [`port`](DatagramSocket::port) returns.
    ///
    /// `unix:/run/app.sock` and `unix:@name` are Unix datagram sockets. The library replaces the socket
    /// file of a path if no socket is bound to the path, and never a file that is in use. While it
    /// replaces the file, a lock file `PATH.lock.NUMBER` exists next to it, as
    /// [`ServerSocket::listen`](crate::ServerSocket::listen) describes. Closing this socket removes the
    /// socket file.
    ///
    /// # Errors
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the endpoint cannot be bound to, such as a
    ///   link-local address without a zone
    /// - [`AddressInUse`](ErrorKind::AddressInUse): another socket is bound to the address or path, or no
    ///   port is free
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): this machine does not have the address
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): a port below 1024 without privilege, or a
    ///   directory that the process may not write to
    /// - [`NotFound`](ErrorKind::NotFound): the host name, the service, or the directory does not exist
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer
    /// - [`TimedOut`](ErrorKind::TimedOut): the name lookup exceeded the connect timeout
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors), [`NoMemory`](ErrorKind::NoMemory): the system lacks
    ///   descriptors or memory
    /// - [`Unsupported`](ErrorKind::Unsupported): a Unix socket on Windows, or an address family that this
    ///   machine does not support
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind};
    /// let first = DatagramSocket::bind("127.0.0.1:0")?;
    /// let err = DatagramSocket::bind(first.endpoint()).unwrap_err();
    /// assert_eq!(err.kind(), ErrorKind::AddressInUse);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn bind<E>(endpoint: E) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        DatagramSocket::bind_with(endpoint, &SocketOptions::default())
    }

    /// Binds with options: family, interface, timeouts, token, [`udp_gro`](SocketOptions::udp_gro),
    /// [`handover`](SocketOptions::handover), [`keep_stats`](SocketOptions::keep_stats); for a Unix socket
    /// also the mode and owner of the file, and the users that may send. The connect timeout limits the
    /// name lookup.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the options contain one that applies to streams
    /// or to connecting only. [`Cancelled`](ErrorKind::Cancelled): the token was fired during the lookup.
    /// Otherwise the errors that [`bind`](DatagramSocket::bind) lists.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind, SocketOptions};
    /// let options = SocketOptions::new().read_timeout(std::time::Duration::from_millis(20));
    /// let socket = DatagramSocket::bind_with("*:0", &options)?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn bind_with<E>(endpoint: E, options: &SocketOptions) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(BIND))?;
        options.validate(BIND)?;
        options.refuse_stream_only(BIND)?;
        options.refuse_client_only(BIND)?;
        options.refuse_other_sockets(kind_of(&endpoint), BIND)?;
        let made = match &endpoint.0 {
            Target::Inet { .. } => bind_inet(&endpoint, options)?,
            Target::UnixPath(_) | Target::UnixAbstract(_) => bind_unix(&endpoint, options)?,
        };
        DatagramSocket::new(made, options, BIND)
    }

    /// Connects with the default options: the socket sends to this peer and receives from it only.
    ///
    /// Connecting sends nothing, so it does not show whether a UDP peer exists. A Unix peer must exist.
    /// If a host name has several addresses, the first one with a route is used. On Linux the kernel gives
    /// a Unix socket a name (autobind of unix(7)), so that the peer can reply; on other systems set one
    /// with [`local_endpoint`](SocketOptions::local_endpoint).
    ///
    /// ICMP errors of the peer are [reported](DatagramSocket::recv_error), and end no call.
    ///
    /// # Errors
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the endpoint is no destination (`*`, `0.0.0.0`,
    ///   `[::]`, port 0), or is a link-local IPv6 address without a zone
    /// - [`Unreachable`](ErrorKind::Unreachable): there is no route to any address
    /// - [`Refused`](ErrorKind::Refused): no process is bound to the Unix socket
    /// - [`NotFound`](ErrorKind::NotFound): the host name, the service, or the Unix socket does not exist
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer
    /// - [`TimedOut`](ErrorKind::TimedOut): the name lookup exceeded the connect timeout
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not connect to the Unix
    ///   socket, or local policy forbids the destination
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors), [`NoMemory`](ErrorKind::NoMemory): the system lacks
    ///   descriptors or memory
    /// - [`Unsupported`](ErrorKind::Unsupported): a Unix socket on Windows
    ///
    /// ```
    /// use keepsock::DatagramSocket;
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// println!("{}", client.five_tuple());   // udp 127.0.0.1:51002 -> 127.0.0.1:7788
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect<E>(endpoint: E) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        DatagramSocket::connect_with(endpoint, &SocketOptions::default())
    }

    /// Connects with options: family, local endpoint, interface, remote addresses instead of a lookup,
    /// timeouts, token, [`udp_gro`](SocketOptions::udp_gro), [`handover`](SocketOptions::handover),
    /// [`keep_stats`](SocketOptions::keep_stats); for a Unix socket whose local endpoint is a path also
    /// the mode and owner of the file. The connect timeout limits the name lookup.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the options contain one that applies to streams
    ///   or to binding only
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): also if the local endpoint is a multicast or
    ///   broadcast address
    /// - [`AddressInUse`](ErrorKind::AddressInUse): the local endpoint is in use, or no local port is free
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): this machine does not have the local
    ///   address
    /// - [`Cancelled`](ErrorKind::Cancelled): the token was fired during the lookup
    ///
    /// Otherwise the errors that [`connect`](DatagramSocket::connect) lists.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, Endpoint, SocketOptions};
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let from: Endpoint = "127.0.0.1:0".parse()?;
    /// let options = SocketOptions::new().local_endpoint(from);
    /// let client = DatagramSocket::connect_with(server.endpoint(), &options)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect_with<E>(endpoint: E, options: &SocketOptions) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(CONNECT))?;
        options.validate(CONNECT)?;
        options.refuse_stream_only(CONNECT)?;
        options.refuse_other_sockets(kind_of(&endpoint), CONNECT)?;
        options.refuse_without_local(CONNECT)?;
        let made = match &endpoint.0 {
            Target::Inet { .. } => {
                options.refuse_unix_only(CONNECT).map_err(|e| e.at(&endpoint))?;
                options.refuse_addresses(&endpoint, AddressUse::DatagramPeer, CONNECT)?;
                connect_first(&endpoint, options)?
            }
            Target::UnixPath(_) | Target::UnixAbstract(_) => connect_unix(&endpoint, options)?,
        };
        DatagramSocket::new(made, options, CONNECT)
    }

    /// Connects a bound socket, UDP or Unix, to a peer: it then sends to this peer and receives from it
    /// only, and keeps its port or name. A UDP server with a socket for each peer binds one more socket
    /// to its port, with [`ReuseAddress`](crate::Sockopt::ReuseAddress) on all of them, and connects it
    /// to the sender of the first datagram.
    ///
    /// Datagrams of other senders that are queued on this socket, or that the library has received as
    /// [coalesced](SocketOptions::udp_gro) datagrams, are discarded. A wildcard local address becomes
    /// the address from which this machine reaches the peer. The socket stays connected until it is
    /// closed.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): the socket is connected already
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the address is not a destination (`0.0.0.0`,
    ///   `[::]`, port 0), or a link-local address without a zone
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the socket does not have the address family,
    ///   the Unix peer has no name, or the Unix socket has [allowed users](SocketOptions::allowed_uid)
    /// - [`NotFound`](ErrorKind::NotFound), [`Refused`](ErrorKind::Refused): no Unix socket has the name
    /// - [`Unreachable`](ErrorKind::Unreachable): there is no route to the peer
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): local policy forbids the destination; it is
    ///   a broadcast address without [`set_broadcast`](DatagramSocket::set_broadcast); or the Unix peer
    ///   is connected to another socket, or its file mode forbids it
    /// - [`Closed`](ErrorKind::Closed): the socket was closed
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call for
    ///   another reason
    ///
    /// ```
    /// use keepsock::{DatagramSocket, SocketOptions, Sockopt};
    /// # if cfg!(windows) { return Ok(()) }
    /// let options = SocketOptions::new().sockopt(Sockopt::ReuseAddress, 1);
    /// let server = DatagramSocket::bind_with("127.0.0.1:0", &options)?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// client.send(b"hello")?;
    /// let hello = server.recv(&mut [0; 64])?;
    /// let of_client = DatagramSocket::bind_with(server.endpoint(), &options)?;
    /// of_client.set_peer(hello.from)?;
    /// client.send(b"more")?;
    /// assert_eq!(of_client.recv(&mut [0; 64])?.len, 4);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_peer(&self, peer: impl Into<Address>) -> Result<()> {
        let io = self.enter(CONNECT)?;
        let address = peer.into();
        let _one = self.0.cancel.lock();
        if let Some(before) = self.0.peer() {
            let error = self.failed(CONNECT, ErrorKind::WrongState.into(), Some(&address));
            return Err(error.detail(format!("the socket is connected to {before} already")));
        }
        match (&self.0.side, &address) {
            (Side::Inet(inet), Address::Inet(peer)) => {
                self.set_inet_peer(&io, inet, canonical(*peer))
            }
            (Side::Unix(unix), Address::UnixPath(_) | Address::UnixAbstract(_)) => {
                self.set_unix_peer(&io, unix, address)
            }
            (side, _) => {
                let what = match side {
                    Side::Inet(_) => "the peer of a UDP socket must be an IP address",
                    Side::Unix(_) => "the peer of a Unix socket must be a path or an abstract name",
                };
                let error = self.failed(CONNECT, ErrorKind::InvalidArgument.into(), Some(&address));
                Err(error.detail(what))
            }
        }
    }

    fn set_inet_peer(&self, io: &InUse<'_>, inet: &Inet, peer: SocketAddr) -> Result<()> {
        let failed = |cause| self.failed(CONNECT, cause, Some(&Address::Inet(peer)));
        if let Some((kind, what)) = inet.refusal(0, peer) {
            return Err(failed(kind.into()).detail(what));
        }
        let socket = io.socket();
        SockRef::from(&socket).connect(&inet.name_of(peer)).map_err(|e| {
            failed(if sys::is_discarded(&e, peer) { Cause::discarded(&e) } else { e.into() })
        })?;
        // Without reports a call returns the error itself, without details.
        let _ = sys::report_errors(socket, inet.ipv6, true);
        let local = canonical(local_of(socket).map_err(|e| failed(e.into()))?);
        let named = SockRef::from(&socket).peer_addr().map_err(|e| failed(e.into()))?.as_socket();
        let _ = inet.connected.set(Connected { local, peer: named.map_or(peer, canonical) });
        Ok(())
    }

    fn set_unix_peer(&self, io: &InUse<'_>, unix: &Unix, address: Address) -> Result<()> {
        let failed = |cause| self.failed(CONNECT, cause, Some(&address));
        if !unix.users.is_empty() {
            return Err(failed(ErrorKind::InvalidArgument.into()).detail(USERS_OF_PEER));
        }
        if let Some((kind, what)) = unix.refusal(&address) {
            return Err(failed(kind.into()).detail(what));
        }
        let name = sys::name_of_unix(&address).map_err(|e| failed(e.into()))?;
        let socket = io.socket();
        let socket = SockRef::from(&socket);
        socket.connect(&name).map_err(|e| failed(e.into()))?;
        let bound = socket.peer_addr().map_err(|e| failed(e.into()))?;
        let bound = Mutex::new(sys::to_address(&bound));
        let name = absolute(&address).unwrap_or(name);
        let _ = unix.peer.set(UnixPeer { address, name, bound });
        Ok(())
    }

    /// Adopts a UDP or Unix datagram socket, connected or not.
    ///
    /// The timeouts, token, [`udp_gro`](SocketOptions::udp_gro),
    /// [`keep_stats`](SocketOptions::keep_stats), and for Unix sockets the allowed users, apply.
    /// Addresses, family and interface must not be set. The library does not remove the file of a Unix
    /// socket.
    ///
    /// # Errors
    /// The error contains the descriptor, which the function then leaves unchanged.
    /// - [`WrongState`](ErrorKind::WrongState): not a datagram socket, or an unbound UDP socket
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option that does not apply
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the library needs one more descriptor
    /// - [`NoMemory`](ErrorKind::NoMemory): there is no memory for coalescing
    /// - [`Unsupported`](ErrorKind::Unsupported): coalescing, or allowed users, on a system without
    ///
    /// ```
    /// use keepsock::{DatagramSocket, SocketOptions};
    /// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// let port = socket.local_addr()?.port();
    /// let socket = DatagramSocket::from_owned(socket.into(), &SocketOptions::new()).unwrap();
    /// assert_eq!(socket.port(), port);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_owned(
        socket: Owned,
        options: &SocketOptions,
    ) -> std::result::Result<DatagramSocket, (Owned, Error)> {
        if let Err(e) = options.refuse_making_only(TAKE_OVER) {
            return Err((socket, e));
        }
        let adopted = InheritedSocket { file: None, socket, ephemeral_port: false };
        DatagramSocket::adopt(adopted, options, true).map_err(|(adopted, e)| (adopted.socket, e))
    }

    /// Adopts a descriptor. Enables coalescing `now`, or leaves that to
    /// [`uncoalesced`](DatagramSocket::uncoalesced).
    #[allow(clippy::result_large_err)] // the socket, and why it was refused
    pub(crate) fn adopt(
        adopted: InheritedSocket,
        options: &SocketOptions,
        now: bool,
    ) -> std::result::Result<DatagramSocket, (InheritedSocket, Error)> {
        // Other processes may share it.
        let look = || -> Result<_> {
            // Before look() changes the socket, so that a rejected socket stays unchanged.
            let coalesced = coalesced(sys::borrow(&adopted.socket), options, TAKE_OVER)?;
            let closing = sys::Event::new().map_err(|e| Error::helper(TAKE_OVER, &e))?;
            let (endpoint, side) = look(&adopted, options, now)?;
            Ok((endpoint, side, coalesced, closing))
        };
        match look() {
            Ok((endpoint, side, coalesced, closing)) => {
                let InheritedSocket { file, socket, .. } = adopted;
                if let Side::Unix(unix) = &side {
                    *unix.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
                }
                let made = Made { socket, endpoint, side };
                Ok(DatagramSocket::put_together(made, options, coalesced, (Some(closing), true)))
            }
            Err(e) => Err((adopted, e)),
        }
    }

    /// Returns the remaining work for a socket that was adopted without coalescing.
    #[cfg(feature = "activation")]
    pub(crate) fn pending_options(&self, options: &SocketOptions) -> PendingDatagramOptions {
        PendingDatagramOptions { socket: Arc::downgrade(&self.0), options: options.clone() }
    }

    fn new(made: Made, options: &SocketOptions, operation: &'static str) -> Result<DatagramSocket> {
        if !sys::BLOCKING_CALLS {
            sys::set_nonblocking(sys::borrow(&made.socket), true)
                .map_err(|e| Error::os(operation, &e).at(&made.endpoint))?;
        }
        let needs_event = options.handover || !sys::BLOCKING_CALLS;
        let closing = needs_event.then(sys::Event::new).transpose();
        let closing = closing.map_err(|e| Error::helper(operation, &e).at(&made.endpoint))?;
        let coalesced = coalesced(sys::borrow(&made.socket), options, operation)?;
        let part = options.read_timeout.and_then(kernel_part);
        if part.is_some() && closing.is_none() {
            SockRef::from(&sys::borrow(&made.socket))
                .set_read_timeout(part)
                .map_err(|e| Error::os(operation, &e).at(&made.endpoint))?;
        }
        let shared = options.handover;
        Ok(DatagramSocket::put_together(made, options, coalesced, (closing, shared)))
    }

    fn put_together(
        made: Made,
        options: &SocketOptions,
        coalesced: Option<Coalesced>,
        (closing, is_shared): (Option<sys::Event>, bool),
    ) -> DatagramSocket {
        #[cfg(not(feature = "activation"))]
        let _ = is_shared;
        let inet = match &made.side {
            Side::Inet(inet) => Some(inet),
            Side::Unix(_) => None,
        };
        let splits = inet.is_some() && sys::splits_runs(sys::borrow(&made.socket));
        let longest = if splits { usize::MAX } else { 0 };
        let connected = inet.is_some_and(|inet| inet.peer().is_some());
        let any = inet.is_some_and(|inet| has_many(inet.local.ip()));
        let cancel = options.cancel.as_ref();
        DatagramSocket(Arc::new(Shared {
            nonblocking: AtomicBool::new(false),
            read_timeout: TimeoutCell::new(options.read_timeout),
            write_timeout: TimeoutCell::new(options.write_timeout),
            polled: AtomicBool::new(must_poll(cancel, closing.as_ref())),
            cancel: TokenSlot::new(cancel),
            fails_on_refused: AtomicBool::new(false),
            refused: AtomicI32::new(0),
            deaf: AtomicBool::new(false),
            closing,
            #[cfg(feature = "activation")]
            is_shared,
            longest_segment: AtomicUsize::new(longest),
            control: AtomicUsize::new(match any && !connected {
                true => sys::UDP_CONTROL,
                false if options.users.is_empty() => 0,
                false => sys::UNIX_CONTROL,
            }),
            coalesced,
            errors: Mutex::default(),
            error_count: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            served: AtomicU64::new(0),
            retries: ReceiveRetries::default(),
            keeps_last: options.keep_stats,
            last: OnceLock::new(),
            descriptor: Descriptor::new(made.socket),
            endpoint: made.endpoint,
            side: made.side,
        }))
    }
}

/// The memory for coalesced datagrams, if coalescing is on. Coalescing applies to every process that
/// shares the socket.
fn coalesced(
    socket: Borrowed<'_>,
    options: &SocketOptions,
    operation: &'static str,
) -> Result<Option<Coalesced>> {
    if !options.udp_gro && !sys::coalesces(socket) {
        return Ok(None);
    }
    let coalesced = Coalesced::new();
    coalesced.ok_or_else(|| Error::new(ErrorKind::NoMemory, operation)).map(Some)
}

/// Inspects an adopted socket, and configures it. Coalescing is enabled `now`, or not here.
fn look(adopted: &InheritedSocket, options: &SocketOptions, now: bool) -> Result<(Endpoint, Side)> {
    let wrong = |what: &str| Error::new(ErrorKind::WrongState, TAKE_OVER).detail(what);
    let os = |e: io::Error| Error::os(TAKE_OVER, &e);
    options.validate(TAKE_OVER)?;
    options.refuse_stream_only(TAKE_OVER)?;
    options.refuse_client_only(TAKE_OVER)?;
    options.refuse_file_only(TAKE_OVER)?;
    if options.family != Family::Any || options.interface.is_some() {
        return Err(Error::new(ErrorKind::InvalidArgument, TAKE_OVER)
            .detail("family and interface have no effect on an existing socket: remove them"));
    }
    let fd = sys::borrow(&adopted.socket);
    if !sys::is_datagram(fd).map_err(os)? {
        return Err(wrong("the descriptor is not a datagram socket"));
    }
    let asked = SockRef::from(&fd);
    let name = match asked.local_addr() {
        // Windows has no name for such a socket.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Err(wrong(UNBOUND)),
        other => other.map_err(os)?,
    };
    let peer = asked.peer_addr().ok();
    let side = match name.as_socket() {
        Some(local) => {
            if local.port() == 0 {
                return Err(wrong(UNBOUND));
            }
            let ipv6 = local.is_ipv6();
            let dual = ipv6 && !asked.only_v6().map_err(os)?;
            let peer = peer.and_then(|peer| peer.as_socket());
            options.refuse_unix_only(TAKE_OVER)?;
            options.refuse_other_sockets(Sockets::UDP_BOUND, TAKE_OVER)?;
            let inet =
                Inet { ephemeral_port: adopted.ephemeral_port, ..Inet::new(local, peer, dual) };
            let set = || {
                if now {
                    apply_to_bound(fd, &inet, options)?;
                }
                set_up(fd, local.ip(), ipv6, peer.is_some(), now && options.udp_gro)
            };
            set().map_err(|cause| cause.into_error(TAKE_OVER))?;
            Side::Inet(inet)
        }
        None => {
            options.refuse_inet_only(TAKE_OVER)?;
            options.refuse_other_sockets(Sockets::UNIX_DATAGRAM, TAKE_OVER)?;
            options
                .apply_kernel(fd, Sockets::UNIX_DATAGRAM, Families::None)
                .map_err(|cause| cause.into_error(TAKE_OVER))?;
            let peer = peer.map(|name| {
                let address = sys::to_address(&name);
                UnixPeer { bound: Mutex::new(address.clone()), address, name }
            });
            Side::unix(sys::to_address(&name), peer, None, options)
        }
    };
    let set = || -> std::result::Result<(), Cause> {
        if !options.users.is_empty() {
            sys::want_sender(fd)?;
        }
        sys::set_nonblocking(fd, !sys::BLOCKING_CALLS)?;
        sys::forbid_sigpipe(fd)?;
        // The kernel's timeouts would look like timeouts of this library.
        asked.set_read_timeout(None)?;
        asked.set_write_timeout(None)?;
        Ok(())
    };
    set().map_err(|cause| cause.into_error(TAKE_OVER))?;
    let endpoint = match &side {
        // The same state as after binding to `*` here.
        Side::Inet(inet) if inet.dual && inet.local.ip().is_unspecified() => {
            Endpoint(Target::Inet { host: Host::Any, port: Port::Number(inet.local.port()) })
        }
        Side::Inet(inet) => inet.local.into(),
        Side::Unix(unix) => Endpoint::of(&unix.local),
    };
    Ok((endpoint, side))
}

/// Whether datagrams to a socket with this local address may have different destination addresses.
fn has_many(local: IpAddr) -> bool {
    local.is_unspecified() || local.is_multicast()
}

fn set_up(
    socket: Borrowed<'_>,
    local: IpAddr,
    ipv6: bool,
    connected: bool,
    udp_gro: bool,
) -> std::result::Result<(), Cause> {
    if udp_gro {
        sys::coalesce(socket, true).map_err(|e| OptionFailure::of(&e, "udp_gro"))?;
    }
    // A socket bound to one address receives at that address on every interface.
    if !connected && has_many(local) {
        sys::want_destination(socket, ipv6)?;
    }
    if connected || sys::REPORTS_BY_DEFAULT {
        report_errors(socket, ipv6, connected)?;
    }
    Ok(())
}

/// Requests ICMP errors, if the system needs a request: on others a call returns the error, without
/// details.
pub(super) fn report_errors(socket: Borrowed<'_>, ipv6: bool, on: bool) -> io::Result<()> {
    match sys::report_errors(socket, ipv6, on) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}

fn new_socket(
    address: SocketAddr,
    dual: bool,
    options: &SocketOptions,
    connected: bool,
) -> Step<Owned> {
    let ipv6 = address.is_ipv6();
    let socket = sys::datagram_socket(Domain::for_address(address))
        .map_err(|e| (Stage::Socket, Cause::from(e)))?;
    let fd = sys::borrow(&socket);
    let apply = || -> std::result::Result<(), Cause> {
        if ipv6 {
            SockRef::from(&fd).set_only_v6(!dual)?;
        }
        options.apply_interface(fd, ipv6)?;
        sys::forbid_sigpipe(fd)?;
        options.apply_kernel(fd, Sockets::UDP, Families::of_bound(&address, dual))?;
        set_up(fd, address.ip(), ipv6, connected, options.udp_gro)
    };
    apply().map_err(|cause| (Stage::Options, cause))?;
    Ok(socket)
}

fn bind_inet(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    options.refuse_unix_only(BIND).map_err(|e| e.at(endpoint))?;
    options.refuse_addresses(endpoint, AddressUse::Receive, BIND)?;
    let found = addresses(endpoint, options, Deadline::after(options.connect_timeout), BIND)?;
    let bind = |address, dual| bind_at(address, dual, options);
    let rejects = |address| options.rejects_bind(address, AddressUse::Receive);
    let bound = bind_first(endpoint, found, options.family, BIND, rejects, bind)?;
    let BoundInet { socket, local, endpoint, dual, ephemeral_port } = bound;
    Ok(Made {
        socket,
        endpoint,
        side: Side::Inet(Inet { ephemeral_port, ..Inet::new(local, None, dual) }),
    })
}

fn addresses(
    endpoint: &Endpoint,
    options: &SocketOptions,
    deadline: Deadline,
    operation: &'static str,
) -> Result<Vec<SocketAddr>> {
    let cancel = options.cancel.as_ref();
    let found = resolve(endpoint, Type::DGRAM, options.family, deadline, cancel, operation)?;
    Ok(options.prefer(endpoint, found))
}

fn bind_at(address: SocketAddr, dual: bool, options: &SocketOptions) -> Step<Owned> {
    let at_bind = |e: io::Error| (Stage::Bind, Cause::from(e));
    let socket = new_socket(address, dual, options, false)?;
    let fd = sys::borrow(&socket);
    if address.ip().is_multicast() {
        // Each bound program receives the group's datagrams (socket(7), SO_REUSEADDR).
        SockRef::from(&fd).set_reuse_address(true).map_err(at_bind)?;
    }
    sys::keep_port(fd).map_err(at_bind)?;
    SockRef::from(&fd).bind(&address.into()).map_err(at_bind)?;
    Ok(socket)
}

fn connect_first(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    let failed = |kind| Error::new(kind, CONNECT).at(endpoint);
    let deadline = Deadline::after(options.connect_timeout);
    let local = match &options.local {
        Some(local) => addresses(local, options, deadline, CONNECT)
            .and_then(|found| options.usable_local(found, CONNECT))
            .map_err(|e| e.at(endpoint).with_local(local))?,
        None => Vec::new(),
    };
    let mut found = match options.addresses.as_slice() {
        [] => addresses(endpoint, options, deadline, CONNECT)?,
        given => {
            let given = given.iter().copied().map(canonical);
            let allowed = given.filter(|a| options.family.allows(a.ip()));
            options.prefer(endpoint, allowed.collect())
        }
    };
    if let Some(from) = &options.local {
        let all = found.len();
        found.retain(|to| local.iter().any(|l| l.is_ipv4() == to.is_ipv4()));
        if found.is_empty() && all > 0 {
            let error = failed(ErrorKind::AddressNotAvailable).stage(Stage::Bind);
            return Err(error.with_local(from).detail(OTHER_FAMILY));
        }
    }
    let mut failure = None;
    for to in found {
        if let Some(why) = options.rejects_peer(to, AddressUse::DatagramPeer, &local) {
            let what = why.describe(to.ip());
            failure.get_or_insert_with(|| failed(ErrorKind::InvalidEndpoint).detail(what));
            continue;
        }
        let from = local.iter().find(|l| l.is_ipv4() == to.is_ipv4()).copied();
        match connect_to(to, from, options) {
            Ok((socket, local, peer)) => {
                let inet = Inet::new(local, Some(peer), false);
                let endpoint = inet.local.into();
                return Ok(Made { socket, endpoint, side: Side::Inet(inet) });
            }
            Err((stage, cause)) => {
                let ephemeral_port = from.is_some_and(|from| from.port() == 0);
                failure.get_or_insert_with(|| {
                    let error = bind_error(cause, stage, ephemeral_port, CONNECT, endpoint);
                    options.name_local_side(error, stage)
                });
            }
        }
    }
    Err(failure.unwrap_or_else(|| {
        failed(ErrorKind::NotFound).detail("no address is of the family that the options permit")
    }))
}

fn connect_to(
    to: SocketAddr,
    from: Option<SocketAddr>,
    options: &SocketOptions,
) -> Step<(Owned, SocketAddr, SocketAddr)> {
    let at = |stage| move |e: io::Error| (stage, Cause::from(e));
    let socket = new_socket(to, false, options, true)?;
    let fd = sys::borrow(&socket);
    sys::keep_port(fd).map_err(at(Stage::Options))?;
    if let Some(from) = from {
        SockRef::from(&fd).bind(&from.into()).map_err(at(Stage::Bind))?;
    }
    SockRef::from(&fd).connect(&to.into()).map_err(|e| match e.kind() {
        // The kernel chooses the port here.
        io::ErrorKind::WouldBlock => (Stage::Connect, Cause::no_free_port(&e)),
        _ if sys::is_discarded(&e, to) => (Stage::Connect, Cause::discarded(&e)),
        _ => (Stage::Connect, e.into()),
    })?;
    let local = local_of(fd).map_err(at(Stage::Connect))?;
    // The kernel adds the zone of the interface to a link-local address.
    let peer = SockRef::from(&fd).peer_addr().map_err(at(Stage::Connect))?.as_socket();
    Ok((socket, local, peer.unwrap_or(to)))
}

/// The name of a path that does not depend on the working directory, if it is not too long.
fn absolute(address: &Address) -> Option<SockAddr> {
    match address {
        Address::UnixPath(path) => {
            let path = std::path::absolute(path).ok()?;
            sys::name_of_unix(&Address::UnixPath(path)).ok()
        }
        _ => None,
    }
}

fn unix_socket(options: &SocketOptions) -> Step<Owned> {
    let at = |stage| move |e: io::Error| (stage, Cause::from(e));
    let socket = sys::datagram_socket(Domain::UNIX).map_err(at(Stage::Socket))?;
    let fd = sys::borrow(&socket);
    sys::forbid_sigpipe(fd).map_err(at(Stage::Options))?;
    options
        .apply_kernel(fd, Sockets::UNIX_DATAGRAM, Families::None)
        .map_err(|cause| (Stage::Options, cause))?;
    Ok(socket)
}

fn bind_unix(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    let at = |stage| move |e: io::Error| Error::os(BIND, &e).at(endpoint).stage(stage);
    options.refuse_inet_only(BIND).map_err(|e| e.at(endpoint))?;
    if let Target::UnixAbstract(_) = &endpoint.0 {
        options.refuse_file_only(BIND).map_err(|e| e.at(endpoint))?;
    }
    let socket = unix_socket(options)
        .map_err(|(stage, cause)| cause.into_error(BIND).at(endpoint).stage(stage))?;
    if !options.users.is_empty() {
        // Before any process can send.
        sys::want_sender(sys::borrow(&socket)).map_err(at(Stage::Options))?;
    }
    let bound = bind_name(sys::borrow(&socket), endpoint, options);
    let (local, file) = bound.map_err(|e| at_unix_bind(e.into_error(BIND), endpoint))?;
    let side = Side::unix(local, None, file, options);
    Ok(Made { socket, endpoint: endpoint.clone(), side })
}

/// Binds a Unix socket to its name, and creates its file.
fn bind_name(
    socket: Borrowed<'_>,
    endpoint: &Endpoint,
    options: &SocketOptions,
) -> std::result::Result<(Address, Option<SocketFile>), NotBound> {
    let name = sys::unix_name(endpoint)?;
    let file = match &endpoint.0 {
        Target::UnixPath(path) => {
            Some(socket_file::bind_and_listen(socket, &name, path, options.unix, || Ok(()))?)
        }
        _ => {
            SockRef::from(&socket).bind(&name)?;
            None
        }
    };
    Ok((sys::to_address(&name), file))
}

fn connect_unix(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    let at = |stage| move |e: io::Error| Error::os(CONNECT, &e).at(endpoint).stage(stage);
    let others = SocketOptions { local: None, ..options.clone() };
    others.refuse_inet_only(CONNECT).map_err(|e| e.at(endpoint))?;
    if !options.users.is_empty() {
        let error = Error::new(ErrorKind::InvalidArgument, CONNECT).at(endpoint);
        return Err(error.detail(USERS_OF_PEER));
    }
    if matches!(&options.local, Some(Endpoint(Target::Inet { .. }))) {
        let error = Error::new(ErrorKind::InvalidArgument, CONNECT).at(endpoint);
        return Err(
            error.detail("local_endpoint of a Unix socket must be a Unix path or abstract name")
        );
    }
    let has_file = matches!(&options.local, Some(Endpoint(Target::UnixPath(_))));
    if !has_file {
        options.refuse_file_only(CONNECT).map_err(|e| e.at(endpoint))?;
    }
    let name = sys::unix_name(endpoint).map_err(at(Stage::Socket))?;
    let socket = unix_socket(options)
        .map_err(|(stage, cause)| cause.into_error(CONNECT).at(endpoint).stage(stage))?;
    let fd = sys::borrow(&socket);
    let file = match &options.local {
        Some(local) => {
            bind_name(fd, local, options)
                .map_err(|e| {
                    e.into_error(CONNECT).at(endpoint).stage(Stage::Bind).with_local(local)
                })?
                .1
        }
        None => {
            sys::autobind(fd).map_err(at(Stage::Bind))?;
            None
        }
    };
    SockRef::from(&fd).connect(&name).map_err(at(Stage::Connect))?;
    let local = SockRef::from(&fd).local_addr().map_err(at(Stage::Connect))?;
    let local = sys::to_address(&local);
    let endpoint = Endpoint::of(&local);
    let bound = SockRef::from(&fd).peer_addr().map_err(at(Stage::Connect))?;
    let address = sys::to_address(&name);
    let bound = Mutex::new(sys::to_address(&bound));
    let name = absolute(&address).unwrap_or(name);
    let peer = Some(UnixPeer { address, name, bound });
    Ok(Made { socket, endpoint, side: Side::unix(local, peer, file, options) })
}
