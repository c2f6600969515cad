//! A TCP segment: parsing and printing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

/// The control bits of a TCP header (RFC 9293 section 3.1; ECE and CWR: RFC 3168).
/// They print as in tcpdump: `S` for SYN, `.` for ACK, `S.` for both.
///
/// ```
/// use keepsock::TcpFlags;
/// let syn_ack = TcpFlags::SYN | TcpFlags::ACK;
/// assert_eq!(syn_ack.to_string(), "S.");
/// assert!(syn_ack.contains(TcpFlags::ACK) && !syn_ack.contains(TcpFlags::RST));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// The sender has no more data to send.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// The sequence number is the sender's initial one.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// The connection is reset.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// The receiver should deliver the data to the program without delay.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment number is valid.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer is valid.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// The receiver has seen a congestion mark. In a SYN: the sender supports ECN.
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// The sender has reduced its congestion window. In a SYN: the sender supports ECN.
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// The flags as the byte in the header.
    ///
    /// ```
    /// assert_eq!(keepsock::TcpFlags::SYN.bits(), 2);
    /// ```
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `flags` are set.
    ///
    /// ```
    /// use keepsock::TcpFlags;
    /// assert!(!TcpFlags::SYN.contains(TcpFlags::SYN | TcpFlags::ACK));
    /// ```
    pub fn contains(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    fn intersects(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 != 0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = TcpFlags;

    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let letters = "FSRP.UEW".char_indices();
        letters.filter(|(bit, _)| self.0 & (1 << bit) != 0).try_for_each(|(_, c)| write!(f, "{c}"))
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// An option of a TCP header, with the kinds registered at IANA. It prints as in tcpdump.
///
/// ```
/// use keepsock::TcpOption;
/// assert_eq!(TcpOption::Mss(1460).to_string(), "mss 1460");
/// assert_eq!(TcpOption::Timestamps { value: 7, echo: 0 }.to_string(), "TS val 7 ecr 0");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TcpOption {
    /// The end of the options. The bytes that follow are padding (RFC 9293).
    End,
    /// One byte without a meaning, which aligns the next option (RFC 9293).
    Nop,
    /// The maximum segment size that the sender accepts, in bytes (RFC 9293, RFC 6691).
    Mss(u16),
    /// The number of bits by which windows are shifted left (RFC 7323). SYN and SYN+ACK only.
    WindowScale(u8),
    /// The sender supports selective acknowledgments (RFC 2018). SYN and SYN+ACK only.
    SackPermitted,
    /// Selective acknowledgments: for each block, the first sequence number and the number after the
    /// last one.
    Sack(Vec<(u32, u32)>),
    /// Timestamps (RFC 7323).
    Timestamps {
        /// The sender's timestamp.
        value: u32,
        /// The peer's timestamp in the last segment that the sender received; 0 in a SYN.
        echo: u32,
    },
    /// A TCP Fast Open cookie. An empty cookie is a request for a cookie (RFC 7413).
    FastOpen(Vec<u8>),
    /// An option of another kind, or with a length that its kind does not permit.
    Other {
        /// The kind of the option.
        kind: u8,
        /// The bytes after the kind and the length.
        data: Vec<u8>,
    },
}

impl fmt::Display for TcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, data: &[u8]| {
            data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        match self {
            TcpOption::End => f.write_str("eol"),
            TcpOption::Nop => f.write_str("nop"),
            TcpOption::Mss(size) => write!(f, "mss {size}"),
            TcpOption::WindowScale(shift) => write!(f, "wscale {shift}"),
            TcpOption::SackPermitted => f.write_str("sackOK"),
            TcpOption::Sack(blocks) => {
                write!(f, "sack {} ", blocks.len())?;
                blocks.iter().try_for_each(|(from, to)| write!(f, "{{{from}:{to}}}"))
            }
            TcpOption::Timestamps { value, echo } => write!(f, "TS val {value} ecr {echo}"),
            TcpOption::FastOpen(cookie) if cookie.is_empty() => f.write_str("tfo cookiereq"),
            TcpOption::FastOpen(cookie) => {
                f.write_str("tfo cookie ")?;
                hex(f, cookie)
            }
            TcpOption::Other { kind, data } if data.is_empty() => write!(f, "unknown-{kind}"),
            TcpOption::Other { kind, data } => {
                write!(f, "unknown-{kind} 0x")?;
                hex(f, data)
            }
        }
    }
}

/// A TCP segment and the fields of its IP header. It comes from
/// [`ClientSocket::saved_syn`](crate::ClientSocket::saved_syn), from a
/// [`Handshake`](crate::Handshake), or from [`parse`](Segment::parse).
///
/// It prints as in `tcpdump -n -S -t`:
///
/// ```
/// let packet = [
///     0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, // IPv4
///     0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xd7, 0, 0, 0, 0, // TCP
///     2, 4, 0xff, 0xd7, // its only option
/// ];
/// let syn = keepsock::Segment::parse(&packet).unwrap();
/// assert_eq!(
///     syn.to_string(),
///     "IP 127.0.0.1.40000 > 127.0.0.1.80: Flags [S], seq 1, win 65495, options [mss 65495], length 0"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// The time to live (IPv4) or hop limit (IPv6) at the place of the capture.
    pub ttl: u8,
    /// Whether routers may not fragment the packet: the DF flag of IPv4. Always true for IPv6.
    pub dont_fragment: bool,
    /// The type of service (IPv4) or traffic class (IPv6): DSCP (RFC 2474), and ECN (RFC 3168) in
    /// the two lowest bits.
    pub traffic_class: u8,
    /// The flags, for example SYN and ACK.
    pub flags: TcpFlags,
    /// The sequence number. In a SYN, the initial sequence number of the sender.
    pub seq: u32,
    /// The acknowledgment number. It is valid if `flags` has ACK.
    pub ack: u32,
    /// The window in the header, not scaled.
    pub window: u16,
    /// The urgent pointer. It is valid if `flags` has URG.
    pub urgent: u16,
    /// The options in the order of the header. They end before the first malformed option.
    pub options: Vec<TcpOption>,
    /// The number of data bytes.
    pub payload_len: u32,
    /// The time of the capture, by the kernel's clock. `None` if the segment was not captured, or was
    /// captured immediately after the capture started: Linux enables timestamps with a delay
    /// (net/core/dev.c).
    pub captured: Option<SystemTime>,
    raw_options: Vec<u8>,
}

impl Segment {
    /// Parses an IPv4 or IPv6 packet that starts with its IP header. The data may be truncated, the
    /// headers must be complete. `None`: the packet is not TCP, is a later fragment, or has an
    /// incomplete header. Checksums are not verified, because network cards fill them in after the
    /// capture.
    ///
    /// ```
    /// assert!(keepsock::Segment::parse(b"no packet").is_none());
    /// ```
    pub fn parse(packet: &[u8]) -> Option<Segment> {
        let (ip, tcp) = Ip::parse(packet)?;
        let header = tcp.get(..20)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let raw_options = tcp.get(20..header_len)?;
        Some(Segment {
            source: SocketAddr::new(ip.source, be16(header, 0)?),
            destination: SocketAddr::new(ip.destination, be16(header, 2)?),
            ttl: ip.ttl,
            dont_fragment: ip.dont_fragment,
            traffic_class: ip.traffic_class,
            flags: TcpFlags(header[13]),
            seq: be32(header, 4)?,
            ack: be32(header, 8)?,
            window: be16(header, 14)?,
            urgent: be16(header, 18)?,
            options: parse_options(raw_options),
            payload_len: u32::try_from(ip.payload_len.checked_sub(header_len)?).ok()?,
            captured: None,
            raw_options: raw_options.to_vec(),
        })
    }

    /// The maximum segment size that the sender accepts, in bytes. `None`: the segment does not have
    /// the option.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// # let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// let syn = accepted.saved_syn()?;
    /// println!("segments of {:?} bytes", syn.mss());
    /// # assert!(syn.mss() > Some(500));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn mss(&self) -> Option<u16> {
        self.find(|option| match option {
            TcpOption::Mss(size) => Some(*size),
            _ => None,
        })
    }

    /// The number of bits by which the sender's windows are shifted (RFC 7323). `None`: the segment
    /// does not have the option. The window of a SYN itself is never scaled.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// # let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// let syn = accepted.saved_syn()?;
    /// println!("windows up to {} KiB", 64u32 << syn.window_scale().unwrap_or(0));
    /// # assert!(syn.window_scale() <= Some(14));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn window_scale(&self) -> Option<u8> {
        self.find(|option| match option {
            TcpOption::WindowScale(shift) => Some(*shift),
            _ => None,
        })
    }

    /// The sender's timestamp and the echo of the peer's timestamp (RFC 7323). `None`: the segment does
    /// not have the option.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// # let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// let syn = accepted.saved_syn()?;
    /// if let Some((_value, echo)) = syn.timestamps() {
    ///     assert_eq!(echo, 0);   // a SYN has nothing to echo
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn timestamps(&self) -> Option<(u32, u32)> {
        self.find(|option| match option {
            TcpOption::Timestamps { value, echo } => Some((*value, *echo)),
            _ => None,
        })
    }

    /// Whether the sender supports selective acknowledgments (RFC 2018).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// # let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// println!("SACK: {}", server.accept()?.saved_syn()?.sack_permitted());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn sack_permitted(&self) -> bool {
        self.options.contains(&TcpOption::SackPermitted)
    }

    /// The bytes of the options in the header, including padding: at most 40 bytes.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// # let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// let syn = accepted.saved_syn()?;
    /// assert_eq!(syn.option_bytes().len() % 4, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn option_bytes(&self) -> &[u8] {
        &self.raw_options
    }

    fn find<T>(&self, pick: impl Fn(&TcpOption) -> Option<T>) -> Option<T> {
        self.options.iter().find_map(pick)
    }

    /// The sequence number after this segment. SYN and FIN each count as one byte.
    pub(super) fn end(&self) -> u32 {
        let flags = [TcpFlags::SYN, TcpFlags::FIN];
        let taken = flags.into_iter().filter(|flag| self.flags.contains(*flag)).count() as u32;
        self.seq.wrapping_add(self.payload_len).wrapping_add(taken)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.source.is_ipv4() { "IP " } else { "IP6 " })?;
        let (from, to) = (self.source, self.destination);
        write!(f, "{}.{} > {}.{}: ", from.ip(), from.port(), to.ip(), to.port())?;
        write!(f, "Flags [{}]", self.flags)?;
        let numbered = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;
        if self.payload_len > 0 {
            write!(f, ", seq {}:{}", self.seq, self.seq.wrapping_add(self.payload_len))?;
        } else if self.flags.intersects(numbered) {
            write!(f, ", seq {}", self.seq)?;
        }
        if self.flags.contains(TcpFlags::ACK) {
            write!(f, ", ack {}", self.ack)?;
        }
        write!(f, ", win {}", self.window)?;
        if self.flags.contains(TcpFlags::URG) {
            write!(f, ", urg {}", self.urgent)?;
        }
        if let Some((first, others)) = self.options.split_first() {
            write!(f, ", options [{first}")?;
            others.iter().try_for_each(|option| write!(f, ",{option}"))?;
            f.write_str("]")?;
        }
        write!(f, ", length {}", self.payload_len)
    }
}

/// The fields of an IP header that a [`Segment`] needs.
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    dont_fragment: bool,
    traffic_class: u8,
    /// The length of the TCP header and data, including bytes that were not captured.
    payload_len: usize,
}

const TCP: u8 = 6;

impl Ip {
    /// Returns the header and the bytes after the header.
    fn parse(packet: &[u8]) -> Option<(Ip, &[u8])> {
        match packet.first()? >> 4 {
            4 => Ip::parse_v4(packet),
            6 => Ip::parse_v6(packet),
            _ => None,
        }
    }

    /// The format is in RFC 791.
    fn parse_v4(packet: &[u8]) -> Option<(Ip, &[u8])> {
        let header_len = usize::from(packet.first()? & 0xf) * 4;
        let (header, rest) = packet.split_at_checked(header_len)?;
        let fixed: &[u8; 20] = header.first_chunk()?;
        let fragment = be16(fixed, 6)?;
        if fixed[9] != TCP || fragment & 0x1fff != 0 {
            return None;
        }
        let payload_len = match usize::from(be16(fixed, 2)?) {
            // A packet of more than 64 KiB, which occurs inside a host (Linux: BIG TCP).
            0 => rest.len(),
            total => total.checked_sub(header_len)?,
        };
        let ip = Ip {
            source: Ipv4Addr::from_bits(be32(fixed, 12)?).into(),
            destination: Ipv4Addr::from_bits(be32(fixed, 16)?).into(),
            ttl: fixed[8],
            dont_fragment: fragment & 0x4000 != 0,
            traffic_class: fixed[1],
            payload_len,
        };
        Some((ip, rest))
    }

    /// The format is in RFC 8200.
    fn parse_v6(packet: &[u8]) -> Option<(Ip, &[u8])> {
        let (header, mut rest) = packet.split_at_checked(40)?;
        let mut payload_len = match usize::from(be16(header, 4)?) {
            0 => rest.len(), // a jumbogram
            len => len,
        };
        let mut next = header[6];
        while next != TCP {
            let second = *rest.get(1)?;
            let len = match next {
                HOP_BY_HOP | ROUTING | DESTINATION => (usize::from(second) + 1) * 8,
                AUTHENTICATION => (usize::from(second) + 2) * 4,
                FRAGMENT if be16(rest, 2)? & 0xfff8 == 0 => 8,
                _ => return None,
            };
            next = *rest.first()?;
            rest = rest.get(len..)?;
            payload_len = payload_len.checked_sub(len)?;
        }
        let address = |at: usize| {
            let bytes: [u8; 16] = *header.get(at..)?.first_chunk()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)))
        };
        let ip = Ip {
            source: address(8)?,
            destination: address(24)?,
            ttl: header[7],
            dont_fragment: true,
            traffic_class: (header[0] << 4) | (header[1] >> 4),
            payload_len,
        };
        Some((ip, rest))
    }
}

// The numbers of IPv6 extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Every kind except the first two has a length, which includes the kind and the length (RFC 9293
/// section 3.2).
fn parse_options(mut rest: &[u8]) -> Vec<TcpOption> {
    let mut options = Vec::new();
    loop {
        match *rest {
            [0, ..] => {
                options.push(TcpOption::End);
                return options;
            }
            [1, ref after @ ..] => {
                options.push(TcpOption::Nop);
                rest = after;
            }
            [kind, len, ref after @ ..] => {
                let len = usize::from(len).checked_sub(2);
                let Some((data, after)) = len.and_then(|len| after.split_at_checked(len)) else {
                    return options;
                };
                options.push(parse_option(kind, data));
                rest = after;
            }
            _ => return options,
        }
    }
}

fn parse_option(kind: u8, data: &[u8]) -> TcpOption {
    match (kind, data) {
        (2, &[a, b]) => TcpOption::Mss(u16::from_be_bytes([a, b])),
        (3, &[shift]) => TcpOption::WindowScale(shift),
        (4, []) => TcpOption::SackPermitted,
        (5, blocks) if !blocks.is_empty() && blocks.len() % 8 == 0 => {
            let pair = |block: &[u8]| Some((be32(block, 0)?, be32(block, 4)?));
            TcpOption::Sack(blocks.chunks_exact(8).filter_map(pair).collect())
        }
        (8, &[a, b, c, d, e, f, g, h]) => TcpOption::Timestamps {
            value: u32::from_be_bytes([a, b, c, d]),
            echo: u32::from_be_bytes([e, f, g, h]),
        },
        (34, cookie) => TcpOption::FastOpen(cookie.to_vec()),
        _ => TcpOption::Other { kind, data: data.to_vec() },
    }
}
