//! How models run, the numbers of descriptors in a model, and the models of `fd`.
//!
//! A model states what several threads do at the same time. loom runs it once for each order of
//! their operations.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loom::thread;

use super::{Descriptor, Owned};

/// Runs a model with every order of its threads' operations. `preemptions`: with at most this number
/// of switches from a thread that could continue.
pub(crate) fn explore(
    name: &str,
    preemptions: Option<usize>,
    model: impl Fn() + Sync + Send + 'static,
) {
    let runs = Arc::new(AtomicU64::new(0));
    let counted = runs.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        NUMBERS.with_borrow_mut(HashMap::clear);
        CELLS.with_borrow_mut(HashMap::clear);
        NOW.set(Duration::ZERO);
        model();
    });
    println!("model {name}: {} interleavings", runs.load(Ordering::Relaxed));
}

/// A value without a lock of its own. The model checker reports accesses that race.
#[derive(Default)]
pub(crate) struct Unsynchronized(loom::cell::UnsafeCell<u32>);

// SAFETY: the model checker reports an access to the cell that races with another access, before the
// access.
unsafe impl Sync for Unsynchronized {}

impl Unsynchronized {
    pub(crate) fn change(&self) {
        // SAFETY: as above.
        self.0.with_mut(|count| unsafe { *count += 1 });
    }

    /// The number of changes.
    pub(crate) fn count(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|count| unsafe { *count })
    }
}

/// The uses of a descriptor number by a [`Descriptor`].
#[derive(Default)]
struct Number {
    users: u32,
    is_released: bool,
}

/// The time of a model. It passes only while threads wait, so each order has the same times again.
pub(crate) fn now() -> Duration {
    NOW.get()
}

/// Runs a part of a model with a stack that is large enough for the whole library.
pub(crate) fn program(run: impl FnOnce() + Send + 'static) {
    const WORDS: usize = 1 << 17;
    thread::Builder::new().stack_size(WORDS).spawn(run).unwrap().join().unwrap();
}

/// A model that needs more time waits forever.
const LONGEST: Duration = Duration::from_secs(1);

/// A thread waits, and the others run.
pub(crate) fn sleep(time: Duration) {
    NOW.set(NOW.get() + time);
    assert!(NOW.get() < LONGEST, "the threads wait for each other");
    thread::yield_now();
}

/// Waits until `look` finds something or the time has passed. The system must not block the one thread
/// that all threads of a model use.
pub(super) fn wait_until(
    timeout: Option<Duration>,
    mut look: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let start = now();
    loop {
        system_call();
        if look()? || timeout.is_some_and(|timeout| now() - start >= timeout) {
            return Ok(());
        }
        sleep(Duration::from_millis(1));
    }
}

loom::lazy_static! {
    static ref KERNEL: loom::sync::atomic::AtomicU32 = loom::sync::atomic::AtomicU32::new(0);
}

/// The kernel handles one system call on a socket after another, and its locks order the memory of the
/// threads that make them.
pub(super) fn system_call() {
    KERNEL.fetch_add(1, Ordering::AcqRel);
}

/// A thread that the library has started.
#[derive(Debug)]
pub(crate) struct JoinHandle<T>(pub(super) thread::JoinHandle<T>);

impl<T> JoinHandle<T> {
    pub(crate) fn join(self) -> std::thread::Result<T> {
        self.0.join()
    }

    pub(crate) fn is_finished(&self) -> bool {
        false
    }
}

/// A value of each thread of a model, and the function that returns the first value.
pub(crate) struct ThreadCell<T: 'static>(pub(crate) fn() -> T);

impl<T: Copy + 'static> ThreadCell<T> {
    fn key(&'static self) -> (usize, thread::ThreadId) {
        (std::ptr::from_ref(self).addr(), thread::current().id())
    }

    pub(crate) fn get(&'static self) -> T {
        CELLS.with_borrow(|cells| {
            let value = cells.get(&self.key()).and_then(|value| value.downcast_ref::<T>());
            value.copied().unwrap_or_else(self.0)
        })
    }

    pub(crate) fn set(&'static self, value: T) {
        CELLS.with_borrow_mut(|cells| cells.insert(self.key(), Box::new(value)));
    }
}

thread_local! {
    static CELLS: RefCell<HashMap<(usize, thread::ThreadId), Box<dyn Any>>> = RefCell::default();
    /// The numbers of the descriptors in use. All threads of a model run in one thread of the system.
    static NUMBERS: RefCell<HashMap<i32, Number>> = RefCell::default();
    static NOW: Cell<Duration> = Cell::default();
}

/// A [`Descriptor`] gets a new descriptor.
pub(super) fn opened(socket: &Owned) {
    let number = socket.as_raw_fd();
    let before = NUMBERS.with_borrow_mut(|numbers| numbers.insert(number, Number::default()));
    assert!(before.is_none(), "the number is in use");
}

/// A call begins to use the descriptor.
pub(super) fn began(socket: &Owned) {
    with(socket, |number| number.users += 1);
}

/// The descriptor is passed to a system call.
pub(super) fn used(socket: &Owned) {
    system_call();
    with(socket, |_| ());
}

/// A call or hold ends.
pub(super) fn ended(socket: &Owned) {
    let is_last = with(socket, |number| {
        number.users -= 1;
        number.is_released && number.users == 0
    });
    if is_last {
        NUMBERS.with_borrow_mut(|numbers| numbers.remove(&socket.as_raw_fd()));
    }
}

/// The caller, which is the only user, takes the descriptor.
pub(super) fn released(socket: &Owned) {
    with(socket, |number| {
        assert_eq!(number.users, 1, "released while another call uses it");
        number.is_released = true;
    });
}

/// The descriptor is closed now, and the system may assign its number to another file.
pub(super) fn closed(socket: &Owned) {
    with(socket, |number| assert_eq!(number.users, 0, "closed while a call uses it"));
    NUMBERS.with_borrow_mut(|numbers| numbers.remove(&socket.as_raw_fd()));
}

fn with<T>(socket: &Owned, change: impl FnOnce(&mut Number) -> T) -> T {
    NUMBERS.with_borrow_mut(|numbers| {
        change(numbers.get_mut(&socket.as_raw_fd()).expect("use of a closed descriptor"))
    })
}

fn descriptor() -> Arc<Descriptor> {
    Arc::new(Descriptor::new(std::fs::File::open("/dev/null").unwrap().into()))
}

/// T3: the last user of a closed descriptor closes it, once. A call that starts late is rejected. No
/// call uses the number after the close, when another file may have it.
#[test]
fn last_user_closes_the_descriptor() {
    explore("last user closes the descriptor", Some(3), || {
        let shared = descriptor();
        let users: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    if let Some(call) = shared.enter() {
                        call.socket();
                    }
                })
            })
            .collect();
        let mine = shared.enter().unwrap();
        assert!(shared.close(&mine));
        drop(mine);
        // The system assigns the lowest number.
        let later = descriptor();
        later.enter().unwrap().socket();
        for user in users {
            user.join().unwrap();
        }
        assert!(shared.enter().is_none());
        assert_eq!(NUMBERS.with_borrow(HashMap::len), 1);
    });
}

/// T3: one of two closes ends the use, and a hold keeps the descriptor open.
#[test]
fn close_waits_for_a_hold() {
    explore("close and hold", None, || {
        let shared = descriptor();
        let hold = shared.enter().unwrap().hold();
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || shared.enter().is_some_and(|call| shared.close(&call)))
            })
            .collect();
        hold.socket();
        drop(hold);
        let closed: usize =
            closers.into_iter().map(|closer| usize::from(closer.join().unwrap())).sum();
        assert_eq!(closed, 1);
        assert_eq!(NUMBERS.with_borrow(HashMap::len), 0);
    });
}

/// T4: a release succeeds only for the only user, and a close at the same time finds the descriptor
/// released or closes it.
#[test]
fn release_excludes_close_and_calls() {
    explore("release against close", None, || {
        let shared = descriptor();
        let other = shared.clone();
        let closer = thread::spawn(move || other.enter().is_some_and(|call| other.close(&call)));
        let released = shared.enter().and_then(|call| shared.release(call));
        let closed = closer.join().unwrap();
        assert!(!(closed && released.is_some()));
        assert_eq!(NUMBERS.with_borrow(HashMap::len), usize::from(!closed && released.is_none()));
    });
}
