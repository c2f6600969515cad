//! Binding to an endpoint: the meaning of `*` and of names, for listeners and datagram sockets.

use std::io;
use std::net::SocketAddr;

use crate::sys::SockRef;

use crate::io::wait::Cause;
use crate::sys::{self, Borrowed, Owned};
use crate::types::address::{Family, Unusable, canonical};
use crate::types::endpoint::{Endpoint, Host, Port, Target};
use crate::types::error::{Error, ErrorKind, Result, Stage};

/// A bound socket.
pub(crate) struct BoundInet {
    pub socket: Owned,
    /// The local address, with the port that the system chose.
    pub local: SocketAddr,
    pub endpoint: Endpoint,
    /// The socket accepts IPv4 and IPv6.
    #[cfg(feature = "datagram")]
    pub dual: bool,
    /// The endpoint has port 0, so the system chose the port.
    pub ephemeral_port: bool,
}

pub(crate) type Step<T> = std::result::Result<T, (Stage, Cause)>;

/// Binds to the first address of `found` to which it can bind. `rejects` returns why an address cannot
/// be used. `bind_at` creates and binds the
/// socket; its second argument states whether the socket is to accept both families.
pub(crate) fn bind_first(
    endpoint: &Endpoint,
    found: Vec<SocketAddr>,
    family: Family,
    operation: &'static str,
    rejects: impl Fn(SocketAddr) -> Option<Unusable>,
    bind_at: impl Fn(SocketAddr, bool) -> Step<Owned>,
) -> Result<BoundInet> {
    let any = matches!(&endpoint.0, Target::Inet { host: Host::Any, .. });
    let ephemeral_port = matches!(&endpoint.0, Target::Inet { port: Port::Number(0), .. });
    let bind = |address, dual| -> Step<_> {
        let socket = bind_at(address, dual)?;
        let local = local_of(sys::borrow(&socket)).map_err(|e| (Stage::Bind, Cause::from(e)))?;
        Ok((socket, local))
    };
    let mut failure = None;
    for address in found {
        let dual = any && address.is_ipv6() && family == Family::Any;
        if let Some(why) = rejects(address) {
            let error = Error::new(ErrorKind::InvalidEndpoint, operation).at(endpoint);
            return Err(error.stage(Stage::Bind).detail(why.describe(address.ip())));
        }
        match bind(address, dual) {
            Ok((socket, local)) => {
                // The endpoint of `*` stays `*`, with the port.
                let port = Port::Number(local.port());
                let endpoint = match any {
                    true => Endpoint(Target::Inet { host: Host::Any, port }),
                    false => canonical(local).into(),
                };
                return Ok(BoundInet {
                    socket,
                    local,
                    endpoint,
                    #[cfg(feature = "datagram")]
                    dual,
                    ephemeral_port,
                });
            }
            // IPv4 is tried only on a machine without IPv6. After any other error the server would
            // accept fewer clients than configured.
            Err((stage, cause)) => {
                let code = cause.os_error().map(io::Error::from_raw_os_error);
                let missing = code.is_some_and(|e| sys::is_family_missing(&e));
                let error = bind_error(cause, stage, ephemeral_port, operation, endpoint);
                if !(dual && missing) {
                    return Err(error);
                }
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(ErrorKind::NotFound, operation).at(endpoint)))
}

/// The error of creating and binding a socket. bind(2) to port 0 fails with EADDRINUSE if no local
/// port is free.
pub(crate) fn bind_error(
    cause: Cause,
    stage: Stage,
    ephemeral_port: bool,
    operation: &'static str,
    endpoint: &Endpoint,
) -> Error {
    let why = match cause.kind() {
        _ if stage != Stage::Bind || !cause.detail().is_empty() => None,
        ErrorKind::AddressInUse if ephemeral_port => Some("no free local port"),
        ErrorKind::AddressInUse => {
            Some("another socket is bound to it: choose another port, or end the other program")
        }
        ErrorKind::AddressNotAvailable => Some("no interface of this machine has the address"),
        _ => None,
    };
    let error = cause.into_error(operation).at(endpoint).stage(stage);
    match why {
        Some(why) => error.detail(why),
        None => error,
    }
}

/// Completes the error of binding a Unix socket.
pub(crate) fn at_unix_bind(error: Error, endpoint: &Endpoint) -> Error {
    let has_no_directory = error.kind() == ErrorKind::NotFound && error.reason().is_empty();
    let error = error.at(endpoint).stage(Stage::Bind);
    if has_no_directory {
        return error.detail("the directory of the socket file does not exist");
    }
    error
}

pub(crate) fn local_of(socket: Borrowed<'_>) -> io::Result<SocketAddr> {
    let name = SockRef::from(&socket).local_addr()?;
    name.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// L1: IPv4 is tried only for `*`, and only on a machine without IPv6. So a server never
    /// accepts fewer clients than configured.
    #[test]
    fn bind_first_tries_ipv4_only_without_ipv6() {
        let found = || ["[::]:80", "0.0.0.0:80"].map(|a| a.parse().unwrap()).to_vec();
        let tried = |endpoint: &str, family, code| {
            let tried = RefCell::new(Vec::new());
            let bind_at = |address: SocketAddr, dual| {
                tried.borrow_mut().push((address.is_ipv6(), dual));
                Err((Stage::Bind, Cause::from(io::Error::from_raw_os_error(code))))
            };
            let endpoint = endpoint.parse().unwrap();
            let failed =
                bind_first(&endpoint, found(), family, "test", |_| None, bind_at).err().unwrap();
            assert_eq!(failed.os_error(), Some(code));
            tried.into_inner()
        };
        let (both, first) = ([(true, true), (false, false)], [(true, true)]);
        assert_eq!(tried("*:80", Family::Any, libc::EAFNOSUPPORT), both);
        assert_eq!(tried("*:80", Family::Any, libc::EADDRNOTAVAIL), both);
        assert_eq!(tried("*:80", Family::Any, libc::EADDRINUSE), first);
        assert_eq!(tried("*:80", Family::Ipv6, libc::EAFNOSUPPORT), [(true, false)]);
        assert_eq!(tried("name:80", Family::Any, libc::EADDRNOTAVAIL), [(true, false)]);
        let name = "name:80".parse().unwrap();
        let bind_at = |_, _| panic!("there is no address to bind to");
        let none = bind_first(&name, vec![], Family::Any, "test", |_| None, bind_at);
        assert_eq!(none.err().unwrap().kind(), ErrorKind::NotFound);
    }
}
