//! `keepsock_pending_connect`.

use std::ffi::{c_char, c_void};

use crate::ffi::{
    ErrorOut, KEEPSOCK_INFINITE, Optional, Out, Ref, Structure, Text, User, create, fd_of,
    fill_text, handle, keepsock_attempt, keepsock_client, keepsock_error, keepsock_fd,
    keepsock_options, micros, millis, no_element, to_attempt, with_exclusive,
};
use crate::internal::sync::Mutex;
use crate::{AttemptInProgress, ErrorKind, PendingConnect, Stage, Watch};

const OPERATION: &str = "connect";

/// A connect in progress, for programs that wait in their own event loop or for several connects.
///
/// The lookup, the race and the deadline are those of keepsock_client_connect(). Call
/// keepsock_pending_connect_finish() as long as it returns KEEPSOCK_ERR_WOULD_BLOCK. Three functions
/// report when to call it:
///   - keepsock_pending_connect_socket(): the socket of the connection itself, for an endpoint with
///     one address. Call finish when the socket is writable, and after
///     keepsock_pending_connect_next_timeout().
///   - keepsock_pending_connect_set_watch(): for every endpoint, callbacks that report each
///     descriptor and each timeout.
///   - keepsock_pending_connect_fd(): for every endpoint, one descriptor (not on Windows). Call
///     finish when it is readable.
///
/// Threads: one thread at a time. A call during another call, also from a callback, returns
/// KEEPSOCK_ERR_WRONG_STATE. A callback must not free the object.
pub struct keepsock_pending_connect(Mutex<PendingConnect>);

handle!(keepsock_pending_connect, PendingConnect, "pending", 0: Mutex<PendingConnect>);

/// How an event loop waits for a descriptor.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum keepsock_watch {
    /// No longer: remove the descriptor from the event loop. It is still open.
    Remove = 0,
    /// Until the descriptor is readable (POLLIN).
    Read = 1,
    /// Until the descriptor is writable (POLLOUT).
    Write = 2,
}

/// Called for each descriptor that an event loop has to wait for. See
/// keepsock_pending_connect_set_watch() and keepsock_reconnect_set_watch().
///
/// @param fd     The descriptor.
/// @param watch  A keepsock_watch.
/// @param user   The pointer that the program passed with the callback.
pub type keepsock_on_watch =
    Option<unsafe extern "C" fn(fd: keepsock_fd, watch: i32, user: *mut c_void)>;

/// Called for each change of the time that an event loop has to wait. See
/// keepsock_pending_connect_set_watch() and keepsock_reconnect_set_watch().
///
/// @param timeout_ms  The longest time to wait, in milliseconds. It replaces the time of the call
///                    before. 0: call keepsock_pending_connect_finish() or
///                    keepsock_reconnect_try_connect() when the library call that called the
///                    callback has returned. KEEPSOCK_INFINITE: no limit.
/// @param user        The pointer that the program passed with the callback.
pub type keepsock_on_timeout = Option<unsafe extern "C" fn(timeout_ms: i64, user: *mut c_void)>;

/// Starts connecting, without waiting (connect(2) with O_NONBLOCK).
///
/// The function starts the lookup, or sends the first SYN.
///
/// @param endpoint  The endpoint, as for keepsock_client_connect().
/// @param options   Socket options, copied. NULL for the defaults.
/// @param pending   Receives the object. Free it with keepsock_pending_connect_free().
/// @return KEEPSOCK_OK if the connect is in progress. keepsock_pending_connect_finish() returns
///   all other failures of connecting.
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse; no peer can have its address ("*",
///     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
///     endpoint is a multicast or broadcast address; or the zone of the local endpoint does not
///     exist
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, an option has no effect on this kind of socket, or
///     the local endpoint is a host name, whose lookup would wait
///   - KEEPSOCK_ERR_NOT_FOUND: the local endpoint is not of the requested family
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the lookup of a name needs a descriptor, and none is free
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_start(
    endpoint: *const c_char,
    options: *const keepsock_options,
    pending: *mut *mut keepsock_pending_connect,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `endpoint` is
    // NULL or ends with NUL; `pending` and `error` are NULL or writable.
    let (endpoint, options, pending, error) = unsafe {
        (
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Out::new(pending, "pending"),
            ErrorOut::new(error),
        )
    };
    create(pending, error, OPERATION, || {
        let started = PendingConnect::start(endpoint.endpoint()?, &*options.or_default()?)?;
        Ok(keepsock_pending_connect(Mutex::new(started)))
    })
}

/// Continues the connect without waiting, and returns the connection when there is one.
///
/// The connection is in blocking mode: an event loop calls keepsock_client_set_nonblocking().
///
/// @param pending  A connect in progress.
/// @param client   Receives the connection. Free it with keepsock_client_free().
/// @param error    KEEPSOCK_ERR_WOULD_BLOCK also stores an error object. The message
///                 lists every attempt.
/// @return KEEPSOCK_OK if the connection is made, otherwise
///   - KEEPSOCK_ERR_WOULD_BLOCK: the connect is in progress
///   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished already, or another call is in progress
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
///   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option has no effect on this kind of socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the name resolves to an address that no peer can have, such as
///     0.0.0.0, or to a link-local address without a zone; or the zone or interface does not exist
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_finish(
    pending: *mut keepsock_pending_connect,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call, and `client` and `error`
    // are NULL or writable.
    let (pending, client, error) =
        unsafe { (Ref::new(pending), Out::new(client, "client"), ErrorOut::new(error)) };
    with_exclusive(pending, error, OPERATION, |pending| {
        client.create(|| {
            let connected = pending.finish()?;
            keepsock_client::own_connected(connected, || pending.would_block())
        })
    })
}

/// Waits until the connection is made or the connect timeout expires.
///
/// @param pending  A connect in progress.
/// @param client   Receives the connection. Free it with keepsock_client_free().
/// @param error    Its message lists every attempt.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished already, or another call is in progress
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
///   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option has no effect on this kind of socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the name resolves to an address that no peer can have, such as
///     0.0.0.0, or to a link-local address without a zone; or the zone or interface does not exist
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_wait(
    pending: *mut keepsock_pending_connect,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call, and `client` and `error`
    // are NULL or writable.
    let (pending, client, error) =
        unsafe { (Ref::new(pending), Out::new(client, "client"), ErrorOut::new(error)) };
    with_exclusive(pending, error, OPERATION, |pending| {
        client.create(|| Ok(keepsock_client::own(pending.wait()?)))
    })
}

/// Borrows the socket of the connection, for an event loop that has one descriptor for each
/// connection. Do not close it.
///
/// It becomes writable when the connect has completed or failed: then call
/// keepsock_pending_connect_finish(). The connection has the same descriptor. After a failure the
/// descriptor stays open until keepsock_pending_connect_free().
///
/// An address has one socket, and so has a Unix path. A host name may have several addresses, whose
/// sockets race: use keepsock_pending_connect_set_watch().
///
/// @param fd  Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the endpoint may have several addresses; the connect failed before
///     it had a socket, and finish returns the reason; finish has returned the connection or the
///     failure (a descriptor that was borrowed before stays open); or another call is in progress
///   - KEEPSOCK_ERR_WOULD_BLOCK: the queue of the Unix listener is full (EAGAIN of connect(2)), and
///     no descriptor reports when it has space again. The connect continues: call finish after
///     keepsock_pending_connect_next_timeout(), or free the object
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_socket(
    pending: *const keepsock_pending_connect,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call, and `fd` and
    // `error` are NULL or writable.
    let (pending, fd, error) =
        unsafe { (Ref::new(pending), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with_exclusive(pending, error, OPERATION, |pending| {
        let out = fd.required()?;
        out.write(fd_of(pending.socket()?));
        Ok(())
    })
}

/// Sets callbacks that report the events that an event loop has to wait for, as
/// curl_multi_socket_action() does.
///
/// The library calls them for everything that the connect waits for now, before this function
/// returns. Later keepsock_pending_connect_finish() and keepsock_pending_connect_free() call them.
/// Call keepsock_pending_connect_finish() when a descriptor is ready or the timeout has passed.
///
/// The library reports KEEPSOCK_WATCH_REMOVE before it closes a descriptor, and also for the
/// connection that finish returns. So an event loop never has a descriptor that was closed or used
/// again. On Windows each descriptor is a SOCKET: of a connect, or of an event of the library.
///
/// @code
/// static struct pollfd watched[16];
/// static int due = -1;
///
/// static void on_watch(keepsock_fd fd, int32_t watch, void *user)
/// {
///     int i = 0;
///     while (i < 16 && watched[i].fd != fd)
///         i++;
///     if (i == 16) // A new descriptor. poll(2) ignores the negative numbers of free entries.
///         for (i = 0; i < 15 && watched[i].fd >= 0; i++) {}
///     watched[i].fd = watch == KEEPSOCK_WATCH_REMOVE ? -1 : fd;
///     watched[i].events = watch == KEEPSOCK_WATCH_READ ? POLLIN : POLLOUT;
/// }
///
/// static void on_timeout(int64_t timeout_ms, void *user)
/// {
///     due = (int)timeout_ms;
/// }
///
/// static keepsock_client *connect_in_loop(keepsock_pending_connect *pending)
/// {
///     keepsock_client *client = NULL;
///     for (int i = 0; i < 16; i++)
///         watched[i].fd = -1;
///     keepsock_pending_connect_set_watch(pending, on_watch, on_timeout, NULL, NULL);
///     while (keepsock_pending_connect_finish(pending, &client, NULL) == KEEPSOCK_ERR_WOULD_BLOCK)
///         poll(watched, 16, due);
///     return client;
/// }
/// @endcode
///
/// @param on_watch    Called for each descriptor. NULL: only the timeout is reported.
/// @param on_timeout  Called for each timeout. NULL: use keepsock_pending_connect_next_timeout().
/// @param user        Passed to the callbacks; valid until the object is freed.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished already, or another call is in progress
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `pending` is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_set_watch(
    pending: *mut keepsock_pending_connect,
    on_watch: keepsock_on_watch,
    on_timeout: keepsock_on_timeout,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call; `error` is NULL
    // or writable.
    let (pending, error) = unsafe { (Ref::new(pending), ErrorOut::new(error)) };
    let notify = watch_of(on_watch, on_timeout, user);
    with_exclusive(pending, error, OPERATION, |pending| pending.set_watch(notify))
}

/// The callbacks of a program as one function.
pub(super) fn watch_of(
    on_watch: keepsock_on_watch,
    on_timeout: keepsock_on_timeout,
    user: *mut c_void,
) -> impl FnMut(Watch<'_>) + Send + 'static {
    let user = User(user);
    move |watch: Watch<'_>| {
        let (fd, how) = match watch {
            Watch::Readable(fd) => (fd, keepsock_watch::Read),
            Watch::Writable(fd) => (fd, keepsock_watch::Write),
            Watch::Remove(fd) => (fd, keepsock_watch::Remove),
            Watch::Timeout(time) => {
                if let Some(on_timeout) = on_timeout {
                    let timeout_ms = time.map_or(KEEPSOCK_INFINITE, millis);
                    // SAFETY: a function of the program with this signature.
                    unsafe { on_timeout(timeout_ms, user.get()) };
                }
                return;
            }
        };
        if let Some(on_watch) = on_watch {
            // SAFETY: a function of the program with this signature.
            unsafe { on_watch(fd_of(fd), how as i32, user.get()) };
        }
    }
}

/// Returns one descriptor that covers all attempts, timers and the deadline (epoll(7),
/// kqueue(2)).
///
/// The descriptor is readable when keepsock_pending_connect_finish() has something to do. It stays
/// the same until the connect has finished, and is readable then: remove it from the event loop.
/// The object keeps it; do not close it. The first call uses two descriptors.
///
/// @param pending  A connect in progress.
/// @param fd       Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished, or another call is in progress
///   - KEEPSOCK_ERR_UNSUPPORTED: no epoll or kqueue; use keepsock_pending_connect_set_watch()
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_fd(
    pending: *mut keepsock_pending_connect,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call, and `fd` and `error` are
    // NULL or writable.
    let (pending, fd, error) =
        unsafe { (Ref::new(pending), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with_exclusive(pending, error, OPERATION, |pending| {
        let out = fd.required()?;
        out.write(fd_of(pending.descriptor()?));
        Ok(())
    })
}

/// Returns the time after which keepsock_pending_connect_finish() must be called.
///
/// A program that waits for keepsock_pending_connect_fd() does not need it: that descriptor
/// becomes readable at the deadline as well. The value can be passed to poll(2): KEEPSOCK_INFINITE
/// is -1. It is at most 25 if a cancel token is set or a lookup is in progress, unless
/// keepsock_pending_connect_set_watch() or keepsock_pending_connect_fd() was called: the socket
/// alone does not report them.
///
/// @param pending     A connect in progress.
/// @param timeout_ms  Receives milliseconds, at most INT_MAX. KEEPSOCK_INFINITE means that no call
///                    is due: there is no timeout, or the connect has finished. 0 means that finish
///                    has a result.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_next_timeout(
    pending: *mut keepsock_pending_connect,
    timeout_ms: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call, and `timeout_ms` and
    // `error` are NULL or writable.
    let (pending, timeout_ms, error) =
        unsafe { (Ref::new(pending), Optional::new(timeout_ms), ErrorOut::new(error)) };
    with_exclusive(pending, error, OPERATION, |pending| {
        timeout_ms.write(pending.next_timeout().map_or(KEEPSOCK_INFINITE, millis));
        Ok(())
    })
}

/// Returns one attempt. The attempts that ended without a connection come first, in the order in
/// which they ended. The attempts in progress follow.
///
/// The status of an attempt in progress is KEEPSOCK_ERR_WOULD_BLOCK, its stage is "connect", and
/// its duration is the time since its start. When one attempt wins, the other attempts in progress
/// end with KEEPSOCK_ERR_CLOSED.
///
/// @param pending  A connect, in progress or finished.
/// @param index    From 0.
/// @param out      Receives the attempt.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: no attempt has that index
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_attempt(
    pending: *mut keepsock_pending_connect,
    index: usize,
    out: *mut keepsock_attempt,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (pending, out, error) =
        unsafe { (Ref::new(pending), Structure::new(out, size), ErrorOut::new(error)) };
    with_exclusive(pending, error, OPERATION, |pending| {
        let out = out.checked()?;
        let ended = pending.attempts();
        let value = match ended.get(index) {
            Some(attempt) => to_attempt(attempt),
            None => {
                let in_progress = pending.attempts_in_progress();
                let count = ended.len() + in_progress.len();
                let attempt = in_progress.get(index - ended.len());
                to_attempt_in_progress(attempt.ok_or_else(|| no_element("attempt", index, count))?)
            }
        };
        out.fill(&value)
    })
}

fn to_attempt_in_progress(attempt: &AttemptInProgress) -> keepsock_attempt {
    let mut value = keepsock_attempt {
        status: ErrorKind::WouldBlock.code(),
        os_error: 0,
        elapsed_us: micros(attempt.elapsed),
        address: [0; 128],
        stage: [0; 20],
        tcp_state: attempt.tcp_state.map_or(0, |state| state as i32),
    };
    fill_text(&mut value.address, &attempt.address.to_string());
    fill_text(&mut value.stage, &Stage::Connect.to_string());
    value
}

/// Frees the object and cancels a connect in progress. A connection that it returned continues.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_free(pending: *mut keepsock_pending_connect) {
    // SAFETY: the header requires that no other thread uses `pending`.
    unsafe { handle::free(pending) };
}
