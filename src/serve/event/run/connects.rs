//! Connects under way.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use super::super::Data;
use super::{CONNECTS, Loop};
use crate::connect::Connecting;
use crate::error::Error;

/// Where a connect has no descriptor that tells, it is looked at this often.
const CONNECT_LOOK: Duration = Duration::from_millis(10);

/// A connect under way.
pub(super) struct Connect {
    pub(super) connecting: Connecting,
    pub(super) data: Option<Data>,
    /// Its descriptor tells when there is something to do.
    watched: bool,
}

impl Connect {
    pub(super) fn timeout(&self) -> Option<Duration> {
        let look = (!self.watched).then_some(CONNECT_LOOK);
        [self.connecting.timeout(), look].into_iter().flatten().min()
    }
}

impl<'a> Loop<'a> {
    /// Begins with connects.
    pub(super) fn connect(&mut self) {
        let shared = &self.events.loops[self.number];
        let begun = mem::take(&mut *shared.begun.lock().unwrap_or_else(PoisonError::into_inner));
        for (mut connecting, data) in begun {
            let entry = self.connects.vacant_entry();
            let key = CONNECTS + entry.key();
            let watched = match connecting.descriptor() {
                Ok(descriptor) => shared.registry.add_listener(descriptor, key).is_ok(),
                // There is something to do already, or the system has no such descriptor.
                Err(_) => false,
            };
            entry.insert(Connect { connecting, data, watched });
            self.go_on_connecting(key - CONNECTS);
        }
    }

    /// Goes on with those whose time has come.
    pub(super) fn look_at_connects(&mut self) {
        let due = |(key, connect): (usize, &Connect)| {
            let due = !connect.watched || connect.timeout().is_some_and(|time| time.is_zero());
            due.then_some(key)
        };
        let due: Vec<_> = self.connects.iter().filter_map(due).collect();
        for key in due {
            self.go_on_connecting(key);
        }
    }

    pub(super) fn go_on_connecting(&mut self, key: usize) {
        let Some(connect) = self.connects.get_mut(key) else {
            return;
        };
        let connected = match connect.connecting.finish() {
            Ok(None) => return,
            Ok(Some(client)) => Ok(client),
            Err(e) => Err(e),
        };
        let connect = self.connects.remove(key);
        let added = connected.and_then(|client| self.events.add(&client, connect.data.clone()));
        if let Err(e) = added {
            self.connect_failed(&e, connect.data);
        }
    }

    pub(super) fn connect_failed(&self, error: &Error, data: Option<Data>) {
        let handler = &*self.events.handler;
        // The panic hook has told of it; there is no connection to reset.
        let _ = catch_unwind(AssertUnwindSafe(|| handler.connect_failed(error, data)));
    }
}
