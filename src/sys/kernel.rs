//! The functions that make system calls. Every system call of the library goes through this module.
//! tests/architecture.rs lists the exceptions, with their reasons.
//!
//! Without the Cargo feature `failpoints`, the names are those of libc and socket2 themselves. With
//! the feature, they are functions that make the same call, and that a plan of a test may make fail:
//! see [`failpoints`](super::failpoints).

#[cfg(all(feature = "failpoints", keepsock_linux, target_env = "gnu"))]
pub(crate) use super::failpoints::calls::*;
#[cfg(not(all(feature = "failpoints", keepsock_linux, target_env = "gnu")))]
pub(crate) use plain::*;

#[cfg(not(all(feature = "failpoints", keepsock_linux, target_env = "gnu")))]
mod plain {
    use std::io;

    #[cfg(unix)]
    pub(in crate::sys) use super::super::large_file::*;
    pub(crate) use socket2::SockRef;

    /// Makes a system call through a library that has its own function for it.
    #[inline(always)]
    pub(crate) fn call<T>(
        _name: &'static str,
        run: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        run()
    }
}
