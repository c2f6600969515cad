//! The buffer for bytes that were received ahead of the program's reads.

use std::io;

/// The size of one receive.
const CHUNK: usize = 8 * 1024;
/// A larger buffer, which a long line needed, is freed when it becomes empty.
const KEEP: usize = 64 * 1024;

#[cfg(test)]
thread_local! {
    /// The number of bytes that buffers of this thread have copied into themselves from a call.
    pub(crate) static COPIED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    /// The unread bytes, with initialized space before and after them.
    bytes: Vec<u8>,
    /// The range of the unread bytes.
    start: usize,
    end: usize,
    /// A delimiter, and the number of unread bytes at the front that do not contain it. A call that
    /// ended before the delimiter arrived leaves them to the next call.
    searched: Option<(u8, usize)>,
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

    /// The number of unread bytes at the front that are known not to contain `delimiter`.
    pub(crate) fn searched(&self, delimiter: Option<u8>) -> usize {
        self.searched.filter(|(of, _)| Some(*of) == delimiter).map_or(0, |(_, len)| len)
    }

    /// Records that the unread bytes do not contain `delimiter`.
    pub(crate) fn note_searched(&mut self, delimiter: u8) {
        self.searched = Some((delimiter, self.as_slice().len()));
    }

    /// Returns all unread bytes with their memory, and leaves an empty buffer.
    pub(crate) fn take_all(&mut self) -> ReadBuffer {
        std::mem::take(self)
    }

    pub(crate) fn consume(&mut self, n: usize) {
        let n = n.min(self.as_slice().len());
        self.start += n;
        self.searched = None;
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
        #[cfg(test)]
        COPIED.set(COPIED.get() + front.len());
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
        self.searched = None;
        Some(())
    }

    /// Puts the bytes of [`take_all`](ReadBuffer::take_all) back before the unread bytes. `None`: there is
    /// not enough memory, and the buffer is unchanged.
    pub(crate) fn put_back_all(&mut self, front: &mut ReadBuffer) -> Option<()> {
        if self.as_slice().is_empty() {
            *self = front.take_all();
            return Some(());
        }
        self.put_back(front.as_slice())
    }

    /// Appends bytes after the unread bytes. `None`: there is not enough memory, and the buffer is
    /// unchanged.
    pub(crate) fn append(&mut self, back: &[u8]) -> Option<()> {
        #[cfg(test)]
        COPIED.set(COPIED.get() + back.len());
        // Space that is written next is not initialized first: many bytes may be kept at a deadline.
        let missing = (self.end.checked_add(back.len())?).saturating_sub(self.bytes.len());
        self.bytes.try_reserve(missing).ok()?;
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(back);
        self.end = self.bytes.len();
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
        buffer.consume(1);
        buffer.put_back(b"xy").unwrap();
        assert_eq!(buffer.as_slice(), b"xydef");
        buffer.consume(99);
        assert!(buffer.as_slice().is_empty());
    }

    /// I1: bytes that `read_exact` has received are appended, and the bytes that another call has
    /// left in the meantime follow them.
    #[test]
    fn put_back_all_keeps_the_order_of_bytes() {
        let mut buffer = ReadBuffer::default();
        buffer.put_back(b"-ab").unwrap();
        buffer.consume(1);
        let mut taken = buffer.take_all();
        assert!(buffer.as_slice().is_empty());
        taken.append(b"cd").unwrap();
        buffer.put_back(b"ef").unwrap();
        buffer.put_back_all(&mut taken).unwrap();
        assert_eq!(buffer.as_slice(), b"abcdef");
        let mut taken = buffer.take_all();
        buffer.put_back_all(&mut taken).unwrap();
        assert_eq!(buffer.as_slice(), b"abcdef");
    }

    /// I1: the result of a search is valid for one delimiter, and until bytes leave the buffer.
    #[test]
    fn searched_is_known_until_bytes_leave() {
        let mut buffer = ReadBuffer::default();
        buffer.put_back(b"abc").unwrap();
        assert_eq!(buffer.searched(Some(b'\n')), 0);
        buffer.note_searched(b'\n');
        buffer.append(b"d\n").unwrap();
        assert_eq!(buffer.searched(Some(b'\n')), 3);
        assert_eq!((buffer.searched(Some(b'd')), buffer.searched(None)), (0, 0));
        buffer.consume(1);
        assert_eq!(buffer.searched(Some(b'\n')), 0);
        buffer.note_searched(b'x');
        buffer.put_back(b"x").unwrap();
        assert_eq!(buffer.searched(Some(b'x')), 0);
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
