//! One suite through both APIs.
//!
//! A test is a generic function over [`Api`]; [`both_apis!`] makes a test of it for the
//! Rust API and, with the feature `capi`, one for the C API. What the two have in
//! common is written down here as traits, so a call that one of them lacked would not
//! compile.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{OwnedFd, RawFd};
use std::time::SystemTime;

use keepsock::{End, ErrorKind, Family, Framing, LengthPrefix};

#[cfg(feature = "capi")]
mod capi;
pub mod handshake;
mod help;
mod rust;
pub mod system;

#[cfg(feature = "capi")]
pub use capi::CApi;
pub use help::*;
pub use rust::RustApi;

/// Milliseconds that mean no limit, in both APIs.
pub const INFINITE: i64 = -1;

/// What either API says of a failed call.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: i32,
    pub message: String,
    pub operation: String,
    pub endpoint: String,
    /// For connect and listen: the step that failed.
    pub stage: Box<str>,
    /// 0 if it was not the system that failed the call.
    pub os_error: i32,
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
    Coalescing(bool),
    DeadAfter(i64),
    EndStalled(bool),
    SurviveIdle(i64),
    Heartbeat(&'a [u8], i64),
    IdleLimit(i64),
    FirstByteLimit(i64),
    LastSnapshot(bool),
    SaveSyn(bool),
    HandOver(bool),
    Cancel(&'a A::Token),
    UnixMode(u32),
    UnixOwner(Option<u32>, Option<u32>),
    AllowUser(u32),
    Sequenced(bool),
}

/// An option of serving.
#[derive(Clone, Copy)]
pub enum Serve {
    Max(u32),
    Refuse,
    PerAddress(u32),
    Allow(&'static str),
    Deny(&'static str),
    Threads(u32),
    Framing(Framing),
    MaxQueued(usize),
    DropOldest,
}

pub type OnEvent<A> = Box<dyn Fn(&<A as Api>::Connection) + Send + Sync>;
pub type OnData<A> = Box<dyn Fn(&<A as Api>::Connection, &[u8]) + Send + Sync>;
pub type OnClose<A> = Box<dyn Fn(&<A as Api>::Connection, End) + Send + Sync>;
pub type OnFailed = Box<dyn Fn(Failure, usize) + Send + Sync>;

/// The callbacks of event-driven serving; None is what the library does by itself.
pub struct On<A: Api> {
    pub open: Option<OnEvent<A>>,
    pub data: Option<OnData<A>>,
    pub writable: Option<OnEvent<A>>,
    pub finished: Option<OnEvent<A>>,
    pub timer: Option<OnEvent<A>>,
    pub drain: Option<OnEvent<A>>,
    pub close: Option<OnClose<A>>,
    pub connect_failed: Option<OnFailed>,
}

impl<A: Api> Default for On<A> {
    fn default() -> On<A> {
        On {
            open: None,
            data: None,
            writable: None,
            finished: None,
            timer: None,
            drain: None,
            close: None,
            connect_failed: None,
        }
    }
}

/// What a service has done; -1 is what is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    pub accepting: bool,
    pub connections: u32,
    pub opened: u64,
    pub closed: u64,
    pub received: i64,
    pub written: i64,
    pub sent: i64,
    pub queued: i64,
    pub dropped: i64,
    pub dropped_messages: i64,
    pub ends: Vec<(End, u64)>,
}

/// What a broadcast came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub sent: u32,
    pub cut: u32,
    pub dropped: u32,
}

/// What a serve handler is: it is lent the connection.
pub type Handler<A> = Box<dyn Fn(&<A as Api>::Client) + Send + Sync>;

/// What is told before a wait between two tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// None: a connection was lost.
    pub error: Option<Failure>,
    pub tries: u32,
    pub wait_ms: i64,
}

pub type OnRetry = Box<dyn FnMut(Told) + Send>;

/// Where calls begin.
#[allow(clippy::result_large_err)] // a descriptor and why it was refused
pub trait Api: Sized + 'static {
    type Client: Client<Self>;
    type Server: Server<Self>;
    type Token: Token;
    type Connecting: Connecting<Self>;
    type Service: Service<Self>;
    type Connection: Connection;
    type Reconnect: Reconnect<Self>;
    type Datagram: Datagrams<Self>;
    type DatagramService: DatagramService;
    type Inherited: Inherited<Self>;

    /// Tells the two apart where a test needs something of its own on this machine.
    const NUMBER: u8;

    fn connect(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Client>;
    fn listen(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Server>;
    fn listen_all(endpoints: &[&str], options: &[Opt<'_, Self>]) -> Outcome<Self::Server>;
    fn start(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Connecting>;
    /// Takes a descriptor over; on failure it is given back.
    fn adopt_client(
        fd: OwnedFd,
        options: &[Opt<'_, Self>],
    ) -> Result<Self::Client, (OwnedFd, Failure)>;
    fn adopt_server(
        fd: OwnedFd,
        options: &[Opt<'_, Self>],
    ) -> Result<Self::Server, (OwnedFd, Failure)>;
    fn bind(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Datagram>;
    fn connect_datagram(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Datagram>;
    fn adopt_datagram(
        fd: OwnedFd,
        options: &[Opt<'_, Self>],
    ) -> Result<Self::Datagram, (OwnedFd, Failure)>;
    fn token() -> Self::Token;
    fn reconnect(endpoint: &str, options: &[Opt<'_, Self>]) -> Outcome<Self::Reconnect>;
    fn take_inherited() -> Outcome<Self::Inherited>;
    /// To a program and its arguments, or to this one again; the number of its process.
    fn hand_over(
        argv: Option<&[&str]>,
        handed: &[(&str, Handed<'_, Self>)],
        limit_ms: i64,
        token: Option<&Self::Token>,
    ) -> Outcome<i64>;

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
}

pub trait Client<A: Api>: Send + Sync {
    fn read(&self, buf: &mut [u8]) -> Outcome<usize>;
    fn read_slices(&self, bufs: &mut [&mut [u8]]) -> Outcome<usize>;
    fn read_exact(&self, buf: &mut [u8]) -> Outcome<()>;
    fn read_until(&self, delimiter: u8, max: usize) -> Outcome<Vec<u8>>;
    fn read_line(&self, max: usize) -> Outcome<String>;
    fn read_message(&self, prefix: LengthPrefix, max: usize) -> Outcome<Vec<u8>>;
    fn write_message(&self, prefix: LengthPrefix, message: &[u8]) -> Outcome<()>;
    fn buffered(&self) -> usize;
    fn write(&self, buf: &[u8]) -> Outcome<usize>;
    fn write_all(&self, buf: &[u8]) -> Outcome<()>;
    fn write_slices(&self, bufs: &[&[u8]]) -> Outcome<()>;
    fn wait_hangup(&self, ms: i64) -> Outcome<End>;
    fn end(&self) -> Option<End>;
    /// Milliseconds to the next call, or [`INFINITE`].
    fn check_alive(&self) -> Outcome<i64>;
    fn snapshot(&self) -> Outcome<Snap>;
    /// The number of the state.
    fn state(&self) -> Outcome<i32>;
    fn user_timeout(&self) -> Outcome<i64>;
    fn is_mptcp(&self) -> bool;
    fn shutdown_write(&self) -> Outcome<()>;
    fn close(&self) -> Outcome<()>;
    fn abort(&self);
    /// Idle and interval in milliseconds, and the count.
    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>>;
    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()>;
    fn disable_keepalive(&self) -> Outcome<()>;
    fn set_read_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_write_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_close_timeout(&self, ms: i64);
    fn set_nonblocking(&self, on: bool) -> Outcome<()>;
    fn set_cancel(&self, token: Option<&A::Token>);
    fn five_tuple(&self) -> Tuple;
    fn name(&self) -> String;
    /// The number of the borrowed descriptor.
    fn fd(&self) -> Outcome<RawFd>;
    fn release(&self) -> Outcome<OwnedFd>;
    /// Another owner of the connection that a handler was lent.
    fn another(&self) -> A::Client;
    fn write_fds(&self, bytes: &[u8], fds: &[RawFd]) -> Outcome<usize>;
    fn read_fds(&self, cap: usize, max: usize) -> Outcome<Passed>;
    fn peer_credentials(&self) -> Outcome<Peer>;
    fn send_file(&self, file: RawFd, offset: u64, len: u64) -> Outcome<u64>;
}

/// Bytes, and the descriptors that came with them.
#[derive(Debug)]
pub struct Passed {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    pub lost: bool,
}

/// Who is at the other end; a process of -1 is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub pid: i64,
    pub uid: u32,
    pub gid: u32,
}

/// A connect under way.
pub trait Connecting<A: Api>: Sized {
    /// `None`: not yet.
    fn finish(&mut self) -> Outcome<Option<A::Client>>;
    fn wait(&mut self) -> Outcome<A::Client>;
    fn fd(&mut self) -> Outcome<RawFd>;
    fn timeout(&mut self) -> i64;
    fn attempts(&mut self) -> Vec<Tried>;
    /// Addresses, and the numbers of their states.
    fn under_way(&mut self) -> Vec<(String, i32)>;
}

/// A snapshot as C has it: -1 is what is not told, times are microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snap {
    pub state: i32,
    pub end: Option<End>,
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
}

/// What a server has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub accepted: u64,
    pub retried: u64,
    pub exhausted: u64,
    pub refused: u64,
    pub crowded: u64,
    pub denied: u64,
}

pub trait Server<A: Api>: Send + Sync {
    fn accept(&self) -> Outcome<A::Client>;
    fn endpoint(&self) -> String;
    fn endpoints(&self) -> Vec<String>;
    fn port(&self) -> u16;
    /// The number of the state.
    fn state(&self) -> i32;
    fn counters(&self) -> Counters;
    fn set_accept_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_nonblocking(&self, on: bool) -> Outcome<()>;
    fn set_cancel(&self, token: Option<&A::Token>);
    fn fd(&self) -> Outcome<RawFd>;
    fn fd_at(&self, index: usize) -> Outcome<RawFd>;
    fn release(&self) -> Outcome<OwnedFd>;
    fn close(&self);
    fn serve(&self, options: &[Serve], handler: Handler<A>) -> Outcome<A::Service>;
    fn serve_events(&self, options: &[Serve], on: On<A>) -> Outcome<A::Service>;
}

pub trait Token: Send + Sync + 'static {
    fn fire(&self);
    fn reset(&self);
    fn is_fired(&self) -> bool;
}

/// What was received, and what is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub bytes: Vec<u8>,
    pub original_len: usize,
    pub truncated: bool,
    /// Of a Unix socket the wildcard, and its name is in `sender`.
    pub from: SocketAddr,
    /// Printed.
    pub sender: String,
    pub to: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    /// 0: not told.
    pub interface: u32,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    pub received_at: Option<SystemTime>,
    pub credentials: Option<Peer>,
}

/// An error that was reported for a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    pub status: i32,
    pub os_error: i32,
    pub to: Option<SocketAddr>,
    pub from: Option<IpAddr>,
    pub path_mtu: Option<u32>,
}

/// What is known of a datagram socket; -1 is what is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatagramStats {
    pub dropped: i64,
    pub unread: i64,
    pub receive_buffer: i64,
    pub unsent: i64,
    pub send_buffer: i64,
    pub denied: i64,
    pub errors: i64,
    pub path_mtu: i64,
}

/// What is called for each datagram that is served, with the means to answer it.
pub type OnDatagram = Box<dyn Fn(&dyn Fn(&[u8]) -> Outcome<()>, &Got) + Send + Sync>;

/// A datagram socket.
pub trait Datagrams<A: Api>: Send + Sync {
    /// What a reply needs.
    type Info;

    fn send(&self, bytes: &[u8]) -> Outcome<()>;
    fn send_to(&self, bytes: &[u8], to: SocketAddr) -> Outcome<()>;
    fn reply(&self, question: &Self::Info, bytes: &[u8]) -> Outcome<()>;
    fn recv_info(&self, cap: usize) -> Outcome<(Got, Self::Info)>;
    fn recv(&self, cap: usize) -> Outcome<Got> {
        self.recv_info(cap).map(|(got, _)| got)
    }
    /// To the peer of a connected socket, or to an address.
    fn send_batch(&self, batch: &[(&[u8], Option<SocketAddr>)]) -> Outcome<usize>;
    fn reply_batch(&self, answers: &[(&Self::Info, &[u8])]) -> Outcome<usize>;
    /// With a buffer of each size.
    fn recv_batch(&self, caps: &[usize]) -> Outcome<Vec<Got>>;
    fn set_broadcast(&self, on: bool) -> Outcome<()>;
    fn join(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()>;
    fn leave(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()>;
    fn set_multicast_loop(&self, on: bool) -> Outcome<()>;
    fn set_multicast_ttl(&self, ttl: u8) -> Outcome<()>;
    fn set_multicast_interface(&self, name: &str) -> Outcome<()>;
    fn set_report_errors(&self, on: bool) -> Outcome<()>;
    fn recv_error(&self) -> Outcome<Option<Reported>>;
    fn error_count(&self) -> u64;
    fn endpoint(&self) -> String;
    fn name(&self) -> String;
    fn port(&self) -> u16;
    fn five_tuple(&self) -> Tuple;
    fn set_read_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_write_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_nonblocking(&self, on: bool) -> Outcome<()>;
    fn set_cancel(&self, token: Option<&A::Token>);
    fn fd(&self) -> Outcome<RawFd>;
    fn release(&self) -> Outcome<OwnedFd>;
    fn close(&self);
    fn send_to_endpoint(&self, bytes: &[u8], endpoint: &str) -> Outcome<()>;
    fn set_ttl(&self, ttl: u8) -> Outcome<()>;
    fn set_tos(&self, tos: u8) -> Outcome<()>;
    fn set_dont_fragment(&self, on: bool) -> Outcome<()>;
    fn path_mtu(&self) -> Outcome<u32>;
    fn set_details(&self, on: bool) -> Outcome<()>;
    fn snapshot(&self) -> Outcome<DatagramStats>;
    fn serve(&self, threads: u32, handler: OnDatagram) -> Outcome<A::DatagramService>;
    /// To the peer of a connected socket, or to an endpoint.
    fn send_fds(&self, bytes: &[u8], to: Option<&str>, fds: &[RawFd]) -> Outcome<()>;
    fn recv_fds(&self, cap: usize, max: usize) -> Outcome<(Got, Passed)>;
    /// By an interface.
    fn send_by(&self, bytes: &[u8], to: SocketAddr, interface: u32) -> Outcome<usize>;
    /// From an address.
    fn send_batch_from(&self, batch: &[&[u8]], to: SocketAddr, local: SocketAddr)
    -> Outcome<usize>;
}

/// A datagram socket that is served.
pub trait DatagramService: Send + Sync {
    fn received(&self) -> u64;
    fn stop(&self);
    fn wait(&self, ms: i64) -> Outcome<()>;
}

/// A connection that is served by events.
pub trait Connection: Send + Sync + Clone + 'static {
    fn send(&self, message: &[u8]) -> Outcome<()>;
    fn close(&self);
    fn abort(&self);
    fn shutdown_write(&self);
    fn pause(&self);
    fn resume(&self);
    fn queued(&self) -> usize;
    fn is_open(&self) -> bool;
    fn set_timer(&self, ms: i64) -> Outcome<()>;
    fn join(&self, group: &str) -> Outcome<()>;
    fn leave(&self, group: &str);
    fn set_data(&self, data: usize);
    /// 0: none.
    fn data(&self) -> usize;
    fn id(&self) -> u64;
    fn end(&self) -> Option<End>;
    fn five_tuple(&self) -> Outcome<Tuple>;
    fn name(&self) -> String;
    fn snapshot(&self) -> Outcome<Snap>;
    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>>;
    fn peer_credentials(&self) -> Outcome<Peer>;
}

pub trait Service<A: Api>: Send + Sync + 'static {
    fn connections(&self) -> u32;
    /// How many took it, and how many were cut.
    fn broadcast(&self, message: &[u8]) -> (u32, u32);
    fn stop(&self);
    fn wait(&self, ms: i64) -> Outcome<()>;
    /// How many finished, and how many were cut.
    fn drain(&self, limit_ms: i64) -> Outcome<(u32, u32)>;
    /// To all, or to a group.
    fn push(&self, group: Option<&str>, message: &[u8]) -> Outcome<Sent>;
    /// On failure the client is as it was. `data` above 0.
    fn add(&self, client: A::Client, data: usize) -> Result<(), (A::Client, Failure)>;
    fn connect(&self, endpoint: &str, options: &[Opt<'_, A>], data: usize) -> Outcome<()>;
    fn stats(&self) -> Stats;
    fn dump(&self) -> String;
    /// How many are left.
    fn finish(&self, limit_ms: i64) -> Outcome<u32>;
}

pub trait Reconnect<A: Api>: Send {
    fn set_back_off(&mut self, first_ms: i64, longest_ms: i64) -> Outcome<()>;
    fn set_limit(&mut self, ms: i64) -> Outcome<()>;
    fn on_retry(&mut self, told: OnRetry);
    fn reset(&mut self);
    fn connect(&mut self) -> Outcome<A::Client>;
}

/// What is handed over.
pub enum Handed<'a, A: Api> {
    Server(&'a A::Server),
    Datagram(&'a A::Datagram),
}

/// What a process was started with.
pub trait Inherited<A: Api> {
    fn listen(&mut self, endpoint: &str, options: &[Opt<'_, A>]) -> Outcome<A::Server>;
    fn server(&mut self, name: &str, options: &[Opt<'_, A>]) -> Outcome<A::Server>;
    fn datagram(&mut self, name: &str, options: &[Opt<'_, A>]) -> Outcome<A::Datagram>;
    fn bind(&mut self, endpoint: &str, options: &[Opt<'_, A>]) -> Outcome<A::Datagram>;
    fn names(&self) -> Vec<String>;
    fn ready(&mut self) -> Outcome<()>;
}

/// Makes each generic function a test of both APIs, with a hard limit of 30 s.
/// A function that is not named here is dead code, which the lints refuse.
#[macro_export]
macro_rules! both_apis {
    ($($name:ident),* $(,)?) => {
        mod rust {
            $(#[test] fn $name() {
                let _limit = $crate::common::Limit::new(concat!("rust::", stringify!($name)));
                super::$name::<$crate::common::RustApi>();
            })*
        }
        #[cfg(feature = "capi")]
        mod c {
            $(#[test] fn $name() {
                let _limit = $crate::common::Limit::new(concat!("c::", stringify!($name)));
                super::$name::<$crate::common::CApi>();
            })*
        }
    };
}

/// A server with one connection, both sides in our hands.
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

/// What reading, writing and closing are tested over.
pub const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Unix];

/// An endpoint to listen on, and the directory that it lives in.
pub fn somewhere(transport: Transport) -> (String, Option<TempDir>) {
    match transport {
        Transport::Tcp => ("127.0.0.1:0".to_owned(), None),
        Transport::Unix => {
            let dir = TempDir::new();
            (dir.endpoint("s"), Some(dir))
        }
    }
}

/// A connection whose sides do not wait for each other when they are closed: tests
/// drop both in one thread.
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

/// A connection to a peer of the standard library.
pub fn with_raw_peer<A: Api>(options: &[Opt<'_, A>]) -> (A::Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let client = A::connect(&endpoint, options).unwrap();
    let (peer, _) = listener.accept().unwrap();
    (client, peer)
}

/// That a call failed, and how.
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
