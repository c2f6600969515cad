//! Firewalls that forget idle connections (K4).

use std::thread;
use std::time::{Duration, Instant};

use keepsock::{ClientSocket, ErrorKind, Keepalive, ServerSocket, SocketOptions};

use crate::support::netns::{Ip, Route, in_namespace, row};
use crate::support::timing::{ms, seconds};

const LIMIT: Duration = Duration::from_secs(40);
/// The firewall forgets a connection without packets after this many seconds.
const FORGETS: u32 = 5;
/// Longer than that: a later push reaches a firewall that has forgotten the connection.
const IDLE: Duration = Duration::from_millis(5500);
/// The time that the client waits for the push, which takes less than a millisecond if it passes.
/// TCP retransmits it after 200 ms, 600 ms and so on.
const WAITS: Duration = Duration::from_millis(3000);
const PUSH: u8 = b'!';

/// The options of each side, and whether they keep the connection.
struct Case {
    asked: &'static str,
    client: SocketOptions,
    server: SocketOptions,
    survives: bool,
}

/// K4: a connection that is idle for longer than a firewall remembers receives the server's push if
/// either side keeps it alive. The control case: without keepalive the firewall drops the push, and
/// neither side learns the reason.
#[test]
fn idle_connection_through_firewall_is_kept_alive() {
    let base = SocketOptions::new().close_timeout(Duration::ZERO);
    let none = base.clone().keepalive(None);
    let alive = none.clone().keepalive(Keepalive::new(ms(2000), ms(2000), 3).unwrap());
    let survives = base.middlebox_timeout(Duration::from_secs(FORGETS.into()));
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
        case("middlebox_timeout 5 s at the client", &survives, &none, true),
        case("middlebox_timeout 5 s at the server", &none, &survives, true),
        case("heartbeat 2 s at the client", &beats, &none, true),
        case("heartbeat 2 s at the server", &none, &beats, true),
    ];
    in_namespace(&test_name!("idle_connection_through_firewall_is_kept_alive"), LIMIT, || {
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
        // The pushes were lost for the intended reason: the firewall dropped a push and its
        // retransmissions, for each family.
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

/// Connects, leaves the connection idle, and makes the server push. `None`: the push did not
/// arrive.
fn push_after_silence(route: &Route, case: &Case, ip: Ip) -> Option<Duration> {
    let listen = || ServerSocket::listen_with(format!("{}:0", ip.server()).as_str(), &case.server);
    let server = route.server.run(listen).unwrap();
    let client = ClientSocket::connect_with(server.endpoint(), &case.client).unwrap();
    let accepted = server.accept().unwrap();
    thread::scope(|scope| {
        // Both sides are in a call all the time, as programs that wait for messages are.
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
