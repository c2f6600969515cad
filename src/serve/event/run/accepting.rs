//! Accepting: by one loop, for all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;

use super::super::{Events, Origin, steps};
use super::{LISTENERS, LISTENERS_END, Loop, TOKEN};
use crate::cancel::CancelToken;
use crate::error::Error;
use crate::info::Address;
use crate::serve::Refusal;
use crate::server::{AcceptNow, Listener, OUT_OF_DESCRIPTORS};
use crate::sys::{self, Owned};

/// How many connections are accepted in a row before others have their turn.
const BURST: usize = 64;

/// Whether the loop accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    Yes,
    /// Every place is taken: until a connection ends.
    Full,
    /// Descriptors or memory are used up: until then, or a connection ends.
    Exhausted(u64),
}

impl<'a> Loop<'a> {
    pub(super) fn begin_accepting(&mut self, token: Option<&CancelToken>) {
        let events: &'a Events = self.events;
        let listeners = events.gate.server.listeners();
        // A listener that was closed already has nothing to wait for.
        self.listeners = listeners.iter().filter_map(|l| Some((l, l.hold()?))).collect();
        if self.listeners.len() < listeners.len() {
            return self.accepting_ended(None);
        }
        let registry = &events.loops[0].registry;
        if let Some(token) = token {
            if let Err(e) = registry.add_event(token.event(), TOKEN) {
                return self.accepting_ended(Some(Error::os("accept", &e)));
            }
        }
        if let Some(closing) = events.gate.server.closing() {
            if let Err(e) = registry.add_event(closing, LISTENERS_END) {
                return self.accepting_ended(Some(Error::os("accept", &e)));
            }
        }
        for (number, (_, held)) in self.listeners.iter().enumerate() {
            if let Err(e) = registry.add_listener(held.socket(), LISTENERS + number) {
                return self.accepting_ended(Some(Error::os("accept", &e)));
            }
        }
    }

    pub(super) fn watch_listeners(&mut self) {
        let registry = &self.events.loops[0].registry;
        for (number, (_, held)) in self.listeners.iter().enumerate() {
            if registry.listen(held.socket(), LISTENERS + number, true).is_err() {
                // The system lacks memory for it, and may have it later.
                self.now = self.events.now();
                let until = self.now.saturating_add(steps(self.back_off.next()));
                return self.pause_listeners(Accepting::Exhausted(until));
            }
        }
        self.accepting = Accepting::Yes;
    }

    /// The kernel would tell again and again of connections that cannot be accepted.
    fn pause_listeners(&mut self, until: Accepting) {
        let registry = &self.events.loops[0].registry;
        for (number, (_, held)) in self.listeners.iter().enumerate() {
            // It fails where there is nothing to pause.
            let _ = registry.listen(held.socket(), LISTENERS + number, false);
        }
        self.accepting = until;
    }

    pub(super) fn accepting_ended(&mut self, failure: Option<Error>) {
        let registry = &self.events.loops[0].registry;
        for (_, held) in self.listeners.drain(..) {
            registry.remove(held.socket());
        }
        self.accepting = Accepting::Yes;
        self.nobody_comes();
        self.events.gate.accepting_ended(failure);
    }

    /// Tells those that wait for the end that nobody will come any more, if that is so: one that
    /// was accepted before may still wait for its place.
    fn nobody_comes(&mut self) {
        if self.listeners.is_empty() && self.waiting.is_none() {
            let mut state = self.events.gate.lock();
            state.own.accepts = false;
            self.events.gate.tell(state);
        }
    }

    /// Accepts one, or, where wake-ups for it follow each other, some more.
    pub(super) fn accept(&mut self, number: usize) {
        let Some((listener, _)) = self.listeners.get(number) else {
            return;
        };
        let listener: &'a Listener = listener;
        if listener.is_closed() {
            return self.accepting_ended(None);
        }
        self.accepted.0 = true;
        self.burst = if self.accepted.1 { (self.burst * 2).min(BURST) } else { 1 };
        let burst = if sys::LISTENERS_STAY_READY { self.burst } else { usize::MAX };
        for _ in 0..burst {
            if self.events.added.load(Ordering::Relaxed) && self.is_full() {
                self.pause_listeners(Accepting::Full);
            }
            if self.accepting != Accepting::Yes {
                return;
            }
            match listener.accept_now() {
                AcceptNow::Accepted(socket, peer) => {
                    self.back_off = OUT_OF_DESCRIPTORS;
                    self.begin(socket, &peer, listener);
                }
                AcceptNow::Nobody => {
                    self.accepted.0 = false;
                    return;
                }
                AcceptNow::Exhausted(err) => {
                    listener.count_exhausted(&err);
                    self.now = self.events.now();
                    let until = self.now.saturating_add(steps(self.back_off.next()));
                    return self.pause_listeners(Accepting::Exhausted(until));
                }
                AcceptNow::Closed => return self.accepting_ended(None),
                AcceptNow::Failed(cause) => {
                    return self.accepting_ended(Some(listener.failed(cause)));
                }
            }
        }
    }

    /// Whether the next one would have to wait; then whoever leaves says so.
    fn is_full(&self) -> bool {
        let mut state = self.events.gate.lock();
        let full = self.events.gate.is_full(&state);
        state.own.full |= full;
        full
    }

    /// Goes on accepting: there is room again. Or the server was closed meanwhile.
    pub(super) fn accept_again(&mut self) {
        if self.listeners.iter().any(|(listener, _)| listener.is_closed()) {
            self.accepting_ended(None);
        } else if self.accepting == Accepting::Full {
            self.watch_listeners();
        }
        if self.waiting.is_some() && !self.is_full() {
            if let Some((socket, peer, listener)) = self.waiting.take() {
                self.begin(socket, &peer, listener);
            }
            self.nobody_comes();
        }
    }

    /// Begins with an accepted connection, or refuses it.
    fn begin(&mut self, socket: Owned, peer: &Address, listener: &'a Listener) {
        let events = self.events;
        if !events.gate.server.has_accepted(listener, &socket, peer) {
            return;
        }
        let refuse = |socket: Owned| {
            let _ = SockRef::from(&sys::borrow(&socket)).set_linger(Some(Duration::ZERO));
        };
        let mut state = events.gate.lock();
        if state.over {
            drop(state);
            return refuse(socket);
        }
        if let Err(refusal) = events.gate.admit(&mut state, peer) {
            if refusal == Refusal::Full && events.gate.is_full(&state) {
                // One that was added meanwhile has the last place: this one waits here.
                state.own.full = true;
                drop(state);
                self.waiting = Some((socket, peer.clone(), listener));
                return self.pause_listeners(Accepting::Full);
            }
            drop(state);
            listener.count_refusal(refusal, peer);
            return refuse(socket);
        }
        let (index, number) = state.own.take();
        let full = events.gate.is_full(&state);
        state.own.full = full;
        drop(state);
        if full {
            self.pause_listeners(Accepting::Full);
        }
        events.place(index, number, socket, peer, Origin::Accepted);
        if number == self.number {
            self.settle(index);
        }
    }
}
