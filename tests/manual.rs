//! The pages of the manual, docs/*.md, README.md, ARCHITECTURE.md, CONTRIBUTING.md and SECURITY.md,
//! name only functions, tests and files that exist, and their C examples compile. src/manual.rs has the checks that need private items of the crate.

// The C examples use poll(2).
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

/// Names that have the prefix of the C API and do not belong to it: environment variables of the
/// tests, and options of the CMake project.
const OTHER_NAMES: [&str; 6] = [
    "KEEPSOCK_BLESS",
    "KEEPSOCK_FAULTS_ONLY",
    "KEEPSOCK_PROPERTIES",
    "KEEPSOCK_VALGRIND",
    "keepsock_linux",
    "keepsock_portable",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a directory with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The pages: their names and texts.
fn pages() -> Vec<(String, String)> {
    let mut paths = files(&root().join("docs"), "md");
    assert!(paths.len() >= 4, "{paths:?}");
    let at_root = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
    paths.extend(at_root.map(|name| root().join(name)));
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// A page with this text, for the tests of the checks.
fn page(text: &str) -> (String, String) {
    ("docs/page.md".to_owned(), text.to_owned())
}

fn matches<'t>(pattern: &str, text: &'t str) -> BTreeSet<&'t str> {
    Regex::new(pattern).unwrap().find_iter(text).map(|found| found.as_str()).collect()
}

/// A comment in a header may name a function that was removed, so comments do not count.
fn words_of_headers() -> BTreeSet<String> {
    let comment = Regex::new(r"(?s)/\*.*?\*/|//[^\n]*").unwrap();
    let mut words = BTreeSet::new();
    for path in files(&root().join("include"), "h") {
        let text = fs::read_to_string(path).unwrap();
        let code = comment.replace_all(&text, "");
        words.extend(matches(r"\b(?:keepsock|KEEPSOCK)_\w+", &code).into_iter().map(String::from));
    }
    words
}

/// A2: each C function, type and constant that a page names is declared in a header.
#[test]
fn manual_names_only_what_the_headers_declare() {
    let declared = words_of_headers();
    assert!(declared.len() > 200, "only {declared:?}: are the headers read correctly?");
    let unknown = undeclared(&pages(), &declared);
    assert!(unknown.is_empty(), "not declared in include/:\n{}", unknown.join("\n"));
}

fn undeclared(pages: &[(String, String)], declared: &BTreeSet<String>) -> Vec<String> {
    let mut unknown = Vec::new();
    for (page, text) in pages {
        for word in matches(r"\b(?:keepsock|KEEPSOCK)_\w+", text) {
            // `KEEPSOCK_ERR_` names a group.
            let is_group = word.ends_with('_') && declared.iter().any(|d| d.starts_with(word));
            if !declared.contains(word) && !is_group && !OTHER_NAMES.contains(&word) {
                unknown.push(format!("{page}: {word}"));
            }
        }
    }
    unknown
}

#[test]
fn check_reports_a_name_that_no_header_declares() {
    let declared = ["keepsock_client_read", "KEEPSOCK_ERR_CLOSED"].map(str::to_owned).into();
    let page =
        page("keepsock_client_read() and KEEPSOCK_ERR_*, KEEPSOCK_BLESS, keepsock_client_red()");
    assert_eq!(undeclared(&[page], &declared), ["docs/page.md: keepsock_client_red"]);
}

/// The public names of each type in src/: functions, fields, variants and trait functions. The sources
/// are formatted by rustfmt, so items of a block are indented by four spaces.
fn names_in_source(texts: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let block = Regex::new(
        r"^(?:pub(?:\([\w ]+\))? )?(?:unsafe )?(?:(?:enum|trait|struct) (\w+)|impl(?:<.*?>)? (?:.* for )?(?:\w+::)*(\w+))",
    )
    .unwrap();
    let item = Regex::new(
        r"^    (?:pub (?:const |unsafe )*fn (\w+)|((?:unsafe )?fn) (\w+)|pub (\w+): |([A-Z]\w*)(?:,|\(| \{| =))",
    )
    .unwrap();
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for text in texts {
        let mut current: Option<(String, bool)> = None;
        for line in text.lines() {
            if let Some(found) = block.captures(line) {
                let name = found.get(1).or(found.get(2)).unwrap().as_str().to_owned();
                names.entry(name.clone()).or_default();
                current = line.ends_with('{').then(|| (name, line.contains("trait ")));
                // A long head ends in a later line.
                if !line.ends_with([';', '}', '{']) {
                    let name = found.get(1).or(found.get(2)).unwrap().as_str().to_owned();
                    current = Some((name, line.contains("trait ")));
                }
            } else if line == "}" {
                current = None;
            } else if let (Some((name, is_trait)), Some(found)) = (&current, item.captures(line)) {
                let private = found.get(2).is_some() && !is_trait;
                if let Some(item) = found.get(1).or(found.get(3)).or(found.get(4)).or(found.get(5))
                {
                    if !private {
                        names.entry(name.clone()).or_default().insert(item.as_str().to_owned());
                    }
                }
            }
        }
    }
    names
}

/// Each `Type::name` in backticks of a page exists in src/.
#[test]
fn manual_names_only_what_the_crate_has() {
    let sources = files(&root().join("src"), "rs");
    let texts: Vec<_> = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let names = names_in_source(&texts);
    assert!(names["ClientSocket"].contains("connect_with"), "{:?}", names["ClientSocket"]);
    assert!(names["ErrorKind"].contains("NotFound") && names["Handler"].contains("on_data"));
    let unknown = unknown_items(&pages(), &names);
    assert!(unknown.is_empty(), "not in src/:\n{}", unknown.join("\n"));
}

fn unknown_items(
    pages: &[(String, String)],
    names: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut unknown = Vec::new();
    let path = Regex::new(r"`([A-Z]\w*)::(\w+)").unwrap();
    for (page, text) in pages {
        for found in path.captures_iter(text) {
            if names.get(&found[1]).is_none_or(|names| !names.contains(&found[2])) {
                unknown.push(format!("{page}: {}::{}", &found[1], &found[2]));
            }
        }
    }
    unknown
}

#[test]
fn check_reports_an_item_that_the_crate_does_not_have() {
    let source =
        "impl A {\n    pub fn read(&self) {}\n    fn own(&self) {}\n}\nenum B {\n    One,\n}\n";
    let names = names_in_source(&[source.to_owned()]);
    let page = page("`A::read`, `B::One`, `A::own`, `A::write`, `C::read`");
    let unknown = ["A::own", "A::write", "C::read"].map(|item| format!("docs/page.md: {item}"));
    assert_eq!(unknown_items(&[page], &names), unknown);
}

/// The source of a C example. An example without functions is the body of a function, after its
/// `#include` lines.
fn c_source(example: &str) -> String {
    if example.lines().any(|line| line == "{") {
        return example.to_owned();
    }
    let (includes, body): (Vec<_>, Vec<_>) =
        example.lines().partition(|line| line.starts_with("#include"));
    let (includes, body) = (includes.join("\n"), body.join("\n"));
    format!(
        "{includes}\n#include <keepsock.h>\n#include <stdio.h>\nvoid example(void);\n\
         void example(void)\n{{\n{body}\n}}\n"
    )
}

/// Compiles C sources, each with its origin. The first warning is an error.
fn compile(sources: &[(String, String)], further: &[&str]) -> Result<(), String> {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manual");
    fs::create_dir_all(&directory).unwrap();
    for (number, (origin, source)) in sources.iter().enumerate() {
        let name = origin.replace('/', "-");
        let file = directory.join(format!("{}-{name}-{number}.c", std::process::id()));
        fs::write(&file, source).unwrap();
        let mut compile = Command::new(&cc);
        compile.args(["-fsyntax-only", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
        compile.args(further).arg("-I").arg(root().join("include")).arg(&file);
        let output =
            compile.output().unwrap_or_else(|e| panic!("a C compiler is needed: {cc}: {e}"));
        fs::remove_file(&file).unwrap();
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{origin}: example {number}:\n{messages}\n{source}"));
        }
    }
    Ok(())
}

#[test]
fn check_reports_a_c_example_with_a_warning() {
    let example = |body: &str| [("docs/page.md".to_owned(), c_source(body))];
    assert_eq!(compile(&example("puts(keepsock_version());"), &[]), Ok(()));
    let fault = compile(&example("int unused;"), &[]).unwrap_err();
    assert!(fault.starts_with("docs/page.md: example 0:") && fault.contains("unused"), "{fault}");
}

/// A2: the C examples of the pages compile without a warning.
#[test]
fn c_examples_of_the_manual_compile() {
    let fence = Regex::new(r"(?ms)^```c\n(.*?)^```$").unwrap();
    let mut sources = Vec::new();
    for (page, text) in pages() {
        for found in fence.captures_iter(&text) {
            // The examples of README.md are programs.
            let is_program = page == "README.md";
            let source = if is_program { found[1].to_owned() } else { c_source(&found[1]) };
            assert!(!is_program || source.contains("\nint main(void)\n"), "{page}: {source}");
            sources.push((page.clone(), source));
        }
    }
    assert!(sources.len() >= 3, "only {} C examples were found", sources.len());
    compile(&sources, &[]).unwrap_or_else(|fault| panic!("{fault}"));
}

/// The source of an example in a header. Functions come first, then the statements of a function
/// that has these objects.
fn c_source_of_header(example: &str) -> String {
    let end = example.rfind("\n}\n").filter(|_| example.starts_with("static "));
    let (functions, statements) = example.split_at(end.map_or(0, |at| at + 3));
    format!(
        "#define _POSIX_C_SOURCE 200809L\n#include <keepsock.h>\n#include <inttypes.h>\n\
         #include <poll.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <time.h>\n\
         extern keepsock_server *server;\nextern keepsock_client *client;\n\
         extern keepsock_service *service;\nextern keepsock_handler handler;\n\
         extern keepsock_datagram *datagram;\n\
         {functions}\nvoid example(void);\nvoid example(void)\n{{\n{statements}}}\n"
    )
}

/// A2: the C examples in the headers compile without a warning.
#[test]
fn c_examples_of_the_headers_compile() {
    let code = Regex::new(r"(?ms)^ \* @code\n(.*?)^ \* @endcode$").unwrap();
    let mut sources = Vec::new();
    for path in files(&root().join("include"), "h") {
        let text = fs::read_to_string(&path).unwrap();
        for found in code.captures_iter(&text) {
            let lines = found[1].lines().map(|line| line.trim_start_matches(" *"));
            let example: String =
                lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            sources.push((name, c_source_of_header(&example)));
        }
    }
    assert!(sources.len() >= 6, "only {} C examples were found", sources.len());
    // A callback of an example does not use each of its parameters.
    compile(&sources, &["-Wno-unused-parameter"]).unwrap_or_else(|fault| panic!("{fault}"));
}

/// The anchor that a Markdown heading has on the usual hosts.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Links to other files of the repository, and to headings, lead somewhere.
#[test]
fn links_of_the_manual_resolve() {
    let broken = broken_links(&pages());
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

fn broken_links(pages: &[(String, String)]) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut broken = Vec::new();
    for (page, text) in pages {
        let directory = root().join(page).parent().unwrap().to_owned();
        for target in link.captures_iter(text).map(|found| found[1].to_owned()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { root().join(page) } else { directory.join(file) };
            let resolves = path.exists()
                && (heading.is_empty() || {
                    let text = fs::read_to_string(&path).unwrap();
                    let headings = text.lines().filter(|line| line.starts_with('#'));
                    headings.map(|h| anchor(h.trim_start_matches('#'))).any(|a| a == heading)
                });
            if !resolves {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    broken
}

/// The directories that a page may leave out of the path of a file.
const BASES: [&str; 4] = ["", "src", "include", "xtask"];

/// Each path in backticks with a directory and the extension of a source is the path of a file.
#[test]
fn manual_names_only_files_that_exist() {
    let missing = missing_files(&pages());
    assert!(missing.is_empty(), "no such file:\n{}", missing.join("\n"));
}

fn missing_files(pages: &[(String, String)]) -> Vec<String> {
    let path = Regex::new(r"`((?:[\w.-]+/)+(?:[\w-]+\.(?:rs|h|c|md|txt|toml))?)`").unwrap();
    let mut missing = Vec::new();
    for (page, text) in pages {
        for file in path.captures_iter(text).map(|found| found[1].to_owned()) {
            if !BASES.iter().any(|base| root().join(base).join(&file).exists()) {
                missing.push(format!("{page}: {file}"));
            }
        }
    }
    missing
}

#[test]
fn check_reports_a_missing_file() {
    let page = page("`src/lib.rs`, `io/backoff.rs`, `src/ffi/`, `src/none.rs`, `src/none/`");
    let missing = ["src/none.rs", "src/none/"].map(|file| format!("docs/page.md: {file}"));
    assert_eq!(missing_files(&[page]), missing);
}

#[test]
fn check_reports_a_broken_link() {
    let page =
        page("[a](../README.md) [b](none.md) [c](../CONTRIBUTING.md#prose) [d](../README.md#none)");
    let broken = ["none.md", "../README.md#none"].map(|target| format!("docs/page.md: {target}"));
    assert_eq!(broken_links(&[page]), broken);
}

/// Each defense that SECURITY.md lists has a test, and the test exists.
#[test]
fn security_page_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let mut sources = files(&root().join("tests"), "rs");
    sources.extend(files(&root().join("src"), "rs"));
    let texts = sources.iter().map(|path| fs::read_to_string(path).unwrap());
    let tests: BTreeSet<String> = texts.flat_map(|text| names_of_tests(&text)).collect();
    assert!(tests.len() > 1000, "only {} tests", tests.len());
    let problems = undefended(&page, &tests);
    assert!(problems.is_empty(), "SECURITY.md:\n{}", problems.join("\n"));
}

/// The functions with `#[test]`, and the functions in a list of a macro whose name begins with `both_`.
fn names_of_tests(text: &str) -> BTreeSet<String> {
    let function = Regex::new(r"(?m)#\[test\]\n(?:\s*(?:#\[.*\]|//.*)\n)*\s*fn (\w+)").unwrap();
    let list = Regex::new(r"(?s)both_\w+!\s*[\[\{(](.*?)\n[\]\})]").unwrap();
    let mut names: BTreeSet<_> =
        function.captures_iter(text).map(|found| found[1].to_owned()).collect();
    for found in list.captures_iter(text) {
        names.extend(matches(r"\w+_\w+", &found[1]).into_iter().map(str::to_owned));
    }
    names
}

/// The defenses without a test, and the tests that do not exist.
fn undefended(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let section = page.split("\n## Defenses\n").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| attack ");
    let mut problems = Vec::new();
    for row in section.lines().filter(is_row) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let named: Vec<&str> = match cells[..] {
            [_, _, named] => named.split('`').skip(1).step_by(2).collect(),
            _ => Vec::new(),
        };
        if named.is_empty() {
            problems.push(format!("no test: {row}"));
        }
        let missing = named.iter().filter(|name| !tests.contains(**name));
        problems.extend(missing.map(|name| format!("no such test: {name}")));
    }
    if section.is_empty() {
        problems.push("no section \"Defenses\"".to_owned());
    }
    problems
}

#[test]
fn check_reports_a_defense_without_a_test() {
    let text = "#[test]\n#[ignore]\nfn a_is_b() {\n\nfn c_is_d() {\nboth_apis![\n    e_is_f,\n];\n";
    let tests = names_of_tests(text);
    assert_eq!(tests, ["a_is_b", "e_is_f"].map(str::to_owned).into());
    let page = "# S\n\n## Defenses\n| attack | defense | tests |\n|---|---|---|\n\
                | x | y | `a_is_b`, `c_is_d` |\n| z | y | none |\n\n## Other\n| a | b | c |\n";
    let wrong = ["no such test: c_is_d", "no test: | z | y | none |"];
    assert_eq!(undefended(page, &tests), wrong);
    assert_eq!(undefended("# S\n", &tests), ["no section \"Defenses\""]);
}
