//! K1, K2: keepalive, as configured and as the kernel has it.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::support;
use crate::support::libc;
use crate::support::{
    Api, Client, Failure, Opt, Outcome, Server, Transport, fails, limits, pair, pair_with, process,
    system,
};
#[cfg(feature = "serve")]
use crate::support::{Connection, On};
use keepsock::{CloseReason, ErrorKind};

both_apis![
    keepalive_is_enabled_by_default,
    keepalive_before_connect_is_set,
    keepalive_is_disabled_by_one_call,
    keepalive_on_open_connection_is_set_and_disabled,
    keepalive_below_one_second_rounds_up,
    keepalive_out_of_range_changes_nothing,
    keepalive_on_unix_socket_is_rejected,
    keepalive_on_adopted_socket_is_set,
    keepalive_values_are_available_while_keepalive_is_off,
    equal_settings_make_no_system_calls,
    nodelay_is_set_unless_disabled,
    #[cfg(feature = "serve")] {
        keepalive_of_unix_sockets_is_unsupported,
        settings_change_on_an_open_connection_of_a_service,
    }
];

/// The keepalive values of a connection in both APIs and in the kernel.
fn effective<A: Api>(client: &A::Client) -> Option<(i64, i64, u32)> {
    let told = client.keepalive().unwrap();
    let (on, idle, interval, count) = system::keepalive(client.fd().unwrap());
    let real =
        on.then(|| (i64::from(idle) * 1000, i64::from(interval) * 1000, count.unsigned_abs()));
    assert_eq!(told, real, "the API and the kernel differ");
    told
}

const DEFAULT: Option<(i64, i64, u32)> = Some((45_000, 15_000, 5));

/// K2: by default both sides have idle 45 s, interval 15 s, count 5.
fn keepalive_is_enabled_by_default<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    assert_eq!(effective::<A>(&p.client), DEFAULT);
    assert_eq!(effective::<A>(&p.accepted), DEFAULT);
    let (on, idle, interval, count) = system::keepalive(p.server.fd().unwrap());
    assert_eq!((on, idle, interval, count), (true, 45, 15, 5), "the listener");
}

/// K1: keepalive is set before the descriptor exists. Accepted connections inherit it.
fn keepalive_before_connect_is_set<A: Api>() {
    let p =
        pair_with::<A>(Transport::Tcp, &[Opt::Keepalive(10_000, 3000, 4), Opt::CloseTimeout(0)]);
    assert_eq!(effective::<A>(&p.client), Some((10_000, 3000, 4)));
    assert_eq!(effective::<A>(&p.accepted), Some((10_000, 3000, 4)));
    for _ in 0..3 {
        let _client = A::connect(&p.server.endpoint(), &[]).unwrap();
        assert_eq!(effective::<A>(&p.server.accept().unwrap()), Some((10_000, 3000, 4)));
    }
    // Keepalive applies to each attempt: the successful one is not the first.
    let refused = support::refused_address();
    let good = p.server.endpoint().parse().unwrap();
    let options = [Opt::Keepalive(20_000, 3000, 4), Opt::Address(refused), Opt::Address(good)];
    let client = A::connect("service.invalid:1", &options).unwrap();
    assert_eq!(effective::<A>(&client), Some((20_000, 3000, 4)));
}

/// K2: one call disables keepalive.
fn keepalive_is_disabled_by_one_call<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::NoKeepalive, Opt::CloseTimeout(0)]);
    assert_eq!(effective::<A>(&p.client), None);
    assert_eq!(effective::<A>(&p.accepted), None);
}

/// K1: keepalive can be set and disabled on an open connection, and is read back from the kernel.
fn keepalive_on_open_connection_is_set_and_disabled<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    for client in [&p.client, &p.accepted] {
        client.set_keepalive(1000, 2000, 3).unwrap();
        assert_eq!(effective::<A>(client), Some((1000, 2000, 3)));
        client.disable_keepalive().unwrap();
        assert_eq!(effective::<A>(client), None);
        client.set_keepalive(32_767_000, 32_767_000, 127).unwrap();
        assert_eq!(effective::<A>(client), Some((32_767_000, 32_767_000, 127)));
    }
}

/// K1: the kernel counts in seconds: a value below one becomes one, not zero.
fn keepalive_below_one_second_rounds_up<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::Keepalive(1, 1001, 1), Opt::CloseTimeout(0)]);
    assert_eq!(effective::<A>(&p.client), Some((1000, 2000, 1)));
    assert_eq!(effective::<A>(&p.accepted), Some((1000, 2000, 1)));
    p.client.set_keepalive(2500, 999, 9).unwrap();
    assert_eq!(effective::<A>(&p.client), Some((3000, 1000, 9)));
}

const OUT_OF_RANGE: [(i64, i64, u32); 8] = [
    (0, 1000, 1),
    (1000, 0, 1),
    (32_767_001, 1000, 1),
    (1000, 32_767_001, 1),
    (i64::MAX, 1000, 1),
    (1000, 1000, 0),
    (1000, 1000, 128),
    (1000, 1000, u32::MAX),
];

/// K1: a value out of range is rejected, and the socket is unchanged.
fn keepalive_out_of_range_changes_nothing<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    for (idle, interval, count) in OUT_OF_RANGE {
        let outcome: Outcome<()> = p.client.set_keepalive(idle, interval, count);
        fails(outcome, ErrorKind::InvalidArgument);
        assert_eq!(effective::<A>(&p.client), DEFAULT);
        let options = [Opt::Keepalive(idle, interval, count)];
        fails(A::connect(&p.server.endpoint(), &options), ErrorKind::InvalidArgument);
        fails(A::listen("127.0.0.1:0", &options), ErrorKind::InvalidArgument);
    }
    p.client.disable_keepalive().unwrap();
    fails(p.client.set_keepalive(0, 1000, 1), ErrorKind::InvalidArgument);
    assert_eq!(effective::<A>(&p.client), None);
}

/// K1: an option without effect is rejected: the error says that a Unix socket has no keepalive.
fn keepalive_on_unix_socket_is_rejected<A: Api>() {
    let p = pair::<A>(Transport::Unix);
    fails(p.client.keepalive(), ErrorKind::Unsupported);
    fails(p.client.set_keepalive(1000, 1000, 1), ErrorKind::Unsupported);
    fails(p.accepted.disable_keepalive(), ErrorKind::Unsupported);
}

/// K1: the keepalive of each kind of Unix socket is not supported.
#[cfg(feature = "serve")]
fn keepalive_of_unix_sockets_is_unsupported<A: Api>() {
    let p = pair::<A>(Transport::Unix);
    let unsupported = |failure: Failure| {
        assert!(failure.message.contains("a Unix socket has no keepalive"), "{failure:?}");
    };
    for client in [&p.client, &p.accepted] {
        unsupported(fails(client.keepalive(), ErrorKind::Unsupported));
    }
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let open = move |c: &A::Connection| tell.lock().unwrap().send(c.keepalive()).unwrap();
    let on = On { open: Some(Box::new(open)), ..On::default() };
    let service = p.server.serve_events(&[], on).unwrap();
    let _client = A::connect(&p.server.endpoint(), &[]).unwrap();
    let keepalive = told.recv_timeout(Duration::from_secs(60)).unwrap();
    unsupported(fails(keepalive, ErrorKind::Unsupported));
    drop(service);
}

/// K2: an adopted socket gets the keepalive of the options.
fn keepalive_on_adopted_socket_is_set<A: Api>() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stream = std::net::TcpStream::connect(address).unwrap();
    let client = A::adopt_client(stream.into(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(effective::<A>(&client), DEFAULT);
    let options = [Opt::Keepalive(7000, 2000, 3)];
    let server = A::adopt_server(listener.into(), &options).map_err(|e| e.1).unwrap();
    let _first = server.accept().unwrap(); // its handshake was before
    let _second = A::connect(&address.to_string(), &[]).unwrap();
    assert_eq!(effective::<A>(&server.accept().unwrap()), Some((7000, 2000, 3)));
}

/// L6: accepted connections inherit TCP_NODELAY.
fn nodelay_is_set_unless_disabled<A: Api>() {
    let nodelay =
        |c: &A::Client| system::option(c.fd().unwrap(), libc::IPPROTO_TCP, libc::TCP_NODELAY) != 0;
    let p = pair::<A>(Transport::Tcp);
    assert!(nodelay(&p.client) && nodelay(&p.accepted));
    let p = pair_with::<A>(Transport::Tcp, &[Opt::Nodelay(false), Opt::CloseTimeout(0)]);
    assert!(!nodelay(&p.client) && !nodelay(&p.accepted));
}

/// K1: the values that the kernel would use are available while keepalive is off.
fn keepalive_values_are_available_while_keepalive_is_off<A: Api>() {
    let system = |name: &str| -> i64 {
        let path = format!("/proc/sys/net/ipv4/tcp_keepalive_{name}");
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    };
    let expected = (system("time") * 1000, system("intvl") * 1000, system("probes") as u32);
    let p = pair_with::<A>(Transport::Tcp, &[Opt::NoKeepalive, Opt::CloseTimeout(0)]);
    for client in [&p.client, &p.accepted] {
        assert_eq!(client.keepalive().unwrap(), None);
        assert_eq!(client.keepalive_values().unwrap(), expected);
        client.set_keepalive(9000, 3000, 3).unwrap();
        client.disable_keepalive().unwrap();
        assert_eq!(client.keepalive_values().unwrap(), (9000, 3000, 3));
    }
}

/// Returns how many times a call of this thread calls getsockopt(2) and setsockopt(2).
fn sockopt_calls(call: impl FnOnce() + Send) -> (usize, usize) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counters = counts.clone();
    let body = || {
        let supervised = [(libc::SYS_getsockopt, None), (libc::SYS_setsockopt, None)];
        limits::supervise(&supervised, move |called| {
            let sets = usize::from(called.nr == libc::SYS_setsockopt as i32);
            counters[sets].fetch_add(1, Ordering::SeqCst);
            None
        });
        call();
    };
    thread::scope(|scope| scope.spawn(body).join().unwrap());
    (counts[0].load(Ordering::SeqCst), counts[1].load(Ordering::SeqCst))
}

/// K1, F13: a setting that the kernel has already is not set again, and no setting is read back
/// before it is set, unless another user of the descriptor may have changed it.
fn equal_settings_make_no_system_calls<A: Api>() {
    process::in_process(
        &test_name!(A, "equal_settings_make_no_system_calls"),
        Duration::from_secs(20),
        || {
            let p = pair::<A>(Transport::Tcp);
            let to = p.server.endpoint();
            // SO_KEEPALIVE and its three values, TCP_NODELAY; then TCP_INFO.
            assert_eq!(sockopt_calls(|| drop(A::connect(&to, &[]).unwrap())).1, 5);
            let client = &p.client;
            let keepalive = |idle| sockopt_calls(|| client.set_keepalive(idle, 15_000, 5).unwrap());
            assert_eq!(keepalive(45_000), (0, 0));
            // TCP_KEEPIDLE.
            assert_eq!(keepalive(40_000), (0, 1));
            assert_eq!(keepalive(40_000), (0, 0));
            // The values of an accepted connection are those of its listener, which another
            // process may have set.
            let accepted = || p.accepted.set_keepalive(45_000, 15_000, 5).unwrap();
            assert_eq!(sockopt_calls(accepted), (0, 4));
            assert_eq!(sockopt_calls(accepted), (0, 0));
            let timeouts = || {
                client.set_read_timeout(5000).unwrap();
                client.set_write_timeout(5000).unwrap();
            };
            assert_eq!(sockopt_calls(timeouts), (0, 2));
            assert_eq!(sockopt_calls(timeouts), (0, 0));
            let off = || client.disable_keepalive().unwrap();
            assert_eq!(sockopt_calls(off), (0, 1));
            assert_eq!(sockopt_calls(off), (0, 0));
            assert_eq!(keepalive(45_000), (0, 4));
            let dead_after = || client.set_dead_after(10_000).unwrap();
            // Whether it is Multipath TCP; the values of keepalive, and TCP_RTO_MAX_MS.
            assert_eq!(sockopt_calls(dead_after), (1, 4));
            assert_eq!(sockopt_calls(dead_after), (0, 0));
            let fresh = A::connect(&to, &[]).unwrap();
            let nodelay =
                |on| sockopt_calls(|| fresh.set_sockopt(keepsock::Sockopt::Nodelay, on).unwrap());
            assert_eq!(nodelay(1), (0, 0));
            assert_eq!(nodelay(0), (0, 1));
            assert_eq!(fresh.sockopt(keepsock::Sockopt::Nodelay).unwrap(), 0);
            assert_eq!(nodelay(0), (0, 0));
            assert_eq!(nodelay(1), (0, 1));
            assert_eq!(fresh.sockopt(keepsock::Sockopt::Nodelay).unwrap(), 1);
            let delays = A::connect(&to, &[Opt::Nodelay(false)]).unwrap();
            let off = || delays.set_sockopt(keepsock::Sockopt::Nodelay, 0).unwrap();
            assert_eq!(sockopt_calls(off), (0, 0));
            // The values of an accepted connection are not known.
            let accepted_nodelay =
                || p.accepted.set_sockopt(keepsock::Sockopt::Nodelay, 1).unwrap();
            assert_eq!(sockopt_calls(accepted_nodelay), (0, 1));

            // The program may change a descriptor that it has had.
            let fd = p.accepted.fd().unwrap();
            system::set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 7);
            assert_eq!(sockopt_calls(accepted), (0, 4));
            assert_eq!(effective::<A>(&p.accepted), DEFAULT);
        },
    );
}

/// K3, K5, K6, K8: the settings of liveness change on an open connection of a service, by any thread
/// and for that connection only.
#[cfg(feature = "serve")]
fn settings_change_on_an_open_connection_of_a_service<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (send, opened) = mpsc::channel();
    let (ended, reasons) = mpsc::channel();
    let (send, ended) = (Mutex::new(send), Mutex::new(ended));
    let on = On {
        open: Some(Box::new(move |connection: &A::Connection| {
            send.lock().unwrap().send(connection.clone()).unwrap();
        })),
        close: Some(Box::new(move |connection: &A::Connection, reason| {
            ended.lock().unwrap().send((connection.id(), reason)).unwrap();
        })),
        ..On::default()
    };
    let _service = server.serve_events(&[], on).unwrap();
    let limit = Duration::from_secs(60);
    let open = || {
        let peer = TcpStream::connect(server.endpoint()).unwrap();
        peer.set_read_timeout(Some(limit)).unwrap();
        (peer, opened.recv_timeout(limit).unwrap())
    };
    let (mut other, untouched) = open();

    let (_peer, connection) = open();
    connection.set_idle_timeout(100).unwrap();
    assert_eq!(reasons.recv_timeout(limit).unwrap(), (connection.id(), CloseReason::IdleTimeout));

    let (mut peer, connection) = open();
    connection.set_heartbeat(b"PING", 30).unwrap();
    let mut got = [0; 8];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"PINGPING");
    fails(connection.set_idle_timeout(20), ErrorKind::InvalidArgument);
    connection.set_heartbeat_timeout(150).unwrap();
    let ended = (connection.id(), CloseReason::HeartbeatTimeout);
    assert_eq!(reasons.recv_timeout(limit).unwrap(), ended);

    let (_peer, connection) = open();
    fails(connection.set_heartbeat_timeout(150), ErrorKind::InvalidArgument);
    connection.set_idle_timeout(60_000).unwrap();
    connection.set_idle_timeout(support::INFINITE).unwrap();
    connection.set_heartbeat(b"PING", 60_000).unwrap();
    connection.set_heartbeat(b"", support::INFINITE).unwrap();
    connection.set_keepalive(9000, 3000, 3).unwrap();
    assert_eq!(connection.keepalive().unwrap(), Some((9000, 3000, 3)));
    fails(connection.set_dead_after(10_000), ErrorKind::InvalidArgument);
    connection.disable_keepalive().unwrap();
    assert_eq!(connection.keepalive().unwrap(), None);
    assert_eq!(connection.keepalive_values().unwrap(), (9000, 3000, 3));
    connection.set_keepalive(45_000, 15_000, 5).unwrap();
    fails(connection.set_dead_after(1000), ErrorKind::InvalidArgument);
    connection.set_dead_after(10_000).unwrap();
    let (idle, interval, count) = connection.keepalive().unwrap().unwrap();
    assert_eq!(idle + interval * i64::from(count), 10_000);
    fails(connection.set_keepalive(45_000, 15_000, 5), ErrorKind::InvalidArgument);
    connection.set_dead_after(support::INFINITE).unwrap();
    assert_eq!(connection.keepalive().unwrap(), DEFAULT);

    // The other connection kept its configuration.
    assert!(untouched.is_open());
    other.write_all(b"x").unwrap();
    assert_eq!(untouched.keepalive().unwrap(), DEFAULT);
    assert!(untouched.close_reason().is_none());
}
