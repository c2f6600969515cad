//! Full descriptor tables, resets by peers at each stage, and the files of Unix sockets of several
//! processes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{limits, process, system, timing, watch};
use keepsock::{
    CancelToken, ClientSocket, Connection, DatagramSocket, Endpoint, ErrorKind, ServeOptions,
    ServerSocket, SocketOptions,
};

use crate::support::netns::row;
use crate::support::process::{Helper, in_process};
use crate::support::timing::{assert_within, ms, seconds};

const LIMIT: Duration = Duration::from_secs(40);
/// Accepting resumes within this time after a descriptor becomes free (L4).
const RESUMES: Duration = Duration::from_millis(100);
/// The process has no free descriptor for this time.
const STARVED: Duration = Duration::from_secs(3);
/// Accepting may use this processor time without descriptors: 5 % (L4).
const CPU: Duration = Duration::from_millis(150);

// ---- without descriptors (L4) --------------------------------------------------------------

/// Descriptors that fill the process's table.
struct Hoard(Vec<fs::File>);

impl Hoard {
    fn fill() -> Hoard {
        let mut all = Vec::new();
        loop {
            match fs::File::open("/dev/null") {
                Ok(file) => all.push(file),
                Err(e) => {
                    assert_eq!(e.raw_os_error(), Some(libc::EMFILE));
                    return Hoard(all);
                }
            }
        }
    }

    fn free_one(&mut self) {
        assert!(self.0.pop().is_some());
    }
}

/// The processor time during [`STARVED`], in which `events` must deliver no event.
fn cpu_while_starved<T>(events: &mpsc::Receiver<T>) -> Duration {
    let before = watch::cpu_time();
    assert!(events.recv_timeout(STARVED).is_err(), "a descriptor was free");
    let used = watch::cpu_time() - before;
    println!("{used:?} of processor time in {STARVED:?}");
    used
}

/// The control case: prints the processor time of a plain loop of accept(2).
fn assert_a_plain_loop_spins(listener: &TcpListener, errno: i32) -> String {
    let before = watch::cpu_time();
    let until = Instant::now() + ms(300);
    let mut tries = 0;
    while Instant::now() < until {
        assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(errno));
        tries += 1;
    }
    let used = watch::cpu_time() - before;
    println!("a plain loop: {tries} tries and {used:?} of processor time in 300 ms");
    // The number of attempts instead of the time: other processes may use the processor.
    assert!(tries > 1000, "the control case does not spin: {tries} tries");
    format!("plain loop: {} % CPU", used.as_millis() / 3)
}

/// The processor time as a share of [`STARVED`].
fn share(used: Duration) -> String {
    format!("{:.1} % CPU", 100.0 * used.as_secs_f64() / STARVED.as_secs_f64())
}

/// How often [`assert_resumes`] frees a descriptor: the number of clients that must wait for one.
const FREED: usize = 20;

/// Checks the number of attempts to accept in that time. The pauses between them grow to 50 ms, and on a
/// busy machine they are longer.
fn assert_pauses(tries: u64, time: Duration) {
    println!("{tries} tries in {time:?}");
    let most = 20 + time.as_millis() / 50;
    assert!(tries >= 10 && u128::from(tries) <= most, "{tries} tries in {time:?}");
}

/// Frees a descriptor five times, each time after the pauses between the attempts have reached
/// their maximum. One of the five may be late because of the machine. Returns the longest time of
/// the others. On a busy machine the measurement is repeated, up to [`FREED`] times in all.
pub fn assert_resumes(mut free: impl FnMut() -> Duration) -> Duration {
    let mut all = Vec::new();
    while all.len() < FREED {
        let mut times = [(); 5].map(|()| free());
        println!("resumed after {times:?}");
        times.sort();
        if times[3] <= RESUMES {
            return times[3];
        }
        all.extend(times);
    }
    panic!("resumed after {all:?}");
}

fn accept_survives(test: &str, asked: &str, listen: impl FnOnce() -> ServerSocket) {
    in_process(&test_name!(test), LIMIT, || {
        limits::limit_descriptors(128);
        let server = listen();
        let to = server.endpoint().to_string();
        // The clients wait in the listen queue, which needs no descriptor of the server.
        let _clients: Vec<_> = (0..=FREED).map(|_| TcpStream::connect(&to).unwrap()).collect();
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hoard = Hoard::fill();
        let control = assert_a_plain_loop_spins(&plain, libc::EMFILE);

        thread::scope(|scope| {
            let (send, accepted) = mpsc::channel();
            let server = &server;
            scope.spawn(move || {
                for _ in 0..=FREED {
                    // The test does not receive the last ones.
                    let _ = send.send((server.accept().unwrap(), Instant::now()));
                }
            });
            let used = assert_within(CPU, || {
                let (before, start) = (server.stats().exhausted, Instant::now());
                let used = cpu_while_starved(&accepted);
                assert_pauses(server.stats().exhausted - before, start.elapsed());
                used
            });
            assert_eq!(server.stats().accepted, 0);

            let mut held = Vec::new();
            let resumed = assert_resumes(|| {
                assert!(accepted.recv_timeout(ms(200)).is_err());
                let freed = Instant::now();
                hoard.free_one();
                let (client, at) = accepted.recv_timeout(Duration::from_secs(30)).unwrap();
                held.push(client);
                at.saturating_duration_since(freed)
            });
            let measured = format!("{}, resumes in {}", share(used), seconds(resumed));
            row("L4 no free descriptor", asked, measured, &control);
            // The descriptor of a closed connection is also reused.
            assert!(accepted.recv_timeout(ms(200)).is_err());
            drop(held.pop());
            accepted.recv_timeout(Duration::from_secs(30)).unwrap();
            drop(hoard);
        });
        assert_eq!(server.stats().accepted, FREED as u64 + 1);
    });
}

/// L4: an accept that waits in the kernel resumes when a descriptor becomes free.
#[test]
fn accept_waits_when_out_of_descriptors() {
    accept_survives("accept_waits_when_out_of_descriptors", "accept", || {
        ServerSocket::listen("127.0.0.1:0").unwrap()
    });
}

/// L4: an accept that waits in poll resumes, although poll always reports the listener as readable.
#[test]
fn accept_with_timeout_waits_for_descriptors() {
    accept_survives("accept_with_timeout_waits_for_descriptors", "accept with a timeout", || {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        server.set_accept_timeout(Duration::from_secs(20)).unwrap();
        server
    });
}

/// L2, L4: an accept on several listeners resumes, although one of them is always readable.
#[test]
fn accept_on_several_listeners_waits_for_descriptors() {
    accept_survives(
        "accept_on_several_listeners_waits_for_descriptors",
        "accept on three endpoints",
        || {
            let endpoints = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"];
            ServerSocket::listen_all(endpoints, &SocketOptions::new()).unwrap()
        },
    );
}

/// L4, C1: the accept timeout applies without descriptors, and a close and a cancel end the accept.
#[test]
fn accept_without_descriptors_obeys_timeout_close_and_cancel() {
    in_process(
        &test_name!("accept_without_descriptors_obeys_timeout_close_and_cancel"),
        LIMIT,
        || {
            limits::limit_descriptors(64);
            let server = ServerSocket::listen("127.0.0.1:0").unwrap();
            let token = keepsock::CancelToken::new().unwrap();
            server.set_cancel(Some(&token)).unwrap();
            let _client = TcpStream::connect(server.endpoint().to_string()).unwrap();
            let _hoard = Hoard::fill();
            server.set_accept_timeout(ms(300)).unwrap();
            timing::assert_on_time(ms(300), || {
                let start = Instant::now();
                assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::TimedOut);
                start.elapsed()
            });
            server.set_accept_timeout(None).unwrap();

            type End<'a> = &'a dyn Fn();
            let fire: End = &|| token.fire();
            let close: End = &|| server.close();
            let ends_accept = |end: End, kind| {
                let tries = server.stats().exhausted;
                let late = thread::scope(|scope| {
                    let call =
                        scope.spawn(|| (server.accept().unwrap_err().kind(), Instant::now()));
                    watch::await_that("it tries", || server.stats().exhausted > tries);
                    let start = Instant::now();
                    end();
                    let (got, back) = call.join().unwrap();
                    assert_eq!(got, kind);
                    back.saturating_duration_since(start)
                });
                token.reset();
                late
            };
            assert_within(ms(150), || ends_accept(fire, ErrorKind::Cancelled));
            ends_accept(close, ErrorKind::Closed);
        },
    );
}

/// L4: in non-blocking mode accept does not wait and returns the reason.
#[test]
fn nonblocking_accept_without_descriptors_fails() {
    in_process(&test_name!("nonblocking_accept_without_descriptors_fails"), LIMIT, || {
        limits::limit_descriptors(64);
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let _client = TcpStream::connect(server.endpoint().to_string()).unwrap();
        let hoard = Hoard::fill();
        let err = server.accept().unwrap_err();
        assert_eq!((err.kind(), err.os_error()), (ErrorKind::NoDescriptors, Some(libc::EMFILE)));
        drop(hoard);
        server.accept().unwrap();
    });
}

/// E1: connect and listen without a free descriptor fail with that reason.
#[test]
fn connect_without_descriptors_reports_the_cause() {
    in_process(&test_name!("connect_without_descriptors_reports_the_cause"), LIMIT, || {
        limits::limit_descriptors(64);
        let dir = Folder::new("full");
        let hoard = Hoard::fill();
        let unix = format!("unix:{}", dir.path("socket").display());
        for endpoint in ["127.0.0.1:1", unix.as_str(), "localhost:1"] {
            let err = ClientSocket::connect(endpoint).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::NoDescriptors, "{err}");
            assert_eq!((err.operation(), err.os_error()), ("connect", Some(libc::EMFILE)));
            let err = ServerSocket::listen(endpoint).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::NoDescriptors, "{err}");
            assert_eq!((err.operation(), err.os_error()), ("listen", Some(libc::EMFILE)));
            assert_eq!(err.endpoint(), endpoint);
        }
        assert_eq!(keepsock::CancelToken::new().unwrap_err().kind(), ErrorKind::NoDescriptors);
        drop(hoard);
    });
}

/// L4: a service waits for descriptors, and then serves the clients that waited.
#[test]
fn serve_waits_when_out_of_descriptors() {
    in_process(&test_name!("serve_waits_when_out_of_descriptors"), LIMIT, || {
        limits::limit_descriptors(128);
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let to = server.endpoint().to_string();
        let (send, served) = mpsc::channel();
        let service = server
            .serve(move |client| {
                let _ = send.send(Instant::now());
                let _ = client.write_all(b"hello\n");
                let _ = client.wait_hangup(None);
            })
            .unwrap();
        // Some connections came and ended before, so that several workers are idle.
        let mut first: Vec<_> = (0..4).map(|_| TcpStream::connect(&to).unwrap()).collect();
        for client in &mut first {
            served.recv_timeout(Duration::from_secs(30)).unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
        }
        drop(first);
        watch::await_that("all connections are closed", || service.stats().connections == 0);

        // The clients connect when the table is full. Their own descriptors are already open.
        const CLIENTS: usize = FREED + 8;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None))
            .collect();
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hoard = Hoard::fill();
        let control = assert_a_plain_loop_spins(&plain, libc::EMFILE);
        let server_address: SocketAddr = to.parse().unwrap();
        let mut clients: Vec<_> = clients
            .into_iter()
            .map(|socket| {
                let socket = socket.unwrap();
                socket.connect(&server_address.into()).unwrap();
                TcpStream::from(socket)
            })
            .collect();
        // A worker that waits in accept already has its descriptor: these clients are served.
        while served.recv_timeout(ms(200)).is_ok() {}
        let before = server.stats();
        let used = assert_within(CPU, || cpu_while_starved(&served));
        let after = server.stats();
        assert!(after.exhausted > before.exhausted);
        println!("{after:?}");
        assert!(after.accepted <= 12, "clients have a descriptor: {after:?}");

        let resumed = assert_resumes(|| {
            assert!(served.recv_timeout(ms(200)).is_err());
            let freed = Instant::now();
            hoard.free_one();
            let at = served.recv_timeout(Duration::from_secs(30)).unwrap();
            at.saturating_duration_since(freed)
        });
        let measured = format!("{}, resumes in {}", share(used), seconds(resumed));
        row("L4 no free descriptor", "serve", measured, &control);
        drop(hoard);
        for client in &mut clients {
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut line = [0; 6];
            client.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"hello\n");
        }
        assert_eq!(server.stats().accepted, CLIENTS as u64 + 4);
    });
}

/// L4: an event-driven service waits for descriptors, and serves its clients in the meantime.
#[test]
fn serve_events_waits_when_out_of_descriptors() {
    in_process(&test_name!("serve_events_waits_when_out_of_descriptors"), LIMIT, || {
        limits::limit_descriptors(128);
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let to: SocketAddr = server.endpoint().to_string().parse().unwrap();
        let service = server
            .serve_events(&ServeOptions::new(), |connection: &Connection, data: &[u8]| {
                let _ = connection.send(data);
            })
            .unwrap();
        let echo = |client: &mut TcpStream| {
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            client.write_all(b"hello\n").unwrap();
            let mut line = [0; 6];
            client.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"hello\n");
        };
        let mut first: Vec<_> = (0..4).map(|_| TcpStream::connect(to).unwrap()).collect();
        first.iter_mut().for_each(echo);
        // The clients connect when the table is full. Their own descriptors are already open.
        let clients: Vec<_> = (0..FREED + 4)
            .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None))
            .collect();
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hoard = Hoard::fill();
        let control = assert_a_plain_loop_spins(&plain, libc::EMFILE);
        let mut clients: Vec<_> = clients
            .into_iter()
            .map(|socket| {
                let socket = socket.unwrap();
                socket.connect(&to.into()).unwrap();
                TcpStream::from(socket)
            })
            .collect();
        let (_nobody_tells, nothing) = mpsc::channel::<()>();
        let used = assert_within(CPU, || {
            let (before, tries, start) =
                (watch::cpu_time(), server.stats().exhausted, Instant::now());
            for _ in 0..10 {
                first.iter_mut().for_each(echo);
                assert!(nothing.recv_timeout(STARVED / 10).is_err());
            }
            let used = watch::cpu_time() - before;
            assert_pauses(server.stats().exhausted - tries, start.elapsed());
            used
        });
        assert_eq!(service.stats().opened, 4, "a descriptor was free");

        let mut opened = 4;
        let resumed = assert_resumes(|| {
            assert!(nothing.recv_timeout(ms(200)).is_err());
            let freed = Instant::now();
            hoard.free_one();
            opened += 1;
            watch::await_that("it accepts", || service.stats().opened == opened);
            freed.elapsed()
        });
        let measured = format!("{}, resumes in {}", share(used), seconds(resumed));
        row("L4 no free descriptor", "serve_events", measured, &control);
        // A connection that closes frees its descriptor for the next one.
        first[0].shutdown(std::net::Shutdown::Write).unwrap();
        watch::await_that("it accepts", || service.stats().opened == opened + 1);
        drop(hoard);
        clients.iter_mut().for_each(echo);
    });
}

// ---- accept(2) that always fails (L3) ---------------------------------------------------------

/// L3: a recurring error that normally concerns one connection (a sandbox that forbids the call
/// causes EPERM) does not keep the processor busy. The accept timeout applies, and a close ends the
/// accept.
#[test]
fn accept_that_always_fails_uses_no_processor() {
    in_process(&test_name!("accept_that_always_fails_uses_no_processor"), LIMIT, || {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(server.endpoint().to_string()).unwrap();
        thread::scope(|scope| {
            let (send, result) = mpsc::channel();
            let server = &server;
            let control = scope.spawn(|| {
                limits::forbid(libc::SYS_accept4, None, libc::EPERM);
                let plain = TcpListener::bind("127.0.0.1:0").unwrap();
                assert_a_plain_loop_spins(&plain, libc::EPERM)
            });
            let control = control.join().unwrap();
            scope.spawn(move || {
                limits::forbid(libc::SYS_accept4, None, libc::EPERM);
                send.send(server.accept().map(|_| ()).map_err(|e| e.kind())).unwrap();
            });
            let used = assert_within(CPU, || {
                let before = watch::cpu_time();
                assert!(result.recv_timeout(STARVED).is_err());
                watch::cpu_time() - before
            });
            println!("{used:?} in {STARVED:?}, {:?}", server.stats());
            assert!(server.stats().retried > 10);
            server.close();
            let ended = result.recv_timeout(Duration::from_secs(30)).unwrap();
            assert_eq!(ended, Err(ErrorKind::Closed));
            row("L3 accept4 always fails (EPERM)", "accept", share(used), &control);
        });
        // With a timeout.
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(server.endpoint().to_string()).unwrap();
        server.set_accept_timeout(ms(300)).unwrap();
        let call = thread::spawn(move || {
            limits::forbid(libc::SYS_accept4, None, libc::EPERM);
            timing::assert_on_time(ms(300), || {
                let start = Instant::now();
                assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::TimedOut);
                start.elapsed()
            });
            // In non-blocking mode the caller waits, and finds the error's number.
            server.set_nonblocking(true).unwrap();
            let err = server.accept().unwrap_err();
            assert_eq!((err.kind(), err.os_error()), (ErrorKind::WouldBlock, Some(libc::EPERM)));
        });
        call.join().unwrap();
    });
}

// ---- peers that reset (L3) ----------------------------------------------------------------

/// Sends RST.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// L3: clients that reset before they are accepted do not disturb the server.
#[test]
fn accept_after_client_resets_serves_the_next() {
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    server.set_accept_timeout(Duration::from_secs(5)).unwrap();
    let to = server.endpoint().to_string();
    for _ in 0..3 {
        reset(TcpStream::connect(&to).unwrap());
    }
    let mut good = TcpStream::connect(&to).unwrap();
    good.write_all(b"good\n").unwrap();
    let name = keepsock::Address::from(good.local_addr().unwrap());
    let mut resets = 0;
    let served = loop {
        let client = server.accept().unwrap();
        if client.five_tuple().remote == name {
            break client;
        }
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::Reset);
        resets += 1;
    };
    assert!(resets <= 3);
    assert_eq!(served.read_line(100).unwrap(), "good");
}

/// L3: a service continues after clients that reset.
#[test]
fn serve_after_client_resets_continues() {
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    let to = server.endpoint().to_string();
    for _ in 0..20 {
        reset(TcpStream::connect(&to).unwrap());
    }
    let service = server
        .serve(|client| {
            while let Ok(line) = client.read_line(100) {
                let _ = client.write_all(format!("{line}!\n").as_bytes());
            }
        })
        .unwrap();
    for _ in 0..20 {
        reset(TcpStream::connect(&to).unwrap());
    }
    let options = SocketOptions::new().read_timeout(Duration::from_secs(5));
    let client = ClientSocket::connect_with(to.as_str(), &options).unwrap();
    client.write_all(b"hello\n").unwrap();
    assert_eq!(client.read_line(100).unwrap(), "hello!");
    client.close().unwrap();
    // A drain also counts the connections whose handlers have not yet found the reset.
    watch::await_that("all connections are closed", || service.stats().connections == 0);
    let drained = service.drain(Duration::from_secs(5)).unwrap();
    assert_eq!(drained.reset, 0);
}

fn pair() -> (ClientSocket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let options = SocketOptions::new()
        .read_timeout(Duration::from_secs(10))
        .write_timeout(Duration::from_secs(10));
    let client = ClientSocket::connect_with(to.as_str(), &options).unwrap();
    (client, listener.accept().unwrap().0)
}

/// L3: after a peer's reset during a read, the received bytes are counted and kept, and every later
/// call reports the reset.
#[test]
fn read_during_reset_keeps_received_bytes() {
    let (client, mut peer) = pair();
    thread::scope(|scope| {
        let (send, thread) = mpsc::channel();
        let client = &client;
        let call = scope.spawn(move || {
            send.send(watch::thread_id()).unwrap();
            client.read_exact(&mut [0; 100]).unwrap_err()
        });
        peer.write_all(b"part").unwrap();
        // After a partial read the call waits in poll for the rest of its time.
        watch::await_blocked(thread.recv().unwrap(), system::POLL);
        reset(peer);
        let err = call.join().unwrap();
        assert_eq!((err.kind(), err.os_error()), (ErrorKind::Reset, Some(libc::ECONNRESET)));
        assert_eq!(err.transferred(), 4, "{err}");
        let mut kept = [0; 4];
        client.read_exact(&mut kept).unwrap();
        assert_eq!(&kept, b"part");
    });
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::Reset);
    assert_eq!(client.write_all(b"x").unwrap_err().kind(), ErrorKind::Reset);
    // The failed write reported the loss, and the kernel accepted no byte before.
    client.close().unwrap();
}

/// L3: a write during a peer's reset reports the reset.
#[test]
fn write_during_reset_reports_it() {
    let (client, peer) = pair();
    let much = vec![b'x'; 64 << 20];
    thread::scope(|scope| {
        let (send, thread) = mpsc::channel();
        let (client, much) = (&client, &much);
        let call = scope.spawn(move || {
            send.send(watch::thread_id()).unwrap();
            client.write_all(much).unwrap_err()
        });
        let id = thread.recv().unwrap();
        watch::await_blocked(id, libc::SYS_sendto);
        reset(peer);
        let err = call.join().unwrap();
        assert_eq!(err.kind(), ErrorKind::Reset, "{err}");
        assert!(err.transferred() < much.len());
        println!("{err}");
    });
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::Reset);
}

// ---- files of Unix sockets (L5) ---------------------------------------------------------------

/// A directory of the test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("keepsock-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn listen(path: &Path) -> keepsock::Result<ServerSocket> {
    ServerSocket::listen(Endpoint::unix(path)?)
}

fn assert_serves(server: &ServerSocket, path: &Path) {
    let client = UnixStream::connect(path).unwrap();
    let accepted = server.accept().unwrap();
    (&client).write_all(b"x").unwrap();
    assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 1);
}

/// The helper's part: listens on the given endpoint and reports the result. Any further line closes
/// the server.
fn listen_on_command() {
    let mut server = None;
    while let Some(word) = process::next_command() {
        server = match (server, word.as_str()) {
            (_, "close") => {
                process::report("closed");
                None
            }
            (_, path) => match listen(Path::new(path)) {
                Ok(server) => {
                    process::report("listens");
                    Some(server)
                }
                Err(e) => {
                    process::report(&format!("{:?}", e.kind()));
                    None
                }
            },
        };
    }
}

fn send_path(helper: &mut Helper, path: &Path) {
    helper.send_line(path.to_str().unwrap());
}

/// L5: the path of a live server of another process is never replaced. After that process is
/// killed, its path is replaced.
#[test]
fn listen_on_path_of_killed_server_replaces_it() {
    const TEST: &str = "listen_on_path_of_killed_server_replaces_it";
    if process::role().is_some() {
        return listen_on_command();
    }
    let dir = Folder::new(TEST);
    let path = dir.path("socket");
    let mut other = Helper::start(&test_name!(TEST), "server");
    send_path(&mut other, &path);
    assert_eq!(other.next_line(), "listens");

    let err = listen(&path).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::AddressInUse);
    assert!(err.to_string().contains(path.to_str().unwrap()), "{err}");
    UnixStream::connect(&path).expect("the live server is still reached");

    other.kill();
    let kind = fs::symlink_metadata(&path).unwrap().file_type();
    assert!(kind.is_socket(), "the control case: the file outlives its server");
    assert!(UnixListener::bind(&path).is_err(), "the control: bind(2) alone fails");
    let server = listen(&path).unwrap();
    assert_serves(&server, &path);
    server.close();
    assert!(!path.exists(), "the server has removed its file");
    let control = "bind(2): address in use";
    row("L5 server killed, its Unix socket file remains", "listen", "listens, is reached", control);
}

/// L5: exactly one of several processes that listen on a stale or a free path concurrently
/// succeeds, and clients reach it.
#[test]
fn listen_by_several_processes_succeeds_once() {
    const TEST: &str = "listen_by_several_processes_succeeds_once";
    if process::role().is_some() {
        return listen_on_command();
    }
    let dir = Folder::new(TEST);
    let path = dir.path("socket");
    let mut racers: Vec<_> = (0..4).map(|_| Helper::start(&test_name!(TEST), "racer")).collect();
    for round in 0..50 {
        // The standard library leaves the file when it closes. Every second time there is no file:
        // a server that has bound and does not listen yet would look stale.
        if round % 2 == 0 {
            drop(UnixListener::bind(&path).unwrap());
        }
        for racer in &mut racers {
            send_path(racer, &path);
        }
        let said: Vec<_> = racers.iter().map(Helper::next_line).collect();
        let won = said.iter().filter(|s| *s == "listens").count();
        let lost = said.iter().filter(|s| *s == "AddressInUse").count();
        assert_eq!((won, lost), (1, 3), "round {round}: {said:?}");
        UnixStream::connect(&path).expect("the winner is reached");
        for racer in &mut racers {
            racer.send_line("close");
            assert_eq!(racer.next_line(), "closed");
        }
        watch::await_that("the winner's file is removed", || !path.exists());
    }
}

/// L5: a live server with a full queue is not replaced.
#[test]
fn listen_on_path_of_busy_server_fails() {
    let dir = Folder::new("busy");
    let path = dir.path("socket");
    let endpoint = Endpoint::unix(&path).unwrap();
    let server = ServerSocket::listen_with(endpoint, &SocketOptions::new().backlog(1)).unwrap();
    let mut waiting = Vec::new();
    loop {
        let options = SocketOptions::new().connect_timeout(ms(50));
        match ClientSocket::connect_with(Endpoint::unix(&path).unwrap(), &options) {
            Ok(client) => waiting.push(client),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::TimedOut);
                break;
            }
        }
    }
    assert_eq!(listen(&path).unwrap_err().kind(), ErrorKind::AddressInUse);
    assert!(path.exists());
    for _ in &waiting {
        server.accept().unwrap();
    }
    assert_serves(&server, &path);
}

/// L5: a path that is not a stale socket is never removed: a file, a directory, a link, a socket of
/// another kind.
#[test]
fn listen_on_path_of_other_file_kind_fails() {
    let dir = Folder::new("others");
    let file = dir.path("file");
    fs::write(&file, "precious").unwrap();
    let folder = dir.path("folder");
    fs::create_dir(&folder).unwrap();
    let stale = dir.path("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let link = dir.path("link");
    std::os::unix::fs::symlink(&stale, &link).unwrap();
    let datagram = dir.path("datagram");
    let _alive = std::os::unix::net::UnixDatagram::bind(&datagram).unwrap();
    for path in [&file, &folder, &link, &datagram] {
        let err = listen(path).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::AddressInUse, "{err}");
        assert!(fs::symlink_metadata(path).is_ok(), "{path:?} was removed");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    // The control case: the target of the link would have been replaced.
    listen(&stale).unwrap();
}

/// L5: a server that closes does not remove a file that another process put at its path.
#[test]
fn close_of_server_keeps_replaced_file() {
    let dir = Folder::new("replaced");
    let path = dir.path("socket");
    for what in ["file", "socket"] {
        let server = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        match what {
            "file" => fs::write(&path, "precious").unwrap(),
            _ => drop(UnixListener::bind(&path).unwrap()),
        }
        server.close();
        assert!(path.exists(), "somebody else's {what} was removed");
        fs::remove_file(&path).unwrap();
    }
    // Another server that replaced the path after the test had removed the file.
    let (first, second) = (listen(&path).unwrap(), {
        fs::remove_file(&path).unwrap();
        listen(&path).unwrap()
    });
    drop(first);
    assert_serves(&second, &path);
    drop(second);
    assert!(!path.exists());
    // A missing file is not an error.
    let server = listen(&path).unwrap();
    fs::remove_dir_all(&dir.0).unwrap();
    server.close();
}

// ---- fewer descriptors than a poll has entries --------------------------------------------

/// E1: a descriptor limit below the number of poll entries (a sandbox) is reported as such.
#[test]
fn poll_limit_below_entries_reports_no_descriptors() {
    in_process(&test_name!("poll_limit_below_entries_reports_no_descriptors"), LIMIT, || {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let client = ClientSocket::connect(server.endpoint()).unwrap();
        let accepted = server.accept().unwrap();
        accepted.write_all(b"line\nrest").unwrap();
        let token = CancelToken::new().unwrap();
        let datagrams = DatagramSocket::bind("127.0.0.1:0").unwrap();
        datagrams.set_read_timeout(ms(20)).unwrap();
        let mut buf = [0; 64];
        for limit in [2, 1, 0] {
            limits::limit_descriptors(limit);
            // No poll, or a poll with too many entries.
            let is_fine = |kind, entries| {
                kind == ErrorKind::TimedOut || entries > limit && kind == ErrorKind::NoDescriptors
            };
            client.set_read_timeout(ms(20)).unwrap();
            client.set_cancel(None);
            let kind = client.read_exact(&mut [0; 64]).unwrap_err().kind();
            assert!(is_fine(kind, 1), "read, limit {limit}: {kind:?}");
            client.set_cancel(Some(&token));
            let kind = client.read_exact(&mut [0; 64]).unwrap_err().kind();
            assert!(is_fine(kind, 2), "read with a token, limit {limit}: {kind:?}");
            let kind = datagrams.recv(&mut buf).unwrap_err().kind();
            assert!(is_fine(kind, 1), "receive, limit {limit}: {kind:?}");
            server.set_accept_timeout(ms(20)).unwrap();
            let kind = server.accept().unwrap_err().kind();
            assert!(is_fine(kind, 1), "accept, limit {limit}: {kind:?}");
        }
        // A wait for the time only needs no descriptor.
        accepted.set_close_timeout(ms(20));
        let kind = accepted.close().unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::TimedOut | ErrorKind::NoDescriptors), "{kind:?}");
    });
}
