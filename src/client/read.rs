//! Reading: some bytes, exactly n, up to a delimiter, a line; and waiting for them.

use std::io::{self, IoSliceMut};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    BUFFERED, ClientSocket, DRAINING, HALF_CLOSED, NONBLOCKING, NOT_PLAIN, PACKETS, POLLED,
    Patience, READ_TIMEOUT, SAW_END,
};

use crate::buffer::ReadBuffer;
use crate::error::{ErrorKind, Result};
use crate::framing::{Cut, Delimited, LengthPrefix, Line};
use crate::info::End;
use crate::sys::{self, InUse, Interest, Tick, Wait};
use crate::wait::Cause;

impl ClientSocket {
    /// Reads some bytes: waits until there is at least one. 0 means that the
    /// peer closed its side (or that `buf` is empty).
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled),
    /// [`Closed`](ErrorKind::Closed) (by this program),
    /// [`Reset`](ErrorKind::Reset), [`Dead`](ErrorKind::Dead) and
    /// [`Unreachable`](ErrorKind::Unreachable), [`Stalled`](ErrorKind::Stalled),
    /// [`IdleLimit`](ErrorKind::IdleLimit) and
    /// [`HeartbeatMissed`](ErrorKind::HeartbeatMissed) (the connection is over),
    /// [`WouldBlock`](ErrorKind::WouldBlock) in non-blocking mode,
    /// [`Draining`](ErrorKind::Draining) in a server that drains,
    /// [`TooLong`](ErrorKind::TooLong) for a [packet](crate::SocketOptions::sequenced) that does
    /// not fit.
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
        let io = self.enter("read")?;
        let flags = self.flags.load(Ordering::SeqCst);
        if flags & NOT_PLAIN != 0 || buf.is_empty() {
            return self.read_on(&io, buf, None, None);
        }
        let start = (flags & READ_TIMEOUT != 0).then(Tick::now);
        match sys::recv(io.socket(), buf, Wait::Yes) {
            Ok(0) => self.read_end(&io),
            Ok(n) => Ok(n),
            other => self.read_on(&io, buf, start, Some(other)),
        }
    }

    pub(super) fn read_end(&self, io: &InUse<'_>) -> Result<usize> {
        self.at_end(io).map_err(|cause| self.failed("read", cause, 0))
    }

    /// A read that is more than one successful system call; `first` is what the
    /// kernel said already.
    #[cold]
    pub(super) fn read_on(
        &self,
        io: &InUse<'_>,
        buf: &mut [u8],
        start: Option<Tick>,
        first: Option<io::Result<usize>>,
    ) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if first.is_none() {
            self.may_read(io)?;
        }
        let buffered = self.take_buffered(buf);
        if buffered > 0 {
            return Ok(buffered);
        }
        let mut patience = Patience::new(&self.read_timeout, start);
        if self.has(PACKETS) {
            return self.recv_passed(io, buf, 0, &mut patience).map(|passed| passed.received.len);
        }
        patience.begun = first.is_some();
        let received = match first.and_then(|result| self.settle(io, result, &patience)) {
            Some(done) => done.and_then(|n| if n == 0 { self.at_end(io) } else { Ok(n) }),
            None => self.recv(io, buf, &mut patience),
        };
        received.map_err(|cause| self.failed("read", cause, 0))
    }

    /// Refuses to begin reading from a socket that is closing or draining.
    pub(super) fn may_read(&self, io: &InUse<'_>) -> Result<()> {
        match () {
            () if self.is_over(io) => Err(self.is_closed("read")),
            () if self.has(DRAINING) => Err(self.failed("read", ErrorKind::Draining.into(), 0)),
            () => Ok(()),
        }
    }

    /// Reads some bytes into several buffers, one after another, as
    /// [`read`](ClientSocket::read) does into one.
    ///
    /// # Errors
    /// Those of [`read`](ClientSocket::read).
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
        let io = self.enter("read")?;
        self.may_read(&io)?;
        let mut buffered = 0;
        for buf in bufs.iter_mut() {
            buffered += self.take_buffered(buf);
        }
        if buffered > 0 || bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(buffered);
        }
        let mut patience = Patience::new(&self.read_timeout, None);
        if self.has(PACKETS) {
            // One buffer for all tells whether it fitted.
            let mut packet = vec![0; bufs.iter().map(|buf| buf.len()).sum()];
            let len = self.recv_passed(&io, &mut packet, 0, &mut patience)?.received.len;
            let mut left = &packet[..len];
            for buf in bufs {
                let (part, rest) = left.split_at(left.len().min(buf.len()));
                buf[..part.len()].copy_from_slice(part);
                left = rest;
            }
            return Ok(len);
        }
        let call = |wait| sys::recv_slices(io.socket(), bufs, wait);
        match self.step(&io, &mut patience, Interest::Read, call) {
            Ok(0) => self.read_end(&io),
            Ok(n) => Ok(n),
            Err(cause) => Err(self.failed("read", cause, 0)),
        }
    }

    /// Reads exactly `buf.len()` bytes, within one read timeout for all.
    ///
    /// # Errors
    /// Those of [`read`](ClientSocket::read), and
    /// [`EndOfStream`](ErrorKind::EndOfStream) if the peer closed before all had come.
    /// Bytes that had come are kept for the next read, and
    /// [`Error::transferred`](crate::Error::transferred) counts them.
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
        let io = self.enter("read")?;
        self.is_stream("read")?;
        self.may_read(&io)?;
        let mut patience = Patience::new(&self.read_timeout, None);
        let mut done = self.take_buffered(buf);
        while done < buf.len() {
            let cause = match self.recv(&io, &mut buf[done..], &mut patience) {
                Ok(0) => ErrorKind::EndOfStream.into(),
                Ok(n) => {
                    done += n;
                    continue;
                }
                Err(cause) => cause,
            };
            let mut buffer = self.lock_buffer();
            buffer.put_back(&buf[..done]);
            self.note_buffered(&buffer);
            drop(buffer);
            return Err(self.failed("read", cause, done));
        }
        Ok(())
    }

    /// Reads up to and with the first `delimiter`, at most `max` bytes with it. The
    /// last piece of a stream that ends without delimiter comes without.
    ///
    /// # Errors
    /// Those of [`read`](ClientSocket::read);
    /// [`EndOfStream`](ErrorKind::EndOfStream) if the peer had closed before the first byte;
    /// [`TooLong`](ErrorKind::TooLong) if there is no delimiter within `max` bytes.
    /// Bytes that had come are kept for the next read.
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
        self.read_until_bytes(delimiter, max, <[u8]>::to_owned)
    }

    /// Reads one message that has its length before it, of at most `max` bytes; the prefix
    /// does not count and is taken off. A message of no bytes is one.
    ///
    /// # Errors
    /// Those of [`read`](ClientSocket::read);
    /// [`TooLong`](ErrorKind::TooLong) if the prefix says more than `max`;
    /// [`EndOfStream`](ErrorKind::EndOfStream) if the peer closed before all had come.
    /// Bytes that had come are kept for the next read.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, LengthPrefix, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # server.accept()?.write_all(&[0, 2, b'h', b'i'])?;
    /// assert_eq!(client.read_message(LengthPrefix::U16Be, 1024)?, b"hi");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn read_message(&self, prefix: LengthPrefix, max: usize) -> Result<Vec<u8>> {
        self.read_message_bytes(prefix, max, <[u8]>::to_owned)
    }

    pub(crate) fn read_message_bytes<T>(
        &self,
        prefix: LengthPrefix,
        max: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        self.read_piece(|data, _, _| prefix.cut(data, max), take)
    }

    /// Reads one line of at most `max` bytes, which do not count the line's end
    /// (LF or CRLF); it is taken off. Bytes that are not UTF-8 become U+FFFD:
    /// [`read_until`](ClientSocket::read_until) gives them as they are.
    ///
    /// # Errors
    /// Those of [`read_until`](ClientSocket::read_until).
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
        self.read_line_bytes(max, |line| String::from_utf8_lossy(line).into_owned())
    }

    /// Reads one line as [`read_line`](ClientSocket::read_line) does, as bytes,
    /// and hands it to `take` before it leaves the buffer.
    pub(crate) fn read_line_bytes<T>(
        &self,
        max: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let mut found = Line::new(max);
        let cut = |data: &[u8], ended, moved| {
            if moved {
                found = Line::new(max);
            }
            found.cut(data, ended)
        };
        self.read_piece(cut, take)
    }

    /// Reads up to and with the first `delimiter`, and hands the piece to `take` before it
    /// leaves the buffer.
    pub(crate) fn read_until_bytes<T>(
        &self,
        delimiter: u8,
        max: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let mut found = Delimited::new(delimiter, max);
        let cut = |data: &[u8], ended, moved| {
            if moved {
                found = Delimited::new(delimiter, max);
            }
            found.cut(data, ended)
        };
        self.read_piece(cut, take)
    }

    /// Reads into the buffer until `cut` finds a piece there, and hands it to `take`. `cut` gets
    /// the bytes, whether the stream has ended, and whether another reader took some since it
    /// was asked last, so that what it knows of them is of no use.
    fn read_piece<T>(
        &self,
        mut cut: impl FnMut(&[u8], bool, bool) -> Cut,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let io = self.enter("read")?;
        self.is_stream("read")?;
        self.may_read(&io)?;
        let patience = Patience::new(&self.read_timeout, None);
        let mut ended = false;
        let mut looked_at = None;
        loop {
            let mut buffer = self.lock_buffer();
            let position = buffer.position();
            let moved = looked_at.replace(position).is_some_and(|before| before != position);
            let data = buffer.as_slice();
            let failure = match cut(data, ended, moved) {
                Cut::Piece { range, len } => {
                    let taken = take(&data[range]);
                    buffer.consume(len);
                    self.note_buffered(&buffer);
                    return Ok(taken);
                }
                Cut::TooLong => Some(ErrorKind::TooLong),
                Cut::More => ended.then_some(ErrorKind::EndOfStream),
            };
            drop(buffer);
            if let Some(kind) = failure {
                return Err(self.failed("read", kind.into(), 0));
            }
            // Waiting happens without the lock and reading under it, so that
            // bytes stay in order and nobody waits for a waiter.
            let waited = self.wait_for(&io, Interest::Read, patience.deadline());
            let mut buffer = self.lock_buffer();
            let kept = buffer.as_slice().len();
            if let Err(cause) = waited {
                drop(buffer);
                return Err(self.failed("read", cause, kept));
            }
            match buffer.fill(|space| sys::recv(io.socket(), space, Wait::No)) {
                Ok(0) => {
                    if let Err(cause) = self.at_end(&io) {
                        drop(buffer);
                        return Err(self.failed("read", cause, kept));
                    }
                    ended = true;
                }
                Ok(_) => self.note_received(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.has(NONBLOCKING) {
                        return Err(self.failed("read", ErrorKind::WouldBlock.into(), kept));
                    }
                }
                Err(e) => {
                    let cause = self.ended_by(&io, &e);
                    drop(buffer);
                    return Err(self.failed("read", cause, kept));
                }
            }
            self.note_buffered(&buffer);
        }
    }

    /// How many bytes were read ahead and wait in this socket. An event loop that
    /// polls the descriptor must read these first: the kernel no longer has them.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// server.accept()?.write_all(b"one\ntwo\n")?;
    /// client.read_line(100)?;
    /// assert_eq!(client.buffered(), 4);   // "two\n" came along
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn buffered(&self) -> usize {
        if self.has(BUFFERED) { self.lock_buffer().as_slice().len() } else { 0 }
    }

    pub(super) fn take_buffered(&self, buf: &mut [u8]) -> usize {
        if !self.has(BUFFERED) {
            return 0;
        }
        let mut buffer = self.lock_buffer();
        let n = buffer.take(buf);
        self.note_buffered(&buffer);
        n
    }

    pub(super) fn lock_buffer(&self) -> MutexGuard<'_, ReadBuffer> {
        self.rare().buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_buffered(&self, buffer: &ReadBuffer) {
        // Under the buffer's lock, so the flag and the buffer agree.
        if buffer.as_slice().is_empty() {
            self.flags.fetch_and(!BUFFERED, Ordering::AcqRel);
        } else {
            self.flags.fetch_or(BUFFERED, Ordering::AcqRel);
        }
    }

    /// One read from the kernel, waiting as this socket waits.
    pub(super) fn recv(
        &self,
        io: &InUse<'_>,
        buf: &mut [u8],
        patience: &mut Patience,
    ) -> std::result::Result<usize, Cause> {
        let done =
            self.step(io, patience, Interest::Read, |wait| sys::recv(io.socket(), buf, wait))?;
        if done == 0 { self.at_end(io) } else { Ok(done) }
    }

    /// One read from or write to the kernel, waiting as this socket waits.
    pub(super) fn step(
        &self,
        io: &InUse<'_>,
        patience: &mut Patience,
        interest: Interest,
        mut call: impl FnMut(Wait) -> io::Result<usize>,
    ) -> std::result::Result<usize, Cause> {
        if !self.has(POLLED | NONBLOCKING) && !patience.begun {
            self.switch_to_blocking(io)?;
            patience.begun = true;
            if let Some(done) = self.settle(io, call(Wait::Yes), patience) {
                return done;
            }
        }
        // What is read has mostly yet to come, what is written mostly fits.
        if interest == Interest::Read {
            self.wait_for(io, interest, patience.deadline())?;
        } else if self.cancel_token().is_some_and(|t| t.is_fired()) {
            return Err(ErrorKind::Cancelled.into());
        }
        loop {
            match call(Wait::No) {
                Ok(n) => {
                    if interest == Interest::Read {
                        self.note_received();
                    }
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.has(NONBLOCKING) {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                    self.wait_for(io, interest, patience.deadline())?;
                }
                Err(e) => return Err(self.ended_by(io, &e)),
            }
        }
    }

    /// What a call that could wait in the kernel came to; `None`: it is to be
    /// continued with what is left of its time.
    pub(super) fn settle(
        &self,
        io: &InUse<'_>,
        result: io::Result<usize>,
        patience: &Patience,
    ) -> Option<std::result::Result<usize, Cause>> {
        match result {
            Ok(n) => Some(Ok(n)),
            // signal(7): a call with SO_RCVTIMEO or SO_SNDTIMEO is not restarted,
            // and starting it again would start its time again.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => None,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || sys::is_in_progress(&e) => {
                // The kernel's timer ran out, or else somebody has made the
                // descriptor non-blocking: then what is left is waited for in poll.
                let timed = patience.kernel_timer_is_over() && !self.has(NONBLOCKING);
                timed.then(|| Err(ErrorKind::TimedOut.into()))
            }
            Err(e) => Some(Err(self.ended_by(io, &e))),
        }
    }

    /// What a read of zero bytes means: the peer's FIN, unless one of us ended it.
    pub(super) fn at_end(&self, io: &InUse<'_>) -> std::result::Result<usize, Cause> {
        if self.is_over(io) {
            return Err(ErrorKind::Closed.into());
        }
        if self.has(DRAINING) {
            return Err(ErrorKind::Draining.into());
        }
        match self.known_end(io) {
            None => {
                self.flags.fetch_or(SAW_END, Ordering::Relaxed);
                self.note_fin();
                Ok(0)
            }
            Some(cause) => Err(cause),
        }
    }

    /// The error that ended the connection, if one did. The kernel tells it to
    /// one call only.
    #[inline]
    pub(super) fn known_end(&self, io: &InUse<'_>) -> Option<Cause> {
        match self.ended.load(Ordering::Acquire) {
            0 if self.descriptor.is_shared(io) => self.end_in_another_hand(io),
            0 => None,
            code => Some(self.over(code)),
        }
    }

    /// A call of another thread may have the error and not have written it down yet.
    #[cold]
    fn end_in_another_hand(&self, io: &InUse<'_>) -> Option<Cause> {
        for _ in 0..20 {
            let shared = self.descriptor.is_shared(io);
            match self.ended.load(Ordering::Acquire) {
                0 if shared && !self.has(HALF_CLOSED) && sys::is_gone(io.socket()) => {
                    std::thread::sleep(Duration::from_micros(50));
                }
                0 => break,
                code => return Some(self.over(code)),
            }
        }
        // Nobody has one. A connection may be gone without: the peer answers RST to
        // what was written after its FIN, and the FIN came first.
        None
    }

    /// What a failed read or write means, remembered for the calls after it.
    pub(super) fn ended_by(&self, io: &InUse<'_>, err: &io::Error) -> Cause {
        if self.is_over(io) {
            return ErrorKind::Closed.into();
        }
        let broken_pipe = err.kind() == io::ErrorKind::BrokenPipe;
        if broken_pipe && self.has(HALF_CLOSED) {
            return Cause::Kind(ErrorKind::WrongState); // this side's stream was ended
        }
        // EPIPE only says that there was an end; what the peer sent before it
        // may still be read.
        let known = self.ended.load(Ordering::Acquire);
        if broken_pipe && known == 0 {
            self.note_end(End::ClosedByPeer);
            return Cause::ended(err);
        }
        if known != 0 {
            return self.over(known);
        }
        match err.raw_os_error() {
            Some(code) if sys::is_from_network(err) => {
                self.note_over(io, code);
                self.over(code)
            }
            _ => Cause::ended(err),
        }
    }
}
