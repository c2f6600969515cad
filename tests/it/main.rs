//! Integration tests, one module for each theme. Most tests run through the Rust API and the C API.
//! Tests run in parallel in one process. A test that depends on the state of the whole process
//! (descriptor limits, signal handlers, the logger, fork) runs its body in its own process: see
//! [`support::process::in_process`].
#![cfg(target_os = "linux")]
// Clippy permits unwrap, expect and panic in test functions only, not in the functions they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Without a feature, the helpers and imports of its tests are unused.
#![cfg_attr(
    not(all(feature = "serve", feature = "datagram", feature = "activation", feature = "diag")),
    allow(dead_code, unused_imports)
)]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "serve")]
mod accept_pause;
mod blocking_mode;
mod close;
#[cfg(feature = "serve")]
mod conn;
#[cfg(feature = "serve")]
mod conn_file;
#[cfg(feature = "serve")]
mod conn_messages;
mod connect;
#[cfg(feature = "datagram")]
mod datagram;
#[cfg(feature = "datagram")]
mod datagram_metadata;
#[cfg(feature = "serve")]
mod detach;
mod endpoints;
mod ends;
mod errors;
mod event_loop;
mod framing;
#[cfg(feature = "activation")]
mod handover;
#[cfg(feature = "diag")]
mod handshake;
// mallinfo2(3) is a function of glibc.
#[cfg(all(feature = "serve", target_env = "gnu"))]
mod hostile;
mod interop;
mod keepalive;
mod listen;
mod liveness;
mod local_user;
mod log;
mod lookup;
mod multi_listen;
#[cfg(all(
    feature = "capi",
    feature = "serve",
    feature = "datagram",
    feature = "activation",
    feature = "diag"
))]
mod options;
#[cfg(feature = "serve")]
mod peer_end;
mod pending_connect;
#[cfg(feature = "serve")]
mod posting;
mod process;
mod proxy;
mod read;
mod reconnect;
mod send_file;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod serve_events;
#[cfg(feature = "serve")]
mod service;
#[cfg(feature = "serve")]
mod service_reconnect;
#[cfg(feature = "serve")]
mod stress;
mod threads;
#[cfg(feature = "datagram")]
mod unix_datagram;
mod unix_stream;
mod write;
