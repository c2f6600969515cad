//! The C ABI: the generated header, the man pages, the exported symbols, the layout of structures, the
//! record of earlier versions, thread cancellation, and the status that each C function returns when a
//! system call fails.
// Clippy permits unwrap, expect and panic in test functions only, not in the functions they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(target_os = "linux")]
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

#[cfg(all(feature = "capi", target_os = "linux"))]
mod cancellation;
#[cfg(all(feature = "capi", target_os = "linux"))]
mod faults;
mod header;
#[cfg(all(feature = "capi", target_os = "linux"))]
mod layout;
#[cfg(all(feature = "capi", target_os = "linux"))]
mod man;
#[cfg(all(feature = "capi", target_os = "linux"))]
mod record;
#[cfg(all(feature = "capi", target_os = "linux"))]
mod symbols;
