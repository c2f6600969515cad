//! Received messages with their sender and control messages (cmsg(3)), for datagrams and for Unix
//! sockets.

#[cfg(feature = "datagram")]
use std::{net::IpAddr, time::SystemTime};

#[cfg(feature = "datagram")]
use crate::types::{address::Address, credentials::Credentials};

#[cfg(all(unix, feature = "datagram"))]
pub(super) use datagram::*;
#[cfg(unix)]
pub(super) use read::*;

/// A received message. IPv4 addresses of a dual-stack socket are IPv4.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub len: usize,
    /// The original length. Equal to `len` where the kernel does not report it.
    pub original_len: usize,
    pub truncated: bool,
    /// None: the sender has no name, or the socket was shut down.
    #[cfg(feature = "datagram")]
    pub from: Option<Address>,
    /// None: the socket requests no control messages.
    #[cfg(feature = "datagram")]
    pub ancillary: Option<Ancillary>,
}

/// The control messages of a datagram (ancillary data of recvmsg(2)).
#[cfg(feature = "datagram")]
#[derive(Debug, Default)]
pub(crate) struct Ancillary {
    /// The destination address.
    pub to: Option<IpAddr>,
    /// The address of this machine from which replies must leave.
    pub local: Option<IpAddr>,
    /// The buffer holds several datagrams: all have this length, except the last, which may be
    /// shorter.
    pub segment: Option<usize>,
    pub details: Details,
}

/// Metadata that the library passes to the program unchanged.
#[cfg(feature = "datagram")]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Details {
    /// 0: not reported.
    pub interface: u32,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    /// The time at which the kernel received the datagram.
    pub at: Option<SystemTime>,
    /// The credentials of the sender, for Unix sockets.
    pub credentials: Option<Credentials>,
}

/// The sender and the control messages of datagrams.
#[cfg(all(unix, feature = "datagram"))]
mod datagram {
    use std::mem;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::OwnedFd;
    #[cfg(any(keepsock_linux, target_vendor = "apple", target_os = "freebsd"))]
    use std::time::{Duration, UNIX_EPOCH};

    use libc::c_int;

    #[cfg(keepsock_linux)]
    use super::super::convert::credentials;
    use super::super::unix::{copy_name, to_address};
    use super::read::take_descriptors;
    use super::{Address, Ancillary, each_control};

    /// UDP_GRO of linux/udp.h, which not every version of the libc crate declares.
    #[cfg(keepsock_linux)]
    pub(crate) const UDP_GRO: c_int = 104;

    /// The option that requests the receive time of each datagram, and the type of its control
    /// message. On 32-bit systems SO_TIMESTAMPNS reports seconds of 32 bits, which end in 2038; the
    /// option SO_TIMESTAMPNS_NEW of asm-generic/socket.h does not (Linux 5.1).
    #[cfg(keepsock_linux)]
    pub(crate) const TIMESTAMP: c_int =
        if cfg!(target_pointer_width = "64") { libc::SO_TIMESTAMPNS } else { 64 };

    /// Seconds and nanoseconds of such a control message.
    #[cfg(keepsock_linux)]
    pub(crate) type Timestamp = [i64; 2];

    fn v4(address: libc::in_addr) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(address.s_addr)))
    }

    fn v6(address: libc::in6_addr) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(address.s6_addr)).to_canonical()
    }

    /// # Safety
    /// `name` points to `len` readable bytes of a socket address.
    #[inline(always)]
    unsafe fn read_v4(name: *const libc::sockaddr, len: usize) -> Option<SocketAddr> {
        // SAFETY: an address of this length contains its family.
        let is_v4 = len >= mem::size_of::<libc::sockaddr_in>()
            && c_int::from(unsafe { (*name).sa_family }) == libc::AF_INET;
        // SAFETY: an address of this family and length is a sockaddr_in.
        let name = is_v4.then(|| unsafe { name.cast::<libc::sockaddr_in>().read_unaligned() })?;
        Some(SocketAddr::new(v4(name.sin_addr), u16::from_be(name.sin_port)))
    }

    /// # Safety
    /// The same requirements as [`read_v4`].
    pub(crate) unsafe fn read_inet(name: *const libc::sockaddr, len: usize) -> Option<SocketAddr> {
        // SAFETY: the caller guarantees a readable address, and this length contains the family.
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
        // SAFETY: an address of this family and length is a sockaddr_in6.
        let name = unsafe { name.cast::<libc::sockaddr_in6>().read_unaligned() };
        let port = u16::from_be(name.sin6_port);
        Some(match v6(name.sin6_addr) {
            IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id)),
        })
    }

    /// Writes the address into its destination: a returned value would be copied there.
    ///
    /// # Safety
    /// The same requirements as [`read_v4`].
    #[inline(always)]
    pub(crate) unsafe fn read_name(
        name: *const libc::sockaddr,
        len: usize,
        into: &mut Option<Address>,
    ) {
        // SAFETY: the caller guarantees a readable address.
        match unsafe { read_v4(name, len) } {
            Some(v4) => *into = Some(Address::Inet(v4)),
            // SAFETY: the caller guarantees a readable address.
            None => *into = unsafe { read_other_name(name, len) },
        }
    }

    /// Reads an address that is not IPv4, or no address. A function of its own, because the IPv4 path
    /// would otherwise save the registers that this one needs.
    ///
    /// # Safety
    /// The same requirements as [`read_v4`].
    #[inline(never)]
    unsafe fn read_other_name(name: *const libc::sockaddr, len: usize) -> Option<Address> {
        // SAFETY: the caller guarantees a readable address.
        match unsafe { read_inet(name, len) } {
            Some(inet) => Some(Address::Inet(inet)),
            None if len == 0 => None,
            // SAFETY: the caller guarantees a readable address.
            None => unsafe { copy_name(name, len as libc::socklen_t) }.ok().map(|n| to_address(&n)),
        }
    }

    /// # Safety
    /// recvmsg(2) filled `msg`, and no other code has taken its descriptors.
    pub(super) unsafe fn read_control(
        msg: &libc::msghdr,
        mut takes: Option<&mut Vec<OwnedFd>>,
    ) -> Ancillary {
        let mut told = Ancillary::default();
        let each = |level, kind, data: *const u8, len: usize| match (level, kind) {
            #[cfg(any(
                target_os = "linux",
                target_os = "android",
                target_os = "illumos",
                target_vendor = "apple"
            ))]
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if len >= mem::size_of::<libc::in_pktinfo>() => {
                // SAFETY: the type and the length identify the structure.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                told.to = Some(v4(info.ipi_addr));
                told.local = Some(v4(info.ipi_spec_dst)).filter(|ip| !ip.is_unspecified());
                told.details.interface = info.ipi_ifindex as _;
            }
            #[cfg(not(any(
                target_os = "linux",
                target_os = "android",
                target_os = "illumos",
                target_vendor = "apple"
            )))]
            (libc::IPPROTO_IP, libc::IP_RECVDSTADDR) if len >= mem::size_of::<libc::in_addr>() => {
                // SAFETY: the type and the length identify the structure.
                let to = v4(unsafe { data.cast::<libc::in_addr>().read_unaligned() });
                told.to = Some(to);
                told.local = Some(to).filter(|ip| !ip.is_multicast());
            }
            // A more precise message for IPv4 may precede this one.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
                if len >= mem::size_of::<libc::in6_pktinfo>() && told.local.is_none() =>
            {
                // SAFETY: the type and the length identify the structure.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                let to = v6(info.ipi6_addr);
                told.to = Some(to);
                told.local = Some(to).filter(|ip| !ip.is_multicast());
                told.details.interface = info.ipi6_ifindex as _;
            }
            // SAFETY: the kernel filled this message, which nothing else reads.
            _ if unsafe { take_descriptors(level, kind, data, len, takes.as_deref_mut()) } => {}
            // SAFETY: the message has this length.
            _ => unsafe { read_detail(level, kind, data, len, &mut told) },
        };
        // SAFETY: the caller guarantees a control buffer that the kernel filled.
        unsafe { each_control(msg, each) };
        told
    }

    /// # Safety
    /// `data` points to `len` readable bytes.
    #[cfg(any(keepsock_linux, target_vendor = "apple", target_os = "freebsd"))]
    unsafe fn read_detail(
        level: c_int,
        kind: c_int,
        data: *const u8,
        len: usize,
        told: &mut Ancillary,
    ) {
        // The names of the messages, and the structure with the time.
        #[cfg(not(keepsock_linux))]
        use libc::{
            IP_RECVTOS as TOS, IP_RECVTTL as TTL, SCM_TIMESTAMP as TIMESTAMP, timeval as Timestamp,
        };
        #[cfg(keepsock_linux)]
        use libc::{IP_TOS as TOS, IP_TTL as TTL};
        // Linux: IP_TOS is one byte, all others are an int (ip(7)). macOS and FreeBSD: the messages of
        // IPv4 are one byte.
        let number = || match len {
            0 => 0,
            // SAFETY: the length says that an int is there.
            1..4 => c_int::from(unsafe { data.read() }),
            // SAFETY: the length says that a byte is there.
            _ => unsafe { data.cast::<c_int>().read_unaligned() },
        };
        match (level, kind) {
            (libc::IPPROTO_IP, TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                told.details.ttl = u8::try_from(number()).ok();
            }
            (libc::IPPROTO_IP, TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                told.details.tos = u8::try_from(number()).ok();
            }
            (libc::SOL_SOCKET, TIMESTAMP) if len >= mem::size_of::<Timestamp>() => {
                // SAFETY: the type and the length identify the structure.
                let at = unsafe { data.cast::<Timestamp>().read_unaligned() };
                #[cfg(keepsock_linux)]
                let (seconds, nanos) = (at[0], u32::try_from(at[1]).ok());
                #[cfg(not(keepsock_linux))]
                let (seconds, nanos) =
                    (at.tv_sec, u32::try_from(at.tv_usec).ok().and_then(|us| us.checked_mul(1000)));
                if let (Ok(seconds), Some(nanos)) = (u64::try_from(seconds), nanos) {
                    told.details.at = UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
                }
            }
            #[cfg(keepsock_linux)]
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= mem::size_of::<libc::ucred>() => {
                // SAFETY: the type and the length identify the structure.
                let peer = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                told.details.credentials = Some(credentials(peer));
            }
            #[cfg(keepsock_linux)]
            (libc::SOL_UDP, UDP_GRO) => told.segment = usize::try_from(number()).ok(),
            _ => {}
        }
    }

    #[cfg(not(any(keepsock_linux, target_vendor = "apple", target_os = "freebsd")))]
    unsafe fn read_detail(_: c_int, _: c_int, _: *const u8, _: usize, _: &mut Ancillary) {}
}

#[cfg(unix)]
mod read {
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};

    use libc::c_int;

    use super::super::unix::LINUX;
    use super::*;

    /// From linux/socket.h, since Linux 6.5. Not every version of the libc crate declares it.
    const SCM_PIDFD: c_int = 4;

    /// Calls `each` with the level, type, data and data length of each control message.
    ///
    /// # Safety
    /// recvmsg(2) filled `msg`.
    pub(crate) unsafe fn each_control(
        msg: &libc::msghdr,
        mut each: impl FnMut(c_int, c_int, *const u8, usize),
    ) {
        // SAFETY: the caller guarantees a control buffer that the kernel filled.
        let mut at = unsafe { libc::CMSG_FIRSTHDR(msg) };
        while !at.is_null() {
            // SAFETY: the macros of cmsg(3) return headers inside the control buffer.
            unsafe {
                let data = libc::CMSG_DATA(at);
                let before = data as usize - at as usize;
                let len = (*at).cmsg_len as usize;
                each((*at).cmsg_level, (*at).cmsg_type, data, len.saturating_sub(before));
                at = libc::CMSG_NXTHDR(msg, at);
            }
        }
    }

    /// Takes the descriptors of a control message, and returns whether it carries descriptors.
    ///
    /// # Safety
    /// The kernel wrote the message, with `len` bytes of data, and no other code has taken its
    /// descriptors.
    #[inline(always)]
    pub(super) unsafe fn take_descriptors(
        level: c_int,
        kind: c_int,
        data: *const u8,
        len: usize,
        takes: Option<&mut Vec<OwnedFd>>,
    ) -> bool {
        match (level, kind) {
            // The sender decides whether descriptors arrive. Descriptors that the caller does not take
            // are closed.
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                let descriptors = (0..len / size_of::<RawFd>()).map(|at| {
                    // SAFETY: the kernel installed this many new descriptors, and only this function
                    // owns them.
                    unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(at).read_unaligned()) }
                });
                match takes {
                    Some(all) => all.extend(descriptors),
                    None => descriptors.for_each(drop),
                }
            }
            // A pidfd (SO_PASSPIDFD, which the program may have set): treated like a descriptor.
            (libc::SOL_SOCKET, SCM_PIDFD) if LINUX && len >= size_of::<RawFd>() => {
                // SAFETY: the kernel installed a new descriptor that only this function owns; a
                // negative number is not a descriptor.
                unsafe {
                    let pidfd = data.cast::<RawFd>().read_unaligned();
                    drop((pidfd >= 0).then(|| OwnedFd::from_raw_fd(pidfd)));
                }
            }
            _ => return false,
        }
        true
    }

    /// `takes` receives the descriptors of the message; `None`: they are closed.
    ///
    /// # Safety
    /// recvmsg(2) filled `msg`, and no other code has taken its descriptors.
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
        #[cfg(feature = "datagram")]
        // SAFETY: the caller guarantees a filled message.
        unsafe {
            let (name, len) = (msg.msg_name.cast_const().cast(), msg.msg_namelen as usize);
            read_name(name, len, &mut received.from);
            if !msg.msg_control.is_null() {
                received.ancillary = Some(read_control(msg, takes));
            }
        }
        #[cfg(not(feature = "datagram"))]
        if !msg.msg_control.is_null() {
            let mut takes = takes;
            // SAFETY: the caller guarantees a filled message.
            unsafe {
                each_control(msg, |level, kind, data, len| {
                    take_descriptors(level, kind, data, len, takes.as_deref_mut());
                });
            }
        }
    }
}
