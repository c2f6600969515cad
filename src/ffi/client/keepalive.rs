//! Keepalive of a `keepsock_client`.

use crate::Keepalive;
use crate::ffi::{
    ErrorOut, Ref, Structure, fill, keepsock_client, keepsock_error, options, versioned, with,
};

/// The keepalive values of a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_keepalive {
    /// The idle time before the first probe, in milliseconds.
    pub idle_ms: i64,
    /// The time between probes, in milliseconds.
    pub interval_ms: i64,
    /// The number of unanswered probes after which the peer is dead.
    pub count: u32,
    /// Whether keepalive is on. If it is off, the other members have no effect.
    pub enabled: bool,
}

versioned!(keepsock_keepalive: 24);

pub(crate) fn keepalive_to_c(enabled: bool, values: Keepalive) -> keepsock_keepalive {
    let ms = |t: std::time::Duration| i64::try_from(t.as_millis()).unwrap_or(i64::MAX);
    keepsock_keepalive {
        enabled,
        idle_ms: ms(values.idle()),
        interval_ms: ms(values.interval()),
        count: values.count(),
    }
}

/// Sets the keepalive values of an open connection, which keepsock_options_set_keepalive()
/// describes.
///
/// @param idle_ms      1 to 32,767,000 milliseconds, rounded up to whole seconds. KEEPSOCK_INFINITE
///                     turns keepalive off; `interval_ms` and `count` are then ignored.
/// @param interval_ms  1 to 32,767,000 milliseconds, rounded up to whole seconds.
/// @param count        1 to 127.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or the values contradict dead_after or
///     the middlebox timeout
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_set_keepalive(
    client: *mut keepsock_client,
    idle_ms: i64,
    interval_ms: i64,
    count: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is
    // NULL or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "keepalive", |socket| {
        socket.set_keepalive(options::keepalive(idle_ms, interval_ms, count)?)
    })
}

/// Returns the keepalive values that the kernel uses now.
///
/// @param out  Receives the values.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
///   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_keepalive(
    client: *const keepsock_client,
    out: *mut keepsock_keepalive,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (client, out, error) =
        unsafe { (Ref::new(client), Structure::new(out, size), ErrorOut::new(error)) };
    fill(client, out, error, "keepalive", |socket| {
        Ok(match socket.keepalive()? {
            Some(values) => keepalive_to_c(true, values),
            None => keepalive_to_c(false, socket.keepalive_values()?),
        })
    })
}
