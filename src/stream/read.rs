//! Reading: some bytes, a number of bytes, up to a delimiter, a line, a message.

use std::io::{self, IoSliceMut};
use std::result::Result as StdResult;
use std::sync::PoisonError;

use super::ClientSocket;
use super::flags::{
    BUFFERED, DRAINING, NONBLOCKING, PROXY_PENDING, READ_TIMEOUT, SEQPACKET, SHORT_READ_TIMEOUT,
    SLOW_READ,
};
use crate::io::memory::{copied, text};
use crate::io::read_buffer::ReadBuffer;
use crate::io::timeout::{CallTimeout, MAX_CALL_BYTES};
use crate::io::wait::{Outcome, Stop};
use crate::sys::sync::MutexGuard;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, InUse, Interest, Tick, Wait};
use crate::types::error::{Bytes, Error, ErrorKind, Result};
use crate::types::framing::{DelimiterSplitter, Framing, LineSplitter, Split};

const PEEK: &str = "peek";

impl ClientSocket {
    /// Reads bytes into `buf` and returns their number. Waits until at least one byte is available.
    ///
    /// The result is 0 if the peer has closed its side and all its data was read, or if `buf` is
    /// empty. On a [SOCK_SEQPACKET](crate::SocketOptions::seqpacket) socket the call reads one
    /// packet.
    ///
    /// # Errors
    #[doc = read_errors!()]
    #[doc = end_errors!()]
    /// - [`TooLong`](ErrorKind::TooLong): a SOCK_SEQPACKET packet is longer than `buf`. The packet
    ///   is discarded.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # server.accept()?.write_all(b"bytes")?;
    /// let mut buf = [0; 512];
    /// let n = client.read(&mut buf)?;
    /// assert_eq!(&buf[..n], b"bytes");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[inline(always)]
    pub fn read(&self, buf: &mut [u8]) -> Result<usize> {
        self.try_read(buf).map_err(|stop| self.stopped("read", stop))
    }

    #[inline(always)]
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> StdResult<usize, Stop> {
        let io = self.enter("read")?;
        let flags = self.flags.load(Ordering::SeqCst);
        // An empty buffer, or one that may need more than one system call.
        let odd_size = buf.len().wrapping_sub(1) >= MAX_CALL_BYTES;
        if flags & SLOW_READ != 0 || odd_size {
            if flags & SLOW_READ & !SHORT_READ_TIMEOUT == NONBLOCKING && !odd_size {
                return self.read_nonblocking(io, buf).into();
            }
            return self.read_slow(io, buf, None, None).into();
        }
        let start = (flags & READ_TIMEOUT != 0).then(Tick::now);
        match sys::recv(io.socket(), buf, Wait::Yes) {
            Ok(0) => self.read_eof(io).into(),
            Ok(n) => Ok(n),
            other => self.read_slow(io, buf, start, Some(other)).into(),
        }
    }

    /// A read in non-blocking mode that needs one system call.
    #[inline(never)]
    fn read_nonblocking(&self, io: InUse<'_>, buf: &mut [u8]) -> Outcome {
        match sys::recv(io.socket(), buf, Wait::No) {
            Ok(0) => self.read_eof(io),
            Ok(n) => Outcome::Done(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.has(NONBLOCKING) => {
                Outcome::WouldBlock(0)
            }
            other => self.read_slow(io, buf, None, Some(other)),
        }
    }

    #[inline(never)]
    fn read_eof(&self, io: InUse<'_>) -> Outcome {
        match self.on_eof(&io) {
            Ok(n) => Outcome::Done(n),
            Err(cause) => Outcome::Failed(self.failed("read", cause, 0)),
        }
    }

    /// A read that needs more than one successful system call. `first` is the result of a system
    /// call that was made before.
    #[cold]
    fn read_slow(
        &self,
        io: InUse<'_>,
        buf: &mut [u8],
        start: Option<Tick>,
        first: Option<io::Result<usize>>,
    ) -> Outcome {
        self.read_with(io, buf, start, first).into()
    }

    #[inline]
    pub(super) fn read_with(
        &self,
        io: InUse<'_>,
        buf: &mut [u8],
        start: Option<Tick>,
        first: Option<io::Result<usize>>,
    ) -> StdResult<usize, Stop> {
        let _disabled = sys::CancellationDisabled::new();
        if buf.is_empty() {
            return Ok(0);
        }
        let start = if first.is_none() { self.require_readable(&io)?.or(start) } else { start };
        let buffered = if first.is_none() { self.read_buffered(buf) } else { 0 };
        if buffered > 0 {
            return Ok(buffered);
        }
        let mut timeout = CallTimeout::new(&self.read_timeout, start);
        if self.has(SEQPACKET) {
            return Ok(self.recv_with_fds(&io, buf, 0, &mut timeout)?.received.len);
        }
        let first = match first {
            Some(result) => {
                timeout.polls = true;
                // The kernel reports an error once, so the error is recorded before bytes are
                // returned that another thread has left in the buffer.
                let done = self.classify_result(&io, result, &timeout);
                let buffered = self.read_buffered(buf);
                if buffered > 0 {
                    return Ok(buffered);
                }
                done
            }
            None => None,
        };
        let received = match first {
            Some(done) => done.and_then(|n| if n == 0 { self.on_eof(&io) } else { Ok(n) }),
            None => self.recv(&io, buf, &mut timeout),
        };
        received.map_err(|cause| self.to_stop("read", cause, 0))
    }

    /// Copies the next bytes of the stream into `buf`, leaves them for the next read, and returns their
    /// number (MSG_PEEK). Waits until at least one byte is available. Buffered bytes and bytes in the
    /// kernel are copied together.
    ///
    /// The result is 0 if the peer has closed its side and all its data was read, or if `buf` is
    /// empty. A further call does not wait: it returns the same bytes, and bytes that arrived in
    /// the meantime. Bytes that are only copied do not count as traffic for the idle timeout.
    ///
    /// # Errors
    #[doc = read_errors!()]
    #[doc = end_errors!()]
    /// - [`WrongState`](ErrorKind::WrongState): the socket is of type SOCK_SEQPACKET.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # server.accept()?.write_all(b"GET / HTTP/1.1\r\n")?;
    /// let mut first = [0; 1];
    /// client.peek(&mut first)?;
    /// let is_tls = first == [0x16];
    /// # assert!(!is_tls);
    /// assert_eq!(client.read_line(1024)?, "GET / HTTP/1.1");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.try_peek(buf).map_err(|stop| self.stopped(PEEK, stop))
    }

    pub(crate) fn try_peek(&self, buf: &mut [u8]) -> StdResult<usize, Stop> {
        let io = self.enter(PEEK)?;
        self.require_stream(PEEK)?;
        let start = self.require_readable(&io)?;
        let _disabled = sys::CancellationDisabled::new();
        if buf.is_empty() {
            return Ok(0);
        }
        let buffered = self.copy_buffered(buf);
        if buffered > 0 {
            let rest = &mut buf[buffered..];
            return Ok(buffered + if rest.is_empty() { 0 } else { self.peek_more(&io, rest) });
        }
        let timeout = CallTimeout::new(&self.read_timeout, start);
        let failed = |cause| self.to_stop(PEEK, cause, 0);
        loop {
            match sys::peek(io.socket(), buf) {
                Ok(0) => return self.on_eof(&io).map_err(failed),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.has(NONBLOCKING) {
                        return Err(failed(self.would_block()));
                    }
                    self.wait_ready(&io, Interest::Read, timeout.deadline()).map_err(failed)?;
                }
                Err(e) => return Err(failed(self.record_error(&io, &e))),
            }
        }
    }

    /// Copies bytes that are in the kernel after the buffered bytes, and returns their number. An
    /// error that ended the connection is recorded, and a later call reports it.
    fn peek_more(&self, io: &InUse<'_>, buf: &mut [u8]) -> usize {
        use io::ErrorKind::{Interrupted, WouldBlock};
        match sys::peek(io.socket(), buf) {
            Ok(n) => n,
            Err(e) => {
                if !matches!(e.kind(), Interrupted | WouldBlock) {
                    self.record_error(io, &e);
                }
                0
            }
        }
    }

    /// Copies bytes from the read buffer to `buf` and returns their number.
    fn copy_buffered(&self, buf: &mut [u8]) -> usize {
        if !self.has(BUFFERED) {
            return 0;
        }
        let buffer = self.lock_buffer();
        let bytes = buffer.as_slice();
        let n = bytes.len().min(buf.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        n
    }

    /// Fails if the socket is closing or draining. Receives the PROXY header before the first data,
    /// and then returns the start of the read timeout.
    pub(super) fn require_readable(&self, io: &InUse<'_>) -> Result<Option<Tick>> {
        match () {
            () if self.is_closing(io) => Err(self.closed_error("read")),
            () if self.has(DRAINING) => Err(self.failed("read", ErrorKind::Draining.into(), 0)),
            () if self.has(PROXY_PENDING) => self.read_header_first(io),
            () => Ok(None),
        }
    }

    /// Reads bytes into several buffers, which are filled one after another, and returns their
    /// number. Waits until at least one byte is available. The result is 0 if the peer has closed
    /// its side and all its data was read, or if all buffers are empty.
    ///
    /// # Errors
    #[doc = read_errors!()]
    #[doc = end_errors!()]
    /// - [`TooLong`](ErrorKind::TooLong): a SOCK_SEQPACKET packet is longer than the buffers
    ///   together. The packet is discarded.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # use std::io::IoSliceMut;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # server.accept()?.write_all(b"headbody")?;
    /// let (mut head, mut body) = ([0; 4], [0; 100]);
    /// let n = client.read_slices(&mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)])?;
    /// assert_eq!((&head, &body[..n - 4]), (b"head", &b"body"[..]));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn read_slices(&self, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        self.try_read_slices(bufs).map_err(|stop| self.stopped("read", stop))
    }

    pub(crate) fn try_read_slices(&self, bufs: &mut [IoSliceMut<'_>]) -> StdResult<usize, Stop> {
        let io = self.enter("read")?;
        let start = self.require_readable(&io)?;
        // A system call takes a limited number of buffers. It would return 0 if all of them were empty.
        let Some(first) = bufs.iter().position(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let bufs = &mut bufs[first..];
        let mut buffered = 0;
        for buf in bufs.iter_mut() {
            buffered += self.read_buffered(buf);
        }
        if buffered > 0 {
            return Ok(buffered);
        }
        let mut timeout = CallTimeout::new(&self.read_timeout, start);
        if self.has(SEQPACKET) {
            // The packet is received into one buffer, because only then the kernel reports whether
            // it was truncated.
            let Some(mut packet) = sys::zeroed(bufs.iter().map(|buf| buf.len()).sum()) else {
                return Err(self.to_stop("read", ErrorKind::NoMemory.into(), 0));
            };
            let len = self.recv_with_fds(&io, &mut packet, 0, &mut timeout)?.received.len;
            let mut left = &packet[..len];
            for buf in bufs {
                let (part, rest) = left.split_at(left.len().min(buf.len()));
                buf[..part.len()].copy_from_slice(part);
                left = rest;
            }
            return Ok(len);
        }
        let call = |wait| sys::recv_slices(io.socket(), bufs, wait);
        match self.step(&io, &mut timeout, Interest::Read, call) {
            Ok(0) => self.on_eof(&io).map_err(|cause| self.to_stop("read", cause, 0)),
            Ok(n) => Ok(n),
            Err(cause) => Err(self.to_stop("read", cause, 0)),
        }
    }

    /// Reads exactly `buf.len()` bytes. The read timeout limits the whole call.
    ///
    /// A call that has received many MiB and will not complete in time ends early by the time that
    /// it needs to keep the bytes, about 2 ms for each MiB.
    ///
    /// # Errors
    /// The bytes that had arrived stay in the socket for the next read.
    /// [`Error::transferred`](crate::Error::transferred) returns their number. If the process has no
    /// memory to keep them, the error is [`NoMemory`](ErrorKind::NoMemory), and they are in `buf`
    /// only.
    #[doc = read_errors!()]
    #[doc = end_errors!()]
    /// - [`EndOfStream`](ErrorKind::EndOfStream): the peer closed its side before all bytes had
    ///   arrived.
    /// - [`WrongState`](ErrorKind::WrongState): the socket is of type SOCK_SEQPACKET.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # server.accept()?.write_all(&7u32.to_be_bytes())?;
    /// let mut header = [0; 4];
    /// client.read_exact(&mut header)?;
    /// assert_eq!(u32::from_be_bytes(header), 7);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn read_exact(&self, buf: &mut [u8]) -> Result<()> {
        self.try_read_exact(buf).map_err(|stop| self.stopped("read", stop))
    }

    pub(crate) fn try_read_exact(&self, buf: &mut [u8]) -> StdResult<(), Stop> {
        let io = self.enter("read")?;
        self.require_stream("read")?;
        let start = self.require_readable(&io)?;
        let mut timeout = CallTimeout::new(&self.read_timeout, start);
        // The buffered bytes are copied once, when the call completes.
        let mut head = self.take_head(buf);
        let kept = head.as_slice().len();
        let mut done = if kept > 0 { kept } else { self.read_buffered(buf) };
        while done < buf.len() {
            timeout.reserve_for(done, buf.len());
            let cause = match self.recv(&io, &mut buf[done..], &mut timeout) {
                Ok(0) => ErrorKind::EndOfStream.into(),
                Ok(n) => {
                    done += n;
                    timeout.reserve_for(done, buf.len());
                    if done == buf.len() || !timeout.has_expired() {
                        continue;
                    }
                    ErrorKind::TimedOut.into()
                }
                Err(cause) => cause,
            };
            let mut buffer = self.lock_buffer();
            let whole = match head.append(&buf[kept..done]) {
                Some(()) => buffer.put_back_all(&mut head),
                None => None,
            };
            self.update_buffered_flag(&buffer);
            drop(buffer);
            if whole.is_none() {
                buf[..kept].copy_from_slice(&head.as_slice()[..kept]);
                return Err(self.to_stop("read", ErrorKind::NoMemory.into(), done));
            }
            return Err(self.to_stop("read", cause, done));
        }
        buf[..kept].copy_from_slice(head.as_slice());
        Ok(())
    }

    /// Takes the bytes of the read buffer if they are fewer than `buf` needs.
    fn take_head(&self, buf: &[u8]) -> ReadBuffer {
        if !self.has(BUFFERED) {
            return ReadBuffer::default();
        }
        let mut buffer = self.lock_buffer();
        if buffer.as_slice().len() >= buf.len() {
            return ReadBuffer::default();
        }
        let head = buffer.take_all();
        self.update_buffered_flag(&buffer);
        head
    }

    /// Reads up to the first `delimiter` and returns the bytes with the delimiter.
    ///
    /// `max` is the greatest number of bytes, including the delimiter. If the peer closes its side,
    /// the call returns the last bytes of the stream without a delimiter. The read timeout limits
    /// the whole call.
    ///
    /// # Errors
    /// The bytes that had arrived stay in the socket for the next read.
    #[doc = read_errors!()]
    #[doc = end_errors!()]
    /// - [`EndOfStream`](ErrorKind::EndOfStream): the peer closed its side, and no bytes are left.
    /// - [`TooLong`](ErrorKind::TooLong): the first `max` bytes contain no delimiter.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the bytes.
    /// - [`WrongState`](ErrorKind::WrongState): the socket is of type SOCK_SEQPACKET.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # server.accept()?.write_all(b"one;two;")?;
    /// assert_eq!(client.read_until(b';', 100)?, b"one;");
    /// assert_eq!(client.read_until(b';', 100)?, b"two;");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn read_until(&self, delimiter: u8, max: usize) -> Result<Vec<u8>> {
        self.read_until_bytes(delimiter, max, copied).map_err(|stop| self.stopped("read", stop))
    }

    /// Reads one message. [`Framing`] describes which bytes of the stream are the message.
    ///
    /// A message may be empty. With [`Framing::Raw`] the call returns the bytes that have arrived, at
    /// least one. The read timeout limits the whole call.
    ///
    /// # Errors
    /// The bytes that had arrived stay in the socket for the next read.
    #[doc = read_errors!()]
    #[doc = end_errors!()]
    /// - [`EndOfStream`](ErrorKind::EndOfStream): the peer closed its side before the whole message
    ///   had arrived.
    /// - [`TooLong`](ErrorKind::TooLong): the message is longer than the maximum of the framing.
    /// - [`Malformed`](ErrorKind::Malformed): the length field is not a number in its format, or the
    ///   length with its adjustment is below zero.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the framing has a maximum or a length of 0,
    ///   or a maximum that contradicts its length field.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the bytes.
    /// - [`WrongState`](ErrorKind::WrongState): the socket is of type SOCK_SEQPACKET.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, Framing, LengthFormat, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # server.accept()?.write_all(&[0, 2, b'h', b'i'])?;
    /// let framing = Framing::Prefixed { format: LengthFormat::U16Be, max: 1024 };
    /// assert_eq!(client.read_message(&framing)?, b"hi");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn read_message(&self, framing: &Framing) -> Result<Vec<u8>> {
        self.read_message_bytes(*framing, usize::MAX, copied)
            .map_err(|stop| self.stopped("read", stop))
    }

    /// Reads one line and returns it without its end, LF or CRLF.
    ///
    /// `max` is the greatest number of bytes without the line's end. The function replaces bytes
    /// that are not UTF-8 by U+FFFD; [`read_until`](ClientSocket::read_until) returns the bytes
    /// unchanged. If the peer closes its side, the call returns the last bytes of the stream as a
    /// line. The read timeout limits the whole call.
    ///
    /// # Errors
    /// The bytes that had arrived stay in the socket for the next read.
    #[doc = read_errors!()]
    #[doc = end_errors!()]
    /// - [`EndOfStream`](ErrorKind::EndOfStream): the peer closed its side, and no bytes are left.
    /// - [`TooLong`](ErrorKind::TooLong): the line is longer than `max` bytes.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the bytes.
    /// - [`WrongState`](ErrorKind::WrongState): the socket is of type SOCK_SEQPACKET.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # server.accept()?.write_all(b"hello\r\nworld\n")?;
    /// assert_eq!(client.read_line(100)?, "hello");
    /// assert_eq!(client.read_line(100)?, "world");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn read_line(&self, max: usize) -> Result<String> {
        self.read_line_bytes(max, text).map_err(|stop| self.stopped("read", stop))
    }

    /// Reads one message of at most `cap` bytes and passes it to `take` before it leaves the buffer.
    /// See [`read_message`](ClientSocket::read_message).
    pub(crate) fn read_message_bytes<T>(
        &self,
        framing: Framing,
        cap: usize,
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> StdResult<T, Stop> {
        framing.validate("read")?;
        let limit = match framing {
            Framing::Raw | Framing::Fixed { .. } => ("the buffer of the call has", cap),
            Framing::Lines { max }
            | Framing::Delimited { max, .. }
            | Framing::Prefixed { max, .. }
            | Framing::LengthField { max, .. } => {
                if cap < max {
                    ("the buffer of the call has", cap)
                } else {
                    ("the maximum of the framing is", max)
                }
            }
        };
        let framing = framing.limited(cap);
        let split = |searched, data: &[u8], ended| match framing.splitter() {
            _ if matches!(framing, Framing::Fixed { len } if len > cap) => Split::TooLong,
            Some(mut search) => {
                search.skip(searched);
                search.split(data, ended)
            }
            None if data.is_empty() => Split::Incomplete,
            None => {
                let len = data.len().min(cap);
                Split::Message { range: 0..len, len }
            }
        };
        self.read_frame(framing.delimiter(), split, limit, take)
    }

    /// Reads one line and passes it to `take` before it leaves the buffer. See
    /// [`read_line`](ClientSocket::read_line).
    pub(crate) fn read_line_bytes<T>(
        &self,
        max: usize,
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> StdResult<T, Stop> {
        let limit = ("the line does not end within", max);
        let split = |searched, data: &[u8], ended| {
            LineSplitter::new(max).after(searched).split(data, ended)
        };
        self.read_frame(Some(b'\n'), split, limit, take)
    }

    /// Reads up to the first `delimiter` and passes the bytes to `take` before they leave the
    /// buffer. See [`read_until`](ClientSocket::read_until).
    pub(crate) fn read_until_bytes<T>(
        &self,
        delimiter: u8,
        max: usize,
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> StdResult<T, Stop> {
        let limit = ("the delimiter is not within", max);
        let split = |searched, data: &[u8], ended| {
            DelimiterSplitter::new(delimiter, max).after(searched).split(data, ended)
        };
        self.read_frame(Some(delimiter), split, limit, take)
    }

    #[cold]
    fn too_long(&self, (what, bytes): (&str, usize)) -> Error {
        let error = self.failed("read", ErrorKind::TooLong.into(), 0);
        error.detail(format!("{what} {}", Bytes(bytes)))
    }

    /// Reads into the buffer until `split` finds a frame there, and passes the frame to `take`.
    ///
    /// `delimiter` is the byte that ends the frame, if there is one. The arguments of `split` are the
    /// number of bytes that are known not to contain it, the buffered bytes, and whether the stream
    /// has ended. `limit` is for the error of a longer frame. If `take` has no memory and returns
    /// `None`, the frame stays in the buffer.
    fn read_frame<T>(
        &self,
        delimiter: Option<u8>,
        split: impl Fn(usize, &[u8], bool) -> Split,
        limit: (&'static str, usize),
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> StdResult<T, Stop> {
        let io = self.enter("read")?;
        self.require_stream("read")?;
        let start = self.require_readable(&io)?;
        let timeout = CallTimeout::new(&self.read_timeout, start);
        let (mut ended, mut filled) = (false, false);
        loop {
            let mut buffer = self.lock_buffer();
            let searched = buffer.searched(delimiter);
            let data = buffer.as_slice();
            let failure = match split(searched, data, ended) {
                Split::Message { range, len } => {
                    let Some(taken) = take(&data[range]) else {
                        let kept = data.len();
                        drop(buffer);
                        return Err(self.to_stop("read", ErrorKind::NoMemory.into(), kept));
                    };
                    buffer.consume(len);
                    self.update_buffered_flag(&buffer);
                    return Ok(taken);
                }
                Split::TooLong => {
                    drop(buffer);
                    return Err(self.too_long(limit).into());
                }
                Split::Malformed(why) => {
                    drop(buffer);
                    let error = self.failed("read", ErrorKind::Malformed.into(), 0);
                    return Err(error.detail(why).into());
                }
                Split::Incomplete if ended => Some((ErrorKind::EndOfStream, 0)),
                // Data may arrive without end and complete no frame.
                Split::Incomplete if filled && timeout.has_expired() => {
                    Some((ErrorKind::TimedOut, data.len()))
                }
                Split::Incomplete => None,
            };
            if let Some(delimiter) = delimiter {
                buffer.note_searched(delimiter);
            }
            drop(buffer);
            if let Some((kind, kept)) = failure {
                return Err(self.to_stop("read", kind.into(), kept));
            }
            // The thread waits without the lock, so that no other reader waits for it, and reads
            // with the lock, so that the bytes stay in order.
            let waited = self.wait_ready(&io, Interest::Read, timeout.deadline());
            let mut buffer = self.lock_buffer();
            let kept = buffer.as_slice().len();
            if let Err(cause) = waited {
                drop(buffer);
                return Err(self.to_stop("read", cause, kept));
            }
            match buffer.fill(|space| sys::recv(io.socket(), space, Wait::No)) {
                Ok(0) => {
                    drop(buffer);
                    self.on_eof(&io).map_err(|cause| self.to_stop("read", cause, kept))?;
                    ended = true;
                    continue;
                }
                Ok(_) => {
                    filled = true;
                    self.note_received();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.has(NONBLOCKING) {
                        drop(buffer);
                        return Err(self.to_stop("read", self.would_block(), kept));
                    }
                }
                Err(e) => {
                    drop(buffer);
                    let cause = self.record_error(&io, &e);
                    return Err(self.to_stop("read", cause, kept));
                }
            }
            self.update_buffered_flag(&buffer);
        }
    }

    /// The number of bytes in the read buffer of the socket. `read_line`, `read_until` and
    /// `read_message` may receive more bytes than they return, and a read that failed may leave
    /// bytes there.
    ///
    /// A program that polls the descriptor must read these bytes first, because the kernel no longer
    /// reports them.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// server.accept()?.write_all(b"one\ntwo\n")?;
    /// client.read_line(100)?;
    /// assert_eq!(client.buffered(), 4);   // "two\n" arrived together with "one\n"
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn buffered(&self) -> usize {
        if self.has(BUFFERED) { self.lock_buffer().as_slice().len() } else { 0 }
    }

    /// Moves bytes from the read buffer to `buf` and returns their number.
    pub(super) fn read_buffered(&self, buf: &mut [u8]) -> usize {
        if !self.has(BUFFERED) {
            return 0;
        }
        let mut buffer = self.lock_buffer();
        let n = buffer.take(buf);
        self.update_buffered_flag(&buffer);
        n
    }

    pub(super) fn lock_buffer(&self) -> MutexGuard<'_, ReadBuffer> {
        self.cold().buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets [`BUFFERED`] to the state of the buffer. The caller holds the lock of the buffer, so the
    /// flag and the buffer agree.
    pub(super) fn update_buffered_flag(&self, buffer: &ReadBuffer) {
        if buffer.as_slice().is_empty() {
            self.flags.fetch_and(!BUFFERED, Ordering::AcqRel);
        } else {
            self.flags.fetch_or(BUFFERED, Ordering::AcqRel);
        }
    }
}
