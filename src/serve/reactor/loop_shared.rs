//! The part of an event loop that other threads use: commands, and the list of pending entries.

use std::mem;
use std::sync::PoisonError;

use super::conn_table::Data;
use crate::connect::PendingConnect;
use crate::io::panic_guard::panics;
use crate::log;
use crate::reconnect::Reconnect;
use crate::stream::ClientSocket;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sys::{Borrowed, Registry};
use crate::types::endpoint::Endpoint;
use crate::types::error::{Error, ErrorKind, Result};

/// In place of an index: the loop runs no callback.
pub(super) const NONE: u32 = u32::MAX;

/// The list of pending entries is not empty.
pub(super) const CMD_SCAN: u32 = 1;
/// New connects were requested, or the service stops and ends the reconnects.
pub(super) const CMD_CONNECT: u32 = 1 << 1;
/// The service drains: run each connection's drain callback.
pub(super) const CMD_DRAIN: u32 = 1 << 2;
/// Reset every connection. This command stays set.
pub(super) const CMD_RESET_ALL: u32 = 1 << 3;
/// A connection that waits to be accepted may be admitted now, or the server socket was closed.
pub(super) const CMD_ACCEPT: u32 = 1 << 4;
/// For the first loop: functions were posted to the service.
pub(super) const CMD_POST: u32 = 1 << 5;
/// For the first loop: a timer of the service is earlier than the others.
pub(super) const CMD_TIMERS: u32 = 1 << 6;

/// A connect that a program requested, with the data of its connection.
type NewConnect = (Connecting, Option<Data>);

/// A connect that a program requested.
pub(super) enum Connecting {
    Once(Box<PendingConnect>),
    /// Connects until it succeeds, and again after the connection was lost.
    Again(Box<Reconnect>),
}

impl Connecting {
    fn operation(&self) -> &'static str {
        match self {
            Connecting::Once(_) => "connect",
            Connecting::Again(_) => "reconnect",
        }
    }

    fn endpoint(&self) -> &Endpoint {
        match self {
            Connecting::Once(pending) => pending.endpoint(),
            Connecting::Again(reconnect) => reconnect.endpoint(),
        }
    }

    /// The error of a connect that the service ends.
    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        self.locate(Error::new(kind, self.operation()))
    }

    /// Sets the operation and the endpoint of an error to those of the connect.
    pub(super) fn locate(&self, error: Error) -> Error {
        error.during(self.operation()).at(self.endpoint())
    }

    /// Continues without waiting.
    pub(super) fn try_connect(&mut self) -> Result<Option<ClientSocket>> {
        match self {
            Connecting::Once(pending) => pending.finish(),
            Connecting::Again(reconnect) => {
                let mut outcome = Ok(None);
                // It calls `on_retry` of the program.
                if panics(|| outcome = reconnect.try_connect()) {
                    log::function_panicked();
                    return Err(self.error(ErrorKind::Panic));
                }
                outcome
            }
        }
    }

    pub(super) fn descriptor(&mut self) -> Result<Borrowed<'_>> {
        match self {
            Connecting::Once(pending) => pending.descriptor(),
            Connecting::Again(reconnect) => reconnect.descriptor(),
        }
    }

    /// The descriptor that [`descriptor`](Connecting::descriptor) has returned, if it is open.
    pub(super) fn open_descriptor(&self) -> Option<Borrowed<'_>> {
        match self {
            Connecting::Once(pending) => pending.open_descriptor(),
            Connecting::Again(reconnect) => reconnect.open_descriptor(),
        }
    }
}

pub(super) struct LoopShared {
    pub registry: Registry,
    /// The entries that the loop must process.
    pending: Mutex<Vec<u32>>,
    /// The connection whose callback runs now.
    pub current: AtomicU32,
    /// The connection in `current` was changed during its callback. The loop then processes its
    /// entry after the callback.
    pub changed: AtomicBool,
    /// The callback that runs now is a timer or drain callback. Messages that it sends to its own
    /// connection are pushed messages and not replies.
    pub pushes: AtomicBool,
    /// With several loops: the time at which the loop last returned from waiting for events, or 0
    /// while it waits.
    pub busy_since: AtomicU64,
    /// The pending commands (`CMD_…`), usually 0.
    pub commands: AtomicU32,
    /// The connects that the loop must start.
    pub new_connects: Mutex<Vec<NewConnect>>,
}

impl LoopShared {
    pub(super) fn new(registry: Registry) -> LoopShared {
        LoopShared {
            registry,
            pending: Mutex::default(),
            current: AtomicU32::new(NONE),
            changed: AtomicBool::new(false),
            pushes: AtomicBool::new(false),
            busy_since: AtomicU64::new(0),
            commands: AtomicU32::new(0),
            new_connects: Mutex::default(),
        }
    }

    /// Posts a command. Wakes the loop unless the calling thread runs it.
    pub(super) fn post_command(&self, command: u32, is_own_loop: bool) {
        self.commands.fetch_or(command, Ordering::SeqCst);
        if !is_own_loop {
            self.registry.wake();
        }
    }

    /// Puts an entry on the list of pending entries.
    pub(super) fn post_entry(&self, index: u32, is_own_loop: bool) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(index);
        self.post_command(CMD_SCAN, is_own_loop);
    }

    /// Takes the connects that the loop must start.
    pub(super) fn take_connects(&self) -> Vec<NewConnect> {
        mem::take(&mut *self.new_connects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Exchanges the list of pending entries for an empty list.
    pub(super) fn swap_pending(&self, empty: &mut Vec<u32>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(empty, &mut pending);
    }
}
