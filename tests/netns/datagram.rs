//! Datagram sockets between hosts: replies from the requested address (D2), ICMP errors of other
//! hosts and routers (D2), groups and broadcast (D1), datagrams longer than the path MTU (D1, D3).

use std::io::ErrorKind as Kind;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::support;
use crate::support::netns::{Ip, Network, Route, in_namespace, join, row};
use crate::support::{AWAITED, Api, Datagrams, Opt, api, bytes, eventually, fails, ip, system};
use crate::support::{netns, watch};
use keepsock::ErrorKind;

both_apis![
    reply_of_multihomed_host_leaves_from_requested_address,
    icmp_errors_of_another_host_end_no_receive,
    icmp_errors_of_a_router_end_no_receive,
    icmp_errors_of_all_types_are_reported,
    multicast_between_hosts_reaches_joined_interface,
    multicast_through_interface_leaves_by_it,
    multicast_with_source_filter_receives_one_sender,
    multicast_loopback_controls_own_host_only,
    broadcast_to_another_host_gets_reply,
    datagram_above_mtu_is_fragmented,
    datagram_above_reduced_path_mtu_is_reported,
    batch_above_mtu_arrives_unchanged,
];

const LIMIT: Duration = Duration::from_secs(25);

/// A plain socket with a receive timeout.
fn plain(network: &Network, at: SocketAddr) -> UdpSocket {
    let socket = network.run(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(AWAITED as u64))).unwrap();
    socket
}

/// Binds a socket of keepsock in the current network.
fn bind<A: Api>(network: &Network, endpoint: &str) -> A::Datagram {
    network.run(|| A::Datagram::bind(endpoint, &[Opt::ReadTimeout(AWAITED)])).unwrap()
}

/// Returns the link-local address of an interface, and the interface's number. The fields of a line
/// of if_inet6 are address, number, prefix, scope, flags and name.
fn on_link(network: &Network, interface: &str) -> (IpAddr, u32) {
    let text = network.run(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6")).unwrap();
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words[0].starts_with("fe80") && words[5] == interface).unwrap();
    let address = u128::from_str_radix(line[0], 16).unwrap();
    (IpAddr::V6(address.into()), u32::from_str_radix(line[1], 16).unwrap())
}

fn index_of(network: &Network, interface: &str) -> u32 {
    on_link(network, interface).1
}

fn family_of(ip: IpAddr) -> Ip {
    if ip.is_ipv4() { Ip::V4 } else { Ip::V6 }
}

/// The wildcard address of a family.
fn any(family: Ip) -> &'static str {
    match family {
        Ip::V4 => "0.0.0.0:0",
        Ip::V6 => "[::]:0",
    }
}

/// Two hosts and their link: this host with the interface `here`, and the other host with the
/// interface `there`.
struct Link {
    here: Network,
    there: Network,
}

const HERE: [&str; 2] = ["192.0.2.10/24", "2001:db8:1::10/64"];

/// This host's address on the link of the other host's address.
fn here(other: IpAddr) -> IpAddr {
    match family_of(other) {
        Ip::V4 => ip("192.0.2.10"),
        Ip::V6 => ip("2001:db8:1::10"),
    }
}

impl Link {
    fn new(there: &[&str]) -> Link {
        let link = Link { here: Network::here(), there: Network::new() };
        join((&link.here, "here", &HERE), (&link.there, "there", there));
        link
    }
}

// ---- several addresses (D2) ------------------------------------------------------------------

/// D2: a host with many addresses replies to each request from the requested address. Each client
/// is connected and receives from that address only. The control case lets the kernel choose the
/// source address.
fn reply_of_multihomed_host_leaves_from_requested_address<A: Api>() {
    in_namespace(
        &test_name!(A, "reply_of_multihomed_host_leaves_from_requested_address"),
        LIMIT,
        || {
            let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
            let addresses6 = ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3"];
            let there: Vec<_> = addresses
                .map(|a| format!("{a}/24"))
                .into_iter()
                .chain(addresses6.map(|a| format!("{a}/64")))
                .collect();
            let link = Link::new(&there.iter().map(String::as_str).collect::<Vec<_>>());
            // One address of each family that does not belong to the receiving interface.
            for address in ["198.51.100.7/32", "2001:db8:7::7/128"] {
                link.there.run(|| netns::add_address(address, "lo"));
            }
            link.here.ip("route add 198.51.100.7/32 via 192.0.2.1");
            link.here.ip("-6 route add 2001:db8:7::7/128 via 2001:db8:1::1");
            let v4: Vec<_> = addresses.iter().copied().chain(["198.51.100.7"]).map(ip).collect();
            let v6: Vec<_> = addresses6.iter().copied().chain(["2001:db8:7::7"]).map(ip).collect();
            let (link_local, _) = on_link(&link.there, "there");

            for (bound, asked) in [("*:0", &v4), ("*:0", &v6), ("0.0.0.0:0", &v4), ("[::]:0", &v6)]
            {
                let udp_gro = [Opt::ReadTimeout(AWAITED), Opt::UdpGro(true)];
                let server = link.there.run(|| A::Datagram::bind(bound, &udp_gro)).unwrap();
                assert_eq!(asked.iter().filter(|ip| ask::<A>(&link, &server, **ip)).count(), 1);
                drop(server);
                let server = bind::<A>(&link.there, bound);
                let right = asked.iter().filter(|ip| ask::<A>(&link, &server, **ip)).count();
                assert_eq!(right, 1, "the kernel's choice is right for one of {asked:?}");
                let all = asked.len();
                let family = family_of(asked[0]);
                row(
                    &format!("D2 {family}, {all} addresses, bound to {bound}"),
                    &format!("{}: reply, and in a batch", api::<A>()),
                    format!("{all} replies from the requested address"),
                    &format!("send_to: {right} of {all} arrived"),
                );
                if family == Ip::V6 {
                    // A client of a link-local address has one itself, and the kernel chooses the only
                    // one.
                    assert!(ask::<A>(&link, &server, link_local));
                }
            }
        },
    );
}

/// Sends requests to an address, and checks that the replies come from it. Returns whether the
/// reply with the kernel's source address also arrived.
fn ask<A: Api>(link: &Link, server: &A::Datagram, asked: IpAddr) -> bool {
    let (here, there) = (index_of(&link.here, "here"), index_of(&link.there, "there"));
    let with = |zone| match asked {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(v6, server.port(), 0, zone))
        }
        _ => SocketAddr::new(asked, server.port()),
    };
    let client = plain(&link.here, any(family_of(asked)).parse().unwrap());
    client.connect(with(here)).unwrap();
    client.send(b"question").unwrap();
    let (got, info) = server.recv_info(64).unwrap();
    assert_eq!(got.bytes, b"question");
    assert_eq!((got.to, got.local), (Some(with(there)), Some(with(there))));
    assert_eq!(got.interface, there);
    let own = client.local_addr().unwrap();
    let from = got.from;
    assert_eq!((from.ip(), from.port()), (own.ip(), own.port()));

    server.send_to(b"chosen", from).unwrap();
    server.reply(&info, b"answer").unwrap();
    assert_eq!(
        server.reply_batch(&[b"1".as_slice(), b"two", b"3"].map(|bytes| (&info, bytes))).unwrap(),
        3
    );
    let mut buf = [0; 64];
    let mut next = || {
        let len = client.recv(&mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    };
    let first = next();
    let came = first == "chosen";
    let answer = if came { next() } else { first };
    assert_eq!([answer, next(), next(), next()], ["answer", "1", "two", "3"], "{asked}");
    came
}

// ---- ICMP errors (D2) ---------------------------------------------------------------------

const REFUSALS: u32 = 1000;

/// Each datagram causes an ICMP error: by default a host limits their rate (icmp(7)).
fn unlimited_icmp(network: &Network) {
    network.run(|| {
        netns::sysctl("net.ipv4.icmp_ratemask", "0");
        netns::sysctl("net.ipv6.icmp.ratelimit", "0");
        netns::sysctl("net.ipv6.icmp.ratemask", "\n");
    });
}

/// The number of errors of this socket, returned by a call or not.
fn errors<A: Api>(socket: &A::Datagram) -> u64 {
    while socket.recv_error().unwrap().is_some() {}
    socket.error_count()
}

/// D2: another host answers a thousand datagrams with ICMP errors. All other datagrams are
/// received, and the errors name the host.
fn icmp_errors_of_another_host_end_no_receive<A: Api>() {
    in_namespace(&test_name!(A, "icmp_errors_of_another_host_end_no_receive"), LIMIT, || {
        let link = Link::new(&["192.0.2.1/24", "2001:db8:1::1/64"]);
        unlimited_icmp(&link.there);
        for there in ["192.0.2.1:0", "[2001:db8:1::1]:0"].map(|a| a.parse().unwrap()) {
            // Receives that wait in the kernel, and receives that wait in poll.
            let waits = [&[][..], &[Opt::ReadTimeout(AWAITED)]];
            let failed = waits.map(|options| refused_when_bound::<A>(&link, there, options));
            said::<A>(there, "bound, set_recv_errors", failed);
            let failed = waits.map(|options| refused_when_connected::<A>(&link, there, options));
            said::<A>(there, "connected", failed);
        }
    });
}

/// A closed port of another host.
fn closed(network: &Network, at: SocketAddr) -> SocketAddr {
    plain(network, at).local_addr().unwrap()
}

/// Returns how many calls of a plain socket failed under the same errors.
fn refused_when_bound<A: Api>(link: &Link, there: SocketAddr, options: &[Opt<'_, A>]) -> usize {
    let gone = closed(&link.there, there);
    let socket = A::Datagram::bind("*:0", options).unwrap();
    socket.set_recv_errors(true).unwrap();
    let friend = plain(&link.there, there);
    let own = SocketAddr::new(here(there.ip()), socket.port());
    let mut first = None;
    for i in 0..REFUSALS {
        socket.send_to(b"x", gone).unwrap();
        friend.send_to(&i.to_be_bytes(), own).unwrap();
        let got = match i % 2 {
            0 => socket.recv(8).unwrap(),
            _ => socket.recv_batch(&[8; 4]).unwrap().remove(0),
        };
        assert_eq!(
            (got.bytes.as_slice(), got.from),
            (&i.to_be_bytes()[..], friend.local_addr().unwrap())
        );
        first = first.or_else(|| socket.recv_error().unwrap());
    }
    let first = first.expect("the ICMP errors are reported");
    assert_eq!((first.status, first.os_error), (ErrorKind::Refused.code(), libc::ECONNREFUSED));
    assert_eq!((first.to, first.from), (Some(gone), Some(gone.ip())));
    eventually("all errors are reported", || errors::<A>(&socket) == u64::from(REFUSALS));

    // The control case: a plain socket with IP_RECVERR.
    let control = plain(&link.here, SocketAddr::new(own.ip(), 0));
    report_to(&control);
    let to = control.local_addr().unwrap();
    let failed = (0..REFUSALS).filter(|i| {
        let mut failed = control.send_to(b"x", gone).is_err();
        friend.send_to(&i.to_be_bytes(), to).unwrap();
        let refused = |e: &std::io::Error| e.kind() == Kind::ConnectionRefused;
        while control.recv(&mut [0; 8]).is_err_and(|e| refused(&e)) {
            failed = true;
        }
        failed
    });
    let failed = failed.count();
    assert!(failed > 0, "the control case does not fail");
    failed
}

/// The same check for a connected socket.
fn refused_when_connected<A: Api>(link: &Link, there: SocketAddr, options: &[Opt<'_, A>]) -> usize {
    let gone = closed(&link.there, there);
    let socket = A::Datagram::connect(&gone.to_string(), options).unwrap();
    for _ in 0..REFUSALS {
        socket.send(b"x").unwrap();
    }
    let first = socket.recv_error().unwrap().expect("the ICMP errors are reported");
    assert_eq!((first.status, first.os_error), (ErrorKind::Refused.code(), libc::ECONNREFUSED));
    assert_eq!((first.to, first.from), (Some(gone), Some(gone.ip())));
    eventually("all errors are reported", || errors::<A>(&socket) == u64::from(REFUSALS));
    // One more error is pending, or arrives during this wait. Then the peer binds its port.
    socket.send(b"x").unwrap();
    let peer = plain(&link.there, gone);
    let own = here(there.ip());
    peer.send_to(b"alive", (own, socket.port())).unwrap();
    assert_eq!(socket.recv(8).unwrap().bytes, b"alive");
    drop(peer);

    let control = plain(&link.here, SocketAddr::new(own, 0));
    control.connect(gone).unwrap();
    let failed = (0..REFUSALS).filter(|_| control.send(b"x").is_err()).count();
    assert!(failed > 0, "the control case does not fail");
    failed
}

fn said<A: Api>(there: SocketAddr, how: &str, failed: [usize; 2]) {
    let family = family_of(there.ip());
    row(
        &format!("D2 {family}, {REFUSALS} ICMP errors of another host"),
        &format!("{}: {how}", api::<A>()),
        "no call failed, all datagrams received, host named",
        &format!("plain socket: {} calls failed", failed[0]),
    );
}

/// D2: a router rejects a thousand datagrams. The errors name the router, and the socket continues
/// as soon as the router forwards datagrams again.
fn icmp_errors_of_a_router_end_no_receive<A: Api>() {
    in_namespace(&test_name!(A, "icmp_errors_of_a_router_end_no_receive"), LIMIT, || {
        let route = Route::new();
        unlimited_icmp(&route.router);
        for (family, router) in [(Ip::V4, "192.0.2.1"), (Ip::V6, "2001:db8:1::1")] {
            let peer = bind::<A>(&route.server, &format!("{}:0", family.server()));
            let options = [Opt::ReadTimeout(AWAITED)];
            let socket = A::Datagram::connect(&peer.endpoint(), &options).unwrap();
            let control = plain(&Network::here(), any(family).parse().unwrap());
            control.connect(peer.endpoint()).unwrap();
            report_to(&control);
            route.router.run(|| netns::nft(REJECT));
            for _ in 0..REFUSALS {
                socket.send(b"lost").unwrap();
            }
            let first = socket.recv_error().unwrap().expect("the ICMP errors are reported");
            assert_eq!(first.status, ErrorKind::Unreachable.code());
            assert_eq!(first.os_error, libc::EHOSTUNREACH);
            let to: SocketAddr = peer.endpoint().parse().unwrap();
            assert_eq!((first.to, first.from), (Some(to), Some(ip(router))));
            eventually("all errors are reported", || errors::<A>(&socket) == u64::from(REFUSALS));
            let failed = (0..REFUSALS).filter(|_| control.send(b"lost").is_err()).count();
            assert!(failed > 0, "the control case does not fail");
            route.router.run(|| netns::nft("delete table inet refusing\n"));
            socket.send(b"question").unwrap();
            let (got, info) = peer.recv_info(64).unwrap();
            assert_eq!(got.bytes, b"question");
            peer.reply(&info, b"answer").unwrap();
            assert_eq!(socket.recv(64).unwrap().bytes, b"answer");
            row(
                &format!("D2 {family}, {REFUSALS} ICMP errors of a router"),
                &format!("{}: connected", api::<A>()),
                format!("no call failed, {router} named"),
                &format!("plain socket with IP_RECVERR: {failed} sends failed"),
            );
        }
    });
}

/// The router reports that the host is unreachable (RFC 792, RFC 4443).
const REJECT: &str = "table inet refusing {
    chain forward {
        type filter hook forward priority 0; policy accept;
        meta l4proto udp reject with icmpx type host-unreachable
    }
}
";

/// Makes the kernel also report transient errors to this socket (ip(7), IP_RECVERR).
fn report_to(socket: &UdpSocket) {
    let (level, option) = match socket.local_addr().unwrap() {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    system::set_option(socket.as_raw_fd(), level, option, 1);
}

/// The ones' complement of the sum: RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Sends the ICMP error of a router for a datagram between two ports of loopback: RFC 792.
fn say(kind: u8, code: u8, from: u16, to: u16) {
    let mut ip = vec![0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut packet = vec![kind, code, 0, 0, 0, 0, 0, 0];
    packet.extend(ip);
    packet.extend([from.to_be_bytes(), to.to_be_bytes(), [0, 9], [0, 0], [b'x', 0]].concat());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum);
    let (domain, protocol) = (socket2::Domain::IPV4, Some(socket2::Protocol::ICMPV4));
    let raw = socket2::Socket::new(domain, socket2::Type::RAW, protocol).unwrap();
    raw.send_to(&packet, &SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
}

/// D2: no ICMP error of any type and code ends a receive or a service. Each is reported with its
/// meaning.
fn icmp_errors_of_all_types_are_reported<A: Api>() {
    in_namespace(&test_name!(A, "icmp_errors_of_all_types_are_reported"), LIMIT, || {
        let mut told = 0;
        for (kind, codes) in [(3u8, 0..16u8), (11, 0..2), (12, 0..3)] {
            for code in codes {
                let peer = plain(&Network::here(), "127.0.0.1:0".parse().unwrap());
                let port = peer.local_addr().unwrap().port();
                let client = A::Datagram::connect(&format!("127.0.0.1:{port}"), &[]).unwrap();
                client.set_read_timeout(AWAITED).unwrap();
                say(kind, code, client.port(), port);
                peer.send_to(b"x", SocketAddr::from(([127, 0, 0, 1], client.port()))).unwrap();
                assert_eq!(client.recv(8).unwrap().bytes, b"x", "type {kind}, code {code}");
                let error = client.recv_error().unwrap();
                let kinds = [ErrorKind::Refused, ErrorKind::Unreachable, ErrorKind::TooLong];
                let is_known = |status| kinds.iter().any(|kind| status == kind.code());
                // Linux does not pass on some of the other types.
                let known =
                    error.map(|error| is_known(error.status)).or((kind != 3).then_some(true));
                assert_eq!(known, Some(true), "type {kind}, code {code}");
                told += 1;
                client.send(b"still").unwrap();
            }
        }
        // A server with error reports that never sent a datagram.
        let server = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        server.set_recv_errors(true).unwrap();
        let service = server.serve(1, Box::new(|reply, got| reply(&got.bytes).unwrap())).unwrap();
        for code in 0..16 {
            say(3, code, server.port(), 9);
        }
        let client =
            A::Datagram::connect(&server.endpoint(), &[Opt::ReadTimeout(AWAITED)]).unwrap();
        client.send(b"alive?").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"alive?");
        fails(support::DatagramService::wait(&service, 0), ErrorKind::TimedOut);
        let control = plain(&Network::here(), "127.0.0.1:0".parse().unwrap());
        control.connect("127.0.0.1:9").unwrap();
        report_to(&control);
        say(3, 5, control.local_addr().unwrap().port(), 9);
        let failed = control.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::EOPNOTSUPP));
        row(
            "D2 all types and codes of ICMP errors, forged",
            &format!("{}: recv, serve", api::<A>()),
            format!("{told} reported, no call failed"),
            "plain socket: the next call failed",
        );
    });
}

// ---- groups and broadcast (D1) ----------------------------------------------------------------

const SENDERS: [&str; 4] = ["192.0.2.1/24", "192.0.2.2/24", "2001:db8:1::1/64", "2001:db8:1::2/64"];

/// A group of each family, and the addresses of two senders.
const GROUPS: [(&str, [&str; 2]); 3] = [
    ("239.83.7.1", ["192.0.2.1", "192.0.2.2"]),
    ("ff12::83:71", ["2001:db8:1::1", "2001:db8:1::2"]),
    ("ff15::83:71", ["2001:db8:1::1", "2001:db8:1::2"]),
];

/// A socket that sends to groups through the link.
fn group_sender<A: Api>(link: &Link, from: &str) -> A::Datagram {
    let at = SocketAddr::new(ip(from), 0).to_string();
    let socket = bind::<A>(&link.there, &at);
    // The name of an interface belongs to the network of the caller.
    link.there.run(|| socket.set_multicast_interface("there")).unwrap();
    socket
}

fn address_of<A: Api>(socket: &A::Datagram) -> SocketAddr {
    socket.endpoint().parse().unwrap()
}

/// Checks that a datagram to the group is not received: a later one to the host arrives first.
fn does_not_come<A: Api>(server: &A::Datagram, sender: &A::Datagram, group: SocketAddr) {
    let host = SocketAddr::new(here(group.ip()), server.port());
    sender.send_to(b"to the group", group).unwrap();
    sender.send_to(b"to the host", host).unwrap();
    assert_eq!(server.recv(64).unwrap().bytes, b"to the host");
}

/// D1: a socket receives a group on the interface of the join, until it leaves the group. A reply
/// leaves from the host's own address.
fn multicast_between_hosts_reaches_joined_interface<A: Api>() {
    in_namespace(&test_name!(A, "multicast_between_hosts_reaches_joined_interface"), LIMIT, || {
        let link = Link::new(&SENDERS);
        // The interface of the control case, which receives no datagram.
        join(
            (&link.here, "other", &["203.0.113.1/24", "2001:db8:3::1/64"]),
            (&link.there, "end", &[]),
        );
        let index = index_of(&link.here, "here");
        for (group, [from, _]) in GROUPS {
            let group = ip(group);
            for bound in ["*:0", any(family_of(group))] {
                let server = bind::<A>(&link.here, bound);
                let to = SocketAddr::new(group, server.port());
                let client = group_sender::<A>(&link, from);
                does_not_come::<A>(&server, &client, to);
                server.join(group, Some("other"), None).unwrap();
                does_not_come::<A>(&server, &client, to);
                server.join(group, Some("here"), None).unwrap();
                client.send_to(b"news", to).unwrap();
                let (got, info) = server.recv_info(64).unwrap();
                assert_eq!(
                    (got.bytes.as_slice(), got.from),
                    (&b"news"[..], address_of::<A>(&client))
                );
                assert_eq!((got.to, got.interface), (Some(to), index));
                server.reply(&info, b"answer").unwrap();
                let answer = client.recv(64).unwrap();
                assert_eq!(answer.bytes, b"answer");
                assert_eq!(answer.from, SocketAddr::new(here(group), server.port()));
                server.leave(group, Some("here"), None).unwrap();
                does_not_come::<A>(&server, &client, to);
            }
            row(
                &format!("D1 {group} from another host"),
                &format!("{}: join(interface), leave", api::<A>()),
                "received between join and leave, reply received",
                "joined on another interface: no datagram received",
            );
        }
    });
}

/// D1: a datagram to a group leaves through the requested interface, also from a socket of both
/// families.
fn multicast_through_interface_leaves_by_it<A: Api>() {
    in_namespace(&test_name!(A, "multicast_through_interface_leaves_by_it"), LIMIT, || {
        let link = Link::new(&SENDERS);
        join(
            (&link.here, "other", &["203.0.113.1/24", "2001:db8:3::1/64"]),
            (&link.there, "end", &[]),
        );
        netns::ip("route add 239.0.0.0/8 dev other");
        let index = index_of(&link.here, "here");
        for (group, [from, _]) in GROUPS {
            let group = ip(group);
            let server = bind::<A>(&link.there, any(family_of(group)));
            link.there.run(|| server.join(group, Some("there"), None)).unwrap();
            let to = SocketAddr::new(group, server.port());
            // Without the interface, the kernel sends from a bound socket by the interface of its address.
            let own = if group.is_ipv4() { "203.0.113.1:0" } else { "[2001:db8:3::1]:0" };
            for bound in ["*:0", any(family_of(group)), own] {
                let client = A::Datagram::bind(bound, &[]).unwrap();
                assert_eq!(client.send_by(b"news", to, index).unwrap(), 1);
                let got = server.recv(8).unwrap();
                assert_eq!(got.bytes, b"news", "from {bound}");
                assert!(bound != own || got.from == address_of::<A>(&client), "{got:?}");
                if group.is_ipv4() {
                    // The control case: the datagram takes another interface, and one to the host
                    // itself arrives.
                    client.send_to(b"to the group", to).unwrap();
                    client.send_to(b"to the host", SocketAddr::new(ip(from), to.port())).unwrap();
                    assert_eq!(server.recv(64).unwrap().bytes, b"to the host");
                }
            }
            row(
                &format!("D1 {group}, sent through an interface"),
                &format!("{}: Outgoing::interface, all kinds of sockets", api::<A>()),
                "came",
                "without one: another way",
            );
        }
    });
}

/// D1: a source-specific join receives only one of two senders.
fn multicast_with_source_filter_receives_one_sender<A: Api>() {
    in_namespace(&test_name!(A, "multicast_with_source_filter_receives_one_sender"), LIMIT, || {
        let link = Link::new(&SENDERS);
        for (group, [heard, other]) in GROUPS {
            let group = ip(group);
            for bound in ["*:0", any(family_of(group))] {
                let server = bind::<A>(&link.here, bound);
                let to = SocketAddr::new(group, server.port());
                let [first, second] = [heard, other].map(|from| group_sender::<A>(&link, from));
                let both = || {
                    second.send_to(b"second", to).unwrap();
                    first.send_to(b"first", to).unwrap();
                };
                let interface = Some("here");
                // The control case: without a source both senders are received.
                server.join(group, interface, None).unwrap();
                both();
                assert_eq!(server.recv(64).unwrap().bytes, b"second");
                assert_eq!(server.recv(64).unwrap().bytes, b"first");
                server.leave(group, interface, None).unwrap();
                server.join(group, interface, Some(ip(heard))).unwrap();
                both();
                let got = server.recv(64).unwrap();
                assert_eq!(
                    (got.bytes.as_slice(), got.from),
                    (&b"first"[..], address_of::<A>(&first))
                );
                does_not_come::<A>(&server, &second, to);
                server.join(group, interface, Some(ip(other))).unwrap();
                both();
                assert_eq!(server.recv(64).unwrap().bytes, b"second");
                assert_eq!(server.recv(64).unwrap().bytes, b"first");
                server.leave(group, interface, Some(ip(heard))).unwrap();
                does_not_come::<A>(&server, &first, to);
                server.leave(group, interface, Some(ip(other))).unwrap();
                does_not_come::<A>(&server, &second, to);
            }
            row(
                &format!("D1 two senders to {group}"),
                &format!("{}: join(source)", api::<A>()),
                format!("{heard} came, {other} did not"),
                "no source: both came",
            );
        }
    });
}

/// D1: multicast loopback decides whether the own host receives the group. Other hosts receive it
/// in both cases.
fn multicast_loopback_controls_own_host_only<A: Api>() {
    in_namespace(&test_name!(A, "multicast_loopback_controls_own_host_only"), LIMIT, || {
        let link = Link::new(&SENDERS);
        for (group, [from, _]) in GROUPS {
            let group = ip(group);
            let server = bind::<A>(&link.here, "*:0");
            let to = SocketAddr::new(group, server.port());
            let neighbour = bind::<A>(&link.there, &format!("*:{}", server.port()));
            server.join(group, Some("here"), None).unwrap();
            link.there.run(|| neighbour.join(group, Some("there"), None)).unwrap();
            let client = group_sender::<A>(&link, from);
            let own = SocketAddr::new(ip(from), server.port());
            for on in [true, false] {
                client.set_multicast_loop(on).unwrap();
                client.send_to(b"news", to).unwrap();
                client.send_to(b"mark", own).unwrap();
                assert_eq!(server.recv(64).unwrap().bytes, b"news", "the other host receives it");
                let got = neighbour.recv(64).unwrap();
                assert_eq!(got.bytes, if on { b"news" } else { b"mark" });
                if on {
                    assert_eq!(neighbour.recv(64).unwrap().bytes, b"mark");
                }
            }
            // A datagram with TTL 0 does not leave the host (RFC 1112 section 6.1, RFC 4291 section
            // 2.7).
            client.set_multicast_loop(true).unwrap();
            client.set_multicast_ttl(0).unwrap();
            does_not_come::<A>(&server, &client, to);
            assert_eq!(neighbour.recv(64).unwrap().bytes, b"to the group");
            row(
                &format!("D1 {group}, members on both hosts"),
                &format!("{}: loop off; TTL 0", api::<A>()),
                "other host only; own host only",
                "defaults: both came",
            );
        }
    });
}

/// D1: broadcast reaches another host, whose reply comes from its own address.
fn broadcast_to_another_host_gets_reply<A: Api>() {
    in_namespace(&test_name!(A, "broadcast_to_another_host_gets_reply"), LIMIT, || {
        let link = Link::new(&["192.0.2.1/24", "2001:db8:1::1/64"]);
        for (bound, all) in
            [("*:0", "192.0.2.255"), ("*:0", "255.255.255.255"), ("0.0.0.0:0", "192.0.2.255")]
        {
            let server = bind::<A>(&link.there, bound);
            let client = bind::<A>(&link.here, "192.0.2.10:0");
            let to = SocketAddr::new(ip(all), server.port());
            fails(client.send_to(b"anybody?", to), ErrorKind::PermissionDenied);
            client.set_broadcast(true).unwrap();
            client.send_to(b"anybody?", to).unwrap();
            let (got, info) = server.recv_info(64).unwrap();
            let own = SocketAddr::new(ip("192.0.2.1"), server.port());
            assert_eq!((got.to, got.local), (Some(to), Some(own)));
            assert_eq!(got.interface, index_of(&link.there, "there"));
            assert_eq!(got.from, address_of::<A>(&client));
            server.reply(&info, b"me").unwrap();
            let answer = client.recv(64).unwrap();
            assert_eq!((answer.bytes.as_slice(), answer.from), (&b"me"[..], own));
            row(
                &format!("D1 broadcast to {all}, bound to {bound}"),
                &format!("{}: set_broadcast, reply", api::<A>()),
                "received by another host, reply from its address",
                "unset: permission denied",
            );
        }
    });
}

// ---- the path (D1, D3) ------------------------------------------------------------------

/// D1: a datagram longer than the link's MTU is fragmented, up to the longest datagram.
fn datagram_above_mtu_is_fragmented<A: Api>() {
    in_namespace(&test_name!(A, "datagram_above_mtu_is_fragmented"), LIMIT, || {
        let link = Link::new(&["192.0.2.1/24", "2001:db8:1::1/64"]);
        // The longest datagram of each family: RFC 768, with the headers of IP (RFC 791) and
        // without (RFC 8200).
        for (family, at, longest) in
            [(Ip::V4, "192.0.2.1:0", 65_507), (Ip::V6, "[2001:db8:1::1]:0", 65_527)]
        {
            let server = bind::<A>(&link.there, at);
            let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
            let data = bytes(longest);
            let before = link.there.run(|| watch::packets_in("there"));
            client.send(&data).unwrap();
            assert!(
                server.recv(70_000).unwrap().bytes == data,
                "the bytes differ from the sent ones"
            );
            let packets = link.there.run(|| watch::packets_in("there")) - before;
            assert!(packets >= 45, "{packets} packets of at most 1500 bytes");
            client.send(&data).unwrap();
            let got = server.recv(1000).unwrap();
            assert_eq!((got.bytes.as_slice(), got.original_len), (&data[..1000], longest));
            fails(client.send(&vec![0; longest + 1]), ErrorKind::TooLong);
            // Without fragmentation the send fails at once and reports the MTU. With fragmentation
            // it succeeds again.
            assert_eq!(client.stats().unwrap().path_mtu, 1500);
            client.set_dont_fragment(true).unwrap();
            fails(client.send(&data), ErrorKind::TooLong);
            assert_eq!(client.error_count(), 1, "the error is reported once");
            let told = client.recv_error().unwrap().expect("the kernel has reported the MTU");
            assert_eq!((told.status, told.path_mtu), (ErrorKind::TooLong.code(), Some(1500)));
            let headers = if family == Ip::V4 { 28 } else { 48 };
            client.send(&data[..1500 - headers]).unwrap();
            assert_eq!(server.recv(2000).unwrap().bytes.len(), 1500 - headers);
            fails(client.send(&data[..1501 - headers]), ErrorKind::TooLong);
            client.set_dont_fragment(false).unwrap();
            client.send(&data).unwrap();
            assert!(server.recv(70_000).unwrap().bytes == data);
            // The control case: a plain socket without fragmentation.
            let control = plain(&link.here, any(family).parse().unwrap());
            let (level, option, dont) = match family {
                Ip::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
                Ip::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
            };
            system::set_option(control.as_raw_fd(), level, option, dont);
            let err = control.send_to(&data, server.endpoint()).unwrap_err();
            assert_eq!(err.raw_os_error(), Some(libc::EMSGSIZE));
            row(
                &format!("D1 {family}, {longest} bytes over a link of 1500"),
                &format!("{}: send", api::<A>()),
                format!("came whole, in {packets} packets"),
                "without fragmentation: message too long",
            );
        }
    });
}

/// D1, D2, D3: the path MTU decreases behind a router. Datagrams above it are lost, and the
/// router's error is reported. Later datagrams are fragmented, single ones and batches.
fn datagram_above_reduced_path_mtu_is_reported<A: Api>() {
    in_namespace(&test_name!(A, "datagram_above_reduced_path_mtu_is_reported"), LIMIT, || {
        let route = Route::new();
        unlimited_icmp(&route.router);
        route.router.ip("link set servers mtu 1280");
        for (family, router) in [(Ip::V4, "192.0.2.1"), (Ip::V6, "2001:db8:1::1")] {
            let peer = bind::<A>(&route.server, &format!("{}:0", family.server()));
            let to: SocketAddr = peer.endpoint().parse().unwrap();
            let options = [Opt::ReadTimeout(AWAITED)];
            let socket = A::Datagram::connect(&peer.endpoint(), &options).unwrap();
            let data = [7; 1400];
            let control = plain(&Network::here(), any(family).parse().unwrap());
            let other = plain(&route.server, SocketAddr::new(to.ip(), 0));
            control.connect(other.local_addr().unwrap()).unwrap();
            report_to(&control);
            let fails = || control.send(&data).err().and_then(|e| e.raw_os_error());
            eventually("the plain socket fails", || fails() == Some(libc::EMSGSIZE));
            // Clears the kernel's path MTU, so that the error occurs again.
            netns::ip(if family == Ip::V4 { "route flush cache" } else { "-6 route flush cache" });

            socket.send(&data).unwrap();
            let fd = socket.fd().unwrap();
            assert!(system::becomes_readable(fd, AWAITED as i32), "the router's error has arrived");
            socket.send(&data).unwrap();
            assert_eq!(peer.recv(2000).unwrap().bytes, data);
            let told = socket.recv_error().unwrap().expect("the router's error is reported");
            assert_eq!((told.status, told.os_error), (ErrorKind::TooLong.code(), libc::EMSGSIZE));
            assert_eq!((told.to, told.from), (Some(to), Some(ip(router))));
            assert_eq!(told.path_mtu, Some(1280));
            assert_eq!(socket.stats().unwrap().path_mtu, 1280);
            assert_eq!(socket.send_batch(&[(&data[..], None); 40]).unwrap(), 40);
            let mut came = 0;
            while came < 40 {
                let some = peer.recv_batch(&[2000; 64]).unwrap();
                assert!(some.iter().all(|got| got.bytes == data));
                came += some.len();
            }
            row(
                &format!("D2 {family}, 1400 bytes over a path MTU of 1280"),
                &format!("{}: send, send_batch", api::<A>()),
                format!("{router} named, the next 41 received"),
                "plain socket with IP_RECVERR: the next send failed",
            );
        }
    });
}

/// D3: batches arrive at another host unchanged, also datagrams above the MTU, for which the kernel
/// rejects GSO.
fn batch_above_mtu_arrives_unchanged<A: Api>() {
    in_namespace(&test_name!(A, "batch_above_mtu_arrives_unchanged"), LIMIT, || {
        let link = Link::new(&["192.0.2.1/24", "2001:db8:1::1/64"]);
        for (family, at) in [(Ip::V4, "192.0.2.1:0"), (Ip::V6, "[2001:db8:1::1]:0")] {
            // The receiver gets the same datagrams with and without GSO.
            let udp_gro = [Opt::ReadTimeout(AWAITED), Opt::UdpGro(true)];
            let servers = [
                bind::<A>(&link.there, at),
                link.there.run(|| A::Datagram::bind(at, &udp_gro)).unwrap(),
            ];
            for (server, len) in servers.iter().flat_map(|s| [64, 1400, 2000].map(|len| (s, len))) {
                let client = A::Datagram::connect(&server.endpoint(), &[]).unwrap();
                let data: Vec<Vec<u8>> = (0..40).map(|i| vec![i; len]).collect();
                let batch: Vec<_> = data.iter().map(|d| (d.as_slice(), None)).collect();
                assert_eq!(client.send_batch(&batch).unwrap(), 40);
                let mut came = Vec::new();
                while came.len() < 40 {
                    came.extend(server.recv_batch(&[2500; 64]).unwrap());
                }
                for (got, data) in came.iter().zip(&data) {
                    assert_eq!(got.bytes, *data, "{len} bytes");
                }
            }
            // Rejected long datagrams do not disable GSO for short ones.
            let client = A::Datagram::connect(&servers[0].endpoint(), &[]).unwrap();
            for len in [64, 2000] {
                assert_eq!(client.send_batch(&[(&vec![1; len][..], None); 40]).unwrap(), 40);
            }
            let before = link.there.run(|| watch::packets_in("there"));
            assert_eq!(client.send_batch(&[(&[1; 64][..], None); 40]).unwrap(), 40);
            let packets = link.there.run(|| watch::packets_in("there")) - before;
            assert!(packets <= 2, "{packets} packets");
            // The control case: a plain GSO send with segments above the MTU.
            let control = plain(&link.here, any(family).parse().unwrap());
            system::set_option(control.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 2000);
            control.send_to(&[0; 40_000], servers[0].endpoint()).unwrap_err();
            row(
                &format!("D3 {family}, batches over a link of 1500"),
                &format!("{}: 40 of 64, 1400, 2000 bytes", api::<A>()),
                "all came, in order",
                "plain socket, UDP_SEGMENT of 2000: the send failed",
            );
        }
    });
}
