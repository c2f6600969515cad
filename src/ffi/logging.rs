//! Log events for C: the logger behind the `log` facade that calls a C function.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};

use super::{c_string, guard, invalid, keepsock_error, shield};
use crate::{Error, ErrorKind};

/// How much keepsock_log_set() is to tell: the level's own events and all above it.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum keepsock_log_level {
    /// Nothing.
    Off = 0,
    /// Something is broken: a service cannot accept, or receive, any more, a handler panicked.
    Error = 1,
    /// The service suffers: descriptors are used up or clients refused (each at most
    /// once in 5 s, with the count), a broadcast cut a client, the resolver hangs.
    Warn = 2,
    /// Listening, draining, connections that broke off: reset, dead, unreachable, stalled.
    Info = 3,
    /// Connecting: lookups and attempts, how they ended and after how long. Accepts
    /// that are tried again (at most once in 5 s).
    Debug = 4,
    /// Each connection that is accepted and each that is closed.
    Trace = 5,
}

impl keepsock_log_level {
    fn of(number: i32) -> Option<LevelFilter> {
        let all = [
            (keepsock_log_level::Off, LevelFilter::Off),
            (keepsock_log_level::Error, LevelFilter::Error),
            (keepsock_log_level::Warn, LevelFilter::Warn),
            (keepsock_log_level::Info, LevelFilter::Info),
            (keepsock_log_level::Debug, LevelFilter::Debug),
            (keepsock_log_level::Trace, LevelFilter::Trace),
        ];
        all.iter().find(|(level, _)| *level as i32 == number).map(|(_, filter)| *filter)
    }
}

/// Called for each log event, in whichever thread it happens, and by several
/// threads at once. The call that made the event waits for it, so it should be
/// quick.
///
/// No lock of the library is held: inside, functions may be called on any
/// object. Not keepsock_log_set(), which would wait for the callback itself; not
/// the _free function of an object that a call is at work on, as always; and not
/// keepsock_service_drain() or keepsock_service_free(), if a handler might be the
/// one that is waiting. What functions that are called inside have to tell is
/// not told. It must return: no longjmp(), no C++ exception.
///
/// @param user     What was passed to keepsock_log_set().
/// @param level    A value of enum keepsock_log_level, never KEEPSOCK_LOG_LEVEL_OFF.
/// @param target   What it is about: "keepsock::lookup", "keepsock::connect",
///                 "keepsock::connection", "keepsock::listen", "keepsock::accept"
///                 or "keepsock::serve". Lives until the callback returns.
/// @param message  One line without its end, UTF-8; never a byte of what is read
///                 or written. Its words may change. Lives until the callback
///                 returns.
pub type keepsock_log_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        level: i32,
        target: *const c_char,
        message: *const c_char,
    ),
>;

/// Whom to tell.
struct Receiver {
    callback: unsafe extern "C" fn(*mut c_void, i32, *const c_char, *const c_char),
    user: *mut c_void,
    level: LevelFilter,
}

// SAFETY: the header says that any thread may call the callback with `user`, several at once.
unsafe impl Send for Receiver {}
// SAFETY: as above.
unsafe impl Sync for Receiver {}

/// The logger. A thread that calls the callback has a clone of the receiver, made and
/// dropped under the lock, but does not hold the lock: threads that log never wait for
/// one whose callback takes long, and so not for one that waits for them.
struct Logger {
    receiver: Mutex<Option<Arc<Receiver>>>,
    /// A clone was dropped.
    left: Condvar,
    /// Held by whoever sets: one after another, so each leaves with all receivers before
    /// its own at rest. Whether the facade has this logger.
    setting: Mutex<bool>,
}

static LOGGER: Logger =
    Logger { receiver: Mutex::new(None), left: Condvar::new(), setting: Mutex::new(false) };

thread_local! {
    /// This thread is inside the callback.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Logger {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Receiver>>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the next events to another receiver, and waits until no thread is inside
    /// the one before.
    fn replace(&self, receiver: Option<Receiver>) {
        let level = receiver.as_ref().map_or(LevelFilter::Off, |r| r.level);
        let mut current = self.lock();
        let before = std::mem::replace(&mut *current, receiver.map(Arc::new));
        log::set_max_level(level);
        if let Some(before) = before {
            while Arc::strong_count(&before) > 1 {
                current = self.left.wait(current).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn call(&self, receiver: &Receiver, record: &Record<'_>) {
        let target = c_string(record.target());
        // A Unix peer chooses its own name: what it holds must not look like another event.
        let line = record.args().to_string().replace(char::is_control, "?");
        let message = c_string(line);
        // SAFETY: the callback and `user` are good until keepsock_log_set() has replaced
        // them, and that waits for us; the texts live and end with NUL.
        unsafe {
            (receiver.callback)(
                receiver.user,
                record.level() as i32,
                target.as_ptr(),
                message.as_ptr(),
            );
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // A Rust program with this logger has other crates, whose events are not ours.
        let target = metadata.target().strip_prefix("keepsock");
        target.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }

    fn log(&self, record: &Record<'_>) {
        if INSIDE.get() || !self.enabled(record.metadata()) {
            return;
        }
        let receiver = self.lock().clone();
        if let Some(receiver) = receiver {
            if record.level() <= receiver.level {
                INSIDE.set(true);
                shield((), || self.call(&receiver, record));
                INSIDE.set(false);
            }
            let current = self.lock();
            let is_replaced = !current.as_ref().is_some_and(|now| Arc::ptr_eq(now, &receiver));
            drop(receiver);
            drop(current);
            // A notification costs a system call even when nobody waits.
            if is_replaced {
                self.left.notify_all();
            }
        }
    }

    fn flush(&self) {}
}

/// Sets whom to tell of log events, for the whole process. Until this is called,
/// and after it was called with NULL, nothing is told and nothing is printed.
///
/// Threads: any thread may call it at any time. When it has returned, no thread
/// is inside a callback that was set before, and none will be: what its `user`
/// points to may be freed. So it waits for callbacks that are under way; they
/// must not wait for the thread that calls this.
///
/// @param callback  Called for each event; NULL ends it. Any thread may call it.
/// @param user      Passed to the callback.
/// @param level     A value of enum keepsock_log_level: this much is told. Not used
///                  with NULL, but must be one.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_INVALID_ARGUMENT: no such level; _WRONG_STATE:
///         called from inside the callback, or this is a Rust program whose own
///         logger of the log crate has the events already. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_log_set(
    callback: keepsock_log_callback,
    user: *mut c_void,
    level: i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "log";
    let body = || {
        let wrong = |what: &str| Error::new(ErrorKind::WrongState, OPERATION).detail(what);
        let level = keepsock_log_level::of(level)
            .ok_or_else(|| invalid(OPERATION, format!("no such level: {level}")))?;
        if INSIDE.get() {
            return Err(wrong("called from inside the log callback"));
        }
        let mut is_ours = LOGGER.setting.lock().unwrap_or_else(PoisonError::into_inner);
        if callback.is_some() && !*is_ours {
            log::set_logger(&LOGGER)
                .map_err(|_| wrong("this program has a logger of its own, which is told"))?;
            *is_ours = true;
        }
        // The level of somebody else's logger is not ours to change.
        if *is_ours {
            LOGGER.replace(callback.map(|callback| Receiver { callback, user, level }));
        }
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}
