//! The plan of a round, which the seed and the number of the round choose.

use std::sync::atomic::AtomicU8;

use crate::ledgers::{Frame, Ledgers, Random};
use crate::peer::Target;
use crate::support::TempDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Events,
    /// A thread for each connection.
    Threads,
    Pool,
    Datagrams,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Unix,
    Seqpacket,
}

/// One round: a service from its start to its end.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub c_api: bool,
    pub mode: Mode,
    pub transport: Transport,
    pub frame: Frame,
    pub loops: u32,
    /// The policy of full send queues.
    pub drop_oldest: bool,
    /// No peer resets its connection: all messages and bytes must arrive or be counted.
    pub orderly: bool,
    pub heavy: bool,
    pub workers: u64,
    /// Scripts of each worker; batches if `heavy`.
    pub scripts: u64,
    pub exhaust: bool,
    pub outgoing: bool,
    pub child: bool,
    pub beats: bool,
    pub limited: bool,
}

impl Plan {
    /// `heavy`: few connections with many messages.
    pub fn new(seed: u64, number: u64, heavy: bool, scale: u64) -> Plan {
        let mut random = Random(seed ^ number.wrapping_mul(0x1234_5678_9abc_def1));
        let random = &mut random;
        let mode = match (heavy, number % 8) {
            (true, _) => Mode::Events,
            (_, 3) => Mode::Threads,
            (_, 5) => Mode::Pool,
            (_, 7) => Mode::Datagrams,
            _ => Mode::Events,
        };
        let transport = match (mode, random.below(4)) {
            (Mode::Datagrams, _) => Transport::Tcp,
            (_, 0) => Transport::Unix,
            (Mode::Threads | Mode::Pool, 1) => Transport::Seqpacket,
            _ => Transport::Tcp,
        };
        let frame = match transport {
            Transport::Seqpacket => Frame::Packet,
            _ => random.of(&[Frame::Short, Frame::Varint, Frame::Fixed]),
        };
        let events = mode == Mode::Events && !heavy;
        let special = if events { random.below(12) } else { 99 };
        let exhaust = events && matches!(special, 0 | 1);
        // A connection in the queue of a server that dies is reset.
        let outgoing = matches!(special, 2 | 3);
        let (beats, limited) = (special == 6, special == 7);
        let drop_oldest = events && random.chance(40) && !beats && !limited;
        let orderly = heavy || drop_oldest || random.chance(30);
        Plan {
            seed: random.below(u64::MAX),
            c_api: random.chance(50),
            mode,
            transport,
            frame,
            loops: random.of(&[1, 1, 3]),
            drop_oldest,
            orderly: orderly && !beats && !limited && !outgoing,
            heavy,
            workers: 6,
            scripts: match (heavy, mode) {
                (true, _) => 60 * scale,
                (_, Mode::Events) => 100 * scale,
                _ => 40 * scale,
            },
            exhaust,
            outgoing,
            child: matches!(special, 4 | 5),
            beats,
            limited,
        }
    }

    pub fn tcp(&self) -> bool {
        self.transport == Transport::Tcp
    }

    /// A name for tables.
    pub fn cell(&self) -> String {
        let api = if self.c_api { "C" } else { "Rust" };
        match self.mode {
            Mode::Datagrams => format!("{api} datagrams, udp"),
            mode => format!("{api} {mode:?}, {:?}", self.transport).to_lowercase(),
        }
        .replacen("rust", "Rust", 1)
        .replacen("c ", "C ", usize::from(self.c_api))
    }
}

/// Where the rounds take place.
pub struct Site {
    pub ledgers: &'static Ledgers,
    pub places: &'static [AtomicU8],
    pub dir: TempDir,
    pub from: [u8; 4],
}

impl Site {
    pub fn endpoint(&self, plan: &Plan) -> String {
        match plan.transport {
            Transport::Tcp => "127.0.0.1:0".to_owned(),
            _ => self.dir.endpoint("s"),
        }
    }

    pub fn target(&self, plan: &Plan, endpoint: &str) -> Target {
        match plan.transport {
            Transport::Tcp => Target::Tcp(endpoint.parse().unwrap()),
            Transport::Unix => Target::Unix(self.dir.path("s")),
            Transport::Seqpacket => Target::Packets(self.dir.path("s")),
        }
    }
}
