//! Runs code of the program in threads of the library, which a panic must not end.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `call` and returns whether it panicked. The panic hook has reported the panic.
#[inline]
pub(crate) fn panics(call: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(()) => false,
        Err(payload) => {
            discard(payload);
            true
        }
    }
}

/// Drops the payload of a panic. The drop is code of the program, which may panic as well; the
/// payload of that panic is leaked, because its drop may panic again, without end.
#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(another);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_any(Bomb);
        }
    }

    /// V7: neither a panic nor a panic of its payload's drop leaves the call.
    #[test]
    fn panics_returns_when_the_drop_of_the_payload_panics() {
        assert!(!panics(|| ()));
        assert!(panics(|| panic!("a defect of the program")));
        assert!(panics(|| panic_any(Bomb)));
    }
}
