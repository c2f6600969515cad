//! The variables of socket activation.

use std::ffi::OsStr;

use super::{Input, check_printable};
use crate::activation::note;
use crate::sys::FIRST_INHERITED;

/// The number of this process, and the inode of its pidfd, in the variables of an input.
const OWN: u32 = 42;
const INODE: u64 = 7;

/// The result has one name for each descriptor. It is empty if the variables name another
/// process. A note is for the descriptor after the passed ones, and prints as text that parses to
/// the same note.
pub fn listen(data: &[u8]) {
    let mut input = Input::new(data);
    let given = input.byte();
    let value = |bit: u8, default: &'static str, input: &mut Input| match (given >> bit) & 1 {
        0 => Some(default.to_owned()),
        _ => (input.byte() % 8 > 0).then(|| input.text()),
    };
    let pid = value(0, "42", &mut input);
    let pidfd = value(1, "7", &mut input);
    let fds = value(2, "2", &mut input);
    let names = value(3, "one:two", &mut input);
    let note = value(4, "5=8:4711,0=any", &mut input);
    let values = [&pid, &pidfd, &fds, &names, &note];
    let inode = || (given & 0x80 == 0).then_some(INODE);
    let values = values.map(|value| value.as_deref().map(OsStr::new));
    let is = |text: &Option<String>, number: u64| {
        let digits = text.as_deref().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()) == Some(number)
    };
    match note::parse(values, (OWN, inode)) {
        Err(what) => check_printable(&what),
        Ok(None) => {
            let other = !is(&pid, OWN.into()) || pidfd.is_some() && !is(&pidfd, INODE);
            assert!(other || fds.is_none(), "{values:?} is for this process");
        }
        Ok(Some((found, parsed))) => {
            assert!(is(&pid, OWN.into()), "{values:?} is for another process");
            assert!(is(&fds, found.len() as u64), "{} names for {fds:?}", found.len());
            match &names {
                Some(names) if !found.is_empty() => assert_eq!(&found.join(":"), names),
                _ => assert!(found.iter().all(|name| name == "unknown"), "{found:?}"),
            }
            if let Some(parsed) = parsed {
                assert_eq!(parsed.ready, FIRST_INHERITED + found.len() as u32);
                assert_eq!(note::Note::parse(&parsed.to_text()), Some(parsed));
            }
        }
    }
}
