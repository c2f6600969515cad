//! Features of Unix sockets (D4): passed descriptors (L7), peer credentials, mode and owner of the
//! file, seqpacket sockets.

use crate::support::os::unix::net::{UnixListener, UnixStream};
use crate::support::os::{AsRawFd, OwnedFd, RawFd};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support;
use crate::support::*;
use crate::support::{limits, process, watch};
use keepsock::{ErrorKind, Protocol};
use socket2::{Domain, Socket, Type};

both_apis![
    write_fds_passes_a_file,
    passed_listener_refuses_no_client,
    write_fds_beyond_253_descriptors_is_rejected,
    write_fds_of_invalid_descriptors_is_rejected,
    read_fds_beyond_the_request_closes_the_rest,
    read_fds_with_a_full_table_reports_lost_descriptors,
    write_fds_with_too_many_in_transit_fails,
    read_fds_and_write_fds_obey_timeout_token_and_close,
    write_fds_during_write_waits_for_its_end,
    read_fds_returns_buffered_bytes_first,
    write_fds_with_partial_write_sends_all_descriptors_once,
    denied_flood_keeps_the_accept_timeout,
    unix_mode_is_set_whatever_the_umask,
    unix_mode_without_proc_is_set,
    unix_mode_during_listen_is_never_wider,
    unix_owner_sets_user_and_group,
    unix_owner_without_root_fails,
    unix_mode_that_is_invalid_leaves_no_file,
    packets_keep_their_boundaries,
    read_of_packet_beyond_buffer_reports_its_length,
    write_of_oversized_packet_is_rejected,
    packets_deliver_passed_descriptors,
    connect_to_socket_of_other_type_fails,
    path_of_108_bytes_is_listened_on_and_connected,
    path_with_leading_at_sign_is_not_abstract,
    #[cfg(feature = "datagram")] {
        passed_sockets_of_each_kind_remain_usable,
        unix_options_without_effect_are_rejected,
        allow_uid_of_minus_one_is_rejected,
    }
    #[cfg(feature = "serve")] {
        unrequested_descriptors_are_closed,
        peer_credentials_of_unix_client_are_reported,
        connections_of_denied_users_are_rejected,
        peer_name_hostile_is_escaped_everywhere,
        stream_calls_on_packets_are_rejected,
        packets_obey_timeouts_and_are_served,
        packet_descriptors_are_adopted,
    }
];

type Call<A> = fn(&<A as Api>::Client) -> Outcome<()>;

/// A server with a unique abstract name.
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

/// Sends descriptors without keepsock.
fn send_raw(socket: &UnixStream, bytes: &[u8], fds: &[RawFd]) -> std::io::Result<usize> {
    system::send_fds(socket.as_raw_fd(), bytes, fds)
}

/// Opens descriptors until the table is full.
fn hoard() -> Vec<File> {
    let open = || File::open("/dev/null");
    std::iter::repeat_with(open).map_while(Result::ok).collect()
}

// ---- descriptors (D4, L7) ------------------------------------------------------------------------

/// D4: a file descriptor arrives with its bytes, close-on-exec from the start.
fn write_fds_passes_a_file<A: Api>() {
    let p = pair_of_unix::<A>();
    let file = file_with("inside");
    assert_eq!(p.client.write_fds(b"take this", &[file.as_raw_fd()]).unwrap(), 9);
    drop(file);
    let mut got = p.accepted.read_fds(64, 4).unwrap();
    assert_eq!((got.bytes.as_slice(), got.fds.len(), got.truncated), (&b"take this"[..], 1, false));
    let fd = got.fds.pop().unwrap();
    assert!(system::is_cloexec(fd.as_raw_fd()));
    assert_eq!(content(fd), "inside");
    // Bytes without descriptors arrive without descriptors, in both directions.
    assert_eq!(p.accepted.write_fds(b"thanks", &[]).unwrap(), 6);
    let got = p.client.read_fds(64, 4).unwrap();
    assert_eq!((got.bytes.as_slice(), got.fds.len(), got.truncated), (&b"thanks"[..], 0, false));
    p.accepted.close().unwrap();
    let end = p.client.read_fds(64, 4).unwrap();
    assert_eq!((end.bytes.len(), end.fds.len(), end.truncated), (0, 0, false));
}

/// L7: passed connections and datagram sockets continue in their receiver.
#[cfg(feature = "datagram")]
fn passed_sockets_of_each_kind_remain_usable<A: Api>() {
    let p = pair_of_unix::<A>();
    let tcp = pair::<A>(Transport::Tcp);
    let datagram = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let fds = [tcp.accepted.fd().unwrap(), datagram.fd().unwrap()];
    p.client.write_fds(b"x", &fds).unwrap();
    drop(tcp.accepted.release().unwrap());
    let mut got = p.accepted.read_fds(1, 2).unwrap().fds.into_iter();
    let moved = A::adopt_client(got.next().unwrap(), &[Opt::CloseTimeout(0)]);
    let moved = moved.map_err(|(_, failure)| failure).unwrap();
    moved.write_all(b"from the other hand\n").unwrap();
    assert_eq!(tcp.client.read_line(64).unwrap(), "from the other hand");
    let moved = A::Datagram::adopt(got.next().unwrap(), &[]);
    assert_eq!(moved.map_err(|(_, failure)| failure).unwrap().port(), datagram.port());
}

/// L7: a listening socket is passed to another server while clients connect, and no connection is
/// refused.
fn passed_listener_refuses_no_client<A: Api>() {
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

/// D4: 253 descriptors are sent at once. One more is rejected, and no byte is sent.
fn write_fds_beyond_253_descriptors_is_rejected<A: Api>() {
    process::in_process(
        &test_name!(A, "write_fds_beyond_253_descriptors_is_rejected"),
        Duration::from_secs(20),
        || {
            limits::need_descriptors(1000);
            let p = pair_of_unix::<A>();
            let null = File::open("/dev/null").unwrap();
            let failure = fails(
                p.client.write_fds(b"x", &[null.as_raw_fd(); 254]),
                ErrorKind::InvalidArgument,
            );
            assert!(
                failure
                    .message
                    .contains("254 descriptors are too many: a message carries at most 253"),
                "{failure:?}"
            );
            assert_eq!(p.client.write_fds(b"all", &[null.as_raw_fd(); 253]).unwrap(), 3);
            let got = p.accepted.read_fds(8, 253).unwrap();
            assert_eq!(
                (got.bytes.as_slice(), got.fds.len(), got.truncated),
                (&b"all"[..], 253, false)
            );
            fails(p.accepted.read_fds(8, 254), ErrorKind::InvalidArgument);
        },
    );
}

/// D4: descriptors that cannot be passed are rejected, and no byte is sent.
fn write_fds_of_invalid_descriptors_is_rejected<A: Api>() {
    let p = pair_of_unix::<A>();
    let null = File::open("/dev/null").unwrap();
    let failure = fails(p.client.write_fds(b"", &[null.as_raw_fd()]), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("at least one byte"), "{failure:?}");
    // TCP does not carry descriptors.
    let tcp = pair::<A>(Transport::Tcp);
    let failure = fails(tcp.client.write_fds(b"x", &[null.as_raw_fd()]), ErrorKind::Unsupported);
    assert!(failure.message.contains("only Unix sockets"), "{failure:?}");
    fails(tcp.client.read_fds(8, 1), ErrorKind::Unsupported);
    // After shutdown_write, and after close.
    p.client.shutdown_write().unwrap();
    fails(p.client.write_fds(b"x", &[null.as_raw_fd()]), ErrorKind::WrongState);
    p.client.close().unwrap();
    fails(p.client.write_fds(b"x", &[null.as_raw_fd()]), ErrorKind::Closed);
    fails(p.client.read_fds(8, 1), ErrorKind::Closed);
    // After a close of the peer the call fails, and no signal is raised.
    fails(p.accepted.write_fds(b"x", &[null.as_raw_fd()]), ErrorKind::Reset);
}

/// D4: no more descriptors than requested are returned, which is reported. The others are closed.
fn read_fds_beyond_the_request_closes_the_rest<A: Api>() {
    process::in_process(
        &test_name!(A, "read_fds_beyond_the_request_closes_the_rest"),
        Duration::from_secs(20),
        || {
            let p = pair_of_unix::<A>();
            let null = File::open("/dev/null").unwrap();
            let before = watch::count_descriptors();
            for (sent, wanted) in [(5, 4), (100, 3), (253, 1), (253, 252), (1, 0), (253, 0)] {
                p.client.write_fds(b"x", &vec![null.as_raw_fd(); sent]).unwrap();
                let got = p.accepted.read_fds(8, wanted).unwrap();
                assert_eq!((got.fds.len(), got.truncated), (wanted, true), "{sent}, {wanted}");
                assert_eq!(watch::count_descriptors(), before + wanted, "{sent}, {wanted}");
                drop(got);
                assert_eq!(watch::count_descriptors(), before);
            }
        },
    );
}

/// D4: if the descriptor table is full, the loss is reported and the bytes are read.
fn read_fds_with_a_full_table_reports_lost_descriptors<A: Api>() {
    process::in_process(
        &test_name!(A, "read_fds_with_a_full_table_reports_lost_descriptors"),
        Duration::from_secs(20),
        || {
            let p = pair_of_unix::<A>();
            let null = File::open("/dev/null").unwrap();
            p.client.write_fds(b"bytes", &[null.as_raw_fd(); 3]).unwrap();
            limits::limit_descriptors(64);
            let mut hoard = hoard();
            assert!(hoard.pop().is_some());
            let got = p.accepted.read_fds(8, 3).unwrap();
            assert_eq!(
                (got.bytes.as_slice(), got.fds.len(), got.truncated),
                (&b"bytes"[..], 1, true)
            );
        },
    );
}

/// D4: unix(7), ETOOMANYREFS: the number of a user's descriptors in transit has the process's
/// open-file limit.
fn write_fds_with_too_many_in_transit_fails<A: Api>() {
    process::in_process(
        &test_name!(A, "write_fds_with_too_many_in_transit_fails"),
        Duration::from_secs(20),
        || {
            let p = pair_of_unix::<A>();
            let null = File::open("/dev/null").unwrap();
            limits::limit_descriptors(64);
            p.client.set_nonblocking(true).unwrap();
            // The limit does not apply to root. All processes of a user share the count: a user of
            // its own for each process.
            let unused = 100_000 + std::process::id();
            system::as_user(if me().0 == 0 { unused } else { me().0 }, || {
                let send = || p.client.write_fds(b"x", &[null.as_raw_fd(); 30]);
                let failure = std::iter::repeat_with(send).take(20).find_map(Result::err);
                let failure = failure.expect("all descriptors are in transit");
                assert!(failure.is(ErrorKind::NoDescriptors), "{failure:?}");
            });
            // No sent descriptor is lost.
            assert_eq!(p.accepted.read_fds(1, 30).unwrap().fds.len(), 30);
        },
    );
}

/// D4: a peer that always sends descriptors does not fill a process that did not request them: with
/// plain reads, `serve` and `serve_events`.
#[cfg(feature = "serve")]
fn unrequested_descriptors_are_closed<A: Api>() {
    const ROUNDS: usize = 20;
    const EACH: usize = 253;
    const TEST: &str = "unrequested_descriptors_are_closed";
    process::in_process(&test_name!(A, TEST), Duration::from_secs(25), || {
        let null = File::open("/dev/null").unwrap();
        let flood = |peer: &UnixStream, answered: &mut dyn FnMut()| {
            let before = watch::count_descriptors();
            for _ in 0..ROUNDS {
                let fds = [null.as_raw_fd(); EACH];
                assert_eq!(send_raw(peer, b"line\n", &fds).unwrap(), 5);
                answered();
                assert_eq!(watch::count_descriptors(), before);
            }
        };
        // The control case: a call that requests descriptors gets them.
        let (client, peer) = with_unix_peer::<A>();
        send_raw(&peer, b"line\n", &[null.as_raw_fd(); EACH]).unwrap();
        assert_eq!(client.read_fds(8, EACH).unwrap().fds.len(), EACH);
        let reads: [fn(&A::Client); 5] = [
            |c| assert_eq!(c.read(&mut [0; 64]).unwrap(), 5),
            |c| assert_eq!(c.read_slices(&mut [&mut [0; 2], &mut [0; 9]]).unwrap(), 5),
            |c| c.read_exact(&mut [0; 5]).unwrap(),
            |c| assert_eq!(c.read_line(64).unwrap(), "line"),
            |c| assert!(c.read_fds(64, 0).unwrap().truncated),
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
            let address =
                crate::support::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
            UnixStream::connect_addr(&address).unwrap()
        };
        let service = server.serve(&[], Box::new(echo)).unwrap();
        let peer = to(&server);
        // The thread that serves the connection exists.
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

/// I1, T1, T3: calls with descriptors obey timeout, token and close as read and write do.
fn read_fds_and_write_fds_obey_timeout_token_and_close<A: Api>() {
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

/// T2: a write with descriptors does not split another write.
fn write_fds_during_write_waits_for_its_end<A: Api>() {
    const LEN: usize = 1 << 20;
    let p = small_pair::<A>(Transport::Unix);
    let null = File::open("/dev/null").unwrap();
    thread::scope(|scope| {
        let write = scope.spawn(|| p.client.write_all(&vec![b'a'; LEN]));
        let mut got = vec![0; 1];
        p.accepted.read_exact(&mut got).unwrap();
        // The first write is in progress and waits for room.
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

/// D4: buffered bytes are returned first, and without descriptors.
fn read_fds_returns_buffered_bytes_first<A: Api>() {
    let p = pair_of_unix::<A>();
    let null = File::open("/dev/null").unwrap();
    p.client.write_all(b"line\nrest").unwrap();
    assert_eq!(p.accepted.read_line(64).unwrap(), "line");
    p.client.write_fds(b"next", &[null.as_raw_fd()]).unwrap();
    let got = p.accepted.read_fds(64, 1).unwrap();
    assert_eq!((got.bytes.as_slice(), got.fds.len(), got.truncated), (&b"rest"[..], 0, false));
    let got = p.accepted.read_fds(64, 1).unwrap();
    assert_eq!((got.bytes.as_slice(), got.fds.len(), got.truncated), (&b"next"[..], 1, false));
}

/// D4: if the kernel accepts a part of the bytes, all descriptors are sent with it, once.
fn write_fds_with_partial_write_sends_all_descriptors_once<A: Api>() {
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
        assert!(!got.truncated);
    }
    assert_eq!(came, 2);
}

// ---- peer credentials (D4) --------------------------------------------------------------------------

fn me() -> (u32, u32) {
    let own = std::fs::metadata("/proc/self").unwrap();
    (own.uid(), own.gid())
}

/// D4: process, user and group of the peer are reported. TCP has none.
#[cfg(feature = "serve")]
fn peer_credentials_of_unix_client_are_reported<A: Api>() {
    let p = pair_of_unix::<A>();
    let (uid, gid) = me();
    let expected = Peer { pid: i64::from(std::process::id()), uid, gid };
    assert_eq!(p.client.peer_credentials().unwrap(), expected);
    assert_eq!(p.accepted.peer_credentials().unwrap(), expected);
    p.client.close().unwrap();
    fails(p.client.peer_credentials(), ErrorKind::Closed);
    let tcp = pair::<A>(Transport::Tcp);
    fails(tcp.client.peer_credentials(), ErrorKind::Unsupported);

    // The same in an event loop.
    let server = unnamed::<A>("who", &[]);
    let (tell, told) = mpsc::channel();
    let on = On::<A> {
        open: Some(Box::new(move |c| tell.send(c.peer_credentials()).unwrap())),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    let _client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    let patience = Duration::from_secs(60);
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

/// N4, S4: a hostile peer name forges no line and no terminal control in names, five-tuples, errors
/// and the text of a service, and remains valid UTF-8 where it is truncated.
#[cfg(feature = "serve")]
fn peer_name_hostile_is_escaped_everywhere<A: Api>() {
    let server = unnamed::<A>("hostile", &[Opt::CloseTimeout(0)]);
    let to = server.endpoint().replacen("unix:@", "\0", 1);
    let own = format!("\0{}-{}", std::process::id(), A::NUMBER);
    let connect = |name: &[u8]| {
        let name = [own.as_bytes(), name].concat();
        let unix =
            |name: &[u8]| socket2::SockAddr::unix(std::ffi::OsStr::from_bytes(name)).unwrap();
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&unix(&name)).unwrap();
        socket.connect(&unix(to.as_bytes())).unwrap();
        socket
    };
    let peer = connect(b"\nroot\x1b[31m\xff\\");
    let client = server.accept().unwrap();
    let escaped = format!("@{}\\x0aroot\\x1b[31m\\xff\\\\", &own[1..]);
    assert_eq!(client.five_tuple().remote.0, escaped);
    assert!(client.name().ends_with(&format!("-> unix:{escaped}")), "{}", client.name());
    client.set_read_timeout(20).unwrap();
    let failure = fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
    assert!(failure.message.contains(&escaped), "{failure:?}");
    drop((peer, client));
    // The name contains neither the arrow of a five-tuple nor invisible characters.
    let _peer = connect("p -> unix:@z\u{200b}\u{feff}".as_bytes());
    let name = server.accept().unwrap().name();
    assert_eq!(name.matches(" -> ").count(), 1, "{name}");
    assert!(name.ends_with("p -\\x3e unix:@z\\xe2\\x80\\x8b\\xef\\xbb\\xbf"), "{name}");
    // The longest name: too long for the C fields once it is escaped.
    for byte in [&b"\xff"[..], "\u{e4}".as_bytes()] {
        let _peer = connect(&byte.repeat((107 - own.len()) / byte.len()));
        let host = server.accept().unwrap().five_tuple().remote.0;
        assert!(!host.contains(char::REPLACEMENT_CHARACTER), "{host:?}");
        assert!(host.starts_with(&own.replace('\0', "@")));
        // No escape sequence is split.
        format!("unix:{host}").parse::<keepsock::Endpoint>().unwrap();
    }
    let service = server.serve_events(&[], On::default()).unwrap();
    let _peer = connect(b"\nconnections 0\r");
    support::eventually("the connection is served", || service.connections() == 1);
    let dump = service.dump();
    assert!(dump.contains("\\x0aconnections 0\\x0d"), "{dump}");
    assert!(!dump.lines().any(|line| line == "connections 0"), "{dump}");
}

/// D4: connections of other users are closed before the program sees them, in each serving mode,
/// and counted.
#[cfg(feature = "serve")]
fn connections_of_denied_users_are_rejected<A: Api>() {
    let (uid, _) = me();
    let client = |server: &A::Server| {
        let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(60_000)];
        A::connect(&server.endpoint(), &options).unwrap()
    };
    // Several calls add users.
    let both = [Opt::AllowUid(uid + 1), Opt::AllowUid(uid), Opt::CloseTimeout(0)];
    let server = unnamed::<A>("both", &both);
    let c = client(&server);
    server.accept().unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(c.read_line(64).unwrap(), "hello");
    assert_eq!((server.stats().accepted, server.stats().denied), (1, 0));

    let other = [Opt::AllowUid(uid + 1)];
    let is_closed = |c: &A::Client| assert_eq!(c.read(&mut [0; 8]).unwrap(), 0);
    let server = unnamed::<A>("accept", &other);
    server.set_accept_timeout(3000).unwrap();
    let waiting = [client(&server), client(&server)];
    fails(server.accept(), ErrorKind::TimedOut);
    waiting.iter().for_each(is_closed);
    assert_eq!((server.stats().accepted, server.stats().denied), (0, 2));
    server.set_nonblocking(true).unwrap();
    let c = client(&server);
    fails(server.accept(), ErrorKind::WouldBlock);
    is_closed(&c);

    let server = unnamed::<A>("serve", &other);
    let service =
        server.serve(&[], Box::new(|_: &A::Client| panic!("the user is not allowed"))).unwrap();
    is_closed(&client(&server));
    assert_eq!((server.stats().denied, service.connections()), (1, 0));

    let server = unnamed::<A>("events", &other);
    let on =
        On::<A> { open: Some(Box::new(|_| panic!("the user is not allowed"))), ..On::default() };
    let service = server.serve_events(&[], on).unwrap();
    is_closed(&client(&server));
    is_closed(&client(&server));
    assert_eq!((server.stats().accepted, server.stats().denied), (0, 2));
    assert_eq!((service.connections(), service.stats().opened), (0, 0));
}

/// I1: a flood of denied connections extends neither the accept timeout nor the stack.
fn denied_flood_keeps_the_accept_timeout<A: Api>() {
    let (uid, _) = me();
    let server = unnamed::<A>("denied-flood", &[Opt::AllowUid(uid + 1)]);
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
    assert!(server.stats().denied > 10, "{:?}", server.stats());
}

// ---- the file (D4) ----------------------------------------------------------------------------------

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// D4: the file has the configured mode, whatever the umask. The test runs in its own process,
/// because the umask belongs to the whole process.
fn unix_mode_is_set_whatever_the_umask<A: Api>() {
    process::in_process(
        &test_name!(A, "unix_mode_is_set_whatever_the_umask"),
        Duration::from_secs(20),
        || {
            for umask in [0o022, 0o077, 0, 0o777] {
                system::set_umask(umask);
                for wanted in [0o660, 0o600, 0o777, 0o666, 0] {
                    // A directory needs a different mode.
                    system::set_umask(0o022);
                    let dir = TempDir::new();
                    system::set_umask(umask);
                    let server = A::listen(&dir.endpoint("s"), &[Opt::UnixMode(wanted)]).unwrap();
                    assert_eq!(mode(&dir.path("s")), wanted, "umask {umask:o}");
                    drop(server);
                    assert!(!dir.path("s").exists());
                }
            }
            // The control case: without the option the umask determines the mode.
            system::set_umask(0o027);
            let dir = TempDir::new();
            let _server = A::listen(&dir.endpoint("s"), &[]).unwrap();
            assert_eq!(mode(&dir.path("s")), 0o750);
        },
    );
}

/// D4: the mode is also set in a chroot without /proc, from Linux 6.6 on.
fn unix_mode_without_proc_is_set<A: Api>() {
    process::in_process(
        &test_name!(A, "unix_mode_without_proc_is_set"),
        Duration::from_secs(20),
        || {
            let dir = TempDir::new();
            system::set_umask(0o077);
            // The kernel behaves as if /proc did not exist.
            #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
            limits::forbid(libc::SYS_chmod, None, libc::ENOENT);
            limits::forbid(libc::SYS_fchmodat, None, libc::ENOENT);
            match A::listen(&dir.endpoint("s"), &[Opt::UnixMode(0o666)]) {
                Ok(_server) => assert_eq!(mode(&dir.path("s")), 0o666),
                Err(failure) => {
                    assert_eq!(failure.os_error, libc::ENOSYS, "{failure:?}");
                    assert!(!dir.path("s").exists());
                }
            }
        },
    );
}

/// D4: the mode is never wider than configured: another thread checks it repeatedly.
fn unix_mode_during_listen_is_never_wider<A: Api>() {
    process::in_process(
        &test_name!(A, "unix_mode_during_listen_is_never_wider"),
        Duration::from_secs(20),
        || {
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
                                // No access for a group without permission.
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
                        assert!(!look.is_finished(), "the mode was wider");
                        rounds += 1;
                    }
                    drop(stopped);
                    look.join().unwrap();
                });
            }
            // The interval is short, so the test also checks the system calls: the file is created with
            // its final mode.
            #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
            limits::forbid(libc::SYS_chmod, None, libc::EIO);
            limits::forbid(libc::SYS_fchmodat, None, libc::EIO);
            let dir = TempDir::new();
            let _server = A::listen(&dir.endpoint("s"), &[Opt::UnixMode(0o640)]).unwrap();
            assert_eq!(mode(&dir.path("s")), 0o640);
        },
    );
}

/// D4: owner and group can be set separately.
fn unix_owner_sets_user_and_group<A: Api>() {
    let (uid, gid) = me();
    if uid != 0 {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped: not root");
        return println!("unix_owner_sets_user_and_group: skipped: only root can change the owner");
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

/// D4: another user cannot set the owner. The file is removed again, and another server can use the
/// path.
fn unix_owner_without_root_fails<A: Api>() {
    process::in_process(
        &test_name!(A, "unix_owner_without_root_fails"),
        Duration::from_secs(20),
        || {
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
        },
    );
}

/// D4: an invalid mode, or a name without a file, fails. No socket listens, and no file is left.
fn unix_mode_that_is_invalid_leaves_no_file<A: Api>() {
    let dir = TempDir::new();
    let invalid = |endpoint: &str, options: &[Opt<'_, A>]| {
        fails(A::listen(endpoint, options), ErrorKind::InvalidArgument).message
    };
    let message = invalid(&dir.endpoint("s"), &[Opt::UnixMode(0o1777)]);
    assert!(message.contains("01777"), "{message}");
    assert!(!dir.path("s").exists());
    for option in [Opt::UnixMode(0o600), Opt::UnixOwner(None, Some(0))] {
        let message = invalid("unix:@keepsock-no-file", &[option]);
        assert!(message.contains("apply to the socket file"), "{message}");
    }
}

/// D4: an option that has no effect is rejected.
#[cfg(feature = "datagram")]
fn unix_options_without_effect_are_rejected<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let unix = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let options: [fn() -> Opt<'static, A>; 4] = [
        || Opt::UnixMode(0o600),
        || Opt::UnixOwner(Some(0), None),
        || Opt::AllowUid(0),
        || Opt::Seqpacket(true),
    ];
    for (number, option) in options.iter().enumerate() {
        let invalid = |outcome: Outcome<()>| fails(outcome, ErrorKind::InvalidArgument);
        invalid(A::listen("127.0.0.1:0", &[option()]).map(drop));
        invalid(A::listen_all(&["127.0.0.1:0", &dir.endpoint("t")], &[option()]).map(drop));
        assert!(!dir.path("t").exists());
        invalid(A::connect(&server.endpoint(), &[option()]).map(drop));
        invalid(A::start(&server.endpoint(), &[option()]).map(drop));
        invalid(A::Datagram::bind("127.0.0.1:0", &[option()]).map(drop));
        // Options for listeners only.
        if number < 3 {
            invalid(A::connect(&unix.endpoint(), &[option()]).map(drop));
        }
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(A::adopt_server(tcp.into(), &[option()]).is_err());
        // An adopted stream already has its file and its type.
        if number != 2 {
            let listener = UnixListener::bind(dir.path("u")).unwrap();
            assert!(A::adopt_server(listener.into(), &[option()]).is_err());
            std::fs::remove_file(dir.path("u")).unwrap();
        }
    }
    // The allowed users can still be chosen.
    let (uid, _) = me();
    let listener = UnixListener::bind(dir.path("u")).unwrap();
    let server = A::adopt_server(listener.into(), &[Opt::AllowUid(uid + 1)]);
    let server = server.map_err(|(_, failure)| failure).unwrap();
    server.set_nonblocking(true).unwrap();
    let _client = A::connect(&dir.endpoint("u"), &[]).unwrap();
    fails(server.accept(), ErrorKind::WouldBlock);
    assert_eq!(server.stats().denied, 1);
}

// ---- seqpacket (D4) -----------------------------------------------------------------------------------

fn packets<A: Api>() -> Pair<A> {
    pair_with::<A>(Transport::Unix, &[Opt::Seqpacket(true), Opt::CloseTimeout(0)])
}

/// D4: each write sends one packet, and each read receives one.
fn packets_keep_their_boundaries<A: Api>() {
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

/// D4: a packet that does not fit into the buffer is reported with its length, and the next one is
/// received.
fn read_of_packet_beyond_buffer_reports_its_length<A: Api>() {
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
            assert!(
                failure.message.contains("the packet has 16 bytes, and the buffer 4"),
                "{failure:?}"
            );
            let mut buf = [0; 4];
            assert_eq!(p.accepted.read(&mut buf).unwrap(), 4);
            assert_eq!(&buf, b"fits");
        }
    }
}

/// D4: a packet that exceeds the system's buffer is rejected as a whole.
fn write_of_oversized_packet_is_rejected<A: Api>() {
    let p = packets::<A>();
    let long = vec![0; 8 << 20];
    fails(p.client.write_all(&long), ErrorKind::TooLong);
    fails(p.client.write(&long), ErrorKind::TooLong);
    fails(p.client.write_slices(&[&long, b"x"]), ErrorKind::TooLong);
    fails(p.client.write_fds(&long, &[]), ErrorKind::TooLong);
    // The connection remains usable.
    p.client.write_all(b"short").unwrap();
    assert_eq!(p.accepted.read(&mut [0; 64]).unwrap(), 5);
}

/// D4: calls without a meaning for packets are rejected, and the error says why.
#[cfg(feature = "serve")]
fn stream_calls_on_packets_are_rejected<A: Api>() {
    let p = packets::<A>();
    p.client.write_all(b"line\n").unwrap();
    let wrong = |outcome: Outcome<()>| {
        let failure = fails(outcome, ErrorKind::WrongState);
        assert!(failure.message.contains("the socket is SOCK_SEQPACKET"), "{failure:?}");
    };
    wrong(p.accepted.read_exact(&mut [0; 2]));
    wrong(p.accepted.read_until(b';', 64).map(drop));
    wrong(p.accepted.read_line(64).map(drop));
    let framing = keepsock::Framing::Prefixed { format: keepsock::LengthFormat::U8, max: 64 };
    wrong(p.accepted.read_message(&framing).map(drop));
    wrong(p.accepted.write_message(&framing, b"x"));
    let file = file_with("x");
    wrong(p.accepted.send_file(file.as_raw_fd(), 0, 1).map(drop));
    // None of these calls has received the packet.
    assert_eq!(p.accepted.read(&mut [0; 64]).unwrap(), 5);

    let empty = |outcome: Outcome<()>| {
        let failure = fails(outcome, ErrorKind::InvalidArgument);
        assert!(failure.message.contains("the packet is empty"), "{failure:?}");
    };
    empty(p.client.write_all(b""));
    empty(p.client.write(b"").map(drop));
    empty(p.client.write_slices(&[b"", b""]));
    empty(p.client.write_slices(&[]));

    // Event-driven serving requires streams.
    let failure = fails(p.server.serve_events(&[], On::default()), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("seqpacket has no effect"), "{failure:?}");
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = server.serve_events(&[], On::default()).unwrap();
    let options = [Opt::Seqpacket(true)];
    fails(service.connect(&p.server.endpoint(), &options, 1), ErrorKind::InvalidArgument);
    let Err((_client, failure)) = service.add(p.client, 1) else {
        panic!("the client was added");
    };
    assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
}

/// I1, T1, T3, V1: timeout, token, close and end of stream apply to packets. Each connection is
/// served by a thread.
#[cfg(feature = "serve")]
fn packets_obey_timeouts_and_are_served<A: Api>() {
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
    let server = unnamed::<A>("packets", &[Opt::Seqpacket(true)]);
    let echo = |c: &A::Client| {
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = c.read(&mut buf) {
            c.write_all(&buf[..n]).unwrap();
        }
    };
    let service = server.serve(&[], Box::new(echo)).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::Seqpacket(true)]).unwrap();
    let mut connecting = A::start(&server.endpoint(), &[Opt::Seqpacket(true)]).unwrap();
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
    eventually("both connections are closed", || service.connections() == 0);
}

/// D4: packets carry descriptors.
fn packets_deliver_passed_descriptors<A: Api>() {
    process::in_process(
        &test_name!(A, "packets_deliver_passed_descriptors"),
        Duration::from_secs(20),
        || {
            let p = packets::<A>();
            let file = file_with("inside");
            let before = watch::count_descriptors();
            p.client.write_fds(b"one", &[file.as_raw_fd()]).unwrap();
            p.client.write_fds(b"two", &[file.as_raw_fd(); 3]).unwrap();
            p.client.write_fds(b"too long", &[file.as_raw_fd(); 3]).unwrap();
            p.client.write_fds(b"read plainly", &[file.as_raw_fd(); 3]).unwrap();
            let mut got = p.accepted.read_fds(64, 2).unwrap();
            assert_eq!(
                (got.bytes.as_slice(), got.fds.len(), got.truncated),
                (&b"one"[..], 1, false)
            );
            assert_eq!(content(got.fds.pop().unwrap()), "inside");
            let got = p.accepted.read_fds(64, 2).unwrap();
            assert_eq!(
                (got.bytes.as_slice(), got.fds.len(), got.truncated),
                (&b"two"[..], 2, true)
            );
            drop(got);
            fails(p.accepted.read_fds(3, 3), ErrorKind::TooLong);
            assert_eq!(p.accepted.read(&mut [0; 64]).unwrap(), 12);
            assert_eq!(watch::count_descriptors(), before);
        },
    );
}

/// D4: connected and listening seqpacket descriptors are adopted.
#[cfg(feature = "serve")]
fn packet_descriptors_are_adopted<A: Api>() {
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
    let options = [Opt::Seqpacket(true), Opt::CloseTimeout(0)];
    let client = A::connect(&dir.endpoint("s"), &options).unwrap();
    let accepted = server.accept().unwrap();
    client.write_all(b"one").unwrap();
    assert_eq!(accepted.read(&mut [0; 64]).unwrap(), 3);
    fails(accepted.read_line(64), ErrorKind::WrongState);
    fails(server.serve_events(&[], On::default()), ErrorKind::InvalidArgument);
}

/// D4: both sides must use the same type, and a live socket of the other type is not replaced as
/// stale.
fn connect_to_socket_of_other_type_fails<A: Api>() {
    let _no_copies = process::no_starts();
    let dir = TempDir::new();
    let endpoint = dir.endpoint("s");
    for listens in [false, true] {
        let server = A::listen(&endpoint, &[Opt::Seqpacket(listens)]).unwrap();
        let failure = fails(A::connect(&endpoint, &[Opt::Seqpacket(!listens)]), ErrorKind::Os);
        assert_eq!(failure.os_error, libc::EPROTOTYPE);
        let requested = if listens { "a stream was requested" } else { "seqpacket was requested" };
        assert!(failure.message.contains(requested), "{failure:?}");
        fails(A::listen(&endpoint, &[Opt::Seqpacket(!listens)]), ErrorKind::AddressInUse);
        drop(A::connect(&endpoint, &[Opt::Seqpacket(listens)]).unwrap());
        drop(server);
    }
    // A stale socket of the other type is replaced.
    let dead = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    dead.bind(&socket2::SockAddr::unix(dir.path("s")).unwrap()).unwrap();
    drop(dead);
    drop(A::listen(&endpoint, &[Opt::Seqpacket(true)]).unwrap());
}

/// D4: a peer without credentials is rejected, and the user ID (uid_t)-1 is not accepted as an
/// option.
#[cfg(feature = "datagram")]
fn allow_uid_of_minus_one_is_rejected<A: Api>() {
    let test = test_name!(A, "allow_uid_of_minus_one_is_rejected");
    process::in_process(&test, Duration::from_secs(20), || {
        let dir = TempDir::new();
        let nobody = || [Opt::AllowUid(me().0), Opt::AllowUid(u32::MAX)];
        let message = fails(A::listen(&dir.endpoint("s"), &nobody()), ErrorKind::InvalidArgument);
        assert!(message.message.contains("allowed_uid"), "{message:?}");
        fails(A::Datagram::bind(&dir.endpoint("s"), &nobody()), ErrorKind::InvalidArgument);

        let server = unnamed::<A>("nobody", &[Opt::AllowUid(me().0)]);
        server.set_nonblocking(true).unwrap();
        let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
        limits::forbid(libc::SYS_getsockopt, None, libc::EPERM);
        fails(server.accept(), ErrorKind::WouldBlock);
        assert_eq!((server.stats().accepted, server.stats().denied), (0, 1));
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    });
}

/// D4: a path that fills sun_path, without a final NUL, is a valid endpoint.
fn path_of_108_bytes_is_listened_on_and_connected<A: Api>() {
    let dir = TempDir::new();
    let path = dir.path(&"x".repeat(108 - dir.path("").as_os_str().len()));
    assert_eq!(path.as_os_str().len(), 108);
    let endpoint = format!("unix:{}", path.display());
    for mode in [None, Some(0o600)] {
        let options: Vec<_> = mode.map(Opt::UnixMode).into_iter().collect();
        let server = A::listen(&endpoint, &options).unwrap();
        assert_eq!(server.endpoint(), endpoint);
        let client = A::connect(&endpoint, &[]).unwrap();
        let accepted = server.accept().unwrap();
        assert_eq!(client.name(), format!("unix unix:(unnamed) -> {endpoint}"));
        assert_eq!(accepted.name(), format!("unix {endpoint} -> unix:(unnamed)"));
        client.write_all(b"x").unwrap();
        assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 1);
        fails(A::listen(&endpoint, &[]), ErrorKind::AddressInUse);
        drop(server);
        assert!(!path.exists());
        // A file without a listening process is replaced.
        crate::support::os::unix::net::UnixListener::bind(dir.path("short")).map(drop).unwrap();
        std::fs::rename(dir.path("short"), &path).unwrap();
    }
}

/// S4: a relative path that begins with "@" prints as text that parses to the same path.
fn path_with_leading_at_sign_is_not_abstract<A: Api>() {
    let dir = TempDir::new();
    process::in_process(
        &test_name!(A, "path_with_leading_at_sign_is_not_abstract"),
        Duration::from_secs(20),
        || {
            std::env::set_current_dir(dir.path("")).unwrap();
            let server = A::listen(r"unix:\x40at", &[]).unwrap();
            assert!(dir.path("@at").exists());
            assert_eq!(server.endpoint(), r"unix:\x40at");
            let client = A::connect(&server.endpoint(), &[]).unwrap();
            assert_eq!(client.five_tuple().remote.0, r"\x40at");
            assert_eq!(client.name(), r"unix unix:(unnamed) -> unix:\x40at");
            assert_eq!(server.accept().unwrap().five_tuple().local.0, r"\x40at");
            fails(A::connect("unix:@at", &[]), ErrorKind::Refused);
            let failure = fails(A::connect("./@at", &[]), ErrorKind::InvalidEndpoint);
            assert!(failure.message.contains("write unix:./@at"), "{failure:?}");
        },
    );
}
