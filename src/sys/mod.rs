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
//! - `spawn`, `take_inherited`, `describe`: descriptors given to a new process, and taken by it
//! - [`Wakeup`], one descriptor that is readable for many reasons
//! - `lookup`, `zone_index`, `lock_directory`
//! - `keepalive`, `set_keepalive`, `bind_interface`, `set_nonblocking`
//! - [`tcp`]: what the kernel knows of a connection, and how long it tries
//! - `send_with_rights`, `recv_with_rights`, `peer_credentials`, `packet_socket`: what only
//!   Unix sockets have
//! - `send_file`, `read_at`: files
//! - `save_syn`, `saved_syn`: the SYN of an accepted connection
//! - `capture`, `capture_next`, `capture_drops`: the packets of a port
//! - `Tick`, a start time that costs next to nothing to take
//! - the `is_…` functions, which sort error numbers
//! - constants that say what the platform can do:
//!   - `BLOCKING_CALLS`: a blocking call is woken by `shutdown` from another
//!     thread, so sockets are left in blocking mode and a read that waits is one
//!     system call. Where false, sockets are non-blocking and every wait is a poll.
//!   - `MAX_WAIT`: where a poll cannot be woken for every reason, the time
//!     after which it looks again.
//!   - `ACCEPT_INHERITS`: an accepted connection has the listener's options.
//!   - `SEGMENTS`: several datagrams are given to the kernel as one.
//!   - `SEES_HANGUP`: poll tells FIN without reading.
//!   - `UNIX_PATH_MAX`: bytes in a Unix socket's path.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::keepalive::Keepalive;

mod capture;
mod datagram;
mod descriptor;
mod file;
mod poller;
mod rights;
#[cfg(unix)]
mod sockopt;
mod spawn;
mod syn;
mod tcp;
#[cfg(unix)]
mod unix;
mod wakeup;
#[cfg(windows)]
mod windows;

pub(crate) use capture::{PACKET_MAX, capture, capture_drops, capture_next};
pub(crate) use datagram::*;
pub(crate) use descriptor::{Descriptor, InUse};
pub(crate) use file::*;
pub(crate) use poller::{LISTENERS_STAY_READY, Occurred, Poller, Registry};
pub(crate) use rights::*;
pub(crate) use spawn::*;
pub(crate) use syn::{save_syn, saved_syn};
pub(crate) use tcp::*;
#[cfg(unix)]
pub(crate) use unix::*;
pub(crate) use wakeup::Wakeup;
#[cfg(windows)]
pub(crate) use windows::*;

/// Memory of zeros, which is not in use before it is written to; `None`: there is none.
pub(crate) fn zeroed(len: usize) -> Option<Box<[u8]>> {
    let layout = std::alloc::Layout::array::<u8>(len.max(1)).ok()?;
    // SAFETY: the layout has a size, and the memory is as many zeros, allocated as a box's are.
    unsafe {
        let memory = std::alloc::alloc_zeroed(layout);
        (!memory.is_null())
            .then(|| Box::from_raw(std::ptr::slice_from_raw_parts_mut(memory, len.max(1))))
    }
}

/// Whether a call may wait in the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// What a descriptor for connections is.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionKind {
    pub listens: bool,
    /// Not a stream: a Unix socket for packets.
    pub packets: bool,
}

/// What a poll waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
    /// Only the end of the connection: FIN, RST or an error.
    Hangup,
}

/// What a poll found.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Ready {
    /// Readable, writable or hung up, as was asked.
    pub socket: bool,
    /// The socket holds an error: it was reset, or the kernel gave up.
    pub error: bool,
}

/// What a poll of several sockets found.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Woken {
    /// The number of the first socket that is ready, or holds an error.
    pub socket: Option<usize>,
    pub events: [bool; 2],
}

/// Why a name could not be looked up.
#[derive(Debug)]
pub(crate) enum LookupError {
    /// The name, or the service, does not exist.
    NotFound(String),
    /// The resolver could not say.
    Failed(String),
    /// The resolver ran into an operating-system error.
    Os(io::Error),
}

pub(crate) type Lookup = Result<Vec<SocketAddr>, LookupError>;

/// Poll counts in milliseconds; rounding up keeps a wait from ending early.
fn poll_ms(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(t) => i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    }
}

/// Turns keepalive on with these values, or off. Several system calls: when one
/// is refused, those before it hold. [`Keepalive`] has checked the ranges.
/// Windows takes the count since Windows 10 1709 (TCP_KEEPCNT).
pub(crate) fn set_keepalive(socket: Borrowed<'_>, keepalive: Option<Keepalive>) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    match keepalive {
        None => socket.set_keepalive(false),
        Some(k) => socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(k.idle())
                .with_interval(k.interval())
                .with_retries(k.count()),
        ),
    }
}
