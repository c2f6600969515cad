//! `keepsock_cancel_token`.

use crate::CancelToken;
use crate::ffi::{ErrorOut, Out, Ref, create, fd_of, handle, keepsock_error, keepsock_fd, with};

/// A token that ends waiting calls.
///
/// After the token is fired, the calls on the sockets that have it return KEEPSOCK_ERR_CANCELLED
/// within 50 ms. The token stays fired until it is reset. The sockets stay usable. A socket
/// without a token has no extra cost.
///
/// Threads: any thread may call any function. keepsock_cancel_token_fire() may also be called
/// from a signal handler. Sockets share the token. It may be freed while sockets have it; then it
/// can no longer be fired.
pub struct keepsock_cancel_token(pub(crate) CancelToken);

handle!(keepsock_cancel_token, CancelToken, "cancel", 0: CancelToken);

/// Creates a cancel token.
///
/// A token holds one descriptor on Linux, and two on other Unix systems.
///
/// @param cancel  Receives the token. Free it with keepsock_cancel_token_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process or the kernel has no memory
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
///     forbids the call
///   - KEEPSOCK_ERR_UNSUPPORTED: the kernel lacks the system call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_token_new(
    cancel: *mut *mut keepsock_cancel_token,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `cancel` and `error` are NULL or writable.
    let (cancel, error) = unsafe { (Out::new(cancel, "cancel"), ErrorOut::new(error)) };
    create(cancel, error, "cancel token", || Ok(keepsock_cancel_token(CancelToken::new()?)))
}

/// Fires a token. NULL is ignored.
///
/// The function is async-signal-safe and does not change errno. Firing a fired token has no effect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_token_fire(cancel: *mut keepsock_cancel_token) {
    // SAFETY: the header requires that no thread frees `cancel` during the call.
    let cancel = unsafe { Ref::new(cancel) };
    if let Some(cancel) = cancel.find() {
        cancel.0.fire();
    }
}

/// Resets a fired token. NULL is ignored.
///
/// Reset a token after the calls that it ends have returned: a call that has not observed yet that
/// the token was fired continues to wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_token_reset(cancel: *mut keepsock_cancel_token) {
    // SAFETY: the header requires that no thread frees `cancel` during the call.
    let cancel = unsafe { Ref::new(cancel) };
    if let Some(cancel) = cancel.find() {
        cancel.0.reset();
    }
}

/// Returns whether a token is fired.
///
/// @param cancel  A token. NULL returns false.
/// @return true if the token was fired and not reset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_token_is_fired(
    cancel: *const keepsock_cancel_token,
) -> bool {
    // SAFETY: the header requires that no thread frees `cancel` during the call.
    let cancel = unsafe { Ref::new(cancel) };
    cancel.find().is_some_and(|cancel| cancel.0.is_fired())
}

/// Borrows a descriptor that is readable while a token is fired, for poll(2) or an event loop. On
/// Windows it is a SOCKET, for select and WSAPoll.
///
/// keepsock_cancel_token_reset() makes it unreadable again. The descriptor stays the same and is
/// open while the token, or a socket that has the token, exists. Do not read from it or close it.
///
/// @param cancel  A token.
/// @param fd      Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: a forked child of the process that created the token; create a
///     token in the child
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_token_fd(
    cancel: *const keepsock_cancel_token,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `cancel` during the call, and `fd` and
    // `error` are NULL or writable.
    let (cancel, fd, error) =
        unsafe { (Ref::new(cancel), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with(cancel, error, "descriptor", |token| {
        let out = fd.required()?;
        out.write(fd_of(token.descriptor()?));
        Ok(())
    })
}

/// Frees a token. Sockets that have the token continue to use it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_token_free(cancel: *mut keepsock_cancel_token) {
    // SAFETY: the header requires that no other thread uses `cancel`.
    unsafe { handle::free(cancel) };
}
