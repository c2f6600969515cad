//! The conditions that keepalive detects and misses (K3, K5, K6): peers that stop reading or hang,
//! and networks that drop keepalive or report an unreachable host.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{process, watch};
use keepsock::{ClientSocket, Error, ErrorKind, Keepalive, SocketOptions};
use socket2::SockRef;

use crate::support::netns::{Ip, Route, in_namespace, row};
use crate::support::process::Helper;
use crate::support::timing::{ms, seconds};

const LIMIT: Duration = Duration::from_secs(40);
/// The time in which idle 1 s, interval 1 s, count 3 must report a vanished peer, from the last
/// received byte.
const REPORTED: RangeInclusive<Duration> = Duration::from_secs(4)..=Duration::from_secs(5);
/// The time in which no event must occur.
const LONGER: Duration = Duration::from_secs(6);
/// More than the buffers of a peer that does not read and of this side hold.
const MUCH: usize = 64 << 20;

/// Options without a wait for vanished peers.
fn options() -> SocketOptions {
    SocketOptions::new()
        .connect_timeout(ms(5000))
        .read_timeout(LONGER)
        .write_timeout(LONGER)
        .close_timeout(Duration::ZERO)
}

fn with_keepalive() -> SocketOptions {
    options().keepalive(Keepalive::new(ms(1000), ms(1000), 3).unwrap())
}

fn listen(route: &Route, ip: Ip) -> TcpListener {
    route.server.run(|| TcpListener::bind(format!("{}:0", ip.server()))).unwrap()
}

/// A connection over the route, and its far end.
fn connect(route: &Route, ip: Ip, options: &SocketOptions) -> (ClientSocket, TcpStream) {
    let listener = listen(route, ip);
    let to = listener.local_addr().unwrap().to_string();
    let client = ClientSocket::connect_with(to.as_str(), options).unwrap();
    (client, listener.accept().unwrap().0)
}

/// A read that waits.
fn read(client: &ClientSocket) -> Result<(), Error> {
    client.read(&mut [0; 8]).map(|_| ())
}

/// The peer sends a byte. Returns the time from which its silence counts.
fn hear(client: &ClientSocket, mut peer: &TcpStream) -> Instant {
    peer.write_all(b"x").unwrap();
    read(client).unwrap();
    Instant::now()
}

/// Waits until unsent data is queued because the peer's window is closed.
fn await_closed_window(client: &ClientSocket) {
    let socket = client.borrow().unwrap();
    watch::await_that("the peer's window is closed", || watch::is_held_back(&socket));
}

// ---- not reading (K3) ----------------------------------------------------------------------

/// K3: a live peer that does not read stays connected, and gets every byte when it reads again. The
/// control case: TCP_USER_TIMEOUT alone, a common setting for data in flight, ends such a
/// connection (tcp(7): also when "buffered data may remain untransmitted (due to zero window
/// size)").
#[test]
fn live_peer_that_stops_reading_stays_connected() {
    let cases = [
        ("keepalive 1 s, 1 s, 3", with_keepalive()),
        ("dead_after 3 s", options().dead_after(Duration::from_secs(3))),
    ];
    in_namespace(&test_name!("live_peer_that_stops_reading_stays_connected"), LIMIT, || {
        let route = Route::new();
        thread::scope(|scope| {
            let control = scope.spawn(|| {
                let (stream, _not_reading) = user_timeout(&route, Ip::V4, Duration::from_secs(3));
                watch::fill_window(&stream);
                let start = Instant::now();
                let end = (&stream).read(&mut [0; 8]).unwrap_err();
                (end, start.elapsed())
            });
            let connect = |options: &SocketOptions| {
                connect(&route, Ip::V4, &options.clone().write_timeout(None))
            };
            let ends: Vec<_> = cases
                .iter()
                .map(|(asked, options)| (asked, connect(options)))
                .map(|(asked, (client, peer))| (asked, scope.spawn(|| write_late(client, peer))))
                .collect();
            let (end, time) = control.join().unwrap();
            println!("plain TCP_USER_TIMEOUT 3 s: {end} after {time:?}");
            assert_eq!(end.raw_os_error(), Some(libc::ETIMEDOUT));
            assert!(time >= ms(3000), "after {time:?}");
            let control = format!("plain TCP_USER_TIMEOUT 3 s: killed after {}", seconds(time));
            for (asked, end) in ends {
                end.join().unwrap().unwrap_or_else(|e| panic!("{asked}: {e}"));
                let scene = "K3 living peer does not read for 6 s";
                row(scene, asked, "stays connected, every byte received", &control);
            }
        });
    });
}

/// Writes more than fits to a peer that does not read for [`LONGER`], and then the rest, unless the
/// write has failed before.
fn write_late(client: ClientSocket, mut peer: TcpStream) -> Result<(), Error> {
    thread::scope(|scope| {
        let (send, done) = mpsc::channel();
        let client = &client;
        scope.spawn(move || send.send(client.write_all(&vec![b'x'; MUCH])).unwrap());
        await_closed_window(client);
        if let Ok(end) = done.recv_timeout(LONGER) {
            return end;
        }
        let mut left = MUCH;
        let mut part = vec![0; 1 << 16];
        while left > 0 {
            let n = peer.read(&mut part).unwrap();
            assert!(n > 0, "{left} bytes were lost");
            left -= n;
        }
        done.recv_timeout(ms(30_000)).unwrap()
    })
}

/// A plain connection with that TCP_USER_TIMEOUT, and its far end.
fn user_timeout(route: &Route, ip: Ip, time: Duration) -> (TcpStream, TcpStream) {
    let listener = listen(route, ip);
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    SockRef::from(&stream).set_tcp_user_timeout(Some(time)).unwrap();
    (stream, listener.accept().unwrap().0)
}

// ---- hanging (K5) -------------------------------------------------------------------------

/// The helper's part: echoes each client's bytes.
fn echo() {
    let listener = TcpListener::bind("198.51.100.2:0").unwrap();
    process::report(&listener.local_addr().unwrap().to_string());
    for client in listener.incoming() {
        let mut client = client.unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(n @ 1..) = client.read(&mut bytes) {
                client.write_all(&bytes[..n]).unwrap();
            }
        });
    }
}

/// K5: keepalive shows that the peer's kernel is alive. A hanging program does not end the
/// connection, and its kernel even acknowledges data. When the program continues, so does the
/// connection. A heartbeat tests the program. The control case: the same keepalive reports a peer
/// whose kernel does not respond.
#[test]
fn hanging_program_is_detected_by_heartbeat() {
    const TEST: &str = "hanging_program_is_detected_by_heartbeat";
    if process::role().is_some() {
        return echo();
    }
    in_namespace(&test_name!(TEST), LIMIT, || {
        let route = Route::new();
        let server = Helper::start_in(&route.server, &test_name!(TEST), "server");
        let to = server.next_line();
        let client = ClientSocket::connect_with(to.as_str(), &with_keepalive()).unwrap();
        let asks = with_keepalive().heartbeat(b"?", ms(700)).heartbeat_timeout(ms(1300));
        let asks = ClientSocket::connect_with(to.as_str(), &asks).unwrap();
        let echo = || client.write_all(b"x").and_then(|()| client.read_exact(&mut [0]));
        echo().unwrap();
        let (vanished, peer) = connect(&route, Ip::V4, &with_keepalive());
        read(&asks).expect("the program answers heartbeats");

        server.stop();
        let start = Instant::now();
        hear(&vanished, &peer);
        route.cut_port(peer.local_addr().unwrap().port());
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(read(&vanished).unwrap_err().kind(), ErrorKind::Dead);
                assert!(REPORTED.contains(&start.elapsed()), "after {:?}", start.elapsed());
            });
            scope.spawn(|| {
                // A reply may be in transit.
                let end = read(&asks).and_then(|()| read(&asks)).unwrap_err();
                let time = start.elapsed();
                assert_eq!(end.kind(), ErrorKind::HeartbeatTimeout, "{end}");
                assert!(time < LONGER, "after {time:?}");
                row(
                    "K5 peer's program hangs",
                    "heartbeat 0.7 s, timeout 1.3 s",
                    format!("heartbeat timeout after {}", seconds(time)),
                    "keepalive 1 s, 1 s, 3: lives after 6 s",
                );
            });
            let end = client.wait_hangup(LONGER).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::TimedOut, "the kernel answered: {end}");
        });
        client.set_read_timeout(ms(300)).unwrap();
        assert_eq!(echo().unwrap_err().kind(), ErrorKind::TimedOut);
        let socket = client.borrow().unwrap();
        watch::await_that("the kernel has acknowledged the data", || {
            watch::unacknowledged(&socket) == 0
        });

        server.resume();
        client.set_read_timeout(ms(5000)).unwrap();
        client.read_exact(&mut [0]).unwrap();
        echo().unwrap();
        row(
            "K5 peer's program hangs for 6 s",
            "keepalive 1 s, 1 s, 3",
            "lives, goes on",
            "kernel silent as well: dead within 5 s",
        );
    });
}

// ---- networks (K5, K6) --------------------------------------------------------------------

/// K5: if the network drops keepalive, it reports live peers as dead. Data passes, and a connection
/// with a heartbeat stays. The control case is a connection without one.
#[test]
fn dropped_keepalive_reports_live_peer_as_dead() {
    in_namespace(&test_name!("dropped_keepalive_reports_live_peer_as_dead"), LIMIT, || {
        let route = Route::new();
        let (silent, silent_peer) = connect(&route, Ip::V4, &with_keepalive());
        // So frequent that this side's keepalive is never due.
        let beats = with_keepalive().heartbeat(b"?", ms(700));
        let (beats, beats_peer) = connect(&route, Ip::V6, &beats);
        route.drop_keepalive();
        let start = Instant::now();
        hear(&silent, &silent_peer);
        thread::scope(|scope| {
            let dead = scope.spawn(|| {
                assert_eq!(read(&silent).unwrap_err().kind(), ErrorKind::Dead);
                start.elapsed()
            });
            assert_eq!(read(&beats).unwrap_err().kind(), ErrorKind::TimedOut);
            let dead = dead.join().unwrap();
            assert!(REPORTED.contains(&dead), "after {dead:?}");
            assert!(route.dropped_keepalive() >= 3);
            hear(&beats, &beats_peer);
            row(
                "K5 the network drops keepalive",
                "heartbeat 0.7 s",
                "lives after 6 s",
                &format!("keepalive 1 s, 1 s, 3 alone: dead after {}", seconds(dead)),
            );
        });
    });
}

/// K6: the effect of a router that reports an unreachable host. Linux accepts the report for an
/// unacknowledged segment, and does not end the connection: it continues when the route returns. If
/// the connection ends for another reason, the report is the close reason. With a silent router,
/// the control case, the reason is the timeout. A keepalive probe precedes the unacknowledged bytes
/// (`tcp_v4_err` ignores reports about it), so an idle connection ends as with a silent router.
#[test]
fn removed_route_is_the_close_reason() {
    in_namespace(&test_name!("removed_route_is_the_close_reason"), LIMIT, || {
        let route = Route::new();
        let (idle, idle_peer) = connect(&route, Ip::V4, &with_keepalive());
        let (waits, mut waits_peer) = connect(&route, Ip::V4, &with_keepalive());
        let timeout = Duration::from_secs(3);
        let [(told, _told_peer), (silent, _silent_peer)] =
            Ip::BOTH.map(|ip| user_timeout(&route, ip, timeout));
        let start = Instant::now();
        hear(&idle, &idle_peer);
        // No IPv4 packet reaches the point where the rule could drop it.
        route.remove_way(Ip::V4);
        route.cut();
        waits.write_all(b"x").unwrap();
        (&told).write_all(b"x").unwrap();
        (&silent).write_all(b"x").unwrap();
        for (mut stream, why) in [(&told, libc::EHOSTUNREACH), (&silent, libc::ETIMEDOUT)] {
            let end = stream.read(&mut [0]).unwrap_err();
            println!("TCP_USER_TIMEOUT {timeout:?}, data in flight: {end} ({:?})", start.elapsed());
            assert_eq!(end.raw_os_error(), Some(why));
        }
        let end = read(&idle).unwrap_err();
        println!("idle: {end} ({:?})", start.elapsed());
        assert!(REPORTED.contains(&start.elapsed()), "after {:?}", start.elapsed());
        assert_eq!((end.kind(), end.os_error()), (ErrorKind::Dead, Some(libc::ETIMEDOUT)));

        route.heal();
        route.restore_way(Ip::V4);
        waits_peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        waits_peer.read_exact(&mut [0]).unwrap();
        hear(&waits, &waits_peer);
        row(
            "K6 router reports no route for 4 s: data in flight",
            "keepalive 1 s, 1 s, 3",
            "continues when the route returns",
            "TCP_USER_TIMEOUT 3 s: no route to host; silent router: timed out",
        );
    });
}
