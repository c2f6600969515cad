//! The threads of a service: publishing the service before the first callback, and joining them.
//!
//! Stream services of both modes and datagram services use it.

use std::cell::Cell;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::sys;
use crate::types::error::{Error, ErrorKind, Result};

/// Whether the program has received the service.
type Published = Mutex<bool>;

thread_local! {
    /// The service whose handlers or callbacks the current thread runs.
    static CURRENT: Cell<*const Published> = const { Cell::new(std::ptr::null()) };
}

/// The threads of one service. A callback may use the service object, so no thread works before
/// the program has received that object.
pub(crate) struct ServiceThreads {
    name: &'static str,
    stack_size: usize,
    published: Arc<Published>,
    handles: Mutex<Vec<JoinHandle<()>>>,
    /// The process that created the service.
    process: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServiceThreads {
    /// Starts no thread yet. `stack_size` is in bytes.
    pub(crate) fn new(name: &'static str, stack_size: usize) -> ServiceThreads {
        ServiceThreads {
            name,
            stack_size,
            published: Arc::default(),
            handles: Mutex::default(),
            process: sys::fork::birth(),
        }
    }

    /// Starts threads by `start`, and passes the service to the program by `take`. The threads
    /// wait until `take` has returned. If `start` fails, the threads that it started end without
    /// work, and this function returns the error of `start`.
    pub(crate) fn publish<T>(
        &self,
        start: impl FnOnce() -> Result<()>,
        take: impl FnOnce() -> T,
    ) -> Result<T> {
        let mut published = lock(&self.published);
        if let Err(e) = start() {
            drop(published);
            self.join();
            return Err(e);
        }
        let taken = take();
        *published = true;
        Ok(taken)
    }

    /// Starts a thread that does `work` once the service is [published](ServiceThreads::publish).
    /// The thread inherits the signal mask of the calling thread.
    pub(crate) fn start(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let published = self.published.clone();
        let run = move || {
            CURRENT.set(Arc::as_ptr(&published));
            if *lock(&published) {
                work();
            }
        };
        let builder = thread::Builder::new().name(self.name.to_owned());
        let handle = sys::spawn_thread(builder.stack_size(self.stack_size), run)?;
        let mut handles = lock(&self.handles);
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
        Ok(())
    }

    /// Whether the calling thread belongs to the service. If it waited for the service to end, it
    /// would wait for itself.
    pub(crate) fn is_current(&self) -> bool {
        CURRENT.get() == Arc::as_ptr(&self.published)
    }

    /// Whether this process is a forked child of the process that created the service. The
    /// threads do not exist in the child, and the connections belong to the parent.
    pub(crate) fn is_inherited(&self) -> bool {
        sys::fork::is_inherited(self.process)
    }

    /// Waits until all threads have ended, including threads that those threads start.
    pub(crate) fn join(&self) {
        loop {
            let handles = mem::take(&mut *lock(&self.handles));
            if handles.is_empty() {
                return;
            }
            for handle in handles {
                // The thread itself catches panics of handlers and callbacks.
                let _ = handle.join();
            }
        }
    }
}

impl Drop for ServiceThreads {
    fn drop(&mut self) {
        if self.is_inherited() {
            // Dropping a handle would detach a thread that only the parent has.
            mem::forget(mem::take(self.handles.get_mut().unwrap_or_else(PoisonError::into_inner)));
        }
    }
}

/// The error for a thread that the system did not start. pthread_create(3) returns EAGAIN when a
/// limit on threads is reached.
#[cold]
pub(crate) fn spawn_error(operation: &'static str, cause: &io::Error) -> Error {
    Error::new(ErrorKind::NoMemory, operation)
        .with_os_error(cause.raw_os_error())
        .detail("the system cannot start another thread: a limit on threads or memory is reached")
}
