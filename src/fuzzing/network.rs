//! Networks, access lists and the number of connections per address.

#![cfg_attr(not(feature = "serve"), allow(dead_code))] // Only services have access lists.

use std::net::{IpAddr, Ipv6Addr};

use super::{Input, check_printable};
use crate::types::error::ErrorKind;
use crate::types::network;

/// A network displays as text that parses to the same network. A network and the access lists
/// decide as a model decides, which compares bits.
pub fn network(data: &[u8]) {
    let mut input = Input::new(data);
    let free = input.text();
    if let Ok(network) = check(&free) {
        assert_eq!(check(&network.to_string()).ok(), Some(network), "{free:?}");
    }
    let lists = [list(&mut input), list(&mut input)];
    let peers: Vec<IpAddr> = (0..1 + input.below(8)).map(|_| ip(&mut input)).collect();
    #[cfg(feature = "serve")]
    admission(&lists, &peers, &mut input);
    let _ = (lists, peers);
}

fn check(text: &str) -> crate::types::error::Result<ipnet::IpNet> {
    network::network(text, "test").inspect_err(|error| {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        check_printable(&error.to_string());
    })
}

/// An address. Many have equal bits, so networks often contain them.
fn ip(input: &mut Input) -> IpAddr {
    match input.below(4) {
        0 => [10, input.byte() % 2, 0, input.byte() % 4].into(),
        1 => input.array::<4>().into(),
        2 => std::net::Ipv4Addr::from([10, 0, input.byte() % 2, 1]).to_ipv6_mapped().into(),
        _ => {
            let mut octets = [0; 16];
            octets[0] = 0x20;
            octets[7] = input.byte() % 2;
            octets[15] = input.byte() % 4;
            octets.into()
        }
    }
}

/// A network: its address, the length of its prefix, and its text.
type Listed = (IpAddr, u8, String);

fn list(input: &mut Input) -> Vec<Listed> {
    let mut found = Vec::new();
    for _ in 0..input.below(4) {
        let address = ip(input);
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = (input.byte() % 140).min(most);
        found.push((address, prefix, format!("{address}/{prefix}")));
    }
    found
}

/// The bits of an address as IPv6, and the part of a prefix that all IPv4 addresses have.
fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped().to_bits(), 96),
        IpAddr::V6(ip) => (ip.to_bits(), 0),
    }
}

fn is_mapped(ip: IpAddr) -> bool {
    bits(ip).0 >> 32 == 0xffff
}

/// Whether a network contains an address. `::/0` means every IPv6 address.
fn contains((network, prefix, _): &Listed, peer: IpAddr) -> bool {
    let (base, more) = bits(*network);
    let prefix = u32::from(prefix + more);
    if prefix == 0 {
        return !is_mapped(peer);
    }
    (base ^ bits(peer).0) >> (128 - prefix) == 0
}

/// Whether a network contains mapped addresses and others. The library rejects such a network.
fn is_mixed((network, prefix, _): &Listed) -> bool {
    let (base, more) = bits(*network);
    let prefix = u32::from(prefix + more);
    let mapped = Ipv6Addr::from_bits(0xffff << 32).to_bits();
    (1..96).contains(&prefix) && (base ^ mapped) >> (128 - prefix) == 0
}

#[cfg(feature = "serve")]
fn admission(lists: &[Vec<Listed>; 2], peers: &[IpAddr], input: &mut Input) {
    use crate::serve::admission::{AdmissionPolicy, PerAddressCount};
    use crate::types::address::Address;
    use std::net::SocketAddr;

    let mut policy = AdmissionPolicy::default();
    let mut kept = lists.clone();
    for (list, networks) in kept.iter_mut().zip([&mut policy.allowed, &mut policy.denied]) {
        list.retain(|listed| {
            let parsed = check(&listed.2);
            assert_eq!(parsed.is_err(), is_mixed(listed), "{}", listed.2);
            networks.extend(parsed.as_ref().ok());
            parsed.is_ok()
        });
    }
    let [allowed, denied] = &kept;
    let address = |ip: IpAddr| Address::from(SocketAddr::new(ip, 1));
    for peer in peers {
        let is_in = |list: &[Listed]| list.iter().any(|network| contains(network, *peer));
        let expected = !is_in(denied) && (allowed.is_empty() || is_in(allowed));
        assert_eq!(policy.permits(&address(*peer)), expected, "{peer} {kept:?}");
    }

    // The counter agrees with a list of the counted peers.
    let mut count = PerAddressCount::default();
    let mut live: Vec<IpAddr> = Vec::new();
    let max = input.below(4) as u32;
    let host = |ip: IpAddr| if is_mapped(ip) { bits(ip).0 } else { bits(ip).0 >> 64 << 64 };
    while !input.is_empty() {
        let peer = input.one_of(peers);
        if input.byte() % 3 == 0 {
            if let Some(at) = live.iter().position(|ip| *ip == peer) {
                count.remove(&address(live.swap_remove(at)));
            }
        } else {
            let same = live.iter().filter(|ip| host(**ip) == host(peer)).count();
            let added = count.try_add(&address(peer), max);
            assert_eq!(added, same < max as usize, "{peer}: {same} of {max}");
            live.extend(added.then_some(peer));
        }
    }
}
