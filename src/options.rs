//! What a socket is set to before it exists.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use socket2::SockRef;

use crate::cancel::CancelToken;
use crate::endpoint::{Endpoint, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::info::Family;
use crate::keepalive::{Keepalive, Setting};
use crate::liveness::{Asked, Heartbeat};
use crate::sys::{self, Borrowed};
use crate::wait::Cause;

/// The first of these names whose condition holds. A list to be searched would be written each
/// time, and each connect is checked.
macro_rules! first_of {
    ($($name:literal: $holds:expr,)+) => {
        $(if $holds { Some($name) } else)+ { None }
    };
}

/// How a socket is to be: the options of
/// [`ClientSocket::connect_with`](crate::ClientSocket::connect_with) and
/// [`ServerSocket::listen_with`](crate::ServerSocket::listen_with).
///
/// All are in force before the handshake: they hold for each attempt of a
/// connect, and for every connection that a server accepts. The defaults suit
/// most programs.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
/// use std::time::Duration;
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let options = SocketOptions::new()
///     .connect_timeout(Duration::from_secs(5))
///     .read_timeout(Duration::from_secs(10));
/// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SocketOptions {
    pub(crate) keepalive: Setting,
    pub(crate) liveness: Asked,
    pub(crate) last_snapshot: bool,
    pub(crate) nodelay: bool,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) close_timeout: Duration,
    pub(crate) attempt_delay: Duration,
    pub(crate) family: Family,
    pub(crate) local: Option<Endpoint>,
    pub(crate) interface: Option<String>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) backlog: Option<u32>,
    pub(crate) fast_open: bool,
    pub(crate) mptcp: bool,
    pub(crate) save_syn: bool,
    pub(crate) coalescing: bool,
    pub(crate) hand_over: bool,
    pub(crate) unix: UnixFile,
    pub(crate) users: Vec<u32>,
    pub(crate) sequenced: bool,
    pub(crate) cancel: Option<CancelToken>,
}

/// What the file of a Unix socket is to be; `None` is what the system makes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UnixFile {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// RFC 8305 section 5: never less than 10 ms, and 2 s at most.
const ATTEMPT_DELAYS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(2);

/// How many connections may have brought data with a SYN that is not confirmed. Beyond
/// that handshakes are the usual ones (RFC 7413 section 5.1).
const FAST_OPEN_PENDING: u32 = 256;

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            keepalive: Setting::Adapted,
            liveness: Asked::default(),
            last_snapshot: false,
            nodelay: true,
            connect_timeout: Some(Duration::from_secs(30)),
            read_timeout: None,
            write_timeout: None,
            close_timeout: Duration::from_secs(2),
            attempt_delay: Duration::from_millis(250),
            family: Family::Any,
            local: None,
            interface: None,
            addresses: Vec::new(),
            backlog: None,
            fast_open: false,
            mptcp: false,
            save_syn: false,
            coalescing: false,
            hand_over: false,
            unix: UnixFile::default(),
            users: Vec::new(),
            sequenced: false,
            cancel: None,
        }
    }
}

impl SocketOptions {
    /// The defaults.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new();
    /// ```
    pub fn new() -> SocketOptions {
        SocketOptions::default()
    }

    /// Keepalive of TCP connections; `None` turns it off. Default: on, with
    /// [`Keepalive::default`]. Unix sockets have no network to keep alive.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().keepalive(None);   // off
    /// ```
    #[must_use]
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.keepalive = keepalive.into().map_or(Setting::Off, Setting::Own);
        self
    }

    /// Reports a peer that vanished as [`Dead`](ErrorKind::Dead) within `time` and a second:
    /// whether the connection is idle, has data that is not acknowledged, or a write waits
    /// for room. A peer that lives and has merely stopped reading is waited for, unless
    /// [`end_stalled`](SocketOptions::end_stalled) says otherwise. `None`: by keepalive alone,
    /// which says nothing while data is unacknowledged; then the system may try for a quarter
    /// of an hour. Default: none. From 2 s to 45 hours.
    ///
    /// Sets keepalive to fit. While data is on its way the calls that wait look at how long
    /// the peer was silent (TCP_INFO), four times in `time`; a program that does not wait in
    /// calls asks [`check_alive`](crate::ClientSocket::check_alive). Linux 6.15 and later are
    /// told to send again, and to ask a peer that takes no data, at least each eighth of
    /// `time`, or each second (TCP_RTO_MAX_MS); earlier kernels ask less and less often, so
    /// that a peer which vanishes while it takes no data is found later.
    ///
    /// macOS (TCP_RXT_CONNDROPTIME) and Windows (TCP_MAXRT) do this in the kernel, from whole
    /// seconds; FreeBSD has it with `end_stalled` only, and connecting and listening fail with
    /// [`Unsupported`](ErrorKind::Unsupported) without. The peer of a Unix socket cannot
    /// vanish.
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

    /// With [`dead_after`](SocketOptions::dead_after): gives up a peer that lives but takes
    /// no data for that time, too; the reason is [`Stalled`](ErrorKind::Stalled). The
    /// kernel does it by itself (TCP_USER_TIMEOUT of tcp(7), RFC 9293 section 3.8.3; FreeBSD:
    /// TCP_MAXUNACKTIME), whether a call waits or not; it counts from the first byte that is
    /// not taken. Elsewhere connecting and listening fail
    /// with [`Unsupported`](ErrorKind::Unsupported). Default: no.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let ten = std::time::Duration::from_secs(10);
    /// let options = SocketOptions::new().dead_after(ten).end_stalled(true);
    /// ```
    #[must_use]
    pub fn end_stalled(mut self, on: bool) -> Self {
        self.liveness.end_stalled = on;
        self
    }

    /// Keeps firewalls, NATs and load balancers from forgetting the connection, which they
    /// do after it was idle for `time`: keepalive probes pass at least that often, and one
    /// of them may get lost. Default: `None`, the default keepalive probes after 45 s, in
    /// time for all that are common. From 2 s to 45 hours. Use a
    /// [`heartbeat`](SocketOptions::heartbeat) where something on the way does not pass
    /// probes on, such as a proxy.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().survive_idle(std::time::Duration::from_secs(30));
    /// ```
    #[must_use]
    pub fn survive_idle(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.liveness.survive_idle = time.into();
        self
    }

    /// Sends `bytes` whenever nothing was written for `every`: `"PING\r\n"`, MQTT's
    /// `[0xC0, 0]`, what the protocol has for that. For proxies, which end TCP and so
    /// answer keepalive themselves, and, with an
    /// [`idle_limit`](SocketOptions::idle_limit), for peers whose kernel answers while the
    /// program hangs. Never in the middle of a write. Default: none.
    ///
    /// Sent by any call that waits on the connection, and by
    /// [`check_alive`](crate::ClientSocket::check_alive). A peer that takes no data gets none.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options =
    ///     SocketOptions::new().heartbeat(*b"PING\r\n", std::time::Duration::from_secs(20));
    /// ```
    #[must_use]
    pub fn heartbeat(mut self, bytes: impl AsRef<[u8]>, every: Duration) -> Self {
        self.liveness.heartbeat = Some(Heartbeat { bytes: bytes.as_ref().into(), every });
        self
    }

    /// Ends the connection for those who wait to read if nothing came for `time`: their
    /// calls fail with [`IdleLimit`](ErrorKind::IdleLimit), or with
    /// [`HeartbeatMissed`](ErrorKind::HeartbeatMissed) if there is a heartbeat, which the
    /// peer's program should have answered. A last word can still be written; then close, which
    /// waits for the peer as always, but not for one that missed heartbeats. A
    /// [`read_timeout`](SocketOptions::read_timeout) is for one call, this is for the
    /// connection. Default: `None`, no limit.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().idle_limit(std::time::Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn idle_limit(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.liveness.idle_limit = time.into();
        self
    }

    /// As [`idle_limit`](SocketOptions::idle_limit), until the first byte has come: for clients
    /// that connect and say nothing. Default: `None`, the idle limit holds from the beginning.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().first_byte_limit(std::time::Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn first_byte_limit(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.liveness.first_byte_limit = time.into();
        self
    }

    /// Whether closing takes a last copy of what the kernel knows of the connection, so that
    /// [`snapshot`](crate::ClientSocket::snapshot) has it afterwards; it costs a few system
    /// calls. A connection that ended by an error has it in any case. Default: no.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().last_snapshot(true);
    /// ```
    #[must_use]
    pub fn last_snapshot(mut self, on: bool) -> Self {
        self.last_snapshot = on;
        self
    }

    /// Whether small writes leave at once (TCP_NODELAY) or are gathered while
    /// earlier ones are unacknowledged (Nagle's algorithm, RFC 9293 section
    /// 3.7.4). Default: at once.
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

    /// The time for a connect, name lookup and every attempt together.
    /// `None`: as long as the system takes. Default: 30 s.
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

    /// The time between the starts of two attempts of a connect, to the addresses of one name
    /// (RFC 8305 section 5, Connection Attempt Delay); the next one starts at once when one has
    /// failed. Shorter is quicker where an address does not answer, and a burden on servers
    /// that are merely slow. From 10 ms to 2 s, as the RFC demands. Default: 250 ms.
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

    /// The time for each reading call as a whole. Default: `None`, no limit.
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

    /// The time for each writing call as a whole. Default: `None`, no limit.
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

    /// How long [`close`](crate::ClientSocket::close) may wait for the peer to
    /// end its side, so that it receives every byte. Zero: not at all. Default: 2 s.
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

    /// IPv4 only, IPv6 only, or any; TCP only. Default: any.
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

    /// The local address and port that a client connects from; port 0 lets the
    /// system choose. TCP only. Attempts to addresses of another family are not made.
    /// Default: the system chooses both.
    ///
    /// ```
    /// use keepsock::{ClientSocket, Endpoint, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let from: Endpoint = "127.0.0.1:0".parse()?;
    /// let client = ClientSocket::connect_with(server.endpoint(), &SocketOptions::new().local(from))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn local(mut self, local: impl Into<Endpoint>) -> Self {
        self.local = Some(local.into());
        self
    }

    /// The network interface that the socket's traffic uses, by name; TCP only. Linux
    /// (SO_BINDTODEVICE, for every user since 5.7) and macOS (IP_BOUND_IF);
    /// elsewhere connect and listen fail with
    /// [`Unsupported`](ErrorKind::Unsupported). Default: as routed.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().interface("eth0");
    /// ```
    #[must_use]
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Adds an address to connect to instead of looking the endpoint's name up.
    /// The addresses race in the order they were added; the endpoint is
    /// then only a name for error messages. Default: none, the name is looked up.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let known = std::net::SocketAddr::from(([127, 0, 0, 1], server.port()));
    /// let client = ClientSocket::connect_with("service:80", &SocketOptions::new().address(known))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// How many confirmed connections may wait to be accepted. The system has a
    /// limit of its own (Linux: `net.core.somaxconn`). Default: that limit.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let options = SocketOptions::new().backlog(16);
    /// ```
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = Some(backlog);
        self
    }

    /// TCP Fast Open (RFC 7413): a client that was here before sends its first bytes with the
    /// SYN, and saves a round trip. Linux only (elsewhere
    /// [`Unsupported`](ErrorKind::Unsupported)); the system must allow it, for servers too
    /// (`net.ipv4.tcp_fastopen` = 3). Default: no.
    ///
    /// Connecting to an address with a cookie of an earlier connection succeeds at once and
    /// sends nothing: the handshake comes with the first write, and its failures too. So it is
    /// for protocols in which the client speaks first, and for what may arrive twice. A name
    /// with several addresses races without it.
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

    /// Multipath TCP (RFC 8684): one connection over several networks, that outlives the loss of
    /// one of them. Linux only (elsewhere, and where `net.mptcp.enabled` is 0,
    /// [`Unsupported`](ErrorKind::Unsupported)). With a peer that does not know it the
    /// connection is plain TCP: [`is_mptcp`](crate::ClientSocket::is_mptcp). Not together with
    /// [`dead_after`](SocketOptions::dead_after), for the silence of one path is not that
    /// of the peer. Default: no.
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

    /// Whether a listener keeps the SYN of each connection, for
    /// [`ClientSocket::syn`](crate::ClientSocket::syn). TCP on Linux (TCP_SAVE_SYN, 4.2 and
    /// later), for every user; elsewhere listening fails with
    /// [`Unsupported`](ErrorKind::Unsupported). For listeners only: connecting with it
    /// is an [`InvalidArgument`](ErrorKind::InvalidArgument), for this side's SYN is not kept.
    /// Default: no. The kernel keeps about 100 bytes for each connection until they are asked for.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// // IP 127.0.0.1.51002 > 127.0.0.1.37011: Flags [S], seq 2690241921, win 65495, …
    /// println!("{}", server.accept()?.syn()?);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn save_syn(mut self, on: bool) -> Self {
        self.save_syn = on;
        self
    }

    /// Whether the kernel may hand over the datagrams of one sender that follow each other as one
    /// (UDP_GRO of udp(7), Linux 5.0); they are told one by one as always. For those who receive
    /// many thousand in a second: each is copied once more, one thread receives at a time, and it
    /// takes up to a megabyte. What is left over waits in the socket, so that its descriptor may
    /// not be readable though there is something to receive: whoever polls it goes on until
    /// [`WouldBlock`](ErrorKind::WouldBlock). Several that came as one and found no room are one in
    /// [`dropped`](crate::DatagramSnapshot::dropped), for the kernel counts so. UDP only; elsewhere
    /// binding fails with [`Unsupported`](ErrorKind::Unsupported). Default: no.
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, SocketOptions};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = DatagramSocket::bind_with("*:0", &SocketOptions::new().coalescing(true))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn coalescing(mut self, on: bool) -> Self {
        self.coalescing = on;
        self
    }

    /// Whether the listening socket, or the datagram socket, can be handed over to another process
    /// while this one goes on with it: [`HandOver`](crate::HandOver). Both have the same socket
    /// then, so this one must neither end its listening by closing it (which is what wakes
    /// accepts, otherwise) nor wait in accept for a connection that the other one took. So an
    /// accept costs one poll more, and the socket one descriptor; served by events, it costs the
    /// descriptor only, but must be set, too. What was [taken
    /// over](crate::ServerSocket::from_owned) or inherited is so in any case. Unix systems;
    /// elsewhere handing over is [`Unsupported`](ErrorKind::Unsupported). For connecting a stream
    /// it is an [`InvalidArgument`](ErrorKind::InvalidArgument). Default: no.
    ///
    /// ```
    /// use keepsock::{ServerSocket, SocketOptions};
    /// let server =
    ///     ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().hand_over(true))?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn hand_over(mut self, on: bool) -> Self {
        self.hand_over = on;
        self
    }

    /// The permissions of a Unix socket's file, whatever the umask: who may write to it may
    /// connect. In force before anybody can. At most 0o777; for listeners and datagram sockets on a
    /// path, others have no file: [`InvalidArgument`](ErrorKind::InvalidArgument). Default: as the
    /// umask has it.
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
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.unix.mode = Some(mode);
        self
    }

    /// The owner and the group of a Unix socket's file; `None` leaves what the system gives it.
    /// In force before anybody can connect. Another owner is for root, another group for
    /// its members; else listening fails with
    /// [`PermissionDenied`](ErrorKind::PermissionDenied). For listeners on a path, as
    /// [`unix_mode`](SocketOptions::unix_mode). Default: none of both.
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

    /// Adds a user who may connect to a listening Unix socket, by number. Connections of others
    /// are closed at once, before the program sees them
    /// ([`ServerCounters::denied`](crate::ServerCounters::denied)): the user of a connection is
    /// what [`peer_credentials`](crate::ClientSocket::peer_credentials) tells. Root is no
    /// exception. Of a bound Unix datagram socket (Linux) the users who may send: datagrams of
    /// others are passed over ([`DatagramSnapshot::denied`](crate::DatagramSnapshot::denied)). For
    /// listening and binding on Unix sockets only: [`InvalidArgument`](ErrorKind::InvalidArgument)
    /// elsewhere, and for `u32::MAX`, which is nobody's number. Default: none, everybody may.
    ///
    /// ```
    /// use keepsock::SocketOptions;
    /// let (root, www_data) = (0, 33);
    /// let options = SocketOptions::new().allow_user(root).allow_user(www_data);
    /// ```
    #[must_use]
    pub fn allow_user(mut self, uid: u32) -> Self {
        self.users.push(uid);
        self
    }

    /// A Unix socket for packets in order (SOCK_SEQPACKET of unix(7)) and not for a stream: each
    /// write is one packet, and each read receives one, whole. For connecting and for
    /// listening, on both sides; [`InvalidArgument`](ErrorKind::InvalidArgument) for TCP. Linux
    /// and FreeBSD; macOS has none ([`Unsupported`](ErrorKind::Unsupported)). Default: no.
    ///
    /// A packet has at least one byte, for an empty one would look like the end, and at most
    /// what the socket's send buffer holds (Linux: about 200 KB by default;
    /// [`TooLong`](ErrorKind::TooLong)). One that does not fit into the reader's buffer is lost,
    /// with an error that says so; the next one is not. Lines, messages,
    /// [`read_exact`](crate::ClientSocket::read_exact) and files are for streams:
    /// [`WrongState`](ErrorKind::WrongState). Serving by events is, too:
    /// [`InvalidArgument`](ErrorKind::InvalidArgument), or [`WrongState`](ErrorKind::WrongState)
    /// for a connection that is [added](crate::Service::add).
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// let options = SocketOptions::new().sequenced(true);
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
    pub fn sequenced(mut self, on: bool) -> Self {
        self.sequenced = on;
        self
    }

    /// The token that ends this socket's calls; connect included. Connections
    /// that a server accepts start without one. Default: none.
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

    /// Refuses what no socket can be set to, before there is one.
    pub(crate) fn validate(&self, operation: &'static str) -> Result<()> {
        let refuse = |what: &str| {
            Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what.to_owned()))
        };
        let is_zero = |timeout: Option<Duration>| timeout.is_some_and(|t| t.is_zero());
        let zero = first_of! {
            "connect": is_zero(self.connect_timeout),
            "read": is_zero(self.read_timeout),
            "write": is_zero(self.write_timeout),
        };
        if let Some(name) = zero {
            return refuse(&format!("{name} timeout is zero"));
        }
        if !ATTEMPT_DELAYS.contains(&self.attempt_delay) {
            return refuse("attempt delay is not within 10 ms to 2 s");
        }
        if self.mptcp && self.liveness.dead_after.is_some() {
            return refuse("dead_after watches one path, and mptcp has several");
        }
        self.liveness.validate(operation)?;
        self.effective_keepalive().map_err(|e| e.during(operation))?;
        if self.backlog == Some(0) {
            return refuse("backlog is zero");
        }
        if let Some(mode) = self.unix.mode.filter(|mode| *mode > 0o777) {
            return refuse(&format!("unix_mode {mode:#o} is beyond 0o777"));
        }
        // chown(2) takes that number for "leave it".
        if self.unix.uid == Some(u32::MAX) || self.unix.gid == Some(u32::MAX) {
            return refuse("unix_owner: 4294967295 is nobody's number");
        }
        if self.users.contains(&u32::MAX) {
            return refuse("allow_user: 4294967295 is nobody's number");
        }
        if let Some(name) = &self.interface {
            // IFNAMSIZ is 16 with the final NUL, on Linux and the BSDs alike.
            if name.is_empty() || name.len() > 15 || name.contains('\0') {
                return refuse(&format!("not an interface name: {name:?}"));
            }
        }
        Ok(())
    }

    fn effective_keepalive(&self) -> Result<Option<Keepalive>> {
        self.keepalive.resolve(self.liveness.dead_after, self.liveness.survive_idle)
    }

    /// Takes off a socket that somebody else made what keepsock's sockets never
    /// have: SO_LINGER makes a close block, the kernel's timeouts would
    /// be taken for ours, and accepted connections would inherit all of them.
    pub(crate) fn adopt(
        &self,
        socket: Borrowed<'_>,
        nonblocking: bool,
    ) -> std::result::Result<(), Cause> {
        sys::set_nonblocking(socket, nonblocking)?;
        sys::forbid_sigpipe(socket)?;
        let socket = SockRef::from(&socket);
        socket.set_linger(None)?;
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        Ok(())
    }

    /// Sets a TCP socket that somebody else made to these options.
    pub(crate) fn adopt_tcp(
        &self,
        socket: Borrowed<'_>,
        ipv6: bool,
    ) -> std::result::Result<(), Cause> {
        self.apply_tcp(socket, ipv6)?;
        self.apply_dead_after(socket)?;
        if self.keepalive == Setting::Off {
            sys::set_keepalive(socket, None)?;
        }
        if !self.nodelay {
            SockRef::from(&socket).set_tcp_nodelay(false)?;
        }
        Ok(())
    }

    /// Refuses, for a Unix socket, what only IP has. Keepalive, dead_after, survive_idle and
    /// NODELAY are not among it: a local connection behaves as if they were met.
    pub(crate) fn refuse_inet_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "family": self.family != Family::Any,
            "local": self.local.is_some(),
            "interface": self.interface.is_some(),
            "address": !self.addresses.is_empty(),
            "end_stalled": self.liveness.end_stalled,
            "fast_open": self.fast_open,
            "mptcp": self.mptcp,
            "save_syn": self.save_syn,
            "coalescing": self.coalescing,
        };
        refuse(operation, given, |name| format!("a Unix socket has no {name} to set"))
    }

    /// Refuses, for a socket of IP, what only Unix sockets have.
    pub(crate) fn refuse_unix_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "unix_mode": self.unix.mode.is_some(),
            "unix_owner": self.unix.uid.is_some() || self.unix.gid.is_some(),
            "allow_user": !self.users.is_empty(),
            "sequenced": self.sequenced,
        };
        refuse(operation, given, |name| format!("{name} is for Unix sockets"))
    }

    /// Refuses, for a Unix socket that has no file or is not to make one, what a file can be.
    pub(crate) fn refuse_file_only(&self, operation: &'static str) -> Result<()> {
        if self.unix == UnixFile::default() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidArgument, operation)
            .detail("unix_mode and unix_owner are for listening on a path"))
    }

    /// What is left of these options for a socket that was inherited: its file, if the endpoint is
    /// one, is there and has its mode and owner.
    pub(crate) fn for_inherited(&self, endpoint: &Endpoint) -> SocketOptions {
        let mut options = self.clone();
        if matches!(&endpoint.0, Target::UnixPath(_)) {
            options.unix = UnixFile::default();
        }
        options
    }

    /// Refuses, for a listener, what only a client has.
    pub(crate) fn refuse_client_only(&self, operation: &'static str) -> Result<()> {
        if self.local.is_some() || !self.addresses.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, operation)
                .detail("local and address are for connecting"));
        }
        Ok(())
    }

    /// Refuses, for a connection, what only a listener has.
    pub(crate) fn refuse_listener_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "hand_over": self.hand_over,
            "save_syn": self.save_syn,
            "allow_user": !self.users.is_empty(),
        };
        refuse(operation, given, |name| format!("{name} is for listening"))?;
        self.refuse_file_only(operation)
    }

    /// Refuses, for a stream, what only datagram sockets have.
    pub(crate) fn refuse_datagram_only(&self, operation: &'static str) -> Result<()> {
        if self.coalescing {
            return Err(Error::new(ErrorKind::InvalidArgument, operation)
                .detail("coalescing is for datagrams"));
        }
        Ok(())
    }

    /// Refuses, for a datagram socket, what only streams have. What is off is met.
    pub(crate) fn refuse_stream_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "keepalive": matches!(self.keepalive, Setting::Own(_)),
            "liveness": !self.liveness.is_plain(),
            "nodelay": !self.nodelay,
            "attempt_delay": self.attempt_delay != SocketOptions::default().attempt_delay,
            "backlog": self.backlog.is_some(),
            "fast_open": self.fast_open,
            "mptcp": self.mptcp,
            "save_syn": self.save_syn,
            "sequenced": self.sequenced,
        };
        refuse(operation, given, |name| format!("a datagram socket has no {name} to set"))
    }

    /// Sets a TCP socket that is to listen, or does so already, to what only listeners have.
    pub(crate) fn apply_listener(&self, socket: Borrowed<'_>) -> std::result::Result<(), Cause> {
        if self.save_syn {
            sys::save_syn(socket, true)?;
        }
        if self.fast_open {
            sys::fast_open_listen(socket, FAST_OPEN_PENDING)?;
        }
        Ok(())
    }

    /// Sets a listener that somebody else made to what only listeners have.
    pub(crate) fn adopt_listener(&self, socket: Borrowed<'_>) -> std::result::Result<(), Cause> {
        let set = sys::save_syn(socket, self.save_syn);
        // A system that cannot keep SYNs keeps none, and so it is with Fast Open.
        if self.save_syn {
            set?;
        }
        let pending = if self.fast_open { FAST_OPEN_PENDING } else { 0 };
        let set = sys::fast_open_listen(socket, pending);
        if self.fast_open {
            set?;
        }
        // What the one before had, and these options may not.
        Ok(sys::unset_dead_after(socket)?)
    }

    /// Sets what bounds the silence of a peer: on a listener, for the connections that it will
    /// accept, and on a connection, but not before: connecting has a deadline of its own, which
    /// the kernel's would cut short.
    pub(crate) fn apply_dead_after(&self, socket: Borrowed<'_>) -> std::result::Result<(), Cause> {
        match self.liveness.dead_after {
            Some(time) => Ok(sys::set_dead_after(socket, time, self.liveness.end_stalled)?),
            None => Ok(()),
        }
    }

    /// Sets a new TCP socket to these options.
    pub(crate) fn apply_tcp(
        &self,
        socket: Borrowed<'_>,
        ipv6: bool,
    ) -> std::result::Result<(), Cause> {
        // First what may be refused: an adopted socket is then left as it was.
        if let Some(name) = &self.interface {
            sys::bind_interface(socket, name, ipv6)?;
        }
        if let Ok(Some(keepalive)) = self.effective_keepalive() {
            sys::set_keepalive(socket, Some(keepalive))?;
        }
        if self.nodelay {
            SockRef::from(&socket).set_tcp_nodelay(true)?;
        }
        Ok(())
    }
}

/// Refuses an option that was given and is not to be.
#[inline]
fn refuse(
    operation: &'static str,
    given: Option<&str>,
    why: impl Fn(&str) -> String,
) -> Result<()> {
    match given {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorKind::InvalidArgument, operation).detail(why(name))),
    }
}
