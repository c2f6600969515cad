//! Messages that carry the number of their connection, their own number and a checksum; and one
//! ledger for each connection, in which both sides write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use keepsock::{CloseReason, Framing, LengthFormat};

/// Splitmix64. Any sequence is sufficient.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The framing of messages on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A length of two bytes.
    Short,
    /// A variable-length integer.
    Varint,
    Fixed,
    /// The socket keeps the boundaries: SOCK_SEQPACKET, UDP.
    Packet,
}

pub const FIXED: usize = 40;
/// The longest message of [`Frame::Short`] and [`Frame::Varint`].
pub const LONGEST: usize = 12_000;

impl Frame {
    pub fn framing(self) -> Framing {
        match self {
            Frame::Short => Framing::Prefixed { format: LengthFormat::U16Be, max: LONGEST },
            Frame::Varint => {
                Framing::Prefixed { format: LengthFormat::VarintProtobuf, max: LONGEST }
            }
            Frame::Fixed => Framing::Fixed { len: FIXED },
            Frame::Packet => Framing::Raw,
        }
    }

    fn prefix(self, out: &mut Vec<u8>, mut len: usize) {
        match self {
            Frame::Short | Frame::Packet => out.extend((len as u16).to_be_bytes()),
            Frame::Varint => {
                while len >= 0x80 {
                    out.push(len as u8 | 0x80);
                    len >>= 7;
                }
                out.push(len as u8);
            }
            Frame::Fixed => {}
        }
    }

    /// The start and the end of the first message in `data`, if it is complete.
    pub fn split(self, data: &[u8]) -> Option<(usize, usize)> {
        let (start, len) = match self {
            Frame::Short | Frame::Packet => {
                (2, usize::from(u16::from_be_bytes([*data.first()?, *data.get(1)?])))
            }
            Frame::Varint => {
                let (mut len, mut at) = (0, 0);
                loop {
                    let byte = *data.get(at)?;
                    len |= usize::from(byte & 0x7f) << (7 * at);
                    at += 1;
                    if byte & 0x80 == 0 {
                        break (at, len);
                    }
                }
            }
            Frame::Fixed => (0, FIXED),
        };
        (data.len() >= start + len).then_some((start, start + len))
    }
}

/// The kinds of messages. A peer requests something, and the service replies with the same kind.
pub mod kind {
    pub const HELLO: u8 = 1;
    pub const ECHO: u8 = 2;
    /// The service pauses the connection for some milliseconds.
    pub const PAUSE: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const ABORT: u8 = 5;
    pub const SHUTDOWN: u8 = 6;
    /// From a function that was posted to the connection.
    pub const POSTED: u8 = 7;
    /// To all or to a group: it has no connection, and a number of its own.
    pub const PUSH: u8 = 8;
    pub const BEAT: u8 = 9;
    /// The last message of a drain.
    pub const BYE: u8 = 10;
    /// No reply is requested.
    pub const QUIET: u8 = 11;
}

#[derive(Debug, Clone, Copy)]
pub struct Message {
    pub id: u32,
    pub seq: u32,
    /// The number of messages that the service has received, in a reply.
    pub ack: u32,
    pub kind: u8,
    pub arg: u8,
}

const HEAD: usize = 20;

fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }
    (sum ^ (sum >> 32)) as u32
}

impl Message {
    /// Appends the message with `filler` more bytes.
    pub fn body(&self, out: &mut Vec<u8>, filler: usize) {
        let at = out.len();
        out.extend([0; 4]);
        out.extend(self.id.to_le_bytes());
        out.extend(self.seq.to_le_bytes());
        out.extend(self.ack.to_le_bytes());
        out.extend([self.kind, self.arg, 0, 0]);
        out.resize(at + HEAD + filler, self.seq as u8);
        let sum = checksum(&out[at + 4..]);
        out[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Appends the message as it is on the wire.
    pub fn frame(&self, frame: Frame, out: &mut Vec<u8>, filler: usize) {
        let filler = if frame == Frame::Fixed { FIXED - HEAD } else { filler };
        frame.prefix(out, HEAD + filler);
        self.body(out, filler);
    }

    pub fn parse(bytes: &[u8]) -> Option<Message> {
        let word =
            |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if bytes.len() < HEAD || word(0)? != checksum(&bytes[4..]) {
            return None;
        }
        let (kind, arg) = (bytes[16], bytes[17]);
        Some(Message { id: word(4)?, seq: word(8)?, ack: word(12)?, kind, arg })
    }

    pub fn len_with(frame: Frame, filler: usize) -> usize {
        if frame == Frame::Fixed { FIXED } else { HEAD + filler }
    }
}

/// How a connection ended, as its peer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// Each message of both sides must have arrived.
    Orderly = 1,
    /// A reset: messages may be lost, but none is received twice or out of order.
    Torn = 2,
    /// The end of stream after a stall. A Unix socket does not distinguish it from a reset, so the
    /// close reason of the service decides.
    Unsure = 3,
}

pub const NEW: u8 = 0;
pub const BOUND: u8 = 1;
pub const CLOSED: u8 = 2;

/// One connection. The service writes `up_got`, `down_sent`, `state` and `reason`; its peer writes the rest.
#[derive(Default)]
pub struct Ledger {
    pub up_sent: AtomicU32,
    pub up_got: AtomicU32,
    pub up_acked: AtomicU32,
    pub down_sent: AtomicU32,
    pub down_got: AtomicU32,
    pub state: AtomicU8,
    pub reason: AtomicU8,
    pub end: AtomicU8,
    pub eofs: AtomicU8,
    /// The permitted close reasons as bits. 0: all.
    pub permitted: AtomicU16,
}

/// The ledgers of one round.
pub struct Ledgers {
    ledgers: Box<[Ledger]>,
    next: AtomicU32,
    counts: [AtomicU64; COUNTS],
    wrong: Mutex<Vec<String>>,
}

macro_rules! counts {
    ($($name:ident,)*) => {
        /// The counters of a round.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        pub enum Count { $($name,)* }
        const NAMES: &[&str] = &[$(stringify!($name),)*];
        const COUNTS: usize = NAMES.len();
    };
}

counts![
    dialed,
    opens,
    outgoing_opens,
    closes,
    drains,
    eofs,
    up_sent,
    up_got,
    down_sent,
    down_got,
    pushes,
    pushes_got,
    bytes_up,
    bytes_down,
    beats_got,
    posted,
    posted_run,
    tasks,
    tasks_run,
    timers,
    resets,
    half_closes,
    stalls,
    half_frames,
    silent,
    too_long,
    server_closes,
    server_aborts,
    slow_consumers,
    cancelled,
    no_descriptor,
    exhausted,
    rejected,
    dropped_messages,
    dropped_bytes,
    drained_in_order,
    drained_by_reset,
    refused_handles,
    stopped_children,
    reconnects,
    retries,
    datagrams,
    datagrams_dropped,
    heartbeat_timeouts,
    lost_by_reset,
    visited,
];

/// The maximum number of connections of a round.
pub const MOST: usize = 8192;

impl Ledgers {
    pub fn new() -> Ledgers {
        Ledgers {
            ledgers: std::iter::repeat_with(Ledger::default).take(MOST).collect(),
            next: AtomicU32::new(0),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            wrong: Mutex::new(Vec::new()),
        }
    }

    pub fn open(&self) -> u32 {
        let id = self.next.fetch_add(1, Relaxed);
        assert!((id as usize) < MOST, "a round has too many connections");
        id
    }

    pub fn ledger(&self, id: u32) -> Option<&Ledger> {
        self.ledgers.get(id as usize).filter(|_| id < self.next.load(Relaxed))
    }

    pub fn add(&self, count: Count, n: u64) {
        self.counts[count as usize].fetch_add(n, Relaxed);
    }

    pub fn get(&self, count: Count) -> u64 {
        self.counts[count as usize].load(Relaxed)
    }

    /// Records a violation.
    pub fn wrong(&self, text: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() < 20 {
            wrong.push(text);
        }
    }

    pub fn equal(&self, what: &str, left: u64, right: u64) {
        if left != right {
            self.wrong(format!("{what}: {left} and {right}"));
        }
    }

    pub fn is_wrong(&self) -> bool {
        !self.wrong.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The service receives a message of a connection.
    pub fn receive(&self, ledger: &Ledger, message: Message) {
        let expected = ledger.up_got.load(Relaxed);
        if message.seq != expected || ledger.state.load(Relaxed) != BOUND {
            self.wrong(format!(
                "connection {}: message {} instead of {expected} in state {}",
                message.id,
                message.seq,
                ledger.state.load(Relaxed)
            ));
        }
        ledger.up_got.store(expected + 1, Relaxed);
    }

    /// The first message of a connection.
    pub fn bind(&self, message: Message) -> Option<&Ledger> {
        let ledger = self.ledger(message.id);
        let bound = ledger.is_some_and(|l| {
            message.kind == kind::HELLO
                && l.state.compare_exchange(NEW, BOUND, Relaxed, Relaxed).is_ok()
        });
        if !bound {
            self.wrong(format!("the first message of a connection is {message:?}"));
            return None;
        }
        ledger
    }

    pub fn close(&self, ledger: &Ledger, reason: Option<CloseReason>) {
        if ledger.state.compare_exchange(BOUND, CLOSED, Relaxed, Relaxed).is_err() {
            self.wrong("a connection was closed twice".to_owned());
        }
        ledger.reason.store(reason.map_or(0, |r| r as u8), Relaxed);
    }

    /// Checks every ledger. `lossy`: messages to a peer may be dropped, and are counted.
    pub fn balance(&self, lossy: bool) {
        for id in 0..self.next.load(Relaxed) {
            let l = &self.ledgers[id as usize];
            let of = |n: &AtomicU32| n.load(Relaxed);
            let (up_sent, up_got) = (of(&l.up_sent), of(&l.up_got));
            let (down_sent, down_got) = (of(&l.down_sent), of(&l.down_got));
            let (state, reason) = (l.state.load(Relaxed), l.reason.load(Relaxed));
            let end = l.end.load(Relaxed);
            self.add(Count::up_sent, u64::from(up_sent));
            self.add(Count::up_got, u64::from(up_got));
            self.add(Count::down_sent, u64::from(down_sent));
            self.add(Count::down_got, u64::from(down_got));
            let orderly = end == End::Orderly as u8
                || (end == End::Unsure as u8 && reason == CloseReason::PeerClosed as u8);
            let mut faults = Vec::new();
            if end == 0 {
                faults.push("its peer did not end");
            }
            if state == BOUND {
                faults.push("it was never closed");
            }
            if orderly && state == NEW {
                faults.push("it was never opened");
            }
            if if orderly { up_sent != up_got } else { up_sent < up_got } {
                faults.push("messages to the service differ");
            }
            if of(&l.up_acked) > up_got {
                faults.push("an acknowledged message was not delivered");
            }
            if if orderly && !lossy { down_sent != down_got } else { down_sent < down_got } {
                faults.push("messages from the service differ");
            }
            let permitted = l.permitted.load(Relaxed);
            if state == CLOSED && permitted != 0 && permitted & (1 << reason) == 0 {
                faults.push("the close reason is wrong");
            }
            if l.eofs.load(Relaxed) > 1 {
                faults.push("the end of stream was reported twice");
            }
            if !orderly {
                self.add(Count::lost_by_reset, u64::from(up_sent.saturating_sub(up_got)));
                self.add(Count::lost_by_reset, u64::from(down_sent.saturating_sub(down_got)));
            }
            if !faults.is_empty() {
                self.wrong(format!(
                    "connection {id}: {}: up {up_sent} -> {up_got} (acknowledged {}), down \
                     {down_sent} -> {down_got}, state {state}, reason {reason} of {permitted:b}, \
                     end {end}, eofs {}",
                    faults.join(", "),
                    of(&l.up_acked),
                    l.eofs.load(Relaxed),
                ));
            }
        }
    }

    /// Adds the counts to the totals, and clears the ledgers for the next round. Returns the
    /// violations.
    pub fn finish(&self, totals: &mut BTreeMap<&'static str, u64>) -> Vec<String> {
        for (name, count) in NAMES.iter().zip(&self.counts) {
            *totals.entry(name).or_default() += count.swap(0, Relaxed);
        }
        for ledger in &self.ledgers[..self.next.swap(0, Relaxed) as usize] {
            let Ledger { up_sent, up_got, up_acked, down_sent, down_got, .. } = ledger;
            for n in [up_sent, up_got, up_acked, down_sent, down_got] {
                n.store(0, Relaxed);
            }
            for n in [&ledger.state, &ledger.reason, &ledger.end, &ledger.eofs] {
                n.store(0, Relaxed);
            }
            ledger.permitted.store(0, Relaxed);
        }
        std::mem::take(&mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
