//! Processes that a test starts: its own body in a new process, a second process of the same test,
//! and other programs.
//!
//! A test that calls [`in_process`] with its own name (see [`test_name!`]) is started again as a new
//! process of this test program, for that one test; the body runs there. The process has a time
//! limit and is killed when the test that started it ends.

// It makes system calls that the standard library does not have.
#![allow(unsafe_code)]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::timing::ms;

mod helper;
mod program;

pub use helper::{Helper, ROLE, lasting_role, lift, next_command, report, role};
pub use program::Program;

/// Set in the process that a test starts for its body: the name of the test.
const INSIDE: &str = "KEEPSOCK_TEST_INSIDE";
const DONE: &str = "test process: done";
const SKIP: &str = "test process: skip: ";

/// The least time limit of a process: a busy machine delays a test that does not hang by a factor.
const LEAST_LIMIT: Duration = Duration::from_secs(240);

/// Runs `body` in a process of its own. For tests that depend on the state of the whole process. The
/// process is killed after `limit`, or after [`LEAST_LIMIT`] if that is longer.
pub fn in_process(test: &str, limit: Duration, body: impl FnOnce()) {
    isolated(test, limit, || Ok(vec![]), body);
}

/// Runs `body` in a new process of this test program. `prefix` returns the command that starts the
/// process, or the reason why the test is skipped; it is called in the parent only.
pub(super) fn isolated(
    test: &str,
    limit: Duration,
    prefix: impl FnOnce() -> Result<Vec<&'static str>, String>,
    body: impl FnOnce(),
) {
    let limit = limit.max(LEAST_LIMIT);
    if is_inside(test) {
        end_with_parent(limit);
        body();
        println!("{DONE}");
        return;
    }
    let prefix = match prefix() {
        Ok(words) => words,
        Err(reason) => return skip(test, &reason),
    };
    let mut command = again(test, &prefix);
    command.env(INSIDE, test).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(&mut command).unwrap();
    let (send, output) = mpsc::channel();
    let streams: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    for mut stream in streams {
        let send = send.clone();
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            let _ = send.send(String::from_utf8_lossy(&text).into_owned());
        });
    }
    // Both streams end with the child.
    let until = Instant::now() + limit;
    let mut text = String::new();
    for _ in 0..2 {
        match output.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(more) => text.push_str(&more),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                // The killed process has closed its streams. Its output shows its progress.
                while let Ok(more) = output.recv_timeout(ms(1000)) {
                    text.push_str(&more);
                }
                panic!("{test}: the process did not end within {limit:?}\n{text}");
            }
        }
    }
    let status = child.wait().unwrap();
    if let Some((_, reason)) = text.split_once(SKIP) {
        return skip(test, reason.lines().next().unwrap_or(""));
    }
    assert!(status.success(), "{test}: the process failed: {status}\n{text}");
    print!("{text}");
    assert!(text.contains(DONE), "{test}: the process ran no test: is the name right?\n{text}");
}

/// Whether this process was started for the body of that test.
pub(super) fn is_inside(test: &str) -> bool {
    std::env::var(INSIDE).is_ok_and(|name| name == test)
}

static STARTS: RwLock<()> = RwLock::new(());

/// Starts a program, but not while a test holds [`no_starts`].
pub fn start(command: &mut Command) -> std::io::Result<Child> {
    let _alone = starts();
    command.spawn()
}

/// A test that starts a program by a call of the library holds the result, so that no test holds
/// [`no_starts`] during the call.
pub fn starts() -> RwLockWriteGuard<'static, ()> {
    STARTS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Until execve(2) a new process has a copy of each descriptor of this process, so a socket that a test
/// closes stays open until then. A test that does not wait for the effect of a close holds the result.
/// It must not start a program.
pub fn no_starts() -> RwLockReadGuard<'static, ()> {
    STARTS.read().unwrap_or_else(PoisonError::into_inner)
}

/// This test program again, for one test.
pub(super) fn again(test: &str, prefix: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    // An emulator does not emulate the programs that a program starts.
    let emulator = std::env::var("KEEPSOCK_EMULATOR").unwrap_or_default();
    let mut words = prefix.iter().copied().chain(emulator.split_whitespace());
    let mut command = match words.next() {
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// The process is killed when the thread that started it ends. An alarm is the fallback.
pub(super) fn end_with_parent(limit: Duration) {
    // SAFETY: neither call passes memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(u32::try_from(limit.as_secs()).unwrap() + 5);
    }
}

fn skip(test: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: skipped: {reason}");
    println!("{test}: skipped: {reason}");
}

/// Skips the test: this machine cannot run it.
pub fn cannot(reason: &str) -> ! {
    // Without a process of its own, a test would end the other tests of the program.
    assert!(std::env::var_os(INSIDE).is_some(), "this machine cannot run the test: {reason}");
    println!("{SKIP}{reason}");
    std::process::exit(0);
}

/// Runs `body` in a forked child, and returns its exit status, which is what `body` returns.
pub fn in_a_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs as the test does, on the C library's own fork handlers, and ends
    // without what a process does at its end.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            libc::_exit(body());
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status), "wait status {status:#x}");
        libc::WEXITSTATUS(status)
    }
}
