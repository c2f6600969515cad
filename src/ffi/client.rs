//! `keepsock_client`.

use std::ffi::{CString, c_char, c_void};
use std::io::{IoSlice, IoSliceMut};
use std::sync::{Arc, OnceLock};

use super::handle::{Handle, Pool, Pooled};
use super::{
    Result, bytes, bytes_mut, c_string, cancel, fill_text, guard, handle, invalid, keepsock_cancel,
    keepsock_error, keepsock_fd, keepsock_options, live, options, output, shield, timeout,
    write_if_wanted, write_sized,
};
use crate::{ClientSocket, FiveTuple, Keepalive, LengthPrefix};

/// A connection: made by keepsock_client_connect(), accepted by
/// keepsock_server_accept(), or lent to a keepsock_handler.
///
/// Threads: any number of threads may be in calls on one connection. One reading
/// while another writes is the normal case; what one call writes is not cut by
/// another's bytes. Of two threads that both read lines, one that waits does not
/// see what the other has left over until more comes. keepsock_client_close() and
/// keepsock_client_abort() may come from any thread at any time and end the calls of the others
/// with KEEPSOCK_ERR_CLOSED. Only keepsock_client_free() needs the object for itself.
///
/// Signals: no call dies of SIGPIPE, no signal disposition is changed, and a
/// signal handler that interrupts a call does not end it.
pub struct keepsock_client {
    socket: Held,
    name: OnceLock<CString>,
}

impl Handle for keepsock_client {
    const MARK: u32 = 0x6b73_0008;
}

impl Pooled for keepsock_client {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_client> = Pool::new();
        &POOL
    }
}

/// C's own connection, or one of `serve`, which its handler and others share.
// A handle's slot has room for either; a box would be one allocation more for each accept.
#[allow(clippy::large_enum_variant)]
enum Held {
    Own(ClientSocket),
    Lent(Arc<ClientSocket>),
}

impl keepsock_client {
    #[inline]
    pub(super) fn own(socket: ClientSocket) -> keepsock_client {
        keepsock_client { socket: Held::Own(socket), name: OnceLock::new() }
    }

    pub(super) fn lent(socket: Arc<ClientSocket>) -> keepsock_client {
        keepsock_client { socket: Held::Lent(socket), name: OnceLock::new() }
    }

    #[inline]
    pub(super) fn socket(&self) -> &ClientSocket {
        match &self.socket {
            Held::Own(socket) => socket,
            Held::Lent(socket) => socket,
        }
    }
}

/// The keepalive values that the kernel uses.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_keepalive {
    /// Whether keepalive is on; if not, the rest is 0.
    pub enabled: bool,
    /// Time without traffic before the first probe, in milliseconds.
    pub idle_ms: i64,
    /// Time between probes, in milliseconds.
    pub interval_ms: i64,
    /// Unanswered probes after which the peer is dead.
    pub count: u32,
}

/// What identifies a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_five_tuple {
    /// A value of enum keepsock_protocol.
    pub protocol: i32,
    /// This side's port; 0 for a Unix socket.
    pub local_port: u16,
    /// The peer's port; 0 for a Unix socket.
    pub remote_port: u16,
    /// This side's address without port: "127.0.0.1", "::1", a path, or "".
    pub local_address: [c_char; 112],
    /// The peer's address without port.
    pub remote_address: [c_char; 112],
}

pub(super) fn keepalive_to_c(now: Option<Keepalive>) -> keepsock_keepalive {
    let ms = |t: std::time::Duration| i64::try_from(t.as_millis()).unwrap_or(i64::MAX);
    keepsock_keepalive {
        enabled: now.is_some(),
        idle_ms: now.map_or(0, |k| ms(k.idle())),
        interval_ms: now.map_or(0, |k| ms(k.interval())),
        count: now.map_or(0, |k| k.count()),
    }
}

pub(super) fn tuple_to_c(tuple: &FiveTuple) -> keepsock_five_tuple {
    let mut value = keepsock_five_tuple {
        protocol: tuple.protocol as i32,
        local_port: tuple.local.port(),
        remote_port: tuple.remote.port(),
        local_address: [0; 112],
        remote_address: [0; 112],
    };
    fill_text(&mut value.local_address, &tuple.local.host());
    fill_text(&mut value.remote_address, &tuple.remote.host());
    value
}

/// One of several buffers of keepsock_client_write_slices().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_slice {
    /// Its bytes; may be NULL if len is 0.
    pub data: *const c_void,
    /// How many.
    pub len: usize,
}

/// One of several buffers of keepsock_client_read_slices().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_buffer {
    /// Where bytes are put; may be NULL if cap is 0.
    pub data: *mut c_void,
    /// How many fit.
    pub cap: usize,
}

/// An array of structures from C.
///
/// # Safety
/// `first` points to `count` of them, or `count` is 0.
pub(super) unsafe fn structures<'a, T>(
    first: *const T,
    count: usize,
    operation: &'static str,
    name: &str,
) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    let size = count.checked_mul(size_of::<T>());
    super::check_len(size.unwrap_or(usize::MAX), operation)?;
    let first = output(first.cast_mut(), operation, name)?;
    // SAFETY: not null, and `count` structures by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// # Safety
/// `client` is null or live; `error` is null or writable.
#[inline]
pub(super) unsafe fn with(
    client: *const keepsock_client,
    error: *mut *mut keepsock_error,
    operation: &'static str,
    body: impl FnOnce(&ClientSocket) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        body(unsafe { live(client, operation, "client") }?.socket())
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, operation, body) }
}

#[cold]
fn no_room(operation: &'static str) -> crate::Error {
    invalid(operation, "cap is 0")
}

/// Connects: to "host:port", "192.0.2.1:80", "[2001:db8::1]:80",
/// "[fe80::1%eth0]:80", "unix:/path" or "unix:@abstract"; a service name may stand for
/// the port ("example.com:http"). The addresses of a name race (RFC 8305): IPv6 and
/// IPv4 in turns, the next one 250 ms after the one before or as soon as one has
/// failed; the first that connects wins. One deadline holds for the lookup and
/// all of them (keepsock_options_set_connect_timeout(), 30 s by default); the call
/// is back by then even if the resolver hangs. A lookup that was given up keeps a
/// thread until the resolver answers; at most 64, then KEEPSOCK_ERR_LOOKUP_FAILED.
///
/// @param endpoint  Where to connect.
/// @param options   Options, copied; NULL for the defaults.
/// @param client    Receives the connection; free it with keepsock_client_free().
/// @param error     See keepsock_error; may be NULL. It lists every attempt.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT, _NOT_FOUND,
///         _LOOKUP_FAILED, _REFUSED, _UNREACHABLE, _TIMED_OUT, _CANCELLED, _RESET,
///         _ADDRESS_IN_USE, _ADDRESS_NOT_AVAILABLE, _PERMISSION_DENIED,
///         _NO_DESCRIPTORS, _NO_MEMORY, _UNSUPPORTED, _INVALID_ARGUMENT, _OS.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_connect(
    endpoint: *const c_char,
    options: *const keepsock_options,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "connect";
    let body = || {
        let out = output(client, OPERATION, "client")?;
        // SAFETY: a string, and null or live options, as the header asks.
        let (endpoint, options) = unsafe {
            (
                super::endpoint(endpoint, OPERATION)?,
                keepsock_options::or_default(options, OPERATION)?,
            )
        };
        let socket = ClientSocket::connect_with(endpoint, &options)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_client::own(socket))) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Takes over a connected stream socket: keepalive, TCP_NODELAY, timeouts and
/// token are set as the options say, and it is put into blocking mode.
///
/// @param fd       A connected TCP or Unix socket, not for datagrams. It belongs to the new
///                 connection on success and stays the caller's on failure.
/// @param options  Options, copied; NULL for the defaults.
/// @param client   Receives the connection; free it with keepsock_client_free().
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not connected, listening, or
///         not a stream), _OS (not a socket at all); for the interface option
///         _INVALID_ENDPOINT, _PERMISSION_DENIED, _UNSUPPORTED; _INVALID_ARGUMENT.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_from_fd(
    fd: keepsock_fd,
    options: *const keepsock_options,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "take over";
    let body = || {
        let out = output(client, OPERATION, "client")?;
        // SAFETY: null, or live options as the header asks.
        let options = unsafe { keepsock_options::or_default(options, OPERATION) }?;
        let socket = take(fd, OPERATION, |owned| ClientSocket::from_owned(owned, &options))?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_client::own(socket))) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Makes an owned socket of C's descriptor for as long as `make` succeeds with
/// it; otherwise it is given back unclosed.
pub(super) fn take<T>(
    fd: keepsock_fd,
    operation: &'static str,
    make: impl FnOnce(crate::sys::Owned) -> std::result::Result<T, (crate::sys::Owned, crate::Error)>,
) -> Result<T> {
    #[cfg(unix)]
    let owned = {
        use std::os::fd::FromRawFd;
        if fd < 0 {
            return Err(invalid(operation, "fd is negative"));
        }
        // SAFETY: the header asks for an open descriptor that is the caller's.
        unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }
    };
    #[cfg(windows)]
    let owned = {
        use std::os::windows::io::FromRawSocket;
        if fd == usize::MAX {
            return Err(invalid(operation, "fd is INVALID_SOCKET"));
        }
        // SAFETY: the header asks for an open socket that is the caller's.
        unsafe { std::os::windows::io::OwnedSocket::from_raw_socket(fd as _) }
    };
    make(owned).map_err(|(owned, error)| {
        give_up(owned);
        error
    })
}

/// The number of a descriptor that is C's from now on.
pub(super) fn give_up(owned: crate::sys::Owned) -> keepsock_fd {
    #[cfg(unix)]
    return std::os::fd::IntoRawFd::into_raw_fd(owned);
    #[cfg(windows)]
    return std::os::windows::io::IntoRawSocket::into_raw_socket(owned) as keepsock_fd;
}

/// The number of a descriptor that is borrowed.
pub(super) fn number(borrowed: &crate::BorrowedSocket<'_>) -> keepsock_fd {
    #[cfg(unix)]
    return raw_number(std::os::fd::AsFd::as_fd(borrowed));
    #[cfg(windows)]
    return raw_number(std::os::windows::io::AsSocket::as_socket(borrowed));
}

pub(super) fn raw_number(borrowed: crate::sys::Borrowed<'_>) -> keepsock_fd {
    #[cfg(unix)]
    return std::os::fd::AsRawFd::as_raw_fd(&borrowed);
    #[cfg(windows)]
    return std::os::windows::io::AsRawSocket::as_raw_socket(&borrowed) as keepsock_fd;
}

/// Reads some bytes: waits until there is at least one, and takes what is there.
///
/// @param client  A connection.
/// @param buf     Filled with at most cap bytes.
/// @param cap     Its size; above 0.
/// @param len     Receives the number of bytes; 0: the peer closed its side.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT, _CANCELLED, _CLOSED, _RESET,
///         _DEAD, _UNREACHABLE, _STALLED, _IDLE_LIMIT, _HEARTBEAT_MISSED (it is over),
///         _WOULD_BLOCK (non-blocking mode), _DRAINING (in a keepsock_handler),
///         _TOO_LONG (keepsock_options_set_sequenced() only), _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read(
    client: *mut keepsock_client,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "read";
    let body = |socket: &ClientSocket| {
        let len = output(len, OPERATION, "len")?;
        if cap == 0 {
            return Err(no_room(OPERATION));
        }
        // SAFETY: a buffer as the header asks.
        let n = socket.read(unsafe { bytes_mut(buf, cap, OPERATION) }?)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { len.write(n) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Reads exactly len bytes, within one read timeout for all. If it fails, the
/// bytes that had come are kept for the next read (keepsock_error_transferred()
/// counts them) and the contents of buf are undefined.
///
/// @param client  A connection.
/// @param buf     Filled with len bytes.
/// @param len     How many.
/// @param error   See keepsock_error; may be NULL.
/// @return Those of keepsock_client_read(), and KEEPSOCK_ERR_END_OF_STREAM: the
///         peer closed its side before all had come. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_exact(
    client: *mut keepsock_client,
    buf: *mut c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "read";
    // SAFETY: a buffer as the header asks.
    let body = |s: &ClientSocket| s.read_exact(unsafe { bytes_mut(buf, len, OPERATION) }?);
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Reads up to and with the first delimiter. The last piece of a stream that
/// ends without one comes without. If it fails, the bytes that had come are kept
/// for the next read.
///
/// @param client     A connection.
/// @param delimiter  The byte that ends a piece.
/// @param buf        Filled with the piece, its delimiter included; no NUL is added.
/// @param cap        The maximum: the size of buf; above 0.
/// @param len        Receives the length of the piece.
/// @param error      See keepsock_error; may be NULL.
/// @return Those of keepsock_client_read(); KEEPSOCK_ERR_END_OF_STREAM: the peer
///         had closed its side before the first byte; KEEPSOCK_ERR_TOO_LONG: no
///         delimiter within cap bytes: read them with keepsock_client_read(), or
///         call again with a larger buffer. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_until(
    client: *mut keepsock_client,
    delimiter: u8,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "read";
    let body = |socket: &ClientSocket| {
        let len = output(len, OPERATION, "len")?;
        // SAFETY: a buffer as the header asks.
        let out = unsafe { bytes_mut(buf, cap, OPERATION) }?;
        if out.is_empty() {
            return Err(no_room(OPERATION));
        }
        let n = socket.read_until_bytes(delimiter, cap, |piece| {
            out[..piece.len()].copy_from_slice(piece);
            piece.len()
        })?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { len.write(n) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Reads one message that has its length before it; the prefix is taken off. A message of no bytes
/// is one. If it fails, the bytes that had come are kept for the next read.
///
/// @param client  A connection.
/// @param prefix  A value of enum keepsock_length_prefix.
/// @param buf     Filled with the message; may be NULL if cap is 0.
/// @param cap     Its size, and the longest message that is taken.
/// @param len     Receives the message's length.
/// @param error   See keepsock_error; may be NULL.
/// @return Those of keepsock_client_read(); KEEPSOCK_ERR_TOO_LONG: the prefix says more than cap;
///         KEEPSOCK_ERR_END_OF_STREAM: the peer closed before all had come. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_message(
    client: *mut keepsock_client,
    prefix: i32,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "read";
    let body = |socket: &ClientSocket| {
        let len = output(len, OPERATION, "len")?;
        let prefix = length_prefix(prefix, OPERATION)?;
        // SAFETY: a buffer as the header asks.
        let out = unsafe { bytes_mut(buf, cap, OPERATION) }?;
        let n = socket.read_message_bytes(prefix, cap, |message| {
            out[..message.len()].copy_from_slice(message);
            message.len()
        })?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { len.write(n) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

fn length_prefix(number: i32, operation: &'static str) -> Result<LengthPrefix> {
    LengthPrefix::from_number(number)
        .ok_or_else(|| invalid(operation, format!("prefix {number} is none")))
}

/// Writes one message with its length before it, in one system call.
///
/// @param client  A connection.
/// @param prefix  A value of enum keepsock_length_prefix.
/// @param buf     The message; may be NULL if len is 0.
/// @param len     How many bytes; no more than the prefix can say.
/// @param error   See keepsock_error; may be NULL. keepsock_error_transferred() counts the prefix.
/// @return Those of keepsock_client_write_all(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_message(
    client: *mut keepsock_client,
    prefix: i32,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "write";
    let body = |socket: &ClientSocket| {
        let prefix = length_prefix(prefix, OPERATION)?;
        // SAFETY: a buffer as the header asks.
        socket.write_message(prefix, unsafe { bytes(buf, len, OPERATION) }?)
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Reads one line. Its end (LF or CRLF) is taken off and a NUL is added. The
/// last line of a stream may lack its end. If it fails, the bytes that had come are
/// kept for the next read.
///
/// @param client  A connection.
/// @param buf     Filled with the line and a NUL.
/// @param cap     Its size: the line may have cap - 1 bytes.
/// @param len     Receives the length without NUL; may be NULL. The line may hold
///                NUL bytes of its own.
/// @param error   See keepsock_error; may be NULL.
/// @return Those of keepsock_client_read_until(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_line(
    client: *mut keepsock_client,
    buf: *mut c_char,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "read";
    let body = |socket: &ClientSocket| {
        // SAFETY: a buffer as the header asks.
        let out = unsafe { bytes_mut(buf, cap, OPERATION) }?;
        let Some(max) = out.len().checked_sub(1) else {
            return Err(no_room(OPERATION));
        };
        let n = socket.read_line_bytes(max, |line| {
            out[..line.len()].copy_from_slice(line);
            out[line.len()] = 0;
            line.len()
        })?;
        // SAFETY: null or writable as the header asks.
        unsafe { write_if_wanted(len, n) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// How many bytes were read ahead and wait in the library. An event loop that
/// polls the descriptor must read these first: the kernel no longer has them.
///
/// @param client  A connection, or NULL: 0.
/// @return A number of bytes. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_buffered(client: *const keepsock_client) -> usize {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(client) }.map_or(0, |c| c.socket().buffered())
}

/// Reads some bytes into several buffers, one after another: waits until there
/// is at least one byte, and takes what is there.
///
/// @param client   A connection.
/// @param buffers  The buffers.
/// @param count    How many.
/// @param len      Receives the number of bytes in all; 0: the peer closed its side.
/// @param error    See keepsock_error; may be NULL.
/// @return Those of keepsock_client_read(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_slices(
    client: *mut keepsock_client,
    buffers: *const keepsock_buffer,
    count: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "read";
    let body = |socket: &ClientSocket| {
        let len = output(len, OPERATION, "len")?;
        // SAFETY: `count` structures as the header asks.
        let buffers = unsafe { structures(buffers, count, OPERATION, "buffers") }?;
        let mut parts = buffers
            .iter()
            // SAFETY: each describes a buffer of its own as the header asks.
            .map(|b| unsafe { bytes_mut(b.data, b.cap, OPERATION) }.map(IoSliceMut::new))
            .collect::<Result<Vec<_>>>()?;
        if parts.iter().all(|part| part.is_empty()) {
            return Err(no_room(OPERATION));
        }
        let n = socket.read_slices(&mut parts)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { len.write(n) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Writes some bytes: waits until the kernel takes at least one.
/// keepsock_client_write_all() is what most programs want.
///
/// @param client   A connection.
/// @param buf      The bytes.
/// @param len      How many.
/// @param written  Receives the number that the kernel took.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT, _CANCELLED, _CLOSED, _RESET,
///         _DEAD, _UNREACHABLE, _STALLED, _IDLE_LIMIT, _HEARTBEAT_MISSED (it is over),
///         _WRONG_STATE (after
///         keepsock_client_shutdown_write()), _WOULD_BLOCK (non-blocking mode),
///         _TOO_LONG (keepsock_options_set_sequenced() only), _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write(
    client: *mut keepsock_client,
    buf: *const c_void,
    len: usize,
    written: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "write";
    let body = |socket: &ClientSocket| {
        let written = output(written, OPERATION, "written")?;
        // SAFETY: a buffer as the header asks.
        let n = socket.write(unsafe { bytes(buf, len, OPERATION) }?)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { written.write(n) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Writes all of a buffer, within one write timeout for all. If it fails,
/// keepsock_error_transferred() says how many bytes the kernel had taken.
///
/// @param client  A connection.
/// @param buf     The bytes.
/// @param len     How many.
/// @param error   See keepsock_error; may be NULL.
/// @return Those of keepsock_client_write(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_all(
    client: *mut keepsock_client,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "write";
    // SAFETY: a buffer as the header asks.
    let body = |s: &ClientSocket| s.write_all(unsafe { bytes(buf, len, OPERATION) }?);
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Writes all of a string, without its NUL.
///
/// @param client  A connection.
/// @param text    A NUL-terminated string of any encoding.
/// @param error   See keepsock_error; may be NULL.
/// @return Those of keepsock_client_write_all(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_str(
    client: *mut keepsock_client,
    text: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "write";
    let body = |s: &ClientSocket| {
        let text = output(text.cast_mut(), OPERATION, "text")?;
        // SAFETY: a NUL-terminated string as the header asks.
        s.write_all(unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Writes all of several buffers as if they were one, without copying them
/// together: a header and its body leave in one system call.
///
/// @param client  A connection.
/// @param slices  The buffers.
/// @param count   How many.
/// @param error   See keepsock_error; may be NULL.
/// @return Those of keepsock_client_write_all(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_slices(
    client: *mut keepsock_client,
    slices: *const keepsock_slice,
    count: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "write";
    let body = |socket: &ClientSocket| {
        // SAFETY: `count` structures as the header asks.
        let slices = unsafe { structures(slices, count, OPERATION, "slices") }?;
        let mut parts = slices
            .iter()
            // SAFETY: each describes a buffer as the header asks.
            .map(|s| unsafe { bytes(s.data, s.len, OPERATION) }.map(IoSlice::new))
            .collect::<Result<Vec<_>>>()?;
        socket.write_slices(&mut parts)
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Waits, without reading, until the connection ends. Data that came before the
/// end stays readable.
///
/// @param client      A connection.
/// @param timeout_ms  Milliseconds; 0: only look; KEEPSOCK_INFINITE.
/// @param end         Receives how it ended, a value of enum keepsock_end.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_TIMED_OUT: it lives; _CANCELLED, _CLOSED,
///         _DRAINING, _INVALID_ARGUMENT; _UNSUPPORTED on macOS and Windows. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_wait_hangup(
    client: *mut keepsock_client,
    timeout_ms: i64,
    end: *mut i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "wait for hang-up";
    let body = |socket: &ClientSocket| {
        let out = output(end, OPERATION, "end")?;
        let ended = socket.wait_hangup(timeout(timeout_ms, OPERATION)?)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(ended as i32) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Ends this side's stream (FIN): the peer reads to the end, and can still send.
///
/// @param client  A connection.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _RESET, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_shutdown_write(
    client: *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(client, error, "shutdown", ClientSocket::shutdown_write) }
}

/// Closes gracefully: the peer receives every byte that was written, even if it
/// is still sending. This side's stream is ended (FIN), what comes in is thrown
/// away until the peer ends its side too, then the descriptor is closed. That
/// takes at most the close timeout (2 s by default), and no time if the peer
/// ended its side before, if nothing was written, or in non-blocking mode. Calls
/// of other threads that wait end with KEEPSOCK_ERR_CLOSED; closing then waits
/// only until the peer's kernel has acknowledged everything. Closing twice is
/// fine. The object is still to be freed.
///
/// @param client  A connection.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_TIMED_OUT: the peer did not end its side in
///         time, or another thread's write was cut, so whether it has everything
///         isn't known; _RESET, _DEAD, _UNREACHABLE, _STALLED, _OS: it broke off;
///         _CANCELLED: its token was fired. The connection is closed all the same.
///         _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_close(
    client: *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(client, error, "close", ClientSocket::close) }
}

/// Breaks the connection off: RST for TCP. What the peer has not received yet is
/// lost. The object is still to be freed.
///
/// @param client  A connection.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_abort(
    client: *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |socket: &ClientSocket| {
        socket.abort();
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, "abort", body) }
}

/// Sets keepalive on the open connection; see keepsock_options_set_keepalive()
/// for the values. Values that would break what the connection was made with
/// (keepsock_options_set_dead_after(), _set_survive_idle()) are refused. If it fails,
/// the connection is left as it was.
///
/// @param client       A connection.
/// @param idle_ms      1 ms to 32,767 s; rounded up to whole seconds.
/// @param interval_ms  Likewise.
/// @param count        1 to 127.
/// @param error        See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _UNSUPPORTED (a Unix
///         socket), _CLOSED, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_keepalive(
    client: *mut keepsock_client,
    idle_ms: i64,
    interval_ms: i64,
    count: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |s: &ClientSocket| s.set_keepalive(options::keepalive(idle_ms, interval_ms, count)?);
    // SAFETY: as the header asks.
    unsafe { with(client, error, "keepalive", body) }
}

/// Turns keepalive of the open connection off.
///
/// @param client  A connection.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _UNSUPPORTED (a Unix
///         socket), _CLOSED, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_disable_keepalive(
    client: *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(client, error, "keepalive", |s| s.set_keepalive(None)) }
}

/// Reads the keepalive values that the kernel uses now.
///
/// @param client  A connection.
/// @param out     Filled in on success.
/// @param size    sizeof *out.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _UNSUPPORTED (a Unix
///         socket), _CLOSED, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_keepalive(
    client: *const keepsock_client,
    out: *mut keepsock_keepalive,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "keepalive";
    let body = |socket: &ClientSocket| {
        let value = keepalive_to_c(socket.keepalive()?);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Sets the time for each reading call as a whole. Calls under way keep theirs. On
/// Linux the kernel keeps it (SO_RCVTIMEO), whose timers get coarser with their
/// length: a call may end up to a twentieth late. So it is for writing.
///
/// @param client  A connection.
/// @param ms      Milliseconds above 0, or KEEPSOCK_INFINITE.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_read_timeout(
    client: *mut keepsock_client,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "timeout";
    let body = |s: &ClientSocket| s.set_read_timeout(timeout(ms, OPERATION)?);
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Sets the time for each writing call as a whole. Calls under way keep theirs.
///
/// @param client  A connection.
/// @param ms      Milliseconds above 0, or KEEPSOCK_INFINITE.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_write_timeout(
    client: *mut keepsock_client,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "timeout";
    let body = |s: &ClientSocket| s.set_write_timeout(timeout(ms, OPERATION)?);
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Sets how long keepsock_client_close() and keepsock_client_free() may wait for
/// the peer: what a program with a deadline for all that it does sets to what is
/// left of it.
///
/// @param client  A connection.
/// @param ms      Milliseconds; 0: not at all.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_close_timeout(
    client: *mut keepsock_client,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "timeout";
    let body = |s: &ClientSocket| {
        s.set_close_timeout(super::time(ms, OPERATION)?);
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// In non-blocking mode, calls that would wait return KEEPSOCK_ERR_WOULD_BLOCK,
/// and the descriptor has O_NONBLOCK. Calls that wait already go on.
///
/// @param client  A connection.
/// @param on      true: non-blocking.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_nonblocking(
    client: *mut keepsock_client,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(client, error, "non-blocking mode", |s| s.set_nonblocking(on)) }
}

/// Gives the connection a token that ends its calls, or takes it off. Calls under
/// way are not affected. A read then costs one poll more.
///
/// @param client  A connection.
/// @param cancel  A token, shared from then on; NULL takes it off.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_cancel(
    client: *mut keepsock_client,
    cancel: *const keepsock_cancel,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |socket: &ClientSocket| {
        // SAFETY: null, or a live token as the header asks.
        socket.set_cancel(unsafe { cancel::token(cancel, "cancel") }?);
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, "cancel", body) }
}

/// The connection's protocol, addresses and ports; also after an error and
/// after close.
///
/// @param client  A connection.
/// @param out     Filled in on success. Longer names are cut.
/// @param size    sizeof *out.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_five_tuple(
    client: *const keepsock_client,
    out: *mut keepsock_five_tuple,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "five-tuple";
    let body = |socket: &ClientSocket| {
        let value = tuple_to_c(&socket.five_tuple());
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// The five-tuple as text: "tcp 127.0.0.1:3337 -> 127.0.0.1:7788".
///
/// @param client  A connection, or NULL: "".
/// @return Text that lives as long as the object. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_name(client: *const keepsock_client) -> *const c_char {
    // SAFETY: null, or live as the header asks.
    let Some(client) = (unsafe { handle::get(client) }) else {
        return c"".as_ptr();
    };
    shield(c"".as_ptr(), || {
        client.name.get_or_init(|| c_string(client.socket().five_tuple())).as_ptr()
    })
}

/// Borrows the descriptor, for an event loop or an option that keepsock does not
/// know. It is open until the connection is closed; do not close it.
///
/// @param client  A connection.
/// @param fd      Receives it.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_fd(
    client: *const keepsock_client,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "borrow";
    let body = |socket: &ClientSocket| {
        let fd = output(fd, OPERATION, "fd")?;
        let borrowed = socket.borrow()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { fd.write(number(&borrowed)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Gives the descriptor up: the connection lives on and is the caller's to
/// close. The object is then closed, and still to be freed.
///
/// @param client  A connection.
/// @param fd      Receives the descriptor.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _WRONG_STATE while
///         another thread is in a call, or while bytes that were read ahead wait
///         (keepsock_client_buffered()): read them first. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_release_fd(
    client: *mut keepsock_client,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "release";
    let body = |socket: &ClientSocket| {
        let fd = output(fd, OPERATION, "fd")?;
        let number = give_up(socket.release()?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { fd.write(number) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Makes another object for the connection of a keepsock_handler, that outlives the handler's: to
/// push to this client from elsewhere, at any moment. The connection itself ends with its handler;
/// calls on the object are KEEPSOCK_ERR_CLOSED then, and its five-tuple and end stay readable.
///
/// @param client  The connection that a handler was lent, or another object for it.
/// @param ref     Receives the object; free it with keepsock_client_free(), which does not close
///                the connection while its handler runs.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT; _WRONG_STATE: a connection that was not
///         lent has one owner, who can share the pointer. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_ref(
    client: *const keepsock_client,
    r#ref: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "reference";
    let body = || {
        let out = output(r#ref, OPERATION, "ref")?;
        // SAFETY: null, or live as the header asks.
        let client = unsafe { live(client, OPERATION, "client") }?;
        let Held::Lent(socket) = &client.socket else {
            let detail = "not the connection of a handler";
            return Err(crate::Error::new(crate::ErrorKind::WrongState, OPERATION).detail(detail));
        };
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_client::lent(socket.clone()))) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Frees a connection; one that is still open is closed first, as
/// keepsock_client_close() does, which may take the close timeout (2 s by
/// default): keepsock_client_set_close_timeout() changes that, and
/// keepsock_client_abort() before breaks off at once. No other thread may be using
/// it. Freeing NULL, or the connection of a keepsock_handler (which is the
/// library's), does nothing.
///
/// @param client  A connection, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_free(client: *mut keepsock_client) {
    // SAFETY: null, or a connection as the header asks.
    unsafe { handle::free(client) };
}
