//! Services, in the form of either API.

use keepsock::{CloseReason, ErrorKind, Framing, OverflowPolicy, Sockopt};

use super::help::Callbacks;
use super::os::RawFd;
use super::{Api, ConnStats, Failure, Opt, Outcome, Peer, Tuple};

#[cfg(feature = "capi")]
pub mod capi;
pub mod rust;

/// An option of a service.
#[derive(Clone, Copy)]
pub enum Serve {
    Max(u32),
    Reject,
    PerAddress(u32),
    Allow(&'static str),
    Deny(&'static str),
    Threads(u32),
    Framing(Framing),
    QueueLimit(usize),
    DropOldest,
    Stack(usize),
    Cpus(&'static [u32]),
}

pub type OnEvent<A> = Box<dyn Fn(&<A as Api>::Connection) + Send + Sync>;

pub type OnData<A> = Box<dyn Fn(&<A as Api>::Connection, &[u8]) + Send + Sync>;

pub type OnClose<A> = Box<dyn Fn(&<A as Api>::Connection, CloseReason) + Send + Sync>;

pub type OnFailed = Box<dyn Fn(Failure, usize) + Send + Sync>;

/// The function of a timer of a service.
pub type OnTimer = Box<dyn FnMut(u64) + Send>;

/// A function that is posted to a connection.
pub type OnConnection<C> = Box<dyn FnOnce(&C) + Send>;

/// The callbacks of an event-driven service. None means the default of the library.
pub struct On<A: Api> {
    pub open: Option<OnEvent<A>>,
    pub data: Option<OnData<A>>,
    pub writable: Option<OnEvent<A>>,
    pub finished: Option<OnEvent<A>>,
    pub timer: Option<OnEvent<A>>,
    pub drain: Option<OnEvent<A>>,
    pub close: Option<OnClose<A>>,
    pub connect_failed: Option<OnFailed>,
}

impl<A: Api> Default for On<A> {
    fn default() -> On<A> {
        On {
            open: None,
            data: None,
            writable: None,
            finished: None,
            timer: None,
            drain: None,
            close: None,
            connect_failed: None,
        }
    }
}

impl<A: Api> On<A> {
    /// Lets the callbacks skip the test.
    pub fn that_may_skip(self) -> On<A> {
        fn event<A: Api>(event: OnEvent<A>) -> OnEvent<A> {
            let callbacks = Callbacks::of_test();
            Box::new(move |conn| callbacks.run(|| event(conn)))
        }
        let [of_data, of_close, of_failed] = [(); 3].map(|()| Callbacks::of_test());
        On {
            open: self.open.map(event::<A>),
            data: self.data.map(|data| -> OnData<A> {
                Box::new(move |conn, bytes| of_data.run(|| data(conn, bytes)))
            }),
            writable: self.writable.map(event::<A>),
            finished: self.finished.map(event::<A>),
            timer: self.timer.map(event::<A>),
            drain: self.drain.map(event::<A>),
            close: self.close.map(|close| -> OnClose<A> {
                Box::new(move |conn, reason| of_close.run(|| close(conn, reason)))
            }),
            connect_failed: self.connect_failed.map(|failed| -> OnFailed {
                Box::new(move |failure, data| of_failed.run(|| failed(failure, data)))
            }),
        }
    }
}

/// Lets the handler of a service skip the test.
pub fn handler_that_may_skip<A: Api>(handler: Handler<A>) -> Handler<A> {
    let callbacks = Callbacks::of_test();
    Box::new(move |client| callbacks.run(|| handler(client)))
}

/// Lets a posted function skip the test.
pub fn posted_that_may_skip<C: Connection>(function: OnConnection<C>) -> OnConnection<C> {
    let callbacks = Callbacks::of_test();
    Box::new(move |conn| callbacks.run(|| function(conn)))
}

/// Lets the function of a timer skip the test.
pub fn timer_that_may_skip(mut function: OnTimer) -> OnTimer {
    let callbacks = Callbacks::of_test();
    Box::new(move |timer| callbacks.run(|| function(timer)))
}

/// The statistics of a service. -1 means not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    pub accepting: bool,
    pub connections: u32,
    pub opened: u64,
    pub closed: u64,
    pub received: i64,
    pub written: i64,
    pub sent: i64,
    pub queued: i64,
    pub dropped: i64,
    pub dropped_messages: i64,
    pub ends: Vec<(CloseReason, u64)>,
}

/// The result of a broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub sent: u32,
    pub cut: u32,
    pub dropped: u32,
    pub rejected: u32,
}

/// A handler of a service. It borrows the connection.
pub type Handler<A> = Box<dyn Fn(&<A as Api>::Client) + Send + Sync>;

/// A connection of an event-driven service.
pub trait Connection: Send + Sync + Clone + 'static {
    type Client;

    fn detach(&self, unread: &[u8]) -> Outcome<Self::Client>;
    fn send(&self, message: &[u8]) -> Outcome<()>;
    fn send_slices(&self, slices: &[&[u8]]) -> Outcome<()>;
    fn send_file(&self, fd: RawFd, offset: u64, len: u64) -> Outcome<()>;
    fn fd(&self) -> Outcome<RawFd>;
    fn close(&self);
    fn post(&self, function: OnConnection<Self>) -> Outcome<()>;
    fn abort(&self);
    fn shutdown_write(&self);
    fn pause(&self);
    fn resume(&self);
    fn queued(&self) -> usize;
    fn is_open(&self) -> bool;
    fn set_framing(&self, framing: Framing) -> Outcome<()>;
    fn set_queue_limit(&self, bytes: usize) -> Outcome<()>;
    fn set_overflow_policy(&self, overflow_policy: OverflowPolicy) -> Outcome<()>;
    fn set_timer(&self, ms: i64) -> Outcome<()>;
    fn join(&self, group: &str) -> Outcome<()>;
    fn leave(&self, group: &str);
    fn set_data(&self, data: usize);
    /// 0: none.
    fn data(&self) -> usize;
    fn id(&self) -> u64;
    /// The part of the id that differs from all other open connections.
    fn place(&self) -> usize;
    fn close_reason(&self) -> Option<CloseReason>;
    fn five_tuple(&self) -> Outcome<Tuple>;
    fn proxy_address(&self) -> Option<String>;
    fn name(&self) -> String {
        self.five_tuple().unwrap().text
    }
    fn stats(&self) -> Outcome<ConnStats>;
    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>>;
    fn peer_credentials(&self) -> Outcome<Peer>;
    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()>;
    fn sockopt(&self, option: Sockopt) -> Outcome<u32>;
    fn keepalive_values(&self) -> Outcome<(i64, i64, u32)>;
    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()>;
    fn disable_keepalive(&self) -> Outcome<()>;
    fn set_dead_after(&self, ms: i64) -> Outcome<()>;
    fn set_idle_timeout(&self, ms: i64) -> Outcome<()>;
    fn set_heartbeat(&self, bytes: &[u8], every_ms: i64) -> Outcome<()>;
    fn set_heartbeat_timeout(&self, ms: i64) -> Outcome<()>;
}

pub trait Service<A: Api>: Send + Sync + 'static {
    fn connections(&self) -> u32;
    /// Returns how many clients received the message, and how many were disconnected.
    fn broadcast(&self, message: &[u8]) -> (u32, u32);
    fn pause_accept(&self) -> Outcome<()>;
    fn resume_accept(&self) -> Outcome<()>;
    fn stop(&self);
    fn wait_stopped(&self, ms: i64) -> Outcome<()>;
    fn wait(&self, ms: i64) -> Outcome<()>;
    /// Returns how many connections ended in order, and how many were reset.
    fn drain(&self, limit_ms: i64) -> Outcome<(u32, u32)>;
    /// Sends to all connections, or to a group.
    fn push(&self, group: Option<&str>, message: &[u8]) -> Outcome<Sent>;
    /// Adds a client, which is unchanged on failure. `data` is above 0.
    fn add(&self, client: A::Client, data: usize) -> Result<A::Connection, (A::Client, Failure)>;
    fn connect(&self, endpoint: &str, options: &[Opt<'_, A>], data: usize) -> Outcome<()>;
    /// Takes a reconnect, which is unchanged on failure. `data` is above 0.
    fn reconnect(
        &self,
        reconnect: A::Reconnect,
        data: usize,
    ) -> Result<(), (A::Reconnect, Failure)>;
    fn post(&self, function: Box<dyn FnOnce() + Send>) -> Outcome<()>;
    /// `interval` 0: once.
    fn add_timer(&self, delay: i64, interval: i64, function: OnTimer) -> Outcome<u64>;
    fn remove_timer(&self, timer: u64) -> Outcome<()>;
    fn for_each(&self, visit: &mut dyn FnMut(&A::Connection)) -> Outcome<()>;
    fn stats(&self) -> Stats;
    fn dump(&self) -> String;
    /// Stops the service and waits for its end. Returns the number of open connections.
    fn stop_and_wait(&self, timeout_ms: i64) -> Outcome<u32> {
        self.stop();
        match self.wait(timeout_ms) {
            Err(failure) if failure.is(ErrorKind::TimedOut) => Ok(self.connections()),
            ended => ended.map(|()| 0),
        }
    }
}
