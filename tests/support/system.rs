//! Queries to the kernel without keepsock.

// The purpose of this file is system calls.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::cell::Cell;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The number of this thread.
pub fn thread_id() -> i32 {
    unsafe { libc::gettid() }
}

/// Whether a thread of this process sleeps in a system call that waits for a socket.
pub fn waits_for_a_socket(thread: i32) -> bool {
    const WAITS: &[libc::c_long] = &[
        SENDFILE,
        // The thread waits for the end of another thread's write.
        libc::SYS_futex,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        RECVMMSG,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_accept4,
        libc::SYS_ppoll,
        POLL,
        // The calls with times of 64 bits.
        #[cfg(target_pointer_width = "32")]
        FUTEX_TIME64,
        #[cfg(target_pointer_width = "32")]
        PPOLL_TIME64,
        // glibc makes some calls of sockets through it.
        #[cfg(target_arch = "x86")]
        libc::SYS_socketcall,
    ];
    let read = |what: &str| std::fs::read_to_string(format!("/proc/self/task/{thread}/{what}"));
    let call = if is_emulated() { None } else { read("syscall").ok() };
    let Some(call) = call else {
        // On a kernel without this file, the sleeping state must suffice.
        return read("stat").is_ok_and(|s| s.rsplit(')').next().unwrap_or("").starts_with(" S"));
    };
    call.split(' ').next().and_then(|n| n.parse().ok()).is_some_and(|n| WAITS.contains(&n))
}

/// The loopback interface.
#[cfg(feature = "datagram")]
pub const LOOPBACK: &str = "lo";

/// The system call that poll(3) makes.
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
pub const POLL: libc::c_long = libc::SYS_poll;
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub const POLL: libc::c_long = libc::SYS_ppoll;

/// The system call of sendfile(2) for offsets of 64 bits.
#[cfg(target_pointer_width = "64")]
pub const SENDFILE: libc::c_long = libc::SYS_sendfile;
#[cfg(target_pointer_width = "32")]
pub const SENDFILE: libc::c_long = libc::SYS_sendfile64;

/// The system call that fork(3) makes.
#[cfg(all(target_env = "musl", any(target_arch = "x86_64", target_arch = "x86")))]
pub const FORK: libc::c_long = libc::SYS_fork;
#[cfg(not(all(target_env = "musl", any(target_arch = "x86_64", target_arch = "x86"))))]
pub const FORK: libc::c_long = libc::SYS_clone;

/// The number of the system call of recvmmsg(2) in the C library.
pub const RECVMMSG: libc::c_long =
    if cfg!(target_pointer_width = "64") { libc::SYS_recvmmsg } else { 417 };

/// The system call by which the library receives several datagrams.
pub const RECEIVE_BATCH: libc::c_long =
    if cfg!(keepsock_portable) { libc::SYS_recvmsg } else { RECVMMSG };

// asm-generic/unistd.h: these have the same numbers on all 32-bit systems.
#[cfg(target_pointer_width = "32")]
pub const PPOLL_TIME64: libc::c_long = 414;
#[cfg(target_pointer_width = "32")]
pub const FUTEX_TIME64: libc::c_long = 422;

/// Whether an emulator runs this program: the kernel then reports system calls that this program did not
/// make, with the numbers of another architecture.
pub fn is_emulated() -> bool {
    static EMULATED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *EMULATED.get_or_init(|| {
        // proc(5): the reading thread makes the system call read(2).
        let call = std::fs::read_to_string("/proc/thread-self/syscall");
        let own = format!("{} ", libc::SYS_read);
        call.is_ok_and(|call| !call.starts_with("running") && !call.starts_with(&own))
    })
}

/// The kernel's value of an integer option.
pub fn option(fd: RawFd, level: i32, name: i32) -> i32 {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let result =
        unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    value
}

const IPV6_FLOWLABEL_MGR: i32 = 32;

/// struct in6_flowlabel_req of linux/in6.h, for the destination ::1. The action is IPV6_FL_A_GET.
fn flow_label_request(label: u32, share: u8, flags: u16) -> [u8; 32] {
    let mut request = [0; 32];
    request[15] = 1;
    request[16..20].copy_from_slice(&label.to_be_bytes());
    request[21] = share;
    request[22..24].copy_from_slice(&flags.to_ne_bytes());
    request
}

/// The flow label in the packets of the peer of an accepted connection.
pub fn received_flow_label(fd: RawFd) -> u32 {
    const IPV6_FL_F_REMOTE: u16 = 8;
    let mut request = flow_label_request(0, 0, IPV6_FL_F_REMOTE);
    let (at, mut len) = (request.as_mut_ptr().cast(), request.len() as libc::socklen_t);
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    u32::from_be_bytes(request[16..20].try_into().unwrap())
}

/// Leases a flow label that no other socket may have.
pub fn lease_flow_label(fd: RawFd, label: u32) {
    const IPV6_FL_F_CREATE: u16 = 1;
    const IPV6_FL_S_EXCL: u8 = 1;
    let request = flow_label_request(label, IPV6_FL_S_EXCL, IPV6_FL_F_CREATE);
    let (at, len) = (request.as_ptr().cast(), request.len() as libc::socklen_t);
    let result = unsafe { libc::setsockopt(fd, libc::IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, at, len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

pub fn set_option(fd: RawFd, level: i32, name: i32, value: i32) {
    let (at, len) = (&raw const value, size_of::<i32>() as libc::socklen_t);
    let result = unsafe { libc::setsockopt(fd, level, name, at.cast(), len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// SO_RCVTIMEO or SO_SNDTIMEO. Zero means none.
pub fn timeout_option(fd: RawFd, name: i32) -> Duration {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of::<libc::timeval>() as libc::socklen_t;
    let at = (&raw mut value).cast();
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1000)
}

/// SO_LINGER, if it is enabled.
pub fn linger(fd: RawFd) -> Option<i32> {
    let mut value = libc::linger { l_onoff: 0, l_linger: 0 };
    let mut len = size_of::<libc::linger>() as libc::socklen_t;
    let at = (&raw mut value).cast();
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    (value.l_onoff != 0).then_some(value.l_linger)
}

/// Returns the SYN that opened a connection. The kernel returns it once.
pub fn saved_syn(fd: RawFd) -> Vec<u8> {
    const TCP_SAVED_SYN: i32 = 28; // linux/tcp.h
    let (mut bytes, mut len) = (vec![0u8; 512], 512 as libc::socklen_t);
    let at = bytes.as_mut_ptr().cast();
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, TCP_SAVED_SYN, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    bytes.truncate(len as usize);
    bytes
}

/// Sets small socket buffers, so that a writer soon waits.
pub fn shrink_buffers(fd: RawFd) {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, 16 << 10);
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 16 << 10);
}

/// The kernel's keepalive values: enabled, idle, interval, count.
pub fn keepalive(fd: RawFd) -> (bool, i32, i32, i32) {
    let tcp = |name| option(fd, libc::IPPROTO_TCP, name);
    (
        option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE) != 0,
        tcp(libc::TCP_KEEPIDLE),
        tcp(libc::TCP_KEEPINTVL),
        tcp(libc::TCP_KEEPCNT),
    )
}

pub fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

/// Changes the user of the whole process from root to one without rights.
pub fn drop_privileges() {
    if is_root() {
        assert_eq!(unsafe { libc::setresuid(65_534, 65_534, 65_534) }, 0);
    }
}

pub fn is_nonblocking(fd: RawFd) -> bool {
    unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

pub fn is_cloexec(fd: RawFd) -> bool {
    unsafe { libc::fcntl(fd, libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

pub fn set_cloexec(fd: RawFd) {
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
}

/// Adopts a descriptor that was passed to this process.
pub fn owned(fd: RawFd) -> OwnedFd {
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub fn is_open(fd: RawFd) -> bool {
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// The handler, flags and mask of each signal's disposition.
pub fn dispositions() -> Vec<(usize, i32)> {
    (1..=64)
        .map(|signal| unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            (action.sa_sigaction, action.sa_flags)
        })
        .collect()
}

pub fn set_disposition(signal: i32, handler: usize) {
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        // Without SA_RESTART: every system call that waits is interrupted.
        action.sa_sigaction = handler;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

pub fn raise(signal: i32) {
    unsafe { libc::raise(signal) };
}

pub fn set_errno(value: i32) {
    unsafe { *libc::__errno_location() = value };
}

pub fn errno() -> i32 {
    unsafe { *libc::__errno_location() }
}

/// A thread, as a target of signals.
#[derive(Clone, Copy)]
pub struct Target(libc::pthread_t);

// musl's pthread_t is a pointer to data that the C library protects.
unsafe impl Send for Target {}
unsafe impl Sync for Target {}

impl Target {
    pub fn this_thread() -> Target {
        Target(unsafe { libc::pthread_self() })
    }

    /// Sends the thread a signal. The thread must still run.
    pub fn signal(self, signal: i32) {
        assert_eq!(unsafe { libc::pthread_kill(self.0, signal) }, 0);
    }
}

/// The settings of [`with_signals`].
#[derive(Clone, Copy)]
pub struct Pest {
    pub every: Duration,
    /// The action after `signals` signals that ends the call.
    pub signals: u32,
}

/// Runs `f` in this thread while another thread sends it signals. The signal handler only counts,
/// and is installed without SA_RESTART. Each signal is sent after the previous one was caught.
/// After some of them the other thread calls `then` once.
pub fn with_signals<T>(pest: Pest, f: impl FnOnce() -> T, then: impl FnOnce() + Send) -> T {
    let (value, caught) = count_signals(pest, f, then);
    assert!(caught >= pest.signals, "only {caught} signals were caught");
    value
}

/// Sends signals as [`with_signals`] does, to an `f` that may return before all signals are sent. Also
/// returns the number of caught signals.
pub fn count_signals<T>(pest: Pest, f: impl FnOnce() -> T, then: impl FnOnce() + Send) -> (T, u32) {
    set_disposition(libc::SIGUSR1, count_signal as extern "C" fn(i32) as usize);
    let (me, done, caught) = (Target::this_thread(), AtomicBool::new(false), AtomicU32::new(0));
    let value = thread::scope(|scope| {
        CAUGHT.set(&raw const caught);
        let pester = scope.spawn(|| {
            let (mut then, mut sent) = (Some(then), 0);
            while !done.load(Ordering::Acquire) {
                me.signal(libc::SIGUSR1);
                sent += 1;
                while caught.load(Ordering::Acquire) < sent && !done.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                if sent == pest.signals {
                    then.take().into_iter().for_each(|f| f());
                }
                thread::sleep(pest.every);
            }
        });
        let value = {
            let _done = super::OnDrop(|| done.store(true, Ordering::Release));
            f()
        };
        pester.join().unwrap();
        CAUGHT.set(std::ptr::null());
        value
    });
    (value, caught.into_inner())
}

extern "C" fn count_signal(_: i32) {
    with_pointer(CAUGHT.get(), |caught: &AtomicU32| {
        caught.fetch_add(1, Ordering::Release);
    });
}

thread_local! {
    /// The counter of this thread's handler.
    static CAUGHT: Cell<*const AtomicU32> = const { Cell::new(std::ptr::null()) };
}

/// Opens, uses and closes sockets until it is stopped. A thread that uses a closed descriptor gets
/// one of these sockets, and takes its bytes or closes it. The checks here detect that, because
/// each socket must receive exactly the bytes that were sent to it.
pub fn churn_descriptors(stop: &AtomicBool) {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    while !stop.load(Ordering::Acquire) {
        let mut pairs: Vec<_> = (0..8).map(|_| UnixStream::pair().unwrap()).collect();
        for (i, (a, _)) in pairs.iter_mut().enumerate() {
            a.write_all(&[i as u8; 16]).unwrap();
        }
        thread::yield_now();
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

/// Sets a send buffer of any size if this process may, and otherwise the largest allowed one.
pub fn force_send_buffer(fd: RawFd, bytes: i32) {
    let (at, len) = (&raw const bytes, size_of::<i32>() as libc::socklen_t);
    unsafe {
        let forced =
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, at.cast(), len) == 0;
        if !forced {
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, at.cast(), len);
        }
    }
}

/// The number of bytes that the kernel holds for the reader.
pub fn readable_bytes(fd: RawFd) -> i32 {
    let mut n = 0i32;
    assert_eq!(unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut n) }, 0);
    n
}

/// The interface to which a socket is bound.
pub fn interface(fd: RawFd) -> String {
    let mut name = [0u8; libc::IFNAMSIZ];
    let mut len = name.len() as libc::socklen_t;
    let at = name.as_mut_ptr().cast();
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    String::from_utf8_lossy(&name[..len as usize]).trim_end_matches('\0').to_owned()
}

/// The number of sockets of this process that are bound to an address.
pub fn sockets_bound_to(ip: std::net::IpAddr) -> usize {
    sockets(|local| local.ip() == ip).len()
}

/// The socket of this process with this local address, without a call of its owner.
pub fn socket_at(address: std::net::SocketAddr) -> RawFd {
    let found = sockets(|local| local == address);
    assert_eq!(found.len(), 1, "sockets at {address}");
    found[0]
}

/// The socket of this process with these addresses, without a call of its owner.
pub fn socket_between(local: std::net::SocketAddr, remote: std::net::SocketAddr) -> Option<RawFd> {
    let is_connected = |fd: &RawFd| {
        // The descriptor is only inspected: a number that was closed in the meantime causes an
        // error.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        let address = socket2::SockRef::from(&fd).peer_addr();
        address.is_ok_and(|a| a.as_socket() == Some(remote))
    };
    sockets(|address| address == local).into_iter().find(is_connected)
}

fn sockets(wanted: impl Fn(std::net::SocketAddr) -> bool) -> Vec<RawFd> {
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
    numbers
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok())
        .filter(|fd| {
            // The descriptor is only inspected: a number that was closed in the meantime, or is not
            // a socket, causes an error.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
            let address = socket2::SockRef::from(&fd).local_addr();
            address.is_ok_and(|a| a.as_socket().is_some_and(&wanted))
        })
        .collect()
}

/// Borrows the object of a pointer, unless the pointer is null. Signal handlers use it, because
/// they can access only statics. The owner of the object keeps it alive.
pub fn with_pointer<T>(pointer: *const T, f: impl FnOnce(&T)) {
    if let Some(object) = unsafe { pointer.as_ref() } {
        f(object);
    }
}

/// Whether poll reports readable data within `ms` milliseconds.
pub fn becomes_readable(fd: RawFd, ms: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&raw mut poll, 1, ms) == 1 }
}

/// Waits until one of the descriptors is ready, or `ms` milliseconds have passed.
pub fn poll(descriptors: &[(RawFd, i16)], ms: i32) {
    let all = descriptors.iter().map(|(fd, events)| libc::pollfd {
        fd: *fd,
        events: *events,
        revents: 0,
    });
    let mut all: Vec<_> = all.collect();
    let count = libc::nfds_t::try_from(all.len()).unwrap();
    assert!(unsafe { libc::poll(all.as_mut_ptr(), count, ms) } >= 0);
}

/// A plain non-blocking connect, with the options that keepsock sets by default.
pub fn plain_connect(address: std::net::SocketAddr) {
    use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::for_address(address), kind, Some(Protocol::TCP)).unwrap();
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(45));
    let keepalive = keepalive.with_interval(Duration::from_secs(15)).with_retries(5);
    socket.set_tcp_keepalive(&keepalive).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    let _ = socket.connect(&address.into());
    poll(&[(socket.as_raw_fd(), libc::POLLOUT)], 10_000);
    assert!(socket.take_error().unwrap().is_none());
    std::mem::forget(socket);
}

/// Device and inode of a descriptor; `None` if it is not open.
pub fn identity(fd: RawFd) -> Option<(u64, u64)> {
    let mut stat = unsafe { std::mem::zeroed::<libc::stat>() };
    let found = unsafe { libc::fstat(fd, &raw mut stat) } == 0;
    // The type of the inode differs between systems.
    #[allow(clippy::unnecessary_cast)]
    found.then_some((stat.st_dev as u64, stat.st_ino as u64))
}

/// Both ends of a pipe.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) }
}

/// The value of an integer option that this kernel may not have.
pub fn try_option(fd: RawFd, level: i32, name: i32) -> Option<i32> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let result =
        unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    (result == 0).then_some(value)
}

/// TCP_CONGESTION: the congestion control of this connection.
pub fn congestion_control(fd: RawFd) -> String {
    let mut name = [0u8; 16];
    let mut len = name.len() as libc::socklen_t;
    let at = name.as_mut_ptr().cast();
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
}

/// Closes a connection by RST.
pub fn reset(peer: std::net::TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The processor time of this thread.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The processor time of a thread of this process.
pub fn cpu_time_of(thread: i32) -> Duration {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let text = std::fs::read_to_string(path).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Whether the queue of a listener with a backlog of 0 is full, with one connection. The kernel then drops
/// each SYN. The column `rx_queue` of a listener is the length of its queue (`get_tcp4_sock` of
/// net/ipv4/tcp_ipv4.c).
pub fn is_queue_full(listener: &impl std::os::fd::AsFd) -> bool {
    let (_, inode) = identity(listener.as_fd().as_raw_fd()).unwrap();
    let inode = inode.to_string();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = columns.filter(|columns| columns.get(9) == Some(&inode.as_str()));
    own.filter_map(|columns| columns[4].split_once(':')).any(|(_, queue)| queue != "00000000")
}

/// Borrows a descriptor that a test keeps open.
pub fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// As [`borrow`], for a file. Windows distinguishes both.
pub fn borrow_file<'a>(fd: RawFd) -> BorrowedFd<'a> {
    borrow(fd)
}

/// A file in memory with `len` zero bytes.
pub fn blank_file(len: u64) -> std::fs::File {
    let fd = unsafe { libc::memfd_create(c"blank".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(len).unwrap();
    file
}

/// Sends with the system call only. Returns whether that succeeded.
pub fn send_plainly(fd: RawFd, bytes: &[u8]) -> bool {
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0) >= 0 }
}

/// Shuts down receives, as another process with the socket can do.
pub fn shutdown_reading(fd: RawFd) {
    unsafe { libc::shutdown(fd, libc::SHUT_RD) };
}

/// Whether the blocked signal is pending for this thread or the process.
pub fn is_pending(signal: i32) -> bool {
    unsafe {
        let mut set = std::mem::zeroed();
        assert_eq!(libc::sigpending(&raw mut set), 0);
        libc::sigismember(&raw const set, signal) == 1
    }
}

/// Whether this thread blocks a signal.
pub fn is_blocked(signal: i32) -> bool {
    unsafe {
        let mut set = std::mem::zeroed();
        assert_eq!(libc::pthread_sigmask(0, std::ptr::null(), &raw mut set), 0);
        libc::sigismember(&raw const set, signal) == 1
    }
}

/// Blocks or unblocks a signal in this thread. Returns whether it was blocked.
pub fn block_signal(signal: i32, on: bool) -> bool {
    unsafe {
        let (mut set, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        let how = if on { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
        assert_eq!(libc::pthread_sigmask(how, &raw const set, &raw mut before), 0);
        libc::sigismember(&raw const before, signal) == 1
    }
}

/// Cancels the calling thread, and reaches a cancellation point. Returns if cancellation is disabled.
pub fn cancel_this_thread() {
    unsafe extern "C-unwind" {
        fn pthread_cancel(thread: libc::pthread_t) -> i32;
        fn pthread_testcancel();
    }
    unsafe {
        assert_eq!(pthread_cancel(libc::pthread_self()), 0);
        pthread_testcancel();
    }
}

/// Sends descriptors without keepsock.
pub fn send_fds(socket: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let mut control = [0u64; 160];
    let mut slice =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let size = size_of_val(fds) as libc::c_uint;
    unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &raw mut slice;
        msg.msg_iovlen = 1;
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = libc::CMSG_SPACE(size) as _;
        assert!(libc::CMSG_SPACE(size) as usize <= size_of_val(&control));
        let header = libc::CMSG_FIRSTHDR(&raw const msg);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        let data = libc::CMSG_DATA(header);
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, size as usize);
        let sent = libc::sendmsg(socket, &raw const msg, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// The umask of this process.
pub fn set_umask(mask: u32) {
    unsafe { libc::umask(mask) };
}

/// Runs `f` in a forked child as a user without rights, groups and shared files. Returns whether it
/// succeeded. The caller is root.
pub fn as_stranger(f: impl FnOnce()) -> bool {
    Forked::run(|| {
        become_stranger();
        f();
    })
}

fn become_stranger() {
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(STRANGER, STRANGER, STRANGER), 0);
        assert_eq!(libc::setresuid(STRANGER, STRANGER, STRANGER), 0);
    }
}

/// A user and group without rights.
pub const STRANGER: u32 = 65_534;

/// Starts a stranger, as [`as_stranger`] does, that calls `f` again and again until it is dropped.
pub fn busy_stranger(f: impl Fn()) -> Forked {
    Forked::new(|| {
        become_stranger();
        loop {
            f();
        }
    })
}

/// Runs `f` as another user, and returns to root afterwards. For a test in its own process. The
/// function also changes the real user, whose counts the kernel limits.
pub fn as_user(uid: u32, f: impl FnOnce()) {
    let before = unsafe { libc::geteuid() };
    assert_eq!(unsafe { libc::setresuid(uid, uid, before) }, 0);
    let back = || assert_eq!(unsafe { libc::setresuid(before, before, before) }, 0);
    let _back = super::OnDrop(back);
    f();
}

/// Whether sendfile(2) to a closed socket pair kills a process with the default action of SIGPIPE.
pub fn dies_of_sigpipe() -> bool {
    let file = blank_file(10);
    let (mine, peer) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(peer);
    use std::os::fd::AsRawFd;
    let (to, from) = (mine.as_raw_fd(), file.as_raw_fd());
    unsafe {
        // Only calls that are safe after fork(2) in a program with threads.
        let child = libc::fork();
        if child == 0 {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::sendfile(to, from, std::ptr::null_mut(), 10);
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGPIPE
    }
}

/// Limits the calling thread, and the threads that it starts from now on, to the processor that it
/// runs on. A thread that it starts then usually begins when the calling thread waits.
pub fn use_one_processor() {
    // SAFETY: a set of processors has no invalid value, and the size is that of the set.
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &raw const one), 0);
    }
}

/// Duplicates the descriptor of a socket, as another process would have it.
pub fn duplicate(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's socket is open.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().unwrap()
}

/// Takes a lease on a file: until the lease is closed, no other process opens or executes the file
/// (fcntl(2)).
pub fn lease(file: &std::fs::File) {
    const F_SETSIG: i32 = 10; // asm-generic/fcntl.h; not in libc
    // SAFETY: no memory is passed. The kernel notifies by a signal that is ignored.
    unsafe {
        assert_eq!(libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG), 0);
        assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK), 0);
    }
}

/// Whether a process waits for the end of the lease: F_GETLEASE returns the future type of the
/// lease.
pub fn waits_for_lease(file: &std::fs::File) -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) != libc::F_WRLCK }
}

/// The kernel's limit of connections that wait for an accept.
pub fn backlog(fd: RawFd) -> i32 {
    // SAFETY: an all-zero tcp_info is valid; the kernel writes at most its size.
    let info = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let out = (&raw mut info).cast();
        let code = libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, out, &raw mut len);
        assert_eq!(code, 0);
        info
    };
    // For a listener, tcp_get_info() reports the limit in this field.
    info.tcpi_sacked as i32
}

/// Kills a child, and waits until it has exited.
pub fn end(pid: i64) {
    // SAFETY: the kernel writes one int.
    unsafe {
        libc::kill(pid as libc::pid_t, libc::SIGKILL);
        libc::waitpid(pid as libc::pid_t, &mut 0, 0);
    }
}

/// The inode of a pidfd of this process, if the kernel has one per process.
pub fn pidfd_inode() -> Option<u64> {
    // SAFETY: the descriptor is new; all-zero structures are valid, and the kernel fills them in.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
        let fd = OwnedFd::from_raw_fd(RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?);
        let mut kind: libc::statfs = std::mem::zeroed();
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstatfs(fd.as_raw_fd(), &raw mut kind), 0);
        assert_eq!(libc::fstat(fd.as_raw_fd(), &raw mut stat), 0);
        // The types of these members differ between systems.
        #[allow(clippy::unnecessary_cast)]
        (kind.f_type as u32 == 0x5049_4446).then_some(stat.st_ino as u64)
    }
}

/// Only for a process of one test.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: the harness's other thread waits for this one.
    unsafe { std::env::set_var(name, value) };
}

pub fn remove_variable(name: &str) {
    // SAFETY: the harness's other thread waits for this one.
    unsafe { std::env::remove_var(name) };
}

/// Overwrites the arguments of this process, as setproctitle does.
pub fn set_title(title: &[u8]) {
    // proc(5): arg_start and arg_end are fields 48 and 49; the second field ends with ')'.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let mut bounds = fields.split(' ').skip(45).map(|field| field.parse::<usize>().unwrap());
    let (start, end) = (bounds.next().unwrap(), bounds.next().unwrap());
    assert!(start != 0 && start + title.len() < end);
    let arguments = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel has put the arguments there, writable, and they stay there.
    unsafe {
        std::ptr::write_bytes(arguments, 0, end - start);
        std::ptr::copy_nonoverlapping(title.as_ptr(), arguments, title.len());
    }
}

/// Closes the descriptors that the parent process left open. Only for a process of one test, before
/// it opens a descriptor.
pub fn close_numbers(first: RawFd, last: RawFd) {
    for fd in first..=last {
        // SAFETY: no code of this process uses these descriptors.
        unsafe { libc::close(fd) };
    }
}

/// Runs `f` without descriptors 0, 1 and 2.
pub fn without_streams<T>(f: impl FnOnce() -> T) -> T {
    let saved = [0, 1, 2].map(|fd| {
        // SAFETY: no memory is passed, and no thread prints in the meantime.
        unsafe {
            let saved = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100);
            assert!(saved >= 0);
            libc::close(fd);
            saved
        }
    });
    let outcome = f();
    for (number, saved) in (0..).zip(saved) {
        // SAFETY: as above.
        unsafe {
            assert_eq!(libc::dup2(saved, number), number);
            libc::close(saved);
        }
    }
    outcome
}

/// Returns whether a child of this process runs one of its signal handlers during `f`. The test
/// sends signals to the process group, which must belong to this process alone.
pub fn handled_elsewhere(f: impl FnOnce()) -> bool {
    static OWN: AtomicU32 = AtomicU32::new(0);
    static REPORT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: both calls are async-signal-safe.
        unsafe {
            if libc::getpid() as u32 != OWN.load(Ordering::Relaxed) {
                let fd = REPORT.load(Ordering::Relaxed) as RawFd;
                libc::write(fd, [1u8].as_ptr().cast(), 1);
            }
        }
    }
    let (reader, writer) = pipe();
    REPORT.store(writer.as_raw_fd() as u32, Ordering::Relaxed);
    OWN.store(std::process::id(), Ordering::Relaxed);
    // SAFETY: only a pointer to the handler is passed, which is static. A process without a handler
    // ignores SIGURG.
    unsafe {
        assert_eq!(libc::setpgid(0, 0), 0);
        libc::signal(libc::SIGURG, handler as *const () as libc::sighandler_t);
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: no memory is passed.
                unsafe { libc::kill(0, libc::SIGURG) };
            }
        });
        f();
        stop.store(true, Ordering::Relaxed);
    });
    becomes_readable(reader.as_raw_fd(), 0)
}

/// Whether the kernel delivers coalesced datagrams (UDP_GRO of udp(7)).
pub fn coalesces(fd: RawFd) -> bool {
    option(fd, libc::SOL_UDP, libc::UDP_GRO) != 0
}

/// Whether the library can coalesce datagrams here.
pub fn can_coalesce() -> bool {
    cfg!(keepsock_linux)
}

/// Enables UDP_GRO.
pub fn coalesce(fd: RawFd) {
    set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
}

/// Whether an error is pending on the socket (POLLERR of poll(2)).
pub fn has_error(fd: RawFd) -> bool {
    let mut asked = libc::pollfd { fd, events: 0, revents: 0 };
    // SAFETY: one structure, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    ready == 1 && asked.revents & libc::POLLERR != 0
}

/// Reads SO_ERROR, which clears it.
pub fn take_error(fd: RawFd) -> i32 {
    let (mut error, mut len) = (0, 4);
    let out = (&raw mut error).cast();
    // SAFETY: the kernel writes one int and its length.
    let code = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, out, &raw mut len) };
    assert_eq!(code, 0, "{}", io::Error::last_os_error());
    error
}

/// Creates a FIFO that each user may open.
pub fn mkfifo(path: &std::path::Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o666) }, 0, "{}", io::Error::last_os_error());
}

/// Takes a lock that each user with read access to the file or directory can take.
pub fn flock(path: &std::path::Path) -> std::fs::File {
    let file = std::fs::File::open(path).unwrap();
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(locked, 0, "{}", io::Error::last_os_error());
    file
}

/// Registers handlers of pthread_atfork(3): before a fork, and afterwards in the parent.
pub fn at_fork(before: extern "C" fn(), in_parent: extern "C" fn()) {
    let (before, in_parent) = (before as unsafe extern "C" fn(), in_parent as _);
    assert_eq!(unsafe { libc::pthread_atfork(Some(before), Some(in_parent), None) }, 0);
}

/// A forked child of this process, killed when this is dropped.
pub struct Forked(libc::pid_t);

impl Forked {
    /// Forks a child that calls `f` and then waits.
    pub fn new(f: impl FnOnce()) -> Forked {
        // SAFETY: only the child of Forked::by runs on.
        Forked::by(|| unsafe { libc::fork() }, f)
    }

    /// Makes a child that waits, without the handlers of pthread_atfork(3).
    pub fn by_clone() -> Forked {
        Forked::by(clone, || {})
    }

    /// Forks. In the child, the result is `None`, and the caller returns into the library: the library
    /// ends the child.
    pub fn returning() -> Option<Forked> {
        // SAFETY: the child only runs the code of the library, which ends it.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // SAFETY: these calls take no pointers.
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::alarm(60)) };
            return None;
        }
        Some(Forked(child))
    }

    /// Waits for the end of the child. Returns its exit status, or `None` if a signal ended it.
    pub fn end(self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: the status is an int, and the child is one of this process.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        std::mem::forget(self);
        libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
    }

    fn by(fork: impl Fn() -> libc::pid_t, f: impl FnOnce()) -> Forked {
        // SAFETY: the child runs the code of the test, and never returns into the harness.
        unsafe {
            let child = fork();
            assert!(child >= 0);
            if child == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // Later than the limits of the tests, because the end of the child closes its copies.
                libc::alarm(120);
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
                if done.is_err() {
                    libc::_exit(1);
                }
                loop {
                    libc::pause();
                }
            }
            Forked(child)
        }
    }

    /// Runs `f` in a forked child that exits afterwards. Returns whether it succeeded in time.
    pub fn run(f: impl FnOnce()) -> bool {
        // SAFETY: only the child of Forked::by runs on.
        Forked::run_by(|| unsafe { libc::fork() }, f)
    }

    /// Runs `f` as [`Forked::run`], but without the handlers of pthread_atfork(3). No other thread
    /// of this process may be in malloc(3), because the child would inherit its lock.
    pub fn run_by_clone(f: impl FnOnce()) -> bool {
        Forked::run_by(clone, f)
    }

    fn run_by(fork: impl Fn() -> libc::pid_t, f: impl FnOnce()) -> bool {
        let child = Forked::by(fork, || {
            f();
            // SAFETY: no handler of the harness is run.
            unsafe { libc::_exit(0) };
        });
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let mut status = 0;
            // SAFETY: the kernel writes one int.
            let ended = unsafe { libc::waitpid(child.0, &raw mut status, libc::WNOHANG) };
            if ended == child.0 {
                std::mem::forget(child);
                return libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            }
            if Instant::now() > until {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn clone() -> libc::pid_t {
    // On s390x the flags are the second argument.
    let flags = if cfg!(target_arch = "s390x") { [0, libc::SIGCHLD] } else { [libc::SIGCHLD, 0] };
    // SAFETY: no stack and no flags, as fork(2). Only the child of Forked::by runs on.
    unsafe { libc::syscall(libc::SYS_clone, flags[0], flags[1], 0, 0, 0) as libc::pid_t }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // SAFETY: the kernel writes one int.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, &mut 0, 0);
        }
    }
}

/// Drops a forked child's copy of an object that the parent still uses.
pub fn drop_copy<T>(shared: &T) {
    // SAFETY: the copy belongs to the child alone, which does not use it again.
    drop(unsafe { std::ptr::read(shared) });
}

/// The number of registrations of this process with pollers (epoll(7), proc_pid_fdinfo(5)), counted for
/// each descriptor of a poller.
pub fn registrations() -> usize {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = infos.filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok());
    texts.map(|text| text.lines().filter(|line| line.starts_with("tfd:")).count()).sum()
}

/// Gives the number of a descriptor, which is open, to another file.
pub fn replace(fd: RawFd) {
    let file = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: the caller does not use the number for the former file.
    assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), fd) }, fd);
}

/// The number of open sockets of this process.
pub fn open_sockets() -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The kernel's receive and send timeouts in milliseconds. 0 means none.
pub fn timeouts(fd: RawFd) -> [u128; 2] {
    // SAFETY: the descriptor is open.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let socket = socket2::SockRef::from(&socket);
    [socket.read_timeout(), socket.write_timeout()]
        .map(|timeout| timeout.unwrap().map_or(0, |timeout| timeout.as_millis()))
}

/// Whether a thread of that name sleeps in epoll_wait(2). A thread that runs has no system call in this
/// file of proc_pid_syscall(5).
pub fn waits_for_events(name: &str) -> bool {
    let is_wait = |call: String| {
        #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
        let waits = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
        #[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
        let waits = [libc::SYS_epoll_pwait];
        call.split(' ').next().and_then(|n| n.parse().ok()).is_some_and(|n| waits.contains(&n))
    };
    std::fs::read_dir("/proc/self/task").unwrap().flatten().any(|task| {
        let read = |what: &str| std::fs::read_to_string(task.path().join(what));
        let waits = || match is_emulated() {
            true => read("stat").is_ok_and(|stat| stat.contains(") S ")),
            false => read("syscall").is_ok_and(is_wait),
        };
        read("comm").is_ok_and(|of| of.trim_end() == name) && waits()
    })
}

/// Whether this process has a thread of that name. The kernel keeps 15 bytes of the name.
pub fn has_thread(name: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
    names.any(|of| of.trim_end() == name)
}
