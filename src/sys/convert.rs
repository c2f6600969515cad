//! Conversions between values of the operating system and the types of `crate::types`.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};

use crate::sys;
use crate::types::address::canonical;
#[cfg(keepsock_linux)]
use crate::types::credentials::Credentials;
use crate::types::endpoint::{Endpoint, Host, Port, Target};
use crate::types::error::{About, Error, ErrorKind, Result};

impl ErrorKind {
    /// The kind of an operating-system error that a system call returned for itself. For an error
    /// that the network caused, see [`reported`](ErrorKind::reported).
    pub(crate) fn of(err: &io::Error) -> ErrorKind {
        if sys::is_out_of_descriptors(err) {
            return ErrorKind::NoDescriptors;
        }
        match err.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => ErrorKind::Reset,
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            io::ErrorKind::WouldBlock => ErrorKind::WouldBlock,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => ErrorKind::Unreachable,
            io::ErrorKind::AddrInUse => ErrorKind::AddressInUse,
            io::ErrorKind::AddrNotAvailable => ErrorKind::AddressNotAvailable,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::OutOfMemory => ErrorKind::NoMemory,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ if sys::is_out_of_memory(err) => ErrorKind::NoMemory,
            _ if sys::is_unsupported(err) => ErrorKind::Unsupported,
            _ if sys::is_no_interface(err) => ErrorKind::InvalidEndpoint,
            _ => ErrorKind::Os,
        }
    }

    /// The kind of the error of creating a helper descriptor: an eventfd, a timerfd, an epoll
    /// descriptor, a socket pair. Its other numbers have another meaning than those of an address:
    /// ENODEV of eventfd2(2) does not mean that an interface is missing.
    pub(crate) fn of_helper(err: &io::Error) -> ErrorKind {
        match ErrorKind::of(err) {
            kind @ (ErrorKind::NoDescriptors | ErrorKind::NoMemory | ErrorKind::Unsupported) => {
                kind
            }
            _ => ErrorKind::Os,
        }
    }

    /// The kind of an error that the network caused: an RST, an ICMP message (icmp_err_convert in
    /// net/ipv4/icmp.c, tab_unreach in net/ipv6/icmp.c), or a timeout of the kernel.
    ///
    /// The kernel reports such an error through SO_ERROR, from a call on the established
    /// connection, or through the error queue. connect(2) or sendto(2) may return the same number
    /// with another meaning: EACCES from connect(2) is a policy of this machine, EACCES from the
    /// network is a firewall on the way.
    pub(crate) fn reported(err: &io::Error, about: About) -> ErrorKind {
        match (ErrorKind::of(err), about) {
            (ErrorKind::TimedOut, About::Connection) => ErrorKind::Dead,
            // A peer cannot refuse an established connection: a firewall has started to reject it.
            (ErrorKind::Refused, About::Connection) => ErrorKind::Unreachable,
            (kind @ (ErrorKind::Refused | ErrorKind::Reset | ErrorKind::TimedOut), _) => kind,
            _ if about == About::Datagram && sys::is_too_long(err) => ErrorKind::TooLong,
            _ if sys::is_from_network(err) => ErrorKind::Unreachable,
            // EOPNOTSUPP is the ICMP message "source route failed".
            (ErrorKind::Unsupported, About::Handshake | About::Datagram) => ErrorKind::Unreachable,
            (kind, _) => kind,
        }
    }

    /// Returns the errno that a caller of the plain socket functions expects for this kind, such as
    /// ETIMEDOUT for [`TimedOut`](ErrorKind::TimedOut). Windows: a value of `<errno.h>`, and not a
    /// WSA code. For the error of a call use [`Error::errno`], which prefers the number of the
    /// operating system.
    ///
    /// ```
    /// let os = std::io::Error::from_raw_os_error(keepsock::ErrorKind::Refused.errno());
    /// # if cfg!(unix) {
    /// assert_eq!(os.kind(), std::io::ErrorKind::ConnectionRefused);
    /// # }
    /// ```
    pub const fn errno(self) -> i32 {
        match self {
            ErrorKind::InvalidArgument | ErrorKind::InvalidEndpoint | ErrorKind::WrongState => {
                libc::EINVAL
            }
            ErrorKind::Unsupported => libc::EOPNOTSUPP,
            ErrorKind::NoMemory => libc::ENOMEM,
            ErrorKind::Closed => libc::EBADF,
            ErrorKind::Cancelled | ErrorKind::Draining => libc::ECANCELED,
            ErrorKind::TimedOut
            | ErrorKind::Dead
            | ErrorKind::Stalled
            | ErrorKind::IdleTimeout
            | ErrorKind::HeartbeatTimeout => libc::ETIMEDOUT,
            ErrorKind::WouldBlock => libc::EAGAIN,
            ErrorKind::EndOfStream => libc::EPIPE,
            ErrorKind::TooLong => libc::EMSGSIZE,
            ErrorKind::Malformed => libc::EBADMSG,
            ErrorKind::NotFound => libc::ENOENT,
            ErrorKind::Refused => libc::ECONNREFUSED,
            ErrorKind::Unreachable | ErrorKind::LookupFailed => libc::EHOSTUNREACH,
            ErrorKind::Reset => libc::ECONNRESET,
            ErrorKind::AddressInUse => libc::EADDRINUSE,
            ErrorKind::AddressNotAvailable => libc::EADDRNOTAVAIL,
            ErrorKind::PermissionDenied => libc::EACCES,
            ErrorKind::NoDescriptors => libc::EMFILE,
            ErrorKind::Panic | ErrorKind::Os => libc::EIO,
        }
    }
}

impl Error {
    /// Returns the errno that a caller of the plain socket functions expects: the number of the
    /// operating system if a system call failed, otherwise that of the
    /// [kind](ErrorKind::errno). It is never 0, so a program that offers its own callers errno
    /// stores it there.
    ///
    /// EAGAIN means [`WouldBlock`](ErrorKind::WouldBlock) only. A failed name lookup has
    /// [`lookup_code`](Error::lookup_code) as well.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ErrorKind};
    /// let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    /// let err = ClientSocket::connect(format!("127.0.0.1:{port}")).unwrap_err();
    /// assert_eq!(err.errno(), ErrorKind::Refused.errno());   // ECONNREFUSED
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn errno(&self) -> i32 {
        use ErrorKind::{LookupFailed, TimedOut, Unreachable, WouldBlock};
        const UNFINISHED: [i32; 4] = [libc::EAGAIN, libc::EINPROGRESS, libc::EALREADY, libc::EINTR];
        match (self.kind(), self.os_error()) {
            // The error of the resolver concerns the name server, and not the peer.
            (kind @ (TimedOut | WouldBlock | LookupFailed), _) => kind.errno(),
            // A route discards the packets, and the arguments are valid.
            (Unreachable, Some(libc::EINVAL)) => Unreachable.errno(),
            (_, Some(code)) if cfg!(unix) && !UNFINISHED.contains(&code) => code,
            (kind, _) => kind.errno(),
        }
    }

    /// The error of creating a helper descriptor. See [`ErrorKind::of_helper`].
    pub(crate) fn helper(operation: &'static str, err: &io::Error) -> Error {
        Error::new(ErrorKind::of_helper(err), operation).with_os_error(err.raw_os_error())
    }

    /// The error of a system call that failed.
    pub(crate) fn os(operation: &'static str, err: &io::Error) -> Error {
        Error::new(ErrorKind::of(err), operation).with_os_error(err.raw_os_error())
    }
}

impl Endpoint {
    /// The socket address of a numeric endpoint. Does not use a resolver.
    pub(crate) fn to_socket_addr(&self) -> Result<SocketAddr> {
        let refuse = |what: String| {
            Err(Error::new(ErrorKind::InvalidEndpoint, "address").at(self).detail(what))
        };
        match &self.0 {
            Target::Inet { host: Host::V4(ip), port: Port::Number(port) } => {
                Ok(SocketAddr::new((*ip).into(), *port))
            }
            Target::Inet { host: Host::V6(ip, zone), port: Port::Number(port) } => {
                let scope = match zone {
                    None => 0,
                    Some(zone) => match sys::zone_index(zone) {
                        Some(index) => index,
                        None => {
                            return refuse(format!(
                                "this machine has no interface {zone:?}, which the zone names"
                            ));
                        }
                    },
                };
                Ok(canonical(SocketAddrV6::new(*ip, *port, 0, scope).into()))
            }
            _ => refuse("not a numeric address and port: write them as numbers".to_owned()),
        }
    }
}

/// The credentials that the kernel reports. The process ID is 0 if this process cannot see the PID
/// namespace of the peer.
#[cfg(keepsock_linux)]
pub(super) fn credentials(of: libc::ucred) -> Credentials {
    let pid = u32::try_from(of.pid).ok().filter(|pid| *pid != 0);
    Credentials { pid, uid: of.uid, gid: of.gid }
}
