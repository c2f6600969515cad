//! Options of sockets that socket2 does not have, by getsockopt(2) and setsockopt(2).

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use libc::{c_int, socklen_t};

use super::Borrowed;
use super::errno::check_int;
use crate::sys::kernel;

/// Returns the value and the number of bytes that the kernel wrote. An older kernel writes fewer
/// bytes, and the rest is zero.
///
/// # Safety
/// Every bit pattern is a valid `T`.
#[cfg_attr(feature = "failpoints", track_caller)]
pub(super) unsafe fn get<T>(
    socket: Borrowed<'_>,
    level: c_int,
    name: c_int,
) -> io::Result<(T, usize)> {
    // SAFETY: as the caller promises.
    let mut value: T = unsafe { mem::zeroed() };
    let mut len = mem::size_of::<T>() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into value.
    check_int(unsafe {
        let out = (&raw mut value).cast();
        kernel::getsockopt(socket.as_raw_fd(), level, name, out, &raw mut len)
    })?;
    Ok((value, len as usize))
}

/// Sets the value. Memory that a pointer in the value refers to must be valid.
#[cfg_attr(feature = "failpoints", track_caller)]
pub(super) fn set<T>(socket: Borrowed<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as socklen_t;
    // SAFETY: the kernel reads at most `len` bytes of value.
    check_int(unsafe {
        let value = std::ptr::from_ref(value).cast();
        kernel::setsockopt(socket.as_raw_fd(), level, name, value, len)
    })?;
    Ok(())
}

/// Sets the value to these bytes.
#[cfg_attr(feature = "failpoints", track_caller)]
pub(super) fn set_bytes(
    socket: Borrowed<'_>,
    level: c_int,
    name: c_int,
    value: &[u8],
) -> io::Result<()> {
    let len = socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads at most `len` bytes of value.
    check_int(unsafe {
        kernel::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len)
    })?;
    Ok(())
}
