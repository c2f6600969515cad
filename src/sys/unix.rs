//! Linux, macOS, FreeBSD and their kin. What only Linux has is marked.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use libc::c_int;
#[cfg(any(target_os = "linux", target_os = "android"))]
use socket2::Protocol;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{ConnectionKind, Interest, Lookup, LookupError, Ready, Wait, Woken, poll_ms};
use crate::endpoint::{Endpoint, Target};
use crate::info::{Address, Family};
use crate::keepalive::Keepalive;

pub(crate) type Owned = OwnedFd;
pub(crate) type Borrowed<'a> = BorrowedFd<'a>;
pub(crate) type Raw = RawFd;

pub(super) const LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));
/// Measured on Linux: shutdown wakes accept, recv, send and connect. Elsewhere a
/// listener cannot be shut down (ENOTCONN).
pub(crate) const BLOCKING_CALLS: bool = LINUX;
pub(crate) const MAX_WAIT: Option<Duration> =
    if LINUX { None } else { Some(Duration::from_millis(25)) };
pub(crate) const ACCEPT_INHERITS: bool = LINUX;
/// POLLRDHUP: Linux 2.6.17, FreeBSD 13. libc names it where it is.
pub(crate) const SEES_HANGUP: bool =
    cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));
/// sun_path without its final NUL.
pub(crate) const UNIX_PATH_MAX: usize = if LINUX { 107 } else { 103 };

pub(crate) fn borrow(owned: &Owned) -> Borrowed<'_> {
    owned.as_fd()
}

pub(super) fn into_raw(owned: Owned) -> Raw {
    owned.into_raw_fd()
}

/// # Safety
/// `raw` is open and nobody else will close it.
pub(super) unsafe fn from_raw(raw: Raw) -> Owned {
    // SAFETY: as the caller promises.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// # Safety
/// `raw` stays open for as long as the result lives.
#[inline]
pub(super) unsafe fn borrow_raw<'a>(raw: Raw) -> Borrowed<'a> {
    // SAFETY: as the caller promises.
    unsafe { BorrowedFd::borrow_raw(raw) }
}

#[inline]
pub(super) fn check(n: isize) -> io::Result<usize> {
    // A negative result is the only one that does not fit.
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[inline]
pub(super) fn check_int(n: c_int) -> io::Result<c_int> {
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n) }
}

// ---- making, connecting, accepting -------------------------------------------------

/// A stream socket, non-blocking and close-on-exec from the start.
pub(crate) fn stream_socket(domain: Domain, mptcp: bool) -> io::Result<Owned> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let protocol = mptcp.then_some(Protocol::MPTCP);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let protocol = if mptcp { return Err(io::ErrorKind::Unsupported.into()) } else { None };
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let socket = Socket::new_raw(domain, Type::STREAM.nonblocking().cloexec(), protocol)?;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let socket = {
        let socket = Socket::new(domain, Type::STREAM, protocol)?;
        socket.set_nonblocking(true)?;
        socket
    };
    Ok(socket.into())
}

/// Starts connecting a non-blocking socket. True: connected already.
pub(crate) fn connect(socket: Borrowed<'_>, to: &SockAddr) -> io::Result<bool> {
    match SockRef::from(&socket).connect(to) {
        Ok(()) => Ok(true),
        // connect(2): EINTR leaves the handshake going on, as EINPROGRESS does.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes one connection off the listener's queue: one system call.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
pub(crate) fn accept(listener: Borrowed<'_>) -> io::Result<(Owned, Address)> {
    let mut name = mem::MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes of name, and then their number into len.
    let fd = check_int(unsafe {
        let name = name.as_mut_ptr().cast();
        libc::accept4(listener.as_raw_fd(), name, &raw mut len, libc::SOCK_CLOEXEC)
    })?;
    // SAFETY: the descriptor is new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let inet = name.as_ptr().cast::<libc::sockaddr_in>();
    // SAFETY: the family is at the beginning of every name; a name of AF_INET
    // is a sockaddr_in. An unnamed Unix peer has the family and no more.
    let address = unsafe {
        if len as usize >= mem::size_of::<libc::sockaddr_in>()
            && (*inet).sin_family == libc::AF_INET as libc::sa_family_t
        {
            let ip = Ipv4Addr::from_bits(u32::from_be((*inet).sin_addr.s_addr));
            Address::Inet(SocketAddrV4::new(ip, u16::from_be((*inet).sin_port)).into())
        } else {
            other_address(name.as_ptr().cast(), len)
        }
    };
    Ok((socket, address))
}

/// # Safety
/// As for [`copy_name`].
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline(never)]
unsafe fn other_address(name: *const libc::sockaddr, len: libc::socklen_t) -> Address {
    // SAFETY: as the caller promises.
    unsafe { copy_name(name, len) }.map_or(Address::UnixUnnamed, |name| to_address(&name))
}

/// Takes one connection off the listener's queue. The BSDs inherit non-blocking
/// mode, others do not.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn accept(listener: Borrowed<'_>) -> io::Result<(Owned, Address)> {
    let (socket, from) = SockRef::from(&listener).accept()?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), to_address(&from)))
}

/// One system call, where fcntl would take two.
pub(crate) fn set_nonblocking(socket: Borrowed<'_>, on: bool) -> io::Result<()> {
    let mut value = c_int::from(on);
    // SAFETY: FIONBIO reads an int through the pointer.
    check_int(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONBIO, &raw mut value) })?;
    Ok(())
}

/// Ends every call that waits on the socket, in any thread.
pub(crate) fn wake(socket: Borrowed<'_>) {
    // Failure means that there is no connection to wait for (ENOTCONN).
    // SAFETY: no memory is passed.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Ends every call that waits to receive, in any thread, and those to come; sending goes on. Linux
/// does so though there be no connection (ENOTCONN).
pub(crate) fn wake_receivers(socket: Borrowed<'_>) {
    // SAFETY: no memory is passed.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) };
}

/// Dissolves a TCP connection at once, by RST, and ends every call that waits on it,
/// in any thread. False: this system, or this kind of socket, does not do that
/// (some kernels between Linux 6.1 and 6.6 not while a thread waits).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn disconnect(socket: Borrowed<'_>) -> bool {
    // SAFETY: an all-zero sockaddr is a valid one of the family AF_UNSPEC.
    let nobody: libc::sockaddr = unsafe { mem::zeroed() };
    let len = mem::size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: the address outlives the call, and len is its size.
    unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, len) == 0 }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn disconnect(_socket: Borrowed<'_>) -> bool {
    false
}

/// What the descriptor is if it is one for connections: a stream, or a Unix socket for packets.
pub(crate) fn connection_kind(socket: Borrowed<'_>) -> io::Result<Option<ConnectionKind>> {
    let socket = SockRef::from(&socket);
    let kind = socket.r#type()?;
    // SEQPACKET of other families (SCTP) is something else.
    let packets = kind == Type::SEQPACKET && socket.local_addr()?.is_unix();
    if kind != Type::STREAM && !packets {
        return Ok(None);
    }
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let listens = socket.is_listener()?;
    // Elsewhere: only a connected socket has a peer.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let listens = socket.peer_addr().is_err();
    Ok(Some(ConnectionKind { listens, packets }))
}

// ---- moving bytes --------------------------------------------------------------------

pub(super) fn flags(wait: Wait) -> c_int {
    match wait {
        Wait::Yes => 0,
        Wait::No => libc::MSG_DONTWAIT,
    }
}

/// By the system call itself: in a program with threads, libc's recv makes way for
/// pthread_cancel(3) each time, which is more work than the rest of it, and would unwind through
/// frames that do not allow that.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
pub(crate) fn recv(socket: Borrowed<'_>, buf: &mut [u8], wait: Wait) -> io::Result<usize> {
    let (fd, null) = (socket.as_raw_fd(), std::ptr::null_mut::<libc::c_void>());
    // SAFETY: the kernel writes at most buf.len() bytes into buf, and no name.
    let n = unsafe {
        libc::syscall(libc::SYS_recvfrom, fd, buf.as_mut_ptr(), buf.len(), flags(wait), null, null)
    };
    check(n as isize)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn recv(socket: Borrowed<'_>, buf: &mut [u8], wait: Wait) -> io::Result<usize> {
    // SAFETY: the kernel writes at most buf.len() bytes into buf.
    check(unsafe {
        libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags(wait))
    })
}

/// macOS has no MSG_NOSIGNAL; there SO_NOSIGPIPE is set when the socket is made.
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGPIPE: c_int = 0;
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGPIPE: c_int = libc::MSG_NOSIGNAL;

/// As [`recv`].
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
pub(crate) fn send(socket: Borrowed<'_>, buf: &[u8], wait: Wait) -> io::Result<usize> {
    let (fd, flags) = (socket.as_raw_fd(), flags(wait) | NO_SIGPIPE);
    let null = std::ptr::null::<libc::c_void>();
    // SAFETY: the kernel reads at most buf.len() bytes from buf, and no name.
    let n = unsafe { libc::syscall(libc::SYS_sendto, fd, buf.as_ptr(), buf.len(), flags, null, 0) };
    check(n as isize)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn send(socket: Borrowed<'_>, buf: &[u8], wait: Wait) -> io::Result<usize> {
    let flags = flags(wait) | NO_SIGPIPE;
    // SAFETY: the kernel reads at most buf.len() bytes from buf.
    check(unsafe { libc::send(socket.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags) })
}

/// IOV_MAX: how many buffers the kernel takes in one call.
pub(crate) const SLICES_MAX: usize = 1024;

/// Into several buffers in one call. The kernel takes at most SLICES_MAX of them.
pub(crate) fn recv_slices(
    socket: Borrowed<'_>,
    bufs: &mut [IoSliceMut<'_>],
    wait: Wait,
) -> io::Result<usize> {
    // SAFETY: an all-zero msghdr is a valid, empty one.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    // IoSliceMut is an iovec by the standard library's promise.
    msg.msg_iov = bufs.as_mut_ptr().cast();
    msg.msg_iovlen = bufs.len().min(SLICES_MAX) as _;
    // SAFETY: msg describes buffers that outlive the call.
    check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, flags(wait)) })
}

/// Several buffers in one call. The kernel takes at most SLICES_MAX of them.
pub(crate) fn send_slices(
    socket: Borrowed<'_>,
    bufs: &[IoSlice<'_>],
    wait: Wait,
) -> io::Result<usize> {
    // SAFETY: an all-zero msghdr is a valid, empty one.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    // IoSlice is an iovec by the standard library's promise; sendmsg only reads it.
    msg.msg_iov = bufs.as_ptr().cast_mut().cast();
    msg.msg_iovlen = bufs.len().min(SLICES_MAX) as _;
    let flags = flags(wait) | NO_SIGPIPE;
    // SAFETY: msg describes buffers that outlive the call.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const msg, flags) })
}

/// macOS has no MSG_NOSIGNAL; socket2 sets this on sockets of its own.
pub(crate) fn forbid_sigpipe(socket: Borrowed<'_>) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    SockRef::from(&socket).set_nosigpipe(true)?;
    let _ = socket;
    Ok(())
}

// ---- waiting ---------------------------------------------------------------------------

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const POLLRDHUP: libc::c_short = libc::POLLRDHUP;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const POLLRDHUP: libc::c_short = 0;

fn poll_events(interest: Interest) -> libc::c_short {
    match interest {
        Interest::Read => libc::POLLIN,
        Interest::Write => libc::POLLOUT,
        Interest::Hangup => POLLRDHUP,
    }
}

/// Waits for the socket, the event, or the time. Without a socket it waits for
/// the other two. EINTR is returned as the error that it is.
pub(crate) fn poll(
    socket: Option<(Borrowed<'_>, Interest)>,
    event: Option<&Event>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    // poll(2) passes over negative descriptors.
    let mut fds = [libc::pollfd { fd: -1, events: 0, revents: 0 }; 2];
    if let Some((socket, interest)) = socket {
        fds[0].fd = socket.as_raw_fd();
        fds[0].events = poll_events(interest);
    }
    let mut count = 1;
    if let Some(event) = event {
        fds[1].fd = event.reader.as_raw_fd();
        fds[1].events = libc::POLLIN;
        count = 2;
    }
    // SAFETY: the array holds `count` entries.
    check_int(unsafe { libc::poll(fds.as_mut_ptr(), count, poll_ms(timeout)) })?;
    Ok(Ready { socket: fds[0].revents != 0, error: fds[0].revents & libc::POLLERR != 0 })
}

/// Waits until one of the sockets is ready or holds an error, or one of the events is set.
pub(crate) fn poll_any(
    sockets: &[Borrowed<'_>],
    interest: Interest,
    events: [Option<&Event>; 2],
    timeout: Option<Duration>,
) -> io::Result<Woken> {
    let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
    let wanted = poll_events(interest);
    let mut fds: Vec<_> = sockets.iter().map(|s| entry(s.as_raw_fd(), wanted)).collect();
    // poll(2) passes over negative descriptors.
    fds.extend(events.map(|e| entry(e.map_or(-1, |e| e.reader.as_raw_fd()), libc::POLLIN)));
    // SAFETY: the array holds that many entries.
    check_int(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as _, poll_ms(timeout)) })?;
    let (sockets, events) = fds.split_at(sockets.len());
    let is_set = |i: usize| events.get(i).is_some_and(|fd| fd.revents != 0);
    let socket = sockets.iter().position(|fd| fd.revents != 0);
    Ok(Woken { socket, events: [is_set(0), is_set(1)] })
}

/// Something that ends a poll: an eventfd on Linux, a socket pair elsewhere. It is set
/// until it is cleared, for any number of waiting threads.
#[derive(Debug)]
pub(crate) struct Event {
    reader: OwnedFd,
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    writer: OwnedFd,
}

impl Event {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn new() -> io::Result<Event> {
        // SAFETY: no memory is passed.
        let fd = check_int(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new and ours.
        Ok(Event { reader: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn new() -> io::Result<Event> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Event { reader: reader.into(), writer: writer.into() })
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn writer(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    pub(super) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Async-signal-safe: one write(2). The caller sets only a cleared event, so
    /// the write cannot fail and errno stays as it was.
    pub(crate) fn set(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the kernel reads the eight bytes that an eventfd wants.
        unsafe { libc::write(self.writer().as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(crate) fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the kernel writes at most eight bytes. An event that was not
        // set gives EAGAIN, which is as good.
        unsafe { libc::read(self.reader.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// The moment a call began. Linux's coarse clock is read without asking the
/// hardware; it lags by at most a scheduler tick (10 ms at 100 Hz), so what has
/// elapsed is never shown as more than it is.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Clone, Copy)]
pub(crate) struct Tick(libc::timespec);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Tick {
    pub(crate) const LAG: Duration = Duration::from_millis(10);

    fn read(clock: libc::clockid_t) -> libc::timespec {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: now is a valid timespec. Both clocks exist since Linux 2.6.32.
        unsafe { libc::clock_gettime(clock, &raw mut now) };
        now
    }

    #[inline]
    pub(crate) fn now() -> Tick {
        Tick(Tick::read(libc::CLOCK_MONOTONIC_COARSE))
    }

    fn since_boot(t: libc::timespec) -> Duration {
        Duration::new(t.tv_sec.max(0) as u64, t.tv_nsec.max(0) as u32)
    }

    pub(crate) fn elapsed(self) -> Duration {
        let now = Tick::since_boot(Tick::read(libc::CLOCK_MONOTONIC));
        now.saturating_sub(Tick::since_boot(self.0)).saturating_sub(Tick::LAG)
    }

    /// The time between two, as rough as they are.
    #[inline]
    pub(crate) fn since(self, start: Tick) -> Duration {
        Tick::since_boot(self.0).saturating_sub(Tick::since_boot(start.0))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Clone, Copy)]
pub(crate) struct Tick(std::time::Instant);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Tick {
    pub(crate) const LAG: Duration = Duration::ZERO;

    pub(crate) fn now() -> Tick {
        Tick(std::time::Instant::now())
    }

    pub(crate) fn since(self, start: Tick) -> Duration {
        self.0.saturating_duration_since(start.0)
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

// ---- options -----------------------------------------------------------------------------

/// The values in force, `None` if keepalive is off.
pub(crate) fn keepalive(socket: Borrowed<'_>) -> io::Result<Option<Keepalive>> {
    let socket = SockRef::from(&socket);
    if !socket.keepalive()? {
        return Ok(None);
    }
    let keepalive = Keepalive::new(
        socket.tcp_keepalive_time()?,
        socket.tcp_keepalive_interval()?,
        socket.tcp_keepalive_retries()?,
    );
    keepalive.map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Binds the socket to an interface: its traffic uses no other. Linux 5.7 and
/// later let every user do so; before, CAP_NET_RAW.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn bind_interface(socket: Borrowed<'_>, name: &str, _ipv6: bool) -> io::Result<()> {
    SockRef::from(&socket).bind_device(Some(name.as_bytes()))
}

#[cfg(target_vendor = "apple")]
pub(crate) fn bind_interface(socket: Borrowed<'_>, name: &str, ipv6: bool) -> io::Result<()> {
    let index = zone_index(name).and_then(std::num::NonZeroU32::new);
    let Some(index) = index else {
        return Err(io::Error::from_raw_os_error(libc::ENXIO));
    };
    let socket = SockRef::from(&socket);
    if ipv6 {
        socket.bind_device_by_index_v6(Some(index))
    } else {
        socket.bind_device_by_index_v4(Some(index))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(crate) fn bind_interface(_socket: Borrowed<'_>, _name: &str, _ipv6: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// On Unix SO_REUSEADDR lets a server bind while old connections of its port are
/// in TIME-WAIT; a port that is listened on stays taken.
pub(crate) fn prepare_listener(socket: Borrowed<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_reuse_address(true)
}

/// Lets several sockets that do not listen be bound to one port, each with a peer of
/// its own.
pub(crate) fn share_port(socket: Borrowed<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_reuse_address(true)
}

// ---- names ---------------------------------------------------------------------------------

/// The index of a zone given as an interface name or as a number.
pub(crate) fn zone_index(zone: &str) -> Option<u32> {
    if let Ok(index) = zone.parse() {
        return Some(index);
    }
    let name = CString::new(zone).ok()?;
    // SAFETY: name is a NUL-terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// getaddrinfo(3), which waits for as long as it likes. Without a host, only the
/// service is looked up and the addresses are wildcards.
pub(crate) fn lookup(host: Option<&str>, service: &str, kind: Type, family: Family) -> Lookup {
    let not_found = |what: &str| LookupError::NotFound(format!("{what:?} holds a NUL byte"));
    let node = match host {
        Some(h) => Some(CString::new(h).map_err(|_| not_found(h))?),
        None => None,
    };
    let name = CString::new(service).map_err(|_| not_found(service))?;
    // SAFETY: an all-zero addrinfo is the documented "no hints".
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_socktype = kind.into();
    hints.ai_family = match family {
        Family::Any => libc::AF_UNSPEC,
        Family::Ipv4 => libc::AF_INET,
        Family::Ipv6 => libc::AF_INET6,
    };
    if host.is_none() {
        hints.ai_flags |= libc::AI_PASSIVE;
    }
    let mut list: *mut libc::addrinfo = ptr::null_mut();
    let node_ptr = node.as_ref().map_or(ptr::null(), |n| n.as_ptr());
    // SAFETY: the strings are NUL-terminated or null, hints and list are valid.
    let code =
        unsafe { libc::getaddrinfo(node_ptr, name.as_ptr(), &raw const hints, &raw mut list) };
    if code != 0 {
        let os_error = io::Error::last_os_error();
        // SAFETY: gai_strerror returns a static string for every code.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
        let text = text.to_string_lossy().to_lowercase();
        return Err(match code {
            libc::EAI_SYSTEM => LookupError::Os(os_error),
            // Debian's glibc gives EAI_NODATA (-5) for a name that exists
            // without an address of the family; its value is not in POSIX.
            libc::EAI_NONAME | libc::EAI_SERVICE | -5 => LookupError::NotFound(text),
            _ => LookupError::Failed(text),
        });
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: next is a node of the list that getaddrinfo returned.
        let info = unsafe { &*next };
        // SAFETY: ai_addr points to ai_addrlen bytes of a socket address.
        let name = unsafe { copy_name(info.ai_addr, info.ai_addrlen) };
        let address = name.ok().and_then(|name| name.as_socket());
        if let Some(address) = address.filter(|a| !found.contains(a)) {
            found.push(address);
        }
        next = info.ai_next;
    }
    // SAFETY: list came from getaddrinfo and is freed once.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

/// # Safety
/// `name` is null or points to `len` readable bytes.
pub(super) unsafe fn copy_name(
    name: *const libc::sockaddr,
    len: libc::socklen_t,
) -> io::Result<SockAddr> {
    if name.is_null() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: no more is copied than the storage holds, and the length is what was copied.
    let copied = unsafe {
        SockAddr::try_init(|storage, size| {
            *size = len.min(*size);
            ptr::copy_nonoverlapping(name.cast::<u8>(), storage.cast::<u8>(), *size as usize);
            Ok(())
        })
    };
    Ok(copied?.1)
}

/// The kernel's form of a Unix endpoint's name.
pub(crate) fn unix_name(endpoint: &Endpoint) -> io::Result<SockAddr> {
    match &endpoint.0 {
        Target::UnixPath(path) => SockAddr::unix(path),
        // unix(7): a leading NUL marks the abstract namespace, which only Linux has.
        Target::UnixAbstract(name) if LINUX => {
            let mut bytes = vec![0];
            bytes.extend_from_slice(name.as_bytes());
            SockAddr::unix(OsStr::from_bytes(&bytes))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The same of an address.
pub(crate) fn name_of_unix(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::UnixPath(path) => SockAddr::unix(path),
        Address::UnixAbstract(name) if LINUX => {
            SockAddr::unix(OsStr::from_bytes(&[&[0], name.as_slice()].concat()))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Gives a Unix socket a name of the kernel's choice, so that it can be answered: unix(7),
/// "Autobind feature". Elsewhere it stays without.
pub(crate) fn autobind(socket: Borrowed<'_>) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let family = libc::AF_UNIX as libc::sa_family_t;
        let len = mem::size_of_val(&family) as libc::socklen_t;
        // SAFETY: the kernel reads as many bytes as the family has.
        check_int(unsafe { libc::bind(socket.as_raw_fd(), (&raw const family).cast(), len) })?;
    }
    let _ = socket;
    Ok(())
}

/// An address as the kernel gave it.
pub(crate) fn to_address(name: &SockAddr) -> Address {
    if let Some(inet) = name.as_socket() {
        return inet.into();
    }
    if let Some(path) = name.as_pathname() {
        return Address::UnixPath(path.to_owned());
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(bytes) = name.as_abstract_namespace() {
        return Address::UnixAbstract(bytes.to_owned());
    }
    Address::UnixUnnamed
}

/// An advisory lock on a directory, held while the result lives: unlike a lock
/// file it leaves nothing behind. `None`: somebody else holds it.
pub(crate) fn lock_directory(dir: &Path) -> io::Result<Option<std::fs::File>> {
    let file = std::fs::File::open(dir)?;
    // SAFETY: no memory is passed.
    match check_int(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

// ---- errors --------------------------------------------------------------------------------

/// unix(7): ETOOMANYREFS, too many descriptors are on their way to other processes.
pub(crate) fn is_out_of_descriptors(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ETOOMANYREFS))
}

pub(crate) fn is_out_of_memory(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

pub(crate) fn is_unsupported(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
    )
}

/// A blocking connect whose time is over shows as EINPROGRESS, and so does a write that makes
/// the handshake (Fast Open).
pub(crate) fn is_in_progress(err: &io::Error) -> bool {
    err.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Whether an error of an established connection comes from the network, or from giving it up,
/// and not from this call: reset, timed out, or what ICMP said before the kernel gave up
/// (tcp(7), ip(7)).
pub(crate) fn is_from_network(err: &io::Error) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if err.raw_os_error() == Some(libc::ENONET) {
        return true;
    }
    matches!(
        err.raw_os_error(),
        Some(
            libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::ENOTCONN
                | libc::ETIMEDOUT
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ECONNREFUSED
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EACCES
        )
    )
}

/// Whether the machine has no such interface: ENODEV on Linux, ENXIO where the
/// interface is given by its index.
pub(crate) fn is_no_interface(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// Whether this machine has no such address family at all.
pub(crate) fn is_family_missing(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Errors of accept(2) that concern the one connection, or pass by themselves:
/// Linux hands over errors that are already pending on the new socket.
pub(crate) fn is_transient_accept(err: &io::Error) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if err.raw_os_error() == Some(libc::ENONET) {
        return true;
    }
    matches!(
        err.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}
