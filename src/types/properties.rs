//! Properties of framing.

use proptest::prelude::*;
use proptest::sample::Index;

use super::framing::{Framing, LengthFormat, SEARCHED, Split};
use crate::fuzzing::{End, model, split_pieces};
use crate::properties::check;

use LengthFormat::*;

fn format() -> impl Strategy<Value = LengthFormat> {
    prop::sample::select(vec![
        U8,
        U16Be,
        U16Le,
        U24Be,
        U24Le,
        U32Be,
        U32Le,
        U64Be,
        U64Le,
        VarintMqtt,
        VarintProtobuf,
    ])
}

/// Any framing that splits a stream, most with small limits. Half of the length fields are those of a
/// valid framing.
fn framing() -> impl Strategy<Value = Framing> {
    let limit = || prop_oneof![8 => 1..60usize, 1 => 120..400usize, 1 => any::<usize>()];
    let field =
        (format(), 0..6usize, -16..16i32, limit()).prop_map(|(format, offset, adjustment, max)| {
            Framing::LengthField { format, offset, adjustment, max }
        });
    prop_oneof![
        1 => limit().prop_map(|len| Framing::Fixed { len }),
        1 => limit().prop_map(|max| Framing::Lines { max }),
        1 => (0..4u8, limit()).prop_map(|(delimiter, max)| Framing::Delimited { delimiter, max }),
        1 => (format(), limit()).prop_map(|(format, max)| Framing::Prefixed { format, max }),
        2 => field,
    ]
    .prop_filter("valid", |framing| framing.validate("test").is_ok())
}

/// Bytes that are often delimiters, short lengths, or parts of variable-length integers.
fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => 0..12u8,
        2 => Just(b'\n'),
        1 => Just(b'\r'),
        1 => prop::sample::select(vec![0x7f, 0x80, 0x81, 0xff]),
        2 => any::<u8>(),
    ];
    prop::collection::vec(byte, len)
}

/// Splits bytes at these places.
fn split<'a>(bytes: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    places.push(bytes.len());
    let mut from = 0;
    let part = |to| {
        let part = &bytes[from..to];
        from = to;
        part
    };
    places.into_iter().map(part).collect()
}

fn places() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..8)
}

/// V6: any bytes, however they are split, have the messages and the end that a model finds in the whole
/// stream. A stream that arrives byte by byte is searched once.
#[test]
fn split_of_any_bytes_agrees_with_the_model() {
    check(4000, (framing(), bytes(0..120), places()), |(framing, stream, places)| {
        let expected = model(framing, &stream);
        prop_assert_eq!(&split_pieces(framing, &split(&stream, &places)), &expected);
        SEARCHED.set(0);
        prop_assert_eq!(split_pieces(framing, &stream.chunks(1).collect::<Vec<_>>()), expected);
        prop_assert!(SEARCHED.get() <= stream.len(), "searched {} bytes", SEARCHED.get());
        Ok(())
    });
}

/// The message as a sender of the framing composes it. `None`: the framing rejects it.
fn frame(framing: Framing, message: &[u8]) -> Option<Vec<u8>> {
    let (before, after) = framing.mark(message)?;
    Some([before.as_slice(), message, after.as_slice()].concat())
}

/// V6: the receiver gets each message that the sender's framing accepts, unchanged and alone, up to the
/// first one that is longer than the receiver's maximum. Messages in parts are marked as whole ones.
#[test]
fn split_returns_each_message_that_mark_accepts() {
    let messages = prop::collection::vec((bytes(0..50), places()), 0..6);
    let inputs = (framing(), 1..60usize, messages, places());
    check(1500, inputs, |(framing, cap, messages, places)| {
        let receiver = framing.limited(cap);
        let longest = match receiver {
            Framing::Raw | Framing::Fixed { .. } => usize::MAX,
            Framing::Lines { max }
            | Framing::Delimited { max, .. }
            | Framing::Prefixed { max, .. }
            | Framing::LengthField { max, .. } => {
                prop_assert!(max <= cap);
                max
            }
        };
        let (mut stream, mut sent) = (Vec::new(), Vec::new());
        for (message, places) in &messages {
            let framed = frame(framing, message);
            let parts = split(message, places);
            let marked = framing.mark_parts(message.len(), parts.into_iter());
            let in_parts = marked.map(|(before, after)| {
                [before.as_slice(), message.as_slice(), after.as_slice()].concat()
            });
            prop_assert_eq!(&framed, &in_parts);
            stream.extend(framed.iter().flatten());
            sent.extend(framed.is_some().then(|| message.clone()));
        }
        let fit = sent.iter().take_while(|message| message.len() <= longest).count();
        let end = if fit < sent.len() { End::TooLong } else { End::Whole };
        let received = split_pieces(receiver, &split(&stream, &places));
        prop_assert_eq!(received, (sent[..fit].to_vec(), end));
        Ok(())
    });
}

/// V6: a length of any size is written in the fewest bytes of its format and read as the same length.
/// It is incomplete without its last byte. A length that a format cannot represent is rejected.
#[test]
fn length_of_any_size_is_read_as_it_was_written() {
    let length = (any::<u64>(), 0..64u32).prop_map(|(bits, shift)| (bits >> shift) as usize);
    let near = (0..64u32, -2..3i64)
        .prop_map(|(power, offset)| (1u64 << power).wrapping_add_signed(offset) as usize);
    check(4000, (format(), prop_oneof![length, near]), |(format, len)| {
        let (most, size) = match format {
            U8 => (0xff, 1),
            U16Be | U16Le => (0xffff, 2),
            U24Be | U24Le => (0xff_ffff, 3),
            U32Be | U32Le => (0xffff_ffff, 4),
            U64Be | U64Le => (u64::MAX, 8),
            VarintMqtt | VarintProtobuf => {
                let most = if format == VarintMqtt { (1 << 28) - 1 } else { u64::MAX };
                (most, (1..10).find(|n| (len as u64) < 1 << (7 * n)).unwrap_or(10))
            }
        };
        let marked = Framing::Prefixed { format, max: 1 }.mark_parts(len, std::iter::empty());
        prop_assert_eq!(marked.is_some(), len as u64 <= most);
        let Some((field, _)) = marked else {
            return Ok(());
        };
        let field = field.as_slice();
        prop_assert_eq!(field.len(), size);
        // A receiver of messages of at most this length waits for the message, one of shorter messages
        // does not.
        let receive = |bytes: &[u8], max| {
            Framing::Prefixed { format, max }
                .splitter()
                .map(|mut splitter| splitter.split(bytes, false))
        };
        let expected = match len {
            0 => Split::Message { range: size..size, len: size },
            // The message would end beyond the address space.
            _ if len > usize::MAX - size => Split::TooLong,
            _ => Split::Incomplete,
        };
        prop_assert_eq!(receive(field, len), Some(expected));
        prop_assert_eq!(receive(&field[..size - 1], 0), Some(Split::Incomplete));
        if len > 0 {
            prop_assert_eq!(receive(field, len - 1), Some(Split::TooLong));
        }
        Ok(())
    });
}

/// V6: any framing and any bytes are either rejected or split without an overflow.
#[test]
fn split_with_extreme_values_does_not_overflow() {
    let extreme =
        || prop_oneof![0..20usize, (0..20usize).prop_map(|n| usize::MAX - n), any::<usize>()];
    let adjustment = prop_oneof![-20..20i32, any::<i32>()];
    let field = (format(), extreme(), adjustment, extreme()).prop_map(
        |(format, offset, adjustment, max)| Framing::LengthField {
            format,
            offset,
            adjustment,
            max,
        },
    );
    let framing = prop_oneof![
        1 => extreme().prop_map(|len| Framing::Fixed { len }),
        1 => extreme().prop_map(|max| Framing::Lines { max }),
        1 => extreme().prop_map(|max| Framing::Delimited { delimiter: 0, max }),
        1 => (format(), extreme()).prop_map(|(format, max)| Framing::Prefixed { format, max }),
        3 => field,
    ];
    let longest = (0..24usize).prop_map(|n| vec![0xff; n]);
    let data = prop_oneof![bytes(0..40), longest];
    check(2000, (framing, data, any::<bool>()), |(framing, data, ended)| {
        if framing.validate("test").is_err() {
            return Ok(());
        }
        prop_assert!(
            framing.mark(&data).is_some() || !framing.rejection(0, [&*data].into_iter()).is_empty()
        );
        match framing.splitter().map(|mut splitter| splitter.split(&data, ended)) {
            Some(Split::Message { range, len }) => {
                prop_assert!(range.start <= range.end && range.end <= len && len <= data.len());
            }
            Some(Split::Incomplete | Split::TooLong | Split::Malformed(_)) => {}
            None => prop_assert!(false, "no splitter"),
        }
        Ok(())
    });
}
