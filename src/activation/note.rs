//! The protocol by which a process passes sockets to the program that it starts: the variables of
//! sd_listen_fds(3), and a note for a successor.
//!
//! [`successor_environment`] writes the variables, [`parse`] reads them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::socket_file::Identity;
use crate::sys::FIRST_INHERITED;
use crate::types::endpoint::path_of;

// The variables of sd_listen_fds(3).

/// The number of the process that the descriptors are for.
pub(super) const LISTEN_PID: &str = "LISTEN_PID";
/// The number of descriptors.
pub(super) const LISTEN_FDS: &str = "LISTEN_FDS";
/// The names of the descriptors, separated by colons.
pub(super) const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// The inode of the process's pidfd, which newer versions of systemd set. An inode is never
/// reused, unlike a process number. The variable must not be passed to child processes.
pub(super) const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";

/// The [`Note`] of a predecessor.
pub(super) const HANDOVER: &str = "KEEPSOCK_HANDOVER";

/// The report of a successor that it is ready, all bytes that it sends on the channel.
pub(super) const READY_REPORT: &[u8] = b"1";

/// The process that systemd's watchdog expects messages from (sd_watchdog_enabled(3)). Without the
/// variable, any process of the service may send them.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The name of a descriptor without a name, as in sd_listen_fds_with_names(3).
const UNNAMED: &str = "unknown";

/// Marks a socket of a [`Note`] that was created with port 0.
const EPHEMERAL_PORT: &str = "any";

/// The largest number of descriptors that [`parse`] accepts. No process has more, and the vector
/// of their names must not use up the memory.
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// The largest length of a descriptor's name: FDNAME_MAX of systemd.
pub(super) const NAME_MAX: usize = 255;

/// Whether systemd accepts this name of a descriptor.
pub(super) fn is_valid_name(name: &str) -> bool {
    let is_printable = name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b':');
    !name.is_empty() && name.len() <= NAME_MAX && is_printable
}

/// The information that a predecessor passes with its sockets, as text:
/// `5=8:4711,0=any,1=64769:1234:/run/app.sock`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// The number of the descriptor on which the successor reports that it is ready.
    pub ready: u32,
    /// The identity of the socket on that descriptor. If another socket has the number now, an
    /// earlier process has left the variable behind.
    pub channel: Identity,
    /// The sockets that were created with port 0, counted from 0.
    pub ephemeral_ports: Vec<usize>,
    /// The socket files that must be removed when their sockets are closed.
    pub files: Vec<FileNote>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileNote {
    /// The number of the socket, counted from 0.
    pub index: usize,
    pub identity: Identity,
    pub path: PathBuf,
}

impl Note {
    pub(crate) fn to_text(&self) -> String {
        let (device, inode) = self.channel;
        let mut text = format!("{}={device}:{inode}", self.ready);
        for index in &self.ephemeral_ports {
            text += &format!(",{index}={EPHEMERAL_PORT}");
        }
        for FileNote { index, identity: (device, inode), path } in &self.files {
            text += &format!(",{index}={device}:{inode}:");
            for byte in path.as_os_str().as_encoded_bytes() {
                match byte {
                    b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                        text.push(char::from(*byte));
                    }
                    other => text += &format!("%{other:02x}"),
                }
            }
        }
        text
    }

    pub(crate) fn parse(text: &str) -> Option<Note> {
        let mut parts = text.split(',');
        let identity =
            |device: &str, inode: &str| Some((device.parse().ok()?, inode.parse().ok()?));
        let (ready, channel) = parts.next()?.split_once('=')?;
        let (device, inode) = channel.split_once(':')?;
        let channel = identity(device, inode)?;
        let (mut ephemeral_ports, mut files) = (Vec::new(), Vec::new());
        for part in parts {
            let (index, rest) = part.split_once('=')?;
            let index = index.parse().ok()?;
            if rest == EPHEMERAL_PORT {
                ephemeral_ports.push(index);
                continue;
            }
            let (device, rest) = rest.split_once(':')?;
            let (inode, path) = rest.split_once(':')?;
            let identity = identity(device, inode)?;
            files.push(FileNote { index, identity, path: unescape(path)? });
        }
        Some(Note { ready: ready.parse().ok()?, channel, ephemeral_ports, files })
    }
}

fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    Some(path_of(bytes))
}

/// The environment of a successor: the environment of this process, the names of the descriptors
/// and the note. The successor answers the watchdog, so WATCHDOG_PID, which names this process, is
/// not passed.
pub(super) fn successor_environment(names: &[&str], note: &Note) -> Vec<OsString> {
    let own = [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PIDFDID, HANDOVER, WATCHDOG_PID];
    let others = std::env::vars_os().filter(|(name, _)| own.iter().all(|own| name != own));
    let others = others.map(|(mut variable, value)| {
        variable.push("=");
        variable.push(value);
        variable
    });
    let new = [
        format!("{LISTEN_FDS}={}", names.len()),
        format!("{LISTEN_FDNAMES}={}", names.join(":")),
        format!("{HANDOVER}={}", note.to_text()),
    ];
    others.chain(new.map(OsString::from)).collect()
}

/// The names of the descriptors and the predecessor's note. `None`: this process was passed no
/// descriptors. The error says what is wrong with the variables.
pub(crate) type Parsed = std::result::Result<Option<(Vec<String>, Option<Note>)>, String>;

/// Parses the values of [`variables`](super::Activation::variables) for the process with the number
/// `own` and the pidfd inode that `inode` returns, if the kernel provides one.
pub(crate) fn parse(
    [pid, pidfd, fds, names, note]: [Option<&OsStr>; 5],
    (own, inode): (u32, impl FnOnce() -> Option<u64>),
) -> Parsed {
    let text = |name: &str, value: &OsStr| match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("{name}: {value:?} is not valid UTF-8")),
    };
    let number = |name: &str, value: &OsStr| {
        let text = text(name, value)?;
        // str::parse() accepts a sign.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<u64>().ok().filter(|_| digits);
        number.ok_or_else(|| format!("{name}: {text:?} is not a number"))
    };
    let (Some(pid), Some(fds)) = (pid, fds) else {
        return Ok(None);
    };
    if number(LISTEN_PID, pid)? != u64::from(own) {
        return Ok(None);
    }
    if let Some(pidfd) = pidfd {
        let pidfd = number(LISTEN_PIDFDID, pidfd)?;
        if inode().is_some_and(|own| own != pidfd) {
            return Ok(None);
        }
    }
    let count = number(LISTEN_FDS, fds)?;
    let count = u32::try_from(count).ok().filter(|count| u64::from(*count) <= MAX_DESCRIPTORS);
    let count = count
        .ok_or_else(|| format!("{LISTEN_FDS}: {fds:?} is not within 0 to {MAX_DESCRIPTORS}"))?;
    let names = match names {
        None => vec![UNNAMED.to_owned(); count as usize],
        Some(names) => {
            let names = text(LISTEN_FDNAMES, names)?;
            names.split(':').map(str::to_owned).take(count as usize + 1).collect()
        }
    };
    if names.len() != count as usize && count > 0 {
        return Err(format!(
            "{LISTEN_FDNAMES} does not have {count} names, the number in {LISTEN_FDS}"
        ));
    }
    let note = match note {
        None => None,
        Some(value) => {
            let text = text(HANDOVER, value)?;
            let note = Note::parse(&text);
            let note = note.ok_or_else(|| format!("{HANDOVER}: {text:?} is not a valid note"))?;
            Some(note).filter(|note| note.ready == FIRST_INHERITED + count)
        }
    };
    let names = if count == 0 { Vec::new() } else { names };
    Ok(Some((names, note)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pid: &str, fds: &str, names: Option<&str>, note: Option<&str>) -> Parsed {
        let values = [Some(pid), None, Some(fds), names, note];
        parse(values.map(|value| value.map(OsStr::new)), (42, || None))
    }

    /// L7: the same variables as in sd_listen_fds(3).
    #[test]
    fn parse_of_variables_matches_sd_listen_fds() {
        let names = |names: &[&str]| {
            Ok(Some((names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>(), None)))
        };
        assert_eq!(parsed("42", "2", None, None), names(&["unknown", "unknown"]));
        assert_eq!(parsed("42", "2", Some("a:b"), None), names(&["a", "b"]));
        assert_eq!(parsed("42", "2", Some("a:"), None), names(&["a", ""]));
        assert_eq!(parsed("42", "0", None, None), names(&[]));
        assert_eq!(parsed("42", "0", Some(""), None), names(&[]));
        assert_eq!(parsed("41", "2", None, None), Ok(None));
        assert_eq!(parsed("41", "garbage", None, Some("garbage")), Ok(None));
        assert_eq!(parse([None; 5], (42, || None)), Ok(None));
        let with_pidfd = |pidfd: &'static str, own| {
            let values = [Some("42"), Some(pidfd), Some("0"), None, None];
            parse(values.map(|value| value.map(OsStr::new)), (42, || own))
        };
        assert_eq!(with_pidfd("7", Some(7)), names(&[]));
        assert_eq!(with_pidfd("7", None), names(&[]));
        assert_eq!(with_pidfd("7", Some(8)), Ok(None));
        assert!(with_pidfd("seven", None).unwrap_err().contains("LISTEN_PIDFDID: \"seven\""));
        for (pid, fds, names, note, word) in [
            ("me", "1", None, None, "LISTEN_PID: \"me\" is not a number"),
            ("42", "-1", None, None, "LISTEN_FDS: \"-1\" is not a number"),
            ("42", "", None, None, "LISTEN_FDS: \"\" is not a number"),
            ("42", "+1", None, None, "LISTEN_FDS: \"+1\" is not a number"),
            ("+42", "1", None, None, "LISTEN_PID: \"+42\" is not a number"),
            ("42", "4000000000", None, None, "is not within 0 to"),
            ("42", "2", Some("a"), None, "does not have 2 names"),
            ("42", "2", Some("a:b:c"), None, "does not have 2 names"),
            ("42", "1", None, Some("4"), "KEEPSOCK_HANDOVER"),
            ("42", "1", None, Some("4=1:2,0=1:2"), "KEEPSOCK_HANDOVER"),
            ("42", "1", None, Some("4=1:2,0=1:2:%f"), "KEEPSOCK_HANDOVER"),
        ] {
            let why = parsed(pid, fds, names, note).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    /// L7: a successor receives the names of the files that it owns, with any bytes.
    #[test]
    #[cfg(unix)]
    fn note_of_any_path_round_trips() {
        use std::os::unix::ffi::OsStrExt;
        let file = |index, path: &[u8]| FileNote {
            index,
            identity: (7, u64::MAX),
            path: PathBuf::from(OsStr::from_bytes(path)),
        };
        let files = vec![file(0, b"/run/app.sock"), file(12, b"/a,b=c:d%e \xff\n")];
        for files in [vec![], files] {
            for ephemeral_ports in [vec![], vec![1, 7]] {
                let files = files.clone();
                let note = Note { ready: 3, channel: (8, 4711), ephemeral_ports, files };
                assert_eq!(Note::parse(&note.to_text()), Some(note));
            }
        }
        let files = vec![file(0, b"/run/app.sock")];
        let note = Note { ready: 5, channel: (8, 4711), ephemeral_ports: vec![1], files };
        assert_eq!(note.to_text(), format!("5=8:4711,1=any,0=7:{}:/run/app.sock", u64::MAX));
    }

    #[test]
    fn is_valid_name_accepts_what_systemd_accepts() {
        assert!(is_valid_name("http") && is_valid_name("a b") && is_valid_name(&"x".repeat(255)));
        for name in ["", "a:b", "a\nb", "ä", &"x".repeat(256)] {
            assert!(!is_valid_name(name), "{name:?}");
        }
    }
}
