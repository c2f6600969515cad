//! `PendingConnect`: connecting without waiting.

use std::io;
use std::time::{Duration, Instant};

use super::{ConnectDriver, OPERATION, Progress, check};
use crate::io::cancel::CancelToken;
use crate::io::deadline::{Deadline, fit_poll};
use crate::log;
use crate::options::SocketOptions;
use crate::resolve::{Lookup, is_numeric};
use crate::stream::{ClientSocket, Connected};
use crate::sys::{self, Interest, Wakeup};
use crate::types::address::Address;
use crate::types::endpoint::Endpoint;
use crate::types::error::{Attempt, Error, ErrorKind, Result};
use crate::types::tcp_state::TcpState;

/// An attempt of a connect that has neither succeeded nor failed. Its handshake is in progress, or it
/// waits for space in the queue of a Unix listener.
///
/// ```
/// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
/// # let server = ServerSocket::listen("127.0.0.1:0")?;
/// let pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
/// let slow = |attempt: &keepsock::AttemptInProgress| attempt.elapsed.as_secs() >= 1;
/// println!("{} slow attempts", pending.attempts_in_progress().iter().filter(|a| slow(a)).count());
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptInProgress {
    /// The address that is tried.
    pub address: Address,
    /// The TCP state, SYN-SENT in most cases; `None`: the system does not report it.
    pub tcp_state: Option<TcpState>,
    /// The time since the attempt started.
    pub elapsed: Duration,
}

/// A connect in progress, for programs that wait in an event loop, for several connects at the
/// same time, or between other work. The lookup, the race of the addresses and the deadline are
/// those of [`ClientSocket::connect_with`].
///
/// Call [`finish`](PendingConnect::finish) until it returns the connection or an error. There are
/// three ways to learn when to call it:
///
/// | for | call `finish` |
/// |---|---|
/// | an address or a Unix path | when [`socket`](PendingConnect::socket), the socket of the connection itself, is writable |
/// | every endpoint | for each descriptor and timeout that [`set_watch`](PendingConnect::set_watch) reports |
/// | every endpoint, not on Windows | when [`descriptor`](PendingConnect::descriptor) is readable |
///
/// In the first way, also call it after [`next_timeout`](PendingConnect::next_timeout).
/// [`wait`](PendingConnect::wait) waits for the connection instead. Dropping the object closes every
/// attempt.
///
/// The object also reports the attempts that failed before an attempt succeeded
/// ([`attempts`](PendingConnect::attempts)), and the attempts in progress
/// ([`attempts_in_progress`](PendingConnect::attempts_in_progress)).
///
/// ```
/// use keepsock::{PendingConnect, ServerSocket, SocketOptions};
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let mut pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
/// let client = loop {
///     match pending.finish()? {
///         Some(client) => break client,
///         None => { /* other work */ }
///     }
/// };
/// println!("{} after {} failed attempts", client.five_tuple(), pending.attempts().len());
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct PendingConnect {
    options: SocketOptions,
    driver: ConnectDriver,
    /// The result of the connect, until `finish` returns it.
    outcome: Option<Result<Connected>>,
    is_finished: bool,
    /// The time of the next step if no socket is ready.
    until: Deadline,
    wakeup: Option<Wakeup>,
    /// The event of the lookup that was added to the wakeup.
    watched: Option<CancelToken>,
    /// The failed attempts of a finished connect.
    attempts: Vec<Attempt>,
    /// The connect has one address, so one socket is the connection from start to end.
    is_single: bool,
    watcher: Option<Watcher>,
    /// There is a watcher, also while `report` uses it.
    is_watched: bool,
}

/// A change of the events that an event loop has to wait for: see [`PendingConnect::set_watch`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Watch<'a> {
    /// Wait until the descriptor is readable.
    Readable(sys::Borrowed<'a>),
    /// Wait until the descriptor is writable.
    Writable(sys::Borrowed<'a>),
    /// No longer wait for the descriptor. It is still open.
    Remove(sys::Borrowed<'a>),
    /// Wait for at most this time, instead of the time that was reported before. `None`: no limit.
    Timeout(Option<Duration>),
}

/// The interval at which an event is checked that the program does not watch.
pub(crate) const EVENT_CHECK: Duration = Duration::from_millis(25);

type Notify = Box<dyn FnMut(Watch<'_>) + Send>;

/// The function that receives each [`Watch`], and the current watches.
struct Watcher {
    notify: Notify,
    /// The attempts whose socket is watched.
    attempts: Vec<usize>,
    /// The event of the lookup, and of the token.
    lookup: Option<CancelToken>,
    cancel: Option<CancelToken>,
    timeout: Option<Deadline>,
}

impl PendingConnect {
    /// Starts to connect: starts the name lookup, or sends the first SYN. Never waits.
    ///
    /// # Errors
    /// [`finish`](PendingConnect::finish) returns all other errors.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the text is not an endpoint; no peer can
    ///   have the address (`*`, `0.0.0.0`, `[::]`, port 0, multicast, broadcast); a link-local IPv6
    ///   address has no zone; the local endpoint is a multicast or broadcast address; or this
    ///   machine does not have the zone.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to connecting to this endpoint. Or the
    ///   [`local_endpoint`](SocketOptions::local_endpoint) is a name other than `localhost`, whose
    ///   lookup would have to wait.
    /// - [`NotFound`](ErrorKind::NotFound): the local endpoint has no address of the
    ///   [`family`](SocketOptions::family).
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform does not have this kind of socket.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// let client = pending.wait()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn start<E>(endpoint: E, options: &SocketOptions) -> Result<PendingConnect>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?;
        PendingConnect::start_at(endpoint, options)
    }

    pub(crate) fn start_at(endpoint: Endpoint, options: &SocketOptions) -> Result<PendingConnect> {
        if options.local.as_ref().is_some_and(|local| !is_numeric(local)) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION).at(endpoint).detail(
                "local_endpoint is a name, and its lookup would wait: use a numeric address",
            ));
        }
        check(&endpoint, options)?;
        let mut pending = PendingConnect {
            driver: ConnectDriver::new(&endpoint, options, Instant::now())?,
            options: options.clone(),
            outcome: None,
            is_finished: false,
            until: Deadline(None),
            wakeup: None,
            watched: None,
            attempts: Vec::new(),
            is_single: false,
            watcher: None,
            is_watched: false,
        };
        // A failed attempt may be the only one.
        pending.driver.ended = Some(Vec::new());
        pending.advance(None)?;
        pending.is_single = pending.driver.lookup.is_none() && pending.driver.candidates.len() == 1;
        if !pending.is_single {
            pending.driver.ended = None;
        }
        Ok(pending)
    }

    /// Continues to connect without waiting, and returns the connection when it is established.
    /// `None`: it is not established yet.
    ///
    /// The connection is in blocking mode. For an event loop, call
    /// [`set_nonblocking`](ClientSocket::set_nonblocking), which also affects its close.
    ///
    /// # Errors
    /// The error of a failed connect has every attempt ([`Error::attempts`]) and the cause of the
    /// first one.
    /// - [`WrongState`](ErrorKind::WrongState): an earlier call has returned the connection or an
    ///   error.
    /// - [`NotFound`](ErrorKind::NotFound): the host, the service name or the Unix path does not
    ///   exist, or the host has no address of the [`family`](SocketOptions::family).
    /// - [`LookupFailed`](ErrorKind::LookupFailed): the resolver could not answer.
    /// - [`Refused`](ErrorKind::Refused): no process listens on the port or on the Unix path.
    /// - [`Unreachable`](ErrorKind::Unreachable): there is no route to the address, or the network
    ///   reported that the peer cannot be reached.
    /// - [`Reset`](ErrorKind::Reset): the peer reset the connection during the handshake.
    /// - [`TimedOut`](ErrorKind::TimedOut): no attempt succeeded within the
    ///   [`connect_timeout`](SocketOptions::connect_timeout).
    /// - [`Cancelled`](ErrorKind::Cancelled): the token of the options was fired.
    /// - [`AddressInUse`](ErrorKind::AddressInUse): another socket is bound to the
    ///   [`local_endpoint`](SocketOptions::local_endpoint), the same connection exists already, or
    ///   no local port is free.
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): the local endpoint does not
    ///   belong to this machine or has another family than the addresses of the peer, or this
    ///   machine has no address from which the destination can be reached.
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): this machine does not have the
    ///   [`interface`](SocketOptions::interface), or the resolver returned only addresses that no
    ///   peer can have, such as `0.0.0.0` or a link-local address without a zone.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): a firewall or route of this machine, or
    ///   the mode of the socket file, does not permit the connection, or the process may not set
    ///   an option or bind the local port.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory or no thread left.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have an
    ///   option that was set.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// if let Some(client) = pending.finish()? {
    ///     println!("connected immediately: {}", client.five_tuple());
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn finish(&mut self) -> Result<Option<ClientSocket>> {
        if self.outcome.is_none() && !self.is_finished {
            let writable = self.find_writable();
            self.advance(writable)?;
        }
        let outcome = self.outcome.take();
        if outcome.is_some() {
            self.report();
        }
        match outcome {
            Some(Ok(connected)) => {
                let client = ClientSocket::connected(connected, &self.options)?;
                log::connected(|| client.five_tuple(), &self.driver.endpoint, self.driver.start);
                Ok(Some(client))
            }
            Some(Err(error)) => Err(error),
            None if self.is_finished => Err(self.finished_error()),
            None => Ok(None),
        }
    }

    /// Waits until the connection is established, and returns it.
    ///
    /// # Errors
    /// The errors of [`finish`](PendingConnect::finish).
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let client = PendingConnect::start(server.endpoint(), &SocketOptions::new())?.wait()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait(&mut self) -> Result<ClientSocket> {
        loop {
            if let Some(client) = self.finish()? {
                return Ok(client);
            }
            if let Err(cause) = self.driver.wait(self.until, self.options.cancel.as_ref()) {
                let error = self.driver.abandon(&cause, &self.options);
                self.complete(Err(error))?;
            }
        }
    }

    /// The time after which [`finish`](PendingConnect::finish) must be called even if the
    /// descriptor is not readable. `None`: no limit, or `finish` has returned the connection or an
    /// error, so that there is nothing to wait for. The result is at most [`i32::MAX`] milliseconds,
    /// which poll(2) accepts.
    ///
    /// The result is at most 25 ms if a cancel token is set or a lookup is in progress, unless
    /// [`set_watch`](PendingConnect::set_watch) or [`descriptor`](PendingConnect::descriptor) was called:
    /// the socket alone does not report them.
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// println!("call finish() within {:?}", pending.next_timeout());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn next_timeout(&self) -> Option<Duration> {
        self.next_call().remaining().map(fit_poll)
    }

    /// The time of the next call of [`finish`](PendingConnect::finish). An event without a
    /// descriptor is checked from time to time.
    fn next_call(&self) -> Deadline {
        if self.is_finished && self.outcome.is_none() {
            return Deadline(None);
        }
        // The program watches the socket alone, or nothing.
        let alone = !self.is_watched && self.wakeup.is_none();
        let lookup = self.driver.lookup.as_ref().and_then(Lookup::event);
        let token = self.options.cancel.as_ref().map(CancelToken::event);
        let unseen = |event: &sys::Event| alone || event.descriptor().is_none();
        let check = lookup.into_iter().chain(token).any(unseen);
        self.until.earlier(Deadline::after(check.then_some(EVENT_CHECK)))
    }

    /// Borrows the socket of the connection, for an event loop that has one descriptor for each
    /// connection. It becomes writable when the connect has completed or failed. The connection
    /// that [`finish`](PendingConnect::finish) returns has the same descriptor. After a failure the
    /// descriptor stays open until the object is dropped.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): the endpoint has several addresses, whose sockets
    ///   race: use [`set_watch`](PendingConnect::set_watch). Or the connect failed before it had a
    ///   socket, and `finish` returns the reason. Or `finish` has returned the connection or an error; a
    ///   descriptor that was borrowed before stays open.
    /// - [`WouldBlock`](ErrorKind::WouldBlock): the queue of the Unix listener is full, and a
    ///   descriptor cannot report when it has space again. The connect continues: call `finish` after
    ///   [`next_timeout`](PendingConnect::next_timeout).
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// # #[cfg(unix)] {
    /// use std::os::fd::{AsFd, AsRawFd};
    /// let socket = pending.socket()?.as_raw_fd();
    /// assert_eq!(pending.wait()?.borrow()?.as_fd().as_raw_fd(), socket);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn socket(&self) -> Result<sys::Borrowed<'_>> {
        let running = self.driver.running.first().map(|running| &running.socket);
        let ended = self.driver.ended.iter().flatten().next().map(|(_, socket)| socket);
        let connected = match &self.outcome {
            Some(Ok(connected)) => Some(&connected.socket),
            _ => None,
        };
        let wrong =
            |kind, why| Err(Error::new(kind, OPERATION).at(&self.driver.endpoint).detail(why));
        match running.or(connected).or(ended) {
            _ if self.is_finished && self.outcome.is_none() => Err(self.finished_error()),
            None if self.outcome.is_some() => wrong(
                ErrorKind::WrongState,
                "the connect has failed and has no socket: finish returns its error",
            ),
            Some(socket) if self.is_single => Ok(sys::borrow(socket)),
            None if self.is_single => {
                wrong(ErrorKind::WouldBlock, "the queue of the listener is full")
            }
            _ => wrong(
                ErrorKind::WrongState,
                "several addresses may be tried, each with its own socket: use the watch callback",
            ),
        }
    }

    /// Sets the function that receives each change of the events that an event loop has to wait for.
    /// It is called for everything that is watched now, and later by
    /// [`finish`](PendingConnect::finish) and when the object is dropped. Each call of `finish` reports
    /// the time that is left, so that a timer that expired early is set again. A second function
    /// replaces the first one, which is called to remove everything.
    ///
    /// Call `finish` when a descriptor is ready or the timeout has passed. The connect removes each
    /// descriptor before it closes the descriptor, and also that of the connection that `finish`
    /// returns. So an event loop never has a descriptor that was closed or used again. On Windows each
    /// descriptor is a SOCKET: of a connect, or of an event of the library.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState): `finish` has returned the connection or an error.
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions, Watch};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// pending.set_watch(|watch| match watch {
    ///     Watch::Readable(fd) => println!("add {fd:?} for input"),
    ///     Watch::Writable(fd) => println!("add {fd:?} for output"),
    ///     Watch::Remove(fd) => println!("remove {fd:?}"),
    ///     Watch::Timeout(time) => println!("set the timer to {time:?}"),
    ///     _ => {}
    /// })?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_watch(&mut self, watch: impl FnMut(Watch<'_>) + Send + 'static) -> Result<()> {
        if self.is_finished && self.outcome.is_none() {
            return Err(self.finished_error());
        }
        if let Some(watcher) = &mut self.watcher {
            watcher.remove_all(&self.driver, self.outcome.as_ref());
        }
        self.driver.ended.get_or_insert_with(Vec::new);
        self.is_watched = true;
        self.watcher = Some(Watcher {
            notify: Box::new(watch),
            attempts: Vec::new(),
            lookup: None,
            cancel: None,
            timeout: None,
        });
        self.report();
        Ok(())
    }

    /// Borrows a descriptor for an event loop. The descriptor is readable whenever
    /// [`finish`](PendingConnect::finish) must be called: for the lookup, for every attempt, for the
    /// cancel token, and when [`next_timeout`](PendingConnect::next_timeout) has passed. It is the same
    /// descriptor until `finish` returns the connection or an error. It then stays readable, so
    /// remove it from the event loop.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): `finish` has returned the connection or an error.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform is neither Linux nor a system
    ///   with kqueue(2).
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left. The call needs two.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
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
            // The sockets of failed attempts leave the wakeup before they are closed.
            self.driver.ended.get_or_insert_default();
        }
        // An earlier call may have failed here. Sources that were added already are skipped.
        self.update_wakeup().map_err(|e| self.os_error(&e))?;
        match &self.wakeup {
            Some(wakeup) => Ok(wakeup.descriptor()),
            None => Err(Error::new(ErrorKind::Unsupported, OPERATION).at(&self.driver.endpoint)),
        }
    }

    /// The descriptor that [`descriptor`](PendingConnect::descriptor) has returned, also after the end
    /// of the connect.
    #[cfg(feature = "serve")]
    pub(crate) fn open_descriptor(&self) -> Option<sys::Borrowed<'_>> {
        self.wakeup.as_ref().map(Wakeup::descriptor)
    }

    /// The attempts that failed so far, in the order in which they failed. They are also available
    /// after the connection is established. Attempts that were closed because another
    /// attempt succeeded first have the kind [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// let client = pending.wait()?;
    /// for attempt in pending.attempts() {
    ///     println!("{attempt}");   // [::1]:80: connection refused after 0.1 ms
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        if self.is_finished { &self.attempts } else { &self.driver.attempts }
    }

    /// The attempts in progress.
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// for attempt in pending.attempts_in_progress() {
    ///     println!("{}: {:?} since {:?}", attempt.address, attempt.tcp_state, attempt.elapsed);
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn attempts_in_progress(&self) -> Vec<AttemptInProgress> {
        let now = Instant::now();
        let state = |socket| sys::tcp_info(sys::borrow(socket)).ok().and_then(|info| info.state);
        let describe = |index: usize, socket, started_at| AttemptInProgress {
            address: self.driver.candidates[index].address.clone(),
            tcp_state: state(socket),
            elapsed: now.saturating_duration_since(started_at),
        };
        let running = self.driver.running.iter().map(|a| (a.index, &a.socket, a.started_at));
        let pending = self.driver.pending.iter().map(|a| (a.index, &a.socket, a.started_at));
        running.chain(pending).map(|(index, socket, at)| describe(index, socket, at)).collect()
    }

    /// The index of a running attempt whose socket is writable. An error of the poll is ignored,
    /// because the next wait returns it.
    fn find_writable(&self) -> Option<usize> {
        let sockets = self.driver.sockets();
        if sockets.is_empty() {
            return None;
        }
        sys::poll_any(&sockets, Interest::Write, [None, None], Some(Duration::ZERO)).ok()?.socket
    }

    fn advance(&mut self, mut writable: Option<usize>) -> Result<()> {
        loop {
            match self.driver.advance(&self.options, writable) {
                Ok(Progress::Wait(until)) => {
                    self.until = until;
                    // Another attempt may have completed.
                    writable = self.find_writable();
                    if writable.is_none() {
                        self.report();
                        return self.update_wakeup().map_err(|e| self.os_error(&e));
                    }
                }
                Ok(Progress::Connected(connected)) => return self.complete(Ok(connected)),
                Err(error) => return self.complete(Err(error)),
            }
        }
    }

    /// Stores the result for `finish`. The descriptor is readable from now on.
    fn complete(&mut self, outcome: Result<Connected>) -> Result<()> {
        self.attempts = match &outcome {
            Ok(_) => std::mem::take(&mut self.driver.attempts),
            Err(error) => error.attempts().to_vec(),
        };
        self.outcome = Some(outcome);
        self.is_finished = true;
        self.until = Deadline(Some(Instant::now()));
        self.report();
        self.update_wakeup().map_err(|e| self.os_error(&e))
    }

    /// Reports the changes to the watcher, and closes the sockets of failed attempts.
    fn report(&mut self) {
        if let Some(wakeup) = &self.wakeup {
            let ended = self.driver.ended.iter().flatten();
            ended.for_each(|(_, socket)| wakeup.remove(sys::borrow(socket)));
        }
        if let Some(mut watcher) = self.watcher.take() {
            watcher.update(self);
            self.watcher = Some(watcher);
        }
        let is_observed = self.watcher.is_some() || self.wakeup.is_some();
        if let (Some(ended), true) = (&mut self.driver.ended, is_observed) {
            // The socket of the only attempt is borrowed until the object is dropped.
            if !self.is_single {
                ended.clear();
            }
        }
    }

    /// Adds everything that the connect waits for now to the wakeup, if there is one.
    fn update_wakeup(&mut self) -> io::Result<()> {
        let Some(wakeup) = &self.wakeup else {
            return Ok(());
        };
        for socket in self.driver.sockets() {
            wakeup.add_writable(socket)?;
        }
        match self.driver.lookup.as_ref().and_then(Lookup::arrived) {
            Some(arrived) => {
                wakeup.add_event(arrived.event())?;
                self.watched = Some(arrived.clone());
            }
            None => {
                // Threads of an abandoned lookup may still set the event.
                if let Some(arrived) = self.watched.take() {
                    wakeup.remove_event(arrived.event());
                }
            }
        }
        if let Some(event) = self.options.cancel.as_ref().and_then(CancelToken::own_event) {
            wakeup.add_event(event)?;
        }
        wakeup.set_timer(self.until.remaining())
    }

    fn finished_error(&self) -> Error {
        let error = Error::new(ErrorKind::WrongState, OPERATION);
        error.at(&self.driver.endpoint).detail("the connect has finished: start a new connect")
    }

    #[cfg(feature = "serve")]
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.driver.endpoint
    }

    /// The error of a connect that is in progress.
    #[cfg(feature = "capi")]
    pub(crate) fn would_block(&self) -> Error {
        Error::new(ErrorKind::WouldBlock, OPERATION).at(&self.driver.endpoint)
    }

    fn os_error(&self, e: &io::Error) -> Error {
        Error::helper(OPERATION, e).at(&self.driver.endpoint)
    }
}

impl Drop for PendingConnect {
    fn drop(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.remove_all(&self.driver, self.outcome.as_ref());
        }
        if let Some(Ok(connected)) = &self.outcome {
            self.driver.shut_down_copies(&[sys::borrow(&connected.socket)]);
        }
    }
}

impl Watcher {
    fn update(&mut self, pending: &PendingConnect) {
        let driver = &pending.driver;
        self.remove_ended(driver, pending.outcome.as_ref());
        for running in &driver.running {
            if !self.attempts.contains(&running.index) {
                self.attempts.push(running.index);
                (self.notify)(Watch::Writable(sys::borrow(&running.socket)));
            }
        }
        let lookup = driver.lookup.as_ref().and_then(Lookup::arrived);
        follow(&mut self.lookup, lookup, &mut self.notify);
        let cancel = pending.options.cancel.as_ref().filter(|token| !token.is_inherited());
        follow(&mut self.cancel, cancel.filter(|_| !pending.is_finished), &mut self.notify);
        // The time is reported after each call: the timer of a loop may expire early, and only once.
        let next = pending.next_call();
        if next != Deadline(None) || self.timeout != Some(next) {
            self.timeout = Some(next);
            (self.notify)(Watch::Timeout(next.remaining().map(fit_poll)));
        }
    }

    /// Removes the sockets of attempts that have ended.
    fn remove_ended(&mut self, driver: &ConnectDriver, outcome: Option<&Result<Connected>>) {
        for (index, socket) in driver.ended.iter().flatten() {
            self.remove(*index, socket);
        }
        // The connection is the attempt that is neither running nor ended.
        if let Some(Ok(connected)) = outcome {
            if self.attempts.pop().is_some() {
                (self.notify)(Watch::Remove(sys::borrow(&connected.socket)));
            }
        }
    }

    fn remove(&mut self, index: usize, socket: &sys::Owned) {
        if let Some(at) = self.attempts.iter().position(|attempt| *attempt == index) {
            self.attempts.swap_remove(at);
            (self.notify)(Watch::Remove(sys::borrow(socket)));
        }
    }

    fn remove_all(&mut self, driver: &ConnectDriver, outcome: Option<&Result<Connected>>) {
        self.remove_ended(driver, outcome);
        for running in &driver.running {
            self.remove(running.index, &running.socket);
        }
        follow(&mut self.lookup, None, &mut self.notify);
        follow(&mut self.cancel, None, &mut self.notify);
        if self.timeout.is_some_and(|timeout| timeout != Deadline(None)) {
            self.timeout = None;
            (self.notify)(Watch::Timeout(None));
        }
    }
}

/// Watches an event, or removes the one that was watched.
fn follow(watched: &mut Option<CancelToken>, now: Option<&CancelToken>, notify: &mut Notify) {
    match (&watched, now) {
        (None, Some(token)) => {
            if let Some(descriptor) = token.event().descriptor() {
                notify(Watch::Readable(descriptor));
                *watched = Some(token.clone());
            }
        }
        (Some(token), None) => {
            if let Some(descriptor) = token.event().descriptor() {
                notify(Watch::Remove(descriptor));
            }
            *watched = None;
        }
        _ => {}
    }
}
