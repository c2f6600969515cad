//! Sending datagrams.

use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::ffi::{
    Array, Bytes, ErrorOut, Items, Optional, Ref, Result, Text, UNIX, address_from_c, invalid,
    keepsock_address, keepsock_datagram, keepsock_datagram_info, keepsock_error, keepsock_fd, null,
    sender, versioned, with, with_frequent,
};
use crate::internal::Parts;
use crate::{Address, Outgoing};

/// An item of keepsock_datagram_send_batch(): a datagram. Set unused members to 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_send_item {
    /// The bytes; may be NULL if len is 0.
    pub buf: *const c_void,
    /// The number of bytes. 0 sends an empty datagram.
    pub len: usize,
    /// The received datagram that this datagram replies to. The library then ignores `to`, `local`
    /// and `interface_index`. NULL: not a reply.
    pub reply_to: *const keepsock_datagram_info,
    /// The destination. Family 0: the peer of a connected socket.
    pub to: keepsock_address,
    /// The source address, if the socket is bound to a wildcard address. A socket with an address of
    /// its own accepts only that address. Family 0: the kernel chooses the source address. The port
    /// has no effect.
    pub local: keepsock_address,
    /// The index of an existing interface, if the addresses need one. Otherwise 0.
    pub interface_index: u32,
    /// Must be 0.
    pub reserved: u32,
}

versioned!(keepsock_send_item: 80);

/// The received datagram that a datagram replies to. The booleans of the structure may have any
/// value, so this is a pointer and not a reference.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ReplyTo<'a>(NonNull<keepsock_datagram_info>, PhantomData<&'a keepsock_datagram_info>);

impl ReplyTo<'_> {
    /// `None` for NULL.
    ///
    /// # Safety
    /// `info` is NULL, or it is readable during the call.
    #[inline]
    unsafe fn new(info: *const keepsock_datagram_info) -> Option<Self> {
        NonNull::new(info.cast_mut()).map(|info| ReplyTo(info, PhantomData))
    }

    fn local(self) -> keepsock_address {
        // SAFETY: `new` requires a readable structure. Every value of an address is valid.
        unsafe { (&raw const (*self.0.as_ptr()).local).read() }
    }

    fn interface_index(self) -> u32 {
        // SAFETY: `new` requires a readable structure. Every value of a number is valid.
        unsafe { (&raw const (*self.0.as_ptr()).interface_index).read() }
    }

    fn from(self) -> keepsock_address {
        // SAFETY: `new` requires a readable structure. Every value of an address is valid.
        unsafe { (&raw const (*self.0.as_ptr()).from).read() }
    }

    fn reply(self, bytes: &[u8]) -> Result<Outgoing<'_>> {
        // SAFETY: `new` requires a readable structure.
        let mut one = Outgoing::to(bytes, unsafe { sender(self.0.as_ptr(), "reply_to") }?);
        one.local = address_from_c(&self.local())?;
        one.interface = Some(self.interface_index()).filter(|index| *index != 0);
        Ok(one)
    }

    /// Whether the replies to both datagrams differ only in their bytes.
    fn is_replied_alike(self, other: Self) -> bool {
        self == other
            || self.from().family != UNIX
                && self.interface_index() == other.interface_index()
                && same_address(&self.from(), &other.from())
                && same_address(&self.local(), &other.local())
    }
}

/// Sends one datagram to the peer of a connected socket (send(2)).
///
/// The call waits only while the send buffer or a Unix peer's queue is full. ICMP errors of earlier
/// datagrams do not fail the call: see keepsock_datagram_recv_error(). A datagram has at most
/// 65,507 bytes over IPv4 and 65,527 bytes over IPv6.
///
/// @param datagram  A connected socket.
/// @param buf       The bytes.
/// @param len       The number of bytes. 0 sends an empty datagram.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is not connected
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
///   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
///   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
///   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the destination
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
///     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `len` is out of range
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send(
    datagram: *mut keepsock_datagram,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `buf` has `len`
    // readable bytes; `error` is NULL or writable.
    let (datagram, buf, error) =
        unsafe { (Ref::new(datagram), Bytes::new(buf, len), ErrorOut::new(error)) };
    with_frequent(datagram, error, "send", |socket| Ok(socket.send(buf.get()?)?))
}

/// Sends one datagram to an endpoint: a numeric address or a Unix socket (sendto(2)).
///
/// To send to a keepsock_address, use keepsock_datagram_send_batch(), or keepsock_datagram_reply()
/// if the address is that of a received datagram. To send to a host name, use
/// keepsock_datagram_connect(): the name is then looked up once.
///
/// @code
/// keepsock_datagram_send_to(datagram, "192.0.2.1:514", "hello", 5, NULL);
/// @endcode
///
/// @param endpoint  The destination: "192.0.2.1:80", "unix:/run/app.sock", "unix:@name".
/// @param buf       The bytes.
/// @param len       The number of bytes. 0 sends an empty datagram.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected to another address
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, is a host name, is no destination
///     ("*", 0.0.0.0, [::], port 0), or is a link-local address without a zone
///   - KEEPSOCK_ERR_NOT_FOUND: the Unix socket does not exist
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
///   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
///   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
///   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the destination
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
///     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or an address family that the socket does
///     not have
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send_to(
    datagram: *mut keepsock_datagram,
    endpoint: *const c_char,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `endpoint` is
    // NULL or ends with NUL; `buf` has `len` readable bytes; `error` is NULL or writable.
    let (datagram, endpoint, buf, error) = unsafe {
        (
            Ref::new(datagram),
            Text::new(endpoint, "endpoint"),
            Bytes::new(buf, len),
            ErrorOut::new(error),
        )
    };
    with(datagram, error, "send", |socket| {
        let to = endpoint.address()?.ok_or_else(|| null("endpoint"))?;
        socket.send_to(buf.get()?, to)
    })
}

/// Replies to a datagram: sends to its sender, from the address that the datagram was sent to.
///
/// On a machine with several addresses the sender expects the reply from that address.
///
/// @code
/// char buf[1500];
/// keepsock_datagram_info info;
/// while (keepsock_datagram_recv(datagram, buf, sizeof buf, &info, sizeof info, NULL)
///        == KEEPSOCK_OK)
///     keepsock_datagram_reply(datagram, &info, buf, info.len, NULL);
/// @endcode
///
/// @param datagram  The socket that received the datagram.
/// @param reply_to  The received datagram, from keepsock_datagram_recv() or a handler.
/// @param buf       The bytes.
/// @param len       The number of bytes. 0 sends an empty datagram.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected to another address
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the sender has port 0 or a link-local address without a zone
///   - KEEPSOCK_ERR_NOT_FOUND: the sender's Unix socket does not exist
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
///   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
///   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
///   - KEEPSOCK_ERR_UNREACHABLE: there is no route, or the local address is not of this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
///     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, an address family that the socket does not
///     have, a sender without a name, or a source address or interface that the socket cannot use
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_reply(
    datagram: *mut keepsock_datagram,
    reply_to: *const keepsock_datagram_info,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `reply_to` is
    // NULL or readable; `buf` has `len` readable bytes; `error` is NULL or writable.
    let (datagram, reply_to, buf, error) = unsafe {
        (Ref::new(datagram), ReplyTo::new(reply_to), Bytes::new(buf, len), ErrorOut::new(error))
    };
    with_frequent(datagram, error, "send", |socket| {
        let reply_to = reply_to.ok_or_else(|| null("reply_to"))?;
        Ok(socket.send_one(&reply_to.reply(buf.get()?)?)?)
    })
}

/// Sends one datagram with descriptors (SCM_RIGHTS). Unix sockets only.
///
/// The descriptors may be files, pipes or sockets (keepsock_client_fd(), keepsock_server_fd()).
/// The receiver gets its own copies; the caller keeps and closes the descriptors.
///
/// @param datagram   A Unix socket.
/// @param endpoint   The destination: "unix:/run/app.sock", "unix:@name". NULL sends to the peer
///                   of a connected socket.
/// @param buf        The bytes.
/// @param len        The number of bytes. 0 sends an empty datagram.
/// @param fds        The descriptors.
/// @param fds_count  The number of descriptors, at most 253 (SCM_MAX_FD of unix(7)).
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected to another address, or `endpoint` is
///     NULL and the socket is not connected
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse
///   - KEEPSOCK_ERR_NOT_FOUND: the Unix socket does not exist
///   - KEEPSOCK_ERR_UNSUPPORTED: a UDP socket, or Windows
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
///   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
///   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
///   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the destination
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
///     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: too many descriptors are in transit, or RLIMIT_NOFILE is too
///     low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `fds_count` is out of range, a descriptor is negative,
///     or `endpoint` is not a Unix endpoint
///   - KEEPSOCK_ERR_OS: a descriptor is closed (EBADF), or another error of the system
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send_fds(
    datagram: *mut keepsock_datagram,
    endpoint: *const c_char,
    buf: *const c_void,
    len: usize,
    fds: *const keepsock_fd,
    fds_count: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `endpoint` is
    // NULL or ends with NUL; `buf` has `len` readable bytes; `fds` has `fds_count` valid elements;
    // `error` is NULL or writable.
    let (datagram, endpoint, buf, fds, error) = unsafe {
        (
            Ref::new(datagram),
            Text::new(endpoint, "endpoint"),
            Bytes::new(buf, len),
            Array::new(fds, fds_count, "fds"),
            ErrorOut::new(error),
        )
    };
    with(datagram, error, "send", |socket| {
        let to = endpoint.address()?;
        socket.send_with_descriptors(buf.get()?, to.as_ref(), &fds.descriptors()?)
    })
}

/// Sends several datagrams in order (sendmmsg(2), UDP_SEGMENT).
///
/// On Linux one system call sends up to 64 datagrams, and the kernel handles consecutive datagrams
/// of equal length to one address as one (GSO), as Windows 10 2004 does. Otherwise the library sends
/// them one by one.
/// One write timeout covers the whole call.
///
/// @code
/// keepsock_send_item items[2] = {{.buf = "one", .len = 3}, {.buf = "two", .len = 3}};
/// size_t sent = 0;
/// for (int i = 0; i < 2; i++)
///     keepsock_address_parse("192.0.2.1:514", &items[i].to, NULL);
/// if (keepsock_datagram_send_batch(datagram, items, 2, sizeof items[0], &sent, NULL)
///     == KEEPSOCK_OK)
///     printf("%d datagrams were sent\n", (int)sent);
/// @endcode
///
/// @param items  An array of datagrams.
/// @param count  The number of datagrams.
/// @param size   sizeof *items.
/// @param sent   Receives the number of sent datagrams. If it is less than `count`, send the rest
///               again: that call returns the error.
/// @return KEEPSOCK_OK if at least one datagram was sent or `count` is 0, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected to another address, or is not connected
///     and the datagram has no destination
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: no destination (0.0.0.0, [::], port 0), a link-local address
///     without a zone, or the interface of its zone does not exist
///   - KEEPSOCK_ERR_NOT_FOUND: the Unix socket does not exist
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket
///   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
///   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
///   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
///   - KEEPSOCK_ERR_UNREACHABLE: there is no route, or the local address is not of this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
///     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_UNSUPPORTED: the kernel lacks the system call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, an address family that the socket does not
///     have, a sender without a name, or a source address or interface that the socket cannot use.
///     The message has the index of the datagram
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send_batch(
    datagram: *mut keepsock_datagram,
    items: *const keepsock_send_item,
    count: usize,
    size: usize,
    sent: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `items` has
    // `count` items of `size` bytes, whose buffers have the length that they state; `sent` and
    // `error` are NULL or writable. The function does not write the items.
    let (datagram, items, sent, error) = unsafe {
        (
            Ref::new(datagram),
            Items::new(items.cast_mut(), count, size),
            Optional::new(sent),
            ErrorOut::new(error),
        )
    };
    with(datagram, error, "send", |socket| {
        sent.write(socket.send_parts(&items.required()?)?);
        Ok(())
    })
}

impl Items<'_, keepsock_send_item> {
    /// The item, which the function only reads.
    #[inline(always)]
    fn get(&self, at: usize) -> &keepsock_send_item {
        // SAFETY: `Items::new` requires readable items of at least this size, which nothing changes
        // during the call. Every value of a member is valid.
        unsafe { &*self.item(at) }
    }

    #[inline(always)]
    fn reply_to(&self, item: &keepsock_send_item) -> Option<ReplyTo<'_>> {
        // SAFETY: `Items::new` requires that `reply_to` of an item is NULL or readable.
        unsafe { ReplyTo::new(item.reply_to) }
    }

    /// Whether both datagrams are sent to the same address in the same way.
    #[inline(never)]
    fn go_alike(&self, a: &keepsock_send_item, b: &keepsock_send_item) -> bool {
        match (self.reply_to(a), self.reply_to(b)) {
            (None, None) => {
                a.interface_index == b.interface_index
                    && a.reserved == b.reserved
                    && same_address(&a.to, &b.to)
                    && same_address(&a.local, &b.local)
            }
            (Some(x), Some(y)) => a.reserved == b.reserved && x.is_replied_alike(y),
            _ => false,
        }
    }
}

impl Parts for Items<'_, keepsock_send_item> {
    fn count(&self) -> usize {
        self.len()
    }

    fn bytes(&self, at: usize) -> Result<&[u8]> {
        let item = self.get(at);
        // SAFETY: `Items::new` requires that `buf` of an item has `len` readable bytes.
        unsafe { Bytes::new(item.buf, item.len) }.get()
    }

    #[inline(always)]
    fn are_alike(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.get(a), self.get(b));
        (goes_to_peer(a) && goes_to_peer(b)) || self.go_alike(a, b)
    }

    fn outgoing(&self, at: usize) -> Result<Outgoing<'_>> {
        let item = self.get(at);
        if item.reserved != 0 {
            return Err(invalid("reserved is not 0"));
        }
        if let Some(reply_to) = self.reply_to(item) {
            return reply_to.reply(self.bytes(at)?);
        }
        let mut one = Outgoing::new(self.bytes(at)?);
        one.to = address_from_c(&item.to)?.map(Address::Inet);
        one.local = address_from_c(&item.local)?;
        one.interface = (item.interface_index != 0).then_some(item.interface_index);
        Ok(one)
    }
}

/// Whether the datagram goes to the peer of a connected socket, and the system chooses the source.
#[inline(always)]
fn goes_to_peer(item: &keepsock_send_item) -> bool {
    let chosen =
        u32::from(item.to.family | item.local.family) | item.interface_index | item.reserved;
    chosen == 0 && item.reply_to.is_null()
}

fn same_address(a: &keepsock_address, b: &keepsock_address) -> bool {
    a.family == b.family && (a.family == 0 || (a.ip, a.port, a.zone) == (b.ip, b.port, b.zone))
}
