//! Errors: the kind for programs, and the text for people.

use std::fmt::{self, Write as _};
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::types::address::{Address, AddressUse, Unusable};

/// The result of every keepsock call.
pub type Result<T> = std::result::Result<T, Error>;

// Rust and C share one table of numbers: cbindgen writes this enumeration into the C header as
// `keepsock_status`. Numbers never change, related kinds have neighboring numbers with gaps, and a
// number is never used again with another meaning.
/// The kind of a failure. Its number is the status code of the C API. Numbers never change their
/// meaning. New kinds may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// An argument is NULL, out of range, or not UTF-8.
    #[error("invalid argument")]
    InvalidArgument = -1,
    /// The endpoint has a syntax error, or names a zone or an interface that does not exist on this
    /// machine.
    #[error("invalid endpoint")]
    InvalidEndpoint = -2,
    /// The object does not permit the call in its present state.
    #[error("wrong state")]
    WrongState = -3,
    /// This platform, this kernel or this type of socket does not support the operation.
    #[error("not supported")]
    Unsupported = -4,
    /// The process has no memory for an object or for copied bytes, the kernel has no memory or no
    /// socket buffers, or the system starts no more threads.
    #[error("out of memory")]
    NoMemory = -5,
    /// A defect of keepsock. The object can only be freed.
    #[error("internal error")]
    Panic = -6,
    /// This program closed, aborted or released the object, in any thread, or a service reset the
    /// connection of a handler.
    #[error("closed")]
    Closed = -10,
    /// The cancel token of the object is fired.
    #[error("cancelled")]
    Cancelled = -11,
    /// The timeout of the call expired. Received bytes stay readable. The error object has the number
    /// of bytes that were sent.
    #[error("timed out")]
    TimedOut = -12,
    /// The call would wait, and the socket is in non-blocking mode.
    #[error("would block")]
    WouldBlock = -13,
    /// The service is draining and reads no more input from this connection. The handler can still
    /// write, and should return.
    #[error("draining")]
    Draining = -14,
    /// The peer closed its side before the requested bytes arrived.
    #[error("end of stream")]
    EndOfStream = -15,
    /// A message, a line, a packet or a text is longer than its maximum or the buffer. Bytes of a
    /// stream stay readable. A received packet is lost.
    #[error("longer than the maximum")]
    TooLong = -16,
    /// The idle timeout or the first-byte timeout expired. Reads fail from now on. The program may
    /// write a last message, and should close the connection. Or the PROXY header did not arrive in
    /// time: the connection was reset.
    #[error("idle timeout")]
    IdleTimeout = -17,
    /// The peer did not answer a heartbeat within the heartbeat timeout. Reads fail from now on, and
    /// the program should close the connection.
    #[error("heartbeat timeout")]
    HeartbeatTimeout = -18,
    /// The peer sent a message with a length that is malformed in the framing of the call: the bytes
    /// stay readable. Or a PROXY header or the report of a successor process is malformed.
    #[error("malformed message")]
    Malformed = -19,
    /// The host, the service or the path of the Unix socket does not exist.
    #[error("not found")]
    NotFound = -30,
    /// The resolver failed. A retry may succeed.
    #[error("name lookup failed")]
    LookupFailed = -31,
    /// The peer refused the connection, because no socket listens at the address.
    #[error("connection refused")]
    Refused = -40,
    /// There is no route to the address, or a router or firewall reported by ICMP that the peer cannot
    /// be reached. Examples are host unreachable and administratively prohibited. ICMP port unreachable is [`Refused`](ErrorKind::Refused) while connecting, and this
    /// kind later.
    #[error("unreachable")]
    Unreachable = -41,
    /// The peer or a device on the path reset the connection (RST), or this side wrote to a peer that
    /// had closed.
    #[error("connection reset by peer")]
    Reset = -42,
    /// The peer did not answer keepalive probes or acknowledge data.
    #[error("peer is dead")]
    Dead = -43,
    /// Another socket uses the local endpoint, or no local port is free.
    #[error("address in use")]
    AddressInUse = -44,
    /// The local address is not an address of this machine.
    #[error("address not available")]
    AddressNotAvailable = -45,
    /// This machine does not permit the operation: the process lacks a privilege, or a policy of
    /// the local system (firewall, route) forbids it. If a remote firewall rejects a connection,
    /// the kind is [`Unreachable`](ErrorKind::Unreachable).
    #[error("permission denied")]
    PermissionDenied = -46,
    /// The process or the system has no free file descriptor.
    #[error("out of file descriptors")]
    NoDescriptors = -47,
    /// The peer's kernel answers, but the peer accepts no data: for `dead_after` with `fail_on_stall`,
    /// or until a send queue exceeded its limit.
    #[error("peer takes no data")]
    Stalled = -48,
    /// Another error of the operating system. The error object has its number.
    #[error("operating system error")]
    Os = -99,
}

impl ErrorKind {
    /// Returns the status code of the C API, a negative number that never changes.
    ///
    /// ```
    /// assert_eq!(keepsock::ErrorKind::TimedOut.code(), -12);
    /// ```
    pub const fn code(self) -> i32 {
        self as i32
    }
}

/// The phase of communication that an error of the network concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// A handshake in progress.
    Handshake,
    /// An established connection.
    Connection,
    /// A datagram that was sent earlier.
    Datagram,
}

/// The step at which connecting or listening failed.
///
/// ```
/// assert_eq!(keepsock::Stage::Lookup.to_string(), "lookup");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Stage {
    /// The lookup of the name.
    #[error("lookup")]
    Lookup,
    /// The creation of the socket.
    #[error("socket")]
    Socket,
    /// Setting the options of the socket.
    #[error("options")]
    Options,
    /// Binding the socket to the local address.
    #[error("bind")]
    Bind,
    /// The handshake.
    #[error("connect")]
    Connect,
}

/// One failed attempt of a [`connect`](crate::ClientSocket::connect): its address, the failed step,
/// the reason and the duration.
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
    /// The address of the attempt.
    pub address: Address,
    /// The failed step.
    pub stage: Stage,
    /// The reason.
    pub kind: ErrorKind,
    /// The error number of the operating system, if a system call failed.
    pub os_error: Option<i32>,
    /// The time from the start of the attempt to its failure.
    pub elapsed: Duration,
    /// The text of the error, in addition to the kind and the error number.
    pub(crate) detail: String,
}

impl Attempt {
    fn reason(&self) -> String {
        match self.address {
            // A lookup has found an address to which no socket can connect. An error of the system
            // concerns the interface.
            Address::Inet(address)
                if self.kind == ErrorKind::InvalidEndpoint && self.os_error.is_none() =>
            {
                let why = AddressUse::StreamPeer.rejects(address).unwrap_or(Unusable::NoZone);
                why.describe(address.ip())
            }
            _ if self.detail.is_empty() => Reason(self.kind, self.os_error).to_string(),
            _ => format!("{}: {}", Reason(self.kind, self.os_error), self.detail),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.address)?;
        if self.stage != Stage::Connect {
            write!(f, "{}: ", self.stage)?;
        }
        if self.stage == Stage::Options {
            // The time says nothing about an option that cannot be set.
            return f.write_str(&self.reason());
        }
        let after = Span(self.elapsed);
        if self.kind == ErrorKind::Closed {
            return write!(f, "abandoned after {after}: another address connected first");
        }
        write!(f, "{} after {after}", self.reason())
    }
}

/// The error of a failed call: the operation, the endpoint, the failed step, the reason, and each
/// [`Attempt`] of a failed connect. The text is one line:
///
/// ```
/// use keepsock::{ClientSocket, ErrorKind};
/// let err = ClientSocket::connect("127.0.0.1:70000").unwrap_err();
/// assert_eq!(err.kind(), ErrorKind::InvalidEndpoint);
/// assert_eq!(
///     err.to_string(),
///     "connect to \"127.0.0.1:70000\": port out of range: \"70000\": the largest port is 65535"
/// );
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    place: Place,
    /// The local address or interface, if the failure concerns it.
    local: Option<String>,
    stage: Option<Stage>,
    os_error: Option<i32>,
    /// The error code of getaddrinfo(3).
    lookup_code: Option<i32>,
    detail: String,
    transferred: usize,
    elapsed: Option<Duration>,
    /// The number of tries in that time, for operations that retry.
    tries: Option<u32>,
    attempts: Vec<Attempt>,
}

/// The endpoint or five-tuple that a call failed on.
#[derive(Clone)]
enum Place {
    Text(String),
    /// A value, and its text after it was first read.
    Value(Arc<dyn Printable>, OnceLock<String>),
}

/// A value whose text is made later, by any thread.
pub(crate) trait Printable: fmt::Display + Send + Sync + UnwindSafe + RefUnwindSafe {}

impl<T: fmt::Display + Send + Sync + UnwindSafe + RefUnwindSafe> Printable for T {}

impl Place {
    fn as_str(&self) -> &str {
        match self {
            Place::Text(text) => text,
            Place::Value(value, text) => text.get_or_init(|| value.to_string()),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: &'static str) -> Error {
        Error(Box::new(Inner {
            kind,
            operation,
            place: Place::Text(String::new()),
            local: None,
            stage: None,
            os_error: None,
            lookup_code: None,
            detail: String::new(),
            transferred: 0,
            elapsed: None,
            tries: None,
            attempts: Vec::new(),
        }))
    }

    /// Sets the operation to that of the public call.
    pub(crate) fn during(mut self, operation: &'static str) -> Error {
        self.0.operation = operation;
        self
    }

    pub(crate) fn with_os_error(mut self, code: Option<i32>) -> Error {
        self.0.os_error = code;
        self
    }

    pub(crate) fn with_lookup_code(mut self, code: Option<i32>) -> Error {
        self.0.lookup_code = code;
        self
    }

    pub(crate) fn at(mut self, endpoint: impl fmt::Display) -> Error {
        self.0.place = Place::Text(endpoint.to_string());
        self
    }

    /// Sets the endpoint, as [`at`](Error::at) does, for frequent errors: the text is made when it
    /// is read.
    pub(crate) fn on(mut self, endpoint: impl Printable + 'static) -> Error {
        self.0.place = Place::Value(Arc::new(endpoint), OnceLock::new());
        self
    }

    /// Records that the failure concerns the local address of a connect.
    pub(crate) fn with_local(self, local: impl fmt::Display) -> Error {
        self.with_local_side(Some(local), None)
    }

    /// Records the local address and the interface that a connect was to use, if they were chosen
    /// by the caller.
    pub(crate) fn with_local_side(
        mut self,
        local: Option<impl fmt::Display>,
        interface: Option<&str>,
    ) -> Error {
        let local = local.map(|local| format!("local address {:?}", local.to_string()));
        let interface = interface.map(|name| format!("interface {name:?}"));
        self.0.local = match (local, interface) {
            (Some(local), Some(interface)) => Some(format!("{local}, {interface}")),
            (one, other) => one.or(other),
        };
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

    /// Returns the text that [`detail`](Error::detail) set.
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

    /// Records that this is the error of the last of several tries, and the time since the start of
    /// the first try.
    pub(crate) fn after_tries(mut self, tries: u32, elapsed: Duration) -> Error {
        self.0.tries = Some(tries);
        self.after(elapsed)
    }

    pub(crate) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Error {
        self.0.attempts = attempts;
        self
    }

    /// Returns the kind of the failure.
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("nonsense").unwrap_err();
    /// assert_eq!(err.kind(), keepsock::ErrorKind::InvalidEndpoint);
    /// ```
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the name of the failed call: `"connect"`, `"read"`, `"listen"`, …
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("nonsense").unwrap_err();
    /// assert_eq!(err.operation(), "connect");
    /// ```
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// Returns the endpoint or five-tuple of the failed call as text. Empty: there is none. An invalid
    /// endpoint is returned as the caller passed it, with any control characters, which the text of the
    /// error escapes.
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("nonsense").unwrap_err();
    /// assert_eq!(err.endpoint(), "nonsense");
    /// ```
    pub fn endpoint(&self) -> &str {
        self.0.place.as_str()
    }

    /// Returns the failed step of a connect or listen.
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

    /// Returns the error number of the operating system (`errno`), if a system call failed.
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

    /// Returns the error code of getaddrinfo(3) (`EAI_NONAME`, `EAI_AGAIN`, …), if a name lookup
    /// failed. `None` for other failures, and on Windows.
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("127.0.0.1:no-such-service").unwrap_err();
    /// # if cfg!(unix) {
    /// assert!(err.lookup_code().is_some());   // EAI_SERVICE
    /// # }
    /// ```
    pub fn lookup_code(&self) -> Option<i32> {
        self.0.lookup_code
    }

    /// Returns the number of bytes that the call transferred before it failed. Received bytes stay
    /// readable; sent bytes are on their way to the peer.
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

    /// Returns the failed attempts of a connect, in the order in which they ended.
    ///
    /// ```
    /// let err = keepsock::ClientSocket::connect("nonsense").unwrap_err();
    /// assert!(err.attempts().is_empty());   // the endpoint is invalid, so no address was tried
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        let endpoint = e.place.as_str();
        let local = |f: &mut fmt::Formatter<'_>| match &e.local {
            Some(local) => write!(f, "{local}: "),
            None => Ok(()),
        };
        let mut says_reason = true;
        f.write_str(e.operation)?;
        if let [only] = &e.attempts[..] {
            // `connect to [2001:db8::1]:80 (example.com:80): timed out after 5.0 s`
            let tried = only.address.to_string();
            write!(f, " to {tried}")?;
            if tried != endpoint {
                write!(f, " ({endpoint})")?;
            }
            f.write_str(": ")?;
            local(f)?;
            if only.stage != Stage::Connect {
                write!(f, "{}: ", only.stage)?;
            }
            f.write_str(&only.reason())?;
        } else {
            if !endpoint.is_empty() {
                let joint = if e.operation == "connect" { " to" } else { "" };
                let is_text = matches!(e.place, Place::Text(_));
                if e.kind == ErrorKind::InvalidEndpoint && is_text && e.os_error.is_none() {
                    write!(f, "{joint} {endpoint:?}")?;
                } else {
                    write!(f, "{joint} {endpoint}")?;
                }
            }
            f.write_str(": ")?;
            local(f)?;
            // A stage that has the name of the operation adds nothing.
            let stage = e.stage.map(|stage| stage.to_string());
            if let Some(stage) = stage.filter(|stage| stage != "connect" && *stage != e.operation) {
                write!(f, "{stage}: ")?;
            }
            // The detail of an invalid endpoint says more than the kind.
            says_reason =
                e.detail.is_empty() || e.kind != ErrorKind::InvalidEndpoint || e.os_error.is_some();
            if says_reason {
                write!(f, "{}", Reason(e.kind, e.os_error))?;
            }
        }
        if !e.detail.is_empty() {
            if says_reason {
                f.write_str(": ")?;
            }
            f.write_str(&e.detail)?;
            if e.detail == EMPTY_HOST {
                write!(f, ": {}", remedy_of_empty_host(e.operation))?;
            }
        }
        // The time says nothing about an option that cannot be set.
        let is_option = e.stage == Some(Stage::Options) && e.tries.is_none();
        if let Some(elapsed) = e.elapsed.filter(|_| !is_option) {
            f.write_str(" after ")?;
            if let Some(tries) = e.tries {
                let plural = if tries == 1 { "y" } else { "ies" };
                write!(f, "{tries} tr{plural} in ")?;
            }
            write!(f, "{}", Span(elapsed))?;
        }
        if e.transferred > 0 {
            let plural = if e.transferred == 1 { "" } else { "s" };
            write!(f, ", {} byte{plural} transferred", e.transferred)?;
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

/// Converts the kind and keeps the text, for code that uses `std::io`.
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
            | ErrorKind::IdleTimeout
            | ErrorKind::HeartbeatTimeout => io::ErrorKind::TimedOut,
            ErrorKind::WouldBlock => io::ErrorKind::WouldBlock,
            ErrorKind::EndOfStream => io::ErrorKind::UnexpectedEof,
            ErrorKind::TooLong | ErrorKind::Malformed => io::ErrorKind::InvalidData,
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

/// The reason as text: the system's message where it says more than the kind.
struct Reason(ErrorKind, Option<i32>);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (ErrorKind::AddressInUse, Some(code))
                if ErrorKind::of(&io::Error::from_raw_os_error(code)) != self.0 =>
            {
                f.write_str("no free local port")
            }
            // The network never reports EINVAL.
            (ErrorKind::Unreachable, Some(libc::EINVAL)) if cfg!(unix) => {
                f.write_str("unreachable: a route of this machine discards the packets (blackhole)")
            }
            (ErrorKind::Unreachable, Some(code))
                if ErrorKind::of(&io::Error::from_raw_os_error(code)) != self.0 =>
            {
                // The system's message does not say that the network reported the error.
                let said = io::Error::from_raw_os_error(code);
                write!(f, "unreachable: the network reported {said}")
            }
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

/// The detail of an error about an endpoint without a host. The text of the error adds what to
/// write instead, which depends on the operation.
pub(crate) const EMPTY_HOST: &str = "empty host";

fn remedy_of_empty_host(operation: &str) -> &'static str {
    match operation {
        "connect" | "send" => "write the name or the address of the peer",
        "listen" => "write \"*\" to listen on every address",
        "bind" => "write \"*\" to receive on every address",
        _ => "write a name or an address; \"*\" means every address when listening or binding",
    }
}

/// The detail of an error about a write after the shutdown of this side.
pub(crate) const SHUT_DOWN: &str = "shutdown_write was called earlier: write all data before it";

/// The detail of an error about a descriptor that a call of another thread uses.
pub(crate) const IN_USE: &str =
    "another thread or a borrowed descriptor uses the socket: end that use first";

/// The detail of an error about an index after the last element of a list with `count` elements.
pub(crate) fn no_element(name: &str, index: usize, count: usize) -> String {
    match count.checked_sub(1) {
        Some(last) => format!("there is no {name} with index {index}; the last has index {last}"),
        None => format!("there is no {name}"),
    }
}

/// A number of milliseconds or bytes for people, as in the documentation: `1,500`.
pub(crate) struct Grouped<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Grouped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.char_indices() {
            if i > 0 && (digits.len() - i) % 3 == 0 {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// A number of bytes for people: `1 byte`, `1,500 bytes`.
pub(crate) struct Bytes(pub(crate) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", Grouped(self.0), if self.0 == 1 { "" } else { "s" })
    }
}

/// An argument or a limit in the unit in which a C program writes it: `1,500 ms`, `0.5 ms`.
pub(crate) struct Millis(pub(crate) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, rest) = (self.0.as_millis(), self.0.subsec_nanos() % 1_000_000);
        let fraction = format!(".{rest:06}");
        write!(f, "{}{} ms", Grouped(ms), fraction.trim_end_matches(['.', '0']))
    }
}

/// A duration as text: `5.0 s`, `250 ms`, `0.2 ms`.
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

    /// E1: an error becomes an error of the standard library with the same text and a fitting kind.
    #[test]
    fn io_error_of_an_error_has_its_kind_and_text() {
        for (kind, expected) in [
            (ErrorKind::InvalidArgument, io::ErrorKind::InvalidInput),
            (ErrorKind::InvalidEndpoint, io::ErrorKind::InvalidInput),
            (ErrorKind::Unsupported, io::ErrorKind::Unsupported),
            (ErrorKind::NoMemory, io::ErrorKind::OutOfMemory),
            (ErrorKind::Closed, io::ErrorKind::NotConnected),
            (ErrorKind::TimedOut, io::ErrorKind::TimedOut),
            (ErrorKind::Dead, io::ErrorKind::TimedOut),
            (ErrorKind::WouldBlock, io::ErrorKind::WouldBlock),
            (ErrorKind::EndOfStream, io::ErrorKind::UnexpectedEof),
            (ErrorKind::Malformed, io::ErrorKind::InvalidData),
            (ErrorKind::NotFound, io::ErrorKind::NotFound),
            (ErrorKind::Refused, io::ErrorKind::ConnectionRefused),
            (ErrorKind::Unreachable, io::ErrorKind::HostUnreachable),
            (ErrorKind::Reset, io::ErrorKind::ConnectionReset),
            (ErrorKind::AddressInUse, io::ErrorKind::AddrInUse),
            (ErrorKind::AddressNotAvailable, io::ErrorKind::AddrNotAvailable),
            (ErrorKind::PermissionDenied, io::ErrorKind::PermissionDenied),
            (ErrorKind::Cancelled, io::ErrorKind::Other),
        ] {
            let error = Error::new(kind, "read").at("here");
            let text = error.to_string();
            let error = io::Error::from(error);
            assert_eq!((error.kind(), error.to_string()), (expected, text), "{kind:?}");
        }
    }
    use std::net::SocketAddr;

    fn attempt(address: &str, kind: ErrorKind, ms: u64) -> Attempt {
        Attempt {
            address: Address::Inet(address.parse::<SocketAddr>().unwrap()),
            stage: Stage::Connect,
            kind,
            os_error: None,
            elapsed: Duration::from_millis(ms),
            detail: String::new(),
        }
    }

    /// E1: one line contains the operation, the address, the name, the reason and the time.
    #[test]
    fn display_of_one_attempt_is_one_line() {
        let err = Error::new(ErrorKind::TimedOut, "connect")
            .at("example.com:80")
            .after(Duration::from_secs(5))
            .with_attempts(vec![attempt("[2001:db8::1]:80", ErrorKind::TimedOut, 5000)]);
        assert_eq!(
            err.to_string(),
            "connect to [2001:db8::1]:80 (example.com:80): timed out after 5.0 s"
        );
    }

    /// C3: each of several attempts is listed.
    #[test]
    fn display_lists_several_attempts() {
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

    /// E1: a time has the unit of the caller's argument, and no digit is lost.
    #[test]
    fn display_of_argument_is_in_milliseconds() {
        for (nanos, text) in [
            (0, "0 ms"),
            (500_000, "0.5 ms"),
            (1, "0.000001 ms"),
            (1_500_000_000, "1,500 ms"),
            (10_000_000, "10 ms"),
        ] {
            assert_eq!(Millis(Duration::from_nanos(nanos)).to_string(), text);
        }
        assert_eq!(Millis(Duration::from_secs(163_880)).to_string(), "163,880,000 ms");
    }

    /// E1: the text contains the number of tries and the total time.
    #[test]
    fn display_counts_tries() {
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
    fn display_of_other_os_error_contains_system_message() {
        let err = Error::os("listen", &io::Error::from_raw_os_error(libc::ENOTSOCK)).at("x:1");
        assert_eq!(err.kind(), ErrorKind::Os);
        assert!(err.to_string().contains("os error"), "{err}");
    }
}
