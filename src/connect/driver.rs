//! The state of one connect: the addresses found, the attempts in progress, and the attempts that
//! failed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::attempt::{
    self, AttemptError, AttemptParams, AttemptStart, AttemptState, Candidate, FailedAttempt,
};
use super::race::{Lane, NextAttempt, Race};
use super::{OPERATION, OTHER_FAMILY};
use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::io::wait::{Cause, wait_writable};
use crate::log;
use crate::options::SocketOptions;
use crate::resolve::{Lookup, Resolved, resolve};
use crate::stream::Connected;
use crate::sys::{self, Borrowed, Owned};
use crate::types::address::Family;
use crate::types::endpoint::{Endpoint, Target};
use crate::types::error::{Attempt, Error, ErrorKind, Result, Stage};

/// The pause before the first retry of a Unix listener whose queue is full. It doubles up to
/// [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// An attempt whose handshake is in progress.
pub(super) struct RunningAttempt {
    pub index: usize,
    pub socket: Owned,
    pub started_at: Instant,
}

/// An attempt that found the queue of a Unix listener full, and is retried.
pub(super) struct PendingAttempt {
    pub index: usize,
    pub socket: Owned,
    pub started_at: Instant,
    retry_at: Instant,
    pause: Duration,
}

/// The result of [`ConnectDriver::advance`].
pub(super) enum Progress {
    Connected(Connected),
    /// Call again when a socket is writable, the lookup has a result, or the deadline has passed.
    Wait(Deadline),
}

/// A connect in progress.
pub(super) struct ConnectDriver {
    pub endpoint: Endpoint,
    pub start: Instant,
    deadline: Deadline,
    /// The family that is tried first.
    preferred: Family,
    /// The local endpoint and its addresses.
    local: Option<(Endpoint, Vec<SocketAddr>)>,
    pub lookup: Option<Lookup>,
    /// The first attempt, if it was started before the driver was created.
    pub first: Option<std::result::Result<AttemptStart, FailedAttempt>>,
    lookup_error: Option<Error>,
    pub candidates: Vec<Candidate>,
    race: Race,
    pub running: Vec<RunningAttempt>,
    pub pending: Option<PendingAttempt>,
    /// The failed attempts, in the order in which they failed.
    pub attempts: Vec<Attempt>,
    /// The sockets of attempts that ended, with the index of the attempt. `None`: they are closed
    /// when the attempt ends.
    pub ended: Option<Vec<(usize, Owned)>>,
    /// The process that runs the attempts.
    born: u32,
}

impl Drop for ConnectDriver {
    fn drop(&mut self) {
        self.shut_down_copies(&self.sockets());
    }
}

impl ConnectDriver {
    /// Starts the lookup. The caller has checked the options.
    pub(super) fn new(
        endpoint: &Endpoint,
        options: &SocketOptions,
        start: Instant,
    ) -> Result<ConnectDriver> {
        let deadline = Deadline::from(start, options.connect_timeout);
        let mut driver = ConnectDriver {
            endpoint: endpoint.clone(),
            start,
            deadline,
            preferred: options.preferred_family,
            local: None,
            lookup: None,
            first: None,
            lookup_error: None,
            candidates: Vec::new(),
            race: Race::new(options.attempt_delay),
            running: Vec::new(),
            pending: None,
            attempts: Vec::new(),
            ended: None,
            born: sys::fork::birth(),
        };
        match &endpoint.0 {
            Target::Inet { .. } if !options.addresses.is_empty() => {
                let allowed = options.addresses.iter().filter(|a| options.family.allows(a.ip()));
                for address in allowed {
                    let is_preferred = driver.preferred.allows(address.ip());
                    let lane = if is_preferred { Lane::First } else { Lane::Second };
                    driver.add(lane, Candidate::inet(*address), start);
                }
                driver.race.close();
            }
            Target::Inet { .. } => {
                driver.lookup =
                    Some(Lookup::new(endpoint, Type::STREAM, options.family, OPERATION)?);
            }
            Target::UnixPath(_) | Target::UnixAbstract(_) => {
                options.refuse_inet_only(OPERATION)?;
                options.refuse_tcp_only(OPERATION)?;
                let name = sys::unix_name(endpoint)
                    .map_err(|e| Error::os(OPERATION, &e).at(endpoint).stage(Stage::Socket))?;
                let address = sys::to_address(&name);
                driver.add(Lane::First, Candidate { name, domain: Domain::UNIX, address }, start);
                driver.race.close();
            }
        }
        if let Some(local) = &options.local {
            let cancel = options.cancel.as_ref();
            let family = options.family;
            let found = resolve(local, Type::STREAM, family, deadline, cancel, OPERATION)
                .and_then(|found| options.usable_local(found, OPERATION));
            let found = found.map_err(|e| e.at(endpoint).with_local(local).after(start.elapsed()));
            driver.local = Some((local.clone(), found?));
        }
        Ok(driver)
    }

    /// Does what can be done now. `writable` is the index of a running attempt whose socket is
    /// writable.
    pub(super) fn advance(
        &mut self,
        options: &SocketOptions,
        mut writable: Option<usize>,
    ) -> Result<Progress> {
        if options.cancel.as_ref().is_some_and(CancelToken::is_fired) {
            return Err(self.abandon(&ErrorKind::Cancelled.into(), options));
        }
        loop {
            let now = Instant::now();
            let (index, started_at, result) = if let Some(writable) = writable.take() {
                let RunningAttempt { index, socket, started_at } =
                    self.running.swap_remove(writable);
                let result = match attempt::handshake_result(sys::borrow(&socket)) {
                    Ok(peer) => Ok((socket, peer)),
                    Err(error) => Err(FailedAttempt { error, socket: Some(socket) }),
                };
                (index, started_at, result)
            } else {
                if self.deadline.0.is_some_and(|at| at <= now) {
                    return Err(self.abandon(&ErrorKind::TimedOut.into(), options));
                }
                self.add_resolved(now);
                let (index, started_at, pause, started) = match self.retry_pending(now) {
                    Some(retried) => retried,
                    None => match self.race.next(now) {
                        NextAttempt::Start(index) => {
                            (index, now, FIRST_PAUSE, self.start_attempt(index, options))
                        }
                        NextAttempt::Wait(until) => {
                            return Ok(Progress::Wait(self.next_wakeup(until)));
                        }
                        NextAttempt::AllFailed => return Err(self.all_failed_error(options)),
                    },
                };
                match started {
                    Ok(AttemptStart { socket, state: AttemptState::InProgress }) => {
                        self.running.push(RunningAttempt { index, socket, started_at });
                        continue;
                    }
                    Ok(AttemptStart { socket, state: AttemptState::QueueFull }) => {
                        let retry_at = now + pause;
                        self.pending =
                            Some(PendingAttempt { index, socket, started_at, retry_at, pause });
                        continue;
                    }
                    Ok(AttemptStart { socket, state: AttemptState::Established(peer) }) => {
                        (index, started_at, Ok((socket, peer)))
                    }
                    Err(failed) => (index, started_at, Err(failed)),
                }
            };
            let params = self.params(options);
            let finished = result.and_then(|(socket, peer)| {
                attempt::finish(socket, peer, &self.candidates[index], &params)
            });
            match finished {
                Ok(connected) => {
                    log::attempt_succeeded(&self.candidates[index].address, started_at);
                    self.abandon_rest(&ErrorKind::Closed.into());
                    return Ok(Progress::Connected(connected));
                }
                Err(FailedAttempt { error: AttemptError(stage, cause), socket }) => {
                    self.record(index, started_at, stage, &cause);
                    self.end(index, socket);
                    if cause.kind() == ErrorKind::Cancelled {
                        return Err(self.error(ErrorKind::Cancelled, options));
                    }
                    self.race.failed();
                }
            }
        }
    }

    /// Waits until [`advance`](ConnectDriver::advance) has something to do. Returns the index of a
    /// running attempt whose socket is writable.
    pub(super) fn wait(
        &self,
        until: Deadline,
        cancel: Option<&CancelToken>,
    ) -> std::result::Result<Option<usize>, Cause> {
        let lookup_event = self.lookup.as_ref().and_then(Lookup::event);
        wait_writable(&self.sockets(), lookup_event, until, cancel)
    }

    /// The sockets of the running attempts.
    pub(super) fn sockets(&self) -> Vec<Borrowed<'_>> {
        self.running.iter().map(|running| sys::borrow(&running.socket)).collect()
    }

    /// Closes all attempts because of a deadline, a cancel, or a failed poll. Returns the error of
    /// the connect.
    pub(super) fn abandon(&mut self, cause: &Cause, options: &SocketOptions) -> Error {
        self.abandon_rest(cause);
        self.error(cause.kind(), options)
    }

    fn add(&mut self, lane: Lane, candidate: Candidate, now: Instant) {
        self.race.add(lane, self.candidates.len(), now);
        self.candidates.push(candidate);
    }

    /// Adds the addresses that the lookup has found. The families alternate, in the order of
    /// [`Resolved::begins_with_ipv6`].
    fn add_resolved(&mut self, now: Instant) {
        while let Some(mut lookup) = self.lookup.take() {
            let result = lookup.poll(now);
            let over = lookup.is_over();
            let idle = result.is_none();
            match result {
                None => {}
                Some(Err(error)) => self.lookup_error = Some(error),
                Some(Ok(found)) => {
                    let first_is_ipv6 = found.begins_with_ipv6(self.preferred);
                    let (Resolved::All(addresses) | Resolved::Partial(addresses)) = found;
                    for address in addresses {
                        let candidate = Candidate::inet(address);
                        if self.candidates.iter().any(|c| c.address == candidate.address) {
                            continue;
                        }
                        let first = address.is_ipv6() == first_is_ipv6;
                        let lane = if first { Lane::First } else { Lane::Second };
                        self.add(lane, candidate, now);
                    }
                }
            }
            if over {
                self.race.close();
                return;
            }
            self.lookup = Some(lookup);
            if idle {
                return;
            }
        }
    }

    /// Retries the pending attempt if its pause has passed.
    fn retry_pending(
        &mut self,
        now: Instant,
    ) -> Option<(usize, Instant, Duration, std::result::Result<AttemptStart, FailedAttempt>)> {
        let PendingAttempt { index, socket, started_at, pause, .. } =
            self.pending.take_if(|pending| pending.retry_at <= now)?;
        let name = &self.candidates[index].name;
        let started = match attempt::connect_unix(sys::borrow(&socket), name) {
            Ok(state) => Ok(AttemptStart { socket, state }),
            Err(error) => Err(FailedAttempt { error, socket: Some(socket) }),
        };
        Some((index, started_at, (pause * 2).min(MAX_PAUSE), started))
    }

    /// The time of the next call of [`advance`](ConnectDriver::advance). `race` is the time that the
    /// race needs.
    fn next_wakeup(&self, race: Option<Instant>) -> Deadline {
        let lookup = self.lookup.as_ref().map_or(Deadline(None), Lookup::next);
        let pending = Deadline(self.pending.as_ref().map(|pending| pending.retry_at));
        self.deadline.earlier(Deadline(race)).earlier(lookup).earlier(pending)
    }

    fn params<'a>(&'a self, options: &'a SocketOptions) -> AttemptParams<'a> {
        AttemptParams {
            options,
            local: self.local.as_ref().map(|(_, addresses)| addresses.as_slice()),
            is_only: self.lookup.is_none() && self.candidates.len() == 1,
        }
    }

    fn start_attempt(
        &mut self,
        index: usize,
        options: &SocketOptions,
    ) -> std::result::Result<AttemptStart, FailedAttempt> {
        if let Some(started) = self.first.take() {
            return started;
        }
        let address = &self.candidates[index].address;
        log::attempt_started(address, index + 1, self.candidates.len());
        let (candidate, params) = (&self.candidates[index], self.params(options));
        if candidate.is_unusable(&params) {
            // The resolver returned an address such as 0.0.0.0, or a link-local one without a zone.
            let error = AttemptError(Stage::Connect, ErrorKind::InvalidEndpoint.into());
            return Err(FailedAttempt { error, socket: None });
        }
        attempt::start(candidate, &params)
    }

    /// Records a failed attempt.
    fn record(&mut self, index: usize, started_at: Instant, stage: Stage, cause: &Cause) {
        let attempt = Attempt {
            address: self.candidates[index].address.clone(),
            stage,
            kind: cause.kind(),
            os_error: cause.os_error(),
            elapsed: started_at.elapsed(),
            detail: cause.detail().to_owned(),
        };
        log::attempt_failed(&attempt);
        self.attempts.push(attempt);
    }

    /// Keeps the socket of an attempt that ended, or closes it.
    fn end(&mut self, index: usize, socket: Option<Owned>) {
        self.shut_down_copies(socket.as_ref().map(sys::borrow).as_slice());
        if let (Some(ended), Some(socket)) = (&mut self.ended, socket) {
            ended.push((index, socket));
        }
    }

    /// Closes the attempts in progress, records them as failed with `cause`, and abandons the
    /// lookup.
    fn abandon_rest(&mut self, cause: &Cause) {
        let mut running = std::mem::take(&mut self.running);
        running.sort_by_key(|running| running.index);
        for running in running {
            self.record(running.index, running.started_at, Stage::Connect, cause);
            self.end(running.index, Some(running.socket));
        }
        if let Some(pending) = self.pending.take() {
            self.record(pending.index, pending.started_at, Stage::Connect, cause);
            self.end(pending.index, Some(pending.socket));
        }
        if let Some(lookup) = self.lookup.take() {
            lookup.abandon(cause.kind());
        }
    }

    /// Ends connections, which close(2) does not do while a forked child has copies of their
    /// descriptors. A child leaves the connections of its parent as they are.
    pub(super) fn shut_down_copies(&self, sockets: &[Borrowed<'_>]) {
        if sys::fork::has_forked() && !sys::fork::is_inherited(self.born) {
            sockets.iter().copied().for_each(sys::wake);
        }
    }

    /// The error of a connect whose attempts have all failed. It has the cause of the first one.
    fn all_failed_error(&mut self, options: &SocketOptions) -> Error {
        match (self.attempts.first().map(|attempt| attempt.kind), self.lookup_error.take()) {
            (Some(kind), _) => self.error(kind, options),
            (None, Some(lookup_error)) => lookup_error,
            (None, None) => self.error(ErrorKind::NotFound, options),
        }
    }

    /// The error of the connect, with the details of the first attempt that failed with `kind`.
    fn error(&mut self, kind: ErrorKind, options: &SocketOptions) -> Error {
        let attempts = std::mem::take(&mut self.attempts);
        let mut error = Error::new(kind, OPERATION).at(&self.endpoint);
        let first = attempts.iter().find(|attempt| attempt.kind == kind);
        if let Some(first) = first {
            error = error.with_os_error(first.os_error).stage(first.stage);
            if matches!(self.endpoint.0, Target::Inet { .. }) {
                error = options.name_local_side(error, first.stage);
            }
            // Without an operating-system error, bind(2) was not called.
            if first.stage == Stage::Bind
                && kind == ErrorKind::AddressNotAvailable
                && first.os_error.is_none()
            {
                return error.detail(OTHER_FAMILY).with_attempts(attempts);
            }
        } else if self.candidates.is_empty() && kind == ErrorKind::NotFound {
            error = error.detail("the option family excludes every remote_address");
        } else if self.candidates.is_empty() {
            error = error.stage(if self.endpoint.is_numeric() {
                Stage::Connect
            } else {
                Stage::Lookup
            });
        }
        error.after(self.start.elapsed()).with_attempts(attempts)
    }
}
