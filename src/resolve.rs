//! From an endpoint to addresses, in threads that can be left behind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use socket2::Type;

use crate::cancel::CancelToken;
use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::events;
use crate::info::Family;
use crate::sys::{self, LookupError};
use crate::wait::{Deadline, wait_writable};

/// Lookups that may be under way at once, left-behind ones included. A resolver
/// that hangs costs this many threads and no more.
const MAX_LOOKUPS: usize = 64;
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// If the resolver has not answered after this time, each family is asked for by itself: a
/// server that does not answer for one of them does not delay the other any longer. The
/// question for both comes first because only its answer has the order of the system
/// (RFC 6724, gai.conf(5)).
const ASK_APART: Duration = Duration::from_millis(200);

/// What a lookup found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Everything, in the order of the system.
    All(Vec<SocketAddr>),
    /// The addresses of one family, which was asked for by itself.
    Apart(Vec<SocketAddr>),
}

/// A lookup under way: the addresses of an internet endpoint, in the order of the system.
/// `*` stands for the wildcard addresses. An address with a port number never reaches the
/// resolver.
#[derive(Debug)]
pub(crate) struct Lookup {
    endpoint: Endpoint,
    /// The same service name may have one port for streams and another for datagrams.
    kind: Type,
    family: Family,
    operation: &'static str,
    began: Instant,
    answers: Option<Answers>,
    /// The family of each question that is not answered; `Any` asks for both at once.
    awaited: Vec<Family>,
    asked_apart: bool,
    /// The answers for each family are as good as the one for both.
    both_apart: bool,
    /// Something was found.
    found: bool,
    /// Why the first family that was asked for by itself has nothing.
    failure: Option<Error>,
}

/// Where the threads put what the resolver said.
#[derive(Debug)]
struct Answers {
    receive: Receiver<(Family, Answer)>,
    send: Sender<(Family, Answer)>,
    /// Fired when there is something to receive.
    arrived: CancelToken,
}

type Answer = std::result::Result<Vec<SocketAddr>, Failure>;

/// Why the resolver has no addresses: kind, text, the system's error.
type Failure = (ErrorKind, String, Option<i32>);

impl Lookup {
    pub(crate) fn new(
        endpoint: &Endpoint,
        kind: Type,
        family: Family,
        operation: &'static str,
    ) -> Result<Lookup> {
        let mut lookup = Lookup {
            endpoint: endpoint.clone(),
            kind,
            family,
            operation,
            began: Instant::now(),
            answers: None,
            awaited: Vec::new(),
            asked_apart: family != Family::Any,
            both_apart: false,
            found: false,
            failure: None,
        };
        if needs_resolver(endpoint) {
            let arrived = CancelToken::new()
                .map_err(|e| lookup.failed((e.kind(), String::new(), e.os_error())))?;
            let (send, receive) = mpsc::channel();
            lookup.answers = Some(Answers { receive, send, arrived });
            lookup.ask(family)?;
            events::lookup_begun(lookup.name());
        }
        Ok(lookup)
    }

    fn failed(&self, (kind, what, code): Failure) -> Error {
        let error = Error::new(kind, self.operation).at(&self.endpoint).stage(Stage::Lookup);
        error.detail(what).with_os_error(code)
    }

    /// Asks in a thread, which is left behind when nobody waits any longer: getaddrinfo(3)
    /// cannot be cancelled.
    fn ask(&mut self, family: Family) -> Result<()> {
        struct Slot;
        impl Drop for Slot {
            fn drop(&mut self) {
                LOOKUPS.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let Some(answers) = &self.answers else {
            return Ok(());
        };
        let slot = Slot;
        if LOOKUPS.fetch_add(1, Ordering::AcqRel) >= MAX_LOOKUPS {
            let what = format!("{MAX_LOOKUPS} lookups are waiting for the resolver already");
            return Err(self.failed((ErrorKind::LookupFailed, what, None)));
        }
        let worker = {
            let (send, arrived) = (answers.send.clone(), answers.arrived.clone());
            let (endpoint, kind) = (self.endpoint.clone(), self.kind);
            move || {
                let _slot = slot;
                // Nobody may be there any more to receive it, and then nobody is to be woken.
                if send.send((family, look(&endpoint, kind, family))).is_ok() {
                    arrived.fire();
                }
            }
        };
        std::thread::Builder::new()
            .name("keepsock-lookup".to_owned())
            .stack_size(256 * 1024)
            .spawn(worker)
            // pthread_create(3) says EAGAIN for a limit that was reached.
            .map_err(|e| {
                let what = "no thread can be started".to_owned();
                self.failed((ErrorKind::NoMemory, what, e.raw_os_error()))
            })?;
        self.awaited.push(family);
        Ok(())
    }

    /// What the resolver is asked.
    fn name(&self) -> &str {
        match &self.endpoint.0 {
            Target::Inet { host: Host::Name(name), .. } => name,
            Target::Inet { port: Port::Service(name), .. } => name,
            _ => "",
        }
    }

    /// Nobody waits any longer, whether it is over or not.
    pub(crate) fn leave(self, why: ErrorKind) {
        if !self.is_over() {
            events::lookup_left_behind(self.name(), why, self.began);
        }
    }

    /// What ends a wait when there is something to take.
    pub(crate) fn event(&self) -> Option<&sys::Event> {
        self.arrived().map(CancelToken::event)
    }

    pub(crate) fn arrived(&self) -> Option<&CancelToken> {
        self.answers.as_ref().map(|answers| &answers.arrived)
    }

    /// When [`take`](Lookup::take) has something to do even if nothing was answered.
    pub(crate) fn next(&self) -> Deadline {
        Deadline(if self.asked_apart { None } else { self.began.checked_add(ASK_APART) })
    }

    /// Nothing more will be found.
    pub(crate) fn is_over(&self) -> bool {
        self.awaited.is_empty()
    }

    /// What was found since the last call; `None`: nothing yet.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Result<Found>> {
        let Some(answers) = &self.answers else {
            return Some(self.numeric().map(Found::All));
        };
        // First, so that an answer which comes meanwhile fires it again.
        answers.arrived.reset();
        while let Ok((family, answer)) = answers.receive.try_recv() {
            let answer = answer.map_err(|failure| self.failed(failure));
            match &answer {
                Ok(found) => events::lookup_answered(self.name(), found, self.began),
                Err(error) => events::lookup_failed(self.name(), error, self.began),
            }
            self.awaited.retain(|awaited| *awaited != family);
            let all = family == self.family;
            let waits_for_other = self.awaited.iter().any(|f| *f != self.family);
            if all || self.both_apart && !waits_for_other {
                // The other questions were only for the case that this one takes long.
                self.awaited.clear();
            }
            match answer {
                Ok(found) if all => return Some(self.allowed(found).map(Found::All)),
                Ok(found) => {
                    self.found = true;
                    return Some(Ok(Found::Apart(found)));
                }
                Err(error) => {
                    let error = if all { error } else { self.failure.take().unwrap_or(error) };
                    if self.awaited.is_empty() && !self.found {
                        return Some(Err(error));
                    }
                    self.failure = Some(error);
                }
            }
        }
        if !self.asked_apart && now >= self.began + ASK_APART {
            self.asked_apart = true;
            // The places are first of all for names: when many are looked up already, or there
            // is no thread, the first question has to do.
            if LOOKUPS.load(Ordering::Acquire) < MAX_LOOKUPS / 2 {
                let asked = [Family::Ipv6, Family::Ipv4].map(|family| self.ask(family).is_ok());
                self.both_apart = asked == [true, true];
            }
        }
        None
    }

    /// An endpoint that says everything itself.
    fn numeric(&self) -> Result<Vec<SocketAddr>> {
        look(&self.endpoint, self.kind, self.family)
            .map_err(|failure| self.failed(failure))
            .and_then(|found| self.allowed(found))
    }

    fn allowed(&self, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
        found.retain(|a| self.family.allows(a.ip()));
        if found.is_empty() {
            let what = format!("no {:?} address", self.family);
            return Err(self.failed((ErrorKind::NotFound, what, None)));
        }
        Ok(found)
    }
}

fn needs_resolver(endpoint: &Endpoint) -> bool {
    match &endpoint.0 {
        Target::Inet { host, port } => {
            matches!(host, Host::Name(_)) || matches!(port, Port::Service(_))
        }
        _ => false,
    }
}

/// Whether finding the endpoint's addresses takes no time.
pub(crate) fn is_numeric(endpoint: &Endpoint) -> bool {
    !needs_resolver(endpoint)
}

/// Asks the system, and waits for as long as that takes.
fn look(endpoint: &Endpoint, kind: Type, family: Family) -> Answer {
    let Target::Inet { host, port } = &endpoint.0 else {
        return Err((ErrorKind::InvalidEndpoint, "not an internet endpoint".to_owned(), None));
    };
    // Two questions, so that the error tells which of the two is unknown.
    let port = match port {
        Port::Number(n) => *n,
        Port::Service(name) => match sys::lookup(None, name, kind, family).map_err(failure) {
            Ok(found) => found.first().map_or(0, SocketAddr::port),
            Err((ErrorKind::NotFound, _, code)) => {
                return Err((ErrorKind::NotFound, format!("no such service: {name:?}"), code));
            }
            Err(other) => return Err(other),
        },
    };
    match host {
        Host::Any => Ok(vec![
            SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        ]),
        Host::V4(_) | Host::V6(..) => {
            let port = Port::Number(port);
            let numeric = Endpoint(Target::Inet { host: host.clone(), port }).to_socket_addr();
            numeric.map(|a| vec![a]).map_err(|e| (e.kind(), e.reason().to_owned(), None))
        }
        Host::Name(name) => {
            sys::lookup(Some(name), &port.to_string(), kind, family).map_err(failure)
        }
    }
}

fn failure(error: LookupError) -> Failure {
    match error {
        LookupError::NotFound(text) => (ErrorKind::NotFound, text, None),
        LookupError::Failed(text) => (ErrorKind::LookupFailed, text, None),
        LookupError::Os(e) => (ErrorKind::of(&e), String::new(), e.raw_os_error()),
    }
}

/// Looks up within a deadline: all addresses, in the order of the system.
pub(crate) fn resolve(
    endpoint: &Endpoint,
    kind: Type,
    family: Family,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
    operation: &'static str,
) -> Result<Vec<SocketAddr>> {
    let mut lookup = Lookup::new(endpoint, kind, family, operation)?;
    // The order is what is wanted here.
    lookup.asked_apart = true;
    loop {
        if let Some(found) = lookup.take(Instant::now()) {
            return found.map(|found| match found {
                Found::All(found) | Found::Apart(found) => found,
            });
        }
        let woken = wait_writable(&[], lookup.event(), deadline, cancel);
        let kind = match woken {
            Ok(None) if deadline.has_passed() => ErrorKind::TimedOut,
            Ok(_) => continue,
            Err(cause) => cause.kind(),
        };
        lookup.leave(kind);
        return Err(Error::new(kind, operation).at(endpoint).stage(Stage::Lookup));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str, family: Family) -> Result<Vec<SocketAddr>> {
        resolve(&text.parse().unwrap(), Type::STREAM, family, Deadline(None), None, "connect")
    }

    #[test]
    fn numbers_need_no_resolver() {
        let four = "127.0.0.1:80".parse().unwrap();
        assert_eq!(addresses("127.0.0.1:80", Family::Any).unwrap(), [four]);
        let before = LOOKUPS.load(Ordering::Relaxed);
        addresses("[::1]:80", Family::Ipv6).unwrap();
        assert_eq!(LOOKUPS.load(Ordering::Relaxed), before);
    }

    #[test]
    fn a_family_without_address_is_an_error() {
        let err = addresses("127.0.0.1:80", Family::Ipv6).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NotFound);
    }

    /// S4: an unknown zone or service is named.
    #[test]
    fn unknown_zone_and_service_are_named() {
        let err = addresses("[fe80::1%nosuchzone]:80", Family::Any).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
        assert!(err.to_string().contains("nosuchzone"), "{err}");
        let err = addresses("127.0.0.1:no-such-service", Family::Any).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NotFound);
        assert!(err.to_string().contains("no such service: \"no-such-service\""), "{err}");
    }
}
