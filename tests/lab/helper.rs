//! A second process of a lab.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::Network;
use super::run::{again, end_with_parent};

/// Set in a [`Helper`]: its part.
const ROLE: &str = "KEEPSOCK_LAB_ROLE";

/// This test program once more, in the same test, as somebody else: its lines
/// and ours are how the two talk. Killed when dropped.
pub struct Helper {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

/// The part that this process plays, if it is a [`Helper`].
pub fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok();
    if role.is_some() {
        end_with_parent(Duration::from_secs(60));
    }
    role
}

/// As [`role`], of a process that outlives the one that started it: its successors do.
pub fn lasting_role() -> Option<String> {
    let role = std::env::var(ROLE).ok();
    if role.is_some() {
        // SAFETY: no memory is passed.
        unsafe { libc::alarm(60) };
    }
    role
}

/// A helper's answer to the process that started it.
pub fn tell(line: &str) {
    println!("> {line}");
}

/// A helper waits for what it is to do next; `None`: nothing more.
pub fn told() -> Option<String> {
    let mut line = String::new();
    let n = std::io::stdin().read_line(&mut line).unwrap();
    (n > 0).then(|| line.trim_end().to_owned())
}

impl Helper {
    pub fn start(test: &str, role: &str) -> Helper {
        Helper::start_command(again(test, &[]), role)
    }

    /// The same in another network. It is forked by this thread and not by one
    /// that was moved there: it is to end with this one (PR_SET_PDEATHSIG in
    /// prctl(2) means the thread that forked).
    pub fn start_in(network: &Network, test: &str, role: &str) -> Helper {
        let mut command = again(test, &[]);
        let enter = network.entrance();
        // SAFETY: setns(2) is all that runs between fork and exec; it allocates
        // nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        Helper::start_command(command, role)
    }

    /// Started as a service manager does it: with these descriptors from 3 on, and variables
    /// that tell of them.
    pub fn start_activated(
        test: &str,
        role: &str,
        descriptors: Vec<OwnedFd>,
        variables: &[(&str, &str)],
    ) -> Helper {
        // The shell knows the number that the program will have.
        let mut command = again(test, &["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"]);
        command.env("LISTEN_FDS", descriptors.len().to_string());
        command.envs(variables.iter().copied());
        // Above all numbers that are about to be given.
        let lifted: Vec<OwnedFd> = descriptors.into_iter().map(lift).collect();
        // SAFETY: dup2(2) is all that runs between fork and exec.
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

    /// A part of another program, which starts this one: `words` are before its name.
    pub fn start_by(words: &[&str], test: &str, role: &str) -> Helper {
        Helper::start_command(again(test, words), role)
    }

    fn start_command(mut command: Command, role: &str) -> Helper {
        command.env(ROLE, role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let (send, lines) = mpsc::channel();
        thread::spawn(move || forward(output, &send));
        Helper { input: child.stdin.take().unwrap(), child, lines }
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub fn hear(&self) -> String {
        match self.lines.recv_timeout(Duration::from_secs(10)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the helper said nothing for 10 s"),
            Err(RecvTimeoutError::Disconnected) => panic!("the helper ended"),
        }
    }

    /// SIGSTOP: the program hangs, its kernel goes on answering for it. Returns
    /// when it has stopped.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let mut status = 0;
        // SAFETY: the kernel writes one int. A child that has only stopped is
        // not collected: Child waits for it later as if nothing had been.
        let stopped = unsafe { libc::waitpid(self.pid(), &raw mut status, libc::WUNTRACED) };
        assert!(stopped == self.pid() && libc::WIFSTOPPED(status), "it ended: {status}");
    }

    /// SIGCONT: it goes on where it was stopped.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: no memory is passed; the child is not collected yet, so the
        // number is its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    fn pid(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).unwrap()
    }

    /// SIGKILL: it has no chance to tidy up.
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

/// The same with a number that no program expects to be free.
pub fn lift(fd: OwnedFd) -> OwnedFd {
    // SAFETY: no memory is passed, and the descriptor is new and ours.
    unsafe {
        let lifted = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 50);
        assert!(lifted >= 0);
        OwnedFd::from_raw_fd(lifted)
    }
}

/// Passes on what the helper says, not what the test harness prints around it.
fn forward(output: ChildStdout, send: &mpsc::Sender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        // The harness leaves its "test name ... " unended before the first one.
        if let Some((_, said)) = line.split_once("> ") {
            let _ = send.send(said.to_owned());
        }
    }
}
