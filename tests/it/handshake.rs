//! N2: the SYN that opened a connection. N3: its whole handshake. S5: the names of TCP states.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support;
use crate::support::handshake::{Handshakes, Seg, Shake, may_capture};
use crate::support::{Api, Client, Opt, Server, Transport, fails, pair, promptly, timed};
use keepsock::ErrorKind;

both_apis![
    saved_syn_of_accepted_connection_is_decoded,
    saved_syn_after_first_read_is_kept,
    saved_syn_in_several_threads_reaches_each,
    saved_syn_that_is_missing_names_the_cause,
    saved_syn_of_adopted_listener_follows_the_option,
    save_syn_on_other_sockets_is_rejected,
    handshake_from_either_side_is_the_same,
    handshake_of_foreign_connection_is_found,
    handshake_waits_in_several_threads_succeed,
    handshake_that_is_incomplete_times_out,
    handshake_of_other_endpoint_is_rejected,
];

/// The options of a listener. One thread closes both sides, so neither waits for the other.
fn saving<A: Api>() -> [Opt<'static, A>; 2] {
    [Opt::SaveSyn(true), Opt::CloseTimeout(0)]
}

/// The options of a connection.
fn plain<A: Api>() -> [Opt<'static, A>; 1] {
    [Opt::CloseTimeout(0)]
}

/// The endpoints of connections, and the family of their packets.
fn places() -> [(&'static str, &'static str, u8); 5] {
    [
        ("127.0.0.1:0", "127.0.0.1", 4),
        ("[::1]:0", "[::1]", 6),
        // Dual-stack: an IPv6 socket, which accepts IPv4 connections.
        ("*:0", "127.0.0.1", 4),
        ("*:0", "[::1]", 6),
        ("[::]:0", "[::1]", 6),
    ]
}

/// N2: addresses, numbers and options of the saved SYN, for each family.
fn saved_syn_of_accepted_connection_is_decoded<A: Handshakes>() {
    for (listen, host, version) in places() {
        let server = A::listen(listen, &saving()).unwrap();
        let client = A::connect(&format!("{host}:{}", server.port()), &plain()).unwrap();
        let accepted = server.accept().unwrap();
        let syn = A::syn(&accepted).unwrap();
        let tuple = accepted.five_tuple();
        assert_eq!((&syn.source, &syn.destination), (&tuple.remote, &tuple.local), "{listen}");
        assert_eq!((syn.ip_version, syn.flags, syn.ack), (version, 2, 0));
        assert_eq!((syn.payload_len, syn.captured_at_ns), (0, -1));
        assert!(syn.ttl > 0 && syn.window > 0, "{syn:?}");
        assert!(syn.mss.unwrap() > 500, "{syn:?}");
        assert!(syn.options.starts_with(&[2, 4]), "Linux says the MSS first: {syn:?}");
        assert!(syn.line.contains(&format!("Flags [S], seq {}, win {}", syn.seq, syn.window)));
        drop(client);
    }
}

/// N2: the kernel returns the SYN once. The connection returns it each time, and after close.
fn saved_syn_after_first_read_is_kept<A: Handshakes>() {
    let server = A::listen("127.0.0.1:0", &saving()).unwrap();
    let _client = A::connect(&server.endpoint(), &plain()).unwrap();
    let accepted = server.accept().unwrap();
    let first = A::syn(&accepted).unwrap();
    // The control case: the kernel has no SYN left.
    assert_eq!(support::system::saved_syn(accepted.fd().unwrap()), Vec::<u8>::new());
    assert_eq!(A::syn(&accepted).unwrap(), first);
    accepted.close().unwrap();
    assert_eq!(A::syn(&accepted).unwrap(), first);

    // A connection whose SYN was not read in time.
    let _client = A::connect(&server.endpoint(), &plain()).unwrap();
    let accepted = server.accept().unwrap();
    accepted.close().unwrap();
    fails(A::syn(&accepted), ErrorKind::Closed);
}

/// N2: concurrent threads all get the SYN, although the kernel returns it to one of them.
fn saved_syn_in_several_threads_reaches_each<A: Handshakes>() {
    let server = A::listen("127.0.0.1:0", &saving()).unwrap();
    for _ in 0..50 {
        let _client = A::connect(&server.endpoint(), &plain()).unwrap();
        let accepted = server.accept().unwrap();
        let start = std::sync::Barrier::new(3);
        let found: Vec<Seg> = std::thread::scope(|scope| {
            let ask = || {
                start.wait();
                A::syn(&accepted).unwrap()
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found.iter().all(|syn| *syn == found[0]));
    }
}

/// N2: the error says why a connection has no saved SYN: not saved, sent by this side, or not TCP.
fn saved_syn_that_is_missing_names_the_cause<A: Handshakes>() {
    let p = pair::<A>(Transport::Tcp);
    let failure = fails(A::syn(&p.accepted), ErrorKind::NotFound);
    assert!(
        failure.message.contains("not saved: the listener does not have save_syn"),
        "{failure:?}"
    );
    assert!(failure.message.contains("SYN cookie"), "{failure:?}");
    assert_eq!(failure.endpoint, p.accepted.name());
    fails(A::syn(&p.accepted), ErrorKind::NotFound);
    let failure = fails(A::syn(&p.client), ErrorKind::WrongState);
    assert!(failure.message.contains("this side sent the SYN"), "{failure:?}");
    let p = pair::<A>(Transport::Unix);
    for side in [&p.client, &p.accepted] {
        let failure = fails(A::syn(side), ErrorKind::Unsupported);
        assert!(failure.message.contains("a Unix socket has no SYN"), "{failure:?}");
    }
}

/// N2: save_syn applies to adopted listeners and adopted accepted connections.
fn saved_syn_of_adopted_listener_follows_the_option<A: Handshakes>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A connection from before the option has no SYN.
    let _early = TcpStream::connect(address).unwrap();
    let server = A::adopt_server(listener.try_clone().unwrap().into(), &saving()).unwrap();
    fails(A::syn(&server.accept().unwrap()), ErrorKind::NotFound);
    let client = TcpStream::connect(address).unwrap();
    let syn = A::syn(&server.accept().unwrap()).unwrap();
    assert_eq!(syn.source.1, client.local_addr().unwrap().port());

    // The program accepted the connection itself, and adopts it here.
    let client = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let accepted = A::adopt_client(accepted.into(), &plain()).unwrap();
    assert_eq!(A::syn(&accepted).unwrap().source.1, client.local_addr().unwrap().port());
    // The program made this connection itself: the kernel has saved no SYN.
    let made = A::adopt_client(client.into(), &plain()).unwrap();
    fails(A::syn(&made), ErrorKind::NotFound);

    // An adoption with the default disables the option.
    let server = A::adopt_server(listener.try_clone().unwrap().into(), &[]).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    fails(A::syn(&server.accept().unwrap()), ErrorKind::NotFound);
}

/// N2: save_syn on another kind of socket is an error, and changes nothing.
fn save_syn_on_other_sockets_is_rejected<A: Handshakes>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let failure = fails(A::connect(&server.endpoint(), &saving()), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("save_syn applies to listening"), "{failure:?}");
    let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let (_, failure) = A::adopt_client(stream.into(), &saving()).err().unwrap();
    assert!(failure.is(ErrorKind::InvalidArgument), "{failure:?}");
    let (unix, _dir) = support::somewhere(Transport::Unix);
    let failure = fails(A::listen(&unix, &saving()), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("save_syn does not apply to Unix sockets"), "{failure:?}");
    fails(A::connect(&unix, &saving()), ErrorKind::InvalidArgument);
    let path = unix.strip_prefix("unix:").unwrap();
    let listener = crate::support::os::unix::net::UnixListener::bind(path).unwrap();
    let (_, failure) = A::adopt_server(listener.into(), &saving()).err().unwrap();
    assert!(failure.is(ErrorKind::InvalidArgument), "{failure:?}");
    // Disabling it is accepted everywhere.
    let _ = A::connect(&server.endpoint(), &[Opt::SaveSyn(false)]).unwrap();
}

/// A capture of a port, if this process may make one.
pub(super) fn capture<A: Handshakes>(port: u16) -> Option<A::Capture> {
    match A::capture(port) {
        Err(failure) if failure.is(ErrorKind::PermissionDenied) => {
            may_capture(Some(&failure));
            None
        }
        capture => Some(capture.unwrap()),
    }
}

/// Checks that hold for each handshake.
fn assert_sound(h: &Shake) {
    let [syn, syn_ack, ack] = &h.packets;
    assert_eq!((syn.flags, syn_ack.flags, ack.flags & 0x17), (0x02, 0x12, 0x10));
    assert_eq!(syn_ack.ack, syn.seq.wrapping_add(1));
    assert_eq!((ack.seq, ack.ack), (syn_ack.ack, syn_ack.seq.wrapping_add(1)));
    assert_eq!((&syn.source, &syn.destination), (&ack.source, &ack.destination));
    assert_eq!((&syn.source, &syn.destination), (&syn_ack.destination, &syn_ack.source));
    // The first packets of a capture have no time.
    let times = h.packets.iter().map(|p| p.captured_at_ns);
    let times: Vec<_> = times.filter(|t| *t != -1).collect();
    let sound = times.iter().all(|t| *t > 1_500_000_000_000_000_000) && times.is_sorted();
    assert!(sound, "{h:?}");
    let states = [
        ("SYN-SENT", "SYN-RECEIVED"),
        ("ESTABLISHED", "SYN-RECEIVED"),
        ("ESTABLISHED", "ESTABLISHED"),
    ];
    let found: Vec<_> = h.states.iter().map(|(c, s)| (c.as_str(), s.as_str())).collect();
    assert_eq!(found, states);
    for number in [syn.seq, syn_ack.seq, syn_ack.ack, ack.ack] {
        assert!(h.diagram.contains(&format!("({number})")), "{}", h.diagram);
    }
    assert!(h.diagram.lines().all(|line| line.len() <= 80), "{}", h.diagram);
}

/// N3, S5: both sides see the same three packets, also after the close. The SYN equals the one of
/// N2.
fn handshake_from_either_side_is_the_same<A: Handshakes>() {
    for (listen, host, version) in places() {
        let server = A::listen(listen, &saving()).unwrap();
        let Some(capture) = capture::<A>(server.port()) else {
            return;
        };
        let client = A::connect(&format!("{host}:{}", server.port()), &plain()).unwrap();
        let one = A::handshake(&capture, &client, 5000).unwrap();
        assert_sound(&one);
        assert_eq!((one.packets[0].ip_version, one.retransmissions), (version, (0, 0)));
        let accepted = server.accept().unwrap();
        let saved = A::syn(&accepted).unwrap();
        assert_eq!(saved, Seg { captured_at_ns: -1, ..one.packets[0].clone() });
        client.write_all(b"data\n").unwrap();
        assert_eq!(accepted.read_line(10).unwrap(), "data");
        client.close().unwrap();
        accepted.close().unwrap();
        for side in [&client, &accepted] {
            assert_eq!(A::handshake(&capture, side, 5000).unwrap(), one);
        }
    }
}

/// N3: connections outside this library are found by their addresses, also with a capture of the
/// client's port.
fn handshake_of_foreign_connection_is_found<A: Handshakes>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let here = socket.local_addr().unwrap().as_socket().unwrap();
    let (Some(theirs), Some(ours)) = (capture::<A>(there.port()), capture::<A>(here.port())) else {
        return;
    };
    socket.connect(&there.into()).unwrap();
    let (here, there) = (here.to_string(), there.to_string());
    let one = A::handshake_between(&theirs, &here, &there, 5000).unwrap();
    assert_sound(&one);
    let other = A::handshake_between(&ours, &there, &here, 5000).unwrap();
    assert_eq!(one.diagram, other.diagram);
}

/// N3: threads wait for different connections of one port, some of which do not exist yet.
fn handshake_waits_in_several_threads_succeed<A: Handshakes>() {
    const MANY: usize = 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    let Some(capture) = capture::<A>(there.port()) else {
        return;
    };
    let sockets: Vec<_> = (0..MANY)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            socket
        })
        .collect();
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        let (capture, there_text) = (&capture, there.to_string());
        let waiting: Vec<_> = sockets
            .iter()
            .map(|socket| {
                let here = socket.local_addr().unwrap().as_socket().unwrap().to_string();
                let there = there_text.clone();
                scope.spawn(move || A::handshake_between(capture, &here, &there, 60_000).unwrap())
            })
            .collect();
        // One after the other, in a different order.
        for i in 0..MANY {
            sockets[(i * 7) % MANY].connect(&there.into()).unwrap();
        }
        for (thread, socket) in waiting.into_iter().zip(&sockets) {
            let found = thread.join().unwrap();
            assert_sound(&found);
            let here = socket.local_addr().unwrap().as_socket().unwrap().port();
            assert_eq!(found.packets[0].source.1, here);
        }
    });
    assert!(start.elapsed() < Duration::from_secs(40), "they waited for their deadlines");
}

/// N2, N3: Rust and C return the same values for one connection.
#[cfg(feature = "capi")]
#[test]
fn handshake_in_both_apis_is_the_same() {
    use crate::support::{CApi, RustApi};
    if support::portable::skips(module_path!(), "handshake_in_both_apis_is_the_same") {
        return;
    }
    let _limit = support::Limit::new("handshake_in_both_apis_is_the_same");
    for (endpoint, _, _) in places().iter().take(2) {
        let listener = TcpListener::bind(endpoint).unwrap();
        let there = listener.local_addr().unwrap();
        let Some(c) = capture::<CApi>(there.port()) else {
            return;
        };
        let rust = capture::<RustApi>(there.port()).unwrap();
        let stream = TcpStream::connect(there).unwrap();
        let (here, there) = (stream.local_addr().unwrap().to_string(), there.to_string());
        let mut seen = [
            RustApi::handshake_between(&rust, &here, &there, 5000).unwrap(),
            CApi::handshake_between(&c, &here, &there, 5000).unwrap(),
        ];
        for shake in &mut seen {
            assert_sound(shake);
            // The first packets of a capture may have no time.
            shake.packets.iter_mut().for_each(|p| p.captured_at_ns = -1);
        }
        assert_eq!(seen[0], seen[1]);
    }
}

/// N3: the timeout applies, and the error names the packets that were seen.
fn handshake_that_is_incomplete_times_out<A: Handshakes>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let earlier = A::connect(&server.endpoint(), &plain()).unwrap();
    let Some(capture) = capture::<A>(server.port()) else {
        return;
    };
    let failure = fails(A::handshake(&capture, &earlier, 0), ErrorKind::TimedOut);
    assert!(failure.message.contains("no packet of the handshake was captured"), "{failure:?}");
    assert_eq!((&*failure.operation, failure.endpoint), ("handshake", earlier.name()));
    let time = || timed(|| fails(A::handshake(&capture, &earlier, 100), ErrorKind::TimedOut)).1;
    assert!(time() >= Duration::from_millis(100));
    promptly(Duration::from_millis(150), time);
    // Further packets do not extend the timeout.
    let _first = server.accept().unwrap();
    let busy = A::connect(&server.endpoint(), &plain()).unwrap();
    let accepted = server.accept().unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                busy.write_all(b"x").unwrap();
                accepted.read_exact(&mut [0]).unwrap();
            }
        });
        let _over = support::OnDrop(|| over.store(true, std::sync::atomic::Ordering::Relaxed));
        promptly(Duration::from_millis(150), time);
    });
    // No process listens: the SYN and its reset were seen.
    let refused = support::refused_address();
    let capture = A::capture(refused.port()).unwrap();
    let failure = A::connect(&refused.to_string(), &[]).err().unwrap();
    assert!(failure.is(ErrorKind::Refused));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let here = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    assert!(socket.connect(&refused.into()).is_err());
    let there = refused.to_string();
    let failure = fails(A::handshake_between(&capture, &here, &there, 100), ErrorKind::TimedOut);
    assert!(failure.message.contains("captured: SYN, RST"), "{failure:?}");
}

/// N3: an endpoint without a handshake in this capture is rejected.
fn handshake_of_other_endpoint_is_rejected<A: Handshakes>() {
    fails(A::capture(0), ErrorKind::InvalidArgument);
    let p = pair::<A>(Transport::Unix);
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let Some(capture) = capture::<A>(server.port()) else {
        return;
    };
    fails(A::handshake(&capture, &p.client, 0), ErrorKind::Unsupported);
    let p = pair::<A>(Transport::Tcp);
    let failure = fails(A::handshake(&capture, &p.client, 0), ErrorKind::InvalidArgument);
    assert!(failure.message.contains(&server.port().to_string()), "{failure:?}");
    let (four, six) = (format!("127.0.0.1:{}", server.port()), "[::1]:1");
    let failure = fails(A::handshake_between(&capture, &four, six, 0), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("different families"), "{failure:?}");
}
