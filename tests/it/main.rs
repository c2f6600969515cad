//! Integration tests, one module for each theme. Most tests run through the Rust API and the C API.
//! Tests run in parallel in one process. A test that depends on the state of the whole process
//! (descriptor limits, signal handlers, the logger, fork) runs its body in its own process: see
//! [`support::process::in_process`].
#![cfg(any(target_os = "linux", windows))]
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
#[cfg(all(unix, feature = "activation"))]
mod handover;
#[cfg(all(unix, feature = "diag"))]
mod handshake;
// mallinfo2(3) is a function of glibc.
#[cfg(all(unix, feature = "serve", target_env = "gnu"))]
mod hostile;
#[cfg(unix)]
mod interop;
mod keepalive;
#[cfg(unix)]
mod listen;
mod liveness;
#[cfg(unix)]
mod local_user;
mod log;
mod lookup;
mod multi_listen;
#[cfg(all(
    unix,
    feature = "capi",
    feature = "serve",
    feature = "datagram",
    feature = "activation",
    feature = "diag"
))]
mod options;
#[cfg(all(unix, feature = "serve"))]
mod peer_end;
mod pending_connect;
#[cfg(feature = "serve")]
mod posting;
#[cfg(unix)]
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
#[cfg(all(unix, feature = "serve"))]
mod stress;
mod threads;
#[cfg(all(unix, feature = "datagram"))]
mod unix_datagram;
#[cfg(unix)]
mod unix_stream;
#[cfg(windows)]
mod unsupported;
mod write;
