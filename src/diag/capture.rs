//! `Capture`: captures the packets of a port and finds the handshakes among them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Duration;

use crate::diag::handshake::{Handshake, Matcher, Segment};
use crate::io::condition::wait_on;
use crate::io::deadline::Deadline;
use crate::io::wait::{Cause, wait};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::{self, Interest, Owned};
use crate::types::address::{Address, FiveTuple};
use crate::types::error::{Error, ErrorKind, Result};

/// Captures the TCP handshakes of one port, of clients and servers of any process. It captures the
/// packets that pass the interfaces of this process's network namespace after
/// [`on_port`](Capture::on_port). So start the capture before the connection.
///
/// A capture works on Linux only. It is a packet socket (packet(7)) and needs CAP_NET_RAW. These
/// programs have the capability:
///
/// - programs that run as root,
/// - a program with the file capability (`setcap cap_net_raw+ep PROGRAM`),
/// - programs in `unshare -Urn`, which any user may start. It has a loopback interface only.
///
/// The kernel queues all packets of the port until [`handshake`](Capture::handshake) reads them.
/// Packets are lost if the queue is full. So use a capture for a diagnosis, and do not keep it open
/// on a busy port. Any number of threads may call `handshake` at the same time.
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
///     // capture port 40123: permission denied: a capture needs CAP_NET_RAW: …
///     Err(e) => println!("{e}"),
/// }
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct Capture {
    socket: Owned,
    port: u16,
    state: Mutex<State>,
    /// Notified when `state` has changed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    matcher: Matcher,
    /// A thread waits for packets. The other threads wait for that thread.
    has_reader: bool,
    /// The number of packets lost because the queue was full.
    drops: u32,
}

const OPERATION: &str = "handshake";

impl Capture {
    /// Starts to capture the packets of a port: the port of a server, or the local port of a
    /// client.
    ///
    /// # Errors
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process does not have CAP_NET_RAW.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform is not Linux, or the kernel was
    ///   built without CONFIG_PACKET.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the port is 0.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system.
    ///
    /// ```
    /// use keepsock::{Capture, ErrorKind};
    /// match Capture::on_port(443) {
    ///     Ok(capture) => println!("capturing port {}", capture.port()),
    ///     Err(e) => println!("{e}"),
    /// }
    /// # assert_eq!(Capture::on_port(0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    /// ```
    pub fn on_port(port: u16) -> Result<Capture> {
        const OPERATION: &str = "capture";
        if port == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .detail("port must be greater than zero"));
        }
        let socket = sys::capture(port).map_err(|e| {
            let error = Error::os(OPERATION, &e).at(format_args!("port {port}"));
            match error.kind() {
                ErrorKind::PermissionDenied => error.detail(
                    "a capture needs CAP_NET_RAW: run the program as root, set its file capability \
                     (setcap cap_net_raw+ep PROGRAM), or run it in `unshare -Urn`",
                ),
                ErrorKind::Unsupported => {
                    error.detail("this system has no packet sockets (packet(7))")
                }
                _ => error,
            }
        })?;
        Ok(Capture { socket, port, state: Mutex::default(), changed: Condvar::new() })
    }

    /// The port whose packets are captured.
    ///
    /// ```
    /// # fn show(capture: &keepsock::Capture) {
    /// println!("capturing port {}", capture.port());
    /// # }
    /// ```
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the handshake of a connection, and waits until it is complete or the timeout
    /// expires. `None`: without limit. With a timeout of zero, only packets that were captured
    /// already are read.
    ///
    /// `of` is the five-tuple of either side. [`FiveTuple::tcp`] makes a five-tuple of two
    /// addresses, for a connection of another program. If the addresses were used several times,
    /// the call returns the latest handshake.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): not all packets of the handshake were captured. The
    ///   error lists the packets that were, and the number of packets that were lost because the
    ///   queue was full.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): neither side has the captured port, or
    ///   the two addresses have different families.
    /// - [`Unsupported`](ErrorKind::Unsupported): the five-tuple is that of a Unix socket, which
    ///   has no handshake.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system, for example because the
    ///   interface went down.
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
            return Err(failed(ErrorKind::Unsupported).detail("a Unix socket has no handshake"));
        };
        if self.port != local.port() && self.port != remote.port() {
            let detail = format!("neither side has the captured port {}", self.port);
            return Err(failed(ErrorKind::InvalidArgument).detail(detail));
        }
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(failed(ErrorKind::InvalidArgument)
                .detail("the two addresses have different families"));
        }
        match self.wait_for(*local, *remote, deadline) {
            Ok(Ok(handshake)) => Ok(handshake),
            Ok(Err(detail)) => Err(failed(ErrorKind::TimedOut).detail(detail)),
            Err(cause) => Err(cause.into_error(OPERATION).at(of)),
        }
    }

    /// Waits for a handshake. One thread waits for packets and reads them for all threads. When it
    /// returns, another thread continues. The outer result has the errors of the operating system.
    fn wait_for(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        deadline: Deadline,
    ) -> std::result::Result<std::result::Result<Handshake, String>, Cause> {
        // The first read takes all packets that the queue can hold, so that a timeout of zero
        // finds them. Later reads are short, so that the deadline is checked often.
        let mut max_packets = 10_000;
        let mut state = self.lock();
        loop {
            if !state.has_reader {
                self.read(&mut state, max_packets)?;
                max_packets = 500;
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
                            "; {} packets of port {} were lost because the queue was full",
                            state.drops, self.port
                        );
                    }
                    return Ok(Err(detail));
                }
                _ => {}
            }
            if state.has_reader {
                state = wait_on(&self.changed, state, deadline);
                continue;
            }
            state.has_reader = true;
            drop(state);
            let socket = Some((sys::borrow(&self.socket), Interest::Read));
            let waited = wait(socket, deadline, None, || false);
            state = self.lock();
            state.has_reader = false;
            self.changed.notify_all();
            match waited {
                // The loop reads the packets and checks the deadline.
                Ok(_) | Err(Cause::Kind(ErrorKind::TimedOut)) => {}
                Err(cause) => return Err(cause),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads up to `max_packets` packets from the queue.
    fn read(&self, state: &mut State, max_packets: u32) -> io::Result<()> {
        let mut buf = [0; sys::PACKET_MAX];
        for _ in 0..max_packets {
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
