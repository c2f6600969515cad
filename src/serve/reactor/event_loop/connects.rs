//! Connects that the program requested, and clients that connect again.

use std::mem;
use std::time::{Duration, Instant};

use super::super::Data;
use super::super::loop_shared::Connecting;
use super::{CONNECTS, Loop};
use crate::io::panic_guard::panics;
use crate::sys::Registry;
use crate::types::error::{Error, ErrorKind};

/// The interval at which the loop polls a connect that has no descriptor to wait for.
pub(super) const CONNECT_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A connect in progress.
pub(super) struct Connect {
    connecting: Connecting,
    data: Option<Data>,
    /// The poller has the descriptor of the connect.
    is_watched: bool,
}

impl Connect {
    fn is_reconnect(&self) -> bool {
        matches!(self.connecting, Connecting::Again(_))
    }

    /// Removes the descriptor from the poller. Closing it is not enough while a forked child has a
    /// copy: the poller would report it in every wait.
    fn unwatch(&mut self, registry: &Registry) {
        if mem::take(&mut self.is_watched) {
            self.connecting.open_descriptor().into_iter().for_each(|d| registry.remove(d));
        }
    }
}

impl<'a> Loop<'a> {
    /// Starts the connects that other threads and callbacks have requested. Ends the reconnects if
    /// the service stops.
    pub(super) fn start_connects(&mut self) {
        for (connecting, data) in self.shared().take_connects() {
            self.start_connect(connecting, data);
        }
        if self.service.has_stopped() {
            let reconnects = self.connects.iter().filter(|(_, connect)| connect.is_reconnect());
            let keys: Vec<_> = reconnects.map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| self.poll_connect(key));
        }
    }

    pub(super) fn start_connect(&mut self, connecting: Connecting, data: Option<Data>) {
        let key = self.connects.insert(Connect { connecting, data, is_watched: false });
        self.poll_connect(key);
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

    /// Continues a connect. Its task ends when its connection was added, or when
    /// `on_connect_failed` has returned.
    pub(super) fn poll_connect(&mut self, key: usize) {
        let service = self.service;
        let registry = &self.shared().registry;
        let Some(connect) = self.connects.get_mut(key) else {
            return;
        };
        // The next step of a reconnect may close the descriptor.
        if connect.is_reconnect() {
            connect.unwatch(registry);
        }
        let outcome = if connect.is_reconnect() && service.has_stopped() {
            Err(connect.connecting.error(ErrorKind::Closed))
        } else {
            let outcome = connect.connecting.try_connect();
            // `on_retry` of the program may have forked.
            service.state.threads.end_in_child();
            outcome
        };
        let connected = match outcome {
            Ok(None) => return self.watch_connect(key),
            Ok(Some(client)) => Ok(client),
            Err(e) => Err(e),
        };
        connect.unwatch(registry);
        let Connect { connecting, data, .. } = self.connects.remove(key);
        self.unwatched.retain(|other| *other != key);
        let client = match connected {
            Ok(client) => client,
            Err(e) => return self.end_connect(&e, connecting, data),
        };
        let (once, mut reconnect) = match connecting {
            Connecting::Once(_) => (Some(connecting), None),
            Connecting::Again(reconnect) => (None, Some(reconnect)),
        };
        match (service.add(&client, data.clone(), &mut reconnect, |_| ()), reconnect) {
            (Ok(_), _) => service.task_ended(),
            (Err(e), Some(reconnect)) => {
                drop(client);
                let connecting = Connecting::Again(reconnect);
                // A full service has room later. The client counts this as a lost connection.
                if matches!(e.kind(), ErrorKind::WrongState | ErrorKind::NoMemory) {
                    return self.start_connect(connecting, data);
                }
                self.end_connect(&connecting.locate(e), connecting, data);
            }
            (Err(e), None) => {
                let e = match &once {
                    Some(connecting) => connecting.locate(e),
                    None => e,
                };
                self.connect_failed(&e, data);
                service.task_ended();
            }
        }
    }

    /// Lets the poller report when the connect must continue. The descriptor reports the sockets and
    /// timers of the connect, so a connect costs nothing until one of them is ready.
    fn watch_connect(&mut self, key: usize) {
        let registry = &self.shared().registry;
        let Some(connect) = self.connects.get_mut(key).filter(|connect| !connect.is_watched) else {
            return;
        };
        connect.is_watched = match connect.connecting.descriptor() {
            Ok(descriptor) => registry.add_listener(descriptor, CONNECTS + key).is_ok(),
            // The connect needs a step now, or the platform has no such descriptor.
            Err(_) => false,
        };
        let is_watched = connect.is_watched;
        self.unwatched.retain(|other| *other != key);
        if !is_watched {
            self.unwatched.push(key);
        }
    }

    /// Ends every connect, after the service has ended.
    pub(super) fn end_connects(&mut self) {
        let shared = self.shared();
        self.unwatched.clear();
        let in_progress = mem::take(&mut self.connects).into_iter().map(|(_, mut connect)| {
            connect.unwatch(&shared.registry);
            (connect.connecting, connect.data)
        });
        for (connecting, data) in shared.take_connects().into_iter().chain(in_progress) {
            self.end_connect(&connecting.error(ErrorKind::Closed), connecting, data);
        }
    }

    fn end_connect(&self, error: &Error, connecting: Connecting, data: Option<Data>) {
        self.connect_failed(error, data);
        // Dropping values of the program may panic.
        panics(|| drop(connecting));
        self.service.task_ended();
    }

    fn connect_failed(&self, error: &Error, data: Option<Data>) {
        let handler = &*self.service.handler;
        // If the callback panics, there is no connection to reset.
        self.service.state.threads.run(|| handler.on_connect_failed(error, data));
    }
}
