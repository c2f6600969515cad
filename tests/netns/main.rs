//! Tests in network namespaces: networks that drop, delay, forget and reject packets. Each test has
//! a control case, which shows what the same network does without keepsock. `cargo xtask netns`
//! runs all of them, including the long ones, and prints their measurements as a table.
#![cfg(target_os = "linux")]
// Clippy permits unwrap, expect and panic in test functions only, not in the functions they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

#[cfg(target_env = "gnu")] // mallinfo2(3)
mod addresses;
mod cancelled_races;
mod connect;
mod datagram;
mod dead_after;
mod descriptors;
mod fast_open;
mod firewall;
mod handshake;
mod happy_eyeballs;
mod interop;
mod keepalive;
mod liveness;
mod scale;
