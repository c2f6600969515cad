//! HandOver: a server is replaced while it runs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::client::BorrowedSocket;
use crate::datagram::DatagramSocket;
use crate::error::{Error, ErrorKind, Result, Span};
use crate::events;
use crate::inherited::{
    FileNote, HAND_OVER, LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID, LISTEN_PIDFDID, Note,
};
use crate::server::ServerSocket;
use crate::sys::{self, FIRST_INHERITED, Interest, Owned, Process, Wait};
use crate::unix::{Identity, Lent};
use crate::wait::{Cause, Deadline, wait};

const OPERATION: &str = "hand over";

/// How long the end of a process may take after it has closed its descriptors.
const ENDING: Duration = Duration::from_secs(1);

/// How often it is looked whether the successor has ended: what it has started may keep its end of
/// the channel open. There is nothing to poll for that everywhere.
const LOOK: Duration = Duration::from_millis(20);

/// The same while it is ending: it closes its descriptors a moment before it can be waited for.
const LOOK_AT_ENDING: Duration = Duration::from_millis(1);

/// The sockets that this process is handing over just now.
static UNDER_WAY: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

/// Whom systemd's watchdog expects to hear from (sd_watchdog_enabled(3)); without it, whoever asks.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// What FDNAME_MAX of systemd is.
const NAME_MAX: usize = 255;

/// Starts a successor of this process, which listens on the same sockets, and waits until it
/// serves. At no moment does nobody listen, so no client is refused:
///
/// 1. The old process [starts](HandOver::start) the new one, which has the listening sockets from
///    its beginning ([`Inherited`](crate::Inherited)), as from systemd.
/// 2. The new one takes them, serves, and says so: [`ready`](crate::Inherited::ready). Until
///    then both accept, and then, too: each connection goes to one of them.
/// 3. The old one stops accepting, has its connections [finish](crate::Service::finish),
///    [tells](crate::Service::drain) those that stay longer, and ends. What waits to be accepted
///    the new one takes.
///
/// If the new one ends, or is not ready in time, it is ended, `start` says why, and
/// the old one goes on as if nothing had been.
///
/// The new one is the process that is started, and no other. A script that prepares something has
/// to end with `exec`, so that the server is that process; a program that goes into the background
/// has ended. What else it starts is not ended with it, and has the sockets as long as it lives if
/// it inherited them: it keeps them listening, though nobody may accept.
///
/// The sockets must have been made with [`hand_over`](crate::SocketOptions::hand_over), or
/// taken over, or come from [`Inherited`](crate::Inherited). Of a Unix socket
/// in the file system the new process owns the file from then on, if the old one did. All other
/// descriptors of keepsock are closed in the new program; its signals are as in any new one: none
/// blocked, and as by default those that are not ignored, and SIGPIPE, which programs of Rust
/// ignore and others do not expect to be. Unix systems.
///
/// The successor is a child of this process, and after its end an orphan. A service manager that
/// watches this one has to be told (systemd: `MAINPID=` of sd_notify(3)). Its variables are passed
/// on, but `WATCHDOG_PID`, which names this process: the successor is to answer the watchdog. Or it
/// has the listeners itself, by socket activation: they are open then while it starts the service
/// anew.
///
/// ```no_run
/// use keepsock::{HandOver, Inherited, SocketOptions};
/// use std::time::Duration;
///
/// fn main() -> Result<(), keepsock::Error> {
///     let mut inherited = Inherited::take()?;
///     let server = inherited.listen("*:8080", &SocketOptions::new())?;
///     let service = server.serve(|client| {
///         let _ = client.write_all(b"hello\n");
///     })?;
///     inherited.ready()?;
///     loop {
///         wait_for_sighup();
///         match HandOver::new().server("http", &server).start(Duration::from_secs(10)) {
///             Ok(pid) => {
///                 println!("process {pid} serves");
///                 service.finish(Duration::from_secs(5))?;
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
pub struct HandOver<'a> {
    program: Option<OsString>,
    args: Option<Vec<OsString>>,
    given: Vec<(String, Given<'a>)>,
    cancel: Option<CancelToken>,
}

#[derive(Debug, Clone, Copy)]
enum Given<'a> {
    Server(&'a ServerSocket),
    Datagram(&'a DatagramSocket),
}

impl<'a> HandOver<'a> {
    /// To this program again, with its arguments; to the file that has its name now, if it
    /// was replaced. That is the name of the file itself: of a program that was started by a
    /// symbolic link (`current`, to `v2`) which leads elsewhere now, the old file is started. Give
    /// the link to [`program`](HandOver::program) then.
    ///
    /// ```
    /// let hand_over = keepsock::HandOver::new();
    /// ```
    pub fn new() -> HandOver<'a> {
        HandOver::default()
    }

    /// To another program: a path, or a name to be looked for in `PATH`. It has no arguments but
    /// those that are [added](HandOver::arg).
    ///
    /// ```
    /// let hand_over = keepsock::HandOver::new().program("/usr/bin/app").arg("--quiet");
    /// ```
    #[must_use]
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = Some(program.as_ref().to_owned());
        self.args.get_or_insert_default();
        self
    }

    /// Adds an argument. The first one replaces those of this process.
    ///
    /// ```
    /// let hand_over = keepsock::HandOver::new().arg("--config").arg("/etc/app.conf");
    /// ```
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.get_or_insert_default().push(arg.as_ref().to_owned());
        self
    }

    /// Hands a server over, all of its endpoints. The name is what the successor may ask for
    /// ([`Inherited::server`](crate::Inherited::server)): printable ASCII but `:`, at
    /// most 255 bytes.
    ///
    /// ```
    /// # use keepsock::{HandOver, ServerSocket, SocketOptions};
    /// let options = SocketOptions::new().hand_over(true);
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &options)?;
    /// let hand_over = HandOver::new().server("http", &server);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn server(mut self, name: impl Into<String>, server: &'a ServerSocket) -> Self {
        self.given.push((name.into(), Given::Server(server)));
        self
    }

    /// Hands a datagram socket over, UDP or Unix. Both processes receive from it, each datagram one
    /// of them, until the old one closes it.
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, HandOver, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// let options = SocketOptions::new().hand_over(true);
    /// let socket = DatagramSocket::bind_with("127.0.0.1:0", &options)?;
    /// let hand_over = HandOver::new().datagram("dns", &socket);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn datagram(mut self, name: impl Into<String>, socket: &'a DatagramSocket) -> Self {
        self.given.push((name.into(), Given::Datagram(socket)));
        self
    }

    /// A token that ends the wait for the successor, and the successor.
    ///
    /// ```
    /// # use keepsock::{CancelToken, HandOver};
    /// let token = CancelToken::new()?;
    /// let hand_over = HandOver::new().cancel(&token);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[must_use]
    pub fn cancel<'t>(mut self, token: impl Into<Option<&'t CancelToken>>) -> Self {
        self.cancel = token.into().cloned();
        self
    }

    /// Starts the successor and waits until it has said that it is ready, for so long at most;
    /// `None`: without limit. Returns the number of its process, which is a child of this one.
    /// One that is not ready is killed, and what connections it had accepted are reset; but one
    /// that has become another user's process cannot be ended, and goes on. Limit and token hold
    /// for all of it, but the system's fork(2).
    ///
    /// # Errors
    /// This process goes on then, and all that was to be handed over is as it was.
    /// [`EndOfStream`](ErrorKind::EndOfStream): the successor ended, or dropped its
    /// [`Inherited`](crate::Inherited), before it was ready; the error has its exit status, if it
    /// has ended. [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled).
    /// [`NotFound`](ErrorKind::NotFound), [`PermissionDenied`](ErrorKind::PermissionDenied) and
    /// others of execve(2): the program cannot be started. [`NoMemory`](ErrorKind::NoMemory), also
    /// for one process more than the user may have. [`WrongState`](ErrorKind::WrongState): a socket
    /// was made without [`hand_over`](crate::SocketOptions::hand_over), or is being handed over
    /// already. [`Closed`](ErrorKind::Closed): one is closed.
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): nothing to hand over, a name that is none,
    /// or a limit of 0. [`Unsupported`](ErrorKind::Unsupported): Windows.
    ///
    /// ```
    /// use keepsock::{ErrorKind, HandOver, ServerSocket, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// let options = SocketOptions::new().hand_over(true);
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &options)?;
    /// let limit = std::time::Duration::from_secs(10);
    /// // A program that ends at once is no successor; this one goes on.
    /// let err = HandOver::new().program("true").server("http", &server).start(limit).unwrap_err();
    /// assert_eq!(err.kind(), ErrorKind::EndOfStream);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn start(&self, limit: impl Into<Option<Duration>>) -> Result<u32> {
        let limit = limit.into();
        let deadline = Deadline::after(limit);
        let failed = |kind| Error::new(kind, OPERATION);
        if cfg!(not(unix)) {
            return Err(failed(ErrorKind::Unsupported));
        }
        if limit.is_some_and(|limit| limit.is_zero()) {
            let what = "no successor is ready in no time";
            return Err(failed(ErrorKind::InvalidArgument).detail(what));
        }
        if self.cancel.as_ref().is_some_and(CancelToken::is_fired) {
            return Err(failed(ErrorKind::Cancelled));
        }
        let mut lent = self.lend()?;
        let Started { process, program, report, channel } = self.spawn(&lent)?;
        let pid = process.id();
        let failed = |kind: ErrorKind, what: &str| {
            let detail = format!("the successor, process {pid}, {what}");
            Error::new(kind, OPERATION).detail(detail)
        };
        let end = |process: sys::Process| match process.end() {
            Some(how) => format!("was ended: {how}"),
            None => "goes on: it is another user's by now, and may not be ended".to_owned(),
        };
        let outcome = match self.wait_begun(report, deadline) {
            Ok(None) => self.wait_ready(&channel, deadline, || process.ended()),
            Ok(Some(why)) => {
                process.end();
                return Err(cannot_start(&program, &why));
            }
            Err(cause) => Err(cause),
        };
        match outcome {
            Ok(Outcome::Ready) => {}
            Ok(Outcome::Ended(how)) => {
                let what = format!("ended before it was ready: {how}");
                return Err(failed(ErrorKind::EndOfStream, &what));
            }
            Ok(Outcome::Silent) => {
                let what = format!("will not be ready, and {}", end(process));
                return Err(failed(ErrorKind::EndOfStream, &what));
            }
            Err(cause) => {
                let when = match limit.filter(|_| cause.kind() == ErrorKind::TimedOut) {
                    Some(limit) => format!("within {}", Span(limit)),
                    None => "yet".to_owned(),
                };
                let what = format!("was not ready {when}, and {}", end(process));
                return Err(failed(cause.kind(), &what));
            }
        }
        // All of them first: a logger that panics would give those back that were not yet kept.
        for file in lent.iter_mut().filter_map(|lent| lent.file.take()) {
            file.keep();
        }
        for lent in lent {
            events::handed_over(lent.endpoint, pid);
        }
        Ok(pid)
    }

    /// All descriptors that are to be handed over, which stay open meanwhile.
    fn lend(&self) -> Result<Vec<Handed<'a>>> {
        let refuse = |what: &str| Error::new(ErrorKind::InvalidArgument, OPERATION).detail(what);
        let alone = |endpoint: &dyn std::fmt::Display| {
            let what = "it was made without hand_over, and would end when it is closed here";
            Error::new(ErrorKind::WrongState, OPERATION).at(endpoint).detail(what)
        };
        let once = |endpoint: &dyn std::fmt::Display, socket: &BorrowedSocket<'_>| {
            let begun = UnderWay::begin(socket).map_err(|e| Error::os(OPERATION, &e))?;
            begun.ok_or_else(|| {
                let what = "it is being handed over already";
                Error::new(ErrorKind::WrongState, OPERATION).at(endpoint).detail(what)
            })
        };
        let mut handed = Vec::new();
        for (name, given) in &self.given {
            let printable = name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b':');
            if name.is_empty() || name.len() > NAME_MAX || !printable {
                return Err(refuse(&format!("not a name for a descriptor: {name:?}")));
            }
            match given {
                Given::Server(server) => {
                    for listener in server.listeners() {
                        if !listener.is_shared() {
                            return Err(alone(listener.endpoint()));
                        }
                        let socket = listener.borrow().map_err(|e| e.during(OPERATION))?;
                        let under_way = once(listener.endpoint(), &socket)?;
                        handed.push(Handed {
                            name: name.clone(),
                            endpoint: listener.endpoint().to_string(),
                            file: Some(listener.lend_file()),
                            any_port: listener.has_any_port(),
                            _under_way: under_way,
                            socket,
                        });
                    }
                }
                Given::Datagram(socket) => {
                    if !socket.is_shared() {
                        return Err(alone(socket.endpoint()));
                    }
                    let borrowed = socket.borrow().map_err(|e| e.during(OPERATION))?;
                    let under_way = once(socket.endpoint(), &borrowed)?;
                    handed.push(Handed {
                        name: name.clone(),
                        endpoint: socket.endpoint().to_string(),
                        file: socket.lend_file(),
                        any_port: socket.has_any_port(),
                        _under_way: under_way,
                        socket: borrowed,
                    });
                }
            }
        }
        if handed.is_empty() { Err(refuse("nothing to hand over")) } else { Ok(handed) }
    }

    fn spawn(&self, handed: &[Handed<'_>]) -> Result<Started> {
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
        let mut descriptors: Vec<_> = handed.iter().map(|h| h.socket.0.socket()).collect();
        descriptors.push(sys::borrow(&theirs));
        let identity = sys::identity(sys::borrow(&theirs)).map_err(os)?;
        let environment = environment(handed, identity);
        let (process, report) = sys::spawn(&program, &args, environment, &descriptors)
            .map_err(|e| cannot_start(&program, &e))?;
        Ok(Started { process, program, report, channel })
    }

    /// Waits until the program has begun, or says why it cannot.
    fn wait_begun(
        &self,
        report: Owned,
        deadline: Deadline,
    ) -> std::result::Result<Option<io::Error>, Cause> {
        let socket = Some((sys::borrow(&report), Interest::Read));
        wait(socket, deadline, self.cancel.as_ref(), || false)?;
        Ok(sys::read_report(report))
    }

    /// Waits until the successor has said that it is ready, or will not.
    fn wait_ready(
        &self,
        channel: &Owned,
        deadline: Deadline,
        ended: impl Fn() -> Option<sys::Ended>,
    ) -> std::result::Result<Outcome, Cause> {
        let cancel = self.cancel.as_ref();
        let socket = Some((sys::borrow(channel), Interest::Read));
        loop {
            let look = deadline.earlier(Deadline::after(Some(LOOK)));
            let waited = wait(socket, look, cancel, || false);
            // In this order: it may have said so at the last moment.
            let how = ended();
            match (has_said(channel)?, how, waited) {
                (Some(true), ..) => return Ok(Outcome::Ready),
                (_, Some(how), _) => return Ok(Outcome::Ended(how)),
                (Some(false), None, _) => break,
                (None, None, Err(cause)) => {
                    if cause.kind() != ErrorKind::TimedOut || deadline.has_passed() {
                        return Err(cause);
                    }
                }
                (None, None, Ok(_)) => {}
            }
        }
        let patience = deadline.earlier(Deadline::after(Some(ENDING)));
        while !patience.has_passed() {
            let look = patience.earlier(Deadline::after(Some(LOOK_AT_ENDING)));
            wait(None, look, cancel, || false)?;
            if let Some(how) = ended() {
                return Ok(Outcome::Ended(how));
            }
        }
        Ok(Outcome::Silent)
    }
}

/// A process that is to become the successor.
struct Started {
    process: Process,
    program: OsString,
    /// Closed when the program begins; or why it does not.
    report: Owned,
    /// By which it says that it is ready.
    channel: Owned,
}

/// What became of a successor.
enum Outcome {
    Ready,
    Ended(sys::Ended),
    /// It goes on, and has closed its end of the channel.
    Silent,
}

/// One descriptor that is handed over. The file is given back first: who finds it must find a
/// listener.
struct Handed<'a> {
    name: String,
    endpoint: String,
    file: Option<Lent<'a>>,
    any_port: bool,
    _under_way: UnderWay,
    socket: BorrowedSocket<'a>,
}

/// That a socket is being handed over, which two at once must not: each successor would own the
/// file of a Unix socket.
struct UnderWay(Identity);

impl UnderWay {
    /// `None`: it is already.
    fn begin(socket: &BorrowedSocket<'_>) -> io::Result<Option<UnderWay>> {
        let identity = sys::identity(socket.0.socket())?;
        let mut all = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains(&identity) {
            return Ok(None);
        }
        all.push(identity);
        Ok(Some(UnderWay(identity)))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| *one != self.0);
    }
}

fn cannot_start(program: &OsStr, why: &io::Error) -> Error {
    let mut what = format!("{} cannot be started", program.to_string_lossy());
    if why.raw_os_error().is_none() {
        what += &format!(": {why}");
    }
    let kind = match ErrorKind::of(why) {
        // fork(2) and execve(2) say EAGAIN for a limit that was reached.
        ErrorKind::WouldBlock => ErrorKind::NoMemory,
        kind => kind,
    };
    Error::new(kind, OPERATION).with_os_error(why.raw_os_error()).detail(what)
}

/// Whether the successor is ready; false: it will not be. `None`: it has not said yet.
fn has_said(channel: &Owned) -> std::result::Result<Option<bool>, Cause> {
    match sys::recv(sys::borrow(channel), &mut [0; 1], Wait::No) {
        Ok(n) => Ok(Some(n == 1)),
        Err(e) if ErrorKind::of(&e) == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// That of this process, with what the successor has to know.
fn environment(handed: &[Handed<'_>], channel: Identity) -> Vec<OsString> {
    let count = handed.len();
    let files = handed.iter().enumerate().filter_map(|(index, handed)| {
        let (path, identity) = handed.file.as_ref()?.file()?.known()?;
        Some(FileNote { index, identity, path: path.to_owned() })
    });
    let ready = FIRST_INHERITED + count as u32;
    let any_ports = (0..count).filter(|index| handed[*index].any_port).collect();
    let note = Note { ready, channel, any_ports, files: files.collect() };
    let names = handed.iter().map(|handed| handed.name.as_str()).collect::<Vec<_>>().join(":");
    let own = [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PIDFDID, HAND_OVER, WATCHDOG_PID];
    let others = std::env::vars_os().filter(|(name, _)| own.iter().all(|own| name != own));
    let others = others.map(|(mut variable, value)| {
        variable.push("=");
        variable.push(value);
        variable
    });
    let new = [
        format!("{LISTEN_FDS}={count}"),
        format!("{LISTEN_FDNAMES}={names}"),
        format!("{HAND_OVER}={}", note.to_text()),
    ];
    others.chain(new.map(OsString::from)).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// L7: a successor that has said so is the successor, though the time is over or it is gone.
    #[test]
    fn what_was_said_counts() {
        let token = CancelToken::new().unwrap();
        token.fire();
        let hand_over = HandOver::new().cancel(&token);
        for (limit, hand_over) in [(None, &hand_over), (Some(Duration::ZERO), &HandOver::new())] {
            let (mine, theirs) = sys::channel().unwrap();
            sys::send(sys::borrow(&theirs), b"1", Wait::No).unwrap();
            let outcome = hand_over.wait_ready(&mine, Deadline::after(limit), || None);
            assert!(matches!(outcome, Ok(Outcome::Ready)));
            let outcome = hand_over.wait_ready(&mine, Deadline::after(limit), || None);
            assert!(outcome.is_err_and(|cause| cause.kind() != ErrorKind::EndOfStream));
        }
    }

    /// E1: why, if the system was not asked: a word with a NUL.
    #[test]
    fn a_word_that_is_none() {
        use crate::options::SocketOptions;
        let options = SocketOptions::new().hand_over(true);
        let server = ServerSocket::listen_with("127.0.0.1:0", &options).unwrap();
        for (program, word) in [("/bin/t\0rue", "a"), ("true", "a\0b")] {
            let hand_over = HandOver::new().program(program).arg(word).server("s", &server);
            let err = hand_over.start(Duration::from_secs(20)).unwrap_err();
            assert!(err.to_string().contains("contains a nul byte"), "{err}");
        }
    }
}
