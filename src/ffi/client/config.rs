//! Timeouts, the blocking mode and the cancel token of a `keepsock_client`.

use crate::ffi::{
    ErrorOut, Handle, Ref, keepsock_cancel_token, keepsock_client, keepsock_error, time, timeout,
    with,
};

/// Sets the read timeout: the time that each read call may take as a whole.
///
/// Calls in progress keep their timeout. A timeout below 400 ms is accurate to 2 ms. On Linux the
/// kernel measures timeouts of 400 ms and more (SO_RCVTIMEO), and a call may return up to 5 % late.
///
/// @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `timeout_ms` is out of range
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_UNSUPPORTED: the kernel has no such timeout for this kind of socket
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_read_timeout(
    client: *mut keepsock_client,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "read timeout", |socket| {
        socket.set_read_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Sets the write timeout: the time that each write call may take as a whole.
///
/// Calls in progress keep their timeout. A timeout below 400 ms is accurate to 2 ms. On Linux the
/// kernel measures timeouts of 400 ms and more (SO_SNDTIMEO), and a call may return up to 5 % late.
///
/// @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `timeout_ms` is out of range
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_UNSUPPORTED: the kernel has no such timeout for this kind of socket
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_write_timeout(
    client: *mut keepsock_client,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "write timeout", |socket| {
        socket.set_write_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Sets the close timeout: the time that a graceful close may take.
///
/// keepsock_client_close() waits for at most this time. After keepsock_client_free() the library
/// continues the close for at most this time. Default: 2,000 ms.
///
/// @param timeout_ms  Milliseconds. 0 sends FIN and closes the descriptor immediately.
///                    KEEPSOCK_INFINITE is rejected: a peer that keeps the connection open would
///                    block the close forever.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `timeout_ms` is out of range
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_close_timeout(
    client: *mut keepsock_client,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "close timeout", |socket| {
        socket.set_close_timeout(time("timeout_ms", timeout_ms)?);
        Ok(())
    })
}

/// Turns non-blocking mode on or off (O_NONBLOCK).
///
/// In non-blocking mode, calls that would wait return KEEPSOCK_ERR_WOULD_BLOCK. Calls that already
/// wait continue.
///
/// @param on  true for non-blocking mode.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_nonblocking(
    client: *mut keepsock_client,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "non-blocking mode", |socket| socket.set_nonblocking(on))
}

/// Sets the cancel token of a connection.
///
/// Firing the token ends the waiting calls that started after this call. With a token, a read costs
/// one poll(2) more.
///
/// @param cancel  A token, which the connection shares from now on. NULL removes the token.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `client` is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_cancel(
    client: *mut keepsock_client,
    cancel: *const keepsock_cancel_token,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` or `cancel` during the call, and
    // `error` is NULL or writable.
    let (client, cancel, error) =
        unsafe { (Ref::new(client), Ref::new(cancel), ErrorOut::new(error)) };
    with(client, error, "cancel", |socket| {
        socket.set_cancel(cancel.optional()?.map(Handle::target));
        Ok(())
    })
}
