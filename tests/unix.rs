//! What only Unix sockets have (D4): descriptors that travel with bytes (L7), who the peer is, the
//! file's mode and owner, packets in order.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod lab;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::*;
use keepsock::{ErrorKind, Protocol};
use socket2::{Domain, Socket, Type};

both_apis![
    a_file_is_passed,
    descriptors_of_every_kind_are_passed,
    a_listener_goes_to_another_server,
    as_many_as_the_system_passes,
    what_cannot_be_passed,
    more_descriptors_than_are_wanted,
    no_number_is_free,
    too_many_are_on_their_way,
    a_flood_of_descriptors_stays_outside,
    descriptors_obey_timeout_token_and_close,
    descriptors_take_the_writers_turn,
    bytes_that_were_read_ahead_come_first,
    descriptors_with_a_part_of_the_bytes,
    who_the_peer_is,
    users_who_may_connect,
    a_denied_flood_keeps_the_time_limit,
    the_mode_of_the_file,
    the_mode_without_proc,
    the_mode_is_never_wider,
    the_owner_of_the_file,
    only_root_gives_files_away,
    files_that_cannot_be_made_so,
    options_of_unix_sockets_only,
    packets_stay_whole,
    a_packet_that_does_not_fit,
    a_packet_too_long_for_the_system,
    what_packets_cannot_do,
    packets_wait_end_and_are_served,
    packets_carry_descriptors,
    packet_sockets_are_taken_over,
    a_stream_does_not_connect_to_packets,
    nobody_is_no_user_who_may_connect,
];

type Call<A> = fn(&<A as Api>::Client) -> Outcome<()>;

/// A server whose abstract name no other test has.
fn unnamed<A: Api>(test: &str, options: &[Opt<'_, A>]) -> A::Server {
    let endpoint = format!("unix:@keepsock-{test}-{}-{}", A::NUMBER, std::process::id());
    A::listen(&endpoint, options).unwrap()
}

fn pair_of_unix<A: Api>() -> Pair<A> {
    pair::<A>(Transport::Unix)
}

/// A connection, and its peer of the standard library.
fn with_unix_peer<A: Api>() -> (A::Client, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    let client = A::adopt_client(ours.into(), &[Opt::CloseTimeout(0)]);
    (client.map_err(|(_, failure)| failure).unwrap(), peer)
}

fn file_with(text: &str) -> File {
    let mut file = system::blank_file(0);
    file.write_all(text.as_bytes()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

fn content(fd: OwnedFd) -> String {
    let mut file = File::from(fd);
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Descriptors, sent as a program without keepsock sends them.
fn send_raw(socket: &UnixStream, bytes: &[u8], fds: &[RawFd]) -> std::io::Result<usize> {
    system::send_fds(socket.as_raw_fd(), bytes, fds)
}

/// Everything that the descriptor table still takes.
fn hoard() -> Vec<File> {
    let open = || File::open("/dev/null");
    std::iter::repeat_with(open).map_while(Result::ok).collect()
}

// ---- descriptors (D4, L7) ------------------------------------------------------------------------

/// D4: a file, with the bytes that it was sent with, close-on-exec from the start.
fn a_file_is_passed<A: Api>() {
    let p = pair_of_unix::<A>();
    let file = file_with("inside");
    assert_eq!(p.client.write_fds(b"take this", &[file.as_raw_fd()]).unwrap(), 9);
    drop(file);
    let mut got = p.accepted.read_fds(64, 4).unwrap();
    assert_eq!((got.bytes.as_slice(), got.fds.len(), got.lost), (&b"take this"[..], 1, false));
    let fd = got.fds.pop().unwrap();
    assert!(system::is_cloexec(fd.as_raw_fd()));
    assert_eq!(content(fd), "inside");
    // Bytes alone are bytes alone, both ways.
    assert_eq!(p.accepted.write_fds(b"thanks", &[]).unwrap(), 6);
    let got = p.client.read_fds(64, 4).unwrap();
    assert_eq!((got.bytes.as_slice(), got.fds.len(), got.lost), (&b"thanks"[..], 0, false));
    p.accepted.close().unwrap();
    let end = p.client.read_fds(64, 4).unwrap();
    assert_eq!((end.bytes.len(), end.fds.len(), end.lost), (0, 0, false));
}

/// L7: connections and datagram sockets go on in other hands.
fn descriptors_of_every_kind_are_passed<A: Api>() {
    let p = pair_of_unix::<A>();
    let tcp = pair::<A>(Transport::Tcp);
    let datagram = A::bind("127.0.0.1:0", &[]).unwrap();
    let fds = [tcp.accepted.fd().unwrap(), datagram.fd().unwrap()];
    p.client.write_fds(b"x", &fds).unwrap();
    drop(tcp.accepted.release().unwrap());
    let mut got = p.accepted.read_fds(1, 2).unwrap().fds.into_iter();
    let moved = A::adopt_client(got.next().unwrap(), &[Opt::CloseTimeout(0)]);
    let moved = moved.map_err(|(_, failure)| failure).unwrap();
    moved.write_all(b"from the other hand\n").unwrap();
    assert_eq!(tcp.client.read_line(64).unwrap(), "from the other hand");
    let moved = A::adopt_datagram(got.next().unwrap(), &[]);
    assert_eq!(moved.map_err(|(_, failure)| failure).unwrap().port(), datagram.port());
}

/// L7: a listening socket goes to another server while clients come, and nobody is refused.
fn a_listener_goes_to_another_server<A: Api>() {
    let p = pair_of_unix::<A>();
    let old = A::listen("127.0.0.1:0", &[]).unwrap();
    let waiting = A::connect(&old.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    p.client.write_fds(b"x", &[old.fd().unwrap()]).unwrap();
    drop(old.release().unwrap());
    let fd = p.accepted.read_fds(1, 1).unwrap().fds.pop().unwrap();
    let new = A::adopt_server(fd, &[]).map_err(|(_, failure)| failure).unwrap();
    let accepted = new.accept().unwrap();
    accepted.write_all(b"hello\n").unwrap();
    assert_eq!(waiting.read_line(64).unwrap(), "hello");
}

/// D4: 253 descriptors go at once; one more is refused, and nothing is sent.
fn as_many_as_the_system_passes<A: Api>() {
    lab::in_process(&name::<A>("as_many_as_the_system_passes"), Duration::from_secs(20), || {
        lab::need_descriptors(1000);
        let p = pair_of_unix::<A>();
        let null = File::open("/dev/null").unwrap();
        let failure =
            fails(p.client.write_fds(b"x", &[null.as_raw_fd(); 254]), ErrorKind::InvalidArgument);
        assert!(failure.message.contains("254 descriptors, and 253"), "{failure:?}");
        assert_eq!(p.client.write_fds(b"all", &[null.as_raw_fd(); 253]).unwrap(), 3);
        let got = p.accepted.read_fds(8, 253).unwrap();
        assert_eq!((got.bytes.as_slice(), got.fds.len(), got.lost), (&b"all"[..], 253, false));
        fails(p.accepted.read_fds(8, 254), ErrorKind::InvalidArgument);
    });
}

/// D4: what cannot be passed is refused, and nothing is sent.
fn what_cannot_be_passed<A: Api>() {
    let p = pair_of_unix::<A>();
    let null = File::open("/dev/null").unwrap();
    let failure = fails(p.client.write_fds(b"", &[null.as_raw_fd()]), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("at least one byte"), "{failure:?}");
    // TCP has nowhere to put them.
    let tcp = pair::<A>(Transport::Tcp);
    let failure = fails(tcp.client.write_fds(b"x", &[null.as_raw_fd()]), ErrorKind::Unsupported);
    assert!(failure.message.contains("Unix sockets only"), "{failure:?}");
    fails(tcp.client.read_fds(8, 1), ErrorKind::Unsupported);
    // After this side's end, and after close.
    p.client.shutdown_write().unwrap();
    fails(p.client.write_fds(b"x", &[null.as_raw_fd()]), ErrorKind::WrongState);
    p.client.close().unwrap();
    fails(p.client.write_fds(b"x", &[null.as_raw_fd()]), ErrorKind::Closed);
    fails(p.client.read_fds(8, 1), ErrorKind::Closed);
    // The peer has closed: no signal, an error.
    fails(p.accepted.write_fds(b"x", &[null.as_raw_fd()]), ErrorKind::Reset);
}

/// D4: no more than were wanted, which is told; the others are closed.
fn more_descriptors_than_are_wanted<A: Api>() {
    lab::in_process(
        &name::<A>("more_descriptors_than_are_wanted"),
        Duration::from_secs(20),
        || {
            let p = pair_of_unix::<A>();
            let null = File::open("/dev/null").unwrap();
            let before = lab::count_descriptors();
            for (sent, wanted) in [(5, 4), (100, 3), (253, 1), (253, 252), (1, 0), (253, 0)] {
                p.client.write_fds(b"x", &vec![null.as_raw_fd(); sent]).unwrap();
                let got = p.accepted.read_fds(8, wanted).unwrap();
                assert_eq!((got.fds.len(), got.lost), (wanted, true), "{sent}, {wanted}");
                assert_eq!(lab::count_descriptors(), before + wanted, "{sent}, {wanted}");
                drop(got);
                assert_eq!(lab::count_descriptors(), before);
            }
        },
    );
}

/// D4: where this process may have no more, that is told, and the bytes come.
fn no_number_is_free<A: Api>() {
    lab::in_process(&name::<A>("no_number_is_free"), Duration::from_secs(20), || {
        let p = pair_of_unix::<A>();
        let null = File::open("/dev/null").unwrap();
        p.client.write_fds(b"bytes", &[null.as_raw_fd(); 3]).unwrap();
        lab::limit_descriptors(64);
        let mut hoard = hoard();
        assert!(hoard.pop().is_some());
        let got = p.accepted.read_fds(8, 3).unwrap();
        assert_eq!((got.bytes.as_slice(), got.fds.len(), got.lost), (&b"bytes"[..], 1, true));
    });
}

/// D4: unix(7), ETOOMANYREFS: as many as a process may have open may be on their way.
fn too_many_are_on_their_way<A: Api>() {
    lab::in_process(&name::<A>("too_many_are_on_their_way"), Duration::from_secs(20), || {
        let p = pair_of_unix::<A>();
        let null = File::open("/dev/null").unwrap();
        lab::limit_descriptors(64);
        p.client.set_nonblocking(true).unwrap();
        // Root may have more.
        system::as_user(if me().0 == 0 { 4711 } else { me().0 }, || {
            let send = || p.client.write_fds(b"x", &[null.as_raw_fd(); 30]);
            let failure = std::iter::repeat_with(send).take(20).find_map(Result::err);
            let failure = failure.expect("they are all on their way");
            assert!(failure.is(ErrorKind::NoDescriptors), "{failure:?}");
        });
        // Nothing is lost of what went.
        assert_eq!(p.accepted.read_fds(1, 30).unwrap().fds.len(), 30);
    });
}

/// D4: a peer that sends descriptors with everything does not fill a process that did not ask for
/// them: by plain reads, by `serve`, by `serve_events`.
fn a_flood_of_descriptors_stays_outside<A: Api>() {
    const ROUNDS: usize = 20;
    const EACH: usize = 253;
    const TEST: &str = "a_flood_of_descriptors_stays_outside";
    lab::in_process(&name::<A>(TEST), Duration::from_secs(25), || {
        let null = File::open("/dev/null").unwrap();
        let flood = |peer: &UnixStream, answered: &mut dyn FnMut()| {
            let before = lab::count_descriptors();
            for _ in 0..ROUNDS {
                let fds = [null.as_raw_fd(); EACH];
                assert_eq!(send_raw(peer, b"line\n", &fds).unwrap(), 5);
                answered();
                assert_eq!(lab::count_descriptors(), before);
            }
        };
        // The control: they do come, to those who ask.
        let (client, peer) = with_unix_peer::<A>();
        send_raw(&peer, b"line\n", &[null.as_raw_fd(); EACH]).unwrap();
        assert_eq!(client.read_fds(8, EACH).unwrap().fds.len(), EACH);
        let reads: [fn(&A::Client); 5] = [
            |c| assert_eq!(c.read(&mut [0; 64]).unwrap(), 5),
            |c| assert_eq!(c.read_slices(&mut [&mut [0; 2], &mut [0; 9]]).unwrap(), 5),
            |c| c.read_exact(&mut [0; 5]).unwrap(),
            |c| assert_eq!(c.read_line(64).unwrap(), "line"),
            |c| assert!(c.read_fds(64, 0).unwrap().lost),
        ];
        for read in reads {
            let (client, peer) = with_unix_peer::<A>();
            flood(&peer, &mut || read(&client));
        }

        let server = unnamed::<A>(TEST, &[Opt::CloseTimeout(0)]);
        let echo = |c: &A::Client| {
            while let Ok(line) = c.read_line(64) {
                c.write_all(format!("{line}\n").as_bytes()).unwrap();
            }
        };
        let answer = |peer: &UnixStream| {
            let mut answer = [0; 5];
            (&*peer).read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"line\n");
        };
        let to = |server: &A::Server| {
            let name = server.endpoint();
            let name = name.strip_prefix("unix:@").unwrap();
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
            UnixStream::connect_addr(&address).unwrap()
        };
        let service = server.serve(&[], Box::new(echo)).unwrap();
        let peer = to(&server);
        // The thread that serves it is there.
        (&peer).write_all(b"line\n").unwrap();
        answer(&peer);
        flood(&peer, &mut || answer(&peer));
        drop(peer);
        drop(service);
        drop(server);

        let server = unnamed::<A>("flood-of-events", &[Opt::CloseTimeout(0)]);
        let on = On::<A> { data: Some(Box::new(|c, line| drop(c.send(line)))), ..On::default() };
        let _service = server.serve_events(&[], on).unwrap();
        let peer = to(&server);
        (&peer).write_all(b"line\n").unwrap();
        answer(&peer);
        flood(&peer, &mut || answer(&peer));
    });
}

/// I1, T1, T3: as read and write do.
fn descriptors_obey_timeout_token_and_close<A: Api>() {
    let calls: [Call<A>; 2] = [
        |c| c.read_fds(8, 1).map(drop),
        |c| {
            let null = File::open("/dev/null").unwrap();
            loop {
                c.write_fds(&[0; 1 << 16], &[null.as_raw_fd()])?;
            }
        },
    ];
    for call in calls {
        for polled in [false, true] {
            let start = || {
                let p = small_pair::<A>(Transport::Unix);
                let token = A::token();
                if polled {
                    p.client.set_cancel(Some(&token));
                }
                (p, token)
            };
            let (p, _token) = start();
            p.client.set_read_timeout(150).unwrap();
            p.client.set_write_timeout(150).unwrap();
            let (outcome, took) = timed(|| call(&p.client));
            fails(outcome, ErrorKind::TimedOut);
            assert!(took >= Duration::from_millis(140), "{took:?}");
            let (p, _token) = start();
            let (outcome, _) = while_waiting(|| call(&p.client), || drop(p.client.close()));
            fails(outcome, ErrorKind::Closed);
            let (p, _token) = start();
            p.client.set_nonblocking(true).unwrap();
            fails(call(&p.client), ErrorKind::WouldBlock);
        }
        let (p, token) = (small_pair::<A>(Transport::Unix), A::token());
        p.client.set_cancel(Some(&token));
        let (outcome, _) = while_waiting(|| call(&p.client), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
    }
}

/// T2: a write with descriptors does not come into the middle of another.
fn descriptors_take_the_writers_turn<A: Api>() {
    const LEN: usize = 1 << 20;
    let p = small_pair::<A>(Transport::Unix);
    let null = File::open("/dev/null").unwrap();
    thread::scope(|scope| {
        let write = scope.spawn(|| p.client.write_all(&vec![b'a'; LEN]));
        let mut got = vec![0; 1];
        p.accepted.read_exact(&mut got).unwrap();
        // The first write is under way, and waits for room.
        let fds = scope.spawn(|| p.client.write_fds(b"b", &[null.as_raw_fd()]));
        let mut came = Vec::new();
        while got.len() < LEN + 1 {
            let more = p.accepted.read_fds(1 << 16, 1).unwrap();
            got.extend(more.bytes);
            came.extend(more.fds);
        }
        assert!(got[..LEN].iter().all(|b| *b == b'a'));
        assert_eq!((got[LEN], came.len()), (b'b', 1));
        write.join().unwrap().unwrap();
        assert_eq!(fds.join().unwrap().unwrap(), 1);
    });
}

/// D4: what is in the socket's buffer comes first, and without descriptors.
fn bytes_that_were_read_ahead_come_first<A: Api>() {
    let p = pair_of_unix::<A>();
    let null = File::open("/dev/null").unwrap();
    p.client.write_all(b"line\nrest").unwrap();
    assert_eq!(p.accepted.read_line(64).unwrap(), "line");
    p.client.write_fds(b"next", &[null.as_raw_fd()]).unwrap();
    let got = p.accepted.read_fds(64, 1).unwrap();
    assert_eq!((got.bytes.as_slice(), got.fds.len(), got.lost), (&b"rest"[..], 0, false));
    let got = p.accepted.read_fds(64, 1).unwrap();
    assert_eq!((got.bytes.as_slice(), got.fds.len(), got.lost), (&b"next"[..], 1, false));
}

/// D4: whatever part of the bytes the kernel takes, it has all descriptors, once.
fn descriptors_with_a_part_of_the_bytes<A: Api>() {
    let p = small_pair::<A>(Transport::Unix);
    let null = File::open("/dev/null").unwrap();
    p.client.set_nonblocking(true).unwrap();
    let bytes = vec![b'x'; 1 << 20];
    let taken = p.client.write_fds(&bytes, &[null.as_raw_fd(); 2]).unwrap();
    assert!((1..bytes.len()).contains(&taken), "{taken}");
    let (mut left, mut came) = (taken, 0);
    while left > 0 {
        let got = p.accepted.read_fds(1 << 16, 9).unwrap();
        left -= got.bytes.len();
        came += got.fds.len();
        assert!(!got.lost);
    }
    assert_eq!(came, 2);
}

// ---- who the peer is (D4) --------------------------------------------------------------------------

fn me() -> (u32, u32) {
    let own = std::fs::metadata("/proc/self").unwrap();
    (own.uid(), own.gid())
}

/// D4: the process, user and group at the other end; TCP has none.
fn who_the_peer_is<A: Api>() {
    let p = pair_of_unix::<A>();
    let (uid, gid) = me();
    let expected = Peer { pid: i64::from(std::process::id()), uid, gid };
    assert_eq!(p.client.peer_credentials().unwrap(), expected);
    assert_eq!(p.accepted.peer_credentials().unwrap(), expected);
    p.client.close().unwrap();
    fails(p.client.peer_credentials(), ErrorKind::Closed);
    let tcp = pair::<A>(Transport::Tcp);
    fails(tcp.client.peer_credentials(), ErrorKind::Unsupported);

    // By events, too.
    let server = unnamed::<A>("who", &[]);
    let (tell, told) = mpsc::channel();
    let on = On::<A> {
        open: Some(Box::new(move |c| tell.send(c.peer_credentials()).unwrap())),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    let _client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    let patience = Duration::from_secs(10);
    assert_eq!(told.recv_timeout(patience).unwrap().unwrap(), expected);
    service.stop();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (tell, told) = mpsc::channel();
    let on = On::<A> {
        open: Some(Box::new(move |c| tell.send(c.peer_credentials()).unwrap())),
        ..On::default()
    };
    let _service = server.serve_events(&[], on).unwrap();
    let _client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    fails(told.recv_timeout(patience).unwrap(), ErrorKind::Unsupported);
}

/// D4: others are closed before the program sees them, by each way of accepting, and counted.
fn users_who_may_connect<A: Api>() {
    let (uid, _) = me();
    let client = |server: &A::Server| {
        let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(10_000)];
        A::connect(&server.endpoint(), &options).unwrap()
    };
    // Several calls add.
    let both = [Opt::AllowUser(uid + 1), Opt::AllowUser(uid), Opt::CloseTimeout(0)];
    let server = unnamed::<A>("both", &both);
    let c = client(&server);
    server.accept().unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(c.read_line(64).unwrap(), "hello");
    assert_eq!((server.counters().accepted, server.counters().denied), (1, 0));

    let other = [Opt::AllowUser(uid + 1)];
    let is_closed = |c: &A::Client| assert_eq!(c.read(&mut [0; 8]).unwrap(), 0);
    let server = unnamed::<A>("accept", &other);
    server.set_accept_timeout(300).unwrap();
    let waiting = [client(&server), client(&server)];
    fails(server.accept(), ErrorKind::TimedOut);
    waiting.iter().for_each(is_closed);
    assert_eq!((server.counters().accepted, server.counters().denied), (0, 2));
    server.set_nonblocking(true).unwrap();
    let c = client(&server);
    fails(server.accept(), ErrorKind::WouldBlock);
    is_closed(&c);

    let server = unnamed::<A>("serve", &other);
    let service = server.serve(&[], Box::new(|_: &A::Client| panic!("it may not"))).unwrap();
    is_closed(&client(&server));
    assert_eq!((server.counters().denied, service.connections()), (1, 0));

    let server = unnamed::<A>("events", &other);
    let on = On::<A> { open: Some(Box::new(|_| panic!("it may not"))), ..On::default() };
    let service = server.serve_events(&[], on).unwrap();
    is_closed(&client(&server));
    is_closed(&client(&server));
    assert_eq!((server.counters().accepted, server.counters().denied), (0, 2));
    assert_eq!((service.connections(), service.stats().opened), (0, 0));
}

/// I1: however many come that may not, accept keeps its time, and its stack.
fn a_denied_flood_keeps_the_time_limit<A: Api>() {
    let (uid, _) = me();
    let server = unnamed::<A>("denied-flood", &[Opt::AllowUser(uid + 1)]);
    server.set_accept_timeout(400).unwrap();
    let (stop, relaxed) = (AtomicBool::new(false), Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(relaxed) {
                drop(A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]));
            }
        });
        let _stop = OnDrop(|| stop.store(true, relaxed));
        promptly(Duration::from_millis(500), || {
            let (outcome, took) = timed(|| server.accept());
            fails(outcome, ErrorKind::TimedOut);
            took
        });
    });
    assert!(server.counters().denied > 100, "{:?}", server.counters());
}

// ---- the file (D4) ----------------------------------------------------------------------------------

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// D4: the mode is what was asked for, whatever the umask. In a process of its own, for the umask
/// is that of a whole process.
fn the_mode_of_the_file<A: Api>() {
    lab::in_process(&name::<A>("the_mode_of_the_file"), Duration::from_secs(20), || {
        for umask in [0o022, 0o077, 0, 0o777] {
            system::set_umask(umask);
            for wanted in [0o660, 0o600, 0o777, 0o666, 0] {
                // A directory needs a mode of its own.
                system::set_umask(0o022);
                let dir = TempDir::new();
                system::set_umask(umask);
                let server = A::listen(&dir.endpoint("s"), &[Opt::UnixMode(wanted)]).unwrap();
                assert_eq!(mode(&dir.path("s")), wanted, "umask {umask:o}");
                drop(server);
                assert!(!dir.path("s").exists());
            }
        }
        // The control: without it the umask decides.
        system::set_umask(0o027);
        let dir = TempDir::new();
        let _server = A::listen(&dir.endpoint("s"), &[]).unwrap();
        assert_eq!(mode(&dir.path("s")), 0o750);
    });
}

/// D4: in a chroot without /proc, too, from Linux 6.6 on.
fn the_mode_without_proc<A: Api>() {
    lab::in_process(&name::<A>("the_mode_without_proc"), Duration::from_secs(20), || {
        let dir = TempDir::new();
        system::set_umask(0o077);
        // As if there were none.
        #[cfg(target_arch = "x86_64")]
        lab::forbid(libc::SYS_chmod, None, libc::ENOENT);
        lab::forbid(libc::SYS_fchmodat, None, libc::ENOENT);
        match A::listen(&dir.endpoint("s"), &[Opt::UnixMode(0o666)]) {
            Ok(_server) => assert_eq!(mode(&dir.path("s")), 0o666),
            Err(failure) => {
                assert_eq!(failure.os_error, libc::ENOSYS, "{failure:?}");
                assert!(!dir.path("s").exists());
            }
        }
    });
}

/// D4: at no moment may more connect than are to: another thread looks all the time.
fn the_mode_is_never_wider<A: Api>() {
    lab::in_process(&name::<A>("the_mode_is_never_wider"), Duration::from_secs(20), || {
        system::set_umask(0);
        let group = [Opt::UnixOwner(None, Some(4321)), Opt::UnixMode(0o640)];
        let wanted: [&[Opt<'_, A>]; 2] = [&[Opt::UnixMode(0o640)], &group];
        let rounds = if me().0 == 0 { 2 } else { 1 };
        for options in &wanted[..rounds] {
            let dir = TempDir::new();
            let (path, stop, seen) = (dir.path("s"), AtomicBool::new(false), AtomicU32::new(0));
            let gid = if options.len() == 2 { 4321 } else { me().1 };
            thread::scope(|scope| {
                let look = scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(file) = std::fs::symlink_metadata(&path) {
                            // Nobody of a group that it is not to have.
                            let most = if file.gid() == gid { 0o640 } else { 0 };
                            assert_eq!(file.permissions().mode() & 0o777 & !most, 0);
                            seen.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
                let stopped = OnDrop(|| stop.store(true, Ordering::Relaxed));
                let mut rounds = 0;
                while rounds < 300 || seen.load(Ordering::Relaxed) < 100 {
                    drop(A::listen(&dir.endpoint("s"), options).unwrap());
                    assert!(!look.is_finished(), "it was wider");
                    rounds += 1;
                }
                drop(stopped);
                look.join().unwrap();
            });
        }
        // The moment between is short, so: it is made as it is to be, and nothing changes it.
        #[cfg(target_arch = "x86_64")]
        lab::forbid(libc::SYS_chmod, None, libc::EIO);
        lab::forbid(libc::SYS_fchmodat, None, libc::EIO);
        let dir = TempDir::new();
        let _server = A::listen(&dir.endpoint("s"), &[Opt::UnixMode(0o640)]).unwrap();
        assert_eq!(mode(&dir.path("s")), 0o640);
    });
}

/// D4: owner and group, each by itself.
fn the_owner_of_the_file<A: Api>() {
    let (uid, gid) = me();
    if uid != 0 {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped: not root");
        return println!("the_owner_of_the_file: skipped: only root gives files away");
    }
    let dir = TempDir::new();
    for (n, (owner, group)) in
        [(Some(1234), None), (None, Some(4321)), (Some(1234), Some(4321)), (None, None)]
            .into_iter()
            .enumerate()
    {
        let name = n.to_string();
        let options = [Opt::UnixOwner(owner, group), Opt::UnixMode(0o660)];
        let server = A::listen(&dir.endpoint(&name), &options).unwrap();
        let file = std::fs::symlink_metadata(dir.path(&name)).unwrap();
        assert_eq!((file.uid(), file.gid()), (owner.unwrap_or(uid), group.unwrap_or(gid)));
        assert_eq!(mode(&dir.path(&name)), 0o660);
        drop(server);
        assert!(!dir.path(&name).exists());
    }
}

/// D4: another user may not; the file is removed again, and another server can have the path.
fn only_root_gives_files_away<A: Api>() {
    lab::in_process(&name::<A>("only_root_gives_files_away"), Duration::from_secs(20), || {
        let dir = TempDir::new();
        std::fs::set_permissions(dir.path(""), std::fs::Permissions::from_mode(0o777)).unwrap();
        let uid = me().0;
        let other = if uid == 0 { 4711 } else { uid };
        system::as_user(other, || {
            let given = [Opt::UnixOwner(Some(other + 1), None)];
            let refused = A::listen(&dir.endpoint("s"), &given);
            assert_eq!(&*fails(refused, ErrorKind::PermissionDenied).stage, "bind");
            assert!(!dir.path("s").exists());
            let own = [Opt::UnixOwner(Some(other), None), Opt::UnixMode(0o600)];
            let _server = A::listen(&dir.endpoint("s"), &own).unwrap();
            assert_eq!(mode(&dir.path("s")), 0o600);
        });
    });
}

/// D4: a mode that is none, and names that have no file: nobody listens, and no file is left.
fn files_that_cannot_be_made_so<A: Api>() {
    let dir = TempDir::new();
    let invalid = |endpoint: &str, options: &[Opt<'_, A>]| {
        fails(A::listen(endpoint, options), ErrorKind::InvalidArgument).message
    };
    let message = invalid(&dir.endpoint("s"), &[Opt::UnixMode(0o1777)]);
    assert!(message.contains("0o1777"), "{message}");
    assert!(!dir.path("s").exists());
    for option in [Opt::UnixMode(0o600), Opt::UnixOwner(None, Some(0))] {
        let message = invalid("unix:@keepsock-no-file", &[option]);
        assert!(message.contains("listening on a path"), "{message}");
    }
}

/// D4: nothing is silently ignored.
fn options_of_unix_sockets_only<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let unix = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let options: [fn() -> Opt<'static, A>; 4] = [
        || Opt::UnixMode(0o600),
        || Opt::UnixOwner(Some(0), None),
        || Opt::AllowUser(0),
        || Opt::Sequenced(true),
    ];
    for (number, option) in options.iter().enumerate() {
        let invalid = |outcome: Outcome<()>| fails(outcome, ErrorKind::InvalidArgument);
        invalid(A::listen("127.0.0.1:0", &[option()]).map(drop));
        invalid(A::listen_all(&["127.0.0.1:0", &dir.endpoint("t")], &[option()]).map(drop));
        assert!(!dir.path("t").exists());
        invalid(A::connect(&server.endpoint(), &[option()]).map(drop));
        invalid(A::start(&server.endpoint(), &[option()]).map(drop));
        invalid(A::bind("127.0.0.1:0", &[option()]).map(drop));
        // What is for listeners.
        if number < 3 {
            invalid(A::connect(&unix.endpoint(), &[option()]).map(drop));
        }
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(A::adopt_server(tcp.into(), &[option()]).is_err());
        // A stream that exists has its file, and is a stream.
        if number != 2 {
            let listener = UnixListener::bind(dir.path("u")).unwrap();
            assert!(A::adopt_server(listener.into(), &[option()]).is_err());
            std::fs::remove_file(dir.path("u")).unwrap();
        }
    }
    // But whom it lets in can be chosen.
    let (uid, _) = me();
    let listener = UnixListener::bind(dir.path("u")).unwrap();
    let server = A::adopt_server(listener.into(), &[Opt::AllowUser(uid + 1)]);
    let server = server.map_err(|(_, failure)| failure).unwrap();
    server.set_nonblocking(true).unwrap();
    let _client = A::connect(&dir.endpoint("u"), &[]).unwrap();
    fails(server.accept(), ErrorKind::WouldBlock);
    assert_eq!(server.counters().denied, 1);
}

// ---- packets (D4) -----------------------------------------------------------------------------------

fn packets<A: Api>() -> Pair<A> {
    pair_with::<A>(Transport::Unix, &[Opt::Sequenced(true), Opt::CloseTimeout(0)])
}

/// D4: each write is one packet, each read receives one.
fn packets_stay_whole<A: Api>() {
    let p = packets::<A>();
    assert_eq!(p.client.five_tuple().protocol, Protocol::UnixPacket as i32);
    assert_eq!(p.accepted.five_tuple().protocol, Protocol::UnixPacket as i32);
    assert!(p.client.name().starts_with("unix-packet "), "{}", p.client.name());
    p.client.write_all(b"one").unwrap();
    assert_eq!(p.client.write(b"second").unwrap(), 6);
    p.client.write_slices(&[b"a head ", b"", b"and a body"]).unwrap();
    let many: Vec<&[u8]> = (0..3000).map(|_| &b"xy"[..]).collect();
    p.client.write_slices(&many).unwrap();
    let mut buf = [0; 10_000];
    let mut next = || {
        let n = p.accepted.read(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    };
    assert_eq!([next(), next(), next()], ["one", "second", "a head and a body"]);
    assert_eq!(next(), "xy".repeat(3000));
    p.accepted.write_all(b"back").unwrap();
    let (mut first, mut rest) = ([0; 3], [0; 3]);
    assert_eq!(p.client.read_slices(&mut [&mut first, &mut rest]).unwrap(), 4);
    assert_eq!((&first, rest[0]), (b"bac", b'k'));
    p.accepted.close().unwrap();
    assert_eq!(p.client.read(&mut buf).unwrap(), 0);
}

/// D4: that is told, with its length, and the next one comes.
fn a_packet_that_does_not_fit<A: Api>() {
    let p = packets::<A>();
    for options in [None, Some(A::token())] {
        p.accepted.set_cancel(options.as_ref());
        let reads: [Call<A>; 3] = [
            |c| c.read(&mut [0; 4]).map(drop),
            |c| c.read_slices(&mut [&mut [0; 2], &mut [0; 2]]).map(drop),
            |c| c.read_fds(4, 1).map(drop),
        ];
        for read in reads {
            p.client.write_all(b"longer than that").unwrap();
            p.client.write_all(b"fits").unwrap();
            let failure = fails(read(&p.accepted), ErrorKind::TooLong);
            assert!(failure.message.contains("a packet of 16 bytes, and 4"), "{failure:?}");
            let mut buf = [0; 4];
            assert_eq!(p.accepted.read(&mut buf).unwrap(), 4);
            assert_eq!(&buf, b"fits");
        }
    }
}

/// D4: a packet that the system's buffer cannot hold is refused, whole.
fn a_packet_too_long_for_the_system<A: Api>() {
    let p = packets::<A>();
    let long = vec![0; 8 << 20];
    fails(p.client.write_all(&long), ErrorKind::TooLong);
    fails(p.client.write(&long), ErrorKind::TooLong);
    fails(p.client.write_slices(&[&long, b"x"]), ErrorKind::TooLong);
    fails(p.client.write_fds(&long, &[]), ErrorKind::TooLong);
    // The connection goes on.
    p.client.write_all(b"short").unwrap();
    assert_eq!(p.accepted.read(&mut [0; 64]).unwrap(), 5);
}

/// D4: what has no meaning for packets is refused, with words.
fn what_packets_cannot_do<A: Api>() {
    let p = packets::<A>();
    p.client.write_all(b"line\n").unwrap();
    let wrong = |outcome: Outcome<()>| {
        let failure = fails(outcome, ErrorKind::WrongState);
        assert!(failure.message.contains("a socket for packets"), "{failure:?}");
    };
    wrong(p.accepted.read_exact(&mut [0; 2]));
    wrong(p.accepted.read_until(b';', 64).map(drop));
    wrong(p.accepted.read_line(64).map(drop));
    wrong(p.accepted.read_message(keepsock::LengthPrefix::U8, 64).map(drop));
    wrong(p.accepted.write_message(keepsock::LengthPrefix::U8, b"x"));
    let file = file_with("x");
    wrong(p.accepted.send_file(file.as_raw_fd(), 0, 1).map(drop));
    // None of that has taken the packet.
    assert_eq!(p.accepted.read(&mut [0; 64]).unwrap(), 5);

    let empty = |outcome: Outcome<()>| {
        let failure = fails(outcome, ErrorKind::InvalidArgument);
        assert!(failure.message.contains("an empty packet"), "{failure:?}");
    };
    empty(p.client.write_all(b""));
    empty(p.client.write(b"").map(drop));
    empty(p.client.write_slices(&[b"", b""]));
    empty(p.client.write_slices(&[]));

    // Serving by events is for streams.
    let failure = fails(p.server.serve_events(&[], On::default()), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("packets are not served by events"), "{failure:?}");
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = server.serve_events(&[], On::default()).unwrap();
    let options = [Opt::Sequenced(true)];
    fails(service.connect(&p.server.endpoint(), &options, 1), ErrorKind::InvalidArgument);
    let Err((_client, failure)) = service.add(p.client, 1) else {
        panic!("it was added");
    };
    assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
}

/// I1, T1, T3, V1: time, token, close, the end; and a thread for each.
fn packets_wait_end_and_are_served<A: Api>() {
    let calls: [Call<A>; 2] = [
        |c| c.read(&mut [0; 64]).map(drop),
        |c| {
            loop {
                c.write_all(&[0; 1000])?;
            }
        },
    ];
    for call in calls {
        let p = packets::<A>();
        p.client.set_read_timeout(150).unwrap();
        p.client.set_write_timeout(150).unwrap();
        fails(call(&p.client), ErrorKind::TimedOut);
        let (p, token) = (packets::<A>(), A::token());
        p.client.set_cancel(Some(&token));
        let (outcome, _) = while_waiting(|| call(&p.client), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
        let p = packets::<A>();
        let (outcome, _) = while_waiting(|| call(&p.client), || drop(p.client.close()));
        fails(outcome, ErrorKind::Closed);
        let p = packets::<A>();
        p.client.set_nonblocking(true).unwrap();
        fails(call(&p.client), ErrorKind::WouldBlock);
    }
    let server = unnamed::<A>("packets", &[Opt::Sequenced(true)]);
    let echo = |c: &A::Client| {
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = c.read(&mut buf) {
            c.write_all(&buf[..n]).unwrap();
        }
    };
    let service = server.serve(&[], Box::new(echo)).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::Sequenced(true)]).unwrap();
    let mut connecting = A::start(&server.endpoint(), &[Opt::Sequenced(true)]).unwrap();
    let other = connecting.wait().unwrap();
    for packet in [&b"a"[..], b"packet", b"and another"] {
        client.write_all(packet).unwrap();
        other.write_all(packet).unwrap();
    }
    for c in [client, other] {
        let mut buf = [0; 64];
        for packet in [&b"a"[..], b"packet", b"and another"] {
            let n = c.read(&mut buf).unwrap();
            assert_eq!(&buf[..n], packet);
        }
        c.close().unwrap();
    }
    eventually("both are served", || service.connections() == 0);
}

/// D4: descriptors go with packets, too.
fn packets_carry_descriptors<A: Api>() {
    lab::in_process(&name::<A>("packets_carry_descriptors"), Duration::from_secs(20), || {
        let p = packets::<A>();
        let file = file_with("inside");
        let before = lab::count_descriptors();
        p.client.write_fds(b"one", &[file.as_raw_fd()]).unwrap();
        p.client.write_fds(b"two", &[file.as_raw_fd(); 3]).unwrap();
        p.client.write_fds(b"too long", &[file.as_raw_fd(); 3]).unwrap();
        p.client.write_fds(b"read plainly", &[file.as_raw_fd(); 3]).unwrap();
        let mut got = p.accepted.read_fds(64, 2).unwrap();
        assert_eq!((got.bytes.as_slice(), got.fds.len(), got.lost), (&b"one"[..], 1, false));
        assert_eq!(content(got.fds.pop().unwrap()), "inside");
        let got = p.accepted.read_fds(64, 2).unwrap();
        assert_eq!((got.bytes.as_slice(), got.fds.len(), got.lost), (&b"two"[..], 2, true));
        drop(got);
        fails(p.accepted.read_fds(3, 3), ErrorKind::TooLong);
        assert_eq!(p.accepted.read(&mut [0; 64]).unwrap(), 12);
        assert_eq!(lab::count_descriptors(), before);
    });
}

/// D4: those of others, connected and listening.
fn packet_sockets_are_taken_over<A: Api>() {
    let (ours, peer) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let client = A::adopt_client(ours.into(), &[Opt::CloseTimeout(0)]);
    let client = client.map_err(|(_, failure)| failure).unwrap();
    peer.send(b"one").unwrap();
    peer.send(b"two").unwrap();
    assert_eq!(client.read(&mut [0; 64]).unwrap(), 3);
    fails(client.read_line(64), ErrorKind::WrongState);
    assert_eq!(client.five_tuple().protocol, Protocol::UnixPacket as i32);

    let dir = TempDir::new();
    let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(dir.path("s")).unwrap()).unwrap();
    listener.listen(8).unwrap();
    let server = A::adopt_server(listener.into(), &[]).map_err(|(_, failure)| failure).unwrap();
    let options = [Opt::Sequenced(true), Opt::CloseTimeout(0)];
    let client = A::connect(&dir.endpoint("s"), &options).unwrap();
    let accepted = server.accept().unwrap();
    client.write_all(b"one").unwrap();
    assert_eq!(accepted.read(&mut [0; 64]).unwrap(), 3);
    fails(accepted.read_line(64), ErrorKind::WrongState);
    fails(server.serve_events(&[], On::default()), ErrorKind::InvalidArgument);
}

/// D4: both sides must want the same, and a live socket of the other kind is not taken for dead.
fn a_stream_does_not_connect_to_packets<A: Api>() {
    let dir = TempDir::new();
    let endpoint = dir.endpoint("s");
    for listens in [false, true] {
        let server = A::listen(&endpoint, &[Opt::Sequenced(listens)]).unwrap();
        let failure = fails(A::connect(&endpoint, &[Opt::Sequenced(!listens)]), ErrorKind::Os);
        assert_eq!(failure.os_error, libc::EPROTOTYPE);
        fails(A::listen(&endpoint, &[Opt::Sequenced(!listens)]), ErrorKind::AddressInUse);
        drop(A::connect(&endpoint, &[Opt::Sequenced(listens)]).unwrap());
        drop(server);
    }
    // One that is left behind is replaced.
    let dead = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    dead.bind(&socket2::SockAddr::unix(dir.path("s")).unwrap()).unwrap();
    drop(dead);
    drop(A::listen(&endpoint, &[Opt::Sequenced(true)]).unwrap());
}

/// D4: who cannot be told is not let in, and no number stands for nobody: (uid_t)-1 is refused.
fn nobody_is_no_user_who_may_connect<A: Api>() {
    let test = name::<A>("nobody_is_no_user_who_may_connect");
    lab::in_process(&test, Duration::from_secs(20), || {
        let dir = TempDir::new();
        let nobody = || [Opt::AllowUser(me().0), Opt::AllowUser(u32::MAX)];
        let message = fails(A::listen(&dir.endpoint("s"), &nobody()), ErrorKind::InvalidArgument);
        assert!(message.message.contains("allow_user"), "{message:?}");
        fails(A::bind(&dir.endpoint("s"), &nobody()), ErrorKind::InvalidArgument);

        let server = unnamed::<A>("nobody", &[Opt::AllowUser(me().0)]);
        server.set_nonblocking(true).unwrap();
        let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
        lab::forbid(libc::SYS_getsockopt, None, libc::EPERM);
        fails(server.accept(), ErrorKind::WouldBlock);
        assert_eq!((server.counters().accepted, server.counters().denied), (0, 1));
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    });
}
