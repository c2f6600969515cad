//! The background closer: one thread of the process, which completes the graceful closes of dropped
//! sockets.
//!
//! A socket that comes here has sent its FIN. The closer reads and discards input until the peer has
//! also closed its side. If reading was shut down, it waits until the peer's kernel has acknowledged
//! all data. Both end at the close timeout.
//!
//! The closer closes a socket immediately, which may lose data if the peer is still sending, in these
//! cases: the thread cannot be started; or the process may need the descriptor. At most an eighth of
//! the process's descriptors, and at most 1,024, are pending, and none of the last quarter. The
//! kernel assigns the lowest free number, so a high number shows that many descriptors are in use.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::io::wait::Cause;
use crate::log;
use crate::sys::fork::{AtFork, PerProcess};
use crate::sys::{self, Owned, Poller, Registry, Wait};
use crate::types::address::FiveTuple;

/// The time for which the thread stays when no close is pending.
const LINGER: Duration = Duration::from_millis(100);

/// With a lower limit on descriptors no close is pending, because the thread needs two descriptors.
const MIN_DESCRIPTOR_LIMIT: usize = 64;

/// The greatest number of pending closes, whatever the limit on descriptors.
const MAX_PENDING: usize = 1024;

/// The stack size of the thread, in which a logger of the program may run.
const STACK: usize = 256 * 1024;

/// The number of consecutive reads from one socket before other sockets are served.
const MAX_READS: usize = 16;
/// The size of a read.
const CHUNK: usize = 16 * 1024;

/// The first and the longest interval between two queries of unacknowledged data.
const FIRST_INTERVAL: Duration = Duration::from_millis(1);
const LONGEST_INTERVAL: Duration = Duration::from_millis(20);

/// How long a fork waits for the lock. On a busy machine the closer may not run for a while, and without
/// the lock the child would keep copies of its sockets.
const FORK_WAIT_MS: u32 = 1000;

/// The time for which the thread leaves the lock to a thread that forks.
const FORK_PAUSE: Duration = Duration::from_millis(1);

/// The event that a socket waits for before it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The peer's FIN. Input before it is discarded.
    Fin,
    /// The peer's kernel has acknowledged all data.
    Delivered,
}

struct Pending {
    /// `None` once it is closed.
    socket: Option<Owned>,
    until: Until,
    deadline: Instant,
    /// The time of the next check.
    due: Instant,
    interval: Duration,
    /// For the log.
    tuple: Option<FiveTuple>,
}

/// The next step for a socket.
enum NextAction {
    Wait,
    /// More input is available.
    ReadAgain,
    Close(Option<io::Error>),
}

impl Pending {
    fn check(&mut self, now: Instant, buf: &mut [u8]) -> NextAction {
        let Some(socket) = self.socket.as_ref().map(sys::borrow) else {
            return NextAction::Close(None);
        };
        if self.deadline <= now {
            return NextAction::Close(None);
        }
        if self.until == Until::Delivered {
            if sys::unacknowledged(socket) == 0 || sys::is_gone(socket) {
                return NextAction::Close(sys::pending_error(socket));
            }
            self.wait_interval(now);
            return NextAction::Wait;
        }
        for _ in 0..MAX_READS {
            match sys::recv(socket, buf, Wait::No) {
                Ok(0) => return NextAction::Close(None),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.due = self.deadline;
                    return NextAction::Wait;
                }
                Err(e) if sys::is_from_network(&e) => return NextAction::Close(Some(e)),
                // Any other error of the kernel may be transient.
                Err(_) => {
                    self.wait_interval(now);
                    return NextAction::Wait;
                }
            }
        }
        NextAction::ReadAgain
    }

    /// Sets the next check one interval later, and doubles the interval.
    fn wait_interval(&mut self, now: Instant) {
        self.due = (now + self.interval).min(self.deadline);
        self.interval = (self.interval * 2).min(LONGEST_INTERVAL);
    }

    /// Closes the socket. The closer's thread holds the lock, so that at a fork each socket is closed,
    /// or in the state of the closer.
    fn close(mut self, err: Option<io::Error>) -> Lost {
        if let Some(socket) = self.socket.take() {
            sys::fork::close(socket, false);
        }
        Lost(self.tuple, err)
    }
}

/// A connection that is closed, and its error.
struct Lost(Option<FiveTuple>, Option<io::Error>);

impl Lost {
    /// The caller holds no lock, because a logger may call any function.
    fn log(self) {
        if let Lost(Some(tuple), Some(err)) = self {
            log::connection_lost(&tuple, Cause::ended(&err).kind());
        }
    }
}

#[derive(Default)]
struct State {
    pending: Slab<Pending>,
    due: BTreeSet<(Instant, usize)>,
    /// The keys that the thread has not registered yet.
    new_keys: Vec<usize>,
    /// `Some` while the thread runs.
    registry: Option<Arc<Registry>>,
    /// The greatest number of pending closes. Computed when the thread starts.
    max_pending: usize,
    /// The lowest descriptor number that is not accepted. Computed when the thread starts.
    first_reserved_fd: usize,
}

impl State {
    fn remove(&mut self, key: usize) -> Option<Pending> {
        let pending = self.pending.try_remove(key)?;
        self.due.remove(&(pending.due, key));
        if let (true, Some(registry), Some(socket)) = (sys::REARMS, &self.registry, &pending.socket)
        {
            registry.remove(sys::borrow(socket));
        }
        Some(pending)
    }

    /// Checks one socket, and closes it if its close is complete.
    fn check(&mut self, key: usize, buf: &mut [u8], again: &mut Vec<usize>) -> Option<Lost> {
        let pending = self.pending.get_mut(key)?;
        let before = pending.due;
        let next = pending.check(Instant::now(), buf);
        let after = pending.due;
        if before != after {
            self.due.remove(&(before, key));
            self.due.insert((after, key));
        }
        match next {
            NextAction::Wait => {
                if let (true, Some(registry), Some(socket)) =
                    (sys::REARMS, &self.registry, &pending.socket)
                {
                    // If it fails, the close timeout ends the connection.
                    let _ = registry.rearm(sys::borrow(socket), key, true, false);
                }
                None
            }
            NextAction::ReadAgain => {
                again.push(key);
                None
            }
            NextAction::Close(err) => Some(self.remove(key)?.close(err)),
        }
    }
}

#[derive(Default)]
struct Closer {
    state: Mutex<State>,
    /// The number of threads that fork and wait for the lock.
    forking: AtomicU32,
}

/// The closer of this process. A forked child starts without one: the thread of the parent does not
/// exist in the child, and may have held the lock.
static CLOSER: PerProcess<Closer> = PerProcess::new();

thread_local! {
    /// The lock, while this thread forks.
    static LOCKED: Cell<Option<ManuallyDrop<MutexGuard<'static, State>>>> = const { Cell::new(None) };
}

fn closer() -> &'static Closer {
    CLOSER.get_or_make(|| {
        sys::fork::at_fork(AtFork { before: lock, in_parent: unlock, in_child: leave_to_parent });
        Closer::default()
    })
}

/// Before a fork: takes the lock, so that the child finds every pending close. A thread holds the lock
/// for a short time, unless the fork interrupts this thread.
fn lock() {
    let Some(closer) = CLOSER.get() else {
        return;
    };
    closer.forking.fetch_add(1, Ordering::Relaxed);
    let state = sys::fork::lock_within(FORK_WAIT_MS, || closer.state.try_lock());
    closer.forking.fetch_sub(1, Ordering::Relaxed);
    if let Some(state) = state {
        LOCKED.set(Some(ManuallyDrop::new(state)));
    }
}

fn unlock() {
    drop(LOCKED.take().map(ManuallyDrop::into_inner));
}

/// In a forked child: closes the copies of the sockets that the parent is closing. Later no part of
/// the child would know them.
fn leave_to_parent() {
    let locked = LOCKED.take().map(ManuallyDrop::into_inner);
    let Some(closer) = CLOSER.forget() else {
        return;
    };
    if let Some(mut state) = locked.or_else(|| closer.state.try_lock().ok()) {
        for (_, pending) in &mut state.pending {
            drop(pending.socket.take());
        }
        state.registry = None;
    }
}

/// Completes the graceful close of a socket that has sent its FIN. Does not wait.
pub(crate) fn close_later(
    socket: Owned,
    until: Until,
    close_timeout: Duration,
    tuple: Option<FiveTuple>,
) {
    let now = Instant::now();
    let deadline = now.checked_add(close_timeout).unwrap_or(now + Duration::from_secs(86_400));
    let due = if until == Until::Delivered { now } else { deadline };
    let socket = Some(socket);
    let pending = Pending { socket, until, deadline, due, interval: FIRST_INTERVAL, tuple };
    if let Some(pending) = closer().add(pending) {
        pending.close(None).log();
    }
}

impl Closer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, for the thread of the closer, which locks again as soon as it has unlocked.
    fn lock_after_forks(&self) -> MutexGuard<'_, State> {
        if self.forking.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(FORK_PAUSE);
        }
        self.lock()
    }

    /// Adds a socket. Returns a socket, this one or an older one, that has to be closed immediately.
    fn add(&'static self, pending: Pending) -> Option<Pending> {
        // The program may free a socket in its own handler of pthread_atfork(3).
        let locked = LOCKED.take();
        let forks = locked.is_some();
        let mut state = locked.map_or_else(|| self.lock(), ManuallyDrop::into_inner);
        let rest = self.add_to(&mut state, pending);
        if forks {
            LOCKED.set(Some(ManuallyDrop::new(state)));
        }
        rest
    }

    fn add_to(&'static self, state: &mut State, pending: Pending) -> Option<Pending> {
        let number = pending.socket.as_ref().map_or(0, sys::number);
        if state.registry.is_none() && self.start(state, number).is_err()
            || number >= state.first_reserved_fd
        {
            return Some(pending);
        }
        let due = pending.due;
        let key = state.pending.insert(pending);
        state.due.insert((due, key));
        state.new_keys.push(key);
        if let (1, Some(registry)) = (state.new_keys.len(), &state.registry) {
            registry.wake();
        }
        let oldest = state.due.first().map(|(_, key)| *key);
        let full = state.pending.len() > state.max_pending;
        oldest.filter(|_| full).and_then(|key| state.remove(key))
    }

    fn start(&'static self, state: &mut State, number: usize) -> io::Result<()> {
        let limit = sys::descriptor_limit();
        state.max_pending = (limit / 8).min(MAX_PENDING);
        state.first_reserved_fd = limit - limit / 4;
        if limit < MIN_DESCRIPTOR_LIMIT || number >= state.first_reserved_fd {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (poller, registry) = Poller::new()?;
        let registry = Arc::new(registry);
        let for_thread = registry.clone();
        sys::spawn_without_signals(
            sys::sync::Builder::new().name("keepsock-close".to_owned()).stack_size(STACK),
            move || self.run(poller, &for_thread),
        )?;
        state.registry = Some(registry);
        Ok(())
    }

    /// The main function of the thread.
    fn run(&self, mut poller: Poller, registry: &Registry) {
        let mut buf = vec![0; CHUNK];
        let (mut again, mut lost) = (Vec::new(), Vec::new());
        let mut idle_since = None;
        loop {
            let now = Instant::now();
            let mut state = self.lock_after_forks();
            for key in std::mem::take(&mut state.new_keys) {
                let added = match state.pending.get(key).map(|p| (p.until, &p.socket)) {
                    // The kernel reports input that has already arrived.
                    Some((Until::Fin, Some(socket))) => {
                        registry.add(sys::borrow(socket), key, false)
                    }
                    _ => Ok(()),
                };
                if added.is_err() {
                    // Out of memory: the poller would not report the peer's FIN.
                    drop(state.remove(key).map(|pending| pending.close(None)));
                }
            }
            let over = state.due.range(..=(now, usize::MAX)).map(|(_, key)| *key);
            for key in over.chain(std::mem::take(&mut again)).collect::<Vec<_>>() {
                lost.extend(state.check(key, &mut buf, &mut again));
            }
            let next = match state.due.first() {
                Some((due, _)) => {
                    idle_since = None;
                    *due
                }
                None => *idle_since.get_or_insert(now) + LINGER,
            };
            if state.pending.is_empty() && lost.is_empty() && next <= now {
                state.registry = None;
                return;
            }
            drop(state);
            lost.drain(..).for_each(Lost::log);
            let timeout = next.saturating_duration_since(Instant::now());
            let timeout = if again.is_empty() { timeout } else { Duration::ZERO };
            if poller.wait(Some(timeout)).is_err() {
                // The only cause is that the kernel is out of memory.
                std::thread::sleep(LONGEST_INTERVAL);
            }
            for occurred in poller.occurred() {
                lost.extend(self.lock_after_forks().check(occurred.key, &mut buf, &mut again));
            }
            lost.drain(..).for_each(Lost::log);
        }
    }
}
