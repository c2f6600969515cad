//! Linux, macOS, FreeBSD and other Unix systems. The parts for Linux alone have `cfg(keepsock_linux)`.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
#[cfg(keepsock_linux)]
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
#[cfg(keepsock_linux)]
use std::os::fd::{FromRawFd, IntoRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use crate::sys::SockRef;
use libc::c_int;
use socket2::{Domain, SockAddr, Socket, Type};

use super::errno::check_int;
#[cfg(all(keepsock_linux, keepsock_tsan))]
use super::intercepted::enter;
use super::{
    CancellationDisabled, ConnectionKind, Interest, Lookup, LookupError, Ready, Wait, Woken,
    poll_ms,
};
use crate::sys::kernel;
use crate::types::address::{Address, Family};
use crate::types::endpoint::{Endpoint, Target, UNIX_PATH_MAX};
use crate::types::keepalive::Keepalive;

pub(crate) type Owned = OwnedFd;
pub(crate) type Borrowed<'a> = BorrowedFd<'a>;

pub(super) const LINUX: bool = cfg!(keepsock_linux);
/// Measured on Linux: shutdown wakes accept, recv, send and connect. Other systems cannot shut down
/// a socket without a peer, such as a listener (ENOTCONN): an event wakes its polls.
pub(crate) const BLOCKING_CALLS: bool = LINUX;
pub(crate) const MAX_WAIT: Option<Duration> = None;
pub(crate) const ACCEPT_INHERITS: bool = LINUX;
/// poll(2) with POLLRDHUP (Linux 2.6.17, FreeBSD 13, illumos), or kqueue(2).
pub(crate) const SEES_HANGUP: bool =
    cfg!(any(target_os = "linux", target_os = "android", keepsock_kqueue, target_os = "illumos"));

#[inline]
pub(crate) fn borrow(owned: &Owned) -> Borrowed<'_> {
    owned.as_fd()
}

/// Makes a system call directly. libc's functions prepare for pthread_cancel(3) in each call, which
/// costs more than the rest of the call, and a cancellation would unwind through Rust frames, which
/// do not permit that. A call made here is not a cancellation point.
///
/// # Safety
/// The same requirements as the system call.
#[cfg(keepsock_linux)]
#[inline(always)]
#[cfg_attr(feature = "failpoints", track_caller)]
pub(super) unsafe fn syscall(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    #[cfg(all(feature = "failpoints", target_env = "gnu"))]
    // SAFETY: the caller keeps the call's requirements.
    return kernel::direct(number, arguments, |arguments| unsafe { enter(number, arguments) });
    #[cfg(not(all(feature = "failpoints", target_env = "gnu")))]
    // SAFETY: the caller keeps the call's requirements.
    unsafe {
        enter(number, arguments)
    }
}

/// # Safety
/// The same requirements as the system call.
#[cfg(all(keepsock_linux, not(keepsock_tsan)))]
#[inline(always)]
unsafe fn enter(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    {
        let result: isize;
        // SAFETY: the caller keeps the call's requirements. The kernel changes rax, rcx and r11 and
        // no other register (syscall(2), "Architecture calling conventions").
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") number as isize => result,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        if result < 0 { Err(failed(result)) } else { Ok(result as usize) }
    }
    #[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
    // SAFETY: the caller keeps the call's requirements.
    super::errno::check(unsafe { libc::syscall(number, a, b, c, d, e, f) } as isize)
}

/// The kernel returns an error number as a negative result.
#[cfg(all(
    keepsock_linux,
    not(keepsock_tsan),
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
#[cold]
#[inline(never)]
fn failed(result: isize) -> io::Error {
    io::Error::from_raw_os_error(-result as c_int)
}

/// Closes a descriptor. The caller can do nothing about an error of close(2), so it is ignored.
#[cfg(all(keepsock_linux, not(keepsock_tsan)))]
#[inline]
pub(super) fn close(owned: Owned) {
    // SAFETY: this function owns the descriptor, which no other code uses afterwards.
    let _ = unsafe { syscall(libc::SYS_close, [owned.into_raw_fd() as usize, 0, 0, 0, 0, 0]) };
}

#[cfg(any(not(keepsock_linux), keepsock_tsan))]
pub(super) fn close(owned: Owned) {
    // The C library's close(2) is a cancellation point.
    let _disabled = CancellationDisabled::new();
    drop(owned);
}

// ---- creating, connecting, accepting -----------------------------------------------

/// Whether the descriptor is a datagram socket of IP, or of Unix.
#[cfg(any(feature = "datagram", feature = "activation"))]
pub(crate) fn is_datagram(socket: Borrowed<'_>) -> io::Result<bool> {
    let socket = SockRef::from(&socket);
    let name = socket.local_addr()?;
    let known = name.as_socket().is_some() || name.family() == libc::AF_UNIX as libc::sa_family_t;
    if !known || socket.r#type()? != Type::DGRAM {
        return Ok(false);
    }
    // icmp(7): "ping sockets" are datagram sockets of another protocol.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    if name.as_socket().is_some() {
        return Ok(socket.protocol()? == Some(socket2::Protocol::UDP));
    }
    Ok(true)
}

/// Creates a datagram socket in blocking mode, close-on-exec.
pub(crate) fn datagram_socket(domain: Domain) -> io::Result<Owned> {
    Ok(kernel::call("socket", || Socket::new(domain, Type::DGRAM, None))?.into())
}

/// No other socket can take the port of a datagram socket on a Unix system.
#[cfg(feature = "datagram")]
pub(crate) fn keep_port(_: Borrowed<'_>) -> io::Result<()> {
    Ok(())
}

/// Creates a stream socket, non-blocking and close-on-exec.
pub(crate) fn stream_socket(domain: Domain, mptcp: bool) -> io::Result<Owned> {
    #[cfg(keepsock_linux)]
    let protocol = mptcp.then(|| super::tcp::MPTCP.into());
    #[cfg(not(keepsock_linux))]
    let protocol = if mptcp { return Err(io::ErrorKind::Unsupported.into()) } else { None };
    #[cfg(any(keepsock_linux, keepsock_accept4))]
    let socket = kernel::call("socket", || {
        Socket::new_raw(domain, Type::STREAM.nonblocking().cloexec(), protocol)
    })?;
    #[cfg(not(any(keepsock_linux, keepsock_accept4)))]
    let socket = {
        let socket = kernel::call("socket", || Socket::new(domain, Type::STREAM, protocol))?;
        socket.set_nonblocking(true)?;
        socket
    };
    Ok(socket.into())
}

/// Starts connecting a non-blocking socket. Returns true if it is connected already.
pub(crate) fn connect(socket: Borrowed<'_>, to: &SockAddr) -> io::Result<bool> {
    match SockRef::from(&socket).connect(to) {
        Ok(()) => Ok(true),
        // connect(2): after EINTR the handshake continues, as after EINPROGRESS.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes one connection from the listener's queue, with one system call.
#[cfg(keepsock_linux)]
#[inline]
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn accept(listener: Borrowed<'_>) -> io::Result<(Owned, Address)> {
    #[cfg(all(test, keepsock_model))]
    poll_all(&mut [entry(listener, libc::POLLIN)], None)?;
    let mut name = mem::MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // A debug build calls libc's function, which tests replace with a failing one.
    #[cfg(debug_assertions)]
    let fd = {
        let _disabled = CancellationDisabled::new();
        let to = name.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most `len` bytes of the name, and then its length into len.
        check_int(unsafe {
            kernel::accept4(listener.as_raw_fd(), to, &raw mut len, libc::SOCK_CLOEXEC)
        })?
    };
    #[cfg(not(debug_assertions))]
    let fd = {
        let to = name.as_mut_ptr().expose_provenance();
        let room = (&raw mut len).expose_provenance();
        let fd = listener.as_raw_fd() as usize;
        // SAFETY: the kernel writes at most `len` bytes of the name, and then its length into len.
        unsafe { syscall(libc::SYS_accept4, [fd, to, room, libc::SOCK_CLOEXEC as usize, 0, 0]) }?
    };
    // SAFETY: the kernel returned a new descriptor that only this function owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // SAFETY: the kernel wrote `len` bytes of the name.
    Ok((socket, unsafe { address_of_peer(name.as_ptr(), len) }))
}

/// # Safety
/// `name` has `len` bytes of an address that the kernel wrote.
#[cfg(keepsock_linux)]
#[inline(always)]
unsafe fn address_of_peer(name: *const libc::sockaddr_storage, len: libc::socklen_t) -> Address {
    let inet = name.cast::<libc::sockaddr_in>();
    // SAFETY: every name starts with its family; a name of AF_INET is a sockaddr_in. An unnamed Unix
    // peer has a family only.
    unsafe {
        if len as usize >= mem::size_of::<libc::sockaddr_in>()
            && (*inet).sin_family == libc::AF_INET as libc::sa_family_t
        {
            let ip = Ipv4Addr::from_bits(u32::from_be((*inet).sin_addr.s_addr));
            Address::Inet(SocketAddrV4::new(ip, u16::from_be((*inet).sin_port)).into())
        } else {
            other_address(name.cast(), len)
        }
    }
}

/// Accepts with accept(2) and sets close-on-exec afterwards, if `err` is that of a sandbox that knows no
/// accept4(2). Otherwise `err` is the result.
#[cfg(keepsock_linux)]
#[cold]
pub(crate) fn accept_without_flags(
    listener: Borrowed<'_>,
    err: io::Error,
) -> io::Result<(Owned, Address)> {
    if err.raw_os_error() != Some(libc::ENOSYS) {
        return Err(err);
    }
    let mut name = mem::MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let _disabled = CancellationDisabled::new();
    let socket = kernel::call("accept", || {
        let to = name.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most `len` bytes of the name, and then its length into len.
        // The descriptor is new, and only this function owns it.
        unsafe {
            let fd = check_int(libc::accept(listener.as_raw_fd(), to, &raw mut len))?;
            Ok(OwnedFd::from_raw_fd(fd))
        }
    })?;
    // SAFETY: no memory is passed.
    check_int(unsafe { kernel::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the kernel wrote `len` bytes of the name.
    Ok((socket, unsafe { address_of_peer(name.as_ptr(), len) }))
}

/// These systems have no other function.
#[cfg(not(keepsock_linux))]
pub(crate) fn accept_without_flags(
    _: Borrowed<'_>,
    err: io::Error,
) -> io::Result<(Owned, Address)> {
    Err(err)
}

/// # Safety
/// The same requirements as [`copy_name`].
#[cfg(keepsock_linux)]
#[inline(never)]
unsafe fn other_address(name: *const libc::sockaddr, len: libc::socklen_t) -> Address {
    // SAFETY: the caller keeps the requirements of copy_name.
    unsafe { copy_name(name, len) }.map_or(Address::UnixUnnamed, |name| to_address(&name))
}

/// Takes one connection from the listener's queue, with one system call.
#[cfg(keepsock_accept4)]
pub(crate) fn accept(listener: Borrowed<'_>) -> io::Result<(Owned, Address)> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most `len` bytes of the name, and then its length into len.
    let (fd, from) = unsafe {
        SockAddr::try_init(|name, len| {
            check_int(kernel::accept4(listener.as_raw_fd(), name.cast(), len, flags))
        })
    }?;
    // SAFETY: the kernel returned a new descriptor that only this function owns.
    let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    Ok((socket, to_address(&from)))
}

/// Takes one connection from the listener's queue. On macOS it inherits non-blocking mode, on other
/// systems it does not.
#[cfg(not(any(keepsock_linux, keepsock_accept4)))]
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn accept(listener: Borrowed<'_>) -> io::Result<(Owned, Address)> {
    let (socket, from) = SockRef::from(&listener).accept()?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), to_address(&from)))
}

/// One system call, where fcntl would take two.
pub(crate) fn set_nonblocking(socket: Borrowed<'_>, on: bool) -> io::Result<()> {
    let mut value = c_int::from(on);
    // SAFETY: FIONBIO reads an int through the pointer.
    check_int(unsafe { kernel::ioctl(socket.as_raw_fd(), libc::FIONBIO, &raw mut value) })?;
    Ok(())
}

/// Wakes every call that waits on the socket, in any thread.
pub(crate) fn wake(socket: Borrowed<'_>) {
    // Fails without a connection (ENOTCONN): then no call waits.
    // SAFETY: shutdown takes no pointer.
    unsafe { kernel::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Ends every present and future call that waits to receive, in any thread. Sending continues. Linux
/// does so even without a connection (ENOTCONN).
#[cfg(all(feature = "serve", feature = "datagram"))]
pub(crate) fn wake_receivers(socket: Borrowed<'_>) {
    // SAFETY: shutdown takes no pointer.
    unsafe { kernel::shutdown(socket.as_raw_fd(), libc::SHUT_RD) };
}

/// Resets a TCP connection at once, and wakes every call that waits on it, in any thread. Returns
/// false if this system, or this kind of socket, does not support it (some kernels between Linux
/// 6.1 and 6.6 fail while a thread waits).
#[cfg(keepsock_linux)]
pub(crate) fn disconnect(socket: Borrowed<'_>) -> bool {
    // SAFETY: sockaddr consists of integers; all zeros have the family AF_UNSPEC.
    let nobody: libc::sockaddr = unsafe { mem::zeroed() };
    let len = mem::size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: the address outlives the call, and len is its size.
    unsafe { kernel::connect(socket.as_raw_fd(), &raw const nobody, len) == 0 }
}

#[cfg(not(keepsock_linux))]
pub(crate) fn disconnect(_socket: Borrowed<'_>) -> bool {
    false
}

/// Returns the kind of a descriptor for connections: a stream, or a Unix socket for packets.
pub(crate) fn connection_kind(socket: Borrowed<'_>) -> io::Result<Option<ConnectionKind>> {
    let socket = SockRef::from(&socket);
    let kind = socket.r#type()?;
    // SOCK_SEQPACKET of other families (SCTP) has other semantics.
    let packets = kind == Type::SEQPACKET && socket.local_addr()?.is_unix();
    if kind != Type::STREAM && !packets {
        return Ok(None);
    }
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let listens = socket.is_listener()?;
    // Without SO_ACCEPTCONN, a socket with a peer is a connection.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let listens = socket.peer_addr().is_err();
    Ok(Some(ConnectionKind { listens, packets }))
}

/// The number of descriptors that this process may have.
pub(crate) fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    let code = unsafe { kernel::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if code == 0 { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { 0 }
}

/// The number of the descriptor. It estimates how many descriptors are in use, because the kernel
/// assigns the lowest free number.
pub(crate) fn number(socket: &Owned) -> usize {
    usize::try_from(socket.as_raw_fd()).unwrap_or(0)
}

/// Starts a thread that receives no signals, and detaches it.
pub(crate) fn spawn_without_signals(
    builder: super::sync::Builder,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    // SAFETY: sigset_t consists of integers; both calls fill their sets, and the last one stores the
    // previous mask.
    unsafe {
        let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let started = super::spawn_thread(builder, run);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        started.map(drop)
    }
}

// ---- moving bytes --------------------------------------------------------------------

pub(super) fn flags(wait: Wait) -> c_int {
    match wait {
        Wait::Yes => 0,
        Wait::No => libc::MSG_DONTWAIT,
    }
}

/// Receives through the system call itself: libc's recv prepares for pthread_cancel(3) in each call
/// of a program with threads, which costs more than the rest of the call, and a cancellation would
/// unwind through Rust frames, which do not permit that.
#[cfg(keepsock_linux)]
#[inline]
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn recv(socket: Borrowed<'_>, buf: &mut [u8], wait: Wait) -> io::Result<usize> {
    #[cfg(all(test, keepsock_model))]
    if wait == Wait::Yes {
        poll_all(&mut [entry(socket, libc::POLLIN)], None)?;
        return recv(socket, buf, Wait::No);
    }
    let (fd, to, len) = (socket.as_raw_fd(), buf.as_mut_ptr().expose_provenance(), buf.len());
    let arguments = [fd as usize, to, len, flags(wait) as usize, 0, 0];
    // SAFETY: the kernel writes at most buf.len() bytes into buf, and no name.
    unsafe { syscall(libc::SYS_recvfrom, arguments) }
}

#[cfg(not(keepsock_linux))]
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn recv(socket: Borrowed<'_>, buf: &mut [u8], wait: Wait) -> io::Result<usize> {
    // SAFETY: the kernel writes at most buf.len() bytes into buf.
    super::errno::check(unsafe {
        kernel::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags(wait))
    })
}

/// Receives without a wait, and leaves the bytes in the queue.
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn peek(socket: Borrowed<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let flags = flags(Wait::No) | libc::MSG_PEEK;
    let _disabled = super::CancellationDisabled::new();
    // SAFETY: the kernel writes at most buf.len() bytes into buf.
    super::errno::check(unsafe {
        kernel::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags)
    })
}

/// macOS has no MSG_NOSIGNAL; SO_NOSIGPIPE is set when the socket is created.
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGPIPE: c_int = 0;
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGPIPE: c_int = libc::MSG_NOSIGNAL;

/// Makes the system call directly, as [`recv`] does.
#[cfg(keepsock_linux)]
#[inline]
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn send(socket: Borrowed<'_>, buf: &[u8], wait: Wait) -> io::Result<usize> {
    let (fd, flags) = (socket.as_raw_fd(), flags(wait) | NO_SIGPIPE);
    let arguments =
        [fd as usize, buf.as_ptr().expose_provenance(), buf.len(), flags as usize, 0, 0];
    // SAFETY: the kernel reads at most buf.len() bytes from buf, and no name.
    unsafe { syscall(libc::SYS_sendto, arguments) }
}

#[cfg(not(keepsock_linux))]
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn send(socket: Borrowed<'_>, buf: &[u8], wait: Wait) -> io::Result<usize> {
    let flags = flags(wait) | NO_SIGPIPE;
    // SAFETY: the kernel reads at most buf.len() bytes from buf.
    super::errno::check(unsafe {
        kernel::send(socket.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags)
    })
}

/// Makes the system call directly, as [`recv`] does.
///
/// # Safety
/// `msg` describes memory that the kernel may write to.
#[inline]
#[cfg_attr(feature = "failpoints", track_caller)]
unsafe fn recvmsg(socket: Borrowed<'_>, msg: *mut libc::msghdr, flags: c_int) -> io::Result<usize> {
    let fd = socket.as_raw_fd();
    #[cfg(keepsock_linux)]
    {
        let arguments = [fd as usize, msg.expose_provenance(), flags as usize, 0, 0, 0];
        // SAFETY: the caller guarantees writable memory.
        unsafe { syscall(libc::SYS_recvmsg, arguments) }
    }
    #[cfg(not(keepsock_linux))]
    // SAFETY: the caller guarantees writable memory.
    super::errno::check(unsafe { kernel::recvmsg(fd, msg, flags) })
}

/// Makes the system call directly, as [`recv`] does.
///
/// # Safety
/// `msg` describes memory that the kernel may read.
#[inline]
#[cfg_attr(feature = "failpoints", track_caller)]
unsafe fn sendmsg(
    socket: Borrowed<'_>,
    msg: *const libc::msghdr,
    flags: c_int,
) -> io::Result<usize> {
    let fd = socket.as_raw_fd();
    #[cfg(keepsock_linux)]
    {
        let arguments = [fd as usize, msg.expose_provenance(), flags as usize, 0, 0, 0];
        // SAFETY: the caller guarantees readable memory.
        unsafe { syscall(libc::SYS_sendmsg, arguments) }
    }
    #[cfg(not(keepsock_linux))]
    // SAFETY: the caller guarantees readable memory.
    super::errno::check(unsafe { kernel::sendmsg(fd, msg, flags) })
}

/// IOV_MAX: the number of buffers that the kernel accepts in one call.
pub(crate) const SLICES_MAX: usize = 1024;

/// The length of the longest buffer of such a call, which is that of the longest slice.
#[cfg(any(feature = "serve", feature = "capi"))]
pub(crate) const SLICE_LEN_MAX: usize = isize::MAX as usize;

/// The parts as slices for one call.
#[inline(always)]
pub(crate) fn io_slices<'a, const N: usize>(parts: [&'a [u8]; N]) -> [IoSlice<'a>; N] {
    parts.map(IoSlice::new)
}

/// Receives into several buffers with one call. The kernel uses at most SLICES_MAX buffers.
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn recv_slices(
    socket: Borrowed<'_>,
    bufs: &mut [IoSliceMut<'_>],
    wait: Wait,
) -> io::Result<usize> {
    // SAFETY: msghdr consists of integers and pointers; all zeros are an empty message.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    // The standard library guarantees that IoSliceMut has the layout of iovec.
    msg.msg_iov = bufs.as_mut_ptr().cast();
    msg.msg_iovlen = bufs.len().min(SLICES_MAX) as _;
    // SAFETY: msg describes buffers that outlive the call.
    unsafe { recvmsg(socket, &raw mut msg, flags(wait)) }
}

/// Sends several buffers with one call. The kernel uses at most SLICES_MAX buffers.
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn send_slices(
    socket: Borrowed<'_>,
    bufs: &[IoSlice<'_>],
    wait: Wait,
) -> io::Result<usize> {
    // SAFETY: msghdr consists of integers and pointers; all zeros are an empty message.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    // The standard library guarantees that IoSlice has the layout of iovec; sendmsg only reads it.
    msg.msg_iov = bufs.as_ptr().cast_mut().cast();
    msg.msg_iovlen = bufs.len().min(SLICES_MAX) as _;
    let flags = flags(wait) | NO_SIGPIPE;
    // SAFETY: msg describes buffers that outlive the call.
    unsafe { sendmsg(socket, &raw const msg, flags) }
}

/// macOS has no MSG_NOSIGNAL; socket2 sets this on sockets of its own.
pub(crate) fn forbid_sigpipe(socket: Borrowed<'_>) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    SockRef::from(&socket).set_nosigpipe(true)?;
    let _ = socket;
    Ok(())
}

// ---- waiting ---------------------------------------------------------------------------

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "illumos"
))]
const POLLRDHUP: libc::c_short = libc::POLLRDHUP;
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "illumos"
)))]
const POLLRDHUP: libc::c_short = 0;

fn poll_events(interest: Interest) -> libc::c_short {
    match interest {
        Interest::Read => libc::POLLIN,
        Interest::Write => libc::POLLOUT,
        Interest::Hangup => POLLRDHUP,
    }
}

/// One entry of a poll.
fn entry(fd: BorrowedFd<'_>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }
}

/// Calls poll(2). EINVAL means that RLIMIT_NOFILE, which the program may lower after it has opened
/// descriptors, is less than the number of entries: that is a lack of descriptors.
#[cfg_attr(feature = "failpoints", track_caller)]
fn poll_all(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    #[cfg(all(test, keepsock_model))]
    if timeout != Some(Duration::ZERO) {
        return super::model::wait_until(timeout, || {
            poll_all(fds, Some(Duration::ZERO))?;
            Ok(fds.iter().any(|fd| fd.revents != 0))
        });
    }
    // SAFETY: the slice holds that many entries.
    let polled = unsafe { kernel::poll(fds.as_mut_ptr(), fds.len() as _, poll_ms(timeout)) };
    match check_int(polled) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        }
        other => other.map(drop),
    }
}

/// Waits for the socket, the event, or the timeout. The socket is optional. EINTR is returned as an
/// error.
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn poll(
    socket: Option<(Borrowed<'_>, Interest)>,
    event: Option<&Event>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    #[cfg(all(keepsock_kqueue, not(target_os = "freebsd")))]
    if let Some((socket, Interest::Hangup)) = socket {
        return super::kqueue::hangup::wait_hangup(socket, event, timeout);
    }
    // No entry without a socket: each entry counts against RLIMIT_NOFILE.
    let unused = libc::pollfd { fd: -1, events: 0, revents: 0 };
    let mut fds = [unused; 2];
    let mut count = 0;
    if let Some((socket, interest)) = socket {
        fds[0] = entry(socket, poll_events(interest));
        count = 1;
    }
    if let Some(event) = event {
        fds[count] = entry(event.reader(), libc::POLLIN);
        count += 1;
    }
    poll_all(&mut fds[..count], timeout)?;
    let found = if socket.is_some() { fds[0].revents } else { 0 };
    Ok(Ready { socket: found != 0, error: found & libc::POLLERR != 0 })
}

/// Whether a stream has ended in both directions, so that no read or write can wait: reset,
/// failed, or shut down by both sides. Linux and FreeBSD report POLLHUP (poll(2)) in this state only.
pub(crate) fn is_hung_up(socket: Borrowed<'_>) -> bool {
    if !SEES_HANGUP {
        return super::is_gone(socket);
    }
    // Their poll(2) reports POLLHUP for one direction as well.
    #[cfg(all(keepsock_kqueue, not(target_os = "freebsd")))]
    return super::kqueue::hangup::is_hung_up(socket).unwrap_or_else(|_| super::is_gone(socket));
    #[cfg(not(all(keepsock_kqueue, not(target_os = "freebsd"))))]
    is_hung_up_by_poll(socket)
}

#[cfg(not(all(keepsock_kqueue, not(target_os = "freebsd"))))]
fn is_hung_up_by_poll(socket: Borrowed<'_>) -> bool {
    let mut fds = [entry(socket, 0)];
    loop {
        match poll_all(&mut fds, Some(Duration::ZERO)) {
            Ok(()) => return fds[0].revents & libc::POLLHUP != 0,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // With RLIMIT_NOFILE 0, for example, poll(2) always fails.
            Err(_) => return super::is_gone(socket),
        }
    }
}

/// Waits until one of the sockets is ready or holds an error, or one of the events is set.
#[cfg_attr(feature = "failpoints", track_caller)]
pub(crate) fn poll_any(
    sockets: &[Borrowed<'_>],
    interest: Interest,
    events: [Option<&Event>; 2],
    timeout: Option<Duration>,
) -> io::Result<Woken> {
    let wanted = poll_events(interest);
    let mut fds: Vec<_> = sockets.iter().map(|socket| entry(*socket, wanted)).collect();
    fds.extend(events.iter().flatten().map(|event| entry(event.reader(), libc::POLLIN)));
    poll_all(&mut fds, timeout)?;
    let (sockets, set) = fds.split_at(sockets.len());
    let mut set = set.iter();
    let events = events.map(|e| e.is_some() && set.next().is_some_and(|fd| fd.revents != 0));
    let socket = sockets.iter().position(|fd| fd.revents != 0);
    Ok(Woken { socket, events })
}

/// An event that ends a poll: an eventfd on Linux, a socket pair on other systems. It stays set until
/// it is cleared, for any number of waiting threads.
#[derive(Debug)]
pub(crate) struct Event {
    reader: OwnedFd,
    #[cfg(not(keepsock_linux))]
    writer: OwnedFd,
}

impl Event {
    #[cfg(keepsock_linux)]
    pub(crate) fn new() -> io::Result<Event> {
        // SAFETY: eventfd takes no pointer.
        let fd = check_int(unsafe { kernel::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel returned a new descriptor that only this function owns.
        Ok(Event { reader: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    #[cfg(not(keepsock_linux))]
    pub(crate) fn new() -> io::Result<Event> {
        let pair = std::os::unix::net::UnixStream::pair;
        let (reader, writer) = kernel::call("socketpair", pair)?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Event { reader: reader.into(), writer: writer.into() })
    }

    #[cfg(keepsock_linux)]
    fn writer(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    #[cfg(not(keepsock_linux))]
    fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    pub(super) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The descriptor that is readable while the event is set. `None`: the platform has none.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.reader())
    }

    /// Async-signal-safe: one write(2). The caller sets a cleared event only, so the write cannot fail
    /// and errno does not change.
    pub(crate) fn set(&self) {
        let one = 1u64.to_ne_bytes();
        // write(2) is a cancellation point.
        let _disabled = CancellationDisabled::new();
        // SAFETY: the kernel reads eight bytes, as eventfd(2) requires.
        unsafe { kernel::write(self.writer().as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(crate) fn clear(&self) {
        let mut count = [0u8; 8];
        let _disabled = CancellationDisabled::new();
        // SAFETY: the kernel writes at most eight bytes. EAGAIN means that the event was not set, which
        // is the desired state.
        unsafe { kernel::read(self.reader.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

// ---- options -----------------------------------------------------------------------------

/// The effective values; `None` if keepalive is off.
pub(crate) fn keepalive(socket: Borrowed<'_>) -> io::Result<Option<Keepalive>> {
    if SockRef::from(&socket).keepalive()? { keepalive_values(socket).map(Some) } else { Ok(None) }
}

/// The values that the socket has, also while keepalive is off.
#[cfg(not(target_os = "openbsd"))]
pub(crate) fn keepalive_values(socket: Borrowed<'_>) -> io::Result<Keepalive> {
    let socket = SockRef::from(&socket);
    let keepalive = Keepalive::new(
        socket.tcp_keepalive_time()?,
        socket.tcp_keepalive_interval()?,
        socket.tcp_keepalive_retries()?,
    );
    keepalive.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// OpenBSD has one set of values for the whole system (sysctl net.inet.tcp.keepidle and keepintvl).
#[cfg(target_os = "openbsd")]
pub(crate) fn keepalive_values(_: Borrowed<'_>) -> io::Result<Keepalive> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Binds the socket to an interface: the socket uses no other. Since Linux 5.7 every user may do
/// this; before, it required CAP_NET_RAW.
#[cfg(keepsock_linux)]
pub(crate) fn bind_interface(socket: Borrowed<'_>, name: &str, _ipv6: bool) -> io::Result<()> {
    SockRef::from(&socket).bind_device(Some(name.as_bytes()))
}

#[cfg(target_vendor = "apple")]
pub(crate) fn bind_interface(socket: Borrowed<'_>, name: &str, ipv6: bool) -> io::Result<()> {
    let index = zone_index(name).and_then(std::num::NonZeroU32::new);
    let Some(index) = index else {
        return Err(io::Error::from_raw_os_error(libc::ENXIO));
    };
    let socket = SockRef::from(&socket);
    if ipv6 {
        socket.bind_device_by_index_v6(Some(index))
    } else {
        socket.bind_device_by_index_v4(Some(index))
    }
}

#[cfg(not(any(keepsock_linux, target_vendor = "apple")))]
pub(crate) fn bind_interface(_socket: Borrowed<'_>, _name: &str, _ipv6: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the socket uses one interface only, by SO_BINDTODEVICE or IPV6_BOUND_IF, or by the zone of its
/// local address. Linux sets SO_BINDTODEVICE for such an address.
#[cfg(feature = "datagram")]
pub(crate) fn is_bound_to_interface(socket: Borrowed<'_>) -> bool {
    let socket = SockRef::from(&socket);
    #[cfg(keepsock_linux)]
    return socket.device().is_ok_and(|name| name.is_some());
    #[cfg(target_vendor = "apple")]
    if socket.device_index_v6().is_ok_and(|index| index.is_some()) {
        return true;
    }
    #[cfg(not(keepsock_linux))]
    return socket
        .local_addr()
        .is_ok_and(|local| local.as_socket_ipv6().is_some_and(|local| local.scope_id() != 0));
}

/// On Unix SO_REUSEADDR lets a server bind while old connections of its port are in TIME-WAIT. A port
/// with a listener stays in use.
pub(crate) fn prepare_listener(socket: Borrowed<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_reuse_address(true)
}

/// Lets several sockets that do not listen bind to one port, each with a peer of its own.
pub(crate) fn share_port(socket: Borrowed<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_reuse_address(true)
}

/// Leaves the choice of the local port to connect(2), which may choose a port that is in use for
/// other destinations (ip(7), IP_BIND_ADDRESS_NO_PORT, also of IPv6 sockets; Linux 4.2). On a kernel
/// without this option, bind(2) reserves a port for this socket alone.
pub(crate) fn choose_port_late(socket: Borrowed<'_>) -> io::Result<()> {
    #[cfg(keepsock_linux)]
    {
        let on: c_int = 1;
        match super::sockopt::set(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, &on) {
            Err(e) if is_unsupported(&e) => {}
            other => other?,
        }
    }
    let _ = socket;
    Ok(())
}

// ---- names ---------------------------------------------------------------------------------

/// The index of a zone, which is an interface name or a number; `None`: no such interface.
pub(crate) fn zone_index(zone: &str) -> Option<u32> {
    if let Ok(index) = zone.parse() {
        let mut name = [0; libc::IF_NAMESIZE];
        // SAFETY: the buffer has the size that if_indextoname(3) requires.
        let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
        return (!found.is_null()).then_some(index);
    }
    let name = CString::new(zone).ok()?;
    // SAFETY: name is a NUL-terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// netdb.h of illumos, which the libc crate does not declare.
#[cfg(target_os = "illumos")]
const AI_PASSIVE: c_int = 8;
#[cfg(not(target_os = "illumos"))]
use libc::AI_PASSIVE;

/// Calls getaddrinfo(3), which has no timeout. Without a host, it looks up only the service, and the
/// addresses are wildcards.
pub(crate) fn lookup(host: Option<&str>, service: &str, kind: Type, family: Family) -> Lookup {
    let not_found = |what: &str| {
        LookupError::NotFound(format!("{what:?} holds a NUL byte"), Some(libc::EAI_NONAME))
    };
    let node = match host {
        Some(h) => Some(CString::new(h).map_err(|_| not_found(h))?),
        None => None,
    };
    let name = CString::new(service).map_err(|_| not_found(service))?;
    // SAFETY: addrinfo consists of integers and pointers; all zeros mean no hints.
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_socktype = kind.into();
    hints.ai_family = match family {
        Family::Any => libc::AF_UNSPEC,
        Family::Ipv4 => libc::AF_INET,
        Family::Ipv6 => libc::AF_INET6,
    };
    if host.is_none() {
        hints.ai_flags |= AI_PASSIVE;
    }
    let mut list: *mut libc::addrinfo = ptr::null_mut();
    let node_ptr = node.as_ref().map_or(ptr::null(), |n| n.as_ptr());
    // SAFETY: the strings are NUL-terminated or null, hints and list are valid.
    let code =
        unsafe { kernel::getaddrinfo(node_ptr, name.as_ptr(), &raw const hints, &raw mut list) };
    if code != 0 {
        let os_error = io::Error::last_os_error();
        // SAFETY: gai_strerror returns a static string for every code.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
        let text = text.to_string_lossy().to_lowercase();
        return Err(match code {
            libc::EAI_SYSTEM => LookupError::Os(os_error, Some(code)),
            // Debian's glibc gives EAI_NODATA (-5) for a name that exists
            // without an address of the family; its value is not in POSIX.
            libc::EAI_NONAME | libc::EAI_SERVICE | -5 => LookupError::NotFound(text, Some(code)),
            _ => LookupError::Failed(text, Some(code)),
        });
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: next is a node of the list that getaddrinfo returned.
        let info = unsafe { &*next };
        // SAFETY: ai_addr points to ai_addrlen bytes of a socket address.
        let name = unsafe { copy_name(info.ai_addr, info.ai_addrlen) };
        let address = name.ok().and_then(|name| name.as_socket());
        if let Some(address) = address.filter(|a| !found.contains(a)) {
            found.push(address);
        }
        next = info.ai_next;
    }
    // SAFETY: list came from getaddrinfo and is freed once.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

/// # Safety
/// `name` is null or points to `len` readable bytes.
pub(super) unsafe fn copy_name(
    name: *const libc::sockaddr,
    len: libc::socklen_t,
) -> io::Result<SockAddr> {
    if name.is_null() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: no more is copied than the storage holds, and the length is what was copied.
    let copied = unsafe {
        SockAddr::try_init(|storage, size| {
            *size = len.min(*size);
            ptr::copy_nonoverlapping(name.cast::<u8>(), storage.cast::<u8>(), *size as usize);
            Ok(())
        })
    };
    Ok(copied?.1)
}

/// Returns the kernel's form of a Unix endpoint's name.
pub(crate) fn unix_name(endpoint: &Endpoint) -> io::Result<SockAddr> {
    match &endpoint.0 {
        Target::UnixPath(path) => name_of_path(path),
        // unix(7): a leading NUL marks the abstract namespace of Linux.
        Target::UnixAbstract(name) if LINUX => {
            let mut bytes = vec![0];
            bytes.extend_from_slice(name);
            SockAddr::unix(OsStr::from_bytes(&bytes))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// socket2 requires space for a NUL after the path.
fn name_of_path(path: &Path) -> io::Result<SockAddr> {
    let bytes = path.as_os_str().as_bytes();
    if !LINUX || bytes.len() != UNIX_PATH_MAX {
        return SockAddr::unix(path);
    }
    // SAFETY: the storage has space for a sockaddr_un with a path of this length, and the length is
    // the number of bytes written.
    let name = unsafe {
        SockAddr::try_init(|storage, len| {
            let name = storage.cast::<libc::sockaddr_un>();
            (*name).sun_family = libc::AF_UNIX as libc::sa_family_t;
            let path = (&raw mut (*name).sun_path).cast::<u8>();
            path.copy_from_nonoverlapping(bytes.as_ptr(), UNIX_PATH_MAX);
            *len = (mem::offset_of!(libc::sockaddr_un, sun_path) + UNIX_PATH_MAX) as _;
            Ok(())
        })
    };
    Ok(name?.1)
}

/// Returns the path in a Unix socket's name, with or without a final NUL.
fn path_of(name: &SockAddr) -> Option<&Path> {
    const BEFORE: usize = mem::offset_of!(libc::sockaddr_un, sun_path);
    if !name.is_unix() {
        return None;
    }
    let len = (name.len() as usize).min(mem::size_of::<libc::sockaddr_storage>());
    // SAFETY: the path has this many bytes, inside the name's storage.
    let bytes = unsafe {
        let path = name.as_ptr().cast::<u8>().add(BEFORE);
        std::slice::from_raw_parts(path, len.saturating_sub(BEFORE))
    };
    let path = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    (!path.is_empty()).then(|| Path::new(OsStr::from_bytes(path)))
}

/// Returns the path in an address.
#[cfg(feature = "datagram")]
pub(crate) fn name_of_unix(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::UnixPath(path) => name_of_path(path),
        Address::UnixAbstract(name) if LINUX => {
            SockAddr::unix(OsStr::from_bytes(&[&[0], name.as_slice()].concat()))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Lets the kernel choose a name for a Unix socket, so that peers can reply to it: unix(7), "Autobind
/// feature". Other systems have no such feature, and the socket stays unnamed.
#[cfg(feature = "datagram")]
pub(crate) fn autobind(socket: Borrowed<'_>) -> io::Result<()> {
    #[cfg(keepsock_linux)]
    {
        let family = libc::AF_UNIX as libc::sa_family_t;
        let len = mem::size_of_val(&family) as libc::socklen_t;
        // SAFETY: the kernel reads a family only, of the given size.
        check_int(unsafe { kernel::bind(socket.as_raw_fd(), (&raw const family).cast(), len) })?;
    }
    let _ = socket;
    Ok(())
}

/// Converts an address that the kernel returned.
pub(crate) fn to_address(name: &SockAddr) -> Address {
    if let Some(inet) = name.as_socket() {
        return inet.into();
    }
    if let Some(path) = path_of(name) {
        return Address::UnixPath(path.to_owned());
    }
    #[cfg(keepsock_linux)]
    if let Some(bytes) = name.as_abstract_namespace() {
        return Address::UnixAbstract(bytes.to_owned());
    }
    Address::UnixUnnamed
}

/// An advisory lock on a file, held while the result lives. `how`: whether to create the file. Only
/// the file's owner can open it. `None`: another process holds the lock.
pub(crate) fn lock_file(
    path: &Path,
    how: &mut std::fs::OpenOptions,
) -> io::Result<Option<std::fs::File>> {
    use std::os::unix::fs::OpenOptionsExt;
    // O_NONBLOCK: opening another kind of file of this name, such as a FIFO, must not wait.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let how = how.read(true).write(true).mode(0o600).custom_flags(flags);
    let opened = kernel::call("openat", || how.open(path));
    let file = match opened {
        Ok(file) if kernel::call("statx", || file.metadata())?.is_file() => file,
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO)) => {
            return Err(e);
        }
        // A file of another kind has the name of the lock file.
        _ => return Err(io::ErrorKind::AddrInUse.into()),
    };
    loop {
        // SAFETY: flock takes no pointer.
        match check_int(unsafe { kernel::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
            Ok(_) => return Ok(Some(file)),
            // A network file system may wait for its server.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

// ---- errors --------------------------------------------------------------------------------

/// unix(7): ETOOMANYREFS, too many descriptors are in flight to other processes.
pub(crate) fn is_out_of_descriptors(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ETOOMANYREFS))
}

pub(crate) fn is_out_of_memory(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

pub(crate) fn is_unsupported(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
    )
}

/// A Unix socket of another type is bound to the address.
pub(crate) fn is_other_type(err: &io::Error) -> bool {
    err.raw_os_error() == Some(libc::EPROTOTYPE)
}

/// A blocking connect whose timeout expires returns EINPROGRESS, and so does a write that performs
/// the handshake (Fast Open).
pub(crate) fn is_in_progress(err: &io::Error) -> bool {
    err.raw_os_error() == Some(libc::EINPROGRESS)
}

/// The error of a connection that the peer reset.
pub(crate) const RESET: i32 = libc::ECONNRESET;

/// Whether the datagram was longer than the path or the protocol permits.
pub(crate) fn is_too_long(err: &io::Error) -> bool {
    err.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Whether an error of an established connection comes from the network or from the end of the
/// kernel's retries, and not from this call: a reset, a timeout, or an ICMP error that the kernel
/// remembered (tcp(7), ip(7)).
pub(crate) fn is_from_network(err: &io::Error) -> bool {
    #[cfg(keepsock_linux)]
    if err.raw_os_error() == Some(libc::ENONET) {
        return true;
    }
    matches!(
        err.raw_os_error(),
        Some(
            libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::ENOTCONN
                | libc::ETIMEDOUT
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ECONNREFUSED
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EACCES
        )
    )
}

/// Whether the error means that the machine has no such interface: ENODEV on Linux, ENXIO for an
/// interface given by its index.
pub(crate) fn is_no_interface(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// Whether the error means that this machine does not support the address family.
pub(crate) fn is_family_missing(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Whether retrying accept(2) cannot succeed: the descriptor is not a listening socket. All other
/// errors concern one connection, or pass.
pub(crate) fn is_fatal_accept(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT | libc::EOPNOTSUPP)
    )
}

#[cfg(all(test, feature = "failpoints", keepsock_linux, target_env = "gnu"))]
#[allow(clippy::unwrap_used)] // tests
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::super::failpoints::{self, Fault, Plan};
    use super::*;

    /// I4: a reset connection is hung up, although a signal interrupts poll(2), or poll(2) always
    /// fails (RLIMIT_NOFILE).
    #[test]
    fn is_hung_up_without_poll_finds_the_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        assert!(!is_hung_up(client.as_fd()));
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert!(client.read(&mut [0; 1]).is_err());
        failpoints::arm(None);
        assert!(is_hung_up(client.as_fd()));
        let seen = failpoints::disarm().seen;
        let is_here = |site: &&failpoints::Site| site.file == file!() && site.call == "poll";
        let site = seen.keys().find(is_here).unwrap().clone();
        for fault in [Fault::Storm(libc::EINTR, 3), Fault::Storm(libc::EINVAL, 1000)] {
            failpoints::arm(Some(Plan { site: site.clone(), nth: 1, fault }));
            let is_found = is_hung_up(client.as_fd());
            assert!(failpoints::disarm().hits > 0);
            assert!(is_found, "{fault:?}");
        }
    }
}
