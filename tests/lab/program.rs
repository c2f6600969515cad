//! Programs of other makes beside a lab.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::Network;
use super::run::{cannot, end_with_parent};

/// A program in one of the lab's networks: it is told by lines what to do, and prints lines. Killed
/// when dropped.
pub struct Program {
    name: String,
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Program {
    /// Without such a program on this machine the lab is skipped.
    pub fn start(network: &Network, words: &[&str]) -> Program {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut enter = network.entrance();
        let prepare = move || {
            enter()?;
            end_with_parent(Duration::from_secs(60));
            Ok(())
        };
        // SAFETY: setns(2), prctl(2) and alarm(2) are all that runs between fork and exec; they
        // allocate nothing and take no lock.
        unsafe { command.pre_exec(prepare) };
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) if e.kind() == ErrorKind::NotFound => cannot(&format!("no {}", words[0])),
            Err(e) => panic!("{words:?}: {e}"),
        };
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).all(|line| send.send(line).is_ok())
        });
        Program { name: words[0].to_owned(), input: child.stdin.take().unwrap(), child, lines }
    }

    /// Its next line.
    pub fn hear(&self) -> String {
        match self.lines.recv_timeout(Duration::from_secs(10)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} said nothing for 10 s", self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} ended", self.name),
        }
    }

    /// In one write: what it sends on may be a datagram for each.
    pub fn tell(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
