//! The vocabulary of the library: values and their text. No I/O, and nothing of the operating
//! system.

pub(crate) mod address;
pub(crate) mod close_reason;
pub(crate) mod credentials;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod escape;
pub(crate) mod framing;
pub(crate) mod keepalive;
pub(crate) mod liveness;
pub(crate) mod network;
#[cfg(test)]
mod properties;
pub(crate) mod proxy;
pub(crate) mod sockopt;
pub(crate) mod tcp_state;
