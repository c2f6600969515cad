//! S4: addresses that cannot be used, as far as they depend on names or on the network. C4, D2: routes
//! that discard packets.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::netns;
use crate::support::netns::{in_namespace, ip, row};
use crate::support::{Api, Datagrams, Failure, Opt, Outcome, PendingConnect, Server, api, fails};
use keepsock::ErrorKind;

both_apis![
    unusable_addresses_of_names_are_rejected,
    broadcast_address_of_an_interface_is_rejected,
    blackhole_route_is_unreachable,
];

const LIMIT: Duration = Duration::from_secs(25);

fn wait<A: Api>(endpoint: &str, options: &[Opt<'_, A>]) -> Outcome<A::Client> {
    A::start(endpoint, options)?.wait()
}

/// S4, C5: an address that a name resolves to is checked as a numeric address is. Other addresses of
/// the name are tried. The control case is a name with usable addresses.
fn unusable_addresses_of_names_are_rejected<A: Api>() {
    in_namespace(&test_name!(A, "unusable_addresses_of_names_are_rejected"), LIMIT, || {
        netns::names(
            "fe80::1 link.test\n0.0.0.0 zero.test\n224.0.0.9 group.test\n\
             0.0.0.0 mixed.test\n127.0.0.1 mixed.test\n127.0.0.1 good.test\n",
        );
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let here = server.endpoint();
        let local = |name: &'static str| [Opt::<A>::Local(name)];
        let rejected = |failures: &[Failure], words: &str| {
            for failure in failures {
                assert!(failure.message.contains(words), "{failure:?}");
            }
        };
        let invalid = |outcome: Outcome<()>| fails(outcome, ErrorKind::InvalidEndpoint);
        rejected(
            &[
                invalid(A::connect("link.test:80", &[]).map(drop)),
                invalid(wait::<A>("link.test:80", &[]).map(drop)),
                invalid(A::Datagram::connect("link.test:80", &[]).map(drop)),
                invalid(A::listen("link.test:0", &[]).map(drop)),
                invalid(A::Datagram::bind("link.test:0", &[]).map(drop)),
                invalid(A::connect("[::1]:9", &local("link.test:0")).map(drop)),
                invalid(A::Datagram::connect("[::1]:9", &local("link.test:0")).map(drop)),
            ],
            "link-local address without a zone: write [fe80::1%interface]",
        );
        rejected(
            &[
                invalid(A::connect("zero.test:80", &[]).map(drop)),
                invalid(wait::<A>("zero.test:80", &[]).map(drop)),
                invalid(A::Datagram::connect("zero.test:80", &[]).map(drop)),
            ],
            "0.0.0.0 is for listening and binding: write the address of the peer, such as 127.0.0.1",
        );
        rejected(
            &[
                invalid(A::connect("group.test:80", &[]).map(drop)),
                invalid(wait::<A>("group.test:80", &[]).map(drop)),
                invalid(A::listen("group.test:0", &[]).map(drop)),
                invalid(A::connect(&here, &local("group.test:0")).map(drop)),
                invalid(A::Datagram::connect(&here, &local("group.test:0")).map(drop)),
            ],
            "224.0.0.9 is a multicast address: write the address of one host",
        );
        A::listen("zero.test:0", &[]).unwrap();
        A::Datagram::bind("group.test:0", &[]).unwrap();
        for name in ["mixed.test", "good.test"] {
            let to = format!("{name}:{}", server.port());
            A::connect(&to, &[]).unwrap();
            wait::<A>(&to, &[]).unwrap();
            let peer = A::Datagram::connect(&to, &local("good.test:0")).unwrap();
            assert_eq!(peer.five_tuple().remote.0, "127.0.0.1");
        }
        row(
            &format!("S4 {}: unusable addresses of names", api::<A>()),
            "rejected",
            "rejected",
            "a usable address: connected",
        );
    });
}

/// S4, C5: the kernel lets a TCP socket be bound to the broadcast address of an interface. The control
/// cases are other addresses of the interface, and a datagram socket, which receives broadcasts.
fn broadcast_address_of_an_interface_is_rejected<A: Api>() {
    in_namespace(&test_name!(A, "broadcast_address_of_an_interface_is_rejected"), LIMIT, || {
        ip("link add near type veth peer name far");
        ip("link set near up");
        ip("link set far up");
        for own in ["192.0.2.1/25", "192.0.2.3/25", "198.51.100.127/24"] {
            ip(&format!("addr add {own} dev near"));
        }
        let server = A::listen("192.0.2.1:0", &[]).unwrap();
        let network = "192.0.2.127:0";
        for failure in [
            fails(A::listen(network, &[]), ErrorKind::InvalidEndpoint),
            fails(
                A::connect(&server.endpoint(), &[Opt::Local(network)]),
                ErrorKind::InvalidEndpoint,
            ),
            fails(
                A::Datagram::connect(&server.endpoint(), &[Opt::Local(network)]),
                ErrorKind::InvalidEndpoint,
            ),
        ] {
            assert!(failure.message.contains("192.0.2.127 is a broadcast address"), "{failure:?}");
        }
        A::Datagram::bind(network, &[]).unwrap();
        for own in ["192.0.2.3:0", "198.51.100.127:0"] {
            A::listen(own, &[]).unwrap();
            A::connect(&server.endpoint(), &[Opt::Local(own)]).unwrap();
        }
        fails(A::listen("192.0.2.7:0", &[]), ErrorKind::AddressNotAvailable);
        row(
            &format!("S4 {}: listen on 192.0.2.127/25", api::<A>()),
            "rejected",
            "rejected",
            "192.0.2.3/25: listens",
        );
    });
}

/// C4, D2: Linux returns EINVAL for a destination whose route discards the packets. The status is that
/// of the other routes without a destination. The control case is the plain call.
fn blackhole_route_is_unreachable<A: Api>() {
    in_namespace(&test_name!(A, "blackhole_route_is_unreachable"), LIMIT, || {
        ip("link add near type veth peer name far");
        ip("link set near up");
        ip("link set far up");
        ip("addr add 192.0.2.1/24 dev near");
        ip("-6 addr add 2001:db8:1::1/64 dev near nodad");
        for (own, to, route) in [
            ("192.0.2.1:0", "192.0.2.9:80", "route add blackhole 192.0.2.9/32"),
            ("[2001:db8:1::1]:0", "[2001:db8:1::9]:80", "-6 route add blackhole 2001:db8:1::9/128"),
        ] {
            let address: SocketAddr = to.parse().unwrap();
            let connected = A::Datagram::connect(to, &[]).unwrap();
            let bound = A::Datagram::bind(own, &[]).unwrap();
            ip(route);
            let plain = [
                TcpStream::connect(address).unwrap_err(),
                UdpSocket::bind(own).unwrap().connect(address).unwrap_err(),
            ];
            assert!(plain.iter().all(|e| e.raw_os_error() == Some(libc::EINVAL)), "{plain:?}");
            for failure in [
                fails(A::connect(to, &[]), ErrorKind::Unreachable),
                fails(wait::<A>(to, &[]), ErrorKind::Unreachable),
                fails(A::connect("x.test:80", &[Opt::Address(address)]), ErrorKind::Unreachable),
                fails(A::connect(to, &[Opt::Local(own)]), ErrorKind::Unreachable),
                fails(A::Datagram::connect(to, &[]), ErrorKind::Unreachable),
                fails(A::Datagram::connect(to, &[Opt::Local(own)]), ErrorKind::Unreachable),
                fails(connected.send(b"x"), ErrorKind::Unreachable),
                fails(connected.send_batch(&[(b"x", None), (b"y", None)]), ErrorKind::Unreachable),
                fails(bound.send_to(b"x", address), ErrorKind::Unreachable),
                fails(bound.send_batch(&[(&b"x"[..], Some(address)); 2]), ErrorKind::Unreachable),
            ] {
                assert_eq!(failure.os_error, libc::EINVAL);
                let words = "a route of this machine discards the packets (blackhole)";
                assert!(failure.message.contains(words), "{failure:?}");
            }
            row(
                &format!("C4 {}: blackhole route to {to}", api::<A>()),
                "unreachable",
                "unreachable",
                "plain connect(2): EINVAL",
            );
        }
        ip("route add unreachable 192.0.2.10/32");
        ip("route add prohibit 192.0.2.11/32");
        fails(A::connect("192.0.2.10:80", &[]), ErrorKind::Unreachable);
        fails(A::connect("192.0.2.11:80", &[]), ErrorKind::PermissionDenied);
    });
}
