//! N4: log events, through the facade of the crate `log` and through the C callback. L4: repeated
//! events are logged at intervals. A process has one logger, so each test runs in its own process.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support;
#[cfg(all(feature = "datagram", feature = "serve"))]
use crate::support::DatagramService;
#[cfg(feature = "datagram")]
use crate::support::Datagrams;
use crate::support::libc;
use crate::support::netns::in_namespace;
use crate::support::process::in_process;
#[cfg(all(unix, feature = "activation"))]
use crate::support::{Activation as _, Handed};
use crate::support::{
    Api, Client, MORE_THAN_FITS, Opt, RustApi, Server, Transport, eventually, fails, pair,
    refused_address, small_pair, system, with_raw_peer,
};
#[cfg(feature = "serve")]
use crate::support::{Connection as _, Serve, Service};
use crate::support::{limits, netns};
use keepsock::{CloseReason, ErrorKind};
use log::{Level, LevelFilter, Log, Metadata, Record};
use socket2::{Domain, Type};

const LIMIT: Duration = Duration::from_secs(30);

// ---- loggers ---------------------------------------------------------------------------

/// A logger for the events, and the API that causes them.
trait Way {
    type Api: Api;
    fn listen_to(level: LevelFilter);
}

struct Facade;

impl Way for Facade {
    type Api = RustApi;

    fn listen_to(level: LevelFilter) {
        // A second call only changes the level.
        let _ = log::set_logger(&Collector);
        log::set_max_level(level);
    }
}

#[cfg(feature = "capi")]
struct Callback;

#[cfg(feature = "capi")]
impl Way for Callback {
    type Api = support::CApi;

    fn listen_to(level: LevelFilter) {
        c_only::set(Some(c_only::collect), std::ptr::null_mut(), level as i32).unwrap();
    }
}

/// Runs each test with both loggers, in its own process.
macro_rules! both_ways {
    ($($name:ident),* $(,)? $(#[$cfg:meta] { $($gated:ident),* $(,)? })*) => {
        mod facade {
            $(both_ways!(@ $name, Facade);)*
            $($(#[$cfg] both_ways!(@ $gated, Facade);)*)*
        }
        #[cfg(feature = "capi")]
        mod callback {
            $(both_ways!(@ $name, Callback);)*
            $($(#[$cfg] both_ways!(@ $gated, Callback);)*)*
        }
    };
    (@ $name:ident, $way:ident) => {
        #[test] fn $name() {
            if $crate::support::portable::skips(module_path!(), stringify!($name)) {
                return;
            }
            $crate::support::run(concat!(module_path!(), "::", stringify!($name)), || {
                let name = test_name!(stringify!($name));
                super::in_process(&name, super::LIMIT, super::$name::<super::$way>);
            });
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
/// The code that runs inside each event.
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

/// Waits for the only event whose message has these parts in this order.
#[track_caller]
fn told(level: Level, target: &str, parts: &[&str]) -> Event {
    let mut events = told_in_all(level, target, parts);
    assert_eq!(events.len(), 1, "{parts:?} in {events:#?}");
    events.pop().unwrap()
}

/// Waits for an event of a rate limit, which passes one event in 5 s. `begin` is a time before the
/// first event. On a busy machine a test may take longer than 5 s. Returns the number of events.
#[track_caller]
fn told_at_a_rate(begin: Instant, level: Level, target: &str, parts: &[&str]) -> usize {
    let events = told_in_all(level, target, parts);
    let most = 1 + begin.elapsed().as_secs() / 5;
    assert!(events.len() as u64 <= most, "at most {most} of {parts:?} in {events:#?}");
    events.len()
}

/// Waits for the first event with these parts. Returns all of them.
#[track_caller]
fn told_in_all(level: Level, target: &str, parts: &[&str]) -> Vec<Event> {
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
    for event in &matching {
        assert_eq!((event.level, event.target.as_str()), (level, target), "{event:?}");
    }
    matching
}

// ---- events -----------------------------------------------------------------------------

both_ways![
    events_without_logger_are_not_delivered,
    log_reports_lookups_and_connect_attempts,
    log_reports_listen_accept_and_close,
    abort_during_close_is_logged_once,
    log_level_includes_higher_severities,
    accept_that_is_retried_is_logged_once,
    accept_without_descriptors_is_logged_once,
    lost_connection_is_logged_once,
    graceful_close_is_not_logged_as_lost,
    events_contain_no_data,
    calls_inside_event_of_read_succeed,
    calls_inside_event_of_write_succeed,
    calls_inside_event_of_connect_succeed,
    #[cfg(unix)] {
        rejection_of_unix_user_is_logged,
    }
    #[cfg(all(unix, feature = "serve"))] {
        texts_of_hostile_peers_are_escaped_in_events_and_errors,
    }
    #[cfg(all(unix, feature = "activation"))] {
        log_reports_a_successful_handover,
    }
    #[cfg(feature = "serve")] {
        connection_that_waits_for_an_entry_is_served,
        log_event_names_its_own_endpoint,
        rejections_of_full_server_are_logged_once,
        log_reports_a_drain,
        broadcast_that_disconnects_is_logged,
        calls_inside_event_of_service_succeed,
    }
    #[cfg(all(feature = "datagram", feature = "serve"))] {
        datagram_service_retries_are_logged_once,
    }
];

/// Causes an event of the levels info, debug and trace, and none of warn and error.
fn ordinary_events<A: Api>() {
    let server = A::listen("localhost:0", &[]).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    let accepted = server.accept().unwrap();
    accepted.close().unwrap();
    client.close().unwrap();
    A::connect(&refused_address().to_string(), &[]).err().unwrap();
    server.close();
}

/// N4: a program without a logger, or with the level off, gets no event.
fn events_without_logger_are_not_delivered<W: Way>() {
    ordinary_events::<W::Api>();
    assert_eq!(log::max_level(), LevelFilter::Off);
    W::listen_to(LevelFilter::Off);
    ordinary_events::<W::Api>();
    assert_eq!(take(), []);
    W::listen_to(LevelFilter::Trace);
    ordinary_events::<W::Api>();
    assert_ne!(take(), []);
    W::listen_to(LevelFilter::Off);
    ordinary_events::<W::Api>();
    assert_eq!(take(), []);
}

/// N4: each lookup and each connect attempt is logged with its result and duration.
fn log_reports_lookups_and_connect_attempts<W: Way>() {
    const CONNECT: &str = "keepsock::connect";
    const LOOKUP: &str = "keepsock::lookup";
    W::listen_to(LevelFilter::Debug);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    take();
    let name = format!("localhost:{}", server.port());
    let client = W::Api::connect(&name, &[Opt::Family(keepsock::Family::Ipv4)]).unwrap();
    told(Level::Debug, LOOKUP, &["lookup of \"localhost\" started"]);
    told(Level::Debug, LOOKUP, &["lookup of \"localhost\" returned ", &endpoint, " after ", "s"]);
    told(Level::Debug, CONNECT, &["attempt 1 of ", ": connecting to ", &endpoint]);
    told(Level::Debug, CONNECT, &["attempt succeeded: ", &endpoint, " after ", "s"]);
    told(Level::Debug, CONNECT, &["connected to ", &name, &client.name(), " after ", "s"]);
    let order: Vec<_> = take().into_iter().map(|e| e.target).collect();
    assert_eq!(order, [LOOKUP, LOOKUP, CONNECT, CONNECT, CONNECT]);

    let nobody = refused_address();
    let addresses = [Opt::Address(nobody), Opt::Address(endpoint.parse().unwrap())];
    W::Api::connect("somebody.example:80", &addresses).unwrap();
    let failed = format!("attempt failed: {nobody}: connection refused after ");
    told(Level::Debug, CONNECT, &["attempt 1 of 2: connecting to ", &nobody.to_string()]);
    told(Level::Debug, CONNECT, &[&failed, "s"]);
    told(Level::Debug, CONNECT, &["attempt 2 of 2: connecting to ", &endpoint]);
    told(Level::Debug, CONNECT, &["attempt succeeded: ", &endpoint]);
    assert_eq!(with(&take(), "lookup of"), [], "an IP address is not looked up");

    W::Api::connect("127.0.0.1:no-such-service", &[]).err().unwrap();
    told(Level::Debug, LOOKUP, &["lookup of \"no-such-service\" failed after ", "s: "]);
}

/// A resolver that does not answer blocks a thread, which is logged as a warning.
fn lookup_that_outlives_its_caller<W: Way>() {
    netns::silent_resolver("timeout:5 attempts:2");
    W::listen_to(LevelFilter::Warn);
    let connected = W::Api::connect("slow.test:80", &[Opt::ConnectTimeout(100)]);
    fails(connected, ErrorKind::TimedOut);
    let parts = ["lookup of \"slow.test\": timed out after ", "; its thread is still waiting"];
    told(Level::Warn, "keepsock::lookup", &parts);
    assert_eq!(take().len(), 1);
}

/// N4: each connection is logged at the level trace only, and the listener once.
fn log_reports_listen_accept_and_close<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    for transport in support::TRANSPORTS {
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

/// N4, L7: a successful handover is logged with the process ID. A failed one is not.
#[cfg(all(unix, feature = "activation"))]
fn log_reports_a_successful_handover<W: Way>() {
    W::listen_to(LevelFilter::Info);
    let server = W::Api::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    take();
    let handover = |script: &str| {
        let handed = [("s", Handed::Server(&server))];
        <W::Api as Api>::Activation::handover(Some(&["sh", "-c", script]), &handed, 60_000, None)
    };
    fails(handover("exit 1"), ErrorKind::EndOfStream);
    assert_eq!(take().len(), 0);
    // Descriptor 3 is the listener. The successor reports through the next one that it serves.
    let pid = handover("printf 1 >&4").unwrap();
    let words = format!("handed {} over to process {pid}", server.endpoint());
    told(Level::Info, "keepsock::listen", &[&words]);
    assert_eq!(take().len(), 1);
}

/// L7, N3: an accepted connection whose entry was taken in the meantime waits for the next entry,
/// even after accepting has ended. The log event is where the test intervenes.
#[cfg(feature = "serve")]
fn connection_that_waits_for_an_entry_is_served<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let data = Box::new(|connection: &<W::Api as Api>::Connection, data: &[u8]| {
        let _ = connection.send(data);
    });
    let on = support::On { data: Some(data), ..support::On::default() };
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
        eventually("the other connection has the entry", || service.connections() == 1);
        client
    });
    thread::scope(|scope| {
        let waits = scope.spawn(|| service.stop_and_wait(20_000).unwrap());
        eventually("accepting has ended", || service.wait_stopped(0).is_ok());
        client.write_all(b"x").unwrap();
        drop(theirs);
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(client.read(&mut [0; 8]).expect("the connection is served"), 1);
        drop(client);
        assert_eq!(waits.join().unwrap(), 0);
    });
}

/// N4: the close of a connection is logged once.
fn abort_during_close_is_logged_once<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let (client, _peer) = with_raw_peer::<W::Api>(&[]);
    client.write_all(b"x").unwrap();
    // The close waits for the peer's end of stream.
    let (closed, _) = support::while_waiting(|| client.close(), || client.abort());
    fails(closed, ErrorKind::Closed);
    told(Level::Trace, "keepsock::connection", &[&format!("aborted {}", client.name())]);
    assert_eq!(with(&take(), "closed "), []);
}

/// N4: a level includes its own events and all events of higher severity.
fn log_level_includes_higher_severities<W: Way>() {
    use LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
    let mut counts = Vec::new();
    for level in [Off, Error, Warn, Info, Debug, Trace, Info] {
        W::listen_to(level);
        ordinary_events::<W::Api>();
        let events = take();
        assert!(events.iter().all(|e| e.level <= level), "{level}: {events:?}");
        counts.push(events.len());
    }
    let [0, 0, 0, info, debug, trace, again] = counts[..] else { panic!("{counts:?}") };
    assert!(0 < info && info < debug && debug < trace && again == info, "{counts:?}");
}

/// N4, L3, L4: a repeated accept error is logged once.
fn accept_that_is_retried_is_logged_once<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let _waits = TcpStream::connect(&endpoint).unwrap();
    let begin = Instant::now();
    server.set_accept_timeout(1000).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            limits::forbid(libc::SYS_accept4, None, libc::EPROTO);
            // A delay of the thread takes its part of the timeout.
            while server.stats().retried <= 100 {
                fails(server.accept(), ErrorKind::TimedOut);
            }
        });
    });
    let start = format!("accept on {endpoint} failed and is retried: ");
    told_at_a_rate(begin, Level::Debug, "keepsock::accept", &[&start, "Protocol error"]);
}

/// N4, E4: a datagram service logs one event for repeated retries.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn datagram_service_retries_are_logged_once<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = <W::Api as Api>::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let fd = server.fd().unwrap();
    // Where a wait is a poll, the service receives only if a datagram is pending.
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.send_to(b"x", server.endpoint()).unwrap();
    let begin = Instant::now();
    let service = thread::scope(|scope| {
        let serve = scope.spawn(|| {
            limits::forbid(system::RECEIVE_BATCH, Some(fd as libc::c_int), libc::ENOMEM);
            server.serve(1, Box::new(|_, _| ())).unwrap()
        });
        serve.join().unwrap()
    });
    eventually("receiving is retried", || server.stats().unwrap().retried >= 10);
    service.stop();
    service.wait(support::AWAITED).unwrap();
    let start = format!("receive on {} failed and is retried: ", server.endpoint());
    let parts = [&*start, &support::system_text(libc::ENOMEM)];
    let events = told_at_a_rate(begin, Level::Warn, "keepsock::serve", &parts);
    assert_eq!(with(&take(), "is retried").len(), events);
}

/// Opens descriptors until the table of descriptors is full.
fn fill_table() -> Vec<std::fs::File> {
    std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
}

/// N4, L4: repeated accepts without descriptors cause one event.
fn accept_without_descriptors_is_logged_once<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    limits::limit_descriptors(64);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let _waits = TcpStream::connect(&endpoint).unwrap();
    let hoard = fill_table();
    take();
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| server.accept().unwrap().abort());
        eventually("accept is retried", || server.stats().exhausted >= 20);
        let start = format!("accept on {endpoint} waits until the system has resources: ");
        let parts = [&*start, &support::system_text(libc::EMFILE)];
        let events = told_at_a_rate(begin, Level::Warn, "keepsock::accept", &parts);
        // The thread continues, and may log another event in the meantime.
        assert!((events..=events + 1).contains(&take().len()));
        drop(hoard);
    });
    told(Level::Trace, "keepsock::accept", &["accepted "]);
}

/// Connects to a full server, and returns the client's address. The reset may arrive before connect
/// has read its result.
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

/// L2, N4: with several endpoints, each event names its own.
#[cfg(feature = "serve")]
fn log_event_names_its_own_endpoint<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = W::Api::listen_all(&["0.0.0.0:0", "127.0.0.1:0", "[::1]:0"], &[]).unwrap();
    let endpoints = server.endpoints();
    for endpoint in &endpoints {
        told(Level::Info, "keepsock::listen", &["listening on ", endpoint]);
    }
    take();
    // Either all endpoints listen or none, so the first is not logged.
    fails(
        W::Api::listen_all(&["127.0.0.1:0", &endpoints[1]], &[]).map(drop),
        ErrorKind::AddressInUse,
    );
    assert_eq!(take(), []);
    let wait = |client: &<W::Api as Api>::Client| drop(client.read(&mut [0; 8]));
    let service = server.serve(&[Serve::Max(1), Serve::Reject], Box::new(wait)).unwrap();
    let to = |endpoint: &str| endpoint.replace("0.0.0.0", "127.0.0.1");
    let _first = TcpStream::connect(to(&endpoints[0])).unwrap();
    eventually("the first connection is served", || service.connections() == 1);
    for endpoint in &endpoints {
        let (_client, refused) = connect_to_full(&to(endpoint));
        told(Level::Trace, "keepsock::accept", &["accepted ", &refused, " on ", endpoint]);
        told(Level::Warn, "keepsock::accept", &["rejected ", &refused, " on ", endpoint]);
    }
    server.close();
    // Rejected connections were not passed to the program.
    for (endpoint, count) in endpoints.iter().zip([1, 0, 0]) {
        let accepted = format!("closed {endpoint}: {count} connections");
        told(Level::Info, "keepsock::listen", &[&accepted]);
    }
}

/// D4, N4: a rejected Unix client is logged with its user ID.
#[cfg(unix)]
fn rejection_of_unix_user_is_logged<W: Way>() {
    use std::os::unix::fs::MetadataExt;
    W::listen_to(LevelFilter::Trace);
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let dir = support::TempDir::new();
    let options = [Opt::AllowUid(uid + 1)];
    let server = W::Api::listen(&dir.endpoint("s"), &options).unwrap();
    server.set_nonblocking(true).unwrap();
    take();
    let begin = Instant::now();
    for _ in 0..3 {
        drop(W::Api::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap());
        fails(server.accept().map(drop), ErrorKind::WouldBlock);
    }
    assert_eq!(server.stats().denied, 3);
    let who = format!("user {uid} is not allowed");
    let parts = ["rejected ", &server.endpoint(), &who];
    told_at_a_rate(begin, Level::Warn, "keepsock::accept", &parts);
    let more = take();
    assert!(!more.iter().any(|event| format!("{event:?}").contains("accepted ")), "{more:?}");
}

/// N4: a full server logs that it rejects connections, not each rejection.
#[cfg(feature = "serve")]
fn rejections_of_full_server_are_logged_once<W: Way>() {
    W::listen_to(LevelFilter::Warn);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let wait = |client: &<W::Api as Api>::Client| drop(client.read(&mut [0; 8]));
    let service = server.serve(&[Serve::Max(1), Serve::Reject], Box::new(wait)).unwrap();
    let first = TcpStream::connect(server.endpoint()).unwrap();
    eventually("the first connection is served", || service.connections() == 1);
    let begin = Instant::now();
    let (_second, from) = connect_to_full(&server.endpoint());
    eventually("the second connection is rejected", || server.stats().rejected == 1);
    for _ in 0..5 {
        connect_to_full(&server.endpoint());
    }
    eventually("all connections are rejected", || server.stats().rejected == 6);
    let refused = format!("rejected {from} on ");
    told(Level::Warn, "keepsock::accept", &[&refused, &server.endpoint(), "has max_connections"]);
    let events = told_at_a_rate(begin, Level::Warn, "keepsock::accept", &["rejected "]);
    assert_eq!(take().len(), events);
    drop(first);
    service.drain(30_000).unwrap();
}

/// A service with one connection that closes on a drain, and one that is blocked in a write until
/// it is aborted.
#[cfg(feature = "serve")]
fn one_of_each<W: Way>() -> (<W::Api as Api>::Server, <W::Api as Api>::Service, [TcpStream; 2]) {
    use std::io::Write;
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let handler = |client: &<W::Api as Api>::Client| {
        let mut what = [0];
        // The drain may reach the other connection before its write blocks.
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
    eventually("both connections are served", || service.connections() == 2);
    clients[1].peek(&mut [0]).unwrap();
    (server, service, clients)
}

/// N4: the start and end of a drain are logged, with the result of its connections.
#[cfg(feature = "serve")]
fn log_reports_a_drain<W: Way>() {
    W::listen_to(LevelFilter::Info);
    let (server, service, _clients) = one_of_each::<W>();
    let endpoint = server.endpoint();
    assert_eq!(service.drain(5000).unwrap(), (1, 1));
    let begun = format!("draining {endpoint}: 2 connections, timeout 5.0 s");
    told(Level::Info, "keepsock::serve", &[&begun]);
    let ended = format!("drained {endpoint} after ");
    told(Level::Info, "keepsock::serve", &[&ended, ": 1 completed, 1 reset"]);
}

/// N4: a broadcast logs each client that it disconnects.
#[cfg(feature = "serve")]
fn broadcast_that_disconnects_is_logged<W: Way>() {
    W::listen_to(LevelFilter::Warn);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let wait = |client: &<W::Api as Api>::Client| drop(client.read(&mut [0; 8]));
    let service = server.serve(&[], Box::new(wait)).unwrap();
    let client = TcpStream::connect(server.endpoint()).unwrap();
    eventually("the connection is served", || service.connections() == 1);
    assert_eq!(service.broadcast(&vec![0; MORE_THAN_FITS]), (0, 1));
    let (local, remote) = (server.endpoint(), client.local_addr().unwrap());
    let cut = format!("broadcast reset tcp {local} -> {remote}: ");
    told(Level::Warn, "keepsock::serve", &[&cut]);
}

type Call<A> = fn(&<A as Api>::Client) -> support::Outcome<()>;

/// A call that finds the end of a connection.
type Meet<A> = fn(&<A as Api>::Client);

fn ways_to_meet_a_reset<A: Api>() -> [(&'static str, Meet<A>); 6] {
    fn reset<T>(outcome: support::Outcome<T>) {
        fails(outcome, ErrorKind::Reset);
    }
    [
        ("read", |c| reset(c.read(&mut [0; 8]))),
        ("read_exact", |c| reset(c.read_exact(&mut [0; 8]))),
        ("read_line", |c| reset(c.read_line(8))),
        ("write", |c| reset(c.write(b"x"))),
        ("write_all", |c| reset(c.write_all(b"x"))),
        ("wait_hangup", |c| assert_eq!(c.wait_hangup(30_000).unwrap(), CloseReason::PeerReset)),
    ]
}

/// Returns a connection that the peer has reset.
fn was_reset<A: Api>() -> A::Client {
    let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    client
}

/// N4: a lost connection is logged once, by the call that finds it first.
fn lost_connection_is_logged_once<W: Way>() {
    W::listen_to(LevelFilter::Info);
    for (name, meet) in ways_to_meet_a_reset::<W::Api>() {
        let client = was_reset::<W::Api>();
        take();
        meet(&client);
        let message = format!("lost {}: connection reset by peer", client.name());
        let event = told(Level::Info, "keepsock::connection", &[&message]);
        assert_eq!(event.message, message, "{name}");
        let _ = (client.read(&mut [0; 8]), client.read_line(8), client.write_all(b"x"));
        let _ = client.close();
        assert_eq!(take().len(), 1, "{name}");
    }
}

/// N4: neither a FIN nor a local close is a lost connection.
fn graceful_close_is_not_logged_as_lost<W: Way>() {
    let p = pair::<W::Api>(Transport::Tcp);
    W::listen_to(LevelFilter::Debug);
    p.client.shutdown_write().unwrap();
    assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
    fails(p.accepted.read_line(8), ErrorKind::EndOfStream);
    assert_eq!(p.accepted.wait_hangup(30_000).unwrap(), CloseReason::PeerClosed);
    fails(p.client.write_all(b"x"), ErrorKind::WrongState);
    p.accepted.close().unwrap();
    p.client.close().unwrap();
    fails(p.client.read(&mut [0; 8]), ErrorKind::Closed);
    assert_eq!(take(), []);
}

/// N4: events describe connections, and never contain their data.
fn events_contain_no_data<W: Way>() {
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
    assert_eq!(with(&events, "lost ").len(), 1);
    assert_eq!(with(&events, "yzz"), []);
    assert_eq!(with(&events, "88, 121"), [], "no event has the bytes as numbers");
}

/// N4, E1: names of peers, addresses in PROXY headers and option values contain line breaks, terminal
/// controls and characters that change the direction of text. Each event and each error is one line
/// without them.
#[cfg(all(unix, feature = "serve"))]
fn texts_of_hostile_peers_are_escaped_in_events_and_errors<W: Way>() {
    use std::os::unix::fs::MetadataExt;
    const HOSTILE: &str = "\n[ERROR] x\r\x1b[2J\u{9b}31m\u{202e}\u{200b}\u{2028}\t\x07\x7f";
    W::listen_to(LevelFilter::Trace);
    let dir = support::TempDir::new();
    let path = dir.path(&format!("s{HOSTILE}"));
    let to = socket2::SockAddr::unix(&path).unwrap();
    let mut number = 0;
    // The peer has an abstract name, or the path of a file.
    let mut connect = |is_path: bool| {
        number += 1;
        let name = format!("{number}{HOSTILE}");
        let abstract_name = format!("\0{}-{name}", std::process::id());
        let name = if is_path { dir.path(&name).into() } else { abstract_name.into() };
        let name: std::ffi::OsString = name;
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&name).unwrap()).unwrap();
        socket.connect(&to).unwrap();
        socket
    };
    let escaped_path: String = keepsock::Endpoint::unix(&path).unwrap().to_string();
    let mut errors = Vec::new();
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let own = |more: Opt<'static, W::Api>| {
        W::Api::listen(&escaped_path, &[Opt::CloseTimeout(0), more]).unwrap()
    };

    let server = own(Opt::Nodelay(true));
    for is_path in [false, true] {
        // Rejected by a second server of the same path: that is an error with the path.
        errors.push(W::Api::listen(&escaped_path, &[]).err().unwrap());
        let peer = connect(is_path);
        let client = server.accept().unwrap();
        client.write_all(b"unread").unwrap();
        drop(peer);
        errors.push(fails(client.read_exact(&mut [0; 9]), ErrorKind::Reset));
        errors.push(fails(client.close(), ErrorKind::Reset));
        let _peer = connect(is_path);
        server.accept().unwrap().abort();
    }
    told_in_all(Level::Info, "keepsock::connection", &["lost ", "[ERROR]"]);
    told_in_all(Level::Trace, "keepsock::connection", &["aborted ", "[ERROR]"]);
    told_in_all(Level::Trace, "keepsock::accept", &["accepted ", "[ERROR]", " on ", "[ERROR]"]);
    // A C callback cannot panic.
    let panics = <W::Api as Api>::NUMBER == RustApi::NUMBER;
    let data = move |connection: &<W::Api as Api>::Connection, _: &[u8]| {
        connection.abort();
        assert!(!panics, "on purpose");
    };
    let on = support::On { data: Some(Box::new(data)), ..support::On::default() };
    let service = server.serve_events(&[], on).unwrap();
    let peer = connect(false);
    peer.send(b"x").unwrap();
    eventually("the connection has ended", || service.stats().closed == 1);
    service.stop_and_wait(60_000).unwrap();
    drop((service, server));

    let server = own(Opt::AllowUid(uid + 1));
    server.set_nonblocking(true).unwrap();
    // Other systems have no abstract names.
    let _peer = connect(!cfg!(keepsock_linux));
    errors.push(fails(server.accept(), ErrorKind::WouldBlock));
    told(Level::Warn, "keepsock::accept", &["rejected ", "[ERROR]", " on ", "[ERROR]"]);
    drop(server);

    // A header of version 2 with two Unix addresses, and a wrong header of version 1.
    let server =
        W::Api::listen("127.0.0.1:0", &[Opt::TrustedProxy("127.0.0.0/8"), Opt::CloseTimeout(0)])
            .unwrap();
    let name = |end: &str| {
        let mut name = format!("/{HOSTILE}{end}").into_bytes();
        name.resize(108, 0);
        name
    };
    let unix = [b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".as_slice(), &name("a"), &name("b")].concat();
    let mut proxy = TcpStream::connect(server.endpoint()).unwrap();
    proxy.write_all(&unix).unwrap();
    let client = server.accept().unwrap();
    client.read_proxy_header().unwrap();
    assert!(client.name().contains("[ERROR]"), "{}", client.name());
    drop(proxy);
    errors.push(fails(client.read_exact(&mut [0; 9]), ErrorKind::EndOfStream));
    client.close().unwrap();
    told_in_all(Level::Trace, "keepsock::connection", &["closed ", "[ERROR]", " -> ", "[ERROR]"]);
    for wrong in [format!("PROXY TCP4 {HOSTILE}\r\n"), format!("PROXY {HOSTILE}\r\n")] {
        let mut proxy = TcpStream::connect(server.endpoint()).unwrap();
        proxy.write_all(wrong.as_bytes()).unwrap();
        let client = server.accept().unwrap();
        errors.push(fails(client.read_proxy_header(), ErrorKind::Malformed));
    }

    // Texts of a configuration.
    let missing = keepsock::Endpoint::unix(dir.path(&format!("none{HOSTILE}"))).unwrap();
    errors.push(W::Api::connect(&missing.to_string(), &[]).err().unwrap());
    errors.push(W::Api::connect(&format!("unix:{HOSTILE}"), &[]).err().unwrap());
    let endpoint = server.endpoint();
    for option in [
        Opt::CongestionControl(HOSTILE),
        Opt::Interface(HOSTILE),
        Opt::Local(HOSTILE),
        Opt::TrustedProxy(HOSTILE),
    ] {
        errors.push(W::Api::connect(&endpoint, &[option]).err().unwrap());
    }
    drop((client, server));

    let events = take();
    assert_eq!(with(&events, "a handler panicked: ").len(), usize::from(panics), "{events:#?}");
    let texts = events.iter().map(|event| event.message.as_str());
    // An invalid endpoint is returned as the caller passed it.
    let endpoint = |e: &support::Failure| !e.is(ErrorKind::InvalidEndpoint);
    let errors = errors.iter().flat_map(|e| {
        let endpoint = endpoint(e).then_some(e.endpoint.as_str());
        endpoint.into_iter().chain([&*e.message])
    });
    let mut hostile = 0;
    for text in texts.chain(errors) {
        let is_wrong =
            |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}' | '\u{2028}');
        assert!(!text.contains(is_wrong), "{text:?}");
        hostile += usize::from(text.contains("[ERROR]"));
    }
    println!("{hostile} texts with escaped characters");
    assert!(hostile > 30, "{hostile}");
}

// ---- calls inside an event (V7) ---------------------------------------------------------------------------

/// Runs a call inside each event that `f` causes, and returns the number of calls. Each call must
/// return, in whichever thread.
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
    eventually("all calls inside events have returned", all);
    (value, begun.load(Ordering::SeqCst))
}

/// Calls each function that takes a lock of a connection or closes it.
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

/// N4, V7: inside an event of a call on a connection, every function of that connection may be
/// called.
fn calls_inside_event_of_read_succeed<W: Way>() {
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

/// N4, V7: the same holds if the call was waiting in the kernel with buffered bytes.
fn calls_inside_event_of_write_succeed<W: Way>() {
    // The abort is excluded, because its event would end the call first.
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
            let (outcome, _) = support::while_waiting(|| call(&client), || p.accepted.abort());
            fails(outcome, ErrorKind::Reset);
        });
        assert!(times >= 1);
    }
}

/// N4, V7: inside an event of a service, the program may call all its functions except drain.
#[cfg(feature = "serve")]
fn calls_inside_event_of_service_succeed<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let (server, service, clients) = one_of_each::<W>();
    let (server, service) = (Arc::new(server), Arc::new(service));
    let hook = {
        let (server, service) = (server.clone(), service.clone());
        move || {
            service.connections();
            let _ = service.wait_stopped(0);
            server.stats();
            let _ = server.set_cancel(None);
        }
    };
    let (drained, times) = inside(hook, || service.drain(5000).unwrap());
    assert_eq!(drained, (1, 1));
    assert!(times >= 3, "{times}");
    drop(clients);

    // A full service, which its own event then stops.
    let server = Arc::new(W::Api::listen("127.0.0.1:0", &[]).unwrap());
    let wait = |client: &<W::Api as Api>::Client| drop(client.read(&mut [0; 8]));
    let service = server.serve(&[Serve::Max(1), Serve::Reject], Box::new(wait)).unwrap();
    let service = Arc::new(service);
    let _first = TcpStream::connect(server.endpoint()).unwrap();
    eventually("the first connection is served", || service.connections() == 1);
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
        told(Level::Warn, "keepsock::accept", &["rejected "]);
        told(Level::Trace, "keepsock::connection", &["aborted "]);
        second
    });
    assert!(times >= 2, "accepted, rejected, and perhaps aborted: {times}");
    let hook = {
        let (server, service) = (server.clone(), service.clone());
        move || {
            service.stop();
            server.close();
        }
    };
    let ((), times) = inside(hook, || {
        let _third = connect_to_full(&server.endpoint());
        service.wait_stopped(60_000).unwrap();
    });
    assert!(times >= 1, "{times}");
    service.drain(60_000).unwrap();
}

/// N4, V7: inside the events of a connect, another connect may be called.
fn calls_inside_event_of_connect_succeed<W: Way>() {
    W::listen_to(LevelFilter::Trace);
    let server = W::Api::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let hook = move || drop(W::Api::connect(&endpoint, &[Opt::CloseTimeout(0)]).unwrap());
    let name = format!("localhost:{}", server.port());
    let (_client, times) = inside(hook, || W::Api::connect(&name, &[]).unwrap());
    assert!(times >= 5, "{times}");
}

// ---- Rust only --------------------------------------------------------------------------------------

/// N4: a lookup that continues after its caller has left is logged as a warning.
#[test]
#[cfg_attr(windows, ignore = "Windows has no network namespaces")]
fn lookup_after_timeout_is_logged() {
    let name = "lookup_after_timeout_is_logged";
    in_namespace(&test_name!(name), LIMIT, lookup_that_outlives_its_caller::<Facade>);
}

/// N4: a panic of a handler is logged. C handlers cannot panic.
#[cfg(feature = "serve")]
#[test]
fn panic_in_handler_is_logged() {
    in_process(&test_name!("panic_in_handler_is_logged"), LIMIT, || {
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

/// N4: a service that cannot accept logs this once for all its worker threads.
#[cfg(feature = "serve")]
#[test]
#[cfg_attr(windows, ignore = "Windows does not shut down a listener")]
fn service_that_cannot_accept_is_logged_once() {
    in_process(&test_name!("service_that_cannot_accept_is_logged_once"), LIMIT, || {
        Facade::listen_to(LevelFilter::Error);
        let server = keepsock::ServerSocket::listen("127.0.0.1:0").unwrap();
        let service = server.serve(|client| drop(client.read(&mut [0; 8]))).unwrap();
        let endpoint = server.endpoint().to_string();
        let clients = [0; 5].map(|_| TcpStream::connect(&endpoint).unwrap());
        eventually("all connections are served", || service.stats().connections == 5);
        drop(clients);
        eventually("all connections are closed", || service.stats().connections == 0);
        // The test shuts the socket down through another descriptor.
        let listener = server.borrow().unwrap();
        socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both).unwrap();
        drop(listener);
        assert!(service.wait_stopped(Duration::from_secs(10)).is_err());
        drop(service);
        let ended = format!("the service stopped accepting: accept {endpoint}: Invalid argument");
        told(Level::Error, "keepsock::serve", &[&ended]);
    });
}

// ---- C only -----------------------------------------------------------------------------------------

#[cfg(feature = "capi")]
mod c_only {
    // The purpose of this module is calls to and from C functions.
    #![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

    use std::ffi::{CStr, c_char, c_void};
    use std::ptr::null_mut;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use keepsock::ffi::*;

    use super::*;
    use crate::support::{CApi, TempDir};

    type Function = unsafe extern "C" fn(i32, *const c_char, *const c_char, *mut c_void);

    pub fn set(callback: Option<Function>, user: *mut c_void, level: i32) -> Result<(), String> {
        let mut error = null_mut();
        unsafe {
            let status = keepsock_log_set(level, callback, user, &raw mut error);
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
        level: i32,
        target: *const c_char,
        message: *const c_char,
        user: *mut c_void,
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

    /// N4: a lookup that continues after its caller has left is logged as a warning.
    #[test]
    #[cfg_attr(windows, ignore = "Windows has no network namespaces")]
    fn lookup_after_timeout_is_logged() {
        let name = "lookup_after_timeout_is_logged";
        in_namespace(&test_name!(name), LIMIT, lookup_that_outlives_its_caller::<Callback>);
    }

    /// N4: a NULL callback removes the logger, and a later call sets it again.
    #[test]
    fn log_set_null_removes_the_callback() {
        in_process(&test_name!("log_set_null_removes_the_callback"), LIMIT, || {
            set(None, null_mut(), 0).unwrap();
            for _ in 0..2 {
                set(Some(collect), null_mut(), 5).unwrap();
                ordinary_events::<CApi>();
                assert_ne!(take(), []);
                set(None, null_mut(), 5).unwrap();
                assert_eq!(log::max_level(), LevelFilter::Off);
                ordinary_events::<CApi>();
                assert_eq!(take(), []);
            }
        });
    }

    /// N4: setting the logger inside its callback would wait for itself and fails. Calls inside the
    /// callback log no events.
    #[test]
    fn log_set_inside_callback_fails() {
        in_process(&test_name!("log_set_inside_callback_fails"), LIMIT, || {
            set(Some(collect), null_mut(), 5).unwrap();
            let hook = || {
                let text = "-3 log: wrong state: called from inside the log callback: call it from another place";
                assert_eq!(set(None, null_mut(), 0), Err(text.to_owned()));
                assert_eq!(set(Some(collect), null_mut(), 5), Err(text.to_owned()));
                ordinary_events::<CApi>();
            };
            let (server, times) = inside(hook, || CApi::listen("127.0.0.1:0", &[]).unwrap());
            assert_eq!(times, 1);
            let events = take();
            assert_eq!(events.len(), 1, "{events:?}");
            assert_eq!(events[0].message, format!("listening on {}", server.endpoint()));
            set(None, null_mut(), 0).unwrap();
        });
    }

    /// N4: the logger of a Rust program and its level remain.
    #[test]
    fn log_set_with_logger_of_program_fails() {
        in_process(&test_name!("log_set_with_logger_of_program_fails"), LIMIT, || {
            Facade::listen_to(LevelFilter::Info);
            let text =
                "-3 log: wrong state: the program has set a logger of the log crate: use that one";
            assert_eq!(set(Some(collect), null_mut(), 5), Err(text.to_owned()));
            set(None, null_mut(), 0).unwrap();
            assert_eq!(log::max_level(), LevelFilter::Info);
            let server = CApi::listen("127.0.0.1:0", &[]).unwrap();
            told(Level::Info, "keepsock::listen", &["listening on ", &server.endpoint()]);
        });
    }

    /// N4: events of other crates in the process are not passed to the callback.
    #[test]
    fn events_of_other_crates_are_not_delivered() {
        in_process(&test_name!("events_of_other_crates_are_not_delivered"), LIMIT, || {
            set(Some(collect), null_mut(), 5).unwrap();
            for target in ["other", "keepsockets", "keepsock:connect", "my::keepsock"] {
                log::error!(target: target, "not ours");
            }
            assert_eq!(take(), []);
            log::error!(target: "keepsock::serve", "ours\0\r\n\u{1b}[31m");
            assert_eq!(take()[0].message, "ours????[31m", "one line of text");
        });
    }

    /// N4: a line break in a name does not split an event.
    #[test]
    #[cfg_attr(windows, ignore = "the library has no Unix sockets on Windows")]
    fn event_with_line_break_in_name_is_one_line() {
        in_process(&test_name!("event_with_line_break_in_name_is_one_line"), LIMIT, || {
            set(Some(collect), null_mut(), 5).unwrap();
            let dir = TempDir::new();
            let server = CApi::listen(&dir.endpoint("a\nb"), &[]).unwrap();
            told(Level::Info, "keepsock::listen", &["listening on unix:", r"/a\x0ab"]);
            drop(server);
            assert!(take().iter().all(|e| !e.message.contains(char::is_control)));
        });
    }

    /// The user value of a callback: whether the callback may still run, and how often it ran.
    struct User {
        is_set: AtomicBool,
        calls: AtomicUsize,
    }

    static AFTER_ALL: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn watch(_: i32, _: *const c_char, _: *const c_char, user: *mut c_void) {
        // The value is leaked, so that a late callback fails an assertion instead of crashing.
        let user = unsafe { &*user.cast::<User>() };
        user.calls.fetch_add(1, Ordering::Relaxed);
        for _ in 0..20 {
            if !user.is_set.load(Ordering::SeqCst) {
                AFTER_ALL.fetch_add(1, Ordering::SeqCst);
            }
            thread::yield_now();
        }
    }

    /// Keeps the values reachable: a leak detector reports others.
    static USERS: Mutex<Vec<&'static User>> = Mutex::new(Vec::new());

    fn new_user() -> &'static User {
        let user = User { is_set: AtomicBool::new(true), calls: AtomicUsize::new(0) };
        let user = Box::leak(Box::new(user));
        USERS.lock().unwrap().push(user);
        user
    }

    fn pointer(user: &'static User) -> *mut c_void {
        std::ptr::from_ref(user).cast_mut().cast()
    }

    /// N4: when the call that sets a logger has returned, no thread is inside the previous
    /// callback.
    #[test]
    fn log_set_under_load_waits_for_old_callback() {
        in_process(&test_name!("log_set_under_load_waits_for_old_callback"), LIMIT, || {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            drop(CApi::listen("127.0.0.1:0", &[]).unwrap());
                        }
                    });
                }
                // Two concurrent calls: each returns after all earlier callbacks have returned.
                let setters = [0, 1].map(|_| {
                    scope.spawn(|| {
                        let until = Instant::now() + Duration::from_secs(100);
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

    /// Blocks the callback until the test releases it. The second call does not block.
    unsafe extern "C" fn stay(
        level: i32,
        target: *const c_char,
        message: *const c_char,
        user: *mut c_void,
    ) {
        let leave = LEAVE.lock().unwrap().take();
        if let Some(leave) = leave {
            ENTERED.lock().unwrap().take().unwrap().send(()).unwrap();
            leave.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        unsafe { collect(level, target, message, user) };
    }

    /// N4: a slow callback blocks only its own thread and the thread that replaces it. Events of
    /// other threads are delivered before and after the replacement.
    #[test]
    fn log_set_during_callback_blocks_only_its_thread() {
        in_process(&test_name!("log_set_during_callback_blocks_only_its_thread"), LIMIT, || {
            let ((entered, has_entered), (leave, may_leave)) = (mpsc::channel(), mpsc::channel());
            *ENTERED.lock().unwrap() = Some(entered);
            *LEAVE.lock().unwrap() = Some(may_leave);
            set(Some(stay), null_mut(), 5).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| CApi::listen("127.0.0.1:0", &[]).unwrap());
                has_entered.recv_timeout(Duration::from_secs(60)).unwrap();
                ordinary_events::<CApi>();
                assert_ne!(take(), []);
                let setter = scope.spawn(|| set(Some(collect), null_mut(), 3).unwrap());
                // The new level shows that the new callback is set.
                eventually("the callback is replaced", || log::max_level() == LevelFilter::Info);
                ordinary_events::<CApi>();
                assert_ne!(take(), []);
                assert!(!setter.is_finished());
                leave.send(()).unwrap();
                setter.join().unwrap();
            });
        });
    }

    /// E5, N4: at a fork one thread is in the callback, and a second thread replaces the callback. The child
    /// has neither thread: it logs to the inherited callback, and replaces it.
    #[test]
    #[cfg(unix)]
    fn log_set_in_a_forked_child_does_not_wait_for_the_parents_threads() {
        let name = "log_set_in_a_forked_child_does_not_wait_for_the_parents_threads";
        in_process(&test_name!(name), LIMIT, || {
            let ((entered, has_entered), (leave, may_leave)) = (mpsc::channel(), mpsc::channel());
            *ENTERED.lock().unwrap() = Some(entered);
            *LEAVE.lock().unwrap() = Some(may_leave);
            set(Some(stay), null_mut(), 5).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| CApi::listen("127.0.0.1:0", &[]).unwrap());
                has_entered.recv_timeout(Duration::from_secs(60)).unwrap();
                let in_child = || {
                    drop(CApi::listen("127.0.0.1:0", &[]).unwrap());
                    assert_ne!(take(), []);
                    set(None, null_mut(), 0).unwrap();
                    drop(CApi::listen("127.0.0.1:0", &[]).unwrap());
                    assert_eq!(take(), []);
                    set(Some(collect), null_mut(), 5).unwrap();
                    drop(CApi::listen("127.0.0.1:0", &[]).unwrap());
                    assert_ne!(take(), []);
                };
                assert!(system::Forked::run(in_child), "while a thread is in the callback");
                let setter = scope.spawn(|| set(Some(collect), null_mut(), 3).unwrap());
                eventually("the callback is replaced", || log::max_level() == LevelFilter::Info);
                assert!(system::Forked::run(in_child), "while a thread sets the callback");
                assert!(!setter.is_finished());
                leave.send(()).unwrap();
                setter.join().unwrap();
            });
        });
    }

    /// E2: an unknown level is rejected.
    #[test]
    fn log_set_with_unknown_level_fails() {
        in_process(&test_name!("log_set_with_unknown_level_fails"), LIMIT, || {
            for level in [-1, 6, i32::MAX, i32::MIN] {
                let text = format!("-1 log: invalid argument: {level} is not a keepsock_log_level");
                assert_eq!(set(Some(collect), null_mut(), level), Err(text.clone()));
                assert_eq!(set(None, null_mut(), level), Err(text));
                let status = unsafe { keepsock_log_set(level, None, null_mut(), null_mut()) };
                assert_eq!(status, ErrorKind::InvalidArgument.code());
            }
            assert!(log::set_logger(&Collector).is_ok(), "a failed call set the logger");
        });
    }
}
