//! `keepsock_reconnect`.

use std::ffi::{c_char, c_void};
use std::sync::{Mutex, TryLockError};

use super::handle::{Handle, Pool, Pooled};
use super::{
    Result, guard, handle, keepsock_client, keepsock_error, keepsock_options, live, millis, output,
    time, timeout,
};
use crate::{Error, ErrorKind, Reconnect, Retry};

/// Connects, and connects again after the connection was lost: tries until it succeeds, and
/// waits between the tries. Nothing is hidden: it works only inside
/// keepsock_reconnect_connect(), and what a lost connection had in flight is for the program to
/// send again.
///
/// - Each try is a keepsock_client_connect() of its own: the name is looked up again, and every
///   option is applied again.
/// - Between tries passes a random time from zero to 100 ms; after each failure twice as much, at
///   most 30 s ("exponential backoff" with "full jitter", as in the article of that name in the
///   AWS Architecture Blog). A thousand clients that lost their server at the same moment then do
///   not come back at the same moment.
/// - Only the very first try is made at once. A connection counts as a success if it was made at
///   least the longest wait (30 s) before the next keepsock_reconnect_connect(); the waits then
///   begin anew at 100 ms. One that was lost sooner counts as a failure: a server that accepts
///   and closes is not asked more and more often but less. If the program knows better, it calls
///   keepsock_reconnect_reset().
/// - Errors that cannot pass end it at once: KEEPSOCK_ERR_INVALID_ARGUMENT, _INVALID_ENDPOINT,
///   _UNSUPPORTED, _PERMISSION_DENIED, and a literal address that the options exclude
///   (_NOT_FOUND, _ADDRESS_NOT_AVAILABLE). All others are tried again, a name that is not found
///   and a Unix path that is not there included.
///
/// Threads: one at a time. A call while another one is going on, in another thread or from the
/// keepsock_on_retry that it called, returns KEEPSOCK_ERR_WRONG_STATE. To end it, fire the cancel
/// token of the options, from any thread or from a signal handler.
pub struct keepsock_reconnect(Mutex<Reconnect>);

impl Handle for keepsock_reconnect {
    const MARK: u32 = 0x6b73_0010;
}

impl Pooled for keepsock_reconnect {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_reconnect> = Pool::new();
        &POOL
    }
}

/// Told before each wait of keepsock_reconnect_connect(), in the thread that called it: for a log.
/// The time it takes is part of the wait. It may fire the cancel token; it must not free the
/// keepsock_reconnect.
///
/// @param error    Why the last try failed; it is lent until the function returns. NULL: the last
///                 try succeeded, and that connection is the one that was lost.
/// @param tries    How many tries have failed since the last success.
/// @param wait_ms  The time to the next try in milliseconds, rounded up. The limit may end it
///                 sooner.
/// @param user     What was passed to keepsock_reconnect_set_on_retry().
pub type keepsock_on_retry = Option<
    unsafe extern "C" fn(error: *const keepsock_error, tries: u32, wait_ms: i64, user: *mut c_void),
>;

const OPERATION: &str = "reconnect";

/// # Safety
/// `reconnect` is null or live; `error` is null or writable.
unsafe fn with(
    reconnect: *const keepsock_reconnect,
    error: *mut *mut keepsock_error,
    body: impl FnOnce(&mut Reconnect) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        let reconnect = unsafe { live(reconnect, OPERATION, "reconnect") }?;
        // Not lock(): who calls it from inside a call would wait for himself.
        match reconnect.0.try_lock() {
            Ok(mut reconnect) => body(&mut reconnect),
            Err(TryLockError::Poisoned(poisoned)) => body(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::WrongState, OPERATION).detail("another call is going on"))
            }
        }
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, OPERATION, body) }
}

/// Makes the object; nothing is connected yet.
///
/// @param endpoint   Where to connect, as for keepsock_client_connect().
/// @param options    Options, copied; NULL for the defaults. Their connect timeout (30 s) is for
///                   each try. Their cancel token ends a wait between tries within 50 ms, too.
/// @param reconnect  Receives the object; free it with keepsock_reconnect_free().
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_new(
    endpoint: *const c_char,
    options: *const keepsock_options,
    reconnect: *mut *mut keepsock_reconnect,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "connect";
    let body = || {
        let out = output(reconnect, OPERATION, "reconnect")?;
        // SAFETY: a string, and null or live options, as the header asks.
        let (endpoint, options) = unsafe {
            (
                super::endpoint(endpoint, OPERATION)?,
                keepsock_options::or_default(options, OPERATION)?,
            )
        };
        let made = keepsock_reconnect(Mutex::new(Reconnect::new(endpoint, &options)?));
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// The bound of the first wait, and of the longest; the waits begin anew. Each wait is a random
/// time below its bound, half of it in the mean. Default: 100 ms and 30 s.
///
/// @param reconnect   The object to change.
/// @param first_ms    From 1 ms.
/// @param longest_ms  From first_ms to 24 hours.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE (another call is going on).
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_set_back_off(
    reconnect: *mut keepsock_reconnect,
    first_ms: i64,
    longest_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |reconnect: &mut Reconnect| {
        reconnect.set_back_off(time(first_ms, OPERATION)?, time(longest_ms, OPERATION)?)
    };
    // SAFETY: as the header asks.
    unsafe { with(reconnect, error, body) }
}

/// The time for each keepsock_reconnect_connect(), all its tries and waits together.
///
/// @param reconnect  The object to change.
/// @param limit_ms   Milliseconds above 0, or KEEPSOCK_INFINITE, the default.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE (another call is going on).
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_set_limit(
    reconnect: *mut keepsock_reconnect,
    limit_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |reconnect: &mut Reconnect| reconnect.set_limit(timeout(limit_ms, OPERATION)?);
    // SAFETY: as the header asks.
    unsafe { with(reconnect, error, body) }
}

/// Sets what is told before each wait.
///
/// @param reconnect  The object to change.
/// @param on_retry   See keepsock_on_retry; NULL: nothing is told, the default.
/// @param user       Passed to on_retry; may be NULL. It must live until another one is set or
///                   the object is freed.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE (another call is going on).
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_set_on_retry(
    reconnect: *mut keepsock_reconnect,
    on_retry: keepsock_on_retry,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    /// Passed on as it is, in the thread that calls keepsock_reconnect_connect().
    struct User(*mut c_void);
    // SAFETY: the header says in which thread on_retry is called.
    unsafe impl Send for User {}
    impl User {
        fn get(&self) -> *mut c_void {
            self.0
        }
    }
    let user = User(user);
    let tell = move |retry: &Retry<'_>| {
        let Some(on_retry) = on_retry else { return };
        let wait_ms = millis(retry.wait);
        let mut error = retry.error.map(|e| handle::lend(keepsock_error::new(e.clone())));
        let lent = error.as_mut().map_or(std::ptr::null_mut(), |e| e.pointer());
        // SAFETY: the function is C's, and the error lives until it returns.
        unsafe { on_retry(lent, retry.tries, wait_ms, user.get()) };
    };
    let body = |reconnect: &mut Reconnect| {
        reconnect.on_retry(tell);
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(reconnect, error, body) }
}

/// The next try is made at once, and the waits begin anew. For a connection that has done its
/// work though it was short, or when something tells that the server is back.
///
/// @param reconnect  The object.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE (another call is going on).
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_reset(
    reconnect: *mut keepsock_reconnect,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |reconnect: &mut Reconnect| {
        reconnect.reset();
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(reconnect, error, body) }
}

/// Tries until it is connected; for the first time, or again after the connection was lost. The
/// back-off goes on from call to call: one that follows another waits for its turn, also if it has
/// to spend all its limit on that.
///
/// When the limit is over, the status and the error are those of the last try, the real cause,
/// with how many tries there were in how much time: "connect to 127.0.0.1:80: connection refused
/// after 7 tries in 10.0 s". A try that the limit cut short has nothing to say if there was one
/// before it. If there was none, or the limit left no time for one: KEEPSOCK_ERR_TIMED_OUT.
///
/// @param reconnect  The object.
/// @param client     Receives the connection; free it with keepsock_client_free().
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CANCELLED; errors that cannot pass (see keepsock_reconnect);
///         when the limit is over any status of keepsock_client_connect(); _WRONG_STATE (another
///         call is going on). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_connect(
    reconnect: *mut keepsock_reconnect,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |reconnect: &mut Reconnect| {
        let out = output(client, "connect", "client")?;
        let socket = reconnect.connect()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_client::own(socket))) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(reconnect, error, body) }
}

/// Frees the object; a connection that it made lives on. Freeing NULL does nothing.
///
/// @param reconnect  The object, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_reconnect_free(reconnect: *mut keepsock_reconnect) {
    // SAFETY: null, or the object as the header asks.
    unsafe { handle::free(reconnect) };
}
