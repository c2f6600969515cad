//! Functions that the program posts to event loops, timers, and the list of connections.

use std::ffi::c_void;

use super::keepsock_conn;
use crate::ffi::{
    ErrorOut, Optional, Ref, User, keepsock_error, keepsock_service, null, time, with,
};

/// A function that is called with a connection: keepsock_conn_post(), keepsock_service_for_each().
///
/// @param conn  The connection.
/// @param user  The pointer that the program passed with the function.
pub type keepsock_conn_callback =
    Option<unsafe extern "C" fn(conn: keepsock_conn, user: *mut c_void)>;

/// A function that an event loop calls: keepsock_service_post().
///
/// @param user  The pointer that the program passed with the function.
pub type keepsock_service_callback = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// Calls a function in the thread of the connection's event loop, and returns immediately.
///
/// The callbacks of the connection run in the same thread, so the function needs no lock for data
/// that they share. The functions of a connection are called in the order in which they were posted,
/// after on_open and not during a callback of the connection.
///
/// If this call returns KEEPSOCK_OK, the function is called exactly once, also if the connection
/// ends or the service is freed. Then it is called before on_close, and keepsock_conn_send() returns
/// KEEPSOCK_ERR_CLOSED. If this call fails, the function is not called. So either the function or
/// the caller frees what `user` points to.
///
/// The loop calls at most 64 functions of a connection before it handles other events. A function
/// may post itself again. The queue limit applies to messages that the function sends.
///
/// @code
/// static void deliver(keepsock_conn conn, void *user)   // in the thread of the event loop
/// {
///     keepsock_conn_send(conn, user, strlen(user), NULL);
///     free(user);
/// }
///
/// static void finished(keepsock_conn conn, char *answer)   // in a thread of the program
/// {
///     if (keepsock_conn_post(conn, deliver, answer, NULL) != KEEPSOCK_OK)
///         free(answer);
/// }
/// @endcode
///
/// @param function  The function.
/// @param user      Passed to the function. May be NULL.
/// @return KEEPSOCK_OK if the function will be called, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: `conn` is not an open connection, or the call comes from a forked
///     child; the service runs in the parent
///   - KEEPSOCK_ERR_CLOSED: on_close has been called
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the function
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `function` is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_conn_post(
    conn: keepsock_conn,
    function: keepsock_conn_callback,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    let user = User(user);
    with(conn, error, "post", |connection| {
        let function = function.ok_or_else(|| null("function"))?;
        // SAFETY: the header requires a function with this signature, and that `user` is valid until
        // the function returns.
        connection.post(move |_| unsafe { function(conn, user.get()) })
    })
}

/// Calls a function in the thread of the first event loop, and returns immediately.
///
/// The functions of a service are called one at a time, in the order in which they were posted. With
/// one thread, the default, all callbacks run in the same thread. keepsock_conn_post() posts to the
/// loop of a connection.
///
/// If this call returns KEEPSOCK_OK, the function is called exactly once: keepsock_service_wait(),
/// keepsock_service_drain() and keepsock_service_free() return after it. If this call fails, the
/// function is not called. The loop calls at most 64 functions before it handles other events. A
/// function may post itself again, until the service has ended.
///
/// @param service   A service of keepsock_server_serve_events().
/// @param function  The function.
/// @param user      Passed to the function. May be NULL.
/// @return KEEPSOCK_OK if the function will be called, otherwise
///   - KEEPSOCK_ERR_CLOSED: the service has ended, by keepsock_service_drain() or
///     keepsock_service_free()
///   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or the call comes
///     from a forked child
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the function
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `function` is NULL
/// @note May be called from inside callbacks and functions, and not from a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_post(
    service: *mut keepsock_service,
    function: keepsock_service_callback,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `service` during the call, and `error` is
    // NULL or writable.
    let (service, error) = unsafe { (Ref::new(service), ErrorOut::new(error)) };
    let user = User(user);
    with(service, error, "post", |service| {
        let function = function.ok_or_else(|| null("function"))?;
        // SAFETY: as in `keepsock_conn_post`.
        service.post(move || unsafe { function(user.get()) })
    })
}

/// Calls a function for each open connection of an event-driven service, in the calling thread.
///
/// The list of connections is taken at the start. It contains the connections whose on_open has been
/// called, also in other event loops, and those of keepsock_service_add() and
/// keepsock_service_connect(). The function is not called for a connection that has ended before.
/// A connection may end at any time, also during the function; calls with its keepsock_conn then
/// return KEEPSOCK_ERR_WRONG_STATE or KEEPSOCK_ERR_CLOSED. The function may call every function that
/// the calling thread may call.
///
/// @code
/// static void drop_if_slow(keepsock_conn conn, void *user)
/// {
///     if (keepsock_conn_queued(conn) > 1000000)
///         keepsock_conn_abort(conn, NULL);
/// }
///
/// keepsock_service_for_each(service, drop_if_slow, NULL, NULL);
/// @endcode
///
/// @param service   A service of keepsock_server_serve_events().
/// @param function  The function.
/// @param user      Passed to the function. May be NULL.
/// @return KEEPSOCK_OK after the last call of the function, also if there is no connection,
///   otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or the call comes
///     from a forked child
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the list; the function was not called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `function` is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_for_each(
    service: *mut keepsock_service,
    function: keepsock_conn_callback,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `service` during the call, and `error` is
    // NULL or writable.
    let (service, error) = unsafe { (Ref::new(service), ErrorOut::new(error)) };
    with(service, error, "list connections", |service| {
        let function = function.ok_or_else(|| null("function"))?;
        for connection in service.connections()? {
            let id = connection.id_of_handler();
            if id != 0 {
                // SAFETY: the header requires a function with this signature.
                unsafe { function(keepsock_conn { id }, user) };
            }
        }
        Ok(())
    })
}

/// The function of a timer: keepsock_service_add_timer().
///
/// @param timer  The id of the timer.
/// @param user   The pointer that the program passed with the function.
pub type keepsock_timer_callback = Option<unsafe extern "C" fn(timer: u64, user: *mut c_void)>;

/// Sets a timer: calls a function after a delay, once or repeatedly.
///
/// The function is called in the thread of the first event loop, as those of
/// keepsock_service_post(). A timer does not expire early. If the loop is idle, it expires about
/// 1 ms late. The clock is monotonic. A repeating timer keeps its rate. Periods that pass while
/// the process is stopped or the loop is in a callback are skipped, except for one call.
///
/// A timer does not keep the service from ending. Once keepsock_service_drain() or
/// keepsock_service_free() has ended the service, no function is called, and the timers are removed.
///
/// @code
/// static void tick(uint64_t timer, void *user)
/// {
///     keepsock_service_broadcast(user, NULL, "tick\n", 5, NULL, NULL, NULL, NULL, NULL);
/// }
///
/// keepsock_service_add_timer(service, 1000, 1000, tick, service, NULL, NULL);
/// @endcode
///
/// @param service      A service of keepsock_server_serve_events().
/// @param delay_ms     Milliseconds until the first call, from 0.
/// @param interval_ms  Milliseconds between calls. 0: the function is called once.
/// @param function     The function.
/// @param user         Passed to the function. May be NULL. It must be valid until the function was
///                     called once, the timer was removed, or the service has ended.
/// @param timer        Receives the id of the timer, which is not used twice in a service.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the service has ended
///   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or the call comes
///     from a forked child
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the timer
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `function` is NULL, or a time is negative
/// @note May be called from inside callbacks and functions, and not from a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_add_timer(
    service: *mut keepsock_service,
    delay_ms: i64,
    interval_ms: i64,
    function: keepsock_timer_callback,
    user: *mut c_void,
    timer: *mut u64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `service` during the call, and `timer` and
    // `error` are NULL or writable.
    let (service, timer, error) =
        unsafe { (Ref::new(service), Optional::new(timer), ErrorOut::new(error)) };
    let user = User(user);
    with(service, error, "add timer", |service| {
        let function = function.ok_or_else(|| null("function"))?;
        let interval = time("interval_ms", interval_ms)?;
        let interval = (!interval.is_zero()).then_some(interval);
        // SAFETY: the header requires a function with this signature, and that `user` is valid.
        let call = move |id| unsafe { function(id, user.get()) };
        timer.write(service.add_timer(time("delay_ms", delay_ms)?, interval, call)?);
        Ok(())
    })
}

/// Removes a timer. Its function is not called again.
///
/// A function may remove its own timer. A call that is in progress in another thread continues. To
/// free `user` after that call, post a function (keepsock_service_post()) that frees it: both are
/// called in the same thread.
///
/// @param service  A service of keepsock_server_serve_events().
/// @param timer    The id of the timer.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the timer has expired and does not repeat, or was removed; the
///     service is one of keepsock_server_serve(); or the call comes from a forked child
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL
/// @note May be called from inside callbacks and functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_remove_timer(
    service: *mut keepsock_service,
    timer: u64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `service` during the call, and `error` is
    // NULL or writable.
    let (service, error) = unsafe { (Ref::new(service), ErrorOut::new(error)) };
    with(service, error, "remove timer", |service| service.remove_timer(timer))
}
