//! C1, C2: half-broken networks, and the behavior of curl and Python's socket.create_connection()
//! in each of them in the same run. (A program that is not installed is not compared.)

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{netns, timing};
use keepsock::{ClientSocket, Error, ErrorKind, SocketOptions};

use crate::support::netns::{Ip, Route, in_namespace, names, replace_file, row};
use crate::support::timing::{ms, seconds};

const LIMIT: Duration = Duration::from_secs(60);
/// The time limit of the other programs, so that the test ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server of both families behind the router, on one port, which only accepts.
fn listen(route: &Route) -> u16 {
    let bind = |ip: Ip, port| TcpListener::bind(format!("{}:{port}", ip.server()));
    let pair = || {
        // A port that is free in both families.
        for _ in 0..100 {
            let six = bind(Ip::V6, 0).unwrap();
            if let Ok(four) = bind(Ip::V4, six.local_addr().unwrap().port()) {
                return [six, four];
            }
        }
        panic!("no port is free for both families");
    };
    let listeners = route.server.run(pair);
    let port = listeners[0].local_addr().unwrap().port();
    for listener in listeners {
        thread::spawn(move || while listener.accept().is_ok() {});
    }
    port
}

/// A name with addresses of both families, IPv6 first, as the system orders them (RFC 6724).
const HOSTS: &str = "2001:db8:2::2 server.test\n198.51.100.2 server.test\n";

fn connect(to: &str, options: &SocketOptions) -> (Result<ClientSocket, Error>, Duration) {
    let start = Instant::now();
    let outcome = ClientSocket::connect_with(to, options);
    (outcome, start.elapsed())
}

/// The time that curl needs to connect.
fn curl(host: &str, port: u16, patience: Duration) -> String {
    let seconds_ = patience.as_secs_f64().to_string();
    let output = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{time_connect} %{errormsg}"])
        .args(["--connect-timeout", &seconds_, &format!("http://{host}:{port}/")])
        .env_remove("http_proxy")
        .args(["--noproxy", "*"])
        .output();
    let Ok(output) = output else {
        return "curl not installed".to_owned();
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split_whitespace().next().and_then(|t| t.parse::<f64>().ok()) {
        Some(time) if time > 0.0 => format!("curl {}", seconds(Duration::from_secs_f64(time))),
        _ => format!("curl fails after {}", seconds(patience)),
    }
}

/// The time that Python needs to connect.
fn python(host: &str, port: u16, patience: Duration) -> String {
    const SCRIPT: &str = "
import socket, sys, time
start = time.monotonic()
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
    print('ok', time.monotonic() - start)
except OSError as e:
    print('no', time.monotonic() - start)
";
    let seconds_ = patience.as_secs_f64().to_string();
    let output =
        Command::new("python3").args(["-c", SCRIPT, host, &port.to_string(), &seconds_]).output();
    let Ok(output) = output else {
        return "Python not installed".to_owned();
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace();
    let (how, time) = (words.next(), words.next().and_then(|t| t.parse::<f64>().ok()));
    match (how, time) {
        (Some("ok"), Some(time)) => format!("Python {}", seconds(Duration::from_secs_f64(time))),
        (_, Some(time)) => format!("Python fails after {}", seconds(Duration::from_secs_f64(time))),
        _ => "Python not installed".to_owned(),
    }
}

/// The times of the other programs, in threads because they may be slow.
fn others(host: &str, port: u16, patience: Duration) -> String {
    thread::scope(|scope| {
        let curl = scope.spawn(|| curl(host, port, patience));
        let python = scope.spawn(|| python(host, port, patience));
        format!("{}, {}", curl.join().unwrap(), python.join().unwrap())
    })
}

/// Connects by name, and checks which family connects and when.
fn assert_connects(name: &str, port: u16, over: Ip, within: std::ops::RangeInclusive<Duration>) {
    let to = format!("server.test:{port}");
    let time = timing::assert_within(*within.end(), || {
        let (client, time) = connect(&to, &SocketOptions::new());
        let remote = client.unwrap().five_tuple().remote.to_string();
        if !remote.starts_with(over.server()) {
            // On a busy machine the attempt over the other family may be the first to connect.
            println!("{name}: connected to {remote}");
            return Duration::MAX;
        }
        assert!(time >= *within.start(), "{name}: {time:?}");
        time
    });
    let control = others("server.test", port, PATIENCE);
    let measured = format!("{} over {over}", seconds(time));
    row(&format!("C2 {name}"), "the defaults", measured, &control);
}

/// C2: if one family does not reply or refuses, the connect uses the other family in time.
#[test]
#[ignore = "long: cargo xtask netns"]
fn connect_with_one_broken_family_uses_the_other() {
    in_namespace(&test_name!("connect_with_one_broken_family_uses_the_other"), LIMIT, || {
        names(HOSTS);
        let route = Route::new();
        let port = listen(&route);
        assert_connects("no fault", port, Ip::V6, ms(0)..=ms(50));
        route.blackhole(Ip::V6);
        assert_connects("IPv6 blackholed", port, Ip::V4, ms(250)..=ms(350));
    });
}

/// C2: the slow family connects as soon as it replies, although a later attempt was started.
#[test]
fn connect_with_broken_and_slow_family_uses_the_slow_one() {
    in_namespace(
        &test_name!("connect_with_broken_and_slow_family_uses_the_slow_one"),
        LIMIT,
        || {
            names(HOSTS);
            let route = Route::new();
            let port = listen(&route);
            route.blackhole(Ip::V4);
            route.lose_first_syn(Ip::V6);
            assert_connects("IPv4 blackholed, IPv6 slow", port, Ip::V6, ms(900)..=ms(1300));
        },
    );
}

/// C2: a refused attempt causes no wait.
#[test]
fn connect_with_refusing_family_uses_the_other() {
    in_namespace(&test_name!("connect_with_refusing_family_uses_the_other"), LIMIT, || {
        names(HOSTS);
        let route = Route::new();
        let bind = || TcpListener::bind(format!("{}:0", Ip::V4.server())).unwrap();
        let listener = route.server.run(bind);
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || while listener.accept().is_ok() {});
        assert_connects("IPv6 refused", port, Ip::V4, ms(0)..=ms(50));
    });
}

/// C1, C2: of six addresses the first two are blackholed, or all six are, and the deadline applies.
#[test]
#[ignore = "long: cargo xtask netns"]
fn connect_with_blackholed_addresses_uses_the_next_one() {
    in_namespace(&test_name!("connect_with_blackholed_addresses_uses_the_next_one"), LIMIT, || {
        let holes = "2001:db8:2::66 server.test\n198.51.100.66 server.test\n";
        let more = "2001:db8:2::77 hole.test\n198.51.100.77 hole.test\n";
        let aliases = "198.51.100.3 server.test\n2001:db8:2::3 server.test\n";
        names(&format!("{holes}{HOSTS}{aliases}{more}"));
        let route = Route::new();
        let port = listen(&route);
        for hole in ["198.51.100.66/32", "198.51.100.77/32"] {
            route.router.ip(&format!("route add blackhole {hole}"));
        }
        for hole in ["2001:db8:2::66/128", "2001:db8:2::77/128"] {
            route.router.ip(&format!("-6 route add blackhole {hole}"));
        }
        // For a route of this type Linux sends no error to the sender.
        let mut remote = String::new();
        let time = timing::assert_within(ms(800), || {
            let (client, time) = connect(&format!("server.test:{port}"), &SocketOptions::new());
            remote = client.unwrap().five_tuple().remote.to_string();
            assert!(time >= ms(250), "{time:?} to {remote}");
            time
        });
        let control = others("server.test", port, PATIENCE);
        let measured = format!("{} to {remote}", seconds(time));
        row("C2 first two of six blackholed", "the defaults", measured, &control);

        let deadline = ms(1000);
        let options = SocketOptions::new().connect_timeout(deadline);
        let time = timing::assert_on_time(deadline, || {
            let (outcome, time) = connect(&format!("hole.test:{port}"), &options);
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            assert_eq!(error.attempts().len(), 2, "{error}");
            time
        });
        let control = others("hole.test", port, deadline);
        row("C1 all blackholed", "connect_timeout 1 s", seconds(time), &control);
    });
}

/// C1: a connect with a silent resolver ends by its timeout.
#[test]
#[ignore = "long: cargo xtask netns"]
fn connect_with_silent_resolver_times_out() {
    in_namespace(&test_name!("connect_with_silent_resolver_times_out"), LIMIT, || {
        netns::silent_resolver("timeout:3 attempts:1");
        let deadline = ms(1000);
        let options = SocketOptions::new().connect_timeout(deadline);
        let time = timing::assert_on_time(deadline, || {
            let (outcome, time) = connect("server.test:80", &options);
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            time
        });
        let control = others("server.test", 80, deadline);
        row("C1 resolver that never answers", "connect_timeout 1 s", seconds(time), &control);
    });
}

/// A name server that replies to IPv4 queries with a local address, and does not reply to IPv6
/// queries.
fn half_a_name_server() {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            // RFC 1035 section 4.1: a header of 12 bytes, the name, two bytes of type.
            let name = packet[12..len].iter().position(|b| *b == 0).map_or(len, |i| 12 + i + 1);
            if packet.get(name..name + 2) != Some(&[0, 1]) {
                continue;
            }
            let mut answer = packet[..name + 4].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            // The name again by reference, A, IN, a minute, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            let _ = socket.send_to(&answer, from);
        }
    });
}

/// C2: the name server does not reply for one family. The other programs wait for it. The control
/// case shows that a query for both families takes the resolver's whole time.
#[test]
#[ignore = "long: cargo xtask netns"]
fn connect_without_reply_for_one_family_uses_the_other() {
    in_namespace(&test_name!("connect_without_reply_for_one_family_uses_the_other"), LIMIT, || {
        replace_file("/etc/nsswitch.conf", "hosts: dns\n");
        replace_file("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n");
        half_a_name_server();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || while listener.accept().is_ok() {});
        let time = timing::assert_within(ms(400), || {
            let (client, time) = connect(&format!("server.test:{port}"), &SocketOptions::new());
            assert_eq!(client.unwrap().five_tuple().remote.host(), "127.0.0.1");
            time
        });
        let control = others("server.test", port, PATIENCE);
        let start = Instant::now();
        let both = std::net::ToSocketAddrs::to_socket_addrs(&("server.test", port));
        assert!(both.is_ok() && start.elapsed() >= ms(1900), "{both:?}, {:?}", start.elapsed());
        row("C2 no answer to AAAA", "the defaults", seconds(time), &control);
    });
}
