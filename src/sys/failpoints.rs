//! Failpoints (Cargo feature `failpoints`): each system call of the library has a site, which is the
//! place of the call in the sources. A plan makes one site fail, transfer one byte, or wait.
//!
//! This module is for the tests of the library: the fault matrix (`cargo xtask faults`). It changes
//! nothing until [`arm`] is called. The plan applies to every thread of the process.

use std::collections::BTreeMap;
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A call of a system call in the sources of the library.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The source file, relative to the root of the repository.
    pub file: &'static str,
    /// The line of the call.
    pub line: u32,
    /// The name of the system call.
    pub call: &'static str,
}

/// A change of the behavior of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this error number.
    Errno(i32),
    /// This many calls in a row fail with this error number.
    Storm(i32, u32),
    /// This many calls in a row transfer one byte, or one datagram of a batch.
    Short(u32),
    /// The thread waits before the call.
    DelayBefore(Duration),
    /// The thread waits after the call.
    DelayAfter(Duration),
}

/// A fault at the `nth` call of a site, counted from 1 since [`arm`].
#[derive(Debug, Clone)]
pub struct Plan {
    /// The site.
    pub site: Site,
    /// The first call with the fault.
    pub nth: u32,
    /// The fault.
    pub fault: Fault,
}

/// The result of a plan.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The number of calls of each site.
    pub seen: BTreeMap<Site, u32>,
    /// The number of calls with the fault.
    pub hits: u32,
}

struct State {
    plan: Option<Plan>,
    report: Report,
}

static IS_ARMED: AtomicBool = AtomicBool::new(false);
static STATE: Mutex<State> =
    Mutex::new(State { plan: None, report: Report { seen: BTreeMap::new(), hits: 0 } });

/// Starts to count calls, and applies the plan if there is one.
pub fn arm(plan: Option<Plan>) {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    *state = State { plan, report: Report::default() };
    IS_ARMED.store(true, Ordering::Release);
}

/// Ends the plan, and returns what it did. Calls that wait now still end later.
pub fn disarm() -> Report {
    IS_ARMED.store(false, Ordering::Release);
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    state.plan = None;
    std::mem::take(&mut state.report)
}

/// The fault of this call, if the plan has one.
fn fault_of(at: &'static Location<'static>, call: &'static str) -> Option<Fault> {
    if !IS_ARMED.load(Ordering::Relaxed) {
        return None;
    }
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = Site { file: at.file(), line: at.line(), call };
    let is_planned = state.plan.as_ref().is_some_and(|plan| plan.site == site);
    let count = state.report.seen.entry(site).or_default();
    *count += 1;
    let nth = *count;
    let plan = state.plan.as_ref().filter(|_| is_planned)?;
    let (first, fault) = (plan.nth, plan.fault);
    let length = match fault {
        Fault::Storm(_, count) | Fault::Short(count) => count,
        _ => 1,
    };
    if nth < first || nth - first >= length {
        return None;
    }
    state.report.hits += 1;
    Some(fault)
}

/// Makes a call with its fault. `run` makes the call; its argument: it transfers one byte. `failed`
/// returns the result of a call that fails.
fn with_fault<T>(
    at: &'static Location<'static>,
    name: &'static str,
    run: impl FnOnce(bool) -> T,
    failed: impl FnOnce(i32) -> T,
) -> T {
    match fault_of(at, name) {
        None => run(false),
        Some(Fault::Errno(code) | Fault::Storm(code, _)) => {
            // Linux closes the descriptor although it reports an error. After an error of shutdown(2)
            // there is no direction left to shut down. After EINTR the handshake of connect(2)
            // continues.
            let has_effect =
                matches!(name, "close" | "shutdown") || (name == "connect" && code == libc::EINTR);
            if has_effect {
                drop(run(false));
            }
            failed(code)
        }
        Some(Fault::Short(_)) => run(true),
        Some(Fault::DelayBefore(time)) => {
            std::thread::sleep(time);
            run(false)
        }
        Some(Fault::DelayAfter(time)) => {
            let result = run(false);
            let error = io::Error::last_os_error();
            std::thread::sleep(time);
            set_errno(error.raw_os_error().unwrap_or(0));
            result
        }
    }
}

fn set_errno(code: i32) {
    // SAFETY: errno is an int of this thread.
    unsafe { *libc::__errno_location() = code };
}

/// The functions of libc and socket2, with failpoints.
#[allow(dead_code)] // Other Cargo features select the functions that the library calls.
pub(super) mod calls {
    use std::ffi::{c_char, c_int, c_uint, c_void};
    use std::io;
    use std::net::Shutdown;
    use std::panic::Location;
    use std::time::Duration;

    use libc::{mmsghdr, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t};
    use socket2::{SockAddr, TcpKeepalive};

    use super::super::large_file::{self, off_t};
    use super::{set_errno, with_fault};

    /// The result of a function of C that fails.
    fn failed_c<T: From<i8>>(code: i32) -> T {
        set_errno(code);
        T::from(-1)
    }

    macro_rules! functions {
        ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {$(
            /// # Safety
            /// The same requirements as the function of libc.
            #[track_caller]
            pub(in crate::sys) unsafe fn $name($($arg: $type),*) -> $result {
                // SAFETY: the caller keeps the requirements.
                let run = |_| unsafe { large_file::$name($($arg),*) };
                with_fault(Location::caller(), stringify!($name), run, failed_c)
            }
        )*};
    }

    functions! {
        bind(fd: c_int, name: *const sockaddr, len: socklen_t) -> c_int;
        connect(fd: c_int, name: *const sockaddr, len: socklen_t) -> c_int;
        shutdown(fd: c_int, how: c_int) -> c_int;
        epoll_create1(flags: c_int) -> c_int;
        epoll_ctl(epoll: c_int, what: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int;
        timerfd_create(clock: c_int, flags: c_int) -> c_int;
        timerfd_settime(fd: c_int, flags: c_int, new: *const libc::itimerspec,
            old: *mut libc::itimerspec) -> c_int;
        eventfd(count: c_uint, flags: c_int) -> c_int;
        read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t;
        write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t;
        poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
        setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void,
            len: socklen_t) -> c_int;
        getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void,
            len: *mut socklen_t) -> c_int;
        getrlimit(what: c_uint, limit: *mut libc::rlimit) -> c_int;
        flock(fd: c_int, how: c_int) -> c_int;
        openat(folder: c_int, name: *const c_char, flags: c_int) -> c_int;
        fchmod(fd: c_int, mode: libc::mode_t) -> c_int;
        fchownat(fd: c_int, name: *const c_char, uid: libc::uid_t, gid: libc::gid_t,
            flags: c_int) -> c_int;
        fstat(fd: c_int, stat: *mut large_file::stat) -> c_int;
        fstatfs(fd: c_int, stat: *mut large_file::statfs) -> c_int;
        fork() -> libc::pid_t;
        kill(process: libc::pid_t, signal: c_int) -> c_int;
        waitpid(process: libc::pid_t, status: *mut c_int, flags: c_int) -> libc::pid_t;
        fcntl(fd: c_int, what: c_int, argument: c_int) -> c_int;
        accept4(fd: c_int, name: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int;
        sched_setaffinity(process: libc::pid_t, len: size_t, set: *const libc::cpu_set_t) -> c_int;
    }

    /// Functions that transfer bytes or datagrams. `short` is called before a call that transfers one.
    macro_rules! transfers {
        ($($name:ident($fd:ident: c_int, $($arg:ident: $type:ty),*) -> $result:ty, $count:ident;)*) => {$(
            /// # Safety
            /// The same requirements as the function of libc.
            #[track_caller]
            pub(in crate::sys) unsafe fn $name($fd: c_int, $($arg: $type),*) -> $result {
                let run = |is_short: bool| {
                    let $count = if is_short { $count.min(1) } else { $count };
                    // SAFETY: the caller keeps the requirements, and fewer elements are passed.
                    unsafe { large_file::$name($fd, $($arg),*) }
                };
                with_fault(Location::caller(), stringify!($name), run, failed_c)
            }
        )*};
    }

    transfers! {
        pread(fd: c_int, to: *mut c_void, len: size_t, at: off_t) -> ssize_t, len;
        sendfile(fd: c_int, file: c_int, at: *mut off_t, len: size_t) -> ssize_t, len;
        sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int, count;
        recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int,
            timeout: *mut libc::timespec) -> c_int, count;
        recv(fd: c_int, to: *mut c_void, len: size_t, flags: c_int) -> ssize_t, len;
    }

    /// # Safety
    /// The same requirements as recvmsg(2).
    #[track_caller]
    pub(in crate::sys) unsafe fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
        let run = |is_short| {
            // SAFETY: the caller keeps the requirements.
            unsafe { with_one_byte(fd, msg, is_short, || libc::recvmsg(fd, msg, flags)) }
        };
        with_fault(Location::caller(), "recvmsg", run, failed_c)
    }

    /// # Safety
    /// The same requirements as sendmsg(2).
    #[track_caller]
    pub(in crate::sys) unsafe fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
        let run = |is_short| {
            // SAFETY: the caller keeps the requirements; the change goes to a copy.
            unsafe {
                let mut copy = *msg;
                let msg = &raw mut copy;
                with_one_byte(fd, msg, is_short, || libc::sendmsg(fd, msg, flags))
            }
        };
        with_fault(Location::caller(), "sendmsg", run, failed_c)
    }

    /// Makes a call with the first byte of a message only, if `is_short` and the socket is a stream.
    ///
    /// # Safety
    /// `msg` is valid.
    unsafe fn with_one_byte<T>(
        fd: c_int,
        msg: *mut msghdr,
        is_short: bool,
        run: impl FnOnce() -> T,
    ) -> T {
        // SAFETY: msg is valid, and has this many parts.
        unsafe {
            let parts = (0..(*msg).msg_iovlen).map(|at| *(*msg).msg_iov.add(at));
            let first = parts.into_iter().find(|part| part.iov_len > 0);
            let Some(mut part) = first.filter(|_| is_short && is_stream(fd)) else {
                return run();
            };
            part.iov_len = 1;
            let whole = ((*msg).msg_iov, (*msg).msg_iovlen);
            ((*msg).msg_iov, (*msg).msg_iovlen) = (&raw mut part, 1);
            let result = run();
            ((*msg).msg_iov, (*msg).msg_iovlen) = whole;
            result
        }
    }

    /// A datagram or packet cannot be transferred in parts.
    fn is_stream(fd: c_int) -> bool {
        let (mut kind, mut len) = (0, size_of::<c_int>() as socklen_t);
        // SAFETY: the kernel writes one int.
        let code = unsafe {
            let kind = (&raw mut kind).cast();
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, kind, &raw mut len)
        };
        code == 0 && kind == libc::SOCK_STREAM
    }

    /// # Safety
    /// The same requirements as ioctl(2).
    #[track_caller]
    pub(in crate::sys) unsafe fn ioctl<T>(fd: c_int, what: libc::Ioctl, argument: *mut T) -> c_int {
        // SAFETY: the caller keeps the requirements.
        let run = |_| unsafe { libc::ioctl(fd, what, argument) };
        with_fault(Location::caller(), "ioctl", run, failed_c)
    }

    /// # Safety
    /// The same requirements as getaddrinfo(3).
    #[track_caller]
    pub(in crate::sys) unsafe fn getaddrinfo(
        node: *const c_char,
        service: *const c_char,
        hints: *const libc::addrinfo,
        list: *mut *mut libc::addrinfo,
    ) -> c_int {
        // SAFETY: the caller keeps the requirements.
        let run = |_| unsafe { libc::getaddrinfo(node, service, hints, list) };
        with_fault(Location::caller(), "getaddrinfo", run, |code| {
            set_errno(code);
            libc::EAI_SYSTEM
        })
    }

    /// Makes a system call without libc, by `make`.
    #[track_caller]
    pub(in crate::sys) fn direct(
        number: libc::c_long,
        mut arguments: [usize; 6],
        make: impl FnOnce([usize; 6]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let name = match number {
            libc::SYS_recvfrom => "recvfrom",
            libc::SYS_sendto => "sendto",
            libc::SYS_recvmsg => "recvmsg",
            libc::SYS_sendmsg => "sendmsg",
            libc::SYS_accept4 => "accept4",
            libc::SYS_close => "close",
            _ => "syscall",
        };
        let fd = arguments[0] as c_int;
        let run = |is_short: bool| match number {
            libc::SYS_recvfrom | libc::SYS_sendto if is_short && is_stream(fd) => {
                arguments[2] = arguments[2].min(1);
                make(arguments)
            }
            libc::SYS_recvmsg => {
                let msg = std::ptr::with_exposed_provenance_mut::<msghdr>(arguments[1]);
                // SAFETY: the second argument of this call is a valid message.
                unsafe { with_one_byte(fd, msg, is_short, || make(arguments)) }
            }
            libc::SYS_sendmsg => {
                let msg = std::ptr::with_exposed_provenance::<msghdr>(arguments[1]);
                // SAFETY: the second argument of this call is a valid message. The change goes to a
                // copy.
                unsafe {
                    let mut copy = *msg;
                    let msg = &raw mut copy;
                    arguments[1] = msg.expose_provenance();
                    with_one_byte(fd, msg, is_short, || make(arguments))
                }
            }
            _ => make(arguments),
        };
        let failed = |code| Err(io::Error::from_raw_os_error(code));
        with_fault(Location::caller(), name, run, failed)
    }

    /// Makes a system call through a library that has its own function for it.
    #[track_caller]
    pub(crate) fn call<T>(
        name: &'static str,
        run: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let failed = |code| Err(io::Error::from_raw_os_error(code));
        with_fault(Location::caller(), name, |_| run(), failed)
    }

    /// The reference to a socket of socket2, with failpoints.
    pub(crate) struct SockRef<'a>(socket2::SockRef<'a>);

    impl<'a, S: std::os::fd::AsFd> From<&'a S> for SockRef<'a> {
        fn from(socket: &'a S) -> SockRef<'a> {
            SockRef(socket2::SockRef::from(socket))
        }
    }

    macro_rules! methods {
        ($($call:literal: $($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*)*) => {
            impl SockRef<'_> {$($(
                #[track_caller]
                pub(crate) fn $name(&self $(, $arg: $type)*) -> io::Result<$result> {
                    let failed = |code| Err(io::Error::from_raw_os_error(code));
                    let run = |_| self.0.$name($($arg),*);
                    with_fault(Location::caller(), $call, run, failed)
                }
            )*)*}
        };
    }

    methods! {
        "connect": connect(to: &SockAddr) -> ();
        "bind": bind(to: &SockAddr) -> ();
        "listen": listen(backlog: c_int) -> ();
        "shutdown": shutdown(how: Shutdown) -> ();
        "getsockname": local_addr() -> SockAddr;
        "getpeername": peer_addr() -> SockAddr;
        "getsockopt":
            take_error() -> Option<io::Error>;
            only_v6() -> bool;
            r#type() -> socket2::Type;
            protocol() -> Option<socket2::Protocol>;
            is_listener() -> bool;
            keepalive() -> bool;
            tcp_keepalive_time() -> Duration;
            tcp_keepalive_interval() -> Duration;
            tcp_keepalive_retries() -> u32;
            tcp_user_timeout() -> Option<Duration>;
            send_buffer_size() -> usize;
            recv_buffer_size() -> usize;
            out_of_band_inline() -> bool;
            tcp_nodelay() -> bool;
            reuse_address() -> bool;
            broadcast() -> bool;
            device() -> Option<Vec<u8>>;
        "setsockopt":
            set_linger(time: Option<Duration>) -> ();
            set_read_timeout(time: Option<Duration>) -> ();
            set_write_timeout(time: Option<Duration>) -> ();
            set_tcp_nodelay(on: bool) -> ();
            set_only_v6(on: bool) -> ();
            set_reuse_address(on: bool) -> ();
            set_broadcast(on: bool) -> ();
            set_keepalive(on: bool) -> ();
            set_tcp_keepalive(values: &TcpKeepalive) -> ();
            set_tcp_user_timeout(time: Option<Duration>) -> ();
            set_send_buffer_size(size: usize) -> ();
            set_recv_buffer_size(size: usize) -> ();
            set_out_of_band_inline(on: bool) -> ();
            bind_device(name: Option<&[u8]>) -> ();
    }
}
