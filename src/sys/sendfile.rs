//! Sending files: sendfile(2), TransmitFile, and reading at an offset.

use std::io;

#[cfg(not(any(keepsock_linux, windows)))]
use super::Borrowed;

#[cfg(unix)]
pub(crate) use std::os::fd::{AsFd as AsFile, BorrowedFd as FileRef};
#[cfg(windows)]
pub(crate) use std::os::windows::io::{AsHandle as AsFile, BorrowedHandle as FileRef};

#[cfg(windows)]
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_FUNCTION, ERROR_INVALID_HANDLE, ERROR_SEEK,
};
#[cfg(windows)]
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_CHAR, FILE_TYPE_PIPE, GetFileType};

#[cfg(unix)]
pub(crate) fn file_of(file: &impl AsFile) -> FileRef<'_> {
    file.as_fd()
}

#[cfg(windows)]
pub(crate) fn file_of(file: &impl AsFile) -> FileRef<'_> {
    file.as_handle()
}

/// Whether the kernel sends from files, as much as the send buffer has space for.
pub(crate) const SENDS_FILES: bool =
    cfg!(any(keepsock_linux, target_vendor = "apple", target_os = "freebsd"));

/// Whether the system sends from files by requests that end when everything is sent. Windows resets the
/// connection if such a request is cancelled, so a call with a timeout cannot use them.
pub(crate) const TRANSMITS_FILES: bool = cfg!(windows);

#[cfg(keepsock_linux)]
mod direct {
    use std::mem;
    use std::os::fd::AsRawFd;
    use std::ptr;

    use super::super::Borrowed;
    use super::super::errno::check;
    use super::*;
    use crate::sys::kernel;

    /// sendfile(2): no call transfers more.
    const MOST: u64 = 0x7fff_f000;

    /// Sends from files. Suppresses SIGPIPE for this thread while it lives. sendfile(2) has no MSG_NOSIGNAL, and the
    /// kernel sends the signal to the calling thread: the signal is blocked, stays pending, and is
    /// consumed here. The disposition of the signal does not change.
    pub(crate) struct FileSender {
        before: libc::sigset_t,
        was_blocked: bool,
        /// A call sent less than requested, so the kernel may have sent the signal.
        is_suspect: bool,
        /// A call failed with EPIPE, so the kernel has sent the signal.
        has_failed: bool,
    }

    fn sigpipe() -> libc::sigset_t {
        // SAFETY: sigset_t consists of integers, and sigemptyset initializes it.
        unsafe {
            let mut set = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGPIPE);
            set
        }
    }

    impl FileSender {
        pub(crate) fn new() -> FileSender {
            let blocked = sigpipe();
            // SAFETY: sigsets are integers; both are valid, and are written only here.
            unsafe {
                let mut before = mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
                let was_blocked = libc::sigismember(&raw const before, libc::SIGPIPE) == 1;
                FileSender { before, was_blocked, is_suspect: false, has_failed: false }
            }
        }

        fn note(&mut self, sent: &io::Result<usize>, count: usize) {
            // A connection that has raised SIGPIPE once fails each later call with EPIPE.
            self.is_suspect = match sent {
                Ok(n) => self.is_suspect || *n != count,
                Err(e) => e.kind() != io::ErrorKind::WouldBlock,
            };
            self.has_failed |= matches!(sent, Err(e) if e.raw_os_error() == Some(libc::EPIPE));
        }

        /// Consumes the pending signal. A SIGPIPE that the program had sent to this thread stays
        /// pending: the kernel then drops its own signal.
        fn consume(&self) {
            let (mine, now) = (sigpipe(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
            // The kernel's signal sets have 64 bits.
            let size = mem::size_of::<u64>();
            // SAFETY: the set is initialized, siginfo_t consists of integers, and the timeout is
            // zero.
            unsafe {
                let mut info: libc::siginfo_t = mem::zeroed();
                // glibc's sigtimedwait(3) replaces SI_TKILL with SI_USER.
                let taken = libc::syscall(
                    libc::SYS_rt_sigtimedwait,
                    &raw const mine,
                    &raw mut info,
                    &raw const now,
                    size,
                );
                let is_signal = taken == libc::c_long::from(libc::SIGPIPE);
                if is_signal && self.was_blocked && info.si_code == libc::SI_TKILL {
                    libc::pthread_kill(libc::pthread_self(), libc::SIGPIPE);
                }
            }
        }
    }

    impl Drop for FileSender {
        fn drop(&mut self) {
            if self.has_failed || (self.is_suspect && !self.was_blocked) {
                self.consume();
            }
            if !self.was_blocked {
                // SAFETY: the set is initialized.
                unsafe {
                    libc::pthread_sigmask(
                        libc::SIG_SETMASK,
                        &raw const self.before,
                        ptr::null_mut(),
                    );
                }
            }
        }
    }

    impl FileSender {
        /// Sends from the file; returns 0 at the end of the file. Waits if the socket's descriptor is in
        /// blocking mode.
        pub(crate) fn send(
            &mut self,
            socket: Borrowed<'_>,
            file: FileRef<'_>,
            offset: u64,
            len: u64,
        ) -> io::Result<usize> {
            let too_large = |_| io::Error::from_raw_os_error(libc::EOVERFLOW);
            let mut at = super::super::large_file::off_t::try_from(offset).map_err(too_large)?;
            let count = len.min(MOST) as usize;
            // SAFETY: the kernel reads and writes the offset, which outlives the call.
            let sent = check(unsafe {
                kernel::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut at, count)
            });
            self.note(&sent, count);
            sent
        }
    }
}

/// Sends from files. No call needs SIGPIPE blocked: the option SO_NOSIGPIPE suppresses it, or there is no
/// sendfile(2).
#[cfg(not(any(keepsock_linux, windows)))]
pub(crate) struct FileSender;

#[cfg(not(any(keepsock_linux, windows)))]
impl FileSender {
    pub(crate) fn new() -> FileSender {
        FileSender
    }

    /// See the function for Linux.
    pub(crate) fn send(
        &mut self,
        socket: Borrowed<'_>,
        file: FileRef<'_>,
        offset: u64,
        len: u64,
    ) -> io::Result<usize> {
        direct::send_file(socket, file, offset, len)
    }
}

#[cfg(not(windows))]
impl FileSender {
    /// Ends a request in progress. Only Windows has one.
    pub(crate) fn stop(&mut self) -> usize {
        0
    }
}

#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
mod direct {
    use std::os::fd::AsRawFd;
    use std::ptr;

    use super::super::errno::check_int;
    use super::*;
    use crate::sys::kernel;

    /// The largest number of bytes of one call. A call on a non-blocking socket ends when the send
    /// buffer is full.
    const MOST: u64 = 0x4000_0000;

    pub(super) fn send_file(
        socket: Borrowed<'_>,
        file: FileRef<'_>,
        offset: u64,
        len: u64,
    ) -> io::Result<usize> {
        let too_large = |_| io::Error::from_raw_os_error(libc::EOVERFLOW);
        let at = libc::off_t::try_from(offset).map_err(too_large)?;
        let count = len.min(MOST) as u32;
        // For the system, no bytes are all bytes to the end of the file.
        if count == 0 {
            return Ok(0);
        }
        let (fd, to) = (file.as_raw_fd(), socket.as_raw_fd());
        #[cfg(target_vendor = "apple")]
        let (called, sent) = {
            // The number of bytes to send, and after the call that of the sent bytes.
            let mut sent = libc::off_t::from(count);
            // SAFETY: the kernel reads and writes the number, and reads no headers.
            let called = check_int(unsafe {
                kernel::sendfile(fd, to, at, &raw mut sent, ptr::null_mut(), 0)
            });
            (called, sent)
        };
        #[cfg(target_os = "freebsd")]
        let (called, sent) = {
            // MSG_NOSIGNAL does not exist for this call. macOS sockets of keepsock have the option.
            super::super::sockopt::set(socket, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, &1)?;
            let mut sent: libc::off_t = 0;
            // SAFETY: the kernel writes the number of sent bytes, and reads no headers.
            let called = check_int(unsafe {
                let count = count as libc::size_t;
                kernel::sendfile(fd, to, at, count, ptr::null_mut(), &raw mut sent, 0)
            });
            (called, sent)
        };
        outcome(called.err(), sent)
    }
}

/// The result of a sendfile(2) that returns an error and the number of sent bytes. A full send buffer
/// and a signal are errors after some bytes as well. The error that ended the connection is returned, because
/// the kernel may report it only once.
#[cfg(any(test, target_vendor = "apple", target_os = "freebsd"))]
fn outcome(failed: Option<io::Error>, sent: i64) -> io::Result<usize> {
    match (usize::try_from(sent), failed) {
        (_, Some(e)) if super::is_from_network(&e) => Err(e),
        (Ok(sent @ 1..), _) => Ok(sent),
        (_, Some(e)) => Err(e),
        _ => Ok(0),
    }
}

#[cfg(not(any(keepsock_linux, target_vendor = "apple", target_os = "freebsd", windows)))]
mod direct {
    use super::*;

    pub(super) fn send_file(
        _socket: Borrowed<'_>,
        _file: FileRef<'_>,
        _offset: u64,
        _len: u64,
    ) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(keepsock_linux)]
pub(crate) use direct::FileSender;

/// Reads at an offset, without the file's position; returns 0 at the end of the file.
#[cfg(unix)]
pub(crate) fn read_at(file: FileRef<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    use super::large_file::off_t;
    use std::os::fd::AsRawFd;
    let at = off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    loop {
        // SAFETY: the kernel writes at most buf.len() bytes into buf.
        let read = super::errno::check(unsafe {
            super::kernel::pread(file.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), at)
        });
        match read {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads at an offset; returns 0 at the end of the file. Windows moves the position of the file.
#[cfg(windows)]
pub(crate) fn read_at(file: FileRef<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    use std::os::windows::fs::FileExt;
    use std::os::windows::io::{AsRawHandle, FromRawHandle};
    if file_type(file) == FILE_TYPE_PIPE {
        return Err(io::Error::from_raw_os_error(ERROR_SEEK.cast_signed()));
    }
    // SAFETY: the handle is open while it is borrowed, and ManuallyDrop does not close it.
    let file = unsafe { std::fs::File::from_raw_handle(file.as_raw_handle()) };
    let file = std::mem::ManuallyDrop::new(file);
    super::kernel::call("ReadFile", || file.seek_read(buf, offset))
}

#[cfg(windows)]
pub(super) fn file_type(file: FileRef<'_>) -> u32 {
    use std::os::windows::io::AsRawHandle;
    // SAFETY: no memory is passed.
    unsafe { GetFileType(file.as_raw_handle()) }
}

/// Whether reads of the file may never find an end, as those of /dev/zero.
#[cfg(unix)]
pub(crate) fn is_character_device(file: FileRef<'_>) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: stat consists of integers.
    let mut found: super::large_file::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the structure.
    let known = unsafe { super::kernel::fstat(file.as_raw_fd(), &raw mut found) } == 0;
    known && found.st_mode & libc::S_IFMT == libc::S_IFCHR
}

#[cfg(windows)]
pub(crate) fn is_character_device(file: FileRef<'_>) -> bool {
    file_type(file) == FILE_TYPE_CHAR
}

/// Whether the error of a sendfile(2) may be about the file and not about the connection.
#[cfg(all(unix, feature = "serve"))]
pub(crate) fn may_concern_file(err: &io::Error) -> bool {
    use libc::{EACCES, EBADF, EINVAL, EIO, EISDIR, ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM, ESPIPE};
    let codes = [EACCES, EBADF, EINVAL, EIO, EISDIR, ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM, ESPIPE];
    // On Linux this is EOPNOTSUPP.
    let codes = codes.into_iter().chain([libc::ENOTSUP]);
    err.kind() == io::ErrorKind::Unsupported
        || err.raw_os_error().is_some_and(|code| codes.into_iter().any(|known| known == code))
}

#[cfg(all(windows, feature = "serve"))]
pub(crate) fn may_concern_file(_err: &io::Error) -> bool {
    false
}

/// Why the file cannot be read at an offset; `None` if the error has another cause.
#[cfg(unix)]
pub(crate) fn is_no_file(err: &io::Error) -> Option<&'static str> {
    match err.raw_os_error() {
        Some(libc::ESPIPE) => Some("the file is a pipe or a socket, which has no offsets"),
        Some(libc::EISDIR) => Some("the file is a directory"),
        Some(libc::EBADF) => Some("the file is closed, or not open for reading"),
        Some(libc::EINVAL) => Some("the file is of a kind that cannot be read"),
        _ => None,
    }
}

#[cfg(windows)]
pub(crate) fn is_no_file(err: &io::Error) -> Option<&'static str> {
    match err.raw_os_error()?.cast_unsigned() {
        ERROR_SEEK => Some("the file is a pipe or a socket, which has no offsets"),
        ERROR_INVALID_FUNCTION => Some("the file is a directory"),
        ERROR_INVALID_HANDLE | ERROR_ACCESS_DENIED => {
            Some("the file is closed, or not open for reading")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I5: sent bytes are counted although the call reports an error, and the end of the file is 0.
    #[test]
    fn outcome_after_some_bytes_is_their_number() {
        let blocked = || Some(io::Error::from(io::ErrorKind::WouldBlock));
        assert_eq!(outcome(blocked(), 7).unwrap(), 7);
        assert_eq!(outcome(None, 7).unwrap(), 7);
        assert_eq!(outcome(None, 0).unwrap(), 0);
        let kind = outcome(blocked(), 0).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
        assert!(outcome(blocked(), -1).is_err());
        let reset = io::Error::from_raw_os_error(crate::sys::RESET);
        assert_eq!(outcome(Some(reset), 7).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
