//! Sending datagrams one by one, and in batches that the kernel accepts as few.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::PoisonError;
use std::time::Duration;

use crate::sys::SockRef;
use socket2::SockAddr;

use super::{Datagram, DatagramSocket, Inet, Outgoing, Side, Unix};
use crate::io::backoff::BackOff;
use crate::io::deadline::Deadline;
use crate::io::wait::Cause;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Descriptor, InUse, Interest, MAX_BATCH, Run, Source, Wait};
use crate::types::address::{Address, AddressUse, Unusable, canonical, lacks_zone};
use crate::types::endpoint::{UNIX_ABSTRACT_MAX, UNIX_PATH_MAX};
use crate::types::error::{About, Bytes, Error, ErrorKind, Grouped, Result};

pub(super) const SEND: &str = "send";

/// RFC 768: the length with the UDP header has 16 bits. Over IPv4 it includes the IP header.
const MAX_V4: usize = 65_535 - 8 - 20;
const MAX_V6: usize = 65_535 - 8;

fn max_len(to: SocketAddr) -> (usize, &'static str) {
    if to.is_ipv4() { (MAX_V4, "IPv4") } else { (MAX_V6, "IPv6") }
}

/// The interval at which a sender checks for space in its receiver, if nothing wakes it.
pub(super) const FULL_PEER: BackOff =
    BackOff::new(Duration::from_millis(1), Duration::from_millis(20));

/// Other systems reject a source address, and so an interface, for a socket that is bound to an address.
const LINUX: bool = cfg!(keepsock_linux);

/// The maximum number of tries of a datagram whose sends return errors of earlier datagrams.
const TRIES: u32 = 1000;

/// After this number of consecutive errors without an entry in the error queue, the error belongs to
/// this datagram: another thread may have taken an entry.
pub(super) const UNEXPLAINED: u32 = 16;

/// The datagrams of a batch, in the form of Rust callers and of C callers.
pub(crate) trait Parts {
    fn count(&self) -> usize;
    fn bytes(&self, at: usize) -> Result<&[u8]>;
    /// Whether two datagrams have the same destination and source.
    fn are_alike(&self, a: usize, b: usize) -> bool;
    fn outgoing(&self, at: usize) -> Result<Outgoing<'_>>;
}

impl Parts for [Outgoing<'_>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn bytes(&self, at: usize) -> Result<&[u8]> {
        Ok(self[at].bytes)
    }

    fn are_alike(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self[a], &self[b]);
        (&a.to, a.local, a.interface) == (&b.to, b.local, b.interface)
    }

    fn outgoing(&self, at: usize) -> Result<Outgoing<'_>> {
        Ok(self[at].clone())
    }
}

/// Returns how many datagrams from `from` on, with the lengths `pieces`, the kernel can accept as one
/// run: they have one length, except the last, which may be shorter; one destination and one source;
/// and together they are not longer than a datagram. Datagrams longer than `longest` are sent one by
/// one.
fn run_len<P: Parts + ?Sized>(
    parts: &P,
    from: usize,
    pieces: &[IoSlice<'_>],
    longest: usize,
) -> usize {
    let [first, others @ ..] = pieces else {
        return 0;
    };
    let (mut len, mut bytes) = (1, first.len());
    for next in others.iter().take_while(|_| first.len() <= longest) {
        let fits = (1..=first.len()).contains(&next.len())
            && bytes + next.len() <= MAX_V4
            && len < MAX_BATCH
            && parts.are_alike(from, from + len);
        if !fits {
            break;
        }
        (len, bytes) = (len + 1, bytes + next.len());
        if next.len() < first.len() {
            break;
        }
    }
    len
}

impl Inet {
    /// The source address of a datagram. A socket with an address of its own needs none, except with an
    /// interface.
    fn source_of(&self, to: IpAddr, local: Option<SocketAddr>, interface: Option<u32>) -> Source {
        let needs_interface = match to {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => true,
            to => to.is_multicast(),
        };
        let has_own = match LINUX {
            // The kernel chooses the source address of a socket that is bound to a group.
            true => self.answers_from.is_some() && !(needs_interface && interface.is_some()),
            false => !self.local.ip().is_unspecified(),
        };
        if has_own {
            return Source::default();
        }
        let ip = self.answers_from.or(local).map(|local| local.ip().to_canonical());
        // A link-local address is complete only with its interface (RFC 4007).
        let on_link = match ip {
            _ if to.is_multicast() => true,
            Some(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
            Some(IpAddr::V4(_)) => false,
            None => true,
        };
        let interface = interface.filter(|_| on_link).unwrap_or(0);
        let mapped = to.is_ipv4() && self.ipv6 && (ip.is_some() || interface != 0);
        Source { ip, interface, mapped }
    }

    /// Why a datagram cannot be sent from this address and interface.
    #[cold]
    fn source_refusal(&self, one: &Outgoing<'_>, descriptor: &Descriptor) -> Option<String> {
        if let Some(local) = one.local {
            let ip = local.ip().to_canonical();
            let to = match &one.to {
                Some(Address::Inet(to)) => Some(canonical(*to)),
                _ => self.peer(),
            };
            if let Some(to) = to.filter(|to| to.is_ipv4() != ip.is_ipv4()) {
                return Some(format!("local {ip}: the destination {to} has another IP version"));
            }
            let own = self.answers_from.map(|own| own.ip());
            // A socket with a broadcast address sends from the address of the interface.
            if let Some(own) = own.filter(|own| *own != ip && !sys::is_broadcast(*own)) {
                return Some(format!("local {ip}: the socket is bound to {own}"));
            }
        }
        let index = one.interface.filter(|index| *index != 0)?;
        let known = &self.interfaces[index as usize % self.interfaces.len()];
        if known.load(Ordering::Relaxed) == index {
            return None;
        }
        let exists = descriptor.enter().is_none_or(|io| sys::has_interface(io.socket(), index));
        if exists {
            known.store(index, Ordering::Relaxed);
            return None;
        }
        Some(format!("interface {index} does not exist"))
    }

    /// Why a datagram of this length cannot be sent to the address.
    pub(super) fn refusal(&self, len: usize, to: SocketAddr) -> Option<(ErrorKind, String)> {
        if let Some(peer) = self.peer() {
            if (peer.ip(), peer.port()) != (to.ip(), to.port()) {
                let what =
                    format!("the socket is connected to {peer}, and can send to this peer only");
                return Some((ErrorKind::WrongState, what));
            }
        }
        if let Some(why) = AddressUse::DatagramPeer.rejects(to) {
            return Some((ErrorKind::InvalidEndpoint, why.describe(to.ip())));
        }
        if to.is_ipv6() != self.ipv6 && !(self.dual && to.is_ipv4()) {
            let family = if self.ipv6 { "IPv6" } else { "IPv4" };
            return Some((
                ErrorKind::InvalidArgument,
                format!("the socket supports {family} only: use a socket of the other family"),
            ));
        }
        let (max, family) = max_len(to);
        (len > max).then(|| {
            let (len, max) = (Grouped(len), Grouped(max));
            let what = format!("the datagram has {len} bytes, and {family} carries at most {max}");
            (ErrorKind::TooLong, what)
        })
    }

    /// Converts an address to the form that the kernel expects for this socket.
    pub(super) fn name_of(&self, to: SocketAddr) -> SockAddr {
        match to {
            SocketAddr::V4(v4) if self.ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            to => to.into(),
        }
    }
}

impl Unix {
    /// Connects again. The kernel ends the connection when the receiver closes (ECONNREFUSED, then
    /// ENOTCONN), although another socket may have been bound to the name since.
    fn finds_peer_again(&self, io: &InUse<'_>) -> bool {
        let _disabled = sys::CancellationDisabled::new();
        let socket = io.socket();
        let socket = SockRef::from(&socket);
        let Some(peer) = self.peer.get().filter(|peer| socket.connect(&peer.name).is_ok()) else {
            return false;
        };
        if let Ok(name) = socket.peer_addr() {
            *peer.bound.lock().unwrap_or_else(PoisonError::into_inner) = sys::to_address(&name);
        }
        true
    }

    /// Why the socket cannot send to the address.
    pub(super) fn refusal(&self, to: &Address) -> Option<(ErrorKind, String)> {
        match self.peer.get() {
            // The peer may have no name.
            Some(peer) if peer.address == *to => return None,
            Some(peer) => {
                let what = format!(
                    "the socket is connected to {}, and can send to this peer only",
                    peer.address
                );
                return Some((ErrorKind::WrongState, what));
            }
            None => {}
        }
        let (len, what, max) = match to {
            Address::UnixPath(path) => (path.as_os_str().len(), "path", UNIX_PATH_MAX),
            Address::UnixAbstract(name) => (name.len(), "abstract name", UNIX_ABSTRACT_MAX),
            _ => {
                let what =
                    "the receiver is not bound to a name, so no datagram can reach it".to_owned();
                return Some((ErrorKind::InvalidArgument, what));
            }
        };
        (!(1..=max).contains(&len)).then(|| {
            let what = format!("the {what} has {}: its length must be 1 to {max}", Bytes(len));
            (ErrorKind::InvalidEndpoint, what)
        })
    }
}

/// Whether a Unix peer's socket was closed.
fn is_gone(err: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, NotConnected};
    // EPIPE: the peer exists, but has shut down receiving.
    matches!(err.kind(), ConnectionRefused | NotConnected | BrokenPipe)
}

fn if_gone(cause: Cause) -> Cause {
    match cause {
        Cause::Os(e) if is_gone(&e) => ErrorKind::Refused.into(),
        other => other,
    }
}

impl DatagramSocket {
    /// Sends one datagram to the peer of a [connected](DatagramSocket::connect) socket.
    ///
    /// Waits only while the send buffer, or the queue of a Unix peer, is full. An empty datagram is
    /// valid. The maximum is 65,507 bytes over IPv4, 65,527 over IPv6, and over Unix sockets the size of
    /// the send buffer (unix(7)).
    ///
    /// ICMP errors of earlier datagrams do not end the call: they are
    /// [reported](DatagramSocket::recv_error), and sending is retried. When a Unix peer closes, the
    /// replies that it sent and that this socket has not received are lost. Sending works again as soon as a socket is bound
    /// to the peer's name.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): the socket is not connected
    /// - [`TooLong`](ErrorKind::TooLong): the datagram exceeds the protocol's maximum or, without
    ///   fragmentation, the path MTU
    /// - [`TimedOut`](ErrorKind::TimedOut): no space within the write timeout
    /// - [`WouldBlock`](ErrorKind::WouldBlock): non-blocking mode, and no space
    /// - [`Cancelled`](ErrorKind::Cancelled): the token was fired
    /// - [`Closed`](ErrorKind::Closed): the socket was closed
    /// - [`Refused`](ErrorKind::Refused): the Unix peer was closed, or has shut down receiving
    /// - [`Unreachable`](ErrorKind::Unreachable): there is no route to the peer
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): local policy forbids the destination, or it is
    ///   a broadcast address without [`set_broadcast`](DatagramSocket::set_broadcast)
    /// - [`NoMemory`](ErrorKind::NoMemory): the kernel lacks memory, or the interface's queue is full
    ///   (Linux reports that only with [`set_recv_errors`](DatagramSocket::set_recv_errors))
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// # let client = DatagramSocket::connect(server.endpoint())?;
    /// client.send(b"question")?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send(&self, buf: &[u8]) -> Result<()> {
        let connected = match &self.0.side {
            Side::Inet(inet) => inet.peer().is_some_and(|peer| buf.len() <= max_len(peer).0),
            Side::Unix(unix) => unix.peer.get().is_some(),
        };
        if !connected {
            return self.send_one(&Outgoing::new(buf));
        }
        let io = self.enter(SEND)?;
        let call = |wait| sys::send(io.socket(), buf, wait).map(drop);
        self.send_step(&io, self.0.write_timeout.deadline(), call)
            .map_err(|cause| self.failed(SEND, cause, None))
    }

    /// Sends one datagram to an address.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): the socket is connected to another address
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an address of a family that the socket does not
    ///   have, or a Unix address without a name
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): no destination (`0.0.0.0`, `[::]`, port 0), or a
    ///   link-local address without a zone
    ///
    /// Otherwise the errors that [`send`](DatagramSocket::send) lists.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # use std::net::SocketAddr;
    /// # let other = DatagramSocket::bind("127.0.0.1:0")?;
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.send_to(b"hello", SocketAddr::from(([127, 0, 0, 1], other.port())))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_to(&self, buf: &[u8], to: impl Into<Address>) -> Result<()> {
        self.send_one(&Outgoing::to(buf, to))
    }

    /// Replies to a datagram: sends to its sender, from the address that it was sent to. The sender
    /// expects that source address, also if this machine has several.
    ///
    /// # Errors
    /// The errors that [`send_to`](DatagramSocket::send_to) lists.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # let server = DatagramSocket::bind("*:0")?;
    /// # let client = DatagramSocket::connect(("127.0.0.1".parse().unwrap(), server.port()))?;
    /// # client.send(b"question")?;
    /// let question = server.recv(&mut [0; 1500])?;
    /// server.reply(&question, b"answer")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reply(&self, reply_to: &Datagram, buf: &[u8]) -> Result<()> {
        self.send_one(&Outgoing::reply(reply_to, buf))
    }

    pub(crate) fn send_one(&self, one: &Outgoing<'_>) -> Result<()> {
        let failed = |cause| self.failed(SEND, cause, one.to.as_ref());
        let io = self.0.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed.into()))?;
        let pieces = [IoSlice::new(one.bytes)];
        let run = self.run(one, &pieces)?;
        let ipv6 = self.is_ipv6();
        let call = |wait| sys::send_datagram(io.socket(), ipv6, &run, wait);
        self.send_step(&io, self.0.write_timeout.deadline(), call).map_err(failed)
    }

    fn is_ipv6(&self) -> bool {
        matches!(&self.0.side, Side::Inet(inet) if inet.ipv6)
    }

    /// Sends datagrams in order, and returns how many were sent: all, unless an error occurs after the
    /// first. The next call then returns that error.
    ///
    /// On Linux one system call accepts up to 64 datagrams (sendmmsg), and the kernel accepts consecutive
    /// UDP datagrams of one length to one address as one run (UDP_SEGMENT of udp(7)), which saves most.
    /// Windows 10 2004 and later accepts such runs as well (UDP_SEND_MSG_SIZE). Otherwise the datagrams are
    /// sent one by one. The write timeout applies to the whole call.
    ///
    /// # Errors
    /// The errors that [`send_to`](DatagramSocket::send_to) lists, if the first datagram was not sent,
    /// and [`Unsupported`](ErrorKind::Unsupported): the kernel lacks sendmmsg(2).
    ///
    /// ```
    /// use keepsock::{DatagramSocket, Outgoing};
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(server.endpoint())?;
    /// let parts = [Outgoing::new(b"one"), Outgoing::new(b"two"), Outgoing::new(b"three")];
    /// assert_eq!(client.send_batch(&parts)?, 3);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_batch(&self, batch: &[Outgoing<'_>]) -> Result<usize> {
        self.send_parts(batch)
    }

    pub(crate) fn send_parts<P: Parts + ?Sized>(&self, parts: &P) -> Result<usize> {
        let io = self.enter(SEND)?;
        let deadline = self.0.write_timeout.deadline();
        let mut sent = 0;
        while sent < parts.count() {
            match self.send_some(&io, parts, sent, deadline) {
                Ok(more) => sent += more,
                Err(e) if sent == 0 && e.kind() == ErrorKind::InvalidArgument => {
                    let what = format!("datagram {sent} of the batch: {}", e.reason());
                    return Err(e.detail(what));
                }
                Err(e) if sent == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Sends at least one datagram, starting with the one at `from`, and returns how many.
    fn send_some<P: Parts + ?Sized>(
        &self,
        io: &InUse<'_>,
        parts: &P,
        from: usize,
        deadline: Deadline,
    ) -> Result<usize> {
        let mut pieces = [IoSlice::new(&[]); MAX_BATCH];
        let mut count = 0;
        while count < MAX_BATCH.min(parts.count() - from) {
            match parts.bytes(from + count) {
                Ok(bytes) => pieces[count] = IoSlice::new(bytes),
                Err(e) if count == 0 => return Err(e),
                // It becomes the first datagram of the next call.
                Err(_) => break,
            }
            count += 1;
        }
        let pieces = &pieces[..count];
        let mut longest = self.0.longest_segment.load(Ordering::Relaxed);
        let mut refused = None;
        loop {
            let first = run_len(parts, from, pieces, longest);
            let run = self.run(&parts.outgoing(from)?, &pieces[..first])?;
            let (one, mut many);
            let runs: &[Run<'_>] = if first == count {
                one = [run];
                &one
            } else {
                many = Vec::with_capacity(count);
                many.push(run);
                let mut at = first;
                while at < count {
                    let next = at + run_len(parts, from + at, &pieces[at..], longest);
                    let pieces = &pieces[at..next];
                    // The later datagrams of a run are not longer, and have the same destination.
                    let last = many.last().filter(|_| {
                        pieces[0].len() <= MAX_V4 && parts.are_alike(from + at - 1, from + at)
                    });
                    let run = match last {
                        Some(last) => Ok(Run { pieces, to: last.to.clone(), source: last.source }),
                        None => parts.outgoing(from + at).and_then(|one| self.run(&one, pieces)),
                    };
                    // A datagram that cannot be sent becomes the first of the next call.
                    let Ok(run) = run else {
                        break;
                    };
                    many.push(run);
                    at = next;
                }
                &many
            };
            let ipv6 = self.is_ipv6();
            let call = |wait| sys::send_datagrams(io.socket(), ipv6, runs, wait);
            match self.send_step(io, deadline, call) {
                Ok(count) => {
                    // One by one they may be accepted. Shorter datagrams may still form a run: the path MTU
                    // may be too small for these.
                    if let Some(len) = refused {
                        self.0.longest_segment.fetch_min(len - 1, Ordering::Relaxed);
                    }
                    return Ok(runs.iter().take(count).map(|run| run.pieces.len()).sum());
                }
                Err(Cause::Os(e)) if runs[0].pieces.len() > 1 && sys::may_refuse_segments(&e) => {
                    (refused, longest) = (Some(pieces[0].len()), 0);
                }
                Err(cause) => {
                    let to = parts.outgoing(from)?.to;
                    return Err(self.failed(SEND, cause, to.as_ref()));
                }
            }
        }
    }

    /// Describes a run to the kernel; `one` is its first datagram.
    pub(super) fn run<'p>(&self, one: &Outgoing<'_>, pieces: &'p [IoSlice<'p>]) -> Result<Run<'p>> {
        self.check(one)?;
        let (to, source) = match (&self.0.side, &one.to) {
            // A connected socket needs no destination.
            (Side::Inet(inet), _) if inet.peer().is_some() => (None, Source::default()),
            (Side::Inet(inet), Some(Address::Inet(to))) => {
                let to = canonical(*to);
                let source = inet.source_of(to.ip(), one.local, one.interface);
                (Some(inet.name_of(to)), source)
            }
            (Side::Unix(unix), Some(to)) if unix.peer.get().is_none() => {
                let name = sys::name_of_unix(to)
                    .map_err(|e| self.failed(SEND, e.into(), one.to.as_ref()))?;
                (Some(name), Source::default())
            }
            _ => (None, Source::default()),
        };
        Ok(Run { pieces, to, source })
    }

    /// Rejects a datagram that cannot be sent, with the reason.
    fn check(&self, one: &Outgoing<'_>) -> Result<()> {
        if one.to.is_none() && !self.is_connected() {
            return Err(self.not_connected());
        }
        let refusal = match (&self.0.side, &one.to) {
            (Side::Inet(inet), Some(Address::Inet(to))) => {
                inet.refusal(one.bytes.len(), canonical(*to))
            }
            (Side::Inet(inet), None) => {
                inet.peer().and_then(|peer| inet.refusal(one.bytes.len(), peer))
            }
            (Side::Unix(_), None) => None,
            (Side::Inet(_), Some(to)) | (Side::Unix(_), Some(to @ Address::Inet(_))) => {
                let what = format!("the socket is of another address family than {to}");
                Some((ErrorKind::InvalidArgument, what))
            }
            (Side::Unix(unix), Some(to)) => unix.refusal(to),
        };
        match refusal.or_else(|| self.zone_refusal(one)).or_else(|| self.source_refusal(one)) {
            Some((kind, what)) => Err(self.failed(SEND, kind.into(), one.to.as_ref()).detail(what)),
            None => Ok(()),
        }
    }

    fn source_refusal(&self, one: &Outgoing<'_>) -> Option<(ErrorKind, String)> {
        if one.local.is_none() && one.interface.is_none() {
            return None;
        }
        let what = match &self.0.side {
            Side::Inet(inet) => inet.source_refusal(one, &self.0.descriptor)?,
            Side::Unix(_) => "local and interface apply to UDP only".to_owned(),
        };
        Some((ErrorKind::InvalidArgument, what))
    }

    /// A link-local address without a zone: the kernel would choose an interface arbitrarily.
    fn zone_refusal(&self, one: &Outgoing<'_>) -> Option<(ErrorKind, String)> {
        let (Side::Inet(inet), Some(Address::Inet(to))) = (&self.0.side, &one.to) else {
            return None;
        };
        let IpAddr::V6(ip) = to.ip() else {
            return None;
        };
        if !lacks_zone(*to) || ip.is_multicast() || inet.peer().is_some() || one.interface.is_some()
        {
            return None;
        }
        let bound = |io: InUse<'_>| sys::is_bound_to_interface(io.socket());
        let bound = self.0.descriptor.enter().is_some_and(bound);
        (!bound).then(|| (ErrorKind::InvalidEndpoint, Unusable::NoZone.describe(ip.into())))
    }

    #[cold]
    fn not_connected(&self) -> Error {
        let error = Error::new(ErrorKind::WrongState, SEND).at(&self.0.endpoint);
        error.detail("the socket is not connected: connect it, or send to an address")
    }

    /// Makes one sending system call, and waits as this socket waits.
    pub(super) fn send_step<T>(
        &self,
        io: &InUse<'_>,
        deadline: Deadline,
        mut call: impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        let mode = self.wait_mode(deadline);
        let mut step = || self.step(io, &mode, Interest::Write, &mut call);
        if let Side::Unix(unix) = &self.0.side {
            return match step() {
                Err(Cause::Os(e)) if is_gone(&e) => match unix.finds_peer_again(io) {
                    true => step().map_err(if_gone),
                    false => Err(ErrorKind::Refused.into()),
                },
                other => other,
            };
        }
        let (mut pending, mut unexplained) = (None, 0);
        for _ in 0..TRIES {
            match step() {
                // The kernel reports an error of an earlier datagram instead of sending. A retry shows
                // whether it was one. In that time sends of other threads may fail.
                Err(Cause::Os(e)) if sys::is_reported(&e) => {
                    let taken = self.take_reports_after(io, &e);
                    if taken.local.is_some() && taken.local == e.raw_os_error() {
                        // The error belongs to this call.
                        return Err(e.into());
                    }
                    if taken.count == 0 && unexplained == UNEXPLAINED {
                        return Err(e.into());
                    }
                    if mode.deadline.has_passed() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    unexplained = if taken.count > 0 { 0 } else { unexplained + 1 };
                    pending = Some((taken.count > 0, e));
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
        let reported = |(_, e): (bool, io::Error)| Cause::reported(&e, About::Datagram);
        Err(pending.map_or_else(|| ErrorKind::WouldBlock.into(), reported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static BYTES: [u8; 60_000] = [0; 60_000];

    fn out(len: usize, port: u16) -> Outgoing<'static> {
        Outgoing::to(&BYTES[..len], SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn runs(batch: &[Outgoing<'_>], longest: usize) -> Vec<usize> {
        let pieces: Vec<_> = batch.iter().map(|one| IoSlice::new(one.bytes)).collect();
        let (mut runs, mut at) = (Vec::new(), 0);
        while at < batch.len() {
            runs.push(run_len(batch, at, &pieces[at..], longest));
            at += runs[runs.len() - 1];
        }
        runs
    }

    /// D3: Datagrams that the kernel would split differently do not form a run.
    #[test]
    fn runs_are_of_one_length_and_one_address() {
        const MAX: usize = usize::MAX;
        let lens = |lens: &[usize]| lens.iter().map(|len| out(*len, 1)).collect::<Vec<_>>();
        assert_eq!(runs(&lens(&[9, 9, 9]), MAX), [3]);
        assert_eq!(runs(&lens(&[9, 9, 9]), 8), [1, 1, 1]);
        assert_eq!(runs(&lens(&[9, 9, 8, 8, 8]), 8), [1, 1, 3]);
        assert_eq!(runs(&lens(&[9, 9, 4, 9, 4, 4]), MAX), [3, 2, 1]);
        assert_eq!(runs(&lens(&[4, 9, 0, 9, 0, 0]), MAX), [1, 1, 1, 1, 1, 1]);
        assert_eq!(runs(&lens(&[60_000, 5_507, 1]), MAX), [2, 1]);
        assert_eq!(runs(&lens(&[60_000, 5_508]), MAX), [1, 1]);
        assert_eq!(runs(&[out(9, 1), out(9, 1), out(9, 2), out(9, 1)], MAX), [2, 1, 1]);
        assert_eq!(runs(&lens(&[1; 64]), MAX), [64]);
        assert_eq!(runs(&lens(&[1; 65]), MAX), [64, 1]);
        assert!(runs(&[], MAX).is_empty());
        let other = Outgoing { interface: Some(1), ..out(9, 1) };
        assert_eq!(runs(&[out(9, 1), other], MAX), [1, 1]);
        let other = Outgoing { local: Some(([127, 0, 0, 2], 1).into()), ..out(9, 1) };
        assert_eq!(runs(&[out(9, 1), other], MAX), [1, 1]);
    }
}
