//! What a socket is: addresses and the five-tuple.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::error::ErrorKind;

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
    /// A Unix socket for packets in order.
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

/// One end of a connection. Prints in the syntax of
/// [`Endpoint`](crate::Endpoint).
///
/// ```
/// let address = keepsock::Address::UnixPath("/run/app.sock".into());
/// assert_eq!(address.to_string(), "unix:/run/app.sock");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port. An IPv4 peer of a dual-stack listener is shown
    /// as IPv4, not as `::ffff:…`.
    Inet(SocketAddr),
    /// A Unix socket in the file system.
    UnixPath(PathBuf),
    /// A Unix socket in Linux's abstract namespace.
    UnixAbstract(Vec<u8>),
    /// A Unix socket without a name, as clients have.
    UnixUnnamed,
}

impl Address {
    /// The port, 0 for Unix sockets.
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

    /// The address without its port, as text: `127.0.0.1`, `::1`,
    /// `/run/app.sock`, `@name`, or nothing for an unnamed Unix socket.
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
            Address::UnixPath(path) => path.display().to_string(),
            Address::UnixAbstract(name) => format!("@{}", String::from_utf8_lossy(name)),
            Address::UnixUnnamed => String::new(),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Address::Inet(_) => Protocol::Tcp,
            _ => Protocol::Unix,
        }
    }

    /// Whether this is a wildcard address, as a listener may have.
    pub(crate) fn is_wildcard(&self) -> bool {
        matches!(self, Address::Inet(a) if a.ip().is_unspecified())
    }
}

impl From<SocketAddr> for Address {
    /// IPv4-mapped addresses (RFC 4291 section 2.5.5.2) become the IPv4 addresses that they are.
    fn from(address: SocketAddr) -> Address {
        Address::Inet(canonical(address))
    }
}

/// IPv4 as IPv4, also where a socket of both families has it as a mapped address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(a) => a.fmt(f),
            Address::UnixPath(path) => write!(f, "unix:{}", path.display()),
            Address::UnixAbstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
            Address::UnixUnnamed => f.write_str("unix:(unnamed)"),
        }
    }
}

/// What identifies a connection: protocol, local address and port, remote
/// address and port. Prints as `tcp 127.0.0.1:3337 -> 127.0.0.1:7788`.
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
    /// The transport.
    pub protocol: Protocol,
    /// This side.
    pub local: Address,
    /// The peer.
    pub remote: Address,
}

impl FiveTuple {
    /// That of a TCP connection between these addresses, which need not be this program's.
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

/// Why a connection ended: the first cause that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[repr(i32)]
pub enum End {
    /// The peer closed its side (FIN). What it sent before is still readable.
    #[error("closed by peer")]
    ClosedByPeer = 1,
    /// The peer, or something on the way, reset it (RST).
    #[error("reset by peer")]
    ResetByPeer = 2,
    /// The peer gave no answer: to keepalive, or to data.
    #[error("peer is dead")]
    Dead = 3,
    /// The peer gave no answer, and a router said that there is no way to it.
    #[error("peer is unreachable")]
    Unreachable = 4,
    /// The peer's kernel answers, but its program has not taken data for the time
    /// that `dead_after` with `end_stalled` gave it.
    #[error("peer takes no data")]
    Stalled = 5,
    /// Nothing was received for the idle limit.
    #[error("idle limit")]
    IdleLimit = 6,
    /// Heartbeats were sent, and nothing was received for the idle limit.
    #[error("heartbeat missed")]
    HeartbeatMissed = 7,
    /// It was closed here while its cancel token was fired.
    #[error("cancelled")]
    Cancelled = 8,
    /// It was closed here, or its descriptor was given up.
    #[error("closed here")]
    ClosedHere = 9,
    /// The peer sent a message that is longer than the server's framing allows.
    #[error("message too long")]
    TooLong = 10,
    /// The peer did not keep up with what it was sent: more waited for it than may.
    #[error("did not keep up")]
    Overrun = 11,
}

impl End {
    pub(crate) fn from_number(number: i32) -> Option<End> {
        use End::*;
        let all = [
            ClosedByPeer,
            ResetByPeer,
            Dead,
            Unreachable,
            Stalled,
            IdleLimit,
            HeartbeatMissed,
            Cancelled,
            ClosedHere,
            TooLong,
            Overrun,
        ];
        all.into_iter().find(|end| *end as i32 == number)
    }

    /// The error that a call meets after this end.
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            End::ClosedByPeer => ErrorKind::EndOfStream,
            End::ResetByPeer => ErrorKind::Reset,
            End::Dead => ErrorKind::Dead,
            End::Unreachable => ErrorKind::Unreachable,
            End::Stalled => ErrorKind::Stalled,
            End::IdleLimit => ErrorKind::IdleLimit,
            End::HeartbeatMissed => ErrorKind::HeartbeatMissed,
            End::Cancelled | End::ClosedHere => ErrorKind::Closed,
            End::TooLong => ErrorKind::TooLong,
            End::Overrun => ErrorKind::Stalled,
        }
    }
}

/// The state of a TCP socket, by its name in RFC 9293 section 3.3.2. The numbers
/// are Linux's (include/net/tcp_states.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[repr(i32)]
pub enum TcpState {
    /// Both sides are connected; data flows.
    #[error("ESTABLISHED")]
    Established = 1,
    /// This side's SYN is out, the answer is awaited.
    #[error("SYN-SENT")]
    SynSent = 2,
    /// The peer's SYN came and was answered; its ACK is awaited.
    #[error("SYN-RECEIVED")]
    SynReceived = 3,
    /// This side's FIN is out, its ACK or the peer's FIN is awaited.
    #[error("FIN-WAIT-1")]
    FinWait1 = 4,
    /// This side's FIN was acknowledged, the peer's is awaited.
    #[error("FIN-WAIT-2")]
    FinWait2 = 5,
    /// Both FINs came; old segments may still be on their way.
    #[error("TIME-WAIT")]
    TimeWait = 6,
    /// There is no connection.
    #[error("CLOSED")]
    Closed = 7,
    /// The peer's FIN came, this side still sends.
    #[error("CLOSE-WAIT")]
    CloseWait = 8,
    /// The peer's FIN came, this side's is out, its ACK is awaited.
    #[error("LAST-ACK")]
    LastAck = 9,
    /// Connections are waited for.
    #[error("LISTEN")]
    Listen = 10,
    /// Both FINs crossed; the ACK of this side's is awaited.
    #[error("CLOSING")]
    Closing = 11,
}

impl TcpState {
    /// By the number in include/net/tcp_states.h. 12, a request that was not accepted yet,
    /// is SYN-RECEIVED to RFC 9293.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn from_linux(number: u8) -> Option<TcpState> {
        use TcpState::*;
        Some(match number {
            1 => Established,
            2 => SynSent,
            3 | 12 => SynReceived,
            4 => FinWait1,
            5 => FinWait2,
            6 => TimeWait,
            7 => Closed,
            8 => CloseWait,
            9 => LastAck,
            10 => Listen,
            11 => Closing,
            _ => return None,
        })
    }

    /// By the number in netinet/tcp_fsm.h.
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    pub(crate) fn from_bsd(number: u8) -> Option<TcpState> {
        use TcpState::*;
        let all = [
            Closed,
            Listen,
            SynSent,
            SynReceived,
            Established,
            CloseWait,
            FinWait1,
            Closing,
            LastAck,
            FinWait2,
            TimeWait,
        ];
        all.get(usize::from(number)).copied()
    }
}

/// Which IP version to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(i32)]
pub enum Family {
    /// Both, in the order the system prefers (RFC 6724).
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

#[cfg(test)]
mod tests {
    use super::*;

    /// L1: mapped peers print as IPv4.
    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
        assert_eq!(Address::from(mapped).to_string(), "127.0.0.1:80");
    }
}
