//! How a `keepsock_datagram` is set, what is known of it, and its descriptor.

use std::ffi::c_char;
use std::net::{IpAddr, SocketAddr};

use super::address::{address, address_to_c, keepsock_address};
use super::client::{give_up, number, tuple_to_c};
use super::datagram::{check_size, keepsock_datagram, with};
use super::{
    KEEPSOCK_OK, Result, c_string, cancel, handle, keepsock_cancel, keepsock_error, keepsock_fd,
    keepsock_five_tuple, output, shield, timeout, write_sized,
};
use crate::{DatagramError, DatagramSocket};

/// An error that was reported for a datagram that the socket sent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_datagram_error {
    /// KEEPSOCK_OK: there is none. Else KEEPSOCK_ERR_REFUSED (nobody has the port, or the protocol,
    /// there), _UNREACHABLE, _TOO_LONG (for the way), _PERMISSION_DENIED (by a firewall), _OS.
    pub status: i32,
    /// The system's error number (errno), or 0.
    pub os_error: i32,
    /// Where the datagram had been sent to; family 0: not told.
    pub to: keepsock_address,
    /// The machine, or the router on the way, that reported it, with port 0; family 0: not told.
    pub from: keepsock_address,
    /// With KEEPSOCK_ERR_TOO_LONG: how long a packet on that way may be, its headers included; 0:
    /// not told.
    pub path_mtu: u32,
}

fn error_to_c(error: Option<&DatagramError>) -> keepsock_datagram_error {
    let by = error.and_then(|e| e.from).map(|ip| SocketAddr::new(ip, 0));
    keepsock_datagram_error {
        status: error.map_or(KEEPSOCK_OK, |e| e.kind.code()),
        os_error: error.and_then(|e| e.os_error).unwrap_or(0),
        to: address_to_c(error.and_then(|e| e.to.as_ref())),
        from: address_to_c(by.as_ref()),
        path_mtu: error.and_then(|e| e.path_mtu).unwrap_or(0),
    }
}

/// Whether datagrams may be sent to broadcast addresses; sending to one is
/// KEEPSOCK_ERR_PERMISSION_DENIED otherwise. Receiving needs nothing but a socket that is bound to
/// a wildcard. Default: no.
///
/// @param datagram  A socket.
/// @param on        Whether.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (Unix sockets), _CLOSED, _INVALID_ARGUMENT, _OS.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_broadcast(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "broadcast", |s| s.set_broadcast(on)) }
}

/// Joins a multicast group, to receive what is sent to it and to this socket's port. A second call
/// with another sender adds that one. The socket gets what it has joined, and not what others on
/// this machine have. Bind it to a wildcard, or to the group. Linux and FreeBSD.
///
/// @param datagram        A socket.
/// @param group           The group; its port does not count.
/// @param interface_name  The interface's name or index; NULL: by which there is a way to the
///                        group.
/// @param source          The only sender to receive from; NULL: all.
/// @param error           See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_ADDRESS_IN_USE (joined before), _INVALID_ENDPOINT (no such
///         interface, or no way to the group), _INVALID_ARGUMENT (no group, or families that do not
///         fit), _UNSUPPORTED, _CLOSED, _NO_MEMORY, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_join(
    datagram: *mut keepsock_datagram,
    group: *const keepsock_address,
    interface_name: *const c_char,
    source: *const keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "join";
    let body = |socket: &DatagramSocket| {
        // SAFETY: as the header asks.
        let (group, interface, source) =
            unsafe { membership(group, interface_name, source, OPERATION) }?;
        socket.join(group, interface, source)
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Leaves a group that was joined with the same arguments. Closing leaves all.
///
/// @param datagram        A socket.
/// @param group           The group.
/// @param interface_name  As it was joined.
/// @param source          As it was joined.
/// @param error           See keepsock_error; may be NULL.
/// @return Those of keepsock_datagram_join(), and KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE if it was not
///         joined. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_leave(
    datagram: *mut keepsock_datagram,
    group: *const keepsock_address,
    interface_name: *const c_char,
    source: *const keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "leave";
    let body = |socket: &DatagramSocket| {
        // SAFETY: as the header asks.
        let (group, interface, source) =
            unsafe { membership(group, interface_name, source, OPERATION) }?;
        socket.leave(group, interface, source)
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// # Safety
/// `group` and `source` are null or readable, `interface` is null or a NUL-terminated string.
unsafe fn membership<'a>(
    group: *const keepsock_address,
    interface: *const c_char,
    source: *const keepsock_address,
    operation: &'static str,
) -> Result<(IpAddr, Option<&'a str>, Option<IpAddr>)> {
    // SAFETY: as the caller promises.
    unsafe {
        let group = address(group, operation, "group")?.ip();
        let interface = match interface.is_null() {
            true => None,
            false => Some(super::text(interface, operation, "interface_name")?),
        };
        let source = match source.is_null() {
            true => None,
            false => Some(address(source, operation, "source")?.ip()),
        };
        Ok((group, interface, source))
    }
}

/// Whether what the socket sends to a group is received on this machine, too. Default: yes. Linux
/// and FreeBSD.
///
/// @param datagram  A socket.
/// @param on        Whether.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_multicast_loop(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "multicast", |s| s.set_multicast_loop(on)) }
}

/// How many networks what the socket sends to a group passes. Default: 1, the local network. Linux
/// and FreeBSD.
///
/// @param datagram  A socket.
/// @param ttl       0: none but this machine.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_multicast_ttl(
    datagram: *mut keepsock_datagram,
    ttl: u8,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "multicast", |s| s.set_multicast_ttl(ttl)) }
}

/// The interface that what the socket sends to a group leaves by. Default: as routed. Linux and
/// FreeBSD.
///
/// @param datagram        A socket.
/// @param interface_name  Its name or index.
/// @param error           See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT (there is none), _UNSUPPORTED, _CLOSED,
///         _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_multicast_interface(
    datagram: *mut keepsock_datagram,
    interface_name: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "multicast";
    let body = |socket: &DatagramSocket| {
        // SAFETY: a string as the header asks.
        socket.set_multicast_interface(unsafe {
            super::text(interface_name, OPERATION, "interface_name")
        }?)
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// How many routers what the socket sends may pass: TTL, or hop limit. Groups have their own.
/// Default: the system's, mostly 64.
///
/// @param datagram  A UDP socket.
/// @param ttl       Above 0.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (Unix sockets), _CLOSED, _INVALID_ARGUMENT, _OS.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_ttl(
    datagram: *mut keepsock_datagram,
    ttl: u8,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "TTL", |s| s.set_ttl(ttl)) }
}

/// The TOS byte (IPv4), or traffic class (IPv6), of what the socket sends: DSCP in the upper six
/// bits (RFC 2474), ECN in the lower two (RFC 3168). Default: 0.
///
/// @param datagram  A UDP socket.
/// @param tos       The byte.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (Unix sockets), _PERMISSION_DENIED, _CLOSED,
///         _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_tos(
    datagram: *mut keepsock_datagram,
    tos: u8,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "TOS", |s| s.set_tos(tos)) }
}

/// Whether what the socket sends may not be cut into fragments on its way, not by this machine
/// either: what is longer than the way takes fails with KEEPSOCK_ERR_TOO_LONG, at once or, if a
/// router tells of it later, for the next one; keepsock_datagram_recv_error() tells how long it may
/// be. Default: no. Linux only.
///
/// @param datagram  A UDP socket.
/// @param on        Whether.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_dont_fragment(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "fragments", |s| s.set_dont_fragment(on)) }
}

/// How long a packet to the peer of a connected socket may be, as far as the system knows: a
/// datagram that is 28 bytes shorter (IPv4), or 48 (IPv6), needs not be cut. Linux only.
///
/// @param datagram  A connected UDP socket.
/// @param mtu       Receives it, in bytes.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not connected), _UNSUPPORTED, _CLOSED,
///         _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_path_mtu(
    datagram: *mut keepsock_datagram,
    mtu: *mut u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "path MTU";
    let body = |socket: &DatagramSocket| {
        let out = output(mtu, OPERATION, "mtu")?;
        let mtu = socket.path_mtu()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(mtu) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Whether ttl, tos and received_at_ns of each datagram are told, and interface_index whatever the
/// socket is bound to; of Unix sockets received_at_ns and credentials. It costs a little for each.
/// Default: no. Linux only.
///
/// @param datagram  A socket.
/// @param on        Whether.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_details(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "details", |s| s.set_details(on)) }
}

/// What is known of a datagram socket at one moment. -1 is what the system does not tell. Memory is
/// the kernel's, which for small datagrams is several times their bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_datagram_stats {
    /// How many datagrams were lost here, since there was no room for them.
    pub dropped: i64,
    /// Bytes of memory that datagrams take which wait to be received.
    pub unread: i64,
    /// How many they may take.
    pub receive_buffer: i64,
    /// Bytes of memory that datagrams take which wait to be sent.
    pub unsent: i64,
    /// How many they may take.
    pub send_buffer: i64,
    /// How many datagrams were passed over since their sender is not one of the users that may
    /// send: keepsock_options_allow_user().
    pub denied: i64,
    /// How many errors were reported: keepsock_datagram_recv_error().
    pub errors: i64,
    /// As keepsock_datagram_path_mtu() tells it; -1 for a socket that is not connected, too.
    pub path_mtu: i64,
}

/// What is known of the socket now; after close, what was known then, if
/// keepsock_options_set_last_snapshot() was set.
///
/// @param datagram  A socket.
/// @param out       Filled in on success.
/// @param size      sizeof *out.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_snapshot(
    datagram: *const keepsock_datagram,
    out: *mut keepsock_datagram_stats,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "snapshot";
    let body = |socket: &DatagramSocket| {
        let told = |number: Option<u64>| number.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
        let known = socket.snapshot()?;
        let value = keepsock_datagram_stats {
            dropped: told(known.dropped),
            unread: told(known.unread),
            receive_buffer: told(known.receive_buffer),
            unsent: told(known.unsent),
            send_buffer: told(known.send_buffer),
            denied: told(Some(known.denied)),
            errors: told(Some(known.errors)),
            path_mtu: known.path_mtu.map_or(-1, i64::from),
        };
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Whether what ICMP says of datagrams that were sent is kept for
/// keepsock_datagram_recv_error(). A connected socket has it on, a bound one off: there the
/// kernel keeps such errors to itself unless it is asked (IP_RECVERR of ip(7)). Linux only.
///
/// @param datagram  A socket.
/// @param on        Whether.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_report_errors(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "error reports", |s| s.set_report_errors(on)) }
}

/// The oldest error that was reported for a datagram that the socket sent, and was not told yet.
/// It never waits. At most 64 are kept, then the oldest go.
///
/// @param datagram  A socket.
/// @param out       Filled in on success; its status is KEEPSOCK_OK if there is none.
/// @param size      sizeof *out.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED (and none is left of those that came before),
///         _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_recv_error(
    datagram: *mut keepsock_datagram,
    out: *mut keepsock_datagram_error,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "receive";
    let body = |socket: &DatagramSocket| {
        output(out, OPERATION, "out")?;
        // Before one is taken that could then not be told.
        check_size::<keepsock_datagram_error>(size, OPERATION)?;
        let value = error_to_c(socket.recv_error()?.as_ref());
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// How many errors were reported so far for datagrams that the socket sent, as far as calls have
/// met them.
///
/// @param datagram  A socket, or NULL: 0.
/// @return Their number. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_error_count(datagram: *const keepsock_datagram) -> u64 {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(datagram) }.map_or(0, |d| d.socket.error_count())
}

/// The local endpoint, with the port that the system chose: "127.0.0.1:40123". What was bound to
/// "*" is "*".
///
/// @param datagram  A socket, or NULL: "".
/// @return Text that lives as long as the object. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_endpoint(
    datagram: *const keepsock_datagram,
) -> *const c_char {
    // SAFETY: null, or live as the header asks.
    let Some(datagram) = (unsafe { handle::get(datagram) }) else {
        return c"".as_ptr();
    };
    let print = || datagram.endpoint.get_or_init(|| c_string(datagram.socket.endpoint())).as_ptr();
    shield(c"".as_ptr(), print)
}

/// The five-tuple as text: "udp 127.0.0.1:3337 -> 127.0.0.1:7788".
///
/// @param datagram  A socket, or NULL: "".
/// @return Text that lives as long as the object. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_name(
    datagram: *const keepsock_datagram,
) -> *const c_char {
    // SAFETY: null, or live as the header asks.
    let Some(datagram) = (unsafe { handle::get(datagram) }) else {
        return c"".as_ptr();
    };
    let print = || datagram.name.get_or_init(|| c_string(datagram.socket.five_tuple())).as_ptr();
    shield(c"".as_ptr(), print)
}

/// The local port; 0 for a Unix socket.
///
/// @param datagram  A socket, or NULL: 0.
/// @return The port. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_port(datagram: *const keepsock_datagram) -> u16 {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(datagram) }.map_or(0, |d| d.socket.port())
}

/// Protocol, local and remote address; after close, too. The remote address of a socket that is
/// not connected is the wildcard with port 0, of a Unix one unnamed.
///
/// @param datagram  A socket.
/// @param out       Filled in on success.
/// @param size      sizeof *out.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_five_tuple(
    datagram: *const keepsock_datagram,
    out: *mut keepsock_five_tuple,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "five-tuple";
    let body = |socket: &DatagramSocket| {
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &tuple_to_c(&socket.five_tuple()), OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Sets the time for each receiving call as a whole. Calls under way keep theirs.
///
/// @param datagram  A socket.
/// @param ms        Milliseconds above 0, or KEEPSOCK_INFINITE, which is the default.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_read_timeout(
    datagram: *mut keepsock_datagram,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "timeout";
    let body = |s: &DatagramSocket| s.set_read_timeout(timeout(ms, OPERATION)?);
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Sets the time for each sending call as a whole.
///
/// @param datagram  A socket.
/// @param ms        Milliseconds above 0, or KEEPSOCK_INFINITE, which is the default.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_write_timeout(
    datagram: *mut keepsock_datagram,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "timeout";
    let body = |s: &DatagramSocket| s.set_write_timeout(timeout(ms, OPERATION)?);
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// In non-blocking mode, calls that would wait return KEEPSOCK_ERR_WOULD_BLOCK instead. Calls
/// that wait already go on.
///
/// @param datagram  A socket.
/// @param on        true: non-blocking.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_nonblocking(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "non-blocking mode", |s| s.set_nonblocking(on)) }
}

/// Gives the socket a token that ends its calls, or takes it off. Calls under way are not
/// affected.
///
/// @param datagram  A socket.
/// @param cancel    A token, shared from then on; NULL takes it off.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_cancel(
    datagram: *mut keepsock_datagram,
    cancel: *const keepsock_cancel,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |socket: &DatagramSocket| {
        // SAFETY: null, or a live token as the header asks.
        socket.set_cancel(unsafe { cancel::token(cancel, "cancel") }?);
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "cancel", body) }
}

/// Borrows the descriptor, for an event loop or an option that keepsock does not know. It is
/// open until the socket is closed; do not close it.
///
/// @param datagram  A socket.
/// @param fd        Receives it.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_fd(
    datagram: *const keepsock_datagram,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "borrow";
    let body = |socket: &DatagramSocket| {
        let fd = output(fd, OPERATION, "fd")?;
        let borrowed = socket.borrow()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { fd.write(number(&borrowed)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Gives the descriptor up: it is the caller's to close. The object is then closed, and still to
/// be freed. A Unix socket's file stays.
///
/// @param datagram  A socket.
/// @param fd        Receives the descriptor.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _WRONG_STATE while another
///         thread is in a call, and while datagrams wait in it that may have come as one
///         (keepsock_options_set_coalescing()): receive them first. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_release_fd(
    datagram: *mut keepsock_datagram,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "release";
    let body = |socket: &DatagramSocket| {
        let fd = output(fd, OPERATION, "fd")?;
        let number = give_up(socket.release()?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { fd.write(number) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}
