//! The body of a test in a new process: the part of `process/mod.rs` that Windows has.

use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::skip;

/// Set in the process that a test starts for its body: the name of the test.
const INSIDE: &str = "KEEPSOCK_TEST_INSIDE";
const DONE: &str = "test process: done";

/// Starts a program.
pub fn start(command: &mut Command) -> std::io::Result<std::process::Child> {
    command.spawn()
}

/// Runs `body` in a process of its own. For tests that depend on the state of the whole process. The
/// process ends itself after `limit`, or after four minutes if that is longer.
pub fn in_process(test: &str, limit: Duration, body: impl FnOnce()) {
    let limit = limit.max(Duration::from_secs(240));
    if std::env::var(INSIDE).is_ok_and(|name| name == test) {
        std::thread::spawn(move || {
            std::thread::sleep(limit);
            std::process::abort();
        });
        body();
        println!("{DONE}");
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env(INSIDE, test).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if let Some((_, reason)) = text.split_once(super::SKIPPED) {
        skip(reason.lines().next().unwrap_or(""));
    }
    assert!(output.status.success(), "{test}: the process failed\n{text}\n{errors}");
    assert!(text.contains(DONE), "{test}: the process ran no test\n{text}\n{errors}");
}

/// Skips the test: this machine cannot run it.
pub fn cannot(reason: &str) -> ! {
    skip(reason)
}

/// A second process of a test. A test that starts one is skipped.
pub struct Helper;

impl Helper {
    pub fn start(_: &str, _: &str) -> Helper {
        skip("no test starts a second process on Windows")
    }

    pub fn next_line(&self) -> String {
        skip("no test starts a second process on Windows")
    }

    pub fn send_line(&mut self, _: &str) {}

    pub fn stop(&self) {}

    pub fn resume(&self) {}
}

/// No process of a test is a [`Helper`].
pub fn role() -> Option<String> {
    None
}

pub fn report(_: &str) {}

pub fn next_command() -> Option<String> {
    None
}

/// Another program. Windows runs none for a test.
pub struct Program;

impl Program {
    pub fn spawn(_: &mut Command) -> std::io::Result<Program> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

static STARTS: RwLock<()> = RwLock::new(());

/// See the functions of the same names for Unix.
pub fn starts() -> RwLockWriteGuard<'static, ()> {
    STARTS.write().unwrap_or_else(PoisonError::into_inner)
}

pub fn no_starts() -> RwLockReadGuard<'static, ()> {
    STARTS.read().unwrap_or_else(PoisonError::into_inner)
}
