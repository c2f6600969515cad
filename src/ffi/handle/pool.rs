//! The slots of the objects of one type.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::UnsafeCell;
use std::mem::{self, MaybeUninit};
use std::ptr;

use super::Handle;
use super::value::{Value, generation_of};
#[cfg(feature = "serve")]
use crate::internal::sync::Mutex;
use crate::internal::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Room for one object. The library never frees the memory of a slot. A slot whose bytes are all zero
/// is empty.
#[repr(C)]
pub(super) struct Slot<T> {
    /// The upper half is the generation: odd while the slot has an object, and incremented when an
    /// object comes and when it goes. The lower half of a slot with an object counts its users: see
    /// `pin`; it is [`LENT`] for an object that is lent to the C program, and [`ENDING`] for one
    /// that a thread frees while callbacks use it. The lower
    /// half of a free slot is the number of the next free slot.
    pub(super) state: AtomicU64,
    /// The accesses to `value`. The model checker reports an access that races with another access.
    #[cfg(keepsock_model)]
    access: loom::cell::UnsafeCell<()>,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// The increment of a state for one generation.
pub(super) const GENERATION_STEP: u64 = 1 << 32;
/// The lower half of a state.
pub(super) const LOW: u64 = GENERATION_STEP - 1;
/// The C program cannot free the object.
pub(super) const LENT: u64 = 1;
/// A thread frees the object, and callbacks still use it.
#[cfg(feature = "serve")]
pub(super) const ENDING: u64 = 2;
/// The last generation of a slot. It is even, so the slot stays empty.
pub(super) const LAST: u32 = u32::MAX - 1;

impl<T> Slot<T> {
    #[cfg(keepsock_model)]
    fn empty() -> Slot<T> {
        Slot {
            state: AtomicU64::new(0),
            access: loom::cell::UnsafeCell::new(()),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    #[inline]
    pub(super) fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// The state, without an order relative to other memory.
    #[inline]
    pub(super) fn state_relaxed(&self) -> u64 {
        self.state.load(Ordering::Relaxed)
    }

    /// Makes an object invalid for other threads, if the slot still has it and it has this number of
    /// users. True for one caller only.
    pub(super) fn begin_removal(&self, object: Value, users: u64) -> bool {
        let state = self.state();
        let next = u64::from(generation_of(state) + 1) << 32;
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        object.is_in(state)
            && state & LOW == users
            && self.state.compare_exchange(state, next, success, failure).is_ok()
    }

    /// Marks an object that is being freed, if the slot still has it. True for one caller only.
    #[cfg(feature = "serve")]
    pub(super) fn begin_end(&self, object: Value) -> bool {
        let state = self.state();
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        object.is_in(state)
            && state & LOW == 0
            && self.state.compare_exchange(state, state | ENDING, success, failure).is_ok()
    }

    /// Constructs an object in the slot.
    ///
    /// # Safety
    /// The slot has no object and is not retired, and only this call constructs one.
    #[inline]
    pub(super) unsafe fn construct(&self, make: impl FnOnce() -> T, generation: u32, users: u64) {
        #[cfg(keepsock_model)]
        self.access.with_mut(|_| ());
        // SAFETY: the caller guarantees that the slot has no object, so nothing refers to the value,
        // and that no other call writes it.
        unsafe { self.value.get().write(MaybeUninit::new(make())) };
        self.state.store(u64::from(generation) << 32 | users, Ordering::Release);
    }

    /// # Safety
    /// The slot has an object, which stays while the result lives and which nothing changes.
    #[inline]
    pub(super) unsafe fn object<'a>(&self) -> &'a T {
        #[cfg(keepsock_model)]
        self.access.with(|_| ());
        // SAFETY: the caller guarantees an object that stays.
        unsafe { (*self.value.get()).assume_init_ref() }
    }

    /// # Safety
    /// As for [`object`](Slot::object), and there is no other reference to the object.
    pub(super) unsafe fn object_mut<'a>(&self) -> &'a mut T {
        // SAFETY: the caller guarantees an object that stays and that nothing else uses.
        unsafe { (*self.value.get()).assume_init_mut() }
    }

    /// # Safety
    /// The slot has an object. Nothing uses it, and this function is called once for it.
    pub(super) unsafe fn drop_object(&self) {
        #[cfg(keepsock_model)]
        self.access.with_mut(|_| ());
        // SAFETY: the caller guarantees an object that nothing uses and that was not dropped.
        unsafe { (*self.value.get()).assume_init_drop() };
    }

    #[cfg(test)]
    pub(super) fn set_generation(&self, generation: u32) {
        self.state.store(u64::from(generation) << 32, Ordering::Relaxed);
    }
}

/// The slots of one type. A slot never moves. The numbers of slots begin with `T::BLOCK`. Row `k` has
/// the `1 << k` slots from number `1 << k` on.
pub(crate) struct Pool<T> {
    rows: [AtomicPtr<Slot<T>>; 32],
    /// The lower half is the number of the slot that was freed last, or 0. The state of each free
    /// slot contains the number of the next one. The upper half counts the changes, so that a thread
    /// detects a change between its load and its exchange.
    free: AtomicU64,
    /// The first slots of blocks that a dropped `Table` had.
    #[cfg(feature = "serve")]
    pub(super) blocks: Mutex<Vec<u32>>,
    /// The number of the next new slot.
    next: AtomicU32,
}

impl<T: Handle> Pool<T> {
    #[cfg(not(keepsock_model))]
    pub(crate) const fn new() -> Pool<T> {
        Pool {
            rows: [const { AtomicPtr::new(ptr::null_mut()) }; 32],
            free: AtomicU64::new(0),
            #[cfg(feature = "serve")]
            blocks: Mutex::new(Vec::new()),
            next: AtomicU32::new(T::BLOCK),
        }
    }

    /// The constructors of loom's types are not constant.
    #[cfg(keepsock_model)]
    pub(crate) fn new() -> Pool<T> {
        Pool {
            rows: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            free: AtomicU64::new(0),
            blocks: Mutex::new(Vec::new()),
            next: AtomicU32::new(T::BLOCK),
        }
    }

    /// The slot with this number; `None` if it was never allocated.
    #[inline]
    pub(super) fn slot(&self, number: u32) -> Option<&Slot<T>> {
        // SAFETY: the library never frees a row.
        self.place(number).map(|slot| unsafe { &*slot })
    }

    /// The place of the slot with this number, from which the slots behind it in the same row can be
    /// reached.
    #[inline]
    pub(super) fn place(&self, number: u32) -> Option<*const Slot<T>> {
        // The rows before `T::BLOCK` are never allocated.
        let row = (number | 1).ilog2();
        let slots = self.rows[row as usize].load(Ordering::Acquire);
        if slots.is_null() {
            return None;
        }
        // SAFETY: row `k` has `1 << k` slots, and `number` without its highest bit is below that.
        Some(unsafe { slots.add((number ^ 1 << row) as usize) }.cast_const())
    }

    /// Removes a slot from the free list, or allocates one.
    #[inline]
    fn take(&self) -> Option<(u32, &Slot<T>)> {
        let mut head = self.free.load(Ordering::Acquire);
        while head & LOW != 0 {
            let slot = self.slot(head as u32)?;
            let next = slot.state_relaxed() & LOW;
            let popped = (head & !LOW).wrapping_add(GENERATION_STEP) | next;
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            match self.free.compare_exchange_weak(head, popped, success, failure) {
                Ok(_) => return Some((head as u32, slot)),
                Err(now) => head = now,
            }
        }
        let number = self.allocate(1)?;
        Some((number, self.slot(number)?))
    }

    /// Adds the slot of a dropped object to the free list, unless its generations are used up.
    #[inline]
    pub(super) fn release(&self, number: u32, slot: &Slot<T>) {
        let state = slot.state_relaxed() & !LOW;
        if generation_of(state) >= LAST {
            return;
        }
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            slot.state.store(state | head & LOW, Ordering::Relaxed);
            let pushed = (head & !LOW).wrapping_add(GENERATION_STEP) | u64::from(number);
            let (success, failure) = (Ordering::Release, Ordering::Relaxed);
            match self.free.compare_exchange_weak(head, pushed, success, failure) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Allocates adjacent slots; the number of the first. `None`: no number or no memory is left. The
    /// function takes no lock, so a forked child can call it at any time.
    #[cold]
    pub(super) fn allocate(&self, count: u32) -> Option<u32> {
        let next = |next: u32| (u64::from(next) < T::SLOTS).then(|| next + count);
        let number = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        let row = number.max(1).ilog2();
        allocate_once(&self.rows[row as usize], 1 << row)?;
        Some(number)
    }
}

/// Sets a null pointer to new memory of zero bytes for `count` slots. If another thread does so at
/// the same time, the memory of one thread is used.
fn allocate_once<T>(pointer: &AtomicPtr<Slot<T>>, count: usize) -> Option<*mut Slot<T>> {
    let present = pointer.load(Ordering::Acquire);
    if !present.is_null() {
        return Some(present);
    }
    let layout = Layout::array::<Slot<T>>(count).ok()?;
    // SAFETY: the layout is not empty: a row has at least one slot, and a slot has a state.
    let new = unsafe { alloc_zeroed(layout) }.cast::<Slot<T>>();
    if new.is_null() {
        return None;
    }
    #[cfg(keepsock_model)]
    for number in 0..count {
        // SAFETY: the memory has room for `count` slots.
        unsafe { new.add(number).write(Slot::empty()) };
    }
    match pointer.compare_exchange(present, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(new),
        Err(other) => {
            // SAFETY: `new` was allocated with this layout, and no other thread has the pointer.
            unsafe { dealloc(new.cast(), layout) };
            Some(other)
        }
    }
}

/// A slot without an object that only the owner of this value uses. Dropping it releases the slot.
pub(crate) struct Reserved<T: Handle> {
    pub(super) number: u32,
    pub(super) slot: &'static Slot<T>,
}

impl<T: Handle> Reserved<T> {
    /// `None`: the process has no memory for a slot.
    #[inline]
    pub(crate) fn new() -> Option<Reserved<T>> {
        let (number, slot) = T::pool().take()?;
        Some(Reserved { number, slot })
    }

    /// Constructs an object in the slot.
    #[inline]
    pub(super) fn construct(self, make: impl FnOnce() -> T, users: u64) -> *mut T {
        // A reserved slot is not retired: `release` does not put a retired one into the free list.
        let generation = generation_of(self.slot.state_relaxed()) + 1;
        // SAFETY: the slot has no object, and only the owner of `self` uses it.
        unsafe { self.slot.construct(make, generation, users) };
        let value = Value { slot: self.number, generation };
        mem::forget(self);
        value.encode()
    }
}

impl<T: Handle> Drop for Reserved<T> {
    fn drop(&mut self) {
        T::pool().release(self.number, self.slot);
    }
}
