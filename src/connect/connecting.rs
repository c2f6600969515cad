//! Connecting without waiting, and with a report.

use std::io;
use std::time::{Duration, Instant};

use super::{Connected, Drive, OPERATION, Step, check};
use crate::cancel::CancelToken;
use crate::client::ClientSocket;
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::events;
use crate::info::{Address, TcpState};
use crate::options::SocketOptions;
use crate::resolve::{Lookup, is_numeric};
use crate::sys::{self, Interest, Wakeup};
use crate::wait::Deadline;

/// A connect under way, for programs that wait elsewhere: in an event loop, for several
/// connects at once, or between other work. The lookup, the race and the deadline are those of
/// [`ClientSocket::connect_with`].
///
/// Call [`finish`](Connecting::finish) when [`descriptor`](Connecting::descriptor) is readable,
/// or [`timeout`](Connecting::timeout) has passed, until it gives the connection.
/// [`wait`](Connecting::wait) waits for it. Dropping ends every attempt.
///
/// It also tells what a finished connect does not: which attempts failed on the way
/// ([`attempts`](Connecting::attempts)), and which are under way
/// ([`under_way`](Connecting::under_way)).
///
/// ```
/// use keepsock::{Connecting, ServerSocket, SocketOptions};
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let mut connecting = Connecting::start(server.endpoint(), &SocketOptions::new())?;
/// let client = loop {
///     match connecting.finish()? {
///         Some(client) => break client,
///         None => { /* other work */ }
///     }
/// };
/// println!("{} after {} failed attempts", client.five_tuple(), connecting.attempts().len());
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct Connecting {
    options: SocketOptions,
    drive: Drive,
    /// What it came to, until that is taken.
    outcome: Option<Result<Connected>>,
    over: bool,
    /// When something is to be done even if no socket is ready.
    until: Deadline,
    wakeup: Option<Wakeup>,
    /// What the wakeup has of the lookup.
    watched: Option<CancelToken>,
    /// The report, when it is over.
    attempts: Vec<Attempt>,
}

impl Connecting {
    /// Starts connecting: asks the resolver, or sends the first SYN. Never waits.
    ///
    /// # Errors
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options out of range, and for a
    /// local address that is a name, which would have to be waited for;
    /// [`LookupFailed`](ErrorKind::LookupFailed) if 64 lookups are under way;
    /// [`NotFound`](ErrorKind::NotFound) for a local address that is not of the family asked for;
    /// [`NoDescriptors`](ErrorKind::NoDescriptors), [`NoMemory`](ErrorKind::NoMemory).
    /// What else can go wrong [`finish`](Connecting::finish) tells.
    ///
    /// ```
    /// # use keepsock::{Connecting, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut connecting = Connecting::start(server.endpoint(), &SocketOptions::new())?;
    /// let client = connecting.wait()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn start<E>(endpoint: E, options: &SocketOptions) -> Result<Connecting>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?;
        if options.local.as_ref().is_some_and(|local| !is_numeric(local)) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .at(endpoint)
                .detail("a local address that is a name would have to be waited for"));
        }
        check(&endpoint, options)?;
        let mut connecting = Connecting {
            drive: Drive::new(&endpoint, options, Instant::now())?,
            options: options.clone(),
            outcome: None,
            over: false,
            until: Deadline(None),
            wakeup: None,
            watched: None,
            attempts: Vec::new(),
        };
        connecting.step(None)?;
        Ok(connecting)
    }

    /// Does what is to be done now, without waiting; `None`: not connected yet. The connection's
    /// calls wait; [`set_nonblocking`](ClientSocket::set_nonblocking) is what an event loop
    /// wants, closing included.
    ///
    /// # Errors
    /// Those of [`ClientSocket::connect_with`], each attempt included, once everything has
    /// failed, the deadline has passed, or the token was fired.
    /// [`WrongState`](ErrorKind::WrongState) after the end.
    ///
    /// ```
    /// # use keepsock::{Connecting, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut connecting = Connecting::start(server.endpoint(), &SocketOptions::new())?;
    /// if let Some(client) = connecting.finish()? {
    ///     println!("connected at once: {}", client.five_tuple());
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn finish(&mut self) -> Result<Option<ClientSocket>> {
        if self.outcome.is_none() && !self.over {
            let ready = self.ready();
            self.step(ready)?;
        }
        match self.outcome.take() {
            Some(Ok(connected)) => {
                let client = ClientSocket::connected(connected, &self.options)?;
                events::connected(&client, &self.drive.endpoint, self.drive.start);
                Ok(Some(client))
            }
            Some(Err(error)) => Err(error),
            None if self.over => Err(self.has_ended()),
            None => Ok(None),
        }
    }

    /// Waits until it is connected; until the deadline, at the latest.
    ///
    /// # Errors
    /// Those of [`finish`](Connecting::finish).
    ///
    /// ```
    /// # use keepsock::{Connecting, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let client = Connecting::start(server.endpoint(), &SocketOptions::new())?.wait()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait(&mut self) -> Result<ClientSocket> {
        loop {
            if let Some(client) = self.finish()? {
                return Ok(client);
            }
            if let Err(cause) = self.drive.wait(self.until, self.options.cancel.as_ref()) {
                let error = self.drive.ended_by(&cause);
                self.end(Err(error))?;
            }
        }
    }

    /// In what time [`finish`](Connecting::finish) is to be called even if the descriptor is
    /// not readable; `None`: that does not happen.
    ///
    /// ```
    /// # use keepsock::{Connecting, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let connecting = Connecting::start(server.endpoint(), &SocketOptions::new())?;
    /// println!("in {:?}", connecting.timeout());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn timeout(&self) -> Option<Duration> {
        if self.over { Some(Duration::ZERO) } else { self.until.remaining() }
    }

    /// Borrows one descriptor for all that is under way: it is readable when
    /// [`finish`](Connecting::finish) has something to do, the time of
    /// [`timeout`](Connecting::timeout) included. The same one until the end; it stays readable
    /// then, so an event loop takes it off.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState) after the end;
    /// [`Unsupported`](ErrorKind::Unsupported) elsewhere than on Linux (epoll);
    /// [`NoDescriptors`](ErrorKind::NoDescriptors): it takes two.
    ///
    /// ```
    /// # use keepsock::{Connecting, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut connecting = Connecting::start(server.endpoint(), &SocketOptions::new())?;
    /// # #[cfg(target_os = "linux")] {
    /// use std::os::fd::AsRawFd;
    /// println!("poll {} for reading", connecting.descriptor()?.as_raw_fd());
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn descriptor(&mut self) -> Result<sys::Borrowed<'_>> {
        if self.over && self.outcome.is_none() {
            return Err(self.has_ended());
        }
        if self.wakeup.is_none() {
            self.wakeup = Some(Wakeup::new().map_err(|e| self.os_error(&e))?);
        }
        // Also of one whose watching failed before; what it has already it does not take twice.
        self.watch().map_err(|e| self.os_error(&e))?;
        match &self.wakeup {
            Some(wakeup) => Ok(wakeup.descriptor()),
            None => Err(Error::new(ErrorKind::Unsupported, OPERATION).at(&self.drive.endpoint)),
        }
    }

    /// The report: the attempts that ended without a connection, in the order in which they
    /// did, also when another one has won. Those that were still under way then are
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::{Connecting, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let mut connecting = Connecting::start(server.endpoint(), &SocketOptions::new())?;
    /// let client = connecting.wait()?;
    /// for attempt in connecting.attempts() {
    ///     println!("{attempt}");   // [::1]:80: connection refused after 0.1 ms
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        if self.over { &self.attempts } else { &self.drive.attempts }
    }

    /// The attempts under way: where to, and the TCP state, SYN-SENT for most (where the
    /// system does not tell: `None`).
    ///
    /// ```
    /// # use keepsock::{Connecting, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let connecting = Connecting::start(server.endpoint(), &SocketOptions::new())?;
    /// for (address, state) in connecting.under_way() {
    ///     println!("{address}: {state:?}");
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn under_way(&self) -> Vec<(Address, Option<TcpState>)> {
        let state = |socket| sys::tcp_info(sys::borrow(socket)).ok().and_then(|info| info.state);
        let address = |index: usize| self.drive.candidates[index].address.clone();
        let running = self.drive.running.iter().map(|r| (r.index, &r.socket));
        let busy = self.drive.busy.iter().map(|b| (b.index, &b.socket));
        running.chain(busy).map(|(index, socket)| (address(index), state(socket))).collect()
    }

    /// A socket that has become writable. What goes wrong with polling is found by waiting.
    fn ready(&self) -> Option<usize> {
        let sockets = self.drive.sockets();
        if sockets.is_empty() {
            return None;
        }
        sys::poll_any(&sockets, Interest::Write, [None, None], Some(Duration::ZERO)).ok()?.socket
    }

    fn step(&mut self, mut ready: Option<usize>) -> Result<()> {
        loop {
            match self.drive.step(&self.options, ready) {
                Ok(Step::Wait(until)) => {
                    self.until = until;
                    // Another one may have ended meanwhile.
                    ready = self.ready();
                    if ready.is_none() {
                        return self.watch().map_err(|e| self.os_error(&e));
                    }
                }
                Ok(Step::Connected(connected)) => return self.end(Ok(connected)),
                Err(error) => return self.end(Err(error)),
            }
        }
    }

    /// The descriptor stays readable: the outcome is to be taken.
    fn end(&mut self, outcome: Result<Connected>) -> Result<()> {
        self.attempts = match &outcome {
            Ok(_) => std::mem::take(&mut self.drive.attempts),
            Err(error) => error.attempts().to_vec(),
        };
        self.outcome = Some(outcome);
        self.over = true;
        self.until = Deadline(Some(Instant::now()));
        self.watch().map_err(|e| self.os_error(&e))
    }

    /// Has the descriptor, if there is one, readable for what is awaited now.
    fn watch(&mut self) -> io::Result<()> {
        let Some(wakeup) = &self.wakeup else {
            return Ok(());
        };
        for socket in self.drive.sockets() {
            wakeup.add_writable(socket)?;
        }
        match self.drive.lookup.as_ref().and_then(Lookup::arrived) {
            Some(arrived) => {
                wakeup.add_event(arrived.event())?;
                self.watched = Some(arrived.clone());
            }
            None => {
                // Threads that were left behind may still set it.
                if let Some(arrived) = self.watched.take() {
                    wakeup.remove_event(arrived.event());
                }
            }
        }
        if let Some(cancel) = &self.options.cancel {
            wakeup.add_event(cancel.event())?;
        }
        wakeup.set_timer(self.until.remaining())
    }

    fn has_ended(&self) -> Error {
        let error = Error::new(ErrorKind::WrongState, OPERATION);
        error.at(&self.drive.endpoint).detail("it has ended")
    }

    fn os_error(&self, e: &io::Error) -> Error {
        Error::os(OPERATION, e).at(&self.drive.endpoint)
    }
}
