//! `keepsock_reconnect`.

use std::ffi::{c_char, c_void};

use super::{keepsock_on_timeout, keepsock_on_watch, watch_of};
use crate::ffi::{
    ErrorOut, KEEPSOCK_INFINITE, Optional, Out, Ref, Text, User, create, handle, keepsock_client,
    keepsock_error, keepsock_options, millis, time, timeout, with_exclusive,
};
use crate::internal::sync::Mutex;
use crate::{Reconnect, Retry};

/// Connects, and connects again after the connection was lost, with exponential backoff.
///
/// It works only inside keepsock_reconnect_connect(), which waits, and
/// keepsock_reconnect_try_connect(), which is for an event loop. It starts no thread. Each try works
/// like keepsock_client_connect(): it looks the name up and applies every option again. The program
/// must send the messages again that were in transit on a lost connection.
///
/// - The delay between tries is random, from 0 to a bound. The bound is 100 ms at first, doubles
///   after each failure, and is at most 30 s ("full jitter", AWS Architecture Blog). So clients
///   that lose their server at the same moment do not return at the same moment.
/// - The first try starts immediately. A connection that was made at least the longest delay (30 s)
///   before the next keepsock_reconnect_connect() counts as a success, and the delays start again
///   at 100 ms. A connection that was lost sooner counts as a failure: a server that accepts and
///   immediately closes is retried with increasing delays. keepsock_reconnect_reset() overrides
///   this.
/// - These errors are permanent and end the retries:
///   - KEEPSOCK_ERR_INVALID_ARGUMENT
///   - KEEPSOCK_ERR_INVALID_ENDPOINT (such as port 0)
///   - KEEPSOCK_ERR_UNSUPPORTED (this machine lacks the family or the option)
///   - KEEPSOCK_ERR_PERMISSION_DENIED (the policy of this machine)
///   - KEEPSOCK_ERR_CANCELLED
///   - KEEPSOCK_ERR_NOT_FOUND and KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE for a numeric address that the
///     options exclude
/// - All other errors are retried, also a firewall that rejects (KEEPSOCK_ERR_UNREACHABLE),
///   KEEPSOCK_ERR_NOT_FOUND for a name or a Unix path, and KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE for a
///   local address that this machine does not have yet.
///
/// Threads: one thread at a time. A call during another call, from another thread or from the
/// keepsock_on_retry callback, returns KEEPSOCK_ERR_WRONG_STATE. To end a call, fire the cancel
/// token of the options.
pub struct keepsock_reconnect(Mutex<Reconnect>);

handle!(keepsock_reconnect, Reconnect, "reconnect", 0: Mutex<Reconnect>);

/// Called before each delay, in the calling thread, for logging.
///
/// The time that it takes is part of the delay. It may fire the cancel token. It must not free the
/// keepsock_reconnect.
///
/// @param error    Why the last try failed, valid until the callback returns. NULL means that the
///                 last try succeeded and its connection was lost.
/// @param tries    The number of failed tries of this connect.
/// @param wait_ms  The time until the next try in milliseconds, rounded up. The timeout may end
///                 it sooner.
/// @param user     The pointer that the program passed with the callback.
pub type keepsock_on_retry = Option<
    unsafe extern "C" fn(error: *const keepsock_error, tries: u32, wait_ms: i64, user: *mut c_void),
>;

const OPERATION: &str = "reconnect";

/// Creates the object. It does not connect.
///
/// @param endpoint   The endpoint, as for keepsock_client_connect().
/// @param options    Socket options, copied. NULL for the defaults. Their connect timeout (30 s)
///                   limits each try. Their cancel token also ends a delay, within 50 ms.
/// @param reconnect  Receives the object. Free it with keepsock_reconnect_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, or no peer can have the address
///     ("*", 0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; or the
///     local endpoint of the options is a multicast or broadcast address
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_new(
    endpoint: *const c_char,
    options: *const keepsock_options,
    reconnect: *mut *mut keepsock_reconnect,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `endpoint` is
    // NULL or ends with NUL; `reconnect` and `error` are NULL or writable.
    let (endpoint, options, reconnect, error) = unsafe {
        (
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Out::new(reconnect, "reconnect"),
            ErrorOut::new(error),
        )
    };
    create(reconnect, error, "connect", || {
        let made = Reconnect::new(endpoint.endpoint()?, &*options.or_default()?)?;
        Ok(keepsock_reconnect(Mutex::new(made)))
    })
}

/// Sets the bounds of the delays, and starts the delays again at the first bound.
///
/// Each delay is a random time below its bound, on average half of it. Default: 100 ms and 30 s.
///
/// @param first_ms    The first bound: 1 millisecond or more.
/// @param longest_ms  The longest bound: from `first_ms` to 86,400,000 milliseconds (24 hours).
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_set_backoff(
    reconnect: *mut keepsock_reconnect,
    first_ms: i64,
    longest_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `reconnect` during the call, and `error` is
    // NULL or writable.
    let (reconnect, error) = unsafe { (Ref::new(reconnect), ErrorOut::new(error)) };
    with_exclusive(reconnect, error, OPERATION, |reconnect| {
        reconnect.set_backoff(time("first_ms", first_ms)?, time("longest_ms", longest_ms)?)
    })
}

/// Sets the time that each keepsock_reconnect_connect() may take, including all tries and delays.
///
/// It also applies to a keepsock_reconnect_try_connect() in progress, from the start of that
/// connect. Default: KEEPSOCK_INFINITE.
///
/// @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_set_timeout(
    reconnect: *mut keepsock_reconnect,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `reconnect` during the call, and `error` is
    // NULL or writable.
    let (reconnect, error) = unsafe { (Ref::new(reconnect), ErrorOut::new(error)) };
    with_exclusive(reconnect, error, OPERATION, |reconnect| {
        reconnect.set_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Sets the callback that is called before each delay.
///
/// @param on_retry  The callback. NULL, the default, means none.
/// @param user      Passed to the callback; valid until the callback is replaced or the object is
///                  freed.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `reconnect` is NULL
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_set_on_retry(
    reconnect: *mut keepsock_reconnect,
    on_retry: keepsock_on_retry,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `reconnect` during the call; `error` is NULL
    // or writable.
    let (reconnect, error) = unsafe { (Ref::new(reconnect), ErrorOut::new(error)) };
    let user = User(user);
    let notify = move |retry: &Retry<'_>| {
        let Some(on_retry) = on_retry else { return };
        let wait_ms = millis(retry.wait);
        let mut error = retry.error.map(|e| handle::lend(keepsock_error::new(e.clone())));
        let lent = error.as_mut().map_or(std::ptr::null_mut(), |e| e.pointer());
        // SAFETY: `on_retry` is a function of the program with this signature. `lent` is NULL or a
        // handle that is valid until the function returns.
        unsafe { on_retry(lent, retry.tries, wait_ms, user.get()) };
    };
    with_exclusive(reconnect, error, OPERATION, |reconnect| {
        reconnect.on_retry(notify);
        Ok(())
    })
}

/// Starts the next try immediately, and the delays again at the first bound.
///
/// Call it if a short connection has done its work, or if the program knows that the server is
/// available again.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_reset(
    reconnect: *mut keepsock_reconnect,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `reconnect` during the call, and `error` is
    // NULL or writable.
    let (reconnect, error) = unsafe { (Ref::new(reconnect), ErrorOut::new(error)) };
    with_exclusive(reconnect, error, OPERATION, |reconnect| {
        reconnect.reset();
        Ok(())
    })
}

/// Tries to connect until it succeeds.
///
/// Call it for the first connection, and again after each connection was lost. The backoff
/// continues from call to call: a call waits for its delay first, even if the delay takes all of
/// its timeout.
///
/// When the timeout expires, the status and the error are those of the last try, with the number
/// of tries and the time: "connect to 127.0.0.1:80: connection refused after 7 tries in 10.0 s".
/// If the timeout ended the last try early, the error is that of the try before. If there was
/// none, the status is KEEPSOCK_ERR_TIMED_OUT.
///
/// @param client  Receives the connection. Free it with keepsock_client_free().
/// @param error   Its message lists every attempt of the last try.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
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
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: no peer can have the address of the endpoint or its name ("*",
///     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
///     endpoint is a multicast or broadcast address; or the zone or interface does not exist
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_connect(
    reconnect: *mut keepsock_reconnect,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `reconnect` during the call, and `client`
    // and `error` are NULL or writable.
    let (reconnect, client, error) =
        unsafe { (Ref::new(reconnect), Out::new(client, "client"), ErrorOut::new(error)) };
    with_exclusive(reconnect, error, OPERATION, |reconnect| {
        client.create(|| Ok(keepsock_client::own(reconnect.connect()?)))
    })
}

/// Connects, and retries, without waiting, for an event loop.
///
/// The delays, the timeout and the errors after which the object retries are those of
/// keepsock_reconnect_connect(). After KEEPSOCK_ERR_WOULD_BLOCK, call the function again when a
/// descriptor is ready or a timeout has passed that the callbacks of keepsock_reconnect_set_watch()
/// report. After every other status, the next call starts to connect again: call the
/// function after a connection was lost, and send the login and the subscriptions of the new
/// connection when it returns KEEPSOCK_OK.
///
/// @param client  Receives the connection, in blocking mode. Free it with keepsock_client_free().
/// @param error   KEEPSOCK_ERR_WOULD_BLOCK also stores an error object. The other messages list
///                every attempt of the last try.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WOULD_BLOCK: the connect or a delay is in progress
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
///   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
///   - KEEPSOCK_ERR_TIMED_OUT: the timeout expired before a try had ended
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, an option has no effect on this kind of socket, or
///     the local endpoint is a host name, whose lookup would wait
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: no peer can have the address of the endpoint or its name ("*",
///     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
///     endpoint is a multicast or broadcast address; or the zone or interface does not exist
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_try_connect(
    reconnect: *mut keepsock_reconnect,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `reconnect` during the call, and `client`
    // and `error` are NULL or writable.
    let (reconnect, client, error) =
        unsafe { (Ref::new(reconnect), Out::new(client, "client"), ErrorOut::new(error)) };
    with_exclusive(reconnect, error, OPERATION, |reconnect| {
        client.create(|| {
            let connected = reconnect.try_connect()?;
            keepsock_client::own_connected(connected, || reconnect.would_block())
        })
    })
}

/// Returns the time after which keepsock_reconnect_try_connect() must be called, even if no
/// descriptor is ready.
///
/// @param timeout_ms  Receives milliseconds, at most INT_MAX. KEEPSOCK_INFINITE means that no call
///                    is due: there is no limit, or no connect is in progress.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_next_timeout(
    reconnect: *const keepsock_reconnect,
    timeout_ms: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `reconnect` during the call, and `timeout_ms`
    // and `error` are NULL or writable.
    let (reconnect, timeout_ms, error) =
        unsafe { (Ref::new(reconnect), Optional::new(timeout_ms), ErrorOut::new(error)) };
    with_exclusive(reconnect, error, OPERATION, |reconnect| {
        timeout_ms.write(reconnect.next_timeout().map_or(KEEPSOCK_INFINITE, millis));
        Ok(())
    })
}

/// Sets callbacks that report the events that an event loop has to wait for during
/// keepsock_reconnect_try_connect().
///
/// keepsock_pending_connect_set_watch() describes them, with an example. They are called for every
/// try and every delay, by keepsock_reconnect_try_connect(), the setters of the object and
/// keepsock_reconnect_free().
///
/// @param on_watch    Called for each descriptor. NULL: only the timeout is reported.
/// @param on_timeout  Called for each timeout. NULL: use keepsock_reconnect_next_timeout().
/// @param user        Passed to the callbacks; valid until the object is freed.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `reconnect` is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_set_watch(
    reconnect: *mut keepsock_reconnect,
    on_watch: keepsock_on_watch,
    on_timeout: keepsock_on_timeout,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `reconnect` during the call; `error` is NULL
    // or writable.
    let (reconnect, error) = unsafe { (Ref::new(reconnect), ErrorOut::new(error)) };
    let notify = watch_of(on_watch, on_timeout, user);
    with_exclusive(reconnect, error, OPERATION, |reconnect| {
        reconnect.set_watch(notify);
        Ok(())
    })
}

/// Frees the object, and ends a connect in progress. A connection that it made continues.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_free(reconnect: *mut keepsock_reconnect) {
    // SAFETY: the header requires that no other thread uses `reconnect`.
    unsafe { handle::free(reconnect) };
}
