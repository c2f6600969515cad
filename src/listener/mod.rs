//! `ServerSocket`: listening, accepting and closing.

mod accept;
mod adopt;
mod counters;
mod listen;
#[cfg(feature = "activation")]
mod pending_options;
mod rejection;
mod socket;

#[cfg(feature = "serve")]
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use crate::io::cancel::CancelToken;
use crate::io::lock::TurnLock;
use crate::io::timeout::TimeoutCell;
#[cfg(feature = "serve")]
use crate::io::token_slot::ServiceUse;
use crate::io::token_slot::TokenSlot;
use crate::log;
use crate::options::SocketOptions;
use crate::stream::BorrowedSocket;
#[cfg(feature = "serve")]
use crate::stream::ClientSocket;
use crate::sys::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sys::{self, Owned};
use crate::types::endpoint::Endpoint;
use crate::types::error::{Error, ErrorKind, IN_USE, Result, no_element};
use crate::types::network::network;

#[cfg(feature = "serve")]
pub(crate) use accept::OUT_OF_DESCRIPTORS;
#[cfg(feature = "activation")]
pub(crate) use adopt::is_dual;
pub use counters::ServerStats;
#[cfg(feature = "activation")]
pub(crate) use listen::is_ipv6_missing;
pub(crate) use rejection::Rejection;
pub(crate) use socket::Listener;
#[cfg(feature = "serve")]
pub(crate) use socket::TryAccept;

use counters::Counters;
use socket::BoundListener;

/// A listening socket, on one or several endpoints. Each accepted connection is a separate
/// [`ClientSocket`], and the server socket continues to listen.
///
/// All methods take `&self`, and a clone refers to the same socket. Several threads may accept at
/// the same time, and any thread may [`close`](ServerSocket::close) the socket. Dropping the last
/// clone closes it. Accepted connections stay open.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket};
/// let server = ServerSocket::listen("127.0.0.1:0")?;   // port 0: the kernel assigns a port
/// let client = ClientSocket::connect(("127.0.0.1".parse().unwrap(), server.port()))?;
/// let accepted: ClientSocket = server.accept()?;
/// assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ServerSocket(Arc<ListenerInner>);

#[derive(Debug)]
struct ListenerInner {
    /// Never empty.
    listeners: Box<[Listener]>,
    options: SocketOptions,
    /// The networks of the option `trusted_proxy`.
    proxies: Vec<IpNet>,
    /// No option rejects a peer.
    admits_all: bool,
    nonblocking: AtomicBool,
    accept_timeout: TimeoutCell,
    cancel: Arc<TokenSlot>,
    /// Held by the thread that polls several listeners, or polls with the event of a close.
    polling: TurnLock,
    /// The index of the listener that is polled first.
    next: AtomicUsize,
}

impl ServerSocket {
    fn new(
        bound: Vec<BoundListener>,
        options: &SocketOptions,
        close_event: Option<Arc<sys::Event>>,
        is_shared: bool,
    ) -> ServerSocket {
        let listeners = bound.into_iter();
        let listeners = listeners.map(|bound| Listener::new(bound, close_event.clone(), is_shared));
        let server = ServerSocket(Arc::new(ListenerInner {
            listeners: listeners.collect(),
            options: SocketOptions { cancel: None, ..options.clone() },
            // The caller has validated the options.
            proxies: options.trusted_proxies.iter().flat_map(|n| network(n, "listen")).collect(),
            admits_all: options.users.is_empty() && options.trusted_proxies.is_empty(),
            nonblocking: AtomicBool::new(false),
            accept_timeout: TimeoutCell::new(None),
            cancel: TokenSlot::new(options.cancel.as_ref()),
            polling: TurnLock::default(),
            next: AtomicUsize::new(0),
        }));
        if options.cancel.is_some() {
            // The first accept reports an error of the descriptor.
            let _ = server.start_polling();
        }
        server.endpoints().for_each(log::listening);
        server
    }

    /// The event that a close sets to wake polls.
    pub(crate) fn close_event(&self) -> Option<&sys::Event> {
        self.first().close_event.as_deref()
    }

    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.0.listeners
    }

    fn first(&self) -> &Listener {
        &self.0.listeners[0]
    }

    #[cfg(feature = "serve")]
    pub(crate) fn options(&self) -> &SocketOptions {
        &self.0.options
    }

    /// Counts a service as a user of the socket until the result ends. The caller then checks that
    /// the socket is open.
    #[cfg(feature = "serve")]
    pub(crate) fn begin_service(&self) -> ServiceUse {
        self.0.cancel.begin_service()
    }

    /// Sets non-blocking mode on all listeners, so that no accept waits in the kernel.
    pub(crate) fn start_polling(&self) -> Result<()> {
        for listener in self.listeners() {
            let Some(io) = listener.hold() else {
                return Err(listener.accept_error(ErrorKind::Closed.into()));
            };
            listener.start_polling(&io).map_err(|e| listener.accept_error(e.into()))?;
        }
        Ok(())
    }

    #[cfg(feature = "serve")]
    pub(crate) fn count_exhausted(&self, cause: &io::Error) {
        self.first().count_exhausted(cause);
    }

    /// Counts a connection that was accepted and is not given to the program.
    #[cfg(feature = "serve")]
    pub(crate) fn count_rejection(&self, reason: Rejection, client: &ClientSocket) {
        socket::listener_of(self.listeners(), client).count_rejection(reason, client.peer());
    }

    /// In a forked child, closes the child's descriptors. The calls of the parent's threads that
    /// the descriptors still count are ignored.
    #[cfg(feature = "serve")]
    pub(crate) fn close_copies(&self) {
        self.listeners().iter().for_each(Listener::close_copy);
    }

    /// The endpoint that the server listens on. The port is the port that the kernel assigned if
    /// the program requested port 0. If the server listens on
    /// [several endpoints](ServerSocket::listen_all), this is the first one.
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("*:0")?;
    /// assert_eq!(server.endpoint().to_string(), format!("*:{}", server.port()));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn endpoint(&self) -> &Endpoint {
        &self.first().endpoint
    }

    /// All endpoints that the server listens on, in the order in which they were given.
    ///
    /// ```
    /// use keepsock::{ServerSocket, SocketOptions};
    /// let server = ServerSocket::listen_all(["127.0.0.1:0", "127.0.0.1:0"], &SocketOptions::new())?;
    /// for endpoint in server.endpoints() {
    ///     println!("listening on {endpoint}");
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &Endpoint> {
        self.listeners().iter().map(|listener| &listener.endpoint)
    }

    /// The port of the first endpoint; 0 for a Unix socket.
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// assert_ne!(server.port(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn port(&self) -> u16 {
        self.first().address.port()
    }

    /// The statistics of the server, summed over all endpoints. They stay readable after a close.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// server.accept()?;
    /// assert_eq!(server.stats().accepted, 1);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stats(&self) -> ServerStats {
        Counters::sum(self.listeners().iter().map(|listener| &listener.counters))
    }

    /// Sets the time that an accept may wait, rounded up to milliseconds. `None`: without limit,
    /// which is the default. Accepts that already wait keep their timeout. After a timeout was
    /// set, each accept costs one poll more.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the timeout is zero.
    /// - [`Closed`](ErrorKind::Closed): the server was closed.
    ///
    /// ```
    /// use keepsock::{ErrorKind, ServerSocket};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// server.set_accept_timeout(std::time::Duration::from_millis(20))?;
    /// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_accept_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        const OPERATION: &str = "accept timeout";
        let timeout = timeout.into();
        if timeout.is_some_and(|t| t.is_zero()) {
            let error = self.first().error(ErrorKind::InvalidArgument, OPERATION);
            return Err(error.detail("the timeout must be greater than zero"));
        }
        self.0.accept_timeout.set(timeout);
        if timeout.is_some() {
            self.start_polling().map_err(|e| e.during(OPERATION))
        } else {
            Ok(())
        }
    }

    /// Turns non-blocking mode on or off. In non-blocking mode, accept returns
    /// [`WouldBlock`](ErrorKind::WouldBlock) if no connection is pending. Accepts that already
    /// wait continue to wait. After the call, each blocking accept costs one poll more.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the server was closed.
    ///
    /// ```
    /// use keepsock::{ErrorKind, ServerSocket};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// server.set_nonblocking(true)?;
    /// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        self.0.nonblocking.store(on, Ordering::Release);
        self.start_polling().map_err(|e| e.during("non-blocking mode"))
    }

    /// Sets the token that cancels accepts, or removes it with `None`. Accepts that already wait
    /// keep their token. After a token was set, each accept costs one poll more.
    ///
    /// A service uses the token that is set when it starts. After the token has ended the service,
    /// the server still listens, and a token can be set again.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): a service uses the server.
    ///
    /// ```
    /// use keepsock::{CancelToken, ErrorKind, ServerSocket};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let token = CancelToken::new()?;
    /// server.set_cancel(Some(&token))?;
    /// token.fire();
    /// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::Cancelled);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_cancel(&self, token: Option<&CancelToken>) -> Result<()> {
        let mut slot = self.0.cancel.lock();
        if slot.is_served() {
            let error = Error::new(ErrorKind::WrongState, "cancel token").at(self.endpoint());
            return Err(error.detail("a service uses the server; set the token before serving"));
        }
        if token.is_some() {
            // A closed server has no accept to cancel.
            let _ = self.start_polling();
        }
        slot.set(token);
        Ok(())
    }

    /// Borrows the descriptor of the first endpoint, for an event loop. The descriptor stays open
    /// while the result lives. For the other endpoints, use
    /// [`borrow_at`](ServerSocket::borrow_at).
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the server was closed.
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// let borrowed = server.borrow()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn borrow(&self) -> Result<BorrowedSocket<'_>> {
        self.first().borrow()
    }

    /// Borrows the descriptor of an endpoint, for an event loop. `index` counts from 0 in the
    /// order of [`endpoints`](ServerSocket::endpoints). If any of the descriptors is readable, call
    /// [`accept`](ServerSocket::accept) in non-blocking mode.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the server was closed.
    /// - [`NotFound`](ErrorKind::NotFound): the server has no endpoint `index`.
    ///
    /// ```
    /// use keepsock::{ServerSocket, SocketOptions};
    /// let server = ServerSocket::listen_all(["127.0.0.1:0", "127.0.0.1:0"], &SocketOptions::new())?;
    /// server.set_nonblocking(true)?;
    /// for index in 0..server.endpoints().len() {
    ///     let borrowed = server.borrow_at(index)?;
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn borrow_at(&self, index: usize) -> Result<BorrowedSocket<'_>> {
        match self.listeners().get(index) {
            Some(listener) => listener.borrow(),
            None => Err(self.first().error(ErrorKind::NotFound, "descriptor").detail(no_element(
                "endpoint",
                index,
                self.listeners().len(),
            ))),
        }
    }

    /// Releases the descriptor: the caller owns it, and it continues to listen. The server socket
    /// is closed for this program. The file of a Unix socket stays.
    ///
    /// The descriptor has no SO_RCVTIMEO and no SO_SNDTIMEO. It is in the mode that
    /// [`set_nonblocking`](ServerSocket::set_nonblocking) set last, and in blocking mode by
    /// default. A listening socket that other processes may have
    /// ([`handover`](SocketOptions::handover), [`from_owned`](ServerSocket::from_owned)) stays in
    /// non-blocking mode.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the server was closed.
    /// - [`WrongState`](ErrorKind::WrongState): another thread is in a call on the server, a service
    ///   uses the server, or the server listens on several endpoints.
    ///
    /// ```
    /// use keepsock::ServerSocket;
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let listener = std::net::TcpListener::from(server.release()?);
    /// assert_eq!(listener.local_addr().unwrap().port(), server.port());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn release(&self) -> Result<Owned> {
        const OPERATION: &str = "release";
        let failed = |kind| Error::new(kind, OPERATION).at(self.endpoint());
        let first = self.first();
        let io = first.hold().ok_or_else(|| failed(ErrorKind::Closed))?;
        let count = self.listeners().len();
        if count > 1 {
            let detail = format!(
                "the server has {count} endpoints, each with its own descriptor: only a server with \
                 one endpoint can release its descriptor"
            );
            return Err(failed(ErrorKind::WrongState).detail(detail));
        }
        // No service starts before the descriptor is released.
        let slot = self.0.cancel.lock();
        if slot.is_served() {
            let detail = "a service uses the server: release the descriptor before serving";
            return Err(failed(ErrorKind::WrongState).detail(detail));
        }
        let owned = first
            .descriptor
            .release(io)
            .ok_or_else(|| failed(ErrorKind::WrongState).detail(IN_USE))?;
        drop(slot);
        let file = first.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(file) = file {
            file.keep();
        }
        if !first.is_shared() {
            let nonblocking = self.0.nonblocking.load(Ordering::Acquire);
            sys::prepare_release(sys::borrow(&owned), nonblocking);
        }
        Ok(owned)
    }

    /// Stops listening and removes the file of a Unix socket. Accepts of other threads return
    /// [`Closed`](ErrorKind::Closed). Accepted connections stay open. The kernel resets the
    /// connections that were not accepted, unless another process has the listening socket and
    /// continues to accept. Any thread may close the server at any time. Closing it again has no
    /// effect.
    ///
    /// ```
    /// use keepsock::{ErrorKind, ServerSocket};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// server.close();
    /// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn close(&self) {
        self.listeners().iter().for_each(Listener::close);
    }
}

/// Creates the event of [`ServerSocket::close_event`]. It is needed if other processes have or may have
/// the listeners, because shutdown(2) would end the listening of all processes, and where the system
/// cannot shut down a listener.
fn new_close_event(is_shared: bool, operation: &'static str) -> Result<Option<Arc<sys::Event>>> {
    if !is_shared && sys::BLOCKING_CALLS {
        return Ok(None);
    }
    let event = sys::Event::new().map_err(|e| Error::helper(operation, &e))?;
    Ok(Some(Arc::new(event)))
}
