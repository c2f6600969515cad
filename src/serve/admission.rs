//! Admission of clients: allowed and denied networks, and the number of connections per address.
//! This module does no I/O.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::listener::Rejection;
use crate::serve::AcceptPolicy;
use crate::types::address::Address;

/// The rules of a service for its clients.
#[derive(Debug, Clone, Default)]
pub(crate) struct AdmissionPolicy {
    pub max_connections: u32,
    pub accept_policy: AcceptPolicy,
    pub max_per_address: Option<u32>,
    pub allowed: Vec<IpNet>,
    pub denied: Vec<IpNet>,
}

impl AdmissionPolicy {
    /// Admits and counts a peer while `live` connections are being served, or returns why the
    /// service rejects it.
    pub(crate) fn admit(
        &self,
        peer: &Address,
        live: u32,
        per_address: &mut PerAddressCount,
    ) -> std::result::Result<(), Rejection> {
        if !self.permits(peer) {
            Err(Rejection::Denied)
        } else if live >= self.max_connections {
            Err(Rejection::Full)
        } else {
            self.admit_address(peer, per_address)
        }
    }

    /// Checks and counts the address of a peer that already has its place.
    pub(crate) fn admit_address(
        &self,
        peer: &Address,
        per_address: &mut PerAddressCount,
    ) -> std::result::Result<(), Rejection> {
        if !self.permits(peer) {
            Err(Rejection::Denied)
        } else if self.max_per_address.is_some_and(|max| !per_address.try_add(peer, max)) {
            Err(Rejection::OverAddressLimit)
        } else {
            Ok(())
        }
    }

    /// Whether the networks permit a peer. A denied network takes precedence over an allowed one.
    /// Unix peers have no address and are always permitted.
    pub(crate) fn permits(&self, peer: &Address) -> bool {
        let Address::Inet(peer) = peer else {
            return true;
        };
        let ip = peer.ip();
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        !is_in(&self.denied) && (self.allowed.is_empty() || is_in(&self.allowed))
    }
}

/// The number of connections from each address. An IPv6 host commonly has a whole /64 network
/// (RFC 4291 section 2.5.4), so each /64 network counts as one address. All link-local addresses have
/// the same network, so these count for each interface alone.
#[derive(Debug, Default)]
pub(crate) struct PerAddressCount(HashMap<Counted, u32>);

/// A network whose connections are counted together, and the number of the interface of a link-local
/// one.
type Counted = (IpAddr, u32);

impl PerAddressCount {
    fn key(peer: &Address) -> Option<Counted> {
        match peer {
            Address::Inet(SocketAddr::V6(peer)) => {
                let network = Ipv6Addr::from_bits(peer.ip().to_bits() >> 64 << 64);
                Some((network.into(), peer.scope_id()))
            }
            Address::Inet(SocketAddr::V4(peer)) => Some(((*peer.ip()).into(), 0)),
            _ => None,
        }
    }

    /// Counts one connection more. Returns false, and counts nothing, if the address already has
    /// `max` connections.
    pub(crate) fn try_add(&mut self, peer: &Address, max: u32) -> bool {
        let Some(key) = PerAddressCount::key(peer) else {
            return true;
        };
        let count = self.0.entry(key).or_default();
        if *count >= max {
            return false;
        }
        *count += 1;
        true
    }

    /// Counts one connection less.
    pub(crate) fn remove(&mut self, peer: &Address) {
        let Some(key) = PerAddressCount::key(peer) else {
            return;
        };
        if let Some(count) = self.0.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::error::ErrorKind;
    use crate::types::network::network;

    fn peer(ip: &str) -> Address {
        Address::from(SocketAddr::new(ip.parse().unwrap(), 1))
    }

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| network(text, "test").unwrap()).collect()
    }

    /// V4: allowed and denied networks; a denied network takes precedence.
    #[test]
    fn denied_network_takes_precedence() {
        let limits = AdmissionPolicy {
            allowed: networks(&["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]),
            denied: networks(&["192.0.2.128/25", "2001:db8:bad::/48"]),
            ..AdmissionPolicy::default()
        };
        for (ip, permitted) in [
            ("192.0.2.1", true),
            ("192.0.2.200", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("2001:db8::1", true),
            ("2001:db8:bad::1", false),
            ("2001:db9::1", false),
            // An IPv4 peer of a dual-stack listener.
            ("::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.200", false),
        ] {
            assert_eq!(limits.permits(&peer(ip)), permitted, "{ip}");
        }
        assert!(limits.permits(&Address::UnixUnnamed));
        assert!(AdmissionPolicy::default().permits(&peer("203.0.113.1")));
    }

    /// L1, V4: a mapped network is the IPv4 network, and no network silently misses IPv4 peers.
    #[test]
    fn network_ipv4_mapped_is_the_ipv4_network() {
        for (text, same) in [
            ("::ffff:127.0.0.1", "127.0.0.1/32"),
            ("::ffff:7f00:1/128", "127.0.0.1/32"),
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::127.0.0.1", "::7f00:1/128"),
            ("::/96", "::/96"),
            ("64:ff9b::/96", "64:ff9b::/96"),
        ] {
            assert_eq!(network(text, "test").unwrap(), same.parse().unwrap(), "{text}");
        }
        for text in ["::ffff:127.0.0.1/95", "::ffff:0:0/64", "::fffe:0:0/95", "::/80", "::/1"] {
            let err = network(text, "serve").unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
            assert!(err.to_string().contains("write an IPv4 network"), "{err}");
        }
        let deny =
            |text| AdmissionPolicy { denied: networks(&[text]), ..AdmissionPolicy::default() };
        for (text, ip, permitted) in [
            ("::ffff:127.0.0.1", "127.0.0.1", false),
            ("::ffff:127.0.0.1", "127.0.0.2", true),
            ("::ffff:127.0.0.0/104", "127.9.9.9", false),
            ("::ffff:127.0.0.0/104", "::ffff:127.9.9.9", false),
            ("::/0", "2001:db8::1", false),
            ("::/0", "127.0.0.1", true),
        ] {
            assert_eq!(deny(text).permits(&peer(ip)), permitted, "{text} {ip}");
        }
    }

    #[test]
    fn network_invalid_text_is_in_the_error() {
        for text in ["", "192.0.2.0/33", "192.0.2", "example.com", "2001:db8::/129", "1.2.3.4/"] {
            let err = network(text, "serve").unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
            assert!(err.to_string().contains(&format!("{text:?}")), "{err}");
        }
    }

    /// V4: the limit holds for each address alone, and a closed connection makes room.
    #[test]
    fn per_address_limit_counts_each_address_alone() {
        let mut counts = PerAddressCount::default();
        let (one, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        assert!(counts.try_add(&one, 2) && counts.try_add(&one, 2) && !counts.try_add(&one, 2));
        assert!(counts.try_add(&other, 2));
        counts.remove(&one);
        assert!(counts.try_add(&one, 2) && !counts.try_add(&one, 2));
        // A /64 network counts as one address.
        assert!(counts.try_add(&peer("2001:db8::1"), 1));
        assert!(!counts.try_add(&peer("2001:db8::2"), 1));
        assert!(counts.try_add(&peer("2001:db8:0:1::1"), 1));
        assert!(
            counts.try_add(&Address::UnixUnnamed, 1) && counts.try_add(&Address::UnixUnnamed, 1)
        );
        // Hosts of one link do not use up the limit of another link.
        let (first, second) = ("[fe80::1%2]:1".parse(), "[fe80::1%3]:1".parse());
        let (first, second): (SocketAddr, SocketAddr) = (first.unwrap(), second.unwrap());
        for link in [first, second] {
            assert!(counts.try_add(&link.into(), 1) && !counts.try_add(&link.into(), 1), "{link}");
        }
        for peer in [&one, &one, &other, &first.into(), &second.into()] {
            counts.remove(peer);
        }
        counts.remove(&peer("2001:db8::3"));
        counts.remove(&peer("2001:db8:0:1::9"));
        assert!(counts.0.is_empty(), "{counts:?}: an address without connections takes no memory");
    }
}
