//! HandOver: a server is replaced while it runs.

use std::ffi::{OsStr, OsString};
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
/// The sockets must have been made with [`hand_over`](crate::SocketOptions::hand_over), or
/// taken over, or come from [`Inherited::listen`](crate::Inherited::listen). Of a Unix socket
/// in the file system the new process owns the file from then on, if the old one did. All other
/// descriptors of keepsock are closed in the new program; its signals are as in any new one: none
/// blocked, and as by default those that are not ignored. Unix systems.
///
/// The successor is a child of this process, and after its end an orphan. A service manager that
/// watches this one has to be told (systemd: `MAINPID=` of sd_notify(3)). Or it has the listeners
/// itself, by socket activation: they are open then while it starts the service anew.
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
    /// was replaced.
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

    /// Hands a UDP socket over. Both processes receive from it, each datagram one of
    /// them, until the old one closes it.
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
    /// One that is not ready is killed, and what connections it had accepted are reset.
    ///
    /// # Errors
    /// This process goes on then, and all that was to be handed over is as it was.
    /// [`EndOfStream`](ErrorKind::EndOfStream): the successor ended, or dropped its
    /// [`Inherited`](crate::Inherited), before it was ready; the error has its exit status.
    /// [`TimedOut`](ErrorKind::TimedOut), [`Cancelled`](ErrorKind::Cancelled).
    /// [`NotFound`](ErrorKind::NotFound), [`PermissionDenied`](ErrorKind::PermissionDenied) and
    /// others of execve(2): the program cannot be started.
    /// [`WrongState`](ErrorKind::WrongState): a socket was made without
    /// [`hand_over`](crate::SocketOptions::hand_over). [`Closed`](ErrorKind::Closed): one is
    /// closed. [`InvalidArgument`](ErrorKind::InvalidArgument): nothing to hand over, or a
    /// name that is none. [`Unsupported`](ErrorKind::Unsupported): Windows.
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
        if cfg!(not(unix)) {
            return Err(Error::new(ErrorKind::Unsupported, OPERATION));
        }
        let lent = self.lend()?;
        let (channel, process) = self.spawn(&lent)?;
        let pid = process.id();
        let failed = |kind: ErrorKind, what: &str, how: sys::Ended| {
            let detail = format!("the successor, process {pid}, {what}: {how}");
            Error::new(kind, OPERATION).detail(detail)
        };
        match self.wait_ready(&channel, deadline) {
            Ok(true) => {}
            Ok(false) => {
                let what = "ended before it was ready";
                return Err(match process.ends_within(ENDING) {
                    Some(how) => failed(ErrorKind::EndOfStream, what, how),
                    None => {
                        let what = "goes on but will not be ready, and was ended";
                        failed(ErrorKind::EndOfStream, what, process.end())
                    }
                });
            }
            // It may have said so at the last moment.
            Err(_) if has_said(&channel).unwrap_or(false) => {}
            Err(cause) => {
                let what = match limit.filter(|_| cause.kind() == ErrorKind::TimedOut) {
                    Some(limit) => format!("was not ready within {}, and was ended", Span(limit)),
                    None => "was ended before it was ready".to_owned(),
                };
                return Err(failed(cause.kind(), &what, process.end()));
            }
        }
        for lent in lent {
            events::handed_over(lent.endpoint, pid);
            if let Some(file) = lent.file {
                file.keep();
            }
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
                        handed.push(Handed {
                            name: name.clone(),
                            endpoint: listener.endpoint().to_string(),
                            socket: listener.borrow().map_err(|e| e.during(OPERATION))?,
                            file: Some(listener.lend_file()),
                        });
                    }
                }
                Given::Datagram(socket) => {
                    if !socket.is_shared() {
                        return Err(alone(socket.endpoint()));
                    }
                    handed.push(Handed {
                        name: name.clone(),
                        endpoint: socket.endpoint().to_string(),
                        socket: socket.borrow().map_err(|e| e.during(OPERATION))?,
                        file: socket.lend_file(),
                    });
                }
            }
        }
        if handed.is_empty() { Err(refuse("nothing to hand over")) } else { Ok(handed) }
    }

    fn spawn(&self, handed: &[Handed<'_>]) -> Result<(Owned, Process)> {
        let os = |e: std::io::Error| Error::os(OPERATION, &e);
        let program = match &self.program {
            Some(program) => program.clone(),
            None => sys::own_program().map_err(os)?.into(),
        };
        let args = match &self.args {
            Some(args) => std::iter::once(&program).chain(args).cloned().collect(),
            None => sys::own_args().map_err(os)?,
        };
        let (mine, theirs) = sys::channel().map_err(os)?;
        let mut descriptors: Vec<_> = handed.iter().map(|h| h.socket.0.socket()).collect();
        descriptors.push(sys::borrow(&theirs));
        let channel = sys::identity(sys::borrow(&theirs)).map_err(os)?;
        let environment = environment(handed, channel);
        let process = sys::spawn(&program, &args, environment, &descriptors);
        process.map(|process| (mine, process)).map_err(|e| {
            let what = format!("{} cannot be started", program.to_string_lossy());
            os(e).detail(what)
        })
    }

    /// Whether it was said that the successor is ready; false: it will not be.
    fn wait_ready(&self, channel: &Owned, deadline: Deadline) -> std::result::Result<bool, Cause> {
        let socket = Some((sys::borrow(channel), Interest::Read));
        wait(socket, deadline, self.cancel.as_ref(), || false)?;
        has_said(channel)
    }
}

/// One descriptor that is handed over.
struct Handed<'a> {
    name: String,
    endpoint: String,
    socket: BorrowedSocket<'a>,
    file: Option<Lent<'a>>,
}

fn has_said(channel: &Owned) -> std::result::Result<bool, Cause> {
    let n = sys::recv(sys::borrow(channel), &mut [0; 1], Wait::No)?;
    Ok(n == 1)
}

/// That of this process, with what the successor has to know.
fn environment(handed: &[Handed<'_>], channel: Identity) -> Vec<OsString> {
    let count = handed.len();
    let files = handed.iter().enumerate().filter_map(|(index, handed)| {
        let (path, identity) = handed.file.as_ref()?.file()?.known()?;
        Some(FileNote { index, identity, path: path.to_owned() })
    });
    let ready = FIRST_INHERITED + count as u32;
    let note = Note { ready, channel, files: files.collect() };
    let names = handed.iter().map(|handed| handed.name.as_str()).collect::<Vec<_>>().join(":");
    let own = [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PIDFDID, HAND_OVER];
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
