//! What a service has done so far, and what is going on in it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::Span;
use crate::info::End;
use crate::serve::event::Dropped;
use crate::server::ServerCounters;

/// A place for each number of [`End`].
const ENDS: usize = 16;

/// Bytes and ends, counted by many threads.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    received: AtomicU64,
    written: AtomicU64,
    sent: AtomicU64,
    dropped_messages: AtomicU64,
    dropped_bytes: AtomicU64,
    ends: [AtomicU64; ENDS],
}

impl Traffic {
    #[inline]
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Taken from the program, to be sent or dropped.
    #[inline]
    pub(super) fn written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Taken by the kernel.
    #[inline]
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, dropped: Dropped) {
        if dropped.messages > 0 {
            self.dropped_messages.fetch_add(dropped.messages, Ordering::Relaxed);
            self.dropped_bytes.fetch_add(dropped.bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn ended(&self, end: End) {
        if let Some(count) = self.ends.get(end as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn ends(&self) -> Vec<(End, u64)> {
        let count = |(number, count): (usize, &AtomicU64)| {
            let end = End::from_number(i32::try_from(number).ok()?)?;
            Some((end, count.load(Ordering::Relaxed))).filter(|(_, n)| *n > 0)
        };
        self.ends.iter().enumerate().filter_map(count).collect()
    }

    pub(super) fn bytes(&self) -> Bytes {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Bytes {
            received: get(&self.received),
            written: get(&self.written),
            sent: get(&self.sent),
            dropped_messages: get(&self.dropped_messages),
            dropped: get(&self.dropped_bytes),
        }
    }
}

/// What event-driven serving has moved.
///
/// ```
/// # #[cfg(unix)] {
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let echo = |c: &keepsock::Connection, data: &[u8]| drop(c.send(data));
/// let service = server.serve_events(&keepsock::ServeOptions::new(), echo)?;
/// let snapshot = service.snapshot();
/// if let Some(bytes) = snapshot.bytes {
///     assert_eq!(bytes.written, bytes.sent + bytes.dropped + snapshot.queued.unwrap_or(0));
/// }
/// # }
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Bytes {
    /// Bytes that came.
    pub received: u64,
    /// Bytes of messages that the program sent: they are sent, dropped, or still queued.
    pub written: u64,
    /// Bytes that kernels took.
    pub sent: u64,
    /// Messages that were dropped, whole or in part: for want of room, or since their
    /// connection was over.
    pub dropped_messages: u64,
    /// Bytes of them.
    pub dropped: u64,
}

/// A service at one moment, from [`Service::snapshot`](crate::Service::snapshot). Prints in
/// plain text.
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let service = server.serve(|_| ())?;
/// let snapshot = service.snapshot();
/// println!("{} now, {} in all", snapshot.connections, snapshot.opened);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceSnapshot {
    /// Where it listens.
    pub endpoints: Vec<Endpoint>,
    /// Since it was started.
    pub uptime: Duration,
    /// Whether it still accepts.
    pub accepting: bool,
    /// Connections that are served now.
    pub connections: u32,
    /// Connections that were ever served.
    pub opened: u64,
    /// Connections that have ended: opened - connections.
    pub closed: u64,
    /// How they have ended. With a thread for each connection its handler is asked, which
    /// has not always met the end.
    pub ends: Vec<(End, u64)>,
    /// What the server socket has counted.
    pub counters: ServerCounters,
    /// What was moved. `None` with a thread for each connection, whose handlers move it.
    pub bytes: Option<Bytes>,
    /// Bytes that wait in this program for clients, likewise.
    pub queued: Option<u64>,
}

impl fmt::Display for ServiceSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for endpoint in &self.endpoints {
            writeln!(f, "endpoint {endpoint}")?;
        }
        let state = if self.accepting { "accepting" } else { "not accepting" };
        writeln!(f, "uptime {}, {state}", Span(self.uptime))?;
        let (now, opened, closed) = (self.connections, self.opened, self.closed);
        writeln!(f, "connections {now}, opened {opened}, closed {closed}")?;
        for (end, count) in &self.ends {
            writeln!(f, "ended: {end} {count}")?;
        }
        let c = self.counters;
        writeln!(
            f,
            "accept: accepted {}, retried {}, exhausted {}, refused {}, crowded {}, denied {}",
            c.accepted, c.retried, c.exhausted, c.refused, c.crowded, c.denied
        )?;
        if let (Some(b), Some(queued)) = (self.bytes, self.queued) {
            writeln!(
                f,
                "bytes: received {}, written {}, sent {}, queued {queued}, dropped {}, in {} messages",
                b.received, b.written, b.sent, b.dropped, b.dropped_messages
            )?;
        }
        Ok(())
    }
}
