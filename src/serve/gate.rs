//! Who is in, and whether the service goes on: what both ways of serving share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::info::Address;
use crate::serve::limits::{Crowd, Limits, Refusal};
use crate::serve::{Drained, WhenFull};
use crate::server::ServerSocket;
use crate::wait::{Deadline, wait_on};

/// The place where connections come in and leave, and where others wait for that. `X` is what a
/// way of serving keeps under the same lock.
pub(super) struct Gate<X> {
    pub server: ServerSocket,
    pub limits: Limits,
    pub born: Instant,
    handing_over: Mutex<()>,
    state: Mutex<State<X>>,
    /// A connection left, or accepting ended, or what a way of serving tells of.
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State<X> {
    /// Connections that are served.
    pub live: u32,
    /// All that ever were.
    pub opened: u64,
    crowd: Crowd,
    /// No more is accepted.
    pub stopped: bool,
    /// Why accepting ended, unless it was asked to.
    failure: Option<Error>,
    pub draining: bool,
    /// What was still live has been cut: no connection may begin any more, not even one that
    /// was accepted just before.
    pub over: bool,
    /// Since draining began and until its deadline.
    finished: u32,
    /// How many threads wait for `changed`.
    awaited: usize,
    pub own: X,
}

impl<X> Gate<X> {
    pub(super) fn new(server: &ServerSocket, limits: Limits, own: X) -> Gate<X> {
        let state = State {
            live: 0,
            opened: 0,
            crowd: Crowd::default(),
            stopped: false,
            failure: None,
            draining: false,
            over: false,
            finished: 0,
            awaited: 0,
            own,
        };
        Gate {
            server: server.clone(),
            limits,
            born: Instant::now(),
            handing_over: Mutex::new(()),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// While the guard lives the service is on its way to the program, whose callbacks may want it:
    /// those that serve [wait](Gate::handed_over) until it is there.
    pub(super) fn hand_over(&self) -> MutexGuard<'_, ()> {
        self.handing_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handed_over(&self) {
        drop(self.hand_over());
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State<X>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State<X>>,
        deadline: Deadline,
    ) -> MutexGuard<'a, State<X>> {
        state.awaited += 1;
        let mut state = wait_on(&self.changed, state, deadline);
        state.awaited -= 1;
        state
    }

    /// Wakes those that wait. A notification costs a system call even when nobody does.
    pub(super) fn tell(&self, state: MutexGuard<'_, State<X>>) {
        let awaited = state.awaited > 0;
        drop(state);
        if awaited {
            self.changed.notify_all();
        }
    }

    /// Lets a connection in, or says why not; the refusal is the caller's to count.
    pub(super) fn admit(
        &self,
        state: &mut State<X>,
        peer: &Address,
    ) -> std::result::Result<(), Refusal> {
        self.limits.admit(peer, state.live, &mut state.crowd)?;
        self.let_in(state);
        Ok(())
    }

    /// Lets in what the program itself has made.
    pub(super) fn let_in(&self, state: &mut State<X>) {
        state.live += 1;
        state.opened += 1;
    }

    /// Whether the next one would have to wait.
    pub(super) fn is_full(&self, state: &State<X>) -> bool {
        self.limits.when_full == WhenFull::Wait && state.live >= self.limits.connections
    }

    /// A connection has left. `peer`: one that was let in by [`admit`](Gate::admit).
    pub(super) fn dismiss(&self, state: &mut State<X>, peer: Option<&Address>) {
        if let (Some(peer), Some(_)) = (peer, self.limits.per_address) {
            state.crowd.leave(peer);
        }
        state.live -= 1;
        if state.draining {
            state.finished += 1;
        }
    }

    /// Closes the server socket. Live connections go on.
    pub(super) fn stop(&self) {
        self.server.close();
        self.accepting_ended(None);
    }

    pub(super) fn accepting_ended(&self, failure: Option<Error>) {
        let why = failure.as_ref().map(Error::to_string);
        let mut state = self.lock();
        let is_news = !std::mem::replace(&mut state.stopped, true);
        state.failure = failure.or(state.failure.take());
        drop(state);
        self.changed.notify_all();
        if let Some(why) = why.filter(|_| is_news) {
            events::accepting_failed(&why);
        }
    }

    /// Waits until accepting has ended.
    pub(super) fn wait_stopped(&self, timeout: Option<Duration>) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let mut state = self.lock();
        while !state.stopped {
            if deadline.has_passed() {
                return Err(self.error(ErrorKind::TimedOut, "wait"));
            }
            state = self.wait(state, deadline);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    /// Of a service that was stopped: waits until all connections have left by themselves; how many
    /// have not.
    pub(super) fn finish(&self, limit: Duration, accepting: impl Fn(&State<X>) -> bool) -> u32 {
        self.wait_left(self.lock(), Deadline::after(Some(limit)), accepting).live
    }

    /// Waits until nobody is there any more, and nobody comes: whoever was accepted a moment
    /// before the end of that is about to come in.
    fn wait_left<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<X>>,
        deadline: Deadline,
        accepting: impl Fn(&State<X>) -> bool,
    ) -> MutexGuard<'a, State<X>> {
        while (state.live > 0 || accepting(&state)) && !deadline.has_passed() {
            state = self.wait(state, deadline);
        }
        state
    }

    /// Stops, has each live connection told, waits until they have left, and has the rest cut.
    /// `accepting`: whether somebody may have accepted one that did not come in yet.
    pub(super) fn drain(
        &self,
        limit: Duration,
        accepting: impl Fn(&State<X>) -> bool,
        tell: impl FnOnce(&mut State<X>),
        cut: impl FnOnce(&mut State<X>),
    ) -> Drained {
        let since = Instant::now();
        let endpoint = self.server.endpoint();
        // A logger may call anything: not under the lock.
        let live = self.lock().live;
        events::drain_begun(endpoint, live, limit);
        self.stop();
        let deadline = Deadline::after(Some(limit));
        let mut state = self.lock();
        state.draining = true;
        state.finished = 0;
        tell(&mut state);
        state = self.wait_left(state, deadline, accepting);
        let drained = Drained { finished: state.finished, cut: state.live };
        state.over = true;
        cut(&mut state);
        drop(state);
        events::drain_ended(endpoint, drained, since);
        drained
    }

    pub(super) fn error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        Error::new(kind, operation).at(self.server.endpoint())
    }
}
