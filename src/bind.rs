//! What `*`, and an endpoint of several addresses, mean to a listener and to a datagram socket
//! alike.

use std::io;
use std::net::SocketAddr;

use socket2::{SockRef, Type};

use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::info::{Family, canonical};
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::sys::{self, Borrowed, Owned};
use crate::wait::{Cause, Deadline};

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

/// Binds to the first address that `endpoint` stands for; `bind_at` makes the socket, and is told
/// whether it is to take both families.
pub(crate) fn bind_first(
    endpoint: &Endpoint,
    kind: Type,
    options: &SocketOptions,
    deadline: Deadline,
    operation: &'static str,
    bind_at: impl Fn(SocketAddr, bool) -> Step<Owned>,
) -> Result<BoundInet> {
    let (family, cancel) = (options.family, options.cancel.as_ref());
    let found = resolve(endpoint, kind, family, deadline, cancel, operation)?;
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
