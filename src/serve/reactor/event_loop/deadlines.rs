//! Timers of a connection: timeouts, heartbeats, dead-peer detection, and the program's own timer.

use std::mem;
use std::time::{Duration, Instant};

use crate::sys::SockRef;

use super::super::clock::{age, span, steps};
use super::super::conn_table::{
    CLOSE_TIMED_OUT, CLOSED, CLOSING, ColdState, ConnEntry, FAILED, READ_PENDING, RECEIVED,
    RESET_PENDING,
};
use super::super::send::SendOutcome;
use super::super::send_queue::{Body, Message};
use super::Loop;
use crate::stream::end_by_error;
use crate::stream::liveness::{Due, IdleTimes, Timers};
use crate::sys;
use crate::types::close_reason::CloseReason;
use crate::types::framing::Framing;
use crate::types::liveness::LivenessConfig;

/// The maximum number of heartbeats sent without an answer.
const MOST_BEATS: u8 = u8::MAX;

/// The earliest of several times. Times that are not set take part in no comparison, because
/// memcheck would report a jump that depends on an uninitialized value.
fn earliest<const N: usize>(times: [Option<u64>; N]) -> Option<u64> {
    const NEVER: u64 = u64::MAX;
    let earliest = times.into_iter().fold(NEVER, |first, at| first.min(at.unwrap_or(NEVER)));
    (earliest != NEVER).then_some(earliest)
}

impl<'a> Loop<'a> {
    fn ages(&self, entry: &ConnEntry, every: Duration) -> IdleTimes {
        let since = |stamp: u32| span(age(self.now, stamp));
        let received = since(entry.received);
        let first = (entry.beats > 0).then(|| since(entry.beat));
        let sending = entry.cold.as_ref().and_then(|cold| cold.sending.as_ref());
        IdleTimes {
            received,
            has_received: entry.has(RECEIVED),
            wrote: since(entry.wrote),
            // Later heartbeats follow the first one at the heartbeat interval.
            beat: first.map(|first| {
                first.saturating_sub(every.saturating_mul(u32::from(entry.beats) - 1))
            }),
            unanswered: first.filter(|first| *first < received),
            acknowledged: sending.and_then(|sending| sending.age(span(self.now))),
            unread: None,
        }
    }

    fn liveness_view<'b>(&'b self, entry: &ConnEntry, liveness: &'b LivenessConfig) -> Timers<'b> {
        let every = liveness.heartbeat.as_ref().map_or(Duration::ZERO, |heartbeat| heartbeat.every);
        let ages = self.ages(entry, every);
        let enough = ages.unanswered.is_some() && entry.beats == MOST_BEATS;
        Timers {
            config: liveness,
            times: ages,
            pauses: &self.pauses,
            now: span(self.now),
            reads: entry.counts_idle_time(),
            receives: entry.may_read(),
            may_beat: entry.may_send() && !entry.has_queued() && !enough,
        }
    }

    /// Records the time at which the loop wakes. If it is much later than intended, the process was
    /// stopped or callbacks took long. That time does not count for the peers.
    #[inline]
    pub(super) fn woke(&mut self, slept: Option<Duration>) {
        if let Some(slept) = slept {
            let stop = span(self.now.saturating_sub(self.woke_at)).saturating_sub(slept);
            self.pauses.note(span(self.now), stop);
        }
        self.woke_at = self.now;
    }

    /// Records the duration of callbacks since the loop woke, during which the loop did not read.
    /// Returns the current time.
    pub(super) fn note_callbacks(&mut self) -> u64 {
        let now = self.service.now();
        self.pauses.note(span(now), span(now.saturating_sub(self.woke_at)));
        now
    }

    /// Sets the timer of a connection. A timer that is set to an earlier time stays, so traffic on
    /// the connection costs nothing here.
    #[inline]
    pub(super) fn set_timer(&mut self, entry: &mut ConnEntry, index: u32) {
        match &mut entry.cold {
            Some(cold) => self.set_program_timer(cold, index),
            None if !self.service.accepted_config.liveness.has_limits() => return,
            None => {}
        }
        self.now = self.service.now();
        let Some(due) = self.due(entry) else {
            return;
        };
        // Within half the range of the 32-bit times, which is about 400 days.
        let due = due.min(self.now + (1 << 30));
        let set = (entry.due != 0).then(|| self.expand(entry.due));
        if set.is_some_and(|set| set <= due) {
            return;
        }
        if set.is_some() {
            self.timers.cancel();
        }
        // 0 means that no timer is set.
        let due = if due as u32 == 0 { due + 1 } else { due };
        entry.due = due as u32;
        self.timers.set(due, index);
    }

    /// The time that the low half of a time stands for.
    fn expand(&self, low: u32) -> u64 {
        self.now.wrapping_add_signed(i64::from(low.wrapping_sub(self.now as u32) as i32))
    }

    fn due(&self, entry: &ConnEntry) -> Option<u64> {
        let cold = entry.cold.as_deref();
        if entry.has(CLOSING) {
            return cold.and_then(|cold| earliest([cold.close_by, cold.retry]));
        }
        // The current step is already partly over.
        let from_now = |time: Duration| self.now.saturating_add(steps(time) + 1);
        let liveness = &self.service.config(entry).liveness;
        let limits = self.liveness_view(entry, liveness).next().map(from_now);
        let watch = cold
            .and_then(|cold| cold.watch.as_ref())
            .map(|watch| from_now(watch.next.saturating_duration_since(Instant::now())));
        earliest([limits, watch, cold.and_then(|cold| cold.retry)])
    }

    /// Sets the timer of the program. A timer that is set to an earlier time stays, so a timer that is
    /// set again and again costs nothing here.
    fn set_program_timer(&mut self, cold: &mut ColdState, index: u32) {
        let Some(at) = cold.timer else {
            return;
        };
        if let Some(set) = cold.timer_set {
            if set <= at {
                return;
            }
            self.program_timers.remove(&(set, index));
        }
        cold.timer_set = Some(at);
        self.program_timers.insert((at, index));
    }

    /// Removes the timer of a connection that ends.
    pub(super) fn remove_program_timer(&mut self, entry: &mut ConnEntry, index: u32) {
        let set = entry.cold.as_mut().and_then(|cold| cold.timer_set.take());
        if let Some(set) = set {
            self.program_timers.remove(&(set, index));
        }
    }

    /// Calls the timer callbacks that are due. Timers that are set during this call run in the next
    /// round.
    #[cold]
    pub(super) fn run_program_timers(&mut self) {
        let now = self.service.elapsed();
        while let Some((_, index)) =
            self.program_timers.first().copied().filter(|(at, _)| *at <= now)
        {
            self.program_timers.pop_first();
            self.now = self.note_callbacks();
            let Some(mut entry) = self.lock(index) else {
                continue;
            };
            let (ends, generation) =
                (entry.has(CLOSING | RESET_PENDING | CLOSED), entry.generation);
            let due = entry.cold.as_mut().is_some_and(|cold| {
                cold.timer_set = None;
                cold.timer.take_if(|at| *at <= now).is_some()
            });
            drop(entry);
            if due && !ends {
                self.call_as_push(index, generation, |handler, connection| {
                    handler.on_timer(connection)
                });
            }
            self.advance(index);
        }
    }

    pub(super) fn next_timer(&mut self) -> Option<u64> {
        let mut timers = mem::take(&mut self.timers);
        let next = timers.next(|time, index| self.is_set(time, index));
        self.timers = timers;
        next
    }

    pub(super) fn run_timers(&mut self) {
        // Timers set during this call run in the next round.
        let now = self.now;
        loop {
            let mut timers = mem::take(&mut self.timers);
            let due = timers.pop_expired(now, |time, index| self.is_set(time, index));
            self.timers = timers;
            match due {
                Some(index) => self.on_timer(index),
                None => return,
            }
        }
    }

    fn is_set(&self, time: u64, index: u32) -> bool {
        self.lock(index).is_some_and(|entry| entry.due == time as u32)
    }

    fn on_timer(&mut self, index: u32) {
        let Some(mut guard) = self.lock(index) else {
            return;
        };
        let config = self.service.config(&guard).clone();
        self.now = self.note_callbacks();
        let ends = matches!(self.liveness_view(&guard, &config.liveness).due(), Due::Close(_));
        if ends && !guard.has(CLOSING | RESET_PENDING | CLOSED) {
            // Bytes that have arrived count as activity once they are read. Bytes that stay unread
            // do not.
            drop(guard);
            self.read(index, true);
            guard = match self.lock(index) {
                Some(entry) => entry,
                None => return,
            };
        }
        let entry = &mut *guard;
        entry.due = 0;
        let retry = entry.cold.as_mut().and_then(|cold| cold.retry.take_if(|at| *at <= self.now));
        let retries = retry.is_some();
        if retries {
            entry.flags |= READ_PENDING;
        }
        if entry.has(CLOSING) {
            let close_by = entry.cold.as_ref().and_then(|cold| cold.close_by);
            if close_by.is_some_and(|by| by <= self.now) && !self.extend_close_for_drain(entry) {
                entry.flags |= CLOSE_TIMED_OUT;
            }
        } else if !entry.has(RESET_PENDING | CLOSED) {
            self.run_liveness(entry, index, &config.liveness);
        }
        drop(guard);
        if retries {
            self.flush(index);
        }
        self.advance(index);
    }

    /// Sends heartbeats, applies timeouts, and detects a dead peer.
    fn run_liveness(&self, entry: &mut ConnEntry, index: u32, liveness: &LivenessConfig) {
        let Some(socket) = entry.socket.as_ref().map(sys::borrow) else {
            return;
        };
        let has_failed = entry.has(FAILED);
        if let (Some(watch), Some(time)) =
            (entry.cold.as_mut().and_then(|cold| cold.watch.as_mut()), liveness.watched())
        {
            let now = Instant::now();
            if watch.next <= now {
                let silence = sys::silence(socket).map(|mut silence| {
                    // A connection that has failed no longer receives.
                    silence.owes |= has_failed;
                    silence
                });
                match silence {
                    Err(_) => watch.next = now + time / 4,
                    Ok(silence) if watch.is_dead(now, time, silence) => {
                        // An ICMP error received during retransmission is the cause, but not an
                        // answer of the peer.
                        let reported = SockRef::from(&socket).take_error().ok().flatten();
                        let reported =
                            reported.filter(sys::is_from_network).and_then(|e| e.raw_os_error());
                        let end = end_by_error(
                            socket,
                            reported.unwrap_or(sys::TIMEOUT_ERRNO),
                            Some(liveness),
                        );
                        entry.record_close_reason(end);
                        entry.flags |= RESET_PENDING;
                        return;
                    }
                    Ok(_) => {}
                }
            }
        }
        let mut look = self.liveness_view(entry, liveness);
        let mut due = look.due();
        if let (Due::Close(CloseReason::IdleTimeout), Some(limit), true) =
            (due, liveness.idle_timeout, look.counts_sent())
        {
            // The connection is not idle if the peer acknowledges the sent bytes.
            let kernel = entry.is_inet().then(|| sys::acknowledged(socket)).flatten();
            let (now, ages) = (look.now, look.times);
            let sending = entry.cold().sending.get_or_insert_default();
            sending.update(now, limit, ages, kernel);
            look = self.liveness_view(entry, liveness);
            due = look.due();
        }
        match due {
            Due::Nothing => {}
            Due::Close(end) => {
                entry.record_close_reason(end);
                // A peer without heartbeat answers would not take part in a graceful close either.
                // An idle peer had the whole timeout to receive the sent bytes, so the close does
                // not wait for its FIN.
                entry.flags |= if end == CloseReason::HeartbeatTimeout {
                    RESET_PENDING
                } else {
                    CLOSING | CLOSE_TIMED_OUT
                };
            }
            Due::Heartbeat => {
                let anew = look.starts_heartbeat_timeout();
                self.send_heartbeat(entry, index, liveness, anew);
            }
        }
    }

    fn send_heartbeat(
        &self,
        entry: &mut ConnEntry,
        index: u32,
        liveness: &LivenessConfig,
        anew: bool,
    ) {
        let Some(heartbeat) = &liveness.heartbeat else {
            return;
        };
        let Some(message) = Message::new(Framing::Raw, Body::Whole(&heartbeat.bytes)) else {
            return;
        };
        let wrote = entry.wrote;
        if self.service.send_locked(entry, index, &message, None) == SendOutcome::NoMemory {
            // Nothing was sent. The next attempt comes one interval later.
            entry.wrote = self.now as u32;
            return;
        }
        // A heartbeat does not count as traffic of the program.
        entry.wrote = wrote;
        if let Some(sending) = entry.cold.as_mut().and_then(|cold| cold.sending.as_mut()) {
            sending.note_heartbeat(span(self.now), heartbeat.bytes.len());
        }
        if entry.has_queued() || entry.has(RESET_PENDING) {
            return;
        }
        if anew || liveness.heartbeat_timeout.is_none() {
            (entry.beat, entry.beats) = (self.now as u32, 1);
        } else {
            let since = span(age(self.now, entry.beat)).as_nanos();
            let before = since / heartbeat.every.as_nanos().max(1);
            entry.beats = u8::try_from(before + 1).unwrap_or(MOST_BEATS);
        }
    }
}
