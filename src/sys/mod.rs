//! Every operating-system call, behind one contract.
//!
//! The rest of the crate sees these names and no platform:
//!
//! - [`Owned`], [`Borrowed`], [`Raw`]: a socket in its three forms, and
//!   [`Descriptor`], which several threads may use while one closes it
//! - `stream_socket`, `connect`, `accept`, `recv`, `send`, `recv_slices`, `send_slices`, `wake`,
//!   `disconnect`
//! - `datagram_socket`, `recv_datagram(s)`, `send_datagram(s)`, `next_reported`: UDP and
//!   Unix datagrams
//! - `poll`, `poll_any` and [`Event`], which ends a poll from outside
//! - [`Poller`], a loop's wait for many sockets, and its [`Registry`]
//! - `spawn_process`, `take_inherited`, `describe`: descriptors given to a new process, and taken by it
//! - [`Wakeup`], one descriptor that is readable for many reasons
//! - [`fork`]: which process made a socket, and whether another process may hold a copy
//! - `lookup`, `is_reachable`, `zone_index`, `lock_file`
//! - `keepalive`, `set_keepalive`, `bind_interface`, `set_nonblocking`
//! - `get_option`, `set_option`, `set_congestion_control`, `set_raw_option`: options that a program
//!   sets; `owner_of`: the options that this library sets
//! - [`tcp`]: the kernel's data about a connection, and how long it retransmits
//! - `send_with_rights`, `recv_with_rights`, `peer_credentials`, `packet_socket`: functions
//!   of Unix sockets
//! - `FileSender`, `read_at`: files
//! - `save_syn`, `saved_syn`: the SYN of an accepted connection
//! - `capture`, `capture_next`, `capture_drops`: the packets of a port
//! - [`CancellationDisabled`]: a while in which pthread_cancel does not act on the thread
//! - [`spawn_thread`]: starts a thread of the library, on which pthread_cancel has no effect
//! - `Tick`, a start time that costs next to nothing to take
//! - the `is_…` functions, which sort error numbers
//! - constants that say what the platform can do:
//!   - `BLOCKING_CALLS`: a blocking call is woken by `shutdown` from another
//!     thread, so sockets are left in blocking mode and a read that waits is one
//!     system call. Where false, sockets are non-blocking and every wait is a poll.
//!   - `MAX_WAIT`: where a poll cannot be woken for every reason (Windows), the time
//!     after which it looks again.
//!   - `ACCEPT_INHERITS`: an accepted connection has the listener's options.
//!   - `SEES_HANGUP`: poll distinguishes FIN without reading.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

#[cfg(all(unix, not(target_os = "openbsd")))]
use socket2::TcpKeepalive;
use socket2::{Domain, SockAddr};

use crate::types::address::needs_zone;
use crate::types::keepalive::Keepalive;

#[cfg(feature = "serve")]
mod affinity;
mod ancillary;
mod cancellation;
#[cfg(feature = "diag")]
mod capture;
mod convert;
#[cfg(feature = "datagram")]
mod datagram;
#[cfg(unix)]
mod errno;
#[cfg(all(feature = "failpoints", keepsock_linux, target_env = "gnu"))]
pub mod failpoints;
mod fd;
pub(crate) mod fork;
#[cfg(all(keepsock_linux, keepsock_tsan))]
mod intercepted;
mod kernel;
#[cfg(keepsock_kqueue)]
mod kqueue;
#[cfg(unix)]
mod large_file;
#[cfg(feature = "serve")]
mod lend;
#[cfg(all(test, keepsock_model))]
pub(crate) mod model;
mod poll_set;
mod poller;
#[cfg(feature = "activation")]
mod process;
mod saved_syn;
mod scm_rights;
mod sendfile;
mod socket_option;
#[cfg(unix)]
mod sockopt;
pub(crate) mod sync;
mod tcp;
mod tick;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
mod windows_file;
#[cfg(windows)]
mod windows_hangup;
#[cfg(windows)]
mod windows_poller;

#[cfg(feature = "serve")]
pub(crate) use affinity::run_on_cpu;
#[cfg(feature = "datagram")]
pub(crate) use ancillary::Details;
pub(crate) use ancillary::Received;
pub(crate) use cancellation::{CancellationDisabled, spawn_thread};
#[cfg(feature = "diag")]
pub(crate) use capture::{PACKET_MAX, capture, capture_drops, capture_next};
#[cfg(feature = "datagram")]
pub(crate) use datagram::*;
pub(crate) use fd::{Descriptor, Hold, InUse};
pub(crate) use kernel::{SockRef, call};
#[cfg(feature = "serve")]
pub(crate) use lend::{lend, lent};
pub(crate) use poll_set::Wakeup;
#[cfg(feature = "serve")]
pub(crate) use poller::LISTENERS_STAY_READY;
pub(crate) use poller::{Poller, REARMS, Registry};
#[cfg(feature = "activation")]
pub(crate) use process::*;
pub(crate) use saved_syn::save_syn;
#[cfg(feature = "diag")]
pub(crate) use saved_syn::saved_syn;
pub(crate) use scm_rights::*;
pub(crate) use sendfile::*;
pub(crate) use socket_option::{
    get_option, owner_of, set_congestion_control, set_flow_label, set_option, set_raw_option,
};
pub(crate) use tcp::*;
pub(crate) use tick::Tick;
#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;
#[cfg(windows)]
pub(crate) use windows_file::FileSender;

/// Zeroed memory that the kernel provides when it is written to; `None` if there is not enough.
pub(crate) fn zeroed(len: usize) -> Option<Box<[u8]>> {
    let layout = std::alloc::Layout::array::<u8>(len.max(1)).ok()?;
    // SAFETY: the layout has a size, and the memory is as many zeros, allocated as a box's are.
    unsafe {
        let memory = std::alloc::alloc_zeroed(layout);
        (!memory.is_null())
            .then(|| Box::from_raw(std::ptr::slice_from_raw_parts_mut(memory, len.max(1))))
    }
}

/// Sets the state of a released descriptor: the mode that the program has set, and no kernel
/// timeouts. An open socket cannot reject these calls.
pub(crate) fn prepare_release(socket: Borrowed<'_>, nonblocking: bool) {
    let _ = set_nonblocking(socket, nonblocking);
    let _ = SockRef::from(&socket).set_read_timeout(None);
    let _ = SockRef::from(&socket).set_write_timeout(None);
}

/// Takes the pending error of a socket (SO_ERROR).
pub(crate) fn pending_error(socket: Borrowed<'_>) -> Option<io::Error> {
    SockRef::from(&socket).take_error().ok().flatten()
}

/// Whether the error that ended a connection is in SO_ERROR until a call returns it. Windows returns it
/// from calls that send or receive only.
#[cfg(feature = "serve")]
pub(crate) const SOCKET_HOLDS_ERROR: bool = cfg!(unix);

/// The error of a connection whose end poll has reported together with an error. Windows returns the error of
/// a connection that was reset from calls that send or receive, and not as SO_ERROR.
pub(crate) fn hangup_error(socket: Borrowed<'_>) -> Option<io::Error> {
    let reset = || io::Error::from_raw_os_error(RESET);
    let of_receive = || peek(socket, &mut [0]).err().filter(is_from_network).unwrap_or_else(reset);
    pending_error(socket).or_else(|| cfg!(windows).then(of_receive))
}

/// Whether a call may wait in the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// The families that a socket has. A Unix socket has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    None,
    Ipv4,
    Ipv6,
    Both,
}

impl Families {
    pub(crate) fn of(address: &SocketAddr) -> Families {
        if address.is_ipv4() { Families::Ipv4 } else { Families::Ipv6 }
    }

    /// The families of a socket that is bound to an address; `dual`: it has both.
    pub(crate) fn of_bound(address: &SocketAddr, dual: bool) -> Families {
        if dual && address.is_ipv6() { Families::Both } else { Families::of(address) }
    }
}

#[cfg(any(unix, feature = "datagram"))]
impl Families {
    pub(crate) fn has_ipv4(self) -> bool {
        matches!(self, Families::Ipv4 | Families::Both)
    }

    pub(crate) fn has_ipv6(self) -> bool {
        matches!(self, Families::Ipv6 | Families::Both)
    }
}

/// The kind of a descriptor for connections.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionKind {
    pub listens: bool,
    /// A Unix socket for packets (SOCK_SEQPACKET).
    pub packets: bool,
}

/// The events that a poll waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
    /// Only the end of the connection: FIN, RST or an error.
    Hangup,
}

/// The result of a poll.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Ready {
    /// Readable, writable or hung up, as requested.
    pub socket: bool,
    /// The socket holds an error: the connection was reset, or the kernel's retries ended.
    pub error: bool,
}

/// The result of a poll of several sockets.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Woken {
    /// The index of the first socket that is ready or holds an error.
    pub socket: Option<usize>,
    pub events: [bool; 2],
}

/// One event of a wait of a [`Poller`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occurred {
    /// The token given at registration.
    pub key: usize,
    #[cfg(feature = "serve")]
    pub readable: bool,
    #[cfg(feature = "serve")]
    pub writable: bool,
    /// The peer sent FIN, or the connection has ended: the loop reads until end of stream.
    #[cfg(feature = "serve")]
    pub ended: bool,
    /// The socket held an error, such as a reset.
    #[cfg(feature = "serve")]
    pub failed: bool,
    /// A receive may return less than the kernel holds: the loop reads until the kernel reports that
    /// nothing is left.
    #[cfg(feature = "serve")]
    pub short: bool,
}

/// Why a name lookup failed: the text and the code of getaddrinfo(3).
#[derive(Debug)]
pub(crate) enum LookupError {
    /// The name, or the service, does not exist.
    NotFound(String, Option<i32>),
    /// The resolver could not answer.
    Failed(String, Option<i32>),
    /// An operating-system error occurred in the resolver.
    #[cfg(unix)]
    Os(io::Error, Option<i32>),
}

pub(crate) type Lookup = Result<Vec<SocketAddr>, LookupError>;

/// poll(2) takes milliseconds; rounding up keeps a wait from ending early.
fn poll_ms(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(t) => i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    }
}

/// Whether this machine has an address and a route for the destination. This sends nothing:
/// connecting a datagram socket only selects both.
pub(crate) fn is_reachable(to: &SockAddr, interface: Option<&str>) -> io::Result<bool> {
    let socket = match datagram_socket(to.domain()) {
        Err(e) if is_family_missing(&e) => return Ok(false),
        other => other?,
    };
    if let Some(name) = interface {
        bind_interface(borrow(&socket), name, to.is_ipv6())?;
    }
    Ok(SockRef::from(&socket).connect(to).is_ok())
}

/// Changes keepalive from known values, and sets only the values that differ.
pub(crate) fn change_keepalive(
    socket: Borrowed<'_>,
    old: Option<Keepalive>,
    new: Option<Keepalive>,
) -> io::Result<()> {
    match (old, new) {
        (old, new) if old == new => Ok(()),
        #[cfg(all(unix, not(target_os = "openbsd")))]
        (Some(before), Some(after)) => change_keepalive_values(socket, before, after),
        // OpenBSD has no values of a socket.
        _ => set_keepalive(socket, new),
    }
}

/// Sets the values of a socket whose keepalive is on. socket2 would turn it on again.
#[cfg(all(unix, not(target_os = "openbsd")))]
fn change_keepalive_values(
    socket: Borrowed<'_>,
    before: Keepalive,
    after: Keepalive,
) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    const IDLE: libc::c_int = libc::TCP_KEEPALIVE;
    #[cfg(not(target_vendor = "apple"))]
    const IDLE: libc::c_int = libc::TCP_KEEPIDLE;
    let seconds = |time: Duration| i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
    let set = |name, old: i32, new: i32| match old == new {
        true => Ok(()),
        false => sockopt::set(socket, libc::IPPROTO_TCP, name, &new),
    };
    set(IDLE, seconds(before.idle()), seconds(after.idle()))?;
    set(libc::TCP_KEEPINTVL, seconds(before.interval()), seconds(after.interval()))?;
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    set(libc::TCP_KEEPCNT, count(before.count()), count(after.count()))
}

/// Whether connect(2) or sendto(2) failed because a route of this machine discards all packets to the
/// destination (`ip route add blackhole`). Linux then returns EINVAL, which has no other cause for a
/// destination that is valid and not link-local. The caller has checked the destination.
pub(crate) fn is_discarded(err: &io::Error, to: SocketAddr) -> bool {
    let is_link_local = matches!(to.ip(), IpAddr::V6(ip) if needs_zone(ip));
    IS_EINVAL_BLACKHOLE && err.raw_os_error() == Some(libc::EINVAL) && !is_link_local
}

/// Whether sendto(2), which has more arguments than connect(2), failed for the same reason.
#[cfg(feature = "datagram")]
pub(crate) fn is_datagram_discarded(err: &io::Error, to: SocketAddr) -> bool {
    is_discarded(err, to) && {
        let socket = datagram_socket(Domain::for_address(to));
        let connected = socket.and_then(|socket| SockRef::from(&socket).connect(&to.into()));
        connected.is_err_and(|e| is_discarded(&e, to))
    }
}

/// Whether the error is EACCES: the destination of a datagram is a broadcast address and the socket may
/// not send to one, or a file mode or a route forbids it.
#[cfg(feature = "datagram")]
pub(crate) fn is_access_denied(err: &io::Error) -> bool {
    #[cfg(unix)]
    return err.raw_os_error() == Some(libc::EACCES);
    #[cfg(windows)]
    return err.kind() == io::ErrorKind::PermissionDenied;
}

/// Whether EINVAL may mean that a route discards all packets.
const IS_EINVAL_BLACKHOLE: bool = cfg!(keepsock_linux);

/// Whether the address is the broadcast address of a network of this machine. The kernel lets a TCP
/// socket be bound to it, and no peer can connect to it. This sends nothing.
pub(crate) fn is_broadcast(ip: IpAddr) -> bool {
    let IpAddr::V4(v4) = ip else {
        return false;
    };
    // The host part of at least two bits is all ones, or before Linux 5.14 all zeros.
    if !matches!(v4.octets()[3] & 3, 0 | 3) || v4.is_unspecified() {
        return false;
    }
    let to = SocketAddr::new(ip, 9).into();
    let Ok(socket) = datagram_socket(Domain::IPV4) else {
        return false;
    };
    // EACCES may have other causes, so the connect must succeed with SO_BROADCAST.
    let socket = SockRef::from(&socket);
    let denied = |e: io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    socket.connect(&to).is_err_and(denied)
        && socket.set_broadcast(true).is_ok()
        && socket.connect(&to).is_ok()
}

/// Turns keepalive on with these values, or off. This takes several system calls; if one fails,
/// the earlier ones remain in effect. [`Keepalive`] has checked the ranges.
#[cfg(unix)]
pub(crate) fn set_keepalive(socket: Borrowed<'_>, keepalive: Option<Keepalive>) -> io::Result<()> {
    match keepalive {
        None => SockRef::from(&socket).set_keepalive(false),
        Some(k) => turn_keepalive_on(socket, k),
    }
}

#[cfg(all(unix, not(target_os = "openbsd")))]
fn turn_keepalive_on(socket: Borrowed<'_>, k: Keepalive) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(k.idle())
            .with_interval(k.interval())
            .with_retries(k.count()),
    )
}

/// Every socket has the values of the system. The default only requests keepalive as such.
#[cfg(target_os = "openbsd")]
fn turn_keepalive_on(socket: Borrowed<'_>, k: Keepalive) -> io::Result<()> {
    if k != Keepalive::default() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    SockRef::from(&socket).set_keepalive(true)
}

/// The sum of the lengths of slices. `None`: the sum is longer than memory can be. Slices of one buffer
/// can reach that on a 32-bit system.
pub(crate) fn total_len(lens: impl Iterator<Item = usize>) -> Option<usize> {
    let total = lens.fold(0usize, usize::saturating_add);
    isize::try_from(total).is_ok().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::total_len;

    #[test]
    fn total_len_rejects_a_sum_above_the_longest_memory() {
        let half = isize::MAX as usize / 2;
        assert_eq!(total_len([1, 2, 3].into_iter()), Some(6));
        assert_eq!(total_len([half, half, 1].into_iter()), Some(isize::MAX as usize));
        assert_eq!(total_len([half, half, 2].into_iter()), None);
        assert_eq!(total_len([half; 8].into_iter()), None, "the sum does not fit into usize");
    }
}
