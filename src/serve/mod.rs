//! Serving: a thread for each connection, or many connections on few threads.

mod event;
mod gate;
mod limits;
mod options;
mod snapshot;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use crate::client::ClientSocket;
use crate::connect::Connecting;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result, Span};
use crate::info::FiveTuple;
use crate::options::SocketOptions;
use event::Events;
pub use event::{Connection, Data, Handler};
pub(crate) use limits::Refusal;
#[cfg(feature = "capi")]
pub(crate) use limits::network;
pub use options::{ServeOptions, WhenFull, WhenSlow};
pub use snapshot::{Bytes, ServiceSnapshot};
use threads::Threads;

/// How a [`drain`](Service::drain) went.
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let service = server.serve(|_| ())?;
/// let drained = service.drain(std::time::Duration::from_secs(5))?;
/// println!("{} finished, {} cut", drained.finished, drained.cut);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Connections whose handler ended by itself.
    pub finished: u32,
    /// Connections that were reset when the time was over.
    pub cut: u32,
}

/// How far a [`broadcast`](Service::broadcast) came.
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let service = server.serve(|_| ())?;
/// let result = service.broadcast(b"news\n")?;
/// println!("sent to {}, cut off {}", result.sent, result.cut);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Broadcast {
    /// Clients whose kernel took the message, or for which it waits.
    pub sent: u32,
    /// Clients that did not keep up, or were gone, and were reset.
    pub cut: u32,
    /// Clients among those above for which messages were dropped: older ones, or this one
    /// ([`WhenSlow::DropOldest`]).
    pub dropped: u32,
}

/// A server at work, from [`serve`](crate::ServerSocket::serve) or
/// [`serve_events`](crate::ServerSocket::serve_events). Dropping it stops it, resets the live
/// connections and waits for their handlers and callbacks to return.
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// let service = server.serve(|client| {
///     let _ = client.write_all(b"hello\n");
/// })?;
/// drop(service);
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct Service(Mode);

enum Mode {
    Threads(Arc<Threads>),
    Events(Arc<Events>),
}

/// The same of either.
macro_rules! either {
    ($service:expr, $mode:ident => $what:expr) => {
        match &$service.0 {
            Mode::Threads($mode) => $what,
            Mode::Events($mode) => $what,
        }
    };
}

impl Service {
    fn of_threads(threads: Arc<Threads>) -> Service {
        Service(Mode::Threads(threads))
    }

    fn of_events(events: Arc<Events>) -> Service {
        Service(Mode::Events(events))
    }

    /// How many connections are being served.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// assert_eq!(service.connections(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connections(&self) -> u32 {
        either!(self, mode => mode.gate().lock().live)
    }

    /// Sends `message` to every live connection (but not to those that are being
    /// closed or that this side has shut down), waiting for none that is slow. May be called
    /// from any thread, and from inside handlers.
    ///
    /// With a thread for each connection, a client whose kernel buffer does not take the whole
    /// message at once has not kept up and is reset, so it delays nobody and costs no memory. A
    /// client that another thread is writing to gets its turn within 100 ms for all.
    ///
    /// Event-driven, what a client's kernel does not take waits for it within
    /// [`max_queued`](ServeOptions::max_queued) bytes; one buffer serves all of them.
    ///
    /// # Errors
    /// Event-driven only: [`TooLong`](ErrorKind::TooLong) for a message that alone is more than
    /// may wait, [`InvalidArgument`](ErrorKind::InvalidArgument) for one whose length the
    /// framing cannot say. Nothing was sent.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket};
    /// # use std::time::{Duration, Instant};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let service = server.serve(|client| {
    ///     let _ = client.wait_hangup(None);   // clients only listen
    /// #   #[cfg(not(target_os = "linux"))] let _ = client.read(&mut [0]);
    /// })?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// # while service.connections() < 1 { std::thread::yield_now(); }
    /// assert_eq!(service.broadcast(b"news\n")?.sent, 1);
    /// assert_eq!(client.read_line(100)?, "news");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn broadcast(&self, message: &[u8]) -> Result<Broadcast> {
        match &self.0 {
            Mode::Threads(threads) => Ok(threads.broadcast(message)),
            Mode::Events(events) => events.broadcast(message, None),
        }
    }

    /// Sends `message` to the connections that have [joined](Connection::join) a group, as
    /// [`broadcast`](Service::broadcast) does to all. A group that nobody is in is no error.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState): a thread serves each connection, and there are no
    /// groups. Those of [`broadcast`](Service::broadcast).
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{ClientSocket, Connection, ServeOptions, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let service = server.serve_events(&ServeOptions::new(), |c: &Connection, _: &[u8]| {
    ///     let _ = c.join("weather");
    ///     let _ = c.send(b"joined\n");
    /// })?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// client.write_all(b"weather, please\n")?;
    /// assert_eq!(client.read_line(100)?, "joined");
    /// assert_eq!(service.broadcast_to("weather", b"sunny\n")?.sent, 1);
    /// assert_eq!(client.read_line(100)?, "sunny");
    /// # drop(client);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn broadcast_to(&self, group: &str, message: &[u8]) -> Result<Broadcast> {
        let events = self.events("broadcast")?;
        events.broadcast(message, Some(group))
    }

    /// Takes a connection into event-driven serving that was made elsewhere: by connecting, or
    /// handed over. From then on it is as if it had been accepted, except that no limit for
    /// addresses counts it, and that it has what it was made with where the kernel keeps that
    /// (keepalive), and the server's options where the loops do. `data` is what
    /// [`Connection::data`] has from the beginning.
    ///
    /// # Errors
    /// The socket is given back, as it was.
    /// [`WrongState`](ErrorKind::WrongState): a thread serves each connection here, or every
    /// place is taken, or another thread is in a call on the socket, or bytes were
    /// [read ahead](ClientSocket::buffered). [`Closed`](ErrorKind::Closed): it is closed, or
    /// the service has ended.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{ClientSocket, Connection, ServeOptions, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let upstream = ServerSocket::listen("127.0.0.1:0")?;
    /// let service = server.serve_events(&ServeOptions::new(), |from: &Connection, data: &[u8]| {
    ///     println!("{from:?}: {data:?}");
    /// })?;
    /// let client = ClientSocket::connect(upstream.endpoint())?;
    /// let connection = service.add(client, None).map_err(|(_, e)| e)?;
    /// connection.send(b"hello\n")?;
    /// assert_eq!(upstream.accept()?.read_line(100)?, "hello");
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[allow(clippy::result_large_err)] // the socket, and why it was refused
    pub fn add(
        &self,
        socket: ClientSocket,
        data: Option<Data>,
    ) -> std::result::Result<Connection, (ClientSocket, Error)> {
        match self.add_borrowed(&socket, data) {
            Ok(connection) => Ok(connection),
            Err(e) => Err((socket, e)),
        }
    }

    /// As [`add`](Service::add), for one whose object stays with its owner, closed.
    pub(crate) fn add_borrowed(
        &self,
        socket: &ClientSocket,
        data: Option<Data>,
    ) -> Result<Connection> {
        const OPERATION: &str = "add";
        let events = self.events(OPERATION)?;
        if socket.buffered() > 0 {
            let error = events.gate().error(ErrorKind::WrongState, OPERATION);
            return Err(error.detail("bytes were read ahead"));
        }
        if socket.is_for_packets() {
            let error = events.gate().error(ErrorKind::WrongState, OPERATION);
            return Err(error.detail("packets are not served by events"));
        }
        events.add(socket, data)
    }

    /// Connects, without waiting, and takes the connection in as [`add`](Service::add) does: the
    /// handler's [`open`](Handler::open) is called once there is one, or
    /// [`connect_failed`](Handler::connect_failed). Both have `data`, by which they tell which
    /// it is. May be called from inside callbacks: for proxies, and whoever asks others.
    ///
    /// # Errors
    /// Those of [`Connecting::start`](crate::Connecting::start), also for options that cannot be
    /// met; [`WrongState`](ErrorKind::WrongState): a thread serves each connection here;
    /// [`Closed`](ErrorKind::Closed): the service has ended.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{Connection, Handler, ServeOptions, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let upstream = ServerSocket::listen("127.0.0.1:0")?;
    /// struct Hello;
    /// impl Handler for Hello {
    ///     fn open(&self, connection: &Connection) {
    ///         let _ = connection.send(b"hello\n");
    ///     }
    ///     fn data(&self, _: &Connection, _: &[u8]) {}
    /// }
    /// let service = server.serve_events(&ServeOptions::new(), Hello)?;
    /// service.connect(upstream.endpoint(), &SocketOptions::new(), None)?;
    /// assert_eq!(upstream.accept()?.read_line(100)?, "hello");
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect<E>(&self, endpoint: E, options: &SocketOptions, data: Option<Data>) -> Result<()>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        const OPERATION: &str = "connect";
        let events = self.events(OPERATION)?;
        if options.sequenced {
            let error = events.gate().error(ErrorKind::InvalidArgument, OPERATION);
            return Err(error.detail("packets are not served by events"));
        }
        events.connect(Connecting::start(endpoint, options)?, data)
    }

    /// Stops accepting: closes the server socket, which cannot serve again. Live
    /// connections go on. May be called from inside a handler; stopping twice is fine.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// service.stop();
    /// service.wait(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stop(&self) {
        match &self.0 {
            Mode::Threads(threads) => threads.gate().stop(),
            Mode::Events(events) => events.stop(),
        }
    }

    /// Waits until accepting has ended: by [`stop`](Service::stop) or
    /// [`drain`](Service::drain) from another thread or a handler, by closing the
    /// server socket, or by firing its cancel token, as a signal handler may.
    /// `None`: for as long as that takes.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): it still accepts. The error of an accept that failed
    /// for good.
    ///
    /// ```
    /// use keepsock::{CancelToken, ServerSocket, SocketOptions};
    /// let token = CancelToken::new()?;
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().cancel(&token))?;
    /// let service = server.serve(|_client| ())?;
    /// token.fire();              // in real life: from a signal handler
    /// service.wait(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into();
        either!(self, mode => mode.gate().wait_stopped(timeout))
    }

    /// Stops accepting, and waits until all connections have ended by themselves; they are not
    /// told. Returns how many there still were when `limit` was over: they go on, and are
    /// [drained](Service::drain) next. So a request that is on its way while the server is
    /// [replaced](crate::HandOver) is still answered.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState) from inside a handler, which would be waiting
    /// for itself.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// if service.finish(Duration::from_secs(5))? > 0 {
    ///     service.drain(Duration::from_secs(25))?;   // they stay longer than a request takes
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn finish(&self, limit: Duration) -> Result<u32> {
        either!(self, mode => mode.finish(limit))
    }

    /// Ends the service in order: stops accepting; tells each live connection,
    /// whose reads then return [`Draining`](ErrorKind::Draining) while its
    /// writes still work, so that the handler can say goodbye; waits until all
    /// handlers have returned; and after `limit` resets the connections that are left.
    /// Clients that still waited to be accepted are reset by the system and not counted, unless
    /// another process accepts them ([`HandOver`](crate::HandOver)).
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState) from inside a handler, which would be waiting
    /// for itself: [`stop`](Service::stop) may be called there.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// let drained = service.drain(std::time::Duration::from_secs(5))?;
    /// assert_eq!(drained.cut, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn drain(&self, limit: Duration) -> Result<Drained> {
        either!(self, mode => mode.drain(limit))
    }

    /// What it has done so far, and what is going on.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// assert_eq!(service.snapshot().connections, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn snapshot(&self) -> ServiceSnapshot {
        let traffic = either!(self, mode => mode.traffic());
        let (bytes, queued) = match &self.0 {
            Mode::Threads(_) => (None, None),
            Mode::Events(events) => (Some(traffic.bytes()), Some(events.queued())),
        };
        either!(self, mode => {
            let gate = mode.gate();
            let state = gate.lock();
            let (live, opened, accepting) = (state.live, state.opened, !state.stopped);
            drop(state);
            ServiceSnapshot {
                endpoints: gate.server.endpoints().cloned().collect(),
                uptime: gate.born.elapsed(),
                accepting,
                connections: live,
                opened,
                closed: opened - u64::from(live),
                ends: traffic.ends(),
                counters: gate.server.counters(),
                bytes,
                queued,
            }
        })
    }

    /// The [snapshot](Service::snapshot) and a line for each connection, as text for operators.
    /// Its words may change.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// assert!(service.dump().contains("connections 0, opened 0, closed 0"));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn dump(&self) -> String {
        use std::fmt::Write;
        let mut text = self.snapshot().to_string();
        let mut line = |tuple: FiveTuple, more: String| {
            let _ = writeln!(text, "{tuple}{more}");
        };
        match &self.0 {
            Mode::Threads(threads) => {
                for client in threads.clients() {
                    line(client.five_tuple(), String::new());
                }
            }
            Mode::Events(events) => {
                for (tuple, queued, quiet) in events.list() {
                    let quiet =
                        quiet.map_or_else(String::new, |t| format!(", quiet for {}", Span(t)));
                    line(tuple, format!(", queued {queued}{quiet}"));
                }
            }
        }
        text
    }

    fn events(&self, operation: &'static str) -> Result<&Arc<Events>> {
        match &self.0 {
            Mode::Events(events) => Ok(events),
            Mode::Threads(threads) => Err(threads
                .gate()
                .error(ErrorKind::WrongState, operation)
                .detail("a thread serves each connection")),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        either!(self, mode => mode.end());
    }
}
