//! What a connection is and how it is set: five-tuple, keepalive, timeouts, descriptor.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::{
    BorrowedSocket, ClientSocket, HELD, Local, NONBLOCKING, PACKETS, POLLED, READ_TIMEOUT,
    UNSWITCHED, WRITE_TIMEOUT,
};

use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Result};
use crate::info::{Address, FiveTuple, Protocol};
use crate::keepalive::Keepalive;
use crate::sys::{self, InUse, Owned};
use crate::wait::{NO_TIMEOUT, millis};

impl ClientSocket {
    /// Protocol, local and remote address; also after an error and after close.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.close()?;
    /// assert_eq!(client.five_tuple().remote.port(), server.port());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn five_tuple(&self) -> FiveTuple {
        let io = self.descriptor.enter();
        // Closed sockets know it since close; the rest is for a failing getsockname(2).
        let local = self.ask_local(io.as_ref()).cloned().unwrap_or(Address::UnixUnnamed);
        let protocol =
            if self.has(PACKETS) { Protocol::UnixPacket } else { self.remote.protocol() };
        FiveTuple { protocol, local, remote: self.remote.clone() }
    }

    pub(super) fn ask_local(&self, io: Option<&InUse<'_>>) -> Option<&Address> {
        let asked = match &self.local {
            Local::Known(known) => return Some(known),
            Local::Asked(asked) => asked,
        };
        if asked.get().is_none() {
            if let Some(Ok(name)) = io.map(|io| SockRef::from(&io.socket()).local_addr()) {
                return Some(asked.get_or_init(|| sys::to_address(&name)));
            }
        }
        asked.get()
    }

    /// Sets keepalive on the open connection; `None` turns it off.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a Unix socket;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if it breaks what the socket was made with:
    /// [`dead_after`](crate::SocketOptions::dead_after),
    /// [`survive_idle`](crate::SocketOptions::survive_idle);
    /// [`Closed`](ErrorKind::Closed). The socket is left as it was.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, Keepalive, ServerSocket};
    /// # use std::time::Duration;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let fast = Keepalive::new(Duration::from_secs(10), Duration::from_secs(2), 3)?;
    /// client.set_keepalive(fast)?;
    /// assert_eq!(client.keepalive()?, Some(fast));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_keepalive(&self, keepalive: impl Into<Option<Keepalive>>) -> Result<()> {
        let io = self.enter("keepalive")?;
        self.keepalive_applies()?;
        let keepalive = keepalive.into();
        if let Some(live) = &self.liveness {
            live.permits(keepalive).map_err(|e| e.at(self.five_tuple()))?;
        }
        let before = sys::keepalive(io.socket()).map_err(|e| self.os_failed("keepalive", e))?;
        sys::set_keepalive(io.socket(), keepalive).map_err(|e| {
            // It takes several system calls; undo those that went through.
            let _ = sys::set_keepalive(io.socket(), before);
            self.os_failed("keepalive", e)
        })
    }

    /// The keepalive values that the kernel uses now; `None`: off.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a Unix socket,
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// assert_eq!(client.keepalive()?, Some(keepsock::Keepalive::default()));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn keepalive(&self) -> Result<Option<Keepalive>> {
        let io = self.enter("keepalive")?;
        self.keepalive_applies()?;
        sys::keepalive(io.socket()).map_err(|e| self.os_failed("keepalive", e))
    }

    pub(super) fn keepalive_applies(&self) -> Result<()> {
        match self.remote {
            Address::Inet(_) => Ok(()),
            _ => Err(self.failed("keepalive", ErrorKind::Unsupported.into(), 0)),
        }
    }

    /// Sets the time for each reading call as a whole; `None`: no limit. Calls
    /// under way keep theirs. On Linux the kernel keeps it (SO_RCVTIMEO), whose timers
    /// get coarser with their length: a call may end up to a twentieth late.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for zero
    /// ([`set_nonblocking`](ClientSocket::set_nonblocking) is what does not wait),
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.set_read_timeout(std::time::Duration::from_millis(20))?;
    /// let err = client.read(&mut [0; 8]).unwrap_err();
    /// assert_eq!(err.kind(), keepsock::ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_read_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into();
        self.set_timeout(timeout, &self.read_timeout, READ_TIMEOUT, |s, t| s.set_read_timeout(t))
    }

    /// Sets the time for each writing call as a whole; `None`: no limit. Calls
    /// under way keep theirs.
    ///
    /// # Errors
    /// Those of [`set_read_timeout`](ClientSocket::set_read_timeout).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.set_write_timeout(std::time::Duration::from_secs(5))?;
    /// client.set_write_timeout(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_write_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into();
        self.set_timeout(timeout, &self.write_timeout, WRITE_TIMEOUT, |s, t| s.set_write_timeout(t))
    }

    /// Sets how long [`close`](ClientSocket::close), and dropping, may wait for the
    /// peer; zero: not at all. What a program with a deadline for all that it does
    /// sets to what is left of it.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.set_close_timeout(std::time::Duration::from_millis(100));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_close_timeout(&self, timeout: Duration) {
        self.close_timeout.store(millis(timeout), Ordering::Relaxed);
    }

    pub(super) fn close_time(&self) -> Duration {
        Duration::from_millis(self.close_timeout.load(Ordering::Relaxed))
    }

    pub(super) fn set_timeout(
        &self,
        timeout: Option<Duration>,
        cached: &AtomicU64,
        flag: u32,
        set: impl FnOnce(&socket2::Socket, Option<Duration>) -> io::Result<()>,
    ) -> Result<()> {
        let io = self.enter("timeout")?;
        if timeout.is_some_and(|t| t.is_zero()) {
            let zero = self.failed("timeout", ErrorKind::InvalidArgument.into(), 0);
            return Err(zero.detail("the timeout is zero"));
        }
        let ms = timeout.map_or(NO_TIMEOUT, millis);
        if sys::BLOCKING_CALLS {
            // What the kernel is told is rounded up too: zero would be no limit.
            let kernel = (ms != NO_TIMEOUT).then(|| Duration::from_millis(ms));
            set(&SockRef::from(&io.socket()), kernel).map_err(|e| self.os_failed("timeout", e))?;
        }
        cached.store(ms, Ordering::Release);
        if ms == NO_TIMEOUT {
            self.flags.fetch_and(!flag, Ordering::AcqRel);
        } else {
            self.flags.fetch_or(flag, Ordering::AcqRel);
        }
        Ok(())
    }

    /// In non-blocking mode calls that would wait return
    /// [`WouldBlock`](ErrorKind::WouldBlock) instead, and the descriptor has O_NONBLOCK.
    /// Calls that wait already go on.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
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
            let changed = if self.has(UNSWITCHED | HELD) {
                Ok(()) // it is non-blocking, and may stay so until a call waits
            } else {
                sys::set_nonblocking(io.socket(), on || !sys::BLOCKING_CALLS)
            };
            if on {
                self.flags.fetch_and(!UNSWITCHED, Ordering::AcqRel);
            } else if changed.is_ok() {
                self.flags.fetch_and(!NONBLOCKING, Ordering::AcqRel);
            }
            changed
        };
        changed.map_err(|e| self.os_failed("non-blocking mode", e))
    }

    /// Makes a connected descriptor what it is to be: connecting leaves it non-blocking, for
    /// a connection that is only closed, or polled, needs no other mode. Calls of other
    /// threads that are under way stay as they are. A call that slips in before the switch
    /// and is told EAGAIN goes on in poll, as after a signal.
    pub(super) fn switch_to_blocking(&self, io: &InUse<'_>) -> io::Result<()> {
        if !self.has(UNSWITCHED) {
            return Ok(());
        }
        let _mode = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has(UNSWITCHED) {
            sys::set_nonblocking(io.socket(), false)?;
            self.flags.fetch_and(!UNSWITCHED, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Gives the socket a token that ends its calls, or takes it off. Calls under
    /// way are not affected.
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
        if cancel.is_some() {
            self.flags.fetch_or(POLLED, Ordering::AcqRel);
        } else if sys::BLOCKING_CALLS
            && !self.liveness.as_ref().is_some_and(|live| live.asked().has_dues())
        {
            self.flags.fetch_and(!POLLED, Ordering::AcqRel);
        }
    }

    /// Borrows the descriptor, for an event loop or an option that keepsock does
    /// not know. While the guard lives the descriptor stays open, even if another
    /// thread closes the socket. Bytes that were [read ahead](ClientSocket::buffered)
    /// are not seen by whoever polls it.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
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
        let io = self.enter("borrow")?;
        self.switch_to_blocking(&io).map_err(|e| self.os_failed("borrow", e))?;
        Ok(BorrowedSocket(io))
    }

    /// Gives the descriptor up: it is the caller's to close. The socket is then
    /// closed for this program; the connection lives on.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed);
    /// [`WrongState`](ErrorKind::WrongState) while another thread is in a call on the socket, and
    /// while bytes that were [read ahead](ClientSocket::buffered) wait here: read them first.
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
        let wrong = |what: &str| {
            self.failed(OPERATION, ErrorKind::WrongState.into(), 0).detail(what.to_owned())
        };
        let buffered = self.buffered();
        if buffered > 0 {
            return Err(wrong(&format!("{buffered} bytes were read ahead: read them first")));
        }
        self.switch_to_blocking(&io).map_err(|e| self.os_failed(OPERATION, e))?;
        self.ask_local(Some(&io));
        let owned = self.descriptor.release(io);
        let owned = owned.ok_or_else(|| wrong("another thread is using it"))?;
        self.note_closed_here();
        Ok(owned)
    }
}
