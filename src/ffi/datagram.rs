//! `keepsock_datagram`.

use std::ffi::{CString, c_char, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::OnceLock;

use super::client::{give_up, number, structures, take, tuple_to_c};
use super::handle::{Handle, Pool, Pooled};
use super::{
    KEEPSOCK_OK, Result, bytes, bytes_mut, c_string, cancel, guard, handle, invalid,
    keepsock_cancel, keepsock_error, keepsock_fd, keepsock_five_tuple, keepsock_options, live,
    output, shield, timeout, write_sized, write_text,
};
use crate::{Datagram, DatagramError, DatagramSocket, Incoming, Outgoing};

/// A UDP socket: bound to a local address, for datagrams from anybody, or connected to one
/// peer. Unix systems only so far.
///
/// Threads: any number of threads may be in calls on one socket; a datagram is sent, and
/// received, as a whole. keepsock_datagram_close() may come from any thread at any time. Only
/// keepsock_datagram_free() needs the object for itself.
pub struct keepsock_datagram {
    pub(super) socket: DatagramSocket,
    endpoint: OnceLock<CString>,
    name: OnceLock<CString>,
}

impl keepsock_datagram {
    pub(super) fn new(socket: DatagramSocket) -> keepsock_datagram {
        keepsock_datagram { socket, endpoint: OnceLock::new(), name: OnceLock::new() }
    }
}

impl Handle for keepsock_datagram {
    const MARK: u32 = 0x6b73_0044;
}

impl Pooled for keepsock_datagram {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_datagram> = Pool::new();
        &POOL
    }
}

/// An IP address and a port. keepsock_address_parse() makes one of text,
/// keepsock_address_text() text of one. It never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_address {
    /// In network order; of an IPv4 address the first four bytes, the rest is 0.
    pub ip: [u8; 16],
    /// The interface's index of a link-local IPv6 address, or 0.
    pub zone: u32,
    /// The port, in the machine's order.
    pub port: u16,
    /// 4 or 6; 0: there is no address.
    pub family: u16,
}

/// What was received, but for the bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_datagram_info {
    /// Who sent it.
    pub from: keepsock_address,
    /// The address that it was sent to, which may be a group's or a broadcast address; family 0
    /// where the system does not tell.
    pub to: keepsock_address,
    /// The address of this machine that keepsock_datagram_reply() answers from; family 0: the
    /// system chooses.
    pub local: keepsock_address,
    /// The index of the interface by which it came; 0: not told, as for a socket that is bound to
    /// one address.
    pub interface_index: u32,
    /// Whether the buffer was too short, so that the rest is lost.
    pub truncated: bool,
    /// How many bytes were put into the buffer.
    pub len: usize,
    /// How many bytes the datagram had; systems other than Linux do not tell: there it is len.
    pub original_len: usize,
}

/// One datagram of keepsock_datagram_send_batch(). It never grows. To answer one that was
/// received, take "to", local and interface_index from its keepsock_datagram_info's from, local
/// and interface_index; else let local and interface_index be 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_outgoing {
    /// Its bytes; may be NULL if len is 0.
    pub data: *const c_void,
    /// How many; 0 is a datagram, too.
    pub len: usize,
    /// To whom; family 0: to the peer of a connected socket.
    pub to: keepsock_address,
    /// The address of this machine that it leaves from; family 0: the system chooses.
    pub local: keepsock_address,
    /// The index of the interface, where the addresses need one; else 0.
    pub interface_index: u32,
}

/// A buffer of keepsock_datagram_recv_batch(), and what was received into it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_incoming {
    /// Where the bytes are put; may be NULL if cap is 0. On a connected socket two entries may
    /// have exchanged their buffers afterwards.
    pub data: *mut c_void,
    /// How many fit.
    pub cap: usize,
    /// Filled in on success.
    pub info: keepsock_datagram_info,
}

/// An error that was reported for a datagram that the socket sent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_datagram_error {
    /// KEEPSOCK_OK: there is none. Else KEEPSOCK_ERR_REFUSED (nobody has the port there),
    /// _UNREACHABLE, _TOO_LONG (for the way), _PERMISSION_DENIED (by a firewall), _OS.
    pub status: i32,
    /// The system's error number (errno), or 0.
    pub os_error: i32,
    /// Where the datagram had been sent to; family 0: not told.
    pub to: keepsock_address,
    /// The machine, or the router on the way, that reported it, with port 0; family 0: not told.
    pub from: keepsock_address,
}

const NO_ADDRESS: keepsock_address = keepsock_address { ip: [0; 16], zone: 0, port: 0, family: 0 };

fn address_to_c(address: Option<SocketAddr>) -> keepsock_address {
    let Some(address) = address else {
        return NO_ADDRESS;
    };
    let mut c = keepsock_address { port: address.port(), ..NO_ADDRESS };
    match address {
        SocketAddr::V4(v4) => {
            c.family = 4;
            c.ip[..4].copy_from_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            (c.family, c.zone) = (6, v6.scope_id());
            c.ip = v6.ip().octets();
        }
    }
    c
}

/// `None`: there is no address.
fn address_from_c(c: &keepsock_address, operation: &'static str) -> Result<Option<SocketAddr>> {
    let [a, b, c0, d, ..] = c.ip;
    match c.family {
        0 => Ok(None),
        4 => Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c0, d)), c.port))),
        6 => Ok(Some(SocketAddrV6::new(Ipv6Addr::from(c.ip), c.port, 0, c.zone).into())),
        other => Err(invalid(operation, format!("address of family {other}"))),
    }
}

/// # Safety
/// `address` is null or readable.
unsafe fn address(
    address: *const keepsock_address,
    operation: &'static str,
    name: &str,
) -> Result<SocketAddr> {
    let address = output(address.cast_mut(), operation, name)?;
    // SAFETY: not null, and readable by the caller's promise.
    let address = unsafe { address.read() };
    let known = address_from_c(&address, operation)?;
    known.ok_or_else(|| invalid(operation, format!("{name} has no address")))
}

fn info_to_c(datagram: &Datagram) -> keepsock_datagram_info {
    keepsock_datagram_info {
        from: address_to_c(Some(datagram.from)),
        to: address_to_c(datagram.to),
        local: address_to_c(datagram.local),
        interface_index: datagram.interface.unwrap_or(0),
        truncated: datagram.truncated,
        len: datagram.len,
        original_len: datagram.original_len,
    }
}

fn error_to_c(error: Option<&DatagramError>) -> keepsock_datagram_error {
    let by = error.and_then(|e| e.from).map(|ip| SocketAddr::new(ip, 0));
    keepsock_datagram_error {
        status: error.map_or(KEEPSOCK_OK, |e| e.kind.code()),
        os_error: error.and_then(|e| e.os_error).unwrap_or(0),
        to: address_to_c(error.and_then(|e| e.to)),
        from: address_to_c(by),
    }
}

/// # Safety
/// `datagram` is null or live; `error` is null or writable.
#[inline]
unsafe fn with(
    datagram: *const keepsock_datagram,
    error: *mut *mut keepsock_error,
    operation: &'static str,
    body: impl FnOnce(&DatagramSocket) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        body(unsafe { &live(datagram, operation, "datagram")?.socket })
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, operation, body) }
}

/// Makes an address of a numeric endpoint: "192.0.2.1:80", "[fe80::1%eth0]:80".
///
/// @param endpoint  Its text; names are not addresses.
/// @param address   Receives it.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_address_parse(
    endpoint: *const c_char,
    address: *mut keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "address";
    let body = || {
        let out = output(address, OPERATION, "address")?;
        // SAFETY: a string as the header asks.
        let parsed = unsafe { super::endpoint(endpoint, OPERATION) }?.to_socket_addr()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(address_to_c(Some(parsed))) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Prints an address as an endpoint: "192.0.2.1:80", "[fe80::1%3]:80".
///
/// @param address  An address.
/// @param buf      Receives the text, with its NUL.
/// @param cap      Its size; 64 is enough for all.
/// @param needed   Receives the size that is needed, also when cap is too small; may be NULL.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_TOO_LONG, _INVALID_ARGUMENT (family 0, too). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_address_text(
    address: *const keepsock_address,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "address";
    let body = || {
        // SAFETY: null, or readable as the header asks.
        let address = unsafe { self::address(address, OPERATION, "address") }?;
        // SAFETY: as the header asks.
        unsafe { write_text(buf, cap, needed, address, OPERATION) }
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Makes a socket that takes datagrams from anybody. "*:8080" takes IPv4 and IPv6 on one port,
/// whatever the system's bindv6only says; "0.0.0.0:8080" takes IPv4 and "[::]:8080" IPv6 only.
/// With port 0 the system chooses: keepsock_datagram_port().
///
/// @param endpoint  Where to bind.
/// @param options   Options, copied; NULL for the defaults. Family, interface, timeouts and
///                  token hold; what only streams, or only connecting, have is refused.
/// @param datagram  Receives the socket; free it with keepsock_datagram_free().
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_ADDRESS_IN_USE, _ADDRESS_NOT_AVAILABLE,
///         _PERMISSION_DENIED, _INVALID_ENDPOINT, _NOT_FOUND, _LOOKUP_FAILED, _TIMED_OUT,
///         _CANCELLED (the lookup), _NO_DESCRIPTORS, _NO_MEMORY, _UNSUPPORTED (Windows),
///         _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_bind(
    endpoint: *const c_char,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "bind";
    let body = || {
        let out = output(datagram, OPERATION, "datagram")?;
        // SAFETY: a string, and null or live options, as the header asks.
        let (endpoint, options) = unsafe {
            (
                super::endpoint(endpoint, OPERATION)?,
                keepsock_options::or_default(options, OPERATION)?,
            )
        };
        let made = keepsock_datagram::new(DatagramSocket::bind_with(endpoint, &options)?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Makes a socket that sends to one peer only, and receives from it only. Nothing is sent for
/// that, so whether somebody is there is not known yet. Of a name's addresses it is the first
/// one that this machine has a way to.
///
/// @param endpoint  The peer.
/// @param options   Options, copied; NULL for the defaults. Family, local address, interface,
///                  addresses, timeouts and token hold; what only streams have is refused.
/// @param datagram  Receives the socket; free it with keepsock_datagram_free().
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNREACHABLE, _INVALID_ENDPOINT, _NOT_FOUND,
///         _LOOKUP_FAILED, _TIMED_OUT, _CANCELLED (the lookup), _ADDRESS_IN_USE,
///         _ADDRESS_NOT_AVAILABLE (the local one), _PERMISSION_DENIED, _NO_DESCRIPTORS,
///         _NO_MEMORY, _UNSUPPORTED (Windows), _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_connect(
    endpoint: *const c_char,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "connect";
    let body = || {
        let out = output(datagram, OPERATION, "datagram")?;
        // SAFETY: a string, and null or live options, as the header asks.
        let (endpoint, options) = unsafe {
            (
                super::endpoint(endpoint, OPERATION)?,
                keepsock_options::or_default(options, OPERATION)?,
            )
        };
        let made = keepsock_datagram::new(DatagramSocket::connect_with(endpoint, &options)?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Takes over a UDP socket that is bound, connected or not.
///
/// @param fd        A UDP socket. It belongs to the new object on success and stays the
///                  caller's on failure.
/// @param options   Options, copied; NULL for the defaults. Timeouts and token hold; addresses,
///                  family and interface must not be set.
/// @param datagram  Receives the socket; free it with keepsock_datagram_free().
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not UDP, or not bound), _OS (not a socket at
///         all), _UNSUPPORTED (Windows), _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_from_fd(
    fd: keepsock_fd,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "take over";
    let body = || {
        let out = output(datagram, OPERATION, "datagram")?;
        // SAFETY: null, or live options as the header asks.
        let options = unsafe { keepsock_options::or_default(options, OPERATION) }?;
        let socket = take(fd, OPERATION, |owned| DatagramSocket::from_owned(owned, &options))?;
        let made = keepsock_datagram::new(socket);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Sends one datagram to the peer of a connected socket. It waits only while the system's
/// buffer is full. What ICMP said of an earlier datagram fails no call: see
/// keepsock_datagram_recv_error(). At most 65,507 bytes go into a datagram over IPv4, 65,527
/// over IPv6.
///
/// @param datagram  A connected socket.
/// @param data      The bytes; may be NULL if len is 0.
/// @param len       How many; 0 is a datagram, too.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not connected), _TOO_LONG (for the protocol,
///         or for the way), _TIMED_OUT, _CANCELLED, _CLOSED, _UNREACHABLE, _PERMISSION_DENIED,
///         _WOULD_BLOCK (non-blocking mode), _NO_MEMORY, _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send(
    datagram: *mut keepsock_datagram,
    data: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "send";
    let body = |socket: &DatagramSocket| {
        // SAFETY: `len` readable bytes as the header asks.
        socket.send(unsafe { bytes(data, len, OPERATION) }?)
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Sends one datagram to an address.
///
/// @param datagram  A socket.
/// @param data      The bytes; may be NULL if len is 0.
/// @param len       How many; 0 is a datagram, too.
/// @param to        The address.
/// @param error     See keepsock_error; may be NULL.
/// @return Those of keepsock_datagram_send(); KEEPSOCK_ERR_WRONG_STATE if the socket is
///         connected to another address, KEEPSOCK_ERR_INVALID_ARGUMENT for port 0, too, and for
///         an address of a family that the socket does not have. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send_to(
    datagram: *mut keepsock_datagram,
    data: *const c_void,
    len: usize,
    to: *const keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "send";
    let body = |socket: &DatagramSocket| {
        // SAFETY: `len` readable bytes, and a readable address, as the header asks.
        let (data, to) = unsafe { (bytes(data, len, OPERATION)?, address(to, OPERATION, "to")?) };
        socket.send_to(data, to)
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Answers a datagram: to whom it came from, and from the address that it was sent to, as its
/// sender expects it, though this machine have several.
///
/// @param datagram  The socket that received it.
/// @param question  What keepsock_datagram_recv() told of it.
/// @param data      The bytes; may be NULL if len is 0.
/// @param len       How many; 0 is a datagram, too.
/// @param error     See keepsock_error; may be NULL.
/// @return Those of keepsock_datagram_send_to(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_reply(
    datagram: *mut keepsock_datagram,
    question: *const keepsock_datagram_info,
    data: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "send";
    let body = |socket: &DatagramSocket| {
        let question = output(question.cast_mut(), OPERATION, "question")?;
        // SAFETY: `len` readable bytes, and a readable structure, as the header asks. Its
        // boolean may be anything, so it is not read.
        let (data, from, local, interface) = unsafe {
            (
                bytes(data, len, OPERATION)?,
                address(&raw const (*question).from, OPERATION, "question")?,
                (&raw const (*question).local).read(),
                (&raw const (*question).interface_index).read(),
            )
        };
        let question = Datagram {
            len: 0,
            original_len: 0,
            truncated: false,
            from,
            to: None,
            local: address_from_c(&local, OPERATION)?,
            interface: (interface != 0).then_some(interface),
        };
        socket.reply(&question, data)
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Receives one datagram. What does not fit is lost, and told. What ICMP said of datagrams that
/// were sent ends no receiving: see keepsock_datagram_recv_error().
///
/// @param datagram  A socket.
/// @param buf       Filled with the datagram's bytes; may be NULL if cap is 0.
/// @param cap       Its size.
/// @param info      Filled in on success.
/// @param size      sizeof *info.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT, _CANCELLED, _CLOSED, _WOULD_BLOCK (non-blocking
///         mode), _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_recv(
    datagram: *mut keepsock_datagram,
    buf: *mut c_void,
    cap: usize,
    info: *mut keepsock_datagram_info,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "receive";
    let body = |socket: &DatagramSocket| {
        output(info, OPERATION, "info")?;
        // Before anything is received that could then not be told.
        check_size::<keepsock_datagram_info>(size, OPERATION)?;
        // SAFETY: `cap` writable bytes as the header asks.
        let received = socket.recv(unsafe { bytes_mut(buf, cap, OPERATION) }?)?;
        // SAFETY: info has `size` bytes as the header asks.
        unsafe { write_sized(info, size, &info_to_c(&received), OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Sends datagrams in their order. On Linux one system call takes up to 64 of them, and the kernel
/// takes those that follow each other to one address with one length as one (UDP_SEGMENT), which
/// is where most is saved; elsewhere they are sent one by one. The write timeout is for all
/// together.
///
/// @param datagram  A socket.
/// @param batch     The datagrams: an array.
/// @param count     How many there are.
/// @param sent      Receives how many were sent: all, unless something prevents it; sending the
///                  rest then tells what.
/// @param error     See keepsock_error; may be NULL.
/// @return Those of keepsock_datagram_send_to(), if not even the first was sent. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send_batch(
    datagram: *mut keepsock_datagram,
    batch: *const keepsock_outgoing,
    count: usize,
    sent: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "send";
    let body = |socket: &DatagramSocket| {
        let out = output(sent, OPERATION, "sent")?;
        // SAFETY: `count` structures as the header asks.
        let batch = unsafe { structures(batch, count, OPERATION, "batch") }?;
        let each = |c: &keepsock_outgoing| {
            // SAFETY: `len` readable bytes as the header asks.
            let mut one = Outgoing::new(unsafe { bytes(c.data, c.len, OPERATION) }?);
            one.to = address_from_c(&c.to, OPERATION)?;
            one.local = address_from_c(&c.local, OPERATION)?;
            one.interface = (c.interface_index != 0).then_some(c.interface_index);
            Ok(one)
        };
        let batch = batch.iter().map(each).collect::<Result<Vec<_>>>()?;
        let count = socket.send_batch(&batch)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(count) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Receives as many datagrams as there are, and at least one, one into each buffer. It waits for
/// the first only. On Linux that is one system call for up to 64 of them, which is the most for one
/// call everywhere.
///
/// @param datagram  A socket.
/// @param batch     The buffers: an array, none of which overlap.
/// @param count     How many there are; 0 receives nothing.
/// @param size      sizeof *batch.
/// @param received  Receives how many entries of batch were filled in.
/// @param error     See keepsock_error; may be NULL.
/// @return Those of keepsock_datagram_recv(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_recv_batch(
    datagram: *mut keepsock_datagram,
    batch: *mut keepsock_incoming,
    count: usize,
    size: usize,
    received: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "receive";
    let body = |socket: &DatagramSocket| {
        let out = output(received, OPERATION, "received")?;
        check_size::<keepsock_incoming>(size, OPERATION)?;
        if size % align_of::<keepsock_incoming>() != 0 {
            return Err(invalid(OPERATION, format!("size {size} is no size of an array's entry")));
        }
        super::check_len(size.saturating_mul(count), OPERATION)?;
        if count > 0 {
            output(batch, OPERATION, "batch")?;
        }
        // SAFETY: `count` entries of `size` bytes as the header asks. Those of a later header
        // are larger.
        let entry = |at: usize| unsafe { batch.byte_add(at * size) };
        let buffer = |at| {
            let entry = entry(at);
            // SAFETY: an entry, and `cap` writable bytes, as the header asks. What was in its
            // info is not read.
            unsafe {
                let (data, cap) =
                    ((&raw const (*entry).data).read(), (&raw const (*entry).cap).read());
                Ok(Incoming::new(bytes_mut(data, cap, OPERATION)?))
            }
        };
        // More than the socket takes at once need not be looked at.
        let mut buffers = (0..count.min(64)).map(buffer).collect::<Result<Vec<_>>>()?;
        let filled = socket.recv_batch(&mut buffers)?;
        for (at, incoming) in buffers.iter_mut().enumerate() {
            let entry = entry(at);
            let info = incoming.datagram().map(info_to_c).filter(|_| at < filled);
            let buf = incoming.buffer();
            let data = if buf.is_empty() { std::ptr::null_mut() } else { buf.as_mut_ptr() };
            // SAFETY: an entry as the header asks.
            unsafe {
                (&raw mut (*entry).data).write(data.cast());
                (&raw mut (*entry).cap).write(buf.len());
                if let Some(info) = info {
                    let room = size - std::mem::offset_of!(keepsock_incoming, info);
                    write_sized(&raw mut (*entry).info, room, &info, OPERATION)?;
                }
            }
        }
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(filled) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

fn check_size<T>(size: usize, operation: &'static str) -> Result<()> {
    let known = size_of::<T>();
    if size < known {
        return Err(invalid(
            operation,
            format!("size {size} is below {known}: write sizeof *info"),
        ));
    }
    super::check_len(size, operation)
}

/// Whether datagrams may be sent to broadcast addresses; sending to one is
/// KEEPSOCK_ERR_PERMISSION_DENIED otherwise. Receiving needs nothing but a socket that is bound to
/// a wildcard. Default: no.
///
/// @param datagram  A socket.
/// @param on        Whether.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
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
/// @param interface_name  The interface's name or index; NULL: by which there is a way to the group.
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

/// Whether what the socket sends to a group is received on this machine, too. Default: yes. Linux and
/// FreeBSD.
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

/// How many networks what the socket sends to a group passes. Default: 1, the local network. Linux and
/// FreeBSD.
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

/// The local port.
///
/// @param datagram  A socket, or NULL: 0.
/// @return The port. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_port(datagram: *const keepsock_datagram) -> u16 {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(datagram) }.map_or(0, |d| d.socket.port())
}

/// Protocol, local and remote address; after close, too. The remote address of a socket that is
/// not connected is the wildcard with port 0.
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
/// be freed.
///
/// @param datagram  A socket.
/// @param fd        Receives the descriptor.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _WRONG_STATE while another
///         thread is in a call. Since 0.1.
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

/// Closes. Calls of other threads return KEEPSOCK_ERR_CLOSED; what was sent is on its way.
/// Closing twice is fine. The object is still to be freed.
///
/// @param datagram  A socket.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_close(
    datagram: *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |socket: &DatagramSocket| {
        socket.close();
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, "close", body) }
}

/// Closes and frees a socket. No other thread may be using the object. Freeing NULL does
/// nothing.
///
/// @param datagram  A socket, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_free(datagram: *mut keepsock_datagram) {
    // SAFETY: null, or a socket as the header asks.
    unsafe { handle::free(datagram) };
}
