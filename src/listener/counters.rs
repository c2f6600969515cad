//! The statistics of a server socket, and the counters of each of its listeners.

use std::sync::Arc;

use crate::sys::sync::atomic::{AtomicU64, Ordering};

/// The counters of one listener.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub accepted: AtomicU64,
    pub retried: AtomicU64,
    pub exhausted: AtomicU64,
    pub rejected: AtomicU64,
    pub over_address_limit: AtomicU64,
    pub denied: AtomicU64,
    /// Accepted connections hold it until their header has arrived.
    pub proxy_rejected: Arc<AtomicU64>,
}

impl Counters {
    /// The sums of the counters of several listeners.
    pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Counters>) -> ServerStats {
        let mut stats = ServerStats::default();
        for one in all {
            stats.accepted += one.accepted.load(Ordering::Relaxed);
            stats.retried += one.retried.load(Ordering::Relaxed);
            stats.exhausted += one.exhausted.load(Ordering::Relaxed);
            stats.rejected += one.rejected.load(Ordering::Relaxed);
            stats.over_address_limit += one.over_address_limit.load(Ordering::Relaxed);
            stats.denied += one.denied.load(Ordering::Relaxed);
            stats.proxy_rejected += one.proxy_rejected.load(Ordering::Relaxed);
        }
        stats
    }
}

/// The statistics of a server socket. The counters start at zero when the socket starts to
/// listen, and are the sums over all endpoints of the socket.
///
/// ```
/// let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// let stats = server.stats();
/// println!("{} accepted, {} rejected because the service was full", stats.accepted, stats.rejected);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections returned to the program or given to a handler of the service.
    pub accepted: u64,
    /// Retries after a transient error. Every error of accept(2) is transient except the fatal
    /// errors that [`accept`](crate::ServerSocket::accept) lists.
    pub retried: u64,
    /// Retries after the process or the system ran out of descriptors, memory or threads.
    pub exhausted: u64,
    /// Connections reset immediately because the service had
    /// [`max_connections`](crate::ServeOptions::max_connections) connections and its
    /// [`accept_policy`](crate::ServeOptions::accept_policy) is to reject.
    pub rejected: u64,
    /// Connections reset immediately because their address had
    /// [`max_per_address`](crate::ServeOptions::max_per_address) connections.
    pub over_address_limit: u64,
    /// Connections closed immediately because the allowed or denied networks
    /// ([`allowed_network`](crate::ServeOptions::allowed_network),
    /// [`denied_network`](crate::ServeOptions::denied_network)) exclude their
    /// address, or because their user is not an
    /// [`allowed_uid`](crate::SocketOptions::allowed_uid).
    pub denied: u64,
    /// Connections closed immediately because their peer is not a
    /// [`trusted_proxy`](crate::SocketOptions::trusted_proxy), and connections that were reset
    /// because the PROXY header was wrong or incomplete, or arrived late. A connection that
    /// [`accept`](crate::ServerSocket::accept) had returned is also in `accepted`.
    pub proxy_rejected: u64,
}
