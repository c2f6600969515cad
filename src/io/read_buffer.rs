//! The buffer for bytes that were received ahead of the program's reads.

use std::io;

/// The size of one receive.
const CHUNK: usize = 8 * 1024;
/// A larger buffer, which a long line needed, is freed when it becomes empty.
const KEEP: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    /// The unread bytes, with initialized space before and after them.
    bytes: Vec<u8>,
    /// The range of the unread bytes.
    start: usize,
    end: usize,
    /// The position of the unread bytes in the stream. A search result is valid while it is
    /// unchanged.
    position: u64,
}

impl ReadBuffer {
    /// A buffer with unread bytes.
    #[cfg(feature = "serve")]
    pub(crate) fn of(unread: Vec<u8>) -> ReadBuffer {
        ReadBuffer { end: unread.len(), bytes: unread, ..ReadBuffer::default() }
    }

    /// The unread bytes.
    #[cfg(feature = "serve")]
    pub(crate) fn into_unread(mut self) -> Vec<u8> {
        self.bytes.truncate(self.end);
        self.bytes.drain(..self.start);
        self.bytes
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Returns the position of the first unread byte in the stream.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn consume(&mut self, n: usize) {
        let n = n.min(self.as_slice().len());
        self.start += n;
        self.position = self.position.wrapping_add(n as u64);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
    }

    /// Moves as many bytes as fit to `out`.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> usize {
        let n = self.as_slice().len().min(out.len());
        out[..n].copy_from_slice(&self.as_slice()[..n]);
        self.consume(n);
        n
    }

    /// Puts bytes back before the unread bytes. `None`: there is not enough memory, and the buffer
    /// is unchanged.
    pub(crate) fn put_back(&mut self, front: &[u8]) -> Option<()> {
        if self.as_slice().is_empty() {
            self.bytes.try_reserve(front.len().saturating_sub(self.bytes.len())).ok()?;
            self.bytes.clear();
            self.bytes.extend_from_slice(front);
            self.end = front.len();
        } else {
            self.bytes.try_reserve(front.len()).ok()?;
            self.bytes.splice(..self.start, front.iter().copied());
            self.end = self.end - self.start + front.len();
        }
        self.start = 0;
        self.position = self.position.wrapping_sub(front.len() as u64);
        Some(())
    }

    /// Appends the bytes that `read` receives, and returns its result. Fails without reading if
    /// there is not enough memory.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // The space stays initialized, so a read that would block costs only its system call.
        let most = self.end + CHUNK;
        if self.bytes.len() < most {
            let more = most - self.bytes.len();
            self.bytes.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
            self.bytes.resize(most, 0);
        }
        let result = read(&mut self.bytes[self.end..most]);
        self.end += (*result.as_ref().unwrap_or(&0)).min(CHUNK);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I6: the space is initialized once, and not for each read that would block.
    #[test]
    fn fill_that_would_block_leaves_the_space_initialized() {
        let mut buffer = ReadBuffer::default();
        let blocks = |space: &mut [u8]| {
            let before = space[0];
            space[0] = 7;
            (before, io::Error::from(io::ErrorKind::WouldBlock))
        };
        let mut seen = Vec::new();
        for _ in 0..3 {
            let blocked = buffer.fill(|space| {
                let (before, error) = blocks(space);
                seen.push(before);
                Err(error)
            });
            assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert!(buffer.as_slice().is_empty());
        }
        assert_eq!(seen, [0, 7, 7]);
    }

    #[test]
    fn put_back_keeps_the_order_of_bytes() {
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
        buffer.put_back(b"cd").unwrap();
        assert_eq!(buffer.as_slice(), b"cdef");
        assert_eq!(buffer.position(), 2);
        buffer.consume(1);
        buffer.put_back(b"xy").unwrap();
        assert_eq!(buffer.as_slice(), b"xydef");
        buffer.consume(99);
        assert!(buffer.as_slice().is_empty());
    }

    #[test]
    fn failed_fill_changes_nothing() {
        let mut buffer = ReadBuffer::default();
        buffer.put_back(b"kept").unwrap();
        let failed = buffer.fill(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(failed.is_err());
        assert_eq!(buffer.as_slice(), b"kept");
    }
}
