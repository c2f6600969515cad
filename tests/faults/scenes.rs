//! The scenes: what the library does while a system call fails. A scene returns the first error that
//! the library reported, and panics if a guarantee is broken.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use keepsock::failpoints::{self, Report};
use keepsock::{CloseReason, ErrorKind, Sockopt};

use crate::support::handshake::Handshakes;
use crate::support::*;

/// One run of a scene.
pub struct Run {
    /// The library hides the fault.
    is_hidden: bool,
    report: RefCell<Option<Report>>,
}

impl Run {
    pub fn new(is_hidden: bool) -> Run {
        Run { is_hidden, report: RefCell::new(None) }
    }

    /// Ends the faults. The later calls must succeed.
    fn over(&self) {
        self.report();
    }

    pub fn report(&self) -> Report {
        self.report.borrow_mut().get_or_insert_with(failpoints::disarm).clone()
    }
}

pub struct Scene {
    pub name: &'static str,
    pub run: fn(&Run) -> Outcome<()>,
    /// Only faults that the library hides: another fault would be another scene.
    pub is_gentle_only: bool,
}

macro_rules! scenes {
    ($($name:literal: $function:ident $(($($argument:expr),*))? $($gentle:ident)?;)*) => {
        /// Every scene, through both APIs.
        pub const SCENES: &[Scene] = &[$(
            Scene {
                name: concat!($name, ", Rust"),
                run: |run| $function::<RustApi>(run $(, $($argument),*)?),
                is_gentle_only: stringify!($($gentle)?).len() > 0,
            },
            Scene {
                name: concat!($name, ", C"),
                run: |run| $function::<CApi>(run $(, $($argument),*)?),
                is_gentle_only: stringify!($($gentle)?).len() > 0,
            },
        )*];
    };
}

scenes! {
    "TCP stream": exchange(Transport::Tcp);
    "Unix stream": exchange(Transport::Unix);
    "name": named;
    "pending": pending;
    "options": options_of_sockets;
    "adopt and release": adopt;
    "Unix extras": unix_extras;
    "stale Unix path": stale_path;
    "several listeners": several_listeners;
    "cancel": cancelled;
    "liveness": liveness;
    "close": closes;
    "close in use": closes_in_use;
    "modes": modes;
    "rare options": rare_options;
    "UDP, more": udp_more;
    "events, more": events_more;
    "reset, read": reset_read gentle;
    "reset, two threads": reset_in_two_threads gentle;
    "reset, events": reset_in_events gentle;
    "PROXY": proxy;
    "UDP": udp;
    "Unix datagrams": unix_datagrams;
    "datagram service": datagram_service;
    "threads, TCP": service(false, Transport::Tcp);
    "threads, Unix": service(false, Transport::Unix);
    "events, TCP": service(true, Transport::Tcp);
    "events, Unix": service(true, Transport::Unix);
    "push": push;
    "events, connect": service_connects;
    "events, PROXY": service_proxy;
    "events, file": service_file;
    "handover": handover;
    "diagnostics": diagnostics;
}

const WAIT: i64 = 2000;
/// The options of a listener of an event-driven service.
fn of_events<'a, A: Api>() -> Vec<Opt<'a, A>> {
    vec![Opt::CloseTimeout(200)]
}

/// The options of a connection of an event-driven service.
fn connecting<'a, A: Api>() -> Vec<Opt<'a, A>> {
    vec![Opt::ConnectTimeout(WAIT), Opt::CloseTimeout(200)]
}

const SOON: Duration = Duration::from_secs(4);

fn timeouts<'a, A: Api>() -> Vec<Opt<'a, A>> {
    vec![
        Opt::ConnectTimeout(WAIT),
        Opt::ReadTimeout(WAIT),
        Opt::WriteTimeout(WAIT),
        Opt::CloseTimeout(200),
    ]
}

fn is_ended(failure: &Failure) -> bool {
    let passes =
        [ErrorKind::TimedOut, ErrorKind::NoMemory, ErrorKind::NoDescriptors, ErrorKind::WouldBlock];
    !passes.iter().any(|kind| failure.is(*kind))
}

/// The errors of a scene. The first one is its result.
#[derive(Default)]
struct Errors(Option<Failure>);

impl Errors {
    fn note<T>(&mut self, outcome: Outcome<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(failure) => {
                self.0.get_or_insert(failure);
                None
            }
        }
    }

    fn result(self) -> Outcome<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// A call that must fail with this error. Another error is the error of the scene.
#[track_caller]
fn expects<T>(outcome: Outcome<T>, kind: ErrorKind) -> Outcome<()> {
    match outcome {
        Ok(_) => panic!("expected {kind:?}, but it succeeded"),
        Err(failure) if failure.is(kind) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Reads until the end of the stream or an error that does not pass. Returns the bytes, and whether
/// the stream ended with FIN.
fn read_all<A: Api>(client: &A::Client, errors: &mut Errors) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    let mut buf = [0; 700];
    let mut tries = 0;
    loop {
        let (mut one, mut other) = ([0; 100], [0; 300]);
        let read = match got.len() {
            0..100 => client.read_exact(&mut one).map(|()| {
                got.extend_from_slice(&one);
                1
            }),
            100..800 => client.read_slices(&mut [&mut one, &mut other]).inspect(|n| {
                got.extend_from_slice(&[&one[..], &other].concat()[..*n]);
            }),
            _ => client.read(&mut buf).inspect(|n| got.extend_from_slice(&buf[..*n])),
        };
        match read {
            Ok(0) => return (got, true),
            Ok(_) => tries = 0,
            Err(failure) => {
                let end = is_ended(&failure) || tries > 3;
                tries += 1;
                let is_fin = failure.is(ErrorKind::EndOfStream);
                errors.note::<()>(Err(failure));
                if end {
                    // The bytes of the failed call are kept.
                    while client.buffered() > 0 {
                        match client.read(&mut buf) {
                            Ok(n) if n > 0 => got.extend_from_slice(&buf[..n]),
                            _ => break,
                        }
                    }
                    return (got, is_fin);
                }
            }
        }
    }
}

/// Writes in several ways. Returns the bytes that the library reported as sent.
fn write_some<A: Api>(client: &A::Client, errors: &mut Errors) -> Vec<u8> {
    let data = bytes(4000);
    let file = system::blank_file(0);
    (&file).write_all(&data[2000..]).unwrap();
    let mut sent = 0;
    let steps: [(usize, &dyn Fn() -> Outcome<()>); 5] = [
        (1000, &|| client.write_all(&data[..1000])),
        (800, &|| client.write_slices(&[&data[1000..1400], &data[1400..1800]])),
        (200, &|| client.write_all(&data[1800..2000])),
        (1900, &|| client.send_file(file.as_raw_fd(), 0, 1900).map(drop)),
        (100, &|| client.write_all(&data[3900..])),
    ];
    for (len, step) in steps {
        match step() {
            Ok(()) => sent += len,
            Err(failure) => {
                sent += failure.transferred;
                errors.note::<()>(Err(failure));
                break;
            }
        }
    }
    data[..sent].to_vec()
}

fn check_stream(run: &Run, sent: &[u8], got: &[u8], is_fin: bool) {
    assert!(sent.starts_with(got) || got.starts_with(sent), "bytes differ");
    if is_fin {
        assert_eq!(got.len(), sent.len(), "end of stream, but the numbers of bytes differ");
    }
    assert!(!run.is_hidden || (is_fin && got == sent), "{} of {} bytes", got.len(), sent.len());
}

/// A connection in blocking mode, both directions.
fn exchange<A: Api>(run: &Run, transport: Transport) -> Outcome<()> {
    let (endpoint, _dir) = somewhere(transport);
    let server = A::listen(&endpoint, &timeouts())?;
    server.set_accept_timeout(WAIT)?;
    let client = A::connect(&server.endpoint(), &timeouts())?;
    let accepted = server.accept()?;
    let mut errors = Errors::default();
    for (from, to) in [(&client, &accepted), (&accepted, &client)] {
        let sent = write_some::<A>(from, &mut errors);
        errors.note(from.shutdown_write());
        if errors.0.is_some() {
            // Nothing may follow, so the reader does not wait for its timeout.
            errors.note(from.close());
        }
        let (got, is_fin) = read_all::<A>(to, &mut errors);
        check_stream(run, &sent, &got, is_fin);
    }
    errors.note(client.stats().map(drop));
    errors.note(client.close());
    errors.note(accepted.close());
    server.close();
    errors.result()
}

/// A connect to a name, and a lookup.
fn named<A: Api>(_: &Run) -> Outcome<()> {
    let server = A::listen("*:0", &timeouts())?;
    server.set_accept_timeout(WAIT)?;
    let addresses = A::lookup("localhost:http", &timeouts())?;
    assert!(!addresses.is_empty());
    let mut lookup = A::start_lookup("localhost:80", &timeouts())?;
    let fd = lookup.fd()?;
    system::becomes_readable(fd, 2000);
    lookup.wait()?;
    let client = A::connect_host("localhost", server.port(), &timeouts())?;
    let accepted = server.accept()?;
    client.write_all(b"line\n")?;
    assert_eq!(accepted.read_line(100)?, "line");
    Ok(())
}

/// It has a descriptor that stays open.
static REFUSED: LazyLock<SocketAddr> = LazyLock::new(refused_address);

/// Non-blocking connects, in each form.
fn pending<A: Api>(_: &Run) -> Outcome<()> {
    let server = A::listen("*:0", &timeouts())?;
    server.set_accept_timeout(WAIT)?;
    let port = server.port();
    for host in ["127.0.0.1", "localhost"] {
        let endpoint = format!("{host}:{port}");
        let mut start = A::start(&endpoint, &timeouts())?;
        let fd = start.fd()?;
        let until = Instant::now() + SOON;
        let client = loop {
            match start.finish()? {
                Some(client) => break client,
                None => drop(system::becomes_readable(fd, 50)),
            }
            assert!(Instant::now() < until, "the connect does not end");
        };
        server.accept()?;
        drop(client);
        let mut start = A::start(&endpoint, &timeouts())?;
        start.set_watch(Box::new(|_| {}))?;
        start.timeout();
        start.attempts_in_progress();
        start.wait()?;
        server.accept()?;
    }
    let mut start = A::start(&REFUSED.to_string(), &timeouts())?;
    assert!(start.wait().is_err());
    start.attempts();
    let mut again = A::reconnect(&format!("127.0.0.1:{port}"), &timeouts())?;
    again.set_backoff(1, 5)?;
    again.set_limit(WAIT)?;
    again.connect()?;
    let until = Instant::now() + SOON;
    again.reset();
    while again.try_connect()?.is_none() {
        thread::sleep(Duration::from_millis(1));
        assert!(Instant::now() < until, "the reconnect does not end");
    }
    Ok(())
}

/// Options before and after the connect.
fn options_of_sockets<A: Api>(_: &Run) -> Outcome<()> {
    const PRIORITY: [u8; 4] = 2i32.to_ne_bytes();
    let mut options = timeouts();
    options.extend([
        Opt::Keepalive(20_000, 5000, 4),
        Opt::DeadAfter(60_000),
        Opt::FailOnStall(true),
        Opt::Sockopt(Sockopt::Tos, 16),
        Opt::Sockopt(Sockopt::SendBuffer, 60_000),
        Opt::CongestionControl("reno"),
        Opt::RawSockopt(libc::SOL_SOCKET, libc::SO_PRIORITY, &PRIORITY),
    ]);
    let server = A::listen("127.0.0.1:0", &[Opt::SaveSyn(true), Opt::FastOpen(true)])?;
    server.set_accept_timeout(WAIT)?;
    options.extend([Opt::Local("127.0.0.1:0"), Opt::Interface("lo"), Opt::FastOpen(true)]);
    let client = A::connect(&server.endpoint(), &options)?;
    client.write_all(b"first")?;
    let accepted = server.accept()?;
    let all = [
        Sockopt::SendBuffer,
        Sockopt::RecvBuffer,
        Sockopt::OobInline,
        Sockopt::Nodelay,
        Sockopt::Tos,
        Sockopt::NotsentLowat,
        Sockopt::Priority,
    ];
    for option in all {
        let value = client.sockopt(option)?;
        client.set_sockopt(option, value.min(1 << 20))?;
    }
    client.keepalive()?;
    client.keepalive_values()?;
    client.set_keepalive(30_000, 5000, 3)?;
    client.set_dead_after(50_000)?;
    client.set_read_timeout(500)?;
    client.set_write_timeout(500)?;
    client.stats()?;
    client.five_tuple();
    client.set_nonblocking(true)?;
    expects(client.read(&mut [0; 8]), ErrorKind::WouldBlock)?;
    client.set_nonblocking(false)?;
    let mut buf = [0; 5];
    assert!((1..=5).contains(&accepted.peek(&mut buf)?));
    accepted.read_exact(&mut buf)?;
    assert_eq!(&buf, b"first");
    A::listen("[::1]:0", &[Opt::Interface("lo"), Opt::Sockopt(Sockopt::ReusePort, 1)])?;
    A::listen("127.0.0.1:0", &[Opt::Mptcp(true)])?;
    let label = Opt::Sockopt(Sockopt::FlowLabel, 77);
    let server = A::listen("[::1]:0", &timeouts())?;
    let client = A::connect(&server.endpoint(), &[label])?;
    client.sockopt(Sockopt::FlowLabel)?;
    Ok(())
}

fn owned(stream: impl Into<OwnedFd>) -> OwnedFd {
    stream.into()
}

fn adopt<A: Api>(_: &Run) -> Outcome<()> {
    let raw = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = raw.local_addr().unwrap();
    let server = A::adopt_server(owned(raw), &[Opt::CloseTimeout(0)]).map_err(|(_, f)| f)?;
    server.set_accept_timeout(WAIT)?;
    let raw = TcpStream::connect(address).unwrap();
    let client = A::adopt_client(owned(raw), &[Opt::CloseTimeout(0)]).map_err(|(_, f)| f)?;
    let accepted = server.accept()?;
    client.fd()?;
    let raw = TcpStream::from(client.release()?);
    assert_eq!((&raw).write(b"x").unwrap(), 1);
    accepted.read_exact(&mut [0; 1])?;
    let another = accepted.another();
    drop(accepted);
    another.close()?;
    server.release()?;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = A::Datagram::adopt(owned(socket), &[]).map_err(|(_, f)| f)?;
    socket.release()?;
    Ok(())
}

fn unix_extras<A: Api>(_: &Run) -> Outcome<()> {
    let dir = TempDir::new();
    let own = std::fs::metadata(dir.path("")).unwrap();
    let (uid, gid) = (own.uid(), own.gid());
    let options = [
        Opt::UnixMode(0o600),
        Opt::UnixOwner(Some(uid), Some(gid)),
        Opt::AllowUid(uid),
        Opt::Seqpacket(true),
        Opt::CloseTimeout(0),
    ];
    let server = A::listen(&dir.endpoint("p"), &options)?;
    server.set_accept_timeout(WAIT)?;
    let packets = [Opt::Seqpacket(true), Opt::ReadTimeout(WAIT), Opt::WriteTimeout(WAIT)];
    let client = A::connect(&server.endpoint(), &packets)?;
    let accepted = server.accept()?;
    let file = system::blank_file(1);
    assert_eq!(client.write_fds(b"packet", &[file.as_raw_fd()])?, 6);
    accepted.set_read_timeout(WAIT)?;
    let passed = accepted.read_fds(64, 4)?;
    assert_eq!((&*passed.bytes, passed.fds.len()), (&b"packet"[..], 1));
    accepted.peer_credentials()?;
    client.write(b"next")?;
    assert_eq!(accepted.read(&mut [0; 64])?, 4);
    let server = A::listen("unix:@keepsock-faults-test", &[]).map(drop);
    match server {
        // Another worker has the name.
        Err(failure) if failure.is(ErrorKind::AddressInUse) => Ok(()),
        other => other,
    }
}

fn stale_path<A: Api>(_: &Run) -> Outcome<()> {
    let dir = TempDir::new();
    let path = dir.path("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = A::listen(&dir.endpoint("s"), &[Opt::UnixMode(0o666)])?;
    let client = A::connect(&server.endpoint(), &[Opt::ConnectTimeout(WAIT)])?;
    drop(client);
    expects(A::listen(&dir.endpoint("s"), &[]), ErrorKind::AddressInUse)?;
    server.close();
    Ok(())
}

fn several_listeners<A: Api>(_: &Run) -> Outcome<()> {
    let dir = TempDir::new();
    let endpoints = ["127.0.0.1:0", &*dir.endpoint("s")];
    let server = A::listen_all(&endpoints, &timeouts())?;
    server.set_accept_timeout(WAIT)?;
    for endpoint in server.endpoints() {
        let client = A::connect(&endpoint, &timeouts())?;
        let accepted = server.accept()?;
        client.write_all(b"a")?;
        accepted.read_exact(&mut [0; 1])?;
    }
    server.set_nonblocking(true)?;
    expects(server.accept(), ErrorKind::WouldBlock)?;
    server.close();
    Ok(())
}

/// Cancelled calls. The fault may end the call first.
fn cancelled<A: Api>(run: &Run) -> Outcome<()> {
    let token = A::token();
    let mut options = timeouts();
    options.push(Opt::Cancel(&token));
    let server = A::listen("127.0.0.1:0", &options)?;
    let client = A::connect(&server.endpoint(), &options)?;
    let accepted = server.accept()?;
    client.write_all(b"a")?;
    accepted.read_exact(&mut [0; 1])?;
    token.fire();
    for outcome in [client.read(&mut [0; 1]).map(drop), server.accept().map(drop)] {
        let failure = outcome.expect_err("a call succeeds after its token was fired");
        assert!(failure.is(ErrorKind::Cancelled) || !run.is_hidden, "{failure:?}");
    }
    token.reset();
    client.write_all(b"b")?;
    accepted.read_exact(&mut [0; 1])?;
    Ok(())
}

fn liveness<A: Api>(run: &Run) -> Outcome<()> {
    let mut options = timeouts();
    options.extend([
        Opt::DeadAfter(20_000),
        Opt::Heartbeat(b"h", 30),
        Opt::HeartbeatTimeout(10_000),
        Opt::IdleTimeout(20_000),
    ]);
    let server = A::listen("127.0.0.1:0", &timeouts())?;
    let client = A::connect(&server.endpoint(), &options)?;
    let accepted = server.accept()?;
    let mut next = client.check_liveness()?;
    thread::sleep(Duration::from_millis(40));
    for _ in 0..5 {
        next = client.check_liveness()?.min(next);
    }
    // A heartbeat follows also if the first one failed.
    let (mut buf, until) = ([0; 8], Instant::now() + SOON);
    accepted.set_read_timeout(100)?;
    loop {
        match accepted.read(&mut buf) {
            Ok(n) => {
                assert!(n > 0 && buf[..n].iter().all(|byte| *byte == b'h'));
                break;
            }
            Err(failure) if failure.is(ErrorKind::TimedOut) => drop(client.check_liveness()?),
            Err(failure) => return Err(failure),
        }
        assert!(Instant::now() < until, "no heartbeat");
    }
    expects(client.wait_hangup(30), ErrorKind::TimedOut)?;
    accepted.shutdown_write()?;
    let reason = client.wait_hangup(WAIT)?;
    assert!(reason == CloseReason::PeerClosed || !run.is_hidden, "{reason:?}");
    Ok(())
}

/// Closes in each form. The peer receives each byte.
fn closes<A: Api>(run: &Run) -> Outcome<()> {
    let mut errors = Errors::default();
    for way in 0..4 {
        let (client, mut peer) = with_raw::<A>(&[Opt::CloseTimeout(WAIT)])?;
        peer.set_read_timeout(Some(SOON)).unwrap();
        if way != 1 {
            // Unread input: a plain close(2) would reset the connection.
            peer.write_all(b"unread").unwrap();
        }
        let is_sent = errors.note(client.write_all(b"last words")).is_some();
        match way {
            0 | 1 => {
                thread::scope(|scope| {
                    let peer = peer.try_clone().unwrap();
                    scope.spawn(|| {
                        let mut peer = peer;
                        let _ = peer.read_to_end(&mut Vec::new());
                        let _ = peer.shutdown(Shutdown::Both);
                    });
                    errors.note(client.close());
                });
                drop(client);
            }
            2 => drop(client),
            _ => {
                client.abort();
                drop(client);
            }
        }
        if way == 2 {
            let mut got = Vec::new();
            let read = peer.read_to_end(&mut got);
            if run.is_hidden {
                read.unwrap();
                assert_eq!(got, b"last words");
            } else if read.is_ok() && is_sent {
                assert_eq!(got, b"last words", "end of stream without the last bytes");
            }
        }
    }
    errors.result()
}

fn with_raw<A: Api>(options: &[Opt<'_, A>]) -> Outcome<(A::Client, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = A::connect(&listener.local_addr().unwrap().to_string(), options)?;
    let (peer, _) = listener.accept().unwrap();
    Ok((client, peer))
}

/// Closes while another thread reads, or while the program holds the descriptor.
fn closes_in_use<A: Api>(run: &Run) -> Outcome<()> {
    let mut errors = Errors::default();
    for way in 0..3 {
        let (client, mut peer) = with_raw::<A>(&timeouts())?;
        peer.set_read_timeout(Some(SOON)).unwrap();
        errors.note(client.write_all(b"last"));
        match way {
            0 | 1 => thread::scope(|scope| {
                let reader = scope.spawn(|| client.read(&mut [0; 8]));
                thread::sleep(Duration::from_millis(3));
                if way == 0 {
                    // The peer does not close its side.
                    match client.close() {
                        Err(failure) if failure.is(ErrorKind::TimedOut) => {}
                        closed => drop(errors.note(closed)),
                    }
                } else {
                    client.abort();
                }
                let read = reader.join().unwrap();
                assert!(read.is_err(), "a read of a closed connection succeeds: {read:?}");
            }),
            _ => {
                errors.note(client.fd().map(drop));
                errors.note(client.set_nonblocking(true));
                errors.note(client.close());
            }
        }
        drop(client);
        if way != 1 {
            let mut got = Vec::new();
            let read = peer.read_to_end(&mut got);
            assert!(!run.is_hidden || (read.is_ok() && got == b"last"), "{read:?}: {got:?}");
        }
    }
    errors.result()
}

/// Non-blocking reads and writes, and reads of bytes that the library has buffered.
fn modes<A: Api>(_: &Run) -> Outcome<()> {
    let (client, mut peer) = with_raw::<A>(&timeouts())?;
    peer.write_all(b"one\ntwo").unwrap();
    assert_eq!(client.read_line(64)?, "one");
    let (mut buf, mut got) = ([0; 16], Vec::new());
    let seen = client.peek(&mut buf)?;
    assert!(b"two".starts_with(&buf[..seen]));
    while got.len() < 3 {
        let n = client.read(&mut buf)?;
        assert!(n > 0, "end of stream");
        got.extend_from_slice(&buf[..n]);
    }
    assert_eq!(got, b"two");
    client.set_nonblocking(true)?;
    expects(client.read(&mut buf), ErrorKind::WouldBlock)?;
    peer.write_all(b"three").unwrap();
    let (until, mut got) = (Instant::now() + SOON, Vec::new());
    while got.len() < 5 {
        match client.read(&mut buf) {
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(failure) if failure.is(ErrorKind::WouldBlock) => thread::yield_now(),
            Err(failure) => return Err(failure),
        }
        assert!(Instant::now() < until, "the bytes do not arrive");
    }
    assert_eq!(got, b"three");
    let framing = keepsock::Framing::Lines { max: 64 };
    let sent = bytes(30);
    let mut written = 0;
    while written < sent.len() {
        written += client.write(&sent[written..])?;
    }
    client.write_message(&framing, b"line")?;
    client.write_slices(&[b"", b"tail"])?;
    let mut got = [0; 39];
    peer.set_read_timeout(Some(SOON)).unwrap();
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got[..], [&sent[..], b"line\ntail"].concat());
    Ok(())
}

fn rare_options<A: Api>(run: &Run) -> Outcome<()> {
    let raw = TcpListener::bind("[::]:0").unwrap();
    let port = raw.local_addr().unwrap().port();
    let server = A::adopt_server(owned(raw), &[Opt::CloseTimeout(0), Opt::Backlog(9)])
        .map_err(|(_, failure)| failure)?;
    server.set_accept_timeout(WAIT)?;
    let raw = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let plain = [Opt::NoKeepalive, Opt::Nodelay(false), Opt::CloseTimeout(0)];
    let client = A::adopt_client(owned(raw), &plain).map_err(|(_, failure)| failure)?;
    client.set_keepalive(30_000, 5000, 3)?;
    client.set_dead_after(60_000)?;
    client.set_dead_after(INFINITE)?;
    let accepted = server.accept()?;
    client.write_all(b"a")?;
    accepted.read_exact(&mut [0; 1])?;
    // No peer can connect to a broadcast address.
    let taken = A::listen("127.255.255.255:0", &[]);
    match taken {
        Ok(_) => assert!(!run.is_hidden, "a server listens on a broadcast address"),
        Err(failure) if failure.is(ErrorKind::InvalidEndpoint) => {}
        Err(failure) => return Err(failure),
    }
    A::listen("127.0.0.1:0", &[Opt::Mptcp(true), Opt::CongestionControl("reno")])?;
    Ok(())
}

/// A reset is never an end of stream, after bytes and without bytes (I4).
fn reset_read<A: Api>(_: &Run) -> Outcome<()> {
    for data in [&b""[..], b"some bytes"] {
        let (client, mut peer) = with_raw::<A>(&timeouts())?;
        peer.write_all(data).unwrap();
        system::reset(peer);
        let mut buf = [0; 64];
        loop {
            match client.read(&mut buf) {
                Ok(0) => panic!("a reset was read as end of stream"),
                Ok(_) => {}
                Err(failure) => {
                    assert!(failure.is(ErrorKind::Reset), "{failure:?}");
                    break;
                }
            }
        }
        assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
    }
    Ok(())
}

/// One thread reads while others observe the reset (I4).
fn reset_in_two_threads<A: Api>(_: &Run) -> Outcome<()> {
    for what in 0..3 {
        let (client, peer) = with_raw::<A>(&timeouts())?;
        thread::scope(|scope| {
            let read = || {
                let read = client.read(&mut [0; 64]);
                assert!(!matches!(read, Ok(0)), "a reset was read as end of stream");
            };
            let first = scope.spawn(read);
            let client = &client;
            let second = scope.spawn(move || match what {
                0 => read(),
                1 => {
                    while client.write_all(b"x").is_ok() {
                        thread::sleep(Duration::from_micros(200));
                    }
                }
                _ => {
                    let reason = client.wait_hangup(WAIT);
                    assert_ne!(reason.ok(), Some(CloseReason::PeerClosed));
                }
            });
            thread::sleep(Duration::from_millis(2));
            system::reset(peer);
            for thread in [first, second] {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
        assert!(!matches!(client.read(&mut [0; 8]), Ok(0)), "a reset was read as end of stream");
        assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
    }
    Ok(())
}

type Reasons = Receiver<CloseReason>;

/// Callbacks that send each message back, and report close reasons.
fn echo<A: Api>() -> (On<A>, Reasons) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let on = On {
        data: Some(Box::new(|c: &A::Connection, data| drop(c.send(data)))),
        close: Some(Box::new(move |_, reason| {
            let _ = tell.lock().unwrap().send(reason);
        })),
        ..On::default()
    };
    (on, told)
}

/// An event loop reports a reset as a reset (I4).
fn reset_in_events<A: Api>(_: &Run) -> Outcome<()> {
    let server = A::listen("127.0.0.1:0", &of_events())?;
    let (mut on, reasons) = echo::<A>();
    on.finished = Some(Box::new(|c| {
        c.set_data(1);
        c.close();
    }));
    let service = server.serve_events(&[], on)?;
    for data in [&b""[..], b"some bytes"] {
        let mut peer = raw_client::<A>(&server);
        peer.write_all(b"x").unwrap();
        peer.read_exact(&mut [0; 1]).unwrap();
        peer.write_all(data).unwrap();
        if !data.is_empty() {
            peer.read_exact(&mut [0; 10]).unwrap();
        }
        system::reset(peer);
        assert_eq!(reasons.recv_timeout(SOON), Ok(CloseReason::PeerReset));
    }
    service.stop();
    service.wait(WAIT)
}

fn raw_client<A: Api>(server: &A::Server) -> TcpStream {
    let client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.set_write_timeout(Some(SOON)).unwrap();
    client
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";

fn proxy<A: Api>(_: &Run) -> Outcome<()> {
    let mut options = timeouts();
    options.push(Opt::TrustedProxy("127.0.0.0/8"));
    let server = A::listen("127.0.0.1:0", &options)?;
    server.set_accept_timeout(WAIT)?;
    let mut sending = timeouts();
    sending.push(Opt::ProxyHeader(2, None));
    let client = A::connect(&server.endpoint(), &sending)?;
    let accepted = server.accept()?;
    accepted.read_proxy_header()?;
    client.write_all(b"data\n")?;
    assert_eq!(accepted.read_line(64)?, "data");
    let mut peer = raw_client::<A>(&server);
    peer.write_all(&V1[..20]).unwrap();
    let accepted = server.accept()?;
    peer.write_all(&V1[20..]).unwrap();
    peer.write_all(b"data\n").unwrap();
    assert_eq!(accepted.read_line(64)?, "data");
    Ok(())
}

fn udp<A: Api>(run: &Run) -> Outcome<()> {
    let socket = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(WAIT)])?;
    let waits = [Opt::ReadTimeout(WAIT), Opt::WriteTimeout(WAIT)];
    let peer = A::Datagram::connect(&socket.endpoint(), &waits)?;
    let mut errors = Errors::default();
    let mut sent = Vec::new();
    for at in 0..3u8 {
        if errors.note(peer.send(&[at; 20])).is_some() {
            sent.push([at; 20].to_vec());
        }
    }
    // Different lengths: the kernel does not split one buffer.
    let batch: Vec<_> = (3..9u8).map(|at| vec![at; 20 + usize::from(at) % 3 * 7]).collect();
    let list: Vec<_> = batch.iter().map(|one| (&one[..], None)).collect();
    let mut at = 0;
    while at < list.len() {
        match peer.send_batch(&list[at..]) {
            Ok(count) => {
                assert!(count > 0);
                sent.extend(batch[at..at + count].iter().cloned());
                at += count;
            }
            Err(failure) => {
                errors.note::<()>(Err(failure));
                break;
            }
        }
    }
    let mut got = Vec::new();
    let mut tries = 0;
    while got.len() < sent.len() {
        let part = match got.len() % 2 {
            0 => socket.recv(64).map(|one| vec![one.bytes]),
            _ => socket
                .recv_batch(&[64, 64])
                .map(|list| list.into_iter().map(|one| one.bytes).collect()),
        };
        match part {
            Ok(part) => got.extend(part),
            Err(failure) => {
                errors.note::<()>(Err(failure));
                tries += 1;
                assert!(tries < 4, "datagrams are lost: {} of {}", got.len(), sent.len());
            }
        }
    }
    assert_eq!(got, sent, "datagrams");
    assert!(!run.is_hidden || sent.len() == 9);
    peer.send(b"q")?;
    let (_, info) = socket.recv_info(64)?;
    socket.reply(&info, b"answer")?;
    assert_eq!(peer.recv(64)?.bytes, b"answer");
    socket.set_recv_metadata(true)?;
    socket.set_recv_errors(true)?;
    socket.recv_error()?;
    socket.set_broadcast(true)?;
    socket.set_ttl(9)?;
    socket.set_tos(4)?;
    socket.set_dont_fragment(true)?;
    socket.join("239.1.2.3".parse().unwrap(), Some("lo"), None)?;
    socket.leave("239.1.2.3".parse().unwrap(), Some("lo"), None)?;
    socket.set_multicast_loop(true)?;
    socket.set_multicast_ttl(1)?;
    socket.set_multicast_interface("lo")?;
    peer.stats()?;
    peer.set_fail_on_refused(true)?;
    socket.close();
    A::Datagram::bind("*:0", &[Opt::UdpGro(true), Opt::Sockopt(Sockopt::ReuseAddress, 1)])?;
    errors.result()
}

fn udp_more<A: Api>(_: &Run) -> Outcome<()> {
    let waits = [Opt::ReadTimeout(WAIT), Opt::WriteTimeout(WAIT)];
    let socket = A::Datagram::bind("127.0.0.1:0", &waits)?;
    let local = [Opt::Local("127.0.0.1:0"), Opt::Interface("lo"), Opt::WriteTimeout(WAIT)];
    let peer = A::Datagram::connect(&socket.endpoint(), &local)?;
    // Equal lengths to one address: the kernel splits one buffer.
    let run = [&[1; 50][..], &[2; 50], &[3; 50]];
    let list: Vec<_> = run.iter().map(|one| (*one, None)).collect();
    let mut at = 0;
    while at < list.len() {
        at += peer.send_batch(&list[at..])?;
    }
    for one in run {
        assert_eq!(socket.recv(64)?.bytes, one);
    }
    socket.set_read_timeout(900)?;
    let other = A::Datagram::bind("127.0.0.1:0", &waits)?;
    let to = format!("127.0.0.1:{}", socket.port()).parse().unwrap();
    other.set_peer(to)?;
    other.send(b"x")?;
    assert_eq!(socket.recv(64)?.bytes, b"x");
    other.send_by(b"y", to, 1)?;
    assert_eq!(socket.peek(64)?.bytes, b"y");
    let two = A::Datagram::bind("[::]:0", &[Opt::Sockopt(Sockopt::ReuseAddress, 1)])?;
    two.set_ttl(7)?;
    two.set_multicast_ttl(3)?;
    two.sockopt(Sockopt::ReuseAddress)?;
    let from = Some("127.0.0.1".parse().unwrap());
    let group = "232.1.2.3".parse().unwrap();
    two.close();
    socket.join(group, Some("lo"), from)?;
    socket.leave(group, Some("lo"), from)?;
    let raw = UdpSocket::bind("[::1]:0").unwrap();
    A::Datagram::adopt(owned(raw), &[]).map_err(|(_, failure)| failure)?.release()?;
    Ok(())
}

fn unix_datagrams<A: Api>(_: &Run) -> Outcome<()> {
    let dir = TempDir::new();
    let waits = [Opt::ReadTimeout(WAIT), Opt::WriteTimeout(WAIT)];
    let socket = A::Datagram::bind(&dir.endpoint("a"), &waits)?;
    let peer = A::Datagram::connect(&dir.endpoint("a"), &waits)?;
    peer.send(b"one")?;
    let (_, info) = socket.recv_info(64)?;
    socket.reply(&info, b"two")?;
    assert_eq!(peer.recv(64)?.bytes, b"two");
    let file = system::blank_file(1);
    peer.send_fds(b"three", None, &[file.as_raw_fd()])?;
    let (_, passed) = socket.recv_fds(64, 2)?;
    assert_eq!((&*passed.bytes, passed.fds.len()), (&b"three"[..], 1));
    socket.set_recv_metadata(true)?;
    socket.set_nonblocking(true)?;
    expects(socket.recv(64), ErrorKind::WouldBlock)?;
    socket.close();
    // The receiver was restarted.
    let again = A::Datagram::bind(&dir.endpoint("a"), &waits)?;
    peer.send(b"four")?;
    assert_eq!(again.recv(64)?.bytes, b"four");
    let bound = A::Datagram::bind(&dir.endpoint("b"), &waits)?;
    bound.set_peer_endpoint(&dir.endpoint("a"))?;
    bound.send(b"five")?;
    assert_eq!(again.recv(64)?.bytes, b"five");
    Ok(())
}

/// No error of one datagram ends the service (D2, E4).
fn datagram_service<A: Api>(run: &Run) -> Outcome<()> {
    let socket = A::Datagram::bind("127.0.0.1:0", &[])?;
    let service = socket.serve(2, Box::new(|reply, got| drop(reply(&got.bytes))))?;
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let to = ("127.0.0.1", socket.port());
    let asks = |least: usize| {
        let mut answered = 0;
        for _ in 0..12 {
            peer.send_to(b"ping", to).unwrap();
            answered += usize::from(peer.recv(&mut [0; 9]).is_ok());
            if answered >= least {
                return true;
            }
        }
        false
    };
    asks(3);
    run.over();
    assert!(asks(1), "the datagram service no longer answers");
    expects(service.wait(0), ErrorKind::TimedOut)?;
    service.stop();
    service.wait(WAIT)
}

enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Raw {
    fn connect(endpoint: &str) -> Raw {
        let waits = Some(SOON);
        match endpoint.strip_prefix("unix:") {
            Some(path) => {
                let client = UnixStream::connect(path).unwrap();
                client.set_read_timeout(waits).unwrap();
                Raw::Unix(client)
            }
            None => {
                let client = TcpStream::connect(endpoint).unwrap();
                client.set_read_timeout(waits).unwrap();
                Raw::Tcp(client)
            }
        }
    }

    /// Sends, and reads the answer until it is complete, or the stream ends. Returns the answer.
    fn ask(&mut self, data: &[u8]) -> Vec<u8> {
        let mut got = Vec::new();
        let mut buf = [0; 4096];
        let stream: &mut dyn ReadWrite = match self {
            Raw::Tcp(stream) => stream,
            Raw::Unix(stream) => stream,
        };
        if stream.write_all(data).is_err() {
            return got;
        }
        while got.len() < data.len() {
            match stream.read(&mut buf) {
                Ok(n) if n > 0 => got.extend_from_slice(&buf[..n]),
                _ => break,
            }
        }
        got
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// The service continues after each fault, and no byte is lost or repeated (L3, E4, I7).
fn service<A: Api>(run: &Run, events: bool, transport: Transport) -> Outcome<()> {
    let (endpoint, _dir) = somewhere(transport);
    let options = if events { of_events() } else { timeouts() };
    let server = A::listen(&endpoint, &options)?;
    let (on, _reasons) = echo::<A>();
    let service = if events {
        server.serve_events(&[Serve::Threads(1)], on)?
    } else {
        let handler = |client: &A::Client| {
            let mut buf = [0; 4096];
            let mut tries = 0;
            loop {
                match client.read(&mut buf) {
                    Ok(n) if n > 0 => {
                        if client.write_all(&buf[..n]).is_err() {
                            client.abort();
                            return;
                        }
                    }
                    Err(failure) if !is_ended(&failure) && tries < 3 => tries += 1,
                    _ => return,
                }
            }
        };
        server.serve(&[Serve::Max(8)], Box::new(handler))?
    };
    let data = bytes(9000);
    for _ in 0..2 {
        let mut client = Raw::connect(&server.endpoint());
        for part in [&data[..10], &data[..]] {
            let got = client.ask(part);
            assert!(part.starts_with(&got), "an answer differs");
            assert!(!run.is_hidden || got == part, "{} of {} bytes", got.len(), part.len());
        }
    }
    run.over();
    // A pause after an error of accept4(2) is at most 50 ms.
    let mut client = Raw::connect(&server.endpoint());
    assert_eq!(client.ask(&data), data, "the service does not answer a new client");
    drop(client);
    expects(service.wait_stopped(0), ErrorKind::TimedOut)?;
    service.stats();
    service.drain(WAIT)?;
    service.wait(WAIT)
}

/// Messages to all clients, in order (V3).
fn push<A: Api>(run: &Run) -> Outcome<()> {
    const MESSAGES: usize = 30;
    let server = A::listen("127.0.0.1:0", &of_events())?;
    let (opened, open) = channel();
    let opened = Mutex::new(opened);
    let (mut on, _reasons) = echo::<A>();
    on.open = Some(Box::new(move |c| {
        drop(c.join("all"));
        drop(opened.lock().unwrap().send(c.clone()));
    }));
    let service = server.serve_events(&[Serve::Threads(2)], on)?;
    let ticks = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = ticks.clone();
    let timer = service.add_timer(
        5,
        5,
        Box::new(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }),
    )?;
    let mut clients: Vec<_> = (0..3).map(|_| raw_client::<A>(&server)).collect();
    let mut conns = Vec::new();
    for _ in &clients {
        conns.extend(open.recv_timeout(Duration::from_millis(500)));
    }
    let mut all = Vec::new();
    for at in 0..MESSAGES {
        let message = [at as u8; 700];
        service.push((at % 2 == 0).then_some("all"), &message)?;
        all.extend_from_slice(&message);
    }
    for conn in &conns {
        conn.post(Box::new(|c| drop(c.send(b"end")))).ok();
    }
    all.extend_from_slice(b"end");
    for client in &mut clients {
        let mut got = vec![0; all.len()];
        let mut len = 0;
        if !run.is_hidden {
            client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        }
        while len < got.len() {
            match client.read(&mut got[len..]) {
                Ok(n) if n > 0 => len += n,
                _ => break,
            }
        }
        let is_complete = got == all;
        assert!(!run.is_hidden || is_complete, "{len} of {} bytes", all.len());
        let numbered = &got[..len.min(MESSAGES * 700)];
        assert!(numbered.windows(2).all(|pair| pair[0] <= pair[1] || pair[1] >= 100), "order");
    }
    run.over();
    eventually("a timer of the service", || ticks.load(std::sync::atomic::Ordering::Relaxed) > 1);
    service.remove_timer(timer)?;
    let mut late = raw_client::<A>(&server);
    late.write_all(b"x").unwrap();
    late.read_exact(&mut [0; 1]).expect("the service does not answer a new client");
    service.dump();
    drop(clients);
    drop(late);
    service.drain(WAIT)?;
    service.wait(WAIT)
}

/// Connections that a service opens, once and again and again.
fn service_connects<A: Api>(run: &Run) -> Outcome<()> {
    let raw = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = raw.local_addr().unwrap().to_string();
    let server = A::listen("127.0.0.1:0", &of_events())?;
    let (ended, ends) = channel();
    let (tell, failed) = (Mutex::new(ended.clone()), Mutex::new(ended));
    let (mut on, _reasons) = echo::<A>();
    on.open = Some(Box::new(move |c| {
        drop(c.send(b"hello"));
        let _ = tell.lock().unwrap().send(true);
    }));
    on.connect_failed = Some(Box::new(move |_, _| {
        let _ = failed.lock().unwrap().send(false);
    }));
    let service = server.serve_events(&[], on)?;
    let mut errors = Errors::default();
    let mut asked = 0;
    asked += usize::from(errors.note(service.connect(&target, &connecting(), 1)).is_some());
    let by_name = format!("localhost:{}", raw.local_addr().unwrap().port());
    let mut ipv4 = connecting();
    ipv4.push(Opt::Family(keepsock::Family::Ipv4));
    asked += usize::from(errors.note(service.connect(&by_name, &ipv4, 2)).is_some());
    let mut again = A::reconnect(&target, &connecting())?;
    again.set_backoff(1, 5)?;
    let given = service.reconnect(again, 3).map_err(|(_, failure)| failure);
    let reconnects = errors.note(given).is_some();
    asked += usize::from(reconnects);
    for _ in 0..asked {
        let opened = ends.recv_timeout(SOON).expect("a connect ends with neither result");
        assert!(opened || !run.is_hidden);
    }
    if let Ok(client) = A::connect(&target, &connecting()) {
        let given = service.add(client, 4).map_err(|(_, failure)| failure);
        if errors.note(given).is_some() {
            ends.recv_timeout(SOON).expect("an added client is not opened");
        }
    }
    run.over();
    let mut client = raw_client::<A>(&server);
    client.write_all(b"x").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).expect("the service does not answer a new client");
    assert_eq!(&answer, b"hellox");
    drop((client, raw));
    service.stop();
    service.wait(WAIT)?;
    errors.result()
}

/// Queued messages, messages in parts, a half-close, and heartbeats of a service (V3, K5).
fn events_more<A: Api>(run: &Run) -> Outcome<()> {
    const MESSAGES: usize = 60;
    let mut options = of_events();
    options.extend([
        Opt::Sockopt(Sockopt::SendBuffer, 5000),
        Opt::DeadAfter(60_000),
        Opt::IdleTimeout(20_000),
    ]);
    let server = A::listen("127.0.0.1:0", &options)?;
    let (opened, open) = channel();
    let opened = Mutex::new(opened);
    let (mut on, _reasons) = echo::<A>();
    on.open = Some(Box::new(move |c| drop(opened.lock().unwrap().send(c.clone()))));
    on.data = Some(Box::new(|c: &A::Connection, _| {
        let _ = c.five_tuple();
        for at in 0..MESSAGES {
            let message = [at as u8; 3000];
            if c.send_slices(&[&message[..1000], &message[1000..]]).is_err() {
                return c.abort();
            }
        }
        c.shutdown_write();
    }));
    on.finished = Some(Box::new(|c: &A::Connection| c.close()));
    let service = server.serve_events(&[Serve::Cpus(&[0])], on)?;
    let all: Vec<u8> = (0..MESSAGES).flat_map(|at| [at as u8; 3000]).collect();
    let ask = |registered: bool| {
        let mut client = raw_client::<A>(&server);
        // A posted function runs after the loop has registered the connection.
        let conn = open.recv_timeout(Duration::from_millis(500));
        if let (true, Ok(conn)) = (registered, conn) {
            let (tell, told) = channel();
            if conn
                .post(Box::new(move |_| {
                    let _ = tell.send(());
                }))
                .is_ok()
            {
                let _ = told.recv_timeout(SOON);
            }
        }
        let mut got = Vec::new();
        // The queue of the connection fills first.
        let sent = client.write_all(b"all");
        thread::sleep(Duration::from_millis(2));
        let read = sent.and_then(|()| client.read_to_end(&mut got));
        assert!(all.starts_with(&got), "the messages differ");
        read.is_ok() && got == all
    };
    let is_complete = ask(true);
    assert!(is_complete || !run.is_hidden, "messages are lost");
    run.over();
    assert!(ask(false), "the service does not answer a new client");
    service.drain(WAIT)?;
    service.wait(WAIT)
}

fn service_proxy<A: Api>(run: &Run) -> Outcome<()> {
    let mut options = of_events();
    options.extend([Opt::TrustedProxy("127.0.0.0/8"), Opt::ProxyTimeout(1000)]);
    let server = A::listen("127.0.0.1:0", &options)?;
    let (on, _reasons) = echo::<A>();
    let service = server.serve_events(&[], on)?;
    let ask = || {
        let mut client = raw_client::<A>(&server);
        let mut answer = [0; 5];
        let sent = client.write_all(&V1[..9]).and_then(|()| {
            client.write_all(&V1[9..])?;
            client.write_all(b"data\n")
        });
        let is_echo = sent.and_then(|()| client.read_exact(&mut answer)).is_ok();
        assert!(!is_echo || &answer == b"data\n", "an answer differs");
        is_echo
    };
    let is_echo = ask();
    assert!(is_echo || !run.is_hidden, "no answer");
    run.over();
    assert!(ask(), "the service does not answer a new client");
    service.stop();
    service.wait(WAIT)
}

/// A file from an event loop, longer than the buffers of the kernel (I5).
fn service_file<A: Api>(run: &Run) -> Outcome<()> {
    const LEN: usize = 300_000;
    let content = bytes(LEN);
    let file = system::blank_file(0);
    (&file).write_all(&content).unwrap();
    let mut options = of_events();
    // Less than the file, so the event loop waits for space.
    options.push(Opt::Sockopt(Sockopt::SendBuffer, 20_000));
    let server = A::listen("127.0.0.1:0", &options)?;
    let (mut on, _reasons) = echo::<A>();
    let number = file.as_raw_fd();
    on.data = Some(Box::new(move |c, _| {
        if c.send(b"head").and_then(|()| c.send_file(number, 0, u64::MAX)).is_err() {
            c.abort();
        } else {
            c.shutdown_write();
        }
    }));
    let service = server.serve_events(&[], on)?;
    let ask = || {
        let mut client = raw_client::<A>(&server);
        let mut got = Vec::new();
        let read = client.write_all(b"get").and_then(|()| client.read_to_end(&mut got));
        let start = got.len().min(4);
        assert_eq!(&got[..start], &b"head"[..start]);
        assert!(content.starts_with(&got[start..]), "the file differs");
        read.is_ok() && got.len() == LEN + 4
    };
    let is_whole = ask();
    assert!(is_whole || !run.is_hidden, "the file is not complete");
    run.over();
    assert!(ask(), "the service does not answer a new client");
    service.stop();
    service.wait(WAIT)
}

/// A successor that ends at once, and one that does not exist: the listener stays usable.
fn handover<A: Api>(_: &Run) -> Outcome<()> {
    let mut options = timeouts();
    options.push(Opt::Handover(true));
    let server = A::listen("127.0.0.1:0", &options)?;
    server.set_accept_timeout(WAIT)?;
    for program in ["false", "/nonexistent/program"] {
        let handed = [("s", Handed::Server(&server))];
        let outcome = A::Activation::handover(Some(&[program]), &handed, WAIT, None);
        outcome.expect_err("a successor that ends is no success");
    }
    let client = A::connect(&server.endpoint(), &timeouts())?;
    let accepted = server.accept()?;
    client.write_all(b"a")?;
    accepted.read_exact(&mut [0; 1])?;
    Ok(())
}

/// The saved SYN and a captured handshake. Without the right to capture, only the former.
fn diagnostics<A: Handshakes>(_: &Run) -> Outcome<()> {
    let server = A::listen("127.0.0.1:0", &[Opt::SaveSyn(true), Opt::CloseTimeout(0)])?;
    server.set_accept_timeout(WAIT)?;
    let is_root = system::is_root();
    let capture = if is_root { Some(A::capture(server.port())?) } else { None };
    let client = A::connect(&server.endpoint(), &timeouts())?;
    let accepted = server.accept()?;
    A::syn(&accepted)?;
    if let Some(capture) = capture {
        A::handshake(&capture, &client, WAIT)?;
    }
    Ok(())
}
