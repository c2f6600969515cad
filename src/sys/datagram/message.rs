//! Datagrams to the kernel and from it, with their control messages (cmsg(3)).

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::time::{Duration, UNIX_EPOCH};

use libc::c_int;

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::AT_ONCE;
use super::{Ancillary, Buffers, Received, Reported, Run, Source};
use crate::error::ErrorKind;
use crate::info::Address;
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::sys::rights::credentials;
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::sys::unix::check_int;
use crate::sys::unix::{LINUX, NO_SIGPIPE, check, copy_name, flags, to_address};
use crate::sys::{Borrowed, Wait};

/// UDP_GRO of linux/udp.h, which not every libc names.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const UDP_GRO: c_int = 104;

/// Of linux/socket.h: Linux 6.5, and not in every libc.
const SCM_PIDFD: c_int = 4;

/// Up to so many bytes the pieces of a run are copied together: that costs less than what the
/// kernel needs for each piece.
const JOINED: usize = 8192;

/// Room for what was asked for, and for what a program may ask for through the descriptor.
#[repr(C, align(8))]
struct Control([u8; 256]);

/// Linux: recvmsg returns the length that the datagram had, and descriptors that come along are
/// closed when another program is executed.
#[cfg(any(target_os = "linux", target_os = "android"))]
const RECEIVE: c_int = libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
#[cfg(target_os = "freebsd")]
const RECEIVE: c_int = libc::MSG_CMSG_CLOEXEC;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const RECEIVE: c_int = 0;

fn v4(address: libc::in_addr) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(address.s_addr)))
}

fn v6(address: libc::in6_addr) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(address.s6_addr)).to_canonical()
}

/// # Safety
/// `name` points to `len` readable bytes that are a name.
#[inline(always)]
unsafe fn read_v4(name: *const libc::sockaddr, len: usize) -> Option<SocketAddr> {
    // SAFETY: every name has its family, if it is so long.
    let is_v4 = len >= mem::size_of::<libc::sockaddr_in>()
        && c_int::from(unsafe { (*name).sa_family }) == libc::AF_INET;
    // SAFETY: a name of that family and that length is a sockaddr_in.
    let name = is_v4.then(|| unsafe { name.cast::<libc::sockaddr_in>().read_unaligned() })?;
    Some(SocketAddr::new(v4(name.sin_addr), u16::from_be(name.sin_port)))
}

/// # Safety
/// As for [`read_v4`].
unsafe fn read_inet(name: *const libc::sockaddr, len: usize) -> Option<SocketAddr> {
    // SAFETY: as the caller promises; and every name has its family, if it is so long.
    unsafe {
        if let Some(v4) = read_v4(name, len) {
            return Some(v4);
        }
        if len < mem::size_of::<libc::sockaddr_in6>()
            || c_int::from((*name).sa_family) != libc::AF_INET6
        {
            return None;
        }
    }
    // SAFETY: a name of that family and that length is a sockaddr_in6.
    let name = unsafe { name.cast::<libc::sockaddr_in6>().read_unaligned() };
    let port = u16::from_be(name.sin6_port);
    Some(match v6(name.sin6_addr) {
        IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
        IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id)),
    })
}

/// Writes it where it is wanted: returned it would be copied there.
///
/// # Safety
/// As for [`read_v4`].
#[inline(always)]
unsafe fn read_name(name: *const libc::sockaddr, len: usize, into: &mut Option<Address>) {
    // SAFETY: as the caller promises.
    match unsafe { read_v4(name, len) } {
        Some(v4) => *into = Some(Address::Inet(v4)),
        // SAFETY: as the caller promises.
        None => *into = unsafe { read_other_name(name, len) },
    }
}

/// All that is not IPv4, and none. Apart, since the registers that it needs would have to be saved
/// for IPv4, too.
///
/// # Safety
/// As for [`read_v4`].
#[inline(never)]
unsafe fn read_other_name(name: *const libc::sockaddr, len: usize) -> Option<Address> {
    // SAFETY: as the caller promises.
    match unsafe { read_inet(name, len) } {
        Some(inet) => Some(Address::Inet(inet)),
        None if len == 0 => None,
        // SAFETY: as the caller promises.
        None => unsafe { copy_name(name, len as libc::socklen_t) }.ok().map(|n| to_address(&n)),
    }
}

/// Calls `each` with level, type, data and its length of each control message.
///
/// # Safety
/// The kernel has filled what `msg` describes.
unsafe fn each_control(msg: &libc::msghdr, mut each: impl FnMut(c_int, c_int, *const u8, usize)) {
    // SAFETY: as the caller promises.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(msg) };
    while !at.is_null() {
        // SAFETY: the macros of cmsg(3) give headers inside of the control buffer.
        unsafe {
            let data = libc::CMSG_DATA(at);
            let before = data as usize - at as usize;
            let len = (*at).cmsg_len as usize;
            each((*at).cmsg_level, (*at).cmsg_type, data, len.saturating_sub(before));
            at = libc::CMSG_NXTHDR(msg, at);
        }
    }
}

/// # Safety
/// As for [`read`].
unsafe fn read_control(msg: &libc::msghdr, mut takes: Option<&mut Vec<OwnedFd>>) -> Ancillary {
    let mut told = Ancillary::default();
    let each = |level, kind, data: *const u8, len: usize| match (level, kind) {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        (libc::IPPROTO_IP, libc::IP_PKTINFO) if len >= mem::size_of::<libc::in_pktinfo>() => {
            // SAFETY: the message is one, by its type and length.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            told.to = Some(v4(info.ipi_addr));
            told.local = Some(v4(info.ipi_spec_dst)).filter(|ip| !ip.is_unspecified());
            told.details.interface = info.ipi_ifindex as _;
        }
        #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
        (libc::IPPROTO_IP, libc::IP_RECVDSTADDR) if len >= mem::size_of::<libc::in_addr>() => {
            // SAFETY: the message is one, by its type and length.
            let to = v4(unsafe { data.cast::<libc::in_addr>().read_unaligned() });
            told.to = Some(to);
            told.local = Some(to).filter(|ip| !ip.is_multicast());
        }
        // The more precise one for IPv4 may have been there before.
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
            if len >= mem::size_of::<libc::in6_pktinfo>() && told.local.is_none() =>
        {
            // SAFETY: the message is one, by its type and length.
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            let to = v6(info.ipi6_addr);
            told.to = Some(to);
            told.local = Some(to).filter(|ip| !ip.is_multicast());
            told.details.interface = info.ipi6_ifindex as _;
        }
        // Whoever sends them decides that they come. If nobody takes them they are closed.
        (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
            for at in 0..len / mem::size_of::<RawFd>() {
                // SAFETY: that many descriptors were installed for this process, and are ours.
                let one =
                    unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(at).read_unaligned()) };
                if let Some(all) = &mut takes {
                    all.push(one);
                }
            }
        }
        // A process (SO_PASSPIDFD, which the program may have set), and likewise.
        (libc::SOL_SOCKET, SCM_PIDFD) if LINUX && len >= mem::size_of::<RawFd>() => {
            // SAFETY: it was installed for this process, and is ours; a negative one is none.
            unsafe {
                let pidfd = data.cast::<RawFd>().read_unaligned();
                drop((pidfd >= 0).then(|| OwnedFd::from_raw_fd(pidfd)));
            }
        }
        // SAFETY: the message has that length.
        _ => unsafe { read_detail(level, kind, data, len, &mut told) },
    };
    // SAFETY: as the caller promises.
    unsafe { each_control(msg, each) };
    told
}

/// # Safety
/// `data` points to `len` readable bytes.
#[cfg(any(target_os = "linux", target_os = "android"))]
unsafe fn read_detail(
    level: c_int,
    kind: c_int,
    data: *const u8,
    len: usize,
    told: &mut Ancillary,
) {
    // ip(7) has one byte for IP_TOS, all others are an int.
    let number = || match len {
        0 => 0,
        // SAFETY: there is so much, by the length.
        1..4 => c_int::from(unsafe { data.read() }),
        // SAFETY: likewise.
        _ => unsafe { data.cast::<c_int>().read_unaligned() },
    };
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
            told.details.ttl = u8::try_from(number()).ok();
        }
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            told.details.tos = u8::try_from(number()).ok();
        }
        (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if len >= mem::size_of::<libc::timespec>() => {
            // SAFETY: the message is one, by its type and length.
            let at = unsafe { data.cast::<libc::timespec>().read_unaligned() };
            let (seconds, nanos) = (u64::try_from(at.tv_sec), u32::try_from(at.tv_nsec));
            if let (Ok(seconds), Ok(nanos)) = (seconds, nanos) {
                told.details.at = UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
            }
        }
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= mem::size_of::<libc::ucred>() => {
            // SAFETY: the message is one, by its type and length.
            let peer = unsafe { data.cast::<libc::ucred>().read_unaligned() };
            told.details.credentials = Some(credentials(peer));
        }
        (libc::SOL_UDP, UDP_GRO) => told.segment = usize::try_from(number()).ok(),
        _ => {}
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
unsafe fn read_detail(_: c_int, _: c_int, _: *const u8, _: usize, _: &mut Ancillary) {}

/// Takes one datagram. What does not fit is lost, and told. `control`: whether the kernel is to
/// tell more than who sent it.
pub(crate) fn recv_datagram(
    socket: Borrowed<'_>,
    buf: &mut [u8],
    control: bool,
    wait: Wait,
    received: &mut Received,
) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if !control {
        return recv_plain(socket, buf, wait, received);
    }
    let mut name = MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut room = MaybeUninit::<Control>::uninit();
    // SAFETY: an all-zero header is a valid, empty one.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    let mut slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    msg.msg_name = name.as_mut_ptr().cast();
    msg.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
    msg.msg_iov = &raw mut slice;
    msg.msg_iovlen = 1;
    if control {
        msg.msg_control = room.as_mut_ptr().cast();
        msg.msg_controllen = mem::size_of_val(&room) as _;
    }
    let flags = flags(wait) | RECEIVE;
    // SAFETY: msg describes buffers that outlive the call.
    let len = check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) })?;
    // SAFETY: the kernel has filled what msg describes.
    unsafe { read(&msg, len, buf.len(), None, received) };
    Ok(())
}

/// By the system call itself, as [`recv`](crate::sys::recv).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn recv_plain(
    socket: Borrowed<'_>,
    buf: &mut [u8],
    wait: Wait,
    received: &mut Received,
) -> io::Result<()> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut name_len = mem::size_of_val(&name) as libc::socklen_t;
    let (fd, flags) = (socket.as_raw_fd(), flags(wait) | libc::MSG_TRUNC);
    // SAFETY: the kernel writes at most buf.len() bytes into buf, and name_len into name.
    let len = check(unsafe {
        let (buf, room) = (buf.as_mut_ptr(), buf.len());
        libc::syscall(
            libc::SYS_recvfrom,
            fd,
            buf,
            room,
            flags,
            name.as_mut_ptr(),
            &raw mut name_len,
        ) as isize
    })?;
    // SAFETY: the kernel has written so much of name.
    unsafe { read_name(name.as_ptr().cast(), name_len as usize, &mut received.from) };
    received.len = len.min(buf.len());
    received.original_len = len;
    received.truncated = len > buf.len();
    Ok(())
}

/// `takes`: who takes the descriptors that came along; `None`: they are closed.
///
/// # Safety
/// The kernel has filled what `msg` describes, and nobody has read it yet.
#[inline(always)]
pub(crate) unsafe fn read(
    msg: &libc::msghdr,
    len: usize,
    room: usize,
    takes: Option<&mut Vec<OwnedFd>>,
    received: &mut Received,
) {
    received.len = len.min(room);
    received.original_len = len;
    received.truncated = msg.msg_flags & libc::MSG_TRUNC != 0;
    // SAFETY: as the caller promises.
    unsafe {
        read_name(msg.msg_name.cast_const().cast(), msg.msg_namelen as usize, &mut received.from);
        if !msg.msg_control.is_null() {
            received.ancillary = Some(read_control(msg, takes));
        }
    }
}

/// Puts one more control message into the buffer that `msg` has for them.
///
/// # Safety
/// `msg.msg_control` is an aligned buffer with room for it after `msg.msg_controllen` bytes of
/// other messages.
unsafe fn put_control<T>(msg: &mut libc::msghdr, level: c_int, kind: c_int, value: T) {
    let size = mem::size_of::<T>() as libc::c_uint;
    let used: usize = msg.msg_controllen as _;
    // SAFETY: there is room, as the caller promises, and CMSG_SPACE keeps it aligned. What is
    // between the messages is zero, for it goes to the kernel.
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
/// As for [`put_control`].
unsafe fn put_source(msg: &mut libc::msghdr, source: Source, ipv6: bool) {
    // Linux takes IPv4's own for IPv4 datagrams of an IPv6 socket, too; the other one has no
    // interface there without an address.
    if ipv6 && !(source.mapped && LINUX) {
        // Of IPv4, too, as a mapped address.
        let ip = match source.ip {
            Some(IpAddr::V6(ip)) => ip,
            Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped(),
            None => Ipv6Addr::UNSPECIFIED,
        };
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
            ipi6_ifindex: source.interface as _,
        };
        // SAFETY: as the caller promises.
        unsafe { put_control(msg, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) };
        return;
    }
    let ip = match source.ip {
        Some(IpAddr::V4(ip)) => ip,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    let from = libc::in_addr { s_addr: ip.to_bits().to_be() };
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        let info = libc::in_pktinfo {
            ipi_ifindex: source.interface as _,
            ipi_spec_dst: from,
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        // SAFETY: as the caller promises.
        unsafe { put_control(msg, libc::IPPROTO_IP, libc::IP_PKTINFO, info) };
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    // SAFETY: as the caller promises.
    unsafe {
        put_control(msg, libc::IPPROTO_IP, libc::IP_SENDSRCADDR, from);
    }
}

/// What the kernel is told of a run. What it points to must outlive it.
fn header(run: &Run<'_>, control: &mut MaybeUninit<Control>, ipv6: bool) -> libc::msghdr {
    // SAFETY: an all-zero msghdr is a valid, empty one.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    if let Some(to) = &run.to {
        msg.msg_name = to.as_ptr().cast_mut().cast();
        msg.msg_namelen = to.len();
    }
    // IoSlice is an iovec by the standard library's promise; sending only reads it.
    msg.msg_iov = run.pieces.as_ptr().cast_mut().cast();
    msg.msg_iovlen = run.pieces.len() as _;
    msg.msg_control = control.as_mut_ptr().cast();
    if run.source != Source::default() {
        // SAFETY: the buffer is aligned, empty, and has room for both messages.
        unsafe { put_source(&mut msg, run.source, ipv6) };
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let [first, _, ..] = run.pieces {
        let segment = u16::try_from(first.len()).unwrap_or(u16::MAX);
        // SAFETY: the buffer is aligned, and has room for both messages.
        unsafe { put_control(&mut msg, libc::SOL_UDP, libc::UDP_SEGMENT, segment) };
    }
    if msg.msg_controllen == 0 {
        msg.msg_control = std::ptr::null_mut();
    }
    msg
}

/// Sends one datagram, or one run of them, whole or not at all.
pub(crate) fn send_datagram(
    socket: Borrowed<'_>,
    ipv6: bool,
    run: &Run<'_>,
    wait: Wait,
) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let ([bytes], true) = (run.pieces, run.source == Source::default()) {
        return send_plain(socket, bytes, run.to.as_ref(), wait);
    }
    let mut control = MaybeUninit::uninit();
    let mut msg = header(run, &mut control, ipv6);
    let mut room = MaybeUninit::<[u8; JOINED]>::uninit();
    let mut joined = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 0 };
    if run.pieces.len() > 1 && run.pieces.iter().map(|piece| piece.len()).sum::<usize>() <= JOINED {
        for piece in run.pieces {
            // SAFETY: all pieces together are no longer than the room.
            unsafe {
                let end = joined.iov_base.cast::<u8>().add(joined.iov_len);
                end.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
            }
            joined.iov_len += piece.len();
        }
        (msg.msg_iov, msg.msg_iovlen) = (&raw mut joined, 1);
    }
    let flags = flags(wait) | NO_SIGPIPE;
    // SAFETY: msg describes buffers that outlive the call; sendmsg only reads them.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const msg, flags) })?;
    Ok(())
}

/// By the system call itself, as [`send`](crate::sys::send).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn send_plain(
    socket: Borrowed<'_>,
    bytes: &[u8],
    to: Option<&socket2::SockAddr>,
    wait: Wait,
) -> io::Result<()> {
    let (fd, flags) = (socket.as_raw_fd(), flags(wait) | NO_SIGPIPE);
    let (name, name_len) = to.map_or((std::ptr::null(), 0), |to| (to.as_ptr(), to.len()));
    let (data, len) = (bytes.as_ptr(), bytes.len());
    // SAFETY: the kernel reads at most `len` bytes of data, and `name_len` of the name.
    check(unsafe {
        libc::syscall(libc::SYS_sendto, fd, data, len, flags, name, name_len) as isize
    })?;
    Ok(())
}

/// Sends runs in their order, at most [`AT_ONCE`]; how many were sent. An error is that of the
/// first.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn send_datagrams(
    socket: Borrowed<'_>,
    ipv6: bool,
    runs: &[Run<'_>],
    wait: Wait,
) -> io::Result<usize> {
    if let [run] = runs {
        return send_datagram(socket, ipv6, run, wait).map(|()| 1);
    }
    let runs = &runs[..runs.len().min(AT_ONCE)];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; AT_ONCE];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; AT_ONCE];
    for ((run, control), message) in runs.iter().zip(&mut controls).zip(&mut messages) {
        message.write(libc::mmsghdr { msg_hdr: header(run, control, ipv6), msg_len: 0 });
    }
    let flags = flags(wait) | NO_SIGPIPE;
    // SAFETY: so many messages were written, and describe buffers that outlive the call.
    let sent = check_int(unsafe {
        let (first, count) = (messages.as_mut_ptr().cast(), runs.len() as libc::c_uint);
        libc::sendmmsg(socket.as_raw_fd(), first, count, flags as _)
    })?;
    check(sent as isize)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn send_datagrams(
    socket: Borrowed<'_>,
    ipv6: bool,
    runs: &[Run<'_>],
    wait: Wait,
) -> io::Result<usize> {
    for (sent, run) in runs.iter().enumerate() {
        match send_datagram(socket, ipv6, run, wait) {
            Err(_) if sent > 0 => return Ok(sent),
            other => other?,
        }
    }
    Ok(runs.len())
}

/// Takes datagrams, one into each buffer, as many as there are and at most [`AT_ONCE`]; how many.
/// It waits for the first only. `told` is called for each, with its place.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn recv_datagrams<B: Buffers + ?Sized>(
    socket: Borrowed<'_>,
    bufs: &mut B,
    control: bool,
    wait: Wait,
    mut told: impl FnMut(&mut B, usize, &Received),
) -> io::Result<usize> {
    // On the stack, and not written before the kernel does.
    let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; AT_ONCE];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; AT_ONCE];
    let mut slices = [const { MaybeUninit::<libc::iovec>::uninit() }; AT_ONCE];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; AT_ONCE];
    let count = bufs.count().min(AT_ONCE);
    for at in 0..count {
        let buf = bufs.buffer(at);
        let slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: an all-zero mmsghdr is a valid, empty one.
        let message = messages[at].write(unsafe { mem::zeroed() });
        message.msg_hdr.msg_name = names[at].as_mut_ptr().cast();
        message.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        message.msg_hdr.msg_iov = std::ptr::from_mut(slices[at].write(slice));
        message.msg_hdr.msg_iovlen = 1;
        if control {
            message.msg_hdr.msg_control = controls[at].as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = mem::size_of::<Control>() as _;
        }
    }
    let wait = match wait {
        Wait::Yes => libc::MSG_WAITFORONE,
        Wait::No => libc::MSG_DONTWAIT,
    };
    let flags = wait | RECEIVE;
    // SAFETY: `count` messages were written, and describe buffers that outlive the call, and that
    // nobody else uses meanwhile, since bufs is borrowed.
    let got = check_int(unsafe {
        let (fd, first) = (socket.as_raw_fd(), messages.as_mut_ptr().cast());
        libc::recvmmsg(fd, first, count as libc::c_uint, flags as _, std::ptr::null_mut())
    })?;
    let got = check(got as isize)?.min(count);
    for at in 0..got {
        let mut received = Received::default();
        // SAFETY: these were written above, and the kernel has filled what they describe.
        unsafe {
            let (message, slice) = (messages[at].assume_init_ref(), slices[at].assume_init_ref());
            read(&message.msg_hdr, message.msg_len as usize, slice.iov_len, None, &mut received);
        }
        told(bufs, at, &received);
    }
    Ok(got)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn recv_datagrams<B: Buffers + ?Sized>(
    socket: Borrowed<'_>,
    bufs: &mut B,
    control: bool,
    wait: Wait,
    mut told: impl FnMut(&mut B, usize, &Received),
) -> io::Result<usize> {
    let count = bufs.count().min(super::AT_ONCE);
    for at in 0..count {
        let wait = if at == 0 { wait } else { Wait::No };
        let mut received = Received::default();
        match recv_datagram(socket, bufs.buffer(at), control, wait, &mut received) {
            Ok(()) => told(bufs, at, &received),
            Err(_) if at > 0 => return Ok(at),
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

/// The next error in the kernel's queue, which holds what ICMP said of datagrams.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn next_reported(socket: Borrowed<'_>) -> io::Result<Option<Reported>> {
    loop {
        // SAFETY: all-zero names and headers are valid, empty ones.
        let (mut name, mut msg): (libc::sockaddr_storage, libc::msghdr) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        let mut control = Control([0; 256]);
        msg.msg_name = (&raw mut name).cast();
        msg.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
        msg.msg_control = control.0.as_mut_ptr().cast();
        msg.msg_controllen = control.0.len() as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: msg describes buffers that outlive the call.
        match check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) }) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
        let mut found = None;
        let mut local = false;
        let each = |level, kind, data: *const u8, len: usize| {
            const KNOWN: usize = mem::size_of::<libc::sock_extended_err>();
            let error = (level == libc::IPPROTO_IP && kind == libc::IP_RECVERR)
                || (level == libc::IPPROTO_IPV6 && kind == libc::IPV6_RECVERR);
            if !error || len < KNOWN {
                return;
            }
            // SAFETY: the message is one, by its type and length.
            let told = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
            // Local, ICMP and ICMPv6 (linux/errqueue.h); the rest, such as timestamps of
            // what was sent, are no errors.
            if !(1..=3).contains(&told.ee_origin) {
                return;
            }
            // SAFETY: the address of who reported it follows; read_inet looks at the length.
            let by = unsafe { read_inet(data.add(KNOWN).cast(), len - KNOWN) };
            local = told.ee_origin == libc::SO_EE_ORIGIN_LOCAL;
            let mtu = (told.ee_errno == libc::EMSGSIZE as u32).then_some(told.ee_info);
            found = i32::try_from(told.ee_errno).ok().map(|code| (code, by, mtu));
        };
        // SAFETY: the kernel has filled what msg describes.
        let to = unsafe {
            each_control(&msg, each);
            read_inet(std::ptr::from_ref(&name).cast(), msg.msg_namelen as usize)
        };
        if let Some((code, by, mtu)) = found {
            return Ok(Some(Reported { code, to, by: by.map(|by| by.ip()), mtu, local }));
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn next_reported(_: Borrowed<'_>) -> io::Result<Option<Reported>> {
    Ok(None)
}

/// Whether the error of a call is one that ICMP reported for an earlier datagram, or could
/// be: those of the network, and the path's limit of length.
pub(crate) fn is_reported(err: &io::Error) -> bool {
    // ICMP has "source route failed", too.
    crate::sys::is_from_network(err)
        || is_too_long(err)
        || err.raw_os_error() == Some(libc::EOPNOTSUPP)
}

/// What an error that ICMP reported means, by what it was made of (net/ipv4/icmp.c).
pub(crate) fn reported_kind(err: &io::Error) -> ErrorKind {
    match err.raw_os_error() {
        Some(libc::EMSGSIZE) => ErrorKind::TooLong,
        // Nobody has the protocol there.
        Some(libc::ENOPROTOOPT) => ErrorKind::Refused,
        Some(libc::EHOSTDOWN | libc::EPROTO | libc::EOPNOTSUPP) => ErrorKind::Unreachable,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(libc::ENONET) => ErrorKind::Unreachable,
        _ => ErrorKind::of(err),
    }
}

/// More than the way, or the protocol, takes in one datagram.
pub(crate) fn is_too_long(err: &io::Error) -> bool {
    err.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Whether an error may mean that a run cannot be cut: a network card without checksums
/// (EIO), a kernel before 4.18 or a length above the way's (EINVAL, EMSGSIZE).
pub(crate) fn may_refuse_segments(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}
