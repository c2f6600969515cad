//! DatagramSocket: UDP and Unix datagrams, bound or connected.

mod coalesced;
mod groups;
mod making;
mod message;
mod receive;
mod reports;
mod rights;
mod send;
mod serve;
mod settings;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use socket2::SockAddr;

use crate::cancel::CancelToken;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::info::{Address, FiveTuple, Protocol, canonical};
use crate::options::SocketOptions;
use crate::sys::{self, Descriptor, Families, InUse, Interest, Wait};
#[cfg(feature = "capi")]
pub(crate) use crate::sys::{Buffers, Details};
use crate::turn::LOOK;
use crate::unix::{Lent, SocketFile};
use crate::wait::{Cause, Deadline, NO_TIMEOUT, millis, wait, wait_any};
use coalesced::Coalesced;
pub use message::{Datagram, Incoming, Outgoing};
#[cfg(feature = "capi")]
pub(crate) use receive::{Batch, Facts};
pub use reports::DatagramError;
#[cfg(feature = "capi")]
pub(crate) use send::Parts;
pub use serve::DatagramService;
pub use settings::DatagramSnapshot;

/// A datagram socket, UDP or Unix: [bound](DatagramSocket::bind) to a local address, for datagrams
/// from anybody, or [connected](DatagramSocket::connect) to one peer.
///
/// All methods take `&self`, a clone is the same socket, and any number of threads may use it at
/// once: a datagram is sent, and received, as a whole. [`close`](DatagramSocket::close) may come
/// from any of them; the last clone to be dropped closes, too. Unix systems only so far.
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
#[derive(Debug, Clone)]
pub struct DatagramSocket(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    descriptor: Descriptor,
    endpoint: Endpoint,
    side: Side,
    nonblocking: AtomicBool,
    /// Milliseconds, or NO_TIMEOUT.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
    /// Locked while the descriptor's mode is changed, too.
    cancel: Mutex<Option<CancelToken>>,
    /// There is a token, or the platform has no other way: calls wait in poll.
    polled: AtomicBool,
    /// Nothing more is received; sending goes on.
    deaf: AtomicBool,
    /// Of a socket that other processes have, too, or may have: set by a close, and by the end of
    /// receiving. shutdown(2) would end receiving for all of them.
    closing: Option<sys::Event>,
    /// How long equal datagrams may be that are given to the kernel as one: less than those that it
    /// refused.
    longest_segment: AtomicUsize,
    /// The kernel tells more of a datagram than who sent it.
    control: AtomicBool,
    /// What the kernel handed over as one, if it may.
    coalesced: Option<Coalesced>,
    errors: Mutex<VecDeque<DatagramError>>,
    error_count: AtomicU64,
    /// What was known when it was closed, if that was asked for.
    keeps_last: bool,
    last: OnceLock<DatagramSnapshot>,
}

/// What a socket is.
#[derive(Debug)]
enum Side {
    Inet(Inet),
    Unix(Box<Unix>),
}

#[derive(Debug)]
struct Inet {
    local: SocketAddr,
    /// The only address that it receives at, and answers from, if it is one: then datagrams do not
    /// tell.
    own: Option<SocketAddr>,
    answers_from: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    /// What the socket is, and whether it takes IPv4 too if it is an IPv6 one.
    ipv6: bool,
    dual: bool,
    /// It was asked for with port 0.
    any_port: bool,
}

#[derive(Debug)]
struct Unix {
    local: Address,
    peer: Option<UnixPeer>,
    file: Mutex<Option<SocketFile>>,
    /// Who may send here; nobody in particular: everybody.
    users: Vec<u32>,
    /// How many datagrams were of others.
    denied: AtomicU64,
}

#[derive(Debug)]
struct UnixPeer {
    /// As it was asked for; and the same for the kernel, wherever this process goes.
    address: Address,
    name: SockAddr,
    /// As the peer itself was bound, which may be another path to the same file: so its datagrams
    /// have it.
    bound: Mutex<Address>,
}

impl Side {
    fn unix(
        local: Address,
        peer: Option<UnixPeer>,
        file: Option<SocketFile>,
        options: &SocketOptions,
    ) -> Side {
        let (file, users) = (Mutex::new(file), options.users.clone());
        Side::Unix(Box::new(Unix { local, peer, file, users, denied: AtomicU64::new(0) }))
    }
}

impl Inet {
    fn new(local: SocketAddr, peer: Option<SocketAddr>, dual: bool) -> Inet {
        let ipv6 = local.is_ipv6();
        let (local, peer) = (canonical(local), peer.map(canonical));
        let own = Some(local).filter(|own| !own.ip().is_unspecified());
        let answers_from = own.filter(|own| !own.ip().is_multicast());
        Inet { local, own, answers_from, peer, ipv6, dual, any_port: false }
    }

    fn families(&self) -> Families {
        Families { ipv4: !self.ipv6 || self.dual, ipv6: self.ipv6 }
    }
}

impl DatagramSocket {
    /// The socket, if it is one of UDP.
    fn inet(&self, operation: &'static str) -> Result<&Inet> {
        match &self.0.side {
            Side::Inet(inet) => Ok(inet),
            Side::Unix(_) => {
                let error = self.failed(operation, ErrorKind::Unsupported.into(), None);
                Err(error.detail("a Unix socket has none"))
            }
        }
    }

    fn is_connected(&self) -> bool {
        match &self.0.side {
            Side::Inet(inet) => inet.peer.is_some(),
            Side::Unix(unix) => unix.peer.is_some(),
        }
    }

    fn enter(&self, operation: &'static str) -> Result<InUse<'_>> {
        let io = self.0.descriptor.enter();
        io.ok_or_else(|| self.failed(operation, ErrorKind::Closed.into(), None))
    }

    // ---- what it is ----------------------------------------------------------------------

    /// The local endpoint, with the port that the system chose. What was bound to `*` is `*`.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// assert_eq!(socket.endpoint().to_string(), format!("*:{}", socket.port()));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The local port; 0 for a Unix socket.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// assert_ne!(socket.port(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn port(&self) -> u16 {
        match &self.0.side {
            Side::Inet(inet) => inet.local.port(),
            Side::Unix(_) => 0,
        }
    }

    /// Protocol, local and remote address; after close, too. The remote address of a socket that
    /// is not connected is the wildcard with port 0, of a Unix one unnamed.
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
        self.0.five_tuple()
    }

    // ---- waiting -------------------------------------------------------------------------

    fn deadline(&self, timeout: &AtomicU64) -> Deadline {
        match timeout.load(Ordering::Relaxed) {
            NO_TIMEOUT => Deadline(None),
            ms => Deadline::after(Some(Duration::from_millis(ms))),
        }
    }

    /// How a call is to wait: as the socket was told.
    #[inline]
    fn patience(&self, deadline: Deadline) -> Patience {
        let polled = self.0.polled.load(Ordering::Acquire);
        Patience {
            deadline,
            nonblocking: self.0.nonblocking.load(Ordering::Acquire),
            cancel: polled.then(|| self.cancel_token()).flatten(),
            polled,
        }
    }

    /// One call of the kernel. Without limit and token it is the kernel that waits.
    fn step<T>(
        &self,
        io: &InUse<'_>,
        patience: &Patience,
        interest: Interest,
        call: &mut impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        let reads = interest == Interest::Read;
        let is_deaf = || reads && self.0.deaf.load(Ordering::Acquire);
        let is_over = || io.is_closed() || is_deaf();
        let cancel = patience.cancel.as_ref();
        let mut waits = patience.deadline.0.is_none()
            && !patience.nonblocking
            && !patience.polled
            && sys::BLOCKING_CALLS
            // A sender that waits for room in another socket is not woken by a close of its own.
            && (reads || matches!(self.0.side, Side::Inet(_)));
        let mut back_off = send::FULL_PEER;
        let mut was_ready = false;
        loop {
            if cancel.is_some_and(CancelToken::is_fired) {
                return Err(ErrorKind::Cancelled.into());
            }
            if is_deaf() {
                return Err(ErrorKind::Closed.into());
            }
            let result = call(if waits { Wait::Yes } else { Wait::No });
            if io.is_closed() {
                return Err(ErrorKind::Closed.into());
            }
            match result {
                // Also if it is the last thing that is received.
                Ok(done) => return Ok(done),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if patience.nonblocking {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                    // poll says that there is something, and there is not: another one took it, or
                    // somebody has shut the socket down, and poll will not wait any more.
                    if was_ready && reads && is_shut_down(io) {
                        return Err(ErrorKind::Closed.into());
                    }
                    if was_ready && patience.deadline.has_passed() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    // If the kernel was to wait, somebody has made the descriptor non-blocking.
                    waits = false;
                    if !reads && self.polls_in_vain() {
                        let pause = Deadline::after(Some(back_off.next()));
                        wait(None, patience.deadline.earlier(pause), cancel, is_over)?;
                        if patience.deadline.has_passed() {
                            return Err(ErrorKind::TimedOut.into());
                        }
                        continue;
                    }
                    was_ready = true;
                    if let Some(closing) = &self.0.closing {
                        self.wait_shared(io, closing, patience, interest, is_over)?;
                        continue;
                    }
                    let socket = Some((io.socket(), interest));
                    let ready = wait(socket, patience.deadline, cancel, is_over)?;
                    if ready.error {
                        self.take_reported(io);
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits for a socket that may have other processes.
    #[cold]
    fn wait_shared(
        &self,
        io: &InUse<'_>,
        closing: &sys::Event,
        patience: &Patience,
        interest: Interest,
        is_over: impl Fn() -> bool,
    ) -> std::result::Result<(), Cause> {
        // The event stays set when receiving has ended, and who sends then looks up instead.
        let heard = interest == Interest::Read || !self.0.deaf.load(Ordering::Acquire);
        let look = Deadline::after((!heard).then_some(LOOK));
        let events = (patience.cancel.as_ref(), heard.then_some(closing));
        let until = patience.deadline.earlier(look);
        let is_deaf = || heard && self.0.deaf.load(Ordering::Acquire);
        match wait_any(&[io.socket()], interest, until, events, || is_over() || is_deaf()) {
            // Receiving has ended while this call waits to send.
            Err(cause) if cause.kind() == ErrorKind::Closed && !is_over() => {}
            Err(cause) if cause.kind() != ErrorKind::TimedOut => return Err(cause),
            Err(cause) if patience.deadline.has_passed() => return Err(cause),
            _ => {}
        }
        self.take_reported(io);
        Ok(())
    }

    /// The file of a Unix socket, while the socket is handed over.
    pub(crate) fn lend_file(&self) -> Option<Lent<'_>> {
        match &self.0.side {
            Side::Inet(_) => None,
            Side::Unix(unix) => Some(Lent::new(&unix.file, &self.0.descriptor)),
        }
    }

    pub(crate) fn has_any_port(&self) -> bool {
        matches!(&self.0.side, Side::Inet(inet) if inet.any_port)
    }

    /// Whether other processes may have it, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.closing.is_some()
    }

    /// Whether poll would say that a Unix socket is writable, though the receiver's queue is full:
    /// it looks at the peer of a connected socket only (unix_dgram_poll of net/unix/af_unix.c).
    fn polls_in_vain(&self) -> bool {
        matches!(&self.0.side, Side::Unix(unix) if unix.peer.is_none())
    }

    /// The error of a call.
    #[cold]
    fn failed(&self, operation: &'static str, cause: Cause, to: Option<&Address>) -> Error {
        let error = match cause {
            Cause::Os(e) if sys::is_too_long(&e) => {
                Error::new(ErrorKind::TooLong, operation).with_os_error(e.raw_os_error())
            }
            cause => cause.into_error(operation),
        };
        match to.cloned().or_else(|| self.0.peer()) {
            Some(remote) => error.at(self.0.tuple_to(remote)),
            None => error.at(&self.0.endpoint),
        }
    }
}

/// Whether nothing will be received any more.
#[cold]
fn is_shut_down(io: &InUse<'_>) -> bool {
    let hangup = Some((io.socket(), Interest::Hangup));
    sys::poll(hangup, None, Some(Duration::ZERO)).is_ok_and(|ready| ready.socket && !ready.error)
}

/// How a call waits.
struct Patience {
    deadline: Deadline,
    nonblocking: bool,
    cancel: Option<CancelToken>,
    polled: bool,
}

impl Shared {
    fn peer(&self) -> Option<Address> {
        match &self.side {
            Side::Inet(inet) => inet.peer.map(Address::Inet),
            Side::Unix(unix) => unix.peer.as_ref().map(|peer| peer.address.clone()),
        }
    }

    fn five_tuple(&self) -> FiveTuple {
        let anybody = match &self.side {
            Side::Inet(Inet { local: SocketAddr::V4(_), .. }) => {
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0).into()
            }
            Side::Inet(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0).into(),
            Side::Unix(_) => Address::UnixUnnamed,
        };
        self.tuple_to(self.peer().unwrap_or(anybody))
    }

    fn tuple_to(&self, remote: Address) -> FiveTuple {
        let (protocol, local) = match &self.side {
            Side::Inet(inet) => (Protocol::Udp, Address::Inet(inet.local)),
            Side::Unix(unix) => (Protocol::UnixDatagram, unix.local.clone()),
        };
        FiveTuple { protocol, local, remote }
    }

    fn close(&self) {
        if let Some(io) = self.descriptor.enter() {
            if self.keeps_last && !self.descriptor.is_closed() {
                let _ = self.last.set(self.look(&io));
            }
            if self.descriptor.close(&io) {
                if let Side::Unix(unix) = &self.side {
                    // The file first, as a listener's: who finds it must find somebody there.
                    drop(unix.file.lock().unwrap_or_else(PoisonError::into_inner).take());
                }
                match &self.closing {
                    Some(closing) => closing.set(),
                    // On Linux that wakes those who wait, though there be no connection (ENOTCONN).
                    None => sys::wake(io.socket()),
                }
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}
