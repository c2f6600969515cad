//! The SYN that opened an accepted connection.

use super::{CONNECTED, ClientSocket};
use crate::error::{Error, ErrorKind, Result};
use crate::handshake::Segment;
use crate::info::Address;
use crate::sys;
use crate::wait::Cause;

/// What the kernel had. It has it once, so this is kept, whatever it is.
#[derive(Debug)]
pub(super) enum Saved {
    Syn(Box<Segment>),
    Nothing,
    /// What the kernel gave cannot be read.
    Unreadable,
    Failed(ErrorKind, Option<i32>),
}

impl ClientSocket {
    /// The SYN that opened an accepted connection: the peer's initial sequence number, MSS,
    /// window scale and other options in their order, TTL. Its listener must have been
    /// told to [`save_syn`](crate::SocketOptions::save_syn). No privilege is needed (Linux:
    /// TCP_SAVED_SYN).
    ///
    /// The kernel gives it once and forgets it; the socket keeps its copy. Asked once, it
    /// can be had again at any time, also after close. Whoever does not ask pays nothing.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): the kernel has not kept it, for its listener did not ask
    /// for that, or was so busy that it answered with a SYN cookie (RFC 4987) and kept nothing.
    /// [`WrongState`](ErrorKind::WrongState): the socket was made by connect, so it was this side
    /// that sent the SYN; [`Capture`](crate::Capture) can show it.
    /// [`Unsupported`](ErrorKind::Unsupported): a Unix socket, which has none, or a
    /// platform that keeps none; the error says which.
    /// [`Closed`](ErrorKind::Closed): it was not asked for before the socket was closed.
    ///
    /// ```
    /// use keepsock::{ClientSocket, ErrorKind, ServerSocket, SocketOptions, TcpFlags};
    /// # if !cfg!(target_os = "linux") { return Ok(()) }
    /// let server = ServerSocket::listen_with("127.0.0.1:0", &SocketOptions::new().save_syn(true))?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// match accepted.syn() {
    ///     Ok(syn) => println!("sequence number {}, MSS {:?}", syn.seq, syn.mss()),
    ///     Err(e) if e.kind() == ErrorKind::NotFound => println!("not kept: {e}"),
    ///     Err(e) => return Err(e),
    /// }
    /// assert_eq!(accepted.syn()?.flags, TcpFlags::SYN);
    /// assert_eq!(client.syn().unwrap_err().kind(), ErrorKind::WrongState);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn syn(&self) -> Result<&Segment> {
        const OPERATION: &str = "saved SYN";
        let failed = |kind: ErrorKind, what: &'static str| -> Result<&Segment> {
            Err(self.failed(OPERATION, kind.into(), 0).detail(what))
        };
        if !matches!(self.remote, Address::Inet(_)) {
            return failed(ErrorKind::Unsupported, "a Unix socket has none");
        }
        if self.has(CONNECTED) {
            return failed(ErrorKind::WrongState, "this side has sent the SYN");
        }
        let saved = match self.rare().syn.get() {
            Some(saved) => saved,
            None => {
                let io = self.enter(OPERATION)?;
                // Of several threads that ask at once, one asks the kernel.
                self.rare().syn.get_or_init(|| Saved::read(io.socket()))
            }
        };
        match saved {
            Saved::Syn(syn) => Ok(syn),
            Saved::Nothing => failed(
                ErrorKind::NotFound,
                "not kept: the listener did not ask for it (save_syn), or a SYN cookie was used",
            ),
            Saved::Unreadable => failed(ErrorKind::Os, "what the kernel has kept is no SYN"),
            Saved::Failed(kind @ ErrorKind::Unsupported, _) => {
                failed(*kind, "this system keeps no SYN")
            }
            Saved::Failed(kind, os_error) => {
                let error: Error = self.failed(OPERATION, (*kind).into(), 0);
                Err(error.with_os_error(*os_error))
            }
        }
    }
}

impl Saved {
    fn read(socket: sys::Borrowed<'_>) -> Saved {
        match sys::saved_syn(socket) {
            Ok(bytes) if bytes.is_empty() => Saved::Nothing,
            Ok(bytes) => Segment::parse(&bytes)
                .map_or(Saved::Unreadable, |segment| Saved::Syn(Box::new(segment))),
            Err(e) => {
                let cause = Cause::from(e);
                Saved::Failed(cause.kind(), cause.os_error())
            }
        }
    }
}
