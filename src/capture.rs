//! Capture: the packets of a port, and the handshakes among them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::handshake::{Handshake, Matcher, Segment};
use crate::info::{Address, FiveTuple};
use crate::sys::{self, Interest, Owned};
use crate::wait::{Cause, Deadline, wait, wait_on};

/// Watches the TCP handshakes of one port, whoever makes them: a program that connects to a
/// server here or elsewhere, a server that accepts. What passes the interfaces of
/// this process's network namespace is seen from [`on_port`](Capture::on_port) on, so begin
/// before the connection does.
///
/// Linux only: a packet socket (packet(7)), which needs CAP_NET_RAW. Root has that; so has a
/// program that it was given to (`setcap cap_net_raw+ep PROGRAM`), and whatever runs
/// inside `unshare -Urn`, which any user may start and where only a loopback interface is.
///
/// All packets of the port are queued until [`handshake`](Capture::handshake) reads them, and
/// what no longer fits is lost: a capture is for having a look, not for keeping by a
/// busy port. Any number of threads may look for handshakes at once.
///
/// ```
/// use keepsock::{Capture, ClientSocket, ErrorKind, ServerSocket};
/// use std::time::Duration;
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// match Capture::on_port(server.port()) {
///     Ok(capture) => {
///         let client = ClientSocket::connect(server.endpoint())?;
///         let handshake = capture.handshake(&client.five_tuple(), Duration::from_secs(5))?;
///         handshake.lines().iter().for_each(|line| println!("{line}"));
///     }
///     // capture port 40123: permission denied: that needs CAP_NET_RAW: …
///     Err(e) => println!("{e}"),
/// }
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct Capture {
    socket: Owned,
    port: u16,
    state: Mutex<State>,
    /// Tells the threads that wait that `state` is another.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    matcher: Matcher,
    /// One thread waits for packets; the others wait for it.
    watched: bool,
    /// Packets that were lost because the queue was full.
    drops: u32,
}

const OPERATION: &str = "handshake";

impl Capture {
    /// Begins to watch a port, be it the one of a server or the one that a client was given.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) without CAP_NET_RAW;
    /// [`Unsupported`](ErrorKind::Unsupported) where there are no packet sockets: anywhere
    /// but on Linux, and on a Linux without CONFIG_PACKET;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for port 0;
    /// [`NoDescriptors`](ErrorKind::NoDescriptors), [`NoMemory`](ErrorKind::NoMemory).
    ///
    /// ```
    /// use keepsock::{Capture, ErrorKind};
    /// match Capture::on_port(443) {
    ///     Ok(capture) => println!("watching port {}", capture.port()),
    ///     Err(e) => println!("{e}"),
    /// }
    /// # assert_eq!(Capture::on_port(0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    /// ```
    pub fn on_port(port: u16) -> Result<Capture> {
        const OPERATION: &str = "capture";
        if port == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION).detail("port is 0"));
        }
        let socket = sys::capture(port).map_err(|e| {
            let error = Error::os(OPERATION, &e).at(format_args!("port {port}"));
            match error.kind() {
                ErrorKind::PermissionDenied => error.detail(
                    "that needs CAP_NET_RAW: run it as root, give the program the capability \
                     (setcap cap_net_raw+ep PROGRAM), or run it inside `unshare -Urn`",
                ),
                ErrorKind::Unsupported => error.detail("there are no packet sockets"),
                _ => error,
            }
        })?;
        Ok(Capture { socket, port, state: Mutex::default(), changed: Condvar::new() })
    }

    /// The port that is watched.
    ///
    /// ```
    /// # fn show(capture: &keepsock::Capture) {
    /// println!("watching port {}", capture.port());
    /// # }
    /// ```
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The handshake of a connection, waiting until it is complete; `None`: for as long as that
    /// takes. Either side's five-tuple will do, so it may be another program's connection:
    /// [`FiveTuple::tcp`] makes one of two addresses. If the addresses were used
    /// several times, it is the latest handshake. Zero only looks at what was seen so far.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): not all of its packets were seen; the error
    /// tells which were, and whether packets were lost because the queue was full.
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): neither side has this port, or they
    /// are of different families.
    /// [`Unsupported`](ErrorKind::Unsupported): a Unix socket has no handshake.
    ///
    /// ```
    /// # use keepsock::{Capture, ClientSocket, ServerSocket};
    /// # use std::time::Duration;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let Ok(capture) = Capture::on_port(server.port()) else { return Ok(()) };
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// let one = capture.handshake(&client.five_tuple(), Duration::from_secs(5))?;
    /// let other = capture.handshake(&accepted.five_tuple(), Duration::from_secs(5))?;
    /// assert_eq!(one, other);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn handshake(
        &self,
        of: &FiveTuple,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Handshake> {
        let deadline = Deadline::after(timeout.into());
        let failed = |kind| Error::new(kind, OPERATION).at(of);
        let (Address::Inet(local), Address::Inet(remote)) = (&of.local, &of.remote) else {
            return Err(failed(ErrorKind::Unsupported).detail("a Unix socket has none"));
        };
        if self.port != local.port() && self.port != remote.port() {
            let detail = format!("neither side has port {}, which is watched", self.port);
            return Err(failed(ErrorKind::InvalidArgument).detail(detail));
        }
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(
                failed(ErrorKind::InvalidArgument).detail("the two are of different families")
            );
        }
        match self.wait_for(*local, *remote, deadline) {
            Ok(Ok(handshake)) => Ok(handshake),
            Ok(Err(detail)) => Err(failed(ErrorKind::TimedOut).detail(detail)),
            Err(cause) => Err(cause.into_error(OPERATION).at(of)),
        }
    }

    /// One thread waits for packets and reads them for all; when it has what it wants, or no
    /// more time, it leaves that to another. The outer result is for what the system refuses.
    fn wait_for(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        deadline: Deadline,
    ) -> std::result::Result<std::result::Result<Handshake, String>, Cause> {
        // At first all that the queue may hold, so that no time at all is enough for what was
        // there; then so little at once that the time is looked at often.
        let mut at_once = 10_000;
        let mut state = self.lock();
        loop {
            if !state.watched {
                self.read(&mut state, at_once)?;
                at_once = 500;
            }
            let found = state.matcher.find(local, remote);
            match found.complete {
                Some(handshake) if !found.more_to_come || deadline.has_passed() => {
                    return Ok(Ok(handshake));
                }
                None if deadline.has_passed() => {
                    let drops = sys::capture_drops(sys::borrow(&self.socket));
                    state.drops = state.drops.saturating_add(drops);
                    let mut detail = found.partial.to_string();
                    if state.drops > 0 {
                        detail += &format!(
                            "; {} packets of port {} were lost, for the queue was full",
                            state.drops, self.port
                        );
                    }
                    return Ok(Err(detail));
                }
                _ => {}
            }
            if state.watched {
                state = wait_on(&self.changed, state, deadline);
                continue;
            }
            state.watched = true;
            drop(state);
            let socket = Some((sys::borrow(&self.socket), Interest::Read));
            let waited = wait(socket, deadline, None, || false);
            state = self.lock();
            state.watched = false;
            self.changed.notify_all();
            match waited {
                // What came, or that nothing did, is looked at above.
                Ok(_) | Err(Cause::Kind(ErrorKind::TimedOut)) => {}
                Err(cause) => return Err(cause),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes packets off the queue: all, or so many.
    fn read(&self, state: &mut State, at_most: u32) -> io::Result<()> {
        let mut buf = [0; sys::PACKET_MAX];
        for _ in 0..at_most {
            let packet = match sys::capture_next(sys::borrow(&self.socket), &mut buf) {
                Ok(packet) => packet,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let bytes = buf.get(..packet.len).unwrap_or(&buf);
            if let Some(mut segment) = Segment::parse(bytes) {
                segment.captured = packet.time;
                state.matcher.put(segment, (packet.interface, packet.outgoing));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("port", &self.port).finish_non_exhaustive()
    }
}
