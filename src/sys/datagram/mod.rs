//! Datagrams, with their source and destination addresses, and errors reported by ICMP.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

#[cfg(unix)]
mod message;
#[cfg(not(keepsock_linux))]
mod one_by_one;
#[cfg(unix)]
mod option;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use message::*;
#[cfg(not(keepsock_linux))]
pub(crate) use one_by_one::*;
#[cfg(unix)]
pub(crate) use option::*;
#[cfg(windows)]
pub(crate) use windows::*;

/// The number of datagrams passed to the kernel, or taken from it, in one call, and the maximum
/// number of datagrams in a run (UDP_MAX_SEGMENTS of linux/udp.h before 6.9).
pub(crate) const MAX_BATCH: usize = 64;

/// The receive buffers, one per datagram.
pub(crate) trait Buffers {
    fn count(&self) -> usize;
    fn buffer(&mut self, at: usize) -> &mut [u8];
}

/// The source address of an outgoing datagram; the system chooses zero and none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Source {
    pub ip: Option<IpAddr>,
    pub interface: u32,
    /// The destination is IPv4, and the socket has both families.
    pub mapped: bool,
}

/// Datagrams of one length, the last perhaps shorter, to one address. The kernel or the network card
/// splits a buffer of several datagrams (UDP_SEGMENT of udp(7)).
pub(crate) struct Run<'a> {
    pub pieces: &'a [IoSlice<'a>],
    /// None: the peer of a connected socket.
    pub to: Option<SockAddr>,
    pub source: Source,
}

/// An error that ICMP, or this machine, reported for a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported {
    pub code: i32,
    /// The destination of the datagram.
    pub to: Option<SocketAddr>,
    /// The node that reported the error.
    pub by: Option<IpAddr>,
    /// The path MTU, if the datagram was too long for the path.
    pub mtu: Option<u32>,
    /// This machine reported the error, to the sending call.
    pub local: bool,
}

/// Options for multicast datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ToGroups {
    /// Whether sockets of this machine receive the datagrams.
    Loop(bool),
    /// The TTL of the datagrams.
    Ttl(u8),
    /// The index of the outgoing interface.
    Interface(u32),
}

/// Options for outgoing datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sending {
    /// The TTL, which is not 0. Multicast datagrams have a TTL of their own.
    Ttl(u8),
    /// The TOS byte of IPv4, the traffic class of IPv6.
    #[cfg_attr(windows, expect(dead_code, reason = "Windows ignores IP_TOS"))]
    Tos(u8),
    /// Whether routers must not fragment the datagrams.
    Whole(bool),
}

/// The fill level of a socket's buffers, in bytes of the kernel's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub unread: Option<u64>,
    pub receive_buffer: Option<u64>,
    pub unsent: Option<u64>,
    pub send_buffer: Option<u64>,
    /// The number of datagrams dropped because the buffer was full.
    pub dropped: Option<u64>,
}

/// Whether the kernel can queue ICMP errors on request.
pub(crate) const REPORTS: bool = cfg!(keepsock_linux);

/// Whether the kernel keeps each ICMP error until a receive returns it.
pub(crate) const RETURNS_EACH_REPORT: bool = cfg!(windows);

/// Whether a receive on a new socket without a peer returns ICMP errors.
pub(crate) const REPORTS_BY_DEFAULT: bool = cfg!(windows);
