//! Connects that the program requested.

use std::time::{Duration, Instant};

use super::super::Data;
use super::{CONNECTS, Loop};
use crate::connect::PendingConnect;
use crate::io::panic_guard::panics;
use crate::types::error::Error;

/// The interval at which the loop polls a connect that has no descriptor to wait for.
pub(super) const CONNECT_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A connect in progress.
pub(super) struct Connect {
    pub(super) pending: PendingConnect,
    pub(super) data: Option<Data>,
}

impl<'a> Loop<'a> {
    /// Starts the connects that other threads and callbacks have requested.
    pub(super) fn start_connects(&mut self) {
        let shared = &self.service.loops[self.number];
        let connects = shared.take_connects();
        for (mut pending, data) in connects {
            let entry = self.connects.vacant_entry();
            let key = CONNECTS + entry.key();
            // The descriptor reports the sockets and timers of the connect, so a connect costs
            // nothing until one of them is ready.
            let watched = match pending.descriptor() {
                Ok(descriptor) => shared.registry.add_listener(descriptor, key).is_ok(),
                // The connect needs a step now, or the platform has no such descriptor.
                Err(_) => false,
            };
            if !watched {
                self.unwatched.push(entry.key());
            }
            entry.insert(Connect { pending, data });
            self.poll_connect(key - CONNECTS);
        }
    }

    /// Continues the connects without a descriptor, once per [`CONNECT_POLL_INTERVAL`].
    pub(super) fn poll_unwatched_connects(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.polled_at) < CONNECT_POLL_INTERVAL {
            return;
        }
        self.polled_at = now;
        for key in self.unwatched.clone() {
            self.poll_connect(key);
        }
    }

    pub(super) fn poll_connect(&mut self, key: usize) {
        let Some(connect) = self.connects.get_mut(key) else {
            return;
        };
        let connected = match connect.pending.finish() {
            Ok(None) => return,
            Ok(Some(client)) => Ok(client),
            Err(e) => Err(e),
        };
        let connect = self.connects.remove(key);
        self.unwatched.retain(|other| *other != key);
        let added = connected.and_then(|client| self.service.add(&client, connect.data.clone()));
        if let Err(e) = added {
            self.connect_failed(&e, connect.data);
        }
        self.service.task_ended();
    }

    pub(super) fn connect_failed(&self, error: &Error, data: Option<Data>) {
        let handler = &*self.service.handler;
        // If the callback panics, there is no connection to reset.
        panics(|| handler.on_connect_failed(error, data));
    }
}
