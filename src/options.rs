//! What a socket is set to before it exists.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;

use crate::cancel::CancelToken;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::info::Family;
use crate::keepalive::Keepalive;
use crate::sys::{self, Borrowed};
use crate::wait::Cause;

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
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) nodelay: bool,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) close_timeout: Duration,
    pub(crate) family: Family,
    pub(crate) local: Option<Endpoint>,
    pub(crate) interface: Option<String>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) backlog: Option<u32>,
    pub(crate) cancel: Option<CancelToken>,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            keepalive: Some(Keepalive::default()),
            nodelay: true,
            connect_timeout: Some(Duration::from_secs(30)),
            read_timeout: None,
            write_timeout: None,
            close_timeout: Duration::from_secs(2),
            family: Family::Any,
            local: None,
            interface: None,
            addresses: Vec::new(),
            backlog: None,
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
        self.keepalive = keepalive.into();
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
        for (name, timeout) in [
            ("connect", self.connect_timeout),
            ("read", self.read_timeout),
            ("write", self.write_timeout),
        ] {
            if timeout.is_some_and(|t| t.is_zero()) {
                return refuse(&format!("{name} timeout is zero"));
            }
        }
        if self.backlog == Some(0) {
            return refuse("backlog is zero");
        }
        if let Some(name) = &self.interface {
            // IFNAMSIZ is 16 with the final NUL, on Linux and the BSDs alike.
            if name.is_empty() || name.len() > 15 || name.contains('\0') {
                return refuse(&format!("not an interface name: {name:?}"));
            }
        }
        Ok(())
    }

    /// Takes off a socket that somebody else made what keepsock's sockets never
    /// have: SO_LINGER makes a close block, the kernel's timeouts would
    /// be taken for ours, and accepted connections would inherit all of them.
    pub(crate) fn adopt(&self, socket: Borrowed<'_>) -> std::result::Result<(), Cause> {
        sys::set_nonblocking(socket, !sys::BLOCKING_CALLS)?;
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
        if self.keepalive.is_none() {
            sys::set_keepalive(socket, None)?;
        }
        if !self.nodelay {
            SockRef::from(&socket).set_tcp_nodelay(false)?;
        }
        Ok(())
    }

    /// Refuses, for a Unix socket, what only IP has. Keepalive and NODELAY are not
    /// among it: a local connection behaves as if they were met.
    pub(crate) fn refuse_inet_only(&self, operation: &'static str) -> Result<()> {
        let given = [
            ("family", self.family != Family::Any),
            ("local", self.local.is_some()),
            ("interface", self.interface.is_some()),
            ("address", !self.addresses.is_empty()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Error::new(ErrorKind::InvalidArgument, operation)
                .detail(format!("a Unix socket has no {name} to set"))),
            None => Ok(()),
        }
    }

    /// Refuses, for a listener, what only a client has.
    pub(crate) fn refuse_client_only(&self, operation: &'static str) -> Result<()> {
        if self.local.is_some() || !self.addresses.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, operation)
                .detail("local and address are for connecting"));
        }
        Ok(())
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
        if let Some(keepalive) = self.keepalive {
            sys::set_keepalive(socket, Some(keepalive))?;
        }
        if self.nodelay {
            SockRef::from(&socket).set_tcp_nodelay(true)?;
        }
        Ok(())
    }
}
