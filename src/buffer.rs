//! Bytes that were read from the kernel and not yet asked for.

use std::io;

/// How much is asked of the kernel at a time.
const CHUNK: usize = 8 * 1024;
/// A buffer that grew beyond this for one long line is given back when it empties.
const KEEP: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    bytes: Vec<u8>,
    /// Where the unread part begins.
    start: usize,
    /// Where in the stream that is: what was found out about the bytes holds as long as it stays.
    position: u64,
}

impl ReadBuffer {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Where in the stream the unread bytes begin.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn consume(&mut self, n: usize) {
        let n = n.min(self.as_slice().len());
        self.start += n;
        self.position = self.position.wrapping_add(n as u64);
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
    }

    /// Moves as many bytes as fit to the caller.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> usize {
        let n = self.as_slice().len().min(out.len());
        out[..n].copy_from_slice(&self.as_slice()[..n]);
        self.consume(n);
        n
    }

    /// Puts bytes back in front of the others.
    pub(crate) fn put_back(&mut self, front: &[u8]) {
        self.bytes.splice(..self.start, front.iter().copied());
        self.start = 0;
        self.position = self.position.wrapping_sub(front.len() as u64);
    }

    /// Appends what `read` gives; its result is handed on.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let len = self.bytes.len();
        self.bytes.resize(len + CHUNK, 0);
        let result = read(&mut self.bytes[len..]);
        let n = *result.as_ref().unwrap_or(&0);
        self.bytes.truncate(len + n.min(CHUNK));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_order() {
        let mut buffer = ReadBuffer::default();
        let mut give = |text: &'static [u8]| {
            buffer
                .fill(|space| {
                    space[..text.len()].copy_from_slice(text);
                    Ok(text.len())
                })
                .unwrap();
        };
        give(b"abc");
        give(b"def");
        let mut out = [0; 4];
        assert_eq!(buffer.take(&mut out), 4);
        assert_eq!(&out, b"abcd");
        buffer.put_back(b"cd");
        assert_eq!(buffer.as_slice(), b"cdef");
        assert_eq!(buffer.position(), 2);
        buffer.consume(1);
        buffer.put_back(b"xy");
        assert_eq!(buffer.as_slice(), b"xydef");
        buffer.consume(99);
        assert!(buffer.as_slice().is_empty());
    }

    #[test]
    fn a_failed_read_changes_nothing() {
        let mut buffer = ReadBuffer::default();
        buffer.put_back(b"kept");
        let failed = buffer.fill(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(failed.is_err());
        assert_eq!(buffer.as_slice(), b"kept");
    }
}
