//! A round with a service of event loops.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keepsock::CloseReason;
use socket2::Socket;

use crate::ledgers::{BOUND, Count, End, Ledger, Ledgers, Message, Random, kind};
use crate::machine;
use crate::peer::{HANG, Peer};
use crate::round::{Plan, Site};
use crate::scripts::{GROUP, SLOW, STUBBORN, Scene};
use crate::support::{Api, Connection, On, Opt, Reconnect, Serve, Server, Service, Stats, system};

const GROUPS: [&str; 4] = ["red", "green", "blue", "slow"];
/// In the value of a connection: the service made it.
const OUTGOING: usize = 1 << 40;
/// In the value of a connection: it does not end at a drain.
const STAYS: usize = 1 << 41;

/// One state per entry of a connection.
const FREE: u8 = 0;
const LIVE: u8 = 1;
const CALLED: u8 = 2;

/// The state that the callbacks of a round share.
struct Shared<A: Api> {
    ledgers: &'static Ledgers,
    places: &'static [AtomicU8],
    reasons: [AtomicU64; 16],
    kept: Mutex<Vec<A::Connection>>,
    failed: AtomicU64,
    local_outgoing: AtomicU64,
}

impl<A: Api> Shared<A> {
    /// Checks that the connection is in the expected state, and that no other callback of the connection runs.
    fn called(&self, c: &A::Connection, what: &str, from: u8, to: u8, body: impl FnOnce()) {
        let state = &self.places[c.place()];
        let turn = |from, to| {
            if let Err(was) = state.compare_exchange(from, to, Relaxed, Relaxed) {
                self.ledgers.wrong(format!("{what} of {}: state {was} instead of {from}", c.id()));
            }
        };
        turn(from, CALLED);
        body();
        turn(CALLED, to);
    }

    fn ledger(&self, c: &A::Connection) -> Option<&'static Ledger> {
        let index = (c.data() & (OUTGOING - 1)).checked_sub(1)?;
        self.ledgers.ledger(index as u32)
    }

    /// Sends the next message of the connection, in the thread of its loop.
    fn send(&self, c: &A::Connection, ledger: &Ledger, kind: u8, filler: usize, fixed: bool) {
        let id = ((c.data() & (OUTGOING - 1)) - 1) as u32;
        let seq = ledger.down_sent.load(Relaxed);
        let ack = ledger.up_got.load(Relaxed);
        let filler = if fixed { crate::ledgers::FIXED - 20 } else { filler };
        BODY.with_borrow_mut(|body| {
            body.clear();
            Message { id, seq, ack, kind, arg: 0 }.body(body, filler);
            if c.send(body).is_ok() {
                ledger.down_sent.store(seq + 1, Relaxed);
            }
        });
    }
}

thread_local! {
    static BODY: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn callbacks<A: Api>(shared: &Arc<Shared<A>>, fixed: bool) -> On<A> {
    let s = || shared.clone();
    let (open, data, finished, timer, drain, close) = (s(), s(), s(), s(), s(), s());
    let failed = s();
    On {
        open: Some(Box::new(move |c| {
            open.called(c, "open", FREE, LIVE, || {
                open.ledgers.add(Count::opens, 1);
                if c.data() != 0 {
                    open.ledgers.add(Count::outgoing_opens, 1);
                }
                let mut kept = open.kept.lock().unwrap();
                if kept.len() < 64 {
                    kept.push(c.clone());
                } else {
                    let at = c.place() % 64;
                    kept[at] = c.clone();
                }
            });
        })),
        data: Some(Box::new(move |c, bytes| {
            data.called(c, "data", LIVE, LIVE, || on_data(&data, c, bytes, fixed));
        })),
        writable: None,
        finished: Some(Box::new(move |c| {
            finished.called(c, "end of stream", LIVE, LIVE, || {
                finished.ledgers.add(Count::eofs, 1);
                if let Some(ledger) = finished.ledger(c) {
                    ledger.eofs.fetch_add(1, Relaxed);
                }
                c.close();
            });
        })),
        timer: Some(Box::new(move |c| {
            timer.called(c, "timer", LIVE, LIVE, || {
                timer.ledgers.add(Count::timers, 1);
                c.resume();
            });
        })),
        drain: Some(Box::new(move |c| {
            drain.called(c, "drain", LIVE, LIVE, || {
                drain.ledgers.add(Count::drains, 1);
                if let Some(ledger) = drain.ledger(c) {
                    drain.send(c, ledger, kind::BYE, 0, fixed);
                }
                if c.data() & STAYS == 0 {
                    c.close();
                }
            });
        })),
        close: Some(Box::new(move |c, reason| {
            close.called(c, "close", LIVE, FREE, || {
                close.ledgers.add(Count::closes, 1);
                close.reasons[reason as usize].fetch_add(1, Relaxed);
                if c.data() & OUTGOING != 0 && reason == CloseReason::Local {
                    close.local_outgoing.fetch_add(1, Relaxed);
                }
                if let Some(ledger) = close.ledger(c) {
                    close.ledgers.close(ledger, Some(reason));
                }
                if c.send(b"too late").is_ok() {
                    close.ledgers.wrong("a send in on_close succeeded".to_owned());
                }
            });
        })),
        connect_failed: Some(Box::new(move |_, _| {
            failed.failed.fetch_add(1, Relaxed);
        })),
    }
}

fn on_data<A: Api>(shared: &Shared<A>, c: &A::Connection, bytes: &[u8], fixed: bool) {
    let ledgers = shared.ledgers;
    let Some(message) = Message::parse(bytes) else {
        return ledgers.wrong("the service received a damaged message".to_owned());
    };
    let ledger = match shared.ledger(c) {
        Some(ledger) => ledger,
        None => {
            let Some(ledger) = ledgers.bind(message) else { return };
            let stays = if message.arg & STUBBORN != 0 { STAYS } else { 0 };
            c.set_data((c.data() & OUTGOING) | stays | (message.id as usize + 1));
            let _ = c.join(GROUPS[usize::from(message.arg & GROUP)]);
            ledger
        }
    };
    ledgers.receive(ledger, message);
    if message.kind == kind::QUIET {
        return;
    }
    shared.send(c, ledger, message.kind, bytes.len() - 20, fixed);
    match message.kind {
        kind::PAUSE => {
            c.pause();
            let _ = c.set_timer(i64::from(message.arg));
        }
        kind::CLOSE => c.close(),
        kind::ABORT => c.abort(),
        kind::SHUTDOWN => c.shutdown_write(),
        _ => {}
    }
}

/// Numbers and sends pushed messages from one thread.
struct Pusher {
    source: u8,
    next: u32,
    body: Vec<u8>,
}

impl Pusher {
    fn push<A: Api>(
        &mut self,
        ledgers: &Ledgers,
        service: &A::Service,
        group: Option<&str>,
        filler: usize,
    ) {
        let message = Message { id: 0, seq: self.next, ack: 0, kind: kind::PUSH, arg: self.source };
        self.next += 1;
        self.body.clear();
        message.body(&mut self.body, filler);
        match service.push(group, &self.body) {
            Ok(sent) => ledgers.add(Count::pushes, u64::from(sent.sent)),
            Err(e) => ledgers.wrong(format!("push: {e:?}")),
        }
    }
}

/// Runs a round.
pub fn run<A: Api>(plan: &Plan, site: &Site, random: &mut Random) {
    let ledgers = site.ledgers;
    let fixed = plan.frame == crate::ledgers::Frame::Fixed;
    let shared = Arc::new(Shared::<A> {
        ledgers,
        places: site.places,
        reasons: Default::default(),
        kept: Mutex::default(),
        failed: AtomicU64::new(0),
        local_outgoing: AtomicU64::new(0),
    });
    let mut beat = Vec::new();
    Message { id: 0, seq: 0, ack: 0, kind: kind::BEAT, arg: 0 }.frame(plan.frame, &mut beat, 0);
    let mut options = vec![Opt::Backlog(4096), Opt::CloseTimeout(HANG.as_millis() as i64)];
    if plan.beats {
        options.extend([Opt::Heartbeat(&beat, 100), Opt::HeartbeatTimeout(1500)]);
    }
    let server = A::listen(&site.endpoint(plan), &options).unwrap();
    // Accepted connections inherit the size, so that messages are soon queued.
    if !plan.heavy {
        let fd = server.fd().unwrap();
        system::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, 16 << 10);
    }
    let mut serve = vec![Serve::Threads(plan.loops), Serve::Framing(plan.frame.framing())];
    serve.push(Serve::QueueLimit(if plan.drop_oldest { 64 << 10 } else { 1 << 20 }));
    if plan.drop_oldest {
        serve.push(Serve::DropOldest);
    }
    match (plan.limited, random.chance(50) && plan.tcp()) {
        (true, true) => serve.push(Serve::PerAddress(3)),
        (true, false) => serve.extend([Serve::Max(6), Serve::Reject]),
        _ => {}
    }
    let service = server.serve_events(&serve, callbacks(&shared, fixed)).unwrap();
    let service = Arc::new(service);
    let scene = Scene {
        ledgers,
        to: site.target(plan, &server.endpoint()),
        endpoint: server.endpoint(),
        frame: plan.frame,
        lossy: plan.drop_oldest,
        events: true,
        orderly: plan.orderly,
        heavy: plan.heavy,
        beats: if plan.beats { (100, 1500) } else { (0, 0) },
        limited: plan.limited,
        exhausted: plan.exhaust,
        from: site.from,
        stop: AtomicBool::new(false),
    };

    let mut reconnects = 0;
    let timer = start_timer::<A>(ledgers, &service, plan, fixed);
    let stayers: Vec<Peer<'static>> = std::thread::scope(|scope| {
        let (scene, shared, service) = (&scene, &shared, &service);
        let workers: Vec<_> = (0..plan.workers)
            .map(|number| {
                let mut random = Random(plan.seed ^ (number + 1) << 20);
                scope.spawn(move || scene.work::<A>(number, &mut random, plan.scripts))
            })
            .collect();
        let quiet = plan.beats || plan.limited;
        let mut others = Vec::new();
        if !quiet {
            others.push(scope.spawn(move || pushes::<A>(scene, service, plan, fixed)));
            others.push(scope.spawn(move || posts::<A>(scene, shared, service, fixed)));
        }
        if plan.exhaust {
            others.push(scope.spawn(move || exhaust(scene)));
        }
        if plan.child {
            let mut random = Random(plan.seed ^ 77);
            others.push(scope.spawn(move || scene.stopped_child(&mut random)));
        }
        if plan.outgoing {
            reconnects = 2;
            let connections = 6;
            others.push(scope.spawn(move || {
                be_a_dying_server::<A>(scene, service, reconnects, connections, plan.seed);
            }));
        }
        let stayers = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
        // The child and the dying server end by themselves.
        let last = if quiet { 0 } else { 2 };
        let (ending, lasting): (Vec<_>, Vec<_>) =
            others.into_iter().enumerate().partition(|(n, _)| *n < last);
        lasting.into_iter().for_each(|(_, other)| other.join().unwrap());
        scene.stop.store(true, Relaxed);
        ending.into_iter().for_each(|(_, other)| other.join().unwrap());
        stayers
    });
    if let Some(timer) = timer {
        let _ = service.remove_timer(timer);
    }
    end::<A>(plan, &scene, &shared, &server, &service, stayers);
    let handles: Vec<_> = std::mem::take(&mut *shared.kept.lock().unwrap());
    drop((service, server));
    ledgers.add(Count::reconnects, reconnects);
    let ended = shared.failed.load(Relaxed) + shared.local_outgoing.load(Relaxed);
    ledgers.equal("reconnects and their ends", reconnects, ended);
    refuse::<A>(ledgers, &handles);
    drop(handles);
    ledgers.equal(
        "posted functions that ran",
        ledgers.get(Count::posted),
        ledgers.get(Count::posted_run),
    );
    ledgers.equal("tasks that ran", ledgers.get(Count::tasks), ledgers.get(Count::tasks_run));
    if Arc::strong_count(&shared) != 1 {
        ledgers.wrong("callbacks are left".to_owned());
    }
}

fn start_timer<A: Api>(
    ledgers: &'static Ledgers,
    service: &Arc<A::Service>,
    plan: &Plan,
    fixed: bool,
) -> Option<u64> {
    if plan.beats || plan.limited {
        return None;
    }
    let weak = Arc::downgrade(service);
    let mut pusher = Pusher { source: 1, next: 0, body: Vec::new() };
    let timer = service.add_timer(
        5,
        7,
        Box::new(move |_| {
            // The service is freed after the timer was removed, and never in this function.
            if let Some(service) = weak.upgrade() {
                ledgers.add(Count::timers, 1);
                let filler = if fixed { crate::ledgers::FIXED - 20 } else { 30 };
                pusher.push::<A>(ledgers, &service, Some(GROUPS[1]), filler);
            }
        }),
    );
    Some(timer.unwrap())
}

/// Waits for the peers, drains the service, and compares its statistics with the counters.
fn end<A: Api>(
    plan: &Plan,
    scene: &Scene,
    shared: &Shared<A>,
    server: &A::Server,
    service: &Arc<A::Service>,
    stayers: Vec<Peer<'static>>,
) {
    let ledgers = scene.ledgers;
    let rejected = || {
        let counters = server.stats();
        counters.rejected + counters.over_address_limit
    };
    let accounted = || {
        let opened = service.stats().opened - ledgers.get(Count::outgoing_opens);
        ledgers.get(Count::dialed) == opened + rejected()
    };
    let calm = || service.connections() as usize == stayers.len() && accounted();
    let until = Instant::now() + HANG;
    while !calm() && Instant::now() < until && !ledgers.is_wrong() {
        std::thread::sleep(Duration::from_millis(1));
    }
    if !calm() {
        ledgers.wrong(format!(
            "after the peers had ended: {} dialed, {} rejected, {} made by the service, {} stay\n{}",
            ledgers.get(Count::dialed),
            rejected(),
            ledgers.get(Count::outgoing_opens),
            stayers.len(),
            service.dump()
        ));
    }
    let stayed = stayers.len() as u64;
    let stubborn = !plan.orderly && !stayers.is_empty();
    let limit = if stubborn { 300 } else { HANG.as_millis() as i64 };
    let (finished, cut) = std::thread::scope(|scope| {
        let drained = scope.spawn(|| service.drain(limit).unwrap());
        for mut peer in stayers {
            let ended = peer.read_to_end();
            // The peer of a Unix socket does not distinguish a reset at the deadline from the end.
            let sure = plan.tcp() || !stubborn;
            peer.end(if ended && sure { End::Orderly } else { End::Torn });
        }
        drained.join().unwrap()
    });
    let (finished, cut) = (u64::from(finished), u64::from(cut));
    ledgers.add(Count::drained_in_order, finished);
    ledgers.add(Count::drained_by_reset, cut);
    if !ledgers.is_wrong() {
        ledgers.equal(
            "drained connections, and the connections that stayed",
            finished + cut,
            stayed,
        );
        ledgers.equal("drain callbacks", ledgers.get(Count::drains), stayed);
    }
    if plan.orderly {
        ledgers.equal("connections that the drain reset", cut, 0);
    }
    let counters = server.stats();
    ledgers.add(Count::rejected, rejected());
    ledgers.add(Count::exhausted, counters.exhausted);
    ledgers.add(Count::retries, counters.retried);
    balance(plan, ledgers, shared, &service.stats());
}

fn balance<A: Api>(plan: &Plan, ledgers: &Ledgers, shared: &Shared<A>, stats: &Stats) {
    let of = |count| ledgers.get(count);
    ledgers.equal("opened, and calls of on_open", stats.opened, of(Count::opens));
    ledgers.equal("closed, and calls of on_close", stats.closed, of(Count::closes));
    ledgers.equal("opened and closed", stats.opened, stats.closed);
    ledgers.equal("close reasons", stats.ends.iter().map(|(_, n)| n).sum(), stats.closed);
    for (reason, n) in &stats.ends {
        let seen = shared.reasons[*reason as usize].load(Relaxed);
        ledgers.equal(&format!("closes with {reason:?}"), *n, seen);
    }
    let number = |n: i64| n as u64;
    ledgers.equal("queued bytes", number(stats.queued), 0);
    ledgers.equal(
        "written bytes, and sent and dropped ones",
        number(stats.written),
        number(stats.sent + stats.dropped),
    );
    ledgers.balance(plan.drop_oldest);
    ledgers.add(Count::dropped_messages, number(stats.dropped_messages));
    ledgers.add(Count::dropped_bytes, number(stats.dropped));
    if number(stats.received) > of(Count::bytes_up) || number(stats.sent) < of(Count::bytes_down) {
        ledgers.wrong(format!("more bytes than were sent: {stats:?}"));
    }
    if plan.orderly {
        ledgers.equal("bytes to the service", of(Count::bytes_up), number(stats.received));
        ledgers.equal("bytes from the service", number(stats.sent), of(Count::bytes_down));
        let got = of(Count::down_got) + of(Count::pushes_got);
        ledgers.equal(
            "messages from the service, and those received or dropped",
            of(Count::down_sent) + of(Count::pushes),
            got + number(stats.dropped_messages),
        );
        if !plan.drop_oldest {
            ledgers.equal("dropped messages", number(stats.dropped_messages), 0);
        }
    }
}

/// Handles of connections that have ended.
fn refuse<A: Api>(ledgers: &Ledgers, handles: &[A::Connection]) {
    for c in handles {
        ledgers.add(Count::refused_handles, 1);
        let posted = c.post(Box::new(|_| {})).is_ok();
        if c.is_open() || c.queued() > 0 || c.send(b"late").is_ok() || posted {
            ledgers.wrong(format!("the handle {} of a closed connection works", c.id()));
        }
        c.close();
        c.pause();
    }
}

fn pushes<A: Api>(scene: &Scene, service: &A::Service, plan: &Plan, fixed: bool) {
    let mut random = Random(plan.seed ^ 3);
    let mut pusher = Pusher { source: 0, next: 0, body: Vec::new() };
    let own = crate::ledgers::FIXED - 20;
    let mut last = Instant::now();
    while !scene.stop.load(Relaxed) {
        if !plan.heavy {
            // Many of the smallest messages fill a queue as well. A busy machine delays this thread:
            // their number follows the time, so that the queue of a slow peer is full within HANG.
            let filler = if fixed { own } else { 10_000 };
            let late = std::mem::replace(&mut last, Instant::now()).elapsed().as_millis();
            let times = 1 + late.min(50);
            for _ in 0..if fixed { 60 * times } else { times } {
                pusher.push::<A>(scene.ledgers, service, Some(GROUPS[usize::from(SLOW)]), filler);
            }
        }
        let group = random.of(&[None, Some(GROUPS[0]), Some(GROUPS[2])]);
        let filler = if fixed { own } else { random.below(20) as usize };
        pusher.push::<A>(scene.ledgers, service, group, filler);
        std::thread::sleep(Duration::from_micros(700));
    }
}

/// Posts functions to connections and to the service.
fn posts<A: Api>(scene: &Scene, shared: &Arc<Shared<A>>, service: &A::Service, fixed: bool) {
    let ledgers = scene.ledgers;
    let mut number = 0;
    while !scene.stop.load(Relaxed) {
        number += 1;
        let chosen = {
            let kept = shared.kept.lock().unwrap();
            kept.get(number % kept.len().max(1)).cloned()
        };
        if let Some(c) = chosen {
            let (runs, id) = (shared.clone(), c.id());
            let posted = c.post(Box::new(move |c| {
                if c.id() != id {
                    runs.ledgers.wrong(format!("a function for {id} ran for {}", c.id()));
                }
                runs.called(c, "posted function", LIVE, LIVE, || {
                    runs.ledgers.add(Count::posted_run, 1);
                    if let Some(ledger) = runs.ledger(c) {
                        if ledger.state.load(Relaxed) == BOUND {
                            runs.send(c, ledger, kind::POSTED, 4, fixed);
                        }
                    }
                });
            }));
            ledgers.add(Count::posted, u64::from(posted.is_ok()));
            let _ = (c.queued(), c.stats());
        }
        if number % 8 == 0 {
            let task = service.post(Box::new(move || ledgers.add(Count::tasks_run, 1)));
            ledgers.add(Count::tasks, u64::from(task.is_ok()));
        }
        if number % 64 == 0 {
            let _ = service.pause_accept();
            let _ = service.for_each(&mut |c| ledgers.add(Count::visited, u64::from(c.is_open())));
            let _ = service.resume_accept();
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Uses up all descriptors except a few, and releases them. Repeats this several times.
fn exhaust(scene: &Scene) {
    for _ in 0..4 {
        if scene.ledgers.is_wrong() {
            break;
        }
        machine::limit_descriptors(Some(machine::highest_descriptor() + 4));
        std::thread::sleep(Duration::from_millis(150));
        machine::limit_descriptors(None);
        std::thread::sleep(Duration::from_millis(30));
    }
    machine::limit_descriptors(None);
}

/// The service connects to a server that resets connections, closes them, and dies.
fn be_a_dying_server<A: Api>(
    scene: &Scene,
    service: &A::Service,
    reconnects: u64,
    connections: u64,
    seed: u64,
) {
    let mut random = Random(seed ^ 11);
    for n in 0..reconnects {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let mut reconnect = A::reconnect(&endpoint, &[]).unwrap();
        reconnect.set_backoff(1, 10).unwrap();
        if let Err((_, e)) = service.reconnect(reconnect, OUTGOING) {
            return scene.ledgers.wrong(format!("reconnect: {e:?}"));
        }
        for _ in 0..connections {
            let Ok((stream, _)) = listener.accept() else {
                return scene.ledgers.wrong("the dying server cannot accept".to_owned());
            };
            let id = scene.ledgers.open();
            let socket = Socket::from(stream);
            let mut peer = Peer::new(scene.ledgers, socket, scene.frame, scene.lossy, id, id);
            peer.queue(kind::HELLO, n as u8, 0);
            peer.ping(0);
            if random.chance(50) && !scene.orderly {
                peer.reset();
            } else {
                peer.close();
            }
        }
    }
}
