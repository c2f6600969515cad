//! The header of the PROXY protocol, versions 1 and 2 (proxy-protocol.txt of HAProxy): a proxy sends
//! it first on a connection, with the addresses of its client. A pure state machine reads it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::types::address::Address;

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1.
const WORD: &[u8; 6] = b"PROXY ";
/// The longest header of version 1, with CR LF.
const MAX_LINE: usize = 107;
/// The part of version 2 with the length of the rest.
const FIXED: usize = 16;
/// The longest address block of version 2: two paths of Unix sockets.
const MAX_ADDRESSES: usize = 216;
/// The longest header of version 2. Additional values (TLVs) are skipped and not stored.
const MAX_HEADER: usize = 16 * 1024;
/// The number of bytes to look at next. Every header of version 1 fits.
pub(crate) const LOOK: usize = 256;

/// The content of a complete header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proxied {
    /// The connection is the proxy's own (LOCAL), or the proxy does not know its client (UNKNOWN).
    Own,
    /// The connection of a client.
    Client { source: Address, destination: Address },
}

/// The state after some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderState {
    Incomplete,
    Complete(Proxied),
    /// The bytes are no header. The text says why.
    Malformed(&'static str),
}

/// Reads a header byte by byte.
#[derive(Debug, Default, Clone)]
pub(crate) struct HeaderParser {
    /// The start of the header, without the additional values of version 2.
    start: Vec<u8>,
    /// The bytes of the header so far.
    len: usize,
}

impl HeaderParser {
    /// Reads the next bytes. The first number of the result is how many of them belong to the header:
    /// all of them if it is incomplete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> (usize, HeaderState) {
        let mut taken = 0;
        loop {
            let missing = match self.missing() {
                Ok(0) => return (taken, self.complete()),
                Ok(missing) => missing,
                Err(why) => return (taken, HeaderState::Malformed(why)),
            };
            let rest = &bytes[taken..];
            if rest.is_empty() {
                return (taken, HeaderState::Incomplete);
            }
            let now = &rest[..rest.len().min(missing)];
            // A line ends with the first LF.
            let end = now.iter().position(|b| *b == b'\n').filter(|_| self.is_line());
            let now = end.map_or(now, |end| &now[..=end]);
            let room = (FIXED + MAX_ADDRESSES).saturating_sub(self.start.len());
            self.start.extend_from_slice(&now[..now.len().min(room)]);
            self.len += now.len();
            taken += now.len();
        }
    }

    /// Whether the header begins as version 1 does.
    fn is_line(&self) -> bool {
        self.start.starts_with(WORD)
    }

    /// The largest number of bytes that may follow. In version 2 that many certainly follow.
    fn missing(&self) -> Result<usize, &'static str> {
        let start = &self.start[..];
        let is_line = start.starts_with(&WORD[..start.len().min(WORD.len())]);
        if is_line && !start.is_empty() {
            return match start {
                _ if start.ends_with(b"\r\n") => Ok(0),
                _ if start.contains(&b'\n') => Err("a line without CR"),
                _ if start.len() == MAX_LINE => Err("a line of more than 107 bytes"),
                _ if start.len() < WORD.len() => Ok(WORD.len() - start.len()),
                _ => Ok(MAX_LINE - start.len()),
            };
        }
        if !SIGNATURE.starts_with(&start[..start.len().min(SIGNATURE.len())]) {
            return Err("neither version 1 nor version 2 begins so");
        }
        if start.len() < FIXED {
            // One byte decides between the versions.
            return Ok(if start.is_empty() { 1 } else { FIXED - start.len() });
        }
        let total = FIXED + usize::from(u16::from_be_bytes([start[14], start[15]]));
        match start[12] {
            0x20 | 0x21 if total > MAX_HEADER => Err("longer than 16 KiB"),
            0x20 | 0x21 => Ok(total - self.len),
            _ => Err("an unknown version or command"),
        }
    }

    fn complete(&self) -> HeaderState {
        let found = match self.start.strip_prefix(WORD) {
            Some(line) => parse_line(&line[..line.len() - 2]),
            None => parse_block(self.start[12], self.start[13], &self.start[FIXED..], self.len),
        };
        found.map_or_else(HeaderState::Malformed, HeaderState::Complete)
    }
}

/// Parses a line of version 1, after the word PROXY: `TCP4 192.0.2.1 198.51.100.1 56324 443`.
fn parse_line(line: &[u8]) -> Result<Proxied, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "a line that is not ASCII")?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Proxied::Own);
    }
    let words: Vec<_> = words.collect();
    let [source, destination, source_port, destination_port] = words[..] else {
        return Err("a line without two addresses and two ports");
    };
    let ip = |text: &str| -> Result<IpAddr, &'static str> {
        let ip = match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
            _ => return Err("neither TCP4, TCP6 nor UNKNOWN"),
        };
        ip.map_err(|_| "an address that is not of its family")
    };
    let port = |text: &str| -> Result<u16, &'static str> {
        let plain = text == "0" || !text.starts_with(['0', '+']);
        text.parse().ok().filter(|_| plain).ok_or("a port that is not a number up to 65535")
    };
    Ok(Proxied::Client {
        source: SocketAddr::new(ip(source)?, port(source_port)?).into(),
        destination: SocketAddr::new(ip(destination)?, port(destination_port)?).into(),
    })
}

/// Parses the address block of version 2. `total` is the length of the whole header.
fn parse_block(
    command: u8,
    family: u8,
    block: &[u8],
    total: usize,
) -> Result<Proxied, &'static str> {
    if command == 0x20 {
        // The receiver ignores the rest of a LOCAL header, which includes the family.
        return Ok(Proxied::Own);
    }
    let needed = match family {
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => MAX_ADDRESSES,
        0x00..=0x02 | 0x10 | 0x20 | 0x30 => 0,
        _ => return Err("an unknown address family"),
    };
    if total - FIXED < needed {
        return Err("shorter than its addresses");
    }
    let inet = |ip: IpAddr, port: usize| {
        Address::from(SocketAddr::new(ip, u16::from_be_bytes([block[port], block[port + 1]])))
    };
    let v4 = |at: usize| -> IpAddr {
        Ipv4Addr::new(block[at], block[at + 1], block[at + 2], block[at + 3]).into()
    };
    let v6 = |at: usize| -> IpAddr {
        let mut ip = [0; 16];
        ip.copy_from_slice(&block[at..at + 16]);
        Ipv6Addr::from(ip).into()
    };
    let (source, destination) = match family {
        0x11 => (inet(v4(0), 8), inet(v4(4), 10)),
        0x21 => (inet(v6(0), 32), inet(v6(16), 34)),
        0x31 => (unix(&block[..108])?, unix(&block[108..216])?),
        // An unspecified family, or datagrams, which are not what this connection has.
        _ => return Ok(Proxied::Own),
    };
    Ok(Proxied::Client { source, destination })
}

/// The name of a Unix socket in 108 bytes.
fn unix(name: &[u8]) -> Result<Address, &'static str> {
    let end =
        |from: usize| name[from..].iter().position(|b| *b == 0).map_or(name.len(), |n| from + n);
    if name[0] != 0 {
        let path = std::str::from_utf8(&name[..end(0)]).map_err(|_| "a path that is not UTF-8")?;
        return Ok(Address::UnixPath(PathBuf::from(path)));
    }
    match &name[1..end(1)] {
        [] => Ok(Address::UnixUnnamed),
        abstract_name => Ok(Address::UnixAbstract(abstract_name.to_vec())),
    }
}

/// A header of the PROXY protocol that a connection sends first, for
/// [`SocketOptions::proxy_header`](crate::SocketOptions::proxy_header).
///
/// ```
/// use keepsock::ProxyHeader;
/// let client = "192.0.2.1:56324".parse().unwrap();
/// let server = "198.51.100.1:443".parse().unwrap();
/// let header = ProxyHeader::v1(Some((client, server)));
/// assert_eq!(header.as_bytes(), b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n");
/// assert_eq!(ProxyHeader::v1(None).as_bytes(), b"PROXY UNKNOWN\r\n");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader(Vec<u8>);

impl ProxyHeader {
    /// Version 1, a line of text. `addresses` are those of the client: its own and the one that it
    /// connected to. `None`: the connection has no client (UNKNOWN).
    ///
    /// ```
    /// let header = keepsock::ProxyHeader::v1(None);
    /// assert_eq!(header.as_bytes(), b"PROXY UNKNOWN\r\n");
    /// ```
    pub fn v1(addresses: Option<(SocketAddr, SocketAddr)>) -> ProxyHeader {
        let line = match addresses.map(same_family) {
            None => "PROXY UNKNOWN\r\n".to_owned(),
            Some((from, to)) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                let (ports, from, to) = ((from.port(), to.port()), from.ip(), to.ip());
                format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1)
            }
        };
        ProxyHeader(line.into_bytes())
    }

    /// Version 2, which is binary. `addresses` are those of the client: its own and the one that it
    /// connected to. `None`: the connection has no client (LOCAL), as a health check.
    ///
    /// ```
    /// let header = keepsock::ProxyHeader::v2(None);
    /// assert_eq!(header.as_bytes().len(), 16);
    /// ```
    pub fn v2(addresses: Option<(SocketAddr, SocketAddr)>) -> ProxyHeader {
        let mut bytes = SIGNATURE.to_vec();
        match addresses.map(same_family) {
            None => bytes.extend([0x20, 0, 0, 0]),
            Some((from, to)) => {
                let (family, len) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
                bytes.extend([0x21, family, 0, len]);
                for ip in [from.ip(), to.ip()] {
                    match ip {
                        IpAddr::V4(ip) => bytes.extend(ip.octets()),
                        IpAddr::V6(ip) => bytes.extend(ip.octets()),
                    }
                }
                bytes.extend(from.port().to_be_bytes());
                bytes.extend(to.port().to_be_bytes());
            }
        }
        ProxyHeader(bytes)
    }

    /// The bytes of the header.
    ///
    /// ```
    /// let header = keepsock::ProxyHeader::v1(None);
    /// assert_eq!(header.as_bytes(), b"PROXY UNKNOWN\r\n");
    /// ```
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Both addresses as IPv4, or both as IPv6.
fn same_family((from, to): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (wide(from), wide(to)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, destination: &str) -> Proxied {
        let parse = |text: &str| Address::from(text.parse::<SocketAddr>().unwrap());
        Proxied::Client { source: parse(source), destination: parse(destination) }
    }

    /// Feeds a header and bytes after it, split in every way into three parts, or in some ways under
    /// Miri. A parser never takes a byte that follows the header.
    fn check(header: &[u8], expected: &HeaderState) {
        let all: Vec<u8> = [header, b"GET /"].concat();
        let step = if cfg!(miri) { 1 + all.len() / 4 } else { 1 };
        for first in (0..=all.len()).step_by(step) {
            for second in (first..=all.len()).step_by(step) {
                let mut parser = HeaderParser::default();
                let mut taken = 0;
                let mut state = HeaderState::Incomplete;
                for end in [first, second, all.len()] {
                    if state != HeaderState::Incomplete {
                        break;
                    }
                    let (more, now) = parser.feed(&all[taken..end]);
                    taken += more;
                    if now == HeaderState::Incomplete {
                        assert_eq!(taken, end, "a part of the header was not taken");
                    }
                    state = now;
                }
                assert_eq!(&state, expected, "{header:?} {first} {second}");
                if matches!(state, HeaderState::Complete(_)) {
                    assert_eq!(taken, header.len(), "{header:?} {first} {second}");
                }
            }
        }
    }

    fn complete(header: &[u8], proxied: Proxied) {
        check(header, &HeaderState::Complete(proxied));
    }

    fn malformed(header: &[u8], why: &'static str) {
        check(header, &HeaderState::Malformed(why));
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &len, rest].concat()
    }

    /// S1: version 1, in every split.
    #[test]
    fn feed_of_version_1_finds_the_addresses_in_every_split() {
        let four = client("192.0.2.1:56324", "198.51.100.1:443");
        complete(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", four);
        let six = client("[2001:db8::1]:65535", "[::1]:0");
        complete(b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", six);
        let mapped = client("192.0.2.1:1", "192.0.2.2:2");
        complete(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", mapped);
        complete(b"PROXY UNKNOWN\r\n", Proxied::Own);
        complete(b"PROXY UNKNOWN ffff::1 and anything else 1 2\r\n", Proxied::Own);
    }

    #[test]
    fn feed_of_longest_line_succeeds_and_a_longer_one_fails() {
        let line = |len: usize| {
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; len - 16], b"\r\n".to_vec()].concat()
        };
        let feed = |header: &[u8]| HeaderParser::default().feed(header);
        assert_eq!(feed(&line(107)), (107, HeaderState::Complete(Proxied::Own)));
        let why = HeaderState::Malformed("a line of more than 107 bytes");
        assert_eq!(feed(&line(108)), (107, why));
    }

    #[test]
    fn feed_of_wrong_line_fails() {
        let wrong = [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
                "a line without two addresses and two ports",
            ),
            (
                "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
                "a line without two addresses and two ports",
            ),
            ("PROXY TCP4  192.0.2.1 198.51.100.1 1\r\n", "an address that is not of its family"),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", "an address that is not of its family"),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "an address that is not of its family"),
            ("PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n", "an address that is not of its family"),
            ("PROXY UDP4 192.0.2.1 192.0.2.1 1 2\r\n", "neither TCP4, TCP6 nor UNKNOWN"),
            (
                "PROXY TCP4 192.0.2.1 192.0.2.1 65536 2\r\n",
                "a port that is not a number up to 65535",
            ),
            ("PROXY TCP4 192.0.2.1 192.0.2.1 +1 2\r\n", "a port that is not a number up to 65535"),
            ("PROXY TCP4 192.0.2.1 192.0.2.1 01 2\r\n", "a port that is not a number up to 65535"),
            ("PROXY UNKNOWN\n", "a line without CR"),
            ("PROXY \u{fe}\r\n", "neither TCP4, TCP6 nor UNKNOWN"),
        ];
        for (line, why) in wrong {
            if why.starts_with("neither") && line.contains('\u{fe}') {
                malformed(line.as_bytes(), "a line without two addresses and two ports");
                continue;
            }
            malformed(line.as_bytes(), why);
        }
    }

    #[test]
    fn feed_of_wrong_signature_fails_at_the_first_wrong_byte() {
        let why = "neither version 1 nor version 2 begins so";
        for bytes in [b"GET / HTTP/1.1\r\n".as_slice(), b"PROXX ", b"\r\n\r\n\0\r\nQUIT\r", b"\0"] {
            malformed(bytes, why);
        }
        let (taken, _) = HeaderParser::default().feed(b"GET /");
        assert!(taken <= 1);
        malformed(&v2(0x31, 0x11, &[0; 12]), "an unknown version or command");
        malformed(&v2(0x22, 0x11, &[0; 12]), "an unknown version or command");
        malformed(&v2(0x21, 0x41, &[0; 12]), "an unknown address family");
        malformed(&v2(0x21, 0x11, &[0; 11]), "shorter than its addresses");
        malformed(&v2(0x21, 0x21, &[0; 35]), "shorter than its addresses");
        malformed(&v2(0x21, 0x31, &[0; 215]), "shorter than its addresses");
    }

    /// S1: version 2 with additional values, which are skipped.
    #[test]
    fn feed_of_version_2_finds_the_addresses_in_every_split() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        let found = client("192.0.2.1:56324", "198.51.100.1:443");
        complete(&v2(0x21, 0x11, &four), found.clone());
        // A CRC32c that does not match, and a value of three bytes.
        let more = [&four[..], &[3, 0, 4, 1, 2, 3, 4], &[4, 0, 3, 0, 0, 0]].concat();
        complete(&v2(0x21, 0x11, &more), found);
        let six =
            [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0, 1, 0, 2]].concat();
        complete(&v2(0x21, 0x21, &six), client("[2001:db8::1]:1", "[::1]:2"));
        complete(&v2(0x20, 0x11, &four), Proxied::Own);
        complete(&v2(0x20, 0, &[]), Proxied::Own);
        complete(&v2(0x20, 0xff, &four), Proxied::Own);
        complete(&v2(0x21, 0, &[1, 2, 3]), Proxied::Own);
        complete(&v2(0x21, 0x12, &four), Proxied::Own);
    }

    #[test]
    fn feed_of_unix_addresses_finds_the_names() {
        let mut block = [0; 216];
        block[..4].copy_from_slice(b"/run");
        block[108..112].copy_from_slice(b"\0abc");
        let (source, destination) =
            (Address::UnixPath("/run".into()), Address::UnixAbstract(b"abc".to_vec()));
        let header = v2(0x21, 0x31, &block);
        let expected = HeaderState::Complete(Proxied::Client { source, destination });
        assert_eq!(HeaderParser::default().feed(&header), (header.len(), expected));
        let header = v2(0x21, 0x31, &[0; 216]);
        let unnamed = || Address::UnixUnnamed;
        let own = Proxied::Client { source: unnamed(), destination: unnamed() };
        assert_eq!(
            HeaderParser::default().feed(&header),
            (header.len(), HeaderState::Complete(own))
        );
        let full = v2(0x21, 0x31, &[b'p'; 216]);
        let (_, state) = HeaderParser::default().feed(&full);
        let path = || Address::UnixPath("p".repeat(108).into());
        assert_eq!(
            state,
            HeaderState::Complete(Proxied::Client { source: path(), destination: path() })
        );
    }

    #[test]
    fn feed_of_oversized_header_fails_without_storing_it() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0, 1, 0, 2];
        let long = v2(0x21, 0x11, &[&four[..], &[0; 16_384 - FIXED - 12]].concat());
        let mut parser = HeaderParser::default();
        for piece in long.chunks(1000) {
            assert_eq!(parser.feed(piece).0, piece.len());
        }
        assert!(parser.start.capacity() < 1024);
        assert!(matches!(parser.complete(), HeaderState::Complete(Proxied::Client { .. })));
        let longer = v2(0x21, 0x11, &[0; 16_384 - FIXED + 1]);
        assert_eq!(
            HeaderParser::default().feed(&longer),
            (FIXED, HeaderState::Malformed("longer than 16 KiB"))
        );
    }

    #[test]
    fn header_that_is_sent_is_parsed_as_the_same_addresses() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (from, to) in [
            ("192.0.2.1:56324", "198.51.100.1:443"),
            ("[2001:db8::1]:1", "[::1]:65535"),
            ("192.0.2.1:1", "[2001:db8::2]:2"),
        ] {
            let pair = Some((parse(from), parse(to)));
            for header in [ProxyHeader::v1(pair), ProxyHeader::v2(pair)] {
                complete(header.as_bytes(), client(from, to));
            }
        }
        complete(ProxyHeader::v1(None).as_bytes(), Proxied::Own);
        complete(ProxyHeader::v2(None).as_bytes(), Proxied::Own);
    }
}
