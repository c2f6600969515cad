//! Full descriptor tables, peers that reset at bad moments, and the files of
//! Unix sockets among several processes.

#![cfg(target_os = "linux")]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use keepsock::{
    ClientSocket, Connection, Endpoint, ErrorKind, ServeOptions, ServerSocket, SocketOptions,
};

mod lab;
use lab::{Helper, in_process, ms, row, seconds};

const LIMIT: Duration = Duration::from_secs(40);
/// L4: accepting resumes so soon after a descriptor was freed.
const RESUMES: Duration = Duration::from_millis(100);
/// L4: 5 % of the processor for the time of the test.
const STARVED: Duration = Duration::from_secs(3);
const CPU: Duration = Duration::from_millis(150);

// ---- no descriptor left (L4) --------------------------------------------------------------

/// Everything that the table still takes.
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

/// The processor time that passes while `events` brings nothing for [`STARVED`].
fn cpu_while_starved<T>(events: &mpsc::Receiver<T>) -> Duration {
    let before = lab::cpu_time();
    assert!(events.recv_timeout(STARVED).is_err(), "there was a descriptor after all");
    let used = lab::cpu_time() - before;
    println!("{used:?} of processor time in {STARVED:?}");
    used
}

/// The control: what accept(2) in a loop costs, as people write it. Says so.
fn assert_a_plain_loop_spins(listener: &TcpListener, errno: i32) -> String {
    let before = lab::cpu_time();
    let until = Instant::now() + ms(300);
    let mut tries = 0;
    while Instant::now() < until {
        assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(errno));
        tries += 1;
    }
    let used = lab::cpu_time() - before;
    println!("a plain loop: {tries} tries and {used:?} of processor time in 300 ms");
    // Tries and not time: others may want the processor, too.
    assert!(tries > 1000, "the control does not spin: {tries} tries");
    format!("plain loop: {} % CPU", used.as_millis() / 3)
}

/// The share of the processor that this is of [`STARVED`].
fn share(used: Duration) -> String {
    format!("{:.1} % CPU", 100.0 * used.as_secs_f64() / STARVED.as_secs_f64())
}

/// Frees a descriptor five times, each time when the pauses between the tries
/// have become as long as they get. One of the five may be late for the
/// machine's own reasons. Returns the longest time of the others.
fn assert_resumes(free: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = std::iter::repeat_with(free).take(5).collect();
    println!("resumed after {times:?}");
    times.sort();
    assert!(times[3] <= RESUMES, "resumed after {times:?}");
    times[3]
}

fn accept_survives(test: &str, asked: &str, listen: impl FnOnce() -> ServerSocket) {
    in_process(test, LIMIT, || {
        lab::limit_descriptors(64);
        let server = listen();
        let to = server.endpoint().to_string();
        // They wait in the listen queue, which takes no descriptor of the server.
        let _clients: Vec<_> = (0..6).map(|_| TcpStream::connect(&to).unwrap()).collect();
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hoard = Hoard::fill();
        let control = assert_a_plain_loop_spins(&plain, libc::EMFILE);

        thread::scope(|scope| {
            let (send, accepted) = mpsc::channel();
            let server = &server;
            scope.spawn(move || {
                for _ in 0..6 {
                    send.send((server.accept().unwrap(), Instant::now())).unwrap();
                }
            });
            let used = cpu_while_starved(&accepted);
            assert!(used < CPU);
            let exhausted = server.counters().exhausted;
            println!("{exhausted} tries");
            assert!((10..=80).contains(&exhausted), "{exhausted} tries");
            assert_eq!(server.counters().accepted, 0);

            let mut held = Vec::new();
            let resumed = assert_resumes(|| {
                assert!(accepted.recv_timeout(ms(200)).is_err());
                let freed = Instant::now();
                hoard.free_one();
                let (client, at) = accepted.recv_timeout(Duration::from_secs(5)).unwrap();
                held.push(client);
                at.saturating_duration_since(freed)
            });
            let measured = format!("{}, resumes in {}", share(used), seconds(resumed));
            row("L4 no descriptor left", asked, measured, &control);
            // A closed connection's descriptor is as good as any.
            assert!(accepted.recv_timeout(ms(200)).is_err());
            drop(held.pop());
            accepted.recv_timeout(Duration::from_secs(5)).unwrap();
        });
        assert_eq!(server.counters().accepted, 6);
    });
}

/// L4: an accept that waits in the kernel.
#[test]
fn accept_without_descriptors() {
    accept_survives("accept_without_descriptors", "accept", || {
        ServerSocket::listen("127.0.0.1:0").unwrap()
    });
}

/// L4: an accept that waits in poll, which calls the listener readable all the time.
#[test]
fn polled_accept_without_descriptors() {
    accept_survives("polled_accept_without_descriptors", "accept with a timeout", || {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        server.set_accept_timeout(Duration::from_secs(20)).unwrap();
        server
    });
}

/// L2, L4: an accept of several listeners, of which one is readable all the time.
#[test]
fn accept_of_several_without_descriptors() {
    accept_survives("accept_of_several_without_descriptors", "accept on three endpoints", || {
        let endpoints = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"];
        ServerSocket::listen_all(endpoints, &SocketOptions::new()).unwrap()
    });
}

/// L4, C1: the time of an accept counts while descriptors are used up, and a
/// close and a cancel end it.
#[test]
fn accept_without_descriptors_ends_when_told() {
    in_process("accept_without_descriptors_ends_when_told", LIMIT, || {
        lab::limit_descriptors(64);
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let token = keepsock::CancelToken::new().unwrap();
        server.set_cancel(Some(&token));
        let _client = TcpStream::connect(server.endpoint().to_string()).unwrap();
        let _hoard = Hoard::fill();
        server.set_accept_timeout(ms(300)).unwrap();
        lab::assert_on_time(ms(300), || {
            let start = Instant::now();
            assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::TimedOut);
            start.elapsed()
        });
        server.set_accept_timeout(None).unwrap();

        type End<'a> = &'a dyn Fn();
        let fire: End = &|| token.fire();
        let close: End = &|| server.close();
        for (end, kind) in [(fire, ErrorKind::Cancelled), (close, ErrorKind::Closed)] {
            let tries = server.counters().exhausted;
            thread::scope(|scope| {
                let call = scope.spawn(|| (server.accept().unwrap_err().kind(), Instant::now()));
                lab::await_that("it tries", || server.counters().exhausted > tries);
                let start = Instant::now();
                end();
                let (got, back) = call.join().unwrap();
                assert_eq!(got, kind);
                let late = back.saturating_duration_since(start);
                println!("{kind:?}: back after {late:?}");
                assert!(late < ms(150), "back after {late:?}");
            });
            token.reset();
        }
    });
}

/// L4: in non-blocking mode, which must not wait, the reason is returned.
#[test]
fn nonblocking_accept_without_descriptors() {
    in_process("nonblocking_accept_without_descriptors", LIMIT, || {
        lab::limit_descriptors(64);
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

/// E1: making a socket without a descriptor for it fails and says so.
#[test]
fn connect_and_listen_without_descriptors() {
    in_process("connect_and_listen_without_descriptors", LIMIT, || {
        lab::limit_descriptors(64);
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

/// L4: a service survives it likewise, and serves who waited meanwhile.
#[test]
fn serve_without_descriptors() {
    in_process("serve_without_descriptors", LIMIT, || {
        lab::limit_descriptors(64);
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
        // Some have come and gone before, so that several workers are idle.
        let mut first: Vec<_> = (0..4).map(|_| TcpStream::connect(&to).unwrap()).collect();
        for client in &mut first {
            served.recv_timeout(Duration::from_secs(5)).unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
        }
        drop(first);
        lab::await_that("they are gone", || service.connections() == 0);

        // They connect when the table is full, for which they need no more of it.
        let clients: Vec<_> = (0..12)
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
        // A worker that waited in accept has its descriptor already: those are served.
        while served.recv_timeout(ms(200)).is_ok() {}
        let before = server.counters();
        let used = cpu_while_starved(&served);
        assert!(used < CPU);
        let after = server.counters();
        assert!(after.exhausted > before.exhausted);
        println!("{after:?}");
        assert!(after.accepted < 16, "all clients had their descriptor: {after:?}");

        let resumed = assert_resumes(|| {
            assert!(served.recv_timeout(ms(200)).is_err());
            let freed = Instant::now();
            hoard.free_one();
            let at = served.recv_timeout(Duration::from_secs(5)).unwrap();
            at.saturating_duration_since(freed)
        });
        let measured = format!("{}, resumes in {}", share(used), seconds(resumed));
        row("L4 no descriptor left", "serve", measured, &control);
        drop(hoard);
        for client in &mut clients {
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut line = [0; 6];
            client.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"hello\n");
        }
        assert_eq!(server.counters().accepted, 16);
    });
}

/// L4: and one that serves by events, with its clients served meanwhile.
#[test]
fn serve_events_without_descriptors() {
    in_process("serve_events_without_descriptors", LIMIT, || {
        lab::limit_descriptors(64);
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let to: SocketAddr = server.endpoint().to_string().parse().unwrap();
        let service = server
            .serve_events(&ServeOptions::new(), |connection: &Connection, data: &[u8]| {
                let _ = connection.send(data);
            })
            .unwrap();
        let echo = |client: &mut TcpStream| {
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            client.write_all(b"hello\n").unwrap();
            let mut line = [0; 6];
            client.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"hello\n");
        };
        let mut first: Vec<_> = (0..4).map(|_| TcpStream::connect(to).unwrap()).collect();
        first.iter_mut().for_each(echo);
        // They connect when the table is full, for which they need no more of it.
        let clients: Vec<_> = (0..8)
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
        let before = lab::cpu_time();
        for _ in 0..10 {
            first.iter_mut().for_each(echo);
            assert!(nothing.recv_timeout(STARVED / 10).is_err());
        }
        let used = lab::cpu_time() - before;
        let exhausted = server.counters().exhausted;
        println!("{used:?} of processor time, {exhausted} tries");
        assert!(used < CPU, "{used:?} in {STARVED:?}");
        assert!((10..=80).contains(&exhausted), "{exhausted} tries");
        assert_eq!(service.snapshot().opened, 4, "there was a descriptor after all");

        let mut opened = 4;
        let resumed = assert_resumes(|| {
            assert!(nothing.recv_timeout(ms(200)).is_err());
            let freed = Instant::now();
            hoard.free_one();
            opened += 1;
            lab::await_that("it accepts", || service.snapshot().opened == opened);
            freed.elapsed()
        });
        let measured = format!("{}, resumes in {}", share(used), seconds(resumed));
        row("L4 no descriptor left", "serve_events", measured, &control);
        // A connection that ends leaves its descriptor to the next one.
        first[0].shutdown(std::net::Shutdown::Write).unwrap();
        lab::await_that("it accepts", || service.snapshot().opened == opened + 1);
        drop(hoard);
        clients.iter_mut().for_each(echo);
    });
}

// ---- accept(2) that always fails (L3) ---------------------------------------------------------

/// L3: an error that should concern one connection, and keeps coming (a sandbox
/// that forbids the call gives EPERM), does not keep the processor busy; the
/// accept's time counts, and closing ends it.
#[test]
fn accept_that_fails_for_ever() {
    in_process("accept_that_fails_for_ever", LIMIT, || {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(server.endpoint().to_string()).unwrap();
        thread::scope(|scope| {
            let (send, result) = mpsc::channel();
            let server = &server;
            let control = scope.spawn(|| {
                lab::forbid(libc::SYS_accept4, None, libc::EPERM);
                let plain = TcpListener::bind("127.0.0.1:0").unwrap();
                assert_a_plain_loop_spins(&plain, libc::EPERM)
            });
            let control = control.join().unwrap();
            scope.spawn(move || {
                lab::forbid(libc::SYS_accept4, None, libc::EPERM);
                send.send(server.accept().map(|_| ()).map_err(|e| e.kind())).unwrap();
            });
            let used = {
                let before = lab::cpu_time();
                assert!(result.recv_timeout(STARVED).is_err());
                lab::cpu_time() - before
            };
            println!("{used:?} in {STARVED:?}, {:?}", server.counters());
            assert!(server.counters().retried > 10);
            server.close();
            let ended = result.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_eq!(ended, Err(ErrorKind::Closed));
            assert!(used < CPU, "{used:?} of processor time in {STARVED:?}");
            row("L3 accept4 fails for ever (EPERM)", "accept", share(used), &control);
        });
        // With a limit.
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(server.endpoint().to_string()).unwrap();
        server.set_accept_timeout(ms(300)).unwrap();
        let call = thread::spawn(move || {
            lab::forbid(libc::SYS_accept4, None, libc::EPERM);
            lab::assert_on_time(ms(300), || {
                let start = Instant::now();
                assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::TimedOut);
                start.elapsed()
            });
            // And in non-blocking mode the error is returned.
            server.set_nonblocking(true).unwrap();
            assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::PermissionDenied);
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

/// L3: clients that reset before they are accepted cost nothing but their turn.
#[test]
fn clients_that_reset_before_accept() {
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

/// L3: and a service goes on serving.
#[test]
fn clients_that_reset_before_they_are_served() {
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
    let drained = service.drain(Duration::from_secs(5)).unwrap();
    assert_eq!(drained.cut, 0);
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

/// poll(2) as the C library calls it.
#[cfg(target_arch = "x86_64")]
const POLL: libc::c_long = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: libc::c_long = libc::SYS_ppoll;

/// L3: a peer that resets in the middle of a read: what came before is told and
/// kept, and every later call knows why.
#[test]
fn a_peer_that_resets_during_a_read() {
    let (client, mut peer) = pair();
    thread::scope(|scope| {
        let (send, thread) = mpsc::channel();
        let client = &client;
        let call = scope.spawn(move || {
            send.send(lab::thread_id()).unwrap();
            client.read_exact(&mut [0; 100]).unwrap_err()
        });
        peer.write_all(b"part").unwrap();
        // The rest of its time, a call that was given a part waits in poll.
        lab::await_blocked(thread.recv().unwrap(), POLL);
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
    client.close().unwrap();
}

/// L3: a peer that resets in the middle of a write.
#[test]
fn a_peer_that_resets_during_a_write() {
    let (client, peer) = pair();
    let much = vec![b'x'; 64 << 20];
    thread::scope(|scope| {
        let (send, thread) = mpsc::channel();
        let (client, much) = (&client, &much);
        let call = scope.spawn(move || {
            send.send(lab::thread_id()).unwrap();
            client.write_all(much).unwrap_err()
        });
        let id = thread.recv().unwrap();
        lab::await_blocked(id, libc::SYS_sendto);
        reset(peer);
        let err = call.join().unwrap();
        assert_eq!(err.kind(), ErrorKind::Reset, "{err}");
        assert!(err.transferred() < much.len());
        println!("{err}");
    });
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::Reset);
}

// ---- files of Unix sockets (L5) ---------------------------------------------------------------

/// A folder of one's own, removed in the end.
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

/// The helper's part: listens where it is told and says how that went; any
/// further word makes it close the server.
fn listen_as_told() {
    let mut server = None;
    while let Some(word) = lab::told() {
        server = match (server, word.as_str()) {
            (_, "close") => {
                lab::tell("closed");
                None
            }
            (_, path) => match listen(Path::new(path)) {
                Ok(server) => {
                    lab::tell("listens");
                    Some(server)
                }
                Err(e) => {
                    lab::tell(&format!("{:?}", e.kind()));
                    None
                }
            },
        };
    }
}

fn tell_path(helper: &mut Helper, path: &Path) {
    helper.tell(path.to_str().unwrap());
}

/// L5: the path of a live server of another process is never stolen; once that
/// process is killed and cannot tidy up, its path is taken over.
#[test]
fn the_path_of_a_killed_server() {
    const TEST: &str = "the_path_of_a_killed_server";
    if lab::role().is_some() {
        return listen_as_told();
    }
    let dir = Folder::new(TEST);
    let path = dir.path("socket");
    let mut other = Helper::start(TEST, "server");
    tell_path(&mut other, &path);
    assert_eq!(other.hear(), "listens");

    let err = listen(&path).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::AddressInUse);
    assert!(err.to_string().contains(path.to_str().unwrap()), "{err}");
    UnixStream::connect(&path).expect("the live server is still reached");

    other.kill();
    let kind = fs::symlink_metadata(&path).unwrap().file_type();
    assert!(kind.is_socket(), "the control: the file outlived its server");
    assert!(UnixListener::bind(&path).is_err(), "the control: bind(2) alone fails");
    let server = listen(&path).unwrap();
    assert_serves(&server, &path);
    server.close();
    assert!(!path.exists(), "the file goes with the server");
    let control = "bind(2): address in use";
    row("L5 server killed, its Unix socket is left", "listen", "listens, is reached", control);
}

/// L5: of several processes that want a stale path, or a free one, at once,
/// exactly one gets it, and it is reached there.
#[test]
fn processes_that_race_for_a_path() {
    const TEST: &str = "processes_that_race_for_a_path";
    if lab::role().is_some() {
        return listen_as_told();
    }
    let dir = Folder::new(TEST);
    let path = dir.path("socket");
    let mut racers: Vec<_> = (0..4).map(|_| Helper::start(TEST, "racer")).collect();
    for round in 0..50 {
        // The standard library leaves the file when it closes. Every other time
        // there is none: a server that has bound and does not listen yet looks stale.
        if round % 2 == 0 {
            drop(UnixListener::bind(&path).unwrap());
        }
        for racer in &mut racers {
            tell_path(racer, &path);
        }
        let said: Vec<_> = racers.iter().map(Helper::hear).collect();
        let won = said.iter().filter(|s| *s == "listens").count();
        let lost = said.iter().filter(|s| *s == "AddressInUse").count();
        assert_eq!((won, lost), (1, 3), "round {round}: {said:?}");
        UnixStream::connect(&path).expect("the winner is reached");
        for racer in &mut racers {
            racer.tell("close");
            assert_eq!(racer.hear(), "closed");
        }
        lab::await_that("the winner's file is gone", || !path.exists());
    }
}

/// L5: a live server whose queue is full is alive.
#[test]
fn the_path_of_a_busy_server() {
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

/// L5: what is not a dead socket is never removed: a file, a folder, a link, a
/// socket of another kind.
#[test]
fn other_files_at_the_path() {
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
    // The control: what the link points to would have been taken over.
    listen(&stale).unwrap();
}

/// L5: a server that closes leaves alone what somebody else has put at its path.
#[test]
fn a_path_that_was_replaced() {
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
    // Another server that took the path over after the file had been removed by hand.
    let (first, second) = (listen(&path).unwrap(), {
        fs::remove_file(&path).unwrap();
        listen(&path).unwrap()
    });
    drop(first);
    assert_serves(&second, &path);
    drop(second);
    assert!(!path.exists());
    // And nothing at all is no reason to fail.
    let server = listen(&path).unwrap();
    fs::remove_dir_all(&dir.0).unwrap();
    server.close();
}
