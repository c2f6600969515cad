//! A part of a file that a connection sends.

use std::fs::File;
use std::io;

use crate::sys::{self, Borrowed, FileRef, FileSender, Wait};
use crate::types::error::{Error, ErrorKind, Result};

/// The size of a chunk where the kernel cannot send from a file.
const CHUNK: usize = 64 * 1024;
/// The maximum number of bytes that are sent before other connections are handled.
const PIECE: usize = 1024 * 1024;

/// A part of a file, by a descriptor of the library's own.
#[derive(Debug)]
pub(super) struct FilePart {
    file: File,
    /// For [`fork`](sys::fork).
    birth: u32,
    offset: u64,
    len: u64,
    /// sendfile(2) does not support the file, so its bytes are read and sent.
    copies: bool,
}

/// Why [`FilePart::send`] has returned.
pub(super) enum Stopped {
    /// All bytes are sent.
    Done,
    /// The kernel accepts no more bytes now.
    Blocked,
    /// The kernel may accept more, after the loop has served other connections.
    Piece,
    /// The process or the kernel has no memory.
    NoMemory,
    /// The connection has failed.
    Connection(io::Error),
    /// The file cannot be read; `None`: it has become shorter.
    File(Option<io::Error>),
}

/// The failure of a file that a call sends, before or after the first bytes were sent.
pub(super) struct FileFailure {
    /// The number of bytes that the kernel has accepted.
    pub sent: usize,
    /// `None`: the file has become shorter.
    pub cause: Option<io::Error>,
}

impl FilePart {
    /// Duplicates the descriptor, and checks that the file has the bytes.
    pub(super) fn new(
        file: FileRef<'_>,
        offset: u64,
        len: u64,
        operation: &'static str,
    ) -> Result<FilePart> {
        let invalid = |what: String| Error::new(ErrorKind::InvalidArgument, operation).detail(what);
        let failed = |e: io::Error| match sys::is_no_file(&e) {
            Some(why) => Error::new(ErrorKind::InvalidArgument, operation).detail(why),
            None => Error::os(operation, &e),
        };
        let unreadable = |e: io::Error| match sys::is_no_file(&e) {
            Some(_) => failed(e),
            None => Error::os(operation, &e).detail("the file cannot be read"),
        };
        if i64::try_from(offset).is_err() {
            return Err(invalid(format!(
                "offset {offset} is greater than {}, the largest one",
                i64::MAX
            )));
        }
        let file = sys::call("fcntl", || file.try_clone_to_owned()).map_err(failed)?;
        let file = File::from(file);
        let found = sys::call("statx", || file.metadata()).map_err(unreadable)?;
        let size = if found.is_file() { Some(found.len()) } else { None };
        let to_end = len == u64::MAX;
        let len = match size {
            Some(size) if to_end => size.saturating_sub(offset),
            _ => len,
        };
        let end = offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok());
        // The last byte is read: files of /proc have the size 0, and files of /sys a size that is
        // larger than their content. The read also finds a descriptor that is not open for reading.
        let checked = match end {
            Some(end) if len > 0 => end - 1,
            _ => offset,
        };
        // No file has a byte at the largest offset, and the kernel rejects a read there.
        let checked = checked.min(i64::MAX as u64 - 1);
        let has_byte =
            sys::read_at(sys::file_of(&file), &mut [0], checked).map_err(unreadable)? > 0;
        if to_end && (size.is_none() || has_byte != (len > 0)) {
            return Err(invalid(
                "the size of the file is not known: pass the number of bytes".to_owned(),
            ));
        }
        if !to_end && len > 0 && (end.is_none() || !has_byte) {
            let size = size.filter(|size| end.is_none_or(|end| end > *size));
            let size = size.map_or_else(String::new, |size| format!(" of {size} bytes"));
            return Err(invalid(format!(
                "the file{size} does not have {len} bytes from offset {offset}"
            )));
        }
        let birth = sys::fork::birth();
        Ok(FilePart { file, birth, offset, len, copies: !sys::SENDS_FILES })
    }

    /// Closes the copy of the descriptor that this process, a forked child, has.
    pub(super) fn close_copy(self) {
        if !sys::fork::may_close(self.birth) {
            std::mem::forget(self.file);
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Sends the bytes after the first `done`, up to the size of a piece. Returns the number of sent
    /// bytes, and why it is not greater.
    pub(super) fn send(
        &mut self,
        socket: Borrowed<'_>,
        done: u64,
        sender: &mut Option<FileSender>,
    ) -> (usize, Stopped) {
        let mut total = 0;
        let stopped = loop {
            let left = self.len.saturating_sub(done + total as u64);
            if left == 0 {
                break Stopped::Done;
            }
            if total >= PIECE {
                break Stopped::Piece;
            }
            let at = self.offset + done + total as u64;
            let most = usize::try_from(left).map_or(PIECE - total, |left| left.min(PIECE - total));
            let sent = if self.copies {
                self.copy(socket, at, most)
            } else {
                let sender = sender.get_or_insert_with(FileSender::new);
                sender
                    .send(socket, sys::file_of(&self.file), at, most as u64)
                    .map_err(Stopped::Connection)
            };
            match sent {
                Ok(0) => break Stopped::File(None),
                Ok(n) => total += n,
                Err(Stopped::Connection(e)) => match e.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => break Stopped::Blocked,
                    _ if sys::is_out_of_memory(&e) => break Stopped::NoMemory,
                    // If the file is at fault, a read of the file returns the cause.
                    _ if !self.copies && sys::may_concern_file(&e) => self.copies = true,
                    _ => break Stopped::Connection(e),
                },
                Err(other) => break other,
            }
        };
        (total, stopped)
    }

    /// Reads a chunk and sends it. Bytes that the kernel does not accept are read again later.
    fn copy(
        &self,
        socket: Borrowed<'_>,
        at: u64,
        most: usize,
    ) -> std::result::Result<usize, Stopped> {
        let mut chunk = sys::zeroed(most.min(CHUNK)).ok_or(Stopped::NoMemory)?;
        let read = sys::read_at(sys::file_of(&self.file), &mut chunk, at);
        let read = read.map_err(|e| Stopped::File(Some(e)))?;
        if read == 0 {
            return Ok(0);
        }
        sys::send(socket, &chunk[..read], Wait::No).map_err(Stopped::Connection)
    }
}
