//! S1: the five-tuple. S3: the transport. S4: one endpoint syntax.

use crate::support::os::unix::net::UnixListener;
use std::net::{SocketAddr, TcpListener};

use crate::support;
#[cfg(feature = "datagram")]
use crate::support::Datagrams;
use crate::support::{
    Api, Client, INFINITE, Opt, Outcome, Reconnect, Server, TempDir, Transport, Tuple, fails, pair,
    pair_with,
};
#[cfg(feature = "serve")]
use crate::support::{On, Service};
use keepsock::{Endpoint, ErrorKind, Family, Protocol};

both_apis![
    five_tuple_of_tcp_is_the_same_on_both_sides,
    five_tuple_of_ipv6_prints_brackets,
    five_tuple_of_unix_has_names,
    five_tuple_after_close_is_readable,
    error_of_connection_names_the_five_tuple,
    endpoint_that_is_invalid_is_named,
    endpoint_of_server_parses_again,
    endpoint_selects_the_transport,
    endpoint_with_zone_or_service_name_is_resolved,
    host_name_without_dots_is_resolved,
    connect_host_with_any_host_keeps_its_meaning,
    #[cfg(feature = "datagram")] {
        localhost_is_loopback_in_every_function,
        link_local_address_without_zone_is_rejected,
        local_address_of_a_group_or_network_is_rejected,
        ipv4_mapped_address_is_the_ipv4_address,
    }
    #[cfg(all(feature = "datagram", feature = "serve"))] {
        remote_address_that_no_peer_has_is_rejected,
    }
];

/// L1: an IPv4-mapped address is treated as the IPv4 address everywhere. S4: the error names a zone
/// number without an interface.
#[cfg(feature = "datagram")]
fn ipv4_mapped_address_is_the_ipv4_address<A: Api>() {
    for (text, host) in [("[::ffff:127.0.0.1]:0", "127.0.0.1"), ("[::ffff:0.0.0.0]:0", "0.0.0.0")] {
        let server = A::listen(text, &[]).unwrap();
        assert_eq!(server.endpoint(), format!("{host}:{}", server.port()));
        let datagram = A::Datagram::bind(text, &[]).unwrap();
        assert!(datagram.endpoint().starts_with(host), "{}", datagram.endpoint());
    }
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let local = [Opt::Local("[::ffff:127.0.0.1]:0")];
    A::connect(&server.endpoint(), &local).unwrap();
    A::Datagram::connect(&server.endpoint(), &local).unwrap();
    let zone = "[fe80::1%999999]:80";
    for failure in [
        fails(A::connect(zone, &[]), ErrorKind::InvalidEndpoint),
        fails(A::listen(zone, &[]), ErrorKind::InvalidEndpoint),
        fails(A::Datagram::bind(zone, &[]), ErrorKind::InvalidEndpoint),
    ] {
        assert!(
            failure.message.contains("this machine has no interface \"999999\""),
            "{failure:?}"
        );
    }
}

const TCP: i32 = Protocol::Tcp as i32;
const UNIX: i32 = Protocol::Unix as i32;

fn loopback(port: u16) -> (String, u16) {
    ("127.0.0.1".to_owned(), port)
}

/// S1: protocol, local and remote address and port are the same on both sides.
fn five_tuple_of_tcp_is_the_same_on_both_sides<A: Api>() {
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

/// S1: IPv6 addresses have brackets when printed with a port, and none without.
fn five_tuple_of_ipv6_prints_brackets<A: Api>() {
    let server = A::listen("[::1]:0", &[]).unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    let t = client.five_tuple();
    assert_eq!(t.remote, ("::1".to_owned(), server.port()));
    assert_eq!(client.name(), format!("tcp [::1]:{} -> [::1]:{}", t.local.1, t.remote.1));
}

/// S1, S3: a Unix socket has names instead of ports. A client has no name.
fn five_tuple_of_unix_has_names<A: Api>() {
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

/// S1: the five-tuple is readable at any time, also after an error, after close and after a release
/// of the descriptor.
fn five_tuple_after_close_is_readable<A: Api>() {
    for transport in support::TRANSPORTS {
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
    // The first read of the five-tuple, when the kernel no longer has it. A connection of a
    // wildcard listener does not get its address from the listener.
    let server = A::listen("0.0.0.0:0", &[]).unwrap();
    let here = format!("127.0.0.1:{}", server.port());
    let ends: [fn(&A::Client); 4] = [
        |c| c.close().unwrap(),
        |c| {
            c.set_nonblocking(true).unwrap();
            c.close().unwrap();
        },
        |c| c.abort(),
        |c| drop(c.release().unwrap()),
    ];
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

/// S1, E1: the error of a failed call names the connection.
fn error_of_connection_names_the_five_tuple<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.set_read_timeout(10).unwrap();
    let failure = fails(p.client.read(&mut [0; 8]), ErrorKind::TimedOut);
    assert_eq!(failure.endpoint, p.client.name());
    assert_eq!(*failure.message, *format!("read {}: timed out after 10 ms", p.client.name()));
}

/// C6, S4: localhost and the names below it are the loopback addresses (RFC 6761 section 6.3) in
/// each function, in the requested family.
#[cfg(feature = "datagram")]
fn localhost_is_loopback_in_every_function<A: Api>() {
    let families = [(Family::Any, "::1"), (Family::Ipv4, "127.0.0.1"), (Family::Ipv6, "::1")];
    for name in ["localhost", "x.localhost", "LOCALHOST."] {
        let any_port = format!("{name}:0");
        for (family, host) in families {
            let host_of = |endpoint: &str| endpoint.parse::<SocketAddr>().unwrap().ip();
            let server = A::listen(&any_port, &[Opt::Family(family)]).unwrap();
            assert_eq!(host_of(&server.endpoint()), support::ip(host), "{name}");
            let to = format!("{name}:{}", server.port());
            let local = [Opt::Family(family), Opt::Local(&any_port)];
            let client = A::connect(&to, &local).unwrap();
            assert_eq!(client.five_tuple().local.0, host, "{name}");
            // A name without a lookup causes no wait.
            A::start(&to, &local).unwrap();

            let socket = A::Datagram::bind(&any_port, &[Opt::Family(family)]).unwrap();
            assert_eq!(socket.five_tuple().local.0, host, "{name}");
            let to = format!("{name}:{}", socket.port());
            let client = A::Datagram::connect(&to, &local).unwrap();
            assert_eq!(client.five_tuple().local.0, host, "{name}");
            assert_eq!(client.five_tuple().remote, (host.to_owned(), socket.port()), "{name}");
            client.close();
            socket.close();
        }
    }
}

/// S4: the error names the invalid part, for connect and listen.
fn endpoint_that_is_invalid_is_named<A: Api>() {
    let long_path = format!("unix:/{}", "x".repeat(108));
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
        ("127.1:80", "not an IPv4 address: \"127.1\": write four decimal numbers"),
        ("0:80", "not an IPv4 address: \"0\""),
        ("0x7f.1:80", "not an IPv4 address: \"0x7f.1\""),
        ("0x7f000001:80", "not an IPv4 address: \"0x7f000001\""),
        ("0177.0.0.0x1:80", "not an IPv4 address: \"0177.0.0.0x1\""),
        ("::1:80", "brackets"),
        ("::1", "brackets"),
        ("fe80::1", "brackets"),
        ("fe80::1%eth0", "brackets"),
        ("fe80::1%eth0:80", "brackets"),
        ("1:2:3:4:5:6:7:8:80", "brackets"),
        ("tcp:127.0.0.1:80", "':' in the host: \"tcp:127.0.0.1\": write host:port"),
        ("127.0.0.1:9:9", "':' in the host: \"127.0.0.1:9\": write host:port"),
        (".localhost:80", "empty label in the host: \".localhost\""),
        ("a..b:80", "empty label in the host: \"a..b\""),
        ("a..:80", "empty label in the host: \"a..\""),
        ("[::1:80", "\"[\" without \"]\""),
        ("[::1]", "no port"),
        ("[::1]80", "unexpected text after \"]\": \"80\""),
        ("[127.0.0.1]:80", "not an IPv6 address: \"127.0.0.1\""),
        ("[fe80::1%]:80", "empty zone"),
        ("[fe80::1%nosuchzone]:80", "this machine has no interface \"nosuchzone\""),
        ("unix:", "empty path"),
        ("unix:@", "empty abstract name"),
        (&long_path, "path too long: 109 bytes, at most 108"),
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
    // N4: misleading characters are escaped.
    for c in ['\u{202e}', '\u{200b}', '\u{ad}', '\u{1b}'] {
        for outcome in [
            A::connect(&format!("a{c}b:80"), &[]).map(drop),
            A::listen(&format!("a{c}b:80"), &[]).map(drop),
        ] {
            let failure = fails(outcome, ErrorKind::InvalidEndpoint);
            assert!(failure.message.contains(&format!("{c:?} in the host")), "{failure:?}");
            assert!(!failure.message.contains(c), "{failure:?}");
        }
    }
    let failure = fails(A::connect("*:80", &[]), ErrorKind::InvalidEndpoint);
    assert!(failure.message.contains("for listening"), "{failure:?}");
    let local = [Opt::Local("nonsense")];
    fails(A::connect("127.0.0.1:80", &local), ErrorKind::InvalidEndpoint);
}

/// S4: the printed endpoint of a server can be connected to, and prints the same text.
fn endpoint_of_server_parses_again<A: Api>() {
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

/// S3, S4: the endpoint selects the transport. All transports reach programs without keepsock.
fn endpoint_selects_the_transport<A: Api>() {
    let dir = TempDir::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let _unix = UnixListener::bind(dir.path("s")).unwrap();
    let tcp_endpoint = tcp.local_addr().unwrap().to_string();
    assert_eq!(A::connect(&tcp_endpoint, &[]).unwrap().five_tuple().protocol, TCP);
    assert_eq!(A::connect(&dir.endpoint("s"), &[]).unwrap().five_tuple().protocol, UNIX);
    fails(A::connect(&dir.endpoint("none"), &[]), ErrorKind::NotFound);
}

/// S4: a zone is a name or a number, and a port can be a service name.
fn endpoint_with_zone_or_service_name_is_resolved<A: Api>() {
    for zone in ["lo", "1"] {
        // ::1 accepts a zone as every IPv6 address does.
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
        // Only this test uses this address, so no process listens there.
        let failure = fails(A::connect("127.83.0.1:discard", &[]), ErrorKind::Refused);
        assert_eq!(failure.attempts[0].address, "127.83.0.1:9");
    }
    let failure = fails(A::connect("127.0.0.1:no-such-service", &[]), ErrorKind::NotFound);
    assert!(failure.message.contains("no service is named \"no-such-service\""), "{failure:?}");
}

/// S4: a host name from the system's table needs no dots.
fn host_name_without_dots_is_resolved<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
    let options = [Opt::Family(keepsock::Family::Ipv4)];
    let endpoint = format!("localhost:{}", p.server.port());
    let client = A::connect(&endpoint, &options).unwrap();
    assert_eq!(client.five_tuple().remote, loopback(p.server.port()));
    let _: SocketAddr = p.server.endpoint().parse().unwrap();
}

/// S4: with host and port as two arguments, each form of a host connects, and no host is
/// interpreted as another form.
fn connect_host_with_any_host_keeps_its_meaning<A: Api>() {
    let server = A::listen("*:0", &[]).unwrap();
    for (host, address) in [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::1%lo", "::1%1"),
        ("[::1%lo]", "::1%1"),
    ] {
        let client = A::connect_host(host, server.port(), &[]).unwrap();
        assert_eq!(client.five_tuple().remote, (address.to_owned(), server.port()));
    }
    // With this address no lookup occurs.
    let here = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let client = A::connect_host("unix", 80, &[Opt::Address(here)]).unwrap();
    assert_eq!(client.five_tuple().remote, loopback(server.port()));
    let unused = [Opt::Address(support::refused_address())];
    let failure = fails(A::connect_host("unix", 80, &unused), ErrorKind::Refused);
    assert_eq!(failure.endpoint, "[unix]:80");
    for (host, part) in [
        ("", "empty host"),
        ("127.0.0.1:80", "':' in the host: pass the port as a separate argument"),
        ("unix:/run/x", "':' in the host"),
        ("0x7f.1", "not an IPv4 address: \"0x7f.1\""),
        ("[host]", "not an IPv6 address: \"host\""),
        ("::1%lo]:443", "']' in the zone"),
        ("[fe80::1%a b]", "' ' in the zone"),
        ("*", "for listening"),
    ] {
        let failure = fails(A::connect_host(host, 80, &[]), ErrorKind::InvalidEndpoint);
        assert!(failure.message.contains(part), "{host:?}: {failure:?}");
    }
    fails(A::connect_host("127.0.0.1", 0, &[]), ErrorKind::InvalidEndpoint);
}

/// S4: the error names the missing zone and the syntax, in each function, and reconnect does not
/// retry.
#[cfg(feature = "datagram")]
fn link_local_address_without_zone_is_rejected<A: Api>() {
    let address: SocketAddr = "[fe80::1]:80".parse().unwrap();
    let supplied = [Opt::Address("127.0.0.1:80".parse().unwrap()), Opt::Address(address)];
    let local = [Opt::Local("[fe80::1]:0")];
    let datagram = A::Datagram::bind("[::1]:0", &[]).unwrap();
    for failure in [
        fails(A::connect("[fe80::1]:80", &[]), ErrorKind::InvalidEndpoint),
        fails(A::connect_host("fe80::1", 80, &[]), ErrorKind::InvalidEndpoint),
        fails(A::connect("service.invalid:80", &supplied), ErrorKind::InvalidEndpoint),
        fails(A::connect("[::1]:80", &local), ErrorKind::InvalidEndpoint),
        fails(A::start("[fe80::1]:80", &[]), ErrorKind::InvalidEndpoint),
        fails(A::listen("[fe80::1]:80", &[]), ErrorKind::InvalidEndpoint),
        fails(A::Datagram::bind("[fe80::1]:80", &[]), ErrorKind::InvalidEndpoint),
        fails(A::Datagram::connect("[fe80::1]:80", &[]), ErrorKind::InvalidEndpoint),
        fails(A::Datagram::connect("service.invalid:80", &supplied), ErrorKind::InvalidEndpoint),
        fails(datagram.send_to(b"x", address), ErrorKind::InvalidEndpoint),
        fails(A::reconnect("[fe80::1]:80", &[]), ErrorKind::InvalidEndpoint),
    ] {
        let part = "link-local address without a zone: write [fe80::1%interface], such as \
                    [fe80::1%eth0]";
        assert!(failure.message.contains(part), "{failure:?}");
        assert!(failure.message.contains("[fe80::1]:"), "{failure:?}");
    }
    let all = fails(A::Datagram::bind("[ff02::1]:0", &[]), ErrorKind::InvalidEndpoint);
    assert!(all.message.contains("[ff02::1%eth0]"), "{all:?}");
    // The interface replaces the zone. No interface has this address.
    let through = [Opt::Interface("lo")];
    let kind = match cfg!(keepsock_portable) {
        true => ErrorKind::Unsupported,
        false => ErrorKind::AddressNotAvailable,
    };
    fails(A::listen("[fe80::1]:0", &through), kind);
}

/// S4, E2: each function rejects a remote endpoint that no peer can have with one status, and names
/// the remedy.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn remote_address_that_no_peer_has_is_rejected<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = server.serve_events(&[], On::default()).unwrap();
    let datagrams = [
        A::Datagram::bind("127.0.0.1:0", &[]).unwrap(),
        A::Datagram::bind("[::1]:0", &[]).unwrap(),
    ];
    let check = |remote: &str, words: &str, of_datagrams: bool| {
        let is_number = remote.parse::<SocketAddr>();
        let rejected = |outcome: Outcome<()>| {
            let failure = fails(outcome, ErrorKind::InvalidEndpoint);
            assert!(failure.message.contains(words), "{remote}: {failure:?}");
        };
        rejected(A::connect(remote, &[]).map(drop));
        rejected(A::start(remote, &[]).map(drop));
        rejected(A::reconnect(remote, &[]).and_then(|mut r| r.connect().map(drop)));
        rejected(service.connect(remote, &[], 1));
        if of_datagrams {
            rejected(A::Datagram::connect(remote, &[]).map(drop));
        }
        let Ok(address) = is_number else {
            return;
        };
        let (host, port) = (address.ip().to_string(), address.port());
        rejected(A::connect_host(&host, port, &[]).map(drop));
        let options = || [Opt::Address(address)];
        rejected(A::connect("service.invalid:80", &options()).map(drop));
        rejected(A::start("service.invalid:80", &options()).map(drop));
        if of_datagrams {
            rejected(A::Datagram::connect("service.invalid:80", &options()).map(drop));
            let ipv6 = matches!(address.ip().to_canonical(), std::net::IpAddr::V6(_));
            let datagram = &datagrams[usize::from(ipv6)];
            rejected(datagram.send_to(b"x", address));
            rejected(datagram.send_to_endpoint(b"x", remote));
            rejected(datagram.send_batch(&[(b"x", Some(address))]).map(drop));
        }
    };
    for remote in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
        check(remote, "port 0 is for listening and binding: write the port of the peer", true);
    }
    check(
        "*:80",
        "\"*\" is for listening and binding: write the name or the address of the peer",
        true,
    );
    for (remote, words) in [
        (
            "0.0.0.0:80",
            "0.0.0.0 is for listening and binding: write the address of the peer, such as 127.0.0.1",
        ),
        ("[::]:80", ":: is for listening and binding: write the address of the peer, such as ::1"),
        ("[::ffff:0.0.0.0]:80", "0.0.0.0 is for listening and binding"),
    ] {
        check(remote, words, true);
    }
    // Datagrams can be sent to these addresses.
    for (remote, words) in [
        ("224.0.0.1:80", "224.0.0.1 is a multicast address: write the address of one host"),
        ("[ff0e::1]:80", "ff0e::1 is a multicast address"),
        ("[::ffff:224.0.0.1]:80", "224.0.0.1 is a multicast address"),
        ("255.255.255.255:80", "255.255.255.255 is a broadcast address: write the address of one"),
    ] {
        check(remote, words, false);
    }
    // The added addresses replace the address and the port of the endpoint.
    let known = [Opt::Address(SocketAddr::new("127.0.0.1".parse().unwrap(), server.port()))];
    for name in ["0.0.0.0:80", "service.invalid:0"] {
        A::connect(name, &known).unwrap();
        A::Datagram::connect(name, &known).unwrap();
    }
}

/// S4, C5, L5: a TCP socket, or a datagram socket with one peer, cannot have the address of a group
/// or of a whole network. The kernel permits some of these addresses.
#[cfg(feature = "datagram")]
fn local_address_of_a_group_or_network_is_rejected<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for (local, words) in [
        ("224.0.0.1:0", "224.0.0.1 is a multicast address: write the address of one host"),
        ("[::ffff:224.0.0.1]:0", "224.0.0.1 is a multicast address"),
        ("255.255.255.255:0", "255.255.255.255 is a broadcast address"),
        ("127.255.255.255:0", "127.255.255.255 is a broadcast address"),
        ("[ff05::1]:0", "ff05::1 is a multicast address"),
        ("[ff02::1%lo]:0", "ff02::1 is a multicast address"),
    ] {
        let remote = if local.starts_with("[ff") { "[::1]:9" } else { &server.endpoint() };
        let options = || [Opt::Local(local)];
        for failure in [
            fails(A::listen(local, &[]), ErrorKind::InvalidEndpoint),
            fails(A::listen_all(&["127.0.0.1:0", local], &[]), ErrorKind::InvalidEndpoint),
            fails(A::connect(remote, &options()), ErrorKind::InvalidEndpoint),
            fails(A::start(remote, &options()), ErrorKind::InvalidEndpoint),
            fails(A::Datagram::connect(remote, &options()), ErrorKind::InvalidEndpoint),
        ] {
            assert!(failure.message.contains(words), "{local}: {failure:?}");
            assert!(failure.message.contains(local), "{local}: {failure:?}");
        }
        A::Datagram::bind(local, &[]).unwrap();
    }
    // Addresses of this machine that only look like those of a network.
    for host in ["127.0.0.3", "127.0.0.4", "127.1.255.255"] {
        A::listen(&format!("{host}:0"), &[]).unwrap();
    }
}
