//! [`Sockopt`]s, the congestion control, and options by number, by getsockopt(2) and
//! setsockopt(2).

use std::io;

use crate::sys::SockRef;

use super::{Borrowed, Families};
use crate::types::sockopt::Sockopt;

#[cfg(keepsock_linux)]
pub(crate) use flow_label::set_flow_label;
pub(crate) use platform::{owner_of, set_congestion_control, set_raw_option};

/// Sets an option whose value is in its range.
pub(crate) fn set_option(
    socket: Borrowed<'_>,
    option: Sockopt,
    value: u32,
    families: Families,
) -> io::Result<()> {
    let own = SockRef::from(&socket);
    match option {
        Sockopt::SendBuffer => own.set_send_buffer_size(value as usize),
        Sockopt::RecvBuffer => own.set_recv_buffer_size(value as usize),
        Sockopt::OobInline => own.set_out_of_band_inline(value != 0),
        Sockopt::Nodelay => own.set_tcp_nodelay(value != 0),
        Sockopt::ReuseAddress => own.set_reuse_address(value != 0),
        _ => platform::set(socket, option, value, families),
    }
}

/// Returns the value that the kernel uses.
pub(crate) fn get_option(
    socket: Borrowed<'_>,
    option: Sockopt,
    families: Families,
) -> io::Result<u32> {
    let own = SockRef::from(&socket);
    let size = |size: io::Result<usize>| Ok(u32::try_from(size?).unwrap_or(u32::MAX));
    match option {
        Sockopt::SendBuffer => size(own.send_buffer_size()),
        Sockopt::RecvBuffer => size(own.recv_buffer_size()),
        Sockopt::OobInline => own.out_of_band_inline().map(u32::from),
        Sockopt::Nodelay => own.tcp_nodelay().map(u32::from),
        Sockopt::ReuseAddress => own.reuse_address().map(u32::from),
        #[cfg(keepsock_linux)]
        Sockopt::FlowLabel => flow_label::get(socket, families),
        _ => platform::get(socket, option, families),
    }
}

#[cfg(not(keepsock_linux))]
pub(crate) fn set_flow_label(
    _: Borrowed<'_>,
    _: std::net::SocketAddrV6,
    _: u32,
) -> io::Result<socket2::SockAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(keepsock_linux)]
mod flow_label {
    use std::ffi::c_int;
    use std::io;
    use std::net::SocketAddrV6;

    use socket2::SockAddr;

    use super::super::{Borrowed, Families, sockopt};

    // linux/in6.h; the libc crate does not declare these.
    const IPV6_FLOWLABEL_MGR: c_int = 32;
    const IPV6_FLOWINFO_SEND: c_int = 33;
    const IPV6_FL_A_GET: u8 = 0;
    const IPV6_FL_F_CREATE: u16 = 1;
    const IPV6_FL_S_ANY: u8 = 255;

    /// struct in6_flowlabel_req.
    #[repr(C)]
    struct Request {
        destination: [u8; 16],
        /// In network byte order.
        label: u32,
        action: u8,
        share: u8,
        flags: u16,
        expires: u16,
        linger: u16,
        pad: u32,
    }

    /// Leases a flow label for the socket, and returns the name with the label. The kernel rejects a
    /// label in the name that the socket does not lease. The lease is shared with every user, so
    /// several sockets may have the label.
    pub(crate) fn set_flow_label(
        socket: Borrowed<'_>,
        to: SocketAddrV6,
        label: u32,
    ) -> io::Result<SockAddr> {
        let request = Request {
            destination: to.ip().octets(),
            label: label.to_be(),
            action: IPV6_FL_A_GET,
            share: IPV6_FL_S_ANY,
            flags: IPV6_FL_F_CREATE,
            expires: 0,
            linger: 0,
            pad: 0,
        };
        sockopt::set(socket, libc::IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, &request)?;
        sockopt::set(socket, libc::IPPROTO_IPV6, IPV6_FLOWINFO_SEND, &1)?;
        // The standard library copies the number without a change of the byte order.
        Ok(SocketAddrV6::new(*to.ip(), to.port(), label.to_be(), to.scope_id()).into())
    }

    /// Returns the label of a socket; 0: it has none.
    pub(super) fn get(socket: Borrowed<'_>, families: Families) -> io::Result<u32> {
        if !families.has_ipv6() {
            return Ok(0);
        }
        // SAFETY: the members are integers. The kernel reads a request of zeros, which is
        // IPV6_FL_A_GET, and writes the answer.
        match unsafe { sockopt::get::<Request>(socket, libc::IPPROTO_IPV6, IPV6_FLOWLABEL_MGR) } {
            Ok((request, _)) => Ok(u32::from_be(request.label)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(0),
            Err(e) => Err(e),
        }
    }
}

#[cfg(unix)]
mod platform {
    use std::ffi::c_int;
    use std::io;

    use super::super::{Borrowed, Families, sockopt};
    use crate::types::sockopt::Sockopt;

    pub(super) fn set(
        socket: Borrowed<'_>,
        option: Sockopt,
        value: u32,
        families: Families,
    ) -> io::Result<()> {
        let value = match option {
            // In whole seconds.
            Sockopt::DeferAccept => value.div_ceil(1000),
            _ => value,
        };
        let numbers = numbers(option, families);
        if numbers == [None, None] {
            return Err(io::ErrorKind::Unsupported.into());
        }
        for (level, name) in numbers.into_iter().flatten() {
            sockopt::set(socket, level, name, &value)?;
        }
        Ok(())
    }

    pub(super) fn get(
        socket: Borrowed<'_>,
        option: Sockopt,
        families: Families,
    ) -> io::Result<u32> {
        let numbers = numbers(option, families);
        let Some((level, name)) = numbers.into_iter().flatten().next() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        // SAFETY: getsockopt writes an integer.
        let (value, _) = unsafe { sockopt::get::<u32>(socket, level, name) }?;
        Ok(match option {
            Sockopt::DeferAccept => value.saturating_mul(1000),
            _ => value,
        })
    }

    /// The levels and the names of an option. A socket for both IP versions needs two of them.
    fn numbers(option: Sockopt, families: Families) -> [Option<(c_int, c_int)>; 2] {
        const TCP: c_int = libc::IPPROTO_TCP;
        let by_family = |v4, v6| {
            [
                families.has_ipv4().then_some((libc::IPPROTO_IP, v4)),
                families.has_ipv6().then_some((libc::IPPROTO_IPV6, v6)),
            ]
        };
        #[cfg(keepsock_linux)]
        {
            const SOCKET: c_int = libc::SOL_SOCKET;
            // linux/in6.h; the libc crate does not declare these.
            const IPV6_TRANSPARENT: c_int = 75;
            const IPV6_FREEBIND: c_int = 78;
            // Both options of one IP version apply to the socket as a whole.
            let one = |v4, v6| match families.has_ipv6() {
                true => (libc::IPPROTO_IPV6, v6),
                false => (libc::IPPROTO_IP, v4),
            };
            let number = match option {
                Sockopt::Tos => return by_family(libc::IP_TOS, libc::IPV6_TCLASS),
                Sockopt::ReusePort => (SOCKET, libc::SO_REUSEPORT),
                Sockopt::NotsentLowat => (TCP, libc::TCP_NOTSENT_LOWAT),
                Sockopt::DeferAccept => (TCP, libc::TCP_DEFER_ACCEPT),
                Sockopt::Mark => (SOCKET, libc::SO_MARK),
                Sockopt::Priority => (SOCKET, libc::SO_PRIORITY),
                Sockopt::Transparent => one(libc::IP_TRANSPARENT, IPV6_TRANSPARENT),
                Sockopt::Freebind => one(libc::IP_FREEBIND, IPV6_FREEBIND),
                Sockopt::MaxSegment => (TCP, libc::TCP_MAXSEG),
                Sockopt::Cork => (TCP, libc::TCP_CORK),
                _ => return [None, None],
            };
            [Some(number), None]
        }
        #[cfg(not(keepsock_linux))]
        {
            let number = match option {
                Sockopt::Tos => return by_family(libc::IP_TOS, libc::IPV6_TCLASS),
                // SO_REUSEPORT of FreeBSD does not distribute connections.
                #[cfg(target_os = "freebsd")]
                Sockopt::ReusePort => (libc::SOL_SOCKET, libc::SO_REUSEPORT_LB),
                // SO_REUSEPORT of illumos is new, and the libc crate does not declare it.
                #[cfg(not(any(target_os = "freebsd", target_os = "illumos")))]
                Sockopt::ReusePort => (libc::SOL_SOCKET, libc::SO_REUSEPORT),
                // netinet/tcp.h; the libc crate does not declare it.
                #[cfg(target_vendor = "apple")]
                Sockopt::NotsentLowat => (TCP, 0x201),
                Sockopt::MaxSegment => (TCP, libc::TCP_MAXSEG),
                _ => return [None, None],
            };
            [Some(number), None]
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    pub(crate) fn set_congestion_control(socket: Borrowed<'_>, name: &str) -> io::Result<()> {
        sockopt::set_bytes(socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    pub(crate) fn set_congestion_control(_: Borrowed<'_>, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_raw_option(
        socket: Borrowed<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> io::Result<()> {
        sockopt::set_bytes(socket, level, name, value)
    }

    /// The option of this library that sets an option of the kernel for its own purposes.
    pub(crate) fn owner_of(level: i32, name: i32) -> Option<&'static str> {
        const SO_RCVTIMEO_NEW: c_int = 66; // asm-generic/socket.h
        const SO_SNDTIMEO_NEW: c_int = 67;
        let linux = super::super::LINUX;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => Some("keepalive"),
            (libc::SOL_SOCKET, libc::SO_LINGER) => Some("close_timeout"),
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => Some("read_timeout"),
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => Some("write_timeout"),
            (libc::SOL_SOCKET, SO_RCVTIMEO_NEW) if linux => Some("read_timeout"),
            (libc::SOL_SOCKET, SO_SNDTIMEO_NEW) if linux => Some("write_timeout"),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => Some("nodelay"),
            #[cfg(not(any(target_vendor = "apple", target_os = "openbsd")))]
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => Some("keepalive"),
            #[cfg(target_vendor = "apple")]
            (libc::IPPROTO_TCP, libc::TCP_KEEPALIVE) => Some("keepalive"),
            #[cfg(not(target_os = "openbsd"))]
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL | libc::TCP_KEEPCNT) => Some("keepalive"),
            _ => None,
        }
    }
}

#[cfg(windows)]
mod platform {
    use std::io;
    use std::os::windows::io::AsRawSocket;

    use windows_sys::Win32::Networking::WinSock as ws;

    use super::super::{Borrowed, Families, check};
    use crate::types::sockopt::Sockopt;

    /// Windows ignores IP_TOS, and has none of the other options with a compatible meaning.
    pub(super) fn set(_: Borrowed<'_>, _: Sockopt, _: u32, _: Families) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn get(_: Borrowed<'_>, _: Sockopt, _: Families) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_congestion_control(_: Borrowed<'_>, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_raw_option(
        socket: Borrowed<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> io::Result<()> {
        let len = i32::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the system reads `len` bytes of `value`.
        check(unsafe {
            let socket = socket.as_raw_socket() as ws::SOCKET;
            ws::setsockopt(socket, level, name, value.as_ptr(), len)
        })?;
        Ok(())
    }

    /// The option of this library that sets an option of the kernel for its own purposes.
    pub(crate) fn owner_of(level: i32, name: i32) -> Option<&'static str> {
        match (level, name) {
            (ws::SOL_SOCKET, ws::SO_KEEPALIVE) => Some("keepalive"),
            (ws::SOL_SOCKET, ws::SO_LINGER) => Some("close_timeout"),
            (ws::SOL_SOCKET, ws::SO_RCVTIMEO) => Some("read_timeout"),
            (ws::SOL_SOCKET, ws::SO_SNDTIMEO) => Some("write_timeout"),
            (ws::IPPROTO_TCP, ws::TCP_NODELAY) => Some("nodelay"),
            (ws::IPPROTO_TCP, ws::TCP_KEEPIDLE | ws::TCP_KEEPINTVL | ws::TCP_KEEPCNT) => {
                Some("keepalive")
            }
            _ => None,
        }
    }
}
