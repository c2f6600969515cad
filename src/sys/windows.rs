//! Windows. Sockets are always non-blocking, and every wait is a WSAPoll of at most 25 ms, because
//! WSAPoll does not return when another thread closes the socket.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, OwnedSocket};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use windows_sys::Win32::Networking::WinSock as ws;

use super::sync::sleep;
use super::{ConnectionKind, Interest, Lookup, LookupError, Ready, Wait, Woken, poll_ms};
use crate::types::address::{Address, Family};
use crate::types::endpoint::Endpoint;
use crate::types::keepalive::Keepalive;

pub(crate) type Owned = OwnedSocket;
pub(crate) type Borrowed<'a> = BorrowedSocket<'a>;

pub(crate) const BLOCKING_CALLS: bool = false;
pub(crate) const MAX_WAIT: Option<Duration> = Some(Duration::from_millis(25));
pub(crate) const ACCEPT_INHERITS: bool = false;
pub(crate) const SEES_HANGUP: bool = false;

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

pub(crate) fn send(socket: Borrowed<'_>, buf: &[u8], _: Wait) -> io::Result<usize> {
    (&*SockRef::from(&socket)).write(buf)
}

/// Windows has no Unix sockets for packets.
pub(crate) const SLICES_MAX: usize = 1024;

pub(crate) fn recv_slices(
    socket: Borrowed<'_>,
    bufs: &mut [IoSliceMut<'_>],
    _: Wait,
) -> io::Result<usize> {
    (&*SockRef::from(&socket)).read_vectored(bufs)
}

pub(crate) fn send_slices(
    socket: Borrowed<'_>,
    bufs: &[IoSlice<'_>],
    _: Wait,
) -> io::Result<usize> {
    (&*SockRef::from(&socket)).write_vectored(bufs)
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

/// Waits for the entries. WSAPoll requires one.
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
    Ok(())
}

pub(crate) fn poll(
    socket: Option<(Borrowed<'_>, Interest)>,
    event: Option<&Event>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
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
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
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

pub(super) fn tcp_option(socket: Borrowed<'_>, name: i32) -> io::Result<u32> {
    let mut value = 0u32;
    let mut len = 4;
    // SAFETY: the system writes at most `len` bytes into value.
    let code = unsafe {
        ws::getsockopt(
            socket.as_raw_socket() as ws::SOCKET,
            ws::IPPROTO_TCP,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if code != 0 {
        // SAFETY: WSAGetLastError takes no pointer.
        return Err(io::Error::from_raw_os_error(unsafe { ws::WSAGetLastError() }));
    }
    Ok(value)
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

/// With SO_REUSEADDR any process could take the port. SO_EXCLUSIVEADDRUSE has the semantics that Unix
/// programs expect.
pub(crate) fn prepare_listener(socket: Borrowed<'_>) -> io::Result<()> {
    let on = 1u32;
    // SAFETY: the system reads four bytes from `on`.
    let code = unsafe {
        ws::setsockopt(
            socket.as_raw_socket() as ws::SOCKET,
            ws::SOL_SOCKET,
            ws::SO_EXCLUSIVEADDRUSE,
            (&raw const on).cast(),
            4,
        )
    };
    if code != 0 {
        // SAFETY: WSAGetLastError takes no pointer.
        return Err(io::Error::from_raw_os_error(unsafe { ws::WSAGetLastError() }));
    }
    Ok(())
}

/// On Windows this would let other processes take the port: attempts after the first may fail.
pub(crate) fn share_port(_socket: Borrowed<'_>) -> io::Result<()> {
    Ok(())
}

/// Windows does not look up interface names; indexes work.
pub(crate) fn zone_index(zone: &str) -> Option<u32> {
    zone.parse().ok()
}

/// Looks up names through the standard library. Service names are not supported.
pub(crate) fn lookup(host: Option<&str>, service: &str, _kind: Type, family: Family) -> Lookup {
    let Ok(port) = service.parse::<u16>() else {
        return Err(LookupError::Os(io::ErrorKind::Unsupported.into(), None));
    };
    let found = match host {
        Some(host) => (host, port).to_socket_addrs(),
        None => return Ok(vec![SocketAddr::from(([0, 0, 0, 0], port))]),
    };
    match found {
        Ok(list) => Ok(list.filter(|a| family.allows(a.ip())).collect()),
        Err(e) if e.raw_os_error() == Some(ws::WSAHOST_NOT_FOUND) => {
            Err(LookupError::NotFound(e.to_string(), None))
        }
        Err(e) => Err(LookupError::Failed(e.to_string(), None)),
    }
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

#[cfg(feature = "datagram")]
pub(crate) fn is_bound_to_interface(_socket: Borrowed<'_>) -> bool {
    true
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

/// Datagram sockets are not supported on Windows yet.
pub(crate) fn datagram_socket(_: Domain) -> io::Result<Owned> {
    Err(io::ErrorKind::Unsupported.into())
}

/// No call that reports this is supported on Windows yet.
pub(crate) fn is_too_long(_: &io::Error) -> bool {
    false
}

#[cfg(any(feature = "datagram", feature = "activation"))]
pub(crate) fn is_datagram(_: Borrowed<'_>) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

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
