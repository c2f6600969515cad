//! The options for serving, and the configurations that each serving mode derives from them.

use crate::listener::ServerSocket;
use crate::serve::admission::AdmissionPolicy;
use crate::serve::capacity::{MESSAGE_OVERHEAD, SPARE_ENTRIES};
use crate::serve::threads::check_cpus;
use crate::types::endpoint::Target;
use crate::types::error::{Error, ErrorKind, Grouped, Result};
use crate::types::framing::Framing;
use crate::types::network::network;

/// How a service treats a client that connects while the maximum number of connections are open.
///
/// ```
/// use keepsock::{AcceptPolicy, ServeOptions};
/// let options = ServeOptions::new().accept_policy(AcceptPolicy::Reject);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum AcceptPolicy {
    /// The client waits in the listen queue until a connection ends.
    #[default]
    Wait = 0,
    /// The service accepts the connection and resets it immediately.
    Reject = 1,
}

/// How a service with event loops treats a message that exceeds the
/// [`queue_limit`](ServeOptions::queue_limit) of a connection.
///
/// ```
/// use keepsock::{OverflowPolicy, ServeOptions};
/// let options = ServeOptions::new().overflow_policy(OverflowPolicy::DropOldest);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum OverflowPolicy {
    /// The service resets the connection. Its close reason is
    /// [`SlowConsumer`](crate::CloseReason::SlowConsumer).
    #[default]
    Disconnect = 0,
    /// The service drops the oldest queued messages, and counts them, until the new message fits.
    /// It drops whole messages only: a message that is partly sent stays in the queue.
    DropOldest = 1,
}

/// Options for serving. [`ServerSocket::serve_with`](crate::ServerSocket::serve_with),
/// [`ServerSocket::serve_events`](crate::ServerSocket::serve_events) and
/// [`DatagramSocket::serve`](crate::DatagramSocket::serve) check them and reject an
/// option that has no effect there.
///
/// ```
/// use keepsock::{AcceptPolicy, ServeOptions};
/// let options = ServeOptions::new().max_connections(100).accept_policy(AcceptPolicy::Reject);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    max_connections: Option<u32>,
    accept_policy: AcceptPolicy,
    max_per_address: Option<u32>,
    allowed_networks: Vec<String>,
    denied_networks: Vec<String>,
    threads: Option<u32>,
    framing: Option<Framing>,
    queue_limit: Option<usize>,
    overflow_policy: Option<OverflowPolicy>,
    stack_size: Option<usize>,
    cpus: Vec<u32>,
}

/// The default limit of connections with a thread each: more threads need more memory than most
/// machines have.
const MAX_THREADS: u32 = 1024;
/// The default limit of connections with event loops. Most processes may open fewer descriptors.
const DEFAULT_EVENT_CONNECTIONS: u32 = 65_536;
/// The index of a connection entry has 24 bits.
const MAX_EVENT_CONNECTIONS: u32 = (1 << 24) - SPARE_ENTRIES;
/// More event loops than any machine has processors.
const MAX_LOOPS: u32 = 256;
#[cfg(feature = "datagram")]
const MAX_DATAGRAM_THREADS: u32 = 1024;
const DEFAULT_QUEUE_LIMIT: usize = 1024 * 1024;
const DEFAULT_STACK_SIZE: usize = 2 * 1024 * 1024;
/// Several times the stack that the library itself uses.
const MIN_STACK_SIZE: usize = 64 * 1024;
const MAX_STACK_SIZE: usize = 1024 * 1024 * 1024;

const OPERATION: &str = "serve";

impl ServeOptions {
    /// Creates options with the default values.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new();
    /// ```
    pub fn new() -> ServeOptions {
        ServeOptions::default()
    }

    /// Limits the number of connections that are served at the same time.
    ///
    /// - [`serve`](crate::ServerSocket::serve): also the maximum number of threads (with
    ///   [`AcceptPolicy::Reject`] there is one thread more). Default: 1024, or
    ///   [`threads`](ServeOptions::threads) if that is more.
    /// - [`serve_events`](crate::ServerSocket::serve_events): at most 16,760,832. Default: 65,536.
    ///
    /// 0 is not valid.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().max_connections(50);
    /// ```
    #[must_use]
    pub fn max_connections(mut self, max: u32) -> Self {
        self.max_connections = Some(max);
        self
    }

    /// Sets what the service does with a client that exceeds
    /// [`max_connections`](ServeOptions::max_connections). Default: [`AcceptPolicy::Wait`].
    ///
    /// ```
    /// use keepsock::{AcceptPolicy, ServeOptions};
    /// let options = ServeOptions::new().accept_policy(AcceptPolicy::Wait);
    /// ```
    #[must_use]
    pub fn accept_policy(mut self, accept_policy: AcceptPolicy) -> Self {
        self.accept_policy = accept_policy;
        self
    }

    /// Limits the number of connections from one IPv4 address or one IPv6 /64 network, which
    /// commonly belongs to one host. The service accepts further connections, resets them
    /// immediately and counts them
    /// ([`ServerStats::over_address_limit`](crate::ServerStats::over_address_limit)).
    ///
    /// The limit applies to IP clients only, because Unix clients have no address. A server that
    /// listens on Unix sockets only rejects the option. `None` sets no limit, which is the
    /// default. 0 is not valid.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().max_per_address(10);
    /// ```
    #[must_use]
    pub fn max_per_address(mut self, max: impl Into<Option<u32>>) -> Self {
        self.max_per_address = max.into();
        self
    }

    /// Adds a network whose clients may connect: `192.0.2.0/24`, `2001:db8::/32`, or one address.
    /// With one or more allowed networks, the service accepts connections from other networks,
    /// resets them immediately and counts them
    /// ([`ServerStats::denied`](crate::ServerStats::denied)). Default: no list, so every client
    /// may connect. Serving fails if the text is not a network.
    ///
    /// `allowed_network` and [`denied_network`](ServeOptions::denied_network) apply to IP clients
    /// only. If the server also listens on Unix sockets, it serves every Unix client that the mode
    /// of the socket file and [`allowed_uid`](crate::SocketOptions::allowed_uid) admit. A server
    /// that listens on Unix sockets only rejects both options.
    ///
    /// A network of IPv4-mapped addresses (`::ffff:192.0.2.0/120`) is the IPv4 network. `::/0` is
    /// every IPv6 address and no IPv4 address. Another network that contains the mapped addresses
    /// (`::/80`) is rejected, because its meaning for IPv4 clients is ambiguous.
    ///
    /// ```
    /// use keepsock::ServeOptions;
    /// let options = ServeOptions::new().allowed_network("127.0.0.0/8").allowed_network("::1");
    /// ```
    #[must_use]
    pub fn allowed_network(mut self, network: impl Into<String>) -> Self {
        self.allowed_networks.push(network.into());
        self
    }

    /// Adds a network whose clients may not connect, also if an
    /// [allowed network](ServeOptions::allowed_network) contains them. The syntax, and the rule for
    /// Unix clients, are those of `allowed_network`.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().denied_network("192.0.2.66");
    /// ```
    #[must_use]
    pub fn denied_network(mut self, network: impl Into<String>) -> Self {
        self.denied_networks.push(network.into());
        self
    }

    /// Sets the number of threads. 0 is not valid.
    ///
    /// - [`serve`](crate::ServerSocket::serve): the size of a fixed pool, whose threads start
    ///   immediately and stay. Each thread serves one connection at a time. A client that exceeds
    ///   the pool waits or is rejected, as [`accept_policy`](ServeOptions::accept_policy) says.
    ///   Default: no pool; the service starts threads when clients connect.
    /// - [`serve_events`](crate::ServerSocket::serve_events): the number of event loops that share
    ///   the connections, at most 256. Default: 1, so callbacks never run at the same time.
    /// - [`DatagramSocket::serve`](crate::DatagramSocket::serve): the number of
    ///   threads that receive, at most 1,024. Default: 1.
    ///
    /// A single event loop also accepts, so a callback that blocks delays new clients. With two
    /// or more loops another thread accepts. It assigns a new connection to the loop with the
    /// fewest connections, and avoids a loop that has been in callbacks for 40 ms while another
    /// loop is free.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().threads(4);
    /// ```
    #[must_use]
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = Some(threads);
        self
    }

    /// For [`serve_events`](crate::ServerSocket::serve_events): sets how received bytes are split
    /// into messages, and how sent messages are delimited. Default: [`Framing::Raw`].
    /// [`Connection::set_framing`](crate::Connection::set_framing) changes it for one connection.
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

    /// For [`serve_events`](crate::ServerSocket::serve_events): limits the send queue of each
    /// connection, in bytes. The queue holds bytes that the kernel does not accept yet. Each
    /// message counts its bytes, those of its framing, and 88 bytes for the memory of its queue entry.
    /// The limit must be above 88. Default: 1 MiB.
    /// [`Connection::set_queue_limit`](crate::Connection::set_queue_limit) changes it for one connection.
    ///
    /// The limit applies to pushed messages: broadcasts, and messages sent from a timer or drain
    /// callback, from another connection's callback, or from another thread. All queued bytes
    /// count.
    ///
    /// Replies are messages that the connection's own `on_open`, `on_data`, `on_writable` and
    /// `on_eof` callbacks send to it. They are always queued. While more than 64 KiB of replies (a
    /// quarter of the limit, if that is less) are queued, the loop does not read from the
    /// connection. It reads again when half of that is left. So one connection uses at most the
    /// limit, that high-water mark and the replies of one callback. A queued file
    /// ([`Connection::send_file`](crate::Connection::send_file)) also holds a descriptor; at most 16
    /// files wait for one connection.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().queue_limit(64 * 1024);
    /// ```
    #[must_use]
    pub fn queue_limit(mut self, bytes: usize) -> Self {
        self.queue_limit = Some(bytes);
        self
    }

    /// For [`serve_events`](crate::ServerSocket::serve_events): sets what happens when a pushed
    /// message exceeds the [`queue_limit`](ServeOptions::queue_limit). The policy does not apply to
    /// replies. Default: [`OverflowPolicy::Disconnect`].
    ///
    /// ```
    /// use keepsock::{OverflowPolicy, ServeOptions};
    /// let options = ServeOptions::new().overflow_policy(OverflowPolicy::DropOldest);
    /// ```
    #[must_use]
    pub fn overflow_policy(mut self, overflow_policy: OverflowPolicy) -> Self {
        self.overflow_policy = Some(overflow_policy);
        self
    }

    /// Sets the stack size, in bytes, of each thread that runs handlers or callbacks: from 65,536
    /// to 1,073,741,824. The system rounds it up to whole pages. Default: 2 MiB, also if other
    /// threads of the program have more (commonly 8 MiB). A handler that overflows its stack
    /// terminates the process.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().stack_size(8 * 1024 * 1024);
    /// ```
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets the CPUs of the threads that run handlers or callbacks (sched_setaffinity(2)): thread `i`
    /// runs on the CPU with the number `cpus[i % cpus.len()]` only. The first threads are the event
    /// loops; with two or more event loops the thread that accepts follows them. With a thread for each
    /// connection the option needs [`threads`](ServeOptions::threads). An empty list means any CPU,
    /// which is the default.
    ///
    /// Serving fails if a CPU does not exist or the process may not use it, and on systems other than
    /// Linux.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().threads(4).cpus(&[0, 2]);
    /// ```
    #[must_use]
    pub fn cpus(mut self, cpus: &[u32]) -> Self {
        self.cpus = cpus.to_vec();
        self
    }

    /// The number of connection entries that a service with event loops may use.
    #[cfg(feature = "capi")]
    pub(crate) fn event_entries(&self) -> usize {
        let max = self.max_connections.unwrap_or(DEFAULT_EVENT_CONNECTIONS);
        (max.min(MAX_EVENT_CONNECTIONS) + SPARE_ENTRIES) as usize
    }

    /// Checks the options for serving with a thread for each connection.
    pub(super) fn blocking_config(&self, server: &ServerSocket) -> Result<BlockingConfig> {
        let (max, pool) = self.worker_limits();
        reject_set(
            &self.event_options(),
            "with a thread for each connection: use event-driven serving",
        )?;
        if pool.is_none() && !self.cpus.is_empty() {
            return invalid(
                "cpus has no effect without threads: set the number of threads".to_owned(),
            );
        }
        Ok(BlockingConfig {
            admission: self.admission(max, server)?,
            pool,
            stack_size: self.checked_stack_size(OPERATION)?,
            cpus: self.checked_cpus()?,
        })
    }

    /// The maximum number of connections with a thread each, and the size of a fixed pool.
    fn worker_limits(&self) -> (u32, Option<usize>) {
        let max = self.max_connections.unwrap_or(MAX_THREADS.max(self.threads.unwrap_or(0)));
        let max = self.threads.map_or(max, |threads| max.min(threads));
        // One more worker rejects the clients that exceed the limit.
        let rejecting = usize::from(self.accept_policy == AcceptPolicy::Reject);
        (max, self.threads.map(|_| max as usize + rejecting))
    }

    /// Checks the options for serving with event loops.
    pub(super) fn reactor_config(&self, server: &ServerSocket) -> Result<ReactorConfig> {
        let max = self.max_connections.unwrap_or(DEFAULT_EVENT_CONNECTIONS);
        if max > MAX_EVENT_CONNECTIONS {
            return invalid(format!(
                "max_connections {} is not within 1 to {}",
                Grouped(max),
                Grouped(MAX_EVENT_CONNECTIONS)
            ));
        }
        let loops = self.threads.unwrap_or(1);
        if loops > MAX_LOOPS {
            return invalid(format!("threads {loops} is not within 1 to {MAX_LOOPS}"));
        }
        let queue_limit = self.queue_limit.unwrap_or(DEFAULT_QUEUE_LIMIT);
        check_queue_limit(queue_limit, OPERATION)?;
        let framing = self.framing.unwrap_or_default();
        framing.validate(OPERATION)?;
        Ok(ReactorConfig {
            admission: self.admission(max, server)?,
            loops,
            stack_size: self.checked_stack_size(OPERATION)?,
            cpus: self.checked_cpus()?,
            messages: MessageConfig {
                framing,
                queue_limit,
                overflow_policy: self.overflow_policy.unwrap_or_default(),
            },
        })
    }

    /// Checks the options for serving datagrams.
    #[cfg(feature = "datagram")]
    pub(crate) fn datagram_config(&self) -> Result<DatagramConfig> {
        reject_set(
            &[
                (self.max_connections.is_some(), "max_connections"),
                (self.accept_policy != AcceptPolicy::default(), "accept_policy"),
            ],
            "on datagrams",
        )?;
        reject_set(&self.address_options(), "on datagrams")?;
        reject_set(&self.event_options(), "on datagrams")?;
        let threads = self.threads.unwrap_or(1);
        if !(1..=MAX_DATAGRAM_THREADS).contains(&threads) {
            return invalid(format!(
                "threads {} is not within 1 to {}",
                Grouped(threads),
                Grouped(MAX_DATAGRAM_THREADS)
            ));
        }
        Ok(DatagramConfig {
            threads,
            stack_size: self.checked_stack_size(OPERATION)?,
            cpus: self.checked_cpus()?,
        })
    }

    /// The options that depend on the address of a peer, and whether each is set.
    fn address_options(&self) -> [(bool, &'static str); 3] {
        [
            (self.max_per_address.is_some(), "max_per_address"),
            (!self.allowed_networks.is_empty(), "allowed_network"),
            (!self.denied_networks.is_empty(), "denied_network"),
        ]
    }

    /// The options for event loops only, and whether each is set.
    fn event_options(&self) -> [(bool, &'static str); 3] {
        [
            (self.framing.is_some(), "framing"),
            (self.queue_limit.is_some(), "queue_limit"),
            (self.overflow_policy.is_some(), "overflow_policy"),
        ]
    }

    fn admission(&self, max_connections: u32, server: &ServerSocket) -> Result<AdmissionPolicy> {
        let limits = [
            (max_connections == 0, "max_connections"),
            (self.max_per_address == Some(0), "max_per_address"),
            (self.threads == Some(0), "threads"),
        ];
        if let Some((_, name)) = limits.into_iter().rev().find(|(is_zero, _)| *is_zero) {
            return invalid(format!("{name} must be greater than zero"));
        }
        if server.endpoints().all(|endpoint| !matches!(endpoint.0, Target::Inet { .. })) {
            let sockets = "on Unix sockets, whose peers have no address";
            reject_set(&self.address_options(), sockets)?;
        }
        let parse = |texts: &[String]| -> Result<Vec<_>> {
            texts.iter().map(|text| network(text, OPERATION)).collect()
        };
        Ok(AdmissionPolicy {
            max_connections,
            accept_policy: self.accept_policy,
            max_per_address: self.max_per_address,
            allowed: parse(&self.allowed_networks)?,
            denied: parse(&self.denied_networks)?,
        })
    }

    fn checked_cpus(&self) -> Result<Vec<u32>> {
        check_cpus(&self.cpus, OPERATION)?;
        Ok(self.cpus.clone())
    }

    /// The stack size of threads that run handlers or callbacks, in bytes.
    pub(crate) fn checked_stack_size(&self, operation: &'static str) -> Result<usize> {
        match self.stack_size {
            None => Ok(DEFAULT_STACK_SIZE),
            Some(bytes) if (MIN_STACK_SIZE..=MAX_STACK_SIZE).contains(&bytes) => Ok(bytes),
            Some(bytes) => Err(Error::new(ErrorKind::InvalidArgument, operation).detail(format!(
                "stack_size {} is not within {} to {} bytes",
                Grouped(bytes),
                Grouped(MIN_STACK_SIZE),
                Grouped(MAX_STACK_SIZE)
            ))),
        }
    }
}

fn invalid<T>(detail: String) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidArgument, OPERATION).detail(detail))
}

/// Checks the queue limit of a connection, in bytes.
pub(super) fn check_queue_limit(limit: usize, operation: &'static str) -> Result<()> {
    if limit > MESSAGE_OVERHEAD {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, operation).detail(format!(
        "queue_limit {limit} must be greater than {MESSAGE_OVERHEAD}: each queued message \
         counts {MESSAGE_OVERHEAD} bytes more than its length"
    )))
}

/// Rejects the first option that is set. `place` says where the option has no effect.
fn reject_set(options: &[(bool, &'static str)], place: &str) -> Result<()> {
    match options.iter().find(|(is_set, _)| *is_set) {
        Some((_, name)) => invalid(format!("{name} has no effect {place}")),
        None => Ok(()),
    }
}

/// The configuration of a service with a thread for each connection.
pub(super) struct BlockingConfig {
    pub admission: AdmissionPolicy,
    /// The size of a fixed pool.
    pub pool: Option<usize>,
    pub stack_size: usize,
    pub cpus: Vec<u32>,
}

/// The configuration of a service with event loops.
pub(super) struct ReactorConfig {
    pub admission: AdmissionPolicy,
    pub loops: u32,
    pub stack_size: usize,
    pub cpus: Vec<u32>,
    pub messages: MessageConfig,
}

/// How event loops split and queue messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageConfig {
    pub framing: Framing,
    pub queue_limit: usize,
    pub overflow_policy: OverflowPolicy,
}

/// The configuration of a datagram service.
#[cfg(feature = "datagram")]
pub(crate) struct DatagramConfig {
    pub threads: u32,
    pub stack_size: usize,
    pub cpus: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V1: the pool has as many threads as were configured, also beyond the default limit.
    #[test]
    fn threads_above_the_default_limit_are_honored() {
        for (threads, max, pool) in [(1100, None, 1100), (4, None, 4), (1100, Some(10), 10)] {
            let mut options = ServeOptions::new().threads(threads);
            options.max_connections = max;
            assert_eq!(options.worker_limits(), (pool, Some(pool as usize)));
        }
        assert_eq!(ServeOptions::new().worker_limits(), (MAX_THREADS, None));
    }
}
