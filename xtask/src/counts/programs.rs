//! The programs whose costs are counted, and how they are compiled and started.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::abi_check;
use crate::run::{self, MINUTE, Reader, Workspace, capture, create_dir};
use crate::steps::Stop;
use crate::tools::{self, Library};

/// Enough repetitions that one or two additional calls do not change the first decimal.
const CYCLES: u64 = 400;
/// More repetitions for servers that start a varying number of threads at first.
const CYCLES_AT_ONCE: u64 = 2000;
const ECHOES: u64 = 1000;
const ECHOES_ON_EACH: u64 = 40;
/// Enough repetitions that the varying number of calls for the connects does not change the result.
const BROADCASTS: u64 = 20;
const BATCHES: u64 = 200;

/// All connections are on loopback. The start of valgrind takes most of the time.
const START_LIMIT: Duration = Duration::from_secs(30);
pub const RUN_LIMIT: Duration = Duration::from_secs(90);

/// The work of a program: of a server, of a client, or of one thread that has both ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Connect, send one byte, receive one byte, close.
    Cycle { at_once: u64 },
    /// Echo 64 bytes on an open connection. The blocking servers have a read timeout.
    Echo { connections: u64 },
    /// Echo 64 bytes on an open connection while the server's connects to a full queue are pending.
    EchoDuringConnects { connects: u64 },
    /// Send 64 bytes to each of the clients.
    Broadcast { clients: u64 },
    /// Hold that number of idle connections, and then twice the number.
    Idle { connections: u64 },
    /// Connect to a numeric address with five options and a deadline, and close.
    Connect,
    /// Connect to `localhost` with the same options, and close. The server listens on 127.0.0.1
    /// only, so the attempt to `::1` is refused.
    ConnectByName,
    /// Send and receive 64 bytes on an open connection that has a read timeout.
    RoundTrip,
    /// A non-blocking read that would block, without an error object.
    WouldBlock { datagram: bool },
    /// Send and receive 64 UDP datagrams in one thread: each of 64 bytes, or of increasing lengths,
    /// which the kernel cannot combine into one segment.
    Datagrams { equal: bool },
    /// Send a UDP datagram and receive the answer, for which the receive waits: with a read timeout, or
    /// with a cancel token. A thread in plain C answers with two system calls.
    Wait { token: bool },
    /// Receive 16 UDP datagrams in a service. Plain C sends them with one system call.
    Served,
}

pub const CYCLE: Work = Work::Cycle { at_once: 1 };
pub const CYCLE_64: Work = Work::Cycle { at_once: 64 };
pub const ECHO: Work = Work::Echo { connections: 1 };
pub const ECHO_64: Work = Work::Echo { connections: 64 };
pub const ECHO_CONNECTS: Work = Work::EchoDuringConnects { connects: 100 };
pub const BROADCAST: Work = Work::Broadcast { clients: 500 };
pub const IDLE: Work = Work::Idle { connections: 5000 };
/// Servers with a thread for each connection.
pub const IDLE_THREADS: Work = Work::Idle { connections: 500 };
pub const BLOCKED: Work = Work::WouldBlock { datagram: false };
pub const BLOCKED_DATAGRAM: Work = Work::WouldBlock { datagram: true };
pub const EQUAL: Work = Work::Datagrams { equal: true };
pub const WAIT: Work = Work::Wait { token: false };
pub const WAIT_TOKEN: Work = Work::Wait { token: true };
pub const UNEQUAL: Work = Work::Datagrams { equal: false };

impl Work {
    pub fn name(self) -> String {
        match self {
            Self::Cycle { at_once: 1 } => "cycle".to_owned(),
            Self::Cycle { at_once } => format!("cycle, {at_once} at once"),
            Self::Echo { connections: 1 } => "echo".to_owned(),
            Self::Echo { connections } => format!("echo, {connections} clients"),
            Self::EchoDuringConnects { connects } => format!("echo, {connects} connects"),
            Self::Broadcast { .. } => "broadcast".to_owned(),
            Self::Idle { .. } => "idle connection".to_owned(),
            Self::Connect => "connect, close".to_owned(),
            Self::ConnectByName => "connect by name".to_owned(),
            Self::RoundTrip => "round trip".to_owned(),
            Self::WouldBlock { datagram: false } => "would block".to_owned(),
            Self::WouldBlock { datagram: true } => "would block, UDP".to_owned(),
            Self::Datagrams { equal: true } => "64 datagrams".to_owned(),
            Self::Datagrams { equal: false } => "64 unequal ones".to_owned(),
            Self::Wait { token: false } => "wait, UDP".to_owned(),
            Self::Wait { token: true } => "wait, UDP, token".to_owned(),
            Self::Served => "16 served".to_owned(),
        }
    }

    pub fn repeats(self) -> u64 {
        match self {
            Self::Cycle { at_once: 1 } | Self::Connect | Self::ConnectByName => CYCLES,
            Self::Cycle { .. } => CYCLES_AT_ONCE,
            Self::Echo { connections: 1 }
            | Self::EchoDuringConnects { .. }
            | Self::RoundTrip
            | Self::Wait { .. }
            | Self::WouldBlock { .. } => ECHOES,
            Self::Echo { connections } => ECHOES_ON_EACH * connections,
            Self::Broadcast { clients } => BROADCASTS * clients,
            Self::Idle { connections } => connections,
            Self::Datagrams { .. } | Self::Served => BATCHES,
        }
    }

    /// The number of connections in a run.
    pub fn connections(self, repeats: u64) -> u64 {
        match self {
            Self::Cycle { .. } | Self::Connect | Self::ConnectByName | Self::Idle { .. } => repeats,
            Self::Echo { connections } => connections,
            Self::Broadcast { clients } => clients,
            Self::RoundTrip | Self::EchoDuringConnects { .. } => 1,
            Self::Datagrams { .. } | Self::Wait { .. } | Self::Served | Self::WouldBlock { .. } => {
                0
            }
        }
    }

    pub fn read_timeout_ms(self) -> u64 {
        if matches!(self, Self::Echo { .. } | Self::RoundTrip) { 10_000 } else { 0 }
    }
}

/// A program whose costs are counted.
pub struct Program {
    pub label: &'static str,
    pub name: &'static str,
    pub works: &'static [Work],
    /// The library that the program needs. Without the library the program is left out.
    library: Option<&'static Library>,
}

const SERVER: &[Work] = &[CYCLE, ECHO];
const THREADED_SERVER: &[Work] = &[CYCLE, CYCLE_64, ECHO, IDLE_THREADS];
const EVENT_SERVER: &[Work] = &[CYCLE, CYCLE_64, ECHO, ECHO_64, IDLE, BROADCAST];
const KEEP_EVENT_SERVER: &[Work] =
    &[CYCLE, CYCLE_64, ECHO, ECHO_64, ECHO_CONNECTS, IDLE, BROADCAST];
/// These libraries have no broadcast: the program keeps the list of its connections.
const LIBEVENT_SERVER: &[Work] = &[CYCLE, CYCLE_64, ECHO, ECHO_64, IDLE];
const CLIENT: &[Work] = &[Work::Connect, Work::RoundTrip];
const CLIENT_BY_NAME: &[Work] = &[Work::Connect, Work::ConnectByName, Work::RoundTrip];
const BY_NAME: &[Work] = &[Work::ConnectByName];
const WOULD_BLOCK: &[Work] = &[BLOCKED, BLOCKED_DATAGRAM];
const DATAGRAMS: &[Work] = &[EQUAL, UNEQUAL];
const WAITS: &[Work] = &[WAIT, WAIT_TOKEN];
const SERVED: &[Work] = &[Work::Served];
/// The kernel splits a segment into datagrams of equal length only.
const SEGMENTS: &[Work] = &[EQUAL];

const fn program(label: &'static str, name: &'static str, works: &'static [Work]) -> Program {
    Program { label, name, works, library: None }
}

impl Program {
    const fn with(mut self, library: &'static Library) -> Self {
        self.library = Some(library);
        self
    }
}

pub const PROGRAMS: [Program; 28] = [
    program("plain C, blocking accept", "raw_accept", SERVER),
    program("keepsock, blocking accept", "keep_accept", SERVER),
    program("plain C, thread for each", "raw_threads", THREADED_SERVER),
    program("Rust std, thread for each", "std_threads", THREADED_SERVER),
    program("keepsock, serve", "keep_threads", THREADED_SERVER),
    program("plain C, epoll", "raw_epoll", EVENT_SERVER),
    program("libuv", "uv_events", EVENT_SERVER).with(&tools::LIBUV),
    program("libevent", "libevent_events", LIBEVENT_SERVER).with(&tools::LIBEVENT),
    program("keepsock, serve_events", "keep_events", KEEP_EVENT_SERVER),
    program("plain C, no deadline", "raw_connect", CLIENT),
    program("plain C, kernel's timeouts", "raw_connect_timed", CLIENT),
    program("Rust std", "std_connect", CLIENT),
    program("libcurl, easy interface", "curl_connect", CLIENT).with(&tools::LIBCURL),
    program("plain C, getaddrinfo", "raw_connect_name", BY_NAME),
    program("keepsock", "keep_connect", CLIENT_BY_NAME),
    program("plain C, sendto, recvfrom", "raw_sendto", DATAGRAMS),
    program("plain C, send, recv", "raw_send", DATAGRAMS),
    program("plain C, sendmmsg, recvmmsg", "raw_sendmmsg", DATAGRAMS),
    program("plain C, segments", "raw_segment", SEGMENTS),
    program("plain C, segments of pieces", "raw_pieces", SEGMENTS),
    program("plain C, segments and GRO", "raw_coalesce", SEGMENTS),
    program("keepsock, one by one", "keep_datagram", DATAGRAMS),
    program("keepsock, batches", "keep_batch", DATAGRAMS),
    program("keepsock, batches, GRO", "keep_coalesce", SEGMENTS),
    program("plain C, UDP with a timeout", "raw_wait", WAITS),
    program("keepsock, UDP with a timeout", "keep_wait", WAITS),
    program("keepsock, datagram service", "keep_served", SERVED),
    program("keepsock, non-blocking", "keep_blocked", WOULD_BLOCK),
];

/// The compiled programs.
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    pub fn prepare(ws: &Workspace) -> Result<Self, Stop> {
        let programs = Self { folder: ws.target.join("counts") };
        create_dir(&programs.folder)?;
        let library = abi_check::build(ws)?;
        for name in ["load", "hold"] {
            programs.compile(ws, &library, name, &[])?;
        }
        for program in &PROGRAMS {
            let flags = program.library.map_or_else(|| Ok(Vec::new()), |library| library.flags(ws));
            match flags {
                Ok(flags) => programs.compile(ws, &library, program.name, &flags)?,
                Err(why) => {
                    println!("{} is left out: {why}", program.label);
                    // A program of an earlier run may use another version of the library.
                    let _ = fs::remove_file(programs.file(program.name));
                }
            }
        }
        Ok(programs)
    }

    fn compile(
        &self,
        ws: &Workspace,
        library: &Path,
        name: &str,
        flags: &[String],
    ) -> Result<(), String> {
        let is_rust = name.starts_with("std");
        let source = ws.root.join("benches").join("counts").join(name);
        let mut compile = ws.command(if is_rust { "rustc".into() } else { tools::c_compiler()? });
        compile.arg("-o").arg(self.file(name));
        if is_rust {
            compile.args(["-O", "--edition", "2024"]).arg(source.with_extension("rs"));
        } else {
            compile.args(["-O2", "-Wall", "-Wextra", "-pthread"]).arg(source.with_extension("c"));
        }
        if name.starts_with("keep") {
            abi_check::link(ws, library, &mut compile)?;
        }
        capture(compile.args(flags), 2 * MINUTE).map(|_| ())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether the program could be compiled.
    pub fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    /// The arguments of a server that ends after that number of repetitions.
    pub fn server_arguments(name: &str, work: Work, repeats: u64) -> Vec<String> {
        let mut arguments =
            vec![work.connections(repeats).to_string(), work.read_timeout_ms().to_string()];
        match work {
            // The budget is for connections with every option that needs memory.
            Work::Idle { .. } if name == "keep_events" => arguments.push("limits".to_owned()),
            Work::EchoDuringConnects { connects } => {
                arguments.extend(["connects".to_owned(), connects.to_string()]);
            }
            _ => {}
        }
        arguments
    }
}

/// The argument for `benches/counts/datagram.h`.
pub fn length_of(equal: bool) -> &'static str {
    if equal { "equal" } else { "unequal" }
}

/// A program that runs until its end, or until this value is dropped.
struct Process {
    child: Child,
    stdout: Reader,
    stderr: Reader,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self, String> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| format!("cannot start `{}`: {e}", run::line_of(command)))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(format!("`{}` has no pipes", run::line_of(command)));
        };
        let (stdout, stderr) = (Reader::start(stdout, false), Reader::start(stderr, false));
        Ok(Self { child, stdout, stderr })
    }

    /// Waits until `look` finds a value in the program's output.
    fn wait_for<T>(
        &mut self,
        limit: Duration,
        look: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let found = run::wait_for(limit, || {
            // The output first: a program that has ended may have printed the value before.
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            look(&self.stdout.text()).map(Some).or(ended.then_some(None))
        });
        found.flatten().ok_or_else(|| self.failure("did not print the expected output"))
    }

    /// Waits until the program has ended. An exit status other than 0 is an error.
    fn finish(&mut self) -> Result<(), String> {
        match run::wait(&mut self.child, RUN_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failure(&format!("ended with {status}"))),
            None => Err(self.failure("does not end")),
        }
    }

    /// An error with the program's error output.
    fn failure(&self, what: &str) -> String {
        format!("it {what}\n{}", self.stderr.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            run::kill_tree(&mut self.child);
        }
    }
}

/// A running server.
pub struct Server {
    process: Process,
    pub port: u16,
}

impl Server {
    /// Starts the server, and waits until it has printed its port.
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let mut process =
            Process::start(command.stdin(Stdio::null())).map_err(|e| format!("the server: {e}"))?;
        let port =
            process.wait_for(START_LIMIT, port_of).map_err(|e| format!("the server: {e}"))?;
        Ok(Self { process, port })
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Waits until the server has ended. Its clients must have ended without an error before.
    pub fn finish<T>(mut self, clients: Result<T, String>) -> Result<T, String> {
        let value = clients
            .map_err(|e| format!("{e}\n{}", self.process.failure("served these clients")))?;
        self.process.finish().map_err(|e| format!("the server: {e}"))?;
        Ok(value)
    }
}

/// A program that reads one command per line, and answers each by one line.
pub struct Worker {
    process: Process,
    orders: Option<ChildStdin>,
    answers: usize,
}

impl Worker {
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let mut process = Process::start(command.stdin(Stdio::piped()))?;
        let orders = process.child.stdin.take();
        Ok(Self { process, orders, answers: 0 })
    }

    /// Sends a command and returns the answer.
    pub fn order(&mut self, what: &str) -> Result<String, String> {
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{what}").map_err(|e| format!("`{what}`: {e}"))?;
        }
        self.answer()
    }

    /// The next line of its output.
    fn answer(&mut self) -> Result<String, String> {
        let before = self.answers;
        self.answers += 1;
        let whole = |line: &str| line.strip_suffix('\n').map(str::to_owned);
        self.process
            .wait_for(RUN_LIMIT, |said| said.split_inclusive('\n').nth(before).and_then(whole))
    }

    pub fn finish(mut self) -> Result<(), String> {
        self.orders = None;
        self.process.finish()
    }
}

/// Clients that stay connected and obey commands: `benches/counts/hold.c`.
pub struct Held(Worker);

impl Held {
    /// Starts the clients, and waits until each has connected and received one echo.
    pub fn open(command: &mut Command, port: u16, connections: u64) -> Result<Self, String> {
        let mut held =
            Self(Worker::start(command.args([port.to_string(), connections.to_string()]))?);
        held.0.answer().map_err(|e| format!("the clients: {e}"))?;
        Ok(held)
    }

    /// Sends a command and waits for the answer.
    pub fn order(&mut self, what: &str, times: u64) -> Result<(), String> {
        let done = self.0.order(&format!("{what} {times}"));
        done.map(|_| ()).map_err(|e| format!("the clients: {e}"))
    }

    pub fn close(self) -> Result<(), String> {
        self.0.finish().map_err(|e| format!("the clients: {e}"))
    }
}

fn port_of(output: &str) -> Option<u16> {
    output.lines().find_map(|line| line.strip_prefix("port ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_of_reads_the_printed_port() {
        assert_eq!(port_of("port 4711\n"), Some(4711));
        assert_eq!(port_of("4711\n"), None);
    }

    #[test]
    fn wait_for_ends_when_the_program_has_ended() {
        let started = std::time::Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo reason >&2; exit 3"]);
        let error = Server::start(&mut command).err().unwrap();
        assert!(error.contains("did not print"), "{error}");
        assert!(started.elapsed() < START_LIMIT / 2);
    }
}
