//! The PROXY protocol: connections from a proxy have the addresses of its client, and connects send a
//! header.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::libc;
use crate::support::process::Program;
use crate::support::*;
use keepsock::{CloseReason, ErrorKind};

both_apis![
    proxy_header_in_two_parts_is_received_before_the_data,
    proxy_header_is_received_by_the_first_read,
    proxy_header_of_the_proxy_itself_keeps_the_addresses,
    proxy_header_in_nonblocking_mode_is_received_in_parts,
    proxy_that_is_silent_delays_no_other_connection,
    proxy_header_that_is_wrong_resets_the_connection,
    proxy_header_that_is_late_resets_the_connection,
    proxy_timeout_holds_for_calls_that_do_not_read,
    connection_ended_before_its_proxy_header_stays_ended,
    proxy_header_is_limited_by_the_read_timeout,
    proxy_that_resets_within_the_header_is_reported_again,
    connection_from_untrusted_address_is_closed,
    release_before_the_proxy_header_fails,
    connection_reset_after_fin_awaits_no_proxy_header,
    unix_connection_on_server_with_trusted_proxies_has_no_header,
    connect_sends_the_proxy_header_first,
    connect_sends_the_rest_of_a_proxy_header_that_was_sent_in_part,
    proxy_header_whose_receive_failed_is_received_by_the_next_call,
    proxy_options_without_effect_are_rejected,
    haproxy_in_front_sends_the_addresses_of_its_client,
    haproxy_behind_accepts_the_header_of_a_connect,
    #[cfg(feature = "serve")] {
        threads_receive_the_proxy_header_before_the_handler,
        threads_limit_the_clients_behind_a_proxy,
        threads_reject_wrong_and_late_proxy_headers,
        events_receive_the_proxy_header_before_on_open,
        events_receive_a_proxy_header_in_single_bytes,
        events_keep_the_addresses_of_the_proxy_itself,
        events_use_the_tcp_socket_of_a_client_of_another_family,
        events_reject_wrong_and_late_proxy_headers,
        events_close_connections_from_untrusted_addresses,
        events_limit_the_clients_behind_a_proxy,
        events_count_connections_without_a_proxy_header,
        events_end_connections_without_a_proxy_header_at_once,
        events_hold_proxy_headers_while_accepting_is_paused,
        events_expect_no_proxy_header_on_a_unix_socket,
        service_add_keeps_the_addresses_of_a_client_behind_a_proxy,
        haproxy_in_front_of_events_sends_the_addresses_of_its_client,
    }
];

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb";
const CLIENT: (&str, u16) = ("192.0.2.1", 56_324);
const TRUST: &str = "127.0.0.0/8";

fn listen<A: Api>(more: Option<Opt<'_, A>>) -> A::Server {
    let options: Vec<_> = [Opt::TrustedProxy(TRUST)].into_iter().chain(more).collect();
    A::listen("127.0.0.1:0", &options).unwrap()
}

fn raw<A: Api>(server: &A::Server) -> TcpStream {
    let stream = TcpStream::connect(server.endpoint()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn accepted<A: Api>(server: &A::Server, bytes: &[u8]) -> (A::Client, TcpStream) {
    let mut peer = raw::<A>(server);
    peer.write_all(bytes).unwrap();
    (server.accept().unwrap(), peer)
}

fn has_clients_address<A: Api>(client: &A::Client) {
    let tuple = client.five_tuple();
    assert_eq!((&*tuple.remote.0, tuple.remote.1), CLIENT);
    assert_eq!((&*tuple.local.0, tuple.local.1), ("198.51.100.1", 443));
}

/// S1, I1: the kernel accepts the first bytes of a header only, or none of them.
fn connect_sends_the_rest_of_a_proxy_header_that_was_sent_in_part<A: Api>() {
    const PART: usize = 9;
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = server.local_addr().unwrap().to_string();
    let connect = |result| {
        let options = [Opt::ProxyHeader(1, None), Opt::CloseTimeout(0)];
        // The filter applies to this thread alone. The kernel does not execute the first send.
        thread::scope(|scope| {
            let connect = || {
                limits::answer(libc::SYS_sendto, None, result, 1);
                A::connect(&endpoint, &options)
            };
            scope.spawn(connect).join().unwrap()
        })
    };
    drop(connect(PART as i64).unwrap());
    let (mut peer, _) = server.accept().unwrap();
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).unwrap();
    let header = keepsock::ProxyHeader::v1(None);
    assert_eq!(rest, header.as_bytes()[PART..]);
    fails(connect(-i64::from(libc::EAGAIN)), ErrorKind::NoMemory);
}

/// S1: the kernel lacks memory for one receive of a header. The header is no data.
fn proxy_header_whose_receive_failed_is_received_by_the_next_call<A: Api>() {
    for header in [V1, V2] {
        let server = listen::<A>(None);
        let (client, mut peer) = accepted::<A>(&server, header);
        peer.write_all(b"data\n").unwrap();
        thread::scope(|scope| {
            let receive = || {
                // The first call looks at the bytes, the second one receives them.
                let mut calls = 0;
                limits::supervise(&[(libc::SYS_recvfrom, None)], move |_| {
                    calls += 1;
                    (calls == 2).then_some(-i64::from(libc::ENOMEM))
                });
                fails(client.read_proxy_header(), ErrorKind::NoMemory);
                client.read_proxy_header().unwrap();
            };
            scope.spawn(receive).join().unwrap();
        });
        has_clients_address::<A>(&client);
        assert_eq!(client.read_line(64).unwrap(), "data");
    }
}

/// S1: both versions, split at each byte. No byte after the header is lost.
fn proxy_header_in_two_parts_is_received_before_the_data<A: Api>() {
    let server = listen::<A>(None);
    for header in [V1, V2] {
        for at in 0..=header.len() {
            let (client, mut peer) = accepted::<A>(&server, &header[..at]);
            let proxy = peer.local_addr().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| client.read_proxy_header().unwrap());
                peer.write_all(&header[at..]).unwrap();
                peer.write_all(b"data\n").unwrap();
            });
            has_clients_address::<A>(&client);
            assert_eq!(client.proxy_address(), Some(proxy.to_string()));
            client.read_proxy_header().unwrap();
            assert_eq!(client.read_line(10).unwrap(), "data");
        }
    }
    assert_eq!(server.stats().accepted, (V1.len() + V2.len() + 2) as u64);
}

/// S1, I1: each kind of read receives the header first.
fn proxy_header_is_received_by_the_first_read<A: Api>() {
    type Reading<A> = fn(&<A as Api>::Client) -> Outcome<()>;
    let reads: [Reading<A>; 5] = [
        |c| c.read(&mut [0; 64]).map(|n| assert_eq!(n, 5)),
        |c| c.read_slices(&mut [&mut [0; 2], &mut [0; 9]]).map(|n| assert_eq!(n, 5)),
        |c| c.read_exact(&mut [0; 5]),
        |c| c.read_until(b'\n', 64).map(|piece| assert_eq!(piece, b"line\n")),
        |c| c.read_line(64).map(|line| assert_eq!(line, "line")),
    ];
    let server = listen::<A>(None);
    for read in reads {
        for header in [V1, V2] {
            let (client, _peer) = accepted::<A>(&server, &[header, b"line\n"].concat());
            // Until then the five-tuple is that of the proxy.
            assert_eq!(&*client.five_tuple().remote.0, "127.0.0.1");
            assert_eq!(client.proxy_address(), None);
            read(&client).unwrap();
            has_clients_address::<A>(&client);
        }
    }
}

/// S1: LOCAL and UNKNOWN, as a health check of the proxy sends them.
fn proxy_header_of_the_proxy_itself_keeps_the_addresses<A: Api>() {
    let server = listen::<A>(None);
    for header in [b"PROXY UNKNOWN\r\n".as_slice(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let (client, peer) = accepted::<A>(&server, &[header, b"x"].concat());
        client.read_exact(&mut [0; 1]).unwrap();
        let tuple = client.five_tuple();
        assert_eq!(tuple.remote, ("127.0.0.1".into(), peer.local_addr().unwrap().port()));
        assert_eq!(tuple.local.1, server.port());
        assert_eq!(client.proxy_address(), None);
    }
}

/// T4: in non-blocking mode a read receives the part of the header that is there.
fn proxy_header_in_nonblocking_mode_is_received_in_parts<A: Api>() {
    let server = listen::<A>(None);
    let (client, mut peer) = accepted::<A>(&server, &V2[..20]);
    client.set_nonblocking(true).unwrap();
    let fd = client.fd().unwrap();
    assert!(system::becomes_readable(fd, 10_000));
    fails(client.read(&mut [0; 8]), ErrorKind::WouldBlock);
    // The received part does not keep the descriptor readable.
    assert!(!system::becomes_readable(fd, 0));
    fails(client.read_proxy_header(), ErrorKind::WouldBlock);
    peer.write_all(&V2[20..]).unwrap();
    assert!(system::becomes_readable(fd, 10_000));
    fails(client.read(&mut [0; 8]), ErrorKind::WouldBlock);
    has_clients_address::<A>(&client);
    peer.write_all(b"abc").unwrap();
    assert!(system::becomes_readable(fd, 10_000));
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 3);
}

/// L3: accept does not wait for a header.
fn proxy_that_is_silent_delays_no_other_connection<A: Api>() {
    let server = listen::<A>(Some(Opt::ProxyTimeout(60_000)));
    let _silent = raw::<A>(&server);
    let slow = server.accept().unwrap();
    let (client, _peer) = accepted::<A>(&server, &[V1, b"x"].concat());
    client.read_exact(&mut [0; 1]).unwrap();
    has_clients_address::<A>(&client);
    // T2, T3: a token and a close end the wait.
    let token = A::token();
    slow.set_cancel(Some(&token));
    let (outcome, _) = while_waiting(|| slow.read_proxy_header(), || token.fire());
    fails(outcome, ErrorKind::Cancelled);
    slow.set_cancel(None);
    let (outcome, _) = while_waiting(|| slow.read(&mut [0; 8]), || slow.abort());
    fails(outcome, ErrorKind::Closed);
}

fn is_reset(mut peer: &TcpStream) -> bool {
    let mut buf = [0; 64];
    matches!(peer.read(&mut buf), Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset)
}

/// E1: a wrong or unfinished header is never data, and ends the connection.
fn proxy_header_that_is_wrong_resets_the_connection<A: Api>() {
    let server = listen::<A>(None);
    for (bytes, why) in [
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), "neither version 1 nor version 2"),
        (b"PROXY TCP4 192.0.2.1\r\n", "a line without two addresses"),
        (&[0x16; 200], "neither version 1 nor version 2"),
        (&[b'x'; 1], "neither version 1 nor version 2"),
    ] {
        let (client, peer) = accepted::<A>(&server, bytes);
        let failure = fails(client.read(&mut [0; 8]), ErrorKind::Malformed);
        assert!(failure.message.contains(why), "{failure:?}");
        assert_eq!(&*failure.operation, "PROXY header");
        fails(client.read(&mut [0; 8]), ErrorKind::Closed);
        assert_eq!(client.close_reason(), Some(CloseReason::MessageMalformed));
        assert!(is_reset(&peer));
    }
    assert_eq!((server.stats().accepted, server.stats().proxy_rejected), (4, 4));
    for half in [&V1[..10], &V2[..17], b""] {
        let (client, peer) = accepted::<A>(&server, half);
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let failure = fails(client.read_proxy_header(), ErrorKind::Malformed);
        assert!(failure.message.contains("closed its side"), "{failure:?}");
    }
}

/// C1: the timeout is for the whole header.
fn proxy_header_that_is_late_resets_the_connection<A: Api>() {
    let server = listen::<A>(Some(Opt::ProxyTimeout(300)));
    for (nonblocking, bytes) in [(false, b"".as_slice()), (false, &V1[..20]), (true, &V2[..20])] {
        let (client, peer) = accepted::<A>(&server, bytes);
        if nonblocking {
            client.set_nonblocking(true).unwrap();
            // A later read finds the connection closed.
            eventually("the header is late", || {
                let failure = client.read(&mut [0; 8]).unwrap_err();
                assert!(failure.is(ErrorKind::IdleTimeout) || failure.is(ErrorKind::WouldBlock));
                failure.is(ErrorKind::IdleTimeout)
            });
        } else {
            let failure = fails(client.read(&mut [0; 8]), ErrorKind::IdleTimeout);
            assert!(failure.message.contains("the header is incomplete"), "{failure:?}");
        }
        assert!(is_reset(&peer));
        fails(client.read_proxy_header(), ErrorKind::Closed);
    }
}

/// C1, K7: the timeout for the header also ends a connection whose program only polls, only waits for the
/// end, or only writes. The close reason and the statistics state it.
fn proxy_timeout_holds_for_calls_that_do_not_read<A: Api>() {
    let server = listen::<A>(Some(Opt::ProxyTimeout(300)));
    type Ending<A> = fn(&<A as Api>::Client);
    let endings: [Ending<A>; 3] = [
        |client| {
            client.set_nonblocking(true).unwrap();
            fails(client.read(&mut [0; 8]), ErrorKind::WouldBlock);
            let mut looks = 0;
            let failure = loop {
                match client.check_liveness() {
                    Ok(left) => {
                        assert!((0..=300).contains(&left), "{left}");
                        std::thread::sleep(Duration::from_millis(left as u64));
                    }
                    Err(failure) => break failure,
                }
                looks += 1;
                assert!(looks < 10);
            };
            assert!(failure.is(ErrorKind::IdleTimeout), "{failure:?}");
            assert!(failure.message.contains("the header is incomplete"), "{failure:?}");
            fails(client.check_liveness(), ErrorKind::Closed);
        },
        |client| {
            fails(client.wait_hangup(20), ErrorKind::TimedOut);
            assert_eq!(client.wait_hangup(60_000).unwrap(), CloseReason::IdleTimeout);
            fails(client.wait_hangup(0), ErrorKind::Closed);
        },
        |client| {
            fails(client.write_all(&vec![0; 64 << 20]), ErrorKind::IdleTimeout);
        },
    ];
    for (i, ending) in endings.into_iter().enumerate() {
        let (client, peer) = accepted::<A>(&server, &V1[..5]);
        ending(&client);
        assert_eq!(client.close_reason(), Some(CloseReason::IdleTimeout));
        assert_eq!(server.stats().proxy_rejected, i as u64 + 1);
        let mut received = [0; 1 << 16];
        let end = loop {
            match (&peer).read(&mut received) {
                Ok(n) => assert!(n > 0, "the end of the stream"),
                Err(e) => break e,
            }
        };
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    }
    // A header that has arrived is not late, also if the program did not read until then.
    let (client, _peer) = accepted::<A>(&server, &[V1, b"data"].concat());
    client.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(350));
    assert_eq!(client.check_liveness().unwrap(), INFINITE);
    has_clients_address::<A>(&client);
    fails(client.wait_hangup(0), ErrorKind::TimedOut);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 4);
    // A header that is wrong.
    for check in [true, false] {
        let (client, peer) = accepted::<A>(&server, b"wrong");
        std::thread::sleep(Duration::from_millis(350));
        if check {
            fails(client.check_liveness(), ErrorKind::Malformed);
        } else {
            assert_eq!(client.wait_hangup(60_000).unwrap(), CloseReason::MessageMalformed);
        }
        assert_eq!(client.close_reason(), Some(CloseReason::MessageMalformed));
        assert!(is_reset(&peer));
    }
    assert_eq!((server.stats().accepted, server.stats().proxy_rejected), (6, 5));
}

/// C1, K6: a connection that another timeout has ended before its header returns that end from every
/// read, in each mode. A header that arrives afterwards is not received, and the timeout for the header
/// still resets the connection.
fn connection_ended_before_its_proxy_header_stays_ended<A: Api>() {
    let beat = [Opt::Heartbeat(b"beat", 30), Opt::HeartbeatTimeout(60)];
    let (idle, unanswered) = (CloseReason::IdleTimeout, CloseReason::HeartbeatTimeout);
    let cases = [
        (vec![Opt::IdleTimeout(60)], ErrorKind::IdleTimeout, idle),
        (vec![Opt::FirstByteTimeout(60)], ErrorKind::IdleTimeout, idle),
        (beat.into(), ErrorKind::HeartbeatTimeout, unanswered),
    ];
    let mut connections = Vec::new();
    for (mut options, kind, reason) in cases {
        options.extend([Opt::TrustedProxy(TRUST), Opt::ProxyTimeout(4000)]);
        for nonblocking in [true, false] {
            let server = A::listen("127.0.0.1:0", &options).unwrap();
            let (client, mut peer) = accepted::<A>(&server, b"");
            let before = client.five_tuple();
            client.set_nonblocking(nonblocking).unwrap();
            eventually("the timeout ends the connection", || match client.check_liveness() {
                Ok(left) => {
                    thread::sleep(Duration::from_millis(left as u64));
                    false
                }
                Err(failure) => failure.is(kind),
            });
            for header in [b"".as_slice(), V1, b"data\n"] {
                peer.write_all(header).unwrap();
                fails(client.read(&mut [0; 8]), kind);
                fails(client.read_line(8), kind);
                fails(client.peek(&mut [0; 8]), kind);
                fails(client.read_proxy_header(), kind);
                fails(client.check_liveness().map(drop), kind);
            }
            assert_eq!(client.five_tuple().remote, before.remote);
            assert_eq!(client.proxy_address(), None);
            assert_eq!(server.stats().proxy_rejected, 0);
            connections.push((server, client, peer, kind, reason));
        }
    }
    for (i, (server, client, mut peer, kind, reason)) in connections.into_iter().enumerate() {
        // A read applies the timeout, and so does a liveness check.
        let call = || match i % 2 {
            0 => client.read(&mut [0; 8]).map(drop),
            _ => client.check_liveness().map(drop),
        };
        eventually("the connection is reset", || {
            let failure = call().unwrap_err();
            assert!(failure.is(kind) || failure.is(ErrorKind::Closed), "{failure:?}");
            thread::sleep(Duration::from_millis(10));
            failure.is(ErrorKind::Closed)
        });
        assert_eq!(client.close_reason(), Some(reason));
        assert_eq!(server.stats().proxy_rejected, 1);
        while let Ok(n) = peer.read(&mut [0; 64]) {
            assert!(n > 0, "the end of the stream");
        }
    }
}

/// I1: the read timeout limits the whole call, with the wait for the header. The header may still
/// arrive.
fn proxy_header_is_limited_by_the_read_timeout<A: Api>() {
    let server = listen::<A>(Some(Opt::ProxyTimeout(60_000)));
    let (client, mut peer) = accepted::<A>(&server, &V1[..5]);
    for timeout in [50, 500] {
        client.set_read_timeout(timeout).unwrap();
        let failure = fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
        assert!(!failure.message.contains("incomplete"), "{failure:?}");
        fails(client.peek(&mut [0; 8]), ErrorKind::TimedOut);
        fails(client.read_line(8), ErrorKind::TimedOut);
    }
    assert_eq!((client.close_reason(), server.stats().proxy_rejected), (None, 0));
    peer.write_all(&V1[5..]).unwrap();
    peer.write_all(b"x\n").unwrap();
    client.set_read_timeout(INFINITE).unwrap();
    assert_eq!(client.read_line(8).unwrap(), "x");
    has_clients_address::<A>(&client);
}

/// I4: a reset before the end of the header is a reset for every call, and no wrong header.
fn proxy_that_resets_within_the_header_is_reported_again<A: Api>() {
    let server = listen::<A>(None);
    let (client, peer) = accepted::<A>(&server, &V1[..5]);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    for _ in 0..2 {
        fails(client.read(&mut [0; 8]), ErrorKind::Reset);
        fails(client.read_proxy_header(), ErrorKind::Reset);
        assert_eq!(client.wait_hangup(60_000).unwrap(), CloseReason::PeerReset);
    }
    assert_eq!(server.stats().proxy_rejected, 0);
}

/// V4: only a trusted proxy chooses an address.
fn connection_from_untrusted_address_is_closed<A: Api>() {
    let options = [Opt::TrustedProxy("127.0.0.2"), Opt::TrustedProxy("192.0.2.0/24")];
    let server = A::listen("127.0.0.1:0", &options).unwrap();
    server.set_nonblocking(true).unwrap();
    let mut peer = raw::<A>(&server);
    let _ = peer.write_all(V1);
    eventually("the connection is rejected", || {
        fails(server.accept().map(drop), ErrorKind::WouldBlock);
        server.stats().proxy_rejected == 1
    });
    let end = peer.read(&mut [0; 8]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.denied), (0, 0));
}

/// T4: a program that gets the descriptor would find the header in the data.
fn release_before_the_proxy_header_fails<A: Api>() {
    let server = listen::<A>(None);
    let (client, _peer) = accepted::<A>(&server, V1);
    let failure = fails(client.release().map(drop), ErrorKind::WrongState);
    assert!(failure.message.contains("PROXY header"), "{failure:?}");
    client.read_proxy_header().unwrap();
    client.release().unwrap();
}

/// I4, T4: a connection without a proxy whose peer reset it after its FIN awaits no header.
fn connection_reset_after_fin_awaits_no_proxy_header<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let peer = crate::support::os::unix::net::UnixStream::connect(dir.path("s")).unwrap();
    let client = server.accept().unwrap();
    drop(peer);
    // The kernel reports EPIPE: a reset after the FIN of the peer.
    fails(client.write_all(b"too late"), ErrorKind::Reset);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "the end of the stream came before");
    client.release().unwrap();
}

/// L2: a Unix peer has no address, so it cannot be a trusted proxy.
fn unix_connection_on_server_with_trusted_proxies_has_no_header<A: Api>() {
    let dir = TempDir::new();
    let unix = dir.endpoint("s");
    let server = A::listen_all(&["127.0.0.1:0", &unix], &[Opt::TrustedProxy(TRUST)]).unwrap();
    let client = A::connect(&unix, &[]).unwrap();
    client.write_all(b"line\n").unwrap();
    assert_eq!(server.accept().unwrap().read_line(10).unwrap(), "line");
    let (client, _peer) = accepted::<A>(&server, &[V1, b"x"].concat());
    client.read_exact(&mut [0; 1]).unwrap();
    has_clients_address::<A>(&client);
}

fn client_addresses() -> Option<(SocketAddr, SocketAddr)> {
    Some(("192.0.2.1:56324".parse().unwrap(), "198.51.100.1:443".parse().unwrap()))
}

/// C5: the header is the first data of a connect, of each attempt to reconnect, of a pending connect,
/// and with Fast Open.
fn connect_sends_the_proxy_header_first<A: Api>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".as_slice();
    for (version, addresses, header) in [
        (1, client_addresses(), V1),
        (2, client_addresses(), V2),
        (1, None, b"PROXY UNKNOWN\r\n".as_slice()),
        (2, None, local),
    ] {
        // Windows has no Fast Open.
        for way in 0..if cfg!(windows) { 3 } else { 4 } {
            let mut options = vec![Opt::ProxyHeader(version, addresses)];
            if way == 3 {
                options.push(Opt::FastOpen(true));
            }
            let client = match way {
                1 => A::start(&endpoint, &options).unwrap().wait().unwrap(),
                2 => A::reconnect(&endpoint, &options).unwrap().connect().unwrap(),
                _ => A::connect(&endpoint, &options).unwrap(),
            };
            let (mut peer, _) = listener.accept().unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut got = vec![0; header.len()];
            // The peer needs no data of the program.
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got, header, "way {way}");
            client.write_all(b"data").unwrap();
            got.resize(4, 0);
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got, b"data");
        }
    }
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let _client = A::connect(&server.endpoint(), &[Opt::ProxyHeader(1, None)]).unwrap();
    assert_eq!(server.accept().unwrap().read_line(107).unwrap(), "PROXY UNKNOWN");
}

/// S4, E2: options without an effect, and wrong ones.
fn proxy_options_without_effect_are_rejected<A: Api>() {
    let rejected = |options: &[Opt<'_, A>], text: &str| {
        let failure =
            fails(A::listen("127.0.0.1:0", options).map(drop), ErrorKind::InvalidArgument);
        assert!(failure.message.contains(text), "{failure:?}");
    };
    rejected(&[Opt::TrustedProxy("192.0.2.0/33")], "192.0.2.0/33");
    rejected(&[Opt::TrustedProxy("localhost")], "localhost");
    rejected(&[Opt::ProxyTimeout(100)], "trusted_proxy");
    rejected(&[Opt::TrustedProxy(TRUST), Opt::ProxyTimeout(0)], "proxy_timeout");
    rejected(&[Opt::ProxyHeader(1, None)], "proxy_header");
    let dir = TempDir::new();
    let both = [Opt::Seqpacket(true), Opt::ProxyHeader(1, None)];
    fails(A::connect(&dir.endpoint("s"), &both).map(drop), ErrorKind::InvalidArgument);
    let unix = A::listen(&dir.endpoint("s"), &[Opt::TrustedProxy(TRUST)]);
    fails(unix.map(drop), ErrorKind::InvalidArgument);
}

#[cfg(feature = "serve")]
fn tell_address<A: Api>() -> (Handler<A>, mpsc::Receiver<(String, u16)>) {
    let (send, receive) = mpsc::channel();
    let handler: Handler<A> = Box::new(move |client| {
        let tuple = client.five_tuple();
        let _ = send.send((tuple.remote.0.to_string(), tuple.remote.1));
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = client.read(&mut buf) {
            let _ = client.write_all(&buf[..n]);
        }
    });
    (handler, receive)
}

/// V1, S1: the handler finds the address of the client. A silent proxy delays no other connection.
#[cfg(feature = "serve")]
fn threads_receive_the_proxy_header_before_the_handler<A: Api>() {
    let server = listen::<A>(Some(Opt::ProxyTimeout(60_000)));
    let (handler, addresses) = tell_address::<A>();
    let service = server.serve(&[Serve::Max(20)], handler).unwrap();
    let silent: Vec<_> = (0..5).map(|_| raw::<A>(&server)).collect();
    for header in [V1, V2] {
        let mut peer = raw::<A>(&server);
        peer.write_all(&[header, b"echo"].concat()).unwrap();
        let seen = addresses.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((&*seen.0, seen.1), CLIENT);
        let mut got = [0; 4];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"echo");
    }
    // V5: a drain ends the connections that have no header yet.
    drop(silent);
    service.drain(10_000).unwrap();
}

/// V4: networks and the limit for each address apply to the client, not to the proxy.
#[cfg(feature = "serve")]
fn threads_limit_the_clients_behind_a_proxy<A: Api>() {
    let server = listen::<A>(None);
    let (handler, addresses) = tell_address::<A>();
    let limits = [Serve::Max(20), Serve::PerAddress(1), Serve::Deny("192.0.2.66")];
    let _service = server.serve(&limits, handler).unwrap();
    let header = |ip: &str| format!("PROXY TCP4 {ip} 198.51.100.1 1 2\r\n").into_bytes();
    let connect = |ip: &str| {
        let mut peer = raw::<A>(&server);
        peer.write_all(&header(ip)).unwrap();
        peer
    };
    let first = connect("192.0.2.1");
    addresses.recv_timeout(Duration::from_secs(60)).unwrap();
    // Another client of the same proxy.
    let _other = connect("192.0.2.2");
    addresses.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(is_reset(&connect("192.0.2.1")));
    assert!(is_reset(&connect("192.0.2.66")));
    eventually("both are counted", || {
        let stats = server.stats();
        (stats.over_address_limit, stats.denied, stats.accepted) == (1, 1, 2)
    });
    // A connection that has ended makes room.
    drop(first);
    eventually("there is room", || {
        let mut again = connect("192.0.2.1");
        again.write_all(b"x").unwrap();
        again.read_exact(&mut [0; 1]).is_ok()
    });
}

/// V4: a wrong, unfinished or late header is counted, and the handler does not run.
#[cfg(feature = "serve")]
fn threads_reject_wrong_and_late_proxy_headers<A: Api>() {
    let server = listen::<A>(Some(Opt::ProxyTimeout(300)));
    let (handler, addresses) = tell_address::<A>();
    let _service = server.serve(&[Serve::Max(20)], handler).unwrap();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"", &V1[..20], &V2[..20]] {
        let mut peer = raw::<A>(&server);
        peer.write_all(bytes).unwrap();
        assert!(is_reset(&peer));
    }
    eventually("all are counted", || server.stats().proxy_rejected == 4);
    let mut peer = raw::<A>(&server);
    peer.write_all(&[V1, b"x"].concat()).unwrap();
    peer.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(addresses.try_iter().count(), 1);
}

/// A callback of a connection: its name, the addresses, and that of the proxy.
#[cfg(feature = "serve")]
type Seen = (&'static str, String, Option<String>);

/// Callbacks that echo, and report the addresses of their connection.
#[cfg(feature = "serve")]
fn reporting<A: Api>() -> (On<A>, mpsc::Receiver<Seen>) {
    let (send, receive) = mpsc::channel();
    let see = move |name: &'static str, conn: &A::Connection| {
        let seen = (name, conn.name(), conn.proxy_address());
        let _ = send.send(seen);
    };
    let (open, close) = (see.clone(), see.clone());
    let on = On {
        open: Some(Box::new(move |conn| open("open", conn))),
        data: Some(Box::new(|conn: &A::Connection, data| drop(conn.send(data)))),
        drain: Some(Box::new(move |conn| see("drain", conn))),
        close: Some(Box::new(move |conn, _| close("close", conn))),
        ..On::default()
    };
    (on, receive)
}

#[cfg(feature = "serve")]
fn next(seen: &mpsc::Receiver<Seen>) -> Seen {
    seen.recv_timeout(Duration::from_secs(60)).unwrap()
}

#[cfg(feature = "serve")]
const CLIENT_TUPLE: &str = "tcp 198.51.100.1:443 -> 192.0.2.1:56324";

#[cfg(feature = "serve")]
fn echoes_back(mut peer: &TcpStream, data: &[u8]) {
    let mut got = vec![0; data.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, data);
}

/// V2, S1: both versions, split at each byte. No byte after the header is lost. All callbacks and the
/// snapshots have the addresses of the client.
#[cfg(feature = "serve")]
fn events_receive_the_proxy_header_before_on_open<A: Api>() {
    for loops in [1, 3] {
        let server = listen::<A>(Some(Opt::ProxyTimeout(60_000)));
        let (on, seen) = reporting::<A>();
        let service = server.serve_events(&[Serve::Threads(loops)], on).unwrap();
        for header in [V1, V2] {
            for at in 0..=header.len() {
                let mut peer = raw::<A>(&server);
                peer.set_nodelay(true).unwrap();
                let proxy = Some(peer.local_addr().unwrap().to_string());
                peer.write_all(&header[..at]).unwrap();
                if at % 8 == 1 && at < header.len() {
                    eventually("the connection is accepted", || service.connections() == 1);
                    assert!(seen.try_recv().is_err());
                }
                peer.write_all(&[&header[at..], b"data"].concat()).unwrap();
                assert_eq!(next(&seen), ("open", CLIENT_TUPLE.into(), proxy.clone()));
                echoes_back(&peer, b"data");
                let mut all = vec![];
                service.for_each(&mut |conn| all.push(conn.name())).unwrap();
                assert_eq!(all, [CLIENT_TUPLE]);
                assert!(service.dump().contains("192.0.2.1:56324"), "{}", service.dump());
                drop(peer);
                assert_eq!(next(&seen), ("close", CLIENT_TUPLE.into(), proxy));
                eventually("the connection has ended", || service.connections() == 0);
            }
        }
        let all = (V1.len() + V2.len() + 2) as u64;
        assert_eq!((server.stats().accepted, service.stats().opened), (all, all));
    }
}

/// V2: the loop receives a header in many parts, next to other connections.
#[cfg(feature = "serve")]
fn events_receive_a_proxy_header_in_single_bytes<A: Api>() {
    let server = listen::<A>(Some(Opt::ProxyTimeout(60_000)));
    let (on, seen) = reporting::<A>();
    let _service = server.serve_events(&[], on).unwrap();
    let mut other = raw::<A>(&server);
    other.write_all(V1).unwrap();
    next(&seen);
    for header in [V1, V2] {
        let mut peer = raw::<A>(&server);
        peer.set_nodelay(true).unwrap();
        for byte in header {
            peer.write_all(&[*byte]).unwrap();
            // The loop has handled the events before this one.
            other.write_all(b"x").unwrap();
            echoes_back(&other, b"x");
        }
        assert_eq!(next(&seen).1, CLIENT_TUPLE);
        peer.write_all(b"data").unwrap();
        echoes_back(&peer, b"data");
    }
}

/// S1: LOCAL and UNKNOWN, as a health check of the proxy sends them.
#[cfg(feature = "serve")]
fn events_keep_the_addresses_of_the_proxy_itself<A: Api>() {
    let server = listen::<A>(None);
    let (on, seen) = reporting::<A>();
    let _service = server.serve_events(&[], on).unwrap();
    for header in [b"PROXY UNKNOWN\r\n".as_slice(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut peer = raw::<A>(&server);
        peer.write_all(&[header, b"x"].concat()).unwrap();
        let text = format!("tcp {} -> {}", server.endpoint(), peer.local_addr().unwrap());
        assert_eq!(next(&seen), ("open", text.clone(), None));
        echoes_back(&peer, b"x");
        drop(peer);
        assert_eq!(next(&seen), ("close", text, None));
    }
}

/// S1, N1: the client of a proxy has another address family than the connection, whose options and
/// statistics stay those of its socket.
#[cfg(feature = "serve")]
fn events_use_the_tcp_socket_of_a_client_of_another_family<A: Api>() {
    let mut unix = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".to_vec();
    unix.extend([0; 216]);
    unix[16..20].copy_from_slice(b"/cli");
    unix[124..128].copy_from_slice(b"/srv");
    let mut unnamed = unix.clone();
    unnamed[16..].fill(0);
    let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n".to_vec();
    let server = listen::<A>(None);
    let (send, checked) = mpsc::channel();
    let on = On::<A> {
        open: Some(Box::new(move |conn| {
            conn.set_sockopt(keepsock::Sockopt::Tos, 16).unwrap();
            assert_eq!(conn.sockopt(keepsock::Sockopt::Tos).unwrap(), 16);
            assert!(conn.keepalive().unwrap().is_some());
            assert!(conn.stats().is_ok());
            send.send((conn.name(), conn.proxy_address())).unwrap();
        })),
        ..On::default()
    };
    let _service = server.serve_events(&[], on).unwrap();
    for (header, text) in [
        (six, "tcp [2001:db8::2]:2 -> [2001:db8::1]:1"),
        (unix, "unix unix:/srv -> unix:/cli"),
        (unnamed, "unix"),
    ] {
        let mut peer = raw::<A>(&server);
        peer.write_all(&header).unwrap();
        let (name, proxy) = checked.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(name.starts_with(text), "{name}");
        assert_eq!(proxy, Some(peer.local_addr().unwrap().to_string()));
    }
}

/// V4: a wrong, unfinished or late header, or none, is counted, and no callback runs.
#[cfg(feature = "serve")]
fn events_reject_wrong_and_late_proxy_headers<A: Api>() {
    for loops in [1, 3] {
        let server = listen::<A>(Some(Opt::ProxyTimeout(1000)));
        let (on, seen) = reporting::<A>();
        let service = server.serve_events(&[Serve::Threads(loops)], on).unwrap();
        let late = [b"".as_slice(), &V1[..20], &V2[..20]];
        let late = late.map(|bytes| {
            let mut peer = raw::<A>(&server);
            peer.write_all(bytes).unwrap();
            peer
        });
        let wrong = [
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            b"PROXY TCP4 192.0.2.1\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01\0",
            &[0x16; 300],
        ];
        for bytes in wrong {
            let mut peer = raw::<A>(&server);
            let _ = peer.write_all(bytes);
            assert!(is_reset(&peer));
        }
        for half in [&V1[..10], &V2[..17], b""] {
            let mut peer = raw::<A>(&server);
            peer.write_all(half).unwrap();
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(is_reset(&peer));
        }
        for peer in &late {
            assert!(is_reset(peer));
        }
        eventually("all are counted", || server.stats().proxy_rejected == 10);
        eventually("none is served", || service.connections() == 0);
        assert_eq!((server.stats().accepted, service.stats().opened), (0, 0));
        assert!(seen.try_recv().is_err());
        let mut peer = raw::<A>(&server);
        peer.write_all(&[V1, b"x"].concat()).unwrap();
        echoes_back(&peer, b"x");
        assert_eq!(next(&seen).1, CLIENT_TUPLE);
    }
}

/// V4: only a trusted proxy chooses an address.
#[cfg(feature = "serve")]
fn events_close_connections_from_untrusted_addresses<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::TrustedProxy("127.0.0.2")]).unwrap();
    let (on, seen) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let mut peer = raw::<A>(&server);
    let _ = peer.write_all(V1);
    let end = peer.read(&mut [0; 8]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    eventually("it is counted", || server.stats().proxy_rejected == 1);
    assert_eq!((server.stats().accepted, service.stats().opened), (0, 0));
    assert!(seen.try_recv().is_err());
}

/// V4: networks and the limit for each address apply to the client, not to the proxy.
#[cfg(feature = "serve")]
fn events_limit_the_clients_behind_a_proxy<A: Api>() {
    for loops in [1, 3] {
        let server = listen::<A>(None);
        let (on, seen) = reporting::<A>();
        let limits = [
            Serve::Threads(loops),
            Serve::PerAddress(1),
            Serve::Allow("192.0.2.0/24"),
            Serve::Deny("192.0.2.66"),
        ];
        let service = server.serve_events(&limits, on).unwrap();
        let connect = |ip: &str| {
            let mut peer = raw::<A>(&server);
            peer.write_all(format!("PROXY TCP4 {ip} 198.51.100.1 1 2\r\n").as_bytes()).unwrap();
            peer
        };
        let first = connect("192.0.2.1");
        assert_eq!(next(&seen).1, "tcp 198.51.100.1:2 -> 192.0.2.1:1");
        let _other = connect("192.0.2.2");
        assert_eq!(next(&seen).1, "tcp 198.51.100.1:2 -> 192.0.2.2:1");
        for ip in ["192.0.2.1", "192.0.2.66", "198.51.100.7"] {
            assert!(is_reset(&connect(ip)), "{ip}");
        }
        // The connection of the proxy itself, whose network is not allowed.
        let mut own = raw::<A>(&server);
        own.write_all(b"PROXY UNKNOWN\r\n").unwrap();
        assert!(is_reset(&own));
        eventually("all are counted", || {
            let stats = server.stats();
            (stats.over_address_limit, stats.denied, stats.accepted) == (1, 3, 2)
        });
        eventually("no other was opened", || service.stats().opened == 2);
        // A connection that has ended makes room.
        drop(first);
        assert_eq!(next(&seen).0, "close");
        eventually("there is room", || {
            let mut again = connect("192.0.2.1");
            again.write_all(b"x").is_ok() && again.read_exact(&mut [0; 1]).is_ok()
        });
    }
}

/// V4: a connection counts for the limit from accept on, so silent connections stay within it.
#[cfg(feature = "serve")]
fn events_count_connections_without_a_proxy_header<A: Api>() {
    for (loops, more) in [(1, None), (3, None), (1, Some(Serve::Reject))] {
        let server = listen::<A>(Some(Opt::ProxyTimeout(600_000)));
        let (on, seen) = reporting::<A>();
        let limits: Vec<_> =
            [Serve::Max(2), Serve::Threads(loops)].into_iter().chain(more).collect();
        let service = server.serve_events(&limits, on).unwrap();
        let silent = [raw::<A>(&server), raw::<A>(&server)];
        eventually("both are accepted", || service.connections() == 2);
        let mut third = raw::<A>(&server);
        if more.is_some() {
            assert!(is_reset(&third));
            eventually("it is counted", || server.stats().rejected == 1);
        } else {
            third.write_all(V1).unwrap();
            assert!(seen.recv_timeout(Duration::from_millis(100)).is_err());
        }
        assert_eq!(service.connections(), 2);
        // A silent connection that ends makes room.
        let [one, two] = silent;
        drop(one);
        if more.is_some() {
            eventually("there is room", || service.connections() == 1);
            third = raw::<A>(&server);
            third.write_all(V1).unwrap();
        }
        assert_eq!(next(&seen).1, CLIENT_TUPLE);
        drop(two);
        eventually("only the third is left", || service.connections() == 1);
        drop(third);
    }
}

/// V5: the end of a service resets connections without a header at once, without a callback, and
/// does not count them.
#[cfg(feature = "serve")]
fn events_end_connections_without_a_proxy_header_at_once<A: Api>() {
    for loops in [1, 3] {
        for (end, paused) in [(0, false), (1, false), (2, false), (3, false), (0, true), (1, true)]
        {
            let server = listen::<A>(Some(Opt::ProxyTimeout(600_000)));
            let (on, seen) = reporting::<A>();
            let service = server.serve_events(&[Serve::Threads(loops)], on).unwrap();
            let peers = [b"".as_slice(), &V1[..20], &V2[..20]].map(|bytes| {
                let mut peer = raw::<A>(&server);
                peer.write_all(bytes).unwrap();
                peer
            });
            eventually("all are accepted", || service.connections() == 3);
            if paused {
                service.pause_accept().unwrap();
            }
            match end {
                0 => assert_eq!(service.drain(600_000).unwrap(), (0, 0)),
                1 => assert_eq!(service.stop_and_wait(60_000).unwrap(), 0),
                2 => {
                    server.close();
                    service.wait(60_000).unwrap();
                }
                _ => drop(service),
            }
            for peer in &peers {
                assert!(is_reset(peer), "{end}");
            }
            assert_eq!(server.stats().proxy_rejected, 3);
            assert!(seen.try_recv().is_err());
        }
    }
}

/// V1, V2: during a pause no connection is opened and no header is late.
#[cfg(feature = "serve")]
fn events_hold_proxy_headers_while_accepting_is_paused<A: Api>() {
    for loops in [1, 3] {
        let server = listen::<A>(Some(Opt::ProxyTimeout(1500)));
        let (on, seen) = reporting::<A>();
        let service = server.serve_events(&[Serve::Threads(loops)], on).unwrap();
        let mut peers = [raw::<A>(&server), raw::<A>(&server)];
        peers[1].write_all(&V1[..10]).unwrap();
        eventually("both are accepted", || service.connections() == 2);
        service.pause_accept().unwrap();
        peers[0].write_all(&[V2, b"data"].concat()).unwrap();
        assert!(seen.recv_timeout(Duration::from_millis(2000)).is_err());
        assert_eq!((service.connections(), server.stats().proxy_rejected), (2, 0));
        service.resume_accept().unwrap();
        assert_eq!(next(&seen).1, CLIENT_TUPLE);
        echoes_back(&peers[0], b"data");
        assert!(is_reset(&peers[1]));
    }
}

/// L2: a Unix peer has no address, so it cannot be a trusted proxy.
#[cfg(feature = "serve")]
fn events_expect_no_proxy_header_on_a_unix_socket<A: Api>() {
    let dir = TempDir::new();
    let unix = dir.endpoint("s");
    let server = A::listen_all(&["127.0.0.1:0", &unix], &[Opt::TrustedProxy(TRUST)]).unwrap();
    let (on, seen) = reporting::<A>();
    let _service = server.serve_events(&[], on).unwrap();
    let client = A::connect(&unix, &[]).unwrap();
    client.write_all(b"line\n").unwrap();
    assert_eq!(client.read_line(10).unwrap(), "line");
    assert_eq!(next(&seen).2, None);
    let mut peer = raw::<A>(&server);
    peer.write_all(V1).unwrap();
    assert_eq!(next(&seen).1, CLIENT_TUPLE);
}

/// S1: a connection that the program has accepted and adds to a service keeps both addresses.
#[cfg(feature = "serve")]
fn service_add_keeps_the_addresses_of_a_client_behind_a_proxy<A: Api>() {
    let server = listen::<A>(None);
    let (on, seen) = reporting::<A>();
    let other = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = other.serve_events(&[], on).unwrap();
    for header in [V1, V2] {
        let (client, mut peer) = accepted::<A>(&server, header);
        client.read_proxy_header().unwrap();
        assert!(service.add(client, 1).is_ok());
        let proxy = Some(peer.local_addr().unwrap().to_string());
        assert_eq!(next(&seen), ("open", CLIENT_TUPLE.into(), proxy.clone()));
        peer.write_all(b"data").unwrap();
        echoes_back(&peer, b"data");
        drop(peer);
        assert_eq!(next(&seen), ("close", CLIENT_TUPLE.into(), proxy));
    }
}

/// S1: HAProxy with `send-proxy` and `send-proxy-v2` in front of a service with event loops.
#[cfg(feature = "serve")]
fn haproxy_in_front_of_events_sends_the_addresses_of_its_client<A: Api>() {
    let dir = TempDir::new();
    for option in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"] {
        let (server, port) = (listen::<A>(Some(Opt::ProxyTimeout(60_000))), free_port());
        let (on, seen) = reporting::<A>();
        let _service = server.serve_events(&[], on).unwrap();
        let sections = format!(
            "listen front\n  bind 127.0.0.1:{port}\n  server keepsock {} {option}\n",
            server.endpoint()
        );
        let Some(_haproxy) = haproxy(&dir, &sections, &[port]) else {
            return;
        };
        let mut peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        peer.write_all(b"line\n").unwrap();
        echoes_back(&peer, b"line\n");
        let own = peer.local_addr().unwrap();
        // The connections of the test whether HAProxy listens come first.
        let text = format!("tcp 127.0.0.1:{port} -> {own}");
        let proxy = loop {
            match next(&seen) {
                ("open", tuple, proxy) if tuple == text => break proxy,
                _ => {}
            }
        };
        assert!(proxy.is_some_and(|proxy| proxy != own.to_string()), "{option}");
    }
}

/// Starts HAProxy with a configuration, and waits until its ports listen. `None`: it is not
/// installed, which is a failure where all tests must run.
fn haproxy(dir: &TempDir, sections: &str, ports: &[u16]) -> Option<Program> {
    let path = dir.path("haproxy.cfg");
    let start = "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 20s\n  \
                 timeout client 60s\n  timeout server 60s\n";
    std::fs::write(&path, format!("{start}{sections}")).unwrap();
    // A user's path may lack the folder of system programs.
    let system = std::path::Path::new("/usr/sbin/haproxy");
    let name = if system.exists() { "/usr/sbin/haproxy" } else { "haproxy" };
    match Program::spawn(Command::new(name).arg("-db").arg("-f").arg(&path)) {
        Ok(program) => {
            eventually("HAProxy listens", || {
                ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
            });
            Some(program)
        }
        Err(e) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped: haproxy: {e}");
            println!("skipped: haproxy: {e}");
            None
        }
    }
}

/// A free port on loopback.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// S1: HAProxy with `send-proxy` and `send-proxy-v2` in front of a server.
fn haproxy_in_front_sends_the_addresses_of_its_client<A: Api>() {
    let dir = TempDir::new();
    for option in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"] {
        let (server, port) = (listen::<A>(Some(Opt::ProxyTimeout(60_000))), free_port());
        let sections = format!(
            "listen front\n  bind 127.0.0.1:{port}\n  server keepsock {} {option}\n",
            server.endpoint()
        );
        let Some(_haproxy) = haproxy(&dir, &sections, &[port]) else {
            return;
        };
        let mut peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        peer.write_all(b"line\n").unwrap();
        let own = peer.local_addr().unwrap();
        // The connections of the test whether HAProxy listens come first.
        let client = loop {
            let client = server.accept().unwrap();
            match client.read_proxy_header() {
                Ok(()) if client.five_tuple().remote.1 == own.port() => break client,
                _ => {}
            }
        };
        let tuple = client.five_tuple();
        assert_eq!(tuple.remote, ("127.0.0.1".into(), own.port()), "{option}");
        assert_eq!(tuple.local, ("127.0.0.1".into(), port), "{option}");
        assert_ne!(client.proxy_address(), Some(own.to_string()));
        assert_eq!(client.read_line(10).unwrap(), "line");
        client.write_all(b"back\n").unwrap();
        let mut got = [0; 5];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"back\n");
    }
}

/// C5: HAProxy with `accept-proxy` believes the header of a connect. It closes a connection without
/// one.
fn haproxy_behind_accepts_the_header_of_a_connect<A: Api>() {
    let dir = TempDir::new();
    let port = free_port();
    // It answers with the address that it has found in the header.
    let sections = format!(
        "frontend behind\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  \
         http-request return status 200 content-type text/plain lf-string \
         \"%[src]:%[src_port] %[dst]:%[dst_port]\"\n"
    );
    let Some(_haproxy) = haproxy(&dir, &sections, &[port]) else {
        return;
    };
    let endpoint = format!("127.0.0.1:{port}");
    let request = b"GET / HTTP/1.0\r\n\r\n";
    let answer = |options: &[Opt<'_, A>]| {
        let client = A::connect(&endpoint, options).unwrap();
        client.write_all(request).unwrap();
        let (mut all, mut buf) = (Vec::new(), [0; 1024]);
        while let Ok(n @ 1..) = client.read(&mut buf) {
            all.extend_from_slice(&buf[..n]);
        }
        (String::from_utf8_lossy(&all).into_owned(), client.five_tuple().local)
    };
    for version in [1, 2] {
        let (text, _) = answer(&[Opt::ProxyHeader(version, client_addresses())]);
        assert!(text.contains("192.0.2.1:56324 198.51.100.1:443"), "{text}");
        let (text, own) = answer(&[Opt::ProxyHeader(version, None)]);
        assert!(text.contains(&format!("{}:{} ", own.0, own.1)), "{text}");
    }
    let (text, _) = answer(&[]);
    assert!(!text.contains("200 OK"), "{text}");
}
