//! Accepted connections of trusted proxies whose PROXY header is expected. They have an entry of the
//! connection table, which is not open yet, so no other part of the service finds them.

use std::collections::BTreeSet;

use slab::Slab;

use super::super::ReactorService;
use super::super::clock::steps;
use super::super::conn_table::{Origin, Via};
use super::{HEADERS, Loop};
use crate::listener::{Listener, Rejection};
use crate::stream::receive_header;
use crate::sys::{self, Owned};
use crate::types::address::Address;
use crate::types::proxy::{HeaderParser, HeaderState, Proxied};

/// A connection whose header is incomplete.
struct Pending<'a> {
    /// The entry and the loop that are reserved for the connection.
    slot: (u32, usize),
    socket: Owned,
    proxy: Address,
    listener: &'a Listener,
    parser: HeaderParser,
    due: u64,
    is_registered: bool,
}

/// The connections whose header is incomplete.
pub(super) struct Headers<'a> {
    /// Whether the server socket has trusted proxies.
    required: bool,
    timeout: u64,
    pending: Slab<Pending<'a>>,
    /// When each header is late, with its key.
    dues: BTreeSet<(u64, usize)>,
    /// Headers may have arrived, or be late, while the program had paused accepting.
    held: bool,
}

impl<'a> Headers<'a> {
    pub(super) fn new(service: &ReactorService) -> Headers<'a> {
        let options = service.state.server.options();
        Headers {
            required: !options.trusted_proxies.is_empty(),
            timeout: steps(options.proxy_timeout),
            pending: Slab::new(),
            dues: BTreeSet::new(),
            held: false,
        }
    }

    /// Whether a connection begins with a header. A Unix peer is no proxy.
    #[inline]
    pub(super) fn expects(&self, peer: &Address) -> bool {
        self.required && matches!(peer, Address::Inet(_))
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// When the first header is late.
    #[cold]
    pub(super) fn next_due(&self) -> Option<u64> {
        if self.held { None } else { self.dues.first().map(|(due, _)| *due) }
    }

    fn remove(&mut self, key: usize) -> Option<Pending<'a>> {
        let pending = self.pending.try_remove(key)?;
        self.dues.remove(&(pending.due, key));
        Some(pending)
    }
}

impl<'a> Loop<'a> {
    /// Expects the header of a connection that the state counts.
    #[cold]
    pub(super) fn await_header(
        &mut self,
        slot: (u32, usize),
        socket: Owned,
        proxy: &Address,
        listener: &'a Listener,
    ) {
        let due = self.service.now().saturating_add(self.headers.timeout + 1);
        let key = self.headers.pending.insert(Pending {
            slot,
            socket,
            proxy: proxy.clone(),
            listener,
            parser: HeaderParser::default(),
            due,
            is_registered: false,
        });
        self.headers.dues.insert((due, key));
        if self.listeners.is_empty() {
            return self.reject_header(key, STOPPED);
        }
        // Most proxies send the header immediately after the handshake.
        if !self.receive_header(key) {
            return;
        }
        let registry = &self.service.loops[self.number].registry;
        let Some(pending) = self.headers.pending.get_mut(key) else {
            return;
        };
        pending.is_registered =
            registry.add(sys::borrow(&pending.socket), HEADERS + key, false).is_ok();
        if !pending.is_registered {
            self.reject_header(key, Rejection::NoHeader("the kernel has no memory to wait for it"));
        }
    }

    #[cold]
    pub(super) fn on_header_event(&mut self, key: usize) {
        self.receive_header(key);
    }

    /// Receives the bytes of a header that are there, and opens the connection or rejects it. Returns
    /// true if the header is still incomplete.
    fn receive_header(&mut self, key: usize) -> bool {
        if self.service.state.is_accept_paused() {
            self.headers.held = true;
            return true;
        }
        let Some(pending) = self.headers.pending.get_mut(key) else {
            return false;
        };
        loop {
            match receive_header(sys::borrow(&pending.socket), &mut pending.parser) {
                Ok(Some(HeaderState::Incomplete)) => {}
                Ok(Some(HeaderState::Complete(proxied))) => {
                    self.open_proxied(key, proxied);
                    return false;
                }
                Ok(Some(HeaderState::Malformed(why))) => {
                    self.reject_header(key, Rejection::NoHeader(why));
                    return false;
                }
                Ok(None) => {
                    if sys::REARMS && pending.is_registered {
                        let socket = sys::borrow(&pending.socket);
                        let registry = &self.service.loops[self.number].registry;
                        // If it fails, the last attempt is made when the header is late.
                        let _ = registry.rearm(socket, HEADERS + key, true, false);
                    }
                    return true;
                }
                // The last attempt is made when the header is late.
                Err(e) if sys::is_out_of_memory(&e) => return true,
                Err(_) => {
                    self.reject_header(key, Rejection::NoHeader("the connection ended"));
                    return false;
                }
            }
        }
    }

    /// Opens a connection whose header is complete, if the service admits its client.
    fn open_proxied(&mut self, key: usize, proxied: Proxied) {
        let service = self.service;
        let Some(pending) = self.headers.pending.get(key) else {
            return;
        };
        let (client, via) = match proxied {
            Proxied::Own => (pending.proxy.clone(), None),
            Proxied::Client { source, destination } => {
                (source, Some(Via { local: destination, proxy: pending.proxy.clone() }))
            }
        };
        let mut locked = service.state.lock();
        let admitted = match locked.ended {
            true => Err(STOPPED),
            false => service.state.admit_address(&mut locked, &client),
        };
        drop(locked);
        if let Err(rejection) = admitted {
            return self.reject(key, rejection, Some(&client));
        }
        let Some(Pending { slot, socket, is_registered, .. }) = self.headers.remove(key) else {
            return;
        };
        if is_registered {
            self.shared().registry.remove(sys::borrow(&socket));
        }
        let (index, number) = slot;
        service.install(index, number, socket, &client, via, Origin::Accepted);
        if number == self.number {
            self.advance(index);
        }
    }

    /// Resets and counts a connection without a header. No callback has run for it.
    fn reject_header(&mut self, key: usize, rejection: Rejection) {
        self.reject(key, rejection, None);
    }

    fn reject(&mut self, key: usize, rejection: Rejection, client: Option<&Address>) {
        let Some(pending) = self.headers.remove(key) else {
            return;
        };
        pending.listener.count_rejection(rejection, client.unwrap_or(&pending.proxy));
        if pending.is_registered {
            self.shared().registry.remove(sys::borrow(&pending.socket));
        }
        sys::fork::close(pending.socket, true);
        let mut locked = self.service.state.lock();
        // The program has not seen the connection, so a drain does not count it.
        locked.live -= 1;
        locked.opened -= 1;
        locked.members.free(pending.slot.0, pending.slot.1, true);
        self.connection_left(locked);
    }

    /// Rejects the connections whose header is late.
    #[cold]
    pub(super) fn expire_headers(&mut self) {
        while let Some(&(due, key)) = self.headers.dues.first() {
            // While the program has paused accepting, no connection is opened, and none is late.
            if due > self.now || self.headers.held {
                return;
            }
            if self.receive_header(key) && !self.headers.held {
                self.reject_header(key, Rejection::NoHeader("it did not arrive in time"));
            }
        }
    }

    /// Receives the headers that have arrived while the program had paused accepting.
    pub(super) fn release_headers(&mut self) {
        if !self.headers.held || self.service.state.is_accept_paused() {
            return;
        }
        self.headers.held = false;
        let keys: Vec<_> = self.headers.pending.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.receive_header(key);
        }
    }

    /// Ends the connections whose header is expected, because the service stops.
    pub(super) fn end_headers(&mut self) {
        while let Some(&(_, key)) = self.headers.dues.first() {
            self.reject_header(key, STOPPED);
        }
    }
}

const STOPPED: Rejection = Rejection::NoHeader("the service stopped before");
