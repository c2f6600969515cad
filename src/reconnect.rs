//! Connecting again and again: when to try, and which errors to try again after.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use crate::back_off::BackOff;
use crate::client::ClientSocket;
use crate::endpoint::{Endpoint, Host, Target};
use crate::error::{Error, ErrorKind, Result, Span};
use crate::options::SocketOptions;
use crate::wait::{Deadline, wait};

const OPERATION: &str = "connect";

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// Between tries nobody means to wait for longer; and no clock overflows.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Connects, and connects again after the connection was lost: tries until it succeeds,
/// and waits between the tries. Nothing is hidden: it works only inside
/// [`connect`](Reconnect::connect), and what a lost connection had in flight is for the
/// program to send again.
///
/// - Each try is a [`ClientSocket::connect_with`] of its own: the name is looked up again,
///   and every option is applied again.
/// - Between tries passes a random time from zero to 100 ms; after each failure twice as
///   much, at most 30 s ("exponential backoff" with "full jitter", as in the article of that
///   name in the AWS Architecture Blog; no RFC on TCP says anything about it). A thousand clients
///   that lost their server at the same moment then do not come back at the same moment.
///   [`set_back_off`](Reconnect::set_back_off) sets both times.
/// - Only the very first try is made at once. A connection counts as a success if it was
///   made at least the longest wait (30 s) before the next call of `connect`; the waits then
///   begin anew at 100 ms. One that was lost sooner counts as a failure: a server that accepts
///   and closes is not asked more and more often but less. If your program knows better, as
///   when the server has accepted its password, it calls [`reset`](Reconnect::reset).
/// - Errors that cannot pass end it at once: `InvalidArgument`, `InvalidEndpoint`,
///   `Unsupported`, `PermissionDenied`, and a literal address that the options exclude. All
///   others are tried again, a name that is not found and a Unix path that is not there included.
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
    /// What the last whole try failed with, since the last success.
    last: Option<Error>,
    on_retry: Option<Box<OnRetry>>,
}

type OnRetry = dyn FnMut(&Retry<'_>) + Send;

/// What a [`Reconnect`] waits for, told before each wait. Prints as one line:
/// `connect to 127.0.0.1:80: connection refused after 0.1 ms; next try in 83 ms`.
///
/// ```
/// # use keepsock::{Reconnect, SocketOptions};
/// # use std::time::Duration;
/// # let mut reconnect = Reconnect::new("127.0.0.1:1", &SocketOptions::new())?;
/// # reconnect.set_limit(Duration::from_millis(20))?;
/// reconnect.on_retry(|retry| eprintln!("try {}: {retry}", retry.tries));
/// # reconnect.connect().unwrap_err();
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Retry<'a> {
    /// Why the last try failed. None: it succeeded, and that connection is the one that
    /// was lost.
    pub error: Option<&'a Error>,
    /// How many tries have failed since the last success.
    pub tries: u32,
    /// The time to the next try. The limit may end it sooner.
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
    /// Nothing is connected yet. The options are copied; their connect timeout (30 s) is for each
    /// try, and their cancel token ends a wait between tries within 50 ms, too.
    ///
    /// # Errors
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint),
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options out of range.
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
        Ok(Reconnect {
            endpoint: endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?,
            options: options.clone(),
            limit: None,
            pace: Pace::new(FIRST, LONGEST),
            last: None,
            on_retry: None,
        })
    }

    /// The bound of the first wait, and of the longest; the waits begin anew. Default: 100 ms
    /// and 30 s. Each wait is a random time below its bound, half of it in the mean.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) unless 1 ms ≤ first ≤ longest ≤ 24 hours.
    ///
    /// ```
    /// # use keepsock::{Reconnect, SocketOptions};
    /// # use std::time::Duration;
    /// # let mut reconnect = Reconnect::new("example.com:80", &SocketOptions::new())?;
    /// reconnect.set_back_off(Duration::from_secs(1), Duration::from_secs(120))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_back_off(&mut self, first: Duration, longest: Duration) -> Result<()> {
        if first < Duration::from_millis(1) || first > longest || longest > DAY {
            let what = format!(
                "first {first:?}, longest {longest:?}: not from 1 ms to 24 hours, or the first is longer"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, "back-off").detail(what));
        }
        self.pace = Pace::new(first, longest);
        Ok(())
    }

    /// The time for each call of [`connect`](Reconnect::connect), all its tries and waits
    /// together. `None`: for ever. Default: for ever.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for zero.
    ///
    /// ```
    /// # use keepsock::{Reconnect, SocketOptions};
    /// # let mut reconnect = Reconnect::new("example.com:80", &SocketOptions::new())?;
    /// reconnect.set_limit(std::time::Duration::from_secs(600))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_limit(&mut self, limit: impl Into<Option<Duration>>) -> Result<()> {
        let limit = limit.into();
        if limit.is_some_and(|t| t.is_zero()) {
            return Err(Error::new(ErrorKind::InvalidArgument, "limit").detail("limit is zero"));
        }
        self.limit = limit;
        Ok(())
    }

    /// Calls `told` before each wait, in the thread that connects: for a log. The time it
    /// takes is part of the wait. Firing the cancel token from inside ends the call.
    ///
    /// ```
    /// # use keepsock::{Reconnect, SocketOptions};
    /// # let mut reconnect = Reconnect::new("example.com:80", &SocketOptions::new())?;
    /// reconnect.on_retry(|retry| eprintln!("{retry}"));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn on_retry(&mut self, told: impl FnMut(&Retry<'_>) + Send + 'static) {
        self.on_retry = Some(Box::new(told));
    }

    /// The next try is made at once, and the waits begin anew. For a connection that has done
    /// its work though it was short, or when something tells that the server is back.
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
    }

    /// Tries until it is connected. Blocks; another thread, or a signal handler, ends it with the
    /// options' [`CancelToken`](crate::CancelToken).
    ///
    /// The back-off goes on from call to call: one that follows another waits for its turn, also
    /// if it has to spend all its limit on that.
    ///
    /// # Errors
    /// When the limit is over, that of the last try, the real cause: its kind, its attempts, and
    /// how many tries there were in how much time:
    /// `connect to 127.0.0.1:80: connection refused after 7 tries in 10.0 s`. A try that the
    /// limit cut short has nothing to say if there was one before it. If there was none, or the
    /// limit left no time for one: [`TimedOut`](ErrorKind::TimedOut).
    ///
    /// [`Cancelled`](ErrorKind::Cancelled); errors that cannot pass, as told
    /// [above](Reconnect).
    ///
    /// ```
    /// use keepsock::{ErrorKind, Reconnect, SocketOptions};
    /// let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    /// let mut reconnect = Reconnect::new(format!("127.0.0.1:{port}"), &SocketOptions::new())?;
    /// reconnect.set_limit(std::time::Duration::from_millis(150))?;
    /// let err = reconnect.connect().unwrap_err();
    /// assert_eq!(err.kind(), ErrorKind::Refused);   // after some tries in 150 ms
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(&mut self) -> Result<ClientSocket> {
        let limit = Deadline::after(self.limit);
        let mut now = Instant::now();
        let mut due = self.pace.begin(now, random());
        if self.pace.count == 0 {
            self.last = None;
        }
        let mut options = self.options.clone();
        loop {
            self.wait_until(due, now, limit)?;
            let remaining = limit.remaining();
            let own = self.options.connect_timeout;
            options.connect_timeout = remaining.into_iter().chain(own).min();
            let is_cut = options.connect_timeout != own;
            if remaining.is_some_and(|t| t.is_zero()) {
                return Err(self.limit_is_over());
            }
            self.pace.tries(Instant::now());
            let error = match ClientSocket::connect_with(self.endpoint.clone(), &options) {
                Ok(client) => {
                    self.pace.connected(Instant::now());
                    return Ok(client);
                }
                Err(error) => error,
            };
            now = Instant::now();
            due = self.pace.failed(now, random());
            let ends = !may_pass(&error, self.is_settled());
            let says_nothing = error.kind() == ErrorKind::Cancelled
                || (is_cut && error.kind() == ErrorKind::TimedOut);
            if self.last.is_none() || !says_nothing {
                self.last = Some(error.clone());
            }
            if ends {
                return Err(if self.pace.count > 1 { self.with_tries(error) } else { error });
            }
            if limit.has_passed() {
                return Err(self.limit_is_over());
            }
        }
    }

    /// Tells why it waits, and waits.
    fn wait_until(&mut self, due: Option<Instant>, now: Instant, limit: Deadline) -> Result<()> {
        // After a failed try it is told also if the random time is next to none.
        let Some(due) = due.filter(|due| *due >= now) else { return Ok(()) };
        if let Some(told) = &mut self.on_retry {
            let error = self.last.as_ref();
            told(&Retry { error, tries: self.pace.count, wait: due - now });
        }
        let cancel = self.options.cancel.as_ref();
        wait(None, limit.earlier(Deadline(Some(due))), cancel, || false).map_err(|cause| {
            let mut error = cause.into_error(OPERATION).at(&self.endpoint);
            if let Some(last) = &self.last {
                error = error.detail(format!("so far {}", last.kind()));
            }
            self.with_tries(error)
        })?;
        if limit.has_passed() { Err(self.limit_is_over()) } else { Ok(()) }
    }

    fn limit_is_over(&self) -> Error {
        self.with_tries(match &self.last {
            Some(last) => last.clone(),
            None => Error::new(ErrorKind::TimedOut, OPERATION)
                .at(&self.endpoint)
                .detail("the next try is not due yet"),
        })
    }

    fn with_tries(&self, error: Error) -> Error {
        match self.pace.since {
            Some(since) => error.after_tries(self.pace.count, since.elapsed()),
            None => error,
        }
    }

    /// Whether the addresses on both sides are given, so that no lookup can change them.
    fn is_settled(&self) -> bool {
        let is_literal = |endpoint: &Endpoint| matches!(&endpoint.0, Target::Inet { host, .. } if !matches!(host, Host::Name(_)));
        let remote = is_literal(&self.endpoint) || !self.options.addresses.is_empty();
        remote && self.options.local.as_ref().is_none_or(is_literal)
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

/// Whether trying again may help: if it may for one of the attempts, it may.
fn may_pass(error: &Error, is_settled: bool) -> bool {
    let may = |kind, os_error: Option<i32>| match kind {
        // Names appear, and so do Unix paths; literals stay as they are.
        ErrorKind::NotFound => !is_settled,
        // The system's: the address may come, or a port become free. Ours: no local address
        // of that family was given.
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

/// When the next try is due. The clock and the random numbers are passed in.
#[derive(Debug)]
struct Pace {
    first: Duration,
    longest: Duration,
    back_off: BackOff,
    /// When the last try ended, and whether it succeeded.
    ended: Option<(Instant, bool)>,
    /// No try before; none: at once.
    due: Option<Instant>,
    /// Tries since the last success, and when the first of them began.
    count: u32,
    since: Option<Instant>,
}

impl Pace {
    fn new(first: Duration, longest: Duration) -> Pace {
        Pace {
            first,
            longest,
            back_off: BackOff::new(first, longest),
            ended: None,
            due: None,
            count: 0,
            since: None,
        }
    }

    /// A call begins. After a connection that was made, it has been lost since; how long it
    /// lived shows in the time that has passed. Whoever comes only once in the longest wait is
    /// no burden, and so begins anew: no other time could be the measure, since a shorter one
    /// would let a server that breaks each connection be asked more often than one that refuses.
    fn begin(&mut self, now: Instant, random: u64) -> Option<Instant> {
        let (at, connected) = self.ended?;
        if now.saturating_duration_since(at) >= self.longest {
            self.back_off = BackOff::new(self.first, self.longest);
            (self.count, self.since) = (0, None);
        }
        if connected {
            self.since = Some(now);
            // Not at once after a long life either: those who lost the same server do so at
            // the same moment.
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
        (self.count, self.since) = (0, None);
    }

    fn pause(&mut self, now: Instant, random: u64) {
        self.due = now.checked_add(part(self.back_off.next(), random));
    }
}

/// The part of a time, of zero to all of it, that a random number stands for.
fn part(time: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let scaled = ((u128::from(nanos) + 1) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
}

/// A random number that differs between threads, processes and machines, which is all that
/// is asked of it: the keys of the standard library's hash tables are random. Not for
/// cryptography.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Attempt, Stage};

    const S: Duration = Duration::from_secs(1);
    /// Random numbers for all of a wait, half of it, none.
    const ALL: u64 = u64::MAX;
    const HALF: u64 = 1 << 63;
    const NONE: u64 = 0;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn pace() -> (Pace, Instant) {
        (Pace::new(ms(100), 30 * S), Instant::now())
    }

    /// From zero to all of the time, each part as likely as any other.
    #[test]
    fn a_part_of_a_time() {
        for time in [Duration::ZERO, Duration::from_nanos(1), ms(100), 30 * S, DAY] {
            assert_eq!(part(time, ALL), time);
            assert_eq!(part(time, NONE), Duration::ZERO);
        }
        assert_eq!(part(10 * S, HALF), 5 * S);
        assert_eq!(part(10 * S, ALL / 10 * 7), 7 * S);
        assert_eq!(part(Duration::MAX, ALL), Duration::from_nanos(u64::MAX));
    }

    /// All parts of a wait are used; a constant, or a clock, would not do.
    #[test]
    fn random_numbers_are_spread() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let tenth = part(ms(999), random()).as_millis() / 100;
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        // 1000 each, standard deviation 30.
        assert!(tenths.iter().all(|n| (750..1250).contains(n)), "{tenths:?}");
    }

    /// The first try is at once; then the waits double up to the longest, and stay there.
    #[test]
    fn waits_double_up_to_the_longest() {
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

    /// A call that follows a failed one waits for its turn, and time that passed counts.
    #[test]
    fn the_back_off_goes_on_from_call_to_call() {
        let (mut pace, start) = pace();
        pace.begin(start, ALL);
        pace.tries(start);
        pace.failed(start, ALL);
        assert_eq!(pace.begin(start + ms(1), NONE), Some(start + ms(100)));
        assert_eq!(pace.begin(start + ms(500), NONE), Some(start + ms(100)));
        let due = pace.failed(start + ms(500), ALL);
        assert_eq!(due, Some(start + ms(700)), "doubled, not begun anew");
        assert_eq!((pace.count, pace.since), (1, Some(start)));
        // Nothing was tried for the longest wait.
        let later = start + ms(500) + 30 * S;
        assert!(pace.begin(later, ALL) < Some(later), "at once");
        assert_eq!((pace.count, pace.since), (0, None));
        assert_eq!(pace.failed(later, ALL), Some(later + ms(100)));
    }

    /// A connection that was lost soon counts as a failure, one that lived as a success; and
    /// even then no try is made at once.
    #[test]
    fn how_long_a_connection_lived_decides() {
        let (mut pace, mut now) = pace();
        pace.begin(now, ALL);
        for bound in [100, 200, 400] {
            pace.tries(now);
            pace.connected(now);
            assert_eq!((pace.count, pace.since), (0, None));
            now += 30 * S - ms(1);
            assert_eq!(pace.begin(now, ALL), Some(now + ms(bound)), "the connection was short");
            // A call that was cancelled meanwhile, and another one: the same wait.
            assert_eq!(pace.begin(now + ms(50), ALL), Some(now + ms(bound)));
            now += ms(bound);
        }
        pace.connected(now);
        now += 30 * S;
        assert_eq!(pace.begin(now, ALL), Some(now + ms(100)), "it lived");
        assert_eq!(pace.failed(now, ALL), Some(now + ms(200)));
    }

    /// In the long run a server that accepts and closes is asked as seldom as one that refuses.
    #[test]
    fn accepting_and_closing_is_no_way_around() {
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
    fn which_errors_may_pass() {
        use ErrorKind::*;
        for kind in [Refused, Unreachable, TimedOut, Reset, LookupFailed, AddressInUse] {
            assert!(may_pass(&failed(kind, None), true), "{kind:?}");
        }
        for kind in [NoDescriptors, NoMemory, Os] {
            assert!(may_pass(&failed(kind, None), true), "{kind:?}");
        }
        for kind in [InvalidArgument, InvalidEndpoint, Unsupported, PermissionDenied, WrongState] {
            assert!(!may_pass(&failed(kind, None), false), "{kind:?}");
        }
        for kind in [Closed, Cancelled, Panic] {
            assert!(!may_pass(&failed(kind, None), false), "{kind:?}");
        }
        // A name may appear, a literal address does not become another.
        for kind in [NotFound, AddressNotAvailable] {
            assert!(may_pass(&failed(kind, None), false));
            assert!(!may_pass(&failed(kind, None), true));
        }
        assert!(may_pass(&failed(AddressNotAvailable, Some(libc::EADDRNOTAVAIL)), true));
    }

    /// One attempt that may succeed the next time is enough; but a cancel is a cancel.
    #[test]
    fn one_of_several_attempts_may_pass() {
        let attempt = |kind| Attempt {
            address: crate::Address::Inet(([127, 0, 0, 1], 1).into()),
            stage: Stage::Connect,
            kind,
            os_error: None,
            elapsed: Duration::ZERO,
        };
        let (denied, refused) = (ErrorKind::PermissionDenied, ErrorKind::Refused);
        let both = vec![attempt(denied), attempt(refused)];
        assert!(may_pass(&failed(denied, None).with_attempts(both.clone()), true));
        assert!(!may_pass(&failed(denied, None).with_attempts(vec![attempt(denied)]), true));
        assert!(!may_pass(&failed(ErrorKind::Cancelled, None).with_attempts(both), true));
    }

    #[test]
    fn what_no_lookup_can_change() {
        let is_settled = |endpoint: &str, options: SocketOptions| {
            Reconnect::new(endpoint, &options).unwrap().is_settled()
        };
        let plain = SocketOptions::new;
        let local = |text: &str| plain().local(text.parse::<Endpoint>().unwrap());
        assert!(is_settled("127.0.0.1:1", plain()));
        assert!(is_settled("[::1]:1", local("[::1]:0")));
        assert!(is_settled("name:1", plain().address(([127, 0, 0, 1], 1).into())));
        assert!(!is_settled("name:1", plain()));
        assert!(!is_settled("127.0.0.1:1", local("name:0")));
        assert!(!is_settled("unix:/path", plain()));
    }
}
