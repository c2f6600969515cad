//! Windows. Sockets are always non-blocking, and every wait is a WSAPoll of at most 25 ms, because
//! WSAPoll does not return when another thread closes the socket.

use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, OwnedSocket};
use std::path::Path;
use std::ptr;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use windows_sys::Win32::NetworkManagement::IpHelper::{if_indextoname, if_nametoindex};
use windows_sys::Win32::NetworkManagement::Ndis::IF_MAX_STRING_SIZE;
use windows_sys::Win32::Networking::WinSock as ws;

use super::sync::sleep;
use super::windows_hangup::poll_hangup;
use super::{ConnectionKind, Interest, Lookup, LookupError, Ready, Wait, Woken, poll_ms};
use crate::types::address::{Address, Family};
use crate::types::endpoint::Endpoint;
use crate::types::keepalive::Keepalive;

pub(crate) type Owned = OwnedSocket;
pub(crate) type Borrowed<'a> = BorrowedSocket<'a>;

pub(crate) const BLOCKING_CALLS: bool = false;
pub(crate) const MAX_WAIT: Option<Duration> = Some(Duration::from_millis(25));
pub(crate) const ACCEPT_INHERITS: bool = false;
pub(crate) const SEES_HANGUP: bool = true;

pub(crate) fn borrow(owned: &Owned) -> Borrowed<'_> {
    owned.as_socket()
}

pub(super) fn close(owned: Owned) {
    drop(owned);
}

pub(crate) fn stream_socket(domain: Domain, mptcp: bool) -> io::Result<Owned> {
    if mptcp {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

pub(crate) fn connect(socket: Borrowed<'_>, to: &SockAddr) -> io::Result<bool> {
    match SockRef::from(&socket).connect(to) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) if e.raw_os_error() == Some(ws::WSAEINPROGRESS) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Windows has no other function.
pub(crate) fn accept_without_flags(
    _: Borrowed<'_>,
    err: io::Error,
) -> io::Result<(Owned, Address)> {
    Err(err)
}

pub(crate) fn accept(listener: Borrowed<'_>) -> io::Result<(Owned, Address)> {
    let (socket, from) = SockRef::from(&listener).accept()?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), to_address(&from)))
}

pub(crate) fn set_nonblocking(socket: Borrowed<'_>, on: bool) -> io::Result<()> {
    SockRef::from(&socket).set_nonblocking(on)
}

pub(crate) fn wake(socket: Borrowed<'_>) {
    // A listener cannot be shut down; its waits look again after MAX_WAIT.
    let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Both);
}

/// Whether both directions are closed. Windows reports the end of the peer's direction only.
pub(crate) fn is_hung_up(socket: Borrowed<'_>) -> bool {
    super::is_gone(socket)
}

/// The system has no such limit.
pub(crate) fn descriptor_limit() -> usize {
    usize::MAX
}

pub(crate) fn spawn_without_signals(
    builder: super::sync::Builder,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    super::spawn_thread(builder, run).map(drop)
}

/// Only Linux resets a connection on which other threads wait.
pub(crate) fn disconnect(_socket: Borrowed<'_>) -> bool {
    false
}

pub(crate) fn connection_kind(socket: Borrowed<'_>) -> io::Result<Option<ConnectionKind>> {
    let socket = SockRef::from(&socket);
    if socket.r#type()? != Type::STREAM {
        return Ok(None);
    }
    Ok(Some(ConnectionKind { listens: socket.peer_addr().is_err(), packets: false }))
}

pub(crate) fn recv(socket: Borrowed<'_>, buf: &mut [u8], _: Wait) -> io::Result<usize> {
    (&*SockRef::from(&socket)).read(buf)
}

/// Receives, and leaves the bytes in the queue. Sockets are non-blocking.
pub(crate) fn peek(socket: Borrowed<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let room = std::ptr::from_mut(buf) as *mut [std::mem::MaybeUninit<u8>];
    // SAFETY: the layouts are equal, and peek writes initialized bytes only.
    SockRef::from(&socket).peek(unsafe { &mut *room })
}

/// The number of bytes that one call sends. A non-blocking send accepts all bytes of a call as soon as the
/// send buffer has space for one, so without a limit a write timeout would not take effect, and the send
/// buffer would hold any number of bytes. This is the default size of the send buffer.
const SEND_MAX: usize = 64 << 10;

pub(crate) fn send(socket: Borrowed<'_>, buf: &[u8], _: Wait) -> io::Result<usize> {
    (&*SockRef::from(&socket)).write(&buf[..buf.len().min(SEND_MAX)]).map_err(shut_down_error)
}

/// Windows reports a send after shutdown(SD_SEND) as WSAESHUTDOWN, other systems as EPIPE.
pub(super) fn shut_down_error(err: io::Error) -> io::Error {
    match err.raw_os_error() {
        Some(ws::WSAESHUTDOWN) => io::ErrorKind::BrokenPipe.into(),
        _ => err,
    }
}

/// The number of buffers of one call, as on Unix systems. Wine rejects more.
pub(crate) const SLICES_MAX: usize = 1024;

/// The length of the longest buffer of such a call (WSABUF). The standard library panics if a slice is longer.
pub(crate) const SLICE_LEN_MAX: usize = u32::MAX as usize;

/// The parts as slices for one call.
pub(crate) fn io_slices<'a, const N: usize>(parts: [&'a [u8]; N]) -> Vec<IoSlice<'a>> {
    parts.iter().flat_map(|part| part.chunks(SLICE_LEN_MAX)).map(IoSlice::new).collect()
}

pub(crate) fn recv_slices(
    socket: Borrowed<'_>,
    bufs: &mut [IoSliceMut<'_>],
    _: Wait,
) -> io::Result<usize> {
    let used = bufs.len().min(SLICES_MAX);
    (&*SockRef::from(&socket)).read_vectored(&mut bufs[..used])
}

pub(crate) fn send_slices(
    socket: Borrowed<'_>,
    bufs: &[IoSlice<'_>],
    _: Wait,
) -> io::Result<usize> {
    let socket = SockRef::from(&socket);
    let len = bufs.iter().map(|buf| buf.len()).sum::<usize>();
    let sent = match len > SEND_MAX || bufs.len() > SLICES_MAX {
        true => (&*socket).write_vectored(&first_bytes(bufs, SEND_MAX)),
        false => (&*socket).write_vectored(bufs),
    };
    sent.map_err(shut_down_error)
}

/// The slices of the first `most` bytes, at most [`SLICES_MAX`].
fn first_bytes<'a>(bufs: &'a [IoSlice<'_>], most: usize) -> Vec<IoSlice<'a>> {
    let mut left = most;
    let part = |buf: &'a IoSlice<'_>| {
        let part = &buf[..buf.len().min(left)];
        left -= part.len();
        IoSlice::new(part)
    };
    bufs.iter().map(part).filter(|part| !part.is_empty()).take(SLICES_MAX).collect()
}

/// Windows has no signals.
pub(crate) fn forbid_sigpipe(_socket: Borrowed<'_>) -> io::Result<()> {
    Ok(())
}

fn poll_entry(socket: Borrowed<'_>, interest: Interest) -> ws::WSAPOLLFD {
    let events = match interest {
        Interest::Read => ws::POLLRDNORM,
        Interest::Write => ws::POLLWRNORM,
        Interest::Hangup => 0,
    };
    ws::WSAPOLLFD { fd: socket.as_raw_socket() as ws::SOCKET, events, revents: 0 }
}

/// Waits for the entries. WSAPoll requires one. Before Windows 10 2004 (build 19041) it does not report a
/// connect that has failed, so each wait for a writable socket looks for that.
fn wait_for(fds: &mut [ws::WSAPOLLFD], timeout: Option<Duration>) -> io::Result<()> {
    if fds.is_empty() {
        sleep(timeout.unwrap_or(Duration::ZERO));
        return Ok(());
    }
    // SAFETY: the array holds that many entries.
    if unsafe { ws::WSAPoll(fds.as_mut_ptr(), fds.len() as u32, poll_ms(timeout)) } < 0 {
        // SAFETY: WSAGetLastError takes no pointer.
        return Err(io::Error::from_raw_os_error(unsafe { ws::WSAGetLastError() }));
    }
    for fd in fds.iter_mut().filter(|fd| fd.revents == 0 && fd.events == ws::POLLWRNORM) {
        if has_failed(fd.fd) {
            fd.revents = ws::POLLERR;
        }
    }
    Ok(())
}

/// Whether the connect of a socket has failed.
fn has_failed(socket: ws::SOCKET) -> bool {
    let mut failed = ws::FD_SET { fd_count: 1, fd_array: [socket; 64] };
    let now = ws::TIMEVAL { tv_sec: 0, tv_usec: 0 };
    let none = ptr::null_mut();
    // SAFETY: the system reads the first element of the set and the time, and writes the set.
    unsafe { ws::select(0, none, none, &raw mut failed, &raw const now) == 1 }
}

pub(crate) fn poll(
    socket: Option<(Borrowed<'_>, Interest)>,
    event: Option<&Event>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    if let Some((socket, Interest::Hangup)) = socket {
        return poll_hangup(socket, event.map(Event::reader), timeout);
    }
    let socket = socket.map(|(socket, interest)| poll_entry(socket, interest));
    let event = event.map(|event| poll_entry(event.reader(), Interest::Read));
    let has_socket = socket.is_some();
    let mut fds = [ws::WSAPOLLFD::default(); 2];
    let mut count = 0;
    for entry in [socket, event].into_iter().flatten() {
        fds[count] = entry;
        count += 1;
    }
    wait_for(&mut fds[..count], timeout)?;
    let socket = if has_socket { fds[0].revents } else { 0 };
    Ok(Ready { socket: socket != 0, error: socket & ws::POLLERR != 0 })
}

pub(crate) fn poll_any(
    sockets: &[Borrowed<'_>],
    interest: Interest,
    events: [Option<&Event>; 2],
    timeout: Option<Duration>,
) -> io::Result<Woken> {
    let mut fds: Vec<_> = sockets.iter().map(|s| poll_entry(*s, interest)).collect();
    let present = events.iter().flatten();
    fds.extend(present.map(|event| poll_entry(event.reader(), Interest::Read)));
    wait_for(&mut fds, timeout)?;
    let socket = fds[..sockets.len()].iter().position(|fd| fd.revents != 0);
    let mut set = fds[sockets.len()..].iter().map(|fd| fd.revents != 0);
    let events = events.map(|event| event.is_some() && set.next() == Some(true));
    Ok(Woken { socket, events })
}

/// An event that ends a poll: a UDP socket of the loopback interface that is connected to itself. It
/// stays set until it is cleared, for any number of waiting threads. Its socket receives from no other
/// one.
#[derive(Debug)]
pub(crate) struct Event {
    socket: Owned,
}

impl Event {
    pub(crate) fn new() -> io::Result<Event> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        socket.connect(&socket.local_addr()?)?;
        Ok(Event { socket: socket.into() })
    }

    pub(super) fn reader(&self) -> Borrowed<'_> {
        self.socket.as_socket()
    }

    /// The socket that is readable while the event is set.
    pub(crate) fn descriptor(&self) -> Option<Borrowed<'_>> {
        Some(self.reader())
    }

    /// The caller sets a cleared event only, so the send buffer has space.
    pub(crate) fn set(&self) {
        let _ = SockRef::from(&self.socket).send(&[1]);
    }

    pub(crate) fn clear(&self) {
        // WSAEWOULDBLOCK means that the event was not set, which is the desired state.
        let _ = recv(self.reader(), &mut [0], Wait::No);
    }
}

/// The result of a call that returns 0, or SOCKET_ERROR and an error for WSAGetLastError.
pub(super) fn check(code: i32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        // SAFETY: WSAGetLastError takes no pointer.
        _ => Err(io::Error::from_raw_os_error(unsafe { ws::WSAGetLastError() })),
    }
}

pub(super) fn tcp_option(socket: Borrowed<'_>, name: i32) -> io::Result<u32> {
    number_option(socket, ws::IPPROTO_TCP, name)
}

pub(super) fn set_tcp_option(socket: Borrowed<'_>, name: i32, value: u32) -> io::Result<()> {
    set_number_option(socket, ws::IPPROTO_TCP, name, value)
}

/// The value of an option that is a number of four bytes, or a truth value.
pub(super) fn number_option(socket: Borrowed<'_>, level: i32, name: i32) -> io::Result<u32> {
    let (mut value, mut len) = (0u32, 4);
    let socket = socket.as_raw_socket() as ws::SOCKET;
    // SAFETY: the system writes at most `len` bytes into value.
    check(unsafe { ws::getsockopt(socket, level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

pub(super) fn set_number_option(
    socket: Borrowed<'_>,
    level: i32,
    name: i32,
    value: u32,
) -> io::Result<()> {
    let socket = socket.as_raw_socket() as ws::SOCKET;
    // SAFETY: the system reads four bytes from value.
    check(unsafe { ws::setsockopt(socket, level, name, (&raw const value).cast(), 4) })
}

/// Makes a request that ends at once.
///
/// # Safety
/// The request reads a `T`, and writes at most `room` bytes to `into`.
pub(super) unsafe fn ioctl<T>(
    socket: Borrowed<'_>,
    request: u32,
    input: &T,
    into: *mut std::ffi::c_void,
    room: usize,
) -> io::Result<()> {
    let (socket, mut returned) = (socket.as_raw_socket() as ws::SOCKET, 0);
    let (input, len) = (ptr::from_ref(input).cast(), size_of::<T>() as u32);
    let (room, none) = (room as u32, ptr::null_mut());
    // SAFETY: as the caller promises.
    check(unsafe {
        ws::WSAIoctl(socket, request, input, len, into, room, &raw mut returned, none, None)
    })
}

/// Turns keepalive on with these values, or off. [`Keepalive`] has checked the ranges.
pub(crate) fn set_keepalive(socket: Borrowed<'_>, keepalive: Option<Keepalive>) -> io::Result<()> {
    let Some(keepalive) = keepalive else {
        return SockRef::from(&socket).set_keepalive(false);
    };
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let options = [
        (ws::TCP_KEEPIDLE, seconds(keepalive.idle())),
        (ws::TCP_KEEPINTVL, seconds(keepalive.interval())),
        (ws::TCP_KEEPCNT, keepalive.count()),
    ];
    for (name, value) in options {
        match set_tcp_option(socket, name, value) {
            Err(e) if is_unsupported(&e) => return set_keepalive_times(socket, &keepalive),
            other => other?,
        }
    }
    SockRef::from(&socket).set_keepalive(true)
}

/// The number of probes that Windows sends if it has no option for it.
const PROBES: u32 = 10;

/// Turns keepalive on with SIO_KEEPALIVE_VALS, for Windows before 10 1709, which has no TCP_KEEPCNT. The
/// interval is chosen such that a dead peer is detected in the same time.
fn set_keepalive_times(socket: Borrowed<'_>, keepalive: &Keepalive) -> io::Result<()> {
    let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let interval = keepalive.interval().saturating_mul(keepalive.count()) / PROBES;
    let values = ws::tcp_keepalive {
        onoff: 1,
        keepalivetime: milliseconds(keepalive.idle()),
        keepaliveinterval: milliseconds(interval).max(1),
    };
    // SAFETY: the system reads the structure, and writes nothing.
    unsafe { ioctl(socket, ws::SIO_KEEPALIVE_VALS, &values, ptr::null_mut(), 0) }
}

pub(crate) fn keepalive(socket: Borrowed<'_>) -> io::Result<Option<Keepalive>> {
    if SockRef::from(&socket).keepalive()? { keepalive_values(socket).map(Some) } else { Ok(None) }
}

/// The values that the socket has, also while keepalive is off.
pub(crate) fn keepalive_values(socket: Borrowed<'_>) -> io::Result<Keepalive> {
    let seconds = |name| tcp_option(socket, name).map(|s| Duration::from_secs(s.into()));
    let keepalive = Keepalive::new(
        seconds(ws::TCP_KEEPIDLE)?,
        seconds(ws::TCP_KEEPINTVL)?,
        tcp_option(socket, ws::TCP_KEEPCNT)?,
    );
    keepalive.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

pub(crate) fn bind_interface(_socket: Borrowed<'_>, _name: &str, _ipv6: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// With SO_EXCLUSIVEADDRUSE a second listener on the port fails, as on Unix systems. Without this option a
/// process of any user may bind a more specific address to the port and receive the connections, and
/// with SO_REUSEADDR also the same address. The price: the port cannot be bound again while connections
/// of the previous listener are open.
pub(crate) fn prepare_listener(socket: Borrowed<'_>) -> io::Result<()> {
    set_number_option(socket, ws::SOL_SOCKET, ws::SO_EXCLUSIVEADDRUSE, 1)
}

/// Prevents, as [`prepare_listener`] does, that another socket takes the port, except if the program lets
/// sockets share it.
#[cfg(feature = "datagram")]
pub(crate) fn keep_port(socket: Borrowed<'_>) -> io::Result<()> {
    match SockRef::from(&socket).reuse_address()? {
        true => Ok(()),
        false => prepare_listener(socket),
    }
}

/// On Windows this would let other processes take the port: attempts after the first may fail.
pub(crate) fn share_port(_socket: Borrowed<'_>) -> io::Result<()> {
    Ok(())
}

/// The index of an interface. Its name is that of `if_nametoindex`, such as `ethernet_32768`.
pub(crate) fn zone_index(zone: &str) -> Option<u32> {
    let mut buf = [0u8; IF_MAX_STRING_SIZE as usize + 1];
    if let Ok(index) = zone.parse() {
        // SAFETY: the buffer has the size that the function requires.
        let found = unsafe { if_indextoname(index, buf.as_mut_ptr()) };
        return (!found.is_null()).then_some(index);
    }
    let name = CString::new(zone).ok()?;
    // SAFETY: name is a NUL-terminated string.
    match unsafe { if_nametoindex(name.as_ptr().cast()) } {
        0 => None,
        index => Some(index),
    }
}

pub(crate) fn lookup(host: Option<&str>, service: &str, kind: Type, family: Family) -> Lookup {
    start_winsock();
    let wide = |text: &str| text.encode_utf16().chain([0]).collect::<Vec<u16>>();
    for text in [host.unwrap_or(""), service] {
        if text.contains('\0') {
            let why = format!("{text:?} holds a NUL byte");
            return Err(LookupError::NotFound(why, Some(ws::WSAHOST_NOT_FOUND)));
        }
    }
    let (node, service) = (host.map(wide), wide(service));
    let hints = ws::ADDRINFOW {
        ai_flags: if host.is_none() { ws::AI_PASSIVE as i32 } else { 0 },
        ai_family: match family {
            Family::Any => ws::AF_UNSPEC.into(),
            Family::Ipv4 => ws::AF_INET.into(),
            Family::Ipv6 => ws::AF_INET6.into(),
        },
        ai_socktype: kind.into(),
        ..ws::ADDRINFOW::default()
    };
    let node = node.as_ref().map_or(ptr::null(), |node| node.as_ptr());
    let mut list = ptr::null_mut();
    // SAFETY: the strings are NUL-terminated or null, hints and list are valid.
    let code = unsafe { ws::GetAddrInfoW(node, service.as_ptr(), &raw const hints, &raw mut list) };
    if code != 0 {
        let text = io::Error::from_raw_os_error(code).to_string();
        return Err(match code {
            ws::WSAHOST_NOT_FOUND | ws::WSANO_DATA | ws::WSATYPE_NOT_FOUND => {
                LookupError::NotFound(text, Some(code))
            }
            _ => LookupError::Failed(text, Some(code)),
        });
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: next is a node of the list that GetAddrInfoW returned.
        let info = unsafe { &*next };
        // SAFETY: ai_addr points to ai_addrlen bytes of a socket address, and no more is copied than the
        // storage holds.
        let name = unsafe {
            SockAddr::try_init(|storage, size| {
                *size = (*size).min(info.ai_addrlen as i32);
                ptr::copy_nonoverlapping(
                    info.ai_addr.cast::<u8>(),
                    storage.cast::<u8>(),
                    *size as usize,
                );
                Ok(())
            })
        };
        let address = name.ok().and_then(|(_, name)| name.as_socket());
        if let Some(address) = address.filter(|a| !found.contains(a)) {
            found.push(address);
        }
        next = info.ai_next;
    }
    // SAFETY: list came from GetAddrInfoW and is freed once.
    unsafe { ws::FreeAddrInfoW(list) };
    Ok(found)
}

/// Windows Sockets must be started before the first call. socket2 does it when it creates a socket.
fn start_winsock() {
    drop(Socket::new(Domain::IPV4, Type::DGRAM, None));
}

#[cfg(all(feature = "serve", feature = "datagram"))]
pub(crate) fn wake_receivers(_socket: Borrowed<'_>) {}

/// Unix sockets are not supported on Windows yet.
#[cfg(feature = "datagram")]
pub(crate) fn name_of_unix(_address: &Address) -> io::Result<SockAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(feature = "datagram")]
pub(crate) fn autobind(_socket: Borrowed<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn unix_name(_endpoint: &Endpoint) -> io::Result<SockAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn to_address(name: &SockAddr) -> Address {
    name.as_socket().map_or(Address::UnixUnnamed, Address::from)
}

pub(crate) fn lock_file(
    _path: &Path,
    _how: &mut std::fs::OpenOptions,
) -> io::Result<Option<std::fs::File>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the socket uses one interface only, by the zone of its local address.
#[cfg(feature = "datagram")]
pub(crate) fn is_bound_to_interface(socket: Borrowed<'_>) -> bool {
    let local = SockRef::from(&socket).local_addr().ok().and_then(|name| name.as_socket_ipv6());
    local.is_some_and(|local| local.scope_id() != 0)
}

/// Windows has no such option: bind(2) reserves a port.
pub(crate) fn choose_port_late(_socket: Borrowed<'_>) -> io::Result<()> {
    Ok(())
}

/// Handles are not small numbers.
pub(crate) fn number(_socket: &Owned) -> usize {
    0
}

pub(crate) fn is_out_of_descriptors(err: &io::Error) -> bool {
    err.raw_os_error() == Some(ws::WSAEMFILE)
}

pub(crate) fn is_out_of_memory(err: &io::Error) -> bool {
    err.raw_os_error() == Some(ws::WSAENOBUFS)
}

pub(crate) fn is_unsupported(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(ws::WSAEAFNOSUPPORT | ws::WSAEPROTONOSUPPORT | ws::WSAEOPNOTSUPP | ws::WSAENOPROTOOPT)
    )
}

/// The error of a connection that the peer reset.
pub(crate) const RESET: i32 = ws::WSAECONNRESET;

pub(crate) fn is_from_network(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(
            ws::WSAECONNRESET
                | ws::WSAECONNABORTED
                | ws::WSAENOTCONN
                | ws::WSAETIMEDOUT
                | ws::WSAEHOSTUNREACH
                | ws::WSAENETUNREACH
                | ws::WSAECONNREFUSED
                | ws::WSAENETRESET
                | ws::WSAENETDOWN
        )
    )
}

/// Windows has no Unix sockets here.
pub(crate) fn is_other_type(_err: &io::Error) -> bool {
    false
}

/// No write performs a handshake on Windows.
pub(crate) fn is_in_progress(_err: &io::Error) -> bool {
    false
}

/// Sockets cannot be bound to interfaces on Windows.
pub(crate) fn is_no_interface(_err: &io::Error) -> bool {
    false
}

pub(crate) fn is_family_missing(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(ws::WSAEAFNOSUPPORT | ws::WSAEADDRNOTAVAIL))
}

pub(crate) fn is_fatal_accept(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(
            ws::WSAEINVAL
                | ws::WSAENOTSOCK
                | ws::WSAEFAULT
                | ws::WSAEOPNOTSUPP
                | ws::WSANOTINITIALISED
        )
    )
}

/// Creates a datagram socket, non-blocking.
pub(crate) fn datagram_socket(domain: Domain) -> io::Result<Owned> {
    if domain == Domain::UNIX {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether the datagram was longer than the protocol or, with IP_DONTFRAGMENT, the path permits.
pub(crate) fn is_too_long(err: &io::Error) -> bool {
    err.raw_os_error() == Some(ws::WSAEMSGSIZE)
}

#[cfg(any(feature = "datagram", feature = "activation"))]
pub(crate) fn is_datagram(socket: Borrowed<'_>) -> io::Result<bool> {
    let socket = SockRef::from(&socket);
    Ok(socket.r#type()? == Type::DGRAM && socket.protocol()? == Some(socket2::Protocol::UDP))
}

#[cfg(test)]
// Clippy permits unwrap in test functions, and not in the functions that they call.
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Instant;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// K1: without TCP_KEEPCNT the time until a dead peer is detected is the same.
    #[test]
    fn keepalive_without_a_count_keeps_the_detection_time() {
        let (client, _peer) = pair();
        let socket = client.as_socket();
        let seconds = Duration::from_secs;
        let keepalive = Keepalive::new(seconds(50), seconds(20), 5).unwrap();
        set_keepalive_times(socket, &keepalive).unwrap();
        assert!(SockRef::from(&socket).keepalive().unwrap());
        assert_eq!(tcp_option(socket, ws::TCP_KEEPIDLE).unwrap(), 50);
        assert_eq!(tcp_option(socket, ws::TCP_KEEPINTVL).unwrap(), 10);
    }

    /// I1: one call sends at most the limit, also from several buffers, and in their order.
    #[test]
    fn send_accepts_no_more_than_its_limit() {
        let (client, mut peer) = pair();
        client.set_nonblocking(true).unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(SEND_MAX + 3).collect();
        assert_eq!(send(client.as_socket(), &bytes, Wait::No).unwrap(), SEND_MAX);
        let mut received = vec![0; SEND_MAX];
        peer.read_exact(&mut received).unwrap();
        assert!(received == bytes[..SEND_MAX]);
        let (start, end) = bytes.split_at(1000);
        let slices = [start, &[], end, b"more"].map(IoSlice::new);
        assert_eq!(send_slices(client.as_socket(), &slices, Wait::No).unwrap(), SEND_MAX);
        peer.read_exact(&mut received).unwrap();
        assert!(received == bytes[..SEND_MAX]);
        let small = [&b"a"[..], b"bc"].map(IoSlice::new);
        assert_eq!(send_slices(client.as_socket(), &small, Wait::No).unwrap(), 3);
        peer.read_exact(&mut received[..3]).unwrap();
        let many = [IoSlice::new(b"d"); SLICES_MAX + 1];
        assert_eq!(send_slices(client.as_socket(), &many, Wait::No).unwrap(), SLICES_MAX);
        peer.write_all(&[b'e'; SLICES_MAX + 1]).unwrap();
        let mut bytes = [[0]; SLICES_MAX + 1];
        let mut many: Vec<_> = bytes.iter_mut().map(|byte| IoSliceMut::new(byte)).collect();
        poll(Some((client.as_socket(), Interest::Read)), None, None).unwrap();
        assert!(recv_slices(client.as_socket(), &mut many, Wait::No).unwrap() <= SLICES_MAX);
    }

    /// I1: parts that are longer than a slice can be become several slices, without an empty one.
    #[test]
    fn part_of_more_than_4_gib_becomes_two_slices() {
        let huge = vec![0; SLICE_LEN_MAX + 5]; // pages of zeros, which need no memory
        let lens: Vec<_> = io_slices([b"ab", &huge, b""]).iter().map(|slice| slice.len()).collect();
        assert_eq!(lens, [2, SLICE_LEN_MAX, 5]);
    }

    /// E1: a send after the end of sending is a broken pipe, as on other systems.
    #[test]
    fn send_after_shutdown_is_a_broken_pipe() {
        let (client, _peer) = pair();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let failed = send(client.as_socket(), b"x", Wait::No).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
        let failed = send_slices(client.as_socket(), &[IoSlice::new(b"x")], Wait::No).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
    }

    /// C1: a connect that is refused is found without WSAPoll. A connection has not failed.
    #[test]
    fn refused_connect_has_failed() {
        let (client, _peer) = pair();
        assert!(!has_failed(client.as_raw_socket() as ws::SOCKET));
        let unused = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        unused.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let socket = stream_socket(Domain::IPV4, false).unwrap();
        if connect(socket.as_socket(), &unused.local_addr().unwrap()).is_err() {
            return; // The call has reported it.
        }
        let start = Instant::now();
        while !has_failed(socket.as_raw_socket() as ws::SOCKET) {
            assert!(start.elapsed() < Duration::from_secs(20), "not reported");
            sleep(Duration::from_millis(1));
        }
        let error = super::super::pending_error(socket.as_socket()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// L5: another socket cannot take the port of a listener, also not with a more specific address.
    #[test]
    fn listener_has_its_port_alone() {
        let listener = stream_socket(Domain::IPV4, false).unwrap();
        prepare_listener(listener.as_socket()).unwrap();
        let listener = Socket::from(listener);
        listener.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        let second = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        second.set_reuse_address(true).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        assert!(second.bind(&address.into()).is_err());
    }

    /// S4: the name of a service and the name and the number of an interface are looked up.
    #[test]
    fn lookup_knows_services_and_interfaces() {
        let found = lookup(None, "http", Type::STREAM, Family::Ipv4).unwrap();
        assert_eq!(found, [SocketAddr::from(([0, 0, 0, 0], 80))]);
        let found = lookup(Some("localhost"), "80", Type::STREAM, Family::Any).unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 80) && !found.is_empty());
        let unknown = lookup(None, "no-such-service", Type::STREAM, Family::Any).unwrap_err();
        assert!(matches!(unknown, LookupError::NotFound(..)), "{unknown:?}");
        assert_eq!(zone_index("no-such-interface"), None);
        assert_eq!(zone_index("4000000000"), None);
        assert_eq!(zone_index("1"), Some(1));
    }

    /// T2: an event ends a wait until it is cleared, with a socket and without.
    #[test]
    fn event_ends_polls_until_it_is_cleared() {
        let (set, clear) = (Event::new().unwrap(), Event::new().unwrap());
        set.set();
        let start = Instant::now();
        let idle = Event::new().unwrap();
        for socket in [None, Some((idle.reader(), Interest::Read))] {
            for _ in 0..2 {
                let ready = poll(socket, Some(&set), Some(Duration::from_secs(60))).unwrap();
                assert!(!ready.socket);
            }
        }
        let events = [Some(&clear), Some(&set)];
        let woken = poll_any(&[idle.reader()], Interest::Read, events, None).unwrap();
        assert_eq!((woken.socket, woken.events), (None, [false, true]));
        assert!(start.elapsed() < Duration::from_secs(50), "a poll did not end");
        set.clear();
        let timeout = Some(Duration::from_millis(20));
        let woken = poll_any(&[], Interest::Read, events, timeout).unwrap();
        assert_eq!((woken.socket, woken.events), (None, [false, false]));
    }

    /// T2: no other socket can set an event.
    #[test]
    fn event_ignores_datagrams_of_other_sockets() {
        let event = Event::new().unwrap();
        let address = SockRef::from(&event.socket).local_addr().unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        other.send_to(b"x", address.as_socket().unwrap()).unwrap();
        let woken =
            poll_any(&[], Interest::Read, [Some(&event), None], Some(Duration::from_millis(50)));
        assert!(!woken.unwrap().events[0]);
    }
}
