//! Receiving: one by one, and in batches.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{Datagram, DatagramSocket, Incoming, Inet, Patience, Side, UnixPeer, is_shut_down};
use crate::error::{Error, ErrorKind, Result};
use crate::info::Address;
use crate::sys::{self, Buffers, Details, InUse, Interest, Received, Wait};
use crate::wait::{Cause, Deadline};

pub(super) const RECEIVE: &str = "receive";

/// What is told of a datagram, before it is put where somebody wants it.
pub(crate) struct Facts<'a> {
    pub len: usize,
    pub original_len: usize,
    pub truncated: bool,
    pub from: &'a Address,
    pub to: Option<&'a SocketAddr>,
    pub local: Option<&'a SocketAddr>,
    /// None: the kernel was not asked.
    pub details: Option<&'a Details>,
}

/// The addresses that a datagram came to, and is answered from, where it may have come to several.
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
    /// Has what is told of it put somewhere else.
    pub(crate) fn tell<T>(&self, take: impl FnOnce(&Facts<'_>) -> T) -> T {
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

/// Where a batch is received into: the buffers of Rust's callers, and of C's.
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
    /// Receives one datagram. What does not fit into `buf` is lost, and
    /// [`truncated`](Datagram::truncated) says so. Several threads may receive at once.
    ///
    /// What ICMP said of datagrams that were sent ends no receiving: it goes on, and
    /// [`recv_error`](DatagramSocket::recv_error) tells of it. Descriptors that come along are
    /// closed.
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
        self.recv_with(buf, |facts| facts.datagram())
    }

    pub(crate) fn recv_with<T>(&self, buf: &mut [u8], take: impl Fn(&Facts<'_>) -> T) -> Result<T> {
        let io = self.enter(RECEIVE)?;
        let patience = self.patience(self.deadline(&self.0.read_timeout));
        if self.0.coalesced.is_some() {
            let mut one = [Incoming::new(buf)];
            self.recv_some(&io, &patience, one.as_mut_slice())?;
            let [one] = one;
            let taken = one.datagram.as_ref().map(|datagram| datagram.tell(&take));
            return taken.ok_or_else(|| self.not_received(ErrorKind::Closed.into()));
        }
        let control = self.0.control.load(Ordering::Relaxed);
        loop {
            // A new one each time: the kernel does not tell the same of each.
            let mut received = Received::default();
            let call = |wait| sys::recv_datagram(io.socket(), buf, control, wait, &mut received);
            if let Err(cause) = self.recv_step(&io, &patience, call) {
                return Err(self.not_received(cause));
            }
            if self.is_over(&io, &received) {
                return Err(self.not_received(ErrorKind::Closed.into()));
            }
            // Otherwise it was in the queue before the socket was connected.
            if let Some(facts) = self.facts(&received, &mut Destination::default()) {
                return Ok(take(&facts));
            }
            if patience.deadline.has_passed() {
                return Err(self.not_received(ErrorKind::TimedOut.into()));
            }
        }
    }

    /// Receives as many datagrams as there are, and at least one, one into each buffer; how
    /// many. It waits for the first only. On Linux that is one system call for up to 64 of them
    /// (recvmmsg), which is the most for one call everywhere. Buffers of a connected socket, and of
    /// one that only [some users](crate::SocketOptions::allow_user) may send to, may change their
    /// places.
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
        self.recv_into(batch)
    }

    pub(crate) fn recv_into<B: Batch + ?Sized>(&self, batch: &mut B) -> Result<usize> {
        let io = self.enter(RECEIVE)?;
        let patience = self.patience(self.deadline(&self.0.read_timeout));
        self.recv_some(&io, &patience, batch)
    }

    /// For [serving](DatagramSocket::serve), which waits whatever the calls of others are set to.
    pub(super) fn recv_for_serve(&self, batch: &mut [Incoming<'_>]) -> Result<usize> {
        let io = self.enter(RECEIVE)?;
        let patience = Patience { nonblocking: false, ..self.patience(Deadline(None)) };
        self.recv_some(&io, &patience, batch)
    }

    fn recv_some<B: Batch + ?Sized>(
        &self,
        io: &InUse<'_>,
        patience: &Patience,
        batch: &mut B,
    ) -> Result<usize> {
        if batch.count() == 0 {
            return Ok(0);
        }
        let got = match &self.0.coalesced {
            Some(coalesced) => self.recv_coalesced(coalesced, io, patience, batch),
            None => self.recv_apart(io, patience, batch),
        };
        got.map_err(|cause| self.not_received(cause))
    }

    fn recv_apart<B: Batch + ?Sized>(
        &self,
        io: &InUse<'_>,
        patience: &Patience,
        batch: &mut B,
    ) -> std::result::Result<usize, Cause> {
        let control = self.0.control.load(Ordering::Relaxed);
        loop {
            let (mut kept, mut over) = (0, false);
            let mut told = |batch: &mut B, at, received: &Received| {
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
            self.recv_step(io, patience, |wait| {
                sys::recv_datagrams(io.socket(), batch, control, wait, &mut told)
            })?;
            match kept {
                0 if over => return Err(ErrorKind::Closed.into()),
                0 if patience.deadline.has_passed() => return Err(ErrorKind::TimedOut.into()),
                0 => {}
                kept => return Ok(kept),
            }
        }
    }

    #[cold]
    fn not_received(&self, cause: Cause) -> Error {
        self.failed(RECEIVE, cause, None)
    }

    /// One call of the kernel that receives, waiting as this socket waits, whatever ICMP says.
    pub(super) fn recv_step<T>(
        &self,
        io: &InUse<'_>,
        patience: &Patience,
        mut call: impl FnMut(Wait) -> io::Result<T>,
    ) -> std::result::Result<T, Cause> {
        loop {
            match self.step(io, patience, Interest::Read, &mut call) {
                Err(Cause::Os(e)) => {
                    // Whatever ICMP says, and it may say much, it is about something else.
                    match self.take_reported(io) {
                        0 if !sys::is_reported(&e) => return Err(e.into()),
                        0 => self.keep_untold(&e),
                        _ => {}
                    }
                    if patience.deadline.has_passed() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    /// Nothing was received: the socket has been shut down.
    #[inline]
    pub(super) fn is_over(&self, io: &InUse<'_>, received: &Received) -> bool {
        received.from.is_none()
            && match self.0.side {
                Side::Inet(_) => true,
                // An empty datagram of a sender without a name looks the same.
                Side::Unix(_) => received.original_len == 0 && is_shut_down(io),
            }
    }

    /// What is to be told of a datagram; `None`: whoever sent it may not send here.
    #[inline(always)]
    pub(super) fn facts<'a>(
        &'a self,
        received: &'a Received,
        destination: &'a mut Destination,
    ) -> Option<Facts<'a>> {
        let ancillary = received.ancillary.as_ref();
        let details = ancillary.map(|data| &data.details);
        let (from, to, local) = match &self.0.side {
            Side::Inet(inet) => {
                let Some(from @ Address::Inet(sender)) = &received.from else {
                    return None;
                };
                if inet.peer.is_some_and(|p| (p.ip(), p.port()) != (sender.ip(), sender.port())) {
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
                if unix.peer.as_ref().is_some_and(|peer| !peer.is(from)) {
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

impl UnixPeer {
    /// The kernel keeps strangers out as long as the peer is there.
    fn is(&self, from: &Address) -> bool {
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) == *from
    }
}

impl Inet {
    /// An address of this machine, with this socket's port.
    fn at(&self, ip: IpAddr, interface: u32) -> SocketAddr {
        match ip {
            // Link-local: of the interface by which it came.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddrV6::new(v6, self.local.port(), 0, interface).into()
            }
            ip => SocketAddr::new(ip, self.local.port()),
        }
    }
}
