//! The machine that makes system calls fail: the calls, their errors, and the checks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::limits;
use crate::support::resources::Resources;
use keepsock::ErrorKind;
use keepsock::ffi::*;
use libc::*;

use crate::support::statuses;

macro_rules! errors {
    ($($name:ident)*) => { &[$($name),*] };
}

/// The system calls that are intercepted, and the errors of their manual pages.
const CALLS: &[(&str, c_long, &[c_int])] = &[
    ("socket", SYS_socket, &[EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES, EAFNOSUPPORT, EINVAL]),
    ("connect", SYS_connect, CONNECT),
    ("accept4", SYS_accept4, ACCEPT),
    ("bind", SYS_bind, &[EACCES, EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENOMEM, ENOENT, EROFS]),
    ("listen", SYS_listen, &[EADDRINUSE, EOPNOTSUPP, ENOMEM]),
    ("recvfrom", SYS_recvfrom, RECEIVE),
    ("recvmsg", SYS_recvmsg, RECEIVE),
    ("recvmmsg", SYS_recvmmsg, RECEIVE),
    ("read", SYS_read, RECEIVE),
    ("readv", SYS_readv, RECEIVE),
    ("pread64", SYS_pread64, &[EINTR, EIO, EISDIR]),
    ("sendto", SYS_sendto, SEND),
    ("sendmsg", SYS_sendmsg, SEND),
    ("sendmmsg", SYS_sendmmsg, SEND),
    ("write", SYS_write, SEND),
    ("writev", SYS_writev, SEND),
    ("sendfile", SYS_sendfile, &[EAGAIN, EINTR, EIO, ENOMEM, EINVAL, EOVERFLOW, EPIPE]),
    #[cfg(target_arch = "x86_64")]
    ("poll", SYS_poll, &[EINTR, ENOMEM, EINVAL]),
    ("ppoll", SYS_ppoll, &[EINTR, ENOMEM, EINVAL]),
    ("epoll_create1", SYS_epoll_create1, HELPER),
    ("epoll_ctl", SYS_epoll_ctl, &[ENOMEM, ENOSPC]),
    #[cfg(target_arch = "x86_64")]
    ("epoll_wait", SYS_epoll_wait, &[EINTR]),
    ("epoll_pwait", SYS_epoll_pwait, &[EINTR]),
    ("setsockopt", SYS_setsockopt, OPTION),
    ("getsockopt", SYS_getsockopt, OPTION),
    ("getsockname", SYS_getsockname, &[ENOBUFS]),
    ("getpeername", SYS_getpeername, &[ENOBUFS, ENOTCONN]),
    ("eventfd2", SYS_eventfd2, HELPER),
    ("timerfd_create", SYS_timerfd_create, HELPER),
    ("clone3", SYS_clone3, &[EAGAIN, ENOMEM, EPERM]),
    ("openat", SYS_openat, &[EMFILE, ENFILE, ENOMEM, EACCES, ENOENT]),
    ("fcntl", SYS_fcntl, &[EINVAL, EMFILE]),
    ("ioctl", SYS_ioctl, &[EINVAL, ENOTTY]),
    ("shutdown", SYS_shutdown, &[ENOTCONN]),
    ("close", SYS_close, &[EINTR, EIO]),
    ("fchmod", SYS_fchmod, &[EPERM, EROFS, EIO]),
    ("fchmodat", SYS_fchmodat, &[EPERM, EROFS, EIO]),
    ("fchownat", SYS_fchownat, &[EPERM, EROFS, EIO]),
    ("flock", SYS_flock, &[EINTR, ENOLCK]),
    ("statx", SYS_statx, &[EACCES, ENOMEM, EIO]),
    ("unlinkat", SYS_unlinkat, &[EACCES, EBUSY, EROFS]),
    #[cfg(target_arch = "x86_64")]
    ("unlink", SYS_unlink, &[EACCES, EBUSY, EROFS]),
    ("socketpair", SYS_socketpair, HELPER),
    ("dup3", SYS_dup3, &[EMFILE]),
];
/// A busy machine may delay a call beyond its timeout, which is short because many faults lead to it.
/// Such a call is repeated, this often.
const DELAYS: u32 = 5;

/// Errors of descriptors that the library makes for itself. The last ones mean something else for an
/// address.
const HELPER: &[c_int] = &[EMFILE, ENFILE, ENOMEM, EINVAL, ENODEV, EACCES];
/// The system calls with these errors.
const HELPERS: &[c_long] = &[SYS_epoll_create1, SYS_eventfd2, SYS_timerfd_create, SYS_socketpair];
const OPTION: &[c_int] = &[ENOPROTOOPT, EINVAL, ENOMEM, ENOBUFS];
/// Further errors of setsockopt(2) for groups and interfaces.
const NETWORK_OPTION: &[c_int] = &[EPERM, ENODEV, EADDRINUSE, EADDRNOTAVAIL];
const CONNECT: &[c_int] = errors! {
    EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAGAIN ECONNREFUSED ENETUNREACH EHOSTUNREACH
    ENETDOWN ETIMEDOUT ECONNRESET ENOBUFS ENOMEM ENOENT EPROTOTYPE EINVAL
};
const ACCEPT: &[c_int] = errors! {
    EMFILE ENFILE ENOBUFS ENOMEM ECONNABORTED EINTR EPROTO EPERM ENETDOWN EHOSTUNREACH
    EAGAIN EOPNOTSUPP
};
const RECEIVE: &[c_int] = errors! {
    EINTR EAGAIN ECONNRESET ECONNREFUSED ETIMEDOUT ENOMEM ENOBUFS EHOSTUNREACH ENETUNREACH
    EIO
};
const SEND: &[c_int] = errors! {
    EINTR EAGAIN ECONNRESET ECONNREFUSED EPIPE ETIMEDOUT ENOBUFS ENOMEM EPERM EACCES
    EHOSTUNREACH ENETUNREACH ENETDOWN EINVAL EMSGSIZE
};
/// Errors that do not occur in the test: of a connect(2) without handshake and backlog, or of a bound
/// UDP socket, of a later getpeername(2), of an accept4(2) on a listener.
const EXCEPT: &[(&str, c_long, c_int)] = &[
    ("keepsock_datagram_connect", SYS_connect, ECONNRESET),
    ("keepsock_datagram_connect", SYS_connect, ETIMEDOUT),
    ("keepsock_datagram_connect", SYS_connect, EAGAIN),
    ("keepsock_datagram_connect", SYS_getpeername, ENOTCONN),
    ("keepsock_datagram_set_peer", SYS_getpeername, ENOTCONN),
    ("keepsock_datagram_set_peer", SYS_connect, ECONNRESET),
    ("keepsock_datagram_set_peer", SYS_connect, ECONNREFUSED),
    ("keepsock_datagram_set_peer", SYS_connect, ETIMEDOUT),
    ("keepsock_datagram_set_peer", SYS_connect, EAGAIN),
    ("keepsock_datagram_set_peer", SYS_connect, ENOENT),
    ("keepsock_datagram_set_peer", SYS_connect, EADDRINUSE),
    ("keepsock_server_serve", SYS_accept4, EOPNOTSUPP),
    ("keepsock_server_serve_events", SYS_accept4, EOPNOTSUPP),
];
/// System calls before which a call may wait.
const BLOCKING: &[c_long] = errors! {
    SYS_accept4 SYS_recvfrom SYS_recvmsg SYS_recvmmsg SYS_sendto SYS_sendmsg SYS_sendmmsg
    SYS_sendfile
};
/// Transient errors: they must not end an object.
const PASSING: &[c_int] = &[EINTR, EAGAIN, ENOMEM, ENOBUFS, EMFILE, ENFILE];
/// The status of a call on an object that has ended.
const ENDED: &[ErrorKind] = &[
    ErrorKind::Closed,
    ErrorKind::WrongState,
    ErrorKind::Reset,
    ErrorKind::Dead,
    ErrorKind::Unreachable,
    ErrorKind::EndOfStream,
];
/// A status of the scenes of services: the connection with the fault was lost.
pub const LOST: i32 = i32::MIN;

/// A system call, and the value that distinguishes its uses: the option, the command.
type Site = (c_long, u64);

#[derive(Default)]
struct Injected {
    is_armed: bool,
    seen: BTreeMap<Site, u32>,
    /// The first call that sends, receives or accepts would block.
    blocks: bool,
    /// The site, the number of its call (0: each), the error.
    fault: Option<(Site, u32, c_int)>,
    was_hit: bool,
}

impl Injected {
    fn decide(&mut self, call: &seccomp_data) -> Option<i64> {
        let number = c_long::from(call.nr);
        let key = match number {
            SYS_setsockopt | SYS_getsockopt => call.args[1] << 32 | call.args[2],
            SYS_fcntl | SYS_ioctl | SYS_epoll_ctl => call.args[1],
            _ => 0,
        };
        let is_output = number == SYS_write && call.args[0] <= 2;
        if !self.is_armed || is_output {
            return None;
        }
        if self.blocks && BLOCKING.contains(&number) {
            self.blocks = false;
            return Some(-i64::from(EAGAIN));
        }
        let nth = self.seen.entry((number, key)).or_default();
        *nth += 1;
        let (site, which, errno) = self.fault?;
        if site != (number, key) || which != 0 && (which != *nth || self.was_hit) {
            return None;
        }
        self.was_hit = true;
        // Linux closes the descriptor although it reports an error. After an error of shutdown(2)
        // no direction is left to shut down.
        match number {
            SYS_close => unsafe { close(call.args[0] as c_int) },
            SYS_shutdown => unsafe { shutdown(call.args[0] as c_int, call.args[1] as c_int) },
            _ => 0,
        };
        Some(-i64::from(errno))
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread with the filter, and its findings.
pub struct Machine {
    jobs: mpsc::Sender<Job>,
    done: mpsc::Receiver<()>,
    injected: Arc<Mutex<Injected>>,
    now: Arc<Mutex<(String, Instant)>>,
    /// For each finding: the count, and the first occurrence.
    found: BTreeMap<String, (usize, String)>,
    tried: usize,
    statuses: BTreeMap<i32, usize>,
    reached: BTreeSet<c_long>,
    missed: usize,
}

/// Outputs of a call.
pub struct Out(pub [u64; 512]);

const CANARY: u64 = 0xa5a5_a5a5_a5a5_a5a5;

impl Out {
    pub fn at<T>(&mut self, word: usize) -> *mut T {
        self.0[word..].as_mut_ptr().cast()
    }

    pub fn handle<T>(&self) -> *mut T {
        self.0[0] as *mut T
    }
}

pub type Error = *mut *mut keepsock_error;

impl Machine {
    pub fn new() -> Machine {
        let injected = Arc::<Mutex<Injected>>::default();
        let shared = injected.clone();
        let (jobs, work) = mpsc::channel::<Job>();
        let (finished, done) = mpsc::channel();
        thread::spawn(move || {
            let calls: Vec<_> = CALLS.iter().map(|(_, number, _)| (*number, None)).collect();
            limits::supervise(&calls, move |call| shared.lock().unwrap().decide(call));
            for job in work {
                job();
                finished.send(()).unwrap();
            }
        });
        let now = Arc::new(Mutex::new((String::new(), Instant::now())));
        let watched = now.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(200));
                let (what, since) = watched.lock().unwrap().clone();
                if since.elapsed() > Duration::from_secs(200) {
                    println!("still running after 200 s: {what}");
                    std::process::abort();
                }
            }
        });
        Machine {
            jobs,
            done,
            injected,
            now,
            found: BTreeMap::new(),
            tried: 0,
            statuses: BTreeMap::new(),
            reached: BTreeSet::new(),
            missed: 0,
        }
    }

    /// Runs `f` in the thread with the filter.
    pub fn filtered<T>(&self, f: impl FnOnce() -> T) -> T {
        let mut result = None;
        let place = (&raw mut result) as usize;
        let job = move || unsafe { *(place as *mut Option<T>) = Some(f()) };
        let job: Box<dyn FnOnce() + '_> = Box::new(job);
        // The job has ended before this function returns.
        let job = unsafe { std::mem::transmute::<Box<dyn FnOnce() + '_>, Job>(job) };
        self.jobs.send(job).unwrap();
        self.done.recv().unwrap();
        result.unwrap()
    }

    /// Calls with this fault. Returns whether the fault was reached, the status, and the message.
    fn with_fault(
        &self,
        fault: Option<(Site, u32, c_int)>,
        (here, blocks): (bool, bool),
        call: &dyn Fn(Error) -> i32,
    ) -> (bool, i32, String) {
        let armed = || {
            let mut error = null_mut();
            *self.injected.lock().unwrap() =
                Injected { is_armed: true, blocks, fault, ..Injected::default() };
            let status = call(&raw mut error);
            self.injected.lock().unwrap().is_armed = false;
            let mut message = String::new();
            if !error.is_null() {
                unsafe {
                    message =
                        CStr::from_ptr(keepsock_error_message(error)).to_str().unwrap().into();
                    keepsock_error_free(error);
                }
            }
            (status, message)
        };
        let (status, message) = if here { armed() } else { self.filtered(armed) };
        (self.injected.lock().unwrap().was_hit, status, message)
    }

    /// Calls `function` with each fault at each system call that it reaches, each time on an object
    /// of `set_up`. `undo` frees the output of a successful call. Checks that the status is listed,
    /// that outputs are unchanged on failure, that the repeated call succeeds unless a permanent
    /// error has ended the object, and that no descriptor or thread is left. Then it does the same
    /// after a first system call that would block.
    pub fn each<S>(
        &mut self,
        title: &str,
        here: bool,
        set_up: impl Fn(&Machine) -> S,
        call: impl Fn(&S, &mut Out, Error) -> i32,
        undo: impl Fn(&S, &Out),
    ) {
        let waits = self.each_of(title, (here, false), &set_up, &call, &undo);
        if waits && !here {
            self.each_of(&format!("{title}, blocked"), (here, true), &set_up, &call, &undo);
        }
    }

    /// Returns whether the call may wait.
    fn each_of<S>(
        &mut self,
        title: &str,
        (here, blocks): (bool, bool),
        set_up: &impl Fn(&Machine) -> S,
        call: &impl Fn(&S, &mut Out, Error) -> i32,
        undo: &impl Fn(&S, &Out),
    ) -> bool {
        let function = title.split(',').next().unwrap();
        let before = Resources::now();
        let mut sites: BTreeMap<Site, u32> = BTreeMap::new();
        let (mut runs, mut delays) = (0, 0);
        while runs < if here { 3 } else { 1 } {
            *self.now.lock().unwrap() = (format!("{title}: no fault"), Instant::now());
            let scene = set_up(self);
            let out = std::cell::RefCell::new(Out([CANARY; 512]));
            let run = |e: Error| call(&scene, &mut out.borrow_mut(), e);
            let (_, status, message) = self.with_fault(None, (here, blocks), &run);
            if blocks && status == ErrorKind::WouldBlock.code() {
                return false;
            }
            if status == ErrorKind::TimedOut.code() && delays < DELAYS {
                delays += 1;
                continue;
            }
            runs += 1;
            assert_eq!(status, 0, "{title}, without a fault: {message}");
            undo(&scene, &out.borrow());
            for (site, count) in &self.injected.lock().unwrap().seen {
                let most = sites.entry(*site).or_default();
                *most = (*most).max(*count);
            }
        }
        before.await_again(Duration::from_secs(1));
        let before = Resources::now();
        let waits = sites.keys().any(|(number, _)| BLOCKING.contains(number));
        for ((number, key), count) in sites {
            let (name, _, errors) = CALLS.iter().find(|(_, n, _)| *n == number).unwrap();
            self.reached.insert(number);
            for which in u32::from(here || blocks)..=count.min(2) {
                let is_network = matches!(key, 0x1_0000_0019 | 0x23 | 0x29_0000_0014);
                let further = if is_network { NETWORK_OPTION } else { &[] };
                let is_possible = |errno: &c_int| {
                    let passes_at_once = [EINTR, EAGAIN].contains(errno);
                    !EXCEPT.contains(&(function, number, *errno)) && (which > 0 || !passes_at_once)
                };
                let errnos = errors.iter().chain(further).copied().filter(is_possible);
                let (mut errnos, mut delays) = (errnos.collect::<VecDeque<_>>(), 0);
                while let Some(errno) = errnos.pop_front() {
                    let error = std::io::Error::from_raw_os_error(errno).to_string();
                    let error = error.split(" (").next().unwrap();
                    let (level, option) = (key >> 32, key & 0xffff_ffff);
                    let what = format!("{title}: {name}({level}, {option}) #{which}: {error}");
                    *self.now.lock().unwrap() = (what.clone(), Instant::now());
                    let scene = set_up(self);
                    let out = std::cell::RefCell::new(Out([CANARY; 512]));
                    let run = |e: Error| call(&scene, &mut out.borrow_mut(), e);
                    let fault = Some(((number, key), which, errno));
                    let (was_hit, status, message) = self.with_fault(fault, (here, blocks), &run);
                    self.tried += usize::from(was_hit);
                    self.missed += usize::from(!was_hit);
                    *self.statuses.entry(status).or_default() += 1;
                    if status == 0 {
                        undo(&scene, &out.borrow());
                    } else {
                        if status != LOST && !statuses::may_return(function, status, &message) {
                            let code = unsafe { CStr::from_ptr(keepsock_status_name(status)) };
                            let code = code.to_str().unwrap();
                            let text = format!("{what}: {message}");
                            self.find(function, &format!("{code} is not listed"), &text);
                        }
                        let of_helper =
                            [ErrorKind::NoDescriptors, ErrorKind::NoMemory, ErrorKind::Os];
                        if HELPERS.contains(&number)
                            && !of_helper.iter().any(|kind| kind.code() == status)
                        {
                            self.find(title, &format!("{status} for a helper"), &what);
                        }
                        if out.borrow().0.iter().any(|word| *word != CANARY) {
                            self.find(title, "changed outputs", &what);
                        }
                    }
                    // These errors concern one connection only.
                    let is_over = |again| {
                        function.starts_with("keepsock_pending_connect")
                            && again == ErrorKind::WrongState.code()
                    };
                    // A reconnect whose timeout expires returns the error of its last try.
                    let is_late = |again| {
                        again == ErrorKind::TimedOut.code()
                            || again == status && function == "keepsock_reconnect_connect"
                    };
                    let has_ended = ENDED.iter().any(|kind| kind.code() == status);
                    let is_usable = !has_ended || PASSING.contains(&errno);
                    if status != 0 && is_usable {
                        let mut error = null_mut();
                        *out.borrow_mut() = Out([CANARY; 512]);
                        let again = run(&raw mut error);
                        if again == 0 {
                            undo(&scene, &out.borrow());
                        } else if is_late(again) && delays < DELAYS {
                            delays += 1;
                            errnos.push_back(errno);
                        } else if !is_over(again) {
                            let text = format!("{what}: {message}");
                            let finding = format!("{status}, and again: {again}");
                            self.find(title, &finding, &text);
                        }
                        unsafe { keepsock_error_free(error) };
                    }
                    drop(scene);
                    if let Some(left) = before.await_again(Duration::from_secs(30)) {
                        self.find(title, &format!("left {left}"), &format!("{what}: {status}"));
                    }
                }
            }
        }
        waits
    }

    fn find(&mut self, title: &str, finding: &str, example: &str) {
        let place = self.found.entry(format!("{title}: {finding}"));
        place.or_insert_with(|| (0, example.to_owned())).0 += 1;
    }

    pub fn report(self) {
        let not_reached = CALLS.iter().filter(|(_, number, _)| !self.reached.contains(number));
        let not_reached: Vec<_> = not_reached.map(|(name, ..)| *name).collect();
        println!(
            "\nfaults: {} tried, {} not reached; statuses: {:?}; system calls not made: {}",
            self.tried,
            self.missed,
            self.statuses,
            not_reached.join(" ")
        );
        let found = self.found.into_iter();
        let found: Vec<_> =
            found.map(|(what, (times, first))| format!("{what}, {times} times: {first}")).collect();
        assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
    }
}
