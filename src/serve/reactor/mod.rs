//! Serving with event loops: few threads serve many connections.
//!
//! A connection belongs to one event loop. Only that loop reads from the connection, runs its
//! callbacks and closes it. Any thread may write to it while it holds the lock of the connection's
//! entry. For the rest a thread puts the entry on the loop's pending list, posts a command and
//! wakes the loop. No lock is held while a callback runs.
//!
//! - `service`: the start of a service, connections that the program adds, and its end
//! - `handler`: the callbacks of the program
//! - `conn`, `conn_config`: the methods of [`Connection`], the program's reference to a connection
//! - `conn_table`, `slots`: the state of each connection, and the allocation of entries
//! - `detach`: connections that leave their service
//! - `send`, `send_queue`, `file_part`, `groups`: sends, queued messages, files, and groups for
//!   broadcasts
//! - `tasks`: functions that the program posts
//! - `loop_shared`: the part of an event loop that other threads use
//! - `service_timers`: the timers of a service
//! - `event_loop`, `timers`, `clock`: the event loop itself

mod clock;
mod conn;
mod conn_config;
mod conn_table;
mod detach;
mod event_loop;
mod file_part;
mod groups;
mod handler;
mod loop_shared;
#[cfg(all(test, keepsock_model))]
mod model;
#[cfg(test)]
mod properties;
mod send;
mod send_queue;
mod service;
mod service_timers;
mod slots;
mod tasks;
mod timers;

use std::sync::Arc;

use crate::sys::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sys::sync::{Mutex, thread_cell};
use clock::now_since;
pub use conn_table::Data;
use conn_table::{
    CLOSED, CLOSING, ConnConfig, ConnEntry, ConnTable, OWN_CONFIG, QUEUED, RESET_PENDING,
};
use groups::Groups;
pub use handler::Handler;
use loop_shared::LoopShared;
use service_timers::ServiceTimers;
use slots::SlotAllocator;
use tasks::Tasks;

use crate::serve::lifecycle::ServiceState;
use crate::serve::stats::Traffic;
use crate::sys::{self, Tick};
use crate::types::address::{Address, FiveTuple};
use crate::types::close_reason::CloseReason;

/// A connection of a service with [event loops](crate::ServerSocket::serve_events). A clone refers
/// to the same connection. The program may keep clones, for example to send from another thread.
/// Once [`on_close`](Handler::on_close) has been called, methods that change the connection return
/// [`Closed`](crate::ErrorKind::Closed) or do nothing. In a forked child no event loop runs, so they
/// return [`WrongState`](crate::ErrorKind::WrongState) or do nothing. The other methods return the
/// state at the time of the fork. If a thread of the parent was using the connection at that time, they
/// return the same as for a connection that has ended. A clone never refers to another connection.
///
/// Any thread may call any method, also inside callbacks. No method blocks.
///
/// ```
/// # #[cfg(unix)] {
/// use keepsock::{ClientSocket, Connection, ServeOptions, ServerSocket};
/// use std::sync::mpsc::channel;
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let (kept, all) = channel::<Connection>();
/// let service = server.serve_events(&ServeOptions::new(), move |c: &Connection, _: &[u8]| {
///     let _ = kept.send(c.clone());
/// })?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// client.write_all(b"subscribe\n")?;
/// let connection = all.recv().unwrap();
/// connection.send(b"news\n")?;           // from this thread, at any moment
/// assert_eq!(client.read_line(100)?, "news");
/// # drop(client);
/// # }
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Clone)]
pub struct Connection {
    service: Arc<ReactorService>,
    index: u32,
    generation: u32,
}

/// A service with event loops.
pub(in crate::serve) struct ReactorService {
    state: ServiceState<SlotAllocator>,
    handler: Box<dyn Handler>,
    /// The configuration of accepted connections.
    accepted_config: Arc<ConnConfig>,
    table: ConnTable,
    loops: Box<[LoopShared]>,
    /// The number of the loop that accepts. With several loops it is an additional one, which
    /// serves no connections.
    acceptor: usize,
    groups: Groups,
    /// The functions that were posted to the service. The first loop calls them.
    tasks: Mutex<Tasks<()>>,
    /// The timers of the service. The first loop calls their functions.
    timers: Mutex<ServiceTimers>,
    traffic: Traffic,
    start: Tick,
    /// The service drains. A connection that is accepted from now on is also notified.
    draining: AtomicBool,
    /// The earliest deadline of a drain, on the service's clock.
    drain_by: AtomicU64,
    /// The program has added connections, so accepting must check whether the service is full.
    added: AtomicBool,
    /// The service resets every connection.
    reset_all: AtomicBool,
    /// The loops end as soon as no connection is left.
    exit_when_empty: AtomicBool,
}

thread_cell! {
    /// The service and the number of the loop that the current thread runs.
    static HERE: (*const ReactorService, usize) = (std::ptr::null(), 0);
}

impl ReactorService {
    pub(in crate::serve) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether the calling thread runs a loop of this service.
    fn runs_here(&self) -> bool {
        HERE.get().0 == std::ptr::from_ref(self)
    }

    /// The current time on the service's clock.
    #[inline]
    fn now(&self) -> u64 {
        now_since(self.start)
    }

    /// The configuration of a connection: its own, or that of accepted connections.
    #[inline]
    fn config<'a>(&'a self, entry: &'a ConnEntry) -> &'a Arc<ConnConfig> {
        let cold = entry.cold.as_ref().filter(|_| entry.has(OWN_CONFIG));
        cold.and_then(|cold| cold.own_config.as_ref()).unwrap_or(&self.accepted_config)
    }

    fn has_first_byte_timeout(&self, entry: &ConnEntry) -> bool {
        self.config(entry).liveness.first_byte_timeout.is_some()
    }

    /// Lets the loop of a connection process the entry, after the current callback or command.
    fn schedule(&self, entry: &mut ConnEntry, index: u32) {
        let number = usize::from(entry.worker);
        let Some(shared) = self.loops.get(number) else {
            return;
        };
        let is_own_loop = HERE.get() == (std::ptr::from_ref(self), number);
        if is_own_loop && shared.current.load(Ordering::Relaxed) == index {
            shared.changed.store(true, Ordering::Relaxed);
            return;
        }
        if entry.has(QUEUED) {
            return;
        }
        entry.flags |= QUEUED;
        shared.post_entry(index, is_own_loop);
    }

    /// Closes a connection gracefully, once its queued bytes are sent and received.
    fn close(&self, index: u32, generation: u32) {
        self.change(index, generation, |entry| {
            if !entry.has(CLOSING | RESET_PENDING | CLOSED) {
                entry.record_close_reason(CloseReason::Local);
                entry.flags |= CLOSING;
            }
        });
    }

    fn abort(&self, index: u32, generation: u32) {
        self.change(index, generation, |entry| {
            entry.record_close_reason(CloseReason::Local);
            entry.flags |= RESET_PENDING;
        });
    }

    /// Changes the entry of a live connection, and lets its loop process the entry. Does nothing in a
    /// forked child.
    fn change(&self, index: u32, generation: u32, change: impl FnOnce(&mut ConnEntry)) {
        if self.state.threads.is_inherited() {
            return;
        }
        match self.table.lock(index) {
            Some(mut entry) if entry.generation == generation && !entry.has(CLOSED) => {
                change(&mut entry);
                self.schedule(&mut entry, index);
            }
            _ => {}
        }
    }

    fn five_tuple(&self, entry: &ConnEntry) -> FiveTuple {
        let remote = entry.peer();
        let detached = || entry.cold.as_ref()?.detached_local.as_ref();
        if let Some(local) = entry.via().map(|via| &via.local).or_else(detached) {
            return FiveTuple { protocol: remote.protocol(), local: local.clone(), remote };
        }
        let local = entry
            .socket
            .as_ref()
            .and_then(|socket| crate::sys::SockRef::from(&sys::borrow(socket)).local_addr().ok());
        let local = local.map_or(Address::UnixUnnamed, |name| sys::to_address(&name));
        FiveTuple { protocol: remote.protocol(), local, remote }
    }
}
