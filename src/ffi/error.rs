//! `keepsock_error`, and the text of status codes.

use std::ffi::{CStr, CString, c_char};

use super::handle::{Handle, Pool, Pooled};
use super::{KEEPSOCK_OK, c_string, fill_text, handle, live, shield, write_sized};
use crate::{Attempt, Error, ErrorKind, Stage};

/// Why a call failed, for people: its message is one line that tells what was
/// done, to which endpoint, at which stage and why.
///
/// Every call takes a keepsock_error ** as its last argument. Pass NULL if the
/// status is enough. Otherwise a failed call stores a new error there, which is
/// yours to free; a successful call leaves it alone, so start with NULL.
///
/// Threads: an error does not change; any number of threads may read it.
/// All functions on it accept NULL, which reads as "no error".
pub struct keepsock_error {
    error: Error,
    message: CString,
    operation: CString,
    endpoint: CString,
}

impl Handle for keepsock_error {
    const MARK: u32 = 0x6b73_0002;
}

impl Pooled for keepsock_error {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_error> = Pool::new();
        &POOL
    }
}

impl keepsock_error {
    pub(super) fn new(error: Error) -> keepsock_error {
        keepsock_error {
            message: c_string(&error),
            operation: c_string(error.operation()),
            endpoint: c_string(error.endpoint()),
            error,
        }
    }
}

/// One failed attempt of a connect: which address, how far, why, how long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_attempt {
    /// Why it failed: a value of enum keepsock_err.
    pub status: i32,
    /// The system's error number (errno), or 0.
    pub os_error: i32,
    /// Its duration in microseconds.
    pub elapsed_us: i64,
    /// The address that was tried, as an endpoint.
    pub address: [c_char; 128],
    /// The step that failed: "socket", "options", "bind" or "connect".
    pub stage: [c_char; 16],
}

const KINDS: [(ErrorKind, &CStr, &CStr); 27] = [
    (ErrorKind::InvalidArgument, c"KEEPSOCK_ERR_INVALID_ARGUMENT", c"invalid argument"),
    (ErrorKind::InvalidEndpoint, c"KEEPSOCK_ERR_INVALID_ENDPOINT", c"invalid endpoint"),
    (ErrorKind::WrongState, c"KEEPSOCK_ERR_WRONG_STATE", c"wrong state"),
    (ErrorKind::Unsupported, c"KEEPSOCK_ERR_UNSUPPORTED", c"not supported here"),
    (ErrorKind::NoMemory, c"KEEPSOCK_ERR_NO_MEMORY", c"out of memory"),
    (ErrorKind::Panic, c"KEEPSOCK_ERR_PANIC", c"internal error"),
    (ErrorKind::Closed, c"KEEPSOCK_ERR_CLOSED", c"closed"),
    (ErrorKind::Cancelled, c"KEEPSOCK_ERR_CANCELLED", c"cancelled"),
    (ErrorKind::TimedOut, c"KEEPSOCK_ERR_TIMED_OUT", c"timed out"),
    (ErrorKind::WouldBlock, c"KEEPSOCK_ERR_WOULD_BLOCK", c"would block"),
    (ErrorKind::Draining, c"KEEPSOCK_ERR_DRAINING", c"draining"),
    (ErrorKind::EndOfStream, c"KEEPSOCK_ERR_END_OF_STREAM", c"end of stream"),
    (ErrorKind::TooLong, c"KEEPSOCK_ERR_TOO_LONG", c"longer than the maximum"),
    (ErrorKind::IdleLimit, c"KEEPSOCK_ERR_IDLE_LIMIT", c"idle limit"),
    (ErrorKind::HeartbeatMissed, c"KEEPSOCK_ERR_HEARTBEAT_MISSED", c"heartbeat missed"),
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

/// The name of a status: "KEEPSOCK_ERR_TIMED_OUT".
///
/// @param status  Any number; "KEEPSOCK_OK" for 0, "KEEPSOCK_ERR_UNKNOWN" for
///                one that this version does not have.
/// @return A static string. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_status_name(status: i32) -> *const c_char {
    let name = match find(status) {
        Some((_, name, _)) => name,
        None if status == KEEPSOCK_OK => c"KEEPSOCK_OK",
        None => c"KEEPSOCK_ERR_UNKNOWN",
    };
    name.as_ptr()
}

/// What a status means in a few words: "timed out".
///
/// @param status  Any number; "ok" for 0.
/// @return A static string. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_status_text(status: i32) -> *const c_char {
    let text = match find(status) {
        Some((.., text)) => text,
        None if status == KEEPSOCK_OK => c"ok",
        None => c"unknown status",
    };
    text.as_ptr()
}

/// The status that the failed call returned.
///
/// @param error  An error, or NULL: KEEPSOCK_OK.
/// @return A status. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_status(error: *const keepsock_error) -> i32 {
    // SAFETY: null, or a live error as the header asks.
    unsafe { handle::get(error) }.map_or(KEEPSOCK_OK, |e| e.error.kind().code())
}

/// The whole story in one line:
/// "connect to [2001:db8::1]:80 (example.com:80): timed out after 5.0 s".
///
/// @param error  An error, or NULL: "no error".
/// @return Text that lives as long as the error. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_message(error: *const keepsock_error) -> *const c_char {
    // SAFETY: null, or a live error as the header asks.
    unsafe { handle::get(error) }.map_or(c"no error".as_ptr(), |e| e.message.as_ptr())
}

/// The call that failed: "connect", "read", "listen".
///
/// @param error  An error, or NULL: "".
/// @return Text that lives as long as the error. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_operation(error: *const keepsock_error) -> *const c_char {
    // SAFETY: null, or a live error as the header asks.
    unsafe { handle::get(error) }.map_or(c"".as_ptr(), |e| e.operation.as_ptr())
}

/// The endpoint or five-tuple that it failed on, "" if there is none.
///
/// @param error  An error, or NULL: "".
/// @return Text that lives as long as the error. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_endpoint(error: *const keepsock_error) -> *const c_char {
    // SAFETY: null, or a live error as the header asks.
    unsafe { handle::get(error) }.map_or(c"".as_ptr(), |e| e.endpoint.as_ptr())
}

/// For connect and listen: the step that failed.
///
/// @param error  An error, or NULL: "".
/// @return "lookup", "socket", "options", "bind", "connect", or "" for other
///         calls; a static string. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_stage(error: *const keepsock_error) -> *const c_char {
    // SAFETY: null, or a live error as the header asks.
    let stage = unsafe { handle::get(error) }.and_then(|e| e.error.failed_stage());
    let text = match stage {
        Some(Stage::Lookup) => c"lookup",
        Some(Stage::Socket) => c"socket",
        Some(Stage::Options) => c"options",
        Some(Stage::Bind) => c"bind",
        Some(Stage::Connect) => c"connect",
        None => c"",
    };
    text.as_ptr()
}

/// The system's error number, if it was the system that failed the call.
///
/// @param error  An error, or NULL.
/// @return errno (a WSA code on Windows), or 0. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_os_error(error: *const keepsock_error) -> i32 {
    // SAFETY: null, or a live error as the header asks.
    unsafe { handle::get(error) }.and_then(|e| e.error.os_error()).unwrap_or(0)
}

/// How many bytes the call had moved before it failed. Bytes that were read are
/// kept for the next read; bytes that were written are on their way.
///
/// @param error  An error, or NULL: 0.
/// @return A number of bytes. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_transferred(error: *const keepsock_error) -> usize {
    // SAFETY: null, or a live error as the header asks.
    unsafe { handle::get(error) }.map_or(0, |e| e.error.transferred())
}

/// How many attempts a failed connect made.
///
/// @param error  An error, or NULL: 0.
/// @return A number for keepsock_error_attempt(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_attempt_count(error: *const keepsock_error) -> usize {
    // SAFETY: null, or a live error as the header asks.
    unsafe { handle::get(error) }.map_or(0, |e| e.error.attempts().len())
}

pub(super) fn to_attempt(attempt: &Attempt) -> keepsock_attempt {
    let mut value = keepsock_attempt {
        status: attempt.kind.code(),
        os_error: attempt.os_error.unwrap_or(0),
        elapsed_us: i64::try_from(attempt.elapsed.as_micros()).unwrap_or(i64::MAX),
        address: [0; 128],
        stage: [0; 16],
    };
    fill_text(&mut value.address, &attempt.address.to_string());
    fill_text(&mut value.stage, &attempt.stage.to_string());
    value
}

/// One attempt of a failed connect, in the order they were made.
///
/// @param error  An error.
/// @param index  Below keepsock_error_attempt_count().
/// @param out    Filled in on success.
/// @param size   sizeof *out.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for an index beyond the
///         last, NULL or size 0. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_attempt(
    error: *const keepsock_error,
    index: usize,
    out: *mut keepsock_attempt,
    size: usize,
) -> i32 {
    const OPERATION: &str = "attempt";
    let look = || {
        // SAFETY: null, or a live error as the header asks.
        let error = unsafe { live(error, OPERATION, "error") }?;
        let Some(attempt) = error.error.attempts().get(index) else {
            return Err(super::invalid(OPERATION, "no such attempt"));
        };
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &to_attempt(attempt), OPERATION) }
    };
    shield(ErrorKind::Panic.code(), || look().map_or_else(|e| e.kind().code(), |()| KEEPSOCK_OK))
}

/// Frees an error. Freeing NULL does nothing.
///
/// @param error  An error, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_error_free(error: *mut keepsock_error) {
    // SAFETY: null, or an error as the header asks.
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
