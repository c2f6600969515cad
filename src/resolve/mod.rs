//! Resolving an endpoint to addresses.

pub(crate) mod threads;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use socket2::Type;

use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::io::wait::wait_writable;
use crate::log;
use crate::resolve::threads::{Pool, Ticket, Work};
use crate::sys::fork::PerProcess;
use crate::sys::{self, LookupError};
use crate::types::address::{Family, canonical};
use crate::types::endpoint::{Endpoint, Host, Port, Target};
use crate::types::error::{Error, ErrorKind, Result, Stage};

/// The lookups of host names.
static NAMES: PerProcess<Pool<Query>> = PerProcess::new();
/// The lookups of service names without a host name. They need no name server, so they do not wait
/// behind host names whose name server does not answer.
static SERVICES: PerProcess<Pool<Query>> = PerProcess::new();

fn pool_for(endpoint: &Endpoint) -> &'static PerProcess<Pool<Query>> {
    match &endpoint.0 {
        Target::Inet { host: Host::Name(_), .. } => &NAMES,
        _ => &SERVICES,
    }
}

/// The time after which each family is looked up separately, if the resolver has not answered. Then
/// a name server that does not answer for one family no longer delays the other. The lookup of both
/// families comes first, because only its answer has the order of the system (RFC 6724,
/// gai.conf(5)).
const SEPARATE_AFTER: Duration = Duration::from_millis(200);

/// The result of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// All addresses, in the order of the system.
    All(Vec<SocketAddr>),
    /// The addresses of one family, from a separate lookup.
    Partial(Vec<SocketAddr>),
}

impl Resolved {
    /// Whether IPv6 addresses are tried first. Without a preference the first address of the system's
    /// answer decides, and IPv6 is first if the families are looked up separately.
    pub(crate) fn begins_with_ipv6(&self, preferred: Family) -> bool {
        match (preferred, self) {
            (Family::Ipv4, _) => false,
            (Family::Ipv6, _) | (Family::Any, Resolved::Partial(_)) => true,
            (Family::Any, Resolved::All(all)) => all.first().is_some_and(SocketAddr::is_ipv6),
        }
    }
}

/// Orders addresses as a connect tries them: those of the first group alternate with the others (RFC
/// 8305 section 4). An address that repeats is left out.
pub(crate) fn alternate(
    addresses: impl Iterator<Item = SocketAddr>,
    is_first: impl Fn(&SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for address in addresses {
        let group = if is_first(&address) { &mut first } else { &mut second };
        if !group.contains(&address) {
            group.push(address);
        }
    }
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let pairs = std::iter::from_fn(|| match (first.next(), second.next()) {
        (None, None) => None,
        pair => Some(pair),
    });
    pairs.flat_map(|(a, b)| a.into_iter().chain(b)).collect()
}

/// A lookup in progress, of the addresses of an internet endpoint in the order of the system. `*`
/// resolves to the wildcard addresses. A numeric address and `localhost` need no resolver.
#[derive(Debug)]
pub(crate) struct Lookup {
    endpoint: Endpoint,
    /// A service name may have different ports for streams and datagrams.
    kind: Type,
    family: Family,
    operation: &'static str,
    began: Instant,
    answers: Option<Answers>,
    /// The family of each pending query; `Any` is the query for both families.
    pending: Vec<(Family, Ticket<Query>)>,
    /// The time at which the families are looked up separately; `None`: that is done, or not
    /// wanted.
    separate_at: Option<Instant>,
    /// The separate queries were started, so their answers together are complete.
    separate: bool,
    /// An address was found.
    found: bool,
    /// The error of the first separate query that failed.
    failure: Option<Error>,
}

/// The channel on which the threads deliver the answers of the resolver.
#[derive(Debug)]
struct Answers {
    receive: Receiver<(Family, Answer)>,
    send: Sender<(Family, Answer)>,
    /// Fired when an answer arrives.
    arrived: CancelToken,
}

/// A query to the resolver, and the channel for its answer.
struct Query {
    endpoint: Endpoint,
    kind: Type,
    family: Family,
    send: Sender<(Family, Answer)>,
    arrived: CancelToken,
}

impl Work for Query {
    type Answer = Answer;

    fn run(&self) -> Answer {
        query_system(&self.endpoint, self.kind, self.family)
    }

    fn deliver(&self, answer: Answer) {
        // The caller may have stopped waiting. Then there is no receiver to wake.
        if self.send.send((self.family, answer)).is_ok() {
            self.arrived.fire();
        }
    }

    fn deliver_no_thread(&self, code: Option<i32>) {
        // pthread_create(3) returns EAGAIN if a limit is reached.
        let text = "the system cannot start a thread for the lookup".to_owned();
        let os_error = code;
        self.deliver(Err(Failure { text, os_error, ..ErrorKind::NoMemory.into() }));
    }
}

type Answer = std::result::Result<Vec<SocketAddr>, Failure>;

/// The error of a query.
struct Failure {
    kind: ErrorKind,
    text: String,
    os_error: Option<i32>,
    /// The code of getaddrinfo(3).
    code: Option<i32>,
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Failure {
        Failure { kind, text: String::new(), os_error: None, code: None }
    }
}

impl Lookup {
    pub(crate) fn new(
        endpoint: &Endpoint,
        kind: Type,
        family: Family,
        operation: &'static str,
    ) -> Result<Lookup> {
        let began = Instant::now();
        let mut lookup = Lookup {
            endpoint: endpoint.clone(),
            kind,
            family,
            operation,
            began,
            answers: None,
            pending: Vec::new(),
            separate_at: (family == Family::Any).then(|| began + SEPARATE_AFTER),
            separate: false,
            found: false,
            failure: None,
        };
        if needs_resolver(endpoint) {
            let arrived = CancelToken::new().map_err(|e| {
                lookup.failed(Failure { os_error: e.os_error(), ..e.kind().into() })
            })?;
            let (send, receive) = mpsc::channel();
            lookup.answers = Some(Answers { receive, send, arrived });
            lookup.start_query(family);
        }
        if is_named(endpoint) {
            log::lookup_started(lookup.name());
        }
        Ok(lookup)
    }

    fn failed(&self, failure: Failure) -> Error {
        let error = Error::new(failure.kind, self.operation).at(&self.endpoint);
        let error = error.stage(Stage::Lookup).detail(failure.text);
        error.with_os_error(failure.os_error).with_lookup_code(failure.code)
    }

    /// Starts a query. Its answer arrives in `answers`.
    fn start_query(&mut self, family: Family) {
        if let Some(Answers { send, arrived, .. }) = &self.answers {
            let (send, arrived) = (send.clone(), arrived.clone());
            let (endpoint, kind) = (self.endpoint.clone(), self.kind);
            let query = Query { endpoint, kind, family, send, arrived };
            let pool = Pool::of(pool_for(&self.endpoint));
            self.pending.push((family, pool.begin(query)));
        }
    }

    /// The name that is looked up.
    fn name(&self) -> &str {
        match &self.endpoint.0 {
            Target::Inet { host: Host::Name(name), .. } => name,
            Target::Inet { port: Port::Service(name), .. } => name,
            _ => "",
        }
    }

    /// Abandons the lookup. Logs that if a query is still pending.
    pub(crate) fn abandon(self, why: ErrorKind) {
        if !self.is_over() {
            log::lookup_abandoned(self.name(), why, self.began);
        }
    }

    /// The event that is set when an answer arrives.
    pub(crate) fn event(&self) -> Option<&sys::Event> {
        self.arrived().map(CancelToken::event)
    }

    pub(crate) fn arrived(&self) -> Option<&CancelToken> {
        self.answers.as_ref().map(|answers| &answers.arrived)
    }

    /// The time at which [`poll`](Lookup::poll) must be called even if no answer arrived.
    pub(crate) fn next(&self) -> Deadline {
        Deadline(self.separate_at)
    }

    /// Whether all answers have arrived.
    pub(crate) fn is_over(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns the addresses found since the last call; `None`: there is no new answer.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Result<Resolved>> {
        let Some(answers) = &self.answers else {
            return Some(self.numeric().map(Resolved::All));
        };
        // The reset comes first, so that a later answer fires the token again.
        answers.arrived.reset();
        while let Ok((family, answer)) = answers.receive.try_recv() {
            let answer = answer.map_err(|failure| self.failed(failure));
            match &answer {
                Ok(found) => log::lookup_succeeded(self.name(), found, self.began),
                Err(error) => log::lookup_failed(self.name(), error, self.began),
            }
            self.pending.retain(|(pending, _)| *pending != family);
            let all = family == self.family;
            let waits_for_other = self.pending.iter().any(|(f, _)| *f != self.family);
            if all || self.separate && !waits_for_other {
                // The other queries were started only because this one took long.
                self.pending.clear();
            }
            match answer {
                Ok(found) if all => return Some(self.allowed(found).map(Resolved::All)),
                Ok(found) => {
                    self.found = true;
                    return Some(Ok(Resolved::Partial(found)));
                }
                Err(error) => {
                    let error = if all { error } else { self.failure.take().unwrap_or(error) };
                    if self.pending.is_empty() && !self.found {
                        return Some(Err(error));
                    }
                    self.failure = Some(error);
                }
            }
        }
        if self.separate_at.is_some_and(|at| at <= now) {
            // While many names are looked up, their queries have priority over separate ones.
            let has_room = Pool::of(pool_for(&self.endpoint)).has_room();
            self.separate_at = (!has_room).then(|| now + SEPARATE_AFTER);
            if has_room {
                self.start_query(Family::Ipv6);
                self.start_query(Family::Ipv4);
                self.separate = true;
            }
        }
        None
    }

    /// Returns the addresses of an endpoint that needs no resolver.
    fn numeric(&self) -> Result<Vec<SocketAddr>> {
        let found = query_system(&self.endpoint, self.kind, self.family)
            .map_err(|failure| self.failed(failure))
            .and_then(|found| self.allowed(found))?;
        if is_named(&self.endpoint) {
            log::lookup_succeeded(self.name(), &found, self.began);
        }
        Ok(found)
    }

    fn allowed(&self, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
        found.retain(|a| self.family.allows(a.ip()));
        if found.is_empty() {
            let family = if self.family == Family::Ipv6 { "IPv6" } else { "IPv4" };
            let text = format!("no {family} address, and the option family permits no other");
            return Err(self.failed(Failure { text, ..ErrorKind::NotFound.into() }));
        }
        Ok(found)
    }
}

/// Whether the host or the port is a name.
fn is_named(endpoint: &Endpoint) -> bool {
    match &endpoint.0 {
        Target::Inet { host, port } => {
            matches!(host, Host::Name(_)) || matches!(port, Port::Service(_))
        }
        _ => false,
    }
}

fn needs_resolver(endpoint: &Endpoint) -> bool {
    match &endpoint.0 {
        Target::Inet { host: Host::Name(name), port: Port::Number(_) } => !is_localhost(name),
        _ => is_named(endpoint),
    }
}

/// RFC 6761 section 6.3: these names always mean this machine, independent of the resolver.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    let (host, suffix) = (b"localhost".as_slice(), b".localhost".as_slice());
    let end = name.len().checked_sub(suffix.len()).map_or(name, |at| &name[at..]);
    name.eq_ignore_ascii_case(host) || end.eq_ignore_ascii_case(suffix)
}

/// Returns the loopback addresses in the order of RFC 6724. IPv6 is included only if this machine
/// has it.
fn loopback(port: u16, family: Family) -> Vec<SocketAddr> {
    let all = [SocketAddr::from((Ipv6Addr::LOCALHOST, port)), (Ipv4Addr::LOCALHOST, port).into()];
    // connect(2) rejects port 0 on some systems. The port does not matter here.
    let probe = SocketAddr::from((Ipv6Addr::LOCALHOST, port.max(1)));
    let usable = |address: &SocketAddr| {
        family.allows(address.ip())
            && (address.is_ipv4()
                || family == Family::Ipv6
                || sys::is_reachable(&probe.into(), None).unwrap_or(true))
    };
    all.into_iter().filter(usable).collect()
}

/// Whether the addresses of the endpoint are known without the resolver.
pub(crate) fn is_numeric(endpoint: &Endpoint) -> bool {
    !needs_resolver(endpoint)
}

/// Calls the system's resolver and waits for its answer.
fn query_system(endpoint: &Endpoint, kind: Type, family: Family) -> Answer {
    let Target::Inet { host, port } = &endpoint.0 else {
        let text = "not an internet endpoint".to_owned();
        return Err(Failure { text, ..ErrorKind::InvalidEndpoint.into() });
    };
    // Two queries, so that the error states which of the two names is unknown.
    let port = match port {
        Port::Number(n) => *n,
        Port::Service(name) => match sys::lookup(None, name, kind, family).map_err(failure) {
            Ok(found) => found.first().map_or(0, SocketAddr::port),
            Err(failure) if failure.kind == ErrorKind::NotFound => {
                return Err(Failure {
                    text: format!("no service is named {name:?}: write the number of the port"),
                    ..failure
                });
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
            let failed = |e: Error| Failure { text: e.reason().to_owned(), ..e.kind().into() };
            numeric.map(|a| vec![a]).map_err(failed)
        }
        Host::Name(name) if is_localhost(name) => Ok(loopback(port, family)),
        Host::Name(name) => {
            let found = sys::lookup(Some(name), &port.to_string(), kind, family);
            let canonical = |found: Vec<_>| found.into_iter().map(canonical).collect();
            found.map(canonical).map_err(failure)
        }
    }
}

fn failure(error: LookupError) -> Failure {
    match error {
        LookupError::NotFound(text, code) => Failure { text, code, ..ErrorKind::NotFound.into() },
        LookupError::Failed(text, code) => Failure { text, code, ..ErrorKind::LookupFailed.into() },
        // Other errors (a file, a server) concern the resolver and not the endpoint.
        #[cfg(unix)]
        LookupError::Os(e, code) => {
            let (kind, text) = match ErrorKind::of(&e) {
                kind @ (ErrorKind::NoDescriptors | ErrorKind::NoMemory) => (kind, String::new()),
                _ => (ErrorKind::LookupFailed, e.to_string()),
            };
            Failure { kind, text, os_error: e.raw_os_error(), code }
        }
    }
}

/// Looks up all addresses of an endpoint, in the order of the system, within a deadline.
pub(crate) fn resolve(
    endpoint: &Endpoint,
    kind: Type,
    family: Family,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
    operation: &'static str,
) -> Result<Vec<SocketAddr>> {
    let mut lookup = Lookup::new(endpoint, kind, family, operation)?;
    // Separate lookups would lose the order of the system.
    lookup.separate_at = None;
    loop {
        if let Some(found) = lookup.poll(Instant::now()) {
            return found.map(|found| match found {
                Resolved::All(found) | Resolved::Partial(found) => found,
            });
        }
        let woken = wait_writable(&[], lookup.event(), deadline, cancel);
        let kind = match woken {
            Ok(None) if deadline.has_passed() => ErrorKind::TimedOut,
            Ok(_) => continue,
            Err(cause) => cause.kind(),
        };
        lookup.abandon(kind);
        return Err(Error::new(kind, operation).at(endpoint).stage(Stage::Lookup));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str, family: Family) -> Result<Vec<SocketAddr>> {
        resolve(&text.parse().unwrap(), Type::STREAM, family, Deadline(None), None, "connect")
    }

    /// C2: the addresses are in the order in which the race starts the attempts.
    #[test]
    fn alternate_orders_as_the_race() {
        let parse = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let order = |list: &[&str], ipv6: bool| -> Vec<String> {
            let list = list.iter().map(|text| parse(text));
            let found = alternate(list, |a| a.is_ipv6() == ipv6);
            found.iter().map(ToString::to_string).collect()
        };
        let mixed = ["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        assert_eq!(order(&mixed, true), expected);
        let expected = ["1.1.1.1:1", "[::1]:1", "2.2.2.2:1", "[::2]:1", "[::3]:1"];
        assert_eq!(order(&mixed, false), expected);
        assert!(order(&[], true).is_empty());
    }

    #[test]
    fn resolve_of_numeric_endpoint_needs_no_resolver() {
        let four = "127.0.0.1:80".parse().unwrap();
        assert_eq!(addresses("127.0.0.1:80", Family::Any).unwrap(), [four]);
        addresses("[::1]:80", Family::Ipv6).unwrap();
    }

    #[test]
    fn resolve_fails_without_address_of_the_family() {
        let err = addresses("127.0.0.1:80", Family::Ipv6).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NotFound);
    }

    /// S4: the error contains the unknown zone or service.
    #[test]
    fn resolve_error_names_unknown_zone_or_service() {
        let err = addresses("[fe80::1%nosuchzone]:80", Family::Any).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
        assert!(err.to_string().contains("nosuchzone"), "{err}");
        let err = addresses("127.0.0.1:no-such-service", Family::Any).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NotFound);
        assert!(err.to_string().contains("no service is named \"no-such-service\""), "{err}");
    }
}
