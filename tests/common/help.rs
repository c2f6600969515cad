//! Limits, waiting for events, temporary directories.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Api, Client, Opt, Pair, Transport, pair_with, system};

/// No test takes longer; one that does ends the whole program and says which it was.
const LIMIT: Duration = Duration::from_secs(30);

/// Ends the process if it is not dropped within [`LIMIT`].
pub struct Limit(Option<mpsc::Sender<()>>);

impl Limit {
    pub fn new(name: &'static str) -> Limit {
        let (alive, ended) = mpsc::channel::<()>();
        thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{name}: still running after {LIMIT:?}");
                std::process::abort();
            }
        });
        Limit(Some(alive))
    }
}

/// Waits until something that cannot be waited for otherwise is so.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < until, "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// That a time is kept. A busy machine may be late once; a defect is late always.
#[track_caller]
pub fn promptly(limit: Duration, measure: impl Fn() -> Duration) {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(measure());
        if best <= limit {
            return;
        }
    }
    panic!("took {best:?} at best, allowed are {limit:?}");
}

/// The time that something takes.
pub fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = f();
    (value, start.elapsed())
}

/// Makes a call in another thread, and as soon as it waits in the kernel does
/// something to it. Gives the call's outcome and the time from that moment to its end.
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

/// A directory of one test's own, removed with all that is in it.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("parity-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A Unix endpoint in the directory.
    pub fn endpoint(&self, name: &str) -> String {
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

/// A way to call a socket that waits.
pub struct Waiting<A: Api> {
    pub name: &'static str,
    /// Makes the call on the connection; it waits until something happens.
    pub call: fn(&A::Client) -> super::Outcome<()>,
}

/// Every call on a connection that may wait, when the peer neither sends nor reads.
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

/// A connection for one waiting call, which is quick to fill.
pub fn small_pair<A: Api>(transport: Transport) -> Pair<A> {
    let pair = pair_with::<A>(transport, &[Opt::CloseTimeout(0)]);
    system::shrink_buffers(pair.client.fd().unwrap());
    system::shrink_buffers(pair.accepted.fd().unwrap());
    pair
}

/// An address of this machine where nothing listens: bound, so that nobody else gets
/// it, and never listened on. The socket lives as long as the program.
pub fn refused_address() -> std::net::SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// A listener whose queue is full: it answers no SYN, so connecting to it takes as long
/// as one lets it.
pub struct FullQueue {
    listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
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
        let waiting = (0..8)
            .map_while(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.connect_timeout(&address, Duration::from_millis(30)).ok()?;
                Some(socket)
            })
            .collect();
        FullQueue { listener, _waiting: waiting }
    }

    pub fn endpoint(&self) -> String {
        self.listener.local_addr().unwrap().as_socket().unwrap().to_string()
    }
}

impl FullQueue {
    /// Takes one connection off the queue.
    pub fn make_room(&self) {
        self.listener.accept().unwrap();
    }
}

/// Does something at the end, also when a test fails: threads that wait for it would
/// keep the failure from being seen.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The name of a test as the program takes it.
pub fn name<A: Api>(test: &str) -> String {
    format!("{}::{test}", api::<A>().to_lowercase())
}

pub fn api<A: Api>() -> &'static str {
    if A::NUMBER == 1 { "Rust" } else { "C" }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What is told from anything that is shorter, longer, or moved; Python's
/// `bytes(i % 251 for i in range(n))`.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Nothing that is awaited takes so many milliseconds.
pub const AWAITED: i64 = 10_000;
