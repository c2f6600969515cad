//! Log events: their targets, levels and messages.
//!
//! Events are emitted through the `log` facade. Without a logger for its level an event costs one
//! relaxed load. Messages are formatted in functions that are called rarely or are cold. The
//! functions take values, not sockets.
//!
//! A logger may call every function of this library. So no event is emitted while the library holds
//! a lock, which includes the write lock of a connection. No event contains transferred data.

use std::fmt::{Arguments, Display};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[cfg(feature = "serve")]
use ::log::error;
use ::log::{Level, debug, info, trace, warn};

use crate::sys::fork;
use crate::sys::sync::Mutex;
use crate::types::address::{Address, FiveTuple};
use crate::types::close_reason::CloseReason;
use crate::types::endpoint::Endpoint;
use crate::types::error::{Attempt, Error, ErrorKind, Span};

// Loggers filter by these targets. lib.rs and the C header document them.
const LOOKUP: &str = "keepsock::lookup";
const CONNECT: &str = "keepsock::connect";
const CONNECTION: &str = "keepsock::connection";
const LISTEN: &str = "keepsock::listen";
const ACCEPT: &str = "keepsock::accept";
#[cfg(any(feature = "serve", feature = "datagram"))]
const SERVE: &str = "keepsock::serve";

/// Whether events of single connections are logged. If not, this check is the whole cost of the
/// log for a connection.
#[inline(always)]
pub(crate) fn logs_each_connection() -> bool {
    is_enabled(Level::Trace)
}

/// Whether [`connection_lost`] is logged.
pub(crate) fn logs_lost_connections() -> bool {
    is_enabled(Level::Info)
}

/// Whether [`connection_closed`] logs this close reason.
#[cfg(feature = "serve")]
pub(crate) fn logs_close(reason: CloseReason) -> bool {
    match reason {
        CloseReason::PeerClosed
        | CloseReason::Local
        | CloseReason::Cancelled
        | CloseReason::Detached => logs_each_connection(),
        CloseReason::SlowConsumer => is_enabled(Level::Warn),
        _ => is_enabled(Level::Info),
    }
}

#[inline(always)]
fn is_enabled(level: Level) -> bool {
    level <= ::log::STATIC_MAX_LEVEL && level <= ::log::max_level()
}

// ---- rate-limited events -----------------------------------------------------------------------

/// Passes one event per period and counts the events that it suppresses. An event that occurs with
/// every connection, or fifty times per second, must not fill a disk.
#[derive(Debug, Default)]
struct RateLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    const PERIOD: Duration = Duration::from_secs(5);

    /// Returns the number of events suppressed since the last one that passed; `None`: this event
    /// is suppressed as well.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let soon = |last: Instant| now.saturating_duration_since(last) < RateLimit::PERIOD;
        if self.last.is_some_and(soon) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// The frequent events of a listener. Each kind has its own limit.
#[derive(Debug, Default)]
pub(crate) struct RateLimitedLog {
    exhausted: Mutex<RateLimit>,
    retried: Mutex<RateLimit>,
    rejected: Mutex<RateLimit>,
}

impl RateLimitedLog {
    /// Descriptors, memory or threads are exhausted, so accept waits (L4).
    #[cold]
    pub(crate) fn exhausted(&self, listener: &Endpoint, cause: &io::Error) {
        limited(
            ACCEPT,
            &self.exhausted,
            Level::Warn,
            format_args!("accept on {listener} waits until the system has resources: {cause}"),
        );
    }

    /// Accept retries after a transient error (L3).
    #[cold]
    pub(crate) fn retried(&self, listener: &Endpoint, cause: &io::Error) {
        limited(
            ACCEPT,
            &self.retried,
            Level::Debug,
            format_args!("accept on {listener} failed and is retried: {cause}"),
        );
    }

    /// A connection was accepted and reset at once.
    #[cold]
    pub(crate) fn rejected(&self, listener: &Endpoint, peer: &Address, why: impl Display) {
        limited(
            ACCEPT,
            &self.rejected,
            Level::Warn,
            format_args!("rejected {peer} on {listener}: {why}"),
        );
    }
}

/// The errors after which a datagram socket retries to receive.
#[cfg(feature = "datagram")]
#[derive(Debug, Default)]
pub(crate) struct ReceiveRetries(Mutex<RateLimit>);

#[cfg(feature = "datagram")]
impl ReceiveRetries {
    /// Receive retries after a pause (D2, E4).
    #[cold]
    pub(crate) fn retried(&self, socket: &Endpoint, cause: &io::Error) {
        limited(
            SERVE,
            &self.0,
            Level::Warn,
            format_args!("receive on {socket} failed and is retried: {cause}"),
        );
    }
}

fn limited(target: &str, limit: &Mutex<RateLimit>, level: Level, message: Arguments<'_>) {
    if !is_enabled(level) {
        return;
    }
    // The lock is released before the logger is called. In a forked child, a thread of the parent may hold
    // it forever.
    let admitted = fork::lock_shared(limit).and_then(|mut limit| limit.admit(Instant::now()));
    match admitted {
        None => {}
        Some(0) => ::log::log!(target: target, level, "{message}"),
        Some(n) => {
            ::log::log!(target: target, level, "{message} ({n} similar events were suppressed)")
        }
    }
}

// ---- lookup and connect ------------------------------------------------------------------------

/// Names are quoted, because the program supplies them and they may contain any character.
pub(crate) fn lookup_started(name: &str) {
    debug!(target: LOOKUP, "lookup of {name:?} started");
}

pub(crate) fn lookup_succeeded(name: &str, found: &[SocketAddr], since: Instant) {
    let took = Span(since.elapsed());
    debug!(target: LOOKUP, "lookup of {name:?} returned {} after {took}", List(found));
}

pub(crate) fn lookup_failed(name: &str, why: &Error, since: Instant) {
    let took = Span(since.elapsed());
    debug!(target: LOOKUP, "lookup of {name:?} failed after {took}: {why}");
}

/// A warning, because a thread and its stack stay occupied until the resolver returns.
pub(crate) fn lookup_abandoned(name: &str, why: ErrorKind, since: Instant) {
    let took = Span(since.elapsed());
    warn!(
        target: LOOKUP,
        "lookup of {name:?}: {why} after {took}; its thread is still waiting for the resolver"
    );
}

pub(crate) fn attempt_started(address: &Address, number: usize, count: usize) {
    debug!(target: CONNECT, "attempt {number} of {count}: connecting to {address}");
}

pub(crate) fn attempt_failed(attempt: &Attempt) {
    debug!(target: CONNECT, "attempt failed: {attempt}");
}

pub(crate) fn attempt_succeeded(address: &Address, since: Instant) {
    debug!(target: CONNECT, "attempt succeeded: {address} after {}", Span(since.elapsed()));
}

/// `connection` is called only if the event is logged.
pub(crate) fn connected(
    connection: impl FnOnce() -> FiveTuple,
    endpoint: &Endpoint,
    since: Instant,
) {
    if is_enabled(Level::Debug) {
        let (tuple, took) = (connection(), Span(since.elapsed()));
        debug!(target: CONNECT, "connected to {endpoint}: {tuple} after {took}");
    }
}

// ---- connections -------------------------------------------------------------------------------

#[cold]
pub(crate) fn accepted(peer: &Address, listener: &Endpoint) {
    trace!(target: ACCEPT, "accepted {peer} on {listener}");
}

/// The program closed the connection.
#[cold]
pub(crate) fn closed(connection: &FiveTuple, reason: Option<CloseReason>) {
    match reason {
        Some(reason) => trace!(target: CONNECTION, "closed {connection}: {reason}"),
        None => trace!(target: CONNECTION, "closed {connection}"),
    }
}

/// The program aborted the connection.
#[cold]
pub(crate) fn aborted(connection: &FiveTuple) {
    trace!(target: CONNECTION, "aborted {connection}");
}

/// The connection ended without a close by either side: reset, dead, unreachable, stalled, or a
/// timeout.
#[cold]
pub(crate) fn connection_lost(connection: &FiveTuple, why: ErrorKind) {
    info!(target: CONNECTION, "lost {connection}: {why}");
}

/// An event-driven connection has closed. Its level depends on the reason: see [`logs_close`].
#[cfg(feature = "serve")]
#[cold]
pub(crate) fn connection_closed(connection: &FiveTuple, reason: CloseReason) {
    match reason {
        CloseReason::PeerClosed | CloseReason::Local | CloseReason::Cancelled => {
            trace!(target: CONNECTION, "closed {connection}: {reason}");
        }
        CloseReason::SlowConsumer => warn!(target: SERVE, "reset {connection}: {reason}"),
        reason => info!(target: CONNECTION, "lost {connection}: {reason}"),
    }
}

// ---- listeners and services --------------------------------------------------------------------

pub(crate) fn listening(endpoint: &Endpoint) {
    info!(target: LISTEN, "listening on {endpoint}");
}

pub(crate) fn listener_closed(endpoint: &Endpoint, accepted: u64) {
    info!(target: LISTEN, "closed {endpoint}: {accepted} connections were accepted");
}

/// The variables of socket activation do not apply to this process.
#[cfg(feature = "activation")]
pub(crate) fn activation_ignored(why: &str) {
    warn!(target: LISTEN, "no sockets are inherited: {why}");
}

#[cfg(feature = "activation")]
pub(crate) fn handed_over(endpoint: impl Display, pid: u32) {
    info!(target: LISTEN, "handed {endpoint} over to process {pid}");
}

/// An error, because the program may have no thread that waits for the service.
#[cfg(feature = "serve")]
pub(crate) fn accepting_failed(why: &str) {
    error!(target: SERVE, "the service stopped accepting: {why}");
}

#[cfg(feature = "serve")]
#[cold]
pub(crate) fn handler_panicked(connection: &FiveTuple) {
    error!(target: SERVE, "a handler panicked: {connection} is reset");
}

#[cfg(feature = "serve")]
#[cold]
pub(crate) fn function_panicked() {
    error!(target: SERVE, "a posted function or the function of a timer panicked");
}

#[cfg(all(feature = "serve", feature = "datagram"))]
#[cold]
pub(crate) fn receiving_failed(why: &Error) {
    error!(target: SERVE, "a thread of a datagram service stopped: {why}");
}

#[cfg(all(feature = "serve", feature = "datagram"))]
#[cold]
pub(crate) fn datagram_handler_panicked(datagram: &FiveTuple) {
    error!(target: SERVE, "a handler panicked: {datagram}");
}

#[cfg(feature = "serve")]
#[cold]
pub(crate) fn reset_by_broadcast(connection: &FiveTuple) {
    warn!(target: SERVE, "broadcast reset {connection}: the peer is too slow, or has vanished");
}

#[cfg(feature = "serve")]
pub(crate) fn drain_started(endpoint: &Endpoint, connections: u32, timeout: Duration) {
    if timeout == Duration::MAX {
        return info!(target: SERVE, "draining {endpoint}: {connections} connections, no timeout");
    }
    let timeout = Span(timeout);
    info!(target: SERVE, "draining {endpoint}: {connections} connections, timeout {timeout}");
}

/// `completed` connections ended in order, `reset` connections did not.
#[cfg(feature = "serve")]
pub(crate) fn drain_ended(endpoint: &Endpoint, completed: u32, reset: u32, since: Instant) {
    let took = Span(since.elapsed());
    info!(target: SERVE, "drained {endpoint} after {took}: {completed} completed, {reset} reset");
}

/// Addresses, separated by commas.
struct List<'a>(&'a [SocketAddr]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, address) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            address.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L4: the first event passes at once, later ones once per period with the number of suppressed
    /// events.
    #[test]
    fn rate_limit_passes_one_event_per_period() {
        let begin = Instant::now();
        let mut limit = RateLimit::default();
        let mut passed = Vec::new();
        // 20 events per second for 16 s.
        for tick in 0..320u32 {
            let after = Duration::from_millis(50) * tick;
            if let Some(suppressed) = limit.admit(begin + after) {
                passed.push((after.as_millis(), suppressed));
            }
        }
        assert_eq!(passed, [(0, 0), (5000, 99), (10_000, 99), (15_000, 99)]);
        assert_eq!(limit.suppressed, 19);
    }

    /// L4: after a quiet period the next event passes at once, with the number of events before it.
    #[test]
    fn rate_limit_passes_first_event_after_quiet_period() {
        let begin = Instant::now();
        let mut limit = RateLimit::default();
        assert_eq!(limit.admit(begin), Some(0));
        assert_eq!(limit.admit(begin), None);
        assert_eq!(limit.admit(begin + RateLimit::PERIOD * 100), Some(1));
        assert_eq!(limit.admit(begin + RateLimit::PERIOD * 200), Some(0));
        // The clocks of two processors may differ, so the time may seem to go back.
        assert_eq!(limit.admit(begin), None);
    }

    #[test]
    fn list_separates_addresses_by_commas() {
        let addresses = ["[::1]:80", "127.0.0.1:80"].map(|a| a.parse().unwrap());
        assert_eq!(List(&addresses).to_string(), "[::1]:80, 127.0.0.1:80");
        assert_eq!(List(&[]).to_string(), "");
    }
}
