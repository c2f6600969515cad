//! One connection attempt to one address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef};

use super::{Candidate, Failure};
use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Stage};
use crate::info::Address;
use crate::options::SocketOptions;
use crate::sys::{self, Borrowed, Interest, Owned};
use crate::wait::{Deadline, wait};

/// Connects to one address by the deadline. Whatever fails, no descriptor is left.
pub(super) fn attempt(
    candidate: &Candidate,
    options: &SocketOptions,
    local: Option<&[SocketAddr]>,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
) -> Result<(Owned, Option<Address>), Failure> {
    let at = |stage| move |cause: io::Error| Failure(stage, cause.into());
    let socket = sys::stream_socket(candidate.domain).map_err(at(Stage::Socket))?;
    let borrowed = sys::borrow(&socket);
    let inet = candidate.domain != Domain::UNIX;
    if inet {
        let ipv6 = candidate.domain == Domain::IPV6;
        options.apply_tcp(borrowed, ipv6).map_err(|cause| Failure(Stage::Options, cause))?;
        if let Some(local) = local {
            let Some(from) = local.iter().find(|a| a.is_ipv6() == ipv6) else {
                return Err(Failure(Stage::Bind, ErrorKind::AddressNotAvailable.into()));
            };
            SockRef::from(&borrowed).bind(&SockAddr::from(*from)).map_err(at(Stage::Bind))?;
        }
    }
    establish(borrowed, &candidate.name, deadline, cancel)?;
    let own = own_address(borrowed, candidate).map_err(at(Stage::Connect))?;
    if own.as_ref() == Some(&candidate.address) {
        // A port of the ephemeral range that nobody listens on may be chosen as
        // our own: TCP's simultaneous open (RFC 9293 section 3.5) then joins the
        // socket to itself. Nobody is there: that is a refusal.
        return Err(Failure(Stage::Connect, ErrorKind::Refused.into()));
    }
    if sys::BLOCKING_CALLS {
        sys::set_nonblocking(borrowed, false).map_err(at(Stage::Options))?;
    }
    Ok((socket, own))
}

/// Sends the SYN and waits for the handshake.
fn establish(
    socket: Borrowed<'_>,
    to: &SockAddr,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
) -> Result<(), Failure> {
    let failed = |cause| Failure(Stage::Connect, cause);
    let mut pause = Duration::from_millis(1);
    loop {
        match sys::connect(socket, to) {
            Ok(true) => return Ok(()),
            Ok(false) => break,
            // unix(7): a listener whose queue is full gives EAGAIN, and nothing
            // to poll for. Try again until the deadline.
            Err(e) if to.is_unix() && e.kind() == io::ErrorKind::WouldBlock => {
                let step = deadline.earlier(Deadline::after(Some(pause)));
                wait(None, step, cancel, || false).map_err(failed)?;
                if deadline.has_passed() {
                    return Err(failed(ErrorKind::TimedOut.into()));
                }
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(e) => return Err(failed(e.into())),
        }
    }
    wait(Some((socket, Interest::Write)), deadline, cancel, || false).map_err(failed)?;
    // connect(2): the result of a handshake that took time is in SO_ERROR.
    match SockRef::from(&socket).take_error() {
        Ok(None) => Ok(()),
        Ok(Some(e)) | Err(e) => Err(failed(e.into())),
    }
}

/// The local address, if it might be the peer's too: ports below 1024 are not
/// given to clients, so a connection to one of them is not asked.
fn own_address(socket: Borrowed<'_>, candidate: &Candidate) -> io::Result<Option<Address>> {
    if candidate.address.port() < 1024 {
        return Ok(None);
    }
    Ok(Some(sys::to_address(&SockRef::from(&socket).local_addr()?)))
}
