//! Coalesced datagrams (UDP_GRO): the kernel returns several in one buffer, and callers receive them
//! one by one.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{PoisonError, TryLockError};

use super::recv::{Batch, Destination, is_from};
use super::{Datagram, DatagramSocket, WaitMode};
use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::io::lock::TurnLock;
use crate::io::wait::Cause;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Buffers, InUse, Received};
use crate::types::error::ErrorKind;

/// The number of coalesced buffers per receive call, and their size.
const SLOTS: usize = 16;
const SLOT: usize = 1 << 16;

/// How often a queue is checked that holds only errors and datagrams from other peers.
const LOOKS: u32 = 16;

/// Received datagrams that are not returned yet. Only the memory that the kernel has written to is in
/// use.
#[derive(Debug)]
pub(super) struct Coalesced {
    /// The lock of receiving. Other threads check for remaining datagrams first.
    turn: TurnLock,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    bytes: Box<[u8]>,
    /// For each: its metadata, the position of its first byte, and its length.
    datagrams: VecDeque<(Datagram, usize)>,
}

impl Coalesced {
    /// `None`: there is not enough memory.
    pub(super) fn new() -> Option<Coalesced> {
        let left = Left { bytes: sys::zeroed(SLOTS * SLOT)?, datagrams: VecDeque::new() };
        Some(Coalesced { turn: TurnLock::default(), left: Mutex::new(left) })
    }
}

impl Left {
    /// Copies remaining datagrams into the buffers, and returns their number. Datagrams of other
    /// senders than `peer`, which were received before the socket was connected, are discarded.
    fn hand_out<B: Batch + ?Sized>(&mut self, batch: &mut B, peer: Option<SocketAddr>) -> usize {
        let mut count = 0;
        while count < batch.count() {
            let Some((mut datagram, at)) = self.datagrams.pop_front() else {
                break;
            };
            if peer.is_some_and(|peer| !is_from(&datagram.from, peer)) {
                continue;
            }
            let buf = batch.buffer(count);
            let whole = datagram.len;
            datagram.len = whole.min(buf.len());
            datagram.truncated |= whole > datagram.len;
            buf[..datagram.len].copy_from_slice(&self.bytes[at..at + datagram.len]);
            datagram.with_meta(|facts| batch.put(count, facts));
            count += 1;
        }
        count
    }

    /// Receives from the kernel if nothing remains. Returns whether receiving has ended.
    fn fill(
        &mut self,
        socket: &DatagramSocket,
        io: &InUse<'_>,
        mode: &WaitMode,
    ) -> Result<bool, Cause> {
        let Left { bytes, datagrams } = self;
        let mut over = false;
        let mut told = |_: &mut Slots<'_>, at, received: &mut Received| {
            over |= socket.is_over(io, received);
            let segment = received.ancillary.as_ref().and_then(|data| data.segment);
            if let Some(facts) = socket.facts(received, &mut Destination::default()) {
                split(datagrams, &facts.datagram(), segment, at * SLOT);
            }
        };
        let mut slots = Slots(bytes);
        socket.recv_step(io, mode, |wait| {
            sys::recv_datagrams(io.socket(), &mut slots, sys::UDP_CONTROL, wait, &mut told)
        })?;
        Ok(over)
    }
}

/// Splits a coalesced buffer, starting at `at`.
fn split(
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

/// The buffers, which are large enough for coalesced datagrams.
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
    /// Turns coalescing off if no coalesced datagram may be waiting, and returns whether it did. `None`:
    /// another thread is receiving.
    pub(super) fn uncoalesce(&self, coalesced: &Coalesced, io: &InUse<'_>) -> Option<bool> {
        // A receiving thread holds the lock while it receives.
        let mut left = match coalesced.left.try_lock() {
            Ok(left) => left,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // The caller holds the lock of the token, which has no effect on a call that does not wait.
        let at_once = WaitMode {
            deadline: Deadline(None),
            nonblocking: true,
            cancel: None,
            polled: false,
            in_kernel: Cell::new(false),
            serves: false,
        };
        for _ in 0..LOOKS {
            if !left.datagrams.is_empty() {
                break;
            }
            let _ = sys::coalesce(io.socket(), false);
            if sys::is_empty(io.socket()) {
                return Some(true);
            }
            // Datagrams in the queue stay coalesced, and the kernel reports their length only to
            // receivers that request it.
            let _ = sys::coalesce(io.socket(), true);
            let _ = left.fill(self, io, &at_once);
        }
        Some(false)
    }

    /// Receives through the buffers that are large enough for coalesced datagrams.
    pub(super) fn recv_coalesced<B: Batch + ?Sized>(
        &self,
        coalesced: &Coalesced,
        io: &InUse<'_>,
        mode: &WaitMode,
        batch: &mut B,
    ) -> Result<usize, Cause> {
        let _turn = coalesced.turn.lock(mode.cancel.as_ref(), || match () {
            () if io.is_closed() || self.0.deaf.load(Ordering::Acquire) => Err(ErrorKind::Closed),
            () if mode.cancel.as_ref().is_some_and(CancelToken::is_fired) => {
                Err(ErrorKind::Cancelled)
            }
            () if mode.nonblocking => Err(ErrorKind::WouldBlock),
            () if mode.deadline.has_passed() => Err(ErrorKind::TimedOut),
            // A close wakes the thread with the lock, and then each next one.
            () => Ok(mode.deadline.remaining()),
        })?;
        if mode.cancel.as_ref().is_some_and(CancelToken::is_fired) {
            return Err(ErrorKind::Cancelled.into());
        }
        // Only the thread with the lock gets here.
        let mut left = coalesced.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut skipped = 0;
        loop {
            let count = left.hand_out(batch, self.inet_peer());
            if count > 0 {
                return Ok(count);
            }
            let over = left.fill(self, io, mode)?;
            if left.datagrams.is_empty() {
                if over {
                    return Err(ErrorKind::Closed.into());
                }
                mode.skip(&mut skipped, SLOTS)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::Incoming;
    use crate::types::address::Address;

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

    /// D3: A coalesced buffer is split into the datagrams that were sent, also if the last one is
    /// shorter, if it is the only one, and if it is empty.
    #[test]
    fn coalesced_buffer_is_split_into_the_sent_datagrams() {
        let lens = |len, segment| {
            let mut left = VecDeque::new();
            split(&mut left, &datagram(len), segment, 100);
            left.iter().map(|(d, at)| (d.len, d.original_len, *at)).collect::<Vec<_>>()
        };
        assert_eq!(lens(10, Some(4)), [(4, 4, 100), (4, 4, 104), (2, 2, 108)]);
        assert_eq!(lens(8, Some(4)), [(4, 4, 100), (4, 4, 104)]);
        assert_eq!(lens(3, Some(4)), [(3, 3, 100)]);
        assert_eq!(lens(10, None), [(10, 10, 100)]);
        assert_eq!(lens(10, Some(0)), [(10, 10, 100)]);
        assert_eq!(lens(0, None), [(0, 0, 100)]);
    }

    /// D1: A buffer that is too short truncates its datagram only; the next one is complete.
    #[test]
    fn remaining_datagrams_are_returned_in_order() {
        let bytes = Box::from(*b"abcdefgh");
        let mut left = Left { bytes, datagrams: VecDeque::new() };
        split(&mut left.datagrams, &datagram(8), Some(3), 0);
        let (mut short, mut long) = ([0; 2], [0; 8]);
        let mut batch = [Incoming::new(&mut short), Incoming::new(&mut long)];
        assert_eq!(left.hand_out(batch.as_mut_slice(), None), 2);
        assert_eq!((batch[0].bytes(), batch[1].bytes()), (&b"ab"[..], &b"def"[..]));
        let told = batch[0].datagram().map(|d| (d.truncated, d.original_len));
        assert_eq!(told, Some((true, 3)));
        assert_eq!(left.hand_out(batch.as_mut_slice(), None), 1);
        assert_eq!(batch[0].bytes(), b"gh");
        assert_eq!(left.hand_out(batch.as_mut_slice(), None), 0);
    }
}
