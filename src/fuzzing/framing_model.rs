//! A model of streams that are split into messages: it reads the whole stream.

use crate::types::framing::{Framing, LengthFormat, Split};
use LengthFormat::*;

/// How a stream ends in a framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    Partial,
    TooLong,
    Malformed,
}

pub(crate) type Messages = (Vec<Vec<u8>>, End);

/// The length at the start of `data`, by its definition. `Err(None)`: it is incomplete.
fn model_length(
    format: LengthFormat,
    data: &[u8],
) -> std::result::Result<(u128, usize), Option<End>> {
    let size = match format {
        U8 => 1,
        U16Be | U16Le => 2,
        U24Be | U24Le => 3,
        U32Be | U32Le => 4,
        U64Be | U64Le => 8,
        VarintMqtt | VarintProtobuf => {
            let most = if format == VarintMqtt { 4 } else { 10 };
            let size = data.iter().take_while(|byte| **byte >= 0x80).count() + 1;
            if size > most {
                return Err(Some(End::Malformed));
            }
            if size > data.len() {
                return Err(None);
            }
            let bits = |n: u128, byte: &u8| n * 128 + u128::from(*byte % 128);
            let len = data[..size].iter().rev().fold(0, bits);
            let shortest = (1..=10).find(|n| len < 1 << (7 * n)).unwrap();
            let is_long = format == VarintMqtt && size > shortest;
            if is_long || len > u128::from(u64::MAX) {
                return Err(Some(End::Malformed));
            }
            return Ok((len, size));
        }
    };
    let mut bytes = data.get(..size).ok_or(None)?.to_vec();
    if matches!(format, U16Le | U24Le | U32Le | U64Le) {
        bytes.reverse();
    }
    Ok((bytes.iter().fold(0, |n, byte| n * 256 + u128::from(*byte)), size))
}

/// The messages of a whole stream, by the definition of the framing.
pub(crate) fn model(framing: Framing, mut rest: &[u8]) -> Messages {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let next = match framing {
            Framing::Raw => unreachable!(),
            Framing::Fixed { len } => {
                if len <= rest.len() {
                    Ok((&rest[..len], len))
                } else {
                    Err(End::Partial)
                }
            }
            Framing::Lines { max } | Framing::Delimited { max, .. } => {
                let delimiter = match framing {
                    Framing::Delimited { delimiter, .. } => delimiter,
                    _ => b'\n',
                };
                let at = rest.iter().position(|byte| *byte == delimiter);
                let mut message = &rest[..at.unwrap_or(rest.len())];
                if at.is_some() && matches!(framing, Framing::Lines { .. }) {
                    message = message.strip_suffix(b"\r").unwrap_or(message);
                }
                let len = at.map_or(rest.len(), |at| at + 1);
                if message.len() > max { Err(End::TooLong) } else { Ok((message, len)) }
            }
            Framing::Prefixed { format, max } => match model_length(format, rest) {
                Err(end) => Err(end.unwrap_or(End::Partial)),
                Ok((len, _)) if len > max as u128 => Err(End::TooLong),
                Ok((len, size)) => {
                    // A message may be longer than the address space.
                    let end = size.saturating_add(len as usize);
                    rest.get(size..end).map(|message| (message, end)).ok_or(End::Partial)
                }
            },
            Framing::LengthField { format, offset, adjustment, max } => {
                match model_length(format, rest.get(offset..).unwrap_or_default()) {
                    Err(end) => Err(end.unwrap_or(End::Partial)),
                    Ok((len, size)) => {
                        let body = len as i128 + i128::from(adjustment);
                        let end = (offset + size) as i128 + body;
                        match () {
                            () if body < 0 => Err(End::Malformed),
                            () if end > max as i128 => Err(End::TooLong),
                            () => {
                                let end = end as usize;
                                rest.get(..end).map(|all| (all, end)).ok_or(End::Partial)
                            }
                        }
                    }
                }
            }
        };
        match next {
            Err(end) => return (messages, end),
            Ok((message, len)) => {
                messages.push(message.to_vec());
                rest = &rest[len..];
            }
        }
    }
    (messages, End::Whole)
}

/// The messages of a stream that arrives in pieces.
pub(crate) fn split_pieces(framing: Framing, pieces: &[&[u8]]) -> Messages {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    let mut splitter = framing.splitter().unwrap();
    for number in 0..=pieces.len() {
        let ended = number == pieces.len();
        buffer.extend_from_slice(pieces.get(number).copied().unwrap_or_default());
        loop {
            match splitter.split(&buffer, ended) {
                Split::Message { range, len } => {
                    messages.push(buffer[range].to_vec());
                    buffer.drain(..len);
                    splitter = framing.splitter().unwrap();
                }
                Split::Incomplete => break,
                Split::TooLong => return (messages, End::TooLong),
                Split::Malformed(_) => return (messages, End::Malformed),
            }
        }
    }
    (messages, if buffer.is_empty() { End::Whole } else { End::Partial })
}
