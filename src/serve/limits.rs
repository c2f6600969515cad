//! Who may connect, and how often: networks, and connections of one address. No I/O.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::error::{Error, ErrorKind, Result};
use crate::info::Address;
use crate::serve::WhenFull;

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Every place is taken.
    Full,
    /// Its address has as many as it may.
    Crowded,
    /// Its address is denied, or is not among those that are allowed.
    Denied,
    /// This user may not connect; or it cannot be told who it is.
    User(Option<u32>),
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub connections: u32,
    pub when_full: WhenFull,
    pub per_address: Option<u32>,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}

/// `192.0.2.0/24`, `2001:db8::/32`, or one address.
pub(crate) fn network(text: &str, operation: &'static str) -> Result<IpNet> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| one()).map_err(|_| {
        let what = format!("not a network: {text:?}; write 192.0.2.0/24 or an address");
        Error::new(ErrorKind::InvalidArgument, operation).detail(what)
    })
}

impl Limits {
    /// Lets a peer in while `live` others are, and counts it, or says why not.
    pub(crate) fn admit(
        &self,
        peer: &Address,
        live: u32,
        crowd: &mut Crowd,
    ) -> std::result::Result<(), Refusal> {
        if !self.permits(peer) {
            Err(Refusal::Denied)
        } else if live >= self.connections {
            Err(Refusal::Full)
        } else if self.per_address.is_some_and(|most| !crowd.enter(peer, most)) {
            Err(Refusal::Crowded)
        } else {
            Ok(())
        }
    }

    /// Whether a peer may connect at all. What is denied stays so, whatever allows it. The
    /// peers of Unix sockets have no address.
    pub(crate) fn permits(&self, peer: &Address) -> bool {
        let Address::Inet(peer) = peer else {
            return true;
        };
        let ip = peer.ip();
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

/// How many connections each address has. An IPv6 host commonly has a whole /64 (RFC 4291
/// section 2.5.4), so that is what counts as one.
#[derive(Debug, Default)]
pub(crate) struct Crowd(HashMap<IpAddr, u32>);

impl Crowd {
    fn key(peer: &Address) -> Option<IpAddr> {
        match peer {
            Address::Inet(peer) => Some(match peer.ip() {
                IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
                v4 @ IpAddr::V4(_) => v4,
            }),
            _ => None,
        }
    }

    /// Counts one in; false: there are `most` already.
    pub(crate) fn enter(&mut self, peer: &Address, most: u32) -> bool {
        let Some(key) = Crowd::key(peer) else {
            return true;
        };
        let count = self.0.entry(key).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        true
    }

    pub(crate) fn leave(&mut self, peer: &Address) {
        let Some(key) = Crowd::key(peer) else {
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
    use std::net::SocketAddr;

    fn peer(ip: &str) -> Address {
        Address::from(SocketAddr::new(ip.parse().unwrap(), 1))
    }

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| network(text, "test").unwrap()).collect()
    }

    /// V4: CIDR lists; denied is denied.
    #[test]
    fn networks_allow_and_deny() {
        let limits = Limits {
            allow: networks(&["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]),
            deny: networks(&["192.0.2.128/25", "2001:db8:bad::/48"]),
            ..Limits::default()
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
        assert!(Limits::default().permits(&peer("203.0.113.1")));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["", "192.0.2.0/33", "192.0.2", "example.com", "2001:db8::/129", "1.2.3.4/"] {
            let err = network(text, "serve").unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
            assert!(err.to_string().contains(&format!("{text:?}")), "{err}");
        }
    }

    /// V4: so many of one address; the others are not concerned, and who leaves makes room.
    #[test]
    fn one_address_has_so_many() {
        let mut crowd = Crowd::default();
        let (one, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        assert!(crowd.enter(&one, 2) && crowd.enter(&one, 2) && !crowd.enter(&one, 2));
        assert!(crowd.enter(&other, 2));
        crowd.leave(&one);
        assert!(crowd.enter(&one, 2) && !crowd.enter(&one, 2));
        // One host's /64 is one.
        assert!(crowd.enter(&peer("2001:db8::1"), 1));
        assert!(!crowd.enter(&peer("2001:db8::2"), 1));
        assert!(crowd.enter(&peer("2001:db8:0:1::1"), 1));
        assert!(crowd.enter(&Address::UnixUnnamed, 1) && crowd.enter(&Address::UnixUnnamed, 1));
        for peer in [&one, &one, &other] {
            crowd.leave(peer);
        }
        crowd.leave(&peer("2001:db8::3"));
        crowd.leave(&peer("2001:db8:0:1::9"));
        assert!(crowd.0.is_empty(), "{crowd:?}: those that left take no room");
    }
}
