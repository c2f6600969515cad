//! Writing: one buffer, several buffers, a message.

use std::io::{self, IoSlice};
use std::result::Result as StdResult;
use std::sync::PoisonError;

use super::ClientSocket;
use super::flags::{
    CLOSING, HALF_CLOSED, MESSAGE_UNFINISHED, SEQPACKET, SLOW_WRITE, UNWRITTEN, WRITE_INTERRUPTED,
    WRITE_TIMEOUT,
};
use crate::io::lock::Guard;
use crate::io::timeout::{CallTimeout, MAX_CALL_BYTES};
use crate::io::wait::{Cause, Stop};
use crate::sys::sync::MutexGuard;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, InUse, Tick, Wait};
use crate::types::error::{ErrorKind, Result};
use crate::types::framing::{Encoded, Framing};

/// The number of leading buffers with no more than `max` bytes together. 0: the first buffer is
/// longer.
fn count_fitting(bufs: &[IoSlice<'_>], max: usize) -> usize {
    let mut room = max;
    let fits = |buf: &&IoSlice<'_>| match room.checked_sub(buf.len()) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    bufs.iter().take_while(fits).count()
}

/// A message of which [`ClientSocket::write_message`] has sent the first `done` bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnfinishedMessage {
    framing: Framing,
    /// The address and the length of the message without its marks.
    buffer: (usize, usize),
    /// The bytes before and after the message.
    marks: (Encoded, Encoded),
    done: usize,
}

impl UnfinishedMessage {
    /// Whether a call with this framing and buffer continues the message. The bytes that were sent
    /// are not compared: the caller keeps the buffer unchanged.
    fn is_of(&self, framing: &Framing, buffer: (usize, usize)) -> bool {
        self.framing == *framing && self.buffer == buffer
    }
}

/// Why a message was not written.
enum MessageStop {
    Cause(Cause),
    /// The framing does not permit the message.
    Rejected,
}

impl From<Cause> for MessageStop {
    fn from(cause: Cause) -> MessageStop {
        MessageStop::Cause(cause)
    }
}

impl ClientSocket {
    /// Writes bytes of `buf` and returns the number that the kernel has accepted. Waits until the
    /// kernel accepts at least one byte.
    ///
    /// Most programs need [`write_all`](ClientSocket::write_all). The call never raises SIGPIPE.
    ///
    /// # Errors
    #[doc = write_errors!()]
    #[doc = write_end_errors!()]
    /// - [`TooLong`](ErrorKind::TooLong): a [SOCK_SEQPACKET](crate::SocketOptions::seqpacket) packet
    ///   is longer than the kernel sends.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a SOCK_SEQPACKET packet is empty.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = client.write(b"hello")?;
    /// assert!(accepted >= 1);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn write(&self, buf: &[u8]) -> Result<usize> {
        self.try_write(buf).map_err(|stop| self.stopped("write", stop))
    }

    pub(crate) fn try_write(&self, buf: &[u8]) -> StdResult<usize, Stop> {
        let io = self.enter("write")?;
        self.require_nonempty(buf.len())?;
        if buf.is_empty() {
            let checked = self.check_empty_write().map(|()| 0);
            return checked.map_err(|cause| self.to_stop("write", cause, 0));
        }
        let mut timeout = CallTimeout::new(&self.write_timeout, None);
        let written = self.lock_writes(&io, &timeout).and_then(|guard| {
            self.prepare_write(&io, &mut timeout, &guard)?;
            let chunk = &buf[..self.max_call_len(&timeout, buf.len())];
            let done = self.send(&io, &mut timeout, |wait| sys::send(io.socket(), chunk, wait))?;
            self.note_progress(done, buf.len());
            Ok(done)
        });
        written.map_err(|cause| self.to_stop("write", cause, 0))
    }

    /// Writes all bytes of `buf`. The write timeout limits the whole call. The call never raises
    /// SIGPIPE.
    ///
    /// # Errors
    /// [`Error::transferred`](crate::Error::transferred) returns the number of bytes that the kernel
    /// had accepted.
    #[doc = write_errors!()]
    #[doc = write_end_errors!()]
    /// - [`TooLong`](ErrorKind::TooLong): a [SOCK_SEQPACKET](crate::SocketOptions::seqpacket) packet
    ///   is longer than the kernel sends.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a SOCK_SEQPACKET packet is empty.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[inline(always)]
    pub fn write_all(&self, buf: &[u8]) -> Result<()> {
        self.try_write_all(buf).map_err(|stop| self.stopped("write", stop))
    }

    #[inline(always)]
    pub(crate) fn try_write_all(&self, buf: &[u8]) -> StdResult<(), Stop> {
        let io = self.enter("write")?;
        // The lock comes before the flags: a close sets its flag before it looks at the lock.
        let Some(guard) = self.write_lock.try_lock() else {
            return self.write_slow(io, None, buf, None, 0, None);
        };
        let flags = self.flags.load(Ordering::SeqCst);
        // No bytes, or more than one call may transfer.
        let is_special = buf.len().wrapping_sub(1) >= MAX_CALL_BYTES;
        if flags & SLOW_WRITE != 0 || is_special {
            if flags & SLOW_WRITE != UNWRITTEN || is_special {
                return self.write_slow(io, Some(guard), buf, None, 0, None);
            }
            // The first write of the connection. If the kernel accepts nothing, `write_slow` sets
            // the flag again.
            self.flags.fetch_and(!UNWRITTEN, Ordering::Relaxed);
        }
        let start = (flags & WRITE_TIMEOUT != 0).then(Tick::now);
        match sys::send(io.socket(), buf, Wait::Yes) {
            Ok(n) if n == buf.len() => Ok(()),
            other => self.write_slow(io, Some(guard), buf, start, flags, Some(other)),
        }
    }

    /// A write that needs more than one successful system call. `first` is the result of a system
    /// call that was made before, and `before` are the flags at the start of that call.
    #[cold]
    fn write_slow(
        &self,
        io: InUse<'_>,
        guard: Option<Guard<'_>>,
        buf: &[u8],
        start: Option<Tick>,
        before: u32,
        first: Option<io::Result<usize>>,
    ) -> StdResult<(), Stop> {
        let _disabled = sys::CancellationDisabled::new();
        self.flags.fetch_or(before & UNWRITTEN, Ordering::Relaxed);
        self.require_nonempty(buf.len())?;
        let mut timeout = CallTimeout::new(&self.write_timeout, start);
        timeout.polls |= first.is_some();
        let mut done = 0;
        let write = || -> StdResult<(), Cause> {
            let guard = match guard {
                Some(_) if first.is_none() && self.is_closing(&io) => {
                    return Err(ErrorKind::Closed.into());
                }
                Some(guard) => {
                    self.require_writable()?;
                    guard
                }
                None => self.lock_writes(&io, &timeout)?,
            };
            self.prepare_write(&io, &mut timeout, &guard)?;
            if let Some(result) =
                first.and_then(|result| self.classify_result(&io, result, &timeout))
            {
                done = result?;
                if done > 0 {
                    self.note_accepted(self.flags.load(Ordering::Relaxed));
                }
                self.note_progress(done, buf.len());
            }
            if buf.is_empty() {
                self.check_empty_write()?;
            }
            while done < buf.len() {
                ClientSocket::check_time(&timeout, done)?;
                let left = &buf[done..];
                let chunk = &left[..self.max_call_len(&timeout, left.len())];
                done += self
                    .send(&io, &mut timeout, |wait| sys::send(io.socket(), chunk, wait))
                    .inspect_err(|cause| self.note_interrupted(cause, done))?;
                self.note_progress(done, buf.len());
            }
            Ok(())
        };
        write().map_err(|cause| self.to_stop("write", cause, done))
    }

    /// Writes all bytes of several buffers, as if they were one buffer, without copying them
    /// together. The kernel gets a header and its body in one system call and can send them in one
    /// segment. The write timeout limits the whole call. The call never raises SIGPIPE.
    ///
    /// # Errors
    /// [`Error::transferred`](crate::Error::transferred) returns the number of bytes that the kernel
    /// had accepted.
    #[doc = write_errors!()]
    #[doc = write_end_errors!()]
    /// - [`TooLong`](ErrorKind::TooLong): a [SOCK_SEQPACKET](crate::SocketOptions::seqpacket) packet
    ///   is longer than the kernel sends.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a SOCK_SEQPACKET packet is empty.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # use std::io::IoSlice;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.write_slices(&mut [IoSlice::new(b"header "), IoSlice::new(b"body")])?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn write_slices(&self, bufs: &mut [IoSlice<'_>]) -> Result<()> {
        self.try_write_slices(bufs).map_err(|stop| self.stopped("write", stop))
    }

    pub(crate) fn try_write_slices(&self, bufs: &mut [IoSlice<'_>]) -> StdResult<(), Stop> {
        if bufs.len() > sys::SLICES_MAX && self.has(SEQPACKET) {
            // A packet has to be sent in one call, so the buffers are copied together.
            let mut packet = Vec::new();
            let total = self.total(bufs)?;
            if packet.try_reserve_exact(total).is_err() {
                return Err(self.to_stop("write", ErrorKind::NoMemory.into(), 0));
            }
            bufs.iter().for_each(|buf| packet.extend_from_slice(buf));
            return self.try_write_all(&packet);
        }
        let io = self.enter("write")?;
        let mut timeout = CallTimeout::new(&self.write_timeout, None);
        let mut done = 0;
        let total = self.total(bufs)?;
        self.require_nonempty(total)?;
        let mut left = bufs;
        // Skips empty buffers at the front, with which a system call would return 0.
        IoSlice::advance_slices(&mut left, 0);
        let all = self.lock_writes(&io, &timeout).and_then(|guard| {
            self.prepare_write(&io, &mut timeout, &guard)?;
            self.send_slices(&io, &mut timeout, left, &mut done, total)
        });
        all.map_err(|cause| self.to_stop("write", cause, done))
    }

    fn total(&self, bufs: &[IoSlice<'_>]) -> Result<usize> {
        sys::total_len(bufs.iter().map(|buf| buf.len())).ok_or_else(|| {
            let error = self.failed("write", ErrorKind::InvalidArgument.into(), 0);
            error.detail("the slices have more bytes than memory can have: write fewer at once")
        })
    }

    /// Sends the slices `left`, which are the last of `total` bytes. `done` counts the bytes that the
    /// kernel has accepted. The caller holds the write lock.
    #[inline]
    fn send_slices(
        &self,
        io: &InUse<'_>,
        timeout: &mut CallTimeout,
        mut left: &mut [IoSlice<'_>],
        done: &mut usize,
        total: usize,
    ) -> StdResult<(), Cause> {
        if total == 0 {
            self.check_empty_write()?;
        }
        let max = self.max_call_len(timeout, total);
        while !left.is_empty() {
            ClientSocket::check_time(timeout, *done)?;
            let fitting = if max < total { count_fitting(left, max) } else { left.len() };
            let sent = self.send(io, timeout, |wait| match fitting {
                0 => sys::send(io.socket(), &left[0][..max], wait),
                n => sys::send_slices(io.socket(), &left[..n], wait),
            });
            let n = sent.inspect_err(|cause| self.note_interrupted(cause, *done))?;
            *done += n;
            self.note_progress(*done, total);
            IoSlice::advance_slices(&mut left, n);
        }
        Ok(())
    }

    /// Writes one message with the length or the delimiter of its [framing](Framing), in one system
    /// call. A framing whose messages are sent unchanged adds no bytes.
    ///
    /// The write timeout limits the whole call. The call never raises SIGPIPE.
    ///
    /// If a call fails after the kernel has accepted a part of the message, the message is
    /// unfinished, whatever the error is. Call the function again with the same framing and the same
    /// buffer, which means the same address, length and bytes: the call sends the rest, and succeeds
    /// when the message is complete. Until then every other write fails with `WrongState`, because
    /// the peer would take its bytes for the rest of the message, and the library sends no heartbeat.
    /// A call that started before the message became unfinished does not continue it.
    /// `shutdown_write`, `close` and `abort` are permitted. A connection that has ended returns its
    /// end.
    ///
    /// # Errors
    /// [`Error::transferred`](crate::Error::transferred) returns the number of bytes of the message,
    /// including the length and the delimiter, that the kernel has accepted in all calls. If it is 0,
    /// the message is not unfinished.
    #[doc = write_errors!()]
    #[doc = write_end_errors!()]
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the message contains its delimiter (LF with
    ///   lines), or the format of the length cannot represent its length; or the framing has a
    ///   maximum or a length of 0, or a maximum that contradicts its length field.
    /// - [`WrongState`](ErrorKind::WrongState): the socket is of type SOCK_SEQPACKET; or the
    ///   unfinished message has another framing or buffer.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, Framing, LengthFormat, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let framing = Framing::Prefixed { format: LengthFormat::U8, max: 255 };
    /// client.write_message(&framing, b"hello")?;
    /// assert_eq!(client.write_message(&framing, &[0; 256]).unwrap_err().kind(),
    ///     keepsock::ErrorKind::InvalidArgument);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn write_message(&self, framing: &Framing, message: &[u8]) -> Result<()> {
        self.try_write_message(framing, message).map_err(|stop| self.stopped("write", stop))
    }

    pub(crate) fn try_write_message(
        &self,
        framing: &Framing,
        message: &[u8],
    ) -> StdResult<(), Stop> {
        let io = self.enter("write")?;
        self.require_stream("write")?;
        framing.validate("write")?;
        let mut timeout = CallTimeout::new(&self.write_timeout, None);
        let buffer = (message.as_ptr().addr(), message.len());
        // A message that becomes unfinished while this call waits is that of another caller.
        let resumed = self.unfinished().filter(|started| started.is_of(framing, buffer));
        let mut done = resumed.map_or(0, |started| started.done);
        let mut write = || -> StdResult<(), MessageStop> {
            let guard = self.lock_writes(&io, &timeout)?;
            let started = self.unfinished().filter(|started| started.is_of(framing, buffer));
            let marks = match started {
                Some(started) if resumed.is_some() => {
                    done = started.done;
                    started.marks
                }
                _ => {
                    done = 0;
                    self.prepare_write(&io, &mut timeout, &guard)?;
                    framing.mark(message).ok_or(MessageStop::Rejected)?
                }
            };
            let (before, after) = &marks;
            let mut parts = sys::io_slices([before.as_slice(), message, after.as_slice()]);
            let total = parts.iter().map(|part| part.len()).sum();
            let mut left = &mut parts[..];
            IoSlice::advance_slices(&mut left, done);
            let sent = self.send_slices(&io, &mut timeout, left, &mut done, total);
            if sent.is_err() && done > 0 {
                self.note_unfinished(
                    UnfinishedMessage { framing: *framing, buffer, marks, done },
                    &guard,
                );
            } else if self.has(MESSAGE_UNFINISHED) {
                self.flags.fetch_and(!MESSAGE_UNFINISHED, Ordering::Relaxed);
            }
            Ok(sent?)
        };
        match write() {
            Ok(()) => Ok(()),
            Err(MessageStop::Cause(cause)) => Err(self.to_stop("write", cause, done)),
            Err(MessageStop::Rejected) => {
                let what = framing.rejection(message.len(), std::iter::once(message));
                let error = self.failed("write", ErrorKind::InvalidArgument.into(), 0);
                Err(error.detail(what).into())
            }
        }
    }

    /// The message of which a part was sent.
    #[inline]
    fn unfinished(&self) -> Option<UnfinishedMessage> {
        if self.has(MESSAGE_UNFINISHED) { self.lock_unfinished().as_deref().copied() } else { None }
    }

    #[cold]
    fn note_unfinished(&self, message: UnfinishedMessage, _guard: &Guard<'_>) {
        *self.lock_unfinished() = Some(Box::new(message));
        self.flags.fetch_or(MESSAGE_UNFINISHED, Ordering::Relaxed);
    }

    fn lock_unfinished(&self) -> MutexGuard<'_, Option<Box<UnfinishedMessage>>> {
        self.cold().unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if the time of a call has expired after a part of the bytes. The kernel may accept
    /// chunk after chunk without a wait, so no wait would detect it.
    pub(super) fn check_time(timeout: &CallTimeout, done: usize) -> StdResult<(), Cause> {
        if done > 0 && timeout.has_expired() { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Records for the closing call that it has ended a write after a part of the bytes. The caller
    /// still holds the write lock, so the closing call sees the flag once it gets the lock.
    pub(super) fn note_interrupted(&self, cause: &Cause, done: usize) {
        if done > 0 && cause.kind() == ErrorKind::Closed {
            self.flags.fetch_or(WRITE_INTERRUPTED, Ordering::SeqCst);
        }
    }

    /// Whether this side has shut down sending or is closing.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.descriptor.is_closed() || self.has(HALF_CLOSED | CLOSING)
    }
}
