//! An event loop: waits for events, and handles events, timers and commands.

mod accepting;
mod connects;
mod deadlines;
mod headers;
mod io;
mod tasks;
mod teardown;

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::clock::span;
use super::conn_table::{
    CLOSE_TIMED_OUT, CLOSED, CLOSING, ConnEntry, DRAIN_DELIVERED, LIVE, NextAction, QUEUED,
    READ_PENDING, REGISTERED, RESET_PENDING, UNOPENED, WATCHES_WRITABLE,
};
use super::loop_shared::{
    CMD_ACCEPT, CMD_CONNECT, CMD_DRAIN, CMD_POST, CMD_RESET_ALL, CMD_SCAN, CMD_TIMERS, LoopShared,
    NONE,
};
use super::timers::Timers;
use super::{Connection, HERE, Handler, ReactorService};
use crate::io::backoff::BackOff;
use crate::listener::{Listener, OUT_OF_DESCRIPTORS};
use crate::log;
use crate::stream::liveness::Pauses;
use crate::sys::sync::atomic::Ordering;
use crate::sys::sync::{MutexGuard, sleep};
use crate::sys::{self, InUse, Occurred, Owned, Poller, Tick};
use crate::types::address::Address;
use crate::types::close_reason::CloseReason;
use accepting::Accepting;
pub(super) use accepting::{Watched, watch};
use connects::{CONNECT_POLL_INTERVAL, Connect};
use headers::Headers;
use teardown::is_close_delivered;

/// The number of bytes read at a time.
const READ: usize = 64 * 1024;

/// Poller keys that are not connections: the cancel token, the end of listeners that are shared
/// with other processes, and the listeners.
const TOKEN: usize = usize::MAX - 1;
const LISTENERS_END: usize = TOKEN - 1;
const LISTENERS: usize = LISTENERS_END - (1 << 16);
/// The keys of connects start here.
const CONNECTS: usize = LISTENERS - (1 << 20);
/// The keys of connections whose PROXY header is expected start here. Each has a descriptor.
const HEADERS: usize = CONNECTS - (1 << 30);

struct Loop<'a> {
    service: &'a Arc<ReactorService>,
    number: usize,
    now: u64,
    buf: Box<[u8]>,
    spare: Vec<Vec<u8>>,
    /// An empty list, which is exchanged for the list of pending entries.
    listed: Vec<u32>,
    timers: Timers,
    /// The timers that the program has set for connections of the loop, counted from the start of
    /// the service.
    program_timers: BTreeSet<(Duration, u32)>,
    /// When the earliest timer of the service expires, counted from the start of the service.
    service_due: Option<Duration>,
    pauses: Pauses,
    /// The time at which the loop last woke, or began to wait.
    woke_at: u64,
    connects: Slab<Connect>,
    /// The connects without a descriptor to wait for.
    unwatched: Vec<usize>,
    /// The time at which the loop last polled them.
    polled_at: Instant,
    /// The connection that callbacks receive.
    current: Connection,
    /// Empty if the loop does not accept. While the loop uses the listeners they stay open, so that
    /// it detects when they are closed.
    listeners: Vec<(&'a Listener, InUse<'a>)>,
    accepting: Accepting,
    /// The accepted connections whose PROXY header is expected.
    headers: Headers<'a>,
    /// A connection that was accepted while the service was full.
    waiting: Option<(Owned, Address, &'a Listener)>,
    backoff: BackOff,
    /// The number of connections to accept at the next event.
    burst: usize,
    /// Whether this wake-up and the previous one were for accepting.
    accepted: (bool, bool),
}

/// Allocates the buffer of a loop; `None`: there is not enough memory.
pub(super) fn new_buffer() -> Option<Box<[u8]>> {
    sys::zeroed(READ)
}

pub(super) fn run(
    service: &Arc<ReactorService>,
    number: usize,
    mut poller: Poller,
    buf: Box<[u8]>,
    watched: Option<Watched>,
) {
    HERE.set((Arc::as_ptr(service), number));
    let mut event_loop = Loop {
        service,
        number,
        now: service.now(),
        buf,
        spare: Vec::new(),
        listed: Vec::new(),
        timers: Timers::default(),
        program_timers: BTreeSet::new(),
        service_due: None,
        pauses: Pauses::default(),
        woke_at: service.now(),
        connects: Slab::new(),
        unwatched: Vec::new(),
        polled_at: Instant::now(),
        current: Connection { service: service.clone(), index: NONE, generation: 0 },
        listeners: Vec::new(),
        accepting: Accepting::Yes,
        headers: Headers::new(service),
        waiting: None,
        backoff: OUT_OF_DESCRIPTORS,
        burst: 1,
        accepted: (false, false),
    };
    if let Some(watched) = watched {
        event_loop.begin_accepting(watched);
    }
    loop {
        let timeout = event_loop.timeout();
        if poller.wait(timeout).is_err() {
            // The kernel has no memory. No other error is possible for the loop's own descriptor.
            sleep(Duration::from_millis(10));
        }
        if event_loop.needs_clock() {
            event_loop.now = service.now();
            event_loop.woke(timeout);
        }
        event_loop.note_busy(true);
        for occurred in poller.occurred() {
            match occurred.key {
                key if key < HEADERS => event_loop.on_event(key as u32, occurred),
                TOKEN | LISTENERS_END => event_loop.accepting_ended(None),
                key if key >= LISTENERS => {
                    event_loop.on_listener_event(key - LISTENERS, occurred.ended)
                }
                key if key >= CONNECTS => event_loop.poll_connect(key - CONNECTS),
                key => event_loop.on_header_event(key - HEADERS),
            }
        }
        if event_loop.after_wait() {
            return;
        }
        event_loop.note_busy(false);
    }
}

impl<'a> Loop<'a> {
    #[inline]
    fn lock(&self, index: u32) -> Option<MutexGuard<'a, ConnEntry>> {
        let service: &'a ReactorService = self.service;
        let entry = service.table.lock(index)?;
        (usize::from(entry.worker) == self.number && entry.has(LIVE)).then_some(entry)
    }

    #[inline(always)]
    fn timeout(&mut self) -> Option<Duration> {
        // The loop does not wake itself for commands that it posts to itself.
        let commands = self.shared().commands.load(Ordering::Acquire);
        if commands & !CMD_RESET_ALL != 0 {
            return Some(Duration::ZERO);
        }
        let timer = self.next_timer();
        if timer.is_none()
            && self.accepting == Accepting::Yes
            && self.unwatched.is_empty()
            && self.headers.is_empty()
            && self.service_due.is_none()
            && self.program_timers.is_empty()
        {
            return None;
        }
        let header = self.headers.next_due();
        let retry = match self.accepting {
            Accepting::Exhausted(at) => Some(at),
            _ => None,
        };
        let next = [retry, timer, header].into_iter().flatten().min();
        let next = next.map(|next| {
            self.woke_at = self.note_callbacks();
            span(next.saturating_sub(self.woke_at)) + Tick::LAG
        });
        let connect = (!self.unwatched.is_empty()).then_some(CONNECT_POLL_INTERVAL);
        let precise = self.next_precise().map(|due| {
            self.woke_at = self.note_callbacks();
            due.saturating_sub(self.service.elapsed())
        });
        [next, connect, precise].into_iter().flatten().min()
    }

    /// When the earliest timer of the service, or of the program for a connection, expires.
    #[inline]
    fn next_precise(&self) -> Option<Duration> {
        let first = self.program_timers.first().map(|(at, _)| *at);
        match (first, self.service_due) {
            (Some(first), Some(due)) => Some(first.min(due)),
            (first, due) => first.or(due),
        }
    }

    /// Whether the loop must read the clock after it wakes. Code that reads the clock itself does
    /// not count.
    fn needs_clock(&self) -> bool {
        self.service.accepted_config.liveness.has_limits()
            || !self.timers.is_empty()
            || !self.headers.is_empty()
            || matches!(self.accepting, Accepting::Exhausted(_))
    }

    /// Publishes whether the loop waits or runs callbacks, for the accepting loop.
    #[inline]
    fn note_busy(&self, busy: bool) {
        if self.service.acceptor != 0 {
            let since = if busy { self.service.now() } else { 0 };
            self.shared().busy_since.store(since, Ordering::Relaxed);
        }
    }

    fn shared(&self) -> &'a LoopShared {
        let service: &'a ReactorService = self.service;
        &service.loops[self.number]
    }

    /// Handles timers, connects and commands after the events. Returns true if the service has
    /// ended and no connection is left.
    #[inline(always)]
    fn after_wait(&mut self) -> bool {
        self.accepted = (false, self.accepted.0);
        if !self.timers.is_empty() {
            self.run_timers();
        }
        if self.service_due.is_some() {
            self.run_service_timers();
        }
        if !self.program_timers.is_empty() {
            self.run_program_timers();
        }
        if !self.headers.is_empty() {
            self.expire_headers();
        }
        if let Accepting::Exhausted(until) = self.accepting {
            if until <= self.now {
                self.retry_accepting();
            }
        }
        if !self.unwatched.is_empty() {
            self.poll_unwatched_connects();
        }
        let commands = self.shared().commands.load(Ordering::Acquire);
        commands != 0 && self.run_commands()
    }

    #[cold]
    fn run_commands(&mut self) -> bool {
        let (service, shared) = (self.service, self.shared());
        let commands = shared.commands.fetch_and(CMD_RESET_ALL, Ordering::SeqCst);
        if commands & CMD_SCAN != 0 {
            let mut listed = mem::take(&mut self.listed);
            shared.swap_pending(&mut listed);
            for index in listed.drain(..) {
                if let Some(mut entry) = self.lock(index) {
                    entry.flags &= !QUEUED;
                    drop(entry);
                    self.advance(index);
                }
            }
            self.listed = listed;
        }
        if commands & CMD_ACCEPT != 0 {
            self.resume_accepting();
        }
        if commands & CMD_POST != 0 {
            self.run_service_tasks();
        }
        if commands & CMD_TIMERS != 0 {
            self.set_service_timer();
        }
        if commands & CMD_CONNECT != 0 {
            self.start_connects();
        }
        if commands & CMD_DRAIN != 0 {
            for index in 0..service.slot_count() {
                self.deliver_drain(index);
                self.advance(index);
            }
        }
        if commands & CMD_RESET_ALL == 0 {
            return false;
        }
        for index in 0..service.slot_count() {
            if let Some(mut entry) = self.lock(index) {
                entry.record_close_reason(CloseReason::Local);
                entry.flags |=
                    if is_close_delivered(&entry) { CLOSE_TIMED_OUT } else { RESET_PENDING };
                drop(entry);
                self.advance(index);
            }
        }
        // No connect and no function follows after this, because the service has ended.
        self.end_connects();
        while self.run_service_task() {}
        self.drop_service_timers();
        service.exit_when_empty.load(Ordering::SeqCst) && service.state.lock().live == 0
    }

    /// Runs a callback. Returns true if the connection was changed during it. Once the service
    /// resets its connections, only [`call_always`](Loop::call_always) runs callbacks.
    #[inline]
    fn call(
        &mut self,
        index: u32,
        generation: u32,
        callback: impl FnOnce(&dyn Handler, &Connection),
    ) -> bool {
        self.is_over() || self.call_always(index, generation, callback)
    }

    /// Whether the service resets its connections. The loop may not have closed them yet.
    #[inline]
    fn is_over(&self) -> bool {
        self.service.reset_all.load(Ordering::Acquire)
    }

    /// Runs the first or last callback of a connection, or a posted function.
    #[inline]
    fn call_always(
        &mut self,
        index: u32,
        generation: u32,
        callback: impl FnOnce(&dyn Handler, &Connection),
    ) -> bool {
        let shared = self.shared();
        (self.current.index, self.current.generation) = (index, generation);
        shared.current.store(index, Ordering::Relaxed);
        shared.changed.store(false, Ordering::Relaxed);
        let handler = &*self.service.handler;
        let panicked = self.service.state.threads.run(|| callback(handler, &self.current));
        shared.current.store(NONE, Ordering::Relaxed);
        if panicked {
            self.panicked(index);
            return true;
        }
        shared.changed.load(Ordering::Relaxed)
    }

    /// Runs a timer or drain callback. The queue limit applies to the messages that it sends to its
    /// connection.
    fn call_as_push(
        &mut self,
        index: u32,
        generation: u32,
        callback: impl FnOnce(&dyn Handler, &Connection),
    ) {
        if !self.is_over() {
            self.call_always_as_push(index, generation, callback);
        }
    }

    fn call_always_as_push(
        &mut self,
        index: u32,
        generation: u32,
        callback: impl FnOnce(&dyn Handler, &Connection),
    ) {
        self.shared().pushes.store(true, Ordering::Relaxed);
        self.call_always(index, generation, callback);
        self.shared().pushes.store(false, Ordering::Relaxed);
    }

    #[cold]
    fn panicked(&mut self, index: u32) {
        let Some(mut entry) = self.lock(index) else {
            return;
        };
        let tuple = self.service.five_tuple(&entry);
        entry.record_close_reason(CloseReason::Local);
        entry.flags |= RESET_PENDING;
        drop(entry);
        log::handler_panicked(&tuple);
    }

    #[inline]
    fn on_event(&mut self, index: u32, occurred: Occurred) {
        let only_bytes = !occurred.writable && !occurred.ended;
        if sys::REARMS {
            // The report has ended all requests.
            if let Some(mut entry) = self.lock(index) {
                entry.flags &= !WATCHES_WRITABLE;
            }
        }
        if occurred.writable {
            self.flush(index);
        }
        // The common case: the connection is readable, and the callback only answers.
        let reads = occurred.readable || occurred.ended;
        let plain = reads && self.read(index, occurred.ended || occurred.short);
        if occurred.failed {
            self.record_reset_after_fin(index);
        }
        if !(only_bytes && plain) {
            self.advance(index);
        }
    }

    /// Opens a connection that is assigned to this loop. Returns true if the entry needs no further
    /// processing.
    fn open(&mut self, index: u32, generation: u32) -> bool {
        self.call_always(index, generation, |handler, connection| handler.on_open(connection));
        // The drain command may have run before the connection was opened.
        if self.service.draining.load(Ordering::SeqCst) {
            self.deliver_drain(index);
        }
        // Most clients send immediately after the handshake, so the first bytes are usually there.
        self.read(index, false);
        let Some(mut entry) = self.lock(index) else {
            return true;
        };
        let next = entry.next_action();
        if matches!(next, NextAction::Close { .. }) {
            return false;
        }
        let (registry, waits) = (&self.service.loops[self.number].registry, entry.has_queued());
        let added = match &entry.socket {
            Some(socket) => registry.add(sys::borrow(socket), index as usize, waits),
            None => return false,
        };
        match added {
            Ok(()) if waits => entry.flags |= REGISTERED | WATCHES_WRITABLE,
            Ok(()) => entry.flags |= REGISTERED,
            // The kernel has no memory for the registration, so the connection must be reset.
            Err(_) => entry.flags |= RESET_PENDING,
        }
        let is_idle = next == NextAction::Nothing
            && !entry.has(CLOSING | RESET_PENDING | READ_PENDING)
            && !entry.has_tasks();
        if is_idle {
            self.set_timer(&mut entry, index);
        }
        is_idle
    }

    fn deliver_drain(&mut self, index: u32) {
        let Some(mut entry) = self.lock(index) else {
            return;
        };
        if entry.has(CLOSING | RESET_PENDING | CLOSED | UNOPENED | DRAIN_DELIVERED) {
            return;
        }
        entry.flags |= DRAIN_DELIVERED;
        let generation = entry.generation;
        drop(entry);
        self.call_as_push(index, generation, |handler, connection| handler.on_drain(connection));
    }
}
