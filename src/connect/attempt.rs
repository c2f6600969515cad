//! One connection attempt to one address.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, SockAddr, SockRef};

use super::{Candidate, Connected, Failure};
use crate::error::{ErrorKind, Stage};
use crate::info::Address;
use crate::options::SocketOptions;
use crate::sys::{self, Borrowed, Owned};

/// What holds for every attempt of one connect.
pub(super) struct Setting<'a> {
    pub options: &'a SocketOptions,
    pub local: Option<&'a [SocketAddr]>,
    /// There is no other address that this attempt is racing.
    pub alone: bool,
}

/// A socket whose handshake has ended.
pub(super) struct Opened {
    socket: Owned,
    /// Another socket is at the other end; else that is not known yet.
    by_another: bool,
}

/// How an attempt began.
pub(super) enum Begun {
    Connected(Opened),
    /// The SYN is out; the socket becomes writable when the handshake has ended.
    UnderWay(Owned),
    /// The queue of a Unix listener is full: [`connect_unix`] again, later.
    Busy(Owned),
}

/// Makes a socket and sends its SYN. Whatever fails, no descriptor is left.
pub(super) fn begin(candidate: &Candidate, setting: &Setting<'_>) -> Result<Begun, Failure> {
    let at = |stage| move |cause: io::Error| Failure(stage, cause.into());
    let socket = if setting.options.sequenced {
        sys::packet_socket()
    } else {
        sys::stream_socket(candidate.domain, setting.options.mptcp)
    };
    let socket = socket.map_err(at(Stage::Socket))?;
    let borrowed = sys::borrow(&socket);
    if candidate.domain == Domain::UNIX {
        return connect_unix(socket, &candidate.name);
    }
    let ipv6 = candidate.domain == Domain::IPV6;
    setting.options.apply_tcp(borrowed, ipv6).map_err(|cause| Failure(Stage::Options, cause))?;
    if setting.options.fast_open && setting.alone {
        sys::fast_open_connect(borrowed).map_err(at(Stage::Options))?;
    }
    if let Some(local) = setting.local {
        let Some(from) = local.iter().find(|a| a.is_ipv6() == ipv6) else {
            return Err(Failure(Stage::Bind, ErrorKind::AddressNotAvailable.into()));
        };
        if from.port() != 0 {
            // The attempts of a race are bound to the same port.
            sys::share_port(borrowed).map_err(at(Stage::Options))?;
        }
        SockRef::from(&borrowed).bind(&SockAddr::from(*from)).map_err(at(Stage::Bind))?;
    }
    match sys::connect(borrowed, &candidate.name) {
        Ok(true) => Ok(Begun::Connected(Opened { socket, by_another: false })),
        // Linux says EINPROGRESS though the answer has come by loopback within the call.
        Ok(false) if candidate.is_loopback() && sys::is_answered_by_another(borrowed) => {
            Ok(Begun::Connected(Opened { socket, by_another: true }))
        }
        Ok(false) => Ok(Begun::UnderWay(socket)),
        // A shared port is refused only here: this connection exists already.
        Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable && has_port(setting) => {
            Err(Failure(Stage::Bind, ErrorKind::AddressInUse.into()))
        }
        Err(e) => Err(Failure(Stage::Connect, e.into())),
    }
}

fn has_port(setting: &Setting<'_>) -> bool {
    setting.local.is_some_and(|local| local.iter().any(|address| address.port() != 0))
}

/// A Unix socket connects at once or not at all. But unix(7): a listener whose queue is full
/// gives EAGAIN, and nothing to poll for.
pub(super) fn connect_unix(socket: Owned, to: &SockAddr) -> Result<Begun, Failure> {
    match sys::connect(sys::borrow(&socket), to) {
        Ok(_) => Ok(Begun::Connected(Opened { socket, by_another: true })),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Begun::Busy(socket)),
        Err(e) => Err(Failure(Stage::Connect, e.into())),
    }
}

/// How the handshake of a socket that became writable ended: connect(2) puts it
/// into SO_ERROR.
pub(super) fn result(socket: Owned) -> Result<Opened, Failure> {
    if sys::is_answered_by_another(sys::borrow(&socket)) {
        return Ok(Opened { socket, by_another: true });
    }
    match SockRef::from(&socket).take_error() {
        Ok(None) => Ok(Opened { socket, by_another: false }),
        Ok(Some(e)) | Err(e) => Err(Failure(Stage::Connect, e.into())),
    }
}

/// Makes a connected socket ready for use.
pub(super) fn finish(
    Opened { socket, by_another }: Opened,
    candidate: &Candidate,
    setting: &Setting<'_>,
) -> Result<Connected, Failure> {
    let at = |stage| move |cause: io::Error| Failure(stage, cause.into());
    let borrowed = sys::borrow(&socket);
    let remote = if candidate.address.is_wildcard() {
        // Linux takes 0.0.0.0 and :: for this machine.
        sys::to_address(&SockRef::from(&borrowed).peer_addr().map_err(at(Stage::Connect))?)
    } else {
        candidate.address.clone()
    };
    if candidate.domain != Domain::UNIX {
        let applied = setting.options.apply_dead_after(borrowed);
        applied.map_err(|cause| Failure(Stage::Options, cause))?;
    }
    if by_another {
        return Ok(Connected { socket, local: None, remote });
    }
    let local = own_address(borrowed, &remote, setting).map_err(at(Stage::Connect))?;
    if local.as_ref() == Some(&remote) {
        // A port of the ephemeral range that nobody listens on may be chosen as
        // our own: TCP's simultaneous open (RFC 9293 section 3.5) then joins the
        // socket to itself. Nobody is there: that is a refusal.
        return Err(Failure(Stage::Connect, ErrorKind::Refused.into()));
    }
    Ok(Connected { socket, local, remote })
}

/// The local address, if it might be the peer's too: ports below 1024 are not
/// given to clients that did not ask for them.
fn own_address(
    socket: Borrowed<'_>,
    remote: &Address,
    setting: &Setting<'_>,
) -> io::Result<Option<Address>> {
    let possible = remote.port() >= 1024 || setting.local.is_some();
    if !possible || !matches!(remote, Address::Inet(_)) {
        return Ok(None);
    }
    Ok(Some(sys::to_address(&SockRef::from(&socket).local_addr()?)))
}

#[cfg(all(test, target_os = "linux"))]
// Clippy's leave for tests is for test functions, not for what they call.
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wait::Deadline;
    use std::net::TcpListener;
    use std::time::Duration;

    fn connected(from: &SockAddr, to: &SockAddr) -> Owned {
        let socket = sys::stream_socket(Domain::IPV4, false).unwrap();
        SockRef::from(&socket).bind(from).unwrap();
        if !sys::connect(sys::borrow(&socket), to).unwrap() {
            let deadline = Deadline::after(Some(Duration::from_secs(5)));
            let found = crate::wait::wait_writable(&[sys::borrow(&socket)], None, deadline, None);
            assert_eq!(found.unwrap(), Some(0));
        }
        assert!(SockRef::from(&socket).take_error().unwrap().is_none());
        socket
    }

    /// C4: one question tells a peer from oneself.
    #[test]
    fn another_answers_or_nobody() {
        let any: SockAddr = SocketAddr::from(([127, 0, 0, 9], 0)).into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = connected(&any, &listener.local_addr().unwrap().into());
        assert!(sys::is_answered_by_another(sys::borrow(&socket)));

        let own = TcpListener::bind("127.0.0.9:0").unwrap().local_addr().unwrap();
        let alone = connected(&own.into(), &own.into());
        assert_eq!(SockRef::from(&alone).peer_addr().unwrap().as_socket(), Some(own));
        assert!(!sys::is_answered_by_another(sys::borrow(&alone)));

        // Not begun.
        let socket = sys::stream_socket(Domain::IPV4, false).unwrap();
        assert!(!sys::is_answered_by_another(sys::borrow(&socket)));
    }
}
