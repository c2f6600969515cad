//! What is to be done with a connection after something has changed, up to its end.

use std::mem;
use std::net::Shutdown;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;

use super::super::slot::{
    CLOSING, CUT, FIN_SENT, IMPATIENT, LISTED, NEW, Next, OVER, PAUSED, RESUMED, SAW_END, Slot,
};
use super::super::{ACCEPT, CUT_ALL, LOOK, steps};
use super::{Accepting, Loop};
use crate::events;
use crate::info::End;
use crate::sys;

impl<'a> Loop<'a> {
    /// Does what is to be done with a connection after something has changed.
    pub(super) fn settle(&mut self, index: u32) {
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
}
