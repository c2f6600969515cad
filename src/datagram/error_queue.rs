//! Errors that ICMP reports for sent datagrams.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;

use super::construct::report_errors;
use super::recv::RECEIVE;
use super::{DatagramSocket, Side, must_poll};
use crate::io::wait::Cause;
use crate::sys::sync::MutexGuard;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, InUse};
use crate::types::error::{About, ErrorKind, Result};

/// The number of errors kept for [`DatagramSocket::recv_error`]. Older errors are discarded.
const KEPT_ERRORS: usize = 64;

/// The number of entries taken from the kernel's error queue in one call, so that a peer that causes
/// many errors does not delay the call.
const ERRORS_AT_ONCE: usize = 256;

/// An error reported for a datagram that this socket sent: [`DatagramSocket::recv_error`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramError {
    /// The kind: [`Refused`](ErrorKind::Refused) if no socket has the destination port,
    /// [`Unreachable`](ErrorKind::Unreachable) if a router or firewall rejected it (host, network or
    /// protocol unreachable, administratively prohibited), [`TooLong`](ErrorKind::TooLong) if it exceeded
    /// the path MTU, otherwise [`Os`](ErrorKind::Os).
    pub kind: ErrorKind,
    /// The operating system's error number.
    pub os_error: Option<i32>,
    /// The destination of the datagram, if reported.
    pub to: Option<SocketAddr>,
    /// The node that reported the error: the destination or a router, if known.
    pub from: Option<IpAddr>,
    /// With [`TooLong`](ErrorKind::TooLong): the path MTU in bytes, headers included, if reported.
    pub path_mtu: Option<u32>,
}

impl DatagramError {
    /// An error without a report: its kind, and the peer of a connected socket.
    fn unknown(err: &io::Error, peer: Option<SocketAddr>) -> DatagramError {
        let kind = ErrorKind::reported(err, About::Datagram);
        DatagramError { kind, os_error: err.raw_os_error(), to: peer, from: None, path_mtu: None }
    }
}

impl DatagramSocket {
    /// Keeps ICMP errors of sent datagrams for [`recv_error`](DatagramSocket::recv_error). Default: true
    /// for a connected socket, false for a bound one, for which the kernel discards them by default
    /// (IP_RECVERR of ip(7), Linux). Windows has no queue: a receive finds the errors of port and hop limit
    /// (SIO_UDP_CONNRESET), and the destination is known for a connected socket only.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): a system other than Linux and Windows, or a Unix
    /// socket, whose calls return such errors directly. [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
    /// # use keepsock::DatagramSocket;
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// socket.set_recv_errors(true)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_recv_errors(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "error queue";
        let io = self.enter(OPERATION)?;
        let inet = self.inet(OPERATION)?;
        sys::report_errors(io.socket(), inet.ipv6, on)
            .map_err(|e| self.failed(OPERATION, e.into(), None))?;
        Ok(())
    }

    /// Makes a receive on a connected UDP socket fail with [`Refused`](ErrorKind::Refused) as soon as
    /// the peer's host reports that no socket has the peer's port (ICMP port unreachable), as plain
    /// connected sockets do. A receive that waits ends immediately. Reports that arrive before a receive
    /// end it together; on Windows each report ends one receive. Sending continues. A receive that waits
    /// then makes two system calls.
    /// [Serving](DatagramSocket::serve) continues as well. Default: false.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState): the socket is not connected.
    /// [`Unsupported`](ErrorKind::Unsupported): a Unix socket, whose calls return such errors directly.
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
    /// [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call for
    /// another reason.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let gone = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(gone.endpoint())?;
    /// gone.close();
    /// client.set_fail_on_refused(true)?;
    /// client.send(b"question")?;
    /// assert_eq!(client.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::Refused);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_fail_on_refused(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "fail_on_refused";
        let io = self.enter(OPERATION)?;
        let inet = self.inet(OPERATION)?;
        if inet.peer().is_none() {
            let error = self.failed(OPERATION, ErrorKind::WrongState.into(), None);
            return Err(error.detail("the socket is not connected: connect it first"));
        }
        let slot = self.0.cancel.lock();
        if on {
            // poll returns while the report is in the queue, also if a send of another thread fails with it.
            report_errors(io.socket(), inet.ipv6, true)
                .map_err(|e| self.failed(OPERATION, e.into(), None))?;
        }
        self.0.fails_on_refused.store(on, Ordering::Relaxed);
        self.0.refused.store(0, Ordering::Relaxed);
        let polled = on || must_poll(slot.token(), self.0.closing.as_ref());
        self.0.polled.store(polled, Ordering::Release);
        Ok(())
    }

    pub(super) fn fails_on_refused(&self) -> bool {
        self.0.fails_on_refused.load(Ordering::Relaxed)
    }

    /// Fails if the peer refused a datagram and no receive has failed because of it.
    #[inline]
    pub(super) fn take_refusal(&self) -> std::result::Result<(), Cause> {
        if self.0.refused.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.take_noted_refusal()
    }

    #[cold]
    fn take_noted_refusal(&self) -> std::result::Result<(), Cause> {
        match self.0.refused.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            code => Err(Cause::reported(&io::Error::from_raw_os_error(code), About::Datagram)),
        }
    }

    /// Takes the oldest reported error of a sent datagram; `None` if there is none. Never waits.
    ///
    /// The socket keeps at most 64 errors and discards older ones;
    /// [`DatagramStats::errors`](crate::DatagramStats::errors) counts all of them.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed): the socket was closed, and no error is left.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ErrorKind};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let gone = DatagramSocket::bind("127.0.0.1:0")?;
    /// let client = DatagramSocket::connect(gone.endpoint())?;
    /// gone.close();
    /// client.send(b"question")?;
    /// let reported = client.recv_error()?.expect("over loopback the report arrives at once");
    /// assert_eq!(reported.kind, ErrorKind::Refused);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn recv_error(&self) -> Result<Option<DatagramError>> {
        let io = self.0.descriptor.enter();
        if let Some(io) = &io {
            self.take_reported(io);
        }
        match self.kept_errors().pop_front() {
            None if io.is_none() => Err(self.failed(RECEIVE, ErrorKind::Closed.into(), None)),
            kept => Ok(kept),
        }
    }

    fn kept_errors(&self) -> MutexGuard<'_, VecDeque<DatagramError>> {
        self.0.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_error(&self, error: DatagramError) {
        self.0.error_count.fetch_add(1, Ordering::Relaxed);
        if error.kind == ErrorKind::Refused && self.fails_on_refused() {
            self.0.refused.store(error.os_error.unwrap_or(0), Ordering::Relaxed);
        }
        let mut kept = self.kept_errors();
        if kept.len() == KEPT_ERRORS {
            kept.pop_front();
        }
        kept.push_back(error);
    }

    /// Keeps the error of a call, on a system without an error queue. With a queue the error has been
    /// taken from it: Linux queues an error before a call returns it. Another thread may have taken the
    /// entry, or the program did not request reports.
    pub(super) fn keep_untold(&self, err: &io::Error) {
        if !sys::REPORTS {
            self.keep_error(DatagramError::unknown(err, self.inet_peer()));
        }
    }

    /// Takes all entries of the kernel's error queue, because the socket is being closed. The number of
    /// calls is limited, because other threads may still send. The queue of a parent process stays.
    pub(super) fn keep_reported(&self) {
        let Some(io) = self.0.descriptor.enter() else {
            return;
        };
        if !self.0.descriptor.is_inherited() {
            (0..64).find(|_| self.take_reported(&io) < ERRORS_AT_ONCE);
        }
    }

    /// Takes the entries of the kernel's error queue, and returns their number. A poll does not wait while
    /// entries remain.
    pub(super) fn take_reported(&self, io: &InUse<'_>) -> usize {
        self.take_reports(io).count
    }

    /// Takes the entries of the kernel's error queue after a send returned an error of an earlier
    /// datagram. ECONNREFUSED that a receive returns stays in the queue, so that a receive that waits
    /// in poll ends.
    pub(super) fn take_reports_after(&self, io: &InUse<'_>, err: &io::Error) -> Taken {
        let refused = err.kind() == io::ErrorKind::ConnectionRefused;
        match refused && sys::REPORTS && self.fails_on_refused() {
            true => Taken { count: 0, local: None },
            false => self.take_reports(io),
        }
    }

    fn take_reports(&self, io: &InUse<'_>) -> Taken {
        let mut taken = Taken { count: 0, local: None };
        let Side::Inet(inet) = &self.0.side else {
            // A Unix socket has no error queue, and the kernel would receive a datagram instead.
            return taken;
        };
        for _ in 0..ERRORS_AT_ONCE {
            let reported = match sys::next_reported(io.socket()) {
                Ok(Some(reported)) => reported,
                Ok(None) => continue,
                Err(_) => break,
            };
            taken.count += 1;
            if reported.local {
                taken.local = Some(reported.code);
            }
            let mut error =
                DatagramError::unknown(&io::Error::from_raw_os_error(reported.code), inet.peer());
            error.to = reported.to.or(error.to);
            (error.from, error.path_mtu) = (reported.by, reported.mtu);
            self.keep_error(error);
        }
        taken
    }
}

/// The result of reading the kernel's error queue.
pub(super) struct Taken {
    pub count: usize,
    /// An error that this machine reported to the sending call.
    pub local: Option<i32>,
}
