//! `keepsock/basics.h`: the version, status codes, errors, cancel tokens, addresses and the log.

use std::ffi::{CStr, c_char};

mod address;
mod buffer;
mod cancel;
mod error;
mod five_tuple;
mod framing;
mod log;

pub use address::*;
pub use buffer::*;
pub use cancel::*;
pub use error::*;
pub use five_tuple::*;
pub use framing::*;
pub use log::*;

/// The version of this header: 0.2.0. keepsock_version() returns the version of the library.
pub const KEEPSOCK_VERSION_MAJOR: i32 = 0;
/// See KEEPSOCK_VERSION_MAJOR.
pub const KEEPSOCK_VERSION_MINOR: i32 = 2;
/// See KEEPSOCK_VERSION_MAJOR.
pub const KEEPSOCK_VERSION_PATCH: i32 = 0;

/// The status of a call that succeeded. All other statuses are negative.
pub const KEEPSOCK_OK: i32 = 0;

/// No limit, for the timeouts and limits that accept it.
pub const KEEPSOCK_INFINITE: i64 = -1;

/// The size of a buffer that holds the text of every address, endpoint and connection, with its
/// NUL.
pub const KEEPSOCK_TEXT_SIZE: i32 = 1024;

/// A socket of the system: a file descriptor. On Windows it is a SOCKET, which has the size of a
/// pointer and is converted by a cast; INVALID_SOCKET is (keepsock_fd)-1, as -1 is no descriptor.
#[cfg(windows)]
pub type keepsock_fd = usize;
/// A socket of the system: a file descriptor. On Windows it is a SOCKET, which has the size of a
/// pointer and is converted by a cast; INVALID_SOCKET is (keepsock_fd)-1, as -1 is no descriptor.
#[cfg(not(windows))]
pub type keepsock_fd = std::ffi::c_int;

/// Returns the version of the library: "0.2.0".
///
/// @return A static string.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => c"unknown",
        };
    VERSION.as_ptr()
}
