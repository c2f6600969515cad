//! Connecting and listening where the network misbehaves. Each test has a
//! network of its own (`lab`); no packet leaves it.

#![cfg(target_os = "linux")]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use keepsock::{
    Address, CancelToken, ClientSocket, Endpoint, Error, ErrorKind, Family, ServerSocket,
    SocketOptions, Stage,
};

mod lab;
use lab::{
    GRACE, HOLE, HOLE6, Ip, Route, assert_on_time, assert_within, in_namespace, in_process, ip, ms,
    row, seconds,
};

const LIMIT: Duration = Duration::from_secs(40);

fn options(deadline: Duration) -> SocketOptions {
    SocketOptions::new().connect_timeout(deadline)
}

/// Connects, which must fail, and says how long that took.
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

/// The control of every test with a blackhole: a connect without a deadline is
/// still waiting after `time`.
fn assert_it_hangs<T: Send + 'static>(
    time: Duration,
    connect: impl FnOnce() -> T + Send + 'static,
) {
    let (send, done) = mpsc::channel();
    thread::spawn(move || send.send(connect()));
    assert!(done.recv_timeout(time).is_err(), "this is no blackhole");
}

/// C1, C3: a connect to an address that swallows everything is back by its
/// deadline, says that it timed out, and lists the attempt.
#[test]
fn a_blackholed_address() {
    in_namespace("a_blackholed_address", LIMIT, || {
        lab::blackhole();
        let (v4, v6) = (format!("{HOLE}:80"), format!("[{HOLE6}]:80"));
        for to in [v4.clone(), v6.clone()] {
            let std = address(&to);
            assert_it_hangs(ms(700), move || TcpStream::connect(std));
        }
        let deadline = ms(500);
        for to in [&v4, &v6] {
            let descriptors = lab::count_descriptors();
            let back = assert_on_time(deadline, || {
                let (err, elapsed) = fails(to, &options(deadline));
                assert_eq!(err.kind(), ErrorKind::TimedOut);
                let tried = [(to.clone(), Stage::Connect, ErrorKind::TimedOut)];
                assert_eq!(attempted(&err), tried);
                assert_eq!((err.os_error(), err.attempts()[0].os_error), (None, None));
                assert!(err.attempts()[0].elapsed >= deadline);
                let says = format!("connect to {to}: timed out after 5");
                assert!(err.to_string().starts_with(&says), "{err}");
                elapsed
            });
            assert_eq!(lab::count_descriptors(), descriptors);
            let control = "no deadline: waits after 0.7 s";
            let scene = format!("C1 blackholed address {to}");
            row(&scene, "connect timeout 0.5 s", format!("back after {}", seconds(back)), control);
        }
    });
}

/// C1: a deadline that spans the SYN's retransmissions.
#[test]
fn a_deadline_beyond_the_first_retransmissions() {
    in_namespace("a_deadline_beyond_the_first_retransmissions", LIMIT, || {
        lab::blackhole();
        let deadline = ms(3500);
        let to = address(&format!("{HOLE}:80"));
        let back = thread::scope(|scope| {
            scope.spawn(|| assert_it_hangs(deadline + GRACE, move || TcpStream::connect(to)));
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

/// C2: a blackholed first address costs a quarter of a second.
const WITH_A_HOLE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_millis(350);

/// C2, C4: a blackholed first address, of a list that the caller supplied, costs
/// little, and leaves no descriptor behind.
#[test]
fn a_blackholed_first_address() {
    in_namespace("a_blackholed_first_address", LIMIT, || {
        lab::blackhole();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let works = server.local_addr().unwrap();
        let hole = SocketAddr::new(HOLE.parse().unwrap(), works.port());
        assert_it_hangs(ms(700), move || TcpStream::connect(hole));
        let options = options(ms(3000)).address(hole).address(works);
        // The control holds its own for as long as it waits.
        let descriptors = lab::count_descriptors();
        let connected = assert_within(*WITH_A_HOLE.end(), || {
            let start = Instant::now();
            let client = ClientSocket::connect_with("example.test:80", &options).unwrap();
            let elapsed = start.elapsed();
            assert!(elapsed >= *WITH_A_HOLE.start(), "the first attempt had only {elapsed:?}");
            assert_eq!(client.five_tuple().remote, works.into());
            assert_eq!(lab::count_descriptors(), descriptors + 1, "the loser is gone");
            elapsed
        });
        let measured = format!("connected after {}", seconds(connected));
        row("C2 first address blackholed", "two addresses", measured, "alone: waits after 0.7 s");
    });
}

/// C2, C4: the same with the addresses of a name.
#[test]
fn a_name_whose_first_address_is_blackholed() {
    in_namespace("a_name_whose_first_address_is_blackholed", LIMIT, || {
        lab::blackhole();
        // RFC 6724 puts IPv6 first.
        lab::names(&format!("127.0.0.1 two.test\n{HOLE6} two.test\n"));
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let order: Vec<_> = ("two.test", port).to_socket_addrs().unwrap().collect();
        assert_eq!(order.iter().map(SocketAddr::is_ipv6).collect::<Vec<_>>(), [true, false]);
        assert_it_hangs(ms(700), move || TcpStream::connect((HOLE6, port)));
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
        row("C2 IPv6 blackholed", "a name with both", measured, "IPv6 alone: waits after 0.7 s");

        // C1, C3: without anybody at the second address both are listed, as they
        // ended, and the first has all the time.
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
        assert!(text.contains(&format!("{first}: timed out after 1.5 s")), "{text}");
        assert!(text.contains(&format!("{second}: connection refused after")), "{text}");
    });
}

/// C2: IPv4 blackholed, and IPv6 takes a second, since its first SYN is lost: the
/// attempt that is slow is not given up because another began, whichever comes
/// first. The control: each alone.
#[test]
fn one_family_blackholed_and_the_other_slow() {
    in_namespace("one_family_blackholed_and_the_other_slow", LIMIT, || {
        let route = Route::new();
        route.blackhole(Ip::V4);
        route.lose_first_syn(Ip::V6);
        let server = route.server.run(|| ServerSocket::listen("*:0")).unwrap();
        let [v4, v6] = Ip::BOTH.map(|ip| address(&format!("{}:{}", ip.server(), server.port())));
        assert_it_hangs(ms(1500), move || TcpStream::connect(v4));
        let start = Instant::now();
        TcpStream::connect(v6).unwrap();
        let alone = start.elapsed();
        assert!((ms(950)..ms(1300)).contains(&alone), "IPv6 alone took {alone:?}");
        for (scene, first, second) in
            [("IPv6 slow, IPv4 blackholed", v6, v4), ("IPv4 blackholed, IPv6 slow", v4, v6)]
        {
            let options = options(ms(5000)).address(first).address(second);
            let descriptors = lab::count_descriptors();
            let connected = assert_within(ms(1300), || {
                let start = Instant::now();
                let client = ClientSocket::connect_with("both.test:80", &options).unwrap();
                let elapsed = start.elapsed();
                assert_eq!(client.five_tuple().remote, v6.into());
                assert_eq!(lab::count_descriptors(), descriptors + 1, "the loser is gone");
                elapsed
            });
            let measured = format!("connected over IPv6 after {}", seconds(connected));
            let control = format!("IPv6 alone: {}; IPv4 alone: waits after 1.5 s", seconds(alone));
            row(&format!("C2 {scene}"), "both addresses", measured, &control);
        }
    });
}

/// C3, E1: refused and the several ways of being unreachable, each as its own
/// kind with the system's reason.
#[test]
fn refused_and_unreachable() {
    in_namespace("refused_and_unreachable", LIMIT, || {
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
            assert!(elapsed < ms(500), "back after {elapsed:?}");
        };
        // Bound and not listening: the port is nobody else's.
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

        // C3: all of them for one name, in their order, the first one's kind.
        let all = options(Duration::from_secs(5))
            .address(address("198.51.100.1:80"))
            .address(address("192.0.2.1:80"))
            .address(address(&nobody));
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

/// C3: a router's answer ends an attempt; it need not run out of time.
#[test]
fn nobody_on_the_link() {
    in_namespace("nobody_on_the_link", LIMIT, || {
        ip("link add near type veth peer name far");
        ip("link set near up");
        ip("link set far up");
        ip("addr add 192.0.2.1/24 dev near");
        // Nobody answers ARP: Linux gives up after three tries, a second apart.
        let (err, elapsed) = fails("192.0.2.9:80", &options(Duration::from_secs(10)));
        assert_eq!(err.kind(), ErrorKind::Unreachable);
        assert_eq!(err.os_error(), Some(libc::EHOSTUNREACH));
        assert!(elapsed < Duration::from_secs(6), "back after {elapsed:?}");
    });
}

/// E1: a name that does not exist, and one without an address of the family.
#[test]
fn names_that_are_not_found() {
    in_namespace("names_that_are_not_found", LIMIT, || {
        lab::names("127.0.0.1 here.test\n::1 both.test\n127.0.0.1 both.test\n");
        let (err, elapsed) = fails("nowhere.test:80", &options(Duration::from_secs(5)));
        assert_eq!(err.kind(), ErrorKind::NotFound);
        assert_eq!(err.failed_stage(), Some(Stage::Lookup));
        assert!(err.attempts().is_empty());
        let start = "connect to nowhere.test:80: lookup: not found";
        assert!(err.to_string().starts_with(start), "{err}");
        assert!(elapsed < Duration::from_secs(1));

        let v6 = options(Duration::from_secs(5)).family(Family::Ipv6);
        let (err, _) = fails("here.test:80", &v6);
        assert_eq!(err.kind(), ErrorKind::NotFound);
        let err = ServerSocket::listen("nowhere.test:0").unwrap_err();
        assert_eq!((err.kind(), err.operation()), (ErrorKind::NotFound, "listen"));

        // The control: names are found here. C5: and the family chooses among them.
        let server = ServerSocket::listen("*:0").unwrap();
        for (family, host) in [(Family::Ipv4, "127.0.0.1"), (Family::Ipv6, "::1")] {
            let to = format!("both.test:{}", server.port());
            let client =
                ClientSocket::connect_with(to.as_str(), &SocketOptions::new().family(family));
            assert_eq!(client.unwrap().five_tuple().remote.host(), host);
        }
    });
}

/// C1, T2: a resolver that never answers holds nobody beyond the deadline, nor
/// beyond a cancel.
#[test]
fn a_resolver_that_never_answers() {
    in_namespace("a_resolver_that_never_answers", LIMIT, || {
        lab::silent_resolver("timeout:5 attempts:2");
        assert_it_hangs(ms(1000), || ("slow.test", 80).to_socket_addrs());
        let deadline = ms(500);
        let back = assert_on_time(deadline, || {
            let (err, elapsed) = fails("slow.test:80", &options(deadline));
            assert_eq!(err.kind(), ErrorKind::TimedOut);
            assert_eq!(err.failed_stage(), Some(Stage::Lookup));
            let start = "connect to slow.test:80: lookup: timed out after 5";
            assert!(err.to_string().starts_with(start), "{err}");
            elapsed
        });

        let measured = format!("back after {}", seconds(back));
        let control = "getaddrinfo: waits after 1 s";
        row("C1 resolver never answers", "connect timeout 0.5 s", measured, control);

        // A server's name is looked up by the same deadline.
        assert_on_time(deadline, || {
            let start = Instant::now();
            let err = ServerSocket::listen_with("slow.test:80", &options(deadline)).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::TimedOut);
            start.elapsed()
        });

        // T2
        let waiting = || lab::count_threads("keepsock-lookup");
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
fn a_cancel_during_the_handshake() {
    in_namespace("a_cancel_during_the_handshake", LIMIT, || {
        lab::blackhole();
        let to = address(&format!("{HOLE}:80"));
        assert_it_hangs(ms(700), move || TcpStream::connect(to));
        let back = assert_within(GRACE, || {
            let before = lab::count_syn_sent();
            let waits = move || lab::count_syn_sent() > before;
            cancelled(&to.to_string(), Stage::Connect, waits)
        });
        // The kernel's half-open sockets went with their descriptors; the control's waits.
        assert_eq!(lab::count_syn_sent(), 1);
        let measured = format!("back {} later", seconds(back));
        row("T2 blackholed address", "cancel", measured, "no cancel: waits after 0.7 s");
    });
}

/// Connects, fires the token once `waits` is true, and says how much later the
/// call was back.
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
        lab::await_that("the call waits", waits);
        let fired = Instant::now();
        token.fire();
        call.join().unwrap().saturating_duration_since(fired)
    })
}

/// C1: a resolver that hangs costs 64 threads and no more; further lookups fail
/// at once and say why, and lookups go on when the resolver has given up.
#[test]
fn lookups_that_hang_are_bounded() {
    in_namespace("lookups_that_hang_are_bounded", LIMIT, || {
        lab::silent_resolver("timeout:3 attempts:1");
        let deadline = ms(500);
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    let (err, _) = fails("slow.test:80", &options(deadline));
                    assert_eq!(err.kind(), ErrorKind::TimedOut, "{err}");
                });
            }
        });
        // A thread has its name when it first runs, which may be later than its caller's end.
        lab::await_that("64 lookups hang", || lab::count_threads("keepsock-lookup") == 64);
        let (err, elapsed) = fails("slow.test:80", &options(deadline));
        assert_eq!(err.kind(), ErrorKind::LookupFailed);
        assert!(err.to_string().contains("64 lookups are waiting"), "{err}");
        assert!(elapsed < ms(100), "back after {elapsed:?}");
        assert_eq!(lab::count_threads("keepsock-lookup"), 64);
        let measured = format!("refused after {}, 64 threads", seconds(elapsed));
        let control = "64 lookups: each its time, 0.5 s";
        row("C1 resolver never answers, 65th lookup", "connect timeout 0.5 s", measured, control);
        // Numbers need no resolver.
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        ClientSocket::connect(server.endpoint()).unwrap();

        lab::await_that("the resolver gives up", || lab::count_threads("keepsock-lookup") == 0);
        let (err, _) = fails("slow.test:80", &options(deadline));
        assert_eq!(err.kind(), ErrorKind::TimedOut, "it has its turn again");
    });
}

/// S4: a link-local address needs its zone, by name or by number.
#[test]
fn link_local_addresses_with_a_zone() {
    in_namespace("link_local_addresses_with_a_zone", LIMIT, || {
        ip("link add near type veth peer name far");
        ip("link set near up");
        ip("link set far up");
        ip("-6 addr add fe80::1234/64 dev near nodad");
        let server = ServerSocket::listen("[fe80::1234%near]:0").unwrap();
        let port = server.port();
        // What the server prints parses, and leads to it.
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
        // The control: without a zone, or on another link, nobody is there.
        let (err, _) = fails(&format!("[fe80::1234]:{port}"), &options(ms(500)));
        assert_ne!(err.kind(), ErrorKind::TimedOut);
        fails(&format!("[fe80::1234%lo]:{port}"), &options(ms(500)));
        let (err, _) = fails(&format!("[fe80::1234%gone]:{port}"), &options(ms(500)));
        assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
        assert!(err.to_string().contains("\"gone\""), "{err}");
    });
}

/// C5: the local address, the local port and the interface are the caller's.
#[test]
fn from_where_to_connect() {
    in_namespace("from_where_to_connect", LIMIT, || {
        lab::blackhole();
        ip("addr add 198.51.100.1/32 dev lo");
        ip("addr add 198.51.100.2/32 dev lo");
        let server = ServerSocket::listen("198.51.100.1:0").unwrap();
        let connect = |options: &SocketOptions| {
            let client = ClientSocket::connect_with(server.endpoint(), options)?;
            let accepted = server.accept()?;
            assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
            Ok::<_, Error>(client.five_tuple().local)
        };
        let from = |text: &str| options(ms(500)).local(text.parse::<Endpoint>().unwrap());
        // The control: the system would have chosen another address.
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
        // The same address by the interface that swallows everything.
        let err = connect(&through("hole")).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::TimedOut, "{err}");
        let err = connect(&through("gone")).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InvalidEndpoint, "{err}");
        assert_eq!(err.failed_stage(), Some(Stage::Options));
        assert!(err.to_string().contains("options: No such device"), "{err}");
    });
}

/// L1: on a machine whose interfaces have no IPv6, `*` serves IPv4.
#[test]
fn a_machine_without_ipv6_addresses() {
    in_namespace("a_machine_without_ipv6_addresses", LIMIT, || {
        lab::sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        assert!(TcpListener::bind("[::1]:0").is_err(), "the lab still has IPv6");
        let server = ServerSocket::listen("*:0").unwrap();
        let client =
            ClientSocket::connect(format!("127.0.0.1:{}", server.port()).as_str()).unwrap();
        let accepted = server.accept().unwrap();
        assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
    });
}

/// L1, C2: on a machine whose kernel has no IPv6 at all, `*` serves IPv4, a name's
/// IPv4 address is connected to at once, and what asks for IPv6 says why not.
#[test]
fn a_kernel_without_ipv6() {
    in_process("a_kernel_without_ipv6", LIMIT, || {
        lab::forbid(libc::SYS_socket, Some(libc::AF_INET6), libc::EAFNOSUPPORT);
        let server = ServerSocket::listen("*:0").unwrap();
        let works = address(&format!("127.0.0.1:{}", server.port()));
        let missing = SocketAddr::new("::1".parse().unwrap(), server.port());
        let options = options(Duration::from_secs(5)).address(missing).address(works);
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
        assert_eq!(err.kind(), ErrorKind::Unsupported, "not IPv4 in its place: {err}");
        let (err, _) = fails(&missing.to_string(), &SocketOptions::new());
        assert_eq!((err.kind(), err.failed_stage()), (ErrorKind::Unsupported, Some(Stage::Socket)));
    });
}

/// L1: `*` serves both families where the system's default is one.
#[test]
fn both_families_whatever_bindv6only_says() {
    in_namespace("both_families_whatever_bindv6only_says", LIMIT, || {
        for bindv6only in ["1", "0"] {
            lab::sysctl("net.ipv6.bindv6only", bindv6only);
            let server = ServerSocket::listen("*:0").unwrap();
            for host in ["127.0.0.1", "[::1]"] {
                let to = format!("{host}:{}", server.port());
                let client = ClientSocket::connect(to.as_str()).unwrap();
                assert_eq!(client.five_tuple().local, server.accept().unwrap().five_tuple().remote);
            }
            let only_six = ServerSocket::listen("[::]:0").unwrap();
            let (err, _) = fails(&format!("127.0.0.1:{}", only_six.port()), &options(ms(500)));
            assert_eq!(err.kind(), ErrorKind::Refused);
            // The control: what the system does by default follows bindv6only.
            let plain = TcpListener::bind("[::]:0").unwrap();
            let port = plain.local_addr().unwrap().port();
            let reached = TcpStream::connect(("127.0.0.1", port)).is_ok();
            assert_eq!(reached, bindv6only == "0");
        }
    });
}
