//! Wrong programs: each has an undefined behavior, or a leak, in a call of the library. `cargo xtask
//! sanitize` builds them as it builds the other tests, runs one at a time, and expects the report of the
//! sanitizer, which shows that it is active.
#![cfg(all(feature = "capi", target_os = "linux"))]
#![allow(unsafe_code)] // It calls C functions, as C would.
#![allow(clippy::undocumented_unsafe_blocks)] // No reason makes these calls sound.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use keepsock::ffi::{keepsock_address, keepsock_address_parse};

const ENDPOINT: &CStr = c"127.0.0.1:80";

#[test]
#[ignore = "wrong: cargo xtask sanitize expects a report"]
fn text_that_was_freed_is_read() {
    let mut address = MaybeUninit::<keepsock_address>::uninit();
    let freed = ENDPOINT.to_owned().into_raw();
    drop(unsafe { CString::from_raw(freed) });
    unsafe { keepsock_address_parse(freed, address.as_mut_ptr(), null_mut()) };
}

#[test]
#[ignore = "wrong: cargo xtask sanitize expects a report"]
fn address_written_by_two_threads_races() {
    struct Shared(*mut keepsock_address);
    unsafe impl Sync for Shared {}
    let mut address = MaybeUninit::<keepsock_address>::uninit();
    let shared = Shared(address.as_mut_ptr());
    let started = AtomicU32::new(0);
    let write = |shared: &Shared| {
        // Both threads run now. A relaxed operation orders nothing.
        started.fetch_add(1, Ordering::Relaxed);
        while started.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        for _ in 0..100 {
            unsafe { keepsock_address_parse(ENDPOINT.as_ptr(), shared.0, null_mut()) };
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| write(&shared));
        scope.spawn(|| write(&shared));
    });
}

#[test]
#[ignore = "wrong: cargo xtask sanitize expects a report"]
fn endpoint_that_is_forgotten_leaks() {
    for _ in 0..10 {
        std::mem::forget("unix:/leaked".parse::<keepsock::Endpoint>());
    }
}
