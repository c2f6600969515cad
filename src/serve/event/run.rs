//! A loop: waits, and has everything done that occurs, is due, or is ordered.

mod accepting;
mod connects;
mod ending;
mod times;
mod transfer;

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;

use super::slot::{
    CLOSING, CUT, LISTED, LIVE, NEW, Next, OVER, REGISTERED, Slot, TOLD_DRAIN, WATCHES_ROOM,
};
use super::timers::Timers;
use super::{
    ACCEPT, CONNECT, CUT_ALL, Connection, DRAIN, Events, HERE, Handler, LOOK, NONE, Shared, span,
};
use crate::back_off::BackOff;
use crate::error::ErrorKind;
use crate::events;
use crate::info::{Address, End};
use crate::server::{Listener, OUT_OF_DESCRIPTORS};
use crate::sys::{self, InUse, Occurred, Owned, Poller, Tick};
use accepting::Accepting;
use connects::Connect;

/// What is read at a time.
const READ: usize = 64 * 1024;

/// Keys of what is no connection: the cancel token, the end of listeners that other processes may
/// have, too, and from here on the listeners.
const TOKEN: usize = usize::MAX - 1;
const LISTENERS_END: usize = TOKEN - 1;
const LISTENERS: usize = LISTENERS_END - (1 << 16);
/// And before those, from here on, connects.
const CONNECTS: usize = LISTENERS - (1 << 20);

struct Loop<'a> {
    events: &'a Arc<Events>,
    number: usize,
    now: u64,
    buf: Box<[u8]>,
    spare: Vec<Vec<u8>>,
    /// Room for the list, which takes turns with the one that is written to.
    listed: Vec<u32>,
    timers: Timers,
    connects: Slab<Connect>,
    /// What callbacks are given.
    current: Connection,
    /// Empty when it does not accept. While they are in use here they stay open, so that their
    /// end is seen.
    listeners: Vec<(&'a Listener, InUse<'a>)>,
    accepting: Accepting,
    /// A connection that was accepted when there was no place left.
    waiting: Option<(Owned, Address, &'a Listener)>,
    back_off: BackOff,
    /// How many are accepted at the next wake-up, and whether this one and the last were for it.
    burst: usize,
    accepted: (bool, bool),
}

pub(super) fn run(events: &Arc<Events>, number: usize, mut poller: Poller) {
    HERE.set((Arc::as_ptr(events), number));
    events.gate.handed_over();
    let mut it = Loop {
        events,
        number,
        now: events.now(),
        buf: vec![0; READ].into(),
        spare: Vec::new(),
        listed: Vec::new(),
        timers: Timers::default(),
        connects: Slab::new(),
        current: Connection { events: events.clone(), index: NONE, generation: 0 },
        listeners: Vec::new(),
        accepting: Accepting::Yes,
        waiting: None,
        back_off: OUT_OF_DESCRIPTORS,
        burst: 1,
        accepted: (false, false),
    };
    let token = events.gate.server.cancel_token().filter(|_| number == 0);
    if number == 0 {
        it.begin_accepting(token.as_ref());
    }
    loop {
        if poller.wait(it.timeout()).is_err() {
            // The system lacks memory; nothing else can be wrong with the loop's descriptor.
            std::thread::sleep(Duration::from_millis(10));
        }
        if it.keeps_time() {
            it.now = events.now();
        }
        for occurred in poller.occurred() {
            match occurred.key {
                TOKEN | LISTENERS_END => it.accepting_ended(None),
                key if key >= LISTENERS => it.accept(key - LISTENERS),
                key if key >= CONNECTS => it.go_on_connecting(key - CONNECTS),
                key => it.occurred(key as u32, occurred),
            }
        }
        if it.after_wait() {
            return;
        }
    }
}

impl<'a> Loop<'a> {
    #[inline]
    fn lock(&self, index: u32) -> Option<MutexGuard<'a, Slot>> {
        let events: &'a Events = self.events;
        let slot = events.slots.lock(index)?;
        (usize::from(slot.worker) == self.number && slot.has(LIVE)).then_some(slot)
    }

    fn timeout(&mut self) -> Option<Duration> {
        // What this loop has ordered itself it was not woken for.
        let orders = self.shared().orders.load(Ordering::Acquire);
        if orders & !CUT_ALL != 0 {
            return Some(Duration::ZERO);
        }
        let timer = self.next_timer();
        if timer.is_none() && self.accepting == Accepting::Yes && self.connects.is_empty() {
            return None;
        }
        let retry = match self.accepting {
            Accepting::Exhausted(at) => Some(at),
            _ => None,
        };
        let next = [retry, timer].into_iter().flatten().min();
        // Callbacks may have taken long since the last look at the clock.
        let next = next.map(|next| span(next.saturating_sub(self.events.now())) + Tick::LAG);
        let connect = self.connects.iter().filter_map(|(_, connect)| connect.timeout()).min();
        [next, connect].into_iter().flatten().min()
    }

    /// Whether the time matters to anything that is not about to look at the clock itself.
    fn keeps_time(&self) -> bool {
        self.events.asked.has_limits()
            || !self.timers.is_empty()
            || matches!(self.accepting, Accepting::Exhausted(_))
    }

    fn shared(&self) -> &'a Shared {
        let events: &'a Events = self.events;
        &events.loops[self.number]
    }

    /// What is to be done beside what occurred; true: the service has ended, and nobody is left.
    #[inline]
    fn after_wait(&mut self) -> bool {
        self.accepted = (false, self.accepted.0);
        if !self.timers.is_empty() {
            self.look_at_timers();
        }
        if let Accepting::Exhausted(until) = self.accepting {
            if until <= self.now {
                self.watch_listeners();
            }
        }
        if !self.connects.is_empty() {
            self.look_at_connects();
        }
        let orders = self.shared().orders.load(Ordering::Acquire);
        orders != 0 && self.obey()
    }

    #[cold]
    fn obey(&mut self) -> bool {
        let (events, shared) = (self.events, self.shared());
        let orders = shared.orders.fetch_and(CUT_ALL, Ordering::SeqCst);
        if orders & LOOK != 0 {
            let mut listed = mem::take(&mut self.listed);
            mem::swap(
                &mut listed,
                &mut *shared.list.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for index in listed.drain(..) {
                if let Some(mut slot) = self.lock(index) {
                    slot.flags &= !LISTED;
                    drop(slot);
                    self.settle(index);
                }
            }
            self.listed = listed;
        }
        if orders & ACCEPT != 0 {
            self.accept_again();
        }
        if orders & CONNECT != 0 {
            self.connect();
        }
        if orders & DRAIN != 0 {
            for index in 0..events.places() {
                self.tell_drain(index);
                self.settle(index);
            }
        }
        if orders & CUT_ALL == 0 {
            return false;
        }
        for index in 0..events.places() {
            if let Some(mut slot) = self.lock(index) {
                slot.note_end(End::ClosedHere);
                slot.flags |= CUT;
                drop(slot);
                self.settle(index);
            }
        }
        if !events.ending.load(Ordering::SeqCst) || events.gate.lock().live > 0 {
            return false;
        }
        // Whoever comes later is told so.
        let begun = mem::take(&mut *shared.begun.lock().unwrap_or_else(PoisonError::into_inner));
        let begun = begun.into_iter().map(|(_, data)| data);
        let under_way = mem::take(&mut self.connects).into_iter().map(|(_, connect)| connect.data);
        for data in begun.chain(under_way) {
            self.connect_failed(&events.gate.error(ErrorKind::Closed, "connect"), data);
        }
        true
    }

    /// True: the connection was changed meanwhile.
    #[inline]
    fn call(
        &mut self,
        index: u32,
        generation: u32,
        callback: impl FnOnce(&dyn Handler, &Connection),
    ) -> bool {
        let shared = self.shared();
        (self.current.index, self.current.generation) = (index, generation);
        shared.current.store(index, Ordering::Relaxed);
        shared.changed.store(false, Ordering::Relaxed);
        let handler = &*self.events.handler;
        let done = catch_unwind(AssertUnwindSafe(|| callback(handler, &self.current)));
        shared.current.store(NONE, Ordering::Relaxed);
        if done.is_err() {
            self.panicked(index);
            return true;
        }
        shared.changed.load(Ordering::Relaxed)
    }

    #[cold]
    fn panicked(&mut self, index: u32) {
        let Some(mut slot) = self.lock(index) else {
            return;
        };
        let tuple = self.events.five_tuple(&slot);
        slot.note_end(End::ClosedHere);
        slot.flags |= CUT;
        drop(slot);
        events::handler_panicked(&tuple);
    }

    #[inline]
    fn occurred(&mut self, index: u32, occurred: Occurred) {
        let only_bytes = !occurred.writable && !occurred.ended;
        if occurred.writable {
            self.flush(index);
        }
        // Mostly there are some bytes, and the program does no more than answer them.
        let reads = occurred.readable || occurred.ended;
        let plain = reads && self.read(index, occurred.ended);
        if !(only_bytes && plain) {
            self.settle(index);
        }
    }

    /// Begins with a connection that is this loop's from now on.
    fn open(&mut self, index: u32, generation: u32) {
        self.call(index, generation, |handler, connection| handler.open(connection));
        // The order to tell all may have been before this one was here.
        if self.events.draining.load(Ordering::SeqCst) {
            self.tell_drain(index);
        }
        // What a client sends right after its handshake is there by now, mostly.
        self.read(index, false);
        let Some(mut slot) = self.lock(index) else {
            return;
        };
        if matches!(slot.next(), Next::Close { .. }) {
            return;
        }
        let (registry, waits) = (&self.events.loops[self.number].registry, slot.waits());
        let added = match &slot.socket {
            Some(socket) => registry.add(sys::borrow(socket), index as usize, waits),
            None => return,
        };
        match added {
            Ok(()) if waits => slot.flags |= REGISTERED | WATCHES_ROOM,
            Ok(()) => slot.flags |= REGISTERED,
            // Out of memory: it can only be let go.
            Err(_) => slot.flags |= CUT,
        }
    }

    fn tell_drain(&mut self, index: u32) {
        let Some(mut slot) = self.lock(index) else {
            return;
        };
        if slot.has(CLOSING | CUT | OVER | NEW | TOLD_DRAIN) {
            return;
        }
        slot.flags |= TOLD_DRAIN;
        let generation = slot.generation;
        drop(slot);
        self.call(index, generation, |handler, connection| handler.drain(connection));
    }
}
