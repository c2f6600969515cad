//! T4: no descriptor of the library survives execve(2). C1: no deadline depends on the wall clock.

#![allow(non_upper_case_globals)] // The names of libc's constants.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::everything::Everything;
use crate::support::handshake::Handshakes;
use crate::support::process::{self, Helper, report};
#[cfg(target_pointer_width = "32")]
use crate::support::system::FUTEX_TIME64;
use crate::support::system::RECVMMSG;
use crate::support::{Service, limits};
use libc::seccomp_data;

both_apis_alone![
    descriptors_are_made_with_close_on_exec,
    descriptors_of_the_library_do_not_survive_exec,
    waits_do_not_depend_on_the_wall_clock,
];

/// Prints the descriptors of a shell: lines that end with "-> FILE".
fn list() -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ls -l /proc/$$/fd; echo '-> end'"]);
    shell
}

/// Whether the library may have opened the file. The others are the streams of a helper.
fn is_of_library(file: &str) -> bool {
    !file.is_empty() && !file.starts_with("pipe:") && !file.starts_with("/dev/")
}

/// The files of this kind that a program inherits from this process.
fn inherited() -> BTreeSet<String> {
    let output = list().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let files = text.lines().filter_map(|line| Some(line.split_once("-> ")?.1.to_owned()));
    files.filter(|file| is_of_library(file) && file != "end").collect()
}

/// T4: a program that replaces this one, or that this one starts, inherits no descriptor of
/// the library, whatever objects and threads exist.
fn descriptors_of_the_library_do_not_survive_exec<A: Handshakes>() {
    if process::role().is_some() {
        let before = inherited();
        let _all = Everything::<A>::new();
        assert_eq!(inherited(), before);
        before.iter().for_each(|line| report(line));
        report("exec");
        panic!("{}", list().exec());
    }
    let test = test_name!(A, "descriptors_of_the_library_do_not_survive_exec");
    let helper = Helper::start(&test, "p");
    let lines = |last: &str| {
        let lines = std::iter::repeat_with(|| helper.next_line());
        lines.take_while(|line| line != last).filter(|line| is_of_library(line)).collect()
    };
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (lines("exec"), lines("end"));
    assert_eq!(after, before);
}

/// Makes one object of each kind, and returns the system calls among `calls` that are wrong.
fn wrong_calls<A: Handshakes>(
    calls: &[(libc::c_long, Option<(u32, libc::c_int)>)],
    is_wrong: fn(&seccomp_data) -> bool,
) -> Vec<(i32, [u64; 6])> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let finds = found.clone();
    limits::supervise_with(calls, move |call| {
        if is_wrong(call) {
            finds.lock().unwrap().push((call.nr, call.args));
        }
        None
    });
    let all = Everything::<A>::new();
    // Also the calls at the end of the services.
    all.events.stop();
    all.threads.stop();
    found.lock().unwrap().clone()
}

/// T4: each system call that creates a descriptor also sets FD_CLOEXEC. Otherwise a program that
/// another thread starts in the meantime would inherit the descriptor.
fn descriptors_are_made_with_close_on_exec<A: Handshakes>() {
    use libc::*;
    let calls = [
        SYS_socket,
        SYS_socketpair,
        #[cfg(not(any(target_arch = "x86", target_arch = "s390x")))]
        SYS_accept,
        SYS_accept4,
        SYS_epoll_create1,
        SYS_eventfd2,
        SYS_timerfd_create,
        SYS_pipe2,
        SYS_dup,
        SYS_dup3,
        SYS_fcntl,
        SYS_openat,
        SYS_recvmsg,
        RECVMMSG,
        SYS_memfd_create,
        #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
        SYS_open,
        #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
        SYS_pipe,
        #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
        SYS_dup2,
    ];
    let wrong = wrong_calls::<A>(&calls.map(|call| (call, None)), |call| {
        let lacks = |argument: usize, flag: c_int| call.args[argument] & flag as u64 == 0;
        match c_long::from(call.nr) {
            SYS_socket | SYS_socketpair => lacks(1, SOCK_CLOEXEC),
            SYS_accept4 => lacks(3, SOCK_CLOEXEC),
            SYS_epoll_create1 => lacks(0, EPOLL_CLOEXEC),
            SYS_eventfd2 => lacks(1, EFD_CLOEXEC),
            SYS_timerfd_create => lacks(1, TFD_CLOEXEC),
            SYS_pipe2 => lacks(1, O_CLOEXEC),
            SYS_dup3 | SYS_openat => lacks(2, O_CLOEXEC),
            // musl opens files with it.
            #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
            SYS_open => lacks(1, O_CLOEXEC),
            SYS_fcntl => call.args[1] == F_DUPFD as u64,
            SYS_recvmsg => lacks(2, MSG_CMSG_CLOEXEC),
            RECVMMSG => lacks(3, MSG_CMSG_CLOEXEC),
            SYS_memfd_create => call.args[1] & u64::from(MFD_CLOEXEC) == 0,
            _ => true,
        }
    });
    assert_eq!(wrong, []);
}

/// C1: the kernel's clock of each wait is monotonic. A change of CLOCK_REALTIME moves no deadline.
fn waits_do_not_depend_on_the_wall_clock<A: Handshakes>() {
    use libc::*;
    // Waits with a limit of time (futex(2)). FUTEX_CLOCK_REALTIME is 256, FUTEX_PRIVATE_FLAG is 128.
    let futex = |operation| (SYS_futex, Some((1, operation)));
    #[cfg(target_pointer_width = "32")]
    let futex_64 = |operation| (FUTEX_TIME64, Some((1, operation)));
    let calls = [
        futex(FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME),
        futex(FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | FUTEX_PRIVATE_FLAG),
        (SYS_timerfd_create, None),
        (SYS_clock_nanosleep, None),
        #[cfg(target_pointer_width = "32")]
        futex_64(FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME),
        #[cfg(target_pointer_width = "32")]
        futex_64(FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | FUTEX_PRIVATE_FLAG),
    ];
    let wrong = wrong_calls::<A>(&calls, |call| match c_long::from(call.nr) {
        SYS_futex => call.args[3] != 0,
        #[cfg(target_pointer_width = "32")]
        FUTEX_TIME64 => call.args[3] != 0,
        SYS_timerfd_create => call.args[0] == CLOCK_REALTIME as u64,
        // A relative time does not depend on a change of the clock.
        _ => call.args[0] == CLOCK_REALTIME as u64 && call.args[1] & TIMER_ABSTIME as u64 != 0,
    });
    assert_eq!(wrong, []);
}
