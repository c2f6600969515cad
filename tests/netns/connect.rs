//! Connects and listens in faulty networks. Each test has its own network namespace, which no
//! packet leaves.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{limits, netns, process, watch};
use keepsock::{
    Address, CancelToken, ClientSocket, CloseReason, DatagramSocket, Endpoint, Error, ErrorKind,
    Family, PendingConnect, Reconnect, ServerSocket, SocketOptions, Stage,
};

use crate::support::netns::{HOLE, HOLE6, Ip, Route, in_namespace, ip, row};
use crate::support::process::in_process;
use crate::support::timing::{GRACE, assert_on_time, assert_within, ms, seconds};

const LIMIT: Duration = Duration::from_secs(40);

fn options(deadline: Duration) -> SocketOptions {
    SocketOptions::new().connect_timeout(deadline)
}

/// Connects, which must fail, and returns the error and its duration.
fn fails(endpoint: &str, options: &SocketOptions) -> (Error, Duration) {
    let start = Instant::now();
    let err = ClientSocket::connect_with(endpoint, options).expect_err(endpoint);
    let elapsed = start.elapsed();
    println!("{err}");
    (err, elapsed)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn attempted(err: &Error) -> Vec<(String, Stage, ErrorKind)> {
    err.attempts().iter().map(|a| (a.address.to_string(), a.stage, a.kind)).collect()
}

/// The control case of every test with a blackhole: a connect without a deadline still waits after
/// `time`.
fn assert_waits<T: Send + 'static>(time: Duration, connect: impl FnOnce() -> T + Send + 'static) {
    let (send, done) = mpsc::channel();
    thread::spawn(move || send.send(connect()));
    assert!(done.recv_timeout(time).is_err(), "the address answers");
}

/// C1, C3: a connect to an address that drops all packets returns by its deadline, reports the
/// timeout, and lists the attempt.
#[test]
fn connect_to_blackholed_address_times_out() {
    in_namespace(&test_name!("connect_to_blackholed_address_times_out"), LIMIT, || {
        netns::blackhole();
        let (v4, v6) = (format!("{HOLE}:80"), format!("[{HOLE6}]:80"));
        for to in [v4.clone(), v6.clone()] {
            let std = address(&to);
            assert_waits(ms(700), move || TcpStream::connect(std));
        }
        let deadline = ms(500);
        for to in [&v4, &v6] {
            let descriptors = watch::count_descriptors();
            let back = assert_on_time(deadline, || {
                let (err, elapsed) = fails(to, &options(deadline));
                assert_eq!(err.kind(), ErrorKind::TimedOut);
                let tried = [(to.clone(), Stage::Connect, ErrorKind::TimedOut)];
                assert_eq!(attempted(&err), tried);
                assert_eq!((err.os_error(), err.attempts()[0].os_error), (None, None));
                assert!(err.attempts()[0].elapsed >= deadline);
                let says = format!("connect to {to}: timed out after ");
                assert!(err.to_string().starts_with(&says), "{err}");
                elapsed
            });
            assert_eq!(watch::count_descriptors(), descriptors);
            let control = "no deadline: waits after 0.7 s";
            let scene = format!("C1 blackholed address {to}");
            row(&scene, "connect timeout 0.5 s", format!("back after {}", seconds(back)), control);
        }
    });
}

/// C1: a deadline can be longer than the first retransmissions of the SYN.
#[test]
fn connect_timeout_beyond_retransmissions_is_exact() {
    in_namespace(&test_name!("connect_timeout_beyond_retransmissions_is_exact"), LIMIT, || {
        netns::blackhole();
        let deadline = ms(3500);
        let to = address(&format!("{HOLE}:80"));
        let back = thread::scope(|scope| {
            scope.spawn(|| assert_waits(deadline + GRACE, move || TcpStream::connect(to)));
            assert_on_time(deadline, || {
                let (err, elapsed) = fails(&to.to_string(), &options(deadline));
                assert_eq!(err.kind(), ErrorKind::TimedOut);
                elapsed
            })
        });
        let measured = format!("back after {}", seconds(back));
        let scene = "C1 blackholed address, SYN sent again at 1 s and 3 s";
        row(scene, "connect timeout 3.5 s", measured, "no deadline: waits after 3.55 s");
    });
}

/// A blackholed first address delays the connect by a quarter of a second (C2).
const WITH_A_HOLE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_millis(350);

/// C2, C4: a blackholed first address in the caller's list delays the connect a little, and leaves
/// no descriptor behind.
#[test]
fn connect_with_blackholed_first_address_uses_the_next() {
    in_namespace(&test_name!("connect_with_blackholed_first_address_uses_the_next"), LIMIT, || {
        netns::blackhole();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let works = server.local_addr().unwrap();
        let hole = SocketAddr::new(HOLE.parse().unwrap(), works.port());
        assert_waits(ms(700), move || TcpStream::connect(hole));
        let options = options(ms(3000)).remote_address(hole).remote_address(works);
        // The control case keeps its own descriptor while it waits.
        let descriptors = watch::count_descriptors();
        let connected = assert_within(*WITH_A_HOLE.end(), || {
            let start = Instant::now();
            let client = ClientSocket::connect_with("example.test:80", &options).unwrap();
            let elapsed = start.elapsed();
            assert!(elapsed >= *WITH_A_HOLE.start(), "the first attempt had only {elapsed:?}");
            assert_eq!(client.five_tuple().remote, works.into());
            assert_eq!(
                watch::count_descriptors(),
                descriptors + 1,
                "the descriptor of the failed attempt is closed"
            );
            elapsed
        });
        let measured = format!("connected after {}", seconds(connected));
        row("C2 first address blackholed", "two addresses", measured, "alone: waits after 0.7 s");
    });
}

/// C2, C4: a blackholed first address of a name delays the connect a little.
#[test]
fn connect_by_name_with_blackholed_address_uses_the_next() {
    in_namespace(
        &test_name!("connect_by_name_with_blackholed_address_uses_the_next"),
        LIMIT,
        || {
            netns::blackhole();
            // RFC 6724 puts IPv6 first.
            netns::names(&format!("127.0.0.1 two.test\n{HOLE6} two.test\n"));
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = server.local_addr().unwrap().port();
            let order: Vec<_> = ("two.test", port).to_socket_addrs().unwrap().collect();
            assert_eq!(order.iter().map(SocketAddr::is_ipv6).collect::<Vec<_>>(), [true, false]);
            assert_waits(ms(700), move || TcpStream::connect((HOLE6, port)));
            let to = format!("two.test:{port}");
            let connected = assert_within(*WITH_A_HOLE.end(), || {
                let start = Instant::now();
                let client = ClientSocket::connect_with(to.as_str(), &options(ms(3000))).unwrap();
                let elapsed = start.elapsed();
                assert!(elapsed >= *WITH_A_HOLE.start(), "the first attempt had only {elapsed:?}");
                assert_eq!(client.five_tuple().remote.host(), "127.0.0.1");
                elapsed
            });
            let measured = format!("connected over IPv4 after {}", seconds(connected));
            row(
                "C2 IPv6 blackholed",
                "a name with both",
                measured,
                "IPv6 alone: waits after 0.7 s",
            );

            // C1, C3: if the second address refuses, both attempts are listed with their results, and
            // the first one has the whole time.
            drop(server);
            let mut said = None;
            assert_on_time(ms(1500), || {
                let (err, elapsed) = fails(&to, &options(ms(1500)));
                said = Some(err);
                elapsed
            });
            let err = said.unwrap();
            let (first, second) = (format!("[{HOLE6}]:{port}"), format!("127.0.0.1:{port}"));
            let of = |to: &str, kind| (to.to_owned(), Stage::Connect, kind);
            assert_eq!(
                attempted(&err),
                [of(&second, ErrorKind::Refused), of(&first, ErrorKind::TimedOut)]
            );
            assert_eq!(err.kind(), ErrorKind::TimedOut);
            let text = err.to_string();
            assert!(text.contains(&format!("{first}: timed out after 1.")), "{text}");
            assert!(text.contains(&format!("{second}: connection refused after")), "{text}");
        },
    );
}

/// C2: IPv4 is blackholed, and IPv6 takes a second because its first SYN is lost. The slow attempt
/// continues when the next one begins, in either order. The control case connects to each address
/// alone.
#[test]
fn connect_with_slow_second_family_waits_for_it() {
    in_namespace(&test_name!("connect_with_slow_second_family_waits_for_it"), LIMIT, || {
        let route = Route::new();
        route.blackhole(Ip::V4);
        route.lose_first_syn(Ip::V6);
        let server = route.server.run(|| ServerSocket::listen("*:0")).unwrap();
        let [v4, v6] = Ip::BOTH.map(|ip| address(&format!("{}:{}", ip.server(), server.port())));
        assert_waits(ms(1500), move || TcpStream::connect(v4));
        let start = Instant::now();
        TcpStream::connect(v6).unwrap();
        let alone = start.elapsed();
        assert!(alone >= ms(950), "IPv6 alone took {alone:?}");
        for (scene, first, second) in
            [("IPv6 slow, IPv4 blackholed", v6, v4), ("IPv4 blackholed, IPv6 slow", v4, v6)]
        {
            let options = options(ms(5000)).remote_address(first).remote_address(second);
            let descriptors = watch::count_descriptors();
            let connected = assert_within(ms(1300), || {
                let start = Instant::now();
                let client = ClientSocket::connect_with("both.test:80", &options).unwrap();
                let elapsed = start.elapsed();
                assert_eq!(client.five_tuple().remote, v6.into());
                assert_eq!(
                    watch::count_descriptors(),
                    descriptors + 1,
                    "the descriptor of the failed attempt is closed"
                );
                elapsed
            });
            let measured = format!("connected over IPv6 after {}", seconds(connected));
            let control = format!("IPv6 alone: {}; IPv4 alone: waits after 1.5 s", seconds(alone));
            row(&format!("C2 {scene}"), "both addresses", measured, &control);
        }
    });
}

/// C3, E1: a refused connection and each kind of unreachable destination has its own error kind,
/// with the system's reason.
#[test]
fn connect_that_fails_reports_each_kind() {
    in_namespace(&test_name!("connect_that_fails_reports_each_kind"), LIMIT, || {
        ip("route add unreachable 198.51.100.0/24");
        ip("route add prohibit 203.0.113.0/24");
        ip("-6 route add unreachable 2001:db8:1::/48");
        let at_once = |to: &str, kind, os_error, says: &str| {
            let (err, elapsed) = fails(to, &options(Duration::from_secs(5)));
            assert_eq!(err.kind(), kind, "{err}");
            assert_eq!(err.os_error(), Some(os_error));
            assert_eq!(attempted(&err), [(to.to_owned(), Stage::Connect, kind)]);
            let start = format!("connect to {to}: {says}");
            assert!(err.to_string().starts_with(&start), "{err}");
            assert!(elapsed < ms(4000), "back after {elapsed:?}");
        };
        // Bound and not listening: no other socket has the port.
        let held =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        held.bind(&address("127.0.0.1:0").into()).unwrap();
        let nobody = held.local_addr().unwrap().as_socket().unwrap().to_string();
        at_once(&nobody, ErrorKind::Refused, libc::ECONNREFUSED, "connection refused after");
        let unreachable = ErrorKind::Unreachable;
        at_once("192.0.2.1:80", unreachable, libc::ENETUNREACH, "Network is unreachable");
        at_once("[2001:db8::1]:80", unreachable, libc::ENETUNREACH, "Network is unreachable");
        at_once("198.51.100.1:80", unreachable, libc::EHOSTUNREACH, "No route to host");
        at_once("[2001:db8:1::1]:80", unreachable, libc::EHOSTUNREACH, "No route to host");
        let denied = ErrorKind::PermissionDenied;
        at_once("203.0.113.1:80", denied, libc::EACCES, "permission denied after");

        // C3: all of them as addresses of one name, in order, with the kind of the first one.
        let all = options(Duration::from_secs(5))
            .remote_address(address("198.51.100.1:80"))
            .remote_address(address("192.0.2.1:80"))
            .remote_address(address(&nobody));
        let (err, _) = fails("many.test:80", &all);
        let tried = |to: &str, kind| (to.to_owned(), Stage::Connect, kind);
        assert_eq!(
            attempted(&err),
            [
                tried("198.51.100.1:80", unreachable),
                tried("192.0.2.1:80", unreachable),
                tried(&nobody, ErrorKind::Refused)
            ]
        );
        assert_eq!((err.kind(), err.endpoint()), (unreachable, "many.test:80"));
    });
}

/// The replies with which firewalls reject, by address: the words of nftables, and the errno of
/// Linux.
const REJECTIONS: [(&str, &str, i32); 6] = [
    ("127.0.0.1", "icmp type admin-prohibited", libc::EHOSTUNREACH),
    ("127.0.0.1", "icmp type prot-unreachable", libc::ENOPROTOOPT),
    ("127.0.0.1", "icmp type port-unreachable", libc::ECONNREFUSED),
    ("[::1]", "icmpv6 type admin-prohibited", libc::EACCES),
    ("[::1]", "icmpv6 type policy-fail", libc::EACCES),
    ("[::1]", "icmpv6 type port-unreachable", libc::ECONNREFUSED),
];

/// Makes the peer's firewall reject packets to the port.
fn reject(transport: &str, port: u16, how: &str) {
    netns::nft(&format!(
        "table inet firewall {{
             chain input {{
                 type filter hook input priority 0; policy accept;
                 {transport} dport {port} reject with {how}
             }}
         }}"
    ));
}

fn stop_rejecting() {
    netns::nft("flush ruleset");
}

/// K7: a firewall's rejection during a connect is reported neither as a policy of this host nor as
/// a lack of resources. Reconnecting continues until the firewall accepts.
#[test]
fn reconnect_while_firewall_rejects_continues() {
    in_namespace(&test_name!("reconnect_while_firewall_rejects_continues"), LIMIT, || {
        let server = ServerSocket::listen("*:0").unwrap();
        for (host, how, code) in REJECTIONS {
            let to = format!("{host}:{}", server.port());
            reject("tcp", server.port(), how);
            let (err, _) = fails(&to, &options(ms(5000)));
            let expected = match code {
                libc::ECONNREFUSED => ErrorKind::Refused,
                _ => ErrorKind::Unreachable,
            };
            assert_eq!((err.kind(), err.os_error()), (expected, Some(code)), "{how}: {err}");
            if code == libc::EACCES {
                let says = "unreachable: the network reported Permission denied";
                assert!(err.to_string().contains(says), "{err}");
            }
            let mut reconnect = Reconnect::new(to.as_str(), &options(ms(5000))).unwrap();
            reconnect.set_backoff(ms(1), ms(50)).unwrap();
            reconnect.set_timeout(ms(15_000)).unwrap();
            reconnect.on_retry(|_| stop_rejecting());
            let client = reconnect.connect().expect(how);
            assert_eq!(client.five_tuple().local, server.accept().unwrap().five_tuple().remote);
        }
    });
}

/// K7: a firewall that begins to reject an established connection makes the peer unreachable,
/// whatever its reply is.
#[test]
fn connection_that_a_firewall_rejects_is_unreachable() {
    in_namespace(&test_name!("connection_that_a_firewall_rejects_is_unreachable"), LIMIT, || {
        let all = [false, true].map(|stalled| REJECTIONS.map(|rejection| (stalled, rejection)));
        thread::scope(|scope| {
            let mut calls = Vec::new();
            for (stalled, (host, how, code)) in all.into_iter().flatten() {
                let server = ServerSocket::listen(format!("{host}:0")).unwrap();
                let options = options(ms(5000)).dead_after(ms(2000)).fail_on_stall(stalled);
                let client = ClientSocket::connect_with(server.endpoint(), &options).unwrap();
                let accepted = server.accept().unwrap();
                reject("tcp", server.port(), how);
                calls.push(scope.spawn(move || {
                    client.write_all(b"x").unwrap();
                    let err = client.read(&mut [0; 8]).unwrap_err();
                    println!("{how}: {err}");
                    let found = (err.kind(), err.os_error(), client.close_reason());
                    let expected =
                        (ErrorKind::Unreachable, Some(code), Some(CloseReason::Unreachable));
                    assert_eq!(found, expected, "{how}, stalled {stalled}: {err}");
                    drop((accepted, server));
                }));
            }
            calls.into_iter().for_each(|call| call.join().unwrap());
        });
    });
}

/// D2, K7: a firewall's rejection of a datagram is reported as unreachable, and ends no call.
#[test]
fn datagram_that_a_firewall_rejects_is_reported_as_unreachable() {
    in_namespace(
        &test_name!("datagram_that_a_firewall_rejects_is_reported_as_unreachable"),
        LIMIT,
        || {
            let server = DatagramSocket::bind("*:0").unwrap();
            for (host, how, code) in REJECTIONS {
                let client = DatagramSocket::connect(format!("{host}:{}", server.port())).unwrap();
                reject("udp", server.port(), how);
                client.send(b"x").unwrap();
                let expected = match code {
                    libc::ECONNREFUSED => ErrorKind::Refused,
                    _ => ErrorKind::Unreachable,
                };
                let reported = client.recv_error().unwrap().expect(how);
                assert_eq!((reported.kind, reported.os_error), (expected, Some(code)), "{how}");
                stop_rejecting();
                client.send(b"y").unwrap();
                assert_eq!(server.recv(&mut [0; 8]).unwrap().len, 1);
            }
        },
    );
}

/// C3: a router's reply ends an attempt before its timeout.
#[test]
fn connect_to_missing_host_on_link_is_unreachable() {
    in_namespace(&test_name!("connect_to_missing_host_on_link_is_unreachable"), LIMIT, || {
        ip("link add near type veth peer name far");
        ip("link set near up");
        ip("link set far up");
        ip("addr add 192.0.2.1/24 dev near");
        // No host answers ARP: Linux fails after three attempts, one second apart.
        let (err, elapsed) = fails("192.0.2.9:80", &options(Duration::from_secs(10)));
        assert_eq!(err.kind(), ErrorKind::Unreachable);
        assert_eq!(err.os_error(), Some(libc::EHOSTUNREACH));
        assert!(elapsed < Duration::from_secs(9), "back after {elapsed:?}");
    });
}

/// E1: a name that does not exist, and a name without an address of the family, are not found.
#[test]
fn lookup_of_unknown_name_is_not_found() {
    in_namespace(&test_name!("lookup_of_unknown_name_is_not_found"), LIMIT, || {
        netns::names("127.0.0.1 here.test\n::1 both.test\n127.0.0.1 both.test\n");
        let (err, elapsed) = fails("nowhere.test:80", &options(Duration::from_secs(5)));
        assert_eq!(err.kind(), ErrorKind::NotFound);
        assert_eq!(err.failed_stage(), Some(Stage::Lookup));
        assert!(err.attempts().is_empty());
        let start = "connect to nowhere.test:80: lookup: not found";
        assert!(err.to_string().starts_with(start), "{err}");
        assert!(elapsed < Duration::from_secs(4));

        let v6 = options(Duration::from_secs(5)).family(Family::Ipv6);
        let (err, _) = fails("here.test:80", &v6);
        assert_eq!(err.kind(), ErrorKind::NotFound);
        let err = ServerSocket::listen("nowhere.test:0").unwrap_err();
        assert_eq!((err.kind(), err.operation()), (ErrorKind::NotFound, "listen"));

        // The control case: names are resolved here. C5: the family selects among the addresses.
        let server = ServerSocket::listen("*:0").unwrap();
        for (family, host) in [(Family::Ipv4, "127.0.0.1"), (Family::Ipv6, "::1")] {
            let to = format!("both.test:{}", server.port());
            let client =
                ClientSocket::connect_with(to.as_str(), &SocketOptions::new().family(family));
            assert_eq!(client.unwrap().five_tuple().remote.host(), host);
        }
    });
}

/// C1, T2: a resolver that never replies delays no call beyond its deadline or a cancel.
#[test]
fn lookup_with_silent_resolver_times_out() {
    in_namespace(&test_name!("lookup_with_silent_resolver_times_out"), LIMIT, || {
        netns::silent_resolver("timeout:5 attempts:2");
        assert_waits(ms(1000), || ("slow.test", 80).to_socket_addrs());
        let deadline = ms(500);
        let back = assert_on_time(deadline, || {
            let (err, elapsed) = fails("slow.test:80", &options(deadline));
            assert_eq!(err.kind(), ErrorKind::TimedOut);
            assert_eq!(err.failed_stage(), Some(Stage::Lookup));
            let start = "connect to slow.test:80: lookup: timed out after ";
            assert!(err.to_string().starts_with(start), "{err}");
            elapsed
        });

        let measured = format!("back after {}", seconds(back));
        let control = "getaddrinfo: waits after 1 s";
        row("C1 resolver never answers", "connect timeout 0.5 s", measured, control);

        // The lookup of a listen has the same deadline.
        assert_on_time(deadline, || {
            let start = Instant::now();
            let err = ServerSocket::listen_with("slow.test:80", &options(deadline)).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::TimedOut);
            start.elapsed()
        });

        // T2
        let waiting = || watch::count_threads("keepsock-lookup");
        let back = assert_within(GRACE, || {
            let before = waiting();
            cancelled("slow.test:80", Stage::Lookup, move || waiting() > before)
        });
        let measured = format!("back {} later", seconds(back));
        row("T2 resolver never answers", "cancel", measured, control);
    });
}

/// T2: a cancel ends a connect that waits for its handshake.
#[test]
fn cancel_during_handshake_ends_connect() {
    in_namespace(&test_name!("cancel_during_handshake_ends_connect"), LIMIT, || {
        netns::blackhole();
        let to = address(&format!("{HOLE}:80"));
        assert_waits(ms(700), move || TcpStream::connect(to));
        let back = assert_within(GRACE, || {
            let before = watch::count_syn_sent();
            let waits = move || watch::count_syn_sent() > before;
            cancelled(&to.to_string(), Stage::Connect, waits)
        });
        // The kernel closes half-open sockets with their descriptors. The control case still waits.
        assert_eq!(watch::count_syn_sent(), 1);
        let measured = format!("back {} later", seconds(back));
        row("T2 blackholed address", "cancel", measured, "no cancel: waits after 0.7 s");
    });
}

/// Connects, fires the token once `waits` is true, and returns the time until the call returned.
fn cancelled(to: &str, stage: Stage, waits: impl FnMut() -> bool) -> Duration {
    let token = CancelToken::new().unwrap();
    let options = options(Duration::from_secs(20)).cancel(&token);
    thread::scope(|scope| {
        let call = scope.spawn(|| {
            let (err, _) = fails(to, &options);
            let back = Instant::now();
            assert_eq!(err.kind(), ErrorKind::Cancelled);
            assert_eq!(err.failed_stage(), Some(stage));
            if stage == Stage::Connect {
                assert_eq!(
                    attempted(&err),
                    [(to.to_owned(), Stage::Connect, ErrorKind::Cancelled)]
                );
            }
            back
        });
        watch::await_that("the call waits", waits);
        let fired = Instant::now();
        token.fire();
        call.join().unwrap().saturating_duration_since(fired)
    })
}

fn lookup_threads() -> usize {
    watch::count_threads("keepsock-lookup")
}

/// The number of lookup threads for waiting callers, and the maximum number of threads.
const ACTIVE: usize = 64;
const THREADS: usize = 256;

/// C6: more concurrent lookups than threads are queued, and none fails: connects in the caller's
/// threads, and pending connects. Idle threads exit.
#[test]
fn lookups_beyond_the_threads_wait_in_a_queue() {
    in_namespace(&test_name!("lookups_beyond_the_threads_wait_in_a_queue"), LIMIT, || {
        const CALLS: usize = 200;
        netns::name_server(ms(100), "timeout:5 attempts:1");
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let to = format!("app.test:{}", server.port());
        // One query each: no thread is left behind.
        let options = options(Duration::from_secs(20)).family(Family::Ipv4);
        let options = options.close_timeout(Duration::ZERO);
        let most = thread::scope(|scope| {
            let connect = || ClientSocket::connect_with(to.as_str(), &options);
            let calls: Vec<_> = (0..CALLS).map(|_| scope.spawn(connect)).collect();
            let mut most = 0;
            while !calls.iter().all(|call| call.is_finished()) {
                most = most.max(lookup_threads());
                thread::yield_now();
            }
            calls.into_iter().for_each(|call| call.join().unwrap().unwrap().abort());
            most
        });
        assert!((2..=ACTIVE).contains(&most), "{most} threads");

        let start = || PendingConnect::start(to.as_str(), &options).unwrap();
        let mut pending: Vec<_> = (0..CALLS).map(|_| start()).collect();
        assert!(lookup_threads() <= ACTIVE);
        for connecting in &mut pending {
            connecting.wait().unwrap().abort();
        }
        watch::await_that("idle threads exit", || lookup_threads() == 0);
        let measured = format!("all connected, {most} threads");
        row("C6 200 lookups at once", "connect timeout 20 s", measured, "each: 0.1 s");
    });
}

/// C6, C1: a lookup whose caller has stopped waiting keeps its thread until the resolver fails, and
/// other names are looked up in the meantime. The number of threads is bounded, and further lookups
/// are queued. A wait in the queue ends with the caller's deadline.
#[test]
fn abandoned_lookups_do_not_starve_others() {
    in_namespace(&test_name!("abandoned_lookups_do_not_starve_others"), LIMIT, || {
        netns::name_server(ms(0), "timeout:8 attempts:1");
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let good = format!("app.test:{}", server.port());
        let hang = |calls: usize| {
            thread::scope(|scope| {
                for _ in 0..calls {
                    scope.spawn(|| {
                        let (err, _) = fails("hang.test:80", &options(ms(500)));
                        assert_eq!(err.kind(), ErrorKind::TimedOut, "{err}");
                        assert_eq!(err.failed_stage(), Some(Stage::Lookup));
                    });
                }
            });
        };
        // More lookups than threads: the queued ones return in time.
        hang(ACTIVE + 20);
        watch::await_that("the maximum number of threads waits", || lookup_threads() == ACTIVE);
        let start = Instant::now();
        ClientSocket::connect_with(good.as_str(), &options(ms(20_000))).unwrap();
        let elapsed = start.elapsed();
        assert!(elapsed < ms(6000), "connected after {elapsed:?}");
        let measured = format!("connected after {}", seconds(elapsed));
        row("C6 64 lookups left behind", "another name", measured, "abandoned lookups: 8 s each");

        while lookup_threads() < THREADS {
            hang(ACTIVE);
        }
        let (err, _) = fails("hang.test:80", &options(ms(200)));
        assert_eq!((err.kind(), err.failed_stage()), (ErrorKind::TimedOut, Some(Stage::Lookup)));
        assert_eq!(lookup_threads(), THREADS);
        // IP addresses and localhost need no resolver.
        for to in [server.endpoint().to_string(), format!("localhost:{}", server.port())] {
            ClientSocket::connect_with(to.as_str(), &options(ms(5000))).unwrap();
        }
        // The lookup starts when the resolver has failed for the first one.
        ClientSocket::connect_with(good.as_str(), &options(Duration::from_secs(60))).unwrap();
        assert!(lookup_threads() <= THREADS);
    });
}

/// C6: a forked child, in which the threads of its parent do not exist, resolves names.
#[test]
fn lookup_in_a_forked_child_is_answered() {
    in_namespace(&test_name!("lookup_in_a_forked_child_is_answered"), LIMIT, || {
        netns::names("127.0.0.1 here.test\n");
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let to = format!("here.test:{}", server.port());
        // One query: a second one would start a thread.
        let options = options(ms(20_000)).family(Family::Ipv4);
        let connect = || ClientSocket::connect_with(to.as_str(), &options);
        // The parent has a thread that waits for work.
        connect().unwrap();
        assert_eq!(lookup_threads(), 1);
        let status = process::in_a_child(|| i32::from(connect().is_err()));
        assert_eq!(status, 0);
        connect().unwrap();
    });
}

/// C6, E5: lookups of the parent that are in progress at a fork do not affect the lookups of the
/// child.
#[test]
fn lookup_in_a_forked_child_is_answered_while_the_parent_looks_up() {
    let test = "lookup_in_a_forked_child_is_answered_while_the_parent_looks_up";
    in_namespace(&test_name!(test), Duration::from_secs(60), || {
        const HANGING: usize = 10;
        netns::name_server(ms(0), "timeout:5 attempts:1");
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let port = server.port();
        let cancel = CancelToken::new().unwrap();
        thread::scope(|scope| {
            for i in 0..HANGING {
                let options = options(ms(60_000)).family(Family::Ipv4).cancel(&cancel);
                scope.spawn(move || {
                    let to = format!("hang{i}.test:{port}");
                    ClientSocket::connect_with(to.as_str(), &options).unwrap_err();
                });
            }
            let began = Instant::now();
            while lookup_threads() < HANGING {
                assert!(began.elapsed() < ms(30_000), "{} lookups run", lookup_threads());
                thread::yield_now();
            }
            // The queries are in transit, which no event shows.
            thread::sleep(ms(300));
            for fork in 0..40 {
                let status = process::in_a_child(|| {
                    let options = options(ms(20_000)).family(Family::Ipv4);
                    let to = format!("child{fork}.test:{port}");
                    i32::from(ClientSocket::connect_with(to.as_str(), &options).is_err())
                });
                assert_eq!(status, 0, "fork {fork}");
            }
            cancel.fire();
        });
    });
}

/// C6: a service name with an IP address needs no name server, and does not wait for lookups that
/// do.
#[test]
fn service_name_does_not_queue_behind_host_names() {
    in_namespace(&test_name!("service_name_does_not_queue_behind_host_names"), LIMIT, || {
        netns::name_server(ms(0), "timeout:8 attempts:1");
        let cancel = CancelToken::new().unwrap();
        thread::scope(|scope| {
            for i in 0..80 {
                let options = options(ms(60_000)).family(Family::Ipv4).cancel(&cancel);
                scope.spawn(move || {
                    ClientSocket::connect_with(format!("hang{i}.test:80").as_str(), &options)
                        .unwrap_err();
                });
            }
            while lookup_threads() < 64 {
                thread::yield_now();
            }
            let (err, _) = fails("127.0.0.1:no-such-service", &options(ms(6000)));
            cancel.fire();
            assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
        });
    });
}

/// C6: localhost, and each name below it, is this host (RFC 6761 section 6.3), in both families,
/// without a lookup.
#[test]
fn localhost_is_not_looked_up() {
    in_namespace(&test_name!("localhost_is_not_looked_up"), LIMIT, || {
        netns::silent_resolver("timeout:5 attempts:1");
        assert_waits(ms(500), || ("localhost", 80).to_socket_addrs());
        for (listens, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("*:0", "::1")] {
            let server = ServerSocket::listen(listens).unwrap();
            for name in ["localhost", "LocalHost.", "app.localhost", "a.b.LOCALHOST"] {
                let to = format!("{name}:{}", server.port());
                let client = ClientSocket::connect_with(to.as_str(), &options(ms(2000))).unwrap();
                assert_eq!(client.five_tuple().remote.host(), host, "{name}");
            }
        }
        assert_eq!(lookup_threads(), 0);
        let nobody = "localhost:1";
        let (err, _) = fails(nobody, &options(ms(2000)).family(Family::Ipv6));
        let refused = |to: &str| (to.to_owned(), Stage::Connect, ErrorKind::Refused);
        assert_eq!(attempted(&err), [refused("[::1]:1")]);
        let (err, _) = fails(nobody, &options(ms(2000)));
        assert_eq!(attempted(&err), [refused("[::1]:1"), refused("127.0.0.1:1")]);
        // Other names are looked up.
        for name in ["localhost.test", "notlocalhost"] {
            let (err, _) = fails(&format!("{name}:80"), &options(ms(200)));
            assert_eq!(
                (err.kind(), err.failed_stage()),
                (ErrorKind::TimedOut, Some(Stage::Lookup))
            );
        }
        netns::sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
        let (err, _) = fails(nobody, &options(ms(2000)));
        assert_eq!(attempted(&err), [refused("127.0.0.1:1")]);
    });
}

/// S4: a link-local address needs its zone, by name or by number.
#[test]
fn link_local_address_with_zone_is_reached() {
    in_namespace(&test_name!("link_local_address_with_zone_is_reached"), LIMIT, || {
        ip("link add near type veth peer name far");
        ip("link set near up");
        ip("link set far up");
        ip("-6 addr add fe80::1234/64 dev near nodad");
        let server = ServerSocket::listen("[fe80::1234%near]:0").unwrap();
        let port = server.port();
        // The printed endpoint of the server parses, and connects to it.
        let printed = server.endpoint().to_string();
        println!("{printed}");
        let by_name = format!("[fe80::1234%near]:{port}");
        for to in [printed.as_str(), by_name.as_str()] {
            let client = ClientSocket::connect(to).unwrap();
            let accepted = server.accept().unwrap();
            assert_eq!(client.five_tuple().remote, accepted.five_tuple().local);
            let tuple = client.five_tuple().to_string();
            assert!(tuple.contains("[fe80::1234%"), "{tuple}");
        }
        // The control case: without a zone, or on another link, the connect fails.
        let (err, _) = fails(&format!("[fe80::1234]:{port}"), &options(ms(500)));
        assert_ne!(err.kind(), ErrorKind::TimedOut);
        fails(&format!("[fe80::1234%lo]:{port}"), &options(ms(500)));
        let (err, _) = fails(&format!("[fe80::1234%gone]:{port}"), &options(ms(500)));
        assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
        assert!(err.to_string().contains("\"gone\""), "{err}");
    });
}

/// C5: the caller selects the local address, the local port and the interface.
#[test]
fn connect_uses_local_address_and_interface() {
    in_namespace(&test_name!("connect_uses_local_address_and_interface"), LIMIT, || {
        netns::blackhole();
        ip("addr add 198.51.100.1/32 dev lo");
        ip("addr add 198.51.100.2/32 dev lo");
        let server = ServerSocket::listen("198.51.100.1:0").unwrap();
        let connect = |options: &SocketOptions| {
            let client = ClientSocket::connect_with(server.endpoint(), options)?;
            let accepted = server.accept()?;
            assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
            Ok::<_, Error>(client.five_tuple().local)
        };
        let from = |text: &str| options(ms(500)).local_endpoint(text.parse::<Endpoint>().unwrap());
        // The control case: the system selects another address.
        assert_eq!(connect(&options(ms(500))).unwrap().host(), "198.51.100.1");
        assert_eq!(connect(&from("198.51.100.2:0")).unwrap().host(), "198.51.100.2");
        let exactly = "198.51.100.2:4567";
        assert_eq!(connect(&from(exactly)).unwrap(), Address::from(address(exactly)));

        let err = connect(&from("203.0.113.1:0")).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::AddressNotAvailable);
        assert_eq!(err.failed_stage(), Some(Stage::Bind));
        let err = connect(&from("[2001:db8::1]:0")).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::AddressNotAvailable, "another family: {err}");

        let through = |name: &str| options(ms(500)).interface(name);
        connect(&through("lo")).unwrap();
        // The same address through the interface that drops all packets.
        let err = connect(&through("hole")).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::TimedOut, "{err}");
        let err = connect(&through("gone")).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InvalidEndpoint, "{err}");
        assert_eq!(err.failed_stage(), Some(Stage::Options));
        assert!(err.to_string().contains("options: No such device"), "{err}");
    });
}

/// Limits the local ports that the kernel may select.
const PORTS: std::ops::RangeInclusive<u16> = 40_000..=40_009;

fn few_ports(ports: std::ops::RangeInclusive<u16>) {
    netns::sysctl("net.ipv4.ip_unprivileged_port_start", "0");
    let range = format!("{} {}", ports.start(), ports.end());
    netns::sysctl("net.ipv4.ip_local_port_range", &range);
}

/// C5: connections from a local address without a port may use every local port for each
/// destination. The control case has no local address.
#[test]
fn local_address_without_port_shares_ports() {
    in_namespace(&test_name!("local_address_without_port_shares_ports"), LIMIT, || {
        few_ports(PORTS);
        for host in ["127.0.0.1", "[::1]"] {
            let local: Endpoint = format!("{host}:0").parse().unwrap();
            for options in [options(ms(5000)).local_endpoint(local), options(ms(5000))] {
                let servers: Vec<_> = (20_000..20_004)
                    .map(|port| ServerSocket::listen(format!("{host}:{port}")).unwrap())
                    .collect();
                // The connections are reset at the end, so that no port stays in TIME-WAIT.
                let options = options.close_timeout(Duration::ZERO);
                let mut clients = Vec::new();
                for server in &servers {
                    for _ in PORTS {
                        let client = ClientSocket::connect_with(server.endpoint(), &options);
                        clients.push(client.unwrap());
                    }
                }
                clients.iter().for_each(ClientSocket::abort);
                assert_eq!(clients.len(), 40);
            }
        }
    });
}

/// C4: when every local port is in use, the error says so. It says neither that the call would
/// block nor that the address is not local.
#[test]
fn no_free_local_port_is_reported() {
    in_namespace(&test_name!("no_free_local_port_is_reported"), LIMIT, || {
        few_ports(PORTS);
        let in_use = |result: Result<(), Error>, what: &str| {
            let err = result.expect_err(what);
            println!("{what}: {err}");
            assert_eq!(err.kind(), ErrorKind::AddressInUse, "{what}: {err}");
            assert!(err.to_string().contains("no free local port"), "{what}: {err}");
        };
        for host in ["127.0.0.1", "[::1]"] {
            let server = ServerSocket::listen(format!("{host}:20000")).unwrap();
            let local: Endpoint = format!("{host}:0").parse().unwrap();
            let connect =
                |options: &SocketOptions| ClientSocket::connect_with(server.endpoint(), options);
            let plain = options(ms(5000)).close_timeout(Duration::ZERO);
            let clients: Vec<_> = PORTS.map(|_| connect(&plain).unwrap()).collect();
            in_use(connect(&plain).map(drop), "connect");
            in_use(
                connect(&plain.clone().local_endpoint(local.clone())).map(drop),
                "connect with local",
            );
            in_use(ServerSocket::listen(&local).map(drop), "listen");
            let mut connecting = PendingConnect::start(server.endpoint(), &plain).unwrap();
            in_use(connecting.wait().map(drop), "start");
            clients.iter().for_each(ClientSocket::abort);

            let to = format!("{host}:9");
            let datagram = |options: &SocketOptions| DatagramSocket::connect_with(&to, options);
            let none = SocketOptions::new();
            let held: Vec<_> = PORTS.map(|_| datagram(&none).unwrap()).collect();
            in_use(datagram(&none).map(drop), "datagram connect");
            let from = none.clone().local_endpoint(local.clone());
            in_use(datagram(&from).map(drop), "datagram connect with local");
            in_use(DatagramSocket::bind(&local).map(drop), "bind");
            drop(held);
        }
        // The control case: a free port of the same kind, and an address of another host.
        let taken = ServerSocket::listen("127.0.0.1:20000").unwrap();
        let err = ServerSocket::listen(taken.endpoint()).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::AddressInUse);
        assert!(!err.to_string().contains("no free local port"), "{err}");
        let from = |text: &str| options(ms(500)).local_endpoint(text.parse::<Endpoint>().unwrap());
        for (local, to) in [("192.0.2.1:0", "127.0.0.1:9"), ("[2001:db8::1]:0", "[::1]:9")] {
            let (err, _) = fails(to, &from(local));
            assert_eq!(err.kind(), ErrorKind::AddressNotAvailable, "{err}");
        }
        netns::sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
        let (err, _) = fails("[::1]:9", &options(ms(500)));
        assert_eq!(err.kind(), ErrorKind::AddressNotAvailable, "{err}");
    });
}

/// C4: a connect to itself fails as refused on every port, also below 1024.
#[test]
fn self_connect_below_1024_is_refused() {
    in_namespace(&test_name!("self_connect_below_1024_is_refused"), LIMIT, || {
        for port in [900, 40_000] {
            few_ports(port..=port);
            for host in ["127.0.0.1", "[::1]"] {
                let to = format!("{host}:{port}");
                // The control case: plain sockets connect to themselves.
                let alone = TcpStream::connect(&to).unwrap();
                assert_eq!(alone.local_addr().unwrap(), alone.peer_addr().unwrap());
                // No TIME-WAIT, which would keep the port.
                socket2::SockRef::from(&alone).set_linger(Some(Duration::ZERO)).unwrap();
                drop(alone);
                let (err, _) = fails(&to, &options(ms(5000)));
                assert_eq!(err.kind(), ErrorKind::Refused, "{err}");
            }
        }
    });
}

/// L1: on a host whose interfaces have no IPv6 address, `*` serves IPv4.
#[test]
fn listen_without_ipv6_addresses_serves_ipv4() {
    in_namespace(&test_name!("listen_without_ipv6_addresses_serves_ipv4"), LIMIT, || {
        netns::sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        assert!(TcpListener::bind("[::1]:0").is_err(), "the namespace still has IPv6");
        let server = ServerSocket::listen("*:0").unwrap();
        let client =
            ClientSocket::connect(format!("127.0.0.1:{}", server.port()).as_str()).unwrap();
        let accepted = server.accept().unwrap();
        assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
    });
}

/// L1, C2: on a kernel without IPv6, `*` serves IPv4, and the IPv4 address of a name is connected
/// to at once. A request for IPv6 fails with the reason.
#[test]
fn listen_on_kernel_without_ipv6_serves_ipv4() {
    in_process(&test_name!("listen_on_kernel_without_ipv6_serves_ipv4"), LIMIT, || {
        limits::forbid(libc::SYS_socket, Some(libc::AF_INET6), libc::EAFNOSUPPORT);
        let server = ServerSocket::listen("*:0").unwrap();
        let works = address(&format!("127.0.0.1:{}", server.port()));
        let missing = SocketAddr::new("::1".parse().unwrap(), server.port());
        let options = options(Duration::from_secs(5)).remote_address(missing).remote_address(works);
        assert_within(ms(100), || {
            let start = Instant::now();
            let client = ClientSocket::connect_with("two.test:80", &options).unwrap();
            let elapsed = start.elapsed();
            assert_eq!(client.five_tuple().local, server.accept().unwrap().five_tuple().remote);
            elapsed
        });

        let err = ServerSocket::listen("[::1]:0").unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Unsupported, "{err}");
        let six = SocketOptions::new().family(Family::Ipv6);
        let err = ServerSocket::listen_with("*:0", &six).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Unsupported, "not IPv4 instead: {err}");
        let (err, _) = fails(&missing.to_string(), &SocketOptions::new());
        assert_eq!((err.kind(), err.failed_stage()), (ErrorKind::Unsupported, Some(Stage::Socket)));
    });
}

/// L1: `*` serves both families even if the system's default is IPv6 only.
#[test]
fn listen_on_wildcard_ignores_bindv6only() {
    in_namespace(&test_name!("listen_on_wildcard_ignores_bindv6only"), LIMIT, || {
        for bindv6only in ["1", "0"] {
            netns::sysctl("net.ipv6.bindv6only", bindv6only);
            let server = ServerSocket::listen("*:0").unwrap();
            for host in ["127.0.0.1", "[::1]"] {
                let to = format!("{host}:{}", server.port());
                let client = ClientSocket::connect(to.as_str()).unwrap();
                assert_eq!(client.five_tuple().local, server.accept().unwrap().five_tuple().remote);
            }
            let only_six = ServerSocket::listen("[::]:0").unwrap();
            let (err, _) = fails(&format!("127.0.0.1:{}", only_six.port()), &options(ms(500)));
            assert_eq!(err.kind(), ErrorKind::Refused);
            // The control case: the system's default follows bindv6only.
            let plain = TcpListener::bind("[::]:0").unwrap();
            let port = plain.local_addr().unwrap().port();
            let reached = TcpStream::connect(("127.0.0.1", port)).is_ok();
            assert_eq!(reached, bindv6only == "0");
        }
    });
}
