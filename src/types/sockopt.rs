//! Socket options of the operating system: names, ranges, and the sockets that have them. No I/O.

use std::ops::RangeInclusive;

use crate::types::error::{ErrorKind, Grouped};

/// An option of the operating system whose value is a number. Its number never changes its meaning.
/// New options may be added.
///
/// An option that is off or on has the value 0 or 1. docs/options.md lists the kinds of sockets of
/// each option; other sockets reject it. Where the platform has no such option, the call that
/// applies it fails with [`Unsupported`](crate::ErrorKind::Unsupported).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Sockopt {
    /// SO_SNDBUF: the size of the send buffer in bytes. Linux doubles it, to count its own overhead,
    /// and limits it to `net.core.wmem_max`. A TCP buffer with a set size no longer grows. Unix
    /// sockets have this option as well.
    SendBuffer = 1,
    /// SO_RCVBUF: the size of the receive buffer in bytes. Linux doubles it and limits it to
    /// `net.core.rmem_max`. For TCP it must be set before the handshake to permit a window above
    /// 64 KiB. A TCP buffer with a set size no longer grows.
    RecvBuffer = 2,
    /// IP_TOS, IPV6_TCLASS: the TOS byte, 0 to 255. The DSCP is its upper six bits: 46 (EF) is 184.
    /// For TCP the lower two bits must be 0, because they belong to the kernel (ECN).
    Tos = 3,
    /// SO_REUSEPORT (FreeBSD: SO_REUSEPORT_LB): 1 permits other sockets of the same user to have the
    /// same address and port. The kernel distributes connections and datagrams among them. A connect
    /// with this option needs a local endpoint.
    ReusePort = 4,
    /// TCP_NOTSENT_LOWAT: the number of unsent bytes above which a TCP socket is not writable. Linux
    /// and macOS.
    NotsentLowat = 5,
    /// TCP_DEFER_ACCEPT: a listener accepts a connection only when its first byte has arrived, for
    /// at most this time in milliseconds. The kernel counts whole seconds, rounded up. Linux.
    DeferAccept = 6,
    /// SO_MARK: the mark of outgoing packets, for routing rules and firewalls. The process needs
    /// CAP_NET_ADMIN or CAP_NET_RAW. Linux.
    Mark = 7,
    /// SO_PRIORITY: the queueing priority of outgoing packets. Above 6 the process needs
    /// CAP_NET_ADMIN or CAP_NET_RAW. Linux.
    Priority = 8,
    /// IP_TRANSPARENT: 1 permits a local address that is not one of this machine, for a transparent
    /// proxy. The process needs CAP_NET_ADMIN or CAP_NET_RAW. A connect with this option needs a
    /// local endpoint. Linux.
    Transparent = 9,
    /// IP_FREEBIND: 1 permits a local address that this machine does not have yet. A connect
    /// with this option needs a local endpoint. Linux.
    Freebind = 10,
    /// SO_OOBINLINE: 1 leaves the urgent byte of TCP in the stream. Otherwise the kernel removes it,
    /// and no function of this library returns it.
    OobInline = 11,
    /// TCP_MAXSEG: the largest segment in bytes, 88 to 32,767, which this side announces and sends.
    /// It has no effect after the handshake.
    MaxSegment = 12,
    /// IPV6_FLOWLABEL_MGR: the flow label of a TCP connection over IPv6, 1 to 1,048,575 (0xFFFFF).
    /// Attempts to IPv4 addresses of the same name ignore it. It is set before the connect, and the
    /// first packet carries it. The kernel leases the label to the socket, for all users, and keeps
    /// the lease for 6 s after the last close. No privilege is needed. A connect that only permits
    /// IPv4, or Multipath TCP, is rejected. Reading it returns 0 for a connection without a label.
    /// Linux.
    FlowLabel = 13,
    /// TCP_NODELAY: 1 sends small writes immediately. Default: 1.
    Nodelay = 14,
    /// TCP_CORK: 1 holds back incomplete segments, for at most 200 ms, until it is 0 again. For open
    /// connections only. Linux.
    Cork = 15,
    /// SO_REUSEADDR of datagram sockets: 1 permits other sockets with this option to have the same
    /// address and port. Each of them receives the datagrams of a multicast group (mDNS on port 5353),
    /// and one of them receives a unicast datagram. A connect with this option needs a local endpoint.
    /// TCP listeners always have it, and so has a TCP connect whose local endpoint has a port: the port
    /// may be in use for another peer, or be in TIME-WAIT.
    ReuseAddress = 16,
}

/// The kinds of sockets that a call makes or changes. A set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sockets(u16);

impl Sockets {
    pub(crate) const NONE: Sockets = Sockets(0);
    /// A TCP socket that will connect.
    pub(crate) const CONNECT: Sockets = Sockets(1);
    /// A TCP socket that will listen.
    pub(crate) const LISTEN: Sockets = Sockets(1 << 1);
    /// An established TCP connection that was adopted.
    pub(crate) const CONNECTED: Sockets = Sockets(1 << 2);
    /// A TCP listener that was adopted.
    pub(crate) const LISTENING: Sockets = Sockets(1 << 3);
    /// A Unix stream or packet socket.
    pub(crate) const UNIX: Sockets = Sockets(1 << 4);
    pub(crate) const UDP: Sockets = Sockets(1 << 5);
    /// A UDP socket that was adopted.
    pub(crate) const UDP_BOUND: Sockets = Sockets(1 << 6);
    pub(crate) const UNIX_DATAGRAM: Sockets = Sockets(1 << 7);
    /// An open TCP connection whose option changes.
    pub(crate) const OPEN: Sockets = Sockets(1 << 8);
    /// An open UDP socket whose option changes.
    pub(crate) const UDP_OPEN: Sockets = Sockets(1 << 9);

    pub(crate) const TCP: Sockets = Sockets::of([
        Sockets::CONNECT,
        Sockets::LISTEN,
        Sockets::CONNECTED,
        Sockets::LISTENING,
        Sockets::OPEN,
    ]);

    const fn of<const N: usize>(kinds: [Sockets; N]) -> Sockets {
        let (mut set, mut i) = (0, 0);
        while i < N {
            set |= kinds[i].0;
            i += 1;
        }
        Sockets(set)
    }

    /// Adds the sockets of `other` if the call has them.
    pub(crate) fn with(self, other: Sockets, has: bool) -> Sockets {
        if has { Sockets(self.0 | other.0) } else { self }
    }

    pub(crate) fn intersects(self, other: Sockets) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the call changes an open socket.
    fn is_open(self) -> bool {
        self.intersects(Sockets::of([Sockets::OPEN, Sockets::UDP_OPEN]))
    }

    /// Whether all of the sockets exist already.
    fn exist(self) -> bool {
        use Sockets as S;
        let existing = S::of([S::CONNECTED, S::LISTENING, S::UDP_BOUND, S::OPEN, S::UDP_OPEN]);
        self.0 & !existing.0 == 0
    }
}

const UDP: Sockets = Sockets::of([Sockets::UDP, Sockets::UDP_BOUND, Sockets::UDP_OPEN]);
const INET: Sockets = Sockets::of([Sockets::TCP, UDP]);
const NEW_INET: Sockets = Sockets::of([Sockets::CONNECT, Sockets::LISTEN, Sockets::UDP]);
const ALL: Sockets = Sockets::of([INET, Sockets::UNIX, Sockets::UNIX_DATAGRAM]);

const SWITCH: RangeInclusive<u32> = 0..=1;
const SIZE: RangeInclusive<u32> = 1..=i32::MAX as u32;

impl Sockopt {
    /// The name for messages and docs/options.md, the values, and the sockets that have the option.
    const fn properties(self) -> (&'static str, RangeInclusive<u32>, Sockets) {
        use Sockets as S;
        match self {
            Sockopt::SendBuffer => ("send_buffer", SIZE, ALL),
            // unix(7): SO_RCVBUF has no effect on Unix sockets.
            Sockopt::RecvBuffer => ("recv_buffer", SIZE, INET),
            Sockopt::Tos => ("tos", 0..=255, INET),
            Sockopt::ReusePort => ("reuse_port", SWITCH, NEW_INET),
            Sockopt::NotsentLowat => ("notsent_lowat", 0..=u32::MAX, S::TCP),
            Sockopt::DeferAccept => {
                ("defer_accept", 0..=86_400_000, S::of([S::LISTEN, S::LISTENING]))
            }
            Sockopt::Mark => ("mark", 0..=u32::MAX, INET),
            Sockopt::Priority => ("priority", 0..=i32::MAX as u32, INET),
            Sockopt::Transparent => ("transparent", SWITCH, NEW_INET),
            Sockopt::Freebind => ("freebind", SWITCH, NEW_INET),
            Sockopt::OobInline => ("oob_inline", SWITCH, S::TCP),
            Sockopt::MaxSegment => {
                ("max_segment", 88..=32_767, S::of([S::CONNECT, S::LISTEN, S::LISTENING]))
            }
            Sockopt::FlowLabel => ("flow_label", 1..=0xF_FFFF, S::CONNECT),
            Sockopt::Nodelay => ("nodelay", SWITCH, S::TCP),
            Sockopt::Cork => ("cork", SWITCH, S::OPEN),
            Sockopt::ReuseAddress => ("reuse_address", SWITCH, S::UDP),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.properties().0
    }

    pub(crate) fn sockets(self) -> Sockets {
        self.properties().2
    }

    /// Whether the option concerns the local address, so that a connect needs a local endpoint.
    pub(crate) fn needs_local(self) -> bool {
        use Sockopt::{Freebind, ReuseAddress, ReusePort, Transparent};
        matches!(self, ReuseAddress | ReusePort | Transparent | Freebind)
    }

    /// Whether an accepted connection does not have the value of its listener (Linux): sk_clone sets
    /// the priority to 0, and a Unix connection is a new socket.
    pub(crate) fn is_lost_on_accept(self, unix: bool) -> bool {
        match self {
            Sockopt::Priority => !unix,
            Sockopt::SendBuffer => unix,
            _ => false,
        }
    }

    /// Whether the system has the option off, with the value 0, unless a program sets it.
    fn is_off_by_default(self) -> bool {
        use Sockopt as O;
        let switches = [O::ReusePort, O::Transparent, O::Freebind, O::OobInline, O::Cork];
        switches.contains(&self) || matches!(self, O::DeferAccept | O::ReuseAddress)
    }

    /// Returns what is wrong with a value.
    pub(crate) fn check(self, value: u32) -> Result<(), String> {
        let (name, range, _) = self.properties();
        if range.contains(&value) {
            return Ok(());
        }
        let (least, most) = (Grouped(range.start()), Grouped(range.end()));
        Err(format!("{name} {} is not within {least} to {most}", Grouped(value)))
    }

    /// Returns why an open socket of this kind does not have the option, and a value for it, or has no
    /// use for the value.
    pub(crate) fn check_open(
        self,
        value: Option<u32>,
        kind: Sockets,
    ) -> Result<(), (ErrorKind, String)> {
        use Sockets as S;
        let (name, _, own) = self.properties();
        let (all, what) = match kind {
            S::OPEN => (S::TCP, "TCP"),
            S::UDP_OPEN => (UDP, "datagram sockets"),
            _ => (kind, "Unix sockets"),
        };
        if !own.intersects(all) {
            return Err((ErrorKind::Unsupported, format!("{name} does not apply to {what}")));
        }
        let Some(value) = value else {
            return Ok(());
        };
        self.check(value)
            .and_then(|()| self.check_sockets(value, kind))
            .map_err(|what| (ErrorKind::InvalidArgument, what))
    }

    /// Returns why none of these sockets has the option, or why the value has no effect on them.
    pub(crate) fn check_sockets(self, value: u32, sockets: Sockets) -> Result<(), String> {
        let (name, _, own) = self.properties();
        if !own.intersects(sockets) {
            // A call that creates or adopts a socket accepts the default of each switch.
            let is_default = value == 0 && self.is_off_by_default() && !sockets.is_open();
            let why = || format!("{name} {}", why_not(own, sockets));
            return if is_default { Ok(()) } else { Err(why()) };
        }
        if self == Sockopt::Tos && value & 3 != 0 && Sockets::TCP.intersects(sockets) {
            return Err(format!("{name} {value}: the lower two bits of TCP belong to the kernel"));
        }
        Ok(())
    }
}

/// Why sockets of these kinds do not have an option of other sockets.
fn why_not(own: Sockets, sockets: Sockets) -> &'static str {
    use Sockets as S;
    let listener = S::of([S::LISTEN, S::LISTENING]);
    let tcp = S::of([S::CONNECT, S::LISTEN]);
    if own == S::UDP && tcp.intersects(sockets) {
        "is for datagram sockets; the library sets it for a listener and for a connect with a local \
         port: remove it"
    } else if own == S::OPEN {
        "applies to open connections only"
    } else if S::of([S::UNIX, S::UNIX_DATAGRAM]).intersects(sockets) {
        "does not apply to Unix sockets"
    } else if UDP.intersects(sockets) && !own.intersects(S::UDP) {
        "does not apply to datagram sockets"
    } else if own == S::CONNECT && listener.intersects(sockets) {
        "applies to connecting only"
    } else if own == listener {
        "applies to listening only"
    } else if sockets.exist() {
        "has no effect on an existing socket"
    } else {
        "does not apply to this kind of socket"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L8: values out of range are rejected, and the message names the option.
    #[test]
    fn check_rejects_values_out_of_range() {
        for (option, value) in [
            (Sockopt::SendBuffer, 0),
            (Sockopt::RecvBuffer, u32::MAX),
            (Sockopt::Tos, 256),
            (Sockopt::ReusePort, 2),
            (Sockopt::FlowLabel, 0),
            (Sockopt::FlowLabel, 0x10_0000),
            (Sockopt::MaxSegment, 87),
            (Sockopt::MaxSegment, 32_768),
            (Sockopt::DeferAccept, 86_400_001),
        ] {
            let what = option.check(value).unwrap_err();
            assert!(
                what.starts_with(&format!("{} {} is not within", option.name(), Grouped(value))),
                "{what}"
            );
        }
        assert!(Sockopt::Mark.check(u32::MAX).is_ok());
        assert!(Sockopt::Cork.check(0).is_ok());
    }

    /// K8: an option that no socket of the call has is rejected with the reason.
    #[test]
    fn check_sockets_states_the_reason() {
        let why = |option: Sockopt, sockets| option.check_sockets(1, sockets).unwrap_err();
        use Sockopt::{Cork, DeferAccept, FlowLabel, MaxSegment, RecvBuffer, ReusePort};
        let cases = [
            (why(RecvBuffer, Sockets::UNIX), "recv_buffer does not apply to Unix sockets"),
            (why(MaxSegment, Sockets::UDP), "max_segment does not apply to datagram sockets"),
            (why(DeferAccept, Sockets::CONNECT), "defer_accept applies to listening only"),
            (why(ReusePort, Sockets::LISTENING), "reuse_port has no effect on an existing socket"),
            (why(ReusePort, Sockets::UDP_BOUND), "reuse_port has no effect on an existing socket"),
            (why(FlowLabel, Sockets::LISTEN), "flow_label applies to connecting only"),
            (why(FlowLabel, Sockets::OPEN), "flow_label has no effect on an existing socket"),
            (why(Cork, Sockets::LISTEN), "cork applies to open connections only"),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
        // A server with both kinds of sockets sets the option on its TCP sockets.
        assert!(RecvBuffer.check_sockets(1, Sockets::UNIX.with(Sockets::LISTEN, true)).is_ok());
        // ECN belongs to the kernel for TCP, and to the program for UDP.
        assert!(Sockopt::Tos.check_sockets(1, Sockets::CONNECT).is_err());
        assert!(Sockopt::Tos.check_sockets(1, Sockets::UDP).is_ok());
    }
}
