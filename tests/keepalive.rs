//! K1, K2: keepalive, as asked and as the kernel has it.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Api, Client, Opt, Outcome, Server, Transport, fails, pair, pair_with, system};
use keepsock::ErrorKind;

both_apis![
    it_is_on_by_default,
    it_is_set_before_the_connection_exists,
    opting_out_is_one_call,
    it_is_set_and_turned_off_on_an_open_connection,
    sub_second_values_round_up,
    out_of_range_is_refused_and_changes_nothing,
    unix_sockets_have_none,
    it_is_set_on_a_socket_that_is_taken_over,
    small_writes_leave_at_once_unless_told_otherwise,
];

/// What both APIs and the kernel say of a connection's keepalive.
fn effective<A: Api>(client: &A::Client) -> Option<(i64, i64, u32)> {
    let told = client.keepalive().unwrap();
    let (on, idle, interval, count) = system::keepalive(client.fd().unwrap());
    let real =
        on.then(|| (i64::from(idle) * 1000, i64::from(interval) * 1000, count.unsigned_abs()));
    assert_eq!(told, real, "told and real differ");
    told
}

const DEFAULT: Option<(i64, i64, u32)> = Some((45_000, 15_000, 5));

/// K2: idle 45 s, interval 15 s, count 5, on both sides, without asking.
fn it_is_on_by_default<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    assert_eq!(effective::<A>(&p.client), DEFAULT);
    assert_eq!(effective::<A>(&p.accepted), DEFAULT);
    let (on, idle, interval, count) = system::keepalive(p.server.fd().unwrap());
    assert_eq!((on, idle, interval, count), (true, 45, 15, 5), "the listener");
}

/// K1: set before the descriptor exists; the listener hands it to every connection.
fn it_is_set_before_the_connection_exists<A: Api>() {
    let p =
        pair_with::<A>(Transport::Tcp, &[Opt::Keepalive(10_000, 3000, 4), Opt::CloseTimeout(0)]);
    assert_eq!(effective::<A>(&p.client), Some((10_000, 3000, 4)));
    assert_eq!(effective::<A>(&p.accepted), Some((10_000, 3000, 4)));
    for _ in 0..3 {
        let _client = A::connect(&p.server.endpoint(), &[]).unwrap();
        assert_eq!(effective::<A>(&p.server.accept().unwrap()), Some((10_000, 3000, 4)));
    }
    // It holds for each attempt: the one that succeeds is not the first.
    let refused = common::refused_address();
    let good = p.server.endpoint().parse().unwrap();
    let options = [Opt::Keepalive(20_000, 3000, 4), Opt::Address(refused), Opt::Address(good)];
    let client = A::connect("service.invalid:1", &options).unwrap();
    assert_eq!(effective::<A>(&client), Some((20_000, 3000, 4)));
}

/// K2: opting out.
fn opting_out_is_one_call<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::NoKeepalive, Opt::CloseTimeout(0)]);
    assert_eq!(effective::<A>(&p.client), None);
    assert_eq!(effective::<A>(&p.accepted), None);
}

/// K1: on a connection that is open, read back from the kernel.
fn it_is_set_and_turned_off_on_an_open_connection<A: Api>() {
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

/// K1: the kernel counts in seconds; less than one becomes one, not zero.
fn sub_second_values_round_up<A: Api>() {
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

/// K1: out-of-range values are refused, and the socket is left as it was.
fn out_of_range_is_refused_and_changes_nothing<A: Api>() {
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

/// K1: nothing is silently ignored: a Unix socket says that it has no keepalive.
fn unix_sockets_have_none<A: Api>() {
    let p = pair::<A>(Transport::Unix);
    fails(p.client.keepalive(), ErrorKind::Unsupported);
    fails(p.client.set_keepalive(1000, 1000, 1), ErrorKind::Unsupported);
    fails(p.accepted.disable_keepalive(), ErrorKind::Unsupported);
}

/// K2: a socket that somebody else made is set as the options say.
fn it_is_set_on_a_socket_that_is_taken_over<A: Api>() {
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

/// L6: TCP_NODELAY is inherited as keepalive is.
fn small_writes_leave_at_once_unless_told_otherwise<A: Api>() {
    let nodelay =
        |c: &A::Client| system::option(c.fd().unwrap(), libc::IPPROTO_TCP, libc::TCP_NODELAY) != 0;
    let p = pair::<A>(Transport::Tcp);
    assert!(nodelay(&p.client) && nodelay(&p.accepted));
    let p = pair_with::<A>(Transport::Tcp, &[Opt::Nodelay(false), Opt::CloseTimeout(0)]);
    assert!(!nodelay(&p.client) && !nodelay(&p.accepted));
}
