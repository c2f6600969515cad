//! Objects that a C program may use during a callback only.

use super::pool::LENT;
use super::{Handle, put, remove};

/// Lends an object to the C program until the result is dropped.
pub(crate) fn lend<T: Handle>(object: T) -> Lent<T> {
    Lent(put(object, LENT))
}

pub(crate) struct Lent<T: Handle>(*mut T);

impl<T: Handle> Lent<T> {
    pub(crate) fn pointer(&mut self) -> *mut T {
        self.0
    }
}

impl<T: Handle> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: the header forbids the use of the object after the callback that it was lent to,
        // and the callback has returned.
        unsafe { remove(self.0, LENT) };
    }
}
