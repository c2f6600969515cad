//! Functions that the program posts to an event loop.

use std::collections::VecDeque;

use crate::io::memory::boxed;
use crate::types::error::ErrorKind;

/// A function that is called once.
pub(super) trait Task<T>: Send {
    fn run(self: Box<Self>, argument: &T);
}

impl<T, F: FnOnce(&T) + Send> Task<T> for [F; 1] {
    fn run(self: Box<Self>, argument: &T) {
        let [function] = *self;
        function(argument);
    }
}

/// The functions that wait to be called, the oldest first.
pub(super) type Tasks<T> = VecDeque<Box<dyn Task<T>>>;

/// Returns `None` if the process has no memory for the function.
pub(super) fn task<T>(function: impl FnOnce(&T) + Send + 'static) -> Option<Box<dyn Task<T>>> {
    Some(boxed(function)?)
}

/// Appends a function, and takes it from `task`. Without memory both stay as they are.
pub(super) fn append<T>(
    tasks: &mut Tasks<T>,
    task: &mut Option<Box<dyn Task<T>>>,
) -> Result<(), ErrorKind> {
    tasks.try_reserve(1).map_err(|_| ErrorKind::NoMemory)?;
    tasks.extend(task.take());
    Ok(())
}

/// Takes the oldest function. An empty queue uses no memory.
pub(super) fn take<T>(tasks: &mut Tasks<T>) -> Option<Box<dyn Task<T>>> {
    let task = tasks.pop_front();
    if tasks.is_empty() {
        *tasks = VecDeque::new();
    }
    task
}
