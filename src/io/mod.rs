//! Waiting, cancellation and locking, for all kinds of sockets.

pub(crate) mod backoff;
pub(crate) mod cancel;
#[cfg(any(feature = "serve", feature = "diag"))]
pub(crate) mod condition;
pub(crate) mod deadline;
pub(crate) mod lock;
pub(crate) mod memory;
#[cfg(all(test, keepsock_model))]
mod model;
#[cfg(any(feature = "serve", feature = "capi"))]
pub(crate) mod panic_guard;
#[cfg(test)]
mod properties;
pub(crate) mod random;
pub(crate) mod read_buffer;
pub(crate) mod timeout;
pub(crate) mod token_slot;
pub(crate) mod wait;
