//! A loop: waits, reads, calls back, keeps times, accepts, closes.

use std::io;
use std::mem;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::SockRef;

use super::output::Message;
use super::slot::{
    CLOSING, CUT, FIN_SENT, IMPATIENT, Input, LISTED, LIVE, NEW, Next, OVER, PAUSED, RECEIVED,
    REGISTERED, RESUMED, SAW_END, Slot, TOLD_DRAIN, TOLD_END, WATCHES_ROOM,
};
use super::timers::Timers;
use super::{
    ACCEPT, CONNECT, CUT_ALL, Connection, DRAIN, Data, Events, HERE, Handler, LOOK, NONE, Origin,
    Shared, age, span, steps,
};
use crate::back_off::BackOff;
use crate::cancel::CancelToken;
use crate::client::end_by_error;
use crate::connect::Connecting;
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::framing::{Cut, Framing};
use crate::info::{Address, End};
use crate::liveness::{Ages, Due};
use crate::serve::Refusal;
use crate::server::{AcceptNow, Listener, OUT_OF_DESCRIPTORS};
use crate::sys::{self, InUse, Occurred, Owned, Poller, Tick, Wait};

/// What is read at a time.
const READ: usize = 64 * 1024;
/// How often in a row one connection is read from before others have their turn.
const ROUNDS: usize = 16;
/// How many connections are accepted in a row before others have their turn.
const BURST: usize = 64;
/// Buffers of messages in part that are kept for the next ones, and how large at most.
const SPARE: usize = 16;
const SPARE_SIZE: usize = READ;

/// Keys of what is no connection: the cancel token, and from here on the listeners.
const TOKEN: usize = usize::MAX - 1;
const LISTENERS: usize = TOKEN - 256;
/// And before those, from here on, connects.
const CONNECTS: usize = LISTENERS - (1 << 20);
/// Where a connect has no descriptor that tells, it is looked at this often.
const CONNECT_LOOK: Duration = Duration::from_millis(10);

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

/// A connect under way.
struct Connect {
    connecting: Connecting,
    data: Option<Data>,
    /// Its descriptor tells when there is something to do.
    watched: bool,
}

impl Connect {
    fn timeout(&self) -> Option<Duration> {
        let look = (!self.watched).then_some(CONNECT_LOOK);
        [self.connecting.timeout(), look].into_iter().flatten().min()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// Every place is taken: until a connection ends.
    Full,
    /// Descriptors or memory are used up: until then, or a connection ends.
    Exhausted(u64),
}

/// What a read came to.
enum Got {
    Bytes(usize),
    End,
    /// Thrown away, or interrupted.
    Again,
    Nothing,
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
                TOKEN => it.accepting_ended(None),
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

    // ---- calling back -------------------------------------------------------------------------

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

    // ---- what occurs --------------------------------------------------------------------------

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

    /// Reads what is there, or with `to_end` until the end that the kernel has told of. True: all
    /// is as it was before, and there is nothing else to be done.
    fn read(&mut self, index: u32, to_end: bool) -> bool {
        let mut buf = mem::take(&mut self.buf);
        let plain = self.read_with(index, to_end, &mut buf);
        self.buf = buf;
        plain
    }

    #[inline]
    fn read_with(&mut self, index: u32, to_end: bool, buf: &mut [u8]) -> bool {
        for _ in 0..ROUNDS {
            let Some(mut slot) = self.lock(index) else {
                return false;
            };
            let generation = slot.generation;
            // With the first byte another limit holds.
            let first = self.events.asked.first_byte_limit.is_some() && !slot.has(RECEIVED);
            let got = self.receive(&mut slot, index, buf, to_end);
            drop(slot);
            match got {
                Got::Bytes(n) => {
                    let changed = self.deliver(index, generation, &buf[..n], false) || first;
                    if n < buf.len() && !to_end {
                        return !changed;
                    }
                }
                Got::Again => {}
                Got::End => {
                    self.deliver(index, generation, &[], true);
                    self.tell_end(index, generation);
                    return false;
                }
                Got::Nothing => return false,
            }
        }
        // There may be more, of which the kernel will not tell again.
        if let Some(mut slot) = self.lock(index) {
            slot.flags |= RESUMED;
        }
        false
    }

    #[inline]
    fn receive(&self, slot: &mut Slot, index: u32, buf: &mut [u8], to_end: bool) -> Got {
        let throws_away = slot.has(CLOSING) && !slot.has(CUT | OVER | SAW_END);
        let Some(socket) = slot.socket.as_ref().map(sys::borrow) else {
            return Got::Nothing;
        };
        if !slot.reads() && !throws_away {
            if to_end && !slot.has(CUT | OVER) {
                // Paused, or half-closed; but one that broke off is not to be waited for.
                if let Ok(Some(e)) = SockRef::from(&socket).take_error() {
                    self.events.broken(slot, index, &e);
                }
            }
            return Got::Nothing;
        }
        match sys::recv(socket, buf, Wait::No) {
            Ok(0) => {
                slot.flags |= SAW_END;
                slot.note_end(End::ClosedByPeer);
                if throws_away { Got::Nothing } else { Got::End }
            }
            Ok(_) if throws_away => Got::Again,
            Ok(n) => {
                slot.flags |= RECEIVED;
                slot.received = self.now as u32;
                self.events.traffic.received(n);
                Got::Bytes(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Got::Again,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Got::Nothing,
            Err(e) => {
                self.events.broken(slot, index, &e);
                Got::Nothing
            }
        }
    }

    /// Hands over what came; true: the connection was changed.
    #[inline]
    fn deliver(&mut self, index: u32, generation: u32, data: &[u8], ended: bool) -> bool {
        match self.events.push.framing {
            Framing::Raw if data.is_empty() => false,
            Framing::Raw => {
                self.call(index, generation, |handler, connection| handler.data(connection, data))
            }
            framing => {
                self.deliver_messages(index, generation, data, framing, ended);
                true
            }
        }
    }

    /// Hands messages over; what is the beginning of one is kept.
    fn deliver_messages(
        &mut self,
        index: u32,
        generation: u32,
        data: &[u8],
        framing: Framing,
        ended: bool,
    ) {
        let Some(fresh) = framing.cutter() else {
            return;
        };
        let kept = self.lock(index).and_then(|mut slot| slot.rare.as_mut()?.input.take());
        let (mut kept, mut cutter) = match kept {
            Some(mut input) => {
                input.bytes.extend_from_slice(data);
                (Some(input.bytes), input.cutter)
            }
            None => (None, fresh),
        };
        let bytes: &[u8] = kept.as_deref().unwrap_or(data);
        let mut done = 0;
        while self.takes_messages(index) {
            match cutter.cut(&bytes[done..], ended) {
                Cut::Piece { range, len } => {
                    let message = &bytes[done..][range];
                    self.call(index, generation, |handler, connection| {
                        handler.data(connection, message);
                    });
                    done += len;
                    if let Some(fresh) = framing.cutter() {
                        cutter = fresh;
                    }
                }
                Cut::More => break,
                Cut::TooLong => {
                    if let Some(mut slot) = self.lock(index) {
                        slot.note_end(End::TooLong);
                        slot.flags |= CUT;
                    }
                    return;
                }
            }
        }
        if done == bytes.len() {
            self.spare(kept);
            return;
        }
        let rest = match kept.take() {
            Some(mut bytes) => {
                bytes.drain(..done);
                bytes
            }
            None => {
                let mut bytes = self.spare.pop().unwrap_or_default();
                bytes.extend_from_slice(&data[done..]);
                bytes
            }
        };
        match self.lock(index) {
            Some(mut slot) if !slot.has(CLOSING | CUT | OVER) => {
                slot.rare().input = Some(Input { bytes: rest, cutter });
            }
            _ => self.spare(Some(rest)),
        }
    }

    fn takes_messages(&self, index: u32) -> bool {
        let stops = PAUSED | CLOSING | CUT | OVER;
        self.lock(index).is_some_and(|slot| !slot.has(stops))
    }

    /// Keeps a buffer for the next message that comes in parts.
    fn spare(&mut self, bytes: Option<Vec<u8>>) {
        if let Some(mut bytes) = bytes {
            if self.spare.len() < SPARE && bytes.capacity() <= SPARE_SIZE {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }

    /// Tells the program that the peer has ended its side, once all before has been told.
    fn tell_end(&mut self, index: u32, generation: u32) {
        let Some(mut slot) = self.lock(index) else {
            return;
        };
        if slot.has(PAUSED | CLOSING | CUT | OVER | TOLD_END) || !slot.has(SAW_END) {
            return;
        }
        slot.flags |= TOLD_END;
        drop(slot);
        self.call(index, generation, |handler, connection| handler.finished(connection));
    }

    /// Hands to the kernel what waits.
    fn flush(&mut self, index: u32) {
        let Some(mut guard) = self.lock(index) else {
            return;
        };
        let slot = &mut *guard;
        let (Some(output), Some(socket)) = (&mut slot.output, &slot.socket) else {
            return;
        };
        if slot.flags & (CUT | OVER) != 0 {
            return;
        }
        let mut total = 0;
        let failure = loop {
            let (slices, count) = output.slices();
            if count == 0 {
                break None;
            }
            match sys::send_slices(sys::borrow(socket), &slices[..count], Wait::No) {
                Ok(n) => {
                    output.advance(n);
                    total += n;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break None,
                Err(e) => break Some(e),
            }
        };
        let emptied = output.is_empty();
        if total > 0 {
            self.events.traffic.sent(total);
            slot.wrote = self.now as u32;
        }
        if let Some(e) = failure {
            self.events.broken(slot, index, &e);
            return;
        }
        if emptied {
            // Most connections are idle: an empty queue takes no room.
            slot.output = None;
            let (tells, generation) = (!slot.has(CLOSING | CUT | OVER), slot.generation);
            drop(guard);
            if tells {
                self.call(index, generation, |handler, connection| handler.writable(connection));
            }
        }
    }

    // ---- ending, and what is due ------------------------------------------------------------------

    /// Does what is to be done with a connection after something has changed.
    fn settle(&mut self, index: u32) {
        loop {
            let Some(mut guard) = self.lock(index) else {
                return;
            };
            let slot = &mut *guard;
            let generation = slot.generation;
            if slot.has(NEW) {
                slot.flags &= !NEW;
                drop(guard);
                self.open(index, generation);
                continue;
            }
            match slot.next() {
                Next::Close { reset } => {
                    drop(guard);
                    return self.finish(index, generation, reset);
                }
                Next::SendFin => {
                    slot.flags |= FIN_SENT;
                    let ended = slot.socket.as_ref().map(|socket| {
                        SockRef::from(&sys::borrow(socket)).shutdown(Shutdown::Write)
                    });
                    if let Some(Err(e)) = ended {
                        self.events.broken(slot, index, &e);
                    }
                    continue;
                }
                Next::Nothing => {}
            }
            if slot.has(OVER) {
                return;
            }
            if slot.has(CLOSING) && slot.rare().close_by.is_none() {
                // From now on what comes is thrown away, and what is there already.
                self.now = self.events.now();
                let limit = steps(self.events.close_timeout);
                slot.rare().close_by = Some(self.now.saturating_add(limit));
                if limit == 0 {
                    slot.flags |= IMPATIENT;
                }
                slot.flags &= !PAUSED;
                drop(guard);
                self.read(index, true);
                continue;
            }
            if slot.has(RESUMED) {
                slot.flags &= !RESUMED;
                let ended = slot.has(SAW_END);
                drop(guard);
                self.deliver(index, generation, &[], ended);
                self.tell_end(index, generation);
                self.read(index, true);
                // One that has more to read lets the others have their turn.
                if let Some(mut slot) = self.lock(index) {
                    if slot.has(RESUMED) && !slot.has(PAUSED | CUT | OVER | SAW_END) {
                        self.list_again(&mut slot, index);
                        return;
                    }
                    slot.flags &= !RESUMED;
                }
                continue;
            }
            self.set_timer(slot, index);
            return;
        }
    }

    fn list_again(&self, slot: &mut Slot, index: u32) {
        if !slot.has(LISTED) {
            slot.flags |= LISTED;
            let list = &self.events.loops[self.number].list;
            list.lock().unwrap_or_else(PoisonError::into_inner).push(index);
            self.shared().order(LOOK, true);
        }
    }

    fn ages(&self, slot: &Slot) -> Ages {
        Ages {
            received: span(age(self.now, slot.received)),
            has_received: slot.has(RECEIVED),
            wrote: span(age(self.now, slot.wrote)),
        }
    }

    /// Sees to it that the connection is looked at in time. A timer that is set too early is left
    /// alone: so what comes and goes costs nothing here.
    #[inline]
    fn set_timer(&mut self, slot: &mut Slot, index: u32) {
        if slot.rare.is_none() && !self.events.asked.has_limits() {
            return;
        }
        self.now = self.events.now();
        let Some(due) = self.due(slot) else {
            return;
        };
        // Some months ahead the numbers would go round.
        let due = due.min(self.now + (1 << 30));
        let set = (slot.due != 0).then(|| self.whole(slot.due));
        if set.is_some_and(|set| set <= due) {
            return;
        }
        if set.is_some() {
            self.timers.give_up();
        }
        // Zero stands for none.
        let due = if due as u32 == 0 { due + 1 } else { due };
        slot.due = due as u32;
        self.timers.set(due, index);
    }

    /// The moment that the lower half of a number stands for.
    fn whole(&self, low: u32) -> u64 {
        self.now.wrapping_add_signed(i64::from(low.wrapping_sub(self.now as u32) as i32))
    }

    fn due(&self, slot: &Slot) -> Option<u64> {
        let rare = slot.rare.as_deref();
        if slot.has(CLOSING) {
            return rare.and_then(|rare| rare.close_by);
        }
        // The step that is going on does not count.
        let from_now = |time: Duration| self.now.saturating_add(steps(time) + 1);
        let limits = self.events.asked.next(self.ages(slot), slot.reads()).map(from_now);
        let watch = rare
            .and_then(|rare| rare.watch.as_ref())
            .map(|watch| from_now(watch.next.saturating_duration_since(Instant::now())));
        [limits, watch, rare.and_then(|rare| rare.timer)].into_iter().flatten().min()
    }

    fn next_timer(&mut self) -> Option<u64> {
        let mut timers = mem::take(&mut self.timers);
        let next = timers.next(|moment, index| self.is_set(moment, index));
        self.timers = timers;
        next
    }

    fn look_at_timers(&mut self) {
        // Those that are set meanwhile have their turn after all else.
        let now = self.now;
        loop {
            let mut timers = mem::take(&mut self.timers);
            let due = timers.take(now, |moment, index| self.is_set(moment, index));
            self.timers = timers;
            match due {
                Some(index) => self.time_has_come(index),
                None => return,
            }
        }
    }

    fn is_set(&self, moment: u64, index: u32) -> bool {
        self.lock(index).is_some_and(|slot| slot.due == moment as u32)
    }

    fn time_has_come(&mut self, index: u32) {
        let Some(mut guard) = self.lock(index) else {
            return;
        };
        let slot = &mut *guard;
        slot.due = 0;
        let generation = slot.generation;
        let mut calls = false;
        if slot.has(CLOSING) {
            let close_by = slot.rare.as_ref().and_then(|rare| rare.close_by);
            if close_by.is_some_and(|by| by <= self.now) {
                slot.flags |= IMPATIENT;
            }
        } else if !slot.has(CUT | OVER) {
            self.keep_alive(slot, index);
            if let Some(rare) = &mut slot.rare {
                calls = rare.timer.take_if(|at| *at <= self.now).is_some();
            }
        }
        drop(guard);
        if calls {
            self.call(index, generation, |handler, connection| handler.timer(connection));
        }
        self.settle(index);
    }

    /// Heartbeat, idle limit, and the watch on a peer that may have vanished.
    fn keep_alive(&self, slot: &mut Slot, index: u32) {
        let asked = &self.events.asked;
        let Some(socket) = slot.socket.as_ref().map(sys::borrow) else {
            return;
        };
        if let (Some(watch), Some(time)) =
            (slot.rare.as_mut().and_then(|rare| rare.watch.as_mut()), asked.watched())
        {
            let now = Instant::now();
            if watch.next <= now {
                match sys::silence(socket) {
                    Err(_) => watch.next = now + time / 4,
                    Ok(silence) if watch.is_dead(now, time, silence) => {
                        // What a router said while the kernel was trying is no answer.
                        let said = SockRef::from(&socket).take_error().ok().flatten();
                        let said = said.filter(sys::is_from_network).and_then(|e| e.raw_os_error());
                        let end = end_by_error(socket, said.unwrap_or(sys::GIVEN_UP), Some(asked));
                        slot.note_end(end);
                        slot.flags |= CUT;
                        return;
                    }
                    Ok(_) => {}
                }
            }
        }
        match asked.due(self.ages(slot), slot.reads()) {
            Due::Nothing => {}
            // What has come meanwhile is no silence.
            Due::End(_) if sys::unread(socket).is_some_and(|n| n > 0) => {
                slot.received = self.now as u32;
            }
            Due::End(end) => {
                slot.note_end(end);
                // Who missed heartbeats would not take a graceful end either.
                slot.flags |= if end == End::HeartbeatMissed { CUT } else { CLOSING };
            }
            Due::Heartbeat => {
                let bytes = asked.heartbeat.as_ref().map(|heartbeat| &*heartbeat.bytes);
                if let Some(beat) = bytes.and_then(|bytes| Message::new(Framing::Raw, bytes)) {
                    if !slot.waits() {
                        self.events.send_locked(slot, index, &beat);
                    }
                }
                // Whatever came of it, the next one is not due before its time.
                slot.wrote = self.now as u32;
            }
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

    /// The connection is over: its last callback, and its place is free.
    fn finish(&mut self, index: u32, generation: u32, reset: bool) {
        let events = self.events;
        let Some(mut slot) = self.lock(index) else {
            return;
        };
        slot.flags |= OVER;
        slot.note_end(End::ClosedHere);
        let end = slot.end().unwrap_or(End::ClosedHere);
        events.give_up_output(&mut slot);
        if slot.due != 0 {
            self.timers.give_up();
            slot.due = 0;
        }
        let in_groups = slot.rare.as_ref().is_some_and(|rare| !rare.groups.is_empty());
        let told = events::tells_of(end).then(|| events.five_tuple(&slot));
        drop(slot);
        if in_groups {
            events.groups.leave((index, generation), || {
                let slot = events.slots.lock(index);
                slot.and_then(|mut slot| Some(mem::take(&mut slot.rare.as_mut()?.groups)))
                    .unwrap_or_default()
            });
        }
        self.call(index, generation, |handler, connection| handler.close(connection, end));
        if let Some(tuple) = told {
            events::ended(&tuple, end);
        }
        let Some(mut slot) = self.lock(index) else {
            return;
        };
        // Asked only if somebody counts by addresses.
        let counted = slot.is_accepted() && events.gate.limits.per_address.is_some();
        let peer = counted.then(|| slot.peer());
        let (socket, rare) = slot.clear();
        drop(slot);
        if let (Some(socket), true) = (&socket, reset) {
            // socket(7): a linger time of zero makes close(2) send RST.
            let _ = SockRef::from(&sys::borrow(socket)).set_linger(Some(Duration::ZERO));
        }
        drop((socket, rare));
        events.traffic.ended(end);
        let mut state = events.gate.lock();
        events.gate.dismiss(&mut state, peer.as_ref());
        state.own.give_back(index, self.number);
        let was_full = mem::replace(&mut state.own.full, false);
        let last = state.live == 0;
        events.gate.tell(state);
        if was_full {
            events.loops[0].order(ACCEPT, self.number == 0);
        }
        if last && events.ending.load(Ordering::SeqCst) {
            events.order_all(CUT_ALL);
        }
        if let Accepting::Exhausted(_) = self.accepting {
            // A descriptor is free.
            self.accepting = Accepting::Exhausted(self.now);
        }
    }

    // ---- connecting ---------------------------------------------------------------------------

    /// Begins with connects.
    fn connect(&mut self) {
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
    fn look_at_connects(&mut self) {
        let due = |(key, connect): (usize, &Connect)| {
            let due = !connect.watched || connect.timeout().is_some_and(|time| time.is_zero());
            due.then_some(key)
        };
        let due: Vec<_> = self.connects.iter().filter_map(due).collect();
        for key in due {
            self.go_on_connecting(key);
        }
    }

    fn go_on_connecting(&mut self, key: usize) {
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

    fn connect_failed(&self, error: &Error, data: Option<Data>) {
        let handler = &*self.events.handler;
        // The panic hook has told of it; there is no connection to reset.
        let _ = catch_unwind(AssertUnwindSafe(|| handler.connect_failed(error, data)));
    }

    // ---- accepting ----------------------------------------------------------------------------

    fn begin_accepting(&mut self, token: Option<&CancelToken>) {
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
        for (number, (_, held)) in self.listeners.iter().enumerate() {
            if let Err(e) = registry.add_listener(held.socket(), LISTENERS + number) {
                return self.accepting_ended(Some(Error::os("accept", &e)));
            }
        }
    }

    fn watch_listeners(&mut self) {
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

    fn accepting_ended(&mut self, failure: Option<Error>) {
        let registry = &self.events.loops[0].registry;
        for (_, held) in self.listeners.drain(..) {
            registry.remove(held.socket());
        }
        self.waiting = None;
        self.accepting = Accepting::Yes;
        self.events.gate.accepting_ended(failure);
    }

    /// Accepts one, or, where wake-ups for it follow each other, some more.
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
    fn accept_again(&mut self) {
        if self.listeners.iter().any(|(listener, _)| listener.is_closed()) {
            self.accepting_ended(None);
        } else if self.accepting == Accepting::Full {
            self.watch_listeners();
            if let Some((socket, peer, listener)) = self.waiting.take() {
                self.begin(socket, &peer, listener);
            }
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
