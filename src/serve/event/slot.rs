//! The state of each connection, in a table that grows and whose places are used again. What
//! few connections have is apart, for most are idle, and there are many.

use std::any::Any;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::framing::Cutter;
use crate::info::{Address, End};
use crate::liveness::Watch;
use crate::serve::event::output::Output;
use crate::sys::Owned;

/// The place holds a connection.
pub(super) const LIVE: u32 = 1;
/// Its loop is told by the kernel when something occurs.
pub(super) const REGISTERED: u32 = 1 << 1;
/// Of room, too.
pub(super) const WATCHES_ROOM: u32 = 1 << 2;
pub(super) const PAUSED: u32 = 1 << 3;
/// Reading goes on: there may be something that the kernel has told of before.
pub(super) const RESUMED: u32 = 1 << 4;
pub(super) const RECEIVED: u32 = 1 << 5;
pub(super) const WROTE: u32 = 1 << 6;
/// The peer has ended its side.
pub(super) const SAW_END: u32 = 1 << 7;
/// This side is to be ended, once what waits was sent.
pub(super) const FIN_WANTED: u32 = 1 << 8;
pub(super) const FIN_SENT: u32 = 1 << 9;
/// It is to be closed, once what waits was sent, and the peer has taken it.
pub(super) const CLOSING: u32 = 1 << 10;
/// The time for that is over.
pub(super) const IMPATIENT: u32 = 1 << 11;
/// It is to be reset, whatever waits.
pub(super) const CUT: u32 = 1 << 12;
/// Its close callback runs: nothing begins any more.
pub(super) const OVER: u32 = 1 << 13;
/// It is in its loop's list of those to look at.
pub(super) const LISTED: u32 = 1 << 14;
/// The peer is one of a Unix socket.
const UNIX: u32 = 1 << 15;
/// The program was told that the peer has ended its side.
pub(super) const TOLD_END: u32 = 1 << 16;
/// Its loop has yet to begin with it.
pub(super) const NEW: u32 = 1 << 17;
/// It came by a listener, and was not added by the program.
const ACCEPTED: u32 = 1 << 18;
/// The program was told that the service drains.
pub(super) const TOLD_DRAIN: u32 = 1 << 19;
/// Above the flags: a number of [`End`], 0 while it lives.
const END: u32 = 24;

pub(super) struct Slot {
    pub output: Option<Box<Output>>,
    pub rare: Option<Box<Rare>>,
    /// The peer's address: an IPv4 one as RFC 4291 section 2.5.5.2 maps it.
    ip: [u8; 16],
    scope: u32,
    port: u16,
    pub worker: u8,
    pub flags: u32,
    pub socket: Option<Owned>,
    /// Tells this connection from earlier ones in its place.
    pub generation: u32,
    /// When bytes came last, and were taken by the kernel last, on the service's clock.
    pub received: u32,
    pub wrote: u32,
    /// When its timer is set to, 0 if it is not.
    pub due: u32,
}

/// What few connections have.
#[derive(Default)]
pub(super) struct Rare {
    pub input: Option<Input>,
    pub data: Option<Arc<dyn Any + Send + Sync>>,
    pub groups: Vec<Arc<str>>,
    /// When the program wants to be called.
    pub timer: Option<u64>,
    /// Until when a close waits.
    pub close_by: Option<u64>,
    pub watch: Option<Watch>,
    /// The peer of a Unix socket, if it has a name.
    peer: Option<Address>,
}

/// The beginning of a message.
pub(super) struct Input {
    pub bytes: Vec<u8>,
    pub cutter: Cutter,
}

/// What is to be done next with a connection that is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    SendFin,
    Close { reset: bool },
}

impl Slot {
    fn empty() -> Slot {
        Slot {
            output: None,
            rare: None,
            ip: [0; 16],
            scope: 0,
            port: 0,
            worker: 0,
            flags: 0,
            socket: None,
            generation: 0,
            received: 0,
            wrote: 0,
            due: 0,
        }
    }

    pub(super) fn begin(
        &mut self,
        socket: Owned,
        peer: &Address,
        accepted: bool,
        worker: u8,
        now: u32,
    ) {
        self.socket = Some(socket);
        self.flags = LIVE | NEW | if accepted { ACCEPTED } else { 0 };
        self.worker = worker;
        (self.received, self.wrote, self.due) = (now, now, 0);
        match peer {
            Address::Inet(peer) => {
                (self.ip, self.port) = match peer.ip() {
                    IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), peer.port()),
                    IpAddr::V6(ip) => (ip.octets(), peer.port()),
                };
                self.scope = if let SocketAddr::V6(peer) = peer { peer.scope_id() } else { 0 };
            }
            other => {
                self.flags |= UNIX;
                if *other != Address::UnixUnnamed {
                    self.rare().peer = Some(other.clone());
                }
            }
        }
    }

    /// Empties the place for the next one. What was in it is dropped without the lock.
    pub(super) fn clear(&mut self) -> (Option<Owned>, Option<Box<Rare>>) {
        self.flags = 0;
        self.generation = self.generation.wrapping_add(1);
        self.output = None;
        (self.socket.take(), self.rare.take())
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.has(ACCEPTED)
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    #[inline]
    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    pub(super) fn is_inet(&self) -> bool {
        !self.has(UNIX)
    }

    pub(super) fn peer(&self) -> Address {
        if self.has(UNIX) {
            let named = self.rare.as_ref().and_then(|rare| rare.peer.clone());
            return named.unwrap_or(Address::UnixUnnamed);
        }
        let ip = Ipv6Addr::from(self.ip);
        SocketAddr::V6(SocketAddrV6::new(ip, self.port, 0, self.scope)).into()
    }

    pub(super) fn end(&self) -> Option<End> {
        End::from_number((self.flags >> END) as i32)
    }

    /// The first reason stays, except that a peer which had ended its side may be found dead.
    pub(super) fn note_end(&mut self, end: End) {
        let dies = matches!(end, End::Dead | End::Unreachable | End::Stalled | End::Overrun);
        if self.end().is_none() || dies && self.end() == Some(End::ClosedByPeer) {
            self.flags = self.flags & ((1 << END) - 1) | (end as u32) << END;
        }
    }

    pub(super) fn waits(&self) -> bool {
        self.output.as_ref().is_some_and(|output| !output.is_empty())
    }

    /// Whether the program may still be given what comes.
    pub(super) fn reads(&self) -> bool {
        !self.has(PAUSED | CLOSING | CUT | OVER | SAW_END) && self.has(LIVE)
    }

    /// Whether the program may still send.
    #[inline]
    pub(super) fn sends(&self) -> bool {
        !self.has(CLOSING | CUT | OVER | FIN_WANTED) && self.has(LIVE)
    }

    pub(super) fn next(&self) -> Next {
        match () {
            () if self.has(OVER) || !self.has(LIVE) => Next::Nothing,
            () if self.has(CUT) => Next::Close { reset: true },
            () if self.has(IMPATIENT) => Next::Close { reset: self.waits() },
            () if self.waits() => Next::Nothing,
            // Nothing can be lost: nothing was written, or the peer takes no more.
            () if self.has(CLOSING) && (!self.has(WROTE) || self.has(SAW_END)) => {
                Next::Close { reset: false }
            }
            () if self.has(CLOSING | FIN_WANTED) && !self.has(FIN_SENT) => Next::SendFin,
            () => Next::Nothing,
        }
    }
}

/// Places in a piece of the table.
const CHUNK: usize = 256;

/// The table. Its pieces are made when they are needed and stay where they are, so that a place
/// is found without a lock but its own.
pub(super) struct Slots(Box<[OnceLock<Chunk>]>);

type Chunk = Box<[Mutex<Slot>; CHUNK]>;

impl Slots {
    pub(super) fn new(most: u32) -> Slots {
        let chunks = (most as usize).div_ceil(CHUNK);
        Slots(std::iter::repeat_with(OnceLock::new).take(chunks).collect())
    }

    /// Makes the piece that a place is in.
    pub(super) fn make(&self, index: u32) {
        if let Some(chunk) = self.0.get(index as usize / CHUNK) {
            chunk.get_or_init(|| {
                // By way of the heap: an array would be made on the stack first.
                let places = std::iter::repeat_with(|| Mutex::new(Slot::empty())).take(CHUNK);
                match places.collect::<Vec<_>>().try_into() {
                    Ok(chunk) => chunk,
                    Err(_) => Box::new(std::array::from_fn(|_| Mutex::new(Slot::empty()))),
                }
            });
        }
    }

    #[inline]
    pub(super) fn lock(&self, index: u32) -> Option<MutexGuard<'_, Slot>> {
        let chunk = self.0.get(index as usize / CHUNK)?.get()?;
        let slot = &chunk[index as usize % CHUNK];
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framing;
    use crate::serve::WhenSlow;
    use crate::serve::event::output::Message;

    /// F7: what an idle connection costs, its lock included.
    #[test]
    fn a_place_is_small() {
        assert!(size_of::<Mutex<Slot>>() <= 72, "{}", size_of::<Mutex<Slot>>());
    }

    #[test]
    fn peers_come_back_as_they_were() {
        let mut slot = Slot::empty();
        let file = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for peer in ["192.0.2.1:80", "[2001:db8::1]:443", "[fe80::1%3]:7"] {
            let peer = Address::from(peer.parse::<SocketAddr>().unwrap());
            slot.begin(file.try_clone().unwrap().into(), &peer, true, 0, 0);
            assert_eq!(slot.peer(), peer);
            slot.clear();
        }
        for peer in [Address::UnixUnnamed, Address::UnixAbstract(b"name".to_vec())] {
            slot.begin(file.try_clone().unwrap().into(), &peer, true, 0, 0);
            assert_eq!(slot.peer(), peer);
            assert!(!slot.is_inet());
            slot.clear();
        }
        assert_eq!(slot.generation, 5);
    }

    /// I3: what is written is delivered before a connection is closed, within a limit; an end
    /// for which nothing can be lost waits for nothing.
    #[test]
    fn how_a_connection_ends() {
        let mut slot = Slot::empty();
        let close = |reset| Next::Close { reset };
        let message = Message::new(Framing::Raw, b"reply").unwrap();
        let mut waiting = Output::default();
        waiting.push(&message, 0, 1000, WhenSlow::Disconnect);
        assert_eq!(slot.next(), Next::Nothing);
        for (flags, waits, next) in [
            (0, false, Next::Nothing),
            (CLOSING, false, close(false)),
            (CLOSING | WROTE, true, Next::Nothing),
            (CLOSING | WROTE, false, Next::SendFin),
            (CLOSING | WROTE | FIN_SENT, false, Next::Nothing),
            (CLOSING | WROTE | FIN_SENT | SAW_END, false, close(false)),
            (CLOSING | WROTE | SAW_END, true, Next::Nothing),
            (CLOSING | WROTE | SAW_END, false, close(false)),
            (CLOSING | WROTE | IMPATIENT, true, close(true)),
            (CLOSING | WROTE | FIN_SENT | IMPATIENT, false, close(false)),
            (FIN_WANTED | WROTE, true, Next::Nothing),
            (FIN_WANTED | WROTE, false, Next::SendFin),
            (FIN_WANTED | FIN_SENT | WROTE, false, Next::Nothing),
            (CUT | CLOSING | WROTE, true, close(true)),
            (CUT | OVER, true, Next::Nothing),
        ] {
            slot.flags = LIVE | flags;
            slot.output = waits.then(|| {
                let mut output = Output::default();
                output.push(&message, 0, 1000, WhenSlow::Disconnect);
                Box::new(output)
            });
            assert_eq!(slot.next(), next, "{flags:b}, waits: {waits}");
        }
    }

    /// K6: the first reason stays, unless a half-closed peer dies.
    #[test]
    fn the_first_reason() {
        let mut slot = Slot::empty();
        assert_eq!(slot.end(), None);
        for (end, then) in [
            (End::ClosedByPeer, End::ClosedByPeer),
            (End::ClosedHere, End::ClosedByPeer),
            (End::Dead, End::Dead),
            (End::Overrun, End::Dead),
        ] {
            slot.note_end(end);
            assert_eq!(slot.end(), Some(then));
        }
    }
}
