//! Adopting listening sockets that another program or another process has created.

use std::io;
use std::net::SocketAddr;

use crate::sys::SockRef;

use super::listen::backlog;
use super::socket::BoundListener;
use super::{ServerSocket, new_close_event};
use crate::io::wait::Cause;
use crate::options::SocketOptions;
use crate::socket_file::InheritedSocket;
use crate::sys::{self, Borrowed, Families, Owned};
use crate::types::address::Address;
use crate::types::endpoint::{Endpoint, Host, Port, Target};
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::sockopt::Sockets;

pub(super) const ADOPT: &str = "adopt";

/// The result of [`inspect_listener`].
struct AdoptedInfo {
    address: Address,
    endpoint: Endpoint,
    is_seqpacket: bool,
}

impl ServerSocket {
    /// Adopts a listening socket: a stream socket, or a
    /// [`SOCK_SEQPACKET`](SocketOptions::seqpacket) socket. For the sockets that a service manager
    /// or a predecessor passed to this process, use [`Activation`](crate::Activation).
    ///
    /// The options are set on the socket, including the options that are off by default. The
    /// [`backlog`](SocketOptions::backlog) stays unchanged if the options have none.
    ///
    /// Other processes may have the same listening socket, and continue to accept when this
    /// process closes it. So the socket is in non-blocking mode from now on, in all processes, and
    /// each accept costs one poll more.
    ///
    /// # Errors
    /// The descriptor is returned with the error.
    /// - [`WrongState`](ErrorKind::WrongState): the descriptor is not a listening stream or
    ///   seqpacket socket. Or the options request [`seqpacket`](SocketOptions::seqpacket) or
    ///   [`mptcp`](SocketOptions::mptcp), and the socket was created without it.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of range, or does not
    ///   apply to a socket of this kind that exists already. The error names the option.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or the kernel does not have an
    ///   option that was set.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left. The call needs one.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left.
    /// - [`Os`](ErrorKind::Os): another error of the operating system, for example EBADF.
    ///
    /// ```
    /// use keepsock::{ServerSocket, SocketOptions};
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let port = listener.local_addr()?.port();
    /// let server = ServerSocket::from_owned(listener.into(), &SocketOptions::new()).unwrap();
    /// assert_eq!(server.port(), port);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_owned(
        socket: Owned,
        options: &SocketOptions,
    ) -> std::result::Result<ServerSocket, (Owned, Error)> {
        if let Err(e) = options.refuse_making_only(ADOPT) {
            return Err((socket, e));
        }
        let mut one = vec![InheritedSocket { file: None, socket, ephemeral_port: false }];
        let server = ServerSocket::adopt(&mut one, options, true);
        server.map_err(|e| (one.remove(0).socket, e))
    }

    /// Adopts all `sockets` as one server, or none. `sockets` must not be empty. If `set_options`
    /// is false, the caller sets the options later with
    /// [`pending_options`](ServerSocket::pending_options).
    pub(crate) fn adopt(
        sockets: &mut Vec<InheritedSocket>,
        options: &SocketOptions,
        set_options: bool,
    ) -> Result<ServerSocket> {
        let inspect = |adopted: &InheritedSocket| inspect_listener(&adopted.socket, options);
        let infos = sockets.iter().map(inspect).collect::<Result<Vec<_>>>()?;
        let is_inet = |info: &AdoptedInfo| matches!(info.address, Address::Inet(_));
        let (inet, unix) = (infos.iter().any(is_inet), !infos.iter().all(is_inet));
        if !inet {
            options.refuse_tcp_only(ADOPT)?;
        }
        let kinds = Sockets::NONE.with(Sockets::LISTENING, inet).with(Sockets::UNIX, unix);
        options.refuse_other_sockets(kinds, ADOPT)?;
        let seqpacket = infos.iter().any(|info| info.is_seqpacket);
        if !infos.iter().all(|info| info.is_seqpacket == seqpacket) {
            let what = "some descriptors are SOCK_STREAM and some are SOCK_SEQPACKET: adopt them separately";
            return Err(Error::new(ErrorKind::WrongState, ADOPT).detail(what));
        }
        let close_event = new_close_event(true, ADOPT)?;
        for (adopted, info) in sockets.iter().zip(&infos) {
            let fd = sys::borrow(&adopted.socket);
            // First the options that the kernel may reject: the socket is then unchanged.
            let set = match set_options {
                true => set_listener_options(fd, &info.address, options),
                false => Ok(()),
            };
            // The socket is never in blocking mode, not even for a moment. O_NONBLOCK applies to
            // all processes that have the socket. A process that polled it must not block in
            // accept after another process has accepted the connection.
            set.and_then(|()| options.adopt(fd, true)).map_err(|c| c.into_error(ADOPT))?;
        }
        let bound = sockets.drain(..).zip(infos).map(|(adopted, info)| BoundListener {
            file: adopted.file,
            socket: adopted.socket,
            endpoint: info.endpoint,
            address: info.address,
            ephemeral_port: adopted.ephemeral_port,
        });
        let options = SocketOptions { seqpacket, ..options.clone() };
        Ok(ServerSocket::new(bound.collect(), &options, close_event, cfg!(unix)))
    }
}

/// Checks that a socket is a listening socket that can have the options, and reads its address.
/// The socket stays unchanged.
fn inspect_listener(socket: &Owned, options: &SocketOptions) -> Result<AdoptedInfo> {
    let wrong = |what: &str| Error::new(ErrorKind::WrongState, ADOPT).detail(what.to_owned());
    let os = |e: io::Error| Error::os(ADOPT, &e);
    options.validate(ADOPT)?;
    options.refuse_datagram_only(ADOPT)?;
    options.refuse_without_proxies(ADOPT)?;
    let fd = sys::borrow(socket);
    let is_seqpacket = match sys::connection_kind(fd).map_err(os)? {
        Some(kind) if kind.listens => kind.packets,
        Some(_) => {
            return Err(wrong("the descriptor is not a listening socket: call listen(2) first"));
        }
        None => return Err(wrong("the descriptor is not a stream socket")),
    };
    if options.seqpacket && !is_seqpacket {
        return Err(wrong("seqpacket is set, but the socket is not SOCK_SEQPACKET"));
    }
    if options.mptcp && !sys::is_made_for_mptcp(fd) {
        return Err(wrong("mptcp is set, but the socket is not an MPTCP socket"));
    }
    options.refuse_file_only(ADOPT)?;
    let name = SockRef::from(&fd).local_addr().map_err(os)?;
    if name.as_socket().is_some() {
        options.refuse_unix_only(ADOPT)?;
    } else {
        options.refuse_inet_only(ADOPT)?;
    }
    let address = sys::to_address(&name);
    let any = |port| Target::Inet { host: Host::Any, port: Port::Number(port) };
    let endpoint = match name.as_socket() {
        Some(inet) if is_dual(fd, inet) => Endpoint(any(inet.port())),
        _ => Endpoint::of(&address),
    };
    Ok(AdoptedInfo { address, endpoint, is_seqpacket })
}

pub(super) fn set_listener_options(
    fd: Borrowed<'_>,
    address: &Address,
    options: &SocketOptions,
) -> std::result::Result<(), Cause> {
    if let Address::Inet(inet) = address {
        let families = Families::of_bound(inet, is_dual(fd, *inet));
        options.apply_kernel(fd, Sockets::LISTENING, families)?;
        options.adopt_listener(fd)?;
        options.adopt_tcp(fd, inet.is_ipv6())?;
    } else {
        options.apply_kernel(fd, Sockets::UNIX, Families::None)?;
    }
    // On Linux, listen(2) on a listening socket changes the backlog.
    if options.backlog.is_some() {
        SockRef::from(&fd).listen(backlog(options))?;
    }
    Ok(())
}

/// Whether a socket accepts IPv4 and IPv6 on one port, as `*` does.
pub(crate) fn is_dual(socket: Borrowed<'_>, bound: SocketAddr) -> bool {
    let ipv6 = bound.is_ipv6() && bound.ip().is_unspecified();
    ipv6 && SockRef::from(&socket).only_v6().is_ok_and(|only| !only)
}
