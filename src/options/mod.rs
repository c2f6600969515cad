//! The options of a socket: set by the program, validated, then applied to a socket before its
//! handshake.

mod apply;
mod builder;
#[cfg(feature = "activation")]
pub(crate) mod deferred;
mod kernel;
mod validate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kernel::KernelOption;
pub(crate) use kernel::option_failure;

use crate::io::cancel::CancelToken;
use crate::io::memory::copied;
use crate::types::address::Family;
use crate::types::credentials::UnixFile;
use crate::types::endpoint::Endpoint;
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::keepalive::KeepaliveSetting;
use crate::types::liveness::{Heartbeat, LivenessConfig};
use crate::types::proxy::ProxyHeader;

/// Options for creating a socket, for
/// [`ClientSocket::connect_with`](crate::ClientSocket::connect_with),
/// [`ServerSocket::listen_with`](crate::ServerSocket::listen_with),
/// [`DatagramSocket::bind_with`](crate::DatagramSocket::bind_with) and others.
///
/// The options are set before the handshake: for each attempt of a connect, and for every
/// connection that a server accepts. The call that creates the socket validates them and reports
/// options that do not apply to its kind of socket. The defaults suit most programs.
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
    pub(crate) keepalive: KeepaliveSetting,
    pub(crate) liveness: LivenessConfig,
    pub(crate) keep_stats: bool,
    pub(crate) nodelay: bool,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) close_timeout: Duration,
    pub(crate) attempt_delay: Duration,
    pub(crate) family: Family,
    pub(crate) preferred_family: Family,
    pub(crate) local: Option<Endpoint>,
    pub(crate) interface: Option<String>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) backlog: Option<u32>,
    pub(crate) fast_open: bool,
    pub(crate) mptcp: bool,
    pub(crate) save_syn: bool,
    pub(crate) udp_gro: bool,
    pub(crate) handover: bool,
    /// Options of the operating system, in the order in which they are set.
    pub(crate) kernel: Vec<KernelOption>,
    pub(crate) unix: UnixFile,
    pub(crate) users: Vec<u32>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) proxy_timeout: Duration,
    pub(crate) proxy_header: Option<ProxyHeader>,
    pub(crate) seqpacket: bool,
    pub(crate) cancel: Option<CancelToken>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The number of connections with data in an unconfirmed SYN. Beyond this number the kernel uses
/// ordinary handshakes (RFC 7413 section 5.1).
const FAST_OPEN_PENDING: u32 = 256;

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            keepalive: KeepaliveSetting::Adapted,
            liveness: LivenessConfig::default(),
            keep_stats: false,
            nodelay: true,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: None,
            write_timeout: None,
            close_timeout: CLOSE_TIMEOUT,
            attempt_delay: ATTEMPT_DELAY,
            family: Family::Any,
            preferred_family: Family::Any,
            local: None,
            interface: None,
            addresses: Vec::new(),
            backlog: None,
            fast_open: false,
            mptcp: false,
            save_syn: false,
            udp_gro: false,
            handover: false,
            kernel: Vec::new(),
            unix: UnixFile::default(),
            users: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_timeout: PROXY_TIMEOUT,
            proxy_header: None,
            seqpacket: false,
            cancel: None,
        }
    }
}

/// Makes a heartbeat with a copy of the bytes. Without an interval there is none.
pub(crate) fn heartbeat(bytes: &[u8], every: Option<Duration>) -> Result<Option<Heartbeat>> {
    let Some(every) = every else {
        return Ok(None);
    };
    let bytes = copied(bytes).ok_or_else(|| Error::new(ErrorKind::NoMemory, "heartbeat"))?;
    Ok(Some(Heartbeat { bytes: Arc::new(bytes), every }))
}
