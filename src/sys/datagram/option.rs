//! What datagram sockets are set to, and what the kernel knows of them.

use std::io;
use std::net::IpAddr;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
use std::net::SocketAddr;

use libc::c_int;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
use socket2::SockAddr;
use socket2::{Domain, Socket, Type};

use super::{Families, Memory, Sending, ToGroups};
use crate::sys::{Borrowed, Owned, sockopt};

/// A datagram socket in blocking mode, close-on-exec from the start.
pub(crate) fn datagram_socket(domain: Domain) -> io::Result<Owned> {
    Ok(Socket::new(domain, Type::DGRAM, None)?.into())
}

fn set(socket: Borrowed<'_>, level: c_int, name: c_int, on: bool) -> io::Result<()> {
    sockopt::set(socket, level, name, &c_int::from(on))
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
const WANT_DESTINATION: c_int = libc::IP_PKTINFO;
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
const WANT_DESTINATION: c_int = libc::IP_RECVDSTADDR;

/// Asks for the address that each datagram was sent to: ip(7), RFC 3542 section 4.
pub(crate) fn want_destination(socket: Borrowed<'_>, ipv6: bool) -> io::Result<()> {
    if !ipv6 {
        return set(socket, libc::IPPROTO_IP, WANT_DESTINATION, true);
    }
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, true)?;
    // Linux tells of IPv4 datagrams to an IPv6 socket which address of its interface
    // they came to, too. Others have no such option there.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    set(socket, libc::IPPROTO_IP, WANT_DESTINATION, true)?;
    Ok(())
}

/// Whether the kernel tells of each datagram its TTL, its TOS byte and when it took it: ip(7),
/// RFC 3542, socket(7). None: a Unix socket, which has the time only.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn want_details(
    socket: Borrowed<'_>,
    families: Option<Families>,
    on: bool,
) -> io::Result<()> {
    let Families { ipv4, ipv6 } = families.unwrap_or(Families { ipv4: false, ipv6: false });
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, on)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, on)?;
    }
    if ipv4 {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTTL, on)?;
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, on)?;
    }
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on)
}

/// Whether the kernel tells of each datagram of a Unix socket who sent it: SO_PASSCRED of unix(7).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn want_credentials(socket: Borrowed<'_>, on: bool) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_PASSCRED, on)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn want_credentials(_: Borrowed<'_>, _on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn want_details(
    _: Borrowed<'_>,
    _families: Option<Families>,
    _on: bool,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether no datagram waits. poll says otherwise of a socket that was shut down.
pub(crate) fn is_empty(socket: Borrowed<'_>) -> bool {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let peeked = socket2::SockRef::from(&socket).recv_with_flags(&mut [], flags);
    peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// Whether the kernel may hand over several datagrams as one.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn coalesces(socket: Borrowed<'_>) -> bool {
    // SAFETY: an int.
    let on = unsafe { sockopt::get::<c_int>(socket, libc::SOL_UDP, super::message::UDP_GRO) };
    on.is_ok_and(|(on, _)| on != 0)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn coalesces(_: Borrowed<'_>) -> bool {
    false
}

/// Lets the kernel hand over several datagrams of one sender as one: UDP_GRO of udp(7), Linux 5.0.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn coalesce(socket: Borrowed<'_>, on: bool) -> io::Result<()> {
    match set(socket, libc::SOL_UDP, super::message::UDP_GRO, on) {
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        other => other,
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn coalesce(_: Borrowed<'_>, _on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sets how datagrams are sent.
pub(crate) fn set_sending(
    socket: Borrowed<'_>,
    families: Families,
    setting: Sending,
) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let whole = Some((libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let whole = None;
    let (v4, v6, value) = match setting {
        Sending::Ttl(ttl) => (libc::IP_TTL, libc::IPV6_UNICAST_HOPS, c_int::from(ttl)),
        Sending::Tos(tos) => (libc::IP_TOS, libc::IPV6_TCLASS, c_int::from(tos)),
        Sending::Whole(on) => match whole {
            // IP_PMTUDISC_DO, and _WANT, which is how a socket begins: it cuts what is too
            // long for the way. IPv6 has the same numbers (ip(7), ipv6(7)).
            Some((v4, v6)) => (v4, v6, if on { 2 } else { 1 }),
            None => return Err(io::ErrorKind::Unsupported.into()),
        },
    };
    if families.ipv6 {
        sockopt::set(socket, libc::IPPROTO_IPV6, v6, &value)?;
    }
    if families.ipv4 {
        sockopt::set(socket, libc::IPPROTO_IP, v4, &value)?;
    }
    Ok(())
}

/// How long a packet to the peer of a connected socket may be, headers included, as far as is
/// known: IP_MTU of ip(7).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn path_mtu(socket: Borrowed<'_>, ipv6: bool) -> io::Result<u32> {
    let (level, name) = match ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        false => (libc::IPPROTO_IP, libc::IP_MTU),
    };
    // SAFETY: an int.
    let (mtu, _) = unsafe { sockopt::get::<c_int>(socket, level, name) }?;
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn path_mtu(_: Borrowed<'_>, _ipv6: bool) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// SO_MEMINFO, Linux 4.12: unlike SO_RXQ_OVFL it costs the datagrams nothing. The order is that of
/// linux/sock_diag.h.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn memory(socket: Borrowed<'_>) -> Memory {
    const SO_MEMINFO: c_int = 55;
    // SAFETY: an array of numbers.
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

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn memory(_: Borrowed<'_>) -> Memory {
    Memory::default()
}

/// Whether the kernel queues what ICMP says of datagrams (ip(7), IP_RECVERR).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn report_errors(socket: Borrowed<'_>, ipv6: bool, on: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, on)?;
    }
    set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, on)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn report_errors(_: Borrowed<'_>, _ipv6: bool, _on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Joins a group, or leaves it, on an interface (0: as routed), for all senders or for one:
/// RFC 3678 section 5, whose structures these are. Apple packs them otherwise.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(crate) fn set_member(
    socket: Borrowed<'_>,
    group: IpAddr,
    interface: u32,
    source: Option<IpAddr>,
    join: bool,
) -> io::Result<()> {
    /// MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP, MCAST_JOIN_SOURCE_GROUP and
    /// MCAST_LEAVE_SOURCE_GROUP of netinet/in.h.
    const OPTIONS: [c_int; 4] =
        if cfg!(target_os = "freebsd") { [80, 81, 82, 83] } else { [42, 45, 46, 47] };
    let [join_group, leave_group, join_source, leave_source] = OPTIONS;
    #[repr(C)]
    struct Member {
        interface: u32,
        group: libc::sockaddr_storage,
    }
    #[repr(C)]
    struct MemberOfSource {
        interface: u32,
        group: libc::sockaddr_storage,
        source: libc::sockaddr_storage,
    }
    let level = if group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let name = |ip| {
        let name = SockAddr::from(SocketAddr::new(ip, 0));
        // SAFETY: all zero is a valid, empty name; no name is longer than the storage.
        unsafe {
            let mut storage: libc::sockaddr_storage = std::mem::zeroed();
            let (from, len) = (name.as_ptr().cast::<u8>(), name.len() as usize);
            std::ptr::copy_nonoverlapping(from, (&raw mut storage).cast(), len);
            storage
        }
    };
    // Linux would hand over what other sockets of the machine have joined, too (ip(7),
    // IP_MULTICAST_ALL; ipv6 since 4.20, before which nothing can be done).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        const IPV6_MULTICAST_ALL: c_int = 29; // linux/in6.h
        // Of both: a socket may have both families, and one that has not refuses the other.
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

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) fn set_member(
    _: Borrowed<'_>,
    _group: IpAddr,
    _interface: u32,
    _source: Option<IpAddr>,
    _join: bool,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(crate) fn to_groups(
    socket: Borrowed<'_>,
    families: Families,
    setting: ToGroups,
) -> io::Result<()> {
    if families.ipv6 {
        let (name, value) = match setting {
            ToGroups::Loop(on) => (libc::IPV6_MULTICAST_LOOP, c_int::from(on)),
            ToGroups::Ttl(ttl) => (libc::IPV6_MULTICAST_HOPS, c_int::from(ttl)),
            ToGroups::Interface(index) => (libc::IPV6_MULTICAST_IF, index as _),
        };
        sockopt::set(socket, libc::IPPROTO_IPV6, name, &value)?;
    }
    if families.ipv4 {
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

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) fn to_groups(_: Borrowed<'_>, _families: Families, setting: ToGroups) -> io::Result<()> {
    let _ = match setting {
        ToGroups::Loop(on) => u32::from(on),
        ToGroups::Ttl(ttl) => u32::from(ttl),
        ToGroups::Interface(index) => index,
    };
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the descriptor is a datagram socket of IP, or of Unix.
pub(crate) fn is_datagram(socket: Borrowed<'_>) -> io::Result<bool> {
    let socket = socket2::SockRef::from(&socket);
    let name = socket.local_addr()?;
    let known = name.as_socket().is_some() || name.family() == libc::AF_UNIX as libc::sa_family_t;
    if !known || socket.r#type()? != Type::DGRAM {
        return Ok(false);
    }
    // ICMP has such sockets, too (icmp(7), "ping sockets").
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    if name.as_socket().is_some() {
        return Ok(socket.protocol()? == Some(socket2::Protocol::UDP));
    }
    Ok(true)
}
