//! `Handover`: passes the sockets of a running server to a successor process.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::note::{FileNote, Note, READY_REPORT, is_valid_name, successor_environment};
#[cfg(feature = "datagram")]
use crate::datagram::DatagramSocket;
use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::io::wait::{Cause, wait};
use crate::listener::ServerSocket;
use crate::log;
use crate::socket_file::{Identity, SharedFile};
use crate::stream::BorrowedSocket;
use crate::sys::{self, FIRST_INHERITED, Interest, Owned, Process, Wait};
use crate::types::endpoint::Endpoint;
use crate::types::error::{Error, ErrorKind, Result, Span};

const OPERATION: &str = "hand over";

/// The time that a process may need to exit after it has closed its descriptors.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval at which [`Handover::start`] checks whether the successor has exited. A process
/// that the successor has started may keep the channel open, and not every system can poll for the
/// exit of a process.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The same interval after the successor has closed the channel. A process closes its descriptors
/// shortly before waitpid(2) reports its exit.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The sockets of the handovers in progress.
static IN_PROGRESS: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

/// Starts a successor of this process that listens on the same sockets, and waits until it serves.
/// The sockets listen without interruption, so no client is refused:
///
/// 1. This process [starts](Handover::start) the successor, and passes the listening sockets to it
///    as systemd does. The successor takes them with [`Activation`](crate::Activation).
/// 2. The successor serves, and reports that it is [ready](crate::Activation::ready). Both
///    processes accept, before that and after it: each connection goes to one of them.
/// 3. This process [stops](crate::Service::stop) accepting,
///    [waits for its connections](crate::Service::wait), [drains](crate::Service::drain) the
///    remaining ones, and exits. The successor accepts the
///    pending connections.
///
/// If the successor exits, or is not ready within the timeout, it is killed. `start` then returns
/// an error with the reason, and this process continues unchanged.
///
/// The successor is the process that `start` has started, and no other. A script that prepares
/// something must end with `exec`, so that the server runs in the same process. A program that
/// goes to the background has exited. Processes that the successor has started are not killed with
/// it. If they have inherited the sockets, the sockets keep listening while these processes run,
/// although they may not accept.
///
/// # Requirements
/// The sockets must have been created with [`handover`](crate::SocketOptions::handover), or be
/// adopted, or come from [`Activation`](crate::Activation). The successor owns the socket file of
/// a Unix socket if this process did. Handover works on Unix systems.
///
/// # State of the successor
/// All other descriptors of keepsock are closed in the successor. No signal is blocked. Signals
/// that were ignored stay ignored, except SIGPIPE, which Rust programs ignore. Other signals have
/// their default action.
///
/// The successor is a child of this process. A service manager that watches this process must be
/// notified of the new main process (systemd: `MAINPID=` of sd_notify(3)). The environment is
/// inherited except `WATCHDOG_PID`, which names this process: the successor answers the watchdog.
/// Alternatively use socket activation: the service manager keeps the listening sockets open and
/// restarts the service.
///
/// ```no_run
/// use keepsock::{Activation, Handover, SocketOptions};
/// use std::time::Duration;
///
/// # #[cfg(not(feature = "serve"))] fn main() {}
/// # #[cfg(feature = "serve")]
/// fn main() -> Result<(), keepsock::Error> {
///     let mut activation = Activation::from_env()?;
///     let server = activation.listen("*:8080", &SocketOptions::new())?;
///     let service = server.serve(|client| {
///         let _ = client.write_all(b"hello\n");
///     })?;
///     activation.ready()?;
///     loop {
///         wait_for_sighup();
///         match Handover::new().server("http", &server).start(Duration::from_secs(10)) {
///             Ok(pid) => {
///                 println!("process {pid} serves");
///                 service.stop();
///                 let _ = service.wait(Duration::from_secs(5));
///                 service.drain(Duration::from_secs(30))?;
///                 return Ok(());
///             }
///             Err(e) => eprintln!("still serving: {e}"),
///         }
///     }
/// }
/// # fn wait_for_sighup() {}
/// ```
#[derive(Debug, Default)]
pub struct Handover<'a> {
    program: Option<OsString>,
    args: Option<Vec<OsString>>,
    sockets: Vec<(String, Socket<'a>)>,
    cancel: Option<CancelToken>,
}

#[derive(Debug, Clone, Copy)]
enum Socket<'a> {
    Server(&'a ServerSocket),
    #[cfg(feature = "datagram")]
    Datagram(&'a DatagramSocket),
}

impl<'a> Handover<'a> {
    /// A handover to the program of this process, with the same arguments. If the program's file
    /// was replaced, the new file is started.
    ///
    /// The path is the path of the file itself. If the program was started through a symbolic link
    /// (`current`, to `v2`) that points to another file now, the old file is started. Pass the link
    /// to [`program`](Handover::program) in this case.
    ///
    /// The arguments are those with which the process was started, even if the program has
    /// overwritten them (setproctitle). This needs glibc. With another C library, or if dlopen(3)
    /// has loaded this library after the program overwrote its arguments, pass the arguments with
    /// [`arg`](Handover::arg).
    ///
    /// ```
    /// let handover = keepsock::Handover::new();
    /// ```
    pub fn new() -> Handover<'a> {
        Handover::default()
    }

    /// Sets the program to start: a path, or a name that is looked up in `PATH`. The program gets
    /// only the arguments added with [`arg`](Handover::arg).
    ///
    /// ```
    /// let handover = keepsock::Handover::new().program("/usr/bin/app").arg("--quiet");
    /// ```
    #[must_use]
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = Some(program.as_ref().to_owned());
        self.args.get_or_insert_default();
        self
    }

    /// Adds an argument. The first one replaces the arguments of this process.
    ///
    /// ```
    /// let handover = keepsock::Handover::new().arg("--config").arg("/etc/app.conf");
    /// ```
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.get_or_insert_default().push(arg.as_ref().to_owned());
        self
    }

    /// Adds a server, with all of its endpoints. The successor can look its sockets up by `name`
    /// ([`Activation::server`](crate::Activation::server)). The name is 1 to 255 bytes of printable
    /// ASCII without `:`; [`start`](Handover::start) checks it.
    ///
    /// ```
    /// # use keepsock::{Handover, ServerSocket, SocketOptions};
    /// let options = SocketOptions::new().handover(true);
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &options)?;
    /// let handover = Handover::new().server("http", &server);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn server(mut self, name: impl Into<String>, server: &'a ServerSocket) -> Self {
        self.sockets.push((name.into(), Socket::Server(server)));
        self
    }

    /// Adds a datagram socket, UDP or Unix. Until this process closes it, both processes receive
    /// from it, and each datagram goes to one of them. The name is as in
    /// [`server`](Handover::server).
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, Handover, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// let options = SocketOptions::new().handover(true);
    /// let socket = DatagramSocket::bind_with("127.0.0.1:0", &options)?;
    /// let handover = Handover::new().datagram("dns", &socket);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    #[cfg(feature = "datagram")]
    pub fn datagram(mut self, name: impl Into<String>, socket: &'a DatagramSocket) -> Self {
        self.sockets.push((name.into(), Socket::Datagram(socket)));
        self
    }

    /// Sets a token that cancels [`start`](Handover::start). The successor is then killed.
    ///
    /// ```
    /// # use keepsock::{CancelToken, Handover};
    /// let token = CancelToken::new()?;
    /// let handover = Handover::new().cancel(&token);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn cancel<'t>(mut self, token: impl Into<Option<&'t CancelToken>>) -> Self {
        self.cancel = token.into().cloned();
        self
    }

    /// Starts the successor, and waits until it reports that it is ready or the timeout expires.
    /// `None`: without limit. Returns the number of the successor's process, which is a child of
    /// this process.
    ///
    /// A successor that is not ready in time is killed, and the connections that it accepted are
    /// reset. A successor that has changed its user cannot be killed, and continues; the error says
    /// so. The timeout and the token apply to the whole call except fork(2).
    ///
    /// # Errors
    /// This process and its sockets continue unchanged.
    /// - [`EndOfStream`](ErrorKind::EndOfStream): the successor exited, or dropped its
    ///   [`Activation`](crate::Activation), before it was ready. The error has the exit status if
    ///   the successor has exited.
    /// - [`Malformed`](ErrorKind::Malformed): the successor, or a process that it started, wrote other
    ///   bytes to the channel of the handover than [`ready`](crate::Activation::ready) does.
    /// - [`TimedOut`](ErrorKind::TimedOut): the successor was not ready within `timeout`.
    /// - [`Cancelled`](ErrorKind::Cancelled): the token was fired.
    /// - [`NotFound`](ErrorKind::NotFound): the program does not exist.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not execute the
    ///   program.
    /// - [`NoMemory`](ErrorKind::NoMemory): the system has no memory left, or the user may not have
    ///   another process.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no descriptor
    ///   left.
    /// - [`WrongState`](ErrorKind::WrongState): a socket was created without
    ///   [`handover`](crate::SocketOptions::handover), or its handover is already in progress.
    /// - [`Closed`](ErrorKind::Closed): a socket is closed.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): no socket was added, a name is not valid,
    ///   the program or an argument contains a NUL byte, or the timeout is zero.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform is Windows.
    /// - [`Os`](ErrorKind::Os): another error of the operating system, for example of execve(2).
    ///
    /// ```
    /// use keepsock::{ErrorKind, Handover, ServerSocket, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// let options = SocketOptions::new().handover(true);
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &options)?;
    /// let timeout = std::time::Duration::from_secs(10);
    /// // true(1) exits immediately and never is ready, so this process continues to serve.
    /// let err = Handover::new().program("true").server("http", &server).start(timeout).unwrap_err();
    /// assert_eq!(err.kind(), ErrorKind::EndOfStream);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn start(&self, timeout: impl Into<Option<Duration>>) -> Result<u32> {
        let timeout = timeout.into();
        let deadline = Deadline::after(timeout);
        let failed = |kind| Error::new(kind, OPERATION);
        if cfg!(not(unix)) {
            // WSADuplicateSocket passes a socket, but needs a channel to the successor and its process number.
            let why = "a successor inherits sockets by fork(2) and execve(2)";
            return Err(failed(ErrorKind::Unsupported).detail(why));
        }
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            let what = "the timeout must be greater than zero";
            return Err(failed(ErrorKind::InvalidArgument).detail(what));
        }
        if self.cancel.as_ref().is_some_and(CancelToken::is_fired) {
            return Err(failed(ErrorKind::Cancelled));
        }
        let mut items = self.borrow_sockets()?;
        let Successor { process, program, report, channel } = self.start_successor(&items)?;
        let pid = process.id();
        let failed = |kind: ErrorKind, what: &str| {
            let detail = format!("the successor (process {pid}) {what}");
            Error::new(kind, OPERATION).detail(detail)
        };
        let kill = |process: sys::Process| match process.end() {
            Some(status) => format!("was killed: {status}"),
            None => {
                "continues, because another user owns it now and it cannot be killed".to_owned()
            }
        };
        let outcome = match self.wait_started(report, deadline) {
            Ok(None) => self.wait_ready(&channel, deadline, || process.ended()),
            Ok(Some(why)) => {
                process.end();
                return Err(cannot_start(&program, &why));
            }
            Err(cause) => Err(cause),
        };
        match outcome {
            Ok(Outcome::Ready) => {}
            Ok(Outcome::Exited(status)) => {
                let what = format!("exited before it was ready: {status}");
                return Err(failed(ErrorKind::EndOfStream, &what));
            }
            Ok(Outcome::Detached) => {
                let what =
                    format!("dropped its Activation before it was ready, and {}", kill(process));
                return Err(failed(ErrorKind::EndOfStream, &what));
            }
            Ok(Outcome::Unknown) => {
                let what =
                    format!("sent other bytes than its report of readiness, and {}", kill(process));
                return Err(failed(ErrorKind::Malformed, &what));
            }
            Err(cause) => {
                let when = match timeout.filter(|_| cause.kind() == ErrorKind::TimedOut) {
                    Some(timeout) => format!("within {}", Span(timeout)),
                    None => "yet".to_owned(),
                };
                let what = format!("was not ready {when}, and {}", kill(process));
                return Err(failed(cause.kind(), &what));
            }
        }
        // The files of all sockets before the first log event: if a logger panics, the files that
        // were not marked would be removed when this process closes the sockets.
        for file in items.iter_mut().filter_map(|item| item.file.take()) {
            file.keep();
        }
        for item in items {
            log::handed_over(item.endpoint, pid);
        }
        Ok(pid)
    }

    /// Borrows all descriptors of the handover, so that they stay open.
    fn borrow_sockets(&self) -> Result<Vec<HandoverItem<'a>>> {
        let refuse = |what: &str| Error::new(ErrorKind::InvalidArgument, OPERATION).detail(what);
        let wrong_state = |endpoint: &Endpoint, what: &str| {
            Error::new(ErrorKind::WrongState, OPERATION).at(endpoint).detail(what)
        };
        let mut items = Vec::new();
        let mut add = |name: &str,
                       endpoint: &Endpoint,
                       is_shared: bool,
                       borrow: &dyn Fn() -> Result<BorrowedSocket<'a>>,
                       file: Option<SharedFile<'a>>,
                       ephemeral_port: bool| {
            if !is_shared {
                return Err(wrong_state(
                    endpoint,
                    "the socket was created without the option handover: set the option",
                ));
            }
            let socket = borrow().map_err(|e| e.during(OPERATION))?;
            let started = InProgress::start(&socket).map_err(|e| Error::os(OPERATION, &e))?;
            let in_progress = started.ok_or_else(|| {
                wrong_state(
                    endpoint,
                    "another handover of the socket is in progress: wait until it ends",
                )
            })?;
            items.push(HandoverItem {
                name: name.to_owned(),
                endpoint: endpoint.to_string(),
                file,
                ephemeral_port,
                _in_progress: in_progress,
                socket,
            });
            Ok(())
        };
        for (name, socket) in &self.sockets {
            if !is_valid_name(name) {
                let what = format!(
                    "{name:?} is not a name of a descriptor: use 1 to 255 ASCII characters except \":\""
                );
                return Err(refuse(&what));
            }
            match socket {
                Socket::Server(server) => {
                    for listener in server.listeners() {
                        add(
                            name,
                            listener.endpoint(),
                            listener.is_shared(),
                            &|| listener.borrow(),
                            Some(listener.lend_file()),
                            listener.has_ephemeral_port(),
                        )?;
                    }
                }
                #[cfg(feature = "datagram")]
                Socket::Datagram(socket) => add(
                    name,
                    socket.endpoint(),
                    socket.is_shared(),
                    &|| socket.borrow(),
                    socket.lend_file(),
                    socket.has_ephemeral_port(),
                )?,
            }
        }
        if items.is_empty() {
            Err(refuse("there is no socket to hand over: add a server or a datagram socket"))
        } else {
            Ok(items)
        }
    }

    fn start_successor(&self, items: &[HandoverItem<'_>]) -> Result<Successor> {
        let os = |e: io::Error| Error::os(OPERATION, &e);
        let program = match &self.program {
            Some(program) => program.clone(),
            None => sys::own_program().map_err(os)?.into(),
        };
        let args = match &self.args {
            Some(args) => std::iter::once(&program).chain(args).cloned().collect(),
            None => sys::own_args().map_err(os)?,
        };
        let (channel, theirs) = sys::channel().map_err(os)?;
        let mut descriptors: Vec<_> = items.iter().map(|item| item.socket.0.socket()).collect();
        descriptors.push(sys::borrow(&theirs));
        let identity = sys::identity(sys::borrow(&theirs)).map_err(os)?;
        let names: Vec<_> = items.iter().map(|item| item.name.as_str()).collect();
        let environment = successor_environment(&names, &note(items, identity));
        let (process, report) = sys::spawn_process(&program, &args, environment, &descriptors)
            .map_err(|e| cannot_start(&program, &e))?;
        Ok(Successor { process, program, report, channel })
    }

    /// Waits until execve(2) has succeeded, or returns its error.
    fn wait_started(
        &self,
        report: Owned,
        deadline: Deadline,
    ) -> std::result::Result<Option<io::Error>, Cause> {
        let socket = Some((sys::borrow(&report), Interest::Read));
        wait(socket, deadline, self.cancel.as_ref(), || false)?;
        Ok(sys::read_report(report))
    }

    /// Waits until the successor has reported that it is ready, or can no longer do so.
    fn wait_ready(
        &self,
        channel: &Owned,
        deadline: Deadline,
        exit_status: impl Fn() -> Option<sys::Ended>,
    ) -> std::result::Result<Outcome, Cause> {
        let cancel = self.cancel.as_ref();
        let socket = Some((sys::borrow(channel), Interest::Read));
        loop {
            let next_check = deadline.earlier(Deadline::after(Some(POLL_INTERVAL)));
            let waited = wait(socket, next_check, cancel, || false);
            // Before the read: the successor may report that it is ready and exit.
            let status = exit_status();
            match (receive_report(channel)?, status, waited) {
                (Some(Report::Ready), ..) => return Ok(Outcome::Ready),
                (_, Some(status), _) => return Ok(Outcome::Exited(status)),
                (Some(Report::Unknown), None, _) => return Ok(Outcome::Unknown),
                (Some(Report::Closed), None, _) => break,
                (None, None, Err(cause)) => {
                    if cause.kind() != ErrorKind::TimedOut || deadline.has_passed() {
                        return Err(cause);
                    }
                }
                (None, None, Ok(_)) => {}
            }
        }
        let exit_deadline = deadline.earlier(Deadline::after(Some(EXIT_TIMEOUT)));
        while !exit_deadline.has_passed() {
            let next_check = exit_deadline.earlier(Deadline::after(Some(EXIT_POLL_INTERVAL)));
            wait(None, next_check, cancel, || false)?;
            if let Some(status) = exit_status() {
                return Ok(Outcome::Exited(status));
            }
        }
        Ok(Outcome::Detached)
    }
}

/// A process that was started as the successor.
struct Successor {
    process: Process,
    program: OsString,
    /// Closed by execve(2), or has its error.
    report: Owned,
    /// The socket on which the successor reports that it is ready.
    channel: Owned,
}

/// The end of the wait for a successor.
enum Outcome {
    Ready,
    Exited(sys::Ended),
    /// The successor continues, and has closed its end of the channel.
    Detached,
    /// The successor continues, and has sent other bytes than the report that it is ready.
    Unknown,
}

/// The bytes on the channel of a handover.
enum Report {
    /// The successor is ready.
    Ready,
    /// The successor has closed the channel.
    Closed,
    /// Other bytes than the report.
    Unknown,
}

/// One descriptor of a handover. The file is returned to its socket before the descriptor is
/// released: a client that finds the file must find a listener.
struct HandoverItem<'a> {
    name: String,
    endpoint: String,
    file: Option<SharedFile<'a>>,
    ephemeral_port: bool,
    _in_progress: InProgress,
    socket: BorrowedSocket<'a>,
}

/// Marks a socket whose handover is in progress. With two handovers at the same time, both
/// successors would own the file of a Unix socket.
struct InProgress(Identity);

impl InProgress {
    /// `None`: another handover of the socket is in progress.
    fn start(socket: &BorrowedSocket<'_>) -> io::Result<Option<InProgress>> {
        let identity = sys::identity(socket.0.socket())?;
        let mut all = IN_PROGRESS.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains(&identity) {
            return Ok(None);
        }
        all.push(identity);
        Ok(Some(InProgress(identity)))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        IN_PROGRESS.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| *one != self.0);
    }
}

fn cannot_start(program: &OsStr, why: &io::Error) -> Error {
    let mut what = format!("{} cannot be started", program.to_string_lossy());
    if why.raw_os_error().is_none() {
        what += &format!(": {why}");
    }
    let kind = match ErrorKind::of(why) {
        // fork(2) and execve(2) return EAGAIN if a resource limit was reached.
        ErrorKind::WouldBlock => ErrorKind::NoMemory,
        // A NUL byte in the program or an argument.
        _ if why.kind() == io::ErrorKind::InvalidInput && why.raw_os_error().is_none() => {
            ErrorKind::InvalidArgument
        }
        kind => kind,
    };
    Error::new(kind, OPERATION).with_os_error(why.raw_os_error()).detail(what)
}

/// Reads the report of the successor. `None`: there is no report yet.
fn receive_report(channel: &Owned) -> std::result::Result<Option<Report>, Cause> {
    // One byte more than the report, to find what is longer.
    let mut buf = [0; READY_REPORT.len() + 1];
    match sys::recv(sys::borrow(channel), &mut buf, Wait::No) {
        Ok(0) => Ok(Some(Report::Closed)),
        Ok(n) if buf[..n] == *READY_REPORT => Ok(Some(Report::Ready)),
        Ok(_) => Ok(Some(Report::Unknown)),
        Err(e) if ErrorKind::of(&e) == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn note(items: &[HandoverItem<'_>], channel: Identity) -> Note {
    let files = items.iter().enumerate().filter_map(|(index, item)| {
        let (path, identity) = item.file.as_ref()?.file()?.known()?;
        Some(FileNote { index, identity, path: path.to_owned() })
    });
    let ephemeral_ports = (0..items.len()).filter(|index| items[*index].ephemeral_port).collect();
    let ready = FIRST_INHERITED + items.len() as u32;
    Note { ready, channel, ephemeral_ports, files: files.collect() }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// L7: a report that the successor is ready counts, even if the deadline has passed, the token
    /// was fired, or the successor has exited.
    #[test]
    fn wait_ready_after_a_report_ignores_deadline_and_token() {
        let token = CancelToken::new().unwrap();
        token.fire();
        let handover = Handover::new().cancel(&token);
        for (timeout, handover) in [(None, &handover), (Some(Duration::ZERO), &Handover::new())] {
            let (mine, theirs) = sys::channel().unwrap();
            sys::send(sys::borrow(&theirs), b"1", Wait::No).unwrap();
            let outcome = handover.wait_ready(&mine, Deadline::after(timeout), || None);
            assert!(matches!(outcome, Ok(Outcome::Ready)));
            let outcome = handover.wait_ready(&mine, Deadline::after(timeout), || None);
            assert!(outcome.is_err_and(|cause| cause.kind() != ErrorKind::EndOfStream));
        }
    }

    /// E1: the error says that the program or an argument contains a NUL byte.
    #[test]
    fn start_with_nul_in_a_word_names_the_nul() {
        use crate::options::SocketOptions;
        let options = SocketOptions::new().handover(true);
        let server = ServerSocket::listen_with("127.0.0.1:0", &options).unwrap();
        for (program, word) in [("/bin/t\0rue", "a"), ("true", "a\0b")] {
            let handover = Handover::new().program(program).arg(word).server("s", &server);
            let err = handover.start(Duration::from_secs(20)).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
            assert!(err.to_string().contains("contains a nul byte"), "{err}");
        }
    }
}
