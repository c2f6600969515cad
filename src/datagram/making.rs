//! How datagram sockets are made: bound, connected, taken over.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Mutex, Weak};
use std::time::Duration;

use socket2::{Domain, SockRef, Type};

use super::*;
use crate::bind::{BoundInet, Step, bind_first, local_of};
use crate::endpoint::{Host, Port, Target};
use crate::error::Stage;
use crate::info::Family;
use crate::inherited;
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::sys::{self, Borrowed, Owned};
use crate::unix::{self, Adopted};

const BIND: &str = "bind";
const CONNECT: &str = "connect";
const TAKE_OVER: &str = "take over";

/// A socket that is nobody's yet.
struct Made {
    socket: Owned,
    endpoint: Endpoint,
    side: Side,
}

/// A socket that has not let the kernel hand several datagrams over as one, for the predecessor's
/// sake: it would take them for one.
#[derive(Debug)]
pub(crate) struct Uncoalesced(Weak<Shared>);

impl inherited::Unset for Uncoalesced {
    fn set(&self) -> Result<()> {
        let Some(shared) = self.0.upgrade() else {
            return Ok(());
        };
        // One that was closed needs none.
        let set = shared.descriptor.enter().map_or(Ok(()), |io| sys::coalesce(io.socket(), true));
        set.map_err(|e| Error::os(TAKE_OVER, &e).at(&shared.endpoint))
    }
}

impl DatagramSocket {
    /// Binds with the default options: a socket that takes datagrams from anybody.
    ///
    /// `*:8080` takes IPv4 and IPv6 on one port, whatever the system's bindv6only
    /// says (IPv4 alone on a machine without IPv6); `0.0.0.0:8080` takes IPv4 and
    /// `[::]:8080` IPv6 only. A name stands for its first address, a service name for the port
    /// that UDP has for it. With port 0 the system chooses;
    /// [`port`](DatagramSocket::port) tells which.
    ///
    /// `unix:/run/app.sock` and `unix:@name` are Unix datagram sockets. A path whose socket is
    /// gone is taken over, one with a live socket never is; the file is removed when this one
    /// is closed.
    ///
    /// # Errors
    /// [`AddressInUse`](ErrorKind::AddressInUse),
    /// [`AddressNotAvailable`](ErrorKind::AddressNotAvailable),
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) (ports below 1024),
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint), those of a name lookup, each naming the
    /// endpoint; [`Unsupported`](ErrorKind::Unsupported) on Windows.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind};
    /// # if cfg!(windows) { return Ok(()) }
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

    /// Binds with options: family, interface, timeouts, token,
    /// [coalescing](SocketOptions::coalescing), [`hand_over`](SocketOptions::hand_over),
    /// [`last_snapshot`](SocketOptions::last_snapshot); of a Unix socket the file's mode and owner,
    /// and the users who may send. The connect timeout is for looking a name up.
    ///
    /// # Errors
    /// Those of [`bind`](DatagramSocket::bind);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options that only streams, or only
    /// connecting, have.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
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
        let made = match &endpoint.0 {
            Target::Inet { .. } => bind_inet(&endpoint, options)?,
            Target::UnixPath(_) | Target::UnixAbstract(_) => bind_unix(&endpoint, options)?,
        };
        DatagramSocket::new(made, options, BIND)
    }

    /// Connects with the default options: the socket sends to that peer only, and receives from
    /// it only. Nothing is sent for that, so whether somebody is there is not known yet; but a
    /// Unix socket must be there. Of a name's addresses it is the first one that this machine has
    /// a way to. On Linux a Unix socket gets a name of its own (autobind of unix(7)), so that it
    /// can be answered; elsewhere give it one ([`local`](SocketOptions::local)).
    ///
    /// What ICMP says of the peer is [reported](DatagramSocket::recv_error), and ends no call.
    ///
    /// # Errors
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint), [`Unreachable`](ErrorKind::Unreachable),
    /// those of a name lookup; [`Refused`](ErrorKind::Refused), or
    /// [`NotFound`](ErrorKind::NotFound), for a Unix socket that is not there;
    /// [`Unsupported`](ErrorKind::Unsupported) on Windows.
    ///
    /// ```
    /// use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
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

    /// Connects with options: family, local address, interface, addresses in place of the
    /// name's, timeouts, token, [coalescing](SocketOptions::coalescing),
    /// [`hand_over`](SocketOptions::hand_over), [`last_snapshot`](SocketOptions::last_snapshot); of
    /// a Unix socket whose local address is a path the file's mode and owner. The connect timeout
    /// is for looking the name up.
    ///
    /// # Errors
    /// Those of [`connect`](DatagramSocket::connect) and
    /// [`AddressInUse`](ErrorKind::AddressInUse),
    /// [`AddressNotAvailable`](ErrorKind::AddressNotAvailable) for the local address;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options that only streams have.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, Endpoint, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let from: Endpoint = "127.0.0.1:0".parse()?;
    /// let client = DatagramSocket::connect_with(server.endpoint(), &SocketOptions::new().local(from))?;
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
        let made = match &endpoint.0 {
            Target::Inet { .. } => {
                options.refuse_unix_only(CONNECT).map_err(|e| e.at(&endpoint))?;
                connect_first(&endpoint, options)?
            }
            Target::UnixPath(_) | Target::UnixAbstract(_) => connect_unix(&endpoint, options)?,
        };
        DatagramSocket::new(made, options, CONNECT)
    }

    /// Takes over a datagram socket, UDP or Unix, that is bound, connected or not. The options'
    /// timeouts, token, [coalescing](SocketOptions::coalescing),
    /// [`last_snapshot`](SocketOptions::last_snapshot), and of Unix sockets the users who may send,
    /// hold; addresses, family and interface must not be set. The file of a Unix socket stays the
    /// business of whoever made it.
    ///
    /// # Errors
    /// The descriptor is given back with the error:
    /// [`WrongState`](ErrorKind::WrongState) if it is not a datagram socket, or one of UDP that is
    /// not bound; [`InvalidArgument`](ErrorKind::InvalidArgument) for options;
    /// [`NoDescriptors`](ErrorKind::NoDescriptors), for it needs one more;
    /// [`NoMemory`](ErrorKind::NoMemory) for coalescing; [`Unsupported`](ErrorKind::Unsupported)
    /// for coalescing, or users who may send, where the system has none.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
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
        let adopted = Adopted { file: None, socket, any_port: false };
        DatagramSocket::adopt(adopted, options, true).map_err(|(adopted, e)| (adopted.socket, e))
    }

    /// Whether the kernel may hand several datagrams over as one is set `now`, or later:
    /// [`uncoalesced`](DatagramSocket::uncoalesced).
    #[allow(clippy::result_large_err)] // the socket, and why it was refused
    pub(crate) fn adopt(
        adopted: Adopted,
        options: &SocketOptions,
        now: bool,
    ) -> std::result::Result<DatagramSocket, (Adopted, Error)> {
        // Other processes may have it, too.
        let look = || -> Result<_> {
            let (endpoint, side) = look(&adopted, options, now)?;
            let coalesced = coalesced(sys::borrow(&adopted.socket), options, TAKE_OVER)?;
            let closing = sys::Event::new().map_err(|e| Error::os(TAKE_OVER, &e))?;
            Ok((endpoint, side, coalesced, closing))
        };
        match look() {
            Ok((endpoint, side, coalesced, closing)) => {
                let Adopted { file, socket, .. } = adopted;
                if let Side::Unix(unix) = &side {
                    *unix.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
                }
                let made = Made { socket, endpoint, side };
                Ok(DatagramSocket::put_together(made, options, coalesced, Some(closing)))
            }
            Err(e) => Err((adopted, e)),
        }
    }

    /// What is left to do for one that was adopted with that.
    pub(crate) fn uncoalesced(&self) -> Uncoalesced {
        Uncoalesced(Arc::downgrade(&self.0))
    }

    fn new(made: Made, options: &SocketOptions, operation: &'static str) -> Result<DatagramSocket> {
        if !sys::BLOCKING_CALLS {
            sys::set_nonblocking(sys::borrow(&made.socket), true)
                .map_err(|e| Error::os(operation, &e).at(&made.endpoint))?;
        }
        let closing = options.hand_over.then(sys::Event::new).transpose();
        let closing = closing.map_err(|e| Error::os(operation, &e).at(&made.endpoint))?;
        let coalesced = coalesced(sys::borrow(&made.socket), options, operation)?;
        Ok(DatagramSocket::put_together(made, options, coalesced, closing))
    }

    fn put_together(
        made: Made,
        options: &SocketOptions,
        coalesced: Option<Coalesced>,
        closing: Option<sys::Event>,
    ) -> DatagramSocket {
        let ms = |timeout: Option<Duration>| AtomicU64::new(timeout.map_or(NO_TIMEOUT, millis));
        let inet = match &made.side {
            Side::Inet(inet) => Some(inet),
            Side::Unix(_) => None,
        };
        let longest = if sys::SEGMENTS && inet.is_some() { usize::MAX } else { 0 };
        let connected = inet.is_some_and(|inet| inet.peer.is_some());
        let any = inet.is_some_and(|inet| has_many(inet.local.ip()));
        let socket = DatagramSocket(Arc::new(Shared {
            nonblocking: AtomicBool::new(false),
            read_timeout: ms(options.read_timeout),
            write_timeout: ms(options.write_timeout),
            cancel: Mutex::new(None),
            polled: AtomicBool::new(!sys::BLOCKING_CALLS),
            deaf: AtomicBool::new(false),
            closing,
            longest_segment: AtomicUsize::new(longest),
            control: AtomicBool::new(any && !connected || !options.users.is_empty()),
            coalesced,
            errors: Mutex::default(),
            error_count: AtomicU64::new(0),
            keeps_last: options.last_snapshot,
            last: OnceLock::new(),
            descriptor: Descriptor::new(made.socket),
            endpoint: made.endpoint,
            side: made.side,
        }));
        socket.set_cancel(options.cancel.as_ref());
        socket
    }
}

/// Room for what comes as one, if that may be. Whoever has asked for it, asked for every process
/// that has the socket.
fn coalesced(
    socket: Borrowed<'_>,
    options: &SocketOptions,
    operation: &'static str,
) -> Result<Option<Coalesced>> {
    if !options.coalescing && !sys::coalesces(socket) {
        return Ok(None);
    }
    let coalesced = Coalesced::new();
    coalesced.ok_or_else(|| Error::new(ErrorKind::NoMemory, operation)).map(Some)
}

/// Looks at a socket that somebody else has made, and sets it up. Coalescing is set `now`, or not
/// here.
fn look(adopted: &Adopted, options: &SocketOptions, now: bool) -> Result<(Endpoint, Side)> {
    let wrong = |what: &str| Error::new(ErrorKind::WrongState, TAKE_OVER).detail(what);
    let os = |e: io::Error| Error::os(TAKE_OVER, &e);
    options.validate(TAKE_OVER)?;
    options.refuse_stream_only(TAKE_OVER)?;
    options.refuse_client_only(TAKE_OVER)?;
    options.refuse_file_only(TAKE_OVER)?;
    if options.family != Family::Any || options.interface.is_some() {
        return Err(Error::new(ErrorKind::InvalidArgument, TAKE_OVER)
            .detail("family and interface are for sockets that are made"));
    }
    let fd = sys::borrow(&adopted.socket);
    if !sys::is_datagram(fd).map_err(os)? {
        return Err(wrong("not a datagram socket"));
    }
    let asked = SockRef::from(&fd);
    let (name, peer) = (asked.local_addr().map_err(os)?, asked.peer_addr().ok());
    let side = match name.as_socket() {
        Some(local) => {
            if local.port() == 0 {
                return Err(wrong("not bound"));
            }
            let ipv6 = local.is_ipv6();
            let dual = ipv6 && !asked.only_v6().map_err(os)?;
            let peer = peer.and_then(|peer| peer.as_socket());
            options.refuse_unix_only(TAKE_OVER)?;
            set_up(fd, local.ip(), ipv6, peer.is_some(), now && options.coalescing)
                .map_err(|cause| cause.into_error(TAKE_OVER))?;
            Side::Inet(Inet { any_port: adopted.any_port, ..Inet::new(local, peer, dual) })
        }
        None => {
            options.refuse_inet_only(TAKE_OVER)?;
            let peer = peer.map(|name| {
                let address = sys::to_address(&name);
                UnixPeer { bound: Mutex::new(address.clone()), address, name }
            });
            Side::unix(sys::to_address(&name), peer, None, options)
        }
    };
    let set = || -> std::result::Result<(), Cause> {
        if !options.users.is_empty() {
            sys::want_credentials(fd, true)?;
        }
        sys::set_nonblocking(fd, !sys::BLOCKING_CALLS)?;
        sys::forbid_sigpipe(fd)?;
        // The kernel's timeouts would be taken for ours.
        asked.set_read_timeout(None)?;
        asked.set_write_timeout(None)?;
        Ok(())
    };
    set().map_err(|cause| cause.into_error(TAKE_OVER))?;
    let endpoint = match &side {
        // As one that was bound to `*` here has it.
        Side::Inet(inet) if inet.dual && inet.local.ip().is_unspecified() => {
            Endpoint(Target::Inet { host: Host::Any, port: Port::Number(inet.local.port()) })
        }
        Side::Inet(inet) => inet.local.into(),
        Side::Unix(unix) => Endpoint::of(&unix.local),
    };
    Ok((endpoint, side))
}

/// Whether what comes to a socket that is bound to this may have come to several addresses of this
/// machine.
fn has_many(local: IpAddr) -> bool {
    local.is_unspecified() || local.is_multicast()
}

fn set_up(
    socket: Borrowed<'_>,
    local: IpAddr,
    ipv6: bool,
    connected: bool,
    coalescing: bool,
) -> std::result::Result<(), Cause> {
    if coalescing {
        sys::coalesce(socket, true)?;
    }
    // A socket with one address receives at that one, by whatever interface.
    if !connected && has_many(local) {
        sys::want_destination(socket, ipv6)?;
    }
    if connected {
        match sys::report_errors(socket, ipv6, true) {
            // There an error comes with a call, and is reported without its details.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
            other => other?,
        }
    }
    Ok(())
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
        if let Some(name) = &options.interface {
            sys::bind_interface(fd, name, ipv6)?;
        }
        sys::forbid_sigpipe(fd)?;
        set_up(fd, address.ip(), ipv6, connected, options.coalescing)
    };
    apply().map_err(|cause| (Stage::Options, cause))?;
    Ok(socket)
}

fn bind_inet(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    options.refuse_unix_only(BIND).map_err(|e| e.at(endpoint))?;
    let found = addresses(endpoint, options, Deadline::after(options.connect_timeout), BIND)?;
    let bind = |address, dual| bind_at(address, dual, options);
    let bound = bind_first(endpoint, found, options.family, BIND, bind)?;
    let BoundInet { socket, local, endpoint, dual, any_port } = bound;
    Ok(Made {
        socket,
        endpoint,
        side: Side::Inet(Inet { any_port, ..Inet::new(local, None, dual) }),
    })
}

fn addresses(
    endpoint: &Endpoint,
    options: &SocketOptions,
    deadline: Deadline,
    operation: &'static str,
) -> Result<Vec<SocketAddr>> {
    let cancel = options.cancel.as_ref();
    resolve(endpoint, Type::DGRAM, options.family, deadline, cancel, operation)
}

fn bind_at(address: SocketAddr, dual: bool, options: &SocketOptions) -> Step<Owned> {
    let at_bind = |e: io::Error| (Stage::Bind, Cause::from(e));
    let socket = new_socket(address, dual, options, false)?;
    let fd = sys::borrow(&socket);
    if address.ip().is_multicast() {
        // Each of several programs gets what is sent to the group (socket(7), SO_REUSEADDR).
        SockRef::from(&fd).set_reuse_address(true).map_err(at_bind)?;
    }
    SockRef::from(&fd).bind(&address.into()).map_err(at_bind)?;
    Ok(socket)
}

fn connect_first(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    let failed = |kind| Error::new(kind, CONNECT).at(endpoint);
    if let Target::Inet { host: Host::Any, .. } = &endpoint.0 {
        return Err(failed(ErrorKind::InvalidEndpoint).detail("\"*\" is for binding"));
    }
    let deadline = Deadline::after(options.connect_timeout);
    let local = match &options.local {
        Some(local) => addresses(local, options, deadline, CONNECT)?,
        None => Vec::new(),
    };
    let mut found = match options.addresses.as_slice() {
        [] => addresses(endpoint, options, deadline, CONNECT)?,
        given => given.iter().copied().filter(|a| options.family.allows(a.ip())).collect(),
    };
    if options.local.is_some() {
        found.retain(|to| local.iter().any(|l| l.is_ipv4() == to.is_ipv4()));
    }
    let mut failure = None;
    for to in found {
        if to.port() == 0 {
            // The kernel takes that for no peer at all.
            return Err(failed(ErrorKind::InvalidEndpoint).detail("port 0 is for binding"));
        }
        let from = local.iter().find(|l| l.is_ipv4() == to.is_ipv4()).copied();
        match connect_to(to, from, options) {
            Ok((socket, local, peer)) => {
                let inet = Inet::new(local, Some(peer), false);
                let endpoint = inet.local.into();
                return Ok(Made { socket, endpoint, side: Side::Inet(inet) });
            }
            Err((stage, cause)) => {
                failure.get_or_insert(cause.into_error(CONNECT).at(endpoint).stage(stage));
            }
        }
    }
    Err(failure.unwrap_or_else(|| failed(ErrorKind::NotFound).detail("no address to connect to")))
}

fn connect_to(
    to: SocketAddr,
    from: Option<SocketAddr>,
    options: &SocketOptions,
) -> Step<(Owned, SocketAddr, SocketAddr)> {
    let at = |stage| move |e: io::Error| (stage, Cause::from(e));
    let socket = new_socket(to, false, options, true)?;
    let fd = sys::borrow(&socket);
    if let Some(from) = from {
        SockRef::from(&fd).bind(&from.into()).map_err(at(Stage::Bind))?;
    }
    SockRef::from(&fd).connect(&to.into()).map_err(at(Stage::Connect))?;
    let local = local_of(fd).map_err(at(Stage::Connect))?;
    // To the wildcard is to this machine, and the kernel says which address that is.
    let peer = SockRef::from(&fd).peer_addr().map_err(at(Stage::Connect))?.as_socket();
    Ok((socket, local, peer.unwrap_or(to)))
}

/// The name of a path wherever this process goes, if it is not too long then.
fn absolute(address: &Address) -> Option<SockAddr> {
    match address {
        Address::UnixPath(path) => {
            let path = std::path::absolute(path).ok()?;
            sys::name_of_unix(&Address::UnixPath(path)).ok()
        }
        _ => None,
    }
}

fn unix_socket() -> io::Result<Owned> {
    let socket = sys::datagram_socket(Domain::UNIX)?;
    sys::forbid_sigpipe(sys::borrow(&socket))?;
    Ok(socket)
}

fn bind_unix(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    let at = |stage| move |e: io::Error| Error::os(BIND, &e).at(endpoint).stage(stage);
    options.refuse_inet_only(BIND).map_err(|e| e.at(endpoint))?;
    if let Target::UnixAbstract(_) = &endpoint.0 {
        options.refuse_file_only(BIND).map_err(|e| e.at(endpoint))?;
    }
    let socket = unix_socket().map_err(at(Stage::Socket))?;
    if !options.users.is_empty() {
        // Before anybody can send.
        sys::want_credentials(sys::borrow(&socket), true).map_err(at(Stage::Options))?;
    }
    let bound = bind_name(sys::borrow(&socket), endpoint, options);
    let (local, file) = bound.map_err(at(Stage::Bind))?;
    let side = Side::unix(local, None, file, options);
    Ok(Made { socket, endpoint: endpoint.clone(), side })
}

/// Gives a Unix socket its name, and the file that it has then.
fn bind_name(
    socket: Borrowed<'_>,
    endpoint: &Endpoint,
    options: &SocketOptions,
) -> io::Result<(Address, Option<SocketFile>)> {
    let name = sys::unix_name(endpoint)?;
    let file = match &endpoint.0 {
        Target::UnixPath(path) => {
            Some(unix::bind_and_listen(socket, &name, path, options.unix, || Ok(()))?)
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
        return Err(error.detail("allow_user is for binding: a connected socket has one peer"));
    }
    let has_file = matches!(&options.local, Some(Endpoint(Target::UnixPath(_))));
    if !has_file {
        options.refuse_file_only(CONNECT).map_err(|e| e.at(endpoint))?;
    }
    let name = sys::unix_name(endpoint).map_err(at(Stage::Socket))?;
    let socket = unix_socket().map_err(at(Stage::Socket))?;
    let fd = sys::borrow(&socket);
    let file = match &options.local {
        Some(local) => bind_name(fd, local, options).map_err(at(Stage::Bind))?.1,
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
