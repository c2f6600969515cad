//! Sends to one connection, and broadcasts.

use std::io;
use std::result::Result as StdResult;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clock::steps;
use super::conn_table::{
    CLOSED, CLOSING, ConnEntry, FAILED, READ_PENDING, REGISTERED, RESET_PENDING, THROTTLED,
    WATCHES_WRITABLE, WROTE,
};
use super::file_part::{FilePart, Stopped};
use super::send_queue::{Body, Message, PushOutcome};
use super::{HERE, ReactorService};
use crate::serve::capacity::MESSAGE_OVERHEAD;
use crate::serve::options::MessageConfig;
use crate::serve::stats::Dropped;
use crate::serve::{Broadcast, OverflowPolicy};
use crate::stream::end_by_error;
use crate::sys::{self, Wait};
use crate::types::close_reason::CloseReason;
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::framing::Framing;

/// The delay before a read or send that failed because the kernel had no memory is retried.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(24);

/// The result of a send to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendOutcome {
    /// The kernel has accepted the message, or it is queued.
    Accepted,
    /// The message is accepted or queued, and this message or older ones were dropped.
    Dropped,
    /// The connection is closed or closing.
    Closed,
    /// The queue limit is exceeded. The connection will be reset.
    SlowConsumer,
    /// The kernel does not accept the message, and the process has no memory to queue it. Nothing
    /// was sent, and the connection stays open.
    NoMemory,
    /// The connection has failed.
    Failed(CloseReason),
}

impl SendOutcome {
    /// The result of a send to a connection that no longer sends.
    #[cold]
    fn rejection(entry: &ConnEntry) -> SendOutcome {
        match entry.close_reason() {
            Some(reason) if entry.has(FAILED) && !entry.has(CLOSING | RESET_PENDING | CLOSED) => {
                SendOutcome::Failed(reason)
            }
            _ => SendOutcome::Closed,
        }
    }
}

impl ReactorService {
    pub(super) fn send(&self, index: u32, generation: u32, message: &Message<'_>) -> SendOutcome {
        match self.table.lock(index) {
            Some(mut entry) if entry.generation == generation => {
                self.send_locked(&mut entry, index, message, None)
            }
            _ => SendOutcome::Closed,
        }
    }

    /// Sends bytes without framing, at least 1 and at most `max_plain`. This is the fast path: the
    /// queue is empty, and the kernel accepts all bytes.
    #[inline]
    pub(super) fn send_plain(&self, index: u32, generation: u32, bytes: &[u8]) -> SendOutcome {
        let Some(mut entry) = self.table.lock(index).filter(|entry| entry.generation == generation)
        else {
            return SendOutcome::Closed;
        };
        if !entry.may_send() {
            return SendOutcome::rejection(&entry);
        }
        let first = match &entry.socket {
            Some(socket) if entry.queue.is_none() => {
                Some(sys::send(sys::borrow(socket), bytes, Wait::No))
            }
            _ => None,
        };
        match first {
            Some(Ok(n)) if n == bytes.len() => {
                self.record_sent(&mut entry, n);
                self.traffic.count_written(n as u64);
                SendOutcome::Accepted
            }
            first => self.send_rest(entry, index, bytes, first),
        }
    }

    #[cold]
    fn send_rest(
        &self,
        mut entry: MutexGuard<'_, ConnEntry>,
        index: u32,
        bytes: &[u8],
        first: Option<io::Result<usize>>,
    ) -> SendOutcome {
        match Message::new(Framing::Raw, Body::Whole(bytes)) {
            Some(message) => self.send_locked(&mut entry, index, &message, first),
            None => SendOutcome::Closed,
        }
    }

    /// Records that the kernel has accepted bytes.
    #[inline]
    fn record_sent(&self, entry: &mut ConnEntry, bytes: usize) {
        entry.flags |= WROTE;
        if self.config(entry).stamps_writes {
            entry.wrote = self.now() as u32;
        }
        self.traffic.count_sent(bytes);
    }

    /// Passes a message to the kernel or queues it. The lock of the entry decides the order of
    /// messages. `first` is the result of a first attempt that the caller has already made.
    #[inline]
    pub(super) fn send_locked(
        &self,
        entry: &mut ConnEntry,
        index: u32,
        message: &Message<'_>,
        mut first: Option<io::Result<usize>>,
    ) -> SendOutcome {
        if !entry.may_send() {
            return SendOutcome::rejection(entry);
        }
        let Some(socket) = &entry.socket else {
            return SendOutcome::Closed;
        };
        let total = message.len();
        let mut done = 0;
        if entry.queue.as_ref().is_none_or(|queue| queue.is_empty()) {
            let socket = sys::borrow(socket);
            while done < total {
                let sent = match (first.take(), message.plain()) {
                    (Some(first), _) => first,
                    (None, Some(bytes)) => sys::send(socket, &bytes[done..], Wait::No),
                    (None, None) => {
                        let (slices, count) = message.slices(done);
                        sys::send_slices(socket, &slices[..count], Wait::No)
                    }
                };
                match sent {
                    Ok(n) => done += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if sys::is_out_of_memory(&e) => {
                        self.schedule_retry(entry);
                        self.schedule(entry, index);
                        break;
                    }
                    Err(e) => return self.record_error(entry, index, &e),
                }
            }
            self.record_sent(entry, done);
        }
        if done == total {
            self.traffic.count_written(total as u64);
            return SendOutcome::Accepted;
        }
        self.enqueue(entry, index, message, done)
    }

    /// Queues a message of which the kernel has accepted `done` bytes.
    #[cold]
    fn enqueue(
        &self,
        entry: &mut ConnEntry,
        index: u32,
        message: &Message<'_>,
        done: usize,
    ) -> SendOutcome {
        let queue = entry.queue.get_or_insert_default();
        let pushed = if self.is_reply(index) {
            queue.reply(message, done)
        } else {
            queue.push(message, done, self.config.queue_limit, self.config.overflow_policy)
        };
        self.pushed(entry, index, pushed, message.len() as u64, done as u64)
    }

    /// Completes the push of a message of `len` bytes, of which the kernel has accepted `done`.
    fn pushed(
        &self,
        entry: &mut ConnEntry,
        index: u32,
        pushed: PushOutcome,
        len: u64,
        done: u64,
    ) -> SendOutcome {
        let dropped = match pushed {
            PushOutcome::Queued { dropped } => {
                self.traffic.count_written(len);
                entry.update_throttle(self.watermarks);
                self.watch_writable(entry, index);
                dropped
            }
            PushOutcome::Discarded { dropped } => {
                self.traffic.count_written(len);
                dropped
            }
            PushOutcome::NoMemory if done == 0 => {
                entry.queue.take_if(|queue| queue.is_empty());
                return SendOutcome::NoMemory;
            }
            // A part of the message is sent, so the connection cannot continue without the rest.
            PushOutcome::SlowConsumer | PushOutcome::NoMemory => {
                self.traffic.count_written(done);
                return self.reset_slow_consumer(entry, index);
            }
        };
        self.traffic.count_dropped(dropped);
        if dropped == Dropped::default() { SendOutcome::Accepted } else { SendOutcome::Dropped }
    }

    /// Sends a part of a file after the queued messages, or queues it. An error is about the file;
    /// then nothing was sent.
    pub(super) fn send_file(
        &self,
        index: u32,
        generation: u32,
        mut part: FilePart,
    ) -> StdResult<SendOutcome, Option<io::Error>> {
        let entry = self.table.lock(index).filter(|entry| entry.generation == generation);
        let Some(mut guard) = entry else {
            return Ok(SendOutcome::Closed);
        };
        let entry = &mut *guard;
        if !entry.may_send() {
            return Ok(SendOutcome::rejection(entry));
        }
        let Some(socket) = &entry.socket else {
            return Ok(SendOutcome::Closed);
        };
        if part.len() == 0 {
            return Ok(SendOutcome::Accepted);
        }
        // sendfile(2) has no flag that prevents a wait, unlike all other calls of the loops.
        if sys::SENDS_FILES {
            sys::set_nonblocking(sys::borrow(socket), true).map_err(Some)?;
        }
        let (mut done, mut stopped) = (0, Stopped::Blocked);
        if entry.queue.as_ref().is_none_or(|queue| queue.is_empty()) {
            let mut quiet = None;
            (done, stopped) = part.send(sys::borrow(socket), 0, &mut quiet);
            drop(quiet);
            self.record_sent(entry, done);
        }
        match stopped {
            Stopped::Done => {
                self.traffic.count_written(part.len());
                return Ok(SendOutcome::Accepted);
            }
            Stopped::File(error) if done == 0 => return Err(error),
            Stopped::File(_) => {
                self.traffic.count_written(done as u64);
                self.file_failed(entry);
                self.schedule(entry, index);
                return Ok(SendOutcome::Failed(CloseReason::FileFailed));
            }
            Stopped::Connection(e) => return Ok(self.record_error(entry, index, &e)),
            Stopped::NoMemory => self.schedule_retry(entry),
            Stopped::Blocked | Stopped::Piece => {}
        }
        let (is_ready, is_reply, len) =
            (matches!(stopped, Stopped::Piece), self.is_reply(index), part.len());
        let queue = entry.queue.get_or_insert_default();
        let MessageConfig { queue_limit, overflow_policy, .. } = self.config;
        let pushed = queue.push_file(part, done as u64, is_reply, queue_limit, overflow_policy);
        queue.is_ready |= is_ready;
        let outcome = self.pushed(entry, index, pushed, len, done as u64);
        if !matches!(stopped, Stopped::Blocked) {
            self.schedule(entry, index);
        }
        Ok(outcome)
    }

    /// Records that the rest of a file cannot be sent, after a part of it was sent.
    #[cold]
    pub(super) fn file_failed(&self, entry: &mut ConnEntry) {
        entry.record_close_reason(CloseReason::FileFailed);
        self.drop_queue(entry);
        entry.flags |= RESET_PENDING;
    }

    fn reset_slow_consumer(&self, entry: &mut ConnEntry, index: u32) -> SendOutcome {
        entry.record_close_reason(CloseReason::SlowConsumer);
        // The memory is freed now, and not when the loop processes the entry.
        self.drop_queue(entry);
        entry.flags |= RESET_PENDING;
        self.schedule(entry, index);
        SendOutcome::SlowConsumer
    }

    /// Whether a send to this connection is a reply: its own open, data, writable or EOF callback
    /// makes it.
    fn is_reply(&self, index: u32) -> bool {
        let (service, number) = HERE.get();
        if service != std::ptr::from_ref(self) {
            return false;
        }
        let shared = &self.loops[number];
        shared.current.load(Ordering::Relaxed) == index && !shared.pushes.load(Ordering::Relaxed)
    }

    /// Requests an event when the kernel accepts more bytes. For a connection that is not
    /// registered yet, the registration requests it.
    fn watch_writable(&self, entry: &mut ConnEntry, index: u32) {
        if !entry.has(REGISTERED) || entry.has(WATCHES_WRITABLE) {
            return;
        }
        let Some(socket) = &entry.socket else {
            return;
        };
        let registry = &self.loops[usize::from(entry.worker)].registry;
        match registry.add_writable(sys::borrow(socket), index as usize) {
            Ok(()) => entry.flags |= WATCHES_WRITABLE,
            // The kernel has no memory. Without the event the queue would never be sent.
            Err(_) => {
                entry.flags |= RESET_PENDING;
                self.schedule(entry, index);
            }
        }
    }

    pub(super) fn drop_queue(&self, entry: &mut ConnEntry) {
        if let Some(queue) = entry.queue.take() {
            self.traffic.count_dropped(queue.dropped());
        }
    }

    /// Retries a read or send later, because the kernel had no memory. The connection itself has
    /// not failed. The kernel does not report when it has memory again, so a timer retries.
    #[cold]
    pub(super) fn schedule_retry(&self, entry: &mut ConnEntry) {
        entry.cold().retry = Some(self.now().saturating_add(steps(RETRY_DELAY)));
    }

    /// Records that a system call has reported the failure of the connection. The loop then delivers
    /// the bytes that arrived before, and closes the connection. A pause by the program delays both.
    #[cold]
    pub(super) fn record_error(
        &self,
        entry: &mut ConnEntry,
        index: u32,
        err: &io::Error,
    ) -> SendOutcome {
        let reason = match (&entry.socket, err.raw_os_error()) {
            (Some(socket), Some(code)) => {
                end_by_error(sys::borrow(socket), code, Some(&self.config(entry).liveness))
            }
            _ => CloseReason::PeerReset,
        };
        entry.record_close_reason(reason);
        if !entry.has(FAILED) {
            // The peer no longer receives replies.
            self.drop_queue(entry);
            entry.flags = entry.flags & !THROTTLED | FAILED | READ_PENDING;
            // The idle timeout also limits a pause from now on.
            entry.received = self.now() as u32;
            // The kernel then reports the end of the stream after the received bytes also without a
            // FIN. EPIPE instead of ECONNRESET means that the peer had sent a FIN.
            if err.kind() == io::ErrorKind::BrokenPipe {
                entry.cold().failed_after_fin = true;
            }
        }
        self.schedule(entry, index);
        SendOutcome::Failed(entry.close_reason().unwrap_or(reason))
    }

    /// Sends a message to all connections, or to those of a group.
    pub(in crate::serve) fn broadcast(
        &self,
        message: &[u8],
        group: Option<&str>,
    ) -> Result<Broadcast> {
        let mut result = Broadcast::default();
        let message = self.message(Body::Whole(message), None, "broadcast")?;
        let mut send = |index: u32, entry: &mut ConnEntry| {
            if entry.has(FAILED) {
                return;
            }
            let mut outcome = self.send_locked(entry, index, &message, None);
            if outcome == SendOutcome::NoMemory {
                // Without memory the queue limit is lower, so the overflow policy applies.
                outcome = match self.config.overflow_policy {
                    OverflowPolicy::Disconnect => self.reset_slow_consumer(entry, index),
                    OverflowPolicy::DropOldest => {
                        let mut dropped = Dropped::default();
                        dropped.add(message.len() as u64);
                        self.traffic.count_written(message.len() as u64);
                        self.traffic.count_dropped(dropped);
                        SendOutcome::Dropped
                    }
                };
            }
            match outcome {
                SendOutcome::Accepted => result.sent += 1,
                SendOutcome::Dropped => {
                    result.sent += 1;
                    result.dropped += 1;
                }
                SendOutcome::SlowConsumer | SendOutcome::Failed(_) => result.reset += 1,
                SendOutcome::Closed | SendOutcome::NoMemory => {}
            }
        };
        match group {
            None => {
                for index in 0..self.slot_count() {
                    if let Some(mut entry) = self.table.lock(index) {
                        send(index, &mut entry);
                    }
                }
            }
            Some(group) => {
                let members = self.groups.members(group);
                let members =
                    members.ok_or_else(|| self.state.error(ErrorKind::NoMemory, "broadcast"))?;
                for (index, generation) in members {
                    match self.table.lock(index) {
                        Some(mut entry) if entry.generation == generation => {
                            send(index, &mut entry);
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(result)
    }

    /// Encodes a message for connection `to`, or for a broadcast. The queue limit does not apply to
    /// replies.
    #[inline(always)]
    pub(super) fn message<'a>(
        &self,
        body: Body<'a>,
        to: Option<u32>,
        operation: &'static str,
    ) -> Result<Message<'a>> {
        match Message::new(self.config.framing, body) {
            Some(message)
                if message.len().saturating_add(MESSAGE_OVERHEAD) <= self.config.queue_limit =>
            {
                Ok(message)
            }
            Some(message) if to.is_some_and(|index| self.is_reply(index)) => Ok(message),
            other => {
                let encoded = other.map(|message| message.len());
                Err(self.message_error(&body, encoded, operation))
            }
        }
    }

    /// The error for a message, which has the length `encoded` if the framing can represent it.
    #[cold]
    fn message_error(
        &self,
        body: &Body<'_>,
        encoded: Option<usize>,
        operation: &'static str,
    ) -> Error {
        let len = body.len();
        let (kind, what) = match encoded {
            Some(encoded) => {
                let limit = self.config.queue_limit;
                let added = encoded.saturating_sub(len) + MESSAGE_OVERHEAD;
                let what = format!(
                    "the message has {len} bytes, and at most {} fit into the queue_limit of {limit} \
                     bytes, because each message counts {added} bytes more than its length: send \
                     shorter messages, or raise the queue_limit",
                    limit.saturating_sub(added)
                );
                (ErrorKind::TooLong, what)
            }
            None => (ErrorKind::InvalidArgument, self.config.framing.rejection(len, body.parts())),
        };
        self.state.error(kind, operation).detail(what)
    }
}
