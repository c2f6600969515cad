//! `keepsock_connecting`.

use std::ffi::c_char;

use super::error::{keepsock_attempt, to_attempt};
use super::handle::{Handle, Pool, Pooled};
use super::{
    KEEPSOCK_INFINITE, Result, fill_text, guard, handle, invalid, keepsock_client, keepsock_error,
    keepsock_fd, keepsock_options, millis, output, write_sized,
};
use crate::{Connecting, Error, ErrorKind};

const OPERATION: &str = "connect";

/// A connect under way, for programs that wait elsewhere: in an event loop, for several connects
/// at once, or between other work. Lookup, race and deadline are those of
/// keepsock_client_connect(). Call keepsock_connecting_finish() when the descriptor
/// (keepsock_connecting_fd()) is readable, until it does not say KEEPSOCK_ERR_WOULD_BLOCK. It also
/// tells what a finished connect does not: which attempts failed on the way, and which are under
/// way.
///
/// Threads: one at a time.
pub struct keepsock_connecting(Connecting);

impl Handle for keepsock_connecting {
    const MARK: u32 = 0x6b73_0020;
}

impl Pooled for keepsock_connecting {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_connecting> = Pool::new();
        &POOL
    }
}

/// An attempt that is under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_under_way {
    /// A value of enum keepsock_tcp_state; 0 where the system does not tell.
    pub state: i32,
    /// The address that is tried: "[::1]:80".
    pub address: [c_char; 128],
}

/// # Safety
/// `connecting` is null or a handle that nobody else uses; `error` is null or writable.
unsafe fn with(
    connecting: *mut keepsock_connecting,
    error: *mut *mut keepsock_error,
    body: impl FnOnce(&mut Connecting) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        match unsafe { handle::get_mut(connecting) } {
            Some(connecting) => body(&mut connecting.0),
            None => Err(super::not_a_handle(connecting, OPERATION, "connecting")),
        }
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, OPERATION, body) }
}

/// Starts connecting: asks the resolver, or sends the first SYN. Never waits.
///
/// @param endpoint    Where to connect, as for keepsock_client_connect().
/// @param options     Options, copied; NULL for the defaults.
/// @param connecting  Receives the connect; free it with keepsock_connecting_free().
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT; _INVALID_ARGUMENT for options out of range,
///         and for a local address that is a name, which would have to be waited for;
///         _LOOKUP_FAILED if 64 lookups are under way; _NOT_FOUND for a local address that is not
///         of the family asked for; _NO_MEMORY, _NO_DESCRIPTORS, _UNSUPPORTED, _OS. What else can
///         go wrong keepsock_connecting_finish() tells. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_start(
    endpoint: *const c_char,
    options: *const keepsock_options,
    connecting: *mut *mut keepsock_connecting,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = || {
        let out = output(connecting, OPERATION, "connecting")?;
        // SAFETY: a string, and null or live options, as the header asks.
        let (endpoint, options) = unsafe {
            (
                super::endpoint(endpoint, OPERATION)?,
                keepsock_options::or_default(options, OPERATION)?,
            )
        };
        let started = handle::give(keepsock_connecting(Connecting::start(endpoint, &options)?));
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(started) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Does what is to be done now, without waiting. The connection's calls wait, closing and freeing
/// included; an event loop wants keepsock_client_set_nonblocking().
///
/// @param connecting  A connect.
/// @param client      Receives the connection; free it with keepsock_client_free().
/// @param error       See keepsock_error; may be NULL: there is one to be freed for
///                    KEEPSOCK_ERR_WOULD_BLOCK, too. It lists every attempt.
/// @return KEEPSOCK_OK: connected; KEEPSOCK_ERR_WOULD_BLOCK: not yet; those of
///         keepsock_client_connect() once everything has failed, the deadline has passed, or the
///         token was fired; _WRONG_STATE after the end. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_finish(
    connecting: *mut keepsock_connecting,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |connecting: &mut Connecting| {
        let out = output(client, OPERATION, "client")?;
        let connected = connecting.finish()?;
        let connected = connected.ok_or_else(|| Error::new(ErrorKind::WouldBlock, OPERATION))?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_client::own(connected))) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(connecting, error, body) }
}

/// Waits until it is connected; until the deadline, at the latest.
///
/// @param connecting  A connect.
/// @param client      Receives the connection; free it with keepsock_client_free().
/// @param error       See keepsock_error; may be NULL. It lists every attempt.
/// @return Those of keepsock_client_connect(); KEEPSOCK_ERR_WRONG_STATE after the end. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_wait(
    connecting: *mut keepsock_connecting,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |connecting: &mut Connecting| {
        let out = output(client, OPERATION, "client")?;
        let connected = connecting.wait()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_client::own(connected))) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(connecting, error, body) }
}

/// Borrows one descriptor for all that is under way: it is readable when
/// keepsock_connecting_finish() has something to do, the next attempt and the deadline included.
/// It stays the same until the end, and readable then, so take it off your loop; do not close it.
/// Linux only (epoll); it takes two.
///
/// @param connecting  A connect.
/// @param fd          Receives it.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _NO_DESCRIPTORS, _OS; _WRONG_STATE after the
///         end; _UNSUPPORTED elsewhere than on Linux: use keepsock_connecting_timeout(). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_fd(
    connecting: *mut keepsock_connecting,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |connecting: &mut Connecting| {
        let out = output(fd, OPERATION, "fd")?;
        let number = super::client::raw_number(connecting.descriptor()?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(number) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(connecting, error, body) }
}

/// In what time keepsock_connecting_finish() is to be called even if the descriptor is not
/// readable.
///
/// @param connecting  A connect.
/// @param timeout_ms  Receives milliseconds; KEEPSOCK_INFINITE: that does not happen.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_timeout(
    connecting: *mut keepsock_connecting,
    timeout_ms: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |connecting: &mut Connecting| {
        let out = output(timeout_ms, OPERATION, "timeout_ms")?;
        let timeout = connecting.timeout().map_or(KEEPSOCK_INFINITE, millis);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(timeout) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(connecting, error, body) }
}

/// How many attempts ended without a connection so far; also when another one has won. Those that
/// were still under way then are KEEPSOCK_ERR_CLOSED.
///
/// @param connecting  A connect, or NULL: 0.
/// @return The number. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_attempt_count(
    connecting: *const keepsock_connecting,
) -> usize {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(connecting) }.map_or(0, |connecting| connecting.0.attempts().len())
}

/// One of them, in the order in which they ended.
///
/// @param connecting  A connect.
/// @param index       Below keepsock_connecting_attempt_count().
/// @param out         Filled in on success.
/// @param size        sizeof *out.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_attempt(
    connecting: *mut keepsock_connecting,
    index: usize,
    out: *mut keepsock_attempt,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |connecting: &mut Connecting| {
        let attempt = connecting.attempts().get(index);
        let attempt = attempt.ok_or_else(|| invalid(OPERATION, "no such attempt"))?;
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &to_attempt(attempt), OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(connecting, error, body) }
}

/// One of the attempts that are under way now: where to, and its TCP state, SYN-SENT for most.
///
/// @param connecting  A connect.
/// @param index       From 0.
/// @param out         Filled in on success.
/// @param size        sizeof *out.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT (index beyond the last, too). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_under_way(
    connecting: *mut keepsock_connecting,
    index: usize,
    out: *mut keepsock_under_way,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |connecting: &mut Connecting| {
        let under_way = connecting.under_way();
        let Some((address, state)) = under_way.get(index) else {
            return Err(invalid(OPERATION, "no such attempt"));
        };
        let state = state.map_or(0, |state| state as i32);
        let mut value = keepsock_under_way { state, address: [0; 128] };
        fill_text(&mut value.address, &address.to_string());
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(connecting, error, body) }
}

/// Frees a connect and ends what is under way. A connection that it gave lives on. Freeing NULL
/// does nothing.
///
/// @param connecting  A connect, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_connecting_free(connecting: *mut keepsock_connecting) {
    // SAFETY: null, or a connect as the header asks.
    unsafe { handle::free(connecting) };
}
