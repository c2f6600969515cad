//! `ClientSocket::connect`: a connect that waits.

use std::time::Instant;

use super::{OPERATION, connect};
use crate::options::SocketOptions;
use crate::stream::ClientSocket;
use crate::types::endpoint::Endpoint;
#[cfg(doc)]
use crate::types::error::ErrorKind;
use crate::types::error::{Error, Result};

impl ClientSocket {
    /// Connects to an endpoint with the default options, over TCP or a Unix socket.
    ///
    /// The addresses of a host name race (RFC 8305): IPv6 and IPv4 addresses alternate, and an
    /// attempt starts 250 ms after the previous one, or as soon as the previous one fails. The
    /// first attempt that succeeds is used, and the others are closed. The call returns within
    /// 30 s.
    ///
    /// # Name lookup
    /// Any number of lookups may run at the same time. At most 64 threads call getaddrinfo(3) for
    /// them, and further lookups wait in a queue, within the deadline. A lookup whose caller has
    /// stopped waiting keeps its thread until the resolver answers. There are at most 256 threads
    /// in all. `localhost` and names that end in `.localhost` are the loopback addresses `::1` and
    /// `127.0.0.1`, without a lookup (RFC 6761 section 6.3).
    ///
    /// # Errors
    /// The error of a failed connect has every attempt ([`Error::attempts`]) and the cause of the
    /// first one.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint; no peer can
    ///   have the address (`*`, `0.0.0.0`, `[::]`, port 0, multicast, broadcast); or it is a
    ///   link-local IPv6 address without a zone or with a zone that this machine does not have.
    /// - [`NotFound`](ErrorKind::NotFound): the host, the service name or the Unix path does not
    ///   exist.
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer.
    /// - [`Refused`](ErrorKind::Refused): no process listens on the port or on the Unix path.
    /// - [`Unreachable`](ErrorKind::Unreachable): there is no route to the address, or the network
    ///   reported that the peer cannot be reached.
    /// - [`Reset`](ErrorKind::Reset): the peer reset the connection during the handshake.
    /// - [`TimedOut`](ErrorKind::TimedOut): no attempt succeeded within 30 s.
    /// - [`AddressInUse`](ErrorKind::AddressInUse): no local port is free.
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): this machine has no address from
    ///   which the destination can be reached.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): a firewall or route of this machine, or
    ///   the mode of the socket file, does not permit the connection.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform does not have this kind of socket.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let endpoint = format!("127.0.0.1:{}", server.port());
    /// let client = ClientSocket::connect(&endpoint)?;
    /// println!("{}", client.five_tuple());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect<E>(endpoint: E) -> Result<ClientSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        ClientSocket::connect_with(endpoint, &SocketOptions::default())
    }

    /// Connects to an endpoint with options.
    ///
    /// # Errors
    /// The error of a failed connect has every attempt ([`Error::attempts`]) and the cause of the
    /// first one.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to connecting to this endpoint. The error names the option.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint; no peer can
    ///   have the address (`*`, `0.0.0.0`, `[::]`, port 0, multicast, broadcast); a link-local IPv6
    ///   address has no zone; the [`local_endpoint`](SocketOptions::local_endpoint) is a multicast
    ///   or broadcast address; or this machine does not have the zone or the
    ///   [`interface`](SocketOptions::interface).
    /// - [`NotFound`](ErrorKind::NotFound): the host, the service name or the Unix path does not
    ///   exist, or the host has no address of the [`family`](SocketOptions::family).
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer.
    /// - [`Refused`](ErrorKind::Refused): no process listens on the port or on the Unix path.
    /// - [`Unreachable`](ErrorKind::Unreachable): there is no route to the address, or the network
    ///   reported that the peer cannot be reached.
    /// - [`Reset`](ErrorKind::Reset): the peer reset the connection during the handshake.
    /// - [`TimedOut`](ErrorKind::TimedOut): no attempt succeeded within the
    ///   [`connect_timeout`](SocketOptions::connect_timeout).
    /// - [`Cancelled`](ErrorKind::Cancelled): the token of the options was fired.
    /// - [`AddressInUse`](ErrorKind::AddressInUse): another socket is bound to the
    ///   [`local_endpoint`](SocketOptions::local_endpoint), the same connection exists already, or
    ///   no local port is free.
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): the local endpoint does not
    ///   belong to this machine or has another family than the addresses of the peer, or this
    ///   machine has no address from which the destination can be reached.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): a firewall or route of this machine, or
    ///   the mode of the socket file, does not permit the connection, or the process may not set
    ///   an option or bind the local port.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have this
    ///   kind of socket or an option that was set.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let options = SocketOptions::new().connect_timeout(std::time::Duration::from_secs(3));
    /// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect_with<E>(endpoint: E, options: &SocketOptions) -> Result<ClientSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?;
        let start = Instant::now();
        let client = ClientSocket::from_connected(connect(&endpoint, options, start)?, options);
        client.finish_connect(&endpoint, options, start)?;
        Ok(client)
    }

    /// Connects to a host and a port that are separate arguments, as
    /// [`connect_with`](ClientSocket::connect_with) does. The host never changes its meaning: the
    /// host `unix` is a host name.
    ///
    /// # Errors
    /// The errors of [`connect_with`](ClientSocket::connect_with), with these differences:
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): also if the host is neither a host name
    ///   nor an address. The error says which part is wrong.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): also if an option applies to Unix sockets
    ///   only.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let client = ClientSocket::connect_host("127.0.0.1", server.port(), &SocketOptions::new())?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect_host(host: &str, port: u16, options: &SocketOptions) -> Result<ClientSocket> {
        let endpoint = Endpoint::from_host_port(host, port).map_err(|e| e.during(OPERATION))?;
        ClientSocket::connect_with(endpoint, options)
    }
}
