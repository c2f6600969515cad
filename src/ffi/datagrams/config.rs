//! Options of an open `keepsock_datagram`, and its descriptor.

use crate::ffi::{
    ErrorOut, Handle, Out, Ref, fd_of_socket, into_fd, keepsock_cancel_token, keepsock_datagram,
    keepsock_error, keepsock_fd, sockopt, timeout, with,
};

/// Sets the TTL (IPv4) or the hop limit (IPv6) for unicast datagrams (IP_TTL, IPV6_UNICAST_HOPS).
///
/// Default: that of the system, usually 64.
///
/// @param datagram  A UDP socket.
/// @param ttl       1 to 255.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `ttl` is 0
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_ttl(
    datagram: *mut keepsock_datagram,
    ttl: u8,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "TTL", |socket| socket.set_ttl(ttl))
}

/// Sets the TOS byte (IPv4) or the traffic class (IPv6) for datagrams (IP_TOS, IPV6_TCLASS).
///
/// The upper six bits are the DSCP (RFC 2474), the lower two are ECN (RFC 3168). Default: 0.
///
/// @param datagram  A UDP socket.
/// @param tos       The byte.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set this priority
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_tos(
    datagram: *mut keepsock_datagram,
    tos: u8,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "TOS", |socket| socket.set_tos(tos))
}

/// Sets whether routers and this machine must not fragment datagrams (IP_MTU_DISCOVER,
/// IP_DONTFRAG).
///
/// Sending a datagram that is longer than the path MTU returns KEEPSOCK_ERR_TOO_LONG: immediately,
/// or for the next datagram if a router reports it later. keepsock_datagram_recv_error() returns
/// the path MTU. Default: false. Linux, Windows, macOS and FreeBSD; on the last two not for a socket
/// that has both IP versions.
///
/// @param datagram  A UDP socket.
/// @param on        true to forbid fragments.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or not Linux, macOS, FreeBSD or Windows
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_dont_fragment(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "dont_fragment", |socket| socket.set_dont_fragment(on))
}

/// Sets whether received datagrams have additional metadata (IP_RECVTTL, IP_RECVTOS,
/// SO_TIMESTAMPNS).
///
/// UDP: the members ttl, tos and received_at_ns of keepsock_datagram_info, and interface_index for
/// every kind of local address. Unix sockets: received_at_ns and credentials. It adds a small cost
/// for each datagram. Default: false. macOS and FreeBSD: UDP only, ttl and tos of IPv4 only on a
/// socket for IPv4. Windows: UDP only, without the time.
///
/// @param on  true to receive metadata.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: not Linux, macOS, FreeBSD or Windows; a Unix socket and not
///     Linux
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_recv_metadata(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "receive metadata", |socket| socket.set_recv_metadata(on))
}

/// Sets an option of the operating system on an open socket (setsockopt(2)).
///
/// For the sizes of the buffers, tos, mark and priority; on a Unix socket for send_buffer. If the
/// call fails, the socket is unchanged.
///
/// @param option  A keepsock_sockopt.
/// @param value   The value. An option that is off or on has 0 or 1.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `option` is not a keepsock_sockopt, `value` is out of
///     its range, or the option has no effect on an open socket
///   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set it
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_sockopt(
    datagram: *mut keepsock_datagram,
    option: i32,
    value: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "sockopt", |socket| socket.set_sockopt(sockopt(option)?, value))
}

/// Returns the value of an option of the operating system that the kernel uses (getsockopt(2)).
///
/// @param option  A keepsock_sockopt.
/// @param value   Receives the value. Linux returns twice the size of a buffer that was set.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `option` is not a keepsock_sockopt
///   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_sockopt(
    datagram: *const keepsock_datagram,
    option: i32,
    value: *mut u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `value` and
    // `error` are NULL or writable.
    let (datagram, value, error) =
        unsafe { (Ref::new(datagram), Out::new(value, "value"), ErrorOut::new(error)) };
    with(datagram, error, "sockopt", |socket| {
        let value = value.required()?;
        value.write(socket.sockopt(sockopt(option)?)?);
        Ok(())
    })
}

/// Sets the read timeout: the time that each receiving call may take as a whole (SO_RCVTIMEO).
///
/// Calls in progress keep their timeout. On Linux a receive with a timeout of 50 ms or more is one
/// system call if a datagram arrives in seven eighths of the time; a receive that times out polls
/// as well. A receive with a cancel token is two system calls. A socket that was adopted or that
/// may be handed over is as one with a token. Default: KEEPSOCK_INFINITE.
///
/// @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_UNSUPPORTED: the kernel has no such timeout for this kind of socket
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_read_timeout(
    datagram: *mut keepsock_datagram,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "read timeout", |socket| {
        socket.set_read_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Sets the write timeout: the time that each sending call may take as a whole (SO_SNDTIMEO).
///
/// Calls in progress keep their timeout. Default: KEEPSOCK_INFINITE.
///
/// @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_write_timeout(
    datagram: *mut keepsock_datagram,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "write timeout", |socket| {
        socket.set_write_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Turns non-blocking mode on or off (O_NONBLOCK).
///
/// In non-blocking mode, calls that would wait return KEEPSOCK_ERR_WOULD_BLOCK. Calls that already
/// wait continue.
///
/// @param on  true for non-blocking mode.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: the descriptor cannot become non-blocking
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_nonblocking(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "non-blocking mode", |socket| socket.set_nonblocking(on))
}

/// Sets the cancel token of a socket. Calls in progress keep the previous token. Set the token
/// before keepsock_datagram_serve(), or after the service has ended.
///
/// @param cancel  A token, which the socket shares from now on. NULL removes the token.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: a service of this process uses the socket
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `datagram` is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_cancel(
    datagram: *mut keepsock_datagram,
    cancel: *const keepsock_cancel_token,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` or `cancel` during the call, and
    // `error` is NULL or writable.
    let (datagram, cancel, error) =
        unsafe { (Ref::new(datagram), Ref::new(cancel), ErrorOut::new(error)) };
    with(datagram, error, "cancel", |socket| {
        socket.set_cancel(cancel.optional()?.map(Handle::target))
    })
}

/// Borrows the descriptor, for poll(2), epoll(7) or setsockopt(2). Do not close it.
///
/// Do not set options that add control messages (SO_PASSSEC, SO_TIMESTAMP) on a Unix socket with
/// allowed users: they use the buffer of the credentials, and the library rejects datagrams without
/// credentials.
///
/// @param fd  Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_fd(
    datagram: *const keepsock_datagram,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `fd` and
    // `error` are NULL or writable.
    let (datagram, fd, error) =
        unsafe { (Ref::new(datagram), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with(datagram, error, "descriptor", |socket| {
        let out = fd.required()?;
        out.write(fd_of_socket(&socket.borrow()?));
        Ok(())
    })
}

/// Releases the descriptor: the caller owns and closes it.
///
/// The object is then closed and must still be freed. A Unix socket's file stays. The descriptor
/// is in blocking mode unless keepsock_datagram_set_nonblocking() was last called with true. It
/// has no SO_RCVTIMEO and SO_SNDTIMEO. Other options stay as they are: SO_PASSCRED and
/// SO_TIMESTAMPNS after keepsock_datagram_set_recv_metadata() or
/// keepsock_options_add_allowed_uid(), and IP_RECVERR and IP_PKTINFO of UDP.
///
/// @param fd  Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: another thread is inside a call; a service uses the socket; or
///     coalesced datagrams are left (keepsock_options_set_udp_gro()); receive them first
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_release_fd(
    datagram: *mut keepsock_datagram,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `fd` and
    // `error` are NULL or writable.
    let (datagram, fd, error) =
        unsafe { (Ref::new(datagram), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with(datagram, error, "release", |socket| {
        let out = fd.required()?;
        out.write(into_fd(socket.release()?));
        Ok(())
    })
}
