//! One at a time: what one thread writes is not cut by another's bytes, and of those that
//! wait for several listeners one polls.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be waiting.
const WANTED: u32 = 2;

/// How often a waiter looks up.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// A lock that is one exchange when nobody contends, and whose waiters look up
/// often enough to notice a deadline, a cancel or a close within 50 ms.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    state: AtomicU32,
    waiters: Mutex<()>,
    freed: Condvar,
}

pub(crate) struct Held<'a>(&'a Turn);

impl Turn {
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Held<'_>> {
        self.state
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| Held(self))
    }

    #[cold]
    fn wake_one(&self) {
        // The lock orders this after the waiter's swap and before its wait ends.
        drop(self.waiters.lock().unwrap_or_else(PoisonError::into_inner));
        self.freed.notify_one();
    }

    /// Waits for the turn; `give_up` is asked before each wait and ends it.
    pub(crate) fn take<E>(&self, give_up: impl Fn() -> Result<(), E>) -> Result<Held<'_>, E> {
        self.take_asking(|| give_up().map(|()| Some(LOOK)))
    }

    /// The same for a waiter that says itself after which time it has to look up again;
    /// `None`: not before the turn is free.
    pub(crate) fn take_asking<E>(
        &self,
        give_up: impl Fn() -> Result<Option<Duration>, E>,
    ) -> Result<Held<'_>, E> {
        if let Some(held) = self.try_take() {
            return Ok(held);
        }
        let mut guard = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // As WANTED: whoever waits beside us must be woken after us.
            if self.state.swap(WANTED, Ordering::Acquire) == FREE {
                return Ok(Held(self));
            }
            guard = match give_up()? {
                None => self.freed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(slice) => match self.freed.wait_timeout(guard, slice) {
                    Ok((guard, _)) => guard,
                    Err(poisoned) => poisoned.into_inner().0,
                },
            };
        }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.state.swap(FREE, Ordering::Release) == WANTED {
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
    fn one_at_a_time() {
        let turn = Turn::default();
        let (inside, total) = (AtomicU32::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let held = turn.take(|| Ok::<(), ()>(())).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        total.fetch_add(1, Ordering::Relaxed);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 8000);
        assert!(turn.try_take().is_some());
    }

    /// Who does not look up is woken nevertheless, also when another one gives up meanwhile.
    #[test]
    fn a_waiter_that_sleeps_is_woken() {
        const BRIEF: Duration = Duration::from_micros(50);
        let shared = Arc::new((Turn::default(), AtomicU32::new(0)));
        for _ in 0..200 {
            let (turn, asleep) = &*shared;
            asleep.store(0, Ordering::SeqCst);
            let held = turn.take(|| Ok::<(), ()>(())).unwrap();
            let (send, taken) = mpsc::channel();
            for impatient in [false, false, true, false] {
                let (shared, send) = (shared.clone(), send.clone());
                std::thread::spawn(move || {
                    let (turn, asleep) = &*shared;
                    let since = Instant::now();
                    let took = turn.take_asking(|| {
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
                assert!(taken.recv_timeout(Duration::from_secs(10)).unwrap());
            }
        }
    }

    #[test]
    fn a_waiter_may_give_up() {
        let turn = Turn::default();
        let held = turn.try_take().unwrap();
        assert_eq!(turn.take(|| Err("enough")).err(), Some("enough"));
        drop(held);
        assert!(turn.take(|| Err("enough")).is_ok());
    }
}
