//! Sends to one connection, and broadcasts.

use std::io;
use std::result::Result as StdResult;
use std::time::Duration;

use super::clock::steps;
use super::conn_table::{
    CLOSED, CLOSING, ConnEntry, FAILED, READ_PENDING, REGISTERED, RESET_PENDING, THROTTLED,
    WATCHES_WRITABLE, WROTE,
};
use super::file_part::{FileFailure, FilePart, Stopped};
use super::send_queue::{Body, Message, PushOutcome};
use super::{HERE, ReactorService};
use crate::serve::capacity::MESSAGE_OVERHEAD;
use crate::serve::options::MessageConfig;
use crate::serve::stats::Dropped;
use crate::serve::{Broadcast, OverflowPolicy};
use crate::stream::end_by_error;
use crate::sys::sync::MutexGuard;
use crate::sys::sync::atomic::Ordering;
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
    /// The queue has no room for another file. Nothing was sent, and the connection stays open.
    TooManyFiles,
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
    /// Sends a message to a connection, in its framing. An error is about the message.
    pub(super) fn send(&self, index: u32, generation: u32, body: Body<'_>) -> Result<SendOutcome> {
        match self.table.lock(index).filter(|entry| entry.generation == generation) {
            Some(entry) => self.send_framed(entry, index, body),
            None => Ok(SendOutcome::Closed),
        }
    }

    fn send_framed(
        &self,
        mut entry: MutexGuard<'_, ConnEntry>,
        index: u32,
        body: Body<'_>,
    ) -> Result<SendOutcome> {
        let messages = &self.config(&entry).messages;
        let message = encode(messages, body, || self.is_reply(index), "send")?;
        Ok(self.send_locked(&mut entry, index, &message, None))
    }

    /// Does what [`send`](ReactorService::send) does. This has a fast path: no framing, the queue is
    /// empty, and the kernel accepts all bytes.
    #[inline]
    pub(super) fn send_whole(
        &self,
        index: u32,
        generation: u32,
        bytes: &[u8],
    ) -> Result<SendOutcome> {
        let Some(mut entry) = self.table.lock(index).filter(|entry| entry.generation == generation)
        else {
            return Ok(SendOutcome::Closed);
        };
        let config = self.config(&entry);
        // The length is 0 or above `max_plain`.
        if bytes.len().wrapping_sub(1) >= config.max_plain {
            return self.send_framed(entry, index, Body::Whole(bytes));
        }
        let stamps_writes = config.stamps_writes;
        if !entry.may_send() {
            return Ok(SendOutcome::rejection(&entry));
        }
        let first = match &entry.socket {
            Some(socket) if entry.queue.is_none() => {
                Some(sys::send(sys::borrow(socket), bytes, Wait::No))
            }
            _ => None,
        };
        match first {
            Some(Ok(n)) if n == bytes.len() => {
                self.record_sent(&mut entry, n, stamps_writes);
                self.traffic.count_written(n as u64);
                Ok(SendOutcome::Accepted)
            }
            first => Ok(self.send_rest(entry, index, bytes, first)),
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
    fn record_sent(&self, entry: &mut ConnEntry, bytes: usize, stamps_writes: bool) {
        entry.flags |= WROTE;
        if stamps_writes {
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
            self.record_sent(entry, done, self.config(entry).stamps_writes);
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
        let MessageConfig { queue_limit, overflow_policy, .. } = self.config(entry).messages;
        let queue = entry.queue.get_or_insert_default();
        let pushed = if self.is_reply(index) {
            queue.reply(message, done)
        } else {
            queue.push(message, done, queue_limit, overflow_policy)
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
                self.traffic.count_written_later(len);
                entry.update_throttle(self.config(entry).watermarks);
                self.watch_writable(entry, index);
                dropped
            }
            PushOutcome::Discarded { dropped } => {
                self.traffic.count_written_later(len);
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

    /// Sends a part of a file after the queued messages, or queues it. An error is about the file. If
    /// a part of the file was sent, the connection will be reset.
    pub(super) fn send_file(
        &self,
        index: u32,
        generation: u32,
        mut part: FilePart,
    ) -> StdResult<SendOutcome, FileFailure> {
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
        if entry.queue.as_ref().is_some_and(|queue| !queue.has_room_for_file(part.len())) {
            return Ok(SendOutcome::TooManyFiles);
        }
        // sendfile(2) has no flag that prevents a wait, unlike all other calls of the loops.
        if sys::SENDS_FILES {
            sys::set_nonblocking(sys::borrow(socket), true)
                .map_err(|e| FileFailure { sent: 0, cause: Some(e) })?;
        }
        let (mut done, mut stopped) = (0, Stopped::Blocked);
        if entry.queue.as_ref().is_none_or(|queue| queue.is_empty()) {
            let mut sender = None;
            (done, stopped) = part.send(sys::borrow(socket), 0, &mut sender);
            drop(sender);
            self.record_sent(entry, done, self.config(entry).stamps_writes);
        }
        match stopped {
            Stopped::Done => {
                self.traffic.count_written(part.len());
                return Ok(SendOutcome::Accepted);
            }
            Stopped::File(cause) => {
                if done > 0 {
                    self.traffic.count_written(done as u64);
                    self.file_failed(entry);
                    self.schedule(entry, index);
                }
                return Err(FileFailure { sent: done, cause });
            }
            Stopped::Connection(e) => return Ok(self.record_error(entry, index, &e)),
            Stopped::NoMemory => self.schedule_retry(entry),
            Stopped::Blocked | Stopped::Piece => {}
        }
        let (is_ready, is_reply, len) =
            (matches!(stopped, Stopped::Piece), self.is_reply(index), part.len());
        let MessageConfig { queue_limit, overflow_policy, .. } = self.config(entry).messages;
        let queue = entry.queue.get_or_insert_default();
        let pushed = queue.push_file(part, done as u64, is_reply, queue_limit, overflow_policy);
        queue.is_ready |= is_ready;
        let outcome = self.pushed(entry, index, pushed, len, done as u64);
        if !matches!(stopped, Stopped::Blocked) {
            self.schedule(entry, index);
        }
        Ok(outcome)
    }

    /// Records that the rest of a file cannot be sent, after a part of the file was sent.
    #[cold]
    pub(super) fn file_failed(&self, entry: &mut ConnEntry) {
        entry.record_close_reason(CloseReason::FileFailed);
        self.drop_queue(entry);
        entry.flags |= RESET_PENDING;
    }

    /// Applies the queue limit of the connection to the queued messages. Returns false if the
    /// connection exceeds it and will be reset.
    pub(super) fn limit_queue(&self, entry: &mut ConnEntry, index: u32) -> bool {
        let config = self.config(entry);
        let (watermarks, messages) = (config.watermarks, config.messages);
        let Some(queue) = &mut entry.queue else {
            return true;
        };
        let Some(dropped) = queue.limit(messages.queue_limit, messages.overflow_policy) else {
            self.reset_slow_consumer(entry, index);
            return false;
        };
        self.traffic.count_dropped(dropped);
        entry.update_throttle(watermarks);
        true
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
            // FIN. EPIPE instead of ECONNRESET means that the peer had sent a FIN, and this side had
            // not.
            let has_fin = err.kind() == io::ErrorKind::BrokenPipe
                || entry.is_inet()
                    && entry.socket.as_ref().is_some_and(|s| sys::received_fin(sys::borrow(s)));
            if has_fin {
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
        const OPERATION: &str = "broadcast";
        let mut result = Broadcast::default();
        let body = Body::Whole(message);
        let common = &self.accepted_config.messages;
        let shared = Message::new(common.framing, body);
        // The message in the last framing that differs from that of the service.
        let mut other: Option<(Framing, Option<Message<'_>>)> = None;
        let mut send = |index: u32, entry: &mut ConnEntry| {
            if entry.has(FAILED) || !entry.may_send() {
                return;
            }
            let MessageConfig { framing, queue_limit, overflow_policy } =
                self.config(entry).messages;
            let message = if framing == common.framing {
                shared.as_ref()
            } else {
                if other.as_ref().is_none_or(|(encoded, _)| *encoded != framing) {
                    other = Some((framing, Message::new(framing, body)));
                }
                other.as_ref().and_then(|(_, message)| message.as_ref())
            };
            let Some(message) = message.filter(|message| fits(message, queue_limit)) else {
                result.rejected += 1;
                return;
            };
            let mut outcome = self.send_locked(entry, index, message, None);
            if outcome == SendOutcome::NoMemory {
                // Without memory the queue limit is lower, so the overflow policy applies.
                outcome = match overflow_policy {
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
                SendOutcome::Closed | SendOutcome::NoMemory | SendOutcome::TooManyFiles => {}
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
                    members.ok_or_else(|| self.state.error(ErrorKind::NoMemory, OPERATION))?;
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
        if result.sent == 0 && result.reset == 0 {
            // The message is an error unless a connection with its own configuration accepts it.
            encode(common, body, || false, OPERATION).map_err(|e| self.state.locate(e))?;
        }
        Ok(result)
    }
}

/// Whether a message fits into an empty send queue.
#[inline]
fn fits(message: &Message<'_>, queue_limit: usize) -> bool {
    message.len().saturating_add(MESSAGE_OVERHEAD) <= queue_limit
}

/// Encodes a message. The queue limit does not apply to replies.
#[inline(always)]
fn encode<'a>(
    messages: &MessageConfig,
    body: Body<'a>,
    is_reply: impl FnOnce() -> bool,
    operation: &'static str,
) -> Result<Message<'a>> {
    match Message::new(messages.framing, body) {
        Some(message) if fits(&message, messages.queue_limit) || is_reply() => Ok(message),
        other => {
            let encoded = other.map(|message| message.len());
            Err(message_error(messages, &body, encoded, operation))
        }
    }
}

/// The error for a message, which has the length `encoded` if the framing can represent it.
#[cold]
fn message_error(
    messages: &MessageConfig,
    body: &Body<'_>,
    encoded: Option<usize>,
    operation: &'static str,
) -> Error {
    let len = body.len();
    let (kind, what) = match encoded {
        Some(encoded) => {
            let limit = messages.queue_limit;
            let added = encoded.saturating_sub(len) + MESSAGE_OVERHEAD;
            let what = format!(
                "the message has {len} bytes, and at most {} fit into the queue_limit of {limit} \
                 bytes, because each message counts {added} bytes more than its length: send \
                 shorter messages, or raise the queue_limit",
                limit.saturating_sub(added)
            );
            (ErrorKind::TooLong, what)
        }
        None => (ErrorKind::InvalidArgument, messages.framing.rejection(len, body.parts())),
    };
    Error::new(kind, operation).detail(what)
}
