//! Receiving the header of the PROXY protocol on an accepted connection.

use std::io;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use super::ClientSocket;
use super::flags::{NONBLOCKING, PROXY_PENDING, READ_TIMEOUT};
use crate::io::deadline::Deadline;
use crate::io::timeout::CallTimeout;
use crate::io::wait::Cause;
use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::{self, InUse, Interest, Tick, Wait};
use crate::types::address::Address;
use crate::types::close_reason::CloseReason;
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::proxy::{HeaderParser, HeaderState, LOOK, Proxied};

const OPERATION: &str = "PROXY header";

/// The header of one connection.
#[derive(Debug)]
pub(super) struct ProxyHead {
    parser: Mutex<HeaderParser>,
    deadline: Deadline,
    proxied: OnceLock<Proxied>,
    /// Counts connections that are reset because of their header. A service counts them itself.
    rejected: Option<Arc<AtomicU64>>,
}

impl ProxyHead {
    pub(super) fn new(timeout: Duration, rejected: Option<&Arc<AtomicU64>>) -> ProxyHead {
        ProxyHead {
            parser: Mutex::default(),
            deadline: Deadline::after(Some(timeout)),
            proxied: OnceLock::new(),
            rejected: rejected.cloned(),
        }
    }

    fn lock_parser(&self) -> MutexGuard<'_, HeaderParser> {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A header that was received, from a proxy that stated the addresses of a client.
    #[cfg(feature = "serve")]
    pub(super) fn received(source: Address, destination: Address) -> ProxyHead {
        let proxied = OnceLock::from(Proxied::Client { source, destination });
        let (parser, deadline, rejected) = (Mutex::default(), Deadline(None), None);
        ProxyHead { parser, deadline, proxied, rejected }
    }
}

impl ClientSocket {
    /// Waits for the PROXY header of a connection that was accepted from a
    /// [`trusted_proxy`](crate::SocketOptions::trusted_proxy), and receives it. The five-tuple is that
    /// of the proxy's client from then on. A read does the same first, so only a program that needs the
    /// address before it reads calls this function. In non-blocking mode the call does not wait.
    /// Without a header to receive the call returns immediately.
    ///
    /// No byte after the header is lost. If the proxy states that the connection is its own (LOCAL,
    /// UNKNOWN), the five-tuple does not change.
    ///
    /// # Errors
    /// After the first two, the connection is reset.
    /// - [`Malformed`](ErrorKind::Malformed): the first bytes are not a header, or the proxy closed its
    ///   side within it.
    /// - [`IdleTimeout`](ErrorKind::IdleTimeout): the header did not arrive within the
    ///   [`proxy_timeout`](crate::SocketOptions::proxy_timeout).
    /// - [`WouldBlock`](ErrorKind::WouldBlock): in non-blocking mode, the header is incomplete.
    #[doc = end_errors!()]
    /// - [`Cancelled`](ErrorKind::Cancelled): the cancel token was fired.
    /// - [`Closed`](ErrorKind::Closed): this program closed the connection.
    /// - [`Draining`](ErrorKind::Draining): the server that accepted the connection is draining.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ProxyHeader, ServerSocket, SocketOptions};
    /// let options = SocketOptions::new().trusted_proxy("127.0.0.1");
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &options)?;
    /// let proxy = ClientSocket::connect(server.endpoint())?;
    /// proxy.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nhello\n")?;
    /// let client = server.accept()?;
    /// client.read_proxy_header()?;
    /// assert_eq!(client.five_tuple().remote.to_string(), "192.0.2.1:56324");
    /// assert_eq!(client.proxy_address(), Some(proxy.five_tuple().local));
    /// assert_eq!(client.read_line(100)?, "hello");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn read_proxy_header(&self) -> Result<()> {
        let io = self.enter(OPERATION)?;
        if self.has(PROXY_PENDING) { self.wait_for_header(&io, Deadline(None)) } else { Ok(()) }
    }

    /// The address of the proxy, if the connection has a client behind a proxy and its header was
    /// received. The five-tuple then has the addresses of the client.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// assert_eq!(client.proxy_address(), None);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn proxy_address(&self) -> Option<Address> {
        self.proxied().map(|_| self.remote.clone())
    }

    /// Whether the PROXY header was not received yet.
    #[cfg(feature = "serve")]
    pub(crate) fn awaits_proxy_header(&self) -> bool {
        self.has(PROXY_PENDING)
    }

    /// The addresses of the client behind a proxy: the client's own, and the one that it connected
    /// to.
    pub(crate) fn proxied(&self) -> Option<(&Address, &Address)> {
        match self.cold.get()?.proxy.get()?.proxied.get()? {
            Proxied::Client { source, destination } => Some((source, destination)),
            Proxied::Own => None,
        }
    }

    /// Receives the header before the first data, within the read timeout. Returns the start of that
    /// timeout, which the read continues.
    #[cold]
    pub(super) fn read_header_first(&self, io: &InUse<'_>) -> Result<Option<Tick>> {
        let start = self.has(READ_TIMEOUT).then(Tick::now);
        let timeout = CallTimeout::new(&self.read_timeout, start);
        self.wait_for_header(io, timeout.deadline())?;
        Ok(start)
    }

    /// The time until the connection is reset unless its header arrives. `None`: there is no header to
    /// receive.
    pub(super) fn header_deadline(&self) -> Option<Deadline> {
        let head = self.cold.get()?.proxy.get().filter(|_| self.has(PROXY_PENDING))?;
        Some(head.deadline)
    }

    /// Receives the header if it is there. Resets the connection if it is incomplete at its deadline.
    /// A call that does not read applies the deadline by this function.
    #[cold]
    pub(super) fn check_header(&self, io: &InUse<'_>) -> Result<()> {
        let Some(head) = self.cold().proxy.get() else {
            return Ok(());
        };
        // A thread that waits for the header holds the lock, and applies the deadline itself.
        if !head.deadline.has_passed() {
            return Ok(());
        }
        match self.try_header(io, head, &mut head.lock_parser())? {
            Progress::Complete => Ok(()),
            Progress::Incomplete => Err(self.reject_late_header(head)),
        }
    }

    #[cold]
    fn wait_for_header(&self, io: &InUse<'_>, limit: Deadline) -> Result<()> {
        let _disabled = sys::CancellationDisabled::new();
        let Some(head) = self.cold().proxy.get() else {
            return Ok(());
        };
        // Another thread that receives the header waits no longer than the deadline.
        let mut parser = head.lock_parser();
        loop {
            match self.try_header(io, head, &mut parser)? {
                Progress::Complete => return Ok(()),
                Progress::Incomplete if head.deadline.has_passed() => {
                    return Err(self.reject_late_header(head));
                }
                Progress::Incomplete if self.has(NONBLOCKING) => {
                    return Err(self.failed(OPERATION, self.would_block(), 0));
                }
                Progress::Incomplete => {}
            }
            match self.wait_ready(io, Interest::Read, head.deadline.earlier(limit)) {
                Ok(()) => {}
                // The last bytes of the header may have arrived at the deadline.
                Err(Cause::Kind(ErrorKind::TimedOut)) if head.deadline.has_passed() => {}
                Err(cause) => return Err(self.failed(OPERATION, cause, 0)),
            }
        }
    }

    /// Receives the part of the header that is there. Resets the connection if it is malformed. After
    /// a limit has ended the connection, a header is not received.
    fn try_header(
        &self,
        io: &InUse<'_>,
        head: &ProxyHead,
        parser: &mut HeaderParser,
    ) -> Result<Progress> {
        loop {
            if !self.has(PROXY_PENDING) {
                return Ok(Progress::Complete);
            }
            // Another thread may have reset the connection because of its header.
            if self.is_closing(io) {
                return Err(self.closed_error(OPERATION));
            }
            if self.limit_end().is_some() {
                return Ok(Progress::Incomplete);
            }
            match receive_header(io.socket(), parser) {
                Ok(Some(HeaderState::Complete(proxied))) => {
                    let _ = head.proxied.set(proxied);
                    self.flags.fetch_and(!PROXY_PENDING, Ordering::Release);
                    let cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
                    self.choose_mode(cancel.as_ref());
                    return Ok(Progress::Complete);
                }
                Ok(Some(HeaderState::Malformed(why))) => {
                    // After an error the kernel reports the end of the stream.
                    if let Some(cause) = self.recorded_error(io) {
                        return Err(self.failed(OPERATION, cause, 0));
                    }
                    return Err(self.reject_header(head, ErrorKind::Malformed, why));
                }
                Ok(Some(HeaderState::Incomplete)) => {}
                Ok(None) => return Ok(Progress::Incomplete),
                Err(e) => {
                    let cause = self.record_error(io, &e);
                    return Err(self.failed(OPERATION, cause, 0));
                }
            }
        }
    }

    /// Resets a connection whose header is incomplete at its deadline. A connection that a limit has
    /// ended before keeps that end.
    #[cold]
    fn reject_late_header(&self, head: &ProxyHead) -> Error {
        let kind = self.limit_end().map_or(ErrorKind::IdleTimeout, |cause| cause.kind());
        self.reject_header(head, kind, "the header is incomplete")
    }

    /// Resets the connection because of its header.
    #[cold]
    fn reject_header(&self, head: &ProxyHead, kind: ErrorKind, why: &str) -> Error {
        let error = self.failed(OPERATION, kind.into(), 0).detail(why.to_owned());
        self.set_close_reason(match kind {
            ErrorKind::Malformed => CloseReason::MessageMalformed,
            _ => CloseReason::IdleTimeout,
        });
        if let Some(rejected) = &head.rejected {
            rejected.fetch_add(1, Ordering::Relaxed);
        }
        self.abort();
        error
    }
}

/// The state of the header after the received bytes.
enum Progress {
    Complete,
    Incomplete,
}

/// Receives the bytes of a header that are there, and no byte after it. `None`: there are none.
pub(crate) fn receive_header(
    socket: sys::Borrowed<'_>,
    parser: &mut HeaderParser,
) -> io::Result<Option<HeaderState>> {
    let mut buf = [0; LOOK];
    let seen = loop {
        match sys::peek(socket, &mut buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
            Ok(seen) => break seen,
        }
    };
    if seen == 0 {
        return Ok(Some(HeaderState::Malformed("the peer closed its side before the end")));
    }
    let (header, state) = parser.clone().feed(&buf[..seen]);
    if header == 0 {
        return Ok(Some(state));
    }
    // The parser reads the bytes that were received. If the receive fails, they are still there, and
    // the next call sees them again.
    let received = loop {
        match sys::recv(socket, &mut buf[..header], Wait::No) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            received => break received?,
        }
    };
    let (_, state) = parser.feed(&buf[..received]);
    Ok(Some(state))
}
