//! A second process of a test.

#![allow(unsafe_code)] // prctl(2), setns(2), dup2(2)

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::super::netns::Network;
use super::{again, end_with_parent, start};

/// The environment variable with the part of a [`Helper`].
pub const ROLE: &str = "KEEPSOCK_TEST_ROLE";

/// A helper ends after this time, so that it does not outlive a test that was killed.
const LIFETIME: Duration = Duration::from_secs(180);

/// This test program in the same test as another process. The two processes communicate by lines.
/// Killed when dropped.
pub struct Helper {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

/// The part of this process, if it is a [`Helper`].
pub fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok();
    if role.is_some() {
        end_with_parent(LIFETIME);
    }
    role
}

/// As [`role`], for a process that outlives its parent, as successors do.
pub fn lasting_role() -> Option<String> {
    let role = std::env::var(ROLE).ok();
    if role.is_some() {
        // SAFETY: no memory is passed.
        unsafe { libc::alarm(LIFETIME.as_secs() as u32) };
    }
    role
}

/// Sends a line from a helper to the process that started it.
pub fn report(line: &str) {
    println!("> {line}");
}

/// Waits for the next command of a helper. `None`: no further command.
pub fn next_command() -> Option<String> {
    let mut line = String::new();
    let n = std::io::stdin().read_line(&mut line).unwrap();
    (n > 0).then(|| line.trim_end().to_owned())
}

impl Helper {
    pub fn start(test: &str, role: &str) -> Helper {
        Helper::start_command(again(test, &[]), role)
    }

    /// Starts the helper in another network. This thread forks it, and not a thread that was moved
    /// there, because the helper must end with this thread (PR_SET_PDEATHSIG in prctl(2) refers to
    /// the thread that forked).
    pub fn start_in(network: &Network, test: &str, role: &str) -> Helper {
        let mut command = again(test, &[]);
        let enter = network.entrance();
        // SAFETY: only setns(2) runs between fork and exec. It allocates no memory and takes no
        // lock.
        unsafe { command.pre_exec(enter) };
        Helper::start_command(command, role)
    }

    /// Starts the helper as a service manager does: with these descriptors from 3 on, and the
    /// variables for them.
    pub fn start_activated(
        test: &str,
        role: &str,
        descriptors: Vec<OwnedFd>,
        variables: &[(&str, &str)],
    ) -> Helper {
        // The shell knows the process ID of the program.
        let mut command = again(test, &["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"]);
        command.env("LISTEN_FDS", descriptors.len().to_string());
        command.envs(variables.iter().copied());
        // Above all numbers that will be assigned.
        let lifted: Vec<OwnedFd> = descriptors.into_iter().map(lift).collect();
        // SAFETY: only dup2(2) runs between fork and exec.
        unsafe {
            command.pre_exec(move || {
                for (target, fd) in (3..).zip(&lifted) {
                    if libc::dup2(fd.as_raw_fd(), target) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        Helper::start_command(command, role)
    }

    /// Starts the helper by another program. `words` precede the program's name.
    pub fn start_by(words: &[&str], test: &str, role: &str) -> Helper {
        Helper::start_command(again(test, words), role)
    }

    fn start_command(mut command: Command, role: &str) -> Helper {
        command.env(ROLE, role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = start(&mut command).unwrap();
        let output = child.stdout.take().unwrap();
        let (send, lines) = mpsc::channel();
        thread::spawn(move || forward(output, &send));
        Helper { input: child.stdin.take().unwrap(), child, lines }
    }

    pub fn send_line(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub fn next_line(&self) -> String {
        match self.lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the helper sent no line within 60 s"),
            Err(RecvTimeoutError::Disconnected) => panic!("the helper ended"),
        }
    }

    /// SIGSTOP: the program hangs, and its kernel still responds. Returns when it has stopped.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let mut status = 0;
        // SAFETY: the kernel writes one int. A stopped child is not reaped: Child waits for it
        // later.
        let stopped = unsafe { libc::waitpid(self.pid(), &raw mut status, libc::WUNTRACED) };
        assert!(stopped == self.pid() && libc::WIFSTOPPED(status), "it ended: {status}");
    }

    /// SIGCONT: the program continues.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: no memory is passed. The child is not reaped yet, so the process ID is its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    fn pid(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).unwrap()
    }

    /// Waits until the program has ended by itself.
    pub fn end(mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the helper did not end within 60 s");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGKILL: the program cannot clean up.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Moves a descriptor to a number that no program expects to be free.
pub fn lift(fd: OwnedFd) -> OwnedFd {
    // SAFETY: no memory is passed, and this process owns the new descriptor.
    unsafe {
        let lifted = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 50);
        assert!(lifted >= 0);
        OwnedFd::from_raw_fd(lifted)
    }
}

/// Forwards the lines of the helper, without the output of the test harness.
fn forward(output: ChildStdout, send: &mpsc::Sender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        // The harness prints "test name ... " without a line end before the first line.
        if let Some((_, said)) = line.split_once("> ") {
            let _ = send.send(said.to_owned());
        }
    }
}
