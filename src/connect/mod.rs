//! Connecting: the addresses of a name race (RFC 8305), within one deadline.
//!
//! [`race`] decides which attempt starts when, [`attempt`] makes one. The [`Drive`] here
//! does what is to be done now and never waits; [`connect`] waits for it in one poll, and
//! [`Connecting`] leaves the waiting to the caller.

mod attempt;
mod connecting;
mod race;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Type};

use crate::cancel::CancelToken;
use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Attempt, Error, ErrorKind, Result, Stage};
use crate::events;
use crate::info::Address;
use crate::options::SocketOptions;
use crate::resolve::{Found, Lookup, resolve};
use crate::sys::{self, Borrowed, Owned};
use crate::wait::{Cause, Deadline, wait_writable};

use attempt::{Begun, Setting};
pub use connecting::Connecting;
use race::{Lane, Next, Race};

const OPERATION: &str = "connect";

/// In what time a full queue is tried first, doubled from then on, and the most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(20);

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

/// An attempt that found the queue of a Unix listener full.
struct Busy {
    index: usize,
    socket: Owned,
    began: Instant,
    again: Instant,
    pause: Duration,
}

/// What a step came to.
enum Step {
    Connected(Connected),
    /// Nothing to do until a socket is writable, the lookup has found something, or then.
    Wait(Deadline),
}

/// A connect under way: what has been found, tried and noted so far.
struct Drive {
    endpoint: Endpoint,
    start: Instant,
    deadline: Deadline,
    local: Option<Vec<SocketAddr>>,
    lookup: Option<Lookup>,
    /// What the first attempt came to, if it was made before.
    first: Option<std::result::Result<Begun, Failure>>,
    /// Why the lookup found nothing.
    unknown: Option<Error>,
    candidates: Vec<Candidate>,
    race: Race,
    running: Vec<Running>,
    busy: Option<Busy>,
    /// Those that failed, in the order in which they ended.
    attempts: Vec<Attempt>,
}

pub(crate) fn connect(
    endpoint: &Endpoint,
    options: &SocketOptions,
    start: Instant,
) -> Result<Connected> {
    check(endpoint, options)?;
    let first = match only_address(endpoint, options) {
        None => None,
        Some(address) => match connect_to_one(address, options, start) {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(under_way)) => Some(Ok(Begun::UnderWay(under_way))),
            Err(failure) => Some(Err(failure)),
        },
    };
    let mut drive = Drive::new(endpoint, options, start)?;
    drive.first = first;
    let mut ready = None;
    loop {
        match drive.step(options, ready) {
            Ok(Step::Connected(connected)) => return Ok(connected),
            Ok(Step::Wait(until)) => match drive.wait(until, options.cancel.as_ref()) {
                Ok(woken) => ready = woken,
                Err(cause) => return Err(drive.ended_by(&cause)),
            },
            Err(error) => return Err(error),
        }
    }
}

/// Refuses what no client can be set to, before anything is done.
fn check(endpoint: &Endpoint, options: &SocketOptions) -> Result<()> {
    options.validate(OPERATION)?;
    options.refuse_datagram_only(OPERATION)?;
    if let Target::Inet { .. } = endpoint.0 {
        options.refuse_unix_only(OPERATION)?;
    }
    options.refuse_listener_only(OPERATION)
}

/// The address of a connect that asks nobody and has nothing to choose.
fn only_address(endpoint: &Endpoint, options: &SocketOptions) -> Option<SocketAddr> {
    let plain = options.addresses.is_empty() && options.local.is_none() && options.cancel.is_none();
    let address = endpoint.plain_address().filter(|address| address.port() != 0)?;
    (plain && options.family.allows(address.ip())).then_some(address)
}

/// Tries the only address. What is not decided at once is left to a [`Drive`], without which
/// a connect by loopback takes a small part of the instructions.
fn connect_to_one(
    address: SocketAddr,
    options: &SocketOptions,
    start: Instant,
) -> std::result::Result<std::result::Result<Connected, Owned>, Failure> {
    let candidate = Candidate::inet(address);
    let setting = Setting { options, local: None, alone: true };
    events::attempt_begun(&candidate.address, 1, 1);
    match attempt::begin(&candidate, &setting)? {
        Begun::UnderWay(socket) | Begun::Busy(socket) => Ok(Err(socket)),
        Begun::Connected(opened) => {
            let connected = attempt::finish(opened, &candidate, &setting)?;
            events::attempt_won(&candidate.address, start);
            Ok(Ok(connected))
        }
    }
}

impl Drive {
    /// Begins with options that were checked: the lookup is asked for, nothing else is done yet.
    fn new(endpoint: &Endpoint, options: &SocketOptions, start: Instant) -> Result<Drive> {
        let deadline = Deadline::from(start, options.connect_timeout);
        let mut drive = Drive {
            endpoint: endpoint.clone(),
            start,
            deadline,
            local: None,
            lookup: None,
            first: None,
            unknown: None,
            candidates: Vec::new(),
            race: Race::new(options.attempt_delay),
            running: Vec::new(),
            busy: None,
            attempts: Vec::new(),
        };
        let refuse = |what: &str| {
            Error::new(ErrorKind::InvalidEndpoint, OPERATION).at(endpoint).detail(what)
        };
        match &endpoint.0 {
            Target::Inet { host: Host::Any, .. } => {
                return Err(refuse("\"*\" is for listening: name a host"));
            }
            Target::Inet { port: Port::Number(0), .. } if options.addresses.is_empty() => {
                return Err(refuse("port 0 is for listening"));
            }
            Target::Inet { .. } if !options.addresses.is_empty() => {
                let allowed = options.addresses.iter().filter(|a| options.family.allows(a.ip()));
                for address in allowed {
                    drive.add(Lane::First, Candidate::inet(*address), start);
                }
                drive.race.close();
            }
            Target::Inet { .. } => {
                drive.lookup =
                    Some(Lookup::new(endpoint, Type::STREAM, options.family, OPERATION)?);
            }
            Target::UnixPath(_) | Target::UnixAbstract(_) => {
                options.refuse_inet_only(OPERATION)?;
                let name = sys::unix_name(endpoint)
                    .map_err(|e| Error::os(OPERATION, &e).at(endpoint).stage(Stage::Socket))?;
                let address = sys::to_address(&name);
                drive.add(Lane::First, Candidate { name, domain: Domain::UNIX, address }, start);
                drive.race.close();
            }
        }
        if let Some(local) = &options.local {
            let cancel = options.cancel.as_ref();
            let family = options.family;
            let found = resolve(local, Type::STREAM, family, deadline, cancel, OPERATION)?;
            drive.local = Some(found);
        }
        Ok(drive)
    }

    fn add(&mut self, lane: Lane, candidate: Candidate, now: Instant) {
        self.race.add(lane, self.candidates.len(), now);
        self.candidates.push(candidate);
    }

    /// Takes what the lookup has found. The families take turns, beginning with that of the
    /// system's first address; if they are asked for apart, with IPv6.
    fn take_found(&mut self, now: Instant) {
        while let Some(mut lookup) = self.lookup.take() {
            let taken = lookup.take(now);
            let over = lookup.is_over();
            let idle = taken.is_none();
            match taken {
                None => {}
                Some(Err(error)) => self.unknown = Some(error),
                Some(Ok(found)) => {
                    let (first_is_ipv6, addresses) = match found {
                        Found::All(all) => (all.first().is_some_and(SocketAddr::is_ipv6), all),
                        Found::Apart(some) => (true, some),
                    };
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

    /// Does what is to be done now. `ready` is the number of a socket under way that has
    /// become writable.
    fn step(&mut self, options: &SocketOptions, mut ready: Option<usize>) -> Result<Step> {
        if options.cancel.as_ref().is_some_and(CancelToken::is_fired) {
            return Err(self.ended_by(&ErrorKind::Cancelled.into()));
        }
        loop {
            let now = Instant::now();
            let (index, began, ended) = if let Some(ready) = ready.take() {
                let Running { index, socket, began } = self.running.swap_remove(ready);
                (index, began, attempt::result(socket))
            } else {
                if self.deadline.0.is_some_and(|at| at <= now) {
                    return Err(self.ended_by(&ErrorKind::TimedOut.into()));
                }
                self.take_found(now);
                let (index, began, pause, begun) = match self.busy_again(now) {
                    Some(again) => again,
                    None => match self.race.next(now) {
                        Next::Start(index) => (index, now, FIRST_PAUSE, self.begin(index, options)),
                        Next::Wait(until) => return Ok(Step::Wait(self.until(until))),
                        Next::Lost => return Err(self.lost()),
                    },
                };
                match begun {
                    Ok(Begun::UnderWay(socket)) => {
                        self.running.push(Running { index, socket, began });
                        continue;
                    }
                    Ok(Begun::Busy(socket)) => {
                        let again = now + pause;
                        self.busy = Some(Busy { index, socket, began, again, pause });
                        continue;
                    }
                    Ok(Begun::Connected(socket)) => (index, began, Ok(socket)),
                    Err(failure) => (index, began, Err(failure)),
                }
            };
            let setting = self.setting(options);
            let finished =
                ended.and_then(|socket| attempt::finish(socket, &self.candidates[index], &setting));
            match finished {
                Ok(connected) => {
                    events::attempt_won(&self.candidates[index].address, began);
                    self.leave_the_rest(&ErrorKind::Closed.into());
                    return Ok(Step::Connected(connected));
                }
                Err(Failure(stage, cause)) => {
                    self.note(index, began, stage, &cause);
                    if cause.kind() == ErrorKind::Cancelled {
                        return Err(self.failed(ErrorKind::Cancelled));
                    }
                    self.race.failed();
                }
            }
        }
    }

    /// Tries a full queue again, when it is time.
    fn busy_again(
        &mut self,
        now: Instant,
    ) -> Option<(usize, Instant, Duration, std::result::Result<Begun, Failure>)> {
        let Busy { index, socket, began, pause, .. } =
            self.busy.take_if(|busy| busy.again <= now)?;
        let begun = attempt::connect_unix(socket, &self.candidates[index].name);
        Some((index, began, (pause * 2).min(MAX_PAUSE), begun))
    }

    /// When there is something to do, if the race has nothing before `next`.
    fn until(&self, next: Option<Instant>) -> Deadline {
        let lookup = self.lookup.as_ref().map_or(Deadline(None), Lookup::next);
        let busy = Deadline(self.busy.as_ref().map(|busy| busy.again));
        self.deadline.earlier(Deadline(next)).earlier(lookup).earlier(busy)
    }

    fn setting<'a>(&'a self, options: &'a SocketOptions) -> Setting<'a> {
        Setting {
            options,
            local: self.local.as_deref(),
            alone: self.lookup.is_none() && self.candidates.len() == 1,
        }
    }

    fn begin(
        &mut self,
        index: usize,
        options: &SocketOptions,
    ) -> std::result::Result<Begun, Failure> {
        if let Some(begun) = self.first.take() {
            return begun;
        }
        let address = &self.candidates[index].address;
        events::attempt_begun(address, index + 1, self.candidates.len());
        attempt::begin(&self.candidates[index], &self.setting(options))
    }

    /// Waits for something to do, and says which socket has become writable.
    fn wait(
        &self,
        until: Deadline,
        cancel: Option<&CancelToken>,
    ) -> std::result::Result<Option<usize>, Cause> {
        let found = self.lookup.as_ref().and_then(Lookup::event);
        wait_writable(&self.sockets(), found, until, cancel)
    }

    fn sockets(&self) -> Vec<Borrowed<'_>> {
        self.running.iter().map(|running| sys::borrow(&running.socket)).collect()
    }

    fn note(&mut self, index: usize, began: Instant, stage: Stage, cause: &Cause) {
        let attempt = Attempt {
            address: self.candidates[index].address.clone(),
            stage,
            kind: cause.kind(),
            os_error: cause.os_error(),
            elapsed: began.elapsed(),
        };
        events::attempt_failed(&attempt);
        self.attempts.push(attempt);
    }

    fn note_running(&mut self, cause: &Cause) {
        let mut running = std::mem::take(&mut self.running);
        running.sort_by_key(|r| r.index);
        for r in running {
            self.note(r.index, r.began, Stage::Connect, cause);
        }
        if let Some(busy) = self.busy.take() {
            self.note(busy.index, busy.began, Stage::Connect, cause);
        }
    }

    /// It is decided: attempts that were slower are closed, and nobody waits for the resolver.
    fn leave_the_rest(&mut self, why: &Cause) {
        self.note_running(why);
        if let Some(lookup) = self.lookup.take() {
            lookup.leave(why.kind());
        }
    }

    /// The deadline, a cancel, or a poll that failed ends all attempts.
    fn ended_by(&mut self, cause: &Cause) -> Error {
        self.leave_the_rest(cause);
        self.failed(cause.kind())
    }

    /// Everything has failed: the first cause met is the one to tell.
    fn lost(&mut self) -> Error {
        match (self.attempts.first().map(|attempt| attempt.kind), self.unknown.take()) {
            (Some(kind), _) => self.failed(kind),
            (None, Some(unknown)) => unknown,
            (None, None) => self.failed(ErrorKind::NotFound),
        }
    }

    /// The error of the whole: the caller's own reasons (deadline, cancel) first, then the
    /// first cause met.
    fn failed(&mut self, kind: ErrorKind) -> Error {
        let attempts = std::mem::take(&mut self.attempts);
        let mut error = Error::new(kind, OPERATION).at(&self.endpoint);
        let first = attempts.iter().find(|a| a.kind == kind);
        if let Some(first) = first {
            error = error.with_os_error(first.os_error).stage(first.stage);
        } else if self.candidates.is_empty() {
            error = error.stage(Stage::Lookup);
        }
        error.after(self.start.elapsed()).with_attempts(attempts)
    }
}

impl Candidate {
    fn inet(address: SocketAddr) -> Candidate {
        Candidate {
            name: address.into(),
            domain: Domain::for_address(address),
            address: address.into(),
        }
    }

    fn is_loopback(&self) -> bool {
        matches!(&self.address, Address::Inet(address) if address.ip().is_loopback())
    }
}
