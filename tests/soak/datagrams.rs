//! A round with a datagram service: each datagram that the kernel did not drop is served once.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::ledgers::{Count, Ledgers, Message, Random, kind};
use crate::machine;
use crate::peer::HANG;
use crate::round::{Plan, Site};
use crate::support::{Api, DatagramService, Datagrams, Opt};

pub fn run<A: Api>(plan: &Plan, site: &Site, random: &mut Random) {
    let ledgers = site.ledgers;
    let socket = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(-1)]).unwrap();
    let to: SocketAddr = socket.endpoint().parse().unwrap();
    let served = Arc::new(AtomicU64::new(0));
    let count = served.clone();
    let service = socket
        .serve(
            plan.loops,
            Box::new(move |reply, got| {
                count.fetch_add(1, Relaxed);
                let Some(message) = Message::parse(&got.bytes) else {
                    return ledgers.wrong("a damaged datagram".to_owned());
                };
                if message.kind == kind::ECHO {
                    // The peer may have closed its socket: a later call reports that.
                    let _ = reply(&got.bytes);
                }
            }),
        )
        .unwrap();
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for n in 0..plan.workers {
            let sent = &sent;
            let mut random = Random(random.below(u64::MAX));
            scope.spawn(move || {
                for at in 0..plan.scripts {
                    let from = Ipv4Addr::new(127, 50, n as u8, (at % 200) as u8 + 1);
                    send(ledgers, to, from, &mut random, sent);
                    if ledgers.is_wrong() {
                        return;
                    }
                }
            });
        }
    });
    let sent = sent.load(Relaxed);
    let until = Instant::now() + HANG;
    let all = || served.load(Relaxed) + socket.stats().unwrap().dropped as u64;
    while all() != sent && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = socket.stats().unwrap();
    ledgers.equal("datagrams sent, and served or dropped by the kernel", sent, all());
    ledgers.equal("datagrams served", served.load(Relaxed), stats.served as u64);
    ledgers.equal("unread bytes", stats.unread as u64, 0);
    ledgers.add(Count::datagrams, sent);
    ledgers.add(Count::datagrams_dropped, stats.dropped as u64);
    service.stop();
    service.wait(HANG.as_millis() as i64).unwrap();
    socket.close();
}

/// One socket: a window of requests and replies, or a flood.
fn send(ledgers: &Ledgers, to: SocketAddr, from: Ipv4Addr, random: &mut Random, sent: &AtomicU64) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    machine::CONNECTIONS.fetch_add(1, Relaxed);
    let mut bytes = Vec::new();
    let mut seq = 0;
    let mut next = |bytes: &mut Vec<u8>, kind: u8, filler: usize| {
        bytes.clear();
        Message { id: 1, seq, ack: 0, kind, arg: 0 }.body(bytes, filler);
        seq += 1;
        socket.send(bytes).unwrap();
        sent.fetch_add(1, Relaxed);
    };
    match random.below(4) {
        // No replies: the kernel may drop some, and counts them.
        0 => (0..300).for_each(|_| next(&mut bytes, kind::QUIET, 8)),
        // It closes its socket before the replies: the kernel reports errors to the service.
        1 => (0..4).for_each(|_| next(&mut bytes, kind::ECHO, 8)),
        _ => {
            let mut buf = [0; 4096];
            for _ in 0..8 {
                let window = 1 + random.below(8);
                let since = Instant::now();
                (0..window).for_each(|_| {
                    let filler = random.below(900) as usize;
                    next(&mut bytes, kind::ECHO, filler);
                });
                let until = Instant::now() + Duration::from_millis(100);
                for _ in 0..window {
                    let left = until.saturating_duration_since(Instant::now());
                    let left = left.max(Duration::from_millis(1));
                    socket.set_read_timeout(Some(left)).unwrap();
                    // A flood of others may have used up the buffer, which is counted.
                    let Ok(n) = socket.recv(&mut buf) else { break };
                    if Message::parse(&buf[..n]).is_none() {
                        ledgers.wrong("a damaged reply".to_owned());
                    }
                    machine::MESSAGES.fetch_add(2, Relaxed);
                }
                machine::LATENCIES.note(since);
            }
        }
    }
}
