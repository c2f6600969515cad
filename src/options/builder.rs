//! The setters of the options.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::SocketOptions;
#[cfg(feature = "capi")]
use super::heartbeat;
use super::kernel::KernelOption;
use crate::io::cancel::CancelToken;
use crate::types::address::Family;
use crate::types::endpoint::Endpoint;
#[cfg(feature = "capi")]
use crate::types::error::Result;
use crate::types::keepalive::{Keepalive, KeepaliveSetting};
use crate::types::liveness::Heartbeat;
use crate::types::proxy::ProxyHeader;
use crate::types::sockopt::Sockopt;

impl SocketOptions {
    /// Creates options with the default values.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new();
    /// ```
    pub fn new() -> SocketOptions {
        SocketOptions::default()
    }

    /// Sets the keepalive values of TCP connections; `None` turns keepalive off. Default:
    /// [`Keepalive::default`], which the library adapts to `dead_after` and `middlebox_timeout`. A
    /// Unix socket has no keepalive: other values are rejected with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), and `None` is accepted.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().keepalive(None);   // off
    /// ```
    #[must_use]
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.keepalive = match keepalive.into() {
            None => KeepaliveSetting::Off,
            Some(values) if values == Keepalive::default() => KeepaliveSetting::Adapted,
            Some(values) => KeepaliveSetting::Own(values),
        };
        self
    }

    /// Detects a vanished peer within `time` and one second, and reports it as
    /// [`Dead`](crate::ErrorKind::Dead): whether the connection is idle, has unacknowledged data,
    /// or is blocked in a write. From 2 s to 45 hours. Default: `None`.
    ///
    /// A living peer that only stopped reading keeps its connection, unless
    /// [`fail_on_stall`](SocketOptions::fail_on_stall) is set. With `None` only keepalive detects a
    /// vanished peer. Keepalive is silent while data is unacknowledged, and the system may then
    /// retransmit for 15 minutes.
    ///
    /// The library adapts the keepalive values to `time`. While data is unacknowledged, waiting
    /// calls check four times within `time` how long nothing was received from the peer (TCP_INFO).
    /// A program that waits in its own event loop calls
    /// [`check_liveness`](crate::ClientSocket::check_liveness). On Linux 6.15 and later the kernel
    /// retransmits, and probes a closed receive window, at least every eighth of `time` or every
    /// second (TCP_RTO_MAX_MS). Earlier kernels increase the interval, so they detect a peer that
    /// vanishes with a closed receive window later.
    ///
    /// On FreeBSD waiting calls check as well. The kernel probes a closed receive window at least
    /// every minute, so a peer that vanishes with a closed window is detected after a minute or
    /// later. The kernel's count of the silence overflows after 71 minutes, so a `time` of more than an
    /// hour acts like an hour there while data is unacknowledged. On macOS (TCP_RXT_CONNDROPTIME) and Windows (TCP_MAXRT) the kernel ends the connection,
    /// in whole seconds. On NetBSD, OpenBSD and illumos connecting and listening fail with
    /// [`Unsupported`](crate::ErrorKind::Unsupported). The option has no effect on Unix sockets,
    /// whose peer cannot vanish.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().dead_after(std::time::Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn dead_after(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.liveness.dead_after = time.into();
        self
    }

    /// Also ends a connection whose peer is alive but takes no data for the time of
    /// [`dead_after`](SocketOptions::dead_after), with the error
    /// [`Stalled`](crate::ErrorKind::Stalled). Default: no.
    ///
    /// The kernel measures the time from the first byte that the peer does not take, whether a call
    /// waits or not (TCP_USER_TIMEOUT of tcp(7), RFC 9293 section 3.8.3; FreeBSD:
    /// TCP_MAXUNACKTIME). On other platforms connecting and listening fail with
    /// [`Unsupported`](crate::ErrorKind::Unsupported). Without `dead_after` the option is rejected
    /// with [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let ten = std::time::Duration::from_secs(10);
    /// let options = SocketOptions::new().dead_after(ten).fail_on_stall(true);
    /// ```
    #[must_use]
    pub fn fail_on_stall(mut self, on: bool) -> Self {
        self.liveness.fail_on_stall = on;
        self
    }

    /// Keeps the connection in the tables of firewalls, NATs and load balancers that discard
    /// connections after `time` without traffic. From 2 s to 45 hours. Default: `None`.
    ///
    /// Keepalive probes are sent at least twice within `time`, so the loss of one probe does no
    /// harm. The default keepalive probes after 45 s, which is early enough for common devices. Use
    /// a [`heartbeat`](SocketOptions::heartbeat) if a proxy on the path does not forward probes. A
    /// Unix socket has no probes: the option is rejected with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().middlebox_timeout(std::time::Duration::from_secs(30));
    /// ```
    #[must_use]
    pub fn middlebox_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.liveness.middlebox_timeout = time.into();
        self
    }

    /// Sends `bytes` when nothing was written for `every`: `"PING\r\n"`, MQTT's `[0xC0, 0]`, or the
    /// heartbeat of another protocol. With `None` for `every` there is no heartbeat, and `bytes` are
    /// ignored. Default: none.
    ///
    /// A heartbeat passes proxies, which terminate TCP and answer keepalive probes themselves. With
    /// [`heartbeat_timeout`](SocketOptions::heartbeat_timeout) it detects a peer whose kernel
    /// answers while its program hangs. A heartbeat is never inserted into a partly written
    /// message.
    ///
    /// Each call that waits on the connection sends heartbeats, as do
    /// [`check_liveness`](crate::ClientSocket::check_liveness) and the event loops of a service.
    /// While the kernel accepts no data, no heartbeat is sent.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options =
    ///     SocketOptions::new().heartbeat(*b"PING\r\n", std::time::Duration::from_secs(20));
    /// ```
    #[must_use]
    pub fn heartbeat(
        mut self,
        bytes: impl AsRef<[u8]>,
        every: impl Into<Option<Duration>>,
    ) -> Self {
        self.liveness.heartbeat = every.into().map(|every| {
            let bytes = Arc::new(bytes.as_ref().to_vec());
            Heartbeat { bytes, every }
        });
        self
    }

    /// As [`heartbeat`](SocketOptions::heartbeat). Fails if the process has no memory for the bytes.
    #[cfg(feature = "capi")]
    pub(crate) fn try_heartbeat(mut self, bytes: &[u8], every: Option<Duration>) -> Result<Self> {
        self.liveness.heartbeat = heartbeat(bytes, every)?;
        Ok(self)
    }

    /// Ends the connection if nothing is received for `time` after a
    /// [`heartbeat`](SocketOptions::heartbeat) was sent. Calls that wait for data then fail with
    /// [`HeartbeatTimeout`](crate::ErrorKind::HeartbeatTimeout). Default: `None`, no limit.
    ///
    /// With this option a heartbeat is also sent when nothing was received for the heartbeat
    /// interval, so a side that writes continuously sends heartbeats as well.
    ///
    /// A connection ends only if the kernel accepted a heartbeat and nothing arrived for `time`
    /// after it. Unread bytes that arrived after the heartbeat count as an answer. After the
    /// process or its event loop was stopped for a quarter of `time` or longer (SIGSTOP, a slow
    /// callback, a program that makes no calls), the library sends another heartbeat and waits the
    /// full time. While nothing is received, that happens once, and again only after a stop of
    /// about twice that length. The timeout does not apply after the peer has closed its side.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// use std::time::Duration;
    /// let options = SocketOptions::new()
    ///     .heartbeat(*b"PING\r\n", Duration::from_secs(20))
    ///     .heartbeat_timeout(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn heartbeat_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.liveness.heartbeat_timeout = time.into();
        self
    }

    /// Ends the connection if it is idle for `time`. Calls that wait for data then fail with
    /// [`IdleTimeout`](crate::ErrorKind::IdleTimeout). The program can still write a last message
    /// and close the connection gracefully. A [`read_timeout`](SocketOptions::read_timeout) limits
    /// one call; this timeout limits the connection. Default: `None`, no limit.
    ///
    /// Traffic in both directions counts: bytes that the program read, and bytes of the program
    /// that the peer's kernel acknowledged. Where the kernel does not report acknowledgments, as
    /// for a Unix socket, bytes that the kernel accepted count. Unread bytes and the heartbeats of
    /// this side do not count; answers to heartbeats do. With
    /// [`idle_receive_only`](SocketOptions::idle_receive_only) only received bytes count.
    ///
    /// After the process or its event loop was stopped for a quarter of `time` or longer (SIGSTOP,
    /// a slow callback, a program that makes no calls), the full time starts again. While the
    /// connection is idle, that happens once, and again only after a stop of about twice that
    /// length.
    ///
    /// The timeout also applies after the peer has closed its side, and then to calls that wait to
    /// write as well. It starts again when the end of the stream is read.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().idle_timeout(std::time::Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn idle_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.liveness.idle_timeout = time.into();
        self
    }

    /// Whether only received bytes restart the [`idle_timeout`](SocketOptions::idle_timeout). Use
    /// it if the peer itself must send something. Default: no.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let minute = std::time::Duration::from_secs(60);
    /// let options = SocketOptions::new().idle_timeout(minute).idle_receive_only(true);
    /// ```
    #[must_use]
    pub fn idle_receive_only(mut self, on: bool) -> Self {
        self.liveness.idle_receive_only = on;
        self
    }

    /// Replaces the [`idle_timeout`](SocketOptions::idle_timeout) until the first byte is received.
    /// It limits clients that connect and send nothing. Default: `None`, the idle timeout applies
    /// from the start.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().first_byte_timeout(std::time::Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn first_byte_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.liveness.first_byte_timeout = time.into();
        self
    }

    /// Whether a close records the statistics of the connection, so that
    /// [`stats`](crate::ClientSocket::stats) returns them afterwards. That takes a few system
    /// calls. The statistics of a connection that ends with an error are always recorded. Default:
    /// no.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().keep_stats(true);
    /// ```
    #[must_use]
    pub fn keep_stats(mut self, on: bool) -> Self {
        self.keep_stats = on;
        self
    }

    /// Whether small writes are sent immediately (TCP_NODELAY), or collected while earlier ones are
    /// unacknowledged (Nagle's algorithm, RFC 9293 section 3.7.4). Default: yes, immediately. A
    /// Unix socket always sends immediately: `false` is rejected with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().nodelay(false);
    /// ```
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        self.nodelay = on;
        self
    }

    /// Sets the timeout of a connect, for the name lookup and all attempts together. `None`: the
    /// timeout of the system. Default: 30 s.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().connect_timeout(std::time::Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn connect_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connect_timeout = timeout.into();
        self
    }

    /// Sets the time between the starts of two attempts to addresses of one name (RFC 8305 section
    /// 5, Connection Attempt Delay). The next attempt starts immediately after one has failed. From
    /// 10 ms to 2 s, as the RFC requires. Default: 250 ms.
    ///
    /// A shorter delay connects earlier if an address does not answer, and loads servers that are
    /// only slow.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().attempt_delay(std::time::Duration::from_millis(100));
    /// ```
    #[must_use]
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay;
        self
    }

    /// Sets the timeout of each read call. Default: `None`, no limit.
    ///
    /// Connections of event loops have no read calls, so
    /// [`serve_events`](crate::ServerSocket::serve_events) rejects the option. Use
    /// [`idle_timeout`](SocketOptions::idle_timeout) there.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().read_timeout(std::time::Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn read_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.read_timeout = timeout.into();
        self
    }

    /// Sets the timeout of each write call. Default: `None`, no limit.
    ///
    /// Connections of event loops have no write calls that wait, so
    /// [`serve_events`](crate::ServerSocket::serve_events) rejects the option. Use
    /// [`dead_after`](SocketOptions::dead_after) with
    /// [`fail_on_stall`](SocketOptions::fail_on_stall) there.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().write_timeout(std::time::Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.write_timeout = timeout.into();
        self
    }

    /// Sets the time for which [`close`](crate::ClientSocket::close) waits until the peer closes
    /// its side, so that the peer receives every byte. Zero: it does not wait. Default: 2 s.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().close_timeout(std::time::Duration::ZERO);
    /// ```
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Restricts TCP and UDP sockets to one IP version. Default: [`Family::Any`]. With
    /// [`preferred_family`](SocketOptions::preferred_family) the option is rejected with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().family(keepsock::Family::Ipv6);
    /// ```
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// Sets the IP version that a connect tries first. The addresses of both versions alternate (RFC
    /// 8305 section 4). Listening on a name, and UDP, use the first address of this version if there
    /// is one. Default: [`Family::Any`], the order of the system (RFC 6724). With
    /// [`family`](SocketOptions::family), which excludes the other version, the option is rejected
    /// with [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().preferred_family(keepsock::Family::Ipv4);
    /// ```
    #[must_use]
    pub fn preferred_family(mut self, family: Family) -> Self {
        self.preferred_family = family;
        self
    }

    /// Sets an option of the operating system. It is set before bind, connect or listen: on the
    /// socket of each attempt, on each listener, and so for each accepted connection. Default: the
    /// values of the system. If the values of an option begin above 0 (buffer sizes, segment size, flow
    /// label), 0 removes the option again.
    ///
    /// # Errors
    /// The call that creates the socket returns them.
    /// - [`InvalidArgument`](crate::ErrorKind::InvalidArgument): the value is out of range, or the
    ///   option has no effect on this kind of socket.
    /// - [`PermissionDenied`](crate::ErrorKind::PermissionDenied): the process may not set it.
    /// - [`Unsupported`](crate::ErrorKind::Unsupported): the platform does not have it.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket, Sockopt, SocketOptions};
    /// let options = SocketOptions::new()
    ///     .sockopt(Sockopt::RecvBuffer, 1 << 20)
    ///     .sockopt(Sockopt::SendBuffer, 1 << 20);
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &options)?;
    /// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// assert!(client.sockopt(Sockopt::SendBuffer)? > 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn sockopt(mut self, option: Sockopt, value: u32) -> Self {
        match (option, value) {
            (Sockopt::Nodelay, 0 | 1) => self.nodelay = value == 1,
            (_, 0) if option.check(0).is_err() => self.forget_sockopt(option),
            _ => self.set_kernel_option(KernelOption::Number(option, value)),
        }
        self
    }

    /// Sets the congestion control of TCP connections by its name, such as `cubic` or `bbr`
    /// (TCP_CONGESTION of tcp(7)). `None`, the default: that of the system.
    ///
    /// Linux and FreeBSD. If the kernel does not have it, and on other platforms, connecting and
    /// listening fail with [`Unsupported`](crate::ErrorKind::Unsupported); the error names it. Linux
    /// permits unprivileged processes those of `net.ipv4.tcp_allowed_congestion_control`; others
    /// fail with [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    ///
    /// ```
    /// # use keepsock::{ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let options = SocketOptions::new().congestion_control("reno");
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &options)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn congestion_control<'a>(mut self, name: impl Into<Option<&'a str>>) -> Self {
        match name.into() {
            Some(name) => self.set_kernel_option(KernelOption::CongestionControl(name.to_owned())),
            None => self.forget_congestion_control(),
        }
        self
    }

    /// Sets an option of setsockopt(2) for which this library has no name. It is set after all other
    /// options, before bind, connect or listen: on the socket of each attempt, on each listener, and
    /// on an adopted socket. An accepted connection has it if the kernel copies it from the listener.
    ///
    /// The numbers and the bytes are those of the platform. At most 4,096 bytes.
    ///
    /// # Errors
    /// The call that creates the socket returns them, with the numbers in the message.
    /// - [`InvalidArgument`](crate::ErrorKind::InvalidArgument): the library sets this option
    ///   itself: SO_KEEPALIVE and its values, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO, TCP_NODELAY. The
    ///   message names the option to use.
    /// - [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    ///   [`Unsupported`](crate::ErrorKind::Unsupported), [`Os`](crate::ErrorKind::Os): the kernel
    ///   rejected the option.
    ///
    /// ```
    /// # use keepsock::{ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// const IPPROTO_TCP: i32 = 6;
    /// const TCP_QUICKACK: i32 = 12;
    /// let options =
    ///     SocketOptions::new().raw_sockopt(IPPROTO_TCP, TCP_QUICKACK, 1i32.to_ne_bytes());
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &options)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn raw_sockopt(mut self, level: i32, name: i32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref().into();
        self.set_kernel_option(KernelOption::Raw { level, name, value });
        self
    }

    /// Sets the local endpoint of a TCP client, of a connected UDP socket or of a connected Unix
    /// datagram socket. `None`, the default: the system chooses.
    ///
    /// For TCP and UDP it is an address of this machine, neither multicast nor broadcast; a link-local
    /// IPv6 address needs a zone, `[fe80::1%eth0]:0`, or an [interface](Self::interface). With port
    /// 0 the system chooses the port when the socket connects, so TCP connections to different
    /// destinations can share a port (IP_BIND_ADDRESS_NO_PORT, Linux). Addresses of the other IP
    /// version are not tried. For a Unix datagram socket it is an abstract name, or a path: the
    /// library creates and removes the socket file. Stream clients of a Unix socket, listeners and
    /// bound sockets reject the option with [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// use keepsock::{ClientSocket, Endpoint, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let from: Endpoint = "127.0.0.1:0".parse()?;
    /// let options = SocketOptions::new().local_endpoint(from);
    /// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn local_endpoint(mut self, local: impl Into<Option<Endpoint>>) -> Self {
        self.local = local.into();
        self
    }

    /// Sets the network interface for the traffic of a TCP or UDP socket, by name. `None`, the
    /// default: the routing table decides.
    ///
    /// Supported on Linux (SO_BINDTODEVICE, for every user since 5.7) and macOS (IP_BOUND_IF). On
    /// other platforms connecting and listening fail with
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().interface("eth0");
    /// ```
    #[must_use]
    pub fn interface<'a>(mut self, name: impl Into<Option<&'a str>>) -> Self {
        self.interface = name.into().map(str::to_owned);
        self
    }

    /// Adds an address to connect to, in place of a lookup of the endpoint's name. The addresses
    /// are tried in the order in which they were added. The endpoint is then only a name for error
    /// messages. Default: none, the name is looked up.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let known = std::net::SocketAddr::from(([127, 0, 0, 1], server.port()));
    /// let options = SocketOptions::new().remote_address(known);
    /// let client = ClientSocket::connect_with("service:80", &options)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn remote_address(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Sets the number of established connections that may wait to be accepted. The system has a
    /// limit as well (Linux: `net.core.somaxconn`). `None`, the default: that limit.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().backlog(16);
    /// ```
    #[must_use]
    pub fn backlog(mut self, backlog: impl Into<Option<u32>>) -> Self {
        self.backlog = backlog.into();
        self
    }

    /// Enables TCP Fast Open (RFC 7413): a client with a cookie of an earlier connection sends its
    /// first bytes with the SYN, which saves a round trip. Default: no.
    ///
    /// Supported on Linux; on other platforms the call fails with
    /// [`Unsupported`](crate::ErrorKind::Unsupported). The system must permit it for clients and
    /// servers (`net.ipv4.tcp_fastopen` = 3).
    ///
    /// Connecting to an address with a cookie succeeds immediately and sends nothing. The first
    /// write starts the handshake, and reports its failure. So the option is for protocols in which
    /// the client sends first, and for data that may arrive twice. If a name has several addresses,
    /// they are connected without Fast Open.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().fast_open(true);
    /// ```
    #[must_use]
    pub fn fast_open(mut self, on: bool) -> Self {
        self.fast_open = on;
        self
    }

    /// Enables Multipath TCP (RFC 8684): one connection over several networks, which survives the
    /// loss of one of them. Default: no.
    ///
    /// Supported on Linux. On other platforms, and if `net.mptcp.enabled` is 0, the call fails with
    /// [`Unsupported`](crate::ErrorKind::Unsupported). If the peer does not support it, the
    /// connection is plain TCP: see [`is_mptcp`](crate::ConnectionStats::is_mptcp). With
    /// [`dead_after`](SocketOptions::dead_after) the option is rejected with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), because one path may be silent while
    /// the peer is alive.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().mptcp(true);
    /// ```
    #[must_use]
    pub fn mptcp(mut self, on: bool) -> Self {
        self.mptcp = on;
        self
    }

    /// Whether the kernel saves the SYN of each accepted connection, for
    /// [`ClientSocket::saved_syn`](crate::ClientSocket::saved_syn). It keeps about 100 bytes per
    /// connection until they are fetched. Default: no.
    ///
    /// For TCP listeners on Linux (TCP_SAVE_SYN, 4.2 and later), without privilege. On other
    /// platforms listening fails with [`Unsupported`](crate::ErrorKind::Unsupported). A connect
    /// rejects the option with [`InvalidArgument`](crate::ErrorKind::InvalidArgument), because the
    /// SYN of this side is not saved.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// // IP 127.0.0.1.51002 > 127.0.0.1.37011: Flags [S], seq 2690241921, win 65495, …
    /// println!("{}", server.accept()?.saved_syn()?);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[cfg(feature = "diag")]
    #[cfg_attr(docsrs, doc(cfg(feature = "diag")))]
    #[must_use]
    pub fn save_syn(mut self, on: bool) -> Self {
        self.save_syn = on;
        self
    }

    /// Whether the kernel may deliver several consecutive datagrams of one sender as one (UDP_GRO
    /// of udp(7), Linux 5.0; Windows 10 2004). The library splits them, so the program receives single datagrams as
    /// always. Default: no.
    ///
    /// Use it to receive many thousand datagrams per second. Each datagram is copied once more, one
    /// thread receives at a time, and the socket needs up to a megabyte. Datagrams that were not
    /// read yet stay in the socket object, so its descriptor may not be readable although a
    /// datagram is available. A program that polls the descriptor must receive until
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock). The kernel counts a coalesced batch that does
    /// not fit as one drop in [`dropped`](crate::DatagramStats::dropped). UDP only; on other
    /// platforms binding fails with [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = DatagramSocket::bind_with("*:0", &SocketOptions::new().udp_gro(true))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[cfg(feature = "datagram")]
    #[cfg_attr(docsrs, doc(cfg(feature = "datagram")))]
    #[must_use]
    pub fn udp_gro(mut self, on: bool) -> Self {
        self.udp_gro = on;
        self
    }

    /// Whether a listener or datagram socket can be handed over to another process while this
    /// process continues to use it: see [`Handover`](crate::Handover). Default: no.
    ///
    /// Both processes then have the same socket. So closing it in this process must not end its
    /// listening, which otherwise wakes waiting accepts, and an accept must not wait for a
    /// connection that the other process accepted. An accept therefore needs one more poll, and the
    /// socket one more descriptor. With event-driven serving the only cost is the descriptor, but
    /// the option must still be set. Sockets that were [adopted](crate::ServerSocket::from_owned)
    /// or inherited always behave this way.
    ///
    /// On platforms other than Unix a handover fails with
    /// [`Unsupported`](crate::ErrorKind::Unsupported). A connect of a stream rejects the option
    /// with [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// use keepsock::{ServerSocket, SocketOptions};
    /// let server =
    ///     ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().handover(true))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[cfg(feature = "activation")]
    #[cfg_attr(docsrs, doc(cfg(feature = "activation")))]
    #[must_use]
    pub fn handover(mut self, on: bool) -> Self {
        self.handover = on;
        self
    }

    /// Sets the permissions of the file of a Unix socket, independent of the umask. A process needs
    /// write permission to connect. The permissions are set before a process can connect. At most
    /// 0o777. Default: the umask applies.
    ///
    /// For listeners and datagram sockets on a path. Other sockets have no file and reject the
    /// option with [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// # use keepsock::{ServerSocket, SocketOptions};
    /// let path = std::env::temp_dir().join(format!("keepsock-mode-{}", std::process::id()));
    /// let options = SocketOptions::new().unix_mode(0o660);
    /// # #[cfg(unix)] {
    /// use std::os::unix::fs::PermissionsExt;
    /// let server = ServerSocket::listen_with(format!("unix:{}", path.display()), &options)?;
    /// assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn unix_mode(mut self, mode: impl Into<Option<u32>>) -> Self {
        self.unix.mode = mode.into();
        self
    }

    /// Sets the user ID and the group ID of the file of a Unix socket; `None` keeps the ID that the
    /// system assigns. They are set before a process can connect. Default: `None` for both.
    ///
    /// Only root can set another user ID, and only members of a group can set its ID: otherwise
    /// listening fails with [`PermissionDenied`](crate::ErrorKind::PermissionDenied). For listeners
    /// and datagram sockets on a path, as [`unix_mode`](SocketOptions::unix_mode).
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let www_data = 33;
    /// let options = SocketOptions::new().unix_owner(None, Some(www_data)).unix_mode(0o660);
    /// ```
    #[must_use]
    pub fn unix_owner(mut self, uid: impl Into<Option<u32>>, gid: impl Into<Option<u32>>) -> Self {
        (self.unix.uid, self.unix.gid) = (uid.into(), gid.into());
        self
    }

    /// Adds a user ID that may connect to a Unix listener, or send to a bound Unix datagram socket
    /// (Linux). Default: none, every user is allowed.
    ///
    /// A listener closes connections of other users before the program receives them, and counts
    /// them in [`ServerStats::denied`](crate::ServerStats::denied). The user ID of a connection is
    /// that of [`peer_credentials`](crate::ClientSocket::peer_credentials). A datagram socket
    /// discards datagrams of other users and counts them in
    /// [`DatagramStats::denied`](crate::DatagramStats::denied). Root needs to be added like every
    /// user.
    ///
    /// For listening and binding on Unix sockets only: other sockets reject the option with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument). `u32::MAX` is rejected, because it
    /// is not a valid user ID.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let (root, www_data) = (0, 33);
    /// let options = SocketOptions::new().allowed_uid(root).allowed_uid(www_data);
    /// ```
    #[must_use]
    pub fn allowed_uid(mut self, uid: u32) -> Self {
        self.users.push(uid);
        self
    }

    /// Adds a network whose connections come from a proxy, such as HAProxy, and begin with a header of
    /// the PROXY protocol (version 1 or 2): `192.0.2.0/24`, `2001:db8::/32`, or one address. The
    /// five-tuple of such a connection is that of the proxy's client.
    ///
    /// With one or more networks, connections from all other addresses are closed immediately, and
    /// counted in [`ServerStats::proxy_rejected`](crate::ServerStats::proxy_rejected): a client must
    /// not choose its own address. Default: no network, and no connection has a header.
    ///
    /// [`accept`](crate::ServerSocket::accept) does not wait for the header, so a slow proxy delays no
    /// other connection. The first read receives the header, or
    /// [`read_proxy_header`](crate::ClientSocket::read_proxy_header), which a program calls first if it
    /// needs the address before it reads. A service with threads receives the header in the thread of
    /// the connection, before it calls the handler, and applies its limits by address after that. A
    /// service with event loops does the same before [`on_open`](crate::Handler::on_open), without
    /// waiting: without a header no callback of the connection runs. While accepting is paused, no
    /// header is late. Stopping the service resets the connections that have sent no header yet.
    ///
    /// A connection counts for [`max_connections`](crate::ServeOptions::max_connections) from accept
    /// on, also without a header.
    ///
    /// For listening on TCP only. A server that also listens on a Unix socket expects no header there.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().trusted_proxy("127.0.0.1").trusted_proxy("10.0.0.0/8");
    /// ```
    #[must_use]
    pub fn trusted_proxy(mut self, network: impl Into<String>) -> Self {
        self.trusted_proxies.push(network.into());
        self
    }

    /// Sets the time within which the whole header of a [`trusted_proxy`](SocketOptions::trusted_proxy)
    /// must arrive after accept. The connection is reset otherwise. Default: 5 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = keepsock::SocketOptions::new()
    ///     .trusted_proxy("127.0.0.1")
    ///     .proxy_timeout(Duration::from_secs(3));
    /// ```
    #[must_use]
    pub fn proxy_timeout(mut self, timeout: Duration) -> Self {
        self.proxy_timeout = timeout;
        self
    }

    /// Sets the header of the PROXY protocol that a connect sends before all other bytes. `None`: no
    /// header, which is the default. A relay passes the addresses of its client, so that the server
    /// learns them.
    ///
    /// The connect fails if the kernel does not accept the header. For connecting to TCP and Unix
    /// stream sockets; other sockets reject the option with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// use keepsock::{ClientSocket, ProxyHeader, ServerSocket, SocketOptions};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let options = SocketOptions::new().proxy_header(ProxyHeader::v1(None));
    /// let relay = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// assert_eq!(server.accept()?.read_line(107)?, "PROXY UNKNOWN");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn proxy_header(mut self, header: impl Into<Option<ProxyHeader>>) -> Self {
        self.proxy_header = header.into();
        self
    }

    /// Creates a Unix socket for packets (SOCK_SEQPACKET of unix(7)) and not for a stream: each
    /// write sends one packet, and each read receives one packet. Both sides need the option.
    /// Default: no.
    ///
    /// Supported on Linux and FreeBSD; on macOS the call fails with
    /// [`Unsupported`](crate::ErrorKind::Unsupported). TCP sockets reject the option with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// A packet has at least one byte, because an empty packet looks like the end of the stream. It
    /// has at most the size of the send buffer (Linux: about 200 KB by default): a longer packet is
    /// [`TooLong`](crate::ErrorKind::TooLong). A packet that does not fit into the buffer of a read
    /// is lost, and the read fails with [`TooLong`](crate::ErrorKind::TooLong). Lines, messages,
    /// [`read_exact`](crate::ClientSocket::read_exact) and files need a stream: they fail with
    /// [`WrongState`](crate::ErrorKind::WrongState). Event-driven serving does not support packets:
    /// it fails with [`InvalidArgument`](crate::ErrorKind::InvalidArgument), and
    /// [`Service::add`](crate::Service::add) with [`WrongState`](crate::ErrorKind::WrongState). A
    /// [`proxy_header`](SocketOptions::proxy_header) needs a stream as well: both together are rejected
    /// with [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// let options = SocketOptions::new().seqpacket(true);
    /// let server = ServerSocket::listen_with("unix:@keepsock-packets-example", &options)?;
    /// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// client.write_all(b"one")?;
    /// client.write_all(b"two")?;
    /// let accepted = server.accept()?;
    /// let mut buf = [0; 512];
    /// assert_eq!(accepted.read(&mut buf)?, 3);
    /// assert_eq!(accepted.read(&mut buf)?, 3);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn seqpacket(mut self, on: bool) -> Self {
        self.seqpacket = on;
        self
    }

    /// Sets the token that cancels calls of this socket, including connect. Accepted connections
    /// start without a token. Default: none.
    ///
    /// ```
    /// use keepsock::{CancelToken, SocketOptions};
    /// let token = CancelToken::new()?;
    /// let options = SocketOptions::new().cancel(&token);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn cancel<'a>(mut self, token: impl Into<Option<&'a CancelToken>>) -> Self {
        self.cancel = token.into().cloned();
        self
    }
}
