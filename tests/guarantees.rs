//! docs/guarantees.md lists the tests of each guarantee, and each guarantee has one.
//!
//! The page's upper part is written by hand. The lists of tests below it are generated:
//! `KEEPSOCK_BLESS=1 cargo test --all-features --test guarantees` writes them. CONTRIBUTING.md
//! describes how tests and gate steps name the guarantees that they verify.

#![allow(clippy::unwrap_used)] // A helper of a test is a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The guarantees of which nothing can be relied on yet. No test may name one of them: the change
/// that provides it removes it here and in docs/guarantees.md.
const NOT_YET_PROVIDED: [&str; 1] = ["A4"];

/// The family of the budgets. An entry in a table of `cargo xtask counts` or `cargo xtask ratios`
/// verifies a budget as a test does.
const BUDGETS: char = 'F';

/// The standards of the C language: `C` before one of these is no ID.
const C_STANDARDS: [&str; 4] = ["99", "11", "17", "23"];

const PAGE: &str = "docs/guarantees.md";
const MARKER: &str = "<!-- Generated below this line. -->";
const NOT_YET: &str = "**Not yet provided.**";
const BLESS: &str = "KEEPSOCK_BLESS=1 cargo test --all-features --test guarantees";

/// The folders whose comments and texts may name guarantees, in addition to the texts at the root.
const FOLDERS: [&str; 8] =
    ["benches", "c_examples", "docs", "examples", "fuzz", "src", "tests", "xtask"];

/// A file of the repository; the parts of its path are separated by `/`.
struct Source {
    path: String,
    text: String,
}

#[test]
fn guarantees_page_lists_the_tests_of_every_id() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = sources(root);
    let page = fs::read_to_string(root.join(PAGE)).unwrap();
    let (problems, generated) = check(&page, &sources, &NOT_YET_PROVIDED);
    if std::env::var_os("KEEPSOCK_BLESS").is_some() {
        fs::write(root.join(PAGE), &generated).unwrap();
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    let page = fs::read_to_string(root.join(PAGE)).unwrap();
    let difference = page.lines().zip(generated.lines()).find(|(old, new)| old != new);
    assert!(page == generated, "{PAGE} is out of date: {BLESS}\nfirst difference: {difference:?}");
}

/// Every file that may name a guarantee.
fn sources(root: &Path) -> Vec<Source> {
    fn read(root: &Path, path: &str, found: &mut Vec<Source>) {
        let full = root.join(path);
        if full.is_dir() {
            let entries = fs::read_dir(&full).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name != "target" && !name.starts_with('.'))
                .collect();
            names.sort();
            names.iter().for_each(|name| read(root, &format!("{path}/{name}"), found));
        } else if Language::of(path).is_some() {
            found.push(Source { path: path.to_owned(), text: fs::read_to_string(full).unwrap() });
        }
    }
    let mut found = Vec::new();
    for folder in FOLDERS.iter().filter(|folder| root.join(folder).is_dir()) {
        read(root, folder, &mut found);
    }
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            read(root, &name, &mut found);
        }
    }
    found
}

/// The problems, and the page as it must be.
fn check(page: &str, sources: &[Source], not_yet_provided: &[&str]) -> (Vec<String>, String) {
    let mut problems = Vec::new();
    let guarantees = guarantees(page, &mut problems);
    let known: BTreeSet<&str> = guarantees.iter().map(|(id, _)| *id).collect();
    let families: BTreeSet<char> = known.iter().map(|id| order(id).0).collect();

    let mut verifiers = Verifiers::new();
    for source in sources {
        if source.path.ends_with(".rs") {
            find_verifiers(source, &mut verifiers, &mut problems);
        }
        for (line, id) in mentions(source) {
            if families.contains(&order(&id).0) && !known.contains(id.as_str()) {
                problems.push(format!("{}:{line}: unknown ID {id}", source.path));
            }
        }
    }
    for (id, places) in &verifiers {
        if !known.contains(id.as_str()) {
            let (path, verifier) = places.first().unwrap();
            problems.push(format!("{path}: {verifier:?} names an unknown ID: {id}"));
        }
    }
    for (id, is_provided) in &guarantees {
        let listed = not_yet_provided.contains(id);
        match verifiers.get(*id).and_then(|places| places.first()) {
            None if *is_provided => problems.push(format!("{PAGE}: no test names {id}")),
            Some((path, verifier)) if !is_provided || listed => problems.push(format!(
                "{path}: {verifier:?} names {id}, which is not yet provided: if it is now, \
                 remove it from NOT_YET_PROVIDED and {NOT_YET} from {PAGE}"
            )),
            _ => (),
        }
        if listed == *is_provided {
            problems.push(format!("{id}: {PAGE} and NOT_YET_PROVIDED disagree"));
        }
    }
    for id in not_yet_provided.iter().filter(|id| !known.contains(*id)) {
        problems.push(format!("NOT_YET_PROVIDED has an unknown ID: {id}"));
    }
    (problems, generate(page, &guarantees, &verifiers))
}

// ---- IDs ---------------------------------------------------------------------------------------

/// Whether a word has the shape of an ID: a capital letter and a number from 1 to 99.
fn is_id(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_uppercase())
        && (2..=3).contains(&word.len())
        && !word[1..].starts_with('0')
        && word[1..].bytes().all(|digit| digit.is_ascii_digit())
}

/// IDs are sorted by family, then by number.
fn order(id: &str) -> (char, u32) {
    let mut letters = id.chars();
    (letters.next().unwrap_or(' '), letters.as_str().parse().unwrap_or(0))
}

/// The IDs in a line of text. Code spans, options of programs (`-O2`) and parts of longer names
/// have none.
fn ids_in(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+');
    let prose = text.split('`').step_by(2);
    let words = prose.flat_map(|prose| prose.split(move |c| !is_part(c)));
    words
        .filter(|word| {
            is_id(word) && !word.strip_prefix('C').is_some_and(|year| C_STANDARDS.contains(&year))
        })
        .collect()
}

/// The IDs at the start of `K3, K5: sentence`.
fn leading_ids(comment: &str) -> Option<Vec<&str>> {
    let (ids, sentence) = comment.split_once(": ")?;
    let ids: Vec<&str> = ids.split(", ").collect();
    (ids.iter().all(|id| is_id(id)) && !sentence.trim().is_empty()).then_some(ids)
}

/// Whether a comment begins with an ID, in whatever form.
fn begins_with_id(comment: &str) -> bool {
    comment.split(|c: char| !c.is_alphanumeric()).next().is_some_and(is_id)
}

// ---- the page ----------------------------------------------------------------------------------

/// The IDs of the page in its order, and whether each is provided.
fn guarantees<'a>(page: &'a str, problems: &mut Vec<String>) -> Vec<(&'a str, bool)> {
    let mut found: Vec<(&str, bool)> = Vec::new();
    let mut family = None;
    for line in by_hand(page).lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            family = heading.split_once(". ").and_then(|(letter, _)| letter.chars().next());
        }
        let Some(id) = line.strip_prefix("- [").and_then(|item| item.split(']').next()) else {
            continue;
        };
        if !is_id(id) {
            continue;
        }
        let start = format!("- [{id}](#{}) ", id.to_lowercase());
        if !line.starts_with(&start) {
            problems.push(format!("{PAGE}: the line of {id} must begin with `{start}`"));
        }
        if family != id.chars().next() {
            problems.push(format!("{PAGE}: {id} is below the heading of another family"));
        }
        if found.iter().any(|(other, _)| *other == id) {
            problems.push(format!("{PAGE}: {id} is defined twice"));
        }
        found.push((id, !line.contains(NOT_YET)));
    }
    found
}

/// The part of the page that is written by hand.
fn by_hand(page: &str) -> &str {
    page.split(MARKER).next().unwrap_or("").trim_end()
}

/// The page, with the list of the tests that verify each ID.
fn generate(page: &str, guarantees: &[(&str, bool)], verifiers: &Verifiers) -> String {
    let mut out =
        format!("{}\n\n{MARKER}\n\n## Tests\n\n`{BLESS}` writes this part.\n", by_hand(page));
    for (id, is_provided) in guarantees {
        writeln!(out, "\n### {id}\n").unwrap();
        if !is_provided {
            writeln!(out, "Not yet provided.").unwrap();
        }
        let mut files = BTreeMap::<&str, Vec<String>>::new();
        for (path, verifier) in verifiers.get(*id).into_iter().flatten() {
            files.entry(path).or_default().push(match verifier {
                Verifier::Test(name) => format!("`{name}`"),
                Verifier::Step(name) => format!("the step \"{name}\" of the full gate"),
                Verifier::Budget => "the budgets".to_owned(),
            });
        }
        for (path, names) in files {
            writeln!(out, "- [`{path}`](../{path}): {}", names.join(", ")).unwrap();
        }
    }
    out
}

// ---- verifiers -------------------------------------------------------------------

/// A test, gate step or budget that verifies guarantees.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verifier {
    /// A test function.
    Test(String),
    /// A step of `cargo xtask test --full`.
    Step(String),
    /// Entries in a table of budgets.
    Budget,
}

/// The verifiers of each ID, with the paths of their files.
type Verifiers = BTreeMap<String, BTreeSet<(String, Verifier)>>;

/// Finds the tests, gate steps and budgets of a Rust file.
fn find_verifiers(source: &Source, verifiers: &mut Verifiers, problems: &mut Vec<String>) {
    let Source { path, text } = source;
    let mut add = |id: &str, verifier| {
        verifiers.entry(id.to_owned()).or_default().insert((path.clone(), verifier));
    };
    let listed = listed_tests(text);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // The first line of the comment before an item, where it is, and the item's attributes.
    let (mut doc, mut plain, mut attributes) = (None, None, String::new());
    let mut in_attribute = false;
    for (n, line) in lines.iter().copied().enumerate() {
        if let Some(comment) = line.strip_prefix("///") {
            doc.get_or_insert((n + 1, comment.trim()));
            continue;
        }
        if let Some(comment) = line.strip_prefix("//") {
            plain.get_or_insert(comment.trim());
            continue;
        }
        if in_attribute || line.starts_with("#[") {
            attributes.push_str(line);
            // The attribute of a group of tests ends with the brace of the group.
            in_attribute = !line.ends_with([']', '{']);
            continue;
        }
        let is_test = |name: &str| attributes.contains("#[test]") || listed.contains(name);
        let test = function(line).filter(|name| is_test(name));
        if let Some((at, comment)) = doc.filter(|(_, comment)| begins_with_id(comment)) {
            match (leading_ids(comment), test) {
                (Some(ids), Some(name)) => {
                    ids.iter().for_each(|id| add(id, Verifier::Test(name.to_owned())));
                }
                (Some(_), None) => problems.push(format!(
                    "{path}:{at}: only a test begins with the ID of a guarantee: {comment}"
                )),
                (None, Some(_)) => problems
                    .push(format!("{path}:{at}: write IDs as in `K3, K5: sentence`: {comment}")),
                (None, None) => (),
            }
        }
        if path.starts_with("xtask/") {
            let code = format!("{line} {}", lines.get(n + 1).unwrap_or(&""));
            let name =
                code.split_once(".step(").and_then(|(_, call)| call.trim_start().strip_prefix('"'));
            let ids = plain.and_then(leading_ids);
            if let (Some(name), Some(ids), true) = (name, ids, line.contains(".step(")) {
                let name = name.split('"').next().unwrap_or(name);
                ids.iter().for_each(|id| add(id, Verifier::Step(name.to_owned())));
            }
            for literal in line.split('"').skip(1).step_by(2) {
                if is_id(literal) && order(literal).0 == BUDGETS {
                    add(literal, Verifier::Budget);
                }
            }
        }
        (doc, plain) = (None, None);
        attributes.clear();
    }
}

/// The name of the function that a line begins to define.
fn function(line: &str) -> Option<&str> {
    let words = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe "];
    let mut rest = line;
    while let Some(after) = words.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = after;
    }
    rest.strip_prefix("fn ")?.split(|c: char| !is_in_name(c)).next()
}

fn is_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The functions that a macro makes tests of: the names in `both_apis![...]`, and in other macros
/// whose name begins with `both_`.
fn listed_tests(text: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    for (at, _) in text.match_indices("both_") {
        if text[..at].ends_with(is_in_name) {
            continue;
        }
        let call = text[at..].trim_start_matches(is_in_name);
        let Some(list) = call.strip_prefix('!').and_then(in_brackets) else { continue };
        let names: Vec<&str> = list
            .lines()
            .map(|line| line.split("//").next().unwrap_or("").trim())
            // A group of names is in braces, after the attribute of its feature.
            .filter(|line| !line.starts_with("#["))
            .flat_map(|line| line.split([',', '{', '}']))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        // Other lists are within the definitions of the macros.
        if names.iter().all(|name| name.chars().all(is_in_name)) {
            tests.extend(names);
        }
    }
    tests
}

/// The text between the bracket at the start and the one that closes it.
fn in_brackets(text: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            return text.get(1..at);
        }
    }
    None
}

// ---- mentions ------------------------------------------------------------------------------------

/// How a file marks its comments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    C,
    /// `#` begins a comment.
    Script,
    Markdown,
}

impl Language {
    fn of(path: &str) -> Option<Language> {
        Some(match path.rsplit_once('.')?.1 {
            "rs" => Language::Rust,
            "c" | "h" | "cpp" | "hpp" => Language::C,
            "sh" | "py" | "txt" | "cmake" => Language::Script,
            "md" => Language::Markdown,
            _ => return None,
        })
    }
}

/// The IDs that comments and pages mention, each with its line. A string of a test that begins with
/// IDs (a row that the test prints) mentions them as well.
fn mentions(source: &Source) -> Vec<(usize, String)> {
    let Some(language) = Language::of(&source.path) else {
        return Vec::new();
    };
    let text = if source.path == PAGE { by_hand(&source.text) } else { &source.text };
    let (mut in_comment, mut in_code) = (false, false);
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let comment = match language {
            Language::Markdown => Some(line),
            Language::Rust => comment_after(line, "//"),
            Language::Script => comment_after(line, "#"),
            Language::C => {
                let begins = comment_after(line, "/*");
                let comment = if in_comment { Some(line) } else { begins };
                in_comment = comment.is_some_and(|comment| !comment.contains("*/"));
                comment.or_else(|| comment_after(line, "//"))
            }
        };
        if let Some(comment) = comment {
            let comment = comment.trim_start_matches(['/', '!', '*', ' ']);
            if comment.starts_with("```") {
                in_code = !in_code;
            } else if !in_code {
                found.extend(ids_in(comment).iter().map(|id| (n + 1, (*id).to_owned())));
            }
        } else {
            in_code = in_code && language == Language::Markdown;
        }
        if language == Language::Rust && !line.trim_start().starts_with("//") {
            for literal in line.split('"').skip(1).step_by(2) {
                let words = literal.split(' ').take_while(|word| is_id(word));
                found.extend(words.map(|id| (n + 1, id.to_owned())));
            }
        }
    }
    found
}

/// The comment in a line of code, unless its mark is within a string or an address.
fn comment_after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.match_indices(mark).find_map(|(at, _)| {
        let before = &line[..at];
        let is_code = before.matches('"').count() % 2 == 1;
        (!is_code && (before.is_empty() || before.ends_with(' '))).then(|| &line[at + mark.len()..])
    })
}

// ---- the check itself ----------------------------------------------------------------------------

/// Problems of a small page and a few files, each given as its path and its lines.
fn problems(page: &[&str], files: &[(&str, &[&str])], not_yet_provided: &[&str]) -> Vec<String> {
    let sources: Vec<Source> = files
        .iter()
        .map(|(path, lines)| Source { path: (*path).to_owned(), text: lines.join("\n") })
        .collect();
    check(&page.join("\n"), &sources, not_yet_provided).0
}

const SMALL: [&str; 6] = [
    "## S. Sockets",
    "- [S1](#s1) A socket has a name.",
    "- [S2](#s2) A socket can fly. **Not yet provided.**",
    "## F. Budgets",
    "- [F1](#f1) System calls of a cycle.",
    "",
];
/// Written so that the check of this file does not find it.
const UNKNOWN: &str = concat!('S', 70);
const TESTED: [&str; 3] = ["/// S1: a name is printed.", "#[test]", "fn name_prints() {"];
const BUDGET: [&str; 1] = ["    budget(\"F1\", CYCLE, 2.0),"];

/// One problem, which contains the text, is found in the small repository with one more file.
#[track_caller]
fn assert_problem(file: &str, lines: &[&str], expected: &str) {
    let files: [(&str, &[&str]); 3] =
        [("tests/name.rs", &TESTED), ("xtask/src/budgets.rs", &BUDGET), (file, lines)];
    let found = problems(&SMALL, &files, &["S2"]);
    assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
}

#[test]
fn check_accepts_a_complete_page() {
    let files: [(&str, &[&str]); 2] = [("tests/name.rs", &TESTED), ("xtask/budgets.rs", &BUDGET)];
    assert_eq!(problems(&SMALL, &files, &["S2"]), Vec::<String>::new());
}

#[test]
fn check_reports_an_id_without_test() {
    let found = problems(&SMALL, &[("xtask/src/budgets.rs", &BUDGET)], &["S2"]);
    assert_eq!(found, ["docs/guarantees.md: no test names S1"]);
    let found = problems(&SMALL, &[("tests/name.rs", &TESTED)], &["S2"]);
    assert_eq!(found, ["docs/guarantees.md: no test names F1"]);
    // The same comment above a helper function.
    let helper = ["/// S1: a name is printed.", "fn name_prints() {"];
    let files: [(&str, &[&str]); 2] = [("tests/name.rs", &helper), ("xtask/b.rs", &BUDGET)];
    let found = problems(&SMALL, &files, &["S2"]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("only a test begins with the ID"), "{found:?}");
}

#[test]
fn check_reports_an_unknown_id() {
    let test = ["/// S1, S9: it is unknown.", "#[test]", "fn name() {"];
    let files: [(&str, &[&str]); 2] = [("tests/name.rs", &test), ("xtask/b.rs", &BUDGET)];
    let found = problems(&SMALL, &files, &["S2"]);
    assert!(found.iter().any(|found| found.contains("names an unknown ID: S9")), "{found:?}");
    assert_problem("src/a.rs", &["//! What S3 says."], "src/a.rs:1: unknown ID S3");
    assert_problem("src/a.rs", &["let a = 1; // S3"], "unknown ID S3");
    assert_problem("tests/a.rs", &["row(\"S1 S3 the scene\", 1);"], "unknown ID S3");
    assert_problem("c_examples/a.c", &["/* A program.", "   See S3. */"], "a.c:2: unknown ID S3");
    assert_problem("README.md", &["The budget (F2) is met."], "unknown ID F2");
}

#[test]
fn check_reports_an_id_in_another_form() {
    for comment in ["/// S1 for files: text.", "/// S1.", "/// S1,S2: text.", "/// S1: "] {
        assert_problem("tests/a.rs", &[comment, "#[test]", "fn a() {"], "write IDs as in");
    }
}

#[test]
fn check_reports_a_test_of_an_id_that_is_not_yet_provided() {
    let test = ["/// S2: it flies.", "#[test]", "fn socket_flies() {"];
    assert_problem("tests/a.rs", &test, "names S2, which is not yet provided");
}

#[test]
fn check_reports_a_page_that_differs_from_the_list_of_missing_guarantees() {
    let files: [(&str, &[&str]); 2] = [("tests/name.rs", &TESTED), ("xtask/b.rs", &BUDGET)];
    let found = problems(&SMALL, &files, &[]);
    assert!(found.len() == 1 && found[0].contains("disagree"), "{found:?}");
    let found = problems(&SMALL, &files, &["S2", UNKNOWN]);
    assert!(found.len() == 1 && found[0].contains("has an unknown ID: S70"), "{found:?}");
}

#[test]
fn check_reports_a_page_in_another_form() {
    let files: [(&str, &[&str]); 1] = [("tests/name.rs", &TESTED)];
    let twice = ["## S. Sockets", "- [S1](#s1) A name.", "- [S1](#s1) A name."];
    assert_eq!(problems(&twice, &files, &[]), ["docs/guarantees.md: S1 is defined twice"]);
    let elsewhere = ["## T. Threads", "- [S1](#s1) A name."];
    assert!(problems(&elsewhere, &files, &[])[0].contains("another family"));
    let unlinked = ["## S. Sockets", "- [S1] A name."];
    assert!(problems(&unlinked, &files, &[])[0].contains("must begin with"));
}

#[test]
fn check_ignores_words_that_are_not_ids() {
    let files: [(&str, &[&str]); 3] = [
        ("tests/name.rs", &TESTED),
        ("xtask/b.rs", &BUDGET),
        ("src/a.rs", &["// C99, U8, `S3`, S07, UTF-8, -S3, IPv6", "let a = [S3, \"// S3\"];"]),
    ];
    assert_eq!(problems(&SMALL, &files, &["S2"]), Vec::<String>::new());
}

#[test]
fn page_lists_tests_steps_and_budgets() {
    let lists: [(&str, &[&str]); 4] = [
        (
            "tests/it/b.rs",
            &[
                "both_apis![",
                "    one, // first",
                "    two_both_kinds,",
                "    three,",
                "    #[cfg(feature = \"serve\")] {",
                "        four,",
                "    }",
                "];",
                "/// S1: x.",
                "fn three<A: Api>() {",
                "/// S1: x.",
                "#[cfg(feature = \"serve\")]",
                "fn four<A: Api>() {",
            ],
        ),
        ("tests/name.rs", &TESTED),
        ("xtask/src/b.rs", &BUDGET),
        ("xtask/src/suite.rs", &["// S1: a check.", "steps.step(", "    \"the step\","]),
    ];
    let sources: Vec<Source> = lists
        .iter()
        .map(|(path, lines)| Source { path: (*path).to_owned(), text: lines.join("\n") })
        .collect();
    let (found, page) = check(&SMALL.join("\n"), &sources, &["S2"]);
    assert_eq!(found, Vec::<String>::new());
    let generated = page.split_once("writes this part.\n").unwrap().1;
    let expected = [
        "",
        "### S1",
        "",
        "- [`tests/it/b.rs`](../tests/it/b.rs): `four`, `three`",
        "- [`tests/name.rs`](../tests/name.rs): `name_prints`",
        "- [`xtask/src/suite.rs`](../xtask/src/suite.rs): the step \"the step\" of the full gate",
        "",
        "### S2",
        "",
        "Not yet provided.",
        "",
        "### F1",
        "",
        "- [`xtask/src/b.rs`](../xtask/src/b.rs): the budgets",
        "",
    ];
    assert_eq!(generated, expected.join("\n"));
    assert_eq!(check(&page, &sources, &["S2"]).1, page, "generating it again changes nothing");
}
