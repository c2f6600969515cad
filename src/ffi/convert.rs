//! Conversions between arguments of C functions and Rust values.

use std::ffi::{CString, c_char};
use std::time::Duration;

use crate::Sockopt;
use crate::ffi::Result;

/// Milliseconds for C, rounded up so that a caller that waits for them does not return too early.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// Text for C. A NUL, which an abstract Unix name may contain, becomes `@`.
pub(crate) fn c_string(text: impl std::fmt::Display) -> CString {
    CString::new(text.to_string().replace('\0', "@")).unwrap_or_default()
}

/// Copies text and a final NUL into a fixed field. Longer text is truncated after a whole character,
/// and not inside an escape of a Unix name (`\xNN`, `\\`).
pub(crate) fn fill_text<const N: usize>(field: &mut [c_char; N], text: &str) {
    let text = &text[..fitting(text, N - 1)];
    let bytes = text.bytes().map(|b| if b == 0 { b'@' } else { b });
    for (slot, byte) in field[..N - 1].iter_mut().zip(bytes) {
        *slot = byte as c_char;
    }
}

/// The length of the longest beginning of the text that has at most `max` bytes and consists of whole
/// characters and whole escapes.
fn fitting(text: &str, max: usize) -> usize {
    if text.len() <= max {
        return text.len();
    }
    let mut end = 0;
    while let Some(c) = text[end..].chars().next() {
        let len = match (c, text.as_bytes().get(end + 1)) {
            ('\\', Some(b'x')) => 4,
            ('\\', _) => 2,
            _ => c.len_utf8(),
        };
        if end + len > max || !text.is_char_boundary(end + len) {
            break;
        }
        end += len;
    }
    end
}

/// The value that was found for a number, or the error for a number without a value. `kind` is the C
/// type.
pub(crate) fn known<T>(found: Option<T>, number: i32, kind: &str) -> Result<T> {
    found.ok_or_else(|| crate::ffi::invalid(format!("{number} is not a {kind}")))
}

const SOCKOPTS: [Sockopt; 16] = [
    Sockopt::SendBuffer,
    Sockopt::RecvBuffer,
    Sockopt::Tos,
    Sockopt::ReusePort,
    Sockopt::NotsentLowat,
    Sockopt::DeferAccept,
    Sockopt::Mark,
    Sockopt::Priority,
    Sockopt::Transparent,
    Sockopt::Freebind,
    Sockopt::OobInline,
    Sockopt::MaxSegment,
    Sockopt::FlowLabel,
    Sockopt::Nodelay,
    Sockopt::Cork,
    Sockopt::ReuseAddress,
];

/// An option of the operating system by its number in keepsock_sockopt.
pub(crate) fn sockopt(number: i32) -> Result<Sockopt> {
    let found = SOCKOPTS.into_iter().find(|option| *option as i32 == number);
    known(found, number, "keepsock_sockopt")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N4: truncated text in a fixed field is valid UTF-8.
    #[test]
    fn fill_text_truncates_after_a_whole_character() {
        for (text, truncated) in [
            ("abcd", "abcd"),
            ("abcde", "abcd"),
            ("abc\u{e4}", "abc"),
            ("", ""),
            ("\\x0a", "\\x0a"),
            ("a\\x0a", "a"),
            ("abc\\\\", "abc"),
            ("ab\\\\x", "ab\\\\"),
            ("a\\", "a\\"),
        ] {
            let mut field = [0; 5];
            fill_text(&mut field, text);
            let bytes: Vec<_> = field.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
            assert_eq!(bytes, truncated.as_bytes());
        }
    }
}
