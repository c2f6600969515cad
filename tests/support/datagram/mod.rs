//! Datagram sockets, in the form of either API.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use keepsock::Sockopt;

#[cfg(feature = "serve")]
use super::Serve;
use super::os::{OwnedFd, RawFd};
use super::{Api, Failure, Opt, Outcome, Passed, Peer, Tuple};

#[cfg(feature = "capi")]
pub mod capi;
pub mod rust;

/// A received datagram and its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub bytes: Vec<u8>,
    pub original_len: usize,
    pub truncated: bool,
    /// The wildcard address for a Unix socket, whose name is in `sender`.
    pub from: SocketAddr,
    /// The printed text.
    pub sender: String,
    pub to: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    /// 0: not available.
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

/// The statistics of a datagram socket. -1 means not available.
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
    pub retried: i64,
    pub served: i64,
}

/// The handler that a service calls for each datagram, with the means to reply.
#[cfg(feature = "serve")]
pub type OnDatagram = Box<dyn Fn(&dyn Fn(&[u8]) -> Outcome<()>, &Got) + Send + Sync>;

/// A datagram socket.
#[allow(clippy::result_large_err)] // a descriptor and the error of its adoption
pub trait Datagrams<A: Api>: Send + Sync + Sized + 'static {
    fn bind(endpoint: &str, options: &[Opt<'_, A>]) -> Outcome<Self>;
    fn connect(endpoint: &str, options: &[Opt<'_, A>]) -> Outcome<Self>;
    fn adopt(fd: OwnedFd, options: &[Opt<'_, A>]) -> Result<Self, (OwnedFd, Failure)>;

    /// The metadata that a reply needs.
    type Info;

    fn send(&self, bytes: &[u8]) -> Outcome<()>;
    fn send_to(&self, bytes: &[u8], to: SocketAddr) -> Outcome<()>;
    fn reply(&self, reply_to: &Self::Info, bytes: &[u8]) -> Outcome<()>;
    fn recv_info(&self, cap: usize) -> Outcome<(Got, Self::Info)>;
    fn recv(&self, cap: usize) -> Outcome<Got> {
        self.recv_info(cap).map(|(got, _)| got)
    }
    /// Sends to the peer of a connected socket, or to an address.
    fn send_batch(&self, batch: &[(&[u8], Option<SocketAddr>)]) -> Outcome<usize>;
    fn reply_batch(&self, answers: &[(&Self::Info, &[u8])]) -> Outcome<usize>;
    /// Receives with one buffer of each size.
    fn recv_batch(&self, caps: &[usize]) -> Outcome<Vec<Got>>;
    fn set_broadcast(&self, on: bool) -> Outcome<()>;
    fn join(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()>;
    fn leave(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()>;
    fn set_multicast_loop(&self, on: bool) -> Outcome<()>;
    fn set_multicast_ttl(&self, ttl: u8) -> Outcome<()>;
    fn set_multicast_interface(&self, name: &str) -> Outcome<()>;
    fn set_recv_errors(&self, on: bool) -> Outcome<()>;
    fn set_fail_on_refused(&self, on: bool) -> Outcome<()>;
    /// Connects a bound socket.
    fn set_peer(&self, peer: SocketAddr) -> Outcome<()>;
    fn set_peer_endpoint(&self, endpoint: &str) -> Outcome<()>;
    fn peek(&self, cap: usize) -> Outcome<Got>;
    /// The text of the sender.
    fn sender_of(info: &Self::Info) -> String;
    fn recv_error(&self) -> Outcome<Option<Reported>>;
    fn error_count(&self) -> u64;
    fn endpoint(&self) -> String;
    fn name(&self) -> String {
        self.five_tuple().text
    }
    fn port(&self) -> u16;
    fn five_tuple(&self) -> Tuple;
    fn set_read_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_write_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_nonblocking(&self, on: bool) -> Outcome<()>;
    fn set_cancel(&self, token: Option<&A::Token>) -> Outcome<()>;
    fn fd(&self) -> Outcome<RawFd>;
    fn release(&self) -> Outcome<OwnedFd>;
    fn close(&self);
    fn send_to_endpoint(&self, bytes: &[u8], endpoint: &str) -> Outcome<()>;
    fn set_ttl(&self, ttl: u8) -> Outcome<()>;
    fn set_tos(&self, tos: u8) -> Outcome<()>;
    fn set_dont_fragment(&self, on: bool) -> Outcome<()>;
    fn set_recv_metadata(&self, on: bool) -> Outcome<()>;
    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()>;
    fn sockopt(&self, option: Sockopt) -> Outcome<u32>;
    fn stats(&self) -> Outcome<DatagramStats>;
    #[cfg(feature = "serve")]
    fn serve_with(&self, options: &[Serve], handler: OnDatagram) -> Outcome<A::DatagramService>;
    #[cfg(feature = "serve")]
    fn serve(&self, threads: u32, handler: OnDatagram) -> Outcome<A::DatagramService> {
        self.serve_with(&[Serve::Threads(threads)], handler)
    }
    /// Adds the socket to a service.
    #[cfg(feature = "serve")]
    fn add_to(&self, service: &A::DatagramService) -> Outcome<()>;
    /// Sends to the peer of a connected socket, or to an endpoint.
    fn send_fds(&self, bytes: &[u8], to: Option<&str>, fds: &[RawFd]) -> Outcome<()>;
    fn recv_fds(&self, cap: usize, max: usize) -> Outcome<(Got, Passed)>;
    /// Sends through an interface.
    fn send_by(&self, bytes: &[u8], to: SocketAddr, interface: u32) -> Outcome<usize>;
    /// Sends from a local address.
    fn send_batch_from(&self, batch: &[&[u8]], to: SocketAddr, local: SocketAddr)
    -> Outcome<usize>;
}

/// A service of a datagram socket.
#[cfg(feature = "serve")]
pub trait DatagramService: Send + Sync {
    fn stop(&self);
    fn wait(&self, ms: i64) -> Outcome<()>;
}
