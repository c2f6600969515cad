//! Features of Unix sockets only: descriptors that travel with bytes (SCM_RIGHTS of unix(7)), peer
//! credentials, SOCK_SEQPACKET, the mode and owner of a socket file. The functions take names, so
//! that sockets without a peer can use them.

use std::io;
use std::path::Path;

use socket2::SockAddr;

use super::{Borrowed, Owned, Received, Wait};
use crate::types::credentials::{Credentials, UnixFile};

/// SCM_MAX_FD of unix(7): the number of descriptors that one message may carry. FreeBSD and macOS
/// carry some more.
pub(crate) const RIGHTS_MAX: usize = 253;

/// A received message.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// The sender's address and the flags of the message.
    pub received: Received,
    /// The descriptors, with close-on-exec set.
    pub descriptors: Vec<Owned>,
    /// The message carried more descriptors than the caller accepts, or than this process may have.
    pub truncated: bool,
}

#[cfg(unix)]
mod here {
    use std::mem;
    use std::os::fd::AsRawFd;

    use libc::{c_int, c_uint};
    use socket2::{Domain, Socket, Type};

    use super::super::ancillary::read;
    #[cfg(keepsock_linux)]
    use super::super::convert::credentials;
    use super::super::errno::{check, check_int};
    #[cfg(any(keepsock_linux, keepsock_kqueue))]
    use super::super::sockopt;
    use super::super::unix::{NO_SIGPIPE, flags};
    #[cfg(keepsock_linux)]
    use super::super::unix::{is_out_of_descriptors, is_out_of_memory};
    use super::*;
    use crate::sys::kernel;

    /// sys/un.h.
    #[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
    const SOL_LOCAL: c_int = 0;

    const EACH: usize = mem::size_of::<c_int>();

    /// Space for control messages other than descriptors.
    const OTHERS: usize = 256;

    /// Systems other than Linux have leaked descriptors that did not fit, so there is space for all
    /// descriptors that a sender can send.
    const MORE_THAN_SENT: usize = 512;

    /// A buffer for control messages.
    #[repr(C, align(8))]
    struct Control([u8; OTHERS + MORE_THAN_SENT * EACH]);

    /// Linux: recvmsg returns the original length of the packet.
    #[cfg(keepsock_linux)]
    const WHOLE_LENGTH: c_int = libc::MSG_TRUNC;
    #[cfg(not(keepsock_linux))]
    const WHOLE_LENGTH: c_int = 0;

    /// Programs that another thread starts must not inherit them.
    #[cfg(any(keepsock_linux, target_os = "freebsd"))]
    const CLOSE_ON_EXEC: c_int = libc::MSG_CMSG_CLOEXEC;
    #[cfg(not(any(keepsock_linux, target_os = "freebsd")))]
    const CLOSE_ON_EXEC: c_int = 0;

    #[cfg(any(keepsock_linux, target_os = "freebsd"))]
    fn close_on_exec(_fd: c_int) {}

    #[cfg(not(any(keepsock_linux, target_os = "freebsd")))]
    fn close_on_exec(fd: c_int) {
        // SAFETY: F_SETFD takes no pointer. It fails only for a closed number.
        unsafe { kernel::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }

    fn space(size: usize) -> usize {
        // SAFETY: CMSG_LEN only computes a size.
        unsafe { libc::CMSG_SPACE(size as c_uint) as usize }
    }

    /// The size of a control buffer for at most `max` descriptors: the kernel installs as many
    /// descriptors as fit into the table of this process, and closes the others. It writes the control
    /// messages that the options of the socket request before them (time, credentials, security
    /// label), including options that the program set on the descriptor.
    #[cfg(keepsock_linux)]
    fn room(socket: Borrowed<'_>, max: usize, control: usize) -> usize {
        if max == 0 {
            return control;
        }
        const BEFORE: [(c_int, usize); 4] = [
            (libc::SO_TIMESTAMP, size_of::<libc::timeval>()),
            (libc::SO_TIMESTAMPNS, size_of::<libc::timespec>()),
            (libc::SO_PASSCRED, size_of::<libc::ucred>()),
            (libc::SO_PASSSEC, 64),
        ];
        let requested = |name: c_int| {
            // SAFETY: getsockopt writes one int.
            let on = unsafe { sockopt::get::<c_int>(socket, libc::SOL_SOCKET, name) };
            on.is_ok_and(|(on, _)| on != 0)
        };
        let before = BEFORE.into_iter().filter(|(name, _)| requested(*name));
        let before = before.map(|(_, size)| space(size)).sum::<usize>();
        // 32-bit systems also have SO_TIMESTAMP_NEW and SO_TIMESTAMPNS_NEW of asm-generic/socket.h, with
        // two numbers of 64 bits. The kernel reports both of them while the second one is on.
        let has_long_time =
            cfg!(target_pointer_width = "32") && [63, 64].into_iter().any(requested);
        let before = before + if has_long_time { space(16) } else { 0 };
        // SAFETY: CMSG_LEN only computes a size. CMSG_SPACE has room for one descriptor more if max
        // is odd.
        let descriptors = unsafe { libc::CMSG_LEN((max * EACH) as c_uint) } as usize;
        before + descriptors
    }

    #[cfg(not(keepsock_linux))]
    fn room(_: Borrowed<'_>, max: usize, control: usize) -> usize {
        if max > 0 || control > 0 { size_of::<Control>() } else { 0 }
    }

    /// Sends bytes and descriptors in one message, to the peer or to a name. If the kernel accepts
    /// any of the bytes, it accepts all descriptors with them.
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
        // SAFETY: msghdr consists of integers and pointers; all zeros are an empty message.
        let mut msg: libc::msghdr = unsafe { mem::zeroed() };
        if let Some(to) = to {
            msg.msg_name = to.as_ptr().cast_mut().cast();
            msg.msg_namelen = to.len();
        }
        msg.msg_iov = &raw mut slice;
        msg.msg_iovlen = 1;
        if !descriptors.is_empty() {
            msg.msg_control = control.0.as_mut_ptr().cast();
            msg.msg_controllen = space(descriptors.len() * EACH) as _;
            // SAFETY: the buffer has space for one message of that many numbers, and is aligned
            // for a header.
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
        check(unsafe { kernel::sendmsg(socket.as_raw_fd(), &raw const msg, flags) })
    }

    /// Receives bytes, and at most `max` of the descriptors that travel with them. The kernel closes
    /// the others. `control` is the space for the other control messages that the socket requests.
    pub(crate) fn recv_with_rights(
        socket: Borrowed<'_>,
        buf: &mut [u8],
        max: usize,
        control: usize,
        wait: Wait,
    ) -> io::Result<Passed> {
        let max = max.min(RIGHTS_MAX);
        let mut name = mem::MaybeUninit::<libc::sockaddr_storage>::uninit();
        let room = room(socket, max, control);
        let mut control = Control([0; size_of::<Control>()]);
        let mut slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: msghdr consists of integers and pointers; all zeros are an empty message.
        let mut msg: libc::msghdr = unsafe { mem::zeroed() };
        msg.msg_name = name.as_mut_ptr().cast();
        msg.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
        msg.msg_iov = &raw mut slice;
        msg.msg_iovlen = 1;
        // Without a control buffer the kernel closes all descriptors.
        if room > 0 {
            msg.msg_control = control.0.as_mut_ptr().cast();
            msg.msg_controllen = room.min(control.0.len()) as _;
        }
        let flags = flags(wait) | CLOSE_ON_EXEC | WHOLE_LENGTH;
        // SAFETY: msg describes buffers that outlive the call.
        let len = check(unsafe { kernel::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) })?;
        let mut passed = Passed {
            // Control messages that the program requested through the descriptor may be truncated
            // as well. The flag is then set although no descriptor was lost.
            truncated: msg.msg_flags & libc::MSG_CTRUNC != 0,
            ..Passed::default()
        };
        // SAFETY: recvmsg filled the control buffer that msg describes.
        unsafe {
            let Passed { received, descriptors, .. } = &mut passed;
            read(&msg, len, buf.len(), Some(descriptors), received);
        }
        for descriptor in &passed.descriptors {
            close_on_exec(descriptor.as_raw_fd());
        }
        if passed.descriptors.len() > max {
            passed.descriptors.truncate(max);
            passed.truncated = true;
        }
        Ok(passed)
    }

    /// A SOCK_SEQPACKET socket, created non-blocking and close-on-exec. macOS does not support it.
    pub(crate) fn packet_socket() -> io::Result<Owned> {
        let socket = kernel::call("socket", || Socket::new(Domain::UNIX, Type::SEQPACKET, None))?;
        kernel::call("fcntl", || socket.set_nonblocking(true))?;
        Ok(socket.into())
    }

    /// Sets the mode of the socket's file before bind(2), where the system supports that (Linux,
    /// unix(7)). The kernel applies the umask.
    pub(crate) fn narrow_socket(socket: Borrowed<'_>, mode: u32) {
        // Other systems return EINVAL, and the file gets its mode after bind(2).
        // SAFETY: fchmod takes no pointer.
        unsafe { kernel::fchmod(socket.as_raw_fd(), mode as libc::mode_t) };
    }

    /// Opens the file of a bound socket with O_PATH, which can neither read nor write it.
    ///
    /// Only the kernel knows the file for certain. Another user who can write a directory of the path can
    /// make the path lead to another file at any time. The kernel returns the file only to a process
    /// with CAP_NET_ADMIN in the network namespace, such as root. For another process the function opens
    /// the path. A lack of descriptors is an error, because the path may lead to another file.
    #[cfg(keepsock_linux)]
    fn open_socket_file(socket: Borrowed<'_>, path: &Path) -> io::Result<std::fs::File> {
        use std::os::fd::{FromRawFd, OwnedFd};
        use std::os::unix::ffi::OsStrExt;
        const SIOCUNIXFILE: libc::c_ulong = 0x89e0; // linux/un.h, Linux 4.13; not in libc
        let no_argument = std::ptr::null_mut::<c_int>();
        // SAFETY: the request has no argument, and returns a new descriptor that only this function owns.
        unsafe {
            let file = kernel::ioctl(socket.as_raw_fd(), SIOCUNIXFILE as _, no_argument);
            match check_int(file) {
                Ok(file) => return Ok(OwnedFd::from_raw_fd(file).into()),
                Err(e) if is_out_of_descriptors(&e) || is_out_of_memory(&e) => {
                    return Err(e);
                }
                Err(_) => {}
            }
        }
        // The standard library removes O_PATH from the flags of a program with musl, whose O_ACCMODE
        // contains it.
        let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        loop {
            // SAFETY: the name is NUL-terminated. The descriptor is new, and only this function owns it.
            let opened = unsafe {
                check_int(kernel::openat(libc::AT_FDCWD, name.as_ptr(), flags))
                    .map(|fd| std::fs::File::from(OwnedFd::from_raw_fd(fd)))
            };
            if !opened.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Interrupted) {
                return opened;
            }
        }
    }

    /// The device and inode of the file of a bound socket. An error if the path leads to another kind of
    /// file.
    #[cfg(keepsock_linux)]
    pub(crate) fn socket_file_identity(
        socket: Borrowed<'_>,
        path: &Path,
    ) -> io::Result<(u64, u64)> {
        let file = open_socket_file(socket, path)?;
        let metadata = kernel::call("statx", || file.metadata())?;
        identity_of_socket(&metadata)
    }

    #[cfg(not(keepsock_linux))]
    pub(crate) fn socket_file_identity(_: Borrowed<'_>, path: &Path) -> io::Result<(u64, u64)> {
        let metadata = kernel::call("lstat", || std::fs::symlink_metadata(path))?;
        identity_of_socket(&metadata)
    }

    fn identity_of_socket(metadata: &std::fs::Metadata) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        if metadata.file_type().is_socket() {
            Ok((metadata.dev(), metadata.ino()))
        } else {
            Err(io::ErrorKind::AddrInUse.into())
        }
    }

    /// Sets the owner and mode of a socket's file. Another process that may write to the directory
    /// could have replaced the file; the function leaves a replacement alone.
    #[cfg(keepsock_linux)]
    pub(crate) fn set_socket_file(
        socket: Borrowed<'_>,
        path: &Path,
        wanted: UnixFile,
    ) -> io::Result<()> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
        if wanted == UnixFile::default() {
            return Ok(());
        }
        let file = open_socket_file(socket, path)?;
        let metadata = || kernel::call("statx", || file.metadata());
        if !metadata()?.file_type().is_socket() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (fd, none) = (file.as_raw_fd(), c"".as_ptr());
        if wanted.uid.is_some() || wanted.gid.is_some() {
            // chown(2): -1 leaves the owner or group unchanged.
            let (uid, gid) = (wanted.uid.unwrap_or(u32::MAX), wanted.gid.unwrap_or(u32::MAX));
            // SAFETY: the name is NUL-terminated.
            check_int(unsafe { kernel::fchownat(fd, none, uid, gid, libc::AT_EMPTY_PATH) })?;
        }
        match wanted.mode {
            Some(mode) if metadata()?.mode() & 0o7777 != mode => {
                // fchmod(2) rejects O_PATH descriptors, but chmod(2) works on their name in /proc.
                let name = format!("/proc/self/fd/{fd}");
                let mode_of = std::fs::Permissions::from_mode(mode);
                let set = kernel::call("chmod", || std::fs::set_permissions(name, mode_of));
                match set {
                    // Without /proc: fchmodat2(2), Linux 6.6, which has this number on all
                    // architectures except MIPS and Alpha.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        let (fchmodat2, empty): (libc::c_long, _) = (452, libc::AT_EMPTY_PATH);
                        kernel::call("fchmodat2", || {
                            // SAFETY: the name is NUL-terminated.
                            let set = unsafe { libc::syscall(fchmodat2, fd, none, mode, empty) };
                            check(set as isize).map(|_| ())
                        })
                    }
                    set => set,
                }
            }
            _ => Ok(()),
        }
    }

    #[cfg(not(keepsock_linux))]
    pub(crate) fn set_socket_file(
        _socket: Borrowed<'_>,
        path: &Path,
        wanted: UnixFile,
    ) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let (at, itself) = (libc::AT_FDCWD, libc::AT_SYMLINK_NOFOLLOW);
        if wanted.uid.is_some() || wanted.gid.is_some() {
            // chown(2): -1 leaves the owner or group unchanged.
            let (uid, gid) = (wanted.uid.unwrap_or(u32::MAX), wanted.gid.unwrap_or(u32::MAX));
            // SAFETY: the name is NUL-terminated.
            check_int(unsafe { kernel::fchownat(at, name.as_ptr(), uid, gid, itself) })?;
        }
        if let Some(mode) = wanted.mode {
            // SAFETY: the name is NUL-terminated.
            check_int(unsafe {
                kernel::fchmodat(at, name.as_ptr(), mode as libc::mode_t, itself)
            })?;
        }
        Ok(())
    }

    /// The credentials of the peer when it connected or started to listen (SO_PEERCRED of unix(7)).
    #[cfg(keepsock_linux)]
    pub(crate) fn peer_credentials(socket: Borrowed<'_>) -> io::Result<Credentials> {
        // SAFETY: ucred consists of integers.
        let (peer, _) = unsafe { sockopt::get(socket, libc::SOL_SOCKET, libc::SO_PEERCRED) }?;
        Ok(credentials(peer))
    }

    /// getpeereid(3), and an option of each system for the process.
    #[cfg(keepsock_kqueue)]
    pub(crate) fn peer_credentials(socket: Borrowed<'_>) -> io::Result<Credentials> {
        let (mut uid, mut gid) = (0, 0);
        // SAFETY: getpeereid writes two integers through valid pointers.
        check_int(unsafe { kernel::getpeereid(socket.as_raw_fd(), &raw mut uid, &raw mut gid) })?;
        // SAFETY: getsockopt writes a structure of integers.
        let pid: Option<libc::pid_t> = unsafe {
            #[cfg(target_vendor = "apple")]
            let pid = sockopt::get::<c_int>(socket, libc::SOL_LOCAL, libc::LOCAL_PEERPID);
            // Since FreeBSD 13; earlier systems write 0.
            #[cfg(target_os = "freebsd")]
            let pid = sockopt::get::<libc::xucred>(socket, SOL_LOCAL, libc::LOCAL_PEERCRED)
                .map(|(peer, len)| (peer.cr_pid__c_anonymous_union.cr_pid, len));
            #[cfg(target_os = "netbsd")]
            let pid = sockopt::get::<libc::unpcbid>(socket, SOL_LOCAL, libc::LOCAL_PEEREID)
                .map(|(peer, len)| (peer.unp_pid, len));
            #[cfg(target_os = "openbsd")]
            let pid =
                sockopt::get::<libc::sockpeercred>(socket, libc::SOL_SOCKET, libc::SO_PEERCRED)
                    .map(|(peer, len)| (peer.pid, len));
            #[cfg(target_os = "dragonfly")]
            let pid: io::Result<(libc::pid_t, usize)> = Ok((0, 0));
            pid.ok().map(|(pid, _)| pid)
        };
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        Ok(Credentials { pid, uid, gid })
    }

    #[cfg(target_os = "illumos")]
    pub(crate) fn peer_credentials(socket: Borrowed<'_>) -> io::Result<Credentials> {
        unsafe extern "C" {
            // ucred.h; the libc crate does not declare it.
            fn ucred_getpid(ucred: *const libc::ucred_t) -> libc::pid_t;
        }
        let mut peer = std::ptr::null_mut();
        // SAFETY: getpeerucred allocates the structure, which is freed once, after its last use.
        unsafe {
            check_int(kernel::getpeerucred(socket.as_raw_fd(), &raw mut peer))?;
            let (uid, gid) = (kernel::ucred_geteuid(peer), kernel::ucred_getegid(peer));
            let pid = u32::try_from(ucred_getpid(peer)).ok();
            kernel::ucred_free(peer);
            Ok(Credentials { pid, uid, gid })
        }
    }

    #[cfg(not(any(keepsock_linux, keepsock_kqueue, target_os = "illumos")))]
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
        _control: usize,
        _wait: Wait,
    ) -> io::Result<Passed> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn packet_socket() -> io::Result<Owned> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn narrow_socket(_socket: Borrowed<'_>, _mode: u32) {}

    pub(crate) fn socket_file_identity(_: Borrowed<'_>, _: &Path) -> io::Result<(u64, u64)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_socket_file(
        _socket: Borrowed<'_>,
        _path: &Path,
        _wanted: UnixFile,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn peer_credentials(_socket: Borrowed<'_>) -> io::Result<Credentials> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(crate) use here::*;
