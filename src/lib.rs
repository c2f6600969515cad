//! Sockets that stay alive: listen, connect and accept with keepalive tuning,
//! deadlines and errors one can act on, over TCP and Unix sockets; and UDP.
//!
//! - [`ClientSocket`] asks for a connection, or is one that a server accepted:
//!   [`read`](ClientSocket::read), [`write_all`](ClientSocket::write_all),
//!   [`read_line`](ClientSocket::read_line), [`close`](ClientSocket::close).
//! - [`ServerSocket`] listens: [`accept`](ServerSocket::accept) for a loop of
//!   your own, [`serve`](ServerSocket::serve) for a thread for each connection,
//!   [`serve_events`](ServerSocket::serve_events) for many connections on few threads, which
//!   are pushed to at any moment.
//! - [`DatagramSocket`] is UDP, bound or connected: replies from the address that was asked,
//!   batches, multicast.
//! - [`SocketOptions`] are set before there is a descriptor: [`Keepalive`],
//!   timeouts, local address. [`CancelToken`] ends a call from outside.
//! - [`Inherited`] listeners come from a service manager, or from a predecessor: [`HandOver`]
//!   replaces a server while it runs, and nobody is refused.
//! - [`Reconnect`] connects again after the connection was lost, with exponential back-off.
//! - [`ClientSocket::syn`] and [`Capture`] show how a connection began: the SYN that opened
//!   it, or the whole three-way [`Handshake`].
//! - [`Error`] is a kind for programs and a sentence for people.
//!
//! ```
//! use keepsock::{ClientSocket, ServerSocket};
//!
//! let server = ServerSocket::listen("127.0.0.1:0")?;
//! let service = server.serve(|client| {
//!     let _ = client.write_all(b"hello\n");
//! })?;
//! let client = ClientSocket::connect(server.endpoint())?;
//! println!("{}", client.five_tuple());      // tcp 127.0.0.1:3337 -> 127.0.0.1:7788
//! assert_eq!(client.read_line(100)?, "hello");
//! # Ok::<(), keepsock::Error>(())
//! ```
//!
//! # What is on without asking
//!
//! Keepalive (45 s, 15 s, 5: a dead idle peer is known in two minutes, and no
//! common firewall or NAT forgets the connection), TCP_NODELAY, close-on-exec, a
//! deadline of 30 s for connecting, graceful closing. No call dies of SIGPIPE, and no
//! signal disposition is changed.
//!
//! # Threads
//!
//! Every type may be used by several threads at once, and
//! [`close`](ClientSocket::close) may come from any of them while others are in calls.
//!
//! # Logging
//!
//! Events go to the [`log`] facade, so nothing is told until the program has a logger.
//! Loggers may call this crate, on the socket that the event is about, too. No
//! event has a byte of what is read or written; its words may change.
//!
//! | level | target | events |
//! |---|---|---|
//! | error | `keepsock::serve` | a handler panicked; a service cannot accept, or receive, any more |
//! | warn | `keepsock::accept` | descriptors, memory or threads are used up; a client was refused: by a full service, or one that may not connect |
//! | warn | `keepsock::serve` | a broadcast cut a client |
//! | warn | `keepsock::lookup` | a lookup that did not end in time keeps its thread |
//! | info | `keepsock::listen` | listening, and its end; handed over to another process |
//! | info | `keepsock::serve` | a drain's beginning and end, with counts |
//! | info | `keepsock::connection` | a connection broke off: reset, dead, unreachable, stalled |
//! | debug | `keepsock::lookup` | a lookup and its answer |
//! | debug | `keepsock::connect` | each attempt and how it ended; the connection |
//! | debug | `keepsock::accept` | an accept failed and is tried again |
//! | trace | `keepsock::accept`, `keepsock::connection` | each connection accepted; each one closed |
//!
//! Those of `keepsock::accept` below trace are told at most once in 5 s each for one
//! listening socket, with the number of those held back.
//!
//! # Platforms
//!
//! Linux is where keepsock is run and measured. macOS, FreeBSD and Windows are
//! type-checked; what they lack returns
//! [`ErrorKind::Unsupported`]. There a call that waits looks up every
//! 25 ms, since their kernels do not wake it for a close from another thread.
//!
//! # The C API
//!
//! The feature `capi` adds the symbols of `include/keepsock.h`, which is its
//! manual. The C API calls this one and nothing beneath it.

mod back_off;
mod bind;
mod buffer;
mod cancel;
mod capture;
mod client;
mod connect;
mod datagram;
mod endpoint;
mod error;
mod events;
#[cfg(feature = "capi")]
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod ffi;
mod framing;
mod hand_over;
mod handshake;
mod info;
mod inherited;
mod keepalive;
mod liveness;
mod options;
mod reconnect;
mod resolve;
mod serve;
mod server;
mod snapshot;
#[allow(unsafe_code)]
mod sys;
mod turn;
mod unix;
mod wait;

pub use cancel::CancelToken;
pub use capture::Capture;
pub use client::{BorrowedSocket, ClientSocket, Credentials, Received};
pub use connect::Connecting;
pub use datagram::{
    Datagram, DatagramError, DatagramService, DatagramSnapshot, DatagramSocket, Incoming, Outgoing,
};
pub use endpoint::Endpoint;
pub use error::{Attempt, Error, ErrorKind, Result, Stage};
pub use framing::{Framing, LengthPrefix};
pub use hand_over::HandOver;
pub use handshake::{Handshake, Segment, Step, TcpFlags, TcpOption};
pub use info::{Address, End, Family, FiveTuple, Protocol, TcpState};
pub use inherited::Inherited;
pub use keepalive::Keepalive;
pub use options::SocketOptions;
pub use reconnect::{Reconnect, Retry};
pub use serve::{
    Broadcast, Bytes, Connection, Data, Drained, Handler, ServeOptions, Service, ServiceSnapshot,
    WhenFull, WhenSlow,
};
pub use server::{ServerCounters, ServerSocket};
pub use snapshot::Snapshot;
