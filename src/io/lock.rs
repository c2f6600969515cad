//! A lock whose waiters poll for cancellation: at most one thread writes to a connection, and at
//! most one of the threads that accept from several listeners polls them.

use std::sync::PoisonError;
use std::time::Duration;

use crate::io::cancel::CancelToken;
use crate::sys::fork;
use crate::sys::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
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

    /// Lets every waiter run its check.
    #[cold]
    fn wake_all(&self) {
        // The mutex orders this after the check of a waiter and before the end of its wait.
        drop(self.waiters.lock().unwrap_or_else(PoisonError::into_inner));
        self.unlocked.notify_all();
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

/// A [`PollingLock`] whose holder waits for events, among them the cancel token of its call. A waiter with the
/// same token sleeps until the lock is free, because the token ends the wait of the holder. A waiter with
/// another token checks it periodically.
#[derive(Debug, Default)]
pub(crate) struct TurnLock {
    lock: PollingLock,
    /// The token of the holder, or of the last one: [`CancelToken::number`]. 0: none.
    token: AtomicUsize,
}

impl TurnLock {
    /// Locks as [`PollingLock::lock_with`] does. The caller must poll the token while it holds the lock.
    pub(crate) fn lock<E>(
        &self,
        cancel: Option<&CancelToken>,
        check: impl Fn() -> Result<Option<Duration>, E>,
    ) -> Result<Guard<'_>, E> {
        let mine = cancel.map_or(0, CancelToken::number);
        let guard = self.lock.lock_with(|| {
            let left = check()?;
            let is_polled = mine == 0 || self.token.load(Ordering::Acquire) == mine;
            let interval = (!is_polled).then_some(POLL_INTERVAL);
            Ok(left.map_or(interval, |left| Some(interval.map_or(left, |time| time.min(left)))))
        })?;
        if self.token.swap(mine, Ordering::AcqRel) != mine {
            // The waiters with the token of the last holder have to check it from now on.
            self.lock.wake_all();
        }
        Ok(guard)
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

    /// Whether a call that starts to wait for the lock runs its check again within five intervals.
    fn checks_again(turn: &TurnLock, token: &CancelToken) -> bool {
        let (checks, is_over) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let ended = turn.lock(Some(token), || {
                    checks.fetch_add(1, Ordering::SeqCst);
                    if is_over.load(Ordering::SeqCst) == 0 { Ok(None) } else { Err(()) }
                });
                ended.is_err()
            });
            while checks.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            std::thread::sleep(5 * POLL_INTERVAL);
            let again = checks.load(Ordering::SeqCst) > 1;
            is_over.store(1, Ordering::SeqCst);
            turn.lock.wake_all();
            assert!(waiter.join().unwrap());
            again
        })
    }

    /// T2: a waiter with the token of the holder sleeps, and a waiter with another token checks it.
    #[test]
    fn turn_lock_waiter_checks_only_another_token() {
        let turn = TurnLock::default();
        let tokens = [(); 2].map(|()| CancelToken::new().unwrap());
        for holder in [0, 1] {
            let held = turn.lock(Some(&tokens[holder]), || Ok::<_, ()>(None)).unwrap();
            assert!(!checks_again(&turn, &tokens[holder]));
            assert!(checks_again(&turn, &tokens[1 - holder]));
            drop(held);
        }
    }

    /// T2: a waiter that sleeps checks its token when the next holder has another token.
    #[test]
    fn turn_lock_waiter_learns_of_a_holder_with_another_token() {
        let turn = TurnLock::default();
        let tokens = [(); 2].map(|()| CancelToken::new().unwrap());
        for _ in 0..1000 {
            let held = turn.lock(Some(&tokens[0]), || Ok::<_, ()>(None)).unwrap();
            let (checks, is_over) = (AtomicU32::new(0), AtomicU32::new(0));
            let has_checked = std::thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    let ended = turn.lock(Some(&tokens[0]), || {
                        checks.fetch_add(1, Ordering::SeqCst);
                        if is_over.load(Ordering::SeqCst) == 0 { Ok(None) } else { Err(()) }
                    });
                    ended.is_err()
                });
                while checks.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                drop(held);
                // The waiter may get the lock before this call.
                let _held = turn.lock(Some(&tokens[1]), || Ok::<_, ()>(None)).unwrap();
                is_over.store(1, Ordering::SeqCst);
                let start = Instant::now();
                while !waiter.is_finished() && start.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
                let in_time = waiter.is_finished();
                turn.lock.wake_all();
                assert!(in_time, "the waiter sleeps");
                waiter.join().unwrap()
            });
            if has_checked {
                return;
            }
        }
        panic!("the waiter was always the next holder");
    }
}
