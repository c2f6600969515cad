//! The helpers that only Linux has. A test that calls one of them is skipped.

use super::skip;

pub mod limits {
    //! Limits of a process and filters for its system calls.

    use super::skip;
    use crate::support::libc;

    const SECCOMP: &str = "Windows has no filters for system calls (seccomp)";
    const RLIMIT: &str = "Windows has no limits of a process (setrlimit(2))";

    pub fn need_descriptors(_: u64) {
        skip(RLIMIT)
    }

    pub fn limit_descriptors(_: u64) {
        skip(RLIMIT)
    }

    pub fn limit_memory(_: Option<u64>) {
        skip(RLIMIT)
    }

    pub fn limit_threads(_: usize) {
        skip(RLIMIT)
    }

    pub fn forbid(_: libc::c_long, _: Option<libc::c_int>, _: libc::c_int) {
        skip(SECCOMP)
    }

    pub fn forbid_with(_: libc::c_long, _: Option<(u32, libc::c_int)>, _: libc::c_int) {
        skip(SECCOMP)
    }

    pub fn answer(_: libc::c_long, _: Option<libc::c_int>, _: i64, _: usize) {
        skip(SECCOMP)
    }

    pub fn supervise(
        _: &[(libc::c_long, Option<libc::c_int>)],
        _: impl FnMut(&libc::seccomp_data) -> Option<i64> + Send + 'static,
    ) {
        skip(SECCOMP)
    }

    pub fn count_calls() -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
        skip(SECCOMP)
    }

    pub fn count_calls_of(_: &[libc::c_long]) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
        skip(SECCOMP)
    }
}

pub mod watch {
    //! The files below /proc of processes and threads.

    use super::skip;
    use crate::support::libc;

    const PROC: &str = "Windows has no /proc";

    pub fn await_that(_: &str, _: impl FnMut() -> bool) {
        skip(PROC)
    }

    pub fn count_threads(_: &str) -> usize {
        skip(PROC)
    }

    pub fn count_descriptors() -> usize {
        skip(PROC)
    }

    /// The processor time of threads.
    #[cfg(all(feature = "datagram", feature = "serve"))]
    pub struct Used {
        pub cpu: std::time::Duration,
    }

    #[cfg(all(feature = "datagram", feature = "serve"))]
    pub fn used_by(_: &str) -> Used {
        skip(PROC)
    }

    pub fn thread_id() -> i32 {
        skip(PROC)
    }

    pub fn await_blocked(_: i32, _: libc::c_long) {
        skip(PROC)
    }

    pub fn switches(_: i32) -> u64 {
        skip(PROC)
    }
}

pub mod netns {
    //! Network namespaces.

    use std::time::Duration;

    use super::skip;

    pub fn in_namespace(_: &str, _: Duration, _: impl FnOnce()) {
        skip("Windows has no network namespaces")
    }

    pub fn name_server(_: Duration, _: &str) {}

    pub fn silent_resolver(_: &str) {}
}
