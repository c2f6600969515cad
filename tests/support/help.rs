//! Time limits, waits for events, temporary directories.

use std::cell::RefCell;
use std::io::Write;
use std::net::{IpAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::os::AsRawFd;
use super::timing::assert_within;
use super::{Api, Client, Opt, Pair, Transport, pair_with, system};

/// The time limit of each test, which only a test that hangs reaches, also on a busy machine. It ends
/// the whole program, which prints the name of the test.
const LIMIT: Duration = Duration::from_secs(360);

/// Ends the process if it is not dropped within [`LIMIT`].
pub struct Limit(Option<mpsc::Sender<()>>);

impl Limit {
    pub fn new(name: &'static str) -> Limit {
        let (alive, ended) = mpsc::channel::<()>();
        thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                // The test program would capture the output of a macro, and lose it.
                let _ = writeln!(std::io::stderr(), "{name}: still running after {LIMIT:?}");
                std::process::abort();
            }
        });
        Limit(Some(alive))
    }
}

/// Runs a test with its time limit. A test that called [`skip`] is skipped.
pub fn run(name: &'static str, test: fn()) {
    let _limit = Limit::new(name);
    #[cfg(windows)]
    if let Some(reason) = super::lacks::reason_to_skip(name) {
        println!("{SKIPPED}{reason}");
        return;
    }
    match skipped(test) {
        Ok(None) => {}
        Ok(Some(reason)) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped: {reason}");
            println!("{SKIPPED}{reason}");
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// Runs a test. Returns the reason if the test or one of its callbacks called [`skip`].
pub fn skipped(test: impl FnOnce()) -> thread::Result<Option<String>> {
    let callbacks = Callbacks::default();
    let ended = callbacks.set_while(|| catch_unwind(AssertUnwindSafe(test)));
    let of_callback = callbacks.0.get().cloned();
    match ended.map_err(|payload| payload.downcast::<Skipped>()) {
        Ok(()) => Ok(of_callback),
        Err(Ok(skipped)) => Ok(Some(skipped.0)),
        Err(Err(payload)) => of_callback.map(Some).ok_or(payload),
    }
}

thread_local! {
    static CALLBACKS: RefCell<Callbacks> = RefCell::default();
}

/// The callbacks of one test, with the reason why one of them has skipped the test. A callback runs in a
/// thread of the library, and through the C API it must not unwind.
#[derive(Clone, Default)]
pub struct Callbacks(Arc<OnceLock<String>>);

impl Callbacks {
    /// The callbacks of the test of this thread, or of the test whose callback this thread runs.
    pub fn of_test() -> Callbacks {
        // A function of atexit(3) runs after the end of the variables of its thread.
        CALLBACKS.try_with(|callbacks| callbacks.borrow().clone()).unwrap_or_default()
    }

    /// Runs a callback. [`skip`] ends the callback only, and the test is skipped when it ends.
    pub fn run(&self, callback: impl FnOnce()) {
        let ended = self.set_while(|| catch_unwind(AssertUnwindSafe(callback)));
        if let Err(payload) = ended {
            match payload.downcast::<Skipped>() {
                Ok(skipped) => drop(self.0.set(skipped.0)),
                Err(payload) => resume_unwind(payload),
            }
        }
    }

    fn set_while<T>(&self, f: impl FnOnce() -> T) -> T {
        let set = |callbacks| CALLBACKS.try_with(|cell| cell.replace(callbacks)).ok();
        let before = set(self.clone());
        let value = f();
        before.map(set);
        value
    }
}

/// The output of a skipped test, before the reason.
pub const SKIPPED: &str = "test skipped: ";

struct Skipped(String);

/// Ends the test, which this platform cannot run.
pub fn skip(reason: &str) -> ! {
    std::panic::panic_any(Skipped(reason.to_owned()))
}

/// Skips a test of bytes that were received before a reset. Windows discards them when RST arrives.
pub fn needs_bytes_after_reset() {
    if cfg!(windows) {
        skip("Windows discards unread bytes when the peer resets the connection");
    }
}

/// The text of the system for an error: C libraries have different ones.
pub fn system_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Waits until a condition holds for which there is no event.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        if let Some(reason) = Callbacks::of_test().0.get() {
            skip(reason);
        }
        assert!(Instant::now() < until, "not within 60 s: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Checks that a call returns in time. `measure` returns the time, and is repeated as
/// [`assert_within`] describes. It must not assert an upper limit of a time itself.
#[track_caller]
pub fn promptly(limit: Duration, measure: impl Fn() -> Duration) {
    assert_within(limit, measure);
}

/// Measures the duration of a call.
pub fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = f();
    (value, start.elapsed())
}

/// Makes a call in another thread, and calls `meanwhile` as soon as that thread waits in the
/// kernel. Returns the call's result and the time from that moment to its end.
pub fn while_waiting<T: Send>(
    call: impl FnOnce() -> T + Send,
    meanwhile: impl FnOnce(),
) -> (T, Duration) {
    let tid = AtomicI32::new(0);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            tid.store(system::thread_id(), Ordering::Release);
            let outcome = call();
            (outcome, Instant::now())
        });
        eventually("the call waits in the kernel", || {
            let tid = tid.load(Ordering::Acquire);
            caller.is_finished() || (tid != 0 && system::waits_for_a_socket(tid))
        });
        let start = Instant::now();
        meanwhile();
        let (outcome, end) = caller.join().unwrap();
        (outcome, end.saturating_duration_since(start))
    })
}

/// A directory of one test, removed with its contents.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("keepsock-test-{}-{n}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return TempDir(path),
                // A killed process with the same number may have left its directory.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("{}: {e}", path.display()),
            }
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A Unix endpoint in the directory.
    pub fn endpoint(&self, name: &str) -> String {
        if cfg!(windows) {
            skip("the library has no Unix sockets on Windows");
        }
        format!("unix:{}", self.path(name).display())
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_dir_all(path) {
        eprintln!("{}: {e}", path.display());
    }
}

/// More than any pair of socket buffers holds.
pub const MORE_THAN_FITS: usize = 64 << 20;

/// A call that waits on a socket.
pub struct Waiting<A: Api> {
    pub name: &'static str,
    /// Makes the call on the connection. It waits until an event ends it.
    pub call: fn(&A::Client) -> super::Outcome<()>,
}

/// Each call on a connection that can wait, for a peer that neither sends nor reads.
pub fn waiting_calls<A: Api>() -> Vec<Waiting<A>> {
    vec![
        Waiting { name: "read", call: |c| c.read(&mut [0; 64]).map(drop) },
        Waiting { name: "read_slices", call: |c| c.read_slices(&mut [&mut [0; 64]]).map(drop) },
        Waiting { name: "read_exact", call: |c| c.read_exact(&mut [0; 64]) },
        Waiting { name: "read_until", call: |c| c.read_until(b';', 64).map(drop) },
        Waiting { name: "read_line", call: |c| c.read_line(64).map(drop) },
        Waiting { name: "wait_hangup", call: |c| c.wait_hangup(super::INFINITE).map(drop) },
        Waiting {
            name: "write",
            call: |c| {
                loop {
                    c.write(&[0; 1 << 20])?;
                }
            },
        },
        Waiting { name: "write_all", call: |c| c.write_all(&vec![0; MORE_THAN_FITS]) },
        Waiting {
            name: "write_slices",
            call: |c| {
                let half = vec![0; MORE_THAN_FITS / 2];
                c.write_slices(&[&half, &half])
            },
        },
        Waiting {
            name: "write_file",
            call: |c| {
                let file = system::blank_file(MORE_THAN_FITS as u64);
                c.send_file(file.as_raw_fd(), 0, u64::MAX).map(drop)
            },
        },
    ]
}

/// A connection for one waiting call. It has small buffers.
pub fn small_pair<A: Api>(transport: Transport) -> Pair<A> {
    let pair = pair_with::<A>(transport, &[Opt::CloseTimeout(0)]);
    system::shrink_buffers(pair.client.fd().unwrap());
    system::shrink_buffers(pair.accepted.fd().unwrap());
    pair
}

/// A local address without a listener. It is bound, so that no other socket gets it, and never
/// listens. The socket lives as long as the program.
pub fn refused_address() -> std::net::SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// A port that the kernel does not choose for port 0 (Linux begins at 32768), so that no other test
/// gets it. Two processes seldom have the same.
pub fn own_port() -> u16 {
    10_000 + (std::process::id() % 20_000) as u16
}

/// A listener with a full queue. It answers no SYN, so a connect waits until its timeout.
pub struct FullQueue {
    listener: socket2::Socket,
    _waiting: Vec<TcpStream>,
}

impl FullQueue {
    pub fn new() -> FullQueue {
        FullQueue::at(([127, 0, 0, 1], 0).into())
    }

    pub fn at(address: std::net::SocketAddr) -> FullQueue {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let address = address.as_socket().unwrap();
        let mut waiting = Vec::new();
        // The kernel may put a connection into the queue after connect(2) has returned.
        while !system::is_queue_full(&listener) {
            waiting.extend(TcpStream::connect_timeout(&address, Duration::from_millis(30)));
        }
        FullQueue { listener, _waiting: waiting }
    }

    pub fn endpoint(&self) -> String {
        self.listener.local_addr().unwrap().as_socket().unwrap().to_string()
    }
}

impl FullQueue {
    /// Accepts one connection from the queue.
    pub fn make_room(&self) {
        self.listener.accept().unwrap();
    }
}

/// Connects to a Unix listener until its queue is full. Returns the connections in the queue.
pub fn fill_queue(path: &Path) -> Vec<socket2::Socket> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let address = SockAddr::unix(path).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => waiting.push(socket),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return waiting,
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }
}

/// Calls a function at the end, also when a test fails: threads that wait for it would otherwise
/// hide the failure.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The path of a test without the name of its crate, which the test program does not accept.
pub fn path_of(module: &str, api: &str, test: &str) -> String {
    let inside_crate = module.split("::").skip(1);
    let words = inside_crate.chain([api, test]).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("::")
}

/// The module in which [`both_apis!`] puts the tests of an API.
pub fn module_of<A: Api>() -> &'static str {
    if A::NUMBER == 1 { "rust" } else { "c" }
}

pub fn api<A: Api>() -> &'static str {
    if A::NUMBER == 1 { "Rust" } else { "C" }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A sequence in which shorter, longer and moved parts differ. It equals Python's `bytes(i % 251
/// for i in range(n))`.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// The time in milliseconds that no expected event takes.
pub const AWAITED: i64 = 60_000;
