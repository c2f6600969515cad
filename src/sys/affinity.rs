//! CPU affinity of a thread.

use std::io;

/// Restricts the calling thread to one CPU.
#[cfg(keepsock_linux)]
pub(crate) fn run_on_cpu(cpu: u32) -> io::Result<()> {
    let number = cpu as usize;
    if number >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: cpu_set_t consists of integers, `number` is within it, and the kernel only reads it.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(number, &mut set);
        super::kernel::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(keepsock_linux))]
pub(crate) fn run_on_cpu(_cpu: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
