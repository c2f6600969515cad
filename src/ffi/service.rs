//! `keepsock_service`: a server at work, with a thread for each connection or by events.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::alive::number;
use super::handle::{Handle, Pool, Pooled};
use super::{
    Result, bytes, guard, handle, invalid, keepsock_client, keepsock_error, keepsock_options,
    keepsock_server, live, millis, output, text, time, timeout, write_if_wanted, write_sized,
    write_text,
};
use crate::{
    Broadcast, Bytes, ClientSocket, Framing, LengthPrefix, ServeOptions, Service, WhenFull,
    WhenSlow,
};

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

/// How keepsock_server_serve() and keepsock_server_serve_events() serve.
///
/// Threads: setting needs the object for itself.
pub struct keepsock_serve_options(pub(super) ServeOptions);

impl Handle for keepsock_serve_options {
    const MARK: u32 = 0x6b73_000c;
}

impl Pooled for keepsock_serve_options {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_serve_options> = Pool::new();
        &POOL
    }
}

/// A server at work, made by keepsock_server_serve() or keepsock_server_serve_events().
///
/// Threads: any thread may call any function, handlers included (but see
/// keepsock_handler and keepsock_callbacks). Only keepsock_service_free() needs the object for
/// itself.
pub struct keepsock_service(pub(super) Service);

impl Handle for keepsock_service {
    const MARK: u32 = 0x6b73_000e;
}

impl Pooled for keepsock_service {
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

/// How many connections are served at once. With a thread for each that is how many threads there
/// are at most (one more if it is to refuse). Default: 1024 for keepsock_server_serve(), 65,536 for
/// keepsock_server_serve_events(), where it may be up to 16,777,216.
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

/// How many connections of one address are served at once; of an IPv6 /64 network, which is what
/// one host commonly has. More are accepted and reset at once, and counted
/// (keepsock_server_counters). Not for Unix sockets, whose peers have no address. Default: no
/// limit.
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

/// How many threads serve, fixed. For keepsock_server_serve() a pool that is started at once and
/// stays, each thread with one connection at a time; clients beyond that wait or are refused as
/// when it is full. Default there: as many as there are connections, started when they come. For
/// keepsock_server_serve_events() each has its share of the connections, at most 256 threads.
/// Default there: one, so no two callbacks run at once.
///
/// @param options  The options to change.
/// @param threads  Above 0.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_threads(
    options: *mut keepsock_serve_options,
    threads: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: ServeOptions| match threads {
        0 => Err(invalid(OPTIONS, "no threads")),
        _ => Ok(o.threads(threads)),
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// For keepsock_server_serve_events(): the data callback gets lines, without the LF or CRLF at
/// their end, and LF is added to what is sent. The last line of a stream may come without. A longer
/// line ends its connection, and nobody else's (KEEPSOCK_END_TOO_LONG). Default: bytes as they
/// come.
///
/// @param options  The options to change.
/// @param max      Bytes in a line, above 0.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_lines(
    options: *mut keepsock_serve_options,
    max: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set_framing(options, Framing::Lines { max }, error) }
}

/// As keepsock_serve_options_set_lines(), with a delimiter of the protocol's own.
///
/// @param options    The options to change.
/// @param delimiter  What ends a message.
/// @param max        Bytes in a message, above 0; the delimiter does not count.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_delimiter(
    options: *mut keepsock_serve_options,
    delimiter: u8,
    max: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set_framing(options, Framing::Delimited { delimiter, max }, error) }
}

/// As keepsock_serve_options_set_lines(), for messages that have their length before them: it is
/// taken off for the data callback, and added to what is sent. A message that the stream ends
/// within is dropped.
///
/// @param options  The options to change.
/// @param prefix   A value of enum keepsock_length_prefix.
/// @param max      Bytes in a message, above 0; the prefix does not count.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_length_prefix(
    options: *mut keepsock_serve_options,
    prefix: i32,
    max: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    match LengthPrefix::from_number(prefix) {
        // SAFETY: as the header asks.
        Some(prefix) => unsafe { set_framing(options, Framing::Prefixed { prefix, max }, error) },
        None => {
            let what = format!("{prefix} is not a keepsock_length_prefix");
            // SAFETY: as the header asks.
            unsafe { set(options, error, |_| Err(invalid(OPTIONS, what))) }
        }
    }
}

/// # Safety
/// As for [`set`].
unsafe fn set_framing(
    options: *mut keepsock_serve_options,
    framing: Framing,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: ServeOptions| {
        framing.validate(OPTIONS)?;
        Ok(o.framing(framing))
    };
    // SAFETY: as the caller promises.
    unsafe { set(options, error, change) }
}

/// For keepsock_server_serve_events(): how many bytes may wait in this program for one client whose
/// kernel takes no more, so that all clients take at most that many bytes each. Each message counts
/// 88 bytes more than it has, which is what it takes up. Default: 1 MiB.
///
/// @param options  The options to change.
/// @param bytes    Above 88; less is refused when it is to serve.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_max_queued(
    options: *mut keepsock_serve_options,
    bytes: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: ServeOptions| Ok(o.max_queued(bytes));
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// For keepsock_server_serve_events(): what happens when a message finds no room. Default:
/// KEEPSOCK_WHEN_SLOW_DISCONNECT.
///
/// @param options    The options to change.
/// @param when_slow  A value of enum keepsock_when_slow.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_serve_options_set_when_slow(
    options: *mut keepsock_serve_options,
    when_slow: i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let all = [WhenSlow::Disconnect, WhenSlow::DropOldest];
    let known = all.into_iter().find(|w| *w as i32 == when_slow);
    let change = |o: ServeOptions| match known {
        Some(when_slow) => Ok(o.when_slow(when_slow)),
        None => Err(invalid(OPTIONS, format!("{when_slow} is not a keepsock_when_slow"))),
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
/// @param service  Receives the service, before the first call of handler, so that user may be
///                 where it is kept; free it with keepsock_service_free().
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
        server.socket.serve_for(&options, serve, |made| {
            // SAFETY: not null, and writable as the header asks.
            unsafe { out.write(handle::give(keepsock_service(made))) };
        })
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

/// What a broadcast came to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_broadcast {
    /// Clients whose kernel took the message, or for which it waits.
    pub sent: u32,
    /// Clients that did not keep up, or were gone, and were reset.
    pub cut: u32,
    /// Clients among those above for which messages were dropped: older ones, or this one
    /// (KEEPSOCK_WHEN_SLOW_DROP_OLDEST).
    pub dropped: u32,
}

/// Sends a message to every live connection (but not to those that are being closed or that this
/// side has shut down), and waits for none that is slow.
///
/// With a thread for each connection, a client whose kernel buffer does not take the whole message
/// at once has not kept up and is reset, so it delays nobody and costs no memory; its calls return
/// KEEPSOCK_ERR_CLOSED in its handler. Clients that another thread is writing to get their turn
/// within 100 ms for all. Keep messages well below the size of the kernel's send buffer (a few
/// hundred KiB): one that is larger resets even fast readers.
///
/// By events, what a client's kernel does not take waits for it within
/// keepsock_serve_options_set_max_queued() bytes; one buffer serves all of them.
///
/// @param service  A service.
/// @param buf      The message.
/// @param len      Its length.
/// @param out      Filled in on success; may be NULL.
/// @param size     sizeof *out; 0 if out is NULL.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT; by events only: _TOO_LONG for a message
///         that alone is more than may wait. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_broadcast(
    service: *mut keepsock_service,
    buf: *const c_void,
    len: usize,
    out: *mut keepsock_broadcast,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |service: &Service| {
        // SAFETY: a buffer as the header asks.
        let message = unsafe { bytes(buf, len, BROADCAST) }?;
        // SAFETY: null, or `size` bytes, as the header asks.
        unsafe { write_broadcast(out, size, service.broadcast(message)?) }
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, BROADCAST, body) }
}

/// As keepsock_service_broadcast(), by events only, to those connections that have joined a group:
/// keepsock_connection_join(). A group that nobody is in is no error.
///
/// @param service  A service.
/// @param group    The group's name.
/// @param buf      The message.
/// @param len      Its length.
/// @param out      Filled in on success; may be NULL.
/// @param size     sizeof *out; 0 if out is NULL.
/// @param error    See keepsock_error; may be NULL.
/// @return As keepsock_service_broadcast(); KEEPSOCK_ERR_WRONG_STATE: a thread serves each
///         connection, and there are no groups. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_broadcast_to(
    service: *mut keepsock_service,
    group: *const c_char,
    buf: *const c_void,
    len: usize,
    out: *mut keepsock_broadcast,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |service: &Service| {
        // SAFETY: a string and a buffer as the header asks.
        let (group, message) =
            unsafe { (text(group, BROADCAST, "group")?, bytes(buf, len, BROADCAST)?) };
        // SAFETY: null, or `size` bytes, as the header asks.
        unsafe { write_broadcast(out, size, service.broadcast_to(group, message)?) }
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, BROADCAST, body) }
}

const BROADCAST: &str = "broadcast";

/// # Safety
/// `out` is null, or points to `size` writable bytes.
unsafe fn write_broadcast(
    out: *mut keepsock_broadcast,
    size: usize,
    result: Broadcast,
) -> Result<()> {
    if out.is_null() {
        return Ok(());
    }
    let value = keepsock_broadcast { sent: result.sent, cut: result.cut, dropped: result.dropped };
    // SAFETY: as the caller promises.
    unsafe { write_sized(out, size, &value, BROADCAST) }
}

/// Takes a connection into serving by events that was made elsewhere: by connecting, or handed
/// over. From then on it is as if it had been accepted: its open callback comes. No limit for
/// addresses counts it. It keeps its keepalive, and has the limits that the server listens with.
/// The object is then closed, and still to be freed.
///
/// @param service  A service of keepsock_server_serve_events().
/// @param client   A connection.
/// @param data     What keepsock_connection_data() is from the beginning; may be NULL.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; and with the connection left as it was: KEEPSOCK_ERR_WRONG_STATE (a thread
///         serves each connection here; every place is taken; another thread is in a call on it;
///         bytes were read ahead; it was lent to a handler), _CLOSED, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_add(
    service: *mut keepsock_service,
    client: *mut keepsock_client,
    data: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "add";
    let body = |service: &Service| {
        // SAFETY: null, or live, as the header asks.
        let client = unsafe { live(client, OPERATION, "client") }?;
        service.add_borrowed(client.socket(), super::connection::data(data)).map(drop)
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
}

/// Connects, without waiting, and takes the connection in as keepsock_service_add() does: the open
/// callback is called once there is one, or connect_failed. Both have data, by which they tell
/// which it is. May be called from inside callbacks: for proxies, and whoever asks others.
///
/// @param service   A service of keepsock_server_serve_events().
/// @param endpoint  Where to connect, as for keepsock_client_connect().
/// @param options   Options, copied; NULL for the defaults.
/// @param data      What keepsock_connection_data() is from the beginning; may be NULL.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; those of keepsock_connecting_start(); KEEPSOCK_ERR_WRONG_STATE: a thread
///         serves each connection here; _CLOSED: the service has ended. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_connect(
    service: *mut keepsock_service,
    endpoint: *const c_char,
    options: *const keepsock_options,
    data: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "connect";
    let body = |service: &Service| {
        // SAFETY: a string, and null or live options, as the header asks.
        let (endpoint, options) = unsafe {
            (
                super::endpoint(endpoint, OPERATION)?,
                keepsock_options::or_default(options, OPERATION)?,
            )
        };
        service.connect(endpoint, &options, super::connection::data(data))
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
}

/// A service at one moment. -1 is what is not known: with a thread for each connection its handlers
/// move the bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_service_stats {
    /// Milliseconds since it was started.
    pub uptime_ms: i64,
    /// Whether it still accepts.
    pub accepting: bool,
    /// Connections that are served now.
    pub connections: u32,
    /// Connections that were ever served.
    pub opened: u64,
    /// Connections that have ended: opened - connections.
    pub closed: u64,
    /// Bytes that came.
    pub received: i64,
    /// Bytes of messages that the program sent: they are sent, dropped, or still queued.
    pub written: i64,
    /// Bytes that kernels took.
    pub sent: i64,
    /// Bytes that wait in this program.
    pub queued: i64,
    /// Bytes of messages that were dropped: for want of room, or since their connection was over.
    pub dropped: i64,
    /// How many messages those were.
    pub dropped_messages: i64,
    /// How connections have ended: how many by each value of enum keepsock_end. With a thread for
    /// each its handler is asked, which has not always met the end.
    pub ends: [u64; 16],
}

/// What a service has done so far, and what is going on.
///
/// @param service  A service.
/// @param out      Filled in on success.
/// @param size     sizeof *out.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_snapshot(
    service: *const keepsock_service,
    out: *mut keepsock_service_stats,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "snapshot";
    let body = |service: &Service| {
        let snapshot = service.snapshot();
        let bytes = snapshot.bytes;
        let moved = |get: fn(&Bytes) -> u64| number(bytes.as_ref().map(get));
        let mut value = keepsock_service_stats {
            uptime_ms: millis(snapshot.uptime),
            accepting: snapshot.accepting,
            connections: snapshot.connections,
            opened: snapshot.opened,
            closed: snapshot.closed,
            received: moved(|b| b.received),
            written: moved(|b| b.written),
            sent: moved(|b| b.sent),
            queued: number(snapshot.queued),
            dropped: moved(|b| b.dropped),
            dropped_messages: moved(|b| b.dropped_messages),
            ends: [0; 16],
        };
        for (end, count) in snapshot.ends {
            if let Some(place) = value.ends.get_mut(end as usize) {
                *place = count;
            }
        }
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
}

/// What a service has done so far, and a line for each connection, as text for operators. Its words
/// may change.
///
/// @param service  A service.
/// @param buf      Receives the text with its final NUL; may be NULL if cap is 0.
/// @param cap      Its size.
/// @param needed   Receives the size that is needed now, also if cap is below; may be NULL.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_TOO_LONG: cap is too small, and buf was left alone;
///         _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_dump(
    service: *const keepsock_service,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "dump";
    let body = |service: &Service| {
        // SAFETY: a buffer of `cap` bytes, and null or writable, as the header asks.
        unsafe { write_text(buf, cap, needed, service.dump(), OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
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

/// Stops accepting (keepsock_service_stop()), and waits until all connections have ended by
/// themselves; they are not told. Those that still were there at the deadline go on, and are
/// drained next: keepsock_service_drain(). So a request that is on its way while the server is
/// replaced (keepsock_hand_over()) is still answered.
///
/// @param service   A service.
/// @param limit_ms  Milliseconds from now; 0: do not wait.
/// @param left      Receives how many connections there still are; may be NULL.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (from inside a handler or callback),
///         KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_finish(
    service: *mut keepsock_service,
    limit_ms: i64,
    left: *mut u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "finish";
    let body = |service: &Service| {
        let live = service.finish(time(limit_ms, OPERATION)?)?;
        // SAFETY: null or writable as the header asks.
        unsafe { write_if_wanted(left, live) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
}

/// Ends the service in order: stops accepting (keepsock_service_stop()); tells
/// each live connection, whose reads then return KEEPSOCK_ERR_DRAINING while its
/// writes still work, so that the handler can say goodbye (by events: the drain callback); waits
/// until all have ended; and at the deadline resets the connections that are left. Clients that
/// still waited to be accepted are reset by the system and not counted, unless another process
/// accepts them (keepsock_hand_over()).
///
/// @param service   A service.
/// @param limit_ms  Milliseconds from now; 0: reset all at once.
/// @param finished  Receives how many handlers ended by themselves; may be NULL.
/// @param cut       Receives how many connections were reset; may be NULL.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (from inside a handler or callback),
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
/// once, and waits until every handler and callback has returned; drain it first to end in
/// order. After that none runs and user may go. Not from inside one. Freeing NULL does nothing.
///
/// @param service  A service, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_free(service: *mut keepsock_service) {
    // SAFETY: null, or a service as the header asks.
    unsafe { handle::free(service) };
}
