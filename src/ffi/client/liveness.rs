//! Dead-peer detection, heartbeats and the idle timeout of a `keepsock_client`.

use std::ffi::c_void;

use crate::ffi::{
    Bytes, ErrorOut, KEEPSOCK_INFINITE, Optional, Ref, keepsock_client, keepsock_error, millis,
    timeout, with,
};

/// Sends a heartbeat that is due, checks that the connection is alive, and returns when to call
/// again.
///
/// For programs with their own event loop. Calls of the library that wait do this by themselves.
///
/// The function sends a heartbeat if one is due and no other thread writes. It fails if the peer
/// is dead (keepsock_options_set_dead_after()), if the heartbeat timeout expired without an
/// answer, or if the connection was idle for the idle timeout. It resets a connection from a
/// trusted proxy whose header is incomplete after keepsock_options_set_proxy_timeout(), also if
/// another timeout has ended the connection before. Unread bytes that arrived after a heartbeat
/// answer it. They do not count as traffic for the idle timeout. If bytes are unread when it
/// expires, the program has up to 50 ms, and at most a quarter of the timeout, to read them.
///
/// @param timeout_ms  Receives the milliseconds until the next call is due, at most INT_MAX, for
///                    poll(2). KEEPSOCK_INFINITE means that no call is needed.
/// @return KEEPSOCK_OK if the connection is alive, otherwise
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired; or the PROXY
///     header did not arrive in time, and the connection was reset
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_MALFORMED: the PROXY header is not valid; the connection was reset
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory for a heartbeat; call again
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall of this machine rejects the heartbeat
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_check_liveness(
    client: *mut keepsock_client,
    timeout_ms: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `timeout_ms`
    // and `error` are NULL or writable.
    let (client, timeout_ms, error) =
        unsafe { (Ref::new(client), Optional::new(timeout_ms), ErrorOut::new(error)) };
    with(client, error, "liveness check", |socket| {
        timeout_ms.write(socket.check_liveness()?.map_or(KEEPSOCK_INFINITE, millis));
        Ok(())
    })
}

/// Sets dead_after of an open connection, which keepsock_options_set_dead_after() describes.
///
/// The function adjusts keepalive to fit, unless the program set keepalive itself.
///
/// @param timeout_ms  2,000 to 163,880,000 milliseconds. KEEPSOCK_INFINITE turns it off.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; out of range; keepalive is off, or detects a dead
///     peer later; KEEPSOCK_INFINITE with fail_on_stall; Multipath TCP
///   - KEEPSOCK_ERR_UNSUPPORTED: NetBSD, OpenBSD and illumos
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: KEEPSOCK_INFINITE needs a free descriptor for a moment
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids a TCP socket
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_dead_after(
    client: *mut keepsock_client,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "dead_after", |socket| {
        socket.set_dead_after(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Sets the idle timeout of an open connection, which keepsock_options_set_idle_timeout()
/// describes.
///
/// @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns it off.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; out of range; not above the heartbeat interval;
///     KEEPSOCK_INFINITE with idle_receive_only
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_idle_timeout(
    client: *mut keepsock_client,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "idle timeout", |socket| {
        socket.set_idle_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}

/// Sets the heartbeat of an open connection, which keepsock_options_set_heartbeat() describes.
///
/// @param interval_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns the heartbeat off.
/// @param buf          The bytes of a heartbeat, copied. With KEEPSOCK_INFINITE it is ignored and
///                     may be NULL.
/// @param len          The number of bytes, greater than 0.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; no bytes; out of range; not below the idle timeout;
///     KEEPSOCK_INFINITE with a heartbeat timeout
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the bytes
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_heartbeat(
    client: *mut keepsock_client,
    interval_ms: i64,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    let len = if interval_ms == KEEPSOCK_INFINITE { 0 } else { len };
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `len`
    // readable bytes; `error` is NULL or writable.
    let (client, buf, error) =
        unsafe { (Ref::new(client), Bytes::new(buf, len), ErrorOut::new(error)) };
    with(client, error, "heartbeat", |socket| {
        let interval = timeout("interval_ms", interval_ms)?;
        socket.set_heartbeat(buf.get()?, interval)
    })
}

/// Sets the heartbeat timeout of an open connection.
///
/// keepsock_options_set_heartbeat_timeout() describes it.
///
/// @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns it off.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or the connection has no heartbeat
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_heartbeat_timeout(
    client: *mut keepsock_client,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "heartbeat timeout", |socket| {
        socket.set_heartbeat_timeout(timeout("timeout_ms", timeout_ms)?)
    })
}
