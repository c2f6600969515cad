//! Options of the operating system of a `keepsock_client`.

use crate::ffi::{ErrorOut, Out, Ref, keepsock_client, keepsock_error, sockopt, with};

/// Sets an option of the operating system on an open connection (setsockopt(2)).
///
/// For the options that may change after the handshake: the sizes of the buffers, tos,
/// notsent_lowat, mark, priority, oob_inline, nodelay and cork. If the call fails, the connection
/// is unchanged.
///
/// @param option  A keepsock_sockopt.
/// @param value   The value. An option that is off or on has 0 or 1.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `option` is not a keepsock_sockopt, `value` is out of
///     its range, or the option has no effect on an open connection
///   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set it
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_sockopt(
    client: *mut keepsock_client,
    option: i32,
    value: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "sockopt", |socket| socket.set_sockopt(sockopt(option)?, value))
}

/// Returns the value of an option of the operating system that the kernel uses (getsockopt(2)).
///
/// @param option  A keepsock_sockopt.
/// @param value   Receives the value. Linux returns twice the size of a buffer that was set.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `option` is not a keepsock_sockopt
///   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_sockopt(
    client: *const keepsock_client,
    option: i32,
    value: *mut u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `value` and
    // `error` are NULL or writable.
    let (client, value, error) =
        unsafe { (Ref::new(client), Out::new(value, "value"), ErrorOut::new(error)) };
    with(client, error, "sockopt", |socket| {
        let value = value.required()?;
        value.write(socket.sockopt(sockopt(option)?)?);
        Ok(())
    })
}
