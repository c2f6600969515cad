//! libc with file offsets, file sizes and inode numbers of 64 bits. On 32-bit systems with glibc and on
//! Android the functions and types without `64` in their names have 32 bits.

#[cfg(all(keepsock_linux, any(target_env = "gnu", target_os = "android")))]
pub(super) use libc::sendfile64 as sendfile;
pub(super) use libc::*;
#[cfg(any(all(unix, target_env = "gnu"), target_os = "android"))]
pub(super) use libc::{fstat64 as fstat, off64_t as off_t, pread64 as pread, stat64 as stat};
#[cfg(all(feature = "activation", keepsock_linux, target_env = "gnu"))]
pub(super) use libc::{fstatfs64 as fstatfs, statfs64 as statfs};
