//! A service with event loops: its start, the connections that the program adds, and its end.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::clock::steps;
use super::conn_table::{Added, ConnConfig, ConnEntry, ConnTable, LIVE, Origin, Via};
use super::event_loop;
use super::groups::Groups;
use super::loop_shared::{
    CMD_ACCEPT, CMD_CONNECT, CMD_DRAIN, CMD_POST, CMD_RESET_ALL, CMD_TIMERS, Connecting, LoopShared,
};
use super::service_timers::{ServiceTimers, TimerFunction};
use super::slots::SlotAllocator;
use super::tasks::{Task, append, task};
use super::{Connection, Data, HERE, Handler, ReactorService};
use crate::connect::PendingConnect;
use crate::io::memory::boxed;
use crate::listener::ServerSocket;
use crate::reconnect::Reconnect;
use crate::serve::capacity::SPARE_ENTRIES;
use crate::serve::lifecycle::{Backend, Locked, ServiceState};
use crate::serve::options::ReactorConfig;
use crate::serve::stats::Traffic;
use crate::serve::threads::{ServiceThreads, spawn_error};
use crate::serve::{ServeOptions, Service};
use crate::stream::liveness::PeerWatch;
use crate::stream::{ClientSocket, Transfer};
use crate::sys::sync::MutexGuard;
use crate::sys::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sys::{self, Owned, Tick};
use crate::types::address::{Address, FiveTuple};
use crate::types::error::{Error, ErrorKind, Result};

/// A loop that has been in callbacks for this time gets no new connections while another loop is
/// free.
const BUSY: Duration = Duration::from_millis(40);

/// Creates the two halves of an event loop: the one that waits, and the one that other threads use.
fn new_loop() -> io::Result<(sys::Poller, LoopShared)> {
    let (poller, registry) = sys::Poller::new()?;
    Ok((poller, LoopShared::new(registry)))
}

impl ServerSocket {
    /// Serves many connections with few threads, one by default. Each thread runs an event loop
    /// and calls `handler`. Returns immediately.
    ///
    /// An idle connection costs about a hundred bytes and no time. Any thread may send to a
    /// connection, [broadcasts](Service::broadcast) go to all connections or to a group, and bytes
    /// that a slow client does not accept are queued within the
    /// [`queue_limit`](ServeOptions::queue_limit).
    ///
    /// The event loops apply these options of the server socket to each connection:
    /// [`heartbeat`](crate::SocketOptions::heartbeat),
    /// [`idle_timeout`](crate::SocketOptions::idle_timeout),
    /// [`first_byte_timeout`](crate::SocketOptions::first_byte_timeout),
    /// [`dead_after`](crate::SocketOptions::dead_after) and
    /// [`close_timeout`](crate::SocketOptions::close_timeout). They receive the PROXY header of a
    /// [`trusted_proxy`](crate::SocketOptions::trusted_proxy) before `on_open`.
    ///
    /// The threads have a [stack](ServeOptions::stack_size) of 2 MiB by default and inherit the
    /// signal mask of the calling thread. After an error the server still listens and can be
    /// used as before.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range or not valid; a
    ///   limit by address is set, but the server listens on Unix sockets only; or the server
    ///   socket has an option that only a [`ClientSocket`] uses
    ///   ([`save_syn`](crate::SocketOptions::save_syn),
    ///   [`keep_stats`](crate::SocketOptions::keep_stats),
    ///   [`seqpacket`](crate::SocketOptions::seqpacket),
    ///   [`read_timeout`](crate::SocketOptions::read_timeout),
    ///   [`write_timeout`](crate::SocketOptions::write_timeout)).
    /// - [`Closed`](ErrorKind::Closed): the server socket is closed.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`NoDescriptors`](ErrorKind::NoDescriptors): the system
    ///   has no memory, thread or descriptor for an event loop.
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

    /// Serves as [`serve_events`](ServerSocket::serve_events) does. The first callback runs after
    /// `take` has returned, so callbacks find the service where `take` stores it.
    pub(crate) fn serve_events_for<T>(
        &self,
        options: &ServeOptions,
        handler: impl Handler,
        take: impl FnOnce(Service) -> T,
    ) -> Result<T> {
        const OPERATION: &str = "serve";
        let at = |e: Error| e.at(self.endpoint());
        let no_memory = || at(Error::new(ErrorKind::NoMemory, OPERATION));
        let ReactorConfig { admission, loops: serving, stack_size, cpus, messages } =
            options.reactor_config(self).map_err(at)?;
        let socket_options = self.options();
        socket_options.refuse_calls_only(OPERATION).map_err(at)?;
        let (mut pollers, mut loops) = (Vec::new(), Vec::new());
        // A single loop also accepts. Several loops leave accepting to another thread, because a
        // callback that blocks would delay all new clients.
        let serving = serving as usize;
        let acceptor = if serving > 1 { serving } else { 0 };
        for _ in 0..serving.max(acceptor + 1) {
            let (poller, shared) = new_loop().map_err(|e| at(Error::helper(OPERATION, &e)))?;
            pollers.push(poller);
            loops.push(shared);
        }
        let threads = ServiceThreads::new("keepsock-events", stack_size, cpus);
        let table = ConnTable::new(admission.max_connections + SPARE_ENTRIES);
        let service = Arc::new(ReactorService {
            table: table.ok_or_else(no_memory)?,
            state: ServiceState::new(self, admission, threads, SlotAllocator::new(serving)),
            handler: Box::new(handler),
            accepted_config: Arc::new(ConnConfig::new(
                socket_options.liveness.clone(),
                socket_options.close_timeout,
                messages,
            )),
            loops: loops.into(),
            acceptor,
            groups: Groups::default(),
            tasks: Default::default(),
            timers: Default::default(),
            traffic: Traffic::default(),
            start: Tick::now(),
            draining: AtomicBool::new(false),
            drain_by: AtomicU64::new(u64::MAX),
            added: AtomicBool::new(false),
            reset_all: AtomicBool::new(false),
            exit_when_empty: AtomicBool::new(false),
        });
        self.start_polling().map_err(|_| at(Error::new(ErrorKind::Closed, OPERATION)))?;
        let mut watched = Some(event_loop::watch(&service)?);
        let start = || {
            for (number, poller) in pollers.into_iter().enumerate() {
                let of_thread = service.clone();
                let buf = event_loop::new_buffer().ok_or_else(no_memory)?;
                let watched = watched.take_if(|_| number == acceptor);
                let work = move || event_loop::run(&of_thread, number, poller, buf, watched);
                let spawned = service.state.threads.start(work);
                spawned.map_err(|e| at(spawn_error(OPERATION, &e)))?;
            }
            Ok(())
        };
        service.state.threads.publish(start, || take(Service::of_reactor(service.clone())))
    }
}

impl Backend for ReactorService {
    type Members = SlotAllocator;

    fn state(&self) -> &ServiceState<SlotAllocator> {
        &self.state
    }

    fn is_admitting(slots: &SlotAllocator) -> bool {
        slots.accepts
    }

    /// Stops accepting. The accepting loop then detects that the server socket is closed.
    fn stop(&self) {
        self.state.stop();
        self.loops[self.acceptor].post_command(CMD_ACCEPT, false);
        self.end_reconnects();
    }

    fn accept_pause_changed(&self) {
        self.loops[self.acceptor].post_command(CMD_ACCEPT, false);
    }

    fn notify_draining(&self, _: &mut SlotAllocator, timeout: Duration) {
        let deadline = self.now().saturating_add(steps(timeout));
        self.drain_by.fetch_min(deadline, Ordering::SeqCst);
        self.draining.store(true, Ordering::SeqCst);
        self.post_to_all(CMD_DRAIN);
    }

    fn end_connections(&self, _: &mut SlotAllocator) {
        self.reset_all.store(true, Ordering::SeqCst);
        self.post_to_all(CMD_RESET_ALL);
    }

    fn end_when_empty(&self) {
        self.exit_when_empty.store(true, Ordering::SeqCst);
    }

    /// Closes the child's copies of the connections' descriptors. The event loops, and the
    /// descriptors that they wait with, belong to the parent.
    fn close_copies(&self) {
        let used = self.state.lock_inherited().map_or(0, |locked| locked.members.used());
        for index in 0..used {
            if let Some(mut entry) = self.table.lock_inherited(index) {
                entry.close_copies();
            }
        }
    }
}

impl ReactorService {
    /// Opens the entry of a connection, and lets its loop call `on_open`.
    pub(super) fn install(
        &self,
        index: u32,
        number: usize,
        socket: Owned,
        peer: &Address,
        via: Option<Via>,
        origin: Origin,
    ) {
        let Some(mut entry) = self.table.lock(index) else {
            return;
        };
        let accepted = matches!(origin, Origin::Accepted);
        // There are at most 256 loops.
        entry.open(socket, peer, via, accepted, number as u8, self.now() as u32);
        if let Origin::Added(added) = origin {
            entry.set_added(added);
        }
        let watched = self.config(&entry).liveness.watched();
        if let Some(time) = watched.filter(|_| entry.is_inet()) {
            entry.cold().watch = Some(PeerWatch::new(Instant::now(), time));
        }
        if HERE.get() != (std::ptr::from_ref(self), number) {
            self.schedule(&mut entry, index);
        }
    }

    /// Allocates an entry and chooses its loop. Returns `None` if the process has no memory for it.
    pub(super) fn alloc_slot(&self, slots: &mut SlotAllocator) -> Option<(u32, usize)> {
        let (index, number) = if self.acceptor == 0 {
            slots.alloc(|_| (false, false))
        } else {
            let now = self.now();
            slots.alloc(|number| {
                let since = self.loops[number].busy_since.load(Ordering::Relaxed);
                (since != 0 && now.saturating_sub(since) >= steps(BUSY), since != 0)
            })
        };
        let reserve = |first, count| self.handler.reserve(first, count);
        if self.table.ensure_block(index, reserve) {
            return Some((index, number));
        }
        slots.free(index, number, true);
        None
    }

    /// Fails if the service has ended, or serves `max_connections` connections.
    pub(in crate::serve) fn require_free_slot(&self, operation: &'static str) -> Result<()> {
        let checked = self.check_capacity(&self.state.lock());
        checked.map_err(|kind| self.capacity_error(kind, operation))
    }

    fn check_capacity(&self, locked: &Locked<SlotAllocator>) -> std::result::Result<(), ErrorKind> {
        match () {
            () if locked.ended => Err(ErrorKind::Closed),
            () if locked.live >= self.state.admission.max_connections => Err(ErrorKind::WrongState),
            () => Ok(()),
        }
    }

    fn capacity_error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        let error = self.state.error(kind, operation);
        match kind {
            ErrorKind::WrongState => {
                let max = self.state.admission.max_connections;
                error.detail(format!(
                    "the service has {max} connections, as many as max_connections permits"
                ))
            }
            _ => error,
        }
    }

    /// Passes a connect to a loop: to the loop of the calling thread, or to the first one.
    pub(in crate::serve) fn connect(
        &self,
        pending: PendingConnect,
        data: Option<Data>,
    ) -> Result<()> {
        self.request(Connecting::Once(Box::new(pending)), data)
            .map_err(|connecting| connecting.error(ErrorKind::Closed))
    }

    /// Takes a client that connects again after its connection was lost. On failure it stays.
    pub(in crate::serve) fn reconnect(
        &self,
        reconnect: &mut Reconnect,
        data: Option<Data>,
    ) -> Result<()> {
        if self.has_stopped() {
            return Err(self.state.error(ErrorKind::Closed, "reconnect"));
        }
        // This calls the functions of the program that watch the client, so no lock is held.
        let taken = Box::new(reconnect.take());
        self.request(Connecting::Again(taken), data).map_err(|connecting| {
            let error = connecting.error(ErrorKind::Closed);
            if let Connecting::Again(taken) = connecting {
                *reconnect = *taken;
            }
            error
        })
    }

    /// Passes a connect to a loop. Returns it if the service has ended.
    fn request(
        &self,
        connecting: Connecting,
        data: Option<Data>,
    ) -> std::result::Result<(), Connecting> {
        let is_own_loop = self.runs_here();
        let shared = &self.loops[if is_own_loop { HERE.get().1 } else { 0 }];
        let mut locked = self.state.lock();
        // A loop takes the last connects after `ended` was set.
        if locked.ended {
            return Err(connecting);
        }
        locked.tasks += 1;
        let mut connects = shared.new_connects.lock().unwrap_or_else(PoisonError::into_inner);
        drop(locked);
        connects.push((connecting, data));
        drop(connects);
        shared.post_command(CMD_CONNECT, is_own_loop);
        Ok(())
    }

    /// Whether accepting has stopped, after which no client connects again.
    pub(super) fn has_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Lets each loop end the reconnects that have no connection, after accepting has stopped.
    pub(super) fn end_reconnects(&self) {
        self.post_to_all(CMD_CONNECT);
    }

    /// Counts a task that has ended: a connect whose connection was added or whose
    /// `on_connect_failed` has returned, or a function that has returned.
    pub(super) fn task_ended(&self) {
        let mut locked = self.state.lock();
        locked.tasks -= 1;
        let is_relevant = locked.may_have_ended();
        self.state.notify(locked, is_relevant);
    }

    /// Adds a connection that the program made. `reconnect` is taken on success. `on_id` receives the
    /// id that the handler has for the connection, before `on_open` is called.
    pub(in crate::serve) fn add(
        self: &Arc<Self>,
        socket: &ClientSocket,
        data: Option<Data>,
        reconnect: &mut Option<Box<Reconnect>>,
        on_id: impl FnOnce(u64),
    ) -> Result<Connection> {
        let mut locked = self.state.lock();
        if let Err(kind) = self.check_capacity(&locked) {
            drop(locked);
            return Err(self.capacity_error(kind, "add"));
        }
        self.added.store(true, Ordering::SeqCst);
        let Some((index, number)) = self.alloc_slot(&mut locked.members) else {
            drop(locked);
            return Err(self.capacity_error(ErrorKind::NoMemory, "add"));
        };
        // Taken under the lock, so that the socket keeps its descriptor unless an entry is free.
        let taken = match socket.take_out("add") {
            Ok(taken) => taken,
            Err(e) => {
                locked.members.free(index, number, true);
                return Err(e);
            }
        };
        self.state.count_opened(&mut locked);
        drop(locked);
        let generation = self.table.lock(index).map_or(0, |entry| entry.generation);
        let connection = Connection { service: self.clone(), index, generation };
        on_id(self.handler.prepare(&connection, data.as_ref()));
        let Transfer { remote, proxied, liveness, close_timeout, .. } = taken;
        let (peer, via) = match proxied {
            Some((client, local)) => (client, Some(Via { local, proxy: remote })),
            None => (remote, None),
        };
        let origin = Origin::Added(Added {
            reconnect: reconnect.take().map(|reconnect| (reconnect, data.clone())),
            data,
            config: Arc::new(ConnConfig::new(
                liveness,
                close_timeout,
                self.accepted_config.messages,
            )),
            unread: taken.unread,
            has_received: taken.has_received,
            has_written: taken.has_written,
            is_half_closed: taken.is_half_closed,
            is_active_open: taken.is_active_open,
        });
        self.install(index, number, taken.socket, &peer, via, origin);
        if HERE.get() == (std::ptr::from_ref(self), number) {
            // `on_open` must not run inside the callback that may be running now.
            let entry = self.table.lock(index);
            entry.into_iter().for_each(|mut entry| self.schedule(&mut entry, index));
        }
        Ok(connection)
    }

    /// Whether the calling thread runs the first loop.
    fn is_first_loop(&self) -> bool {
        HERE.get() == (std::ptr::from_ref(self), 0)
    }

    /// Posts a function to the first loop.
    pub(in crate::serve) fn post(&self, function: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut task = task(move |(): &()| function());
        let posted = match &task {
            None => Err(ErrorKind::NoMemory),
            Some(_) => self.append_task(&mut task),
        };
        posted.map_err(|kind| self.state.error(kind, "post"))
    }

    fn append_task(
        &self,
        task: &mut Option<Box<dyn Task<()>>>,
    ) -> std::result::Result<(), ErrorKind> {
        let mut locked = self.state.lock();
        // The loop takes the last functions after `ended` was set.
        if locked.ended {
            return Err(ErrorKind::Closed);
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = tasks.is_empty();
        append(&mut tasks, task)?;
        locked.tasks += 1;
        drop((locked, tasks));
        // Otherwise the loop has not handled the command of an earlier function.
        if is_first {
            self.loops[0].post_command(CMD_POST, self.is_first_loop());
        }
        Ok(())
    }

    /// The time since the service was created, with the resolution of the hardware.
    pub(super) fn elapsed(&self) -> Duration {
        Tick::precise().since(self.start)
    }

    pub(super) fn lock_timers(&self) -> MutexGuard<'_, ServiceTimers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a timer of the first loop, and returns its id.
    pub(in crate::serve) fn add_timer(
        &self,
        delay: Duration,
        interval: Option<Duration>,
        function: impl FnMut(u64) + Send + 'static,
    ) -> Result<u64> {
        const OPERATION: &str = "add timer";
        if interval.is_some_and(|interval| interval < Duration::from_millis(1)) {
            let error = self.state.error(ErrorKind::InvalidArgument, OPERATION);
            return Err(error.detail("the interval must be at least 1 ms"));
        }
        let now = self.elapsed();
        let mut function = boxed(function).map(|function| -> Box<dyn TimerFunction> { function });
        let mut add = || {
            function.as_ref().ok_or(ErrorKind::NoMemory)?;
            let locked = self.state.lock();
            // No function is called after `ended` was set.
            if locked.ended {
                return Err(ErrorKind::Closed);
            }
            let added = self.lock_timers().add(now, delay, interval, &mut function);
            drop(locked);
            added
        };
        let (id, is_first) = add().map_err(|kind| self.state.error(kind, OPERATION))?;
        if is_first {
            self.loops[0].post_command(CMD_TIMERS, self.is_first_loop());
        }
        Ok(id)
    }

    pub(in crate::serve) fn remove_timer(&self, id: u64) -> Result<()> {
        // The guard is released before the function is dropped, which may run code of the program.
        let removed = self.lock_timers().remove(id);
        removed.map(drop).map_err(|()| {
            let error = self.state.error(ErrorKind::WrongState, "remove timer");
            error.detail(format!("timer {id} has expired, was removed or never existed"))
        })
    }

    /// The connections whose `on_open` has been called, and whose `on_close` has not.
    pub(in crate::serve) fn connections(self: &Arc<Self>) -> Result<Vec<Connection>> {
        let used = self.slot_count();
        let mut open = Vec::new();
        for index in 0..used {
            let Some(entry) = self.table.lock(index).filter(|entry| entry.is_open()) else {
                continue;
            };
            let generation = entry.generation;
            drop(entry);
            if open.try_reserve(1).is_err() {
                return Err(self.state.error(ErrorKind::NoMemory, "list connections"));
            }
            open.push(Connection { service: self.clone(), index, generation });
        }
        Ok(open)
    }

    /// The number of entries that have ever been in use.
    pub(super) fn slot_count(&self) -> u32 {
        self.state.lock().members.used()
    }

    pub(super) fn post_to_all(&self, command: u32) {
        for shared in &self.loops {
            shared.post_command(command, false);
        }
    }

    fn for_each_entry(&self, mut visit: impl FnMut(&ConnEntry)) {
        for index in 0..self.slot_count() {
            if let Some(entry) = self.table.lock(index).filter(|entry| entry.has(LIVE)) {
                visit(&entry);
            }
        }
    }

    /// The bytes in all send queues.
    pub(in crate::serve) fn queued_bytes(&self) -> u64 {
        let mut queued = 0;
        self.for_each_entry(|entry| queued = entry.queued_bytes().saturating_add(queued));
        queued
    }

    /// For each connection: its addresses, its queued bytes, and the time since the last bytes were
    /// received, if the kernel reports it.
    pub(in crate::serve) fn connection_states(&self) -> Vec<(FiveTuple, u64, Option<Duration>)> {
        let mut all = Vec::new();
        self.for_each_entry(|entry| {
            let socket = entry.socket.as_ref().filter(|_| entry.is_inet());
            let info = socket.and_then(|socket| sys::tcp_info(sys::borrow(socket)).ok());
            let quiet = info.and_then(|info| info.last_received);
            all.push((self.five_tuple(entry), entry.queued_bytes(), quiet));
        });
        all
    }
}
