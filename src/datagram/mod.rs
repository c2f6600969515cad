//! DatagramSocket: UDP and Unix datagrams, bound or connected.

mod config;
mod construct;
mod error_queue;
mod gro;
mod message;
mod multicast;
pub(crate) mod recv;
mod scm_rights;
pub(crate) mod send;
#[cfg(feature = "serve")]
mod serve;

use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use crate::sys::SockRef;
use socket2::SockAddr;

use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::io::lock::POLL_INTERVAL;
use crate::io::timeout::TimeoutCell;
use crate::io::token_slot::TokenSlot;
use crate::io::wait::{Cause, Stop, wait, wait_any};
use crate::log::ReceiveRetries;
use crate::options::SocketOptions;
#[cfg(feature = "activation")]
use crate::socket_file::SharedFile;
use crate::socket_file::SocketFile;
use crate::sys::{self, Borrowed, Descriptor, Families, InUse, Interest, Wait};
use crate::types::address::{Address, FiveTuple, Protocol, canonical};
use crate::types::endpoint::Endpoint;
use crate::types::error::{Error, ErrorKind, Result};
pub use config::DatagramStats;
pub use error_queue::DatagramError;
use gro::Coalesced;
pub use message::{Datagram, Incoming, Outgoing};
#[cfg(feature = "serve")]
pub use serve::DatagramService;

/// A datagram socket, UDP or Unix: [bound](DatagramSocket::bind) to a local address, to receive
/// from any sender, or [connected](DatagramSocket::connect) to one peer.
///
/// All methods take `&self`, clones share one socket, and any number of threads may use it at once.
/// Each datagram is sent and received as a whole. Any thread may [`close`](DatagramSocket::close)
/// the socket; dropping the last clone closes it as well. Unix sockets: not
/// on Windows.
///
/// ```
/// use keepsock::DatagramSocket;
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
    read_timeout: TimeoutCell,
    write_timeout: TimeoutCell,
    /// Also locked while the mode of the descriptor changes.
    cancel: Arc<TokenSlot>,
    /// The socket has a token, or the platform requires it: calls wait in poll.
    polled: AtomicBool,
    /// A receive fails when the peer refuses a datagram.
    fails_on_refused: AtomicBool,
    /// The number of the system's error of a refused datagram that no receive has returned; 0: none.
    refused: AtomicI32,
    /// Receiving has ended; sending continues.
    deaf: AtomicBool,
    /// Set by a close, and when receiving ends. Only for a socket that other processes share or may
    /// share, for which shutdown(2) would end receiving in all of them, and where the system cannot shut
    /// down a socket without a peer.
    closing: Option<sys::Event>,
    /// Other processes share or may share the socket.
    #[cfg(feature = "activation")]
    is_shared: bool,
    /// The maximum total length of datagrams that are passed to the kernel as one run. It shrinks when
    /// the kernel rejects a run.
    longest_segment: AtomicUsize,
    /// The size of the control buffer of a datagram; 0: the kernel reports the sender only.
    control: AtomicUsize,
    /// Coalesced datagrams that the program has not received yet, if coalescing is on.
    coalesced: Option<Coalesced>,
    errors: Mutex<VecDeque<DatagramError>>,
    error_count: AtomicU64,
    /// The number of retries of receiving after a transient error.
    retried: AtomicU64,
    /// The number of datagrams that services have received.
    served: AtomicU64,
    retries: ReceiveRetries,
    /// The last statistics, kept at the close if that was requested.
    keeps_last: bool,
    last: OnceLock<DatagramStats>,
}

/// The addresses and the kind of a socket.
#[derive(Debug)]
enum Side {
    Inet(Inet),
    Unix(Box<Unix>),
}

#[derive(Debug)]
struct Inet {
    local: SocketAddr,
    /// The only address at which the socket receives and from which it replies, if there is one. The
    /// kernel then does not need to report the destination of each datagram.
    own: Option<SocketAddr>,
    answers_from: Option<SocketAddr>,
    /// Empty: the socket is not connected. A bound socket may become connected.
    connected: OnceLock<Connected>,
    /// Interfaces that datagrams were sent with, so that they exist. The place of an interface is the
    /// remainder of its index.
    interfaces: [AtomicU32; 8],
    /// The kind, and whether an IPv6 socket also receives IPv4.
    ipv6: bool,
    dual: bool,
    /// The program bound to port 0.
    #[cfg_attr(
        not(feature = "activation"),
        expect(dead_code, reason = "only a handover reads it")
    )]
    ephemeral_port: bool,
}

/// The addresses of a connected UDP socket.
#[derive(Debug)]
struct Connected {
    local: SocketAddr,
    peer: SocketAddr,
}

#[derive(Debug)]
struct Unix {
    local: Address,
    /// Empty: the socket is not connected. A bound socket may become connected.
    peer: OnceLock<UnixPeer>,
    file: Mutex<Option<SocketFile>>,
    /// The users that may send to this socket; empty: all users.
    users: Vec<u32>,
    /// Each datagram reports its time and the sender's credentials.
    details: AtomicBool,
    /// The number of datagrams from users that may not send.
    denied: AtomicU64,
}

#[derive(Debug)]
struct UnixPeer {
    /// The name that the program gave, and the name for the kernel, which does not depend on the
    /// working directory.
    address: Address,
    name: SockAddr,
    /// The name that the peer itself is bound to, which may be another path to the same file. Its
    /// datagrams carry this name.
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
        let peer = peer.map_or_else(OnceLock::new, OnceLock::from);
        let (details, denied) = (AtomicBool::new(false), AtomicU64::new(0));
        Side::Unix(Box::new(Unix { local, peer, file, users, details, denied }))
    }
}

impl Inet {
    fn new(local: SocketAddr, peer: Option<SocketAddr>, dual: bool) -> Inet {
        let ipv6 = local.is_ipv6();
        let local = canonical(local);
        let connected = OnceLock::new();
        if let Some(peer) = peer.map(canonical) {
            let _ = connected.set(Connected { local, peer });
        }
        let own = Some(local).filter(|own| !own.ip().is_unspecified());
        let answers_from = own.filter(|own| !own.ip().is_multicast());
        let interfaces = std::array::from_fn(|_| AtomicU32::new(0));
        Inet { local, own, answers_from, connected, interfaces, ipv6, dual, ephemeral_port: false }
    }

    #[inline]
    fn peer(&self) -> Option<SocketAddr> {
        self.connected.get().map(|connected| connected.peer)
    }

    fn families(&self) -> Families {
        match (self.ipv6, self.dual) {
            (false, _) => Families::Ipv4,
            (true, false) => Families::Ipv6,
            (true, true) => Families::Both,
        }
    }
}

impl DatagramSocket {
    /// Returns the socket if it is a UDP socket.
    fn inet(&self, operation: &'static str) -> Result<&Inet> {
        match &self.0.side {
            Side::Inet(inet) => Ok(inet),
            Side::Unix(_) => {
                let error = self.failed(operation, ErrorKind::Unsupported.into(), None);
                Err(error.detail("only UDP sockets support this operation"))
            }
        }
    }

    /// The peer of a connected UDP socket.
    fn inet_peer(&self) -> Option<SocketAddr> {
        match &self.0.side {
            Side::Inet(inet) => inet.peer(),
            Side::Unix(_) => None,
        }
    }

    fn is_connected(&self) -> bool {
        match &self.0.side {
            Side::Inet(inet) => inet.peer().is_some(),
            Side::Unix(unix) => unix.peer.get().is_some(),
        }
    }

    fn enter(&self, operation: &'static str) -> Result<InUse<'_>> {
        let io = self.0.descriptor.enter();
        io.ok_or_else(|| self.failed(operation, ErrorKind::Closed.into(), None))
    }

    // ---- addresses -----------------------------------------------------------------------

    /// Returns the local endpoint, with the port that the kernel chose. A socket bound to `*` returns
    /// `*`.
    ///
    /// ```
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// assert_eq!(socket.endpoint().to_string(), format!("*:{}", socket.port()));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Returns the local port; 0 for a Unix socket.
    ///
    /// ```
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

    /// Returns the protocol, and the local and remote address. They stay readable after close. The
    /// remote address of a socket that is not connected is the wildcard address with port 0; that of an
    /// unconnected Unix socket is unnamed.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
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

    /// Returns the way to wait for a call with this deadline.
    #[inline]
    fn wait_mode(&self, deadline: Deadline) -> WaitMode {
        let polled = self.0.polled.load(Ordering::Acquire);
        let nonblocking = self.0.nonblocking.load(Ordering::Acquire);
        WaitMode {
            deadline,
            nonblocking,
            cancel: polled.then(|| self.0.cancel.token()).flatten(),
            polled,
            in_kernel: Cell::new(deadline.0.is_none() && !nonblocking && !polled),
            serves: false,
        }
    }

    /// Returns the way to wait for a receive with the read timeout of the socket.
    #[inline(always)]
    fn receive_mode(&self) -> WaitMode {
        if self.0.nonblocking.load(Ordering::Acquire) {
            return self.wait_mode(Deadline(None));
        }
        let timeout = self.0.read_timeout.get();
        let mode = self.wait_mode(Deadline::after(timeout));
        if !mode.polled && timeout.and_then(kernel_part).is_some() {
            mode.in_kernel.set(true);
        }
        mode
    }

    /// Makes one system call, and waits in the kernel or in poll. A receive that does not wait in the
    /// kernel polls first: two system calls, instead of three if it tried first.
    fn step<T>(
        &self,
        io: &InUse<'_>,
        mode: &WaitMode,
        interest: Interest,
        call: &mut impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        let reads = interest == Interest::Read;
        let is_deaf = || reads && self.0.deaf.load(Ordering::Acquire);
        let is_over = || io.is_closed() || is_deaf();
        let cancel = mode.cancel.as_ref();
        let mut waits = mode.in_kernel.get()
            // Closing this socket does not wake a sender that waits for space in another socket.
            && (reads || matches!(self.0.side, Side::Inet(_)));
        let mut polls = reads && !waits && !mode.nonblocking;
        let mut backoff = send::FULL_PEER;
        let mut was_ready = false;
        // The first call is not a cancellation point. A wait is one.
        let mut disabled = None;
        loop {
            if cancel.is_some_and(CancelToken::is_fired) {
                return Err(ErrorKind::Cancelled.into());
            }
            if is_deaf() {
                return Err(ErrorKind::Closed.into());
            }
            if reads && !mode.serves {
                self.take_refusal()?;
            }
            if polls {
                disabled.get_or_insert_with(sys::CancellationDisabled::new);
                self.wait_ready(io, mode, interest, is_over)?;
                (polls, was_ready) = (false, true);
                continue;
            }
            let result = call(if waits { Wait::Yes } else { Wait::No });
            if waits && mode.deadline.0.is_some() {
                // The kernel's timer has run. Another system call would start it again.
                waits = false;
                mode.in_kernel.set(false);
            }
            if io.is_closed() {
                return Err(ErrorKind::Closed.into());
            }
            match result {
                // The result counts even if receiving has ended since.
                Ok(done) => return Ok(done),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if mode.nonblocking {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                    disabled.get_or_insert_with(sys::CancellationDisabled::new);
                    // poll reported a datagram, but the receive found none: another thread took it, or
                    // another process shut the socket down, and poll no longer waits.
                    if was_ready && reads && is_shut_down(io) {
                        return Err(ErrorKind::Closed.into());
                    }
                    if was_ready && mode.deadline.has_passed() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    // The kernel should have waited: the program made the descriptor non-blocking.
                    waits = false;
                    if !reads && self.polls_in_vain() {
                        let pause = Deadline::after(Some(backoff.next()));
                        wait(None, mode.deadline.earlier(pause), cancel, is_over)?;
                        if mode.deadline.has_passed() {
                            return Err(ErrorKind::TimedOut.into());
                        }
                        continue;
                    }
                    if was_ready && self.0.closing.is_some() {
                        self.take_reported(io);
                    }
                    was_ready = true;
                    self.wait_ready(io, mode, interest, is_over)?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits in poll until a system call may succeed.
    #[cold]
    fn wait_ready(
        &self,
        io: &InUse<'_>,
        mode: &WaitMode,
        interest: Interest,
        is_over: impl Fn() -> bool,
    ) -> std::result::Result<(), Cause> {
        if let Some(closing) = &self.0.closing {
            return self.wait_with_event(io, closing, mode, interest, is_over);
        }
        let socket = Some((io.socket(), interest));
        let ready = wait(socket, mode.deadline, mode.cancel.as_ref(), is_over)?;
        if ready.error {
            self.take_reported(io);
        }
        Ok(())
    }

    /// Waits on a socket whose close sets an event. Poll does not report here whether the kernel's
    /// error queue has an entry. The caller looks if the system call then finds nothing.
    #[cold]
    fn wait_with_event(
        &self,
        io: &InUse<'_>,
        closing: &sys::Event,
        mode: &WaitMode,
        interest: Interest,
        is_over: impl Fn() -> bool,
    ) -> std::result::Result<(), Cause> {
        // The event stays set after receiving has ended, and is the parent's in a forked child. A call
        // that must not end then checks periodically.
        let ends = interest == Interest::Read || !self.0.deaf.load(Ordering::Acquire);
        let heard = ends && !self.0.descriptor.is_inherited();
        let look = Deadline::after((!heard).then_some(POLL_INTERVAL));
        let events = (mode.cancel.as_ref(), heard.then_some(closing));
        let until = mode.deadline.earlier(look);
        let is_deaf = || ends && self.0.deaf.load(Ordering::Acquire);
        match wait_any(&[io.socket()], interest, until, events, || is_over() || is_deaf()) {
            // Receiving has ended while this call waits to send.
            Err(cause) if cause.kind() == ErrorKind::Closed && !is_over() => Ok(()),
            Err(cause) if cause.kind() != ErrorKind::TimedOut => Err(cause),
            Err(cause) if mode.deadline.has_passed() => Err(cause),
            _ => Ok(()),
        }
    }

    /// The file of a Unix socket, locked for a handover.
    #[cfg(feature = "activation")]
    pub(crate) fn lend_file(&self) -> Option<SharedFile<'_>> {
        match &self.0.side {
            Side::Inet(_) => None,
            Side::Unix(unix) => Some(SharedFile::new(&unix.file, &self.0.descriptor)),
        }
    }

    #[cfg(feature = "activation")]
    pub(crate) fn has_ephemeral_port(&self) -> bool {
        matches!(&self.0.side, Side::Inet(inet) if inet.ephemeral_port)
    }

    /// Whether other processes may share the socket.
    #[cfg(feature = "activation")]
    pub(crate) fn is_shared(&self) -> bool {
        self.0.is_shared
    }

    /// Whether poll may report a Unix socket as writable although the receiver's queue is full: poll
    /// checks only the peer of a connected socket (unix_dgram_poll of net/unix/af_unix.c).
    fn polls_in_vain(&self) -> bool {
        matches!(&self.0.side, Side::Unix(unix) if unix.peer.get().is_none())
    }

    /// Converts the cause of a stop to an error.
    #[cold]
    pub(crate) fn stopped(&self, operation: &'static str, stop: Stop) -> Error {
        match stop {
            Stop::WouldBlock(_) => self.failed(operation, ErrorKind::WouldBlock.into(), None),
            Stop::Failed(error) => error,
        }
    }

    /// Converts the error of a system call.
    #[cold]
    fn failed(&self, operation: &'static str, cause: Cause, to: Option<&Address>) -> Error {
        let remote = to.cloned().or_else(|| self.0.peer());
        let is_discarded = |e: &io::Error| match &remote {
            Some(Address::Inet(to)) if operation == send::SEND => {
                sys::is_datagram_discarded(e, *to)
            }
            _ => false,
        };
        let error = match cause {
            Cause::Os(e) if sys::is_too_long(&e) => {
                Error::new(ErrorKind::TooLong, operation).with_os_error(e.raw_os_error())
            }
            Cause::Os(e) if is_discarded(&e) => Cause::discarded(&e).into_error(operation),
            Cause::Os(e) if sys::is_access_denied(&e) && self.may_not_broadcast(&remote) => {
                let error = Error::new(ErrorKind::PermissionDenied, operation);
                let what = "a broadcast address requires set_broadcast";
                error.with_os_error(e.raw_os_error()).detail(what)
            }
            cause => cause.into_error(operation),
        };
        match remote {
            Some(remote) => error.on(self.0.tuple_to(remote)),
            None => error.on(self.0.endpoint.clone()),
        }
    }
}

impl DatagramSocket {
    /// Whether the socket may not send to a broadcast address, and the address may be one.
    fn may_not_broadcast(&self, to: &Option<Address>) -> bool {
        let io = self.0.descriptor.enter();
        matches!(to, Some(Address::Inet(to)) if to.is_ipv4())
            && io.is_some_and(|io| SockRef::from(&io.socket()).broadcast().is_ok_and(|on| !on))
    }
}

/// Whether receiving has ended.
#[cold]
fn is_shut_down(io: &InUse<'_>) -> bool {
    let hangup = Some((io.socket(), Interest::Hangup));
    sys::poll(hangup, None, Some(Duration::ZERO)).is_ok_and(|ready| ready.socket && !ready.error)
}

/// Whether calls wait in poll, on a socket with this token and this event.
fn must_poll(token: Option<&CancelToken>, closing: Option<&sys::Event>) -> bool {
    token.is_some() || closing.is_some() || !sys::BLOCKING_CALLS
}

/// Receives with a shorter timeout wait in poll.
const SHORT: Duration = Duration::from_millis(50);

/// The part of a read timeout that the kernel measures (SO_RCVTIMEO), in which most datagrams arrive.
/// The kernel's timer expires late, by an eighth of its time and two clock ticks of 10 ms at most
/// (kernel/time/timer.c). So a call waits for the rest of the time in poll.
fn kernel_part(timeout: Duration) -> Option<Duration> {
    let part = timeout - timeout / 8;
    (sys::BLOCKING_CALLS && timeout >= SHORT).then(|| part - Duration::from_millis(20))
}

/// How a call waits.
struct WaitMode {
    deadline: Deadline,
    nonblocking: bool,
    cancel: Option<CancelToken>,
    polled: bool,
    /// The kernel waits, and its timer has not run yet for this call.
    in_kernel: Cell<bool>,
    /// The call belongs to a service: only an error that retrying cannot cure ends it.
    serves: bool,
}

impl Shared {
    /// Sets SO_RCVTIMEO to the part of the read timeout that the kernel measures. Processes that share
    /// the socket would share the option.
    fn set_kernel_timeout(
        &self,
        socket: Borrowed<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let (before, after) = (self.read_timeout.get(), timeout);
        let (before, after) = (before.and_then(kernel_part), after.and_then(kernel_part));
        if before == after || self.closing.is_some() {
            return Ok(());
        }
        SockRef::from(&socket).set_read_timeout(after)
    }

    fn peer(&self) -> Option<Address> {
        match &self.side {
            Side::Inet(inet) => inet.peer().map(Address::Inet),
            Side::Unix(unix) => unix.peer.get().map(|peer| peer.address.clone()),
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
            Side::Inet(inet) => {
                let local = inet.connected.get().map_or(inet.local, |connected| connected.local);
                (Protocol::Udp, Address::Inet(local))
            }
            Side::Unix(unix) => (Protocol::UnixDatagram, unix.local.clone()),
        };
        FiveTuple { protocol, local, remote }
    }

    fn close(&self) {
        if let Some(io) = self.descriptor.enter() {
            if self.keeps_last && !self.descriptor.is_closed() {
                let _ = self.last.set(self.look(&io));
            }
            if self.descriptor.is_inherited() {
                // The file is the parent's, and shutdown(2) and the event would end the parent's calls.
                if let Side::Unix(unix) = &self.side {
                    let file = sys::fork::lock_inherited(&unix.file).and_then(|mut f| f.take());
                    file.into_iter().for_each(SocketFile::keep);
                }
                self.descriptor.close(&io);
                return;
            }
            if self.descriptor.close(&io) {
                if let Side::Unix(unix) = &self.side {
                    // The file first, as for a listener: a process that finds the file must find a receiver.
                    drop(unix.file.lock().unwrap_or_else(PoisonError::into_inner).take());
                }
                match &self.closing {
                    Some(closing) => closing.set(),
                    // On Linux this wakes waiting calls even without a connection (ENOTCONN).
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
