//! Packets of one TCP port, as they pass this machine's interfaces.
//!
//! Linux: a packet socket (packet(7)). Its filter makes the kernel drop all other packets.

use std::io;
use std::time::SystemTime;

use super::{Borrowed, Owned};

/// The metadata that a packet socket reports for a packet.
pub(crate) struct Packet {
    /// The number of bytes stored in the buffer, starting with the IP header. Payload beyond the
    /// buffer is truncated.
    pub len: usize,
    /// The index of the interface.
    pub interface: u32,
    /// The packet was leaving through the interface.
    pub outgoing: bool,
    /// The time at which the packet passed the interface.
    pub time: Option<SystemTime>,
}

/// Space for the headers and a little payload: IPv4 and TCP headers have at most 60 bytes each;
/// IPv6 has 40 bytes and extension headers.
pub(crate) const PACKET_MAX: usize = 256;

#[cfg(keepsock_linux)]
pub(crate) use linux::{capture, capture_drops, capture_next};

#[cfg(not(keepsock_linux))]
pub(crate) fn capture(_port: u16) -> io::Result<Owned> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(keepsock_linux))]
pub(crate) fn capture_next(
    _socket: Borrowed<'_>,
    _buf: &mut [u8; PACKET_MAX],
) -> io::Result<Packet> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(keepsock_linux))]
pub(crate) fn capture_drops(_socket: Borrowed<'_>) -> u32 {
    0
}

#[cfg(keepsock_linux)]
mod linux {
    use std::mem;
    use std::os::fd::{AsFd, AsRawFd};
    use std::ptr;
    use std::time::{Duration, UNIX_EPOCH};

    use libc::{c_int, socklen_t};
    use socket2::{Domain, Socket, Type};

    use super::super::errno::{check, check_int};
    use super::super::sockopt;
    use super::*;
    use crate::sys::kernel;

    // Some versions of the libc crate do not declare these (linux/if_packet.h, linux/if_arp.h).
    const PACKET_OUTGOING: u8 = 4;
    const PACKET_STATISTICS: c_int = 6;
    const ARPHRD_LOOPBACK: u32 = 772;

    /// SOF_TIMESTAMPING_RX_SOFTWARE and SOF_TIMESTAMPING_SOFTWARE (linux/net_tstamp.h): the times
    /// at which the kernel received the packets.
    const TIMES: c_int = 1 << 3 | 1 << 4;

    /// The size of the queue of packets that the library has not read yet.
    const QUEUE: c_int = 4 << 20;

    /// Starts to queue the packets from or to the port, on every interface of this network
    /// namespace.
    pub(crate) fn capture(port: u16) -> io::Result<Owned> {
        // With protocol 0 the kernel queues nothing until bind(2), so no packet bypasses the filter.
        // DGRAM: packets start with their IP header on every kind of interface.
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = kernel::call("socket", || Socket::new_raw(Domain::PACKET, kind, None))?;
        // Beyond the system's limit where the process may do that. A shorter queue is acceptable.
        if sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &QUEUE).is_err() {
            let _ = sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &QUEUE);
        }
        // Not SO_TIMESTAMP: the kernel starts to take timestamps some moments after the option is
        // set, and stamps packets that were queued before with the time at which they are read.
        sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &TIMES)?;
        let mut steps = filter(port);
        let program = libc::sock_fprog {
            len: u16::try_from(steps.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            filter: steps.as_mut_ptr(),
        };
        sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        // SAFETY: sockaddr_ll consists of integers; all zeros mean every interface.
        let mut name: libc::sockaddr_ll = unsafe { mem::zeroed() };
        name.sll_family = libc::AF_PACKET as u16;
        // Only a socket for all protocols receives the packets that this machine sends.
        name.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        let len = mem::size_of_val(&name) as socklen_t;
        // SAFETY: the name outlives the call, and len is its size.
        check_int(unsafe { kernel::bind(socket.as_raw_fd(), (&raw const name).cast(), len) })?;
        Ok(socket.into())
    }

    /// Space for a control message with three timestamps, aligned as control messages are.
    #[repr(C)]
    union Control {
        _align: libc::cmsghdr,
        bytes: [u8; 128],
    }

    /// Takes the next packet from the queue, or returns `WouldBlock`.
    pub(crate) fn capture_next(
        socket: Borrowed<'_>,
        buf: &mut [u8; PACKET_MAX],
    ) -> io::Result<Packet> {
        // SAFETY: both are C structures of integers and pointers; all zeros are valid.
        let (mut name, mut msg): (libc::sockaddr_ll, libc::msghdr) = unsafe { mem::zeroed() };
        let mut control = Control { bytes: [0; 128] };
        let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        msg.msg_name = (&raw mut name).cast();
        msg.msg_namelen = mem::size_of_val(&name) as socklen_t;
        msg.msg_iov = &raw mut part;
        msg.msg_iovlen = 1;
        msg.msg_control = (&raw mut control).cast();
        msg.msg_controllen = mem::size_of::<Control>() as _;
        // SAFETY: msg describes buffers that outlive the call.
        let len = check(unsafe {
            kernel::recvmsg(socket.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT)
        })?;
        Ok(Packet {
            len,
            interface: name.sll_ifindex.unsigned_abs(),
            outgoing: name.sll_pkttype == PACKET_OUTGOING,
            // SAFETY: recvmsg has filled msg, whose control buffer is alive.
            time: unsafe { time(&msg) },
        })
    }

    /// # Safety
    /// recvmsg(2) filled `msg`, and its control buffer is alive.
    unsafe fn time(msg: &libc::msghdr) -> Option<SystemTime> {
        // SAFETY: the caller guarantees a control buffer that the kernel filled with well-formed
        // messages.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(msg) };
        while !next.is_null() {
            // SAFETY: next points to a message inside the control buffer.
            let header = unsafe { &*next };
            // SAFETY: no memory is touched.
            let whole = unsafe { libc::CMSG_LEN(mem::size_of::<[libc::timespec; 3]>() as u32) };
            // SCM_TIMESTAMPING has the option's number. The first of its three timestamps is the
            // kernel's.
            let is_time =
                (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SO_TIMESTAMPING);
            if is_time && header.cmsg_len as usize == whole as usize {
                // SAFETY: the message holds three timestamps, which may be unaligned.
                let time: libc::timespec =
                    unsafe { ptr::read_unaligned(libc::CMSG_DATA(next).cast()) };
                let since = Duration::new(
                    u64::try_from(time.tv_sec).ok()?,
                    u32::try_from(time.tv_nsec).ok()?,
                );
                if since.is_zero() {
                    return None;
                }
                return UNIX_EPOCH.checked_add(since);
            }
            // SAFETY: the message is inside the control buffer, which the caller keeps alive.
            next = unsafe { libc::CMSG_NXTHDR(msg, next) };
        }
        None
    }

    /// The number of packets dropped because of a full queue since the last call.
    pub(crate) fn capture_drops(socket: Borrowed<'_>) -> u32 {
        // struct tpacket_stats: the number of all packets, and of the dropped ones.
        // SAFETY: the kernel fills an array of integers of the given size.
        let counts =
            unsafe { sockopt::get::<[u32; 2]>(socket, libc::SOL_PACKET, PACKET_STATISTICS) };
        counts.map_or(0, |([_, dropped], _)| dropped)
    }

    // ---- the filter ----------------------------------------------------------------------

    /// The destination of a jump.
    #[derive(Clone, Copy, PartialEq)]
    enum To {
        Next,
        Protocol,
        Ipv6,
        Ports,
        Ports6,
        Take,
        Drop,
    }

    /// Parts of instructions (linux/bpf_common.h) and metadata of packets (linux/filter.h). The libc
    /// crate does not declare them for Android.
    mod bpf {
        use std::ffi::c_int;

        pub(super) const BPF_LD: u32 = 0x00;
        pub(super) const BPF_LDX: u32 = 0x01;
        pub(super) const BPF_JMP: u32 = 0x05;
        pub(super) const BPF_RET: u32 = 0x06;
        pub(super) const BPF_H: u32 = 0x08;
        pub(super) const BPF_B: u32 = 0x10;
        pub(super) const BPF_ABS: u32 = 0x20;
        pub(super) const BPF_IND: u32 = 0x40;
        pub(super) const BPF_MSH: u32 = 0xa0;
        pub(super) const BPF_JEQ: u32 = 0x10;
        pub(super) const BPF_JSET: u32 = 0x40;
        pub(super) const BPF_K: u32 = 0x00;
        pub(super) const SKF_AD_OFF: c_int = -0x1000;
        pub(super) const SKF_AD_PROTOCOL: c_int = 0;
        pub(super) const SKF_AD_PKTTYPE: c_int = 4;
        pub(super) const SKF_AD_HATYPE: c_int = 28;
    }

    /// A step of the filter, with symbolic jump destinations.
    enum Step {
        Here(To),
        /// A load: the mode and size, and the offset.
        Do(u32, u32),
        /// A comparison: the first destination if the loaded value equals this value (or has one of
        /// these bits), otherwise the second.
        Jump(u32, u32, To, To),
        Return(u32),
    }

    /// The classic BPF program (linux/filter.h, socket(7)) that accepts the TCP packets of one port,
    /// over IPv4 and IPv6. The loopback interface shows each packet twice: the program accepts the
    /// incoming copy only, as libpcap does. It accepts every IPv6 packet with extension headers,
    /// because a BPF program cannot walk them; the parser identifies those packets.
    fn filter(port: u16) -> Vec<libc::sock_filter> {
        use Step::{Do, Here, Jump, Return};
        use bpf::{BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JSET, BPF_LD, BPF_LDX, BPF_MSH};
        let ancillary = |what: c_int| (bpf::SKF_AD_OFF + what) as u32;
        let tcp = libc::IPPROTO_TCP as u32;
        let port = u32::from(port);
        let byte = BPF_LD | BPF_B | BPF_ABS;
        let half = BPF_LD | BPF_H | BPF_ABS;
        let mut steps = vec![
            Do(half, ancillary(bpf::SKF_AD_HATYPE)),
            Jump(BPF_JEQ, ARPHRD_LOOPBACK, To::Next, To::Protocol),
            Do(byte, ancillary(bpf::SKF_AD_PKTTYPE)),
            Jump(BPF_JEQ, PACKET_OUTGOING.into(), To::Drop, To::Protocol),
            Here(To::Protocol),
            Do(half, ancillary(bpf::SKF_AD_PROTOCOL)),
            Jump(BPF_JEQ, libc::ETH_P_IPV6 as u32, To::Ipv6, To::Next),
            Jump(BPF_JEQ, libc::ETH_P_IP as u32, To::Next, To::Drop),
            // IPv4: the protocol; no later fragment; the ports after a header of any length.
            Do(byte, 9),
            Jump(BPF_JEQ, tcp, To::Next, To::Drop),
            Do(half, 6),
            Jump(BPF_JSET, 0x1fff, To::Drop, To::Ports),
            Here(To::Ports),
            Do(BPF_LDX | BPF_B | BPF_MSH, 0),
            Do(BPF_LD | BPF_H | BPF_IND, 0),
            Jump(BPF_JEQ, port, To::Take, To::Next),
            Do(BPF_LD | BPF_H | BPF_IND, 2),
            Jump(BPF_JEQ, port, To::Take, To::Drop),
            Here(To::Ipv6),
            Do(byte, 6),
            Jump(BPF_JEQ, tcp, To::Ports6, To::Next),
        ];
        // Hop-by-hop, routing, fragment, authentication, destination.
        steps.extend([0, 43, 44, 51, 60].map(|next| Jump(BPF_JEQ, next, To::Take, To::Next)));
        steps.extend([
            Return(0),
            Here(To::Ports6),
            Do(half, 40),
            Jump(BPF_JEQ, port, To::Take, To::Next),
            Do(half, 42),
            Jump(BPF_JEQ, port, To::Take, To::Drop),
            Here(To::Take),
            Return(PACKET_MAX as u32),
            Here(To::Drop),
            Return(0),
        ]);
        assemble(&steps)
    }

    fn assemble(steps: &[Step]) -> Vec<libc::sock_filter> {
        let is_step = |step: &&Step| !matches!(step, Step::Here(_));
        // The number of steps between `at` and the destination. All jumps go forward.
        let distance = |at: usize, to: To| {
            let after = steps.iter().skip(at + 1);
            let between = after.take_while(|s| !matches!(s, Step::Here(here) if *here == to));
            if to == To::Next { 0 } else { between.filter(is_step).count() as u8 }
        };
        let step =
            |code: u32, jt: u8, jf: u8, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let made = steps.iter().enumerate().filter_map(|(at, s)| match *s {
            Step::Here(_) => None,
            Step::Do(code, k) => Some(step(code, 0, 0, k)),
            Step::Jump(test, k, yes, no) => {
                let code = bpf::BPF_JMP | test | bpf::BPF_K;
                Some(step(code, distance(at, yes), distance(at, no), k))
            }
            Step::Return(k) => Some(step(bpf::BPF_RET | bpf::BPF_K, 0, 0, k)),
        });
        made.collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// The metadata that the kernel's filter sees.
        struct About {
            hatype: u32,
            pkttype: u32,
            protocol: u32,
        }

        /// Runs a filter as the kernel does. Returns the number of bytes that it accepts.
        fn run(filter: &[libc::sock_filter], packet: &[u8], about: &About) -> u32 {
            let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
            loop {
                let step = filter[at];
                at += 1;
                let code = u32::from(step.code);
                let load = |from: usize, size: usize| {
                    let bytes = packet.get(from..from + size)?;
                    Some(bytes.iter().fold(0, |n, b| (n << 8) | u32::from(*b)))
                };
                let ancillary = step.k.wrapping_sub(bpf::SKF_AD_OFF as u32) as c_int;
                match code & 7 {
                    bpf::BPF_RET => return step.k,
                    bpf::BPF_LDX => match packet.get(step.k as usize) {
                        Some(byte) => x = u32::from(byte & 0xf) * 4,
                        None => return 0,
                    },
                    bpf::BPF_JMP => {
                        let holds = match code & 0xf0 {
                            bpf::BPF_JEQ => a == step.k,
                            bpf::BPF_JSET => a & step.k != 0,
                            _ => panic!("a jump that is not known here"),
                        };
                        at += usize::from(if holds { step.jt } else { step.jf });
                    }
                    _ if step.k > i32::MAX as u32 => {
                        a = match ancillary {
                            bpf::SKF_AD_HATYPE => about.hatype,
                            bpf::SKF_AD_PKTTYPE => about.pkttype,
                            bpf::SKF_AD_PROTOCOL => about.protocol,
                            _ => panic!("a load that is not known here"),
                        };
                    }
                    _ => {
                        let from = step.k + if code & bpf::BPF_IND != 0 { x } else { 0 };
                        let size = if code & bpf::BPF_B != 0 { 1 } else { 2 };
                        match load(from as usize, size) {
                            Some(value) => a = value,
                            None => return 0,
                        }
                    }
                }
            }
        }

        fn ipv4(options: usize, protocol: u8, fragment: u16, ports: [u16; 2]) -> Vec<u8> {
            let mut packet = vec![0; 20 + options * 4];
            packet[0] = 0x45 + options as u8;
            packet[6..8].copy_from_slice(&fragment.to_be_bytes());
            packet[9] = protocol;
            packet.extend(ports.map(u16::to_be_bytes).concat());
            packet
        }

        fn ipv6(next: u8, ports: [u16; 2]) -> Vec<u8> {
            let mut packet = vec![0; 40];
            packet[0] = 0x60;
            packet[6] = next;
            packet.extend(ports.map(u16::to_be_bytes).concat());
            packet
        }

        /// N3: The filter accepts TCP of the port only, in both directions and both families.
        #[test]
        fn the_filter_takes_one_port() {
            const ETHER: u32 = 1;
            let filter = filter(443);
            let passes = |packet: &[u8], protocol: c_int| {
                let about = About { hatype: ETHER, pkttype: 0, protocol: protocol as u32 };
                run(&filter, packet, &about) == PACKET_MAX as u32
            };
            let four = |packet: Vec<u8>| passes(&packet, libc::ETH_P_IP);
            let six = |packet: Vec<u8>| passes(&packet, libc::ETH_P_IPV6);
            for options in 0..=10 {
                assert!(four(ipv4(options, 6, 0x4000, [443, 9])));
                assert!(four(ipv4(options, 6, 0x2000, [9, 443])), "a first fragment");
                assert!(!four(ipv4(options, 6, 0, [9, 444])));
                assert!(!four(ipv4(options, 17, 0, [443, 443])), "UDP");
                assert!(!four(ipv4(options, 6, 0x2001, [443, 443])), "a later fragment");
            }
            assert!(six(ipv6(6, [443, 9])) && six(ipv6(6, [9, 443])));
            assert!(!six(ipv6(6, [9, 9])) && !six(ipv6(17, [443, 443])));
            assert!([0, 43, 44, 51, 60].iter().all(|next| six(ipv6(*next, [9, 9]))));
            assert!(!passes(&ipv4(0, 6, 0, [443, 443]), 0x0806), "ARP");
            assert!(!four(vec![0x45; 9]), "cut off");
        }

        /// N3: The filter accepts the incoming one of the two copies that loopback shows.
        #[test]
        fn the_filter_takes_each_packet_of_loopback_once() {
            let filter = filter(443);
            let outgoing = u32::from(PACKET_OUTGOING);
            for (hatype, pkttype, passes) in [
                (ARPHRD_LOOPBACK, 0, true),
                (ARPHRD_LOOPBACK, outgoing, false),
                (1, outgoing, true),
            ] {
                let about = About { hatype, pkttype, protocol: libc::ETH_P_IP as u32 };
                let passed = run(&filter, &ipv4(0, 6, 0, [443, 9]), &about);
                assert_eq!(passed != 0, passes, "{hatype} {pkttype}");
            }
        }
    }
}
