//! Serving datagrams: a callback for each, from several threads.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Datagram, DatagramSocket, Incoming, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::sys;
use crate::wait::{Deadline, wait_on};

const SERVE: &str = "serve";
const MAX_THREADS: u32 = 1024;

/// What each thread has for what it receives at once; only what datagrams were written to is in
/// use. No datagram of UDP is longer than a 16th of it; those of Unix are seldom longer than a
/// fourth.
const ROOM: usize = 1 << 20;
const UDP_SLOT: usize = ROOM / 16;
const UNIX_SLOT: usize = ROOM / 4;

thread_local! {
    /// The service that this thread belongs to.
    static SERVING: Cell<*const Serving> = const { Cell::new(std::ptr::null()) };
}

/// A datagram socket that is being served, from [`DatagramSocket::serve`]. Dropping it stops it and
/// waits for handlers to return.
///
/// ```
/// # if cfg!(windows) { return Ok(()) }
/// let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
/// let service = socket.serve(1, |_, _, _| ())?;
/// drop(service);
/// # Ok::<(), keepsock::Error>(())
/// ```
pub struct DatagramService {
    socket: DatagramSocket,
    serving: Arc<Serving>,
    threads: Vec<JoinHandle<()>>,
}

struct Serving {
    /// Held until the service is where the program wants it.
    begun: Mutex<()>,
    /// Not all of its threads could be started.
    given_up: AtomicBool,
    state: Mutex<State>,
    ended: Condvar,
    received: AtomicU64,
}

struct State {
    running: u32,
    /// Why receiving ended, unless it was asked to.
    failure: Option<Error>,
}

impl DatagramSocket {
    /// Receives in `threads` threads, and calls `handler` for each datagram, with the socket, what
    /// is told of the datagram, and its bytes. A handler answers with
    /// [`reply`](DatagramSocket::reply); meanwhile any thread may send.
    ///
    /// A thread takes up to 16 datagrams at once (4 of a Unix socket, whose datagrams are cut after
    /// 256 KiB). With several threads those of
    /// one sender may be handled at the same time, and out of their order. Timeouts and
    /// non-blocking mode of the socket do not hold for the threads; its token ends the service. A
    /// handler that panics is told as an event, and serving goes on. A thread whose receiving fails
    /// ends, which is told, too; [`wait`](DatagramService::wait) says why. If the socket is served
    /// twice, stopping either service ends both.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for 0 threads, or more than 1,024;
    /// [`NoMemory`](ErrorKind::NoMemory): no thread can be started, or there is no memory for it;
    /// [`Closed`](ErrorKind::Closed), also after a [`stop`](DatagramService::stop).
    ///
    /// ```
    /// use keepsock::DatagramSocket;
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(2, |socket, datagram, bytes| {
    ///     let _ = socket.reply(datagram, bytes);
    /// })?;
    /// let client = DatagramSocket::connect(socket.endpoint())?;
    /// client.send(b"hello")?;
    /// assert_eq!(client.recv(&mut [0; 8])?.len, 5);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn serve(
        &self,
        threads: u32,
        handler: impl Fn(&DatagramSocket, &Datagram, &[u8]) + Send + Sync + 'static,
    ) -> Result<DatagramService> {
        self.serve_into(threads, handler, |service| service)
    }

    /// The same; no handler is called before `take` has the service, for handlers may want it.
    pub(crate) fn serve_into<T>(
        &self,
        threads: u32,
        handler: impl Fn(&DatagramSocket, &Datagram, &[u8]) + Send + Sync + 'static,
        take: impl FnOnce(DatagramService) -> T,
    ) -> Result<T> {
        if !(1..=MAX_THREADS).contains(&threads) {
            let error = self.failed(SERVE, ErrorKind::InvalidArgument.into(), None);
            return Err(error.detail(format!("{threads} threads: from 1 to {MAX_THREADS}")));
        }
        drop(self.enter(SERVE)?);
        if self.0.deaf.load(Ordering::Acquire) {
            let error = self.failed(SERVE, ErrorKind::Closed.into(), None);
            return Err(error.detail("receiving was stopped"));
        }
        let state = Mutex::new(State { running: 0, failure: None });
        let serving = Arc::new(Serving {
            begun: Mutex::new(()),
            given_up: AtomicBool::new(false),
            state,
            ended: Condvar::new(),
            received: AtomicU64::new(0),
        });
        let handler = Arc::new(handler);
        let mut started = Vec::new();
        let begins = serving.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..threads {
            let Some(mut room) = sys::zeroed(ROOM) else {
                return Err(self.give_up(&serving, started, begins, None));
            };
            serving.lock().running += 1;
            let (socket, handler, serving_too) = (self.clone(), handler.clone(), serving.clone());
            let work = move || {
                let serving = serving_too;
                SERVING.set(Arc::as_ptr(&serving));
                drop(serving.begun.lock().unwrap_or_else(PoisonError::into_inner));
                let given_up = serving.given_up.load(Ordering::Acquire);
                let ended =
                    if given_up { Ok(()) } else { socket.work(&mut room, &serving, &*handler) };
                serving.leave(ended.err());
            };
            let thread = std::thread::Builder::new().name("keepsock-serve".to_owned()).spawn(work);
            match thread {
                Ok(thread) => started.push(thread),
                Err(e) => {
                    serving.leave(None);
                    return Err(self.give_up(&serving, started, begins, Some(&e)));
                }
            }
        }
        let service =
            DatagramService { socket: self.clone(), serving: serving.clone(), threads: started };
        let taken = take(service);
        drop(begins);
        Ok(taken)
    }

    /// Ends the threads that were started before one could not be; none has received yet.
    #[cold]
    fn give_up(
        &self,
        serving: &Serving,
        started: Vec<JoinHandle<()>>,
        begins: MutexGuard<'_, ()>,
        cause: Option<&std::io::Error>,
    ) -> Error {
        serving.given_up.store(true, Ordering::Release);
        drop(begins);
        for thread in started {
            let _ = thread.join();
        }
        // pthread_create(3) says EAGAIN for a limit that was reached.
        let error = self.failed(SERVE, ErrorKind::NoMemory.into(), None);
        let error = error.with_os_error(cause.and_then(std::io::Error::raw_os_error));
        error.detail(if cause.is_some() { "no thread can be started" } else { "no memory" })
    }

    /// A thread's life.
    fn work(
        &self,
        room: &mut [u8],
        serving: &Serving,
        handler: &impl Fn(&DatagramSocket, &Datagram, &[u8]),
    ) -> Result<()> {
        let slot = match &self.0.side {
            Side::Inet(_) => UDP_SLOT,
            Side::Unix(_) => UNIX_SLOT,
        };
        let mut batch: Vec<_> = room.chunks_exact_mut(slot).map(Incoming::new).collect();
        loop {
            let count = match self.recv_for_serve(&mut batch) {
                Ok(count) => count,
                Err(e) if matches!(e.kind(), ErrorKind::Closed | ErrorKind::Cancelled) => {
                    return Ok(());
                }
                Err(e) => {
                    events::receiving_failed(&e);
                    return Err(e);
                }
            };
            serving.received.fetch_add(count as u64, Ordering::Relaxed);
            for one in &batch[..count] {
                let Some(datagram) = one.datagram() else {
                    continue;
                };
                let call = || handler(self, datagram, one.bytes());
                if catch_unwind(AssertUnwindSafe(call)).is_err() {
                    // The panic hook has told of it.
                    events::datagram_handler_panicked(&self.0.tuple_to(datagram.from.clone()));
                }
            }
        }
    }

    /// Ends receiving for good, and every call that waits for it. Sending goes on.
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

    fn leave(&self, failure: Option<Error>) {
        let mut state = self.lock();
        state.running -= 1;
        state.failure = state.failure.take().or(failure);
        drop(state);
        self.ended.notify_all();
    }
}

impl DatagramService {
    /// The socket, to send with from anywhere.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// # let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(1, |_, _, _| ())?;
    /// assert_eq!(service.socket().port(), socket.port());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn socket(&self) -> &DatagramSocket {
        &self.socket
    }

    /// How many datagrams were received so far.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// # let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(1, |_, _, _| ())?;
    /// assert_eq!(service.received(), 0);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn received(&self) -> u64 {
        self.serving.received.load(Ordering::Relaxed)
    }

    /// Ends receiving, for the socket as a whole and for good: its receiving calls return
    /// [`Closed`](ErrorKind::Closed) from then on, but it can still send. What a thread has taken
    /// already is handled; what waits in the kernel is not. May be called from inside a handler;
    /// stopping twice is fine.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// # let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(1, |_, _, _| ())?;
    /// service.stop();
    /// service.wait(None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stop(&self) {
        self.socket.end_receiving();
    }

    /// Waits until all threads have ended, and so all handlers returned: after
    /// [`stop`](DatagramService::stop), the socket's close, or its token. `None`: for as long as
    /// that takes.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): it still receives; [`WrongState`](ErrorKind::WrongState)
    /// from inside a handler, which would be waiting for itself. The error of a receiving call
    /// that failed for good.
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// # let socket = keepsock::DatagramSocket::bind("127.0.0.1:0")?;
    /// let service = socket.serve(1, |_, _, _| ())?;
    /// let waited = service.wait(std::time::Duration::from_millis(10));
    /// assert_eq!(waited.unwrap_err().kind(), keepsock::ErrorKind::TimedOut);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let failed = |kind: ErrorKind| self.socket.failed("wait", kind.into(), None);
        if self.is_serving_here() {
            return Err(failed(ErrorKind::WrongState).detail("called from inside a handler"));
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

    fn is_serving_here(&self) -> bool {
        SERVING.get() == Arc::as_ptr(&self.serving)
    }
}

impl Drop for DatagramService {
    fn drop(&mut self) {
        self.stop();
        if self.is_serving_here() {
            return;
        }
        for thread in self.threads.drain(..) {
            // Handlers that panic are caught in the thread.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for DatagramService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramService").field("socket", self.socket.endpoint()).finish()
    }
}
