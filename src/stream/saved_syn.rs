//! The SYN that opened an accepted connection (TCP_SAVED_SYN).

use super::ClientSocket;
use super::flags::ACTIVE_OPEN;
use crate::diag::handshake::Segment;
use crate::io::wait::Cause;
use crate::sys;
use crate::types::error::{Error, ErrorKind, Result};

/// The result of the first query. The kernel returns the SYN once, so the socket keeps the result.
#[derive(Debug)]
pub(super) enum Saved {
    Syn(Box<Segment>),
    /// The kernel has not saved the SYN.
    Absent,
    /// The bytes that the kernel has saved are not a SYN.
    Unreadable,
    Failed(ErrorKind, Option<i32>),
}

impl ClientSocket {
    /// Returns the SYN that opened an accepted connection: the peer's initial sequence number, MSS,
    /// window scale, the other options in their order, and the TTL.
    ///
    /// The listener must have the option [`save_syn`](crate::SocketOptions::save_syn). No privilege
    /// is needed. The kernel returns the SYN once, so the first call keeps a copy, which later calls
    /// return, also after close. Connections without a call have no cost. Linux only
    /// (TCP_SAVED_SYN).
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): the kernel has not saved the SYN, because the listener
    ///   does not have `save_syn`, or because the kernel answered with a SYN cookie (RFC 4987).
    /// - [`WrongState`](ErrorKind::WrongState): the socket was made by connect, so this side sent
    ///   the SYN. [`Capture`](crate::Capture) can show it.
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is a Unix socket, or the platform
    ///   does not save the SYN.
    /// - [`Closed`](ErrorKind::Closed): the first call came after close.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call, or
    ///   the saved bytes are not a SYN.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ErrorKind, ServerSocket, SocketOptions, TcpFlags};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// match accepted.saved_syn() {
    ///     Ok(syn) => println!("sequence number {}, MSS {:?}", syn.seq, syn.mss()),
    ///     Err(e) if e.kind() == ErrorKind::NotFound => println!("not saved: {e}"),
    ///     Err(e) => return Err(e),
    /// }
    /// assert_eq!(accepted.saved_syn()?.flags, TcpFlags::SYN);
    /// assert_eq!(client.saved_syn().unwrap_err().kind(), ErrorKind::WrongState);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn saved_syn(&self) -> Result<&Segment> {
        const OPERATION: &str = "saved SYN";
        let failed = |kind: ErrorKind, what: &'static str| -> Result<&Segment> {
            Err(self.failed(OPERATION, kind.into(), 0).detail(what))
        };
        if !self.is_inet() {
            return failed(ErrorKind::Unsupported, "a Unix socket has no SYN");
        }
        if self.has(ACTIVE_OPEN) {
            return failed(
                ErrorKind::WrongState,
                "this side sent the SYN, and only an accepted connection has the SYN of its peer",
            );
        }
        let saved = match self.cold().syn.get() {
            Some(saved) => saved,
            None => {
                let io = self.enter(OPERATION)?;
                // If several threads call at the same time, one of them queries the kernel.
                self.cold().syn.get_or_init(|| Saved::query(io.socket()))
            }
        };
        match saved {
            Saved::Syn(syn) => Ok(syn),
            Saved::Absent => failed(
                ErrorKind::NotFound,
                "not saved: the listener does not have save_syn, or a SYN cookie was used",
            ),
            Saved::Unreadable => failed(ErrorKind::Os, "the kernel saved bytes that are not a SYN"),
            Saved::Failed(kind @ ErrorKind::Unsupported, _) => {
                failed(*kind, "this system does not save the SYN")
            }
            Saved::Failed(kind, os_error) => {
                let error: Error = self.failed(OPERATION, (*kind).into(), 0);
                Err(error.with_os_error(*os_error))
            }
        }
    }
}

impl Saved {
    fn query(socket: sys::Borrowed<'_>) -> Saved {
        match sys::saved_syn(socket) {
            Ok(bytes) if bytes.is_empty() => Saved::Absent,
            Ok(bytes) => Segment::parse(&bytes)
                .map_or(Saved::Unreadable, |segment| Saved::Syn(Box::new(segment))),
            Err(e) => {
                let cause = Cause::from(e);
                Saved::Failed(cause.kind(), cause.os_error())
            }
        }
    }
}
