//! Networks of IP addresses as text.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::types::error::{Error, ErrorKind, Result};

/// The prefix length of the IPv4-mapped addresses, `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// Parses `192.0.2.0/24`, `2001:db8::/32`, or one address.
///
/// The address of a peer is never an IPv4-mapped address. So a mapped network becomes the IPv4
/// network. A wider network that contains the mapped addresses is rejected, because it would not
/// match IPv4 peers. Only `::/0` is accepted, and means every IPv6 address.
pub(crate) fn network(text: &str, operation: &'static str) -> Result<IpNet> {
    let reject = |what: String| Error::new(ErrorKind::InvalidArgument, operation).detail(what);
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse().or_else(|_| one()).map_err(|_| {
        reject(format!("{text:?} is not a network: write one such as 192.0.2.0/24, or an address"))
    })?;
    let IpNet::V6(wide) = network else {
        return Ok(network);
    };
    let (address, prefix) = (wide.addr(), wide.prefix_len());
    match address.to_ipv4_mapped() {
        Some(ipv4) if prefix >= MAPPED_PREFIX => {
            let known = Ipv4Net::new(ipv4, prefix - MAPPED_PREFIX);
            known.map(IpNet::V4).map_err(|e| reject(format!("{text:?}: {e}")))
        }
        _ if prefix > 0 && wide.contains(&Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()) => {
            let what = "contains the IPv4-mapped addresses and more; write an IPv4 network, \
                        such as 0.0.0.0/0, and each IPv6 network";
            Err(reject(format!("{text:?} {what}")))
        }
        _ => Ok(network),
    }
}
