//! Packets of one TCP port, as they pass this machine's interfaces.
//!
//! Linux: a packet socket (packet(7)), whose filter drops in the kernel what is not asked for.

use std::io;
use std::time::SystemTime;

use super::{Borrowed, Owned};

/// What a packet socket tells of a packet beside its bytes.
pub(crate) struct Packet {
    /// How many bytes of the buffer it fills, from its IP header on. Data is cut off.
    pub len: usize,
    /// The number of the interface.
    pub interface: u32,
    /// It was on its way out of there.
    pub outgoing: bool,
    /// When it passed.
    pub time: Option<SystemTime>,
}

/// Headers, and no more than a little data: IPv4 and TCP have at most 60 bytes each; IPv6
/// has 40 and extensions.
pub(crate) const PACKET_MAX: usize = 256;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{capture, capture_drops, capture_next};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn capture(_port: u16) -> io::Result<Owned> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn capture_next(
    _socket: Borrowed<'_>,
    _buf: &mut [u8; PACKET_MAX],
) -> io::Result<Packet> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn capture_drops(_socket: Borrowed<'_>) -> u32 {
    0
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::mem;
    use std::os::fd::{AsFd, AsRawFd};
    use std::ptr;
    use std::time::{Duration, UNIX_EPOCH};

    use libc::{c_int, socklen_t};
    use socket2::{Domain, Socket, Type};

    use super::super::sockopt;
    use super::super::unix::{check, check_int};
    use super::*;

    // Not in every libc that this crate takes (linux/if_packet.h, linux/if_arp.h).
    const PACKET_OUTGOING: u8 = 4;
    const PACKET_STATISTICS: c_int = 6;
    const ARPHRD_LOOPBACK: u32 = 772;

    /// SOF_TIMESTAMPING_RX_SOFTWARE and SOF_TIMESTAMPING_SOFTWARE (linux/net_tstamp.h): the times
    /// at which packets came to the kernel.
    const TIMES: c_int = 1 << 3 | 1 << 4;

    /// Room for the packets that come before they are read.
    const QUEUE: c_int = 4 << 20;

    /// Begins to queue the packets from or to the port, on every interface of this network
    /// namespace.
    pub(crate) fn capture(port: u16) -> io::Result<Owned> {
        // Without a protocol nothing is queued until bind: no packet comes past the filter.
        // DGRAM: packets begin with their IP header, whatever the interface.
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new_raw(Domain::PACKET, kind, None)?;
        // Beyond the system's limit where that is allowed; a shorter queue will do, too.
        if sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &QUEUE).is_err() {
            let _ = sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &QUEUE);
        }
        // Not SO_TIMESTAMP: the kernel takes times only some moments after it was asked to, and
        // that would give packets of before the time at which they are read.
        sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &TIMES)?;
        let mut steps = filter(port);
        let program = libc::sock_fprog {
            len: u16::try_from(steps.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            filter: steps.as_mut_ptr(),
        };
        sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        // SAFETY: an all-zero sockaddr_ll is a valid one: of every interface.
        let mut name: libc::sockaddr_ll = unsafe { mem::zeroed() };
        name.sll_family = libc::AF_PACKET as u16;
        // Only "all protocols" sees what this machine sends.
        name.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        let len = mem::size_of_val(&name) as socklen_t;
        // SAFETY: the name outlives the call, and len is its size.
        check_int(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), len) })?;
        Ok(socket.into())
    }

    /// Space for a control message with three times, aligned as control messages are.
    #[repr(C)]
    union Control {
        _align: libc::cmsghdr,
        bytes: [u8; 128],
    }

    /// Takes the next packet off the queue; `WouldBlock` if there is none.
    pub(crate) fn capture_next(
        socket: Borrowed<'_>,
        buf: &mut [u8; PACKET_MAX],
    ) -> io::Result<Packet> {
        // SAFETY: all-zero values of both are valid.
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
        let len =
            check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT) })?;
        Ok(Packet {
            len,
            interface: name.sll_ifindex.unsigned_abs(),
            outgoing: name.sll_pkttype == PACKET_OUTGOING,
            // SAFETY: recvmsg has filled msg, whose control buffer is alive.
            time: unsafe { time(&msg) },
        })
    }

    /// # Safety
    /// `msg` was filled by recvmsg, and its control buffer is alive.
    unsafe fn time(msg: &libc::msghdr) -> Option<SystemTime> {
        // SAFETY: as the caller promises; the kernel's control messages are well-formed.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(msg) };
        while !next.is_null() {
            // SAFETY: next points to a message inside of the control buffer.
            let header = unsafe { &*next };
            // SAFETY: no memory is touched.
            let whole = unsafe { libc::CMSG_LEN(mem::size_of::<[libc::timespec; 3]>() as u32) };
            // SCM_TIMESTAMPING has the option's number; the first of its times is the kernel's.
            let is_time =
                (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SO_TIMESTAMPING);
            if is_time && header.cmsg_len as usize == whole as usize {
                // SAFETY: the message has the length of three times, which may be unaligned.
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
            // SAFETY: as above.
            next = unsafe { libc::CMSG_NXTHDR(msg, next) };
        }
        None
    }

    /// How many packets found the queue full since this was asked before.
    pub(crate) fn capture_drops(socket: Borrowed<'_>) -> u32 {
        // struct tpacket_stats: all packets, those that were dropped.
        // SAFETY: an array of numbers.
        let counts =
            unsafe { sockopt::get::<[u32; 2]>(socket, libc::SOL_PACKET, PACKET_STATISTICS) };
        counts.map_or(0, |([_, dropped], _)| dropped)
    }

    // ---- the filter ----------------------------------------------------------------------

    /// Where a jump leads.
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

    /// A step of the filter before its jumps are counted out.
    enum Step {
        Here(To),
        /// Loads: the mode and size, and the offset.
        Do(u32, u32),
        /// If the value is this one, or has one of these bits, there; else there.
        Jump(u32, u32, To, To),
        Return(u32),
    }

    /// The classic BPF program (linux/filter.h, socket(7)) that lets TCP of one port pass, over
    /// IPv4 and IPv6, but of what the loopback interface shows twice only what comes in, as
    /// libpcap does. IPv6 packets with extension headers pass too, for a program cannot walk
    /// them; the parser finds out what they are.
    fn filter(port: u16) -> Vec<libc::sock_filter> {
        use Step::{Do, Here, Jump, Return};
        use libc::{BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JSET, BPF_LD, BPF_LDX, BPF_MSH};
        let ancillary = |what: c_int| (libc::SKF_AD_OFF + what) as u32;
        let tcp = libc::IPPROTO_TCP as u32;
        let port = u32::from(port);
        let byte = BPF_LD | BPF_B | BPF_ABS;
        let half = BPF_LD | BPF_H | BPF_ABS;
        let mut steps = vec![
            Do(half, ancillary(libc::SKF_AD_HATYPE)),
            Jump(BPF_JEQ, ARPHRD_LOOPBACK, To::Next, To::Protocol),
            Do(byte, ancillary(libc::SKF_AD_PKTTYPE)),
            Jump(BPF_JEQ, PACKET_OUTGOING.into(), To::Drop, To::Protocol),
            Here(To::Protocol),
            Do(half, ancillary(libc::SKF_AD_PROTOCOL)),
            Jump(BPF_JEQ, libc::ETH_P_IPV6 as u32, To::Ipv6, To::Next),
            Jump(BPF_JEQ, libc::ETH_P_IP as u32, To::Next, To::Drop),
            // IPv4: the protocol; not a later fragment; ports after a header of any length.
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
        // How many steps are passed over on the way from the one at `at`; all jumps go forward.
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
                let code = libc::BPF_JMP | test | libc::BPF_K;
                Some(step(code, distance(at, yes), distance(at, no), k))
            }
            Step::Return(k) => Some(step(libc::BPF_RET | libc::BPF_K, 0, 0, k)),
        });
        made.collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// What the kernel knows of a packet.
        struct About {
            hatype: u32,
            pkttype: u32,
            protocol: u32,
        }

        /// Runs a filter as the kernel does: how much of the packet passes.
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
                let ancillary = step.k.wrapping_sub(libc::SKF_AD_OFF as u32) as c_int;
                match code & 7 {
                    libc::BPF_RET => return step.k,
                    libc::BPF_LDX => match packet.get(step.k as usize) {
                        Some(byte) => x = u32::from(byte & 0xf) * 4,
                        None => return 0,
                    },
                    libc::BPF_JMP => {
                        let holds = match code & 0xf0 {
                            libc::BPF_JEQ => a == step.k,
                            libc::BPF_JSET => a & step.k != 0,
                            _ => panic!("a jump that is not known here"),
                        };
                        at += usize::from(if holds { step.jt } else { step.jf });
                    }
                    _ if step.k > i32::MAX as u32 => {
                        a = match ancillary {
                            libc::SKF_AD_HATYPE => about.hatype,
                            libc::SKF_AD_PKTTYPE => about.pkttype,
                            libc::SKF_AD_PROTOCOL => about.protocol,
                            _ => panic!("a load that is not known here"),
                        };
                    }
                    _ => {
                        let from = step.k + if code & libc::BPF_IND != 0 { x } else { 0 };
                        let size = if code & libc::BPF_B != 0 { 1 } else { 2 };
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

        /// N3: the filter lets TCP of the port pass, both ways and both families, and no more.
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

        /// N3: of the two copies that loopback shows, the one that comes in passes.
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
