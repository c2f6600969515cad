//! `keepsock_cancel`.

use super::handle::{Handle, Pool, Pooled};
use super::{guard, handle, keepsock_error, output};
use crate::CancelToken;

/// A token that ends calls: those of the sockets that carry it return
/// KEEPSOCK_ERR_CANCELLED within 50 ms after it is fired. It stays fired until it
/// is reset; the sockets stay usable. A socket without a token pays nothing.
///
/// Threads: any thread may call any function; keepsock_cancel_fire() may also
/// be called from a signal handler. Sockets share the token: it may be freed
/// while they carry it, but then there is no way left to fire it.
pub struct keepsock_cancel(pub(super) CancelToken);

impl Handle for keepsock_cancel {
    const MARK: u32 = 0x6b73_0004;
}

impl Pooled for keepsock_cancel {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_cancel> = Pool::new();
        &POOL
    }
}

/// Makes a token.
///
/// @param cancel  Receives it; free it with keepsock_cancel_free().
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_NO_DESCRIPTORS (it holds one on Linux, two
///         on other Unix systems), KEEPSOCK_ERR_NO_MEMORY,
///         KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_new(
    cancel: *mut *mut keepsock_cancel,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "cancel token";
    let body = || {
        let out = output(cancel, OPERATION, "cancel")?;
        let token = handle::give(keepsock_cancel(CancelToken::new()?));
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(token) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Fires a token. Async-signal-safe, errno is left alone; firing twice is as
/// good as once.
///
/// @param cancel  A token, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_fire(cancel: *const keepsock_cancel) {
    // SAFETY: null, or a live token as the header asks.
    if let Some(cancel) = unsafe { handle::get(cancel) } {
        cancel.0.fire();
    }
}

/// Makes a fired token as new. A call that has not noticed yet that it was fired
/// goes on waiting: reset it when the calls to be ended have returned.
///
/// @param cancel  A token, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_reset(cancel: *const keepsock_cancel) {
    // SAFETY: null, or a live token as the header asks.
    if let Some(cancel) = unsafe { handle::get(cancel) } {
        cancel.0.reset();
    }
}

/// Whether a token was fired and not reset since.
///
/// @param cancel  A token, or NULL: false.
/// @return true if it is fired. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_is_fired(cancel: *const keepsock_cancel) -> bool {
    // SAFETY: null, or a live token as the header asks.
    unsafe { handle::get(cancel) }.is_some_and(|cancel| cancel.0.is_fired())
}

/// Frees a token. Sockets that carry it keep their share. Freeing NULL does nothing.
///
/// @param cancel  A token, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_cancel_free(cancel: *mut keepsock_cancel) {
    // SAFETY: null, or a token as the header asks.
    unsafe { handle::free(cancel) };
}

/// The token that C passes, NULL for none.
///
/// # Safety
/// `cancel` is null or a handle.
pub(super) unsafe fn token<'a>(
    cancel: *const keepsock_cancel,
    operation: &'static str,
) -> super::Result<Option<&'a CancelToken>> {
    // SAFETY: as the caller promises.
    Ok(unsafe { super::optional(cancel, operation, "cancel") }?.map(|c| &c.0))
}
