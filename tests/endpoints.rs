//! S1: the five-tuple. S3: the transport. S4: one endpoint syntax.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;

use common::{
    Api, Client, INFINITE, Opt, Server, TempDir, Transport, Tuple, fails, pair, pair_with,
};
use keepsock::{Endpoint, ErrorKind, Protocol};

both_apis![
    the_five_tuple_of_tcp,
    the_five_tuple_of_ipv6,
    the_five_tuple_of_unix,
    the_five_tuple_stays_readable,
    an_error_names_the_five_tuple,
    what_does_not_parse_is_named,
    what_is_printed_parses,
    one_syntax_for_all_transports,
    zones_and_services_stand_for_numbers,
    names_need_no_dots,
];

const TCP: i32 = Protocol::Tcp as i32;
const UNIX: i32 = Protocol::Unix as i32;

fn loopback(port: u16) -> (String, u16) {
    ("127.0.0.1".to_owned(), port)
}

/// S1: protocol, local and remote address and port, the same from both sides.
fn the_five_tuple_of_tcp<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let t = p.client.five_tuple();
    assert_eq!(t.protocol, TCP);
    assert_eq!(t.remote, loopback(p.server.port()));
    assert_eq!(t.local.0, "127.0.0.1");
    assert_ne!(t.local.1, 0);
    let Tuple { local, remote, .. } = p.accepted.five_tuple();
    assert_eq!((local, remote), (t.remote.clone(), t.local.clone()));
    let name = format!("tcp 127.0.0.1:{} -> 127.0.0.1:{}", t.local.1, t.remote.1);
    assert_eq!(p.client.name(), name);
}

/// S1: IPv6 in brackets when printed with its port, without them alone.
fn the_five_tuple_of_ipv6<A: Api>() {
    let server = A::listen("[::1]:0", &[]).unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    let t = client.five_tuple();
    assert_eq!(t.remote, ("::1".to_owned(), server.port()));
    assert_eq!(client.name(), format!("tcp [::1]:{} -> [::1]:{}", t.local.1, t.remote.1));
}

/// S1, S3: a Unix socket has names instead of ports; a client has none.
fn the_five_tuple_of_unix<A: Api>() {
    let dir = TempDir::new();
    let path = dir.path("s").display().to_string();
    let abstract_name = format!("@parity {} {}", std::process::id(), dir.path("x").display());
    for (endpoint, host) in
        [(dir.endpoint("s"), path), (format!("unix:{abstract_name}"), abstract_name)]
    {
        let server = A::listen(&endpoint, &[]).unwrap();
        let client = A::connect(&endpoint, &[]).unwrap();
        let accepted = server.accept().unwrap();
        let t = client.five_tuple();
        assert_eq!(t.protocol, UNIX);
        assert_eq!((t.local, t.remote), ((String::new(), 0), (host.clone(), 0)));
        let t = accepted.five_tuple();
        assert_eq!((t.local, t.remote), ((host, 0), (String::new(), 0)));
        assert_eq!(client.name(), format!("unix unix:(unnamed) -> {endpoint}"));
        assert_eq!((server.endpoint(), server.port()), (endpoint, 0));
    }
}

/// S1: readable at any time, also after an error, after close and after giving the
/// descriptor up.
fn the_five_tuple_stays_readable<A: Api>() {
    for transport in common::TRANSPORTS {
        let p = pair::<A>(transport);
        let (client, accepted) = (p.client.five_tuple(), p.accepted.five_tuple());
        p.client.abort();
        p.accepted.wait_hangup(INFINITE).unwrap();
        let _ = p.accepted.read(&mut [0; 8]);
        assert_eq!(p.accepted.five_tuple(), accepted);
        p.accepted.close().unwrap();
        assert_eq!(p.accepted.five_tuple(), accepted);
        assert_eq!(p.client.five_tuple(), client);
    }
    // Asked for the first time when it is too late to ask the kernel: a wildcard
    // listener's connection does not know its address from the listener.
    let server = A::listen("0.0.0.0:0", &[]).unwrap();
    let here = format!("127.0.0.1:{}", server.port());
    let ends: [fn(&A::Client); 3] =
        [|c| c.close().unwrap(), |c| c.abort(), |c| drop(c.release().unwrap())];
    for end in ends {
        let client = A::connect(&here, &[]).unwrap();
        let accepted = server.accept().unwrap();
        end(&accepted);
        end(&client);
        assert_eq!(accepted.five_tuple().local, loopback(server.port()));
        assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
        assert!(accepted.name().starts_with(&format!("tcp {here} -> 127.0.0.1:")));
    }
}

/// S1, E1: a failed call names the connection.
fn an_error_names_the_five_tuple<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.set_read_timeout(10).unwrap();
    let failure = fails(p.client.read(&mut [0; 8]), ErrorKind::TimedOut);
    assert_eq!(failure.endpoint, p.client.name());
    assert_eq!(failure.message, format!("read {}: timed out", p.client.name()));
}

/// S4: an error that names the offending part, whether one connects or listens.
fn what_does_not_parse_is_named<A: Api>() {
    let long_path = format!("unix:/{}", "x".repeat(107));
    let long_name = format!("unix:@{}", "x".repeat(108));
    for (text, part) in [
        ("", "no port"),
        ("localhost", "no port"),
        (":80", "empty host"),
        ("localhost:", "empty port"),
        ("localhost:65536", "port out of range: \"65536\""),
        ("localhost:99999999999999999999", "port out of range"),
        ("localhost:-1", "\"-1\""),
        ("localhost:80 ", "\"80 \""),
        (" localhost:80", "' ' in the host"),
        ("127.0.0.256:80", "not an IPv4 address: \"127.0.0.256\""),
        ("127.1:80", "not an IPv4 address: \"127.1\""),
        ("::1:80", "brackets"),
        ("[::1:80", "\"[\" without \"]\""),
        ("[::1]", "no port"),
        ("[::1]80", "unexpected text after \"]\": \"80\""),
        ("[127.0.0.1]:80", "not an IPv6 address: \"127.0.0.1\""),
        ("[fe80::1%]:80", "empty zone"),
        ("[fe80::1%nosuchzone]:80", "no such zone: \"nosuchzone\""),
        ("unix:", "empty path"),
        ("unix:@", "empty abstract name"),
        (&long_path, "path too long: 108 bytes, at most 107"),
        (&long_name, "abstract name too long: 108 bytes, at most 107"),
    ] {
        for failure in [
            fails(A::connect(text, &[]), ErrorKind::InvalidEndpoint),
            fails(A::listen(text, &[]), ErrorKind::InvalidEndpoint),
        ] {
            assert!(failure.message.contains(part), "{text:?}: {failure:?}");
            assert!(failure.message.contains(text), "{text:?}: {failure:?}");
        }
    }
    let failure = fails(A::connect("*:80", &[]), ErrorKind::InvalidEndpoint);
    assert!(failure.message.contains("for listening"), "{failure:?}");
    let local = [Opt::Local("nonsense")];
    fails(A::connect("127.0.0.1:80", &local), ErrorKind::InvalidEndpoint);
}

/// S4: the printed endpoint of a server is one to connect to, and prints alike.
fn what_is_printed_parses<A: Api>() {
    let dir = TempDir::new();
    for text in ["127.0.0.1:0", "[::1]:0", "localhost:0", &dir.endpoint("s")] {
        let server = A::listen(text, &[]).unwrap();
        let printed = server.endpoint();
        assert_eq!(printed.parse::<Endpoint>().unwrap().to_string(), printed);
        let client = A::connect(&printed, &[]).unwrap();
        let remote = client.name();
        assert!(remote.ends_with(&format!("-> {printed}")), "{remote}: {printed}");
    }
    let server = A::listen("*:0", &[]).unwrap();
    assert_eq!(server.endpoint(), format!("*:{}", server.port()));
}

/// S3, S4: the endpoint chooses the transport, and strangers are reached by all.
fn one_syntax_for_all_transports<A: Api>() {
    let dir = TempDir::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let _unix = UnixListener::bind(dir.path("s")).unwrap();
    let tcp_endpoint = tcp.local_addr().unwrap().to_string();
    assert_eq!(A::connect(&tcp_endpoint, &[]).unwrap().five_tuple().protocol, TCP);
    assert_eq!(A::connect(&dir.endpoint("s"), &[]).unwrap().five_tuple().protocol, UNIX);
    fails(A::connect(&dir.endpoint("none"), &[]), ErrorKind::NotFound);
}

/// S4: a zone by name or number, a service by name.
fn zones_and_services_stand_for_numbers<A: Api>() {
    for zone in ["lo", "1"] {
        // ::1 takes a zone as every IPv6 address does.
        let endpoint = format!("[::1%{zone}]:0");
        let server = A::listen(&endpoint, &[]).unwrap();
        A::connect(&format!("[::1]:{}", server.port()), &[]).unwrap();
    }
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let known = services.lines().any(|l| {
        let mut words = l.split_whitespace();
        words.next() == Some("discard") && words.next() == Some("9/tcp")
    });
    if known {
        // Nobody but us knows this address, so nothing listens there.
        let failure = fails(A::connect("127.83.0.1:discard", &[]), ErrorKind::Refused);
        assert_eq!(failure.attempts[0].address, "127.83.0.1:9");
    }
    let failure = fails(A::connect("127.0.0.1:no-such-service", &[]), ErrorKind::NotFound);
    assert!(failure.message.contains("no such service: \"no-such-service\""), "{failure:?}");
}

/// S4: a host name from the system's own table.
fn names_need_no_dots<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
    let options = [Opt::Family(keepsock::Family::Ipv4)];
    let endpoint = format!("localhost:{}", p.server.port());
    let client = A::connect(&endpoint, &options).unwrap();
    assert_eq!(client.five_tuple().remote, loopback(p.server.port()));
    let _: SocketAddr = p.server.endpoint().parse().unwrap();
}
