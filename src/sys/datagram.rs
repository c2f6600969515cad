//! UDP: datagrams with the addresses that they came from and went to, and what ICMP said.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

/// A datagram as the kernel handed it over. IPv4 addresses of a dual-stack socket are IPv4.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    pub len: usize,
    /// Where the kernel does not tell it, `len`.
    pub original_len: usize,
    pub truncated: bool,
    /// None: the socket was shut down.
    pub from: Option<SocketAddr>,
    /// The address that it was sent to.
    pub to: Option<IpAddr>,
    /// The address of this machine that answers are to leave from.
    pub local: Option<IpAddr>,
    /// 0: not told.
    pub interface: u32,
}

/// Where a datagram is to leave from; zero and none are the system's choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Source {
    pub ip: Option<IpAddr>,
    pub interface: u32,
}

/// Datagrams of one length, the last perhaps shorter, to one address: where there are several the
/// kernel, or the network card, cuts them (UDP_SEGMENT of udp(7)).
pub(crate) struct Run<'a> {
    pub pieces: &'a [IoSlice<'a>],
    /// None: to the peer of a connected socket.
    pub to: Option<SockAddr>,
    pub source: Source,
}

/// An error that ICMP, or this machine, reported for a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported {
    pub code: i32,
    /// Where the datagram went.
    pub to: Option<SocketAddr>,
    /// Who reported it.
    pub by: Option<IpAddr>,
}

/// How datagrams to groups are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ToGroups {
    /// Whether sockets of this machine get them, too.
    Loop(bool),
    /// How many networks they pass.
    Ttl(u8),
    /// The index of the interface that they leave by.
    Interface(u32),
}

/// Whether the kernel queues what ICMP says, if it is asked to.
pub(crate) const REPORTS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether the kernel cuts runs.
pub(crate) const SEGMENTS: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[cfg(unix)]
mod here {
    use std::mem;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::AsRawFd;

    use libc::c_int;
    use socket2::{Domain, Socket, Type};

    use super::super::unix::{NO_SIGPIPE, check, check_int, flags};
    use super::super::{Borrowed, Owned, Wait};
    use super::*;

    /// Room for what was asked for, and for what a program may ask for through the descriptor.
    #[repr(C, align(8))]
    struct Control([u8; 256]);

    /// Linux: recvmsg returns the length that the datagram had.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const WHOLE_LENGTH: c_int = libc::MSG_TRUNC;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const WHOLE_LENGTH: c_int = 0;

    /// A UDP socket in blocking mode, close-on-exec from the start.
    pub(crate) fn datagram_socket(domain: Domain) -> io::Result<Owned> {
        Ok(Socket::new(domain, Type::DGRAM, None)?.into())
    }

    fn set(socket: Borrowed<'_>, level: c_int, name: c_int, on: bool) -> io::Result<()> {
        let value = c_int::from(on);
        let len = mem::size_of::<c_int>() as libc::socklen_t;
        // SAFETY: the kernel reads an int through the pointer.
        check_int(unsafe {
            let at = (&raw const value).cast();
            libc::setsockopt(socket.as_raw_fd(), level, name, at, len)
        })?;
        Ok(())
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

    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    fn set_value<T>(socket: Borrowed<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
        let len = mem::size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads at most `len` bytes through the pointer.
        check_int(unsafe {
            let at = std::ptr::from_ref(value).cast();
            libc::setsockopt(socket.as_raw_fd(), level, name, at, len)
        })?;
        Ok(())
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
                let mut storage: libc::sockaddr_storage = mem::zeroed();
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
            let all = if group.is_ipv4() { libc::IP_MULTICAST_ALL } else { IPV6_MULTICAST_ALL };
            let _ = set(socket, level, all, false);
        }
        let group = name(group);
        match source.map(name) {
            None => {
                let option = if join { join_group } else { leave_group };
                set_value(socket, level, option, &Member { interface, group })
            }
            Some(source) => {
                let option = if join { join_source } else { leave_source };
                set_value(socket, level, option, &MemberOfSource { interface, group, source })
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
        ipv4: bool,
        ipv6: bool,
        setting: ToGroups,
    ) -> io::Result<()> {
        if ipv6 {
            let (name, value) = match setting {
                ToGroups::Loop(on) => (libc::IPV6_MULTICAST_LOOP, c_int::from(on)),
                ToGroups::Ttl(ttl) => (libc::IPV6_MULTICAST_HOPS, c_int::from(ttl)),
                ToGroups::Interface(index) => (libc::IPV6_MULTICAST_IF, index as _),
            };
            set_value(socket, libc::IPPROTO_IPV6, name, &value)?;
        }
        if ipv4 {
            let level = libc::IPPROTO_IP;
            match setting {
                ToGroups::Loop(on) => set(socket, level, libc::IP_MULTICAST_LOOP, on)?,
                ToGroups::Ttl(ttl) => {
                    set_value(socket, level, libc::IP_MULTICAST_TTL, &c_int::from(ttl))?;
                }
                ToGroups::Interface(index) => {
                    let any = libc::in_addr { s_addr: 0 };
                    let by_index = libc::ip_mreqn {
                        imr_multiaddr: any,
                        imr_address: any,
                        imr_ifindex: index as _,
                    };
                    set_value(socket, level, libc::IP_MULTICAST_IF, &by_index)?;
                }
            }
        }
        Ok(())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    pub(crate) fn to_groups(
        _: Borrowed<'_>,
        _ipv4: bool,
        _ipv6: bool,
        setting: ToGroups,
    ) -> io::Result<()> {
        let _ = match setting {
            ToGroups::Loop(on) => u32::from(on),
            ToGroups::Ttl(ttl) => u32::from(ttl),
            ToGroups::Interface(index) => index,
        };
        Err(io::ErrorKind::Unsupported.into())
    }

    fn v4(address: libc::in_addr) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(address.s_addr)))
    }

    fn v6(address: libc::in6_addr) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(address.s6_addr)).to_canonical()
    }

    /// # Safety
    /// `name` points to `len` readable bytes that are a name.
    unsafe fn read_name(name: *const libc::sockaddr, len: usize) -> Option<SocketAddr> {
        if len < mem::size_of::<libc::sockaddr>() {
            return None;
        }
        // SAFETY: every name is as long as a sockaddr, by the check above.
        let family = c_int::from(unsafe { (*name).sa_family });
        if family == libc::AF_INET && len >= mem::size_of::<libc::sockaddr_in>() {
            // SAFETY: a name of that family and that length is a sockaddr_in.
            let name = unsafe { name.cast::<libc::sockaddr_in>().read_unaligned() };
            return Some(SocketAddr::new(v4(name.sin_addr), u16::from_be(name.sin_port)));
        }
        if family == libc::AF_INET6 && len >= mem::size_of::<libc::sockaddr_in6>() {
            // SAFETY: a name of that family and that length is a sockaddr_in6.
            let name = unsafe { name.cast::<libc::sockaddr_in6>().read_unaligned() };
            let port = u16::from_be(name.sin6_port);
            return Some(match v6(name.sin6_addr) {
                IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
                IpAddr::V6(ip) => {
                    SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id))
                }
            });
        }
        None
    }

    /// Calls `each` with level, type, data and its length of each control message.
    ///
    /// # Safety
    /// The kernel has filled what `msg` describes.
    unsafe fn each_control(
        msg: &libc::msghdr,
        mut each: impl FnMut(c_int, c_int, *const u8, usize),
    ) {
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
    /// The kernel has filled what `msg` describes.
    unsafe fn read_control(msg: &libc::msghdr, received: &mut Received) {
        let each = |level, kind, data: *const u8, len: usize| match (level, kind) {
            #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if len >= mem::size_of::<libc::in_pktinfo>() => {
                // SAFETY: the message is one, by its type and length.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                received.to = Some(v4(info.ipi_addr));
                received.local = Some(v4(info.ipi_spec_dst)).filter(|ip| !ip.is_unspecified());
                received.interface = info.ipi_ifindex as _;
            }
            #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
            (libc::IPPROTO_IP, libc::IP_RECVDSTADDR) if len >= mem::size_of::<libc::in_addr>() => {
                // SAFETY: the message is one, by its type and length.
                let to = v4(unsafe { data.cast::<libc::in_addr>().read_unaligned() });
                received.to = Some(to);
                received.local = Some(to).filter(|ip| !ip.is_multicast());
            }
            // The more precise one for IPv4 may have been there before.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
                if len >= mem::size_of::<libc::in6_pktinfo>() && received.local.is_none() =>
            {
                // SAFETY: the message is one, by its type and length.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                let to = v6(info.ipi6_addr);
                received.to = Some(to);
                received.local = Some(to).filter(|ip| !ip.is_multicast());
                received.interface = info.ipi6_ifindex as _;
            }
            _ => {}
        };
        // SAFETY: as the caller promises.
        unsafe { each_control(msg, each) };
    }

    /// Takes one datagram. What does not fit is lost, and told.
    pub(crate) fn recv_datagram(
        socket: Borrowed<'_>,
        buf: &mut [u8],
        wait: Wait,
    ) -> io::Result<Received> {
        // SAFETY: all-zero names and headers are valid, empty ones.
        let (mut name, mut msg): (libc::sockaddr_storage, libc::msghdr) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        let mut control = Control([0; 256]);
        let mut slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        msg.msg_name = (&raw mut name).cast();
        msg.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
        msg.msg_iov = &raw mut slice;
        msg.msg_iovlen = 1;
        msg.msg_control = control.0.as_mut_ptr().cast();
        msg.msg_controllen = control.0.len() as _;
        let flags = flags(wait) | WHOLE_LENGTH;
        // SAFETY: msg describes buffers that outlive the call.
        let len = check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) })?;
        // SAFETY: the kernel has filled what msg describes.
        Ok(unsafe { received(&msg, len, buf.len()) })
    }

    /// # Safety
    /// The kernel has filled what `msg` describes.
    unsafe fn received(msg: &libc::msghdr, len: usize, room: usize) -> Received {
        let mut received = Received {
            len: len.min(room),
            original_len: len,
            truncated: msg.msg_flags & libc::MSG_TRUNC != 0,
            ..Received::default()
        };
        // SAFETY: as the caller promises.
        unsafe {
            received.from = read_name(msg.msg_name.cast_const().cast(), msg.msg_namelen as usize);
            read_control(msg, &mut received);
        }
        received
    }

    /// Puts one more control message into the buffer that `msg` has for them.
    ///
    /// # Safety
    /// `msg.msg_control` is an aligned buffer with room for it after `msg.msg_controllen` bytes of
    /// other messages.
    unsafe fn put_control<T>(msg: &mut libc::msghdr, level: c_int, kind: c_int, value: T) {
        let size = mem::size_of::<T>() as libc::c_uint;
        let used: usize = msg.msg_controllen as _;
        // SAFETY: there is room, as the caller promises, and CMSG_SPACE keeps it aligned.
        unsafe {
            let header = msg.msg_control.byte_add(used).cast::<libc::cmsghdr>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(size) as _;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
            msg.msg_controllen = (used + libc::CMSG_SPACE(size) as usize) as _;
        }
    }

    /// # Safety
    /// As for [`put_control`].
    unsafe fn put_source(msg: &mut libc::msghdr, source: Source, ipv6: bool) {
        if ipv6 {
            // Of IPv4, too, as a mapped address: Linux takes it for both.
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
    fn header(run: &Run<'_>, control: &mut Control, ipv6: bool) -> libc::msghdr {
        // SAFETY: an all-zero msghdr is a valid, empty one.
        let mut msg: libc::msghdr = unsafe { mem::zeroed() };
        if let Some(to) = &run.to {
            msg.msg_name = to.as_ptr().cast_mut().cast();
            msg.msg_namelen = to.len();
        }
        // IoSlice is an iovec by the standard library's promise; sending only reads it.
        msg.msg_iov = run.pieces.as_ptr().cast_mut().cast();
        msg.msg_iovlen = run.pieces.len() as _;
        msg.msg_control = control.0.as_mut_ptr().cast();
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
        let mut control = Control([0; 256]);
        let msg = header(run, &mut control, ipv6);
        let flags = flags(wait) | NO_SIGPIPE;
        // SAFETY: msg describes buffers that outlive the call; sendmsg only reads them.
        check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const msg, flags) })?;
        Ok(())
    }

    /// Sends runs in their order; how many were sent. An error is that of the first.
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
        let mut controls: Vec<_> = runs.iter().map(|_| Control([0; 256])).collect();
        let header =
            |(run, control)| libc::mmsghdr { msg_hdr: header(run, control, ipv6), msg_len: 0 };
        let mut messages: Vec<_> = runs.iter().zip(&mut controls).map(header).collect();
        let flags = flags(wait) | NO_SIGPIPE;
        // SAFETY: there are so many messages, which describe buffers that outlive the call.
        let sent = check_int(unsafe {
            let count = messages.len() as libc::c_uint;
            libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, flags as _)
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

    /// Takes datagrams, one into each buffer, as many as there are; it waits for the first only.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn recv_datagrams(
        socket: Borrowed<'_>,
        bufs: &mut [IoSliceMut<'_>],
        wait: Wait,
    ) -> io::Result<Vec<Received>> {
        let count = bufs.len();
        // Not written before the kernel does: that would be most of the work for few datagrams.
        let mut names = Vec::<libc::sockaddr_storage>::with_capacity(count);
        let mut controls = Vec::<Control>::with_capacity(count);
        let (names, controls) = (names.spare_capacity_mut(), controls.spare_capacity_mut());
        let mut messages = Vec::<libc::mmsghdr>::with_capacity(count);
        for (buf, (name, control)) in bufs.iter_mut().zip(names.iter_mut().zip(controls)) {
            // SAFETY: an all-zero mmsghdr is a valid, empty one.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = name.as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = mem::size_of_val(name) as libc::socklen_t;
            // IoSliceMut is an iovec by the standard library's promise.
            message.msg_hdr.msg_iov = std::ptr::from_mut(buf).cast();
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = mem::size_of_val(control) as _;
            messages.push(message);
        }
        let wait = match wait {
            Wait::Yes => libc::MSG_WAITFORONE,
            Wait::No => libc::MSG_DONTWAIT,
        };
        let flags = wait | WHOLE_LENGTH;
        // SAFETY: there are so many messages, which describe buffers that outlive the call.
        let got = check_int(unsafe {
            let (fd, count) = (socket.as_raw_fd(), messages.len() as libc::c_uint);
            libc::recvmmsg(fd, messages.as_mut_ptr(), count, flags as _, std::ptr::null_mut())
        })?;
        let got = messages.iter().zip(bufs.iter()).take(check(got as isize)?);
        // SAFETY: the kernel has filled what these messages describe.
        let each = |(m, buf): (&libc::mmsghdr, &IoSliceMut<'_>)| unsafe {
            received(&m.msg_hdr, m.msg_len as usize, buf.len())
        };
        Ok(got.map(each).collect())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn recv_datagrams(
        socket: Borrowed<'_>,
        bufs: &mut [IoSliceMut<'_>],
        wait: Wait,
    ) -> io::Result<Vec<Received>> {
        let mut got = Vec::with_capacity(bufs.len());
        for buf in bufs {
            let wait = if got.is_empty() { wait } else { Wait::No };
            match recv_datagram(socket, buf, wait) {
                Ok(received) => got.push(received),
                Err(_) if !got.is_empty() => break,
                Err(e) => return Err(e),
            }
        }
        Ok(got)
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
                // SAFETY: the address of who reported it follows; read_name looks at the length.
                let by = unsafe { read_name(data.add(KNOWN).cast(), len - KNOWN) };
                found = i32::try_from(told.ee_errno).ok().map(|code| (code, by));
            };
            // SAFETY: the kernel has filled what msg describes.
            let to = unsafe {
                each_control(&msg, each);
                read_name(std::ptr::from_ref(&name).cast(), msg.msg_namelen as usize)
            };
            if let Some((code, by)) = found {
                return Ok(Some(Reported { code, to, by: by.map(|by| by.ip()) }));
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
        super::super::is_from_network(err) || is_too_long(err)
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

    /// Whether the descriptor is a UDP socket.
    pub(crate) fn is_udp(socket: Borrowed<'_>) -> io::Result<bool> {
        let socket = socket2::SockRef::from(&socket);
        let inet = socket.local_addr()?.as_socket().is_some();
        Ok(inet && socket.r#type()? == Type::DGRAM)
    }
}

/// Not yet on systems other than Unix: no socket is made, so nothing else comes to pass.
#[cfg(not(unix))]
mod here {
    use socket2::Domain;

    use super::super::{Borrowed, Owned, Wait};
    use super::*;

    fn unsupported<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn datagram_socket(_: Domain) -> io::Result<Owned> {
        unsupported()
    }

    pub(crate) fn want_destination(_: Borrowed<'_>, _ipv6: bool) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn report_errors(_: Borrowed<'_>, _ipv6: bool, _on: bool) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn recv_datagram(_: Borrowed<'_>, _: &mut [u8], _: Wait) -> io::Result<Received> {
        unsupported()
    }

    pub(crate) fn send_datagram(
        _: Borrowed<'_>,
        _ipv6: bool,
        run: &Run<'_>,
        _: Wait,
    ) -> io::Result<()> {
        let _ = (run.pieces, &run.to, run.source);
        unsupported()
    }

    pub(crate) fn send_datagrams(
        _: Borrowed<'_>,
        _ipv6: bool,
        _: &[Run<'_>],
        _: Wait,
    ) -> io::Result<usize> {
        unsupported()
    }

    pub(crate) fn recv_datagrams(
        _: Borrowed<'_>,
        _: &mut [IoSliceMut<'_>],
        _: Wait,
    ) -> io::Result<Vec<Received>> {
        unsupported()
    }

    pub(crate) fn set_member(
        _: Borrowed<'_>,
        _group: IpAddr,
        _interface: u32,
        _source: Option<IpAddr>,
        _join: bool,
    ) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn to_groups(
        _: Borrowed<'_>,
        _ipv4: bool,
        _ipv6: bool,
        setting: ToGroups,
    ) -> io::Result<()> {
        let _ = match setting {
            ToGroups::Loop(on) => u32::from(on),
            ToGroups::Ttl(ttl) => u32::from(ttl),
            ToGroups::Interface(index) => index,
        };
        unsupported()
    }

    pub(crate) fn next_reported(_: Borrowed<'_>) -> io::Result<Option<Reported>> {
        unsupported()
    }

    pub(crate) fn is_reported(_: &io::Error) -> bool {
        false
    }

    pub(crate) fn is_too_long(_: &io::Error) -> bool {
        false
    }

    pub(crate) fn may_refuse_segments(_: &io::Error) -> bool {
        false
    }

    pub(crate) fn is_udp(_: Borrowed<'_>) -> io::Result<bool> {
        unsupported()
    }
}

pub(crate) use here::*;
