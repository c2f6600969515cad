//! Endpoints: one syntax for all transports, its parser and its display. No I/O.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::types::address::{Address, canonical};
use crate::types::error::{EMPTY_HOST, Error, ErrorKind, Result};
use crate::types::escape::{Escaped, UNNAMED, escaped, is_deceptive, unescaped};

/// An endpoint to connect to or to listen on. The syntax is the same for all transports:
///
/// | text | meaning |
/// |---|---|
/// | `example.com:80` | a host name and a port |
/// | `example.com:http` | a service name in place of the port (`/etc/services`) |
/// | `192.0.2.1:80`, `[2001:db8::1]:80` | an address; IPv6 goes in brackets |
/// | `[fe80::1%eth0]:80` | a link-local address with its zone: interface name or index |
/// | `[unix]:80` | the host named `unix`, which without brackets starts a path |
/// | `*:80` | listening only: every local address, IPv4 and IPv6 on one port |
/// | `unix:/run/app.sock` | a Unix socket in the file system |
/// | `unix:@name` | a Unix socket in Linux's abstract namespace |
///
/// `localhost` and names that end in `.localhost` resolve to the loopback addresses without a
/// lookup (RFC 6761 section 6.3). A listener binds to `::1`. It binds to `127.0.0.1` if the machine
/// has no IPv6 or [`family`](crate::SocketOptions::family) is IPv4.
///
/// In the path or name of a Unix socket, `\xNN` stands for the byte with that hexadecimal number
/// and `\\` for a backslash. So control characters and bytes that are not UTF-8 can be written.
/// `unix:\x40name` is the relative path `@name`.
///
/// An endpoint displays as text that parses to the same endpoint. Text with a syntax error is
/// rejected with an error that contains the faulty part.
///
/// ```
/// use keepsock::Endpoint;
/// let endpoint: Endpoint = "[fe80::1%eth0]:80".parse()?;
/// assert_eq!(endpoint.to_string(), "[fe80::1%eth0]:80");
/// let err = "example.com:".parse::<Endpoint>().unwrap_err();
/// assert_eq!(err.to_string(), "endpoint \"example.com:\": empty port: write host:port");
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(pub(crate) Target);

/// The host name that needs brackets, because `unix:80` is a path.
const UNIX: &str = "unix";

/// The longest path of a Unix socket, in bytes. Linux accepts a path that fills sun_path without a
/// final NUL (unix(7), "Pathname sockets").
pub(crate) const UNIX_PATH_MAX: usize = match () {
    () if cfg!(keepsock_linux) => 108,
    () if cfg!(windows) => 107,
    () => 103,
};
/// The longest name in the abstract namespace, in bytes: sun_path without the leading NUL.
pub(crate) const UNIX_ABSTRACT_MAX: usize = 107;

/// The parts of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Inet {
        host: Host,
        port: Port,
    },
    UnixPath(PathBuf),
    /// Linux permits every byte in an abstract name.
    UnixAbstract(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// `*`
    Any,
    V4(Ipv4Addr),
    /// The zone is kept as text, because its index depends on the machine.
    V6(Ipv6Addr, Option<String>),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    Number(u16),
    Service(String),
}

impl Endpoint {
    /// Creates the endpoint of the Unix socket at `path`. Use it for paths that are not text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEndpoint`]: the path is empty, contains a NUL byte, or is longer than
    /// the limit of the platform (108 bytes on Linux).
    ///
    /// ```
    /// use keepsock::Endpoint;
    /// assert_eq!(Endpoint::unix("/run/app.sock")?.to_string(), "unix:/run/app.sock");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn unix(path: impl AsRef<Path>) -> Result<Endpoint> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_encoded_bytes();
        let text = format!("unix:{}", escaped(path));
        if bytes.contains(&0) {
            return Err(refuse(&text, "NUL byte in the path"));
        }
        // In text, a leading "@" means the abstract namespace.
        let path = if bytes.starts_with(b"@") { &below_this_directory(path) } else { path };
        let bytes = path.as_os_str().as_encoded_bytes();
        check_unix_name(&text, "path", bytes, UNIX_PATH_MAX)?;
        Ok(Endpoint(Target::UnixPath(path.to_owned())))
    }

    /// Creates the endpoint of a separate host and port. The host is a name, an IPv4 address, or an
    /// IPv6 address with or without brackets and zone. It has no other meaning: `unix` is a host
    /// name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEndpoint`]: the host is not a valid name or address.
    ///
    /// ```
    /// use keepsock::Endpoint;
    /// assert_eq!(Endpoint::from_host_port("::1", 80)?.to_string(), "[::1]:80");
    /// assert_eq!(Endpoint::from_host_port("unix", 80)?.to_string(), "[unix]:80");
    /// let err = Endpoint::from_host_port("example.com:80", 80).unwrap_err();
    /// assert!(err.to_string().ends_with("':' in the host: pass the port as a separate argument"));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn from_host_port(host: &str, port: u16) -> Result<Endpoint> {
        if let Some(at) = host.find('\0') {
            return Err(refuse(host, format!("NUL byte at position {at}")));
        }
        let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_v6 = host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        let parsed = match inside {
            Some(inside) => parse_v6(host, inside)?,
            None if is_v6 => parse_v6(host, host)?,
            None if host.contains(':') => {
                return Err(refuse(host, "':' in the host: pass the port as a separate argument"));
            }
            None => parse_host(host, host)?,
        };
        Ok(Endpoint(Target::Inet { host: parsed, port: Port::Number(port) }))
    }

    /// Whether the endpoint needs no lookup.
    pub(crate) fn is_numeric(&self) -> bool {
        match &self.0 {
            Target::Inet { host, port } => {
                !matches!(host, Host::Name(_)) && matches!(port, Port::Number(_))
            }
            Target::UnixPath(_) | Target::UnixAbstract(_) => true,
        }
    }

    /// The endpoint at which a socket with this address is reached. An unnamed socket cannot be
    /// reached.
    pub(crate) fn of(address: &Address) -> Endpoint {
        match address {
            Address::Inet(a) => (*a).into(),
            Address::UnixPath(path) => Endpoint(Target::UnixPath(path.clone())),
            Address::UnixAbstract(name) => Endpoint(Target::UnixAbstract(name.clone())),
            Address::UnixUnnamed => Endpoint(Target::UnixAbstract(Vec::new())),
        }
    }

    /// Returns the address of a numeric endpoint; `None` for other endpoints, and for an address
    /// with a zone, which needs a lookup.
    pub(crate) fn plain_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Target::Inet { host: Host::V4(ip), port: Port::Number(port) } => {
                Some(SocketAddr::new(IpAddr::V4(*ip), *port))
            }
            Target::Inet { host: Host::V6(ip, None), port: Port::Number(port) } => {
                Some(canonical(SocketAddr::new(IpAddr::V6(*ip), *port)))
            }
            _ => None,
        }
    }

    /// Returns the port, if the endpoint has a numeric port.
    ///
    /// ```
    /// let endpoint: keepsock::Endpoint = "example.com:80".parse()?;
    /// assert_eq!(endpoint.port(), Some(80));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            Target::Inet { port: Port::Number(n), .. } => Some(*n),
            _ => None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Endpoint> {
        // The most common form is tested first.
        if let Ok(address) = text.parse::<SocketAddrV4>() {
            return Ok(SocketAddr::V4(address).into());
        }
        if let Some(at) = text.find('\0') {
            return Err(refuse(text, format!("NUL byte at position {at}")));
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            return match rest.strip_prefix('@') {
                Some(name) => {
                    let max = UNIX_ABSTRACT_MAX;
                    let name = parse_unix_name(text, "abstract name", name, max)?;
                    Ok(Endpoint(Target::UnixAbstract(name)))
                }
                None if rest == UNNAMED => {
                    Err(refuse(text, "a socket without a name has no endpoint".to_owned()))
                }
                None => {
                    let max = UNIX_PATH_MAX;
                    let path = parse_unix_name(text, "path", rest, max)?;
                    if path.contains(&0) {
                        return Err(refuse(text, "NUL byte in the path"));
                    }
                    Ok(Endpoint(Target::UnixPath(path_of(path))))
                }
            };
        }
        if ["/", "./", "../", "@"].iter().any(|start| text.starts_with(start)) {
            let what = format!("for a Unix socket write unix:{}", text.escape_debug());
            return Err(refuse(text, what));
        }
        if text.contains("://") {
            return Err(refuse(text, "a URL is not an endpoint: write host:port"));
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let Some((inside, after)) = rest.split_once(']') else {
                return Err(refuse(text, "\"[\" without \"]\""));
            };
            let Some(port) = after.strip_prefix(':') else {
                let what = if after.is_empty() {
                    "no port: write [address]:port".to_owned()
                } else {
                    format!("unexpected text after \"]\": {after:?}")
                };
                return Err(refuse(text, what));
            };
            let host = match inside {
                UNIX => Host::Name(inside.to_owned()),
                _ => parse_v6(text, inside)?,
            };
            (host, port)
        } else {
            let Some((host, port)) = text.rsplit_once(':') else {
                return Err(refuse(text, "no port: write host:port"));
            };
            if host.contains(':') {
                return Err(refuse(text, too_many_colons(text, host)));
            }
            (parse_host(text, host)?, port)
        };
        let port = parse_port(text, port)?;
        Ok(Endpoint(Target::Inet { host, port }))
    }
}

fn refuse(text: &str, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidEndpoint, "endpoint").at(text).detail(what)
}

/// The path with a leading `./`, on every system: `Path::join` on Windows adds a backslash.
fn below_this_directory(path: &Path) -> PathBuf {
    let mut below = OsString::from("./");
    below.push(path);
    below.into()
}

fn check_unix_name(text: &str, part: &str, name: &[u8], max: usize) -> Result<()> {
    if name.is_empty() {
        return Err(refuse(text, format!("empty {part}")));
    }
    if name.len() > max {
        let len = name.len();
        return Err(refuse(text, format!("{part} too long: {len} bytes, at most {max}")));
    }
    Ok(())
}

fn parse_unix_name(text: &str, part: &str, name: &str, max: usize) -> Result<Vec<u8>> {
    let name = unescaped(name).map_err(|escape| {
        refuse(text, format!("{escape:?} in the {part}: write \\\\ for a backslash"))
    })?;
    check_unix_name(text, part, &name, max)?;
    Ok(name)
}

#[cfg(unix)]
pub(crate) fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
pub(crate) fn path_of(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

fn parse_v6(text: &str, inside: &str) -> Result<Host> {
    let (address, zone) = match inside.split_once('%') {
        Some((_, "")) => {
            return Err(refuse(text, "empty zone after \"%\": write the name of an interface"));
        }
        Some((address, zone)) => (address, Some(zone.to_owned())),
        None => (inside, None),
    };
    // No interface has such a name. A bracket would end the address in the text of the endpoint.
    let bad = |c: char| c.is_whitespace() || is_deceptive(c) || "/[]".contains(c);
    if let Some(c) = zone.as_deref().and_then(|zone| zone.chars().find(|c| bad(*c))) {
        let what = format!("{c:?} in the zone: write the name or the index of an interface");
        return Err(refuse(text, what));
    }
    match address.parse() {
        Ok(ip) => Ok(Host::V6(ip, zone)),
        Err(_) => Err(refuse(text, format!("not an IPv6 address: {address:?}"))),
    }
}

/// The text of an error about a host with a colon and without brackets.
fn too_many_colons(text: &str, host: &str) -> String {
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    fn without_zone(text: &str) -> &str {
        text.split('%').next().unwrap_or(text)
    }
    let address = without_zone(host);
    // An address without a port: "::1". With a port: "::1:80", "fe80::1%eth0:80", and an address that
    // embeds IPv4: "::ffff:192.0.2.1:80".
    let is_ipv6 = is_address(without_zone(text))
        || is_address(address)
        || address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
            && address.matches(':').count() > 1;
    match is_ipv6 {
        true => "an IPv6 address goes in brackets: [address]:port".to_owned(),
        false => format!("':' in the host: {host:?}: write host:port"),
    }
}

fn parse_host(text: &str, host: &str) -> Result<Host> {
    if host.is_empty() {
        return Err(refuse(text, EMPTY_HOST));
    }
    if host == "*" {
        return Ok(Host::Any);
    }
    if let Ok(ip) = host.parse() {
        return Ok(Host::V4(ip));
    }
    if host.len() > 253 {
        return Err(refuse(text, format!("host too long: {} bytes, at most 253", host.len())));
    }
    // getaddrinfo(3) accepts "127.1", "0x7f.1" and "0" as addresses (inet_aton(3)). Numbers that
    // are not a complete address are a mistake.
    if host.split('.').all(is_number) {
        let what = format!("not an IPv4 address: {host:?}: write four decimal numbers");
        return Err(refuse(text, what));
    }
    if host.strip_suffix('.').unwrap_or(host).split('.').any(str::is_empty) {
        return Err(refuse(text, format!("empty label in the host: {host:?}")));
    }
    let bad = |c: char| c.is_whitespace() || is_deceptive(c) || "/[]%@*\"\\".contains(c);
    if let Some(c) = host.chars().find(|c| bad(*c)) {
        let what = format!("{c:?} in the host: write a host name or an address");
        return Err(refuse(text, what));
    }
    Ok(Host::Name(host.to_owned()))
}

/// Whether inet_aton(3) accepts a part of a host as a number: decimal, octal or hexadecimal.
fn is_number(part: &str) -> bool {
    match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => part.bytes().all(|b| b.is_ascii_digit()),
    }
}

fn parse_port(text: &str, port: &str) -> Result<Port> {
    if port.is_empty() {
        return Err(refuse(text, "empty port: write host:port"));
    }
    if port.bytes().all(|b| b.is_ascii_digit()) {
        return match port.parse() {
            Ok(n) => Ok(Port::Number(n)),
            Err(_) => {
                Err(refuse(text, format!("port out of range: {port:?}: the largest port is 65535")))
            }
        };
    }
    // RFC 6335 section 5.1: letters, digits and hyphens, at least one letter.
    // Service files also contain names with "_", "." and "+".
    let service = |b: u8| b.is_ascii_alphanumeric() || b"-_.+".contains(&b);
    if port.as_bytes()[0].is_ascii_alphabetic() && port.bytes().all(service) {
        return Ok(Port::Service(port.to_owned()));
    }
    Err(refuse(text, format!("neither a port number nor a service name: {port:?}")))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::Inet { host, port } => {
                match host {
                    Host::Any => f.write_str("*")?,
                    Host::V4(ip) => write!(f, "{ip}")?,
                    Host::V6(ip, None) => write!(f, "[{ip}]")?,
                    Host::V6(ip, Some(zone)) => write!(f, "[{ip}%{zone}]")?,
                    Host::Name(name) if name == UNIX => write!(f, "[{name}]")?,
                    Host::Name(name) => f.write_str(name)?,
                }
                match port {
                    Port::Number(n) => write!(f, ":{n}"),
                    Port::Service(s) => write!(f, ":{s}"),
                }
            }
            Target::UnixPath(path) => write!(f, "unix:{}", escaped(path)),
            // An adopted socket may have no name. No socket can be bound to this endpoint.
            Target::UnixAbstract(name) if name.is_empty() => write!(f, "unix:{UNNAMED}"),
            Target::UnixAbstract(name) => write!(f, "unix:@{}", Escaped(name)),
        }
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = Error;
    fn try_from(text: &str) -> Result<Endpoint> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = Error;
    fn try_from(text: &String) -> Result<Endpoint> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;
    fn try_from(text: String) -> Result<Endpoint> {
        text.parse()
    }
}

impl From<&Endpoint> for Endpoint {
    fn from(endpoint: &Endpoint) -> Endpoint {
        endpoint.clone()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        let host = match address {
            SocketAddr::V4(a) => Host::V4(*a.ip()),
            SocketAddr::V6(a) => {
                let zone = (a.scope_id() != 0).then(|| a.scope_id().to_string());
                Host::V6(*a.ip(), zone)
            }
        };
        Endpoint(Target::Inet { host, port: Port::Number(address.port()) })
    }
}

impl TryFrom<&Endpoint> for Address {
    type Error = Error;
    /// Converts an endpoint that needs no lookup. Fails for names.
    ///
    /// ```
    /// use keepsock::{Address, Endpoint};
    /// let endpoint: Endpoint = "unix:/run/app.sock".parse()?;
    /// assert_eq!(Address::try_from(&endpoint)?, Address::UnixPath("/run/app.sock".into()));
    /// assert!(Address::try_from(&"example.com:80".parse::<Endpoint>()?).is_err());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    fn try_from(endpoint: &Endpoint) -> Result<Address> {
        match &endpoint.0 {
            Target::Inet { .. } => endpoint.to_socket_addr().map(Address::Inet),
            Target::UnixPath(path) => Ok(Address::UnixPath(path.clone())),
            Target::UnixAbstract(name) => Ok(Address::UnixAbstract(name.clone())),
        }
    }
}

impl From<(IpAddr, u16)> for Endpoint {
    fn from((ip, port): (IpAddr, u16)) -> Endpoint {
        SocketAddr::new(ip, port).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S4: an endpoint displays as the text that it was parsed from.
    #[test]
    fn display_is_inverse_of_parse() {
        for text in [
            "example.com:80",
            "example.com:http",
            "localhost:0",
            "192.0.2.1:80",
            "[::1]:65535",
            "[fe80::1%eth0]:80",
            "[fe80::1%3]:80",
            "*:80",
            "xn--bcher-kva.example:443",
            "bücher.example:443",
            "unix:/run/app.sock",
            r"unix:\x28unnamed)",
            "unix:./(unnamed)",
            "unix:relative.sock",
            "unix:@abstract",
            "unix:@with:colon",
            r"unix:@a\x0ab\x00\xff",
            r"unix:/run/back\\slash\x1b",
            r"unix:\x40at",
            "unix:./@at",
            "[unix]:80",
            "0xbeef.example:80",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }

    /// C7: which endpoints need no lookup, and their addresses and ports.
    #[test]
    fn numeric_endpoint_has_an_address_and_a_port() {
        for (text, is_numeric, address, port) in [
            ("192.0.2.1:80", true, Some("192.0.2.1:80"), Some(80)),
            ("[2001:db8::1]:0", true, Some("[2001:db8::1]:0"), Some(0)),
            ("[fe80::1%3]:80", true, None, Some(80)),
            ("*:8080", true, None, Some(8080)),
            ("192.0.2.1:http", false, None, None),
            ("example.com:80", false, None, Some(80)),
            ("example.com:http", false, None, None),
            ("unix:/run/app.sock", true, None, None),
            ("unix:@name", true, None, None),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            let found = endpoint.plain_address().map(|address| address.to_string());
            assert_eq!(
                (endpoint.is_numeric(), found.as_deref(), endpoint.port()),
                (is_numeric, address, port),
                "{text}"
            );
        }
    }

    /// S4: the address of a socket is an endpoint, with the zone of a link-local address.
    #[test]
    fn endpoint_of_an_address_displays_it() {
        let ip = "fe80::1".parse().unwrap();
        let of =
            |zone| Endpoint::from(SocketAddr::from(std::net::SocketAddrV6::new(ip, 80, 0, zone)));
        assert_eq!(of(3).to_string(), "[fe80::1%3]:80");
        assert_eq!(of(0).to_string(), "[fe80::1]:80");
        assert_eq!(Endpoint::of(&Address::UnixUnnamed).to_string(), "unix:(unnamed)");
    }

    /// S4: the longest host, path and name.
    #[test]
    fn names_have_a_greatest_length() {
        let expected = if cfg!(keepsock_linux) {
            108
        } else if cfg!(windows) {
            107
        } else {
            103
        };
        assert!(format!("{}:80", "x".repeat(253)).parse::<Endpoint>().is_ok());
        for (start, max) in [("unix:/", expected - 1), ("unix:@", 107)] {
            let text = |len| format!("{start}{}", "a".repeat(len));
            assert!(text(max).parse::<Endpoint>().is_ok(), "{start}");
            assert!(text(max + 1).parse::<Endpoint>().is_err(), "{start}");
        }
    }

    /// S4: a separate host never changes its meaning, and the endpoint displays as text that parses
    /// to the same endpoint.
    #[test]
    fn from_host_port_keeps_the_meaning_of_the_host() {
        for (host, text) in [
            ("example.com", "example.com:80"),
            ("unix", "[unix]:80"),
            ("127.0.0.1", "127.0.0.1:80"),
            ("::1", "[::1]:80"),
            ("[::1]", "[::1]:80"),
            ("fe80::1%eth0", "[fe80::1%eth0]:80"),
            ("[fe80::1%eth0]", "[fe80::1%eth0]:80"),
            ("*", "*:80"),
        ] {
            let endpoint = Endpoint::from_host_port(host, 80).unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(text.parse::<Endpoint>().unwrap(), endpoint);
        }
    }

    /// S4: the error of a rejected text contains the faulty part.
    #[test]
    fn parse_error_contains_the_faulty_part() {
        let long = format!("unix:/{}", "x".repeat(200));
        let long_host = format!("{}:80", "x".repeat(254));
        for (text, part) in [
            ("", "no port"),
            ("example.com", "no port"),
            (":80", "empty host"),
            ("example.com:", "empty port"),
            ("example.com:65536", "port out of range: \"65536\""),
            ("example.com:-1", "neither a port number nor a service name: \"-1\""),
            ("example.com:80 ", "\"80 \""),
            ("example.com:80x", "\"80x\""),
            ("127.0.0.1.5:80", "not an IPv4 address: \"127.0.0.1.5\""),
            ("256.0.0.1:80", "not an IPv4 address: \"256.0.0.1\""),
            ("127.1:80", "not an IPv4 address: \"127.1\": write four decimal numbers"),
            ("0:80", "not an IPv4 address: \"0\""),
            ("0x7f.1:80", "not an IPv4 address: \"0x7f.1\""),
            ("0X7F000001:80", "not an IPv4 address: \"0X7F000001\""),
            ("0177.0.0.1:80", "not an IPv4 address: \"0177.0.0.1\""),
            ("127.0.0x1:80", "not an IPv4 address: \"127.0.0x1\""),
            ("[host]:80", "not an IPv6 address: \"host\""),
            ("::1:80", "brackets"),
            ("[::1:80", "\"[\" without \"]\""),
            ("[::1]", "no port"),
            ("[::1]x:80", "unexpected text after \"]\": \"x:80\""),
            ("[::g]:80", "not an IPv6 address: \"::g\""),
            ("[fe80::1%]:80", "empty zone"),
            ("[fe80::1%e h]:80", "' ' in the zone"),
            ("[fe80::1%e/h]:80", "'/' in the zone"),
            ("[fe80::1%\u{202e}]:80", "'\\u{202e}' in the zone"),
            ("::1", "brackets"),
            ("fe80::1%eth0", "brackets"),
            ("fe80::1%eth0:80", "brackets"),
            ("::ffff:192.0.2.1:80", "brackets"),
            ("a:b:c:80", "brackets"),
            ("a:b:80", "':' in the host: \"a:b\""),
            ("g:a:b:80", "':' in the host: \"g:a:b\""),
            ("exa mple.com:80", "' ' in the host"),
            ("http://example.com:80", "a URL is not an endpoint"),
            ("/tmp/x", "write unix:/tmp/x"),
            ("unix:(unnamed)", "a socket without a name has no endpoint"),
            ("./x", "write unix:./x"),
            ("../x:1", "write unix:../x:1"),
            ("@abs", "write unix:@abs"),
            ("a\0b:80", "NUL byte at position 1"),
            ("unix:", "empty path"),
            ("unix:@", "empty abstract name"),
            (r"unix:C:\name", r#""\\nam" in the path: write \\ for a backslash"#),
            (r"unix:@\x4", r#""\\x4" in the abstract name"#),
            (r"unix:/a\x00", "NUL byte in the path"),
            ("unix:/a\0b", "NUL byte at position 7"),
            (long.as_str(), "path too long: 201 bytes"),
            (long_host.as_str(), "host too long: 254 bytes"),
        ] {
            let err = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
            assert!(err.to_string().contains(part), "{err}");
        }
        for (host, part) in [
            ("", "empty host"),
            ("0x7f.1", "not an IPv4 address: \"0x7f.1\""),
            ("example.com:80", "':' in the host"),
            ("unix:/path", "':' in the host"),
            ("a/b", "'/' in the host"),
            ("fe80::1%", "empty zone"),
            ("[fe80::g]", "not an IPv6 address: \"fe80::g\""),
            ("[unix]", "not an IPv6 address: \"unix\""),
            ("a\0b", "NUL byte at position 1"),
        ] {
            let err = Endpoint::from_host_port(host, 80).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
            assert!(err.to_string().contains(part), "{err}");
        }
        assert_eq!(Endpoint::unix("@name").unwrap().to_string(), "unix:./@name");
        assert!(Endpoint::unix("").is_err());
        assert!(Endpoint::unix("a\0b").is_err());
    }
}
