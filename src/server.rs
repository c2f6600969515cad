//! ServerSocket: listening and accepting.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, SockRef};

use crate::back_off::BackOff;
use crate::cancel::CancelToken;
use crate::client::{BorrowedSocket, ClientSocket};
use crate::endpoint::{Endpoint, Host, Target};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::events::{self, Repeated};
use crate::info::{Address, Family, TcpState};
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::serve::Refusal;
use crate::sys::{self, Borrowed, Descriptor, InUse, Interest, Owned};
use crate::unix::{self, SocketFile};
use crate::wait::{Cause, Deadline, wait};

const OPERATION: &str = "listen";
const ACCEPT: &str = "accept";

/// A listening socket. It goes on listening while any number of connections that
/// it accepted are in use; each of them is a [`ClientSocket`] of its own.
///
/// All methods take `&self`, and a clone is the same socket: several threads may
/// accept at once, and any of them may [`close`](ServerSocket::close). The
/// last clone to be dropped closes it.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket};
/// let server = ServerSocket::listen("127.0.0.1:0")?;   // port 0: the system chooses
/// let client = ClientSocket::connect(("127.0.0.1".parse().unwrap(), server.port()))?;
/// let accepted: ClientSocket = server.accept()?;
/// assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ServerSocket(Arc<Listener>);

#[derive(Debug)]
struct Listener {
    descriptor: Descriptor,
    endpoint: Endpoint,
    address: Address,
    options: SocketOptions,
    /// Accepts wait in poll: one of them has a limit or a token. Once set it
    /// stays, for accept after poll must not block when another thread was faster,
    /// and only O_NONBLOCK sees to that.
    polled: AtomicBool,
    nonblocking: AtomicBool,
    /// Milliseconds, or `u64::MAX`.
    timeout: AtomicU64,
    cancel: Mutex<Option<CancelToken>>,
    counters: Counters,
    repeated: Repeated,
    file: Mutex<Option<SocketFile>>,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    retried: AtomicU64,
    exhausted: AtomicU64,
    refused: AtomicU64,
    crowded: AtomicU64,
    denied: AtomicU64,
}

/// What a server socket has counted since it began to listen.
///
/// ```
/// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// let counters = server.counters();
/// println!("{} accepted, {} refused", counters.accepted, counters.refused);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerCounters {
    /// Connections handed to the program.
    pub accepted: u64,
    /// Accepts tried again after an error that concerned one connection or
    /// passes by itself (ECONNABORTED and others of accept(2)).
    pub retried: u64,
    /// Accepts tried again because descriptors, memory or threads were used up.
    pub exhausted: u64,
    /// Connections closed at once because [`serve`](ServerSocket::serve) was full and told to
    /// refuse.
    pub refused: u64,
    /// Connections reset at once because their address had as many as it may
    /// ([`max_per_address`](crate::ServeOptions::max_per_address)).
    pub crowded: u64,
    /// Connections reset at once because their address may not connect
    /// ([`allow`](crate::ServeOptions::allow), [`deny`](crate::ServeOptions::deny)).
    pub denied: u64,
}

/// Each error of a single connection is another one's, so accept tries again at
/// once; but one that keeps coming (EPERM in a sandbox that forbids the call) is
/// not, and must not keep the processor busy.
const RETRIES_AT_ONCE: u32 = 256;

/// How long an accept waits before it tries again after running out of
/// descriptors: soon at first, and never so long that a free descriptor
/// lies idle for 100 ms.
pub(crate) const OUT_OF_DESCRIPTORS: BackOff =
    BackOff::new(Duration::from_millis(5), Duration::from_millis(50));

impl ServerSocket {
    /// Listens with the default options.
    ///
    /// `*:8080` takes IPv4 and IPv6 on one port, whatever the system's bindv6only
    /// says (IPv4 alone on a machine without IPv6); `0.0.0.0:8080` takes IPv4 and
    /// `[::]:8080` IPv6 only. A name stands for its first address. With port 0 the
    /// system chooses; [`port`](ServerSocket::port) tells which.
    ///
    /// A Unix path whose server is gone is taken over; one with a live
    /// server never is. The file is removed when the server is closed.
    ///
    /// # Errors
    /// [`AddressInUse`](ErrorKind::AddressInUse),
    /// [`AddressNotAvailable`](ErrorKind::AddressNotAvailable),
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) (ports below 1024),
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint), those of a name lookup, each naming the
    /// endpoint.
    ///
    /// ```
    /// use keepsock::{ErrorKind, ServerSocket};
    /// let first = ServerSocket::listen("127.0.0.1:0")?;
    /// let err = ServerSocket::listen(first.endpoint()).unwrap_err();
    /// assert_eq!(err.kind(), ErrorKind::AddressInUse);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn listen<E>(endpoint: E) -> Result<ServerSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        ServerSocket::listen_with(endpoint, &SocketOptions::default())
    }

    /// Listens with options. They hold for every connection that is accepted.
    ///
    /// # Errors
    /// Those of [`listen`](ServerSocket::listen);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) and
    /// [`Unsupported`](ErrorKind::Unsupported) for options that cannot be met.
    ///
    /// ```
    /// use keepsock::{ClientSocket, Keepalive, ServerSocket, SocketOptions};
    /// use std::time::Duration;
    /// let fast = Keepalive::new(Duration::from_secs(10), Duration::from_secs(5), 3)?;
    /// let server = ServerSocket::listen_with("*:0", &SocketOptions::new().keepalive(fast))?;
    /// # let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
    /// # let client = ClientSocket::connect((loopback, server.port()))?;
    /// assert_eq!(server.accept()?.keepalive()?, Some(fast));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn listen_with<E>(endpoint: E, options: &SocketOptions) -> Result<ServerSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(OPERATION))?;
        options.validate(OPERATION)?;
        options.refuse_client_only(OPERATION)?;
        match &endpoint.0 {
            Target::Inet { .. } => listen_inet(&endpoint, options),
            Target::UnixPath(_) | Target::UnixAbstract(_) => listen_unix(&endpoint, options),
        }
    }

    /// Takes over a listening stream socket, as a service manager may pass it. TCP options
    /// are set on it.
    ///
    /// # Errors
    /// The descriptor is given back with the error:
    /// [`WrongState`](ErrorKind::WrongState) if it is not a listening stream socket.
    ///
    /// ```
    /// use keepsock::{ServerSocket, SocketOptions};
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let port = listener.local_addr()?.port();
    /// let server = ServerSocket::from_owned(listener.into(), &SocketOptions::new()).unwrap();
    /// assert_eq!(server.port(), port);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_owned(
        socket: Owned,
        options: &SocketOptions,
    ) -> std::result::Result<ServerSocket, (Owned, Error)> {
        const OPERATION: &str = "take over";
        let wrong =
            |what: &str| Error::new(ErrorKind::WrongState, OPERATION).detail(what.to_owned());
        let os = |e: io::Error| Error::os(OPERATION, &e);
        let look = || -> Result<Address> {
            options.validate(OPERATION)?;
            let fd = sys::borrow(&socket);
            match sys::is_listening_stream(fd).map_err(os)? {
                Some(true) => {}
                Some(false) => return Err(wrong("not a listening socket")),
                None => return Err(wrong("not a stream socket")),
            }
            let name = SockRef::from(&fd).local_addr().map_err(os)?;
            if let Some(inet) = name.as_socket() {
                // Before the rest: where it is refused, the socket is left as it was.
                let applied =
                    options.adopt_listener(fd).and_then(|()| options.adopt_tcp(fd, inet.is_ipv6()));
                applied.map_err(|cause| cause.into_error(OPERATION))?;
            } else if options.save_syn {
                options.refuse_inet_only(OPERATION)?;
            }
            options.adopt(fd).map_err(|cause| cause.into_error(OPERATION))?;
            Ok(sys::to_address(&name))
        };
        match look() {
            Ok(address) => {
                Ok(ServerSocket::new(socket, endpoint_of(&address), address, options, None))
            }
            Err(e) => Err((socket, e)),
        }
    }

    fn new(
        socket: Owned,
        endpoint: Endpoint,
        address: Address,
        options: &SocketOptions,
        file: Option<SocketFile>,
    ) -> ServerSocket {
        let server = ServerSocket(Arc::new(Listener {
            descriptor: Descriptor::new(socket),
            endpoint,
            address,
            options: SocketOptions { cancel: None, ..options.clone() },
            polled: AtomicBool::new(!sys::BLOCKING_CALLS),
            nonblocking: AtomicBool::new(false),
            timeout: AtomicU64::new(u64::MAX),
            cancel: Mutex::new(None),
            counters: Counters::default(),
            repeated: Repeated::default(),
            file: Mutex::new(file),
        }));
        server.set_cancel(options.cancel.as_ref());
        events::listening(server.endpoint());
        server
    }

    /// Waits for the next confirmed connection. On Linux that costs one system call,
    /// for every option is inherited from the listener.
    ///
    /// Errors of single connections are passed over. When descriptors or memory
    /// are used up, accept waits until there are some again, without using the
    /// processor; [`counters`](ServerSocket::counters) tells of both.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled),
    /// [`Closed`](ErrorKind::Closed), and
    /// [`WouldBlock`](ErrorKind::WouldBlock) in non-blocking mode
    /// ([`NoDescriptors`](ErrorKind::NoDescriptors) and
    /// [`NoMemory`](ErrorKind::NoMemory) too, for it must not wait).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// println!("{}", accepted.five_tuple());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[inline]
    pub fn accept(&self) -> Result<ClientSocket> {
        self.accept_as(false)
    }

    /// Accept for a worker of `serve`, which waits whatever the accepts of others
    /// are set to.
    pub(crate) fn accept_for_serve(&self) -> Result<ClientSocket> {
        self.accept_as(true)
    }

    #[inline]
    fn accept_as(&self, serves: bool) -> Result<ClientSocket> {
        let listener = &*self.0;
        let io = match listener.descriptor.enter() {
            Some(io) => io,
            None => return Err(listener.failed(ErrorKind::Closed.into())),
        };
        let polled = listener.polled.load(Ordering::Acquire);
        let (socket, peer) = match (!polled).then(|| sys::accept(io.socket())) {
            Some(Ok(accepted)) => accepted,
            other => {
                listener.accept_on(&io, other, serves).map_err(|cause| listener.failed(cause))?
            }
        };
        listener.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let options = &listener.options;
        if !sys::ACCEPT_INHERITS {
            if let Address::Inet(_) = peer {
                let ipv6 = matches!(&listener.address, Address::Inet(a) if a.is_ipv6());
                let fd = sys::borrow(&socket);
                let applied = options.apply_tcp(fd, ipv6);
                if applied.and_then(|()| options.apply_dead_after(fd)).is_err() {
                    // The peer has reset it already; that is no error of ours.
                    listener.counters.retried.fetch_add(1, Ordering::Relaxed);
                    drop((socket, io));
                    return self.accept_as(serves);
                }
            }
        }
        if events::of_each_connection() {
            events::accepted(&peer, &listener.endpoint);
        }
        ClientSocket::accepted(socket, peer, &listener.address, options)
    }

    /// The endpoint that it listens on, with the port that the system chose.
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("*:0")?;
    /// assert_eq!(server.endpoint().to_string(), format!("*:{}", server.port()));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The port; 0 for a Unix socket.
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// assert_ne!(server.port(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn port(&self) -> u16 {
        self.0.address.port()
    }

    /// LISTEN, or CLOSED after [`close`](ServerSocket::close).
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// assert_eq!(server.state().to_string(), "LISTEN");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn state(&self) -> TcpState {
        if self.0.descriptor.is_closed() { TcpState::Closed } else { TcpState::Listen }
    }

    /// What it has counted so far.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// server.accept()?;
    /// assert_eq!(server.counters().accepted, 1);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn counters(&self) -> ServerCounters {
        let c = &self.0.counters;
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        ServerCounters {
            accepted: get(&c.accepted),
            retried: get(&c.retried),
            exhausted: get(&c.exhausted),
            refused: get(&c.refused),
            crowded: get(&c.crowded),
            denied: get(&c.denied),
        }
    }

    pub(crate) fn count_exhausted(&self, cause: &io::Error) {
        self.0.counters.exhausted.fetch_add(1, Ordering::Relaxed);
        self.0.repeated.exhausted(&self.0.endpoint, cause);
    }

    pub(crate) fn count_refusal(&self, refusal: Refusal, client: &ClientSocket) {
        let counters = &self.0.counters;
        let counter = match refusal {
            Refusal::Full => &counters.refused,
            Refusal::Crowded => &counters.crowded,
            Refusal::Denied => &counters.denied,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.0.repeated.refused(&self.0.endpoint, client.peer(), refusal);
    }

    /// The time that an accept may wait; `None`: no limit. A server with a limit, a token or
    /// non-blocking mode pays one poll more for each accept from then on.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for zero, [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// use keepsock::{ErrorKind, ServerSocket};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// server.set_accept_timeout(std::time::Duration::from_millis(20))?;
    /// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_accept_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into();
        if timeout.is_some_and(|t| t.is_zero()) {
            return Err(self.0.failed(ErrorKind::InvalidArgument.into()).detail("timeout is zero"));
        }
        let ms = timeout.map_or(u64::MAX, |t| {
            u64::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
        });
        self.0.timeout.store(ms, Ordering::Relaxed);
        if timeout.is_some() { self.0.start_polling() } else { Ok(()) }
    }

    /// In non-blocking mode accept returns [`WouldBlock`](ErrorKind::WouldBlock)
    /// when nobody waits to be accepted. Accepts that wait already go on.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
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
        self.0.start_polling()
    }

    /// Gives accept a token that ends it, or takes it off. Accepts under way are not affected.
    ///
    /// ```
    /// use keepsock::{CancelToken, ErrorKind, ServerSocket};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let token = CancelToken::new()?;
    /// server.set_cancel(Some(&token));
    /// token.fire();
    /// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::Cancelled);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_cancel(&self, token: Option<&CancelToken>) {
        *self.0.cancel.lock().unwrap_or_else(PoisonError::into_inner) = token.cloned();
        if token.is_some() {
            // A closed server has no accept to cancel.
            let _ = self.0.start_polling();
        }
    }

    /// Borrows the descriptor, for an event loop. While the guard lives it stays open.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// let borrowed = server.borrow()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn borrow(&self) -> Result<BorrowedSocket<'_>> {
        let io = self.0.descriptor.enter();
        io.map(BorrowedSocket).ok_or_else(|| self.0.failed(ErrorKind::Closed.into()))
    }

    /// Gives the descriptor up: it is the caller's to close, and listens on. The
    /// socket is then closed for this program. A Unix socket's file stays.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed); [`WrongState`](ErrorKind::WrongState) while another
    /// thread is in a call on it.
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
        let io = self.0.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed))?;
        let owned =
            self.0.descriptor.release(io).ok_or_else(|| {
                failed(ErrorKind::WrongState).detail("another thread is using it")
            })?;
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(file) = file {
            file.keep();
        }
        Ok(owned)
    }

    /// Stops listening. Accepts of other threads end with
    /// [`Closed`](ErrorKind::Closed); connections that were accepted live on,
    /// those that were not are reset by the kernel. A Unix socket's file is
    /// removed. Any thread may close at any time; closing twice is fine.
    ///
    /// ```
    /// use keepsock::{ErrorKind, ServerSocket};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// server.close();
    /// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn close(&self) {
        self.0.close();
    }
}

impl Listener {
    /// An accept that is more than one successful system call; `first` is what
    /// the kernel said already.
    #[cold]
    fn accept_on(
        &self,
        io: &InUse<'_>,
        mut first: Option<io::Result<(Owned, Address)>>,
        serves: bool,
    ) -> std::result::Result<(Owned, Address), Cause> {
        let mut deadline = None;
        let mut back_off = OUT_OF_DESCRIPTORS;
        let mut in_a_row = 0;
        loop {
            let polled = self.polled.load(Ordering::Acquire);
            let nonblocking = !serves && polled && self.nonblocking.load(Ordering::Acquire);
            let result = first.take().map_or_else(
                || {
                    if polled && !nonblocking {
                        let deadline = *deadline.get_or_insert_with(|| self.deadline(serves));
                        let socket = Some((io.socket(), Interest::Read));
                        wait(socket, deadline, self.cancel_token().as_ref(), || io.is_closed())?;
                    }
                    Ok(sys::accept(io.socket()))
                },
                Ok::<_, Cause>,
            )?;
            let err = match result {
                Ok(accepted) => return Ok(accepted),
                Err(err) => err,
            };
            if io.is_closed() {
                // Linux: shutdown made a waiting accept fail with EINVAL.
                return Err(ErrorKind::Closed.into());
            }
            match ErrorKind::of(&err) {
                ErrorKind::WouldBlock if nonblocking => return Err(ErrorKind::WouldBlock.into()),
                // Polled: another thread was faster. Otherwise it has become
                // non-blocking, perhaps through somebody else's descriptor of it.
                ErrorKind::WouldBlock => self.polled.store(true, Ordering::Release),
                // Linux takes a descriptor before it looks for a connection, so
                // this comes even while nobody waits; poll could not tell when
                // it ends.
                ErrorKind::NoDescriptors | ErrorKind::NoMemory if !nonblocking => {
                    self.counters.exhausted.fetch_add(1, Ordering::Relaxed);
                    self.repeated.exhausted(&self.endpoint, &err);
                    let deadline = *deadline.get_or_insert_with(|| self.deadline(serves));
                    self.pause(io, back_off.next(), deadline)?;
                }
                _ if sys::is_transient_accept(&err) => {
                    self.counters.retried.fetch_add(1, Ordering::Relaxed);
                    self.repeated.retried(&self.endpoint, &err);
                    in_a_row += 1;
                    if in_a_row == RETRIES_AT_ONCE {
                        if nonblocking {
                            return Err(err.into());
                        }
                        let deadline = *deadline.get_or_insert_with(|| self.deadline(serves));
                        self.pause(io, back_off.next(), deadline)?;
                        in_a_row = 0;
                    }
                }
                _ => return Err(err.into()),
            }
        }
    }

    /// Waits before the next try, within the time that accept has.
    fn pause(
        &self,
        io: &InUse<'_>,
        time: Duration,
        deadline: Deadline,
    ) -> std::result::Result<(), Cause> {
        let until = deadline.earlier(Deadline::after(Some(time)));
        wait(None, until, self.cancel_token().as_ref(), || io.is_closed())?;
        if deadline.has_passed() { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    fn deadline(&self, serves: bool) -> Deadline {
        let ms = self.timeout.load(Ordering::Relaxed);
        Deadline::after((ms != u64::MAX && !serves).then(|| Duration::from_millis(ms)))
    }

    fn start_polling(&self) -> Result<()> {
        let Some(io) = self.descriptor.enter() else {
            return Err(self.failed(ErrorKind::Closed.into()));
        };
        sys::set_nonblocking(io.socket(), true).map_err(|e| self.failed(e.into()))?;
        self.polled.store(true, Ordering::Release);
        Ok(())
    }

    fn cancel_token(&self) -> Option<CancelToken> {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cold]
    fn failed(&self, cause: Cause) -> Error {
        cause.into_error(ACCEPT).at(&self.endpoint)
    }

    fn close(&self) {
        if let Some(io) = self.descriptor.enter() {
            // The file first: a client that finds it must find a listener.
            drop(self.file.lock().unwrap_or_else(PoisonError::into_inner).take());
            if self.descriptor.close(&io) {
                sys::wake(io.socket());
                let accepted = self.counters.accepted.load(Ordering::Relaxed);
                events::listener_closed(&self.endpoint, accepted);
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

fn endpoint_of(address: &Address) -> Endpoint {
    match address {
        Address::Inet(a) => (*a).into(),
        Address::UnixPath(path) => Endpoint(Target::UnixPath(path.clone())),
        Address::UnixAbstract(name) => {
            Endpoint(Target::UnixAbstract(String::from_utf8_lossy(name).into_owned()))
        }
        Address::UnixUnnamed => Endpoint(Target::UnixAbstract(String::new())),
    }
}

fn backlog(options: &SocketOptions) -> i32 {
    // listen(2): the system silently lowers it to its own limit.
    options.backlog.map_or(i32::MAX, |n| i32::try_from(n).unwrap_or(i32::MAX))
}

fn listen_inet(endpoint: &Endpoint, options: &SocketOptions) -> Result<ServerSocket> {
    let deadline = Deadline::after(options.connect_timeout);
    let found = resolve(endpoint, options.family, deadline, options.cancel.as_ref(), OPERATION)?;
    let any = matches!(&endpoint.0, Target::Inet { host: Host::Any, .. });
    let mut failure = None;
    for address in found {
        let dual = any && address.is_ipv6() && options.family == Family::Any;
        match listen_at(address, dual, options) {
            Ok((socket, bound)) => {
                // `*` stays `*`: that is what it listens on.
                let port = bound.port();
                let endpoint = match (&endpoint.0, &bound) {
                    (Target::Inet { host: Host::Any, .. }, _) => Endpoint(Target::Inet {
                        host: Host::Any,
                        port: crate::endpoint::Port::Number(port),
                    }),
                    _ => endpoint_of(&bound),
                };
                return Ok(ServerSocket::new(socket, endpoint, bound, options, None));
            }
            // Only a machine without IPv6 goes on to IPv4: nothing else may make
            // a server quietly serve less than it was asked to.
            Err((stage, cause)) => {
                let missing = matches!(&cause, Cause::Os(e) if sys::is_family_missing(e));
                let error = cause.into_error(OPERATION).at(endpoint).stage(stage);
                if !(dual && missing) {
                    return Err(error);
                }
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(ErrorKind::NotFound, OPERATION).at(endpoint)))
}

fn listen_at(
    address: std::net::SocketAddr,
    dual: bool,
    options: &SocketOptions,
) -> std::result::Result<(Owned, Address), (Stage, Cause)> {
    let at = |stage| move |e: io::Error| (stage, Cause::from(e));
    let socket = sys::stream_socket(Domain::for_address(address), options.mptcp)
        .map_err(at(Stage::Socket))?;
    let fd = sys::borrow(&socket);
    let set_up = || -> std::result::Result<(), Cause> {
        sys::prepare_listener(fd)?;
        if address.is_ipv6() {
            SockRef::from(&fd).set_only_v6(!dual)?;
        }
        options.apply_listener(fd)?;
        options.apply_dead_after(fd)?;
        options.apply_tcp(fd, address.is_ipv6())
    };
    set_up().map_err(|cause| (Stage::Options, cause))?;
    SockRef::from(&fd).bind(&address.into()).map_err(at(Stage::Bind))?;
    start_listening(fd, options).map_err(at(Stage::Bind))?;
    let bound = SockRef::from(&fd).local_addr().map_err(at(Stage::Bind))?;
    Ok((socket, sys::to_address(&bound)))
}

fn listen_unix(endpoint: &Endpoint, options: &SocketOptions) -> Result<ServerSocket> {
    let at = |stage| move |e: io::Error| Error::os(OPERATION, &e).at(endpoint).stage(stage);
    options.refuse_inet_only(OPERATION)?;
    let name = sys::unix_name(endpoint).map_err(at(Stage::Socket))?;
    let socket = sys::stream_socket(Domain::UNIX, false).map_err(at(Stage::Socket))?;
    let fd = sys::borrow(&socket);
    let listen = || start_listening(fd, options);
    let (address, file) = match &endpoint.0 {
        Target::UnixPath(path) => {
            let file = unix::bind_and_listen(fd, &name, path, listen).map_err(at(Stage::Bind))?;
            (Address::UnixPath(path.clone()), Some(file))
        }
        _ => {
            SockRef::from(&fd).bind(&name).and_then(|()| listen()).map_err(at(Stage::Bind))?;
            (sys::to_address(&name), None)
        }
    };
    Ok(ServerSocket::new(socket, endpoint.clone(), address, options, file))
}

fn start_listening(fd: Borrowed<'_>, options: &SocketOptions) -> io::Result<()> {
    SockRef::from(&fd).listen(backlog(options))?;
    sys::set_nonblocking(fd, !sys::BLOCKING_CALLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L4: at most 20 tries a second, and none later than 100 ms after the one before.
    #[test]
    fn backing_off_is_quick_to_resume_and_cheap_to_wait() {
        let mut back_off = OUT_OF_DESCRIPTORS;
        let pauses: Vec<_> = (0..10).map(|_| back_off.next()).collect();
        assert_eq!(pauses[0], Duration::from_millis(5));
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(pauses[9], Duration::from_millis(50));
    }
}
