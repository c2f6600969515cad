//! Log events for C: the logger behind the `log` facade that calls a C function.

use log::{LevelFilter, Log, Metadata, Record};
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::ffi::{ErrorOut, NO_OPERATION, User, c_string, call, invalid, keepsock_error, shield};
use crate::{Error, ErrorKind};

/// The severity of a log event. keepsock_log_set() logs a level and all more severe levels.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum keepsock_log_level {
    /// No events.
    Off = 0,
    /// Failures: a service can no longer accept or receive, or a handler panicked.
    Error = 1,
    /// Degraded service: no descriptor is free, or clients are rejected (each at most once in 5 s,
    /// with a count), a slow client was reset, or the resolver does not answer.
    Warn = 2,
    /// Listening, draining, and connections that failed: reset, dead, unreachable, stalled.
    Info = 3,
    /// Lookups and connect attempts, with result and duration. Retried accepts, at most once in
    /// 5 s.
    Debug = 4,
    /// Each accepted and each closed connection.
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

/// Receives log events.
///
/// The library calls the callback in the thread in which the event occurs, so several threads may
/// be in the callback at the same time. The library call in that thread waits until the callback
/// returns, so keep the callback short.
///
/// The library holds no lock during the callback. The callback may call every function, except:
/// - keepsock_log_set(), which would wait for the callback;
/// - the _free function of an object that another call uses;
/// - keepsock_service_drain(), keepsock_service_wait() and keepsock_service_free(), if the event may
///   occur in a handler of that service.
///
/// Log events from calls inside the callback are suppressed. The callback must return: no
/// longjmp(3), no C++ exception.
///
/// @param level    A keepsock_log_level, never KEEPSOCK_LOG_LEVEL_OFF.
/// @param target   The subject: "keepsock::lookup", "keepsock::connect", "keepsock::connection",
///                 "keepsock::listen", "keepsock::accept" or "keepsock::serve". Valid until the
///                 callback returns.
/// @param message  One line of UTF-8 without a line end. It never contains bytes that were read
///                 or written. Its words may change between versions. Valid until the callback
///                 returns.
/// @param user     The pointer that the program passed with the callback.
pub type keepsock_log_callback = Option<
    unsafe extern "C" fn(
        level: i32,
        target: *const c_char,
        message: *const c_char,
        user: *mut c_void,
    ),
>;

/// The callback that receives log events.
struct Receiver {
    callback: unsafe extern "C" fn(i32, *const c_char, *const c_char, *mut c_void),
    user: User,
    level: LevelFilter,
}

/// The logger. A thread that calls the callback has a clone of the receiver, made and
/// dropped under the lock, but does not hold the lock: threads that log never wait for
/// one whose callback takes long, and so not for one that waits for them.
struct Logger {
    receiver: Mutex<Option<Arc<Receiver>>>,
    /// Signaled when a thread has left the callback of a replaced receiver.
    left: Condvar,
    /// Whether the `log` facade has this logger. A call that replaces the receiver holds the lock,
    /// so that no callback of an earlier receiver runs when the call returns.
    setting: Mutex<bool>,
}

static LOGGER: Logger =
    Logger { receiver: Mutex::new(None), left: Condvar::new(), setting: Mutex::new(false) };

thread_local! {
    /// Whether this thread is inside the callback.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Logger {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Receiver>>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the receiver, and waits until no thread is inside the callback of the previous one.
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
        // A Unix peer chooses its own name, so control characters could imitate another event.
        let line = record.args().to_string().replace(char::is_control, "?");
        let message = c_string(line);
        // SAFETY: the header requires a function with this signature, which is callable until
        // keepsock_log_set() has replaced it, and that call waits for this one. The strings end
        // with NUL and live until the function returns.
        unsafe {
            (receiver.callback)(
                record.level() as i32,
                target.as_ptr(),
                message.as_ptr(),
                receiver.user.get(),
            );
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // A Rust program with this logger may have other crates that log.
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
            // A notification costs a system call even if no thread waits.
            if is_replaced {
                self.left.notify_all();
            }
        }
    }

    fn flush(&self) {}
}

/// Sets the callback that receives log events, for the whole process.
///
/// Without a callback the library logs nothing and prints nothing.
///
/// @param level     A keepsock_log_level: the least severe level that is logged. With a NULL
///                  callback it is ignored, but must be a valid level.
/// @param callback  Receives each event. NULL turns logging off.
/// @param user      Passed to the callback. May be NULL.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `level` is not a keepsock_log_level
///   - KEEPSOCK_ERR_WRONG_STATE: called from inside the callback, or a Rust program has set its
///     own logger of the log crate
/// @note Any thread may call it at any time. It waits for callbacks in progress, which must not
///   wait for the calling thread. After it has returned, no thread is inside the previous
///   callback, and `user` of the previous callback may be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_log_set(
    level: i32,
    callback: keepsock_log_callback,
    user: *mut c_void,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `error` is NULL or writable.
    let error = unsafe { ErrorOut::new(error) };
    call(error, "log", || {
        let wrong = |what: &str| Error::new(ErrorKind::WrongState, NO_OPERATION).detail(what);
        let level = keepsock_log_level::of(level)
            .ok_or_else(|| invalid(format!("{level} is not a keepsock_log_level")))?;
        if INSIDE.get() {
            return Err(wrong("called from inside the log callback: call it from another place"));
        }
        let mut is_ours = LOGGER.setting.lock().unwrap_or_else(PoisonError::into_inner);
        if callback.is_some() && !*is_ours {
            log::set_logger(&LOGGER).map_err(|_| {
                wrong("the program has set a logger of the log crate: use that one")
            })?;
            *is_ours = true;
        }
        // The library does not change the level of another logger.
        if *is_ours {
            LOGGER.replace(callback.map(|callback| Receiver { callback, user: User(user), level }));
        }
        Ok(())
    })
}
