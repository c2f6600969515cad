//! pthread_cancel(3) does not act inside a call of this library.
//!
//! A cancelled thread unwinds from its cancellation point, and Rust frames do not permit that: the
//! process would abort. So cancellation is disabled while a call may reach a cancellation point (a
//! poll, a close, a sleep, a condition variable, a callback of the program). A cancellation request
//! in that time stays pending, and acts at the program's next cancellation point.
//!
//! The threads of the library have cancellation disabled for their whole life, because a callback
//! may give their identifier to the program.

use std::io;
use std::mem;

use super::sync::{Builder, JoinHandle};

/// While this value lives, cancellation of the calling thread is disabled. Values nest.
#[must_use]
pub(crate) struct CancellationDisabled {
    #[cfg(all(unix, not(target_os = "android"), not(miri)))]
    before: std::ffi::c_int,
}

/// Starts a thread on which pthread_cancel(3) has no effect. Each thread of the library starts here.
pub(crate) fn spawn_thread(
    builder: Builder,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let spawned = super::call("clone3", || {
        builder.spawn(move || {
            // The thread has reached no cancellation point yet.
            mem::forget(CancellationDisabled::new());
            run();
        })
    });
    #[cfg(keepsock_model)]
    let spawned = spawned.map(super::model::JoinHandle);
    spawned
}

// Windows, Android and Miri have no pthread_cancel.
#[cfg(any(not(unix), target_os = "android", miri))]
impl CancellationDisabled {
    #[inline]
    pub(crate) fn new() -> CancellationDisabled {
        CancellationDisabled {}
    }
}

#[cfg(all(unix, not(target_os = "android"), not(miri)))]
mod platform {
    use std::ffi::c_int;

    use super::CancellationDisabled;

    /// The value of PTHREAD_CANCEL_DISABLE.
    const DISABLE: c_int = if cfg!(target_vendor = "apple") { 0 } else { 1 };

    // The libc crate does not declare it for every one of these systems.
    unsafe extern "C" {
        fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
    }

    impl CancellationDisabled {
        #[inline]
        pub(crate) fn new() -> CancellationDisabled {
            let mut before = DISABLE;
            // SAFETY: pthread_setcancelstate writes one int.
            unsafe { pthread_setcancelstate(DISABLE, &raw mut before) };
            CancellationDisabled { before }
        }
    }

    impl Drop for CancellationDisabled {
        #[inline]
        fn drop(&mut self) {
            let mut ours = 0;
            // SAFETY: pthread_setcancelstate writes one int. The thread had this state before. With
            // deferred cancellation, which the header requires, enabling does not act on a pending
            // request.
            unsafe { pthread_setcancelstate(self.before, &raw mut ours) };
        }
    }
}
