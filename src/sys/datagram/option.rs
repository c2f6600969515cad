//! Options and state of datagram sockets.

use std::io;
use std::net::IpAddr;
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
))]
use std::net::SocketAddr;

use libc::c_int;
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
))]
use socket2::SockAddr;

#[cfg(keepsock_linux)]
use super::Memory;
use super::{Sending, ToGroups};
#[cfg(keepsock_linux)]
use crate::sys::ancillary::TIMESTAMP;
use crate::sys::kernel;
use crate::sys::{Borrowed, Families, sockopt};

fn set(socket: Borrowed<'_>, level: c_int, name: c_int, on: bool) -> io::Result<()> {
    sockopt::set(socket, level, name, &c_int::from(on))
}

/// Whether an interface has this index, in the network namespace of the socket (netdevice(7)).
#[cfg(keepsock_linux)]
pub(crate) fn has_interface(socket: Borrowed<'_>, index: u32) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: ifreq consists of integers and pointers; all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let Ok(index) = c_int::try_from(index) else {
        return false;
    };
    request.ifr_ifru.ifru_ifindex = index;
    // SAFETY: the kernel reads and writes one ifreq.
    unsafe { kernel::ioctl(socket.as_raw_fd(), libc::SIOCGIFNAME as _, &raw mut request) == 0 }
}

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "illumos",
    target_vendor = "apple"
))]
const WANT_DESTINATION: c_int = libc::IP_PKTINFO;
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "illumos",
    target_vendor = "apple"
)))]
const WANT_DESTINATION: c_int = libc::IP_RECVDSTADDR;

/// Requests the destination address of each datagram: ip(7), RFC 3542 section 4.
pub(crate) fn want_destination(socket: Borrowed<'_>, ipv6: bool) -> io::Result<()> {
    if !ipv6 {
        return set(socket, libc::IPPROTO_IP, WANT_DESTINATION, true);
    }
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, true)?;
    // Linux also reports, for an IPv4 datagram to an IPv6 socket, the local address of its interface.
    // Other systems have no such option.
    #[cfg(keepsock_linux)]
    set(socket, libc::IPPROTO_IP, WANT_DESTINATION, true)?;
    Ok(())
}

/// Requests the TTL, the TOS byte and the receive time of each UDP datagram: ip(7), RFC 3542,
/// socket(7).
#[cfg(keepsock_linux)]
pub(crate) fn want_details(socket: Borrowed<'_>, families: Families, on: bool) -> io::Result<()> {
    if families.has_ipv6() {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, on)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, on)?;
    }
    if families.has_ipv4() {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTTL, on)?;
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, on)?;
    }
    set(socket, libc::SOL_SOCKET, TIMESTAMP, on)
}

/// Requests the sender's credentials (SO_PASSCRED of unix(7)) and the time of each datagram of a Unix
/// socket. Always both: together they fill [`UNIX_CONTROL`](super::UNIX_CONTROL), so that the kernel
/// has no space for descriptors.
#[cfg(keepsock_linux)]
pub(crate) fn want_sender(socket: Borrowed<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_PASSCRED, true)?;
    set(socket, libc::SOL_SOCKET, TIMESTAMP, true)
}

/// A socket for both IP versions reports these details of IPv6 datagrams only: the kernel has no IPv4
/// options of such a socket.
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
pub(crate) fn want_details(socket: Borrowed<'_>, families: Families, on: bool) -> io::Result<()> {
    if families.has_ipv6() {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, on)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, on)?;
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTTL, on)?;
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, on)?;
    }
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMP, on)
}

#[cfg(not(any(keepsock_linux, target_vendor = "apple", target_os = "freebsd")))]
pub(crate) fn want_details(_: Borrowed<'_>, _: Families, _on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the kernel splits runs.
pub(crate) fn splits_runs(_: Borrowed<'_>) -> bool {
    cfg!(keepsock_linux)
}

/// Whether no datagram waits. For a socket that was shut down, poll reports the opposite.
pub(crate) fn is_empty(socket: Borrowed<'_>) -> bool {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let peeked = kernel::call("recvfrom", || {
        socket2::SockRef::from(&socket).recv_with_flags(&mut [], flags)
    });
    peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// Whether the kernel may return several datagrams in one buffer.
#[cfg(keepsock_linux)]
pub(crate) fn coalesces(socket: Borrowed<'_>) -> bool {
    // SAFETY: getsockopt writes one int.
    let on =
        unsafe { sockopt::get::<c_int>(socket, libc::SOL_UDP, crate::sys::ancillary::UDP_GRO) };
    on.is_ok_and(|(on, _)| on != 0)
}

#[cfg(not(keepsock_linux))]
pub(crate) fn coalesces(_: Borrowed<'_>) -> bool {
    false
}

/// Lets the kernel return several datagrams of one sender in one buffer: UDP_GRO of udp(7), Linux 5.0.
#[cfg(keepsock_linux)]
pub(crate) fn coalesce(socket: Borrowed<'_>, on: bool) -> io::Result<()> {
    match set(socket, libc::SOL_UDP, crate::sys::ancillary::UDP_GRO, on) {
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        other => other,
    }
}

#[cfg(not(keepsock_linux))]
pub(crate) fn coalesce(_: Borrowed<'_>, _on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sets how datagrams are sent.
pub(crate) fn set_sending(
    socket: Borrowed<'_>,
    families: Families,
    setting: Sending,
) -> io::Result<()> {
    // IP_PMTUDISC_DO, or IP_PMTUDISC_WANT, the state of a new socket, which fragments datagrams that
    // are too long for the path. IPv6 has the same numbers (ip(7), ipv6(7)).
    #[cfg(keepsock_linux)]
    let whole = Some((libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER, [1, 2]));
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    let whole = Some((libc::IP_DONTFRAG, libc::IPV6_DONTFRAG, [0, 1]));
    #[cfg(not(any(keepsock_linux, target_vendor = "apple", target_os = "freebsd")))]
    let whole: Option<(c_int, c_int, [c_int; 2])> = None;
    let (v4, v6, value) = match setting {
        Sending::Ttl(ttl) => (libc::IP_TTL, libc::IPV6_UNICAST_HOPS, c_int::from(ttl)),
        Sending::Tos(tos) => (libc::IP_TOS, libc::IPV6_TCLASS, c_int::from(tos)),
        Sending::Whole(on) => match whole {
            Some((v4, v6, values)) => (v4, v6, values[usize::from(on)]),
            None => return Err(io::ErrorKind::Unsupported.into()),
        },
    };
    if families.has_ipv6() {
        sockopt::set(socket, libc::IPPROTO_IPV6, v6, &value)?;
    }
    if families.has_ipv4() {
        sockopt::set(socket, libc::IPPROTO_IP, v4, &value)?;
    }
    Ok(())
}

/// The known path MTU to the peer of a connected socket, headers included: IP_MTU of ip(7).
#[cfg(keepsock_linux)]
pub(crate) fn path_mtu(socket: Borrowed<'_>, ipv6: bool) -> io::Result<u32> {
    let (level, name) = match ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        false => (libc::IPPROTO_IP, libc::IP_MTU),
    };
    // SAFETY: getsockopt writes one int.
    let (mtu, _) = unsafe { sockopt::get::<c_int>(socket, level, name) }?;
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(not(keepsock_linux))]
pub(crate) fn path_mtu(_: Borrowed<'_>, _ipv6: bool) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// SO_MEMINFO, Linux 4.12: unlike SO_RXQ_OVFL it adds no cost to the datagrams. The order is that of
/// linux/sock_diag.h.
#[cfg(keepsock_linux)]
pub(crate) fn memory(socket: Borrowed<'_>) -> Memory {
    const SO_MEMINFO: c_int = 55;
    // SAFETY: getsockopt fills an array of integers of the given size.
    let got = unsafe { sockopt::get::<[u32; 9]>(socket, libc::SOL_SOCKET, SO_MEMINFO) };
    let Ok((values, len)) = got else {
        return Memory::default();
    };
    let known = values.get(..len / size_of::<u32>()).unwrap_or_default();
    let value = |at: usize| known.get(at).map(|value| u64::from(*value));
    Memory {
        unread: value(0),
        receive_buffer: value(1),
        unsent: value(2),
        send_buffer: value(3),
        dropped: value(8),
    }
}

/// Whether the kernel queues ICMP errors of datagrams (ip(7), IP_RECVERR).
#[cfg(keepsock_linux)]
pub(crate) fn report_errors(socket: Borrowed<'_>, ipv6: bool, on: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, on)?;
    }
    set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, on)
}

#[cfg(not(keepsock_linux))]
pub(crate) fn report_errors(_: Borrowed<'_>, _ipv6: bool, _on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Joins or leaves a group on an interface (0: as routed), for all senders or for one: RFC 3678
/// section 5, which defines these structures.
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
))]
pub(crate) fn set_member(
    socket: Borrowed<'_>,
    group: IpAddr,
    interface: u32,
    source: Option<IpAddr>,
    join: bool,
) -> io::Result<()> {
    /// MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP, MCAST_JOIN_SOURCE_GROUP and
    /// MCAST_LEAVE_SOURCE_GROUP of netinet/in.h.
    const OPTIONS: [c_int; 4] = if cfg!(not(any(target_vendor = "apple", target_os = "freebsd"))) {
        [42, 45, 46, 47]
    } else {
        [80, 81, 82, 83]
    };
    let [join_group, leave_group, join_source, leave_source] = OPTIONS;
    #[cfg_attr(target_vendor = "apple", repr(C, packed(4)))]
    #[cfg_attr(not(target_vendor = "apple"), repr(C))]
    struct Member {
        interface: u32,
        group: libc::sockaddr_storage,
    }
    #[cfg_attr(target_vendor = "apple", repr(C, packed(4)))]
    #[cfg_attr(not(target_vendor = "apple"), repr(C))]
    struct MemberOfSource {
        interface: u32,
        group: libc::sockaddr_storage,
        source: libc::sockaddr_storage,
    }
    let level = if group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let name = |ip| {
        let name = SockAddr::from(SocketAddr::new(ip, 0));
        // SAFETY: sockaddr_storage consists of integers; no address is longer.
        unsafe {
            let mut storage: libc::sockaddr_storage = std::mem::zeroed();
            let (from, len) = (name.as_ptr().cast::<u8>(), name.len() as usize);
            std::ptr::copy_nonoverlapping(from, (&raw mut storage).cast(), len);
            storage
        }
    };
    // By default Linux delivers datagrams of groups that other sockets of the machine have joined
    // (ip(7), IP_MULTICAST_ALL; for IPv6 the option exists since 4.20).
    #[cfg(keepsock_linux)]
    {
        const IPV6_MULTICAST_ALL: c_int = 29; // linux/in6.h
        // Both options: a socket may have both families, and rejects the option of a family that it
        // does not have.
        let _ = set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, false);
        let _ = set(socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, false);
    }
    let group = name(group);
    match source.map(name) {
        None => {
            let option = if join { join_group } else { leave_group };
            sockopt::set(socket, level, option, &Member { interface, group })
        }
        Some(source) => {
            let option = if join { join_source } else { leave_source };
            sockopt::set(socket, level, option, &MemberOfSource { interface, group, source })
        }
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
)))]
pub(crate) fn set_member(
    _: Borrowed<'_>,
    _group: IpAddr,
    _interface: u32,
    _source: Option<IpAddr>,
    _join: bool,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
))]
pub(crate) fn to_groups(
    socket: Borrowed<'_>,
    families: Families,
    setting: ToGroups,
) -> io::Result<()> {
    if families.has_ipv6() {
        let (name, value) = match setting {
            ToGroups::Loop(on) => (libc::IPV6_MULTICAST_LOOP, c_int::from(on)),
            ToGroups::Ttl(ttl) => (libc::IPV6_MULTICAST_HOPS, c_int::from(ttl)),
            ToGroups::Interface(index) => (libc::IPV6_MULTICAST_IF, index as _),
        };
        sockopt::set(socket, libc::IPPROTO_IPV6, name, &value)?;
    }
    if families.has_ipv4() {
        let level = libc::IPPROTO_IP;
        match setting {
            ToGroups::Loop(on) => set(socket, level, libc::IP_MULTICAST_LOOP, on)?,
            ToGroups::Ttl(ttl) => {
                sockopt::set(socket, level, libc::IP_MULTICAST_TTL, &c_int::from(ttl))?;
            }
            ToGroups::Interface(index) => {
                let any = libc::in_addr { s_addr: 0 };
                let by_index = libc::ip_mreqn {
                    imr_multiaddr: any,
                    imr_address: any,
                    imr_ifindex: index as _,
                };
                sockopt::set(socket, level, libc::IP_MULTICAST_IF, &by_index)?;
            }
        }
    }
    Ok(())
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
)))]
pub(crate) fn to_groups(_: Borrowed<'_>, _families: Families, setting: ToGroups) -> io::Result<()> {
    let _ = match setting {
        ToGroups::Loop(on) => u32::from(on),
        ToGroups::Ttl(ttl) => u32::from(ttl),
        ToGroups::Interface(index) => index,
    };
    Err(io::ErrorKind::Unsupported.into())
}
