//! Log events: which there are, in which words, at which level.
//!
//! They go through the `log` facade: without a logger that was asked for they cost one
//! relaxed load. Formatting is in functions that are called rarely, or are cold. A logger
//! may call anything of this library, so no event is told while a lock of ours is held,
//! the writers' turn included. What is read or written is never told.

use std::fmt::{Arguments, Display};
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, debug, error, info, warn};

use crate::client::ClientSocket;
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, ErrorKind, Span};
use crate::info::{Address, End, FiveTuple};
use crate::serve::{Drained, Refusal};

// Targets, by which loggers choose. They are promised in lib.rs and in the header.
const LOOKUP: &str = "keepsock::lookup";
const CONNECT: &str = "keepsock::connect";
const CONNECTION: &str = "keepsock::connection";
const LISTEN: &str = "keepsock::listen";
const ACCEPT: &str = "keepsock::accept";
const SERVE: &str = "keepsock::serve";

/// Whether anybody wants to know of each single connection. All that a connection costs
/// when nobody does.
#[inline(always)]
pub(crate) fn of_each_connection() -> bool {
    wanted(Level::Trace)
}

#[inline(always)]
fn wanted(level: Level) -> bool {
    level <= log::STATIC_MAX_LEVEL && level <= log::max_level()
}

// ---- at most one in a while ----------------------------------------------------------------

/// Lets one event through in a while and counts the others: what comes with every
/// connection, or fifty times a second, must not fill a disk. The clock is passed in.
#[derive(Debug, Default)]
struct RateLimit {
    last: Option<Instant>,
    held_back: u64,
}

impl RateLimit {
    const PERIOD: Duration = Duration::from_secs(5);

    /// Whether an event is to be told at `now`, and how many were not since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let soon = |last: Instant| now.saturating_duration_since(last) < RateLimit::PERIOD;
        if self.last.is_some_and(soon) {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// What a listening socket has to say again and again. Each kind has its own limit.
#[derive(Debug, Default)]
pub(crate) struct Repeated {
    exhausted: Mutex<RateLimit>,
    retried: Mutex<RateLimit>,
    refused: Mutex<RateLimit>,
}

impl Repeated {
    /// L4: accepting waits, for descriptors, memory or threads are used up.
    #[cold]
    pub(crate) fn exhausted(&self, listener: &Endpoint, cause: &io::Error) {
        tell(
            &self.exhausted,
            Level::Warn,
            format_args!("accepting on {listener} waits for the system: {cause}"),
        );
    }

    /// L3: an accept is tried again.
    #[cold]
    pub(crate) fn retried(&self, listener: &Endpoint, cause: &io::Error) {
        tell(
            &self.retried,
            Level::Debug,
            format_args!("accept on {listener} failed and is tried again: {cause}"),
        );
    }

    #[cold]
    pub(crate) fn refused(&self, listener: &Endpoint, peer: &Address, why: Refusal) {
        let what = match why {
            Refusal::Full => "all places are taken",
            Refusal::Crowded => "its address has as many as it may",
            Refusal::Denied => "its address may not connect",
            Refusal::User(Some(uid)) => &format!("user {uid} may not connect"),
            Refusal::User(None) => "its user is unknown",
        };
        tell(&self.refused, Level::Warn, format_args!("refused {peer} on {listener}: {what}"));
    }
}

fn tell(limit: &Mutex<RateLimit>, level: Level, what: Arguments<'_>) {
    if !wanted(level) {
        return;
    }
    // The lock is free again before the logger is called.
    let admitted = limit.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
    match admitted {
        None => {}
        Some(0) => log::log!(target: ACCEPT, level, "{what}"),
        Some(n) => {
            log::log!(target: ACCEPT, level, "{what} (and {n} times since it was last told)")
        }
    }
}

// ---- looking up and connecting -----------------------------------------------------------------

/// Names are quoted: they come from the program, and may hold anything.
pub(crate) fn lookup_begun(name: &str) {
    debug!(target: LOOKUP, "looking up {name:?}");
}

pub(crate) fn lookup_answered(name: &str, found: &[SocketAddr], since: Instant) {
    let took = Span(since.elapsed());
    debug!(target: LOOKUP, "{name:?} is {} after {took}", List(found));
}

pub(crate) fn lookup_failed(name: &str, why: &Error, since: Instant) {
    let took = Span(since.elapsed());
    debug!(target: LOOKUP, "looking up {name:?} failed after {took}: {why}");
}

/// A thread and its stack stay with the resolver, so this is worth a warning.
pub(crate) fn lookup_left_behind(name: &str, why: ErrorKind, since: Instant) {
    let took = Span(since.elapsed());
    warn!(target: LOOKUP, "looking up {name:?}: {why} after {took}; left behind in its thread");
}

pub(crate) fn attempt_begun(address: &Address, number: usize, count: usize) {
    debug!(target: CONNECT, "attempt {number} of {count}: connecting to {address}");
}

pub(crate) fn attempt_failed(attempt: &Attempt) {
    debug!(target: CONNECT, "attempt failed: {attempt}");
}

pub(crate) fn attempt_won(address: &Address, since: Instant) {
    debug!(target: CONNECT, "attempt won: {address} after {}", Span(since.elapsed()));
}

pub(crate) fn connected(client: &ClientSocket, endpoint: &Endpoint, since: Instant) {
    if wanted(Level::Debug) {
        let (tuple, took) = (client.five_tuple(), Span(since.elapsed()));
        debug!(target: CONNECT, "connected to {endpoint}: {tuple} after {took}");
    }
}

// ---- connections ---------------------------------------------------------------------------------

#[cold]
pub(crate) fn accepted(peer: &Address, listener: &Endpoint) {
    log::trace!(target: ACCEPT, "accepted {peer} on {listener}");
}

#[cold]
pub(crate) fn closed(client: &ClientSocket) {
    let end = client.end().map_or_else(String::new, |end| format!(": {end}"));
    log::trace!(target: CONNECTION, "closed {}{end}", client.five_tuple());
}

#[cold]
pub(crate) fn aborted(client: &ClientSocket) {
    log::trace!(target: CONNECTION, "aborted {}", client.five_tuple());
}

/// Neither side closed it: reset, dead, unreachable, stalled, idle, heartbeat missed.
#[cold]
pub(crate) fn broke_off(client: &ClientSocket, why: ErrorKind) {
    info!(target: CONNECTION, "{} broke off: {why}", client.five_tuple());
}

// ---- serving -------------------------------------------------------------------------------------

pub(crate) fn listening(endpoint: &Endpoint) {
    info!(target: LISTEN, "listening on {endpoint}");
}

pub(crate) fn listener_closed(endpoint: &Endpoint, accepted: u64) {
    info!(target: LISTEN, "closed {endpoint}: {accepted} connections were accepted");
}

pub(crate) fn handed_over(endpoint: impl Display, pid: u32) {
    info!(target: LISTEN, "handed {endpoint} over to process {pid}");
}

/// Nobody may be waiting for the service to hear of it.
pub(crate) fn accepting_failed(why: &str) {
    error!(target: SERVE, "serving has ended: {why}");
}

#[cold]
pub(crate) fn handler_panicked(connection: &FiveTuple) {
    error!(target: SERVE, "a handler panicked: {connection} is reset");
}

#[cold]
pub(crate) fn receiving_failed(why: &Error) {
    error!(target: SERVE, "a thread ends: {why}");
}

#[cold]
pub(crate) fn datagram_handler_panicked(of: &FiveTuple) {
    error!(target: SERVE, "a handler panicked: {of}");
}

#[cold]
pub(crate) fn cut_by_broadcast(connection: &FiveTuple) {
    warn!(target: SERVE, "broadcast resets {connection}: it does not keep up, or is gone");
}

/// An event-driven connection is over. That of a peer that left in order is told to those who
/// want to know of each.
#[cold]
pub(crate) fn ended(connection: &FiveTuple, end: End) {
    match end {
        End::ClosedByPeer | End::ClosedHere | End::Cancelled => {
            log::trace!(target: CONNECTION, "closed {connection}: {end}");
        }
        End::Overrun => warn!(target: SERVE, "reset {connection}: it did not keep up"),
        end => info!(target: CONNECTION, "{connection} broke off: {end}"),
    }
}

/// Whether [`ended`] tells of this end.
pub(crate) fn tells_of(end: End) -> bool {
    match end {
        End::ClosedByPeer | End::ClosedHere | End::Cancelled => of_each_connection(),
        End::Overrun => wanted(Level::Warn),
        _ => wanted(Level::Info),
    }
}

pub(crate) fn drain_begun(endpoint: &Endpoint, connections: u32, limit: Duration) {
    let limit = Span(limit);
    info!(target: SERVE, "draining {endpoint}: {connections} connections, within {limit}");
}

pub(crate) fn drain_ended(endpoint: &Endpoint, drained: Drained, since: Instant) {
    let (Drained { finished, cut }, took) = (drained, Span(since.elapsed()));
    info!(target: SERVE, "drained {endpoint} after {took}: {finished} finished, {cut} cut");
}

/// Addresses with commas between them.
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

    /// L4: the first is told at once, then one in each period, and none is forgotten.
    #[test]
    fn one_event_in_a_while() {
        let begin = Instant::now();
        let mut limit = RateLimit::default();
        let mut told = Vec::new();
        // 20 a second for 16 s.
        for tick in 0..320u32 {
            let after = Duration::from_millis(50) * tick;
            if let Some(held_back) = limit.admit(begin + after) {
                told.push((after.as_millis(), held_back));
            }
        }
        assert_eq!(told, [(0, 0), (5000, 99), (10_000, 99), (15_000, 99)]);
        assert_eq!(limit.held_back, 19);
    }

    /// L4: after a quiet time the next one is told at once, with those before it.
    #[test]
    fn an_event_after_a_quiet_time() {
        let begin = Instant::now();
        let mut limit = RateLimit::default();
        assert_eq!(limit.admit(begin), Some(0));
        assert_eq!(limit.admit(begin), None);
        assert_eq!(limit.admit(begin + RateLimit::PERIOD * 100), Some(1));
        assert_eq!(limit.admit(begin + RateLimit::PERIOD * 200), Some(0));
        // A clock that seems to go back, as those of two processors may.
        assert_eq!(limit.admit(begin), None);
    }

    #[test]
    fn addresses_in_a_row() {
        let addresses = ["[::1]:80", "127.0.0.1:80"].map(|a| a.parse().unwrap());
        assert_eq!(List(&addresses).to_string(), "[::1]:80, 127.0.0.1:80");
        assert_eq!(List(&[]).to_string(), "");
    }
}
