//! A round with a service that has a thread for each connection, or a pool of threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use keepsock::CloseReason;

use crate::ledgers::{Count, End, Frame, Ledger, Ledgers, Message, Random, kind};
use crate::peer::{HANG, Peer};
use crate::round::{Mode, Plan, Site, Transport};
use crate::scripts::Scene;
use crate::support::{Api, Client, Handler, Opt, Serve, Server, Service};

/// Serves one connection.
fn serve<A: Api>(ledgers: &'static Ledgers, frame: Frame, client: &A::Client) {
    let framing = frame.framing();
    let mut buf = vec![0; 16 << 10];
    let mut ledger: Option<&'static Ledger> = None;
    let mut body = Vec::new();
    loop {
        let got = if frame == Frame::Packet {
            match client.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => Ok(buf[..n].to_vec()),
                Err(e) => Err(e),
            }
        } else {
            client.read_message(&framing)
        };
        let Ok(got) = got else { break };
        let Some(message) = Message::parse(&got) else {
            ledgers.wrong(format!("a handler received a damaged message of {} bytes", got.len()));
            break;
        };
        let known = match ledger {
            Some(known) => known,
            None => match ledgers.bind(message) {
                Some(known) => known,
                None => break,
            },
        };
        ledger = Some(known);
        ledgers.receive(known, message);
        let seq = known.down_sent.load(Relaxed);
        let ack = known.up_got.load(Relaxed);
        body.clear();
        Message { id: message.id, seq, ack, kind: message.kind, arg: 0 }
            .body(&mut body, got.len() - 20);
        let written = if frame == Frame::Packet {
            client.write_all(&body)
        } else {
            client.write_message(&framing, &body)
        };
        if written.is_err() {
            break;
        }
        known.down_sent.store(seq + 1, Relaxed);
        match message.kind {
            kind::CLOSE => break,
            kind::ABORT => {
                client.abort();
                break;
            }
            kind::SHUTDOWN => drop(client.shutdown_write()),
            _ => {}
        }
    }
    if let Some(ledger) = ledger {
        ledgers.close(ledger, client.close_reason().or(Some(CloseReason::Local)));
    }
}

pub fn run<A: Api>(plan: &Plan, site: &Site, random: &mut Random) {
    let ledgers = site.ledgers;
    let close_timeout = HANG.as_millis() as i64;
    let mut options = vec![Opt::Backlog(4096), Opt::CloseTimeout(close_timeout)];
    if plan.transport == Transport::Seqpacket {
        options.push(Opt::Seqpacket(true));
    }
    let server = A::listen(&site.endpoint(plan), &options).unwrap();
    let running = Arc::new(AtomicU64::new(0));
    let (frame, handlers) = (plan.frame, running.clone());
    let handler: Handler<A> = Box::new(move |client| {
        ledgers.add(Count::opens, 1);
        handlers.fetch_add(1, Relaxed);
        serve::<A>(ledgers, frame, client);
        handlers.fetch_sub(1, Relaxed);
        ledgers.add(Count::closes, 1);
    });
    let pool = [Serve::Threads(24)];
    let serve: &[Serve] = if plan.mode == Mode::Pool { &pool } else { &[] };
    let service = server.serve(serve, handler).unwrap();
    let scene = Scene {
        ledgers,
        to: site.target(plan, &server.endpoint()),
        endpoint: server.endpoint(),
        frame: plan.frame,
        lossy: false,
        events: false,
        orderly: plan.orderly,
        heavy: false,
        beats: (0, 0),
        limited: false,
        exhausted: false,
        from: site.from,
        stop: AtomicBool::new(false),
    };
    let stayers: Vec<Peer<'static>> = std::thread::scope(|scope| {
        let (scene, service) = (&scene, &service);
        let workers: Vec<_> = (0..plan.workers)
            .map(|number| {
                let mut random = Random(random.below(u64::MAX));
                scope.spawn(move || scene.work::<A>(number, &mut random, plan.scripts))
            })
            .collect();
        let pusher = scope.spawn(move || pushes::<A>(scene, service));
        let stayers = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
        scene.stop.store(true, Relaxed);
        pusher.join().unwrap();
        stayers
    });

    let dialed = ledgers.get(Count::dialed);
    let calm = || {
        let stats = service.stats();
        stats.opened == dialed && stats.connections as usize == stayers.len()
    };
    let until = Instant::now() + HANG;
    while !calm() && Instant::now() < until && !ledgers.is_wrong() {
        std::thread::sleep(Duration::from_millis(1));
    }
    if !calm() {
        ledgers.wrong(format!(
            "after the peers had ended: {dialed} dialed, {} stay\n{}",
            stayers.len(),
            service.dump()
        ));
    }
    let stayed = stayers.len() as u64;
    let (finished, cut) = std::thread::scope(|scope| {
        let drained = scope.spawn(|| service.drain(HANG.as_millis() as i64).unwrap());
        for mut peer in stayers {
            let ended = peer.read_to_end();
            peer.end(if ended { End::Orderly } else { End::Torn });
        }
        drained.join().unwrap()
    });
    ledgers.add(Count::drained_in_order, u64::from(finished));
    ledgers.add(Count::drained_by_reset, u64::from(cut));
    if !ledgers.is_wrong() {
        ledgers.equal(
            "drained connections, and the connections that stayed",
            u64::from(finished),
            stayed,
        );
        ledgers.equal("connections that the drain reset", u64::from(cut), 0);
    }
    let stats = service.stats();
    ledgers.equal("opened, and handlers", stats.opened, ledgers.get(Count::opens));
    ledgers.equal("closed, and ended handlers", stats.closed, ledgers.get(Count::closes));
    ledgers.equal("handlers that run", running.load(Relaxed), 0);
    ledgers.equal("opened and closed", stats.opened, stats.closed);
    let ends: u64 = stats.ends.iter().map(|(_, n)| n).sum();
    ledgers.equal("close reasons", ends, stats.closed);
    ledgers.equal("accepted and opened", server.stats().accepted, stats.opened);
    ledgers.balance(false);
    if plan.orderly {
        ledgers.equal("pushes", ledgers.get(Count::pushes), ledgers.get(Count::pushes_got));
    }
}

/// Broadcasts to all connections. Each handler writes replies at the same time.
fn pushes<A: Api>(scene: &Scene, service: &A::Service) {
    let mut number = 0;
    let framed = scene.frame != Frame::Packet;
    while !scene.stop.load(Relaxed) {
        let message = Message { id: 0, seq: number, ack: 0, kind: kind::PUSH, arg: 0 };
        number += 1;
        let mut bytes = Vec::new();
        if framed {
            message.frame(scene.frame, &mut bytes, 0);
        } else {
            message.body(&mut bytes, 0);
        }
        match service.push(None, &bytes) {
            Ok(sent) => scene.ledgers.add(Count::pushes, u64::from(sent.sent)),
            Err(e) => scene.ledgers.wrong(format!("push: {e:?}")),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
