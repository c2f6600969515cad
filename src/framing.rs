//! How a stream is cut into messages: by a delimiter, or by a length before each. No I/O.

use std::ops::Range;

/// The length that comes before each message, and does not count itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum LengthPrefix {
    /// One byte.
    U8 = 1,
    /// Two bytes, the higher one first, as protocols of the internet have it.
    U16Be = 2,
    /// Two bytes, the lower one first.
    U16Le = 3,
    /// Four bytes, the highest one first.
    U32Be = 4,
    /// Four bytes, the lowest one first.
    U32Le = 5,
}

impl LengthPrefix {
    #[cfg(feature = "capi")]
    pub(crate) fn from_number(number: i32) -> Option<LengthPrefix> {
        use LengthPrefix::*;
        [U8, U16Be, U16Le, U32Be, U32Le].into_iter().find(|prefix| *prefix as i32 == number)
    }

    pub(crate) fn size(self) -> usize {
        match self {
            LengthPrefix::U8 => 1,
            LengthPrefix::U16Be | LengthPrefix::U16Le => 2,
            LengthPrefix::U32Be | LengthPrefix::U32Le => 4,
        }
    }

    fn is_big_endian(self) -> bool {
        !matches!(self, LengthPrefix::U16Le | LengthPrefix::U32Le)
    }

    /// The prefix of a message, if it can say so much.
    pub(crate) fn encode(self, len: usize) -> Option<Encoded> {
        let len = u32::try_from(len).ok()?;
        let size = self.size();
        if size < 4 && len >> (8 * size) != 0 {
            return None;
        }
        let mut bytes = [0; 4];
        if self.is_big_endian() {
            bytes[..size].copy_from_slice(&len.to_be_bytes()[4 - size..]);
        } else {
            bytes[..size].copy_from_slice(&len.to_le_bytes()[..size]);
        }
        Some(Encoded { bytes, size })
    }

    /// Where the first message is in `data`.
    pub(crate) fn cut(self, data: &[u8], max: usize) -> Cut {
        let size = self.size();
        let Some(prefix) = data.get(..size) else {
            return Cut::More;
        };
        let shift = |len: usize, byte: &u8| (len << 8) | usize::from(*byte);
        let len = if self.is_big_endian() {
            prefix.iter().fold(0, shift)
        } else {
            prefix.iter().rev().fold(0, shift)
        };
        match size.checked_add(len) {
            _ if len > max => Cut::TooLong,
            Some(end) if end <= data.len() => Cut::Piece { range: size..end, len: end },
            _ => Cut::More,
        }
    }
}

/// A prefix in its bytes.
pub(crate) struct Encoded {
    bytes: [u8; 4],
    size: usize,
}

impl Encoded {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// What is at the beginning of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The message has yet to come, or its end has.
    More,
    /// A message: where its bytes are, and how many bytes it takes up with what belongs to it.
    Piece {
        range: Range<usize>,
        len: usize,
    },
    TooLong,
}

/// The search for a delimiter in bytes that grow: once some are taken, it begins anew.
#[derive(Debug)]
pub(crate) struct Delimited {
    delimiter: u8,
    /// Bytes, the delimiter included.
    max: usize,
    searched: usize,
}

impl Delimited {
    pub(crate) fn new(delimiter: u8, max: usize) -> Delimited {
        Delimited { delimiter, max, searched: 0 }
    }

    /// The piece up to and with the first delimiter; at the end of the stream, what is left.
    pub(crate) fn cut(&mut self, data: &[u8], ended: bool) -> Cut {
        let within = &data[..data.len().min(self.max)];
        let from = self.searched.min(within.len());
        let found = within[from..].iter().position(|b| *b == self.delimiter).map(|i| from + i + 1);
        self.searched = within.len();
        let rest = (ended && !data.is_empty() && data.len() <= self.max).then_some(data.len());
        match found.or(rest) {
            Some(len) => Cut::Piece { range: 0..len, len },
            None if data.len() >= self.max => Cut::TooLong,
            None => Cut::More,
        }
    }
}

/// The search for a line of at most `max` bytes, which do not count LF or CRLF.
#[derive(Debug)]
pub(crate) struct Line {
    max: usize,
    found: Delimited,
}

impl Line {
    pub(crate) fn new(max: usize) -> Line {
        Line { max, found: Delimited::new(b'\n', max.saturating_add(2)) }
    }

    pub(crate) fn cut(&mut self, data: &[u8], ended: bool) -> Cut {
        match self.found.cut(data, ended) {
            Cut::Piece { len, .. } => {
                let piece = &data[..len];
                let line = piece
                    .strip_suffix(b"\n")
                    .map_or(piece, |line| line.strip_suffix(b"\r").unwrap_or(line));
                if line.len() > self.max {
                    return Cut::TooLong;
                }
                Cut::Piece { range: 0..line.len(), len }
            }
            // Only CR and LF may follow as many bytes as a line may have.
            Cut::More if data.get(self.max).is_some_and(|b| *b != b'\r') => Cut::TooLong,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LengthPrefix::*;

    const ALL: [LengthPrefix; 5] = [U8, U16Be, U16Le, U32Be, U32Le];

    /// V6: one, two and four bytes, either order.
    #[test]
    fn prefixes_in_bytes() {
        for (prefix, len, bytes) in [
            (U8, 5, &[5][..]),
            (U8, 255, &[255]),
            (U16Be, 258, &[1, 2]),
            (U16Le, 258, &[2, 1]),
            (U32Be, 0x0102_0304, &[1, 2, 3, 4]),
            (U32Le, 0x0102_0304, &[4, 3, 2, 1]),
        ] {
            assert_eq!(prefix.encode(len).unwrap().as_slice(), bytes, "{prefix:?}");
        }
        assert!(U8.encode(256).is_none());
        assert!(U16Le.encode(65_536).is_none());
        assert!(U32Be.encode(u32::MAX as usize).is_some());
        #[cfg(target_pointer_width = "64")]
        assert!(U32Be.encode(1 << 32).is_none());
    }

    /// V6: what was written is what is read, however the bytes come.
    #[test]
    fn messages_however_they_come() {
        for prefix in ALL {
            for len in [0usize, 1, 2, 200, 255] {
                let mut stream = prefix.encode(len).unwrap().as_slice().to_vec();
                let size = stream.len();
                stream.extend(vec![b'm'; len]);
                stream.extend(b"next");
                for there in 0..size + len {
                    assert_eq!(prefix.cut(&stream[..there], 255), Cut::More, "{prefix:?} {there}");
                }
                let whole = Cut::Piece { range: size..size + len, len: size + len };
                assert_eq!(prefix.cut(&stream[..size + len], 255), whole);
                assert_eq!(prefix.cut(&stream, 255), whole);
                // Known to be too long as soon as the prefix is there.
                if len > 0 {
                    assert_eq!(prefix.cut(&stream[..size], len - 1), Cut::TooLong);
                }
            }
        }
        assert_eq!(U32Le.cut(&[0xff; 8], usize::MAX), Cut::More);
    }

    /// V6: lines, with either end; the search goes on where it was.
    #[test]
    fn lines_however_they_come() {
        let cut = |data: &[u8], max, ended| Line::new(max).cut(data, ended);
        let piece = |line, len| Cut::Piece { range: 0..line, len };
        assert_eq!(cut(b"ab\ncd", 2, false), piece(2, 3));
        assert_eq!(cut(b"ab\r\ncd", 2, false), piece(2, 4));
        assert_eq!(cut(b"abc\n", 2, false), Cut::TooLong);
        assert_eq!(cut(b"abcd", 2, false), Cut::TooLong);
        assert_eq!(cut(b"abc", 2, false), Cut::TooLong);
        assert_eq!(cut(b"ab\r", 2, false), Cut::More, "LF may follow");
        assert_eq!(cut(b"ab", 2, false), Cut::More);
        assert_eq!(cut(b"ab", 2, true), piece(2, 2));
        assert_eq!(cut(b"", 2, true), Cut::More);
        let mut line = Line::new(100);
        let data = b"hello world\nrest";
        for there in 0..12 {
            assert_eq!(line.cut(&data[..there], false), Cut::More);
        }
        assert_eq!(line.cut(data, false), piece(11, 12));
    }
}
