//! A descriptor that its last user closes.
//!
//! close(2) while another thread is in a call on the same number wakes nobody,
//! and the number may be given to the next open at once; that thread would go on
//! with somebody else's file. So each call counts itself in and out, closing only
//! sets a flag and wakes, and the descriptor is closed when the count is zero.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Borrowed, Owned, Raw};

const CLOSED: u32 = 1 << 31;
/// Set when the descriptor was given to somebody else: the last user leaves it open.
const GIVEN_UP: u32 = 1 << 30;
const USERS: u32 = GIVEN_UP - 1;

#[derive(Debug)]
pub(crate) struct Descriptor {
    raw: Raw,
    /// CLOSED and GIVEN_UP, and the number of calls that use the descriptor now.
    state: AtomicU32,
}

/// A call's use of the descriptor. While it lives, the descriptor is open.
pub(crate) struct InUse<'a>(&'a Descriptor);

impl Descriptor {
    pub(crate) fn new(owned: Owned) -> Descriptor {
        Descriptor { raw: super::into_raw(owned), state: AtomicU32::new(0) }
    }

    /// Begins a call; `None` once the descriptor was closed here.
    #[inline]
    pub(crate) fn enter(&self) -> Option<InUse<'_>> {
        // In one order with the flags of the socket: either this call sees that it
        // is closing, or the closing call sees this one.
        if self.state.fetch_add(1, Ordering::SeqCst) & CLOSED != 0 {
            self.leave();
            return None;
        }
        Some(InUse(self))
    }

    #[inline]
    fn leave(&self) {
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1 {
            self.close_if_last();
        }
    }

    /// The last user of a closed descriptor closes it. A call that comes late to
    /// a closed descriptor counts itself in and out too, so the exchange to
    /// GIVEN_UP decides which of two "last" users it is.
    #[cold]
    fn close_if_last(&self) {
        let last = self.state.compare_exchange(
            CLOSED,
            CLOSED | GIVEN_UP,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if last.is_ok() {
            self.close_now();
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether a call other than the asking one (which holds `_mine`) is under way.
    pub(crate) fn is_shared(&self, _mine: &InUse<'_>) -> bool {
        self.state.load(Ordering::SeqCst) & USERS > 1
    }

    /// Marks it closed; false if it was already. The caller then wakes the
    /// others; the descriptor is closed when the last guard is dropped.
    pub(crate) fn close(&self, _mine: &InUse<'_>) -> bool {
        self.state.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED == 0
    }

    /// Gives the descriptor up if no other call uses it; `None` leaves it as it was.
    pub(crate) fn release(&self, mine: InUse<'_>) -> Option<Owned> {
        let alone = self.state.compare_exchange(
            1,
            1 | CLOSED | GIVEN_UP,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        let owned = alone.is_ok().then(|| {
            // SAFETY: the exchange succeeds once in the life of the descriptor
            // and only while it is open; GIVEN_UP keeps us from closing it.
            unsafe { super::from_raw(self.raw) }
        });
        drop(mine);
        owned
    }

    fn close_now(&self) {
        // SAFETY: only the last user of a closed descriptor comes here, and
        // GIVEN_UP, set below, keeps it from being closed twice.
        drop(unsafe { super::from_raw(self.raw) });
    }
}

impl InUse<'_> {
    #[inline]
    pub(crate) fn socket(&self) -> Borrowed<'_> {
        // SAFETY: the descriptor is open while it is counted as in use.
        unsafe { super::borrow_raw(self.0.raw) }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl Drop for InUse<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if *self.state.get_mut() & CLOSED == 0 {
            self.close_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    fn descriptor() -> (Descriptor, std::net::TcpListener) {
        let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(peer.local_addr().unwrap()).unwrap();
        (Descriptor::new(socket.into()), peer)
    }

    /// T3: closed at the last guard, once; later calls are turned away.
    #[test]
    fn the_last_user_closes() {
        let (descriptor, _peer) = descriptor();
        let first = descriptor.enter().unwrap();
        let second = descriptor.enter().unwrap();
        assert!(descriptor.is_shared(&first));
        assert!(descriptor.close(&first));
        assert!(!descriptor.close(&first));
        assert!(descriptor.enter().is_none());
        drop(first);
        assert_eq!(
            descriptor.state.load(Ordering::Relaxed),
            CLOSED + 1,
            "still open for the second"
        );
        drop(second);
        assert_eq!(descriptor.state.load(Ordering::Relaxed), CLOSED | GIVEN_UP);
        assert!(descriptor.enter().is_none());
        assert_eq!(descriptor.state.load(Ordering::Relaxed), CLOSED | GIVEN_UP);
    }

    #[test]
    fn it_is_given_up_only_when_nobody_else_uses_it() {
        let (descriptor, _peer) = descriptor();
        let other = descriptor.enter().unwrap();
        assert!(descriptor.release(descriptor.enter().unwrap()).is_none());
        drop(other);
        assert!(!descriptor.is_closed());
        assert!(descriptor.release(descriptor.enter().unwrap()).is_some());
        assert!(descriptor.enter().is_none());
    }

    /// T3: threads that come and go around a close never see an open guard
    /// after the descriptor was closed, and exactly one of them closes.
    #[test]
    fn enter_and_close_race() {
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            let (descriptor, _peer) = descriptor();
            let turned_away = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while let Some(guard) = descriptor.enter() {
                            assert_eq!(descriptor.state.load(Ordering::Relaxed) & GIVEN_UP, 0);
                            drop(guard);
                        }
                        turned_away.fetch_add(1, Ordering::Relaxed);
                    });
                }
                let mine = descriptor.enter().unwrap();
                descriptor.close(&mine);
            });
            assert_eq!(turned_away.into_inner(), 3);
            assert_eq!(descriptor.state.load(Ordering::Relaxed), CLOSED | GIVEN_UP);
        }
    }
}
