//! The five-tuple, and the settings that may change on an open connection: keepalive, timeouts,
//! liveness.

use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sys::SockRef;

use super::flags::{
    READ_TIMEOUT, SEQPACKET, SHORT_READ_TIMEOUT, SHORT_WRITE_TIMEOUT, TCP_OPTIONS, WRITE_TIMEOUT,
};
use super::{ClientSocket, LazyAddress, keepalive};
use crate::io::timeout::{CallTimeout, TimeoutCell, millis};
use crate::options::heartbeat;
use crate::stream::liveness::policy::Liveness;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Borrowed, Hold};
use crate::types::address::{Address, FiveTuple, Protocol};
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::keepalive::{Keepalive, NO_KEEPALIVE};
use crate::types::liveness::{HEARTBEAT, LivenessConfig};

impl ClientSocket {
    /// Returns the protocol, the local address and the remote address. They stay available after an
    /// error and after close. Behind a [`trusted_proxy`](crate::SocketOptions::trusted_proxy) they are
    /// those of the client, after the PROXY header was received.
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
        if let Some((source, destination)) = self.proxied() {
            let (local, remote) = (destination.clone(), source.clone());
            return FiveTuple { protocol: remote.protocol(), local, remote };
        }
        // The error of a call has the five-tuple as well, so this must not start a call.
        let held = self.descriptor.hold();
        let socket = held.as_ref().map(Hold::socket);
        // A closed socket has queried its address. The default is for a getsockname(2) that fails.
        let local = self.local_address(socket).cloned().unwrap_or(Address::UnixUnnamed);
        let protocol =
            if self.has(SEQPACKET) { Protocol::UnixPacket } else { self.remote.protocol() };
        FiveTuple { protocol, local, remote: self.remote.clone() }
    }

    /// The local address. The first call queries the kernel.
    pub(super) fn local_address(&self, socket: Option<Borrowed<'_>>) -> Option<&Address> {
        let queried = match &self.local {
            LazyAddress::Known(known) => return Some(known),
            LazyAddress::OnDemand(queried) => queried,
        };
        if queried.get().is_none() {
            if let Some(Ok(name)) = socket.map(|socket| SockRef::from(&socket).local_addr()) {
                return Some(queried.get_or_init(|| sys::to_address(&name)));
            }
        }
        queried.get()
    }

    /// Sets TCP keepalive. `None` turns it off.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is a Unix socket.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): with these values the connection could not
    ///   keep its [`dead_after`](crate::SocketOptions::dead_after) or its
    ///   [`middlebox_timeout`](crate::SocketOptions::middlebox_timeout).
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
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
        self.require_inet("keepalive")?;
        let keepalive = keepalive.into();
        if let Some(live) = self.liveness() {
            let placed = |e: Error| e.during("keepalive").at(self.five_tuple());
            live.permits(keepalive).map_err(placed)?;
        }
        let known = self.keepalive.get();
        let set = match known {
            // No other user of the descriptor can have changed the values.
            Some(old) if !self.has_holders() => sys::change_keepalive(io.socket(), old, keepalive),
            _ => sys::set_keepalive(io.socket(), keepalive),
        };
        set.map_err(|e| {
            // The values need several system calls, and the calls that succeeded are undone.
            if let Some(old) = known {
                let _ = sys::set_keepalive(io.socket(), old);
            }
            self.os_failed("keepalive", e)
        })?;
        self.keepalive.set(keepalive);
        Ok(())
    }

    /// Returns the keepalive values that the kernel uses. `None`: keepalive is off.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is a Unix socket.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
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
        self.require_inet("keepalive")?;
        sys::keepalive(io.socket()).map_err(|e| self.os_failed("keepalive", e))
    }

    /// Returns the keepalive values that the socket has, also while keepalive is off. The kernel
    /// uses them when it is turned on. A socket on which no program has set them has the values of
    /// the system (Linux: `net.ipv4.tcp_keepalive_time` and others).
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is a Unix socket.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let options = SocketOptions::new().keepalive(None);
    /// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// assert_eq!(client.keepalive()?, None);
    /// println!("{}", client.keepalive_values()?);   // idle 7200 s, interval 75 s, count 9
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn keepalive_values(&self) -> Result<Keepalive> {
        let io = self.enter("keepalive")?;
        self.require_inet("keepalive")?;
        sys::keepalive_values(io.socket()).map_err(|e| self.os_failed("keepalive", e))
    }

    /// Fails for a Unix socket.
    pub(super) fn require_inet(&self, operation: &'static str) -> Result<()> {
        if self.is_inet() {
            return Ok(());
        }
        Err(self.failed(operation, ErrorKind::Unsupported.into(), 0).detail(NO_KEEPALIVE))
    }

    /// Sets the read timeout: the time that each reading call may take as a whole. `None`: no
    /// limit. Calls in progress keep the timeout with which they started.
    ///
    /// On Linux the kernel measures the time (SO_RCVTIMEO), and a call may time out up to 5 % late.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the timeout is zero. Use
    ///   [`set_nonblocking`](ClientSocket::set_nonblocking) for calls that do not wait.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
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
        let flags = (READ_TIMEOUT, SHORT_READ_TIMEOUT);
        let set = |s: &SockRef<'_>, t| s.set_read_timeout(t);
        self.set_timeout("read timeout", timeout.into(), &self.read_timeout, flags, set)
    }

    /// Sets the write timeout: the time that each writing call may take as a whole. `None`: no
    /// limit. Calls in progress keep the timeout with which they started.
    ///
    /// On Linux the kernel measures the time (SO_SNDTIMEO), and a call may time out up to 5 % late.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the timeout is zero. Use
    ///   [`set_nonblocking`](ClientSocket::set_nonblocking) for calls that do not wait.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
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
        let flags = (WRITE_TIMEOUT, SHORT_WRITE_TIMEOUT);
        let set = |s: &SockRef<'_>, t| s.set_write_timeout(t);
        self.set_timeout("write timeout", timeout.into(), &self.write_timeout, flags, set)
    }

    fn set_timeout(
        &self,
        operation: &'static str,
        timeout: Option<Duration>,
        cell: &TimeoutCell,
        (flag, short): (u32, u32),
        set: impl FnOnce(&SockRef<'_>, Option<Duration>) -> io::Result<()>,
    ) -> Result<()> {
        let io = self.enter(operation)?;
        if timeout.is_some_and(|t| t.is_zero()) {
            let zero = self.failed(operation, ErrorKind::InvalidArgument.into(), 0);
            return Err(zero.detail("the timeout must be greater than zero"));
        }
        // Rounded up, because the kernel would take zero for no timeout.
        let timeout = timeout.map(|time| Duration::from_millis(millis(time)));
        // The kernel has the value already, unless another user of the descriptor has changed it.
        let is_set = cell.get() == timeout && !self.has_holders();
        if sys::BLOCKING_CALLS && !is_set {
            set(&SockRef::from(&io.socket()), timeout).map_err(|e| self.os_failed(operation, e))?;
        }
        cell.set(timeout);
        let flags = match timeout {
            None => 0,
            Some(time) if time < CallTimeout::SHORT && sys::BLOCKING_CALLS => flag | short,
            Some(_) => flag,
        };
        self.flags.fetch_or(flags, Ordering::AcqRel);
        self.flags.fetch_and(!(flag | short) | flags, Ordering::AcqRel);
        Ok(())
    }

    /// Sets the close timeout: the time that [`close`](ClientSocket::close) may wait for the peer,
    /// and the time within which the library completes the close of a dropped socket. Zero: the
    /// close sends FIN and closes the descriptor immediately. A program with a deadline for all its
    /// work sets the time that is left.
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

    pub(super) fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout.load(Ordering::Relaxed))
    }

    /// Sets [`dead_after`](crate::SocketOptions::dead_after) of the open connection. `None` turns
    /// the detection of a dead peer off. A call that is waiting keeps the value with which it
    /// started.
    ///
    /// The library adapts keepalive to the new value, unless the program has set keepalive itself.
    /// On a Unix socket the call has no effect, because the peer cannot vanish.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `time` is not within 2 s to 163,880 s; or
    ///   keepalive is off, or the program has set it to values that detect a dead peer later; or
    ///   `time` is `None` and [`fail_on_stall`](crate::SocketOptions::fail_on_stall) is set; or the
    ///   connection is Multipath TCP.
    /// - [`Unsupported`](ErrorKind::Unsupported): on NetBSD, OpenBSD and illumos.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # use std::time::Duration;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # if cfg!(target_os = "linux") {
    /// client.set_dead_after(Duration::from_secs(10))?;
    /// assert!(client.keepalive()?.unwrap().dead_after() <= Duration::from_secs(10));
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_dead_after(&self, time: impl Into<Option<Duration>>) -> Result<()> {
        const OPERATION: &str = "dead_after";
        let time = time.into();
        let io = self.enter(OPERATION)?;
        let (mut config, _) = self.liveness_and_close_timeout();
        let before = config.dead_after;
        config.dead_after = time;
        config.validate(OPERATION).map_err(|e| e.at(self.five_tuple()))?;
        if !self.is_inet() {
            return Ok(());
        }
        let place = |e: Error| e.during(OPERATION).at(self.five_tuple());
        let known = self.keepalive.get().filter(|_| !self.has_holders());
        if time == before && known.is_some() {
            return Ok(());
        }
        keepalive::refuse_mptcp(io.socket(), time).map_err(place)?;
        let current = match known {
            Some(known) => known,
            None => sys::keepalive(io.socket()).map_err(|e| self.os_failed(OPERATION, e))?,
        };
        config.dead_after = before;
        let new = keepalive::adapted(&config, time, current).map_err(place)?;
        self.flags.fetch_or(TCP_OPTIONS, Ordering::Relaxed);
        keepalive::apply_dead_after(io.socket(), &config, time, (current, new))
            .map_err(|cause| self.failed(OPERATION, cause, 0))?;
        self.keepalive.set(new);
        self.change_liveness(|config| config.dead_after = time);
        Ok(())
    }

    /// Sets the [`idle_timeout`](crate::SocketOptions::idle_timeout) of the open connection. `None`
    /// turns it off. A call that is waiting keeps the value with which it started.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `time` is zero or not above the heartbeat
    ///   interval; or `time` is `None` and
    ///   [`idle_receive_only`](crate::SocketOptions::idle_receive_only) is set.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ErrorKind, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.set_idle_timeout(std::time::Duration::from_millis(20))?;
    /// assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::IdleTimeout);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_idle_timeout(&self, time: impl Into<Option<Duration>>) -> Result<()> {
        let time = time.into();
        self.set_liveness("idle timeout", |config| config.idle_timeout = time)
    }

    /// Sets the [`heartbeat`](crate::SocketOptions::heartbeat) of the open connection. A call that
    /// is waiting keeps the heartbeat with which it started.
    ///
    /// `bytes` are the bytes of each heartbeat, and `interval` is the heartbeat interval. If
    /// `interval` is `None`, the call turns the heartbeat off and ignores `bytes`.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `bytes` is empty; or `interval` is zero or
    ///   not below the idle timeout; or `interval` is `None` and the connection has a heartbeat
    ///   timeout.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.set_heartbeat(b"PING\r\n", std::time::Duration::from_secs(20))?;
    /// client.set_heartbeat(b"", None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_heartbeat(
        &self,
        bytes: impl AsRef<[u8]>,
        interval: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let interval = interval.into();
        let heartbeat = heartbeat(bytes.as_ref(), interval)?;
        self.set_liveness(HEARTBEAT, |config| config.heartbeat.clone_from(&heartbeat))
    }

    /// Sets the [`heartbeat_timeout`](crate::SocketOptions::heartbeat_timeout) of the open
    /// connection. `None` turns it off. A call that is waiting keeps the value with which it
    /// started.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `time` is zero, or the connection has no
    ///   heartbeat.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ErrorKind, ServerSocket};
    /// # use std::time::Duration;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// client.set_heartbeat(b"PING\r\n", Duration::from_millis(10))?;
    /// client.set_heartbeat_timeout(Duration::from_millis(20))?;
    /// assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::HeartbeatTimeout);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_heartbeat_timeout(&self, time: impl Into<Option<Duration>>) -> Result<()> {
        let time = time.into();
        self.set_liveness("heartbeat timeout", |config| config.heartbeat_timeout = time)
    }

    /// Validates and applies a change of the liveness configuration.
    fn set_liveness(
        &self,
        operation: &'static str,
        change: impl Fn(&mut LivenessConfig),
    ) -> Result<()> {
        let _io = self.enter(operation)?;
        let (mut config, _) = self.liveness_and_close_timeout();
        change(&mut config);
        config.validate(operation).map_err(|e| e.at(self.five_tuple()))?;
        self.change_liveness(change);
        Ok(())
    }

    fn change_liveness(&self, change: impl FnOnce(&mut LivenessConfig)) {
        // The lock is held because the mode of calls depends on the configuration.
        let cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let live =
            self.cold().liveness.get_or_init(|| Liveness::new(LivenessConfig::default(), now));
        live.change(change, now);
        self.choose_mode(cancel.as_ref());
    }

    /// The settings with which a service continues a connection that was added to it.
    pub(crate) fn liveness_and_close_timeout(&self) -> (LivenessConfig, Duration) {
        let config =
            self.liveness().map(|live| LivenessConfig::clone(&live.config())).unwrap_or_default();
        (config, self.close_timeout())
    }
}
