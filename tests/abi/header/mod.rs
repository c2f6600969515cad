//! The files in include/ equal the generator's output for the current sources (A2).
//!
//! `KEEPSOCK_BLESS=1 cargo test --all-features --test abi header::` writes them.

mod generate;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use generate::{TOPICS, headers};

const BLESS: &str = "KEEPSOCK_BLESS=1 cargo test --all-features --test abi header::";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A2: the committed headers are the generated headers, and there are no others.
#[test]
fn headers_are_up_to_date() {
    let generated = headers(root()).unwrap_or_else(|faults| panic!("{faults}"));
    let include = root().join("include");
    if std::env::var_os("KEEPSOCK_BLESS").is_some() {
        fs::create_dir_all(include.join("keepsock")).unwrap();
        for (path, text) in &generated {
            let path = include.join(path);
            // A concurrent test must not read a part of a file.
            if fs::read_to_string(&path).ok().as_ref() != Some(text) {
                let new = path.with_extension("new");
                fs::write(&new, text).unwrap();
                fs::rename(&new, &path).unwrap();
            }
        }
    }
    for (path, text) in &generated {
        let committed = fs::read_to_string(include.join(path)).unwrap_or_default();
        let differs = text.lines().zip(committed.lines()).position(|(a, b)| a != b);
        let line =
            differs.map_or_else(|| text.lines().count().min(committed.lines().count()), |n| n + 1);
        assert!(*text == committed, "include/{path} is out of date at line {line}: {BLESS}");
    }
    let found: BTreeSet<_> = fs::read_dir(include.join("keepsock"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<_> = TOPICS.iter().map(|topic| format!("{topic}.h")).collect();
    assert_eq!(found, expected);
}

/// Each header is short enough to read as a whole.
#[test]
fn header_has_at_most_1500_lines() {
    for (path, text) in headers(root()).unwrap() {
        let lines = text.lines().count();
        println!("{lines:5} {path}");
        assert!(lines <= 1500, "include/{path} has {lines} lines");
    }
}
