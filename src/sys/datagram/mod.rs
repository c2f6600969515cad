//! Datagrams, with the addresses that they came from and went to, and what ICMP said.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use socket2::SockAddr;

use crate::client::Credentials;
use crate::info::Address;

#[cfg(not(unix))]
mod absent;
#[cfg(unix)]
mod message;
#[cfg(unix)]
mod option;

#[cfg(not(unix))]
pub(crate) use absent::*;
#[cfg(unix)]
pub(crate) use message::*;
#[cfg(unix)]
pub(crate) use option::*;

/// How many datagrams are given to the kernel, and taken from it, in one call. A run of them has at
/// most as many (UDP_MAX_SEGMENTS of linux/udp.h before 6.9).
pub(crate) const AT_ONCE: usize = 64;

/// Where datagrams are received into, each into one.
pub(crate) trait Buffers {
    fn count(&self) -> usize;
    fn buffer(&mut self, at: usize) -> &mut [u8];
}

/// A datagram as the kernel handed it over. IPv4 addresses of a dual-stack socket are IPv4.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub len: usize,
    /// Where the kernel does not tell it, `len`.
    pub original_len: usize,
    pub truncated: bool,
    /// None: the sender has no name, or the socket was shut down.
    pub from: Option<Address>,
    /// None: the kernel was not asked to tell more.
    pub ancillary: Option<Ancillary>,
}

/// What the control messages of a datagram told (ancillary data of recvmsg(2)).
#[derive(Debug, Default)]
pub(crate) struct Ancillary {
    /// The address that it was sent to.
    pub to: Option<IpAddr>,
    /// The address of this machine that answers are to leave from.
    pub local: Option<IpAddr>,
    /// It is several: all have this length, but the last, which may be shorter.
    pub segment: Option<usize>,
    pub details: Details,
}

/// What the program is told as the kernel has told it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Details {
    /// 0: not told.
    pub interface: u32,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    /// When the kernel took it.
    pub at: Option<SystemTime>,
    /// Who sent it, of Unix sockets.
    pub credentials: Option<Credentials>,
}

/// Where a datagram is to leave from; zero and none are the system's choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Source {
    pub ip: Option<IpAddr>,
    pub interface: u32,
    /// It is for IPv4, from a socket of both families.
    pub mapped: bool,
}

/// Datagrams of one length, the last perhaps shorter, to one address: where there are several the
/// kernel, or the network card, cuts them (UDP_SEGMENT of udp(7)).
pub(crate) struct Run<'a> {
    pub pieces: &'a [IoSlice<'a>],
    /// None: to the peer of a connected socket.
    pub to: Option<SockAddr>,
    pub source: Source,
}

/// An error that ICMP, or this machine, reported for a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported {
    pub code: i32,
    /// Where the datagram went.
    pub to: Option<SocketAddr>,
    /// Who reported it.
    pub by: Option<IpAddr>,
    /// What the way takes, if the datagram was too long for it.
    pub mtu: Option<u32>,
    /// It was this machine that said so, to the call that was to send.
    pub local: bool,
}

/// The families that a socket has; at least one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// How datagrams to groups are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ToGroups {
    /// Whether sockets of this machine get them, too.
    Loop(bool),
    /// How many networks they pass.
    Ttl(u8),
    /// The index of the interface that they leave by.
    Interface(u32),
}

/// How datagrams are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sending {
    /// How many routers they pass; not 0. Those to groups have their own.
    Ttl(u8),
    /// The TOS byte of IPv4, the traffic class of IPv6.
    Tos(u8),
    /// Whether they may not be cut on their way.
    Whole(bool),
}

/// What a socket's buffers hold, in bytes of the kernel's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub unread: Option<u64>,
    pub receive_buffer: Option<u64>,
    pub unsent: Option<u64>,
    pub send_buffer: Option<u64>,
    /// How many datagrams found no room.
    pub dropped: Option<u64>,
}

/// Whether the kernel queues what ICMP says, if it is asked to.
pub(crate) const REPORTS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether the kernel cuts runs.
pub(crate) const SEGMENTS: bool = cfg!(any(target_os = "linux", target_os = "android"));
