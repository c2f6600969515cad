//! Serving: one thread for each confirmed connection.
//!
//! There is no thread that accepts for the others. Each worker accepts for
//! itself and serves what it accepted, so a connection costs no hand-over and
//! no wake-up between threads. The worker that takes the last idle place
//! starts another one, up to the bound; beyond a few spare ones, a worker that
//! finds enough others idle ends.

mod limits;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::client::{ClientSocket, Pushed};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::server::{OUT_OF_DESCRIPTORS, ServerSocket};
use crate::wait::Deadline;
use limits::{Crowd, Limits};
pub(crate) use limits::{Refusal, network};

/// Idle workers that stay for the next connections. On Linux each of them holds
/// one free descriptor number while it waits in accept.
const SPARE: usize = 8;

/// How long a broadcast waits, in all, for clients that are in the middle of
/// another write.
const BROADCAST_PATIENCE: Duration = Duration::from_millis(100);

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

/// How [`ServerSocket::serve_with`] serves.
///
/// ```
/// use keepsock::{ServeOptions, WhenFull};
/// let options = ServeOptions::new().max_connections(100).when_full(WhenFull::Refuse);
/// ```
#[derive(Debug, Clone)]
pub struct ServeOptions {
    max_connections: u32,
    when_full: WhenFull,
    max_per_address: Option<u32>,
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Default for ServeOptions {
    fn default() -> ServeOptions {
        ServeOptions {
            max_connections: 1024,
            when_full: WhenFull::Wait,
            max_per_address: None,
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

impl ServeOptions {
    /// The defaults.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new();
    /// ```
    pub fn new() -> ServeOptions {
        ServeOptions::default()
    }

    /// How many connections are served at once, and so how many threads there
    /// are at most (one more if it is to refuse). Default: 1024.
    ///
    /// ```
    /// let options = keepsock::ServeOptions::new().max_connections(50);
    /// ```
    #[must_use]
    pub fn max_connections(mut self, max: u32) -> Self {
        self.max_connections = max;
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
    /// may. What is no network [`serve_with`](ServerSocket::serve_with) refuses.
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

    fn limits(&self, operation: &'static str) -> Result<Limits> {
        let parse = |texts: &[String]| -> Result<Vec<_>> {
            texts.iter().map(|text| network(text, operation)).collect()
        };
        Ok(Limits {
            per_address: self.max_per_address,
            allow: parse(&self.allow)?,
            deny: parse(&self.deny)?,
        })
    }
}

/// How a [`drain`](Service::drain) went.
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let service = server.serve(|_| ())?;
/// let drained = service.drain(std::time::Duration::from_secs(5))?;
/// println!("{} finished, {} cut", drained.finished, drained.cut);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Connections whose handler ended by itself.
    pub finished: u32,
    /// Connections that were reset when the time was over.
    pub cut: u32,
}

/// How far a [`broadcast`](Service::broadcast) came.
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// # let service = server.serve(|_| ())?;
/// let result = service.broadcast(b"news\n");
/// println!("sent to {}, cut off {}", result.sent, result.cut);
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Broadcast {
    /// Clients whose kernel took the message.
    pub sent: u32,
    /// Clients that did not keep up, or were gone, and were reset.
    pub cut: u32,
}

type Handler = dyn Fn(&Arc<ClientSocket>) + Send + Sync;

/// A server at work, from [`ServerSocket::serve`]. Dropping it stops it, resets
/// the live connections and waits for their handlers to return.
///
/// ```
/// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
/// let service = server.serve(|client| {
///     let _ = client.write_all(b"hello\n");
/// })?;
/// drop(service);
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct Service {
    shared: Arc<Shared>,
}

struct Shared {
    server: ServerSocket,
    handler: Box<Handler>,
    options: ServeOptions,
    limits: Limits,
    state: Mutex<State>,
    /// A connection or a worker ended, or accepting did.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    live: Slab<Arc<ClientSocket>>,
    /// If there is a limit for each address.
    crowd: Crowd,
    workers: usize,
    /// Workers that accept, or are about to.
    idle: usize,
    stopped: bool,
    /// How many threads wait for `changed`.
    awaited: usize,
    /// The threads, so that dropping the service can wait for their last step.
    threads: Vec<JoinHandle<()>>,
    /// Why accepting ended, unless it was asked to.
    failure: Option<Error>,
    draining: bool,
    /// What was still live has been cut: no connection may begin any more, not
    /// even one that was accepted just before.
    over: bool,
    /// Since draining began and until its deadline.
    finished: u32,
}

thread_local! {
    /// The service whose handler this thread runs: waiting for it from there
    /// would be waiting for oneself.
    static SERVING: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
}

impl ServerSocket {
    /// Serves with the default options: `handler` is called for each confirmed
    /// connection, in a thread of its own. Returns at once.
    ///
    /// When the handler returns, or panics, the connection is closed (gracefully,
    /// or by reset after a panic). The handler may keep a clone of the `Arc`, say to push
    /// from elsewhere, but not the connection: that ends with the handler.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed); [`NoMemory`](ErrorKind::NoMemory) and others if the
    /// first thread cannot be started.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket};
    /// use std::time::Duration;
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let service = server.serve(|client| {
    ///     while let Ok(line) = client.read_line(1024) {
    ///         let _ = client.write_all(format!("{line}!\n").as_bytes());
    ///     }
    /// })?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// client.write_all(b"hello\n")?;
    /// assert_eq!(client.read_line(1024)?, "hello!");
    /// assert_eq!(service.drain(Duration::from_secs(5))?.finished, 1);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn serve<F>(&self, handler: F) -> Result<Service>
    where
        F: Fn(&Arc<ClientSocket>) + Send + Sync + 'static,
    {
        self.serve_with(&ServeOptions::default(), handler)
    }

    /// Serves with options.
    ///
    /// # Errors
    /// Those of [`serve`](ServerSocket::serve);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for no connections at all, and for
    /// what is no network.
    ///
    /// ```
    /// use keepsock::{ServeOptions, ServerSocket};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let options = ServeOptions::new().max_connections(100);
    /// let service = server.serve_with(&options, |client| {
    ///     let _ = client.write_all(b"hello\n");
    /// })?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn serve_with<F>(&self, options: &ServeOptions, handler: F) -> Result<Service>
    where
        F: Fn(&Arc<ClientSocket>) + Send + Sync + 'static,
    {
        const OPERATION: &str = "serve";
        if options.max_connections == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .at(self.endpoint())
                .detail("at most zero connections"));
        }
        if options.max_per_address == Some(0) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .at(self.endpoint())
                .detail("at most zero connections of one address"));
        }
        let limits = options.limits(OPERATION).map_err(|e| e.at(self.endpoint()))?;
        drop(
            self.borrow()
                .map_err(|_| Error::new(ErrorKind::Closed, OPERATION).at(self.endpoint()))?,
        );
        let shared = Arc::new(Shared {
            server: self.clone(),
            handler: Box::new(handler),
            options: options.clone(),
            limits,
            state: Mutex::new(State { workers: 1, idle: 1, ..State::default() }),
            changed: Condvar::new(),
        });
        start_worker(&shared).map_err(|e| {
            // pthread_create(3) says EAGAIN for a limit that was reached.
            Error::new(ErrorKind::NoMemory, OPERATION)
                .at(self.endpoint())
                .with_os_error(e.raw_os_error())
                .detail("no thread can be started")
        })?;
        Ok(Service { shared })
    }
}

impl Service {
    /// How many connections are being served.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// assert_eq!(service.connections(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn connections(&self) -> u32 {
        count(self.shared.lock().live.len())
    }

    /// Sends `message` to every live connection (but not to those that are being
    /// closed or that this side has shut down), waiting for none that is slow:
    /// a client whose kernel buffer does not take the whole message at once has
    /// not kept up and is reset, so it delays nobody and costs no memory. A
    /// client that another thread is writing to gets its turn within 100 ms for all.
    /// May be called from inside a handler.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket};
    /// # use std::time::{Duration, Instant};
    /// let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let service = server.serve(|client| {
    ///     let _ = client.wait_hangup(None);   // clients only listen
    /// #   #[cfg(not(target_os = "linux"))] let _ = client.read(&mut [0]);
    /// })?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// # while service.connections() < 1 { std::thread::yield_now(); }
    /// assert_eq!(service.broadcast(b"news\n").sent, 1);
    /// assert_eq!(client.read_line(100)?, "news");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn broadcast(&self, message: &[u8]) -> Broadcast {
        let clients: Vec<_> =
            self.shared.lock().live.iter().map(|(_, client)| client.clone()).collect();
        let mut result = Broadcast::default();
        let mut settle = |client: &ClientSocket, pushed: Pushed| match pushed {
            Pushed::Sent => result.sent += 1,
            // It is being closed in order; what was written before still arrives.
            Pushed::Ending => {}
            Pushed::Stuck => {
                client.abort();
                events::cut_by_broadcast(client);
                result.cut += 1;
            }
        };
        let mut busy = Vec::new();
        for client in clients {
            let pushed = client.writing().try_take().map(|turn| client.push(message, &turn));
            match pushed {
                Some(pushed) => settle(&client, pushed),
                None => busy.push(client),
            }
        }
        let until = Deadline::after(Some(BROADCAST_PATIENCE));
        for client in busy {
            let turn = client.writing().take(|| match () {
                // A close holds the turn while it waits for delivery.
                () if client.is_ending() => Err(Pushed::Ending),
                () if until.has_passed() => Err(Pushed::Stuck),
                () => Ok(()),
            });
            settle(&client, turn.map_or_else(|why| why, |turn| client.push(message, &turn)));
        }
        result
    }

    /// Stops accepting: closes the server socket, which cannot serve again. Live
    /// connections go on. May be called from inside a handler; stopping twice is fine.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// service.stop();
    /// service.wait(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stop(&self) {
        self.shared.server.close();
        self.shared.accepting_ended(None);
    }

    /// Waits until accepting has ended: by [`stop`](Service::stop) or
    /// [`drain`](Service::drain) from another thread or a handler, by closing the
    /// server socket, or by firing its cancel token, as a signal handler may.
    /// `None`: for as long as that takes.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): it still accepts. The error of an accept that failed
    /// for good.
    ///
    /// ```
    /// use keepsock::{CancelToken, ServerSocket, SocketOptions};
    /// let token = CancelToken::new()?;
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().cancel(&token))?;
    /// let service = server.serve(|_client| ())?;
    /// token.fire();              // in real life: from a signal handler
    /// service.wait(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let deadline = Deadline::after(timeout.into());
        let mut state = self.shared.lock();
        while !state.stopped {
            if deadline.has_passed() {
                return Err(
                    Error::new(ErrorKind::TimedOut, "wait").at(self.shared.server.endpoint())
                );
            }
            state = self.shared.wait(state, deadline);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    /// Ends the service in order: stops accepting; tells each live connection,
    /// whose reads then return [`Draining`](ErrorKind::Draining) while its
    /// writes still work, so that the handler can say goodbye; waits until all
    /// handlers have returned; and after `limit` resets the connections that are left.
    /// Clients that still waited to be accepted are reset by the system and not counted.
    ///
    /// # Errors
    /// [`WrongState`](ErrorKind::WrongState) from inside a handler, which would be waiting
    /// for itself: [`stop`](Service::stop) may be called there.
    ///
    /// ```
    /// # let server = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// # let service = server.serve(|_| ())?;
    /// let drained = service.drain(std::time::Duration::from_secs(5))?;
    /// assert_eq!(drained.cut, 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn drain(&self, limit: Duration) -> Result<Drained> {
        if self.shared.is_serving_here() {
            return Err(Error::new(ErrorKind::WrongState, "drain")
                .at(self.shared.server.endpoint())
                .detail("called from inside a handler"));
        }
        let since = Instant::now();
        events::drain_begun(self.shared.server.endpoint(), self.connections(), limit);
        self.stop();
        let deadline = Deadline::after(Some(limit));
        let mut state = self.shared.lock();
        state.draining = true;
        state.finished = 0;
        for (_, client) in &state.live {
            client.set_draining();
        }
        while !state.live.is_empty() && !deadline.has_passed() {
            state = self.shared.wait(state, deadline);
        }
        let drained = Drained { finished: state.finished, cut: count(state.live.len()) };
        state.cut();
        drop(state);
        events::drain_ended(self.shared.server.endpoint(), drained, since);
        Ok(drained)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
        let mut state = self.shared.lock();
        state.cut();
        if self.shared.is_serving_here() {
            return;
        }
        while state.workers > 0 {
            state = self.shared.wait(state, Deadline(None));
        }
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        for thread in threads {
            // Handlers that panic are caught in the thread.
            let _ = thread.join();
        }
    }
}

impl State {
    /// Ends what is left.
    fn cut(&mut self) {
        self.over = true;
        for (_, client) in &self.live {
            client.reset();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        deadline: Deadline,
    ) -> MutexGuard<'a, State> {
        state.awaited += 1;
        let mut state = match deadline.0 {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let remaining = at.saturating_duration_since(Instant::now());
                let waited = self.changed.wait_timeout(state, remaining);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.awaited -= 1;
        state
    }

    fn is_serving_here(&self) -> bool {
        SERVING.get() == std::ptr::from_ref(self)
    }

    fn accepting_ended(&self, failure: Option<Error>) {
        let why = failure.as_ref().map(Error::to_string);
        let mut state = self.lock();
        let is_news = !std::mem::replace(&mut state.stopped, true);
        state.failure = failure.or(state.failure.take());
        drop(state);
        self.changed.notify_all();
        if let Some(why) = why.filter(|_| is_news) {
            events::accepting_failed(&why);
        }
    }

    fn max_workers(&self) -> usize {
        let max = self.options.max_connections as usize;
        match self.options.when_full {
            WhenFull::Wait => max,
            WhenFull::Refuse => max.saturating_add(1),
        }
    }

    /// A worker's life. It was counted as a worker and as idle when it was started.
    fn work(self: &Arc<Self>) {
        SERVING.set(Arc::as_ptr(self));
        loop {
            let client = match self.server.accept_for_serve() {
                Ok(client) => Arc::new(client),
                Err(e) => {
                    let asked = matches!(e.kind(), ErrorKind::Closed | ErrorKind::Cancelled);
                    let mut state = self.lock();
                    state.idle -= 1;
                    state.workers -= 1;
                    drop(state);
                    return self.accepting_ended((!asked).then_some(e));
                }
            };
            let Some(id) = self.admit(&client) else {
                client.abort();
                continue;
            };
            match catch_unwind(AssertUnwindSafe(|| (self.handler)(&client))) {
                // How it ended is the handler's to ask, by closing it itself.
                Ok(()) => drop(client.close()),
                // The panic hook has told of it; the peer must not take what it
                // got for all there is.
                Err(_) => {
                    client.abort();
                    events::handler_panicked(&client);
                }
            }
            if !self.dismiss(id) {
                return;
            }
        }
    }

    /// Gives a connection its place, and sees to it that somebody accepts the
    /// next one. `None`: there is no place.
    fn admit(self: &Arc<Self>, client: &Arc<ClientSocket>) -> Option<usize> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        let peer = client.peer();
        let refusal = if !self.limits.permits(peer) {
            Some(Refusal::Denied)
        } else if state.live.len() >= self.options.max_connections as usize {
            Some(Refusal::Full)
        } else if self.limits.per_address.is_some_and(|most| !state.crowd.enter(peer, most)) {
            Some(Refusal::Crowded)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            drop(state);
            self.server.count_refusal(refusal, client);
            return None;
        }
        let id = state.live.insert(client.clone());
        if state.draining {
            client.set_draining();
        }
        state.idle -= 1;
        let start = state.idle == 0 && state.workers < self.max_workers() && !state.stopped;
        if start {
            state.workers += 1;
            state.idle += 1;
        }
        drop(state);
        if start {
            self.start_successor();
        }
        Some(id)
    }

    /// Starts the worker that was counted already. If there is no thread to be
    /// had, the connection waits: served now, it would leave nobody to accept, for
    /// as long as it lives.
    fn start_successor(self: &Arc<Self>) {
        let mut back_off = OUT_OF_DESCRIPTORS;
        while let Err(e) = start_worker(self) {
            self.server.count_exhausted(&e);
            let state = self.lock();
            // Another one may have come back to accept, or be no longer wanted.
            let pause = Deadline::after(Some(back_off.next()));
            let mut state = self.wait(state, pause);
            if state.idle > 1 || state.stopped {
                state.workers -= 1;
                state.idle -= 1;
                return;
            }
        }
    }

    /// Takes the place back; false: there are enough idle workers without this one.
    fn dismiss(&self, id: usize) -> bool {
        let mut state = self.lock();
        let left = state.live.try_remove(id);
        if let (Some(client), Some(_)) = (left, self.limits.per_address) {
            state.crowd.leave(client.peer());
        }
        if state.draining {
            state.finished += 1;
        }
        let stays = !state.stopped && state.idle < SPARE;
        if stays {
            state.idle += 1;
        } else {
            state.workers -= 1;
        }
        // A notification costs a system call even when nobody waits.
        let awaited = state.awaited > 0;
        drop(state);
        if awaited {
            self.changed.notify_all();
        }
        stays
    }
}

fn start_worker(shared: &Arc<Shared>) -> std::io::Result<()> {
    let worker = shared.clone();
    let thread = std::thread::Builder::new()
        .name("keepsock-serve".to_owned())
        .spawn(move || worker.work())?;
    let mut state = shared.lock();
    state.threads.retain(|thread| !thread.is_finished());
    state.threads.push(thread);
    Ok(())
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
