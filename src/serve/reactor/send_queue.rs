//! The send queue of one connection: messages in order, within a limit. This module does no I/O.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use super::file_part::FilePart;
use crate::io::memory::joined;
use crate::serve::OverflowPolicy;
use crate::serve::capacity::MESSAGE_OVERHEAD;
use crate::serve::stats::Dropped;
use crate::sys;
use crate::types::framing::{Encoded, Framing};

/// The maximum number of chunks in one system call.
pub(super) const SLICES: usize = 16;

/// The bytes of a message that a program sends.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Whole(&'a [u8]),
    Parts(&'a [IoSlice<'a>]),
}

impl<'a> Body<'a> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Body::Whole(bytes) => bytes.len(),
            Body::Parts(parts) => {
                sys::total_len(parts.iter().map(|part| part.len())).unwrap_or(usize::MAX)
            }
        }
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &'a [u8]> {
        let (whole, parts) = match *self {
            Body::Whole(bytes) => (Some(bytes), &[][..]),
            Body::Parts(parts) => (None, parts),
        };
        whole.into_iter().chain(parts.iter().map(|part| &**part))
    }
}

/// A message for one or many connections. It borrows the caller's bytes, and copies them once if a
/// connection must queue them.
pub(super) struct Message<'a> {
    before: Encoded,
    body: Body<'a>,
    after: Encoded,
    /// `None` inside: the process has no memory for a copy.
    copy: OnceCell<Option<Arc<Vec<u8>>>>,
}

impl<'a> Message<'a> {
    /// Encodes a message. Returns `None` if the framing cannot represent it.
    #[inline(always)]
    pub(super) fn new(framing: Framing, body: Body<'a>) -> Option<Message<'a>> {
        if matches!(body, Body::Parts(_)) && body.len() == usize::MAX {
            return None;
        }
        let (before, after) = framing.mark_parts(body.len(), body.parts())?;
        Some(Message { before, body, after, copy: OnceCell::new() })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.before.as_slice().len() + self.body.len() + self.after.as_slice().len()
    }

    /// The bytes of a message without delimiter or prefix, if they are contiguous.
    #[inline]
    pub(super) fn plain(&self) -> Option<&[u8]> {
        let marked = !self.before.as_slice().is_empty() || !self.after.as_slice().is_empty();
        match self.body {
            Body::Whole(bytes) if !marked => Some(bytes),
            _ => None,
        }
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let before = std::iter::once(self.before.as_slice());
        before.chain(self.body.parts()).chain([self.after.as_slice()])
    }

    /// Returns the bytes after the first `done`, as slices for one system call. The result may lack
    /// the end of a message with many parts.
    pub(super) fn slices(&self, mut done: usize) -> ([IoSlice<'_>; SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for part in self.parts() {
            let sent = done.min(part.len());
            done -= sent;
            if sent < part.len() {
                let Some(slice) = slices.get_mut(count) else { break };
                let rest = &part[sent..];
                *slice = IoSlice::new(&rest[..rest.len().min(sys::SLICE_LEN_MAX)]);
                count += 1;
                if rest.len() > sys::SLICE_LEN_MAX {
                    break;
                }
            }
        }
        (slices, count)
    }

    fn shared(&self) -> Option<&Arc<Vec<u8>>> {
        self.copy.get_or_init(|| joined(self.len(), self.parts()).map(Arc::new)).as_ref()
    }
}

/// The sizes, in bytes of queued replies, at which the loop stops and restarts reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermarks {
    pub high: usize,
    pub low: usize,
}

impl Watermarks {
    /// With this many bytes in the queue the network is busy while the loop does not read.
    const HIGHEST: usize = 64 * 1024;

    /// The watermarks for a queue limit. They leave room for pushed messages.
    pub(super) fn new(cap: usize) -> Watermarks {
        let high = Self::HIGHEST.min(cap / 4);
        Watermarks { high, low: high / 2 }
    }
}

/// A queued message. `reply`: the connection's own callback sent it.
#[derive(Debug)]
enum Chunk {
    Bytes { bytes: Arc<Vec<u8>>, reply: bool },
    File { part: Box<FilePart>, reply: bool },
}

impl Chunk {
    fn len(&self) -> u64 {
        match self {
            Chunk::Bytes { bytes, .. } => bytes.len() as u64,
            Chunk::File { part, .. } => part.len(),
        }
    }

    /// The memory of the chunk, which is freed once all bytes are sent. The bytes of a file need no
    /// memory.
    fn cost(&self) -> usize {
        match self {
            Chunk::Bytes { bytes, .. } => bytes.len() + MESSAGE_OVERHEAD,
            Chunk::File { .. } => MESSAGE_OVERHEAD,
        }
    }

    fn is_file(&self) -> bool {
        matches!(self, Chunk::File { .. })
    }

    fn is_reply(&self) -> bool {
        match self {
            Chunk::Bytes { reply, .. } | Chunk::File { reply, .. } => *reply,
        }
    }

    /// The part of the watermarks that the chunk uses. A file exceeds every high-water mark:
    /// while it is sent, the loop does not read requests for further files.
    fn reply_weight(&self) -> usize {
        match self {
            Chunk::Bytes { reply: true, .. } => self.cost(),
            Chunk::File { reply: true, .. } => MESSAGE_OVERHEAD + Watermarks::HIGHEST,
            _ => 0,
        }
    }
}

/// The maximum number of queued files. Each one has a descriptor.
pub(super) const MAX_FILES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// The number of bytes of the first chunk that the kernel has accepted.
    sent: u64,
    /// The memory of all chunks.
    cost: usize,
    /// The memory of the replies, and more than any high-water mark for each file among them.
    replies: usize,
    /// The number of files.
    files: usize,
    /// The number of unsent bytes.
    bytes: u64,
    /// The kernel may accept more bytes, and the poller does not report it.
    pub is_ready: bool,
}

/// The result of pushing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushOutcome {
    /// The message is queued, and these older messages were dropped.
    Queued { dropped: Dropped },
    /// The message itself was dropped, and perhaps older ones: it does not fit next to the messages
    /// that must stay.
    Discarded { dropped: Dropped },
    /// The queue limit is exceeded.
    SlowConsumer,
    /// The process has no memory for a copy of the message. The queue is unchanged.
    NoMemory,
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The number of unsent bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether another file of this length may be queued: each file has a descriptor, and the count of
    /// the bytes must not overflow.
    pub(super) fn has_room_for_file(&self, len: u64) -> bool {
        let bytes = self.bytes.checked_add(len).and_then(|bytes| i64::try_from(bytes).ok());
        self.files < MAX_FILES && bytes.is_some()
    }

    /// The memory of the queued replies, and more than any high-water mark for each file among them.
    pub(super) fn replies(&self) -> usize {
        self.replies
    }

    /// Queues a reply of which the kernel has accepted `sent` bytes. The limit does not apply,
    /// because the loop stops reading instead.
    pub(super) fn reply(&mut self, message: &Message<'_>, sent: usize) -> PushOutcome {
        let Some(bytes) = self.copy(message) else {
            return PushOutcome::NoMemory;
        };
        self.append(Chunk::Bytes { bytes, reply: true }, sent as u64);
        PushOutcome::Queued { dropped: Dropped::default() }
    }

    /// Queues a part of a file of which the kernel has accepted `sent` bytes, as a reply or within
    /// `cap`.
    pub(super) fn push_file(
        &mut self,
        part: FilePart,
        sent: u64,
        reply: bool,
        cap: usize,
        overflow_policy: OverflowPolicy,
    ) -> PushOutcome {
        if self.chunks.try_reserve(1).is_err() {
            return PushOutcome::NoMemory;
        }
        let chunk = Chunk::File { part: Box::new(part), reply };
        if reply {
            self.append(chunk, sent);
            return PushOutcome::Queued { dropped: Dropped::default() };
        }
        self.push_chunk(chunk, sent, cap, overflow_policy)
    }

    /// Copies a message, and reserves memory for its chunk. Returns `None` if there is not enough.
    fn copy(&mut self, message: &Message<'_>) -> Option<Arc<Vec<u8>>> {
        let bytes = message.shared()?.clone();
        self.chunks.try_reserve(1).ok()?;
        Some(bytes)
    }

    fn append(&mut self, chunk: Chunk, sent: u64) {
        self.cost += chunk.cost();
        self.replies += chunk.reply_weight();
        self.bytes += chunk.len() - sent;
        self.files += usize::from(chunk.is_file());
        if self.chunks.is_empty() {
            // The kernel accepts a part of a message only if the queue is empty.
            self.sent = sent;
        }
        self.chunks.push_back(chunk);
    }

    /// Queues a message of which the kernel has accepted `sent` bytes, within `cap`. All queued
    /// messages count. Replies are never dropped.
    pub(super) fn push(
        &mut self,
        message: &Message<'_>,
        sent: usize,
        cap: usize,
        overflow_policy: OverflowPolicy,
    ) -> PushOutcome {
        let need = message.len() + MESSAGE_OVERHEAD;
        if self.cost + need > cap && overflow_policy == OverflowPolicy::Disconnect {
            return PushOutcome::SlowConsumer;
        }
        // Before older messages are dropped.
        let Some(bytes) = self.copy(message) else {
            return PushOutcome::NoMemory;
        };
        let chunk = Chunk::Bytes { bytes, reply: false };
        self.push_chunk(chunk, sent as u64, cap, overflow_policy)
    }

    fn push_chunk(
        &mut self,
        chunk: Chunk,
        sent: u64,
        cap: usize,
        overflow_policy: OverflowPolicy,
    ) -> PushOutcome {
        let need = chunk.cost();
        let mut dropped = Dropped::default();
        if self.cost + need > cap {
            if overflow_policy == OverflowPolicy::Disconnect {
                return PushOutcome::SlowConsumer;
            }
            dropped = self.drop_oldest(cap.saturating_sub(need));
            if self.cost + need > cap {
                if sent > 0 {
                    // The message itself is partly sent, so it cannot be dropped.
                    return PushOutcome::SlowConsumer;
                }
                dropped.add(chunk.len());
                return PushOutcome::Discarded { dropped };
            }
        }
        self.append(chunk, sent);
        PushOutcome::Queued { dropped }
    }

    /// Drops the oldest messages until the rest fits into `cap`.
    fn drop_oldest(&mut self, cap: usize) -> Dropped {
        let mut dropped = Dropped::default();
        // A message that is partly sent must stay, or the peer would receive a corrupt stream.
        let mut next = usize::from(self.sent > 0);
        while self.cost > cap {
            while self.chunks.get(next).is_some_and(Chunk::is_reply) {
                next += 1;
            }
            let Some(oldest) = self.chunks.remove(next) else {
                break;
            };
            // The kernel has accepted no byte of this message.
            self.cost -= oldest.cost();
            self.bytes -= oldest.len();
            self.files -= usize::from(oldest.is_file());
            dropped.add(oldest.len());
        }
        dropped
    }

    /// Applies a new limit to the queued messages. Returns the dropped messages, or `None` if the
    /// limit is exceeded. Replies alone do not exceed it.
    pub(super) fn limit(&mut self, cap: usize, overflow_policy: OverflowPolicy) -> Option<Dropped> {
        match overflow_policy {
            OverflowPolicy::DropOldest => Some(self.drop_oldest(cap)),
            OverflowPolicy::Disconnect => {
                let exceeds = self.cost > cap && !self.chunks.iter().all(Chunk::is_reply);
                (!exceeds).then(Dropped::default)
            }
        }
    }

    /// The chunks to send next, and their number.
    pub(super) fn slices(&self) -> ([IoSlice<'_>; SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut sent = self.sent as usize;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let Chunk::Bytes { bytes, .. } = chunk else { break };
            let rest = &bytes[sent..];
            *slice = IoSlice::new(&rest[..rest.len().min(sys::SLICE_LEN_MAX)]);
            sent = 0;
            count += 1;
            if rest.len() > sys::SLICE_LEN_MAX {
                break;
            }
        }
        (slices, count)
    }

    /// The file that is next to send, with the number of its bytes that are already sent.
    pub(super) fn file(&mut self) -> Option<(&mut FilePart, u64)> {
        match self.chunks.front_mut() {
            Some(Chunk::File { part, .. }) => Some((part, self.sent)),
            _ => None,
        }
    }

    /// Closes the copies of files that this process, a forked child, has.
    pub(super) fn close_copies(self) {
        for chunk in self.chunks {
            if let Chunk::File { part, .. } = chunk {
                part.close_copy();
            }
        }
    }

    /// Removes bytes that the kernel has accepted.
    pub(super) fn advance(&mut self, n: usize) {
        let mut n = n as u64;
        while n > 0 {
            let Some(front) = self.chunks.front() else {
                return;
            };
            let left = front.len() - self.sent;
            let taken = n.min(left);
            self.sent += taken;
            self.bytes -= taken;
            n -= taken;
            if taken == left {
                self.cost -= front.cost();
                self.replies -= front.reply_weight();
                self.files -= usize::from(front.is_file());
                self.chunks.pop_front();
                self.sent = 0;
            }
        }
    }

    /// The messages and bytes that are lost when the queue is dropped.
    pub(super) fn dropped(&self) -> Dropped {
        Dropped { messages: self.chunks.len() as u64, bytes: self.bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: usize = 3 * (10 + MESSAGE_OVERHEAD);

    fn message(body: &[u8]) -> Message<'_> {
        Message::new(Framing::Raw, Body::Whole(body)).unwrap()
    }

    fn push(queue: &mut SendQueue, byte: u8, overflow_policy: OverflowPolicy) -> PushOutcome {
        queue.push(&message(&[byte; 10]), 0, CAP, overflow_policy)
    }

    fn waiting(queue: &SendQueue) -> Vec<u8> {
        let (slices, count) = queue.slices();
        slices[..count].iter().flat_map(|s| s.iter().copied()).collect()
    }

    fn nothing() -> Dropped {
        Dropped::default()
    }

    /// V3: messages within the limit are queued in order; a message that exceeds it disconnects.
    #[test]
    fn push_above_the_cap_disconnects() {
        let mut queue = SendQueue::default();
        for byte in 1..=3 {
            let queued = push(&mut queue, byte, OverflowPolicy::Disconnect);
            assert_eq!(queued, PushOutcome::Queued { dropped: nothing() });
        }
        assert_eq!(queue.bytes(), 30);
        assert_eq!(push(&mut queue, 4, OverflowPolicy::Disconnect), PushOutcome::SlowConsumer);
        assert_eq!(waiting(&queue), [[1; 10], [2; 10], [3; 10]].concat());
        assert_eq!(queue.dropped(), Dropped { messages: 3, bytes: 30 });
    }

    /// V3: the oldest messages are dropped, but never one that is partly sent, and never a part of
    /// one.
    #[test]
    fn push_above_the_cap_drops_the_oldest() {
        let mut queue = SendQueue::default();
        for byte in 1..=3 {
            push(&mut queue, byte, OverflowPolicy::DropOldest);
        }
        let one = Dropped { messages: 1, bytes: 10 };
        assert_eq!(
            push(&mut queue, 4, OverflowPolicy::DropOldest),
            PushOutcome::Queued { dropped: one }
        );
        assert_eq!(waiting(&queue), [[2; 10], [3; 10], [4; 10]].concat());
        queue.advance(3);
        // Seven bytes of the message in progress are left.
        assert_eq!(
            push(&mut queue, 5, OverflowPolicy::DropOldest),
            PushOutcome::Queued { dropped: one }
        );
        assert_eq!(waiting(&queue), [&[2; 7][..], &[4; 10], &[5; 10]].concat());
        let large = [6; CAP - MESSAGE_OVERHEAD];
        let outcome = queue.push(&message(&large), 0, CAP, OverflowPolicy::DropOldest);
        let dropped = Dropped { messages: 3, bytes: 20 + large.len() as u64 };
        assert_eq!(outcome, PushOutcome::Discarded { dropped });
        assert_eq!(waiting(&queue), [2; 7]);
        queue.advance(7);
        assert!(queue.is_empty() && queue.bytes() == 0 && queue.cost == 0);
        let outcome = queue.push(&message(&large), 0, CAP, OverflowPolicy::DropOldest);
        assert_eq!(outcome, PushOutcome::Queued { dropped: nothing() });
    }

    /// V8: the limit does not apply to replies, which are never dropped; all queued messages count
    /// for a pushed message.
    #[test]
    fn reply_is_queued_whole_and_never_dropped() {
        let mut queue = SendQueue::default();
        for byte in 1..=5 {
            queue.reply(&message(&[byte; 10]), 0);
        }
        assert_eq!((queue.replies(), queue.bytes()), (5 * (10 + MESSAGE_OVERHEAD), 50));
        assert_eq!(push(&mut queue, 6, OverflowPolicy::Disconnect), PushOutcome::SlowConsumer);
        let dropped = Dropped { messages: 1, bytes: 10 };
        assert_eq!(
            push(&mut queue, 6, OverflowPolicy::DropOldest),
            PushOutcome::Discarded { dropped }
        );
        queue.advance(31);
        assert_eq!(queue.replies(), 2 * (10 + MESSAGE_OVERHEAD));
        assert_eq!(
            push(&mut queue, 7, OverflowPolicy::DropOldest),
            PushOutcome::Queued { dropped: nothing() }
        );
        // The new message replaces the older pushed message; the replies before it stay.
        let queued = push(&mut queue, 8, OverflowPolicy::DropOldest);
        assert_eq!(queued, PushOutcome::Queued { dropped });
        assert_eq!(waiting(&queue), [&[4; 9][..], &[5; 10], &[8; 10]].concat());
        queue.advance(29);
        assert!(queue.is_empty() && queue.replies() == 0 && queue.cost == 0);
    }

    /// V3: the memory of a queued message in addition to its bytes is at most `MESSAGE_OVERHEAD`: its
    /// chunk twice, its shared copy with two counts, and two headers of the allocator.
    #[test]
    fn message_overhead_covers_the_memory_of_a_chunk() {
        let counts = 2 * size_of::<usize>();
        let memory = 2 * size_of::<Chunk>() + counts + size_of::<Vec<u8>>() + 16;
        assert!(memory <= MESSAGE_OVERHEAD, "{memory}");
    }

    /// V3: all connections share one buffer, and each sends its own part of it.
    #[test]
    fn message_is_copied_once_for_all_queues() {
        let message = Message::new(Framing::Lines { max: 100 }, Body::Whole(b"news")).unwrap();
        let (mut one, mut other) = (SendQueue::default(), SendQueue::default());
        one.push(&message, 0, CAP, OverflowPolicy::Disconnect);
        other.push(&message, 2, CAP, OverflowPolicy::Disconnect);
        let shared = |queue: &SendQueue| match &queue.chunks[0] {
            Chunk::Bytes { bytes, .. } => bytes.clone(),
            Chunk::File { .. } => panic!("a file"),
        };
        assert!(Arc::ptr_eq(&shared(&one), &shared(&other)));
        assert_eq!((waiting(&one), waiting(&other)), (b"news\n".to_vec(), b"ws\n".to_vec()));
    }

    /// I1: the parts of a message are sent in order, from any position on.
    #[test]
    fn slices_of_parts_continue_after_the_sent_bytes() {
        let parts: Vec<Vec<u8>> = (0..40).map(|part| vec![part; usize::from(part % 4)]).collect();
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let lines = Framing::Lines { max: 100 };
        assert!(Message::new(lines, Body::Parts(&parts)).is_none(), "part 10 contains LF");
        let message = Message::new(Framing::Raw, Body::Parts(&parts)).unwrap();
        assert_eq!(message.len(), whole.len());
        for done in 0..=whole.len() {
            let (slices, count) = message.slices(done);
            let next: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).collect();
            assert!(whole[done..].starts_with(&next), "{done}");
            assert_eq!(next.is_empty(), done == whole.len(), "{done}");
        }
        assert_eq!(**message.shared().unwrap(), whole);
    }

    /// I1: one system call sends all parts of a message, up to the maximum number of slices.
    #[test]
    fn slices_have_all_parts_of_a_message() {
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"c")];
        let message = Message::new(Framing::Lines { max: 9 }, Body::Parts(&parts)).unwrap();
        let (slices, count) = message.slices(1);
        let slices: Vec<&[u8]> = slices[..count].iter().map(|slice| &**slice).collect();
        assert_eq!(slices, [&b"b"[..], b"c", b"\n"]);
    }

    /// V6: a message of one piece is sent without slices if the framing adds nothing to it.
    #[test]
    fn plain_returns_the_body_that_is_the_whole_message() {
        let format = crate::types::framing::LengthFormat::U8;
        for (framing, len) in [
            (Framing::Raw, 4),
            (Framing::Fixed { len: 4 }, 4),
            (Framing::Lines { max: 9 }, 5),
            (Framing::Prefixed { format, max: 9 }, 5),
        ] {
            let message = Message::new(framing, Body::Whole(b"news")).unwrap();
            assert_eq!(message.len(), len);
            assert_eq!(message.plain(), (len == 4).then_some(&b"news"[..]));
        }
        let parts = [IoSlice::new(b"news")];
        let message = Message::new(Framing::Raw, Body::Parts(&parts)).unwrap();
        assert_eq!(message.plain(), None);
    }

    /// V8: a quarter of the queue limit is for replies, and at most 64 KiB.
    #[test]
    fn watermarks_are_a_quarter_of_the_limit_up_to_64_kib() {
        assert_eq!(Watermarks::new(1000), Watermarks { high: 250, low: 125 });
        let highest = Watermarks { high: 65_536, low: 32_768 };
        assert_eq!((Watermarks::new(262_144), Watermarks::new(usize::MAX)), (highest, highest));
    }

    /// V3: a queue has up to 16 files, whether the earlier ones were sent or dropped.
    #[test]
    fn files_of_a_queue_are_limited() {
        const KEEP: usize = 3 * MESSAGE_OVERHEAD;
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let mut queue = SendQueue::default();
        for drops in [false, true, true] {
            for number in queue.files..MAX_FILES {
                assert!(queue.has_room_for_file(10), "file {number}");
                let part = FilePart::new(sys::file_of(&file), 0, 10, "test").unwrap();
                queue.push_file(part, 0, false, usize::MAX, OverflowPolicy::DropOldest);
            }
            assert!(!queue.has_room_for_file(10));
            if drops {
                let dropped = Dropped { messages: 13, bytes: 130 };
                assert_eq!(queue.limit(KEEP, OverflowPolicy::DropOldest), Some(dropped));
            } else {
                queue.advance(130);
            }
            assert_eq!((queue.chunks.len(), queue.files), (3, 3));
        }
        // A queue of exactly the limit does not exceed it.
        assert_eq!(queue.limit(KEEP, OverflowPolicy::Disconnect), Some(nothing()));
        assert_eq!(queue.limit(KEEP - 1, OverflowPolicy::Disconnect), None);
    }

    #[test]
    fn slices_are_limited_and_advance() {
        let mut queue = SendQueue::default();
        for byte in 0..40 {
            queue.push(&message(&[byte; 2]), 0, 1 << 20, OverflowPolicy::Disconnect);
        }
        assert_eq!(waiting(&queue).len(), 2 * SLICES);
        queue.advance(2 * SLICES + 1);
        assert_eq!(waiting(&queue)[..2], [16, 17]);
        queue.advance(1000);
        assert!(queue.is_empty());
    }
}
