//! The SYN of an accepted connection.

use crate::ffi::{
    ErrorOut, Ref, Structure, fill, keepsock_client, keepsock_error, keepsock_segment,
};

/// Returns the SYN of an accepted connection, as the kernel saved it (TCP_SAVED_SYN).
///
/// @param client  A connection that a server with keepsock_options_set_save_syn() accepted.
/// @param out     Receives the segment.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: the kernel saved no SYN: the server's option is off, or the server
///     was so busy that it answered with a SYN cookie
///   - KEEPSOCK_ERR_WRONG_STATE: this side connected, so it sent the SYN itself
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that saves no SYN
///   - KEEPSOCK_ERR_CLOSED: the connection was closed before the SYN was read
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_saved_syn(
    client: *const keepsock_client,
    out: *mut keepsock_segment,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (client, out, error) =
        unsafe { (Ref::new(client), Structure::new(out, size), ErrorOut::new(error)) };
    fill(client, out, error, "saved SYN", |socket| Ok(keepsock_segment::from(socket.saved_syn()?)))
}
