//! The descriptor of a connection: its mode, its cancel token, borrowing and releasing it.

use std::sync::PoisonError;

use super::ClientSocket;
use super::flags::{
    FD_SHARED, HALF_CLOSED, NONBLOCK_PENDING, NONBLOCK_PINNED, NONBLOCKING, PROXY_PENDING,
    USES_POLL,
};
use crate::io::cancel::CancelToken;
use crate::stream::liveness::policy::Liveness;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, InUse, Owned};
use crate::types::error::{Bytes, ErrorKind, IN_USE, Result};

/// A borrowed descriptor, from [`ClientSocket::borrow`] or
/// [`ServerSocket::borrow`](crate::ServerSocket::borrow). The descriptor stays open while this
/// object exists.
///
/// ```
/// # use keepsock::{ClientSocket, ServerSocket};
/// # let server = ServerSocket::listen("127.0.0.1:0")?;
/// # let client = ClientSocket::connect(server.endpoint())?;
/// let borrowed = client.borrow()?;
/// # #[cfg(unix)]
/// let duplicate = std::os::fd::AsFd::as_fd(&borrowed).try_clone_to_owned().is_ok();
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct BorrowedSocket<'a>(pub(crate) sys::Hold<'a>);

#[cfg(unix)]
impl std::os::fd::AsFd for BorrowedSocket<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.socket()
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsSocket for BorrowedSocket<'_> {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        self.0.socket()
    }
}

impl ClientSocket {
    /// Turns non-blocking mode on or off. In non-blocking mode, calls that would have to wait return
    /// [`WouldBlock`](ErrorKind::WouldBlock), and the descriptor has O_NONBLOCK. Calls that already
    /// wait are not affected.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.set_nonblocking(true)?;
    /// let err = client.read(&mut [0; 8]).unwrap_err();
    /// assert_eq!(err.kind(), keepsock::ErrorKind::WouldBlock);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        let io = self.enter("non-blocking mode")?;
        let changed = {
            let _mode = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
            if on {
                self.flags.fetch_or(NONBLOCKING, Ordering::AcqRel);
            }
            let changed = if self.has(NONBLOCK_PENDING | NONBLOCK_PINNED) {
                Ok(()) // The descriptor is non-blocking, and may stay so until a call waits.
            } else {
                sys::set_nonblocking(io.socket(), on || !sys::BLOCKING_CALLS)
            };
            if on {
                self.flags.fetch_and(!NONBLOCK_PENDING, Ordering::AcqRel);
            } else if changed.is_ok() {
                self.flags.fetch_and(!NONBLOCKING, Ordering::AcqRel);
            }
            changed
        };
        changed.map_err(|e| self.os_failed("non-blocking mode", e))
    }

    /// Sets the cancel token of the socket. While the token is fired, calls return
    /// [`Cancelled`](ErrorKind::Cancelled). `None` removes the token. Calls in progress keep the
    /// token with which they started.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let token = keepsock::CancelToken::new()?;
    /// client.set_cancel(Some(&token));
    /// token.fire();
    /// let err = client.read(&mut [0; 8]).unwrap_err();
    /// assert_eq!(err.kind(), keepsock::ErrorKind::Cancelled);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_cancel(&self, token: Option<&CancelToken>) {
        let mut cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        *cancel = token.cloned();
        self.choose_mode(cancel.as_ref());
    }

    /// Selects whether calls wait in poll or in the system call itself. The caller holds the lock of
    /// the cancel token.
    pub(super) fn choose_mode(&self, cancel: Option<&CancelToken>) {
        if self.needs_poll(cancel) {
            self.flags.fetch_or(USES_POLL, Ordering::AcqRel);
        } else if sys::BLOCKING_CALLS {
            self.flags.fetch_and(!USES_POLL, Ordering::AcqRel);
        }
    }

    /// Whether something other than the system call may end a call that waits.
    pub(super) fn needs_poll(&self, cancel: Option<&CancelToken>) -> bool {
        // The calls that only make one system call would not see an end by a limit.
        let has_dues = |live: &Liveness| live.config().has_dues() || self.limit_end().is_some();
        // A call that waits in the kernel would not see the deadline of the PROXY header.
        let polls = cancel.is_some() || self.has(PROXY_PENDING);
        polls || self.liveness().is_some_and(has_dues)
    }

    /// Borrows the descriptor, for an event loop or for a socket option that keepsock does not have.
    /// The descriptor stays open while the result exists, even if another thread closes the socket.
    ///
    /// poll(2) on the descriptor does not report [buffered](ClientSocket::buffered) bytes.
    ///
    /// On Linux the descriptor is in blocking mode unless
    /// [`set_nonblocking`](ClientSocket::set_nonblocking) has turned non-blocking mode on. On other
    /// systems it stays non-blocking until it is [released](ClientSocket::release), because their
    /// send(2) may wait despite MSG_DONTWAIT (macOS).
    ///
    /// The kernel reports a reset once. On Linux the library still detects a reset of a TCP
    /// connection after the program has read SO_ERROR of the descriptor, or after a forked child has
    /// received the reset. A Unix socket keeps no trace of the reset, and reads then report the end of
    /// the stream. A program must not read SO_ERROR of a Unix socket.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # #[cfg(unix)] {
    /// use std::os::fd::{AsFd, AsRawFd};
    /// println!("descriptor {}", client.borrow()?.as_fd().as_raw_fd());
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn borrow(&self) -> Result<BorrowedSocket<'_>> {
        let io = self.enter("descriptor")?;
        // Before the switch: a send_file that ends later does not leave O_NONBLOCK on the descriptor.
        self.flags.fetch_or(FD_SHARED, Ordering::AcqRel);
        self.switch_to_blocking(&io).map_err(|e| self.os_failed("descriptor", e))?;
        Ok(BorrowedSocket(io.hold()))
    }

    /// Releases the descriptor: the caller owns it from then on. This object is closed, and the
    /// connection continues.
    ///
    /// The descriptor has neither SO_RCVTIMEO nor SO_SNDTIMEO. It is in blocking mode unless
    /// [`set_nonblocking`](ClientSocket::set_nonblocking) has turned non-blocking mode on,
    /// independent of its mode when the library adopted it. Other options are unchanged.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`WrongState`](ErrorKind::WrongState): a call of another thread or a
    ///   [`BorrowedSocket`] uses the descriptor; or the read buffer contains
    ///   [bytes](ClientSocket::buffered), which must be read first; or the PROXY header was not
    ///   [received](ClientSocket::read_proxy_header); or a message of
    ///   [`write_message`](ClientSocket::write_message) is unfinished and the write side is open. In a forked child, the calls of
    ///   the parent's threads are not detected.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let stream = std::net::TcpStream::from(client.release()?);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn release(&self) -> Result<Owned> {
        const OPERATION: &str = "release";
        let io = self.enter(OPERATION)?;
        let buffered = self.buffered();
        if buffered > 0 {
            let (wrong, bytes) = (ErrorKind::WrongState.into(), Bytes(buffered));
            let what = format!("the read buffer has {bytes}: read before the release");
            return Err(self.failed(OPERATION, wrong, 0).detail(what));
        }
        self.release_from(io, OPERATION)
    }

    /// Releases the descriptor, with the bytes in the read buffer left to the caller.
    pub(super) fn release_from(&self, io: InUse<'_>, operation: &'static str) -> Result<Owned> {
        let wrong = |what: &'static str| {
            self.failed(operation, ErrorKind::WrongState.into(), 0).detail(what)
        };
        if self.is_closing(&io) {
            return Err(self.closed_error(operation));
        }
        if self.has(PROXY_PENDING) {
            return Err(wrong("the PROXY header was not received: call read_proxy_header first"));
        }
        if let Some(cause) = self.rest_first().filter(|_| !self.has(HALF_CLOSED)) {
            return Err(self.failed(operation, cause, 0));
        }
        self.local_address(Some(io.socket()));
        let owned = self.descriptor.release(io);
        let owned = owned.ok_or_else(|| wrong(IN_USE))?;
        sys::prepare_release(sys::borrow(&owned), self.has(NONBLOCKING));
        self.set_local_close_reason();
        Ok(owned)
    }
}
