//! Connecting: every address of a name in turn, within one deadline.
//!
//! [`attempt`] makes one connection attempt and [`share`] says how much of the
//! time it may take. A race of several attempts (RFC 8305) would replace the
//! loop in [`connect`] and keep both neighbours as they are.

mod attempt;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr};

use crate::cancel::CancelToken;
use crate::endpoint::{Endpoint, Target};
use crate::error::{Attempt, Error, ErrorKind, Result, Stage};
use crate::info::Address;
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::sys::{self, Owned};
use crate::wait::{Cause, Deadline};

/// A connected socket and what is known of it without asking the kernel.
pub(crate) struct Connected {
    pub socket: Owned,
    pub local: Option<Address>,
    pub remote: Address,
}

/// An address to try, in the kernel's form and in ours.
struct Candidate {
    name: SockAddr,
    domain: Domain,
    address: Address,
}

/// An attempt that failed: where and why.
struct Failure(Stage, Cause);

/// The shortest time that an attempt gets while others wait for their turn. A
/// handshake that lost its first SYN takes one second more (RFC 6298).
const SHORTEST: Duration = Duration::from_secs(2);

/// The part of the remaining time that the next of `left` addresses may take:
/// its even share, but no less than [`SHORTEST`] as far as the time goes.
fn share(remaining: Duration, left: u32) -> Duration {
    (remaining / left.max(1)).max(SHORTEST).min(remaining)
}

pub(crate) fn connect(endpoint: &Endpoint, options: &SocketOptions) -> Result<Connected> {
    const OPERATION: &str = "connect";
    options.validate(OPERATION)?;
    let start = Instant::now();
    let deadline = Deadline::after(options.connect_timeout);
    let cancel = options.cancel.as_ref();
    let candidates = candidates(endpoint, options, deadline, cancel)
        .map_err(|e| if e.kind() == ErrorKind::TimedOut { e.after(start.elapsed()) } else { e })?;
    let local = match &options.local {
        Some(local) => Some(resolve(local, options.family, deadline, cancel, OPERATION)?),
        None => None,
    };
    let mut attempts = Vec::new();
    let mut left = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
    for candidate in candidates {
        let began = Instant::now();
        let mine = Deadline::after(deadline.remaining().map(|r| share(r, left)));
        left -= 1;
        let tried = attempt::attempt(&candidate, options, local.as_deref(), mine, cancel);
        let Failure(stage, cause) = match tried {
            Ok((socket, local)) => {
                return Ok(Connected { socket, local, remote: candidate.address });
            }
            Err(failure) => failure,
        };
        attempts.push(Attempt {
            address: candidate.address,
            stage,
            kind: cause.kind(),
            os_error: cause.os_error(),
            elapsed: began.elapsed(),
        });
        if cause.kind() == ErrorKind::Cancelled || deadline.has_passed() {
            break;
        }
    }
    // The caller's own reasons come first, then the first cause met.
    let last = attempts.last().map(|a| a.kind);
    let kind = match last {
        Some(ErrorKind::Cancelled) => ErrorKind::Cancelled,
        _ if deadline.has_passed() => ErrorKind::TimedOut,
        _ => attempts.first().map_or(ErrorKind::NotFound, |a| a.kind),
    };
    let first = attempts.iter().find(|a| a.kind == kind);
    let (stage, os_error) = (first.map(|a| a.stage), first.and_then(|a| a.os_error));
    let mut error = Error::new(kind, OPERATION).at(endpoint).with_os_error(os_error);
    if let Some(stage) = stage {
        error = error.stage(stage);
    }
    Err(error.after(start.elapsed()).with_attempts(attempts))
}

fn candidates(
    endpoint: &Endpoint,
    options: &SocketOptions,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
) -> Result<Vec<Candidate>> {
    let inet = |address: SocketAddr| Candidate {
        name: address.into(),
        domain: Domain::for_address(address),
        address: address.into(),
    };
    match &endpoint.0 {
        Target::Inet { host: crate::endpoint::Host::Any, .. } => {
            Err(Error::new(ErrorKind::InvalidEndpoint, "connect")
                .at(endpoint)
                .detail("\"*\" is for listening: name a host"))
        }
        Target::Inet { .. } if !options.addresses.is_empty() => {
            Ok(options.addresses.iter().copied().map(inet).collect())
        }
        Target::Inet { .. } => {
            let found = resolve(endpoint, options.family, deadline, cancel, "connect")?;
            Ok(found.into_iter().map(inet).collect())
        }
        Target::UnixPath(_) | Target::UnixAbstract(_) => {
            let name = sys::unix_name(endpoint)
                .map_err(|e| Error::os("connect", &e).at(endpoint).stage(Stage::Socket))?;
            let address = match &endpoint.0 {
                Target::UnixAbstract(name) => Address::UnixAbstract(name.clone().into_bytes()),
                Target::UnixPath(path) => Address::UnixPath(path.clone()),
                Target::Inet { .. } => Address::UnixUnnamed,
            };
            Ok(vec![Candidate { name, domain: Domain::UNIX, address }])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_shared_evenly_but_not_too_thin() {
        let s = Duration::from_secs;
        assert_eq!(share(s(30), 3), s(10));
        assert_eq!(share(s(30), 1), s(30));
        assert_eq!(share(s(5), 10), s(2));
        assert_eq!(share(s(1), 10), s(1));
        assert_eq!(share(s(0), 3), s(0));
    }

    /// C4: an expired share is a timeout, and the next address still has its turn.
    #[test]
    fn shares_add_up_to_no_more_than_the_deadline() {
        let mut remaining = Duration::from_secs(30);
        for left in (1..=6).rev() {
            let mine = share(remaining, left);
            assert!(mine <= remaining);
            remaining -= mine;
        }
        assert_eq!(remaining, Duration::ZERO);
    }
}
