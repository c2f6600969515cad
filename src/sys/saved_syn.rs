//! The SYN of an accepted connection: TCP_SAVE_SYN and TCP_SAVED_SYN (Linux 4.2, tcp(7)).

use std::io;

use super::Borrowed;

#[cfg(keepsock_linux)]
pub(crate) use linux::save_syn;
#[cfg(all(feature = "diag", keepsock_linux))]
pub(crate) use linux_saved::saved_syn;

/// Whether a listener keeps the headers of the SYNs that open its connections.
#[cfg(not(keepsock_linux))]
pub(crate) fn save_syn(_listener: Borrowed<'_>, on: bool) -> io::Result<()> {
    if on { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
}

#[cfg(all(feature = "diag", not(keepsock_linux)))]
pub(crate) fn saved_syn(_socket: Borrowed<'_>) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(keepsock_linux)]
mod linux {
    use libc::c_int;

    use super::super::sockopt;
    use super::*;

    // linux/tcp.h; not in every supported version of the libc crate.
    const TCP_SAVE_SYN: c_int = 27;

    /// Whether a listener keeps the headers of the SYNs that open its connections.
    pub(crate) fn save_syn(listener: Borrowed<'_>, on: bool) -> io::Result<()> {
        sockopt::set(listener, libc::IPPROTO_TCP, TCP_SAVE_SYN, &c_int::from(on))
    }
}

#[cfg(all(feature = "diag", keepsock_linux))]
mod linux_saved {
    use std::os::fd::AsRawFd;

    use libc::{c_int, socklen_t};

    use super::super::errno::check_int;
    use super::*;
    use crate::sys::kernel;

    // linux/tcp.h; not in every supported version of the libc crate.
    const TCP_SAVED_SYN: c_int = 28;

    /// Takes the kernel's copy, IP and TCP headers; empty if there is none. The kernel gives
    /// it once.
    pub(crate) fn saved_syn(socket: Borrowed<'_>) -> io::Result<Vec<u8>> {
        // Enough for the longest headers of IPv4 and TCP; IPv6 has no longest.
        let mut bytes = vec![0u8; 256];
        loop {
            let mut len = socklen_t::try_from(bytes.len()).unwrap_or(socklen_t::MAX);
            // SAFETY: the kernel writes at most `len` bytes, and then their number into len.
            let code = unsafe {
                kernel::getsockopt(
                    socket.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    TCP_SAVED_SYN,
                    bytes.as_mut_ptr().cast(),
                    &raw mut len,
                )
            };
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            match check_int(code) {
                Ok(_) => {
                    bytes.truncate(len);
                    return Ok(bytes);
                }
                // The SYN does not fit. `len` is its size, and the kernel keeps it
                // (net/ipv4/tcp.c).
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && len > bytes.len() => {
                    bytes.resize(len, 0);
                }
                Err(e) => return Err(e),
            }
        }
    }
}
