//! `keepsock_datagram`.

use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::address::{NO_ADDRESS, UNIX, address, address_from_c, address_to_c, keepsock_address};
use super::client::{give_up, structures, take};
use super::handle::{Handle, Pool, Pooled};
use super::rights::{borrow, credentials_to_c, keepsock_credentials};
use super::{
    Result, bytes, bytes_mut, guard, handle, invalid, keepsock_error, keepsock_fd,
    keepsock_options, live, output, write_if_wanted,
};
use crate::datagram::{Batch, Buffers, Details, Facts, Parts};
use crate::{Address, DatagramSocket, Outgoing};

/// A datagram socket, UDP or Unix: bound to a local address, for datagrams from anybody, or
/// connected to one peer. Unix systems only so far.
///
/// Threads: any number of threads may be in calls on one socket; a datagram is sent, and
/// received, as a whole. keepsock_datagram_close() may come from any thread at any time. Only
/// keepsock_datagram_free() needs the object for itself.
pub struct keepsock_datagram {
    pub(super) socket: DatagramSocket,
    pub(super) endpoint: OnceLock<CString>,
    pub(super) name: OnceLock<CString>,
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

/// What was received, but for the bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_datagram_info {
    /// Who sent it; of a Unix socket (family 1) the name is in unix_name.
    pub from: keepsock_address,
    /// The address that it was sent to, which may be a group's or a broadcast address; family 0
    /// where the system does not tell, and for Unix sockets.
    pub to: keepsock_address,
    /// The address of this machine that keepsock_datagram_reply() answers from; family 0: the
    /// system chooses.
    pub local: keepsock_address,
    /// The index of the interface by which it came; 0: not told. It is told for a socket that is
    /// bound to a wildcard or a group, and with keepsock_datagram_set_details().
    pub interface_index: u32,
    /// Whether the buffer was too short, so that the rest is lost.
    pub truncated: bool,
    /// How many routers it might still have passed (TTL, hop limit); -1: not told, as without
    /// keepsock_datagram_set_details().
    pub ttl: i16,
    /// Its TOS byte (IPv4), or traffic class (IPv6): DSCP in the upper six bits, ECN in the lower
    /// two; -1: not told, as without keepsock_datagram_set_details().
    pub tos: i16,
    /// How many bytes were put into the buffer.
    pub len: usize,
    /// How many bytes the datagram had; systems other than Linux do not tell: there it is len.
    pub original_len: usize,
    /// When the kernel took it, in nanoseconds since 1970; -1: not told, as without
    /// keepsock_datagram_set_details().
    pub received_at_ns: i64,
    /// The name of the Unix socket that sent it, as in sun_path of unix(7): an abstract name begins
    /// with a NUL.
    pub unix_name: [u8; 108],
    /// How many bytes it has; 0: it has none, and cannot be answered.
    pub unix_name_len: u16,
    /// Whether credentials are told: Unix sockets on Linux, with keepsock_datagram_set_details() or
    /// keepsock_options_allow_user().
    pub has_credentials: bool,
    /// The process that sent it, its user and its group, by what the kernel knows.
    pub credentials: keepsock_credentials,
}

/// One datagram of keepsock_datagram_send_batch(). It never grows. What is not needed is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_outgoing {
    /// Its bytes; may be NULL if len is 0.
    pub data: *const c_void,
    /// How many; 0 is a datagram, too.
    pub len: usize,
    /// To whom; family 0: to the peer of a connected socket.
    pub to: keepsock_address,
    /// The address of this machine that it leaves from, if the socket is bound to all of them;
    /// family 0: the system chooses. A socket that is bound to one sends from that.
    pub local: keepsock_address,
    /// The index of the interface, where the addresses need one; else 0.
    pub interface_index: u32,
    /// What was told of a datagram, to answer it as keepsock_datagram_reply() does, in place of the
    /// three above; of a Unix socket, too. NULL: this is no answer.
    pub question: *const keepsock_datagram_info,
}

/// A buffer of keepsock_datagram_recv_batch(), and what was received into it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_incoming {
    /// Where the bytes are put; may be NULL if cap is 0. On a connected socket, and on a Unix
    /// socket to which only some users may send, two entries may have exchanged their buffers
    /// afterwards.
    pub data: *mut c_void,
    /// How many fit.
    pub cap: usize,
    /// Filled in on success.
    pub info: keepsock_datagram_info,
}

/// Tells C of a datagram, where C wants it: it is a large structure.
///
/// # Safety
/// `info` points to `size` writable bytes, which are no less than it has.
#[inline(always)]
pub(super) unsafe fn write_info(info: *mut keepsock_datagram_info, size: usize, facts: &Facts<'_>) {
    // SAFETY: as the caller promises.
    unsafe {
        (*info).unix_name_len = 0;
        match facts.from {
            Address::Inet(from) => (*info).from = address_to_c(Some(from)),
            from => {
                (*info).from = keepsock_address { family: UNIX, ..NO_ADDRESS };
                write_unix_name(info, from);
            }
        }
        (*info).to = address_to_c(facts.to);
        (*info).local = address_to_c(facts.local);
        (&raw mut (*info).truncated).write(facts.truncated);
        (*info).len = facts.len;
        (*info).original_len = facts.original_len;
        match facts.details {
            Some(details) => write_details(info, details),
            None => {
                ((*info).interface_index, (*info).ttl, (*info).tos) = (0, -1, -1);
                (*info).received_at_ns = -1;
                (&raw mut (*info).has_credentials).write(false);
            }
        }
        // What a later header has more.
        let known = size_of::<keepsock_datagram_info>();
        if size > known {
            info.cast::<u8>().add(known).write_bytes(0, size - known);
        }
    }
}

/// # Safety
/// `info` is writable.
unsafe fn write_details(info: *mut keepsock_datagram_info, details: &Details) {
    let told = |byte: Option<u8>| byte.map_or(-1, i16::from);
    let nanos = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(-1, |d| d.as_nanos() as i64);
    // SAFETY: as the caller promises.
    unsafe {
        (*info).interface_index = details.interface;
        ((*info).ttl, (*info).tos) = (told(details.ttl), told(details.tos));
        (*info).received_at_ns = details.at.map_or(-1, nanos);
        (&raw mut (*info).has_credentials).write(details.credentials.is_some());
        if let Some(credentials) = details.credentials {
            (*info).credentials = credentials_to_c(credentials);
        }
    }
}

/// # Safety
/// `info` is writable.
#[cold]
unsafe fn write_unix_name(info: *mut keepsock_datagram_info, from: &Address) {
    let (before, name) = match from {
        Address::UnixPath(path) => (0, path.as_os_str().as_encoded_bytes()),
        Address::UnixAbstract(name) => (1, name.as_slice()),
        _ => return,
    };
    let mut unix_name = [0; 108];
    // The kernel's names fit.
    for (c, byte) in unix_name.iter_mut().skip(before).zip(name) {
        *c = *byte;
    }
    let len = u16::try_from(before + name.len()).unwrap_or(0).min(108);
    // SAFETY: as the caller promises.
    unsafe { ((*info).unix_name, (*info).unix_name_len) = (unix_name, len) };
}

/// Who is to be answered.
///
/// # Safety
/// `question` is readable.
unsafe fn sender(
    question: *const keepsock_datagram_info,
    operation: &'static str,
) -> Result<Address> {
    // SAFETY: as the caller promises.
    let (from, name, len) = unsafe {
        (
            (&raw const (*question).from).read(),
            (&raw const (*question).unix_name).read(),
            (&raw const (*question).unix_name_len).read(),
        )
    };
    if from.family != UNIX {
        let known = address_from_c(&from, operation)?;
        let known = known.ok_or_else(|| invalid(operation, "question has no address"))?;
        return Ok(Address::Inet(known));
    }
    let name = name.get(..usize::from(len));
    Ok(match name.ok_or_else(|| invalid(operation, "unix_name_len is above 108"))? {
        [] => Address::UnixUnnamed,
        [0, name @ ..] => Address::UnixAbstract(name.to_vec()),
        path => Address::UnixPath(path_of(path)),
    })
}

/// What answers a datagram.
///
/// # Safety
/// `question` is readable; its booleans may be anything, so they are not read.
unsafe fn answer<'a>(
    question: *const keepsock_datagram_info,
    bytes: &'a [u8],
    operation: &'static str,
) -> Result<Outgoing<'a>> {
    // SAFETY: as the caller promises.
    let (to, local, interface) = unsafe {
        (
            sender(question, operation)?,
            (&raw const (*question).local).read(),
            (&raw const (*question).interface_index).read(),
        )
    };
    let mut one = Outgoing::to(bytes, to);
    one.local = address_from_c(&local, operation)?;
    one.interface = (interface != 0).then_some(interface);
    Ok(one)
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// # Safety
/// `datagram` is null or live; `error` is null or writable.
#[inline]
pub(super) unsafe fn with(
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

/// Makes a socket that takes datagrams from anybody. "*:8080" takes IPv4 and IPv6 on one port,
/// whatever the system's bindv6only says; "0.0.0.0:8080" takes IPv4 and "[::]:8080" IPv6 only.
/// With port 0 the system chooses: keepsock_datagram_port(). "unix:/run/app.sock" and "unix:@name"
/// are Unix datagram sockets: a path whose socket is gone is taken over, one with a live socket
/// never is; the file is removed when this one is closed.
///
/// @param endpoint  Where to bind.
/// @param options   Options, copied; NULL for the defaults. Family, interface, timeouts, token,
///                  coalescing, hand_over, last snapshot; of a Unix socket the file's mode and
///                  owner, and the users who may send. What only streams, or only connecting, have
///                  is refused.
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
/// that, so whether somebody is there is not known yet; but a Unix socket must be there. Of a
/// name's addresses it is the first one that this machine has a way to. On Linux a Unix socket gets
/// a name of its own, so that it can be answered; elsewhere give it one as the local address.
///
/// @param endpoint  The peer.
/// @param options   Options, copied; NULL for the defaults. Family, local address, interface,
///                  addresses, timeouts, token, coalescing, hand_over, last snapshot; of a Unix
///                  socket whose local address is a path the file's mode and owner. What only
///                  streams have, and allow_user, is refused.
/// @param datagram  Receives the socket; free it with keepsock_datagram_free().
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNREACHABLE, _INVALID_ENDPOINT, _NOT_FOUND, _REFUSED (a Unix
///         socket that is gone), _LOOKUP_FAILED, _TIMED_OUT, _CANCELLED (the lookup),
///         _ADDRESS_IN_USE, _ADDRESS_NOT_AVAILABLE (the local one), _PERMISSION_DENIED,
///         _NO_DESCRIPTORS, _NO_MEMORY, _UNSUPPORTED (Windows), _INVALID_ARGUMENT, _OS. Since 0.1.
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

/// Takes over a datagram socket, UDP or Unix, that is bound, connected or not. The file of a Unix
/// socket stays the business of whoever made it.
///
/// @param fd        A datagram socket. It belongs to the new object on success and stays the
///                  caller's on failure.
/// @param options   Options, copied; NULL for the defaults. Timeouts, token, coalescing, last
///                  snapshot, and the users who may send, on Unix sockets; addresses, family and
///                  interface must not be set.
/// @param datagram  Receives the socket; free it with keepsock_datagram_free().
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not a datagram socket, or one of UDP that is not
///         bound), _OS (not a socket at all), _NO_DESCRIPTORS (it needs one more), _NO_MEMORY,
///         _UNSUPPORTED (Windows; coalescing or allow_user where the system has none),
///         _INVALID_ARGUMENT. Since 0.1.
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
/// buffer, or a Unix peer's queue, is full. What ICMP said of an earlier datagram fails no call:
/// see keepsock_datagram_recv_error(). At most 65,507 bytes go into a datagram over IPv4, 65,527
/// over IPv6.
///
/// @param datagram  A connected socket.
/// @param data      The bytes; may be NULL if len is 0.
/// @param len       How many; 0 is a datagram, too.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not connected), _TOO_LONG (for the protocol,
///         or for the way), _REFUSED (a Unix peer that is gone, or receives no more), _TIMED_OUT,
///         _CANCELLED, _CLOSED, _UNREACHABLE, _PERMISSION_DENIED, _WOULD_BLOCK (non-blocking mode),
///         _NO_MEMORY, _INVALID_ARGUMENT, _OS. Since 0.1.
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

/// Sends one datagram to a numeric endpoint ("192.0.2.1:80"), or to a Unix socket
/// ("unix:/run/app.sock", "unix:@name"). keepsock_datagram_send_to() is for those who send often to
/// one address.
///
/// @param datagram  A socket.
/// @param data      The bytes; may be NULL if len is 0.
/// @param len       How many; 0 is a datagram, too.
/// @param endpoint  To whom; names are not looked up.
/// @param error     See keepsock_error; may be NULL.
/// @return Those of keepsock_datagram_send_to(), and KEEPSOCK_ERR_INVALID_ENDPOINT, _REFUSED and
///         _NOT_FOUND for a Unix socket that is not there. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send_to_endpoint(
    datagram: *mut keepsock_datagram,
    data: *const c_void,
    len: usize,
    endpoint: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "send";
    let body = |socket: &DatagramSocket| {
        // SAFETY: `len` readable bytes, and a string, as the header asks.
        let (data, endpoint) =
            unsafe { (bytes(data, len, OPERATION)?, super::endpoint(endpoint, OPERATION)?) };
        socket.send_to(data, Address::try_from(&endpoint)?)
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
/// @return Those of keepsock_datagram_send_to_endpoint(). Since 0.1.
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
        // SAFETY: `len` readable bytes, and a readable structure, as the header asks.
        let one = unsafe { answer(question, bytes(data, len, OPERATION)?, OPERATION)? };
        socket.send_one(&one)
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
        let buf = unsafe { bytes_mut(buf, cap, OPERATION) }?;
        // SAFETY: info has `size` bytes as the header asks, and that is enough.
        socket.recv_with(buf, |facts| unsafe { write_info(info, size, facts) })?;
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Sends one datagram, and with it descriptors: files, sockets (keepsock_client_fd(),
/// keepsock_server_fd()), pipes. The receiver gets descriptors of its own for them; those that were
/// given stay the caller's to close. Unix sockets only.
///
/// @param datagram  A Unix socket.
/// @param data      The bytes; may be NULL if len is 0.
/// @param len       How many; 0 is a datagram, too.
/// @param endpoint  To whom ("unix:/run/app.sock", "unix:@name"); NULL: to the peer of a connected
///                  socket.
/// @param fds       The descriptors; may be NULL if count is 0.
/// @param count     How many; at most 253 (SCM_MAX_FD of unix(7)).
/// @param error     See keepsock_error; may be NULL.
/// @return Those of keepsock_datagram_send_to_endpoint(); KEEPSOCK_ERR_NO_DESCRIPTORS: too many are
///         on their way already; KEEPSOCK_ERR_UNSUPPORTED for UDP. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_send_fds(
    datagram: *mut keepsock_datagram,
    data: *const c_void,
    len: usize,
    endpoint: *const c_char,
    fds: *const keepsock_fd,
    count: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "send";
    let body = |socket: &DatagramSocket| {
        // SAFETY: `len` readable bytes, a string or null, and `count` numbers, as the header asks.
        let (data, to, fds) = unsafe {
            let to = match endpoint.is_null() {
                true => None,
                false => Some(Address::try_from(&super::endpoint(endpoint, OPERATION)?)?),
            };
            (bytes(data, len, OPERATION)?, to, structures(fds, count, OPERATION, "fds")?)
        };
        let borrowed = fds.iter().map(|fd| borrow(*fd, OPERATION)).collect::<Result<Vec<_>>>();
        socket.send_with_descriptors(data, to.as_ref(), &borrowed?)
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// Receives one datagram, as keepsock_datagram_recv() does, and at most max of the descriptors that
/// came with it. They are close-on-exec and the caller's to close. Others are closed, which lost
/// tells; so are all of those that come to whoever receives by another function. Unix sockets only.
///
/// @param datagram  A Unix socket.
/// @param buf       Filled with the datagram's bytes; may be NULL if cap is 0.
/// @param cap       Its size.
/// @param info      Filled in on success.
/// @param size      sizeof *info.
/// @param fds       Filled with at most max descriptors; may be NULL if max is 0.
/// @param max       How many are wanted; at most 253.
/// @param count     Receives the number of descriptors.
/// @param lost      Receives whether more came than were wanted, or than this process may have; may
///                  be NULL.
/// @param error     See keepsock_error; may be NULL.
/// @return Those of keepsock_datagram_recv(), and KEEPSOCK_ERR_UNSUPPORTED for UDP. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_recv_fds(
    datagram: *mut keepsock_datagram,
    buf: *mut c_void,
    cap: usize,
    info: *mut keepsock_datagram_info,
    size: usize,
    fds: *mut keepsock_fd,
    max: usize,
    count: *mut usize,
    lost: *mut bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "receive";
    let body = |socket: &DatagramSocket| {
        output(info, OPERATION, "info")?;
        let count = output(count, OPERATION, "count")?;
        if max > 0 {
            output(fds, OPERATION, "fds")?;
        }
        // Before anything is received that could then not be told.
        check_size::<keepsock_datagram_info>(size, OPERATION)?;
        // SAFETY: `cap` writable bytes as the header asks.
        let buf = unsafe { bytes_mut(buf, cap, OPERATION) }?;
        let (datagram, received) = socket.recv_with_descriptors(buf, max)?;
        // SAFETY: info has `size` bytes, and the rest is not null, or not written, and writable, as
        // the header asks: no more than `max` descriptors come.
        unsafe {
            datagram.tell(|facts| write_info(info, size, facts));
            count.write(received.descriptors.len());
            write_if_wanted(lost, received.lost);
            for (i, fd) in received.descriptors.into_iter().enumerate() {
                fds.add(i).write(give_up(fd));
            }
        }
        Ok(())
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
/// @return Those of keepsock_datagram_send_to(), if not even the first was sent;
///         KEEPSOCK_ERR_UNREACHABLE also for a local that is none of this machine, and
///         KEEPSOCK_ERR_INVALID_ENDPOINT for an interface that there is not. Since 0.1.
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
        let count = socket.send_parts(&Sending(batch))?;
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
        // SAFETY: `count` entries of `size` bytes as the header asks, and `cap` writable bytes
        // where each says. Those of a later header are larger.
        let mut entries = unsafe { Receiving::new(batch, count, size, OPERATION) }?;
        let filled = socket.recv_into(&mut entries)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(filled) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(datagram, error, OPERATION, body) }
}

/// The datagrams of a batch, where C has them.
struct Sending<'a>(&'a [keepsock_outgoing]);

impl Parts for Sending<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self, at: usize) -> Result<&[u8]> {
        let one = &self.0[at];
        // SAFETY: `len` readable bytes as the header asks.
        unsafe { bytes(one.data, one.len, "send") }
    }

    #[inline(always)]
    fn are_alike(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.0[a], &self.0[b]);
        (goes_to_peer(a) && goes_to_peer(b)) || go_alike(a, b)
    }

    fn outgoing(&self, at: usize) -> Result<Outgoing<'_>> {
        let c = &self.0[at];
        if !c.question.is_null() {
            // SAFETY: readable as the header asks.
            return unsafe { answer(c.question, self.bytes(at)?, "send") };
        }
        let mut one = Outgoing::new(self.bytes(at)?);
        one.to = address_from_c(&c.to, "send")?.map(Address::Inet);
        one.local = address_from_c(&c.local, "send")?;
        one.interface = (c.interface_index != 0).then_some(c.interface_index);
        Ok(one)
    }
}

#[inline(always)]
fn goes_to_peer(c: &keepsock_outgoing) -> bool {
    let chosen = u32::from(c.to.family | c.local.family) | c.interface_index;
    chosen == 0 && c.question.is_null()
}

#[inline(never)]
fn go_alike(a: &keepsock_outgoing, b: &keepsock_outgoing) -> bool {
    if a.question.is_null() && b.question.is_null() {
        a.interface_index == b.interface_index
            && same_address(&a.to, &b.to)
            && same_address(&a.local, &b.local)
    } else {
        // SAFETY: null, or readable as the header asks.
        unsafe { same_answer(a.question, b.question) }
    }
}

fn same_address(a: &keepsock_address, b: &keepsock_address) -> bool {
    a.family == b.family && (a.family == 0 || (a.ip, a.port, a.zone) == (b.ip, b.port, b.zone))
}

/// Whether two answers go to one address, and from one. Of Unix sockets only to one question: a
/// batch is not sent as one there anyway.
///
/// # Safety
/// They are null or readable.
unsafe fn same_answer(a: *const keepsock_datagram_info, b: *const keepsock_datagram_info) -> bool {
    if a == b || a.is_null() || b.is_null() {
        return a == b;
    }
    // SAFETY: readable as the caller promises; their booleans, which may be anything, are not read.
    unsafe {
        (*a).from.family != UNIX
            && (*a).interface_index == (*b).interface_index
            && same_address(&(*a).from, &(*b).from)
            && same_address(&(*a).local, &(*b).local)
    }
}

/// The buffers of a batch, where C has them.
struct Receiving {
    first: *mut keepsock_incoming,
    count: usize,
    size: usize,
}

impl Receiving {
    /// # Safety
    /// `first` points to `count` entries of `size` bytes each, whose buffers are writable.
    unsafe fn new(
        first: *mut keepsock_incoming,
        count: usize,
        size: usize,
        operation: &'static str,
    ) -> Result<Receiving> {
        // More than the socket takes at once need not be looked at.
        let receiving = Receiving { first, count: count.min(crate::sys::AT_ONCE), size };
        for at in 0..receiving.count {
            let entry = receiving.entry(at);
            // SAFETY: as the caller promises. What was in its info is not read.
            unsafe {
                let (data, cap) =
                    ((&raw const (*entry).data).read(), (&raw const (*entry).cap).read());
                bytes_mut(data, cap, operation)?;
            }
        }
        Ok(receiving)
    }

    fn entry(&self, at: usize) -> *mut keepsock_incoming {
        debug_assert!(at < self.count);
        // SAFETY: there are so many of that size, by what `new` was promised.
        unsafe { self.first.byte_add(at * self.size) }
    }
}

impl Buffers for Receiving {
    fn count(&self) -> usize {
        self.count
    }

    fn buffer(&mut self, at: usize) -> &mut [u8] {
        let entry = self.entry(at);
        // SAFETY: `new` has found that there is a buffer, or that it has no bytes.
        unsafe {
            let (data, cap) = ((*entry).data, (*entry).cap);
            let data = if cap == 0 { NonNull::dangling().as_ptr() } else { data.cast() };
            std::slice::from_raw_parts_mut(data, cap)
        }
    }
}

impl Batch for Receiving {
    #[inline(always)]
    fn put(&mut self, at: usize, facts: &Facts<'_>) {
        let entry = self.entry(at);
        let room = self.size - std::mem::offset_of!(keepsock_incoming, info);
        // SAFETY: an entry, whose info has so many bytes.
        unsafe { write_info(&raw mut (*entry).info, room, facts) };
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (a, b) = (self.entry(a), self.entry(b));
        // SAFETY: two entries, of which only the buffers are exchanged.
        unsafe {
            (&raw mut (*a).data).swap(&raw mut (*b).data);
            (&raw mut (*a).cap).swap(&raw mut (*b).cap);
        }
    }
}

pub(super) fn check_size<T>(size: usize, operation: &'static str) -> Result<()> {
    let known = size_of::<T>();
    if size < known {
        return Err(invalid(
            operation,
            format!("size {size} is below {known}: give the sizeof of what is filled in"),
        ));
    }
    super::check_len(size, operation)
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
