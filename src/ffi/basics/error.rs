//! `keepsock_error`, and the text of status codes.

use std::ffi::{CStr, CString, c_char};
use std::io::Write;

use crate::ffi::{
    ErrorOut, KEEPSOCK_OK, Ref, Structure, Text, c_string, fill_text, handle, no_element, shield,
    versioned,
};
use crate::{Attempt, Error, ErrorKind, Stage};

/// The reason why a call failed, for people: what failed, on what, at which stage and why.
///
/// A function with a keepsock_error ** stores a new object there if it fails. The caller frees it
/// with keepsock_error_free(). All functions that take an error accept NULL, which reads as "no
/// error".
///
/// Threads: an error does not change. Any number of threads may read it.
pub struct keepsock_error {
    error: Error,
    message: CString,
    operation: CString,
    endpoint: CString,
}

handle!(keepsock_error, Error, "error", error: Error);

impl keepsock_error {
    pub(crate) fn new(error: Error) -> keepsock_error {
        keepsock_error {
            message: c_string(&error),
            operation: c_string(error.operation()),
            endpoint: c_string(error.endpoint()),
            error,
        }
    }
}

/// One attempt of a connect, failed or in progress.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_attempt {
    /// The keepsock_status. KEEPSOCK_ERR_WOULD_BLOCK: the attempt is in progress.
    pub status: i32,
    /// The system's error number (errno), or 0.
    pub os_error: i32,
    /// The duration in microseconds. While the attempt is in progress, the time since its start.
    pub elapsed_us: i64,
    /// While the attempt is in progress, a keepsock_tcp_state, if the system reports it. Otherwise 0.
    pub tcp_state: i32,
    /// The step that failed, or that is in progress: "socket", "options", "bind" or "connect".
    pub stage: [c_char; 20],
    /// The address, as an endpoint.
    pub address: [c_char; 128],
}

versioned!(keepsock_attempt: 168);

const KINDS: [(ErrorKind, &CStr, &CStr); 28] = [
    (ErrorKind::InvalidArgument, c"KEEPSOCK_ERR_INVALID_ARGUMENT", c"invalid argument"),
    (ErrorKind::InvalidEndpoint, c"KEEPSOCK_ERR_INVALID_ENDPOINT", c"invalid endpoint"),
    (ErrorKind::WrongState, c"KEEPSOCK_ERR_WRONG_STATE", c"wrong state"),
    (ErrorKind::Unsupported, c"KEEPSOCK_ERR_UNSUPPORTED", c"not supported"),
    (ErrorKind::NoMemory, c"KEEPSOCK_ERR_NO_MEMORY", c"out of memory"),
    (ErrorKind::Panic, c"KEEPSOCK_ERR_PANIC", c"internal error"),
    (ErrorKind::Closed, c"KEEPSOCK_ERR_CLOSED", c"closed"),
    (ErrorKind::Cancelled, c"KEEPSOCK_ERR_CANCELLED", c"cancelled"),
    (ErrorKind::TimedOut, c"KEEPSOCK_ERR_TIMED_OUT", c"timed out"),
    (ErrorKind::WouldBlock, c"KEEPSOCK_ERR_WOULD_BLOCK", c"would block"),
    (ErrorKind::Draining, c"KEEPSOCK_ERR_DRAINING", c"draining"),
    (ErrorKind::EndOfStream, c"KEEPSOCK_ERR_END_OF_STREAM", c"end of stream"),
    (ErrorKind::TooLong, c"KEEPSOCK_ERR_TOO_LONG", c"longer than the maximum"),
    (ErrorKind::IdleTimeout, c"KEEPSOCK_ERR_IDLE_TIMEOUT", c"idle timeout"),
    (ErrorKind::HeartbeatTimeout, c"KEEPSOCK_ERR_HEARTBEAT_TIMEOUT", c"heartbeat timeout"),
    (ErrorKind::Malformed, c"KEEPSOCK_ERR_MALFORMED", c"malformed message"),
    (ErrorKind::NotFound, c"KEEPSOCK_ERR_NOT_FOUND", c"not found"),
    (ErrorKind::LookupFailed, c"KEEPSOCK_ERR_LOOKUP_FAILED", c"name lookup failed"),
    (ErrorKind::Refused, c"KEEPSOCK_ERR_REFUSED", c"connection refused"),
    (ErrorKind::Unreachable, c"KEEPSOCK_ERR_UNREACHABLE", c"unreachable"),
    (ErrorKind::Reset, c"KEEPSOCK_ERR_RESET", c"connection reset by peer"),
    (ErrorKind::Dead, c"KEEPSOCK_ERR_DEAD", c"peer is dead"),
    (ErrorKind::AddressInUse, c"KEEPSOCK_ERR_ADDRESS_IN_USE", c"address in use"),
    (
        ErrorKind::AddressNotAvailable,
        c"KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE",
        c"address not available",
    ),
    (ErrorKind::PermissionDenied, c"KEEPSOCK_ERR_PERMISSION_DENIED", c"permission denied"),
    (ErrorKind::NoDescriptors, c"KEEPSOCK_ERR_NO_DESCRIPTORS", c"out of file descriptors"),
    (ErrorKind::Stalled, c"KEEPSOCK_ERR_STALLED", c"peer takes no data"),
    (ErrorKind::Os, c"KEEPSOCK_ERR_OS", c"operating system error"),
];

fn find(status: i32) -> Option<&'static (ErrorKind, &'static CStr, &'static CStr)> {
    KINDS.iter().find(|(kind, ..)| kind.code() == status)
}

/// Returns the name of a status: "KEEPSOCK_ERR_TIMED_OUT".
///
/// @param status  Any number.
/// @return A static string: "KEEPSOCK_OK" for 0, "KEEPSOCK_ERR_UNKNOWN" for a number that this
///   version does not have.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_status_name(status: i32) -> *const c_char {
    let name = match find(status) {
        Some((_, name, _)) => name,
        None if status == KEEPSOCK_OK => c"KEEPSOCK_OK",
        None => c"KEEPSOCK_ERR_UNKNOWN",
    };
    name.as_ptr()
}

/// Returns what a status means in a few words: "timed out" (strerror(3)).
///
/// @param status  Any number.
/// @return A static string: "ok" for 0.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_status_str(status: i32) -> *const c_char {
    let text = match find(status) {
        Some((.., text)) => text,
        None if status == KEEPSOCK_OK => c"ok",
        None => c"unknown status",
    };
    text.as_ptr()
}

/// Returns the status that the failed call returned.
///
/// @param error  An error. NULL returns KEEPSOCK_OK.
/// @return The status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_status(error: *const keepsock_error) -> i32 {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    error.find().map_or(KEEPSOCK_OK, |e| e.error.kind().code())
}

/// Returns one line of text: what failed, on what, and why.
///
/// For example: "connect to [2001:db8::1]:80 (example.com:80): timed out after 5.0 s". The
/// message of a failed connect lists every attempt.
///
/// @param error  An error. NULL returns "no error".
/// @return Text that is valid until the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_message(error: *const keepsock_error) -> *const c_char {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    error.find().map_or(c"no error".as_ptr(), |e| e.message.as_ptr())
}

/// Returns the operation that failed: "connect", "read", "listen".
///
/// @param error  An error. NULL returns "".
/// @return Text that is valid until the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_operation(error: *const keepsock_error) -> *const c_char {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    error.find().map_or(c"".as_ptr(), |e| e.operation.as_ptr())
}

/// Returns the endpoint or the five-tuple that the operation failed on.
///
/// An invalid endpoint is returned as the caller passed it, with any control characters.
/// keepsock_error_message() escapes them.
///
/// @param error  An error. NULL returns "".
/// @return Text that is valid until the error is freed. "" if the operation has no endpoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_endpoint(error: *const keepsock_error) -> *const c_char {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    error.find().map_or(c"".as_ptr(), |e| e.endpoint.as_ptr())
}

/// Returns the step of connecting or listening that failed.
///
/// @param error  An error. NULL returns "".
/// @return A static string: "lookup", "socket", "options", "bind", "connect", or "" for other
///   operations.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_stage(error: *const keepsock_error) -> *const c_char {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    let text = match error.find().and_then(|e| e.error.failed_stage()) {
        Some(Stage::Lookup) => c"lookup",
        Some(Stage::Socket) => c"socket",
        Some(Stage::Options) => c"options",
        Some(Stage::Bind) => c"bind",
        Some(Stage::Connect) => c"connect",
        None => c"",
    };
    text.as_ptr()
}

/// Returns the system's error number, if a system call failed.
///
/// @param error  An error. NULL returns 0.
/// @return errno, or a WSA code on Windows. 0 if no system call failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_os_error(error: *const keepsock_error) -> i32 {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    error.find().and_then(|e| e.error.os_error()).unwrap_or(0)
}

/// Returns the errno that a caller of the plain socket functions expects for a failed call.
///
/// For programs whose own callers check errno: `errno = keepsock_status_errno(status, error);`. If
/// a system call failed, the result is its number, such as EPIPE, ENETUNREACH or EPERM. Otherwise
/// the status decides:
/// - ETIMEDOUT: every timeout, and a dead or stalled peer
/// - EAGAIN: KEEPSOCK_ERR_WOULD_BLOCK, and no other status
/// - ECONNREFUSED, ECONNRESET, EADDRINUSE, EADDRNOTAVAIL: the statuses of these names
/// - ENOENT: a name or path that does not exist; EHOSTUNREACH: a lookup that failed
/// - EPIPE: an end of stream; EBADF: a connection that this process closed
/// - ECANCELED: a cancelled call, and a service that drains
/// - EINVAL: arguments, endpoints and states
///
/// docs/from-bsd.md has the whole table. For a failed name lookup, keepsock_error_lookup_code() has
/// the EAI_ code.
///
/// @param status  The status that the call returned.
/// @param error   The error of the call, or NULL if the caller has none.
/// @return A value of <errno.h>, also on Windows. 0 for KEEPSOCK_OK, EIO for a number that this
///   version does not have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_status_errno(status: i32, error: *const keepsock_error) -> i32 {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    match error.find().filter(|_| status != KEEPSOCK_OK) {
        Some(e) => e.error.errno(),
        None if status == KEEPSOCK_OK => 0,
        None => find(status).map_or(ErrorKind::Os.errno(), |(kind, ..)| kind.errno()),
    }
}

/// Returns the error code of getaddrinfo(3), if a name lookup failed.
///
/// @param error  An error. NULL returns 0.
/// @return EAI_NONAME, EAI_AGAIN, ..., for gai_strerror(3). 0 if no lookup failed, and on Windows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_lookup_code(error: *const keepsock_error) -> i32 {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    error.find().and_then(|e| e.error.lookup_code()).unwrap_or(0)
}

/// Prints an error to the standard error stream and frees it (perror(3)).
///
/// Writes "PREFIX: MESSAGE" and a line feed in one write(2), so that lines of several threads do
/// not mix. Does nothing if there is no error, so one call at the end of a function is enough.
///
/// @code
/// keepsock_client *client = NULL;
/// keepsock_error *error = NULL;
/// if (keepsock_client_connect("example.com:80", NULL, &client, &error) == KEEPSOCK_OK)
///     keepsock_client_write_str(client, "hello\n", &error);
/// keepsock_error_print("hello", &error);
/// keepsock_client_free(client);
/// @endcode
///
/// @param prefix  The name of the program, for example. NULL or "" prints the message only.
/// @param error   The address of the error variable, as a failed call gets it (&error). The function
///                sets the variable to NULL. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_print(
    prefix: *const c_char,
    error: *mut *mut keepsock_error,
) {
    // SAFETY: the header requires that `prefix` is NULL or a string, and that `error` is NULL or
    // refers to the variable of an error.
    let (prefix, error) = unsafe { (Text::new(prefix, "prefix"), ErrorOut::new(error).take()) };
    // SAFETY: the header requires that no other thread uses the error.
    if let Some(found) = unsafe { Ref::new(error.cast_const()) }.find() {
        shield((), || {
            let mut line = prefix.bytes().unwrap_or_default().to_vec();
            if !line.is_empty() {
                line.extend_from_slice(b": ");
            }
            line.extend_from_slice(found.message.as_bytes());
            line.push(b'\n');
            // A failure of the standard error stream cannot be reported.
            let _ = std::io::stderr().write_all(&line);
        });
    }
    // SAFETY: as above; the reference is no longer used.
    unsafe { handle::free(error) };
}

/// Returns the number of bytes that the call transferred before it failed.
///
/// Bytes that were read are kept for the next read. Bytes that were written are in the kernel.
///
/// @param error  An error. NULL returns 0.
/// @return The number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_transferred(error: *const keepsock_error) -> usize {
    // SAFETY: the header requires that no thread frees `error` during the call.
    let error = unsafe { Ref::new(error) };
    error.find().map_or(0, |e| e.error.transferred())
}

/// The microseconds of a duration, as a structure holds them.
pub(crate) fn micros(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn to_attempt(attempt: &Attempt) -> keepsock_attempt {
    let mut value = keepsock_attempt {
        status: attempt.kind.code(),
        os_error: attempt.os_error.unwrap_or(0),
        elapsed_us: micros(attempt.elapsed),
        address: [0; 128],
        stage: [0; 20],
        tcp_state: 0,
    };
    fill_text(&mut value.address, &attempt.address.to_string());
    fill_text(&mut value.stage, &attempt.stage.to_string());
    value
}

/// Returns one attempt of a failed connect, in the order in which the attempts ended.
///
/// @param error  An error.
/// @param index  From 0.
/// @param out    Receives the attempt.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: no attempt has that index
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_attempt(
    error: *const keepsock_error,
    index: usize,
    out: *mut keepsock_attempt,
    size: usize,
) -> i32 {
    // SAFETY: the header requires that no thread frees `error` during the call, and `out` has
    // `size` writable bytes.
    let (error, out) = unsafe { (Ref::new(error), Structure::new(out, size)) };
    let body = || {
        let (attempts, out) = (error.get()?.error.attempts(), out.checked()?);
        let attempt = attempts.get(index);
        out.fill(&to_attempt(attempt.ok_or_else(|| no_element("attempt", index, attempts.len()))?))
    };
    shield(ErrorKind::Panic.code(), || body().map_or_else(|e| e.kind().code(), |()| KEEPSOCK_OK))
}

/// Frees an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_free(error: *mut keepsock_error) {
    // SAFETY: the header requires that no other thread uses `error`.
    unsafe { handle::free(error) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E1: one table of numbers and words for Rust and C.
    #[test]
    fn names_and_words_agree_with_rust() {
        for (kind, name, text) in KINDS {
            assert_eq!(text.to_str().unwrap(), kind.to_string());
            let screaming: String = format!("{kind:?}")
                .chars()
                .flat_map(|c| {
                    [
                        if c.is_uppercase() { "_" } else { "" }.to_owned(),
                        c.to_uppercase().to_string(),
                    ]
                })
                .collect();
            assert_eq!(name.to_str().unwrap(), format!("KEEPSOCK_ERR{screaming}"));
        }
    }
}
