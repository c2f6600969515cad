//! A descriptor that its last user closes.
//!
//! close(2) does not wake a thread that is in a call on the same descriptor, and the next open may
//! get the same number: the thread would continue with another file. So each call counts itself in
//! and out, closing sets a flag and wakes the threads, and the last call closes the descriptor.

use std::mem::{self, ManuallyDrop};
use std::time::Duration;

use super::{Borrowed, CancellationDisabled, Owned, fork, sync};
use crate::sys::sync::atomic::{AtomicU64, Ordering};

/// No new call starts: the descriptor was closed, or a call waits for the active calls. This is the
/// sign bit, which a call tests with the fewest instructions.
const LATE: u64 = 1 << 63;
/// LATE is set as well.
const CLOSED: u64 = 1 << 62;
/// Set when the descriptor was released to the program: the last user does not close it.
const GIVEN_UP: u64 = 1 << 61;
/// A use that is not a call: it cannot hold an error that the kernel has reported.
const HOLD: u64 = 1 << 32;
const CALLS: u64 = HOLD - 1;
const USERS: u64 = GIVEN_UP - 1;
/// The state of a descriptor that is no longer this object's.
const RELEASED: u64 = LATE | CLOSED | GIVEN_UP;

#[derive(Debug)]
pub(crate) struct Descriptor {
    /// Open while a call or hold is counted, or while CLOSED is not set.
    socket: ManuallyDrop<Owned>,
    /// The process that created the descriptor, and when, for [`fork`].
    birth: u32,
    /// LATE, CLOSED and GIVEN_UP, and the number of active calls and holds.
    state: AtomicU64,
}

/// A call's use of the descriptor. The descriptor is open while this value lives.
pub(crate) struct InUse<'a>(&'a Descriptor);

/// A use of the descriptor that is not a call. The descriptor is open while this value lives.
pub(crate) struct Hold<'a>(&'a Descriptor);

/// While this value lives, the call is not counted as a call.
pub(crate) struct Aside<'a>(&'a Descriptor);

/// A growing pause between checks for calls of other threads.
struct Pause(u32);

impl Pause {
    fn wait(&mut self) {
        let _disabled = CancellationDisabled::new();
        if self.0 < 10 {
            sync::yield_now();
        } else {
            sync::sleep(Duration::from_micros(u64::from(self.0.min(100)) * 10));
        }
        self.0 += 1;
    }
}

impl Descriptor {
    pub(crate) fn new(owned: Owned) -> Descriptor {
        #[cfg(keepsock_model)]
        super::model::opened(&owned);
        let socket = ManuallyDrop::new(owned);
        Descriptor { socket, birth: fork::birth(), state: AtomicU64::new(0) }
    }

    /// Starts a call. Returns `None` after the descriptor was closed here. It may wait for the
    /// active calls, so a thread must not start a second call inside its first one.
    #[inline]
    pub(crate) fn enter(&self) -> Option<InUse<'_>> {
        // One order with the flags of the socket: either this call sees that the socket is closing,
        // or the closing call sees this one. LATE is the sign bit.
        if (self.state.fetch_add(1, Ordering::SeqCst) as i64) < 0 {
            return self.enter_late();
        }
        Some(self.in_use())
    }

    /// Starts a call that closes the descriptor. It does not wait for calls that [`settle`] does:
    /// these end once the caller has marked the connection as closing.
    ///
    /// [`settle`]: Descriptor::settle
    #[inline]
    pub(crate) fn enter_to_close(&self) -> Option<InUse<'_>> {
        if self.state.fetch_add(1, Ordering::SeqCst) & CLOSED != 0 {
            self.leave(1);
            return None;
        }
        Some(self.in_use())
    }

    /// Starts a hold. Returns `None` after the descriptor was closed here. It never waits, so a thread
    /// that is in a call may use it.
    pub(crate) fn hold(&self) -> Option<Hold<'_>> {
        if self.state.fetch_add(HOLD, Ordering::SeqCst) & CLOSED != 0 {
            self.leave(HOLD);
            return None;
        }
        #[cfg(keepsock_model)]
        super::model::began(&self.socket);
        Some(Hold(self))
    }

    #[inline]
    fn in_use(&self) -> InUse<'_> {
        #[cfg(keepsock_model)]
        super::model::began(&self.socket);
        InUse(self)
    }

    #[cold]
    fn enter_late(&self) -> Option<InUse<'_>> {
        let mut pause = Pause(0);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if state & CLOSED != 0 {
                self.leave(1);
                return None;
            }
            if state & LATE == 0 || self.is_inherited() {
                return Some(self.in_use());
            }
            self.leave(1);
            pause.wait();
            self.state.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Continues a use that was [suspended](InUse::suspend), also after a close.
    #[cfg(feature = "serve")]
    pub(crate) fn resume(&self) -> InUse<'_> {
        InUse(self)
    }

    /// Ends a use: 1 for a call, HOLD for a hold.
    #[inline]
    fn leave(&self, unit: u64) {
        let before = self.state.fetch_sub(unit, Ordering::AcqRel);
        // The count was not 0, so LATE was set. This comparison needs fewer instructions than one
        // with the new state.
        if (before as i64) <= 0 {
            self.close_if_last();
        }
    }

    /// The last user of a closed descriptor closes it. A call that starts after the close counts
    /// itself in and out as well, so two users may see the count reach zero: the exchange to GIVEN_UP
    /// lets one of them close the descriptor.
    #[cold]
    fn close_if_last(&self) {
        let last = self.state.compare_exchange(
            LATE | CLOSED,
            RELEASED,
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

    /// Whether another process created the descriptor and this process is its forked child. The
    /// socket is then the parent's, and the count includes calls of threads that exist only there.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        fork::is_inherited(self.birth)
    }

    /// Whether other calls or holds than `_mine` use the descriptor.
    pub(crate) fn is_shared(&self, _mine: &InUse<'_>) -> bool {
        self.state.load(Ordering::SeqCst) & USERS > 1
    }

    /// Whether a call other than `_mine` is active.
    #[inline]
    pub(crate) fn has_other_calls(&self, _mine: &InUse<'_>) -> bool {
        self.state.load(Ordering::SeqCst) & CALLS > 1
    }

    /// Waits until the active calls have left, or until `done`. It does not wait for calls that wait
    /// here as well, and no new call starts in that time. Only for a connection that has ended: no
    /// call waits for the peer, so only the scheduler decides when the calls leave.
    pub(crate) fn settle(&self, mine: &InUse<'_>, done: impl Fn() -> bool) {
        if self.is_inherited() {
            return;
        }
        let _aside = mine.aside();
        let mut pause = Pause(0);
        while self.state.fetch_or(LATE, Ordering::SeqCst) & CALLS != 0 && !done() {
            pause.wait();
        }
        let settled = |state: u64| (state & CLOSED == 0).then_some(state & !LATE);
        let _ = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, settled);
    }

    /// Like `settle`, while `may_wait`, and with new calls starting. Returns true if no call is left.
    pub(crate) fn await_calls(&self, mine: &InUse<'_>, mut may_wait: impl FnMut() -> bool) -> bool {
        let mut pause = Pause(0);
        while self.has_other_calls(mine) {
            if !may_wait() {
                return false;
            }
            let _aside = mine.aside();
            pause.wait();
        }
        true
    }

    /// Does not count the call of this thread while the result lives. The thread must be in a call.
    pub(crate) fn aside(&self) -> Aside<'_> {
        self.state.fetch_add(HOLD - 1, Ordering::SeqCst);
        Aside(self)
    }

    /// Marks the descriptor closed. Returns false if it was closed before. The caller then wakes the
    /// other threads, and the last call closes the descriptor.
    pub(crate) fn close(&self, _mine: &InUse<'_>) -> bool {
        self.state.fetch_or(LATE | CLOSED, Ordering::AcqRel) & CLOSED == 0
    }

    /// Closes a descriptor that was [inherited](Descriptor::is_inherited), and ignores the counted
    /// calls of the parent's threads.
    #[cfg(feature = "serve")]
    pub(crate) fn close_copy(&self) {
        if self.state.fetch_or(RELEASED, Ordering::AcqRel) & GIVEN_UP == 0 {
            self.close_now();
        }
    }

    /// Releases the descriptor if no other call uses it; `None` leaves it as it was. For an
    /// [inherited](Descriptor::is_inherited) descriptor the counted calls of the parent's threads are
    /// ignored.
    pub(crate) fn release(&self, mine: InUse<'_>) -> Option<Owned> {
        let inherited = self.is_inherited();
        let alone = self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
            (state == 1 || inherited && state & CLOSED == 0).then_some(state | RELEASED)
        });
        let owned = alone.is_ok().then(|| {
            #[cfg(keepsock_model)]
            super::model::released(&self.socket);
            // SAFETY: the exchange succeeds once in the life of the descriptor, and only while it is
            // open. GIVEN_UP prevents a close here.
            unsafe { self.take() }
        });
        drop(mine);
        owned
    }

    fn close_now(&self) {
        #[cfg(keepsock_model)]
        super::model::closed(&self.socket);
        if !fork::may_close(self.birth) {
            return;
        }
        // SAFETY: only the last user of a closed descriptor gets here, and GIVEN_UP, set below,
        // prevents a second close.
        super::close(unsafe { self.take() });
    }

    /// # Safety
    /// The descriptor is open, and the caller neither uses nor closes it afterwards.
    unsafe fn take(&self) -> Owned {
        // SAFETY: the caller guarantees an open descriptor that it does not use afterwards.
        ManuallyDrop::into_inner(unsafe { std::ptr::read(&raw const self.socket) })
    }
}

impl<'a> InUse<'a> {
    #[inline]
    pub(crate) fn socket(&self) -> Borrowed<'_> {
        #[cfg(keepsock_model)]
        super::model::used(&self.0.socket);
        super::borrow(&self.0.socket)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// See [`Descriptor::aside`].
    pub(crate) fn aside(&self) -> Aside<'a> {
        self.0.aside()
    }

    /// Continues to use the descriptor without this value, until [`Descriptor::resume`].
    #[cfg(feature = "serve")]
    pub(crate) fn suspend(self) {
        mem::forget(self);
    }

    /// Turns the call into a hold.
    pub(crate) fn hold(self) -> Hold<'a> {
        mem::forget(self.aside());
        let held = Hold(self.0);
        mem::forget(self);
        held
    }
}

impl Hold<'_> {
    pub(crate) fn socket(&self) -> Borrowed<'_> {
        #[cfg(keepsock_model)]
        super::model::used(&self.0.socket);
        super::borrow(&self.0.socket)
    }
}

impl Drop for InUse<'_> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(keepsock_model)]
        super::model::ended(&self.0.socket);
        self.0.leave(1);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        #[cfg(keepsock_model)]
        super::model::ended(&self.0.socket);
        self.0.leave(HOLD);
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_sub(HOLD - 1, Ordering::SeqCst);
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // Only calls of the parent's threads, which do not exist here, can still be counted.
        if self.state.load(Ordering::Relaxed) & GIVEN_UP == 0 {
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

    /// T3: The last guard closes the descriptor, once; later calls are rejected.
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
            (LATE | CLOSED) + 1,
            "still open for the second"
        );
        drop(second);
        assert_eq!(descriptor.state.load(Ordering::Relaxed), RELEASED);
        assert!(descriptor.enter().is_none());
        assert_eq!(descriptor.state.load(Ordering::Relaxed), RELEASED);
    }

    #[test]
    fn release_fails_while_another_call_uses_the_descriptor() {
        let (descriptor, _peer) = descriptor();
        let other = descriptor.enter().unwrap();
        assert!(descriptor.release(descriptor.enter().unwrap()).is_none());
        drop(other);
        assert!(!descriptor.is_closed());
        assert!(descriptor.release(descriptor.enter().unwrap()).is_some());
        assert!(descriptor.enter().is_none());
    }

    /// T3: Threads that start calls during a close never see an open guard after the descriptor was
    /// closed, and exactly one of them closes it.
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
            assert_eq!(descriptor.state.load(Ordering::Relaxed), RELEASED);
        }
    }

    /// T3: A call that settles waits for a call that starts a hold. In that time a third thread closes the
    /// descriptor.
    #[test]
    fn hold_and_close_do_not_wait_for_settling_calls() {
        let (descriptor, _peer) = descriptor();
        let call = descriptor.enter().unwrap();
        let closing = std::sync::atomic::AtomicBool::new(false);
        let limit = Instant::now() + Duration::from_secs(10);
        std::thread::scope(|scope| {
            let settling = scope.spawn(|| {
                let mine = descriptor.enter().unwrap();
                let is_late = || Instant::now() > limit;
                descriptor.settle(&mine, || closing.load(Ordering::SeqCst) || is_late());
                assert!(!is_late(), "the hold or the close waited");
            });
            while descriptor.state.load(Ordering::SeqCst) & LATE == 0 {
                sync::yield_now();
            }
            assert!(descriptor.hold().is_some());
            let close = descriptor.enter_to_close().unwrap();
            closing.store(true, Ordering::SeqCst);
            settling.join().unwrap();
            assert!(descriptor.close(&close));
        });
        drop(call);
        assert!(descriptor.hold().is_none() && descriptor.enter_to_close().is_none());
        assert_eq!(descriptor.state.load(Ordering::Relaxed), RELEASED);
    }

    /// I4: Settling waits for active calls, but not for holds and not for other settling calls, and
    /// no call starts in that time, so that settling ends with any number of calls.
    #[test]
    fn settle_waits_for_calls_alone() {
        let (descriptor, _peer) = descriptor();
        let _held = descriptor.enter().unwrap().hold();
        let begun = AtomicUsize::new(0);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let slow = descriptor.enter().unwrap();
            for _ in 0..2 {
                scope.spawn(|| {
                    let mine = descriptor.enter().unwrap();
                    begun.fetch_add(1, Ordering::SeqCst);
                    descriptor.settle(&mine, || false);
                    assert!(stop.load(Ordering::SeqCst), "it waits for the slow call");
                });
            }
            while descriptor.state.load(Ordering::SeqCst) & LATE == 0 {
                sync::yield_now();
            }
            while begun.load(Ordering::SeqCst) < 1 {
                sync::yield_now();
            }
            let late = scope.spawn(|| {
                drop(descriptor.enter().unwrap());
                stop.load(Ordering::SeqCst)
            });
            std::thread::sleep(Duration::from_millis(30));
            stop.store(true, Ordering::SeqCst);
            drop(slow);
            assert!(late.join().unwrap(), "a call began while others settled");
        });
        let state = descriptor.state.load(Ordering::SeqCst);
        assert_eq!(state, HOLD, "one hold is left");
        // Settling ends early when `done` returns true.
        let (first, second) = (descriptor.enter().unwrap(), descriptor.enter().unwrap());
        descriptor.settle(&first, || true);
        drop((first, second));
    }
}
