//! Receiving: one by one, and in batches.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::Ordering;

use super::{Datagram, DatagramSocket, Incoming, Inet, Patience, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::info::Address;
use crate::sys::{self, AT_ONCE, InUse, Interest, Received, Wait};
use crate::wait::{Cause, Deadline};

pub(super) const RECEIVE: &str = "receive";

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
        let io = self.enter(RECEIVE)?;
        let patience = self.patience(self.deadline(&self.0.read_timeout));
        if self.0.coalesced.is_some() {
            let mut one = [Incoming::new(buf)];
            self.recv_some(&io, &patience, &mut one)?;
            let [one] = one;
            return one.datagram.ok_or_else(|| self.not_received(ErrorKind::Closed.into()));
        }
        let control = self.0.control.load(Ordering::Relaxed);
        loop {
            let call = |wait| sys::recv_datagram(io.socket(), buf, control, wait);
            let received = self.recv_step(&io, &patience, call);
            let received = received.map_err(|cause| self.not_received(cause))?;
            if self.is_over(&received) {
                return Err(self.not_received(ErrorKind::Closed.into()));
            }
            // Otherwise it was in the queue before the socket was connected.
            if let Some(datagram) = self.told(received) {
                return Ok(datagram);
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

    fn recv_some(
        &self,
        io: &InUse<'_>,
        patience: &Patience,
        batch: &mut [Incoming<'_>],
    ) -> Result<usize> {
        if batch.is_empty() {
            return Ok(0);
        }
        let got = match &self.0.coalesced {
            Some(coalesced) => self.recv_coalesced(coalesced, io, patience, batch),
            None => self.recv_apart(io, patience, batch),
        };
        got.map_err(|cause| self.not_received(cause))
    }

    fn recv_apart(
        &self,
        io: &InUse<'_>,
        patience: &Patience,
        batch: &mut [Incoming<'_>],
    ) -> std::result::Result<usize, Cause> {
        let control = self.0.control.load(Ordering::Relaxed);
        let count = batch.len().min(AT_ONCE);
        loop {
            let mut over = false;
            let mut bufs: [_; AT_ONCE] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let mut told: [Option<&mut Option<Datagram>>; AT_ONCE] = [const { None }; AT_ONCE];
            for ((buf, told), one) in bufs.iter_mut().zip(&mut told).zip(batch.iter_mut()) {
                *buf = IoSliceMut::new(one.buf);
                *told = Some(&mut one.datagram);
            }
            let bufs = &mut bufs[..count];
            let call = |wait| {
                sys::recv_datagrams(io.socket(), bufs, control, wait, |at, received| {
                    over |= self.is_over(&received);
                    if let Some(told) = &mut told[at] {
                        **told = self.told(received);
                    }
                })
            };
            let got = self.recv_step(io, patience, call)?;
            let mut kept = 0;
            for at in 0..got {
                if batch[at].datagram.is_some() {
                    if kept != at {
                        batch.swap(kept, at);
                    }
                    kept += 1;
                }
            }
            match kept {
                0 if over => return Err(ErrorKind::Closed.into()),
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
                Err(Cause::Os(e)) if sys::is_reported(&e) => {
                    if self.take_reported(io) == 0 {
                        self.keep_untold(&e);
                    }
                    if patience.deadline.has_passed() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    /// Nothing was received: somebody has shut the socket down.
    pub(super) fn is_over(&self, received: &Received) -> bool {
        received.from.is_none() && matches!(self.0.side, Side::Inet(_))
    }

    /// What is told of a datagram; `None`: it is from somebody else than the peer.
    #[inline]
    pub(super) fn told(&self, received: Received) -> Option<Datagram> {
        let (from, to, local) = match (&self.0.side, received.from) {
            (Side::Inet(inet), Some(Address::Inet(from))) => {
                if inet.peer.is_some_and(|p| (p.ip(), p.port()) != (from.ip(), from.port())) {
                    return None;
                }
                let here = |ip| inet.here(ip, received.interface);
                // Not told to a socket with one address: it is that one.
                let own = Some(inet.local).filter(|own| !own.ip().is_unspecified());
                let local = received.local.map(here).or(own.filter(|o| !o.ip().is_multicast()));
                (Address::Inet(from), received.to.map(here).or(own), local)
            }
            (Side::Inet(_), _) => return None,
            (Side::Unix(_), from) => (from.unwrap_or(Address::UnixUnnamed), None, None),
        };
        Some(Datagram {
            len: received.len,
            original_len: received.original_len,
            truncated: received.truncated,
            from,
            to,
            local,
            interface: (received.interface != 0).then_some(received.interface),
            ttl: received.ttl,
            tos: received.tos,
            received_at: received.at,
        })
    }
}

impl Inet {
    fn here(&self, ip: IpAddr, interface: u32) -> SocketAddr {
        match ip {
            // Link-local: of the interface by which it came.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddrV6::new(v6, self.local.port(), 0, interface).into()
            }
            ip => SocketAddr::new(ip, self.local.port()),
        }
    }
}
