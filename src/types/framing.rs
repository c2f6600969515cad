//! Framing: splitting a stream into messages by a delimiter or a length prefix. No I/O.

use std::ops::Range;

#[cfg(feature = "serve")]
use crate::types::error::{Error, ErrorKind, Result};

/// The format of a length prefix. The length does not include the prefix itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum LengthPrefix {
    /// One byte.
    U8 = 1,
    /// Two bytes, big-endian (network byte order).
    U16Be = 2,
    /// Two bytes, little-endian.
    U16Le = 3,
    /// Four bytes, big-endian (network byte order).
    U32Be = 4,
    /// Four bytes, little-endian.
    U32Le = 5,
}

impl LengthPrefix {
    pub(crate) fn size(self) -> usize {
        match self {
            LengthPrefix::U8 => 1,
            LengthPrefix::U16Be | LengthPrefix::U16Le => 2,
            LengthPrefix::U32Be | LengthPrefix::U32Le => 4,
        }
    }

    /// The length of the longest message.
    #[cfg(feature = "serve")]
    fn max_len(self) -> u64 {
        (1 << (8 * self.size())) - 1
    }

    fn is_big_endian(self) -> bool {
        !matches!(self, LengthPrefix::U16Le | LengthPrefix::U32Le)
    }

    /// The prefix of a message of `len` bytes; `None`: the format cannot represent that length.
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

    /// Finds the first message in `data`. A message of more than `max` bytes is too long.
    pub(crate) fn split(self, data: &[u8], max: usize) -> Split {
        let size = self.size();
        let Some(prefix) = data.get(..size) else {
            return Split::Incomplete;
        };
        let shift = |len: usize, byte: &u8| (len << 8) | usize::from(*byte);
        let len = if self.is_big_endian() {
            prefix.iter().fold(0, shift)
        } else {
            prefix.iter().rev().fold(0, shift)
        };
        match size.checked_add(len) {
            _ if len > max => Split::TooLong,
            Some(end) if end <= data.len() => Split::Message { range: size..end, len: end },
            _ => Split::Incomplete,
        }
    }
}

/// How event-driven serving splits received bytes into messages and delimits sent messages.
///
/// A received message has at most `max` bytes, without its delimiter or length prefix. If a peer
/// sends a longer message, its connection is closed with the reason
/// [`MessageTooLong`](crate::CloseReason::MessageTooLong). Other connections are not affected.
/// `max` does not limit sent messages.
///
/// A sent message must not contain its delimiter, because the peer would receive several messages.
/// [`Connection::send`](crate::Connection::send) and
/// [`Service::broadcast`](crate::Service::broadcast) reject it with
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
///
/// ```
/// use keepsock::{Framing, LengthPrefix, ServeOptions};
/// let lines = ServeOptions::new().framing(Framing::Lines { max: 1024 });
/// let messages = Framing::Prefixed { prefix: LengthPrefix::U32Be, max: 1024 * 1024 };
/// ```
#[cfg(feature = "serve")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// No framing. Bytes are delivered as they are received and sent unchanged.
    #[default]
    Raw,
    /// Lines. A received line ends with LF or CRLF, which is removed. LF is appended to each sent
    /// line. The last line of a stream may end without LF.
    Lines {
        /// The maximum length of a line, in bytes.
        max: usize,
    },
    /// Messages that end with a delimiter. The delimiter is removed from received messages and
    /// appended to sent messages. The last message of a stream may end without it.
    Delimited {
        /// The byte that ends a message.
        delimiter: u8,
        /// Bytes in a message.
        max: usize,
    },
    /// Messages with a length prefix. The prefix is removed from received messages and added to
    /// sent messages. If the stream ends within a message, that message is discarded.
    Prefixed {
        /// The format of the prefix.
        prefix: LengthPrefix,
        /// Bytes in a message.
        max: usize,
    },
}

#[cfg(feature = "serve")]
impl Framing {
    pub(crate) fn validate(self, operation: &'static str) -> Result<()> {
        match self {
            Framing::Raw => Ok(()),
            Framing::Lines { max: 0 }
            | Framing::Delimited { max: 0, .. }
            | Framing::Prefixed { max: 0, .. } => {
                let err = Error::new(ErrorKind::InvalidArgument, operation);
                Err(err.detail("framing: max must be greater than zero"))
            }
            Framing::Prefixed { prefix, max } if prefix.encode(max).is_none() => {
                let err = Error::new(ErrorKind::InvalidArgument, operation);
                let (size, most) = (prefix.size(), prefix.max_len());
                let bytes = if size == 1 { "byte" } else { "bytes" };
                Err(err.detail(format!(
                    "framing: max must be at most {most}, the longest message with a length of \
                     {size} {bytes}, not {max}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// The splitter for this framing; `None`: there is nothing to split.
    pub(crate) fn splitter(self) -> Option<Splitter> {
        match self {
            Framing::Raw => None,
            Framing::Lines { max } => Some(Splitter::Line(LineSplitter::new(max))),
            Framing::Delimited { delimiter, max } => {
                Some(Splitter::Delimited(DelimiterSplitter::new(delimiter, max.saturating_add(1))))
            }
            Framing::Prefixed { prefix, max } => Some(Splitter::Prefixed { prefix, max }),
        }
    }

    /// The bytes that are sent before and after a message; `None`: the message contains its
    /// delimiter, or the prefix cannot represent its length.
    #[inline]
    pub(crate) fn mark(self, message: &[u8]) -> Option<(Encoded, Encoded)> {
        let nothing = Encoded { bytes: [0; 4], size: 0 };
        let byte = |b| Encoded { bytes: [b, 0, 0, 0], size: 1 };
        match self {
            Framing::Raw => Some((nothing, nothing)),
            Framing::Lines { .. } => (!message.contains(&b'\n')).then_some((nothing, byte(b'\n'))),
            Framing::Delimited { delimiter, .. } => {
                (!message.contains(&delimiter)).then_some((nothing, byte(delimiter)))
            }
            Framing::Prefixed { prefix, .. } => prefix.encode(message.len()).map(|p| (p, nothing)),
        }
    }
}

/// Finds messages in a growing buffer. After a message was found, the search starts again at the
/// beginning of the buffer.
#[cfg(feature = "serve")]
#[derive(Debug)]
pub(crate) enum Splitter {
    Line(LineSplitter),
    Delimited(DelimiterSplitter),
    Prefixed { prefix: LengthPrefix, max: usize },
}

#[cfg(feature = "serve")]
impl Splitter {
    pub(crate) fn split(&mut self, data: &[u8], ended: bool) -> Split {
        match self {
            Splitter::Line(line) => line.split(data, ended),
            Splitter::Delimited(found) => {
                let delimiter = found.delimiter;
                match found.split(data, ended) {
                    Split::Message { range, len }
                        if data[range.clone()].ends_with(&[delimiter]) =>
                    {
                        Split::Message { range: range.start..range.end - 1, len }
                    }
                    // The maximum includes the delimiter, which is absent here.
                    Split::Message { len, .. } if len >= found.max => Split::TooLong,
                    other => other,
                }
            }
            Splitter::Prefixed { prefix, max } => prefix.split(data, *max),
        }
    }
}

/// A delimiter or length prefix, as bytes.
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

/// The result of a search for the first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Split {
    /// The message is not complete.
    Incomplete,
    /// A message in `range`. With its prefix or delimiter it takes `len` bytes.
    Message {
        range: Range<usize>,
        len: usize,
    },
    TooLong,
}

/// Finds a delimiter in a growing buffer. After a message was removed from the buffer, a new value
/// is needed.
#[derive(Debug)]
pub(crate) struct DelimiterSplitter {
    delimiter: u8,
    /// The maximum length in bytes, including the delimiter.
    max: usize,
    searched: usize,
}

impl DelimiterSplitter {
    pub(crate) fn new(delimiter: u8, max: usize) -> DelimiterSplitter {
        DelimiterSplitter { delimiter, max, searched: 0 }
    }

    /// The message up to and including the first delimiter. At the end of the stream, the rest.
    pub(crate) fn split(&mut self, data: &[u8], ended: bool) -> Split {
        let within = &data[..data.len().min(self.max)];
        let from = self.searched.min(within.len());
        let found = within[from..].iter().position(|b| *b == self.delimiter).map(|i| from + i + 1);
        self.searched = within.len();
        let rest = (ended && !data.is_empty() && data.len() <= self.max).then_some(data.len());
        match found.or(rest) {
            Some(len) => Split::Message { range: 0..len, len },
            None if data.len() >= self.max => Split::TooLong,
            None => Split::Incomplete,
        }
    }
}

/// Finds a line of at most `max` bytes, without LF or CRLF, in a growing buffer.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    max: usize,
    found: DelimiterSplitter,
}

impl LineSplitter {
    pub(crate) fn new(max: usize) -> LineSplitter {
        LineSplitter { max, found: DelimiterSplitter::new(b'\n', max.saturating_add(2)) }
    }

    pub(crate) fn split(&mut self, data: &[u8], ended: bool) -> Split {
        match self.found.split(data, ended) {
            Split::Message { len, .. } => {
                let piece = &data[..len];
                let line = piece
                    .strip_suffix(b"\n")
                    .map_or(piece, |line| line.strip_suffix(b"\r").unwrap_or(line));
                if line.len() > self.max {
                    return Split::TooLong;
                }
                Split::Message { range: 0..line.len(), len }
            }
            // A line of the maximum length can only be followed by CR or LF.
            Split::Incomplete if data.get(self.max).is_some_and(|b| *b != b'\r') => Split::TooLong,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LengthPrefix::*;

    const ALL: [LengthPrefix; 5] = [U8, U16Be, U16Le, U32Be, U32Le];

    /// V6: one, two and four bytes, in both byte orders.
    #[test]
    fn length_prefix_encode_writes_both_byte_orders() {
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

    /// V6: a message is found as soon as it is complete.
    #[test]
    fn length_prefix_split_waits_for_the_whole_message() {
        for prefix in ALL {
            for len in [0usize, 1, 2, 200, 255] {
                let mut stream = prefix.encode(len).unwrap().as_slice().to_vec();
                let size = stream.len();
                stream.extend(vec![b'm'; len]);
                stream.extend(b"next");
                for there in 0..size + len {
                    assert_eq!(
                        prefix.split(&stream[..there], 255),
                        Split::Incomplete,
                        "{prefix:?} {there}"
                    );
                }
                let whole = Split::Message { range: size..size + len, len: size + len };
                assert_eq!(prefix.split(&stream[..size + len], 255), whole);
                assert_eq!(prefix.split(&stream, 255), whole);
                // The prefix alone shows that the message is too long.
                if len > 0 {
                    assert_eq!(prefix.split(&stream[..size], len - 1), Split::TooLong);
                }
            }
        }
        assert_eq!(U32Le.split(&[0xff; 8], usize::MAX), Split::Incomplete);
    }

    /// V6: a sent message is received unchanged in every framing. `max` bytes are accepted, one
    /// more is not.
    #[cfg(feature = "serve")]
    #[test]
    fn framing_splits_what_it_delimits() {
        let all = [
            Framing::Lines { max: 8 },
            Framing::Delimited { delimiter: 0, max: 8 },
            Framing::Prefixed { prefix: U16Be, max: 8 },
        ];
        for framing in all {
            for (len, fits) in [(0, true), (1, true), (8, true), (9, false), (200, false)] {
                let message = vec![b'm'; len];
                let (before, after) = framing.mark(&message).unwrap();
                let stream = [before.as_slice(), &message, after.as_slice(), b"next"].concat();
                let mut splitter = framing.splitter().unwrap();
                match splitter.split(&stream, false) {
                    Split::Message { range, len } if fits => {
                        assert_eq!(&stream[range], message, "{framing:?}");
                        assert_eq!(&stream[len..], b"next", "{framing:?}");
                    }
                    Split::TooLong if !fits => {}
                    other => panic!("{framing:?}, {len} bytes: {other:?}"),
                }
            }
        }
        let mut last = Framing::Delimited { delimiter: 0, max: 2 }.splitter().unwrap();
        assert_eq!(last.split(b"ab", true), Split::Message { range: 0..2, len: 2 });
        assert_eq!(last.split(b"abc", true), Split::TooLong);
        assert!(Framing::Raw.splitter().is_none());
        assert!(Framing::Prefixed { prefix: U8, max: 1000 }.mark(&[0; 256]).is_none());
        for nothing in [Framing::Lines { max: 0 }, Framing::Prefixed { prefix: U8, max: 0 }] {
            let err = nothing.validate("test").unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
        }
    }

    /// V6: lines that end with LF or CRLF. The search continues where it stopped.
    #[test]
    fn line_split_accepts_lf_and_crlf() {
        let cut = |data: &[u8], max, ended| LineSplitter::new(max).split(data, ended);
        let piece = |line, len| Split::Message { range: 0..line, len };
        assert_eq!(cut(b"ab\ncd", 2, false), piece(2, 3));
        assert_eq!(cut(b"ab\r\ncd", 2, false), piece(2, 4));
        assert_eq!(cut(b"abc\n", 2, false), Split::TooLong);
        assert_eq!(cut(b"abcd", 2, false), Split::TooLong);
        assert_eq!(cut(b"abc", 2, false), Split::TooLong);
        assert_eq!(cut(b"ab\r", 2, false), Split::Incomplete, "LF may be next");
        assert_eq!(cut(b"ab", 2, false), Split::Incomplete);
        assert_eq!(cut(b"ab", 2, true), piece(2, 2));
        assert_eq!(cut(b"", 2, true), Split::Incomplete);
        let mut line = LineSplitter::new(100);
        let data = b"hello world\nrest";
        for there in 0..12 {
            assert_eq!(line.split(&data[..there], false), Split::Incomplete);
        }
        assert_eq!(line.split(data, false), piece(11, 12));
    }
}
