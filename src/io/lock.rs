//! A lock whose waiters poll for cancellation: at most one thread writes to a connection, and at
//! most one of the threads that accept from several listeners polls them.

use std::sync::PoisonError;
use std::time::Duration;

use crate::sys::fork;
use crate::sys::sync::atomic::{AtomicU32, Ordering};
use crate::sys::sync::{Condvar, Mutex};

/// The lock is free. Otherwise the state is the number of the process that holds the lock. A thread
/// of the parent does not exist in a forked child and never unlocks there.
const FREE: u32 = 0;
/// A thread may be waiting for the lock, which is held. Process numbers are even.
const CONTENDED: u32 = 1;

/// The interval at which waiters check for a deadline, a cancel token and a close.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A lock that costs one atomic exchange without contention. Its waiters wake often enough to
/// notice a deadline, a cancel token or a close within 50 ms.
#[derive(Debug, Default)]
pub(crate) struct PollingLock {
    state: AtomicU32,
    waiters: Mutex<()>,
    unlocked: Condvar,
}

/// Holds a [`PollingLock`] and unlocks it when dropped.
pub(crate) struct Guard<'a>(&'a PollingLock);

impl PollingLock {
    /// Locks without waiting. `None`: another thread holds the lock.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_>> {
        let mine = fork::process();
        match self.state.compare_exchange(FREE, mine, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Some(Guard(self)),
            Err(state) => self.lock_inherited(state, mine),
        }
    }

    /// Locks in a forked child if a thread of the parent holds the lock.
    #[cold]
    fn lock_inherited(&self, state: u32, mine: u32) -> Option<Guard<'_>> {
        let inherited = state & !CONTENDED != mine;
        (inherited
            && self
                .state
                .compare_exchange(state, mine, Ordering::Acquire, Ordering::Relaxed)
                .is_ok())
        .then(|| Guard(self))
    }

    #[cold]
    fn wake_one(&self) {
        // The mutex orders this after the waiter's swap and before the end of its wait.
        drop(self.waiters.lock().unwrap_or_else(PoisonError::into_inner));
        self.unlocked.notify_one();
    }

    /// Locks, and waits for the lock if necessary. An error of `check`, which runs at least every
    /// [`POLL_INTERVAL`], ends the wait.
    pub(crate) fn lock<E>(&self, check: impl Fn() -> Result<(), E>) -> Result<Guard<'_>, E> {
        self.lock_with(|| check().map(|()| Some(POLL_INTERVAL)))
    }

    /// Locks as [`lock`](PollingLock::lock) does. `check` returns the time after which it runs
    /// again. `None`: it does not run again before the lock is free.
    pub(crate) fn lock_with<E>(
        &self,
        check: impl Fn() -> Result<Option<Duration>, E>,
    ) -> Result<Guard<'_>, E> {
        if let Some(guard) = self.try_lock() {
            return Ok(guard);
        }
        let mine = fork::process();
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // CONTENDED, so that the unlock of this thread wakes the next waiter.
            if self.state.swap(mine | CONTENDED, Ordering::Acquire) & !CONTENDED != mine {
                return Ok(Guard(self));
            }
            waiters = match check()? {
                None => self.unlocked.wait(waiters).unwrap_or_else(PoisonError::into_inner),
                Some(slice) => match self.unlocked.wait_timeout(waiters, slice) {
                    Ok((waiters, _)) => waiters,
                    Err(poisoned) => poisoned.into_inner().0,
                },
            };
        }
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.state.swap(FREE, Ordering::Release) & CONTENDED != 0 {
            self.0.wake_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::sync::{Arc, mpsc};
    use std::time::Instant;

    #[test]
    fn lock_admits_one_thread_at_a_time() {
        let lock = PollingLock::default();
        let (inside, total) = (AtomicU32::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let held = lock.lock(|| Ok::<(), ()>(())).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        total.fetch_add(1, Ordering::Relaxed);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 8000);
        assert!(lock.try_lock().is_some());
    }

    /// T1, E5: a thread that is inside fork(2) changes nothing for the lock.
    #[test]
    #[cfg(unix)]
    fn lock_held_during_a_fork_admits_no_other_thread() {
        let lock = PollingLock::default();
        let is_free = || std::thread::scope(|s| s.spawn(|| lock.try_lock().is_some()).join());
        let held = lock.try_lock().unwrap();
        assert!(!fork::while_forking(is_free).unwrap());
        drop(held);
        let held = fork::while_forking(|| lock.try_lock()).unwrap();
        assert!(!is_free().unwrap());
        let (timeout, began) = (Duration::from_millis(50), Instant::now());
        let check = || if began.elapsed() > timeout { Err(()) } else { Ok(()) };
        assert!(fork::while_forking(|| lock.lock(check).is_err()));
        drop(held);
        assert!(is_free().unwrap());
    }

    /// An unlock wakes a waiter without a poll interval, even if another waiter stops waiting at
    /// the same time.
    #[test]
    fn lock_with_wakes_a_waiter_without_interval() {
        const BRIEF: Duration = Duration::from_micros(50);
        let shared = Arc::new((PollingLock::default(), AtomicU32::new(0)));
        for _ in 0..200 {
            let (lock, asleep) = &*shared;
            asleep.store(0, Ordering::SeqCst);
            let held = lock.lock(|| Ok::<(), ()>(())).unwrap();
            let (send, taken) = mpsc::channel();
            for impatient in [false, false, true, false] {
                let (shared, send) = (shared.clone(), send.clone());
                std::thread::spawn(move || {
                    let (lock, asleep) = &*shared;
                    let since = Instant::now();
                    let took = lock.lock_with(|| {
                        asleep.fetch_add(u32::from(!impatient), Ordering::SeqCst);
                        if impatient && since.elapsed() > BRIEF {
                            return Err(());
                        }
                        Ok(impatient.then_some(BRIEF))
                    });
                    send.send(impatient || took.is_ok()).unwrap();
                });
            }
            while asleep.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
            drop(held);
            for _ in 0..4 {
                assert!(taken.recv_timeout(Duration::from_secs(60)).unwrap());
            }
        }
    }

    #[test]
    fn lock_returns_the_error_of_check() {
        let lock = PollingLock::default();
        let held = lock.try_lock().unwrap();
        assert_eq!(lock.lock(|| Err("cancelled")).err(), Some("cancelled"));
        drop(held);
        assert!(lock.lock(|| Err("cancelled")).is_ok());
    }
}
