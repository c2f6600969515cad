//! Handles: objects of ours that C holds by a pointer.
//!
//! The memory of a handle is never given back to the allocator, only to
//! later handles of the same type, and carries a mark. So a pointer that C has
//! freed, or that is a handle of another type, is told apart without touching
//! memory that is not ours: using it is an error, freeing it does nothing. A slot
//! rests for a while before it is used again; until then even a pointer that
//! was freed long ago is recognised.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many freed handles of a type rest before the first is used again.
const RESTING: usize = 32;

/// Set, beside the type's own mark, on what is lent to C and not its to free.
const LENT: u32 = 1;

/// A type that C holds handles of.
pub(super) trait Handle: Sized + 'static {
    /// An even number of its own. Zero is the mark of a freed handle.
    const MARK: u32;
    fn pool() -> &'static Pool<Self>;
}

/// Where freed handles of one type rest.
pub(super) struct Pool<T>(Mutex<VecDeque<Resting<T>>>);

struct Resting<T>(*mut Slot<T>);
// SAFETY: a resting slot holds no object, only memory that the pool owns.
unsafe impl<T> Send for Resting<T> {}

impl<T> Pool<T> {
    pub(super) const fn new() -> Pool<T> {
        Pool(Mutex::new(VecDeque::new()))
    }
}

/// What a pointer of C's points to, whatever its type says.
#[repr(C)]
pub(super) struct Slot<T> {
    mark: AtomicU32,
    value: ManuallyDrop<T>,
}

/// Gives an object to C. It is moved once, to where it stays.
#[inline]
pub(super) fn give<T: Handle>(object: T) -> *mut T {
    let rested = {
        let mut resting = T::pool().0.lock().unwrap_or_else(PoisonError::into_inner);
        if resting.len() > RESTING { resting.pop_front() } else { None }
    };
    let slot: *mut Slot<T> = match rested {
        Some(Resting(slot)) => slot,
        None => {
            let slot = Box::into_raw(Box::<Slot<T>>::new_uninit()).cast::<Slot<T>>();
            // SAFETY: the memory is new and ours.
            unsafe { (&raw mut (*slot).mark).write(AtomicU32::new(0)) };
            slot
        }
    };
    // SAFETY: new, or the pool's: it has a slot's layout, holds no object, and nobody else uses
    // more of it than its mark.
    unsafe {
        (&raw mut (*slot).value).write(ManuallyDrop::new(object));
        (*slot).mark.store(T::MARK, Ordering::Release);
    }
    slot.cast()
}

/// An object that is lent to C for a while.
pub(super) fn lend<T: Handle>(object: T) -> Lent<T> {
    let mark = AtomicU32::new(T::MARK | LENT);
    Lent(Slot { mark, value: ManuallyDrop::new(object) })
}

pub(super) struct Lent<T>(Slot<T>);

impl<T> Lent<T> {
    pub(super) fn pointer(&mut self) -> *mut T {
        (&raw mut self.0).cast()
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        self.0.mark.store(0, Ordering::Release);
        // SAFETY: dropped once, here; the slot is not used after.
        unsafe { ManuallyDrop::drop(&mut self.0.value) };
    }
}

/// Whether a pointer that is not null is a live handle of the type.
///
/// # Safety
/// `pointer` came from `give` or a `Lent` that lives, of whatever type.
#[inline]
unsafe fn is_live<T: Handle>(pointer: *const T) -> bool {
    // SAFETY: the memory stays ours after a free, and begins with the mark.
    let mark = unsafe { &*pointer.cast::<AtomicU32>() };
    mark.load(Ordering::Acquire) & !LENT == T::MARK
}

/// The object behind a pointer of C's; `None` for null, freed or another type.
///
/// # Safety
/// `pointer` is null or came from here, and is not freed while the result lives.
#[inline]
pub(super) unsafe fn get<'a, T: Handle>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: as the caller promises; a live slot holds a value.
    unsafe {
        if pointer.is_null() || !is_live(pointer) {
            return None;
        }
        Some(&(*pointer.cast::<Slot<T>>()).value)
    }
}

/// As [`get`], to change it.
///
/// # Safety
/// As for [`get`], and nobody else uses the object.
pub(super) unsafe fn get_mut<'a, T: Handle>(pointer: *mut T) -> Option<&'a mut T> {
    // SAFETY: as the caller promises; a live slot holds a value.
    unsafe {
        if pointer.is_null() || !is_live(pointer) {
            return None;
        }
        Some(&mut (*pointer.cast::<Slot<T>>()).value)
    }
}

/// Takes an object back from C and drops it; anything else is left alone.
///
/// # Safety
/// `pointer` is null or came from here, and nobody else uses the object.
pub(super) unsafe fn free<T: Handle>(pointer: *mut T) {
    if pointer.is_null() {
        return;
    }
    let slot = pointer.cast::<Slot<T>>();
    // SAFETY: the memory stays ours after a free, and begins with the mark.
    let mark = unsafe { &*pointer.cast::<AtomicU32>() };
    // Of two threads that free at once, one wins.
    if mark.compare_exchange(T::MARK, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    super::shield((), || {
        // SAFETY: the exchange succeeds once for each object. Only the value is
        // dropped: the mark stays readable.
        unsafe { ptr::drop_in_place(&raw mut (*slot).value as *mut T) };
    });
    T::pool().0.lock().unwrap_or_else(PoisonError::into_inner).push_back(Resting(slot));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct One {
        _witness: Arc<()>,
    }
    struct Other;

    impl Handle for One {
        const MARK: u32 = 1000;
        fn pool() -> &'static Pool<One> {
            static POOL: Pool<One> = Pool::new();
            &POOL
        }
    }

    impl Handle for Other {
        const MARK: u32 = 1002;
        fn pool() -> &'static Pool<Other> {
            static POOL: Pool<Other> = Pool::new();
            &POOL
        }
    }

    /// E2: freed once, however often it is asked; recognised while it rests.
    #[test]
    fn a_freed_handle_is_recognised() {
        let witness = Arc::new(());
        let handle = give(One { _witness: witness.clone() });
        // SAFETY: the pointer came from `give`, as does each below.
        unsafe {
            assert!(get(handle).is_some());
            free(handle);
            assert_eq!(Arc::strong_count(&witness), 1);
            assert!(get(handle).is_none() && get_mut(handle).is_none());
            for _ in 0..RESTING {
                let later = give(One { _witness: witness.clone() });
                assert_ne!(later, handle);
                free(handle);
                assert!(get(later).is_some());
                free(later);
            }
            free(ptr::null_mut::<One>());
        }
        assert_eq!(Arc::strong_count(&witness), 1);
    }

    /// E2: a handle of another type, and what was lent, are not freed.
    #[test]
    fn what_is_not_cs_to_free_is_left_alone() {
        let witness = Arc::new(());
        let handle = give(One { _witness: witness.clone() });
        let mut lent = lend(One { _witness: witness.clone() });
        // SAFETY: the pointers came from here.
        unsafe {
            assert!(get(handle.cast::<Other>()).is_none());
            free(handle.cast::<Other>());
            free(lent.pointer());
            assert!(get(handle).is_some() && get(lent.pointer()).is_some());
            drop(lent);
            free(handle);
        }
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}
