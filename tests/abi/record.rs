//! The recorded ABI: what programs that were compiled with an earlier version rely on (A3).
//!
//! `record.txt` has a line for each function, type, member and number of the headers, with the version
//! that added it. `record.abi` has the types of the functions as a C compiler sees them, written by
//! abidw(1). A line that a later version adds is recorded by the command `RECORD`. A line that it changes
//! or removes breaks programs: the command refuses it, as long as the soname is the same.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::layout;
use crate::support::header::{self, Item, What, last_name, member_name};

const RECORD: &str = "KEEPSOCK_BLESS=1 cargo test --all-features --test abi record::";
const TEXT: &str = "tests/abi/record.txt";
const TYPES: &str = "tests/abi/record.abi";

/// The first line of the text: the part of the version that is in the soname.
const SONAME: &str = "soname ";

/// One fact that programs rely on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// The version that added it: `0.1`.
    since: String,
    fact: String,
}

/// By kind and name: `function keepsock_version`.
type Record = BTreeMap<String, Entry>;

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Added(String),
    /// A program that was compiled with the record does not work with the headers.
    Break(String),
    /// The comment of the header names another version than the record.
    Since(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(what) => write!(f, "added: {what}"),
            Self::Break(what) => write!(f, "breaks programs: {what}"),
            Self::Since(what) => write!(f, "wrong @since: {what}"),
        }
    }
}

/// The part of the version that the soname contains: a version that breaks the ABI has another major
/// version.
const ABI: &str = env!("CARGO_PKG_VERSION_MAJOR");

/// The version of new items.
const NOW: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// The version that `@since` of a comment names.
fn since(comment: &str) -> Option<&str> {
    let (_, version) = comment.split_once("@since ")?;
    let end = version.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(version.len());
    Some(version[..end].trim_end_matches('.'))
}

/// A declaration without the names of its parameters, which may change.
fn signature(item: &Item) -> String {
    let text = item.text.trim_start_matches("typedef ");
    let Some((before, list)) = text.rsplit_once('(') else { return text.to_owned() };
    let result = before.split("(*").next().unwrap_or(before).trim_end_matches(item.name());
    let types = list.trim_end_matches(')').split(',').map(|parameter| {
        let parameter = parameter.trim();
        let name = last_name(parameter);
        let is_type = name == "void" || name == parameter;
        // `char buf[16]` is a pointer.
        let array = if parameter.ends_with(']') { "*" } else { "" };
        let bare =
            if is_type { parameter } else { &parameter[..parameter.rfind(name).unwrap_or(0)] };
        format!("{}{array}", bare.trim_end())
    });
    format!("{} ({})", result.trim(), types.collect::<Vec<_>>().join(", "))
}

/// Whether later versions may add members: the caller states the size, and the structure is a member of no
/// other structure, except at the end of a structure that may grow.
fn may_grow(item: &Item, items: &[Item]) -> bool {
    let name = item.name();
    let own = item.members.first().is_some_and(|member| member.text == "size_t size");
    // The size is that of the last structure before it.
    let is_sized = |text: &str| {
        let before = text.split_once("size_t size").map_or("", |(before, _)| before);
        let pointers =
            before.split(',').rev().map(str::trim).find(|text| text.contains("keepsock_"));
        pointers
            .is_some_and(|text| text.trim_start_matches("const ").starts_with(&format!("{name} *")))
    };
    let passed = items.iter().any(|item| item.is_function() && is_sized(&item.text));
    let is_fixed_part = |other: &Item| {
        let of = |member: &Item| {
            member.text.split([' ', '[']).next() == Some(name) && !member.text.contains('*')
        };
        match other.members.split_last() {
            Some((last, before)) => before.iter().any(of) || of(last) && !may_grow(other, items),
            None => false,
        }
    };
    (own || passed) && !items.iter().any(is_fixed_part)
}

/// The facts of the headers, each header as its text.
fn record_of(headers: &[String], numbers: &BTreeMap<String, i64>) -> Record {
    let items: Vec<Item> = headers.iter().flat_map(|text| header::items(text)).collect();
    let places = layout::places(&items);
    let mut record = Record::new();
    for text in headers {
        // The comment of the file names the version of all items without one.
        let of_file = since(text).unwrap_or_default();
        for item in header::items(text) {
            let of_item = since(&item.comment).unwrap_or(of_file);
            let mut add = |kind: &str, name: &str, since: &str, fact: String| {
                let entry = Entry { since: since.to_owned(), fact };
                assert_eq!(record.insert(format!("{kind} {name}"), entry), None, "{name}");
            };
            let number = |name: &str| numbers.get(name).map_or_else(String::new, i64::to_string);
            match item.what() {
                // They change with each version.
                What::Macro(name) if name.starts_with("KEEPSOCK_VERSION_") => {}
                What::Macro(name) => add("number", name, of_item, number(name)),
                What::Function(name) => add("function", name, of_item, signature(&item)),
                What::Callback(name) => add("callback", name, of_item, signature(&item)),
                What::Typedef(name) => {
                    add("type", name, of_item, item.text.trim_start_matches("typedef ").to_owned())
                }
                What::Opaque(name) => add("type", name, of_item, "opaque".to_owned()),
                What::Enum(name) => {
                    add("type", name, of_item, "int32_t".to_owned());
                    for member in &item.members {
                        let name = member_name(member);
                        add(
                            "number",
                            name,
                            since(&member.comment).unwrap_or(of_item),
                            number(name),
                        );
                    }
                }
                What::Struct(name) => {
                    let size = &places[&(name.to_owned(), None)];
                    let fact = if may_grow(&item, &items) {
                        "a structure that may grow".to_owned()
                    } else {
                        format!("a structure of {size} bytes")
                    };
                    add("type", name, of_item, fact);
                    for member in &item.members {
                        let field = member_name(member);
                        let at = &places[&(name.to_owned(), Some(field.to_owned()))];
                        let since = since(&member.comment).unwrap_or(of_item);
                        add(
                            "member",
                            &format!("{name}.{field}"),
                            since,
                            format!("{at}: {}", member.text),
                        );
                    }
                }
            }
        }
    }
    record
}

fn write(record: &Record) -> String {
    let mut text = format!(
        "# The ABI that programs rely on: since when, what, and its type, value or place. Offsets and sizes are\n\
         # those of 64-bit systems, 32-bit systems, and 32-bit x86. Generated: {RECORD}\n\
         {SONAME}{}\n",
        ABI
    );
    for (name, Entry { since, fact }) in record {
        text += &format!("{since} {name} = {fact}\n");
    }
    text
}

/// The soname and the facts of a recorded text.
fn parse(text: &str) -> (String, Record) {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let (head, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with(SONAME));
    let entries = lines.into_iter().map(|line| {
        let (since, rest) = line.split_once(' ').expect("a version and a fact");
        let (name, fact) = rest.split_once(" = ").expect("a name and a fact");
        (name.to_owned(), Entry { since: since.to_owned(), fact: fact.to_owned() })
    });
    (head.concat().trim_start_matches(SONAME).to_owned(), entries.collect())
}

/// The differences between the headers and the record. New items name the version `now`.
fn changes(recorded: &Record, headers: &Record, now: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, old) in recorded {
        match headers.get(name) {
            None => changes.push(Change::Break(format!("{name} was removed"))),
            Some(new) if new.fact != old.fact => {
                changes
                    .push(Change::Break(format!("{name} was {}, and is {}", old.fact, new.fact)));
            }
            Some(new) if new.since != old.since => {
                changes.push(Change::Since(format!("{name}: {}, not {}", old.since, new.since)));
            }
            Some(_) => {}
        }
    }
    for (name, new) in headers.iter().filter(|(name, _)| !recorded.contains_key(*name)) {
        changes.push(Change::Added(name.clone()));
        if new.since != now {
            changes.push(Change::Since(format!("{name} is new: {now}, not {}", new.since)));
        }
    }
    changes
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn headers() -> Record {
    let texts: Vec<String> = header::paths().iter().map(|path| header::read(path)).collect();
    record_of(&texts, &crate::symbols::numbers_in_rust())
}

/// The soname and the facts of the committed record.
fn recorded() -> (String, Record) {
    parse(&fs::read_to_string(path(TEXT)).unwrap_or_default())
}

/// A3: a function, a type, a member or a number that is recorded is still there and still the same. New
/// ones are recorded, and their comments name this version.
#[test]
fn abi_of_headers_is_recorded() {
    let current = headers();
    assert!(current.len() > 600, "only {} facts", current.len());
    let (soname, recorded) = recorded();
    // Programs of another soname do not load this library.
    let mut changes = if soname == ABI { changes(&recorded, &current, NOW) } else { Vec::new() };
    if std::env::var_os("KEEPSOCK_BLESS").is_some() {
        changes.retain(|change| !matches!(change, Change::Added(_)));
        if changes.is_empty() {
            fs::write(path(TEXT), write(&current)).unwrap();
        }
    } else if soname != ABI {
        changes.push(Change::Added(format!("the soname {ABI}")));
    }
    let list: Vec<_> = changes.iter().map(Change::to_string).collect();
    assert!(list.is_empty(), "\n{}\n\nAdditions are recorded by {RECORD}", list.join("\n"));
}

/// C definitions of all functions, so that abidw(1) finds them and their types in the object code.
fn definitions(items: &[Item]) -> String {
    let mut source = "#include \"keepsock.h\"\n".to_owned();
    for item in items {
        match item.what() {
            What::Function(_) => source += &format!("{} {{ __builtin_trap(); }}\n", item.text),
            // The functions use int32_t: a type of its own has the values.
            What::Enum(name) => {
                let members = item.members.iter().map(member_name);
                let values: String = members.map(|m| format!("VALUE_{m} = {m}, ")).collect();
                source += &format!(
                    "enum values_{name} {{ {values} }};\n\
                     enum values_{name} values_of_{name}(void) {{ __builtin_trap(); }}\n"
                );
            }
            _ => {}
        }
    }
    source
}

/// Compiles `source` with the headers of `include`, and writes the types of its functions to `out`.
fn describe(source: &str, include: &Path, out: &Path) {
    let (file, object) = (out.with_extension("c"), out.with_extension("so"));
    fs::write(&file, source).unwrap();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut compile = Command::new(cc);
    compile.args(["-g", "-w", "-shared", "-fPIC", "-I"]).arg(include);
    run(compile.arg(&file).arg("-o").arg(&object));
    let mut abidw = Command::new("abidw");
    abidw.args(["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--no-elf-needed"]);
    abidw.args(["--type-id-style", "hash"]);
    run(abidw.arg("--out-file").arg(out).arg(&object));
    let _ = fs::remove_file(file);
    let _ = fs::remove_file(object);
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The report of abidiff(1), and whether it calls the difference incompatible.
fn abidiff(old: &Path, new: &Path) -> Option<(String, bool)> {
    if !old.exists() {
        return Some((format!("{} does not exist", old.display()), false));
    }
    let output = Command::new("abidiff").arg(old).arg(new).output().unwrap();
    let status = output.status.code().expect("an exit status");
    // abidiff(1): 1 and 2 are errors, 4 is a change, and 8 an incompatible one.
    assert_eq!(status & 3, 0, "{}", String::from_utf8_lossy(&output.stderr));
    (status != 0).then(|| (String::from_utf8_lossy(&output.stdout).into_owned(), status & 8 != 0))
}

/// Why abidiff(1) cannot compare here.
fn cannot_compare() -> Option<&'static str> {
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        return Some("record.abi is that of x86_64");
    }
    let is_there = |program| Command::new(program).arg("--version").output().is_ok();
    (!is_there("abidw") || !is_there("abidiff"))
        .then_some("abidw and abidiff (abigail-tools) are missing")
}

/// A3: abidiff finds no difference between the recorded types and those of the headers.
#[test]
fn abidiff_finds_no_change() {
    if let Some(reason) = cannot_compare() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        return println!("skipped: {reason}");
    }
    let new = scratch("current.abi");
    describe(&definitions(&header::items(&header::text())), &path("include"), &new);
    let is_new_soname = recorded().0 != ABI;
    let report = abidiff(&path(TYPES), &new);
    let may_record = report.as_ref().is_none_or(|(_, incompatible)| !incompatible) || is_new_soname;
    if std::env::var_os("KEEPSOCK_BLESS").is_some() && may_record {
        if report.is_some() {
            fs::rename(&new, path(TYPES)).unwrap();
        }
        return;
    }
    let _ = fs::remove_file(&new);
    assert!(report.is_none(), "{}\nAdditions are recorded by {RECORD}", report.unwrap().0);
}

fn scratch(name: &str) -> std::path::PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi");
    fs::create_dir_all(&dir).unwrap();
    dir.join(format!("{}-{name}", std::process::id()))
}

// ---- the checks find their faults ------------------------------------------------------------------

const SMALL: &str = "/** @since 0.1, unless */\n\
    typedef int32_t keepsock_color;\n\
    enum { KEEPSOCK_RED = 1, KEEPSOCK_BLUE = 2 };\n\
    typedef struct { int32_t a; int32_t b; } keepsock_point;\n\
    typedef struct { int64_t a; keepsock_point p; } keepsock_report;\n\
    typedef struct keepsock_thing keepsock_thing;\n\
    typedef void (*keepsock_done)(void *user);\n\
    int32_t keepsock_get(keepsock_thing *thing, keepsock_report *out, size_t size);\n\
    /** @since 0.2 */\n\
    const char *keepsock_name(const keepsock_thing *thing, char buf[16]);\n";

fn numbers() -> BTreeMap<String, i64> {
    [("KEEPSOCK_RED".to_owned(), 1), ("KEEPSOCK_BLUE".to_owned(), 2)].into()
}

/// The changes after `from` is replaced by `to` in the small header.
fn after(from: &str, to: &str) -> Vec<Change> {
    assert!(SMALL.contains(from), "{from}");
    let old = record_of(&[SMALL.to_owned()], &numbers());
    let (_, old) = parse(&write(&old));
    let mut numbers = numbers();
    if from == "KEEPSOCK_BLUE = 2" {
        numbers.insert("KEEPSOCK_BLUE".to_owned(), 3);
    }
    changes(&old, &record_of(&[SMALL.replace(from, to)], &numbers), "0.2")
}

#[test]
fn changes_that_break_programs_are_found() {
    let broken = |from: &str, to: &str, text: &str| {
        assert_eq!(after(from, to), [Change::Break(text.to_owned())], "{from}");
    };
    assert_eq!(after("@since 0.1", "@since 0.1"), []);
    broken(
        "typedef void (*keepsock_done)(void *user);\n",
        "",
        "callback keepsock_done was removed",
    );
    broken(
        "(void *user)",
        "(int32_t user)",
        "callback keepsock_done was void (void *), and is void (int32_t)",
    );
    broken(
        "const keepsock_thing *thing, char",
        "char",
        "function keepsock_name was const char * (const keepsock_thing *, char*), and is const char * (char*)",
    );
    broken("KEEPSOCK_BLUE = 2", "KEEPSOCK_BLUE = 3", "number KEEPSOCK_BLUE was 2, and is 3");
    // In the middle, and at the end of a structure that is a member of `keepsock_report`.
    assert_eq!(after("int64_t a;", "int64_t z; int64_t a;").len(), 4);
    assert!(after("int32_t b;", "int32_t b; int64_t c;").iter().any(|change| {
        *change
            == Change::Break(
                "type keepsock_point was a structure of 8 bytes, and is a structure of 16 bytes"
                    .to_owned(),
            )
    }));
}

#[test]
fn additions_and_wrong_versions_are_reported() {
    let added = "/** @since 0.2 */\nvoid keepsock_new(void);\n/** @since 0.2 */\nconst";
    assert_eq!(
        after("/** @since 0.2 */\nconst", added),
        [Change::Added("function keepsock_new".to_owned())]
    );
    let grown =
        after("keepsock_point p;", "keepsock_point p; /** @since 0.2 */ int32_t q; int32_t r;");
    assert_eq!(grown[..1], [Change::Added("member keepsock_report.q".to_owned())]);
    assert_eq!(grown.len(), 3, "r has the version of the header: {grown:?}");
    let wrong = after("@since 0.2", "@since 0.3");
    assert_eq!(wrong, [Change::Since("function keepsock_name: 0.2, not 0.3".to_owned())]);
    // The names of parameters may change.
    assert_eq!(after("void *user", "void *data"), []);
}

/// abidiff is active: it finds a changed parameter, and an enumerator with another number.
#[test]
fn abidiff_finds_a_changed_type() {
    if let Some(reason) = cannot_compare() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        return println!("skipped: {reason}");
    }
    let include = scratch("include");
    fs::create_dir_all(&include).unwrap();
    let describe_as = |name: &str, text: &str| {
        fs::write(
            include.join("keepsock.h"),
            format!("#include <stdint.h>\n#include <stddef.h>\n{text}"),
        )
        .unwrap();
        let out = scratch(name);
        describe(&definitions(&header::items(text)), &include, &out);
        out
    };
    let old = describe_as("old.abi", SMALL);
    for (from, to) in [
        ("KEEPSOCK_BLUE = 2", "KEEPSOCK_BLUE = 3"),
        ("(keepsock_thing *thing, keepsock_report *out", "(keepsock_report *out"),
    ] {
        let new = describe_as("new.abi", &SMALL.replace(from, to));
        assert!(abidiff(&old, &new).is_some(), "{from}");
    }
    let same = describe_as("new.abi", SMALL);
    assert_eq!(abidiff(&old, &same), None);
    let _ = fs::remove_dir_all(include);
}
