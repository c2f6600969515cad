//! Writing: all of one buffer or several, or what the kernel takes at once.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;

use super::{
    CLOSING, ClientSocket, HALF_CLOSED, HEARTBEAT_CUT, NONBLOCKING, PACKETS, POLLED, Patience,
    Pushed, SAW_END, UNSWITCHED, WRITE_TIMEOUT, WROTE, WROTE_LATE,
};

use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Result};
use crate::framing::LengthPrefix;
use crate::info::End;
use crate::sys::{self, InUse, Interest, Tick, Wait};
use crate::turn::{Held, Turn};
use crate::wait::Cause;

/// Writing is not just the one system call.
const NOT_ONE_CALL: u32 = POLLED | NONBLOCKING | CLOSING | UNSWITCHED | SAW_END | PACKETS;

impl ClientSocket {
    /// Writes some of `buf`: waits until the kernel takes at least one byte, and
    /// says how many it took. [`write_all`](ClientSocket::write_all) is what
    /// most programs want.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled),
    /// [`Closed`](ErrorKind::Closed) (by this program),
    /// [`WrongState`](ErrorKind::WrongState) after
    /// [`shutdown_write`](ClientSocket::shutdown_write), [`Reset`](ErrorKind::Reset),
    /// [`Dead`](ErrorKind::Dead) and [`Unreachable`](ErrorKind::Unreachable),
    /// [`Stalled`](ErrorKind::Stalled), [`IdleLimit`](ErrorKind::IdleLimit) and
    /// [`HeartbeatMissed`](ErrorKind::HeartbeatMissed) (the connection is over),
    /// [`WouldBlock`](ErrorKind::WouldBlock) in non-blocking mode, [`TooLong`](ErrorKind::TooLong)
    /// for a [packet](crate::SocketOptions::sequenced) beyond what the system sends. Never a
    /// SIGPIPE.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let taken = client.write(b"hello")?;
    /// assert!(taken >= 1);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn write(&self, buf: &[u8]) -> Result<usize> {
        let io = self.enter("write")?;
        self.is_packet(buf.len())?;
        if buf.is_empty() {
            return Ok(0);
        }
        let mut patience = Patience::new(&self.write_timeout, None);
        let written = self.take_turn(&io, &patience).and_then(|turn| {
            self.finish_heartbeat(&io, &mut patience, &turn)?;
            let done = self.send(&io, &mut patience, |wait| sys::send(io.socket(), buf, wait))?;
            self.note_call(done, buf.len());
            Ok(done)
        });
        written.map_err(|cause| self.failed("write", cause, 0))
    }

    /// Writes all of `buf`, within one write timeout for all.
    ///
    /// # Errors
    /// Those of [`write`](ClientSocket::write); [`Error::transferred`](crate::Error::transferred)
    /// says how many bytes the kernel had taken.
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
        let io = self.enter("write")?;
        // The turn first: whoever closes looks at it after setting the flag.
        let turn = self.writing.try_take();
        let flags = self.flags.load(Ordering::SeqCst);
        if turn.is_none() || flags & NOT_ONE_CALL != 0 {
            return self.write_on(&io, turn, buf, None, None);
        }
        if flags & WROTE == 0 {
            self.flags.fetch_or(WROTE, Ordering::Relaxed);
        }
        let start = (flags & WRITE_TIMEOUT != 0).then(Tick::now);
        match sys::send(io.socket(), buf, Wait::Yes) {
            Ok(n) if n == buf.len() => Ok(()),
            other => self.write_on(&io, turn, buf, start, Some(other)),
        }
    }

    /// A write that is more than one successful system call; `first` is what the
    /// kernel said already.
    #[cold]
    pub(super) fn write_on(
        &self,
        io: &InUse<'_>,
        turn: Option<Held<'_>>,
        buf: &[u8],
        start: Option<Tick>,
        first: Option<io::Result<usize>>,
    ) -> Result<()> {
        self.is_packet(buf.len())?;
        let mut patience = Patience::new(&self.write_timeout, start);
        patience.begun = first.is_some();
        let mut done = 0;
        let write = || -> std::result::Result<(), Cause> {
            let turn = match turn {
                Some(_) if first.is_none() && self.is_over(io) => {
                    return Err(ErrorKind::Closed.into());
                }
                Some(turn) => turn,
                None => self.take_turn(io, &patience)?,
            };
            self.finish_heartbeat(io, &mut patience, &turn)?;
            if let Some(settled) = first.and_then(|result| self.settle(io, result, &patience)) {
                done = settled?;
                self.note_call(done, buf.len());
            }
            while done < buf.len() {
                done += self
                    .send(io, &mut patience, |wait| sys::send(io.socket(), &buf[done..], wait))?;
                self.note_call(done, buf.len());
            }
            Ok(())
        };
        write().map_err(|cause| self.failed("write", cause, done))
    }

    /// Writes all of several buffers as if they were one, without copying them
    /// together: a header and its body leave in one system call and one segment.
    ///
    /// # Errors
    /// Those of [`write_all`](ClientSocket::write_all).
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
        if bufs.len() > sys::SLICES_MAX && self.has(PACKETS) {
            // In one call, whatever it costs.
            let packet: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            return self.write_all(&packet);
        }
        let io = self.enter("write")?;
        let mut patience = Patience::new(&self.write_timeout, None);
        let mut done = 0;
        let total = bufs.iter().map(|buf| buf.len()).sum();
        self.is_packet(total)?;
        let mut left = bufs;
        // Empty buffers at the front would make a full write look like none.
        IoSlice::advance_slices(&mut left, 0);
        let all = self.take_turn(&io, &patience).and_then(|turn| {
            self.finish_heartbeat(&io, &mut patience, &turn)?;
            while !left.is_empty() {
                let n = self
                    .send(&io, &mut patience, |wait| sys::send_slices(io.socket(), left, wait))?;
                done += n;
                self.note_call(done, total);
                IoSlice::advance_slices(&mut left, n);
            }
            Ok(())
        });
        all.map_err(|cause| self.failed("write", cause, done))
    }

    /// Writes one message with its length before it, in one system call.
    ///
    /// # Errors
    /// Those of [`write_all`](ClientSocket::write_all);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a message whose length the prefix
    /// cannot say. [`Error::transferred`](crate::Error::transferred) counts the prefix.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, LengthPrefix, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.write_message(LengthPrefix::U32Be, b"hello")?;
    /// assert_eq!(client.write_message(LengthPrefix::U8, &[0; 256]).unwrap_err().kind(),
    ///     keepsock::ErrorKind::InvalidArgument);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn write_message(&self, prefix: LengthPrefix, message: &[u8]) -> Result<()> {
        self.is_stream("write")?;
        let Some(encoded) = prefix.encode(message.len()) else {
            let size = prefix.size();
            let what = format!("{} bytes are more than a prefix of {size} can say", message.len());
            return Err(self.failed("write", ErrorKind::InvalidArgument.into(), 0).detail(what));
        };
        self.write_slices(&mut [IoSlice::new(encoded.as_slice()), IoSlice::new(message)])
    }

    pub(super) fn take_turn(
        &self,
        io: &InUse<'_>,
        patience: &Patience,
    ) -> std::result::Result<Held<'_>, Cause> {
        match self.writing.try_take() {
            Some(_) if self.is_over(io) => Err(ErrorKind::Closed.into()),
            Some(held) => Ok(held),
            None if self.has(NONBLOCKING) => Err(ErrorKind::WouldBlock.into()),
            None => {
                let (deadline, cancel) = (patience.deadline(), self.cancel_token());
                self.writing.take(|| {
                    let cancelled = cancel.as_ref().is_some_and(CancelToken::is_fired);
                    match () {
                        () if self.is_over(io) => Err(ErrorKind::Closed.into()),
                        () if cancelled => Err(ErrorKind::Cancelled.into()),
                        () if deadline.has_passed() => Err(ErrorKind::TimedOut.into()),
                        () => Ok(()),
                    }
                })
            }
        }
    }

    /// One write to the kernel, waiting as this socket waits.
    pub(super) fn send(
        &self,
        io: &InUse<'_>,
        patience: &mut Patience,
        call: impl FnMut(Wait) -> io::Result<usize>,
    ) -> std::result::Result<usize, Cause> {
        let late = if self.has(SAW_END) { WROTE_LATE } else { 0 };
        self.flags.fetch_or(WROTE | late, Ordering::Relaxed);
        let sent = match self.step(io, patience, Interest::Write, call) {
            Err(cause) if self.has(PACKETS) => return Err(ClientSocket::if_too_long(cause)),
            sent => sent?,
        };
        self.note_wrote();
        Ok(sent)
    }

    /// Sends all of `bytes` if the kernel takes them now. The turn says that
    /// nobody else is in the middle of a write.
    pub(crate) fn push(&self, bytes: &[u8], turn: &Held<'_>) -> Pushed {
        let Some(io) = self.descriptor.enter() else {
            return Pushed::Ending;
        };
        self.flags.fetch_or(WROTE, Ordering::Relaxed);
        if let (true, Some(live)) = (self.has(HEARTBEAT_CUT), &self.liveness) {
            // What has begun comes first.
            if self.send_rest(&io, live, turn).is_err() || self.has(HEARTBEAT_CUT) {
                return Pushed::Stuck;
            }
        }
        let mut done = 0;
        while done < bytes.len() {
            match sys::send(io.socket(), &bytes[done..], Wait::No) {
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Its last word was said: what is on its way must not be reset.
                Err(_) if self.is_ending() => return Pushed::Ending,
                Err(e) => {
                    if e.kind() == io::ErrorKind::WouldBlock {
                        self.note_end(End::Overrun);
                    }
                    return Pushed::Stuck;
                }
            }
        }
        self.note_wrote();
        Pushed::Sent
    }

    /// Whether this side has ended, or is about to.
    pub(crate) fn is_ending(&self) -> bool {
        self.descriptor.is_closed() || self.has(HALF_CLOSED | CLOSING)
    }

    /// The writers' turn, for [`push`](ClientSocket::push).
    pub(crate) fn writing(&self) -> &Turn {
        &self.writing
    }
}
