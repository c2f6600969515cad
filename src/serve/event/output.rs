//! What waits for one client: messages in their order, within a cap. No I/O.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::framing::{Encoded, Framing};
use crate::serve::WhenSlow;

/// What a message takes up beside its bytes, at most: its place in the queue, of which there are
/// up to twice as many, the count of its owners, and what the allocator adds. It counts against
/// the cap, so that small messages keep to it.
pub(in crate::serve) const OVERHEAD: usize = 88;

/// How many pieces are handed to the kernel at a time.
pub(super) const SLICES: usize = 16;

/// A message that is sent to one or to many: bytes of the caller's, copied once, and only if
/// some client cannot take them now.
pub(super) struct Message<'a> {
    before: Encoded,
    body: &'a [u8],
    after: Encoded,
    copy: OnceCell<Arc<[u8]>>,
}

impl<'a> Message<'a> {
    /// As it goes out in this framing; `None`: its length cannot be said there.
    #[inline(always)]
    pub(super) fn new(framing: Framing, body: &'a [u8]) -> Option<Message<'a>> {
        let (before, after) = framing.mark(body.len())?;
        Some(Message { before, body, after, copy: OnceCell::new() })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.before.as_slice().len() + self.body.len() + self.after.as_slice().len()
    }

    /// Its bytes, if they are in one place.
    #[inline]
    pub(super) fn plain(&self) -> Option<&[u8]> {
        let marked = !self.before.as_slice().is_empty() || !self.after.as_slice().is_empty();
        (!marked).then_some(self.body)
    }

    pub(super) fn slices(&self) -> [IoSlice<'_>; 3] {
        [self.before.as_slice(), self.body, self.after.as_slice()].map(IoSlice::new)
    }

    fn shared(&self) -> &Arc<[u8]> {
        self.copy.get_or_init(|| {
            [self.before.as_slice(), self.body, self.after.as_slice()].concat().into()
        })
    }
}

#[derive(Debug)]
struct Piece {
    bytes: Arc<[u8]>,
    /// How many of them the kernel took.
    sent: usize,
}

impl Piece {
    fn left(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// It has its memory until all of it is sent.
    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

#[derive(Debug, Default)]
pub(super) struct Output {
    queue: VecDeque<Piece>,
    /// What the pieces cost.
    cost: usize,
    /// Bytes of them that wait.
    bytes: usize,
}

/// What became of a message that the kernel did not take, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    /// It waits; so many messages of so many bytes were dropped for it.
    Yes { dropped: Dropped },
    /// There is no room beside one that is on its way: it is dropped itself.
    No { dropped: Dropped },
    /// The client has not kept up.
    Overrun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::serve) struct Dropped {
    pub messages: u64,
    pub bytes: u64,
}

impl Dropped {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a message of which the kernel took `sent` bytes.
    pub(super) fn push(
        &mut self,
        message: &Message<'_>,
        sent: usize,
        cap: usize,
        when_slow: WhenSlow,
    ) -> Queued {
        let need = message.len() + OVERHEAD;
        let mut dropped = Dropped::default();
        if self.cost + need > cap {
            if when_slow == WhenSlow::Disconnect {
                return Queued::Overrun;
            }
            // What has begun must be finished, or the stream is no longer what it was.
            let begun = usize::from(self.queue.front().is_some_and(|front| front.sent > 0));
            while self.cost + need > cap {
                let Some(oldest) = self.queue.remove(begun) else {
                    break;
                };
                self.cost -= oldest.cost();
                self.bytes -= oldest.left();
                dropped.add(oldest.left());
            }
            if self.cost + need > cap {
                if sent > 0 {
                    // It has begun itself: nothing can be dropped any more.
                    return Queued::Overrun;
                }
                dropped.add(message.len());
                return Queued::No { dropped };
            }
        }
        self.cost += need;
        self.bytes += message.len() - sent;
        self.queue.push_back(Piece { bytes: message.shared().clone(), sent });
        Queued::Yes { dropped }
    }

    /// What is to be sent next.
    pub(super) fn slices(&self) -> ([IoSlice<'_>; SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(&piece.bytes[piece.sent..]);
            count += 1;
        }
        (slices, count)
    }

    /// The kernel took so many bytes.
    pub(super) fn advance(&mut self, mut n: usize) {
        while n > 0 {
            let Some(front) = self.queue.front_mut() else {
                return;
            };
            let taken = n.min(front.left());
            front.sent += taken;
            self.bytes -= taken;
            n -= taken;
            if front.left() == 0 {
                self.cost -= front.cost();
                self.queue.pop_front();
            }
        }
    }

    /// All that waits is given up.
    pub(super) fn dropped(&self) -> Dropped {
        Dropped { messages: self.queue.len() as u64, bytes: self.bytes() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: usize = 3 * (10 + OVERHEAD);

    fn message(body: &[u8]) -> Message<'_> {
        Message::new(Framing::Raw, body).unwrap()
    }

    fn push(output: &mut Output, byte: u8, when_slow: WhenSlow) -> Queued {
        output.push(&message(&[byte; 10]), 0, CAP, when_slow)
    }

    fn waiting(output: &Output) -> Vec<u8> {
        let (slices, count) = output.slices();
        slices[..count].iter().flat_map(|s| s.iter().copied()).collect()
    }

    fn nothing() -> Dropped {
        Dropped::default()
    }

    /// V3: within the cap everything waits in order; what would pass it ends the client.
    #[test]
    fn a_cap_that_disconnects() {
        let mut output = Output::default();
        for byte in 1..=3 {
            let queued = push(&mut output, byte, WhenSlow::Disconnect);
            assert_eq!(queued, Queued::Yes { dropped: nothing() });
        }
        assert_eq!(output.bytes(), 30);
        assert_eq!(push(&mut output, 4, WhenSlow::Disconnect), Queued::Overrun);
        assert_eq!(waiting(&output), [[1; 10], [2; 10], [3; 10]].concat());
        assert_eq!(output.dropped(), Dropped { messages: 3, bytes: 30 });
    }

    /// V3: the oldest go, but never one that has begun, and never a part of one.
    #[test]
    fn a_cap_that_drops_the_oldest() {
        let mut output = Output::default();
        for byte in 1..=3 {
            push(&mut output, byte, WhenSlow::DropOldest);
        }
        let one = Dropped { messages: 1, bytes: 10 };
        assert_eq!(push(&mut output, 4, WhenSlow::DropOldest), Queued::Yes { dropped: one });
        assert_eq!(waiting(&output), [[2; 10], [3; 10], [4; 10]].concat());
        output.advance(3);
        // Seven bytes of the one on its way are left.
        assert_eq!(push(&mut output, 5, WhenSlow::DropOldest), Queued::Yes { dropped: one });
        assert_eq!(waiting(&output), [&[2; 7][..], &[4; 10], &[5; 10]].concat());
        let large = [6; CAP - OVERHEAD];
        let outcome = output.push(&message(&large), 0, CAP, WhenSlow::DropOldest);
        let dropped = Dropped { messages: 3, bytes: 20 + large.len() as u64 };
        assert_eq!(outcome, Queued::No { dropped });
        assert_eq!(waiting(&output), [2; 7]);
        output.advance(7);
        assert!(output.is_empty() && output.bytes() == 0 && output.cost == 0);
        let outcome = output.push(&message(&large), 0, CAP, WhenSlow::DropOldest);
        assert_eq!(outcome, Queued::Yes { dropped: nothing() });
    }

    /// V3: one buffer for all clients; each sends its own part of it.
    #[test]
    fn a_message_is_copied_once() {
        let message = Message::new(Framing::Lines { max: 100 }, b"news").unwrap();
        let (mut one, mut other) = (Output::default(), Output::default());
        one.push(&message, 0, CAP, WhenSlow::Disconnect);
        other.push(&message, 2, CAP, WhenSlow::Disconnect);
        assert!(Arc::ptr_eq(&one.queue[0].bytes, &other.queue[0].bytes));
        assert_eq!((waiting(&one), waiting(&other)), (b"news\n".to_vec(), b"ws\n".to_vec()));
    }

    #[test]
    fn many_pieces_at_a_time() {
        let mut output = Output::default();
        for byte in 0..40 {
            output.push(&message(&[byte; 2]), 0, 1 << 20, WhenSlow::Disconnect);
        }
        assert_eq!(waiting(&output).len(), 2 * SLICES);
        output.advance(2 * SLICES + 1);
        assert_eq!(waiting(&output)[..2], [16, 17]);
        output.advance(1000);
        assert!(output.is_empty());
    }
}
