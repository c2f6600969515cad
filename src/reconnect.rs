//! Connecting with retries: the time of each retry, and the errors after which a retry is useful.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::connect::{EVENT_CHECK, PendingConnect, Watch};
use crate::io::backoff::BackOff;
use crate::io::cancel::CancelToken;
use crate::io::deadline::{Deadline, fit_poll};
use crate::io::random::random;
use crate::io::wait::wait;
use crate::options::SocketOptions;
use crate::stream::ClientSocket;
#[cfg(feature = "serve")]
use crate::sys::Borrowed;
use crate::sys::Wakeup;
use crate::sys::sync::Mutex;
use crate::types::address::AddressUse;
use crate::types::endpoint::{Endpoint, Host, Target};
use crate::types::error::{Error, ErrorKind, Millis, Result, Span};

const OPERATION: &str = "connect";

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// The longest permitted backoff. It also prevents an overflow of the clock.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A client that connects, and connects again after the connection was lost: it retries with
/// backoff until it succeeds. [`connect`](Reconnect::connect) waits for the connection, and
/// [`try_connect`](Reconnect::try_connect) is for an event loop. No thread works in between. The
/// program itself repeats data that was in flight when a connection was lost.
///
/// - Each try is a separate [`ClientSocket::connect_with`]: the name is looked up again, and every
///   option is applied again.
/// - The wait before a retry is a random time between zero and a bound. The bound is 100 ms,
///   doubles after each failure, and is at most 30 s ("exponential backoff" with "full jitter", as
///   in the article of that name in the AWS Architecture Blog; no RFC on TCP describes it). So a
///   thousand clients that lose their server at the same moment do not reconnect at the same
///   moment. [`set_backoff`](Reconnect::set_backoff) sets both bounds.
/// - Only the first try starts immediately. A connection counts as a success if it was established
///   at least the longest bound (30 s) before the next call of `connect`; the bound then starts
///   again at 100 ms. A connection that was lost sooner counts as a failure, so a server that
///   accepts and immediately closes is retried with increasing delays. A program that knows better,
///   for example because the server accepted its password, calls [`reset`](Reconnect::reset).
/// - Permanent errors end the call immediately: `InvalidArgument`, `InvalidEndpoint` (such as
///   a name whose addresses no peer can have), `Unsupported` (this machine lacks the IP version or the
///   option), `PermissionDenied` (a policy of this machine), `Cancelled`, and a numeric address
///   that the options exclude.
/// - All other errors are retried. Errors of the peer and the network are `Refused`, `Unreachable`
///   (including a firewall that rejects), `TimedOut` and `Reset`. Errors of lookups are `LookupFailed`
///   and `NotFound`, which also covers a missing Unix path. Errors of this machine are `AddressInUse`
///   (including no free local port), `AddressNotAvailable` for a local address that does not exist
///   yet, `NoMemory`, `NoDescriptors` and `Os`.
///
/// ```
/// use keepsock::{Reconnect, ServerSocket, SocketOptions};
/// # let server = ServerSocket::listen("127.0.0.1:0")?;
/// # let endpoint = server.endpoint();
/// let mut server_of_mine = Reconnect::new(endpoint, &SocketOptions::new())?;
/// server_of_mine.on_retry(|retry| eprintln!("{retry}"));
/// # let mut sessions = 0;
/// loop {
///     let client = server_of_mine.connect()?;
///     // … until a call on the client fails, and then again.
/// #   drop(client);
/// #   sessions += 1;
/// #   if sessions == 2 { break }
/// }
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct Reconnect {
    endpoint: Endpoint,
    options: SocketOptions,
    limit: Option<Duration>,
    pace: Pace,
    /// The error of the last complete try since the last success.
    last: Option<Error>,
    on_retry: Option<Box<OnRetry>>,
    /// When the last call began to connect.
    began: Instant,
    /// The call of `try_connect` in progress.
    step: Step,
    watch: Option<Notify>,
    /// The token that is watched during a delay.
    watched: Option<CancelToken>,
    /// The time that was reported last. `None`: the connect of a try reports the time.
    reported: Option<Deadline>,
    /// The descriptor of a delay in a service.
    wakeup: Option<Wakeup>,
}

/// The state of the connect of [`Reconnect::try_connect`].
enum Step {
    /// No connect is in progress.
    Idle,
    /// The next try, within the limit of the whole call.
    Delay {
        due: Instant,
        limit: Deadline,
    },
    Try {
        pending: Box<PendingConnect>,
        is_shortened: bool,
        limit: Deadline,
    },
}

/// The function that receives each [`Watch`], which the connect of each try shares.
type Notify = Arc<Mutex<dyn FnMut(Watch<'_>) + Send>>;

type OnRetry = dyn FnMut(&Retry<'_>) + Send;

/// A report about a failed try, which [`Reconnect::on_retry`] passes on before each wait. Displays
/// as one line: `connect to 127.0.0.1:80: connection refused after 0.1 ms; next try in 83 ms`.
///
/// ```
/// # use keepsock::{Reconnect, SocketOptions};
/// # use std::time::Duration;
/// # let mut reconnect = Reconnect::new("127.0.0.1:1", &SocketOptions::new())?;
/// # reconnect.set_timeout(Duration::from_millis(20))?;
/// reconnect.on_retry(|retry| eprintln!("try {}: {retry}", retry.tries));
/// # reconnect.connect().unwrap_err();
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Retry<'a> {
    /// The error of the last try. `None`: the last try succeeded, and its connection was lost.
    pub error: Option<&'a Error>,
    /// The number of tries of this connect that have failed.
    pub tries: u32,
    /// The time until the next try. The timeout may expire sooner.
    pub wait: Duration,
}

impl fmt::Display for Retry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error {
            Some(error) => write!(f, "{error}; ")?,
            None => f.write_str("the connection was lost; ")?,
        }
        write!(f, "next try in {}", Span(self.wait))
    }
}

impl Reconnect {
    /// Creates a client that is not connected. The options are copied. Their connect timeout (30 s
    /// by default) applies to each try. Their cancel token also ends a wait between tries, within
    /// 50 ms.
    ///
    /// # Errors
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the endpoint has a syntax error, or no peer
    ///   can have the address (`*`, `0.0.0.0`, `[::]`, port 0, multicast, broadcast).
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range.
    ///
    /// ```
    /// use keepsock::{Reconnect, SocketOptions};
    /// let options = SocketOptions::new().connect_timeout(std::time::Duration::from_secs(5));
    /// let reconnect = Reconnect::new("example.com:80", &options)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn new<E>(endpoint: E, options: &SocketOptions) -> Result<Reconnect>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        options.validate(OPERATION)?;
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?;
        options.refuse_addresses(&endpoint, AddressUse::StreamPeer, OPERATION)?;
        Ok(Reconnect {
            endpoint,
            options: options.clone(),
            limit: None,
            pace: Pace::new(FIRST, LONGEST),
            last: None,
            on_retry: None,
            began: Instant::now(),
            step: Step::Idle,
            watch: None,
            watched: None,
            reported: Some(Deadline(None)),
            wakeup: None,
        })
    }

    /// Sets the first and the longest bound of the waits, and starts the backoff again. Default:
    /// 100 ms and 30 s. Each wait is a random time below its bound, on average half of it.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) unless 1 ms ≤ first ≤ longest ≤ 24 hours.
    ///
    /// ```
    /// # use keepsock::{Reconnect, SocketOptions};
    /// # use std::time::Duration;
    /// # let mut reconnect = Reconnect::new("example.com:80", &SocketOptions::new())?;
    /// reconnect.set_backoff(Duration::from_secs(1), Duration::from_secs(120))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_backoff(&mut self, first: Duration, longest: Duration) -> Result<()> {
        if first < Duration::from_millis(1) || first > longest || longest > DAY {
            let what = format!(
                "the first bound {} and the longest bound {} must be within 1 ms to {}, and the \
                 first must not be greater than the longest",
                Millis(first),
                Millis(longest),
                Millis(DAY)
            );
            return Err(Error::new(ErrorKind::InvalidArgument, "backoff").detail(what));
        }
        self.pace = Pace::new(first, longest);
        let now = Instant::now();
        let longest_now = now.checked_add(part(first, random()));
        if let (Step::Delay { due, .. }, Some(sooner)) = (&mut self.step, longest_now) {
            *due = (*due).min(sooner);
            self.report();
        }
        Ok(())
    }

    /// Sets the timeout of each connect, with all its tries and waits. It also applies to a connect of
    /// [`try_connect`](Reconnect::try_connect) in progress, from the start of that connect. `None`: no
    /// timeout. Default: `None`.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the timeout is zero.
    ///
    /// ```
    /// # use keepsock::{Reconnect, SocketOptions};
    /// # let mut reconnect = Reconnect::new("example.com:80", &SocketOptions::new())?;
    /// reconnect.set_timeout(std::time::Duration::from_secs(600))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_timeout(&mut self, limit: impl Into<Option<Duration>>) -> Result<()> {
        let limit = limit.into();
        if limit.is_some_and(|t| t.is_zero()) {
            return Err(Error::new(ErrorKind::InvalidArgument, "reconnect timeout")
                .detail("the timeout must be greater than zero"));
        }
        self.limit = limit;
        let new = self.limit_since(self.began);
        match &mut self.step {
            Step::Idle => {}
            Step::Delay { limit, .. } => {
                *limit = new;
                self.report();
            }
            Step::Try { pending, limit, .. } => {
                *limit = new;
                if let Some(notify) = &self.watch {
                    // The connect has not returned its result, so that it accepts the function.
                    let _ = pending.set_watch(forward(notify, new));
                }
            }
        }
        Ok(())
    }

    /// The limit of a call that began at `start`.
    fn limit_since(&self, start: Instant) -> Deadline {
        Deadline(self.limit.and_then(|limit| start.checked_add(limit)))
    }

    /// Sets a function that is called before each wait, in the thread that connects, for example to
    /// log the error. Its run time is part of the wait. It may fire the cancel token, which ends
    /// the call.
    ///
    /// ```
    /// # use keepsock::{Reconnect, SocketOptions};
    /// # let mut reconnect = Reconnect::new("example.com:80", &SocketOptions::new())?;
    /// reconnect.on_retry(|retry| eprintln!("{retry}"));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn on_retry(&mut self, on_retry: impl FnMut(&Retry<'_>) + Send + 'static) {
        self.on_retry = Some(Box::new(on_retry));
    }

    /// Starts the backoff again: the next try starts immediately. Use it after a short connection
    /// that completed its work, or if the program knows that the server is available again.
    ///
    /// ```
    /// # use keepsock::{Reconnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let mut reconnect = Reconnect::new(server.endpoint(), &SocketOptions::new())?;
    /// for _ in 0..3 {
    ///     let client = reconnect.connect()?;
    ///     // … one request, one answer; the connection was good.
    ///     reconnect.reset();
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn reset(&mut self) {
        self.pace = Pace::new(self.pace.first, self.pace.longest);
        self.last = None;
        if let Step::Delay { due, .. } = &mut self.step {
            *due = Instant::now();
            self.report();
        }
    }

    /// Connects, and retries until it succeeds. The call blocks. Another thread or a signal handler
    /// can end it with the [`CancelToken`](crate::CancelToken) of the options.
    ///
    /// The backoff continues from call to call: a call also waits for the time that an earlier
    /// failure requires, even if its timeout expires during that wait.
    ///
    /// # Errors
    /// When the timeout expires, the error of the last try: its kind, its attempts, the number of
    /// tries and the total time: `connect to 127.0.0.1:80: connection refused after 7 tries in 10.0
    /// s`. Both count from the start of this connect. If no try was complete in it, the error is that of
    /// the last try before. A try that the timeout interrupted is ignored if there was an earlier one.
    /// [`TimedOut`](ErrorKind::TimedOut): there was no complete try.
    ///
    /// [`Cancelled`](ErrorKind::Cancelled): the cancel token was fired. A permanent error ends the
    /// call immediately: see [`Reconnect`].
    ///
    /// ```
    /// use keepsock::{ErrorKind, Reconnect, SocketOptions};
    /// let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    /// let mut reconnect = Reconnect::new(format!("127.0.0.1:{port}"), &SocketOptions::new())?;
    /// reconnect.set_timeout(std::time::Duration::from_millis(500))?;
    /// let err = reconnect.connect().unwrap_err();
    /// assert_eq!(err.kind(), ErrorKind::Refused);   // after some tries in 500 ms
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(&mut self) -> Result<ClientSocket> {
        self.abandon();
        let outcome = self.connect_with_retries();
        self.pace.end();
        outcome
    }

    fn connect_with_retries(&mut self) -> Result<ClientSocket> {
        let (mut now, mut due, limit) = self.begin();
        loop {
            self.wait_until(due, now, limit)?;
            let (options, is_shortened) = self.options_of_try(limit)?;
            let error = match ClientSocket::connect_with(self.endpoint.clone(), &options) {
                Ok(client) => {
                    self.pace.connected(Instant::now());
                    return Ok(client);
                }
                Err(error) => error,
            };
            now = Instant::now();
            due = Some(self.failed(error, is_shortened, now, limit)?);
        }
    }

    /// Connects without waiting, for an event loop. `None`: the connect is in progress. Call this
    /// function again when a descriptor that [`set_watch`](Reconnect::set_watch) reports is ready, and
    /// after [`next_timeout`](Reconnect::next_timeout), until it returns the connection or an error.
    /// The next call then starts to connect again.
    ///
    /// The delays, the timeout and the errors after which the client retries are those of
    /// [`connect`](Reconnect::connect). Dropping the object ends a connect in progress.
    ///
    /// # Errors
    /// The errors of [`connect`](Reconnect::connect). Also
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the local endpoint of the options is a name,
    /// whose lookup would wait.
    ///
    /// ```
    /// # use keepsock::{Reconnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut reconnect = Reconnect::new(server.endpoint(), &SocketOptions::new())?;
    /// let client = loop {
    ///     match reconnect.try_connect()? {
    ///         Some(client) => break client,
    ///         None => { /* other work, for at most reconnect.next_timeout() */ }
    ///     }
    /// };
    /// # drop(client);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn try_connect(&mut self) -> Result<Option<ClientSocket>> {
        let outcome = self.advance();
        if !matches!(outcome, Ok(None)) {
            self.abandon();
            self.pace.end();
        }
        self.report();
        outcome
    }

    /// The error of a connect, or of a delay, that is in progress.
    #[cfg(feature = "capi")]
    pub(crate) fn would_block(&self) -> Error {
        Error::new(ErrorKind::WouldBlock, OPERATION).at(&self.endpoint)
    }

    /// Whether a connect of [`try_connect`](Reconnect::try_connect) is in progress, and the time after
    /// which it must be called even if no descriptor is ready. `None`: no limit, or no connect is in
    /// progress.
    ///
    /// ```
    /// # use keepsock::{Reconnect, SocketOptions};
    /// let reconnect = Reconnect::new("127.0.0.1:1", &SocketOptions::new())?;
    /// assert_eq!(reconnect.next_timeout(), None);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn next_timeout(&self) -> Option<Duration> {
        match &self.step {
            Step::Try { pending, limit, .. } => {
                let limit = limit.remaining().map(fit_poll);
                pending.next_timeout().into_iter().chain(limit).min()
            }
            _ => self.end_of_delay().remaining().map(fit_poll),
        }
    }

    /// Takes the client, and ends its connect in progress and its watch. A client that is not
    /// connected stays.
    #[cfg(feature = "serve")]
    pub(crate) fn take(&mut self) -> Reconnect {
        self.abandon();
        self.abandon_watch();
        let rest = Reconnect {
            endpoint: self.endpoint.clone(),
            options: SocketOptions::new(),
            limit: None,
            pace: Pace::new(FIRST, LONGEST),
            last: None,
            on_retry: None,
            began: self.began,
            step: Step::Idle,
            watch: None,
            watched: None,
            reported: Some(Deadline(None)),
            wakeup: None,
        };
        std::mem::replace(self, rest)
    }

    /// The endpoint of each try.
    #[cfg(feature = "serve")]
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The options of each try.
    #[cfg(feature = "serve")]
    pub(crate) fn options(&self) -> &SocketOptions {
        &self.options
    }

    /// A descriptor that is readable when [`try_connect`](Reconnect::try_connect) must be called.
    /// The next `try_connect` may close the descriptor.
    #[cfg(feature = "serve")]
    pub(crate) fn descriptor(&mut self) -> Result<Borrowed<'_>> {
        if !matches!(self.step, Step::Try { .. }) {
            self.set_wakeup().map_err(|e| Error::helper(OPERATION, &e).at(&self.endpoint))?;
        }
        match (&mut self.step, &self.wakeup) {
            (Step::Try { pending, .. }, _) => pending.descriptor(),
            (_, Some(wakeup)) => Ok(wakeup.descriptor()),
            _ => Err(Error::new(ErrorKind::Unsupported, OPERATION).at(&self.endpoint)),
        }
    }

    /// Prepares the descriptor of a delay.
    #[cfg(feature = "serve")]
    fn set_wakeup(&mut self) -> std::io::Result<()> {
        if self.wakeup.is_none() {
            let wakeup = Wakeup::new()?;
            if let Some(event) = self.options.cancel.as_ref().and_then(CancelToken::own_event) {
                wakeup.add_event(event)?;
            }
            self.wakeup = Some(wakeup);
        }
        let end = self.end_of_delay();
        self.wakeup.as_ref().map_or(Ok(()), |wakeup| wakeup.set_timer(end.remaining()))
    }

    /// The descriptor that [`descriptor`](Reconnect::descriptor) has returned, if it is still open.
    #[cfg(feature = "serve")]
    pub(crate) fn open_descriptor(&self) -> Option<Borrowed<'_>> {
        match &self.step {
            Step::Try { pending, .. } => pending.open_descriptor(),
            _ => self.wakeup.as_ref().map(Wakeup::descriptor),
        }
    }

    /// Sets the function that receives each change of the events that an event loop has to wait for, as
    /// [`PendingConnect::set_watch`] describes, for every try and delay of
    /// [`try_connect`](Reconnect::try_connect).
    ///
    /// ```
    /// # use keepsock::{Reconnect, SocketOptions, Watch};
    /// # let mut reconnect = Reconnect::new("127.0.0.1:1", &SocketOptions::new())?;
    /// reconnect.set_watch(|watch| match watch {
    ///     Watch::Timeout(time) => println!("set the timer to {time:?}"),
    ///     other => println!("{other:?}"),
    /// });
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_watch(&mut self, watch: impl FnMut(Watch<'_>) + Send + 'static) {
        self.abandon_watch();
        let notify: Notify = Arc::new(Mutex::new(watch));
        if let Step::Try { pending, limit, .. } = &mut self.step {
            // The connect has not returned its result, so that it accepts the function.
            let _ = pending.set_watch(forward(&notify, *limit));
        }
        self.watch = Some(notify);
        self.reported = Some(Deadline(None));
        self.report();
    }

    /// Starts a call: the time, the time of the first try, and the limit of the call.
    fn begin(&mut self) -> (Instant, Option<Instant>, Deadline) {
        let now = Instant::now();
        self.began = now;
        let limit = self.limit_since(now);
        if self.pace.is_rested(now) {
            self.last = None;
        }
        let due = self.pace.begin(now, random());
        (now, due, limit)
    }

    /// The options of the next try, and whether the limit shortens its timeout.
    fn options_of_try(&mut self, limit: Deadline) -> Result<(SocketOptions, bool)> {
        let remaining = limit.remaining();
        if remaining.is_some_and(|t| t.is_zero()) {
            return Err(self.timeout_error());
        }
        let mut options = self.options.clone();
        let own = options.connect_timeout;
        options.connect_timeout = remaining.into_iter().chain(own).min();
        self.pace.tries(Instant::now());
        let is_shortened = options.connect_timeout != own;
        Ok((options, is_shortened))
    }

    /// Records a failed try. Returns the time of the next one, or the error that ends the call.
    fn failed(
        &mut self,
        error: Error,
        is_shortened: bool,
        now: Instant,
        limit: Deadline,
    ) -> Result<Instant> {
        let due = self.pace.failed(now, random());
        let ends = !is_transient(&error, self.is_settled());
        let is_uninformative = error.kind() == ErrorKind::Cancelled
            || (is_shortened && error.kind() == ErrorKind::TimedOut);
        if self.last.is_none() || !is_uninformative {
            self.last = Some(error.clone());
        }
        if ends {
            return Err(if self.pace.count > 1 { self.with_tries(error) } else { error });
        }
        if limit.has_passed() { Err(self.timeout_error()) } else { Ok(due.unwrap_or(now)) }
    }

    /// Does what can be done now.
    fn advance(&mut self) -> Result<Option<ClientSocket>> {
        loop {
            match &mut self.step {
                Step::Idle => {
                    let (now, due, limit) = self.begin();
                    self.note_retry(due, now);
                    self.step = Step::Delay { due: due.unwrap_or(now), limit };
                }
                Step::Delay { due, limit } => {
                    let (due, limit) = (*due, *limit);
                    if self.options.cancel.as_ref().is_some_and(CancelToken::is_fired) {
                        return Err(self.stopped(Error::new(ErrorKind::Cancelled, OPERATION)));
                    }
                    if limit.has_passed() {
                        return Err(self.timeout_error());
                    }
                    if !Deadline(Some(due)).has_passed() {
                        return Ok(None);
                    }
                    self.start_try(limit)?;
                }
                Step::Try { pending, is_shortened, limit } => {
                    let (is_shortened, limit) = (*is_shortened, *limit);
                    match pending.finish() {
                        // The timeout was set during the try.
                        Ok(None) if limit.has_passed() => return Err(self.timeout_error()),
                        Ok(None) => return Ok(None),
                        Ok(Some(client)) => {
                            self.pace.connected(Instant::now());
                            return Ok(Some(client));
                        }
                        Err(error) => self.delay(error, is_shortened, limit)?,
                    }
                }
            }
        }
    }

    fn start_try(&mut self, limit: Deadline) -> Result<()> {
        let (options, is_shortened) = self.options_of_try(limit)?;
        match PendingConnect::start(self.endpoint.clone(), &options) {
            Ok(mut pending) => {
                self.unwatch();
                self.wakeup = None;
                if let Some(notify) = &self.watch {
                    pending.set_watch(forward(notify, limit))?;
                }
                self.step = Step::Try { pending: Box::new(pending), is_shortened, limit };
                Ok(())
            }
            Err(error) => self.delay(error, is_shortened, limit),
        }
    }

    /// Waits for the next try after a failed one.
    fn delay(&mut self, error: Error, is_shortened: bool, limit: Deadline) -> Result<()> {
        let now = Instant::now();
        let due = self.failed(error, is_shortened, now, limit)?;
        self.note_retry(Some(due), now);
        self.step = Step::Delay { due, limit };
        Ok(())
    }

    /// Ends a connect in progress, which removes its descriptors from the event loop.
    fn abandon(&mut self) {
        self.unwatch();
        self.wakeup = None;
        self.step = Step::Idle;
    }

    /// The end of the current delay. A token that the program does not watch is checked from time to
    /// time.
    fn end_of_delay(&self) -> Deadline {
        let Step::Delay { due, limit } = &self.step else { return Deadline(None) };
        let token = self.options.cancel.as_ref();
        let unseen = |token: &CancelToken| match &self.wakeup {
            Some(_) => token.own_event().is_none(),
            None => self.watch.is_none() || token.event().descriptor().is_none(),
        };
        let check = token.is_some_and(unseen).then_some(EVENT_CHECK);
        limit.earlier(Deadline(Some(*due))).earlier(Deadline::after(check))
    }

    /// Reports the events that a delay waits for. The connect of a try reports by itself.
    fn report(&mut self) {
        let Some(notify) = &self.watch else { return };
        let mut notify = notify.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.step {
            Step::Try { .. } => return self.reported = None,
            Step::Idle => {}
            Step::Delay { .. } => {
                let token = self.options.cancel.as_ref().filter(|token| !token.is_inherited());
                let descriptor = token.and_then(|token| token.event().descriptor());
                if let (Some(descriptor), None) = (descriptor, &self.watched) {
                    notify(Watch::Readable(descriptor));
                    self.watched = token.cloned();
                }
            }
        }
        let end = self.end_of_delay();
        // The timer of a loop may expire early, and only once.
        if end != Deadline(None) || self.reported != Some(end) {
            self.reported = Some(end);
            notify(Watch::Timeout(end.remaining().map(fit_poll)));
        }
    }

    /// Ends the watch of a delay.
    fn unwatch(&mut self) {
        if let (Some(notify), Some(token)) = (&self.watch, self.watched.take()) {
            if let Some(descriptor) = token.event().descriptor() {
                notify.lock().unwrap_or_else(PoisonError::into_inner)(Watch::Remove(descriptor));
            }
        }
    }

    /// Removes everything from the watch, and drops the watch.
    fn abandon_watch(&mut self) {
        self.unwatch();
        let Some(notify) = self.watch.take() else { return };
        if let Step::Try { pending, .. } = &mut self.step {
            // The connect has not returned its result, so that it accepts the function.
            let _ = pending.set_watch(|_| {});
        } else if self.reported != Some(Deadline(None)) {
            notify.lock().unwrap_or_else(PoisonError::into_inner)(Watch::Timeout(None));
        }
    }

    /// Calls the function that the program set for a failed try.
    fn note_retry(&mut self, due: Option<Instant>, now: Instant) {
        // A failed try is reported even if the random time is almost zero.
        let Some(due) = due.filter(|due| *due >= now) else { return };
        if let Some(on_retry) = &mut self.on_retry {
            let error = self.last.as_ref();
            on_retry(&Retry { error, tries: self.pace.count, wait: due - now });
        }
    }

    /// Reports the failed try, and waits.
    fn wait_until(&mut self, due: Option<Instant>, now: Instant, limit: Deadline) -> Result<()> {
        self.note_retry(due, now);
        let Some(due) = due.filter(|due| *due >= now) else { return Ok(()) };
        let cancel = self.options.cancel.as_ref();
        let ended = wait(None, limit.earlier(Deadline(Some(due))), cancel, || false);
        ended.map_err(|cause| self.stopped(cause.into_error(OPERATION)))?;
        if limit.has_passed() { Err(self.timeout_error()) } else { Ok(()) }
    }

    /// The error of a delay that ended early.
    fn stopped(&self, error: Error) -> Error {
        let mut error = error.at(&self.endpoint);
        if let Some(last) = &self.last {
            error = error.detail(format!("the last try failed: {}", last.kind()));
        }
        self.with_tries(error)
    }

    fn timeout_error(&self) -> Error {
        self.with_tries(match &self.last {
            Some(last) => last.clone(),
            None => Error::new(ErrorKind::TimedOut, OPERATION)
                .at(&self.endpoint)
                .detail("the timeout ended before a try was complete"),
        })
    }

    fn with_tries(&self, error: Error) -> Error {
        match self.pace.since {
            Some(since) => error.after_tries(self.pace.count, since.elapsed()),
            None => error,
        }
    }

    /// Whether both addresses are numeric, so that no lookup can change them.
    fn is_settled(&self) -> bool {
        let is_literal = |endpoint: &Endpoint| matches!(&endpoint.0, Target::Inet { host, .. } if !matches!(host, Host::Name(_)));
        let remote = is_literal(&self.endpoint) || !self.options.addresses.is_empty();
        remote && self.options.local.as_ref().is_none_or(is_literal)
    }
}

impl Drop for Reconnect {
    fn drop(&mut self) {
        self.abandon_watch();
    }
}

/// A function for the connect of one try, in a call with the limit `limit`.
fn forward(notify: &Notify, limit: Deadline) -> impl FnMut(Watch<'_>) + Send + 'static {
    let notify = notify.clone();
    move |watch| {
        let watch = match watch {
            Watch::Timeout(time) => {
                let limit = limit.remaining().map(fit_poll);
                Watch::Timeout(time.into_iter().chain(limit).min())
            }
            other => other,
        };
        notify.lock().unwrap_or_else(PoisonError::into_inner)(watch);
    }
}

impl fmt::Debug for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("endpoint", &self.endpoint)
            .field("options", &self.options)
            .field("limit", &self.limit)
            .field("pace", &self.pace)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// Whether a retry may succeed. It may if one of the attempts may.
fn is_transient(error: &Error, is_settled: bool) -> bool {
    let may = |kind, os_error: Option<i32>| match kind {
        // A name or a Unix path may be created later. A numeric address does not change.
        ErrorKind::NotFound => !is_settled,
        // With an error number of the system: the address may be configured later, or a port may
        // become free. Without one: the local endpoint has no address of that IP version.
        ErrorKind::AddressNotAvailable => os_error.is_some() || !is_settled,
        ErrorKind::InvalidArgument
        | ErrorKind::InvalidEndpoint
        | ErrorKind::WrongState
        | ErrorKind::Unsupported
        | ErrorKind::PermissionDenied
        | ErrorKind::Panic
        | ErrorKind::Closed
        | ErrorKind::Cancelled => false,
        _ => true,
    };
    if error.kind() == ErrorKind::Cancelled {
        return false;
    }
    match error.attempts() {
        [] => may(error.kind(), error.os_error()),
        attempts => attempts.iter().any(|a| may(a.kind, a.os_error)),
    }
}

/// The times of the tries. The clock and the random numbers are arguments.
#[derive(Debug)]
struct Pace {
    first: Duration,
    longest: Duration,
    backoff: BackOff,
    /// The time at which the last try ended, and whether it succeeded.
    ended: Option<(Instant, bool)>,
    /// The time of the next try; `None`: immediately.
    due: Option<Instant>,
    /// The number of tries of the connect in progress, and the start of the first of them.
    count: u32,
    since: Option<Instant>,
}

impl Pace {
    fn new(first: Duration, longest: Duration) -> Pace {
        Pace {
            first,
            longest,
            backoff: BackOff::new(first, longest),
            ended: None,
            due: None,
            count: 0,
            since: None,
        }
    }

    /// Starts a call, and returns the time of its first try. A previous connection has been lost;
    /// the elapsed time shows how long it lived. A client that connects only once in the longest
    /// bound is no load, so its backoff starts again. A shorter limit would let a server that
    /// closes each connection be contacted more often than a server that refuses.
    fn begin(&mut self, now: Instant, random: u64) -> Option<Instant> {
        let (at, connected) = self.ended?;
        if now.saturating_duration_since(at) >= self.longest {
            self.backoff = BackOff::new(self.first, self.longest);
        }
        if connected {
            self.since = Some(now);
            // There is a wait even after a long connection, because all clients of a server lose it
            // at the same moment.
            self.pause(now, random);
            self.ended = Some((now, false));
        }
        self.due
    }

    fn tries(&mut self, now: Instant) {
        self.count = self.count.saturating_add(1);
        self.since.get_or_insert(now);
    }

    fn failed(&mut self, now: Instant, random: u64) -> Option<Instant> {
        self.ended = Some((now, false));
        self.pause(now, random);
        self.due
    }

    fn connected(&mut self, now: Instant) {
        self.ended = Some((now, true));
    }

    /// Ends a connect. The next one counts its own tries, and continues the backoff.
    fn end(&mut self) {
        (self.count, self.since) = (0, None);
    }

    /// Whether the last try succeeded, or is at least the longest delay ago.
    fn is_rested(&self, now: Instant) -> bool {
        self.ended.is_none_or(|(at, connected)| {
            connected || now.saturating_duration_since(at) >= self.longest
        })
    }

    fn pause(&mut self, now: Instant, random: u64) {
        self.due = now.checked_add(part(self.backoff.next(), random));
    }
}

/// The part of a time, from zero to all of it, that a random number selects.
fn part(time: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let scaled = ((u128::from(nanos) + 1) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::error::{Attempt, Stage};

    const S: Duration = Duration::from_secs(1);
    /// Random numbers that select all of a wait, half of it, and none of it.
    const ALL: u64 = u64::MAX;
    const HALF: u64 = 1 << 63;
    const NONE: u64 = 0;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn pace() -> (Pace, Instant) {
        (Pace::new(ms(100), 30 * S), Instant::now())
    }

    /// The parts range from zero to the full time, with equal probability.
    #[test]
    fn part_scales_with_random_number() {
        for time in [Duration::ZERO, Duration::from_nanos(1), ms(100), 30 * S, DAY] {
            assert_eq!(part(time, ALL), time);
            assert_eq!(part(time, NONE), Duration::ZERO);
        }
        assert_eq!(part(10 * S, HALF), 5 * S);
        assert_eq!(part(10 * S, ALL / 10 * 7), 7 * S);
        assert_eq!(part(Duration::MAX, ALL), Duration::from_nanos(u64::MAX));
    }

    /// All parts of a wait occur, as they would not with a constant or a clock.
    #[test]
    fn random_covers_the_whole_range() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let tenth = part(ms(999), random()).as_millis() / 100;
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        // 1000 each, standard deviation 30.
        assert!(tenths.iter().all(|n| (750..1250).contains(n)), "{tenths:?}");
    }

    /// The first try is immediate. Then the waits double up to the longest.
    #[test]
    fn pace_doubles_up_to_the_longest_wait() {
        let (mut pace, mut now) = pace();
        assert_eq!(pace.begin(now, ALL), None);
        for bound in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            pace.tries(now);
            let due = pace.failed(now, ALL).unwrap();
            assert_eq!(due - now, ms(bound));
            now = due;
        }
        assert_eq!(pace.count, 11);
        for _ in 0..1000 {
            assert_eq!(pace.failed(now, HALF), Some(now + 15 * S));
            assert_eq!(pace.failed(now, NONE), Some(now));
        }
        pace.count = u32::MAX;
        pace.tries(now);
        assert_eq!(pace.count, u32::MAX);
    }

    /// A call after a failed call waits for the rest of the backoff. Time between the calls counts.
    #[test]
    fn pace_continues_from_call_to_call() {
        let (mut pace, start) = pace();
        pace.begin(start, ALL);
        pace.tries(start);
        pace.failed(start, ALL);
        assert_eq!(pace.begin(start + ms(1), NONE), Some(start + ms(100)));
        assert_eq!(pace.begin(start + ms(500), NONE), Some(start + ms(100)));
        let due = pace.failed(start + ms(500), ALL);
        assert_eq!(due, Some(start + ms(700)), "doubled, not begun anew");
        assert_eq!((pace.count, pace.since), (1, Some(start)));
        pace.end();
        assert_eq!((pace.count, pace.since), (0, None));
        // No try was made during the longest wait.
        let later = start + ms(500) + 30 * S;
        assert!(!pace.is_rested(later - ms(1)) && pace.is_rested(later));
        assert!(pace.begin(later, ALL) < Some(later), "immediately");
        assert_eq!(pace.failed(later, ALL), Some(later + ms(100)));
    }

    /// A connection that was lost soon counts as a failure, a long one as a success. There is a
    /// wait after both.
    #[test]
    fn pace_restarts_after_a_long_connection() {
        let (mut pace, mut now) = pace();
        pace.begin(now, ALL);
        for bound in [100, 200, 400] {
            pace.tries(now);
            pace.connected(now);
            pace.end();
            assert!(pace.is_rested(now));
            now += 30 * S - ms(1);
            assert_eq!(pace.begin(now, ALL), Some(now + ms(bound)), "the connection was short");
            // After a cancelled call the next call waits for the same time.
            assert_eq!(pace.begin(now + ms(50), ALL), Some(now + ms(bound)));
            now += ms(bound);
        }
        pace.connected(now);
        now += 30 * S;
        assert_eq!(pace.begin(now, ALL), Some(now + ms(100)), "it lived");
        assert_eq!(pace.failed(now, ALL), Some(now + ms(200)));
    }

    /// A server that accepts and closes is contacted as rarely as a server that refuses.
    #[test]
    fn pace_slows_down_if_server_accepts_and_closes() {
        let (mut pace, start) = pace();
        let mut now = start;
        let mut tries = 0;
        while now < start + 3600 * S {
            now = pace.begin(now, HALF).map_or(now, |due| due.max(now));
            pace.tries(now);
            pace.connected(now);
            tries += 1;
            now += ms(3); // then it is closed
        }
        assert!(tries <= 3600 / 15 + 10, "{tries} in an hour");
    }

    fn failed(kind: ErrorKind, os_error: Option<i32>) -> Error {
        Error::new(kind, OPERATION).with_os_error(os_error)
    }

    #[test]
    fn is_transient_depends_on_the_kind() {
        use ErrorKind::*;
        for kind in [Refused, Unreachable, TimedOut, Reset, LookupFailed, AddressInUse] {
            assert!(is_transient(&failed(kind, None), true), "{kind:?}");
        }
        for kind in [NoDescriptors, NoMemory, Os] {
            assert!(is_transient(&failed(kind, None), true), "{kind:?}");
        }
        for kind in [InvalidArgument, InvalidEndpoint, Unsupported, PermissionDenied, WrongState] {
            assert!(!is_transient(&failed(kind, None), false), "{kind:?}");
        }
        for kind in [Closed, Cancelled, Panic] {
            assert!(!is_transient(&failed(kind, None), false), "{kind:?}");
        }
        // A name may be created later. A numeric address does not change.
        for kind in [NotFound, AddressNotAvailable] {
            assert!(is_transient(&failed(kind, None), false));
            assert!(!is_transient(&failed(kind, None), true));
        }
        assert!(is_transient(&failed(AddressNotAvailable, Some(libc::EADDRNOTAVAIL)), true));
    }

    /// One transient attempt is sufficient for a retry. A cancellation is final.
    #[test]
    fn is_transient_if_one_attempt_is() {
        let attempt = |kind| Attempt {
            detail: String::new(),
            address: crate::Address::Inet(([127, 0, 0, 1], 1).into()),
            stage: Stage::Connect,
            kind,
            os_error: None,
            elapsed: Duration::ZERO,
        };
        let (denied, refused) = (ErrorKind::PermissionDenied, ErrorKind::Refused);
        let both = vec![attempt(denied), attempt(refused)];
        assert!(is_transient(&failed(denied, None).with_attempts(both.clone()), true));
        assert!(!is_transient(&failed(denied, None).with_attempts(vec![attempt(denied)]), true));
        assert!(!is_transient(&failed(ErrorKind::Cancelled, None).with_attempts(both), true));
    }

    #[test]
    fn is_settled_if_both_addresses_are_numeric() {
        let is_settled = |endpoint: &str, options: SocketOptions| {
            Reconnect::new(endpoint, &options).unwrap().is_settled()
        };
        let plain = SocketOptions::new;
        let local = |text: &str| plain().local_endpoint(text.parse::<Endpoint>().unwrap());
        assert!(is_settled("127.0.0.1:1", plain()));
        assert!(is_settled("[::1]:1", local("[::1]:0")));
        assert!(is_settled("name:1", plain().remote_address(([127, 0, 0, 1], 1).into())));
        assert!(!is_settled("name:1", plain()));
        assert!(!is_settled("127.0.0.1:1", local("name:0")));
        assert!(!is_settled("unix:/path", plain()));
    }
}
