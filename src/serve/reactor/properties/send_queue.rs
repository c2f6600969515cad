//! Properties of the send queue.

use std::collections::VecDeque;
use std::fs::File;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;

use crate::properties::check;
use crate::serve::OverflowPolicy;
use crate::serve::capacity::MESSAGE_OVERHEAD;
use crate::serve::reactor::file_part::FilePart;
use crate::serve::reactor::send_queue::{
    Body, MAX_FILES, Message, PushOutcome, SendQueue, Watermarks,
};
use crate::serve::stats::Dropped;
use crate::sys;
use crate::types::framing::Framing;

/// An operation of the program, or of the kernel, on a send queue.
#[derive(Debug, Clone)]
enum Step {
    /// A message of this length, of which the kernel accepts a part if the queue is empty.
    Push {
        len: usize,
        sent: Index,
        reply: bool,
    },
    File {
        len: usize,
        sent: Index,
        reply: bool,
    },
    /// The kernel accepts a part of the bytes that the queue offers.
    Send(Index),
    Limit(usize),
}

/// A queued message of the model. All its bytes have the value `id`, or are those of a file.
#[derive(Debug, Clone, Copy)]
struct Queued {
    id: u8,
    len: u64,
    sent: u64,
    reply: bool,
    file: bool,
}

impl Queued {
    fn cost(&self) -> usize {
        MESSAGE_OVERHEAD + if self.file { 0 } else { self.len as usize }
    }
}

/// A send queue as a list, with the rules of the documentation.
#[derive(Debug, Default)]
struct Model(VecDeque<Queued>);

impl Model {
    fn cost(&self) -> usize {
        self.0.iter().map(Queued::cost).sum()
    }

    fn files(&self) -> usize {
        self.0.iter().filter(|queued| queued.file).count()
    }

    /// Drops the oldest message that may be dropped, while the rest exceeds `cap`.
    fn drop_oldest(&mut self, cap: usize) -> Dropped {
        let mut dropped = Dropped::default();
        while self.cost() > cap {
            let may_drop = |queued: &Queued| !queued.reply && queued.sent == 0;
            let Some(oldest) = self.0.iter().position(may_drop) else { break };
            dropped.messages += 1;
            dropped.bytes += self.0.remove(oldest).map_or(0, |queued| queued.len);
        }
        dropped
    }

    fn push(&mut self, new: Queued, cap: usize, policy: OverflowPolicy) -> PushOutcome {
        let mut dropped = Dropped::default();
        if !new.reply && self.cost() + new.cost() > cap {
            if policy == OverflowPolicy::Disconnect {
                return PushOutcome::SlowConsumer;
            }
            // A message that is longer than the limit replaces all messages that may be dropped.
            dropped = self.drop_oldest(cap.saturating_sub(new.cost()));
            if self.cost() + new.cost() > cap {
                if new.sent > 0 {
                    return PushOutcome::SlowConsumer;
                }
                dropped.messages += 1;
                dropped.bytes += new.len;
                return PushOutcome::Discarded { dropped };
            }
        }
        self.0.push_back(new);
        PushOutcome::Queued { dropped }
    }

    /// The kernel accepts this many bytes, and they must be those.
    fn send(&mut self, mut n: u64) {
        while let Some(front) = self.0.front_mut().filter(|_| n > 0) {
            let taken = n.min(front.len - front.sent);
            front.sent += taken;
            n -= taken;
            if front.sent == front.len {
                self.0.pop_front();
            }
        }
    }

    /// The queue has the contents and the sums of the model.
    fn agrees(&self, queue: &mut SendQueue) -> TestCaseResult {
        let left = self.0.iter().map(|queued| queued.len - queued.sent).sum();
        let dropped = Dropped { messages: self.0.len() as u64, bytes: left };
        prop_assert_eq!((queue.is_empty(), queue.bytes()), (self.0.is_empty(), left));
        prop_assert_eq!(queue.dropped(), dropped);
        let replies = self.0.iter().filter(|queued| queued.reply);
        let weights = replies.clone().map(|queued| {
            if queued.file {
                MESSAGE_OVERHEAD + Watermarks::new(usize::MAX).high
            } else {
                queued.cost()
            }
        });
        prop_assert_eq!(queue.replies(), weights.sum::<usize>());
        let has_room = self.files() < MAX_FILES;
        prop_assert_eq!(queue.has_room_for_file(i64::MAX as u64 - left), has_room);
        prop_assert!(!queue.has_room_for_file(i64::MAX as u64 - left + 1));
        let front = self.0.front().copied();
        let file = queue.file().map(|(part, sent)| (part.len(), sent));
        let expected = front.filter(|front| front.file).map(|front| (front.len, front.sent));
        prop_assert_eq!(file, expected);
        let (slices, count) = queue.slices();
        let bytes: Vec<&[u8]> = slices[..count].iter().map(|slice| &**slice).collect();
        let expected = self.0.iter().take(slices.len()).take_while(|queued| !queued.file);
        let expected: Vec<Vec<u8>> =
            expected.map(|queued| vec![queued.id; (queued.len - queued.sent) as usize]).collect();
        prop_assert_eq!(bytes, expected);
        Ok(())
    }
}

/// V3, V8: a send queue agrees with a list of messages. Messages stay in order and whole; only the oldest
/// pushed messages without sent bytes are dropped, and no more of them than the limit needs. The limit holds
/// for pushed messages. Replies are never dropped. Each message is sent, counted as dropped, or queued.
#[test]
fn send_queue_of_any_course_agrees_with_a_list() {
    let index = any::<Index>;
    let len = || prop_oneof![4 => 1..40usize, 1 => 1..400usize];
    let step = prop_oneof![
        6 => (len(), index(), prop::bool::weighted(0.3))
            .prop_map(|(len, sent, reply)| Step::Push { len, sent, reply }),
        1 => (len(), index(), any::<bool>())
            .prop_map(|(len, sent, reply)| Step::File { len, sent, reply }),
        4 => index().prop_map(Step::Send),
        1 => (0..1500usize).prop_map(Step::Limit),
    ];
    // The files are parts of this program.
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let inputs = (0..1500usize, any::<bool>(), prop::collection::vec(step, 0..80));
    check(800, inputs, |(mut cap, drops, steps)| {
        let policy = if drops { OverflowPolicy::DropOldest } else { OverflowPolicy::Disconnect };
        let (mut queue, mut model) = (SendQueue::default(), Model::default());
        for (id, step) in steps.into_iter().enumerate() {
            let id = id as u8;
            match step {
                Step::Push { len, sent, reply } => {
                    let sent = if model.0.is_empty() { sent.index(len) } else { 0 };
                    let bytes = vec![id; len];
                    let message = Message::new(Framing::Raw, Body::Whole(&bytes)).unwrap();
                    let outcome = if reply {
                        queue.reply(&message, sent)
                    } else {
                        queue.push(&message, sent, cap, policy)
                    };
                    let (len, sent) = (len as u64, sent as u64);
                    let new = Queued { id, len, sent, reply, file: false };
                    prop_assert_eq!(outcome, model.push(new, cap, policy));
                }
                Step::File { len, sent, reply } if model.files() < MAX_FILES => {
                    let sent = if model.0.is_empty() { sent.index(len) as u64 } else { 0 };
                    let len = len as u64;
                    let part = FilePart::new(sys::file_of(&file), 0, len, "test").unwrap();
                    let outcome = queue.push_file(part, sent, reply, cap, policy);
                    let new = Queued { id, len, sent, reply, file: true };
                    prop_assert_eq!(outcome, model.push(new, cap, policy));
                }
                Step::File { .. } => {}
                Step::Send(part) => {
                    let (slices, count) = queue.slices();
                    let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                    let of_file = queue.file().map_or(0, |(part, sent)| part.len() - sent);
                    let n = part.index(offered + of_file as usize + 1);
                    queue.advance(n);
                    model.send(n as u64);
                }
                Step::Limit(new) => {
                    cap = new;
                    let expected = match policy {
                        OverflowPolicy::DropOldest => Some(model.drop_oldest(cap)),
                        OverflowPolicy::Disconnect => {
                            let replies = model.0.iter().all(|queued| queued.reply);
                            (model.cost() <= cap || replies).then(Dropped::default)
                        }
                    };
                    prop_assert_eq!(queue.limit(cap, policy), expected);
                }
            }
            model.agrees(&mut queue)?;
        }
        Ok(())
    });
}
