//! Datagrams that the kernel hands over as one (UDP_GRO), and their callers see one by one.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError, TryLockError};

use super::receive::{Batch, Destination};
use super::{Datagram, DatagramSocket, Patience};
use crate::cancel::CancelToken;
use crate::error::ErrorKind;
use crate::sys::{self, Buffers, InUse, Received};
use crate::turn::{LOOK, Turn};
use crate::wait::{Cause, Deadline};

/// How many such datagrams are taken from the kernel at once, and how long one can be.
const SLOTS: usize = 16;
const SLOT: usize = 1 << 16;

/// How often a queue is looked at that holds only what is not received: errors, and strangers'
/// datagrams.
const LOOKS: u32 = 16;

/// What was received and is not handed out yet. Only the memory that datagrams were written to is
/// in use.
#[derive(Debug)]
pub(super) struct Coalesced {
    /// Whose turn it is to receive: the others find what is left over first.
    turn: Turn,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    bytes: Box<[u8]>,
    /// What is told of each, where its bytes begin, and how many there are.
    datagrams: VecDeque<(Datagram, usize)>,
}

impl Coalesced {
    /// `None`: there is no memory.
    pub(super) fn new() -> Option<Coalesced> {
        let left = Left { bytes: sys::zeroed(SLOTS * SLOT)?, datagrams: VecDeque::new() };
        Some(Coalesced { turn: Turn::default(), left: Mutex::new(left) })
    }
}

impl Left {
    /// Puts what is left into the buffers; into how many.
    fn hand_out<B: Batch + ?Sized>(&mut self, batch: &mut B) -> usize {
        let count = batch.count().min(self.datagrams.len());
        for (place, (mut datagram, at)) in self.datagrams.drain(..count).enumerate() {
            let buf = batch.buffer(place);
            let whole = datagram.len;
            datagram.len = whole.min(buf.len());
            datagram.truncated |= whole > datagram.len;
            buf[..datagram.len].copy_from_slice(&self.bytes[at..at + datagram.len]);
            datagram.tell(|facts| batch.put(place, facts));
        }
        count
    }

    /// Takes what the kernel has, when nothing is left; whether nothing more will come.
    fn fill(
        &mut self,
        socket: &DatagramSocket,
        io: &InUse<'_>,
        patience: &Patience,
    ) -> Result<bool, Cause> {
        let Left { bytes, datagrams } = self;
        let mut over = false;
        let mut told = |_: &mut Slots<'_>, at, received: &Received| {
            over |= socket.is_over(io, received);
            if let Some(facts) = socket.facts(received, &mut Destination::default()) {
                let segment = received.ancillary.as_ref().and_then(|data| data.segment);
                cut(datagrams, &facts.datagram(), segment, at * SLOT);
            }
        };
        let mut slots = Slots(bytes);
        socket.recv_step(io, patience, |wait| {
            sys::recv_datagrams(io.socket(), &mut slots, true, wait, &mut told)
        })?;
        Ok(over)
    }
}

/// Cuts what came as one, beginning at `at`.
fn cut(
    into: &mut VecDeque<(Datagram, usize)>,
    datagram: &Datagram,
    segment: Option<usize>,
    at: usize,
) {
    let segment = segment.filter(|s| *s > 0).unwrap_or(usize::MAX);
    let mut done = 0;
    loop {
        let len = segment.min(datagram.len - done);
        let original_len = if segment == usize::MAX { datagram.original_len } else { len };
        into.push_back((Datagram { len, original_len, ..datagram.clone() }, at + done));
        done += len;
        if done >= datagram.len {
            return;
        }
    }
}

/// The buffers that are large enough for what the kernel hands over.
struct Slots<'a>(&'a mut [u8]);

impl Buffers for Slots<'_> {
    fn count(&self) -> usize {
        SLOTS
    }

    fn buffer(&mut self, at: usize) -> &mut [u8] {
        &mut self.0[at * SLOT..(at + 1) * SLOT]
    }
}

impl DatagramSocket {
    /// Has the kernel put nothing together any more, if nothing waits that may have been put
    /// together; whether that is so. `None`: another thread is receiving.
    pub(super) fn uncoalesce(&self, coalesced: &Coalesced, io: &InUse<'_>) -> Option<bool> {
        // Whoever receives has it for as long as that takes.
        let mut left = match coalesced.left.try_lock() {
            Ok(left) => left,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let at_once = Patience { nonblocking: true, ..self.patience(Deadline(None)) };
        for _ in 0..LOOKS {
            if !left.datagrams.is_empty() {
                break;
            }
            let _ = sys::coalesce(io.socket(), false);
            if sys::is_empty(io.socket()) {
                return Some(true);
            }
            // What is in its queue stays as one, and the kernel tells its length only to those who
            // ask.
            let _ = sys::coalesce(io.socket(), true);
            let _ = left.fill(self, io, &at_once);
        }
        Some(false)
    }

    /// Receives through the buffers that are large enough for what the kernel hands over.
    pub(super) fn recv_coalesced<B: Batch + ?Sized>(
        &self,
        coalesced: &Coalesced,
        io: &InUse<'_>,
        patience: &Patience,
        batch: &mut B,
    ) -> Result<usize, Cause> {
        let _turn = coalesced.turn.take_asking(|| match () {
            () if io.is_closed() || self.0.deaf.load(Ordering::Acquire) => Err(ErrorKind::Closed),
            () if patience.cancel.as_ref().is_some_and(CancelToken::is_fired) => {
                Err(ErrorKind::Cancelled)
            }
            () if patience.nonblocking => Err(ErrorKind::WouldBlock),
            () if patience.deadline.has_passed() => Err(ErrorKind::TimedOut),
            // Whoever has the turn is woken by a close, and so each in turn. A token need not: that
            // one may have another.
            () => Ok(match (patience.deadline.remaining(), &patience.cancel) {
                (left, Some(_)) => Some(left.map_or(LOOK, |left| left.min(LOOK))),
                (left, None) => left,
            }),
        })?;
        if patience.cancel.as_ref().is_some_and(CancelToken::is_fired) {
            return Err(ErrorKind::Cancelled.into());
        }
        // Only whoever has the turn is here.
        let mut left = coalesced.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let count = left.hand_out(batch);
            if count > 0 {
                return Ok(count);
            }
            let over = left.fill(self, io, patience)?;
            if over && left.datagrams.is_empty() {
                return Err(ErrorKind::Closed.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::Incoming;
    use crate::info::Address;

    fn datagram(len: usize) -> Datagram {
        Datagram {
            len,
            original_len: len,
            truncated: false,
            from: Address::UnixUnnamed,
            to: None,
            local: None,
            interface: None,
            ttl: None,
            tos: None,
            received_at: None,
            credentials: None,
        }
    }

    /// D3: what came as one is told as what was sent, also if the last one is shorter, if nothing
    /// was put together, and if there are no bytes.
    #[test]
    fn what_came_as_one_is_cut_again() {
        let lens = |len, segment| {
            let mut left = VecDeque::new();
            cut(&mut left, &datagram(len), segment, 100);
            left.iter().map(|(d, at)| (d.len, d.original_len, *at)).collect::<Vec<_>>()
        };
        assert_eq!(lens(10, Some(4)), [(4, 4, 100), (4, 4, 104), (2, 2, 108)]);
        assert_eq!(lens(8, Some(4)), [(4, 4, 100), (4, 4, 104)]);
        assert_eq!(lens(3, Some(4)), [(3, 3, 100)]);
        assert_eq!(lens(10, None), [(10, 10, 100)]);
        assert_eq!(lens(10, Some(0)), [(10, 10, 100)]);
        assert_eq!(lens(0, None), [(0, 0, 100)]);
    }

    /// D1: a buffer that is too short is told for the datagram, and the next one is whole.
    #[test]
    fn what_is_left_is_handed_out_in_order() {
        let bytes = Box::from(*b"abcdefgh");
        let mut left = Left { bytes, datagrams: VecDeque::new() };
        cut(&mut left.datagrams, &datagram(8), Some(3), 0);
        let (mut short, mut long) = ([0; 2], [0; 8]);
        let mut batch = [Incoming::new(&mut short), Incoming::new(&mut long)];
        assert_eq!(left.hand_out(batch.as_mut_slice()), 2);
        assert_eq!((batch[0].bytes(), batch[1].bytes()), (&b"ab"[..], &b"def"[..]));
        let told = batch[0].datagram().map(|d| (d.truncated, d.original_len));
        assert_eq!(told, Some((true, 3)));
        assert_eq!(left.hand_out(batch.as_mut_slice()), 1);
        assert_eq!(batch[0].bytes(), b"gh");
        assert_eq!(left.hand_out(batch.as_mut_slice()), 0);
    }
}
