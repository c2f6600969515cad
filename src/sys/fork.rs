//! fork(2): which process made a socket, and whether another process may hold a copy of it.
//!
//! A forked child shares every socket of its parent, and shutdown(2), SO_LINGER and epoll(7)
//! act on the shared sockets. Handlers of pthread_atfork(3) keep the one number here up to date, so
//! neither a call nor a close needs a system call to detect the process that it runs in. _Fork() and
//! clone(2) run no handlers; the kernel clears the number in such a child (MADV_WIPEONFORK, Linux
//! 4.14).

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{TryLockError, TryLockResult};
use std::time::Duration;

use crate::sys::SockRef;

use super::{Borrowed, Owned};
use crate::sys::sync::{Mutex, MutexGuard, sleep, yield_now};
#[cfg(all(test, keepsock_model))]
pub(crate) use platform::become_child;
#[cfg(all(test, unix))]
pub(crate) use platform::while_forking;
pub(crate) use platform::{at_fork, birth, has_forked, is_inherited, process};
#[cfg(feature = "serve")]
pub(crate) use platform::{exit_child, is_forking};

/// How often [`lock_within`] tries to take a lock before its first pause.
const TRIES_IN_A_ROW: u32 = 100;

/// How long a forked child waits for a lock. A thread of the child unlocks in this time, also on a busy
/// machine, and a thread of the parent never does.
const INHERITED_LOCK_MS: u32 = 50;

/// Closes a connection that no object of the program holds, with RST if `reset`. The peer receives
/// FIN or RST at once, even if a forked child holds a copy of the descriptor. Where only the close of the
/// last copy sends RST, the child delays the RST: a FIN before it would let the peer take the data that it
/// has for all data.
pub(crate) fn close(socket: Owned, reset: bool) {
    close_watched(socket, reset, |_| ());
}

/// Closes a connection as [`close`] does. `unwatch` removes its registration with a poller, which the
/// close does not remove while a forked child holds a copy of the descriptor (epoll(7)).
pub(crate) fn close_watched(socket: Owned, reset: bool, unwatch: impl FnOnce(Borrowed<'_>)) {
    let borrowed = super::borrow(&socket);
    if reset {
        // socket(7): a linger time of zero makes close(2) send RST.
        let _ = SockRef::from(&borrowed).set_linger(Some(Duration::ZERO));
    }
    if has_forked() {
        unwatch(borrowed);
        if !(reset && (super::disconnect(borrowed) || !super::BLOCKING_CALLS)) {
            super::wake(borrowed);
        }
    } else if super::REARMS {
        unwatch(borrowed);
    }
    super::close(socket);
}

/// Locks, in a forked child, a mutex that the parent made. If a thread of the parent held the lock at
/// the fork, the child does not have that thread, and no thread unlocks it: the result is `None`.
pub(crate) fn lock_inherited<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    lock_within(INHERITED_LOCK_MS, || mutex.try_lock())
}

/// Tries to lock a mutex until it succeeds, for about `millis` milliseconds.
pub(crate) fn lock_within<G>(millis: u32, try_lock: impl Fn() -> TryLockResult<G>) -> Option<G> {
    for tries in 0..TRIES_IN_A_ROW + millis {
        match try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if tries < TRIES_IN_A_ROW => yield_now(),
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(1)),
        }
    }
    None
}

/// Locks a mutex that this process may have inherited by fork(2), as [`lock_inherited`] does, and
/// otherwise as usual.
pub(crate) fn lock_shared<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    if is_inherited(FIRST) {
        return lock_inherited(mutex);
    }
    Some(mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// The actions of a module when the process forks. The thread that forks calls each function. A function
/// must not wait without a limit, because a signal handler that interrupts any function may call fork(2).
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) struct AtFork {
    pub(crate) before: fn(),
    pub(crate) in_parent: fn(),
    /// It also runs, without `before`, in a child for which no handler ran. It must do only what is
    /// safe in the child of a process with threads.
    pub(crate) in_child: fn(),
}

/// An object that each process makes for itself when it needs it. It stays until the process ends.
pub(crate) struct PerProcess<T: Sync + 'static>(AtomicPtr<T>, PhantomData<T>);

impl<T: Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess(AtomicPtr::new(ptr::null_mut()), PhantomData)
    }

    pub(crate) fn get(&'static self) -> Option<&'static T> {
        PerProcess::of(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn get_or_make(&'static self, make: impl FnOnce() -> T) -> &'static T {
        if let Some(made) = self.get() {
            return made;
        }
        let mine = Box::into_raw(Box::new(make()));
        let null = ptr::null_mut();
        match self.0.compare_exchange(null, mine, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: it came from a box, and is never freed.
            Ok(_) => unsafe { &*mine },
            Err(others) => {
                // SAFETY: it came from a box, and no other thread has seen it.
                drop(unsafe { Box::from_raw(mine) });
                // SAFETY: not null, since the exchange failed, and never freed.
                unsafe { &*others }
            }
        }
    }

    /// In a child: begins without one, and returns the parent's.
    pub(crate) fn forget(&'static self) -> Option<&'static T> {
        PerProcess::of(self.0.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    fn of(made: *mut T) -> Option<&'static T> {
        // SAFETY: null, or from a box that is never freed.
        unsafe { made.as_ref() }
    }
}

/// In a birth: the number of threads that were inside fork(2) when the object was made. The kernel
/// copies the descriptors to a child before it copies the memory. So a child may have such an object
/// without its descriptor, whose number the child then gives to another file.
const FORKING: u32 = 0xfffe;
/// In a birth, above [`FORKING`]: the number of forks between the first process and this one, from 1
/// on.
const PROCESS: u32 = !0xffff;
/// The difference between the numbers of a process and of its child.
const STEP: u32 = 1 << 16;

/// The birth of every object that the first process creates before its first fork(2).
const FIRST: u32 = STEP;

/// The number of forks between the first process and the one that has this birth.
pub(crate) fn generation(birth: u32) -> u32 {
    (birth & PROCESS).wrapping_sub(FIRST) / STEP
}

/// Whether this process may close the descriptor of an object. A child may not if it may be without
/// that descriptor.
#[inline]
pub(crate) fn may_close(birth: u32) -> bool {
    birth & FORKING == 0 || !is_inherited(birth)
}

#[cfg(unix)]
mod platform {
    use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
    use std::sync::{Once, OnceLock};

    #[cfg(feature = "serve")]
    use super::FORKING;
    use super::{AtFork, FIRST, PROCESS, STEP};

    /// Set once this process has forked: a child may hold a copy of any socket.
    const FORKED: u32 = 1;
    /// In FORKING: one thread.
    const THREAD: u32 = 2;

    /// FORKED, and above it the birth of an object that is made now. 0: no handler was registered yet,
    /// or this is a child that no handler has seen. In memory that the kernel clears in a child, if the
    /// system has it.
    static EPOCH: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const KEPT).cast_mut());
    static KEPT: AtomicU32 = AtomicU32::new(0);

    /// The number of this process, or of its parent in a child that no handler has seen.
    static LAST: AtomicU32 = AtomicU32::new(FIRST);
    /// In LAST: a thread of such a child is about to give the child its number.
    const BUSY: u32 = 1;

    #[inline]
    fn epoch() -> &'static AtomicU32 {
        // SAFETY: a static, or memory that is never unmapped.
        unsafe { &*EPOCH.load(Ordering::Acquire) }
    }

    /// The actions on sockets that no object of the program holds.
    static AT_FORK: OnceLock<AtFork> = OnceLock::new();

    /// The flag is set before the child exists: another thread may close a socket between the fork and
    /// the handler of the parent.
    extern "C" fn before() {
        // A child that no handler has seen gets its number now, because the number marks it as seen.
        birth();
        epoch().fetch_or(FORKED, Ordering::Relaxed);
        epoch().fetch_add(THREAD, Ordering::Relaxed);
        if let Some(actions) = AT_FORK.get() {
            (actions.before)();
        }
    }

    extern "C" fn in_parent() {
        if let Some(actions) = AT_FORK.get() {
            (actions.in_parent)();
        }
        epoch().fetch_sub(THREAD, Ordering::Relaxed);
    }

    extern "C" fn in_child() {
        begin((LAST.load(Ordering::Relaxed) & !BUSY).wrapping_add(STEP));
    }

    /// Gives a child its number.
    fn begin(number: u32) {
        if let Some(actions) = AT_FORK.get() {
            (actions.in_child)();
        }
        epoch().store(number, Ordering::Release);
        LAST.store(number, Ordering::Release);
    }

    #[cold]
    fn register() -> u32 {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the functions stay for as long as the library does, and do not wait without a limit.
            let code =
                unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
            // Without memory for the handlers every close assumes that there is a copy.
            let first = if code == 0 { FIRST } else { FIRST | FORKED };
            let number = wiped_on_fork().unwrap_or(&KEPT);
            number.store(first, Ordering::Relaxed);
            EPOCH.store(std::ptr::from_ref(number).cast_mut(), Ordering::Release);
        });
        loop {
            let number = epoch().load(Ordering::Acquire);
            if number != 0 {
                return number & !FORKED;
            }
            // A child that no handler has seen. One of its threads gives it its number.
            let last = LAST.load(Ordering::Acquire) & !BUSY;
            let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
            if LAST.compare_exchange(last, last | BUSY, order, failed).is_err() {
                std::thread::yield_now();
            } else if epoch().load(Ordering::Acquire) == 0 {
                begin(last.wrapping_add(STEP));
            } else {
                LAST.store(last, Ordering::Release);
            }
        }
    }

    /// A number that is 0 in a child, however the child is made.
    #[cfg(keepsock_linux)]
    fn wiped_on_fork() -> Option<&'static AtomicU32> {
        const LEN: usize = 4096; // the kernel rounds it up to a page
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory of zeros, which is aligned to a page and stays mapped if it is used.
        unsafe {
            let page = libc::mmap(std::ptr::null_mut(), LEN, access, kind, -1, 0);
            if page == libc::MAP_FAILED {
                return None;
            }
            if libc::madvise(page, LEN, libc::MADV_WIPEONFORK) != 0 {
                libc::munmap(page, LEN);
                return None;
            }
            page.cast::<AtomicU32>().as_ref()
        }
    }

    #[cfg(not(keepsock_linux))]
    fn wiped_on_fork() -> Option<&'static AtomicU32> {
        None
    }

    /// Identifies the process that makes a socket now, and counts its threads that are inside fork(2).
    #[inline]
    pub(crate) fn birth() -> u32 {
        match epoch().load(Ordering::Relaxed) {
            0 => register(),
            epoch => epoch & !FORKED,
        }
    }

    /// The number of this process, which is never 0 and is a multiple of 2.
    #[inline]
    pub(crate) fn process() -> u32 {
        match epoch().load(Ordering::Relaxed) {
            0 => register() & PROCESS,
            epoch => epoch & PROCESS,
        }
    }

    /// Ends a forked child. Its exit handlers do not run, because locks that they take may be those of threads
    /// that only the parent has (fork(2)).
    #[cfg(feature = "serve")]
    #[cold]
    pub(crate) fn exit_child() -> ! {
        // SAFETY: the call takes no pointer.
        unsafe { libc::_exit(0) }
    }

    /// Runs a function as if another thread were inside fork(2).
    #[cfg(test)]
    pub(crate) fn while_forking<T>(f: impl FnOnce() -> T) -> T {
        birth();
        epoch().fetch_add(THREAD, Ordering::Relaxed);
        let value = f();
        epoch().fetch_sub(THREAD, Ordering::Relaxed);
        value
    }

    /// Whether an object was made by another process, and copied to this one by fork(2).
    #[inline]
    pub(crate) fn is_inherited(birth: u32) -> bool {
        (epoch().load(Ordering::Relaxed) ^ birth) & PROCESS != 0
    }

    /// Whether a thread of this process is inside fork(2). See [`FORKING`].
    #[cfg(feature = "serve")]
    #[inline]
    pub(crate) fn is_forking() -> bool {
        epoch().load(Ordering::Relaxed) & FORKING != 0
    }

    /// Whether a child of this process may hold a copy of a socket that this process made.
    #[inline]
    pub(crate) fn has_forked() -> bool {
        epoch().load(Ordering::Relaxed) & FORKED != 0
    }

    /// Makes this process a child of itself, for models.
    #[cfg(all(test, keepsock_model))]
    pub(crate) fn become_child() {
        birth();
        in_child();
    }

    /// Has functions called at each fork. Only the first call has an effect.
    pub(crate) fn at_fork(actions: AtFork) {
        let _ = AT_FORK.set(actions);
        birth();
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::sys;

        fn in_a_child(test: impl FnOnce() -> bool) -> bool {
            // SAFETY: only the child of this function runs on.
            in_a_child_of(|| unsafe { libc::fork() }, test)
        }

        fn in_a_child_of(fork: impl Fn() -> libc::pid_t, test: impl FnOnce() -> bool) -> bool {
            // SAFETY: the child only reads numbers, and exits without unwinding.
            unsafe {
                let child = fork();
                assert!(child >= 0);
                if child == 0 {
                    libc::alarm(60); // ends a child that hangs
                    libc::_exit(i32::from(!test()));
                }
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
            }
        }

        /// E5: a child distinguishes the objects of its parent from its own, and has no child yet.
        #[test]
        fn birth_differs_in_a_forked_child() {
            let born = sys::fork::birth();
            assert!(!is_inherited(born));
            assert!(in_a_child(|| {
                let own = birth();
                let first = is_inherited(born) && !is_inherited(own) && !has_forked();
                let second = in_a_child(|| is_inherited(born) && is_inherited(own));
                first && second && has_forked() && !is_inherited(own)
            }));
            assert!(!is_inherited(born) && has_forked());
        }

        /// E5: a child for which no handler runs detects the objects of its parent, and so do its children.
        /// The C library does not prepare its locks for clone(2): if another thread of the process held
        /// one, the child would wait for it without end. So the test runs in a process with one thread.
        #[test]
        #[cfg(keepsock_linux)]
        fn birth_differs_in_a_child_made_by_clone() {
            const ALONE: &str = "KEEPSOCK_TEST_ALONE";
            if std::env::var_os(ALONE).is_none() {
                let name = "sys::fork::platform::tests::birth_differs_in_a_child_made_by_clone";
                let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
                alone.args(["--exact", name, "--test-threads=1"]).env(ALONE, "1");
                let output = alone.output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && text.contains("1 passed"), "{text}");
                return;
            }
            // On s390x the flags are the second argument.
            let flags =
                if cfg!(target_arch = "s390x") { [0, libc::SIGCHLD] } else { [libc::SIGCHLD, 0] };
            // SAFETY: no stack and no flags, as fork(2).
            let clone = || unsafe { libc::syscall(libc::SYS_clone, flags[0], flags[1], 0, 0, 0) };
            let clone = || clone() as libc::pid_t;
            let born = birth();
            assert!(in_a_child_of(clone, || {
                let before = is_inherited(born) && !has_forked();
                let own = birth();
                let first = is_inherited(born) && !is_inherited(own);
                let second = in_a_child(|| is_inherited(born) && is_inherited(own));
                let third = in_a_child_of(clone, || is_inherited(born) && is_inherited(own));
                before && first && second && third && !is_inherited(own)
            }));
            assert!(!is_inherited(born));
        }
    }
}

#[cfg(not(unix))]
mod platform {
    pub(crate) fn birth() -> u32 {
        super::FIRST
    }

    pub(crate) fn process() -> u32 {
        super::FIRST
    }

    pub(crate) fn is_inherited(_birth: u32) -> bool {
        false
    }

    #[cfg(feature = "serve")]
    pub(crate) fn exit_child() -> ! {
        // The system has no fork(2).
        std::process::abort()
    }

    pub(crate) fn has_forked() -> bool {
        false
    }

    #[cfg(feature = "serve")]
    pub(crate) fn is_forking() -> bool {
        false
    }

    pub(crate) fn at_fork(_actions: super::AtFork) {}
}
