//! Objects that have numbers, and that any thread may use at any time by an id.

use std::ops::Deref;
use std::sync::OnceLock;
use std::time::Duration;

use super::Handle;
use super::pool::{GENERATION_STEP, LAST, LOW, Slot};
use super::value::{TAG_BITS, Value, generation_of};
use crate::ffi::shield;
use crate::internal::fork::lock_shared;
use crate::internal::listed;
use crate::internal::sync::atomic::Ordering;
use crate::internal::sync::{sleep, yield_now};

/// The number of an object in a [`Table`]. It has 64 bits on every platform and contains
/// the whole generation, so no id ever stands for a second object. 0 stands for no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) u64);

const ID_SLOT_BITS: u32 = u64::BITS - TAG_BITS - u32::BITS;
/// The number of slots that an [`Id`] can state.
pub(crate) const ID_SLOTS: u64 = 1 << ID_SLOT_BITS;

impl Value {
    #[inline]
    fn to_id<T: Handle>(self) -> Id {
        let slot = u64::from(self.slot) << (TAG_BITS + u32::BITS);
        Id(slot | u64::from(self.generation) << TAG_BITS | Value::tag::<T>() as u64)
    }

    #[inline]
    fn from_id<T: Handle>(id: Id) -> Option<Value> {
        (id.0 & 0xff == Value::tag::<T>() as u64).then_some(Value {
            slot: (id.0 >> (TAG_BITS + u32::BITS)) as u32,
            generation: (id.0 >> TAG_BITS) as u32,
        })
    }
}

#[inline]
fn is_live(state: u64) -> bool {
    state & GENERATION_STEP != 0
}

/// An object of a [`Table`] in use. The object stays while this value lives, even if another thread
/// takes it out of the table.
pub(crate) struct Pinned<T: Handle>(&'static Slot<T>);

/// The object of a [`Table`] that an id stands for. `None`: the object was taken out of the table, or
/// the number never was an id.
#[inline]
pub(crate) fn pin<T: Handle>(id: Id) -> Option<Pinned<T>> {
    let value = Value::from_id::<T>(id)?;
    let slot = T::pool().slot(value.slot)?;
    let mut state = slot.state_relaxed();
    while generation_of(state) == value.generation {
        match slot.state.compare_exchange_weak(
            state,
            state + 1,
            Ordering::Acquire,
            Ordering::Relaxed,
        ) {
            Ok(_) => return Some(Pinned(slot)),
            Err(now) => state = now,
        }
    }
    None
}

impl<T: Handle> Deref for Pinned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object stays while it has a user, and `self` is one. Users do not change it.
        unsafe { self.0.object() }
    }
}

impl<T: Handle> Drop for Pinned<T> {
    #[inline]
    fn drop(&mut self) {
        end_use(self.0);
    }
}

/// Removes one user. The last user drops the object, and counts as a user until that is done.
#[inline]
fn end_use<T: Handle>(slot: &Slot<T>) {
    let mut state = slot.state();
    while state & LOW > 1 {
        match slot.state.compare_exchange_weak(
            state,
            state - 1,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => return,
            Err(now) => state = now,
        }
    }
    drop_object(slot);
}

#[cold]
fn drop_object<T: Handle>(slot: &Slot<T>) {
    // SAFETY: the object was taken out of its table, so no thread begins to use it, and this thread
    // is its last user. The slot gets another object only when the count of users is 0.
    shield((), || unsafe { slot.drop_object() });
    slot.state.fetch_sub(1, Ordering::Release);
}

/// Objects that have numbers, from 0 on and without large gaps. Each number has its own slot, so the
/// number determines the id. The C program cannot free such an object, and may use its id at any time:
/// see [`pin`]. The table is a user of each object in it.
pub(crate) struct Table<T: Handle>(Box<[OnceLock<Block<T>>]>);

/// Adjacent slots.
struct Block<T: 'static> {
    first: u32,
    slots: &'static [Slot<T>],
}
// SAFETY: the state of a slot, and the requirements of `put`, decide which thread may use its object.
unsafe impl<T> Send for Block<T> {}
// SAFETY: several threads may read a slot at the same time, for the same reason.
unsafe impl<T> Sync for Block<T> {}

/// A slot with more generations than this is not used for another table. A table uses two generations
/// for each object, and each of its numbers comes at most 2^30 times, so no generation runs out.
const SPENT: u32 = 1 << 31;

const PAUSE: Duration = Duration::from_micros(50);

impl<T: Handle> Table<T> {
    /// A table for numbers below `limit`; `None`: the process has no memory for it.
    pub(crate) fn new(limit: usize) -> Option<Table<T>> {
        let blocks = limit.div_ceil(T::BLOCK as usize);
        Some(Table(listed(blocks, std::iter::repeat_with(OnceLock::new))?.into_boxed_slice()))
    }

    /// Allocates the slots of `count` numbers from `first` on. Returns false if the process has no
    /// memory for them. One thread at a time may call this function.
    pub(crate) fn reserve(&self, first: usize, count: usize) -> bool {
        let numbers = first / T::BLOCK as usize..(first + count).div_ceil(T::BLOCK as usize);
        numbers.map(|number| self.0.get(number)).all(|block| {
            block.is_some_and(|block| {
                block.get().is_some() || Block::new().is_some_and(|new| block.set(new).is_ok())
            })
        })
    }

    #[inline]
    fn slot(&self, number: usize) -> Option<(u32, &'static Slot<T>)> {
        let at = number % T::BLOCK as usize;
        let block = self.0.get(number / T::BLOCK as usize)?.get()?;
        Some((block.first + at as u32, block.slots.get(at)?))
    }

    /// Puts an object into its slot. `None`: the slot was not [reserved](Table::reserve). If a thread
    /// still uses the previous object of the slot, this function waits for that thread.
    ///
    /// # Safety
    /// The slot has no object of the table, and no other thread puts an object there at the same time.
    pub(crate) unsafe fn put(&self, number: usize, object: T) -> Option<Id> {
        let (slot_number, slot) = self.slot(number)?;
        let mut polls = 0;
        while slot.state() & LOW != 0 {
            // The other thread is in a call that does not wait. It may need this processor.
            polls += 1;
            if polls < 100 { yield_now() } else { sleep(PAUSE) }
        }
        let state = slot.state();
        if is_live(state) || generation_of(state) >= LAST {
            return None;
        }
        let generation = generation_of(state) + 1;
        // SAFETY: the slot has no object and no user, and the caller guarantees that no other thread
        // puts an object there.
        unsafe { slot.construct(|| object, generation, 1) };
        Some(Value { slot: slot_number, generation }.to_id::<T>())
    }

    /// The id of the object with this number; `Id(0)` if there is no object.
    #[inline]
    pub(crate) fn id(&self, number: usize) -> Id {
        let Some((slot_number, slot)) = self.slot(number) else {
            return Id(0);
        };
        let state = slot.state_relaxed();
        if !is_live(state) {
            return Id(0);
        }
        Value { slot: slot_number, generation: generation_of(state) }.to_id::<T>()
    }

    /// Takes the object with this number out of the table, if there is one. From then on its id is
    /// invalid.
    pub(crate) fn take(&self, number: usize) {
        if let Some((_, slot)) = self.slot(number) {
            take(slot);
        }
    }
}

fn take<T: Handle>(slot: &Slot<T>) {
    let mut state = slot.state();
    while is_live(state) {
        let next = state + GENERATION_STEP;
        match slot.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return end_use(slot),
            Err(now) => state = now,
        }
    }
}

impl<T: Handle> Block<T> {
    #[cold]
    fn new() -> Option<Block<T>> {
        let pool = T::pool();
        let used = lock_shared(&pool.blocks).and_then(|mut blocks| blocks.pop());
        let first = used.or_else(|| pool.allocate(T::BLOCK))?;
        // SAFETY: a row consists of whole blocks, so `T::BLOCK` slots follow each other from `first`
        // on. The library never frees a row.
        let slots = unsafe { std::slice::from_raw_parts(pool.place(first)?, T::BLOCK as usize) };
        Some(Block { first, slots })
    }
}

impl<T: Handle> Drop for Table<T> {
    fn drop(&mut self) {
        for block in self.0.iter_mut().filter_map(OnceLock::take) {
            block.slots.iter().for_each(take);
            let is_usable = |slot: &Slot<T>| generation_of(slot.state_relaxed()) <= SPENT;
            if block.slots.iter().all(is_usable) {
                // In a forked child no thread may ever unlock a mutex that was locked at the fork.
                if let Some(mut blocks) = lock_shared(&T::pool().blocks) {
                    blocks.push(block.first);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;
    use crate::ffi::handle::handle;

    const GENERATION_IN_ID: std::ops::Range<u32> = TAG_BITS + 1..TAG_BITS + u32::BITS;

    struct Other(());
    handle!(Other, TestOther, "other", 0: ());

    struct Kept {
        _witness: Arc<()>,
    }

    handle!(Kept, TestTable, "kept", _witness: Arc<()>, {
        const BLOCK: u32 = 256;
        const SLOTS: u64 = ID_SLOTS;
    });

    fn table(limit: usize) -> Table<Kept> {
        let table = Table::new(limit).unwrap();
        assert!(table.reserve(0, limit));
        table
    }

    /// V9, E2: an id is rejected after its object was taken out of the table: when its slot has
    /// another object, when its table was dropped, and when another table has the slot.
    #[test]
    fn id_is_rejected_after_its_object_was_taken() {
        let witness = Arc::new(());
        let object = || Kept { _witness: witness.clone() };
        let table = self::table(300);
        let mut stale = Vec::new();
        for number in [0, 255, 256] {
            // SAFETY: this test alone uses the table, and the number has no object.
            let id = unsafe { table.put(number, object()) }.unwrap();
            assert_eq!(id, table.id(number));
            assert!(pin::<Kept>(id).is_some());
            stale.push(id);
        }
        assert_eq!(Arc::strong_count(&witness), 4);
        // Miri is slow.
        for _ in 0..if cfg!(miri) { 10 } else { 1000 } {
            table.take(255);
            table.take(255);
            assert!(stale.iter().skip(3).all(|id| pin::<Kept>(*id).is_none()));
            // SAFETY: this test alone uses the table, and the number has no object.
            let id = unsafe { table.put(255, object()) }.unwrap();
            stale.push(id);
            assert!(pin::<Kept>(stale[1]).is_none() && pin::<Kept>(id).is_some());
        }
        assert!(pin::<Kept>(stale[0]).is_some() && pin::<Kept>(stale[2]).is_some());
        drop(table);
        assert_eq!(Arc::strong_count(&witness), 1);
        let later = self::table(300);
        for number in [0, 255, 256] {
            // SAFETY: this test alone uses the table, and the number has no object.
            let id = unsafe { later.put(number, object()) }.unwrap();
            assert!(pin::<Kept>(id).is_some() && !stale.contains(&id));
        }
        assert!(stale.iter().all(|id| pin::<Kept>(*id).is_none()));
        assert_eq!(later.id(512), Id(0));
        assert!(pin::<Kept>(Id(0)).is_none() && pin::<Kept>(Id(u64::MAX)).is_none());
    }

    /// E2: a table allocates the blocks of the requested numbers only.
    #[test]
    fn reserve_allocates_the_blocks_of_its_numbers() {
        let table = Table::<Kept>::new(1000).unwrap();
        assert!(table.reserve(300, 400));
        let has_slot = |number: &usize| table.slot(*number).is_some();
        assert!([256, 511, 512, 767].iter().all(has_slot));
        assert!(![0, 255, 768, 1000].iter().any(has_slot));
    }

    /// E2: the block of a dropped table serves the next one, until its generations are used up.
    #[test]
    fn block_is_used_again_until_its_generations_are_used_up() {
        struct Again(());
        handle!(Again, TestAgain, "again", 0: (), {
            const BLOCK: u32 = 256;
            const SLOTS: u64 = ID_SLOTS;
        });
        let mut first = None;
        for _ in 0..3 {
            let table = Table::<Again>::new(1).unwrap();
            assert!(table.reserve(0, 1));
            let (number, slot) = table.slot(0).unwrap();
            assert_eq!(*first.get_or_insert(number), number);
            slot.set_generation(1 << 31);
        }
        let table = Table::<Again>::new(1).unwrap();
        assert!(table.reserve(0, 1));
        table.slot(0).unwrap().1.set_generation(SPENT + 2);
        drop(table);
        let table = Table::<Again>::new(1).unwrap();
        assert!(table.reserve(0, 1));
        assert_ne!(table.slot(0).map(|(number, _)| number), first);
    }

    /// V9: an id contains every slot number and the whole generation, also on 32-bit platforms. An
    /// id that differs in the generation only, or in the type only, stands for no object.
    #[test]
    fn id_contains_the_slot_and_the_whole_generation() {
        for slot in [256, 70_000, ID_SLOTS as u32 - 1] {
            for generation in [1, 513, u32::MAX - 2] {
                let value = Value { slot, generation };
                assert_eq!(Value::from_id::<Kept>(value.to_id::<Kept>()), Some(value));
                assert_eq!(Value::from_id::<Other>(value.to_id::<Kept>()), None);
            }
        }
        let table = self::table(1);
        let object = Kept { _witness: Arc::new(()) };
        // SAFETY: this test alone uses the table, and the number has no object.
        let Id(id) = unsafe { table.put(0, object) }.unwrap();
        for bit in GENERATION_IN_ID {
            assert!(pin::<Kept>(Id(id ^ 1 << bit)).is_none(), "bit {bit} of the generation");
        }
        assert!(pin::<Kept>(Id(id)).is_some());
    }

    /// V9, T3: an object that another thread uses is dropped when that thread has finished. Its slot
    /// gets the next object only then.
    #[test]
    fn taken_object_stays_while_it_is_in_use() {
        let witness = Arc::new(());
        let object = || Kept { _witness: witness.clone() };
        let table = self::table(1);
        // SAFETY: this test alone uses the table, and the number has no object.
        let id = unsafe { table.put(0, object()) }.unwrap();
        let pinned = pin::<Kept>(id).unwrap();
        table.take(0);
        assert!(pin::<Kept>(id).is_none());
        assert_eq!(Arc::strong_count(&pinned._witness), 2);
        drop(pinned);
        assert_eq!(Arc::strong_count(&witness), 1);
        let (table, object) = (&table, &object);
        let stop = AtomicBool::new(false);
        let last = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let id = Id(last.load(Ordering::Relaxed));
                        if let Some(pinned) = pin::<Kept>(id) {
                            assert!(Arc::strong_count(&pinned._witness) >= 2);
                        }
                    }
                });
            }
            for _ in 0..20_000 {
                // SAFETY: this thread alone puts and takes objects.
                let Id(id) = unsafe { table.put(0, object()) }.unwrap();
                last.store(id, Ordering::Relaxed);
                table.take(0);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}
