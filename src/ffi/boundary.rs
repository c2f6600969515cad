//! The body of a C function: results, panics, cancellation, and the object that it uses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::TryLockError;

use crate::ffi::{
    ErrorOut, Handle, KEEPSOCK_OK, Mut, NO_OPERATION, Out, Ref, Result, Structure, Versioned,
    keepsock_error,
};
use crate::internal::sync::Mutex;
use crate::internal::{CancellationDisabled, Stop};
use crate::{Error, ErrorKind};

/// Runs the body of a C function: a failure becomes a status and, if the caller wants one, an error
/// object. No panic leaves the function, and pthread_cancel(3) does not act inside it.
#[inline]
pub(crate) fn call(
    error: ErrorOut<'_>,
    operation: &'static str,
    body: impl FnOnce() -> Result<()>,
) -> i32 {
    let _disabled = CancellationDisabled::new();
    call_frequent(error, operation, body)
}

/// As [`call`], for the functions that a program calls most often. It does not disable
/// cancellation, which costs two system calls: a body that may reach a cancellation point does so
/// itself. The fast path makes its system call without libc, so it has no cancellation point.
#[inline]
pub(crate) fn call_frequent(
    error: ErrorOut<'_>,
    operation: &'static str,
    body: impl FnOnce() -> Result<()>,
) -> i32 {
    // On other platforms libc makes the system call.
    let _disabled = (!cfg!(keepsock_linux)).then(CancellationDisabled::new);
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => KEEPSOCK_OK,
        Ok(Err(e)) => fail(error, operation, e),
        Err(_) => fail(error, operation, Error::new(ErrorKind::Panic, operation)),
    }
}

#[cold]
fn fail(out: ErrorOut<'_>, operation: &'static str, error: Error) -> i32 {
    let status = error.kind().code();
    out.store(|| {
        let named = error.operation() != NO_OPERATION;
        keepsock_error::new(if named { error } else { error.during(operation) })
    });
    status
}

/// An argument that stands for an object.
pub(crate) trait Object {
    /// The type that the functions of the object use.
    type Target;

    /// Calls `body` if there is such an object.
    fn with<R>(self, body: impl FnOnce(&Self::Target) -> Result<R>) -> Result<R>;
}

impl<T: Handle> Object for Ref<'_, T> {
    type Target = T::Target;

    #[inline]
    fn with<R>(self, body: impl FnOnce(&T::Target) -> Result<R>) -> Result<R> {
        body(self.get()?.target())
    }
}

/// Calls `body` with the target of an object.
#[inline]
pub(crate) fn with<O: Object>(
    object: O,
    error: ErrorOut<'_>,
    operation: &'static str,
    body: impl FnOnce(&O::Target) -> Result<()>,
) -> i32 {
    call(error, operation, || object.with(body))
}

/// Calls `body` with an object that no other thread uses.
#[inline]
pub(crate) fn with_mut<T: Handle>(
    object: Mut<'_, T>,
    error: ErrorOut<'_>,
    operation: &'static str,
    body: impl FnOnce(&mut T) -> Result<()>,
) -> i32 {
    call(error, operation, || body(object.get()?))
}

/// As [`with`], for an object that one thread uses at a time. A call from another thread or from a
/// callback fails.
pub(crate) fn with_exclusive<T: Handle<Target = Mutex<U>>, U>(
    object: Ref<'_, T>,
    error: ErrorOut<'_>,
    operation: &'static str,
    body: impl FnOnce(&mut U) -> Result<()>,
) -> i32 {
    with(object, error, operation, |object| exclusive(object, operation, body))
}

/// Calls `body` with an object that one thread uses at a time.
pub(crate) fn exclusive<U>(
    object: &Mutex<U>,
    operation: &'static str,
    body: impl FnOnce(&mut U) -> Result<()>,
) -> Result<()> {
    // lock() would wait forever for a call from inside a callback.
    match object.try_lock() {
        Ok(mut object) => body(&mut object),
        Err(TryLockError::Poisoned(poisoned)) => body(&mut poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(Error::new(ErrorKind::WrongState, operation)
            .detail("another call on the object is in progress")),
    }
}

/// A socket whose calls may stop before they have an error object.
pub(crate) trait Stopped {
    fn stopped(&self, operation: &'static str, stop: Stop) -> Error;
}

/// As [`with`], for the functions that a program calls most often: see [`call_frequent`]. A call
/// that would block makes an error only for a caller that wants one.
#[inline]
pub(crate) fn with_frequent<T: Handle<Target: Stopped>>(
    object: Ref<'_, T>,
    error: ErrorOut<'_>,
    operation: &'static str,
    body: impl FnOnce(&T::Target) -> std::result::Result<(), Stop>,
) -> i32 {
    let mut blocked = false;
    let body = || {
        let target = object.get()?.target();
        match body(target) {
            Ok(()) => Ok(()),
            Err(Stop::WouldBlock(_)) if !error.is_wanted() => {
                blocked = true;
                Ok(())
            }
            Err(stop) => Err(target.stopped(operation, stop)),
        }
    };
    let status = call_frequent(error, operation, body);
    if blocked { ErrorKind::WouldBlock.code() } else { status }
}

/// Gives the object that `make` returns to the caller.
#[inline]
pub(crate) fn create<T: Handle>(
    out: Out<'_, *mut T>,
    error: ErrorOut<'_>,
    operation: &'static str,
    make: impl FnOnce() -> Result<T>,
) -> i32 {
    call(error, operation, || out.create(make))
}

/// Fills a structure of the caller with the value that `read` returns.
#[inline]
pub(crate) fn fill<O: Object, V: Versioned + Copy>(
    object: O,
    out: Structure<'_, V>,
    error: ErrorOut<'_>,
    operation: &'static str,
    read: impl FnOnce(&O::Target) -> Result<V>,
) -> i32 {
    with(object, error, operation, |target| {
        let out = out.checked()?;
        out.fill(&read(target)?)
    })
}

/// Runs a body that cannot fail. If it panics, the result is `otherwise`. Like [`call`], it disables
/// cancellation.
pub(crate) fn shield<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    let _disabled = CancellationDisabled::new();
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::ffi::{keepsock_error_free, keepsock_error_message, keepsock_error_status};

    /// E3: a panic becomes a status and an error object, or the value for a function without status.
    #[test]
    fn panic_becomes_a_status() {
        let mut error = std::ptr::null_mut();
        // SAFETY: NULL, and a variable of this function.
        let places =
            unsafe { [ErrorOut::new(std::ptr::null_mut()), ErrorOut::new(&raw mut error)] };
        for place in places {
            let defect = || -> Result<()> { panic!("a defect") };
            assert_eq!(call(place, "test", defect), ErrorKind::Panic.code());
        }
        // SAFETY: `call` made the error, and this thread alone uses it.
        unsafe {
            assert_eq!(keepsock_error_status(error), ErrorKind::Panic.code());
            let message = CStr::from_ptr(keepsock_error_message(error));
            assert_eq!(message, c"test: internal error");
            keepsock_error_free(error);
        }
        assert_eq!(shield(7, || panic!("a defect")), 7);
    }
}
