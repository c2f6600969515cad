//! The scripts of the peers: ordinary clients, hostile clients, and clients of the library.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use keepsock::CloseReason::{HeartbeatTimeout, Local, MessageTooLong, PeerClosed, PeerReset};
use keepsock::{CloseReason, ErrorKind};

use crate::ledgers::{Count, End, Frame, Ledgers, Message, Random, kind};
use crate::machine;
use crate::peer::{HANG, Peer, Seen, Target};
use crate::support::{Api, Client, Opt, Outcome, Token};

/// Bits of the argument of [`kind::HELLO`].
pub const GROUP: u8 = 3;
/// The group whose members are pushed more than they read.
pub const SLOW: u8 = 3;
/// The connection does not end at a drain.
pub const STUBBORN: u8 = 128;

/// The values that all peers of a round need.
pub struct Scene {
    pub ledgers: &'static Ledgers,
    pub to: Target,
    /// The endpoint in the library's syntax.
    pub endpoint: String,
    pub frame: Frame,
    /// The queue limit drops messages.
    pub lossy: bool,
    pub events: bool,
    /// No peer resets its connection, so every message and byte must arrive or be counted.
    pub orderly: bool,
    /// Few connections with many messages.
    pub heavy: bool,
    /// Milliseconds between heartbeats, and until the service abandons a silent peer. 0: none.
    pub beats: (i64, i64),
    /// The service rejects clients.
    pub limited: bool,
    /// Descriptors are used up for some time. A cancel token needs one.
    pub exhausted: bool,
    pub from: [u8; 4],
    pub stop: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Script {
    Ordinary,
    HalfClose,
    Stall,
    Pause,
    ServerCloses,
    ServerShutsDown,
    Library,
    Cancelled,
    Slow,
    ResetAnytime,
    ResetAtRest,
    Silent,
    HalfFrame,
    TooLong,
    ServerAborts,
}

use Script::*;

const ORDERLY: [Script; 10] = [
    Ordinary,
    Ordinary,
    Ordinary,
    HalfClose,
    Stall,
    Pause,
    ServerCloses,
    ServerShutsDown,
    Library,
    Cancelled,
];
const HOSTILE: [Script; 16] = [
    Ordinary,
    Ordinary,
    Ordinary,
    HalfClose,
    Stall,
    Pause,
    ServerCloses,
    ServerShutsDown,
    Library,
    ResetAnytime,
    ResetAnytime,
    ResetAtRest,
    Silent,
    HalfFrame,
    TooLong,
    ServerAborts,
];

impl Scene {
    fn connect(&self) -> Peer<'static> {
        let from = self.source(self.ledgers.get(Count::dialed));
        Peer::connect(self.ledgers, &self.to, self.frame, self.lossy, from)
    }

    fn source(&self, n: u64) -> [u8; 4] {
        let [a, b, c, d] = self.from;
        [a, b, c, d.wrapping_add(1 + (n % 200) as u8)]
    }

    fn filler(&self, random: &mut Random) -> usize {
        match random.below(64) {
            0 => random.below(4000) as usize,
            1..=9 => random.below(300) as usize,
            _ => random.below(24) as usize,
        }
    }

    /// The work of one thread. Returns the connections that are still open.
    pub fn work<A: Api>(
        &self,
        number: u64,
        random: &mut Random,
        scripts: u64,
    ) -> Vec<Peer<'static>> {
        if self.limited {
            (0..scripts).for_each(|_| self.be_limited(random));
            return Vec::new();
        }
        if self.beats.0 > 0 {
            return self.beat(number, random);
        }
        if self.heavy {
            return self.talk(random, scripts);
        }
        for _ in 0..scripts {
            if self.ledgers.is_wrong() {
                return Vec::new();
            }
            let script = if self.orderly { random.of(&ORDERLY) } else { random.of(&HOSTILE) };
            self.run::<A>(script, random);
        }
        // Without loss the service resets a slow consumer.
        if self.events && (self.lossy || !self.orderly) {
            self.run::<A>(Slow, random);
        }
        let stay = |random: &mut Random| {
            let mut peer = self.connect();
            let stubborn = self.events && !self.orderly && random.chance(30);
            peer.queue(kind::HELLO, if stubborn { STUBBORN } else { 0 }, 0);
            peer.replied();
            peer
        };
        (0..2).map(|_| stay(random)).collect()
    }

    /// A few connections exchange many small messages in batches.
    fn talk(&self, random: &mut Random, batches: u64) -> Vec<Peer<'static>> {
        let mut peers: Vec<_> = (0..4).map(|_| self.connect()).collect();
        for peer in &mut peers {
            peer.queue(kind::HELLO, random.below(3) as u8, 0);
        }
        for _ in 0..batches {
            for peer in &mut peers {
                for _ in 0..64 + random.below(384) {
                    peer.queue(kind::ECHO, 0, random.below(12) as usize);
                }
                peer.flush();
            }
            for peer in &mut peers {
                if !peer.replied() {
                    break;
                }
            }
            if random.chance(25) {
                peers[0].ping(8);
            }
            if self.ledgers.is_wrong() {
                break;
            }
        }
        for peer in &mut peers {
            peer.replied();
        }
        let stay = peers.split_off(2);
        for peer in peers {
            peer.permit(&[PeerClosed]);
            peer.close();
        }
        stay
    }

    fn run<A: Api>(&self, script: Script, random: &mut Random) {
        let ledgers = self.ledgers;
        let stream = self.frame != Frame::Packet;
        let tcp = matches!(self.to, Target::Tcp(_));
        match script {
            Library | Cancelled if self.exhausted => return,
            Library | Cancelled => {
                let cancel = matches!(script, Cancelled) || random.chance(30);
                return self.library::<A>(random, cancel);
            }
            Pause if !self.events => return,
            Stall if !self.events && self.orderly => return,
            TooLong if !stream || self.frame == Frame::Fixed => return,
            HalfFrame if !stream => return,
            _ => {}
        }
        let mut peer = self.connect();
        if let Silent = script {
            ledgers.add(Count::silent, 1);
            if random.chance(50) {
                std::thread::sleep(Duration::from_micros(random.below(2000)));
            }
            return if random.chance(50) { peer.reset() } else { peer.end(End::Torn) };
        }
        let group = if let Slow = script { SLOW } else { random.below(3) as u8 };
        peer.queue(kind::HELLO, group, 0);
        let some = |peer: &mut Peer<'_>, random: &mut Random, most: u64| {
            for _ in 0..1 + random.below(most) {
                peer.queue(kind::ECHO, 0, self.filler(random));
            }
        };
        // A broadcast of a service with threads resets a peer that does not read.
        let stalls_tear = !self.events;
        match script {
            Ordinary => {
                for _ in 0..1 + random.below(3) {
                    some(&mut peer, random, 12);
                    peer.replied();
                    peer.ping(16);
                }
                peer.permit(&[PeerClosed]);
                peer.close();
            }
            HalfClose => {
                ledgers.add(Count::half_closes, 1);
                some(&mut peer, random, 30);
                peer.finish_writing();
                std::thread::sleep(Duration::from_micros(random.below(3000)));
                peer.permit(&[PeerClosed]);
                peer.close();
            }
            Stall => {
                ledgers.add(Count::stalls, 1);
                for _ in 0..200 + random.below(300) {
                    peer.queue(kind::ECHO, 0, 100 + self.filler(random));
                }
                // It writes and does not read.
                for _ in 0..1 + random.below(8) {
                    peer.flush();
                    std::thread::sleep(Duration::from_millis(2));
                }
                peer.replied();
                if stalls_tear {
                    peer.permit(&[PeerClosed, CloseReason::SlowConsumer]);
                    return peer.close_if_open();
                }
                peer.permit(&[PeerClosed]);
                peer.close();
            }
            Pause => {
                some(&mut peer, random, 4);
                peer.queue(kind::PAUSE, 1 + random.below(4) as u8, 0);
                some(&mut peer, random, 4);
                peer.replied();
                peer.close();
            }
            ServerCloses => {
                ledgers.add(Count::server_closes, 1);
                some(&mut peer, random, 4);
                peer.queue(kind::CLOSE, 0, 0);
                peer.replied();
                peer.permit(&[Local]);
                peer.close();
            }
            ServerShutsDown => {
                some(&mut peer, random, 4);
                peer.queue(kind::SHUTDOWN, 0, 0);
                peer.replied();
                if !peer.read_to_end() {
                    ledgers.wrong(format!("connection {}: no end of stream", peer.id));
                }
                peer.close();
            }
            Slow => self.be_slow(peer),
            ResetAnytime => {
                some(&mut peer, random, 40);
                for _ in 0..random.below(4) {
                    peer.step(Duration::from_micros(random.below(500)));
                }
                peer.reset();
            }
            ResetAtRest => {
                some(&mut peer, random, 8);
                peer.replied();
                // The service has read everything, so it must find the reset, and no end of stream.
                if tcp && self.events {
                    peer.permit(&[PeerReset]);
                }
                peer.reset();
            }
            HalfFrame => {
                ledgers.add(Count::half_frames, 1);
                peer.replied();
                let mut part = Vec::new();
                let message = Message { id: peer.id, seq: 0, ack: 0, kind: kind::ECHO, arg: 0 };
                message.frame(self.frame, &mut part, 30);
                peer.queue_bytes(&part[..1 + random.below(part.len() as u64 - 1) as usize]);
                peer.step(Duration::from_millis(1));
                if random.chance(50) {
                    return peer.reset();
                }
                peer.close();
            }
            TooLong => {
                ledgers.add(Count::too_long, 1);
                peer.replied();
                let large = if self.frame == Frame::Short { [0xff; 3] } else { [0xff, 0xff, 0x3f] };
                peer.queue_bytes(&large);
                peer.queue_bytes(&[7; 100]);
                peer.read_to_end();
                if self.events {
                    peer.permit(&[MessageTooLong]);
                }
                peer.end(End::Torn);
            }
            ServerAborts => {
                ledgers.add(Count::server_aborts, 1);
                some(&mut peer, random, 4);
                peer.queue(kind::ABORT, 0, 0);
                peer.read_to_end();
                if self.events {
                    peer.permit(&[Local]);
                }
                peer.end(End::Torn);
            }
            Library | Cancelled | Silent => {}
        }
    }

    /// A member of the group that is pushed more than it reads.
    fn be_slow(&self, mut peer: Peer<'_>) {
        peer.replied();
        let until = Instant::now() + HANG;
        if self.lossy {
            while self.ledgers.get(Count::pushes) < 400 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(100));
            peer.permit(&[PeerClosed]);
            return peer.close();
        }
        // The service resets it at the limit of the queue.
        while machine::wait(peer.fd(), 0, Duration::from_millis(100)) == 0 {
            if Instant::now() > until {
                self.ledgers.wrong(format!("connection {}: not reset as slow consumer", peer.id));
                break;
            }
        }
        self.ledgers.add(Count::slow_consumers, 1);
        peer.permit(&[CloseReason::SlowConsumer]);
        peer.read_to_end();
        peer.end(End::Torn);
    }

    /// Heartbeats: a peer that answers survives, and one that does not has received a heartbeat
    /// before the service abandons it.
    fn beat(&self, number: u64, random: &mut Random) -> Vec<Peer<'static>> {
        let mut peers: Vec<_> = (0..6).map(|_| self.connect()).collect();
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.answers = n % 2 == 0;
            peer.queue(kind::HELLO, 0, 0);
        }
        // Every second thread is a peer that talks, but not for a while.
        if number % 2 == 0 {
            std::thread::sleep(Duration::from_millis(random.below(100)));
        }
        let time = Duration::from_millis(self.beats.1 as u64 * 2);
        let end = Instant::now() + time;
        while Instant::now() < end && !self.ledgers.is_wrong() {
            for peer in &mut peers {
                peer.step(Duration::from_millis(3));
            }
        }
        let (living, mute): (Vec<_>, Vec<_>) = peers.into_iter().partition(|p| p.answers);
        for mut peer in mute {
            peer.read_to_end();
            if peer.beats == 0 {
                self.ledgers.wrong(format!(
                    "connection {}: ended for its silence, but it received no heartbeat",
                    peer.id
                ));
            }
            self.ledgers.add(Count::heartbeat_timeouts, 1);
            peer.permit(&[HeartbeatTimeout]);
            peer.end(End::Torn);
        }
        for peer in living {
            if peer.beats == 0 {
                self.ledgers.wrong(format!("connection {}: no heartbeat", peer.id));
            }
            peer.permit(&[PeerClosed]);
            peer.close();
        }
        Vec::new()
    }

    /// A client of a service that rejects some: it is served, or it sees its end.
    fn be_limited(&self, random: &mut Random) {
        let mut peers: Vec<_> = (0..1 + random.below(4)).map(|_| self.connect()).collect();
        for peer in &mut peers {
            peer.queue(kind::HELLO, 0, 0);
            peer.flush();
        }
        for mut peer in peers {
            if peer.replied() {
                peer.close();
            } else {
                peer.end(End::Torn);
            }
        }
    }

    /// A client of the library, whose token may be fired during its reads.
    fn library<A: Api>(&self, random: &mut Random, cancel: bool) {
        let ledgers = self.ledgers;
        let token = A::token();
        let from = std::net::Ipv4Addr::from(self.source(random.below(200)));
        let local = format!("{from}:0");
        let mut options = vec![Opt::Cancel(&token), Opt::ReadTimeout(HANG.as_millis() as i64)];
        match self.to {
            Target::Tcp(_) => options.push(Opt::Local(&local)),
            Target::Packets(_) => options.push(Opt::Seqpacket(true)),
            Target::Unix(_) => {}
        }
        let client = match A::connect(&self.endpoint, &options) {
            Ok(client) => client,
            Err(e) if e.is(ErrorKind::NoDescriptors) => {
                return ledgers.add(Count::no_descriptor, 1);
            }
            Err(e) => return ledgers.wrong(format!("connect: {e:?}")),
        };
        ledgers.add(Count::dialed, 1);
        machine::CONNECTIONS.fetch_add(1, Relaxed);
        let id = ledgers.open();
        let ledger = ledgers.ledger(id).unwrap();
        let framing = self.frame.framing();
        let packets = self.frame == Frame::Packet;
        let mut body = Vec::new();
        let mut sent = 0;
        let mut send = |kind: u8, filler: usize| {
            body.clear();
            Message { id, seq: sent, ack: 0, kind, arg: 0 }
                .body(&mut body, if self.frame == Frame::Fixed { 20 } else { filler });
            sent += 1;
            ledger.up_sent.store(sent, Relaxed);
            let whole = Message::len_with(self.frame, filler) + {
                let mut framed = Vec::new();
                let plain = Message { id, seq: 0, ack: 0, kind, arg: 0 };
                plain.frame(self.frame, &mut framed, filler);
                let packet = if packets { 2 } else { 0 };
                framed.len() - Message::len_with(self.frame, filler) - packet
            };
            ledgers.add(Count::bytes_up, whole as u64);
            let written = if packets {
                client.write_all(&body)
            } else {
                client.write_message(&framing, &body)
            };
            if let Err(e) = written {
                ledgers.wrong(format!("connection {id}: write: {e:?}"));
            }
        };
        let mut next = 0;
        let mut buf = vec![0; 16 << 10];
        // Returns the failure, or the message.
        let mut receive = || -> Outcome<Option<Message>> {
            let got = if packets {
                client.read(&mut buf).map(|n| buf[..n].to_vec())
            } else {
                client.read_message(&framing)
            }?;
            if got.is_empty() {
                return Ok(None);
            }
            let Some(message) = Message::parse(&got) else {
                ledgers.wrong(format!("connection {id}: a damaged message"));
                return Ok(None);
            };
            machine::MESSAGES.fetch_add(1, Relaxed);
            // The prefix of the frame counts as well.
            let mut prefix = Vec::new();
            message.frame(self.frame, &mut prefix, got.len() - 20);
            ledgers.add(Count::bytes_down, (prefix.len() - if packets { 2 } else { 0 }) as u64);
            if message.kind == kind::PUSH {
                ledgers.add(Count::pushes_got, 1);
            } else {
                if message.seq < next || (message.seq > next && !self.lossy) {
                    ledgers.wrong(format!("connection {id}: {message:?} instead of {next}"));
                }
                next = message.seq + 1;
                ledger.down_got.fetch_add(1, Relaxed);
                ledger.up_acked.store(message.ack, Relaxed);
            }
            Ok(Some(message))
        };
        let mut requests = 0;
        for round in 0..2 + random.below(4) {
            let kind = if round == 0 { kind::HELLO } else { kind::ECHO };
            send(kind, self.filler(random));
            requests += 1;
            while ledger.up_acked.load(Relaxed) < requests {
                match receive() {
                    Ok(Some(_)) => {}
                    other => {
                        ledgers.wrong(format!("connection {id}: instead of a reply: {other:?}"));
                        ledger.end.store(End::Torn as u8, Relaxed);
                        return;
                    }
                }
            }
            if cancel && round == 1 {
                // The read waits, or reads a pushed message, until the token is fired.
                let delay = Duration::from_micros(random.below(1500));
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        std::thread::sleep(delay);
                        token.fire();
                    });
                    loop {
                        match receive() {
                            Ok(Some(_)) => {}
                            Err(e) if e.is(ErrorKind::Cancelled) => break,
                            other => {
                                ledgers
                                    .wrong(format!("connection {id}: cancelled read: {other:?}"));
                                break;
                            }
                        }
                    }
                });
                token.reset();
                ledgers.add(Count::cancelled, 1);
            }
        }
        if let Err(e) = client.shutdown_write() {
            ledgers.wrong(format!("connection {id}: shutdown: {e:?}"));
        }
        let ended = loop {
            match receive() {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(e) => {
                    if client.close_reason() != Some(PeerClosed) {
                        ledgers.wrong(format!("connection {id}: instead of the end: {e:?}"));
                        break false;
                    }
                    break true;
                }
            }
        };
        let _ = client.close();
        ledger.end.store(if ended { End::Orderly } else { End::Torn } as u8, Relaxed);
    }

    /// A child process is the peer, and is stopped while it is pushed to.
    pub fn stopped_child(&self, random: &mut Random) {
        let ledgers = self.ledgers;
        let id = ledgers.open();
        let ledger = ledgers.ledger(id).unwrap();
        let frame = match self.frame {
            Frame::Short => "short",
            Frame::Varint => "varint",
            _ => "fixed",
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["peer", &self.endpoint, frame, &id.to_string()])
            .arg(if self.lossy { "lossy" } else { "exact" })
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It has connected.
        let line = lines.next().and_then(Result::ok);
        if line.as_deref() == Some("connected") {
            ledgers.add(Count::dialed, 1);
            std::thread::sleep(Duration::from_millis(random.below(20)));
            machine::signal(child.id(), libc::SIGSTOP);
            std::thread::sleep(Duration::from_millis(100 + random.below(200)));
            machine::signal(child.id(), libc::SIGCONT);
            ledgers.add(Count::stopped_children, 1);
        }
        let report = lines.next().and_then(Result::ok).unwrap_or_default();
        let _ = child.wait();
        let numbers: Vec<u32> = report.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [up_sent, up_acked, down_got, pushes, bytes_up, bytes_down, end] = numbers[..] else {
            return ledgers.wrong(format!("the child reported {report:?}"));
        };
        ledger.up_sent.store(up_sent, Relaxed);
        ledger.up_acked.store(up_acked, Relaxed);
        ledger.down_got.store(down_got, Relaxed);
        ledger.end.store(end as u8, Relaxed);
        ledgers.add(Count::pushes_got, u64::from(pushes));
        ledgers.add(Count::bytes_up, u64::from(bytes_up));
        ledgers.add(Count::bytes_down, u64::from(bytes_down));
        if end != End::Orderly as u32 && self.lossy {
            ledgers.wrong(format!("connection {id}: the stopped child was reset"));
        }
    }
}

/// The work of the child process of [`Scene::stopped_child`].
pub fn child(words: &[String]) {
    let [endpoint, frame, id, lossy] = words else { panic!("peer ENDPOINT FRAME ID lossy|exact") };
    let to = match endpoint.strip_prefix("unix:") {
        Some(path) => Target::Unix(path.into()),
        None => Target::Tcp(endpoint.parse().unwrap()),
    };
    let frame = match frame.as_str() {
        "short" => Frame::Short,
        "varint" => Frame::Varint,
        _ => Frame::Fixed,
    };
    let ledgers = Ledgers::new();
    let mut peer = Peer::connect(&ledgers, &to, frame, lossy == "lossy", [127, 40, 0, 1]);
    peer.id = id.parse().unwrap();
    println!("connected");
    peer.queue(kind::HELLO, 1, 0);
    let end = Instant::now() + Duration::from_millis(400);
    while Instant::now() < end && peer.seen.is_none() {
        (0..20).for_each(|_| peer.queue(kind::ECHO, 0, 40));
        peer.replied();
    }
    peer.finish_writing();
    peer.until("end", |p| p.seen.is_some());
    let of = |n: &std::sync::atomic::AtomicU32| n.load(Relaxed);
    let ledger = peer.ledger;
    println!(
        "{} {} {} {} {} {} {}",
        peer.queued,
        of(&ledger.up_acked),
        of(&ledger.down_got),
        ledgers.get(Count::pushes_got),
        ledgers.get(Count::bytes_up),
        ledgers.get(Count::bytes_down),
        if peer.seen == Some(Seen::EndOfStream) && !ledgers.is_wrong() { 1 } else { 2 },
    );
}
