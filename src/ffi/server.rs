//! `keepsock_server`.

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use super::client::{give_up, number, structures, take};
use super::handle::{Handle, Pool, Pooled};
use super::{
    Result, c_string, cancel, guard, handle, keepsock_cancel, keepsock_client, keepsock_error,
    keepsock_fd, keepsock_options, live, output, shield, timeout, write_sized,
};
use crate::{ServerSocket, TcpState};

/// A listening socket. It goes on listening while any number of connections that
/// it accepted are in use.
///
/// Threads: any number of threads may be in calls on one server, accept among
/// them. keepsock_server_close() may come from any thread at any time. Only
/// keepsock_server_free() needs the object for itself.
pub struct keepsock_server {
    pub(super) socket: ServerSocket,
    endpoints: OnceLock<Box<[CString]>>,
}

impl keepsock_server {
    pub(super) fn new(socket: ServerSocket) -> keepsock_server {
        keepsock_server { socket, endpoints: OnceLock::new() }
    }
}

impl Handle for keepsock_server {
    const MARK: u32 = 0x6b73_000a;
}

impl Pooled for keepsock_server {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_server> = Pool::new();
        &POOL
    }
}

/// What a server socket has counted since it began to listen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_server_counters {
    /// Connections handed to the program.
    pub accepted: u64,
    /// Accepts tried again after an error that concerned one connection.
    pub retried: u64,
    /// Accepts tried again because descriptors, memory or threads were used up.
    pub exhausted: u64,
    /// Connections reset because serve was full and told to refuse.
    pub refused: u64,
    /// Connections reset at once because their address had as many as it may.
    pub crowded: u64,
    /// Connections ended at once because their address, or their user, may not connect.
    pub denied: u64,
}

/// # Safety
/// `server` is null or live; `error` is null or writable.
#[inline]
unsafe fn with(
    server: *const keepsock_server,
    error: *mut *mut keepsock_error,
    operation: &'static str,
    body: impl FnOnce(&ServerSocket) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        body(unsafe { &live(server, operation, "server")?.socket })
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, operation, body) }
}

/// Listens. "*:8080" takes IPv4 and IPv6 on one port, whatever the system's
/// bindv6only says; "0.0.0.0:8080" takes IPv4 and "[::]:8080" IPv6 only;
/// "unix:/path" takes a stale path over but never that of a live server. With
/// port 0 the system chooses: keepsock_server_port(). The options hold for every
/// connection that is accepted.
///
/// @param endpoint  Where to listen.
/// @param options   Options, copied; NULL for the defaults.
/// @param server    Receives the socket; free it with keepsock_server_free().
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_ADDRESS_IN_USE, _ADDRESS_NOT_AVAILABLE,
///         _PERMISSION_DENIED, _INVALID_ENDPOINT, _NOT_FOUND, _LOOKUP_FAILED,
///         _TIMED_OUT, _CANCELLED (the lookup), _NO_DESCRIPTORS, _NO_MEMORY,
///         _UNSUPPORTED, _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_listen(
    endpoint: *const c_char,
    options: *const keepsock_options,
    server: *mut *mut keepsock_server,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "listen";
    let body = || {
        let out = output(server, OPERATION, "server")?;
        // SAFETY: a string, and null or live options, as the header asks.
        let (endpoint, options) = unsafe {
            (
                super::endpoint(endpoint, OPERATION)?,
                keepsock_options::or_default(options, OPERATION)?,
            )
        };
        let socket = ServerSocket::listen_with(endpoint, &options)?;
        let made = keepsock_server::new(socket);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Listens on several endpoints at once, TCP and Unix sockets alike: all of them or
/// none. One accept, and one keepsock_server_serve(), takes the connections of
/// all; none of them has to wait for another one's to be fewer. The options hold
/// for the connections of each; one that an endpoint cannot have is refused, as
/// are those of TCP for a Unix socket. Accepting costs one poll more.
///
/// @param endpoints  Where to listen: an array of strings.
/// @param count      How many there are; at least 1.
/// @param options    Options, copied; NULL for the defaults.
/// @param server     Receives the socket; free it with keepsock_server_free().
/// @param error      See keepsock_error; may be NULL. It names the endpoint that
///                   cannot be had; the others are then closed again, and the
///                   files of Unix sockets removed.
/// @return KEEPSOCK_OK, or those of keepsock_server_listen(); _INVALID_ARGUMENT
///         for no endpoint at all. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_listen_all(
    endpoints: *const *const c_char,
    count: usize,
    options: *const keepsock_options,
    server: *mut *mut keepsock_server,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "listen";
    let body = || {
        let out = output(server, OPERATION, "server")?;
        // SAFETY: `count` pointers, as the header asks.
        let texts = unsafe { structures(endpoints, count, OPERATION, "endpoints") }?;
        // SAFETY: each is a string, as the header asks.
        let parse = |text: &*const c_char| unsafe { super::endpoint(*text, OPERATION) };
        let endpoints = texts.iter().map(parse).collect::<Result<Vec<_>>>()?;
        // SAFETY: null, or live options as the header asks.
        let options = unsafe { keepsock_options::or_default(options, OPERATION) }?;
        let made = keepsock_server::new(ServerSocket::listen_all(endpoints, &options)?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Takes over a listening stream socket, or one for packets, as a service manager may pass it. The
/// options are set on it, also to what is off by default; only a backlog that is not given stays as
/// it was. Those that the process was started with keepsock_inherited_take() has. Other processes
/// may have it, too, and go on accepting when it is closed here; so it is non-blocking from now on,
/// in all of them, and accepting costs one poll more.
///
/// @param fd       A listening TCP or Unix socket. It belongs to the new
///                 server on success and stays the caller's on failure.
/// @param options  Options, copied; NULL for the defaults.
/// @param server   Receives the socket; free it with keepsock_server_free().
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not listening, not a
///         stream, or not for packets or Multipath TCP as the options ask), _OS (not a socket at
///         all); for the interface option _INVALID_ENDPOINT, _PERMISSION_DENIED, _UNSUPPORTED;
///         _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_from_fd(
    fd: keepsock_fd,
    options: *const keepsock_options,
    server: *mut *mut keepsock_server,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "take over";
    let body = || {
        let out = output(server, OPERATION, "server")?;
        // SAFETY: null, or live options as the header asks.
        let options = unsafe { keepsock_options::or_default(options, OPERATION) }?;
        let socket = take(fd, OPERATION, |owned| ServerSocket::from_owned(owned, &options))?;
        let made = keepsock_server::new(socket);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Waits for the next confirmed connection. On Linux that costs one system
/// call. Errors of single connections are passed over; when descriptors run out,
/// accept waits until there are some again, without using the processor.
/// keepsock_server_counters_get() tells of both.
///
/// @param server  A listening socket.
/// @param client  Receives the connection; free it with keepsock_client_free().
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT, _CANCELLED, _CLOSED,
///         _INVALID_ARGUMENT, _OS; in non-blocking mode also _WOULD_BLOCK,
///         _NO_DESCRIPTORS and _NO_MEMORY. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_accept(
    server: *mut keepsock_server,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "accept";
    let body = |socket: &ServerSocket| {
        let out = output(client, OPERATION, "client")?;
        let accepted = keepsock_client::own(socket.accept()?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(accepted)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(server, error, OPERATION, body) }
}

/// The state, by its name in RFC 9293: LISTEN, or CLOSED after keepsock_server_close().
///
/// @param server  A listening socket, or NULL: CLOSED.
/// @return A value of enum keepsock_tcp_state. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_state(server: *const keepsock_server) -> i32 {
    // SAFETY: null, or live as the header asks.
    let Some(server) = (unsafe { handle::get(server) }) else {
        return TcpState::Closed as i32;
    };
    shield(TcpState::Closed as i32, || server.socket.state() as i32)
}

/// The endpoint that it listens on, with the port that the system chose:
/// "127.0.0.1:40123". The first one if there are several.
///
/// @param server  A listening socket, or NULL: "".
/// @return Text that lives as long as the object. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_endpoint(server: *const keepsock_server) -> *const c_char {
    // SAFETY: as the header asks.
    unsafe { keepsock_server_endpoint_at(server, 0) }
}

/// How many endpoints it listens on: keepsock_server_listen_all().
///
/// @param server  A listening socket, or NULL: 0.
/// @return The number of endpoints. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_endpoint_count(server: *const keepsock_server) -> usize {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(server) }.map_or(0, |s| s.socket.endpoints().len())
}

/// One of the endpoints that it listens on, as keepsock_server_endpoint() has the
/// first one.
///
/// @param server  A listening socket, or NULL: "".
/// @param index   From 0, in the order in which they were given. "" beyond the last.
/// @return Text that lives as long as the object. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_endpoint_at(
    server: *const keepsock_server,
    index: usize,
) -> *const c_char {
    // SAFETY: null, or live as the header asks.
    let Some(server) = (unsafe { handle::get(server) }) else {
        return c"".as_ptr();
    };
    shield(c"".as_ptr(), || {
        let print = || server.socket.endpoints().map(c_string).collect();
        server.endpoints.get_or_init(print).get(index).map_or(c"".as_ptr(), |text| text.as_ptr())
    })
}

/// The port that it listens on; the first one's if there are several endpoints.
///
/// @param server  A listening socket, or NULL: 0.
/// @return The port; 0 for a Unix socket. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_port(server: *const keepsock_server) -> u16 {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(server) }.map_or(0, |s| s.socket.port())
}

/// Reads what it has counted so far, on all of its endpoints.
///
/// @param server  A listening socket; closed ones keep their counters.
/// @param out     Filled in on success.
/// @param size    sizeof *out.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_counters_get(
    server: *const keepsock_server,
    out: *mut keepsock_server_counters,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "counters";
    let body = |socket: &ServerSocket| {
        let now = socket.counters();
        let value = keepsock_server_counters {
            accepted: now.accepted,
            retried: now.retried,
            exhausted: now.exhausted,
            refused: now.refused,
            crowded: now.crowded,
            denied: now.denied,
        };
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(server, error, OPERATION, body) }
}

/// The time that an accept may wait. Default: KEEPSOCK_INFINITE. A server with a
/// limit, a token or non-blocking mode pays one poll more for each accept.
///
/// @param server  A listening socket.
/// @param ms      Milliseconds above 0, or KEEPSOCK_INFINITE.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_set_accept_timeout(
    server: *mut keepsock_server,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "accept";
    let body = |s: &ServerSocket| s.set_accept_timeout(timeout(ms, OPERATION)?);
    // SAFETY: as the header asks.
    unsafe { with(server, error, OPERATION, body) }
}

/// In non-blocking mode, accept returns KEEPSOCK_ERR_WOULD_BLOCK when nobody
/// waits to be accepted.
///
/// @param server  A listening socket.
/// @param on      true: non-blocking.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_set_nonblocking(
    server: *mut keepsock_server,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(server, error, "non-blocking mode", |s| s.set_nonblocking(on)) }
}

/// Gives accept a token that ends it, or takes it off. Accepts under way are not
/// affected.
///
/// @param server  A listening socket.
/// @param cancel  A token, shared from then on; NULL takes it off.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_set_cancel(
    server: *mut keepsock_server,
    cancel: *const keepsock_cancel,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |socket: &ServerSocket| {
        // SAFETY: null, or a live token as the header asks.
        socket.set_cancel(unsafe { cancel::token(cancel, "cancel") }?);
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(server, error, "cancel", body) }
}

/// Borrows the descriptor, for an event loop. It is open until the server is
/// closed; do not close it. With several endpoints it is the first one's.
///
/// @param server  A listening socket.
/// @param fd      Receives it.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_fd(
    server: *const keepsock_server,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "borrow";
    let body = |socket: &ServerSocket| {
        let fd = output(fd, OPERATION, "fd")?;
        let borrowed = socket.borrow()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { fd.write(number(&borrowed)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(server, error, OPERATION, body) }
}

/// Borrows the descriptor of one of several endpoints, for an event loop.
/// Whichever of them is readable, it is keepsock_server_accept() in non-blocking
/// mode that takes the connection. It is open until the server is closed; do not
/// close it.
///
/// @param server  A listening socket.
/// @param index   From 0 to keepsock_server_endpoint_count() - 1.
/// @param fd      Receives it.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_fd_at(
    server: *const keepsock_server,
    index: usize,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "borrow";
    let body = |socket: &ServerSocket| {
        let fd = output(fd, OPERATION, "fd")?;
        let borrowed = socket.borrow_at(index)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { fd.write(number(&borrowed)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(server, error, OPERATION, body) }
}

/// Gives the descriptor up: it listens on and is the caller's to close. The
/// object is then closed, and still to be freed. A Unix socket's file stays.
///
/// @param server  A listening socket.
/// @param fd      Receives the descriptor.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _WRONG_STATE while
///         another thread is in a call, and if it listens on several endpoints.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_release_fd(
    server: *mut keepsock_server,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "release";
    let body = |socket: &ServerSocket| {
        let fd = output(fd, OPERATION, "fd")?;
        let number = give_up(socket.release()?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { fd.write(number) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(server, error, OPERATION, body) }
}

/// Stops listening. Accepts of other threads return KEEPSOCK_ERR_CLOSED; a
/// service that accepts from it stops; connections that were accepted live on; other processes
/// that have the listening socket, too, go on. A Unix socket's file is removed. Closing twice is
/// fine. The object is still to be freed.
///
/// @param server  A listening socket.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_close(
    server: *mut keepsock_server,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |socket: &ServerSocket| {
        socket.close();
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(server, error, "close", body) }
}

/// Frees a server; it is closed unless a service still uses it. No other thread
/// may be using the object. Freeing NULL does nothing.
///
/// @param server  A listening socket, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_free(server: *mut keepsock_server) {
    // SAFETY: null, or a server as the header asks.
    unsafe { handle::free(server) };
}
