//! Properties of admission.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use proptest::prelude::*;

use super::AcceptPolicy;
use super::admission::{AdmissionPolicy, PerAddressCount};
use crate::listener::Rejection;
use crate::properties::check;
use crate::types::address::Address;
use crate::types::network::network;

/// A few addresses that have long prefixes in common, and any other address.
fn ip() -> impl Strategy<Value = IpAddr> {
    let near_v4 = (0..8u8).prop_map(|n| IpAddr::from([192, 0, 2, n]));
    let near_v6 = (0..3u16, 0..4u16)
        .prop_map(|(net, host)| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host]));
    let link = (0..2u16).prop_map(|host| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, host]));
    let mapped = (0..8u8).prop_map(|n| IpAddr::from(Ipv4Addr::new(192, 0, 2, n).to_ipv6_mapped()));
    prop_oneof![
        4 => near_v4,
        3 => near_v6,
        2 => link,
        2 => mapped,
        1 => any::<Ipv4Addr>().prop_map(IpAddr::from),
        1 => any::<Ipv6Addr>().prop_map(IpAddr::from),
    ]
}

/// A client: its address, the interface of a link-local one, and its port. `None`: a Unix client.
type Client = Option<(IpAddr, u32, u16)>;

fn client() -> impl Strategy<Value = Client> {
    let inet = (ip(), 1..3u32, any::<u16>()).prop_map(Some);
    prop_oneof![9 => inet, 1 => Just(None)]
}

fn address(client: Client) -> Address {
    match client {
        None => Address::UnixUnnamed,
        Some((IpAddr::V6(ip), interface, port)) if ip.is_unicast_link_local() => {
            SocketAddr::from(SocketAddrV6::new(ip, port, 0, interface)).into()
        }
        Some((ip, _, port)) => SocketAddr::new(ip, port).into(),
    }
}

/// The first bits of an address as an IPv6 address, in which an IPv4 address is a mapped one.
fn first_bits(ip: IpAddr, bits: u32) -> u128 {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (0..bits).fold(0, |bits, n| bits << 1 | ip.to_bits() >> (127 - n) & 1)
}

/// A network by its definition: an address and the length of the prefix.
#[derive(Debug, Clone, Copy)]
struct Network(IpAddr, u32);

impl Network {
    /// The length of the prefix as that of an IPv6 address.
    fn bits(self) -> u32 {
        if self.0.is_ipv4() { self.1 + 96 } else { self.1 }
    }

    /// Whether the network contains mapped addresses and others, but is not the network of all IPv6
    /// addresses.
    fn is_ambiguous(self) -> bool {
        let mapped = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let bits = self.bits();
        (1..96).contains(&bits) && first_bits(self.0, bits) == first_bits(mapped, bits)
    }

    fn contains(self, ip: IpAddr) -> bool {
        let is_v4 = matches!(ip, IpAddr::V4(_)) || first_bits(ip, 96) == 0xffff;
        let bits = self.bits();
        !(is_v4 && bits == 0) && first_bits(self.0, bits) == first_bits(ip, bits)
    }
}

fn networks() -> impl Strategy<Value = Vec<Network>> {
    let length = prop_oneof![0..=128u32, 110..=128u32, 60..=66u32];
    let network = (ip(), length)
        .prop_map(|(ip, length)| Network(ip, if ip.is_ipv4() { length % 33 } else { length }));
    prop::collection::vec(network, 0..3)
}

/// L1, V4: a client is permitted if no denied network and, if there are allowed ones, an allowed network
/// contains its address. A mapped address or network is the IPv4 one. A network that contains the mapped
/// addresses and others is rejected.
#[test]
fn permits_of_any_networks_agrees_with_the_definition() {
    check(4000, (networks(), networks(), client()), |(allowed, denied, client)| {
        let parse = |of: &[Network]| -> Result<Vec<_>, TestCaseError> {
            let mut parsed = Vec::new();
            for Network(ip, length) in of {
                let result = network(&format!("{ip}/{length}"), "test");
                prop_assert_eq!(result.is_err(), Network(*ip, *length).is_ambiguous());
                parsed.extend(result.ok());
            }
            Ok(parsed)
        };
        let policy = AdmissionPolicy {
            allowed: parse(&allowed)?,
            denied: parse(&denied)?,
            ..AdmissionPolicy::default()
        };
        let Some((ip, ..)) = client else {
            prop_assert!(policy.permits(&address(client)));
            return Ok(());
        };
        let is_in = |networks: &[Network]| {
            networks.iter().any(|network| !network.is_ambiguous() && network.contains(ip))
        };
        let all = allowed.iter().all(|network| network.is_ambiguous());
        prop_assert_eq!(
            policy.permits(&address(client)),
            !is_in(&denied) && (all || is_in(&allowed))
        );
        Ok(())
    });
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connect(Client),
    Disconnect(prop::sample::Index),
}

/// Whether two clients count as one address.
fn is_same(one: Client, other: Client) -> bool {
    let (Some((one, of, _)), Some((other, at, _))) = (one, other) else {
        return false;
    };
    let is_v4 = |ip| first_bits(ip, 96) == 0xffff;
    let is_link = |ip| first_bits(ip, 10) == 0xfe80 >> 6;
    let bits = if is_v4(one) { 128 } else { 64 };
    is_v4(one) == is_v4(other)
        && first_bits(one, bits) == first_bits(other, bits)
        && (of == at || !is_link(one))
}

/// V4: the service admits a client unless its networks deny it, the maximum number of connections are
/// open, or the maximum number of them have its address, which is a /64 network for IPv6. The first of
/// these reasons is reported. A rejected client counts nowhere, and a closed connection makes room.
#[test]
fn admit_of_any_clients_agrees_with_a_list_of_connections() {
    let step = prop_oneof![
        2 => client().prop_map(Step::Connect),
        1 => any::<prop::sample::Index>().prop_map(Step::Disconnect),
    ];
    let limits = (1..12u32, prop::option::of(1..4u32), prop::option::of(0..8u8));
    let inputs = (limits, prop::collection::vec(step, 0..60));
    check(1500, inputs, |((max_connections, max_per_address, denied), steps)| {
        let is_denied = |client: Client| {
            let denied = denied.map(|n| IpAddr::from(Ipv4Addr::new(192, 0, 2, n)));
            let ip = client.map(|(ip, ..)| first_bits(ip, 128));
            denied.is_some_and(|denied| ip == Some(first_bits(denied, 128)))
        };
        let denied = denied.map(|n| network(&format!("192.0.2.{n}"), "test").unwrap());
        let policy = AdmissionPolicy {
            max_connections,
            accept_policy: AcceptPolicy::default(),
            max_per_address,
            allowed: Vec::new(),
            denied: denied.into_iter().collect(),
        };
        let (mut counts, mut open) = (PerAddressCount::default(), Vec::<Client>::new());
        for step in steps {
            match step {
                Step::Connect(client) => {
                    let same = open.iter().filter(|other| is_same(client, **other)).count();
                    let expected = match () {
                        () if is_denied(client) => Err(Rejection::Denied),
                        () if open.len() >= max_connections as usize => Err(Rejection::Full),
                        () if max_per_address.is_some_and(|max| same >= max as usize) => {
                            Err(Rejection::OverAddressLimit)
                        }
                        () => Ok(()),
                    };
                    let live = open.len() as u32;
                    let result = policy.admit(&address(client), live, &mut counts);
                    prop_assert_eq!(result, expected);
                    if result.is_ok() {
                        open.push(client);
                    }
                }
                Step::Disconnect(which) if !open.is_empty() => {
                    counts.remove(&address(open.swap_remove(which.index(open.len()))));
                }
                Step::Disconnect(_) => {}
            }
        }
        Ok(())
    });
}
