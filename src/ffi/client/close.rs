//! Closing a `keepsock_client`, and the close reason.

use std::ffi::c_char;

use crate::ffi::{ErrorOut, Optional, Ref, keepsock_client, keepsock_error, shield, timeout, with};
use crate::{ClientSocket, CloseReason};

/// Waits, without reading, until the connection ends (poll(2) with POLLRDHUP).
///
/// Use it to notice that the peer hung up while the program prepares an answer. Bytes that arrived
/// before the end stay readable. If the peer sent FIN and then RST, the reason is
/// KEEPSOCK_CLOSE_PEER_RESET. The call sends heartbeats and detects a dead peer
/// (keepsock_options_set_dead_after()). Because it does not read, it does not check the heartbeat
/// timeout or the idle timeout. A connection from a trusted proxy whose header is incomplete after
/// keepsock_options_set_proxy_timeout() is reset, and the reason is KEEPSOCK_CLOSE_IDLE_TIMEOUT.
///
/// @param timeout_ms  Milliseconds. 0 returns the present state. KEEPSOCK_INFINITE means no limit.
/// @param reason      Receives the keepsock_close_reason.
/// @return KEEPSOCK_OK if the connection has ended, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the connection is open
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_UNSUPPORTED: a system other than Linux, Windows, macOS, a BSD or illumos
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `timeout_ms` is out of range
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_wait_hangup(
    client: *mut keepsock_client,
    timeout_ms: i64,
    reason: *mut i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `reason` and
    // `error` are NULL or writable.
    let (client, reason, error) =
        unsafe { (Ref::new(client), Optional::new(reason), ErrorOut::new(error)) };
    with(client, error, "wait for hang-up", |socket| {
        reason.write(socket.wait_hangup(timeout("timeout_ms", timeout_ms)?)? as i32);
        Ok(())
    })
}

/// Shuts the sending side down: sends FIN (shutdown(2) with SHUT_WR).
///
/// The peer reads up to the end of the stream and can still send.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported that the peer cannot be reached
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the heartbeat timeout had ended the connection
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_shutdown_write(
    client: *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "shutdown", ClientSocket::shutdown_write)
}

/// Closes a connection gracefully.
///
/// The peer receives every byte that was written, even if it is still sending. The function sends
/// FIN, reads and discards input until the peer closes its side, and then closes the descriptor.
/// That takes at most the close timeout (keepsock_client_set_close_timeout(), 2 s by default). The
/// function returns immediately if the peer has closed its side already or if nothing was written;
/// unread input is then answered with RST. Waiting calls of other threads return
/// KEEPSOCK_ERR_CLOSED; then the function waits only until the peer's kernel has acknowledged
/// everything. Closing twice returns KEEPSOCK_OK. The object must still be freed.
///
/// In non-blocking mode the function sends FIN and returns, and a thread of the library continues
/// the close, as it does for keepsock_client_free(). With a close timeout of 0 the function sends
/// FIN and closes the descriptor, also in non-blocking mode. The peer receives the end of the
/// stream although a forked child holds a copy of the descriptor.
///
/// @return KEEPSOCK_OK on success. The connection is closed in any case, and these statuses
///   report that the peer may not have received everything:
///   - KEEPSOCK_ERR_TIMED_OUT: the peer did not close its side within the close timeout, another
///     thread was writing, or the close timeout is 0 and the peer's kernel has not acknowledged
///     everything
///   - KEEPSOCK_ERR_RESET: the connection was reset, now or in an earlier call, after a write
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data, after a write
///   - KEEPSOCK_ERR_UNREACHABLE: the network reported that the peer cannot be reached, after a
///     write
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time, after a write
///   - KEEPSOCK_ERR_CLOSED: another thread aborted the connection while this call waited
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_close(
    client: *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "close", ClientSocket::close)
}

/// Aborts a connection: sends RST over TCP.
///
/// Bytes that the peer has not received yet are lost. The object must still be freed.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_abort(
    client: *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "abort", |socket| {
        socket.abort();
        Ok(())
    })
}

/// Returns why the connection ended: the first cause that a call observed. It stays readable after
/// close.
///
/// While a close of an open connection waits for the peer, the reason is already
/// KEEPSOCK_CLOSE_LOCAL or KEEPSOCK_CLOSE_CANCELLED. A failure that the close then observes replaces
/// this reason. A reset after the peer's FIN replaces KEEPSOCK_CLOSE_PEER_CLOSED. This function
/// checks for such a reset, and keepsock_client_close() does not, because the check is a system
/// call: call this function before the close if the difference matters.
///
/// @param client  A connection. NULL returns 0.
/// @return A keepsock_close_reason. 0 means that no call has observed a cause: the connection is
///   open, or it has ended since the last call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_close_reason(client: *const keepsock_client) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call.
    let client = unsafe { Ref::new(client) };
    let Some(client) = client.find() else {
        return 0;
    };
    shield(0, || client.socket().close_reason().map_or(0, |reason| reason as i32))
}

/// Returns a close reason in a few words: "reset by peer".
///
/// @param reason  A keepsock_close_reason.
/// @return A static string: "" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_close_reason_str(reason: i32) -> *const c_char {
    let text = match CloseReason::from_number(reason) {
        None => c"",
        Some(CloseReason::PeerClosed) => c"closed by peer",
        Some(CloseReason::PeerReset) => c"reset by peer",
        Some(CloseReason::Dead) => c"peer is dead",
        Some(CloseReason::Unreachable) => c"peer is unreachable",
        Some(CloseReason::Stalled) => c"peer takes no data",
        Some(CloseReason::IdleTimeout) => c"idle timeout",
        Some(CloseReason::HeartbeatTimeout) => c"heartbeat timeout",
        Some(CloseReason::Cancelled) => c"cancelled",
        Some(CloseReason::MessageTooLong) => c"message too long",
        Some(CloseReason::MessageMalformed) => c"malformed message",
        Some(CloseReason::FileFailed) => c"file cannot be sent",
        Some(CloseReason::Detached) => c"detached",
        Some(CloseReason::SlowConsumer) => c"slow consumer",
        Some(CloseReason::Local) => c"closed locally",
    };
    text.as_ptr()
}
