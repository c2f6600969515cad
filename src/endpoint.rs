//! Endpoints as text: one syntax for every transport.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::info::Address;

/// Where to connect or listen. One syntax for all transports:
///
/// | text | meaning |
/// |---|---|
/// | `example.com:80` | a host name and a port |
/// | `example.com:http` | a service name in place of the port (`/etc/services`) |
/// | `192.0.2.1:80`, `[2001:db8::1]:80` | an address; IPv6 goes in brackets |
/// | `[fe80::1%eth0]:80` | a link-local address with its zone: interface name or index |
/// | `*:80` | listening only: every local address, IPv4 and IPv6 on one port |
/// | `unix:/run/app.sock` | a Unix socket in the file system |
/// | `unix:@name` | a Unix socket in Linux's abstract namespace |
///
/// Printing an endpoint gives back text that parses to the same endpoint. Text
/// that does not parse is refused with an error that names the offending part.
///
/// ```
/// use keepsock::Endpoint;
/// let endpoint: Endpoint = "[fe80::1%eth0]:80".parse()?;
/// assert_eq!(endpoint.to_string(), "[fe80::1%eth0]:80");
/// let err = "example.com:".parse::<Endpoint>().unwrap_err();
/// assert_eq!(err.to_string(), "endpoint \"example.com:\": empty port");
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(pub(crate) Target);

/// What an endpoint is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Inet { host: Host, port: Port },
    UnixPath(PathBuf),
    UnixAbstract(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// `*`
    Any,
    V4(Ipv4Addr),
    /// The zone is kept as written: only the machine that connects can tell its index.
    V6(Ipv6Addr, Option<String>),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    Number(u16),
    Service(String),
}

impl Endpoint {
    /// The Unix socket at `path`, for paths that are not text (such a path prints
    /// with U+FFFD in place of what is not UTF-8).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEndpoint`] if the path is empty, holds a NUL byte or
    /// is longer than the platform's limit (107 bytes on Linux).
    ///
    /// ```
    /// use keepsock::Endpoint;
    /// assert_eq!(Endpoint::unix("/run/app.sock")?.to_string(), "unix:/run/app.sock");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn unix(path: impl AsRef<Path>) -> Result<Endpoint> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_encoded_bytes();
        let text = format!("unix:{}", path.display());
        check_unix_name(&text, "path", bytes, crate::sys::UNIX_PATH_MAX)?;
        // As text, a leading "@" would mean the abstract namespace.
        if bytes.starts_with(b"@") {
            return Ok(Endpoint(Target::UnixPath(Path::new(".").join(path))));
        }
        Ok(Endpoint(Target::UnixPath(path.to_owned())))
    }

    /// Where a socket with this name is found. One without a name is found nowhere.
    pub(crate) fn of(address: &Address) -> Endpoint {
        match address {
            Address::Inet(a) => (*a).into(),
            Address::UnixPath(path) => Endpoint(Target::UnixPath(path.clone())),
            Address::UnixAbstract(name) => {
                Endpoint(Target::UnixAbstract(String::from_utf8_lossy(name).into_owned()))
            }
            Address::UnixUnnamed => Endpoint(Target::UnixAbstract(String::new())),
        }
    }

    /// The address that is written out in full; none with a zone, which has to be looked up.
    pub(crate) fn plain_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Target::Inet { host: Host::V4(ip), port: Port::Number(port) } => {
                Some(SocketAddr::new(IpAddr::V4(*ip), *port))
            }
            Target::Inet { host: Host::V6(ip, None), port: Port::Number(port) } => {
                Some(SocketAddr::new(IpAddr::V6(*ip), *port))
            }
            _ => None,
        }
    }

    /// The socket address of a numeric endpoint, without asking any resolver.
    pub(crate) fn to_socket_addr(&self) -> Result<SocketAddr> {
        let refuse = |what: &str| {
            Err(Error::new(ErrorKind::InvalidEndpoint, "address").at(self).detail(what.to_owned()))
        };
        match &self.0 {
            Target::Inet { host: Host::V4(ip), port: Port::Number(port) } => {
                Ok(SocketAddr::new(IpAddr::V4(*ip), *port))
            }
            Target::Inet { host: Host::V6(ip, zone), port: Port::Number(port) } => {
                let scope = match zone {
                    None => 0,
                    Some(zone) => match crate::sys::zone_index(zone) {
                        Some(index) => index,
                        None => return refuse(&format!("no such zone: {zone:?}")),
                    },
                };
                Ok(SocketAddr::V6(SocketAddrV6::new(*ip, *port, 0, scope)))
            }
            _ => refuse("not a numeric address and port"),
        }
    }

    /// The port number, if the endpoint has one and it was given as a number.
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
        // What can be nothing else needs no looking at what it is not.
        if let Ok(address) = text.parse::<SocketAddrV4>() {
            return Ok(SocketAddr::V4(address).into());
        }
        if let Some(at) = text.find('\0') {
            return Err(refuse(text, format!("NUL byte at position {at}")));
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            return match rest.strip_prefix('@') {
                Some(name) => {
                    // One byte of the path is the leading NUL that marks it as abstract.
                    let max = crate::sys::UNIX_PATH_MAX;
                    check_unix_name(text, "abstract name", name.as_bytes(), max)?;
                    Ok(Endpoint(Target::UnixAbstract(name.to_owned())))
                }
                None => {
                    let max = crate::sys::UNIX_PATH_MAX;
                    check_unix_name(text, "path", rest.as_bytes(), max)?;
                    Ok(Endpoint(Target::UnixPath(PathBuf::from(rest))))
                }
            };
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
            (parse_v6(text, inside)?, port)
        } else {
            let Some((host, port)) = text.rsplit_once(':') else {
                return Err(refuse(text, "no port: write host:port"));
            };
            if host.contains(':') {
                return Err(refuse(text, "an IPv6 address goes in brackets: [address]:port"));
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

fn check_unix_name(text: &str, part: &str, name: &[u8], max: usize) -> Result<()> {
    if name.is_empty() {
        return Err(refuse(text, format!("empty {part}")));
    }
    if name.contains(&0) {
        return Err(refuse(text, format!("NUL byte in the {part}")));
    }
    if name.len() > max {
        let len = name.len();
        return Err(refuse(text, format!("{part} too long: {len} bytes, at most {max}")));
    }
    Ok(())
}

fn parse_v6(text: &str, inside: &str) -> Result<Host> {
    let (address, zone) = match inside.split_once('%') {
        Some((_, "")) => return Err(refuse(text, "empty zone after \"%\"")),
        Some((address, zone)) => (address, Some(zone.to_owned())),
        None => (inside, None),
    };
    match address.parse() {
        Ok(ip) => Ok(Host::V6(ip, zone)),
        Err(_) => Err(refuse(text, format!("not an IPv6 address: {address:?}"))),
    }
}

fn parse_host(text: &str, host: &str) -> Result<Host> {
    if host.is_empty() {
        return Err(refuse(text, "empty host: write \"*\" to listen on every address"));
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
    // Getaddrinfo would take "127.1" or "0x7f.1" for addresses; whoever wrote
    // four numbers and a mistake wants to hear of the mistake.
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(refuse(text, format!("not an IPv4 address: {host:?}")));
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/[]%@*\"\\".contains(c);
    if let Some(c) = host.chars().find(|c| bad(*c)) {
        return Err(refuse(text, format!("{c:?} in the host")));
    }
    Ok(Host::Name(host.to_owned()))
}

fn parse_port(text: &str, port: &str) -> Result<Port> {
    if port.is_empty() {
        return Err(refuse(text, "empty port"));
    }
    if port.bytes().all(|b| b.is_ascii_digit()) {
        return match port.parse() {
            Ok(n) => Ok(Port::Number(n)),
            Err(_) => Err(refuse(text, format!("port out of range: {port:?}"))),
        };
    }
    // RFC 6335 section 5.1: letters, digits and hyphens, at least one letter.
    // Services files also hold names with "_", "." and "+".
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
                    Host::Name(name) => f.write_str(name)?,
                }
                match port {
                    Port::Number(n) => write!(f, ":{n}"),
                    Port::Service(s) => write!(f, ":{s}"),
                }
            }
            Target::UnixPath(path) => write!(f, "unix:{}", path.display()),
            // A socket that was taken over may have no name; nothing can be bound to that.
            Target::UnixAbstract(name) if name.is_empty() => f.write_str("unix:(unnamed)"),
            Target::UnixAbstract(name) => write!(f, "unix:@{name}"),
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
    /// What is no name that would have to be looked up.
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
            Target::UnixAbstract(name) => Ok(Address::UnixAbstract(name.clone().into_bytes())),
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

    /// S4: printing gives back what parses.
    #[test]
    fn printing_gives_back_what_parses() {
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
            "unix:relative.sock",
            "unix:@abstract",
            "unix:@with:colon",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }

    /// S4: what does not parse is refused with the part that is at fault.
    #[test]
    fn refusals_name_the_part() {
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
            ("::1:80", "brackets"),
            ("[::1:80", "\"[\" without \"]\""),
            ("[::1]", "no port"),
            ("[::1]x:80", "unexpected text after \"]\": \"x:80\""),
            ("[::g]:80", "not an IPv6 address: \"::g\""),
            ("[fe80::1%]:80", "empty zone"),
            ("exa mple.com:80", "' ' in the host"),
            ("http://example.com:80", "a URL is not an endpoint"),
            ("a\0b:80", "NUL byte at position 1"),
            ("unix:", "empty path"),
            ("unix:@", "empty abstract name"),
            ("unix:/a\0b", "NUL byte at position 7"),
            (long.as_str(), "path too long: 201 bytes"),
            (long_host.as_str(), "host too long: 254 bytes"),
        ] {
            let err = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
            assert!(err.to_string().contains(part), "{err}");
        }
        assert_eq!(Endpoint::unix("@name").unwrap().to_string(), "unix:./@name");
        assert!(Endpoint::unix("").is_err());
        assert!(Endpoint::unix("a\0b").is_err());
    }
}
