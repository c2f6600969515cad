//! Queries to Windows without keepsock: the functions of the same names in `system.rs`, as far as Windows
//! has them. The last part of the file lists the functions that it does not have, with the reasons: a test
//! that calls one of them is skipped.

// The purpose of this file is system calls.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::Foundation::{FILETIME, GetHandleInformation, HANDLE};
use windows_sys::Win32::Networking::WinSock as ws;
use windows_sys::Win32::System::Threading::{
    GetCurrentThread, GetCurrentThreadId, GetThreadTimes, OpenThread, THREAD_QUERY_INFORMATION,
};

use crate::support::os::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use crate::support::skip;

/// System calls of Linux. The tests that use the numbers are skipped.
pub const POLL: libc::c_long = -1;
pub const RECVMMSG: libc::c_long = -1;
pub const RECEIVE_BATCH: libc::c_long = -1;
pub const SENDFILE: libc::c_long = -1;

/// The loopback interface: its index. The name depends on the system.
#[cfg(feature = "datagram")]
pub const LOOPBACK: &str = "1";

/// The numbers that tests use, as Windows has them. An error is a number of Windows Sockets.
pub mod libc {
    use windows_sys::Win32::Networking::WinSock as ws;

    #[allow(non_camel_case_types)]
    pub type c_int = i32;
    #[allow(non_camel_case_types)]
    pub type c_long = i64;

    pub const AF_INET: i32 = ws::AF_INET as i32;
    pub const AF_INET6: i32 = ws::AF_INET6 as i32;
    pub const AF_UNIX: i32 = ws::AF_UNIX as i32;
    pub const EAI_NONAME: i32 = ws::WSAHOST_NOT_FOUND;
    pub const EAI_SERVICE: i32 = ws::WSATYPE_NOT_FOUND;
    pub const EADDRINUSE: i32 = ws::WSAEADDRINUSE;
    pub const EADDRNOTAVAIL: i32 = ws::WSAEADDRNOTAVAIL;
    pub const EBADF: i32 = ws::WSAEBADF;
    pub const ECONNREFUSED: i32 = ws::WSAECONNREFUSED;
    pub const ECONNRESET: i32 = ws::WSAECONNRESET;
    pub const EINVAL: i32 = ws::WSAEINVAL;
    pub const EMFILE: i32 = ws::WSAEMFILE;
    pub const ENOTSOCK: i32 = ws::WSAENOTSOCK;
    pub const IPPROTO_IP: i32 = ws::IPPROTO_IP;
    pub const IPPROTO_IPV6: i32 = ws::IPPROTO_IPV6;
    pub const IPPROTO_TCP: i32 = ws::IPPROTO_TCP;
    pub const IP_MULTICAST_LOOP: i32 = ws::IP_MULTICAST_LOOP;
    pub const IP_MULTICAST_TTL: i32 = ws::IP_MULTICAST_TTL;
    pub const IP_PKTINFO: i32 = ws::IP_PKTINFO;
    pub const IP_TOS: i32 = ws::IP_TOS;
    pub const IPV6_MULTICAST_HOPS: i32 = ws::IPV6_MULTICAST_HOPS;
    pub const IPV6_MULTICAST_LOOP: i32 = ws::IPV6_MULTICAST_LOOP;
    pub const IPV6_RECVPKTINFO: i32 = ws::IPV6_PKTINFO;
    pub const POLLIN: i16 = ws::POLLRDNORM;
    pub const POLLOUT: i16 = ws::POLLWRNORM;
    pub const SOL_SOCKET: i32 = ws::SOL_SOCKET;
    pub const SO_KEEPALIVE: i32 = ws::SO_KEEPALIVE;
    pub const SO_LINGER: i32 = ws::SO_LINGER;
    pub const SO_OOBINLINE: i32 = ws::SO_OOBINLINE;
    pub const SO_RCVBUF: i32 = ws::SO_RCVBUF;
    pub const SO_RCVTIMEO: i32 = ws::SO_RCVTIMEO;
    pub const SO_SNDBUF: i32 = ws::SO_SNDBUF;
    pub const SO_SNDTIMEO: i32 = ws::SO_SNDTIMEO;
    pub const TCP_KEEPCNT: i32 = ws::TCP_KEEPCNT;
    pub const TCP_KEEPIDLE: i32 = ws::TCP_KEEPIDLE;
    pub const TCP_KEEPINTVL: i32 = ws::TCP_KEEPINTVL;
    pub const TCP_NODELAY: i32 = ws::TCP_NODELAY;

    /// Only skipped tests use the following numbers, which Windows does not have.
    macro_rules! only_linux {
        ($($name:ident: $of:ty),* $(,)?) => {
            $(#[allow(non_upper_case_globals)] pub const $name: $of = 0;)*
        };
    }

    only_linux!(
        EACCES: i32, EAGAIN: i32, EFAULT: i32, EIO: i32, ENODEV: i32, ENOENT: i32, ENOMEM: i32, ENOBUFS: i32, ENOSPC: i32, ENOSYS: i32,
        ENETDOWN: i32, EPERM: i32, EPIPE: i32, EPROTO: i32,
        SIGPIPE: i32, SIGUSR1: i32, SIGUSR2: i32, SIGWINCH: i32, SIG_DFL: usize,
        SIG_IGN: usize, SO_DOMAIN: i32, SO_NO_CHECK: i32, TCP_MAXSEG: i32, TCP_USER_TIMEOUT: i32,
        SYS_accept4: c_long, SYS_clone: c_long, SYS_clone3: c_long, SYS_epoll_ctl: c_long,
        SYS_fcntl: c_long, SYS_futex: c_long, SYS_getsockopt: c_long, SYS_ioctl: c_long,
        SYS_pread64: c_long, SYS_recvfrom: c_long, SYS_recvmmsg: c_long, SYS_recvmsg: c_long,
        SYS_rt_sigpending: c_long, SYS_rt_sigprocmask: c_long, SYS_sendfile: c_long,
        SYS_sendmsg: c_long, SYS_sendto: c_long, SYS_setsockopt: c_long,
    );

    /// A system call that a filter reports.
    #[allow(non_camel_case_types)]
    pub struct seccomp_data {
        pub nr: i32,
        pub args: [u64; 6],
    }
}

/// The number of this thread.
pub fn thread_id() -> i32 {
    unsafe { GetCurrentThreadId().cast_signed() }
}

/// Whether a thread of this process waits. Windows does not report what a thread waits for, so the
/// condition is that the thread uses no processor time for a while.
pub fn waits_for_a_socket(thread: i32) -> bool {
    let before = cpu_time_of(thread);
    thread::sleep(Duration::from_millis(150));
    cpu_time_of(thread) == before
}

/// The value of an integer option.
pub fn option(fd: RawFd, level: i32, name: i32) -> i32 {
    try_option(fd, level, name).unwrap_or_else(|| panic!("{}", io::Error::last_os_error()))
}

/// The value of an integer option that this version of Windows may not have.
pub fn try_option(fd: RawFd, level: i32, name: i32) -> Option<i32> {
    let (mut value, mut len) = (0i32, 4);
    let result =
        unsafe { ws::getsockopt(fd as _, level, name, (&raw mut value).cast(), &raw mut len) };
    (result == 0).then_some(value)
}

pub fn set_option(fd: RawFd, level: i32, name: i32, value: i32) {
    let result = unsafe { ws::setsockopt(fd as _, level, name, (&raw const value).cast(), 4) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// SO_RCVTIMEO or SO_SNDTIMEO, which are milliseconds. Zero means none.
pub fn timeout_option(fd: RawFd, name: i32) -> Duration {
    Duration::from_millis(option(fd, ws::SOL_SOCKET, name).cast_unsigned().into())
}

/// SO_LINGER, if it is enabled.
pub fn linger(fd: RawFd) -> Option<i32> {
    let (mut value, mut len) = (ws::LINGER { l_onoff: 0, l_linger: 0 }, 4);
    let out = (&raw mut value).cast();
    let result =
        unsafe { ws::getsockopt(fd as _, ws::SOL_SOCKET, ws::SO_LINGER, out, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    (value.l_onoff != 0).then_some(value.l_linger.into())
}

/// Sets small socket buffers, so that a writer soon waits.
pub fn shrink_buffers(fd: RawFd) {
    set_option(fd, ws::SOL_SOCKET, ws::SO_SNDBUF, 16 << 10);
    set_option(fd, ws::SOL_SOCKET, ws::SO_RCVBUF, 16 << 10);
}

pub fn force_send_buffer(fd: RawFd, bytes: i32) {
    set_option(fd, ws::SOL_SOCKET, ws::SO_SNDBUF, bytes);
}

/// The keepalive values: enabled, idle, interval, count.
pub fn keepalive(fd: RawFd) -> (bool, i32, i32, i32) {
    let tcp = |name| option(fd, ws::IPPROTO_TCP, name);
    (
        option(fd, ws::SOL_SOCKET, ws::SO_KEEPALIVE) != 0,
        tcp(ws::TCP_KEEPIDLE),
        tcp(ws::TCP_KEEPINTVL),
        tcp(ws::TCP_KEEPCNT),
    )
}

/// Whether the handle is not inherited by a new process.
pub fn is_cloexec(fd: RawFd) -> bool {
    const HANDLE_FLAG_INHERIT: u32 = 1;
    let mut flags = 0;
    let found = unsafe { GetHandleInformation(fd as HANDLE, &raw mut flags) };
    found != 0 && flags & HANDLE_FLAG_INHERIT == 0
}

pub fn is_open(fd: RawFd) -> bool {
    unsafe { GetHandleInformation(fd as HANDLE, &mut 0) != 0 }
}

/// The number of bytes that the system holds for the reader.
pub fn readable_bytes(fd: RawFd) -> i32 {
    let mut n = 0u32;
    assert_eq!(unsafe { ws::ioctlsocket(fd as _, ws::FIONREAD, &raw mut n) }, 0);
    n.cast_signed()
}

/// Whether poll reports readable data within `ms` milliseconds.
pub fn becomes_readable(fd: RawFd, ms: i32) -> bool {
    let mut polled = ws::WSAPOLLFD { fd: fd as _, events: ws::POLLRDNORM, revents: 0 };
    unsafe { ws::WSAPoll(&raw mut polled, 1, ms) == 1 }
}

/// Waits until one of the sockets is ready, or `ms` milliseconds have passed.
pub fn poll(sockets: &[(RawFd, i16)], ms: i32) {
    let all = sockets.iter().map(|(fd, events)| ws::WSAPOLLFD {
        fd: *fd as _,
        events: *events,
        revents: 0,
    });
    let mut all: Vec<_> = all.collect();
    if all.is_empty() {
        // WSAPoll rejects an empty list. No test waits without a limit for nothing.
        return thread::sleep(Duration::from_millis(ms.try_into().unwrap()));
    }
    assert!(unsafe { ws::WSAPoll(all.as_mut_ptr(), all.len() as u32, ms) } >= 0);
}

/// Closes a connection by RST.
pub fn reset(peer: std::net::TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The processor time of this thread.
pub fn thread_cpu_time() -> Duration {
    times(unsafe { GetCurrentThread() })
}

/// The processor time of a thread of this process.
pub fn cpu_time_of(thread: i32) -> Duration {
    use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
    let handle = unsafe { OpenThread(THREAD_QUERY_INFORMATION, 0, thread.cast_unsigned()) };
    assert!(!handle.is_null(), "{}", io::Error::last_os_error());
    let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
    times(handle.as_raw_handle())
}

fn times(thread: HANDLE) -> Duration {
    let mut times = [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
    let [created, ended, kernel, user] = &mut times;
    assert_ne!(unsafe { GetThreadTimes(thread, created, ended, kernel, user) }, 0);
    let units = |t: FILETIME| u64::from(t.dwHighDateTime) << 32 | u64::from(t.dwLowDateTime);
    // A unit is 100 ns.
    Duration::from_nanos(100 * (units(times[2]) + units(times[3])))
}

/// Borrows a socket that a test keeps open.
pub fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    unsafe { BorrowedFd::borrow_raw(fd as _) }
}

/// Borrows a file that a test keeps open.
pub fn borrow_file<'a>(fd: RawFd) -> std::os::windows::io::BorrowedHandle<'a> {
    unsafe { std::os::windows::io::BorrowedHandle::borrow_raw(fd as HANDLE) }
}

/// A temporary file with `len` zero bytes, which the system deletes when it is closed.
pub fn blank_file(len: u64) -> std::fs::File {
    use std::os::windows::fs::OpenOptionsExt;
    use std::sync::atomic::AtomicU32;
    const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("keepsock-blank-{}-{n}", std::process::id()));
    let mut how = std::fs::OpenOptions::new();
    how.read(true).write(true).create_new(true).custom_flags(FILE_FLAG_DELETE_ON_CLOSE);
    let file = how.open(path).unwrap();
    file.set_len(len).unwrap();
    file
}

/// Sends with the system call only. Returns whether that succeeded.
pub fn send_plainly(fd: RawFd, bytes: &[u8]) -> bool {
    unsafe { ws::send(fd as _, bytes.as_ptr(), bytes.len() as i32, 0) >= 0 }
}

/// Whether the socket receives coalesced datagrams. Before Windows 10 2004 no socket does.
#[cfg(feature = "datagram")]
pub fn coalesces(fd: RawFd) -> bool {
    option(fd, ws::IPPROTO_UDP, ws::UDP_RECV_MAX_COALESCED_SIZE) != 0
}

/// Whether this Windows can coalesce datagrams.
#[cfg(feature = "datagram")]
pub fn can_coalesce() -> bool {
    !is_wine()
}

#[cfg(feature = "datagram")]
pub fn coalesce(fd: RawFd) {
    set_option(fd, ws::IPPROTO_UDP, ws::UDP_RECV_MAX_COALESCED_SIZE, u16::MAX.into());
}

/// Shuts down receives.
pub fn shutdown_reading(fd: RawFd) {
    unsafe { ws::shutdown(fd as _, ws::SD_RECEIVE) };
}

/// Duplicates a socket, as another process would have it.
pub fn duplicate(fd: RawFd) -> OwnedFd {
    borrow(fd).try_clone_to_owned().unwrap()
}

/// The receive and send timeouts in milliseconds. 0 means none.
pub fn timeouts(fd: RawFd) -> [u128; 2] {
    [ws::SO_RCVTIMEO, ws::SO_SNDTIMEO].map(|name| timeout_option(fd, name).as_millis())
}

/// Only for a process of one test.
pub fn set_variable(name: &str, value: &str) {
    unsafe { std::env::set_var(name, value) };
}

pub fn remove_variable(name: &str) {
    unsafe { std::env::remove_var(name) };
}

/// The handle of an open socket; `None` if it is not open.
pub fn identity(fd: RawFd) -> Option<(u64, u64)> {
    is_open(fd).then_some((fd as u64, 0))
}

/// Opens, uses and closes sockets until it is stopped, as the function for Unix does.
pub fn churn_descriptors(stop: &AtomicBool) {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0);
    while !stop.load(Ordering::Acquire) {
        let mut pairs: Vec<_> = (0..8).map(connect).collect();
        for (i, (a, _)) in pairs.iter_mut().enumerate() {
            a.write_all(&[i as u8; 16]).unwrap();
        }
        // Each connection leaves a port in TIME-WAIT.
        thread::sleep(Duration::from_millis(10));
        for (i, (a, mut b)) in pairs.drain(..).enumerate() {
            b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut got = [0xff; 16];
            b.read_exact(&mut got).expect("another thread took the bytes of this socket");
            assert_eq!(got, [i as u8; 16], "another thread wrote to this socket");
            drop(a);
            assert_eq!(b.read(&mut got).unwrap(), 0);
        }
    }
}

/// Reads SO_ERROR, which clears it.
pub fn take_error(fd: RawFd) -> i32 {
    option(fd, ws::SOL_SOCKET, ws::SO_ERROR)
}

/// Borrows the object of a pointer, unless the pointer is null.
pub fn with_pointer<T>(pointer: *const T, f: impl FnOnce(&T)) {
    if let Some(object) = unsafe { pointer.as_ref() } {
        f(object);
    }
}

/// Whether Wine runs this program.
pub fn is_wine() -> bool {
    use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
    let name = c"wine_get_version".as_ptr().cast();
    unsafe { GetProcAddress(GetModuleHandleA(c"ntdll.dll".as_ptr().cast()), name).is_some() }
}

/// Windows has a user without rights as well, but not root.
pub fn is_root() -> bool {
    false
}

const SIGNALS: &str = "Windows has no signals";
const NO_FORK: &str = "Windows has no fork(2)";
const UNIX: &str = "the test passes descriptors over Unix sockets";
const PROC: &str = "Windows has no /proc";

macro_rules! unavailable {
    ($($why:expr => { $($name:ident($($argument:ty),*) $(-> $result:ty)?),* $(,)? })*) => {
        $($(pub fn $name($(_: $argument),*) $(-> $result)? {
            skip($why)
        })*)*
    };
}

unavailable! {
    SIGNALS => {
        dispositions() -> Vec<(usize, i32)>,
        set_disposition(i32, usize),
        raise(i32),
        is_pending(i32) -> bool,
        is_blocked(i32) -> bool,
        block_signal(i32, bool) -> bool,
        dies_of_sigpipe() -> bool,
    }
    "Windows has no errno of system calls" => { set_errno(i32), errno() -> i32 }
    "Windows has no pthread_cancel(3)" => { cancel_this_thread() }
    "Windows does not report whether a socket is non-blocking" => { is_nonblocking(RawFd) -> bool }
    "no interface is bound to on Windows" => { interface(RawFd) -> String }
    "Windows has one congestion control" => { congestion_control(RawFd) -> String }
    UNIX => {
        send_fds(RawFd, &[u8], &[RawFd]) -> io::Result<usize>,
        pipe() -> (OwnedFd, OwnedFd),
        set_umask(u32),
        mkfifo(&std::path::Path),
        flock(&std::path::Path) -> std::fs::File,
    }
    PROC => {
        open_sockets() -> usize,
        sockets_bound_to(IpAddr) -> usize,
        socket_at(SocketAddr) -> RawFd,
        socket_between(SocketAddr, SocketAddr) -> Option<RawFd>,
        waits_for_events(&str) -> bool,
        has_thread(&str) -> bool,
    }
    "Windows does not report the limit of a listener" => { backlog(RawFd) -> i32 }
    "WSAPoll does not report a pending error alone" => { has_error(RawFd) -> bool }
    "the test chooses the processors of a thread" => { use_one_processor() }
    "plain_connect uses options of Linux" => { plain_connect(SocketAddr) }
}

/// Whether the queue of a listener is full, so that it answers no SYN, as the kernel below Wine does.
/// Windows itself refuses the connection.
pub fn is_queue_full(listener: &impl AsFd) -> bool {
    let address = socket2::SockRef::from(&listener.as_fd()).local_addr().unwrap();
    let address = address.as_socket().unwrap();
    match std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        Ok(_) => false,
        Err(e) if e.kind() == io::ErrorKind::TimedOut => true,
        Err(_) => skip("a listener with a full queue refuses connections"),
    }
}

/// Drops a forked child's copy of an object that the parent still uses.
pub fn drop_copy<T>(_: &T) {
    skip(NO_FORK)
}

/// Runs `f` as another user.
pub fn as_user(_: u32, _: impl FnOnce()) {
    skip("no test changes its user on Windows")
}

/// The settings of [`with_signals`].
#[derive(Clone, Copy)]
pub struct Pest {
    pub every: Duration,
    pub signals: u32,
}

/// Runs `f` in this thread while another thread sends it signals.
pub fn with_signals<T>(_: Pest, _: impl FnOnce() -> T, _: impl FnOnce() + Send) -> T {
    skip(SIGNALS)
}

/// As [`with_signals`].
pub fn count_signals<T>(_: Pest, _: impl FnOnce() -> T, _: impl FnOnce() + Send) -> (T, u32) {
    skip(SIGNALS)
}

/// A thread that receives signals.
#[cfg(feature = "datagram")]
#[derive(Clone, Copy)]
pub struct Target;

#[cfg(feature = "datagram")]
impl Target {
    pub fn this_thread() -> Target {
        skip(SIGNALS)
    }

    pub fn signal(self, _: i32) {
        skip(SIGNALS)
    }
}

/// A forked child of this process.
pub struct Forked;

impl Forked {
    pub fn new(_: impl FnOnce()) -> Forked {
        skip(NO_FORK)
    }

    pub fn run(_: impl FnOnce()) -> bool {
        skip(NO_FORK)
    }
}
