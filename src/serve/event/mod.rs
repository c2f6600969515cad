//! Event-driven serving: many connections on few threads.
//!
//! A connection belongs to one loop, which alone reads from it, calls back for it and closes
//! it. Any thread may write to it, under its lock; what a thread cannot do itself, it asks of
//! the loop, by putting the connection on the loop's list and waking it. No lock is held while
//! a callback runs.

mod connection;
mod groups;
mod output;
mod run;
mod slot;
mod timers;

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use connection::Connection;
use groups::Groups;
pub(in crate::serve) use output::{Dropped, OVERHEAD};
use output::{Message, Queued};
use slot::{CLOSING, CUT, LISTED, OVER, REGISTERED, Slot, Slots, WATCHES_ROOM, WROTE};

use crate::client::{ClientSocket, end_by_error};
use crate::connect::Connecting;
use crate::error::{Error, ErrorKind, Result};
use crate::info::{Address, End, FiveTuple};
use crate::liveness::{Asked, Watch};
use crate::serve::gate::{Gate, State};
use crate::serve::options::Push;
use crate::serve::snapshot::Traffic;
use crate::serve::{Broadcast, Drained, ServeOptions, Service};
use crate::server::ServerSocket;
use crate::sys::{self, Owned, Registry, Tick, Wait};

/// Something of the program's that goes with a connection: [`Connection::data`].
pub type Data = Arc<dyn Any + Send + Sync>;

/// What a server does about its connections, for
/// [`serve_events`](crate::ServerSocket::serve_events). A closure is one that only takes data.
///
/// For one connection the calls come one at a time: [`open`](Handler::open) first,
/// [`close`](Handler::close) last. With [`threads`](ServeOptions::threads) above one, those for
/// different connections come at once. A call that waits holds up all connections of its
/// thread. No lock is held meanwhile: any method of [`Connection`] and [`Service`] may be
/// called on any connection, except that the service is neither drained nor dropped there. A
/// call that panics has its connection reset.
///
/// ```
/// use keepsock::{Connection, Handler};
///
/// struct Upper;
///
/// impl Handler for Upper {
///     fn open(&self, connection: &Connection) {
///         let _ = connection.send(b"hello\n");
///     }
///     fn data(&self, connection: &Connection, data: &[u8]) {
///         let _ = connection.send(&data.to_ascii_uppercase());
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// A connection was accepted, or [added](Service::add).
    fn open(&self, connection: &Connection) {
        let _ = connection;
    }

    /// A message came; with [`Framing::Raw`](crate::Framing::Raw) some bytes.
    fn data(&self, connection: &Connection, data: &[u8]);

    /// All that waited for the peer has been taken by the kernel.
    fn writable(&self, connection: &Connection) {
        let _ = connection;
    }

    /// The peer has ended its side (FIN): nothing more comes, but it may still read. Unless this
    /// is implemented, the connection is closed. It is over when this side has ended, too
    /// ([`shutdown_write`](Connection::shutdown_write)), and everything was sent.
    fn finished(&self, connection: &Connection) {
        connection.close();
    }

    /// The time has come that [`Connection::set_timer`] was given.
    fn timer(&self, connection: &Connection) {
        let _ = connection;
    }

    /// The service [drains](Service::drain): say goodbye, and close. Unless this is
    /// implemented, the connection is closed.
    fn drain(&self, connection: &Connection) {
        connection.close();
    }

    /// A [`connect`](Service::connect) has come to nothing: no connection was opened for this
    /// `data`.
    fn connect_failed(&self, error: &Error, data: Option<Data>) {
        let _ = (error, data);
    }

    /// The connection is over, and why. Its addresses can still be asked for, nothing can be
    /// sent.
    fn close(&self, connection: &Connection, end: End) {
        let _ = (connection, end);
    }
}

impl<F: Fn(&Connection, &[u8]) + Send + Sync + 'static> Handler for F {
    fn data(&self, connection: &Connection, data: &[u8]) {
        self(connection, data);
    }
}

/// No connection: of the loop that calls back for none.
const NONE: u32 = u32::MAX;

pub(super) struct Events {
    gate: Gate<Places>,
    handler: Box<dyn Handler>,
    push: Push,
    asked: Asked,
    close_timeout: Duration,
    slots: Slots,
    loops: Box<[Shared]>,
    groups: Groups,
    traffic: Traffic,
    start: Tick,
    /// Every connection is to be told so, also one that is accepted only now.
    draining: AtomicBool,
    /// Connections were added, so that places are taken that accepting does not know of.
    added: AtomicBool,
    /// Every connection is to be cut.
    over: AtomicBool,
    /// So are the loops to end, then.
    ending: AtomicBool,
}

/// Where a connection comes from.
enum Origin {
    Accepted,
    Added(Option<Data>),
}

/// Which places are taken, and by whom.
struct Places {
    free: Vec<u32>,
    used: u32,
    of_loop: Box<[u32]>,
    threads: Vec<JoinHandle<()>>,
    /// Accepting waits until a connection ends.
    full: bool,
    /// The loop that accepts has not ended that yet.
    accepts: bool,
}

impl Places {
    /// A place, and the loop with the fewest connections.
    fn take(&mut self) -> (u32, usize) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        });
        let fewest = self.of_loop.iter().enumerate().min_by_key(|(_, n)| **n);
        let number = fewest.map_or(0, |(number, _)| number);
        self.of_loop[number] += 1;
        (index, number)
    }

    fn give_back(&mut self, index: u32, number: usize) {
        self.free.push(index);
        self.of_loop[number] -= 1;
    }
}

/// What other threads see of a loop.
struct Shared {
    registry: Registry,
    /// Connections that it is to look at.
    list: Mutex<Vec<u32>>,
    /// The connection that it calls back for now, which it looks at afterwards if it was changed
    /// meanwhile.
    current: AtomicU32,
    changed: AtomicBool,
    /// What it is to see to beside what occurs: [`LOOK`] and others. Zero, mostly.
    orders: AtomicU32,
    /// Connects that it is to go on with.
    begun: Mutex<Vec<(Connecting, Option<Data>)>>,
}

/// There are connections in the list.
const LOOK: u32 = 1;
/// There are connects to begin with.
const CONNECT: u32 = 1 << 1;
/// Every connection is to be told that the service drains.
const DRAIN: u32 = 1 << 2;
/// Every connection is to be cut: it stays so.
const CUT_ALL: u32 = 1 << 3;
/// There is room again for a connection that waits to be accepted, or the server was closed.
const ACCEPT: u32 = 1 << 4;

impl Shared {
    /// Gives an order, and wakes the loop unless it is the one that asks.
    fn order(&self, order: u32, here: bool) {
        self.orders.fetch_or(order, Ordering::SeqCst);
        if !here {
            self.registry.wake();
        }
    }
}

thread_local! {
    /// The service and the loop that this thread runs.
    static HERE: Cell<(*const Events, usize)> = const { Cell::new((std::ptr::null(), 0)) };
}

impl ServerSocket {
    /// Serves many connections on few threads, one by default: `handler` is called when
    /// something occurs. Returns at once.
    ///
    /// A connection that is idle costs about a hundred bytes and no time. Each may be sent to
    /// from any thread, [`broadcasts`](Service::broadcast) go to all or to a group, and what a
    /// slow client does not take waits within
    /// [`max_queued`](ServeOptions::max_queued) bytes. The options that the server listens with
    /// hold for connections: [`heartbeat`](crate::SocketOptions::heartbeat),
    /// [`idle_limit`](crate::SocketOptions::idle_limit),
    /// [`first_byte_limit`](crate::SocketOptions::first_byte_limit),
    /// [`dead_after`](crate::SocketOptions::dead_after) and
    /// [`close_timeout`](crate::SocketOptions::close_timeout) are kept by the loops; read and
    /// write timeouts are for calls that wait, which there are none of, and saved SYNs and last
    /// snapshots for a [`ClientSocket`].
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options out of range,
    /// [`Closed`](ErrorKind::Closed), [`NoMemory`](ErrorKind::NoMemory) and
    /// [`NoDescriptors`](ErrorKind::NoDescriptors) if a loop cannot be made,
    /// [`Unsupported`](ErrorKind::Unsupported) on Windows.
    ///
    /// ```
    /// use keepsock::{ClientSocket, Connection, Framing, ServeOptions, ServerSocket};
    /// # #[cfg(unix)] {
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let options = ServeOptions::new().framing(Framing::Lines { max: 1024 });
    /// let service = server.serve_events(&options, |connection: &Connection, line: &[u8]| {
    ///     let _ = connection.send(line);
    /// })?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// client.write_all(b"hello\n")?;
    /// assert_eq!(client.read_line(100)?, "hello");
    /// # drop(client);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn serve_events(&self, options: &ServeOptions, handler: impl Handler) -> Result<Service> {
        self.serve_events_for(options, handler, |service| service)
    }

    /// No callback comes before `take` has returned, so that it finds what that has kept.
    pub(crate) fn serve_events_for<T>(
        &self,
        options: &ServeOptions,
        handler: impl Handler,
        take: impl FnOnce(Service) -> T,
    ) -> Result<T> {
        const OPERATION: &str = "serve";
        let failed = |e: io::Error| Error::os(OPERATION, &e).at(self.endpoint());
        let (limits, push) = options.for_events(OPERATION).map_err(|e| e.at(self.endpoint()))?;
        if self.options().sequenced {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .at(self.endpoint())
                .detail("packets are not served by events"));
        }
        self.start_polling()
            .map_err(|_| Error::new(ErrorKind::Closed, OPERATION).at(self.endpoint()))?;
        let (mut pollers, mut loops) = (Vec::new(), Vec::new());
        for _ in 0..push.loops {
            let (poller, registry) = sys::Poller::new().map_err(failed)?;
            pollers.push(poller);
            loops.push(Shared {
                registry,
                list: Mutex::default(),
                current: AtomicU32::new(NONE),
                changed: AtomicBool::new(false),
                orders: AtomicU32::new(0),
                begun: Mutex::default(),
            });
        }
        let places = Places {
            free: Vec::new(),
            used: 0,
            of_loop: vec![0; loops.len()].into(),
            threads: Vec::new(),
            full: false,
            accepts: true,
        };
        let socket_options = self.options();
        let events = Arc::new(Events {
            slots: Slots::new(limits.connections),
            gate: Gate::new(self, limits, places),
            handler: Box::new(handler),
            push,
            asked: socket_options.liveness.clone(),
            close_timeout: socket_options.close_timeout,
            loops: loops.into(),
            groups: Groups::default(),
            traffic: Traffic::default(),
            start: Tick::now(),
            draining: AtomicBool::new(false),
            added: AtomicBool::new(false),
            over: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        });
        // From here on dropping it ends the loops that were started.
        let service = Service::of_events(events.clone());
        let _held = events.gate.hand_over();
        // The first one last: it accepts for the others.
        for (number, poller) in pollers.into_iter().enumerate().rev() {
            let its = events.clone();
            let thread = std::thread::Builder::new()
                .name("keepsock-events".to_owned())
                .spawn(move || run::run(&its, number, poller));
            match thread {
                Ok(thread) => events.started(thread),
                Err(e) => {
                    return Err(Error::new(ErrorKind::NoMemory, OPERATION)
                        .at(self.endpoint())
                        .with_os_error(e.raw_os_error())
                        .detail("no thread can be started"));
                }
            }
        }
        Ok(take(service))
    }
}

/// What a send came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// The kernel has it, or it waits its turn.
    Yes,
    /// It, or older ones, were dropped.
    Dropped,
    /// The connection takes no more.
    Ending,
    /// That was one too many.
    Overrun,
    /// The connection has broken off.
    Broken(End),
}

impl Events {
    pub(super) fn gate(&self) -> &Gate<impl Sized> {
        &self.gate
    }

    fn started(&self, thread: JoinHandle<()>) {
        self.gate.lock().own.threads.push(thread);
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn is_serving_here(&self) -> bool {
        HERE.get().0 == std::ptr::from_ref(self)
    }

    /// The service's clock, in steps of 8 ms, from 1.
    #[inline]
    fn now(&self) -> u64 {
        let since = Tick::now().since(self.start);
        (since.as_secs() * 1000 + u64::from(since.subsec_millis())) / STEP_MS + 1
    }

    /// Has the loop of a connection look at it.
    fn attend(&self, slot: &mut Slot, index: u32) {
        let number = usize::from(slot.worker);
        let Some(its) = self.loops.get(number) else {
            return;
        };
        let here = HERE.get() == (std::ptr::from_ref(self), number);
        if here && its.current.load(Ordering::Relaxed) == index {
            its.changed.store(true, Ordering::Relaxed);
            return;
        }
        if slot.has(LISTED) {
            return;
        }
        slot.flags |= LISTED;
        its.list.lock().unwrap_or_else(PoisonError::into_inner).push(index);
        its.order(LOOK, here);
    }

    fn send(&self, index: u32, generation: u32, message: &Message<'_>) -> Sent {
        match self.slots.lock(index) {
            Some(mut slot) if slot.generation == generation => {
                self.send_locked(&mut slot, index, message)
            }
            _ => Sent::Ending,
        }
    }

    /// Hands a message to the kernel, or has it wait. Its order is that of the lock.
    #[inline]
    fn send_locked(&self, slot: &mut Slot, index: u32, message: &Message<'_>) -> Sent {
        if !slot.sends() {
            return Sent::Ending;
        }
        let Some(socket) = &slot.socket else {
            return Sent::Ending;
        };
        let total = message.len();
        let mut done = 0;
        if slot.output.as_ref().is_none_or(|output| output.is_empty()) {
            let socket = sys::borrow(socket);
            while done < total {
                let sent = match message.plain() {
                    Some(bytes) => sys::send(socket, &bytes[done..], Wait::No),
                    None => {
                        let mut slices = message.slices();
                        let mut left = &mut slices[..];
                        io::IoSlice::advance_slices(&mut left, done);
                        sys::send_slices(socket, left, Wait::No)
                    }
                };
                match sent {
                    Ok(n) => done += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return self.broken(slot, index, &e),
                }
            }
            slot.flags |= WROTE;
            if self.asked.heartbeat.is_some() {
                slot.wrote = self.now() as u32;
            }
            self.traffic.sent(done);
        }
        if done == total {
            self.traffic.written(total);
            return Sent::Yes;
        }
        self.queue(slot, index, message, done)
    }

    #[cold]
    fn queue(&self, slot: &mut Slot, index: u32, message: &Message<'_>, done: usize) -> Sent {
        let output = slot.output.get_or_insert_default();
        let queued = output.push(message, done, self.push.max_queued, self.push.when_slow);
        let dropped = match queued {
            Queued::Yes { dropped } => {
                self.traffic.written(message.len());
                self.watch_room(slot, index);
                dropped
            }
            Queued::No { dropped } => {
                self.traffic.written(message.len());
                dropped
            }
            Queued::Overrun => {
                self.traffic.written(done);
                slot.note_end(End::Overrun);
                // Its memory is free at once, whenever its loop comes to it.
                self.give_up_output(slot);
                slot.flags |= CUT;
                self.attend(slot, index);
                return Sent::Overrun;
            }
        };
        self.traffic.dropped(dropped);
        if dropped == Dropped::default() { Sent::Yes } else { Sent::Dropped }
    }

    /// The kernel is to tell when there is room. One that is not registered yet will be.
    fn watch_room(&self, slot: &mut Slot, index: u32) {
        if !slot.has(REGISTERED) || slot.has(WATCHES_ROOM) {
            return;
        }
        let Some(socket) = &slot.socket else {
            return;
        };
        let registry = &self.loops[usize::from(slot.worker)].registry;
        match registry.add_writable(sys::borrow(socket), index as usize) {
            Ok(()) => slot.flags |= WATCHES_ROOM,
            // Out of memory: what waits would wait for ever.
            Err(_) => {
                slot.flags |= CUT;
                self.attend(slot, index);
            }
        }
    }

    fn give_up_output(&self, slot: &mut Slot) {
        if let Some(output) = slot.output.take() {
            self.traffic.dropped(output.dropped());
        }
    }

    /// The kernel has told that the connection is over.
    #[cold]
    fn broken(&self, slot: &mut Slot, index: u32, err: &io::Error) -> Sent {
        let end = match (&slot.socket, err.raw_os_error()) {
            (Some(socket), Some(code)) => {
                end_by_error(sys::borrow(socket), code, Some(&self.asked))
            }
            _ => End::ResetByPeer,
        };
        slot.note_end(end);
        slot.flags |= CUT;
        self.attend(slot, index);
        Sent::Broken(slot.end().unwrap_or(end))
    }

    /// Closes once what waits was sent and taken.
    fn close(&self, index: u32, generation: u32) {
        self.change(index, generation, |slot| {
            if !slot.has(CLOSING | CUT | OVER) {
                slot.note_end(End::ClosedHere);
                slot.flags |= CLOSING;
            }
        });
    }

    fn abort(&self, index: u32, generation: u32) {
        self.change(index, generation, |slot| {
            slot.note_end(End::ClosedHere);
            slot.flags |= CUT;
        });
    }

    /// Changes a connection that lives, and has its loop look at it.
    fn change(&self, index: u32, generation: u32, change: impl FnOnce(&mut Slot)) {
        match self.slots.lock(index) {
            Some(mut slot) if slot.generation == generation && !slot.has(OVER) => {
                change(&mut slot);
                self.attend(&mut slot, index);
            }
            _ => {}
        }
    }

    fn five_tuple(&self, slot: &Slot) -> FiveTuple {
        let remote = slot.peer();
        let local = slot
            .socket
            .as_ref()
            .and_then(|socket| socket2::SockRef::from(&sys::borrow(socket)).local_addr().ok());
        let local = local.map_or(Address::UnixUnnamed, |name| sys::to_address(&name));
        FiveTuple { protocol: remote.protocol(), local, remote }
    }

    /// Stops accepting; the loop that accepts is to see it.
    pub(super) fn stop(&self) {
        self.gate.stop();
        self.loops[0].order(ACCEPT, false);
    }

    /// Puts a connection in its place, and has its loop begin with it.
    fn place(
        &self,
        index: u32,
        number: usize,
        socket: Owned,
        peer: &Address,
        origin: Origin,
    ) -> u32 {
        self.slots.make(index);
        let Some(mut slot) = self.slots.lock(index) else {
            return 0;
        };
        // There are at most 256 loops.
        let accepted = matches!(origin, Origin::Accepted);
        slot.begin(socket, peer, accepted, number as u8, self.now() as u32);
        if let Origin::Added(Some(data)) = origin {
            slot.rare().data = Some(data);
        }
        if let Some(time) = self.asked.watched().filter(|_| slot.is_inet()) {
            slot.rare().watch = Some(Watch::new(Instant::now(), time));
        }
        if HERE.get() != (std::ptr::from_ref(self), number) {
            self.attend(&mut slot, index);
        }
        slot.generation
    }

    /// Has a loop go on with a connect.
    pub(super) fn connect(&self, connecting: Connecting, data: Option<Data>) -> Result<()> {
        let (service, number) = HERE.get();
        let number = if service == std::ptr::from_ref(self) { number } else { 0 };
        let its = &self.loops[number];
        let mut begun = its.begun.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a loop that ends looks at it for the last time after this was set.
        if self.over.load(Ordering::SeqCst) {
            drop(begun);
            return Err(self.gate.error(ErrorKind::Closed, "connect"));
        }
        begun.push((connecting, data));
        drop(begun);
        its.order(CONNECT, service == std::ptr::from_ref(self));
        Ok(())
    }

    /// Takes in a connection that the program made.
    pub(super) fn add(
        self: &Arc<Self>,
        socket: &ClientSocket,
        data: Option<Data>,
    ) -> Result<Connection> {
        let mut state = self.gate.lock();
        if state.over {
            drop(state);
            return Err(self.gate.error(ErrorKind::Closed, "add"));
        }
        if state.own.free.is_empty() && state.own.used >= self.gate.limits.connections {
            drop(state);
            let error = self.gate.error(ErrorKind::WrongState, "add");
            return Err(error.detail("every place is taken"));
        }
        self.added.store(true, Ordering::SeqCst);
        // Under the lock, so that it is given up only when there is a place for it.
        let released = socket.release().map_err(|e| e.during("add"))?;
        self.gate.let_in(&mut state);
        let (index, number) = state.own.take();
        drop(state);
        let generation = self.place(index, number, released, socket.peer(), Origin::Added(data));
        if HERE.get() == (std::ptr::from_ref(self), number) {
            // Not from within the callback that this may be.
            self.slots.lock(index).into_iter().for_each(|mut slot| self.attend(&mut slot, index));
        }
        Ok(Connection { events: self.clone(), index, generation })
    }

    /// Every place that was ever taken.
    fn places(&self) -> u32 {
        self.gate.lock().own.used
    }

    pub(super) fn broadcast(&self, message: &[u8], group: Option<&str>) -> Result<Broadcast> {
        let mut result = Broadcast::default();
        let message = self.message(message, "broadcast")?;
        let mut send = |index: u32, slot: &mut Slot| match self.send_locked(slot, index, &message) {
            Sent::Yes => result.sent += 1,
            Sent::Dropped => {
                result.sent += 1;
                result.dropped += 1;
            }
            Sent::Overrun | Sent::Broken(_) => result.cut += 1,
            Sent::Ending => {}
        };
        match group {
            None => {
                for index in 0..self.places() {
                    if let Some(mut slot) = self.slots.lock(index) {
                        send(index, &mut slot);
                    }
                }
            }
            Some(group) => {
                for (index, generation) in self.groups.members(group) {
                    match self.slots.lock(index) {
                        Some(mut slot) if slot.generation == generation => send(index, &mut slot),
                        _ => {}
                    }
                }
            }
        }
        Ok(result)
    }

    /// A message as it goes out.
    #[inline(always)]
    fn message<'a>(&self, body: &'a [u8], operation: &'static str) -> Result<Message<'a>> {
        match Message::new(self.push.framing, body) {
            Some(message) if message.len().saturating_add(OVERHEAD) <= self.push.max_queued => {
                Ok(message)
            }
            other => Err(self.no_message(body.len(), other.is_some(), operation)),
        }
    }

    #[cold]
    fn no_message(&self, len: usize, is_large: bool, operation: &'static str) -> Error {
        let most = self.push.max_queued;
        let (kind, what) = match is_large {
            true => (ErrorKind::TooLong, format!("{len} bytes are more than may wait: {most}")),
            false => {
                let what = format!("{len} bytes are more than the prefix can say");
                (ErrorKind::InvalidArgument, what)
            }
        };
        self.gate.error(kind, operation).detail(what)
    }

    fn refuse_here(&self, operation: &'static str) -> Result<()> {
        if self.is_serving_here() {
            let refused = self.gate.error(ErrorKind::WrongState, operation);
            return Err(refused.detail("called from inside a callback"));
        }
        Ok(())
    }

    pub(super) fn finish(&self, limit: Duration) -> Result<u32> {
        self.refuse_here("finish")?;
        self.stop();
        Ok(self.gate.finish(limit, |state| state.own.accepts))
    }

    pub(super) fn drain(&self, limit: Duration) -> Result<Drained> {
        self.refuse_here("drain")?;
        let accepts = |state: &State<Places>| state.own.accepts;
        let tell = |_: &mut State<Places>| {
            self.draining.store(true, Ordering::SeqCst);
            // The loop that accepts is to see that it does not any more.
            self.order_all(DRAIN | ACCEPT);
        };
        let cut = |_: &mut State<Places>| {
            self.over.store(true, Ordering::SeqCst);
            self.order_all(CUT_ALL);
        };
        Ok(self.gate.drain(limit, accepts, tell, cut))
    }

    fn order_all(&self, order: u32) {
        for its in &self.loops {
            its.order(order, false);
        }
    }

    /// Stops, cuts what is left, and waits for the loops, unless this is one of them.
    pub(super) fn end(&self) {
        self.gate.stop();
        let mut state = self.gate.lock();
        state.over = true;
        let threads = std::mem::take(&mut state.own.threads);
        drop(state);
        self.over.store(true, Ordering::SeqCst);
        self.ending.store(true, Ordering::SeqCst);
        self.order_all(CUT_ALL);
        if self.is_serving_here() {
            return;
        }
        for thread in threads {
            // Callbacks that panic are caught in the thread.
            let _ = thread.join();
        }
    }

    fn look(&self, mut each: impl FnMut(&Slot)) {
        for index in 0..self.places() {
            if let Some(slot) = self.slots.lock(index).filter(|slot| slot.has(slot::LIVE)) {
                each(&slot);
            }
        }
    }

    /// Bytes that wait.
    pub(super) fn queued(&self) -> u64 {
        let mut queued = 0;
        self.look(|slot| queued += slot.output.as_ref().map_or(0, |o| o.bytes() as u64));
        queued
    }

    /// For each connection: who it is, what waits for it, and how long ago something came, if the
    /// system tells.
    pub(super) fn list(&self) -> Vec<(FiveTuple, u64, Option<Duration>)> {
        let mut all = Vec::new();
        self.look(|slot| {
            let queued = slot.output.as_ref().map_or(0, |output| output.bytes() as u64);
            let socket = slot.socket.as_ref().filter(|_| slot.is_inet());
            let info = socket.and_then(|socket| sys::tcp_info(sys::borrow(socket)).ok());
            all.push((self.five_tuple(slot), queued, info.and_then(|info| info.last_received)));
        });
        all
    }
}

/// Steps of the clock are coarse: what is timed here is at least some tens of milliseconds.
const STEP_MS: u64 = 8;

/// How many steps ago a stamp was taken. Another thread's clock may be a step ahead.
fn age(now: u64, stamp: u32) -> u64 {
    let steps = (now as u32).wrapping_sub(stamp);
    if steps > u32::MAX / 2 { 0 } else { u64::from(steps) }
}

fn span(steps: u64) -> Duration {
    Duration::from_millis(steps.saturating_mul(STEP_MS))
}

/// In steps, rounded up: nothing is due before its time.
fn steps(time: Duration) -> u64 {
    let millis = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX).div_ceil(STEP_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_on_a_clock_that_goes_round() {
        assert_eq!(age(100, 90), 10);
        assert_eq!(age(90, 91), 0, "another thread's stamp");
        assert_eq!(age((1 << 32) + 5, u32::MAX - 4), 10);
        assert_eq!(steps(Duration::from_millis(17)), 3);
        assert_eq!(steps(Duration::from_nanos(1)), 1);
        assert_eq!(span(3), Duration::from_millis(24));
    }
}
