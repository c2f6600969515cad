//! What event-driven serving promises (V2, V3, K5, L4), with as many clients as it is for. They keep
//! the machine busy: `cargo xtask labs` runs them when the others are done, one at a time.
#![cfg(target_os = "linux")]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use keepsock::{
    Connection, End, Framing, Handler, ServeOptions, ServerSocket, Service, SocketOptions, WhenSlow,
};
use socket2::{Domain, SockRef, Socket, Type};

mod common;
mod lab;
mod storm;
use lab::{Helper, in_process, ms, row, seconds};

/// What the loops' threads are called.
const LOOPS: &str = "keepsock-events";
const LIMIT: Duration = Duration::from_secs(50);

fn socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

/// A client with an address of loopback that it shares with a thousand others.
fn connect(to: SocketAddr, number: usize) -> TcpStream {
    let socket = socket();
    let from = [127, 1, u8::try_from(number / 1000).unwrap(), 1];
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// The helper's answer, as numbers.
fn numbers(said: &str) -> Vec<u64> {
    said.split(' ').map(|word| word.parse().unwrap()).collect()
}

// ---- ten thousand (V2, K5) ------------------------------------------------------------------

const MANY: usize = 10_000;
const BROADCASTS: usize = 20;
const QUIET: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_secs(1);

/// The server's part: does as it is told, and says what that came to.
fn serve_many(heart_beats: bool) {
    lab::need_descriptors(MANY as u64 + 100);
    let mut options = SocketOptions::new();
    if heart_beats {
        options = options.heartbeat(b"beat\n", BEAT);
    }
    let server = ServerSocket::listen_with("127.0.0.1:0", &options).unwrap();
    let options = ServeOptions::new().framing(Framing::Lines { max: 100 });
    let echo = |c: &Connection, line: &[u8]| drop(c.send(line));
    let service = server.serve_events(&options, echo).unwrap();
    lab::tell(&server.endpoint().to_string());
    while let Some(word) = lab::told() {
        match word.as_str() {
            "all there?" => {
                lab::await_that("all are there", || service.connections() == MANY as u32);
                lab::tell("yes");
            }
            "idle" => {
                let before = lab::used_by(LOOPS);
                // Nothing is to happen.
                thread::sleep(QUIET);
                let used = lab::used_by(LOOPS) - before;
                lab::tell(&format!("{} {}", used.cpu.as_nanos(), used.waits));
            }
            "use" => {
                let used = lab::used_by(LOOPS);
                lab::tell(&format!("{} {}", used.cpu.as_nanos(), used.waits));
            }
            "rss" => lab::tell(&lab::resident().to_string()),
            message => {
                let sent = service.broadcast(message.as_bytes()).unwrap();
                lab::tell(&format!("{} {}", sent.sent, sent.cut));
            }
        }
    }
}

/// What a quiet server with all its clients there has used.
struct Many {
    server: Helper,
    clients: Vec<BufReader<TcpStream>>,
}

impl Many {
    fn new(test: &str, role: &str) -> Many {
        lab::need_descriptors(MANY as u64 + 100);
        let mut server = Helper::start(test, role);
        let to: SocketAddr = server.hear().parse().unwrap();
        let clients = (0..MANY).map(|number| connect(to, number));
        // So many need not have the standard library's 8 KiB each.
        let clients = clients.map(|client| BufReader::with_capacity(256, client)).collect();
        server.tell("all there?");
        assert_eq!(server.hear(), "yes");
        Many { server, clients }
    }

    fn ask(&mut self, word: &str) -> Vec<u64> {
        self.server.tell(word);
        numbers(&self.server.hear())
    }

    fn broadcast(&mut self, message: &str) {
        assert_eq!(self.ask(message), [MANY as u64, 0]);
    }

    /// The next line of a client that is no heartbeat, and how many of those came before.
    fn line(&mut self, client: usize) -> (String, usize) {
        let mut beats = 0;
        loop {
            let mut line = String::new();
            self.clients[client].read_line(&mut line).unwrap();
            if line != "beat\n" {
                return (line, beats);
            }
            beats += 1;
        }
    }
}

/// V2, V3: ten thousand clients that are idle cost no processor time and no wake-up; what is
/// broadcast reaches each, all of it and in its order.
#[test]
#[ignore = "long: cargo xtask labs"]
fn ten_thousand_idle_clients() {
    const TEST: &str = "ten_thousand_idle_clients";
    if lab::role().is_some() {
        return serve_many(false);
    }
    in_process(TEST, LIMIT, || {
        let mut many = Many::new(TEST, "server");
        let rss = many.ask("rss")[0];
        let [cpu, waits] = many.ask("idle")[..] else { unreachable!() };
        println!("idle: {cpu} ns, {waits} waits, {rss} bytes of RAM");

        let start = Instant::now();
        let before = many.ask("use");
        for number in 0..BROADCASTS {
            many.broadcast(&format!("broadcast {number}"));
        }
        for client in 0..MANY {
            for number in 0..BROADCASTS {
                assert_eq!(many.line(client), (format!("broadcast {number}\n"), 0), "{client}");
            }
        }
        let took = start.elapsed();
        // The control: what wakes it is seen.
        for client in 0..100 {
            many.clients[client].get_mut().write_all(b"hello\n").unwrap();
            assert_eq!(many.line(client), ("hello\n".to_owned(), 0));
        }
        let after = many.ask("use");
        assert!(after[1] - before[1] >= 50, "the control: {before:?}, {after:?}");
        assert_eq!(waits, 0, "it was woken");
        assert!(cpu < 1_000_000, "{cpu} ns");
        row(
            "V2 10,000 idle clients for 3 s",
            "serve_events",
            format_args!("{cpu} ns CPU, {waits} wake-ups, {} MB RAM", rss >> 20),
            &format!("100 echoes: {} wake-ups", after[1] - before[1]),
        );
        row(
            "V3 20 broadcasts to 10,000",
            "broadcast",
            format_args!("all read, in order, after {}", seconds(took)),
            "",
        );
    });
}

/// K5: with heartbeats it wakes when they are due, and not else: clients whose heartbeats are due
/// within the same 8 ms cost one wake-up.
#[test]
#[ignore = "long: cargo xtask labs"]
fn ten_thousand_heartbeats() {
    const TEST: &str = "ten_thousand_heartbeats";
    if lab::role().is_some() {
        return serve_many(true);
    }
    in_process(TEST, LIMIT, || {
        let mut many = Many::new(TEST, "server");
        // From here on they are due within as long as this takes.
        let start = Instant::now();
        many.broadcast("first");
        let took = start.elapsed();
        let [cpu, waits] = many.ask("idle")[..] else { unreachable!() };
        many.broadcast("last");
        let mut beats = 0;
        for client in 0..MANY {
            assert_eq!(many.line(client).0, "first\n");
            let (line, before) = many.line(client);
            assert_eq!(line, "last\n");
            assert!((2..=3).contains(&before), "client {client}: {before} heartbeats in 3 s");
            beats += before;
        }
        // Each step of the clock that the broadcast took, one to begin with, and the tail of the
        // connecting phase; three times.
        let steps = took.as_millis() as u64 / 8 + 4;
        println!("{beats} heartbeats, {waits} waits, {cpu} ns; broadcast in {took:?}");
        assert!(waits <= 3 * steps, "{waits} wake-ups, 3 times {steps} steps");
        assert!(waits >= 2);
        row(
            "K5 10,000 clients for 3 s",
            "heartbeat 1 s",
            format_args!(
                "{beats} sent, {waits} wake-ups, {} CPU",
                seconds(Duration::from_nanos(cpu))
            ),
            "no heartbeat: 0 wake-ups",
        );
    });
}

// ---- one that does not read (V3) --------------------------------------------------------------

const READERS: usize = 999;
const MESSAGE: usize = 1024;
/// A second.
const PUSHES: u64 = 50;
const CAP: usize = 64 << 10;
/// Messages before there is one that does not read, and while there is.
const BEFORE: u64 = 3 * PUSHES;
const WITH: u64 = 7 * PUSHES;

/// The server's part: pushes as many as it is told, at a steady rate.
fn push_steadily(when_slow: WhenSlow) {
    lab::need_descriptors(READERS as u64 + 100);
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    // Connections inherit it: a kernel takes megabytes else.
    SockRef::from(&server.borrow().unwrap()).set_send_buffer_size(32 << 10).unwrap();
    let options = ServeOptions::new().max_queued(CAP).when_slow(when_slow);
    let service = server.serve_events(&options, |_: &Connection, _: &[u8]| {}).unwrap();
    lab::tell(&server.endpoint().to_string());
    let (mut number, mut most) = (0_u64, 0);
    while let Some(word) = lab::told() {
        let [clients, count] = numbers(&word)[..] else { unreachable!() };
        lab::await_that("all are there", || u64::from(service.connections()) == clients);
        let start = Instant::now();
        for done in 0..count {
            let due = start + Duration::from_secs(done) / PUSHES as u32;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut message = [0; MESSAGE];
            message[..8].copy_from_slice(&number.to_ne_bytes());
            message[8..16].copy_from_slice(&lab::monotonic().to_ne_bytes());
            service.broadcast(&message).unwrap();
            number += 1;
            most = most.max(service.snapshot().queued.unwrap());
        }
        let now = service.snapshot();
        let overruns = now.ends.iter().find(|(end, _)| *end == End::Overrun).map_or(0, |(_, n)| *n);
        let dropped = now.bytes.unwrap().dropped_messages;
        let live = service.connections();
        lab::tell(&format!("{most} {} {overruns} {dropped} {live}", lab::resident()));
    }
}

/// Reads everything until each has the last message; gives the delays, sorted.
fn read_all(clients: &[TcpStream], next: &mut [u64], last: u64) -> Vec<u64> {
    let mut delays = Vec::new();
    let mut waiting = clients.len();
    let mut parts: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut buf = [0; 16 * MESSAGE];
    while waiting > 0 {
        for at in lab::await_readable(clients) {
            let n = match (&clients[at]).read(&mut buf) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Err(e) => panic!("client {at}: {e}"),
            };
            assert!(n > 0, "client {at} was closed");
            let now = lab::monotonic();
            let mut bytes = parts.remove(&at).unwrap_or_default();
            bytes.extend_from_slice(&buf[..n]);
            let whole = bytes.chunks_exact(MESSAGE);
            let rest = whole.remainder().to_vec();
            for message in whole {
                let [number, sent] = [&message[..8], &message[8..16]]
                    .map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap()));
                assert_eq!(number, next[at], "client {at}");
                next[at] += 1;
                delays.push(now.saturating_sub(sent));
                waiting -= usize::from(number == last);
            }
            if !rest.is_empty() {
                parts.insert(at, rest);
            }
        }
    }
    delays.sort_unstable();
    delays
}

/// The median and the worst of sorted delays.
fn told(delays: &[u64]) -> (Duration, Duration) {
    let nanos = |at: usize| Duration::from_nanos(delays[at]);
    (nanos(delays.len() / 2), nanos(delays.len() - 1))
}

/// The worst delays without and with the stuck client.
fn one_is_stuck(test: &str, when_slow: WhenSlow) -> (Duration, Duration) {
    lab::need_descriptors(READERS as u64 + 100);
    let drops = when_slow == WhenSlow::DropOldest;
    let mut server = Helper::start(test, if drops { "drops" } else { "cuts" });
    let to: SocketAddr = server.hear().parse().unwrap();
    let clients: Vec<_> = (0..READERS).map(|number| connect(to, number)).collect();
    clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    let mut next = vec![0; READERS];
    server.tell(&format!("{READERS} {BEFORE}"));
    let without = read_all(&clients, &mut next, BEFORE - 1);
    let before = numbers(&server.hear());

    let stuck = socket();
    stuck.set_recv_buffer_size(4096).unwrap();
    stuck.connect(&to.into()).unwrap();
    let stuck = TcpStream::from(stuck);
    server.tell(&format!("{} {WITH}", READERS + 1));
    let with = read_all(&clients, &mut next, BEFORE + WITH - 1);
    let after = numbers(&server.hear());
    let ((median, worst), (median_with, worst_with)) = (told(&without), told(&with));
    println!("without: {median:?}, worst {worst:?}, {before:?}");
    println!("with:    {median_with:?}, worst {worst_with:?}, {after:?}");
    let [queued, rss, overruns, dropped, live] = after[..] else { unreachable!() };
    assert_eq!(before[0], 0, "readers have nothing that waits");
    assert!(queued > CAP as u64 / 2 && queued <= CAP as u64, "{queued} bytes were queued");
    let grown = rss.saturating_sub(before[1]);
    assert!(grown <= 4 << 20, "{grown} bytes of RAM more");
    let what = if drops {
        assert_eq!((overruns, live), (0, READERS as u64 + 1));
        assert!(dropped > 20, "{dropped}");
        // What it missed is what was dropped; what comes is whole, and in order.
        let mut message = [0; MESSAGE];
        let (mut missed, mut next) = (0, BEFORE);
        stuck.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        while next < BEFORE + WITH {
            (&stuck).read_exact(&mut message).unwrap();
            let number = u64::from_ne_bytes(message[..8].try_into().unwrap());
            assert!(number >= next, "{number} after {next}");
            missed += number - next;
            next = number + 1;
        }
        assert_eq!(missed, dropped);
        format!("it stays and misses {missed}")
    } else {
        assert_eq!((overruns, live), (1, READERS as u64));
        "it is cut: overrun".to_owned()
    };
    row(
        "V3 999 read 50 x 1 KiB a second, one does not",
        if drops { "DropOldest" } else { "Disconnect" },
        format_args!(
            "{what}; others' worst delay {} (median {}), {} KiB queued, RAM +{} KiB",
            seconds(worst_with),
            seconds(median_with),
            queued >> 10,
            grown >> 10
        ),
        &format!("all read: {} (median {})", seconds(worst), seconds(median)),
    );
    (worst, worst_with)
}

/// The machine may be late for its own reasons in one of the two phases.
fn assert_alike(mut run: impl FnMut() -> (Duration, Duration)) {
    let mut times = Vec::new();
    for _ in 0..3 {
        let (without, with) = run();
        if with <= without * 2 + ms(20) {
            return;
        }
        times.push((without, with));
    }
    panic!("without and with the one that is stuck: {times:?}");
}

/// V3: one stuck client delays nobody, takes its cap of memory and no more, and is cut.
#[test]
#[ignore = "long: cargo xtask labs"]
fn one_stuck_client_is_cut() {
    const TEST: &str = "one_stuck_client_is_cut";
    if lab::role().is_some() {
        return push_steadily(WhenSlow::Disconnect);
    }
    in_process(TEST, LIMIT, || assert_alike(|| one_is_stuck(TEST, WhenSlow::Disconnect)));
}

/// V3: or stays, and misses the oldest.
#[test]
#[ignore = "long: cargo xtask labs"]
fn one_stuck_client_misses_messages() {
    const TEST: &str = "one_stuck_client_misses_messages";
    if lab::role().is_some() {
        return push_steadily(WhenSlow::DropOldest);
    }
    in_process(TEST, LIMIT, || assert_alike(|| one_is_stuck(TEST, WhenSlow::DropOldest)));
}

// ---- no descriptor left (L4) ------------------------------------------------------------------

/// When each event about it was told.
static TOLD: Mutex<Vec<Instant>> = Mutex::new(Vec::new());

struct Listening;

impl log::Log for Listening {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().contains("waits for the system") {
            TOLD.lock().unwrap().push(Instant::now());
        }
    }
    fn flush(&self) {}
}

struct Echo(Mutex<mpsc::Sender<Instant>>);

impl Handler for Echo {
    fn open(&self, _: &Connection) {
        let _ = self.0.lock().unwrap().send(Instant::now());
    }
    fn data(&self, connection: &Connection, data: &[u8]) {
        let _ = connection.send(data);
    }
}

/// L4: no descriptor left for 10 s, while clients wait to be accepted and others are served:
/// under 5 % of a processor, an event in 5 s at most; then it goes on at once.
#[test]
#[ignore = "long: cargo xtask labs"]
fn ten_seconds_without_descriptors() {
    const STARVED: Duration = Duration::from_secs(10);
    in_process("ten_seconds_without_descriptors", LIMIT, || {
        lab::limit_descriptors(256);
        log::set_logger(&Listening).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let to: SocketAddr = server.endpoint().to_string().parse().unwrap();
        let (tell, opened) = mpsc::channel();
        let service: Service =
            server.serve_events(&ServeOptions::new(), Echo(Mutex::new(tell))).unwrap();
        let mut served: Vec<_> = (0..40).map(|_| connect(to, 0)).collect();
        for _ in &served {
            opened.recv_timeout(ms(5000)).unwrap();
        }
        // They have their descriptors before there are none.
        let waiting: Vec<_> = (0..60).map(|_| socket()).collect();
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hoard: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        for socket in &waiting {
            socket.connect(&to.into()).unwrap();
        }
        // The control: accept(2) in a loop, as people write it.
        let (start, mut tries) = (Instant::now(), 0);
        while start.elapsed() < ms(300) {
            assert_eq!(plain.accept().unwrap_err().raw_os_error(), Some(libc::EMFILE));
            tries += 1;
        }
        assert!(tries > 1000, "the control does not spin: {tries} tries");

        // The whole process's, for /proc cannot be read without a descriptor: the clients' as well.
        let before = lab::cpu_time();
        let (start, mut echoes, mut worst) = (Instant::now(), 0_u32, Duration::ZERO);
        while start.elapsed() < STARVED {
            for client in &mut served {
                let asked = Instant::now();
                client.write_all(b"still there?").unwrap();
                client.read_exact(&mut [0; 12]).unwrap();
                worst = worst.max(asked.elapsed());
                echoes += 1;
            }
            thread::sleep(ms(200));
        }
        let used = lab::cpu_time() - before;
        let share = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
        assert!(opened.try_recv().is_err(), "there was a descriptor after all");
        let told = std::mem::take(&mut *TOLD.lock().unwrap());
        println!("{share:.2} %, {echoes} echoes, worst {worst:?}");
        println!("{} events, {} tries", told.len(), server.counters().exhausted);
        assert!(share < 5.0, "{share} % of a processor");
        assert!((2..=3).contains(&told.len()), "{} events in 10 s", told.len());
        assert!(told.windows(2).all(|two| two[1] - two[0] >= ms(4990)), "{told:?}");
        assert!(worst < ms(500), "an echo took {worst:?}");

        let mut times: Vec<_> = (0..5)
            .map(|_| {
                // Until the pauses between the tries are as long as they get.
                assert!(opened.recv_timeout(ms(200)).is_err());
                let freed = Instant::now();
                assert!(hoard.pop().is_some());
                opened.recv_timeout(ms(5000)).unwrap().saturating_duration_since(freed)
            })
            .collect();
        println!("resumed after {times:?}");
        times.sort();
        // One of the five may be late for the machine's own reasons.
        assert!(times[3] <= ms(100), "resumed after {times:?}");
        // A connection that ends gives its descriptor, too.
        let freed = Instant::now();
        served[0].shutdown(std::net::Shutdown::Write).unwrap();
        opened.recv_timeout(ms(5000)).unwrap();
        println!("after a connection ended: {:?}", freed.elapsed());
        drop(hoard);
        for client in waiting.into_iter().map(TcpStream::from) {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            (&client).write_all(b"here").unwrap();
            (&client).read_exact(&mut [0; 4]).unwrap();
        }
        assert_eq!(service.snapshot().opened, 100);
        row(
            "L4 no descriptor for 10 s, 60 wait, 40 are served",
            "serve_events",
            format_args!(
                "{share:.1} % CPU, {} events, {echoes} echoes (worst {}), resumes in {}",
                told.len(),
                seconds(worst),
                seconds(times[3])
            ),
            &format!("plain loop: {tries} tries in 0.3 s"),
        );
    });
}

// ---- everything at once (V2, V3, V7) ------------------------------------------------------------

fn long_storm<A: common::Api>(test: &str, api: &str) {
    in_process(test, LIMIT, || {
        for (loops, when_slow) in [(1, "DropOldest"), (3, "Disconnect")] {
            let came = storm::run::<A>(loops, Duration::from_secs(5));
            let stats = came.stats;
            row(
                &format!("V2 V3 V7 all at once for 5 s, {loops} loops, {api}"),
                when_slow,
                format_args!(
                    "{} opens = closes, {} callbacks with data, {} MB written = {} sent + {} dropped",
                    came.connections,
                    came.messages,
                    stats.written / 1_000_000,
                    stats.sent / 1_000_000,
                    stats.dropped / 1_000_000
                ),
                "",
            );
        }
    });
}

/// V2, V3, V7: as the test `a_storm`, for longer.
#[test]
#[ignore = "long: cargo xtask labs"]
fn a_long_storm() {
    long_storm::<common::RustApi>("a_long_storm", "Rust");
}

#[test]
#[cfg(feature = "capi")]
#[ignore = "long: cargo xtask labs"]
fn a_long_storm_from_c() {
    long_storm::<common::CApi>("a_long_storm_from_c", "C");
}
