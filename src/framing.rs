//! How a stream is cut into messages: by a delimiter, or by a length before each. No I/O.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

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

/// How event-driven serving cuts what comes in into messages, and marks what goes out.
///
/// A message is at most `max` bytes, which do not count what marks its end or its length. A
/// longer one ends its connection, and nobody else's, with [`TooLong`](crate::End::TooLong).
///
/// ```
/// use keepsock::{Framing, LengthPrefix, ServeOptions};
/// let lines = ServeOptions::new().framing(Framing::Lines { max: 1024 });
/// let messages = Framing::Prefixed { prefix: LengthPrefix::U32Be, max: 1024 * 1024 };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// Bytes as they come, and as they are sent.
    #[default]
    Raw,
    /// Lines: what comes may end with LF or CRLF, which is taken off, and LF is added to what is
    /// sent. The last line of a stream may come without.
    Lines {
        /// Bytes in a line.
        max: usize,
    },
    /// As lines, with a delimiter of the protocol's own.
    Delimited {
        /// What ends a message.
        delimiter: u8,
        /// Bytes in a message.
        max: usize,
    },
    /// The length comes before each message. It is taken off, and added. A message that the
    /// stream ends within is dropped.
    Prefixed {
        /// How the length is written.
        prefix: LengthPrefix,
        /// Bytes in a message.
        max: usize,
    },
}

impl Framing {
    pub(crate) fn validate(self, operation: &'static str) -> Result<()> {
        match self {
            Framing::Raw => Ok(()),
            Framing::Lines { max: 0 }
            | Framing::Delimited { max: 0, .. }
            | Framing::Prefixed { max: 0, .. } => {
                let err = Error::new(ErrorKind::InvalidArgument, operation);
                Err(err.detail("messages of at most zero bytes"))
            }
            _ => Ok(()),
        }
    }

    /// What finds the first message; `None`: there are none to find.
    pub(crate) fn cutter(self) -> Option<Cutter> {
        match self {
            Framing::Raw => None,
            Framing::Lines { max } => Some(Cutter::Line(Line::new(max))),
            Framing::Delimited { delimiter, max } => {
                Some(Cutter::Delimited(Delimited::new(delimiter, max.saturating_add(1))))
            }
            Framing::Prefixed { prefix, max } => Some(Cutter::Prefixed { prefix, max }),
        }
    }

    /// What is sent before and after a message of so many bytes; `None`: the prefix cannot say
    /// its length.
    #[inline]
    pub(crate) fn mark(self, len: usize) -> Option<(Encoded, Encoded)> {
        let nothing = Encoded { bytes: [0; 4], size: 0 };
        let byte = |b| Encoded { bytes: [b, 0, 0, 0], size: 1 };
        match self {
            Framing::Raw => Some((nothing, nothing)),
            Framing::Lines { .. } => Some((nothing, byte(b'\n'))),
            Framing::Delimited { delimiter, .. } => Some((nothing, byte(delimiter))),
            Framing::Prefixed { prefix, .. } => prefix.encode(len).map(|p| (p, nothing)),
        }
    }
}

/// The search for one message in bytes that grow: once it is found, it begins anew.
#[derive(Debug)]
pub(crate) enum Cutter {
    Line(Line),
    Delimited(Delimited),
    Prefixed { prefix: LengthPrefix, max: usize },
}

impl Cutter {
    pub(crate) fn cut(&mut self, data: &[u8], ended: bool) -> Cut {
        match self {
            Cutter::Line(line) => line.cut(data, ended),
            Cutter::Delimited(found) => {
                let delimiter = found.delimiter;
                match found.cut(data, ended) {
                    Cut::Piece { range, len } if data[range.clone()].ends_with(&[delimiter]) => {
                        Cut::Piece { range: range.start..range.end - 1, len }
                    }
                    // Without its delimiter it may not have the byte that the delimiter has.
                    Cut::Piece { len, .. } if len >= found.max => Cut::TooLong,
                    other => other,
                }
            }
            Cutter::Prefixed { prefix, max } => prefix.cut(data, *max),
        }
    }
}

/// What marks a message, in its bytes.
#[derive(Debug, Clone, Copy)]
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

    /// V6: what is sent is what is received, in every framing; a message may have `max` bytes,
    /// and one more is too long.
    #[test]
    fn framings_there_and_back() {
        let all = [
            Framing::Lines { max: 8 },
            Framing::Delimited { delimiter: 0, max: 8 },
            Framing::Prefixed { prefix: U16Be, max: 8 },
        ];
        for framing in all {
            for (len, fits) in [(0, true), (1, true), (8, true), (9, false), (200, false)] {
                let message = vec![b'm'; len];
                let (before, after) = framing.mark(len).unwrap();
                let stream = [before.as_slice(), &message, after.as_slice(), b"next"].concat();
                let mut cutter = framing.cutter().unwrap();
                match cutter.cut(&stream, false) {
                    Cut::Piece { range, len } if fits => {
                        assert_eq!(&stream[range], message, "{framing:?}");
                        assert_eq!(&stream[len..], b"next", "{framing:?}");
                    }
                    Cut::TooLong if !fits => {}
                    other => panic!("{framing:?}, {len} bytes: {other:?}"),
                }
            }
        }
        let mut last = Framing::Delimited { delimiter: 0, max: 2 }.cutter().unwrap();
        assert_eq!(last.cut(b"ab", true), Cut::Piece { range: 0..2, len: 2 });
        assert_eq!(last.cut(b"abc", true), Cut::TooLong);
        assert!(Framing::Raw.cutter().is_none());
        assert!(Framing::Prefixed { prefix: U8, max: 1000 }.mark(256).is_none());
        for nothing in [Framing::Lines { max: 0 }, Framing::Prefixed { prefix: U8, max: 0 }] {
            let err = nothing.validate("test").unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
        }
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
