//! Objects that have several handles.

use super::pool::Slot;
use super::value::Value;
use super::{Handle, drop_in_slot};
use crate::internal::sync::atomic::{AtomicU32, Ordering};

/// The number of handles of an object besides its first one.
pub(crate) struct Sharers(AtomicU32);

impl Sharers {
    pub(crate) fn none() -> Sharers {
        Sharers(AtomicU32::new(0))
    }

    /// Removes one handle. True if it was the last one.
    #[inline]
    pub(super) fn remove(&self) -> bool {
        // Without sharers the caller has the only handle, so no other thread can add one.
        self.0.load(Ordering::Acquire) == 0 || self.0.fetch_sub(1, Ordering::AcqRel) == 0
    }
}

/// A part in the object of another handle. The object is dropped when its handle was freed and all
/// parts are dropped.
pub(crate) struct Share<T: Handle> {
    number: u32,
    slot: &'static Slot<T>,
}

impl<T: Handle> Share<T> {
    /// `None`: `handle` has no object, or its object is not to be shared.
    ///
    /// # Safety
    /// No thread frees the object of `handle` during the call.
    pub(crate) unsafe fn new(handle: *const T) -> Option<Share<T>> {
        let number = Value::decode(handle)?.slot;
        let slot = super::live_slot(handle)?;
        // SAFETY: the slot has an object, and the caller guarantees that it stays.
        unsafe { slot.object() }.sharers()?.0.fetch_add(1, Ordering::Relaxed);
        Some(Share { number, slot })
    }
}

impl<T: Handle> Clone for Share<T> {
    fn clone(&self) -> Share<T> {
        if let Some(sharers) = self.sharers() {
            sharers.0.fetch_add(1, Ordering::Relaxed);
        }
        Share { number: self.number, slot: self.slot }
    }
}

impl<T: Handle> std::ops::Deref for Share<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object stays until the last part is dropped, and `get_mut` is not used for a
        // type that is shared.
        unsafe { self.slot.object() }
    }
}

impl<T: Handle> Drop for Share<T> {
    fn drop(&mut self) {
        if self.sharers().is_none_or(Sharers::remove) {
            // SAFETY: the handle was freed and this was the last part, so nothing uses the object.
            unsafe { drop_in_slot(self.number, self.slot, self.drop_may_wait()) };
        }
    }
}
