//! The files in include/ equal the generator's output for the current sources (A2).
//!
//! `KEEPSOCK_BLESS=1 cargo test --all-features --test abi header::` writes them.

mod generate;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use generate::{TOPICS, headers};

const BLESS: &str = "KEEPSOCK_BLESS=1 cargo test --all-features --test abi header::";

/// The most characters of a line.
const MAX_COLUMNS: usize = 100;

/// The most lines of a header.
const MAX_LINES: usize = 1500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The headers for the current sources: their paths below include/, and their texts.
pub fn generated() -> Result<&'static [(String, String)], &'static str> {
    static HEADERS: OnceLock<Result<Vec<(String, String)>, String>> = OnceLock::new();
    let headers = HEADERS.get_or_init(|| headers(root()));
    headers.as_deref().map_err(String::as_str)
}

/// A2: the committed headers are the generated headers, and there are no others.
#[test]
fn headers_are_up_to_date() {
    let generated = generated().unwrap_or_else(|faults| panic!("{faults}"));
    let include = root().join("include");
    if std::env::var_os("KEEPSOCK_BLESS").is_some() {
        fs::create_dir_all(include.join("keepsock")).unwrap();
        for (path, text) in generated {
            let path = include.join(path);
            // A concurrent test must not read a part of a file.
            if fs::read_to_string(&path).ok().as_ref() != Some(text) {
                let new = path.with_extension("new");
                fs::write(&new, text).unwrap();
                fs::rename(&new, &path).unwrap();
            }
        }
    }
    for (path, text) in generated {
        let committed = fs::read_to_string(include.join(path)).unwrap_or_default();
        assert_eq!(fault(path, text, &committed), None);
    }
    let found: BTreeSet<_> = fs::read_dir(include.join("keepsock"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<_> = TOPICS.iter().map(|topic| format!("{topic}.h")).collect();
    assert_eq!(found, expected);
}

/// A committed header that differs, or that has too many lines or too long ones.
fn fault(path: &str, generated: &str, committed: &str) -> Option<String> {
    let lines = generated.lines().count();
    if lines > MAX_LINES {
        return Some(format!("include/{path} has {lines} lines, more than {MAX_LINES}"));
    }
    let is_long = |line: &&str| line.chars().count() > MAX_COLUMNS;
    if let Some(line) = generated.lines().find(is_long) {
        return Some(format!(
            "include/{path}: more than {MAX_COLUMNS} characters in the line {line}"
        ));
    }
    let pairs = generated.lines().zip(committed.lines());
    let line = pairs.take_while(|(a, b)| a == b).count() + 1;
    (generated != committed)
        .then(|| format!("include/{path} is out of date at line {line}: {BLESS}"))
}

#[test]
fn check_reports_a_header_that_differs_or_is_too_long() {
    assert_eq!(fault("a.h", "1\n2\n", "1\n2\n"), None);
    for wrong in ["1\n3\n", "1\n", "1\n2"] {
        let fault = fault("a.h", "1\n2\n", wrong).unwrap();
        assert!(fault.starts_with("include/a.h is out of date at line "), "{fault}");
    }
    let long = "a".repeat(MAX_COLUMNS + 1);
    let fault_of_line = fault("a.h", &long, &long).unwrap();
    assert!(fault_of_line.starts_with("include/a.h: more than 100 characters"), "{fault_of_line}");
    let long = "\n".repeat(MAX_LINES + 1);
    let fault = fault("a.h", &long, &long).unwrap();
    assert_eq!(fault, "include/a.h has 1501 lines, more than 1500");
}
