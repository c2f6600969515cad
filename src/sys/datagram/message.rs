//! Datagrams to the kernel and from it, with their control messages (cmsg(3)).

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use libc::c_int;

#[cfg(keepsock_linux)]
use super::{Buffers, MAX_BATCH, Reported};
use super::{Run, Source};
use crate::sys::CancellationDisabled;
use crate::sys::ancillary::{Received, read};
#[cfg(keepsock_linux)]
use crate::sys::ancillary::{Timestamp, each_control, read_inet, read_name};
use crate::sys::errno::check;
use crate::sys::kernel;
use crate::sys::unix::{LINUX, NO_SIGPIPE, flags, is_too_long};
use crate::sys::{Borrowed, Wait, total_len};
#[cfg(keepsock_linux)]
use crate::sys::{errno::check_int, unix::syscall};

/// The pieces of a run of up to this many bytes are copied together: that costs less than the
/// kernel's work for each piece.
const JOINED: usize = 8192;

/// Space for the control messages of UDP that keepsock requests, and for the messages that a program
/// may request through the descriptor.
pub(crate) const UDP_CONTROL: usize = 256;

/// Space for the control messages of a Unix socket, exactly: the kernel writes the time and the
/// credentials first, and closes descriptors for which no space is left.
#[cfg(keepsock_linux)]
// SAFETY: CMSG_SPACE only computes a size.
pub(crate) const UNIX_CONTROL: usize = unsafe {
    libc::CMSG_SPACE(size_of::<Timestamp>() as libc::c_uint)
        + libc::CMSG_SPACE(size_of::<libc::ucred>() as libc::c_uint)
} as usize;
#[cfg(not(keepsock_linux))]
pub(crate) const UNIX_CONTROL: usize = 0;

#[repr(C, align(8))]
struct Control([u8; UDP_CONTROL]);

/// Linux: recvmsg returns the original length of the datagram, and received descriptors are
/// close-on-exec.
#[cfg(keepsock_linux)]
const RECEIVE: c_int = libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
#[cfg(target_os = "freebsd")]
const RECEIVE: c_int = libc::MSG_CMSG_CLOEXEC;
#[cfg(not(any(keepsock_linux, target_os = "freebsd")))]
const RECEIVE: c_int = 0;

/// Receives one datagram. Bytes beyond the buffer are lost, and the result says so. `control`: the
/// space for control messages, at most [`UDP_CONTROL`]; 0 if the kernel reports the sender's address
/// only. `peek`: the datagram stays in the queue.
pub(crate) fn recv_datagram(
    socket: Borrowed<'_>,
    buf: &mut [u8],
    control: usize,
    peek: bool,
    wait: Wait,
    received: &mut Received,
) -> io::Result<()> {
    #[cfg(keepsock_linux)]
    if control == 0 {
        return recv_plain(socket, buf, peek, wait, received);
    }
    let mut name = MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut room = MaybeUninit::<Control>::uninit();
    // SAFETY: msghdr consists of integers and pointers; all zeros are an empty message.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    let mut slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    msg.msg_name = name.as_mut_ptr().cast();
    msg.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
    msg.msg_iov = &raw mut slice;
    msg.msg_iovlen = 1;
    if control > 0 {
        msg.msg_control = room.as_mut_ptr().cast();
        msg.msg_controllen = control.min(UDP_CONTROL) as _;
    }
    let flags = flags(wait) | RECEIVE | if peek { libc::MSG_PEEK } else { 0 };
    let _disabled = CancellationDisabled::new();
    // SAFETY: msg describes buffers that outlive the call.
    let len = check(unsafe { kernel::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) })?;
    // SAFETY: recvmsg filled the message.
    unsafe { read(&msg, len, buf.len(), None, received) };
    Ok(())
}

/// Makes the system call directly, as [`recv`](crate::sys::recv) does.
#[cfg(keepsock_linux)]
fn recv_plain(
    socket: Borrowed<'_>,
    buf: &mut [u8],
    peek: bool,
    wait: Wait,
    received: &mut Received,
) -> io::Result<()> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut name_len = mem::size_of_val(&name) as libc::socklen_t;
    let peek = if peek { libc::MSG_PEEK } else { 0 };
    let (fd, flags) = (socket.as_raw_fd(), flags(wait) | libc::MSG_TRUNC | peek);
    // SAFETY: the kernel writes at most buf.len() bytes into buf, and name_len into name.
    let len = unsafe {
        let to = buf.as_mut_ptr().expose_provenance();
        let (from, room) = (name.as_mut_ptr().expose_provenance(), &raw mut name_len);
        let room = room.expose_provenance();
        let arguments = [fd as usize, to, buf.len(), flags as usize, from, room];
        syscall(libc::SYS_recvfrom, arguments)
    }?;
    // SAFETY: the kernel has written this many bytes of the name.
    unsafe { read_name(name.as_ptr().cast(), name_len as usize, &mut received.from) };
    received.len = len.min(buf.len());
    received.original_len = len;
    received.truncated = len > buf.len();
    Ok(())
}

/// Appends a control message to the control buffer of `msg`.
///
/// # Safety
/// `msg.msg_control` is an aligned buffer with space for the message after `msg.msg_controllen` bytes
/// of other messages.
unsafe fn put_control<T>(msg: &mut libc::msghdr, level: c_int, kind: c_int, value: T) {
    let size = mem::size_of::<T>() as libc::c_uint;
    let used: usize = msg.msg_controllen as _;
    // SAFETY: the caller guarantees the space, and CMSG_SPACE keeps the alignment. The padding is
    // zeroed, because the kernel reads it.
    unsafe {
        let space = libc::CMSG_SPACE(size) as usize;
        let header = msg.msg_control.byte_add(used).cast::<libc::cmsghdr>();
        header.cast::<u8>().write_bytes(0, space);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        msg.msg_controllen = (used + space) as _;
    }
}

/// # Safety
/// The same requirements as [`put_control`].
unsafe fn put_source(msg: &mut libc::msghdr, source: Source, ipv6: bool) {
    // Linux accepts IP_PKTINFO for IPv4 datagrams of an IPv6 socket. IPV6_PKTINFO cannot name an
    // interface without an address there.
    if ipv6 && !(source.mapped && LINUX) {
        // IPv4 uses a mapped address.
        let ip = match source.ip {
            Some(IpAddr::V6(ip)) => ip,
            Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped(),
            None => Ipv6Addr::UNSPECIFIED,
        };
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
            ipi6_ifindex: source.interface as _,
        };
        // SAFETY: the caller guarantees the space.
        unsafe { put_control(msg, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) };
        return;
    }
    let ip = match source.ip {
        Some(IpAddr::V4(ip)) => ip,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    let from = libc::in_addr { s_addr: ip.to_bits().to_be() };
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_os = "illumos",
        target_vendor = "apple"
    ))]
    {
        let info = libc::in_pktinfo {
            ipi_ifindex: source.interface as _,
            ipi_spec_dst: from,
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        // SAFETY: the caller guarantees the space.
        unsafe { put_control(msg, libc::IPPROTO_IP, libc::IP_PKTINFO, info) };
    }
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "illumos",
        target_vendor = "apple"
    )))]
    // SAFETY: the caller guarantees the space.
    unsafe {
        put_control(msg, libc::IPPROTO_IP, libc::IP_SENDSRCADDR, from);
    }
}

/// Describes a run to the kernel. The data that the result points to must outlive it.
fn header(run: &Run<'_>, control: &mut MaybeUninit<Control>, ipv6: bool) -> libc::msghdr {
    // SAFETY: msghdr consists of integers and pointers; all zeros are an empty message.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    if let Some(to) = &run.to {
        msg.msg_name = to.as_ptr().cast_mut().cast();
        msg.msg_namelen = to.len();
    }
    // The standard library guarantees that IoSlice has the layout of iovec; sending only reads it.
    msg.msg_iov = run.pieces.as_ptr().cast_mut().cast();
    msg.msg_iovlen = run.pieces.len() as _;
    msg.msg_control = control.as_mut_ptr().cast();
    if run.source != Source::default() {
        // SAFETY: the buffer is aligned, empty, and has space for both messages.
        unsafe { put_source(&mut msg, run.source, ipv6) };
    }
    #[cfg(keepsock_linux)]
    if let [first, _, ..] = run.pieces {
        let segment = u16::try_from(first.len()).unwrap_or(u16::MAX);
        // SAFETY: the buffer is aligned, and has space for both messages.
        unsafe { put_control(&mut msg, libc::SOL_UDP, libc::UDP_SEGMENT, segment) };
    }
    if msg.msg_controllen == 0 {
        msg.msg_control = std::ptr::null_mut();
    }
    msg
}

/// Sends one datagram or one run, completely or not at all.
pub(crate) fn send_datagram(
    socket: Borrowed<'_>,
    ipv6: bool,
    run: &Run<'_>,
    wait: Wait,
) -> io::Result<()> {
    #[cfg(keepsock_linux)]
    if let ([bytes], true) = (run.pieces, run.source == Source::default()) {
        return send_plain(socket, bytes, run.to.as_ref(), wait);
    }
    let mut control = MaybeUninit::uninit();
    let mut msg = header(run, &mut control, ipv6);
    let mut room = MaybeUninit::<[u8; JOINED]>::uninit();
    let mut joined = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 0 };
    let total = || total_len(run.pieces.iter().map(|piece| piece.len()));
    if run.pieces.len() > 1 && total().is_some_and(|total| total <= JOINED) {
        for piece in run.pieces {
            // SAFETY: the pieces together are not longer than the space.
            unsafe {
                let end = joined.iov_base.cast::<u8>().add(joined.iov_len);
                end.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
            }
            joined.iov_len += piece.len();
        }
        (msg.msg_iov, msg.msg_iovlen) = (&raw mut joined, 1);
    }
    let flags = flags(wait) | NO_SIGPIPE;
    let _disabled = CancellationDisabled::new();
    // SAFETY: msg describes buffers that outlive the call; sendmsg only reads them.
    check(unsafe { kernel::sendmsg(socket.as_raw_fd(), &raw const msg, flags) })?;
    Ok(())
}

/// Makes the system call directly, as [`send`](crate::sys::send) does.
#[cfg(keepsock_linux)]
fn send_plain(
    socket: Borrowed<'_>,
    bytes: &[u8],
    to: Option<&socket2::SockAddr>,
    wait: Wait,
) -> io::Result<()> {
    let (fd, flags) = (socket.as_raw_fd(), flags(wait) | NO_SIGPIPE);
    let (name, name_len) = to.map_or((std::ptr::null(), 0), |to| (to.as_ptr(), to.len()));
    let (data, name) = (bytes.as_ptr().expose_provenance(), name.expose_provenance());
    let arguments = [fd as usize, data, bytes.len(), flags as usize, name, name_len as usize];
    // SAFETY: the kernel reads at most `bytes.len()` bytes of data, and `name_len` of the name.
    unsafe { syscall(libc::SYS_sendto, arguments) }.map(drop)
}

/// Sends at most [`MAX_BATCH`] runs in order, and returns how many were sent. An error is the error of
/// the first run.
#[cfg(keepsock_linux)]
pub(crate) fn send_datagrams(
    socket: Borrowed<'_>,
    ipv6: bool,
    runs: &[Run<'_>],
    wait: Wait,
) -> io::Result<usize> {
    if let [run] = runs {
        return send_datagram(socket, ipv6, run, wait).map(|()| 1);
    }
    let runs = &runs[..runs.len().min(MAX_BATCH)];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; MAX_BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_BATCH];
    for ((run, control), message) in runs.iter().zip(&mut controls).zip(&mut messages) {
        message.write(libc::mmsghdr { msg_hdr: header(run, control, ipv6), msg_len: 0 });
    }
    let flags = flags(wait) | NO_SIGPIPE;
    let _disabled = CancellationDisabled::new();
    // SAFETY: this many messages were written, and describe buffers that outlive the call.
    let sent = check_int(unsafe {
        let (first, count) = (messages.as_mut_ptr().cast(), runs.len() as libc::c_uint);
        kernel::sendmmsg(socket.as_raw_fd(), first, count, flags as _)
    })?;
    check(sent as isize)
}

/// Receives the waiting datagrams, one per buffer and at most [`MAX_BATCH`], and returns their number.
/// Waits for the first one only. `told` receives each datagram with its index. `control` is the same as
/// in [`recv_datagram`].
#[cfg(keepsock_linux)]
pub(crate) fn recv_datagrams<B: Buffers + ?Sized>(
    socket: Borrowed<'_>,
    bufs: &mut B,
    control: usize,
    wait: Wait,
    mut told: impl FnMut(&mut B, usize, &mut Received),
) -> io::Result<usize> {
    // On the stack, and not initialized before the kernel writes to it.
    let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; MAX_BATCH];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; MAX_BATCH];
    let mut slices = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_BATCH];
    let count = bufs.count().min(MAX_BATCH);
    for at in 0..count {
        let buf = bufs.buffer(at);
        let slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: mmsghdr consists of integers and pointers; all zeros are an empty message.
        let message = messages[at].write(unsafe { mem::zeroed() });
        message.msg_hdr.msg_name = names[at].as_mut_ptr().cast();
        message.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        message.msg_hdr.msg_iov = std::ptr::from_mut(slices[at].write(slice));
        message.msg_hdr.msg_iovlen = 1;
        if control > 0 {
            message.msg_hdr.msg_control = controls[at].as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = control.min(UDP_CONTROL) as _;
        }
    }
    let wait = match wait {
        Wait::Yes => libc::MSG_WAITFORONE,
        Wait::No => libc::MSG_DONTWAIT,
    };
    let flags = wait | RECEIVE;
    let _disabled = CancellationDisabled::new();
    // SAFETY: `count` messages were written. They describe buffers that outlive the call, and that no
    // other code uses during the call, because `bufs` is borrowed mutably.
    let got = check_int(unsafe {
        let (fd, first) = (socket.as_raw_fd(), messages.as_mut_ptr().cast());
        kernel::recvmmsg(fd, first, count as libc::c_uint, flags as _, std::ptr::null_mut())
    })?;
    let got = check(got as isize)?.min(count);
    for at in 0..got {
        let mut received = Received::default();
        // SAFETY: the loop above wrote these messages, and the kernel filled them.
        unsafe {
            let (message, slice) = (messages[at].assume_init_ref(), slices[at].assume_init_ref());
            read(&message.msg_hdr, message.msg_len as usize, slice.iov_len, None, &mut received);
        }
        told(bufs, at, &mut received);
    }
    Ok(got)
}

/// Takes one entry from the kernel's error queue. `None`: the entry is not an error. Fails with
/// `WouldBlock` if the queue is empty.
#[cfg(keepsock_linux)]
pub(crate) fn next_reported(socket: Borrowed<'_>) -> io::Result<Option<Reported>> {
    let _disabled = CancellationDisabled::new();
    // SAFETY: both consist of integers and pointers; all zeros are valid.
    let (mut name, mut msg): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut control = Control([0; UDP_CONTROL]);
    // Without space for the datagram some kernels remove nothing from the queue.
    let mut byte = 0u8;
    let mut slice = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    (msg.msg_iov, msg.msg_iovlen) = (&raw mut slice, 1);
    msg.msg_name = (&raw mut name).cast();
    msg.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
    msg.msg_control = control.0.as_mut_ptr().cast();
    msg.msg_controllen = control.0.len() as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: msg describes buffers that outlive the call.
    check(unsafe { kernel::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) })?;
    let mut found = None;
    let mut local = false;
    let each = |level, kind, data: *const u8, len: usize| {
        const KNOWN: usize = mem::size_of::<libc::sock_extended_err>();
        let error = (level == libc::IPPROTO_IP && kind == libc::IP_RECVERR)
            || (level == libc::IPPROTO_IPV6 && kind == libc::IPV6_RECVERR);
        if !error || len < KNOWN {
            return;
        }
        // SAFETY: the type and the length identify the structure.
        let told = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
        // Local, ICMP and ICMPv6 (linux/errqueue.h). Other origins, such as transmit timestamps, are
        // not errors.
        if !(1..=3).contains(&told.ee_origin) {
            return;
        }
        // SAFETY: the address of the reporting node follows; read_inet checks the length.
        let by = unsafe { read_inet(data.add(KNOWN).cast(), len - KNOWN) };
        local = told.ee_origin == libc::SO_EE_ORIGIN_LOCAL;
        let mtu = (told.ee_errno == libc::EMSGSIZE as u32).then_some(told.ee_info);
        found = i32::try_from(told.ee_errno).ok().map(|code| (code, by, mtu));
    };
    // SAFETY: recvmsg filled the message.
    let to = unsafe {
        each_control(&msg, each);
        read_inet(std::ptr::from_ref(&name).cast(), msg.msg_namelen as usize)
    };
    Ok(found.map(|(code, by, mtu)| Reported { code, to, by: by.map(|by| by.ip()), mtu, local }))
}

/// Whether the error of a call may be an ICMP error of an earlier datagram: an error of the network,
/// or one of the path MTU.
pub(crate) fn is_reported(err: &io::Error) -> bool {
    // ICMP "source route failed".
    crate::sys::is_from_network(err)
        || is_too_long(err)
        || err.raw_os_error() == Some(libc::EOPNOTSUPP)
}

/// Whether a receive error concerns the socket itself or the call, so that retrying cannot succeed.
/// All others pass.
pub(crate) fn ends_receiving(err: &io::Error) -> bool {
    const FATAL: [c_int; 4] = [libc::EBADF, libc::ENOTSOCK, libc::EINVAL, libc::EFAULT];
    err.raw_os_error().is_none_or(|code| FATAL.contains(&code))
}

/// Whether an error may mean that the kernel cannot split the run: a network card without checksum
/// offload (EIO), a kernel before 4.18, or a length above the path MTU (EINVAL, EMSGSIZE).
pub(crate) fn may_refuse_segments(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}
