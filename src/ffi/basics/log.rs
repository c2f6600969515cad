//! Log events for C: the logger behind the `log` facade that calls a C function.

use log::{LevelFilter, Log, Metadata, Record};
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;
use std::{ptr, thread};

use crate::ffi::{ErrorOut, NO_OPERATION, User, c_string, call, invalid, keepsock_error, shield};
use crate::internal::fork;
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

/// The callback that receives log events. It is never freed: a forked child may have threads of its
/// parent in the count, and programs set few callbacks.
struct Receiver {
    /// `None`: nothing is logged.
    callback: Option<unsafe extern "C" fn(i32, *const c_char, *const c_char, *mut c_void)>,
    user: User,
    level: LevelFilter,
    /// The process whose threads are counted.
    birth: u32,
    /// The number of threads that are inside the callback, or about to look whether this is still the
    /// receiver.
    inside: AtomicU32,
    /// The receiver that this one replaced, so that leak checkers find it.
    _before: AtomicPtr<Receiver>,
}

/// The logger. It has no lock that a thread may hold at a fork: threads that log never wait, and
/// keepsock_log_set() waits for threads of its own process only.
struct Logger {
    receiver: AtomicPtr<Receiver>,
    /// The process that has a thread in keepsock_log_set(); 0: none.
    setting: AtomicU32,
    /// Whether the `log` facade has this logger.
    is_ours: AtomicBool,
}

static LOGGER: Logger = Logger {
    receiver: AtomicPtr::new(ptr::null_mut()),
    setting: AtomicU32::new(0),
    is_ours: AtomicBool::new(false),
};

/// How often keepsock_log_set() looks whether the threads have left.
const LOOK: Duration = Duration::from_micros(100);

thread_local! {
    /// Whether this thread is inside the callback.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A thread's use of the receiver.
struct InUse(&'static Receiver);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The right to replace the receiver.
struct Setting;

impl Drop for Setting {
    fn drop(&mut self) {
        LOGGER.setting.store(0, Ordering::SeqCst);
    }
}

impl Logger {
    /// The receiver of this process. A forked child gets a copy of its parent's, without its threads.
    fn receiver(&self) -> Option<InUse> {
        loop {
            let current = self.receiver.load(Ordering::SeqCst);
            let receiver = keep_ref(current)?;
            if fork::is_inherited(receiver.birth) {
                let copy = Receiver::new(receiver.callback, receiver.user, receiver.level);
                let _ = self.receiver.compare_exchange(
                    current,
                    copy,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                );
                continue;
            }
            receiver.inside.fetch_add(1, Ordering::SeqCst);
            let used = InUse(receiver);
            // Either this sees the next receiver, or the thread that sets it sees this count.
            if self.receiver.load(Ordering::SeqCst) == current {
                return Some(used);
            }
        }
    }

    /// Waits until no other thread of this process replaces the receiver.
    fn set(&self) -> Setting {
        let mine = fork::birth();
        let mut owner = 0;
        loop {
            match self.setting.compare_exchange(owner, mine, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Setting,
                // The thread exists in the parent only.
                Err(now) if now != 0 && fork::is_inherited(now) => owner = now,
                Err(0) => owner = 0,
                Err(_) => {
                    owner = 0;
                    thread::sleep(LOOK);
                }
            }
        }
    }

    /// Replaces the receiver, and waits until no thread is inside the callback of the previous one.
    fn replace(&self, _setting: &Setting, receiver: *mut Receiver, level: LevelFilter) {
        let before = self.receiver.swap(receiver, Ordering::SeqCst);
        log::set_max_level(level);
        let Some(before) = keep_ref(before).filter(|before| !fork::is_inherited(before.birth))
        else {
            return;
        };
        while before.inside.load(Ordering::SeqCst) > 0 {
            thread::sleep(LOOK);
        }
    }
}

/// A receiver, which is never freed.
fn keep_ref(receiver: *mut Receiver) -> Option<&'static Receiver> {
    // SAFETY: NULL, or from a box that is never freed.
    unsafe { receiver.as_ref() }
}

impl Receiver {
    fn new(
        callback: Option<unsafe extern "C" fn(i32, *const c_char, *const c_char, *mut c_void)>,
        user: User,
        level: LevelFilter,
    ) -> *mut Receiver {
        let (birth, inside) = (fork::birth(), AtomicU32::new(0));
        let _before = AtomicPtr::new(LOGGER.receiver.load(Ordering::SeqCst));
        Box::into_raw(Box::new(Receiver { callback, user, level, birth, inside, _before }))
    }

    fn call(&self, record: &Record<'_>) {
        let Some(callback) = self.callback else {
            return;
        };
        let target = c_string(record.target());
        // A Unix peer chooses its own name, so control characters could imitate another event.
        let line = record.args().to_string().replace(char::is_control, "?");
        let message = c_string(line);
        // SAFETY: the header requires a function with this signature, which is callable until
        // keepsock_log_set() has replaced it, and that call waits for this one. The strings end
        // with NUL and live until the function returns.
        unsafe {
            callback(record.level() as i32, target.as_ptr(), message.as_ptr(), self.user.get());
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
        if let Some(used) = self.receiver().filter(|used| record.level() <= used.0.level) {
            INSIDE.set(true);
            shield((), || used.0.call(record));
            INSIDE.set(false);
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
        let setting = LOGGER.set();
        if callback.is_some() && !LOGGER.is_ours.load(Ordering::SeqCst) {
            log::set_logger(&LOGGER).map_err(|_| {
                wrong("the program has set a logger of the log crate: use that one")
            })?;
            LOGGER.is_ours.store(true, Ordering::SeqCst);
        }
        // The library does not change the level of another logger.
        if LOGGER.is_ours.load(Ordering::SeqCst) {
            let level = if callback.is_some() { level } else { LevelFilter::Off };
            LOGGER.replace(&setting, Receiver::new(callback, User(user), level), level);
        }
        Ok(())
    })
}
