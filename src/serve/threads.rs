//! The threads of a service: publishing the service before the first callback, and joining them.
//!
//! Stream services of both modes and datagram services use it.

use std::io;
use std::mem;
use std::sync::{Arc, PoisonError, mpsc};

use crate::io::panic_guard::panics;
use crate::sys;
use crate::sys::sync::atomic::{AtomicUsize, Ordering};
use crate::sys::sync::{Builder, JoinHandle, Mutex, MutexGuard, thread_cell};
use crate::types::error::{Error, ErrorKind, Result};

/// Whether the program has received the service.
type Published = Mutex<bool>;

thread_cell! {
    /// The service whose handlers or callbacks the current thread runs.
    static CURRENT: *const Published = std::ptr::null();
}

/// The threads of one service. A callback may use the service object, so no thread works before
/// the program has received that object.
pub(crate) struct ServiceThreads {
    name: &'static str,
    stack_size: usize,
    /// Thread `i` runs on the CPU `i % cpus.len()` of the list. Empty: on any CPU.
    cpus: Vec<u32>,
    started: AtomicUsize,
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
    pub(crate) fn new(name: &'static str, stack_size: usize, cpus: Vec<u32>) -> ServiceThreads {
        ServiceThreads {
            name,
            stack_size,
            cpus,
            started: AtomicUsize::new(0),
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
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let cpu =
            number.checked_rem(self.cpus.len()).and_then(|place| self.cpus.get(place)).copied();
        let run = move || {
            if let Some(cpu) = cpu {
                // `check_cpus` has tried it. It fails if the system has removed the CPU since then.
                let _ = sys::run_on_cpu(cpu);
            }
            CURRENT.set(Arc::as_ptr(&published));
            if *lock(&published) {
                work();
            }
        };
        let builder = Builder::new().name(self.name.to_owned());
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
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        sys::fork::is_inherited(self.process)
    }

    /// Runs a callback in a thread of the service, and returns whether it panicked.
    #[inline]
    pub(crate) fn run(&self, callback: impl FnOnce()) -> bool {
        let panicked = panics(callback);
        self.end_in_child();
        panicked
    }

    /// Ends a forked child of which the calling thread of the service is the only thread: a callback has
    /// forked, and the child has returned from it. Services do not run in the child. It would
    /// take connections and data from the parent.
    #[inline]
    pub(crate) fn end_in_child(&self) {
        if self.is_inherited() {
            sys::fork::exit_child();
        }
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

/// Checks that a thread of this process may run on each of the CPUs.
pub(crate) fn check_cpus(cpus: &[u32], operation: &'static str) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let failed = |(cpu, e): (u32, io::Error)| {
        let error = Error::os(operation, &e);
        match e.kind() {
            io::ErrorKind::InvalidInput => Error::new(ErrorKind::InvalidArgument, operation)
                .detail(format!("cpu {cpu} does not exist, or this process may not use it")),
            _ => error.detail(format!("no thread can run on cpu {cpu} only")),
        }
    };
    // The thread ends, so the affinity of the calling thread does not change.
    let (told, tried) = mpsc::channel();
    let all = cpus.to_vec();
    let try_all = move || {
        let mut all = all.into_iter();
        let _ = told.send(all.try_for_each(|cpu| sys::run_on_cpu(cpu).map_err(|e| (cpu, e))));
    };
    let spawned = sys::spawn_thread(Builder::new(), try_all);
    spawned.map_err(|e| spawn_error(operation, &e))?;
    tried.recv().map_or(Ok(()), |result| result.map_err(failed))
}

/// The error for a thread that the system did not start. pthread_create(3) returns EAGAIN when a
/// limit on threads is reached.
#[cold]
pub(crate) fn spawn_error(operation: &'static str, cause: &io::Error) -> Error {
    Error::new(ErrorKind::NoMemory, operation)
        .with_os_error(cause.raw_os_error())
        .detail("the system cannot start another thread: a limit on threads or memory is reached")
}
