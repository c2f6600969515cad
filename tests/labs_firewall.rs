//! Firewalls that forget idle connections (K4).

#![cfg(target_os = "linux")]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::thread;
use std::time::{Duration, Instant};

use keepsock::{ClientSocket, ErrorKind, Keepalive, ServerSocket, SocketOptions};

mod lab;
use lab::{Ip, Route, in_namespace, ms, row, seconds};

const LIMIT: Duration = Duration::from_secs(40);
/// The firewall forgets a connection without packets after so many seconds.
const FORGETS: u32 = 5;
/// Longer than that: what is pushed now meets a firewall that has forgotten.
const IDLE: Duration = Duration::from_millis(5500);
/// How long the client waits for the push, which takes no millisecond when it
/// passes. TCP sends it again after 200 ms, 600 ms and so on.
const WAITS: Duration = Duration::from_millis(1000);
const PUSH: u8 = b'!';

/// What each side asks for, and whether that keeps the connection.
struct Case {
    asked: &'static str,
    client: SocketOptions,
    server: SocketOptions,
    survives: bool,
}

/// K4: a connection that is idle for longer than a firewall remembers takes the
/// server's push, if one of its sides, whichever, keeps it alive. The control:
/// without, the firewall drops the push, and neither side learns why.
#[test]
fn a_firewall_that_forgets() {
    let base = SocketOptions::new().close_timeout(Duration::ZERO);
    let none = base.clone().keepalive(None);
    let alive = none.clone().keepalive(Keepalive::new(ms(2000), ms(2000), 3).unwrap());
    let survives = base.survive_idle(Duration::from_secs(FORGETS.into()));
    let beats = none.clone().heartbeat(b".", ms(2000));
    let case = |asked, client: &SocketOptions, server: &SocketOptions, survives| Case {
        asked,
        client: client.clone(),
        server: server.clone(),
        survives,
    };
    let cases = [
        case("no keepalive", &none, &none, false),
        case("keepalive idle 2 s at the client", &alive, &none, true),
        case("keepalive idle 2 s at the server", &none, &alive, true),
        case("survive_idle 5 s at the client", &survives, &none, true),
        case("survive_idle 5 s at the server", &none, &survives, true),
        case("heartbeat 2 s at the client", &beats, &none, true),
        case("heartbeat 2 s at the server", &none, &beats, true),
    ];
    in_namespace("a_firewall_that_forgets", LIMIT, || {
        let route = Route::new();
        route.forget_idle_after(FORGETS);
        thread::scope(|scope| {
            for case in &cases {
                for ip in Ip::BOTH {
                    let route = &route;
                    scope.spawn(move || assert_push_after_silence(route, case, ip));
                }
            }
        });
        // They were lost for the reason that is meant: the firewall dropped a push,
        // and what TCP sent again, of each family.
        assert!(route.forgotten() >= 4, "{} packets", route.forgotten());
    });
}

fn assert_push_after_silence(route: &Route, case: &Case, ip: Ip) {
    let scene = format!("K4 push after {} idle, {ip}", seconds(IDLE));
    let arrived = push_after_silence(route, case, ip);
    println!("{scene}, {}: {arrived:?}", case.asked);
    assert_eq!(arrived.is_some(), case.survives, "{scene}, {}", case.asked);
    if let Some(time) = arrived {
        let measured = format!("arrives in {}", seconds(time));
        row(&scene, case.asked, measured, "no keepalive: lost");
    }
}

/// Connects, lets the connection be idle, and has the server push. `None`: the
/// push did not come.
fn push_after_silence(route: &Route, case: &Case, ip: Ip) -> Option<Duration> {
    let listen = || ServerSocket::listen_with(format!("{}:0", ip.server()).as_str(), &case.server);
    let server = route.server.run(listen).unwrap();
    let client = ClientSocket::connect_with(server.endpoint(), &case.client).unwrap();
    let accepted = server.accept().unwrap();
    thread::scope(|scope| {
        // Both sides are in a call all the time, as programs are that await news.
        client.set_read_timeout(IDLE + WAITS).unwrap();
        let news = scope.spawn(|| match client.read_until(PUSH, 64) {
            Ok(_) => Some(Instant::now()),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::TimedOut, "{}: {e}", case.asked);
                None
            }
        });
        let end = accepted.wait_hangup(IDLE).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::TimedOut, "{}: {end}", case.asked);
        let pushed = Instant::now();
        accepted.write_all(&[PUSH]).unwrap();
        news.join().unwrap().map(|came| came.saturating_duration_since(pushed))
    })
}
