//! A soak: services of the library under ordinary and hostile peers for a long time. `cargo xtask soak`
//! starts it.
//!
//! A round is one service from its start to its end. The seed and the number of the round choose the
//! API, the serving mode, the transport, the policy of full queues and the faults. After each round the
//! counts must be equal: each message, byte, callback, close reason and rejected client is counted once,
//! by the peers, by the callbacks and by the statistics of the library. Descriptors and threads must be
//! those of the start, and the memory in use must not grow.
//!
//! The peers are raw sockets of this program, a child process, and clients of the library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[cfg(target_os = "linux")]
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
mod datagrams;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod ledgers;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod peer;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod round;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod scripts;
#[cfg(target_os = "linux")]
mod threads;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
