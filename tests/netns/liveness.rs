//! Peers that vanish, stall or are unreachable, and the error for each (K3, K6).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::netns;
use keepsock::{
    ClientSocket, CloseReason, Error, ErrorKind, Keepalive, ServerSocket, SocketOptions,
};

use crate::support::netns::{Ip, Route, in_namespace, row};
use crate::support::timing::{assert_within, ms, seconds};

const LIMIT: Duration = Duration::from_secs(40);
/// The configured dead_after, and the tolerance of K3.
const DEAD_AFTER: Duration = Duration::from_secs(4);
const LATE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(15);

/// A connection to the far side of the route. The test also holds its other end.
struct Line {
    client: ClientSocket,
    far: TcpStream,
}

impl Line {
    fn new(route: &Route, ip: Ip, options: &SocketOptions) -> Line {
        let bind = || TcpListener::bind(format!("{}:0", ip.server())).unwrap();
        let listener = route.server.run(bind);
        let endpoint = listener.local_addr().unwrap();
        let client = ClientSocket::connect_with(endpoint, options).unwrap();
        Line { client, far: listener.accept().unwrap().0 }
    }
}

fn watched() -> SocketOptions {
    SocketOptions::new().dead_after(DEAD_AFTER).close_timeout(Duration::ZERO)
}

fn read(client: &ClientSocket) -> Result<usize, Error> {
    client.read(&mut [0; 8])
}

/// The actions of a case, from the moment at which the peer vanishes until the detection.
type Case = (&'static str, fn(&Line) -> Error);

const CASES: [Case; 7] = [
    ("idle, a read waits", |line| read(&line.client).unwrap_err()),
    ("data in flight, a read waits", |line| {
        line.client.write_all(b"question").unwrap();
        read(&line.client).unwrap_err()
    }),
    ("data written 3 s later, a read waits", |line| {
        thread::sleep(ms(3000));
        line.client.write_all(b"question").unwrap();
        read(&line.client).unwrap_err()
    }),
    ("data in flight, wait_hangup waits", |line| {
        line.client.write_all(b"news").unwrap();
        assert_eq!(line.client.wait_hangup(LIMIT).unwrap(), CloseReason::Dead);
        read(&line.client).unwrap_err()
    }),
    ("a write waits", |line| line.client.write_all(&vec![0; 64 << 20]).unwrap_err()),
    ("a write waits, in parts", |line| {
        loop {
            if let Err(e) = line.client.write(&[0; 1 << 20]) {
                return e;
            }
        }
    }),
    ("non-blocking", |line| {
        line.client.set_nonblocking(true).unwrap();
        line.client.write_all(b"question").unwrap();
        loop {
            match line.client.check_liveness() {
                Ok(next) => thread::sleep(next.unwrap()),
                Err(e) => return e,
            }
        }
    }),
];

/// K3: a vanished peer is reported within the time plus one second, in each state of the
/// connection. The control case, the fastest keepalive alone, detects it neither with data in
/// flight nor during a write.
#[test]
#[ignore = "long: cargo xtask netns"]
fn vanished_peer_is_reported_within_dead_after() {
    in_namespace(&test_name!("vanished_peer_is_reported_within_dead_after"), LIMIT, || {
        let route = Route::new();
        let strict = watched().fail_on_stall(true);
        let blind = SocketOptions::new()
            .keepalive(Keepalive::new(ms(1000), ms(1000), 3).unwrap())
            .read_timeout(DEAD_AFTER + LATE + ms(1000))
            .write_timeout(DEAD_AFTER + LATE + ms(1000))
            .close_timeout(Duration::ZERO);
        let mut lines = Vec::new();
        for ip in Ip::BOTH {
            for (name, run) in CASES {
                let name_ = format!("K3 dead peer, {name}, {ip}");
                lines.push((
                    name_.clone(),
                    "dead_after 4 s",
                    run,
                    Line::new(&route, ip, &watched()),
                ));
                // The kernel keeps this time, without a call.
                if name != "non-blocking" {
                    let asked = "dead_after 4 s, fail_on_stall";
                    lines.push((name_, asked, run, Line::new(&route, ip, &strict)));
                }
            }
        }
        let control = Line::new(&route, Ip::V4, &blind);
        let control_writes = Line::new(&route, Ip::V4, &blind);
        let stalled = Line::new(&route, Ip::V4, &watched());
        thread::scope(|scope| {
            // One writer already waits for a live peer that reads nothing.
            let waiting = scope.spawn(|| {
                let e = stalled.client.write_all(&vec![0; 64 << 20]).unwrap_err();
                (e.kind(), Instant::now())
            });
            thread::sleep(DEAD_AFTER + LATE);
            assert!(!waiting.is_finished(), "a peer that reads nothing is alive");
            route.cut();
            let cut = Instant::now();
            for (name, asked, run, line) in &lines {
                scope.spawn(move || {
                    let end = run(line);
                    assert_dead(name, asked, cut.elapsed(), &end);
                    assert_eq!(line.client.close_reason(), Some(CloseReason::Dead), "{name}");
                    // From now on every call reports the dead peer, and close returns at once.
                    assert_eq!(read(&line.client).unwrap_err().kind(), ErrorKind::Dead, "{name}");
                    let again = line.client.write_all(b"x").unwrap_err();
                    assert_eq!(again.kind(), ErrorKind::Dead, "{name}");
                    let closed = Instant::now();
                    // Every case except an idle connection has lost bytes that the kernel accepted.
                    let lost = line.client.close().err().map(|e| e.kind());
                    let expected = (!name.contains("idle")).then_some(ErrorKind::Dead);
                    assert_eq!(lost, expected, "{name}");
                    line.client.close().unwrap();
                    assert!(closed.elapsed() < ms(10_000), "{name}: {:?}", closed.elapsed());
                    let last = line.client.stats().unwrap();
                    assert_eq!(last.close_reason, Some(CloseReason::Dead), "{name}");
                    assert!(last.last_received.unwrap() >= DEAD_AFTER - ms(500), "{last:?}");
                });
            }
            scope.spawn(|| {
                control.client.write_all(b"question").unwrap();
                let e = read(&control.client).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::TimedOut, "keepalive with data in flight: {e}");
            });
            scope.spawn(|| {
                let e = control_writes.client.write_all(&vec![0; 64 << 20]).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::TimedOut, "keepalive with a write: {e}");
            });
            let (kind, at) = waiting.join().unwrap();
            assert_eq!(kind, ErrorKind::Dead);
            let time = at.saturating_duration_since(cut);
            assert!(time <= DEAD_AFTER + LATE, "a full window: {time:?}");
            let asked = "dead_after 4 s";
            let control = "keepalive 1 s, 1 s, 3: not within 6 s";
            row("K3 dead peer, its window full, IPv4", asked, seconds(time), control);
        });
    });
}

fn assert_dead(name: &str, asked: &str, time: Duration, end: &Error) {
    println!("{name}, {asked}: {time:?}: {end}");
    assert_eq!(end.kind(), ErrorKind::Dead, "{name}, {asked}: {end}");
    // The silence began with the last segment received before the packets were dropped.
    let earliest = DEAD_AFTER - ms(1500);
    assert!((earliest..=DEAD_AFTER + LATE).contains(&time), "{name}, {asked}: {time:?}");
    let control = "keepalive 1 s, 1 s, 3: not within 6 s";
    row(name, asked, seconds(time), control);
}

/// K3: the handlers of a service detect a vanished client with the server's options.
#[test]
fn vanished_client_is_reported_to_handler() {
    in_namespace(&test_name!("vanished_client_is_reported_to_handler"), LIMIT, || {
        let route = Route::new();
        let endpoint = format!("{}:0", Ip::V4.server());
        let listen = || ServerSocket::listen_with(endpoint.as_str(), &watched());
        let server = route.server.run(listen).unwrap();
        let (tell, told) = mpsc::channel();
        let service = server
            .serve(move |client| {
                client.read_line(10).unwrap(); // sent when the router drops packets
                client.write_all(b"news\n").unwrap();
                tell.send((read(client).unwrap_err().kind(), Instant::now())).unwrap();
            })
            .unwrap();
        let port = server.port();
        let mut client = TcpStream::connect((Ip::V4.server(), port)).unwrap();
        client.write_all(b"hello\n").unwrap();
        route.cut();
        let cut = Instant::now();
        let (kind, at) = told.recv_timeout(LIMIT).unwrap();
        let time = at.saturating_duration_since(cut);
        assert_eq!(kind, ErrorKind::Dead);
        assert!(time <= DEAD_AFTER + LATE, "{time:?}");
        let asked = "dead_after 4 s at the server";
        let control = "keepalive 1 s, 1 s, 3: not within 6 s";
        row("K3 dead client, in a handler of serve, IPv4", asked, seconds(time), control);
        drop(service);
    });
}

/// K3: a live peer that does not read is waited for, and then gets every byte. With
/// `fail_on_stall`, the control case, the connection fails with its own close reason. An idle live
/// peer stays connected.
#[test]
#[ignore = "long: cargo xtask netns"]
fn live_peer_that_does_not_read_stays_connected() {
    in_namespace(&test_name!("live_peer_that_does_not_read_stays_connected"), LIMIT, || {
        let route = Route::new();
        let bytes: Vec<u8> = (0..16u32 << 20).map(|i| (i % 251) as u8).collect();
        thread::scope(|scope| {
            for ip in Ip::BOTH {
                let (route, bytes) = (&route, &bytes);
                scope.spawn(move || {
                    let mut line = Line::new(route, ip, &watched());
                    let (client, far) = (&line.client, &mut line.far);
                    thread::scope(|scope| {
                        let write = scope.spawn(|| client.write_all(bytes));
                        thread::sleep(LONG);
                        if write.is_finished() {
                            panic!("given up: {:?}, {:?}", write.join(), client.stats());
                        }
                        let snapshot = client.stats().unwrap();
                        assert_eq!((snapshot.close_reason, snapshot.peer_window), (None, Some(0)));
                        let mut got = vec![0; bytes.len()];
                        far.read_exact(&mut got).unwrap();
                        write.join().unwrap().unwrap();
                        assert!(got == *bytes, "other bytes arrived");
                    });
                    let measured = format!("alive after 15 s, then {} bytes came", bytes.len());
                    let control = "fail_on_stall: given up";
                    let name = format!("K3 peer that does not read, {ip}");
                    row(&name, "dead_after 4 s", measured, control);
                });
                scope.spawn(move || {
                    let line = Line::new(route, ip, &watched().fail_on_stall(true));
                    let began = Instant::now();
                    let e = line.client.write_all(bytes).unwrap_err();
                    let time = began.elapsed();
                    assert_eq!(e.kind(), ErrorKind::Stalled, "{e}");
                    assert_eq!(line.client.close_reason(), Some(CloseReason::Stalled));
                    assert_eq!(read(&line.client).unwrap_err().kind(), ErrorKind::Stalled);
                    assert!(time <= DEAD_AFTER + LATE, "{time:?}");
                    let measured = format!("{} after {}", CloseReason::Stalled, seconds(time));
                    let asked = "dead_after 4 s, fail_on_stall";
                    let name = format!("K3 peer that does not read, {ip}");
                    row(&name, asked, measured, "without: waited for");
                });
                scope.spawn(move || {
                    let two = SocketOptions::new().dead_after(ms(2000)).read_timeout(LONG);
                    let line = Line::new(route, ip, &two);
                    // The control case: a similar connection whose packets are dropped.
                    let control = Line::new(route, ip, &two);
                    route.cut_port(control.far.local_addr().unwrap().port());
                    let cut = Instant::now();
                    assert_eq!(read(&control.client).unwrap_err().kind(), ErrorKind::Dead);
                    let died = cut.elapsed();
                    let e = read(&line.client).unwrap_err();
                    assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
                    (&line.far).write_all(b"x").unwrap();
                    assert_eq!(read(&line.client).unwrap(), 1);
                    let measured = "open after 15 s";
                    let name = format!("K3 idle live peer, {ip}");
                    let control = format!("no packets: dead after {}", seconds(died));
                    row(&name, "dead_after 2 s", measured, &control);
                });
            }
        });
    });
}

/// K6: a router that reports an unreachable host determines the close reason.
#[test]
fn unreachable_peer_is_reported_with_its_reason() {
    in_namespace(&test_name!("unreachable_peer_is_reported_with_its_reason"), LIMIT, || {
        unreachable_peer(Ip::V4, Ip::V6)
    });
}

/// K6: the same over IPv6.
#[test]
fn unreachable_ipv6_peer_is_reported_with_its_reason() {
    in_namespace(&test_name!("unreachable_ipv6_peer_is_reported_with_its_reason"), LIMIT, || {
        unreachable_peer(Ip::V6, Ip::V4)
    });
}

/// The router reports that one family is unreachable. The control case is the other family, whose
/// packets are dropped silently: `Dead`.
fn unreachable_peer(ip: Ip, other: Ip) {
    let route = Route::new();
    let line = Line::new(&route, ip, &watched());
    let control = Line::new(&route, other, &watched());
    route.remove_way(ip);
    route.blackhole(other);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            control.client.write_all(b"question").unwrap();
            assert_eq!(read(&control.client).unwrap_err().kind(), ErrorKind::Dead);
        });
        line.client.write_all(b"question").unwrap();
        let e = read(&line.client).unwrap_err();
        let time = began.elapsed();
        assert_eq!(e.kind(), ErrorKind::Unreachable, "{e}");
        assert_eq!(line.client.close_reason(), Some(CloseReason::Unreachable));
        assert!(time <= DEAD_AFTER + LATE, "{time:?}");
        let measured = format!("{} after {}", CloseReason::Unreachable, seconds(time));
        let name = format!("K6 no route, {ip}");
        row(&name, "dead_after 4 s", measured, "silent router: peer is dead");
    });
}

/// K6: a firewall that rejects (ICMP "port unreachable", the default of nftables) determines the
/// reason. Reads never report it as an end of the stream.
#[test]
fn rejecting_firewall_makes_peer_unreachable() {
    in_namespace(&test_name!("rejecting_firewall_makes_peer_unreachable"), LIMIT, || {
        let route = Route::new();
        let line = Line::new(&route, Ip::V4, &watched());
        route.router.run(|| {
            netns::nft(
                "table inet rejecting {
                 chain forward {
                 type filter hook forward priority -10; policy accept;
                 meta l4proto tcp reject with icmpx port-unreachable
                 }
                 }
                 ",
            );
        });
        let began = Instant::now();
        line.client.write_all(b"question").unwrap();
        // Before that time the peer may return: check_liveness does not close the connection.
        while line.client.stats().unwrap().retransmits < Some(2) {
            assert!(began.elapsed() < DEAD_AFTER, "sent again");
            line.client.check_liveness().unwrap();
            thread::sleep(ms(20));
        }
        let e = read(&line.client).unwrap_err();
        let time = began.elapsed();
        assert_eq!(line.client.close_reason(), Some(CloseReason::Unreachable), "{e}");
        assert!(time <= DEAD_AFTER + LATE, "{time:?}");
        for _ in 0..2 {
            assert_eq!(read(&line.client).unwrap_err().kind(), e.kind());
        }
        assert_eq!(line.client.wait_hangup(None).unwrap(), CloseReason::Unreachable);
        let measured = format!("{} after {}", CloseReason::Unreachable, seconds(time));
        row(
            "K6 a firewall rejects, IPv4",
            "dead_after 4 s",
            measured,
            "silent router: peer is dead",
        );
    });
}

/// C1, K3: dead_after does not shorten the connect timeout.
#[test]
fn dead_after_does_not_shorten_connect_timeout() {
    in_namespace(&test_name!("dead_after_does_not_shorten_connect_timeout"), LIMIT, || {
        netns::blackhole();
        let deadline = ms(3500);
        for strict in [false, true] {
            let options = SocketOptions::new()
                .dead_after(ms(2000))
                .fail_on_stall(strict)
                .connect_timeout(deadline);
            assert_within(deadline + ms(300), || {
                let began = Instant::now();
                let e = ClientSocket::connect_with(format!("{}:80", netns::HOLE), &options);
                assert_eq!(e.unwrap_err().kind(), ErrorKind::TimedOut);
                let time = began.elapsed();
                assert!(time >= deadline, "{time:?}");
                time
            });
        }
    });
}
