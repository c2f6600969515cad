//! C1: one deadline. C3: each attempt is listed. C4: failures during a connect. C5: local and
//! remote addresses.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::libc;
use crate::support::{
    Api, Client, FullQueue, INFINITE, Opt, Server, TempDir, Transport, fails, fill_queue, pair,
    promptly, refused_address, system, timed, while_waiting,
};
use keepsock::{ErrorKind, Family, Sockopt};

both_apis![
    connect_to_closed_port_is_refused,
    connect_error_lists_each_attempt,
    connect_after_refused_address_tries_the_next,
    connect_to_silent_address_times_out,
    connect_to_full_unix_queue_times_out,
    connect_to_full_unix_queue_that_empties_succeeds,
    listen_backlog_is_in_effect,
    connect_to_itself_is_refused,
    connect_that_fails_leaves_no_descriptor,
    connect_from_local_address_uses_it,
    connect_from_local_address_skips_other_family,
    connect_through_interface_uses_it,
    connect_with_family_uses_that_family,
    ip_options_for_unix_socket_are_rejected,
    connect_with_addresses_skips_the_lookup,
    connect_from_fixed_port_races_addresses,
    connected_socket_has_no_connect_timeout,
    mptcp_is_used_or_falls_back_to_tcp,
    mptcp_options_of_the_kernel_fail_or_apply,
];

/// C4: a refused connect is reported with its address.
fn connect_to_closed_port_is_refused<A: Api>() {
    let address = refused_address().to_string();
    let failure = fails(A::connect(&address, &[]), ErrorKind::Refused);
    assert_eq!(failure.os_error, libc::ECONNREFUSED);
    assert_eq!(&*failure.operation, "connect");
    assert_eq!(failure.endpoint, address);
    let start = format!("connect to {address}: connection refused after ");
    assert!(failure.message.starts_with(&start), "{failure:?}");
    // A Unix path without a listener, and a path without a file.
    let dir = TempDir::new();
    drop(crate::support::os::unix::net::UnixListener::bind(dir.path("stale")).unwrap());
    fails(A::connect(&dir.endpoint("stale"), &[]), ErrorKind::Refused);
    fails(A::connect(&dir.endpoint("none"), &[]), ErrorKind::NotFound);
    std::fs::write(dir.path("file"), "").unwrap();
    fails(A::connect(&dir.endpoint("file"), &[]), ErrorKind::Refused);
}

/// C3: the error lists address, stage, reason and time of each attempt.
fn connect_error_lists_each_attempt<A: Api>() {
    let (first, second) = (refused_address(), refused_address());
    let options = [
        Opt::Address(first),
        Opt::Address(second),
        // An address of a family that the local address cannot reach.
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
fn connect_after_refused_address_tries_the_next<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let good: SocketAddr = server.endpoint().parse().unwrap();
    let options =
        [Opt::Address(refused_address()), Opt::Address(refused_address()), Opt::Address(good)];
    let client = A::connect("service.invalid:1", &options).unwrap();
    assert_eq!(client.five_tuple().remote.1, good.port());
    server.accept().unwrap();
}

/// C1, C4: a connect to a silent address returns by its deadline. The error reports the timeout,
/// and never EINPROGRESS.
fn connect_to_silent_address_times_out<A: Api>() {
    let queue = FullQueue::new();
    promptly(Duration::from_millis(250), || {
        let (outcome, took) = timed(|| A::connect(&queue.endpoint(), &[Opt::ConnectTimeout(200)]));
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        assert_eq!(failure.os_error, 0);
        assert_eq!(failure.attempts.len(), 1);
        assert_eq!(failure.attempts[0].status, ErrorKind::TimedOut.code());
        assert!(failure.attempts[0].elapsed_us >= 100_000);
        let start = format!("connect to {}: timed out after ", queue.endpoint());
        assert!(failure.message.starts_with(&start), "{failure:?}");
        took
    });
    fails(A::connect(&queue.endpoint(), &[Opt::ConnectTimeout(0)]), ErrorKind::InvalidArgument);
}

/// C1: the kernel has no event for a Unix listener with a full queue. The deadline applies
/// nevertheless.
fn connect_to_full_unix_queue_times_out<A: Api>() {
    let dir = TempDir::new();
    let _server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let connect = || A::connect(&dir.endpoint("s"), &[Opt::ConnectTimeout(200)]);
    let _waiting = fill_queue(&dir.path("s"));
    promptly(Duration::from_millis(250), || {
        let (outcome, took) = timed(connect);
        fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        took
    });
}

/// C4: a connect that waits for a full queue succeeds when the queue empties.
fn connect_to_full_unix_queue_that_empties_succeeds<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let _waiting = fill_queue(&dir.path("s"));
    let connect = || A::connect(&dir.endpoint("s"), &[Opt::ConnectTimeout(20_000)]);
    let (outcome, _) = while_waiting(connect, || drop(server.accept().unwrap()));
    outcome.unwrap();
}

/// L1: the configured backlog is in effect: n + 1 on Linux.
fn listen_backlog_is_in_effect<A: Api>() {
    let dir = TempDir::new();
    for backlog in [1, 4] {
        let server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(backlog)]).unwrap();
        assert_eq!(fill_queue(&dir.path("s")).len(), backlog as usize + 1);
        server.close();
    }
}

/// C4: a connection from a port to itself is reported as refused, because no process listens there.
fn connect_to_itself_is_refused<A: Api>() {
    let unused = format!("{}:{}", A::own_address(2), support::own_port());
    let failure = fails(A::connect(&unused, &[Opt::Local(&unused)]), ErrorKind::Refused);
    assert_eq!(failure.attempts.len(), 1);
}

/// C2, C4: a failed connect leaves no descriptor behind.
fn connect_that_fails_leaves_no_descriptor<A: Api>() {
    let queue = FullQueue::new();
    let refused = refused_address();
    let own = A::own_address(3);
    let any_port = format!("{own}:0");
    let local = format!("{own}:{}", support::own_port());
    let open = || system::sockets_bound_to(own.parse().unwrap());
    assert_eq!(open(), 0);
    let options = [Opt::Local(&any_port), Opt::Address(refused)];
    fails(A::connect("service.invalid:1", &options), ErrorKind::Refused);
    let options = [Opt::ConnectTimeout(20), Opt::Local(&any_port)];
    fails(A::connect(&queue.endpoint(), &options), ErrorKind::TimedOut);
    fails(A::connect(&local, &[Opt::Local(&local)]), ErrorKind::Refused);
    let token = A::token();
    token_fires(&token);
    let options = [Opt::Cancel(&token), Opt::Local(&any_port)];
    let failure = fails(A::connect(&queue.endpoint(), &options), ErrorKind::Cancelled);
    assert_eq!(&*failure.stage, "connect", "a numeric address needs no lookup");
    assert_eq!(open(), 0);
}

fn token_fires(token: &impl support::Token) {
    token.fire();
}

/// C5: a connect uses the local address and port of the options.
fn connect_from_local_address_uses_it<A: Api>() {
    let server = A::listen("0.0.0.0:0", &[]).unwrap();
    let to = format!("127.0.0.1:{}", server.port());
    let own = A::own_address(4);
    let client = A::connect(&to, &[Opt::Local(&format!("{own}:0"))]).unwrap();
    let accepted = server.accept().unwrap();
    assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
    assert_eq!(client.five_tuple().local.0, own);
    let unused = SocketAddr::new(support::ip(&own), support::own_port());
    let local = unused.to_string();
    let client = A::connect(&to, &[Opt::Local(&local)]).unwrap();
    assert_eq!(client.five_tuple().local, (unused.ip().to_string(), unused.port()));
    // The port is in use, and an address is not local. Each error names its stage.
    let failure = fails(A::connect(&to, &[Opt::Local(&local)]), ErrorKind::AddressInUse);
    assert_eq!(failure.attempts[0].stage, "bind");
    assert!(failure.message.contains("bind: address in use"), "{failure:?}");
    let foreign = [Opt::Local("192.0.2.1:0")];
    let failure = fails(A::connect(&to, &foreign), ErrorKind::AddressNotAvailable);
    let words =
        format!("connect to {to}: local address \"192.0.2.1:0\": bind: address not available");
    assert!(failure.message.starts_with(&words), "{failure:?}");
    // E1: the error distinguishes a local name that is not found from the peer's name.
    let failure = A::connect(&to, &[Opt::Local("127.0.0.1:no-such-service")]).err().unwrap();
    let words = format!("connect to {to}: local address \"127.0.0.1:no-such-service\": lookup: ");
    assert!(failure.message.starts_with(&words), "{failure:?}");
    assert_eq!(failure.endpoint, to);
}

/// C5: addresses of another family than the local address are not tried.
fn connect_from_local_address_skips_other_family<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let failure = fails(
        A::connect(&server.endpoint(), &[Opt::Local("[::1]:0")]),
        ErrorKind::AddressNotAvailable,
    );
    assert_eq!(failure.attempts[0].stage, "bind");
    let words = format!(
        "connect to {}: local address \"[::1]:0\": bind: address not available: it is of \
         another address family than the peer: use an address of the same family",
        server.endpoint()
    );
    assert!(failure.message.starts_with(&words), "{failure:?}");
    server.set_nonblocking(true).unwrap();
    fails(server.accept(), ErrorKind::WouldBlock);
}

/// C5: a connect uses the interface of the options.
fn connect_through_interface_uses_it<A: Api>() {
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

/// C5: a connect uses the family of the options.
fn connect_with_family_uses_that_family<A: Api>() {
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

/// C5: an option without effect is rejected: a Unix socket has no family, local address, interface
/// or other addresses, and a listener has no local address option.
fn ip_options_for_unix_socket_are_rejected<A: Api>() {
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

/// C5: addresses replace the lookup of a name, which then appears only in errors. No resolver is
/// used, because this connect is refused at once.
fn connect_with_addresses_skips_the_lookup<A: Api>() {
    // C5: the family also applies to these addresses.
    let options = [Opt::Address(refused_address()), Opt::Family(keepsock::Family::Ipv6)];
    fails(A::connect("service.invalid:7", &options), ErrorKind::NotFound);
    let refused = refused_address();
    let failure =
        fails(A::connect("service.invalid:7", &[Opt::Address(refused)]), ErrorKind::Refused);
    assert_eq!(failure.endpoint, "service.invalid:7");
    let start = format!("connect to {refused} (service.invalid:7): connection refused after ");
    assert!(failure.message.starts_with(&start), "{failure:?}");
}

/// C2, C5: a fixed local port does not prevent the race of addresses.
fn connect_from_fixed_port_races_addresses<A: Api>() {
    let queue = support::FullQueue::new();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let free = SocketAddr::new(support::ip(&A::own_address(6)), support::own_port());
    let good: SocketAddr = server.endpoint().parse().unwrap();
    let silent: SocketAddr = queue.endpoint().parse().unwrap();
    let local = free.to_string();
    let options =
        [Opt::Local(&local), Opt::Address(silent), Opt::Address(good), Opt::ConnectTimeout(60_000)];
    let client = A::connect("service.invalid:7", &options).unwrap();
    assert_eq!(client.five_tuple().local.1, free.port());
    assert_eq!(client.five_tuple().remote.1, good.port());
}

/// C1: the connect timeout does not apply to the connection, which blocks, is close-on-exec, and
/// has no timer.
fn connected_socket_has_no_connect_timeout<A: Api>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let client = A::connect(&endpoint, &[Opt::ConnectTimeout(1000)]).unwrap();
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
            std::thread::sleep(Duration::from_millis(1100));
            peer.write_all(b"x").unwrap();
        },
    );
    assert_eq!(outcome.unwrap(), 1);
    assert!(start.elapsed() >= Duration::from_millis(1100));
    // INFINITE is also accepted.
    let p = pair::<A>(Transport::Tcp);
    A::connect(&p.server.endpoint(), &[Opt::ConnectTimeout(INFINITE)]).unwrap();
}

/// S3: MPTCP is used if the kernel supports it, and plain TCP if the peer does not.
fn mptcp_is_used_or_falls_back_to_tcp<A: Api>() {
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
    assert!(client.stats().unwrap().is_mptcp && accepted.stats().unwrap().is_mptcp);
    assert_eq!(client.keepalive().unwrap(), Some((45_000, 15_000, 5)));
    let plain = A::listen("127.0.0.1:0", &[]).unwrap();
    let client = A::connect(&plain.endpoint(), &options).unwrap();
    client.write_all(b"hello\n").unwrap();
    assert_eq!(plain.accept().unwrap().read_line(10).unwrap(), "hello");
    assert!(!client.stats().unwrap().is_mptcp);
    // An adopted listener keeps its protocol.
    for (protocol, fits) in [
        #[cfg(unix)]
        (Some(socket2::Protocol::MPTCP), true),
        (None, false),
    ] {
        let stream = socket2::Type::STREAM;
        let listener = socket2::Socket::new(socket2::Domain::IPV4, stream, protocol).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(8).unwrap();
        let refused = A::adopt_server(listener.into(), &options).err();
        assert_eq!(refused.map(|(_, e)| e.is(ErrorKind::WrongState)), (!fits).then_some(true));
    }
    let both = [Opt::Mptcp(true), Opt::DeadAfter(5000)];
    fails(A::connect(&plain.endpoint(), &both), ErrorKind::InvalidArgument);
    let (endpoint, _dir) = support::somewhere(Transport::Unix);
    fails(A::listen(&endpoint, &options), ErrorKind::InvalidArgument);
}

/// S3, L8: an option of the kernel fails or applies with MPTCP as with TCP, also if the kernel creates
/// the TCP socket of the path later.
fn mptcp_options_of_the_kernel_fail_or_apply<A: Api>() {
    if A::listen("127.0.0.1:0", &[Opt::Mptcp(true)]).is_err() {
        return;
    }
    let plain = A::listen("127.0.0.1:0", &[]).unwrap();
    let to = plain.endpoint();
    for mptcp in [false, true] {
        let wrong = [Opt::Mptcp(mptcp), Opt::CongestionControl("no-such")];
        let outcomes =
            [A::connect(&to, &wrong).map(drop), A::listen("127.0.0.1:0", &wrong).map(drop)];
        for outcome in outcomes {
            let failure = fails(outcome, ErrorKind::Unsupported);
            assert!(failure.message.contains("congestion_control \"no-such\""), "{failure:?}");
        }
        let wrong = [
            Opt::Mptcp(mptcp),
            Opt::RawSockopt(libc::IPPROTO_TCP, libc::TCP_MAXSEG, &[1, 0, 0, 0]),
        ];
        fails(A::connect(&to, &wrong), ErrorKind::Os);
        let own = [
            Opt::Mptcp(mptcp),
            Opt::CongestionControl("reno"),
            Opt::Sockopt(Sockopt::MaxSegment, 1000),
        ];
        let client = A::connect(&to, &own).unwrap();
        let stats = client.stats().unwrap();
        assert_eq!(stats.congestion_control, "reno");
        assert!((900..=1000).contains(&stats.mss), "{mptcp}: {stats:?}");
    }
}
