//! Models of the cancel token and of the polling lock.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use crate::io::cancel::CancelToken;
use crate::io::lock::PollingLock;
use crate::sys::model::{Unsynchronized, explore};
use crate::sys::{self, Interest};

/// Whether the event of the token ends a poll.
fn ends_polls(token: &CancelToken) -> bool {
    let event = token.descriptor().unwrap();
    let ready = sys::poll_any(&[event], Interest::Read, [None, None], Some(Duration::ZERO));
    ready.unwrap().socket.is_some()
}

/// T2: the event of a token is set if and only if the token is fired, whatever fires and resets there
/// were at the same time. Otherwise each later wait spins, or is not cancelled.
#[test]
fn token_and_event_agree_after_fires_and_resets() {
    explore("cancel token: fire against two resets", None, || {
        let token = CancelToken::new().unwrap();
        token.fire();
        let resets: Vec<_> = (0..2)
            .map(|_| {
                let token = token.clone();
                thread::spawn(move || token.reset())
            })
            .collect();
        token.fire();
        for reset in resets {
            reset.join().unwrap();
        }
        assert_eq!(token.is_fired(), ends_polls(&token));
        token.fire();
        assert!(token.is_fired() && ends_polls(&token));
        token.reset();
        assert!(!token.is_fired() && !ends_polls(&token));
    });
}

/// A lock and what it protects.
#[derive(Default)]
struct Protected {
    lock: PollingLock,
    changes: Unsynchronized,
}

impl Protected {
    fn change(&self) {
        let guard = self.lock.lock_with(|| Ok::<_, ()>(None)).ok();
        self.changes.change();
        drop(guard);
    }
}

/// I4: one thread at a time has the lock, and an unlock wakes a waiter: the waiters of this model never
/// wake by themselves.
#[test]
fn lock_admits_one_thread_and_wakes_each_waiter() {
    explore("write lock: three threads", Some(3), || {
        let shared = Arc::new(Protected::default());
        let others: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || shared.change())
            })
            .collect();
        shared.change();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.changes.count(), 3);
    });
}

/// I4: a waiter that stops waiting leaves no other waiter asleep.
#[test]
fn lock_wakes_the_next_waiter_when_a_waiter_stops() {
    explore("write lock: a waiter stops", Some(3), || {
        let shared = Arc::new(Protected::default());
        let waits = shared.clone();
        let waits = thread::spawn(move || waits.change());
        let stops = shared.clone();
        let stops = thread::spawn(move || stops.lock.lock(|| Err(())).is_ok());
        shared.change();
        waits.join().unwrap();
        stops.join().unwrap();
        assert_eq!(shared.changes.count(), 2);
    });
}

/// E5: in a forked child a lock that a thread of the parent holds is free, for one thread at a time.
#[test]
fn lock_of_the_parent_is_free_in_a_child() {
    explore("write lock: forked child", Some(3), || {
        let shared = Arc::new(Protected::default());
        mem::forget(shared.lock.try_lock());
        sys::fork::become_child();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || shared.change())
            })
            .collect();
        shared.change();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.changes.count(), 3);
    });
}
