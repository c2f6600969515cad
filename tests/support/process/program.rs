//! Other programs.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::super::netns::Network;
use super::{cannot, end_with_parent};

/// The time that no expected event takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that reads commands and prints lines. Killed when dropped.
pub struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Program {
    /// Starts a program in one of the test's networks. If the program is not installed, the test is skipped.
    pub fn start(network: &Network, words: &[&str]) -> Program {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        // SAFETY: only setns(2) runs between fork and exec. It allocates no memory and takes no
        // lock.
        unsafe { command.pre_exec(network.entrance()) };
        match Program::spawn(&mut command) {
            Ok(program) => program,
            Err(e) if e.kind() == ErrorKind::NotFound => cannot(&format!("no {}", words[0])),
            Err(e) => panic!("{words:?}: {e}"),
        }
    }

    pub fn spawn(command: &mut Command) -> io::Result<Program> {
        let name = command.get_program().to_string_lossy().into_owned();
        let prepare = || {
            end_with_parent(Duration::from_secs(180));
            Ok(())
        };
        // SAFETY: prctl(2) and alarm(2) are all that runs between fork and exec; they allocate
        // nothing and take no lock.
        unsafe { command.pre_exec(prepare) };
        let mut child = super::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.all(|line| send.send(line).is_ok())
        });
        Ok(Program { name, child, input, lines })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its next line.
    #[track_caller]
    pub fn next_line(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} said nothing for 30 s", self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} ended", self.name),
        }
    }

    /// In one write: what it sends on may be a datagram for each.
    pub fn send_line(&mut self, line: &str) {
        self.input.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// When its input ends, without another line.
    #[track_caller]
    pub fn ends_well(mut self) {
        drop(self.input.take());
        assert_eq!(self.lines.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
