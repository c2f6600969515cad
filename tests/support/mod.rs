//! One suite through both APIs.
//!
//! A test is a generic function over [`Api`]. [`both_apis!`] makes it a test of the Rust API and,
//! with the feature `capi`, one of the C API. The traits contain the functions that both APIs
//! have, so a missing function would not compile.

// Each test program uses a part of this module. tests/architecture.rs finds what no program uses.
#![allow(dead_code, unused_imports, unused_macros)]

use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};

use keepsock::{CloseReason, ErrorKind, Family, Framing, Sockopt};

use os::{OwnedFd, RawFd};

#[cfg(feature = "activation")]
mod activation;
#[cfg(feature = "capi")]
pub mod capi;
#[cfg(feature = "datagram")]
mod datagram;
pub mod ends;
#[cfg(all(unix, feature = "diag"))]
pub mod handshake;
#[cfg(feature = "capi")]
pub mod header;
mod help;
#[cfg(windows)]
#[path = "windows/lacks.rs"]
mod lacks;
#[cfg(unix)]
pub mod limits;
#[cfg(windows)]
#[path = "windows/linux_only.rs"]
mod linux_only;
#[cfg(unix)]
pub mod netns;
pub mod os;
pub mod portable;
#[cfg_attr(windows, path = "windows/process.rs")]
pub mod process;
#[cfg(unix)]
pub mod resources;
mod rust;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "capi")]
pub mod statuses;
#[cfg(all(unix, feature = "serve"))]
pub mod stress;
#[cfg_attr(windows, path = "windows/system.rs")]
pub mod system;
pub mod timing;
#[cfg(unix)]
pub mod watch;

#[cfg(unix)]
pub use ::libc;
#[cfg(feature = "activation")]
pub use activation::*;
#[cfg(feature = "capi")]
pub use capi::CApi;
#[cfg(feature = "datagram")]
pub use datagram::*;
pub use help::*;
#[cfg(windows)]
pub use linux_only::{limits, netns, watch};
pub use rust::RustApi;
#[cfg(feature = "serve")]
pub use serve::*;
#[cfg(windows)]
pub use system::libc;

/// The number of milliseconds that means no timeout, in both APIs.
pub const INFINITE: i64 = -1;

/// A failed call, as either API reports it.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: i32,
    pub message: Box<str>,
    pub operation: Box<str>,
    pub endpoint: String,
    /// For connect and listen: the step that failed.
    pub stage: Box<str>,
    /// 0 if no system call failed.
    pub os_error: i32,
    pub errno: i32,
    /// 0 if no name lookup failed.
    pub lookup_code: i32,
    pub transferred: usize,
    pub attempts: Box<[Tried]>,
}

/// One attempt of a failed connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub address: String,
    pub stage: String,
    pub status: i32,
    pub os_error: i32,
    pub elapsed_us: i64,
}

impl Failure {
    pub fn is(&self, kind: ErrorKind) -> bool {
        self.status == kind.code()
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.status)
    }
}

pub type Outcome<T> = Result<T, Failure>;

/// An option of a socket. Times are milliseconds or [`INFINITE`].
pub enum Opt<'a, A: Api> {
    Keepalive(i64, i64, u32),
    NoKeepalive,
    Nodelay(bool),
    ConnectTimeout(i64),
    ReadTimeout(i64),
    WriteTimeout(i64),
    CloseTimeout(i64),
    Family(Family),
    Local(&'a str),
    Interface(&'a str),
    Address(SocketAddr),
    Backlog(u32),
    AttemptDelay(i64),
    FastOpen(bool),
    Mptcp(bool),
    #[cfg(feature = "datagram")]
    UdpGro(bool),
    DeadAfter(i64),
    FailOnStall(bool),
    MiddleboxTimeout(i64),
    Heartbeat(&'a [u8], i64),
    HeartbeatTimeout(i64),
    IdleTimeout(i64),
    IdleReceiveOnly(bool),
    FirstByteTimeout(i64),
    KeepStats(bool),
    #[cfg(feature = "diag")]
    SaveSyn(bool),
    #[cfg(feature = "activation")]
    Handover(bool),
    Cancel(&'a A::Token),
    UnixMode(u32),
    UnixOwner(Option<u32>, Option<u32>),
    AllowUid(u32),
    Seqpacket(bool),
    PreferredFamily(Family),
    TrustedProxy(&'a str),
    ProxyTimeout(i64),
    /// The version, and the addresses of the client.
    ProxyHeader(i32, Option<(SocketAddr, SocketAddr)>),
    Sockopt(Sockopt, u32),
    CongestionControl(&'a str),
    /// The defaults of the options that have a value for it other than a number: local endpoint,
    /// interface, congestion control, backlog, mode and owner.
    Defaults,
    /// Level, name and value of setsockopt(2).
    RawSockopt(i32, i32, &'a [u8]),
}

/// The arguments of the retry callback, which runs before the wait between two attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// None: an open connection was lost.
    pub error: Option<Failure>,
    pub tries: u32,
    pub wait_ms: i64,
}

pub type OnRetry = Box<dyn FnMut(Told) + Send>;

/// The functions that create objects.
#[allow(clippy::result_large_err)] // a descriptor and the error of its adoption
pub trait Api: Sized + 'static {
    type Client: Client<Self>;
    type Server: Server<Self>;
    type Token: Token;
    type PendingConnect: PendingConnect<Self>;
    type PendingLookup: PendingLookup;
    #[cfg(feature = "serve")]
    type Service: Service<Self>;
    #[cfg(feature = "serve")]
    type Connection: Connection<Client = Self::Client>;
    type Reconnect: Reconnect<Self>;
    #[cfg(feature = "datagram")]
    type Datagram: Datagrams<Self>;
    #[cfg(all(feature = "datagram", feature = "serve"))]
    type DatagramService: DatagramService;
    #[cfg(feature = "activation")]
    type Activation: Activation<Self>;

    /// Identifies the API, for tests that need their own name or address per API.
    const NUMBER: u8;

    fn connect(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Client>;
    fn connect_host(host: &str, port: u16, options: &[Opt<'_, Self>]) -> Outcome<Self::Client>;
    fn listen(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Server>;
    fn listen_all(endpoints: &[&str], options: &[Opt<'_, Self>]) -> Outcome<Self::Server>;
    fn start(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::PendingConnect>;
    fn lookup(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Vec<SocketAddr>>;
    fn start_lookup(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::PendingLookup>;
    /// Adopts a descriptor. On failure the caller gets it back.
    fn adopt_client(
        fd: OwnedFd,
        options: &[Opt<'_, Self>],
    ) -> Result<Self::Client, (OwnedFd, Failure)>;
    fn adopt_server(
        fd: OwnedFd,
        options: &[Opt<'_, Self>],
    ) -> Result<Self::Server, (OwnedFd, Failure)>;
    fn try_token() -> Outcome<Self::Token>;
    fn token() -> Self::Token {
        Self::try_token().unwrap()
    }
    fn reconnect(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Reconnect>;
    /// A loopback address that no other test uses.
    fn own_address(test: u8) -> String {
        format!("127.83.{}.{test}", Self::NUMBER)
    }
}

/// Protocol, and host and port of both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple {
    pub protocol: i32,
    pub local: (String, u16),
    pub remote: (String, u16),
    pub text: String,
}

pub trait Client<A: Api>: Send + Sync + 'static {
    fn read(&self, buf: &mut [u8]) -> Outcome<usize>;
    fn peek(&self, buf: &mut [u8]) -> Outcome<usize>;
    fn read_slices(&self, bufs: &mut [&mut [u8]]) -> Outcome<usize>;
    fn read_exact(&self, buf: &mut [u8]) -> Outcome<()>;
    fn read_until(&self, delimiter: u8, max: usize) -> Outcome<Vec<u8>>;
    fn read_line(&self, max: usize) -> Outcome<String>;
    fn read_message(&self, framing: &Framing) -> Outcome<Vec<u8>>;
    fn write_message(&self, framing: &Framing, message: &[u8]) -> Outcome<()>;
    fn buffered(&self) -> usize;
    fn write(&self, buf: &[u8]) -> Outcome<usize>;
    fn write_all(&self, buf: &[u8]) -> Outcome<()>;
    fn write_slices(&self, bufs: &[&[u8]]) -> Outcome<()>;
    fn wait_hangup(&self, ms: i64) -> Outcome<CloseReason>;
    fn close_reason(&self) -> Option<CloseReason>;
    /// Milliseconds until the next call, or [`INFINITE`].
    fn check_liveness(&self) -> Outcome<i64>;
    fn stats(&self) -> Outcome<ConnStats>;
    fn state(&self) -> Outcome<i32> {
        Ok(self.stats()?.state)
    }
    fn shutdown_write(&self) -> Outcome<()>;
    fn close(&self) -> Outcome<()>;
    fn abort(&self);
    /// Idle and interval in milliseconds, and the count.
    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>>;
    /// The values that the kernel has, also while keepalive is off.
    fn keepalive_values(&self) -> Outcome<(i64, i64, u32)>;
    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()>;
    fn disable_keepalive(&self) -> Outcome<()>;
    fn set_dead_after(&self, ms: i64) -> Outcome<()>;
    fn set_idle_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_heartbeat(&self, bytes: &[u8], every_ms: i64) -> Outcome<()>;
    fn set_heartbeat_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_read_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_write_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_close_timeout(&self, ms: i64);
    fn set_nonblocking(&self, on: bool) -> Outcome<()>;
    fn set_cancel(&self, token: Option<&A::Token>);
    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()>;
    fn sockopt(&self, option: Sockopt) -> Outcome<u32>;
    fn five_tuple(&self) -> Tuple;
    fn read_proxy_header(&self) -> Outcome<()>;
    fn proxy_address(&self) -> Option<String>;
    fn name(&self) -> String {
        self.five_tuple().text
    }
    /// The number of the borrowed descriptor.
    fn fd(&self) -> Outcome<RawFd>;
    fn release(&self) -> Outcome<OwnedFd>;
    /// Returns another owner of the connection.
    fn another(&self) -> A::Client;
    fn write_fds(&self, bytes: &[u8], fds: &[RawFd]) -> Outcome<usize>;
    fn read_fds(&self, cap: usize, max: usize) -> Outcome<Passed>;
    fn peer_credentials(&self) -> Outcome<Peer>;
    fn send_file(&self, file: RawFd, offset: u64, len: u64) -> Outcome<u64>;
}

/// Bytes, and the descriptors that arrived with them.
#[derive(Debug)]
pub struct Passed {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    pub truncated: bool,
}

/// The peer's credentials. A process ID of -1 is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub pid: i64,
    pub uid: u32,
    pub gid: u32,
}

/// A pending connect.
pub trait PendingConnect<A: Api>: Sized {
    /// `None`: the connect is still in progress.
    fn finish(&mut self) -> Outcome<Option<A::Client>>;
    fn wait(&mut self) -> Outcome<A::Client>;
    fn fd(&mut self) -> Outcome<RawFd>;
    fn socket(&mut self) -> Outcome<RawFd>;
    fn set_watch(&mut self, watch: WatchFn) -> Outcome<()>;
    fn timeout(&mut self) -> i64;
    fn attempts(&mut self) -> Vec<Tried>;
    /// Addresses, and the numbers of their states.
    /// The address, the TCP state, and the time in microseconds.
    fn attempts_in_progress(&mut self) -> Vec<(String, i32, i64)>;
}

pub trait PendingLookup: Sized {
    /// `None`: the lookup is still in progress.
    fn finish(&mut self) -> Outcome<Option<Vec<SocketAddr>>>;
    fn wait(&mut self) -> Outcome<Vec<SocketAddr>>;
    fn fd(&mut self) -> Outcome<RawFd>;
    fn timeout(&mut self) -> i64;
}

/// A report of a connect in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    Readable(RawFd),
    Writable(RawFd),
    Remove(RawFd),
    Timeout(i64),
}

pub type WatchFn = Box<dyn FnMut(Watched) + Send>;

/// A connection's statistics as in C: -1 means not available, times are microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnStats {
    pub state: i32,
    pub close_reason: Option<CloseReason>,
    pub rtt_us: i64,
    pub rtt_variation_us: i64,
    pub min_rtt_us: i64,
    pub last_sent_us: i64,
    pub last_received_us: i64,
    pub retransmits: i64,
    pub unacknowledged: i64,
    pub unsent: i64,
    pub unread: i64,
    pub bytes_sent: i64,
    pub bytes_received: i64,
    pub segments_sent: i64,
    pub segments_received: i64,
    pub mss: i64,
    pub congestion_window: i64,
    pub peer_window: i64,
    pub heartbeats: i64,
    pub congestion_control: String,
    pub user_timeout_ms: i64,
    pub is_mptcp: bool,
}

/// The statistics of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub accepted: u64,
    pub retried: u64,
    pub exhausted: u64,
    pub rejected: u64,
    pub over_address_limit: u64,
    pub denied: u64,
    pub proxy_rejected: u64,
}

pub trait Server<A: Api>: Send + Sync + 'static {
    fn accept(&self) -> Outcome<A::Client>;
    fn endpoint(&self) -> String;
    fn endpoints(&self) -> Vec<String>;
    fn port(&self) -> u16;
    fn is_closed(&self) -> bool {
        self.fd().is_err_and(|failure| failure.is(ErrorKind::Closed))
    }
    fn stats(&self) -> Counters;
    fn set_accept_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_nonblocking(&self, on: bool) -> Outcome<()>;
    fn set_cancel(&self, token: Option<&A::Token>) -> Outcome<()>;
    fn fd(&self) -> Outcome<RawFd>;
    fn fd_at(&self, index: usize) -> Outcome<RawFd>;
    fn release(&self) -> Outcome<OwnedFd>;
    fn close(&self);
    #[cfg(feature = "serve")]
    fn serve(&self, options: &[Serve], handler: Handler<A>) -> Outcome<A::Service>;
    #[cfg(feature = "serve")]
    fn serve_events(&self, options: &[Serve], on: On<A>) -> Outcome<A::Service>;
}

pub trait Token: Send + Sync + 'static {
    fn fd(&self) -> Outcome<RawFd>;
    fn fire(&self);
    fn reset(&self);
    fn is_fired(&self) -> bool;
}

pub trait Reconnect<A: Api>: Send {
    fn set_backoff(&mut self, first_ms: i64, longest_ms: i64) -> Outcome<()>;
    fn set_limit(&mut self, ms: i64) -> Outcome<()>;
    fn on_retry(&mut self, told: OnRetry);
    fn reset(&mut self);
    fn connect(&mut self) -> Outcome<A::Client>;
    /// `None`: the connect is still in progress.
    fn try_connect(&mut self) -> Outcome<Option<A::Client>>;
    fn next_timeout(&mut self) -> i64;
    fn set_watch(&mut self, watch: WatchFn);
}

/// Makes each generic function a test of both APIs, with a hard limit. A group in braces
/// needs the feature of its attribute. A function that is not listed is dead code, which the lints
/// reject.
macro_rules! both_apis {
    ($($name:ident),* $(,)? $(#[$cfg:meta] { $($gated:ident),* $(,)? })*) => {
        mod rust {
            $(both_apis!(@ $name, $crate::support::RustApi);)*
            $($(#[$cfg] both_apis!(@ $gated, $crate::support::RustApi);)*)*
        }
        #[cfg(feature = "capi")]
        mod c {
            $(both_apis!(@ $name, $crate::support::CApi);)*
            $($(#[$cfg] both_apis!(@ $gated, $crate::support::CApi);)*)*
        }
    };
    (@ $name:ident, $api:ty) => {
        #[test] fn $name() {
            if $crate::support::portable::skips(module_path!(), stringify!($name)) {
                return;
            }
            $crate::support::run(concat!(module_path!(), "::", stringify!($name)), super::$name::<$api>);
        }
    };
}

/// The name by which the test program selects a test of the calling module: `test_name!("test")`, or
/// `test_name!(A, "test")` for a test that [`both_apis!`] made for the API `A`.
macro_rules! test_name {
    ($test:expr) => {
        $crate::support::path_of(module_path!(), "", $test)
    };
    ($api:ty, $test:expr) => {
        $crate::support::path_of(module_path!(), $crate::support::module_of::<$api>(), $test)
    };
}

/// A server with one connection, of which the test holds both sides.
pub struct Pair<A: Api> {
    pub client: A::Client,
    pub accepted: A::Client,
    pub server: A::Server,
    _dir: Option<TempDir>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Unix,
}

/// The transports of tests that read, write and close.
#[cfg(unix)]
pub const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Unix];
#[cfg(windows)]
pub const TRANSPORTS: [Transport; 1] = [Transport::Tcp];

/// Returns an endpoint to listen on, and the directory that contains it.
pub fn somewhere(transport: Transport) -> (String, Option<TempDir>) {
    match transport {
        Transport::Tcp => ("127.0.0.1:0".to_owned(), None),
        Transport::Unix => {
            let dir = TempDir::new();
            (dir.endpoint("s"), Some(dir))
        }
    }
}

/// Returns a connection whose sides do not wait for each other when they close, because tests drop
/// both in one thread.
pub fn pair<A: Api>(transport: Transport) -> Pair<A> {
    pair_with(transport, &[Opt::CloseTimeout(0)])
}

pub fn pair_with<A: Api>(transport: Transport, options: &[Opt<'_, A>]) -> Pair<A> {
    let (endpoint, dir) = somewhere(transport);
    let server = A::listen(&endpoint, options).unwrap();
    let client = A::connect(&server.endpoint(), options).unwrap();
    let accepted = server.accept().unwrap();
    Pair { client, accepted, server, _dir: dir }
}

/// Returns a connection whose client has the options. The peer has none.
pub fn limited_pair<A: Api>(transport: Transport, options: &[Opt<'_, A>]) -> Pair<A> {
    let (endpoint, dir) = somewhere(transport);
    let server = A::listen(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
    let client = A::connect(&server.endpoint(), options).unwrap();
    let accepted = server.accept().unwrap();
    Pair { client, accepted, server, _dir: dir }
}

/// Returns a connection to a peer of the standard library.
pub fn with_raw_peer<A: Api>(options: &[Opt<'_, A>]) -> (A::Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let client = A::connect(&endpoint, options).unwrap();
    let (peer, _) = listener.accept().unwrap();
    (client, peer)
}

/// Checks that a call failed, and with which error.
#[track_caller]
pub fn fails<T>(outcome: Outcome<T>, kind: ErrorKind) -> Failure {
    match outcome {
        Ok(_) => panic!("expected {kind:?}, but it succeeded"),
        Err(failure) => {
            assert_eq!(failure.status, kind.code(), "expected {kind:?}: {failure:?}");
            failure
        }
    }
}
