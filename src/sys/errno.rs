//! Results of C functions that report errors through errno.

use std::ffi::c_int;
use std::io;

/// The result of a call that returns a negative number and sets errno if it fails.
#[inline]
pub(super) fn check(n: isize) -> io::Result<usize> {
    // Only negative results do not fit.
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// The result of a call that returns a negative number and sets errno if it fails.
#[inline]
pub(super) fn check_int(n: c_int) -> io::Result<c_int> {
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n) }
}
