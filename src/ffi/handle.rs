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
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// How many freed handles of a type rest before the first is used again.
const RESTING: usize = 32;

/// Set, beside the type's own mark, on what is lent to C and not its to free.
const LENT: u32 = 1;

/// A type that C holds handles of.
pub(super) trait Handle: Sized + 'static {
    /// An even number of its own. Zero is the mark of a freed handle.
    const MARK: u32;
}

/// One whose handles C frees, in its own time.
pub(super) trait Pooled: Handle {
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
pub(super) fn give<T: Pooled>(object: T) -> *mut T {
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

/// Handles of objects that have numbers, from 0 and without large gaps, and each its place, so
/// that the number tells the pointer. They are not C's to free.
pub(super) struct Table<T: Tabled>(Box<[OnceLock<Piece<T>>]>);

/// Some places, which are never given back to the allocator.
pub(super) struct Piece<T>(NonNull<Slot<T>>);
// SAFETY: who uses an object is for the callers of `put` and `take` to say; the memory may be
// used by any thread.
unsafe impl<T> Send for Piece<T> {}
// SAFETY: likewise.
unsafe impl<T> Sync for Piece<T> {}

const PIECE: usize = 256;

/// A type whose handles are in tables.
pub(super) trait Tabled: Handle {
    /// Where pieces of tables that are gone rest.
    fn rested() -> &'static Mutex<Vec<Piece<Self>>>;
}

impl<T: Tabled> Table<T> {
    /// For numbers below `most`.
    pub(super) fn new(most: usize) -> Table<T> {
        Table(std::iter::repeat_with(OnceLock::new).take(most.div_ceil(PIECE)).collect())
    }

    fn slot(&self, number: usize) -> Option<*mut Slot<T>> {
        let piece = self.0.get(number / PIECE)?.get_or_init(|| {
            let mut rested = T::rested().lock().unwrap_or_else(PoisonError::into_inner);
            rested.pop().unwrap_or_else(|| {
                let mut places = Box::<[Slot<T>]>::new_uninit_slice(PIECE);
                for place in &mut places {
                    // SAFETY: the memory is new and ours.
                    unsafe { (&raw mut (*place.as_mut_ptr()).mark).write(AtomicU32::new(0)) };
                }
                Piece(NonNull::from(Box::leak(places)).cast())
            })
        });
        // SAFETY: a piece has so many places.
        Some(unsafe { piece.0.as_ptr().add(number % PIECE) })
    }

    /// Puts an object in its place.
    ///
    /// # Safety
    /// There is none in it, and nobody else puts one there or takes one.
    pub(super) unsafe fn put(&self, number: usize, object: T) -> *mut T {
        let Some(slot) = self.slot(number) else {
            return ptr::null_mut();
        };
        // SAFETY: it holds no object, as the caller promises.
        unsafe {
            (&raw mut (*slot).value).write(ManuallyDrop::new(object));
            (*slot).mark.store(T::MARK | LENT, Ordering::Release);
        }
        slot.cast()
    }

    /// The pointer of a number.
    #[inline]
    pub(super) fn pointer(&self, number: usize) -> *mut T {
        self.slot(number).map_or(ptr::null_mut(), |slot| slot.cast())
    }

    /// Drops the object in a place, if there is one.
    ///
    /// # Safety
    /// Nobody uses it.
    pub(super) unsafe fn take(&self, number: usize) {
        let Some(slot) = self.slot(number) else {
            return;
        };
        // SAFETY: the mark stays readable; of two that take at once one wins.
        unsafe {
            if (*slot).mark.swap(0, Ordering::AcqRel) != 0 {
                ManuallyDrop::drop(&mut (*slot).value);
            }
        }
    }
}

impl<T: Tabled> Drop for Table<T> {
    fn drop(&mut self) {
        let mut rested = T::rested().lock().unwrap_or_else(PoisonError::into_inner);
        rested.extend(self.0.iter_mut().filter_map(OnceLock::take));
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
pub(super) unsafe fn free<T: Pooled>(pointer: *mut T) {
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
    }

    impl Pooled for One {
        fn pool() -> &'static Pool<One> {
            static POOL: Pool<One> = Pool::new();
            &POOL
        }
    }

    impl Handle for Other {
        const MARK: u32 = 1002;
    }

    impl Pooled for Other {
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

    impl Tabled for One {
        fn rested() -> &'static Mutex<Vec<Piece<One>>> {
            static RESTED: Mutex<Vec<Piece<One>>> = Mutex::new(Vec::new());
            &RESTED
        }
    }

    /// E2: objects with numbers; what was taken, and a table that is gone, is recognised.
    #[test]
    fn handles_in_a_table() {
        let witness = Arc::new(());
        let table = Table::<One>::new(300);
        // SAFETY: each place is empty when something is put there, and used by this test alone.
        unsafe {
            for number in [0, 255, 256] {
                let handle = table.put(number, One { _witness: witness.clone() });
                assert_eq!(handle, table.pointer(number));
                free(handle);
                assert!(get(handle).is_some(), "not C's to free");
            }
            assert_eq!(Arc::strong_count(&witness), 4);
            let (taken, left) = (table.pointer(255), table.pointer(256));
            table.take(255);
            table.take(255);
            assert!(get(taken).is_none());
            assert_eq!(Arc::strong_count(&witness), 3);
            table.take(0);
            table.take(256);
            drop(table);
            assert!(get(left).is_none());
            let later = Table::<One>::new(300);
            let again = [later.pointer(0), later.pointer(256)];
            assert!(again.contains(&left), "the memory is used again");
            assert!(later.pointer(512).is_null());
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
