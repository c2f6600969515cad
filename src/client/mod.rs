//! ClientSocket: one connection, made by connect or by accept.
//!
//! Here is what it consists of and how it is made; [`read`], [`write`], [`rights`], [`file`],
//! [`alive`], [`end`], [`settings`] and [`syn`] have what it does.

mod alive;
mod end;
mod file;
mod read;
mod rights;
mod settings;
mod syn;
mod write;

pub(crate) use alive::end_by_error;
pub use rights::{Credentials, Received};

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::buffer::ReadBuffer;
use crate::cancel::CancelToken;
use crate::connect::{self, Connected};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::info::Address;
use crate::liveness::Liveness;
use crate::options::SocketOptions;
use crate::sys::{self, Descriptor, InUse, Interest, Owned, TcpInfo, Tick};
use crate::turn::Turn;
use crate::wait::{Cause, Deadline, NO_TIMEOUT, millis};

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
/// A last copy of what the kernel knows is kept when the socket is closed.
const LAST_SNAPSHOT: u32 = 1 << 10;
/// The kernel took a part of a heartbeat; the rest comes before the next write.
const HEARTBEAT_CUT: u32 = 1 << 11;
/// Something was written after the peer's FIN had been read: the peer may reject it.
const WROTE_LATE: u32 = 1 << 14;
/// The last write call took a part of what it was given: its caller has the rest.
const WROTE_PART: u32 = 1 << 15;
/// That the connection broke off was told.
const TOLD: u32 = 1 << 12;
/// This side has sent the SYN: the socket was made by connect.
const CONNECTED: u32 = 1 << 31;
/// The descriptor still has O_NONBLOCK from connecting. It is taken off before the first
/// call that waits in the kernel, and before anybody else gets the descriptor.
const UNSWITCHED: u32 = 1 << 13;
/// A Unix socket for packets.
const PACKETS: u32 = 1 << 16;
/// A call is under way for which the descriptor has to stay non-blocking.
const HELD: u32 = 1 << 17;
/// A read or write is not just the one system call.
const NOT_PLAIN: u32 = POLLED | NONBLOCKING | BUFFERED | DRAINING | CLOSING | UNSWITCHED | PACKETS;

/// How many pieces of 4 KiB a close that has no time throws away.
const IMPATIENT_PIECES: u32 = 64;

/// One confirmed connection, made by [`connect`](ClientSocket::connect) or by
/// [`ServerSocket::accept`](crate::ServerSocket::accept).
///
/// All methods take `&self`: any number of threads may use one socket at once,
/// and one that reads while another writes is the normal case. What one call
/// writes is not cut by another's bytes. Two threads that read share the bytes
/// between them; but one that waits does not see what another thread's `read_line` has
/// left over until more bytes come. So let one thread read what comes in lines or messages.
/// [`close`](ClientSocket::close) may come from any thread at any time.
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
    /// Locked while the descriptor's mode is changed, too, so that it agrees with the flags.
    cancel: Mutex<Option<CancelToken>>,
    writing: Turn,
    /// The error that ended the connection. The kernel tells it once, and then
    /// reads look as if the peer had closed.
    ended: AtomicI32,
    /// Why the connection ended, the number of an [`End`](crate::End); 0 while it lives.
    end: AtomicI32,
    liveness: Option<Box<Liveness>>,
    /// Made when it is needed: what is moved for each connection is small.
    rare: OnceLock<Box<Rare>>,
}

/// What most connections never need.
#[derive(Debug, Default)]
struct Rare {
    /// What was read beyond what a caller asked for.
    buffer: Mutex<ReadBuffer>,
    /// What the kernel knew last, if it was to be kept.
    last: OnceLock<TcpInfo>,
    /// What `syn` found when it was asked first, for the kernel tells it once.
    syn: OnceLock<syn::Saved>,
}

/// This side's address.
#[derive(Debug)]
enum Local {
    Known(Address),
    /// Asked of the kernel when somebody wants to know, and at close at the latest.
    Asked(OnceLock<Address>),
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
    /// The call began with a limit, though it may have been lifted meanwhile.
    limited: bool,
}

impl Patience {
    /// How much sooner than its time a kernel's timer may seem to end, the coarse
    /// clock's lag included.
    const SLACK: Duration = Duration::from_millis(20);

    fn new(timeout: &AtomicU64, start: Option<Tick>) -> Patience {
        let since = match timeout.load(Ordering::Relaxed) {
            NO_TIMEOUT => None,
            ms => Some((start.unwrap_or_else(Tick::now), Duration::from_millis(ms))),
        };
        Patience { since, begun: false, limited: start.is_some() }
    }

    /// Whether EAGAIN from a call that could wait means that its time is over.
    fn kernel_timer_is_over(&self) -> bool {
        match self.since {
            None => self.limited,
            Some((start, timeout)) => {
                timeout > Patience::SLACK && start.elapsed() + Patience::SLACK >= timeout
            }
        }
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
        let since = Instant::now();
        ClientSocket::connected(connect::connect(&endpoint, options, since)?, options)
            .inspect(|made| events::connected(made, &endpoint, since))
    }

    #[inline(always)]
    pub(crate) fn connected(connected: Connected, options: &SocketOptions) -> Result<ClientSocket> {
        let Connected { socket, local, remote } = connected;
        let mut made = ClientSocket::without_timeouts(socket, remote, local, options);
        let mode = if sys::BLOCKING_CALLS { UNSWITCHED } else { 0 };
        *made.flags.get_mut() |= CONNECTED | mode;
        if options.cancel.is_some() {
            made.set_cancel(options.cancel.as_ref());
        }
        made.apply_timeouts(options)?;
        Ok(made)
    }

    /// Takes over a connected stream socket, or a Unix socket for
    /// [packets](SocketOptions::sequenced), and sets it to the options (not to
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
        let look = || -> Result<(Address, bool)> {
            options.validate(OPERATION)?;
            options.refuse_datagram_only(OPERATION)?;
            options.refuse_listener_only(OPERATION)?;
            let fd = sys::borrow(&socket);
            let packets = match sys::connection_kind(fd).map_err(|e| Error::os(OPERATION, &e))? {
                Some(kind) if !kind.listens => kind.packets,
                Some(_) => return Err(wrong("a listening socket")),
                None => return Err(wrong("not a stream socket")),
            };
            if options.sequenced && !packets {
                return Err(wrong("not a socket for packets"));
            }
            let peer = SockRef::from(&fd).peer_addr().map_err(|_| wrong("not connected"))?;
            let inet = peer.as_socket();
            if let Some(peer) = inet {
                let applied = options.adopt_tcp(fd, peer.is_ipv6());
                applied.map_err(|cause| cause.into_error(OPERATION))?;
            }
            options.adopt(fd, !sys::BLOCKING_CALLS).map_err(|cause| cause.into_error(OPERATION))?;
            Ok((sys::to_address(&peer), packets))
        };
        match look() {
            Ok((remote, packets)) => {
                let made = ClientSocket::without_timeouts(socket, remote, None, options);
                if packets {
                    made.flags.fetch_or(PACKETS, Ordering::Relaxed);
                }
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

    #[inline(always)]
    fn without_timeouts(
        socket: Owned,
        remote: Address,
        local: Option<Address>,
        options: &SocketOptions,
    ) -> ClientSocket {
        let plain = options.liveness.is_plain() && !options.last_snapshot && !options.sequenced;
        let (flags, liveness) =
            if plain { (0, None) } else { ClientSocket::tended(options, &remote) };
        let flags = if sys::BLOCKING_CALLS { flags } else { flags | POLLED };
        ClientSocket {
            descriptor: Descriptor::new(socket),
            remote,
            local: local.map_or_else(|| Local::Asked(OnceLock::new()), Local::Known),
            flags: AtomicU32::new(flags),
            read_timeout: AtomicU64::new(NO_TIMEOUT),
            write_timeout: AtomicU64::new(NO_TIMEOUT),
            close_timeout: AtomicU64::new(millis(options.close_timeout)),
            cancel: Mutex::new(None),
            writing: Turn::default(),
            ended: AtomicI32::new(0),
            end: AtomicI32::new(0),
            liveness,
            rare: OnceLock::new(),
        }
    }

    /// The flags and the liveness of a socket that has something to be done for it.
    #[cold]
    fn tended(options: &SocketOptions, remote: &Address) -> (u32, Option<Box<Liveness>>) {
        let mut asked = options.liveness.clone();
        if !matches!(remote, Address::Inet(_)) {
            // The peer of a Unix socket cannot vanish, and no kernel tells of its silence.
            (asked.dead_after, asked.survive_idle) = (None, None);
        }
        let liveness = (!asked.is_plain()).then(|| Box::new(Liveness::new(asked, Instant::now())));
        let mut flags = 0;
        if liveness.as_ref().is_some_and(|live| live.asked().has_dues()) {
            flags |= POLLED;
        }
        if options.last_snapshot {
            flags |= LAST_SNAPSHOT;
        }
        if options.sequenced {
            flags |= PACKETS;
        }
        (flags, liveness)
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
        if options.read_timeout.is_none() && options.write_timeout.is_none() {
            // By itself, so that it is made where it is to be and not copied there.
            return Ok(ClientSocket::without_timeouts(socket, remote, local, options));
        }
        let made = ClientSocket::without_timeouts(socket, remote, local, options);
        made.apply_timeouts(options)?;
        Ok(made)
    }

    pub(crate) fn peer(&self) -> &Address {
        &self.remote
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

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
        let cancel = self.cancel_token();
        if self.has(NONBLOCKING) {
            let fired = cancel.is_some_and(|token| token.is_fired());
            return if fired { Err(ErrorKind::Cancelled.into()) } else { Ok(()) };
        }
        let drains = interest == Interest::Read;
        let ended = || self.is_over(io) || (drains && self.has(DRAINING));
        match self.wait_alive(io, interest, deadline, cancel.as_ref(), ended) {
            Err(Cause::Kind(ErrorKind::Closed)) if !self.is_over(io) => {
                Err(ErrorKind::Draining.into())
            }
            other => other.map(|_| ()),
        }
    }

    /// The error of a call. The caller holds neither the buffer nor the turn, for a
    /// logger may want them.
    #[cold]
    fn failed(&self, operation: &'static str, cause: Cause, transferred: usize) -> Error {
        self.tell_end(&cause);
        cause.into_error(operation).at(self.five_tuple()).after_bytes(transferred)
    }

    /// Tells once that the connection is over though neither side closed it.
    #[cold]
    fn tell_end(&self, cause: &Cause) {
        use ErrorKind::{Dead, HeartbeatMissed, IdleLimit, Reset, Stalled, Unreachable};
        let Cause::Over(kind, _) = *cause else {
            return;
        };
        if matches!(kind, Reset | Dead | Unreachable | Stalled | IdleLimit | HeartbeatMissed)
            && self.flags.fetch_or(TOLD, Ordering::Relaxed) & TOLD == 0
        {
            events::broke_off(self, kind);
        }
    }

    fn os_failed(&self, operation: &'static str, err: io::Error) -> Error {
        self.failed(operation, err.into(), 0)
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls close.
        let _ = self.close_and(false);
    }
}

/// A borrowed descriptor, from [`ClientSocket::borrow`] or
/// [`ServerSocket::borrow`](crate::ServerSocket::borrow). It stays open while this lives.
///
/// ```
/// # use keepsock::{ClientSocket, ServerSocket};
/// # let server = ServerSocket::listen("127.0.0.1:0")?;
/// # let client = ClientSocket::connect(server.endpoint())?;
/// let borrowed = client.borrow()?;
/// # #[cfg(unix)]
/// let also = std::os::fd::AsFd::as_fd(&borrowed).try_clone_to_owned().is_ok();
/// # Ok::<(), keepsock::Error>(())
/// ```
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

    /// I1: a call keeps the limit that it began with.
    #[test]
    fn a_limit_that_is_lifted_during_a_read() {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let client = ClientSocket::connect(server.endpoint()).unwrap();
        client.set_read_timeout(Duration::from_millis(200)).unwrap();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| client.read(&mut [0; 8]));
            std::thread::sleep(Duration::from_millis(50));
            client.set_read_timeout(None).unwrap();
            assert_eq!(read.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        });
    }

    /// I1, T4: O_NONBLOCK from somebody else's descriptor of the socket does not make
    /// time go faster.
    #[test]
    fn non_blocking_from_outside() {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let client = ClientSocket::connect(server.endpoint()).unwrap();
        client.set_read_timeout(Duration::from_millis(200)).unwrap();
        sys::set_nonblocking(client.descriptor.enter().unwrap().socket(), true).unwrap();
        let start = std::time::Instant::now();
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
    }

    /// I3: a FIN that was followed by RST, for what we wrote after it, is a FIN all
    /// the same, whoever holds the descriptor.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_end_before_a_reset_is_an_end() {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let client = ClientSocket::connect(server.endpoint()).unwrap();
        let peer = server.accept().unwrap();
        peer.write_all(b"reply").unwrap();
        peer.shutdown_write().unwrap();
        peer.set_close_timeout(Duration::ZERO);
        drop(peer);
        let _held = client.borrow().unwrap();
        client.write_all(b"too late").unwrap();
        let mut buf = [0; 8];
        assert_eq!(client.read(&mut buf).unwrap(), 5);
        assert_eq!(client.read(&mut buf).unwrap(), 0);
    }
}
