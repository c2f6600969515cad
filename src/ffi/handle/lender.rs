//! Objects that one thread lends to a C program, one after another.

use std::cell::Cell;
use std::marker::PhantomData;

use super::Handle;
use super::pool::{LAST, LENT, Reserved, Slot};
use super::value::generation_of;
use crate::internal::sync::atomic::Ordering;

/// A slot of one thread, for objects that the thread lends one after another. Reusing the slot costs
/// no exchange with the free list.
pub(crate) struct Lender<T: Handle>(Cell<Option<u32>>, PhantomData<T>);

impl<T: Handle> Lender<T> {
    pub(crate) const fn new() -> Lender<T> {
        Lender(Cell::new(None), PhantomData)
    }

    /// Lends the object that `make` constructs while `body` runs. `body` does not run if the process
    /// has no memory for a slot.
    #[inline]
    pub(crate) fn lend(&self, make: impl FnOnce() -> T, body: impl FnOnce(*mut T)) {
        let kept = self.0.take().and_then(Reserved::again);
        let Some(reserved) = kept.or_else(Reserved::new) else {
            return;
        };
        let slot = reserved.slot;
        let number = reserved.number;
        let handle = reserved.construct(make, LENT);
        let _lent = LentSlot { lender: self, number, slot };
        body(handle);
    }
}

/// Ends the loan when it is dropped, also if the callback panics.
struct LentSlot<'a, T: Handle> {
    lender: &'a Lender<T>,
    number: u32,
    slot: &'static Slot<T>,
}

impl<T: Handle> Drop for LentSlot<'_, T> {
    fn drop(&mut self) {
        let next = generation_of(self.slot.state_relaxed()) + 1;
        self.slot.state.store(u64::from(next) << 32, Ordering::Release);
        // SAFETY: `free` leaves an object alone that is lent, so the slot still has it. The header
        // forbids the use of the object after the callback that it was lent to.
        unsafe { self.slot.drop_object() };
        if next < LAST {
            self.lender.0.set(Some(self.number));
        }
    }
}

impl<T: Handle> Drop for Lender<T> {
    fn drop(&mut self) {
        // Dropping the reservation releases the slot.
        drop(self.0.take().and_then(Reserved::<T>::again));
    }
}

impl<T: Handle> Reserved<T> {
    /// Reserves a slot without an object that was not released.
    #[inline]
    fn again(number: u32) -> Option<Reserved<T>> {
        let slot = T::pool().slot(number)?;
        Some(Reserved { number, slot })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ffi::handle::{free, get, handle};

    struct One {
        _witness: Arc<()>,
    }
    handle!(One, TestLent, "one", _witness: Arc<()>);

    /// E2: the handle of a lent object is rejected after the call, and `free` does not drop the object.
    #[test]
    fn lent_handle_is_rejected_after_its_call() {
        let witness = Arc::new(());
        let lender = Lender::<One>::new();
        let mut stale = Vec::new();
        for _ in 0..3 {
            let object = || One { _witness: witness.clone() };
            lender.lend(object, |handle| {
                // SAFETY: no reference to an object is alive when `free` is called.
                unsafe {
                    free(handle);
                    assert!(get(handle).is_some() && !stale.contains(&handle));
                    assert!(stale.iter().all(|handle| get(*handle).is_none()));
                }
                stale.push(handle);
            });
            assert_eq!(Arc::strong_count(&witness), 1);
        }
    }
}
