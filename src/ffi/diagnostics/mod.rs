//! `keepsock/diagnostics.h`: packet capture, handshakes and the SYN of a connection.

mod handshake;
mod saved_syn;
mod segment;

pub use handshake::*;
pub use saved_syn::*;
pub use segment::*;
