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

/// A connect in progress, for programs that wait in an event loop, for several connects at the
/// same time, or between other work. The lookup, the race of the addresses and the deadline are
/// those of [`ClientSocket::connect_with`].
///
/// Call [`finish`](PendingConnect::finish) whenever [`descriptor`](PendingConnect::descriptor) is
/// readable or [`timeout`](PendingConnect::timeout) has passed, until it returns the connection or
/// an error. [`wait`](PendingConnect::wait) waits for the connection instead. Dropping the object
/// closes every attempt.
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
        if options.local.as_ref().is_some_and(|local| !is_numeric(local)) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .at(endpoint)
                .detail("local_endpoint is a name, whose lookup would wait: use an address"));
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
        };
        pending.advance(None)?;
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
        match self.outcome.take() {
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
                let error = self.driver.abandon(&cause);
                self.complete(Err(error))?;
            }
        }
    }

    /// The time after which [`finish`](PendingConnect::finish) must be called even if the
    /// descriptor is not readable. `None`: no limit, or `finish` has returned the connection or an
    /// error, so that there is nothing to wait for. The result is at most [`i32::MAX`] milliseconds,
    /// which poll(2) accepts.
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// println!("call finish() within {:?}", pending.timeout());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn timeout(&self) -> Option<Duration> {
        if self.is_finished { None } else { self.until.remaining().map(fit_poll) }
    }

    /// Borrows a descriptor for an event loop. The descriptor is readable whenever
    /// [`finish`](PendingConnect::finish) must be called: for the lookup, for every attempt, for the
    /// cancel token, and when [`timeout`](PendingConnect::timeout) has passed. It is the same
    /// descriptor until `finish` returns the connection or an error. It then stays readable, so
    /// remove it from the event loop.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): `finish` has returned the connection or an error.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform is not Linux, which has epoll.
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
        }
        // An earlier call may have failed here. Sources that were added already are skipped.
        self.update_wakeup().map_err(|e| self.os_error(&e))?;
        match &self.wakeup {
            Some(wakeup) => Ok(wakeup.descriptor()),
            None => Err(Error::new(ErrorKind::Unsupported, OPERATION).at(&self.driver.endpoint)),
        }
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

    /// The address and the TCP state of each attempt in progress. The state is SYN-SENT in most
    /// cases, and `None` if the system does not report it.
    ///
    /// ```
    /// # use keepsock::{PendingConnect, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let pending = PendingConnect::start(server.endpoint(), &SocketOptions::new())?;
    /// for (address, state) in pending.attempts_in_progress() {
    ///     println!("{address}: {state:?}");
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn attempts_in_progress(&self) -> Vec<(Address, Option<TcpState>)> {
        let state = |socket| sys::tcp_info(sys::borrow(socket)).ok().and_then(|info| info.state);
        let address = |index: usize| self.driver.candidates[index].address.clone();
        let running = self.driver.running.iter().map(|running| (running.index, &running.socket));
        let pending = self.driver.pending.iter().map(|pending| (pending.index, &pending.socket));
        running.chain(pending).map(|(index, socket)| (address(index), state(socket))).collect()
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
        self.update_wakeup().map_err(|e| self.os_error(&e))
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
        error.at(&self.driver.endpoint).detail("the connect has finished")
    }

    fn os_error(&self, e: &io::Error) -> Error {
        Error::helper(OPERATION, e).at(&self.driver.endpoint)
    }
}
