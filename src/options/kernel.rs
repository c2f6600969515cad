//! Options of the operating system that a program sets: by [`Sockopt`], by name, or by number.

use std::io;
use std::net::{IpAddr, SocketAddrV6};

use socket2::SockAddr;

use super::SocketOptions;
use crate::io::wait::{Cause, OptionFailure};
use crate::sys::{self, Borrowed, Families};
use crate::types::address::Family;
use crate::types::endpoint::{Endpoint, Host, Target};
use crate::types::error::{Bytes, Error, ErrorKind, Grouped, Result};
use crate::types::sockopt::{Sockets, Sockopt};

/// The longest name of a congestion control, without the final NUL (TCP_CA_NAME_MAX of Linux).
const CONGESTION_NAME_MAX: usize = 15;

/// The longest value of an option by number. Longer than each structure of the kernel.
const RAW_MAX: usize = 4096;

/// An option that is set before bind, connect or listen. They are set in the order of the variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KernelOption {
    /// In the order of the options, because TOS changes the priority.
    Number(Sockopt, u32),
    CongestionControl(String),
    Raw {
        level: i32,
        name: i32,
        value: Box<[u8]>,
    },
}

impl KernelOption {
    /// The position in the order, and whether `self` replaces `other`.
    fn rank(&self) -> (u8, i32) {
        match self {
            KernelOption::Number(option, _) => (0, *option as i32),
            KernelOption::CongestionControl(_) => (1, 0),
            KernelOption::Raw { .. } => (2, 0),
        }
    }

    fn replaces(&self, other: &KernelOption) -> bool {
        match (self, other) {
            (
                KernelOption::Raw { level, name, .. },
                KernelOption::Raw { level: other_level, name: other_name, .. },
            ) => (level, name) == (other_level, other_name),
            _ => self.rank() == other.rank(),
        }
    }

    /// The sockets that have the option; `None`: that is not known.
    fn sockets(&self) -> Option<Sockets> {
        match self {
            KernelOption::Number(option, _) => Some(option.sockets()),
            KernelOption::CongestionControl(_) => Some(Sockets::TCP),
            KernelOption::Raw { .. } => None,
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        match self {
            KernelOption::Number(option, value) => option.check(*value),
            KernelOption::CongestionControl(name) => {
                let fits = (1..=CONGESTION_NAME_MAX).contains(&name.len());
                if fits && !name.contains('\0') {
                    return Ok(());
                }
                Err(format!(
                    "congestion_control {name:?} is not a name, which has 1 to {CONGESTION_NAME_MAX} bytes"
                ))
            }
            KernelOption::Raw { level, name, value } => {
                if let Some(owner) = sys::owner_of(*level, *name) {
                    return Err(format!(
                        "raw_sockopt (level {level}, name {name}) is an option that the library sets: \
                         use keepsock_options_set_{owner}() or SocketOptions::{owner}"
                    ));
                }
                if value.len() > RAW_MAX {
                    let len = value.len();
                    return Err(format!(
                        "raw_sockopt (level {level}, name {name}) has {}, more than {}",
                        Bytes(len),
                        Grouped(RAW_MAX)
                    ));
                }
                Ok(())
            }
        }
    }

    fn check_sockets(&self, sockets: Sockets) -> std::result::Result<(), String> {
        match self {
            KernelOption::Number(option, value) => option.check_sockets(*value, sockets),
            KernelOption::CongestionControl(_) if !Sockets::TCP.intersects(sockets) => {
                Err("congestion_control applies to TCP only".to_owned())
            }
            KernelOption::CongestionControl(_) | KernelOption::Raw { .. } => Ok(()),
        }
    }

    fn apply(&self, socket: Borrowed<'_>, families: Families) -> std::result::Result<(), Cause> {
        let set = match self {
            KernelOption::Number(option, value) => {
                sys::set_option(socket, *option, *value, families)
            }
            KernelOption::CongestionControl(name) => sys::set_congestion_control(socket, name),
            KernelOption::Raw { level, name, value } => {
                sys::set_raw_option(socket, *level, *name, value)
            }
        };
        set.map_err(|e| self.failure(socket, &e))
    }

    #[cold]
    fn failure(&self, socket: Borrowed<'_>, err: &io::Error) -> Cause {
        let kind = ErrorKind::of(err);
        match self {
            KernelOption::Number(option, value) => option_failure(socket, *option, *value, err),
            KernelOption::CongestionControl(name) => {
                let (kind, what) = match kind {
                    ErrorKind::NotFound => (
                        ErrorKind::Unsupported,
                        "the kernel does not have it (net.ipv4.tcp_available_congestion_control)",
                    ),
                    ErrorKind::PermissionDenied => (
                        kind,
                        "it requires CAP_NET_ADMIN (net.ipv4.tcp_allowed_congestion_control)",
                    ),
                    ErrorKind::Unsupported => (kind, "not on this platform"),
                    _ => (kind, "rejected by the kernel"),
                };
                OptionFailure::cause(kind, err, format!("congestion_control {name:?}: {what}"))
            }
            KernelOption::Raw { level, name, .. } => {
                let detail = format!("raw_sockopt (level {level}, name {name})");
                OptionFailure::cause(kind, err, detail)
            }
        }
    }
}

/// The failure of setting an option.
#[cold]
pub(crate) fn option_failure(
    socket: Borrowed<'_>,
    option: Sockopt,
    value: u32,
    err: &io::Error,
) -> Cause {
    let kind = ErrorKind::of(err);
    let name = option.name();
    let detail = match kind {
        ErrorKind::PermissionDenied if option == Sockopt::FlowLabel => {
            format!("{name} {value}: another program leases it and does not share it")
        }
        ErrorKind::PermissionDenied => {
            format!("{name} {value} requires CAP_NET_ADMIN or CAP_NET_RAW")
        }
        ErrorKind::Unsupported if sys::is_made_for_mptcp(socket) => {
            format!("{name} does not apply to mptcp: remove one of them")
        }
        ErrorKind::Unsupported => format!("this system has no {name}"),
        _ => format!("{name} {value}"),
    };
    OptionFailure::cause(kind, err, detail)
}

impl SocketOptions {
    pub(super) fn set_kernel_option(&mut self, option: KernelOption) {
        if let Some(same) = self.kernel.iter_mut().find(|other| option.replaces(other)) {
            *same = option;
            return;
        }
        let after = self.kernel.partition_point(|other| other.rank() <= option.rank());
        self.kernel.insert(after, option);
    }

    pub(super) fn forget_sockopt(&mut self, option: Sockopt) {
        self.kernel.retain(|other| !matches!(other, KernelOption::Number(o, _) if *o == option));
    }

    pub(super) fn forget_congestion_control(&mut self) {
        self.kernel.retain(|option| !matches!(option, KernelOption::CongestionControl(_)));
    }

    /// Removes the options that concern the local address.
    #[cfg(feature = "activation")]
    pub(super) fn forget_bind_options(&mut self) {
        self.kernel.retain(|o| !matches!(o, KernelOption::Number(o, _) if o.needs_local()));
    }

    /// Rejects values that no socket can have.
    #[inline(always)]
    pub(super) fn validate_kernel(&self) -> std::result::Result<(), String> {
        if self.kernel.is_empty() { Ok(()) } else { self.check_kernel() }
    }

    #[cold]
    fn check_kernel(&self) -> std::result::Result<(), String> {
        self.kernel.iter().try_for_each(KernelOption::check)
    }

    /// Rejects options that none of the sockets has.
    #[inline(always)]
    pub(crate) fn refuse_other_sockets(
        &self,
        sockets: Sockets,
        operation: &'static str,
    ) -> Result<()> {
        if self.kernel.is_empty() { Ok(()) } else { self.check_sockets(sockets, operation) }
    }

    #[cold]
    fn check_sockets(&self, sockets: Sockets, operation: &'static str) -> Result<()> {
        let refuse = |what| Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what));
        self.kernel.iter().try_for_each(|o| o.check_sockets(sockets).or_else(refuse))
    }

    /// Rejects options that concern the local address if no local endpoint is set.
    #[inline(always)]
    pub(crate) fn refuse_without_local(&self, operation: &'static str) -> Result<()> {
        if self.kernel.is_empty() || self.local.is_some() {
            return Ok(());
        }
        self.check_local(operation)
    }

    #[cold]
    fn check_local(&self, operation: &'static str) -> Result<()> {
        let concerned = self.kernel.iter().find_map(|option| match option {
            KernelOption::Number(option, 1..) if option.needs_local() => Some(option.name()),
            _ => None,
        });
        match concerned {
            None => Ok(()),
            Some(name) => Err(Error::new(ErrorKind::InvalidArgument, operation)
                .detail(format!("{name} concerns the local address: set local_endpoint"))),
        }
    }

    /// The IPv6 flow label of a connect.
    #[inline(always)]
    pub(crate) fn flow_label(&self) -> Option<u32> {
        if self.kernel.is_empty() { None } else { self.find_flow_label() }
    }

    #[cold]
    fn find_flow_label(&self) -> Option<u32> {
        self.kernel.iter().find_map(|option| match option {
            KernelOption::Number(Sockopt::FlowLabel, label) => Some(*label),
            _ => None,
        })
    }

    /// Sets a flow label, and returns the name with it for connect(2).
    #[cold]
    pub(crate) fn apply_flow_label(
        socket: Borrowed<'_>,
        to: SocketAddrV6,
        label: u32,
    ) -> std::result::Result<SockAddr, Cause> {
        let set = sys::set_flow_label(socket, to, label);
        set.map_err(|e| option_failure(socket, Sockopt::FlowLabel, label, &e))
    }

    /// Rejects a flow label for a connect that cannot use it.
    #[inline(always)]
    pub(crate) fn refuse_unused_flow_label(
        &self,
        endpoint: &Endpoint,
        operation: &'static str,
    ) -> Result<()> {
        if self.flow_label().is_none() {
            Ok(())
        } else {
            self.check_flow_label(endpoint, operation)
        }
    }

    #[cold]
    fn check_flow_label(&self, endpoint: &Endpoint, operation: &'static str) -> Result<()> {
        let refuse = |what| Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what));
        if self.mptcp {
            return refuse("flow_label does not apply to mptcp: remove one of them");
        }
        let may_be_ipv6 = |ip: IpAddr| ip.to_canonical().is_ipv6();
        let has_ipv6 = match (self.addresses.as_slice(), &endpoint.0) {
            _ if self.family == Family::Ipv4 => false,
            ([], Target::Inet { host: Host::V4(_), .. }) => false,
            ([], Target::Inet { host: Host::V6(ip, _), .. }) => may_be_ipv6((*ip).into()),
            ([], _) => true,
            (given, _) => given.iter().any(|address| may_be_ipv6(address.ip())),
        };
        if has_ipv6 {
            return Ok(());
        }
        refuse("flow_label applies to IPv6 only, and this connect permits only IPv4: remove it")
    }

    /// Sets the option again that a Multipath TCP socket loses if its peer has only TCP: Linux does not
    /// pass TCP_NOTSENT_LOWAT to the TCP socket that remains.
    pub(crate) fn apply_after_fallback(
        &self,
        socket: Borrowed<'_>,
    ) -> std::result::Result<(), Cause> {
        let is_lost =
            |o: &&KernelOption| matches!(o, KernelOption::Number(Sockopt::NotsentLowat, _));
        let mut lost = self.kernel.iter().filter(|_| self.mptcp).filter(is_lost);
        lost.try_for_each(|option| option.apply(socket, Families::None))
    }

    /// Sets the options of the operating system on a socket of this kind.
    #[inline(always)]
    pub(crate) fn apply_kernel(
        &self,
        socket: Borrowed<'_>,
        kind: Sockets,
        families: Families,
    ) -> std::result::Result<(), Cause> {
        if self.kernel.is_empty() { Ok(()) } else { self.apply_each(socket, kind, families) }
    }

    #[cold]
    fn apply_each(
        &self,
        socket: Borrowed<'_>,
        kind: Sockets,
        families: Families,
    ) -> std::result::Result<(), Cause> {
        if self.mptcp && Sockets::TCP.intersects(kind) {
            sys::create_subflow(socket)?;
        }
        let has = |option: &&KernelOption| {
            // A flow label is set for the address of an attempt.
            option.sockets().is_none_or(|own| own.intersects(kind))
                && !matches!(option, KernelOption::Number(Sockopt::FlowLabel, _))
        };
        self.kernel.iter().filter(has).try_for_each(|option| option.apply(socket, families))
    }

    /// Sets the options that an accepted connection does not have from its listener.
    #[inline]
    pub(crate) fn apply_accepted(
        &self,
        socket: Borrowed<'_>,
        unix: bool,
        families: Families,
    ) -> std::result::Result<(), Cause> {
        for option in &self.kernel {
            let lost = match option {
                KernelOption::Number(option, _) => {
                    option.is_lost_on_accept(unix)
                        || !sys::ACCEPT_INHERITS && option.sockets().intersects(Sockets::CONNECTED)
                }
                KernelOption::CongestionControl(_) => !sys::ACCEPT_INHERITS && !unix,
                KernelOption::Raw { .. } => false,
            };
            if lost {
                option.apply(socket, families)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L8: an option that is set twice has the last value, and TOS precedes the priority that it
    /// changes.
    #[test]
    fn options_are_replaced_and_ordered() {
        let options = SocketOptions::new()
            .raw_sockopt(1, 2, b"a")
            .sockopt(Sockopt::Priority, 3)
            .congestion_control("reno")
            .sockopt(Sockopt::Tos, 8)
            .raw_sockopt(0, 9, b"b")
            .sockopt(Sockopt::Tos, 16)
            .raw_sockopt(1, 2, b"c");
        let raw =
            |level, name, value: &[u8]| KernelOption::Raw { level, name, value: value.into() };
        assert_eq!(
            options.kernel,
            [
                KernelOption::Number(Sockopt::Tos, 16),
                KernelOption::Number(Sockopt::Priority, 3),
                KernelOption::CongestionControl("reno".to_owned()),
                raw(1, 2, b"c"),
                raw(0, 9, b"b"),
            ]
        );
    }

    /// K8: an option of the kernel that this library sets itself is rejected.
    #[cfg(unix)]
    #[test]
    fn raw_sockopt_of_the_library_is_rejected() {
        let options = SocketOptions::new().raw_sockopt(libc::SOL_SOCKET, libc::SO_LINGER, [0; 8]);
        let err = options.validate("options").unwrap_err();
        assert!(err.to_string().contains("SocketOptions::close_timeout"), "{err}");
    }
}
