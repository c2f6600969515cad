//! Why an accepted connection is not given to the program.

use std::fmt;

/// Why a connection was rejected after accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The service has `max_connections` connections.
    #[cfg(feature = "serve")]
    Full,
    /// The address of the peer has `max_per_address` connections.
    #[cfg(feature = "serve")]
    OverAddressLimit,
    /// The address of the peer is in a denied network, or not in an allowed one.
    #[cfg(feature = "serve")]
    Denied,
    /// The peer is not a trusted proxy.
    NotProxy,
    /// The PROXY header was wrong or incomplete, or arrived late.
    #[cfg(feature = "serve")]
    NoHeader(&'static str),
    /// The user ID of the peer is not allowed, or unknown.
    User(Option<u32>),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "serve")]
            Rejection::Full => f.write_str("the service has max_connections connections"),
            #[cfg(feature = "serve")]
            Rejection::OverAddressLimit => {
                f.write_str("its address has max_per_address connections")
            }
            #[cfg(feature = "serve")]
            Rejection::Denied => f.write_str("its network is denied"),
            Rejection::NotProxy => f.write_str("it is not a trusted proxy"),
            #[cfg(feature = "serve")]
            Rejection::NoHeader(why) => write!(f, "it sent no PROXY header: {why}"),
            Rejection::User(Some(uid)) => write!(f, "user {uid} is not allowed"),
            Rejection::User(None) => f.write_str("its user ID is unknown"),
        }
    }
}
