//! How a server serves: what is asked for, and whether it can be.

use crate::error::{Error, ErrorKind, Result};
use crate::framing::Framing;
use crate::serve::event::OVERHEAD;
use crate::serve::limits::{Limits, network};

/// What a server does with a client that comes when every place is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum WhenFull {
    /// It waits in the listen queue until a connection ends.
    #[default]
    Wait = 0,
    /// It is accepted and reset at once.
    Refuse = 1,
}

/// What event-driven serving does with a message for which a client's queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum WhenSlow {
    /// The client has not kept up: it is reset, and that is the reason of its end.
    #[default]
    Disconnect = 0,
    /// The oldest messages that wait are dropped, whole ones, and counted, until there is room.
    /// One that is on its way is finished first.
    DropOldest = 1,
}

/// How [`ServerSocket::serve_with`](crate::ServerSocket::serve_with) and
/// [`serve_events`](crate::ServerSocket::serve_events) serve.
///
/// ```
/// use keepsock::{ServeOptions, WhenFull};
/// let options = ServeOptions::new().max_connections(100).when_full(WhenFull::Refuse);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    max_connections: Option<u32>,
    when_full: WhenFull,
    max_per_address: Option<u32>,
    allow: Vec<String>,
    deny: Vec<String>,
    threads: Option<u32>,
    framing: Option<Framing>,
    max_queued: Option<usize>,
    when_slow: Option<WhenSlow>,
}

/// A thread for each connection: beyond this it is memory that the machine has too little of.
const MAX_THREADS: u32 = 1024;
/// The descriptors of a process end before that on most machines.
const MAX_EVENT_CONNECTIONS: u32 = 65_536;
/// Places have numbers of 24 bits.
const MOST_EVENT_CONNECTIONS: u32 = 1 << 24;
/// More loops than any machine has processors for.
const MAX_LOOPS: u32 = 256;
const MAX_QUEUED: usize = 1024 * 1024;

impl ServeOptions {
    /// The defaults.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new();
    /// ```
    pub fn new() -> ServeOptions {
        ServeOptions::default()
    }

    /// How many connections are served at once. With a thread for each that is how many
    /// threads there are at most (one more if it is to refuse). Default: 1024 for
    /// [`serve`](crate::ServerSocket::serve), 65,536 for
    /// [`serve_events`](crate::ServerSocket::serve_events), where it may be up to 16,777,216.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().max_connections(50);
    /// ```
    #[must_use]
    pub fn max_connections(mut self, max: u32) -> Self {
        self.max_connections = Some(max);
        self
    }

    /// What happens to a client beyond that. Default: it waits.
    ///
    /// ```
    /// use keepsock::{ServeOptions, WhenFull};
    /// let options = ServeOptions::new().when_full(WhenFull::Wait);
    /// ```
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// How many connections of one address are served at once; of an IPv6 /64 network, which
    /// is what one host commonly has. More are accepted and reset at once, and counted
    /// ([`ServerCounters::crowded`](crate::ServerCounters::crowded)). Not for Unix
    /// sockets, whose peers have no address. Default: `None`, no limit.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().max_per_address(10);
    /// ```
    #[must_use]
    pub fn max_per_address(mut self, max: impl Into<Option<u32>>) -> Self {
        self.max_per_address = max.into();
        self
    }

    /// Adds a network whose clients may connect: `192.0.2.0/24`, `2001:db8::/32`, or one
    /// address. With one or more, all others are accepted and reset at once, and counted
    /// ([`ServerCounters::denied`](crate::ServerCounters::denied)). Default: none, so all
    /// may. What is no network serving refuses.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().allow("127.0.0.0/8").allow("::1");
    /// ```
    #[must_use]
    pub fn allow(mut self, network: impl Into<String>) -> Self {
        self.allow.push(network.into());
        self
    }

    /// Adds a network whose clients may not connect, even if another one allows them.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().deny("192.0.2.66");
    /// ```
    #[must_use]
    pub fn deny(mut self, network: impl Into<String>) -> Self {
        self.deny.push(network.into());
        self
    }

    /// How many threads serve, fixed. For [`serve`](crate::ServerSocket::serve) a pool that is
    /// started at once and stays, each thread with one connection at a time; clients beyond
    /// that wait or are refused as when it is full. Default there: as many as there are
    /// connections, started when they come. For
    /// [`serve_events`](crate::ServerSocket::serve_events) loops, each with its share of the
    /// connections, at most 256. Default there: one, so no two callbacks run at once.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().threads(4);
    /// ```
    #[must_use]
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = Some(threads);
        self
    }

    /// For [`serve_events`](crate::ServerSocket::serve_events): how what comes in is cut into
    /// messages, and what goes out is marked as one. Default: [`Framing::Raw`].
    ///
    /// ```
    /// use keepsock::{Framing, ServeOptions};
    /// let options = ServeOptions::new().framing(Framing::Lines { max: 1024 });
    /// ```
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = Some(framing);
        self
    }

    /// For [`serve_events`](crate::ServerSocket::serve_events): how many bytes may wait in this
    /// program for one client whose kernel takes no more. So all clients take at most that many
    /// bytes each: a message counts 88 bytes more than it has, which is what it takes up.
    /// Default: 1 MiB.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().max_queued(64 * 1024);
    /// ```
    #[must_use]
    pub fn max_queued(mut self, bytes: usize) -> Self {
        self.max_queued = Some(bytes);
        self
    }

    /// For [`serve_events`](crate::ServerSocket::serve_events): what happens when a message
    /// finds no room. Default: [`WhenSlow::Disconnect`].
    ///
    /// ```
    /// use keepsock::{ServeOptions, WhenSlow};
    /// let options = ServeOptions::new().when_slow(WhenSlow::DropOldest);
    /// ```
    #[must_use]
    pub fn when_slow(mut self, when_slow: WhenSlow) -> Self {
        self.when_slow = Some(when_slow);
        self
    }

    /// How many connections event-driven serving may have.
    #[cfg(feature = "capi")]
    pub(crate) fn event_connections(&self) -> usize {
        self.max_connections.unwrap_or(MAX_EVENT_CONNECTIONS).min(MOST_EVENT_CONNECTIONS) as usize
    }

    fn limits(&self, max_connections: u32, operation: &'static str) -> Result<Limits> {
        let refuse =
            |what: &str| Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what));
        if max_connections == 0 {
            return refuse("at most zero connections");
        }
        if self.max_per_address == Some(0) {
            return refuse("at most zero connections of one address");
        }
        if self.threads == Some(0) {
            return refuse("no threads");
        }
        let parse = |texts: &[String]| -> Result<Vec<_>> {
            texts.iter().map(|text| network(text, operation)).collect()
        };
        Ok(Limits {
            connections: max_connections,
            when_full: self.when_full,
            per_address: self.max_per_address,
            allow: parse(&self.allow)?,
            deny: parse(&self.deny)?,
        })
    }

    /// What a thread for each connection needs of it: the limits, and the size of the pool.
    pub(super) fn for_threads(&self, operation: &'static str) -> Result<(Limits, Option<usize>)> {
        let only = [
            (self.framing.is_some(), "framing"),
            (self.max_queued.is_some(), "max_queued"),
            (self.when_slow.is_some(), "when_slow"),
        ];
        if let Some((_, name)) = only.into_iter().find(|(set, _)| *set) {
            let what = format!("{name} is for serve_events");
            return Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what));
        }
        let most = self.max_connections.unwrap_or(MAX_THREADS);
        let most = self.threads.map_or(most, |threads| most.min(threads));
        let limits = self.limits(most, operation)?;
        let refusing = usize::from(self.when_full == WhenFull::Refuse);
        Ok((limits, self.threads.map(|_| most as usize + refusing)))
    }

    /// What event-driven serving needs of it.
    pub(super) fn for_events(&self, operation: &'static str) -> Result<(Limits, Push)> {
        let refuse =
            |what: String| Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what));
        let most = self.max_connections.unwrap_or(MAX_EVENT_CONNECTIONS);
        if most > MOST_EVENT_CONNECTIONS {
            return refuse(format!("{most} connections are more than {MOST_EVENT_CONNECTIONS}"));
        }
        let loops = self.threads.unwrap_or(1);
        if loops > MAX_LOOPS {
            return refuse(format!("{loops} threads are more than {MAX_LOOPS}"));
        }
        if self.max_queued.is_some_and(|most| most <= OVERHEAD) {
            return refuse(format!("max_queued is not above {OVERHEAD}, what a message takes"));
        }
        let framing = self.framing.unwrap_or_default();
        framing.validate(operation)?;
        let push = Push {
            loops,
            framing,
            max_queued: self.max_queued.unwrap_or(MAX_QUEUED),
            when_slow: self.when_slow.unwrap_or_default(),
        };
        Ok((self.limits(most, operation)?, push))
    }
}

/// What is asked of event-driven serving beyond who may connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Push {
    pub loops: u32,
    pub framing: Framing,
    pub max_queued: usize,
    pub when_slow: WhenSlow,
}
