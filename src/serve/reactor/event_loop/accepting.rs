//! Accepting connections, by one loop for all.

use std::io;

use super::super::ReactorService;
use super::super::clock::steps;
use super::super::conn_table::Origin;
use super::{LISTENERS, LISTENERS_END, Loop, TOKEN};
use crate::io::cancel::CancelToken;
use crate::listener::{Listener, OUT_OF_DESCRIPTORS, Rejection, ServerSocket, TryAccept};
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Owned};
use crate::types::address::Address;
use crate::types::error::{Error, ErrorKind, Result};

/// The maximum number of connections accepted before other events are handled.
const BURST: usize = 64;

/// Whether the loop accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    Yes,
    /// The service is full. Accepting resumes when a connection ends.
    Full,
    /// No descriptors or memory are left. Accepting resumes at this time, or when a connection
    /// ends.
    Exhausted(u64),
    /// The program has paused accepting.
    Paused,
}

/// Registers the listeners, the cancel token and the close event with the accepting loop. Called
/// before the threads start, so that serving returns the error.
pub(in crate::serve::reactor) fn watch(service: &ReactorService) -> Result<Watched> {
    const OPERATION: &str = "serve";
    let server = &service.state.server;
    let failed = |e: io::Error| Error::os(OPERATION, &e).at(server.endpoint());
    let registry = &service.loops[service.acceptor].registry;
    if let Some(event) = service.state.usage.token.as_ref().and_then(CancelToken::own_event) {
        registry.add_event(event, TOKEN).map_err(failed)?;
    }
    if let Some(closing) = server.close_event() {
        registry.add_event(closing, LISTENERS_END).map_err(failed)?;
    }
    let mut watched = Watched { server: server.clone(), count: 0 };
    for (number, listener) in server.listeners().iter().enumerate() {
        let closed = || Error::new(ErrorKind::Closed, OPERATION).at(server.endpoint());
        let held = listener.hold().ok_or_else(closed)?;
        registry.add_listener(held.socket(), LISTENERS + number).map_err(failed)?;
        held.suspend();
        watched.count += 1;
    }
    Ok(watched)
}

/// The listeners that [`watch`] has registered. They stay open until the accepting loop begins, also
/// after a close: if another process has the listener, a registration outlives the descriptor, and only
/// the descriptor removes it.
pub(in crate::serve::reactor) struct Watched {
    server: ServerSocket,
    count: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.server.listeners().iter().take(self.count).for_each(|l| drop(l.resume_hold()));
    }
}

impl<'a> Loop<'a> {
    /// Starts accepting from the listeners that [`watch`] has registered.
    pub(super) fn begin_accepting(&mut self, mut watched: Watched) {
        let service: &'a ReactorService = self.service;
        watched.count = 0;
        let listeners = service.state.server.listeners().iter();
        self.listeners = listeners.map(|listener| (listener, listener.resume_hold())).collect();
        if self.listeners.iter().any(|(listener, _)| listener.is_closed()) {
            self.accepting_ended(None);
        }
    }

    pub(super) fn watch_listeners(&mut self) {
        if self.is_accept_paused() {
            return self.pause_listeners(Accepting::Paused);
        }
        let registry = &self.shared().registry;
        for (number, (_, held)) in self.listeners.iter().enumerate() {
            if registry.listen(held.socket(), LISTENERS + number, true).is_err() {
                // The kernel has no memory now, and may have some later.
                return self.pause_accepting();
            }
        }
        self.accepting = Accepting::Yes;
    }

    fn is_accept_paused(&self) -> bool {
        self.service.state.is_accept_paused()
    }

    /// Stops waiting for listeners. The poller would report again and again connections that cannot
    /// be accepted.
    fn pause_listeners(&mut self, until: Accepting) {
        let registry = &self.shared().registry;
        for (number, (_, held)) in self.listeners.iter().enumerate() {
            // Fails if the listener is not registered; then nothing needs to be done.
            let _ = registry.listen(held.socket(), LISTENERS + number, false);
        }
        self.accepting = until;
    }

    /// Stops accepting until the backoff has passed, because descriptors or memory are used up.
    fn pause_accepting(&mut self) {
        self.now = self.service.now();
        let until = self.now.saturating_add(steps(self.backoff.next()));
        self.pause_listeners(Accepting::Exhausted(until));
    }

    /// Accepts again after [`pause_accepting`](Loop::pause_accepting). A connection for which there
    /// was no memory comes first.
    pub(super) fn retry_accepting(&mut self) {
        self.accepting = Accepting::Yes;
        if let Some((socket, peer, listener)) = self.waiting.take() {
            self.open_accepted(socket, &peer, listener);
            self.report_accepting_done();
        }
        if self.accepting == Accepting::Yes {
            self.watch_listeners();
        }
    }

    pub(super) fn accepting_ended(&mut self, failure: Option<Error>) {
        let registry = &self.shared().registry;
        for (_, held) in self.listeners.drain(..) {
            registry.remove(held.socket());
        }
        self.accepting = Accepting::Yes;
        self.end_headers();
        self.report_accepting_done();
        let state = &self.service.state;
        state.accepting_ended(state.lock(), failure, true);
        self.service.end_reconnects();
    }

    /// Notifies the threads that wait for the end of the service, once no further connection can be
    /// admitted. A connection that was accepted before may still wait to be admitted.
    fn report_accepting_done(&mut self) {
        if self.listeners.is_empty() && self.waiting.is_none() {
            let mut locked = self.service.state.lock();
            locked.members.accepts = false;
            self.service.state.notify(locked, true);
        }
    }

    /// Accepts from a listener that is ready.
    pub(super) fn on_listener_event(&mut self, number: usize, ended: bool) {
        let paused = self.accepting != Accepting::Yes;
        if let Some((listener, held)) = self.listeners.get(number) {
            if paused && ended && !listener.is_closed() {
                // Another process has shut the listener down. Linux reports that at every wait,
                // also while the listener is paused. The next accept finds it.
                return self.shared().registry.remove(held.socket());
            }
        }
        self.accept(number);
    }

    /// Accepts one connection, or several if consecutive wake-ups were for accepting.
    fn accept(&mut self, number: usize) {
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
            if self.accepting == Accepting::Yes && self.is_accept_paused() {
                self.pause_listeners(Accepting::Paused);
            }
            if self.service.added.load(Ordering::Relaxed) && self.is_full() {
                self.pause_listeners(Accepting::Full);
            }
            if self.accepting != Accepting::Yes {
                return;
            }
            match listener.try_accept() {
                TryAccept::Accepted(socket, peer) => {
                    self.backoff = OUT_OF_DESCRIPTORS;
                    self.open_accepted(socket, &peer, listener);
                }
                TryAccept::WouldBlock => {
                    self.accepted.0 = false;
                    return;
                }
                TryAccept::Exhausted(err) => {
                    listener.count_exhausted(&err);
                    return self.pause_accepting();
                }
                TryAccept::KeepsFailing(_) => return self.pause_accepting(),
                TryAccept::Closed => return self.accepting_ended(None),
                TryAccept::Fatal(cause) => {
                    return self.accepting_ended(Some(listener.accept_error(cause)));
                }
            }
        }
    }

    /// Whether the service is full. If so, the next connection that ends posts `CMD_ACCEPT`.
    fn is_full(&self) -> bool {
        let mut locked = self.service.state.lock();
        let full = self.service.state.is_full(&locked);
        locked.members.full |= full;
        full
    }

    /// Resumes accepting after a connection has ended, or ends it if the server socket was closed.
    pub(super) fn resume_accepting(&mut self) {
        if self.listeners.iter().any(|(listener, _)| listener.is_closed()) {
            self.accepting_ended(None);
        } else {
            match self.accepting {
                Accepting::Paused => self.watch_listeners(),
                Accepting::Full if !self.is_full() => self.watch_listeners(),
                Accepting::Yes if self.is_accept_paused() => {
                    self.pause_listeners(Accepting::Paused);
                }
                _ => {}
            }
        }
        self.release_headers();
        if self.waiting.is_some() && !self.is_full() {
            if let Some((socket, peer, listener)) = self.waiting.take() {
                self.open_accepted(socket, &peer, listener);
            }
            self.report_accepting_done();
        }
    }

    /// Opens an accepted connection, or rejects it.
    fn open_accepted(&mut self, socket: Owned, peer: &Address, listener: &'a Listener) {
        let service = self.service;
        let server = &service.state.server;
        if !server.admit(listener, &socket, peer)
            || !server.configure_accepted(listener, &socket, peer)
        {
            return;
        }
        let reset = |socket: Owned| sys::fork::close(socket, true);
        let expects_header = self.headers.expects(peer);
        let mut locked = service.state.lock();
        if locked.ended {
            drop(locked);
            return reset(socket);
        }
        let Some((index, number)) = service.alloc_slot(&mut locked.members) else {
            drop(locked);
            listener.count_exhausted(&io::ErrorKind::OutOfMemory.into());
            self.waiting = Some((socket, peer.clone(), listener));
            return self.pause_accepting();
        };
        let admitted = match expects_header {
            true => service.state.admit_unknown(&mut locked),
            false => service.state.admit(&mut locked, peer),
        };
        if let Err(rejection) = admitted {
            locked.members.free(index, number, true);
            if rejection == Rejection::Full && service.state.is_full(&locked) {
                // A connection that the program added has taken the last place, so this one waits
                // here.
                locked.members.full = true;
                drop(locked);
                self.waiting = Some((socket, peer.clone(), listener));
                return self.pause_listeners(Accepting::Full);
            }
            drop(locked);
            listener.count_rejection(rejection, peer);
            return reset(socket);
        }
        let full = service.state.is_full(&locked);
        locked.members.full = full;
        drop(locked);
        if full {
            self.pause_listeners(Accepting::Full);
        }
        if expects_header {
            return self.await_header((index, number), socket, peer, listener);
        }
        service.install(index, number, socket, peer, None, Origin::Accepted);
        if number == self.number {
            self.advance(index);
        }
    }
}
