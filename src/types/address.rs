//! Addresses, the five-tuple of a connection, IP versions and transport protocols.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::types::escape::{Escaped, UNNAMED, escaped};

/// The transport protocol of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Protocol {
    /// TCP over IPv4 or IPv6.
    Tcp = 1,
    /// A Unix stream socket.
    Unix = 2,
    /// UDP over IPv4 or IPv6.
    Udp = 3,
    /// A Unix datagram socket.
    UnixDatagram = 4,
    /// A Unix socket for packets (SOCK_SEQPACKET).
    UnixPacket = 5,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Unix => "unix",
            Protocol::Udp => "udp",
            Protocol::UnixDatagram => "unix-datagram",
            Protocol::UnixPacket => "unix-packet",
        })
    }
}

/// The IP version to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(i32)]
pub enum Family {
    /// IPv4 and IPv6, in the order that the system prefers (RFC 6724).
    #[default]
    Any = 0,
    /// IPv4 only.
    Ipv4 = 4,
    /// IPv6 only.
    Ipv6 = 6,
}

impl Family {
    pub(crate) fn allows(self, ip: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::Ipv4 => ip.is_ipv4(),
            Family::Ipv6 => ip.is_ipv6(),
        }
    }
}

/// The address of a socket. Displays in the syntax of [`Endpoint`](crate::Endpoint).
///
/// ```
/// let address = keepsock::Address::UnixPath("/run/app.sock".into());
/// assert_eq!(address.to_string(), "unix:/run/app.sock");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`), as a dual-stack
    /// socket has it, is converted to the IPv4 address.
    Inet(SocketAddr),
    /// The path of a Unix socket in the file system.
    UnixPath(PathBuf),
    /// The name of a Unix socket in Linux's abstract namespace.
    UnixAbstract(Vec<u8>),
    /// A Unix socket without a name, which most clients use.
    UnixUnnamed,
}

impl Address {
    /// Returns the port; 0 for Unix sockets.
    ///
    /// ```
    /// let address = keepsock::Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
    /// assert_eq!(address.port(), 80);
    /// ```
    pub fn port(&self) -> u16 {
        match self {
            Address::Inet(a) => a.port(),
            _ => 0,
        }
    }

    /// Returns the address without its port as text: `127.0.0.1`, `::1`, `/run/app.sock`, `@name`,
    /// or an empty string for an unnamed Unix socket. The name of a Unix socket is escaped as in an
    /// [`Endpoint`](crate::Endpoint).
    ///
    /// ```
    /// let address = keepsock::Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
    /// assert_eq!(address.host(), "127.0.0.1");
    /// ```
    pub fn host(&self) -> String {
        match self {
            Address::Inet(SocketAddr::V6(a)) if a.scope_id() != 0 => {
                format!("{}%{}", a.ip(), a.scope_id())
            }
            Address::Inet(a) => a.ip().to_string(),
            Address::UnixPath(path) => escaped(path).to_string(),
            Address::UnixAbstract(name) => format!("@{}", Escaped(name)),
            Address::UnixUnnamed => String::new(),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Address::Inet(_) => Protocol::Tcp,
            _ => Protocol::Unix,
        }
    }

    /// Whether this is the wildcard address, `0.0.0.0` or `::`.
    pub(crate) fn is_wildcard(&self) -> bool {
        matches!(self, Address::Inet(a) if a.ip().is_unspecified())
    }
}

impl From<SocketAddr> for Address {
    /// Converts IPv4-mapped addresses (RFC 4291 section 2.5.5.2) to IPv4 addresses.
    fn from(address: SocketAddr) -> Address {
        Address::Inet(canonical(address))
    }
}

/// Converts an IPv4-mapped address to the IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The use of an address by a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressUse {
    /// The peer of a TCP connection.
    StreamPeer,
    /// The destination of datagrams.
    #[cfg(feature = "datagram")]
    DatagramPeer,
    /// The local address of a TCP socket, or of a datagram socket with one peer.
    Local,
    /// The local address of a datagram socket that receives from any peer.
    #[cfg(feature = "datagram")]
    Receive,
}

/// Why an address cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    NoPort,
    Wildcard,
    Multicast,
    Broadcast,
    NoZone,
}

impl AddressUse {
    pub(crate) fn is_peer(self) -> bool {
        match self {
            AddressUse::StreamPeer => true,
            AddressUse::Local => false,
            #[cfg(feature = "datagram")]
            AddressUse::DatagramPeer => true,
            #[cfg(feature = "datagram")]
            AddressUse::Receive => false,
        }
    }

    /// Why an address cannot be used. A zone is not checked, because an interface may replace it.
    #[inline(always)]
    pub(crate) fn rejects(self, address: SocketAddr) -> Option<Unusable> {
        if self.is_peer() && address.port() == 0 {
            return Some(Unusable::NoPort);
        }
        // Most addresses: neither the wildcard address nor multicast nor broadcast.
        if matches!(address, SocketAddr::V4(v4) if (1..224).contains(&v4.ip().octets()[0])) {
            return None;
        }
        self.rejects_ip(address.ip())
    }

    /// Why an IP address cannot be used with any port. The wildcard address as a destination means
    /// this machine on Linux, and is an error on other systems.
    #[inline]
    pub(crate) fn rejects_ip(self, ip: IpAddr) -> Option<Unusable> {
        let ip = match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(_) => ip.to_canonical(),
        };
        let is_of_one_host = matches!(self, AddressUse::StreamPeer | AddressUse::Local);
        match ip {
            _ if self.is_peer() && ip.is_unspecified() => Some(Unusable::Wildcard),
            _ if is_of_one_host && ip.is_multicast() => Some(Unusable::Multicast),
            IpAddr::V4(Ipv4Addr::BROADCAST) if is_of_one_host => Some(Unusable::Broadcast),
            _ => None,
        }
    }
}

impl Unusable {
    /// The text of an error: the reason and the remedy.
    pub(crate) fn describe(self, ip: IpAddr) -> String {
        match (self, ip.to_canonical()) {
            (Unusable::NoPort, _) => {
                "port 0 is for listening and binding: write the port of the peer".to_owned()
            }
            (Unusable::Wildcard, ip) => {
                let host = if ip.is_ipv4() { "127.0.0.1" } else { "::1" };
                format!(
                    "{ip} is for listening and binding: write the address of the peer, such as {host}"
                )
            }
            (Unusable::Multicast, ip) => {
                format!("{ip} is a multicast address: write the address of one host")
            }
            (Unusable::Broadcast, ip) => {
                format!("{ip} is a broadcast address: write the address of one host")
            }
            (Unusable::NoZone, ip) => {
                format!(
                    "link-local address without a zone: write [{ip}%interface], such as [{ip}%eth0]"
                )
            }
        }
    }
}

/// Whether the address is link-local and has no zone (RFC 4007).
pub(crate) fn lacks_zone(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(a) => a.scope_id() == 0 && needs_zone(*a.ip()),
    }
}

/// Whether the address is link-local, so that it needs a zone. That includes interface-local and
/// link-local multicast addresses (RFC 4291 section 2.7).
pub(crate) fn needs_zone(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_unicast_link_local() || first == 0xff && matches!(second & 0xf, 1 | 2)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(a) => a.fmt(f),
            Address::UnixPath(path) => write!(f, "unix:{}", escaped(path)),
            Address::UnixAbstract(name) => write!(f, "unix:@{}", Escaped(name)),
            Address::UnixUnnamed => write!(f, "unix:{UNNAMED}"),
        }
    }
}

/// The protocol, the local and the remote address of a connection. Displays as
/// `tcp 127.0.0.1:3337 -> 127.0.0.1:7788`.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket};
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// let tuple = client.five_tuple();
/// assert_eq!(tuple.remote.port(), server.port());
/// assert_eq!(tuple.to_string(), format!("tcp {} -> {}", tuple.local, tuple.remote));
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FiveTuple {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The address of this side.
    pub local: Address,
    /// The address of the peer.
    pub remote: Address,
}

impl FiveTuple {
    /// Creates the five-tuple of a TCP connection between two addresses, which may belong to other
    /// machines.
    ///
    /// ```
    /// use keepsock::FiveTuple;
    /// let tuple = FiveTuple::tcp("127.0.0.1:3337".parse().unwrap(), "127.0.0.1:7788".parse().unwrap());
    /// assert_eq!(tuple.to_string(), "tcp 127.0.0.1:3337 -> 127.0.0.1:7788");
    /// ```
    pub fn tcp(local: SocketAddr, remote: SocketAddr) -> FiveTuple {
        FiveTuple { protocol: Protocol::Tcp, local: local.into(), remote: remote.into() }
    }
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.local, self.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_address_prints_its_name_escaped() {
        let address = Address::UnixAbstract(b"evil\nline".to_vec());
        assert_eq!(address.to_string(), "unix:@evil\\x0aline");
        assert_eq!(address.host(), "@evil\\x0aline");
        let path = Address::UnixPath("@at".into());
        assert_eq!((path.to_string(), path.host()), (r"unix:\x40at".into(), r"\x40at".into()));
    }

    /// L1: IPv4-mapped addresses print as IPv4.
    #[test]
    fn mapped_address_prints_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
        assert_eq!(Address::from(mapped).to_string(), "127.0.0.1:80");
    }
}
