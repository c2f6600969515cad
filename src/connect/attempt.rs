//! One connection attempt to one address.

use std::io;
use std::net::SocketAddr;

use crate::sys::SockRef;
use socket2::{Domain, SockAddr, Type};

use crate::io::wait::{Cause, OptionFailure};
use crate::options::SocketOptions;
use crate::stream::Connected;
use crate::sys::{self, Borrowed, Families, Handshake, Owned, Wait};
use crate::types::address::{Address, AddressUse};
use crate::types::error::{About, ErrorKind, Stage};
use crate::types::sockopt::Sockets;

/// An address to connect to.
pub(super) struct Candidate {
    /// The address as the kernel needs it.
    pub name: SockAddr,
    pub domain: Domain,
    pub address: Address,
}

/// The parameters that all attempts of one connect share.
pub(super) struct AttemptParams<'a> {
    pub options: &'a SocketOptions,
    /// The addresses of the local endpoint.
    pub local: Option<&'a [SocketAddr]>,
    /// The connect has no other address.
    pub is_only: bool,
}

/// The reason why an attempt failed: the stage and the cause.
pub(super) struct AttemptError(pub Stage, pub Cause);

/// A failed attempt with its socket, if it had one.
pub(super) struct FailedAttempt {
    pub error: AttemptError,
    pub socket: Option<Owned>,
}

/// The result of an attempt that was started.
pub(super) struct AttemptStart {
    pub socket: Owned,
    pub state: AttemptState,
}

pub(super) enum AttemptState {
    /// The handshake has completed.
    Established(Peer),
    /// The SYN is sent. The socket becomes writable when the handshake has completed or failed.
    InProgress,
    /// The queue of a Unix listener is full. Call [`connect_unix`] again after a pause.
    QueueFull,
}

/// The peer of a socket whose handshake has completed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Another socket.
    Other,
    /// Another socket, or the socket itself.
    Unknown,
}

impl Candidate {
    pub(super) fn inet(address: SocketAddr) -> Candidate {
        Candidate {
            name: address.into(),
            domain: Domain::for_address(address),
            address: address.into(),
        }
    }

    /// Whether no socket can connect to the address.
    pub(super) fn is_unusable(&self, params: &AttemptParams<'_>) -> bool {
        let Address::Inet(address) = self.address else {
            return false;
        };
        let local = params.local.unwrap_or_default();
        params.options.rejects_peer(address, AddressUse::StreamPeer, local).is_some()
    }

    fn is_discarded(&self, err: &io::Error) -> bool {
        matches!(self.address, Address::Inet(address) if sys::is_discarded(err, address))
    }

    fn is_loopback(&self) -> bool {
        matches!(&self.address, Address::Inet(address) if address.ip().is_loopback())
    }
}

/// Creates a socket and sends its SYN.
pub(super) fn start(
    candidate: &Candidate,
    params: &AttemptParams<'_>,
) -> Result<AttemptStart, FailedAttempt> {
    let socket = if params.options.seqpacket {
        sys::packet_socket()
    } else {
        sys::stream_socket(candidate.domain, params.options.mptcp)
    };
    let socket = socket.map_err(|cause| FailedAttempt {
        error: AttemptError(Stage::Socket, params.options.socket_failure(cause)),
        socket: None,
    })?;
    match start_on(sys::borrow(&socket), candidate, params) {
        Ok(state) => Ok(AttemptStart { socket, state }),
        Err(error) => Err(FailedAttempt { error, socket: Some(socket) }),
    }
}

fn start_on(
    socket: Borrowed<'_>,
    candidate: &Candidate,
    params: &AttemptParams<'_>,
) -> Result<AttemptState, AttemptError> {
    let at = |stage| move |cause: io::Error| AttemptError(stage, cause.into());
    let rejected = |cause| AttemptError(Stage::Options, cause);
    let Address::Inet(to) = &candidate.address else {
        let applied = params.options.apply_kernel(socket, Sockets::UNIX, Families::None);
        applied.map_err(rejected)?;
        return connect_unix(socket, &candidate.name);
    };
    let ipv6 = to.is_ipv6();
    params.options.apply_tcp(socket, ipv6).map_err(rejected)?;
    let applied = params.options.apply_kernel(socket, Sockets::CONNECT, Families::of(to));
    applied.map_err(rejected)?;
    if params.options.fast_open && params.is_only {
        sys::fast_open_connect(socket).map_err(|e| rejected(OptionFailure::of(&e, "fast_open")))?;
    }
    if let Some(local) = params.local {
        let Some(from) = local.iter().find(|a| a.is_ipv6() == ipv6) else {
            return Err(AttemptError(Stage::Bind, ErrorKind::AddressNotAvailable.into()));
        };
        if from.port() != 0 {
            // All attempts of a race are bound to the same port.
            sys::share_port(socket).map_err(at(Stage::Options))?;
        } else {
            sys::choose_port_late(socket).map_err(at(Stage::Options))?;
        }
        SockRef::from(&socket).bind(&SockAddr::from(*from)).map_err(at(Stage::Bind))?;
    }
    let labeled = match (params.options.flow_label(), to) {
        (Some(label), SocketAddr::V6(to)) => {
            Some(SocketOptions::apply_flow_label(socket, *to, label).map_err(rejected)?)
        }
        _ => None,
    };
    match sys::connect(socket, labeled.as_ref().unwrap_or(&candidate.name)) {
        Ok(true) => Ok(AttemptState::Established(Peer::Unknown)),
        // Linux returns EINPROGRESS even if the answer arrived over loopback during the call.
        Ok(false) if candidate.is_loopback() => match sys::handshake(socket) {
            Handshake::AnsweredByAnother => Ok(AttemptState::Established(Peer::Other)),
            Handshake::Failed => match SockRef::from(&socket).take_error() {
                Ok(Some(e)) => Err(handshake_error(&e)),
                _ => Ok(AttemptState::InProgress),
            },
            Handshake::Unknown => Ok(AttemptState::InProgress),
        },
        Ok(false) => Ok(AttemptState::InProgress),
        // The kernel checks a shared port only here: the same connection exists already.
        Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable && params.has_local_port() => {
            Err(AttemptError(Stage::Bind, ErrorKind::AddressInUse.into()))
        }
        Err(e) if is_out_of_ports(&e, candidate, params) => {
            Err(AttemptError(Stage::Connect, Cause::no_free_port(&e)))
        }
        Err(e) if candidate.is_discarded(&e) => {
            Err(AttemptError(Stage::Connect, Cause::discarded(&e)))
        }
        Err(e) => Err(AttemptError(Stage::Connect, e.into())),
    }
}

/// Whether connect(2) failed because no local port is free. The kernel returns EADDRNOTAVAIL. With
/// IPv6, EADDRNOTAVAIL may also mean that this machine has no address from which the destination
/// can be reached.
fn is_out_of_ports(err: &io::Error, candidate: &Candidate, params: &AttemptParams<'_>) -> bool {
    match err.kind() {
        io::ErrorKind::WouldBlock => true,
        io::ErrorKind::AddrNotAvailable if params.local.is_some() => true,
        io::ErrorKind::AddrNotAvailable if candidate.domain == Domain::IPV6 => {
            let interface = params.options.interface.as_deref();
            sys::is_reachable(&candidate.name, interface).unwrap_or(false)
        }
        io::ErrorKind::AddrNotAvailable => true,
        _ => false,
    }
}

impl AttemptParams<'_> {
    fn has_local_port(&self) -> bool {
        self.local.is_some_and(|local| local.iter().any(|address| address.port() != 0))
    }
}

/// Connects a Unix socket, which completes or fails immediately. If the queue of the listener is
/// full, connect(2) returns EAGAIN (unix(7)), and poll(2) does not report when it has space again.
pub(super) fn connect_unix(
    socket: Borrowed<'_>,
    to: &SockAddr,
) -> Result<AttemptState, AttemptError> {
    match sys::connect(socket, to) {
        Ok(_) => Ok(AttemptState::Established(Peer::Other)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(AttemptState::QueueFull),
        Err(e) if sys::is_other_type(&e) => {
            let has_packets = SockRef::from(&socket).r#type().is_ok_and(|t| t != Type::STREAM);
            let what = if has_packets {
                "a stream or datagram socket is bound there, and seqpacket was requested"
            } else {
                "a seqpacket or datagram socket is bound there, and a stream was requested"
            };
            Err(AttemptError(Stage::Connect, OptionFailure::of(&e, what)))
        }
        Err(e) => Err(AttemptError(Stage::Connect, e.into())),
    }
}

/// The result of the handshake of a socket that became writable. The kernel stores the error of
/// the handshake in SO_ERROR.
pub(super) fn handshake_result(socket: Borrowed<'_>) -> Result<Peer, AttemptError> {
    if sys::handshake(socket) == Handshake::AnsweredByAnother {
        return Ok(Peer::Other);
    }
    match SockRef::from(&socket).take_error() {
        Ok(None) => Ok(Peer::Unknown),
        Ok(Some(e)) => Err(handshake_error(&e)),
        Err(e) => Err(AttemptError(Stage::Connect, e.into())),
    }
}

/// The error that SO_ERROR holds after a handshake.
fn handshake_error(error: &io::Error) -> AttemptError {
    AttemptError(Stage::Connect, Cause::reported(error, About::Handshake))
}

/// Sets the remaining options on an established socket, and rejects a connection to itself.
pub(super) fn finish(
    socket: Owned,
    peer: Peer,
    candidate: &Candidate,
    params: &AttemptParams<'_>,
) -> Result<Connected, FailedAttempt> {
    // Most connections need no further step.
    let is_plain = params.options.liveness.dead_after.is_none() && !params.options.mptcp;
    if peer == Peer::Other && is_plain && params.options.proxy_header.is_none() {
        return Ok(Connected { socket, local: None, remote: candidate.address.clone() });
    }
    match finish_on(sys::borrow(&socket), peer, candidate, params) {
        Ok(local) => Ok(Connected { socket, local, remote: candidate.address.clone() }),
        Err(error) => Err(FailedAttempt { error, socket: Some(socket) }),
    }
}

/// Returns the local address, if it had to be read.
#[inline(never)]
fn finish_on(
    socket: Borrowed<'_>,
    peer: Peer,
    candidate: &Candidate,
    params: &AttemptParams<'_>,
) -> Result<Option<Address>, AttemptError> {
    let at = |stage| move |cause: io::Error| AttemptError(stage, cause.into());
    if candidate.domain != Domain::UNIX {
        let applied = params.options.apply_dead_after(socket);
        let applied = applied.and_then(|()| params.options.apply_after_fallback(socket));
        applied.map_err(|cause| AttemptError(Stage::Options, cause))?;
    }
    if peer == Peer::Other {
        return send_header(socket, params).map(|()| None);
    }
    let local = own_address(socket, &candidate.address).map_err(at(Stage::Connect))?;
    if local.as_ref() == Some(&candidate.address) {
        // The kernel may choose the destination port as the local port if no socket listens on it,
        // also below 1024 (ip_local_port_range). TCP's simultaneous open (RFC 9293 section 3.5)
        // then connects the socket to itself. No process listens there, so the connection is refused.
        return Err(AttemptError(Stage::Connect, ErrorKind::Refused.into()));
    }
    send_header(socket, params)?;
    Ok(local)
}

/// Sends the PROXY header of the options. It is smaller than every send buffer, so only a kernel without
/// memory accepts less.
fn send_header(socket: Borrowed<'_>, params: &AttemptParams<'_>) -> Result<(), AttemptError> {
    let Some(header) = &params.options.proxy_header else {
        return Ok(());
    };
    let mut left = header.as_bytes();
    while !left.is_empty() {
        match sys::send(socket, left, Wait::No) {
            Ok(sent) => left = left.get(sent..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(AttemptError(Stage::Connect, ErrorKind::NoMemory.into()));
            }
            Err(e) => {
                return Err(AttemptError(Stage::Connect, Cause::reported(&e, About::Handshake)));
            }
        }
    }
    Ok(())
}

/// The local address of an Internet socket. `None` for a Unix socket.
fn own_address(socket: Borrowed<'_>, remote: &Address) -> io::Result<Option<Address>> {
    if !matches!(remote, Address::Inet(_)) {
        return Ok(None);
    }
    Ok(Some(sys::to_address(&SockRef::from(&socket).local_addr()?)))
}

#[cfg(all(test, keepsock_linux))]
// Clippy permits unwrap in test functions, and not in the functions that they call.
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::io::deadline::Deadline;
    use std::net::TcpListener;
    use std::time::Duration;

    fn connected(from: &SockAddr, to: &SockAddr) -> Owned {
        let socket = sys::stream_socket(Domain::IPV4, false).unwrap();
        SockRef::from(&socket).bind(from).unwrap();
        if !sys::connect(sys::borrow(&socket), to).unwrap() {
            let deadline = Deadline::after(Some(Duration::from_secs(5)));
            let found =
                crate::io::wait::wait_writable(&[sys::borrow(&socket)], None, deadline, None);
            assert_eq!(found.unwrap(), Some(0));
        }
        assert!(SockRef::from(&socket).take_error().unwrap().is_none());
        socket
    }

    /// C4: one system call distinguishes a peer from the socket itself, and a refused handshake from
    /// one in progress.
    #[test]
    fn handshake_distinguishes_peer_self_connect_and_reset() {
        let any: SockAddr = SocketAddr::from(([127, 0, 0, 9], 0)).into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = connected(&any, &listener.local_addr().unwrap().into());
        assert_eq!(sys::handshake(sys::borrow(&socket)), Handshake::AnsweredByAnother);

        let own = TcpListener::bind("127.0.0.9:0").unwrap().local_addr().unwrap();
        let alone = connected(&own.into(), &own.into());
        assert_eq!(SockRef::from(&alone).peer_addr().unwrap().as_socket(), Some(own));
        assert_eq!(sys::handshake(sys::borrow(&alone)), Handshake::Unknown);

        let socket = sys::stream_socket(Domain::IPV4, false).unwrap();
        let refused = listener.local_addr().unwrap();
        drop(listener);
        assert!(!sys::connect(sys::borrow(&socket), &refused.into()).unwrap());
        assert_eq!(sys::handshake(sys::borrow(&socket)), Handshake::Failed);
    }
}
