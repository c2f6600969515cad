//! ClientSocket: one connection, made by connect or by accept.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use socket2::SockRef;

use crate::buffer::ReadBuffer;
use crate::cancel::CancelToken;
use crate::connect::{self, Connected};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::info::{Address, FiveTuple, Hangup};
use crate::keepalive::Keepalive;
use crate::options::SocketOptions;
use crate::sys::{self, Descriptor, InUse, Interest, Owned, Tick, Wait};
use crate::turn::{Held, Turn};
use crate::wait::{Cause, Deadline, wait};

/// Calls wait in poll and not in the call itself: there is a cancel token, or the
/// platform has no other way.
const POLLED: u32 = 1;
/// Calls do not wait at all.
const NONBLOCKING: u32 = 1 << 1;
/// The peer's FIN was read: nothing more can come, so closing loses nothing.
const SAW_END: u32 = 1 << 2;
/// Something was written, so there is something that closing could lose.
const WROTE: u32 = 1 << 3;
/// This side was shut down.
const HALF_CLOSED: u32 = 1 << 4;
/// The server that accepted the connection is draining.
const DRAINING: u32 = 1 << 5;

/// `buffer` holds something.
const BUFFERED: u32 = 1 << 6;
/// There is a read timeout, and a write timeout.
const READ_TIMEOUT: u32 = 1 << 7;
const WRITE_TIMEOUT: u32 = 1 << 8;

/// Closing has begun: no call may begin, those of other threads are to end.
const CLOSING: u32 = 1 << 9;
/// A read or write is not just the one system call.
const NOT_PLAIN: u32 = POLLED | NONBLOCKING | BUFFERED | DRAINING | CLOSING;

/// How many pieces of 4 KiB a close that has no time throws away.
const IMPATIENT_PIECES: u32 = 64;

const NO_TIMEOUT: u64 = u64::MAX;

/// One confirmed connection, made by [`connect`](ClientSocket::connect) or by
/// [`ServerSocket::accept`](crate::ServerSocket::accept).
///
/// All methods take `&self`: any number of threads may use one socket at once,
/// and one that reads while another writes is the normal case. What one call
/// writes is not cut by another's bytes. Two threads that read share the bytes
/// between them. [`close`](ClientSocket::close) may come from any thread at any time.
///
/// Dropping a socket closes it as [`close`](ClientSocket::close) does.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket};
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// let accepted = server.accept()?;
/// client.write_all(b"hello\n")?;
/// assert_eq!(accepted.read_line(100)?, "hello");
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug)]
pub struct ClientSocket {
    descriptor: Descriptor,
    remote: Address,
    local: Local,
    flags: AtomicU32,
    /// Milliseconds, or NO_TIMEOUT. The kernel has the same value (SO_RCVTIMEO).
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
    /// Milliseconds.
    close_timeout: AtomicU64,
    cancel: Mutex<Option<CancelToken>>,
    /// What was read beyond what a caller asked for.
    buffer: Mutex<ReadBuffer>,
    writing: Turn,
    /// The error that ended the connection. The kernel tells it once, and then
    /// reads look as if the peer had closed.
    ended: AtomicI32,
}

/// This side's address.
#[derive(Debug)]
enum Local {
    Known(Address),
    /// Asked of the kernel when somebody wants to know, and at close at the latest.
    Asked(OnceLock<Address>),
}

/// Rounded up, so that a short time is not none.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(NO_TIMEOUT)
}

/// What became of a message that was not to wait.
pub(crate) enum Pushed {
    Sent,
    /// The kernel did not take all of it: the peer does not keep up, or is gone.
    Stuck,
    /// This side of the connection had ended before.
    Ending,
}

/// The time that one call has, from its start.
struct Patience {
    since: Option<(Tick, Duration)>,
    /// The kernel's own timer has run for this call; it would start anew.
    begun: bool,
}

impl Patience {
    fn new(timeout: &AtomicU64, start: Option<Tick>) -> Patience {
        let since = match timeout.load(Ordering::Relaxed) {
            NO_TIMEOUT => None,
            ms => Some((start.unwrap_or_else(Tick::now), Duration::from_millis(ms))),
        };
        Patience { since, begun: false }
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.since.map(|(start, timeout)| timeout.saturating_sub(start.elapsed())))
    }
}

impl ClientSocket {
    /// Connects with the default options: TCP or a Unix socket, as the endpoint
    /// says. The addresses of a name race (RFC 8305): IPv6 and IPv4 in turns, the
    /// next one 250 ms after the one before or as soon as one has failed; the first
    /// that connects wins. All within 30 s.
    ///
    /// A lookup that was given up keeps a thread until the resolver answers; at most
    /// 64, then lookups fail with [`LookupFailed`](ErrorKind::LookupFailed).
    ///
    /// # Errors
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint);
    /// [`NotFound`](ErrorKind::NotFound) and [`LookupFailed`](ErrorKind::LookupFailed) from the
    /// lookup; [`Refused`](ErrorKind::Refused), [`Unreachable`](ErrorKind::Unreachable),
    /// [`TimedOut`](ErrorKind::TimedOut) and others from the attempts, each of
    /// which is in [`Error::attempts`].
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let endpoint = format!("127.0.0.1:{}", server.port());
    /// let client = ClientSocket::connect(&endpoint)?;
    /// println!("{}", client.five_tuple());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect<E>(endpoint: E) -> Result<ClientSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        ClientSocket::connect_with(endpoint, &SocketOptions::default())
    }

    /// Connects with options.
    ///
    /// # Errors
    /// Those of [`connect`](ClientSocket::connect);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options out of range;
    /// [`Cancelled`](ErrorKind::Cancelled) if the options hold a token that was fired;
    /// [`AddressNotAvailable`](ErrorKind::AddressNotAvailable),
    /// [`Unsupported`](ErrorKind::Unsupported) and
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) for options that cannot be met.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let options = SocketOptions::new().connect_timeout(std::time::Duration::from_secs(3));
    /// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connect_with<E>(endpoint: E, options: &SocketOptions) -> Result<ClientSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during("connect"))?;
        let Connected { socket, local, remote } = connect::connect(&endpoint, options)?;
        let made = ClientSocket::without_timeouts(socket, remote, local, options);
        made.set_cancel(options.cancel.as_ref());
        made.apply_timeouts(options)?;
        Ok(made)
    }

    /// Takes over a connected stream socket and sets it to the options (not to
    /// their timeouts for connecting, nor to what must be set before connecting).
    ///
    /// # Errors
    /// The descriptor is given back with the error:
    /// [`WrongState`](ErrorKind::WrongState) if it is not a connected stream socket.
    ///
    /// ```
    /// use keepsock::{ClientSocket, SocketOptions};
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let client = ClientSocket::from_owned(stream.into(), &SocketOptions::new());
    /// assert_eq!(client.unwrap().five_tuple().remote, listener.local_addr()?.into());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_owned(
        socket: Owned,
        options: &SocketOptions,
    ) -> std::result::Result<ClientSocket, (Owned, Error)> {
        const OPERATION: &str = "take over";
        let wrong =
            |what: &str| Error::new(ErrorKind::WrongState, OPERATION).detail(what.to_owned());
        let look = || -> Result<Address> {
            options.validate(OPERATION)?;
            let fd = sys::borrow(&socket);
            match sys::is_listening_stream(fd).map_err(|e| Error::os(OPERATION, &e))? {
                Some(false) => {}
                Some(true) => return Err(wrong("a listening socket")),
                None => return Err(wrong("not a stream socket")),
            }
            let peer = SockRef::from(&fd).peer_addr().map_err(|_| wrong("not connected"))?;
            let inet = peer.as_socket();
            if let Some(peer) = inet {
                let applied = options.adopt_tcp(fd, peer.is_ipv6());
                applied.map_err(|cause| cause.into_error(OPERATION))?;
            }
            options.adopt(fd).map_err(|cause| cause.into_error(OPERATION))?;
            Ok(sys::to_address(&peer))
        };
        match look() {
            Ok(remote) => {
                let made = ClientSocket::without_timeouts(socket, remote, None, options);
                made.set_cancel(options.cancel.as_ref());
                if let Err(e) = made.apply_timeouts(options) {
                    // The socket is alone in our hands, so it can be given back.
                    let guard = made.descriptor.enter();
                    if let Some(socket) = guard.and_then(|g| made.descriptor.release(g)) {
                        return Err((socket, e));
                    }
                }
                Ok(made)
            }
            Err(e) => Err((socket, e)),
        }
    }

    #[inline]
    fn without_timeouts(
        socket: Owned,
        remote: Address,
        local: Option<Address>,
        options: &SocketOptions,
    ) -> ClientSocket {
        ClientSocket {
            descriptor: Descriptor::new(socket),
            remote,
            local: local.map_or_else(|| Local::Asked(OnceLock::new()), Local::Known),
            flags: AtomicU32::new(if sys::BLOCKING_CALLS { 0 } else { POLLED }),
            read_timeout: AtomicU64::new(NO_TIMEOUT),
            write_timeout: AtomicU64::new(NO_TIMEOUT),
            close_timeout: AtomicU64::new(millis(options.close_timeout)),
            cancel: Mutex::new(None),
            buffer: Mutex::default(),
            writing: Turn::default(),
            ended: AtomicI32::new(0),
        }
    }

    fn apply_timeouts(&self, options: &SocketOptions) -> Result<()> {
        if options.read_timeout.is_some() {
            self.set_read_timeout(options.read_timeout)?;
        }
        if options.write_timeout.is_some() {
            self.set_write_timeout(options.write_timeout)?;
        }
        Ok(())
    }

    /// An accepted connection. What the listener's address tells of the local
    /// one need not be asked.
    #[inline]
    pub(crate) fn accepted(
        socket: Owned,
        remote: Address,
        listener: &Address,
        options: &SocketOptions,
    ) -> Result<ClientSocket> {
        let local = (!listener.is_wildcard()).then(|| listener.clone());
        let made = ClientSocket::without_timeouts(socket, remote, local, options);
        made.apply_timeouts(options)?;
        Ok(made)
    }

    // ---- reading ---------------------------------------------------------------------

    /// Reads some bytes: waits until there is at least one. 0 means that the
    /// peer closed its side (or that `buf` is empty).
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled),
    /// [`Closed`](ErrorKind::Closed) (by this program),
    /// [`Reset`](ErrorKind::Reset), [`Dead`](ErrorKind::Dead) and
    /// [`Unreachable`](ErrorKind::Unreachable) (the connection is over),
    /// [`WouldBlock`](ErrorKind::WouldBlock) in non-blocking mode,
    /// [`Draining`](ErrorKind::Draining) in a server that drains.
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
        let flags = self.flags.load(Ordering::Acquire);
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

    fn read_end(&self, io: &InUse<'_>) -> Result<usize> {
        self.at_end(io).map_err(|cause| self.failed("read", cause, 0))
    }

    /// A read that is more than one successful system call; `first` is what the
    /// kernel said already.
    #[cold]
    fn read_on(
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
        patience.begun = first.is_some();
        let received = match first.and_then(|result| self.settle(io, result, &patience)) {
            Some(done) => done.and_then(|n| if n == 0 { self.at_end(io) } else { Ok(n) }),
            None => self.recv(io, buf, &mut patience),
        };
        received.map_err(|cause| self.failed("read", cause, 0))
    }

    /// Refuses to begin reading from a socket that is closing or draining.
    fn may_read(&self, io: &InUse<'_>) -> Result<()> {
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
    /// [`Error::transferred`] counts them.
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
        self.read_piece(delimiter, max, |piece| Some(piece.to_owned()))
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
        self.read_piece(b'\n', max.saturating_add(2), |piece| {
            let line = piece.strip_suffix(b"\n").unwrap_or(piece);
            let line = if line.len() < piece.len() {
                line.strip_suffix(b"\r").unwrap_or(line)
            } else {
                line
            };
            (line.len() <= max).then(|| take(line))
        })
    }

    /// Reads into the buffer until a piece ends, and hands it to `take`; `None`
    /// from there says that it is too long after all.
    pub(crate) fn read_piece<T>(
        &self,
        delimiter: u8,
        max: usize,
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let io = self.enter("read")?;
        self.may_read(&io)?;
        let patience = Patience::new(&self.read_timeout, None);
        let mut searched = 0;
        let mut ended = false;
        loop {
            let mut buffer = self.lock_buffer();
            let data = buffer.as_slice();
            let within = &data[..data.len().min(max)];
            // Another reader may have taken bytes since: then nothing was searched.
            let from = if searched <= within.len() { searched } else { 0 };
            let found = within[from..].iter().position(|b| *b == delimiter).map(|i| from + i + 1);
            let piece = found
                .or_else(|| (ended && !data.is_empty() && data.len() <= max).then_some(data.len()));
            if let Some(len) = piece {
                let Some(taken) = take(&data[..len]) else {
                    return Err(self.failed("read", ErrorKind::TooLong.into(), 0));
                };
                buffer.consume(len);
                self.note_buffered(&buffer);
                return Ok(taken);
            }
            if data.len() >= max {
                return Err(self.failed("read", ErrorKind::TooLong.into(), 0));
            }
            if ended {
                return Err(self.failed("read", ErrorKind::EndOfStream.into(), 0));
            }
            searched = data.len();
            drop(buffer);
            // Waiting happens without the lock and reading under it, so that
            // bytes stay in order and nobody waits for a waiter.
            let waited = self.wait_for(&io, Interest::Read, patience.deadline());
            let mut buffer = self.lock_buffer();
            let kept = buffer.as_slice().len();
            waited.map_err(|cause| self.failed("read", cause, kept))?;
            match buffer.fill(|space| sys::recv(io.socket(), space, Wait::No)) {
                Ok(0) => {
                    self.at_end(&io).map_err(|cause| self.failed("read", cause, kept))?;
                    ended = true;
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.has(NONBLOCKING) {
                        return Err(self.failed("read", ErrorKind::WouldBlock.into(), kept));
                    }
                }
                Err(e) => return Err(self.failed("read", self.ended_by(&io, e), kept)),
            }
            self.note_buffered(&buffer);
        }
    }

    /// How many bytes were read ahead and wait in this socket. An event loop that
    /// polls the descriptor must read these first: the kernel no longer has them.
    pub fn buffered(&self) -> usize {
        if self.has(BUFFERED) { self.lock_buffer().as_slice().len() } else { 0 }
    }

    fn take_buffered(&self, buf: &mut [u8]) -> usize {
        if !self.has(BUFFERED) {
            return 0;
        }
        let mut buffer = self.lock_buffer();
        let n = buffer.take(buf);
        self.note_buffered(&buffer);
        n
    }

    fn lock_buffer(&self) -> MutexGuard<'_, ReadBuffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_buffered(&self, buffer: &ReadBuffer) {
        // Under the buffer's lock, so the flag and the buffer agree.
        if buffer.as_slice().is_empty() {
            self.flags.fetch_and(!BUFFERED, Ordering::AcqRel);
        } else {
            self.flags.fetch_or(BUFFERED, Ordering::AcqRel);
        }
    }

    /// One read from the kernel, waiting as this socket waits.
    fn recv(
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
    fn step(
        &self,
        io: &InUse<'_>,
        patience: &mut Patience,
        interest: Interest,
        mut call: impl FnMut(Wait) -> io::Result<usize>,
    ) -> std::result::Result<usize, Cause> {
        if !self.has(POLLED | NONBLOCKING) && !patience.begun {
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
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.has(NONBLOCKING) {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                    self.wait_for(io, interest, patience.deadline())?;
                }
                Err(e) => return Err(self.ended_by(io, e)),
            }
        }
    }

    /// What a call that could wait in the kernel came to; `None`: it is to be
    /// continued with what is left of its time.
    fn settle(
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
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // The kernel's timer ran out; without one, somebody has made the
                // descriptor non-blocking.
                let timed = patience.since.is_some() && !self.has(NONBLOCKING);
                timed.then(|| Err(ErrorKind::TimedOut.into()))
            }
            Err(e) => Some(Err(self.ended_by(io, e))),
        }
    }

    /// What a read of zero bytes means: the peer's FIN, unless one of us ended it.
    fn at_end(&self, io: &InUse<'_>) -> std::result::Result<usize, Cause> {
        if self.is_over(io) {
            return Err(ErrorKind::Closed.into());
        }
        if self.has(DRAINING) {
            return Err(ErrorKind::Draining.into());
        }
        match self.known_end(io) {
            None => {
                self.flags.fetch_or(SAW_END, Ordering::Relaxed);
                Ok(0)
            }
            Some(cause) => Err(cause),
        }
    }

    /// The error that ended the connection, if one did. The kernel tells it to
    /// one call only; a call of another thread may have it in hand and not have
    /// written it down yet.
    fn known_end(&self, io: &InUse<'_>) -> Option<Cause> {
        for _ in 0..20 {
            let shared = self.descriptor.is_shared(io);
            match self.ended.load(Ordering::Acquire) {
                0 if shared && !self.has(HALF_CLOSED) && sys::is_gone(io.socket()) => {
                    std::thread::sleep(Duration::from_micros(50));
                }
                0 => return None,
                code => return Some(Cause::Ended(io::Error::from_raw_os_error(code))),
            }
        }
        Some(ErrorKind::Reset.into())
    }

    /// What a failed read or write means, remembered for the calls after it.
    fn ended_by(&self, io: &InUse<'_>, err: io::Error) -> Cause {
        if self.is_over(io) {
            return ErrorKind::Closed.into();
        }
        let broken_pipe = err.kind() == io::ErrorKind::BrokenPipe;
        if broken_pipe && self.has(HALF_CLOSED) {
            return Cause::Kind(ErrorKind::WrongState); // this side's stream was ended
        }
        // EPIPE only says that there was an end; what the peer sent before it
        // may still be read.
        if broken_pipe {
            return match self.ended.load(Ordering::Acquire) {
                0 => Cause::Ended(err),
                code => Cause::Ended(io::Error::from_raw_os_error(code)),
            };
        }
        if let (Some(code), ErrorKind::Reset | ErrorKind::TimedOut | ErrorKind::Unreachable) =
            (err.raw_os_error(), ErrorKind::of(&err))
        {
            self.ended.store(code, Ordering::Release);
        }
        Cause::Ended(err)
    }

    // ---- writing ---------------------------------------------------------------------

    /// Writes some of `buf`: waits until the kernel takes at least one byte, and
    /// says how many it took. [`write_all`](ClientSocket::write_all) is what
    /// most programs want.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled),
    /// [`Closed`](ErrorKind::Closed) (by this program),
    /// [`WrongState`](ErrorKind::WrongState) after [`shutdown_write`](ClientSocket::shutdown_write),
    /// [`Reset`](ErrorKind::Reset), [`Dead`](ErrorKind::Dead) and
    /// [`Unreachable`](ErrorKind::Unreachable) (the connection is over),
    /// [`WouldBlock`](ErrorKind::WouldBlock) in non-blocking mode. Never a SIGPIPE.
    pub fn write(&self, buf: &[u8]) -> Result<usize> {
        let io = self.enter("write")?;
        if buf.is_empty() {
            return Ok(0);
        }
        let mut patience = Patience::new(&self.write_timeout, None);
        let written = self.take_turn(&io, &patience).and_then(|_turn| {
            self.send(&io, &mut patience, |wait| sys::send(io.socket(), buf, wait))
        });
        written.map_err(|cause| self.failed("write", cause, 0))
    }

    /// Writes all of `buf`, within one write timeout for all.
    ///
    /// # Errors
    /// Those of [`write`](ClientSocket::write); [`Error::transferred`] says how
    /// many bytes the kernel had taken.
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
        let flags = self.flags.load(Ordering::Acquire);
        let turn = self.writing.try_take();
        if turn.is_none() || flags & (POLLED | NONBLOCKING | CLOSING) != 0 {
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
    fn write_on(
        &self,
        io: &InUse<'_>,
        turn: Option<Held<'_>>,
        buf: &[u8],
        start: Option<Tick>,
        first: Option<io::Result<usize>>,
    ) -> Result<()> {
        let mut patience = Patience::new(&self.write_timeout, start);
        patience.begun = first.is_some();
        let mut done = 0;
        let write = || -> std::result::Result<(), Cause> {
            let _turn = match turn {
                Some(_) if first.is_none() && self.is_over(io) => {
                    return Err(ErrorKind::Closed.into());
                }
                Some(turn) => turn,
                None => self.take_turn(io, &patience)?,
            };
            if let Some(settled) = first.and_then(|result| self.settle(io, result, &patience)) {
                done = settled?;
            }
            while done < buf.len() {
                done += self
                    .send(io, &mut patience, |wait| sys::send(io.socket(), &buf[done..], wait))?;
            }
            Ok(())
        };
        let all = write();
        all.map_err(|cause| self.failed("write", cause, done))
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
        let io = self.enter("write")?;
        let mut patience = Patience::new(&self.write_timeout, None);
        let mut done = 0;
        let mut left = bufs;
        // Empty buffers at the front would make a full write look like none.
        IoSlice::advance_slices(&mut left, 0);
        let all = self.take_turn(&io, &patience).and_then(|_turn| {
            while !left.is_empty() {
                let n = self
                    .send(&io, &mut patience, |wait| sys::send_slices(io.socket(), left, wait))?;
                done += n;
                IoSlice::advance_slices(&mut left, n);
            }
            Ok(())
        });
        all.map_err(|cause| self.failed("write", cause, done))
    }

    fn take_turn(
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
    fn send(
        &self,
        io: &InUse<'_>,
        patience: &mut Patience,
        call: impl FnMut(Wait) -> io::Result<usize>,
    ) -> std::result::Result<usize, Cause> {
        self.flags.fetch_or(WROTE, Ordering::Relaxed);
        self.step(io, patience, Interest::Write, call)
    }

    /// Sends all of `bytes` if the kernel takes them now. The turn says that
    /// nobody else is in the middle of a write.
    pub(crate) fn push(&self, bytes: &[u8], _turn: &Held<'_>) -> Pushed {
        let Some(io) = self.descriptor.enter() else {
            return Pushed::Ending;
        };
        // Its last word was said: what is on its way must not be reset.
        if self.has(HALF_CLOSED) || self.is_over(&io) {
            return Pushed::Ending;
        }
        self.flags.fetch_or(WROTE, Ordering::Relaxed);
        let mut done = 0;
        while done < bytes.len() {
            match sys::send(io.socket(), &bytes[done..], Wait::No) {
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.has(HALF_CLOSED) || self.is_over(&io) => return Pushed::Ending,
                Err(_) => return Pushed::Stuck,
            }
        }
        Pushed::Sent
    }

    /// The writers' turn, for [`push`](ClientSocket::push).
    pub(crate) fn writing(&self) -> &Turn {
        &self.writing
    }

    // ---- the end ---------------------------------------------------------------------

    /// Waits, without reading, until the connection ends: the peer closes its
    /// side, resets, or is given up by the kernel. `None` waits for as long as
    /// that takes; zero only looks. Data that came before the end stays readable.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): the connection lives.
    /// [`Cancelled`](ErrorKind::Cancelled), [`Closed`](ErrorKind::Closed),
    /// [`Draining`](ErrorKind::Draining) as for [`read`](ClientSocket::read);
    /// [`Unsupported`](ErrorKind::Unsupported) on macOS and Windows, whose poll
    /// does not tell.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, Hangup, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # let accepted = server.accept()?;
    /// client.shutdown_write()?;
    /// # if cfg!(target_os = "linux") {
    /// assert_eq!(accepted.wait_hangup(None)?, Hangup::Fin);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait_hangup(&self, timeout: impl Into<Option<Duration>>) -> Result<Hangup> {
        const OPERATION: &str = "wait for hang-up";
        let io = self.enter(OPERATION)?;
        if !sys::SEES_HANGUP {
            return Err(self.failed(OPERATION, ErrorKind::Unsupported.into(), 0));
        }
        let deadline = Deadline::after(timeout.into());
        let cancel = self.cancel_token();
        let socket = Some((io.socket(), Interest::Hangup));
        let ready = wait(socket, deadline, cancel.as_ref(), || self.is_over(&io))
            .map_err(|cause| self.failed(OPERATION, cause, 0))?;
        if ready.error {
            // SO_ERROR clears when it is read; whoever reads later is to see it too.
            if let Ok(Some(e)) = SockRef::from(&io.socket()).take_error() {
                self.ended.store(e.raw_os_error().unwrap_or(0), Ordering::Release);
            }
        }
        match self.known_end(&io).map(|cause| cause.kind()) {
            None if self.has(DRAINING) => {
                Err(self.failed(OPERATION, ErrorKind::Draining.into(), 0))
            }
            None => Ok(Hangup::Fin),
            Some(ErrorKind::Dead | ErrorKind::Unreachable) => Ok(Hangup::Dead),
            Some(_) => Ok(Hangup::Reset),
        }
    }

    /// Ends this side's stream (FIN): the peer reads to the end, and can still
    /// send. What was written before is delivered.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), or [`Reset`](ErrorKind::Reset) if the connection is over.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # let accepted = server.accept()?;
    /// client.shutdown_write()?;
    /// assert_eq!(accepted.read(&mut [0; 8])?, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn shutdown_write(&self) -> Result<()> {
        const OPERATION: &str = "shutdown";
        let io = self.enter(OPERATION)?;
        // Before the call, so that a write which fails by it knows why.
        self.flags.fetch_or(HALF_CLOSED, Ordering::AcqRel);
        SockRef::from(&io.socket())
            .shutdown(Shutdown::Write)
            .map_err(|e| self.failed(OPERATION, self.ended_by(&io, e), 0))
    }

    /// Closes gracefully. The peer receives every byte that was written, even if
    /// it is still sending: this side's stream is ended (FIN), what comes in is
    /// read and thrown away until the peer ends its side too, then the descriptor
    /// is closed. That takes at most the
    /// [`close_timeout`](SocketOptions::close_timeout), or no time if the peer
    /// has ended its side before, if nothing was written, or in non-blocking mode.
    ///
    /// (A close with unread input would send RST, and the peer's kernel might
    /// throw away what its program had not read yet: RFC 2525 section 2.17.)
    ///
    /// Any thread may close at any time. Calls of other threads that wait on this
    /// socket end with [`Closed`](ErrorKind::Closed); closing then waits only until the
    /// peer's kernel has acknowledged everything. Closing twice is fine.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): the peer did not end its side in time,
    /// so whether it has everything isn't known. [`Reset`](ErrorKind::Reset): it
    /// broke off. The socket is closed all the same.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ErrorKind, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.close()?;
    /// client.close()?;
    /// assert_eq!(client.write_all(b"x").unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn close(&self) -> Result<()> {
        let Some(io) = self.descriptor.enter() else {
            return Ok(());
        };
        if self.flags.fetch_or(CLOSING, Ordering::AcqRel) & CLOSING != 0 {
            return Ok(()); // another thread is at it
        }
        let drained =
            if self.others_wait(&io) { self.end_calls(&io) } else { self.drain_input(&io) };
        let aborted = io.is_closed();
        self.close_now(&io);
        match drained {
            // By another thread, while this one was draining.
            Err(_) if aborted => Ok(()),
            Err(cause) => Err(self.failed("close", cause, 0)),
            Ok(()) => Ok(()),
        }
    }

    /// Whether calls of other threads are waiting on the socket; those that are only
    /// passing are given the time to leave.
    fn others_wait(&self, io: &InUse<'_>) -> bool {
        for _ in 0..20 {
            if !self.descriptor.is_shared(io) {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        true
    }

    /// Ends reads of other threads without losing what was written.
    fn end_calls(&self, io: &InUse<'_>) -> std::result::Result<(), Cause> {
        let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        if !self.has(WROTE) {
            return Ok(());
        }
        match self.writing.try_take() {
            Some(_turn) => self.wait_delivered(io),
            // A write that is still under way now waits for a peer that does not
            // read. It is ended by closing, and what is queued has no way out.
            None => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// Breaks the connection off: RST for TCP. What the peer has not received yet is lost.
    /// Calls of other threads end with [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ErrorKind, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # let accepted = server.accept()?;
    /// client.abort();
    /// assert_eq!(accepted.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::Reset);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn abort(&self) {
        let Some(io) = self.descriptor.enter() else {
            return;
        };
        self.flags.fetch_or(CLOSING, Ordering::AcqRel);
        // socket(7): a linger time of zero makes close(2) send RST. Failing, it
        // is a close all the same.
        let _ = SockRef::from(&io.socket()).set_linger(Some(Duration::ZERO));
        self.ask_local(Some(&io));
        if self.descriptor.close(&io) && self.descriptor.is_shared(&io) {
            self.end_calls_by_reset(&io);
        }
    }

    /// Ends the calls of other threads without FIN: the peer might take what it has
    /// for all there is before the RST comes.
    fn end_calls_by_reset(&self, io: &InUse<'_>) {
        if !sys::BLOCKING_CALLS || sys::disconnect(io.socket()) {
            return;
        }
        // Readers wake without a FIN; for a writer that waits there is no other way.
        let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        if self.writing.try_take().is_none() {
            sys::wake(io.socket());
        }
    }

    fn close_now(&self, io: &InUse<'_>) {
        // The five-tuple stays readable.
        self.ask_local(Some(io));
        if self.descriptor.close(io) && self.descriptor.is_shared(io) {
            sys::wake(io.socket());
        }
    }

    fn drain_input(&self, io: &InUse<'_>) -> std::result::Result<(), Cause> {
        let nothing_to_lose = !self.has(WROTE) || self.has(SAW_END);
        if nothing_to_lose || self.ended.load(Ordering::Acquire) != 0 {
            return Ok(());
        }
        if self.has(DRAINING) {
            return self.wait_delivered(io);
        }
        if !self.has(HALF_CLOSED) {
            SockRef::from(&io.socket()).shutdown(Shutdown::Write).map_err(Cause::Ended)?;
        }
        let patient = !self.has(NONBLOCKING) && !self.close_time().is_zero();
        let deadline = Deadline::after(patient.then(|| self.close_time()));
        let cancel = self.cancel_token();
        let mut thrown_away = [0; 4096];
        let mut pieces = 0;
        loop {
            match sys::recv(io.socket(), &mut thrown_away, Wait::No) {
                Ok(0) => return Ok(()),
                // Without time, what is there already is all that is thrown away.
                Ok(_) if !patient && pieces == IMPATIENT_PIECES => return Ok(()),
                Ok(_) if patient && deadline.has_passed() => return Err(ErrorKind::TimedOut.into()),
                Ok(_) if io.is_closed() => return Err(ErrorKind::Closed.into()),
                Ok(_) if cancel.as_ref().is_some_and(CancelToken::is_fired) => {
                    return Err(ErrorKind::Cancelled.into());
                }
                Ok(_) => pieces = pieces.saturating_add(1),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !patient {
                        return Ok(());
                    }
                    let socket = Some((io.socket(), Interest::Read));
                    wait(socket, deadline, cancel.as_ref(), || io.is_closed())?;
                }
                Err(e) => return Err(Cause::Ended(e)),
            }
        }
    }

    /// Once reading was shut down there is no input to drain, and a FIN might be
    /// followed by RST as soon as the peer sends more. Before that everything has
    /// to be in the peer's kernel.
    fn wait_delivered(&self, io: &InUse<'_>) -> std::result::Result<(), Cause> {
        let deadline = Deadline::after(Some(self.close_time()));
        let cancel = self.cancel_token();
        let mut pause = Duration::from_millis(1);
        // A Unix socket's bytes are in the peer's kernel once they are written.
        let delivered = !matches!(self.remote, Address::Inet(_));
        let patient = !self.has(NONBLOCKING) && !self.close_time().is_zero() && !delivered;
        while patient && sys::unacknowledged(io.socket()) > 0 {
            if deadline.has_passed() {
                return Err(ErrorKind::TimedOut.into());
            }
            let step = deadline.earlier(Deadline::after(Some(pause)));
            wait(None, step, cancel.as_ref(), || io.is_closed())?;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Tells whoever reads that the server drains: reads end, writes go on.
    pub(crate) fn set_draining(&self) {
        let before = self.flags.fetch_or(DRAINING, Ordering::AcqRel);
        if before & CLOSING != 0 {
            return; // nobody reads any more, but closing throws input away
        }
        if let Some(io) = self.descriptor.enter() {
            // Wakes a blocked recv and a poll; fails only if there is no connection.
            let _ = SockRef::from(&io.socket()).shutdown(Shutdown::Read);
        }
    }

    // ---- what it is, and how it is set -------------------------------------------------

    /// Protocol, local and remote address; also after an error and after close.
    pub fn five_tuple(&self) -> FiveTuple {
        let io = self.descriptor.enter();
        // Closed sockets know it since close; the rest is for a failing getsockname(2).
        let local = self.ask_local(io.as_ref()).cloned().unwrap_or(Address::UnixUnnamed);
        FiveTuple { protocol: self.remote.protocol(), local, remote: self.remote.clone() }
    }

    fn ask_local(&self, io: Option<&InUse<'_>>) -> Option<&Address> {
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
    /// [`Unsupported`](ErrorKind::Unsupported) for a Unix socket,
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
        let before = sys::keepalive(io.socket()).map_err(|e| self.os_failed("keepalive", e))?;
        sys::set_keepalive(io.socket(), keepalive.into()).map_err(|e| {
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
    pub fn keepalive(&self) -> Result<Option<Keepalive>> {
        let io = self.enter("keepalive")?;
        self.keepalive_applies()?;
        sys::keepalive(io.socket()).map_err(|e| self.os_failed("keepalive", e))
    }

    fn keepalive_applies(&self) -> Result<()> {
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
    pub fn set_read_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into();
        self.set_timeout(timeout, &self.read_timeout, READ_TIMEOUT, |s, t| s.set_read_timeout(t))
    }

    /// Sets the time for each writing call as a whole; `None`: no limit. Calls
    /// under way keep theirs.
    ///
    /// # Errors
    /// Those of [`set_read_timeout`](ClientSocket::set_read_timeout).
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

    fn close_time(&self) -> Duration {
        Duration::from_millis(self.close_timeout.load(Ordering::Relaxed))
    }

    fn set_timeout(
        &self,
        timeout: Option<Duration>,
        cached: &AtomicU64,
        flag: u32,
        set: impl FnOnce(&socket2::Socket, Option<Duration>) -> io::Result<()>,
    ) -> Result<()> {
        let io = self.enter("timeout")?;
        if timeout.is_some_and(|t| t.is_zero()) {
            let zero = self.failed("timeout", ErrorKind::InvalidArgument.into(), 0);
            return Err(zero.detail("zero"));
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
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        let io = self.enter("non-blocking mode")?;
        if on {
            self.flags.fetch_or(NONBLOCKING, Ordering::AcqRel);
        }
        sys::set_nonblocking(io.socket(), on || !sys::BLOCKING_CALLS)
            .map_err(|e| self.os_failed("non-blocking mode", e))?;
        if !on {
            self.flags.fetch_and(!NONBLOCKING, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Gives the socket a token that ends its calls, or takes it off. Calls under
    /// way are not affected.
    pub fn set_cancel(&self, token: Option<&CancelToken>) {
        let mut cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        *cancel = token.cloned();
        if cancel.is_some() {
            self.flags.fetch_or(POLLED, Ordering::AcqRel);
        } else if sys::BLOCKING_CALLS {
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
        self.enter("borrow").map(BorrowedSocket)
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
        self.ask_local(Some(&io));
        self.descriptor.release(io).ok_or_else(|| wrong("another thread is using it"))
    }

    // ---- helpers -----------------------------------------------------------------------

    #[inline]
    fn has(&self, flags: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & flags != 0
    }

    fn is_over(&self, io: &InUse<'_>) -> bool {
        io.is_closed() || self.has(CLOSING)
    }

    #[inline]
    fn enter(&self, operation: &'static str) -> Result<InUse<'_>> {
        match self.descriptor.enter() {
            Some(io) => Ok(io),
            None => Err(self.is_closed(operation)),
        }
    }

    #[cold]
    fn is_closed(&self, operation: &'static str) -> Error {
        self.failed(operation, ErrorKind::Closed.into(), 0)
    }

    fn cancel_token(&self) -> Option<CancelToken> {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the socket is ready; in non-blocking mode the call that
    /// follows tells whether it is.
    fn wait_for(
        &self,
        io: &InUse<'_>,
        interest: Interest,
        deadline: Deadline,
    ) -> std::result::Result<(), Cause> {
        if self.has(NONBLOCKING) {
            return Ok(());
        }
        let cancel = self.cancel_token();
        let drains = interest == Interest::Read;
        let ended = || self.is_over(io) || (drains && self.has(DRAINING));
        match wait(Some((io.socket(), interest)), deadline, cancel.as_ref(), ended) {
            Err(Cause::Kind(ErrorKind::Closed)) if !self.is_over(io) => {
                Err(ErrorKind::Draining.into())
            }
            other => other.map(|_| ()),
        }
    }

    #[cold]
    fn failed(&self, operation: &'static str, cause: Cause, transferred: usize) -> Error {
        cause.into_error(operation).at(self.five_tuple()).after_bytes(transferred)
    }

    fn os_failed(&self, operation: &'static str, err: io::Error) -> Error {
        self.failed(operation, err.into(), 0)
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls close.
        let _ = self.close();
    }
}

/// A borrowed descriptor, from [`ClientSocket::borrow`] or
/// [`ServerSocket::borrow`](crate::ServerSocket::borrow). It stays open while this lives.
pub struct BorrowedSocket<'a>(pub(crate) InUse<'a>);

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

impl io::Read for &ClientSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(ClientSocket::read(self, buf)?)
    }
}

impl io::Write for &ClientSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(ClientSocket::write(self, buf)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ServerSocket;

    /// I1: a time below a microsecond, the kernel's unit, is short and not endless.
    #[test]
    fn a_time_below_the_kernels_unit() {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let client = ClientSocket::connect(server.endpoint()).unwrap();
        client.set_read_timeout(Duration::from_nanos(500)).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    /// S1: connecting to the wildcard address is connecting to this machine, and the
    /// five-tuple says so.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_wildcard_is_this_machine() {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let client = ClientSocket::connect(format!("0.0.0.0:{}", server.port())).unwrap();
        assert_eq!(client.five_tuple().remote.host(), "127.0.0.1");
    }
}
