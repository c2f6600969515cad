//! `keepsock_datagram`.

use std::ffi::c_char;

use crate::ffi::{
    AddressIn, Adopted, ErrorOut, Out, Ref, Stopped, Text, create, handle, keepsock_address,
    keepsock_error, keepsock_fd, keepsock_options, null, with,
};
use crate::internal::Stop;
use crate::{DatagramSocket, Error};

/// A datagram socket, UDP or Unix: bound to a local address, or connected to one peer. Unix
/// sockets: not on Windows.
///
/// Threads: several threads may call functions on one socket at the same time. Each datagram is
/// sent and received as a whole. Any thread may close the socket at any time. Only
/// keepsock_datagram_free() requires that no other thread uses the object.
pub struct keepsock_datagram {
    pub(crate) socket: DatagramSocket,
}

impl keepsock_datagram {
    pub(crate) fn new(socket: DatagramSocket) -> keepsock_datagram {
        keepsock_datagram { socket }
    }
}

handle!(keepsock_datagram, Datagram, "datagram", socket: DatagramSocket);

impl Stopped for DatagramSocket {
    fn stopped(&self, operation: &'static str, stop: Stop) -> Error {
        DatagramSocket::stopped(self, operation, stop)
    }
}

/// Creates a socket that receives datagrams from all senders (socket(2), bind(2)).
///
/// - "*:8080" receives IPv4 and IPv6 on one port, independent of the system's bindv6only.
///   "0.0.0.0:8080" receives IPv4 only, "[::]:8080" IPv6 only.
/// - With port 0 the kernel chooses the port, and keepsock_datagram_endpoint() returns it.
/// - "unix:/path" and "unix:@abstract" create Unix datagram sockets. The library replaces a socket
///   file whose socket was closed, and never one that a socket is bound to (keepsock_server_listen()
///   describes the lock file). Closing the socket removes the file.
///
/// @param endpoint  The local endpoint.
/// @param options   Socket options, copied. NULL for the defaults. Family, interface, timeouts,
///                  cancel token, udp_gro, handover and keep_stats apply; for a Unix socket also
///                  mode, owner and allowed users. Options of stream sockets and of connecting
///                  are rejected.
/// @param datagram  Receives the socket. Free it with keepsock_datagram_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, a link-local IPv6 address has no
///     zone, or this machine has no such zone or interface
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the port or the interface, or
///     write to the directory of the socket file
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the directory does not exist, or the host
///     has no address of the requested family
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_TIMED_OUT: the lookup exceeded the connect timeout
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired during the lookup
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket on Windows, or this system lacks an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_bind(
    endpoint: *const c_char,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `endpoint` is
    // NULL or ends with NUL; `datagram` and `error` are NULL or writable.
    let (endpoint, options, datagram, error) = unsafe {
        (
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Out::new(datagram, "datagram"),
            ErrorOut::new(error),
        )
    };
    create(datagram, error, "bind", || {
        let socket = DatagramSocket::bind_with(endpoint.endpoint()?, &*options.or_default()?)?;
        Ok(keepsock_datagram::new(socket))
    })
}

/// Creates a socket that sends to one peer and receives from that peer only (socket(2),
/// connect(2)).
///
/// Nothing is sent, so a UDP peer does not have to exist. A Unix peer must exist. If a name has
/// several addresses, the socket uses the first one that this machine has a route to. On Linux the
/// library gives a Unix socket a name, so that the peer can reply. On other systems set a local
/// endpoint for that.
///
/// @param endpoint  The peer.
/// @param options   Socket options, copied. NULL for the defaults. Family, local endpoint,
///                  interface, remote addresses, timeouts, cancel token, udp_gro, handover and
///                  keep_stats apply; for a Unix socket with a local path also mode and owner.
///                  Options of stream sockets, and allowed users, are rejected.
/// @param datagram  Receives the socket. Free it with keepsock_datagram_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the peer
///   - KEEPSOCK_ERR_REFUSED: the Unix socket of the peer was closed
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse or is no destination ("*", 0.0.0.0,
///     [::], port 0); a link-local IPv6 address has no zone; the local endpoint is a multicast or
///     broadcast address; or this machine has no such zone or interface
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine, or
///     is of another family than the peer
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the port or the interface, or
///     write to the Unix socket of the peer, or local policy forbids it
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist, or the host
///     has no address of the requested family
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_TIMED_OUT: the lookup exceeded the connect timeout
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired during the lookup
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket on Windows, or this system lacks an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_connect(
    endpoint: *const c_char,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `endpoint` is
    // NULL or ends with NUL; `datagram` and `error` are NULL or writable.
    let (endpoint, options, datagram, error) = unsafe {
        (
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Out::new(datagram, "datagram"),
            ErrorOut::new(error),
        )
    };
    create(datagram, error, "connect", || {
        let socket = DatagramSocket::connect_with(endpoint.endpoint()?, &*options.or_default()?)?;
        Ok(keepsock_datagram::new(socket))
    })
}

/// Connects a bound UDP socket to a peer (connect(2)): it then sends to and receives from this peer
/// only.
///
/// A server with one socket for each peer binds another socket to its port, with
/// KEEPSOCK_SOCKOPT_REUSE_ADDRESS on all of them, and connects it to the sender of the first
/// datagram. Datagrams of other senders that are queued on the socket, or that the library has
/// received as coalesced datagrams, are discarded. The socket keeps its port, and stays connected
/// until it is closed. keepsock_datagram_set_peer_endpoint() also connects a Unix socket.
///
/// @code
/// keepsock_options *options = NULL;
/// keepsock_datagram *listening = NULL, *of_peer = NULL;
/// keepsock_datagram_info info;
/// char buf[1500];
/// keepsock_options_new(&options, NULL);
/// keepsock_options_set_sockopt(options, KEEPSOCK_SOCKOPT_REUSE_ADDRESS, 1, NULL);
/// keepsock_datagram_bind("192.0.2.1:7788", options, &listening, NULL);
/// keepsock_datagram_recv(listening, buf, sizeof buf, &info, sizeof info, NULL);
/// keepsock_datagram_bind("192.0.2.1:7788", options, &of_peer, NULL);
/// keepsock_datagram_set_peer(of_peer, &info.from, NULL);
/// @endcode
///
/// @param datagram  A bound UDP socket.
/// @param peer      The address and the port of the peer.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected already
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `peer` is not a destination (0.0.0.0, [::], port 0), or is a
///     link-local address without a zone
///   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the peer
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: this machine has no source address for the peer
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
///     keepsock_datagram_set_broadcast(), or a firewall or a policy forbids it
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; an address family that the socket does not have; or
///     `peer` is the address of a Unix socket, whose name an address does not contain
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_peer(
    datagram: *mut keepsock_datagram,
    peer: *const keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `peer` is NULL
    // or readable; `error` is NULL or writable.
    let (datagram, peer, error) =
        unsafe { (Ref::new(datagram), AddressIn::new(peer, "peer"), ErrorOut::new(error)) };
    with(datagram, error, "connect", |socket| socket.set_peer(peer.get()?))
}

/// Connects a bound socket, UDP or Unix, to an endpoint (connect(2)), as
/// keepsock_datagram_set_peer() connects a UDP socket to an address.
///
/// keepsock_datagram_info_sender() returns the endpoint of the sender of a datagram. Datagrams of
/// other senders that are queued on the socket are discarded.
///
/// @param datagram  A bound socket.
/// @param endpoint  The peer: a numeric address and port, or "unix:/path", "unix:@name".
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected already
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` is malformed, is not numeric, is not a destination
///     (0.0.0.0, [::], port 0), is a link-local address without a zone, or is too long a path
///   - KEEPSOCK_ERR_NOT_FOUND: the path does not exist
///   - KEEPSOCK_ERR_REFUSED: no socket is bound to the name
///   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the peer
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: this machine has no source address for the peer
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
///     keepsock_datagram_set_broadcast(); the Unix peer is connected to another socket; or a
///     firewall, a policy or a file mode forbids it
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; an address family that the socket does not have; or a
///     Unix socket with keepsock_options_add_allowed_uid()
///   - KEEPSOCK_ERR_OS: another error of the system, for example EPROTOTYPE if the Unix peer is
///     not a datagram socket; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_peer_endpoint(
    datagram: *mut keepsock_datagram,
    endpoint: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `endpoint` is NULL
    // or ends with NUL; `error` is NULL or writable.
    let (datagram, endpoint, error) =
        unsafe { (Ref::new(datagram), Text::new(endpoint, "endpoint"), ErrorOut::new(error)) };
    with(datagram, error, "connect", |socket| {
        socket.set_peer(endpoint.address()?.ok_or_else(|| null("endpoint"))?)
    })
}

/// Adopts a datagram socket, UDP or Unix, that is bound or connected.
///
/// The library does not remove the file of an adopted Unix socket.
///
/// @param fd        A datagram socket. The new object owns it on success; the caller keeps it on
///                  failure.
/// @param options   Socket options, copied. NULL for the defaults. Timeouts, cancel token,
///                  udp_gro, keep_stats and, for a Unix socket, allowed users apply. Addresses,
///                  family and interface are rejected.
/// @param datagram  Receives the socket. Free it with keepsock_datagram_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: not a datagram socket, or a UDP socket that is not bound
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the library needs one more descriptor, and none is free
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks udp_gro or allowed users
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `fd` is negative, or an option has no effect here
///   - KEEPSOCK_ERR_OS: `fd` is closed or not a socket, or another error of the system
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_from_fd(
    fd: keepsock_fd,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `fd` belongs to
    // the caller; `datagram` and `error` are NULL or writable.
    let (fd, options, datagram, error) = unsafe {
        (Adopted::new(fd), Ref::new(options), Out::new(datagram, "datagram"), ErrorOut::new(error))
    };
    create(datagram, error, "adopt", || {
        let options = options.or_default()?;
        let socket = fd.adopt(|owned| DatagramSocket::from_owned(owned, &options))?;
        Ok(keepsock_datagram::new(socket))
    })
}

/// Closes a socket (close(2)).
///
/// Waiting calls of other threads return KEEPSOCK_ERR_CLOSED. Sent datagrams are not affected.
/// keepsock_datagram_recv_error() still returns the errors that were reported before.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_close(
    datagram: *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "close", |socket| {
        socket.close();
        Ok(())
    })
}

/// Closes and frees a socket.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_free(datagram: *mut keepsock_datagram) {
    // SAFETY: the header requires that no other thread uses `datagram`.
    unsafe { handle::free(datagram) };
}
