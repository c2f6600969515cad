//! `keepsock/datagrams.h`: UDP and Unix datagram sockets.

mod config;
mod error_queue;
mod multicast;
mod recv;
mod send;
#[cfg(feature = "serve")]
mod service;
mod socket;
mod stats;

pub use config::*;
pub use error_queue::*;
pub use multicast::*;
pub use recv::*;
pub use send::*;
#[cfg(feature = "serve")]
pub use service::*;
pub use socket::*;
pub use stats::*;
