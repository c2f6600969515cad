//! Datagrams on Windows, with their control messages (WSARecvMsg, WSASendMsg).

use std::cell::UnsafeCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::windows::io::AsRawSocket;
use std::ptr;
use std::sync::OnceLock;

use socket2::{InterfaceIndexOrAddress, SockAddr, SockAddrStorage};
use windows_sys::Win32::Networking::WinSock as ws;

use super::{Run, Sending, Source, ToGroups};
use crate::sys::ancillary::{Ancillary, Received};
use crate::sys::windows::{check, ioctl, is_unsupported, number_option, set_number_option};
use crate::sys::{Borrowed, Families, SockRef, Wait, is_from_network};

/// Space for the control messages that keepsock requests, and for the messages that a program may
/// request through the socket.
pub(crate) const UDP_CONTROL: usize = 256;
/// The library has no Unix datagrams on Windows.
pub(crate) const UNIX_CONTROL: usize = 0;

#[repr(C, align(8))]
struct Control([u8; UDP_CONTROL]);

/// The distance of the data from its header (WSA_CMSG_DATA of ws2def.h).
const DATA: usize = size_of::<ws::CMSGHDR>().next_multiple_of(size_of::<usize>());

fn raw(socket: Borrowed<'_>) -> ws::SOCKET {
    socket.as_raw_socket() as ws::SOCKET
}

// ---- receiving ---------------------------------------------------------------------------

type RecvMsg = unsafe extern "system" fn(
    ws::SOCKET,
    *mut ws::WSAMSG,
    *mut u32,
    *mut windows_sys::Win32::System::IO::OVERLAPPED,
    ws::LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32;

/// WSARecvMsg, which no library exports: the driver of the socket has it.
fn recv_msg(socket: Borrowed<'_>) -> io::Result<RecvMsg> {
    static FOUND: OnceLock<RecvMsg> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(*found);
    }
    let mut found: ws::LPFN_WSARECVMSG = None;
    // SAFETY: the system writes a pointer to a function, or nothing.
    unsafe {
        ioctl(
            socket,
            ws::SIO_GET_EXTENSION_FUNCTION_POINTER,
            &ws::WSAID_WSARECVMSG,
            (&raw mut found).cast(),
            size_of_val(&found),
        )
    }?;
    let found = found.ok_or(io::ErrorKind::Unsupported)?;
    Ok(*FOUND.get_or_init(|| found))
}

/// The memory for the bytes beyond the buffer of a receive. With it the system reports the length of a
/// datagram that is longer than the buffer. All receives write to it, and none reads it.
struct Beyond(UnsafeCell<[u8; Beyond::LEN]>);

impl Beyond {
    /// No datagram is longer.
    const LEN: usize = 1 << 16;
}

// SAFETY: only the system accesses the bytes, and their values have no meaning.
unsafe impl Sync for Beyond {}

static BEYOND: Beyond = Beyond(UnsafeCell::new([0; Beyond::LEN]));

/// Receives one datagram. Bytes beyond the buffer are lost, and the result says so. `control`: the
/// space for control messages, at most [`UDP_CONTROL`]; 0 if the system reports the sender's address
/// only. `peek`: the datagram stays in the queue. Sockets are non-blocking.
pub(crate) fn recv_datagram(
    socket: Borrowed<'_>,
    buf: &mut [u8],
    control: usize,
    peek: bool,
    _: Wait,
    received: &mut Received,
) -> io::Result<()> {
    let recv_msg = if control > 0 { Some(recv_msg(socket)?) } else { None };
    let mut room = Control([0; UDP_CONTROL]);
    let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
    let mut slices = [
        ws::WSABUF { len, buf: buf.as_mut_ptr() },
        ws::WSABUF { len: Beyond::LEN as u32, buf: BEYOND.0.get().cast() },
    ];
    let slices = &mut slices[..if buf.len() < Beyond::LEN { 2 } else { 1 }];
    let (first, count) = (slices.as_mut_ptr(), slices.len() as u32);
    let (mut len, mut flags) = (0, if peek { ws::MSG_PEEK as u32 } else { 0 });
    let mut messages = 0;
    let (result, name) = with_name(|name, name_len| {
        let none = ptr::null_mut();
        let Some(recv_msg) = recv_msg else {
            let (len, flags) = (&raw mut len, &raw mut flags);
            // SAFETY: the system writes into the buffers, and at most `name_len` bytes of the name.
            return check(unsafe {
                ws::WSARecvFrom(raw(socket), first, count, len, flags, name, name_len, none, None)
            });
        };
        let mut msg = ws::WSAMSG {
            name,
            namelen: *name_len,
            lpBuffers: first,
            dwBufferCount: count,
            Control: ws::WSABUF { len: control.min(UDP_CONTROL) as u32, buf: room.0.as_mut_ptr() },
            dwFlags: flags,
        };
        // SAFETY: msg describes buffers that outlive the call.
        let code = unsafe { recv_msg(raw(socket), &raw mut msg, &raw mut len, none, None) };
        (*name_len, messages) = (msg.namelen, msg.Control.len as usize);
        check(code)
    });
    match result {
        Ok(()) => {}
        Err(e) => match e.raw_os_error() {
            // Not all control messages have found space.
            Some(ws::WSAEMSGSIZE) => {}
            // The program has shut the socket down: no bytes from no sender, as on Unix systems.
            Some(ws::WSAESHUTDOWN) => return Ok(()),
            _ => return Err(of_earlier_datagram(e)),
        },
    }
    received.original_len = len as usize;
    received.len = received.original_len.min(buf.len());
    received.truncated = received.original_len > buf.len();
    received.from = name.as_socket().map(Into::into);
    if control > 0 {
        received.ancillary = Some(read_control(room.0.get(..messages).unwrap_or_default()));
    }
    Ok(())
}

/// Windows reports "port unreachable" of ICMP as a reset, and Unix systems as a refused connect.
fn of_earlier_datagram(err: io::Error) -> io::Error {
    match err.raw_os_error() {
        Some(ws::WSAECONNRESET) => io::Error::from_raw_os_error(ws::WSAECONNREFUSED),
        _ => err,
    }
}

/// Makes a call that writes an address, also if it fails with WSAEMSGSIZE.
fn with_name(
    call: impl FnOnce(*mut ws::SOCKADDR, &mut i32) -> io::Result<()>,
) -> (io::Result<()>, SockAddr) {
    let mut storage = SockAddrStorage::zeroed();
    let room = storage.size_of();
    let mut len = room;
    let result = call((&raw mut storage).cast(), &mut len);
    // SAFETY: the storage was zeroed, and the length is at most its size.
    (result, unsafe { SockAddr::new(storage, len.min(room)) })
}

fn v4(address: ws::IN_ADDR) -> IpAddr {
    // SAFETY: every bit pattern is a number.
    IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(unsafe { address.S_un.S_addr })))
}

fn v6(address: ws::IN6_ADDR) -> IpAddr {
    // SAFETY: every bit pattern is an array of bytes.
    IpAddr::V6(Ipv6Addr::from(unsafe { address.u.Byte })).to_canonical()
}

/// Reads the control messages that the system wrote.
fn read_control(messages: &[u8]) -> Ancillary {
    /// Reads a structure at the beginning of the bytes.
    ///
    /// # Safety
    /// Every bit pattern is a valid `T`.
    unsafe fn first<T>(bytes: &[u8]) -> Option<T> {
        // SAFETY: the length is checked, and the caller guarantees a valid value.
        (bytes.len() >= size_of::<T>())
            .then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
    let mut told = Ancillary::default();
    let mut rest = messages;
    // SAFETY: these structures consist of integers.
    unsafe {
        while let Some(header) = first::<ws::CMSGHDR>(rest) {
            let data = rest.get(DATA..header.cmsg_len).unwrap_or_default();
            match (header.cmsg_level, header.cmsg_type) {
                (ws::IPPROTO_IP, ws::IP_PKTINFO) => {
                    if let Some(info) = first::<ws::IN_PKTINFO>(data) {
                        put_destination(&mut told, v4(info.ipi_addr), info.ipi_ifindex);
                    }
                }
                (ws::IPPROTO_IPV6, ws::IPV6_PKTINFO) => {
                    if let Some(info) = first::<ws::IN6_PKTINFO>(data) {
                        put_destination(&mut told, v6(info.ipi6_addr), info.ipi6_ifindex);
                    }
                }
                // The message of IPv4 has the type of the option that sets the TTL, or that of the
                // request.
                (ws::IPPROTO_IP, ws::IP_TTL | ws::IP_RECVTTL)
                | (ws::IPPROTO_IPV6, ws::IPV6_HOPLIMIT) => {
                    told.details.ttl = first::<u32>(data).and_then(|ttl| u8::try_from(ttl).ok());
                }
                (ws::IPPROTO_IP, ws::IP_TOS | ws::IP_RECVTOS)
                | (ws::IPPROTO_IPV6, ws::IPV6_TCLASS | ws::IPV6_RECVTCLASS) => {
                    told.details.tos = first::<u32>(data).and_then(|tos| u8::try_from(tos).ok());
                }
                (ws::IPPROTO_UDP, COALESCED_INFO) => {
                    told.segment = first::<u32>(data).map(|segment| segment as usize);
                }
                _ => {}
            }
            let len = header.cmsg_len.max(DATA);
            let next = len.checked_next_multiple_of(align_of::<ws::CMSGHDR>());
            rest = next.and_then(|next| rest.get(next..)).unwrap_or_default();
        }
    }
    told
}

const COALESCED_INFO: i32 = ws::UDP_COALESCED_INFO as i32;

/// No answer leaves from the address of a group or from the broadcast address.
fn put_destination(told: &mut Ancillary, to: IpAddr, interface: u32) {
    let is_own = |ip: &IpAddr| !ip.is_multicast() && *ip != Ipv4Addr::BROADCAST;
    told.to = Some(to);
    told.local = Some(to).filter(is_own);
    told.details.interface = interface;
}

// ---- sending -----------------------------------------------------------------------------

/// The control messages of a datagram to send.
struct Messages {
    room: Control,
    used: usize,
}

impl Messages {
    /// Appends a message. All messages of a datagram fit.
    fn put<T>(&mut self, level: i32, kind: i32, value: T) {
        let len = DATA + size_of::<T>();
        let space = len.next_multiple_of(size_of::<usize>());
        let Some(room) = self.room.0.get_mut(self.used..self.used + space) else {
            return;
        };
        let header = ws::CMSGHDR { cmsg_len: len, cmsg_level: level, cmsg_type: kind };
        let at = room.as_mut_ptr();
        // SAFETY: the space holds the header and the value.
        unsafe {
            at.cast::<ws::CMSGHDR>().write_unaligned(header);
            at.add(DATA).cast::<T>().write_unaligned(value);
        }
        self.used += space;
    }

    fn put_source(&mut self, source: Source, ipv6: bool) {
        if ipv6 && !source.mapped {
            let ip = match source.ip {
                Some(IpAddr::V6(ip)) => ip,
                Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped(),
                None => Ipv6Addr::UNSPECIFIED,
            };
            let address = ws::IN6_ADDR { u: ws::IN6_ADDR_0 { Byte: ip.octets() } };
            let info = ws::IN6_PKTINFO { ipi6_addr: address, ipi6_ifindex: source.interface };
            self.put(ws::IPPROTO_IPV6, ws::IPV6_PKTINFO, info);
            return;
        }
        let ip = match source.ip {
            Some(IpAddr::V4(ip)) => ip,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let address = ws::IN_ADDR { S_un: ws::IN_ADDR_0 { S_addr: ip.to_bits().to_be() } };
        let info = ws::IN_PKTINFO { ipi_addr: address, ipi_ifindex: source.interface };
        self.put(ws::IPPROTO_IP, ws::IP_PKTINFO, info);
    }
}

/// Sends one datagram or one run, completely or not at all. Sockets are non-blocking.
pub(crate) fn send_datagram(
    socket: Borrowed<'_>,
    ipv6: bool,
    run: &Run<'_>,
    _: Wait,
) -> io::Result<()> {
    let mut messages = Messages { room: Control([0; UDP_CONTROL]), used: 0 };
    if run.source != Source::default() {
        messages.put_source(run.source, ipv6);
    }
    if let [first, _, ..] = run.pieces {
        let segment = u32::try_from(first.len()).unwrap_or(u32::MAX);
        messages.put(ws::IPPROTO_UDP, ws::UDP_SEND_MSG_SIZE, segment);
    }
    let mut msg = ws::WSAMSG {
        // The standard library guarantees that IoSlice has the layout of WSABUF; sending only reads it.
        lpBuffers: run.pieces.as_ptr().cast_mut().cast(),
        dwBufferCount: run.pieces.len() as u32,
        ..ws::WSAMSG::default()
    };
    if let Some(to) = &run.to {
        (msg.name, msg.namelen) = (to.as_ptr().cast_mut().cast(), to.len());
    }
    if messages.used > 0 {
        msg.Control = ws::WSABUF { len: messages.used as u32, buf: messages.room.0.as_mut_ptr() };
    }
    let mut sent = 0;
    // SAFETY: msg describes buffers that outlive the call; sending only reads them.
    check(unsafe {
        ws::WSASendMsg(raw(socket), &raw const msg, 0, &raw mut sent, ptr::null_mut(), None)
    })
}

/// Whether the system splits a buffer of several datagrams: Windows 10 2004.
pub(crate) fn splits_runs(socket: Borrowed<'_>) -> bool {
    number_option(socket, ws::IPPROTO_UDP, ws::UDP_SEND_MSG_SIZE).is_ok()
}

/// Whether an error may mean that the system cannot split the run.
pub(crate) fn may_refuse_segments(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(ws::WSAEINVAL | ws::WSAEMSGSIZE | ws::WSAEOPNOTSUPP))
}

// ---- options -----------------------------------------------------------------------------

/// Sets an option of IPv6 and one of IPv4, on a socket that may have both families.
fn set_both(
    socket: Borrowed<'_>,
    families: Families,
    (v4, v6): (i32, i32),
    value: u32,
) -> io::Result<()> {
    if families.has_ipv6() {
        set_number_option(socket, ws::IPPROTO_IPV6, v6, value)?;
    }
    if families.has_ipv4() {
        set_number_option(socket, ws::IPPROTO_IP, v4, value)?;
    }
    Ok(())
}

/// Requests the destination address of each datagram.
pub(crate) fn want_destination(socket: Borrowed<'_>, ipv6: bool) -> io::Result<()> {
    let families = match ipv6 {
        true if SockRef::from(&socket).only_v6()? => Families::Ipv6,
        true => Families::Both,
        false => Families::Ipv4,
    };
    set_both(socket, families, (ws::IP_PKTINFO, ws::IPV6_PKTINFO), 1)
}

/// Requests the TTL and the TOS byte of each datagram. Windows reports the time of a datagram in ticks of a
/// counter only (SIO_TIMESTAMPING).
pub(crate) fn want_details(socket: Borrowed<'_>, families: Families, on: bool) -> io::Result<()> {
    let on = u32::from(on);
    set_both(socket, families, (ws::IP_RECVTTL, ws::IPV6_HOPLIMIT), on)?;
    set_both(socket, families, (ws::IP_RECVTOS, ws::IPV6_RECVTCLASS), on)
}

/// Whether no datagram waits.
pub(crate) fn is_empty(socket: Borrowed<'_>) -> bool {
    let peeked = SockRef::from(&socket).peek(&mut []);
    peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// Whether the system may return several datagrams in one buffer.
pub(crate) fn coalesces(socket: Borrowed<'_>) -> bool {
    let max = number_option(socket, ws::IPPROTO_UDP, ws::UDP_RECV_MAX_COALESCED_SIZE);
    max.is_ok_and(|max| max > 0)
}

/// Lets the system return several datagrams of one sender in one buffer (URO): Windows 10 2004.
pub(crate) fn coalesce(socket: Borrowed<'_>, on: bool) -> io::Result<()> {
    let max = if on { u32::from(u16::MAX) } else { 0 };
    set_number_option(socket, ws::IPPROTO_UDP, ws::UDP_RECV_MAX_COALESCED_SIZE, max)
        // The value is valid, so WSAEINVAL means that the option does not exist.
        .map_err(|e| match is_unsupported(&e) || e.raw_os_error() == Some(ws::WSAEINVAL) {
            true => io::ErrorKind::Unsupported.into(),
            false => e,
        })
}

/// Sets how datagrams are sent. Windows ignores IP_TOS: only a policy of the machine sets the byte.
pub(crate) fn set_sending(
    socket: Borrowed<'_>,
    families: Families,
    setting: Sending,
) -> io::Result<()> {
    let (names, value) = match setting {
        Sending::Ttl(ttl) => ((ws::IP_TTL, ws::IPV6_UNICAST_HOPS), u32::from(ttl)),
        Sending::Tos(_) => return Err(io::ErrorKind::Unsupported.into()),
        Sending::Whole(on) => ((ws::IP_DONTFRAGMENT, ws::IPV6_DONTFRAG), u32::from(on)),
    };
    set_both(socket, families, names, value)
}

/// The known path MTU to the peer of a connected socket, headers included.
pub(crate) fn path_mtu(socket: Borrowed<'_>, ipv6: bool) -> io::Result<u32> {
    match ipv6 {
        true => number_option(socket, ws::IPPROTO_IPV6, ws::IPV6_MTU),
        false => number_option(socket, ws::IPPROTO_IP, ws::IP_MTU),
    }
}

/// Whether a receive returns ICMP errors of earlier datagrams. Windows returns them for each socket, also
/// without a peer, until a program forbids it.
pub(crate) fn report_errors(socket: Borrowed<'_>, _ipv6: bool, on: bool) -> io::Result<()> {
    let (on, none) = (u32::from(on), ptr::null_mut());
    // SAFETY: the system writes nothing.
    unsafe {
        // "TTL exceeded" of ICMP. Wine does not have it.
        let _ = ioctl(socket, ws::SIO_UDP_NETRESET, &on, none, 0);
        ioctl(socket, ws::SIO_UDP_CONNRESET, &on, none, 0)
    }
}

/// Whether the error of a call may be an ICMP error of an earlier datagram.
pub(crate) fn is_reported(err: &io::Error) -> bool {
    is_from_network(err)
}

/// Whether a receive error concerns the socket itself or the call, so that retrying cannot succeed.
/// All others pass.
pub(crate) fn ends_receiving(err: &io::Error) -> bool {
    const FATAL: [i32; 5] =
        [ws::WSAEBADF, ws::WSAENOTSOCK, ws::WSAEINVAL, ws::WSAEFAULT, ws::WSANOTINITIALISED];
    err.raw_os_error().is_none_or(|code| FATAL.contains(&code))
}

/// Joins or leaves a group on an interface (0: as routed), for all senders or for one. Where an option of
/// IPv4 requires the address of an interface, Windows accepts its index as the address 0.0.0.x.
pub(crate) fn set_member(
    socket: Borrowed<'_>,
    group: IpAddr,
    interface: u32,
    source: Option<IpAddr>,
    join: bool,
) -> io::Result<()> {
    let own = SockRef::from(&socket);
    match (group, source) {
        (IpAddr::V4(group), None) => {
            let interface = InterfaceIndexOrAddress::Index(interface);
            match join {
                true => own.join_multicast_v4_n(&group, &interface),
                false => own.leave_multicast_v4_n(&group, &interface),
            }
        }
        (IpAddr::V4(group), Some(IpAddr::V4(source))) => {
            let interface = Ipv4Addr::from_bits(interface);
            match join {
                true => own.join_ssm_v4(&source, &group, &interface),
                false => own.leave_ssm_v4(&source, &group, &interface),
            }
        }
        (IpAddr::V6(group), None) => match join {
            true => own.join_multicast_v6(&group, interface),
            false => own.leave_multicast_v6(&group, interface),
        },
        (group, Some(source)) => set_member_of_source(socket, group, interface, source, join),
    }
}

/// Joins or leaves an IPv6 group for one sender: RFC 3678 section 5.
fn set_member_of_source(
    socket: Borrowed<'_>,
    group: IpAddr,
    interface: u32,
    source: IpAddr,
    join: bool,
) -> io::Result<()> {
    let name = |ip| {
        let name = SockAddr::from(std::net::SocketAddr::new(ip, 0));
        let mut storage = ws::SOCKADDR_STORAGE::default();
        // SAFETY: no address is longer than the storage.
        unsafe {
            let (from, to) = (name.as_ptr().cast::<u8>(), (&raw mut storage).cast());
            ptr::copy_nonoverlapping(from, to, name.len() as usize);
        }
        storage
    };
    let request = ws::GROUP_SOURCE_REQ {
        gsr_interface: interface,
        gsr_group: name(group),
        gsr_source: name(source),
    };
    let option = if join { ws::MCAST_JOIN_SOURCE_GROUP } else { ws::MCAST_LEAVE_SOURCE_GROUP };
    // SAFETY: the system reads the structure.
    check(unsafe {
        ws::setsockopt(
            raw(socket),
            ws::IPPROTO_IPV6,
            option as i32,
            (&raw const request).cast(),
            size_of_val(&request) as i32,
        )
    })
}

pub(crate) fn to_groups(
    socket: Borrowed<'_>,
    families: Families,
    setting: ToGroups,
) -> io::Result<()> {
    let own = SockRef::from(&socket);
    if families.has_ipv6() {
        match setting {
            ToGroups::Loop(on) => own.set_multicast_loop_v6(on),
            ToGroups::Ttl(ttl) => own.set_multicast_hops_v6(ttl.into()),
            ToGroups::Interface(index) => own.set_multicast_if_v6(index),
        }?;
    }
    if families.has_ipv4() {
        match setting {
            ToGroups::Loop(on) => own.set_multicast_loop_v4(on),
            ToGroups::Ttl(ttl) => own.set_multicast_ttl_v4(ttl.into()),
            ToGroups::Interface(index) => own.set_multicast_if_v4(&Ipv4Addr::from_bits(index)),
        }?;
    }
    Ok(())
}

#[cfg(test)]
// Clippy permits unwrap in test functions, and not in the functions that they call.
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::IoSlice;
    use std::net::{SocketAddr, UdpSocket};
    use std::os::windows::io::AsSocket;
    use std::time::Duration;

    use super::*;
    use crate::sys::{Interest, poll};

    fn bound() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// Receives the next datagram of the socket.
    fn receive(socket: &UdpSocket, buf: &mut [u8], peek: bool) -> Received {
        poll(Some((socket.as_socket(), Interest::Read)), None, Some(Duration::from_secs(20)))
            .unwrap();
        let mut received = Received::default();
        recv_datagram(socket.as_socket(), buf, UDP_CONTROL, peek, Wait::No, &mut received).unwrap();
        received
    }

    /// D1, D2: a datagram is received with its length, its sender, its destination and its TTL.
    #[test]
    fn received_datagram_has_addresses_and_length() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        want_destination(server.as_socket(), false).unwrap();
        want_details(server.as_socket(), Families::Ipv4, true).unwrap();
        let client = bound();
        set_sending(client.as_socket(), Families::Ipv4, Sending::Ttl(9)).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], server.local_addr().unwrap().port()));
        client.send_to(b"datagram", to).unwrap();
        let mut buf = [0; 4];
        for peek in [true, false] {
            let got = receive(&server, &mut buf, peek);
            assert_eq!((got.len, got.original_len, got.truncated), (4, 8, true));
            assert_eq!((&buf, got.from), (b"data", Some(client.local_addr().unwrap().into())));
            let ancillary = got.ancillary.unwrap();
            assert_eq!((ancillary.to, ancillary.local), (Some(to.ip()), Some(to.ip())));
            assert_eq!((ancillary.details.ttl, ancillary.details.tos), (Some(9), Some(0)));
            assert_ne!(ancillary.details.interface, 0);
        }
    }

    /// C5: a receive reads the control messages that a send writes. It skips unknown messages, and ends at a
    /// wrong length.
    #[test]
    fn control_messages_are_read_as_they_are_written() {
        let mut messages = Messages { room: Control([0; UDP_CONTROL]), used: 0 };
        messages.put(ws::SOL_SOCKET, 99, [1u8; 5]);
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        let source = Source { ip: Some(ip.into()), interface: 7, mapped: true };
        messages.put_source(source, true);
        messages.put(ws::IPPROTO_IP, ws::IP_TTL, 3u32);
        messages.put(ws::IPPROTO_UDP, COALESCED_INFO, 1200u32);
        messages.put(ws::IPPROTO_IPV6, ws::IPV6_TCLASS, 46u32);
        let told = read_control(&messages.room.0[..messages.used]);
        assert_eq!((told.to, told.local), (Some(ip.into()), Some(ip.into())));
        assert_eq!((told.details.interface, told.details.ttl), (7, Some(3)));
        assert_eq!((told.details.tos, told.segment), (Some(46), Some(1200)));
        let ip: IpAddr = Ipv6Addr::LOCALHOST.into();
        let source = Source { ip: Some(ip), interface: 1, mapped: false };
        let mut messages = Messages { room: Control([0; UDP_CONTROL]), used: 0 };
        messages.put_source(source, true);
        let told = read_control(&messages.room.0[..messages.used]);
        assert_eq!((told.to, told.details.interface), (Some(ip), 1));
        for len in [0, 1, DATA - 1, UDP_CONTROL, usize::MAX] {
            let header = ws::CMSGHDR { cmsg_len: len, cmsg_level: 0, cmsg_type: ws::IP_TTL };
            let mut messages = Messages { room: Control([0; UDP_CONTROL]), used: 0 };
            messages.put(0, 0, header);
            read_control(&messages.room.0[DATA..]);
        }
    }

    /// D2: no datagram leaves from the address of a group or from the broadcast address.
    #[test]
    fn group_or_broadcast_address_is_not_local() {
        for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(239, 1, 2, 3)] {
            let mut told = Ancillary::default();
            put_destination(&mut told, to.into(), 1);
            assert_eq!((told.to, told.local), (Some(to.into()), None));
        }
    }

    /// D3: a system without coalescing reports that it does not support it. Pieces of a run are sent as one
    /// datagram only if the system does not split them, which [`splits_runs`] finds.
    #[test]
    fn coalescing_and_splitting_work_or_are_unsupported() {
        let (server, client) = (bound(), bound());
        match coalesce(server.as_socket(), true) {
            Ok(()) => assert!(coalesces(server.as_socket())),
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::Unsupported);
                assert!(!coalesces(server.as_socket()));
            }
        }
        let plain = bound();
        if splits_runs(client.as_socket()) {
            let to = Some(plain.local_addr().unwrap().into());
            let pieces = [IoSlice::new(b"ab"), IoSlice::new(b"cd"), IoSlice::new(b"e")];
            let run = Run { pieces: &pieces, to, source: Source::default() };
            send_datagram(client.as_socket(), false, &run, Wait::No).unwrap();
            let lens = [0; 3].map(|_| receive(&plain, &mut [0; 8], false).len);
            assert_eq!(lens, [2, 2, 1]);
        }
    }

    /// D2: the error of an earlier datagram is that of a refused datagram, and has no number of a stream.
    #[test]
    fn port_unreachable_is_a_refused_connect() {
        let reset = io::Error::from_raw_os_error(ws::WSAECONNRESET);
        let refused = of_earlier_datagram(reset);
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(is_reported(&refused) && !ends_receiving(&refused));
        let other = of_earlier_datagram(io::Error::from_raw_os_error(ws::WSAENETRESET));
        assert_eq!(other.raw_os_error(), Some(ws::WSAENETRESET));
        assert!(is_reported(&other));
    }

    /// T2: a socket whose receives the program has shut down has no datagram, and no sender.
    #[test]
    fn receive_after_shutdown_has_no_sender() {
        let socket = bound();
        // SAFETY: the socket is open.
        check(unsafe { ws::shutdown(raw(socket.as_socket()), ws::SD_RECEIVE) }).unwrap();
        let mut received = Received::default();
        recv_datagram(socket.as_socket(), &mut [0; 8], 0, false, Wait::No, &mut received).unwrap();
        assert!(received.from.is_none() && received.len == 0);
    }
}
