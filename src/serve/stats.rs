//! Statistics of a service.

use std::fmt;
use std::time::Duration;

use crate::listener::ServerStats;
use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::types::close_reason::CloseReason;
use crate::types::endpoint::Endpoint;
use crate::types::error::Span;

/// One counter for each number that a [`CloseReason`] may have.
const REASONS: usize = 16;

/// Messages that a send queue has dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dropped {
    pub messages: u64,
    pub bytes: u64,
}

impl Dropped {
    pub(super) fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Bytes and close reasons, counted by all threads of a service.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    received: AtomicU64,
    written: AtomicU64,
    sent: AtomicU64,
    dropped_messages: AtomicU64,
    dropped_bytes: AtomicU64,
    close_reasons: [AtomicU64; REASONS],
}

impl Traffic {
    #[inline]
    pub(super) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that the program has passed to a send. They are later sent or dropped.
    #[inline]
    pub(super) fn count_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Like [`count_written`](Traffic::count_written). The message was not sent at once. The length
    /// of a file can be any number, so the counter stops at the largest number that the C API returns.
    pub(super) fn count_written_later(&self, bytes: u64) {
        add_limited(&self.written, bytes);
    }

    /// Counts bytes that the kernel has accepted.
    #[inline]
    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self, dropped: Dropped) {
        if dropped.messages > 0 {
            self.dropped_messages.fetch_add(dropped.messages, Ordering::Relaxed);
            add_limited(&self.dropped_bytes, dropped.bytes);
        }
    }

    pub(super) fn count_close(&self, reason: CloseReason) {
        if let Some(count) = self.close_reasons.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn close_reasons(&self) -> Vec<(CloseReason, u64)> {
        let count = |(number, count): (usize, &AtomicU64)| {
            let reason = CloseReason::from_number(i32::try_from(number).ok()?)?;
            Some((reason, count.load(Ordering::Relaxed))).filter(|(_, n)| *n > 0)
        };
        self.close_reasons.iter().enumerate().filter_map(count).collect()
    }

    /// The counters, with the bytes that are `queued` now.
    pub(super) fn stats(&self, queued: u64) -> TrafficStats {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        TrafficStats {
            bytes_received: get(&self.received),
            bytes_written: get(&self.written),
            bytes_sent: get(&self.sent),
            bytes_queued: queued,
            messages_dropped: get(&self.dropped_messages),
            bytes_dropped: get(&self.dropped_bytes),
        }
    }
}

/// Adds to a counter, up to `i64::MAX`.
fn add_limited(counter: &AtomicU64, n: u64) {
    let add = |now: u64| Some(now.max(now.saturating_add(n).min(i64::MAX as u64)));
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
}

/// The bytes that a service with event loops has received and sent.
///
/// ```
/// # #[cfg(unix)] {
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let echo = |c: &keepsock::Connection, data: &[u8]| drop(c.send(data));
/// let service = server.serve_events(&keepsock::ServeOptions::new(), echo)?;
/// if let Some(traffic) = service.stats().traffic {
///     assert_eq!(traffic.bytes_written, traffic.bytes_sent + traffic.bytes_dropped + traffic.bytes_queued);
/// }
/// # }
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TrafficStats {
    /// Bytes received from clients.
    pub bytes_received: u64,
    /// Bytes of messages that the program has sent. Each byte is then sent, queued or dropped.
    pub bytes_written: u64,
    /// Bytes that the kernel has accepted.
    pub bytes_sent: u64,
    /// Bytes in the send queues now.
    pub bytes_queued: u64,
    /// Messages dropped in whole or in part, because a send queue was full or because the
    /// connection ended.
    pub messages_dropped: u64,
    /// Bytes of the dropped messages.
    pub bytes_dropped: u64,
}

/// A snapshot of a service's statistics, from [`Service::stats`](crate::Service::stats). It prints
/// as plain text for operators.
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let service = server.serve(|_| ())?;
/// let stats = service.stats();
/// println!("{} connections now, {} since the start", stats.connections, stats.opened);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStats {
    /// The endpoints that the service listens on.
    pub endpoints: Vec<Endpoint>,
    /// The time since the service started.
    pub uptime: Duration,
    /// Whether the service still accepts connections.
    pub accepting: bool,
    /// The number of connections being served.
    pub connections: u32,
    /// The number of connections served since the start.
    pub opened: u64,
    /// The number of connections that have ended: `opened` minus `connections`.
    pub closed: u64,
    /// The number of connections for each close reason. Their sum is `closed`. With a thread for each
    /// connection, the reason is the one that the handler's calls or the final close met.
    pub close_reasons: Vec<(CloseReason, u64)>,
    /// The statistics of the server socket.
    pub server: ServerStats,
    /// The bytes received and sent. `None` with a thread for each connection, because handlers
    /// read and write by themselves.
    pub traffic: Option<TrafficStats>,
}

impl fmt::Display for ServiceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for endpoint in &self.endpoints {
            writeln!(f, "endpoint {endpoint}")?;
        }
        let state = if self.accepting { "accepting" } else { "not accepting" };
        writeln!(f, "uptime {}, {state}", Span(self.uptime))?;
        let (now, opened, closed) = (self.connections, self.opened, self.closed);
        writeln!(f, "connections {now}, opened {opened}, closed {closed}")?;
        for (reason, count) in &self.close_reasons {
            writeln!(f, "close reason: {reason}, {count} connections")?;
        }
        let s = self.server;
        writeln!(
            f,
            "accept: accepted {}, retried {}, exhausted {}, rejected {}, over address limit {}, \
             denied {}",
            s.accepted, s.retried, s.exhausted, s.rejected, s.over_address_limit, s.denied
        )?;
        if let Some(t) = self.traffic {
            writeln!(
                f,
                "bytes: received {}, written {}, sent {}, queued {}, dropped {} in {} messages",
                t.bytes_received,
                t.bytes_written,
                t.bytes_sent,
                t.bytes_queued,
                t.bytes_dropped,
                t.messages_dropped
            )?;
        }
        Ok(())
    }
}
