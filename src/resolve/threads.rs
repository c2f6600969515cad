//! The threads that call getaddrinfo(3), and the queue of lookups for them.
//!
//! getaddrinfo(3) cannot be cancelled. If its caller stops waiting, the thread is abandoned: it
//! stays blocked until the resolver answers. An abandoned thread does not take the place of a
//! thread whose caller waits. A lookup for which no thread is free waits in a queue, in the order
//! of arrival, and is removed if its caller stops waiting. Idle threads end after a while.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys;
use crate::sys::fork::{self, PerProcess};

/// The maximum number of threads whose callers wait.
const MAX_ACTIVE: usize = 64;
/// The number of additional abandoned threads. Beyond it each abandoned thread takes the place of
/// an active one, so a resolver that hangs occupies at most the sum of both numbers.
const MAX_ABANDONED: usize = 192;
/// The time after which an idle thread ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);
const STACK: usize = 256 * 1024;
/// The increase of the stack size in each generation of forked children. glibc reuses the smallest
/// stack that is large enough, which may be the stack of a thread that does not exist in the child.
/// That stack contains the resolver state of a lookup in progress, with sockets of the parent.
const STACK_STEP: usize = 64 * 1024;
/// The largest number of increases: 64 MiB of address space.
const MAX_STEPS: u32 = 1024;

fn stack_size(generation: u32) -> usize {
    STACK + STACK_STEP * generation.min(MAX_STEPS) as usize
}

/// The work of a thread.
pub(crate) trait Work: Send + Sync {
    type Answer;
    /// Queries the resolver and waits for its answer.
    fn run(&self) -> Self::Answer;
    fn deliver(&self, answer: Self::Answer);
    /// Reports that no thread can be started. `code` is the error number of the system.
    fn deliver_no_thread(&self, code: Option<i32>);
}

/// The numbers of threads, and the waiting lookups. It starts no thread itself.
#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<T>,
    /// The threads that are not abandoned, including idle ones.
    active: usize,
    idle: usize,
    abandoned: usize,
}

/// The action that the queue needs.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Wake,
    /// Start a thread, which is already counted.
    Start,
}

impl<T> Queue<T> {
    const fn new() -> Queue<T> {
        Queue { waiting: VecDeque::new(), active: 0, idle: 0, abandoned: 0 }
    }

    fn push(&mut self, lookup: T) -> Action {
        self.waiting.push_back(lookup);
        self.next_action()
    }

    fn next_action(&mut self) -> Action {
        if self.waiting.is_empty() {
            Action::Nothing
        } else if self.waiting.len() <= self.idle {
            Action::Wake
        } else if self.active < self.limit() {
            self.active += 1;
            Action::Start
        } else {
            Action::Nothing
        }
    }

    fn limit(&self) -> usize {
        MAX_ACTIVE.min((MAX_ACTIVE + MAX_ABANDONED).saturating_sub(self.abandoned))
    }

    /// Records that the caller of a running lookup stopped waiting.
    fn abandon(&mut self) -> Action {
        self.active -= 1;
        self.abandoned += 1;
        self.next_action()
    }

    /// Records that an abandoned thread has its answer. Returns whether the thread continues.
    fn resume(&mut self) -> bool {
        self.abandoned -= 1;
        let stays = self.active < self.limit();
        self.active += usize::from(stays);
        stays
    }

    /// Records that a thread could not be started. Returns whether there is no thread at all.
    fn not_started(&mut self) -> bool {
        self.active -= 1;
        self.active + self.abandoned == 0
    }

    /// Whether at least half of the threads are free.
    fn has_room(&self) -> bool {
        self.active - self.idle + self.waiting.len() < MAX_ACTIVE / 2
    }
}

/// A lookup and its stage. The stage changes under the lock of the pool only.
struct Lookup<W> {
    work: W,
    stage: AtomicU8,
}

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
/// The caller has stopped waiting.
const ABANDONED: u8 = 2;
const DONE: u8 = 3;

impl<W> Lookup<W> {
    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Relaxed)
    }

    fn set_stage(&self, stage: u8) {
        self.stage.store(stage, Ordering::Relaxed);
    }
}

/// The threads of one process, and their queue.
pub(crate) struct Pool<W: Work + 'static> {
    queue: Mutex<Queue<Arc<Lookup<W>>>>,
    changed: Condvar,
    /// The number of the process.
    birth: u32,
}

/// A lookup whose caller waits. Dropping it removes the lookup from the queue, or abandons its
/// thread.
pub(crate) struct Ticket<W: Work + 'static> {
    pool: &'static Pool<W>,
    lookup: Arc<Lookup<W>>,
}

impl<W: Work + 'static> Pool<W> {
    fn new() -> Pool<W> {
        Pool { queue: Mutex::new(Queue::new()), changed: Condvar::new(), birth: fork::birth() }
    }

    /// Returns the pool of this process. A forked child has no threads of its parent, so it creates
    /// a new pool.
    pub(crate) fn of(pools: &'static PerProcess<Pool<W>>) -> &'static Pool<W> {
        let pool = pools.get_or_make(Pool::new);
        if !fork::is_inherited(pool.birth) {
            return pool;
        }
        pools.forget();
        pools.get_or_make(Pool::new)
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Arc<Lookup<W>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&'static self, work: W) -> Ticket<W> {
        let lookup = Arc::new(Lookup { work, stage: AtomicU8::new(WAITING) });
        let mut queue = self.lock();
        let need = queue.push(Arc::clone(&lookup));
        self.act(need, queue);
        Ticket { pool: self, lookup }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    fn act(&'static self, action: Action, queue: MutexGuard<'_, Queue<Arc<Lookup<W>>>>) {
        drop(queue);
        match action {
            Action::Nothing => return,
            Action::Wake => return self.changed.notify_one(),
            Action::Start => {}
        }
        let builder = sys::sync::Builder::new()
            .name("keepsock-lookup".to_owned())
            .stack_size(stack_size(fork::generation(self.birth)));
        let Err(e) = sys::spawn_thread(builder, move || self.run_lookups()) else {
            return;
        };
        let mut queue = self.lock();
        if queue.not_started() {
            let waiting = std::mem::take(&mut queue.waiting);
            drop(queue);
            waiting.iter().for_each(|lookup| lookup.work.deliver_no_thread(e.raw_os_error()));
        }
    }

    /// Runs lookups until the thread is idle for a while, or no longer needed.
    fn run_lookups(&self) {
        let mut queue = self.lock();
        loop {
            let Some(lookup) = queue.waiting.pop_front() else {
                queue.idle += 1;
                let waited = self.changed.wait_timeout(queue, IDLE_TIMEOUT);
                let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                queue = guard;
                queue.idle -= 1;
                if timeout.timed_out() && queue.waiting.is_empty() {
                    queue.active -= 1;
                    return;
                }
                continue;
            };
            lookup.set_stage(RUNNING);
            drop(queue);
            let answer = lookup.work.run();
            // The stage changes before the delivery, because the caller may then drop the ticket.
            queue = self.lock();
            let stays = lookup.stage() != ABANDONED || queue.resume();
            lookup.set_stage(DONE);
            drop(queue);
            lookup.work.deliver(answer);
            if !stays {
                return;
            }
            queue = self.lock();
        }
    }
}

impl<W: Work + 'static> fmt::Debug for Ticket<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("stage", &self.lookup.stage()).finish_non_exhaustive()
    }
}

impl<W: Work + 'static> Drop for Ticket<W> {
    fn drop(&mut self) {
        if fork::is_inherited(self.pool.birth) {
            return;
        }
        let mut queue = self.pool.lock();
        match self.lookup.stage() {
            WAITING => queue.waiting.retain(|waiting| !Arc::ptr_eq(waiting, &self.lookup)),
            RUNNING => {
                self.lookup.set_stage(ABANDONED);
                let need = queue.abandon();
                self.pool.act(need, queue);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue with this number of lookups, and the actions that it needed.
    fn pushed(lookups: usize) -> (Queue<usize>, Vec<Action>) {
        let mut queue = Queue::new();
        let needs = (0..lookups).map(|lookup| queue.push(lookup)).collect();
        (queue, needs)
    }

    /// C6: each lookup gets a thread up to the limit. Further lookups wait in the order of arrival.
    #[test]
    fn queue_starts_threads_up_to_the_limit() {
        let (mut queue, needs) = pushed(MAX_ACTIVE + 3);
        assert!(needs[..MAX_ACTIVE].iter().all(|need| *need == Action::Start));
        assert!(needs[MAX_ACTIVE..].iter().all(|need| *need == Action::Nothing));
        assert_eq!(queue.active, MAX_ACTIVE);
        let order: Vec<_> = std::iter::from_fn(|| queue.waiting.pop_front()).collect();
        assert!(order.into_iter().eq(0..MAX_ACTIVE + 3));
    }

    /// C6: an idle thread is woken before another thread is started, one for each lookup.
    #[test]
    fn queue_wakes_parked_threads_first() {
        let (mut queue, _) = pushed(2);
        queue.waiting.clear();
        queue.idle = 2;
        let needs = [(); 3].map(|()| queue.push(0));
        assert_eq!(needs, [Action::Wake, Action::Wake, Action::Start]);
        assert_eq!(queue.active, 3);
    }

    /// C6: an abandoned thread is replaced by a new thread, up to the limit. When it has its
    /// answer, it continues with other lookups if the limit permits.
    #[test]
    fn queue_replaces_abandoned_threads() {
        let (mut queue, _) = pushed(MAX_ACTIVE + 1);
        queue.waiting.drain(..MAX_ACTIVE);
        assert_eq!(queue.abandon(), Action::Start);
        assert_eq!((queue.active, queue.abandoned), (MAX_ACTIVE, 1));
        assert!(!queue.resume(), "the limit is reached");
        assert_eq!((queue.active, queue.abandoned), (MAX_ACTIVE, 0));

        while queue.active > 0 {
            queue.abandon();
        }
        assert_eq!(queue.abandoned, MAX_ACTIVE + MAX_ABANDONED, "the limit of all threads");
        assert_eq!(queue.push(0), Action::Nothing);
        assert!(queue.resume(), "a lookup waits");
        assert_eq!((queue.active, queue.abandoned), (1, MAX_ACTIVE + MAX_ABANDONED - 1));
    }

    /// C6: without a thread no lookup would ever run.
    #[test]
    fn queue_reports_that_no_thread_is_left() {
        let (mut queue, _) = pushed(2);
        assert!(!queue.not_started());
        assert!(queue.not_started());
        let (mut queue, _) = pushed(1);
        queue.waiting.clear();
        assert_eq!(queue.abandon(), Action::Nothing);
        assert_eq!(queue.push(0), Action::Start);
        assert!(!queue.not_started(), "an abandoned thread will continue");
    }
}
