//! Sockets that stay alive: listen, connect and accept with keepalive tuning,
//! deadlines and errors one can act on, over TCP and Unix sockets.
//!
//! - [`ClientSocket`] asks for a connection, or is one that a server accepted:
//!   [`read`](ClientSocket::read), [`write_all`](ClientSocket::write_all),
//!   [`read_line`](ClientSocket::read_line), [`close`](ClientSocket::close).
//! - [`ServerSocket`] listens: [`accept`](ServerSocket::accept) for a loop of
//!   your own, [`serve`](ServerSocket::serve) for a thread for each connection.
//! - [`SocketOptions`] are set before there is a descriptor: [`Keepalive`],
//!   timeouts, local address. [`CancelToken`] ends a call from outside.
//! - [`Reconnect`] connects again after the connection was lost, with exponential back-off.
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
mod buffer;
mod cancel;
mod client;
mod connect;
mod endpoint;
mod error;
#[cfg(feature = "capi")]
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod ffi;
mod info;
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
pub use client::{BorrowedSocket, ClientSocket};
pub use endpoint::Endpoint;
pub use error::{Attempt, Error, ErrorKind, Result, Stage};
pub use info::{Address, End, Family, FiveTuple, Protocol, TcpState};
pub use keepalive::Keepalive;
pub use options::SocketOptions;
pub use reconnect::{Reconnect, Retry};
pub use serve::{Broadcast, Drained, ServeOptions, Service, WhenFull};
pub use server::{ServerCounters, ServerSocket};
pub use snapshot::Snapshot;
