//! Functions that create a `keepsock_client`.

use std::ffi::c_char;

use crate::ClientSocket;
use crate::ffi::{
    Adopted, ErrorOut, Out, Ref, Text, call, create, keepsock_client, keepsock_error, keepsock_fd,
    keepsock_options,
};
use crate::internal::connect_into;

/// Connects to an endpoint.
///
/// The library looks the name up, and its addresses race (RFC 8305). IPv6 and IPv4 alternate. A new
/// attempt starts 250 ms after the previous one, or as soon as that fails. The first attempt that
/// connects wins. The connect timeout (keepsock_options_set_connect_timeout(), 30 s by default)
/// covers the lookup and all attempts. The call returns in time even if the resolver hangs.
///
/// "localhost" and names that end in ".localhost" are ::1 and 127.0.0.1 without a lookup (RFC 6761
/// section 6.3), in every function that takes an endpoint. A listener binds them to ::1, or to
/// 127.0.0.1 on a machine without IPv6. At most 64 threads call getaddrinfo(3); further lookups
/// wait in a queue. A lookup whose caller stopped waiting keeps its thread until the resolver
/// answers. The library starts at most 256 threads for lookups.
///
/// @code
/// keepsock_client *client = NULL;
/// keepsock_error *error = NULL;
/// if (keepsock_client_connect("example.com:80", NULL, &client, &error) != KEEPSOCK_OK)
///     fprintf(stderr, "%s\n", keepsock_error_message(error));
/// keepsock_error_free(error);
/// @endcode
///
/// @param endpoint  "host:port", "192.0.2.1:80", "[2001:db8::1]:80", "[fe80::1%eth0]:80",
///                  "unix:/path" or "unix:@abstract". A service name may replace the port:
///                  "example.com:http".
/// @param options   Socket options, copied. NULL for the defaults.
/// @param client    Receives the connection. Free it with keepsock_client_free().
/// @param error     Its message lists every attempt.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse; no peer can have its address ("*",
///     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
///     endpoint is a multicast or broadcast address; or the zone or interface does not exist
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
///   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option has no effect on this kind of socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_connect(
    endpoint: *const c_char,
    options: *const keepsock_options,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `endpoint` is
    // NULL or ends with NUL; `client` and `error` are NULL or writable.
    let (endpoint, options, client, error) = unsafe {
        (
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Out::new(client, "client"),
            ErrorOut::new(error),
        )
    };
    call(error, "connect", || {
        let (out, endpoint, options) =
            (client.reserved()?, endpoint.endpoint()?, options.or_default()?);
        connect_into(&endpoint, &options, |connected, since| {
            let made = || keepsock_client::own(ClientSocket::from_connected(connected, &options));
            out.try_put(made, |client| client.socket().finish_connect(&endpoint, &options, since))
        })
    })
}

/// Connects to a host and a port that are separate arguments.
///
/// It works like keepsock_client_connect() for TCP. The host never changes its meaning: "unix" is
/// a host name.
///
/// @param host     A host name, an IPv4 address, or an IPv6 address with or without brackets and
///                 zone: "::1", "[fe80::1%eth0]".
/// @param port     The TCP port, 1 to 65535, in host byte order.
/// @param options  Socket options, copied. NULL for the defaults.
/// @param client   Receives the connection. Free it with keepsock_client_free().
/// @param error    Its message lists every attempt.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `host` is neither a host name nor an address; `port` is 0; no
///     peer can have the address ("*", 0.0.0.0, [::], multicast, broadcast); a link-local address
///     has no zone; the local endpoint is a multicast or broadcast address; or the zone or interface
///     does not exist
///   - KEEPSOCK_ERR_NOT_FOUND: the host does not exist, or has no address of the requested family
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
///   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option has no effect on this kind of socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_connect_host(
    host: *const c_char,
    port: u16,
    options: *const keepsock_options,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `host` is NULL or
    // ends with NUL; `client` and `error` are NULL or writable.
    let (host, options, client, error) = unsafe {
        (
            Text::new(host, "host"),
            Ref::new(options),
            Out::new(client, "client"),
            ErrorOut::new(error),
        )
    };
    create(client, error, "connect", || {
        let socket = ClientSocket::connect_host(host.get()?, port, &*options.or_default()?)?;
        Ok(keepsock_client::own(socket))
    })
}

/// Adopts a connected stream socket.
///
/// The function sets keepalive, TCP_NODELAY, the timeouts and the cancel token from `options`,
/// and puts the socket into blocking mode. It turns SO_LINGER, SO_RCVTIMEO and SO_SNDTIMEO off.
///
/// @param fd       A connected TCP or Unix stream or SOCK_SEQPACKET socket. The new connection
///                 owns it on success; the caller keeps it on failure.
/// @param options  Socket options, copied. NULL for the defaults.
/// @param client   Receives the connection. Free it with keepsock_client_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is not connected, is listening, or is a datagram socket
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine has no interface of that name (interface option)
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the interface
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `fd` is negative, or an option has no effect here
///   - KEEPSOCK_ERR_OS: `fd` is closed or not a socket, or another error of the system
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_from_fd(
    fd: keepsock_fd,
    options: *const keepsock_options,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `fd` belongs to
    // the caller; `client` and `error` are NULL or writable.
    let (fd, options, client, error) = unsafe {
        (Adopted::new(fd), Ref::new(options), Out::new(client, "client"), ErrorOut::new(error))
    };
    create(client, error, "adopt", || {
        let options = options.or_default()?;
        let socket = fd.adopt(|owned| ClientSocket::from_owned(owned, &options))?;
        Ok(keepsock_client::own(socket))
    })
}
