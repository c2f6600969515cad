//! The C API: a thin layer over the public Rust API and the module `internal`.
//!
//! Each directory holds what one header declares. cbindgen generates the headers from these files.
//! The comments of public items are the C manual and address C programmers.

#![allow(non_camel_case_types)]
#![allow(missing_docs)] // the header gate looks for comments of its own
#![allow(clippy::doc_lazy_continuation)] // the comments are in the format of Doxygen
#![allow(rustdoc::broken_intra_doc_links)] // "[::1]:80" is an endpoint to a C programmer

#[cfg(feature = "activation")]
mod activation;
mod arguments;
mod basics;
mod boundary;
mod client;
mod convert;
#[cfg(feature = "datagram")]
mod datagrams;
#[cfg(feature = "diag")]
mod diagnostics;
mod handle;
#[cfg(all(feature = "serve", feature = "datagram", feature = "activation", feature = "diag"))]
mod layout;
mod options;
mod server;
#[cfg(feature = "serve")]
mod serving;
mod versioned;

#[cfg(feature = "activation")]
pub use activation::*;
pub use basics::*;
pub use client::*;
#[cfg(feature = "datagram")]
pub use datagrams::*;
#[cfg(feature = "diag")]
pub use diagnostics::*;
pub use options::*;
pub use server::*;
#[cfg(feature = "serve")]
pub use serving::*;

use arguments::*;
use boundary::*;
use convert::*;
use handle::{Handle, handle};
use versioned::{Versioned, versioned};

type Result<T> = crate::Result<T>;
