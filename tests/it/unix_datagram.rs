//! D4, S3: Unix datagram sockets, with paths and abstract names, through both APIs.

use crate::support::os::AsRawFd;
use crate::support::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use crate::support;
#[cfg(feature = "serve")]
use crate::support::DatagramService;
use crate::support::{
    Api, Datagrams, INFINITE, Opt, TempDir, Token, fails, promptly, system, timed, while_waiting,
};
use crate::support::{limits, process};
use keepsock::{ErrorKind, Protocol};

both_apis![
    datagrams_between_unix_sockets_arrive,
    abstract_name_is_bound_without_file,
    reply_to_unbound_sender_fails,
    client_with_path_removes_its_file,
    bind_to_stale_path_replaces_it,
    bind_to_live_path_fails,
    close_of_socket_removes_its_own_file,
    send_to_restarted_peer_reaches_it,
    send_without_receiver_fails,
    send_to_full_queue_waits,
    send_to_full_queue_ends_by_timeout_token_and_close,
    bind_to_invalid_name_fails,
    send_of_empty_and_oversized_datagram_is_checked,
    unix_batch_keeps_the_order,
    udp_options_for_unix_socket_are_rejected,
    recv_with_metadata_reports_time,
    unrequested_descriptors_are_closed,
    datagram_with_descriptors_delivers_them,
    descriptors_beyond_the_request_are_closed,
    recv_with_credentials_reports_the_sender,
    datagrams_of_denied_users_are_skipped,
    unix_mode_of_file_is_set_from_the_start,
    connected_socket_ignores_other_senders,
    set_peer_connects_a_bound_unix_socket_once,
    relative_peer_path_after_chdir_is_kept,
    passed_pidfds_do_not_fill_the_table,
    unix_datagram_descriptor_is_adopted,
    batch_of_replies_reaches_each_sender,
    socketpair_without_names_exchanges_datagrams,
    metadata_change_keeps_allowed_senders,
    recv_batch_with_denied_descriptors_fills_no_table,
    open_succeeds_while_denied_senders_pass_descriptors,
    recv_fds_installs_no_more_than_are_wanted,
    recv_fds_with_a_full_table_reports_what_is_lost,
    recv_nonblocking_ends_while_denied_senders_send,
    recv_with_options_of_the_program_continues,
    path_of_107_or_108_bytes_is_bound_connected_and_answered,
    sender_of_unix_datagram_as_text_is_a_destination,
    #[cfg(feature = "serve")] {
        send_to_peer_without_receives_fails,
        unix_datagrams_are_served,
    }
    #[cfg(feature = "activation")] {
        shutdown_through_other_descriptor_ends_recv,
    }
];

/// For a test in a process of its own.
const LIMIT: Duration = Duration::from_secs(30);

/// A unique name for each API and test.
fn abstract_name<A: Api>(test: &str) -> String {
    format!("unix:@keepsock-{}-{}-{test}", std::process::id(), A::NUMBER)
}

fn pair<A: Api>(dir: &TempDir) -> (A::Datagram, A::Datagram) {
    let server = A::Datagram::bind(&dir.endpoint("s"), &[Opt::ReadTimeout(60_000)]).unwrap();
    let client = A::Datagram::connect(&server.endpoint(), &[Opt::ReadTimeout(60_000)]).unwrap();
    (server, client)
}

/// D4, S1: a server is bound to a path and a client is connected to it. The client has an automatic
/// name, so the server can reply.
fn datagrams_between_unix_sockets_arrive<A: Api>() {
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
    // D1: truncation is also reported for Unix sockets.
    client.send(&[7; 100]).unwrap();
    let got = server.recv(10).unwrap();
    assert_eq!((got.bytes.len(), got.original_len, got.truncated), (10, 100, true));
    let tuple = client.five_tuple();
    client.close();
    assert_eq!(client.five_tuple(), tuple);
    fails(client.send(b"x"), ErrorKind::Closed);
}

/// D4, S3: abstract names, which need no file.
fn abstract_name_is_bound_without_file<A: Api>() {
    let name = abstract_name::<A>("names");
    let server = A::Datagram::bind(&name, &[]).unwrap();
    assert_eq!(server.endpoint(), name);
    let failure = fails(A::Datagram::bind(&name, &[]), ErrorKind::AddressInUse);
    assert_eq!(failure.endpoint, name);
    let client = A::Datagram::connect(&name, &[]).unwrap();
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.sender, client.endpoint());
    server.reply(&info, b"y").unwrap();
    assert_eq!(client.recv(8).unwrap().sender, name);
    drop(server);
    fails(A::Datagram::connect(&name, &[]), ErrorKind::Refused);
}

/// D4: a reply to an unbound sender fails, and the error says so.
fn reply_to_unbound_sender_fails<A: Api>() {
    let dir = TempDir::new();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    let nameless = UnixDatagram::unbound().unwrap();
    nameless.send_to(b"", dir.path("s")).unwrap();
    nameless.send_to(b"x", dir.path("s")).unwrap();
    let (got, _) = server.recv_info(8).unwrap();
    assert_eq!((got.bytes.len(), got.sender.as_str()), (0, "unix:(unnamed)"));
    let (_, info) = server.recv_info(8).unwrap();
    let failure = fails(server.reply(&info, b"y"), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("the receiver is not bound to a name"), "{failure:?}");
}

/// D4: the file of a client with its own path is removed with the client.
fn client_with_path_removes_its_file<A: Api>() {
    let dir = TempDir::new();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    let local = dir.endpoint("c");
    let client = A::Datagram::connect(&server.endpoint(), &[Opt::Local(&local)]).unwrap();
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.sender, local);
    server.reply(&info, b"y").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"y");
    assert!(dir.path("c").exists());
    client.close();
    assert!(!dir.path("c").exists());
}

/// L5: a stale path of a datagram socket is replaced.
fn bind_to_stale_path_replaces_it<A: Api>() {
    let _no_copies = process::no_starts();
    let dir = TempDir::new();
    drop(UnixDatagram::bind(dir.path("s")).unwrap());
    assert!(dir.path("s").exists());
    let (server, client) = pair::<A>(&dir);
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
}

/// L5: binding never replaces a live socket of any kind, nor a file.
fn bind_to_live_path_fails<A: Api>() {
    let dir = TempDir::new();
    let first = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    let failure = fails(A::Datagram::bind(&dir.endpoint("s"), &[]), ErrorKind::AddressInUse);
    assert_eq!((failure.endpoint, &*failure.stage), (dir.endpoint("s"), "bind"));
    let listener = UnixListener::bind(dir.path("l")).unwrap();
    fails(A::Datagram::bind(&dir.endpoint("l"), &[]), ErrorKind::AddressInUse);
    fails(A::listen(&dir.endpoint("s"), &[]), ErrorKind::AddressInUse);
    std::fs::write(dir.path("f"), b"").unwrap();
    fails(A::Datagram::bind(&dir.endpoint("f"), &[]), ErrorKind::AddressInUse);
    let client = A::Datagram::connect(&dir.endpoint("s"), &[]).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(first.recv(8).unwrap().bytes, b"x");
    drop(listener);
}

/// L5: a close removes the socket's file, but neither a file that another process put in its place,
/// nor the file of a released descriptor.
fn close_of_socket_removes_its_own_file<A: Api>() {
    let dir = TempDir::new();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    server.close();
    assert!(!dir.path("s").exists());
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    std::fs::remove_file(dir.path("s")).unwrap();
    let other = UnixDatagram::bind(dir.path("s")).unwrap();
    drop(server);
    assert!(dir.path("s").exists());
    drop(other);
    let server = A::Datagram::bind(&dir.endpoint("t"), &[]).unwrap();
    let given_up = UnixDatagram::from(server.release().unwrap());
    drop(server);
    assert!(dir.path("t").exists());
    drop(given_up);
}

/// D4: connected clients reach a server that was restarted at the same name. The kernel dissolves a
/// connection when the peer does not exist.
fn send_to_restarted_peer_reaches_it<A: Api>() {
    let _no_copies = process::no_starts();
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    client.send(b"x").unwrap();
    drop(server);
    for _ in 0..3 {
        fails(client.send(b"lost"), ErrorKind::Refused);
    }
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    for bytes in [b"1", b"2"] {
        client.send(bytes).unwrap();
        let (got, info) = server.recv_info(8).unwrap();
        assert_eq!(got.bytes, bytes);
        server.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"answer");
    }
}

/// D4: a send without a receiver fails in that call, and in each later one.
fn send_without_receiver_fails<A: Api>() {
    let _no_copies = process::no_starts();
    let dir = TempDir::new();
    fails(A::Datagram::connect(&dir.endpoint("s"), &[]), ErrorKind::NotFound);
    drop(UnixDatagram::bind(dir.path("s")).unwrap());
    fails(A::Datagram::connect(&dir.endpoint("s"), &[]), ErrorKind::Refused);
    let socket = A::Datagram::bind(&dir.endpoint("b"), &[]).unwrap();
    for _ in 0..2 {
        fails(socket.send_to_endpoint(b"x", &dir.endpoint("s")), ErrorKind::Refused);
        fails(socket.send_to_endpoint(b"x", &dir.endpoint("nowhere")), ErrorKind::NotFound);
    }
    assert_eq!(socket.recv_error().unwrap(), None);
    // The call does not receive a datagram.
    socket.send_to_endpoint(b"x", &socket.endpoint()).unwrap();
    assert_eq!(socket.recv_error().unwrap(), None);
    assert_eq!(socket.recv(8).unwrap().bytes, b"x");
    // A stream socket does not receive datagrams.
    let _listener = UnixListener::bind(dir.path("l")).unwrap();
    fails(A::Datagram::connect(&dir.endpoint("l"), &[]), ErrorKind::Os);
}

/// Fills the queue of a server, which holds few datagrams (net.unix.max_dgram_qlen).
fn fill<A: Api>(send: impl Fn() -> support::Outcome<()>) -> usize {
    let mut sent = 0;
    while send().is_ok() {
        sent += 1;
        assert!(sent < 100_000);
    }
    sent
}

/// D4: a sender waits for a full queue, whether it is connected or not, and continues as soon as it
/// has room. No datagram is lost.
fn send_to_full_queue_waits<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let other = A::Datagram::bind(&dir.endpoint("o"), &[]).unwrap();
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
        assert!(took < Duration::from_secs(10), "{took:?}");
        for _ in 0..sent {
            assert_eq!(server.recv(8).unwrap().bytes, b"x");
        }
        server.set_nonblocking(true).unwrap();
        fails(server.recv(8), ErrorKind::WouldBlock);
        server.set_nonblocking(false).unwrap();
    }
}

/// I1, T2, T3: timeout, token and close end a wait for queue room, and the wait uses no processor
/// time.
fn send_to_full_queue_ends_by_timeout_token_and_close<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let to = server.endpoint();
    let other = A::Datagram::bind(&dir.endpoint("o"), &[]).unwrap();
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
        promptly(Duration::from_millis(60), || {
            let before = system::thread_cpu_time();
            let (outcome, took) = timed(send);
            fails(outcome, ErrorKind::TimedOut);
            assert!(took >= Duration::from_millis(300), "{took:?}");
            system::thread_cpu_time() - before
        });
        socket.set_write_timeout(INFINITE).unwrap();
        let token = A::token();
        socket.set_cancel(Some(&token)).unwrap();
        promptly(Duration::from_millis(50), || {
            token.reset();
            let (outcome, took) = while_waiting(send, || token.fire());
            fails(outcome, ErrorKind::Cancelled);
            took
        });
        socket.set_cancel(None).unwrap();
        let (outcome, took) = while_waiting(send, || socket.close());
        fails(outcome, ErrorKind::Closed);
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

/// S4, E2: a path that is one byte too long is rejected with the limit, and so are invalid names.
fn bind_to_invalid_name_fails<A: Api>() {
    let long = format!("/tmp/{}", "x".repeat(103));
    assert_eq!(long.len(), 108);
    for (endpoint, max) in [(format!("unix:{long}x"), "108"), (format!("unix:@{long}"), "107")] {
        let failure = fails(A::Datagram::bind(&endpoint, &[]), ErrorKind::InvalidEndpoint);
        assert!(failure.message.contains(&format!("at most {max}")), "{failure:?}");
        fails(A::Datagram::connect(&endpoint, &[]), ErrorKind::InvalidEndpoint);
        let socket = A::Datagram::bind(&abstract_name::<A>("none"), &[]).unwrap();
        fails(socket.send_to_endpoint(b"x", &endpoint), ErrorKind::InvalidEndpoint);
        fails(socket.send_to_endpoint(b"x", "unix:"), ErrorKind::InvalidEndpoint);
        let failure =
            fails(socket.send_to_endpoint(b"x", "127.0.0.1:9"), ErrorKind::InvalidArgument);
        assert!(failure.message.contains("the socket is of another address family"), "{failure:?}");
        fails(socket.send(b"x"), ErrorKind::WrongState);
    }
    // The longest valid name. It is abstract, so that no file is left.
    let longest = format!("unix:@{}", &abstract_name::<A>("long").repeat(5)[..106]);
    let server = A::Datagram::bind(&longest, &[]).unwrap();
    let client = A::Datagram::connect(&longest, &[Opt::Local(&longest.replace("k", "c"))]).unwrap();
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.sender, client.endpoint());
    server.reply(&info, b"y").unwrap();
    assert_eq!(client.recv(8).unwrap().sender, longest);
}

/// D1: an empty datagram is valid. One that exceeds the buffers is rejected, and the next one is
/// sent.
fn send_of_empty_and_oversized_datagram_is_checked<A: Api>() {
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

/// D3: a batch keeps the order of its datagrams, and has as many as its buffers hold.
fn unix_batch_keeps_the_order<A: Api>() {
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

/// E2: options and calls for UDP only are rejected.
fn udp_options_for_unix_socket_are_rejected<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let group = "239.83.0.1".parse().unwrap();
    fails(server.join(group, None, None), ErrorKind::Unsupported);
    fails(server.set_broadcast(true), ErrorKind::Unsupported);
    fails(server.set_multicast_loop(true), ErrorKind::Unsupported);
    fails(server.set_ttl(4), ErrorKind::Unsupported);
    fails(server.set_tos(4), ErrorKind::Unsupported);
    fails(server.set_dont_fragment(true), ErrorKind::Unsupported);
    fails(server.set_recv_errors(true), ErrorKind::Unsupported);
    assert_eq!(client.stats().unwrap().path_mtu, -1);
    for option in [
        Opt::Family(keepsock::Family::Ipv4),
        Opt::Interface("lo"),
        Opt::Address("127.0.0.1:9".parse().unwrap()),
        Opt::Backlog(3),
    ] {
        let options = [option];
        fails(A::Datagram::bind(&dir.endpoint("o"), &options), ErrorKind::InvalidArgument);
        fails(A::Datagram::connect(&dir.endpoint("s"), &options), ErrorKind::InvalidArgument);
    }
    assert!(!dir.path("o").exists());
    let known = server.stats().unwrap();
    assert_eq!((known.dropped, known.path_mtu), (0, -1));
    assert!(known.send_buffer > 0);
}

/// D1: the kernel's receive time is also reported for Unix datagrams.
fn recv_with_metadata_reports_time<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    server.set_recv_metadata(true).unwrap();
    let before = SystemTime::now();
    client.send(b"x").unwrap();
    let got = server.recv(8).unwrap();
    let after = SystemTime::now();
    let slack = Duration::from_millis(50);
    let at = got.received_at.unwrap();
    assert!(before - slack <= at && at <= after + slack);
    assert_eq!((got.ttl, got.tos), (None, None));
}

/// D4: unrequested descriptors are closed, whatever the call requests and however many there are.
fn unrequested_descriptors_are_closed<A: Api>() {
    let dir = TempDir::new();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(dir.path("s")).unwrap();
    for details in [false, true] {
        server.set_recv_metadata(details).unwrap();
        let (reader, writer) = system::pipe();
        for count in [1, 16, 253] {
            let flood = vec![writer.as_raw_fd(); count];
            system::send_fds(sender.as_raw_fd(), b"x", &flood).unwrap();
            assert_eq!(server.recv(8).unwrap().bytes, b"x");
            system::send_fds(sender.as_raw_fd(), b"y", &flood).unwrap();
            assert_eq!(server.recv_batch(&[8; 4]).unwrap().len(), 1);
        }
        // The reader of a pipe gets the end of stream once no process has the other end.
        drop(writer);
        let end = std::io::Read::read(&mut std::fs::File::from(reader), &mut [0]).unwrap();
        assert_eq!(end, 0);
    }
}

/// D4: a datagram carries descriptors in both directions, to a connected peer and to a name.
fn datagram_with_descriptors_delivers_them<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let (reader, writer) = system::pipe();
    client.send_fds(b"write", None, &[writer.as_raw_fd()]).unwrap();
    drop(writer);
    let (got, passed) = server.recv_fds(64, 4).unwrap();
    assert_eq!((got.bytes.as_slice(), got.sender), (&b"write"[..], client.endpoint()));
    let [fd] = passed.fds.try_into().unwrap();
    assert!(!passed.truncated && system::is_cloexec(fd.as_raw_fd()));
    std::io::Write::write_all(&mut std::fs::File::from(fd), b"through it").unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut said).unwrap();
    assert_eq!(said, "through it");
    // Several descriptors to a name, with an empty datagram.
    let null = std::fs::File::open("/dev/null").unwrap();
    server.send_fds(b"", Some(&client.endpoint()), &[null.as_raw_fd(); 3]).unwrap();
    let (got, passed) = client.recv_fds(0, 253).unwrap();
    assert_eq!((got.bytes.len(), passed.fds.len(), passed.truncated), (0, 3, false));
    // A datagram without descriptors.
    client.send(b"plain").unwrap();
    let (got, passed) = server.recv_fds(3, 1).unwrap();
    assert_eq!((got.truncated, got.original_len, passed.bytes.as_slice()), (true, 5, &b"pla"[..]));
    assert!(passed.fds.is_empty() && !passed.truncated);
    let udp = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    fails(udp.send_fds(b"x", None, &[]), ErrorKind::Unsupported);
    fails(udp.recv_fds(8, 1), ErrorKind::Unsupported);
}

/// D4: more descriptors than requested are closed and reported. More than the limit are rejected by
/// the send.
fn descriptors_beyond_the_request_are_closed<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    for (details, max) in [(false, 0), (false, 2), (true, 0), (true, 2)] {
        server.set_recv_metadata(details).unwrap();
        let (reader, writer) = system::pipe();
        client.send_fds(b"x", None, &vec![writer.as_raw_fd(); 253]).unwrap();
        drop(writer);
        let (got, passed) = server.recv_fds(8, max).unwrap();
        assert_eq!((passed.fds.len(), passed.truncated), (max, true), "details: {details}");
        assert_eq!(got.credentials.is_some(), details);
        drop(passed);
        let end = std::io::Read::read(&mut std::fs::File::from(reader), &mut [0]).unwrap();
        assert_eq!(end, 0, "a process still has the other end");
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

/// D4: peer credentials of each datagram are reported if configured.
fn recv_with_credentials_reports_the_sender<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().credentials, None, "nobody asked");
    server.set_recv_metadata(true).unwrap();
    client.send(b"x").unwrap();
    let own = std::fs::metadata("/proc/self").unwrap();
    let (uid, gid) = {
        use std::os::unix::fs::MetadataExt;
        (own.uid(), own.gid())
    };
    let peer = server.recv(8).unwrap().credentials.unwrap();
    assert_eq!((peer.pid, peer.uid, peer.gid), (i64::from(std::process::id()), uid, gid));
    server.set_recv_metadata(false).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().credentials, None);
}

/// D4: datagrams of users that are not allowed are skipped and counted, within one timeout.
fn datagrams_of_denied_users_are_skipped<A: Api>() {
    let dir = TempDir::new();
    let own = {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").unwrap().uid()
    };
    let allowed = [Opt::AllowUid(own + 7), Opt::AllowUid(own), Opt::ReadTimeout(60_000)];
    let server = A::Datagram::bind(&dir.endpoint("a"), &allowed).unwrap();
    let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
    for details in [true, false] {
        // The kernel must report the credentials whatever the metadata option is.
        server.set_recv_metadata(details).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(server.recv(8).unwrap().credentials.unwrap().uid, own);
    }
    assert_eq!(server.stats().unwrap().denied, 0);

    let others = [Opt::AllowUid(own + 7), Opt::ReadTimeout(200)];
    let server = A::Datagram::bind(&dir.endpoint("o"), &others).unwrap();
    let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
    for _ in 0..3 {
        client.send(b"x").unwrap();
    }
    fails(server.recv(8), ErrorKind::TimedOut);
    client.send(b"x").unwrap();
    fails(server.recv_batch(&[8; 4]), ErrorKind::TimedOut);
    client.send(b"x").unwrap();
    fails(server.recv_fds(8, 1), ErrorKind::TimedOut);
    assert_eq!(server.stats().unwrap().denied, 5);
    // A flood of rejected datagrams does not extend the timeout.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = support::OnDrop(|| stop.store(true, std::sync::atomic::Ordering::SeqCst));
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let _ = client.send(b"x");
            }
        });
        let (outcome, took) = timed(|| server.recv(8));
        fails(outcome, ErrorKind::TimedOut);
        assert!(took < Duration::from_secs(20), "{took:?}");
        server.set_nonblocking(true).unwrap();
        drop(ends);
        while server.recv(8).is_ok() {}
        client.set_nonblocking(true).unwrap();
    });
    fails(A::Datagram::bind("127.0.0.1:0", &[Opt::AllowUid(0)]), ErrorKind::InvalidArgument);
    let to = dir.endpoint("a");
    fails(A::Datagram::connect(&to, &[Opt::AllowUid(0)]), ErrorKind::InvalidArgument);
    fails(
        A::Datagram::bind(&dir.endpoint("p"), &[Opt::Seqpacket(true)]),
        ErrorKind::InvalidArgument,
    );
}

/// D4: the file has its mode from the start, because a bound socket receives at once.
fn unix_mode_of_file_is_set_from_the_start<A: Api>() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new();
    let mode = |name| std::fs::metadata(dir.path(name)).unwrap().permissions().mode() & 0o7777;
    for wanted in [0o600, 0o666, 0o660] {
        let _server = A::Datagram::bind(&dir.endpoint("s"), &[Opt::UnixMode(wanted)]).unwrap();
        assert_eq!(mode("s"), wanted);
    }
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    let local = dir.endpoint("c");
    let options = [Opt::Local(&local), Opt::UnixMode(0o622)];
    let _client = A::Datagram::connect(&server.endpoint(), &options).unwrap();
    assert_eq!(mode("c"), 0o622);
    let refused = [Opt::UnixMode(0o600)];
    fails(A::Datagram::bind(&abstract_name::<A>("mode"), &refused), ErrorKind::InvalidArgument);
    fails(A::Datagram::bind("127.0.0.1:0", &refused), ErrorKind::InvalidArgument);
    fails(A::Datagram::connect(&server.endpoint(), &refused), ErrorKind::InvalidArgument);
}

/// D4: a receiver that has shut down its receives fails sends, as a closed one does.
#[cfg(feature = "serve")]
fn send_to_peer_without_receives_fails<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let other = A::Datagram::bind(&dir.endpoint("o"), &[]).unwrap();
    let service = server.serve(1, Box::new(|_, _| ())).unwrap();
    service.stop();
    service.wait(60_000).unwrap();
    for _ in 0..2 {
        fails(client.send(b"x"), ErrorKind::Refused);
        fails(other.send_to_endpoint(b"x", &server.endpoint()), ErrorKind::Refused);
    }
    fails(server.serve(1, Box::new(|_, _| ())).map(drop), ErrorKind::Closed);
}

/// D1: a connected socket receives from its peer only, even after the kernel has dissolved the
/// connection of a closed peer and accepts other senders.
fn connected_socket_ignores_other_senders<A: Api>() {
    let _no_copies = process::no_starts();
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let stranger = A::Datagram::bind(&dir.endpoint("o"), &[]).unwrap();
    let to = client.endpoint();
    fails(stranger.send_to_endpoint(b"early", &to), ErrorKind::PermissionDenied);
    drop(server);
    fails(client.send(b"x"), ErrorKind::Refused);
    stranger.send_to_endpoint(b"evil", &to).unwrap();
    client.set_read_timeout(50).unwrap();
    fails(client.recv(8), ErrorKind::TimedOut);
    client.set_read_timeout(60_000).unwrap();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    client.send(b"x").unwrap();
    let (_, info) = server.recv_info(8).unwrap();
    server.reply(&info, b"good").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"good");
}

/// T3: a shutdown through another descriptor ends receives. The call does not return empty
/// datagrams without end, and uses no processor time.
#[cfg(feature = "activation")]
fn shutdown_through_other_descriptor_ends_recv<A: Api>() {
    let dir = TempDir::new();
    for (endpoint, timeout) in [("s", INFINITE), ("s", 20_000), ("udp", INFINITE), ("udp", 20_000)]
    {
        let endpoint = match endpoint {
            "udp" => "127.0.0.1:0".to_owned(),
            path => dir.endpoint(path),
        };
        promptly(Duration::from_millis(100), || {
            let server =
                A::Datagram::bind(&endpoint, &[Opt::Handover(timeout != INFINITE)]).unwrap();
            server.set_read_timeout(timeout).unwrap();
            let nameless = UnixDatagram::unbound().unwrap();
            if endpoint.starts_with("unix:") {
                nameless.send_to(b"", dir.path("s")).unwrap();
                assert_eq!(server.recv(8).unwrap().bytes, b"", "an empty datagram is received");
            }
            let ((outcome, used), took) = while_waiting(
                || {
                    let outcome = server.recv(8);
                    (outcome, system::thread_cpu_time())
                },
                || system::shutdown_reading(server.fd().unwrap()),
            );
            fails(outcome, ErrorKind::Closed);
            assert!(took < Duration::from_secs(10), "{took:?}");
            fails(server.recv_batch(&[8; 4]), ErrorKind::Closed);
            used
        });
    }
}

/// D4: a relative peer path refers to the directory at the time of the connect, even if the process
/// changes its directory.
fn relative_peer_path_after_chdir_is_kept<A: Api>() {
    let dir = TempDir::new();
    let here = std::env::current_dir().unwrap();
    let path = dir.path("s");
    let mut relative = std::path::PathBuf::new();
    here.components().skip(1).for_each(|_| relative.push(".."));
    relative.push(path.strip_prefix("/").unwrap());
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    let client = A::Datagram::connect(&format!("unix:{}", relative.display()), &[]).unwrap();
    client.set_read_timeout(60_000).unwrap();
    client.send(b"x").unwrap();
    let (_, info) = server.recv_info(8).unwrap();
    server.reply(&info, b"y").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"y", "the server has another path for its socket");
}

/// D4: a socket option that the program has set (SO_PASSPIDFD, Linux 6.5) does not fill the
/// descriptor table.
fn passed_pidfds_do_not_fill_the_table<A: Api>() {
    process::in_process(&test_name!(A, "passed_pidfds_do_not_fill_the_table"), LIMIT, || {
        const SO_PASSPIDFD: i32 = 76;
        let dir = TempDir::new();
        let (server, client) = pair::<A>(&dir);
        server.set_recv_metadata(true).unwrap();
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
    });
}

/// T4: a descriptor is adopted with and without a name.
fn unix_datagram_descriptor_is_adopted<A: Api>() {
    let _no_copies = process::no_starts();
    let dir = TempDir::new();
    let bound = UnixDatagram::bind(dir.path("s")).unwrap();
    let server = A::Datagram::adopt(bound.into(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(server.endpoint(), dir.endpoint("s"));
    let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
    drop(server);
    assert!(dir.path("s").exists(), "the file of an adopted socket remains");
    let (one, other) = UnixDatagram::pair().unwrap();
    let one = A::Datagram::adopt(one.into(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(one.name(), "unix-datagram unix:(unnamed) -> unix:(unnamed)");
    one.send(b"x").unwrap();
    let mut buf = [0; 8];
    assert_eq!(other.recv(&mut buf).unwrap(), 1);
    other.send(b"yy").unwrap();
    assert_eq!(one.recv(8).unwrap().bytes, b"yy");
}

/// V1: Unix datagram sockets are served as UDP sockets are.
#[cfg(feature = "serve")]
fn unix_datagrams_are_served<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let service = server.serve(2, Box::new(|reply, got| reply(&got.bytes).unwrap())).unwrap();
    for len in [0, 1, 10_000, 150_000] {
        client.send(&vec![6; len]).unwrap();
        assert_eq!(client.recv(200_000).unwrap().bytes, vec![6; len]);
    }
    service.stop();
    service.wait(60_000).unwrap();
    server.send_to_endpoint(b"still", &client.endpoint()).unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"still");
}

/// D3, D4: a batch of replies is sent, each to its sender.
fn batch_of_replies_reaches_each_sender<A: Api>() {
    let dir = TempDir::new();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    for endpoint in [dir.endpoint("c"), String::new()] {
        let client = match endpoint.as_str() {
            "" => A::Datagram::connect(&dir.endpoint("s"), &[Opt::ReadTimeout(60_000)]).unwrap(),
            path => A::Datagram::bind(path, &[Opt::ReadTimeout(60_000)]).unwrap(),
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

/// D4, T4: the sockets of a socketpair(2) have no names and nevertheless exchange datagrams.
fn socketpair_without_names_exchanges_datagrams<A: Api>() {
    let (one, other) = crate::support::os::unix::net::UnixDatagram::pair().unwrap();
    let [one, other] = [one, other].map(|end| {
        A::Datagram::adopt(end.into(), &[Opt::ReadTimeout(60_000)]).map_err(|e| e.1).unwrap()
    });
    assert_eq!(one.endpoint(), "unix:(unnamed)");
    one.send(b"question").unwrap();
    let (got, info) = other.recv_info(16).unwrap();
    assert_eq!(got.bytes, b"question");
    other.reply(&info, b"answer").unwrap();
    assert_eq!(one.recv(16).unwrap().bytes, b"answer");
}

/// D4: allowed senders stay allowed while metadata is enabled and disabled.
fn metadata_change_keeps_allowed_senders<A: Api>() {
    const COUNT: usize = 3000;
    let dir = TempDir::new();
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    let options = [Opt::AllowUid(own), Opt::ReadTimeout(60_000)];
    let server = A::Datagram::bind(&dir.endpoint("s"), &options).unwrap();
    let client = A::Datagram::connect(&dir.endpoint("s"), &[]).unwrap();
    std::thread::scope(|scope| {
        let sends = scope.spawn(|| (0..COUNT).for_each(|_| client.send(b"x").unwrap()));
        scope.spawn(|| {
            for _ in 0..COUNT {
                assert_eq!(server.recv(8).unwrap().bytes, b"x");
            }
        });
        while !sends.is_finished() {
            server.set_recv_metadata(true).unwrap();
            server.set_recv_metadata(false).unwrap();
        }
    });
}

/// The size of the process's descriptor table in the kernel. The table grows when more descriptors
/// are open, even for a moment, and never shrinks.
fn table_size() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    size.trim().parse().unwrap()
}

/// D4: unrequested descriptors never enter the descriptor table of the process, whether their
/// sender is denied or metadata is requested.
fn recv_batch_with_denied_descriptors_fills_no_table<A: Api>() {
    process::in_process(
        &test_name!(A, "recv_batch_with_denied_descriptors_fills_no_table"),
        LIMIT,
        || {
            let dir = TempDir::new();
            let own = std::fs::metadata("/proc/self").unwrap().uid();
            for (socket, denied, details) in
                [("a", true, false), ("b", true, true), ("c", false, true), ("d", false, false)]
            {
                let mut options = vec![Opt::ReadTimeout(100)];
                options.extend(denied.then_some(Opt::AllowUid(own + 7)));
                let server = A::Datagram::bind(&dir.endpoint(socket), &options).unwrap();
                server.set_recv_metadata(details).unwrap();
                let sender = UnixDatagram::unbound().unwrap();
                sender.connect(dir.path(socket)).unwrap();
                let null = std::fs::File::open("/dev/null").unwrap();
                let many = [null.as_raw_fd(); 253];
                let before = table_size();
                for receive in 0..3 {
                    let mut sent = 0;
                    while system::send_fds(sender.as_raw_fd(), b"x", &many).is_ok() {
                        sent += 1;
                    }
                    assert!(sent > 1);
                    if denied {
                        match receive {
                            0 => fails(server.recv_batch(&[8; 64]), ErrorKind::TimedOut),
                            1 => fails(server.recv(8), ErrorKind::TimedOut),
                            _ => fails(server.recv_fds(8, 0), ErrorKind::TimedOut),
                        };
                        continue;
                    }
                    match receive {
                        0 => assert_eq!(server.recv_batch(&[8; 64]).unwrap().len(), sent),
                        1 => (0..sent).for_each(|_| drop(server.recv(8).unwrap())),
                        _ => (0..sent)
                            .for_each(|_| assert!(server.recv_fds(8, 0).unwrap().1.truncated)),
                    }
                }
                assert_eq!(table_size(), before, "{denied} {details}");
            }
        },
    );
}

/// D4: while denied senders pass descriptors as fast as they can, no other thread of the process
/// finds the table full.
fn open_succeeds_while_denied_senders_pass_descriptors<A: Api>() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let test = test_name!(A, "open_succeeds_while_denied_senders_pass_descriptors");
    process::in_process(&test, LIMIT, || {
        limits::limit_descriptors(256);
        let dir = TempDir::new();
        let own = std::fs::metadata("/proc/self").unwrap().uid();
        let server = A::Datagram::bind(&dir.endpoint("s"), &[Opt::AllowUid(own + 7)]).unwrap();
        server.set_read_timeout(1000).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let senders = [(); 2].map(|()| {
            let sender = UnixDatagram::unbound().unwrap();
            sender.connect(dir.path("s")).unwrap();
            sender
        });
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = support::OnDrop(|| stop.store(true, Ordering::SeqCst));
            for sender in &senders {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        let many = [null.as_raw_fd(); 60];
                        let _ = system::send_fds(sender.as_raw_fd(), b"x", &many);
                    }
                });
            }
            let opens = scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    drop(std::fs::File::open("/dev/null").unwrap());
                }
            });
            fails(server.recv_batch(&[8; 64]), ErrorKind::TimedOut);
            fails(server.recv(8), ErrorKind::TimedOut);
            assert!(!opens.is_finished(), "the open of a file failed");
        });
    });
}

/// D4: the kernel installs no more descriptors than requested, whatever else it reports.
fn recv_fds_installs_no_more_than_are_wanted<A: Api>() {
    let test = test_name!(A, "recv_fds_installs_no_more_than_are_wanted");
    process::in_process(&test, LIMIT, || {
        let dir = TempDir::new();
        let own = std::fs::metadata("/proc/self").unwrap().uid();
        let server = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
        let guarded = A::Datagram::bind(&dir.endpoint("g"), &[Opt::AllowUid(own + 7)]).unwrap();
        guarded.set_read_timeout(50).unwrap();
        let [sender, denied] = ["s", "g"].map(|path| {
            let sender = UnixDatagram::unbound().unwrap();
            sender.connect(dir.path(path)).unwrap();
            sender
        });
        let null = std::fs::File::open("/dev/null").unwrap();
        let many = [null.as_raw_fd(); 20];
        // The free numbers below the size of the table.
        let leave = |count: usize| {
            let size = table_size();
            let mut filled: Vec<std::fs::File> = Vec::new();
            let number = |fd: &std::fs::File| usize::try_from(fd.as_raw_fd()).unwrap();
            while filled.last().is_none_or(|fd| number(fd) + 1 < size) {
                filled.push(null.try_clone().unwrap());
            }
            filled.retain(|fd| number(fd) + count < size);
            filled
        };
        for details in [false, true] {
            server.set_recv_metadata(details).unwrap();
            for max in [1, 2, 3] {
                let filled = leave(max);
                let before = table_size();
                system::send_fds(sender.as_raw_fd(), b"x", &many).unwrap();
                let (got, passed) = server.recv_fds(8, max).unwrap();
                assert_eq!((passed.fds.len(), passed.truncated), (max, true), "{details}");
                assert_eq!(got.credentials.is_some(), details);
                drop(passed);
                system::send_fds(denied.as_raw_fd(), b"x", &many).unwrap();
                fails(guarded.recv_fds(8, max), ErrorKind::TimedOut);
                assert_eq!(table_size(), before, "{max} {details}");
                drop(filled);
            }
        }
    });
}

/// D4: descriptors without room in the table of the process are lost, which is reported. The
/// datagram and the installed descriptors are received.
fn recv_fds_with_a_full_table_reports_what_is_lost<A: Api>() {
    let test = test_name!(A, "recv_fds_with_a_full_table_reports_what_is_lost");
    process::in_process(&test, LIMIT, || {
        limits::limit_descriptors(64);
        let dir = TempDir::new();
        let (server, client) = pair::<A>(&dir);
        let null = std::fs::File::open("/dev/null").unwrap();
        let all = std::iter::from_fn(|| null.try_clone().ok());
        let mut filled: Vec<_> = all.collect();
        for room in [0, 2] {
            filled.truncate(filled.len() - room);
            client.send_fds(b"x", None, &[null.as_raw_fd(); 5]).unwrap();
            let (got, passed) = server.recv_fds(8, 5).unwrap();
            assert_eq!(
                (got.bytes.as_slice(), passed.fds.len(), passed.truncated),
                (&b"x"[..], room, true)
            );
            assert!(passed.fds.iter().all(|fd| system::is_cloexec(fd.as_raw_fd())));
        }
    });
}

/// D4: denied senders do not extend a non-blocking call, however fast they send.
fn recv_nonblocking_ends_while_denied_senders_send<A: Api>() {
    use std::sync::atomic::{AtomicBool, Ordering};
    const MAX_SKIPPED: i64 = 1024;
    let dir = TempDir::new();
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[Opt::AllowUid(own + 7)]).unwrap();
    server.set_nonblocking(true).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = support::OnDrop(|| {
            stop.store(true, Ordering::SeqCst);
            // The senders may wait for queue room.
            while server.recv(8).is_ok_and(|_| true) {}
        });
        for _ in 0..8 {
            let sender = UnixDatagram::unbound().unwrap();
            sender.connect(dir.path("s")).unwrap();
            sender.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let _ = sender.send(b"x");
                }
            });
        }
        let denied = || server.stats().unwrap().denied;
        let mut met = [0; 3];
        let until = std::time::Instant::now() + Duration::from_secs(3);
        while met.contains(&0) && std::time::Instant::now() < until {
            for (receive, met) in met.iter_mut().enumerate() {
                let before = denied();
                match receive {
                    0 => fails(server.recv(8), ErrorKind::WouldBlock),
                    1 => fails(server.recv_batch(&[8; 64]), ErrorKind::WouldBlock),
                    _ => fails(server.recv_fds(8, 1), ErrorKind::WouldBlock),
                };
                let skipped = denied() - before;
                assert!(skipped < MAX_SKIPPED + 64, "{skipped} skipped in one call");
                *met += i64::from(skipped >= MAX_SKIPPED);
            }
        }
        println!("calls that the limit ended: {met:?}");
    });
}

/// D4: socket options that the program has set through the descriptor, and that make the kernel
/// report more, leave room for descriptors.
fn recv_with_options_of_the_program_continues<A: Api>() {
    let dir = TempDir::new();
    let (server, client) = pair::<A>(&dir);
    let fd = server.fd().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    for option in [libc::SO_PASSCRED, libc::SO_TIMESTAMP, libc::SO_PASSSEC] {
        system::set_option(fd, libc::SOL_SOCKET, option, 1);
        for max in [0, 1, 3] {
            client.send_fds(b"x", None, &[null.as_raw_fd(); 3]).unwrap();
            let (got, passed) = server.recv_fds(8, max).unwrap();
            assert_eq!((got.bytes.as_slice(), passed.fds.len()), (&b"x"[..], max));
            assert_eq!(passed.truncated, max < 3);
        }
        client.send(b"y").unwrap();
        let got = server.recv(8).unwrap();
        assert_eq!((got.bytes.as_slice(), got.credentials), (&b"y"[..], None));
    }
}

/// D4: a path that fills sun_path, without a final NUL, is a valid name.
fn path_of_107_or_108_bytes_is_bound_connected_and_answered<A: Api>() {
    for len in [107, 108] {
        exchange_by_paths_of::<A>(len);
    }
    let dir = TempDir::new();
    let path = dir.path(&"x".repeat(109 - dir.path("").as_os_str().len()));
    let long = format!("unix:{}", path.display());
    fails(A::Datagram::bind(&long, &[]), ErrorKind::InvalidEndpoint);
    fails(A::Datagram::connect(&long, &[]), ErrorKind::InvalidEndpoint);
    let socket = A::Datagram::bind(&dir.endpoint("s"), &[]).unwrap();
    fails(socket.send_to_endpoint(b"x", &long), ErrorKind::InvalidEndpoint);
}

fn exchange_by_paths_of<A: Api>(len: usize) {
    let _no_copies = process::no_starts();
    let dir = TempDir::new();
    let long = |c: &str| {
        let room = len - dir.path("").as_os_str().len();
        let path = dir.path(&c.repeat(room));
        assert_eq!(path.as_os_str().len(), len);
        (format!("unix:{}", path.display()), path)
    };
    let ((server_name, server_path), (client_name, _)) = (long("s"), long("c"));
    let server = A::Datagram::bind(&server_name, &[Opt::ReadTimeout(60_000)]).unwrap();
    assert_eq!(server.endpoint(), server_name);
    assert!(server_path.exists());
    fails(A::Datagram::bind(&server_name, &[]), ErrorKind::AddressInUse);
    let options = [Opt::Local(&client_name), Opt::ReadTimeout(60_000)];
    let client = A::Datagram::connect(&server_name, &options).unwrap();
    assert_eq!(client.name(), format!("unix-datagram {client_name} -> {server_name}"));
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.sender, client_name);
    server.reply(&info, b"y").unwrap();
    server.send_to_endpoint(b"z", &client_name).unwrap();
    for bytes in [b"y", b"z"] {
        let got = client.recv(8).unwrap();
        assert_eq!((got.bytes.as_slice(), got.sender), (&bytes[..], server_name.clone()));
    }
    // A restarted peer is reached again, and a stale file is replaced.
    drop(server);
    fails(client.send(b"x"), ErrorKind::Refused);
    assert!(!server_path.exists());
    let server = A::Datagram::bind(&server_name, &[]).unwrap();
    client.send(b"x").unwrap();
    let adopted = A::Datagram::adopt(server.release().unwrap(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(
        (adopted.endpoint(), adopted.recv(8).unwrap().sender),
        (server_name.clone(), client_name)
    );
    drop(adopted);
    assert!(server_path.exists());
    let _server = A::Datagram::bind(&server_name, &[]).unwrap();
}

/// D4, S4: the name of the sender as text is a destination: a path, an abstract name, and the name that
/// the kernel gave. A sender without a name has none.
fn sender_of_unix_datagram_as_text_is_a_destination<A: Api>() {
    let dir = TempDir::new();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[Opt::ReadTimeout(60_000)]).unwrap();
    let (path, name) = (dir.endpoint("a b\u{e4}"), abstract_name::<A>("sender"));
    for local in [Some(path.as_str()), Some(name.as_str()), None] {
        let own: Vec<_> = local.map(Opt::Local).into_iter().collect();
        let client = A::Datagram::connect(&server.endpoint(), &own).unwrap();
        client.send(b"question").unwrap();
        let (_, info) = server.recv_info(8).unwrap();
        let sender = A::Datagram::sender_of(&info);
        assert_eq!(sender, client.endpoint());
        server.send_to_endpoint(b"answer", &sender).unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"answer");
    }
    let unnamed = UnixDatagram::unbound().unwrap();
    unnamed.send_to(b"x", dir.path("s")).unwrap();
    let (_, info) = server.recv_info(8).unwrap();
    assert_eq!(A::Datagram::sender_of(&info), "unix:(unnamed)");
}

/// D4, S1: a bound socket connects to a path or an abstract name, keeps its name, and discards datagrams
/// of other senders. It connects once, and finds a peer that was started again.
fn set_peer_connects_a_bound_unix_socket_once<A: Api>() {
    let dir = TempDir::new();
    let wait = || [Opt::<A>::ReadTimeout(60_000)];
    let names = [dir.endpoint("peer"), format!("unix:@keepsock-{}", dir.endpoint("peer"))];
    for (n, name) in names.iter().enumerate() {
        let socket = A::Datagram::bind(&dir.endpoint(&format!("own{n}")), &wait()).unwrap();
        let other = A::Datagram::connect(&socket.endpoint(), &[]).unwrap();
        let missing = if n == 0 { ErrorKind::NotFound } else { ErrorKind::Refused };
        fails(socket.set_peer_endpoint(name), missing);
        let peer = A::Datagram::bind(name, &wait()).unwrap();
        fails(socket.send(b"x"), ErrorKind::WrongState);
        fails(socket.set_peer_endpoint("127.0.0.1:1"), ErrorKind::InvalidArgument);
        fails(
            socket.set_peer_endpoint(&format!("unix:/{}", "x".repeat(200))),
            ErrorKind::InvalidEndpoint,
        );
        other.send(b"early").unwrap();
        socket.set_peer_endpoint(name).unwrap();
        assert!(socket.name().ends_with(name.trim_start_matches("unix:")), "{}", socket.name());
        let failure = fails(socket.set_peer_endpoint(name), ErrorKind::WrongState);
        assert!(failure.message.contains("is connected to"), "{failure:?}");
        socket.send(b"question").unwrap();
        let (question, info) = peer.recv_info(16).unwrap();
        assert_eq!(question.bytes, b"question");
        peer.reply(&info, b"answer").unwrap();
        let (answer, info) = socket.recv_info(16).unwrap();
        assert_eq!(answer.bytes, b"answer");
        socket.reply(&info, b"again").unwrap();
        assert_eq!(peer.recv(16).unwrap().bytes, b"again");
        fails(socket.send_to_endpoint(b"x", &other.endpoint()), ErrorKind::WrongState);
        drop(peer);
        fails(socket.send(b"x"), ErrorKind::Refused);
        let peer = A::Datagram::bind(name, &wait()).unwrap();
        socket.send(b"new").unwrap();
        assert_eq!(peer.recv(16).unwrap().bytes, b"new");
        socket.close();
        fails(socket.set_peer_endpoint(name), ErrorKind::Closed);
    }
    let peer = A::Datagram::bind(&names[0], &[]).unwrap();
    let users = A::Datagram::bind(&dir.endpoint("users"), &[Opt::AllowUid(0)]).unwrap();
    fails(users.set_peer_endpoint(&names[0]), ErrorKind::InvalidArgument);
    let udp = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    fails(udp.set_peer_endpoint(&names[0]), ErrorKind::InvalidArgument);
    fails(udp.set_peer_endpoint("localhost:1"), ErrorKind::InvalidEndpoint);
    drop(peer);
}
