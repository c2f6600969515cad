//! D1: what is told of a datagram, how it is sent, what is known of the socket. D3: what the kernel
//! hands over as one. V7 for a socket that is served.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{
    Api, DatagramService, Datagrams, Got, INFINITE, OnDatagram, Opt, Outcome, Token, eventually,
    fails, promptly, system, while_waiting,
};
use keepsock::ErrorKind;

both_apis![
    details_are_told,
    details_of_both_families_on_one_socket,
    a_ttl_of_nobody,
    the_way_to_a_peer,
    what_found_no_room_is_counted,
    a_last_snapshot,
    coalescing_is_for_udp,
    coalesced_is_received_one_by_one,
    coalesced_and_cut_short,
    coalesced_for_several_threads,
    waiting_for_what_is_coalesced,
    coalescing_goes_with_the_socket,
    giving_up_what_coalesces,
    giving_up_after_serving,
    giving_up_what_met_errors,
    what_is_told_of_a_stranger,
    what_is_left_and_a_token,
    waiting_for_the_other_is_quiet,
    serving_answers_each,
    serving_after_serving,
    serving_ends,
    serving_from_inside,
    serving_that_cannot_be,
    serving_minds_no_timeout,
];

fn pair<A: Api>() -> (A::Datagram, A::Datagram) {
    let server = A::bind("127.0.0.1:0", &[Opt::ReadTimeout(10_000)]).unwrap();
    let client = A::connect_datagram(&server.endpoint(), &[Opt::ReadTimeout(10_000)]).unwrap();
    (server, client)
}

/// D1: TTL, TOS with ECN, and the kernel's time, in and out.
fn details_are_told<A: Api>() {
    for host in ["127.0.0.1", "[::1]"] {
        let server = A::bind(&format!("{host}:0"), &[]).unwrap();
        server.set_details(true).unwrap();
        let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
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
        // The clock of the day may be put right meanwhile.
        let slack = Duration::from_millis(50);
        assert!(before - slack <= at && at <= after + slack, "{at:?}, not {before:?} to {after:?}");
        server.reply(&info, b"answer").unwrap();
        assert_eq!(client.recv(8).unwrap().ttl, None, "it did not ask");
        server.set_details(false).unwrap();
        client.send(b"x").unwrap();
        let got = server.recv(8).unwrap();
        assert_eq!((got.ttl, got.tos, got.received_at), (None, None, None));
    }
}

/// D1: a socket of both families is told of both, and sends so to both.
fn details_of_both_families_on_one_socket<A: Api>() {
    let server = A::bind("*:0", &[]).unwrap();
    server.set_details(true).unwrap();
    server.set_ttl(33).unwrap();
    server.set_tos(8).unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let client = A::connect_datagram(&format!("{host}:{}", server.port()), &[]).unwrap();
        client.set_details(true).unwrap();
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

/// E2: a TTL that would reach nobody.
fn a_ttl_of_nobody<A: Api>() {
    let socket = A::bind("127.0.0.1:0", &[]).unwrap();
    fails(socket.set_ttl(0), ErrorKind::InvalidArgument);
    socket.set_ttl(255).unwrap();
    socket.close();
    fails(socket.set_ttl(1), ErrorKind::Closed);
    fails(socket.set_tos(1), ErrorKind::Closed);
    fails(socket.set_details(true), ErrorKind::Closed);
    fails(socket.set_dont_fragment(true), ErrorKind::Closed);
}

/// D1: what the way takes is known of a connected socket; by loopback that is its MTU.
fn the_way_to_a_peer<A: Api>() {
    let mtu: u32 =
        std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap().trim().parse().unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let server = A::bind(&format!("{host}:0"), &[]).unwrap();
        let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
        // RFC 791: no packet of IPv4 is longer.
        let mtu = if host == "127.0.0.1" { mtu.min(65_535) } else { mtu };
        assert_eq!(client.path_mtu().unwrap(), mtu);
        assert_eq!(client.snapshot().unwrap().path_mtu, i64::from(mtu));
        let failure = fails(server.path_mtu(), ErrorKind::WrongState);
        assert!(failure.message.contains("not connected"), "{failure:?}");
        assert_eq!(server.snapshot().unwrap().path_mtu, -1);
        client.set_dont_fragment(true).unwrap();
        client.send(b"x").unwrap();
        client.set_dont_fragment(false).unwrap();
        client.send(b"x").unwrap();
    }
}

/// N1, D1: the kernel's counter of datagrams that found no room is exact: what was sent was either
/// received or counted.
fn what_found_no_room_is_counted<A: Api>() {
    let (server, client) = pair::<A>();
    let fresh = server.snapshot().unwrap();
    assert_eq!((fresh.dropped, fresh.unread, fresh.errors), (0, 0, 0));
    assert!(fresh.receive_buffer > 0 && fresh.send_buffer > 0, "{fresh:?}");
    let sent = 2000;
    for _ in 0..sent {
        client.send(&[7; 1000]).unwrap();
    }
    let full = server.snapshot().unwrap();
    assert!(full.dropped > 0 && full.unread > 0, "{full:?}");
    assert!(full.unread <= full.receive_buffer + 4096, "{full:?}");
    server.set_nonblocking(true).unwrap();
    let mut received = 0;
    while server.recv(1000).is_ok() {
        received += 1;
    }
    assert_eq!(received + full.dropped, sent);
    let empty = server.snapshot().unwrap();
    assert_eq!((empty.dropped, empty.unread), (full.dropped, 0));
}

/// N1: what was known at the end is kept if that was asked for.
fn a_last_snapshot<A: Api>() {
    let keeps = A::bind("127.0.0.1:0", &[Opt::LastSnapshot(true)]).unwrap();
    let now = keeps.snapshot().unwrap();
    keeps.close();
    assert_eq!(keeps.snapshot().unwrap(), now);
    let does_not = A::bind("127.0.0.1:0", &[]).unwrap();
    does_not.close();
    fails(does_not.snapshot(), ErrorKind::Closed);
}

/// E2: nothing else has it.
fn coalescing_is_for_udp<A: Api>() {
    let options = [Opt::Coalescing(true)];
    fails(A::listen("127.0.0.1:0", &options), ErrorKind::InvalidArgument);
    fails(A::connect("127.0.0.1:9", &options), ErrorKind::InvalidArgument);
    fails(A::bind("unix:@coalescing", &options), ErrorKind::InvalidArgument);
    let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = A::adopt_server(stream.into(), &options).err().unwrap().1;
    assert_eq!(refused.status, ErrorKind::InvalidArgument.code());
    let (unix, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let refused = A::adopt_datagram(unix.into(), &options).err().unwrap().1;
    assert_eq!(refused.status, ErrorKind::InvalidArgument.code());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = A::adopt_datagram(udp.into(), &options).map_err(|e| e.1).unwrap();
    let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
    send_as_one::<A>(&client, 5, 10);
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [0, 1, 2, 3, 4]);
}

fn coalescing_pair<A: Api>() -> (A::Datagram, A::Datagram) {
    let options = [Opt::ReadTimeout(10_000), Opt::Coalescing(true)];
    let server = A::bind("127.0.0.1:0", &options).unwrap();
    let client = A::connect_datagram(&server.endpoint(), &[]).unwrap();
    (server, client)
}

/// What the kernel hands over as one, so that receiving has to cut it.
fn send_as_one<A: Api>(client: &A::Datagram, count: u8, len: usize) {
    let all: Vec<_> = (0..count).map(|n| vec![n; len]).collect();
    let batch: Vec<_> = all.iter().map(|bytes| (bytes.as_slice(), None)).collect();
    assert_eq!(client.send_batch(&batch).unwrap(), usize::from(count));
}

fn numbers(got: &[Got]) -> Vec<u8> {
    got.iter().map(|g| g.bytes[0]).collect()
}

/// D3: a caller sees single datagrams in their order, whatever it receives with, and what is told of
/// each. That the kernel did hand them over as one shows by what a socket gets that asks for it
/// itself.
fn coalesced_is_received_one_by_one<A: Api>() {
    for host in ["127.0.0.1", "*"] {
        let options = [Opt::ReadTimeout(10_000), Opt::Coalescing(true)];
        let server = A::bind(&format!("{host}:0"), &options).unwrap();
        let client = A::connect_datagram(&format!("127.0.0.1:{}", server.port()), &[]).unwrap();
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
        // Single ones, and empty ones, come as always.
        for bytes in [&b"single"[..], b"", b"last"] {
            client.send(bytes).unwrap();
        }
        assert_eq!(server.recv(8).unwrap().bytes, b"single");
        assert_eq!(server.recv_batch(&[8; 4]).unwrap().len(), 2);
    }
    // The control.
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    system::coalesce(plain.as_raw_fd());
    let client = A::connect_datagram(&format!("127.0.0.1:{port}"), &[]).unwrap();
    send_as_one::<A>(&client, 50, 100);
    assert_eq!(plain.recv(&mut [0; 65_536]).unwrap(), 5000);
}

/// D1: truncation is told of the single datagram, and costs no other.
fn coalesced_and_cut_short<A: Api>() {
    let (server, client) = coalescing_pair::<A>();
    send_as_one::<A>(&client, 3, 100);
    let got = server.recv_batch(&[10, 0, 200]).unwrap();
    let told: Vec<_> = got.iter().map(|g| (g.bytes.len(), g.original_len, g.truncated)).collect();
    assert_eq!(told, [(10, 100, true), (0, 100, true), (100, 100, false)]);
    assert_eq!(got[2].bytes, [2; 100]);
    // The longest that there is.
    client.send(&[9; 65_507]).unwrap();
    assert_eq!(server.recv(65_507).unwrap().bytes, [9; 65_507]);
}

/// T1: several threads share what came as one; nothing is lost or told twice.
fn coalesced_for_several_threads<A: Api>() {
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
                assert!(all.insert(seen.recv_timeout(Duration::from_secs(10)).unwrap()));
            }
        }
        assert_eq!(all.len() as u32, ROUNDS * 40);
        server.close();
    });
}

/// T2, T3, T4, I1: limits, tokens, close and non-blocking mode hold there, too, for whoever waits in
/// the kernel and for whoever waits for the other.
fn waiting_for_what_is_coalesced<A: Api>() {
    let token = A::token();
    let options = [Opt::ReadTimeout(50), Opt::Coalescing(true)];
    let server = A::bind("127.0.0.1:0", &options).unwrap();
    fails(server.recv(8), ErrorKind::TimedOut);
    server.set_nonblocking(true).unwrap();
    fails(server.recv(8), ErrorKind::WouldBlock);
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(INFINITE).unwrap();
    server.set_cancel(Some(&token));
    promptly(Duration::from_millis(50), || {
        token.reset();
        let (outcome, took) = while_waiting(|| server.recv(8), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
        took
    });
    server.set_cancel(None);
    let outcomes: Vec<Outcome<Got>> = std::thread::scope(|scope| {
        let first = scope.spawn(|| server.recv(8));
        let (outcome, _) = while_waiting(|| server.recv(8), || server.close());
        vec![first.join().unwrap(), outcome]
    });
    for outcome in outcomes {
        fails(outcome, ErrorKind::Closed);
    }
}

/// D3, T4: a socket that is given up has no others' datagrams, and none that come as one; one that is
/// taken over, and has, cuts them.
fn coalescing_goes_with_the_socket<A: Api>() {
    let (server, client) = coalescing_pair::<A>();
    send_as_one::<A>(&client, 5, 10);
    assert_eq!(numbers(&server.recv_batch(&[10; 2]).unwrap()), [0, 1]);
    let failure = fails(server.release(), ErrorKind::WrongState);
    assert!(failure.message.contains("datagrams wait in it"), "{failure:?}");
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [2, 3, 4]);
    let plain = UdpSocket::from(server.release().unwrap());
    send_as_one::<A>(&client, 3, 10);
    for _ in 0..3 {
        assert_eq!(plain.recv(&mut [0; 100]).unwrap(), 10);
    }
    system::coalesce(plain.as_raw_fd());
    let server = A::adopt_datagram(plain.into(), &[]).map_err(|e| e.1).unwrap();
    send_as_one::<A>(&client, 3, 10);
    assert_eq!(server.recv(100).unwrap().bytes, [0; 10]);
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [1, 2]);
}

/// D3, T4: what waits in the kernel as one is not given away; nor does anything wait for it, or change,
/// while the socket is in use.
fn giving_up_what_coalesces<A: Api>() {
    let (server, client) = coalescing_pair::<A>();
    let fd = server.fd().unwrap();
    let coalesces = || system::coalesces(fd);
    send_as_one::<A>(&client, 5, 10);
    fails(server.release(), ErrorKind::WrongState);
    assert!(coalesces());
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [0, 1, 2, 3, 4]);
    let (got, _) = while_waiting(
        || server.recv(10),
        || {
            // Without waiting for what the other waits for, which nobody sends before.
            let failure = fails(server.release(), ErrorKind::WrongState);
            assert!(failure.message.contains("another thread"), "{failure:?}");
            assert!(coalesces());
            client.send(b"x").unwrap();
        },
    );
    assert_eq!(got.unwrap().bytes, b"x");
    server.release().unwrap();
}

/// D3, T4: a socket that was served, and receives no more, is given up nevertheless.
fn giving_up_after_serving<A: Api>() {
    let (server, _) = coalescing_pair::<A>();
    let service = server.serve(1, Box::new(|_, _| ())).unwrap();
    service.stop();
    service.wait(10_000).unwrap();
    drop(service);
    server.release().unwrap();
}

/// D3, D2: errors that nobody has asked for are no datagrams that wait, and nobody waits behind them.
fn giving_up_what_met_errors<A: Api>() {
    let gone = UdpSocket::bind((A::own_address(102), 0)).unwrap().local_addr().unwrap();
    let client = A::connect_datagram(&gone.to_string(), &[Opt::Coalescing(true)]).unwrap();
    client.send(b"x").unwrap();
    eventually("the refusal is there", || system::has_error(client.fd().unwrap()));
    client.release().unwrap();
}

/// D1: what is told of a datagram is told of that one, and not of a stranger's before it, which was in
/// the queue when the socket was connected.
fn what_is_told_of_a_stranger<A: Api>() {
    let plain = UdpSocket::bind("[::]:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    // The kernel keeps what it is asked to tell when a datagram comes.
    system::set_option(plain.as_raw_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    system::set_option(plain.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"stranger", ("127.0.0.5", port)).unwrap();
    let peer = UdpSocket::bind("[::1]:0").unwrap();
    plain.connect(peer.local_addr().unwrap()).unwrap();
    let socket = A::adopt_datagram(plain.into(), &[Opt::ReadTimeout(10_000)]);
    let socket = socket.map_err(|e| e.1).unwrap();
    socket.set_details(true).unwrap();
    peer.send_to(b"peer", ("::1", port)).unwrap();
    let got = socket.recv(8).unwrap();
    assert_eq!(got.bytes, b"peer");
    assert_eq!(got.to, Some(SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
}

/// T2: a token ends calls that begin later, too, though something is left to hand out; nothing of it is
/// lost.
fn what_is_left_and_a_token<A: Api>() {
    let (server, client) = coalescing_pair::<A>();
    send_as_one::<A>(&client, 4, 10);
    assert_eq!(numbers(&server.recv_batch(&[10; 1]).unwrap()), [0]);
    let token = A::token();
    server.set_cancel(Some(&token));
    token.fire();
    fails(server.recv(10), ErrorKind::Cancelled);
    token.reset();
    assert_eq!(numbers(&server.recv_batch(&[10; 9]).unwrap()), [1, 2, 3]);
}

/// F16 for these: who waits for the one that waits in the kernel is not woken again and again.
fn waiting_for_the_other_is_quiet<A: Api>() {
    let server = A::bind("127.0.0.1:0", &[Opt::Coalescing(true)]).unwrap();
    let threads = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                threads.lock().unwrap().push(system::thread_id());
                fails(server.recv(8), ErrorKind::Closed);
            });
        }
        eventually("all have begun", || threads.lock().unwrap().len() == 4);
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

/// A socket whose receiving was ended is not served again, and one that was not is.
fn serving_after_serving<A: Api>() {
    let server = A::bind("127.0.0.1:0", &[]).unwrap();
    drop(server.serve(2, echo()).unwrap());
    let failure = fails(server.serve(1, echo()).map(drop), ErrorKind::Closed);
    assert!(failure.message.contains("stopped"), "{failure:?}");
}

fn echo() -> OnDatagram {
    Box::new(|reply, got| reply(&got.bytes).unwrap())
}

/// V1 for datagrams: a callback for each, which answers; meanwhile anybody may send.
fn serving_answers_each<A: Api>() {
    for threads in [1, 4] {
        let server = A::bind("*:0", &[]).unwrap();
        let service = server.serve(threads, echo()).unwrap();
        std::thread::scope(|scope| {
            for host in ["127.0.0.1", "[::1]", "127.0.0.1"] {
                let endpoint = format!("{host}:{}", server.port());
                scope.spawn(move || {
                    let options = [Opt::ReadTimeout(10_000)];
                    let client = A::connect_datagram(&endpoint, &options).unwrap();
                    for n in 0..200u32 {
                        client.send(&n.to_be_bytes()).unwrap();
                        assert_eq!(client.recv(8).unwrap().bytes, n.to_be_bytes());
                    }
                    client.send(b"").unwrap();
                    assert_eq!(client.recv(8).unwrap().bytes, b"");
                });
            }
        });
        assert_eq!(service.received(), 3 * 201);
        let (other, _) = pair::<A>();
        server.send_to(b"news", SocketAddr::from(([127, 0, 0, 1], other.port()))).unwrap();
        assert_eq!(other.recv(8).unwrap().bytes, b"news");
    }
}

/// V5 for datagrams: stopping ends the threads, and receiving, but not sending; so do a close, and a
/// token.
fn serving_ends<A: Api>() {
    let server = A::bind("127.0.0.1:0", &[]).unwrap();
    let service = server.serve(3, echo()).unwrap();
    fails(service.wait(20), ErrorKind::TimedOut);
    service.stop();
    service.wait(10_000).unwrap();
    service.stop();
    fails(server.recv(8), ErrorKind::Closed);
    fails(server.recv_batch(&[8]), ErrorKind::Closed);
    let (other, _) = pair::<A>();
    server.send_to(b"still", SocketAddr::from(([127, 0, 0, 1], other.port()))).unwrap();
    assert_eq!(other.recv(8).unwrap().bytes, b"still");
    drop(service);

    let server = A::bind("127.0.0.1:0", &[]).unwrap();
    let service = server.serve(2, echo()).unwrap();
    server.close();
    service.wait(10_000).unwrap();

    let token = A::token();
    let server = A::bind("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
    let service = server.serve(2, echo()).unwrap();
    token.fire();
    service.wait(10_000).unwrap();

    // Freed while it serves, also what the kernel may hand over as one.
    for coalescing in [false, true] {
        let server = A::bind("127.0.0.1:0", &[Opt::Coalescing(coalescing)]).unwrap();
        drop(server.serve(4, echo()).unwrap());
    }
}

/// V7: from inside a handler its service can be stopped, and waiting for itself is refused.
fn serving_from_inside<A: Api>() {
    let server = A::bind("127.0.0.1:0", &[]).unwrap();
    let place = Arc::new(Mutex::new(None::<A::DatagramService>));
    let (send, outcome) = channel();
    let inside = place.clone();
    let send = Mutex::new(send);
    let handler: OnDatagram = Box::new(move |reply, _| {
        let service = inside.lock().unwrap();
        let service = service.as_ref().unwrap();
        let waited = service.wait(10_000);
        service.stop();
        reply(b"stopped").unwrap();
        send.lock().unwrap().send(waited).unwrap();
    });
    {
        // The handler waits for it.
        let mut place = place.lock().unwrap();
        *place = Some(server.serve(1, handler).unwrap());
    }
    let client = A::connect_datagram(&server.endpoint(), &[Opt::ReadTimeout(10_000)]).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"stopped", "a reply leaves after the stop, too");
    let waited = outcome.recv_timeout(Duration::from_secs(10)).unwrap();
    fails(waited, ErrorKind::WrongState);
    let service = place.lock().unwrap().take().unwrap();
    service.wait(10_000).unwrap();
}

/// E2: no threads, too many, and a closed socket.
fn serving_that_cannot_be<A: Api>() {
    let server = A::bind("127.0.0.1:0", &[]).unwrap();
    for threads in [0, 1025, u32::MAX] {
        fails(server.serve(threads, echo()).map(drop), ErrorKind::InvalidArgument);
    }
    server.close();
    fails(server.serve(1, echo()).map(drop), ErrorKind::Closed);
}

/// The threads of a service wait, whatever the calls of others are set to.
fn serving_minds_no_timeout<A: Api>() {
    let server = A::bind("127.0.0.1:0", &[Opt::ReadTimeout(1)]).unwrap();
    server.set_nonblocking(true).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let handler: OnDatagram = Box::new(move |reply, got| {
        counted.fetch_add(1, Ordering::SeqCst);
        reply(&got.bytes).unwrap();
    });
    let service = server.serve(1, handler).unwrap();
    fails(service.wait(50), ErrorKind::TimedOut);
    let client = A::connect_datagram(&server.endpoint(), &[Opt::ReadTimeout(10_000)]).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"x");
    eventually("counted", || calls.load(Ordering::SeqCst) == 1);
}

/// D3, T4, in Rust only: a socket that is not given up, for somebody has borrowed it, is as it was.
#[test]
fn what_coalesces_is_borrowed() {
    let _limit = common::Limit::new("what_coalesces_is_borrowed");
    let options = keepsock::SocketOptions::new().coalescing(true);
    let socket = keepsock::DatagramSocket::bind_with("127.0.0.1:0", &options).unwrap();
    let borrowed = socket.borrow().unwrap();
    assert_eq!(socket.release().unwrap_err().kind(), ErrorKind::WrongState);
    assert!(system::coalesces(borrowed.as_fd().as_raw_fd()));
    drop(borrowed);
    assert!(!system::coalesces(socket.release().unwrap().as_raw_fd()));
}

/// A handler that panics is told, and serving goes on; C's handlers cannot panic.
#[test]
fn a_handler_that_panics() {
    let _limit = common::Limit::new("a_handler_that_panics");
    let server = keepsock::DatagramSocket::bind("127.0.0.1:0").unwrap();
    let service = server
        .serve(1, |socket, datagram, bytes| {
            assert_ne!(bytes, b"panic, please");
            socket.reply(datagram, bytes).unwrap();
        })
        .unwrap();
    let client = keepsock::DatagramSocket::connect(server.endpoint()).unwrap();
    client.set_read_timeout(Duration::from_secs(10)).unwrap();
    client.send(b"panic, please").unwrap();
    client.send(b"alive?").unwrap();
    let mut buf = [0; 32];
    let len = client.recv(&mut buf).unwrap().len;
    assert_eq!(&buf[..len], b"alive?");
    assert_eq!(service.received(), 2);
}
