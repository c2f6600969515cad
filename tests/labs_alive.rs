//! Peers that vanish, stall or cannot be reached, and what is told of each (K3, K6).

#![cfg(target_os = "linux")]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use keepsock::{ClientSocket, End, Error, ErrorKind, Keepalive, ServerSocket, SocketOptions};

mod lab;
use lab::{Ip, Route, in_namespace, ms, row, seconds};

const LIMIT: Duration = Duration::from_secs(40);
/// What is asked for, and what K3 allows beyond it.
const DEAD_AFTER: Duration = Duration::from_secs(4);
const LATE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(15);

/// A connection to the far side of the route, whose end there is in our hands, too.
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

/// What a case does from the moment at which the peer vanishes, until it knows.
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
    ("data in flight, a hang-up is awaited", |line| {
        line.client.write_all(b"news").unwrap();
        assert_eq!(line.client.wait_hangup(LIMIT).unwrap(), End::Dead);
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
            match line.client.check_alive() {
                Ok(next) => thread::sleep(next.unwrap()),
                Err(e) => return e,
            }
        }
    }),
];

/// K3: a peer that vanishes is reported within the time and a second, whatever the connection
/// is doing. The control: keepalive alone, as quick as can be, does not notice with data in
/// flight, nor while a write waits.
#[test]
#[ignore = "long: cargo xtask labs"]
fn a_peer_that_vanishes_is_reported() {
    in_namespace("a_peer_that_vanishes_is_reported", LIMIT, || {
        let route = Route::new();
        let strict = watched().end_stalled(true);
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
                // The kernel keeps this one's time, and nobody needs to ask.
                if name != "non-blocking" {
                    let asked = "dead_after 4 s, end_stalled";
                    lines.push((name_, asked, run, Line::new(&route, ip, &strict)));
                }
            }
        }
        let control = Line::new(&route, Ip::V4, &blind);
        let control_writes = Line::new(&route, Ip::V4, &blind);
        let stalled = Line::new(&route, Ip::V4, &watched());
        thread::scope(|scope| {
            // One writer waits already, for a peer that lives but takes nothing.
            let waiting = scope.spawn(|| {
                let e = stalled.client.write_all(&vec![0; 64 << 20]).unwrap_err();
                (e.kind(), Instant::now())
            });
            thread::sleep(DEAD_AFTER + LATE);
            assert!(!waiting.is_finished(), "a peer that takes nothing lives");
            route.cut();
            let cut = Instant::now();
            for (name, asked, run, line) in &lines {
                scope.spawn(move || {
                    let end = run(line);
                    assert_dead(name, asked, cut.elapsed(), &end);
                    assert_eq!(line.client.end(), Some(End::Dead), "{name}");
                    // Every call knows, from now on, and closing needs no time.
                    assert_eq!(read(&line.client).unwrap_err().kind(), ErrorKind::Dead, "{name}");
                    let again = line.client.write_all(b"x").unwrap_err();
                    assert_eq!(again.kind(), ErrorKind::Dead, "{name}");
                    line.client.close().unwrap();
                    let last = line.client.snapshot().unwrap();
                    assert_eq!(last.end, Some(End::Dead), "{name}");
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
    // Silence began with the last segment that came, which was before the cut.
    let earliest = DEAD_AFTER - ms(1500);
    assert!((earliest..=DEAD_AFTER + LATE).contains(&time), "{name}, {asked}: {time:?}");
    let control = "keepalive 1 s, 1 s, 3: not within 6 s";
    row(name, asked, seconds(time), control);
}

/// K3: a server's handlers learn of it, too, with the server's options.
#[test]
fn a_handler_whose_client_vanishes() {
    in_namespace("a_handler_whose_client_vanishes", LIMIT, || {
        let route = Route::new();
        let endpoint = format!("{}:0", Ip::V4.server());
        let listen = || ServerSocket::listen_with(endpoint.as_str(), &watched());
        let server = route.server.run(listen).unwrap();
        let (tell, told) = mpsc::channel();
        let service = server
            .serve(move |client| {
                client.read_line(10).unwrap(); // sent when the way is cut
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

/// K3: a peer that lives but does not read is waited for, and then gets every byte; with
/// `end_stalled`, which is the control, it is given up, for a reason of its own. A peer that
/// is idle and lives is left alone.
#[test]
#[ignore = "long: cargo xtask labs"]
fn a_peer_that_lives() {
    in_namespace("a_peer_that_lives", LIMIT, || {
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
                        assert!(!write.is_finished(), "given up: {:?}", write.join());
                        let snapshot = client.snapshot().unwrap();
                        assert_eq!((snapshot.end, snapshot.peer_window), (None, Some(0)));
                        let mut got = vec![0; bytes.len()];
                        far.read_exact(&mut got).unwrap();
                        write.join().unwrap().unwrap();
                        assert!(got == *bytes, "other bytes came");
                    });
                    let measured = format!("alive after 15 s, then {} bytes came", bytes.len());
                    let control = "end_stalled: given up";
                    let name = format!("K3 peer that does not read, {ip}");
                    row(&name, "dead_after 4 s", measured, control);
                });
                scope.spawn(move || {
                    let line = Line::new(route, ip, &watched().end_stalled(true));
                    let began = Instant::now();
                    let e = line.client.write_all(bytes).unwrap_err();
                    let time = began.elapsed();
                    assert_eq!(e.kind(), ErrorKind::Stalled, "{e}");
                    assert_eq!(line.client.end(), Some(End::Stalled));
                    assert_eq!(read(&line.client).unwrap_err().kind(), ErrorKind::Stalled);
                    assert!(time <= DEAD_AFTER + LATE, "{time:?}");
                    let measured = format!("{} after {}", End::Stalled, seconds(time));
                    let asked = "dead_after 4 s, end_stalled";
                    let name = format!("K3 peer that does not read, {ip}");
                    row(&name, asked, measured, "without: waited for");
                });
                scope.spawn(move || {
                    let two = SocketOptions::new().dead_after(ms(2000)).read_timeout(LONG);
                    let line = Line::new(route, ip, &two);
                    // The control: another one like it, which is cut off.
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
                    let name = format!("K3 idle peer that lives, {ip}");
                    let control = format!("cut off: dead after {}", seconds(died));
                    row(&name, "dead_after 2 s", measured, &control);
                });
            }
        });
    });
}

/// K6: a router that says there is no way gives the reason for the end.
#[test]
fn a_peer_that_cannot_be_reached() {
    in_namespace("a_peer_that_cannot_be_reached", LIMIT, || no_way(Ip::V4, Ip::V6));
}

/// K6: the same over IPv6.
#[test]
fn a_peer_that_cannot_be_reached_over_ipv6() {
    in_namespace("a_peer_that_cannot_be_reached_over_ipv6", LIMIT, || no_way(Ip::V6, Ip::V4));
}

/// There is no way for one family any more, and the router says so. The control is the other
/// family, which is swallowed without a word: `Dead`.
fn no_way(ip: Ip, other: Ip) {
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
        assert_eq!(line.client.end(), Some(End::Unreachable));
        assert!(time <= DEAD_AFTER + LATE, "{time:?}");
        let measured = format!("{} after {}", End::Unreachable, seconds(time));
        let name = format!("K6 no route any more, {ip}");
        row(&name, "dead_after 4 s", measured, "without a word: peer is dead");
    });
}

/// K6: a firewall that rejects (ICMP "port unreachable", nftables' default) says why the peer gives
/// no answer. It is no end of the stream, however often one reads.
#[test]
fn a_peer_behind_a_firewall_that_rejects() {
    in_namespace("a_peer_behind_a_firewall_that_rejects", LIMIT, || {
        let route = Route::new();
        let line = Line::new(&route, Ip::V4, &watched());
        route.router.run(|| {
            lab::nft(
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
        // Before that time it may come back: looking does not end it.
        while line.client.snapshot().unwrap().retransmits < Some(2) {
            assert!(began.elapsed() < DEAD_AFTER, "sent again");
            line.client.check_alive().unwrap();
            thread::sleep(ms(20));
        }
        let e = read(&line.client).unwrap_err();
        let time = began.elapsed();
        assert_eq!(line.client.end(), Some(End::Unreachable), "{e}");
        assert!(time <= DEAD_AFTER + LATE, "{time:?}");
        for _ in 0..2 {
            assert_eq!(read(&line.client).unwrap_err().kind(), e.kind());
        }
        assert_eq!(line.client.wait_hangup(None).unwrap(), End::Unreachable);
        let measured = format!("{} after {}", End::Unreachable, seconds(time));
        row(
            "K6 a firewall rejects, IPv4",
            "dead_after 4 s",
            measured,
            "without a word: peer is dead",
        );
    });
}

/// C1, K3: connecting has the time that it was given, whatever holds for the connection.
#[test]
fn dead_after_does_not_shorten_connecting() {
    in_namespace("dead_after_does_not_shorten_connecting", LIMIT, || {
        lab::blackhole();
        let deadline = ms(3500);
        for strict in [false, true] {
            let options = SocketOptions::new()
                .dead_after(ms(2000))
                .end_stalled(strict)
                .connect_timeout(deadline);
            let began = Instant::now();
            let e = ClientSocket::connect_with(format!("{}:80", lab::HOLE), &options).unwrap_err();
            let time = began.elapsed();
            assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
            assert!((deadline..deadline + ms(300)).contains(&time), "{time:?}");
        }
    });
}
