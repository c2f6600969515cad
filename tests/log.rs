//! N4: log events, through the facade and through C's callback. L4: what repeats itself is
//! told once in a while.
//!
//! There is one logger for a process, so each test has a process of its own.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod lab;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{
    Api, Client, Connection as _, Handed, MORE_THAN_FITS, Opt, RustApi, Serve, Server, Service,
    Transport, eventually, fails, pair, refused_address, small_pair, with_raw_peer,
};
use keepsock::{End, ErrorKind};
use lab::{in_namespace, in_process};
use log::{Level, LevelFilter, Log, Metadata, Record};
use socket2::{Domain, Type};

const LIMIT: Duration = Duration::from_secs(30);

// ---- who listens ---------------------------------------------------------------------------

/// A way to listen to events, and the API that makes them.
trait Way {
    type Api: Api;
    fn listen_to(level: LevelFilter);
}

struct Facade;

impl Way for Facade {
    type Api = RustApi;

    fn listen_to(level: LevelFilter) {
        // Of two calls, the second one only changes the level.
        let _ = log::set_logger(&Collector);
        log::set_max_level(level);
    }
}

#[cfg(feature = "capi")]
struct Callback;

#[cfg(feature = "capi")]
impl Way for Callback {
    type Api = common::CApi;

    fn listen_to(level: LevelFilter) {
        c_only::set(Some(c_only::collect), std::ptr::null_mut(), level as i32).unwrap();
    }
}

/// Each test for both ways, in a process of its own.
macro_rules! both_ways {
    ($($name:ident),* $(,)?) => {
        both_ways!(@ facade, Facade, [$($name),*]);
        #[cfg(feature = "capi")]
        both_ways!(@ callback, Callback, [$($name),*]);
    };
    (@ $module:ident, $way:ident, [$($name:ident),*]) => {
        mod $module {
            $(#[test] fn $name() {
                let name = concat!(stringify!($module), "::", stringify!($name));
                super::in_process(name, super::LIMIT, super::$name::<super::$way>);
            })*
        }
    };
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    level: Level,
    target: String,
    message: String,
}

static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

type Hook = dyn Fn() + Send + Sync;
/// What is done inside of each event.
static HOOK: Mutex<Option<Arc<Hook>>> = Mutex::new(None);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn collect(level: Level, target: &str, message: &str) {
    let event = Event { level, target: target.to_owned(), message: message.to_owned() };
    EVENTS.lock().unwrap().push(event);
    let hook = HOOK.lock().unwrap().clone();
    if let Some(hook) = hook.filter(|_| !INSIDE.replace(true)) {
        hook();
        INSIDE.set(false);
    }
}

struct Collector;

impl Log for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        collect(record.level(), record.target(), &record.args().to_string());
    }

    fn flush(&self) {}
}

fn take() -> Vec<Event> {
    std::mem::take(&mut EVENTS.lock().unwrap())
}

fn with(events: &[Event], part: &str) -> Vec<Event> {
    events.iter().filter(|e| e.message.contains(part)).cloned().collect()
}

/// The only event whose message has these parts in this order; waits for it.
#[track_caller]
fn told(level: Level, target: &str, parts: &[&str]) -> Event {
    let matching = || {
        let mut events = EVENTS.lock().unwrap().clone();
        events.retain(|event| {
            let mut rest = event.message.as_str();
            parts.iter().all(|part| match rest.split_once(part) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
        });
        events
    };
    eventually(&format!("an event with {parts:?}"), || !matching().is_empty());
    let matching = matching();
    let all = EVENTS.lock().unwrap().clone();
    assert_eq!(matching.len(), 1, "{parts:?} in {all:#?}");
    let event = &matching[0];
    assert_eq!((event.level, event.target.as_str()), (level, target), "{event:?}");
    event.clone()
}

// ---- what is told -----------------------------------------------------------------------------

both_ways![
    silent_unless_asked,
    looking_up_and_connecting,
    listening_accepting_closing,
    handing_over,
    who_waits_for_a_place_is_served,
    several_endpoints,
    an_abort_during_a_close,
    each_level_and_what_is_above,
    an_accept_that_is_tried_again,
    no_descriptors_are_told_once,
    refusals_are_told_once,
    users_who_may_not_connect_are_told,
    draining,
    a_broadcast_that_cuts,
    a_connection_that_breaks_off,
    an_end_in_order_is_no_event_of_its_own,
    no_byte_of_what_is_read_or_written,
    inside_a_read,
    inside_a_write,
    inside_a_service,
    inside_a_connect,
];

/// Something of each level up to info, debug and trace; none of warn and error.
fn an_ordinary_day<A: Api>() {
    let server = A::listen("localhost:0", &[]).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    let accepted = server.accept().unwrap();
    accepted.close().unwrap();
    client.close().unwrap();
    A::connect(&refused_address().to_string(), &[]).err().unwrap();
    server.close();
}

/// N4: a program that did not ask hears nothing, nor one that no longer wants to.
fn silent_unless_asked<W: Way>() {
    an_ordinary_day::<W::Api>();
    assert_eq!(log::max_level(), LevelFilter::Off);
    W::listen_to(LevelFilter::Off);
    an_ordinary_day::<W::Api>();
    assert_eq!(take(), []);
    W::listen_to(LevelFilter::Trace);
    an_ordinary_day::<W::Api>();
    assert_ne!(take(), []);
    W::listen_to(LevelFilter::Off);
    an_ordinary_day::<W::Api>();
    assert_eq!(take(), []);
}

/// N4: lookups and attempts, each with how it ended and after how long.
fn looking_up_and_connecting<W: Way>() {
    const CONNECT: &str = "keepsock::connect";
    const LOOKUP: &str = "keepsock::lookup";
    W::listen_to(LevelFilter::Debug);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    take();
    let name = format!("localhost:{}", server.port());
    let client = W::Api::connect(&name, &[Opt::Family(keepsock::Family::Ipv4)]).unwrap();
    told(Level::Debug, LOOKUP, &["looking up \"localhost\""]);
    told(Level::Debug, LOOKUP, &["\"localhost\" is ", &endpoint, " after ", " ms"]);
    told(Level::Debug, CONNECT, &["attempt 1 of ", ": connecting to ", &endpoint]);
    told(Level::Debug, CONNECT, &["attempt won: ", &endpoint, " after ", " ms"]);
    told(Level::Debug, CONNECT, &["connected to ", &name, &client.name(), " after ", " ms"]);
    let order: Vec<_> = take().into_iter().map(|e| e.target).collect();
    assert_eq!(order, [LOOKUP, LOOKUP, CONNECT, CONNECT, CONNECT]);

    let nobody = refused_address();
    let addresses = [Opt::Address(nobody), Opt::Address(endpoint.parse().unwrap())];
    W::Api::connect("somebody.example:80", &addresses).unwrap();
    let failed = format!("attempt failed: {nobody}: connection refused after ");
    told(Level::Debug, CONNECT, &["attempt 1 of 2: connecting to ", &nobody.to_string()]);
    told(Level::Debug, CONNECT, &[&failed, " ms"]);
    told(Level::Debug, CONNECT, &["attempt 2 of 2: connecting to ", &endpoint]);
    told(Level::Debug, CONNECT, &["attempt won: ", &endpoint]);
    assert_eq!(with(&take(), "looking up"), [], "a number is not looked up");

    W::Api::connect("127.0.0.1:no-such-service", &[]).err().unwrap();
    told(Level::Debug, LOOKUP, &["looking up \"no-such-service\" failed after ", " ms: "]);
}

/// N4: a resolver that does not answer costs a thread: a warning.
fn a_lookup_that_is_left_behind<W: Way>() {
    lab::silent_resolver("timeout:5 attempts:2");
    W::listen_to(LevelFilter::Warn);
    let connected = W::Api::connect("slow.test:80", &[Opt::ConnectTimeout(100)]);
    fails(connected, ErrorKind::TimedOut);
    let parts = ["looking up \"slow.test\": timed out after ", "; left behind"];
    told(Level::Warn, "keepsock::lookup", &parts);
    assert_eq!(take().len(), 1);
}

/// N4: each connection at the level trace only; the listener itself once.
fn listening_accepting_closing<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    for transport in common::TRANSPORTS {
        let p = pair::<W::Api>(transport);
        let endpoint = p.server.endpoint();
        told(Level::Info, "keepsock::listen", &["listening on ", &endpoint]);
        told(Level::Trace, "keepsock::accept", &["accepted ", " on ", &endpoint]);
        let (client, accepted) = (p.client.name(), p.accepted.name());
        p.client.close().unwrap();
        p.client.close().unwrap();
        p.client.abort();
        p.accepted.abort();
        p.accepted.close().unwrap();
        p.server.close();
        p.server.close();
        drop(p);
        told(Level::Trace, "keepsock::connection", &[&format!("closed {client}")]);
        told(Level::Trace, "keepsock::connection", &[&format!("aborted {accepted}")]);
        let closed = format!("closed {endpoint}: 1 connections were accepted");
        told(Level::Info, "keepsock::listen", &[&closed]);
        take();
    }
}

/// N4, L7: to which process a listener went; nothing of one that failed.
fn handing_over<W: Way>() {
    W::listen_to(LevelFilter::Info);
    let server = W::Api::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    take();
    let hand_over = |script: &str| {
        let handed = [("s", Handed::Server(&server))];
        W::Api::hand_over(Some(&["sh", "-c", script]), &handed, 10_000, None)
    };
    fails(hand_over("exit 1"), ErrorKind::EndOfStream);
    assert_eq!(take().len(), 0);
    // Descriptor 3 is the listener, and by the next one it is said that it serves.
    let pid = hand_over("printf 1 >&4").unwrap();
    let words = format!("handed {} over to process {pid}", server.endpoint());
    told(Level::Info, "keepsock::listen", &[&words]);
    assert_eq!(take().len(), 1);
}

/// L7, N3: one that was accepted, and found its place taken meanwhile, waits for the next place
/// also when accepting has ended. An event is where somebody can come between.
fn who_waits_for_a_place_is_served<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let data = Box::new(|connection: &<W::Api as Api>::Connection, data: &[u8]| {
        let _ = connection.send(data);
    });
    let on = common::On { data: Some(data), ..common::On::default() };
    let service = Arc::new(server.serve_events(&[Serve::Max(1)], on).unwrap());
    let (added, theirs) = with_raw_peer::<W::Api>(&[Opt::CloseTimeout(0)]);
    let added = Mutex::new(Some(added));
    let hook = {
        let service = service.clone();
        move || {
            if let Some(added) = added.lock().unwrap().take() {
                assert!(service.add(added, 1).is_ok());
            }
        }
    };
    let (mut client, _) = inside(hook, || {
        let client = TcpStream::connect(&endpoint).unwrap();
        eventually("the other one has the place", || service.connections() == 1);
        client
    });
    thread::scope(|scope| {
        let waits = scope.spawn(|| service.finish(20_000).unwrap());
        eventually("accepting has ended", || service.wait(0).is_ok());
        client.write_all(b"x").unwrap();
        drop(theirs);
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(client.read(&mut [0; 8]).expect("it is served"), 1);
        drop(client);
        assert_eq!(waits.join().unwrap(), 0);
    });
}

/// N4: a connection ends once.
fn an_abort_during_a_close<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let (client, _peer) = with_raw_peer::<W::Api>(&[]);
    client.write_all(b"x").unwrap();
    // It waits for the peer to end its side.
    common::while_waiting(|| client.close().unwrap(), || client.abort());
    told(Level::Trace, "keepsock::connection", &[&format!("aborted {}", client.name())]);
    assert_eq!(with(&take(), "closed "), []);
}

/// N4: a level is its own events and all that are more important.
fn each_level_and_what_is_above<W: Way>() {
    use LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
    let mut counts = Vec::new();
    for level in [Off, Error, Warn, Info, Debug, Trace, Info] {
        W::listen_to(level);
        an_ordinary_day::<W::Api>();
        let events = take();
        assert!(events.iter().all(|e| e.level <= level), "{level}: {events:?}");
        counts.push(events.len());
    }
    let [0, 0, 0, info, debug, trace, again] = counts[..] else { panic!("{counts:?}") };
    assert!(0 < info && info < debug && debug < trace && again == info, "{counts:?}");
}

/// N4, L3, L4: what is passed over is told once, however often it comes.
fn an_accept_that_is_tried_again<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let _waits = TcpStream::connect(&endpoint).unwrap();
    server.set_accept_timeout(100).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            lab::forbid(libc::SYS_accept4, None, libc::EPROTO);
            fails(server.accept(), ErrorKind::TimedOut);
        });
    });
    assert!(server.counters().retried > 100);
    let start = format!("accept on {endpoint} failed and is tried again: ");
    told(Level::Debug, "keepsock::accept", &[&start, "Protocol error"]);
}

/// Everything that the table of descriptors still takes.
fn fill_table() -> Vec<std::fs::File> {
    std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
}

/// N4, L4: one event while accept tries again many times, and nothing else.
fn no_descriptors_are_told_once<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    lab::limit_descriptors(64);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let _waits = TcpStream::connect(&endpoint).unwrap();
    let hoard = fill_table();
    take();
    thread::scope(|scope| {
        scope.spawn(|| server.accept().unwrap().abort());
        eventually("it is tried again", || server.counters().exhausted >= 20);
        let start = format!("accepting on {endpoint} waits for the system: ");
        told(Level::Warn, "keepsock::accept", &[&start, "Too many open files"]);
        assert_eq!(take().len(), 1);
        drop(hoard);
    });
    told(Level::Trace, "keepsock::accept", &["accepted "]);
}

/// Connects to a full server, and returns from where. The reset may come before connect has
/// looked how it went.
fn connect_to_full(endpoint: &str) -> (socket2::Socket, String) {
    let to: SocketAddr = endpoint.parse().unwrap();
    let socket = socket2::Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(to.ip(), 0).into()).unwrap();
    let from = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    if let Err(e) = socket.connect(&to.into()) {
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
    }
    (socket, from)
}

/// L2, N4: with several endpoints each event names its own.
fn several_endpoints<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = W::Api::listen_all(&["0.0.0.0:0", "127.0.0.1:0", "[::1]:0"], &[]).unwrap();
    let endpoints = server.endpoints();
    for endpoint in &endpoints {
        told(Level::Info, "keepsock::listen", &["listening on ", endpoint]);
    }
    take();
    // All or none, so nothing is said of the first.
    fails(
        W::Api::listen_all(&["127.0.0.1:0", &endpoints[1]], &[]).map(drop),
        ErrorKind::AddressInUse,
    );
    assert_eq!(take(), []);
    let wait = |client: &<W::Api as Api>::Client| drop(client.read(&mut [0; 8]));
    let service = server.serve(&[Serve::Max(1), Serve::Refuse], Box::new(wait)).unwrap();
    let to = |endpoint: &str| endpoint.replace("0.0.0.0", "127.0.0.1");
    let _first = TcpStream::connect(to(&endpoints[0])).unwrap();
    eventually("the first has its place", || service.connections() == 1);
    for endpoint in &endpoints {
        let (_client, refused) = connect_to_full(&to(endpoint));
        told(Level::Trace, "keepsock::accept", &["accepted ", &refused, " on ", endpoint]);
        told(Level::Warn, "keepsock::accept", &["refused ", &refused, " on ", endpoint]);
    }
    server.close();
    for (endpoint, count) in endpoints.iter().zip([2, 1, 1]) {
        let accepted = format!("closed {endpoint}: {count} connections");
        told(Level::Info, "keepsock::listen", &[&accepted]);
    }
}

/// D4, N4: and so does one that lets certain users in: who it was.
fn users_who_may_not_connect_are_told<W: Way>() {
    use std::os::unix::fs::MetadataExt;
    W::listen_to(LevelFilter::Trace);
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let dir = common::TempDir::new();
    let options = [Opt::AllowUser(uid + 1)];
    let server = W::Api::listen(&dir.endpoint("s"), &options).unwrap();
    server.set_nonblocking(true).unwrap();
    take();
    for _ in 0..3 {
        drop(W::Api::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap());
        fails(server.accept().map(drop), ErrorKind::WouldBlock);
    }
    assert_eq!(server.counters().denied, 3);
    let who = format!("user {uid} may not connect");
    told(Level::Warn, "keepsock::accept", &["refused ", &server.endpoint(), &who]);
    let more = take();
    assert!(!more.iter().any(|event| format!("{event:?}").contains("accepted ")), "{more:?}");
}

/// N4: a full server tells that it refuses, not each time that it does.
fn refusals_are_told_once<W: Way>() {
    W::listen_to(LevelFilter::Warn);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let wait = |client: &<W::Api as Api>::Client| drop(client.read(&mut [0; 8]));
    let service = server.serve(&[Serve::Max(1), Serve::Refuse], Box::new(wait)).unwrap();
    let first = TcpStream::connect(server.endpoint()).unwrap();
    eventually("the first has its place", || service.connections() == 1);
    let (_second, from) = connect_to_full(&server.endpoint());
    eventually("the second is refused", || server.counters().refused == 1);
    for _ in 0..5 {
        connect_to_full(&server.endpoint());
    }
    eventually("all are refused", || server.counters().refused == 6);
    let refused = format!("refused {from} on ");
    told(Level::Warn, "keepsock::accept", &[&refused, &server.endpoint(), " are taken"]);
    assert_eq!(take().len(), 1);
    drop(first);
    service.drain(5000).unwrap();
}

/// A service with a connection that ends when it is told to drain, and one that waits in
/// writing until it is cut.
fn one_of_each<W: Way>() -> (<W::Api as Api>::Server, <W::Api as Api>::Service, [TcpStream; 2]) {
    use std::io::Write;
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let handler = |client: &<W::Api as Api>::Client| {
        let mut what = [0];
        // The other one may be told to drain before it has come so far.
        if client.read_exact(&mut what).is_ok() && what == *b"w" {
            let _ = client.write_all(&vec![0; MORE_THAN_FITS]);
        }
        let _ = client.read(&mut what);
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let clients = [*b"r", *b"w"].map(|what| {
        let mut client = TcpStream::connect(server.endpoint()).unwrap();
        client.write_all(&what).unwrap();
        client
    });
    eventually("both are served", || service.connections() == 2);
    clients[1].peek(&mut [0]).unwrap();
    (server, service, clients)
}

/// N4: a drain's beginning and end, with what became of the connections.
fn draining<W: Way>() {
    W::listen_to(LevelFilter::Info);
    let (server, service, _clients) = one_of_each::<W>();
    let endpoint = server.endpoint();
    assert_eq!(service.drain(300).unwrap(), (1, 1));
    let begun = format!("draining {endpoint}: 2 connections, within 300 ms");
    told(Level::Info, "keepsock::serve", &[&begun]);
    let ended = format!("drained {endpoint} after ");
    told(Level::Info, "keepsock::serve", &[&ended, " ms: 1 finished, 1 cut"]);
}

/// N4: which client a broadcast has cut.
fn a_broadcast_that_cuts<W: Way>() {
    W::listen_to(LevelFilter::Warn);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let wait = |client: &<W::Api as Api>::Client| drop(client.read(&mut [0; 8]));
    let service = server.serve(&[], Box::new(wait)).unwrap();
    let client = TcpStream::connect(server.endpoint()).unwrap();
    eventually("it is served", || service.connections() == 1);
    assert_eq!(service.broadcast(&vec![0; MORE_THAN_FITS]), (0, 1));
    let (local, remote) = (server.endpoint(), client.local_addr().unwrap());
    let cut = format!("broadcast resets tcp {local} -> {remote}: ");
    told(Level::Warn, "keepsock::serve", &[&cut]);
}

type Call<A> = fn(&<A as Api>::Client) -> common::Outcome<()>;

/// A way to meet the end of a connection.
type Meet<A> = fn(&<A as Api>::Client);

fn ways_to_meet_a_reset<A: Api>() -> [(&'static str, Meet<A>); 6] {
    fn reset<T>(outcome: common::Outcome<T>) {
        fails(outcome, ErrorKind::Reset);
    }
    [
        ("read", |c| reset(c.read(&mut [0; 8]))),
        ("read_exact", |c| reset(c.read_exact(&mut [0; 8]))),
        ("read_line", |c| reset(c.read_line(8))),
        ("write", |c| reset(c.write(b"x"))),
        ("write_all", |c| reset(c.write_all(b"x"))),
        ("wait_hangup", |c| assert_eq!(c.wait_hangup(5000).unwrap(), End::ResetByPeer)),
    ]
}

/// A connection that the peer has reset.
fn was_reset<A: Api>() -> A::Client {
    let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    client
}

/// N4: told once, by whichever call meets it first.
fn a_connection_that_breaks_off<W: Way>() {
    W::listen_to(LevelFilter::Info);
    for (name, meet) in ways_to_meet_a_reset::<W::Api>() {
        let client = was_reset::<W::Api>();
        take();
        meet(&client);
        let message = format!("{} broke off: connection reset by peer", client.name());
        let event = told(Level::Info, "keepsock::connection", &[&message]);
        assert_eq!(event.message, message, "{name}");
        let _ = (client.read(&mut [0; 8]), client.read_line(8), client.write_all(b"x"));
        let _ = client.close();
        assert_eq!(take().len(), 1, "{name}");
    }
}

/// N4: neither a FIN nor our own closing is a connection that broke off.
fn an_end_in_order_is_no_event_of_its_own<W: Way>() {
    let p = pair::<W::Api>(Transport::Tcp);
    W::listen_to(LevelFilter::Debug);
    p.client.shutdown_write().unwrap();
    assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
    fails(p.accepted.read_line(8), ErrorKind::EndOfStream);
    assert_eq!(p.accepted.wait_hangup(5000).unwrap(), End::ClosedByPeer);
    fails(p.client.write_all(b"x"), ErrorKind::WrongState);
    p.accepted.close().unwrap();
    p.client.close().unwrap();
    fails(p.client.read(&mut [0; 8]), ErrorKind::Closed);
    assert_eq!(take(), []);
}

/// N4: events tell of connections, not of what goes over them.
fn no_byte_of_what_is_read_or_written<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    const SECRET: &[u8] = b"Xyzzy!";
    let p = pair::<W::Api>(Transport::Tcp);
    for _ in 0..6 {
        p.client.write_all(SECRET).unwrap();
    }
    p.client.write_slices(&[SECRET, b"\n"]).unwrap();
    p.accepted.read_exact(&mut [0; 6]).unwrap();
    fails(p.accepted.read_line(9), ErrorKind::TooLong);
    p.accepted.read_line(100).unwrap();
    p.client.write_all(SECRET).unwrap();
    p.client.close().unwrap();
    fails(p.accepted.read_exact(&mut [0; 9]), ErrorKind::EndOfStream);
    drop(p);
    let client = was_reset::<W::Api>();
    fails(client.write_all(SECRET), ErrorKind::Reset);
    let events = take();
    assert_eq!(with(&events, "broke off").len(), 1);
    assert_eq!(with(&events, "yzz"), []);
    assert_eq!(with(&events, "88, 121"), [], "nor as numbers");
}

// ---- from inside (V7) ---------------------------------------------------------------------------

/// Does something inside of each event that `f` makes; how often. It comes to an end each
/// time, in whichever thread.
fn inside<T>(hook: impl Fn() + Send + Sync + 'static, f: impl FnOnce() -> T) -> (T, usize) {
    let counts = Arc::new([0, 0].map(AtomicUsize::new));
    let counted = {
        let counts = counts.clone();
        move || {
            counts[0].fetch_add(1, Ordering::SeqCst);
            hook();
            counts[1].fetch_add(1, Ordering::SeqCst);
        }
    };
    *HOOK.lock().unwrap() = Some(Arc::new(counted));
    let value = f();
    *HOOK.lock().unwrap() = None;
    let [begun, ended] = &*counts;
    let all = || begun.load(Ordering::SeqCst) == ended.load(Ordering::SeqCst);
    eventually("what was begun inside has ended", all);
    (value, begun.load(Ordering::SeqCst))
}

/// Everything that takes a lock of a connection, and those that end it.
fn use_client<A: Api>(client: &A::Client) {
    client.buffered();
    client.name();
    let _ = client.write(b"x");
    let _ = client.write_all(b"x");
    let _ = client.write_slices(&[b"x", b"y"]);
    client.set_cancel(None);
    let _ = client.set_read_timeout(1000);
    let _ = client.read_line(8);
    let _ = client.read(&mut [0; 8]);
    let _ = client.shutdown_write();
    let _ = client.close();
    client.abort();
}

/// N4, V7: inside of an event that a call on a connection makes, everything may be called
/// on that connection.
fn inside_a_read<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    for (name, meet) in ways_to_meet_a_reset::<W::Api>() {
        let client = Arc::new(was_reset::<W::Api>());
        let hook = {
            let client = client.clone();
            move || use_client::<W::Api>(&client)
        };
        let ((), times) = inside(hook, || meet(&client));
        assert!(times >= 1, "{name}");
        fails(client.read(&mut [0; 8]), ErrorKind::Closed);
    }
}

/// N4, V7: and when the call was waiting in the kernel, with bytes in the buffer.
fn inside_a_write<W: Way>() {
    // Not of the abort, whose event would end the call first.
    W::listen_to(LevelFilter::Info);
    let calls: [Call<W::Api>; 4] = [
        |c| c.write_all(&vec![0; MORE_THAN_FITS]),
        |c| c.write_slices(&[&vec![0; MORE_THAN_FITS], b"x"]),
        |c| c.read_line(64).map(drop),
        |c| c.read_exact(&mut [0; 64]),
    ];
    for call in calls {
        let p = small_pair::<W::Api>(Transport::Tcp);
        p.accepted.write_all(b"part of a line").unwrap();
        let client = Arc::new(p.client);
        let hook = {
            let client = client.clone();
            move || use_client::<W::Api>(&client)
        };
        let ((), times) = inside(hook, || {
            let (outcome, _) = common::while_waiting(|| call(&client), || p.accepted.abort());
            fails(outcome, ErrorKind::Reset);
        });
        assert!(times >= 1);
    }
}

/// N4, V7: inside of the events of a service, everything but drain may be called on it.
fn inside_a_service<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let (server, service, clients) = one_of_each::<W>();
    let (server, service) = (Arc::new(server), Arc::new(service));
    let hook = {
        let (server, service) = (server.clone(), service.clone());
        move || {
            service.connections();
            let _ = service.wait(0);
            server.counters();
            server.set_cancel(None);
        }
    };
    let (drained, times) = inside(hook, || service.drain(300).unwrap());
    assert_eq!(drained, (1, 1));
    assert!(times >= 3, "{times}");
    drop(clients);

    // A full one, which then is stopped by its own event.
    let server = Arc::new(W::Api::listen("127.0.0.1:0", &[]).unwrap());
    let wait = |client: &<W::Api as Api>::Client| drop(client.read(&mut [0; 8]));
    let service = server.serve(&[Serve::Max(1), Serve::Refuse], Box::new(wait)).unwrap();
    let service = Arc::new(service);
    let _first = TcpStream::connect(server.endpoint()).unwrap();
    eventually("the first has its place", || service.connections() == 1);
    let hook = {
        let service = service.clone();
        move || {
            service.connections();
            service.broadcast(b"");
        }
    };
    take();
    let (_second, times) = inside(hook, || {
        let second = connect_to_full(&server.endpoint());
        told(Level::Warn, "keepsock::accept", &["refused "]);
        told(Level::Trace, "keepsock::connection", &["aborted "]);
        second
    });
    assert!(times >= 2, "accepted, refused, and perhaps aborted: {times}");
    let hook = {
        let (server, service) = (server.clone(), service.clone());
        move || {
            service.stop();
            server.close();
        }
    };
    let ((), times) = inside(hook, || {
        let _third = connect_to_full(&server.endpoint());
        service.wait(10_000).unwrap();
    });
    assert!(times >= 1, "{times}");
    service.drain(10_000).unwrap();
}

/// N4, V7: inside of the events of a connect, another one.
fn inside_a_connect<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let hook = move || drop(W::Api::connect(&endpoint, &[Opt::CloseTimeout(0)]).unwrap());
    let name = format!("localhost:{}", server.port());
    let (_client, times) = inside(hook, || W::Api::connect(&name, &[]).unwrap());
    assert!(times >= 5, "{times}");
}

// ---- Rust only --------------------------------------------------------------------------------------

#[test]
fn a_lookup_is_left_behind() {
    let name = "a_lookup_is_left_behind";
    in_namespace(name, LIMIT, a_lookup_that_is_left_behind::<Facade>);
}

/// N4: a handler that panics. (C's cannot.)
#[test]
fn a_handler_that_panics() {
    in_process("a_handler_that_panics", LIMIT, || {
        Facade::listen_to(LevelFilter::Error);
        let server = keepsock::ServerSocket::listen("127.0.0.1:0").unwrap();
        let service = server.serve(|_| panic!("Xyzzy!")).unwrap();
        let client = TcpStream::connect(server.endpoint().to_string()).unwrap();
        let (local, remote) = (server.endpoint(), client.local_addr().unwrap());
        let panicked = format!("a handler panicked: tcp {local} -> {remote} is reset");
        told(Level::Error, "keepsock::serve", &[&panicked]);
        drop(service);
        assert_eq!(take().len(), 1);
    });
}

/// N4: a service that cannot accept any more, once for all its workers.
#[test]
fn a_service_that_cannot_accept() {
    in_process("a_service_that_cannot_accept", LIMIT, || {
        Facade::listen_to(LevelFilter::Error);
        let server = keepsock::ServerSocket::listen("127.0.0.1:0").unwrap();
        let service = server.serve(|client| drop(client.read(&mut [0; 8]))).unwrap();
        let endpoint = server.endpoint().to_string();
        let clients = [0; 5].map(|_| TcpStream::connect(&endpoint).unwrap());
        eventually("all are served", || service.connections() == 5);
        drop(clients);
        eventually("all are idle", || service.connections() == 0);
        // Through somebody else's descriptor of it.
        let listener = server.borrow().unwrap();
        socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both).unwrap();
        drop(listener);
        assert!(service.wait(Duration::from_secs(10)).is_err());
        drop(service);
        let ended = format!("serving has ended: accept {endpoint}: Invalid argument");
        told(Level::Error, "keepsock::serve", &[&ended]);
    });
}

// ---- C only -----------------------------------------------------------------------------------------

#[cfg(feature = "capi")]
mod c_only {
    // Calling C functions, and being called by them, is what this is for.
    #![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

    use std::ffi::{CStr, c_char, c_void};
    use std::ptr::null_mut;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;
    use std::time::Instant;

    use keepsock::ffi::*;

    use super::*;
    use common::{CApi, TempDir};

    type Function = unsafe extern "C" fn(*mut c_void, i32, *const c_char, *const c_char);

    pub fn set(callback: Option<Function>, user: *mut c_void, level: i32) -> Result<(), String> {
        let mut error = null_mut();
        unsafe {
            let status = keepsock_log_set(callback, user, level, &raw mut error);
            if status == KEEPSOCK_OK {
                return Ok(());
            }
            let text = CStr::from_ptr(keepsock_error_message(error)).to_str().unwrap().to_owned();
            assert_eq!(keepsock_error_status(error), status);
            keepsock_error_free(error);
            Err(format!("{status} {text}"))
        }
    }

    pub unsafe extern "C" fn collect(
        user: *mut c_void,
        level: i32,
        target: *const c_char,
        message: *const c_char,
    ) {
        let level = match level {
            1 => Level::Error,
            2 => Level::Warn,
            3 => Level::Info,
            4 => Level::Debug,
            5 => Level::Trace,
            other => panic!("no such level: {other}"),
        };
        let text = |text| unsafe { CStr::from_ptr(text) }.to_str().unwrap();
        assert!(user.is_null());
        super::collect(level, text(target), text(message));
    }

    #[test]
    fn a_lookup_is_left_behind() {
        let name = "c_only::a_lookup_is_left_behind";
        in_namespace(name, LIMIT, a_lookup_that_is_left_behind::<Callback>);
    }

    /// N4: NULL takes it off, and it may come back.
    #[test]
    fn taken_off() {
        in_process("c_only::taken_off", LIMIT, || {
            set(None, null_mut(), 0).unwrap();
            for _ in 0..2 {
                set(Some(collect), null_mut(), 5).unwrap();
                an_ordinary_day::<CApi>();
                assert_ne!(take(), []);
                set(None, null_mut(), 5).unwrap();
                assert_eq!(log::max_level(), LevelFilter::Off);
                an_ordinary_day::<CApi>();
                assert_eq!(take(), []);
            }
        });
    }

    /// N4: setting from inside would wait for itself; and what is called inside tells nothing.
    #[test]
    fn set_from_inside() {
        in_process("c_only::set_from_inside", LIMIT, || {
            set(Some(collect), null_mut(), 5).unwrap();
            let hook = || {
                let text = "-3 log: wrong state: called from inside the log callback";
                assert_eq!(set(None, null_mut(), 0), Err(text.to_owned()));
                assert_eq!(set(Some(collect), null_mut(), 5), Err(text.to_owned()));
                an_ordinary_day::<CApi>();
            };
            let (server, times) = inside(hook, || CApi::listen("127.0.0.1:0", &[]).unwrap());
            assert_eq!(times, 1);
            let events = take();
            assert_eq!(events.len(), 1, "{events:?}");
            assert_eq!(events[0].message, format!("listening on {}", server.endpoint()));
            set(None, null_mut(), 0).unwrap();
        });
    }

    /// N4: a Rust program's own logger stays, and so does its level.
    #[test]
    fn a_program_with_a_logger_of_its_own() {
        in_process("c_only::a_program_with_a_logger_of_its_own", LIMIT, || {
            Facade::listen_to(LevelFilter::Info);
            let text = "-3 log: wrong state: this program has a logger of its own, which is told";
            assert_eq!(set(Some(collect), null_mut(), 5), Err(text.to_owned()));
            set(None, null_mut(), 0).unwrap();
            assert_eq!(log::max_level(), LevelFilter::Info);
            let server = CApi::listen("127.0.0.1:0", &[]).unwrap();
            told(Level::Info, "keepsock::listen", &["listening on ", &server.endpoint()]);
        });
    }

    /// N4: what others of the process log is not told as ours.
    #[test]
    fn events_of_others() {
        in_process("c_only::events_of_others", LIMIT, || {
            set(Some(collect), null_mut(), 5).unwrap();
            for target in ["other", "keepsockets", "keepsock:connect", "my::keepsock"] {
                log::error!(target: target, "not ours");
            }
            assert_eq!(take(), []);
            log::error!(target: "keepsock::serve", "ours\0\r\n\u{1b}[31m");
            assert_eq!(take()[0].message, "ours????[31m", "one line of text");
        });
    }

    /// N4: a name cannot make an event look like two.
    #[test]
    fn a_line_is_a_line() {
        in_process("c_only::a_line_is_a_line", LIMIT, || {
            set(Some(collect), null_mut(), 5).unwrap();
            let dir = TempDir::new();
            let server = CApi::listen(&dir.endpoint("a\nb"), &[]).unwrap();
            told(Level::Info, "keepsock::listen", &["listening on unix:", "/a?b"]);
            drop(server);
            assert!(take().iter().all(|e| !e.message.contains(char::is_control)));
        });
    }

    /// What a callback is given: whether it may still be called, and how often it was.
    struct User {
        is_set: AtomicBool,
        calls: AtomicUsize,
    }

    static AFTER_ALL: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn watch(user: *mut c_void, _: i32, _: *const c_char, _: *const c_char) {
        // Leaked, so that a callback which comes too late is seen and not a crash.
        let user = unsafe { &*user.cast::<User>() };
        user.calls.fetch_add(1, Ordering::Relaxed);
        for _ in 0..20 {
            if !user.is_set.load(Ordering::SeqCst) {
                AFTER_ALL.fetch_add(1, Ordering::SeqCst);
            }
            thread::yield_now();
        }
    }

    fn new_user() -> &'static User {
        Box::leak(Box::new(User { is_set: AtomicBool::new(true), calls: AtomicUsize::new(0) }))
    }

    fn pointer(user: &'static User) -> *mut c_void {
        std::ptr::from_ref(user).cast_mut().cast()
    }

    /// N4: once set has returned, nobody is inside the callback that it replaced.
    #[test]
    fn replaced_under_load() {
        in_process("c_only::replaced_under_load", LIMIT, || {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            drop(CApi::listen("127.0.0.1:0", &[]).unwrap());
                        }
                    });
                }
                // Two that set at once: each leaves with all before its own at rest.
                let setters = [0, 1].map(|_| {
                    scope.spawn(|| {
                        let until = Instant::now() + Duration::from_secs(20);
                        let mut called = 0;
                        while called < 100 {
                            assert!(Instant::now() < until, "only {called} calls");
                            let user = new_user();
                            set(Some(watch), pointer(user), 5).unwrap();
                            let calls = || user.calls.load(Ordering::Relaxed);
                            let patience = Instant::now() + Duration::from_millis(5);
                            while calls() == 0 && Instant::now() < patience {
                                thread::yield_now();
                            }
                            set(None, null_mut(), 0).unwrap();
                            user.is_set.store(false, Ordering::SeqCst);
                            called += calls();
                        }
                    })
                });
                let ended = setters.map(thread::ScopedJoinHandle::join);
                stop.store(true, Ordering::Relaxed);
                assert!(ended.iter().all(Result::is_ok));
            });
            assert_eq!(AFTER_ALL.load(Ordering::SeqCst), 0);
        });
    }

    static ENTERED: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);
    static LEAVE: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);

    /// Stays inside until it is let go; the second time it does not.
    unsafe extern "C" fn stay(
        user: *mut c_void,
        level: i32,
        target: *const c_char,
        message: *const c_char,
    ) {
        let leave = LEAVE.lock().unwrap().take();
        if let Some(leave) = leave {
            ENTERED.lock().unwrap().take().unwrap().send(()).unwrap();
            leave.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        unsafe { collect(user, level, target, message) };
    }

    /// N4: a callback that takes long holds nobody up but its own thread and who replaces it:
    /// not other threads' events, before and after it is replaced.
    #[test]
    fn replaced_while_inside() {
        in_process("c_only::replaced_while_inside", LIMIT, || {
            let ((entered, has_entered), (leave, may_leave)) = (mpsc::channel(), mpsc::channel());
            *ENTERED.lock().unwrap() = Some(entered);
            *LEAVE.lock().unwrap() = Some(may_leave);
            set(Some(stay), null_mut(), 5).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| CApi::listen("127.0.0.1:0", &[]).unwrap());
                has_entered.recv_timeout(Duration::from_secs(10)).unwrap();
                an_ordinary_day::<CApi>();
                assert_ne!(take(), []);
                let setter = scope.spawn(|| set(Some(collect), null_mut(), 3).unwrap());
                // The new level tells that the new one has taken over.
                eventually("it is replaced", || log::max_level() == LevelFilter::Info);
                an_ordinary_day::<CApi>();
                assert_ne!(take(), []);
                assert!(!setter.is_finished());
                leave.send(()).unwrap();
                setter.join().unwrap();
            });
        });
    }

    /// E2: no such level.
    #[test]
    fn levels_out_of_range() {
        in_process("c_only::levels_out_of_range", LIMIT, || {
            for level in [-1, 6, i32::MAX, i32::MIN] {
                let text = format!("-1 log: invalid argument: no such level: {level}");
                assert_eq!(set(Some(collect), null_mut(), level), Err(text.clone()));
                assert_eq!(set(None, null_mut(), level), Err(text));
                let status = unsafe { keepsock_log_set(None, null_mut(), level, null_mut()) };
                assert_eq!(status, ErrorKind::InvalidArgument.code());
            }
            assert!(log::set_logger(&Collector).is_ok(), "a call that failed took the logger");
        });
    }
}
