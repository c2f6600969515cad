//! Bytes that come, cut into messages, and bytes that waited.

use std::io;
use std::mem;

use socket2::SockRef;

use super::super::slot::{
    CLOSING, CUT, Input, OVER, PAUSED, RECEIVED, RESUMED, SAW_END, Slot, TOLD_END,
};
use super::Loop;
use crate::framing::{Cut, Framing};
use crate::info::End;
use crate::sys::{self, Wait};

/// How often in a row one connection is read from before others have their turn.
const ROUNDS: usize = 16;
/// Buffers of messages in part that are kept for the next ones, and how large at most.
const SPARE: usize = 16;
const SPARE_SIZE: usize = super::READ;

/// What a read came to.
enum Got {
    Bytes(usize),
    End,
    /// Thrown away, or interrupted.
    Again,
    Nothing,
}

impl<'a> Loop<'a> {
    /// Reads what is there, or with `to_end` until the end that the kernel has told of. True: all
    /// is as it was before, and there is nothing else to be done.
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
            let Some(mut slot) = self.lock(index) else {
                return false;
            };
            let generation = slot.generation;
            // With the first byte another limit holds.
            changed |= self.events.asked.first_byte_limit.is_some() && !slot.has(RECEIVED);
            let got = self.receive(&mut slot, index, buf, to_end);
            drop(slot);
            match got {
                Got::Bytes(n) => {
                    changed |= self.deliver(index, generation, &buf[..n], false);
                    if n < buf.len() && !to_end {
                        return !changed;
                    }
                }
                Got::Again => {}
                Got::End => {
                    self.deliver(index, generation, &[], true);
                    self.tell_end(index, generation);
                    return false;
                }
                Got::Nothing => return false,
            }
        }
        // There may be more, of which the kernel will not tell again.
        if let Some(mut slot) = self.lock(index) {
            slot.flags |= RESUMED;
        }
        false
    }

    #[inline]
    fn receive(&self, slot: &mut Slot, index: u32, buf: &mut [u8], to_end: bool) -> Got {
        let throws_away = slot.has(CLOSING) && !slot.has(CUT | OVER | SAW_END);
        let Some(socket) = slot.socket.as_ref().map(sys::borrow) else {
            return Got::Nothing;
        };
        if !slot.reads() && !throws_away {
            if to_end && !slot.has(CUT | OVER) {
                // Paused, or half-closed; but one that broke off is not to be waited for.
                if let Ok(Some(e)) = SockRef::from(&socket).take_error() {
                    self.events.broken(slot, index, &e);
                }
            }
            return Got::Nothing;
        }
        match sys::recv(socket, buf, Wait::No) {
            Ok(0) => {
                slot.flags |= SAW_END;
                slot.note_end(End::ClosedByPeer);
                if throws_away { Got::Nothing } else { Got::End }
            }
            Ok(_) if throws_away => Got::Again,
            Ok(n) => {
                slot.flags |= RECEIVED;
                slot.received = self.now as u32;
                self.events.traffic.received(n);
                Got::Bytes(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Got::Again,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Got::Nothing,
            Err(e) => {
                self.events.broken(slot, index, &e);
                Got::Nothing
            }
        }
    }

    /// Hands over what came; true: the connection was changed.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        index: u32,
        generation: u32,
        data: &[u8],
        ended: bool,
    ) -> bool {
        match self.events.push.framing {
            Framing::Raw if data.is_empty() => false,
            Framing::Raw => {
                self.call(index, generation, |handler, connection| handler.data(connection, data))
            }
            framing => {
                self.deliver_messages(index, generation, data, framing, ended);
                true
            }
        }
    }

    /// Hands messages over; what is the beginning of one is kept.
    fn deliver_messages(
        &mut self,
        index: u32,
        generation: u32,
        data: &[u8],
        framing: Framing,
        ended: bool,
    ) {
        let Some(fresh) = framing.cutter() else {
            return;
        };
        let kept = self.lock(index).and_then(|mut slot| slot.rare.as_mut()?.input.take());
        let (mut kept, mut cutter) = match kept {
            Some(mut input) => {
                input.bytes.extend_from_slice(data);
                (Some(input.bytes), input.cutter)
            }
            None => (None, fresh),
        };
        let bytes: &[u8] = kept.as_deref().unwrap_or(data);
        let mut done = 0;
        while self.takes_messages(index) {
            match cutter.cut(&bytes[done..], ended) {
                Cut::Piece { range, len } => {
                    let message = &bytes[done..][range];
                    self.call(index, generation, |handler, connection| {
                        handler.data(connection, message);
                    });
                    done += len;
                    if let Some(fresh) = framing.cutter() {
                        cutter = fresh;
                    }
                }
                Cut::More => break,
                Cut::TooLong => {
                    if let Some(mut slot) = self.lock(index) {
                        slot.note_end(End::TooLong);
                        slot.flags |= CUT;
                    }
                    return;
                }
            }
        }
        if done == bytes.len() {
            self.spare(kept);
            return;
        }
        let rest = match kept.take() {
            Some(mut bytes) => {
                bytes.drain(..done);
                bytes
            }
            None => {
                let mut bytes = self.spare.pop().unwrap_or_default();
                bytes.extend_from_slice(&data[done..]);
                bytes
            }
        };
        match self.lock(index) {
            Some(mut slot) if !slot.has(CLOSING | CUT | OVER) => {
                slot.rare().input = Some(Input { bytes: rest, cutter });
            }
            _ => self.spare(Some(rest)),
        }
    }

    fn takes_messages(&self, index: u32) -> bool {
        let stops = PAUSED | CLOSING | CUT | OVER;
        self.lock(index).is_some_and(|slot| !slot.has(stops))
    }

    /// Keeps a buffer for the next message that comes in parts.
    fn spare(&mut self, bytes: Option<Vec<u8>>) {
        if let Some(mut bytes) = bytes {
            if self.spare.len() < SPARE && bytes.capacity() <= SPARE_SIZE {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }

    /// Tells the program that the peer has ended its side, once all before has been told.
    pub(super) fn tell_end(&mut self, index: u32, generation: u32) {
        let Some(mut slot) = self.lock(index) else {
            return;
        };
        if slot.has(PAUSED | CLOSING | CUT | OVER | TOLD_END) || !slot.has(SAW_END) {
            return;
        }
        slot.flags |= TOLD_END;
        drop(slot);
        self.call(index, generation, |handler, connection| handler.finished(connection));
    }

    /// Hands to the kernel what waits.
    pub(super) fn flush(&mut self, index: u32) {
        let Some(mut guard) = self.lock(index) else {
            return;
        };
        let slot = &mut *guard;
        let (Some(output), Some(socket)) = (&mut slot.output, &slot.socket) else {
            return;
        };
        if slot.flags & (CUT | OVER) != 0 {
            return;
        }
        let mut total = 0;
        let failure = loop {
            let (slices, count) = output.slices();
            if count == 0 {
                break None;
            }
            match sys::send_slices(sys::borrow(socket), &slices[..count], Wait::No) {
                Ok(n) => {
                    output.advance(n);
                    total += n;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break None,
                Err(e) => break Some(e),
            }
        };
        let emptied = output.is_empty();
        if total > 0 {
            self.events.traffic.sent(total);
            slot.wrote = self.now as u32;
        }
        if let Some(e) = failure {
            self.events.broken(slot, index, &e);
            return;
        }
        if emptied {
            // Most connections are idle: an empty queue takes no room.
            slot.output = None;
            let (tells, generation) = (!slot.has(CLOSING | CUT | OVER), slot.generation);
            drop(guard);
            if tells {
                self.call(index, generation, |handler, connection| handler.writable(connection));
            }
        }
    }
}
