//! D1: bound and connected UDP. D2: replies leave from where the question came to, and ICMP
//! ends no receiving. D3: batches. T2 to T4 for datagram sockets.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{
    Api, Datagrams, Opt, Outcome, Token, fails, ip, promptly, system, timed, while_waiting,
};
use keepsock::{ErrorKind, Family, Protocol};

both_apis![
    question_and_answer,
    a_star_takes_both_families,
    families_that_do_not_fit,
    a_conflict_is_named,
    what_does_not_fit_is_told,
    the_longest_and_the_shortest,
    a_reply_leaves_from_where_the_question_came_to,
    connected_is_to_one_peer,
    a_name_and_addresses_in_its_place,
    options_that_only_streams_have,
    timeouts_are_kept,
    a_token_ends_waiting,
    closing_ends_waiting,
    nonblocking_does_not_wait,
    descriptors_come_and_go,
    no_datagram_socket_to_take_over,
    a_signal_ends_nothing,
    unreachable_peers_end_no_receiving,
    unreachable_peers_of_a_bound_socket,
    refusals_of_what_other_threads_send,
    errors_while_somebody_waits,
    queued_errors_keep_nobody_busy,
    errors_that_nobody_wants,
    errors_are_bounded,
    batches_keep_order_and_bounds,
    equal_ones_go_as_one,
    segments_that_are_refused,
    segments_and_other_refusals,
    a_batch_stops_where_it_must,
    a_batch_of_replies,
    receiving_batches_waits_as_receiving_does,
    batches_to_nobody,
    broadcasts,
    a_group_and_its_senders,
    several_on_one_group,
    a_group_of_ipv6,
    how_groups_are_sent_to,
    groups_that_are_none,
    groups_that_were_joined_or_not,
    a_ping_socket,
];

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(LOCALHOST, port)
}

/// A bound socket and one that is connected to it.
fn pair<A: Api>() -> (A::Datagram, A::Datagram) {
    let server = A::bind("127.0.0.1:0", &[]).unwrap();
    let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
    (server, client)
}

/// Where nobody listens: on an address of its own, where no other test binds.
fn closed_port<A: Api>(test: u8) -> SocketAddr {
    UdpSocket::bind((A::own_address(test), 0)).unwrap().local_addr().unwrap()
}

/// D1, S1: a bound socket, a connected one, and their five-tuples.
fn question_and_answer<A: Api>() {
    let (server, client) = pair::<A>();
    assert_eq!(server.endpoint(), format!("127.0.0.1:{}", server.port()));
    assert_eq!(client.name(), format!("udp 127.0.0.1:{} -> {}", client.port(), server.endpoint()));
    assert_eq!(server.name(), format!("udp {} -> 0.0.0.0:0", server.endpoint()));
    let tuple = client.five_tuple();
    assert_eq!(tuple.protocol, Protocol::Udp as i32);
    assert_eq!(tuple.remote, ("127.0.0.1".to_owned(), server.port()));
    client.send(b"question").unwrap();
    let (got, info) = server.recv_info(64).unwrap();
    assert_eq!((got.bytes.as_slice(), got.from), (&b"question"[..], at(client.port())));
    assert_eq!((got.original_len, got.truncated), (8, false));
    assert_eq!((got.to, got.local), (Some(at(server.port())), Some(at(server.port()))));
    assert_eq!(got.interface, 0, "who has one address does not pay for being told which it was");
    server.reply(&info, b"answer").unwrap();
    assert_eq!(client.recv(64).unwrap().bytes, b"answer");
    server.send_to(b"more", got.from).unwrap();
    assert_eq!(client.recv(64).unwrap().bytes, b"more");
    server.send_to_endpoint(b"again", &client.endpoint()).unwrap();
    assert_eq!(client.recv(64).unwrap().bytes, b"again");
    assert_eq!((got.ttl, got.tos, got.received_at), (None, None, None), "nobody asked");
    assert!(system::is_cloexec(server.fd().unwrap()));
    client.close();
    assert_eq!(client.five_tuple(), tuple);
    client.close();
}

/// D1: `*` is both families on one port; IPv4 addresses are shown as such.
fn a_star_takes_both_families<A: Api>() {
    let server = A::bind("*:0", &[]).unwrap();
    assert_eq!(server.endpoint(), format!("*:{}", server.port()));
    for (host, address) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let peer = format!("{host}:{}", server.port());
        let client = A::connect_datagram(&peer, &[]).unwrap();
        client.send(b"x").unwrap();
        let (got, info) = server.recv_info(8).unwrap();
        let to = SocketAddr::new(address.parse().unwrap(), server.port());
        assert_eq!((got.to, got.local), (Some(to), Some(to)));
        assert_eq!(got.interface, 1, "the loopback interface");
        assert_eq!(got.from, SocketAddr::new(to.ip(), client.port()));
        server.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"answer");
        server.send_to(b"again", got.from).unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"again");
    }
    let only = A::bind("*:0", &[Opt::Family(Family::Ipv4)]).unwrap();
    assert_eq!(only.five_tuple().local.0, "0.0.0.0");
}

/// E2: an address of a family that the socket does not have, and port 0.
fn families_that_do_not_fit<A: Api>() {
    for nobody in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
        let failure = fails(A::connect_datagram(nobody, &[]), ErrorKind::InvalidEndpoint);
        assert!(failure.message.contains("port 0"), "{failure:?}");
    }
    let to = |text: &str| text.parse::<SocketAddr>().unwrap();
    let four = A::bind("127.0.0.1:0", &[]).unwrap();
    let failure = fails(four.send_to(b"x", to("[::1]:9")), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("the socket is IPv4 only"), "{failure:?}");
    let six = A::bind("[::]:0", &[]).unwrap();
    let failure = fails(six.send_to(b"x", to("127.0.0.1:9")), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("the socket is IPv6 only"), "{failure:?}");
    fails(four.send_to(b"x", to("127.0.0.1:0")), ErrorKind::InvalidArgument);
    fails(four.send(b"x"), ErrorKind::WrongState);
    fails(A::connect_datagram("*:9", &[]), ErrorKind::InvalidEndpoint);
    fails(four.send_to_endpoint(b"x", "unix:/nowhere"), ErrorKind::InvalidArgument);
    fails(four.send_to_endpoint(b"x", "localhost:9"), ErrorKind::InvalidEndpoint);
    fails(A::bind("nonsense", &[]), ErrorKind::InvalidEndpoint);
}

/// L5 for datagrams: a port that is taken, by name.
fn a_conflict_is_named<A: Api>() {
    for endpoint in ["127.0.0.1:0", "*:0"] {
        let first = A::bind(endpoint, &[]).unwrap();
        let taken = first.endpoint();
        let failure = fails(A::bind(&taken, &[]), ErrorKind::AddressInUse);
        assert_eq!(failure.message, format!("bind {taken}: bind: address in use"));
    }
    let failure = fails(A::bind("192.0.2.1:0", &[]), ErrorKind::AddressNotAvailable);
    assert_eq!(&*failure.stage, "bind");
}

/// D1: truncation is told, with the length that the datagram had.
fn what_does_not_fit_is_told<A: Api>() {
    let (server, client) = pair::<A>();
    client.send(&[7; 1000]).unwrap();
    client.send(&[8; 1000]).unwrap();
    client.send(b"").unwrap();
    let got = server.recv(10).unwrap();
    assert_eq!((got.bytes.as_slice(), got.original_len, got.truncated), (&[7; 10][..], 1000, true));
    let got = server.recv(0).unwrap();
    assert_eq!((got.bytes.len(), got.original_len, got.truncated), (0, 1000, true));
    let got = server.recv(0).unwrap();
    assert_eq!((got.bytes.len(), got.original_len, got.truncated), (0, 0, false));
}

/// D1: 65,507 bytes go over IPv4, one more is refused; no bytes are a datagram.
fn the_longest_and_the_shortest<A: Api>() {
    let (server, client) = pair::<A>();
    let longest = vec![3; 65_507];
    client.send(&longest).unwrap();
    assert_eq!(server.recv(70_000).unwrap().bytes, longest);
    let failure = fails(client.send(&[0; 65_508]), ErrorKind::TooLong);
    assert!(failure.message.contains("65508 bytes"), "{failure:?}");
    assert!(failure.message.contains("at most 65507"), "{failure:?}");
    fails(server.send_to(&[0; 65_508], at(client.port())), ErrorKind::TooLong);
    client.send(b"").unwrap();
    let got = server.recv(8).unwrap();
    assert_eq!((got.bytes.len(), got.from), (0, at(client.port())));
    let six = A::bind("[::1]:0", &[]).unwrap();
    let to_six = A::connect_datagram(&six.endpoint(), &[]).unwrap();
    to_six.send(&[0; 65_507]).unwrap();
    assert_eq!(six.recv(70_000).unwrap().bytes.len(), 65_507);
    fails(to_six.send(&[0; 65_528]), ErrorKind::TooLong);
}

/// D2: a client that asked one of several addresses is answered from that one; it is connected,
/// so an answer from another one would not reach it.
fn a_reply_leaves_from_where_the_question_came_to<A: Api>() {
    for wildcard in ["0.0.0.0:0", "*:0"] {
        let server = A::bind(wildcard, &[]).unwrap();
        for asked in [A::own_address(90), A::own_address(91)] {
            let asked = SocketAddr::new(asked.parse().unwrap(), server.port());
            // The control: from 127.0.0.1 an answer comes from there if nobody sees to it.
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut buf = [0; 8];
            client.send_to(b"control", asked).unwrap();
            let got = server.recv(8).unwrap();
            server.send_to(b"x", got.from).unwrap();
            assert_eq!(client.recv_from(&mut buf).unwrap().1, at(server.port()));
            client.send_to(b"x", asked).unwrap();
            let (got, info) = server.recv_info(8).unwrap();
            assert_eq!((got.to, got.local), (Some(asked), Some(asked)));
            server.reply(&info, b"answer").unwrap();
            assert_eq!(client.recv_from(&mut buf).unwrap(), (6, asked));
        }
    }
}

/// D1: a connected socket neither hears nor addresses anybody else.
fn connected_is_to_one_peer<A: Api>() {
    let (server, client) = pair::<A>();
    let stranger = A::bind("127.0.0.1:0", &[]).unwrap();
    stranger.send_to(b"stranger", at(client.port())).unwrap();
    server.send_to(b"peer", at(client.port())).unwrap();
    assert_eq!(client.recv(16).unwrap().bytes, b"peer");
    let failure = fails(client.send_to(b"x", at(stranger.port())), ErrorKind::WrongState);
    assert!(failure.message.contains("connected to"), "{failure:?}");
    client.send_to(b"its own", at(server.port())).unwrap();
    assert_eq!(server.recv(16).unwrap().bytes, b"its own");
    // The wildcard is this machine.
    let wildcard = A::connect_datagram(&format!("0.0.0.0:{}", server.port()), &[]).unwrap();
    assert_eq!(wildcard.five_tuple().remote, ("127.0.0.1".to_owned(), server.port()));
    wildcard.send(b"x").unwrap();
    assert_eq!(server.recv(16).unwrap().from, at(wildcard.port()));
}

/// C5 for datagrams: names, the local address, addresses in place of a name.
fn a_name_and_addresses_in_its_place<A: Api>() {
    let server = A::bind("127.0.0.1:0", &[]).unwrap();
    let name = format!("localhost:{}", server.port());
    let four = [Opt::Family(Family::Ipv4)];
    A::connect_datagram(&name, &four).unwrap().send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
    let from = A::own_address(92);
    let local = format!("{from}:0");
    let options = [Opt::Local(&local), Opt::Address(at(server.port()))];
    let client = A::connect_datagram("not-looked-up.invalid:80", &options).unwrap();
    assert_eq!(client.five_tuple().local.0, from);
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().from, SocketAddr::new(from.parse().unwrap(), client.port()));
    // The first that works: this machine has no way to an address of the other family.
    let options = [Opt::Local("[::1]:0"), Opt::Address(at(server.port()))];
    fails(A::connect_datagram("x:80", &options), ErrorKind::NotFound);
    A::bind("127.0.0.1:0", &[Opt::Interface("lo")]).unwrap();
    fails(A::bind("127.0.0.1:0", &[Opt::Interface("nosuch0")]), ErrorKind::InvalidEndpoint);
}

/// E2: nothing is silently ignored: what a datagram socket cannot have is refused.
fn options_that_only_streams_have<A: Api>() {
    for (name, option) in [
        ("keepalive", Opt::Keepalive(10_000, 1000, 3)),
        ("liveness", Opt::DeadAfter(10_000)),
        ("liveness", Opt::SurviveIdle(10_000)),
        ("liveness", Opt::Heartbeat(b"x", 1000)),
        ("liveness", Opt::IdleLimit(1000)),
        ("liveness", Opt::FirstByteLimit(1000)),
        ("nodelay", Opt::Nodelay(false)),
        ("attempt_delay", Opt::AttemptDelay(100)),
        ("backlog", Opt::Backlog(8)),
        ("fast_open", Opt::FastOpen(true)),
        ("mptcp", Opt::Mptcp(true)),
        ("save_syn", Opt::SaveSyn(true)),
    ] {
        let options = [option];
        for outcome in
            [A::bind("127.0.0.1:0", &options), A::connect_datagram("127.0.0.1:9", &options)]
        {
            let failure = fails(outcome, ErrorKind::InvalidArgument);
            assert!(failure.message.contains(name), "{failure:?}");
        }
    }
    fails(A::bind("127.0.0.1:0", &[Opt::Local("127.0.0.1:0")]), ErrorKind::InvalidArgument);
    fails(A::bind("127.0.0.1:0", &[Opt::Address(at(9))]), ErrorKind::InvalidArgument);
    // What is off is met.
    A::bind("127.0.0.1:0", &[Opt::NoKeepalive, Opt::Nodelay(true)]).unwrap();
}

/// I1: one deadline for the call, from the options or set later; datagrams that come first are
/// received.
fn timeouts_are_kept<A: Api>() {
    let limit = Duration::from_millis(50);
    let server = A::bind("127.0.0.1:0", &[Opt::ReadTimeout(50)]).unwrap();
    promptly(limit + Duration::from_millis(50), || {
        let (outcome, took) = timed(|| server.recv(8));
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert_eq!(failure.message, format!("receive {}: timed out", server.endpoint()));
        assert!(took >= limit, "{took:?}");
        took
    });
    server.send_to(b"x", at(server.port())).unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
    fails(server.set_read_timeout(0), ErrorKind::InvalidArgument);
    fails(server.set_write_timeout(0), ErrorKind::InvalidArgument);
    server.set_read_timeout(10).unwrap();
    server.set_write_timeout(10_000).unwrap();
    fails(server.recv(8), ErrorKind::TimedOut);
    server.send_to(b"x", at(server.port())).unwrap();
    server.set_read_timeout(common::INFINITE).unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
}

/// T2: a token ends receiving within 50 ms, and the socket can still be used.
fn a_token_ends_waiting<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let token = A::token();
        let server = A::bind("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
        let (outcome, took) = while_waiting(|| server.recv(8), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
        fails(server.send_to(b"x", at(server.port())), ErrorKind::Cancelled);
        server.set_cancel(None);
        server.send_to(b"x", at(server.port())).unwrap();
        assert_eq!(server.recv(8).unwrap().bytes, b"x");
        took
    });
}

/// T3: closing ends receiving in other threads, however they wait, and bound or connected.
fn closing_ends_waiting<A: Api>() {
    let token = A::token();
    let with_token = [Opt::Cancel(&token)];
    let with_limit = [Opt::ReadTimeout(20_000)];
    for options in [&[][..], &with_token, &with_limit] {
        let server = A::bind("*:0", options).unwrap();
        let peer = format!("127.0.0.1:{}", server.port());
        let client = A::connect_datagram(&peer, options).unwrap();
        for socket in [client, server] {
            let (outcome, _) = while_waiting(|| socket.recv(8), || socket.close());
            fails(outcome, ErrorKind::Closed);
            fails(socket.recv(8), ErrorKind::Closed);
            fails(socket.send_to(b"x", at(9)), ErrorKind::Closed);
            fails(socket.set_read_timeout(10), ErrorKind::Closed);
            fails(socket.set_nonblocking(true), ErrorKind::Closed);
            fails(socket.set_report_errors(true), ErrorKind::Closed);
            fails(socket.recv_error(), ErrorKind::Closed);
            fails(socket.fd(), ErrorKind::Closed);
            fails(socket.release(), ErrorKind::Closed);
        }
    }
}

/// T4: in non-blocking mode nothing waits.
fn nonblocking_does_not_wait<A: Api>() {
    let (server, client) = pair::<A>();
    server.set_nonblocking(true).unwrap();
    assert!(system::is_nonblocking(server.fd().unwrap()));
    fails(server.recv(8), ErrorKind::WouldBlock);
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
    server.set_nonblocking(false).unwrap();
    assert!(!system::is_nonblocking(server.fd().unwrap()));
    let (outcome, _) = while_waiting(|| server.recv(8), || client.send(b"y").unwrap());
    assert_eq!(outcome.unwrap().bytes, b"y");
}

/// T4: a descriptor is borrowed, given up and taken over.
fn descriptors_come_and_go<A: Api>() {
    let (server, client) = pair::<A>();
    let endpoint = server.endpoint();
    let fd = server.release().unwrap();
    assert!(!system::is_nonblocking(fd.as_raw_fd()));
    fails(server.recv(8), ErrorKind::Closed);
    let server = A::adopt_datagram(fd, &[Opt::ReadTimeout(10_000)]).map_err(|e| e.1).unwrap();
    assert_eq!(server.endpoint(), endpoint);
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.to, Some(at(server.port())));
    server.reply(&info, b"answer").unwrap();
    // A connected one is connected still.
    let client = A::adopt_datagram(client.release().unwrap(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"answer");
    client.send(b"y").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"y");
}

/// E2: what cannot be taken over stays the caller's, and is said.
fn no_datagram_socket_to_take_over<A: Api>() {
    let refused = |fd, options: &[Opt<'_, A>], kind: ErrorKind| {
        let (_fd, failure) = A::adopt_datagram(fd, options).err().unwrap();
        assert_eq!(failure.status, kind.code(), "{failure:?}");
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    refused(listener.into(), &[], ErrorKind::WrongState);
    let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    refused(unix.into(), &[], ErrorKind::WrongState);
    let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    refused(unbound.into(), &[], ErrorKind::WrongState);
    refused(std::fs::File::open("/dev/null").unwrap().into(), &[], ErrorKind::Os);
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap().into();
    refused(socket(), &[Opt::Family(Family::Ipv4)], ErrorKind::InvalidArgument);
    refused(socket(), &[Opt::Interface("lo")], ErrorKind::InvalidArgument);
    refused(socket(), &[Opt::Backlog(1)], ErrorKind::InvalidArgument);
}

/// C4 for datagrams: a signal that interrupts the system call does not end the call.
fn a_signal_ends_nothing<A: Api>() {
    extern "C" fn nothing(_: i32) {}
    system::set_disposition(libc::SIGUSR1, nothing as *const () as usize);
    let (server, client) = pair::<A>();
    let target = std::sync::Mutex::new(None);
    let (outcome, _) = while_waiting(
        || {
            *target.lock().unwrap() = Some(system::Target::this_thread());
            server.recv(8)
        },
        || {
            target.lock().unwrap().unwrap().signal(libc::SIGUSR1);
            client.send(b"x").unwrap();
        },
    );
    assert_eq!(outcome.unwrap().bytes, b"x");
}

/// D2: a thousand refusals, and each datagram that comes between them is received.
fn unreachable_peers_end_no_receiving<A: Api>() {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = closed_port::<A>(93);
    client.connect(gone).unwrap();
    // The control: a plain socket fails by the refusal of what it sent before.
    client.send(b"x").unwrap();
    assert_eq!(client.send(b"x").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    for options in [&[][..], &[Opt::ReadTimeout(10_000)]] {
        let client = A::connect_datagram(&gone.to_string(), options).unwrap();
        for _ in 0..1000 {
            client.send(b"x").unwrap();
        }
        // The last refusal may wait for a call that meets it.
        let first = client.recv_error().unwrap().expect("by loopback it is there at once");
        assert_eq!(first.status, ErrorKind::Refused.code());
        assert_eq!(first.os_error, libc::ECONNREFUSED);
        assert_eq!((first.to, first.from), (Some(gone), Some(gone.ip())));
        assert_eq!(client.error_count(), 1000);
        // The peer comes to life: whatever is pending, its datagrams are received.
        let peer = UdpSocket::bind(gone).unwrap();
        peer.send_to(b"alive", at(client.port())).unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"alive");
        client.send(b"question").unwrap();
        drop(peer);
        client.send(b"x").unwrap();
        client.set_read_timeout(10).unwrap();
        fails(client.recv(8), ErrorKind::TimedOut);
    }
}

/// D2, T1: however many threads send to nobody, and what is refused meanwhile, each datagram is sent; also
/// one to somebody who is there.
fn refusals_of_what_other_threads_send<A: Api>() {
    let gone = closed_port::<A>(99);
    let client = A::connect_datagram(&gone.to_string(), &[]).unwrap();
    let server = A::bind("127.0.0.1:0", &[]).unwrap();
    server.set_report_errors(true).unwrap();
    let living = UdpSocket::bind("127.0.0.1:0").unwrap();
    let living = living.local_addr().unwrap();
    std::thread::scope(|scope| {
        for to in [gone, gone, living] {
            let (client, server) = (&client, &server);
            scope.spawn(move || {
                for _ in 0..5000 {
                    client.send(b"x").unwrap();
                    assert_eq!(client.send_batch(&[(b"x", None), (b"yy", None)]).unwrap(), 2);
                    server.send_to(b"x", to).unwrap();
                }
            });
        }
    });
    assert!(client.error_count() > 0 && server.error_count() > 0);
}

/// D2: the same on a bound socket, which hears of them only if it is asked to.
fn unreachable_peers_of_a_bound_socket<A: Api>() {
    for endpoint in ["127.0.0.1:0", "*:0"] {
        let server = A::bind(endpoint, &[Opt::ReadTimeout(10_000)]).unwrap();
        let client = A::connect_datagram(&format!("127.0.0.1:{}", server.port()), &[]).unwrap();
        let gone = closed_port::<A>(94);
        server.send_to(b"x", gone).unwrap();
        assert_eq!(server.recv_error().unwrap(), None);
        server.set_report_errors(true).unwrap();
        for i in 0..1000u32 {
            server.send_to(b"x", gone).unwrap();
            client.send(&i.to_be_bytes()).unwrap();
            assert_eq!(server.recv(8).unwrap().bytes, i.to_be_bytes());
        }
        let reported = server.recv_error().unwrap().expect("refusals were reported");
        assert_eq!((reported.status, reported.to), (ErrorKind::Refused.code(), Some(gone)));
        assert_eq!((reported.from, server.error_count()), (Some(gone.ip()), 1000));
        server.set_report_errors(false).unwrap();
        server.send_to(b"x", gone).unwrap();
        assert_eq!(server.error_count(), 1000);
    }
}

/// D2: a refusal that comes while somebody waits ends no wait, and the wait is none that keeps
/// the processor busy.
fn errors_while_somebody_waits<A: Api>() {
    let token = A::token();
    for options in [&[][..], &[Opt::ReadTimeout(10_000)], &[Opt::Cancel(&token)]] {
        let gone = closed_port::<A>(95);
        let client = A::connect_datagram(&gone.to_string(), options).unwrap();
        let (outcome, _) = while_waiting(
            || (client.recv(8), system::thread_cpu_time()),
            || {
                client.send(b"x").unwrap();
                common::eventually("the refusal is met", || client.error_count() == 1);
                let peer = UdpSocket::bind(gone).unwrap();
                peer.send_to(b"alive", at(client.port())).unwrap();
            },
        );
        assert_eq!(outcome.0.unwrap().bytes, b"alive");
        assert!(outcome.1 < Duration::from_millis(100), "{:?} of the processor", outcome.1);
        assert!(client.recv_error().unwrap().is_some());
        assert_eq!(client.recv_error().unwrap(), None);
    }
}

/// D2: while an error is queued poll does not wait, so it is taken; else whoever waits with a limit
/// would keep the processor busy until then.
fn queued_errors_keep_nobody_busy<A: Api>() {
    let gone = closed_port::<A>(100);
    let client = A::connect_datagram(&gone.to_string(), &[Opt::ReadTimeout(300)]).unwrap();
    let fd = client.fd().unwrap();
    // Another call takes the error itself, but not what was queued of it.
    while system::send_plainly(fd, b"x") {}
    let before = system::thread_cpu_time();
    fails(client.recv(8), ErrorKind::TimedOut);
    let used = system::thread_cpu_time() - before;
    assert!(used < Duration::from_millis(60), "{used:?} of the processor");
    assert!(client.error_count() > 0);
}

/// D2: whoever does not want to know is told nothing, and nothing fails.
fn errors_that_nobody_wants<A: Api>() {
    let client = A::connect_datagram(&closed_port::<A>(101).to_string(), &[]).unwrap();
    client.set_report_errors(false).unwrap();
    for _ in 0..4 {
        client.send(b"x").unwrap();
    }
    assert_eq!((client.error_count(), client.recv_error().unwrap()), (0, None));
}

/// D3: what else is wrong with a batch does not end segmentation.
fn segments_and_other_refusals<A: Api>() {
    let peer = coalescing();
    let to = peer.local_addr().unwrap();
    let client = A::bind("0.0.0.0:0", &[]).unwrap();
    let nowhere = "192.0.2.1:0".parse().unwrap();
    client.send_batch_from(&[&[5; 100], &[5; 100]], to, nowhere).unwrap_err();
    client.send_batch(&[(&[6; 100][..], Some(to)); 2]).unwrap();
    assert_eq!(peer.recv(&mut [0; 1000]).unwrap(), 200);
}

/// E2: an ICMP socket (icmp(7)) looks like one of UDP, and is none.
fn a_ping_socket<A: Api>() {
    let icmp = Some(socket2::Protocol::ICMPV4);
    let Ok(ping) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, icmp) else {
        eprintln!("skipped: no ping sockets for this user (ping_group_range)");
        return;
    };
    ping.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let (_fd, failure) = A::adopt_datagram(ping.into(), &[]).err().unwrap();
    assert_eq!(failure.status, ErrorKind::WrongState.code(), "{failure:?}");
}

/// D1: what is wrong with joining and leaving is said as documented, with a sender, too.
fn groups_that_were_joined_or_not<A: Api>() {
    let socket = A::bind("0.0.0.0:0", &[]).unwrap();
    let (group, sender) = (ip("239.83.4.1"), Some(ip("127.0.0.1")));
    fails(socket.leave(group, Some("lo"), None), ErrorKind::AddressNotAvailable);
    fails(socket.leave(group, Some("lo"), sender), ErrorKind::AddressNotAvailable);
    socket.join(group, Some("lo"), sender).unwrap();
    fails(socket.join(group, Some("lo"), sender), ErrorKind::AddressInUse);
    socket.join(group, Some("lo"), Some(ip("127.0.0.2"))).unwrap();
    fails(socket.leave(group, Some("lo"), Some(ip("127.0.0.3"))), ErrorKind::AddressNotAvailable);
    socket.leave(group, Some("lo"), sender).unwrap();
}

/// D2: nobody who never asks for errors keeps ever more of them.
fn errors_are_bounded<A: Api>() {
    let client = A::connect_datagram(&closed_port::<A>(96).to_string(), &[]).unwrap();
    for _ in 0..200 {
        client.send(b"x").unwrap();
    }
    let mut kept = 0;
    while client.recv_error().unwrap().is_some() {
        kept += 1;
    }
    assert_eq!((kept, client.error_count()), (64, 200));
    let outcome: Outcome<()> = client.send(b"x");
    outcome.unwrap();
}

/// Receives until so many are there.
fn receive<A: Api>(socket: &A::Datagram, count: usize) -> Vec<common::Got> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(socket.recv_batch(&vec![2000; 64]).unwrap());
    }
    assert_eq!(all.len(), count);
    all
}

/// D3: whatever the lengths and the addresses, each datagram arrives as it was given, in order.
fn batches_keep_order_and_bounds<A: Api>() {
    let server = A::bind("*:0", &[Opt::ReadTimeout(10_000)]).unwrap();
    let other = A::bind("127.0.0.1:0", &[Opt::ReadTimeout(10_000)]).unwrap();
    let client = A::bind("*:0", &[]).unwrap();
    let lens = [9, 9, 9, 4, 9, 0, 0, 1400, 1400, 1400, 1, 1, 1400];
    let data: Vec<Vec<u8>> = (0..150).map(|i| vec![i as u8; lens[i % lens.len()]]).collect();
    let to = |i: usize| Some(at(if i % 40 == 39 { other.port() } else { server.port() }));
    let batch: Vec<_> = data.iter().enumerate().map(|(i, d)| (d.as_slice(), to(i))).collect();
    let mut sent = 0;
    for part in batch.chunks(70) {
        assert_eq!(client.send_batch(part).unwrap(), part.len());
        let of = |port| part.iter().filter(move |(_, to)| *to == Some(at(port)));
        for socket in [&server, &other] {
            let expected: Vec<_> = of(socket.port()).collect();
            let got = receive::<A>(socket, expected.len());
            for (got, expected) in got.iter().zip(expected) {
                assert_eq!((got.bytes.as_slice(), got.from), (expected.0, at(client.port())));
                assert_eq!((got.to, got.truncated), (Some(at(socket.port())), false));
            }
        }
        sent += part.len();
    }
    assert_eq!(sent, batch.len());
    assert_eq!(client.send_batch(&[]).unwrap(), 0);
    assert!(server.recv_batch(&[]).unwrap().is_empty());
    // Each entry tells what did not fit into it.
    let connected = A::connect_datagram(&other.endpoint(), &[]).unwrap();
    connected.send_batch(&[(&[1; 9], None), (b"", None), (&[2; 9], None)]).unwrap();
    let got = other.recv_batch(&[4, 4, 0]).unwrap();
    let told: Vec<_> = got.iter().map(|g| (g.bytes.len(), g.original_len, g.truncated)).collect();
    assert_eq!(told, [(4, 9, true), (0, 0, false), (0, 9, true)]);
}

/// A plain socket that takes what was sent as one as one (UDP_GRO of udp(7)).
fn coalescing() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    system::coalesce(socket.as_raw_fd());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// D3: equal datagrams to one address are one for the kernel.
fn equal_ones_go_as_one<A: Api>() {
    let peer = coalescing();
    let to = peer.local_addr().unwrap();
    let mut buf = vec![0; 70_000];
    for endpoint in ["127.0.0.1:0", "*:0"] {
        let client = A::bind(endpoint, &[]).unwrap();
        let mut batch = vec![(&[5; 100][..], Some(to)); 20];
        batch.push((&[6; 30], Some(to)));
        assert_eq!(client.send_batch(&batch).unwrap(), 21);
        assert_eq!(peer.recv(&mut buf).unwrap(), 20 * 100 + 30);
    }
    // More bytes than one datagram may have, and more pieces than the kernel cuts.
    let client = A::connect_datagram(&to.to_string(), &[]).unwrap();
    assert_eq!(client.send_batch(&[(&[7; 30_000][..], None); 3]).unwrap(), 3);
    assert_eq!(peer.recv(&mut buf).unwrap(), 60_000);
    assert_eq!(peer.recv(&mut buf).unwrap(), 30_000);
    assert_eq!(client.send_batch(&[(&[7; 10][..], None); 100]).unwrap(), 100);
    assert_eq!(peer.recv(&mut buf).unwrap(), 640);
    assert_eq!(peer.recv(&mut buf).unwrap(), 360);
}

/// D3: where the kernel refuses to cut, all are sent one by one, and from then on at once.
fn segments_that_are_refused<A: Api>() {
    let (server, client) = pair::<A>();
    // Without checksums the kernel does not cut: EINVAL.
    let fd = client.fd().unwrap();
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    for _ in 0..2 {
        assert_eq!(client.send_batch(&[(&[5; 100][..], None); 20]).unwrap(), 20);
        assert!(receive::<A>(&server, 20).iter().all(|got| got.bytes == [5; 100]));
    }
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 0);
    let peer = coalescing();
    let to = peer.local_addr().unwrap();
    let client = A::bind("127.0.0.1:0", &[]).unwrap();
    let fd = client.fd().unwrap();
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    client.send_batch(&[(&[5; 100][..], Some(to)); 2]).unwrap();
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 0);
    client.send_batch(&[(&[6; 100][..], Some(to)); 2]).unwrap();
    let mut buf = [0; 1000];
    for _ in 0..4 {
        assert_eq!(peer.recv(&mut buf).unwrap(), 100, "it is off for that length");
    }
    client.send_batch(&[(&[7; 99][..], Some(to)); 2]).unwrap();
    assert_eq!(peer.recv(&mut buf).unwrap(), 198, "shorter ones may pass");
}

/// D3: what is before one that cannot be sent is sent, and then it is told what is wrong.
fn a_batch_stops_where_it_must<A: Api>() {
    let (server, client) = pair::<A>();
    let long = vec![0; 65_508];
    let batch = [(&b"one"[..], None), (b"two", None), (&long, None), (b"three", None)];
    assert_eq!(client.send_batch(&batch).unwrap(), 2);
    fails(client.send_batch(&batch[2..]), ErrorKind::TooLong);
    let got = receive::<A>(&server, 2);
    assert_eq!((got[0].bytes.as_slice(), got[1].bytes.as_slice()), (&b"one"[..], &b"two"[..]));
    fails(server.send_batch(&[(b"x", None)]), ErrorKind::WrongState);
    fails(client.send_batch(&[(b"x", Some(at(9)))]), ErrorKind::WrongState);
    fails(server.send_batch(&[(b"x", Some(at(0)))]), ErrorKind::InvalidArgument);
    server.close();
    fails(server.send_batch(&[(b"x", Some(at(9)))]), ErrorKind::Closed);
}

/// D2, D3: replies in a batch leave from where the question came to.
fn a_batch_of_replies<A: Api>() {
    for wildcard in ["0.0.0.0:0", "*:0"] {
        let server = A::bind(wildcard, &[]).unwrap();
        let asked = SocketAddr::new(A::own_address(97).parse().unwrap(), server.port());
        let client = A::bind("127.0.0.1:0", &[Opt::ReadTimeout(10_000)]).unwrap();
        client.send_to(b"x", asked).unwrap();
        let (_, info) = server.recv_info(8).unwrap();
        let answers = [b"one".as_slice(), b"two", b"three"].map(|bytes| (&info, bytes));
        assert_eq!(server.reply_batch(&answers).unwrap(), 3);
        for (got, bytes) in receive::<A>(&client, 3).iter().zip(["one", "two", "three"]) {
            assert_eq!((got.bytes.as_slice(), got.from), (bytes.as_bytes(), asked));
        }
        // Answers of one length, but to two who asked, and from two addresses.
        let other = A::bind("127.0.0.1:0", &[Opt::ReadTimeout(10_000)]).unwrap();
        let there = at(server.port());
        let questions = [(&client, asked), (&other, asked), (&client, there)].map(|(from, to)| {
            from.send_to(b"x", to).unwrap();
            server.recv_info(8).unwrap().1
        });
        let words = ["one", "two", "six"];
        let answers = [0, 1, 2].map(|i| (&questions[i], words[i].as_bytes()));
        assert_eq!(server.reply_batch(&answers).unwrap(), 3);
        for (to, from, word) in
            [(&client, asked, "one"), (&other, asked, "two"), (&client, there, "six")]
        {
            let got = to.recv(8).unwrap();
            assert_eq!((got.bytes.as_slice(), got.from), (word.as_bytes(), from));
        }
    }
}

/// I1, T2 to T4: receiving in batches waits for the first, and ends as receiving does.
fn receiving_batches_waits_as_receiving_does<A: Api>() {
    let token = A::token();
    let options = [Opt::ReadTimeout(10_000), Opt::Cancel(&token)];
    for options in [&[][..], &options[..1], &options] {
        let server = A::bind("127.0.0.1:0", options).unwrap();
        let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
        let (outcome, _) =
            while_waiting(|| server.recv_batch(&[8; 4]), || client.send(b"x").unwrap());
        assert_eq!(outcome.unwrap().len(), 1);
        let (outcome, _) = while_waiting(|| server.recv_batch(&[8; 4]), || server.close());
        fails(outcome, ErrorKind::Closed);
    }
    let server = A::bind("127.0.0.1:0", &options).unwrap();
    server.set_read_timeout(10).unwrap();
    fails(server.recv_batch(&[8; 4]), ErrorKind::TimedOut);
    server.set_nonblocking(true).unwrap();
    fails(server.recv_batch(&[8; 4]), ErrorKind::WouldBlock);
    token.fire();
    fails(server.recv_batch(&[8; 4]), ErrorKind::Cancelled);
    fails(server.send_batch(&[(b"x", Some(at(9)))]), ErrorKind::Cancelled);
}

/// D2: refusals end no batch, neither of those that are sent nor of those that are received.
fn batches_to_nobody<A: Api>() {
    let gone = closed_port::<A>(98);
    let client = A::connect_datagram(&gone.to_string(), &[Opt::ReadTimeout(10_000)]).unwrap();
    for len in [1, 2] {
        // Of one length, and of lengths that make no run.
        let data: Vec<_> = (0..64).map(|i| vec![0; 1 + i % len]).collect();
        let batch: Vec<_> = data.iter().map(|d| (d.as_slice(), None)).collect();
        for _ in 0..10 {
            assert_eq!(client.send_batch(&batch).unwrap(), 64);
        }
    }
    let peer = UdpSocket::bind(gone).unwrap();
    peer.send_to(b"alive", at(client.port())).unwrap();
    assert_eq!(client.recv_batch(&[8; 4]).unwrap()[0].bytes, b"alive");
    assert!(client.error_count() > 0 && client.recv_error().unwrap().is_some());
}

/// D1: broadcast is asked for; an answer leaves from the address of the interface.
fn broadcasts<A: Api>() {
    for wildcard in ["0.0.0.0:0", "*:0"] {
        let server = A::bind(wildcard, &[Opt::ReadTimeout(10_000)]).unwrap();
        let client = A::bind("127.0.0.1:0", &[Opt::ReadTimeout(10_000)]).unwrap();
        let all = SocketAddr::new([127, 255, 255, 255].into(), server.port());
        fails(client.send_to(b"x", all), ErrorKind::PermissionDenied);
        client.set_broadcast(true).unwrap();
        client.send_to(b"x", all).unwrap();
        let (got, info) = server.recv_info(8).unwrap();
        assert_eq!((got.to, got.local), (Some(all), Some(at(server.port()))));
        server.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().from, at(server.port()));
        client.set_broadcast(false).unwrap();
        fails(client.send_to(b"x", all), ErrorKind::PermissionDenied);
    }
}

/// That what was sent to an address is not received: what is sent after it comes first.
fn is_not_received<A: Api>(server: &A::Datagram, client: &A::Datagram, to: SocketAddr) {
    client.send_to(b"not for you", to).unwrap();
    client.send_to(b"mark", at(server.port())).unwrap();
    assert_eq!(server.recv(16).unwrap().bytes, b"mark");
}

/// D1: a group is joined and left, for all senders or for some; what others have joined is not
/// received.
fn a_group_and_its_senders<A: Api>() {
    let group = IpAddr::from([239, 83, A::NUMBER, 1]);
    for wildcard in ["0.0.0.0:0", "*:0"] {
        let server = A::bind(wildcard, &[Opt::ReadTimeout(10_000)]).unwrap();
        let other = A::bind(wildcard, &[]).unwrap();
        let client = A::bind("127.0.0.1:0", &[]).unwrap();
        client.set_multicast_interface("lo").unwrap();
        let to = SocketAddr::new(group, server.port());
        let lo = Some("lo");
        other.join(group, lo, None).unwrap();
        server.join([239, 83, A::NUMBER, 2].into(), lo, None).unwrap();
        is_not_received::<A>(&server, &client, to);
        server.join(group, lo, None).unwrap();
        fails(server.join(group, lo, None), ErrorKind::AddressInUse);
        client.send_to(b"x", to).unwrap();
        let (got, info) = server.recv_info(8).unwrap();
        assert_eq!((got.bytes.as_slice(), got.to), (&b"x"[..], Some(to)));
        assert_eq!((got.from, got.interface), (at(client.port()), 1));
        server.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().from, at(server.port()));
        server.leave(group, lo, None).unwrap();
        fails(server.leave(group, lo, None), ErrorKind::AddressNotAvailable);
        is_not_received::<A>(&server, &client, to);
        let stranger = IpAddr::from([127, 0, 0, 9]);
        server.join(group, Some("1"), Some(stranger)).unwrap();
        is_not_received::<A>(&server, &client, to);
        server.join(group, lo, Some(LOCALHOST)).unwrap();
        client.send_to(b"y", to).unwrap();
        assert_eq!(server.recv(8).unwrap().bytes, b"y");
        server.leave(group, lo, Some(LOCALHOST)).unwrap();
        is_not_received::<A>(&server, &client, to);
    }
}

/// D1: several sockets, of several programs, receive on one group and port, and each is told the interface.
fn several_on_one_group<A: Api>() {
    let group = IpAddr::from([239, 83, A::NUMBER, 3]);
    let first = A::bind(&format!("{group}:0"), &[Opt::ReadTimeout(10_000)]).unwrap();
    let to = SocketAddr::new(group, first.port());
    let second = A::bind(&to.to_string(), &[Opt::ReadTimeout(10_000)]).unwrap();
    let client = A::bind("127.0.0.1:0", &[]).unwrap();
    client.set_multicast_interface("lo").unwrap();
    for socket in [&first, &second] {
        socket.join(group, Some("lo"), None).unwrap();
    }
    client.send_to(b"news", to).unwrap();
    for socket in [&first, &second] {
        let (got, info) = socket.recv_info(8).unwrap();
        assert_eq!((got.bytes.as_slice(), got.to, got.interface), (&b"news"[..], Some(to), 1));
        socket.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().from, at(first.port()));
    }
    // One that is not for groups is one's own.
    let own = A::bind("127.0.0.1:0", &[]).unwrap();
    fails(A::bind(&own.endpoint(), &[]), ErrorKind::AddressInUse);
}

/// D1: groups of IPv6, as the kernel has them: by loopback alone there is no way to one, so nothing
/// can be sent to it here.
fn a_group_of_ipv6<A: Api>() {
    let listed = |file: &str, text: &str| {
        let list = std::fs::read_to_string(format!("/proc/net/{file}")).unwrap();
        list.lines().any(|line| line.contains("lo") && line.contains(text))
    };
    for (test, endpoint) in ["[::]:0", "*:0"].into_iter().enumerate() {
        // A group of this process's own, for the lists are those of the machine.
        let own = std::process::id() as u16;
        let number = u32::from(A::NUMBER) * 10 + test as u32;
        let group: IpAddr = format!("ff01::{own:x}:{number}").parse().unwrap();
        let text = format!("ff01{:020}{own:04x}{number:04}", 0);
        let from: IpAddr = "::1".parse().unwrap();
        let server = A::bind(endpoint, &[]).unwrap();
        server.join(group, Some("lo"), None).unwrap();
        assert!(listed("igmp6", &text), "{text}");
        fails(server.join(group, Some("lo"), None), ErrorKind::AddressInUse);
        server.leave(group, Some("lo"), None).unwrap();
        assert!(!listed("igmp6", &text), "{text}");
        fails(server.leave(group, Some("lo"), None), ErrorKind::AddressNotAvailable);
        server.join(group, Some("lo"), Some(from)).unwrap();
        let filter = text.clone() + " 0x00000000000000000000000000000001";
        assert!(listed("mcfilter6", &filter) || listed("mcfilter6", &filter.replace("0x", "")));
        server.close();
        assert!(!listed("igmp6", &text), "{text}");
    }
}

/// D1: what the kernel has of it, for each family of the socket.
fn how_groups_are_sent_to<A: Api>() {
    for (endpoint, ipv4, ipv6) in
        [("127.0.0.1:0", true, false), ("[::1]:0", false, true), ("*:0", true, true)]
    {
        let socket = A::bind(endpoint, &[]).unwrap();
        socket.set_multicast_ttl(7).unwrap();
        socket.set_multicast_loop(false).unwrap();
        let fd = socket.fd().unwrap();
        if ipv4 {
            assert_eq!(system::option(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL), 7);
            assert_eq!(system::option(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP), 0);
        }
        if ipv6 {
            assert_eq!(system::option(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS), 7);
            assert_eq!(system::option(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP), 0);
        }
    }
}

/// E2: what is no group, no interface, or does not fit to the socket.
fn groups_that_are_none<A: Api>() {
    let four = A::bind("127.0.0.1:0", &[]).unwrap();
    let six = A::bind("[::]:0", &[]).unwrap();
    let invalid = ErrorKind::InvalidArgument;
    let failure = fails(four.join(ip("127.0.0.1"), Some("lo"), None), invalid);
    assert!(failure.message.contains("127.0.0.1 is no multicast group"), "{failure:?}");
    fails(four.join(ip("ff01::1:1"), Some("lo"), None), invalid);
    fails(six.join(ip("239.83.0.3"), Some("lo"), None), invalid);
    fails(four.join(ip("239.83.0.3"), Some("lo"), Some(ip("::1"))), invalid);
    let group = ip("239.83.0.3");
    let failure = fails(four.join(group, Some("nosuch0"), None), ErrorKind::InvalidEndpoint);
    assert!(failure.message.contains("no such interface: \"nosuch0\""), "{failure:?}");
    fails(four.join(group, Some("987654"), None), ErrorKind::InvalidEndpoint);
    fails(four.set_multicast_interface("nosuch0"), ErrorKind::InvalidEndpoint);
    four.close();
    fails(four.join(group, Some("lo"), None), ErrorKind::Closed);
    fails(four.leave(group, Some("lo"), None), ErrorKind::Closed);
    fails(four.set_broadcast(true), ErrorKind::Closed);
    fails(four.set_multicast_loop(true), ErrorKind::Closed);
    fails(four.set_multicast_ttl(1), ErrorKind::Closed);
    fails(four.set_multicast_interface("lo"), ErrorKind::Closed);
}
