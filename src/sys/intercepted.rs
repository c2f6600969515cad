//! The system calls of Linux by the functions of libc, for ThreadSanitizer (`--cfg keepsock_tsan`), which
//! intercepts these functions. It does not notice a system call that is made directly: it then takes a
//! descriptor number that is used again for the closed descriptor.

use std::io;

/// # Safety
/// The same requirements as the system call.
pub(super) unsafe fn enter(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    let (fd, flags) = (a as libc::c_int, c as libc::c_int);
    // SAFETY: the caller keeps the call's requirements.
    super::errno::check(unsafe {
        match number {
            libc::SYS_accept4 => libc::accept4(fd, b as _, c as _, d as _) as isize,
            libc::SYS_recvfrom => libc::recvfrom(fd, b as _, c, d as _, e as _, f as _),
            libc::SYS_sendto => libc::sendto(fd, b as _, c, d as _, e as _, f as _),
            libc::SYS_recvmsg => libc::recvmsg(fd, b as _, flags),
            libc::SYS_sendmsg => libc::sendmsg(fd, b as _, flags),
            _ => libc::syscall(number, a, b, c, d, e, f) as isize,
        }
    })
}
