//! D1: bound and connected UDP sockets. D2: replies leave from the address that received the
//! request, and ICMP errors do not end a receive. D3: batches. T2 to T4 for datagram sockets.

use crate::support::os::{AsRawFd, OwnedFd};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support;
use crate::support::libc;
use crate::support::{
    AWAITED, Api, Datagrams, Opt, Outcome, Token, fails, ip, promptly, system, timed, while_waiting,
};
#[cfg(feature = "serve")]
use crate::support::{DatagramService, OnDatagram, TempDir, eventually};
use crate::support::{limits, process, watch};
use keepsock::{ErrorKind, Family, Protocol};
use system::LOOPBACK;

/// The advice in the message of a taken address.
const IN_USE: &str = "another socket is bound to it: choose another port, or end the other program";

both_apis![
    datagrams_between_bound_and_connected_socket_arrive,
    bind_to_wildcard_receives_both_families,
    send_to_address_of_wrong_family_fails,
    bind_to_used_port_names_the_endpoint,
    recv_into_small_buffer_reports_truncation,
    send_of_longest_and_empty_datagram_succeeds,
    reply_leaves_from_the_requested_address,
    connected_socket_reaches_only_its_peer,
    connect_by_name_or_addresses_succeeds,
    recv_without_datagram_times_out,
    recv_with_timeout_or_token_makes_few_system_calls,
    cancel_during_recv_ends_the_wait,
    close_during_recv_ends_the_wait,
    recv_in_nonblocking_mode_does_not_wait,
    descriptor_is_borrowed_released_and_adopted,
    adopt_of_other_descriptor_leaves_it_to_caller,
    recv_interrupted_by_signal_continues,
    recv_among_icmp_errors_gets_every_datagram,
    recv_on_bound_socket_ignores_icmp_errors,
    send_during_icmp_errors_of_other_threads_succeeds,
    icmp_error_during_recv_does_not_end_the_wait,
    queued_error_during_recv_uses_no_processor,
    icmp_errors_without_recv_errors_are_discarded,
    unread_icmp_errors_have_a_limit,
    close_with_a_pending_error_keeps_it,
    send_from_invalid_source_is_rejected,
    batch_keeps_order_and_boundaries,
    batch_of_equal_lengths_uses_gso,
    batch_with_rejected_gso_is_sent_singly,
    batch_with_other_error_keeps_gso_enabled,
    batch_with_unsendable_datagram_sends_those_before,
    batch_of_replies_leaves_from_requested_addresses,
    recv_batch_waits_like_recv,
    batch_to_closed_port_ignores_icmp_errors,
    broadcast_requires_option_and_gets_reply,
    multicast_join_selects_groups_and_sources,
    multicast_with_several_sockets_reaches_each,
    multicast_join_of_ipv6_group_is_in_kernel_list,
    multicast_send_options_reach_the_kernel,
    multicast_join_of_invalid_group_fails,
    multicast_join_twice_or_leave_unjoined_fails,
    adopt_of_icmp_socket_fails,
    recv_without_memory_keeps_the_datagram,
    recv_of_unexplained_errors_keeps_the_processor_idle,
    recv_error_ends_when_the_queue_yields_nothing,
    release_restores_blocking_mode_without_timeouts,
    adopt_that_fails_leaves_descriptor_unchanged,
    connect_from_address_of_other_family_names_it,
    server_has_one_socket_for_each_peer,
    set_peer_connects_a_bound_socket_once,
    set_peer_reports_errors_of_the_peer,
    set_peer_discards_coalesced_datagrams_of_other_senders,
    refused_datagram_fails_the_receive_if_requested,
    refused_datagram_fails_the_receive_while_others_send,
    sender_as_text_is_a_destination,
    peek_leaves_the_datagram_for_the_next_receive,
    peek_of_coalescing_socket_is_rejected,
    #[cfg(feature = "diag")] {
        stream_options_for_datagram_socket_are_rejected,
    }
    #[cfg(feature = "serve")] {
        serve_after_transient_error_continues,
        serve_ends_after_a_fatal_error,
        serve_stops_while_receiving_fails,
        service_of_several_sockets_replies_from_each,
        service_of_several_sockets_ends_with_the_last_one,
        socket_is_added_from_inside_a_handler,
        add_of_an_unusable_socket_fails,
    }
];

/// For a test in a process of its own.
const LIMIT: Duration = Duration::from_secs(30);

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(LOCALHOST, port)
}

/// A bound socket and one that is connected to it.
fn pair<A: Api>() -> (A::Datagram, A::Datagram) {
    let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
    (server, client)
}

/// An address of this test, without a socket.
fn closed_port<A: Api>(test: u8) -> SocketAddr {
    SocketAddr::new(ip(&A::own_address(test)), support::own_port())
}

/// D1, S1: a bound and a connected socket exchange datagrams and report their addresses.
fn datagrams_between_bound_and_connected_socket_arrive<A: Api>() {
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
    assert_eq!(got.interface, 0, "a socket with one address does not request the interface");
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

/// D1: `*` receives both families on one port and reports IPv4 addresses as IPv4.
fn bind_to_wildcard_receives_both_families<A: Api>() {
    let server = A::Datagram::bind("*:0", &[]).unwrap();
    assert_eq!(server.endpoint(), format!("*:{}", server.port()));
    for (host, address) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let peer = format!("{host}:{}", server.port());
        let client = A::Datagram::connect(&peer, &[]).unwrap();
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
    let only = A::Datagram::bind("*:0", &[Opt::Family(Family::Ipv4)]).unwrap();
    assert_eq!(only.five_tuple().local.0, "0.0.0.0");
}

/// E2: a send fails for an address of a family that the socket does not have.
fn send_to_address_of_wrong_family_fails<A: Api>() {
    let to = |text: &str| text.parse::<SocketAddr>().unwrap();
    let four = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let failure = fails(four.send_to(b"x", to("[::1]:9")), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("the socket supports IPv4 only"), "{failure:?}");
    let six = A::Datagram::bind("[::]:0", &[]).unwrap();
    let failure = fails(six.send_to(b"x", to("127.0.0.1:9")), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("the socket supports IPv6 only"), "{failure:?}");
    fails(four.send(b"x"), ErrorKind::WrongState);
    fails(four.send_to_endpoint(b"x", "unix:/nowhere"), ErrorKind::InvalidArgument);
    fails(four.send_to_endpoint(b"x", "localhost:9"), ErrorKind::InvalidEndpoint);
    fails(A::Datagram::bind("nonsense", &[]), ErrorKind::InvalidEndpoint);
    let failure = A::Datagram::connect("127.0.0.1:9", &[Opt::Local("[::1]:0")]);
    let failure = fails(failure, ErrorKind::AddressNotAvailable);
    let words =
        "local address \"[::1]:0\": bind: address not available: it is of another address family";
    assert!(failure.message.contains(words), "{failure:?}");
    let failure = A::Datagram::connect("127.0.0.1:9", &[Opt::Local("127.0.0.1:no-such-service")]);
    let failure = failure.map(drop).unwrap_err();
    let words = "connect to 127.0.0.1:9: local address \"127.0.0.1:no-such-service\": lookup: ";
    assert!(failure.message.starts_with(words), "{failure:?}");
    let failure = A::Datagram::connect("unix:/nowhere", &[Opt::Local("127.0.0.1:0")]);
    let failure = fails(failure, ErrorKind::InvalidArgument);
    assert!(failure.message.contains("local_endpoint"), "{failure:?}");
}

/// L5: a bind to a port that is in use fails and names the endpoint.
fn bind_to_used_port_names_the_endpoint<A: Api>() {
    for endpoint in ["127.0.0.1:0", "*:0"] {
        let first = A::Datagram::bind(endpoint, &[]).unwrap();
        let taken = first.endpoint();
        let failure = fails(A::Datagram::bind(&taken, &[]), ErrorKind::AddressInUse);
        assert_eq!(*failure.message, *format!("bind {taken}: address in use: {IN_USE}"));
    }
    let failure = fails(A::Datagram::bind("192.0.2.1:0", &[]), ErrorKind::AddressNotAvailable);
    assert_eq!(&*failure.stage, "bind");
}

/// D1: a truncated receive reports the truncation and the length of the datagram.
fn recv_into_small_buffer_reports_truncation<A: Api>() {
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

/// D1: an IPv4 datagram has at most 65,507 bytes, and may be empty. A longer one is rejected.
fn send_of_longest_and_empty_datagram_succeeds<A: Api>() {
    let (server, client) = pair::<A>();
    let longest = vec![3; 65_507];
    client.send(&longest).unwrap();
    assert_eq!(server.recv(70_000).unwrap().bytes, longest);
    let failure = fails(client.send(&[0; 65_508]), ErrorKind::TooLong);
    assert!(failure.message.contains("65,508 bytes"), "{failure:?}");
    assert!(failure.message.contains("at most 65,507"), "{failure:?}");
    fails(server.send_to(&[0; 65_508], at(client.port())), ErrorKind::TooLong);
    client.send(b"").unwrap();
    let got = server.recv(8).unwrap();
    assert_eq!((got.bytes.len(), got.from), (0, at(client.port())));
    let six = A::Datagram::bind("[::1]:0", &[]).unwrap();
    let to_six = A::Datagram::connect(&six.endpoint(), &[]).unwrap();
    to_six.send(&[0; 65_507]).unwrap();
    assert_eq!(six.recv(70_000).unwrap().bytes.len(), 65_507);
    fails(to_six.send(&[0; 65_528]), ErrorKind::TooLong);
}

/// D2: a server with several addresses replies from the address that received the request. The
/// client is connected, so it receives no reply from another address.
fn reply_leaves_from_the_requested_address<A: Api>() {
    for wildcard in ["0.0.0.0:0", "*:0"] {
        let server = A::Datagram::bind(wildcard, &[]).unwrap();
        for asked in [A::own_address(90), A::own_address(91)] {
            let asked = SocketAddr::new(asked.parse().unwrap(), server.port());
            // The control case: from 127.0.0.1 the reply would come from that address by default.
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
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

/// D1: a connected socket neither receives from nor sends to other peers.
fn connected_socket_reaches_only_its_peer<A: Api>() {
    let (server, client) = pair::<A>();
    let stranger = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    stranger.send_to(b"stranger", at(client.port())).unwrap();
    server.send_to(b"peer", at(client.port())).unwrap();
    assert_eq!(client.recv(16).unwrap().bytes, b"peer");
    let failure = fails(client.send_to(b"x", at(stranger.port())), ErrorKind::WrongState);
    assert!(failure.message.contains("connected to"), "{failure:?}");
    client.send_to(b"its own", at(server.port())).unwrap();
    assert_eq!(server.recv(16).unwrap().bytes, b"its own");
}

/// C5: datagram sockets accept host names, a local address, and addresses in place of a name.
fn connect_by_name_or_addresses_succeeds<A: Api>() {
    let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let name = format!("localhost:{}", server.port());
    let four = [Opt::Family(Family::Ipv4)];
    A::Datagram::connect(&name, &four).unwrap().send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
    let from = A::own_address(92);
    let local = format!("{from}:0");
    let options = [Opt::Local(&local), Opt::Address(at(server.port()))];
    let client = A::Datagram::connect("not-looked-up.invalid:80", &options).unwrap();
    assert_eq!(client.five_tuple().local.0, from);
    client.send(b"x").unwrap();
    assert_eq!(server.recv(8).unwrap().from, SocketAddr::new(from.parse().unwrap(), client.port()));
    // No peer address has the family of the local address.
    let options = [Opt::Local("[::1]:0"), Opt::Address(at(server.port()))];
    fails(A::Datagram::connect("x:80", &options), ErrorKind::AddressNotAvailable);
    A::Datagram::bind("127.0.0.1:0", &[Opt::Interface("lo")]).unwrap();
    fails(
        A::Datagram::bind("127.0.0.1:0", &[Opt::Interface("nosuch0")]),
        ErrorKind::InvalidEndpoint,
    );
}

/// E2: a datagram socket rejects options that only streams have.
#[cfg(feature = "diag")]
fn stream_options_for_datagram_socket_are_rejected<A: Api>() {
    for (name, option) in [
        ("keepalive", Opt::Keepalive(10_000, 1000, 3)),
        ("dead_after", Opt::DeadAfter(10_000)),
        ("middlebox_timeout", Opt::MiddleboxTimeout(10_000)),
        ("heartbeat", Opt::Heartbeat(b"x", 1000)),
        ("idle_timeout", Opt::IdleTimeout(1000)),
        ("first_byte_timeout", Opt::FirstByteTimeout(1000)),
        ("nodelay", Opt::Nodelay(false)),
        ("attempt_delay", Opt::AttemptDelay(100)),
        ("backlog", Opt::Backlog(8)),
        ("fast_open", Opt::FastOpen(true)),
        ("mptcp", Opt::Mptcp(true)),
        ("save_syn", Opt::SaveSyn(true)),
    ] {
        let options = [option];
        for outcome in [
            A::Datagram::bind("127.0.0.1:0", &options),
            A::Datagram::connect("127.0.0.1:9", &options),
        ] {
            let failure = fails(outcome, ErrorKind::InvalidArgument);
            assert!(failure.message.contains(name), "{failure:?}");
        }
    }
    fails(
        A::Datagram::bind("127.0.0.1:0", &[Opt::Local("127.0.0.1:0")]),
        ErrorKind::InvalidArgument,
    );
    fails(A::Datagram::bind("127.0.0.1:0", &[Opt::Address(at(9))]), ErrorKind::InvalidArgument);
    // The value that disables an option is accepted.
    A::Datagram::bind("127.0.0.1:0", &[Opt::NoKeepalive, Opt::Nodelay(true)]).unwrap();
}

/// I1: one deadline applies to the whole call, from the options or set later. A datagram that
/// arrives before the deadline is received.
fn recv_without_datagram_times_out<A: Api>() {
    let server = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(50)]).unwrap();
    // The kernel measures a part of each, except of the first.
    for ms in [20, 50, 400, 1000] {
        let limit = Duration::from_millis(ms);
        server.set_read_timeout(ms as i64).unwrap();
        promptly(limit + Duration::from_millis(50), || {
            let (outcome, took) = timed(|| server.recv(8));
            let failure = fails(outcome, ErrorKind::TimedOut);
            assert_eq!(*failure.message, *format!("receive {}: timed out", server.endpoint()));
            assert!(took >= limit, "{took:?}");
            took
        });
    }
    server.send_to(b"x", at(server.port())).unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
    fails(server.set_read_timeout(0), ErrorKind::InvalidArgument);
    fails(server.set_write_timeout(0), ErrorKind::InvalidArgument);
    server.set_read_timeout(10).unwrap();
    server.set_write_timeout(60_000).unwrap();
    fails(server.recv(8), ErrorKind::TimedOut);
    server.send_to(b"x", at(server.port())).unwrap();
    server.set_read_timeout(support::INFINITE).unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"x");
}

/// D1, T2: a receive that waits for its datagram makes one system call with a timeout, and two with a
/// token or on a socket that other processes may share.
fn recv_with_timeout_or_token_makes_few_system_calls<A: Api>() {
    const CALLS: [(libc::c_long, Option<libc::c_int>); 4] = [
        (system::POLL, None),
        (libc::SYS_recvfrom, None),
        (libc::SYS_recvmsg, None),
        (system::RECVMMSG, None),
    ];
    let test = test_name!(A, "recv_with_timeout_or_token_makes_few_system_calls");
    process::in_process(&test, LIMIT, || {
        let token = A::token();
        let timeout = || Opt::ReadTimeout(AWAITED);
        let adopted = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let sockets = [
            (A::Datagram::bind("127.0.0.1:0", &[timeout()]).unwrap(), 1),
            (A::Datagram::bind("*:0", &[timeout()]).unwrap(), 1),
            (A::Datagram::bind("127.0.0.1:0", &[timeout(), Opt::Cancel(&token)]).unwrap(), 2),
            (A::Datagram::adopt(adopted, &[timeout()]).map_err(|(_, e)| e).unwrap(), 2),
        ];
        let sender = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        for (socket, expected) in sockets {
            for batch in [false, true] {
                let receive = || {
                    let made = Arc::new(AtomicUsize::new(0));
                    let counter = made.clone();
                    limits::supervise(&CALLS, move |_| {
                        counter.fetch_add(1, Ordering::SeqCst);
                        None
                    });
                    match batch {
                        true => drop(socket.recv_batch(&[8, 8]).unwrap()),
                        false => drop(socket.recv(8).unwrap()),
                    }
                    made.load(Ordering::SeqCst)
                };
                let send = || sender.send_to(b"x", at(socket.port())).unwrap();
                assert_eq!(while_waiting(receive, send).0, expected, "{}", socket.name());
            }
        }
    });
}

/// D1: a server has one socket for each peer, all on one port. Each receives from its peer only, and
/// the first one receives from all others.
fn server_has_one_socket_for_each_peer<A: Api>() {
    use keepsock::Sockopt::{ReuseAddress, ReusePort};
    for shared in [&[ReuseAddress][..], &[ReusePort], &[ReuseAddress, ReusePort]] {
        let options = |local: Option<&'static str>| -> Vec<Opt<'_, A>> {
            let shared = shared.iter().map(|option| Opt::Sockopt(*option, 1));
            shared.chain(local.map(Opt::Local)).chain([Opt::ReadTimeout(AWAITED)]).collect()
        };
        let server = A::Datagram::bind("127.0.0.1:0", &options(None)).unwrap();
        let mut clients = Vec::new();
        for way in ["set_peer", "connect"] {
            let client = A::Datagram::connect(&server.endpoint(), &[Opt::ReadTimeout(AWAITED)]);
            let client = client.unwrap();
            client.send(b"hello").unwrap();
            let (hello, info) = server.recv_info(8).unwrap();
            assert_eq!(hello.bytes, b"hello");
            let own = match way {
                "set_peer" => {
                    let own = A::Datagram::bind(&server.endpoint(), &options(None)).unwrap();
                    own.set_peer(hello.from).unwrap();
                    own
                }
                _ => {
                    let local = server.endpoint().leak();
                    A::Datagram::connect(&A::Datagram::sender_of(&info), &options(Some(local)))
                        .unwrap()
                }
            };
            let name = format!("udp {} -> {}", server.endpoint(), client.endpoint());
            assert_eq!((own.name(), own.port()), (name, server.port()));
            clients.push((client, own));
        }
        for (n, (client, own)) in clients.iter().enumerate() {
            client.send(&[n as u8]).unwrap();
            assert_eq!(own.recv(8).unwrap().bytes, [n as u8]);
            own.send(b"answer").unwrap();
            assert_eq!(client.recv(8).unwrap().bytes, b"answer");
        }
        let other = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
        other.send(b"other").unwrap();
        assert_eq!(server.recv(8).unwrap().bytes, b"other");
    }
}

/// D1, S1: a bound socket connects to a peer, keeps its port, and discards datagrams of other senders.
/// It connects once.
fn set_peer_connects_a_bound_socket_once<A: Api>() {
    for bound in ["127.0.0.1:0", "*:0", "0.0.0.0:0"] {
        let socket = A::Datagram::bind(bound, &[Opt::ReadTimeout(AWAITED)]).unwrap();
        let peer = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(AWAITED)]).unwrap();
        let other = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        fails(socket.send(b"x"), ErrorKind::WrongState);
        fails(socket.set_peer(at(0)), ErrorKind::InvalidEndpoint);
        if bound != "*:0" {
            let v6 = SocketAddr::new(ip("::1"), peer.port());
            fails(socket.set_peer(v6), ErrorKind::InvalidArgument);
        }
        assert!(socket.name().ends_with(":0"), "{}", socket.name());
        other.send_to(b"early", at(socket.port())).unwrap();
        let port = socket.port();
        socket.set_peer(at(peer.port())).unwrap();
        assert_eq!((socket.port(), socket.endpoint().ends_with(&port.to_string())), (port, true));
        let name = format!("udp 127.0.0.1:{port} -> {}", peer.endpoint());
        assert_eq!(socket.name(), name);
        let failure = fails(socket.set_peer(at(other.port())), ErrorKind::WrongState);
        assert!(failure.message.contains("is connected to"), "{failure:?}");
        assert_eq!(socket.name(), name);
        socket.send(b"question").unwrap();
        let (question, info) = peer.recv_info(16).unwrap();
        assert_eq!(question.from, at(port));
        peer.reply(&info, b"answer").unwrap();
        let (answer, info) = socket.recv_info(16).unwrap();
        assert_eq!((&*answer.bytes, answer.from), (&b"answer"[..], at(peer.port())));
        socket.reply(&info, b"again").unwrap();
        assert_eq!(peer.recv(16).unwrap().bytes, b"again");
        fails(socket.send_to(b"x", at(other.port())), ErrorKind::WrongState);
        socket.close();
        fails(socket.set_peer(at(other.port())), ErrorKind::Closed);
    }
}

/// D1, D2: the errors of a peer that a bound socket was connected to are reported.
fn set_peer_reports_errors_of_the_peer<A: Api>() {
    for bound in ["127.0.0.1:0", "*:0", "0.0.0.0:0"] {
        let socket = A::Datagram::bind(bound, &[]).unwrap();
        socket.set_peer(closed_port::<A>(106)).unwrap();
        socket.send(b"x").unwrap();
        let reported = socket.recv_error().unwrap().unwrap();
        assert_eq!(reported.status, ErrorKind::Refused.code());
    }
}

/// D1, D3: the library has received several datagrams of another sender at once (UDP_GRO) when the
/// socket is connected. They are discarded as those in the kernel's queue.
fn set_peer_discards_coalesced_datagrams_of_other_senders<A: Api>() {
    for batch in [false, true] {
        let options = [Opt::UdpGro(true), Opt::ReadTimeout(AWAITED)];
        let socket = A::Datagram::bind("127.0.0.1:0", &options).unwrap();
        let other = A::Datagram::connect(&socket.endpoint(), &[]).unwrap();
        let peer = A::Datagram::connect(&socket.endpoint(), &[]).unwrap();
        assert_eq!(other.send_batch(&[(&b"other"[..], None); 5]).unwrap(), 5);
        assert_eq!(socket.recv(8).unwrap().bytes, b"other");
        socket.set_peer_endpoint(&peer.endpoint()).unwrap();
        assert_eq!(peer.send_batch(&[(&b"mine"[..], None); 3]).unwrap(), 3);
        for _ in 0..3 {
            let got = match batch {
                true => socket.recv_batch(&[8]).unwrap().remove(0),
                false => socket.recv(8).unwrap(),
            };
            assert_eq!((&*got.bytes, got.from), (&b"mine"[..], at(peer.port())));
        }
        socket.set_nonblocking(true).unwrap();
        fails(socket.recv(8), ErrorKind::WouldBlock);
    }
}

/// D1, D2: a receive fails at once when the peer refuses, if that is requested. Sending continues, and
/// without the request receiving continues as well.
fn refused_datagram_fails_the_receive_if_requested<A: Api>() {
    let token = A::token();
    let gone = closed_port::<A>(103);
    for options in [&[][..], &[Opt::ReadTimeout(AWAITED)], &[Opt::Cancel(&token)]] {
        let client = A::Datagram::connect(&gone.to_string(), options).unwrap();
        client.set_fail_on_refused(true).unwrap();
        for batch in [false, true] {
            let receive = || match batch {
                true => client.recv_batch(&[8, 8]).map(drop),
                false => client.recv(8).map(drop),
            };
            let (outcome, _) = while_waiting(receive, || client.send(b"x").unwrap());
            let failure = fails(outcome, ErrorKind::Refused);
            assert_eq!(failure.os_error, libc::ECONNREFUSED);
            assert!(failure.message.contains(&gone.to_string()), "{failure:?}");
            assert_eq!(client.recv_error().unwrap().unwrap().status, ErrorKind::Refused.code());
            // Refused before the receive: another send or the error queue has the error.
            for _ in 0..3 {
                client.send(b"x").unwrap();
            }
            fails(receive(), ErrorKind::Refused);
            while client.recv_error().unwrap().is_some() {}
            client.set_nonblocking(true).unwrap();
            let _ = receive();
            fails(receive(), ErrorKind::WouldBlock);
            client.send(b"x").unwrap();
            fails(receive(), ErrorKind::Refused);
            fails(receive(), ErrorKind::WouldBlock);
            client.set_nonblocking(false).unwrap();
        }
        client.set_fail_on_refused(false).unwrap();
        client.send(b"x").unwrap();
        client.set_nonblocking(true).unwrap();
        fails(client.recv(8), ErrorKind::WouldBlock);
        client.close();
        fails(client.set_fail_on_refused(true), ErrorKind::Closed);
    }
    let bound = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    fails(bound.set_fail_on_refused(true), ErrorKind::WrongState);
    let dir = support::TempDir::new();
    let unix = A::Datagram::bind(&dir.endpoint("u"), &[]).unwrap();
    fails(unix.set_fail_on_refused(true), ErrorKind::Unsupported);
}

/// D1, D2: a waiting receive fails also if a send of another thread observes ECONNREFUSED first.
fn refused_datagram_fails_the_receive_while_others_send<A: Api>() {
    let gone = closed_port::<A>(104);
    let client = A::Datagram::connect(&gone.to_string(), &[Opt::ReadTimeout(AWAITED)]).unwrap();
    client.set_fail_on_refused(true).unwrap();
    for _ in 0..100 {
        let (outcome, _) = while_waiting(
            || client.recv(8),
            || {
                for _ in 0..20 {
                    client.send(b"x").unwrap();
                }
            },
        );
        fails(outcome, ErrorKind::Refused);
        while client.recv_error().unwrap().is_some() {}
        client.set_fail_on_refused(true).unwrap();
    }
}

/// D1: a peek returns the oldest datagram with its whole length, and the next receive returns it again.
/// It skips datagrams that were queued before a connect, as a receive does.
fn peek_leaves_the_datagram_for_the_next_receive<A: Api>() {
    for bound in ["127.0.0.1:0", "*:0"] {
        let server = A::Datagram::bind(bound, &[Opt::ReadTimeout(AWAITED)]).unwrap();
        let client = A::Datagram::connect(&format!("127.0.0.1:{}", server.port()), &[]).unwrap();
        let (outcome, _) = while_waiting(|| server.peek(8), || client.send(b"first").unwrap());
        assert_eq!(outcome.unwrap().bytes, b"first");
        client.send(b"second").unwrap();
        for (cap, bytes) in [(0, &b""[..]), (2, b"fi"), (8, b"first")] {
            let got = server.peek(cap).unwrap();
            assert_eq!((&*got.bytes, got.original_len, got.truncated), (bytes, 5, cap < 5));
            assert_eq!(got.from, at(client.port()));
        }
        assert_eq!(server.recv(8).unwrap().bytes, b"first");
        server.set_peer(at(support::own_port())).unwrap();
        server.set_read_timeout(20).unwrap();
        fails(server.peek(8), ErrorKind::TimedOut);
        server.set_nonblocking(true).unwrap();
        fails(server.peek(8), ErrorKind::WouldBlock);
        server.close();
        fails(server.peek(8), ErrorKind::Closed);
    }
}

/// D1, D3: a socket that coalesces datagrams has no peek.
fn peek_of_coalescing_socket_is_rejected<A: Api>() {
    let coalesces = A::Datagram::bind("127.0.0.1:0", &[Opt::UdpGro(true)]).unwrap();
    fails(coalesces.peek(8), ErrorKind::Unsupported);
}

/// D1, S4: the sender of a datagram as text is a destination.
fn sender_as_text_is_a_destination<A: Api>() {
    for bound in ["127.0.0.1:0", "[::1]:0"] {
        let server = A::Datagram::bind(bound, &[]).unwrap();
        let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
        client.send(b"question").unwrap();
        let (_, info) = server.recv_info(8).unwrap();
        let sender = A::Datagram::sender_of(&info);
        assert_eq!(sender, client.endpoint());
        server.send_to_endpoint(b"answer", &sender).unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"answer");
    }
}

/// T2: a token ends a receive within 50 ms, and the socket remains usable.
fn cancel_during_recv_ends_the_wait<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let token = A::token();
        let server = A::Datagram::bind("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
        let (outcome, took) = while_waiting(|| server.recv(8), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
        fails(server.send_to(b"x", at(server.port())), ErrorKind::Cancelled);
        server.set_cancel(None).unwrap();
        server.send_to(b"x", at(server.port())).unwrap();
        assert_eq!(server.recv(8).unwrap().bytes, b"x");
        took
    });
}

/// T3: a close ends the receives of other threads, in each waiting mode, for bound and connected
/// sockets.
fn close_during_recv_ends_the_wait<A: Api>() {
    let token = A::token();
    let with_token = [Opt::Cancel(&token)];
    let with_limit = [Opt::ReadTimeout(20_000)];
    for options in [&[][..], &with_token, &with_limit] {
        let server = A::Datagram::bind("*:0", options).unwrap();
        let peer = format!("127.0.0.1:{}", server.port());
        let client = A::Datagram::connect(&peer, options).unwrap();
        for socket in [client, server] {
            let (outcome, _) = while_waiting(|| socket.recv(8), || socket.close());
            fails(outcome, ErrorKind::Closed);
            fails(socket.recv(8), ErrorKind::Closed);
            fails(socket.send_to(b"x", at(9)), ErrorKind::Closed);
            fails(socket.set_read_timeout(10), ErrorKind::Closed);
            fails(socket.set_nonblocking(true), ErrorKind::Closed);
            fails(socket.set_recv_errors(true), ErrorKind::Closed);
            fails(socket.recv_error(), ErrorKind::Closed);
            fails(socket.fd(), ErrorKind::Closed);
            fails(socket.release(), ErrorKind::Closed);
        }
    }
}

/// T4: in non-blocking mode no call waits.
fn recv_in_nonblocking_mode_does_not_wait<A: Api>() {
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

/// T4: a descriptor is borrowed, released and adopted.
fn descriptor_is_borrowed_released_and_adopted<A: Api>() {
    let (server, client) = pair::<A>();
    let endpoint = server.endpoint();
    let fd = server.release().unwrap();
    assert!(!system::is_nonblocking(fd.as_raw_fd()));
    fails(server.recv(8), ErrorKind::Closed);
    let server = A::Datagram::adopt(fd, &[Opt::ReadTimeout(60_000)]).map_err(|e| e.1).unwrap();
    assert_eq!(server.endpoint(), endpoint);
    client.send(b"x").unwrap();
    let (got, info) = server.recv_info(8).unwrap();
    assert_eq!(got.to, Some(at(server.port())));
    server.reply(&info, b"answer").unwrap();
    // An adopted connected socket is still connected.
    let client = A::Datagram::adopt(client.release().unwrap(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"answer");
    client.send(b"y").unwrap();
    assert_eq!(server.recv(8).unwrap().bytes, b"y");
}

/// E2: a descriptor that cannot be adopted stays the caller's, and the error names the reason.
fn adopt_of_other_descriptor_leaves_it_to_caller<A: Api>() {
    let refused = |fd, options: &[Opt<'_, A>], kind: ErrorKind| {
        let (_fd, failure) = A::Datagram::adopt(fd, options).err().unwrap();
        assert_eq!(failure.status, kind.code(), "{failure:?}");
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    refused(listener.into(), &[], ErrorKind::WrongState);
    let (unix, _other) = crate::support::os::unix::net::UnixStream::pair().unwrap();
    refused(unix.into(), &[], ErrorKind::WrongState);
    let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    refused(unbound.into(), &[], ErrorKind::WrongState);
    #[cfg(unix)]
    refused(std::fs::File::open("/dev/null").unwrap().into(), &[], ErrorKind::Os);
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap().into();
    refused(socket(), &[Opt::Family(Family::Ipv4)], ErrorKind::InvalidArgument);
    refused(socket(), &[Opt::Interface("lo")], ErrorKind::InvalidArgument);
    refused(socket(), &[Opt::Backlog(1)], ErrorKind::InvalidArgument);
}

/// C4: a signal that interrupts a system call of a datagram socket does not end the call.
fn recv_interrupted_by_signal_continues<A: Api>() {
    extern "C" fn nothing(_: i32) {}
    // Other tests use SIGUSR1 and SIGUSR2.
    system::set_disposition(libc::SIGWINCH, nothing as *const () as usize);
    let (server, client) = pair::<A>();
    let target = std::sync::Mutex::new(None);
    let (outcome, _) = while_waiting(
        || {
            *target.lock().unwrap() = Some(system::Target::this_thread());
            server.recv(8)
        },
        || {
            target.lock().unwrap().unwrap().signal(libc::SIGWINCH);
            client.send(b"x").unwrap();
        },
    );
    assert_eq!(outcome.unwrap().bytes, b"x");
}

/// D2, E2: a source address or an interface that the socket cannot use is rejected. The datagrams
/// before it are sent. A socket accepts its own address and an existing interface.
fn send_from_invalid_source_is_rejected<A: Api>() {
    let peer = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(10_000)]).unwrap();
    let to = at(peer.port());
    let bound = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let any = A::Datagram::bind("0.0.0.0:0", &[]).unwrap();
    let connected = A::Datagram::connect(&to.to_string(), &[]).unwrap();
    let both = A::Datagram::bind("*:0", &[]).unwrap();
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let other = address("127.0.0.2:0");
    let v6 = address("[::1]:0");
    for socket in [&bound, &any, &connected, &both] {
        let mut wrong = vec![(socket.send_batch_from(&[b"x", b"yy"], to, v6), "local ::1")];
        if socket.port() == bound.port() || socket.port() == connected.port() {
            wrong.push((socket.send_batch_from(&[b"x", b"yy"], to, other), "local 127.0.0.2"));
        }
        for index in [123_456_789, u32::MAX] {
            let named = if index == u32::MAX { "4294967295" } else { "123456789" };
            wrong.push((socket.send_by(b"x", to, index), named));
        }
        for (outcome, value) in wrong {
            let failure = fails(outcome, ErrorKind::InvalidArgument);
            assert!(failure.message.contains("datagram 0 of the batch: "), "{failure:?}");
            assert!(failure.message.contains(value), "{failure:?}");
        }
        for _ in 0..2 {
            assert_eq!(socket.send_by(b"1", to, 1).unwrap(), 1);
            assert_eq!(socket.send_batch_from(&[b"2", b"33"], to, at(0)).unwrap(), 2);
            for bytes in [&b"1"[..], b"2", b"33"] {
                assert_eq!(peer.recv(8).unwrap().bytes, bytes);
            }
        }
    }
    let elsewhere = A::Datagram::bind("127.0.0.2:0", &[]).unwrap();
    peer.send_to(b"x", at(bound.port())).unwrap();
    peer.send_to(b"x", SocketAddr::new(other.ip(), elsewhere.port())).unwrap();
    let (_, good) = bound.recv_info(8).unwrap();
    let (_, bad) = elsewhere.recv_info(8).unwrap();
    let batch = [(&good, &b"one"[..]), (&good, b"more"), (&bad, b"lost"), (&good, b"later")];
    assert_eq!(bound.reply_batch(&batch).unwrap(), 2);
    for outcome in [bound.reply_batch(&batch[2..]).map(drop), bound.reply(&bad, b"lost")] {
        let failure = fails(outcome, ErrorKind::InvalidArgument);
        let why = "local 127.0.0.2: the socket is bound to 127.0.0.1";
        assert!(failure.message.contains(why), "{failure:?}");
    }
    assert_eq!(bound.reply_batch(&batch[3..]).unwrap(), 1);
    for bytes in [&b"one"[..], b"more", b"later"] {
        assert_eq!(peer.recv(8).unwrap().bytes, bytes);
    }
}

/// D2, T3: a close keeps the errors that were reported before. Other calls then return `Closed`.
fn close_with_a_pending_error_keeps_it<A: Api>() {
    let gone = closed_port::<A>(94);
    let options = [Opt::KeepStats(true)];
    let connected = A::Datagram::connect(&gone.to_string(), &options).unwrap();
    connected.send(b"x").unwrap();
    let bound = A::Datagram::bind("127.0.0.1:0", &options).unwrap();
    bound.set_recv_errors(true).unwrap();
    bound.send_to(b"x", gone).unwrap();
    for socket in [connected, bound] {
        socket.close();
        fails(socket.send(b"x"), ErrorKind::Closed);
        fails(socket.recv(8), ErrorKind::Closed);
        assert_eq!(socket.error_count(), 1);
        socket.close();
        let kept = socket.recv_error().unwrap().expect("loopback delivers the error at once");
        assert_eq!((kept.status, kept.to), (ErrorKind::Refused.code(), Some(gone)));
        fails(socket.recv_error(), ErrorKind::Closed);
    }
}

/// D2: each datagram that arrives between a thousand ICMP errors is received.
fn recv_among_icmp_errors_gets_every_datagram<A: Api>() {
    let _no_copies = process::no_starts();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = closed_port::<A>(93);
    client.connect(gone).unwrap();
    // The control case: a receive on a plain socket fails because of an earlier send.
    client.send(b"x").unwrap();
    assert_eq!(client.send(b"x").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    for options in [&[][..], &[Opt::ReadTimeout(60_000)]] {
        let client = A::Datagram::connect(&gone.to_string(), options).unwrap();
        for _ in 0..1000 {
            client.send(b"x").unwrap();
        }
        // The last ICMP error may still be pending.
        let first = client.recv_error().unwrap().expect("loopback delivers the error at once");
        assert_eq!(first.status, ErrorKind::Refused.code());
        assert_eq!(first.os_error, libc::ECONNREFUSED);
        assert_eq!((first.to, first.from), (Some(gone), Some(gone.ip())));
        assert_eq!(client.error_count(), 1000);
        // The peer binds its port: its datagrams are received despite pending errors.
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

/// D2, T1: many threads send to a closed port. Each datagram is sent despite the ICMP errors, also
/// to a peer with a socket.
fn send_during_icmp_errors_of_other_threads_succeeds<A: Api>() {
    let gone = closed_port::<A>(99);
    let client = A::Datagram::connect(&gone.to_string(), &[]).unwrap();
    let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    server.set_recv_errors(true).unwrap();
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

/// D2: ICMP errors end no receive on a bound socket, which reports them only if configured to.
fn recv_on_bound_socket_ignores_icmp_errors<A: Api>() {
    for endpoint in ["127.0.0.1:0", "*:0"] {
        let server = A::Datagram::bind(endpoint, &[Opt::ReadTimeout(60_000)]).unwrap();
        let client = A::Datagram::connect(&format!("127.0.0.1:{}", server.port()), &[]).unwrap();
        let gone = closed_port::<A>(94);
        server.send_to(b"x", gone).unwrap();
        assert_eq!(server.recv_error().unwrap(), None);
        server.set_recv_errors(true).unwrap();
        for i in 0..1000u32 {
            server.send_to(b"x", gone).unwrap();
            client.send(&i.to_be_bytes()).unwrap();
            assert_eq!(server.recv(8).unwrap().bytes, i.to_be_bytes());
        }
        let reported = server.recv_error().unwrap().expect("the ICMP errors are reported");
        assert_eq!((reported.status, reported.to), (ErrorKind::Refused.code(), Some(gone)));
        assert_eq!((reported.from, server.error_count()), (Some(gone.ip()), 1000));
        server.set_recv_errors(false).unwrap();
        server.send_to(b"x", gone).unwrap();
        assert_eq!(server.error_count(), 1000);
    }
}

/// D2: an ICMP error during a wait does not end the wait, and the wait does not use the processor.
fn icmp_error_during_recv_does_not_end_the_wait<A: Api>() {
    let _no_copies = process::no_starts();
    let token = A::token();
    for options in [&[][..], &[Opt::ReadTimeout(60_000)], &[Opt::Cancel(&token)]] {
        let gone = closed_port::<A>(95);
        promptly(Duration::from_millis(100), || {
            let client = A::Datagram::connect(&gone.to_string(), options).unwrap();
            let ((got, used), _) = while_waiting(
                || (client.recv(8), system::thread_cpu_time()),
                || {
                    client.send(b"x").unwrap();
                    support::eventually("the error is counted", || client.error_count() == 1);
                    let peer = UdpSocket::bind(gone).unwrap();
                    peer.send_to(b"alive", at(client.port())).unwrap();
                },
            );
            assert_eq!(got.unwrap().bytes, b"alive");
            assert!(client.recv_error().unwrap().is_some());
            assert_eq!(client.recv_error().unwrap(), None);
            used
        });
    }
}

/// D2: while an error is queued, poll returns at once. A timed wait therefore takes the error from
/// the queue, so that it does not use the processor.
fn queued_error_during_recv_uses_no_processor<A: Api>() {
    let gone = closed_port::<A>(100);
    let client = A::Datagram::connect(&gone.to_string(), &[Opt::ReadTimeout(300)]).unwrap();
    let fd = client.fd().unwrap();
    promptly(Duration::from_millis(60), || {
        let before = client.error_count();
        // Another call clears the pending error, but not the error queue.
        while system::send_plainly(fd, b"x") {}
        let used = system::thread_cpu_time();
        fails(client.recv(8), ErrorKind::TimedOut);
        let used = system::thread_cpu_time() - used;
        assert!(client.error_count() > before);
        used
    });
}

/// D2: a socket without error reports returns no ICMP error, and no call fails.
fn icmp_errors_without_recv_errors_are_discarded<A: Api>() {
    let client = A::Datagram::connect(&closed_port::<A>(101).to_string(), &[]).unwrap();
    client.set_recv_errors(false).unwrap();
    for _ in 0..4 {
        client.send(b"x").unwrap();
    }
    assert_eq!((client.error_count(), client.recv_error().unwrap()), (0, None));
}

/// D3: an error of another cause does not disable segmentation.
fn batch_with_other_error_keeps_gso_enabled<A: Api>() {
    let peer = udp_gro();
    let to = peer.local_addr().unwrap();
    let client = A::Datagram::bind("0.0.0.0:0", &[]).unwrap();
    let nowhere = "192.0.2.1:0".parse().unwrap();
    client.send_batch_from(&[&[5; 100], &[5; 100]], to, nowhere).unwrap_err();
    client.send_batch(&[(&[6; 100][..], Some(to)); 2]).unwrap();
    assert_eq!(peer.recv(&mut [0; 1000]).unwrap(), 200);
}

/// E2: an ICMP socket (icmp(7)) is rejected although it resembles a UDP socket.
fn adopt_of_icmp_socket_fails<A: Api>() {
    let icmp = Some(socket2::Protocol::ICMPV4);
    let Ok(ping) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, icmp) else {
        eprintln!("skipped: no ping sockets for this user (ping_group_range)");
        return;
    };
    ping.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let (_fd, failure) = A::Datagram::adopt(ping.into(), &[]).err().unwrap();
    assert_eq!(failure.status, ErrorKind::WrongState.code(), "{failure:?}");
}

/// D1: multicast join and leave fail as documented, also with a source address.
fn multicast_join_twice_or_leave_unjoined_fails<A: Api>() {
    let socket = A::Datagram::bind("0.0.0.0:0", &[]).unwrap();
    let (group, sender) = (ip("239.83.4.1"), Some(ip("127.0.0.1")));
    fails(socket.leave(group, Some(LOOPBACK), None), ErrorKind::AddressNotAvailable);
    fails(socket.leave(group, Some(LOOPBACK), sender), ErrorKind::AddressNotAvailable);
    socket.join(group, Some(LOOPBACK), sender).unwrap();
    fails(socket.join(group, Some(LOOPBACK), sender), ErrorKind::AddressInUse);
    socket.join(group, Some(LOOPBACK), Some(ip("127.0.0.2"))).unwrap();
    fails(
        socket.leave(group, Some(LOOPBACK), Some(ip("127.0.0.3"))),
        ErrorKind::AddressNotAvailable,
    );
    socket.leave(group, Some(LOOPBACK), sender).unwrap();
}

/// D2: the error queue has a limit if the program never reads errors.
fn unread_icmp_errors_have_a_limit<A: Api>() {
    let client = A::Datagram::connect(&closed_port::<A>(96).to_string(), &[]).unwrap();
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

/// Receives datagrams until `count` have arrived.
fn receive<A: Api>(socket: &A::Datagram, count: usize) -> Vec<support::Got> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(socket.recv_batch(&vec![2000; 64]).unwrap());
    }
    assert_eq!(all.len(), count);
    all
}

/// D3: a batch delivers datagrams of all lengths and addresses unchanged and in order.
fn batch_keeps_order_and_boundaries<A: Api>() {
    let server = A::Datagram::bind("*:0", &[Opt::ReadTimeout(60_000)]).unwrap();
    let other = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
    let client = A::Datagram::bind("*:0", &[]).unwrap();
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
    // Each entry reports its own truncation.
    let connected = A::Datagram::connect(&other.endpoint(), &[]).unwrap();
    connected.send_batch(&[(&[1; 9], None), (b"", None), (&[2; 9], None)]).unwrap();
    let got = other.recv_batch(&[4, 4, 0]).unwrap();
    let told: Vec<_> = got.iter().map(|g| (g.bytes.len(), g.original_len, g.truncated)).collect();
    assert_eq!(told, [(4, 9, true), (0, 0, false), (0, 9, true)]);
}

/// A plain socket that receives coalesced datagrams unsplit (UDP_GRO of udp(7)).
fn udp_gro() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    system::coalesce(socket.as_raw_fd());
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

/// D3: datagrams of equal length to one address are sent by one system call with GSO.
fn batch_of_equal_lengths_uses_gso<A: Api>() {
    let peer = udp_gro();
    let to = peer.local_addr().unwrap();
    let mut buf = vec![0; 70_000];
    for endpoint in ["127.0.0.1:0", "*:0"] {
        let client = A::Datagram::bind(endpoint, &[]).unwrap();
        let mut batch = vec![(&[5; 100][..], Some(to)); 20];
        batch.push((&[6; 30], Some(to)));
        assert_eq!(client.send_batch(&batch).unwrap(), 21);
        assert_eq!(peer.recv(&mut buf).unwrap(), 20 * 100 + 30);
    }
    // More bytes than one datagram holds, and more segments than the kernel allows.
    let client = A::Datagram::connect(&to.to_string(), &[]).unwrap();
    assert_eq!(client.send_batch(&[(&[7; 30_000][..], None); 3]).unwrap(), 3);
    assert_eq!(peer.recv(&mut buf).unwrap(), 60_000);
    assert_eq!(peer.recv(&mut buf).unwrap(), 30_000);
    assert_eq!(client.send_batch(&[(&[7; 10][..], None); 100]).unwrap(), 100);
    assert_eq!(peer.recv(&mut buf).unwrap(), 640);
    assert_eq!(peer.recv(&mut buf).unwrap(), 360);
}

/// D3: if the kernel rejects GSO, all datagrams are sent one by one, and GSO is not tried again.
fn batch_with_rejected_gso_is_sent_singly<A: Api>() {
    let (server, client) = pair::<A>();
    // Without checksums the kernel rejects GSO with EINVAL.
    let fd = client.fd().unwrap();
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    for _ in 0..2 {
        assert_eq!(client.send_batch(&[(&[5; 100][..], None); 20]).unwrap(), 20);
        assert!(receive::<A>(&server, 20).iter().all(|got| got.bytes == [5; 100]));
    }
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 0);
    let peer = udp_gro();
    let to = peer.local_addr().unwrap();
    let client = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let fd = client.fd().unwrap();
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    client.send_batch(&[(&[5; 100][..], Some(to)); 2]).unwrap();
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 0);
    client.send_batch(&[(&[6; 100][..], Some(to)); 2]).unwrap();
    let mut buf = [0; 1000];
    for _ in 0..4 {
        assert_eq!(peer.recv(&mut buf).unwrap(), 100, "GSO is disabled for that length");
    }
    client.send_batch(&[(&[7; 99][..], Some(to)); 2]).unwrap();
    assert_eq!(peer.recv(&mut buf).unwrap(), 198, "GSO remains enabled for shorter datagrams");
}

/// D3: the datagrams before one that cannot be sent are sent, and the next call reports the error.
fn batch_with_unsendable_datagram_sends_those_before<A: Api>() {
    let (server, client) = pair::<A>();
    let long = vec![0; 65_508];
    let batch = [(&b"one"[..], None), (b"two", None), (&long, None), (b"three", None)];
    assert_eq!(client.send_batch(&batch).unwrap(), 2);
    fails(client.send_batch(&batch[2..]), ErrorKind::TooLong);
    let got = receive::<A>(&server, 2);
    assert_eq!((got[0].bytes.as_slice(), got[1].bytes.as_slice()), (&b"one"[..], &b"two"[..]));
    fails(server.send_batch(&[(b"x", None)]), ErrorKind::WrongState);
    fails(client.send_batch(&[(b"x", Some(at(9)))]), ErrorKind::WrongState);
    fails(server.send_batch(&[(b"x", Some(at(0)))]), ErrorKind::InvalidEndpoint);
    server.close();
    fails(server.send_batch(&[(b"x", Some(at(9)))]), ErrorKind::Closed);
}

/// D2, D3: each reply of a batch leaves from the address that received the request.
fn batch_of_replies_leaves_from_requested_addresses<A: Api>() {
    for wildcard in ["0.0.0.0:0", "*:0"] {
        let server = A::Datagram::bind(wildcard, &[]).unwrap();
        let asked = SocketAddr::new(A::own_address(97).parse().unwrap(), server.port());
        let client = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
        client.send_to(b"x", asked).unwrap();
        let (_, info) = server.recv_info(8).unwrap();
        let answers = [b"one".as_slice(), b"two", b"three"].map(|bytes| (&info, bytes));
        assert_eq!(server.reply_batch(&answers).unwrap(), 3);
        for (got, bytes) in receive::<A>(&client, 3).iter().zip(["one", "two", "three"]) {
            assert_eq!((got.bytes.as_slice(), got.from), (bytes.as_bytes(), asked));
        }
        // Replies of one length to two clients, from two addresses.
        let other = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
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

/// I1, T2, T3, T4: a batch receive waits for the first datagram, and ends as a single receive does.
fn recv_batch_waits_like_recv<A: Api>() {
    let token = A::token();
    let options = [Opt::ReadTimeout(60_000), Opt::Cancel(&token)];
    for options in [&[][..], &options[..1], &options] {
        let server = A::Datagram::bind("127.0.0.1:0", options).unwrap();
        let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
        let (outcome, _) =
            while_waiting(|| server.recv_batch(&[8; 4]), || client.send(b"x").unwrap());
        assert_eq!(outcome.unwrap().len(), 1);
        let (outcome, _) = while_waiting(|| server.recv_batch(&[8; 4]), || server.close());
        fails(outcome, ErrorKind::Closed);
    }
    let server = A::Datagram::bind("127.0.0.1:0", &options).unwrap();
    server.set_read_timeout(10).unwrap();
    fails(server.recv_batch(&[8; 4]), ErrorKind::TimedOut);
    server.set_nonblocking(true).unwrap();
    fails(server.recv_batch(&[8; 4]), ErrorKind::WouldBlock);
    token.fire();
    fails(server.recv_batch(&[8; 4]), ErrorKind::Cancelled);
    fails(server.send_batch(&[(b"x", Some(at(9)))]), ErrorKind::Cancelled);
}

/// D2: ICMP errors end neither a batch send nor a batch receive.
fn batch_to_closed_port_ignores_icmp_errors<A: Api>() {
    let _no_copies = process::no_starts();
    let gone = closed_port::<A>(98);
    let client = A::Datagram::connect(&gone.to_string(), &[Opt::ReadTimeout(60_000)]).unwrap();
    for len in [1, 2] {
        // Datagrams of one length, and of lengths that GSO cannot combine.
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

/// D1: broadcast requires the option. A reply leaves from the address of the interface.
fn broadcast_requires_option_and_gets_reply<A: Api>() {
    for wildcard in ["0.0.0.0:0", "*:0"] {
        let server = A::Datagram::bind(wildcard, &[Opt::ReadTimeout(60_000)]).unwrap();
        let client = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
        let all = SocketAddr::new([127, 255, 255, 255].into(), server.port());
        for to in [all, SocketAddr::new([255, 255, 255, 255].into(), 9)] {
            for denied in [client.send_to(b"x", to), client.set_peer(to)] {
                let failure = fails(denied, ErrorKind::PermissionDenied);
                assert!(failure.message.contains("requires set_broadcast"), "{failure:?}");
            }
        }
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

/// Checks that a datagram to an address is not received: the next datagram arrives first.
fn is_not_received<A: Api>(server: &A::Datagram, client: &A::Datagram, to: SocketAddr) {
    client.send_to(b"not for you", to).unwrap();
    client.send_to(b"mark", at(server.port())).unwrap();
    assert_eq!(server.recv(16).unwrap().bytes, b"mark");
}

/// D1: a socket joins and leaves a group, for all sources or for some. It does not receive the
/// groups that other sockets joined.
fn multicast_join_selects_groups_and_sources<A: Api>() {
    let group = IpAddr::from([239, 83, A::NUMBER, 1]);
    for wildcard in ["0.0.0.0:0", "*:0"] {
        let server = A::Datagram::bind(wildcard, &[Opt::ReadTimeout(60_000)]).unwrap();
        let other = A::Datagram::bind(wildcard, &[]).unwrap();
        let client = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        client.set_multicast_interface(LOOPBACK).unwrap();
        let to = SocketAddr::new(group, server.port());
        let lo = Some(LOOPBACK);
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

/// D1: several sockets of several programs receive on one group and port, with the interface.
fn multicast_with_several_sockets_reaches_each<A: Api>() {
    let group = IpAddr::from([239, 83, A::NUMBER, 3]);
    let first = A::Datagram::bind(&format!("{group}:0"), &[Opt::ReadTimeout(60_000)]).unwrap();
    let to = SocketAddr::new(group, first.port());
    let second = A::Datagram::bind(&to.to_string(), &[Opt::ReadTimeout(60_000)]).unwrap();
    let client = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    client.set_multicast_interface(LOOPBACK).unwrap();
    for socket in [&first, &second] {
        socket.join(group, Some(LOOPBACK), None).unwrap();
    }
    client.send_to(b"news", to).unwrap();
    for socket in [&first, &second] {
        let (got, info) = socket.recv_info(8).unwrap();
        assert_eq!((got.bytes.as_slice(), got.to, got.interface), (&b"news"[..], Some(to), 1));
        socket.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().from, at(first.port()));
    }
    // A port without the option reuse is exclusive.
    let own = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    fails(A::Datagram::bind(&own.endpoint(), &[]), ErrorKind::AddressInUse);
}

/// D1: IPv6 groups, as the kernel reports them. Loopback alone has no multicast route, so nothing
/// is sent.
fn multicast_join_of_ipv6_group_is_in_kernel_list<A: Api>() {
    let listed = |file: &str, text: &str| {
        let list = std::fs::read_to_string(format!("/proc/net/{file}")).unwrap();
        list.lines().any(|line| line.contains("lo") && line.contains(text))
    };
    for (test, endpoint) in ["[::]:0", "*:0"].into_iter().enumerate() {
        // A group that only this process uses, because the kernel's lists are for the whole host.
        let own = std::process::id() as u16;
        let number = u32::from(A::NUMBER) * 10 + test as u32;
        let group: IpAddr = format!("ff01::{own:x}:{number}").parse().unwrap();
        let text = format!("ff01{:020}{own:04x}{number:04}", 0);
        let from: IpAddr = "::1".parse().unwrap();
        let server = A::Datagram::bind(endpoint, &[]).unwrap();
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

/// D1: the kernel reports the multicast options for each family of the socket.
fn multicast_send_options_reach_the_kernel<A: Api>() {
    for (endpoint, ipv4, ipv6) in
        [("127.0.0.1:0", true, false), ("[::1]:0", false, true), ("*:0", true, true)]
    {
        let socket = A::Datagram::bind(endpoint, &[]).unwrap();
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

/// E2: an address that is not a group, an unknown interface, and a wrong family are rejected.
fn multicast_join_of_invalid_group_fails<A: Api>() {
    let four = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let six = A::Datagram::bind("[::]:0", &[]).unwrap();
    let invalid = ErrorKind::InvalidArgument;
    let failure = fails(four.join(ip("127.0.0.1"), Some(LOOPBACK), None), invalid);
    assert!(failure.message.contains("127.0.0.1 is not a multicast address"), "{failure:?}");
    fails(four.join(ip("ff01::1:1"), Some(LOOPBACK), None), invalid);
    fails(six.join(ip("239.83.0.3"), Some(LOOPBACK), None), invalid);
    fails(four.join(ip("239.83.0.3"), Some(LOOPBACK), Some(ip("::1"))), invalid);
    let group = ip("239.83.0.3");
    let failure = fails(four.join(group, Some("nosuch0"), None), ErrorKind::InvalidEndpoint);
    assert!(failure.message.contains("this machine has no interface \"nosuch0\""), "{failure:?}");
    fails(four.join(group, Some("987654"), None), ErrorKind::InvalidEndpoint);
    let failure = fails(four.leave(group, Some(LOOPBACK), None), ErrorKind::AddressNotAvailable);
    let membership =
        format!("the socket is not a member of group 239.83.0.3 on interface {LOOPBACK:?}");
    assert!(failure.message.contains(&membership), "{failure:?}");
    fails(four.set_multicast_interface("nosuch0"), ErrorKind::InvalidEndpoint);
    four.close();
    fails(four.join(group, Some(LOOPBACK), None), ErrorKind::Closed);
    fails(four.leave(group, Some(LOOPBACK), None), ErrorKind::Closed);
    fails(four.set_broadcast(true), ErrorKind::Closed);
    fails(four.set_multicast_loop(true), ErrorKind::Closed);
    fails(four.set_multicast_ttl(1), ErrorKind::Closed);
    fails(four.set_multicast_interface(LOOPBACK), ErrorKind::Closed);
}

/// Serves an echo. `times` receives fail with an error.
#[cfg(feature = "serve")]
fn serve_with_answer<A: Api>(server: &A::Datagram, errno: i32, times: usize) -> A::DatagramService {
    let fd = server.fd().unwrap();
    std::thread::scope(|scope| {
        let serve = scope.spawn(|| {
            limits::answer(
                system::RECEIVE_BATCH,
                Some(fd as libc::c_int),
                -i64::from(errno),
                times,
            );
            server.serve(1, Box::new(|reply, got| reply(&got.bytes).unwrap())).unwrap()
        });
        serve.join().unwrap()
    })
}

/// D2, E4: a transient error does not end a service. The service retries, counts it, and loses no
/// datagram.
#[cfg(feature = "serve")]
fn serve_after_transient_error_continues<A: Api>() {
    process::in_process(&test_name!(A, "serve_after_transient_error_continues"), LIMIT, || {
        use libc::{EACCES, ECONNREFUSED, EIO, ENETDOWN, ENOBUFS, ENOMEM, EPERM, EPROTO};
        for errno in [ENOMEM, ENOBUFS, EPERM, EIO, EACCES, ECONNREFUSED, ENETDOWN, EPROTO] {
            let gro: &[_] = if cfg!(keepsock_linux) { &[false, true] } else { &[false] };
            for udp_gro in gro {
                let server = A::Datagram::bind("127.0.0.1:0", &[Opt::UdpGro(*udp_gro)]).unwrap();
                let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
                client.set_read_timeout(AWAITED).unwrap();
                client.send(b"early").unwrap();
                let service = serve_with_answer::<A>(&server, errno, 20);
                assert_eq!(client.recv(8).unwrap().bytes, b"early", "{errno}");
                for _ in 0..3 {
                    client.send(b"x").unwrap();
                    assert_eq!(client.recv(8).unwrap().bytes, b"x", "{errno}");
                }
                // An error that the network may have caused is retried at once, up to 16 times.
                let unknown = [ENOMEM, ENOBUFS, EPERM, EIO].contains(&errno);
                let retried = if unknown { 20 } else { 4 };
                assert_eq!(server.stats().unwrap().retried, retried, "{errno}");
                service.stop();
                service.wait(AWAITED).unwrap();
            }
        }
    });
}

/// E4: an error of the socket itself ends the service, and the wait reports it.
#[cfg(feature = "serve")]
fn serve_ends_after_a_fatal_error<A: Api>() {
    process::in_process(&test_name!(A, "serve_ends_after_a_fatal_error"), LIMIT, || {
        for errno in [libc::EBADF, libc::ENOTSOCK, libc::EINVAL, libc::EFAULT] {
            let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
            // Where a wait is a poll, the service receives only if a datagram is pending.
            server.send_to(b"x", at(server.port())).unwrap();
            let service = serve_with_answer::<A>(&server, errno, 1);
            let failure = fails(service.wait(AWAITED), ErrorKind::Os);
            assert_eq!(failure.os_error, errno);
            assert_eq!(server.stats().unwrap().retried, 0);
        }
    });
}

/// E4, T2: a service whose receives always fail uses little processor time, and stops when the
/// program stops it.
#[cfg(feature = "serve")]
fn serve_stops_while_receiving_fails<A: Api>() {
    process::in_process(&test_name!(A, "serve_stops_while_receiving_fails"), LIMIT, || {
        for (errno, how) in [(libc::ENOMEM, 0), (libc::ENETDOWN, 1), (libc::ENOBUFS, 2)] {
            let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
            let token = A::token();
            server.set_cancel((how == 2).then_some(&token)).unwrap();
            // With a token the service receives when poll reports a datagram.
            server.send_to(b"x", at(server.port())).unwrap();
            let service = serve_with_answer::<A>(&server, errno, usize::MAX);
            // In 20 pauses.
            promptly(Duration::from_millis(50), || {
                let retried = || server.stats().unwrap().retried;
                let (before, used) = (retried(), watch::used_by("keepsock-serve").cpu);
                support::eventually("receives are retried", || retried() >= before + 20);
                watch::used_by("keepsock-serve").cpu - used
            });
            promptly(Duration::from_millis(50), || {
                let (ended, took) = timed(|| {
                    match how {
                        0 => service.stop(),
                        1 => server.close(),
                        _ => token.fire(),
                    }
                    service.wait(AWAITED)
                });
                ended.unwrap();
                took
            });
        }
    });
}

/// D2: a receive without kernel memory reports the error. The next call receives the datagram.
fn recv_without_memory_keeps_the_datagram<A: Api>() {
    process::in_process(&test_name!(A, "recv_without_memory_keeps_the_datagram"), LIMIT, || {
        for errno in [libc::ENOMEM, libc::ENOBUFS] {
            // The system call depends on the requested metadata.
            let plain = if cfg!(keepsock_linux) { libc::SYS_recvfrom } else { libc::SYS_recvmsg };
            for (bound, call) in [("127.0.0.1:0", plain), ("0.0.0.0:0", libc::SYS_recvmsg)] {
                let server = A::Datagram::bind(bound, &[Opt::ReadTimeout(AWAITED)]).unwrap();
                let client = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
                client.send_to(b"x", at(server.port())).unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let fd = server.fd().unwrap();
                        limits::answer(call, Some(fd as libc::c_int), -i64::from(errno), 1);
                        let failure = fails(server.recv(8), ErrorKind::NoMemory);
                        assert_eq!(failure.os_error, errno);
                        assert_eq!(server.recv(8).unwrap().bytes, b"x");
                    });
                });
                client.send_to(b"y", at(server.port())).unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let fd = server.fd().unwrap();
                        limits::answer(
                            system::RECEIVE_BATCH,
                            Some(fd as libc::c_int),
                            -i64::from(errno),
                            1,
                        );
                        fails(server.recv_batch(&[8; 2]), ErrorKind::NoMemory);
                        assert_eq!(server.recv_batch(&[8; 2]).unwrap()[0].bytes, b"y");
                    });
                });
            }
        }
    });
}

/// D2: a recurring error without an entry in the error queue does not keep the processor busy, and
/// does not block a non-blocking call.
fn recv_of_unexplained_errors_keeps_the_processor_idle<A: Api>() {
    process::in_process(
        &test_name!(A, "recv_of_unexplained_errors_keeps_the_processor_idle"),
        LIMIT,
        || {
            let server = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(1)]).unwrap();
            // The first failure costs more.
            fails(server.recv(8), ErrorKind::TimedOut);
            server.set_read_timeout(300).unwrap();
            let fd = server.fd().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    limits::forbid(libc::SYS_recvfrom, Some(fd as libc::c_int), libc::ENETDOWN);
                    promptly(Duration::from_millis(60), || {
                        let before = system::thread_cpu_time();
                        fails(server.recv(8), ErrorKind::TimedOut);
                        system::thread_cpu_time() - before
                    });
                    server.set_nonblocking(true).unwrap();
                    promptly(Duration::from_millis(50), || {
                        let (outcome, took) = timed(|| server.recv(8));
                        fails(outcome, ErrorKind::WouldBlock);
                        took
                    });
                });
            });
        },
    );
}

/// D2: a kernel that returns no entry and no error does not block the call.
fn recv_error_ends_when_the_queue_yields_nothing<A: Api>() {
    process::in_process(
        &test_name!(A, "recv_error_ends_when_the_queue_yields_nothing"),
        LIMIT,
        || {
            let (_server, client) = pair::<A>();
            let fd = client.fd().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    limits::answer(libc::SYS_recvmsg, Some(fd as libc::c_int), 0, usize::MAX);
                    assert_eq!(client.recv_error().unwrap(), None);
                });
            });
        },
    );
}

/// A socket as another program may have left it.
fn with_odd_modes(bind: impl FnOnce() -> OwnedFd) -> OwnedFd {
    let socket = UdpSocket::from(bind());
    socket.set_nonblocking(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(30))).unwrap();
    socket.into()
}

fn udp() -> OwnedFd {
    UdpSocket::bind("127.0.0.1:0").unwrap().into()
}

fn unix() -> OwnedFd {
    crate::support::os::unix::net::UnixDatagram::unbound().unwrap().into()
}

/// T4: a released descriptor is in the mode that set_nonblocking chose last, and has no timeouts.
fn release_restores_blocking_mode_without_timeouts<A: Api>() {
    for bind in [udp, unix] {
        for mode in [None, Some(true), Some(false)] {
            let socket = with_odd_modes(bind);
            let socket = A::Datagram::adopt(socket, &[]).map_err(|e| e.1).unwrap();
            if let Some(on) = mode {
                socket.set_nonblocking(!on).unwrap();
                socket.set_nonblocking(on).unwrap();
            } else {
                // The test changes the mode through the descriptor, without the library.
                socket2::SockRef::from(&system::borrow(socket.fd().unwrap()))
                    .set_nonblocking(true)
                    .unwrap();
            }
            socket.set_read_timeout(50).unwrap();
            socket.set_write_timeout(50).unwrap();
            let released = socket.release().unwrap();
            assert_eq!(system::is_nonblocking(released.as_raw_fd()), mode == Some(true));
            for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
                let timeout = system::timeout_option(released.as_raw_fd(), option);
                assert_eq!(timeout, Duration::ZERO);
            }
        }
    }
}

/// T4, E2: a descriptor is unchanged when its adoption fails.
fn adopt_that_fails_leaves_descriptor_unchanged<A: Api>() {
    process::in_process(
        &test_name!(A, "adopt_that_fails_leaves_descriptor_unchanged"),
        LIMIT,
        || {
            let sockets = [udp, unix].map(with_odd_modes);
            // The first failure allocates what it needs before descriptors run out.
            fails(
                A::Datagram::adopt(system::pipe().0, &[]).map(drop).map_err(|e| e.1),
                ErrorKind::Os,
            );
            limits::limit_descriptors(64);
            let mut hoard = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                hoard.push(file);
            }
            let mut kept = Vec::new();
            for socket in sockets {
                let refused = A::Datagram::adopt(socket, &[]).map(drop);
                let (socket, failure) = refused.unwrap_err();
                assert!(failure.is(ErrorKind::NoDescriptors), "{failure:?}");
                let fd = socket.as_raw_fd();
                assert!(system::is_nonblocking(fd));
                for (option, least) in [(libc::SO_RCVTIMEO, 20), (libc::SO_SNDTIMEO, 30)] {
                    assert!(system::timeout_option(fd, option) >= Duration::from_millis(least));
                }
                kept.push(socket);
            }
        },
    );
}

/// C5: the error names a local address of another family than the peer's.
fn connect_from_address_of_other_family_names_it<A: Api>() {
    for (to, from) in [("127.0.0.1:9", "[::1]:0"), ("[::1]:9", "127.0.0.1:0")] {
        let refused = A::Datagram::connect(to, &[Opt::Local(from)]);
        let failure = fails(refused.map(drop), ErrorKind::AddressNotAvailable);
        assert_eq!((failure.endpoint.as_str(), &*failure.stage), (to, "bind"));
        assert!(failure.message.contains(from), "{failure:?}");
    }
}

#[cfg(feature = "serve")]
fn echo_service<A: Api>(socket: &A::Datagram, threads: u32) -> A::DatagramService {
    // A reply fails if the socket was closed in the meantime. A client notices a missing reply.
    socket.serve(threads, Box::new(|reply, got| drop(reply(&got.bytes)))).unwrap()
}

/// A connected socket receives only from its peer, so a reply from another socket would not arrive.
#[cfg(feature = "serve")]
fn is_echoed<A: Api>(endpoint: &str) {
    let client = A::Datagram::connect(endpoint, &[Opt::ReadTimeout(60_000)]).unwrap();
    client.send(endpoint.as_bytes()).unwrap();
    assert_eq!(client.recv(256).unwrap().bytes, endpoint.as_bytes());
}

/// D1, D2: a service receives on several sockets of different kinds. Each reply leaves from the
/// socket that received the request, each socket counts its own datagrams, and a stop ends all.
#[cfg(feature = "serve")]
fn service_of_several_sockets_replies_from_each<A: Api>() {
    let dir = TempDir::new();
    let endpoints = ["127.0.0.1:0", "[::1]:0", "*:0", "127.0.0.1:0", &dir.endpoint("s")];
    let sockets = endpoints.map(|endpoint| A::Datagram::bind(endpoint, &[]).unwrap());
    let service = echo_service::<A>(&sockets[0], 2);
    for socket in &sockets[1..] {
        socket.add_to(&service).unwrap();
    }
    let mut all: Vec<_> = sockets.iter().map(Datagrams::<A>::endpoint).collect();
    let port = sockets[2].port();
    all[2] = format!("127.0.0.1:{port}");
    all.push(format!("[::1]:{port}"));
    for endpoint in all.iter().chain(&all) {
        is_echoed::<A>(endpoint);
    }
    let served = sockets.each_ref().map(|socket| socket.stats().unwrap().served);
    assert_eq!(served, [2, 2, 4, 2, 2]);
    service.stop();
    service.wait(60_000).unwrap();
    for socket in &sockets {
        fails(socket.recv(8), ErrorKind::Closed);
        socket.set_cancel(None).unwrap();
    }
    // The sockets still send.
    let peer = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
    sockets[3].send_to(b"x", at(peer.port())).unwrap();
    assert_eq!(peer.recv(8).unwrap().bytes, b"x");
}

/// D1, T4: closing one socket of a service, or firing its token, ends receiving on that socket only.
/// The service ends with the last socket.
#[cfg(feature = "serve")]
fn service_of_several_sockets_ends_with_the_last_one<A: Api>() {
    let token = A::token();
    let bind = || A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let [first, closed, cancelled, last] = [bind(), bind(), bind(), bind()];
    cancelled.set_cancel(Some(&token)).unwrap();
    let service = echo_service::<A>(&first, 2);
    for socket in [&closed, &cancelled, &last] {
        socket.add_to(&service).unwrap();
    }
    closed.close();
    token.fire();
    // The threads of the socket end after the token was fired.
    eventually("the cancelled socket is not served", || cancelled.set_cancel(None).is_ok());
    is_echoed::<A>(&first.endpoint());
    is_echoed::<A>(&last.endpoint());
    // A socket that is no longer served can be added again.
    cancelled.add_to(&service).unwrap();
    is_echoed::<A>(&cancelled.endpoint());
    first.close();
    cancelled.close();
    is_echoed::<A>(&last.endpoint());
    fails(service.wait(0), ErrorKind::TimedOut);
    last.close();
    service.wait(60_000).unwrap();
    fails(bind().add_to(&service), ErrorKind::Closed);
}

/// D1, V7: a handler may add a socket to its own service.
#[cfg(feature = "serve")]
fn socket_is_added_from_inside_a_handler<A: Api>() {
    use std::sync::Mutex;

    let [first, second] =
        [(); 2].map(|()| Arc::new(A::Datagram::bind("127.0.0.1:0", &[]).unwrap()));
    let place = Arc::new(Mutex::new(None::<A::DatagramService>));
    let (inside, added) = (place.clone(), second.clone());
    let handler: OnDatagram = Box::new(move |reply, got| {
        if got.bytes == b"add" {
            added.add_to(inside.lock().unwrap().as_ref().unwrap()).unwrap();
        }
        reply(&got.bytes).unwrap();
    });
    {
        let mut place = place.lock().unwrap();
        *place = Some(first.serve(1, handler).unwrap());
    }
    let client = A::Datagram::connect(&first.endpoint(), &[Opt::ReadTimeout(60_000)]).unwrap();
    client.send(b"add").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"add");
    is_echoed::<A>(&second.endpoint());
    let service = place.lock().unwrap().take();
    drop(service);
}

/// D1, E2: a socket of another service, a closed socket, and a stopped service or socket are
/// rejected, and the service continues.
#[cfg(feature = "serve")]
fn add_of_an_unusable_socket_fails<A: Api>() {
    let bind = || A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let [first, other, closed, stopped] = [bind(), bind(), bind(), bind()];
    let service = echo_service::<A>(&first, 1);
    let of_other = echo_service::<A>(&other, 1);
    let failure = other.add_to(&service).unwrap_err();
    assert!(failure.message.contains("a service uses the socket"), "{failure:?}");
    assert!(failure.message.contains(&other.endpoint()), "{failure:?}");
    fails(other.add_to(&service), ErrorKind::WrongState);
    fails(first.add_to(&service), ErrorKind::WrongState);
    closed.close();
    fails(closed.add_to(&service), ErrorKind::Closed);
    drop(echo_service::<A>(&stopped, 1));
    fails(stopped.add_to(&service), ErrorKind::Closed);
    is_echoed::<A>(&first.endpoint());
    is_echoed::<A>(&other.endpoint());
    service.stop();
    fails(bind().add_to(&service), ErrorKind::Closed);
    drop(of_other);
}
