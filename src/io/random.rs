//! Random numbers for jitter and for unique names.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Returns a random number that differs between threads, processes and machines. It is not for
/// cryptography: it comes from the random keys of the standard library's hash tables.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
