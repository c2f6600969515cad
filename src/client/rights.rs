//! What only Unix sockets have: descriptors beside the bytes, who the peer is, packets.

use super::{ClientSocket, PACKETS, Patience};

use crate::error::{ErrorKind, Result};
use crate::info::Address;
use crate::sys::{self, Borrowed, InUse, Interest, Owned, Passed, RIGHTS_MAX};
use crate::wait::Cause;

/// What [`read_with_descriptors`](ClientSocket::read_with_descriptors) received.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// How many bytes; 0: the peer closed its side.
    pub len: usize,
    /// The descriptors that came with them, close-on-exec. Those that nobody takes from here are
    /// closed.
    pub descriptors: Vec<Owned>,
    /// More descriptors came than were wanted, or than this process may have
    /// (RLIMIT_NOFILE); the others were closed.
    pub lost: bool,
}

/// Who is at the other end of a Unix socket: the process that called connect(2), or, for the
/// connecting side, the one that called listen(2), as it was then. It may have given the socket
/// to another one since (unix(7), SO_PEERCRED).
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use keepsock::{ClientSocket, ServerSocket};
/// let server = ServerSocket::listen("unix:@keepsock-credentials-example")?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// let peer = server.accept()?.peer_credentials()?;
/// assert_eq!(peer.pid, Some(std::process::id()));
/// println!("user {} of group {}", peer.uid, peer.gid);
/// # }
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// The process; `None` where the system does not tell (FreeBSD), and for one of a PID
    /// namespace that this process does not see into.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl ClientSocket {
    /// Who the peer is, by what the kernel knows. Unix sockets only.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for TCP, which knows addresses only;
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("unix:@keepsock-peer-example")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// if accepted.peer_credentials()?.uid == 0 {
    ///     println!("root is here");
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn peer_credentials(&self) -> Result<Credentials> {
        const OPERATION: &str = "peer credentials";
        let io = self.enter(OPERATION)?;
        self.is_unix(OPERATION)?;
        sys::peer_credentials(io.socket()).map_err(|e| self.os_failed(OPERATION, e))
    }

    /// Writes some of `bytes`, as [`write`](ClientSocket::write) does, and with the first of
    /// them descriptors: files, sockets ([`borrow`](ClientSocket::borrow) and
    /// [`ServerSocket::borrow`](crate::ServerSocket::borrow)), pipes. The peer gets descriptors of
    /// its own for them, and this process keeps its own. Unix sockets only.
    ///
    /// Succeeding, the kernel has all of the descriptors, whatever it took of the bytes: write
    /// the rest without them. A socket that is passed is one and the same in both processes:
    /// stop using it here, and [`release`](ClientSocket::release) and drop it rather than
    /// [`close`](ClientSocket::close) it, which would end the connection for both.
    ///
    /// # Errors
    /// Those of [`write`](ClientSocket::write), and then no descriptor was sent;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) without a byte to go with them, or for
    /// more than 253 descriptors (unix(7), SCM_MAX_FD);
    /// [`NoDescriptors`](ErrorKind::NoDescriptors): too many are on their way already;
    /// [`Unsupported`](ErrorKind::Unsupported) for TCP, and on Windows.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # use std::os::fd::AsFd;
    /// # let worker = ServerSocket::listen("unix:@keepsock-rights-example")?;
    /// # let to_worker = ClientSocket::connect(worker.endpoint())?;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let visitor = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// to_worker.write_with_descriptors(b"serve it", &[accepted.borrow()?.as_fd()])?;
    /// drop(accepted.release()?);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn write_with_descriptors(
        &self,
        bytes: &[u8],
        descriptors: &[Borrowed<'_>],
    ) -> Result<usize> {
        const OPERATION: &str = "write";
        let io = self.enter(OPERATION)?;
        self.is_unix(OPERATION)?;
        let invalid = |what: &str| {
            Err(self.failed(OPERATION, ErrorKind::InvalidArgument.into(), 0).detail(what))
        };
        if bytes.is_empty() {
            return invalid("descriptors go with at least one byte");
        }
        if descriptors.len() > RIGHTS_MAX {
            let count = descriptors.len();
            return invalid(&format!("{count} descriptors, and {RIGHTS_MAX} may go at once"));
        }
        let mut patience = Patience::new(&self.write_timeout, None);
        let written = self.take_turn(&io, &patience).and_then(|turn| {
            self.finish_heartbeat(&io, &mut patience, &turn)?;
            let done = self.send(&io, &mut patience, |wait| {
                sys::send_with_rights(io.socket(), bytes, None, descriptors, wait)
            })?;
            self.note_call(done, bytes.len());
            Ok(done)
        });
        written.map_err(|cause| self.failed(OPERATION, cause, 0))
    }

    /// Reads some bytes, as [`read`](ClientSocket::read) does, and at most `max` of the descriptors
    /// that came with them. They are close-on-exec, and are this process's own; others are
    /// closed, and told by [`lost`](Received::lost). Unix sockets only.
    ///
    /// Descriptors come with the first of the bytes that they were sent with, and whoever reads
    /// those without taking descriptors, by [`read`](ClientSocket::read) or in lines, has the
    /// kernel close them. So a peer cannot fill this process with descriptors that it does not
    /// want. Bytes that were read ahead are given first; none came with them.
    ///
    /// # Errors
    /// Those of [`read`](ClientSocket::read);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a `max` above 253;
    /// [`Unsupported`](ErrorKind::Unsupported) for TCP, and on Windows. On a socket for
    /// [packets](crate::SocketOptions::sequenced)
    /// [`TooLong`](ErrorKind::TooLong): its descriptors are closed, too.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # use std::os::fd::AsFd;
    /// # let dispatcher = ServerSocket::listen("unix:@keepsock-received-example")?;
    /// # let worker = ClientSocket::connect(dispatcher.endpoint())?;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let visitor = ClientSocket::connect(server.endpoint())?;
    /// # dispatcher.accept()?.write_with_descriptors(b"serve it", &[server.accept()?.borrow()?.as_fd()])?;
    /// let mut order = [0; 512];
    /// let mut received = worker.read_with_descriptors(&mut order, 1)?;
    /// if let Some(socket) = received.descriptors.pop() {
    ///     let client = ClientSocket::from_owned(socket, &SocketOptions::new()).map_err(|(_, e)| e)?;
    ///     client.write_all(b"hello\n")?;
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn read_with_descriptors(&self, buf: &mut [u8], max: usize) -> Result<Received> {
        const OPERATION: &str = "read";
        let io = self.enter(OPERATION)?;
        self.is_unix(OPERATION)?;
        if max > RIGHTS_MAX {
            let what = format!("{max} descriptors, and {RIGHTS_MAX} may come at once");
            return Err(self.failed(OPERATION, ErrorKind::InvalidArgument.into(), 0).detail(what));
        }
        self.may_read(&io)?;
        let none = |len| Received { len, descriptors: Vec::new(), lost: false };
        if buf.is_empty() {
            return Ok(none(0));
        }
        let buffered = self.take_buffered(buf);
        if buffered > 0 {
            return Ok(none(buffered));
        }
        let mut patience = Patience::new(&self.read_timeout, None);
        let passed = self.recv_passed(&io, buf, max, &mut patience)?;
        Ok(Received {
            len: passed.received.len,
            descriptors: passed.descriptors,
            lost: passed.lost,
        })
    }

    /// One read of bytes, and of descriptors or a packet.
    pub(super) fn recv_passed(
        &self,
        io: &InUse<'_>,
        buf: &mut [u8],
        max: usize,
        patience: &mut Patience,
    ) -> Result<Passed> {
        let mut passed = Passed::default();
        let received = self.step(io, patience, Interest::Read, |wait| {
            passed = sys::recv_with_rights(io.socket(), buf, max, false, wait)?;
            Ok(passed.received.original_len)
        });
        let received = received.and_then(|n| if n == 0 { self.at_end(io) } else { Ok(n) });
        let cut = passed.received.truncated && self.has(PACKETS);
        match received {
            Err(cause) => Err(self.failed("read", cause, 0)),
            Ok(_) if cut => {
                let (len, room) = (passed.received.original_len, buf.len());
                let what = if len > room {
                    format!("a packet of {len} bytes, and {room} were asked for")
                } else {
                    format!("a packet of more than the {room} bytes that were asked for")
                };
                Err(self.failed("read", ErrorKind::TooLong.into(), 0).detail(what))
            }
            Ok(_) => Ok(passed),
        }
    }

    pub(super) fn is_unix(&self, operation: &'static str) -> Result<()> {
        match self.remote {
            Address::Inet(_) => {
                let error = self.failed(operation, ErrorKind::Unsupported.into(), 0);
                Err(error.detail("for Unix sockets only"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn is_for_packets(&self) -> bool {
        self.has(PACKETS)
    }

    /// Refuses what has no meaning where bytes come in packets.
    #[inline]
    pub(super) fn is_stream(&self, operation: &'static str) -> Result<()> {
        if self.has(PACKETS) { Err(self.is_no_stream(operation)) } else { Ok(()) }
    }

    #[cold]
    fn is_no_stream(&self, operation: &'static str) -> crate::Error {
        let error = self.failed(operation, ErrorKind::WrongState.into(), 0);
        error.detail("a socket for packets, which are read and written whole")
    }

    /// Refuses to write an empty packet.
    #[inline]
    pub(super) fn is_packet(&self, len: usize) -> Result<()> {
        if len == 0 && self.has(PACKETS) { Err(self.is_empty_packet()) } else { Ok(()) }
    }

    #[cold]
    fn is_empty_packet(&self) -> crate::Error {
        let error = self.failed("write", ErrorKind::InvalidArgument.into(), 0);
        error.detail("an empty packet would look like the end")
    }

    /// A write of a packet that the system does not take for its length.
    #[cold]
    pub(super) fn if_too_long(cause: Cause) -> Cause {
        let code = cause.os_error().map(std::io::Error::from_raw_os_error);
        if code.is_some_and(|e| sys::is_too_long(&e)) {
            return ErrorKind::TooLong.into();
        }
        cause
    }
}
