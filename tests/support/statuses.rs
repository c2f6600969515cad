//! Compares the status that a C function returned with the list in its documentation (A2).

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::header;

/// The statuses that the headers list for each function.
static LISTED: LazyLock<BTreeMap<String, BTreeSet<i32>>> =
    LazyLock::new(|| header::statuses(&header::items(&header::text())));

/// Fails the test if the functions that are called in the argument of the call at `from` do not
/// list the status that one of them returned. Returns how many functions were found there.
pub fn check(status: i32, message: &str, from: &Location<'_>) -> usize {
    let text = source(from.file());
    let start = offset(&text, from.line() as usize, from.column() as usize);
    let called: Vec<_> = functions(arguments(&text[start..])).collect();
    let is_listed = |name: &&str| may_return(name, status, message);
    assert!(
        called.is_empty() || called.iter().any(is_listed),
        "{} returned {status}, which its documentation does not list: {message:?}\n{from}",
        called.join(" or ")
    );
    called.len()
}

/// Whether the function's documentation lists that status, or the header's first page lists it for
/// all functions.
pub fn may_return(name: &str, status: i32, message: &str) -> bool {
    const PANIC: i32 = -6;
    const WRONG_STATE: i32 = -3;
    let freed = status == WRONG_STATE
        && message.contains("is a freed object, or an object of another type");
    freed || status == PANIC || LISTED.get(name).is_some_and(|list| list.contains(&status))
}

/// The source files of the calls.
fn source(file: &str) -> std::sync::Arc<str> {
    static FILES: Mutex<BTreeMap<String, std::sync::Arc<str>>> = Mutex::new(BTreeMap::new());
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    files.entry(file.to_owned()).or_insert_with(|| read().unwrap().into()).clone()
}

fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    before + column - 1
}

/// The text between the first parenthesis and the one that closes it.
fn arguments(call: &str) -> &str {
    let open = call.find('(').unwrap_or(0);
    let mut depth = 0;
    for (at, c) in call[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &call[open..open + at];
        }
    }
    call
}

/// The names of C functions in a piece of source text.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| LISTED.contains_key(*word))
}
