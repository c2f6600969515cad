//! From an endpoint to addresses, within a deadline.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::cancel::CancelToken;
use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::events;
use crate::info::Family;
use crate::sys::{self, Lookup, LookupError};
use crate::wait::{Deadline, wait};

/// Lookups that may be under way at once, left-behind ones included. A resolver
/// that hangs costs this many threads and no more.
const MAX_LOOKUPS: usize = 64;
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// The addresses of an internet endpoint, in the order of the system
/// (RFC 6724). `*` stands for the wildcard addresses. An address with a port
/// number never reaches the resolver.
pub(crate) fn resolve(
    endpoint: &Endpoint,
    family: Family,
    deadline: Deadline,
    cancel: Option<&CancelToken>,
    operation: &'static str,
) -> Result<Vec<SocketAddr>> {
    let fail = |kind, what: String| {
        Error::new(kind, operation).at(endpoint).stage(Stage::Lookup).detail(what)
    };
    let Target::Inet { host, port } = &endpoint.0 else {
        return Err(fail(ErrorKind::InvalidEndpoint, "not an internet endpoint".to_owned()));
    };
    let look = |name: Option<&str>, service: &str| -> Result<Vec<SocketAddr>> {
        let (asked, since) = (name.unwrap_or(service), Instant::now());
        let found = lookup_by(deadline, cancel, name, service, family, operation)
            .map_err(|e| e.at(endpoint).stage(Stage::Lookup))?;
        let found = found.map_err(|e| match e {
            LookupError::NotFound(text) => fail(ErrorKind::NotFound, text),
            LookupError::Failed(text) => fail(ErrorKind::LookupFailed, text),
            LookupError::Os(err) => Error::os(operation, &err).at(endpoint).stage(Stage::Lookup),
        });
        match &found {
            Ok(found) => events::lookup_answered(asked, found, since),
            Err(e) => events::lookup_failed(asked, e, since),
        }
        found
    };
    // Only the port: some system databases are asked over the network too.
    let number = |port: &Port| -> Result<u16> {
        match port {
            Port::Number(n) => Ok(*n),
            Port::Service(s) => match look(None, s) {
                Ok(found) => Ok(found.first().map_or(0, SocketAddr::port)),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    Err(fail(ErrorKind::NotFound, format!("no such service: {s:?}")))
                }
                Err(e) => Err(e),
            },
        }
    };
    let found = match host {
        Host::Any => {
            let port = number(port)?;
            vec![
                SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), port),
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            ]
        }
        Host::V4(_) | Host::V6(..) => {
            let port = Port::Number(number(port)?);
            let numeric = Endpoint(Target::Inet { host: host.clone(), port }).to_socket_addr();
            vec![numeric.map_err(|e| fail(e.kind(), e.reason().to_owned()))?]
        }
        Host::Name(name) => match port {
            Port::Number(n) => look(Some(name), &n.to_string())?,
            // Two questions, so that the error tells which of the two is unknown.
            service => {
                let port = number(service)?;
                look(Some(name), &port.to_string())?
            }
        },
    };
    let allowed: Vec<_> = found.into_iter().filter(|a| family.allows(a.ip())).collect();
    if allowed.is_empty() {
        return Err(fail(ErrorKind::NotFound, format!("no {family:?} address")));
    }
    Ok(allowed)
}

/// Looks up in a thread that is left behind when the time is over:
/// getaddrinfo(3) cannot be cancelled.
fn lookup_by(
    deadline: Deadline,
    cancel: Option<&CancelToken>,
    host: Option<&str>,
    service: &str,
    family: Family,
    operation: &'static str,
) -> Result<Lookup> {
    struct Slot;
    impl Drop for Slot {
        fn drop(&mut self) {
            LOOKUPS.fetch_sub(1, Ordering::AcqRel);
        }
    }
    let slot = Slot;
    if LOOKUPS.fetch_add(1, Ordering::AcqRel) >= MAX_LOOKUPS {
        return Err(Error::new(ErrorKind::LookupFailed, operation)
            .detail(format!("{MAX_LOOKUPS} lookups are waiting for the resolver already")));
    }
    let answer: Arc<Mutex<Option<Lookup>>> = Arc::default();
    // Two tokens wake one poll through one: the worker's own, which a caller's
    // cancel cannot be, so the caller's is watched as the socket's would be.
    let done = CancelToken::new()
        .map_err(|e| Error::new(e.kind(), operation).with_os_error(e.os_error()))?;
    let worker = {
        let (answer, done) = (answer.clone(), done.clone());
        let (host, service) = (host.map(str::to_owned), service.to_owned());
        move || {
            let _slot = slot;
            let found = sys::lookup(host.as_deref(), &service, family);
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            done.fire();
        }
    };
    std::thread::Builder::new()
        .name("keepsock-lookup".to_owned())
        .stack_size(256 * 1024)
        .spawn(worker)
        // pthread_create(3) says EAGAIN for a limit that was reached.
        .map_err(|e| {
            Error::new(ErrorKind::NoMemory, operation)
                .with_os_error(e.raw_os_error())
                .detail("no thread can be started")
        })?;
    let (asked, since) = (host.unwrap_or(service), Instant::now());
    events::lookup_begun(asked);
    let left_behind = |e: Error| {
        events::lookup_left_behind(asked, e.kind(), since);
        e
    };
    loop {
        // Without a caller's token one wait does it; with one, both are looked
        // at in turn often enough for a cancel to take hold within 50 ms.
        let step = match cancel {
            None => deadline,
            Some(_) => {
                deadline.earlier(Deadline::after(Some(std::time::Duration::from_millis(20))))
            }
        };
        let waited = wait(None, step, Some(&done), || false);
        if let Some(found) = answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(found);
        }
        if let Err(cause) = waited {
            if cause.kind() != ErrorKind::Cancelled {
                return Err(left_behind(cause.into_error(operation)));
            }
        }
        if cancel.is_some_and(CancelToken::is_fired) {
            return Err(left_behind(Error::new(ErrorKind::Cancelled, operation)));
        }
        if deadline.has_passed() {
            return Err(left_behind(Error::new(ErrorKind::TimedOut, operation)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str, family: Family) -> Result<Vec<SocketAddr>> {
        resolve(&text.parse().unwrap(), family, Deadline(None), None, "connect")
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
