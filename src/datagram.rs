//! DatagramSocket: UDP, bound or connected.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef};

use crate::cancel::CancelToken;
use crate::client::BorrowedSocket;
use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::info::{Address, Family, FiveTuple, Protocol};
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::sys::{
    self, Borrowed, Descriptor, InUse, Interest, Owned, Received, Run, Source, ToGroups, Wait,
};
use crate::wait::{Cause, Deadline, wait};

const BIND: &str = "bind";
const CONNECT: &str = "connect";
const SEND: &str = "send";
const RECEIVE: &str = "receive";

const NO_TIMEOUT: u64 = u64::MAX;

/// RFC 768: the length, header included, has 16 bits; over IPv4 the IP header counts, too.
const MAX_V4: usize = 65_535 - 8 - 20;
const MAX_V6: usize = 65_535 - 8;

/// How many errors are kept for [`DatagramSocket::recv_error`]; then the oldest go.
const KEPT_ERRORS: usize = 64;

/// How many errors are taken from the kernel at once, so that whoever causes them keeps no call
/// busy for long.
const ERRORS_AT_ONCE: usize = 256;

/// How many datagrams are given to the kernel, and taken from it, in one call. A run of them has at
/// most as many (UDP_MAX_SEGMENTS of linux/udp.h before 6.9).
const AT_ONCE: usize = 64;

/// A UDP socket: [bound](DatagramSocket::bind) to a local address, for datagrams from anybody, or
/// [connected](DatagramSocket::connect) to one peer.
///
/// All methods take `&self`, and any number of threads may use one socket at once: a
/// datagram is sent, and received, as a whole. [`close`](DatagramSocket::close) may come from any
/// of them; dropping closes too. Unix systems only so far.
///
/// ```
/// use keepsock::DatagramSocket;
/// # if cfg!(windows) { return Ok(()) }
/// let server = DatagramSocket::bind("127.0.0.1:0")?;
/// let client = DatagramSocket::connect(server.endpoint())?;
/// client.send(b"question")?;
/// let mut buf = [0; 1500];
/// let question = server.recv(&mut buf)?;
/// assert_eq!(&buf[..question.len], b"question");
/// server.reply(&question, b"answer")?;
/// let answer = client.recv(&mut buf)?;
/// assert_eq!(&buf[..answer.len], b"answer");
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug)]
pub struct DatagramSocket {
    descriptor: Descriptor,
    endpoint: Endpoint,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    /// What the socket is, and whether it takes IPv4 too if it is an IPv6 one.
    ipv6: bool,
    dual: bool,
    nonblocking: AtomicBool,
    /// Milliseconds, or NO_TIMEOUT.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
    /// Locked while the descriptor's mode is changed, too.
    cancel: Mutex<Option<CancelToken>>,
    /// There is a token, or the platform has no other way: calls wait in poll.
    polled: AtomicBool,
    /// Equal datagrams are given to the kernel as one; off once that was refused.
    segments: AtomicBool,
    /// The kernel queues errors.
    reports: AtomicBool,
    errors: Mutex<VecDeque<DatagramError>>,
    error_count: AtomicU64,
}

/// What [`DatagramSocket::recv`] received, but for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// How many bytes were put into the buffer.
    pub len: usize,
    /// How many bytes the datagram had. Systems other than Linux do not tell: there it is `len`.
    pub original_len: usize,
    /// Whether the buffer was too short, so that the rest of it is lost.
    pub truncated: bool,
    /// Who sent it.
    pub from: SocketAddr,
    /// The address that it was sent to, which may be a group's or a broadcast address.
    pub to: Option<SocketAddr>,
    /// The address of this machine that a [`reply`](DatagramSocket::reply) leaves from.
    pub local: Option<SocketAddr>,
    /// The index of the interface by which it came, for a socket that is bound to a wildcard and
    /// where the system tells.
    pub interface: Option<u32>,
}

/// An error that was reported for a datagram that this socket sent: [`DatagramSocket::recv_error`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramError {
    /// What: [`Refused`](ErrorKind::Refused) if nobody has the port there,
    /// [`Unreachable`](ErrorKind::Unreachable), [`TooLong`](ErrorKind::TooLong) for the way,
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) by a firewall.
    pub kind: ErrorKind,
    /// The operating system's error number.
    pub os_error: Option<i32>,
    /// Where the datagram had been sent to, if that was told.
    pub to: Option<SocketAddr>,
    /// Who reported it: the receiving machine or a router on the way, if that was told.
    pub from: Option<IpAddr>,
}

/// One datagram of [`DatagramSocket::send_batch`].
///
/// ```
/// use keepsock::Outgoing;
/// let one = Outgoing::to(b"hello", "127.0.0.1:7788".parse().unwrap());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing<'a> {
    /// What is sent.
    pub bytes: &'a [u8],
    /// To whom; `None`: to the peer of a connected socket.
    pub to: Option<SocketAddr>,
    /// From which address of this machine; `None`: the system chooses. For sockets that are
    /// bound to a wildcard; others have one address.
    pub local: Option<SocketAddr>,
    /// By which interface, where the addresses need one: link-local and group addresses.
    pub interface: Option<u32>,
}

impl<'a> Outgoing<'a> {
    /// To the peer of a connected socket.
    ///
    /// ```
    /// let one = keepsock::Outgoing::new(b"hello");
    /// ```
    pub fn new(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Outgoing<'a> {
        Outgoing { bytes: bytes.as_ref(), to: None, local: None, interface: None }
    }

    /// To an address.
    ///
    /// ```
    /// let one = keepsock::Outgoing::to(b"hello", "127.0.0.1:7788".parse().unwrap());
    /// ```
    pub fn to(bytes: &'a (impl AsRef<[u8]> + ?Sized), to: SocketAddr) -> Outgoing<'a> {
        Outgoing { to: Some(to), ..Outgoing::new(bytes) }
    }

    /// An answer, as [`DatagramSocket::reply`] sends one.
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, Outgoing};
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// # let client = DatagramSocket::connect(server.endpoint())?;
    /// # client.send(b"question")?;
    /// let question = server.recv(&mut [0; 1500])?;
    /// server.send_batch(&[Outgoing::reply(&question, b"one"), Outgoing::reply(&question, b"two")])?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn reply(question: &Datagram, bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Outgoing<'a> {
        let (local, interface) = (question.local, question.interface);
        Outgoing { local, interface, ..Outgoing::to(bytes, question.from) }
    }
}

/// A buffer for [`DatagramSocket::recv_batch`], and what was received into it.
///
/// ```
/// let mut buf = [0; 1500];
/// let incoming = keepsock::Incoming::new(&mut buf);
/// assert!(incoming.datagram().is_none());
/// ```
#[derive(Debug)]
pub struct Incoming<'a> {
    buf: &'a mut [u8],
    datagram: Option<Datagram>,
}

impl<'a> Incoming<'a> {
    /// A buffer for one datagram.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// let incoming = keepsock::Incoming::new(&mut buf);
    /// ```
    pub fn new(buf: &'a mut [u8]) -> Incoming<'a> {
        Incoming { buf, datagram: None }
    }

    /// What was received last; `None`: nothing yet.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert!(keepsock::Incoming::new(&mut buf).datagram().is_none());
    /// ```
    pub fn datagram(&self) -> Option<&Datagram> {
        self.datagram.as_ref()
    }

    /// Its bytes.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert!(keepsock::Incoming::new(&mut buf).bytes().is_empty());
    /// ```
    pub fn bytes(&self) -> &[u8] {
        self.datagram.and_then(|d| self.buf.get(..d.len)).unwrap_or_default()
    }

    /// The buffer as a whole.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert_eq!(keepsock::Incoming::new(&mut buf).buffer().len(), 1500);
    /// ```
    pub fn buffer(&mut self) -> &mut [u8] {
        self.buf
    }
}

/// What decides which datagrams the kernel can take as one.
#[derive(Debug, Clone, Copy)]
struct Part {
    len: usize,
    to: SocketAddr,
    source: Source,
}

/// How many datagrams each run has: those of one length, the last perhaps shorter, to one
/// address and from one, which together are no longer than a datagram can be.
fn runs(parts: &[Part], segments: bool) -> Vec<usize> {
    let mut runs = Vec::new();
    let mut rest = parts;
    while let [first, others @ ..] = rest {
        let (mut len, mut bytes) = (1, first.len);
        for next in others.iter().take_while(|_| segments) {
            let fits = (next.to, next.source) == (first.to, first.source)
                && (1..=first.len).contains(&next.len)
                && bytes + next.len <= MAX_V4
                && len < AT_ONCE;
            if !fits {
                break;
            }
            (len, bytes) = (len + 1, bytes + next.len);
            if next.len < first.len {
                break;
            }
        }
        runs.push(len);
        rest = &rest[len..];
    }
    runs
}

/// A socket that is nobody's yet.
struct Made {
    socket: Owned,
    endpoint: Endpoint,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    dual: bool,
}

type Step<T> = std::result::Result<T, (Stage, Cause)>;

impl DatagramSocket {
    /// Binds with the default options: a socket that takes datagrams from anybody.
    ///
    /// `*:8080` takes IPv4 and IPv6 on one port, whatever the system's bindv6only
    /// says (IPv4 alone on a machine without IPv6); `0.0.0.0:8080` takes IPv4 and
    /// `[::]:8080` IPv6 only. A name stands for its first address, a service name for the port
    /// that TCP has for it. With port 0 the system chooses;
    /// [`port`](DatagramSocket::port) tells which.
    ///
    /// # Errors
    /// [`AddressInUse`](ErrorKind::AddressInUse),
    /// [`AddressNotAvailable`](ErrorKind::AddressNotAvailable),
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) (ports below 1024),
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint), those of a name lookup, each naming the
    /// endpoint; [`Unsupported`](ErrorKind::Unsupported) on Windows.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind};
    /// # if cfg!(windows) { return Ok(()) }
    /// let first = DatagramSocket::bind("127.0.0.1:0")?;
    /// let err = DatagramSocket::bind(first.endpoint()).unwrap_err();
    /// assert_eq!(err.kind(), ErrorKind::AddressInUse);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn bind<E>(endpoint: E) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        DatagramSocket::bind_with(endpoint, &SocketOptions::default())
    }

    /// Binds with options: family, interface, timeouts and token. The connect timeout is for
    /// looking a name up.
    ///
    /// # Errors
    /// Those of [`bind`](DatagramSocket::bind);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options that only streams, or only
    /// connecting, have.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// let options = SocketOptions::new().read_timeout(std::time::Duration::from_millis(20));
    /// let socket = DatagramSocket::bind_with("*:0", &options)?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn bind_with<E>(endpoint: E, options: &SocketOptions) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(BIND))?;
        options.validate(BIND)?;
        options.refuse_stream_only(BIND)?;
        options.refuse_unix_only(BIND)?;
        options.refuse_client_only(BIND)?;
        DatagramSocket::new(bind_first(&endpoint, options)?, options, BIND)
    }

    /// Connects with the default options: the socket sends to that peer only, and receives from
    /// it only. Nothing is sent for that, so whether somebody is there is not known yet. Of a
    /// name's addresses it is the first one that this machine has a way to.
    ///
    /// What ICMP says of the peer is [reported](DatagramSocket::recv_error), and ends no call.
    ///
    /// # Errors
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint), [`Unreachable`](ErrorKind::Unreachable),
    /// those of a name lookup; [`Unsupported`](ErrorKind::Unsupported) on Windows.
    ///
    /// ```
    /// use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// println!("{}", client.five_tuple());   // udp 127.0.0.1:51002 -> 127.0.0.1:7788
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect<E>(endpoint: E) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        DatagramSocket::connect_with(endpoint, &SocketOptions::default())
    }

    /// Connects with options: family, local address, interface, addresses in place of the
    /// name's, timeouts and token. The connect timeout is for looking the name up.
    ///
    /// # Errors
    /// Those of [`connect`](DatagramSocket::connect) and
    /// [`AddressInUse`](ErrorKind::AddressInUse),
    /// [`AddressNotAvailable`](ErrorKind::AddressNotAvailable) for the local address;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options that only streams have.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, Endpoint, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let from: Endpoint = "127.0.0.1:0".parse()?;
    /// let client = DatagramSocket::connect_with(server.endpoint(), &SocketOptions::new().local(from))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect_with<E>(endpoint: E, options: &SocketOptions) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(CONNECT))?;
        options.validate(CONNECT)?;
        options.refuse_stream_only(CONNECT)?;
        options.refuse_unix_only(CONNECT)?;
        DatagramSocket::new(connect_first(&endpoint, options)?, options, CONNECT)
    }

    /// Takes over a UDP socket that is bound, connected or not. The options' timeouts and token
    /// hold; their addresses, family and interface must not be set.
    ///
    /// # Errors
    /// The descriptor is given back with the error:
    /// [`WrongState`](ErrorKind::WrongState) if it is not a UDP socket that is bound;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// let port = socket.local_addr()?.port();
    /// let socket = DatagramSocket::from_owned(socket.into(), &SocketOptions::new()).unwrap();
    /// assert_eq!(socket.port(), port);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_owned(
        socket: Owned,
        options: &SocketOptions,
    ) -> std::result::Result<DatagramSocket, (Owned, Error)> {
        const OPERATION: &str = "take over";
        let wrong = |what: &str| Error::new(ErrorKind::WrongState, OPERATION).detail(what);
        let os = |e: io::Error| Error::os(OPERATION, &e);
        let look = || -> Result<(SocketAddr, Option<SocketAddr>, bool)> {
            options.validate(OPERATION)?;
            options.refuse_stream_only(OPERATION)?;
            options.refuse_unix_only(OPERATION)?;
            options.refuse_client_only(OPERATION)?;
            if options.family != Family::Any || options.interface.is_some() {
                return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                    .detail("family and interface are for sockets that are made"));
            }
            let fd = sys::borrow(&socket);
            if !sys::is_udp(fd).map_err(os)? {
                return Err(wrong("not a UDP socket"));
            }
            let asked = SockRef::from(&fd);
            let local = asked.local_addr().map_err(os)?.as_socket().filter(|a| a.port() != 0);
            let Some(local) = local else {
                return Err(wrong("not bound"));
            };
            let dual = local.is_ipv6() && !asked.only_v6().map_err(os)?;
            let peer = asked.peer_addr().ok().and_then(|peer| peer.as_socket());
            let set_up = || -> std::result::Result<(), Cause> {
                set_up(fd, local.ip(), local.is_ipv6(), peer.is_some())?;
                sys::set_nonblocking(fd, !sys::BLOCKING_CALLS)?;
                sys::forbid_sigpipe(fd)?;
                // The kernel's timeouts would be taken for ours.
                asked.set_read_timeout(None)?;
                asked.set_write_timeout(None)?;
                Ok(())
            };
            set_up().map_err(|cause| cause.into_error(OPERATION))?;
            Ok((local, peer, dual))
        };
        match look() {
            Ok((local, peer, dual)) => {
                let made = Made { socket, endpoint: canonical(local).into(), local, peer, dual };
                Ok(DatagramSocket::put_together(made, options))
            }
            Err(e) => Err((socket, e)),
        }
    }

    fn new(made: Made, options: &SocketOptions, operation: &'static str) -> Result<DatagramSocket> {
        if !sys::BLOCKING_CALLS {
            sys::set_nonblocking(sys::borrow(&made.socket), true)
                .map_err(|e| Error::os(operation, &e).at(&made.endpoint))?;
        }
        Ok(DatagramSocket::put_together(made, options))
    }

    fn put_together(made: Made, options: &SocketOptions) -> DatagramSocket {
        let ms = |timeout: Option<Duration>| AtomicU64::new(timeout.map_or(NO_TIMEOUT, millis));
        let socket = DatagramSocket {
            descriptor: Descriptor::new(made.socket),
            endpoint: made.endpoint,
            ipv6: made.local.is_ipv6(),
            dual: made.dual,
            local: canonical(made.local),
            peer: made.peer.map(canonical),
            nonblocking: AtomicBool::new(false),
            read_timeout: ms(options.read_timeout),
            write_timeout: ms(options.write_timeout),
            cancel: Mutex::new(None),
            polled: AtomicBool::new(!sys::BLOCKING_CALLS),
            segments: AtomicBool::new(sys::SEGMENTS),
            reports: AtomicBool::new(sys::REPORTS && made.peer.is_some()),
            errors: Mutex::default(),
            error_count: AtomicU64::new(0),
        };
        socket.set_cancel(options.cancel.as_ref());
        socket
    }

    // ---- sending -------------------------------------------------------------------------

    /// Sends one datagram to the peer of a [connected](DatagramSocket::connect) socket. It
    /// waits only while the system's buffer is full.
    ///
    /// No bytes are a datagram, too. At most 65,507 bytes go into one over IPv4, 65,527 over
    /// IPv6.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState) if the socket is not connected;
    /// [`TooLong`](ErrorKind::TooLong) for the protocol, or for the way;
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled),
    /// [`Closed`](ErrorKind::Closed), [`Unreachable`](ErrorKind::Unreachable),
    /// [`PermissionDenied`](ErrorKind::PermissionDenied); [`WouldBlock`](ErrorKind::WouldBlock)
    /// in non-blocking mode. What ICMP said of an earlier datagram fails no call: it is
    /// [reported](DatagramSocket::recv_error), and sending is tried again once.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// # let client = DatagramSocket::connect(server.endpoint())?;
    /// client.send(b"question")?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        match self.peer {
            Some(peer) => self.send_from(bytes, peer, Source::default()),
            None => Err(self.not_connected()),
        }
    }

    /// Sends one datagram to an address.
    ///
    /// # Errors
    /// Those of [`send`](DatagramSocket::send), but
    /// [`WrongState`](ErrorKind::WrongState) if the socket is connected to another one;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for port 0, and for an address of a
    /// family that the socket does not have.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
    /// # let other = DatagramSocket::bind("127.0.0.1:0")?;
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.send_to(b"hello", ([127, 0, 0, 1], other.port()).into())?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) -> Result<()> {
        self.send_from(bytes, to, Source::default())
    }

    /// Answers a datagram: to whom it came from, and from the address that it was sent to, as
    /// its sender expects it, though this machine have several.
    ///
    /// # Errors
    /// Those of [`send_to`](DatagramSocket::send_to).
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("*:0")?;
    /// # let client = DatagramSocket::connect(("127.0.0.1".parse().unwrap(), server.port()))?;
    /// # client.send(b"question")?;
    /// let question = server.recv(&mut [0; 1500])?;
    /// server.reply(&question, b"answer")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reply(&self, question: &Datagram, bytes: &[u8]) -> Result<()> {
        let source = self.source_of(question.from, question.local, question.interface);
        self.send_from(bytes, question.from, source)
    }

    /// Where an answer leaves from. A socket with an address of its own sends from that anyway.
    fn source_of(
        &self,
        to: SocketAddr,
        local: Option<SocketAddr>,
        interface: Option<u32>,
    ) -> Source {
        if !self.local.ip().is_unspecified() {
            return Source::default();
        }
        let ip = local.map(|local| local.ip().to_canonical());
        let ip = ip.filter(|ip| ip.is_ipv4() == to.is_ipv4());
        // A link-local address is one only together with its interface (RFC 4007).
        let on_link = match ip {
            Some(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
            Some(IpAddr::V4(_)) => false,
            None => to.is_ipv6() || !self.ipv6,
        };
        Source { ip, interface: interface.filter(|_| on_link).unwrap_or(0) }
    }

    fn send_from(&self, bytes: &[u8], to: SocketAddr, source: Source) -> Result<()> {
        let to = canonical(to);
        let failed = |cause| self.failed(SEND, cause, Some(to));
        let io = self.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed.into()))?;
        self.may_send(bytes.len(), to)?;
        let run = Run { pieces: &[IoSlice::new(bytes)], to: self.name_of(to), source };
        let call = |wait| sys::send_datagram(io.socket(), self.ipv6, &run, wait);
        self.send_step(&io, self.deadline(&self.write_timeout), call).map_err(failed)
    }

    /// Sends datagrams in their order; how many were sent, which is all unless something
    /// prevents it: whoever sends the rest then is told what. On Linux one system call takes up
    /// to 64 of them (sendmmsg), and the kernel takes those that follow each other to one address
    /// with one length as one (UDP_SEGMENT of udp(7)), which is where most is saved. Elsewhere
    /// they are sent one by one.
    ///
    /// The write timeout is for all together.
    ///
    /// # Errors
    /// Those of [`send_to`](DatagramSocket::send_to), if not even the first was sent.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, Outgoing};
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// let parts = [Outgoing::new(b"one"), Outgoing::new(b"two"), Outgoing::new(b"three")];
    /// assert_eq!(client.send_batch(&parts)?, 3);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_batch(&self, batch: &[Outgoing<'_>]) -> Result<usize> {
        let closed = || self.failed(SEND, ErrorKind::Closed.into(), None);
        let io = self.descriptor.enter().ok_or_else(closed)?;
        let deadline = self.deadline(&self.write_timeout);
        let mut sent = 0;
        while sent < batch.len() {
            let some = &batch[sent..batch.len().min(sent + AT_ONCE)];
            match self.send_some(&io, some, deadline) {
                Ok(more) => sent += more,
                Err(e) if sent == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Sends at least one of some datagrams; how many.
    fn send_some(
        &self,
        io: &InUse<'_>,
        some: &[Outgoing<'_>],
        deadline: Deadline,
    ) -> Result<usize> {
        let mut parts = Vec::with_capacity(some.len());
        for one in some {
            match self.part(one) {
                Ok(part) => parts.push(part),
                Err(e) if parts.is_empty() => return Err(e),
                // It is the first of the next ones.
                Err(_) => break,
            }
        }
        let pieces: Vec<_> = some.iter().map(|one| IoSlice::new(one.bytes)).collect();
        loop {
            let segments = self.segments.load(Ordering::Relaxed);
            let lengths = runs(&parts, segments);
            let mut at = 0;
            let run = |len: &usize| {
                let (first, pieces) = (&parts[at], &pieces[at..at + len]);
                at += len;
                Run { pieces, to: self.name_of(first.to), source: first.source }
            };
            let built: Vec<_> = lengths.iter().map(run).collect();
            let call = |wait| sys::send_datagrams(io.socket(), self.ipv6, &built, wait);
            match self.send_step(io, deadline, call) {
                Ok(count) => return Ok(lengths[..count.min(lengths.len())].iter().sum()),
                // Whether it was that shows when they are sent one by one.
                Err(Cause::Os(e)) if lengths[0] > 1 && sys::may_refuse_segments(&e) => {
                    self.segments.store(false, Ordering::Relaxed);
                }
                Err(cause) => return Err(self.failed(SEND, cause, Some(parts[0].to))),
            }
        }
    }

    fn part(&self, one: &Outgoing<'_>) -> Result<Part> {
        let Some(to) = one.to.map(canonical).or(self.peer) else {
            return Err(self.not_connected());
        };
        self.may_send(one.bytes.len(), to)?;
        let source = self.source_of(to, one.local, one.interface);
        Ok(Part { len: one.bytes.len(), to, source })
    }

    #[cold]
    fn not_connected(&self) -> Error {
        let error = Error::new(ErrorKind::WrongState, SEND).at(&self.endpoint);
        error.detail("it is not connected: say to whom")
    }

    /// Refuses what cannot be sent, with words for what is wrong with it.
    fn may_send(&self, len: usize, to: SocketAddr) -> Result<()> {
        let refuse = |kind: ErrorKind, what: String| {
            Err(self.failed(SEND, kind.into(), Some(to)).detail(what))
        };
        match self.peer {
            Some(peer) if (peer.ip(), peer.port()) != (to.ip(), to.port()) => {
                let what = format!("the socket is connected to {peer}");
                return refuse(ErrorKind::WrongState, what);
            }
            _ => {}
        }
        if to.port() == 0 {
            return refuse(ErrorKind::InvalidArgument, "port 0".to_owned());
        }
        if to.is_ipv6() != self.ipv6 && !(self.dual && to.is_ipv4()) {
            let family = if self.ipv6 { "IPv6" } else { "IPv4" };
            return refuse(ErrorKind::InvalidArgument, format!("the socket is {family} only"));
        }
        let (max, family) = if to.is_ipv4() { (MAX_V4, "IPv4") } else { (MAX_V6, "IPv6") };
        if len > max {
            let what = format!("{len} bytes, and a datagram over {family} has at most {max}");
            return refuse(ErrorKind::TooLong, what);
        }
        Ok(())
    }

    /// An address as this socket's kernel side wants it; a connected socket needs none.
    fn name_of(&self, to: SocketAddr) -> Option<SockAddr> {
        if self.peer.is_some() {
            return None;
        }
        Some(match to {
            SocketAddr::V4(v4) if self.ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            to => to.into(),
        })
    }

    /// One send to the kernel, waiting as this socket waits.
    fn send_step<T>(
        &self,
        io: &InUse<'_>,
        deadline: Deadline,
        mut call: impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        let mut pending = None;
        loop {
            match self.step(io, Interest::Write, deadline, &mut call) {
                // The kernel tells an error of an earlier datagram in place of sending: once
                // more shows whether it was one.
                Err(Cause::Os(e)) if sys::is_reported(&e) && pending.is_none() => {
                    pending = Some((self.take_reported(io) > 0, e));
                }
                Ok(sent) => {
                    if let Some((false, e)) = pending {
                        self.keep_untold(&e);
                    }
                    return Ok(sent);
                }
                other => return other,
            }
        }
    }

    // ---- receiving -----------------------------------------------------------------------

    /// Receives one datagram. What does not fit into `buf` is lost, and
    /// [`truncated`](Datagram::truncated) says so. Several threads may receive at once.
    ///
    /// What ICMP said of datagrams that were sent ends no receiving: it goes on, and
    /// [`recv_error`](DatagramSocket::recv_error) tells of it.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled),
    /// [`Closed`](ErrorKind::Closed), and [`WouldBlock`](ErrorKind::WouldBlock) in non-blocking
    /// mode.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// # let client = DatagramSocket::connect(server.endpoint())?;
    /// client.send(b"twelve bytes")?;
    /// let mut buf = [0; 6];
    /// let datagram = server.recv(&mut buf)?;
    /// assert_eq!(&buf[..datagram.len], b"twelve");
    /// assert!(datagram.truncated);
    /// assert_eq!(datagram.from.port(), client.port());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn recv(&self, buf: &mut [u8]) -> Result<Datagram> {
        let failed = |cause| self.failed(RECEIVE, cause, None);
        let io = self.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed.into()))?;
        let deadline = self.deadline(&self.read_timeout);
        loop {
            let call = |wait| sys::recv_datagram(io.socket(), buf, wait);
            let received = self.recv_step(&io, deadline, call).map_err(failed)?;
            match received.from {
                Some(from) if self.is_from_peer(from) => return Ok(self.told(received, from)),
                // It was in the queue before the socket was connected.
                Some(_) => {}
                None => return Err(failed(ErrorKind::Closed.into())),
            }
        }
    }

    /// Receives as many datagrams as there are, and at least one, one into each buffer; how
    /// many. It waits for the first only. On Linux that is one system call for up to 64 of them
    /// (recvmmsg), which is the most for one call everywhere. Buffers of a connected socket may
    /// change their places.
    ///
    /// # Errors
    /// Those of [`recv`](DatagramSocket::recv).
    ///
    /// ```
    /// use keepsock::{DatagramSocket, Incoming};
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// # let client = DatagramSocket::connect(server.endpoint())?;
    /// client.send(b"hello")?;
    /// let mut buffers = [[0; 1500]; 16];
    /// let mut batch: Vec<_> = buffers.iter_mut().map(|b| Incoming::new(b)).collect();
    /// let count = server.recv_batch(&mut batch)?;
    /// for incoming in &batch[..count] {
    ///     println!("{:?}: {:?}", incoming.datagram(), incoming.bytes());
    /// }
    /// # assert_eq!(batch[0].bytes(), b"hello");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn recv_batch(&self, batch: &mut [Incoming<'_>]) -> Result<usize> {
        let failed = |cause| self.failed(RECEIVE, cause, None);
        let io = self.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed.into()))?;
        let deadline = self.deadline(&self.read_timeout);
        if batch.is_empty() {
            return Ok(0);
        }
        loop {
            let bufs = batch.iter_mut().take(AT_ONCE);
            let mut bufs: Vec<_> = bufs.map(|one| IoSliceMut::new(one.buf)).collect();
            let call = |wait| sys::recv_datagrams(io.socket(), &mut bufs, wait);
            let got = self.recv_step(&io, deadline, call).map_err(failed)?;
            if got.iter().all(|received| received.from.is_none()) {
                return Err(failed(ErrorKind::Closed.into()));
            }
            let mut kept = 0;
            for (at, received) in got.into_iter().enumerate() {
                if let Some(from) = received.from.filter(|from| self.is_from_peer(*from)) {
                    batch.swap(kept, at);
                    batch[kept].datagram = Some(self.told(received, from));
                    kept += 1;
                }
            }
            if kept > 0 {
                return Ok(kept);
            }
        }
    }

    /// One call of the kernel that receives, waiting as this socket waits, whatever ICMP says.
    fn recv_step<T>(
        &self,
        io: &InUse<'_>,
        deadline: Deadline,
        mut call: impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        loop {
            match self.step(io, Interest::Read, deadline, &mut call) {
                Err(Cause::Os(e)) if sys::is_reported(&e) => {
                    if self.take_reported(io) == 0 {
                        self.keep_untold(&e);
                    }
                    if deadline.has_passed() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    fn is_from_peer(&self, from: SocketAddr) -> bool {
        self.peer.is_none_or(|peer| (peer.ip(), peer.port()) == (from.ip(), from.port()))
    }

    fn told(&self, received: Received, from: SocketAddr) -> Datagram {
        let here = |ip| match ip {
            // Link-local: of the interface by which it came.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddrV6::new(v6, self.local.port(), 0, received.interface).into()
            }
            ip => SocketAddr::new(ip, self.local.port()),
        };
        // Not told to a socket with one address: it is that one.
        let own = Some(self.local).filter(|own| !own.ip().is_unspecified());
        Datagram {
            len: received.len,
            original_len: received.original_len,
            truncated: received.truncated,
            from,
            to: received.to.map(here).or(own),
            local: received.local.map(here).or(own.filter(|own| !own.ip().is_multicast())),
            interface: (received.interface != 0).then_some(received.interface),
        }
    }

    // ---- broadcast and multicast ---------------------------------------------------------

    /// Whether datagrams may be sent to broadcast addresses; sending to one is
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) otherwise. Receiving needs nothing but a
    /// socket that is bound to a wildcard. Default: no.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("0.0.0.0:0")?;
    /// socket.set_broadcast(true)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_broadcast(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "broadcast";
        let io = self.enter(OPERATION)?;
        let set = SockRef::from(&io.socket()).set_broadcast(on);
        set.map_err(|e| self.failed(OPERATION, e.into(), None))
    }

    /// Joins a multicast group, to receive what is sent to it and to this socket's port: on one
    /// interface, by name or index, or on the one that the system has a way to the group by; from
    /// all senders, or from one (RFC 4607). A second call with another sender adds that one. The
    /// socket gets what it has joined, and not what others on this machine have. Bind it to a
    /// wildcard, or to the group.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if it is no group, or of another family
    /// than the socket or the sender; [`InvalidEndpoint`](ErrorKind::InvalidEndpoint) for an
    /// interface that is not there, or if there is no way to the group;
    /// [`AddressInUse`](ErrorKind::AddressInUse) if it was joined before;
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux and FreeBSD;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// let group = "239.83.0.1".parse().unwrap();
    /// socket.join(group, Some("lo"), None)?;
    /// socket.leave(group, Some("lo"), None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn join(
        &self,
        group: IpAddr,
        interface: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<()> {
        self.set_member("join", group, interface, source, true)
    }

    /// Leaves a group that was [joined](DatagramSocket::join) with the same arguments. Closing
    /// leaves all.
    ///
    /// # Errors
    /// Those of [`join`](DatagramSocket::join), and
    /// [`AddressNotAvailable`](ErrorKind::AddressNotAvailable) if it was not joined.
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// let group = "239.83.0.1".parse().unwrap();
    /// socket.join(group, Some("lo"), None)?;
    /// socket.leave(group, Some("lo"), None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn leave(
        &self,
        group: IpAddr,
        interface: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<()> {
        self.set_member("leave", group, interface, source, false)
    }

    fn set_member(
        &self,
        operation: &'static str,
        group: IpAddr,
        interface: Option<&str>,
        source: Option<IpAddr>,
        join: bool,
    ) -> Result<()> {
        let io = self.enter(operation)?;
        let refuse = |what: String| {
            let error = self.failed(operation, ErrorKind::InvalidArgument.into(), None);
            Err(error.detail(what))
        };
        if !group.is_multicast() {
            return refuse(format!("{group} is no multicast group"));
        }
        if group.is_ipv4() && self.ipv6 && !self.dual || group.is_ipv6() && !self.ipv6 {
            return refuse(format!("{group} is not of the socket's family"));
        }
        if let Some(source) = source.filter(|source| source.is_ipv4() != group.is_ipv4()) {
            return refuse(format!("{source} and {group} are of two families"));
        }
        let index = match interface {
            Some(name) => self.interface(operation, name)?,
            None => 0,
        };
        sys::set_member(io.socket(), group, index, source, join).map_err(|e| {
            let error = self.failed(operation, e.into(), None);
            let no_way = error.kind() == ErrorKind::InvalidEndpoint;
            let what = if no_way { "no interface for " } else { "" };
            error.detail(format!("{what}{group}"))
        })
    }

    fn interface(&self, operation: &'static str, name: &str) -> Result<u32> {
        sys::zone_index(name).ok_or_else(|| {
            let error = self.failed(operation, ErrorKind::InvalidEndpoint.into(), None);
            error.detail(format!("no such interface: {name:?}"))
        })
    }

    /// Whether what this socket sends to a group is received on this machine, too. Default: yes.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux and FreeBSD;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_multicast_loop(false)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_multicast_loop(&self, on: bool) -> Result<()> {
        self.set_to_groups(ToGroups::Loop(on))
    }

    /// How many networks what this socket sends to a group passes; 0: none but this machine.
    /// Default: 1, the local network.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux and FreeBSD;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_multicast_ttl(4)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_multicast_ttl(&self, ttl: u8) -> Result<()> {
        self.set_to_groups(ToGroups::Ttl(ttl))
    }

    /// The interface, by name or index, that what this socket sends to a group leaves by. Default:
    /// as routed.
    ///
    /// # Errors
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint) for one that is not there;
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux and FreeBSD;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_multicast_interface("lo")?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_multicast_interface(&self, name: &str) -> Result<()> {
        self.set_to_groups(ToGroups::Interface(self.interface("multicast", name)?))
    }

    fn set_to_groups(&self, setting: ToGroups) -> Result<()> {
        const OPERATION: &str = "multicast";
        let io = self.enter(OPERATION)?;
        let ipv4 = !self.ipv6 || self.dual;
        sys::to_groups(io.socket(), ipv4, self.ipv6, setting)
            .map_err(|e| self.failed(OPERATION, e.into(), None))
    }

    fn enter(&self, operation: &'static str) -> Result<InUse<'_>> {
        let io = self.descriptor.enter();
        io.ok_or_else(|| self.failed(operation, ErrorKind::Closed.into(), None))
    }

    // ---- what ICMP says ------------------------------------------------------------------

    /// Whether what ICMP says of datagrams that were sent is kept for
    /// [`recv_error`](DatagramSocket::recv_error). A connected socket has it on, a bound one off:
    /// there the kernel keeps such errors to itself unless it is asked (IP_RECVERR of ip(7),
    /// Linux).
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_report_errors(true)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_report_errors(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "error reports";
        let failed = |cause| self.failed(OPERATION, cause, None);
        let io = self.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed.into()))?;
        sys::report_errors(io.socket(), self.ipv6, on).map_err(|e| failed(e.into()))?;
        self.reports.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// The oldest error that was reported for a datagram that this socket sent, and was not told
    /// yet; `None`: there is none. It never waits. At most 64 are kept, then the oldest go;
    /// [`error_count`](DatagramSocket::error_count) counts all.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) once none is left of those that came before.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let gone = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(gone.endpoint())?;
    /// gone.close();
    /// client.send(b"is anybody there?")?;
    /// let reported = client.recv_error()?.expect("by loopback it is there at once");
    /// assert_eq!(reported.kind, ErrorKind::Refused);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn recv_error(&self) -> Result<Option<DatagramError>> {
        let io = self.descriptor.enter();
        if let Some(io) = &io {
            self.take_reported(io);
        }
        match self.kept_errors().pop_front() {
            None if io.is_none() => Err(self.failed(RECEIVE, ErrorKind::Closed.into(), None)),
            kept => Ok(kept),
        }
    }

    /// How many errors were reported so far for datagrams that this socket sent, as far as calls
    /// have met them.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.error_count(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn error_count(&self) -> u64 {
        self.error_count.load(Ordering::Relaxed)
    }

    fn kept_errors(&self) -> MutexGuard<'_, VecDeque<DatagramError>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_error(&self, error: DatagramError) {
        self.error_count.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept_errors();
        if kept.len() == KEPT_ERRORS {
            kept.pop_front();
        }
        kept.push_back(error);
    }

    /// Keeps the error of a call that the queue did not have. Where there is a queue it had been
    /// taken from there already: Linux queues an error before it gives it to the next call, and
    /// another thread may come between.
    fn keep_untold(&self, err: &io::Error) {
        if !self.reports.load(Ordering::Relaxed) {
            self.keep_error(DatagramError::unknown(err, self.peer));
        }
    }

    /// Takes what the kernel has queued; how much that was. While something is there, a poll does
    /// not wait, so it must not stay.
    fn take_reported(&self, io: &InUse<'_>) -> usize {
        for taken in 0..ERRORS_AT_ONCE {
            let Ok(Some(reported)) = sys::next_reported(io.socket()) else {
                return taken;
            };
            let mut error =
                DatagramError::unknown(&io::Error::from_raw_os_error(reported.code), self.peer);
            error.to = reported.to.or(error.to);
            error.from = reported.by;
            self.keep_error(error);
        }
        ERRORS_AT_ONCE
    }

    // ---- waiting -------------------------------------------------------------------------

    fn deadline(&self, timeout: &AtomicU64) -> Deadline {
        match timeout.load(Ordering::Relaxed) {
            NO_TIMEOUT => Deadline(None),
            ms => Deadline::after(Some(Duration::from_millis(ms))),
        }
    }

    /// One call of the kernel. Without limit and token it is the kernel that waits.
    fn step<T>(
        &self,
        io: &InUse<'_>,
        interest: Interest,
        deadline: Deadline,
        call: &mut impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        let cancel = self.polled.load(Ordering::Acquire).then(|| self.cancel_token()).flatten();
        let nonblocking = self.nonblocking.load(Ordering::Acquire);
        let mut waits = deadline.0.is_none()
            && !nonblocking
            && !self.polled.load(Ordering::Acquire)
            && sys::BLOCKING_CALLS;
        loop {
            if cancel.as_ref().is_some_and(CancelToken::is_fired) {
                return Err(ErrorKind::Cancelled.into());
            }
            let result = call(if waits { Wait::Yes } else { Wait::No });
            if io.is_closed() {
                return Err(ErrorKind::Closed.into());
            }
            match result {
                Ok(done) => return Ok(done),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if nonblocking {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                    // If the kernel was to wait, somebody has made the descriptor non-blocking.
                    waits = false;
                    let socket = Some((io.socket(), interest));
                    let ready = wait(socket, deadline, cancel.as_ref(), || io.is_closed())?;
                    if ready.error {
                        self.take_reported(io);
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    // ---- what it is, and how it is set ---------------------------------------------------

    /// The local endpoint, with the port that the system chose. What was bound to `*` is `*`.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// assert_eq!(socket.endpoint().to_string(), format!("*:{}", socket.port()));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The local port.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// assert_ne!(socket.port(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn port(&self) -> u16 {
        self.local.port()
    }

    /// Protocol, local and remote address; after close, too. The remote address of a socket that
    /// is not connected is the wildcard with port 0.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
    /// let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// let expected = format!("udp 127.0.0.1:{} -> 127.0.0.1:{}", client.port(), server.port());
    /// assert_eq!(client.five_tuple().to_string(), expected);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn five_tuple(&self) -> FiveTuple {
        let anybody = match self.local {
            SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        self.tuple_to(self.peer.unwrap_or(anybody))
    }

    fn tuple_to(&self, remote: SocketAddr) -> FiveTuple {
        FiveTuple {
            protocol: Protocol::Udp,
            local: Address::Inet(self.local),
            remote: Address::Inet(remote),
        }
    }

    /// Sets the time for each receiving call as a whole; `None`: no limit. Calls under way keep
    /// theirs. With a limit a call that has to wait makes two system calls more.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for zero
    /// ([`set_nonblocking`](DatagramSocket::set_nonblocking) is what does not wait),
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_read_timeout(std::time::Duration::from_millis(20))?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_read_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.set_timeout(&self.read_timeout, timeout.into())
    }

    /// Sets the time for each sending call as a whole; `None`: no limit.
    ///
    /// # Errors
    /// Those of [`set_read_timeout`](DatagramSocket::set_read_timeout).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_write_timeout(std::time::Duration::from_secs(5))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_write_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.set_timeout(&self.write_timeout, timeout.into())
    }

    fn set_timeout(&self, which: &AtomicU64, timeout: Option<Duration>) -> Result<()> {
        const OPERATION: &str = "timeout";
        if self.descriptor.is_closed() {
            return Err(self.failed(OPERATION, ErrorKind::Closed.into(), None));
        }
        if timeout.is_some_and(|t| t.is_zero()) {
            let zero = self.failed(OPERATION, ErrorKind::InvalidArgument.into(), None);
            return Err(zero.detail("the timeout is zero"));
        }
        which.store(timeout.map_or(NO_TIMEOUT, millis), Ordering::Relaxed);
        Ok(())
    }

    /// In non-blocking mode calls that would wait return
    /// [`WouldBlock`](ErrorKind::WouldBlock) instead, and the descriptor has O_NONBLOCK.
    /// Calls that wait already go on.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_nonblocking(true)?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::WouldBlock);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        let failed = |cause| self.failed("non-blocking mode", cause, None);
        let io = self.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed.into()))?;
        let _mode = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        sys::set_nonblocking(io.socket(), on || !sys::BLOCKING_CALLS)
            .map_err(|e| failed(e.into()))?;
        self.nonblocking.store(on, Ordering::Release);
        Ok(())
    }

    /// Gives the socket a token that ends its calls, or takes it off. Calls under
    /// way are not affected.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let token = keepsock::CancelToken::new()?;
    /// socket.set_cancel(Some(&token));
    /// token.fire();
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::Cancelled);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_cancel(&self, token: Option<&CancelToken>) {
        let mut cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        *cancel = token.cloned();
        self.polled.store(cancel.is_some() || !sys::BLOCKING_CALLS, Ordering::Release);
    }

    fn cancel_token(&self) -> Option<CancelToken> {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Borrows the descriptor, for an event loop or an option that keepsock does not know. While
    /// the guard lives the descriptor stays open, even if another thread closes the socket.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let borrowed = socket.borrow()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn borrow(&self) -> Result<BorrowedSocket<'_>> {
        let io = self.descriptor.enter();
        io.map(BorrowedSocket).ok_or_else(|| self.failed("borrow", ErrorKind::Closed.into(), None))
    }

    /// Gives the descriptor up: it is the caller's to close. The socket is then closed for this
    /// program.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed); [`WrongState`](ErrorKind::WrongState) while another
    /// thread is in a call on it.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let socket = std::net::UdpSocket::from(socket.release()?);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn release(&self) -> Result<Owned> {
        let failed = |kind: ErrorKind| self.failed("release", kind.into(), None);
        let io = self.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed))?;
        let owned = self.descriptor.release(io);
        owned.ok_or_else(|| failed(ErrorKind::WrongState).detail("another thread is using it"))
    }

    /// Closes. Calls of other threads end with [`Closed`](ErrorKind::Closed). What was sent is on
    /// its way. Any thread may close at any time; closing twice is fine.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.close();
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), keepsock::ErrorKind::Closed);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn close(&self) {
        if let Some(io) = self.descriptor.enter() {
            if self.descriptor.close(&io) {
                // On Linux that wakes those who wait, though there be no connection (ENOTCONN).
                sys::wake(io.socket());
            }
        }
    }

    /// The error of a call.
    #[cold]
    fn failed(&self, operation: &'static str, cause: Cause, to: Option<SocketAddr>) -> Error {
        let too_long = matches!(&cause, Cause::Os(e) if sys::is_too_long(e));
        let error = match &cause {
            Cause::Os(e) if too_long => {
                Error::new(ErrorKind::TooLong, operation).with_os_error(e.raw_os_error())
            }
            _ => cause.into_error(operation),
        };
        match to.or(self.peer) {
            Some(remote) => error.at(self.tuple_to(remote)),
            None => error.at(&self.endpoint),
        }
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        self.close();
    }
}

impl DatagramError {
    /// What is known without a report: the error, and to whom a connected socket sends.
    fn unknown(err: &io::Error, peer: Option<SocketAddr>) -> DatagramError {
        let kind = if sys::is_too_long(err) { ErrorKind::TooLong } else { ErrorKind::of(err) };
        DatagramError { kind, os_error: err.raw_os_error(), to: peer, from: None }
    }
}

/// Rounded up, so that a short time is not none.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(NO_TIMEOUT)
}

/// IPv4 as IPv4, also where a dual-stack socket has it as a mapped address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn set_up(
    socket: Borrowed<'_>,
    local: IpAddr,
    ipv6: bool,
    connected: bool,
) -> std::result::Result<(), Cause> {
    // A socket with one address receives at that one.
    if !connected && local.is_unspecified() {
        sys::want_destination(socket, ipv6)?;
    }
    if connected {
        match sys::report_errors(socket, ipv6, true) {
            // There an error comes with a call, and is reported without its details.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
            other => other?,
        }
    }
    Ok(())
}

fn new_socket(
    address: SocketAddr,
    dual: bool,
    options: &SocketOptions,
    connected: bool,
) -> Step<Owned> {
    let ipv6 = address.is_ipv6();
    let socket = sys::datagram_socket(Domain::for_address(address))
        .map_err(|e| (Stage::Socket, Cause::from(e)))?;
    let fd = sys::borrow(&socket);
    let apply = || -> std::result::Result<(), Cause> {
        if ipv6 {
            SockRef::from(&fd).set_only_v6(!dual)?;
        }
        if let Some(name) = &options.interface {
            sys::bind_interface(fd, name, ipv6)?;
        }
        sys::forbid_sigpipe(fd)?;
        set_up(fd, address.ip(), ipv6, connected)
    };
    apply().map_err(|cause| (Stage::Options, cause))?;
    Ok(socket)
}

fn local_of(socket: Borrowed<'_>) -> io::Result<SocketAddr> {
    let name = SockRef::from(&socket).local_addr()?;
    name.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn bind_first(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    let deadline = Deadline::after(options.connect_timeout);
    let found = resolve(endpoint, options.family, deadline, options.cancel.as_ref(), BIND)?;
    let any = matches!(&endpoint.0, Target::Inet { host: Host::Any, .. });
    let mut failure = None;
    for address in found {
        let dual = any && address.is_ipv6() && options.family == Family::Any;
        match bind_at(address, dual, options) {
            Ok((socket, local)) => {
                // `*` stays `*`: that is what it is bound to.
                let port = Port::Number(local.port());
                let endpoint = match any {
                    true => Endpoint(Target::Inet { host: Host::Any, port }),
                    false => local.into(),
                };
                return Ok(Made { socket, endpoint, local, peer: None, dual });
            }
            // Only a machine without IPv6 goes on to IPv4.
            Err((stage, cause)) => {
                let missing = matches!(&cause, Cause::Os(e) if sys::is_family_missing(e));
                let error = cause.into_error(BIND).at(endpoint).stage(stage);
                if !(dual && missing) {
                    return Err(error);
                }
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(ErrorKind::NotFound, BIND).at(endpoint)))
}

fn bind_at(address: SocketAddr, dual: bool, options: &SocketOptions) -> Step<(Owned, SocketAddr)> {
    let at_bind = |e: io::Error| (Stage::Bind, Cause::from(e));
    let socket = new_socket(address, dual, options, false)?;
    let fd = sys::borrow(&socket);
    SockRef::from(&fd).bind(&address.into()).map_err(at_bind)?;
    let local = local_of(fd).map_err(at_bind)?;
    Ok((socket, local))
}

fn connect_first(endpoint: &Endpoint, options: &SocketOptions) -> Result<Made> {
    let failed = |kind| Error::new(kind, CONNECT).at(endpoint);
    if let Target::Inet { host: Host::Any, .. } = &endpoint.0 {
        return Err(failed(ErrorKind::InvalidEndpoint).detail("\"*\" is for binding"));
    }
    let deadline = Deadline::after(options.connect_timeout);
    let cancel = options.cancel.as_ref();
    let local = match &options.local {
        Some(local) => resolve(local, options.family, deadline, cancel, CONNECT)?,
        None => Vec::new(),
    };
    let mut found = match options.addresses.as_slice() {
        [] => resolve(endpoint, options.family, deadline, cancel, CONNECT)?,
        given => given.iter().copied().filter(|a| options.family.allows(a.ip())).collect(),
    };
    if options.local.is_some() {
        found.retain(|to| local.iter().any(|l| l.is_ipv4() == to.is_ipv4()));
    }
    let mut failure = None;
    for to in found {
        let from = local.iter().find(|l| l.is_ipv4() == to.is_ipv4()).copied();
        match connect_to(to, from, options) {
            Ok((socket, local, peer)) => {
                let endpoint = canonical(local).into();
                return Ok(Made { socket, endpoint, local, peer: Some(peer), dual: false });
            }
            Err((stage, cause)) => {
                failure.get_or_insert(cause.into_error(CONNECT).at(endpoint).stage(stage));
            }
        }
    }
    Err(failure.unwrap_or_else(|| failed(ErrorKind::NotFound).detail("no address to connect to")))
}

fn connect_to(
    to: SocketAddr,
    from: Option<SocketAddr>,
    options: &SocketOptions,
) -> Step<(Owned, SocketAddr, SocketAddr)> {
    let at = |stage| move |e: io::Error| (stage, Cause::from(e));
    let socket = new_socket(to, false, options, true)?;
    let fd = sys::borrow(&socket);
    if let Some(from) = from {
        SockRef::from(&fd).bind(&from.into()).map_err(at(Stage::Bind))?;
    }
    SockRef::from(&fd).connect(&to.into()).map_err(at(Stage::Connect))?;
    let local = local_of(fd).map_err(at(Stage::Connect))?;
    // To the wildcard is to this machine, and the kernel says which address that is.
    let peer = SockRef::from(&fd).peer_addr().map_err(at(Stage::Connect))?.as_socket();
    Ok((socket, local, peer.unwrap_or(to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(len: usize, port: u16) -> Part {
        Part { len, to: ([127, 0, 0, 1], port).into(), source: Source::default() }
    }

    /// D3: what the kernel would cut otherwise than it was given is not given as one.
    #[test]
    fn runs_are_of_one_length_and_one_address() {
        let lens = |lens: &[usize]| lens.iter().map(|len| part(*len, 1)).collect::<Vec<_>>();
        assert_eq!(runs(&lens(&[9, 9, 9]), true), [3]);
        assert_eq!(runs(&lens(&[9, 9, 9]), false), [1, 1, 1]);
        assert_eq!(runs(&lens(&[9, 9, 4, 9, 4, 4]), true), [3, 2, 1]);
        assert_eq!(runs(&lens(&[4, 9, 0, 9, 0, 0]), true), [1, 1, 1, 1, 1, 1]);
        assert_eq!(runs(&lens(&[60_000, 5_507, 1]), true), [2, 1]);
        assert_eq!(runs(&lens(&[60_000, 5_508]), true), [1, 1]);
        assert_eq!(runs(&[part(9, 1), part(9, 1), part(9, 2), part(9, 1)], true), [2, 1, 1]);
        assert_eq!(runs(&lens(&[1; 64]), true), [64]);
        assert!(runs(&[], true).is_empty());
        let from = Source { interface: 1, ..Source::default() };
        let mixed = [part(9, 1), Part { source: from, ..part(9, 1) }];
        assert_eq!(runs(&mixed, true), [1, 1]);
    }
}
