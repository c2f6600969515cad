//! Errors that the network reports for sent datagrams.

use std::net::SocketAddr;

use crate::DatagramError;
use crate::ffi::{
    ErrorOut, Ref, Structure, address_to_c, fill, keepsock_address, keepsock_datagram,
    keepsock_error, not_found, versioned, with,
};

/// An error that the network reported for a datagram that the socket sent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_datagram_error {
    /// KEEPSOCK_ERR_REFUSED: no socket has the port. KEEPSOCK_ERR_UNREACHABLE: a router or firewall
    /// reported that the peer cannot be reached. KEEPSOCK_ERR_TOO_LONG: longer than the path MTU.
    /// KEEPSOCK_ERR_OS: another error.
    pub status: i32,
    /// The system's error number (errno), or 0.
    pub os_error: i32,
    /// The destination of the datagram. Family 0: unknown.
    pub to: keepsock_address,
    /// The host or router that reported the error, with port 0. Family 0: unknown.
    pub from: keepsock_address,
    /// With KEEPSOCK_ERR_TOO_LONG: the path MTU in bytes, including headers. 0: unknown.
    pub path_mtu: u32,
}

versioned!(keepsock_datagram_error: 60);

fn error_to_c(error: &DatagramError) -> keepsock_datagram_error {
    let from = error.from.map(|ip| SocketAddr::new(ip, 0));
    keepsock_datagram_error {
        status: error.kind.code(),
        os_error: error.os_error.unwrap_or(0),
        to: address_to_c(error.to.as_ref()),
        from: address_to_c(from.as_ref()),
        path_mtu: error.path_mtu.unwrap_or(0),
    }
}

/// Sets whether the error queue keeps ICMP errors (IP_RECVERR of ip(7), MSG_ERRQUEUE).
///
/// keepsock_datagram_recv_error() returns them. Default: true for a connected socket, false for a
/// bound socket, for which the kernel does not report such errors otherwise. Linux, and
/// Windows, where a receive finds the errors.
///
/// @param datagram  A UDP socket.
/// @param on        true to keep errors.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or not Linux or Windows
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_recv_errors(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "error queue", |socket| socket.set_recv_errors(on))
}

/// Sets whether a receive fails when the peer refuses a datagram (ECONNREFUSED).
///
/// With true, a receive on a connected UDP socket returns KEEPSOCK_ERR_REFUSED as soon as the peer's
/// host reports that no socket has the peer's port (ICMP port unreachable), as plain connected
/// sockets do. A receive that waits ends immediately. Reports that arrive before a receive end it
/// together; on Windows each report ends one receive. Sending and keepsock_datagram_serve()
/// continue. A receive that waits then makes two system calls. Default: false.
///
/// @param datagram  A connected UDP socket.
/// @param on        true to fail.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is not connected
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_fail_on_refused(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "fail_on_refused", |socket| socket.set_fail_on_refused(on))
}

/// Returns the oldest error of the error queue, and removes it from the queue.
///
/// It never waits. The queue has at most 64 errors; the library discards older ones.
///
/// @param out  Receives the error.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: the queue is empty
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket, and the queue is empty
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_recv_error(
    datagram: *mut keepsock_datagram,
    out: *mut keepsock_datagram_error,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (datagram, out, error) =
        unsafe { (Ref::new(datagram), Structure::new(out, size), ErrorOut::new(error)) };
    // `fill` checks the structure before an error is taken from the queue.
    fill(datagram, out, error, "receive", |socket| {
        let error = socket.recv_error()?;
        error.as_ref().map(error_to_c).ok_or_else(|| not_found("the error queue is empty"))
    })
}
