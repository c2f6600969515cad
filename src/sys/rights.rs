//! What only Unix sockets have: descriptors that travel with bytes (SCM_RIGHTS of unix(7)), who
//! the peer is, packets in order, the mode and owner of a file. The functions take names, so that
//! sockets without a peer can use them, too.

use std::io;
use std::path::Path;

use socket2::SockAddr;

use super::{Borrowed, Owned, Received, Wait};
use crate::client::Credentials;
use crate::options::UnixFile;

/// SCM_MAX_FD of unix(7): how many descriptors one message may carry. FreeBSD and macOS carry
/// some more.
pub(crate) const RIGHTS_MAX: usize = 253;

/// A message as the kernel handed it over.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// What is told of it.
    pub received: Received,
    /// Close-on-exec.
    pub descriptors: Vec<Owned>,
    /// More descriptors came than were wanted, or than this process could have.
    pub lost: bool,
}

/// A process of a PID namespace that this one does not see has no number here: 0.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn credentials(of: libc::ucred) -> Credentials {
    let pid = u32::try_from(of.pid).ok().filter(|pid| *pid != 0);
    Credentials { pid, uid: of.uid, gid: of.gid }
}

#[cfg(unix)]
mod here {
    use std::mem;
    use std::os::fd::AsRawFd;

    use libc::{c_int, c_uint};
    use socket2::{Domain, Socket, Type};

    use super::super::datagram::read;
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    use super::super::sockopt;
    use super::super::unix::{LINUX, NO_SIGPIPE, check, check_int, flags};
    use super::*;

    const EACH: usize = mem::size_of::<c_int>();

    /// What the kernel may put beside descriptors, if a program asked for it through a descriptor
    /// of the socket: credentials, a security label, a process.
    const OTHERS: usize = 128;

    /// Elsewhere descriptors that did not fit have been lost without being closed, so there
    /// is room for all that a sender can send.
    const MORE_THAN_SENT: usize = 512;

    /// Room for control messages.
    #[repr(C, align(8))]
    struct Control([u8; OTHERS + 64 + MORE_THAN_SENT * EACH]);

    /// Linux: recvmsg returns the length that the packet had.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const WHOLE_LENGTH: c_int = libc::MSG_TRUNC;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const WHOLE_LENGTH: c_int = 0;

    /// Another thread's fork and exec must not find them open.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    const CLOSE_ON_EXEC: c_int = libc::MSG_CMSG_CLOEXEC;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    const CLOSE_ON_EXEC: c_int = 0;

    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    fn close_on_exec(_fd: c_int) {}

    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    fn close_on_exec(fd: c_int) {
        // SAFETY: no memory is passed. It fails only for what is not open.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }

    fn space(count: usize) -> usize {
        // SAFETY: it only counts.
        unsafe { libc::CMSG_SPACE((count * EACH) as c_uint) as usize }
    }

    /// Sends bytes and descriptors in one message, to the peer or to a name. What the kernel
    /// took of the bytes it took with all descriptors.
    pub(crate) fn send_with_rights(
        socket: Borrowed<'_>,
        bytes: &[u8],
        to: Option<&SockAddr>,
        descriptors: &[Borrowed<'_>],
        wait: Wait,
    ) -> io::Result<usize> {
        if descriptors.len() > RIGHTS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut control = Control([0; size_of::<Control>()]);
        let mut slice =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: an all-zero msghdr is a valid, empty one.
        let mut msg: libc::msghdr = unsafe { mem::zeroed() };
        if let Some(to) = to {
            msg.msg_name = to.as_ptr().cast_mut().cast();
            msg.msg_namelen = to.len();
        }
        msg.msg_iov = &raw mut slice;
        msg.msg_iovlen = 1;
        if !descriptors.is_empty() {
            msg.msg_control = control.0.as_mut_ptr().cast();
            msg.msg_controllen = space(descriptors.len()) as _;
            // SAFETY: the buffer has room for one message of that many numbers, and is aligned
            // as a header is.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const msg);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN((descriptors.len() * EACH) as c_uint) as _;
                let data = libc::CMSG_DATA(header).cast::<c_int>();
                for (i, descriptor) in descriptors.iter().enumerate() {
                    data.add(i).write_unaligned(descriptor.as_raw_fd());
                }
            }
        }
        let flags = flags(wait) | NO_SIGPIPE;
        // SAFETY: msg describes buffers and a name that outlive the call.
        check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const msg, flags) })
    }

    /// Receives bytes, and at most `max` of the descriptors that came with them; the others
    /// are closed. `details`: what else was asked for is told.
    pub(crate) fn recv_with_rights(
        socket: Borrowed<'_>,
        buf: &mut [u8],
        max: usize,
        details: bool,
        wait: Wait,
    ) -> io::Result<Passed> {
        let max = max.min(RIGHTS_MAX);
        let mut name = mem::MaybeUninit::<libc::sockaddr_storage>::uninit();
        let mut control = Control([0; size_of::<Control>()]);
        let mut slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: an all-zero msghdr is a valid, empty one.
        let mut msg: libc::msghdr = unsafe { mem::zeroed() };
        msg.msg_name = name.as_mut_ptr().cast();
        msg.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
        msg.msg_iov = &raw mut slice;
        msg.msg_iovlen = 1;
        // Without a control buffer the kernel closes what came.
        if max > 0 || details {
            let room = if LINUX { OTHERS + space(max) } else { control.0.len() };
            msg.msg_control = control.0.as_mut_ptr().cast();
            msg.msg_controllen = room as _;
        }
        let flags = flags(wait) | CLOSE_ON_EXEC | WHOLE_LENGTH;
        // SAFETY: msg describes buffers that outlive the call.
        let len = check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) })?;
        let mut passed = Passed {
            // What was asked for through a descriptor of the socket, and not descriptors, may be
            // cut, too; then this is told in vain.
            lost: msg.msg_flags & libc::MSG_CTRUNC != 0,
            ..Passed::default()
        };
        // SAFETY: the kernel has filled what msg describes.
        unsafe {
            let Passed { received, descriptors, .. } = &mut passed;
            read(&msg, len, buf.len(), Some(descriptors), received);
        }
        for descriptor in &passed.descriptors {
            close_on_exec(descriptor.as_raw_fd());
        }
        if passed.descriptors.len() > max {
            passed.descriptors.truncate(max);
            passed.lost = true;
        }
        Ok(passed)
    }

    /// A socket for packets in order, non-blocking and close-on-exec from the start. macOS has
    /// none.
    pub(crate) fn packet_socket() -> io::Result<Owned> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    /// Before bind(2): the mode that the socket's file is made with, where the system heeds it
    /// (Linux, unix(7)); it takes the umask off.
    pub(crate) fn narrow_socket(socket: Borrowed<'_>, mode: u32) {
        // Elsewhere there is EINVAL, and the file gets its mode afterwards.
        // SAFETY: no memory is passed.
        unsafe { libc::fchmod(socket.as_raw_fd(), mode as libc::mode_t) };
    }

    /// Gives the file of a socket its owner and mode. Whoever may write to its directory could
    /// have put something else in its place, which is left alone.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn set_socket_file(path: &Path, wanted: UnixFile) -> io::Result<()> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
        if wanted == UnixFile::default() {
            return Ok(());
        }
        // open(2): O_PATH is the file itself, not to be read or written.
        let itself = libc::O_PATH | libc::O_NOFOLLOW;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(itself).open(path)?;
        if !file.metadata()?.file_type().is_socket() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (fd, none) = (file.as_raw_fd(), c"".as_ptr());
        if wanted.uid.is_some() || wanted.gid.is_some() {
            // chown(2): -1 leaves it.
            let (uid, gid) = (wanted.uid.unwrap_or(u32::MAX), wanted.gid.unwrap_or(u32::MAX));
            // SAFETY: the name is NUL-terminated.
            check_int(unsafe { libc::fchownat(fd, none, uid, gid, libc::AT_EMPTY_PATH) })?;
        }
        match wanted.mode {
            Some(mode) if file.metadata()?.mode() & 0o7777 != mode => {
                // fchmod(2) refuses O_PATH; the file has a name in /proc, though.
                let name = format!("/proc/self/fd/{fd}");
                let set = std::fs::set_permissions(name, std::fs::Permissions::from_mode(mode));
                match set {
                    // Without /proc: fchmodat2(2), Linux 6.6; the number is the same on all but MIPS
                    // and Alpha.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        let (fchmodat2, empty): (libc::c_long, _) = (452, libc::AT_EMPTY_PATH);
                        // SAFETY: the name is NUL-terminated.
                        let set = unsafe { libc::syscall(fchmodat2, fd, none, mode, empty) };
                        check(set as isize).map(|_| ())
                    }
                    set => set,
                }
            }
            _ => Ok(()),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn set_socket_file(path: &Path, wanted: UnixFile) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let (at, itself) = (libc::AT_FDCWD, libc::AT_SYMLINK_NOFOLLOW);
        if wanted.uid.is_some() || wanted.gid.is_some() {
            // chown(2): -1 leaves it.
            let (uid, gid) = (wanted.uid.unwrap_or(u32::MAX), wanted.gid.unwrap_or(u32::MAX));
            // SAFETY: the name is NUL-terminated.
            check_int(unsafe { libc::fchownat(at, name.as_ptr(), uid, gid, itself) })?;
        }
        if let Some(mode) = wanted.mode {
            // SAFETY: the name is NUL-terminated.
            check_int(unsafe { libc::fchmodat(at, name.as_ptr(), mode as libc::mode_t, itself) })?;
        }
        Ok(())
    }

    /// Who the peer was when it connected, or began to listen (SO_PEERCRED of unix(7)).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn peer_credentials(socket: Borrowed<'_>) -> io::Result<Credentials> {
        // SAFETY: a structure of integers.
        let (peer, _) = unsafe { sockopt::get(socket, libc::SOL_SOCKET, libc::SO_PEERCRED) }?;
        Ok(credentials(peer))
    }

    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    pub(crate) fn peer_credentials(socket: Borrowed<'_>) -> io::Result<Credentials> {
        let (mut uid, mut gid) = (0, 0);
        // SAFETY: both are written through their pointers.
        check_int(unsafe { libc::getpeereid(socket.as_raw_fd(), &raw mut uid, &raw mut gid) })?;
        #[cfg(target_vendor = "apple")]
        // SAFETY: an int.
        let pid = unsafe { sockopt::get::<c_int>(socket, libc::SOL_LOCAL, libc::LOCAL_PEERPID) }
            .ok()
            .and_then(|(pid, _)| u32::try_from(pid).ok())
            .filter(|pid| *pid != 0);
        #[cfg(not(target_vendor = "apple"))]
        let pid = None;
        Ok(Credentials { pid, uid, gid })
    }

    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd"
    )))]
    pub(crate) fn peer_credentials(_socket: Borrowed<'_>) -> io::Result<Credentials> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(windows)]
mod here {
    use super::*;

    pub(crate) fn send_with_rights(
        _socket: Borrowed<'_>,
        _bytes: &[u8],
        _to: Option<&SockAddr>,
        _descriptors: &[Borrowed<'_>],
        _wait: Wait,
    ) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn recv_with_rights(
        _socket: Borrowed<'_>,
        _buf: &mut [u8],
        _max: usize,
        _details: bool,
        _wait: Wait,
    ) -> io::Result<Passed> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn packet_socket() -> io::Result<Owned> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn narrow_socket(_socket: Borrowed<'_>, _mode: u32) {}

    pub(crate) fn set_socket_file(_path: &Path, _wanted: UnixFile) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn peer_credentials(_socket: Borrowed<'_>) -> io::Result<Credentials> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(crate) use here::*;
