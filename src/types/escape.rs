//! The names of Unix sockets as text.

use std::fmt::{self, Write};
use std::path::Path;

/// The name of a Unix socket, displayed as one printable line. A peer chooses its own name, so the
/// text must not contain line breaks or control a terminal.
///
/// Control characters, invisible characters, characters that change the direction of text, and
/// bytes that are not UTF-8 print as `\xNN` for each byte. A backslash prints as `\\`. The `>` of `
/// ->` is escaped as well, because ` -> ` separates the addresses of a
/// [`FiveTuple`](crate::FiveTuple).
pub(crate) struct Escaped<'a>(pub &'a [u8]);

/// The text of the address of a socket without a name.
pub(crate) const UNNAMED: &str = "(unnamed)";

/// A path, displayed as [`Escaped`] does. A leading "@" is escaped, because it would mean the
/// abstract namespace. The path that is the text of a socket without a name is also escaped.
pub(crate) struct EscapedPath<'a>(&'a [u8]);

pub(crate) fn escaped(path: &Path) -> EscapedPath<'_> {
    EscapedPath(path.as_os_str().as_encoded_bytes())
}

impl fmt::Display for EscapedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.strip_prefix(b"@"), self.0.strip_prefix(b"(")) {
            (Some(rest), _) => write!(f, "\\x40{}", Escaped(rest)),
            (None, Some(rest)) if self.0 == UNNAMED.as_bytes() => {
                write!(f, "\\x28{}", Escaped(rest))
            }
            _ => Escaped(self.0).fmt(f),
        }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        };
        for chunk in self.0.utf8_chunks() {
            let mut before = ['\0'; 2];
            for c in chunk.valid().chars() {
                let arrow = c == '>' && before[1] == '-' && before[0].is_whitespace();
                before = [before[1], c];
                match c {
                    _ if arrow => hex(f, b">")?,
                    '\\' => f.write_str("\\\\")?,
                    _ if is_deceptive(c) => hex(f, c.encode_utf8(&mut [0; 4]).as_bytes())?,
                    _ => f.write_char(c)?,
                }
            }
            hex(f, chunk.invalid())?;
        }
        Ok(())
    }
}

/// Whether the character is a control character, a line or paragraph separator, a character that
/// sets the direction of text, or invisible (Unicode general category Cf).
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Converts escaped text to bytes.
///
/// # Errors
/// The first part that is not a valid escape sequence.
pub(crate) fn unescaped(text: &str) -> std::result::Result<Vec<u8>, &str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at..];
        let digit = |at| char::from(*escape.as_bytes().get(at)?).to_digit(16);
        let hex = || u8::try_from(digit(2)? * 16 + digit(3)?).ok();
        let (byte, len) = match escape.as_bytes().get(1) {
            Some(b'\\') => (Some(b'\\'), 2),
            Some(b'x') => (hex(), 4),
            _ => (None, 0),
        };
        let Some(byte) = byte else {
            return Err(escape.char_indices().nth(4).map_or(escape, |(end, _)| &escape[..end]));
        };
        bytes.push(byte);
        rest = &escape[len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N4: a name cannot add a line or control a terminal. S4: the text is unambiguous.
    #[test]
    fn escaped_names_are_one_printable_line() {
        for (name, text) in [
            (&b"/run/app.sock"[..], "/run/app.sock"),
            ("gr\u{fc}n \u{4e2d}".as_bytes(), "gr\u{fc}n \u{4e2d}"),
            (b"a\nb\x1b[31m\x7f\0", "a\\x0ab\\x1b[31m\\x7f\\x00"),
            (b"back\\slash\\x0a", "back\\\\slash\\\\x0a"),
            (b"\xff\xc3\xa4\xc3", "\\xff\u{e4}\\xc3"),
            ("\u{85}\u{202e}\u{2028}".as_bytes(), "\\xc2\\x85\\xe2\\x80\\xae\\xe2\\x80\\xa8"),
            ("\u{ad}\u{180e}".as_bytes(), "\\xc2\\xad\\xe1\\xa0\\x8e"),
            ("\u{200b}\u{2060}".as_bytes(), "\\xe2\\x80\\x8b\\xe2\\x81\\xa0"),
            ("\u{feff}\u{fffb}".as_bytes(), "\\xef\\xbb\\xbf\\xef\\xbf\\xbb"),
            (b"p -> unix:@z->\xff>", "p -\\x3e unix:@z->\\xff>"),
            ("p\u{a0}->".as_bytes(), "p\u{a0}-\\x3e"),
        ] {
            assert_eq!(Escaped(name).to_string(), text);
            assert_eq!(unescaped(text).unwrap(), name);
        }
        for (text, part) in [
            ("a\\", "\\"),
            ("\\n", "\\n"),
            ("\\x+1", "\\x+1"),
            ("\\x4", "\\x4"),
            ("\\x\u{e4}b", "\\x\u{e4}b"),
        ] {
            assert_eq!(unescaped(text), Err(part));
        }
    }
}
