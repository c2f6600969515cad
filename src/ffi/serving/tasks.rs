//! Functions that the program posts to event loops, and the list of connections.

use std::ffi::c_void;

use super::keepsock_conn;
use crate::ffi::{ErrorOut, Ref, User, keepsock_error, keepsock_service, null, with};

/// A function that is called with a connection: keepsock_conn_post(), keepsock_service_for_each().
///
/// @param conn  The connection.
/// @param user  The pointer that the program passed with the function.
pub type keepsock_conn_function =
    Option<unsafe extern "C" fn(conn: keepsock_conn, user: *mut c_void)>;

/// A function that an event loop calls: keepsock_service_post().
///
/// @param user  The pointer that the program passed with the function.
pub type keepsock_function = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// Calls a function in the thread of the connection's event loop, and returns immediately.
///
/// The callbacks of the connection run in the same thread, so the function needs no lock for data
/// that they share. The functions of a connection are called in the order in which they were posted, after
/// on_open and not during a callback of the connection.
///
/// If this call returns KEEPSOCK_OK, the function is called exactly once, also if the connection ends
/// or the service is freed. Then it is called before on_close, and keepsock_conn_send() returns
/// KEEPSOCK_ERR_CLOSED. If this call fails, the function is not called. So either the function or the
/// caller frees what `user` points to.
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
    function: keepsock_conn_function,
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
    function: keepsock_function,
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
/// A connection may end at any time, also during the function; calls with it then return KEEPSOCK_ERR_WRONG_STATE or
/// KEEPSOCK_ERR_CLOSED. The function may call every function that the calling thread may call.
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
/// @return KEEPSOCK_OK after the last call of the function, also if there is no connection, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or the call comes
///     from a forked child
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the list; the function was not called
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `function` is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_service_for_each(
    service: *mut keepsock_service,
    function: keepsock_conn_function,
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
