//! Receiving datagrams one by one and in batches.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::PoisonError;
use std::time::Duration;

use super::send::UNEXPLAINED;
use super::{
    Datagram, DatagramSocket, Incoming, Inet, Side, Unix, UnixPeer, WaitMode, is_shut_down,
};
use crate::io::backoff::BackOff;
use crate::io::deadline::Deadline;
use crate::io::wait::{Cause, Stop, wait};
use crate::sys::sync::atomic::Ordering;
use crate::sys::sync::sleep;
use crate::sys::{self, Buffers, Details, InUse, Interest, Received, Wait};
use crate::types::address::Address;
use crate::types::error::{About, Error, ErrorKind, Result};

pub(super) const RECEIVE: &str = "receive";

/// The maximum number of datagrams of denied senders that a non-blocking call skips. The queue of a
/// Unix socket holds fewer (net.unix.max_dgram_qlen is 10, or 512 with systemd), so a call that
/// reaches the maximum has seen every datagram that was queued when the call began.
const MAX_SKIPPED: usize = 1024;

/// The maximum number of errors of earlier datagrams that a non-blocking call takes.
const MAX_ERRORS: u32 = 256;

/// The number of successive errors without an entry in the error queue, after which a receive pauses. On
/// Windows each receive returns one report, and a connected socket may hold one for each datagram that it has
/// sent.
const UNEXPLAINED_RECEIVES: u32 = if sys::RETURNS_EACH_REPORT { 1024 } else { UNEXPLAINED };

/// The pause after an error that passes, such as ENOMEM.
const RETRIES: BackOff = BackOff::new(Duration::from_millis(5), Duration::from_millis(50));

/// The metadata of a datagram, before it is stored in the caller's form.
pub(crate) struct Facts<'a> {
    pub len: usize,
    pub original_len: usize,
    pub truncated: bool,
    pub from: &'a Address,
    pub to: Option<&'a SocketAddr>,
    pub local: Option<&'a SocketAddr>,
    /// None: the socket requests no control messages.
    pub details: Option<&'a Details>,
}

/// The destination and the source address for replies of a datagram, if the socket has several
/// addresses.
#[derive(Default)]
pub(super) struct Destination {
    to: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

impl Facts<'_> {
    pub(super) fn datagram(&self) -> Datagram {
        let details = self.details.copied().unwrap_or_default();
        Datagram {
            len: self.len,
            original_len: self.original_len,
            truncated: self.truncated,
            from: self.from.clone(),
            to: self.to.copied(),
            local: self.local.copied(),
            interface: (details.interface != 0).then_some(details.interface),
            ttl: details.ttl,
            tos: details.tos,
            received_at: details.at,
            credentials: details.credentials,
        }
    }
}

impl Datagram {
    /// Stores the metadata in another form.
    pub(crate) fn with_meta<T>(&self, take: impl FnOnce(&Facts<'_>) -> T) -> T {
        let details = Details {
            interface: self.interface.unwrap_or(0),
            ttl: self.ttl,
            tos: self.tos,
            at: self.received_at,
            credentials: self.credentials,
        };
        take(&Facts {
            len: self.len,
            original_len: self.original_len,
            truncated: self.truncated,
            from: &self.from,
            to: self.to.as_ref(),
            local: self.local.as_ref(),
            details: Some(&details),
        })
    }
}

/// The buffers of a batch: those of Rust callers, and those of C callers.
pub(crate) trait Batch: Buffers {
    fn put(&mut self, at: usize, facts: &Facts<'_>);
    /// Exchanges two buffers.
    fn swap(&mut self, a: usize, b: usize);
}

impl Buffers for [Incoming<'_>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn buffer(&mut self, at: usize) -> &mut [u8] {
        self[at].buf
    }
}

impl Batch for [Incoming<'_>] {
    fn put(&mut self, at: usize, facts: &Facts<'_>) {
        self[at].datagram = Some(facts.datagram());
    }

    fn swap(&mut self, a: usize, b: usize) {
        <[Incoming<'_>]>::swap(self, a, b);
    }
}

impl DatagramSocket {
    /// Receives one datagram. Bytes beyond `buf` are lost, and
    /// [`truncated`](Datagram::truncated) reports that. Several threads may receive at once.
    ///
    /// ICMP errors of earlier datagrams do not end the call: receiving continues, and
    /// [`recv_error`](DatagramSocket::recv_error) returns them. Descriptors in the datagram are closed.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): no datagram within the read timeout
    /// - [`WouldBlock`](ErrorKind::WouldBlock): non-blocking mode, and no datagram waits, or the call has
    ///   skipped 1,024 datagrams whose senders are not [allowed](crate::SocketOptions::allowed_uid)
    /// - [`Cancelled`](ErrorKind::Cancelled): the token was fired
    /// - [`Closed`](ErrorKind::Closed): the socket was closed, or receiving was ended
    /// - [`Refused`](ErrorKind::Refused): the peer refused a datagram, with
    ///   [`set_fail_on_refused`](DatagramSocket::set_fail_on_refused)
    /// - [`NoMemory`](ErrorKind::NoMemory): the kernel has no memory for the call; the datagram stays in
    ///   the queue, and the socket stays usable
    /// - [`Unsupported`](ErrorKind::Unsupported): the kernel does not have the system call
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): a policy of this machine, such as a seccomp
    ///   filter, forbids the system call
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
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
        let received = self.try_recv_with(buf, false, |facts| facts.datagram());
        received.map_err(|stop| self.stopped(RECEIVE, stop))
    }

    /// Copies the oldest datagram into `buf`, and leaves it for the next receive (MSG_PEEK). Waits as
    /// [`recv`](DatagramSocket::recv) does. [`original_len`](Datagram::original_len) is the length of
    /// the datagram, also if `buf` is empty (Linux, Windows).
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): the socket [coalesces](crate::SocketOptions::udp_gro)
    /// datagrams. Otherwise the errors that [`recv`](DatagramSocket::recv) lists.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// # let client = DatagramSocket::connect(server.endpoint())?;
    /// client.send(b"twelve bytes")?;
    /// let mut buf = vec![0; server.peek(&mut [])?.original_len];
    /// server.recv(&mut buf)?;
    /// assert_eq!(buf, b"twelve bytes");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn peek(&self, buf: &mut [u8]) -> Result<Datagram> {
        let received = self.try_recv_with(buf, true, |facts| facts.datagram());
        received.map_err(|stop| self.stopped(RECEIVE, stop))
    }

    pub(crate) fn try_recv_with<T>(
        &self,
        buf: &mut [u8],
        peek: bool,
        take: impl Fn(&Facts<'_>) -> T,
    ) -> std::result::Result<T, Stop> {
        let io = self.enter(RECEIVE)?;
        let mode = self.receive_mode();
        if self.0.coalesced.is_some() {
            if peek {
                return Err(self.no_peek());
            }
            let mut one = [Incoming::new(buf)];
            self.recv_some(&io, &mode, one.as_mut_slice())?;
            let [one] = one;
            let taken = one.datagram.as_ref().map(|datagram| datagram.with_meta(&take));
            return taken.ok_or_else(|| self.not_received(ErrorKind::Closed.into()).into());
        }
        let control = self.0.control.load(Ordering::Relaxed);
        let mut skipped = 0;
        loop {
            // A new value each time: the kernel does not report the same members for each datagram.
            let mut received = Received::default();
            let call =
                |wait| sys::recv_datagram(io.socket(), buf, control, peek, wait, &mut received);
            self.recv_step(&io, &mode, call).map_err(|cause| self.stop_of(cause))?;
            if self.is_over(&io, &received) {
                return Err(self.not_received(ErrorKind::Closed.into()).into());
            }
            // A datagram from another peer was queued before the socket was connected.
            if let Some(facts) = self.facts(&mut received, &mut Destination::default()) {
                return Ok(take(&facts));
            }
            if peek {
                // The datagram is still the first one of the queue.
                let mut denied = Received::default();
                let _ =
                    sys::recv_datagram(io.socket(), &mut [], control, false, Wait::No, &mut denied);
            }
            mode.skip(&mut skipped, 1).map_err(|cause| self.stop_of(cause))?;
        }
    }

    /// Receives the waiting datagrams, at least one, one per buffer, and returns their number.
    ///
    /// The call waits for the first datagram only. On Linux one system call receives up to 64 datagrams
    /// (recvmmsg); 64 is the maximum per call on all systems. The buffers of a connected socket, and of a
    /// socket with [allowed users](crate::SocketOptions::allowed_uid), may change their order in `batch`.
    ///
    /// # Errors
    /// The errors that [`recv`](DatagramSocket::recv) lists.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, Incoming};
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
        self.recv_into(batch)
    }

    pub(crate) fn recv_into<B: Batch + ?Sized>(&self, batch: &mut B) -> Result<usize> {
        let io = self.enter(RECEIVE)?;
        let mode = self.receive_mode();
        self.recv_some(&io, &mode, batch)
    }

    /// For [serving](DatagramSocket::serve), which ignores the timeouts and the mode of the socket.
    #[cfg(feature = "serve")]
    pub(super) fn recv_for_serve(&self, batch: &mut [Incoming<'_>]) -> Result<usize> {
        let io = self.enter(RECEIVE)?;
        let mode = WaitMode { nonblocking: false, serves: true, ..self.wait_mode(Deadline(None)) };
        self.recv_some(&io, &mode, batch)
    }

    fn recv_some<B: Batch + ?Sized>(
        &self,
        io: &InUse<'_>,
        mode: &WaitMode,
        batch: &mut B,
    ) -> Result<usize> {
        if batch.count() == 0 {
            return Ok(0);
        }
        let got = match &self.0.coalesced {
            Some(coalesced) => self.recv_coalesced(coalesced, io, mode, batch),
            None => self.recv_apart(io, mode, batch),
        };
        got.map_err(|cause| self.not_received(cause))
    }

    fn recv_apart<B: Batch + ?Sized>(
        &self,
        io: &InUse<'_>,
        mode: &WaitMode,
        batch: &mut B,
    ) -> std::result::Result<usize, Cause> {
        let control = self.0.control.load(Ordering::Relaxed);
        let mut skipped = 0;
        loop {
            let (mut kept, mut over) = (0, false);
            let mut told = |batch: &mut B, at, received: &mut Received| {
                over |= self.is_over(io, received);
                if over {
                    return;
                }
                if let Some(facts) = self.facts(received, &mut Destination::default()) {
                    if kept != at {
                        batch.swap(kept, at);
                    }
                    batch.put(kept, &facts);
                    kept += 1;
                }
            };
            let count = self.recv_step(io, mode, |wait| {
                sys::recv_datagrams(io.socket(), batch, control, wait, &mut told)
            })?;
            match kept {
                0 if over => return Err(ErrorKind::Closed.into()),
                0 => mode.skip(&mut skipped, count)?,
                kept => return Ok(kept),
            }
        }
    }

    /// A call that would block creates no error object, because the caller may not want one.
    fn stop_of(&self, cause: Cause) -> Stop {
        match cause {
            Cause::Kind(ErrorKind::WouldBlock) => Stop::WouldBlock(0),
            cause => self.not_received(cause).into(),
        }
    }

    #[cold]
    fn no_peek(&self) -> Stop {
        let error = self.not_received(ErrorKind::Unsupported.into());
        error.detail("peek has no effect with udp_gro: receive instead").into()
    }

    #[cold]
    fn not_received(&self, cause: Cause) -> Error {
        self.failed(RECEIVE, cause, None)
    }

    /// Makes one receiving system call, and waits as this socket waits. ICMP errors do not end it.
    pub(super) fn recv_step<T>(
        &self,
        io: &InUse<'_>,
        mode: &WaitMode,
        mut call: impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        let (mut errors, mut unexplained, mut pauses) = (0, 0, RETRIES);
        loop {
            let e = match self.step(io, mode, Interest::Read, &mut call) {
                Err(Cause::Os(e)) => e,
                other => return other,
            };
            // ICMP errors, of which there may be many, concern earlier datagrams.
            let taken = self.take_reported(io);
            let is_refusal = e.kind() == io::ErrorKind::ConnectionRefused;
            if is_refusal && self.fails_on_refused() && !mode.serves {
                if taken == 0 {
                    self.keep_untold(&e);
                }
                self.0.refused.store(0, Ordering::Relaxed);
                return Err(Cause::reported(&e, About::Datagram));
            }
            let pauses_now = if taken > 0 {
                unexplained = 0;
                false
            } else if sys::is_reported(&e) {
                self.keep_untold(&e);
                unexplained += 1;
                unexplained > UNEXPLAINED_RECEIVES
            } else if mode.serves && !sys::ends_receiving(&e) {
                true
            } else {
                return Err(e.into());
            };
            errors += 1;
            if mode.nonblocking && (pauses_now || errors == MAX_ERRORS) {
                return Err(ErrorKind::WouldBlock.into());
            }
            if mode.deadline.has_passed() {
                return Err(ErrorKind::TimedOut.into());
            }
            if pauses_now {
                self.pause(io, mode, pauses.next(), &e)?;
            }
        }
    }

    /// Waits before a receive is retried after a transient error.
    #[cold]
    fn pause(
        &self,
        io: &InUse<'_>,
        mode: &WaitMode,
        pause: Duration,
        error: &io::Error,
    ) -> std::result::Result<(), Cause> {
        self.0.retried.fetch_add(1, Ordering::Relaxed);
        self.0.retries.retried(&self.0.endpoint, error);
        let until = mode.deadline.earlier(Deadline::after(Some(pause)));
        let is_over = || io.is_closed() || self.0.deaf.load(Ordering::Acquire);
        match wait(None, until, mode.cancel.as_ref(), is_over) {
            // The kernel has no memory for a poll.
            Err(Cause::Os(_)) => sleep(until.remaining().unwrap_or(pause)),
            other => drop(other?),
        }
        Ok(())
    }

    /// Whether a receive without a result means that the socket was shut down.
    #[inline]
    pub(super) fn is_over(&self, io: &InUse<'_>, received: &Received) -> bool {
        received.from.is_none()
            && match self.0.side {
                Side::Inet(_) => true,
                // An empty datagram from a sender without a name looks the same.
                Side::Unix(_) => received.original_len == 0 && is_shut_down(io),
            }
    }

    /// Returns the metadata to report; `None` if the sender may not send to this socket.
    #[inline(always)]
    pub(super) fn facts<'a>(
        &'a self,
        received: &'a mut Received,
        destination: &'a mut Destination,
    ) -> Option<Facts<'a>> {
        if let (Side::Unix(unix), Some(data)) = (&self.0.side, &mut received.ancillary) {
            unix.hide(&mut data.details);
        }
        let received = &*received;
        let ancillary = received.ancillary.as_ref();
        let details = ancillary.map(|data| &data.details);
        let (from, to, local) = match &self.0.side {
            Side::Inet(inet) => {
                let Some(from @ Address::Inet(_)) = &received.from else {
                    return None;
                };
                if inet.peer().is_some_and(|peer| !is_from(from, peer)) {
                    return None;
                }
                if let Some(data) = ancillary {
                    let at = |ip| inet.at(ip, data.details.interface);
                    *destination = Destination { to: data.to.map(at), local: data.local.map(at) };
                }
                let to = destination.to.as_ref().or(inet.own.as_ref());
                (from, to, destination.local.as_ref().or(inet.answers_from.as_ref()))
            }
            Side::Unix(unix) => {
                let from = received.from.as_ref().unwrap_or(&Address::UnixUnnamed);
                if unix.peer.get().is_some_and(|peer| !peer.is(from)) {
                    return None;
                }
                let sender = details.and_then(|details| details.credentials);
                if !unix.may_send(sender.map(|sender| sender.uid)) {
                    unix.denied.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                (from, None, None)
            }
        };
        let Received { len, original_len, truncated, .. } = *received;
        Some(Facts { len, original_len, truncated, from, to, local, details })
    }
}

impl WaitMode {
    /// Counts datagrams of denied senders. Such senders do not extend a deadline or a non-blocking
    /// call.
    #[inline]
    pub(super) fn skip(&self, skipped: &mut usize, more: usize) -> std::result::Result<(), Cause> {
        *skipped += more;
        if self.nonblocking && *skipped >= MAX_SKIPPED {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.deadline.has_passed() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Unix {
    /// Removes metadata that the kernel reports and the program did not request.
    #[inline]
    fn hide(&self, details: &mut Details) {
        if !self.details.load(Ordering::Relaxed) {
            details.at = None;
            details.credentials = details.credentials.filter(|_| !self.users.is_empty());
        }
    }
}

/// Whether a datagram comes from the peer. A zone is not compared.
#[inline]
pub(super) fn is_from(sender: &Address, peer: SocketAddr) -> bool {
    matches!(sender, Address::Inet(from) if (from.ip(), from.port()) == (peer.ip(), peer.port()))
}

impl UnixPeer {
    /// The kernel filters other senders while the peer exists.
    fn is(&self, from: &Address) -> bool {
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) == *from
    }
}

impl Inet {
    /// An address of this machine, with the port of this socket.
    fn at(&self, ip: IpAddr, interface: u32) -> SocketAddr {
        match ip {
            // A link-local address needs the zone of the receiving interface.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddrV6::new(v6, self.local.port(), 0, interface).into()
            }
            ip => SocketAddr::new(ip, self.local.port()),
        }
    }
}
