//! The state of a stream service, from its start to its end, for both serving modes.

use std::mem;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::io::condition::wait_on;
use crate::io::deadline::Deadline;
use crate::io::token_slot::ServiceUse;
use crate::listener::{Rejection, ServerSocket};
use crate::log;
use crate::serve::admission::{AdmissionPolicy, PerAddressCount};
use crate::serve::threads::ServiceThreads;
use crate::serve::{AcceptPolicy, Drained};
use crate::sys;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::types::address::Address;
use crate::types::error::{Error, ErrorKind, Result};

/// The operations of a serving mode that stopping, draining and ending a service use.
pub(super) trait Backend {
    /// The part of the mode's state that the lock of [`ServiceState`] protects.
    type Members;

    fn state(&self) -> &ServiceState<Self::Members>;

    /// Whether a connection that was accepted before accepting stopped may still be admitted.
    fn is_admitting(members: &Self::Members) -> bool;

    /// Whether a thread may still take a connection from the server socket after accepting stopped
    /// because of the cancel token. The token does not wake all threads at the same time.
    fn is_accepting(_: &Self::Members) -> bool {
        false
    }

    /// Notifies each live connection, and each one admitted from now on, that the service
    /// drains. `timeout` is the time until [`end_connections`](Backend::end_connections).
    fn notify_draining(&self, members: &mut Self::Members, timeout: Duration);

    /// Ends each live connection. [`Locked::ended`] is already set. A connection that is being
    /// closed, and whose peer has received everything, is closed. All others are reset.
    fn end_connections(&self, members: &mut Self::Members);

    /// Lets the threads of the service end as soon as no connection is left.
    fn end_when_empty(&self) {}

    /// Closes this process's copies of the connections' descriptors, in a forked child.
    fn close_copies(&self);

    /// Pauses accepting, or resumes it.
    fn set_accept_paused(&self, paused: bool) -> Result<()> {
        let state = self.state();
        let operation = if paused { "pause accepting" } else { "resume accepting" };
        state.require_own_process(operation)?;
        let locked = state.lock();
        if locked.stopped {
            drop(locked);
            return Err(state.error(ErrorKind::Closed, operation));
        }
        state.accept_paused.store(paused, Ordering::SeqCst);
        state.notify(locked, true);
        self.accept_pause_changed();
        Ok(())
    }

    /// Lets the thread that accepts notice a pause or its end.
    fn accept_pause_changed(&self) {}

    /// Stops accepting, and closes the server socket. Live connections continue.
    fn stop(&self) {
        self.state().stop();
    }

    /// Waits until accepting has stopped. Afterwards the service takes no connection from the server
    /// socket: the program may accept, or start another service.
    fn wait_stopped(&self, timeout: Option<Duration>) -> Result<()> {
        const OPERATION: &str = "wait until stopped";
        let state = self.state();
        state.require_own_process(OPERATION)?;
        let deadline = Deadline::after(timeout);
        let mut locked = state.lock();
        // After an error the other threads of the service may stay in accept(2).
        while !locked.stopped || (locked.failure.is_none() && Self::is_accepting(&locked.members)) {
            if deadline.has_passed() {
                return Err(state.error(ErrorKind::TimedOut, OPERATION));
            }
            locked = wait_on(&state.stopped, locked, deadline);
        }
        locked.failure.clone().map_or(Ok(()), Err)
    }

    /// Waits until accepting has stopped, and no connection and no task is left.
    fn wait_ended(&self, timeout: Option<Duration>) -> Result<()> {
        const OPERATION: &str = "wait";
        let state = self.state();
        state.require_outside(OPERATION)?;
        let deadline = Deadline::after(timeout);
        let mut locked = state.lock();
        while !locked.stopped || !locked.is_idle() || Self::is_admitting(&locked.members) {
            if deadline.has_passed() {
                return Err(state.error(ErrorKind::TimedOut, OPERATION));
            }
            locked = state.wait(locked, deadline);
        }
        locked.failure.clone().map_or(Ok(()), Err)
    }

    /// Stops accepting, notifies the connections, waits until they have ended, and ends the
    /// connections that are left after `timeout`. Returns after the last callback of each
    /// connection.
    fn drain(&self, timeout: Duration) -> Result<Drained> {
        let state = self.state();
        state.require_outside("drain")?;
        let since = Instant::now();
        let endpoint = state.server.endpoint();
        // The program's logger may call any function of this library, so no lock is held here.
        let live = state.lock().live;
        log::drain_started(endpoint, live, timeout);
        self.stop();
        let deadline = Deadline::after(Some(timeout));
        let mut locked = state.lock();
        locked.draining = true;
        self.notify_draining(&mut locked.members, timeout);
        let is_admitting = |locked: &Locked<_>| Self::is_admitting(&locked.members);
        while (locked.live > 0 || is_admitting(&locked)) && !deadline.has_passed() {
            locked = state.wait(locked, deadline);
        }
        locked.ended = true;
        self.end_connections(&mut locked.members);
        while !locked.is_idle() || locked.in_timer || is_admitting(&locked) {
            locked = state.wait(locked, Deadline(None));
        }
        let result = Drained { completed: locked.completed, reset: locked.reset };
        drop(locked);
        log::drain_ended(endpoint, result.completed, result.reset, since);
        Ok(result)
    }

    /// Stops accepting, resets the connections that are left, and waits for the threads, unless
    /// the calling thread is one of them. A forked child only closes its descriptors.
    fn shut_down(&self) {
        let state = self.state();
        if state.threads.is_inherited() {
            state.server.close_copies();
            return self.close_copies();
        }
        self.stop();
        self.end_when_empty();
        let mut locked = state.lock();
        locked.ended = true;
        self.end_connections(&mut locked.members);
        drop(locked);
        if !state.threads.is_current() {
            state.threads.join();
        }
    }
}

/// How a connection has left its service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Reset,
    /// The program continues the connection.
    Detached,
}

/// The state that both serving modes share. `M` is [`Backend::Members`].
pub(super) struct ServiceState<M> {
    pub server: ServerSocket,
    /// The use of the server socket, until accepting ends.
    pub usage: ServiceUse,
    pub admission: AdmissionPolicy,
    pub started_at: Instant,
    pub threads: ServiceThreads,
    /// The program has paused accepting.
    accept_paused: AtomicBool,
    locked: Mutex<Locked<M>>,
    /// Signaled when accepting stops. The main thread of most programs waits for this, so it has
    /// its own condition variable: a connection that opens or closes does not wake that thread.
    stopped: Condvar,
    /// Signaled by [`notify`](ServiceState::notify), and when accepting stops.
    changed: Condvar,
}

/// The part of [`ServiceState`] that its lock protects.
#[derive(Debug, Default)]
pub(super) struct Locked<M> {
    /// The number of connections being served.
    pub live: u32,
    /// With event loops: the number of connects in progress and of posted functions that have not
    /// returned.
    pub tasks: usize,
    /// With event loops: the function of a timer is called. No call begins after `ended` was set.
    pub in_timer: bool,
    /// The number of connections served since the start.
    pub opened: u64,
    per_address: PerAddressCount,
    /// Accepting has stopped.
    pub stopped: bool,
    /// The error that stopped accepting.
    failure: Option<Error>,
    pub draining: bool,
    /// The service has reset its connections. It admits no more, including connections that
    /// were already accepted.
    pub ended: bool,
    /// The number of connections that ended in order since the first drain began.
    completed: u32,
    /// The number of connections that were reset since the first drain began.
    reset: u32,
    /// The number of threads that wait for `changed`.
    waiting: usize,
    pub members: M,
}

impl<M> Locked<M> {
    /// Whether no connection and no task is left.
    pub(super) fn is_idle(&self) -> bool {
        self.live == 0 && self.tasks == 0
    }

    /// Whether the threads that wait for the end of the service have to check it.
    pub(super) fn may_have_ended(&self) -> bool {
        self.stopped && self.is_idle()
    }
}

impl<M> ServiceState<M> {
    /// Begins to use the server socket. The caller then checks that the socket is open.
    pub(super) fn new(
        server: &ServerSocket,
        admission: AdmissionPolicy,
        threads: ServiceThreads,
        members: M,
    ) -> ServiceState<M> {
        let locked = Locked {
            live: 0,
            tasks: 0,
            in_timer: false,
            opened: 0,
            per_address: PerAddressCount::default(),
            stopped: false,
            failure: None,
            draining: false,
            ended: false,
            completed: 0,
            reset: 0,
            waiting: 0,
            members,
        };
        ServiceState {
            server: server.clone(),
            usage: server.begin_service(),
            admission,
            started_at: Instant::now(),
            threads,
            accept_paused: AtomicBool::new(false),
            locked: Mutex::new(locked),
            stopped: Condvar::new(),
            changed: Condvar::new(),
        }
    }

    /// Whether the program has paused accepting.
    pub(super) fn is_accept_paused(&self) -> bool {
        self.accept_paused.load(Ordering::SeqCst)
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Locked<M>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state in a forked child. Returns `None` if a thread of the parent held the lock
    /// at the time of the fork.
    pub(super) fn lock_inherited(&self) -> Option<MutexGuard<'_, Locked<M>>> {
        sys::fork::lock_inherited(&self.locked)
    }

    /// Waits for a change that [`notify`](ServiceState::notify) reports, for the end of
    /// accepting, or for the deadline.
    pub(super) fn wait<'a>(
        &self,
        mut locked: MutexGuard<'a, Locked<M>>,
        deadline: Deadline,
    ) -> MutexGuard<'a, Locked<M>> {
        locked.waiting += 1;
        let mut locked = wait_on(&self.changed, locked, deadline);
        locked.waiting -= 1;
        locked
    }

    /// Releases the lock, and wakes the threads in [`wait`](ServiceState::wait) if the change
    /// is `relevant` to them. Without a waiting thread it makes no system call.
    pub(super) fn notify(&self, locked: MutexGuard<'_, Locked<M>>, relevant: bool) {
        let waiting = locked.waiting > 0;
        drop(locked);
        if waiting && relevant {
            self.changed.notify_all();
        }
    }

    /// Admits an accepted connection, or returns why it is rejected. The caller counts the
    /// rejection.
    pub(super) fn admit(
        &self,
        locked: &mut Locked<M>,
        peer: &Address,
    ) -> std::result::Result<(), Rejection> {
        self.admission.admit(peer, locked.live, &mut locked.per_address)?;
        self.count_opened(locked);
        Ok(())
    }

    /// Admits an accepted connection whose address is not known before its PROXY header.
    pub(super) fn admit_unknown(
        &self,
        locked: &mut Locked<M>,
    ) -> std::result::Result<(), Rejection> {
        if locked.live >= self.admission.max_connections {
            return Err(Rejection::Full);
        }
        self.count_opened(locked);
        Ok(())
    }

    /// Checks the address of a connection that [`admit_unknown`](ServiceState::admit_unknown) has
    /// admitted.
    pub(super) fn admit_address(
        &self,
        locked: &mut Locked<M>,
        peer: &Address,
    ) -> std::result::Result<(), Rejection> {
        self.admission.admit_address(peer, &mut locked.per_address)
    }

    /// Counts a connection that the program made, without the checks of
    /// [`admit`](ServiceState::admit).
    pub(super) fn count_opened(&self, locked: &mut Locked<M>) {
        locked.live += 1;
        locked.opened += 1;
    }

    /// Whether the next connection has to wait in the listen queue.
    pub(super) fn is_full(&self, locked: &Locked<M>) -> bool {
        self.admission.accept_policy == AcceptPolicy::Wait
            && locked.live >= self.admission.max_connections
    }

    /// Counts a connection that has ended. `peer` is the address of a connection that
    /// [`admit`](ServiceState::admit) admitted.
    pub(super) fn count_closed(&self, locked: &mut Locked<M>, peer: Option<&Address>, end: End) {
        if let (Some(peer), Some(_)) = (peer, self.admission.max_per_address) {
            locked.per_address.remove(peer);
        }
        locked.live -= 1;
        if locked.draining {
            match end {
                End::Reset => locked.reset += 1,
                End::Completed => locked.completed += 1,
                End::Detached => {}
            }
        }
    }

    /// Closes the server socket. Live connections continue.
    pub(super) fn stop(&self) {
        self.server.close();
        self.accepting_ended(self.lock(), None, true);
    }

    /// Records that accepting has stopped, and the error if one stopped it. `ends_use`: the service
    /// takes no further connection from the server socket.
    pub(super) fn accepting_ended(
        &self,
        mut locked: MutexGuard<'_, Locked<M>>,
        failure: Option<Error>,
        ends_use: bool,
    ) {
        let cause = failure.as_ref().map(Error::to_string);
        if ends_use {
            self.usage.end();
        }
        let is_first = !mem::replace(&mut locked.stopped, true);
        locked.failure = failure.or(locked.failure.take());
        drop(locked);
        self.stopped.notify_all();
        self.changed.notify_all();
        if let Some(cause) = cause.filter(|_| is_first) {
            log::accepting_failed(&cause);
        }
    }

    /// Rejects a call that waits for the threads of the service, in one of these threads: the call
    /// would wait for its own thread.
    fn require_outside(&self, operation: &'static str) -> Result<()> {
        if self.threads.is_current() {
            let error = self.error(ErrorKind::WrongState, operation);
            return Err(error.detail("called from inside a handler or callback, which it would wait for: call it from another thread"));
        }
        self.require_own_process(operation)
    }

    /// Rejects a call in a forked child: the threads of the service exist in the parent only, so the
    /// call would wait forever, or have no effect.
    #[inline]
    pub(super) fn require_own_process(&self, operation: &'static str) -> Result<()> {
        if self.threads.is_inherited() { Err(self.other_process(operation)) } else { Ok(()) }
    }

    #[cold]
    fn other_process(&self, operation: &'static str) -> Error {
        let error = self.error(ErrorKind::WrongState, operation);
        error.detail("the service runs in the parent process: call it there")
    }

    pub(super) fn error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        self.locate(Error::new(kind, operation))
    }

    /// Adds the endpoint of the server to an error.
    pub(super) fn locate(&self, error: Error) -> Error {
        error.at(self.server.endpoint())
    }
}
