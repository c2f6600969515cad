//! Addresses and statistics of a `keepsock_datagram`.

use std::ffi::c_char;

use crate::ffi::{
    ErrorOut, Ref, Structure, TextOut, fill, keepsock_datagram, keepsock_error,
    keepsock_five_tuple, tuple_to_c, versioned, with,
};

/// A snapshot of a datagram socket's statistics.
///
/// A member is -1 if the system does not report it. Memory is kernel memory, which for small
/// datagrams is several times their length.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_datagram_stats {
    /// Received datagrams that were lost because the receive buffer was full.
    pub dropped: i64,
    /// Memory of datagrams that wait to be received, in bytes.
    pub unread: i64,
    /// The size of the receive buffer in bytes (SO_RCVBUF).
    pub receive_buffer: i64,
    /// Memory of datagrams that wait to be sent, in bytes.
    pub unsent: i64,
    /// The size of the send buffer in bytes (SO_SNDBUF).
    pub send_buffer: i64,
    /// Datagrams that were skipped because their sender is not an allowed user.
    pub denied: i64,
    /// Errors that the network reported: keepsock_datagram_recv_error().
    pub errors: i64,
    /// The path MTU to the peer of a connected UDP socket, in bytes with headers, as far as the kernel
    /// knows it (IP_MTU). A datagram that is 28 bytes shorter (IPv4) or 48 bytes shorter (IPv6) needs
    /// no fragments. -1: unknown, or the socket is not connected. Linux and
    /// Windows.
    pub path_mtu: i64,
    /// Pauses of keepsock_datagram_serve() after a temporary error.
    pub retried: i64,
    /// Datagrams that keepsock_datagram_serve() passed to handlers.
    pub served: i64,
}

versioned!(keepsock_datagram_stats: 80);

/// Returns a snapshot of the socket's statistics.
///
/// After close with keepsock_options_set_keep_stats(), it is the snapshot of the time of close.
///
/// @param out  Receives the statistics.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the socket is closed and has no last snapshot
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_get_stats(
    datagram: *const keepsock_datagram,
    out: *mut keepsock_datagram_stats,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (datagram, out, error) =
        unsafe { (Ref::new(datagram), Structure::new(out, size), ErrorOut::new(error)) };
    fill(datagram, out, error, "statistics", |socket| {
        let or_unknown =
            |number: Option<u64>| number.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
        let known = socket.stats()?;
        Ok(keepsock_datagram_stats {
            dropped: or_unknown(known.dropped),
            unread: or_unknown(known.unread),
            receive_buffer: or_unknown(known.receive_buffer),
            unsent: or_unknown(known.unsent),
            send_buffer: or_unknown(known.send_buffer),
            denied: or_unknown(Some(known.denied)),
            errors: or_unknown(Some(known.errors)),
            path_mtu: known.path_mtu.map_or(-1, i64::from),
            retried: or_unknown(Some(known.retried)),
            served: or_unknown(Some(known.served)),
        })
    })
}

/// Returns the local endpoint, with the port that the kernel chose: "127.0.0.1:40123", or "*:40123"
/// for a socket that is bound to "*".
///
/// @param buf            Receives the text.
/// @param cap            The size of `buf`.
/// @param required_size  Receives the size that the text needs.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small; `buf` is unchanged
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_endpoint(
    datagram: *const keepsock_datagram,
    buf: *mut c_char,
    cap: usize,
    required_size: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `buf` has `cap`
    // writable bytes; `required_size` and `error` are NULL or writable.
    let (datagram, text, error) = unsafe {
        (Ref::new(datagram), TextOut::new(buf, cap, required_size), ErrorOut::new(error))
    };
    with(datagram, error, "endpoint", |socket| text.write(socket.endpoint()))
}

/// Returns the protocol, the addresses and the ports (getsockname(2), getpeername(2)).
///
/// They stay readable after close. The remote address of a socket that is not connected is the
/// wildcard address with port 0, or no name for a Unix socket.
///
/// @param out  Receives the five-tuple.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_five_tuple(
    datagram: *const keepsock_datagram,
    out: *mut keepsock_five_tuple,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (datagram, out, error) =
        unsafe { (Ref::new(datagram), Structure::new(out, size), ErrorOut::new(error)) };
    fill(datagram, out, error, "five-tuple", |socket| Ok(tuple_to_c(&socket.five_tuple())))
}
