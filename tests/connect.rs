//! C1: one deadline. C3: every attempt is listed. C4: what may go wrong on the way.
//! C5: from where, to where.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::{
    Api, Client, FullQueue, INFINITE, Opt, Server, TempDir, Transport, fails, pair, promptly,
    refused_address, system, timed, while_waiting,
};
use keepsock::{ErrorKind, Family};

both_apis![
    a_refused_connection,
    every_attempt_is_listed,
    the_next_address_has_its_turn,
    the_deadline_holds,
    the_deadline_holds_for_unix_too,
    a_full_queue_that_empties,
    the_queue_is_as_long_as_asked,
    nobody_connects_to_himself,
    no_descriptor_is_left_behind,
    from_an_address_and_a_port,
    from_an_address_of_another_family,
    through_an_interface,
    by_family,
    what_only_ip_has_is_refused_for_unix,
    addresses_instead_of_a_name,
    a_fixed_local_port_races_too,
    the_connected_socket_is_an_ordinary_one,
    multipath_tcp,
];

/// C4: refused, and by whom.
fn a_refused_connection<A: Api>() {
    let address = refused_address().to_string();
    let failure = fails(A::connect(&address, &[]), ErrorKind::Refused);
    assert_eq!(failure.os_error, libc::ECONNREFUSED);
    assert_eq!(failure.operation, "connect");
    assert_eq!(failure.endpoint, address);
    let start = format!("connect to {address}: connection refused after ");
    assert!(failure.message.starts_with(&start), "{failure:?}");
    // A Unix path where nobody answers, or nothing is.
    let dir = TempDir::new();
    drop(std::os::unix::net::UnixListener::bind(dir.path("stale")).unwrap());
    fails(A::connect(&dir.endpoint("stale"), &[]), ErrorKind::Refused);
    fails(A::connect(&dir.endpoint("none"), &[]), ErrorKind::NotFound);
    std::fs::write(dir.path("file"), "").unwrap();
    fails(A::connect(&dir.endpoint("file"), &[]), ErrorKind::Refused);
}

/// C3: address, stage, reason and time of each attempt.
fn every_attempt_is_listed<A: Api>() {
    let (first, second) = (refused_address(), refused_address());
    let options = [
        Opt::Address(first),
        Opt::Address(second),
        // A family that the local address cannot reach.
        Opt::Address("[::1]:1".parse().unwrap()),
        Opt::Local("127.0.0.1:0"),
    ];
    let failure = fails(A::connect("service.invalid:1", &options), ErrorKind::Refused);
    let seen: Vec<_> = failure
        .attempts
        .iter()
        .map(|a| (a.address.as_str(), a.stage.as_str(), a.status, a.os_error))
        .collect();
    let refused = ErrorKind::Refused.code();
    let unavailable = ErrorKind::AddressNotAvailable.code();
    assert_eq!(
        seen,
        [
            (first.to_string().as_str(), "connect", refused, libc::ECONNREFUSED),
            (second.to_string().as_str(), "connect", refused, libc::ECONNREFUSED),
            ("[::1]:1", "bind", unavailable, 0),
        ]
    );
    assert!(failure.attempts.iter().all(|a| (0..5_000_000).contains(&a.elapsed_us)));
    for part in [
        "connect to service.invalid:1: connection refused after ".to_owned(),
        format!("tried {first}: connection refused after "),
        format!("; {second}: connection refused after "),
        "; [::1]:1: bind: address not available after ".to_owned(),
    ] {
        assert!(failure.message.contains(&part), "{failure:?}: {part}");
    }
}

/// C4: a refused first address does not end the connect.
fn the_next_address_has_its_turn<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let good: SocketAddr = server.endpoint().parse().unwrap();
    let options =
        [Opt::Address(refused_address()), Opt::Address(refused_address()), Opt::Address(good)];
    let client = A::connect("service.invalid:1", &options).unwrap();
    assert_eq!(client.five_tuple().remote.1, good.port());
    server.accept().unwrap();
}

/// C1, C4: back by the deadline from an address that does not answer; the error says
/// that it timed out, and never EINPROGRESS.
fn the_deadline_holds<A: Api>() {
    let queue = FullQueue::new();
    promptly(Duration::from_millis(250), || {
        let (outcome, took) = timed(|| A::connect(&queue.endpoint(), &[Opt::ConnectTimeout(200)]));
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        assert_eq!(failure.os_error, 0);
        assert_eq!(failure.attempts.len(), 1);
        assert_eq!(failure.attempts[0].status, ErrorKind::TimedOut.code());
        assert!(failure.attempts[0].elapsed_us >= 200_000);
        let start = format!("connect to {}: timed out after 2", queue.endpoint());
        assert!(failure.message.starts_with(&start), "{failure:?}");
        took
    });
    fails(A::connect(&queue.endpoint(), &[Opt::ConnectTimeout(0)]), ErrorKind::InvalidArgument);
}

/// C1: a Unix listener with a full queue gives nothing to wait for; the deadline holds
/// all the same.
fn the_deadline_holds_for_unix_too<A: Api>() {
    let dir = TempDir::new();
    let _server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let connect = || A::connect(&dir.endpoint("s"), &[Opt::ConnectTimeout(200)]);
    let _waiting: Vec<_> = std::iter::repeat_with(connect).map_while(Result::ok).collect();
    promptly(Duration::from_millis(250), || {
        let (outcome, took) = timed(connect);
        fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        took
    });
}

/// C4: the queue empties, and the connect that waited for it succeeds.
fn a_full_queue_that_empties<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let connect = |ms| A::connect(&dir.endpoint("s"), &[Opt::ConnectTimeout(ms)]);
    let _waiting: Vec<_> = std::iter::repeat_with(|| connect(50)).map_while(Result::ok).collect();
    let (outcome, _) = while_waiting(|| connect(20_000), || drop(server.accept().unwrap()));
    outcome.unwrap();
}

/// L1: the backlog that was asked for is the one in force: n + 1 on Linux.
fn the_queue_is_as_long_as_asked<A: Api>() {
    let dir = TempDir::new();
    for backlog in [1, 4] {
        let server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(backlog)]).unwrap();
        let connect = || A::connect(&dir.endpoint("s"), &[Opt::ConnectTimeout(30)]);
        let waiting: Vec<_> = std::iter::repeat_with(connect).map_while(Result::ok).collect();
        assert_eq!(waiting.len(), backlog as usize + 1);
        server.close();
    }
    fails(A::listen("127.0.0.1:0", &[Opt::Backlog(0)]), ErrorKind::InvalidArgument);
}

/// C4: a connection from a port to itself is a refusal: nobody listens there.
fn nobody_connects_to_himself<A: Api>() {
    // An address of this test's own, so that no other takes the port meanwhile.
    let unused =
        TcpListener::bind((A::own_address(2), 0)).unwrap().local_addr().unwrap().to_string();
    let failure = fails(A::connect(&unused, &[Opt::Local(&unused)]), ErrorKind::Refused);
    assert_eq!(failure.attempts.len(), 1);
}

/// C2, C4: whatever fails, no descriptor is left behind.
fn no_descriptor_is_left_behind<A: Api>() {
    let queue = FullQueue::new();
    let refused = refused_address();
    let own = A::own_address(3);
    let any_port = format!("{own}:0");
    let local = TcpListener::bind(&any_port).unwrap().local_addr().unwrap().to_string();
    let open = || system::sockets_bound_to(own.parse().unwrap());
    assert_eq!(open(), 0);
    let options = [Opt::ConnectTimeout(20), Opt::Local(&any_port), Opt::Address(refused)];
    fails(A::connect("service.invalid:1", &options), ErrorKind::Refused);
    let options = [Opt::ConnectTimeout(20), Opt::Local(&any_port)];
    fails(A::connect(&queue.endpoint(), &options), ErrorKind::TimedOut);
    fails(A::connect(&local, &[Opt::Local(&local)]), ErrorKind::Refused);
    let token = A::token();
    token_fires(&token);
    let options = [Opt::Cancel(&token), Opt::Local(&any_port)];
    fails(A::connect(&queue.endpoint(), &options), ErrorKind::Cancelled);
    assert_eq!(open(), 0);
}

fn token_fires(token: &impl common::Token) {
    token.fire();
}

/// C5: the local address and port.
fn from_an_address_and_a_port<A: Api>() {
    let server = A::listen("0.0.0.0:0", &[]).unwrap();
    let to = format!("127.0.0.1:{}", server.port());
    let own = A::own_address(4);
    let client = A::connect(&to, &[Opt::Local(&format!("{own}:0"))]).unwrap();
    let accepted = server.accept().unwrap();
    assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
    assert_eq!(client.five_tuple().local.0, own);
    let unused = TcpListener::bind((A::own_address(5), 0)).unwrap().local_addr().unwrap();
    let local = unused.to_string();
    let client = A::connect(&to, &[Opt::Local(&local)]).unwrap();
    assert_eq!(client.five_tuple().local, (unused.ip().to_string(), unused.port()));
    // The port is taken now; an address is not ours; each names its stage.
    let failure = fails(A::connect(&to, &[Opt::Local(&local)]), ErrorKind::AddressInUse);
    assert_eq!(failure.attempts[0].stage, "bind");
    assert!(failure.message.contains("bind: address in use"), "{failure:?}");
    let foreign = [Opt::Local("192.0.2.1:0")];
    fails(A::connect(&to, &foreign), ErrorKind::AddressNotAvailable);
}

/// C5: attempts to addresses of another family are not made.
fn from_an_address_of_another_family<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let failure = fails(
        A::connect(&server.endpoint(), &[Opt::Local("[::1]:0")]),
        ErrorKind::AddressNotAvailable,
    );
    assert_eq!(failure.attempts[0].stage, "bind");
    server.set_nonblocking(true).unwrap();
    fails(server.accept(), ErrorKind::WouldBlock);
}

/// C5: the interface.
fn through_an_interface<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::Interface("lo")]).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::Interface("lo")]).unwrap();
    assert_eq!(system::interface(client.fd().unwrap()), "lo");
    assert_eq!(system::interface(server.fd().unwrap()), "lo");
    let none = [Opt::Interface("nosuchiface0")];
    let failure = A::connect(&server.endpoint(), &none).err().unwrap();
    assert_eq!(failure.attempts[0].stage, "options");
    assert_eq!(failure.os_error, libc::ENODEV);
    for name in ["", "sixteen-letters-"] {
        let options = [Opt::Interface(name)];
        fails(A::connect(&server.endpoint(), &options), ErrorKind::InvalidArgument);
        fails(A::listen("127.0.0.1:0", &options), ErrorKind::InvalidArgument);
    }
}

/// C5: the family.
fn by_family<A: Api>() {
    let server = A::listen("*:0", &[]).unwrap();
    let port = server.port();
    let four = A::connect(&format!("localhost:{port}"), &[Opt::Family(Family::Ipv4)]).unwrap();
    assert_eq!(four.five_tuple().remote.0, "127.0.0.1");
    let six = A::connect(&format!("[::1]:{port}"), &[Opt::Family(Family::Ipv6)]).unwrap();
    assert_eq!(six.five_tuple().remote.0, "::1");
    let wrong = [Opt::Family(Family::Ipv6)];
    fails(A::connect(&format!("127.0.0.1:{port}"), &wrong), ErrorKind::NotFound);
    fails(A::listen("127.0.0.1:0", &wrong), ErrorKind::NotFound);
    let only = A::listen("*:0", &[Opt::Family(Family::Ipv4)]).unwrap();
    A::connect(&format!("127.0.0.1:{}", only.port()), &[]).unwrap();
    fails(A::connect(&format!("[::1]:{}", only.port()), &[]), ErrorKind::Refused);
}

/// C5: nothing is silently ignored: a Unix socket has no family, local address,
/// interface or other addresses, and a listener no local address of its own.
fn what_only_ip_has_is_refused_for_unix<A: Api>() {
    let dir = TempDir::new();
    let endpoint = dir.endpoint("s");
    let _server = A::listen(&endpoint, &[]).unwrap();
    let address = "127.0.0.1:1".parse().unwrap();
    for option in [
        Opt::Family(Family::Ipv4),
        Opt::Local("127.0.0.1:0"),
        Opt::Interface("lo"),
        Opt::Address(address),
    ] {
        let option = [option];
        fails(A::connect(&endpoint, &option), ErrorKind::InvalidArgument);
        fails(A::listen(&dir.endpoint("t"), &option), ErrorKind::InvalidArgument);
    }
    for option in [Opt::Local("127.0.0.1:0"), Opt::Address(address)] {
        fails(A::listen("127.0.0.1:0", &[option]), ErrorKind::InvalidArgument);
    }
}

/// C5: addresses instead of a name, which is then only what errors call it: no
/// resolver is asked, or this would not be refused at once.
fn addresses_instead_of_a_name<A: Api>() {
    // C5: the family holds for them too.
    let options = [Opt::Address(refused_address()), Opt::Family(keepsock::Family::Ipv6)];
    fails(A::connect("service.invalid:7", &options), ErrorKind::NotFound);
    let refused = refused_address();
    let failure =
        fails(A::connect("service.invalid:7", &[Opt::Address(refused)]), ErrorKind::Refused);
    assert_eq!(failure.endpoint, "service.invalid:7");
    let start = format!("connect to {refused} (service.invalid:7): connection refused after ");
    assert!(failure.message.starts_with(&start), "{failure:?}");
}

/// C2, C5: a local port that the caller chose does not keep the addresses from racing.
fn a_fixed_local_port_races_too<A: Api>() {
    let queue = common::FullQueue::new();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let good: SocketAddr = server.endpoint().parse().unwrap();
    let silent: SocketAddr = queue.endpoint().parse().unwrap();
    let local = free.to_string();
    let options =
        [Opt::Local(&local), Opt::Address(silent), Opt::Address(good), Opt::ConnectTimeout(10_000)];
    let client = A::connect("service.invalid:7", &options).unwrap();
    assert_eq!(client.five_tuple().local.1, free.port());
    assert_eq!(client.five_tuple().remote.1, good.port());
}

/// C1: the connect timeout is not the connection's; it waits, closes on exec, and has
/// no timer left over.
fn the_connected_socket_is_an_ordinary_one<A: Api>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let client = A::connect(&endpoint, &[Opt::ConnectTimeout(50)]).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let fd = client.fd().unwrap();
    assert!(!system::is_nonblocking(fd));
    assert!(system::is_cloexec(fd));
    assert_eq!(system::timeout_option(fd, libc::SO_RCVTIMEO), Duration::ZERO);
    assert_eq!(system::timeout_option(fd, libc::SO_SNDTIMEO), Duration::ZERO);
    let start = Instant::now();
    let (outcome, _) = while_waiting(
        || client.read(&mut [0; 8]),
        || {
            std::thread::sleep(Duration::from_millis(80));
            peer.write_all(b"x").unwrap();
        },
    );
    assert_eq!(outcome.unwrap(), 1);
    assert!(start.elapsed() >= Duration::from_millis(80));
    // No limit is a limit too.
    let p = pair::<A>(Transport::Tcp);
    A::connect(&p.server.endpoint(), &[Opt::ConnectTimeout(INFINITE)]).unwrap();
}

/// S3: MPTCP where the kernel has it, and plain TCP with a peer that does not know it.
fn multipath_tcp<A: Api>() {
    let options = [Opt::Mptcp(true), Opt::CloseTimeout(0)];
    let server = match A::listen("127.0.0.1:0", &options) {
        Ok(server) => server,
        Err(failure) => {
            assert!(failure.is(ErrorKind::Unsupported), "{failure:?}");
            return;
        }
    };
    let client = A::connect(&server.endpoint(), &options).unwrap();
    let accepted = server.accept().unwrap();
    client.write_all(b"hello\n").unwrap();
    assert_eq!(accepted.read_line(10).unwrap(), "hello");
    assert!(client.is_mptcp() && accepted.is_mptcp());
    assert_eq!(client.keepalive().unwrap(), Some((45_000, 15_000, 5)));
    let plain = A::listen("127.0.0.1:0", &[]).unwrap();
    let client = A::connect(&plain.endpoint(), &options).unwrap();
    client.write_all(b"hello\n").unwrap();
    assert_eq!(plain.accept().unwrap().read_line(10).unwrap(), "hello");
    assert!(!client.is_mptcp());
    // A listener that somebody else made is of its protocol.
    for (protocol, fits) in [(Some(socket2::Protocol::MPTCP), true), (None, false)] {
        let stream = socket2::Type::STREAM;
        let listener = socket2::Socket::new(socket2::Domain::IPV4, stream, protocol).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(8).unwrap();
        let refused = A::adopt_server(listener.into(), &options).err();
        assert_eq!(refused.map(|(_, e)| e.is(ErrorKind::WrongState)), (!fits).then_some(true));
    }
    let both = [Opt::Mptcp(true), Opt::DeadAfter(5000)];
    fails(A::connect(&plain.endpoint(), &both), ErrorKind::InvalidArgument);
    let (endpoint, _dir) = common::somewhere(Transport::Unix);
    fails(A::listen(&endpoint, &options), ErrorKind::InvalidArgument);
}
