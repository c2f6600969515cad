//! Serving streams: a thread for each connection, or event loops that serve many connections each.

pub(crate) mod admission;
mod blocking;
mod capacity;
mod lifecycle;
#[cfg(all(test, keepsock_model))]
mod model;
mod options;
#[cfg(test)]
mod properties;
mod reactor;
mod stats;
pub(crate) mod threads;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::connect::PendingConnect;
use crate::listener::ServerStats;
use crate::options::SocketOptions;
use crate::reconnect::Reconnect;
use crate::stream::ClientSocket;
use crate::types::address::FiveTuple;
use crate::types::endpoint::Endpoint;
use crate::types::error::{Error, ErrorKind, Result, Span};
use blocking::ThreadService;
use lifecycle::Backend;
#[cfg(feature = "datagram")]
pub(crate) use options::DatagramConfig;
pub use options::{AcceptPolicy, OverflowPolicy, ServeOptions};
use reactor::ReactorService;
pub use reactor::{Connection, Data, Handler};
pub use stats::{ServiceStats, TrafficStats};

/// The result of [`Service::drain`]. The counts include each connection that has ended since the
/// first drain of the service began, except connections that the program has
/// [detached](Connection::detach).
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let service = server.serve(|_| ())?;
/// let result = service.drain(std::time::Duration::from_secs(5))?;
/// println!("{} completed, {} reset", result.completed, result.reset);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Connections that ended in order: the peer closed its side, or the service closed the
    /// connection after everything was sent. The peer does not have to close its side by the
    /// deadline, if it has received everything.
    pub completed: u32,
    /// Connections that ended otherwise: a reset by either side, a failure of the connection, a
    /// panic of the handler or callback, or the deadline.
    pub reset: u32,
}

/// The result of [`Service::broadcast`] and [`Service::broadcast_to`].
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let service = server.serve(|_| ())?;
/// let result = service.broadcast(b"news\n")?;
/// println!("sent to {}, reset {}", result.sent, result.reset);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Broadcast {
    /// Connections for which the kernel accepted the message, or for which it is queued.
    pub sent: u32,
    /// Connections that the service resets, because they are slow consumers or already broken.
    pub reset: u32,
    /// Connections, counted in `sent`, for which the service dropped this message or older ones
    /// ([`OverflowPolicy::DropOldest`]).
    pub dropped: u32,
    /// Connections to which the message is not sent, because it does not fit their
    /// [framing](Connection::set_framing) or exceeds their
    /// [queue limit](Connection::set_queue_limit) alone.
    pub rejected: u32,
}

/// A running service, from [`ServerSocket::serve`](crate::ServerSocket::serve) or
/// [`ServerSocket::serve_events`](crate::ServerSocket::serve_events).
///
/// Any thread may call any method. Dropping the service stops it, resets the live connections and
/// waits until all handlers and callbacks have returned, unless it is dropped inside one. In a
/// forked child, dropping it closes the child's descriptors only, and the parent continues to
/// serve. Dropping it also closes the server, even if a cancel token has ended this service and
/// another service of the same server still accepts.
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
    Blocking(Arc<ThreadService>),
    Reactor(Arc<ReactorService>),
}

/// Evaluates an expression for the backend of either mode.
macro_rules! either {
    ($service:expr, $backend:ident => $result:expr) => {
        match &$service.0 {
            Mode::Blocking($backend) => $result,
            Mode::Reactor($backend) => $result,
        }
    };
}

impl Service {
    fn of_threads(service: Arc<ThreadService>) -> Service {
        Service(Mode::Blocking(service))
    }

    fn of_reactor(service: Arc<ReactorService>) -> Service {
        Service(Mode::Reactor(service))
    }

    /// Sends `message` to every live connection, without waiting for a slow client. Connections
    /// that are being closed, or whose sending side is shut down, are skipped. May be called from
    /// inside handlers and callbacks.
    ///
    /// With a thread for each connection, a client whose kernel buffer does not accept the whole
    /// message at once is reset, so it neither delays other clients nor uses memory. The call
    /// waits at most 100 ms in total for connections that another thread is writing to.
    ///
    /// With event loops, bytes that a client's kernel buffer does not accept are queued within the
    /// [`queue_limit`](ServeOptions::queue_limit). The queues share one copy of the message for each
    /// framing. If the process has no memory for it, the
    /// [`overflow_policy`](ServeOptions::overflow_policy) applies to these clients. A connection with
    /// its own [framing](Connection::set_framing) or [queue limit](Connection::set_queue_limit) that
    /// the message does not fit is counted in [`rejected`](Broadcast::rejected).
    ///
    /// # Errors
    /// The message is then sent to no connection.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// With event loops only:
    /// - [`TooLong`](ErrorKind::TooLong): the message alone exceeds the queue limit of the service.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a peer would not receive the message
    ///   unchanged with the [`framing`](ServeOptions::framing) of the service.
    ///
    /// The last two errors are returned only if no connection has a configuration of its own that
    /// accepts the message.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket};
    /// # use std::time::{Duration, Instant};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let service = server.serve(|client| {
    ///     let _ = client.wait_hangup(None);   // clients only receive
    /// #   #[cfg(not(target_os = "linux"))] let _ = client.read(&mut [0]);
    /// })?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// # while service.stats().connections < 1 { std::thread::yield_now(); }
    /// assert_eq!(service.broadcast(b"news\n")?.sent, 1);
    /// assert_eq!(client.read_line(100)?, "news");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn broadcast(&self, message: &[u8]) -> Result<Broadcast> {
        match &self.0 {
            Mode::Blocking(threads) => {
                threads.state().require_own_process("broadcast")?;
                Ok(threads.broadcast(message))
            }
            Mode::Reactor(_) => self.reactor("broadcast")?.broadcast(message, None),
        }
    }

    /// Sends `message` to the connections that have [joined](Connection::join) a group, as
    /// [`broadcast`](Service::broadcast) does to all. A group without members is not an error.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): the service has a thread for each connection, and
    ///   so no groups; or called in a forked child.
    /// - [`TooLong`](ErrorKind::TooLong): the message alone exceeds the queue limit.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the list of members.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the message contains the delimiter of the
    ///   framing, or the format of the length cannot represent its length.
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
        let reactor = self.reactor("broadcast")?;
        reactor.broadcast(message, Some(group))
    }

    /// Adds a connection that the program made, for example by connecting, to a service with
    /// event loops. The service treats it as an accepted connection, with two differences:
    /// [`max_per_address`](ServeOptions::max_per_address) does not count it, and it keeps the
    /// keepalive, `dead_after`, heartbeat, idle timeout, first-byte timeout and close timeout that
    /// it was made with.
    ///
    /// `data` is the initial value of [`Connection::data`]. After
    /// [`on_open`](Handler::on_open) the service delivers the [buffered bytes](ClientSocket::buffered)
    /// of the socket, and then the bytes that it receives. [`bytes_received`](TrafficStats::bytes_received)
    /// does not count the buffered bytes. So a program may accept a connection, read its first bytes
    /// and then pass it to a service. [`Connection::detach`] takes a connection out again.
    ///
    /// # Errors
    /// The error comes with the socket, which is unchanged.
    /// - [`WrongState`](ErrorKind::WrongState): the service has a thread for each connection;
    ///   [`max_connections`](ServeOptions::max_connections) connections are being served; another
    ///   thread is in a call on the socket; its PROXY header was not
    ///   [received](ClientSocket::read_proxy_header); a heartbeat is partly sent; a message of
    ///   [`write_message`](ClientSocket::write_message) is unfinished; it is a `SOCK_SEQPACKET` socket; or this process is a forked child.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the socket was made with
    ///   [`keep_stats`](crate::SocketOptions::keep_stats), which has no effect here.
    /// - [`Closed`](ErrorKind::Closed): the socket is closed, or the service has ended.
    /// - [`Reset`](ErrorKind::Reset), [`Dead`](ErrorKind::Dead),
    ///   [`Unreachable`](ErrorKind::Unreachable), [`Stalled`](ErrorKind::Stalled),
    ///   [`IdleTimeout`](ErrorKind::IdleTimeout), [`HeartbeatTimeout`](ErrorKind::HeartbeatTimeout): an
    ///   earlier call on the socket has found that the connection has ended.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for another connection.
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
    #[allow(clippy::result_large_err)] // The error returns the socket to the caller.
    pub fn add(
        &self,
        socket: ClientSocket,
        data: Option<Data>,
    ) -> std::result::Result<Connection, (ClientSocket, Error)> {
        match self.add_borrowed(&socket, data, |_| ()) {
            Ok(connection) => Ok(connection),
            Err(e) => Err((socket, e)),
        }
    }

    /// Adds a connection as [`add`](Service::add) does. The socket object stays with the caller,
    /// and is closed on success. `on_id` receives the id that the handler has for the connection,
    /// before the first callback.
    pub(crate) fn add_borrowed(
        &self,
        socket: &ClientSocket,
        data: Option<Data>,
        on_id: impl FnOnce(u64),
    ) -> Result<Connection> {
        const OPERATION: &str = "add";
        let reject = |kind, why| Err(Error::new(kind, OPERATION).detail(why));
        let added = self.reactor(OPERATION).and_then(|reactor| {
            if socket.keeps_stats() {
                let why =
                    "keep_stats has no effect on connections of event-driven serving: remove it";
                return reject(ErrorKind::InvalidArgument, why);
            }
            if socket.is_seqpacket() {
                return reject(
                    ErrorKind::WrongState,
                    "event-driven serving does not support SOCK_SEQPACKET sockets",
                );
            }
            reactor.add(socket, data, &mut None, on_id)
        });
        added.map_err(|e| e.at(socket.five_tuple()))
    }

    /// Starts to connect, and returns without waiting. The service then adds the connection as
    /// [`add`](Service::add) does and calls [`on_open`](Handler::on_open). If connecting fails, it
    /// calls [`on_connect_failed`](Handler::on_connect_failed). Both callbacks can identify the
    /// connection by `data`.
    ///
    /// The keepalive, `dead_after`, heartbeat, idle timeout, first-byte timeout and close timeout
    /// of `options` apply to this connection, and not those of the server socket. May be called
    /// from callbacks, for example by a proxy or by a server that queries an upstream server.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): the service has a thread for each connection,
    ///   [`max_connections`](ServeOptions::max_connections) connections are being served, or this
    ///   process is a forked child.
    /// - [`Closed`](ErrorKind::Closed): the service has ended.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option has no effect here, for example
    ///   a read or write timeout.
    /// - Each error of [`PendingConnect::start`](crate::PendingConnect::start), also for options
    ///   that cannot be applied.
    ///
    /// `on_connect_failed` receives `WrongState` if the limit was reached while this call
    /// connected, and `Closed` if the service ended in that time: a [`drain`](Service::drain)
    /// ends pending connects when it ends.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{Connection, Handler, ServeOptions, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let upstream = ServerSocket::listen("127.0.0.1:0")?;
    /// struct Hello;
    /// impl Handler for Hello {
    ///     fn on_open(&self, connection: &Connection) {
    ///         let _ = connection.send(b"hello\n");
    ///     }
    ///     fn on_data(&self, _: &Connection, _: &[u8]) {}
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
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?;
        let checked = self.reactor(OPERATION).and_then(|reactor| {
            options.refuse_calls_only(OPERATION)?;
            reactor.require_free_slot(OPERATION)?;
            Ok(reactor)
        });
        let reactor = checked.map_err(|e| e.at(&endpoint))?;
        reactor.connect(PendingConnect::start_at(endpoint, options)?, data)
    }

    /// Keeps one connection to a peer: connects, and connects again after the connection was lost,
    /// with the backoff, the timeout and [`on_retry`](Reconnect::on_retry) of `reconnect`. Returns
    /// without waiting, and needs no thread. The service adds each connection as
    /// [`connect`](Service::connect) does, with the same `data`, and calls
    /// [`on_open`](Handler::on_open): subscribe again there.
    ///
    /// - After [`on_close`](Handler::on_close) with another reason than
    ///   [`Local`](crate::CloseReason::Local), exactly one call of `on_open` or of
    ///   [`on_connect_failed`](Handler::on_connect_failed) follows, and `on_retry` runs before each
    ///   delay, in a thread of the service. After the reason `Local`, which is a
    ///   [`close`](Connection::close) or [`abort`](Connection::abort) by the program or a panic in a
    ///   callback, and after a [`detach`](Connection::detach), the service does not connect again. A close after the peer's FIN has the reason
    ///   [`PeerClosed`](crate::CloseReason::PeerClosed), so the service connects again.
    /// - `on_connect_failed` ends the reconnecting. It receives the error of
    ///   [`Reconnect::try_connect`]: a permanent error, `Cancelled` by the token of the options, or
    ///   the last error when the timeout of `reconnect`, which counts from each loss, has expired.
    ///   The token of the options does not end an open connection.
    /// - The connection must stay open for the longest delay, or the next delays become longer: a peer
    ///   that accepts and immediately closes is contacted as rarely as one that refuses. While the
    ///   service serves [`max_connections`](ServeOptions::max_connections) connections, it closes the
    ///   new connection and tries again after a delay.
    /// - Once accepting has stopped, by [`stop`](Service::stop), [`drain`](Service::drain), a close
    ///   or the token of the server socket or an error, the service does not connect again. A delay
    ///   or a try in progress ends immediately, and `on_connect_failed` receives `Closed`. An open
    ///   connection continues. Dropping the service does the same, and resets open connections. To
    ///   serve outgoing connections only, use [`pause_accept`](Service::pause_accept).
    ///
    /// # Errors
    /// The error has the unchanged `reconnect`.
    /// - [`WrongState`](ErrorKind::WrongState): the service has a thread for each connection, or this
    ///   process is a forked child.
    /// - [`Closed`](ErrorKind::Closed): accepting has stopped.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option has no effect here, for example
    ///   a read or write timeout.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{Connection, Handler, Reconnect, ServeOptions, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let upstream = ServerSocket::listen("127.0.0.1:0")?;
    /// struct Subscriber;
    /// impl Handler for Subscriber {
    ///     fn on_open(&self, connection: &Connection) {
    ///         let _ = connection.send(b"subscribe\n");
    ///     }
    ///     fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// }
    /// let service = server.serve_events(&ServeOptions::new(), Subscriber)?;
    /// let mut reconnect = Reconnect::new(upstream.endpoint(), &SocketOptions::new())?;
    /// reconnect.on_retry(|retry| eprintln!("{retry}"));
    /// service.reconnect(reconnect, None).map_err(|(_, e)| e)?;
    /// for _ in 0..2 {
    ///     let connection = upstream.accept()?;
    ///     assert_eq!(connection.read_line(100)?, "subscribe");
    ///     connection.abort();
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[allow(clippy::result_large_err)] // The error returns the object to the caller.
    pub fn reconnect(
        &self,
        mut reconnect: Reconnect,
        data: Option<Data>,
    ) -> std::result::Result<(), (Reconnect, Error)> {
        match self.reconnect_borrowed(&mut reconnect, data) {
            Ok(()) => Ok(()),
            Err(e) => Err((reconnect, e)),
        }
    }

    /// As [`reconnect`](Service::reconnect). On success an unused object stays with the caller.
    pub(crate) fn reconnect_borrowed(
        &self,
        reconnect: &mut Reconnect,
        data: Option<Data>,
    ) -> Result<()> {
        const OPERATION: &str = "reconnect";
        let added = self.reactor(OPERATION).and_then(|reactor| {
            reconnect.options().refuse_calls_only(OPERATION)?;
            reactor.reconnect(reconnect, data)
        });
        added.map_err(|e| e.at(reconnect.endpoint()))
    }

    /// Calls a function in the thread of the first event loop. Returns immediately. The functions of
    /// a service are called one at a time, in the order in which they were posted. Any thread may
    /// post, also inside callbacks and posted functions. [`Connection::post`] posts to the loop of a
    /// connection.
    ///
    /// Each function whose post succeeded is called exactly once: [`wait`](Service::wait),
    /// [`drain`](Service::drain) and dropping the service wait for it. After an error it is not
    /// called. The loop calls at most 64 functions before it handles other events. If a function
    /// panics, the service logs that and continues.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the service has ended, by [`drain`](Service::drain) or because
    ///   it was dropped.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the function.
    /// - [`WrongState`](ErrorKind::WrongState): the service has a thread for each connection; or
    ///   called in a forked child.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{Connection, ServeOptions, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let service = server.serve_events(&ServeOptions::new(), |_: &Connection, _: &[u8]| ())?;
    /// service.post(|| println!("in the thread of the event loop"))?;
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn post(&self, function: impl FnOnce() + Send + 'static) -> Result<()> {
        self.reactor("post")?.post(function)
    }

    /// Sets a timer: calls `function` after `delay` in the thread of the first event loop, and then
    /// after each `interval`. `None`: once. Returns the id of the timer, which the function also
    /// receives. Any thread may call this, also inside callbacks, posted functions and timers.
    ///
    /// A timer does not expire early. If the loop is idle, it expires about 1 ms late. The clock is
    /// monotonic. A repeating timer keeps its rate. Periods that pass while the process is stopped or
    /// the loop is in a callback are skipped, except for one call.
    ///
    /// A timer does not keep the service from ending. Once the service has ended, by a
    /// [`drain`](Service::drain) or because it was dropped, no function is called, and the service
    /// drops the functions that are left. If a function panics, the service logs that and removes the
    /// timer.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the interval is below 1 ms.
    /// - [`Closed`](ErrorKind::Closed): the service has ended.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the timer.
    /// - [`WrongState`](ErrorKind::WrongState): the service has a thread for each connection; or
    ///   called in a forked child.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{Connection, ServeOptions, ServerSocket};
    /// # use std::time::Duration;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve_events(&ServeOptions::new(), |_: &Connection, _: &[u8]| ())?;
    /// let second = Duration::from_secs(1);
    /// let timer = service.add_timer(second, second, |_| println!("tick"))?;
    /// service.remove_timer(timer)?;
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn add_timer(
        &self,
        delay: Duration,
        interval: impl Into<Option<Duration>>,
        function: impl FnMut(u64) + Send + 'static,
    ) -> Result<u64> {
        self.reactor("add timer")?.add_timer(delay, interval.into(), function)
    }

    /// Removes a timer. Its function is not called again. A call that is in progress in another
    /// thread continues. A function may remove its own timer.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): the timer has expired and does not repeat, or was
    ///   removed; the service has a thread for each connection; or called in a forked child.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{Connection, ServeOptions, ServerSocket};
    /// # use std::time::Duration;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve_events(&ServeOptions::new(), |_: &Connection, _: &[u8]| ())?;
    /// let timer = service.add_timer(Duration::from_secs(60), None, |_| println!("a minute"))?;
    /// service.remove_timer(timer)?;
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn remove_timer(&self, timer: u64) -> Result<()> {
        self.reactor("remove timer")?.remove_timer(timer)
    }

    /// Returns the open connections of a service with event loops: those whose
    /// [`on_open`](Handler::on_open) has been called, and whose [`on_close`](Handler::on_close) has
    /// not. A connection may end at any time; its methods then report that.
    ///
    /// # Errors
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the list.
    /// - [`WrongState`](ErrorKind::WrongState): the service has a thread for each connection; or
    ///   called in a forked child.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{Connection, ServeOptions, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve_events(&ServeOptions::new(), |_: &Connection, _: &[u8]| ())?;
    /// for connection in service.connections()? {
    ///     if connection.queued() > 1_000_000 {
    ///         connection.abort();
    ///     }
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connections(&self) -> Result<Vec<Connection>> {
        self.reactor("list connections")?.connections()
    }

    /// Pauses accepting: new clients wait in the listen queue, whose length is the
    /// [`backlog`](crate::SocketOptions::backlog), until [`resume_accept`](Service::resume_accept).
    /// Live connections continue. [`stop`](Service::stop) and [`drain`](Service::drain) also end a
    /// pause. May be called from inside handlers and callbacks. Pausing twice has no effect.
    ///
    /// With a thread for each connection, each idle thread may already wait in accept(2). It accepts
    /// one more client, whose handler runs after the pause. With event loops, a connection that waits
    /// for its PROXY header is opened after the pause.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the service has stopped accepting.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// service.pause_accept()?;
    /// // reload the configuration
    /// service.resume_accept()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn pause_accept(&self) -> Result<()> {
        either!(self, backend => backend.set_accept_paused(true))
    }

    /// Resumes accepting after [`pause_accept`](Service::pause_accept).
    ///
    /// # Errors
    /// The errors of [`pause_accept`](Service::pause_accept).
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// service.pause_accept()?;
    /// service.resume_accept()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn resume_accept(&self) -> Result<()> {
        either!(self, backend => backend.set_accept_paused(false))
    }

    /// Stops accepting: closes the server socket, which cannot serve again. Live connections
    /// continue. May be called from inside handlers and callbacks. Further calls do nothing, and neither
    /// does a call in a forked child.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// service.stop();
    /// service.wait_stopped(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stop(&self) {
        if !self.is_inherited() {
            either!(self, backend => backend.stop());
        }
    }

    /// Waits until the service has stopped accepting: by [`stop`](Service::stop) or
    /// [`drain`](Service::drain) in another thread or a handler, by closing the server socket, or by
    /// firing its cancel token, which a signal handler may do. `None` waits without a limit. `main`
    /// calls it while the service runs, and drains the service afterwards.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): the service still accepts after `timeout`.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    /// - The error of accept(2), if a fatal one ended accepting.
    ///
    /// ```
    /// use keepsock::{CancelToken, ServerSocket, SocketOptions};
    /// let token = CancelToken::new()?;
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().cancel(&token))?;
    /// let service = server.serve(|_client| ())?;
    /// token.fire();              // a program does this in a signal handler
    /// service.wait_stopped(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait_stopped(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into();
        either!(self, backend => backend.wait_stopped(timeout))
    }

    /// Waits until the service has ended: it has stopped accepting, its last connection has ended,
    /// and all handlers and callbacks have returned. `None` waits without a limit.
    ///
    /// The call does not stop the service and does not notify connections. Requests in progress
    /// complete after [`stop`](Service::stop), for example while the server is
    /// [replaced](crate::Handover). Connections that outlive `timeout` continue, and the program
    /// then [drains](Service::drain) them.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): the service has not ended within `timeout`.
    ///   [`stats`](Service::stats) counts the open connections.
    /// - [`WrongState`](ErrorKind::WrongState): called from inside a handler or callback, where it
    ///   would wait for itself; or in a forked child, because the service runs in the parent.
    /// - The error of accept(2), if a fatal one ended accepting.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// service.stop();
    /// if service.wait(Duration::from_secs(5)).is_err() {
    ///     service.drain(Duration::from_secs(25))?;   // connections that outlive a request
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into();
        either!(self, backend => backend.wait_ended(timeout))
    }

    /// Ends the service in order, in four steps:
    /// 1. It stops accepting.
    /// 2. It notifies each live connection. With a thread for each connection, reads then return
    ///    [`Draining`](ErrorKind::Draining), and writes still work, so the handler can send a last
    ///    message. With event loops it calls [`on_drain`](Handler::on_drain).
    /// 3. It waits until all connections have ended. With event loops, a connection that is closed
    ///    with bytes in its send queue has the whole `timeout` to send them, also if its
    ///    [`close_timeout`](crate::SocketOptions::close_timeout) is shorter.
    /// 4. After `timeout` it resets the connections that are left. A connection that is being
    ///    closed is closed without a reset if only the peer's FIN is missing.
    ///
    /// The call returns after the last callback of each connection
    /// ([`on_close`](Handler::on_close)), or after its handler has returned. A handler or callback
    /// that waits, for example for a lock that the caller holds, delays the call beyond `timeout`.
    ///
    /// The kernel resets clients that wait in the listen queue, and they are not counted, unless
    /// another process accepts them ([`Handover`](crate::Handover)).
    ///
    /// Several threads may call it. The earliest deadline applies. Each call, also a later one,
    /// returns the counts since the first call.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): called from inside a handler or callback, where it
    ///   would wait for itself ([`stop`](Service::stop) may be called there); or in a forked child,
    ///   because the service runs in the parent.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// let result = service.drain(std::time::Duration::from_secs(5))?;
    /// assert_eq!(result.reset, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn drain(&self, timeout: Duration) -> Result<Drained> {
        either!(self, backend => backend.drain(timeout))
    }

    /// Returns a snapshot of the service's statistics. In a forked child, where the service does not
    /// run, every number except the uptime is 0, and `accepting` is false.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// assert_eq!(service.stats().connections, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stats(&self) -> ServiceStats {
        let server = either!(self, backend => &backend.state().server);
        let mut stats = ServiceStats {
            endpoints: server.endpoints().cloned().collect(),
            uptime: either!(self, backend => backend.state().started_at.elapsed()),
            accepting: false,
            connections: 0,
            opened: 0,
            closed: 0,
            close_reasons: Vec::new(),
            server: ServerStats::default(),
            traffic: matches!(self.0, Mode::Reactor(_)).then(TrafficStats::default),
        };
        // A thread of the parent may hold a lock.
        if self.is_inherited() {
            return stats;
        }
        let counters = either!(self, backend => backend.traffic());
        if let Mode::Reactor(reactor) = &self.0 {
            stats.traffic = Some(counters.stats(reactor.queued_bytes()));
        }
        either!(self, backend => {
            let state = backend.state();
            let locked = state.lock();
            stats.accepting = !locked.stopped && !state.is_accept_paused();
            (stats.connections, stats.opened) = (locked.live, locked.opened);
            // Under the lock, so that their sum is the number of closed connections.
            stats.close_reasons = counters.close_reasons();
        });
        stats.closed = stats.opened - u64::from(stats.connections);
        stats.server = server.stats();
        stats
    }

    /// Returns the [statistics](Service::stats) and a line for each connection, as text for
    /// operators. In a forked child it has no such line. The format may change between versions.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// assert!(service.dump().contains("connections 0, opened 0, closed 0"));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn dump(&self) -> String {
        let mut text = self.stats().to_string();
        if self.is_inherited() {
            return text;
        }
        let mut line = |tuple: FiveTuple, details: String| {
            let _ = writeln!(text, "{tuple}{details}");
        };
        match &self.0 {
            Mode::Blocking(threads) => {
                for client in threads.clients() {
                    line(client.five_tuple(), String::new());
                }
            }
            Mode::Reactor(reactor) => {
                for (tuple, queued, quiet) in reactor.connection_states() {
                    let quiet =
                        quiet.map_or_else(String::new, |t| format!(", quiet for {}", Span(t)));
                    line(tuple, format!(", queued {queued}{quiet}"));
                }
            }
        }
        text
    }

    /// Whether this process is a forked child. The threads of the service run in the parent only, and
    /// one of them may have held a lock at the time of the fork.
    fn is_inherited(&self) -> bool {
        either!(self, backend => backend.state().threads.is_inherited())
    }

    /// Fails in a forked child.
    #[cfg(feature = "capi")]
    pub(crate) fn require_own_process(&self, operation: &'static str) -> Result<()> {
        either!(self, backend => backend.state().require_own_process(operation))
    }

    fn reactor(&self, operation: &'static str) -> Result<&Arc<ReactorService>> {
        match &self.0 {
            Mode::Reactor(reactor) => {
                reactor.state().require_own_process(operation)?;
                Ok(reactor)
            }
            Mode::Blocking(threads) => Err(threads
                .state()
                .error(ErrorKind::WrongState, operation)
                .detail("the service has a thread for each connection, and the operation needs event-driven serving")),
        }
    }
}

impl Service {
    /// Ends the service, and waits for its callbacks, unless one of them calls this.
    pub(crate) fn shut_down(&self) {
        either!(self, backend => backend.shut_down());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shut_down();
    }
}
