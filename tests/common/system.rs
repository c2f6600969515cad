//! What tests ask the kernel without going through keepsock.

// System calls are what this file is for.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::cell::Cell;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// This thread's number.
pub fn thread_id() -> i32 {
    unsafe { libc::gettid() }
}

/// Whether a thread of ours sleeps in a system call that waits for a socket.
pub fn waits_for_a_socket(thread: i32) -> bool {
    const WAITS: [libc::c_long; 10] = [
        libc::SYS_sendfile,
        // Waiting for another thread's write to end.
        libc::SYS_futex,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_recvmmsg,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_accept4,
        libc::SYS_ppoll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        #[cfg(not(target_arch = "x86_64"))]
        libc::SYS_ppoll,
    ];
    let read = |what: &str| std::fs::read_to_string(format!("/proc/self/task/{thread}/{what}"));
    let Ok(call) = read("syscall") else {
        // A kernel without this file: asleep must do.
        return read("stat").is_ok_and(|s| s.rsplit(')').next().unwrap_or("").starts_with(" S"));
    };
    call.split(' ').next().and_then(|n| n.parse().ok()).is_some_and(|n| WAITS.contains(&n))
}

/// An integer option as the kernel has it.
pub fn option(fd: RawFd, level: i32, name: i32) -> i32 {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let result =
        unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    value
}

pub fn set_option(fd: RawFd, level: i32, name: i32, value: i32) {
    let (at, len) = (&raw const value, size_of::<i32>() as libc::socklen_t);
    let result = unsafe { libc::setsockopt(fd, level, name, at.cast(), len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// SO_RCVTIMEO or SO_SNDTIMEO; zero: none.
pub fn timeout_option(fd: RawFd, name: i32) -> Duration {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of::<libc::timeval>() as libc::socklen_t;
    let at = (&raw mut value).cast();
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1000)
}

/// SO_LINGER, if it is on.
pub fn linger(fd: RawFd) -> Option<i32> {
    let mut value = libc::linger { l_onoff: 0, l_linger: 0 };
    let mut len = size_of::<libc::linger>() as libc::socklen_t;
    let at = (&raw mut value).cast();
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    (value.l_onoff != 0).then_some(value.l_linger)
}

/// What the kernel still has of the SYN that opened a connection; it gives it once.
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

/// Small socket buffers: a writer waits soon.
pub fn shrink_buffers(fd: RawFd) {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, 16 << 10);
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 16 << 10);
}

/// Keepalive as the kernel has it: on, idle, interval, count.
pub fn keepalive(fd: RawFd) -> (bool, i32, i32, i32) {
    let tcp = |name| option(fd, libc::IPPROTO_TCP, name);
    (
        option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE) != 0,
        tcp(libc::TCP_KEEPIDLE),
        tcp(libc::TCP_KEEPINTVL),
        tcp(libc::TCP_KEEPCNT),
    )
}

pub fn is_nonblocking(fd: RawFd) -> bool {
    unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

pub fn is_cloexec(fd: RawFd) -> bool {
    unsafe { libc::fcntl(fd, libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

pub fn is_open(fd: RawFd) -> bool {
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// The handler, flags and mask of every signal's disposition.
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

/// A thread, to send signals to.
#[derive(Clone, Copy)]
pub struct Target(libc::pthread_t);

impl Target {
    pub fn this_thread() -> Target {
        Target(unsafe { libc::pthread_self() })
    }

    /// The thread must still run.
    pub fn signal(self, signal: i32) {
        assert_eq!(unsafe { libc::pthread_kill(self.0, signal) }, 0);
    }
}

/// How a call is disturbed by [`pestered`].
#[derive(Clone, Copy)]
pub struct Pest {
    pub every: Duration,
    /// After so many signals, something is done that ends the call.
    pub signals: u32,
}

/// Runs `f` in this thread while another one sends it signals, whose handler does no more
/// than count and is installed without SA_RESTART; each is sent when the one before was
/// caught. After some of them `then` is done, once, in that other thread.
pub fn pestered<T>(pest: Pest, f: impl FnOnce() -> T, then: impl FnOnce() + Send) -> T {
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
    let caught = caught.into_inner();
    assert!(caught >= pest.signals, "only {caught} signals were caught");
    value
}

extern "C" fn count_signal(_: i32) {
    with_pointer(CAUGHT.get(), |caught: &AtomicU32| {
        caught.fetch_add(1, Ordering::Release);
    });
}

thread_local! {
    /// Where this thread's handler counts.
    static CAUGHT: Cell<*const AtomicU32> = const { Cell::new(std::ptr::null()) };
}

/// Opens, uses and closes sockets until it is told to stop. Whoever uses a descriptor
/// that was closed meets one of these, takes its bytes or closes it, and that is seen
/// here: each socket gets exactly what was sent to it.
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
            b.read_exact(&mut got).expect("somebody took what was sent to this socket");
            assert_eq!(got, [i as u8; 16], "somebody wrote to this socket");
            drop(a);
            assert_eq!(b.read(&mut got).unwrap(), 0);
        }
    }
}

/// A send buffer of any size, where this process may; else the largest that it may.
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

/// How many bytes the kernel holds for the reader.
pub fn readable_bytes(fd: RawFd) -> i32 {
    let mut n = 0i32;
    assert_eq!(unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut n) }, 0);
    n
}

/// The interface that a socket is bound to.
pub fn interface(fd: RawFd) -> String {
    let mut name = [0u8; libc::IFNAMSIZ];
    let mut len = name.len() as libc::socklen_t;
    let at = name.as_mut_ptr().cast();
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, at, &raw mut len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    String::from_utf8_lossy(&name[..len as usize]).trim_end_matches('\0').to_owned()
}

/// How many sockets of this process are bound to an address.
pub fn sockets_bound_to(ip: std::net::IpAddr) -> usize {
    sockets(|local| local.ip() == ip).len()
}

/// The socket of this process that has this local address, without asking its owner.
pub fn socket_at(address: std::net::SocketAddr) -> RawFd {
    let found = sockets(|local| local == address);
    assert_eq!(found.len(), 1, "sockets at {address}");
    found[0]
}

fn sockets(wanted: impl Fn(std::net::SocketAddr) -> bool) -> Vec<RawFd> {
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
    numbers
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok())
        .filter(|fd| {
            // Only looked at: a number that is closed meanwhile, or no socket, gives an error.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
            let address = socket2::SockRef::from(&fd).local_addr();
            address.is_ok_and(|a| a.as_socket().is_some_and(&wanted))
        })
        .collect()
}

/// Lends what a pointer points to, if it points anywhere. For signal handlers, which get
/// at nothing but statics; whoever stored the pointer keeps the object alive.
pub fn with_pointer<T>(pointer: *const T, f: impl FnOnce(&T)) {
    if let Some(object) = unsafe { pointer.as_ref() } {
        f(object);
    }
}

/// Whether poll finds something to read within so many milliseconds.
pub fn becomes_readable(fd: RawFd, ms: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&raw mut poll, 1, ms) == 1 }
}

/// Both ends of a pipe.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) }
}

/// An integer option that this kernel may not have.
pub fn try_option(fd: RawFd, level: i32, name: i32) -> Option<i32> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let result =
        unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    (result == 0).then_some(value)
}

/// TCP_CONGESTION: what minds congestion on this connection.
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

/// A descriptor that a test has open for as long as it is used.
pub fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A file in memory of so many zeros.
pub fn blank_file(len: u64) -> std::fs::File {
    let fd = unsafe { libc::memfd_create(c"blank".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(len).unwrap();
    file
}

/// Sends by the system call alone; whether that succeeded.
pub fn send_plainly(fd: RawFd, bytes: &[u8]) -> bool {
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0) >= 0 }
}

/// As another process that has the socket, too, may do.
pub fn shutdown_reading(fd: RawFd) {
    unsafe { libc::shutdown(fd, libc::SHUT_RD) };
}

/// Whether the signal waits, blocked, for this thread or the process.
pub fn is_pending(signal: i32) -> bool {
    unsafe {
        let mut set = std::mem::zeroed();
        assert_eq!(libc::sigpending(&raw mut set), 0);
        libc::sigismember(&raw const set, signal) == 1
    }
}

/// Blocks a signal in this thread, or lets it through; whether it was blocked.
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

/// Sends descriptors as a program without keepsock does.
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

/// Does something as another user, and as root again afterwards. For a process of its own.
pub fn as_user(uid: u32, f: impl FnOnce()) {
    let before = unsafe { libc::geteuid() };
    assert_eq!(unsafe { libc::seteuid(uid) }, 0);
    let _back = super::OnDrop(|| assert_eq!(unsafe { libc::seteuid(before) }, 0));
    f();
}

/// Whether sendfile(2) to a closed pair of sockets ends a process that handles SIGPIPE by default.
pub fn dies_of_sigpipe() -> bool {
    let file = blank_file(10);
    let (mine, peer) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(peer);
    use std::os::fd::AsRawFd;
    let (to, from) = (mine.as_raw_fd(), file.as_raw_fd());
    unsafe {
        // Only what is safe after fork(2) in a program with threads.
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

/// Another descriptor of the same socket, as another process would have it.
pub fn duplicate(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's socket is open.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().unwrap()
}

/// A lease on a file: until it is closed nobody else opens it, or executes it (fcntl(2)).
pub fn lease(file: &std::fs::File) {
    const F_SETSIG: i32 = 10; // asm-generic/fcntl.h; not in libc
    // SAFETY: no memory is passed. Who breaks it is told of by a signal that is ignored.
    unsafe {
        assert_eq!(libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG), 0);
        assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK), 0);
    }
}

/// Whether somebody waits for the end of the lease: F_GETLEASE tells what it is to become.
pub fn waits_for_lease(file: &std::fs::File) -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) != libc::F_WRLCK }
}

/// How many connections may wait to be accepted, as the kernel has it.
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
    // Of a listener tcp_get_info() tells it there.
    info.tcpi_sacked as i32
}

/// Ends a child, and waits until it has.
pub fn end(pid: i64) {
    // SAFETY: the kernel writes one int.
    unsafe {
        libc::kill(pid as libc::pid_t, libc::SIGKILL);
        libc::waitpid(pid as libc::pid_t, &mut 0, 0);
    }
}

/// The inode of a pidfd of this process, where it is this process's alone.
pub fn pidfd_inode() -> Option<u64> {
    // SAFETY: the descriptor is new; all-zero structures are valid, and the kernel fills them in.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
        let fd = OwnedFd::from_raw_fd(RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?);
        let mut kind: libc::statfs = std::mem::zeroed();
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstatfs(fd.as_raw_fd(), &raw mut kind), 0);
        assert_eq!(libc::fstat(fd.as_raw_fd(), &raw mut stat), 0);
        (kind.f_type == 0x5049_4446).then_some(stat.st_ino)
    }
}

/// In a process of one test only.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: the harness's other thread waits for this one.
    unsafe { std::env::set_var(name, value) };
}

/// Closes what whoever started this process has left open. In a process of one test only, before
/// it has opened anything.
pub fn close_numbers(first: RawFd, last: RawFd) {
    for fd in first..=last {
        // SAFETY: nobody in this process knows of them.
        unsafe { libc::close(fd) };
    }
}

/// Runs that without descriptors 0, 1 and 2.
pub fn without_streams<T>(f: impl FnOnce() -> T) -> T {
    let saved = [0, 1, 2].map(|fd| {
        // SAFETY: no memory is passed, and nobody prints meanwhile.
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

/// Whether, while that runs, a child of this process runs a handler of it. Signals rain on the
/// process group, which has to be this process's own to be told.
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
    // SAFETY: no memory is passed but the handler's, which stays. Whoever has none ignores SIGURG.
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

/// Whether the kernel hands several datagrams over as one (UDP_GRO of udp(7)).
pub fn coalesces(fd: RawFd) -> bool {
    option(fd, libc::SOL_UDP, libc::UDP_GRO) != 0
}

/// Has it do so.
pub fn coalesce(fd: RawFd) {
    set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
}

/// Whether an error waits in the socket (POLLERR of poll(2)).
pub fn has_error(fd: RawFd) -> bool {
    let mut asked = libc::pollfd { fd, events: 0, revents: 0 };
    // SAFETY: one structure, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    ready == 1 && asked.revents & libc::POLLERR != 0
}
