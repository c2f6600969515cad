//! Sending a file.

use std::io;
use std::result::Result as StdResult;
use std::sync::PoisonError;

use super::ClientSocket;
use super::flags::{FD_SHARED, NONBLOCK_PENDING, NONBLOCK_PINNED, NONBLOCKING, USES_POLL};
use crate::io::timeout::{CallTimeout, MAX_CALL_BYTES};
use crate::io::wait::Cause;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, FileRef, InUse};
use crate::types::error::{Error, ErrorKind, Result};

/// The size of a chunk where the kernel cannot send from a file.
const CHUNK: usize = 64 * 1024;

/// The reason why a chunk was not sent.
enum SendError {
    /// The connection has failed, or the time of the call has expired.
    Socket(Cause),
    /// The file could not be read.
    File(io::Error),
}

impl ClientSocket {
    /// Writes `len` bytes of `file` from `offset`, or the bytes up to the end of the file if there
    /// are fewer, and returns their number.
    ///
    /// The write timeout limits the whole call, except the time that the disk needs. Writes of other
    /// threads come before or after the whole file. The call does not use the position of the file,
    /// and moves it on Windows only. If the file changes during the call, the peer may receive old and
    /// new bytes. If the file becomes shorter, the result is the number of sent bytes. With `u64::MAX`
    /// the call also writes what another program appends during the call.
    ///
    /// On Linux, macOS and FreeBSD the bytes do not pass through this process (sendfile(2)), and on Windows
    /// they do not if the socket has no write timeout, cancel token or liveness timers (TransmitFile). For a
    /// file that these functions do not support, and on other systems, the call reads chunks of 64 KiB and
    /// sends them.
    ///
    /// Windows may reset the connection if another thread closes the socket during TransmitFile.
    ///
    /// After success the kernel may still refer to the pages of the file. If a program overwrites or
    /// truncates the file before the peer's kernel has acknowledged the bytes, the peer may receive
    /// the new content.
    ///
    /// sendfile has no flag that prevents a wait. On a socket with a write timeout, a cancel token
    /// or liveness timers the descriptor is therefore non-blocking during the call, also for other
    /// users of the descriptor.
    ///
    /// sendfile has no flag that prevents SIGPIPE either. On Linux the call blocks SIGPIPE in its
    /// thread and restores the mask. In a thread that has blocked SIGPIPE each call saves a system
    /// call.
    ///
    /// # Errors
    /// [`Error::transferred`] returns the number of bytes that the kernel had accepted.
    #[doc = write_errors!()]
    #[doc = write_end_errors!()]
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the file is a directory, a pipe or a
    ///   socket, which have no offsets; it is not open for reading; it is a character device, which
    ///   may have no end, and `len` is `u64::MAX`; or `offset` is above 2⁶³ − 1.
    /// - [`Os`](ErrorKind::Os): the file cannot be read.
    /// - [`WrongState`](ErrorKind::WrongState): the socket is of type
    ///   [SOCK_SEQPACKET](crate::SocketOptions::seqpacket).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # use std::io::Write;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # let accepted = server.accept()?;
    /// # let path = std::env::temp_dir().join(format!("keepsock-file-{}", std::process::id()));
    /// # std::fs::write(&path, b"<html>").unwrap();
    /// let file = std::fs::File::open(&path).unwrap();
    /// assert_eq!(client.send_file(&file, 0, u64::MAX)?, 6);   // up to the end of the file
    /// # let mut buf = [0; 6];
    /// # accepted.read_exact(&mut buf)?;
    /// # assert_eq!(&buf, b"<html>");
    /// # let _ = std::fs::remove_file(&path);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_file(&self, file: impl sys::AsFile, offset: u64, len: u64) -> Result<u64> {
        self.send_file_ref(sys::file_of(&file), offset, len)
    }

    fn send_file_ref(&self, file: FileRef<'_>, offset: u64, len: u64) -> Result<u64> {
        const OPERATION: &str = "send file";
        let io = self.enter(OPERATION)?;
        self.require_stream(OPERATION)?;
        if i64::try_from(offset).is_err() {
            let error = self.failed(OPERATION, ErrorKind::InvalidArgument.into(), 0);
            return Err(error
                .detail(format!("offset {offset} is greater than {}, the largest one", i64::MAX)));
        }
        if len == u64::MAX && sys::is_character_device(file) {
            let error = self.failed(OPERATION, ErrorKind::InvalidArgument.into(), 0);
            return Err(
                error.detail("a character device may have no end: pass the number of bytes")
            );
        }
        let end = offset.saturating_add(len).min(i64::MAX as u64);
        let mut timeout = CallTimeout::new(&self.write_timeout, None);
        let mut at = offset;
        let sent = self.lock_writes(&io, &timeout).map_err(SendError::Socket).and_then(|guard| {
            self.prepare_write(&io, &mut timeout, &guard).map_err(SendError::Socket)?;
            if offset == end {
                self.check_empty_write().map_err(SendError::Socket)?;
                // No byte is sent, so only a read finds a descriptor that is not a file. No file has
                // a byte at the largest offset, and the kernel rejects a read there.
                let checked = offset.min(i64::MAX as u64 - 1);
                sys::read_at(file, &mut [0], checked).map_err(SendError::File)?;
            }
            let sent = self.send_range(&io, &mut timeout, file, &mut at, end);
            // A file that was sent in part is an incomplete message, so no heartbeat may follow.
            let done = usize::try_from(at - offset).unwrap_or(usize::MAX);
            if let Err(SendError::Socket(cause)) = &sent {
                self.note_interrupted(cause, done);
            }
            self.note_progress(done, if sent.is_ok() { done } else { usize::MAX });
            sent
        });
        let done = usize::try_from(at - offset).unwrap_or(usize::MAX);
        match sent {
            Ok(()) => Ok(at - offset),
            Err(SendError::Socket(cause)) => Err(self.failed(OPERATION, cause, done)),
            Err(SendError::File(e)) => {
                let error = match sys::is_no_file(&e) {
                    Some(why) => Error::new(ErrorKind::InvalidArgument, OPERATION).detail(why),
                    None => Error::os(OPERATION, &e).detail("the file cannot be read"),
                };
                Err(error.at(self.five_tuple()).after_bytes(done))
            }
        }
    }

    fn send_range(
        &self,
        io: &InUse<'_>,
        timeout: &mut CallTimeout,
        file: FileRef<'_>,
        at: &mut u64,
        end: u64,
    ) -> StdResult<(), SendError> {
        let directly = sys::SENDS_FILES || (sys::TRANSMITS_FILES && !self.is_limited(timeout));
        if directly && self.send_directly(io, timeout, file, at, end)? {
            return Ok(());
        }
        let begin = *at;
        let mut chunk = vec![0; CHUNK.min(usize::try_from(end - *at).unwrap_or(CHUNK))];
        while *at < end {
            let most = usize::try_from(end - *at).map_or(CHUNK, |left| left.min(CHUNK));
            ClientSocket::check_time(timeout, usize::from(*at > begin))
                .map_err(SendError::Socket)?;
            let read = sys::read_at(file, &mut chunk[..most], *at).map_err(SendError::File)?;
            if read == 0 {
                break;
            }
            let mut left = &chunk[..read];
            while !left.is_empty() {
                let sent = self
                    .send(io, timeout, |wait| sys::send(io.socket(), left, wait))
                    .map_err(SendError::Socket)?;
                *at += sent as u64;
                left = &left[sent..];
            }
        }
        Ok(())
    }

    /// Whether a timeout, a token or a limit may end the call before everything is sent.
    fn is_limited(&self, timeout: &CallTimeout) -> bool {
        let cancel = self.cancel_token();
        timeout.is_limited() || self.has(NONBLOCKING) || self.needs_poll(cancel.as_ref())
    }

    /// Sends with sendfile(2) or TransmitFile. The result is `false` if the kernel cannot send from this file and
    /// the connection is intact.
    fn send_directly(
        &self,
        io: &InUse<'_>,
        timeout: &mut CallTimeout,
        file: FileRef<'_>,
        at: &mut u64,
        end: u64,
    ) -> StdResult<bool, SendError> {
        // On a blocking descriptor sendfile(2) waits until it has sent everything.
        let waits = !self.has(USES_POLL | NONBLOCKING) && !timeout.is_limited();
        let _pinned = match waits {
            true => None,
            false => Some(self.pin_nonblocking(io).map_err(|e| SendError::Socket(e.into()))?),
        };
        timeout.polls |= !waits;
        let mut sender = sys::FileSender::new();
        let begin = *at;
        while *at < end {
            let from = *at;
            ClientSocket::check_time(timeout, usize::from(from > begin))
                .map_err(SendError::Socket)?;
            let left = end - from;
            let most = match waits || sys::TRANSMITS_FILES {
                true => left,
                false => left.min(MAX_CALL_BYTES as u64),
            };
            let sent = self.send(io, timeout, |_| sender.send(io.socket(), file, from, most));
            if sent.is_err() {
                *at += sender.stop() as u64;
            }
            match sent {
                Ok(0) => break,
                Ok(n) => *at += n as u64,
                // If the file is at fault, a read of the file returns the cause.
                Err(cause) if is_about_file(&cause) => return Ok(false),
                Err(cause) => return Err(SendError::Socket(cause)),
            }
        }
        Ok(true)
    }

    /// Keeps the descriptor non-blocking while the result exists. Calls of other threads that meet
    /// the non-blocking descriptor wait in poll.
    fn pin_nonblocking<'a>(&'a self, io: &'a InUse<'a>) -> io::Result<PinnedNonblocking<'a>> {
        let _mode = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has(NONBLOCK_PENDING | NONBLOCKING) {
            sys::set_nonblocking(io.socket(), true)?;
        }
        self.flags.fetch_or(NONBLOCK_PINNED, Ordering::AcqRel);
        self.flags.fetch_and(!NONBLOCK_PENDING, Ordering::AcqRel);
        Ok(PinnedNonblocking { client: self, io })
    }
}

struct PinnedNonblocking<'a> {
    client: &'a ClientSocket,
    io: &'a InUse<'a>,
}

impl Drop for PinnedNonblocking<'_> {
    fn drop(&mut self) {
        let client = self.client;
        let _mode = client.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        client.flags.fetch_and(!NONBLOCK_PINNED, Ordering::AcqRel);
        if client.has(NONBLOCKING) || !sys::BLOCKING_CALLS {
            return;
        }
        // If the program does not have the descriptor, the next call that waits in the kernel
        // changes the mode, and another send_file finds the mode that it needs.
        let before = client.flags.fetch_or(NONBLOCK_PENDING, Ordering::AcqRel);
        if before & FD_SHARED != 0 {
            // fcntl(2) fails only for a descriptor that is not open.
            let _ = sys::set_nonblocking(self.io.socket(), false);
            client.flags.fetch_and(!NONBLOCK_PENDING, Ordering::AcqRel);
        }
    }
}

/// Whether the error of a sendfile(2) may be about the file and not about the connection.
fn is_about_file(cause: &Cause) -> bool {
    use ErrorKind::{Dead, Reset, Stalled, Unreachable, WrongState};
    match cause {
        Cause::Over(Reset | Dead | Stalled | Unreachable | WrongState, _) => false,
        Cause::Over(_, Some(code)) => !sys::is_from_network(&io::Error::from_raw_os_error(*code)),
        _ => false,
    }
}
