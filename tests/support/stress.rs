//! Many threads use all functions of an event-driven server concurrently, and the invariants must
//! hold afterwards. The test counts descriptors and threads, so it runs in its own process.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use crate::support::watch;
use keepsock::{CloseReason, Framing};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::*;

/// The maximum number of queued bytes for one client.
const CAP: usize = 16 << 10;
/// Threads next to the event loops.
const THREADS: u8 = 4;
/// The maximum number of clients of each thread.
const CLIENTS: usize = 40;
const GROUPS: [&str; 3] = ["red", "green", "blue"];
/// The requests of clients, one per line: see [`Storm::asked`].
const LINES: [&str; 11] = [
    "echo",
    "broadcast",
    "group",
    "join",
    "leave",
    "timer",
    "pause",
    "shutdown",
    "close",
    "abort",
    "other",
];
/// One of this many lines is one of these requests. The others request an echo, because otherwise
/// no client would stay connected.
const MEEK: usize = 5;

/// Splitmix64. Any sequence is sufficient.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// The state of a connection's entry.
const FREE: u8 = 0;
const LIVE: u8 = 1;
const CALLED: u8 = 2;

struct Storm<A: Api> {
    /// One state per entry of a connection. Relaxed: the library must prevent concurrent access,
    /// and a sanitizer must be able to detect it.
    places: Box<[AtomicU8]>,
    opens: AtomicU64,
    closes: AtomicU64,
    messages: AtomicU64,
    /// The first failure.
    wrong: Mutex<Option<String>>,
    /// Separate counters, so that threads rarely contend.
    kept: [Mutex<HashMap<u64, A::Connection>>; 8],
    service: RwLock<Option<A::Service>>,
}

/// The result of a storm.
pub struct Came {
    pub connections: u64,
    pub messages: u64,
    pub stats: Stats,
}

/// More than the entries of all tables of this process.
const PLACES: usize = 1 << 20;

impl<A: Api> Storm<A> {
    fn new() -> Storm<A> {
        Storm {
            places: std::iter::repeat_with(|| AtomicU8::new(FREE)).take(PLACES).collect(),
            opens: AtomicU64::new(0),
            closes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            wrong: Mutex::new(None),
            kept: Default::default(),
            service: RwLock::new(None),
        }
    }

    /// Checks at the start of a callback that the connection is in the expected state, and that no
    /// other callback runs for it.
    fn called(&self, c: &A::Connection, what: &str, from: u8, to: u8, body: impl FnOnce()) {
        let state = &self.places[c.place()];
        let turn = |from, to| {
            let was = state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
            if let Err(was) = was {
                let text = format!("{what} of {}: {was} instead of {from}", c.id());
                self.wrong.lock().unwrap().get_or_insert(text);
            }
        };
        turn(from, CALLED);
        body();
        turn(CALLED, to);
    }

    fn callbacks(self: &Arc<Self>) -> On<A> {
        fn event<A: Api>(
            storm: &Arc<Storm<A>>,
            what: &'static str,
            from: u8,
            body: impl Fn(&Storm<A>, &A::Connection) + Send + Sync + 'static,
        ) -> Option<OnEvent<A>> {
            let storm = storm.clone();
            Some(Box::new(move |c| storm.called(c, what, from, LIVE, || body(&storm, c))))
        }
        let (on_data, on_close) = (self.clone(), self.clone());
        On {
            open: event(self, "open", FREE, |storm, c| {
                let number = storm.opens.fetch_add(1, Ordering::Relaxed);
                storm.shelf(c.id()).lock().unwrap().insert(c.id(), c.clone());
                let _ = c.send(b"hello");
                match number % 16 {
                    0 => c.close(),
                    1 => drop(c.join(GROUPS[0])),
                    2 => drop(c.set_timer(5)),
                    _ => {}
                }
            }),
            data: Some(Box::new(move |c, line| {
                on_data.called(c, "data", LIVE, LIVE, || on_data.asked(c, line));
            })),
            writable: event(self, "writable", LIVE, |_, c| drop(c.send(b"writable"))),
            finished: event(self, "finished", LIVE, |_, c| {
                let _ = c.send(b"bye");
                c.close();
            }),
            timer: event(self, "timer", LIVE, |_, c| {
                c.resume();
                let _ = c.send(b"tick");
            }),
            drain: event(self, "drain", LIVE, |_, c| {
                let _ = c.send(b"drained");
                c.close();
            }),
            close: Some(Box::new(move |c, _: CloseReason| {
                let storm = &on_close;
                storm.called(c, "close", LIVE, FREE, || {
                    storm.closes.fetch_add(1, Ordering::Relaxed);
                    storm.shelf(c.id()).lock().unwrap().remove(&c.id());
                    assert!(c.send(b"too late").is_err());
                });
            })),
            connect_failed: None,
        }
    }

    /// Executes the request of a client's line inside a callback.
    fn asked(&self, c: &A::Connection, line: &[u8]) {
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        let group = GROUPS[number as usize % GROUPS.len()];
        match line {
            b"broadcast" => self.push(None, line),
            b"group" => self.push(Some(group), line),
            b"join" => drop(c.join(group)),
            b"leave" => c.leave(group),
            b"timer" => drop(c.set_timer(10)),
            b"pause" => {
                c.pause();
                let _ = c.set_timer(5);
            }
            b"shutdown" => c.shutdown_write(),
            b"close" => c.close(),
            b"abort" => c.abort(),
            b"other" => self.with_another(number as usize, A::Connection::close),
            _ => drop(c.send(line)),
        }
    }

    fn shelf(&self, id: u64) -> &Mutex<HashMap<u64, A::Connection>> {
        &self.kept[(id ^ id >> 39) as usize % self.kept.len()]
    }

    fn push(&self, group: Option<&str>, message: &[u8]) {
        if let Some(service) = &*self.service.read().unwrap() {
            service.push(group, message).unwrap();
        }
    }

    /// Calls a function of one of the stored connections.
    fn with_another(&self, number: usize, what: impl FnOnce(&A::Connection)) {
        let shelf = self.kept[number % self.kept.len()].lock().unwrap();
        let Some(c) = shelf.values().nth(number / 8 % shelf.len().max(1)) else {
            return;
        };
        if A::NUMBER == 1 {
            // The connection may close at any time, and the call then reports that. In C the
            // program must not use it after its close callback.
            let c = c.clone();
            drop(shelf);
            what(&c);
        } else {
            what(c);
        }
    }

    /// The work of one thread, with its own clients.
    fn rage(&self, to: SocketAddr, number: u8, until: Instant) {
        let mut random = Random(u64::from(number));
        let mut clients: Vec<TcpStream> = Vec::new();
        while Instant::now() < until {
            let chosen = (!clients.is_empty()).then(|| random.below(clients.len()));
            match (random.below(100), chosen) {
                (0..=9, _) if clients.len() < CLIENTS => {
                    let from = [127, 7, number, 1 + random.below(8) as u8];
                    clients.push(connect(to, from));
                }
                (10..=39, Some(at)) => {
                    let any = random.below(MEEK) == 0;
                    let line = format!("{}\n", if any { *random.of(&LINES) } else { LINES[0] });
                    let _ = clients[at].write(line.as_bytes());
                }
                (40, Some(at)) => drop(clients[at].shutdown(Shutdown::Write)),
                (41, Some(at)) => system::reset(clients.swap_remove(at)),
                (42, Some(at)) => drop(clients.swap_remove(at)),
                (43..=59, Some(at)) => match clients[at].read(&mut [0; 4096]) {
                    Ok(1..) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    _ => drop(clients.swap_remove(at)),
                },
                (60..=79, _) => {
                    let group = random.of(&[None, Some(GROUPS[0]), Some(GROUPS[1])]);
                    self.push(*group, &[b'x'; 700]);
                }
                _ => {
                    let (which, what) = (random.below(1 << 20), random.below(40));
                    let group = *random.of(&GROUPS);
                    self.with_another(which, |c| match what {
                        0 => c.close(),
                        1 => c.abort(),
                        2 => c.shutdown_write(),
                        3..=7 => drop(c.join(group)),
                        8..=11 => c.leave(group),
                        12..=15 => drop(c.set_timer(3)),
                        16..=17 => c.pause(),
                        18..=23 => c.resume(),
                        _ => drop(c.send(b"from elsewhere")),
                    });
                }
            }
        }
    }
}

/// Connects a client with a small receive buffer, so that data to it is soon queued.
fn connect(to: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    let stream = match socket.connect(&to.into()) {
        // The connection may already be reset.
        Ok(()) | Err(_) => TcpStream::from(socket),
    };
    SockRef::from(&stream).set_nonblocking(true).unwrap();
    stream
}

/// Each connection has one open callback first, one close callback last, and one callback at a time
/// (V2, V7). Written bytes are sent or dropped (V3, V5). No descriptor and no thread is left.
pub fn run<A: Api>(loops: u32, time: Duration) -> Came {
    let before = watch::count_descriptors();
    let storm = Arc::new(Storm::<A>::new());
    let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(200)]).unwrap();
    // Accepted connections inherit the buffer size, so that data is soon queued.
    system::set_option(server.fd().unwrap(), libc::SOL_SOCKET, libc::SO_SNDBUF, 4096);
    let options = [
        Serve::Threads(loops),
        Serve::Framing(Framing::Lines { max: 1000 }),
        Serve::QueueLimit(CAP),
        Serve::DropOldest,
    ];
    // Every second storm disconnects slow consumers.
    let options = if loops == 1 { &options[..] } else { &options[..3] };
    let service = server.serve_events(options, storm.callbacks()).unwrap();
    *storm.service.write().unwrap() = Some(service);
    let to: SocketAddr = server.endpoint().parse().unwrap();
    let until = Instant::now() + time;
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let storm = &storm;
            scope.spawn(move || storm.rage(to, number, until));
        }
    });

    let service = storm.service.write().unwrap().take().unwrap();
    // A client's own reset now counts as aborted.
    let (_, took) = timed(|| service.drain(60_000).unwrap());
    assert!(took < Duration::from_secs(30), "all clients were closed\n{}", service.dump());
    eventually("all connections are closed", || service.connections() == 0);
    if let Some(wrong) = storm.wrong.lock().unwrap().take() {
        panic!("{wrong}");
    }
    let [opens, closes, messages] =
        [&storm.opens, &storm.closes, &storm.messages].map(|n| n.load(Ordering::Relaxed));
    let stats = service.stats();
    assert_eq!((opens, closes), (stats.opened, stats.closed), "{stats:?}");
    assert_eq!(opens, closes, "{stats:?}");
    assert_eq!(stats.ends.iter().map(|(_, n)| n).sum::<u64>(), closes, "{stats:?}");
    assert_eq!(stats.queued, 0, "{stats:?}");
    assert_eq!(stats.written, stats.sent + stats.dropped, "{stats:?}");
    assert!(storm.kept.iter().all(|shelf| shelf.lock().unwrap().is_empty()));
    assert!(storm.places.iter().all(|place| place.load(Ordering::Relaxed) == FREE));
    drop((service, server));
    // pthread_join(3) returns shortly before /proc removes the thread.
    watch::await_that("no thread is left", || watch::count_threads("keepsock-events") == 0);
    watch::await_that("no descriptor is left", || watch::count_descriptors() == before);
    assert_eq!(Arc::strong_count(&storm), 1, "callbacks are left");
    Came { connections: opens, messages, stats }
}
