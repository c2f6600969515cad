//! Name lookups of the program: the addresses of an endpoint.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::Type;

use crate::connect::EVENT_CHECK;
use crate::io::cancel::CancelToken;
use crate::io::deadline::{Deadline, fit_poll};
use crate::io::wait::wait_writable;
use crate::options::SocketOptions;
use crate::resolve::{Lookup, Resolved, alternate};
use crate::sys::{self, Wakeup};
use crate::types::address::Family;
use crate::types::endpoint::{Endpoint, Target};
use crate::types::error::{Error, ErrorKind, Result, Stage};

const OPERATION: &str = "lookup";

/// Returns the addresses of an endpoint, in the order in which
/// [`ClientSocket::connect_with`](crate::ClientSocket::connect_with) tries them (RFC 6724, RFC 8305):
/// the families alternate.
///
/// The options of a later connect may be passed. A lookup uses
/// [`family`](SocketOptions::family), [`preferred_family`](SocketOptions::preferred_family),
/// [`connect_timeout`](SocketOptions::connect_timeout) and [`cancel`](SocketOptions::cancel). If the
/// options have addresses ([`remote_address`](SocketOptions::remote_address)), a connect tries these,
/// so they are the result. A connect with the result as remote addresses needs no lookup.
///
/// A numeric endpoint and `localhost` need no resolver. `*` has the wildcard addresses `[::]` and
/// `0.0.0.0`, which only [`listen`](crate::ServerSocket::listen) and
/// [`bind`](crate::DatagramSocket::bind) accept. The port of a service name is that of TCP. If the
/// timeout expires after a name server has answered for one family, the result has that family.
///
/// # Errors
/// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint; it is a Unix
///   path, which has no addresses; or this machine does not have the zone.
/// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range.
/// - [`NotFound`](ErrorKind::NotFound): the host or the service name does not exist, or the host has
///   no address of the family.
/// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer.
///   [`Error::lookup_code`] is the code of getaddrinfo(3), also for `NotFound`.
/// - [`TimedOut`](ErrorKind::TimedOut): the connect timeout expired.
/// - [`Cancelled`](ErrorKind::Cancelled): the token of the options was fired.
/// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor left.
/// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
/// - [`Os`](ErrorKind::Os): another error of the operating system.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let mut options = SocketOptions::new();
/// for address in keepsock::lookup(format!("localhost:{}", server.port()), &options)? {
///     options = options.remote_address(address);
/// }
/// let client = ClientSocket::connect_with("localhost:80", &options)?;   // no second lookup
/// # Ok::<(), keepsock::Error>(())
/// ```
pub fn lookup<E>(endpoint: E, options: &SocketOptions) -> Result<Vec<SocketAddr>>
where
    E: TryInto<Endpoint>,
    Error: From<E::Error>,
{
    PendingLookup::start(endpoint, options)?.wait()
}

/// A lookup in progress, for programs that wait in an event loop. The result and the options are
/// those of [`lookup`].
///
/// Call [`finish`](PendingLookup::finish) until it returns the addresses or an error: when
/// [`descriptor`](PendingLookup::descriptor) is readable (not Windows), or after
/// [`next_timeout`](PendingLookup::next_timeout) on every platform. [`wait`](PendingLookup::wait) waits for
/// the result instead. Dropping the object abandons the lookup.
///
/// ```
/// use keepsock::{PendingLookup, SocketOptions};
/// let mut pending = PendingLookup::start("localhost:80", &SocketOptions::new())?;
/// let addresses = loop {
///     match pending.finish()? {
///         Some(addresses) => break addresses,
///         None => { /* other work */ }
///     }
/// };
/// assert!(addresses.iter().all(|address| address.ip().is_loopback()));
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct PendingLookup {
    endpoint: Endpoint,
    preferred: Family,
    cancel: Option<CancelToken>,
    began: Instant,
    deadline: Deadline,
    lookup: Option<Lookup>,
    /// The addresses found so far, and whether IPv6 addresses come first.
    found: Vec<SocketAddr>,
    begins_with_ipv6: Option<bool>,
    /// The result, until `finish` returns it.
    outcome: Option<Result<Vec<SocketAddr>>>,
    is_finished: bool,
    wakeup: Option<Wakeup>,
}

impl PendingLookup {
    /// Starts a lookup. Never waits.
    ///
    /// # Errors
    /// [`finish`](PendingLookup::finish) returns all other errors.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint, or it is a
    ///   Unix path, which has no addresses.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{PendingLookup, SocketOptions};
    /// let mut pending = PendingLookup::start("localhost:80", &SocketOptions::new())?;
    /// let addresses = pending.wait()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn start<E>(endpoint: E, options: &SocketOptions) -> Result<PendingLookup>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?;
        options.validate(OPERATION)?;
        let Target::Inet { .. } = endpoint.0 else {
            return Err(Error::new(ErrorKind::InvalidEndpoint, OPERATION)
                .at(endpoint)
                .detail("a Unix socket has no IP address: connect to it without a lookup"));
        };
        let began = Instant::now();
        let mut pending = PendingLookup {
            preferred: options.preferred_family,
            cancel: options.cancel.clone(),
            began,
            deadline: Deadline::from(began, options.connect_timeout),
            lookup: None,
            found: Vec::new(),
            begins_with_ipv6: None,
            outcome: None,
            is_finished: false,
            wakeup: None,
            endpoint,
        };
        if options.addresses.is_empty() {
            let (endpoint, family) = (&pending.endpoint, options.family);
            pending.lookup = Some(Lookup::new(endpoint, Type::STREAM, family, OPERATION)?);
        } else {
            let allowed = options.addresses.iter().filter(|a| options.family.allows(a.ip()));
            let is_first = |a: &SocketAddr| options.preferred_family.allows(a.ip());
            let found = alternate(allowed.copied(), is_first);
            pending.complete(match found.is_empty() {
                false => Ok(found),
                true => Err(Error::new(ErrorKind::NotFound, OPERATION)
                    .at(&pending.endpoint)
                    .detail("the option family excludes every remote_address")),
            });
        }
        pending.advance();
        Ok(pending)
    }

    /// Continues the lookup without waiting. `None`: it is in progress.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): an earlier call has returned the addresses or an
    ///   error.
    /// - All errors of [`lookup`].
    ///
    /// ```
    /// # use keepsock::{PendingLookup, SocketOptions};
    /// let mut pending = PendingLookup::start("192.0.2.1:80", &SocketOptions::new())?;
    /// assert_eq!(pending.finish()?, Some(vec!["192.0.2.1:80".parse().unwrap()]));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn finish(&mut self) -> Result<Option<Vec<SocketAddr>>> {
        if self.is_finished && self.outcome.is_none() {
            return Err(self.finished_error());
        }
        self.advance();
        if let Err(e) = self.update_wakeup() {
            return Err(self.os_error(&e));
        }
        self.outcome.take().transpose()
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// The errors of [`finish`](PendingLookup::finish).
    ///
    /// ```
    /// # use keepsock::{PendingLookup, SocketOptions};
    /// let mut pending = PendingLookup::start("localhost:80", &SocketOptions::new())?;
    /// let addresses = pending.wait()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait(&mut self) -> Result<Vec<SocketAddr>> {
        loop {
            if let Some(found) = self.finish()? {
                return Ok(found);
            }
            let event = self.lookup.as_ref().and_then(Lookup::event);
            if let Err(cause) = wait_writable(&[], event, self.until(), self.cancel.as_ref()) {
                self.fail(cause.kind());
            }
        }
    }

    /// The time after which [`finish`](PendingLookup::finish) must be called. `None`: no limit, or
    /// `finish` has returned the result. Without [`descriptor`](PendingLookup::descriptor) the time
    /// is at most 25 ms during the lookup. The result is at most [`i32::MAX`] milliseconds, which
    /// poll(2) accepts.
    ///
    /// ```
    /// # use keepsock::{PendingLookup, SocketOptions};
    /// let pending = PendingLookup::start("192.0.2.1:80", &SocketOptions::new())?;
    /// assert_eq!(pending.next_timeout(), Some(std::time::Duration::ZERO));   // it has a result
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn next_timeout(&self) -> Option<Duration> {
        let until = match (&self.outcome, self.is_finished) {
            (Some(_), _) => Deadline::after(Some(Duration::ZERO)),
            (None, true) => Deadline(None),
            (None, false) => {
                let check = self.wakeup.is_none().then_some(EVENT_CHECK);
                self.until().earlier(Deadline::after(check))
            }
        };
        until.remaining().map(fit_poll)
    }

    /// Borrows a descriptor for an event loop. The descriptor is readable whenever
    /// [`finish`](PendingLookup::finish) must be called, also for the cancel token and the timeout.
    /// It is the same descriptor until `finish` returns the addresses or an error. It then stays
    /// readable, so remove it from the event loop.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): `finish` has returned the addresses or an error.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform is neither Linux nor a system
    ///   with kqueue(2).
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left. The call needs two.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{PendingLookup, SocketOptions};
    /// let mut pending = PendingLookup::start("localhost:80", &SocketOptions::new())?;
    /// # #[cfg(target_os = "linux")] {
    /// use std::os::fd::AsRawFd;
    /// println!("poll descriptor {} for input", pending.descriptor()?.as_raw_fd());
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn descriptor(&mut self) -> Result<sys::Borrowed<'_>> {
        if self.is_finished && self.outcome.is_none() {
            return Err(self.finished_error());
        }
        if self.wakeup.is_none() {
            self.wakeup = Some(Wakeup::new().map_err(|e| self.os_error(&e))?);
        }
        // An earlier call may have failed here. Sources that were added already are skipped.
        self.update_wakeup().map_err(|e| self.os_error(&e))?;
        match &self.wakeup {
            Some(wakeup) => Ok(wakeup.descriptor()),
            None => Err(Error::new(ErrorKind::Unsupported, OPERATION).at(&self.endpoint)),
        }
    }

    /// The time of the next step if no answer arrives.
    fn until(&self) -> Deadline {
        self.deadline.earlier(self.lookup.as_ref().map_or(Deadline(None), Lookup::next))
    }

    fn advance(&mut self) {
        if !self.is_finished && self.cancel.as_ref().is_some_and(CancelToken::is_fired) {
            self.fail(ErrorKind::Cancelled);
        }
        while !self.is_finished {
            let Some(lookup) = &mut self.lookup else { return };
            let answer = lookup.poll(Instant::now());
            match answer {
                Some(Err(error)) => {
                    let error = error.after(self.began.elapsed());
                    self.complete(Err(error));
                }
                Some(Ok(answer)) => {
                    let is_over = lookup.is_over();
                    let is_all = matches!(answer, Resolved::All(_));
                    let begins = answer.begins_with_ipv6(self.preferred);
                    self.begins_with_ipv6.get_or_insert(begins);
                    let (Resolved::All(found) | Resolved::Partial(found)) = answer;
                    self.found.extend(found);
                    if is_all || is_over {
                        self.complete_found();
                    }
                }
                None if lookup.is_over() && !self.found.is_empty() => self.complete_found(),
                None if !self.deadline.has_passed() => return,
                None if self.found.is_empty() => self.fail(ErrorKind::TimedOut),
                None => self.complete_found(),
            }
        }
    }

    fn complete_found(&mut self) {
        let ipv6 = self.begins_with_ipv6 == Some(true);
        let found = std::mem::take(&mut self.found).into_iter();
        self.complete(Ok(alternate(found, |address| address.is_ipv6() == ipv6)));
    }

    fn fail(&mut self, kind: ErrorKind) {
        let error = Error::new(kind, OPERATION).at(&self.endpoint).stage(Stage::Lookup);
        self.complete(Err(error.after(self.began.elapsed())));
    }

    fn complete(&mut self, outcome: Result<Vec<SocketAddr>>) {
        let kind = outcome.as_ref().map_or_else(Error::kind, |_| ErrorKind::TimedOut);
        if let Some(lookup) = self.lookup.take() {
            lookup.abandon(kind);
        }
        self.outcome = Some(outcome);
        self.is_finished = true;
    }

    /// Adds everything that the lookup waits for to the wakeup, if there is one.
    fn update_wakeup(&mut self) -> io::Result<()> {
        let Some(wakeup) = &self.wakeup else {
            return Ok(());
        };
        if self.is_finished {
            return wakeup.set_timer(Some(Duration::ZERO));
        }
        if let Some(event) = self.lookup.as_ref().and_then(Lookup::event) {
            wakeup.add_event(event)?;
        }
        if let Some(event) = self.cancel.as_ref().and_then(CancelToken::own_event) {
            wakeup.add_event(event)?;
        }
        wakeup.set_timer(self.until().remaining())
    }

    fn finished_error(&self) -> Error {
        let error = Error::new(ErrorKind::WrongState, OPERATION).at(&self.endpoint);
        error.detail("the lookup has finished: start a new lookup")
    }

    fn os_error(&self, e: &io::Error) -> Error {
        Error::helper(OPERATION, e).at(&self.endpoint)
    }
}
