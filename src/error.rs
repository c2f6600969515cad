//! What went wrong: a kind for programs, a sentence for people.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::info::Address;

/// The result of every keepsock call.
pub type Result<T> = std::result::Result<T, Error>;

// One table of numbers for Rust and C: cbindgen writes this enumeration into
// keepsock.h as `keepsock_err`. Numbers are pinned, gaps are left for kin, and
// a number is never used again for something else.
/// What kind of failure it was. The numbers are the status codes of the C API
/// and never change their meaning; new ones may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// An argument was NULL, out of range, or text that is not UTF-8.
    #[error("invalid argument")]
    InvalidArgument = -1,
    /// The endpoint does not parse, or names a zone or interface that this
    /// machine does not have.
    #[error("invalid endpoint")]
    InvalidEndpoint = -2,
    /// The call does not fit the state the socket is in.
    #[error("wrong state")]
    WrongState = -3,
    /// This platform, kernel or kind of socket cannot do it.
    #[error("not supported here")]
    Unsupported = -4,
    /// The system had no memory or no socket buffers left.
    #[error("out of memory")]
    NoMemory = -5,
    /// A defect inside keepsock was caught. The handle is only good for freeing.
    #[error("internal error")]
    Panic = -6,
    /// The socket was closed by this program, perhaps by another thread.
    #[error("closed")]
    Closed = -10,
    /// The cancel token of the call was fired.
    #[error("cancelled")]
    Cancelled = -11,
    /// A deadline of the caller's passed. What had been read is kept and comes
    /// with the next read; what had been written is reported.
    #[error("timed out")]
    TimedOut = -12,
    /// Non-blocking mode only: the call would have had to wait.
    #[error("would block")]
    WouldBlock = -13,
    /// The server is draining: no more input will be read from this
    /// connection. Writing still works; the handler should end.
    #[error("draining")]
    Draining = -14,
    /// The peer closed its side before all that was asked for had come.
    #[error("end of stream")]
    EndOfStream = -15,
    /// No delimiter within the maximum, or a message that is longer. The bytes stay
    /// readable. A packet that is longer than the buffer, and then is lost, or than the system
    /// sends.
    #[error("longer than the maximum")]
    TooLong = -16,
    /// Nothing was received for the idle limit; the connection is over.
    #[error("idle limit")]
    IdleLimit = -17,
    /// Heartbeats were sent and nothing was received for the idle limit; the
    /// connection is over.
    #[error("heartbeat missed")]
    HeartbeatMissed = -18,
    /// There is no such host, service or Unix socket path.
    #[error("not found")]
    NotFound = -30,
    /// The resolver could not answer; trying again may help.
    #[error("name lookup failed")]
    LookupFailed = -31,
    /// The peer refused: nothing listens there.
    #[error("connection refused")]
    Refused = -40,
    /// No route to the address, or a router said so.
    #[error("unreachable")]
    Unreachable = -41,
    /// The connection was reset: by RST, or by writing to a peer that had closed.
    #[error("connection reset by peer")]
    Reset = -42,
    /// The peer gave no answer to keepalive or to data.
    #[error("peer is dead")]
    Dead = -43,
    /// The local endpoint is taken by another socket.
    #[error("address in use")]
    AddressInUse = -44,
    /// The local address does not belong to this machine.
    #[error("address not available")]
    AddressNotAvailable = -45,
    /// The system did not permit it.
    #[error("permission denied")]
    PermissionDenied = -46,
    /// The process or the system has no file descriptor left.
    #[error("out of file descriptors")]
    NoDescriptors = -47,
    /// The peer lives but takes no data, and was not to be waited for.
    #[error("peer takes no data")]
    Stalled = -48,
    /// Any other error of the operating system; its number is in the error.
    #[error("operating system error")]
    Os = -99,
}

impl ErrorKind {
    /// The status code of the C API, a negative number that never changes.
    ///
    /// ```
    /// assert_eq!(keepsock::ErrorKind::TimedOut.code(), -12);
    /// ```
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The kind of an operating-system error that a socket call returned.
    pub(crate) fn of(err: &io::Error) -> ErrorKind {
        if crate::sys::is_out_of_descriptors(err) {
            return ErrorKind::NoDescriptors;
        }
        match err.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => ErrorKind::Reset,
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            io::ErrorKind::WouldBlock => ErrorKind::WouldBlock,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => ErrorKind::Unreachable,
            io::ErrorKind::AddrInUse => ErrorKind::AddressInUse,
            io::ErrorKind::AddrNotAvailable => ErrorKind::AddressNotAvailable,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::OutOfMemory => ErrorKind::NoMemory,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ if crate::sys::is_out_of_memory(err) => ErrorKind::NoMemory,
            _ if crate::sys::is_unsupported(err) => ErrorKind::Unsupported,
            _ if crate::sys::is_no_interface(err) => ErrorKind::InvalidEndpoint,
            _ => ErrorKind::Os,
        }
    }
}

/// At which step of making a connection something failed.
///
/// ```
/// assert_eq!(keepsock::Stage::Lookup.to_string(), "lookup");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Stage {
    /// Looking the name up.
    #[error("lookup")]
    Lookup,
    /// Making the socket.
    #[error("socket")]
    Socket,
    /// Setting options on it.
    #[error("options")]
    Options,
    /// Binding it to the local address.
    #[error("bind")]
    Bind,
    /// The handshake.
    #[error("connect")]
    Connect,
}

/// One failed attempt of a [`connect`](crate::ClientSocket::connect): which
/// address, how far it got, why it ended and how long it took.
///
/// ```
/// use keepsock::{ClientSocket, ErrorKind};
/// let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
/// let err = ClientSocket::connect(format!("127.0.0.1:{port}")).unwrap_err();
/// assert_eq!(err.attempts()[0].kind, ErrorKind::Refused);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The address that was tried.
    pub address: Address,
    /// The step that failed.
    pub stage: Stage,
    /// Why.
    pub kind: ErrorKind,
    /// The operating system's error number, if it was the system that failed it.
    pub os_error: Option<i32>,
    /// From the start of this attempt to its failure.
    pub elapsed: Duration,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.address)?;
        if self.stage != Stage::Connect {
            write!(f, "{}: ", self.stage)?;
        }
        let after = Span(self.elapsed);
        if self.kind == ErrorKind::Closed {
            return write!(f, "given up after {after}, for another one was faster");
        }
        write!(f, "{} after {after}", Reason(self.kind, self.os_error))
    }
}

/// A failed call: what was done, to which endpoint, at which stage, why, and
/// for a failed connect each [`Attempt`]. Prints as one line for people:
///
/// ```
/// use keepsock::{ClientSocket, ErrorKind};
/// let err = ClientSocket::connect("127.0.0.1:70000").unwrap_err();
/// assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
/// assert_eq!(err.to_string(), "connect to \"127.0.0.1:70000\": port out of range: \"70000\"");
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    endpoint: String,
    stage: Option<Stage>,
    os_error: Option<i32>,
    detail: String,
    transferred: usize,
    elapsed: Option<Duration>,
    /// How many tries there were in that time, if there were to be several.
    tries: Option<u32>,
    attempts: Vec<Attempt>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: &'static str) -> Error {
        Error(Box::new(Inner {
            kind,
            operation,
            endpoint: String::new(),
            stage: None,
            os_error: None,
            detail: String::new(),
            transferred: 0,
            elapsed: None,
            tries: None,
            attempts: Vec::new(),
        }))
    }

    pub(crate) fn os(operation: &'static str, err: &io::Error) -> Error {
        Error::new(ErrorKind::of(err), operation).with_os_error(err.raw_os_error())
    }

    /// The call that an error of a part of it belongs to.
    pub(crate) fn during(mut self, operation: &'static str) -> Error {
        self.0.operation = operation;
        self
    }

    pub(crate) fn with_os_error(mut self, code: Option<i32>) -> Error {
        self.0.os_error = code;
        self
    }

    pub(crate) fn at(mut self, endpoint: impl fmt::Display) -> Error {
        self.0.endpoint = endpoint.to_string();
        self
    }

    pub(crate) fn stage(mut self, stage: Stage) -> Error {
        self.0.stage = Some(stage);
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Error {
        self.0.detail = detail.into();
        self
    }

    /// What [`detail`](Error::detail) said.
    pub(crate) fn reason(&self) -> &str {
        &self.0.detail
    }

    pub(crate) fn after_bytes(mut self, transferred: usize) -> Error {
        self.0.transferred = transferred;
        self
    }

    pub(crate) fn after(mut self, elapsed: Duration) -> Error {
        self.0.elapsed = Some(elapsed);
        self
    }

    /// The last of several tries, and the time from the start of the first.
    pub(crate) fn after_tries(mut self, tries: u32, elapsed: Duration) -> Error {
        self.0.tries = Some(tries);
        self.after(elapsed)
    }

    pub(crate) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Error {
        self.0.attempts = attempts;
        self
    }

    /// What kind of failure it was.
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("nonsense").unwrap_err();
    /// assert_eq!(err.kind(), keepsock::ErrorKind::InvalidEndpoint);
    /// ```
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The call that failed: `"connect"`, `"read"`, `"listen"`, …
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("nonsense").unwrap_err();
    /// assert_eq!(err.operation(), "connect");
    /// ```
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The endpoint or five-tuple it failed on, as text; empty if there is none.
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("nonsense").unwrap_err();
    /// assert_eq!(err.endpoint(), "nonsense");
    /// ```
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// For connect and listen: the step that failed.
    ///
    /// ```
    /// let first = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// let err = keepsock::ServerSocket::listen(first.endpoint()).unwrap_err();
    /// assert_eq!(err.failed_stage(), Some(keepsock::Stage::Bind));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn failed_stage(&self) -> Option<Stage> {
        self.0.stage
    }

    /// The operating system's error number (`errno`), if it was the system that
    /// failed the call.
    ///
    /// ```
    /// let first = keepsock::ServerSocket::listen("127.0.0.1:0")?;
    /// let err = keepsock::ServerSocket::listen(first.endpoint()).unwrap_err();
    /// assert!(err.os_error().is_some());   // EADDRINUSE
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn os_error(&self) -> Option<i32> {
        self.0.os_error
    }

    /// How many bytes this call had moved before it failed. Bytes that were
    /// read are kept for the next read; bytes that were written are on their way.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// server.accept()?.write_all(b"123")?;
    /// client.set_read_timeout(std::time::Duration::from_millis(50))?;
    /// let err = client.read_exact(&mut [0; 10]).unwrap_err();
    /// assert_eq!(err.transferred(), 3);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn transferred(&self) -> usize {
        self.0.transferred
    }

    /// The failed attempts of a connect, in the order they were made.
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("nonsense").unwrap_err();
    /// assert!(err.attempts().is_empty());   // it did not come to an attempt
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        f.write_str(e.operation)?;
        if let [only] = &e.attempts[..] {
            // `connect to [2001:db8::1]:80 (example.com:80): timed out after 5.0 s`
            let tried = only.address.to_string();
            write!(f, " to {tried}")?;
            if tried != e.endpoint {
                write!(f, " ({})", e.endpoint)?;
            }
            f.write_str(": ")?;
            if only.stage != Stage::Connect {
                write!(f, "{}: ", only.stage)?;
            }
            write!(f, "{}", Reason(only.kind, only.os_error))?;
        } else {
            if !e.endpoint.is_empty() {
                let joint = if e.operation == "connect" { " to" } else { "" };
                if e.kind == ErrorKind::InvalidEndpoint {
                    write!(f, "{joint} {:?}", e.endpoint)?;
                } else {
                    write!(f, "{joint} {}", e.endpoint)?;
                }
            }
            f.write_str(": ")?;
            if let Some(stage) = e.stage.filter(|s| *s != Stage::Connect) {
                write!(f, "{stage}: ")?;
            }
            if e.detail.is_empty() || e.kind != ErrorKind::InvalidEndpoint {
                write!(f, "{}", Reason(e.kind, e.os_error))?;
            }
        }
        if !e.detail.is_empty() {
            if e.kind != ErrorKind::InvalidEndpoint {
                f.write_str(": ")?;
            }
            f.write_str(&e.detail)?;
        }
        if let Some(elapsed) = e.elapsed {
            f.write_str(" after ")?;
            if let Some(tries) = e.tries {
                let plural = if tries == 1 { "y" } else { "ies" };
                write!(f, "{tries} tr{plural} in ")?;
            }
            write!(f, "{}", Span(elapsed))?;
        }
        if e.transferred > 0 {
            write!(f, ", {} bytes transferred", e.transferred)?;
        }
        if e.attempts.len() > 1 {
            let sep = |i| if i == 0 { "; tried " } else { "; " };
            for (i, attempt) in e.attempts.iter().enumerate() {
                write!(f, "{}{attempt}", sep(i))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Error {
        match never {}
    }
}

/// For code that speaks `std::io`: the kind is translated, the text kept.
impl From<Error> for io::Error {
    fn from(err: Error) -> io::Error {
        let kind = match err.kind() {
            ErrorKind::InvalidArgument | ErrorKind::InvalidEndpoint => io::ErrorKind::InvalidInput,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::NoMemory => io::ErrorKind::OutOfMemory,
            ErrorKind::Closed => io::ErrorKind::NotConnected,
            ErrorKind::TimedOut
            | ErrorKind::Dead
            | ErrorKind::Stalled
            | ErrorKind::IdleLimit
            | ErrorKind::HeartbeatMissed => io::ErrorKind::TimedOut,
            ErrorKind::WouldBlock => io::ErrorKind::WouldBlock,
            ErrorKind::EndOfStream => io::ErrorKind::UnexpectedEof,
            ErrorKind::TooLong => io::ErrorKind::InvalidData,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::Refused => io::ErrorKind::ConnectionRefused,
            ErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
            ErrorKind::Reset => io::ErrorKind::ConnectionReset,
            ErrorKind::AddressInUse => io::ErrorKind::AddrInUse,
            ErrorKind::AddressNotAvailable => io::ErrorKind::AddrNotAvailable,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, err)
    }
}

/// The reason as people read it; the system's own words where we have none.
struct Reason(ErrorKind, Option<i32>);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (
                ErrorKind::Os
                | ErrorKind::Unreachable
                | ErrorKind::NoMemory
                | ErrorKind::InvalidEndpoint,
                Some(code),
            ) => {
                write!(f, "{}", io::Error::from_raw_os_error(code))
            }
            (kind, _) => write!(f, "{kind}"),
        }
    }
}

/// A duration as people read it: `5.0 s`, `250 ms`, `0.2 ms`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_secs_f64() * 1e3;
        if ms >= 1000.0 {
            write!(f, "{:.1} s", ms / 1e3)
        } else if ms >= 10.0 {
            write!(f, "{ms:.0} ms")
        } else {
            write!(f, "{ms:.1} ms")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn attempt(address: &str, kind: ErrorKind, ms: u64) -> Attempt {
        Attempt {
            address: Address::Inet(address.parse::<SocketAddr>().unwrap()),
            stage: Stage::Connect,
            kind,
            os_error: None,
            elapsed: Duration::from_millis(ms),
        }
    }

    /// E1: operation, address, name, reason and time in one line.
    #[test]
    fn one_attempt_reads_as_a_sentence() {
        let err = Error::new(ErrorKind::TimedOut, "connect")
            .at("example.com:80")
            .after(Duration::from_secs(5))
            .with_attempts(vec![attempt("[2001:db8::1]:80", ErrorKind::TimedOut, 5000)]);
        assert_eq!(
            err.to_string(),
            "connect to [2001:db8::1]:80 (example.com:80): timed out after 5.0 s"
        );
    }

    /// C3: with several attempts, each is listed.
    #[test]
    fn several_attempts_are_listed() {
        let err = Error::new(ErrorKind::Refused, "connect")
            .at("localhost:9")
            .after(Duration::from_micros(1500))
            .with_attempts(vec![
                attempt("[::1]:9", ErrorKind::Refused, 1),
                attempt("127.0.0.1:9", ErrorKind::TimedOut, 250),
            ]);
        assert_eq!(
            err.to_string(),
            "connect to localhost:9: connection refused after 1.5 ms; \
             tried [::1]:9: connection refused after 1.0 ms; 127.0.0.1:9: timed out after 250 ms"
        );
    }

    /// E1: the last of several tries tells how many there were in how much time.
    #[test]
    fn several_tries_are_counted() {
        let one = Error::new(ErrorKind::Refused, "connect")
            .at("127.0.0.1:9")
            .after(Duration::from_micros(100))
            .with_attempts(vec![attempt("127.0.0.1:9", ErrorKind::Refused, 1)]);
        assert_eq!(
            one.clone().after_tries(7, Duration::from_secs(10)).to_string(),
            "connect to 127.0.0.1:9: connection refused after 7 tries in 10.0 s"
        );
        assert_eq!(
            one.after_tries(1, Duration::from_millis(150)).to_string(),
            "connect to 127.0.0.1:9: connection refused after 1 try in 150 ms"
        );
    }

    #[test]
    fn an_unnamed_os_error_speaks_the_systems_words() {
        let err = Error::os("listen", &io::Error::from_raw_os_error(libc::ENOTSOCK)).at("x:1");
        assert_eq!(err.kind(), ErrorKind::Os);
        assert!(err.to_string().contains("os error"), "{err}");
    }
}
