//! `keepsock_connection` and `keepsock_callbacks`: serving by events.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};

use super::alive::{keepsock_snapshot, snapshot_to_c};
use super::client::{keepalive_to_c, keepsock_five_tuple, keepsock_keepalive, tuple_to_c};
use super::handle::{Handle, Piece, Table, Tabled};
use super::rights::{credentials_to_c, keepsock_credentials};
use super::{
    Result, bytes, guard, handle, invalid, keepsock_error, keepsock_serve_options, keepsock_server,
    keepsock_service, live, output, shield, text, timeout, write_sized, write_text,
};
use crate::{Connection, Data, End, Error, Handler, ServeOptions};

/// A connection that is served by events: keepsock_server_serve_events(). It is the library's, and
/// valid from its open callback until its close callback returns; it is never freed. After that
/// every call says KEEPSOCK_ERR_WRONG_STATE, until its memory is used for another connection of the
/// service: do not keep it longer.
///
/// Threads: any thread may call any function at any time, callbacks included; none waits.
pub struct keepsock_connection {
    connection: Connection,
    data: AtomicPtr<c_void>,
}

impl Handle for keepsock_connection {
    const MARK: u32 = 0x6b73_0022;
}

impl Tabled for keepsock_connection {
    fn rested() -> &'static Mutex<Vec<Piece<Self>>> {
        static RESTED: Mutex<Vec<Piece<keepsock_connection>>> = Mutex::new(Vec::new());
        &RESTED
    }
}

/// What a program does about the connections of keepsock_server_serve_events(). A member that is
/// NULL is not called; what the library does then is said there. Set all that you do not use to 0,
/// as `keepsock_callbacks callbacks = {.size = sizeof callbacks, .data = on_data};` does.
///
/// For one connection the calls come one at a time, open first and close last. With more than one
/// thread (keepsock_serve_options_set_threads()) those for different connections come at once. A
/// call that waits holds up all connections of its thread.
///
/// No lock is held meanwhile: from inside any of them every function may be called, on any
/// connection and on the service, except for keepsock_service_drain(), which says
/// KEEPSOCK_ERR_WRONG_STATE, and keepsock_service_free().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_callbacks {
    /// sizeof(keepsock_callbacks).
    pub size: usize,
    /// A connection was accepted, or added by keepsock_service_add() or keepsock_service_connect().
    pub open: Option<unsafe extern "C" fn(connection: *mut keepsock_connection, user: *mut c_void)>,
    /// A message came, of len bytes at data, which are valid until the call returns; without
    /// framing some bytes. NULL: what comes is thrown away.
    pub data: Option<
        unsafe extern "C" fn(
            connection: *mut keepsock_connection,
            data: *const c_void,
            len: usize,
            user: *mut c_void,
        ),
    >,
    /// All that waited for the peer has been taken by the kernel.
    pub writable:
        Option<unsafe extern "C" fn(connection: *mut keepsock_connection, user: *mut c_void)>,
    /// The peer has ended its side (FIN): nothing more comes, but it may still read. NULL: the
    /// connection is closed. It is over when this side has ended, too
    /// (keepsock_connection_shutdown_write()), and everything was sent.
    pub finished:
        Option<unsafe extern "C" fn(connection: *mut keepsock_connection, user: *mut c_void)>,
    /// The time has come that keepsock_connection_set_timer() was given.
    pub timer:
        Option<unsafe extern "C" fn(connection: *mut keepsock_connection, user: *mut c_void)>,
    /// The service drains: say goodbye, and close. NULL: the connection is closed.
    pub drain:
        Option<unsafe extern "C" fn(connection: *mut keepsock_connection, user: *mut c_void)>,
    /// The connection is over, and why: a value of enum keepsock_end. Its addresses can still be
    /// asked for, nothing can be sent.
    pub close: Option<
        unsafe extern "C" fn(connection: *mut keepsock_connection, end: i32, user: *mut c_void),
    >,
    /// A keepsock_service_connect() has come to nothing: no connection was opened for this data.
    /// The error is valid until the call returns, and not to be freed.
    pub connect_failed: Option<
        unsafe extern "C" fn(error: *const keepsock_error, data: *mut c_void, user: *mut c_void),
    >,
}

/// What C was called with, as the Rust API wants it.
struct Program {
    callbacks: keepsock_callbacks,
    user: *mut c_void,
    connections: Table<keepsock_connection>,
}

// SAFETY: the header says that callbacks run in threads of the library's, with user.
unsafe impl Send for Program {}
// SAFETY: likewise, in several at once.
unsafe impl Sync for Program {}

/// C's pointer, which goes with a connection.
struct Pointer(*mut c_void);
// SAFETY: it is only handed back.
unsafe impl Send for Pointer {}
// SAFETY: likewise.
unsafe impl Sync for Pointer {}

/// C's data for a connection that is made later.
pub(super) fn data(pointer: *mut c_void) -> Option<Data> {
    (!pointer.is_null()).then(|| -> Data { Arc::new(Pointer(pointer)) })
}

fn pointer_of(data: Option<Data>) -> *mut c_void {
    data.and_then(|data| data.downcast::<Pointer>().ok()).map_or(std::ptr::null_mut(), |p| p.0)
}

impl Program {
    #[inline]
    fn handle(&self, connection: &Connection) -> *mut keepsock_connection {
        self.connections.pointer(connection.place())
    }
}

// SAFETY: for each call below, the function is C's, the handle lives from open to close, and
// user is what C gave for it.
impl Handler for Program {
    fn open(&self, connection: &Connection) {
        let data = AtomicPtr::new(pointer_of(connection.any_data()));
        let handle = keepsock_connection { connection: connection.clone(), data };
        // SAFETY: the place is empty: its connection before was closed.
        let handle = unsafe { self.connections.put(connection.place(), handle) };
        if let Some(open) = self.callbacks.open {
            // SAFETY: see above.
            unsafe { open(handle, self.user) };
        }
    }

    #[inline]
    fn data(&self, connection: &Connection, data: &[u8]) {
        if let Some(on_data) = self.callbacks.data {
            let handle = self.handle(connection);
            // SAFETY: see above; the bytes are readable.
            unsafe { on_data(handle, data.as_ptr().cast(), data.len(), self.user) };
        }
    }

    fn writable(&self, connection: &Connection) {
        if let Some(writable) = self.callbacks.writable {
            // SAFETY: see above.
            unsafe { writable(self.handle(connection), self.user) };
        }
    }

    fn finished(&self, connection: &Connection) {
        match self.callbacks.finished {
            // SAFETY: see above.
            Some(finished) => unsafe { finished(self.handle(connection), self.user) },
            None => connection.close(),
        }
    }

    fn timer(&self, connection: &Connection) {
        if let Some(timer) = self.callbacks.timer {
            // SAFETY: see above.
            unsafe { timer(self.handle(connection), self.user) };
        }
    }

    fn drain(&self, connection: &Connection) {
        match self.callbacks.drain {
            // SAFETY: see above.
            Some(drain) => unsafe { drain(self.handle(connection), self.user) },
            None => connection.close(),
        }
    }

    fn close(&self, connection: &Connection, end: End) {
        if let Some(close) = self.callbacks.close {
            // SAFETY: see above.
            unsafe { close(self.handle(connection), end as i32, self.user) };
        }
        // SAFETY: the header asks that nobody uses it after its close callback.
        unsafe { self.connections.take(connection.place()) };
    }

    fn connect_failed(&self, error: &Error, data: Option<Data>) {
        if let Some(failed) = self.callbacks.connect_failed {
            let mut error = handle::lend(keepsock_error::new(error.clone()));
            // SAFETY: see above; the error lives until the call returns.
            unsafe { failed(error.pointer(), pointer_of(data), self.user) };
        }
    }
}

/// The callbacks of a header of any version: what it did not have is NULL.
///
/// # Safety
/// `callbacks` is null, or points to as many bytes as its first member says.
unsafe fn read_callbacks(
    callbacks: *const keepsock_callbacks,
    operation: &'static str,
) -> Result<keepsock_callbacks> {
    let from = output(callbacks.cast_mut(), operation, "callbacks")?.cast_const();
    // SAFETY: not null, and the first member is there in every version.
    let size = unsafe { (&raw const (*from).size).read() };
    let known = size_of::<keepsock_callbacks>();
    if size < 2 * size_of::<usize>() || size > 64 * size_of::<usize>() {
        return Err(invalid(
            operation,
            format!("callbacks.size is {size}: write sizeof callbacks"),
        ));
    }
    // SAFETY: an all-zero structure is one whose members are all NULL.
    let mut copy: keepsock_callbacks = unsafe { std::mem::zeroed() };
    // SAFETY: `size` bytes are readable as the caller promises, `known` writable.
    unsafe {
        let to = (&raw mut copy).cast::<u8>();
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), to, size.min(known));
        for at in known..size {
            if from.cast::<u8>().add(at).read() != 0 {
                return Err(Error::new(crate::ErrorKind::Unsupported, operation)
                    .detail("a callback that this version of the library does not know"));
            }
        }
    }
    Ok(copy)
}

/// Serves many connections on few threads, one by default: the callbacks are called when something
/// occurs. Returns at once. The server object may be freed before the service.
///
/// A connection that is idle costs about a hundred bytes and no time. Each may be sent to from any
/// thread; what a slow client does not take waits within
/// keepsock_serve_options_set_max_queued() bytes. The options that the server listens with hold for
/// connections: heartbeat, idle limit, first-byte limit, dead_after and close timeout are kept by
/// the library's threads; read and write timeouts are for calls that wait, which there are none of,
/// and saved SYNs and last snapshots for a keepsock_client.
///
/// @param server     A listening socket.
/// @param options    Serve options, copied; NULL for the defaults.
/// @param callbacks  Copied.
/// @param user       Passed to the callbacks; may be NULL. It must live until
///                   keepsock_service_free() returns.
/// @param service    Receives the service, before the first callback, so that user may be where it
///                   is kept; free it with keepsock_service_free().
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _NO_MEMORY and _NO_DESCRIPTORS (a thread or its poller
///         cannot be made), _INVALID_ARGUMENT, _OS; _UNSUPPORTED on Windows. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_serve_events(
    server: *mut keepsock_server,
    options: *const keepsock_serve_options,
    callbacks: *const keepsock_callbacks,
    user: *mut c_void,
    service: *mut *mut keepsock_service,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "serve";
    let body = || {
        let out = output(service, OPERATION, "service")?;
        // SAFETY: null, or live, or as large as it says, as the header asks.
        let (server, options, callbacks) = unsafe {
            let options = super::optional(options, OPERATION, "options")?;
            let options = options.map_or_else(ServeOptions::default, |o| o.0.clone());
            let callbacks = read_callbacks(callbacks, OPERATION)?;
            (live(server, OPERATION, "server")?, options, callbacks)
        };
        let connections = Table::new(options.event_connections());
        let program = Program { callbacks, user, connections };
        server.socket.serve_events_for(&options, program, |made| {
            // SAFETY: not null, and writable as the header asks.
            unsafe { out.write(handle::give(keepsock_service(made))) };
        })
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// # Safety
/// `connection` is null or was valid once; `error` is null or writable.
#[inline]
unsafe fn with(
    connection: *const keepsock_connection,
    error: *mut *mut keepsock_error,
    operation: &'static str,
    body: impl FnOnce(&Connection) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        body(unsafe { &live(connection, operation, "connection")?.connection })
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, operation, body) }
}

/// Sends a message, in the service's framing. What the kernel does not take now waits in this
/// program; what is sent later comes later.
///
/// @param connection  A connection.
/// @param buf         The message.
/// @param len         Its length.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK: the kernel has it, or it waits its turn (or messages were dropped and
///         counted, if that is the policy); KEEPSOCK_ERR_CLOSED: the connection is over, or
///         closing; _STALLED: more would wait than may, and it is being reset; _RESET and others:
///         it has broken off; _TOO_LONG: the message alone is more than may wait, and nothing was
///         sent; _INVALID_ARGUMENT (the prefix cannot say its length, too), _WRONG_STATE.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_send(
    connection: *mut keepsock_connection,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "send";
    let body = |connection: &Connection| {
        // SAFETY: a buffer as the header asks.
        connection.send(unsafe { bytes(buf, len, OPERATION) }?)
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}

/// Closes: what was sent is delivered, then this side is ended (FIN), and what comes in is thrown
/// away until the peer has ended its side, too; for at most the close timeout that the server
/// listens with, in all. The close callback follows. Returns at once; closing twice is fine.
///
/// @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_close(connection: *mut keepsock_connection) {
    // SAFETY: null, or valid once as the header asks.
    if let Some(handle) = unsafe { handle::get(connection) } {
        shield((), || handle.connection.close());
    }
}

/// Breaks the connection off (RST). What the peer has not received yet is lost. The close callback
/// follows.
///
/// @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_abort(connection: *mut keepsock_connection) {
    // SAFETY: null, or valid once as the header asks.
    if let Some(handle) = unsafe { handle::get(connection) } {
        shield((), || handle.connection.abort());
    }
}

/// Ends this side's stream (FIN) once what waits was sent; the peer can still send.
///
/// @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_shutdown_write(connection: *mut keepsock_connection) {
    // SAFETY: null, or valid once as the header asks.
    if let Some(handle) = unsafe { handle::get(connection) } {
        shield((), || handle.connection.shutdown_write());
    }
}

/// Reads no more until keepsock_connection_resume(): what comes waits in the kernel, and then at
/// the sender. For those who pass on what they read, when it is not taken fast enough. Limits on
/// idle time do not count meanwhile.
///
/// @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_pause(connection: *mut keepsock_connection) {
    // SAFETY: null, or valid once as the header asks.
    if let Some(handle) = unsafe { handle::get(connection) } {
        shield((), || handle.connection.pause());
    }
}

/// Reads on after keepsock_connection_pause().
///
/// @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_resume(connection: *mut keepsock_connection) {
    // SAFETY: null, or valid once as the header asks.
    if let Some(handle) = unsafe { handle::get(connection) } {
        shield((), || handle.connection.resume());
    }
}

/// How many bytes wait in this program for the peer.
///
/// @param connection  A connection; 0 for NULL and those that are over.
/// @return A number of bytes. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_queued(
    connection: *const keepsock_connection,
) -> usize {
    // SAFETY: null, or valid once as the header asks.
    let handle = unsafe { handle::get(connection) };
    shield(0, || handle.map_or(0, |handle| handle.connection.queued()))
}

/// Whether it can still be sent to.
///
/// @param connection  A connection; false for NULL and those that are over.
/// @return Whether it is open. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_is_open(
    connection: *const keepsock_connection,
) -> bool {
    // SAFETY: null, or valid once as the header asks.
    let handle = unsafe { handle::get(connection) };
    shield(false, || handle.is_some_and(|handle| handle.connection.is_open()))
}

/// Has the timer callback called once, some tens of milliseconds late at most. One timer for each
/// connection: a new time replaces the old one.
///
/// @param connection  A connection.
/// @param time_ms     Milliseconds from now; KEEPSOCK_INFINITE takes the timer back.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_set_timer(
    connection: *mut keepsock_connection,
    time_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "timer";
    let body = |connection: &Connection| {
        connection.set_timer(timeout(time_ms, OPERATION)?);
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}

/// Joins a group, which keepsock_service_broadcast_to() sends to. There is no limit to how many a
/// connection is in; it leaves them when it is over.
///
/// @param connection  A connection.
/// @param group       Any name.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_join(
    connection: *mut keepsock_connection,
    group: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "join";
    let body = |connection: &Connection| {
        // SAFETY: a string as the header asks.
        connection.join(unsafe { text(group, OPERATION, "group") }?)
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}

/// Leaves a group, if it is in it.
///
/// @param connection  A connection.
/// @param group       Its name.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_leave(
    connection: *mut keepsock_connection,
    group: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "leave";
    let body = |connection: &Connection| {
        // SAFETY: a string as the header asks.
        connection.leave(unsafe { text(group, OPERATION, "group") }?);
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}

/// Keeps a pointer of the program's with the connection.
///
/// @param connection  A connection; NULL and those that are over are left alone.
/// @param data        The program's; NULL is what there is at first. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_set_data(
    connection: *mut keepsock_connection,
    data: *mut c_void,
) {
    // SAFETY: null, or valid once as the header asks.
    if let Some(handle) = unsafe { handle::get(connection) } {
        handle.data.store(data, Ordering::Release);
    }
}

/// The pointer that was kept last: by keepsock_connection_set_data(), or with
/// keepsock_service_add() or keepsock_service_connect(), from the beginning.
///
/// @param connection  A connection; NULL for NULL and those that are over.
/// @return The pointer. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_data(
    connection: *const keepsock_connection,
) -> *mut c_void {
    // SAFETY: null, or valid once as the header asks.
    let handle = unsafe { handle::get(connection) };
    handle.map_or(std::ptr::null_mut(), |handle| handle.data.load(Ordering::Acquire))
}

/// A number that no other connection of the service has while this one lives, nor for long after.
///
/// @param connection  A connection; 0 for NULL and those that are over.
/// @return The number. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_id(connection: *const keepsock_connection) -> u64 {
    // SAFETY: null, or valid once as the header asks.
    unsafe { handle::get(connection) }.map_or(0, |handle| handle.connection.id())
}

/// Why it ended, as far as that is known.
///
/// @param connection  A connection; 0 for NULL and those that are over.
/// @return A value of enum keepsock_end; 0: it lives. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_end(connection: *const keepsock_connection) -> i32 {
    // SAFETY: null, or valid once as the header asks.
    let handle = unsafe { handle::get(connection) };
    let end = || handle.and_then(|handle| handle.connection.end()).map_or(0, |end| end as i32);
    shield(0, end)
}

/// Protocol, local and remote address; in the close callback, too.
///
/// @param connection  A connection.
/// @param out         Filled in on success.
/// @param size        sizeof *out.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_five_tuple(
    connection: *const keepsock_connection,
    out: *mut keepsock_five_tuple,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "five-tuple";
    let body = |connection: &Connection| {
        let value = tuple_to_c(&connection.five_tuple()?);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}

/// The five-tuple as text: "tcp 127.0.0.1:7788 -> 127.0.0.1:3337".
///
/// @param connection  A connection.
/// @param buf         Receives the text with its final NUL; may be NULL if cap is 0.
/// @param cap         Its size; 256 is enough.
/// @param needed      Receives the size that is needed, also if cap is below; may be NULL.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_TOO_LONG: cap is too small, and buf was left alone;
///         _INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_name(
    connection: *const keepsock_connection,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "name";
    let body = |connection: &Connection| {
        // SAFETY: a buffer of `cap` bytes, and null or writable, as the header asks.
        unsafe { write_text(buf, cap, needed, connection.five_tuple()?, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}

/// What is known of the connection now: state, times, bytes on their way, counters.
///
/// @param connection  A connection.
/// @param out         Filled in on success.
/// @param size        sizeof *out.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE; _UNSUPPORTED or _OS if the
///         system does not tell. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_snapshot(
    connection: *const keepsock_connection,
    out: *mut keepsock_snapshot,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "snapshot";
    let body = |connection: &Connection| {
        let value = snapshot_to_c(&connection.snapshot()?);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}

/// Who the peer is, on a Unix socket.
///
/// @param connection  A connection.
/// @param out         Filled in on success.
/// @param size        sizeof *out.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (TCP), _CLOSED (after the close callback),
///         _INVALID_ARGUMENT, _WRONG_STATE, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_peer_credentials(
    connection: *const keepsock_connection,
    out: *mut keepsock_credentials,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "peer credentials";
    let body = |connection: &Connection| {
        let out = output(out, OPERATION, "out")?;
        let value = credentials_to_c(connection.peer_credentials()?);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}

/// The keepalive values that the kernel uses.
///
/// @param connection  A connection.
/// @param out         Filled in on success.
/// @param size        sizeof *out.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connection_keepalive(
    connection: *const keepsock_connection,
    out: *mut keepsock_keepalive,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "keepalive";
    let body = |connection: &Connection| {
        let value = keepalive_to_c(connection.keepalive()?);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(connection, error, OPERATION, body) }
}
