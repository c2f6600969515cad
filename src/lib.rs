//! TCP, Unix and UDP sockets with keepalive, deadlines, dead-peer detection and clear errors, and
//! servers for one connection per thread or for thousands on one thread.
//!
//! - [`ClientSocket`] is one connection, from a connect or from an accept:
//!   [`read`](ClientSocket::read), [`write_all`](ClientSocket::write_all),
//!   [`read_line`](ClientSocket::read_line), [`close`](ClientSocket::close). [`PendingConnect`]
//!   connects without waiting.
//! - [`ServerSocket`] listens. [`accept`](ServerSocket::accept) is for a loop of the program.
//!   [`serve`](ServerSocket::serve) runs a thread for each connection.
//!   [`serve_events`](ServerSocket::serve_events) runs event loops for many connections, to which
//!   any thread can send at any time.
//! - [`DatagramSocket`] is a UDP or Unix datagram socket, bound or connected: batches, replies from
//!   the address that the request was sent to, multicast.
//! - [`SocketOptions`] are set before a socket is created: [`Keepalive`], timeouts, local address.
//!   A [`CancelToken`] cancels calls from another thread or a signal handler.
//! - [`Activation`] returns listeners that a service manager or a predecessor passed to this
//!   process. [`Handover`] replaces a running server, and no client is refused.
//! - [`Reconnect`] connects again after a connection was lost, with exponential backoff.
//! - [`ClientSocket::saved_syn`] and [`Capture`] show how a connection was established: its SYN, or
//!   the whole three-way [`Handshake`].
//! - [`Error`] has a kind for programs and a one-line text for people.
//!
//! ```
//! # #[cfg(feature = "serve")] {
//! use keepsock::{ClientSocket, ServerSocket};
//!
//! let server = ServerSocket::listen("127.0.0.1:0")?;
//! let service = server.serve(|client| {
//!     let _ = client.write_all(b"hello\n");
//! })?;
//! let client = ClientSocket::connect(server.endpoint())?;
//! println!("{}", client.five_tuple());      // tcp 127.0.0.1:3337 -> 127.0.0.1:7788
//! assert_eq!(client.read_line(100)?, "hello");
//! # }
//! # Ok::<(), keepsock::Error>(())
//! ```
//!
//! # Defaults
//!
//! Keepalive (45 s, 15 s, 5: a dead idle peer is detected within two minutes, and common firewalls
//! and NATs keep the connection), TCP_NODELAY, close-on-exec, a connect timeout of 30 s, graceful
//! close. No call raises SIGPIPE, and no signal disposition is changed.
//!
//! # Threads
//!
//! Several threads may use a value of every type at the same time. Any thread may call
//! [`close`](ClientSocket::close) while other threads are in calls.
//!
//! # Logging
//!
//! Events are emitted through the facade of the crate `log`, so the program needs a logger to
//! receive them. A logger may call this crate, also on the socket of the event. Events contain no
//! transferred data. Their messages may change between versions.
//!
//! | level | target | events |
//! |---|---|---|
//! | error | `keepsock::serve` | a handler panicked; a service stopped accepting or receiving |
//! | warn | `keepsock::accept` | descriptors, memory or threads are exhausted; a connection was rejected, because the service is full or the client is not allowed |
//! | warn | `keepsock::serve` | a slow consumer was reset |
//! | warn | `keepsock::serve` | a datagram service retries after a transient error |
//! | warn | `keepsock::lookup` | the thread of an abandoned lookup still waits for the resolver |
//! | info | `keepsock::listen` | a listener started, was closed, or was handed over to another process |
//! | info | `keepsock::serve` | a drain started, or ended with these counts |
//! | info | `keepsock::connection` | a connection was lost: reset, dead, unreachable, stalled, or a timeout |
//! | debug | `keepsock::lookup` | a lookup, and its answer |
//! | debug | `keepsock::connect` | each attempt and its result; the connection |
//! | debug | `keepsock::accept` | an accept failed and is retried |
//! | trace | `keepsock::accept`, `keepsock::connection` | each accepted connection; each closed connection |
//!
//! The events of `keepsock::accept` of level debug and above are limited to one in 5 s for each
//! kind and listener. The message contains the number of suppressed events.
//!
//! # Platforms
//!
//! keepsock is tested and measured on Linux. For Windows it is tested under Wine. For macOS and
//! FreeBSD it is type-checked and linked. Features that a platform lacks return
//! [`ErrorKind::Unsupported`]. On Windows a close from another thread does not wake every waiting
//! call, so waiting calls check for it every 25 ms.
//!
//! # Cargo features
//!
//! The core connects, listens, accepts, reads and writes, with all options, errors and cancel
//! tokens. Features add the rest. All of them except `capi` are on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `serve` | [`Service`], [`ServeOptions`], [`Handler`], [`Connection`] |
//! | `datagram` | [`DatagramSocket`], and with `serve` also [`DatagramService`] |
//! | `activation` | [`Activation`], [`Handover`] |
//! | `diag` | [`ClientSocket::saved_syn`], [`Capture`], [`Handshake`] |
//! | `capi` | the C functions of these features |
//!
//! # The C API
//!
//! The feature `capi` adds the C functions, which call the Rust API. The headers under `include/` are
//! their manual. The headers declare the functions of all features. A program that calls a function
//! of a feature that the library was built without fails to link.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "activation")]
mod activation;
mod bind;
mod connect;
#[cfg(feature = "datagram")]
mod datagram;
#[cfg(feature = "diag")]
mod diag;
#[cfg(feature = "capi")]
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod ffi;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "capi")]
mod internal;
mod io;
mod listener;
mod log;
mod lookup;
#[cfg(any(test, doctest))]
mod manual;
mod options;
#[cfg(test)]
mod properties;
mod reconnect;
mod resolve;
#[cfg(feature = "serve")]
mod serve;
mod socket_file;
mod stream;
#[allow(unsafe_code)]
mod sys;
mod types;

#[cfg(feature = "activation")]
#[cfg_attr(docsrs, doc(cfg(feature = "activation")))]
pub use activation::handover::Handover;
#[cfg(feature = "activation")]
#[cfg_attr(docsrs, doc(cfg(feature = "activation")))]
pub use activation::inherited::Activation;
pub use connect::{AttemptInProgress, PendingConnect, Watch};
#[cfg(all(feature = "datagram", feature = "serve"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "datagram", feature = "serve"))))]
pub use datagram::DatagramService;
#[cfg(feature = "datagram")]
#[cfg_attr(docsrs, doc(cfg(feature = "datagram")))]
pub use datagram::{Datagram, DatagramError, DatagramSocket, DatagramStats, Incoming, Outgoing};
#[cfg(feature = "diag")]
#[cfg_attr(docsrs, doc(cfg(feature = "diag")))]
pub use diag::capture::Capture;
#[cfg(feature = "diag")]
#[cfg_attr(docsrs, doc(cfg(feature = "diag")))]
pub use diag::handshake::{Handshake, HandshakeStep, Segment, TcpFlags, TcpOption};
pub use io::cancel::CancelToken;
pub use listener::{ServerSocket, ServerStats};
pub use lookup::{PendingLookup, lookup};
pub use options::SocketOptions;
pub use reconnect::{Reconnect, Retry};
#[cfg(feature = "serve")]
#[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
pub use serve::{
    AcceptPolicy, Broadcast, Connection, Data, Drained, Handler, OverflowPolicy, ServeOptions,
    Service, ServiceStats, TrafficStats,
};
pub use stream::stats::ConnectionStats;
pub use stream::{BorrowedSocket, ClientSocket, Received};
#[cfg(all(feature = "failpoints", keepsock_linux, target_env = "gnu"))]
#[doc(hidden)]
pub use sys::failpoints;
pub use types::address::{Address, Family, FiveTuple, Protocol};
pub use types::close_reason::CloseReason;
pub use types::credentials::Credentials;
pub use types::endpoint::Endpoint;
pub use types::error::{Attempt, Error, ErrorKind, Result, Stage};
pub use types::framing::{Framing, LengthFormat};
pub use types::keepalive::Keepalive;
pub use types::proxy::ProxyHeader;
pub use types::sockopt::Sockopt;
pub use types::tcp_state::TcpState;
