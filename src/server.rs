//! ServerSocket: listening and accepting.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use socket2::{Domain, SockRef, Type};

use crate::back_off::BackOff;
use crate::bind::{BoundInet, Step, bind_first};
use crate::cancel::CancelToken;
use crate::client::{BorrowedSocket, ClientSocket};
use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::events::{self, Repeated};
use crate::info::{Address, TcpState};
use crate::inherited;
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::serve::Refusal;
use crate::sys::{self, Borrowed, Descriptor, InUse, Interest, Owned};
use crate::turn::{LOOK, Turn};
use crate::unix::{self, Adopted, Lent, SocketFile};
use crate::wait::{Cause, Deadline, wait, wait_any};

const OPERATION: &str = "listen";
const ACCEPT: &str = "accept";
const TAKE_OVER: &str = "take over";

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
pub struct ServerSocket(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// At least one.
    listeners: Box<[Listener]>,
    options: SocketOptions,
    nonblocking: AtomicBool,
    /// Milliseconds, or `u64::MAX`.
    timeout: AtomicU64,
    cancel: Mutex<Option<CancelToken>>,
    /// With several listeners, or a shared one: whose turn it is to poll them.
    polling: Turn,
    /// Which of several listeners comes first the next time.
    next: AtomicUsize,
}

/// One of the endpoints that a server listens on.
#[derive(Debug)]
pub(crate) struct Listener {
    descriptor: Descriptor,
    endpoint: Endpoint,
    address: Address,
    /// Asked for with port 0.
    any_port: bool,
    /// Accepts wait in poll: one of them has a limit or a token, or there are several
    /// listeners. Once set it stays, for accept after poll must not block when another
    /// thread was faster, and only O_NONBLOCK sees to that.
    polled: AtomicBool,
    /// Of a listener that other processes have, too, or may have: set by a close, to end the
    /// polls of this one. shutdown(2) would end the listening of all of them.
    closing: Option<Arc<sys::Event>>,
    counters: Counters,
    repeated: Repeated,
    file: Mutex<Option<SocketFile>>,
}

/// A socket that listens and is nobody's yet.
struct Bound {
    /// Dropped first: a client that finds the file must find a listener.
    file: Option<SocketFile>,
    socket: Owned,
    endpoint: Endpoint,
    address: Address,
    any_port: bool,
}

/// A server that has not set its options on what it has taken over, for the predecessor's sake.
#[derive(Debug)]
pub(crate) struct Unset(Weak<Shared>);

impl inherited::Unset for Unset {
    fn set(&self) -> Result<()> {
        self.0.upgrade().map_or(Ok(()), |shared| ServerSocket(shared).set_listeners())
    }
}

/// What a listening socket is that somebody else made.
struct Found {
    address: Address,
    endpoint: Endpoint,
    packets: bool,
}

/// A connection and its peer.
type Accepted = (Owned, Address);

/// What a try to accept that does not wait has come to.
#[derive(Debug)]
pub(crate) enum AcceptNow {
    Accepted(Owned, Address),
    /// Nobody waits to be accepted.
    Nobody,
    /// Descriptors or memory are used up, or each try fails: not before a while again.
    Exhausted(io::Error),
    /// The server was closed.
    Closed,
    /// It will not be better the next time.
    Failed(Cause),
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
    /// Connections ended at once because their address may not connect
    /// ([`allow`](crate::ServeOptions::allow), [`deny`](crate::ServeOptions::deny)), or their
    /// user ([`allow_user`](SocketOptions::allow_user)).
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
        listen_on(&[endpoint], options)
    }

    /// Listens on several endpoints at once, TCP and Unix sockets alike, in their order: all
    /// of them or none. One accept, and one [`serve`](ServerSocket::serve), takes the
    /// connections of all; none of them has to wait for another one's to be fewer.
    ///
    /// Options hold for the connections of each. One that an endpoint cannot have is refused,
    /// as are those of TCP for a Unix socket. Accepting costs one poll more.
    ///
    /// # Errors
    /// Those of [`listen_with`](ServerSocket::listen_with), naming the endpoint that they
    /// concern; the others are then closed again, and the files of Unix sockets removed.
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for no endpoint at all.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # #[cfg(target_os = "linux")] {
    /// let endpoints = ["127.0.0.1:0", "unix:@listen-all-example"];
    /// let server = ServerSocket::listen_all(endpoints, &SocketOptions::new())?;
    /// for endpoint in server.endpoints() {
    ///     let client = ClientSocket::connect(endpoint)?;
    ///     let accepted = server.accept()?;
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn listen_all<E>(
        endpoints: impl IntoIterator<Item = E>,
        options: &SocketOptions,
    ) -> Result<ServerSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoints: Vec<Endpoint> = endpoints
            .into_iter()
            .map(|e| e.try_into().map_err(|e| Error::from(e).during(OPERATION)))
            .collect::<Result<_>>()?;
        listen_on(&endpoints, options)
    }

    /// Takes over a listening stream socket, or one for
    /// [packets](SocketOptions::sequenced), as a service manager may pass it. The options
    /// are set on it, also to what is off by default; only a
    /// [`backlog`](SocketOptions::backlog) that is not given stays as it was. Those that the
    /// process was started with [`Inherited`](crate::Inherited) has.
    ///
    /// Other processes may have it, too, and go on accepting when this one closes it. So it is
    /// non-blocking from now on, in all of them, and accepting costs one poll more.
    ///
    /// # Errors
    /// The descriptor is given back with the error:
    /// [`WrongState`](ErrorKind::WrongState) if it is not a listening stream socket, or not one for
    /// [packets](SocketOptions::sequenced) or [Multipath TCP](SocketOptions::mptcp) though
    /// the options ask for that.
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
        let mut one = vec![Adopted { file: None, socket, any_port: false }];
        let made = ServerSocket::adopt(&mut one, options, true);
        made.map_err(|e| (one.remove(0).socket, e))
    }

    /// Takes all of them over, or none, as one server; there is at least one. Their options are
    /// set `now`, or later: [`unset`](ServerSocket::unset).
    pub(crate) fn adopt(
        sockets: &mut Vec<Adopted>,
        options: &SocketOptions,
        now: bool,
    ) -> Result<ServerSocket> {
        let look = |adopted: &Adopted| look_at(&adopted.socket, options);
        let found = sockets.iter().map(look).collect::<Result<Vec<_>>>()?;
        let packets = found.iter().any(|found| found.packets);
        if !found.iter().all(|found| found.packets == packets) {
            let what = "some are for streams, and some for packets";
            return Err(Error::new(ErrorKind::WrongState, TAKE_OVER).detail(what));
        }
        let closing = shared(TAKE_OVER)?;
        for (adopted, found) in sockets.iter().zip(&found) {
            let fd = sys::borrow(&adopted.socket);
            // First what may be refused: the socket is then left as it was.
            let set = if now { set_listener(fd, &found.address, options) } else { Ok(()) };
            // Never blocking, not even for a moment: O_NONBLOCK belongs to all processes that
            // have it, and who was told by poll that somebody waits must not wait in accept when
            // another took it.
            set.and_then(|()| options.adopt(fd, true)).map_err(|c| c.into_error(TAKE_OVER))?;
        }
        let bound = sockets.drain(..).zip(found).map(|(adopted, found)| Bound {
            file: adopted.file,
            socket: adopted.socket,
            endpoint: found.endpoint,
            address: found.address,
            any_port: adopted.any_port,
        });
        let options = SocketOptions { sequenced: packets, ..options.clone() };
        Ok(ServerSocket::new(bound.collect(), &options, Some(closing)))
    }

    fn new(
        bound: Vec<Bound>,
        options: &SocketOptions,
        closing: Option<Arc<sys::Event>>,
    ) -> ServerSocket {
        let several = bound.into_iter().map(|bound| Listener::new(bound, closing.clone()));
        let server = ServerSocket(Arc::new(Shared {
            listeners: several.collect(),
            options: SocketOptions { cancel: None, ..options.clone() },
            nonblocking: AtomicBool::new(false),
            timeout: AtomicU64::new(u64::MAX),
            cancel: Mutex::new(None),
            polling: Turn::default(),
            next: AtomicUsize::new(0),
        }));
        server.set_cancel(options.cancel.as_ref());
        server.endpoints().for_each(events::listening);
        server
    }

    /// What is left to do for one that was adopted.
    pub(crate) fn unset(&self) -> Unset {
        Unset(Arc::downgrade(&self.0))
    }

    /// Sets the options on listeners that somebody else made.
    fn set_listeners(&self) -> Result<()> {
        for listener in self.listeners() {
            // One that was closed needs none.
            if let Some(io) = listener.descriptor.enter() {
                set_listener(io.socket(), &listener.address, &self.0.options)
                    .map_err(|cause| cause.into_error(TAKE_OVER).at(&listener.endpoint))?;
            }
        }
        Ok(())
    }

    /// What ends the polls of listeners that other processes may have, too.
    pub(crate) fn closing(&self) -> Option<&sys::Event> {
        self.first().closing.as_deref()
    }

    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.0.listeners
    }

    fn first(&self) -> &Listener {
        // There is one: neither constructor makes a server without.
        &self.0.listeners[0]
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
        let (listener, (socket, peer)) = match self.listeners() {
            [listener] => {
                let io = match listener.descriptor.enter() {
                    Some(io) => io,
                    None => return Err(listener.failed(ErrorKind::Closed.into())),
                };
                let polled = listener.polled.load(Ordering::Acquire);
                match (!polled).then(|| sys::accept(io.socket())) {
                    Some(Ok(accepted)) if self.may_have(listener, &accepted) => {
                        (listener, accepted)
                    }
                    other => self.accept_next(other.and_then(io::Result::err), serves)?,
                }
            }
            _ => self.accept_next(None, serves)?,
        };
        ClientSocket::accepted(socket, peer, &listener.address, &self.0.options)
    }

    /// Counts what was accepted; false: it is not for the program.
    #[inline]
    fn may_have(&self, listener: &Listener, (socket, peer): &Accepted) -> bool {
        listener.counters.accepted.fetch_add(1, Ordering::Relaxed);
        self.has_accepted(listener, socket, peer)
    }

    /// An accept that is more than one successful system call. `first` is what the kernel said
    /// of the only listener already.
    #[cold]
    fn accept_next(
        &self,
        mut first: Option<io::Error>,
        serves: bool,
    ) -> Result<(&Listener, Accepted)> {
        // One for all: who may not connect must not keep an accept waiting beyond its time. A
        // listener that is not polled has none.
        let deadline = self.deadline(serves);
        loop {
            let first = first.take().map(Err);
            let (listener, accepted) = match self.listeners() {
                [listener] => match listener.descriptor.enter() {
                    Some(io) => {
                        self.accept_on(std::slice::from_ref(&io), first, deadline, serves)?
                    }
                    None => return Err(listener.failed(ErrorKind::Closed.into())),
                },
                _ => self.accept_from_any(deadline, serves)?,
            };
            if self.may_have(listener, &accepted) {
                return Ok((listener, accepted));
            }
        }
    }

    /// Sets what a connection does not inherit, and tells of it; false: it is gone already.
    #[inline]
    pub(crate) fn has_accepted(&self, listener: &Listener, socket: &Owned, peer: &Address) -> bool {
        if !sys::ACCEPT_INHERITS {
            if let Address::Inet(_) = peer {
                let ipv6 = matches!(&listener.address, Address::Inet(a) if a.is_ipv6());
                let (options, fd) = (&self.0.options, sys::borrow(socket));
                let applied = options.apply_tcp(fd, ipv6);
                if applied.and_then(|()| options.apply_dead_after(fd)).is_err() {
                    // The peer has reset it; that is no error of ours.
                    listener.counters.retried.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
            }
        }
        if !self.0.options.users.is_empty() && !self.may_connect(listener, socket, peer) {
            return false;
        }
        if events::of_each_connection() {
            events::accepted(peer, &listener.endpoint);
        }
        true
    }

    /// Whether the peer's user is one of those that are allowed; if not, that is counted.
    #[cold]
    fn may_connect(&self, listener: &Listener, socket: &Owned, peer: &Address) -> bool {
        // Who cannot be told is nobody that is allowed.
        let uid = sys::peer_credentials(sys::borrow(socket)).ok().map(|peer| peer.uid);
        let may = uid.is_some_and(|uid| self.0.options.users.contains(&uid));
        if !may {
            // It is not handed to the program.
            listener.counters.accepted.fetch_sub(1, Ordering::Relaxed);
            listener.count_refusal(Refusal::User(uid), peer);
        }
        may
    }

    #[cold]
    fn accept_from_any(&self, deadline: Deadline, serves: bool) -> Result<(&Listener, Accepted)> {
        let ios = self.listeners().iter().map(|listener| listener.descriptor.enter());
        match ios.collect::<Option<Vec<_>>>() {
            Some(ios) => self.accept_on(&ios, None, deadline, serves),
            None => Err(self.first().failed(ErrorKind::Closed.into())),
        }
    }

    /// The next that comes. `ios` are the listeners, in use, and `first` is what the kernel said
    /// of the first one already.
    #[cold]
    fn accept_on(
        &self,
        ios: &[InUse<'_>],
        mut first: Option<io::Result<Accepted>>,
        deadline: Deadline,
        serves: bool,
    ) -> Result<(&Listener, Accepted)> {
        let mut back_off = OUT_OF_DESCRIPTORS;
        let failed = |cause| self.first().failed(cause);
        loop {
            let (at, result) = match first.take() {
                Some(result) => (0, result),
                None => {
                    let polled = self.first().polled.load(Ordering::Acquire);
                    if polled && !serves && self.0.nonblocking.load(Ordering::Acquire) {
                        return self.accept_at_once(ios);
                    }
                    let next = match ios {
                        [io] if self.closing().is_none() => self.next_of_one(io, polled, deadline),
                        _ => self.next_of_any(ios, deadline),
                    };
                    next.map_err(failed)?
                }
            };
            let (listener, io) = (&self.listeners()[at], &ios[at]);
            match listener.try_accept(io, result) {
                AcceptNow::Accepted(socket, peer) => return Ok((listener, (socket, peer))),
                // Polled: another thread was faster. Otherwise it has become
                // non-blocking, perhaps through somebody else's descriptor of it.
                AcceptNow::Nobody => listener.polled.store(true, Ordering::Release),
                // Linux takes a descriptor before it looks for a connection, so
                // this comes even while nobody waits; poll could not tell when
                // it ends.
                AcceptNow::Exhausted(err) => {
                    listener.count_exhausted(&err);
                    self.pause(io, back_off.next(), deadline).map_err(failed)?;
                }
                AcceptNow::Closed => return Err(failed(ErrorKind::Closed.into())),
                AcceptNow::Failed(cause) => return Err(listener.failed(cause)),
            }
        }
    }

    /// What the kernel says when somebody can be accepted, or before, if it is not polled:
    /// then it is the kernel that waits.
    fn next_of_one(
        &self,
        io: &InUse<'_>,
        polled: bool,
        deadline: Deadline,
    ) -> std::result::Result<(usize, io::Result<Accepted>), Cause> {
        if polled {
            let socket = Some((io.socket(), Interest::Read));
            wait(socket, deadline, self.cancel_token().as_ref(), || io.is_closed())?;
        }
        Ok((0, sys::accept(io.socket())))
    }

    /// What the kernel says of the listener where somebody can be accepted. One thread polls
    /// them while others wait for their turn, so that a connection wakes one and not all. Another
    /// process may have been faster: then it says that nobody waits.
    fn next_of_any(
        &self,
        ios: &[InUse<'_>],
        deadline: Deadline,
    ) -> std::result::Result<(usize, io::Result<Accepted>), Cause> {
        let cancel = self.cancel_token();
        let is_closed = || ios.iter().any(InUse::is_closed);
        let turn = self.0.polling.take_asking(|| match () {
            () if is_closed() => Err(ErrorKind::Closed),
            () if cancel.as_ref().is_some_and(CancelToken::is_fired) => Err(ErrorKind::Cancelled),
            () if deadline.has_passed() => Err(ErrorKind::TimedOut),
            // A close wakes the one who polls, and so each in turn. A token need not:
            // that one may have another.
            () => Ok(match (deadline.remaining(), cancel.as_ref().map(|_| LOOK)) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }),
        })?;
        let order = self.order(ios.len());
        let sockets: Vec<_> = (0..ios.len()).map(|i| ios[order(i)].socket()).collect();
        let events = (cancel.as_ref(), self.closing());
        let at = order(wait_any(&sockets, Interest::Read, deadline, events, is_closed)?);
        self.0.next.store(at + 1, Ordering::Relaxed);
        let result = sys::accept(ios[at].socket());
        // What follows may tell events, and wait.
        drop(turn);
        Ok((at, result))
    }

    /// Accept in non-blocking mode.
    fn accept_at_once(&self, ios: &[InUse<'_>]) -> Result<(&Listener, Accepted)> {
        let order = self.order(ios.len());
        for at in (0..ios.len()).map(order) {
            let (listener, io) = (&self.listeners()[at], &ios[at]);
            let cause = match listener.try_accept(io, sys::accept(io.socket())) {
                AcceptNow::Nobody => continue,
                AcceptNow::Accepted(socket, peer) => {
                    self.0.next.store(at + 1, Ordering::Relaxed);
                    return Ok((listener, (socket, peer)));
                }
                AcceptNow::Exhausted(err) => err.into(),
                AcceptNow::Closed => ErrorKind::Closed.into(),
                AcceptNow::Failed(cause) => cause,
            };
            self.0.next.store(at + 1, Ordering::Relaxed);
            return Err(listener.failed(cause));
        }
        Err(self.first().failed(ErrorKind::WouldBlock.into()))
    }

    /// Which listener is the first, the second… to be looked at: it begins after the one that
    /// was last, so that one with many clients does not keep those of the others waiting.
    fn order(&self, count: usize) -> impl Fn(usize) -> usize + use<> {
        let first = self.0.next.load(Ordering::Relaxed);
        move |i| (first + i) % count
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
        let ms = self.0.timeout.load(Ordering::Relaxed);
        Deadline::after((ms != u64::MAX && !serves).then(|| Duration::from_millis(ms)))
    }

    /// From now on no accept waits in the kernel.
    pub(crate) fn start_polling(&self) -> Result<()> {
        for listener in self.listeners() {
            let Some(io) = listener.descriptor.enter() else {
                return Err(listener.failed(ErrorKind::Closed.into()));
            };
            listener.start_polling(&io).map_err(|e| listener.failed(e.into()))?;
        }
        Ok(())
    }

    pub(crate) fn options(&self) -> &SocketOptions {
        &self.0.options
    }

    pub(crate) fn cancel_token(&self) -> Option<CancelToken> {
        self.0.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The endpoint that it listens on, with the port that the system chose; the first one if
    /// there are [several](ServerSocket::listen_all).
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("*:0")?;
    /// assert_eq!(server.endpoint().to_string(), format!("*:{}", server.port()));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn endpoint(&self) -> &Endpoint {
        &self.first().endpoint
    }

    /// All endpoints that it listens on, in the order in which they were given.
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

    /// The port; 0 for a Unix socket. The first one's if there are several endpoints.
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// assert_ne!(server.port(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn port(&self) -> u16 {
        self.first().address.port()
    }

    /// LISTEN, or CLOSED after [`close`](ServerSocket::close).
    ///
    /// ```
    /// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// assert_eq!(server.state().to_string(), "LISTEN");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn state(&self) -> TcpState {
        if self.first().descriptor.is_closed() { TcpState::Closed } else { TcpState::Listen }
    }

    /// What it has counted so far, on all of its endpoints.
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
        let sum = |counter: fn(&Counters) -> &AtomicU64| {
            self.listeners().iter().map(|l| counter(&l.counters).load(Ordering::Relaxed)).sum()
        };
        ServerCounters {
            accepted: sum(|c| &c.accepted),
            retried: sum(|c| &c.retried),
            exhausted: sum(|c| &c.exhausted),
            refused: sum(|c| &c.refused),
            crowded: sum(|c| &c.crowded),
            denied: sum(|c| &c.denied),
        }
    }

    pub(crate) fn count_exhausted(&self, cause: &io::Error) {
        self.first().count_exhausted(cause);
    }

    pub(crate) fn count_refusal(&self, refusal: Refusal, client: &ClientSocket) {
        self.listener_of(client).count_refusal(refusal, client.peer());
    }

    /// Whose connection it is. Nothing is kept of that with the connection, since hardly
    /// anybody asks.
    fn listener_of(&self, client: &ClientSocket) -> &Listener {
        let [listener] = self.listeners() else {
            let local = client.five_tuple().local;
            let found = self.listeners().iter().max_by_key(|l| closeness(&l.address, &local));
            return found.unwrap_or(self.first());
        };
        listener
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
            let failed = self.first().failed(ErrorKind::InvalidArgument.into());
            return Err(failed.detail("timeout is zero"));
        }
        let ms = timeout.map_or(u64::MAX, |t| {
            u64::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
        });
        self.0.timeout.store(ms, Ordering::Relaxed);
        if timeout.is_some() { self.start_polling() } else { Ok(()) }
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
        self.start_polling()
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
            let _ = self.start_polling();
        }
    }

    /// Borrows the descriptor, for an event loop. While the guard lives it stays open. With
    /// several endpoints it is the first one's: [`borrow_at`](ServerSocket::borrow_at).
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
        self.first().borrow()
    }

    /// Borrows the descriptor of one of several endpoints, for an event loop. They count from 0
    /// in the order of [`endpoints`](ServerSocket::endpoints). Whichever of them is readable, it
    /// is [`accept`](ServerSocket::accept) in non-blocking mode that takes the connection.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed); [`InvalidArgument`](ErrorKind::InvalidArgument) beyond
    /// the last.
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
            None => Err(self
                .first()
                .failed(ErrorKind::InvalidArgument.into())
                .detail(format!("there is no endpoint {index}"))),
        }
    }

    /// Gives the descriptor up: it is the caller's to close, and listens on. The
    /// socket is then closed for this program. A Unix socket's file stays. One that other
    /// processes may have ([`hand_over`](SocketOptions::hand_over),
    /// [`from_owned`](ServerSocket::from_owned)) is non-blocking.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed); [`WrongState`](ErrorKind::WrongState) while another
    /// thread is in a call on it, and if it listens on several endpoints.
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
        let io = first.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed))?;
        let count = self.listeners().len();
        if count > 1 {
            let detail = format!("it listens on {count} endpoints: one descriptor is not all");
            return Err(failed(ErrorKind::WrongState).detail(detail));
        }
        let owned = first
            .descriptor
            .release(io)
            .ok_or_else(|| failed(ErrorKind::WrongState).detail("another thread is using it"))?;
        let file = first.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(file) = file {
            file.keep();
        }
        Ok(owned)
    }

    /// Stops listening. Accepts of other threads end with
    /// [`Closed`](ErrorKind::Closed); connections that were accepted live on,
    /// those that were not are reset by the kernel, unless another process has the listening
    /// socket, too, and goes on accepting. A Unix socket's file is
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
        self.listeners().iter().for_each(Listener::close);
    }
}

impl Listener {
    fn new(bound: Bound, closing: Option<Arc<sys::Event>>) -> Listener {
        Listener {
            descriptor: Descriptor::new(bound.socket),
            endpoint: bound.endpoint,
            address: bound.address,
            any_port: bound.any_port,
            polled: AtomicBool::new(!sys::BLOCKING_CALLS || closing.is_some()),
            closing,
            counters: Counters::default(),
            repeated: Repeated::default(),
            file: Mutex::new(bound.file),
        }
    }

    /// Keeps it open, though it be closed.
    pub(crate) fn hold(&self) -> Option<InUse<'_>> {
        self.descriptor.enter()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.descriptor.is_closed()
    }

    /// Whether other processes may have it, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.closing.is_some()
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it was asked for with port 0, so that the system chose.
    pub(crate) fn has_any_port(&self) -> bool {
        self.any_port
    }

    /// Lends the file of a Unix socket that is this process's to remove. Until it is given back
    /// a close leaves it where it is.
    pub(crate) fn lend_file(&self) -> Lent<'_> {
        Lent::new(&self.file, &self.descriptor)
    }

    pub(crate) fn count_refusal(&self, refusal: Refusal, peer: &Address) {
        let counter = match refusal {
            Refusal::Full => &self.counters.refused,
            Refusal::Crowded => &self.counters.crowded,
            Refusal::Denied | Refusal::User(_) => &self.counters.denied,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.repeated.refused(&self.endpoint, peer, refusal);
    }

    /// Accepts if somebody waits; it never waits itself. Errors of single connections are
    /// passed over and counted, and so is what it accepts; what is used up is the caller's
    /// to count.
    pub(crate) fn accept_now(&self) -> AcceptNow {
        let Some(io) = self.descriptor.enter() else {
            return AcceptNow::Closed;
        };
        if !self.polled.load(Ordering::Acquire) {
            if let Err(err) = self.start_polling(&io) {
                return AcceptNow::Failed(err.into());
            }
        }
        let now = self.try_accept(&io, sys::accept(io.socket()));
        if let AcceptNow::Accepted(..) = now {
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        now
    }

    /// What is to be made of an accept's result, after as many more tries as errors of
    /// single connections ask for.
    fn try_accept(&self, io: &InUse<'_>, mut result: io::Result<Accepted>) -> AcceptNow {
        let mut in_a_row = 0;
        loop {
            let err = match result {
                Ok((socket, peer)) => return AcceptNow::Accepted(socket, peer),
                Err(err) => err,
            };
            if io.is_closed() {
                // Linux: shutdown made a waiting accept fail with EINVAL.
                return AcceptNow::Closed;
            }
            match ErrorKind::of(&err) {
                ErrorKind::WouldBlock => return AcceptNow::Nobody,
                ErrorKind::NoDescriptors | ErrorKind::NoMemory => return AcceptNow::Exhausted(err),
                _ if sys::is_transient_accept(&err) => {}
                _ => return AcceptNow::Failed(err.into()),
            }
            self.counters.retried.fetch_add(1, Ordering::Relaxed);
            self.repeated.retried(&self.endpoint, &err);
            in_a_row += 1;
            if in_a_row == RETRIES_AT_ONCE {
                return AcceptNow::Exhausted(err);
            }
            result = sys::accept(io.socket());
        }
    }

    /// An error of single connections that keeps coming was counted as that.
    pub(crate) fn count_exhausted(&self, cause: &io::Error) {
        if !sys::is_transient_accept(cause) {
            self.counters.exhausted.fetch_add(1, Ordering::Relaxed);
            self.repeated.exhausted(&self.endpoint, cause);
        }
    }

    pub(crate) fn borrow(&self) -> Result<BorrowedSocket<'_>> {
        let io = self.descriptor.enter();
        io.map(BorrowedSocket).ok_or_else(|| self.failed(ErrorKind::Closed.into()))
    }

    fn start_polling(&self, io: &InUse<'_>) -> io::Result<()> {
        sys::set_nonblocking(io.socket(), true)?;
        self.polled.store(true, Ordering::Release);
        Ok(())
    }

    #[cold]
    pub(crate) fn failed(&self, cause: Cause) -> Error {
        cause.into_error(ACCEPT).at(&self.endpoint)
    }

    fn close(&self) {
        if let Some(io) = self.descriptor.enter() {
            // The file first: a client that finds it must find a listener.
            drop(self.file.lock().unwrap_or_else(PoisonError::into_inner).take());
            if self.descriptor.close(&io) {
                match &self.closing {
                    Some(closing) => closing.set(),
                    None => sys::wake(io.socket()),
                }
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

/// How well the local address of a connection fits to that of a listener.
fn closeness(listener: &Address, local: &Address) -> u8 {
    let is_ipv6 = |address: &Address| matches!(address, Address::Inet(a) if a.is_ipv6());
    if listener == local {
        3
    } else if listener.is_wildcard() && listener.port() == local.port() {
        // IPv4 also comes to a wildcard of IPv6, unless there is one of its own.
        1 + u8::from(is_ipv6(listener) == is_ipv6(local))
    } else {
        0
    }
}

/// What a socket is bound to that somebody else made, if it is a listening stream socket that can
/// have the options. It is left as it is.
fn look_at(socket: &Owned, options: &SocketOptions) -> Result<Found> {
    let wrong = |what: &str| Error::new(ErrorKind::WrongState, TAKE_OVER).detail(what.to_owned());
    let os = |e: io::Error| Error::os(TAKE_OVER, &e);
    options.validate(TAKE_OVER)?;
    options.refuse_datagram_only(TAKE_OVER)?;
    let fd = sys::borrow(socket);
    let packets = match sys::connection_kind(fd).map_err(os)? {
        Some(kind) if kind.listens => kind.packets,
        Some(_) => return Err(wrong("not a listening socket")),
        None => return Err(wrong("not a stream socket")),
    };
    if options.sequenced && !packets {
        return Err(wrong("not a socket for packets"));
    }
    if options.mptcp && !sys::is_made_for_mptcp(fd) {
        return Err(wrong("not a socket for Multipath TCP"));
    }
    options.refuse_file_only(TAKE_OVER)?;
    let name = SockRef::from(&fd).local_addr().map_err(os)?;
    if name.as_socket().is_some() {
        options.refuse_unix_only(TAKE_OVER)?;
    } else if options.save_syn || options.fast_open {
        options.refuse_inet_only(TAKE_OVER)?;
    }
    let address = sys::to_address(&name);
    let any = |port| Target::Inet { host: Host::Any, port: Port::Number(port) };
    let endpoint = match name.as_socket() {
        Some(inet) if is_dual(fd, inet) => Endpoint(any(inet.port())),
        _ => Endpoint::of(&address),
    };
    Ok(Found { address, endpoint, packets })
}

/// Sets a listener that somebody else made to the options.
fn set_listener(
    fd: Borrowed<'_>,
    address: &Address,
    options: &SocketOptions,
) -> std::result::Result<(), Cause> {
    if let Address::Inet(inet) = address {
        options.adopt_listener(fd)?;
        options.adopt_tcp(fd, inet.is_ipv6())?;
    }
    // Linux takes the new value of one that listens.
    if options.backlog.is_some() {
        SockRef::from(&fd).listen(backlog(options))?;
    }
    Ok(())
}

/// Whether a socket takes IPv4 and IPv6 on one port, as `*` does.
pub(crate) fn is_dual(socket: Borrowed<'_>, bound: SocketAddr) -> bool {
    let ipv6 = bound.is_ipv6() && bound.ip().is_unspecified();
    ipv6 && SockRef::from(&socket).only_v6().is_ok_and(|only| !only)
}

/// Whether this machine has no IPv6, so that `*` is IPv4 alone.
pub(crate) fn is_ipv6_missing() -> bool {
    let socket = sys::stream_socket(Domain::IPV6, false);
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into();
    let bound = socket.and_then(|socket| SockRef::from(&sys::borrow(&socket)).bind(&any));
    bound.is_err_and(|e| sys::is_family_missing(&e))
}

/// What a close sets that must not end the listening of other processes.
fn shared(operation: &'static str) -> Result<Arc<sys::Event>> {
    Ok(Arc::new(sys::Event::new().map_err(|e| Error::os(operation, &e))?))
}

fn backlog(options: &SocketOptions) -> i32 {
    // listen(2): the system silently lowers it to its own limit.
    options.backlog.map_or(i32::MAX, |n| i32::try_from(n).unwrap_or(i32::MAX))
}

fn listen_on(endpoints: &[Endpoint], options: &SocketOptions) -> Result<ServerSocket> {
    options.validate(OPERATION)?;
    options.refuse_client_only(OPERATION)?;
    options.refuse_datagram_only(OPERATION)?;
    if endpoints.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, OPERATION).detail("no endpoint"));
    }
    let deadline = Deadline::after(options.connect_timeout);
    // What was bound before one that fails is closed with this.
    let mut bound = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        bound.push(match &endpoint.0 {
            Target::Inet { .. } => bind_inet(endpoint, options, deadline)?,
            Target::UnixPath(_) | Target::UnixAbstract(_) => bind_unix(endpoint, options)?,
        });
    }
    let closing = options.hand_over.then(|| shared(OPERATION)).transpose()?;
    let server = ServerSocket::new(bound, options, closing);
    if endpoints.len() > 1 {
        server.start_polling()?;
    }
    Ok(server)
}

fn bind_inet(endpoint: &Endpoint, options: &SocketOptions, deadline: Deadline) -> Result<Bound> {
    options.refuse_unix_only(OPERATION).map_err(|e| e.at(endpoint))?;
    let (family, cancel) = (options.family, options.cancel.as_ref());
    let found = resolve(endpoint, Type::STREAM, family, deadline, cancel, OPERATION)?;
    let listen = |address, dual| listen_at(address, dual, options);
    let bound = bind_first(endpoint, found, family, OPERATION, listen)?;
    let BoundInet { socket, local, endpoint, any_port, .. } = bound;
    Ok(Bound { file: None, socket, endpoint, address: local.into(), any_port })
}

fn listen_at(address: SocketAddr, dual: bool, options: &SocketOptions) -> Step<Owned> {
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
    Ok(socket)
}

fn bind_unix(endpoint: &Endpoint, options: &SocketOptions) -> Result<Bound> {
    let at = |stage| move |e: io::Error| Error::os(OPERATION, &e).at(endpoint).stage(stage);
    options.refuse_inet_only(OPERATION).map_err(|e| e.at(endpoint))?;
    let name = sys::unix_name(endpoint).map_err(at(Stage::Socket))?;
    let socket = if options.sequenced {
        sys::packet_socket()
    } else {
        sys::stream_socket(Domain::UNIX, false)
    };
    let socket = socket.map_err(at(Stage::Socket))?;
    let fd = sys::borrow(&socket);
    let listen = || start_listening(fd, options);
    let (address, file) = match &endpoint.0 {
        Target::UnixPath(path) => {
            let file = unix::bind_and_listen(fd, &name, path, options.unix, listen);
            (Address::UnixPath(path.clone()), Some(file.map_err(at(Stage::Bind))?))
        }
        _ => {
            options.refuse_file_only(OPERATION).map_err(|e| e.at(endpoint))?;
            SockRef::from(&fd).bind(&name).and_then(|()| listen()).map_err(at(Stage::Bind))?;
            (sys::to_address(&name), None)
        }
    };
    Ok(Bound { file, socket, endpoint: endpoint.clone(), address, any_port: false })
}

fn start_listening(fd: Borrowed<'_>, options: &SocketOptions) -> io::Result<()> {
    SockRef::from(&fd).listen(backlog(options))?;
    sys::set_nonblocking(fd, !sys::BLOCKING_CALLS || options.hand_over)
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

    /// T4: what is to be asked without waiting never waits, whatever the server is set to.
    #[test]
    fn accepting_now_does_not_wait() {
        let listen = || ServerSocket::listen_all(["127.0.0.1:0", "[::1]:0"], &SocketOptions::new());
        for server in [ServerSocket::listen("127.0.0.1:0").unwrap(), listen().unwrap()] {
            for listener in server.listeners() {
                assert!(matches!(listener.accept_now(), AcceptNow::Nobody));
                let client = ClientSocket::connect(&listener.endpoint).unwrap();
                let AcceptNow::Accepted(_socket, peer) = listener.accept_now() else {
                    panic!("somebody waits");
                };
                assert_eq!(peer, client.five_tuple().local);
                assert!(matches!(listener.accept_now(), AcceptNow::Nobody));
            }
            assert_eq!(server.counters().accepted, server.listeners().len() as u64);
            server.close();
            for listener in server.listeners() {
                assert!(matches!(listener.accept_now(), AcceptNow::Closed));
            }
        }
    }

    /// N4: a refusal is told of the endpoint where it was.
    #[test]
    fn a_connection_is_of_the_closest_listener() {
        let inet = |text: &str| Address::Inet(text.parse().unwrap());
        let listeners = ["0.0.0.0:80", "[::]:80", "127.0.0.1:81", "[::]:81"].map(inet);
        for (local, closest) in [
            ("192.0.2.1:80", 0),
            ("[2001:db8::1]:80", 1),
            ("127.0.0.1:81", 2),
            ("127.0.0.2:81", 3),
            ("[::1]:81", 3),
        ] {
            let rank = |i: &usize| closeness(&listeners[*i], &inet(local));
            assert_eq!((0..listeners.len()).max_by_key(rank), Some(closest), "{local}");
        }
    }
}
