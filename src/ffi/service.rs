//! `keepsock_service`: serving with a thread for each connection.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::handle::{Handle, Pool};
use super::{
    Result, bytes, guard, handle, invalid, keepsock_client, keepsock_error, keepsock_server, live,
    output, text, time, timeout,
};
use crate::{ClientSocket, ServeOptions, Service, WhenFull};

/// Called once for each confirmed connection, in a thread of its own.
///
/// The connection is the library's: it is valid until the handler returns, then
/// closed as keepsock_client_close() does, and must not be freed. Inside, every
/// function may be called on it and on the service, but for
/// keepsock_service_drain(), which would wait for the handler itself.
///
/// @param client  The connection.
/// @param user    What was passed to keepsock_server_serve(). It must live until
///                keepsock_service_free() returns.
pub type keepsock_handler =
    Option<unsafe extern "C" fn(client: *mut keepsock_client, user: *mut c_void)>;

/// How keepsock_server_serve() serves.
///
/// Threads: setting needs the object for itself.
pub struct keepsock_serve_options(ServeOptions);

impl Handle for keepsock_serve_options {
    const MARK: u32 = 0x6b73_000c;
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_serve_options> = Pool::new();
        &POOL
    }
}

/// A server at work, made by keepsock_server_serve().
///
/// Threads: any thread may call any function, handlers included (but see
/// keepsock_handler). Only keepsock_service_free() needs the object for itself.
pub struct keepsock_service(Service);

impl Handle for keepsock_service {
    const MARK: u32 = 0x6b73_000e;
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_service> = Pool::new();
        &POOL
    }
}

const OPTIONS: &str = "serve options";

/// # Safety
/// `options` and `error` are null or as the header asks.
unsafe fn set(
    options: *mut keepsock_serve_options,
    error: *mut *mut keepsock_error,
    change: impl FnOnce(ServeOptions) -> Result<ServeOptions>,
) -> i32 {
    let body = || {
        // SAFETY: null, or live and ours alone as the header asks.
        let Some(options) = (unsafe { handle::get_mut(options) }) else {
            return Err(super::not_a_handle(options, OPTIONS, "options"));
        };
        options.0 = change(options.0.clone())?;
        Ok(())
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, OPTIONS, body) }
}

/// # Safety
/// `service` is null or live; `error` is null or writable.
unsafe fn with(
    service: *const keepsock_service,
    error: *mut *mut keepsock_error,
    operation: &'static str,
    body: impl FnOnce(&Service) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        body(unsafe { &live(service, operation, "service")?.0 })
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, operation, body) }
}

/// Makes serve options with the defaults.
///
/// @param options  Receives them; free them with keepsock_serve_options_free().
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_new(
    options: *mut *mut keepsock_serve_options,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = || {
        let out = output(options, OPTIONS, "options")?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_serve_options(ServeOptions::default()))) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPTIONS, body) }
}

/// How many connections are served at once, and so how many threads there are at
/// most (one more if it is to refuse). Default: 1024.
///
/// @param options  The options to change.
/// @param max      Above 0.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_max_connections(
    options: *mut keepsock_serve_options,
    max: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: ServeOptions| match max {
        0 => Err(invalid(OPTIONS, "at most zero connections")),
        _ => Ok(o.max_connections(max)),
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// What happens to a client that comes when every place is taken. Default:
/// KEEPSOCK_WHEN_FULL_WAIT.
///
/// @param options    The options to change.
/// @param when_full  A value of enum keepsock_when_full.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_when_full(
    options: *mut keepsock_serve_options,
    when_full: i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let known = [WhenFull::Wait, WhenFull::Refuse].into_iter().find(|w| *w as i32 == when_full);
    let change = |o: ServeOptions| match known {
        Some(when_full) => Ok(o.when_full(when_full)),
        None => Err(invalid(OPTIONS, format!("{when_full} is not a keepsock_when_full"))),
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// How many connections of one address are served at once; of an IPv6 /64 network, which is what one
/// host commonly has. More are accepted and reset at once, and counted (keepsock_server_counters). Not
/// for Unix sockets, whose peers have no address. Default: no limit.
///
/// @param options  The options to change.
/// @param max      At least 1.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_max_per_address(
    options: *mut keepsock_serve_options,
    max: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: ServeOptions| match max {
        0 => Err(invalid(OPTIONS, "at most zero connections of one address")),
        _ => Ok(o.max_per_address(max)),
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// Adds a network whose clients may connect. With one or more, all others are accepted and reset at
/// once, and counted (keepsock_server_counters). Default: none, so all may.
///
/// @param options  The options to change.
/// @param network  "192.0.2.0/24", "2001:db8::/32", or one address.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: not a network. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_allow(
    options: *mut keepsock_serve_options,
    network: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: ServeOptions| {
        // SAFETY: a string as the header asks.
        let network = unsafe { text(network, OPTIONS, "network") }?;
        crate::serve::network(network, OPTIONS).map(|_| o.allow(network))
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// Adds a network whose clients may not connect, even if another one allows them.
///
/// @param options  The options to change.
/// @param network  "192.0.2.0/24", "2001:db8::/32", or one address.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: not a network. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_deny(
    options: *mut keepsock_serve_options,
    network: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: ServeOptions| {
        // SAFETY: a string as the header asks.
        let network = unsafe { text(network, OPTIONS, "network") }?;
        crate::serve::network(network, OPTIONS).map(|_| o.deny(network))
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// Frees serve options. Freeing NULL does nothing.
///
/// @param options  Serve options, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_free(options: *mut keepsock_serve_options) {
    // SAFETY: null, or options as the header asks.
    unsafe { handle::free(options) };
}

/// Serves: handler is called for each confirmed connection, in a thread of its
/// own. Returns at once. The server object may be freed before the service.
///
/// @param server   A listening socket.
/// @param options  Serve options, copied; NULL for the defaults.
/// @param handler  See keepsock_handler.
/// @param user     Passed to handler; may be NULL.
/// @param service  Receives the service; free it with keepsock_service_free().
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _NO_MEMORY (no thread can be
///         started), _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_serve(
    server: *mut keepsock_server,
    options: *const keepsock_serve_options,
    handler: keepsock_handler,
    user: *mut c_void,
    service: *mut *mut keepsock_service,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "serve";
    /// C's word that handlers may use it from their threads.
    struct User(*mut c_void);
    // SAFETY: the header says that handlers run in threads of their own.
    unsafe impl Send for User {}
    // SAFETY: likewise.
    unsafe impl Sync for User {}
    impl User {
        fn get(&self) -> *mut c_void {
            self.0
        }
    }
    let body = || {
        let out = output(service, OPERATION, "service")?;
        let handler = handler.ok_or_else(|| invalid(OPERATION, "handler is NULL"))?;
        // SAFETY: null, or live, as the header asks.
        let (server, options) = unsafe {
            let options = super::optional(options, OPERATION, "options")?;
            let options = options.map_or_else(ServeOptions::default, |o| o.0.clone());
            (live(server, OPERATION, "server")?, options)
        };
        let user = User(user);
        let serve = move |socket: &Arc<ClientSocket>| {
            let mut client = handle::lend(keepsock_client::lent(socket.clone()));
            // SAFETY: the handler is C's, and the connection lives until it returns.
            unsafe { handler(client.pointer(), user.get()) };
        };
        let made = server.socket.serve_with(&options, serve)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_service(made))) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// How many connections are being served.
///
/// @param service  A service, or NULL: 0.
/// @return A number of connections. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_connections(service: *const keepsock_service) -> u32 {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(service) }.map_or(0, |s| s.0.connections())
}

/// Sends a message to every live connection (but not to those that are being
/// closed or that this side has shut down), and waits for none that is slow: a
/// client whose kernel buffer does not take the whole message at once has not
/// kept up and is reset, so it delays nobody and costs no memory. Clients that
/// another thread is writing to get their turn within 100 ms for all. Keep messages
/// well below the size of the kernel's send buffer (a few hundred KiB): one that is
/// larger resets even fast readers. The calls of a client that was reset return
/// KEEPSOCK_ERR_CLOSED in its handler.
///
/// @param service  A service.
/// @param buf      The message.
/// @param len      Its length.
/// @param sent     Receives how many clients' kernels took it; may be NULL.
/// @param cut      Receives how many were reset; may be NULL.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_broadcast(
    service: *mut keepsock_service,
    buf: *const c_void,
    len: usize,
    sent: *mut u32,
    cut: *mut u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "broadcast";
    let body = |service: &Service| {
        // SAFETY: a buffer as the header asks.
        let result = service.broadcast(unsafe { bytes(buf, len, OPERATION) }?);
        // SAFETY: each is null or writable as the header asks.
        unsafe {
            write_if_wanted(sent, result.sent);
            write_if_wanted(cut, result.cut);
        }
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
}

/// # Safety
/// `out` is null or writable.
unsafe fn write_if_wanted(out: *mut u32, value: u32) {
    if !out.is_null() {
        // SAFETY: as the caller promises.
        unsafe { out.write(value) };
    }
}

/// Stops accepting: closes the server socket, which cannot serve again. Live
/// connections go on. Stopping twice is fine.
///
/// @param service  A service.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_stop(
    service: *mut keepsock_service,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |service: &Service| {
        service.stop();
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, "stop", body) }
}

/// Waits until accepting has ended: by keepsock_service_stop() or
/// keepsock_server_close() elsewhere, or by firing the server's cancel token, as a
/// signal handler may. What main() does while the service works.
///
/// @param service     A service.
/// @param timeout_ms  Milliseconds, or KEEPSOCK_INFINITE.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_TIMED_OUT: it still accepts; the status of an
///         accept that failed for good; _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_wait(
    service: *mut keepsock_service,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "wait";
    let body = |service: &Service| service.wait(timeout(timeout_ms, OPERATION)?);
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
}

/// Ends the service in order: stops accepting (keepsock_service_stop()); tells
/// each live connection, whose reads then return KEEPSOCK_ERR_DRAINING while its
/// writes still work, so that the handler can say goodbye; waits until all handlers
/// have returned; and at the deadline resets the connections that are left. Clients
/// that still waited to be accepted are reset by the system and not counted.
///
/// @param service   A service.
/// @param limit_ms  Milliseconds from now; 0: reset all at once.
/// @param finished  Receives how many handlers ended by themselves; may be NULL.
/// @param cut       Receives how many connections were reset; may be NULL.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (from inside a handler),
///         KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_drain(
    service: *mut keepsock_service,
    limit_ms: i64,
    finished: *mut u32,
    cut: *mut u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "drain";
    let body = |service: &Service| {
        let result = service.drain(time(limit_ms, OPERATION)?)?;
        // SAFETY: each is null or writable as the header asks.
        unsafe {
            write_if_wanted(finished, result.finished);
            write_if_wanted(cut, result.cut);
        }
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
}

/// Frees a service: stops it, resets the live connections, whose calls end at
/// once, and waits until every handler has returned; drain it first to end in
/// order. After that no handler runs and user may go. Not from inside a
/// handler. Freeing NULL does nothing.
///
/// @param service  A service, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_free(service: *mut keepsock_service) {
    // SAFETY: null, or a service as the header asks.
    unsafe { handle::free(service) };
}
