//! Bytes that a function lends to the functions that it calls, also through code of the program.

use std::cell::Cell;
use std::ptr::NonNull;

thread_local! {
    /// The bytes that the thread lends now.
    static LENT: Cell<NonNull<[u8]>> = const { Cell::new(NOTHING) };
}

const NOTHING: NonNull<[u8]> = NonNull::slice_from_raw_parts(NonNull::<u8>::dangling(), 0);

/// Calls `body`. Until it returns, [`lent`] returns `bytes` in this thread.
#[inline]
pub(crate) fn lend<R>(bytes: &[u8], body: impl FnOnce() -> R) -> R {
    struct Restore(NonNull<[u8]>);
    impl Drop for Restore {
        #[inline]
        fn drop(&mut self) {
            LENT.set(self.0);
        }
    }
    let _restore = Restore(LENT.replace(NonNull::from(bytes)));
    body()
}

/// Calls `body` with the bytes that a caller lends in this thread, or with an empty slice.
pub(crate) fn lent<R>(body: impl FnOnce(&[u8]) -> R) -> R {
    let bytes = LENT.get();
    // SAFETY: the bytes are borrowed by the call of `lend` that has set the pointer. That call is in
    // progress, because it resets the pointer before it returns or unwinds, and this function returns
    // before that. Without such a call the slice is empty.
    body(unsafe { bytes.as_ref() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Vec<u8> {
        lent(<[u8]>::to_vec)
    }

    #[test]
    fn lend_ends_with_its_call() {
        assert_eq!(now(), b"");
        lend(b"outer", || {
            assert_eq!(now(), b"outer");
            let failed = std::panic::catch_unwind(|| {
                lend(b"inner", || {
                    assert_eq!(now(), b"inner");
                    std::panic::resume_unwind(Box::new(()));
                });
            });
            assert!(failed.is_err());
            assert_eq!(now(), b"outer");
        });
        assert_eq!(now(), b"");
    }
}
