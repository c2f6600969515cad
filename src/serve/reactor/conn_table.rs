//! The table of connection entries. It grows, and entries are reused. Most connections are idle and
//! there are many of them, so data that few connections need is kept outside the entry.

use std::any::Any;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use super::Connection;
use super::send_queue::{SendQueue, Watermarks};
use super::tasks::Tasks;
use crate::io::memory::listed;
use crate::reconnect::Reconnect;
use crate::serve::capacity::MESSAGE_OVERHEAD;
use crate::serve::options::MessageConfig;
use crate::stream::liveness::{AckProgress, PeerWatch};
use crate::sys::Owned;
use crate::sys::fork::{self, lock_inherited};
use crate::sys::sync::{Mutex, MutexGuard};
use crate::types::address::Address;
use crate::types::close_reason::CloseReason;
use crate::types::framing::{Framing, Splitter};
use crate::types::liveness::LivenessConfig;

/// The entry holds a connection.
pub(super) const LIVE: u32 = 1;
/// The connection is registered with the loop's poller.
pub(super) const REGISTERED: u32 = 1 << 1;
/// The poller also reports when the connection is writable.
pub(super) const WATCHES_WRITABLE: u32 = 1 << 2;
pub(super) const PAUSED: u32 = 1 << 3;
/// The loop must read, because the poller reports readable bytes once.
pub(super) const READ_PENDING: u32 = 1 << 4;
pub(super) const RECEIVED: u32 = 1 << 5;
pub(super) const WROTE: u32 = 1 << 6;
/// The peer has shut down its sending side.
pub(super) const RECV_EOF: u32 = 1 << 7;
/// The program has shut down this side. The loop sends the FIN after the queued bytes.
pub(super) const FIN_WANTED: u32 = 1 << 8;
pub(super) const FIN_SENT: u32 = 1 << 9;
/// The program or a timeout closes the connection. The loop closes it once the peer has received
/// all queued bytes.
pub(super) const CLOSING: u32 = 1 << 10;
/// The close timeout has expired.
pub(super) const CLOSE_TIMED_OUT: u32 = 1 << 11;
/// The loop resets the connection and drops the queued bytes.
pub(super) const RESET_PENDING: u32 = 1 << 12;
/// The close callback is running or has run. No other callback runs.
pub(super) const CLOSED: u32 = 1 << 13;
/// The entry is on its loop's list of pending entries.
pub(super) const QUEUED: u32 = 1 << 14;
/// The peer is connected through a Unix socket.
const UNIX: u32 = 1 << 15;
/// The EOF callback has run.
pub(super) const EOF_DELIVERED: u32 = 1 << 16;
/// The open callback has not run.
pub(super) const UNOPENED: u32 = 1 << 17;
/// A listener accepted the connection; the program did not add it.
const ACCEPTED: u32 = 1 << 18;
/// The drain callback has run.
pub(super) const DRAIN_DELIVERED: u32 = 1 << 19;
/// The queued replies exceed the high-water mark, so the loop does not read.
pub(super) const THROTTLED: u32 = 1 << 20;
/// The input may contain complete messages, because the program paused the connection, it is
/// [`THROTTLED`], or the program has changed its framing. They are delivered before the loop reads
/// more and before the EOF callback.
pub(super) const BUFFERED: u32 = 1 << 21;
/// The connection has its own configuration ([`ColdState::own_config`]).
pub(super) const OWN_CONFIG: u32 = 1 << 22;
/// The connection has failed. The loop closes it once the received bytes are delivered, which waits
/// while the program pauses the connection.
pub(super) const FAILED: u32 = 1 << 23;
/// A thread was inside fork(2) when the entry was opened, so a forked child may be without the
/// descriptor.
const OPENED_DURING_FORK: u32 = 1 << 24;
/// The bits above the flags contain the number of the [`CloseReason`], or 0.
const REASON_SHIFT: u32 = 25;

/// The number of connections that an entry may hold in its lifetime. After that an id could be
/// equal to one that a program still keeps, here or in the C API, which counts to twice as many.
const GENERATIONS: u32 = 1 << 30;

/// A value of the program that belongs to a connection:
/// [`Connection::data`](crate::Connection::data).
pub type Data = Arc<dyn Any + Send + Sync>;

/// A client that connects again after its connection was lost, with the data of each connection. It
/// is in an event loop while it has no connection.
pub(super) type Reconnecting = (Box<Reconnect>, Option<Data>);

/// The origin of a connection.
pub(super) enum Origin {
    Accepted,
    Added(Added),
}

/// A connection that the program made.
pub(super) struct Added {
    pub data: Option<Data>,
    pub config: Arc<ConnConfig>,
    pub reconnect: Option<Reconnecting>,
    /// The bytes that were received before.
    pub unread: Vec<u8>,
    pub has_received: bool,
    pub has_written: bool,
    pub is_half_closed: bool,
    pub is_active_open: bool,
}

/// The addresses of a connection behind a proxy that its entry does not have as those of the peer.
pub(super) struct Via {
    /// The address that the client has connected to.
    pub local: Address,
    pub proxy: Address,
}

pub(super) struct ConnEntry {
    pub queue: Option<Box<SendQueue>>,
    pub cold: Option<Box<ColdState>>,
    /// The peer's IP address. An IPv4 address is stored as an IPv4-mapped address (RFC 4291 section
    /// 2.5.5.2).
    ip: [u8; 16],
    port: u16,
    pub worker: u8,
    /// The number of heartbeats sent since `beat`, including that one.
    pub beats: u8,
    pub flags: u32,
    pub socket: Option<Owned>,
    /// Distinguishes the connection from earlier ones in the same entry.
    pub generation: u32,
    /// The times at which bytes were last received, and at which the kernel last accepted bytes of
    /// the program.
    pub received: u32,
    pub wrote: u32,
    /// The time of the heartbeat whose answer the heartbeat timeout waits for.
    pub beat: u32,
    /// The time for which a timer is set, or 0.
    pub due: u32,
}

/// The configuration of a connection.
#[derive(Debug, Clone)]
pub(super) struct ConnConfig {
    pub messages: MessageConfig,
    /// The maximum length of a message that is sent without a check of the queue limit. 0 if the
    /// framing adds bytes to sent messages or checks them.
    pub max_plain: usize,
    /// Each send records its time.
    pub stamps_writes: bool,
    pub watermarks: Watermarks,
    pub close_timeout: Duration,
    pub liveness: LivenessConfig,
}

impl ConnConfig {
    pub(super) fn new(
        liveness: LivenessConfig,
        close_timeout: Duration,
        messages: MessageConfig,
    ) -> ConnConfig {
        ConnConfig {
            max_plain: match messages.framing {
                Framing::Raw => messages.queue_limit.saturating_sub(MESSAGE_OVERHEAD),
                _ => 0,
            },
            stamps_writes: liveness.stamps_writes(),
            watermarks: Watermarks::new(messages.queue_limit),
            messages,
            close_timeout,
            liveness,
        }
    }
}

/// The data that few connections need.
#[derive(Default)]
pub(super) struct ColdState {
    pub input: Option<Input>,
    pub data: Option<Data>,
    /// The functions that the program has posted.
    pub tasks: Tasks<Connection>,
    pub groups: HashSet<Arc<str>>,
    /// When the timer callback is due, counted from the start of the service.
    pub timer: Option<Duration>,
    /// The time for which the loop has the connection in its program timers.
    pub timer_set: Option<Duration>,
    /// When to read and send again after the kernel had no memory.
    pub retry: Option<u64>,
    /// When the close timeout expires.
    pub close_by: Option<u64>,
    pub watch: Option<PeerWatch>,
    /// The connection has [`FAILED`] after the peer's FIN, which follows the received bytes.
    pub failed_after_fin: bool,
    /// The progress of sent bytes, tracked once the idle timeout depends on it.
    pub sending: Option<AckProgress>,
    /// The local address of a connection that the program has [detached](super::detach).
    pub detached_local: Option<Address>,
    /// The configuration of a connection that the program added or has configured.
    pub own_config: Option<Arc<ConnConfig>>,
    /// This side sent the SYN.
    pub is_active_open: bool,
    /// Connects again after this connection.
    pub reconnect: Option<Reconnecting>,
    /// The address of a peer that `ip` and `port` cannot represent: a Unix socket with a name, or
    /// an IPv6 address with a scope. Behind a proxy also a Unix socket without a name.
    peer: Option<Address>,
    /// Set if the connection comes from a proxy, and its peer is the client of the proxy.
    pub via: Option<Box<Via>>,
}

/// The beginning of a message, or complete messages that the program does not accept yet
/// ([`BUFFERED`]).
pub(super) struct Input {
    pub bytes: Vec<u8>,
    /// The state of the search for the end of the first message. `None`: the search has not begun.
    pub splitter: Option<Splitter>,
}

/// The next step of a connection that is closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextAction {
    Nothing,
    SendFin,
    Close { reset: bool },
}

impl ConnEntry {
    fn empty() -> ConnEntry {
        ConnEntry {
            queue: None,
            cold: None,
            ip: [0; 16],
            port: 0,
            worker: 0,
            beats: 0,
            flags: 0,
            socket: None,
            generation: 1,
            received: 0,
            wrote: 0,
            beat: 0,
            due: 0,
        }
    }

    pub(super) fn open(
        &mut self,
        socket: Owned,
        peer: &Address,
        via: Option<Via>,
        accepted: bool,
        worker: u8,
        now: u32,
    ) {
        self.socket = Some(socket);
        self.flags = LIVE | UNOPENED | if accepted { ACCEPTED } else { 0 };
        if fork::is_forking() {
            self.flags |= OPENED_DURING_FORK;
        }
        self.worker = worker;
        (self.received, self.wrote, self.due) = (now, now, 0);
        (self.beat, self.beats) = (now, 0);
        match peer {
            Address::Inet(inet) => {
                (self.ip, self.port) = match inet.ip() {
                    IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), inet.port()),
                    IpAddr::V6(ip) => (ip.octets(), inet.port()),
                };
                if matches!(inet, SocketAddr::V6(inet) if inet.scope_id() != 0) {
                    self.cold().peer = Some(peer.clone());
                }
            }
            // The connection to the proxy is a TCP connection.
            other if via.is_some() => self.cold().peer = Some(other.clone()),
            other => {
                self.flags |= UNIX;
                if *other != Address::UnixUnnamed {
                    self.cold().peer = Some(other.clone());
                }
            }
        }
        if let Some(via) = via {
            self.cold().via = Some(Box::new(via));
        }
    }

    /// Sets the state of a connection that the program made, after [`open`](ConnEntry::open).
    pub(super) fn set_added(&mut self, added: Added) {
        let Added { data, config, reconnect, unread, is_active_open, .. } = added;
        self.flags |= OWN_CONFIG;
        if added.has_received || !unread.is_empty() {
            self.flags |= RECEIVED;
        }
        // Bytes that the program wrote before it added the connection may still be in flight.
        if added.has_written {
            self.flags |= WROTE;
        }
        if added.is_half_closed {
            self.flags |= FIN_WANTED | FIN_SENT;
        }
        let cold = self.cold();
        (cold.data, cold.own_config, cold.reconnect) = (data, Some(config), reconnect);
        cold.is_active_open = is_active_open;
        if !unread.is_empty() {
            cold.input = Some(Input { bytes: unread, splitter: None });
            self.flags |= BUFFERED | READ_PENDING;
        }
    }

    /// Whether the entry has held as many connections as it may, so that it is not used again.
    pub(super) fn is_exhausted(&self) -> bool {
        self.generation >= GENERATIONS
    }

    /// Frees the entry for the next connection. The caller drops the returned values after it has
    /// released the lock.
    pub(super) fn clear(&mut self) -> (Option<Owned>, Option<Box<ColdState>>) {
        self.flags = 0;
        // Never 0, so that no connection has the id 0.
        self.generation = self.generation.wrapping_add(1).max(1);
        self.queue = None;
        (self.socket.take(), self.cold.take())
    }

    /// Closes what this process, a forked child, has of the connection's descriptors.
    pub(super) fn close_copies(&mut self) {
        let socket = self.socket.take();
        if self.has(OPENED_DURING_FORK) {
            // The number may be that of another file of the child, or no descriptor.
            std::mem::forget(socket);
        }
        if let Some(queue) = self.queue.take() {
            queue.close_copies();
        }
    }

    /// Whether a listener accepted the connection.
    pub(super) fn is_accepted(&self) -> bool {
        self.has(ACCEPTED)
    }

    pub(super) fn cold(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_default()
    }

    #[inline]
    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    pub(super) fn is_inet(&self) -> bool {
        !self.has(UNIX)
    }

    pub(super) fn peer(&self) -> Address {
        match self.cold.as_ref().and_then(|cold| cold.peer.clone()) {
            Some(peer) => peer,
            None if self.has(UNIX) => Address::UnixUnnamed,
            None => SocketAddr::new(Ipv6Addr::from(self.ip).into(), self.port).into(),
        }
    }

    /// The addresses of the proxy that the peer has connected through.
    pub(super) fn via(&self) -> Option<&Via> {
        self.cold.as_ref()?.via.as_deref()
    }

    /// The address that the socket itself is connected to: that of the peer, or of its proxy.
    pub(super) fn socket_peer(&self) -> Address {
        self.via().map_or_else(|| self.peer(), |via| via.proxy.clone())
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        CloseReason::from_number((self.flags >> REASON_SHIFT) as i32)
    }

    /// Records why the connection ends. The first reason is kept, with one exception: after a FIN
    /// of the peer the connection is still open, so a later timeout or limit replaces that reason.
    pub(super) fn record_close_reason(&mut self, end: CloseReason) {
        let later =
            end.follows_fin() || matches!(end, CloseReason::SlowConsumer | CloseReason::Detached);
        if self.close_reason().is_none()
            || later && self.close_reason() == Some(CloseReason::PeerClosed)
        {
            self.flags = self.flags & ((1 << REASON_SHIFT) - 1) | (end as u32) << REASON_SHIFT;
        }
    }

    /// Whether the entry holds a connection between its first and its last callback.
    pub(super) fn is_open(&self) -> bool {
        self.has(LIVE) && !self.has(UNOPENED | CLOSED)
    }

    /// Whether functions of the program wait to be called.
    #[inline]
    pub(super) fn has_tasks(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| !cold.tasks.is_empty())
    }

    /// The number of bytes in the send queue.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    pub(super) fn has_queued(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }

    /// Whether idle and heartbeat timeouts apply. They also apply to a connection that is
    /// [`THROTTLED`] or whose peer has sent a FIN, and not to one that the program paused, unless it
    /// has failed.
    pub(super) fn counts_idle_time(&self) -> bool {
        !self.has(CLOSING | RESET_PENDING | CLOSED)
            && self.has(LIVE)
            && (!self.has(PAUSED) || self.has(FAILED))
    }

    /// Whether the loop may read now. An event may be for an earlier connection of the entry and come
    /// before `on_open`: the registration of a closed descriptor stays while a forked child holds a
    /// copy (epoll(7)).
    #[inline]
    pub(super) fn may_read(&self) -> bool {
        let not_now = PAUSED | THROTTLED | BUFFERED | CLOSING | RESET_PENDING | CLOSED | RECV_EOF;
        !self.has(UNOPENED | not_now) && self.has(LIVE)
    }

    /// Whether the loop receives and discards input, because the connection is closing.
    #[inline]
    pub(super) fn discards(&self) -> bool {
        self.has(CLOSING) && !self.has(RESET_PENDING | CLOSED | RECV_EOF)
    }

    /// Stops reading while the queued replies exceed the high-water mark, and starts again when
    /// they are at or below the low-water mark.
    pub(super) fn update_throttle(&mut self, watermarks: Watermarks) {
        let replies = self.queue.as_ref().map_or(0, |queue| queue.replies());
        if replies > watermarks.high {
            self.flags |= THROTTLED;
        } else if replies <= watermarks.low && self.has(THROTTLED) {
            self.flags = self.flags & !THROTTLED | READ_PENDING;
        }
    }

    /// Whether the program may still send.
    #[inline]
    pub(super) fn may_send(&self) -> bool {
        !self.has(CLOSING | RESET_PENDING | CLOSED | FIN_WANTED | FAILED) && self.has(LIVE)
    }

    pub(super) fn next_action(&self) -> NextAction {
        match () {
            () if self.has(CLOSED) || !self.has(LIVE) => NextAction::Nothing,
            () if self.has(RESET_PENDING) => NextAction::Close { reset: true },
            () if self.has(FAILED) => match self.has(CLOSING | EOF_DELIVERED) {
                true => NextAction::Close { reset: true },
                false => NextAction::Nothing,
            },
            () if self.has(CLOSE_TIMED_OUT) => NextAction::Close { reset: self.has_queued() },
            () if self.has_queued() => NextAction::Nothing,
            // No bytes can be lost: none were written, or the peer reads no more.
            () if self.has(CLOSING) && (!self.has(WROTE) || self.has(RECV_EOF)) => {
                NextAction::Close { reset: false }
            }
            () if self.has(CLOSING | FIN_WANTED) && !self.has(FIN_SENT) => NextAction::SendFin,
            // Both sides are shut down, and the EOF callback has run.
            () if self.has(FIN_SENT) && self.has(RECV_EOF) && self.has(EOF_DELIVERED) => {
                NextAction::Close { reset: false }
            }
            () => NextAction::Nothing,
        }
    }
}

/// The number of entries in a block.
const BLOCK: usize = 256;

/// The table of entries. A block is allocated when it is first needed and never moves, so an entry
/// is found without any other lock than its own.
pub(super) struct ConnTable(Box<[OnceLock<Block>]>);

type Block = Box<[Mutex<ConnEntry>; BLOCK]>;

impl ConnTable {
    /// Returns `None` if there is not enough memory.
    pub(super) fn new(most: u32) -> Option<ConnTable> {
        let blocks = (most as usize).div_ceil(BLOCK);
        let table = listed(blocks, std::iter::repeat_with(OnceLock::new))?;
        Some(ConnTable(table.into_boxed_slice()))
    }

    /// Allocates the block that contains an entry, unless it exists. `reserve` then allocates what
    /// the handler needs for the entries of the block: the first one, and their number. Returns
    /// false if there is not enough memory. One thread at a time may call this function.
    #[inline]
    pub(super) fn ensure_block(
        &self,
        index: u32,
        reserve: impl FnOnce(usize, usize) -> bool,
    ) -> bool {
        let number = index as usize / BLOCK;
        self.0.get(number).is_some_and(|block| {
            block.get().is_some()
                || reserve(number * BLOCK, BLOCK) && ConnTable::allocate(block).is_some()
        })
    }

    #[cold]
    fn allocate(block: &OnceLock<Block>) -> Option<()> {
        // Collected on the heap, because an array would first be built on the stack.
        let entries = std::iter::repeat_with(|| Mutex::new(ConnEntry::empty()));
        block.set(listed(BLOCK, entries)?.try_into().ok()?).ok()
    }

    #[inline]
    fn entry(&self, index: u32) -> Option<&Mutex<ConnEntry>> {
        let block = self.0.get(index as usize / BLOCK)?.get()?;
        Some(&block[index as usize % BLOCK])
    }

    #[inline]
    pub(super) fn lock(&self, index: u32) -> Option<MutexGuard<'_, ConnEntry>> {
        Some(self.entry(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Locks an entry in a forked child. Returns `None` if a thread of the parent held its lock.
    pub(super) fn lock_inherited(&self, index: u32) -> Option<MutexGuard<'_, ConnEntry>> {
        lock_inherited(self.entry(index)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::OverflowPolicy;
    use crate::serve::capacity::MESSAGE_OVERHEAD;
    use crate::serve::reactor::send_queue::{Body, Message};
    use crate::types::framing::Framing;

    /// F7: the memory of an idle connection, including its lock.
    #[test]
    fn idle_entry_is_at_most_72_bytes() {
        // On Windows a socket has 8 bytes.
        let most = if cfg!(windows) { 80 } else { 72 };
        assert!(size_of::<Mutex<ConnEntry>>() <= most, "{}", size_of::<Mutex<ConnEntry>>());
    }

    #[test]
    fn peer_returns_the_address_of_open() {
        let mut entry = ConnEntry::empty();
        let file = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for peer in ["192.0.2.1:80", "[2001:db8::1]:443", "[fe80::1%3]:7"] {
            let peer = Address::from(peer.parse::<SocketAddr>().unwrap());
            entry.open(file.try_clone().unwrap().into(), &peer, None, true, 0, 0);
            assert_eq!(entry.peer(), peer);
            entry.clear();
        }
        for peer in [Address::UnixUnnamed, Address::UnixAbstract(b"name".to_vec())] {
            entry.open(file.try_clone().unwrap().into(), &peer, None, true, 0, 0);
            assert_eq!(entry.peer(), peer);
            assert!(!entry.is_inet());
            entry.clear();
        }
        assert_eq!(entry.generation, 6);
    }

    /// I3: queued bytes are delivered before the close, within the close timeout; a close that can
    /// lose nothing does not wait.
    #[test]
    fn next_action_delivers_before_the_close() {
        let mut entry = ConnEntry::empty();
        let close = |reset| NextAction::Close { reset };
        let message = Message::new(Framing::Raw, Body::Whole(b"reply")).unwrap();
        let mut waiting = SendQueue::default();
        waiting.push(&message, 0, 1000, OverflowPolicy::Disconnect);
        assert_eq!(entry.next_action(), NextAction::Nothing);
        for (flags, has_queued, next) in [
            (0, false, NextAction::Nothing),
            (CLOSING, false, close(false)),
            (CLOSING | WROTE, true, NextAction::Nothing),
            (CLOSING | WROTE, false, NextAction::SendFin),
            (CLOSING | WROTE | FIN_SENT, false, NextAction::Nothing),
            (CLOSING | WROTE | FIN_SENT | RECV_EOF, false, close(false)),
            (CLOSING | WROTE | RECV_EOF, true, NextAction::Nothing),
            (CLOSING | WROTE | RECV_EOF, false, close(false)),
            (CLOSING | WROTE | CLOSE_TIMED_OUT, true, close(true)),
            (CLOSING | WROTE | FIN_SENT | CLOSE_TIMED_OUT, false, close(false)),
            (FIN_WANTED | WROTE, true, NextAction::Nothing),
            (FIN_WANTED | WROTE, false, NextAction::SendFin),
            (FIN_WANTED | FIN_SENT | WROTE, false, NextAction::Nothing),
            (FIN_WANTED | FIN_SENT | RECV_EOF, false, NextAction::Nothing),
            (FIN_WANTED | FIN_SENT | RECV_EOF | EOF_DELIVERED, true, NextAction::Nothing),
            (FIN_WANTED | FIN_SENT | RECV_EOF | EOF_DELIVERED, false, close(false)),
            (RESET_PENDING | CLOSING | WROTE, true, close(true)),
            (RESET_PENDING | CLOSED, true, NextAction::Nothing),
            (FAILED | PAUSED | FIN_WANTED, false, NextAction::Nothing),
            (FAILED | PAUSED | RECV_EOF, false, NextAction::Nothing),
            (FAILED | RECV_EOF | EOF_DELIVERED, false, close(true)),
            (FAILED | PAUSED | CLOSING, false, close(true)),
        ] {
            entry.flags = LIVE | flags;
            entry.queue = has_queued.then(|| {
                let mut queue = SendQueue::default();
                queue.push(&message, 0, 1000, OverflowPolicy::Disconnect);
                Box::new(queue)
            });
            assert_eq!(entry.next_action(), next, "{flags:b}, has_queued: {has_queued}");
        }
    }

    /// V8: reading stops above the high-water mark and starts again at the low-water mark,
    /// independent of a pause by the program.
    #[test]
    fn update_throttle_stops_reading_between_the_watermarks() {
        let watermarks = Watermarks::new(4 * 2 * (10 + MESSAGE_OVERHEAD));
        let mut entry = ConnEntry::empty();
        entry.flags = LIVE;
        let reply = Message::new(Framing::Raw, Body::Whole(&[1; 10])).unwrap();
        for (replies, held) in [(1, false), (2, false), (3, true), (2, true), (1, false)] {
            let mut queue = SendQueue::default();
            for _ in 0..replies {
                queue.reply(&reply, 0);
            }
            entry.queue = Some(Box::new(queue));
            entry.update_throttle(watermarks);
            assert_eq!((entry.has(THROTTLED), entry.may_read()), (held, !held), "{replies}");
            assert!(entry.counts_idle_time());
        }
        assert!(entry.has(READ_PENDING), "the loop reads the bytes that arrived");
        entry.flags |= PAUSED;
        entry.queue = None;
        entry.update_throttle(watermarks);
        assert!(entry.has(PAUSED) && !entry.may_read());
    }

    /// K6: the first close reason is kept, unless a connection fails after the peer's FIN.
    #[test]
    fn record_close_reason_keeps_the_first() {
        let mut entry = ConnEntry::empty();
        assert_eq!(entry.close_reason(), None);
        for (end, then) in [
            (CloseReason::PeerClosed, CloseReason::PeerClosed),
            (CloseReason::Local, CloseReason::PeerClosed),
            (CloseReason::PeerReset, CloseReason::PeerReset),
            (CloseReason::Dead, CloseReason::PeerReset),
            (CloseReason::SlowConsumer, CloseReason::PeerReset),
            (CloseReason::IdleTimeout, CloseReason::PeerReset),
        ] {
            entry.record_close_reason(end);
            assert_eq!(entry.close_reason(), Some(then));
        }
    }
}
