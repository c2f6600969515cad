//! What `*`, and an endpoint of several addresses, mean to a listener and to a datagram socket
//! alike.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;

use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::info::{Family, canonical};
use crate::sys::{self, Borrowed, Owned};
use crate::wait::Cause;

/// A socket that is bound and nobody's yet.
pub(crate) struct BoundInet {
    pub socket: Owned,
    /// With the port that the system has chosen.
    pub local: SocketAddr,
    pub endpoint: Endpoint,
    /// It takes both families.
    pub dual: bool,
    /// The system was to choose the port.
    pub any_port: bool,
}

pub(crate) type Step<T> = std::result::Result<T, (Stage, Cause)>;

/// Binds to the first of the addresses that were found for `endpoint` in that family; `bind_at`
/// makes the socket, and is told whether it is to take both families.
pub(crate) fn bind_first(
    endpoint: &Endpoint,
    found: Vec<SocketAddr>,
    family: Family,
    operation: &'static str,
    bind_at: impl Fn(SocketAddr, bool) -> Step<Owned>,
) -> Result<BoundInet> {
    let any = matches!(&endpoint.0, Target::Inet { host: Host::Any, .. });
    let any_port = matches!(&endpoint.0, Target::Inet { port: Port::Number(0), .. });
    let bind = |address, dual| -> Step<_> {
        let socket = bind_at(address, dual)?;
        let local = local_of(sys::borrow(&socket)).map_err(|e| (Stage::Bind, Cause::from(e)))?;
        Ok((socket, local))
    };
    let mut failure = None;
    for address in found {
        let dual = any && address.is_ipv6() && family == Family::Any;
        match bind(address, dual) {
            Ok((socket, local)) => {
                // `*` stays `*`: that is what it is bound to.
                let port = Port::Number(local.port());
                let endpoint = match any {
                    true => Endpoint(Target::Inet { host: Host::Any, port }),
                    false => canonical(local).into(),
                };
                return Ok(BoundInet { socket, local, endpoint, dual, any_port });
            }
            // Only a machine without IPv6 goes on to IPv4: nothing else may make
            // a server quietly serve less than it was asked to.
            Err((stage, cause)) => {
                let missing = matches!(&cause, Cause::Os(e) if sys::is_family_missing(e));
                let error = cause.into_error(operation).at(endpoint).stage(stage);
                if !(dual && missing) {
                    return Err(error);
                }
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(ErrorKind::NotFound, operation).at(endpoint)))
}

pub(crate) fn local_of(socket: Borrowed<'_>) -> io::Result<SocketAddr> {
    let name = SockRef::from(&socket).local_addr()?;
    name.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// L1: only `*` goes on to IPv4, and only where there is no IPv6: nobody is to serve less than
    /// he was asked to.
    #[test]
    fn a_second_address_is_for_machines_without_ipv6() {
        let found = || ["[::]:80", "0.0.0.0:80"].map(|a| a.parse().unwrap()).to_vec();
        let tried = |endpoint: &str, family, code| {
            let tried = RefCell::new(Vec::new());
            let bind_at = |address: SocketAddr, dual| {
                tried.borrow_mut().push((address.is_ipv6(), dual));
                Err((Stage::Bind, Cause::from(io::Error::from_raw_os_error(code))))
            };
            let endpoint = endpoint.parse().unwrap();
            let failed = bind_first(&endpoint, found(), family, "test", bind_at).err().unwrap();
            assert_eq!(failed.os_error(), Some(code));
            tried.into_inner()
        };
        let (both, first) = ([(true, true), (false, false)], [(true, true)]);
        assert_eq!(tried("*:80", Family::Any, libc::EAFNOSUPPORT), both);
        assert_eq!(tried("*:80", Family::Any, libc::EADDRNOTAVAIL), both);
        assert_eq!(tried("*:80", Family::Any, libc::EADDRINUSE), first);
        assert_eq!(tried("*:80", Family::Ipv6, libc::EAFNOSUPPORT), [(true, false)]);
        assert_eq!(tried("name:80", Family::Any, libc::EADDRNOTAVAIL), [(true, false)]);
        let none = bind_first(&"name:80".parse().unwrap(), vec![], Family::Any, "test", |_, _| {
            panic!("there is nothing to bind to")
        });
        assert_eq!(none.err().unwrap().kind(), ErrorKind::NotFound);
    }
}
