//! Serving with a thread for each connection.
//!
//! No thread accepts for the others. Each worker accepts a connection and serves it, so a
//! connection needs no handover and no wake-up between threads. The worker that takes the last
//! idle place starts another worker, up to the limit. A worker that finds more than a few others
//! idle ends. In a fixed pool all workers start at once and stay.

use std::io;
use std::result::Result as StdResult;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::io::deadline::Deadline;
use crate::listener::{Listener, OUT_OF_DESCRIPTORS, Rejection, ServerSocket};
use crate::log;
use crate::serve::lifecycle::{Backend, End, Locked, ServiceState};
use crate::serve::options::BlockingConfig;
use crate::serve::stats::Traffic;
use crate::serve::threads::{ServiceThreads, spawn_error};
use crate::serve::{AcceptPolicy, Broadcast, ServeOptions, Service};
use crate::stream::{ClientSocket, TrySend};
use crate::sys::sync::MutexGuard;
use crate::types::close_reason::CloseReason;
use crate::types::error::{Error, ErrorKind, Result};

/// The number of idle workers that stay for the next connections. On Linux each of them reserves
/// one descriptor number while it waits in accept.
const SPARE: usize = 8;

/// The time that one broadcast waits, in total, for clients that another thread is writing to.
const BROADCAST_TIMEOUT: Duration = Duration::from_millis(100);

/// How often a worker that keeps a connection checks whether the program has closed the server.
const PAUSE_CHECK: Duration = Duration::from_millis(100);

type Handler = dyn Fn(&Arc<ClientSocket>) + Send + Sync;

/// A service with a thread for each connection.
pub(super) struct ThreadService {
    state: ServiceState<Workers>,
    handler: Box<Handler>,
    /// The size of a fixed pool.
    pool: Option<usize>,
    /// The close reasons. The handlers move the bytes, so nothing else is counted.
    traffic: Traffic,
}

#[derive(Default)]
pub(super) struct Workers {
    clients: Slab<Arc<ClientSocket>>,
    all: usize,
    /// The number of workers that accept, or will accept next.
    idle: usize,
    /// The number of workers that cannot start another worker and wait until one is idle.
    starved: usize,
}

impl ServerSocket {
    /// Serves with the default options: calls `handler` for each accepted connection, in a thread
    /// of its own. Returns immediately.
    ///
    /// When the handler returns, the service closes the connection gracefully. After a panic of
    /// the handler it resets the connection. The handler may keep a clone of the `Arc`, for
    /// example to send from another thread, but the connection is closed when the handler returns.
    ///
    /// The threads have a [stack](ServeOptions::stack_size) of 2 MiB by default and inherit the
    /// signal mask of the calling thread. After an error the server still listens and can be
    /// used as before.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the server socket is closed.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the server socket listens with an option
    ///   that has no effect on served connections.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system starts no more threads.
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
    /// assert_eq!(service.drain(Duration::from_secs(5))?.completed, 1);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn serve<F>(&self, handler: F) -> Result<Service>
    where
        F: Fn(&Arc<ClientSocket>) + Send + Sync + 'static,
    {
        self.serve_with(&ServeOptions::default(), handler)
    }

    /// Serves with options: calls `handler` for each accepted connection, in a thread of its own,
    /// as [`serve`](ServerSocket::serve) does.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a limit or the number of threads is
    ///   zero; `stack_size` is out of range; a network is not valid; an option is for
    ///   [`serve_events`](ServerSocket::serve_events) only; or a limit by address is set, but the
    ///   server listens on Unix sockets only.
    /// - [`Closed`](ErrorKind::Closed): the server socket is closed.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system starts no more threads.
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

    /// Serves as [`serve_with`](ServerSocket::serve_with) does. The first handler runs after
    /// `take` has returned, so handlers find the service where `take` stores it.
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
        let config = options.blocking_config(self).map_err(|e| e.at(self.endpoint()))?;
        let BlockingConfig { admission, pool, stack_size, cpus } = config;
        let threads = ServiceThreads::new("keepsock-serve", stack_size, cpus);
        let service = Arc::new(ThreadService {
            state: ServiceState::new(self, admission, threads, Workers::default()),
            handler: Box::new(handler),
            pool,
            traffic: Traffic::default(),
        });
        drop(
            self.borrow()
                .map_err(|_| Error::new(ErrorKind::Closed, OPERATION).at(self.endpoint()))?,
        );
        let start = || {
            let workers = pool.unwrap_or(1);
            let mut locked = service.state.lock();
            (locked.members.all, locked.members.idle) = (workers, workers);
            drop(locked);
            for _ in 0..workers {
                service
                    .start_worker()
                    .map_err(|e| spawn_error(OPERATION, &e).at(self.endpoint()))?;
            }
            Ok(())
        };
        service.state.threads.publish(start, || take(Service::of_threads(service.clone())))
    }
}

impl Backend for ThreadService {
    type Members = Workers;

    fn state(&self) -> &ServiceState<Workers> {
        &self.state
    }

    fn is_admitting(workers: &Workers) -> bool {
        workers.idle > 0
    }

    fn is_accepting(workers: &Workers) -> bool {
        workers.idle > 0
    }

    fn notify_draining(&self, workers: &mut Workers, _: Duration) {
        for (_, client) in &workers.clients {
            client.set_draining();
        }
    }

    fn end_connections(&self, workers: &mut Workers) {
        for (_, client) in &workers.clients {
            client.close_or_reset();
        }
    }

    fn close_copies(&self) {
        if let Some(locked) = self.state.lock_inherited() {
            for (_, client) in &locked.members.clients {
                client.close_copy();
            }
        }
    }
}

impl ThreadService {
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(super) fn clients(&self) -> Vec<Arc<ClientSocket>> {
        self.state.lock().members.clients.iter().map(|(_, client)| client.clone()).collect()
    }

    pub(super) fn broadcast(&self, message: &[u8]) -> Broadcast {
        let mut result = Broadcast::default();
        let mut count = |client: &ClientSocket, pushed: TrySend| match pushed {
            TrySend::Sent => result.sent += 1,
            // A graceful close is in progress. Bytes written before it still arrive.
            TrySend::ShutDown => {}
            TrySend::SlowConsumer | TrySend::Failed => {
                client.abort();
                log::reset_by_broadcast(&client.five_tuple());
                result.reset += 1;
            }
        };
        let mut busy = Vec::new();
        for client in self.clients() {
            let pushed =
                client.write_lock().try_lock().map(|guard| client.try_send(message, &guard));
            match pushed {
                Some(pushed) => count(&client, pushed),
                None => busy.push(client),
            }
        }
        let deadline = Deadline::after(Some(BROADCAST_TIMEOUT));
        for client in busy {
            let guard = client.write_lock().lock(|| match () {
                // A close holds the write lock while it waits for delivery.
                () if client.is_shutting_down() => Err(TrySend::ShutDown),
                () if deadline.has_passed() => Err(client.end_slow_consumer()),
                () => Ok(()),
            });
            count(&client, guard.map_or_else(|why| why, |guard| client.try_send(message, &guard)));
        }
        result
    }

    fn max_workers(&self) -> usize {
        let max = self.state.admission.max_connections as usize;
        match self.state.admission.accept_policy {
            AcceptPolicy::Wait => max,
            AcceptPolicy::Reject => max.saturating_add(1),
        }
    }

    fn start_worker(self: &Arc<Self>) -> io::Result<()> {
        let worker = self.clone();
        self.state.threads.start(move || worker.work())
    }

    /// Runs a worker. The caller that starts a worker has already counted it in `all` and `idle`.
    fn work(self: &Arc<Self>) {
        loop {
            let client = match self.state.server.accept_for_serve(self.state.usage.token.as_ref()) {
                Ok(client) => Arc::new(client),
                Err(e) => {
                    let is_requested = matches!(e.kind(), ErrorKind::Closed | ErrorKind::Cancelled);
                    let mut locked = self.state.lock();
                    locked.members.idle -= 1;
                    locked.members.all -= 1;
                    // The token does not wake all workers at the same time.
                    let ends_use = !is_requested || locked.members.idle == 0;
                    let failure = (!is_requested).then_some(e);
                    return self.state.accepting_ended(locked, failure, ends_use);
                }
            };
            let id = if self.wait_while_paused() { self.admit(&client) } else { None };
            let Some(id) = id else {
                client.abort();
                continue;
            };
            if client.awaits_proxy_header() {
                // Another worker accepts in this time.
                if let Err(rejection) = self.receive_proxy_header(&client) {
                    self.state.server.count_rejection(rejection, &client);
                    client.abort();
                    if !self.release_rejected(id) {
                        return;
                    }
                    continue;
                }
            }
            let panicked = self.state.threads.run(|| (self.handler)(&client));
            if panicked {
                // After a graceful close the peer would take an incomplete stream for a complete
                // one.
                client.abort();
                log::handler_panicked(&client.five_tuple());
            } else {
                // A handler that needs the result of the close closes the connection itself.
                drop(client.close());
            }
            if !self.release(id, &client, panicked || client.was_reset()) {
                return;
            }
        }
    }

    /// Keeps an accepted connection until the program resumes accepting. A worker that waits in
    /// accept(2) cannot leave a client in the listen queue. Returns false if the service stops before.
    fn wait_while_paused(&self) -> bool {
        let is_paused = || self.state.is_accept_paused();
        if !is_paused() {
            return true;
        }
        let mut locked = self.state.lock();
        let is_closed = || self.state.server.listeners().iter().any(Listener::is_closed);
        while is_paused() && !locked.stopped && !is_closed() {
            locked = self.state.wait(locked, Deadline::after(Some(PAUSE_CHECK)));
        }
        !is_paused()
    }

    /// Admits a connection, and ensures that another worker accepts the next one. Returns `None`
    /// if the connection is rejected.
    fn admit(self: &Arc<Self>, client: &Arc<ClientSocket>) -> Option<usize> {
        let mut locked = self.state.lock();
        if locked.ended {
            return None;
        }
        let admitted = match client.awaits_proxy_header() {
            true => self.state.admit_unknown(&mut locked),
            false => self.state.admit(&mut locked, client.peer()),
        };
        if let Err(rejection) = admitted {
            drop(locked);
            self.state.server.count_rejection(rejection, client);
            return None;
        }
        let is_draining = locked.draining;
        let is_stopped = locked.stopped;
        let workers = &mut locked.members;
        let id = workers.clients.insert(client.clone());
        if is_draining {
            client.set_draining();
        }
        workers.idle -= 1;
        let starts = self.pool.is_none()
            && workers.idle == 0
            && workers.all < self.max_workers()
            && !is_stopped;
        if starts {
            workers.all += 1;
            workers.idle += 1;
        }
        self.release_server(locked);
        if starts {
            self.start_successor();
        }
        Some(id)
    }

    /// Waits for the PROXY header, and checks the address that it contains.
    fn receive_proxy_header(&self, client: &ClientSocket) -> StdResult<(), Rejection> {
        client.read_proxy_header().map_err(|e| match e.kind() {
            ErrorKind::TimedOut => Rejection::NoHeader("it did not arrive in time"),
            ErrorKind::Malformed => Rejection::NoHeader("it is wrong or incomplete"),
            _ => Rejection::NoHeader("the connection ended"),
        })?;
        self.state.admit_address(&mut self.state.lock(), client.peer())
    }

    /// Starts the worker that is already counted. If the system starts no more threads, the
    /// connection of this worker waits: a worker that served it now would leave no worker to
    /// accept for as long as the connection lives.
    fn start_successor(self: &Arc<Self>) {
        let mut backoff = OUT_OF_DESCRIPTORS;
        while let Err(e) = self.start_worker() {
            self.state.server.count_exhausted(&e);
            let mut locked = self.state.lock();
            let deadline = Deadline::after(Some(backoff.next()));
            locked.members.starved += 1;
            let mut locked = self.state.wait(locked, deadline);
            locked.members.starved -= 1;
            // Another worker accepts again, or accepting has stopped.
            if locked.members.idle > 1 || locked.stopped {
                locked.members.all -= 1;
                locked.members.idle -= 1;
                return self.release_server(locked);
            }
        }
    }

    /// Ends the use of the server socket if accepting has stopped, and the calling worker was the last
    /// one that accepted.
    fn release_server(&self, locked: MutexGuard<'_, Locked<Workers>>) {
        if locked.stopped && locked.members.idle == 0 {
            self.state.accepting_ended(locked, None, true);
        }
    }

    /// Releases the place of a connection. Returns whether the worker continues: it ends if
    /// enough other workers are idle.
    fn release(&self, id: usize, client: &ClientSocket, reset: bool) -> bool {
        // The connection is closed, so the reason is known.
        let reason = client.close_reason().unwrap_or(CloseReason::Local);
        let mut locked = self.state.lock();
        self.traffic.count_close(reason);
        locked.members.clients.try_remove(id);
        let end = if reset { End::Reset } else { End::Completed };
        self.state.count_closed(&mut locked, Some(client.peer()), end);
        self.become_idle(locked)
    }

    /// As [`release`](ThreadService::release), of a connection that no handler has had.
    fn release_rejected(&self, id: usize) -> bool {
        let mut locked = self.state.lock();
        locked.members.clients.try_remove(id);
        self.state.count_closed(&mut locked, None, End::Reset);
        locked.opened -= 1;
        self.become_idle(locked)
    }

    /// Returns whether the worker continues to accept.
    fn become_idle(&self, mut locked: MutexGuard<'_, Locked<Workers>>) -> bool {
        let is_stopped = locked.stopped;
        let workers = &mut locked.members;
        let stays = !is_stopped && (self.pool.is_some() || workers.idle < SPARE);
        if stays {
            workers.idle += 1;
        } else {
            workers.all -= 1;
        }
        let is_relevant = workers.starved > 0 || locked.may_have_ended();
        self.state.notify(locked, is_relevant);
        stays
    }
}
