//! Broadcast and multicast.

use std::io;
use std::net::IpAddr;

use crate::sys::SockRef;

use super::DatagramSocket;
use crate::sys::{self, ToGroups};
use crate::types::error::{ErrorKind, Result};

impl DatagramSocket {
    /// Permits datagrams to broadcast addresses. Without it, sending to such an address returns
    /// [`PermissionDenied`](ErrorKind::PermissionDenied). Receiving broadcasts requires only a socket
    /// that is bound to a wildcard address. Default: false.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): a Unix socket.
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
    ///
    /// ```
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

    /// Joins a multicast group: the socket receives the datagrams to the group and to its port.
    ///
    /// `interface` is a name or an index; `None` selects the interface of the route to the group.
    /// `source` limits the senders to one (source-specific multicast, RFC 4607); a further call with
    /// another source adds it. The socket does not receive groups that only other sockets of the machine
    /// have joined. Bind the socket to a wildcard address, or to the group.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the address is not a multicast group, or its
    ///   family differs from that of the socket or of the source
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the interface does not exist, or there is no
    ///   route to the group
    /// - [`AddressInUse`](ErrorKind::AddressInUse): the socket has joined the group already
    /// - [`NoMemory`](ErrorKind::NoMemory): more groups than the system permits (igmp_max_memberships of
    ///   ip(7): 20)
    /// - [`Unsupported`](ErrorKind::Unsupported): a system other than Linux, macOS,
    ///   FreeBSD and Windows, or a Unix socket
    /// - [`Closed`](ErrorKind::Closed): the socket was closed
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// let group = "239.83.0.1".parse().unwrap();
    /// socket.join_multicast(group, Some("lo"), None)?;
    /// socket.leave_multicast(group, Some("lo"), None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn join_multicast(
        &self,
        group: IpAddr,
        interface: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<()> {
        self.set_member("join", group, interface, source, true)
    }

    /// Leaves a group that was [joined](DatagramSocket::join_multicast) with the same arguments. Closing
    /// the socket leaves all groups.
    ///
    /// # Errors
    /// - [`AddressNotAvailable`](ErrorKind::AddressNotAvailable): the socket has not joined the group with
    ///   these arguments
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the address is not a multicast group, or its
    ///   family differs from that of the socket or of the source
    /// - [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the interface does not exist
    /// - [`Unsupported`](ErrorKind::Unsupported): a system other than Linux, macOS,
    ///   FreeBSD and Windows, or a Unix socket
    /// - [`Closed`](ErrorKind::Closed): the socket was closed
    ///
    /// ```
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let socket = keepsock::DatagramSocket::bind("*:0")?;
    /// let group = "239.83.0.1".parse().unwrap();
    /// socket.join_multicast(group, Some("lo"), None)?;
    /// socket.leave_multicast(group, Some("lo"), None)?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn leave_multicast(
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
            return refuse(format!("{group} is not a multicast address"));
        }
        if group.is_ipv4() && !families.has_ipv4() || group.is_ipv6() && !families.has_ipv6() {
            return refuse(format!("the socket is of another address family than group {group}"));
        }
        if let Some(source) = source.filter(|source| source.is_ipv4() != group.is_ipv4()) {
            return refuse(format!(
                "source {source} and group {group} are of different address families"
            ));
        }
        let index = match interface {
            Some(name) => self.interface(operation, name)?,
            None => 0,
        };
        sys::set_member(io.socket(), group, index, source, join).map_err(|e| {
            let cause = match (join, source, e.kind()) {
                // With a source, Linux returns this error if the group was not joined, or if the source
                // was added before.
                (false, Some(_), io::ErrorKind::InvalidInput) => {
                    ErrorKind::AddressNotAvailable.into()
                }
                (true, Some(_), io::ErrorKind::AddrNotAvailable) => ErrorKind::AddressInUse.into(),
                _ => e.into(),
            };
            let error = self.failed(operation, cause, None);
            let source = source.map_or_else(String::new, |ip| format!(" from source {ip}"));
            let on = interface.map_or_else(String::new, |name| format!(" on interface {name:?}"));
            let membership = format!("group {group}{source}{on}");
            let what = match (error.kind(), join) {
                (ErrorKind::InvalidEndpoint, _) => {
                    format!("no interface has a route to {membership}: name an interface")
                }
                (ErrorKind::AddressInUse, true) => {
                    format!("the socket is a member of {membership} already")
                }
                (ErrorKind::AddressNotAvailable, false) => {
                    format!("the socket is not a member of {membership}")
                }
                _ => membership,
            };
            error.detail(what)
        })
    }

    fn interface(&self, operation: &'static str, name: &str) -> Result<u32> {
        sys::zone_index(name).ok_or_else(|| {
            let error = self.failed(operation, ErrorKind::InvalidEndpoint.into(), None);
            error.detail(format!("this machine has no interface {name:?}"))
        })
    }

    /// Delivers outgoing multicast datagrams to sockets of this machine as well. Default: true. On Windows
    /// the option of the receiving socket applies: whether it receives multicast datagrams of this machine.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): a system other than Linux, macOS,
    /// FreeBSD and Windows, or a Unix socket.
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
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

    /// Sets the TTL of outgoing multicast datagrams: the number of networks that they may pass. 0: they
    /// do not leave this machine. Default: 1, the local network.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): a system other than Linux, macOS,
    /// FreeBSD and Windows, or a Unix socket.
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
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

    /// Sets the outgoing interface of multicast datagrams, by name or index. Default: the interface of
    /// the route.
    ///
    /// # Errors
    /// [`InvalidEndpoint`](ErrorKind::InvalidEndpoint): the interface does not exist.
    /// [`Unsupported`](ErrorKind::Unsupported): a system other than Linux, macOS,
    /// FreeBSD and Windows, or a Unix socket.
    /// [`Closed`](ErrorKind::Closed): the socket was closed.
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
