//! Serving datagrams with a callback, in one or more threads.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Datagram, DatagramSocket, Incoming, Side};
use crate::io::condition::wait_on;
use crate::io::deadline::Deadline;
use crate::io::token_slot::ServiceUse;
use crate::log;
use crate::serve::threads::{ServiceThreads, spawn_error};
use crate::serve::{DatagramConfig, ServeOptions};
use crate::sys;
use crate::sys::sync::atomic::Ordering;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::types::error::{Error, ErrorKind, Result};

const SERVE: &str = "serve";
const ADD: &str = "add";

/// The size of each thread's receive buffer. Only pages that received bytes use memory. A UDP
/// datagram fits in a sixteenth of the buffer, and few Unix datagrams exceed a fourth.
const BUFFER: usize = 1 << 20;
const UDP_SLOT: usize = BUFFER / 16;
const UNIX_SLOT: usize = BUFFER / 4;

/// A running datagram service, from [`DatagramSocket::serve`]. Dropping it stops it and waits until
/// all handlers have returned, unless it is dropped inside one.
///
/// It has no connections, and so nothing to drain or to list. To end it in order, call
/// [`stop`](DatagramService::stop) and then [`wait`](DatagramService::wait).
/// [`DatagramSocket::stats`] has the counters of each socket.
///
/// ```
/// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
/// let service = socket.serve(&keepsock::ServeOptions::new(), |_, _, _| ())?;
/// drop(service);
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct DatagramService {
    socket: DatagramSocket,
    handler: Arc<Handler>,
    serving: Arc<Serving>,
}

/// The function that a service calls for each datagram.
type Handler = dyn Fn(&DatagramSocket, &Datagram, &[u8]) + Send + Sync;

/// The state that the threads of a service share.
struct Serving {
    threads: ServiceThreads,
    threads_per_socket: u32,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// The sockets, which a stop ends. Closed sockets are removed when another socket is added.
    sockets: Vec<DatagramSocket>,
    stopped: bool,
    /// The number of threads that receive, on all sockets.
    running: u32,
    /// The error that ended receiving on a socket.
    failure: Option<Error>,
}

impl DatagramSocket {
    /// Receives in threads of the library, and calls `handler` with the socket, each datagram's
    /// metadata and its bytes. The handler can answer with [`reply`](DatagramSocket::reply). Other
    /// threads may send at the same time.
    ///
    /// Two options apply: [`threads`](ServeOptions::threads), 1 by default, and
    /// [`stack_size`](ServeOptions::stack_size), 2 MiB by default. The threads inherit the signal
    /// mask of the calling thread.
    ///
    /// A thread receives up to 16 datagrams at once (4 on a Unix socket, where datagrams are
    /// truncated to 256 KiB). With more than one thread, datagrams of one sender may be handled at
    /// the same time and out of order. The timeouts and the non-blocking mode of the socket do not
    /// apply to these threads. Firing the socket's cancel token ends the service. If a handler
    /// panics, the service logs it and continues. If the socket is served twice, stopping one
    /// service ends both.
    ///
    /// Transient errors do not end a service. After an error such as ENOMEM or ENOBUFS a thread
    /// pauses for 5 to 50 ms and retries. The service counts such errors
    /// ([`DatagramStats::retried`](crate::DatagramStats::retried)) and logs at most one event in 5
    /// s. Fatal errors are those of the socket itself: EBADF, ENOTSOCK, EINVAL and EFAULT. They end
    /// the thread; the service logs the error, and [`wait`](DatagramService::wait) returns it.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the number of threads is 0 or above
    ///   1,024; the stack size is out of range; or another option is set, which has no effect on
    ///   datagrams.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system starts no more threads, or has no memory for
    ///   a receive buffer.
    /// - [`Closed`](ErrorKind::Closed): the socket is closed, or receiving was ended by
    ///   [`stop`](DatagramService::stop).
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ServeOptions};
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(&ServeOptions::new().threads(2), |socket, datagram, bytes| {
    ///     let _ = socket.reply(datagram, bytes);
    /// })?;
    /// let client = DatagramSocket::connect(socket.endpoint())?;
    /// client.send(b"hello")?;
    /// assert_eq!(client.recv(&mut [0; 8])?.len, 5);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn serve(
        &self,
        options: &ServeOptions,
        handler: impl Fn(&DatagramSocket, &Datagram, &[u8]) + Send + Sync + 'static,
    ) -> Result<DatagramService> {
        self.serve_into(options, handler, |service| service)
    }

    /// Serves as [`serve`](DatagramSocket::serve) does. The first handler runs after `take` has
    /// returned, so handlers find the service where `take` stores it.
    pub(crate) fn serve_into<T>(
        &self,
        options: &ServeOptions,
        handler: impl Fn(&DatagramSocket, &Datagram, &[u8]) + Send + Sync + 'static,
        take: impl FnOnce(DatagramService) -> T,
    ) -> Result<T> {
        let at = |e: Error| e.at(self.endpoint());
        let DatagramConfig { threads, stack_size, cpus } = options.datagram_config().map_err(at)?;
        let serving = Arc::new(Serving {
            threads: ServiceThreads::new("keepsock-serve", stack_size, cpus),
            threads_per_socket: threads,
            state: Mutex::default(),
            ended: Condvar::new(),
        });
        let handler: Arc<Handler> = Arc::new(handler);
        let start = || {
            let usage = self.0.cancel.begin_service();
            serving.begin(self, usage, &handler, &mut serving.lock(), SERVE)
        };
        let service = || DatagramService {
            socket: self.clone(),
            handler: handler.clone(),
            serving: serving.clone(),
        };
        serving.threads.publish(start, || take(service()))
    }

    /// Receives and calls the handler, until receiving ends.
    fn work(&self, threads: &ServiceThreads, buffer: &mut [u8], handler: &Handler) -> Result<()> {
        let slot = match &self.0.side {
            Side::Inet(_) => UDP_SLOT,
            Side::Unix(_) => UNIX_SLOT,
        };
        let mut batch: Vec<_> = buffer.chunks_exact_mut(slot).map(Incoming::new).collect();
        loop {
            let count = match self.recv_for_serve(&mut batch) {
                Ok(count) => count,
                Err(e) if matches!(e.kind(), ErrorKind::Closed | ErrorKind::Cancelled) => {
                    return Ok(());
                }
                Err(e) => {
                    log::receiving_failed(&e);
                    return Err(e);
                }
            };
            self.0.served.fetch_add(count as u64, Ordering::Relaxed);
            for one in &batch[..count] {
                let Some(datagram) = one.datagram() else {
                    continue;
                };
                if threads.run(|| handler(self, datagram, one.bytes())) {
                    log::datagram_handler_panicked(&self.0.tuple_to(datagram.from.clone()));
                }
            }
        }
    }

    /// Ends receiving permanently, and wakes all receiving calls. Sending still works.
    fn end_receiving(&self) {
        self.0.deaf.store(true, Ordering::Release);
        match (&self.0.closing, self.0.descriptor.enter()) {
            (Some(closing), _) => closing.set(),
            (None, Some(io)) => sys::wake_receivers(io.socket()),
            (None, None) => {}
        }
    }
}

impl Serving {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the threads of a socket. They receive after the caller has released `state`. If one
    /// cannot be started, none receives.
    fn begin(
        self: &Arc<Self>,
        socket: &DatagramSocket,
        usage: ServiceUse,
        handler: &Arc<Handler>,
        state: &mut State,
        operation: &'static str,
    ) -> Result<()> {
        drop(socket.enter(operation)?);
        if socket.0.deaf.load(Ordering::Acquire) {
            let error = socket.failed(operation, ErrorKind::Closed.into(), None);
            return Err(error.detail("receiving was stopped: make another socket"));
        }
        // Each thread shares the use of the socket. The last one ends the use.
        let usage = Arc::new(usage);
        let start = || {
            for _ in 0..self.threads_per_socket {
                let Some(mut buffer) = sys::zeroed(BUFFER) else {
                    let error = socket.failed(operation, ErrorKind::NoMemory.into(), None);
                    return Err(error.detail("no memory for a receive buffer"));
                };
                let (serving, usage) = (self.clone(), usage.clone());
                let (socket, handler) = (socket.clone(), handler.clone());
                let endpoint = socket.endpoint().clone();
                let work = move || {
                    drop(serving.lock());
                    if usage.has_ended() {
                        return;
                    }
                    let ended = socket.work(&serving.threads, &mut buffer, &*handler);
                    drop((usage, socket));
                    serving.leave(ended.err());
                };
                let started = self.threads.start(work);
                started.map_err(|e| spawn_error(operation, &e).at(&endpoint))?;
            }
            Ok(())
        };
        if let Err(e) = start() {
            usage.end();
            return Err(e);
        }
        state.sockets.retain(|socket| !socket.0.descriptor.is_closed());
        state.sockets.push(socket.clone());
        state.running += self.threads_per_socket;
        Ok(())
    }

    fn leave(&self, failure: Option<Error>) {
        let mut state = self.lock();
        state.running -= 1;
        state.failure = state.failure.take().or(failure);
        drop(state);
        self.ended.notify_all();
    }
}

impl DatagramService {
    /// Receives on another socket with the threads of this service: another port, a Unix socket, or a
    /// multicast group. Each socket has as many threads of its own as
    /// [`threads`](ServeOptions::threads) says. The handler receives the socket of each datagram, so
    /// its replies leave from that socket.
    ///
    /// [`stop`](DatagramService::stop) ends receiving on all sockets. Closing one socket, or firing its
    /// cancel token, ends receiving on that socket only. May be called from inside a handler.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): a service uses the socket already; or the call comes
    ///   from a forked child, because the service runs in the parent.
    /// - [`Closed`](ErrorKind::Closed): the service was stopped or has ended; the socket is closed; or
    ///   receiving on the socket was stopped.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system starts no more threads, or has no memory for a
    ///   receive buffer. The service continues without the socket.
    ///
    /// ```
    /// use keepsock::{DatagramSocket, ServeOptions};
    /// let (first, second) = (DatagramSocket::bind("127.0.0.1:0")?, DatagramSocket::bind("127.0.0.1:0")?);
    /// let service = first.serve(&ServeOptions::new(), |socket, datagram, bytes| {
    ///     let _ = socket.reply(datagram, bytes);
    /// })?;
    /// service.add(&second)?;
    /// let client = DatagramSocket::connect(second.endpoint())?;
    /// client.send(b"hello")?;
    /// assert_eq!(client.recv(&mut [0; 8])?.len, 5);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn add(&self, socket: &DatagramSocket) -> Result<()> {
        self.add_shared(socket, &self.handler)
    }

    /// Adds a socket as [`add`](DatagramService::add) does, with its own handler.
    #[cfg(feature = "capi")]
    pub(crate) fn add_with(
        &self,
        socket: &DatagramSocket,
        handler: impl Fn(&DatagramSocket, &Datagram, &[u8]) + Send + Sync + 'static,
    ) -> Result<()> {
        let handler: Arc<Handler> = Arc::new(handler);
        self.add_shared(socket, &handler)
    }

    fn add_shared(&self, socket: &DatagramSocket, handler: &Arc<Handler>) -> Result<()> {
        let failed = |kind: ErrorKind| socket.failed(ADD, kind.into(), None);
        if self.serving.threads.is_inherited() {
            let error = failed(ErrorKind::WrongState);
            return Err(error.detail("the service runs in the parent process: call it there"));
        }
        let mut state = self.serving.lock();
        if state.stopped || state.running == 0 {
            return Err(failed(ErrorKind::Closed).detail("the service has ended: serve the socket"));
        }
        let Some(usage) = socket.0.cancel.begin_only_service() else {
            let error = failed(ErrorKind::WrongState);
            return Err(error.detail("a service uses the socket: stop that service first"));
        };
        self.serving.begin(socket, usage, handler, &mut state, ADD)
    }

    /// Returns the first socket, with which the service began. Any thread may send with it.
    ///
    /// ```
    /// # let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(&keepsock::ServeOptions::new(), |_, _, _| ())?;
    /// assert_eq!(service.socket().port(), socket.port());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn socket(&self) -> &DatagramSocket {
        &self.socket
    }

    /// Ends receiving on all sockets permanently: receiving calls return
    /// [`Closed`](ErrorKind::Closed) from now on. Sending still works. Datagrams that a thread has
    /// already received are handled; those in the kernel's buffer are not. May be called from
    /// inside a handler. Further calls do nothing, and neither does a call in a forked child.
    ///
    /// ```
    /// # let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(&keepsock::ServeOptions::new(), |_, _, _| ())?;
    /// service.stop();
    /// service.wait(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stop(&self) {
        // The service runs in the parent, and a thread of the parent may hold the lock.
        if self.serving.threads.is_inherited() {
            return;
        }
        let mut state = self.serving.lock();
        state.stopped = true;
        state.sockets.iter().for_each(DatagramSocket::end_receiving);
    }

    /// Waits until the service has ended: all threads have ended and all handlers have returned.
    /// [`stop`](DatagramService::stop) ends the service. Closing the socket and firing its cancel token
    /// end it as well, if it has no other socket. `None` waits without a limit.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): the service still receives after `timeout`.
    /// - [`WrongState`](ErrorKind::WrongState): called from inside a handler, where it would wait
    ///   for itself; or in a forked child, because the service runs in the parent.
    /// - [`Os`](ErrorKind::Os): receiving on a socket ended with a fatal error.
    ///
    /// ```
    /// # let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(&keepsock::ServeOptions::new(), |_, _, _| ())?;
    /// let waited = service.wait(std::time::Duration::from_millis(10));
    /// assert_eq!(waited.unwrap_err().kind(), keepsock::ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let failed = |kind: ErrorKind| self.socket.failed("wait", kind.into(), None);
        if self.serving.threads.is_current() {
            return Err(failed(ErrorKind::WrongState).detail("called from inside a handler, which it would wait for: call it from another thread"));
        }
        if self.serving.threads.is_inherited() {
            let error = failed(ErrorKind::WrongState);
            return Err(error.detail("the service runs in the parent process: call it there"));
        }
        let deadline = Deadline::after(timeout.into());
        let mut state = self.serving.lock();
        while state.running > 0 {
            if deadline.has_passed() {
                return Err(failed(ErrorKind::TimedOut));
            }
            state = wait_on(&self.serving.ended, state, deadline);
        }
        state.failure.clone().map_or(Ok(()), Err)
    }
}

impl DatagramService {
    /// Stops, and waits for the handlers, unless one of them calls this.
    pub(crate) fn shut_down(&self) {
        let threads = &self.serving.threads;
        // In a forked child the threads do not exist, and the parent continues to receive.
        if threads.is_inherited() {
            return;
        }
        self.stop();
        if !threads.is_current() {
            threads.join();
        }
    }
}

impl Drop for DatagramService {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl std::fmt::Debug for DatagramService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramService").field("socket", self.socket.endpoint()).finish()
    }
}
