//! Waiting for another thread.

use std::sync::PoisonError;

use crate::io::deadline::Deadline;
use crate::sys::sync::{Condvar, MutexGuard};

/// Waits until another thread signals a change, or until the deadline.
pub(crate) fn wait_on<'a, T>(
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> MutexGuard<'a, T> {
    match deadline.remaining() {
        None => changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(left) => changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0,
    }
}
