//! Sending: one by one, and in batches that the kernel takes as few.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{SockAddr, SockRef};

use super::{Datagram, DatagramSocket, Inet, Outgoing, Side, Unix};
use crate::back_off::BackOff;
use crate::error::{Error, ErrorKind, Result};
use crate::info::{Address, canonical};
use crate::sys::{self, AT_ONCE, InUse, Interest, Run, Source, Wait};
use crate::wait::{Cause, Deadline};

pub(super) const SEND: &str = "send";

/// RFC 768: the length, header included, has 16 bits; over IPv4 the IP header counts, too.
const MAX_V4: usize = 65_535 - 8 - 20;
const MAX_V6: usize = 65_535 - 8;

fn max_len(to: SocketAddr) -> (usize, &'static str) {
    if to.is_ipv4() { (MAX_V4, "IPv4") } else { (MAX_V6, "IPv6") }
}

/// How long a sender waits that nobody tells when its receiver has room again.
pub(super) const FULL_PEER: BackOff =
    BackOff::new(Duration::from_millis(1), Duration::from_millis(20));

/// How often a datagram is tried at most that meets errors of others.
const TRIES: u32 = 1000;

/// After how many errors in a row, for which the kernel's queue has no report, the error is this
/// datagram's own: another thread may have taken the report.
const UNEXPLAINED: u32 = 16;

/// The datagrams of a batch, as Rust's callers have them, and C's.
pub(crate) trait Parts {
    fn count(&self) -> usize;
    fn bytes(&self, at: usize) -> Result<&[u8]>;
    /// Whether two go to one address, and from one.
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

/// How many datagrams, beginning with the one at `from`, whose lengths `pieces` are, the kernel can
/// take as one: those of one length, the last perhaps shorter, to one address and from one, which
/// together are no longer than a datagram can be. `longest`: those that are longer go one by one.
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
            && len < AT_ONCE
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
    /// Where an answer leaves from. A socket with an address of its own sends from that anyway.
    fn source_of(&self, to: IpAddr, local: Option<SocketAddr>, interface: Option<u32>) -> Source {
        if !self.local.ip().is_unspecified() {
            return Source::default();
        }
        let ip = local.map(|local| local.ip().to_canonical());
        let ip = ip.filter(|ip| ip.is_ipv4() == to.is_ipv4());
        // A link-local address is one only together with its interface (RFC 4007).
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

    /// What is wrong with sending so many bytes to an address.
    fn refusal(&self, len: usize, to: SocketAddr) -> Option<(ErrorKind, String)> {
        if let Some(peer) = self.peer {
            if (peer.ip(), peer.port()) != (to.ip(), to.port()) {
                let what = format!("the socket is connected to {peer}");
                return Some((ErrorKind::WrongState, what));
            }
        }
        if to.port() == 0 {
            return Some((ErrorKind::InvalidArgument, "port 0".to_owned()));
        }
        if to.is_ipv6() != self.ipv6 && !(self.dual && to.is_ipv4()) {
            let family = if self.ipv6 { "IPv6" } else { "IPv4" };
            return Some((ErrorKind::InvalidArgument, format!("the socket is {family} only")));
        }
        let (max, family) = max_len(to);
        (len > max).then(|| {
            let what = format!("{len} bytes, and a datagram over {family} has at most {max}");
            (ErrorKind::TooLong, what)
        })
    }

    /// An address as this socket's kernel side wants it.
    fn name_of(&self, to: SocketAddr) -> SockAddr {
        match to {
            SocketAddr::V4(v4) if self.ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            to => to.into(),
        }
    }
}

impl Unix {
    /// Connects anew: the kernel has dissolved the connection when it found nobody there
    /// (ECONNREFUSED, and ENOTCONN from then on), though somebody may have been bound there since.
    fn finds_peer_again(&self, io: &InUse<'_>) -> bool {
        let socket = io.socket();
        let socket = SockRef::from(&socket);
        let Some(peer) = self.peer.as_ref().filter(|peer| socket.connect(&peer.name).is_ok())
        else {
            return false;
        };
        if let Ok(name) = socket.peer_addr() {
            *peer.bound.lock().unwrap_or_else(PoisonError::into_inner) = sys::to_address(&name);
        }
        true
    }

    /// What is wrong with sending to an address.
    fn refusal(&self, to: &Address) -> Option<(ErrorKind, String)> {
        match &self.peer {
            // It may be one without a name.
            Some(peer) if peer.address == *to => return None,
            Some(peer) => {
                let what = format!("the socket is connected to {}", peer.address);
                return Some((ErrorKind::WrongState, what));
            }
            None => {}
        }
        let (len, what) = match to {
            Address::UnixPath(path) => (path.as_os_str().len(), "path"),
            Address::UnixAbstract(name) => (name.len(), "abstract name"),
            _ => {
                let what = "the receiver has no name".to_owned();
                return Some((ErrorKind::InvalidArgument, what));
            }
        };
        let max = sys::UNIX_PATH_MAX;
        (!(1..=max).contains(&len)).then(|| {
            let what = format!("{what} of {len} bytes: it has 1 to {max}");
            (ErrorKind::InvalidEndpoint, what)
        })
    }
}

/// Whether a Unix peer's socket is gone.
fn is_gone(err: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, NotConnected};
    // EPIPE: it is there, and receives nothing any more.
    matches!(err.kind(), ConnectionRefused | NotConnected | BrokenPipe)
}

fn if_gone(cause: Cause) -> Cause {
    match cause {
        Cause::Os(e) if is_gone(&e) => ErrorKind::Refused.into(),
        other => other,
    }
}

impl DatagramSocket {
    /// Sends one datagram to the peer of a [connected](DatagramSocket::connect) socket. It
    /// waits only while the system's buffer, or a Unix peer's queue, is full.
    ///
    /// No bytes are a datagram, too. At most 65,507 bytes go into one over IPv4, 65,527 over
    /// IPv6; over Unix sockets what the system's buffer holds (unix(7)).
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState) if the socket is not connected;
    /// [`TooLong`](ErrorKind::TooLong) for the protocol, or for the way;
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled),
    /// [`Closed`](ErrorKind::Closed), [`Unreachable`](ErrorKind::Unreachable),
    /// [`PermissionDenied`](ErrorKind::PermissionDenied); [`NoMemory`](ErrorKind::NoMemory), also
    /// if the interface has no room for it (Linux tells only sockets whose [errors are
    /// reported](DatagramSocket::set_report_errors)); [`WouldBlock`](ErrorKind::WouldBlock) in
    /// non-blocking mode. What ICMP said of an earlier datagram fails no call: it is
    /// [reported](DatagramSocket::recv_error), and sending is tried again. A Unix peer that is
    /// gone, or receives no more, is [`Refused`](ErrorKind::Refused); once somebody is bound there
    /// again sending goes on. What it had answered, and was not received yet, is lost with it.
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
        let connected = match &self.0.side {
            Side::Inet(Inet { peer: Some(peer), .. }) => bytes.len() <= max_len(*peer).0,
            Side::Inet(_) => false,
            Side::Unix(unix) => unix.peer.is_some(),
        };
        if !connected {
            return self.send_one(&Outgoing::new(bytes));
        }
        let io = self.enter(SEND)?;
        let call = |wait| sys::send(io.socket(), bytes, wait).map(drop);
        self.send_step(&io, self.deadline(&self.0.write_timeout), call)
            .map_err(|cause| self.failed(SEND, cause, None))
    }

    /// Sends one datagram to an address.
    ///
    /// # Errors
    /// Those of [`send`](DatagramSocket::send), but
    /// [`WrongState`](ErrorKind::WrongState) if the socket is connected to another one;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for port 0, for an address of a
    /// family that the socket does not have, and for a Unix socket without a name.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # use std::net::SocketAddr;
    /// # if cfg!(windows) { return Ok(()) }
    /// # let other = DatagramSocket::bind("127.0.0.1:0")?;
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.send_to(b"hello", SocketAddr::from(([127, 0, 0, 1], other.port())))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_to(&self, bytes: &[u8], to: impl Into<Address>) -> Result<()> {
        self.send_one(&Outgoing::to(bytes, to))
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
        self.send_one(&Outgoing::reply(question, bytes))
    }

    pub(crate) fn send_one(&self, one: &Outgoing<'_>) -> Result<()> {
        let failed = |cause| self.failed(SEND, cause, one.to.as_ref());
        let io = self.0.descriptor.enter().ok_or_else(|| failed(ErrorKind::Closed.into()))?;
        let pieces = [IoSlice::new(one.bytes)];
        let run = self.run(one, &pieces)?;
        let ipv6 = self.is_ipv6();
        let call = |wait| sys::send_datagram(io.socket(), ipv6, &run, wait);
        self.send_step(&io, self.deadline(&self.0.write_timeout), call).map_err(failed)
    }

    fn is_ipv6(&self) -> bool {
        matches!(&self.0.side, Side::Inet(inet) if inet.ipv6)
    }

    /// Sends datagrams in their order; how many were sent, which is all unless something
    /// prevents it: whoever sends the rest then is told what. On Linux one system call takes up
    /// to 64 of them (sendmmsg), and the kernel takes those of UDP that follow each other to one
    /// address with one length as one (UDP_SEGMENT of udp(7)), which is where most is saved.
    /// Elsewhere they are sent one by one.
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
        self.send_parts(batch)
    }

    pub(crate) fn send_parts<P: Parts + ?Sized>(&self, parts: &P) -> Result<usize> {
        let io = self.enter(SEND)?;
        let deadline = self.deadline(&self.0.write_timeout);
        let mut sent = 0;
        while sent < parts.count() {
            match self.send_some(&io, parts, sent, deadline) {
                Ok(more) => sent += more,
                Err(e) if sent == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Sends at least one of the datagrams from the one at `from` on; how many.
    fn send_some<P: Parts + ?Sized>(
        &self,
        io: &InUse<'_>,
        parts: &P,
        from: usize,
        deadline: Deadline,
    ) -> Result<usize> {
        let mut pieces = [IoSlice::new(&[]); AT_ONCE];
        let mut count = 0;
        while count < AT_ONCE.min(parts.count() - from) {
            match parts.bytes(from + count) {
                Ok(bytes) => pieces[count] = IoSlice::new(bytes),
                Err(e) if count == 0 => return Err(e),
                // It is the first of the next ones.
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
                    // Those after the first of a run are no longer, and to the same address.
                    let last = many.last().filter(|_| {
                        pieces[0].len() <= MAX_V4 && parts.are_alike(from + at - 1, from + at)
                    });
                    let run = match last {
                        Some(last) => Ok(Run { pieces, to: last.to.clone(), source: last.source }),
                        None => parts.outgoing(from + at).and_then(|one| self.run(&one, pieces)),
                    };
                    // What cannot be sent is the first of the next ones.
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
                    // By themselves they pass. Shorter ones may pass as one: the way may be too
                    // narrow for these.
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

    /// What the kernel is given of datagrams that are alike; `one` is the first of them.
    pub(super) fn run<'p>(&self, one: &Outgoing<'_>, pieces: &'p [IoSlice<'p>]) -> Result<Run<'p>> {
        self.check(one)?;
        let (to, source) = match (&self.0.side, &one.to) {
            // A connected socket needs no name.
            (Side::Inet(Inet { peer: Some(_), .. }), _) => (None, Source::default()),
            (Side::Inet(inet), Some(Address::Inet(to))) => {
                let to = canonical(*to);
                let source = inet.source_of(to.ip(), one.local, one.interface);
                (Some(inet.name_of(to)), source)
            }
            (Side::Unix(unix), Some(to)) if unix.peer.is_none() => {
                let name = sys::name_of_unix(to)
                    .map_err(|e| self.failed(SEND, e.into(), one.to.as_ref()))?;
                (Some(name), Source::default())
            }
            _ => (None, Source::default()),
        };
        Ok(Run { pieces, to, source })
    }

    /// Refuses what cannot be sent, with words for what is wrong with it.
    fn check(&self, one: &Outgoing<'_>) -> Result<()> {
        if one.to.is_none() && !self.is_connected() {
            return Err(self.not_connected());
        }
        let refusal = match (&self.0.side, &one.to) {
            (Side::Inet(inet), Some(Address::Inet(to))) => {
                inet.refusal(one.bytes.len(), canonical(*to))
            }
            (Side::Inet(inet), None) => {
                inet.peer.and_then(|peer| inet.refusal(one.bytes.len(), peer))
            }
            (Side::Unix(_), None) => None,
            (Side::Inet(_), Some(to)) | (Side::Unix(_), Some(to @ Address::Inet(_))) => {
                let what = format!("{to} is not of the socket's family");
                Some((ErrorKind::InvalidArgument, what))
            }
            (Side::Unix(unix), Some(to)) => unix.refusal(to),
        };
        match refusal {
            Some((kind, what)) => Err(self.failed(SEND, kind.into(), one.to.as_ref()).detail(what)),
            None => Ok(()),
        }
    }

    #[cold]
    fn not_connected(&self) -> Error {
        let error = Error::new(ErrorKind::WrongState, SEND).at(&self.0.endpoint);
        error.detail("it is not connected: say to whom")
    }

    /// One send to the kernel, waiting as this socket waits.
    pub(super) fn send_step<T>(
        &self,
        io: &InUse<'_>,
        deadline: Deadline,
        mut call: impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        let patience = self.patience(deadline);
        let mut step = || self.step(io, &patience, Interest::Write, &mut call);
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
                // The kernel tells an error of an earlier datagram in place of sending: once
                // more shows whether it was one. What other threads send may be refused meanwhile.
                Err(Cause::Os(e)) if sys::is_reported(&e) => {
                    let taken = self.take_reports(io);
                    if taken.local.is_some() && taken.local == e.raw_os_error() {
                        // It is this call's own.
                        return Err(e.into());
                    }
                    if taken.count == 0 && unexplained == UNEXPLAINED {
                        return Err(e.into());
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
        Err(pending.map_or_else(|| ErrorKind::WouldBlock.into(), |(_, e)| e.into()))
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

    /// D3: what the kernel would cut otherwise than it was given is not given as one.
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
