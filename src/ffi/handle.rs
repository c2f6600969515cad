//! Handles: objects of ours that C holds by a pointer.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

/// The handles that C owns now. A pointer that isn't here was freed before, or is
/// not C's to free (a connection in a serve handler): freeing it does nothing.
/// A freed pointer cannot be told from a new handle at the same address.
static OWNED: Mutex<Option<HashSet<usize, BuildHasherDefault<ByAddress>>>> = Mutex::new(None);

/// Addresses are spread well enough by themselves.
#[derive(Default)]
struct ByAddress(u64);

impl Hasher for ByAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(*byte);
        }
    }

    fn write_usize(&mut self, address: usize) {
        // Fibonacci hashing: the table looks at the highest and the lowest bits.
        self.0 = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

/// Gives an object to C.
pub(super) fn give<T>(object: T) -> *mut T {
    let pointer = Box::into_raw(Box::new(object));
    let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    owned.get_or_insert_default().insert(pointer.addr());
    pointer
}

/// Takes an object back from C and drops it; anything else is left alone.
///
/// # Safety
/// `pointer` came from [`give`] with the same type, or was never a handle of another type.
pub(super) unsafe fn free<T>(pointer: *mut T) {
    let ours = {
        let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
        owned.as_mut().is_some_and(|set| set.remove(&pointer.addr()))
    };
    if ours {
        // SAFETY: it is in the set, so it came from `give` and was not freed.
        let object = unsafe { Box::from_raw(pointer) };
        // Freeing must not panic into C, whatever dropping does.
        super::shield((), || drop(object));
    }
}
