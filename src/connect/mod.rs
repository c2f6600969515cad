//! Connecting: the addresses of a name race (RFC 8305), within one deadline.
//!
//! [`race`] decides which attempt starts when, [`attempt`] makes one, and the
//! driver here waits for all of them in one poll.

mod attempt;
mod race;

use std::net::SocketAddr;
use std::time::Instant;

use socket2::{Domain, SockAddr};

use crate::cancel::CancelToken;
use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Attempt, Error, ErrorKind, Result, Stage};
use crate::events;
use crate::info::Address;
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::sys::{self, Owned};
use crate::wait::{Cause, Deadline, wait_writable};

use attempt::{Begun, Setting};
use race::{ATTEMPT_DELAY, Next, Race, interleave};

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

/// An attempt under way.
struct Running {
    index: usize,
    socket: Owned,
    began: Instant,
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
    let setting = Setting { options, local: local.as_deref(), deadline, cancel };
    let mut attempts = Vec::new();
    let kind = match drive(&candidates, &setting, &mut attempts) {
        Ok(connected) => return Ok(connected),
        Err(kind) => kind,
    };
    let first = attempts.iter().find(|a| a.kind == kind);
    let (stage, os_error) = (first.map(|a| a.stage), first.and_then(|a| a.os_error));
    let mut error = Error::new(kind, OPERATION).at(endpoint).with_os_error(os_error);
    if let Some(stage) = stage {
        error = error.stage(stage);
    }
    Err(error.after(start.elapsed()).with_attempts(attempts))
}

/// Runs the race to its end. Failed attempts are written down in the order in
/// which they ended. The kind is that of the whole: the caller's own reasons
/// (deadline, cancel) first, then the first cause met.
fn drive(
    candidates: &[Candidate],
    setting: &Setting<'_>,
    attempts: &mut Vec<Attempt>,
) -> std::result::Result<Connected, ErrorKind> {
    if setting.cancel.is_some_and(CancelToken::is_fired) {
        return Err(ErrorKind::Cancelled);
    }
    let mut race = Race::new(candidates.len(), ATTEMPT_DELAY);
    let mut running: Vec<Running> = Vec::new();
    let mut first_cause = None;
    let mut note = |index: usize, began: Instant, stage: Stage, cause: &Cause| {
        let attempt = Attempt {
            address: candidates[index].address.clone(),
            stage,
            kind: cause.kind(),
            os_error: cause.os_error(),
            elapsed: began.elapsed(),
        };
        events::attempt_failed(&attempt);
        attempts.push(attempt);
    };
    loop {
        let (index, began, ended) = match race.next(Instant::now()) {
            Next::Start(index) => {
                let began = Instant::now();
                events::attempt_begun(&candidates[index].address, index + 1, candidates.len());
                match attempt::begin(&candidates[index], setting) {
                    Ok(Begun::UnderWay(socket)) => {
                        running.push(Running { index, socket, began });
                        continue;
                    }
                    Ok(Begun::Connected(socket)) => (index, began, Ok(socket)),
                    Err(failure) => (index, began, Err(failure)),
                }
            }
            Next::Wait(until) => {
                let step = setting.deadline.earlier(Deadline(until));
                let sockets: Vec<_> = running.iter().map(|r| sys::borrow(&r.socket)).collect();
                let woken = match wait_writable(&sockets, step, setting.cancel) {
                    Ok(Some(ready)) => {
                        let Running { index, socket, began } = running.swap_remove(ready);
                        let ended = attempt::result(&socket).map(|()| socket);
                        Ok((index, began, ended))
                    }
                    Ok(None) if !setting.deadline.has_passed() => continue,
                    Ok(None) => Err(ErrorKind::TimedOut.into()),
                    Err(cause) => Err(cause),
                };
                match woken {
                    Ok(ended) => ended,
                    // The deadline, a cancel, or a poll that failed ends them all.
                    Err(cause) => {
                        running.sort_by_key(|r| r.index);
                        for r in &running {
                            note(r.index, r.began, Stage::Connect, &cause);
                        }
                        return Err(cause.kind());
                    }
                }
            }
            Next::Lost => return Err(first_cause.unwrap_or(ErrorKind::NotFound)),
        };
        match ended.and_then(|socket| attempt::finish(socket, &candidates[index], setting)) {
            Ok(connected) => {
                events::attempt_won(&candidates[index].address, began);
                return Ok(connected);
            }
            Err(Failure(stage, cause)) => {
                note(index, began, stage, &cause);
                if cause.kind() == ErrorKind::Cancelled {
                    return Err(ErrorKind::Cancelled);
                }
                first_cause = first_cause.or(Some(cause.kind()));
                race.failed();
            }
        }
    }
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
        Target::Inet { host: Host::Any, .. } => {
            Err(Error::new(ErrorKind::InvalidEndpoint, "connect")
                .at(endpoint)
                .detail("\"*\" is for listening: name a host"))
        }
        Target::Inet { port: Port::Number(0), .. } if options.addresses.is_empty() => {
            Err(Error::new(ErrorKind::InvalidEndpoint, "connect")
                .at(endpoint)
                .detail("port 0 is for listening"))
        }
        Target::Inet { .. } if !options.addresses.is_empty() => {
            let allowed = options.addresses.iter().filter(|a| options.family.allows(a.ip()));
            Ok(allowed.copied().map(inet).collect())
        }
        Target::Inet { .. } => {
            let found = resolve(endpoint, options.family, deadline, cancel, "connect")?;
            Ok(interleave(found).into_iter().map(inet).collect())
        }
        Target::UnixPath(_) | Target::UnixAbstract(_) => {
            options.refuse_inet_only("connect")?;
            let name = sys::unix_name(endpoint)
                .map_err(|e| Error::os("connect", &e).at(endpoint).stage(Stage::Socket))?;
            let address = sys::to_address(&name);
            Ok(vec![Candidate { name, domain: Domain::UNIX, address }])
        }
    }
}
