//! The event loop of a program, which follows the reports of a connect.

use crate::support::libc;
use crate::support::os::RawFd;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::support::{self, INFINITE, Watched, system};

/// The descriptors and the timeout of an event loop.
#[derive(Clone, Default)]
pub struct Waits(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    descriptors: BTreeMap<RawFd, (i16, Option<(u64, u64)>)>,
    timeout: Option<i64>,
    /// The number of descriptors that were added.
    added: usize,
    /// The number of reports of a timeout.
    timeouts: usize,
}

impl Waits {
    pub fn watch(&self) -> support::WatchFn {
        let waits = self.clone();
        Box::new(move |reported| {
            let mut waiting = waits.0.lock().unwrap();
            let (fd, events) = match reported {
                Watched::Readable(fd) => (fd, libc::POLLIN),
                Watched::Writable(fd) => (fd, libc::POLLOUT),
                Watched::Timeout(timeout) => {
                    waiting.timeouts += 1;
                    waiting.timeout = Some(timeout);
                    return;
                }
                Watched::Remove(fd) => {
                    let (_, identity) = waiting.descriptors.remove(&fd).expect("was added");
                    assert_eq!(system::identity(fd), identity, "closed before it was removed");
                    return;
                }
            };
            let identity = system::identity(fd);
            assert!(identity.is_some(), "{fd} is not open");
            let before = waiting.descriptors.insert(fd, (events, identity));
            assert!(before.is_none(), "{fd} was added twice");
            waiting.added += 1;
        })
    }

    /// The number of descriptors that are watched now.
    pub fn descriptors(&self) -> usize {
        self.0.lock().unwrap().descriptors.len()
    }

    /// The number of descriptors that were added so far.
    pub fn added(&self) -> usize {
        self.0.lock().unwrap().added
    }

    /// The timeout that was reported last.
    pub fn timeout(&self) -> Option<i64> {
        self.0.lock().unwrap().timeout
    }

    /// The number of times that a timeout was reported.
    pub fn timeouts(&self) -> usize {
        self.0.lock().unwrap().timeouts
    }

    /// Whether the event loop has nothing left to wait for.
    pub fn are_over(&self) -> bool {
        let waiting = self.0.lock().unwrap();
        waiting.descriptors.is_empty() && waiting.timeout.unwrap_or(INFINITE) == INFINITE
    }

    /// Waits until finish must be called.
    pub fn wait(&self) {
        let (polls, timeout) = {
            let waiting = self.0.lock().unwrap();
            let polls: Vec<_> =
                waiting.descriptors.iter().map(|(fd, (events, _))| (*fd, *events)).collect();
            (polls, waiting.timeout.unwrap())
        };
        assert!(timeout != INFINITE || !polls.is_empty(), "nothing to wait for");
        system::poll(&polls, i32::try_from(timeout).unwrap());
    }
}
