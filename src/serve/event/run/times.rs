//! What is due on a connection: limits, heartbeats, the watch on a peer that may have vanished,
//! the program's own timer.

use std::mem;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::super::output::Message;
use super::super::slot::{CLOSING, CUT, IMPATIENT, OVER, RECEIVED, Slot};
use super::super::{age, span, steps};
use super::Loop;
use crate::client::end_by_error;
use crate::framing::Framing;
use crate::info::End;
use crate::liveness::{Ages, Due};
use crate::sys;

impl<'a> Loop<'a> {
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
    pub(super) fn set_timer(&mut self, slot: &mut Slot, index: u32) {
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

    pub(super) fn next_timer(&mut self) -> Option<u64> {
        let mut timers = mem::take(&mut self.timers);
        let next = timers.next(|moment, index| self.is_set(moment, index));
        self.timers = timers;
        next
    }

    pub(super) fn look_at_timers(&mut self) {
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
}
