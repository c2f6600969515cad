//! Creating listening sockets.

use std::io;
use std::net::SocketAddr;

use crate::sys::SockRef;
use socket2::{Domain, Type};

use super::socket::BoundListener;
use super::{ServerSocket, new_close_event};
use crate::bind::{BoundInet, Step, at_unix_bind, bind_first};
use crate::io::deadline::Deadline;
use crate::io::wait::Cause;
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::socket_file;
use crate::sys::{self, Borrowed, Families, Owned};
use crate::types::address::{Address, AddressUse};
use crate::types::endpoint::{Endpoint, Target};
use crate::types::error::{Error, ErrorKind, Result, Stage};
use crate::types::sockopt::Sockets;

const OPERATION: &str = "listen";

impl ServerSocket {
    /// Listens on an endpoint with the default options.
    ///
    /// - `*:8080` accepts IPv4 and IPv6 on one port. The system's bindv6only setting has no
    ///   effect. On a machine without IPv6 it accepts IPv4 only.
    /// - `0.0.0.0:8080` accepts IPv4 only, `[::]:8080` accepts IPv6 only.
    /// - A host name means its first address.
    /// - If the port is 0, the kernel assigns a port. [`port`](ServerSocket::port) returns it.
    /// - `unix:/path` and, on Linux, `unix:@name` are Unix stream sockets.
    ///
    /// The socket file of a Unix path is replaced if its server was closed, and never if a socket is
    /// bound to it. While it is replaced, a lock file `PATH.lock.NUMBER` is next to it, which only
    /// its owner can open. In a sticky directory, lock files of other users are ignored, except
    /// those of root, of the directory's owner and of the socket file's owner. If the directory
    /// cannot be listed, the lock file is `PATH.lock`. The socket file is removed when the server
    /// is closed.
    ///
    /// # Errors
    /// Each error names the endpoint.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint, is a multicast
    ///   or broadcast address, or is a link-local IPv6 address without a zone or with a zone that
    ///   this machine does not have.
    /// - [`AddressInUse`](ErrorKind::AddressInUse): another socket is bound to the address and
    ///   port or to the Unix path, another process is replacing the socket file, or no local port
    ///   is free for port 0.
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): the address does not belong to
    ///   this machine.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the port is below 1024 and the process
    ///   may not bind it, or the directory of the Unix path is not writable.
    /// - [`NotFound`](ErrorKind::NotFound): the host or service name, or the directory of the Unix
    ///   path, does not exist.
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer.
    /// - [`TimedOut`](ErrorKind::TimedOut): the name lookup took longer than the connect timeout
    ///   (30 s).
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform does not have this kind of socket.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// use keepsock::{ErrorKind, ServerSocket};
    /// let first = ServerSocket::listen("127.0.0.1:0")?;
    /// let err = ServerSocket::listen(first.endpoint()).unwrap_err();
    /// assert_eq!(err.kind(), ErrorKind::AddressInUse);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn listen<E>(endpoint: E) -> Result<ServerSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        ServerSocket::listen_with(endpoint, &SocketOptions::default())
    }

    /// Listens on an endpoint with options. The options apply to the listening socket and to every
    /// accepted connection.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to a listening socket of this kind. The error names the option.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint, is a multicast
    ///   or broadcast address, or is a link-local IPv6 address without a zone; or this machine does
    ///   not have the zone or the [`interface`](SocketOptions::interface).
    /// - [`AddressInUse`](ErrorKind::AddressInUse): another socket is bound to the address and
    ///   port or to the Unix path, another process is replacing the socket file, or no local port
    ///   is free for port 0.
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): the address does not belong to
    ///   this machine.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the port is below 1024 and the process
    ///   may not bind it, the directory of the Unix path is not writable, or the process may not
    ///   set the owner of the socket file.
    /// - [`NotFound`](ErrorKind::NotFound): the host or service name, or the directory of the Unix
    ///   path, does not exist, or the host has no address of the
    ///   [`family`](SocketOptions::family).
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer.
    /// - [`TimedOut`](ErrorKind::TimedOut): the name lookup took longer than the
    ///   [`connect_timeout`](SocketOptions::connect_timeout).
    /// - [`Cancelled`](ErrorKind::Cancelled): the token was fired during the name lookup.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have this
    ///   kind of socket or an option that was set.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// use keepsock::{ClientSocket, Keepalive, ServerSocket, SocketOptions};
    /// use std::time::Duration;
    /// let fast = Keepalive::new(Duration::from_secs(10), Duration::from_secs(5), 3)?;
    /// let server = ServerSocket::listen_with("*:0", &SocketOptions::new().keepalive(fast))?;
    /// # let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
    /// # let client = ClientSocket::connect((loopback, server.port()))?;
    /// assert_eq!(server.accept()?.keepalive()?, Some(fast));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn listen_with<E>(endpoint: E, options: &SocketOptions) -> Result<ServerSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?;
        listen_on(&[endpoint], options)
    }

    /// Listens on several endpoints, TCP and Unix sockets together. Either all of them listen or
    /// none. One [`accept`](ServerSocket::accept) or [`serve`](ServerSocket::serve) accepts the
    /// connections of all endpoints. A busy listener does not starve the others.
    ///
    /// The options apply to the connections of every endpoint. An option that does not apply to
    /// one of the endpoints is rejected; options of TCP are accepted if at least one endpoint is a
    /// TCP endpoint. Each accept costs one poll more than with a single endpoint.
    ///
    /// # Errors
    /// The errors of [`listen_with`](ServerSocket::listen_with), with the endpoint that failed.
    /// The sockets of the other endpoints are closed again, and their socket files are removed.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): also if `endpoints` is empty.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # #[cfg(target_os = "linux")] {
    /// let endpoints = ["127.0.0.1:0", "unix:@listen-all-example"];
    /// let server = ServerSocket::listen_all(endpoints, &SocketOptions::new())?;
    /// for endpoint in server.endpoints() {
    ///     let client = ClientSocket::connect(endpoint)?;
    ///     let accepted = server.accept()?;
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn listen_all<E>(
        endpoints: impl IntoIterator<Item = E>,
        options: &SocketOptions,
    ) -> Result<ServerSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoints: Vec<Endpoint> = endpoints
            .into_iter()
            .map(|e| e.try_into().map_err(|e| Error::from(e).during(OPERATION)))
            .collect::<Result<_>>()?;
        listen_on(&endpoints, options)
    }
}

fn listen_on(endpoints: &[Endpoint], options: &SocketOptions) -> Result<ServerSocket> {
    options.validate(OPERATION)?;
    options.refuse_client_only(OPERATION)?;
    options.refuse_without_proxies(OPERATION)?;
    options.refuse_datagram_only(OPERATION)?;
    if endpoints.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
            .detail("the list of endpoints is empty: name at least one"));
    }
    let is_inet = |endpoint: &Endpoint| matches!(endpoint.0, Target::Inet { .. });
    let (inet, unix) = (endpoints.iter().any(is_inet), !endpoints.iter().all(is_inet));
    if !inet {
        options.refuse_tcp_only(OPERATION).map_err(|e| e.at(&endpoints[0]))?;
    }
    let kinds = Sockets::NONE.with(Sockets::LISTEN, inet).with(Sockets::UNIX, unix);
    options.refuse_other_sockets(kinds, OPERATION).map_err(|e| e.at(&endpoints[0]))?;
    let deadline = Deadline::after(options.connect_timeout);
    // If a later endpoint fails, the earlier ones are closed with this vector.
    let mut bound = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        bound.push(match &endpoint.0 {
            Target::Inet { .. } => bind_inet(endpoint, options, deadline)?,
            Target::UnixPath(_) | Target::UnixAbstract(_) => bind_unix(endpoint, options)?,
        });
    }
    let close_event = new_close_event(options.handover, OPERATION)?;
    let server = ServerSocket::new(bound, options, close_event, options.handover);
    if endpoints.len() > 1 {
        server.start_polling()?;
    }
    Ok(server)
}

fn bind_inet(
    endpoint: &Endpoint,
    options: &SocketOptions,
    deadline: Deadline,
) -> Result<BoundListener> {
    options.refuse_unix_only(OPERATION).map_err(|e| e.at(endpoint))?;
    options.refuse_addresses(endpoint, AddressUse::Local, OPERATION)?;
    let (family, cancel) = (options.family, options.cancel.as_ref());
    let found = resolve(endpoint, Type::STREAM, family, deadline, cancel, OPERATION)?;
    let found = options.prefer(endpoint, found);
    let listen = |address, dual| listen_at(address, dual, options);
    let rejects = |address| options.rejects_bind(address, AddressUse::Local);
    let bound = bind_first(endpoint, found, family, OPERATION, rejects, listen)?;
    let BoundInet { socket, local, endpoint, ephemeral_port, .. } = bound;
    let address = local.into();
    Ok(BoundListener { file: None, socket, endpoint, address, ephemeral_port })
}

fn listen_at(address: SocketAddr, dual: bool, options: &SocketOptions) -> Step<Owned> {
    let at = |stage| move |e: io::Error| (stage, Cause::from(e));
    let socket = sys::stream_socket(Domain::for_address(address), options.mptcp)
        .map_err(|e| (Stage::Socket, options.socket_failure(e)))?;
    let fd = sys::borrow(&socket);
    let configure = || -> std::result::Result<(), Cause> {
        sys::prepare_listener(fd)?;
        if address.is_ipv6() {
            SockRef::from(&fd).set_only_v6(!dual)?;
        }
        options.apply_listener(fd)?;
        options.apply_dead_after(fd)?;
        options.apply_tcp(fd, address.is_ipv6())?;
        options.apply_kernel(fd, Sockets::LISTEN, Families::of_bound(&address, dual))
    };
    configure().map_err(|cause| (Stage::Options, cause))?;
    SockRef::from(&fd).bind(&address.into()).map_err(at(Stage::Bind))?;
    start_listening(fd, options).map_err(at(Stage::Bind))?;
    Ok(socket)
}

fn bind_unix(endpoint: &Endpoint, options: &SocketOptions) -> Result<BoundListener> {
    let at = |stage| move |e: io::Error| Error::os(OPERATION, &e).at(endpoint).stage(stage);
    options.refuse_inet_only(OPERATION).map_err(|e| e.at(endpoint))?;
    let name = sys::unix_name(endpoint).map_err(at(Stage::Socket))?;
    let socket = if options.seqpacket {
        sys::packet_socket()
    } else {
        sys::stream_socket(Domain::UNIX, false)
    };
    let socket = socket.map_err(at(Stage::Socket))?;
    let fd = sys::borrow(&socket);
    options
        .apply_kernel(fd, Sockets::UNIX, Families::None)
        .map_err(|cause| cause.into_error(OPERATION).at(endpoint).stage(Stage::Options))?;
    let listen = || start_listening(fd, options);
    let (address, file) = match &endpoint.0 {
        Target::UnixPath(path) => {
            let file = socket_file::bind_and_listen(fd, &name, path, options.unix, listen);
            let file = file.map_err(|e| at_unix_bind(e.into_error(OPERATION), endpoint))?;
            (Address::UnixPath(path.clone()), Some(file))
        }
        _ => {
            options.refuse_file_only(OPERATION).map_err(|e| e.at(endpoint))?;
            SockRef::from(&fd).bind(&name).and_then(|()| listen()).map_err(at(Stage::Bind))?;
            (sys::to_address(&name), None)
        }
    };
    let endpoint = endpoint.clone();
    Ok(BoundListener { file, socket, endpoint, address, ephemeral_port: false })
}

fn start_listening(fd: Borrowed<'_>, options: &SocketOptions) -> io::Result<()> {
    SockRef::from(&fd).listen(backlog(options))?;
    sys::set_nonblocking(fd, !sys::BLOCKING_CALLS || options.handover)
}

/// The backlog for listen(2), which silently lowers it to the limit of the system.
pub(super) fn backlog(options: &SocketOptions) -> i32 {
    options.backlog.map_or(i32::MAX, |n| i32::try_from(n).unwrap_or(i32::MAX))
}

/// Whether this machine has no IPv6, so that `*` accepts IPv4 only.
#[cfg(feature = "activation")]
pub(crate) fn is_ipv6_missing() -> bool {
    let socket = sys::stream_socket(Domain::IPV6, false);
    let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)).into();
    let bound = socket.and_then(|socket| SockRef::from(&sys::borrow(&socket)).bind(&any));
    bound.is_err_and(|e| sys::is_family_missing(&e))
}
