//! Broadcast and multicast.

use std::io;
use std::net::IpAddr;

use socket2::SockRef;

use super::DatagramSocket;
use crate::error::{ErrorKind, Result};
use crate::sys::{self, ToGroups};

impl DatagramSocket {
    /// Whether datagrams may be sent to broadcast addresses; sending to one is
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) otherwise. Receiving needs nothing but a
    /// socket that is bound to a wildcard. Default: no.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for Unix sockets; [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if cfg!(windows) { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("0.0.0.0:0")?;
    /// socket.set_broadcast(true)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_broadcast(&self, on: bool) -> Result<()> {
        const OPERATION: &str = "broadcast";
        let io = self.enter(OPERATION)?;
        self.inet(OPERATION)?;
        let set = SockRef::from(&io.socket()).set_broadcast(on);
        set.map_err(|e| self.failed(OPERATION, e.into(), None))
    }

    /// Joins a multicast group, to receive what is sent to it and to this socket's port: on one
    /// interface, by name or index, or on the one that the system has a way to the group by; from
    /// all senders, or from one (RFC 4607). A second call with another sender adds that one. The
    /// socket gets what it has joined, and not what others on this machine have. Bind it to a
    /// wildcard, or to the group.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if it is no group, or of another family
    /// than the socket or the sender; [`InvalidEndpoint`](ErrorKind::InvalidEndpoint) for an
    /// interface that is not there, or if there is no way to the group;
    /// [`AddressInUse`](ErrorKind::AddressInUse) if it was joined before;
    /// [`NoMemory`](ErrorKind::NoMemory) for more groups than the system allows
    /// (igmp_max_memberships of ip(7): 20);
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux and FreeBSD, and for
    /// Unix sockets; [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// let group = "239.83.0.1".parse().unwrap();
    /// socket.join(group, Some("lo"), None)?;
    /// socket.leave(group, Some("lo"), None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn join(
        &self,
        group: IpAddr,
        interface: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<()> {
        self.set_member("join", group, interface, source, true)
    }

    /// Leaves a group that was [joined](DatagramSocket::join) with the same arguments. Closing
    /// leaves all.
    ///
    /// # Errors
    /// Those of [`join`](DatagramSocket::join), and
    /// [`AddressNotAvailable`](ErrorKind::AddressNotAvailable) if it was not joined.
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// let group = "239.83.0.1".parse().unwrap();
    /// socket.join(group, Some("lo"), None)?;
    /// socket.leave(group, Some("lo"), None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn leave(
        &self,
        group: IpAddr,
        interface: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<()> {
        self.set_member("leave", group, interface, source, false)
    }

    fn set_member(
        &self,
        operation: &'static str,
        group: IpAddr,
        interface: Option<&str>,
        source: Option<IpAddr>,
        join: bool,
    ) -> Result<()> {
        let io = self.enter(operation)?;
        let families = self.inet(operation)?.families();
        let refuse = |what: String| {
            let error = self.failed(operation, ErrorKind::InvalidArgument.into(), None);
            Err(error.detail(what))
        };
        if !group.is_multicast() {
            return refuse(format!("{group} is no multicast group"));
        }
        if group.is_ipv4() && !families.ipv4 || group.is_ipv6() && !families.ipv6 {
            return refuse(format!("{group} is not of the socket's family"));
        }
        if let Some(source) = source.filter(|source| source.is_ipv4() != group.is_ipv4()) {
            return refuse(format!("{source} and {group} are of two families"));
        }
        let index = match interface {
            Some(name) => self.interface(operation, name)?,
            None => 0,
        };
        sys::set_member(io.socket(), group, index, source, join).map_err(|e| {
            let cause = match (join, source, e.kind()) {
                // With a sender Linux says so that the group was not joined, or that the sender
                // was added before.
                (false, Some(_), io::ErrorKind::InvalidInput) => {
                    ErrorKind::AddressNotAvailable.into()
                }
                (true, Some(_), io::ErrorKind::AddrNotAvailable) => ErrorKind::AddressInUse.into(),
                _ => e.into(),
            };
            let error = self.failed(operation, cause, None);
            let no_way = error.kind() == ErrorKind::InvalidEndpoint;
            let what = if no_way { "no interface for " } else { "" };
            error.detail(format!("{what}{group}"))
        })
    }

    fn interface(&self, operation: &'static str, name: &str) -> Result<u32> {
        sys::zone_index(name).ok_or_else(|| {
            let error = self.failed(operation, ErrorKind::InvalidEndpoint.into(), None);
            error.detail(format!("no such interface: {name:?}"))
        })
    }

    /// Whether what this socket sends to a group is received on this machine, too. Default: yes.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux and FreeBSD, and for
    /// Unix sockets; [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_multicast_loop(false)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_multicast_loop(&self, on: bool) -> Result<()> {
        self.set_to_groups(ToGroups::Loop(on))
    }

    /// How many networks what this socket sends to a group passes; 0: none but this machine.
    /// Default: 1, the local network.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux and FreeBSD, and for
    /// Unix sockets; [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_multicast_ttl(4)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_multicast_ttl(&self, ttl: u8) -> Result<()> {
        self.set_to_groups(ToGroups::Ttl(ttl))
    }

    /// The interface, by name or index, that what this socket sends to a group leaves by. Default:
    /// as routed.
    ///
    /// # Errors
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint) for one that is not there;
    /// [`Unsupported`](ErrorKind::Unsupported) on systems other than Linux and FreeBSD, and for
    /// Unix sockets; [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// socket.set_multicast_interface("lo")?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn set_multicast_interface(&self, name: &str) -> Result<()> {
        self.set_to_groups(ToGroups::Interface(self.interface("multicast", name)?))
    }

    fn set_to_groups(&self, setting: ToGroups) -> Result<()> {
        const OPERATION: &str = "multicast";
        let io = self.enter(OPERATION)?;
        let families = self.inet(OPERATION)?.families();
        sys::to_groups(io.socket(), families, setting)
            .map_err(|e| self.failed(OPERATION, e.into(), None))
    }
}
