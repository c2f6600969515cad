//! Broadcast and multicast of a `keepsock_datagram`.

use std::ffi::c_char;

use crate::ffi::{
    AddressIn, ErrorOut, Ref, Text, keepsock_address, keepsock_datagram, keepsock_error, with,
};

/// Sets whether datagrams may be sent to broadcast addresses (SO_BROADCAST).
///
/// With false, sending to a broadcast address returns KEEPSOCK_ERR_PERMISSION_DENIED. To receive
/// broadcasts, bind the socket to a wildcard address. Default: false.
///
/// @param datagram  A UDP socket.
/// @param on        true to allow broadcasts.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_broadcast(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "broadcast", |socket| socket.set_broadcast(on))
}

/// Joins a multicast group (IP_ADD_MEMBERSHIP, IP_ADD_SOURCE_MEMBERSHIP, IPV6_JOIN_GROUP).
///
/// The socket receives the datagrams that are sent to the group and to its port, and not those of
/// groups that only other sockets of this machine have joined. A second call with another `source`
/// adds that source. Bind the socket to a wildcard address or to the group. Linux, macOS and
/// FreeBSD.
///
/// @param datagram        A UDP socket.
/// @param group           The group. The port is ignored.
/// @param interface_name  The name or the index of the interface. NULL uses the route to the group.
/// @param source          The only sender to receive from. NULL receives from all senders.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the socket has already joined the group
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface does not exist, or there is no route to the
///     group
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, not a multicast address, or the address families differ
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_join_multicast(
    datagram: *mut keepsock_datagram,
    group: *const keepsock_address,
    interface_name: *const c_char,
    source: *const keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `group` is NULL
    // or readable; `interface_name` is NULL or ends with NUL; `source` is NULL or readable; `error`
    // is NULL or writable.
    let (datagram, group, interface_name, source, error) = unsafe {
        (
            Ref::new(datagram),
            AddressIn::new(group, "group"),
            Text::new(interface_name, "interface_name"),
            AddressIn::new(source, "source"),
            ErrorOut::new(error),
        )
    };
    with(datagram, error, "join", |socket| {
        let (group, source) = (group.get()?.ip(), source.optional()?.map(|s| s.ip()));
        socket.join_multicast(group, interface_name.optional()?, source)
    })
}

/// Leaves a multicast group (IP_DROP_MEMBERSHIP, IPV6_LEAVE_GROUP).
///
/// Pass the arguments of keepsock_datagram_join_multicast(). Closing the socket leaves all groups.
///
/// @param datagram        A UDP socket.
/// @param group           The group. The port is ignored.
/// @param interface_name  The interface that was passed when joining.
/// @param source          The sender that was passed when joining.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the socket has not joined the group
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface does not exist, or there is no route to the
///     group
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, not a multicast address, or the address families differ
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_leave_multicast(
    datagram: *mut keepsock_datagram,
    group: *const keepsock_address,
    interface_name: *const c_char,
    source: *const keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `group` is NULL
    // or readable; `interface_name` is NULL or ends with NUL; `source` is NULL or readable; `error`
    // is NULL or writable.
    let (datagram, group, interface_name, source, error) = unsafe {
        (
            Ref::new(datagram),
            AddressIn::new(group, "group"),
            Text::new(interface_name, "interface_name"),
            AddressIn::new(source, "source"),
            ErrorOut::new(error),
        )
    };
    with(datagram, error, "leave", |socket| {
        let (group, source) = (group.get()?.ip(), source.optional()?.map(|s| s.ip()));
        socket.leave_multicast(group, interface_name.optional()?, source)
    })
}

/// Sets whether this machine receives the multicast datagrams that the socket sends
/// (IP_MULTICAST_LOOP).
///
/// Default: true. Linux, macOS and FreeBSD.
///
/// @param datagram  A UDP socket.
/// @param on        true to receive them.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_multicast_loop(
    datagram: *mut keepsock_datagram,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "multicast", |socket| socket.set_multicast_loop(on))
}

/// Sets the TTL of multicast datagrams (IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS).
///
/// Default: 1, the local network. Linux, macOS and FreeBSD.
///
/// @param datagram  A UDP socket.
/// @param ttl       0 to 255. 0 does not leave this machine.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_multicast_ttl(
    datagram: *mut keepsock_datagram,
    ttl: u8,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call, and `error` is
    // NULL or writable.
    let (datagram, error) = unsafe { (Ref::new(datagram), ErrorOut::new(error)) };
    with(datagram, error, "multicast", |socket| socket.set_multicast_ttl(ttl))
}

/// Sets the interface for sending multicast datagrams (IP_MULTICAST_IF, IPV6_MULTICAST_IF).
///
/// Default: the route to the group decides. Linux, macOS and FreeBSD.
///
/// @param datagram        A UDP socket.
/// @param interface_name  The name or the index of the interface.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface does not exist
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_set_multicast_interface(
    datagram: *mut keepsock_datagram,
    interface_name: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `interface_name`
    // is NULL or ends with NUL; `error` is NULL or writable.
    let (datagram, interface_name, error) = unsafe {
        (Ref::new(datagram), Text::new(interface_name, "interface_name"), ErrorOut::new(error))
    };
    with(datagram, error, "multicast", |socket| {
        socket.set_multicast_interface(interface_name.get()?)
    })
}
