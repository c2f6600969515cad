//! The fuzz targets: each function reads one input and panics if the library breaks a rule for it.
//!
//! `fuzz/` runs the functions with libFuzzer. The tests run them with the inputs of its corpus, so
//! `cargo test` shows a defect that fuzzing has found once. Normal builds do not contain this
//! module.

#![allow(clippy::unwrap_used, clippy::panic)] // A failed check is a finding.
#![cfg_attr(not(unix), allow(dead_code))]

mod endpoint;
mod framing;
mod framing_model;
#[cfg(feature = "activation")]
mod listen;
mod network;
#[cfg(unix)]
mod options;
mod proxy;
#[cfg(feature = "diag")]
mod segment;

pub use endpoint::endpoint;
pub use framing::framing;
#[cfg(test)]
pub(crate) use framing_model::{End, model, split_pieces};
#[cfg(feature = "activation")]
pub use listen::listen;
pub use network::network;
#[cfg(unix)]
pub use options::options;
pub use proxy::proxy;
#[cfg(feature = "diag")]
pub use segment::segment;

/// Reads values from the bytes of an input. After the end of the bytes each value is 0.
#[derive(Debug, Clone)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads from these bytes.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let given = self.take(N);
        bytes[..given.len()].copy_from_slice(given);
        bytes
    }

    /// At most `n` of the next bytes.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        now
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// A part of the bytes, whose length the next byte states.
    pub fn part(&mut self) -> &'a [u8] {
        let len = self.byte().into();
        self.take(len)
    }

    /// Text whose length the next byte states. Invalid bytes are replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.part()).into_owned()
    }

    /// A number below `n`, which is at most 256.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// One of the values.
    pub fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    /// A number: a small one, one near the limits of a type, or any other.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=127 => small.into(),
            edge @ 128..=223 => {
                let bits = u32::from((edge - 128) % 12);
                let power = [7, 8, 15, 16, 24, 31, 32, 33, 62, 63, 64, 20][bits as usize];
                let power = 1_u64.checked_shl(power).unwrap_or(0);
                power.wrapping_add(u64::from(edge - 128) / 12).wrapping_sub(4)
            }
            _ => u64::from_le_bytes(self.array()),
        }
    }

    /// Splits `bytes` into parts. The input determines their lengths.
    pub fn split(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let len = match self.byte() {
                // Without more input, the rest is one part.
                0 => bytes.len(),
                n => usize::from(n % 16).max(1).min(bytes.len()),
            };
            let (part, rest) = bytes.split_at(len);
            parts.push(part);
            bytes = rest;
        }
        parts
    }
}

/// Panics if a text could deceive the reader of a log: it must be one line without control
/// characters.
fn check_printable(text: &str) {
    let bad = text.chars().find(|c| c.is_control() || crate::types::escape::is_deceptive(*c));
    assert!(bad.is_none(), "{bad:?} in {text:?}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs the target with each file of its corpus.
    #[track_caller]
    fn replay(name: &str, target: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join("corpus").join(name);
        let files = fs::read_dir(&corpus).unwrap().map(|file| file.unwrap().path());
        let mut count = 0;
        for file in files {
            let input = fs::read(&file).unwrap();
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                panic!("{} fails", file.display());
            }
            count += 1;
        }
        assert!(count > 3, "{count} inputs in {}", corpus.display());
    }

    /// S4: the inputs of the fuzz target `endpoint`.
    #[test]
    fn endpoint_accepts_its_corpus() {
        replay("endpoint", super::endpoint);
    }

    /// V6: the inputs of the fuzz target `framing`.
    #[test]
    fn framing_accepts_its_corpus() {
        replay("framing", super::framing);
    }

    /// L7: the inputs of the fuzz target `listen`.
    #[test]
    #[cfg(feature = "activation")]
    fn listen_accepts_its_corpus() {
        replay("listen", super::listen);
    }

    /// V4: the inputs of the fuzz target `network`.
    #[test]
    fn network_accepts_its_corpus() {
        replay("network", super::network);
    }

    /// K1: the inputs of the fuzz target `options`.
    #[test]
    #[cfg(unix)]
    fn options_accepts_its_corpus() {
        replay("options", super::options);
    }

    /// S1: the inputs of the fuzz target `proxy`.
    #[test]
    fn proxy_accepts_its_corpus() {
        replay("proxy", super::proxy);
    }

    /// N2, N3: the inputs of the fuzz target `segment`.
    #[test]
    #[cfg(feature = "diag")]
    fn segment_accepts_its_corpus() {
        replay("segment", super::segment);
    }
}
