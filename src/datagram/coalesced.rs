//! Datagrams that the kernel hands over as one (UDP_GRO), and their callers see one by one.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::{Datagram, DatagramSocket, Incoming, Patience};
use crate::cancel::CancelToken;
use crate::error::ErrorKind;
use crate::sys::{self, InUse, Received};
use crate::turn::{LOOK, Turn};
use crate::wait::Cause;

/// How many such datagrams are taken from the kernel at once, and how long one can be.
const SLOTS: usize = 16;
const SLOT: usize = 1 << 16;

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
    pub(super) fn new() -> Coalesced {
        let bytes = vec![0; SLOTS * SLOT].into_boxed_slice();
        let left = Left { bytes, datagrams: VecDeque::new() };
        Coalesced { turn: Turn::default(), left: Mutex::new(left) }
    }
}

impl Left {
    /// Puts what is left into the buffers; into how many.
    fn hand_out(&mut self, batch: &mut [Incoming<'_>]) -> usize {
        let count = batch.len().min(self.datagrams.len());
        for (one, (mut datagram, at)) in batch.iter_mut().zip(self.datagrams.drain(..count)) {
            let whole = datagram.len;
            datagram.len = whole.min(one.buf.len());
            datagram.truncated |= whole > datagram.len;
            one.buf[..datagram.len].copy_from_slice(&self.bytes[at..at + datagram.len]);
            one.datagram = Some(datagram);
        }
        count
    }

    /// Cuts what came as one, beginning at `at`.
    fn cut(&mut self, datagram: &Datagram, segment: Option<usize>, at: usize) {
        let segment = segment.filter(|s| *s > 0).unwrap_or(usize::MAX);
        let mut done = 0;
        loop {
            let len = segment.min(datagram.len - done);
            let original_len = if segment == usize::MAX { datagram.original_len } else { len };
            self.datagrams
                .push_back((Datagram { len, original_len, ..datagram.clone() }, at + done));
            done += len;
            if done >= datagram.len {
                return;
            }
        }
    }
}

impl DatagramSocket {
    /// Receives through the buffers that are large enough for what the kernel hands over.
    pub(super) fn recv_coalesced(
        &self,
        coalesced: &Coalesced,
        io: &InUse<'_>,
        patience: &Patience,
        batch: &mut [Incoming<'_>],
    ) -> Result<usize, Cause> {
        let _turn = coalesced.turn.take_asking(|| match () {
            () if io.is_closed() || self.0.deaf.load(Ordering::Acquire) => Err(ErrorKind::Closed),
            () if patience.cancel.as_ref().is_some_and(CancelToken::is_fired) => {
                Err(ErrorKind::Cancelled)
            }
            () if patience.nonblocking => Err(ErrorKind::WouldBlock),
            () if patience.deadline.has_passed() => Err(ErrorKind::TimedOut),
            // Whoever has the turn is woken by a close, and so each in turn.
            () => Ok(Some(patience.deadline.remaining().map_or(LOOK, |left| left.min(LOOK)))),
        })?;
        // Only whoever has the turn is here.
        let mut left = coalesced.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let count = left.hand_out(batch);
            if count > 0 {
                return Ok(count);
            }
            let mut got: [Option<(Received, usize)>; SLOTS] = [const { None }; SLOTS];
            {
                let mut bufs: Vec<_> =
                    left.bytes.chunks_exact_mut(SLOT).map(IoSliceMut::new).collect();
                let call = |wait| {
                    sys::recv_datagrams(io.socket(), &mut bufs, true, wait, |at, received| {
                        got[at] = Some((received, at * SLOT));
                    })
                };
                self.recv_step(io, patience, call)?;
            }
            let mut over = false;
            for (received, at) in got.into_iter().flatten() {
                over |= self.is_over(&received);
                let segment = received.segment;
                if let Some(datagram) = self.told(received) {
                    left.cut(&datagram, segment, at);
                }
            }
            if over && left.datagrams.is_empty() {
                return Err(ErrorKind::Closed.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        }
    }

    /// D3: what came as one is told as what was sent, also if the last one is shorter, if nothing
    /// was put together, and if there are no bytes.
    #[test]
    fn what_came_as_one_is_cut_again() {
        let lens = |len, segment| {
            let left = Left { bytes: Box::default(), datagrams: VecDeque::new() };
            let mut left = left;
            left.cut(&datagram(len), segment, 100);
            left.datagrams.iter().map(|(d, at)| (d.len, d.original_len, *at)).collect::<Vec<_>>()
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
        left.cut(&datagram(8), Some(3), 0);
        let (mut short, mut long) = ([0; 2], [0; 8]);
        let mut batch = [Incoming::new(&mut short), Incoming::new(&mut long)];
        assert_eq!(left.hand_out(&mut batch), 2);
        assert_eq!((batch[0].bytes(), batch[1].bytes()), (&b"ab"[..], &b"def"[..]));
        let told = batch[0].datagram().map(|d| (d.truncated, d.original_len));
        assert_eq!(told, Some((true, 3)));
        assert_eq!(left.hand_out(&mut batch), 1);
        assert_eq!(batch[0].bytes(), b"gh");
        assert_eq!(left.hand_out(&mut batch), 0);
    }
}
