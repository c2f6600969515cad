//! Framing: splitting a stream into messages. No I/O.

use std::ops::Range;

use crate::types::error::{Bytes, Error, ErrorKind, Grouped, Result};

/// The format of a length: the number of its bytes and their order, or a variable-length integer
/// (LEB128). Lengths are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum LengthFormat {
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
    /// Three bytes, big-endian (network byte order).
    U24Be = 6,
    /// Three bytes, little-endian.
    U24Le = 7,
    /// Eight bytes, big-endian (network byte order).
    U64Be = 8,
    /// Eight bytes, little-endian.
    U64Le = 9,
    /// The variable-length integer of MQTT: 1 to 4 bytes with 7 bits each, the lowest bits first. A
    /// longer form than necessary is malformed.
    VarintMqtt = 10,
    /// The varint of Protocol Buffers: 1 to 10 bytes with 7 bits each, the lowest bits first. A
    /// longer form than necessary is accepted, as parsers of Protocol Buffers do.
    VarintProtobuf = 11,
}

/// The result of decoding a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoded {
    Incomplete,
    /// The length, and the number of bytes of its field.
    Length(u64, usize),
    Malformed(&'static str),
}

impl LengthFormat {
    /// The greatest number of bytes of the field.
    fn max_size(self) -> usize {
        match self {
            LengthFormat::U8 => 1,
            LengthFormat::U16Be | LengthFormat::U16Le => 2,
            LengthFormat::U24Be | LengthFormat::U24Le => 3,
            LengthFormat::U32Be | LengthFormat::U32Le | LengthFormat::VarintMqtt => 4,
            LengthFormat::U64Be | LengthFormat::U64Le => 8,
            LengthFormat::VarintProtobuf => MAX_FIELD,
        }
    }

    fn is_varint(self) -> bool {
        matches!(self, LengthFormat::VarintMqtt | LengthFormat::VarintProtobuf)
    }

    fn is_little_endian(self) -> bool {
        matches!(
            self,
            LengthFormat::U16Le | LengthFormat::U24Le | LengthFormat::U32Le | LengthFormat::U64Le
        )
    }

    /// The least number of bytes of the field.
    fn min_size(self) -> usize {
        if self.is_varint() { 1 } else { self.max_size() }
    }

    /// The greatest length.
    fn max_len(self) -> u64 {
        let bits = if self.is_varint() { 7 } else { 8 } * self.max_size() as u32;
        1u64.checked_shl(bits).map_or(u64::MAX, |beyond| beyond - 1)
    }

    /// The length as bytes; `None`: the format cannot represent it.
    fn encode(self, len: usize) -> Option<Encoded> {
        let len = u64::try_from(len).ok().filter(|len| *len <= self.max_len())?;
        let mut bytes = [0; MAX_FIELD];
        let mut size = self.max_size();
        if self.is_varint() {
            let mut rest = len;
            size = 0;
            loop {
                bytes[size] = (rest & 0x7f) as u8;
                rest >>= 7;
                if rest == 0 {
                    size += 1;
                    break;
                }
                bytes[size] |= 0x80;
                size += 1;
            }
        } else if self.is_little_endian() {
            bytes[..size].copy_from_slice(&len.to_le_bytes()[..size]);
        } else {
            bytes[..size].copy_from_slice(&len.to_be_bytes()[8 - size..]);
        }
        Some(Encoded { bytes, size: size as u8 })
    }

    /// Decodes the length at the start of `data`.
    fn decode(self, data: &[u8]) -> Decoded {
        if self.is_varint() {
            return self.decode_varint(data);
        }
        let size = self.max_size();
        let Some(field) = data.get(..size) else {
            return Decoded::Incomplete;
        };
        let shift = |len: u64, byte: &u8| (len << 8) | u64::from(*byte);
        let len = if self.is_little_endian() {
            field.iter().rev().fold(0, shift)
        } else {
            field.iter().fold(0, shift)
        };
        Decoded::Length(len, size)
    }

    fn decode_varint(self, data: &[u8]) -> Decoded {
        let mut len = 0;
        let most = self.max_size();
        for (at, byte) in data.iter().take(most).enumerate() {
            // The tenth byte has room for one bit.
            if at == 9 && *byte > 1 {
                return Decoded::Malformed("the length has more than 64 bits");
            }
            len |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                if self == LengthFormat::VarintMqtt && at > 0 && *byte == 0 {
                    return Decoded::Malformed("the length is not in its shortest form");
                }
                return Decoded::Length(len, at + 1);
            }
        }
        if data.len() < most {
            return Decoded::Incomplete;
        }
        Decoded::Malformed("the length has more than 4 bytes")
    }
}

/// How received bytes are split into messages, and how sent messages are delimited: by event-driven
/// serving (`ServeOptions::framing`), by [`read_message`](crate::ClientSocket::read_message) and by
/// [`write_message`](crate::ClientSocket::write_message).
///
/// | framing | a received message | a sent message |
/// |---|---|---|
/// | `Raw` | the bytes that have arrived | is sent unchanged |
/// | `Fixed` | `len` bytes | is sent unchanged |
/// | `Lines` | a line without LF or CRLF | gets LF |
/// | `Delimited` | the bytes before the delimiter | gets the delimiter |
/// | `Prefixed` | the bytes that follow the length | gets its length |
/// | `LengthField` | the whole frame with its header | is sent unchanged: it is a whole frame |
///
/// A received message has at most `max` bytes. `max` does not limit sent messages. A longer message
/// is too long. A message is malformed if its length field is not a number in its
/// [format](LengthFormat), or if the length with its adjustment is below zero. Event-driven serving
/// resets the connection of a peer that sends such a message, with the reason
/// [`MessageTooLong`](crate::CloseReason::MessageTooLong) or
/// [`MessageMalformed`](crate::CloseReason::MessageMalformed). Other connections are not affected.
///
/// A sent message must be received unchanged. `Connection::send`, `Service::broadcast` and
/// [`write_message`](crate::ClientSocket::write_message) reject other messages with
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument): a message that contains its delimiter, a
/// line that ends with CR, and a message whose length is not that of `Fixed` or of its length field.
///
/// If the stream ends within a message, that message is discarded. The last message of `Lines` and
/// `Delimited` may end without its delimiter.
///
/// ```
/// use keepsock::{Framing, LengthFormat};
///
/// // Text protocols.
/// let lines = Framing::Lines { max: 1024 };
/// // DNS over TCP: a length of two bytes, then the message.
/// let dns = Framing::Prefixed { format: LengthFormat::U16Be, max: 65_535 };
/// // Protocol Buffers, as writeDelimitedTo() writes them: a varint, then the message.
/// let protobuf = Framing::Prefixed { format: LengthFormat::VarintProtobuf, max: 1 << 20 };
/// // MQTT: the packet type, then the remaining length. A message is a whole packet.
/// let mqtt = Framing::LengthField {
///     format: LengthFormat::VarintMqtt,
///     offset: 1,
///     adjustment: 0,
///     max: 64 * 1024,
/// };
/// // PostgreSQL: the message type, then a length of four bytes that includes itself.
/// let postgres = Framing::LengthField {
///     format: LengthFormat::U32Be,
///     offset: 1,
///     adjustment: -4,
///     max: 1 << 20,
/// };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// No framing. Bytes are delivered as they are received and sent unchanged.
    #[default]
    Raw,
    /// Messages of one length. A sent message of another length is rejected.
    Fixed {
        /// The length of each message, in bytes.
        len: usize,
    },
    /// Lines. A received line ends with LF or CRLF, which is removed. LF is appended to each sent
    /// line, which must not end with CR. The last line of a stream may end without LF.
    Lines {
        /// The maximum length of a line, in bytes, without LF or CRLF.
        max: usize,
    },
    /// Messages that end with a delimiter. The delimiter is removed from received messages and
    /// appended to sent messages. The last message of a stream may end without it.
    Delimited {
        /// The byte that ends a message.
        delimiter: u8,
        /// The maximum length of a message, in bytes, without the delimiter.
        max: usize,
    },
    /// Messages that follow their length. The length is removed from received messages and added to
    /// sent messages. It does not count its own bytes.
    Prefixed {
        /// The format of the length.
        format: LengthFormat,
        /// The maximum length of a message, in bytes, without its length field.
        max: usize,
    },
    /// Frames that contain their length, after `offset` bytes. A received message is the whole frame,
    /// with the bytes before the length field and with the field itself. A sent message is a whole
    /// frame, which the program has composed. It is rejected if its length field describes another
    /// length.
    ///
    /// A frame has `offset` bytes, the length field, and then as many bytes as the sum of the length
    /// and `adjustment`. The names are those of Netty's LengthFieldBasedFrameDecoder.
    ///
    /// | the length counts | `adjustment` |
    /// |---|---|
    /// | the bytes after the length field | 0 |
    /// | also bytes before them, such as the whole frame | minus the number of those bytes |
    /// | not all bytes after the length field | the number of the others |
    LengthField {
        /// The format of the length.
        format: LengthFormat,
        /// The number of bytes before the length field.
        offset: usize,
        /// A number that is added to the length, often 0 or negative.
        adjustment: i32,
        /// The maximum length of a whole frame, in bytes.
        max: usize,
    },
}

impl Framing {
    /// The largest number of bytes of a received message, with its length or delimiter.
    #[cfg(feature = "serve")]
    pub(crate) fn longest(self) -> usize {
        match self {
            Framing::Raw => 0,
            Framing::Fixed { len: most } | Framing::LengthField { max: most, .. } => most,
            Framing::Lines { max } => max.saturating_add(2),
            Framing::Delimited { max, .. } => max.saturating_add(1),
            Framing::Prefixed { format, max } => max.saturating_add(format.max_size()),
        }
    }

    pub(crate) fn validate(self, operation: &'static str) -> Result<()> {
        let invalid = |what: String| {
            Err(Error::new(ErrorKind::InvalidArgument, operation)
                .detail(format!("framing: {what}")))
        };
        match self {
            Framing::Fixed { len: 0 } => invalid("len must be greater than zero".to_owned()),
            Framing::Lines { max: 0 }
            | Framing::Delimited { max: 0, .. }
            | Framing::Prefixed { max: 0, .. }
            | Framing::LengthField { max: 0, .. } => {
                invalid("max must be greater than zero".to_owned())
            }
            Framing::Prefixed { format, max } if format.encode(max).is_none() => {
                let (size, most) = (format.max_size(), format.max_len());
                let bytes = if size == 1 { "byte" } else { "bytes" };
                invalid(format!(
                    "max must be at most {most}, the longest message with a length of {size} \
                     {bytes}, not {max}"
                ))
            }
            Framing::LengthField { format, offset, max, .. }
                if max.checked_sub(format.min_size()).is_none_or(|most| offset > most) =>
            {
                let size = format.min_size();
                invalid(format!(
                    "max must be at least the sum of the offset, {offset}, and the size of the \
                     length field, {size}, not {max}"
                ))
            }
            // A length counts at most all bytes before the body.
            Framing::LengthField { format, offset, adjustment, .. }
                if (offset as i128 + format.max_size() as i128 + i128::from(adjustment)) < 0 =>
            {
                let size = format.max_size();
                invalid(format!(
                    "length_adjustment is {adjustment}: it must be at least minus the sum of the \
                     offset, {offset}, and the size of the length field, {size}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// The framing with a maximum of at most `cap`. A longer message is then too long.
    pub(crate) fn limited(self, cap: usize) -> Framing {
        let mut framing = self;
        match &mut framing {
            Framing::Raw | Framing::Fixed { .. } => {}
            Framing::Lines { max }
            | Framing::Delimited { max, .. }
            | Framing::Prefixed { max, .. }
            | Framing::LengthField { max, .. } => *max = cap.min(*max),
        }
        framing
    }

    /// The byte that ends a message, if the splitter searches for one.
    pub(crate) fn delimiter(self) -> Option<u8> {
        match self {
            Framing::Lines { .. } => Some(b'\n'),
            Framing::Delimited { delimiter, .. } => Some(delimiter),
            Framing::Raw
            | Framing::Fixed { .. }
            | Framing::Prefixed { .. }
            | Framing::LengthField { .. } => None,
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
            Framing::Fixed { len } => Some(Splitter::Fixed { len }),
            Framing::Prefixed { format, max } => Some(Splitter::Prefixed { format, max }),
            Framing::LengthField { format, offset, adjustment, max } => {
                Some(Splitter::LengthField { format, offset, adjustment, max })
            }
        }
    }

    /// The bytes that are sent before and after a message; `None`: the peer would not receive the
    /// message unchanged, or the format cannot represent its length.
    #[inline]
    pub(crate) fn mark(self, message: &[u8]) -> Option<(Encoded, Encoded)> {
        self.mark_parts(message.len(), std::iter::once(message))
    }

    /// Does what [`mark`](Framing::mark) does for a message whose parts have `len` bytes in all.
    #[inline]
    pub(crate) fn mark_parts<'p>(
        self,
        len: usize,
        mut parts: impl Iterator<Item = &'p [u8]>,
    ) -> Option<(Encoded, Encoded)> {
        let nothing = Encoded { bytes: [0; MAX_FIELD], size: 0 };
        let byte = |byte| {
            let mut bytes = [0; MAX_FIELD];
            bytes[0] = byte;
            Encoded { bytes, size: 1 }
        };
        match self {
            Framing::Raw => Some((nothing, nothing)),
            Framing::Fixed { len: own } => (own == len).then_some((nothing, nothing)),
            Framing::LengthField { .. } => {
                (self.length_of_frame(parts) == Some(len)).then_some((nothing, nothing))
            }
            Framing::Lines { .. } => {
                let mut last = None;
                let has_end = parts.any(|part| {
                    last = part.last().copied().or(last);
                    part.contains(&b'\n')
                });
                (!has_end && last != Some(b'\r')).then_some((nothing, byte(b'\n')))
            }
            Framing::Delimited { delimiter, .. } => {
                let is_inside = parts.any(|part| part.contains(&delimiter));
                (!is_inside).then_some((nothing, byte(delimiter)))
            }
            Framing::Prefixed { format, .. } => format.encode(len).map(|p| (p, nothing)),
        }
    }

    /// The length that the length field of a frame describes; `None`: the frame has no complete and
    /// valid length field.
    fn length_of_frame<'p>(self, parts: impl Iterator<Item = &'p [u8]>) -> Option<usize> {
        let Framing::LengthField { format, offset, adjustment, .. } = self else {
            return None;
        };
        let mut field = [0; MAX_FIELD];
        let (mut skip, mut size) = (offset, 0);
        for part in parts {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            let taken = rest.len().min(MAX_FIELD - size);
            field[size..size + taken].copy_from_slice(&rest[..taken]);
            size += taken;
        }
        match format.decode(&field[..size]) {
            Decoded::Length(len, size) => {
                end_of_frame(offset, size, len, adjustment).ok().flatten()
            }
            Decoded::Incomplete | Decoded::Malformed(_) => None,
        }
    }

    /// Why [`mark`](Framing::mark) rejects a message of `len` bytes.
    #[cold]
    pub(crate) fn rejection<'p>(
        self,
        len: usize,
        mut parts: impl Iterator<Item = &'p [u8]>,
    ) -> String {
        if len == usize::MAX {
            return "the slices have more bytes than memory can have: send fewer at once"
                .to_owned();
        }
        match self {
            Framing::Lines { .. } if parts.any(|part| part.contains(&b'\n')) => {
                "the line contains LF, which ends a line: send each line by its own call".to_owned()
            }
            Framing::Lines { .. } => {
                "the line ends with CR, which the receiver removes with LF: send it without CR"
                    .to_owned()
            }
            Framing::Fixed { len: own } => format!(
                "the message has {}, and each message of the framing has {}",
                Bytes(len),
                Grouped(own)
            ),
            Framing::LengthField { offset, .. } => match self.length_of_frame(parts) {
                Some(described) => format!(
                    "the frame has {}, and its length field describes {}",
                    Bytes(len),
                    Grouped(described)
                ),
                None => format!(
                    "the frame of {} has no valid length field at offset {}",
                    Bytes(len),
                    Grouped(offset)
                ),
            },
            Framing::Delimited { delimiter, .. } => {
                format!("the message contains byte {delimiter}, the delimiter of the framing")
            }
            _ => format!(
                "the message has {len} bytes, which the length of the framing cannot represent"
            ),
        }
    }
}

/// Finds messages in a growing buffer. After a message was found, the search starts again at the
/// beginning of the buffer.
#[derive(Debug)]
pub(crate) enum Splitter {
    Line(LineSplitter),
    Delimited(DelimiterSplitter),
    Fixed { len: usize },
    Prefixed { format: LengthFormat, max: usize },
    LengthField { format: LengthFormat, offset: usize, adjustment: i32, max: usize },
}

impl Splitter {
    /// Continues a search: the first `searched` bytes do not contain the delimiter.
    pub(crate) fn skip(&mut self, searched: usize) {
        match self {
            Splitter::Line(line) => line.found.searched = searched,
            Splitter::Delimited(found) => found.searched = searched,
            Splitter::Fixed { .. } | Splitter::Prefixed { .. } | Splitter::LengthField { .. } => {}
        }
    }

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
            Splitter::Fixed { len } => frame(data, 0, Some(*len), *len),
            Splitter::Prefixed { format, max } => match format.decode(data) {
                Decoded::Incomplete => Split::Incomplete,
                Decoded::Malformed(why) => Split::Malformed(why),
                Decoded::Length(len, size) => {
                    let len = usize::try_from(len).ok().filter(|len| len <= max);
                    frame(data, size, len.and_then(|len| size.checked_add(len)), usize::MAX)
                }
            },
            Splitter::LengthField { format, offset, adjustment, max } => {
                let field = data.get(*offset..).unwrap_or_default();
                match format.decode(field) {
                    Decoded::Incomplete => Split::Incomplete,
                    Decoded::Malformed(why) => Split::Malformed(why),
                    Decoded::Length(len, size) => {
                        match end_of_frame(*offset, size, len, *adjustment) {
                            Ok(end) => frame(data, 0, end, *max),
                            Err(why) => Split::Malformed(why),
                        }
                    }
                }
            }
        }
    }
}

/// The length of a whole frame; `None`: it is beyond the address space.
fn end_of_frame(
    offset: usize,
    size: usize,
    len: u64,
    adjustment: i32,
) -> std::result::Result<Option<usize>, &'static str> {
    // No sum of numbers of 64 bits exceeds 128 bits.
    let body = i128::from(len) + i128::from(adjustment);
    if body < 0 {
        return Err("the length with its adjustment is below zero");
    }
    Ok(usize::try_from(offset as i128 + size as i128 + body).ok())
}

/// The message from `start` to `end`, of at most `max` bytes. `end` is `None` if it is beyond the
/// address space.
fn frame(data: &[u8], start: usize, end: Option<usize>, max: usize) -> Split {
    match end {
        Some(end) if end <= max && end <= data.len() => {
            Split::Message { range: start..end, len: end }
        }
        Some(end) if end <= max => Split::Incomplete,
        _ => Split::TooLong,
    }
}

/// The greatest number of bytes of a length field.
const MAX_FIELD: usize = 10;

/// A delimiter or length, as bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoded {
    bytes: [u8; MAX_FIELD],
    size: u8,
}

impl Encoded {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

/// The result of a search for the first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Split {
    /// The message is not complete.
    Incomplete,
    /// A message in `range`. With its length or delimiter it takes `len` bytes.
    Message {
        range: Range<usize>,
        len: usize,
    },
    TooLong,
    /// The length is not a number in its format, or below zero.
    Malformed(&'static str),
}

#[cfg(test)]
thread_local! {
    /// The number of bytes in which splitters of this thread have searched for a delimiter.
    pub(crate) static SEARCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
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

    /// Continues a search: the first `searched` bytes do not contain the delimiter.
    pub(crate) fn after(mut self, searched: usize) -> DelimiterSplitter {
        self.searched = searched;
        self
    }

    /// The message up to and including the first delimiter. At the end of the stream, the rest.
    pub(crate) fn split(&mut self, data: &[u8], ended: bool) -> Split {
        let within = &data[..data.len().min(self.max)];
        let from = self.searched.min(within.len());
        #[cfg(test)]
        SEARCHED.set(SEARCHED.get() + within.len() - from);
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

    /// Continues a search: the first `searched` bytes contain no LF.
    pub(crate) fn after(mut self, searched: usize) -> LineSplitter {
        self.found.searched = searched;
        self
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
    use crate::fuzzing::{model, split_pieces};
    use LengthFormat::*;

    const ALL: [LengthFormat; 11] =
        [U8, U16Be, U16Le, U24Be, U24Le, U32Be, U32Le, U64Be, U64Le, VarintMqtt, VarintProtobuf];

    /// V6: the error of a rejected message names what the framing does not permit.
    #[test]
    fn rejection_names_the_reason() {
        let field = Framing::LengthField { format: U8, offset: 1, adjustment: 0, max: 100 };
        for (framing, len, message, expected) in [
            (Framing::Lines { max: 9 }, 3, &b"a\nb"[..], "contains LF"),
            (Framing::Lines { max: 9 }, 2, b"a\r", "ends with CR"),
            (Framing::Lines { max: 9 }, usize::MAX, b"", "more bytes than memory"),
            (Framing::Delimited { delimiter: 7, max: 9 }, 1, b"\x07", "byte 7, the delimiter"),
            (
                Framing::Fixed { len: 4 },
                3,
                b"abc",
                "has 3 bytes, and each message of the framing has 4",
            ),
            (field, 4, b"x\x05ab", "has 4 bytes, and its length field describes 7"),
            (field, 1, b"x", "the frame of 1 byte has no valid length field at offset 1"),
            (
                Framing::Prefixed { format: U8, max: 100 },
                300,
                b"",
                "has 300 bytes, which the length",
            ),
        ] {
            let (start, end) = message.split_at(message.len() / 2);
            let text = framing.rejection(len, [start, end].into_iter());
            assert!(text.contains(expected), "{framing:?}: {text}");
        }
    }

    /// I1: a splitter that continues a search does not search the bytes that were searched before.
    #[test]
    fn skip_continues_behind_the_searched_bytes() {
        for framing in [Framing::Lines { max: 100 }, Framing::Delimited { delimiter: 10, max: 100 }]
        {
            let mut splitter = framing.splitter().unwrap();
            SEARCHED.set(0);
            splitter.skip(20);
            assert_eq!(splitter.split(&[1; 30], false), Split::Incomplete);
            assert_eq!(SEARCHED.get(), 10);
        }
    }

    /// V6: the error of a maximum that its length cannot represent.
    #[test]
    fn validate_names_the_greatest_maximum() {
        for (format, max, expected) in [
            (U8, 256, "at most 255, the longest message with a length of 1 byte, not 256"),
            (
                U16Be,
                65_536,
                "at most 65535, the longest message with a length of 2 bytes, not 65536",
            ),
        ] {
            let error = Framing::Prefixed { format, max }.validate("test").unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    /// I1: a part of a message is searched for the delimiter only if the framing has one.
    #[test]
    fn delimiter_is_that_of_the_framing() {
        for (framing, expected) in [
            (Framing::Lines { max: 9 }, Some(b'\n')),
            (Framing::Delimited { delimiter: 7, max: 9 }, Some(7)),
            (Framing::Fixed { len: 4 }, None),
            (Framing::Raw, None),
        ] {
            assert_eq!(framing.delimiter(), expected, "{framing:?}");
        }
    }

    /// V6: one, two, three, four and eight bytes in both byte orders, and both variable-length
    /// integers.
    #[test]
    fn length_encode_writes_each_format() {
        for (format, len, bytes) in [
            (U8, 5, &[5][..]),
            (U8, 255, &[255]),
            (U16Be, 258, &[1, 2]),
            (U16Le, 258, &[2, 1]),
            (U24Be, 0x01_0203, &[1, 2, 3]),
            (U24Le, 0x01_0203, &[3, 2, 1]),
            (U32Be, 0x0102_0304, &[1, 2, 3, 4]),
            (U32Le, 0x0102_0304, &[4, 3, 2, 1]),
            (U64Be, 0x0102_0304, &[0, 0, 0, 0, 1, 2, 3, 4]),
            (U64Le, 0x0102_0304, &[4, 3, 2, 1, 0, 0, 0, 0]),
            (VarintMqtt, 0, &[0]),
            (VarintMqtt, 127, &[127]),
            (VarintMqtt, 128, &[0x80, 1]),
            (VarintMqtt, 16_383, &[0xff, 0x7f]),
            (VarintMqtt, 16_384, &[0x80, 0x80, 1]),
            (VarintMqtt, 268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
            (VarintProtobuf, 300, &[0xac, 2]),
            (VarintProtobuf, 268_435_456, &[0x80, 0x80, 0x80, 0x80, 1]),
        ] {
            assert_eq!(format.encode(len).unwrap().as_slice(), bytes, "{format:?}");
            assert_eq!(format.decode(bytes), Decoded::Length(len as u64, bytes.len()));
        }
        for (format, most) in [
            (U8, 255),
            (U16Le, 65_535),
            (U24Be, 16_777_215),
            (U32Be, u32::MAX as usize),
            (VarintMqtt, 268_435_455),
        ] {
            assert_eq!(format.max_len(), most as u64, "{format:?}");
            assert!(format.encode(most).is_some(), "{format:?}");
            assert!(most.checked_add(1).is_none_or(|beyond| format.encode(beyond).is_none()));
        }
        for format in [U64Be, U64Le, VarintProtobuf] {
            assert_eq!(format.max_len(), u64::MAX);
            assert!(format.encode(usize::MAX).is_some(), "{format:?}");
        }
    }

    /// V6: a length is decoded as soon as it is complete, and a malformed one is rejected.
    #[test]
    fn length_decode_rejects_malformed_varints() {
        use Decoded::{Incomplete, Length};
        let is_malformed = |format: LengthFormat, bytes: &[u8]| {
            assert!(matches!(format.decode(bytes), Decoded::Malformed(_)), "{format:?} {bytes:?}");
        };
        for format in ALL {
            for len in [0usize, 1, 127, 128, 255] {
                let bytes = format.encode(len).unwrap();
                let bytes = bytes.as_slice();
                for there in 0..bytes.len() {
                    assert_eq!(format.decode(&bytes[..there]), Incomplete, "{format:?} {there}");
                }
                let whole = Length(len as u64, bytes.len());
                assert_eq!(format.decode(&[bytes, &[0xff; 9]].concat()), whole);
            }
        }
        // MQTT: at most four bytes, in the shortest form.
        is_malformed(VarintMqtt, &[0x80; 4]);
        is_malformed(VarintMqtt, &[0xff, 0xff, 0xff, 0x80, 1]);
        is_malformed(VarintMqtt, &[0x80, 0]);
        is_malformed(VarintMqtt, &[0x81, 0x80, 0]);
        assert_eq!(VarintMqtt.decode(&[0x80; 3]), Incomplete);
        // Protocol Buffers: at most ten bytes and 64 bits, also in a longer form.
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(VarintProtobuf.decode(&most), Length(u64::MAX, 10));
        assert_eq!(VarintProtobuf.decode(&[0x83, 0x80, 0x80, 0]), Length(3, 4));
        assert_eq!(VarintProtobuf.decode(&[0x80; 9]), Incomplete);
        is_malformed(VarintProtobuf, &[0x80; 10]);
        is_malformed(VarintProtobuf, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]);
        assert_eq!(U64Be.decode(&[0xff; 8]), Length(u64::MAX, 8));
    }

    fn first(framing: Framing, data: &[u8]) -> Split {
        framing.validate("test").unwrap();
        framing.splitter().unwrap().split(data, false)
    }

    /// V6: lengths up to 2^64 - 1, offsets and maxima up to the address space, and adjustments below
    /// zero do not overflow.
    #[test]
    fn framing_with_extreme_values_does_not_overflow() {
        const MAX: usize = usize::MAX;
        let all = [0xff; 16];
        for format in [U64Be, U64Le] {
            assert_eq!(first(Framing::Prefixed { format, max: MAX }, &all), Split::TooLong);
            for adjustment in [-8, -1, 0, 1, i32::MAX] {
                for (offset, max) in [(0, 8), (3, 11), (3, MAX - (1 << 31))] {
                    let framing = Framing::LengthField { format, offset, adjustment, max };
                    assert_eq!(first(framing, &all), Split::TooLong, "{framing:?}");
                }
            }
            let framing = Framing::LengthField { format, offset: 3, adjustment: 0, max: MAX };
            assert_eq!(first(framing, &all), Split::TooLong);
        }
        // An offset beyond the received bytes waits for them.
        for offset in [17, 1 << 20, MAX - 1] {
            let framing = Framing::LengthField { format: U8, offset, adjustment: 0, max: MAX };
            assert_eq!(first(framing, &all), Split::Incomplete, "{offset}");
        }
        let field =
            |adjustment, max| Framing::LengthField { format: U8, offset: 1, adjustment, max };
        assert!(matches!(first(field(-2, 100), &[9, 1]), Split::Malformed(_)));
        assert_eq!(first(field(-2, 100), &[9, 2, 7]), Split::Message { range: 0..2, len: 2 });
        assert_eq!(first(field(0, 7), &[9, 5]), Split::Incomplete);
        assert_eq!(first(field(0, 6), &[9, 5]), Split::TooLong);
        assert_eq!(first(field(i32::MAX, MAX), &[9, 5]), Split::Incomplete);
        assert_eq!(first(Framing::Fixed { len: MAX }, &all), Split::Incomplete);
        for (framing, fits) in [
            (Framing::Fixed { len: 0 }, false),
            (Framing::Fixed { len: MAX }, true),
            (Framing::Lines { max: 0 }, false),
            (Framing::Lines { max: MAX }, true),
            (Framing::Delimited { delimiter: 0, max: 0 }, false),
            (Framing::Delimited { delimiter: 0, max: MAX }, true),
            (Framing::Prefixed { format: U8, max: 0 }, false),
            (Framing::Prefixed { format: U8, max: 255 }, true),
            (Framing::Prefixed { format: U8, max: 256 }, false),
            (Framing::Prefixed { format: VarintMqtt, max: 1 << 28 }, false),
            (Framing::Prefixed { format: VarintProtobuf, max: MAX }, true),
            (field(-2, 100), true),
            (field(-3, 100), false),
            (field(i32::MIN, 100), false),
            (field(0, 0), false),
            (field(0, 1), false),
            (field(0, 2), true),
            (Framing::LengthField { format: U64Be, offset: 3, adjustment: 0, max: 10 }, false),
            (Framing::LengthField { format: U64Be, offset: 3, adjustment: 0, max: 11 }, true),
            (Framing::LengthField { format: U8, offset: MAX, adjustment: 0, max: MAX }, false),
            (Framing::LengthField { format: U8, offset: MAX - 1, adjustment: 0, max: MAX }, true),
        ] {
            match framing.validate("test") {
                Ok(()) => assert!(fits, "{framing:?}"),
                Err(err) => {
                    assert!(!fits, "{framing:?}: {err}");
                    assert_eq!(err.kind(), ErrorKind::InvalidArgument);
                }
            }
        }
    }

    /// V6: a sent message is received unchanged in every framing. `max` bytes are accepted, one
    /// more is not.
    #[test]
    fn framing_splits_what_it_delimits() {
        let mut all = vec![Framing::Lines { max: 8 }, Framing::Delimited { delimiter: 0, max: 8 }];
        all.extend(ALL.map(|format| Framing::Prefixed { format, max: 8 }));
        for framing in all {
            for (len, fits) in [(0, true), (1, true), (8, true), (9, false), (200, false)] {
                let message = vec![b'm'; len];
                let (before, after) = framing.mark(&message).unwrap();
                let stream = [before.as_slice(), &message, after.as_slice(), b"next"].concat();
                match first(framing, &stream) {
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
        assert!(Framing::Prefixed { format: U8, max: 100 }.mark(&[0; 256]).is_none());
        assert!(Framing::Delimited { delimiter: 7, max: 100 }.mark(&[7]).is_none());
        for unchanged in [
            Framing::Raw,
            Framing::Fixed { len: 5 },
            Framing::LengthField { format: U8, offset: 1, adjustment: 0, max: 100 },
        ] {
            let (before, after) = unchanged.mark(b"a\x03msg").unwrap();
            assert!(before.as_slice().is_empty() && after.as_slice().is_empty());
        }
        // The field of a frame in several parts.
        let frame = Framing::LengthField { format: U16Be, offset: 1, adjustment: -3, max: 100 };
        let parts: [&[u8]; 4] = [b"", b"a\x00", b"\x05m", b"s"];
        assert!(frame.mark_parts(5, parts.into_iter()).is_some());
        assert!(frame.mark_parts(6, parts.into_iter()).is_none());
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

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % n
        }

        fn framing(&mut self) -> Framing {
            let max = [1, 2, 3, 7, 40, 200][self.below(6)];
            let format = ALL[self.below(ALL.len())];
            let offset = self.below(4);
            match self.below(6) {
                0 => Framing::Fixed { len: max },
                1 => Framing::Lines { max },
                2 => Framing::Delimited { delimiter: self.below(3) as u8, max },
                3 => Framing::Prefixed { format, max },
                _ => {
                    let least = -((offset + format.max_size()) as i32);
                    let adjustment = (self.below(13) as i32 - 6).max(least);
                    let max = max + offset + format.min_size() - 1;
                    Framing::LengthField { format, offset, adjustment, max }
                }
            }
        }

        /// A stream of which most messages are valid in the framing.
        fn stream(&mut self, framing: Framing) -> Vec<u8> {
            let mut stream = Vec::new();
            for _ in 0..self.below(6) {
                let max = match framing {
                    Framing::Fixed { len } => len,
                    Framing::Lines { max }
                    | Framing::Delimited { max, .. }
                    | Framing::Prefixed { max, .. }
                    | Framing::LengthField { max, .. } => max,
                    Framing::Raw => unreachable!(),
                };
                let len = if self.below(8) == 0 { max + 1 } else { self.below(max + 1) };
                let message: Vec<u8> = (0..len).map(|_| 4 + self.below(4) as u8).collect();
                match framing {
                    _ if self.below(12) == 0 => {
                        stream.extend((0..self.below(12)).map(|_| [0x80, 0xff, 0, 1][len % 4]));
                    }
                    Framing::LengthField { format, offset, adjustment, .. } => {
                        let size = format.encode(0).unwrap().as_slice().len();
                        let body = len.saturating_sub(offset + size) as i32;
                        let length = usize::try_from(body - adjustment).unwrap_or(0);
                        stream.extend(vec![b'h'; offset]);
                        stream.extend(format.encode(length).unwrap().as_slice());
                        stream.extend(vec![b'b'; body as usize]);
                    }
                    // Also messages of another length.
                    Framing::Fixed { .. } => stream.extend(&message),
                    _ => {
                        let (before, after) = framing.mark(&message).unwrap();
                        stream.extend(before.as_slice());
                        stream.extend(&message);
                        if matches!(framing, Framing::Lines { .. }) && self.below(2) == 0 {
                            stream.push(b'\r');
                        }
                        stream.extend(after.as_slice());
                    }
                }
            }
            if self.below(4) == 0 {
                stream.truncate(self.below(stream.len() + 1));
            }
            stream
        }
    }

    /// V6: every framing finds the same messages as a model that reads the whole stream, however the
    /// stream is split: at each position, in single bytes, and in random pieces.
    #[test]
    fn framing_of_random_streams_agrees_with_the_model() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut ends = [0; 4];
        let rounds = if cfg!(miri) { 60 } else { 6000 };
        for round in 0..rounds {
            let framing = random.framing();
            framing.validate("test").unwrap();
            let stream = random.stream(framing);
            let expected = model(framing, &stream);
            ends[expected.1 as usize] += 1;
            let check = |pieces: &[&[u8]]| {
                let found = split_pieces(framing, pieces);
                assert_eq!(found, expected, "round {round}: {framing:?} {pieces:?}");
            };
            check(&stream.chunks(1).collect::<Vec<_>>());
            let (mut pieces, mut rest) = (Vec::new(), &stream[..]);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random.below(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            check(&pieces);
            if stream.len() <= 32 {
                for at in 0..=stream.len() {
                    check(&[&stream[..at], &stream[at..]]);
                }
            }
        }
        // The generator reaches each result often.
        assert!(ends.iter().all(|count| *count >= rounds / 300), "{ends:?}");
    }
}
