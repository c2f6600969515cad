//! `keepsock_framing`: how a stream is split into messages.

use crate::Framing;
use crate::ffi::{Result, SizedIn, invalid, versioned};
use crate::internal::length_format_from_number;

/// How a stream is split into messages. The kinds with a length field differ in their messages:
/// KEEPSOCK_FRAMING_PREFIXED removes and adds the length. KEEPSOCK_FRAMING_LENGTH_FIELD delivers and
/// sends whole frames.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum keepsock_framing_kind {
    /// No framing: a message is the bytes that have arrived.
    Raw = 0,
    /// Lines. A received line ends with LF or CRLF, which the library removes. It adds LF to a sent
    /// line. The last line of a stream may lack LF. Uses `max`.
    Lines = 1,
    /// Messages that end with a byte, which the library removes from received messages and adds to
    /// sent messages. The last message of a stream may lack it. Uses `delimiter` and `max`.
    Delimited = 2,
    /// Messages that follow their length, which the library removes from received messages and adds
    /// to sent messages. The length does not count its own bytes. Uses `length_format` and `max`.
    Prefixed = 3,
    /// Frames that contain their length. A received message is the whole frame, with the bytes
    /// before the length field and the field itself. The program sends whole frames. Uses
    /// `length_format`, `length_offset`, `length_adjustment` and `max`.
    LengthField = 4,
    /// Messages of one length, which are sent unchanged. Uses `len`.
    Fixed = 5,
}

/// How a stream is split into messages: by keepsock_client_read_message(),
/// keepsock_client_write_message() and keepsock_server_serve_events()
/// (keepsock_serve_options_set_framing()).
///
/// Set `size` and `kind`, and the members that the kind uses. The others must be 0, as they are
/// with designated initializers:
///
/// @code
/// // Text protocols: lines of at most 1,024 bytes.
/// const keepsock_framing lines = {
///     .size = sizeof lines, .kind = KEEPSOCK_FRAMING_LINES, .max = 1024
/// };
/// // DNS over TCP: a length of two bytes, then the message.
/// const keepsock_framing dns = {
///     .size = sizeof dns, .kind = KEEPSOCK_FRAMING_PREFIXED,
///     .length_format = KEEPSOCK_LENGTH_FORMAT_U16_BE, .max = 65535
/// };
/// // Protocol Buffers, as writeDelimitedTo() writes them: a varint, then the message.
/// const keepsock_framing protobuf = {
///     .size = sizeof protobuf, .kind = KEEPSOCK_FRAMING_PREFIXED,
///     .length_format = KEEPSOCK_LENGTH_FORMAT_VARINT_PROTOBUF, .max = 1048576
/// };
/// // MQTT: the packet type, then the remaining length. A message is a whole packet.
/// const keepsock_framing mqtt = {
///     .size = sizeof mqtt, .kind = KEEPSOCK_FRAMING_LENGTH_FIELD,
///     .length_format = KEEPSOCK_LENGTH_FORMAT_VARINT_MQTT, .length_offset = 1, .max = 65536
/// };
/// // PostgreSQL: the message type, then a length of four bytes that includes itself.
/// const keepsock_framing postgres = {
///     .size = sizeof postgres, .kind = KEEPSOCK_FRAMING_LENGTH_FIELD,
///     .length_format = KEEPSOCK_LENGTH_FORMAT_U32_BE, .length_offset = 1,
///     .length_adjustment = -4, .max = 1048576
/// };
/// @endcode
///
/// A received message is too long if it has more than `max` bytes. It is malformed if its length is
/// not a number in its format, or is below zero with `length_adjustment`. A message that is
/// incomplete at the end of the stream is not delivered. `max` does not limit sent messages.
///
/// Functions that send reject a message that the peer would not receive unchanged: a message that
/// contains its delimiter (LF with lines), a line that ends with CR, and a message whose length is
/// not `len` or not the one that its length field describes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_framing {
    /// sizeof(keepsock_framing).
    pub size: usize,
    /// A keepsock_framing_kind.
    pub kind: i32,
    /// A keepsock_length_format.
    pub length_format: i32,
    /// The maximum length of a received message in bytes, above 0. With KEEPSOCK_FRAMING_RAW and
    /// KEEPSOCK_FRAMING_FIXED, which have no maximum, it must be 0.
    ///
    /// With KEEPSOCK_FRAMING_LENGTH_FIELD it counts the whole frame, and must have room for the
    /// bytes before the length field and the field. With KEEPSOCK_FRAMING_LINES and
    /// KEEPSOCK_FRAMING_DELIMITED it does not count the delimiter. With
    /// KEEPSOCK_FRAMING_PREFIXED it does not count the length, which must be able to represent it.
    pub max: usize,
    /// With KEEPSOCK_FRAMING_FIXED the length of each message in bytes, above 0.
    pub len: usize,
    /// The number of bytes before the length field.
    pub length_offset: usize,
    /// A number that is added to the length. The sum is the number of bytes after the length field.
    /// It is 0 if the length counts those bytes only. If the length also counts bytes before them,
    /// it is minus the number of the latter, at least `-(length_offset + size of the field)`.
    pub length_adjustment: i32,
    /// The byte that ends a message.
    pub delimiter: u8,
    /// Must be 0.
    pub reserved: [u8; 3],
}

versioned!(keepsock_framing: 48);

/// The framing of the program.
pub(crate) fn framing_from_c(framing: SizedIn<'_, keepsock_framing>) -> Result<Framing> {
    use keepsock_framing_kind::{Delimited, Fixed, LengthField, Lines, Prefixed, Raw};
    let given = framing.get()?;
    let all = [Raw, Lines, Delimited, Prefixed, LengthField, Fixed];
    let Some(kind) = all.into_iter().find(|kind| *kind as i32 == given.kind) else {
        return Err(invalid(format!(
            "framing.kind is {}, which is not a keepsock_framing_kind",
            given.kind
        )));
    };
    let has_length = matches!(kind, Prefixed | LengthField);
    // Each member, whether it is set, and whether the kind uses it.
    let members = [
        ("length_format", given.length_format != 0, has_length),
        ("max", given.max != 0, !matches!(kind, Raw | Fixed)),
        ("len", given.len != 0, kind == Fixed),
        ("length_offset", given.length_offset != 0, kind == LengthField),
        ("length_adjustment", given.length_adjustment != 0, kind == LengthField),
        ("delimiter", given.delimiter != 0, kind == Delimited),
        ("reserved", given.reserved != [0; 3], false),
    ];
    if let Some((name, ..)) = members.iter().find(|(_, is_set, is_used)| *is_set && !*is_used) {
        return Err(invalid(format!("framing.{name} must be 0 with this framing.kind")));
    }
    let keepsock_framing { max, len, length_offset: offset, .. } = given;
    let (delimiter, adjustment) = (given.delimiter, given.length_adjustment);
    let format = || {
        length_format_from_number(given.length_format).ok_or_else(|| {
            let number = given.length_format;
            invalid(format!(
                "framing.length_format is {number}, which is not a keepsock_length_format"
            ))
        })
    };
    Ok(match kind {
        Raw => Framing::Raw,
        Fixed => Framing::Fixed { len },
        Lines => Framing::Lines { max },
        Delimited => Framing::Delimited { delimiter, max },
        Prefixed => Framing::Prefixed { format: format()?, max },
        LengthField => Framing::LengthField { format: format()?, offset, adjustment, max },
    })
}
