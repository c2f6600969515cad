//! Handles: objects of the library that a C program refers to by a pointer.
//!
//! The value of such a pointer is a number, and nothing dereferences it. It states the type, a slot
//! in the table of that type, and a generation. The generation distinguishes the object from earlier
//! objects of the slot. Each call looks the number up. So a call detects NULL, a freed handle, a
//! handle of another type, and any other value without access to foreign memory: using such a value
//! is an error, and freeing it does nothing.
//!
//! A slot is retired when its generations are used up, so a freed handle is invalid forever. (On
//! 32-bit platforms a pointer has room for only [`value::GENERATION_BITS`] bits of the generation,
//! so a number recurs there.)
//!
//! | module | content |
//! |---|---|
//! | `value` | how a pointer states a type, a slot and a generation |
//! | `pool` | the slots of one type |
//! | `lent` | objects that a C program may use during a callback only |
//! | `lender` | as `lent`, in one slot of a thread |
//! | `share` | objects that have several handles |
//! | `table` | objects that any thread may use at any time, by an id |

use std::ptr;

use crate::internal::{CancellationDisabled, panics};

#[cfg(feature = "serve")]
mod lender;
mod lent;
#[cfg(all(test, keepsock_model))]
mod model;
mod pool;
mod share;
#[cfg(feature = "serve")]
mod table;
mod value;

#[cfg(feature = "serve")]
pub(crate) use lender::Lender;
pub(crate) use lent::lend;
pub(crate) use pool::{Pool, Reserved};
pub(crate) use share::{Share, Sharers};
#[cfg(feature = "serve")]
pub(crate) use table::{ID_SLOTS, Id, Pinned, Table, pin};

#[cfg(feature = "serve")]
use pool::ENDING;
use pool::Slot;
use value::{SLOT_BITS, Value};

/// A type that a C program has handles of. [`handle!`](crate::ffi::handle!) implements it.
pub(crate) trait Handle: Sized + 'static {
    const MARK: Mark;
    /// The name of an argument of this type, for errors.
    const NAME: &'static str;
    /// The number of slots that are allocated first, and the number of adjacent slots of a
    /// `Table`. A power of two.
    const BLOCK: u32 = 16;
    /// The maximum number of slots. An object of a `Table` can have `ID_SLOTS`.
    const SLOTS: u64 = 1 << if SLOT_BITS < 31 { SLOT_BITS } else { 31 };

    /// The type of the member that the functions of the C API use.
    type Target;

    fn target(&self) -> &Self::Target;

    fn pool() -> &'static Pool<Self>;

    /// Whether dropping the object may reach a cancellation point.
    #[inline]
    fn drop_may_wait(&self) -> bool {
        true
    }

    /// The handles of the object besides this one; `None` for an object that is not to be shared.
    #[inline]
    fn sharers(&self) -> Option<&Sharers> {
        None
    }
}

/// The type of an object, as its handles state it. A number is even and below 128. The number of a
/// feature that is off stays reserved.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Mark {
    Error = 0x02,
    CancelToken = 0x04,
    Options = 0x06,
    Client = 0x08,
    Server = 0x0a,
    #[cfg(feature = "serve")]
    ServeOptions = 0x0c,
    #[cfg(feature = "serve")]
    Service = 0x0e,
    Reconnect = 0x10,
    PendingConnect = 0x20,
    PendingLookup = 0x24,
    #[cfg(feature = "serve")]
    Connection = 0x22,
    #[cfg(feature = "diag")]
    Capture = 0x40,
    #[cfg(feature = "diag")]
    Handshake = 0x42,
    #[cfg(feature = "datagram")]
    Datagram = 0x44,
    #[cfg(all(feature = "datagram", feature = "serve"))]
    DatagramService = 0x46,
    #[cfg(feature = "activation")]
    Activation = 0x48,
    #[cfg(test)]
    TestOne = 0x62,
    #[cfg(test)]
    TestOther = 0x64,
    #[cfg(all(test, feature = "serve"))]
    TestTable = 0x66,
    #[cfg(test)]
    TestOld = 0x68,
    #[cfg(all(test, feature = "serve"))]
    TestLent = 0x6a,
    #[cfg(all(test, feature = "serve"))]
    TestAgain = 0x6c,
}

/// A static with a constant value. Each order of a model has its own.
#[cfg(not(keepsock_model))]
macro_rules! constant_static {
    ($type:ty, $value:expr) => {{
        static VALUE: $type = $value;
        &VALUE
    }};
}

#[cfg(keepsock_model)]
macro_rules! constant_static {
    ($type:ty, $value:expr) => {{
        loom::lazy_static! {
            static ref VALUE: $type = $value;
        }
        &*VALUE
    }};
}
pub(crate) use constant_static;

/// Makes a structure the type of a handle. Arguments: the type, its [`Mark`], its name in errors, the
/// member that its functions use and the type of that member, other items of [`Handle`].
macro_rules! handle {
    ($type:ident, $mark:ident, $name:literal, $field:tt: $target:ty $(, { $($item:item)* })?) => {
        impl $crate::ffi::handle::Handle for $type {
            const MARK: $crate::ffi::handle::Mark = $crate::ffi::handle::Mark::$mark;
            const NAME: &'static str = $name;
            type Target = $target;

            #[inline]
            fn target(&self) -> &$target {
                &self.$field
            }

            fn pool() -> &'static $crate::ffi::handle::Pool<Self> {
                $crate::ffi::handle::constant_static!(
                    $crate::ffi::handle::Pool<$type>,
                    $crate::ffi::handle::Pool::new()
                )
            }

            $($($item)*)?
        }
    };
}
pub(crate) use handle;

/// Gives an object to the C program. NULL: the process has no memory for a slot.
pub(crate) fn give<T: Handle>(object: T) -> *mut T {
    put(object, 0)
}

fn put<T: Handle>(object: T, users: u64) -> *mut T {
    Reserved::new().map_or(ptr::null_mut(), |reserved| reserved.construct(|| object, users))
}

impl<T: Handle> Reserved<T> {
    /// Gives the object that `make` constructs in its slot to the C program.
    #[inline(always)]
    pub(crate) fn give(self, make: impl FnOnce() -> T) -> *mut T {
        self.construct(make, 0)
    }

    /// As [`give`](Reserved::give). `set_up` is called before. If it fails, the object is dropped.
    #[inline]
    pub(crate) fn try_give<E>(
        self,
        make: impl FnOnce() -> T,
        set_up: impl FnOnce(&T) -> Result<(), E>,
    ) -> Result<*mut T, E> {
        let slot = self.slot;
        let handle = self.construct(make, 0);
        // SAFETY: the slot has an object, and the handle is not known outside this function.
        if let Err(e) = set_up(unsafe { slot.object() }) {
            // SAFETY: the reference that `set_up` had has ended.
            unsafe { free(handle) };
            return Err(e);
        }
        Ok(handle)
    }
}

/// The slot of a handle, if its object is live.
#[inline]
fn live_slot<T: Handle>(handle: *const T) -> Option<&'static Slot<T>> {
    let value = Value::decode(handle)?;
    let slot = T::pool().slot(value.slot)?;
    value.is_in(slot.state()).then_some(slot)
}

/// The object of a handle; `None` for NULL, a freed handle, a handle of another type, or any other
/// value.
///
/// # Safety
/// No thread frees the object while the result lives.
#[inline]
pub(crate) unsafe fn get<'a, T: Handle>(handle: *const T) -> Option<&'a T> {
    // SAFETY: the slot has an object, and the caller guarantees that it stays.
    live_slot(handle).map(|slot| unsafe { slot.object() })
}

/// As [`get`], to change the object.
///
/// # Safety
/// No other thread uses or frees the object while the result lives, and this thread has no other
/// reference to it.
pub(crate) unsafe fn get_mut<'a, T: Handle>(handle: *mut T) -> Option<&'a mut T> {
    // SAFETY: the slot has an object, and the caller guarantees that nothing else uses it.
    live_slot(handle.cast_const()).map(|slot| unsafe { slot.object_mut() })
}

/// Drops an object that was given to the C program. Does nothing for any other value.
///
/// # Safety
/// No other thread uses the object.
pub(crate) unsafe fn free<T: Handle>(handle: *mut T) {
    // SAFETY: the caller guarantees that no other thread uses the object.
    unsafe { remove(handle, 0) };
}

/// Like [`free`]. The callbacks of the object use its handle. `end` returns after the last callback,
/// and the handle stays valid until then.
///
/// # Safety
/// No other thread uses the object after `end` has returned.
#[cfg(feature = "serve")]
pub(crate) unsafe fn free_after<T: Handle>(handle: *mut T, end: impl FnOnce(&T)) {
    let Some(value) = Value::decode(handle) else {
        return;
    };
    let Some(slot) = T::pool().slot(value.slot).filter(|slot| slot.begin_end(value)) else {
        return;
    };
    let _disabled = CancellationDisabled::new();
    // SAFETY: only the call whose `begin_end` succeeded drops the object, and it does so below.
    panics(|| end(unsafe { slot.object() }));
    // SAFETY: the caller guarantees that no other thread uses the object now.
    unsafe { remove(handle, ENDING) };
}

/// Drops the object of a handle if it is live and has this number of users.
///
/// # Safety
/// No other thread uses the object.
unsafe fn remove<T: Handle>(handle: *const T, users: u64) {
    let Some(value) = Value::decode(handle) else {
        return;
    };
    let pool = T::pool();
    let Some(slot) = pool.slot(value.slot) else {
        return;
    };
    // If two threads free the object at the same time, one of them wins here.
    if !slot.begin_removal(value, users) {
        return;
    }
    // SAFETY: the object is still there: only the thread that removes the last handle drops it.
    let object = unsafe { slot.object() };
    let may_wait = object.drop_may_wait();
    if object.sharers().is_none_or(Sharers::remove) {
        // SAFETY: the removal begins once for each handle, and the caller guarantees that no other
        // thread uses it.
        unsafe { drop_in_slot(value.slot, slot, may_wait) };
    }
}

/// Drops the object of a slot and releases the slot.
///
/// # Safety
/// The slot has an object without a handle. Nothing uses the object, and this function is called once
/// for it.
#[inline(always)]
unsafe fn drop_in_slot<T: Handle>(number: u32, slot: &Slot<T>, may_wait: bool) {
    let _disabled = may_wait.then(CancellationDisabled::new);
    // SAFETY: the caller guarantees that nothing uses the object and that it is dropped once.
    panics(|| unsafe { slot.drop_object() });
    T::pool().release(number, slot);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::pool::LAST;
    use super::value::generation_of;
    use super::*;

    struct One {
        _witness: Arc<()>,
    }
    struct Other(());

    handle!(One, TestOne, "one", _witness: Arc<()>);

    handle!(Other, TestOther, "other", 0: ());

    /// E2: a handle is freed once, and rejected when its slot has another object.
    #[test]
    fn freed_handle_is_rejected_and_freed_once() {
        let witness = Arc::new(());
        let handle = give(One { _witness: witness.clone() });
        // SAFETY: this thread alone uses the objects, and has no reference to a freed one.
        unsafe {
            assert!(get(handle).is_some());
            free(handle);
            assert_eq!(Arc::strong_count(&witness), 1);
            assert!(get(handle).is_none() && get_mut(handle).is_none());
            for _ in 0..32 {
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

    /// E2, V9: a slot whose generations are used up gets no other object.
    #[test]
    fn slot_is_retired_before_its_generation_wraps() {
        struct Old(());
        handle!(Old, TestOld, "old", 0: ());
        let first = give(Old(()));
        let number = Value::decode(first).unwrap().slot;
        // SAFETY: this test alone has the handle.
        unsafe { free(first) };
        let slot = Old::pool().slot(number).unwrap();
        slot.set_generation(LAST - 2);
        let mut met = 0;
        for _ in 0..200 {
            let handle = give(Old(()));
            met += u32::from(Value::decode(handle).unwrap().slot == number);
            // SAFETY: this test alone has the handle.
            unsafe {
                free(handle);
                assert!(get(handle).is_none());
            }
        }
        assert_eq!((met, generation_of(slot.state_relaxed())), (1, LAST));
    }

    /// E2: values that never were handles are rejected: a pointer to an object, small and large
    /// numbers.
    #[test]
    fn other_values_are_rejected() {
        let word = 5u64;
        let object = (&raw const word).cast::<One>();
        let numbers = [1, 2, 3, 100, 101, 0x7f, 0xffff_ffff, usize::MAX, usize::MAX - 1];
        let numbers = numbers.map(ptr::without_provenance::<One>);
        // SAFETY: no object is freed during the test.
        assert!(numbers.into_iter().chain([object]).all(|p| unsafe { get(p) }.is_none()));
    }

    /// E2: `free` leaves lent objects and objects of another type alone.
    #[test]
    fn free_ignores_lent_objects_and_other_types() {
        let witness = Arc::new(());
        let handle = give(One { _witness: witness.clone() });
        let mut lent = lend(One { _witness: witness.clone() });
        // SAFETY: this thread alone uses the objects.
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
