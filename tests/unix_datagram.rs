//! D4, S3: Unix datagram sockets, with paths and abstract names, through both APIs.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::{Duration, SystemTime};

use common::{
    Api, DatagramService, Datagrams, INFINITE, Opt, TempDir, Token, fails, promptly, system, timed,
    while_waiting,
};
use keepsock::{ErrorKind, Protocol};

both_apis![
    question_and_answer,
    names_in_the_abstract_namespace,
    a_sender_without_a_name,
    a_client_with_a_path,
    a_stale_path_is_taken_over,
    a_live_path_is_not,
    the_file_goes_with_the_socket,
    a_peer_that_comes_back,
    a_peer_that_is_gone,
    a_full_queue_is_waited_for,
    a_full_queue_and_limits,
    names_that_are_none,
    the_longest_and_the_shortest,
    batches,
    what_only_udp_has,
    times_are_told,
    descriptors_that_nobody_takes,
    descriptors_go_along,
    descriptors_that_do_not_fit,
    who_sent_it,
    users_who_may_send,
    a_file_with_its_mode,
    a_peer_that_receives_no_more,
    strangers_are_not_heard,
    shut_down_by_somebody_else,
    a_peer_by_a_relative_path,
    processes_that_nobody_takes,
    taken_over,
    serving,
    a_batch_of_answers,
    a_pair_without_names,
    details_and_users_who_may_send,
];

/// Room for names that differ for each API and test.
fn abstract_name<A: Api>(test: &str) -> String {
    format!("unix:@keepsock-{}-{}-{test}", std::process::id(), A::NUMBER)
}

fn pair<A: Api>(dir: &TempDir) -> (A::Datagram, A::Datagram) {
    let server = A::bind(&dir.endpoint("s"), &[Opt::ReadTimeout(10_000)]).unwrap();
    let client = A::connect_datagram(&server.endpoint(), &[Opt::ReadTimeout(10_000)]).unwrap();
    (server, client)
}

/// D4, S1: bound to a path, and connected to it; the client has a name by itself, so it is answered.
fn question_and_answer<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    assert_eq!((server.endpoint(), server.port()), (dir.endpoint("s"), 0));
    assert_eq!(server.five_tuple().protocol, Protocol::UnixDatagram as i32);
    let name = client.endpoint();
    assert!(name.starts_with("unix:@"), "{name}");
    assert_eq!(client.name(), format!("unix-datagram {name} -> {}", server.endpoint()));
    assert_eq!(server.name(), format!("unix-datagram {} -> unix:(unnamed)", server.endpoint()));
    client.send(b"question").unwrap();
    let (got, info) = server.recv_info(64).unwrap();
    assert_eq!((got.bytes.as_slice(), got.sender.as_str()), (&b"question"[..], name.as_str()));
    assert_eq!((got.to, got.local, got.interface), (None, None, 0));
    server.reply(&info, b"answer").unwrap();
    let got = client.recv(64).unwrap();
    assert_eq!((got.bytes.as_slice(), got.sender), (&b"answer"[..], server.endpoint()));
    server.send_to_endpoint(b"more", &name).unwrap();
    assert_eq!(client.recv(64).unwrap().bytes, b"more");
    assert!(system::is_cloexec(server.fd().unwrap()));
    // D1: truncation is told here, too.
    client.send(&[7; 100]).unwrap();
    let got = server.recv(10).unwrap();
    assert_eq!((got.bytes.len(), got.original_len, got.truncated), (10, 100, true));
    let tuple = client.five_tuple();
    client.close();
    assert_eq!(client.five_tuple(), tuple);
    fails(client.send(b"x"), ErrorKind::Closed);
}

/// D4, S3: abstract names, which need no file.
fn names_in_the_abstract_namespace<A: Api>() {
    let name = abstract_name::<A>("names");
    let server = A::bind(&name, &[]).unwrap();
    assert_eq!(server.endpoint(), name);
    let failure = fails(A::bind(&name, &[]), ErrorKind::AddressInUse);
    assert_eq!(failure.endpoint, name);
    let client = A::connect_datagram(&name, &[]).unwrap();
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.sender, client.endpoint());
    server.reply(&info, b"y").unwrap();
    assert_eq!(client.recv(8).unwrap().sender, name);
    drop(server);
    fails(A::connect_datagram(&name, &[]), ErrorKind::Refused);
}

/// D4: a sender that is not bound cannot be answered, which is said.
fn a_sender_without_a_name<A: Api>() {
    let dir = TempDir::new();
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    let nameless = UnixDatagram::unbound().unwrap();
    nameless.send_to(b"", dir.path("s")).unwrap();
    nameless.send_to(b"x", dir.path("s")).unwrap();
    let (got, _) = server.recv_info(8).unwrap();
    assert_eq!((got.bytes.len(), got.sender.as_str()), (0, "unix:(unnamed)"));
    let (_, info) = server.recv_info(8).unwrap();
    let failure = fails(server.reply(&info, b"y"), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("no name"), "{failure:?}");
}

/// D4: a client with a path of its own, whose file goes with it.
fn a_client_with_a_path<A: Api>() {
    let dir = TempDir::new();
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    let local = dir.endpoint("c");
    let client = A::connect_datagram(&server.endpoint(), &[Opt::Local(&local)]).unwrap();
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.sender, local);
    server.reply(&info, b"y").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"y");
    assert!(dir.path("c").exists());
    client.close();
    assert!(!dir.path("c").exists());
}

/// L5 for datagrams: a file that nobody is behind.
fn a_stale_path_is_taken_over<A: Api>() {
    let dir = TempDir::new();
    drop(UnixDatagram::bind(dir.path("s")).unwrap());
    assert!(dir.path("s").exists());
    let (server, client) = pair::<A>(&dir);
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
}

/// L5 for datagrams: a live socket is never stolen, of whatever kind it is; nor is a file.
fn a_live_path_is_not<A: Api>() {
    let dir = TempDir::new();
    let first = A::bind(&dir.endpoint("s"), &[]).unwrap();
    let failure = fails(A::bind(&dir.endpoint("s"), &[]), ErrorKind::AddressInUse);
    assert_eq!((failure.endpoint, &*failure.stage), (dir.endpoint("s"), "bind"));
    let listener = UnixListener::bind(dir.path("l")).unwrap();
    fails(A::bind(&dir.endpoint("l"), &[]), ErrorKind::AddressInUse);
    fails(A::listen(&dir.endpoint("s"), &[]), ErrorKind::AddressInUse);
    std::fs::write(dir.path("f"), b"").unwrap();
    fails(A::bind(&dir.endpoint("f"), &[]), ErrorKind::AddressInUse);
    let client = A::connect_datagram(&dir.endpoint("s"), &[]).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(first.recv(8).unwrap().bytes, b"x");
    drop(listener);
}

/// L5: the file goes with the socket, but not one that somebody else has put in its place, nor that
/// of a descriptor that was given up.
fn the_file_goes_with_the_socket<A: Api>() {
    let dir = TempDir::new();
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    server.close();
    assert!(!dir.path("s").exists());
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    std::fs::remove_file(dir.path("s")).unwrap();
    let other = UnixDatagram::bind(dir.path("s")).unwrap();
    drop(server);
    assert!(dir.path("s").exists());
    drop(other);
    let server = A::bind(&dir.endpoint("t"), &[]).unwrap();
    let given_up = UnixDatagram::from(server.release().unwrap());
    drop(server);
    assert!(dir.path("t").exists());
    drop(given_up);
}

/// D4: a server that was started anew at the same name is reached by those who were connected to the old
/// one: the kernel dissolves a connection when it finds nobody.
fn a_peer_that_comes_back<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    client.send(b"x").unwrap();
    drop(server);
    for _ in 0..3 {
        fails(client.send(b"lost"), ErrorKind::Refused);
    }
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    for bytes in [b"1", b"2"] {
        client.send(bytes).unwrap();
        let (got, info) = server.recv_info(8).unwrap();
        assert_eq!(got.bytes, bytes);
        server.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"answer");
    }
}

/// D4: nobody there: said by the call itself, and not only once.
fn a_peer_that_is_gone<A: Api>() {
    let dir = TempDir::new();
    fails(A::connect_datagram(&dir.endpoint("s"), &[]), ErrorKind::NotFound);
    drop(UnixDatagram::bind(dir.path("s")).unwrap());
    fails(A::connect_datagram(&dir.endpoint("s"), &[]), ErrorKind::Refused);
    let socket = A::bind(&dir.endpoint("b"), &[]).unwrap();
    for _ in 0..2 {
        fails(socket.send_to_endpoint(b"x", &dir.endpoint("s")), ErrorKind::Refused);
        fails(socket.send_to_endpoint(b"x", &dir.endpoint("nowhere")), ErrorKind::NotFound);
    }
    assert_eq!(socket.recv_error().unwrap(), None);
    // Asking takes no datagram.
    socket.send_to_endpoint(b"x", &socket.endpoint()).unwrap();
    assert_eq!(socket.recv_error().unwrap(), None);
    assert_eq!(socket.recv(8).unwrap().bytes, b"x");
    // A stream socket is not somebody for datagrams.
    let _listener = UnixListener::bind(dir.path("l")).unwrap();
    fails(A::connect_datagram(&dir.endpoint("l"), &[]), ErrorKind::Os);
}

/// Fills the queue of a server, which holds few datagrams (net.unix.max_dgram_qlen).
fn fill<A: Api>(send: impl Fn() -> common::Outcome<()>) -> usize {
    let mut sent = 0;
    while send().is_ok() {
        sent += 1;
        assert!(sent < 100_000);
    }
    sent
}

/// D4: a sender waits for room, whether it is connected or not, and goes on as soon as there is some;
/// nothing is lost.
fn a_full_queue_is_waited_for<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let other = A::bind(&dir.endpoint("o"), &[]).unwrap();
    let to = server.endpoint();
    for socket in [&client, &other] {
        let send = || match std::ptr::eq(socket, &client) {
            true => socket.send(b"x"),
            false => socket.send_to_endpoint(b"x", &to),
        };
        socket.set_nonblocking(true).unwrap();
        let sent = fill::<A>(send);
        fails(send(), ErrorKind::WouldBlock);
        socket.set_nonblocking(false).unwrap();
        let (outcome, took) = while_waiting(send, || drop(server.recv(8).unwrap()));
        outcome.unwrap();
        assert!(took < Duration::from_secs(2), "{took:?}");
        for _ in 0..sent {
            assert_eq!(server.recv(8).unwrap().bytes, b"x");
        }
        server.set_nonblocking(true).unwrap();
        fails(server.recv(8), ErrorKind::WouldBlock);
        server.set_nonblocking(false).unwrap();
    }
}

/// I1, T2, T3: limit, token and close end a wait for room, and no processor is burnt meanwhile.
fn a_full_queue_and_limits<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let to = server.endpoint();
    let other = A::bind(&dir.endpoint("o"), &[]).unwrap();
    client.set_nonblocking(true).unwrap();
    fill::<A>(|| client.send(b"x"));
    client.set_nonblocking(false).unwrap();
    for socket in [client, other] {
        let connected = socket.endpoint() != dir.endpoint("o");
        let send = || match connected {
            true => socket.send(b"x"),
            false => socket.send_to_endpoint(b"x", &to),
        };
        socket.set_write_timeout(300).unwrap();
        let before = system::thread_cpu_time();
        let (outcome, took) = timed(send);
        fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(300), "{took:?}");
        let used = system::thread_cpu_time() - before;
        assert!(used < Duration::from_millis(60), "{used:?} of the processor in {took:?}");
        socket.set_write_timeout(INFINITE).unwrap();
        let token = A::token();
        socket.set_cancel(Some(&token));
        promptly(Duration::from_millis(50), || {
            token.reset();
            let (outcome, took) = while_waiting(send, || token.fire());
            fails(outcome, ErrorKind::Cancelled);
            took
        });
        socket.set_cancel(None);
        let (outcome, took) = while_waiting(send, || socket.close());
        fails(outcome, ErrorKind::Closed);
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

/// S4, E2: a path of one byte too many, with the limit; what is no name at all.
fn names_that_are_none<A: Api>() {
    let fits = format!("/tmp/{}", "x".repeat(102));
    assert_eq!(fits.len(), 107);
    let long = format!("{fits}x");
    for endpoint in [format!("unix:{long}"), format!("unix:@{long}")] {
        let failure = fails(A::bind(&endpoint, &[]), ErrorKind::InvalidEndpoint);
        assert!(failure.message.contains("107"), "{failure:?}");
        fails(A::connect_datagram(&endpoint, &[]), ErrorKind::InvalidEndpoint);
        let socket = A::bind(&abstract_name::<A>("none"), &[]).unwrap();
        fails(socket.send_to_endpoint(b"x", &endpoint), ErrorKind::InvalidEndpoint);
        fails(socket.send_to_endpoint(b"x", "unix:"), ErrorKind::InvalidEndpoint);
        let failure =
            fails(socket.send_to_endpoint(b"x", "127.0.0.1:9"), ErrorKind::InvalidArgument);
        assert!(failure.message.contains("not of the socket's family"), "{failure:?}");
        fails(socket.send(b"x"), ErrorKind::WrongState);
    }
    // The longest that there is, abstract, so that nothing is left behind.
    let longest = format!("unix:@{}", &abstract_name::<A>("long").repeat(5)[..106]);
    let server = A::bind(&longest, &[]).unwrap();
    let client = A::connect_datagram(&longest, &[Opt::Local(&longest.replace("k", "c"))]).unwrap();
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.sender, client.endpoint());
    server.reply(&info, b"y").unwrap();
    assert_eq!(client.recv(8).unwrap().sender, longest);
}

/// D1: no bytes are a datagram; what the buffers do not hold is refused, and the next one goes.
fn the_longest_and_the_shortest<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    for len in [0, 1, 65_507, 65_508, 150_000] {
        client.send(&vec![5; len]).unwrap();
        let got = server.recv(200_000).unwrap();
        assert_eq!((got.bytes.len(), got.truncated), (len, false));
    }
    fails(client.send(&vec![0; 8 << 20]), ErrorKind::TooLong);
    client.send(b"next").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"next");
}

/// D3: a batch is datagrams in their order here, too; as many as there is room for.
fn batches<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let batch: Vec<(&[u8], _)> = vec![(b"1", None), (b"22", None), (b"", None), (b"333", None)];
    assert_eq!(client.send_batch(&batch).unwrap(), 4);
    let got = server.recv_batch(&[2; 8]).unwrap();
    let bytes: Vec<_> = got.iter().map(|g| g.bytes.as_slice()).collect();
    assert_eq!(bytes, [&b"1"[..], b"22", b"", b"33"]);
    assert!(got[3].truncated && got.iter().all(|g| g.sender == client.endpoint()));
    client.set_nonblocking(true).unwrap();
    let many: Vec<(&[u8], _)> = vec![(b"x", None); 5000];
    let sent = client.send_batch(&many).unwrap();
    assert!((1..5000).contains(&sent), "{sent}");
    fails(client.send_batch(&many), ErrorKind::WouldBlock);
    let mut received = 0;
    while received < sent {
        received += server.recv_batch(&[1; 64]).unwrap().len();
    }
    assert_eq!(received, sent);
}

/// E2: what only UDP has is refused, as an option and as a call.
fn what_only_udp_has<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let group = "239.83.0.1".parse().unwrap();
    fails(server.join(group, None, None), ErrorKind::Unsupported);
    fails(server.set_broadcast(true), ErrorKind::Unsupported);
    fails(server.set_multicast_loop(true), ErrorKind::Unsupported);
    fails(server.set_ttl(4), ErrorKind::Unsupported);
    fails(server.set_tos(4), ErrorKind::Unsupported);
    fails(server.set_dont_fragment(true), ErrorKind::Unsupported);
    fails(server.set_report_errors(true), ErrorKind::Unsupported);
    fails(client.path_mtu(), ErrorKind::Unsupported);
    for option in [
        Opt::Family(keepsock::Family::Ipv4),
        Opt::Interface("lo"),
        Opt::Address("127.0.0.1:9".parse().unwrap()),
        Opt::Backlog(3),
    ] {
        let options = [option];
        fails(A::bind(&dir.endpoint("o"), &options), ErrorKind::InvalidArgument);
        fails(A::connect_datagram(&dir.endpoint("s"), &options), ErrorKind::InvalidArgument);
    }
    assert!(!dir.path("o").exists());
    let known = server.snapshot().unwrap();
    assert_eq!((known.dropped, known.path_mtu), (0, -1));
    assert!(known.send_buffer > 0);
}

/// D1: the kernel's time is told of Unix datagrams, too.
fn times_are_told<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    server.set_details(true).unwrap();
    let before = SystemTime::now();
    client.send(b"x").unwrap();
    let got = server.recv(8).unwrap();
    let after = SystemTime::now();
    let slack = Duration::from_millis(50);
    let at = got.received_at.unwrap();
    assert!(before - slack <= at && at <= after + slack);
    assert_eq!((got.ttl, got.tos), (None, None));
}

/// D4: descriptors that come uninvited stay nowhere, whatever is asked for and however many they are.
fn descriptors_that_nobody_takes<A: Api>() {
    let dir = TempDir::new();
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(dir.path("s")).unwrap();
    for details in [false, true] {
        server.set_details(details).unwrap();
        let (reader, writer) = system::pipe();
        for count in [1, 16, 253] {
            let flood = vec![writer.as_raw_fd(); count];
            system::send_fds(sender.as_raw_fd(), b"x", &flood).unwrap();
            assert_eq!(server.recv(8).unwrap().bytes, b"x");
            system::send_fds(sender.as_raw_fd(), b"y", &flood).unwrap();
            assert_eq!(server.recv_batch(&[8; 4]).unwrap().len(), 1);
        }
        // Whoever reads a pipe meets its end once nobody has the other side any more.
        drop(writer);
        let end = std::io::Read::read(&mut std::fs::File::from(reader), &mut [0]).unwrap();
        assert_eq!(end, 0);
    }
}

/// D4: descriptors go along with a datagram, both ways, to a peer and to a name.
fn descriptors_go_along<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let (reader, writer) = system::pipe();
    client.send_fds(b"write", None, &[writer.as_raw_fd()]).unwrap();
    drop(writer);
    let (got, passed) = server.recv_fds(64, 4).unwrap();
    assert_eq!((got.bytes.as_slice(), got.sender), (&b"write"[..], client.endpoint()));
    let [fd] = passed.fds.try_into().unwrap();
    assert!(!passed.lost && system::is_cloexec(fd.as_raw_fd()));
    std::io::Write::write_all(&mut std::fs::File::from(fd), b"through it").unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut said).unwrap();
    assert_eq!(said, "through it");
    // To a name, and without a byte; several at once.
    let null = std::fs::File::open("/dev/null").unwrap();
    server.send_fds(b"", Some(&client.endpoint()), &[null.as_raw_fd(); 3]).unwrap();
    let (got, passed) = client.recv_fds(0, 253).unwrap();
    assert_eq!((got.bytes.len(), passed.fds.len(), passed.lost), (0, 3, false));
    // None at all.
    client.send(b"plain").unwrap();
    let (got, passed) = server.recv_fds(3, 1).unwrap();
    assert_eq!((got.truncated, got.original_len, passed.bytes.as_slice()), (true, 5, &b"pla"[..]));
    assert!(passed.fds.is_empty() && !passed.lost);
    let udp = A::bind("127.0.0.1:0", &[]).unwrap();
    fails(udp.send_fds(b"x", None, &[]), ErrorKind::Unsupported);
    fails(udp.recv_fds(8, 1), ErrorKind::Unsupported);
}

/// D4: more than are wanted are closed, and told; more than may go are refused.
fn descriptors_that_do_not_fit<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    for (details, max) in [(false, 0), (false, 2), (true, 0), (true, 2)] {
        server.set_details(details).unwrap();
        let (reader, writer) = system::pipe();
        client.send_fds(b"x", None, &vec![writer.as_raw_fd(); 253]).unwrap();
        drop(writer);
        let (got, passed) = server.recv_fds(8, max).unwrap();
        assert_eq!((passed.fds.len(), passed.lost), (max, true), "details: {details}");
        assert_eq!(got.credentials.is_some(), details);
        drop(passed);
        let end = std::io::Read::read(&mut std::fs::File::from(reader), &mut [0]).unwrap();
        assert_eq!(end, 0, "somebody still has the other end");
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    let many = vec![null.as_raw_fd(); 254];
    fails(client.send_fds(b"x", None, &many), ErrorKind::InvalidArgument);
    fails(server.recv_fds(8, 254), ErrorKind::InvalidArgument);
    fails(server.send_fds(b"x", None, &[]), ErrorKind::WrongState);
    let failure = fails(client.send_fds(b"x", None, &[9999]), ErrorKind::Os);
    assert_eq!(failure.os_error, libc::EBADF);
    server.set_read_timeout(20).unwrap();
    fails(server.recv_fds(8, 1), ErrorKind::TimedOut);
}

/// D4: process, user and group of each datagram, if that was asked for.
fn who_sent_it<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().credentials, None, "nobody asked");
    server.set_details(true).unwrap();
    client.send(b"x").unwrap();
    let own = std::fs::metadata("/proc/self").unwrap();
    let (uid, gid) = {
        use std::os::unix::fs::MetadataExt;
        (own.uid(), own.gid())
    };
    let peer = server.recv(8).unwrap().credentials.unwrap();
    assert_eq!((peer.pid, peer.uid, peer.gid), (i64::from(std::process::id()), uid, gid));
    server.set_details(false).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().credentials, None);
}

/// D4: datagrams of others than the given users are passed over and counted, within one limit.
fn users_who_may_send<A: Api>() {
    let dir = TempDir::new();
    let own = {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").unwrap().uid()
    };
    let allowed = [Opt::AllowUser(own + 7), Opt::AllowUser(own), Opt::ReadTimeout(10_000)];
    let server = A::bind(&dir.endpoint("a"), &allowed).unwrap();
    let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
    for details in [true, false] {
        // Whatever is told: they have to be known.
        server.set_details(details).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(server.recv(8).unwrap().credentials.unwrap().uid, own);
    }
    assert_eq!(server.snapshot().unwrap().denied, 0);

    let others = [Opt::AllowUser(own + 7), Opt::ReadTimeout(200)];
    let server = A::bind(&dir.endpoint("o"), &others).unwrap();
    let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
    for _ in 0..3 {
        client.send(b"x").unwrap();
    }
    fails(server.recv(8), ErrorKind::TimedOut);
    client.send(b"x").unwrap();
    fails(server.recv_batch(&[8; 4]), ErrorKind::TimedOut);
    client.send(b"x").unwrap();
    fails(server.recv_fds(8, 1), ErrorKind::TimedOut);
    assert_eq!(server.snapshot().unwrap().denied, 5);
    // A flood of them does not keep it beyond its time.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = common::OnDrop(|| stop.store(true, std::sync::atomic::Ordering::SeqCst));
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let _ = client.send(b"x");
            }
        });
        let (outcome, took) = timed(|| server.recv(8));
        fails(outcome, ErrorKind::TimedOut);
        assert!(took < Duration::from_secs(5), "{took:?}");
        server.set_nonblocking(true).unwrap();
        drop(ends);
        while server.recv(8).is_ok() {}
        client.set_nonblocking(true).unwrap();
    });
    fails(A::bind("127.0.0.1:0", &[Opt::AllowUser(0)]), ErrorKind::InvalidArgument);
    let to = dir.endpoint("a");
    fails(A::connect_datagram(&to, &[Opt::AllowUser(0)]), ErrorKind::InvalidArgument);
    fails(A::bind(&dir.endpoint("p"), &[Opt::Sequenced(true)]), ErrorKind::InvalidArgument);
}

/// D4: the file has its mode from the first moment, for what is bound receives from then on.
fn a_file_with_its_mode<A: Api>() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new();
    let mode = |name| std::fs::metadata(dir.path(name)).unwrap().permissions().mode() & 0o7777;
    for wanted in [0o600, 0o666, 0o660] {
        let _server = A::bind(&dir.endpoint("s"), &[Opt::UnixMode(wanted)]).unwrap();
        assert_eq!(mode("s"), wanted);
    }
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    let local = dir.endpoint("c");
    let options = [Opt::Local(&local), Opt::UnixMode(0o622)];
    let _client = A::connect_datagram(&server.endpoint(), &options).unwrap();
    assert_eq!(mode("c"), 0o622);
    let refused = [Opt::UnixMode(0o600)];
    fails(A::bind(&abstract_name::<A>("mode"), &refused), ErrorKind::InvalidArgument);
    fails(A::bind("127.0.0.1:0", &refused), ErrorKind::InvalidArgument);
    fails(A::connect_datagram(&server.endpoint(), &refused), ErrorKind::InvalidArgument);
}

/// D4: a receiver that has stopped refuses, as one that is gone.
fn a_peer_that_receives_no_more<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let other = A::bind(&dir.endpoint("o"), &[]).unwrap();
    let service = server.serve(1, Box::new(|_, _| ())).unwrap();
    service.stop();
    service.wait(10_000).unwrap();
    for _ in 0..2 {
        fails(client.send(b"x"), ErrorKind::Refused);
        fails(other.send_to_endpoint(b"x", &server.endpoint()), ErrorKind::Refused);
    }
    fails(server.serve(1, Box::new(|_, _| ())).map(drop), ErrorKind::Closed);
}

/// D1: a connected socket hears its peer only, also when the kernel has dissolved the connection, for
/// the peer was gone, and lets others in.
fn strangers_are_not_heard<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let stranger = A::bind(&dir.endpoint("o"), &[]).unwrap();
    let to = client.endpoint();
    fails(stranger.send_to_endpoint(b"early", &to), ErrorKind::PermissionDenied);
    drop(server);
    fails(client.send(b"x"), ErrorKind::Refused);
    stranger.send_to_endpoint(b"evil", &to).unwrap();
    client.set_read_timeout(50).unwrap();
    fails(client.recv(8), ErrorKind::TimedOut);
    client.set_read_timeout(10_000).unwrap();
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    client.send(b"x").unwrap();
    let (_, info) = server.recv_info(8).unwrap();
    server.reply(&info, b"good").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"good");
}

/// T3: who shuts the socket down through another descriptor ends receiving; that is no stream of empty
/// datagrams, and keeps no processor busy.
fn shut_down_by_somebody_else<A: Api>() {
    let dir = TempDir::new();
    for (endpoint, timeout) in [("s", INFINITE), ("s", 400), ("udp", INFINITE), ("udp", 400)] {
        let endpoint = match endpoint {
            "udp" => "127.0.0.1:0".to_owned(),
            path => dir.endpoint(path),
        };
        let server = A::bind(&endpoint, &[Opt::HandOver(timeout == 400)]).unwrap();
        server.set_read_timeout(timeout).unwrap();
        let nameless = UnixDatagram::unbound().unwrap();
        if endpoint.starts_with("unix:") {
            nameless.send_to(b"", dir.path("s")).unwrap();
            assert_eq!(server.recv(8).unwrap().bytes, b"", "an empty one is one");
        }
        let (outcome, took) = while_waiting(
            || {
                let outcome = server.recv(8);
                (outcome, system::thread_cpu_time())
            },
            || system::shutdown_reading(server.fd().unwrap()),
        );
        fails(outcome.0, ErrorKind::Closed);
        assert!(
            took < Duration::from_secs(2) && outcome.1 < Duration::from_millis(100),
            "{took:?}"
        );
        fails(server.recv_batch(&[8; 4]), ErrorKind::Closed);
    }
}

/// D4: a peer's relative path is that of where it was named, wherever the process goes.
fn a_peer_by_a_relative_path<A: Api>() {
    let dir = TempDir::new();
    let here = std::env::current_dir().unwrap();
    let path = dir.path("s");
    let mut relative = std::path::PathBuf::new();
    here.components().skip(1).for_each(|_| relative.push(".."));
    relative.push(path.strip_prefix("/").unwrap());
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    let client = A::connect_datagram(&format!("unix:{}", relative.display()), &[]).unwrap();
    client.set_read_timeout(10_000).unwrap();
    client.send(b"x").unwrap();
    let (_, info) = server.recv_info(8).unwrap();
    server.reply(&info, b"y").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"y", "the server has another name for itself");
}

/// D4: what a program has asked for by itself (SO_PASSPIDFD, Linux 6.5) fills no table.
fn processes_that_nobody_takes<A: Api>() {
    const SO_PASSPIDFD: i32 = 76;
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    server.set_details(true).unwrap();
    if system::try_option(server.fd().unwrap(), libc::SOL_SOCKET, SO_PASSPIDFD).is_none() {
        eprintln!("skipped: no SO_PASSPIDFD before Linux 6.5");
        return;
    }
    system::set_option(server.fd().unwrap(), libc::SOL_SOCKET, SO_PASSPIDFD, 1);
    let pidfds = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = all.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        links.filter(|link| link.to_string_lossy().contains("pidfd")).count()
    };
    let before = pidfds();
    for _ in 0..30 {
        client.send(b"x").unwrap();
        server.recv(8).unwrap();
        client.send(b"x").unwrap();
        assert!(server.recv_fds(8, 1).unwrap().1.fds.is_empty());
    }
    assert!(pidfds() <= before, "{} more", pidfds() - before);
}

/// T4: taken over, with a name and without.
fn taken_over<A: Api>() {
    let dir = TempDir::new();
    let bound = UnixDatagram::bind(dir.path("s")).unwrap();
    let server = A::adopt_datagram(bound.into(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(server.endpoint(), dir.endpoint("s"));
    let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
    drop(server);
    assert!(dir.path("s").exists(), "the file of a socket that was taken over stays");
    let (one, other) = UnixDatagram::pair().unwrap();
    let one = A::adopt_datagram(one.into(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(one.name(), "unix-datagram unix:(unnamed) -> unix:(unnamed)");
    one.send(b"x").unwrap();
    let mut buf = [0; 8];
    assert_eq!(other.recv(&mut buf).unwrap(), 1);
    other.send(b"yy").unwrap();
    assert_eq!(one.recv(8).unwrap().bytes, b"yy");
}

/// V1 for datagrams: served as UDP is.
fn serving<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let service = server.serve(2, Box::new(|reply, got| reply(&got.bytes).unwrap())).unwrap();
    for len in [0, 1, 10_000, 150_000] {
        client.send(&vec![6; len]).unwrap();
        assert_eq!(client.recv(200_000).unwrap().bytes, vec![6; len]);
    }
    service.stop();
    service.wait(10_000).unwrap();
    server.send_to_endpoint(b"still", &client.endpoint()).unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"still");
}

/// D3, D4: answers go in a batch, too, each to whom it is for.
fn a_batch_of_answers<A: Api>() {
    let dir = TempDir::new();
    let server = A::bind(&dir.endpoint("s"), &[]).unwrap();
    for endpoint in [dir.endpoint("c"), String::new()] {
        let client = match endpoint.as_str() {
            "" => A::connect_datagram(&dir.endpoint("s"), &[Opt::ReadTimeout(10_000)]).unwrap(),
            path => A::bind(path, &[Opt::ReadTimeout(10_000)]).unwrap(),
        };
        client.send_to_endpoint(b"x", &dir.endpoint("s")).unwrap();
        let (_, info) = server.recv_info(8).unwrap();
        let answers = [b"one".as_slice(), b"two", b"three"].map(|bytes| (&info, bytes));
        assert_eq!(server.reply_batch(&answers).unwrap(), 3);
        for bytes in ["one", "two", "three"] {
            assert_eq!(client.recv(8).unwrap().bytes, bytes.as_bytes());
        }
    }
}

/// D4, T4: sockets of a socketpair(2) have no names, and answer each other nevertheless.
fn a_pair_without_names<A: Api>() {
    let (one, other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let [one, other] = [one, other].map(|end| {
        A::adopt_datagram(end.into(), &[Opt::ReadTimeout(10_000)]).map_err(|e| e.1).unwrap()
    });
    assert_eq!(one.endpoint(), "unix:(unnamed)");
    one.send(b"question").unwrap();
    let (got, info) = other.recv_info(16).unwrap();
    assert_eq!(got.bytes, b"question");
    other.reply(&info, b"answer").unwrap();
    assert_eq!(one.recv(16).unwrap().bytes, b"answer");
}

/// D4: whoever may send may do so while details are switched on and off.
fn details_and_users_who_may_send<A: Api>() {
    const COUNT: usize = 3000;
    let dir = TempDir::new();
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    let options = [Opt::AllowUser(own), Opt::ReadTimeout(10_000)];
    let server = A::bind(&dir.endpoint("s"), &options).unwrap();
    let client = A::connect_datagram(&dir.endpoint("s"), &[]).unwrap();
    std::thread::scope(|scope| {
        let sends = scope.spawn(|| (0..COUNT).for_each(|_| client.send(b"x").unwrap()));
        scope.spawn(|| {
            for _ in 0..COUNT {
                assert_eq!(server.recv(8).unwrap().bytes, b"x");
            }
        });
        while !sends.is_finished() {
            server.set_details(true).unwrap();
            server.set_details(false).unwrap();
        }
    });
}
