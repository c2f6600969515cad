//! A file to the socket.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{ClientSocket, HELD, NONBLOCKING, POLLED, Patience, UNSWITCHED};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::{self, FileRef, InUse};
use crate::wait::Cause;

/// What is read at once where the system cannot send from a file.
const PIECE: usize = 64 * 1024;

/// How a piece was not sent.
enum Stopped {
    /// By the connection, or by the caller's time.
    Here(Cause),
    /// By the file.
    File(io::Error),
}

impl ClientSocket {
    /// Writes `len` bytes of a file from `offset` on, or what there is up to its end, and says
    /// how many. All within one write timeout, in one turn: what other threads write comes
    /// before or after. The file's own position is not used and not moved.
    ///
    /// On Linux the bytes do not pass through this process (sendfile(2)), whatever the socket is;
    /// what sendfile refuses, and on other systems every file, is read in pieces of 64 KiB and
    /// sent. A file that is changed meanwhile is sent as it is found. What a disk takes to answer
    /// is no part of the limit.
    ///
    /// sendfile cannot be told not to wait: with a limit, a token or anything else that ends it,
    /// the socket's descriptor is non-blocking meanwhile, also for whoever has borrowed it.
    ///
    /// # Errors
    /// Those of [`write_all`](ClientSocket::write_all);
    /// [`Error::transferred`] says how many bytes the kernel had taken.
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a directory, a pipe or a socket, which
    /// have no offsets, and for a file that is not open for reading;
    /// [`Os`](ErrorKind::Os) if it cannot be read.
    /// [`WrongState`](ErrorKind::WrongState) for [packets](crate::SocketOptions::sequenced);
    /// [`Unsupported`](ErrorKind::Unsupported) on Windows.
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
    /// # #[cfg(unix)] {
    /// assert_eq!(client.send_file(&file, 0, u64::MAX)?, 6);   // all of it
    /// # let mut buf = [0; 6];
    /// # accepted.read_exact(&mut buf)?;
    /// # assert_eq!(&buf, b"<html>");
    /// # }
    /// # let _ = std::fs::remove_file(&path);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_file(&self, file: impl sys::AsFile, offset: u64, len: u64) -> Result<u64> {
        self.send_file_ref(sys::file_of(&file), offset, len)
    }

    fn send_file_ref(&self, file: FileRef<'_>, offset: u64, len: u64) -> Result<u64> {
        const OPERATION: &str = "send file";
        let io = self.enter(OPERATION)?;
        self.is_stream(OPERATION)?;
        if i64::try_from(offset).is_err() {
            let error = self.failed(OPERATION, ErrorKind::InvalidArgument.into(), 0);
            return Err(error.detail(format!("no file has an offset {offset}")));
        }
        let end = offset.saturating_add(len).min(i64::MAX as u64);
        let mut patience = Patience::new(&self.write_timeout, None);
        let mut at = offset;
        let sent = self.take_turn(&io, &patience).map_err(Stopped::Here).and_then(|turn| {
            self.finish_heartbeat(&io, &mut patience, &turn).map_err(Stopped::Here)?;
            let sent = self.send_range(&io, &mut patience, file, &mut at, end);
            // One that broke off is a message in part: no heartbeat comes into it.
            let done = usize::try_from(at - offset).unwrap_or(usize::MAX);
            self.note_call(done, if sent.is_ok() { done } else { usize::MAX });
            sent
        });
        let done = usize::try_from(at - offset).unwrap_or(usize::MAX);
        match sent {
            Ok(()) => Ok(at - offset),
            Err(Stopped::Here(cause)) => Err(self.failed(OPERATION, cause, done)),
            Err(Stopped::File(e)) => {
                let error = match sys::is_no_file(&e) {
                    Some(why) => Error::new(ErrorKind::InvalidArgument, OPERATION).detail(why),
                    None => Error::os(OPERATION, &e).detail("reading the file"),
                };
                Err(error.at(self.five_tuple()).after_bytes(done))
            }
        }
    }

    fn send_range(
        &self,
        io: &InUse<'_>,
        patience: &mut Patience,
        file: FileRef<'_>,
        at: &mut u64,
        end: u64,
    ) -> std::result::Result<(), Stopped> {
        if sys::SENDS_FILES && self.send_directly(io, patience, file, at, end)? {
            return Ok(());
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(end - *at).unwrap_or(PIECE))];
        while *at < end {
            let most = usize::try_from(end - *at).map_or(PIECE, |left| left.min(PIECE));
            let read = sys::read_at(file, &mut piece[..most], *at).map_err(Stopped::File)?;
            if read == 0 {
                break;
            }
            let mut left = &piece[..read];
            while !left.is_empty() {
                let sent = self
                    .send(io, patience, |wait| sys::send(io.socket(), left, wait))
                    .map_err(Stopped::Here)?;
                *at += sent as u64;
                left = &left[sent..];
            }
        }
        Ok(())
    }

    /// Has the kernel send from the file; false: it does not, though the connection lives.
    fn send_directly(
        &self,
        io: &InUse<'_>,
        patience: &mut Patience,
        file: FileRef<'_>,
        at: &mut u64,
        end: u64,
    ) -> std::result::Result<bool, Stopped> {
        // sendfile(2) waits for each part of what it is given, and has no flag against that.
        let waits = !self.has(POLLED | NONBLOCKING) && patience.since.is_none();
        let _held = match waits {
            true => None,
            false => Some(self.hold_nonblocking(io).map_err(|e| Stopped::Here(e.into()))?),
        };
        patience.begun |= !waits;
        let mut quiet = sys::NoSigpipe::new();
        while *at < end {
            let from = *at;
            let sent = self.send(io, patience, |_| {
                sys::send_file(io.socket(), file, from, end - from, &mut quiet)
            });
            match sent {
                Ok(0) => break,
                Ok(n) => *at += n as u64,
                // Reading tells what is wrong with the file, if anything is.
                Err(cause) if is_of_file(&cause) => return Ok(false),
                Err(cause) => return Err(Stopped::Here(cause)),
            }
        }
        Ok(true)
    }

    /// Keeps the descriptor non-blocking while the result lives. Calls of other threads that find
    /// it so wait in poll.
    fn hold_nonblocking<'a>(&'a self, io: &'a InUse<'a>) -> io::Result<HeldMode<'a>> {
        let _mode = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has(UNSWITCHED | NONBLOCKING) {
            sys::set_nonblocking(io.socket(), true)?;
        }
        self.flags.fetch_or(HELD, Ordering::AcqRel);
        self.flags.fetch_and(!UNSWITCHED, Ordering::AcqRel);
        Ok(HeldMode { client: self, io })
    }
}

struct HeldMode<'a> {
    client: &'a ClientSocket,
    io: &'a InUse<'a>,
}

impl Drop for HeldMode<'_> {
    fn drop(&mut self) {
        let client = self.client;
        let _mode = client.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        client.flags.fetch_and(!HELD, Ordering::AcqRel);
        if !client.has(NONBLOCKING) {
            // It could fail only for what is not open.
            let _ = sys::set_nonblocking(self.io.socket(), !sys::BLOCKING_CALLS);
        }
    }
}

/// Whether a failed sendfile says nothing of the connection.
fn is_of_file(cause: &Cause) -> bool {
    use ErrorKind::{Dead, Reset, Stalled, Unreachable};
    match cause {
        Cause::Over(Reset | Dead | Stalled | Unreachable, _) => false,
        Cause::Over(_, Some(code)) => !sys::is_from_network(&io::Error::from_raw_os_error(*code)),
        _ => false,
    }
}
