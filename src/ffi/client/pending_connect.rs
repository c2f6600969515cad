//! `keepsock_pending_connect`.

use std::ffi::c_char;

use crate::ffi::{
    ErrorOut, KEEPSOCK_INFINITE, KEEPSOCK_OK, Mut, Optional, Out, Ref, Result, Structure, Text,
    create, fd_of, fill_text, handle, keepsock_attempt, keepsock_client, keepsock_error,
    keepsock_fd, keepsock_options, millis, not_found, to_attempt, with_mut,
};
use crate::{Error, ErrorKind, PendingConnect};

const OPERATION: &str = "connect";

/// A connect in progress, for programs that wait in their own event loop or for several connects.
///
/// The lookup, the race and the deadline are those of keepsock_client_connect(). Poll the
/// descriptor of keepsock_pending_connect_fd(). When it is readable, call
/// keepsock_pending_connect_finish(), until it returns another status than
/// KEEPSOCK_ERR_WOULD_BLOCK.
///
/// Threads: one thread at a time.
pub struct keepsock_pending_connect(PendingConnect);

handle!(keepsock_pending_connect, PendingConnect, "pending", 0: PendingConnect);

/// Starts connecting, without waiting (connect(2) with O_NONBLOCK).
///
/// The function starts the lookup, or sends the first SYN.
///
/// @param endpoint  The endpoint, as for keepsock_client_connect().
/// @param options   Socket options, copied. NULL for the defaults.
/// @param pending   Receives the object. Free it with keepsock_pending_connect_free().
/// @return KEEPSOCK_OK if the connect is in progress. keepsock_pending_connect_finish() returns
///   all other failures of connecting.
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse; no peer can have its address ("*",
///     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
///     endpoint is a multicast or broadcast address; or the zone or interface does not exist
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, an option has no effect on this kind of socket, or
///     the local endpoint is a host name, whose lookup would wait
///   - KEEPSOCK_ERR_NOT_FOUND: the local endpoint is not of the requested family
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_start(
    endpoint: *const c_char,
    options: *const keepsock_options,
    pending: *mut *mut keepsock_pending_connect,
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
        let started = PendingConnect::start(endpoint.endpoint()?, &*options.or_default()?)?;
        Ok(keepsock_pending_connect(started))
    })
}

/// Continues the connect without waiting, and returns the connection when there is one.
///
/// The connection is in blocking mode: an event loop calls keepsock_client_set_nonblocking().
///
/// @param pending  A connect in progress.
/// @param client   Receives the connection. Free it with keepsock_client_free().
/// @param error    KEEPSOCK_ERR_WOULD_BLOCK also stores an error object. The message
///                 lists every attempt.
/// @return KEEPSOCK_OK if the connection is made, otherwise
///   - KEEPSOCK_ERR_WOULD_BLOCK: the connect is in progress
///   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished already
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
///   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option has no effect on this kind of socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the name resolves to an address that no peer can have, such as
///     0.0.0.0, or to a link-local address without a zone; or the interface does not exist
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_finish(
    pending: *mut keepsock_pending_connect,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that only this thread uses `pending`, and `client` and `error`
    // are NULL or writable.
    let (pending, client, error) =
        unsafe { (Mut::new(pending), Out::new(client, "client"), ErrorOut::new(error)) };
    with_mut(pending, error, OPERATION, |pending| {
        let out = client.reserved()?;
        let connected = pending.0.finish()?;
        let connected = connected.ok_or_else(|| Error::new(ErrorKind::WouldBlock, OPERATION))?;
        out.put(keepsock_client::own(connected));
        Ok(())
    })
}

/// Waits until the connection is made or the connect timeout expires.
///
/// @param pending  A connect in progress.
/// @param client   Receives the connection. Free it with keepsock_client_free().
/// @param error    Its message lists every attempt.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished already
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
///   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
///   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout expired
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option has no effect on this kind of socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the name resolves to an address that no peer can have, such as
///     0.0.0.0, or to a link-local address without a zone; or the interface does not exist
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_wait(
    pending: *mut keepsock_pending_connect,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that only this thread uses `pending`, and `client` and `error`
    // are NULL or writable.
    let (pending, client, error) =
        unsafe { (Mut::new(pending), Out::new(client, "client"), ErrorOut::new(error)) };
    with_mut(pending, error, OPERATION, |pending| {
        let out = client.reserved()?;
        out.put(keepsock_client::own(pending.0.wait()?));
        Ok(())
    })
}

/// Returns one descriptor that covers all attempts, timers and the deadline (epoll(7), Linux only).
///
/// The descriptor is readable when keepsock_pending_connect_finish() has something to do. It stays
/// the same until the connect has finished, and is readable then: remove it from the event loop.
/// The object keeps it; do not close it. The first call uses two descriptors.
///
/// @param pending  A connect in progress.
/// @param fd       Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished
///   - KEEPSOCK_ERR_UNSUPPORTED: not Linux; use keepsock_pending_connect_timeout()
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_fd(
    pending: *mut keepsock_pending_connect,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that only this thread uses `pending`, and `fd` and `error` are
    // NULL or writable.
    let (pending, fd, error) =
        unsafe { (Mut::new(pending), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with_mut(pending, error, OPERATION, |pending| {
        let out = fd.required()?;
        out.write(fd_of(pending.0.descriptor()?));
        Ok(())
    })
}

/// Returns the time after which keepsock_pending_connect_finish() must be called.
///
/// A program that waits for keepsock_pending_connect_fd() does not need it: that descriptor becomes
/// readable at the deadline as well. The value can be passed to poll(2): KEEPSOCK_INFINITE is -1.
///
/// @param pending     A connect in progress.
/// @param timeout_ms  Receives milliseconds, at most INT_MAX. KEEPSOCK_INFINITE means that no call
///                    is due: there is no timeout, or the connect has finished.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_timeout(
    pending: *mut keepsock_pending_connect,
    timeout_ms: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that only this thread uses `pending`, and `timeout_ms` and
    // `error` are NULL or writable.
    let (pending, timeout_ms, error) =
        unsafe { (Mut::new(pending), Optional::new(timeout_ms), ErrorOut::new(error)) };
    with_mut(pending, error, OPERATION, |pending| {
        timeout_ms.write(pending.0.timeout().map_or(KEEPSOCK_INFINITE, millis));
        Ok(())
    })
}

/// Returns one attempt. The attempts that ended without a connection come first, in the order in
/// which they ended. The attempts in progress follow.
///
/// When one attempt wins, the other attempts in progress end with KEEPSOCK_ERR_CLOSED.
///
/// @param pending  A connect, in progress or finished.
/// @param index    From 0.
/// @param out      Receives the attempt.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: no attempt has that index
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_attempt(
    pending: *mut keepsock_pending_connect,
    index: usize,
    out: *mut keepsock_attempt,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that only this thread uses `pending`; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (pending, out, error) =
        unsafe { (Mut::new(pending), Structure::new(out, size), ErrorOut::new(error)) };
    with_mut(pending, error, OPERATION, |pending| {
        let ended = pending.0.attempts();
        let value = match ended.get(index) {
            Some(attempt) => to_attempt(attempt),
            None => in_progress(&pending.0, index - ended.len())?,
        };
        out.fill(&value)
    })
}

fn in_progress(pending: &PendingConnect, index: usize) -> Result<keepsock_attempt> {
    let attempts = pending.attempts_in_progress();
    let attempt = attempts.get(index).ok_or_else(|| not_found("there is no such attempt"));
    let (address, state) = attempt?;
    let mut value = keepsock_attempt {
        status: KEEPSOCK_OK,
        os_error: 0,
        elapsed_us: 0,
        address: [0; 128],
        stage: [0; 20],
        tcp_state: state.map_or(0, |state| state as i32),
    };
    fill_text(&mut value.address, &address.to_string());
    Ok(value)
}

/// Frees the object and cancels a connect in progress. A connection that it returned continues.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_pending_connect_free(pending: *mut keepsock_pending_connect) {
    // SAFETY: the header requires that no other thread uses `pending`.
    unsafe { handle::free(pending) };
}
