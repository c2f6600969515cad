//! Limits of the process, below or up to those of the system.

// This file makes system calls that the standard library does not have.
#![allow(unsafe_code)]

/// Raises the descriptor limit of this process to `needed`, or skips the test.
pub fn need_descriptors(needed: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let most = limit.rlim_max;
    if most < needed as libc::rlim_t {
        super::process::cannot(&format!(
            "{needed} descriptors are needed, {most} is the hard limit"
        ));
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// Limits this process to this many descriptors from now on.
pub fn limit_descriptors(most: u64) {
    let most = most as libc::rlim_t;
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the kernel reads one rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// Limits the growth of the address space of this process from now on. None sets the hard limit.
pub fn limit_memory(more: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: the kernel writes and reads one rlimit.
    unsafe {
        let page = u64::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap();
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &raw mut limit), 0);
        limit.rlim_cur = more.map_or(limit.rlim_max, |more| (pages * page + more) as libc::rlim_t);
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const limit), 0);
    }
}

/// Makes this system call (with this first argument, if one is given) fail with this error from now
/// on, in this thread and the threads that it starts.
pub fn forbid(call: libc::c_long, first: Option<libc::c_int>, errno: libc::c_int) {
    forbid_with(call, first.map(|first| (0, first)), errno);
}

/// As [`forbid`], for the argument with this number, counted from 0.
pub fn forbid_with(call: libc::c_long, argument: Option<(u32, libc::c_int)>, errno: libc::c_int) {
    install(&[(call, argument)], libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(), 0);
}

/// As [`forbid`], for the next `times` calls only, which return `result`: a negative number is an
/// error. The kernel does not execute the calls. Needs Linux 5.5. On older versions the test is
/// skipped.
pub fn answer(call: libc::c_long, first: Option<libc::c_int>, result: i64, times: usize) {
    let mut left = times;
    supervise(&[(call, first)], move |_| {
        let answer = (left > 0).then_some(result);
        left = left.saturating_sub(1);
        answer
    });
}

/// From now on `decide` handles these system calls of this thread, with these first arguments if
/// they are given, and of the threads that it starts. It returns a result, where a negative number
/// is an error, or None, which lets the kernel execute the call. Needs Linux 5.5. On older versions
/// the test is skipped.
pub fn supervise(
    calls: &[(libc::c_long, Option<libc::c_int>)],
    decide: impl FnMut(&libc::seccomp_data) -> Option<i64> + Send + 'static,
) {
    let calls: Vec<_> =
        calls.iter().map(|(call, first)| (*call, first.map(|first| (0, first)))).collect();
    supervise_with(&calls, decide);
}

/// Like [`supervise`]. The arguments have these numbers, counted from 0.
pub fn supervise_with(
    calls: &[(libc::c_long, Option<(u32, libc::c_int)>)],
    mut decide: impl FnMut(&libc::seccomp_data) -> Option<i64> + Send + 'static,
) {
    const RECV: u32 = 0xc050_2100;
    const SEND: u32 = 0xc018_2101;
    const CONTINUE: u32 = 1;
    // This thread starts before the filter, so that the filter does not apply to it.
    let (send, listener) = std::sync::mpsc::channel::<libc::c_int>();
    std::thread::spawn(move || {
        let Ok(listener) = listener.recv() else { return };
        loop {
            // SAFETY: the kernel writes one structure each, and reads one.
            unsafe {
                let mut ready = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
                libc::poll(&raw mut ready, 1, -1);
                if ready.revents & libc::POLLHUP != 0 {
                    // No thread has the filter any longer.
                    return;
                }
                let mut asked: libc::seccomp_notif = std::mem::zeroed();
                if libc::ioctl(listener, RECV as _, &raw mut asked) < 0 {
                    // The thread has exited in the meantime.
                    continue;
                }
                let mut told: libc::seccomp_notif_resp = std::mem::zeroed();
                told.id = asked.id;
                match decide(&asked.data) {
                    None => told.flags = CONTINUE,
                    Some(error @ ..0) => told.error = i32::try_from(error).unwrap(),
                    Some(result) => told.val = result,
                }
                libc::ioctl(listener, SEND as _, &raw mut told);
            }
        }
    });
    let listener = install(calls, libc::SECCOMP_RET_USER_NOTIF, 1 << 3);
    if listener < 0 {
        super::process::cannot("no user notification of seccomp (Linux 5.5)");
    }
    send.send(listener).unwrap();
}

/// Counts the system calls of this thread from now on that a connect may make.
pub fn count_calls() -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
    use libc::{SYS_bind, SYS_getsockopt, SYS_ioctl, SYS_ppoll, SYS_setsockopt, SYS_socket};
    use libc::{SYS_close, SYS_connect, SYS_fcntl, SYS_getpeername, SYS_getsockname};
    use libc::{SYS_dup3, SYS_epoll_create1, SYS_epoll_ctl, SYS_eventfd2, SYS_timerfd_create};
    let calls = [
        SYS_bind,
        SYS_close,
        SYS_connect,
        SYS_dup3,
        SYS_epoll_create1,
        SYS_epoll_ctl,
        SYS_eventfd2,
        SYS_fcntl,
        SYS_getpeername,
        SYS_getsockname,
        SYS_getsockopt,
        SYS_ioctl,
        SYS_ppoll,
        SYS_setsockopt,
        SYS_socket,
        SYS_timerfd_create,
        super::system::POLL,
    ];
    count_calls_of(&calls)
}

/// Counts the calls of these system calls that this thread makes from now on.
pub fn count_calls_of(calls: &[libc::c_long]) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
    let calls: Vec<_> = calls.iter().map(|call| (*call, None)).collect();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = count.clone();
    supervise(&calls, move |_| {
        counter.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        None
    });
    count
}

/// Installs a filter for these system calls, for this thread and the threads that it starts.
fn install(
    calls: &[(libc::c_long, Option<(u32, libc::c_int)>)],
    action: u32,
    flags: u32,
) -> libc::c_int {
    // seccomp(2): struct seccomp_data begins with the number of the call; its
    // arguments, of 64 bits each, begin at 16.
    const NUMBER: u32 = 0;
    const FIRST: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    // Jumps over `steps` if the value differs.
    let equals = |value, steps| libc::sock_filter {
        jf: steps,
        ..step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    };
    let end = |result| step(libc::BPF_RET | libc::BPF_K, result);
    let fail = end(action);
    let mut filter = Vec::new();
    for (call, argument) in calls {
        let number = u32::try_from(*call).unwrap();
        match argument {
            None => filter.extend([load(NUMBER), equals(number, 1), fail]),
            Some((argument, value)) => {
                let argument = load(FIRST + 8 * argument);
                let value = equals(*value as u32, 1);
                filter.extend([load(NUMBER), equals(number, 3), argument, value, fail]);
            }
        }
    }
    filter.push(end(libc::SECCOMP_RET_ALLOW));
    let len = u16::try_from(filter.len()).unwrap();
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies a program of `len` steps.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        let installed = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program);
        let error = std::io::Error::last_os_error();
        if installed < 0 && error.raw_os_error() == Some(libc::ENOSYS) {
            super::process::cannot(
                "the kernel has no seccomp(2), or an emulator does not pass it on",
            );
        }
        assert!(installed >= 0 || flags != 0, "{error}");
        i32::try_from(installed).unwrap()
    }
}

/// Removes the capabilities of root from this thread.
pub fn give_up_all_capabilities() {
    // capset(2): version 3, this thread; effective, permitted and inheritable, twice 32 bits.
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    // SAFETY: the kernel reads a header and two sets, which these are.
    let code = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

/// Makes this process an unprivileged user without other processes, and limits the threads that it
/// can start from then on. The test needs its own process, and root.
pub fn limit_threads(more: usize) {
    // SAFETY: no memory is passed.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        super::process::cannot("only root can become a user that has no other process");
    }
    let uid = 3_000_000 + std::process::id();
    // SAFETY: no memory is passed; the C library changes every thread of the process.
    assert_eq!(unsafe { libc::setresuid(uid, uid, uid) }, 0);
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count() + more;
    let most = threads as libc::rlim_t;
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the kernel reads one rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) }, 0);
}
