//! D1: metadata of received datagrams, options of sent datagrams, statistics of the socket. D3:
//! coalesced datagrams (GRO). V7 for a served datagram socket.

use crate::support::os::{AsFd, AsRawFd};
use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::support;
use crate::support::libc;
use crate::support::{
    Api, Datagrams, Got, INFINITE, Opt, Outcome, Token, eventually, fails, promptly, system,
    while_waiting,
};
#[cfg(feature = "serve")]
use crate::support::{DatagramService, OnDatagram};
use keepsock::ErrorKind;

both_apis![
    recv_with_metadata_reports_ttl_tos_and_time,
    recv_on_dual_stack_socket_reports_metadata,
    recv_with_metadata_reports_the_ttl,
    send_with_zero_ttl_is_rejected,
    path_mtu_of_connected_socket_is_reported,
    dropped_datagrams_are_counted_exactly,
    stats_after_close_are_kept_if_configured,
    udp_gro_on_other_sockets_is_rejected,
    coalesced_datagrams_are_received_singly,
    coalesced_datagram_in_small_buffer_is_truncated,
    coalesced_datagrams_reach_each_thread_once,
    recv_of_coalesced_datagrams_waits_like_recv,
    release_of_coalescing_socket_disables_gro,
    release_with_coalesced_datagrams_fails,
    release_with_queued_icmp_errors_succeeds,
    metadata_after_connect_belongs_to_its_datagram,
    cancel_with_buffered_datagrams_loses_none,
    recv_behind_another_recv_wakes_rarely,
    #[cfg(feature = "serve")] {
        release_after_serving_succeeds,
        serve_calls_handler_for_each_datagram,
        serve_after_shutdown_is_rejected,
        serve_ends_on_stop_close_or_cancel,
        stop_from_inside_handler_succeeds,
        serve_with_invalid_arguments_is_rejected,
        serve_ignores_the_recv_timeout,
    }
];

fn pair<A: Api>() -> (A::Datagram, A::Datagram) {
    let server = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
    let client = A::Datagram::connect(&server.endpoint(), &[Opt::ReadTimeout(60_000)]).unwrap();
    (server, client)
}

/// D1: TTL, TOS with ECN, and the kernel's receive time, sent and received.
fn recv_with_metadata_reports_ttl_tos_and_time<A: Api>() {
    for host in ["127.0.0.1", "[::1]"] {
        let server = A::Datagram::bind(&format!("{host}:0"), &[]).unwrap();
        server.set_recv_metadata(true).unwrap();
        let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
        client.send(b"x").unwrap();
        let plain = server.recv(8).unwrap();
        assert_eq!((plain.ttl, plain.tos), (Some(64), Some(0)), "the system's defaults");
        client.set_ttl(9).unwrap();
        // Expedited forwarding, and ECT(0).
        client.set_tos(46 << 2 | 2).unwrap();
        let before = SystemTime::now();
        client.send(b"x").unwrap();
        let (got, info) = server.recv_info(8).unwrap();
        let after = SystemTime::now();
        assert_eq!((got.ttl, got.tos), (Some(9), Some(46 << 2 | 2)));
        assert_eq!(got.interface, 1, "of loopback");
        let at = got.received_at.unwrap();
        // The wall clock may be adjusted during the test.
        let slack = Duration::from_millis(50);
        assert!(before - slack <= at && at <= after + slack, "{at:?}, not {before:?} to {after:?}");
        server.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().ttl, None, "the client did not enable metadata");
        server.set_recv_metadata(false).unwrap();
        client.send(b"x").unwrap();
        let got = server.recv(8).unwrap();
        assert_eq!((got.ttl, got.tos, got.received_at), (None, None, None));
    }
}

/// D1: a socket of both families sends and receives the metadata of both families.
fn recv_on_dual_stack_socket_reports_metadata<A: Api>() {
    let server = A::Datagram::bind("*:0", &[]).unwrap();
    server.set_recv_metadata(true).unwrap();
    server.set_ttl(33).unwrap();
    server.set_tos(8).unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let client = A::Datagram::connect(&format!("{host}:{}", server.port()), &[]).unwrap();
        client.set_recv_metadata(true).unwrap();
        client.set_ttl(5).unwrap();
        client.set_tos(4).unwrap();
        client.send(b"x").unwrap();
        let (got, info) = server.recv_info(8).unwrap();
        assert_eq!((got.ttl, got.tos), (Some(5), Some(4)), "{host}");
        assert!(got.received_at.is_some());
        server.reply(&info, b"answer").unwrap();
        let got = client.recv(8).unwrap();
        assert_eq!((got.ttl, got.tos), (Some(33), Some(8)), "{host}");
    }
}

/// D1: the TTL of a sender is reported, to a socket of each family and to one of both.
fn recv_with_metadata_reports_the_ttl<A: Api>() {
    for (bound, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("*:0", "[::1]")] {
        let server = A::Datagram::bind(bound, &[Opt::ReadTimeout(60_000)]).unwrap();
        server.set_recv_metadata(true).unwrap();
        let client = A::Datagram::connect(&format!("{host}:{}", server.port()), &[]).unwrap();
        for ttl in [9, 255] {
            client.set_ttl(ttl).unwrap();
            client.send(b"x").unwrap();
            let got = server.recv(8).unwrap();
            assert_eq!((got.ttl, got.tos), (Some(ttl), Some(0)), "{bound}");
        }
        server.set_recv_metadata(false).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(server.recv(8).unwrap().ttl, None, "{bound}");
    }
}

/// E2: a TTL that reaches no host is rejected.
fn send_with_zero_ttl_is_rejected<A: Api>() {
    let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    fails(socket.set_ttl(0), ErrorKind::InvalidArgument);
    socket.set_ttl(255).unwrap();
    socket.close();
    fails(socket.set_ttl(1), ErrorKind::Closed);
    fails(socket.set_tos(1), ErrorKind::Closed);
    fails(socket.set_recv_metadata(true), ErrorKind::Closed);
    fails(socket.set_dont_fragment(true), ErrorKind::Closed);
}

/// D1: a connected socket reports the path MTU. On loopback it is the MTU of the interface.
fn path_mtu_of_connected_socket_is_reported<A: Api>() {
    let mtu: u32 =
        std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap().trim().parse().unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let server = A::Datagram::bind(&format!("{host}:0"), &[]).unwrap();
        let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
        // RFC 791: no IPv4 packet is longer.
        let mtu = if host == "127.0.0.1" { mtu.min(65_535) } else { mtu };
        assert_eq!(client.stats().unwrap().path_mtu, i64::from(mtu));
        assert_eq!(server.stats().unwrap().path_mtu, -1);
        client.set_dont_fragment(true).unwrap();
        client.send(b"x").unwrap();
        client.set_dont_fragment(false).unwrap();
        client.send(b"x").unwrap();
    }
}

/// N1, D1: the kernel's counter of dropped datagrams is exact: each sent datagram was either
/// received or counted.
fn dropped_datagrams_are_counted_exactly<A: Api>() {
    let (server, client) = pair::<A>();
    let fresh = server.stats().unwrap();
    assert_eq!((fresh.dropped, fresh.unread, fresh.errors), (0, 0, 0));
    assert!(fresh.receive_buffer > 0 && fresh.send_buffer > 0, "{fresh:?}");
    let sent = 2000;
    for _ in 0..sent {
        client.send(&[7; 1000]).unwrap();
    }
    let full = server.stats().unwrap();
    assert!(full.dropped > 0 && full.unread > 0, "{full:?}");
    assert!(full.unread <= full.receive_buffer + 4096, "{full:?}");
    server.set_nonblocking(true).unwrap();
    let mut received = 0;
    while server.recv(1000).is_ok() {
        received += 1;
    }
    assert_eq!(received + full.dropped, sent);
    let empty = server.stats().unwrap();
    assert_eq!((empty.dropped, empty.unread), (full.dropped, 0));
}

/// N1: the last statistics are kept if the option keep_stats is set.
fn stats_after_close_are_kept_if_configured<A: Api>() {
    let keeps = A::Datagram::bind("127.0.0.1:0", &[Opt::KeepStats(true)]).unwrap();
    let now = keeps.stats().unwrap();
    keeps.close();
    assert_eq!(keeps.stats().unwrap(), now);
    let does_not = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    does_not.close();
    fails(does_not.stats(), ErrorKind::Closed);
}

/// E2: only UDP sockets support the option udp_gro.
fn udp_gro_on_other_sockets_is_rejected<A: Api>() {
    let options = [Opt::UdpGro(true)];
    fails(A::listen("127.0.0.1:0", &options), ErrorKind::InvalidArgument);
    fails(A::connect("127.0.0.1:9", &options), ErrorKind::InvalidArgument);
    fails(A::Datagram::bind("unix:@udp_gro", &options), ErrorKind::InvalidArgument);
    let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = A::adopt_server(stream.into(), &options).err().unwrap().1;
    assert_eq!(refused.status, ErrorKind::InvalidArgument.code());
    let (unix, _other) = crate::support::os::unix::net::UnixDatagram::pair().unwrap();
    let refused = A::Datagram::adopt(unix.into(), &options).err().unwrap().1;
    assert_eq!(refused.status, ErrorKind::InvalidArgument.code());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = A::Datagram::adopt(udp.into(), &options).map_err(|e| e.1).unwrap();
    let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
    send_as_one::<A>(&client, 5, 10);
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [0, 1, 2, 3, 4]);
}

fn coalescing_pair<A: Api>() -> (A::Datagram, A::Datagram) {
    let options = [Opt::ReadTimeout(60_000), Opt::UdpGro(true)];
    let server = A::Datagram::bind("127.0.0.1:0", &options).unwrap();
    let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
    (server, client)
}

/// Sends datagrams that the kernel coalesces, so that the receiver has to split them.
fn send_as_one<A: Api>(client: &A::Datagram, count: u8, len: usize) {
    let all: Vec<_> = (0..count).map(|n| vec![n; len]).collect();
    let batch: Vec<_> = all.iter().map(|bytes| (bytes.as_slice(), None)).collect();
    assert_eq!(client.send_batch(&batch).unwrap(), usize::from(count));
}

fn numbers(got: &[Got]) -> Vec<u8> {
    got.iter().map(|g| g.bytes[0]).collect()
}

/// D3: each receive function returns single datagrams in order, with the metadata of each. A plain
/// socket with UDP_GRO shows that the kernel did coalesce them.
fn coalesced_datagrams_are_received_singly<A: Api>() {
    for host in ["127.0.0.1", "*"] {
        let options = [Opt::ReadTimeout(60_000), Opt::UdpGro(true)];
        let server = A::Datagram::bind(&format!("{host}:0"), &options).unwrap();
        let client = A::Datagram::connect(&format!("127.0.0.1:{}", server.port()), &[]).unwrap();
        send_as_one::<A>(&client, 50, 100);
        let first = server.recv_batch(&[100; 20]).unwrap();
        assert_eq!(numbers(&first), (0..20).collect::<Vec<_>>());
        let (one, info) = server.recv_info(1500).unwrap();
        assert_eq!(
            (one.bytes.as_slice(), one.original_len, one.truncated),
            (&[20; 100][..], 100, false)
        );
        let from = SocketAddr::from(([127, 0, 0, 1], client.port()));
        let to = SocketAddr::from(([127, 0, 0, 1], server.port()));
        assert_eq!((one.from, one.to, one.local), (from, Some(to), Some(to)));
        server.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"answer");
        let rest = server.recv_batch(&[100; 64]).unwrap();
        assert_eq!(numbers(&rest), (21..50).collect::<Vec<_>>());
        // Single and empty datagrams arrive unchanged.
        for bytes in [&b"single"[..], b"", b"last"] {
            client.send(bytes).unwrap();
        }
        assert_eq!(server.recv(8).unwrap().bytes, b"single");
        assert_eq!(server.recv_batch(&[8; 4]).unwrap().len(), 2);
    }
    // The control case.
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    system::coalesce(plain.as_raw_fd());
    let client = A::Datagram::connect(&format!("127.0.0.1:{port}"), &[]).unwrap();
    send_as_one::<A>(&client, 50, 100);
    assert_eq!(plain.recv(&mut [0; 65_536]).unwrap(), 5000);
}

/// D1: truncation is reported for one datagram and affects no other one.
fn coalesced_datagram_in_small_buffer_is_truncated<A: Api>() {
    let (server, client) = coalescing_pair::<A>();
    send_as_one::<A>(&client, 3, 100);
    let got = server.recv_batch(&[10, 0, 200]).unwrap();
    let told: Vec<_> = got.iter().map(|g| (g.bytes.len(), g.original_len, g.truncated)).collect();
    assert_eq!(told, [(10, 100, true), (0, 100, true), (100, 100, false)]);
    assert_eq!(got[2].bytes, [2; 100]);
    // The longest datagram that UDP allows.
    client.send(&[9; 65_507]).unwrap();
    assert_eq!(server.recv(65_507).unwrap().bytes, [9; 65_507]);
}

/// T1: several threads share coalesced datagrams. Each datagram is received exactly once.
fn coalesced_datagrams_reach_each_thread_once<A: Api>() {
    const ROUNDS: u32 = 20;
    let (server, client) = coalescing_pair::<A>();
    let (send, seen) = channel();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (server, send) = (&server, send.clone());
            scope.spawn(move || {
                while let Ok(got) = server.recv_batch(&[64; 5]) {
                    for one in got {
                        send.send(one.bytes).unwrap();
                    }
                }
            });
        }
        let mut all = BTreeSet::new();
        for round in 0..ROUNDS {
            let parts: Vec<_> =
                (0..40).map(|n| [round.to_be_bytes(), u32::to_be_bytes(n)].concat()).collect();
            let batch: Vec<_> = parts.iter().map(|bytes| (bytes.as_slice(), None)).collect();
            assert_eq!(client.send_batch(&batch).unwrap(), 40);
            for _ in 0..40 {
                assert!(all.insert(seen.recv_timeout(Duration::from_secs(60)).unwrap()));
            }
        }
        assert_eq!(all.len() as u32, ROUNDS * 40);
        server.close();
    });
}

/// T2, T3, T4, I1: timeout, token, close and non-blocking mode apply to a coalescing socket, both
/// to the thread that waits in the kernel and to the thread that waits for it.
fn recv_of_coalesced_datagrams_waits_like_recv<A: Api>() {
    let token = A::token();
    let options = [Opt::ReadTimeout(50), Opt::UdpGro(true)];
    let server = A::Datagram::bind("127.0.0.1:0", &options).unwrap();
    fails(server.recv(8), ErrorKind::TimedOut);
    server.set_nonblocking(true).unwrap();
    fails(server.recv(8), ErrorKind::WouldBlock);
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(INFINITE).unwrap();
    server.set_cancel(Some(&token)).unwrap();
    promptly(Duration::from_millis(50), || {
        token.reset();
        let (outcome, took) = while_waiting(|| server.recv(8), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
        took
    });
    server.set_cancel(None).unwrap();
    let outcomes: Vec<Outcome<Got>> = std::thread::scope(|scope| {
        let first = scope.spawn(|| server.recv(8));
        let (outcome, _) = while_waiting(|| server.recv(8), || server.close());
        vec![first.join().unwrap(), outcome]
    });
    for outcome in outcomes {
        fails(outcome, ErrorKind::Closed);
    }
}

/// D3, T4: a released socket has no unread or coalesced datagrams. An adopted socket with UDP_GRO
/// splits its datagrams.
fn release_of_coalescing_socket_disables_gro<A: Api>() {
    let (server, client) = coalescing_pair::<A>();
    send_as_one::<A>(&client, 5, 10);
    assert_eq!(numbers(&server.recv_batch(&[10; 2]).unwrap()), [0, 1]);
    let failure = fails(server.release(), ErrorKind::WrongState);
    assert!(failure.message.contains("udp_gro may have coalesced them"), "{failure:?}");
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [2, 3, 4]);
    let plain = UdpSocket::from(server.release().unwrap());
    send_as_one::<A>(&client, 3, 10);
    for _ in 0..3 {
        assert_eq!(plain.recv(&mut [0; 100]).unwrap(), 10);
    }
    system::coalesce(plain.as_raw_fd());
    let server = A::Datagram::adopt(plain.into(), &[]).map_err(|e| e.1).unwrap();
    send_as_one::<A>(&client, 3, 10);
    assert_eq!(server.recv(100).unwrap().bytes, [0; 10]);
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [1, 2]);
}

/// D3, T4: a release with coalesced datagrams in the kernel fails. While the socket is in use, a
/// release neither waits nor changes it.
fn release_with_coalesced_datagrams_fails<A: Api>() {
    let (server, client) = coalescing_pair::<A>();
    let fd = server.fd().unwrap();
    let coalesces = || system::coalesces(fd);
    send_as_one::<A>(&client, 5, 10);
    let failure = fails(server.release(), ErrorKind::WrongState);
    assert!(failure.message.contains("receive them before the release"), "{failure:?}");
    assert!(coalesces());
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [0, 1, 2, 3, 4]);
    let (got, _) = while_waiting(
        || server.recv(10),
        || {
            // The release does not wait for the receive in progress, which gets no datagram before.
            let failure = fails(server.release(), ErrorKind::WrongState);
            assert!(failure.message.contains("another thread"), "{failure:?}");
            assert!(coalesces());
            client.send(b"x").unwrap();
        },
    );
    assert_eq!(got.unwrap().bytes, b"x");
    server.release().unwrap();
}

/// D3, T4: a socket that was served and no longer receives can be released.
#[cfg(feature = "serve")]
fn release_after_serving_succeeds<A: Api>() {
    let (server, _) = coalescing_pair::<A>();
    let service = server.serve(1, Box::new(|_, _| ())).unwrap();
    service.stop();
    service.wait(60_000).unwrap();
    drop(service);
    server.release().unwrap();
}

/// D3, D2: ICMP errors without a reader do not count as unread datagrams, and no call waits for
/// them.
fn release_with_queued_icmp_errors_succeeds<A: Api>() {
    let gone = format!("{}:{}", A::own_address(102), support::own_port());
    let client = A::Datagram::connect(&gone, &[Opt::UdpGro(true)]).unwrap();
    client.send(b"x").unwrap();
    eventually("the ICMP error is queued", || system::has_error(client.fd().unwrap()));
    client.release().unwrap();
}

/// D1: metadata belongs to the received datagram, not to an earlier one from another sender that
/// was queued before the connect.
fn metadata_after_connect_belongs_to_its_datagram<A: Api>() {
    let plain = UdpSocket::bind("[::]:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    // The kernel stores the configured metadata when a datagram arrives.
    system::set_option(plain.as_raw_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    system::set_option(plain.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"stranger", ("127.0.0.5", port)).unwrap();
    let peer = UdpSocket::bind("[::1]:0").unwrap();
    plain.connect(peer.local_addr().unwrap()).unwrap();
    let socket = A::Datagram::adopt(plain.into(), &[Opt::ReadTimeout(60_000)]);
    let socket = socket.map_err(|e| e.1).unwrap();
    socket.set_recv_metadata(true).unwrap();
    peer.send_to(b"peer", ("::1", port)).unwrap();
    let got = socket.recv(8).unwrap();
    assert_eq!(got.bytes, b"peer");
    assert_eq!(got.to, Some(SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
}

/// T2: a fired token also ends later calls while split datagrams are buffered. No datagram is lost.
fn cancel_with_buffered_datagrams_loses_none<A: Api>() {
    let (server, client) = coalescing_pair::<A>();
    send_as_one::<A>(&client, 4, 10);
    assert_eq!(numbers(&server.recv_batch(&[10; 1]).unwrap()), [0]);
    let token = A::token();
    server.set_cancel(Some(&token)).unwrap();
    token.fire();
    fails(server.recv(10), ErrorKind::Cancelled);
    token.reset();
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [1, 2, 3]);
}

/// T1: a thread that waits for another thread's receive is not woken repeatedly.
fn recv_behind_another_recv_wakes_rarely<A: Api>() {
    let server = A::Datagram::bind("127.0.0.1:0", &[Opt::UdpGro(true)]).unwrap();
    let threads = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                threads.lock().unwrap().push(system::thread_id());
                fails(server.recv(8), ErrorKind::Closed);
            });
        }
        eventually("all threads have begun", || threads.lock().unwrap().len() == 4);
        let switches = || -> u64 {
            let of = |id: &i32| {
                let status =
                    std::fs::read_to_string(format!("/proc/self/task/{id}/status")).unwrap();
                let line = status.lines().find(|line| line.starts_with("voluntary")).unwrap();
                line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
            };
            threads.lock().unwrap().iter().map(of).sum()
        };
        let sleep = Duration::from_millis(300);
        promptly(Duration::from_millis(8), || {
            let before = switches();
            std::thread::sleep(sleep);
            // As many milliseconds as wake-ups.
            Duration::from_millis(switches() - before)
        });
        server.close();
    });
}

/// A socket whose receives were shut down is not served again, and an open socket is.
#[cfg(feature = "serve")]
fn serve_after_shutdown_is_rejected<A: Api>() {
    let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    drop(server.serve(2, echo()).unwrap());
    let failure = fails(server.serve(1, echo()).map(drop), ErrorKind::Closed);
    assert!(failure.message.contains("stopped"), "{failure:?}");
}

#[cfg(feature = "serve")]
fn echo() -> OnDatagram {
    Box::new(|reply, got| reply(&got.bytes).unwrap())
}

/// V1: serving calls the handler for each datagram. The handler replies, and other threads may
/// send.
#[cfg(feature = "serve")]
fn serve_calls_handler_for_each_datagram<A: Api>() {
    for threads in [1, 4] {
        let server = A::Datagram::bind("*:0", &[]).unwrap();
        let _service = server.serve(threads, echo()).unwrap();
        std::thread::scope(|scope| {
            for host in ["127.0.0.1", "[::1]", "127.0.0.1"] {
                let endpoint = format!("{host}:{}", server.port());
                scope.spawn(move || {
                    let options = [Opt::ReadTimeout(60_000)];
                    let client = A::Datagram::connect(&endpoint, &options).unwrap();
                    for n in 0..200u32 {
                        client.send(&n.to_be_bytes()).unwrap();
                        assert_eq!(client.recv(8).unwrap().bytes, n.to_be_bytes());
                    }
                    client.send(b"").unwrap();
                    assert_eq!(client.recv(8).unwrap().bytes, b"");
                });
            }
        });
        assert_eq!(server.stats().unwrap().served, 3 * 201);
        let (other, _) = pair::<A>();
        server.send_to(b"news", SocketAddr::from(([127, 0, 0, 1], other.port()))).unwrap();
        assert_eq!(other.recv(8).unwrap().bytes, b"news");
    }
}

/// V5: stopping a datagram service ends its threads and receives, but not sends. A close and a
/// token do the same.
#[cfg(feature = "serve")]
fn serve_ends_on_stop_close_or_cancel<A: Api>() {
    let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let service = server.serve(3, echo()).unwrap();
    fails(service.wait(20), ErrorKind::TimedOut);
    service.stop();
    service.wait(60_000).unwrap();
    service.stop();
    fails(server.recv(8), ErrorKind::Closed);
    fails(server.recv_batch(&[8]), ErrorKind::Closed);
    let (other, _) = pair::<A>();
    server.send_to(b"still", SocketAddr::from(([127, 0, 0, 1], other.port()))).unwrap();
    assert_eq!(other.recv(8).unwrap().bytes, b"still");
    drop(service);

    let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let service = server.serve(2, echo()).unwrap();
    server.close();
    service.wait(60_000).unwrap();

    let token = A::token();
    let server = A::Datagram::bind("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
    let service = server.serve(2, echo()).unwrap();
    token.fire();
    service.wait(60_000).unwrap();

    // The socket is freed while it is served, also with coalesced datagrams in the kernel.
    for udp_gro in [false, system::can_coalesce()] {
        let server = A::Datagram::bind("127.0.0.1:0", &[Opt::UdpGro(udp_gro)]).unwrap();
        drop(server.serve(4, echo()).unwrap());
    }
}

/// V7: a handler can stop its service. A wait of the handler for its own service fails.
#[cfg(feature = "serve")]
fn stop_from_inside_handler_succeeds<A: Api>() {
    let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let place = Arc::new(Mutex::new(None::<A::DatagramService>));
    let (send, outcome) = channel();
    let inside = place.clone();
    let send = Mutex::new(send);
    let handler: OnDatagram = Box::new(move |reply, _| {
        let service = inside.lock().unwrap();
        let service = service.as_ref().unwrap();
        let waited = service.wait(60_000);
        service.stop();
        reply(b"stopped").unwrap();
        send.lock().unwrap().send(waited).unwrap();
    });
    {
        // The handler waits for its own service.
        let mut place = place.lock().unwrap();
        *place = Some(server.serve(1, handler).unwrap());
    }
    let client = A::Datagram::connect(&server.endpoint(), &[Opt::ReadTimeout(60_000)]).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"stopped", "a reply is also sent after the stop");
    let waited = outcome.recv_timeout(Duration::from_secs(60)).unwrap();
    fails(waited, ErrorKind::WrongState);
    let service = place.lock().unwrap().take().unwrap();
    service.wait(60_000).unwrap();
}

/// E2: zero threads, too many threads, and a closed socket are rejected.
#[cfg(feature = "serve")]
fn serve_with_invalid_arguments_is_rejected<A: Api>() {
    let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    for threads in [0, 1025, u32::MAX] {
        fails(server.serve(threads, echo()).map(drop), ErrorKind::InvalidArgument);
    }
    server.close();
    fails(server.serve(1, echo()).map(drop), ErrorKind::Closed);
}

/// The threads of a service wait without limit, whatever the receive timeout of the socket is.
#[cfg(feature = "serve")]
fn serve_ignores_the_recv_timeout<A: Api>() {
    let server = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(1)]).unwrap();
    server.set_nonblocking(true).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let handler: OnDatagram = Box::new(move |reply, got| {
        counted.fetch_add(1, Ordering::SeqCst);
        reply(&got.bytes).unwrap();
    });
    let service = server.serve(1, handler).unwrap();
    fails(service.wait(50), ErrorKind::TimedOut);
    let client = A::Datagram::connect(&server.endpoint(), &[Opt::ReadTimeout(60_000)]).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"x");
    eventually("counted", || calls.load(Ordering::SeqCst) == 1);
}

/// D3, T4: a release that fails because the descriptor is borrowed leaves the socket unchanged
/// (Rust only).
#[test]
#[cfg_attr(windows, ignore = "Wine does not coalesce datagrams")]
fn release_of_borrowed_coalescing_socket_fails() {
    if support::portable::skips(module_path!(), "release_of_borrowed_coalescing_socket_fails") {
        return;
    }
    let _limit = support::Limit::new("release_of_borrowed_coalescing_socket_fails");
    let options = keepsock::SocketOptions::new().udp_gro(true);
    let socket = keepsock::DatagramSocket::bind_with("127.0.0.1:0", &options).unwrap();
    let borrowed = socket.borrow().unwrap();
    assert_eq!(socket.release().unwrap_err().kind(), ErrorKind::WrongState);
    assert!(system::coalesces(borrowed.as_fd().as_raw_fd()));
    drop(borrowed);
    assert!(!system::coalesces(socket.release().unwrap().as_raw_fd()));
}

/// A panic of a handler is logged, and serving continues. C handlers cannot panic.
#[cfg(feature = "serve")]
#[test]
fn panic_in_handler_does_not_end_service() {
    let _limit = support::Limit::new("panic_in_handler_does_not_end_service");
    let server = keepsock::DatagramSocket::bind("127.0.0.1:0").unwrap();
    let service = server
        .serve(&keepsock::ServeOptions::new(), |socket, datagram, bytes| {
            assert_ne!(bytes, b"panic, please");
            socket.reply(datagram, bytes).unwrap();
        })
        .unwrap();
    let client = keepsock::DatagramSocket::connect(server.endpoint()).unwrap();
    client.set_read_timeout(Duration::from_secs(60)).unwrap();
    client.send(b"panic, please").unwrap();
    client.send(b"alive?").unwrap();
    let mut buf = [0; 32];
    let len = client.recv(&mut buf).unwrap().len;
    assert_eq!(&buf[..len], b"alive?");
    assert_eq!(server.stats().unwrap().served, 2);
    drop(service);
}
