//! `keepsock_conn` and `keepsock_callbacks`: serving by events.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use crate::ffi::arguments::{
    Array, Bytes, ErrorOut, NO_OPERATION, Out, Ref, SizedIn, Structure, Text, User, invalid,
    no_memory, timeout,
};
use crate::ffi::handle::{Id, Pinned, Table};
use crate::ffi::{
    KEEPSOCK_INFINITE, Object, Result, borrow_file, call, call_frequent, credentials_to_c, fill,
    framing_from_c, handle, keepalive_to_c, keepsock_address, keepsock_client,
    keepsock_connection_stats, keepsock_credentials, keepsock_error, keepsock_fd,
    keepsock_five_tuple, keepsock_framing, keepsock_keepalive, keepsock_serve_options,
    keepsock_server, keepsock_service, keepsock_slice, options, overflow_policy_from_c, proxy_to_c,
    shield, snapshot_to_c, sockopt, tuple_to_c, versioned, with,
};
use crate::internal::sync::atomic::{AtomicPtr, Ordering};
use crate::internal::{event_slots, slot_index};
use crate::{CloseReason, Connection, Data, Error, ErrorKind, Handler};

/// A connection of an event-driven service (keepsock_server_serve_events()).
///
/// It is a value: copy it, store it, and compare two of them by their id. It needs no free. The
/// library creates it before on_open and ends it when on_close returns. From then on every call
/// with it returns KEEPSOCK_ERR_WRONG_STATE, also after the service was freed. No two connections
/// have the same id.
///
/// In a forked child, functions that only read the connection return its state at the time of the
/// fork. If a thread of the parent was using the connection at that time, they return the same as
/// for a connection that ended during the call.
///
/// Threads: any thread may call any function at any time, also inside callbacks. No function waits.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct keepsock_conn {
    /// Unique in the process. 0 refers to no connection.
    pub id: u64,
}

/// The connection that a [`keepsock_conn`] refers to, with the pointer of the program.
struct Entry {
    connection: Connection,
    user: AtomicPtr<c_void>,
}

handle!(Entry, Connection, "conn", connection: Connection, {
    const BLOCK: u32 = 256;
    const SLOTS: u64 = handle::ID_SLOTS;
});

/// The callbacks of an event-driven service (keepsock_server_serve_events()).
///
/// The library does not call a NULL member. The description of a member states the default action.
/// Set `size`, and set the members that you do not use to NULL, as the example of
/// keepsock_server_serve_events() does.
///
/// The callbacks of one connection run one at a time: on_open first, on_close last. With more than
/// one thread (keepsock_serve_options_set_threads()), callbacks of different connections run at the
/// same time. A callback that waits delays every connection of its thread.
///
/// The library holds no lock during a callback. A callback may call every function, on any
/// connection and on the service, except that keepsock_service_drain() and
/// keepsock_service_wait() return KEEPSOCK_ERR_WRONG_STATE, and that it must not call
/// keepsock_service_free().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_callbacks {
    /// sizeof(keepsock_callbacks).
    pub size: usize,
    /// The first callback of a connection. The service accepted the connection, or it was added by
    /// keepsock_service_add(), keepsock_service_connect() or keepsock_service_reconnect(). Default: no
    /// action.
    pub on_open: Option<unsafe extern "C" fn(conn: keepsock_conn, user: *mut c_void)>,
    /// A message arrived; without framing, some bytes arrived. The `len` bytes at `buf` are valid
    /// until the callback returns. Default: the library discards the data.
    pub on_data: Option<
        unsafe extern "C" fn(
            conn: keepsock_conn,
            buf: *const c_void,
            len: usize,
            user: *mut c_void,
        ),
    >,
    /// The send queue has become empty: the kernel has accepted all queued bytes. Default: no
    /// action.
    pub on_writable: Option<unsafe extern "C" fn(conn: keepsock_conn, user: *mut c_void)>,
    /// End of stream: the peer has shut down its write side (FIN). The peer may still read. The
    /// connection ends when this side is shut down as well (keepsock_conn_shutdown_write()) and the
    /// send queue is empty. Default: the library closes the connection.
    pub on_eof: Option<unsafe extern "C" fn(conn: keepsock_conn, user: *mut c_void)>,
    /// The timer set by keepsock_conn_set_timer() has expired. Default: no action.
    pub on_timer: Option<unsafe extern "C" fn(conn: keepsock_conn, user: *mut c_void)>,
    /// keepsock_service_drain() was called. Send the last message and close the connection.
    /// Default: the library closes the connection.
    pub on_drain: Option<unsafe extern "C" fn(conn: keepsock_conn, user: *mut c_void)>,
    /// The last callback of a connection. `reason` is a keepsock_close_reason. The statistics and
    /// the addresses of the connection are available until the callback returns. After
    /// keepsock_conn_detach() the client has the statistics.
    /// keepsock_conn_send() returns KEEPSOCK_ERR_CLOSED. Default: no action.
    pub on_close: Option<unsafe extern "C" fn(conn: keepsock_conn, reason: i32, user: *mut c_void)>,
    /// A keepsock_service_connect() failed, and the library does not call on_open for it. Or a
    /// keepsock_service_reconnect() has ended, and the library connects no more.
    /// `conn_user` is the pointer that was passed to that call. `error` is valid until the callback
    /// returns; do not free it. Default: no action.
    pub on_connect_failed: Option<
        unsafe extern "C" fn(
            error: *const keepsock_error,
            conn_user: *mut c_void,
            user: *mut c_void,
        ),
    >,
}

versioned!(keepsock_callbacks: 72);

/// The callbacks of a C program as a [`Handler`].
struct Program {
    callbacks: keepsock_callbacks,
    user: User,
    entries: Table<Entry>,
}

/// The `user` pointer for a connection that is made later.
pub(crate) fn data(pointer: *mut c_void) -> Option<Data> {
    (!pointer.is_null()).then(|| -> Data { Arc::new(User(pointer)) })
}

fn pointer_of(data: Option<&Data>) -> *mut c_void {
    data.and_then(|data| data.downcast_ref::<User>())
        .map_or(std::ptr::null_mut(), |user| user.get())
}

impl Program {
    #[inline]
    fn conn(&self, connection: &Connection) -> keepsock_conn {
        keepsock_conn { id: self.entries.id(slot_index(connection)).0 }
    }

    fn put(&self, connection: &Connection, user: *mut c_void) -> Option<Id> {
        let entry = Entry { connection: connection.clone(), user: AtomicPtr::new(user) };
        // SAFETY: a connection that opens, or that is being added, has its place alone. It puts its
        // object there once, and on_close takes it.
        unsafe { self.entries.put(slot_index(connection), entry) }
    }
}

// Each call below runs a function of the C program with the promised arguments: the id of a
// connection whose on_close callback has not returned, and the `user` that the program passed.
impl Handler for Program {
    fn reserve(&self, first: usize, count: usize) -> bool {
        self.entries.reserve(first, count)
    }

    fn prepare(&self, connection: &Connection, data: Option<&Data>) -> u64 {
        self.put(connection, pointer_of(data)).map_or(0, |Id(id)| id)
    }

    fn id(&self, connection: &Connection) -> u64 {
        let id = self.entries.id(slot_index(connection));
        // The entry may have another connection by now.
        let found = handle::pin::<Entry>(id).filter(|entry| entry.connection == *connection);
        found.map_or(0, |_| id.0)
    }

    fn on_open(&self, connection: &Connection) {
        let id = if connection.is_accepted() {
            self.put(connection, std::ptr::null_mut())
        } else {
            // `prepare` has put it there.
            Some(self.entries.id(slot_index(connection))).filter(|id| id.0 != 0)
        };
        let Some(Id(id)) = id else {
            // `reserve` has allocated the place, so this is an error of the library.
            return connection.abort();
        };
        if let Some(on_open) = self.callbacks.on_open {
            // SAFETY: the header requires a function with this signature.
            unsafe { on_open(keepsock_conn { id }, self.user.get()) };
        }
    }

    #[inline]
    fn on_data(&self, connection: &Connection, data: &[u8]) {
        if let Some(on_data) = self.callbacks.on_data {
            let conn = self.conn(connection);
            // SAFETY: as in `on_open`; `buf` is readable until the callback returns.
            unsafe { on_data(conn, data.as_ptr().cast(), data.len(), self.user.get()) };
        }
    }

    fn on_writable(&self, connection: &Connection) {
        if let Some(on_writable) = self.callbacks.on_writable {
            // SAFETY: as in `on_open`.
            unsafe { on_writable(self.conn(connection), self.user.get()) };
        }
    }

    fn on_eof(&self, connection: &Connection) {
        match self.callbacks.on_eof {
            // SAFETY: as in `on_open`.
            Some(on_eof) => unsafe { on_eof(self.conn(connection), self.user.get()) },
            None => connection.close(),
        }
    }

    fn on_timer(&self, connection: &Connection) {
        if let Some(on_timer) = self.callbacks.on_timer {
            // SAFETY: as in `on_open`.
            unsafe { on_timer(self.conn(connection), self.user.get()) };
        }
    }

    fn on_drain(&self, connection: &Connection) {
        match self.callbacks.on_drain {
            // SAFETY: as in `on_open`.
            Some(on_drain) => unsafe { on_drain(self.conn(connection), self.user.get()) },
            None => connection.close(),
        }
    }

    fn on_close(&self, connection: &Connection, reason: CloseReason) {
        let conn = self.conn(connection);
        // The id is 0 if the callback on_open of the program has not run.
        if let Some(on_close) = self.callbacks.on_close.filter(|_| conn.id != 0) {
            // SAFETY: as in `on_open`.
            unsafe { on_close(conn, reason as i32, self.user.get()) };
        }
        self.entries.take(slot_index(connection));
    }

    fn on_connect_failed(&self, error: &Error, data: Option<Data>) {
        if let Some(on_connect_failed) = self.callbacks.on_connect_failed {
            let mut error = handle::lend(keepsock_error::new(error.clone()));
            // SAFETY: as in `on_open`; the error lives until the callback returns.
            unsafe {
                on_connect_failed(error.pointer(), pointer_of(data.as_ref()), self.user.get())
            };
        }
    }
}

/// Serves many connections with few threads, one by default, and returns immediately.
///
/// Each thread runs an event loop and calls the callbacks. An idle connection uses about a hundred
/// bytes and no processor time. Any thread may send to any connection.
///
/// The event loops apply the heartbeat, idle timeout, first-byte timeout, dead_after and close
/// timeout of the server's options to the accepted connections. Read and write timeouts have no
/// effect, because no call waits.
///
/// @code
/// static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
/// {
///     keepsock_conn_send(conn, buf, len, NULL);
/// }
///
/// keepsock_callbacks callbacks = {.size = sizeof callbacks, .on_data = on_data};
/// keepsock_service *service = NULL;
/// if (keepsock_server_serve_events(server, NULL, &callbacks, NULL, &service, NULL) == KEEPSOCK_OK)
///     keepsock_service_wait_stopped(service, KEEPSOCK_INFINITE, NULL);
/// keepsock_service_free(service);
/// @endcode
///
/// @param options    Serve options, copied. NULL for the defaults.
/// @param callbacks  The callbacks, copied.
/// @param user       Passed to every callback; valid until keepsock_service_free() has returned.
/// @param service    Receives the service, before the first callback runs. Free it with
///                   keepsock_service_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: this process closed the server
///   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a callback that is set,
///     or the options have CPUs, which only Linux supports
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: a thread cannot be started, or this process or the kernel has no
///     memory
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server`, `callbacks` or `service` is NULL, no version has
///     this `callbacks->size`, or an option is out of range or has no effect here. Options of the
///     server without effect are saved SYNs, keepsock_options_set_keep_stats(), seqpacket, and the
///     read and write timeouts, which apply to a keepsock_client only
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_server_serve_events(
    server: *mut keepsock_server,
    options: *const keepsock_serve_options,
    callbacks: *const keepsock_callbacks,
    user: *mut c_void,
    service: *mut *mut keepsock_service,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `server` or `options` during the call;
    // `callbacks` is NULL or has the size that it states; `service` and `error` are NULL or
    // writable.
    let (server, options, callbacks, service, error) = unsafe {
        (
            Ref::new(server),
            Ref::new(options),
            SizedIn::new(callbacks, "callbacks"),
            Out::new(service, "service"),
            ErrorOut::new(error),
        )
    };
    with(server, error, "serve", |socket| {
        let out = service.reserved()?;
        let options = options.or_default()?;
        let program = Program {
            callbacks: callbacks.get()?,
            user: User(user),
            entries: Table::new(event_slots(&options)).ok_or_else(no_memory)?,
        };
        socket.serve_events_for(&options, program, |made| out.put(keepsock_service(made)))
    })
}

#[inline]
fn pinned(conn: keepsock_conn) -> Result<Pinned<Entry>> {
    handle::pin(Id(conn.id)).ok_or_else(|| refers_to_none(conn))
}

#[cold]
fn refers_to_none(conn: keepsock_conn) -> Error {
    if conn.id == 0 {
        return invalid("conn.id is 0, which is not a connection");
    }
    let what = format!("conn.id is {:#x}, which is not an open connection", conn.id);
    Error::new(ErrorKind::WrongState, NO_OPERATION).detail(what)
}

impl Object for keepsock_conn {
    type Target = Connection;

    #[inline]
    fn with<R>(self, body: impl FnOnce(&Connection) -> Result<R>) -> Result<R> {
        body(&pinned(self)?.connection)
    }
}

/// Calls `body` with a connection that a change can affect.
fn change(
    conn: keepsock_conn,
    error: ErrorOut<'_>,
    operation: &'static str,
    body: impl FnOnce(&Connection) -> Result<()>,
) -> i32 {
    with(conn, error, operation, |connection| {
        connection.require_live(operation)?;
        body(connection)
    })
}

/// Takes a connection out of its service, and returns it as a keepsock_client.
///
/// Nothing is sent to the peer. The program continues the connection in its own way, or adds it to
/// another service (keepsock_service_add()). Only the thread of the connection's event loop may call
/// this function: in a callback of any connection of the loop, in a timer of the service that the
/// loop calls, or in a function that is posted to the loop. The last callback, on_close with
/// KEEPSOCK_CLOSE_DETACHED, follows after the present callback.
///
/// - No received byte is lost. Reads of `client` return first the bytes at `buf`, and then the bytes
///   that the event loop has received and not delivered: the messages after the one of the present
///   on_data, and the beginning of a message. Bytes that a callback has received count as read. To
///   return the end of them to the stream, pass it in `buf`, as the example does. Before
///   on_eof the library drops an incomplete message at the end of the stream.
/// - `client` is open, in blocking mode, and has no close reason. It keeps the five-tuple, the
///   options of the kernel, the keepalive, dead_after, heartbeat, idle timeout, first-byte timeout
///   and close timeout. Their times begin again. It has no read timeout, write timeout or cancel
///   token.
/// - The connection leaves its groups and no longer counts for the limits of the service.
///   keepsock_service_drain() counts it neither as completed nor as reset. A connection of
///   keepsock_service_reconnect() is not connected again.
/// - In on_close, keepsock_conn_five_tuple() still works, and `client` has the statistics.
///
/// @code
/// static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
/// {
///     keepsock_client **worker = user; // Another thread continues with calls, and frees it.
///     if (len >= 8 && memcmp(buf, "UPGRADE\n", 8) == 0)
///         keepsock_conn_detach(conn, (const char *)buf + 8, len - 8, worker, NULL);
/// }
/// @endcode
///
/// @param buf     Bytes that `client` returns first, copied. May be NULL if `len` is 0.
/// @param len     Their number.
/// @param client  Receives the connection. Free it with keepsock_client_free().
/// @return KEEPSOCK_OK on success. Otherwise the connection is unchanged:
///   - KEEPSOCK_ERR_WOULD_BLOCK: the send queue is not empty; call the function in on_writable,
///     which is called when the queue is empty
///   - KEEPSOCK_ERR_WRONG_STATE: called in another thread than that of the connection's event loop,
///     before on_open, or in a forked child; or the connection has ended
///   - KEEPSOCK_ERR_CLOSED: the connection is closed or closing
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object or the unread bytes
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `client` is NULL, or `buf` is NULL and `len`
///     is not 0
///   - KEEPSOCK_ERR_OS: the kernel failed to change the mode of the descriptor
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_detach(
    conn: keepsock_conn,
    buf: *const c_void,
    len: usize,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `buf` has `len` readable bytes, and `client` and `error` are
    // NULL or writable.
    let (buf, client, error) =
        unsafe { (Bytes::new(buf, len), Out::new(client, "client"), ErrorOut::new(error)) };
    with(conn, error, "detach", |connection| {
        let unread = buf.get()?;
        client.create(|| Ok(keepsock_client::own(connection.detach(unread)?)))
    })
}

/// Sends a message, in the framing of the connection.
///
/// Bytes that the kernel does not accept immediately are queued. Messages are delivered in the
/// order in which they were sent. keepsock_serve_options_set_queue_limit() limits the queue, except
/// for replies: messages that the on_open, on_data, on_writable and on_eof callbacks of a
/// connection send to that same connection. With KEEPSOCK_OVERFLOW_POLICY_DROP_OLDEST the library
/// drops and counts messages that exceed the limit, and returns KEEPSOCK_OK.
///
/// @param buf  The message.
/// @param len  Its length in bytes.
/// @return KEEPSOCK_OK if the kernel accepted the message or it is queued, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection is closing: this program closed it, shut its write side
///     down or freed the service, or a timeout or limit ended it
///   - KEEPSOCK_ERR_STALLED: the message exceeds the queue limit, or the kernel accepted a part of
///     the message and this process has no memory to queue the rest; the library resets the
///     connection. Or the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel accepts no byte now, and this process has no memory to
///     queue the message. Nothing was sent, and the connection stays open
///   - KEEPSOCK_ERR_TOO_LONG: the message alone exceeds the queue limit, and nothing was sent
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `buf` is NULL and `len` is not 0, the message
///     contains the delimiter of the framing (LF with lines), is a line that ends with CR, or has a
///     length that the framing does not permit (keepsock_framing)
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
///     the service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_send(
    conn: keepsock_conn,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `buf` has `len` readable bytes, and `error` is NULL or
    // writable.
    let (buf, error) = unsafe { (Bytes::new(buf, len), ErrorOut::new(error)) };
    call_frequent(error, "send", || {
        let pinned = pinned(conn)?;
        pinned.connection.send(buf.get()?)
    })
}

/// Sends one message whose bytes are in several buffers, as keepsock_conn_send() does.
///
/// A header and a body become one message. The bytes are copied only if they must be queued.
///
/// @param slices  The buffers.
/// @param count   The number of buffers.
/// @return KEEPSOCK_OK if the kernel accepted the message or it is queued, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection is closing: this program closed it, shut its write side
///     down or freed the service, or a timeout or limit ended it
///   - KEEPSOCK_ERR_STALLED: the message exceeds the queue limit, or the kernel accepted a part of
///     the message and this process has no memory to queue the rest; the library resets the
///     connection. Or the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for a list of that many buffers; or the
///     kernel accepts no byte now, and this process has no memory to queue the message. Nothing was
///     sent, and the connection stays open
///   - KEEPSOCK_ERR_TOO_LONG: the message alone exceeds the queue limit, and nothing was sent
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `slices` or a buffer is NULL and its size is
///     not 0, or the peer would not receive the message unchanged (keepsock_framing)
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
///     the service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_send_slices(
    conn: keepsock_conn,
    slices: *const keepsock_slice,
    count: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `slices` has `count` valid elements, and `error` is NULL or
    // writable.
    let (slices, error) = unsafe { (Array::new(slices, count, "slices"), ErrorOut::new(error)) };
    call_frequent(error, "send", || {
        let pinned = pinned(conn)?;
        pinned.connection.send_slices(&slices.slices()?)
    })
}

/// Sends a part of a file after the queued messages (sendfile(2)), and returns immediately.
///
/// On Linux, macOS and FreeBSD the bytes do not pass through this process. On other systems, and if
/// sendfile(2) rejects the file, the library reads the file in pieces and sends them. After 1 MiB
/// the loop serves other connections. The kernel may wait for the disk.
///
/// The library duplicates `fd`, so the caller may close it when the function has returned. The call
/// does not use the file's own position, and changes it on Windows only. The bytes are sent as they
/// are, without the marks of the framing, and no heartbeat is sent between them.
///
/// A queued file holds a descriptor until it is sent, so at most 16 files wait for one connection.
/// RLIMIT_NOFILE must cover them for as many clients as the service has. A queued file counts 88
/// bytes for the queue limit, regardless of its length, because its bytes need no memory.
/// keepsock_conn_queued() includes its bytes.
///
/// A file that a callback sends to its own connection is a reply: the library does not read from the
/// connection while the file is queued. So with a framing a client that does not read has one queued
/// file. If one on_data answers several requests, continue in on_writable after
/// KEEPSOCK_ERR_NO_DESCRIPTORS.
///
/// keepsock_conn_close() and keepsock_conn_shutdown_write() send the file first. If the close
/// timeout expires before that, the connection is reset. If the file becomes shorter or cannot be
/// read after a part of the file was sent, the library resets the connection
/// (KEEPSOCK_CLOSE_FILE_FAILED), because the peer expects the rest. Bytes that are appended to the
/// file after the call are not sent.
///
/// Linux does not know the size of a file of /proc or /sys. The library rejects UINT64_MAX for such
/// a file, and a `len` above its content.
///
/// @code
/// static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
/// {
///     const int *file = user;
///     keepsock_conn_send_file(conn, *file, 0, UINT64_MAX, NULL);
///     keepsock_conn_close(conn, NULL);
/// }
/// @endcode
///
/// @param fd      A file that is open for reading, not a pipe or a socket. The caller keeps it. On
///                Windows it is a HANDLE, and the call moves the position of the file.
/// @param offset  Where to start, in bytes from the beginning of the file.
/// @param len     The number of bytes. UINT64_MAX means up to the present end of the file.
/// @return KEEPSOCK_OK if the kernel accepted the bytes or they are queued, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection is closing: this program closed it, shut its write side
///     down or freed the service, or a timeout or limit ended it. Or the file became shorter or
///     could not be read after its first bytes were sent: keepsock_error_transferred() returns the
///     number of sent bytes
///   - KEEPSOCK_ERR_STALLED: the file exceeds the queue limit; the library resets the connection. Or
///     the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory to queue the file; nothing was sent
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor; or 16 files,
///     or files of 2^63 bytes, wait for this connection; nothing was sent
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0; `fd` is negative, closed, a directory, a pipe,
///     a socket or not open for reading; the file does not have `len` bytes from `offset`; or `len`
///     is UINT64_MAX, and the size of the file is not known
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
///     the service runs in the parent
///   - KEEPSOCK_ERR_OS: the file cannot be read, or another error of the system
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_send_file(
    conn: keepsock_conn,
    fd: keepsock_fd,
    offset: u64,
    len: u64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "send file", |connection| {
        // SAFETY: the header requires that `fd`, if it is open, stays open during the call.
        connection.send_file(unsafe { borrow_file(&fd) }?, offset, len)
    })
}

/// Closes the connection gracefully, and returns immediately. on_close follows.
///
/// The library sends the send queue and FIN, then discards input until the peer closes its side. If
/// nothing was sent, or the peer has already closed its side, the connection ends as soon as its
/// send queue is empty. All of this takes at most the close timeout: that of the server for an
/// accepted connection, and its own for a connection of keepsock_service_connect() or
/// keepsock_service_add(). During keepsock_service_drain() the limit is the deadline of the drain.
/// Closing a connection that is closing has no effect and returns KEEPSOCK_OK.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_close(
    conn: keepsock_conn,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    change(conn, error, "close", |connection| {
        connection.close();
        Ok(())
    })
}

/// Resets the connection (RST), and returns immediately. on_close follows.
///
/// Data that the peer has not received is lost.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_abort(
    conn: keepsock_conn,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    change(conn, error, "abort", |connection| {
        connection.abort();
        Ok(())
    })
}

/// Shuts down the write side (FIN, shutdown(2) with SHUT_WR) once the send queue is sent.
///
/// The peer can still send. Later calls of keepsock_conn_send() return KEEPSOCK_ERR_CLOSED.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_shutdown_write(
    conn: keepsock_conn,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    change(conn, error, "shutdown", |connection| {
        connection.shutdown_write();
        Ok(())
    })
}

/// Sets the framing of an open connection, for received and for sent messages.
///
/// For protocols that change their framing: an upgrade, or a header in lines that is followed by
/// messages with a length. keepsock_serve_options_set_framing() sets the framing of all
/// connections.
///
/// In a callback of the connection and in a function of keepsock_conn_post(), the new framing
/// applies to the bytes after the message that the callback received, including the bytes that the
/// library has buffered. The library delivers these before it reads more. With KEEPSOCK_FRAMING_RAW
/// it delivers them as one message. From another thread, the new framing applies from the next byte
/// that the library has not begun to deliver: the bytes of an incomplete message also get the new
/// framing.
///
/// Messages that are sent after the call have the new framing. Queued messages stay as they are. If
/// the call fails, the connection is unchanged.
///
/// @code
/// static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
/// {
///     const keepsock_framing binary = {
///         .size = sizeof binary, .kind = KEEPSOCK_FRAMING_PREFIXED,
///         .length_format = KEEPSOCK_LENGTH_FORMAT_U32_BE, .max = 65536
///     };
///     if (len == 6 && memcmp(buf, "BINARY", 6) == 0) {
///         keepsock_conn_send(conn, "OK", 2, NULL);
///         keepsock_conn_set_framing(conn, &binary, NULL);
///     }
/// }
/// @endcode
///
/// @param framing  The framing, copied.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `framing` is NULL, no version has this
///     `framing->size`, or a member of `framing` is out of range or is set although its kind does
///     not use it
///   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a member that is set
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_framing(
    conn: keepsock_conn,
    framing: *const keepsock_framing,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `framing` is NULL or has the size that it states, and `error`
    // is NULL or writable.
    let (framing, error) = unsafe { (SizedIn::new(framing, "framing"), ErrorOut::new(error)) };
    with(conn, error, "framing", |connection| connection.set_framing(framing_from_c(framing)?))
}

/// Sets the queue limit of an open connection, and with it the high-water mark of replies.
///
/// keepsock_serve_options_set_queue_limit() describes both and sets them for all connections.
///
/// The limit applies at once. If the queued messages exceed it, the overflow policy of the
/// connection applies: the library resets the connection, or drops and counts the oldest messages.
/// It drops no reply and no message that is partly sent. Replies alone are no reason for a reset.
///
/// @param bytes  Bytes, above 88.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_STALLED: the queued messages exceed the limit, and the library resets the
///     connection (KEEPSOCK_OVERFLOW_POLICY_DISCONNECT)
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `bytes` is not above 88
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_queue_limit(
    conn: keepsock_conn,
    bytes: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "queue limit", |connection| connection.set_queue_limit(bytes))
}

/// Sets what happens to a pushed message that exceeds the queue limit of an open connection.
///
/// It applies to messages that are sent after the call.
/// keepsock_serve_options_set_overflow_policy() sets it for all connections.
///
/// @param overflow_policy  A keepsock_overflow_policy.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `overflow_policy` is not a
///     keepsock_overflow_policy
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_overflow_policy(
    conn: keepsock_conn,
    overflow_policy: i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "overflow policy", |connection| {
        connection.set_overflow_policy(overflow_policy_from_c(overflow_policy)?)
    })
}

/// Stops reading until keepsock_conn_resume() is called.
///
/// Input stays in the kernel, whose flow control then slows the sender down. The idle timeout does
/// not apply while the connection is paused. Use it for back-pressure, for example in a proxy whose
/// other side is slow. The library itself stops reading while too many replies are queued
/// (keepsock_serve_options_set_queue_limit()).
///
/// If the connection fails during the pause, for example because the peer resets it,
/// keepsock_conn_send() returns its error (KEEPSOCK_ERR_RESET), and keepsock_conn_close_reason()
/// the reason. After keepsock_conn_resume() the event loop delivers the bytes that arrived before,
/// and then calls on_close. Without it, on_close follows after keepsock_conn_close() or
/// keepsock_conn_abort(), at the deadline of a drain, or once the idle timeout or dead_after has
/// passed since the failure.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_pause(
    conn: keepsock_conn,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    change(conn, error, "pause", |connection| {
        connection.pause();
        Ok(())
    })
}

/// Starts reading again after keepsock_conn_pause().
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_resume(
    conn: keepsock_conn,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    change(conn, error, "resume", |connection| {
        connection.resume();
        Ok(())
    })
}

/// Returns the number of bytes in the send queue of the connection, with the unsent bytes of files.
///
/// @return A number of bytes; 0 if the connection has ended.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_conn_queued(conn: keepsock_conn) -> usize {
    let entry = handle::pin::<Entry>(Id(conn.id));
    shield(0, || entry.map_or(0, |entry| entry.connection.queued()))
}

/// Returns whether the connection is open: false once it is closing or closed.
///
/// @return Whether the connection is open; false if it has ended.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_conn_is_open(conn: keepsock_conn) -> bool {
    let entry = handle::pin::<Entry>(Id(conn.id));
    shield(false, || entry.is_some_and(|entry| entry.connection.is_open()))
}

/// Sets the timer of the connection: on_timer is called once, after `timeout_ms`.
///
/// on_timer is not called early. If the event loop is idle, it is called about 1 ms late. A new
/// timeout replaces the previous one. A connection that is closing has no timer:
/// keepsock_conn_close() stops it. The close timeout limits the time until on_close.
///
/// @param timeout_ms  Milliseconds from now. KEEPSOCK_INFINITE stops the timer.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `timeout_ms` is out of range
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_timer(
    conn: keepsock_conn,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "timer", |connection| {
        connection.set_timer(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Joins a group, to which keepsock_service_broadcast() can send.
///
/// A connection may be in any number of groups. It leaves them when it ends.
///
/// @param group  The name of the group: any text.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `group` is NULL or not UTF-8
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for another member
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_join(
    conn: keepsock_conn,
    group: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `group` is NULL or ends with NUL, and `error` is NULL or
    // writable.
    let (group, error) = unsafe { (Text::new(group, "group"), ErrorOut::new(error)) };
    with(conn, error, "join", |connection| connection.join(group.get()?))
}

/// Leaves a group, if the connection is in it.
///
/// @param group  The name of the group.
/// @return KEEPSOCK_OK on success, also if the connection is not in the group; otherwise
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `group` is NULL or not UTF-8
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_leave(
    conn: keepsock_conn,
    group: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `group` is NULL or ends with NUL, and `error` is NULL or
    // writable.
    let (group, error) = unsafe { (Text::new(group, "group"), ErrorOut::new(error)) };
    change(conn, error, "leave", |connection| {
        connection.leave(group.get()?);
        Ok(())
    })
}

/// Stores a pointer of the program with the connection. keepsock_conn_user() returns it.
///
/// The pointer is NULL at first, unless keepsock_service_add() or keepsock_service_connect() set
/// it.
///
/// @param user  Any pointer. The library does not use the memory that it points to.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_user(
    conn: keepsock_conn,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    call(error, "user", || {
        pinned(conn)?.user.store(user, Ordering::Release);
        Ok(())
    })
}

/// Returns the pointer that was stored last.
///
/// @return The pointer; NULL if none was stored, or the connection has ended.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_conn_user(conn: keepsock_conn) -> *mut c_void {
    let entry = handle::pin::<Entry>(Id(conn.id));
    entry.map_or(std::ptr::null_mut(), |entry| entry.user.load(Ordering::Acquire))
}

/// Returns why the connection ends: the first cause that was observed.
///
/// @return A keepsock_close_reason, from the cause on: KEEPSOCK_CLOSE_PEER_CLOSED already in
///   on_eof, although the connection may still send. A later failure, such as a reset, replaces
///   that reason. 0 before the cause, and after on_close.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_conn_close_reason(conn: keepsock_conn) -> i32 {
    let entry = handle::pin::<Entry>(Id(conn.id));
    let reason = || entry.and_then(|entry| entry.connection.close_reason());
    shield(0, || reason().map_or(0, |reason| reason as i32))
}

/// Returns the protocol and the addresses (getsockname(2), getpeername(2)). It also works in
/// on_close.
///
/// @param out  Receives the five-tuple.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `out` is NULL, or no version has this `size`
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_five_tuple(
    conn: keepsock_conn,
    out: *mut keepsock_five_tuple,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `out` has `size` writable bytes, and `error` is NULL or
    // writable.
    let (out, error) = unsafe { (Structure::new(out, size), ErrorOut::new(error)) };
    fill(conn, out, error, "five-tuple", |connection| Ok(tuple_to_c(&connection.five_tuple()?)))
}

/// Returns the address of the proxy through which the peer has connected
/// (keepsock_options_add_trusted_proxy()). It also works in on_close.
///
/// keepsock_conn_five_tuple() returns the addresses of the client.
///
/// @param address  Receives the address.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: no PROXY header with the addresses of a client was received
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `address` is NULL
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_proxy_address(
    conn: keepsock_conn,
    address: *mut keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `address` and `error` are NULL or writable.
    let (address, error) = unsafe { (Out::new(address, "address"), ErrorOut::new(error)) };
    with(conn, error, "proxy address", |connection| proxy_to_c(connection.proxy_address(), address))
}

/// Returns the descriptor of the connection, for getsockopt(2), setsockopt(2) and ioctl(2). It also
/// works in on_close. On Windows it is a SOCKET.
///
/// Use the descriptor inside the callbacks of this connection only. The library closes it after
/// on_close, and another thread might then use the descriptor of another file.
///
/// Do not read from it, write to it, call shutdown(2) or close(2), change O_NONBLOCK, or wait for
/// it: the event loop does these things itself. Do not read SO_ERROR of a Unix socket, because the
/// kernel reports a reset once.
///
/// @param fd  Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `fd` is NULL
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_fd(
    conn: keepsock_conn,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `fd` and `error` are NULL or writable.
    let (fd, error) = unsafe { (Out::new(fd, "fd"), ErrorOut::new(error)) };
    with(conn, error, "descriptor", |connection| {
        let out = fd.required()?;
        out.write(raw_fd(connection)?);
        Ok(())
    })
}

#[cfg(unix)]
fn raw_fd(connection: &Connection) -> Result<keepsock_fd> {
    connection.raw_fd()
}

#[cfg(windows)]
fn raw_fd(connection: &Connection) -> Result<keepsock_fd> {
    connection.raw_socket().map(|socket| socket as keepsock_fd)
}

/// Fills in a snapshot of the connection's statistics. It also works in on_close.
///
/// @param out  Receives the statistics.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `out` is NULL, or no version has this `size`
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_get_stats(
    conn: keepsock_conn,
    out: *mut keepsock_connection_stats,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `out` has `size` writable bytes, and `error` is NULL or
    // writable.
    let (out, error) = unsafe { (Structure::new(out, size), ErrorOut::new(error)) };
    fill(conn, out, error, "statistics", |connection| Ok(snapshot_to_c(&connection.stats()?)))
}

/// Returns the process, user and group of the peer of a Unix socket (SO_PEERCRED).
///
/// @param out  Receives the credentials.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: a TCP connection, or a system without peer credentials
///   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `out` is NULL, or no version has this `size`
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_peer_credentials(
    conn: keepsock_conn,
    out: *mut keepsock_credentials,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `out` has `size` writable bytes, and `error` is NULL or
    // writable.
    let (out, error) = unsafe { (Structure::new(out, size), ErrorOut::new(error)) };
    fill(conn, out, error, "peer credentials", |connection| {
        Ok(credentials_to_c(connection.peer_credentials()?))
    })
}

/// Returns the keepalive settings in effect (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL,
/// TCP_KEEPCNT).
///
/// @param out  Receives the settings.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
///   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `out` is NULL, or no version has this `size`
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_keepalive(
    conn: keepsock_conn,
    out: *mut keepsock_keepalive,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `out` has `size` writable bytes, and `error` is NULL or
    // writable.
    let (out, error) = unsafe { (Structure::new(out, size), ErrorOut::new(error)) };
    fill(conn, out, error, "keepalive", |connection| {
        Ok(match connection.keepalive()? {
            Some(values) => keepalive_to_c(true, values),
            None => keepalive_to_c(false, connection.keepalive_values()?),
        })
    })
}

/// Sets an option of the operating system on an open connection (setsockopt(2)).
///
/// For the options that may change after the handshake: the sizes of the buffers, tos,
/// notsent_lowat, mark, priority, oob_inline, nodelay and cork. If the call fails, the connection
/// is unchanged.
///
/// @param option  A keepsock_sockopt.
/// @param value   The value. An option that is off or on has 0 or 1.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `option` is not a keepsock_sockopt, `value`
///     is out of its range, or the option has no effect on an open connection
///   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set it
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
///     the service runs in the parent
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_sockopt(
    conn: keepsock_conn,
    option: i32,
    value: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "sockopt", |connection| connection.set_sockopt(sockopt(option)?, value))
}

/// Returns the value of an option of the operating system that the kernel uses (getsockopt(2)).
///
/// @param option  A keepsock_sockopt.
/// @param value   Receives the value. Linux returns twice the size of a buffer that was set.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `option` is not a keepsock_sockopt, or
///     `value` is NULL
///   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_sockopt(
    conn: keepsock_conn,
    option: i32,
    value: *mut u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `value` and `error` are NULL or writable.
    let (value, error) = unsafe { (Out::new(value, "value"), ErrorOut::new(error)) };
    with(conn, error, "sockopt", |connection| {
        let value = value.required()?;
        value.write(connection.sockopt(sockopt(option)?)?);
        Ok(())
    })
}

/// Sets the keepalive values of an open connection (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
///
/// keepsock_options_set_keepalive() describes the values. If the call fails, the connection is
/// unchanged.
///
/// @param conn         The connection.
/// @param idle_ms      1 to 32,767,000 milliseconds, rounded up to whole seconds. KEEPSOCK_INFINITE
///                     turns keepalive off; `interval_ms` and `count` are then ignored.
/// @param interval_ms  1 to 32,767,000 milliseconds, rounded up to whole seconds.
/// @param count        1 to 127.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, out of range, or the values contradict
///     dead_after or the middlebox timeout
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
///     the service runs in the parent
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_keepalive(
    conn: keepsock_conn,
    idle_ms: i64,
    interval_ms: i64,
    count: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "keepalive", |connection| {
        connection.set_keepalive(options::keepalive(idle_ms, interval_ms, count)?)
    })
}

/// Sets dead_after of an open connection: the time within which a vanished peer is detected.
///
/// keepsock_options_set_dead_after() describes it. The function adjusts keepalive to fit, unless
/// the program set keepalive itself. The peer of a Unix socket cannot vanish. If the call fails,
/// the connection is unchanged.
///
/// @param conn        The connection.
/// @param timeout_ms  2,000 to 163,880,000 milliseconds. KEEPSOCK_INFINITE turns it off.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0; out of range; keepalive is off, or detects a
///     dead peer later; KEEPSOCK_INFINITE with fail_on_stall; Multipath TCP
///   - KEEPSOCK_ERR_UNSUPPORTED: NetBSD, OpenBSD and illumos
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: KEEPSOCK_INFINITE needs a free descriptor for a moment
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids a TCP socket
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_dead_after(
    conn: keepsock_conn,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "dead_after", |connection| {
        connection.set_dead_after(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Sets the idle timeout of an open connection.
///
/// keepsock_options_set_idle_timeout() describes it. If the call fails, the connection is
/// unchanged.
///
/// @param conn        The connection.
/// @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns it off.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0; out of range; not above the heartbeat
///     interval; KEEPSOCK_INFINITE with idle_receive_only
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_idle_timeout(
    conn: keepsock_conn,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "idle timeout", |connection| {
        connection.set_idle_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Sets the heartbeat of an open connection, which keepsock_options_set_heartbeat() describes.
///
/// @param conn         The connection.
/// @param interval_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns the heartbeat off.
/// @param buf          The bytes of a heartbeat, copied. With KEEPSOCK_INFINITE it is ignored and
///                     may be NULL.
/// @param len          The number of bytes, greater than 0.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0; NULL; no bytes; out of range; not below the
///     idle timeout; KEEPSOCK_INFINITE with a heartbeat timeout
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the bytes
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_heartbeat(
    conn: keepsock_conn,
    interval_ms: i64,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    let len = if interval_ms == KEEPSOCK_INFINITE { 0 } else { len };
    // SAFETY: the header requires that `buf` has `len` readable bytes, and `error` is NULL or
    // writable.
    let (buf, error) = unsafe { (Bytes::new(buf, len), ErrorOut::new(error)) };
    with(conn, error, "heartbeat", |connection| {
        let interval = timeout("interval_ms", interval_ms)?;
        connection.set_heartbeat(buf.get()?, interval)
    })
}

/// Sets the heartbeat timeout of an open connection.
///
/// keepsock_options_set_heartbeat_timeout() describes it. If the call fails, the connection is
/// unchanged.
///
/// @param conn        The connection.
/// @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns it off.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, out of range, or the connection has no
///     heartbeat
///   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
///   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
///     service runs in the parent
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_set_heartbeat_timeout(
    conn: keepsock_conn,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    with(conn, error, "heartbeat timeout", |connection| {
        connection.set_heartbeat_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}
