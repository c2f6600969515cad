//! What ICMP says of datagrams that were sent.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::receive::RECEIVE;
use super::{DatagramSocket, Inet, Side};
use crate::error::{ErrorKind, Result};
use crate::sys::{self, InUse};

/// How many errors are kept for [`DatagramSocket::recv_error`]; then the oldest go.
const KEPT_ERRORS: usize = 64;

/// How many errors are taken from the kernel at once, so that whoever causes them keeps no call
/// busy for long.
const ERRORS_AT_ONCE: usize = 256;

/// An error that was reported for a datagram that this socket sent: [`DatagramSocket::recv_error`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramError {
    /// What: [`Refused`](ErrorKind::Refused) if nobody has the port, or the protocol, there,
    /// [`Unreachable`](ErrorKind::Unreachable), [`TooLong`](ErrorKind::TooLong) for the way,
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) by a firewall; else
    /// [`Os`](ErrorKind::Os).
    pub kind: ErrorKind,
    /// The operating system's error number.
    pub os_error: Option<i32>,
    /// Where the datagram had been sent to, if that was told.
    pub to: Option<SocketAddr>,
    /// Who reported it: the receiving machine or a router on the way, if that was told.
    pub from: Option<IpAddr>,
    /// With [`TooLong`](ErrorKind::TooLong): how long a packet on that way may be, its headers
    /// included, if that was told.
    pub path_mtu: Option<u32>,
}

impl DatagramError {
    /// What is known without a report: the error, and to whom a connected socket sends.
    fn unknown(err: &io::Error, peer: Option<SocketAddr>) -> DatagramError {
        let kind = sys::reported_kind(err);
        DatagramError { kind, os_error: err.raw_os_error(), to: peer, from: None, path_mtu: None }
    }
}

impl DatagramSocket {
    /// Whether what ICMP says of datagrams that were sent is kept for
    /// [`recv_error`](DatagramSocket::recv_error). A connected socket has it on, a bound one off:
    /// there the kernel keeps such errors to itself unless it is asked (IP_RECVERR of ip(7),
    /// Linux).
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux, and for Unix sockets,
    /// whose errors come with the call; [`Closed`](ErrorKind::Closed).
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
        let io = self.enter(OPERATION)?;
        let inet = self.inet(OPERATION)?;
        sys::report_errors(io.socket(), inet.ipv6, on)
            .map_err(|e| self.failed(OPERATION, e.into(), None))?;
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
        let io = self.0.descriptor.enter();
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
        self.0.error_count.load(Ordering::Relaxed)
    }

    fn inet_peer(&self) -> Option<SocketAddr> {
        match &self.0.side {
            Side::Inet(inet) => inet.peer,
            Side::Unix(_) => None,
        }
    }

    fn kept_errors(&self) -> MutexGuard<'_, VecDeque<DatagramError>> {
        self.0.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_error(&self, error: DatagramError) {
        self.0.error_count.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept_errors();
        if kept.len() == KEPT_ERRORS {
            kept.pop_front();
        }
        kept.push_back(error);
    }

    /// Keeps the error of a call, where there is no queue. Where there is one it had been taken
    /// from there already: Linux queues an error before it gives it to the next call, and another
    /// thread may come between; or nobody wants to know.
    pub(super) fn keep_untold(&self, err: &io::Error) {
        if !sys::REPORTS {
            self.keep_error(DatagramError::unknown(err, self.inet_peer()));
        }
    }

    /// Takes what the kernel has queued; how much that was. While something is there, a poll does
    /// not wait, so it must not stay.
    pub(super) fn take_reported(&self, io: &InUse<'_>) -> usize {
        self.take_reports(io).count
    }

    pub(super) fn take_reports(&self, io: &InUse<'_>) -> Taken {
        let mut taken = Taken { count: 0, local: None };
        let Side::Inet(Inet { peer, .. }) = self.0.side else {
            // It has no such queue, and the kernel would take a datagram instead.
            return taken;
        };
        while taken.count < ERRORS_AT_ONCE {
            let Ok(Some(reported)) = sys::next_reported(io.socket()) else {
                break;
            };
            taken.count += 1;
            if reported.local {
                taken.local = Some(reported.code);
            }
            let mut error =
                DatagramError::unknown(&io::Error::from_raw_os_error(reported.code), peer);
            error.to = reported.to.or(error.to);
            (error.from, error.path_mtu) = (reported.by, reported.mtu);
            self.keep_error(error);
        }
        taken
    }
}

/// What was taken from the kernel's queue of errors.
pub(super) struct Taken {
    pub count: usize,
    /// What this machine said of a datagram that it was to send.
    pub local: Option<i32>,
}
