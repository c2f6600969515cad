//! A thread for each confirmed connection.
//!
//! There is no thread that accepts for the others. Each worker accepts for
//! itself and serves what it accepted, so a connection costs no hand-over and
//! no wake-up between threads. The worker that takes the last idle place
//! starts another one, up to the bound; beyond a few spare ones, a worker that
//! finds enough others idle ends. In a fixed pool all are started at once, and stay.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use slab::Slab;

use crate::client::{ClientSocket, Pushed};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::serve::gate::{Gate, State};
use crate::serve::snapshot::Traffic;
use crate::serve::{Broadcast, Drained, ServeOptions, Service, WhenFull};
use crate::server::{OUT_OF_DESCRIPTORS, ServerSocket};
use crate::wait::Deadline;

/// Idle workers that stay for the next connections. On Linux each of them holds
/// one free descriptor number while it waits in accept.
const SPARE: usize = 8;

/// How long a broadcast waits, in all, for clients that are in the middle of
/// another write.
const BROADCAST_PATIENCE: Duration = Duration::from_millis(100);

type Handler = dyn Fn(&Arc<ClientSocket>) + Send + Sync;

pub(super) struct Threads {
    gate: Gate<Workers>,
    handler: Box<Handler>,
    /// The size of a fixed pool.
    pool: Option<usize>,
    /// How connections have ended.
    traffic: Traffic,
}

#[derive(Default)]
struct Workers {
    live: Slab<Arc<ClientSocket>>,
    all: usize,
    /// Workers that accept, or are about to.
    idle: usize,
    /// So that dropping the service can wait for their last step.
    threads: Vec<JoinHandle<()>>,
}

thread_local! {
    /// The service whose handler this thread runs: waiting for it from there
    /// would be waiting for oneself.
    static SERVING: Cell<*const Threads> = const { Cell::new(std::ptr::null()) };
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
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for no connections or threads at all, for
    /// what is no network, and for options of [`serve_events`](ServerSocket::serve_events).
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
        self.serve_for(options, handler, |service| service)
    }

    /// No handler is called before `take` has returned, so that it finds what that has kept.
    pub(crate) fn serve_for<F, T>(
        &self,
        options: &ServeOptions,
        handler: F,
        take: impl FnOnce(Service) -> T,
    ) -> Result<T>
    where
        F: Fn(&Arc<ClientSocket>) + Send + Sync + 'static,
    {
        const OPERATION: &str = "serve";
        let (limits, pool) = options.for_threads(OPERATION).map_err(|e| e.at(self.endpoint()))?;
        drop(
            self.borrow()
                .map_err(|_| Error::new(ErrorKind::Closed, OPERATION).at(self.endpoint()))?,
        );
        let threads = Arc::new(Threads {
            gate: Gate::new(self, limits, Workers::default()),
            handler: Box::new(handler),
            pool,
            traffic: Traffic::default(),
        });
        let service = Service::of_threads(threads.clone());
        let _held = threads.gate.hand_over();
        for _ in 0..pool.unwrap_or(1) {
            let mut state = threads.gate.lock();
            state.own.all += 1;
            state.own.idle += 1;
            drop(state);
            if let Err(e) = start_worker(&threads) {
                let mut state = threads.gate.lock();
                state.own.all -= 1;
                state.own.idle -= 1;
                drop(state);
                // pthread_create(3) says EAGAIN for a limit that was reached. Those that were
                // started end with the service.
                return Err(Error::new(ErrorKind::NoMemory, OPERATION)
                    .at(self.endpoint())
                    .with_os_error(e.raw_os_error())
                    .detail("no thread can be started"));
            }
        }
        Ok(take(service))
    }
}

impl State<Workers> {
    fn is_accepting(&self) -> bool {
        self.own.idle > 0
    }

    /// Ends what is left.
    fn cut(&mut self) {
        self.over = true;
        for (_, client) in &self.own.live {
            client.reset();
        }
    }
}

impl Threads {
    pub(super) fn gate(&self) -> &Gate<impl Sized> {
        &self.gate
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn is_serving_here(&self) -> bool {
        SERVING.get() == std::ptr::from_ref(self)
    }

    pub(super) fn clients(&self) -> Vec<Arc<ClientSocket>> {
        self.gate.lock().own.live.iter().map(|(_, client)| client.clone()).collect()
    }

    pub(super) fn broadcast(&self, message: &[u8]) -> Broadcast {
        let mut result = Broadcast::default();
        let mut settle = |client: &ClientSocket, pushed: Pushed| match pushed {
            Pushed::Sent => result.sent += 1,
            // It is being closed in order; what was written before still arrives.
            Pushed::Ending => {}
            Pushed::Stuck => {
                client.abort();
                events::cut_by_broadcast(&client.five_tuple());
                result.cut += 1;
            }
        };
        let mut busy = Vec::new();
        for client in self.clients() {
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

    fn refuse_here(&self, operation: &'static str) -> Result<()> {
        if self.is_serving_here() {
            let refused = self.gate.error(ErrorKind::WrongState, operation);
            return Err(refused.detail("called from inside a handler"));
        }
        Ok(())
    }

    pub(super) fn finish(&self, limit: Duration) -> Result<u32> {
        self.refuse_here("finish")?;
        self.gate.stop();
        Ok(self.gate.finish(limit, State::is_accepting))
    }

    pub(super) fn drain(&self, limit: Duration) -> Result<Drained> {
        self.refuse_here("drain")?;
        let tell = |state: &mut State<Workers>| {
            for (_, client) in &state.own.live {
                client.set_draining();
            }
        };
        Ok(self.gate.drain(limit, State::is_accepting, tell, State::cut))
    }

    /// Stops, cuts what is left, and waits for the threads, unless this is one of them.
    pub(super) fn end(&self) {
        self.gate.stop();
        let mut state = self.gate.lock();
        state.cut();
        if self.is_serving_here() {
            return;
        }
        while state.own.all > 0 {
            state = self.gate.wait(state, Deadline(None));
        }
        let threads = std::mem::take(&mut state.own.threads);
        drop(state);
        for thread in threads {
            // Handlers that panic are caught in the thread.
            let _ = thread.join();
        }
    }

    fn max_workers(&self) -> usize {
        let max = self.gate.limits.connections as usize;
        match self.gate.limits.when_full {
            WhenFull::Wait => max,
            WhenFull::Refuse => max.saturating_add(1),
        }
    }

    /// A worker's life. It was counted as a worker and as idle when it was started.
    fn work(self: &Arc<Self>) {
        SERVING.set(Arc::as_ptr(self));
        self.gate.handed_over();
        loop {
            let client = match self.gate.server.accept_for_serve() {
                Ok(client) => Arc::new(client),
                Err(e) => {
                    let asked = matches!(e.kind(), ErrorKind::Closed | ErrorKind::Cancelled);
                    let mut state = self.gate.lock();
                    state.own.idle -= 1;
                    state.own.all -= 1;
                    drop(state);
                    return self.gate.accepting_ended((!asked).then_some(e));
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
                    events::handler_panicked(&client.five_tuple());
                }
            }
            if !self.dismiss(id, &client) {
                return;
            }
        }
    }

    /// Gives a connection its place, and sees to it that somebody accepts the
    /// next one. `None`: there is no place.
    fn admit(self: &Arc<Self>, client: &Arc<ClientSocket>) -> Option<usize> {
        let mut state = self.gate.lock();
        if state.over {
            return None;
        }
        if let Err(refusal) = self.gate.admit(&mut state, client.peer()) {
            drop(state);
            self.gate.server.count_refusal(refusal, client);
            return None;
        }
        let id = state.own.live.insert(client.clone());
        if state.draining {
            client.set_draining();
        }
        state.own.idle -= 1;
        let start = self.pool.is_none()
            && state.own.idle == 0
            && state.own.all < self.max_workers()
            && !state.stopped;
        if start {
            state.own.all += 1;
            state.own.idle += 1;
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
            self.gate.server.count_exhausted(&e);
            let state = self.gate.lock();
            // Another one may have come back to accept, or be no longer wanted.
            let pause = Deadline::after(Some(back_off.next()));
            let mut state = self.gate.wait(state, pause);
            if state.own.idle > 1 || state.stopped {
                state.own.all -= 1;
                state.own.idle -= 1;
                return;
            }
        }
    }

    /// Takes the place back; false: there are enough idle workers without this one.
    fn dismiss(&self, id: usize, client: &ClientSocket) -> bool {
        if let Some(end) = client.end() {
            self.traffic.ended(end);
        }
        let mut state = self.gate.lock();
        state.own.live.try_remove(id);
        self.gate.dismiss(&mut state, Some(client.peer()));
        let stays = !state.stopped && (self.pool.is_some() || state.own.idle < SPARE);
        if stays {
            state.own.idle += 1;
        } else {
            state.own.all -= 1;
        }
        self.gate.tell(state);
        stays
    }
}

fn start_worker(threads: &Arc<Threads>) -> std::io::Result<()> {
    let worker = threads.clone();
    let thread = std::thread::Builder::new()
        .name("keepsock-serve".to_owned())
        .spawn(move || worker.work())?;
    let mut state = threads.gate.lock();
    state.own.threads.retain(|thread| !thread.is_finished());
    state.own.threads.push(thread);
    Ok(())
}
