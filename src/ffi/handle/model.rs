//! Models of handles: generations, the free list, and objects that are in use while they are removed.

use std::sync::Arc;

use loom::thread;

use super::{Id, Table, free, get, give, handle, pin};
use crate::internal::explore;

struct One {
    witness: Arc<u32>,
}
handle!(One, TestOne, "one", witness: Arc<u32>, {
    const BLOCK: u32 = 2;
});

struct Kept {
    witness: Arc<u32>,
}
handle!(Kept, TestTable, "kept", witness: Arc<u32>, {
    const BLOCK: u32 = 2;
});

/// A handle that another thread may have.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Number(usize);

fn make(witness: &Arc<u32>) -> Number {
    Number(give(One { witness: witness.clone() }).addr())
}

/// The value of the object of a handle.
fn value(handle: Number) -> Option<u32> {
    // SAFETY: the threads of a model free no object that another thread uses.
    unsafe { get(std::ptr::without_provenance::<One>(handle.0)) }.map(|one| *one.witness)
}

fn end(handle: Number) {
    // SAFETY: as in `value`.
    unsafe { free(std::ptr::without_provenance_mut::<One>(handle.0)) }
}

/// E2: no two objects have the same slot, while threads take slots from the free list and return them.
#[test]
fn free_list_gives_each_slot_once() {
    explore("handles: the free list", Some(3), || {
        let witness = Arc::new(1);
        let (first, second) = (make(&witness), make(&witness));
        end(first);
        end(second);
        let other = thread::spawn(|| {
            let witness = Arc::new(2);
            let (kept, freed) = (make(&witness), make(&witness));
            end(kept);
            let again = make(&witness);
            assert_eq!((value(freed), value(again)), (Some(2), Some(2)));
            end(freed);
            end(again);
            assert_eq!(Arc::strong_count(&witness), 1);
        });
        let (one, two) = (make(&witness), make(&witness));
        assert_eq!((value(one), value(two)), (Some(1), Some(1)));
        assert!(value(first).is_none() && value(second).is_none());
        end(one);
        end(two);
        other.join().unwrap();
        assert_eq!(Arc::strong_count(&witness), 1);
    });
}

/// E2: if two threads free a handle, one thread drops the object. The slot then holds the next object.
#[test]
fn handle_is_freed_once() {
    explore("handles: two frees", Some(3), || {
        let witness = Arc::new(1);
        let handle = make(&witness);
        let others: Vec<_> = (0..2)
            .map(|_| {
                thread::spawn(move || {
                    end(handle);
                    let own = make(&Arc::new(2));
                    assert!(own != handle && value(own) == Some(2));
                    end(handle);
                    end(own);
                })
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!((Arc::strong_count(&witness), value(handle)), (1, None));
    });
}

/// V9, E2, T3: an object in use stays while another thread takes it out of its table, and its id never
/// stands for the next object of the slot.
#[test]
fn object_in_use_outlives_its_removal() {
    explore("handles: use against removal", Some(3), || {
        let table = Table::<Kept>::new(1).unwrap();
        assert!(table.reserve(0, 1));
        let (old, new) = (Arc::new(1), Arc::new(2));
        // SAFETY: this thread alone puts objects, and the number has none.
        let id = unsafe { table.put(0, Kept { witness: old.clone() }) }.unwrap();
        let users: Vec<_> = (0..2)
            .map(|_| {
                thread::spawn(move || {
                    if let Some(kept) = pin::<Kept>(id) {
                        assert_eq!(*kept.witness, 1);
                    }
                })
            })
            .collect();
        table.take(0);
        assert!(pin::<Kept>(id).is_none());
        // SAFETY: this thread alone puts objects, and the number has none.
        let next = unsafe { table.put(0, Kept { witness: new.clone() }) }.unwrap();
        assert_eq!(Arc::strong_count(&old), 1);
        for user in users {
            user.join().unwrap();
        }
        assert!(next != id && pin::<Kept>(id).is_none() && next != Id(0));
        assert_eq!(pin::<Kept>(next).map(|kept| *kept.witness), Some(2));
        drop(table);
        assert_eq!(Arc::strong_count(&new), 1);
    });
}
