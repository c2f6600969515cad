//! Reads, delivery of messages, and sends of queued bytes.

use std::io;
use std::mem;

use crate::sys::SockRef;

use super::super::conn_table::{
    BUFFERED, CLOSED, CLOSING, ConnEntry, EOF_DELIVERED, FAILED, Input, PAUSED, READ_PENDING,
    RECEIVED, RECV_EOF, RESET_PENDING, THROTTLED, UNOPENED,
};
use super::super::file_part::Stopped;
use super::Loop;
use crate::io::memory::{appended, appended_within};
use crate::sys::{self, Wait};
use crate::types::close_reason::CloseReason;
use crate::types::framing::{Framing, Split};

/// The maximum number of reads from one connection before other connections are handled.
const ROUNDS: usize = 16;
/// The number of buffers for partial messages that are kept for reuse, and their maximum size.
const SPARE: usize = 16;
const SPARE_SIZE: usize = super::READ;

/// The result of one read.
enum ReadOutcome {
    Bytes(usize),
    End,
    /// The bytes were discarded, or the read was interrupted.
    Again,
    Nothing,
}

/// Whether a connection takes messages.
enum Takes {
    Nothing,
    /// The next message, in the framing of the previous one.
    Next,
    /// The next message, in a framing that the program has set since the previous one.
    Reframed(Framing),
}

impl<'a> Loop<'a> {
    /// Reads from a connection; with `to_end` until the end of stream or error that the poller has
    /// reported. Returns true if the entry needs no further processing.
    pub(super) fn read(&mut self, index: u32, to_end: bool) -> bool {
        let mut buf = mem::take(&mut self.buf);
        let plain = self.read_with(index, to_end, &mut buf);
        self.buf = buf;
        plain
    }

    #[inline]
    fn read_with(&mut self, index: u32, to_end: bool, buf: &mut [u8]) -> bool {
        let mut changed = false;
        for _ in 0..ROUNDS {
            let Some(mut entry) = self.lock(index) else {
                return false;
            };
            let generation = entry.generation;
            // The first received byte replaces the first-byte timeout by the idle timeout.
            changed |= !entry.has(RECEIVED) && self.service.has_first_byte_timeout(&entry);
            let is_raw = self.service.config(&entry).messages.framing == Framing::Raw;
            let got = self.receive(&mut entry, index, buf, to_end);
            // On a Unix socket a read ends at passed descriptors and at urgent data.
            let may_be_short = to_end || !entry.is_inet();
            drop(entry);
            match got {
                ReadOutcome::Bytes(n) => {
                    if is_raw {
                        changed |= self.call(index, generation, |handler, connection| {
                            handler.on_data(connection, &buf[..n]);
                        });
                    } else {
                        self.deliver(index, generation, &buf[..n], false);
                        changed = true;
                    }
                    if n < buf.len() && !may_be_short {
                        return !changed;
                    }
                }
                ReadOutcome::Again => {}
                ReadOutcome::End => {
                    if !is_raw {
                        self.deliver(index, generation, &[], true);
                    }
                    self.deliver_eof(index, generation);
                    return false;
                }
                ReadOutcome::Nothing => return false,
            }
        }
        // More bytes may be available, which the poller does not report again.
        if let Some(mut entry) = self.lock(index) {
            entry.flags |= READ_PENDING;
        }
        false
    }

    /// Records the error of a connection whose reads have ended with the peer's FIN: the peer reset the
    /// connection after its FIN. Where the socket does not hold the error, the same is needed for a
    /// connection that the loop does not read.
    #[cold]
    pub(super) fn record_reset_after_fin(&self, index: u32) {
        let Some(mut entry) = self.lock(index) else {
            return;
        };
        let is_unread = entry.has(RECV_EOF) || !sys::SOCKET_HOLDS_ERROR;
        if !is_unread || entry.has(RESET_PENDING | CLOSED | FAILED) {
            return;
        }
        if let Some(e) = entry.socket.as_ref().and_then(|s| sys::hangup_error(sys::borrow(s))) {
            self.service.record_error(&mut entry, index, &e);
        }
    }

    #[inline]
    fn receive(
        &self,
        entry: &mut ConnEntry,
        index: u32,
        buf: &mut [u8],
        to_end: bool,
    ) -> ReadOutcome {
        let discards = entry.discards();
        let Some(socket) = entry.socket.as_ref().map(sys::borrow) else {
            return ReadOutcome::Nothing;
        };
        if !entry.may_read() && !discards {
            if to_end && !entry.has(UNOPENED | RESET_PENDING | CLOSED | FAILED) {
                // The connection is paused, throttled or half-closed. An error must still be found.
                if let Ok(Some(e)) = SockRef::from(&socket).take_error() {
                    self.service.record_error(entry, index, &e);
                }
            }
            return ReadOutcome::Nothing;
        }
        match sys::recv(socket, buf, Wait::No) {
            Ok(0) if entry.has(FAILED) && !entry.cold().failed_after_fin => {
                entry.flags |= RESET_PENDING;
                ReadOutcome::Nothing
            }
            Ok(0) => {
                entry.flags |= RECV_EOF;
                entry.received = self.now as u32;
                entry.record_close_reason(CloseReason::PeerClosed);
                if discards { ReadOutcome::Nothing } else { ReadOutcome::End }
            }
            Ok(_) if discards => ReadOutcome::Again,
            Ok(n) => {
                entry.flags |= RECEIVED;
                entry.received = self.now as u32;
                self.service.traffic.count_received(n);
                ReadOutcome::Bytes(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => ReadOutcome::Again,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if entry.has(FAILED) {
                    entry.flags |= RESET_PENDING;
                }
                ReadOutcome::Nothing
            }
            Err(e) if sys::is_out_of_memory(&e) => {
                self.service.schedule_retry(entry);
                ReadOutcome::Nothing
            }
            Err(e) => {
                self.service.record_error(entry, index, &e);
                // No received byte is left.
                entry.flags |= RESET_PENDING;
                ReadOutcome::Nothing
            }
        }
    }

    /// Delivers complete messages in the framing of the connection, which the program may change in
    /// between. Keeps the beginning of a message, and messages that the program does not accept yet.
    /// At the end of the stream it drops an incomplete message.
    pub(super) fn deliver(&mut self, index: u32, generation: u32, data: &[u8], ended: bool) {
        let Some(mut entry) = self.lock(index) else {
            return;
        };
        entry.flags &= !BUFFERED;
        let mut framing = self.service.config(&entry).messages.framing;
        let kept = entry.cold.as_mut().and_then(|cold| cold.input.take());
        drop(entry);
        let (mut kept, mut splitter) = match kept {
            Some(mut input) => {
                // The first bytes of the next message follow a message.
                let most = framing.longest().saturating_add(data.len());
                if appended_within(&mut input.bytes, data, most).is_none() {
                    return self.reset_without_memory(index);
                }
                (Some(input.bytes), input.splitter)
            }
            None => (None, None),
        };
        let bytes: &[u8] = kept.as_deref().unwrap_or(data);
        let mut done = 0;
        let mut is_partial = false;
        loop {
            match self.takes_messages(index) {
                Takes::Nothing => break,
                Takes::Next => {}
                Takes::Reframed(changed) => (framing, splitter) = (changed, None),
            }
            let rest = &bytes[done..];
            let split = match splitter.take().or_else(|| framing.splitter()) {
                Some(mut fresh) => {
                    let split = fresh.split(rest, ended);
                    if split == Split::Incomplete {
                        splitter = Some(fresh);
                    }
                    split
                }
                None if rest.is_empty() => Split::Incomplete,
                None => Split::Message { range: 0..rest.len(), len: rest.len() },
            };
            match split {
                Split::Message { range, len } => {
                    let (message, after) = (&rest[range], &rest[len..]);
                    // The callback may detach the connection, with the bytes after the message.
                    sys::lend(after, || {
                        self.call(index, generation, |handler, connection| {
                            handler.on_data(connection, message);
                        })
                    });
                    done += len;
                }
                Split::Incomplete => {
                    is_partial = true;
                    break;
                }
                failed @ (Split::TooLong | Split::Malformed(_)) => {
                    if let Some(mut entry) = self.lock(index) {
                        entry.record_close_reason(match failed {
                            Split::TooLong => CloseReason::MessageTooLong,
                            _ => CloseReason::MessageMalformed,
                        });
                        entry.flags |= RESET_PENDING;
                    }
                    return;
                }
            }
        }
        if done == bytes.len() {
            self.recycle(kept);
            return;
        }
        let rest = match kept.take() {
            Some(mut bytes) => {
                bytes.drain(..done);
                self.compact(bytes)
            }
            None => {
                let mut bytes = self.spare.pop().unwrap_or_default();
                if appended(&mut bytes, &data[done..]).is_none() {
                    return self.reset_without_memory(index);
                }
                bytes
            }
        };
        match self.lock(index) {
            Some(mut entry) if !entry.has(CLOSING | RESET_PENDING | CLOSED) => {
                // Another thread may have changed the framing since the last message.
                if entry.has(BUFFERED) {
                    splitter = None;
                } else if !is_partial {
                    entry.flags |= BUFFERED;
                } else if ended {
                    drop(entry);
                    return self.recycle(Some(rest));
                }
                entry.cold().input = Some(Input { bytes: rest, splitter });
            }
            _ => self.recycle(Some(rest)),
        }
    }

    /// Resets a connection whose received bytes cannot be kept, because the process has no memory.
    #[cold]
    fn reset_without_memory(&self, index: u32) {
        if let Some(mut entry) = self.lock(index) {
            entry.flags |= RESET_PENDING;
        }
    }

    fn takes_messages(&self, index: u32) -> Takes {
        let stops = PAUSED | THROTTLED | CLOSING | RESET_PENDING | CLOSED;
        match self.lock(index).filter(|entry| !entry.has(stops)) {
            Some(mut entry) if !self.is_over() => {
                if !entry.has(BUFFERED) {
                    return Takes::Next;
                }
                entry.flags &= !BUFFERED;
                Takes::Reframed(self.service.config(&entry).messages.framing)
            }
            _ => Takes::Nothing,
        }
    }

    /// Moves few bytes out of a large buffer: a client that sends a long message and then a part of the
    /// next one must not hold the memory of the long one.
    fn compact(&mut self, large: Vec<u8>) -> Vec<u8> {
        if large.capacity() <= SPARE_SIZE || large.len() > large.capacity() / 4 {
            return large;
        }
        let mut small = self.spare.pop().unwrap_or_default();
        if appended(&mut small, &large).is_some() { small } else { large }
    }

    /// Keeps a buffer for the next partial message.
    fn recycle(&mut self, bytes: Option<Vec<u8>>) {
        if let Some(mut bytes) = bytes {
            if self.spare.len() < SPARE && bytes.capacity() <= SPARE_SIZE {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }

    /// Runs the EOF callback once all messages before it have been delivered.
    pub(super) fn deliver_eof(&mut self, index: u32, generation: u32) {
        let Some(mut entry) = self.lock(index) else {
            return;
        };
        let waits =
            PAUSED | THROTTLED | BUFFERED | CLOSING | RESET_PENDING | CLOSED | EOF_DELIVERED;
        if entry.has(waits) || !entry.has(RECV_EOF) {
            return;
        }
        entry.flags |= EOF_DELIVERED;
        drop(entry);
        self.call(index, generation, |handler, connection| handler.on_eof(connection));
    }

    /// Sends queued bytes.
    pub(super) fn flush(&mut self, index: u32) {
        let Some(mut guard) = self.lock(index) else {
            return;
        };
        let entry = &mut *guard;
        let (Some(queue), Some(socket)) = (&mut entry.queue, &entry.socket) else {
            return;
        };
        // `on_writable` must not be called before `on_open`.
        if entry.flags & (UNOPENED | RESET_PENDING | CLOSED) != 0 {
            return;
        }
        let mut total = 0;
        let mut lacks_memory = false;
        let mut file_failed = false;
        let mut sender = None;
        queue.is_ready = false;
        let failure = loop {
            let (slices, count) = queue.slices();
            if count == 0 {
                let Some((part, done)) = queue.file() else { break None };
                let (n, stopped) = part.send(sys::borrow(socket), done, &mut sender);
                queue.advance(n);
                total += n;
                match stopped {
                    Stopped::Done => continue,
                    Stopped::Blocked => break None,
                    Stopped::Piece => queue.is_ready = true,
                    Stopped::NoMemory => lacks_memory = true,
                    Stopped::Connection(e) => break Some(e),
                    Stopped::File(_) => file_failed = true,
                }
                break None;
            }
            match sys::send_slices(sys::borrow(socket), &slices[..count], Wait::No) {
                Ok(n) => {
                    queue.advance(n);
                    total += n;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break None,
                Err(e) if sys::is_out_of_memory(&e) => {
                    lacks_memory = true;
                    break None;
                }
                Err(e) => break Some(e),
            }
        };
        drop(sender);
        let emptied = queue.is_empty();
        if total > 0 {
            self.service.traffic.count_sent(total);
            entry.wrote = self.now as u32;
            if entry.has(THROTTLED) {
                // The peer receives while the loop does not read, so the connection is not idle.
                entry.received = self.now as u32;
            }
        }
        if lacks_memory {
            self.service.schedule_retry(entry);
        }
        if file_failed {
            self.service.file_failed(entry);
            return self.service.schedule(entry, index);
        }
        if let Some(e) = failure {
            self.service.record_error(entry, index, &e);
            return;
        }
        entry.update_throttle(self.service.config(entry).watermarks);
        if emptied {
            // Most connections are idle, so an empty queue uses no memory.
            entry.queue = None;
            let (tells, generation) = (!entry.has(CLOSING), entry.generation);
            drop(guard);
            if tells {
                self.call(index, generation, |handler, connection| handler.on_writable(connection));
            }
        }
    }
}
