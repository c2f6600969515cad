//! The synchronization types of the library.
//!
//! They are the types of the standard library. In a build with `--cfg keepsock_model` they are those
//! of loom, which runs a model (a `model.rs` next to the code) with every order of the threads'
//! operations and every value that the memory orders permit. So a model runs the code of the library
//! and not a copy. A static keeps the type of the standard library, because it outlives one order.

#[cfg(not(keepsock_model))]
pub(crate) use std::hint::spin_loop;
#[cfg(not(keepsock_model))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(keepsock_model))]
pub(crate) use std::thread::{Builder, JoinHandle, sleep, yield_now};

#[cfg(keepsock_model)]
pub(crate) use loom::hint::spin_loop;
#[cfg(keepsock_model)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
/// A model has a time of its own.
#[cfg(keepsock_model)]
mod time {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use crate::sys::model;

    pub(crate) use model::{JoinHandle, sleep};

    pub(crate) fn yield_now() {
        sleep(Duration::from_millis(1));
    }

    pub(crate) fn now() -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now) + model::now()
    }
}
#[cfg(keepsock_model)]
pub(crate) use loom::thread::Builder;
#[cfg(keepsock_model)]
pub(crate) use time::{JoinHandle, now, sleep, yield_now};

/// The current time, for deadlines.
#[cfg(not(keepsock_model))]
#[inline]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// A value of each thread.
#[cfg(all(feature = "serve", not(keepsock_model)))]
macro_rules! thread_cell {
    ($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;) => {
        thread_local! {
            $(#[$doc])*
            static $name: std::cell::Cell<$type> = const { std::cell::Cell::new($value) };
        }
    };
}

/// All threads of a model run in one thread of the system.
#[cfg(keepsock_model)]
macro_rules! thread_cell {
    ($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$doc])*
        static $name: $crate::sys::model::ThreadCell<$type> =
            $crate::sys::model::ThreadCell(|| $value);
    };
}
#[cfg(feature = "serve")]
pub(crate) use thread_cell;
