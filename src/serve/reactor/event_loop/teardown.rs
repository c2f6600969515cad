//! Processing of an entry after a change, up to the end of the connection.

use std::mem;
use std::net::Shutdown;

use crate::sys::SockRef;

use super::super::clock::steps;
use super::super::conn_table::{
    BUFFERED, CLOSE_TIMED_OUT, CLOSED, CLOSING, ConnEntry, EOF_DELIVERED, FAILED, FIN_SENT,
    NextAction, PAUSED, QUEUED, READ_PENDING, RECV_EOF, REGISTERED, RESET_PENDING, THROTTLED,
    UNOPENED, WATCHES_WRITABLE,
};
use super::super::loop_shared::{CMD_ACCEPT, CMD_RESET_ALL, Connecting};
use super::super::send::RETRY_DELAY;
use super::super::slots::SlotAllocator;
use super::{Accepting, Loop};
use crate::io::panic_guard::panics;
use crate::log;
use crate::serve::lifecycle::{End, Locked};
use crate::stream::is_delivered;
use crate::sys;
use crate::sys::sync::MutexGuard;
use crate::sys::sync::atomic::Ordering;
use crate::types::close_reason::CloseReason;
use crate::types::framing::Framing;

/// Whether the connection is being closed and the peer has received everything. Only the peer's FIN
/// is missing.
pub(super) fn is_close_delivered(entry: &ConnEntry) -> bool {
    entry.has(CLOSING)
        && entry.has(FIN_SENT)
        && !entry.has_queued()
        && entry.socket.as_ref().is_some_and(|s| is_delivered(sys::borrow(s), entry.is_inet()))
}

impl<'a> Loop<'a> {
    /// Processes an entry after a change, until nothing is left to do.
    pub(super) fn advance(&mut self, index: u32) {
        let mut has_run_tasks = false;
        let mut has_flushed = false;
        loop {
            let Some(mut guard) = self.lock(index) else {
                return;
            };
            let entry = &mut *guard;
            let generation = entry.generation;
            if entry.has(UNOPENED) {
                entry.flags &= !UNOPENED;
                drop(guard);
                if self.open(index, generation) {
                    return;
                }
                continue;
            }
            if entry.has_tasks() {
                if !has_run_tasks {
                    drop(guard);
                    self.run_tasks(index, generation);
                    has_run_tasks = true;
                    continue;
                }
                // A callback has posted it since. Other connections run first.
                self.requeue(entry, index);
            }
            match entry.next_action() {
                NextAction::Close { reset } => {
                    drop(guard);
                    return self.teardown(index, generation, reset);
                }
                NextAction::SendFin => {
                    entry.flags |= FIN_SENT;
                    let ended = entry.socket.as_ref().map(|socket| {
                        SockRef::from(&sys::borrow(socket)).shutdown(Shutdown::Write)
                    });
                    if let Some(Err(e)) = ended {
                        self.service.record_error(entry, index, &e);
                    }
                    continue;
                }
                NextAction::Nothing => {}
            }
            if entry.has(CLOSED) {
                return;
            }
            if entry.has(CLOSING) && entry.cold().close_by.is_none() {
                // From now on received bytes are discarded, including those already in the kernel.
                self.now = self.service.now();
                let limit = steps(self.service.config(entry).close_timeout);
                entry.cold().close_by = Some(self.now.saturating_add(limit));
                if limit == 0 && !self.extend_close_for_drain(entry) {
                    entry.flags |= CLOSE_TIMED_OUT;
                }
                entry.flags &= !(PAUSED | THROTTLED);
                drop(guard);
                self.read(index, true);
                continue;
            }
            if entry.queue.as_ref().is_some_and(|queue| queue.is_ready) {
                if !has_flushed {
                    has_flushed = true;
                    drop(guard);
                    self.flush(index);
                    continue;
                }
                // One piece of a file is sent. Other connections run before the next one.
                self.requeue(entry, index);
            }
            if entry.has(READ_PENDING) {
                entry.flags &= !READ_PENDING;
                let ended = entry.has(RECV_EOF);
                let is_raw = self.service.config(entry).messages.framing == Framing::Raw;
                let delivers = entry.has(BUFFERED) || !is_raw;
                drop(guard);
                if delivers {
                    self.deliver(index, generation, &[], ended);
                }
                self.deliver_eof(index, generation);
                self.read(index, true);
                // A connection with more bytes to read lets other connections run first.
                if let Some(mut entry) = self.lock(index) {
                    let is_done = entry
                        .has(PAUSED | THROTTLED | RESET_PENDING | CLOSED | EOF_DELIVERED)
                        || entry.has(RECV_EOF) && entry.has(CLOSING);
                    if entry.has(READ_PENDING) && !is_done {
                        self.requeue(&mut entry, index);
                        return;
                    }
                    entry.flags &= !READ_PENDING;
                }
                continue;
            }
            if sys::REARMS {
                self.rearm(entry, index);
            }
            self.set_timer(entry, index);
            return;
        }
    }

    /// Lets the poller report a connection again. Each report ends the reports, and a change of the
    /// connection changes the events that it needs.
    fn rearm(&self, entry: &mut ConnEntry, index: u32) {
        // The end of a connection that has failed needs no event.
        if !entry.has(REGISTERED) || entry.has(FAILED | RESET_PENDING | CLOSED) {
            return;
        }
        let Some(socket) = entry.socket.as_ref().map(sys::borrow) else {
            return;
        };
        // A timer retries what the kernel had no memory for.
        let retries = entry.cold.as_ref().is_some_and(|cold| cold.retry.is_some());
        let readable = !retries && (entry.may_read() || entry.discards());
        let writable = !retries && entry.has_queued();
        let rearmed = self.shared().registry.rearm(socket, index as usize, readable, writable);
        entry.flags &= !WATCHES_WRITABLE;
        match rearmed {
            Ok(()) if writable => entry.flags |= WATCHES_WRITABLE,
            Ok(()) => {}
            // The kernel has no memory. No event would follow.
            Err(_) => {
                entry.flags |= RESET_PENDING;
                self.service.schedule(entry, index);
            }
        }
    }

    /// Extends the close timeout of a connection with queued bytes up to the deadline of a drain.
    /// Returns false if the service does not drain, nothing is queued, or the deadline has passed.
    pub(super) fn extend_close_for_drain(&self, entry: &mut ConnEntry) -> bool {
        if !self.service.draining.load(Ordering::SeqCst) || !entry.has_queued() {
            return false;
        }
        let by = self.service.drain_by.load(Ordering::SeqCst);
        if by <= self.now {
            return false;
        }
        let again = steps(self.service.config(entry).close_timeout.max(RETRY_DELAY));
        entry.cold().close_by = Some(self.now.saturating_add(again).min(by));
        true
    }

    pub(super) fn requeue(&self, entry: &mut ConnEntry, index: u32) {
        if !entry.has(QUEUED) {
            entry.flags |= QUEUED;
            self.shared().post_entry(index, true);
        }
    }

    /// Runs the last callback of a connection, and frees its entry.
    fn teardown(&mut self, index: u32, generation: u32, reset: bool) {
        let service = self.service;
        let Some(mut entry) = self.lock(index) else {
            return;
        };
        entry.flags |= CLOSED;
        entry.record_close_reason(CloseReason::Local);
        let reason = entry.close_reason().unwrap_or(CloseReason::Local);
        service.drop_queue(&mut entry);
        if entry.due != 0 {
            self.timers.cancel();
            entry.due = 0;
        }
        self.remove_program_timer(&mut entry, index);
        let has_tasks = entry.has_tasks();
        let in_groups = entry.cold.as_ref().is_some_and(|cold| !cold.groups.is_empty());
        let logged = log::logs_close(reason).then(|| service.five_tuple(&entry));
        drop(entry);
        if in_groups {
            service.groups.leave((index, generation), || {
                let entry = service.table.lock(index);
                entry
                    .and_then(|mut entry| Some(mem::take(&mut entry.cold.as_mut()?.groups)))
                    .unwrap_or_default()
            });
        }
        if has_tasks {
            // No function follows, because the connection is closed.
            while self.run_task(index, generation) {}
        }
        self.call_always(index, generation, |handler, connection| {
            handler.on_close(connection, reason);
        });
        if let Some(tuple) = logged {
            log::connection_closed(&tuple, reason);
        }
        let Some(mut entry) = self.lock(index) else {
            return;
        };
        // The peer's address is needed only if the service limits connections per address.
        let counted = entry.is_accepted() && service.state.admission.max_per_address.is_some();
        let peer = counted.then(|| entry.peer());
        let (socket, mut cold) = entry.clear();
        let again = !entry.is_exhausted();
        drop(entry);
        if let Some(socket) = socket {
            let registry = &self.shared().registry;
            sys::fork::close_watched(socket, reset, |socket| registry.remove(socket));
        }
        // After a close or a detach by the program no connection follows.
        let is_over = matches!(reason, CloseReason::Local | CloseReason::Detached);
        let lost = cold.as_mut().filter(|_| !is_over);
        let reconnecting = lost.and_then(|cold| cold.reconnect.take());
        if cold.is_some() {
            // Dropping the program's data may panic.
            panics(|| drop(cold));
        }
        let mut locked = service.state.lock();
        service.traffic.count_close(reason);
        let end = match reset {
            _ if reason == CloseReason::Detached => End::Detached,
            true => End::Reset,
            false => End::Completed,
        };
        service.state.count_closed(&mut locked, peer.as_ref(), end);
        locked.members.free(index, self.number, again);
        // Under the same lock, so that `wait` does not return in between.
        locked.tasks += usize::from(reconnecting.is_some());
        self.connection_left(locked);
        if let Some((reconnect, data)) = reconnecting {
            self.start_connect(Connecting::Again(reconnect), data);
        }
    }

    /// Handles the end of a connection that the state no longer counts.
    #[inline]
    pub(super) fn connection_left(&mut self, mut locked: MutexGuard<'_, Locked<SlotAllocator>>) {
        let service = self.service;
        let was_full = mem::replace(&mut locked.members.full, false);
        let last = locked.live == 0;
        let is_relevant = locked.may_have_ended();
        service.state.notify(locked, is_relevant);
        if was_full {
            service.loops[service.acceptor]
                .post_command(CMD_ACCEPT, self.number == service.acceptor);
        }
        if last && service.exit_when_empty.load(Ordering::SeqCst) {
            service.post_to_all(CMD_RESET_ALL);
        }
        if let Accepting::Exhausted(_) = self.accepting {
            // A descriptor is free again.
            self.accepting = Accepting::Exhausted(self.now);
        }
    }
}
