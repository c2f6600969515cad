//! Unix sockets: passed descriptors (SCM_RIGHTS), peer credentials, packets (SOCK_SEQPACKET).

use super::ClientSocket;
use super::flags::SEQPACKET;
use crate::io::timeout::CallTimeout;
use crate::io::wait::Cause;
use crate::sys::{self, Borrowed, InUse, Interest, Owned, Passed, RIGHTS_MAX};
use crate::types::credentials::Credentials;
use crate::types::error::{Bytes, Error, ErrorKind, Result};

/// The result of [`recv_with_descriptors`](ClientSocket::recv_with_descriptors).
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// The number of bytes. 0: the peer has closed its side.
    pub len: usize,
    /// The descriptors that arrived with the bytes. They have the close-on-exec flag. Dropping the
    /// vector closes them.
    pub descriptors: Vec<Owned>,
    /// Some descriptors were closed, because more arrived than the call allowed or than the process
    /// may have (RLIMIT_NOFILE).
    pub descriptors_truncated: bool,
}

impl ClientSocket {
    /// Returns the process ID, user ID and group ID of the peer of a Unix socket.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is TCP, or the platform has no peer
    ///   credentials.
    /// - [`Closed`](ErrorKind::Closed): this program has closed, aborted or released the socket.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("unix:@keepsock-peer-example")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// if accepted.peer_credentials()?.uid == 0 {
    ///     println!("root has connected");
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn peer_credentials(&self) -> Result<Credentials> {
        const OPERATION: &str = "peer credentials";
        let io = self.enter(OPERATION)?;
        self.require_unix(OPERATION)?;
        sys::peer_credentials(io.socket()).map_err(|e| self.os_failed(OPERATION, e))
    }

    /// Writes bytes and passes descriptors with the first of them (SCM_RIGHTS). Returns the number
    /// of bytes that the kernel has accepted. Unix sockets only.
    ///
    /// `descriptors` may be files, pipes, or sockets from [`borrow`](ClientSocket::borrow) and
    /// [`ServerSocket::borrow`](crate::ServerSocket::borrow). The peer receives duplicates, and this
    /// process keeps its descriptors.
    ///
    /// After success the kernel has accepted all descriptors, even if it has accepted only a part of
    /// the bytes. Write the rest of the bytes without descriptors.
    ///
    /// A passed socket is the same socket in both processes. To leave it to the peer, stop using it,
    /// [`release`](ClientSocket::release) it and drop the descriptor. [`close`](ClientSocket::close)
    /// would end the connection for both processes.
    ///
    /// # Errors
    /// No descriptor was passed if the call fails.
    #[doc = write_errors!()]
    #[doc = write_end_errors!()]
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `bytes` is empty, or there are more than
    ///   253 descriptors (SCM_MAX_FD of unix(7)).
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): too many passed descriptors have not been
    ///   received yet.
    /// - [`TooLong`](ErrorKind::TooLong): a [SOCK_SEQPACKET](crate::SocketOptions::seqpacket) packet
    ///   is longer than the kernel sends.
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is TCP, or the platform is Windows.
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
    /// to_worker.send_with_descriptors(b"serve it", &[accepted.borrow()?.as_fd()])?;
    /// drop(accepted.release()?);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_with_descriptors(
        &self,
        bytes: &[u8],
        descriptors: &[Borrowed<'_>],
    ) -> Result<usize> {
        const OPERATION: &str = "write";
        let io = self.enter(OPERATION)?;
        self.require_unix(OPERATION)?;
        let invalid = |what: &str| {
            Err(self.failed(OPERATION, ErrorKind::InvalidArgument.into(), 0).detail(what))
        };
        if bytes.is_empty() {
            return invalid(
                "there is no byte to send: descriptors are sent with at least one byte",
            );
        }
        if descriptors.len() > RIGHTS_MAX {
            let count = descriptors.len();
            return invalid(&format!(
                "{count} descriptors are too many: a message carries at most {RIGHTS_MAX}"
            ));
        }
        let mut timeout = CallTimeout::new(&self.write_timeout, None);
        let written = self.lock_writes(&io, &timeout).and_then(|guard| {
            self.prepare_write(&io, &mut timeout, &guard)?;
            let done = self.send(&io, &mut timeout, |wait| {
                sys::send_with_rights(io.socket(), bytes, None, descriptors, wait)
            })?;
            self.note_progress(done, bytes.len());
            Ok(done)
        });
        written.map_err(|cause| self.failed(OPERATION, cause, 0))
    }

    /// Reads bytes into `buf`, and receives at most `max` descriptors that the peer has passed with
    /// them (SCM_RIGHTS). Waits until at least one byte is available. Unix sockets only.
    ///
    /// The received descriptors belong to this process and have the close-on-exec flag. The library
    /// closes descriptors beyond `max` and sets [`descriptors_truncated`](Received::descriptors_truncated).
    ///
    /// Descriptors arrive with the first byte that they were sent with. If another call reads that
    /// byte, such as [`read`](ClientSocket::read), the kernel closes the descriptors. A peer can
    /// therefore not fill this process with unwanted descriptors. The call returns buffered bytes
    /// first, without descriptors.
    ///
    /// # Errors
    #[doc = read_errors!()]
    #[doc = end_errors!()]
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `max` is above 253.
    /// - [`TooLong`](ErrorKind::TooLong): a [SOCK_SEQPACKET](crate::SocketOptions::seqpacket) packet
    ///   is longer than `buf`. The packet is discarded, and its descriptors are closed.
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is TCP, or the platform is Windows.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// # use std::os::fd::AsFd;
    /// # let dispatcher = ServerSocket::listen("unix:@keepsock-received-example")?;
    /// # let worker = ClientSocket::connect(dispatcher.endpoint())?;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let visitor = ClientSocket::connect(server.endpoint())?;
    /// # dispatcher.accept()?.send_with_descriptors(b"serve it", &[server.accept()?.borrow()?.as_fd()])?;
    /// let mut order = [0; 512];
    /// let mut received = worker.recv_with_descriptors(&mut order, 1)?;
    /// if let Some(socket) = received.descriptors.pop() {
    ///     let client = ClientSocket::from_owned(socket, &SocketOptions::new()).map_err(|(_, e)| e)?;
    ///     client.write_all(b"hello\n")?;
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn recv_with_descriptors(&self, buf: &mut [u8], max: usize) -> Result<Received> {
        const OPERATION: &str = "read";
        let io = self.enter(OPERATION)?;
        self.require_unix(OPERATION)?;
        if max > RIGHTS_MAX {
            let what =
                format!("{max} descriptors are too many: a message carries at most {RIGHTS_MAX}");
            return Err(self.failed(OPERATION, ErrorKind::InvalidArgument.into(), 0).detail(what));
        }
        let start = self.require_readable(&io)?;
        let bytes_only =
            |len| Received { len, descriptors: Vec::new(), descriptors_truncated: false };
        if buf.is_empty() {
            return Ok(bytes_only(0));
        }
        let buffered = self.read_buffered(buf);
        if buffered > 0 {
            return Ok(bytes_only(buffered));
        }
        let mut timeout = CallTimeout::new(&self.read_timeout, start);
        let passed = self.recv_with_fds(&io, buf, max, &mut timeout)?;
        Ok(Received {
            len: passed.received.len,
            descriptors: passed.descriptors,
            descriptors_truncated: passed.truncated,
        })
    }

    /// Reads once with recvmsg(2), for descriptors or for a packet.
    pub(super) fn recv_with_fds(
        &self,
        io: &InUse<'_>,
        buf: &mut [u8],
        max: usize,
        timeout: &mut CallTimeout,
    ) -> Result<Passed> {
        let mut passed = Passed::default();
        let received = self.step(io, timeout, Interest::Read, |wait| {
            passed = sys::recv_with_rights(io.socket(), buf, max, 0, wait)?;
            Ok(passed.received.original_len)
        });
        let received = received.and_then(|n| if n == 0 { self.on_eof(io) } else { Ok(n) });
        let truncated = passed.received.truncated && self.has(SEQPACKET);
        match received {
            Err(cause) => Err(self.failed("read", cause, 0)),
            Ok(_) if truncated => {
                let (len, room) = (passed.received.original_len, buf.len());
                let what = if len > room {
                    format!(
                        "the packet has {}, and the buffer {room}: the rest is lost",
                        Bytes(len)
                    )
                } else {
                    format!(
                        "the packet is longer than the buffer of {}: the rest is lost",
                        Bytes(room)
                    )
                };
                Err(self.failed("read", ErrorKind::TooLong.into(), 0).detail(what))
            }
            Ok(_) => Ok(passed),
        }
    }

    /// Fails for a TCP connection.
    fn require_unix(&self, operation: &'static str) -> Result<()> {
        if self.is_inet() {
            let error = self.failed(operation, ErrorKind::Unsupported.into(), 0);
            return Err(error.detail("only Unix sockets pass descriptors and credentials"));
        }
        Ok(())
    }

    /// Whether the socket is of type SOCK_SEQPACKET.
    #[cfg(feature = "serve")]
    pub(crate) fn is_seqpacket(&self) -> bool {
        self.has(SEQPACKET)
    }

    /// Fails if the bytes of the socket arrive in packets.
    #[inline]
    pub(super) fn require_stream(&self, operation: &'static str) -> Result<()> {
        if self.has(SEQPACKET) { Err(self.not_a_stream(operation)) } else { Ok(()) }
    }

    #[cold]
    fn not_a_stream(&self, operation: &'static str) -> Error {
        let error = self.failed(operation, ErrorKind::WrongState.into(), 0);
        error.detail("the socket is SOCK_SEQPACKET, and has whole packets only: use read and write")
    }

    /// Fails for an empty packet, which the peer would take for the end of the stream.
    #[inline]
    pub(super) fn require_nonempty(&self, len: usize) -> Result<()> {
        if len == 0 && self.has(SEQPACKET) { Err(self.empty_packet()) } else { Ok(()) }
    }

    #[cold]
    fn empty_packet(&self) -> Error {
        let error = self.failed("write", ErrorKind::InvalidArgument.into(), 0);
        error.detail("the packet is empty, which the peer would read as the end of the stream")
    }

    /// Converts the error of a packet that is longer than the kernel sends.
    #[cold]
    pub(super) fn map_too_long(cause: Cause) -> Cause {
        let code = cause.os_error().map(std::io::Error::from_raw_os_error);
        if code.is_some_and(|e| sys::is_too_long(&e)) {
            return ErrorKind::TooLong.into();
        }
        cause
    }
}
