//! `keepsock_lookup` and `keepsock_pending_lookup`.

use std::ffi::c_char;
use std::net::SocketAddr;

use crate::ffi::{
    ErrorOut, KEEPSOCK_INFINITE, Optional, Out, OutArray, Ref, Result, Text, address_to_c, call,
    create, fd_of, handle, keepsock_address, keepsock_error, keepsock_fd, keepsock_options, millis,
    with_exclusive,
};
use crate::internal::sync::Mutex;
use crate::{Error, ErrorKind, PendingLookup};

const OPERATION: &str = "lookup";

/// Looks up the addresses of an endpoint (getaddrinfo(3)) with a deadline.
///
/// The addresses have the order in which keepsock_client_connect() tries them (RFC 6724, RFC 8305):
/// the families alternate. A numeric endpoint and "localhost" need no resolver. "*" has the wildcard
/// addresses, which only keepsock_server_listen() and keepsock_datagram_bind() accept. The port of a
/// service name is that of TCP.
///
/// The options of a later connect may be passed: the lookup uses the family, the preferred family,
/// the connect timeout and the cancel token. If they have remote addresses, a connect tries these,
/// so they are the result. If the timeout expires after a name server has answered for one family,
/// the result has that family.
///
/// A connect by a list of addresses does no lookup:
/// @code
/// keepsock_options *options;
/// keepsock_address found[8];
/// char text[64];
/// size_t count;
///
/// if (keepsock_options_new(&options, NULL) != KEEPSOCK_OK ||
///     keepsock_lookup("example.com:80", options, found, 8, &count, NULL) != KEEPSOCK_OK)
///     return;
/// for (size_t i = 0; i < count && i < 8; i++)
///     if (keepsock_address_text(&found[i], text, sizeof text, NULL, NULL) == KEEPSOCK_OK)
///         keepsock_options_add_remote_address(options, text, NULL);
/// keepsock_client_connect("example.com:80", options, &client, NULL);
/// @endcode
///
/// @param endpoint   The endpoint, as for keepsock_client_connect().
/// @param options    Socket options. NULL for the defaults.
/// @param addresses  Receives the first `cap` addresses.
/// @param cap        The number of elements of `addresses`.
/// @param count      Receives the number of addresses that were found, which may exceed `cap`.
/// @param error      keepsock_error_lookup_code() returns the code of getaddrinfo(3).
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: the host or the service does not exist, or has no address of the
///     family
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine lacks the zone, `endpoint` does not parse, or it
///     is a Unix path, which has no addresses
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout of `options` expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory, or the system starts no thread
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_lookup(
    endpoint: *const c_char,
    options: *const keepsock_options,
    addresses: *mut keepsock_address,
    cap: usize,
    count: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `endpoint` is
    // NULL or ends with NUL; `addresses` has `cap` writable elements; `count` and `error` are NULL or
    // writable.
    let (endpoint, options, found, error) = unsafe {
        (
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Found(OutArray::new(addresses, cap, "addresses"), Optional::new(count)),
            ErrorOut::new(error),
        )
    };
    call(error, OPERATION, || {
        let found = found.required()?;
        found.write(&crate::lookup(endpoint.endpoint()?, &*options.or_default()?)?);
        Ok(())
    })
}

/// The array and the number that receive the result of a lookup.
struct Found<'a>(OutArray<'a, keepsock_address>, Optional<'a, usize>);

impl Found<'_> {
    fn required(self) -> Result<Self> {
        Ok(Found(self.0.required()?, self.1))
    }

    fn write(self, found: &[SocketAddr]) {
        self.0.write(found.iter().map(|address| address_to_c(Some(address))));
        self.1.write(found.len());
    }
}

/// A lookup in progress, for programs that wait in their own event loop.
///
/// The result is that of keepsock_lookup(). Call keepsock_pending_lookup_finish() as long as it
/// returns KEEPSOCK_ERR_WOULD_BLOCK: when keepsock_pending_lookup_fd() is readable (not on Windows),
/// and on every platform after keepsock_pending_lookup_next_timeout().
///
/// Threads: one thread at a time. A call during another call returns KEEPSOCK_ERR_WRONG_STATE.
pub struct keepsock_pending_lookup(Mutex<PendingLookup>);

handle!(keepsock_pending_lookup, PendingLookup, "pending", 0: Mutex<PendingLookup>);

/// Starts a lookup, without waiting.
///
/// @param endpoint  The endpoint, as for keepsock_client_connect().
/// @param options   Socket options, as for keepsock_lookup(). NULL for the defaults.
/// @param pending   Receives the object. Free it with keepsock_pending_lookup_free().
/// @return KEEPSOCK_OK if the lookup is in progress. keepsock_pending_lookup_finish() returns all
///   other failures.
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, or it is a Unix path, which has no
///     addresses
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process or the kernel has no memory
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_lookup_start(
    endpoint: *const c_char,
    options: *const keepsock_options,
    pending: *mut *mut keepsock_pending_lookup,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; `endpoint` is
    // NULL or ends with NUL; `pending` and `error` are NULL or writable.
    let (endpoint, options, pending, error) = unsafe {
        (
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Out::new(pending, "pending"),
            ErrorOut::new(error),
        )
    };
    create(pending, error, OPERATION, || {
        let started = PendingLookup::start(endpoint.endpoint()?, &*options.or_default()?)?;
        Ok(keepsock_pending_lookup(Mutex::new(started)))
    })
}

/// Continues the lookup without waiting, and returns the addresses when there are any.
///
/// @param pending    A lookup in progress.
/// @param addresses  Receives the first `cap` addresses.
/// @param cap        The number of elements of `addresses`.
/// @param count      Receives the number of addresses that were found, which may exceed `cap`.
/// @param error      KEEPSOCK_ERR_WOULD_BLOCK also stores an error object.
/// @return KEEPSOCK_OK if the lookup has a result, otherwise
///   - KEEPSOCK_ERR_WOULD_BLOCK: the lookup is in progress
///   - KEEPSOCK_ERR_WRONG_STATE: the lookup has finished already, or another call is in progress
///   - KEEPSOCK_ERR_NOT_FOUND: the host or the service does not exist, or has no address of the
///     family
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine lacks the zone
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout of `options` expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory, or the system starts no thread
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_lookup_finish(
    pending: *mut keepsock_pending_lookup,
    addresses: *mut keepsock_address,
    cap: usize,
    count: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call; `addresses` has
    // `cap` writable elements; `count` and `error` are NULL or writable.
    let (pending, found, error) = unsafe {
        let found = Found(OutArray::new(addresses, cap, "addresses"), Optional::new(count));
        (Ref::new(pending), found, ErrorOut::new(error))
    };
    with_exclusive(pending, error, OPERATION, |pending| {
        let found = found.required()?;
        let result = pending.finish()?;
        found.write(&result.ok_or_else(|| Error::new(ErrorKind::WouldBlock, OPERATION))?);
        Ok(())
    })
}

/// Waits until the lookup has a result or the connect timeout of its options expires.
///
/// @param pending    A lookup in progress.
/// @param addresses  Receives the first `cap` addresses.
/// @param cap        The number of elements of `addresses`.
/// @param count      Receives the number of addresses that were found, which may exceed `cap`.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the lookup has finished already, or another call is in progress
///   - KEEPSOCK_ERR_NOT_FOUND: the host or the service does not exist, or has no address of the
///     family
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine lacks the zone
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout of `options` expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory, or the system starts no thread
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_lookup_wait(
    pending: *mut keepsock_pending_lookup,
    addresses: *mut keepsock_address,
    cap: usize,
    count: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call; `addresses` has
    // `cap` writable elements; `count` and `error` are NULL or writable.
    let (pending, found, error) = unsafe {
        let found = Found(OutArray::new(addresses, cap, "addresses"), Optional::new(count));
        (Ref::new(pending), found, ErrorOut::new(error))
    };
    with_exclusive(pending, error, OPERATION, |pending| {
        let found = found.required()?;
        found.write(&pending.wait()?);
        Ok(())
    })
}

/// Returns one descriptor that covers the lookup, its deadline and the cancel token (epoll(7), Linux
/// only).
///
/// The descriptor is readable when keepsock_pending_lookup_finish() has something to do. It stays
/// the same until the lookup has finished, and is readable then: remove it from the event loop.
/// The object keeps it; do not close it. The first call uses two descriptors.
///
/// @param pending  A lookup in progress.
/// @param fd       Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the lookup has finished, or another call is in progress
///   - KEEPSOCK_ERR_UNSUPPORTED: no epoll or kqueue; use keepsock_pending_lookup_next_timeout()
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_lookup_fd(
    pending: *mut keepsock_pending_lookup,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call, and `fd` and `error`
    // are NULL or writable.
    let (pending, fd, error) =
        unsafe { (Ref::new(pending), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with_exclusive(pending, error, OPERATION, |pending| {
        let out = fd.required()?;
        out.write(fd_of(pending.descriptor()?));
        Ok(())
    })
}

/// Returns the time after which keepsock_pending_lookup_finish() must be called.
///
/// Before the first keepsock_pending_lookup_fd() the time is at most 25 ms during the lookup, so a
/// program needs no descriptor. The value can be passed to poll(2): KEEPSOCK_INFINITE is -1.
///
/// @param pending     A lookup in progress.
/// @param timeout_ms  Receives milliseconds, at most INT_MAX. KEEPSOCK_INFINITE means that no call
///                    is due. 0 means that finish has a result.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_lookup_next_timeout(
    pending: *mut keepsock_pending_lookup,
    timeout_ms: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `pending` during the call, and `timeout_ms` and
    // `error` are NULL or writable.
    let (pending, timeout_ms, error) =
        unsafe { (Ref::new(pending), Optional::new(timeout_ms), ErrorOut::new(error)) };
    with_exclusive(pending, error, OPERATION, |pending| {
        timeout_ms.write(pending.next_timeout().map_or(KEEPSOCK_INFINITE, millis));
        Ok(())
    })
}

/// Frees the object and abandons a lookup in progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_lookup_free(pending: *mut keepsock_pending_lookup) {
    // SAFETY: the header requires that no other thread uses `pending`.
    unsafe { handle::free(pending) };
}
